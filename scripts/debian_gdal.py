"""GDAL's own Python bindings for the libgdal of a Debian system: found, installed, compiled.

Used by environment.py; the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pinned import REQUIREMENTS, CannotMakeError, Layer, NotHereError, Pip, digest, pins, run, say


def as_root(command: list[str], *, log: Path) -> None:
    """Run a command of the system's package manager.

    Raises
    ------
    NotHereError
        We are not root and can't become it without a password.
    CannotMakeError
        The command failed.
    """
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        probe = [sudo or "", "-n", "true"]
        if sudo is None or subprocess.run(probe, capture_output=True, check=False).returncode:
            raise NotHereError(
                "libgdal-dev or gdal-bin is not installed, and this user may not install it; as "
                "root: apt-get install libgdal-dev g++ gdal-bin"
            )
        command = [sudo, "-n", "DEBIAN_FRONTEND=noninteractive", *command]
    with log.open("ab") as out:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise CannotMakeError(f"{' '.join(command)} failed (log: {log}):\n{tail}")


def installed_version(log: Path) -> str:
    """Return the version of Debian's libgdal, installing its headers where that is possible.

    Raises
    ------
    NotHereError
        There is no apt-get, or no right to use it.
    CannotMakeError
        Installing failed, or there is no pinned GDAL for the version.
    """
    if shutil.which("apt-get") is None:
        raise NotHereError(
            "there is no apt-get here, so no Debian libgdal; it runs on Debian 12 and 13"
        )
    # ogrinfo is for tests of the vector driver, in both environments.
    tools = ("gdal-config", "g++", "ogrinfo")
    if any(shutil.which(tool) is None for tool in tools):
        say("installing libgdal-dev, g++ and gdal-bin with apt-get (for the tests) ...")
        log.parent.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        as_root(["apt-get", "update", "-q"], log=log)
        as_root(
            [
                *("apt-get", "install", "-q", "-y", "--no-install-recommends"),
                *("libgdal-dev", "g++", "gdal-bin"),
            ],
            log=log,
        )
        for tool in tools:
            if shutil.which(tool) is None:
                raise CannotMakeError(f"{tool} is not on PATH, even after installing it ({log})")
    version = run(["gdal-config", "--version"], os.environ, what="gdal-config").strip()
    if not (REQUIREMENTS / f"debian-gdal-{version}.txt").exists():
        known = sorted(p.stem.rpartition("-")[2] for p in REQUIREMENTS.glob("debian-gdal-*.txt"))
        raise CannotMakeError(
            f"gdal-config says GDAL {version}, and only {', '.join(known)} are pinned in "
            "requirements/ (Debian 12 and 13). Leave the second environment out with\n"
            "    make test DEBIAN_GDAL=no\n"
            f"or pin it: add {version} to scripts/compile_requirements.py, run make requirements"
        )
    return version


def bindings(version: str, wheels: Path) -> Layer:
    """Return a layer that installs GDAL's own Python bindings, compiled for the system's libgdal.

    Parameters
    ----------
    version
        That of libgdal.
    wheels
        Directory where a compiled wheel is kept for later.
    """
    requirements = REQUIREMENTS / f"debian-gdal-{version}.txt"
    tag = f"{version}-{sys.implementation.cache_tag}"
    wheels = wheels / tag

    def install(pip: Pip) -> None:
        found = list(wheels.glob("*.whl"))
        if not found:
            say(f"compiling GDAL {version} for the system's libgdal, a minute or two ...")
            wheels.mkdir(parents=True, exist_ok=True)
            pip(
                *("wheel", "--require-hashes", "--no-binary", ":all:", "--no-build-isolation"),
                *("--no-deps", "--no-cache-dir", "--wheel-dir", str(wheels)),
                *("-r", str(requirements)),
                what=f"compiling GDAL {version}",
                # Optimising the wrappers takes twice the time and gains the tests nothing.
                env={"CFLAGS": "-O0 -w", "CXXFLAGS": "-O0 -w"},
            )
            found = list(wheels.glob("*.whl"))
        pip(
            *("install", "--no-deps", "--no-index", "--force-reinstall", str(found[0])),
            what=f"installing GDAL {version}",
        )
        # gdal_array is left out without a word when numpy was not seen while compiling.
        probe = (
            "from osgeo import gdal, gdal_array; gdal.UseExceptions(); "
            f"assert gdal.__version__ == {version!r}, gdal.__version__; "
            "assert gdal.GetDriverByName('HFA') is not None, 'no HFA driver'"
        )
        run([str(pip.python), "-I", "-c", probe], pip.env, what=f"trying out GDAL {version}")

    return digest(pins(requirements), tag), install
