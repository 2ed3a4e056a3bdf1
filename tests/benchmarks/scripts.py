"""A script over a table, block by block: against the loop that reads, computes and writes in turn."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gdalbridge import ratapplier
from ratzarr import RatZarr
from tests.benchmarks.columns import make
from tests.benchmarks.contest import Bar, Result, compare, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

BLOCK = 100_000
NOT_SLOWER = Bar(1.0)
READ = ("count", "mean", "class")


def _area(count: np.ndarray) -> np.ndarray:
    return count * 0.09


def _shown(mean: np.ndarray, kind: np.ndarray) -> np.ndarray:
    return np.where(kind < 10, mean, np.sqrt(np.abs(mean)))


def _script(info: object, inputs: Any, outputs: Any) -> None:
    outputs.seg.area = _area(inputs.seg.count)
    outputs.seg.shown = _shown(inputs.seg.mean, getattr(inputs.seg, "class"))


def main(scale: Scale) -> Iterator[Result]:
    """Compare a script of three columns read and two written."""
    rows = min(scale.rows)
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        given, path = Path(scratch, "given.rat.zarr"), Path(scratch, "work.rat.zarr")
        with RatZarr(given) as table:
            table.setRowCount(rows)
            for name in READ:
                values = make(name, rows)
                table.createColumn(name, values.dtype)
                table.writeBlock(name, values, 0)

        def fresh() -> None:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(given, path)

        def loop(block: int) -> None:
            with RatZarr(path) as table:
                for name in ("area", "shown"):
                    table.createColumn(name, np.float64)
                for start in range(0, rows, block):
                    length = min(block, rows - start)
                    count, mean, kind = (table.readBlock(name, start, length) for name in READ)
                    table.writeBlock("area", _area(count), start)
                    table.writeBlock("shown", _shown(mean, kind), start)

        def applied() -> None:
            both = ratapplier.RatAssociations()
            both.seg = ratapplier.RatZarrHandle(str(path))
            ratapplier.apply(_script, both, both)

        seconds = compare(
            {
                "ratzarr": applied,
                "a loop": lambda: loop(BLOCK),
                "a loop over whole chunks": lambda: loop(500_000),
            },
            scale.rounds,
            fresh,
        )
        what = f"script, 3 columns read and 2 written, {rows / 1e6:g} M rows"
        yield result(what, "a loop", seconds, NOT_SLOWER)
        yield result(what, "a loop over whole chunks", seconds, None)
