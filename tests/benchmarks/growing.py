"""Time against rows, and memory: ten times the rows take ten times as long, in the same memory."""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.contest import Bar, Result, Spread
from tests.benchmarks.scale import Scale

__all__ = ["main"]

LINEAR = Bar(11)
FLAT = Bar(1.1)
# In a process of its own, for its peak of memory: blocks made, written, and read again.
WORK = """
import json, sys, time
import numpy as np
from tests.memory import peak
from ratzarr import RatZarr
path, rows = sys.argv[1], int(sys.argv[2])
block = np.random.default_rng(0).normal(size=min(rows, 500_000))
began = time.perf_counter()
with RatZarr(path) as table:
    table.setRowCount(rows)
    table.createColumn("a", np.float64)
    for start in range(0, rows, 500_000):
        table.writeBlock("a", block[: rows - start], start)
wrote = time.perf_counter()
with RatZarr(path, readOnly=True) as table:
    for start in range(0, rows, 500_000):
        table.readBlock("a", start, 500_000)
read = time.perf_counter()
used = peak()
print(json.dumps({"write": wrote - began, "read": read - wrote, "peak": used}))
"""
# The same bytes, not packed, in plain files: how the disk and its cache grow.
FLOOR = """
import json, sys, time
from pathlib import Path
import numpy as np
path, rows = Path(sys.argv[1]), int(sys.argv[2])
path.mkdir()
block = np.random.default_rng(0).normal(size=min(rows, 500_000))
began = time.perf_counter()
for start in range(0, rows, 500_000):
    block[: rows - start].tofile(path / str(start))
wrote = time.perf_counter()
for start in range(0, rows, 500_000):
    np.fromfile(path / str(start))
print(json.dumps({"write": wrote - began, "read": time.perf_counter() - wrote}))
"""


def main(scale: Scale) -> Iterator[Result]:
    """Run each size several times, in turn."""
    found: dict[int, list[dict[str, float]]] = {rows: [] for rows in scale.growing}
    floor: dict[int, list[dict[str, float]]] = {rows: [] for rows in scale.growing}
    for _ in range(scale.rounds):
        for rows in scale.growing:
            found[rows].append(_run(scale, WORK, rows))
            floor[rows].append(_run(scale, FLOOR, rows))
    sizes = list(found)
    for few, many in itertools.pairwise(sizes):
        for what in ("write", "read"):
            pairs = zip(floor[many], floor[few], strict=True)
            yield Result(
                f"{what}, {many} rows, numpy files",
                f"{few} rows",
                Spread.of([one[what] / other[what] for one, other in pairs]),
                None,
            )
            pairs = zip(found[many], found[few], strict=True)
            yield Result(
                f"{what}, {many} rows",
                f"{few} rows",
                Spread.of([one[what] / other[what] for one, other in pairs]),
                LINEAR,
                seconds={
                    f"{rows} rows": statistics.median(run[what] for run in found[rows])
                    for rows in (few, many)
                },
            )
    few, many = (sizes[-2], sizes[-1])
    peaks = zip(found[many], found[few], strict=True)
    yield Result(
        f"peak memory, {many} rows",
        f"{few} rows",
        Spread.of([one["peak"] / other["peak"] for one, other in peaks]),
        FLAT,
    )


def _run(scale: Scale, program: str, rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        path = str(Path(scratch, "t.rat.zarr"))
        command = [sys.executable, "-c", program, path, str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
