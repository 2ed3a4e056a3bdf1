"""Zonal statistics: against GDAL reading the same windows, and nothing else."""

import importlib.util
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
TILED = Bar(3, at_least=True)
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
# The dataset is virtual and has no file, so that no time is spent on writing the attribute table
# as XML; what is compiled has been compiled by a first, small run. It takes the image as a dataset,
# so that the blocks of a band are still in GDAL's cache for the next. Segment 0 is its nodata.
SHEPSEG = """
import json, sys, time
import numpy as np
from osgeo import gdal
from pyshepseg.tilingstats import calcPerSegmentStatsTiled
from gdalbridge import open_table
from tests.memory import peak

STATS = {"count": "pixcount", "mean": "mean", "stddev": "stddev", "min": "min", "max": "max"}

def with_counts(path, counts):
    dataset = gdal.GetDriverByName("VRT").CreateCopy("", gdal.Open(path))
    table = gdal.RasterAttributeTable()
    table.CreateColumn("Histogram", gdal.GFT_Real, gdal.GFU_PixelCount)
    table.SetRowCount(len(counts))
    table.WriteArray(counts, 0)
    dataset.GetRasterBand(1).SetDefaultRAT(table)
    return dataset

def run(segments, image, bands):
    for band in range(1, bands + 1):
        wanted = [(f"band{band}_{ours}", theirs) for ours, theirs in STATS.items()]
        calcPerSegmentStatsTiled(image, band, segments, wanted)

gdal.UseExceptions()
driver = gdal.GetDriverByName("MEM")
tiny = driver.Create("", 4, 4, 1, gdal.GDT_UInt32)
tiny.GetRasterBand(1).WriteArray(np.ones((4, 4), np.uint32))
table = gdal.RasterAttributeTable()
table.CreateColumn("Histogram", gdal.GFT_Real, gdal.GFU_PixelCount)
table.SetRowCount(2)
table.WriteArray(np.array([0.0, 16.0]), 0)
tiny.GetRasterBand(1).SetDefaultRAT(table)
run(tiny, driver.Create("", 4, 4, 1, gdal.GDT_UInt16), 1)

with open_table(sys.argv[1]) as ours:
    rows = len(ours)
pixels = gdal.Open(sys.argv[1]).ReadAsArray()
segments = with_counts(sys.argv[1], np.bincount(pixels.reshape(-1), minlength=rows).astype(float))
del pixels
image = gdal.Open(sys.argv[2])
began = time.perf_counter()
run(segments, image, image.RasterCount)
seconds = time.perf_counter() - began

found = segments.GetRasterBand(1).GetDefaultRAT()
differs = 0.0
with open_table(sys.argv[1]) as ours:
    for number in range(found.GetColumnCount()):
        name = found.GetNameOfCol(number)
        if name != "Histogram":
            mine, theirs = ours[name][1:], found.ReadAsArray(number)[1:]
            if not name.endswith("_stddev"):
                # Its means are 32-bit floats.
                theirs, mine = theirs.astype("f4"), mine.astype("f4")
                assert np.array_equal(theirs, mine), name
            else:
                differs = max(differs, float(np.abs(theirs - mine).max() / mine.max()))
assert differs <= 1e-5, differs
print(json.dumps({"seconds": seconds, "peak": peak()}))
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
        yield from _tiled(small, f"{few_pixels:,} pixels, {some:,} segments, {BANDS} bands", scale)
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


def _tiled(rasters: Sequence[str], size: str, scale: Scale) -> Iterator[Result]:
    """Compare with pyshepseg's tiled statistics, where it is installed. It has no package to pin:
    ``.venv-bench/bin/pip install`` a checkout of it."""
    if importlib.util.find_spec("pyshepseg") is None:
        print("pyshepseg is not installed: not compared with it", file=sys.stderr)
        return
    programs = {"zonal statistics": OURS, "pyshepseg": SHEPSEG}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(scale.rounds):
        for name in list(programs)[:: -1 if turn % 2 else 1]:
            seconds[name].append(_run(programs[name], rasters)["seconds"])
    remark = "counts, means, minima and maxima equal; pyshepseg's compilation is not counted"
    yield result(
        f"zonal statistics, {size}",
        "pyshepseg",
        seconds,
        TILED,
        ours="zonal statistics",
        remark=remark,
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
