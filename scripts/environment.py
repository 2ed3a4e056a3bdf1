"""Make the project's virtual environments, once, from pinned and hashed requirements.

An environment is a directory with a stamp: a JSON file that says from what it was made. When the
stamp tells the present truth nothing is done at all, so a second run needs neither pip nor a
network. The stamp is taken away before anything is changed and put back when all is done: an
environment that was interrupted has none, and is made anew.

    environment.py demo          .venv with what is needed to run
    environment.py test          .venv with what the tests need on top
    environment.py bench         .venv-bench with what the benchmarks compare with
    environment.py debian        .venv-debian-gdal: the same tools, GDAL built for Debian's libgdal
    environment.py requirements  .venv-requirements: what rewrites the pinned requirements

Only the standard library is used; the interpreter that runs this is the one the environment gets.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
import venv
from collections.abc import Mapping

import debian_gdal
from pinned import (
    REQUIREMENTS,
    ROOT,
    CannotMakeError,
    Layer,
    NotHereError,
    Pip,
    clean_environment,
    digest,
    layer,
    pins,
    run,
    say,
    without,
)

DEBIAN = ".venv-debian-gdal"
PROJECT = "project"
STAMP = "ratzarr-stamp.json"
# Kept when an environment is made anew: compiling GDAL's bindings takes minutes.
WHEELS = "wheels"

EXIT_FAILED = 1
EXIT_NOT_HERE = 3
"""What was asked for can't be made on this machine, and the reason is on standard output."""


class Environment:
    """A virtual environment below the project's root, made of layers of requirements."""

    def __init__(self, name: str) -> None:
        self.path = ROOT / name
        self.python = self.path / "bin" / "python"
        self.stamp = self.path / STAMP
        # The scripts in it name its path, and its python is a link to the interpreter.
        self.base = digest(str(self.path), os.path.realpath(sys.executable), sys.version)

    def made_from(self) -> dict[str, str]:
        """Return what the environment was made from, by layer; empty when it must be made anew."""
        try:
            found = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            return {}
        sound = (
            isinstance(found, dict)
            and found.get("base") == self.base
            and os.access(self.python, os.X_OK)
        )
        return found if sound else {}

    def ensure(self, layers: Mapping[str, Layer]) -> None:
        """Bring the environment to the state that `layers` describe.

        Parameters
        ----------
        layers
            Name of a layer: (hash of what it is made from, function that installs it). They are
            installed in order. A layer that changed means a new environment, so that nothing of
            its old state is left over to be imported by mistake; but for the project itself,
            which is only linked.
        """
        made = self.made_from()
        if PROJECT in layers and made.get(PROJECT) != layers[PROJECT][0]:
            made.pop(PROJECT, None)
        changed = [name for name, (key, _) in layers.items() if made.get(name, key) != key]
        if changed or not made:
            made = {}
        missing = [name for name in layers if name not in made]
        if not missing:
            return
        started = time.monotonic()
        self.stamp.unlink(missing_ok=True)
        if not made:
            version = ".".join(map(str, sys.version_info[:3]))
            say(f"making {self.path.name} with Python {version} ({sys.executable})")
            self._make()
            made = {"base": self.base}
        pip = Pip(self.python)
        for name in missing:
            key, install = layers[name]
            if name == PROJECT:
                # The packages are whole; this last step may be tried again upon them.
                self._write(made)
            install(pip)
            made[name] = key
        pip("check", what="checking the installed packages against each other")
        self._write(made)
        say(f"{self.path.name} is ready, {time.monotonic() - started:.0f} s")

    def _write(self, made: Mapping[str, str]) -> None:
        fresh = self.stamp.with_suffix(".new")
        fresh.write_text(json.dumps(made, indent=1) + "\n")
        fresh.replace(self.stamp)

    def _make(self) -> None:
        if self.path.is_symlink() or self.path.is_file():
            self.path.unlink()
        if self.path.is_dir():
            for child in self.path.iterdir():
                if child.name == WHEELS:
                    continue
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child)
                else:
                    child.unlink()
        builder = venv.EnvBuilder(symlinks=True, with_pip=False, prompt=self.path.name)
        builder.create(self.path)
        run(
            [str(self.python), "-I", "-m", "ensurepip", "--upgrade", "--default-pip"],
            clean_environment(),
            what=f"putting pip into {self.path.name}",
        )


def project() -> Layer:
    """Return the layer that installs the project itself, editable."""
    description = (ROOT / "pyproject.toml").read_bytes()

    def install(pip: Pip) -> None:
        pip(
            *("install", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--force-reinstall", "-e", str(ROOT)),
            what="installing the project itself",
        )

    return digest(description), install


def make_demo() -> None:
    Environment(".venv").ensure(
        {"run": layer(REQUIREMENTS / "run.txt"), PROJECT: project()},
    )


def make_test() -> None:
    Environment(".venv").ensure(
        {
            "run": layer(REQUIREMENTS / "run.txt"),
            "test": layer(REQUIREMENTS / "test.txt"),
            PROJECT: project(),
        },
    )


def make_bench() -> None:
    Environment(".venv-bench").ensure(
        {
            "run": layer(REQUIREMENTS / "run.txt"),
            "bench": layer(REQUIREMENTS / "bench.txt"),
            PROJECT: project(),
        },
    )


def make_requirements() -> None:
    Environment(".venv-requirements").ensure({"uv": layer(REQUIREMENTS / "uv.txt")})


def make_debian() -> None:
    version = debian_gdal.installed_version(ROOT / DEBIAN / "apt.log")
    environment = Environment(DEBIAN)
    # The very same tools as in the main environment, with another GDAL.
    tools = ROOT / DEBIAN / "test-without-gdal-wheel.txt"
    text = without(pins(REQUIREMENTS / "test.txt"), "gdal-wheel")

    def install_tools(pip: Pip) -> None:
        tools.write_text(text)
        layer(tools)[1](pip)

    environment.ensure(
        {
            "test": (digest(text), install_tools),
            "gdal-build": layer(REQUIREMENTS / "gdal-build.txt"),
            "gdal": debian_gdal.bindings(version, ROOT / DEBIAN / WHEELS),
            PROJECT: project(),
        },
    )
    print(f"Debian's GDAL {version}")


MAKERS = {
    "demo": (make_demo, "run.txt"),
    "test": (make_test, "run.txt"),
    "bench": (make_bench, "bench.txt"),
    "debian": (make_debian, "gdal-build.txt"),
    "requirements": (make_requirements, "uv.txt"),
}
"""How to make each, and the file of requirements that is locked meanwhile."""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in MAKERS:
        say(f"usage: environment.py {'|'.join(MAKERS)}")
        return 2
    make, locked = MAKERS[arguments[0]]
    # Two makes of one environment would undo each other's work: the later waits.
    with (REQUIREMENTS / locked).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            make()
        except NotHereError as reason:
            print(reason)
            return EXIT_NOT_HERE
        except CannotMakeError as problem:
            say(f"environment.py: {problem}")
            return EXIT_FAILED
        except KeyboardInterrupt:
            say("environment.py: interrupted; the next run begins anew")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
