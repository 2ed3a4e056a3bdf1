"""Write requirements/*.txt anew from pyproject.toml: pinned, hashed, for every platform.

    make requirements              keep the versions that still fit, add what is missing
    make requirements UPGRADE=1    take the newest of everything

Where packages are looked for is uv's own affair (UV_DEFAULT_INDEX and the like); the files say
nothing of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"

# The version of libgdal in a Debian release is that of the bindings.
DEBIAN_GDAL = {"Debian 12": "3.6.2", "Debian 13": "3.10.3"}
UV = "uv==0.13.9"

OPTIONS = [
    "--quiet",
    "--no-config",
    "pip",
    "compile",
    "--universal",
    "--python-version=3.12",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-header",
    "--no-annotate",
]


def compile_file(name: str, *sources: str, text: str = "", about: str, options: str = "") -> None:
    """Write one requirements file.

    Parameters
    ----------
    name
        File name below requirements/.
    *sources
        Arguments that say what to compile.
    text
        Requirements given as they are, instead of sources.
    about
        A comment for the top of the file.
    options
        Further options, separated by blanks.
    """
    target = REQUIREMENTS / name
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch) / "given.in"
        given.write_text(text)
        if text:
            sources = (str(given),)
        upgrade = ["--upgrade"] if os.environ.get("UPGRADE") else []
        uv = ROOT / ".venv-requirements" / "bin" / "uv"
        # The target is read as well: the versions in it are kept unless they no longer fit.
        command = [str(uv), *OPTIONS, *upgrade, *options.split(), *sources, "-o", str(target)]
        subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    target.write_text(f"# {about}\n# Written by `make requirements`.\n{target.read_text()}")
    print(f"{target.relative_to(ROOT)}: {target.read_text().count('==')} packages")


def main() -> int:
    compile_file(
        "run.txt",
        *("--extra", "gdal-wheel", "--group", "build", "pyproject.toml"),
        about="To run: what `make demo` installs.",
    )
    compile_file(
        "test.txt",
        *("--extra", "gdal-wheel", "--extra", "test", "--group", "build"),
        *("-c", "requirements/run.txt", "pyproject.toml"),
        about="To test: what `make test` installs; holds everything of run.txt.",
    )
    compile_file(
        "bench.txt",
        *("--extra", "gdal-wheel", "--group", "build", "--group", "bench"),
        *("-c", "requirements/test.txt", "pyproject.toml"),
        about="To measure: what `make bench` installs; holds everything of run.txt.",
    )
    compile_file(
        "gdal-build.txt",
        *("--group", "gdal-build"),
        about="To compile GDAL's bindings for a system's libgdal, besides numpy.",
    )
    for release, version in DEBIAN_GDAL.items():
        compile_file(
            f"debian-gdal-{version}.txt",
            text=f"GDAL=={version}\n",
            about=f"GDAL's bindings for the libgdal of {release}.",
            options="--no-deps",
        )
    compile_file("uv.txt", text=UV + "\n", about="What `make requirements` itself runs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
