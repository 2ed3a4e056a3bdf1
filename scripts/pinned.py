"""Install what a requirements file pins, by pip, whatever a user's settings say but the index.

Used by environment.py; the standard library only.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"

# Settings of pip that say where packages come from, and how to get there. All others are kept from
# it: a `target`, `user` or `no-binary` that is meant for other work would spoil the environment.
INDEX_SETTINGS = frozenset(
    {
        "cache-dir",
        "cert",
        "client-cert",
        "default-timeout",
        "extra-index-url",
        "find-links",
        "index-url",
        "keyring-provider",
        "no-cache-dir",
        "no-index",
        "proxy",
        "retries",
        "timeout",
        "trusted-host",
    }
)


class CannotMakeError(Exception):
    """The environment could not be made; the message says why, in words."""


class NotHereError(Exception):
    """The machine has not what the environment stands on; the message says what is missing."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def digest(*parts: bytes | str) -> str:
    """Return a hash of the parts that no other sequence of parts shares."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()


def clean_environment() -> dict[str, str]:
    """Return the variables for a child, without those that lead Python or pip astray."""
    unwanted = ("PIP_", "PYTHON", "VIRTUAL_ENV", "__PYVENV", "CONDA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def run(command: list[str], env: Mapping[str, str], *, what: str) -> str:
    """Run a command that speaks only when it fails.

    Raises
    ------
    CannotMakeError
        The command failed; the message holds the end of what it wrote.
    """
    done = subprocess.run(
        command,
        env=dict(env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise CannotMakeError(f"{what} failed (exit {done.returncode}):\n{tail}")
    return done.stdout


class Pip:
    """pip in one environment, with the user's index settings and no others."""

    def __init__(self, python: Path) -> None:
        self.python = python
        self.env = clean_environment() | self._index_settings()
        # No file of settings is read: what counts of it is in the variables by now.
        self.env["PIP_CONFIG_FILE"] = os.devnull

    def _index_settings(self) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        # `pip config` has options of these names, which narrow what it lists: a user's setting for
        # another command (`user = true`) must not reach it.
        given |= {"PIP_USER": "0", "PIP_GLOBAL": "0", "PIP_SITE": "0", "PIP_QUIET": "0"}
        listed = run(
            [str(self.python), "-I", "-m", "pip", "config", "list"],
            clean_environment() | given,
            what="reading pip's settings",
        )
        settings: dict[str, str] = {}
        # pip lists what it would use, as `section.name='value'`; later sections win over "global",
        # and variables over all.
        for section in ("global", "install", ":env:"):
            for line in listed.splitlines():
                name, _, value = line.partition("=")
                if not name.startswith(section + "."):
                    continue
                name = name.removeprefix(section + ".")
                if name in INDEX_SETTINGS:
                    text = " ".join(str(ast.literal_eval(value)).split())
                    settings["PIP_" + name.upper().replace("-", "_")] = text
        return settings

    def __call__(self, *arguments: str, what: str, env: Mapping[str, str] | None = None) -> None:
        command = [str(self.python), "-I", "-m", "pip", *arguments]
        options = ["-qq", "--disable-pip-version-check", "--no-input"]
        run([*command, *options], self.env | dict(env or {}), what=what)

    def install(self, requirements: Path) -> None:
        # Wheels only: a package built from source here would bring unhashed build tools with it.
        # No resolving: the file is complete, which `pip check` confirms afterwards.
        self(
            *("install", "--require-hashes", "--only-binary", ":all:", "--no-deps"),
            # Python compiles what is imported, a quarter of all modules.
            "--no-compile",
            *("-r", str(requirements)),
            what=f"installing {requirements.name} (only this first time needs a network)",
        )


type Layer = tuple[str, Callable[[Pip], None]]
"""A hash of what is installed, and the function that installs it."""


def pins(requirements: Path) -> str:
    """Return what counts in a requirements file: all but the comments."""
    lines = requirements.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def layer(requirements: Path) -> Layer:
    """Return a layer that installs a file of pinned requirements."""

    def install(pip: Pip) -> None:
        count = pins(requirements).count("==")
        what = "1 package" if count == 1 else f"{count} packages"
        say(f"installing {what} ({requirements.relative_to(ROOT)}) ...")
        pip.install(requirements)

    return digest(pins(requirements)), install


def without(requirements: str, unwanted: str) -> str:
    """Return the text of a requirements file with one package left out.

    Raises
    ------
    CannotMakeError
        The package isn't in it exactly once.
    """
    # One requirement is a line and its continuations, which are marked by a backslash.
    entries = requirements.replace("\\\n", "\0").splitlines()
    kept = [entry for entry in entries if not entry.startswith(unwanted + "==")]
    if len(kept) != len(entries) - 1:
        raise CannotMakeError(f"expected {unwanted} once in the pinned requirements")
    return "\n".join(kept).replace("\0", "\\\n") + "\n"
