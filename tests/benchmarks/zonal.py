"""Zonal statistics: against GDAL reading the same windows, and nothing else."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from osgeo import gdal

from ratzarr import RatZarr
from tests.benchmarks.contest import Bar, Result, Spread, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

READING = Bar(3)
PEAK = Bar(700)
LINEAR = Bar(11)
BANDS = 3
STRIP = 1024
"""Lines that are made at a time; a multiple of GDAL's tiles."""
# Each in a process of its own, for its peak of memory.
OURS = """
import json, sys, time
from gdalbridge import zonal
from tests.memory import peak

began = time.perf_counter()
zonal(*sys.argv[1:3], stats=["count", "mean", "stddev", "min", "max"], overwrite=True)
print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak()}))
"""
# All bands with one call, as a careful program would.
GDAL_ALONE = """
import json, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from osgeo import gdal
from gdalbridge.gdalio.pixels import Pixels
from ratzarr.pipeline import PROCESSORS
from tests.memory import peak

gdal.UseExceptions()
with Pixels(sys.argv[1]) as zones:
    windows = zones.windows()
mine = threading.local()

def read(window):
    if not hasattr(mine, "rasters"):
        mine.rasters = [gdal.Open(name) for name in sys.argv[1:3]]
    for raster in mine.rasters:
        raster.ReadAsArray(window.x, window.y, window.width, window.height)

began = time.perf_counter()
with ThreadPoolExecutor(PROCESSORS) as pool:
    for _ in pool.map(read, windows):
        pass
print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak()}))
"""
PANDAS = """
import json, sys, time
import pandas
from osgeo import gdal
from tests.memory import peak

gdal.UseExceptions()
began = time.perf_counter()
segments, image = (gdal.Open(name).ReadAsArray() for name in sys.argv[1:3])
for band in image:
    pixels = pandas.DataFrame({"row": segments.reshape(-1), "value": band.reshape(-1)})
    pixels.groupby("row")["value"].agg(["count", "mean", "std", "min", "max"])
print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak()}))
"""


def main(scale: Scale) -> Iterator[Result]:
    """Count, mean, standard deviation, minimum and maximum of three bands, for each segment."""
    few_pixels, pixels = scale.pixels
    few, some, many = scale.segments
    ours = "zonal statistics"
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        small = _rasters(Path(scratch, "small"), few_pixels, some)
        at = {
            count: _rasters(Path(scratch, f"{count}"), pixels, count) for count in scale.segments
        }
        runs: dict[str, tuple[str, Sequence[str]]] = {
            ours: (OURS, at[some]),
            "GDAL reading": (GDAL_ALONE, at[some]),
            f"{few_pixels:,} pixels": (OURS, small),
            f"{few:,} segments": (OURS, at[few]),
            f"{many:,} segments": (OURS, at[many]),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        names = list(runs)
        for turn in range(scale.rounds + 1):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                took = _run(*runs[name])
                # The first of each writes new columns, which the others replace.
                if turn:
                    found[name].append(took)
        pandas = _run(PANDAS, at[some])
    seconds = {name: [run["seconds"] for run in each] for name, each in found.items()}
    seconds["pandas"] = [pandas["seconds"]] * scale.rounds
    size = f"{pixels:,} pixels, {some:,} segments, {BANDS} bands"
    work = f"zonal statistics, {size}"
    yield result(work, "GDAL reading", seconds, READING, ours=ours)
    peaks = [run["peak"] for run in found[ours]]
    yield Result(f"peak memory, {work}", "a limit in MiB", Spread.of(peaks), PEAK, unit="MiB")
    yield result(work, "pandas", seconds, None, ours=ours, remark="pandas was run once")
    yield Result(
        f"peak memory, pandas' groupby of whole arrays, {size}",
        "",
        Spread.of([pandas["peak"]]),
        None,
        unit="MiB",
    )
    yield result(work, f"{few_pixels:,} pixels", seconds, LINEAR, ours=ours)
    yield result(work, f"{few:,} segments", seconds, LINEAR, ours=ours)
    more = f"{many:,} segments"
    seconds[f"{some:,} segments"] = seconds[ours]
    yield result(
        f"zonal statistics, {pixels:,} pixels, {more}, {BANDS} bands",
        f"{some:,} segments",
        seconds,
        LINEAR,
        ours=more,
    )


def _run(program: str, rasters: Sequence[str]) -> dict[str, float]:
    command = [sys.executable, "-c", program, *rasters]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _rasters(folder: Path, pixels: int, segments: int) -> tuple[str, str]:
    """Write a segmentation with a table, and an image; return their paths.

    The segments are squares, numbered row by row. The image is noise about a slope, which is packed
    to about two thirds. Both are tiled and deflated, as most rasters are.
    """
    folder.mkdir()
    side, size = round(pixels**0.5), max(1, round((pixels / segments) ** 0.5))
    across = -(-side // size)
    paths = str(folder / "segments.tif"), str(folder / "image.tif")
    options = ["TILED=YES", "COMPRESS=DEFLATE", "ZLEVEL=1", "PREDICTOR=2", "NUM_THREADS=ALL_CPUS"]
    driver = gdal.GetDriverByName("GTiff")
    zones = driver.Create(paths[0], side, side, 1, gdal.GDT_UInt32, options)
    image = driver.Create(paths[1], side, side, BANDS, gdal.GDT_UInt16, options)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 90, (STRIP, side)).astype(np.int16)
    columns = np.arange(side)
    for top in range(0, side, STRIP):
        lines = np.arange(top, min(top + STRIP, side))
        rows = lines[:, np.newaxis] // size * across + columns // size
        zones.GetRasterBand(1).WriteArray(rows.astype(np.uint32), 0, top)
        for band in range(BANDS):
            shifted = np.roll(noise[: len(lines)], int(rng.integers(side)), axis=1)
            values = (1200 + 300 * band + columns % 256 + shifted).astype(np.uint16)
            image.GetRasterBand(band + 1).WriteArray(values, 0, top)
    zones = image = None
    rows = across * across
    with RatZarr(f"{paths[0]}.rat.zarr", newRowCount=rows) as table:
        table.createColumn("Histogram", np.int64)
        table.writeBlock("Histogram", np.full(rows, size * size), 0)
    return paths
