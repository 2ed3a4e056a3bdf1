"""What starting costs: imports, and the command's help."""

import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks.contest import Bar, Result, Spread, compare, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main(scale: Scale) -> Iterator[Result]:
    """Compare with zarr's own import, which ratzarr needs."""
    seconds = compare(
        {
            "ratzarr": lambda: _python("-c", "import ratzarr"),
            "import zarr": lambda: _python("-c", "import zarr"),
            "gdalbridge --help": lambda: _python("-m", "gdalbridge", "--help"),
        },
        scale.rounds,
    )
    yield result("import ratzarr", "import zarr", seconds, Bar(1.5))
    yield Result(
        "gdalbridge --help",
        "a limit in milliseconds",
        Spread.of([1e3 * one for one in seconds["gdalbridge --help"]]),
        Bar(300),
        unit="ms",
    )
