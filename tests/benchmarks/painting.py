"""A column on a raster's pixels, against numpy.take on the whole column."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from osgeo import gdal

from gdalbridge import open_table, paint
from tests.benchmarks.contest import Bar, Result, compare, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

PIXELS_PER_ROW = 10
STRIP = 256
OPTIONS = ["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER", "NUM_THREADS=ALL_CPUS",
           f"BLOCKXSIZE={STRIP}", f"BLOCKYSIZE={STRIP}"]  # fmt: skip
BAR = Bar(1.5)


def _segmentation(path: Path, side: int) -> int:
    """Write segments of 5 x 2 pixels, numbered row by row; return how many there are."""
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), side, side, 1, gdal.GDT_UInt32, OPTIONS
    )
    across = -(-side // 5)
    columns = np.arange(side) // 5
    for y in range(0, side, STRIP):
        lines = np.arange(y, min(y + STRIP, side)) // 2
        dataset.WriteArray((lines[:, None] * across + columns).astype(np.uint32), 0, y)
    return across * -(-side // 2)


def main(scale: Scale) -> Iterator[Result]:
    """Paint a column of float32, with one row for ten pixels."""
    gdal.UseExceptions()
    side = scale.side
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        raster = Path(scratch) / "seg.tif"
        rows = _segmentation(raster, side)
        with open_table(raster) as table:
            table["x"] = np.random.default_rng(1).random(rows, np.float32)

        def ours() -> None:
            paint(raster, "x", Path(scratch) / "ours.tif", overwrite=True)

        def take() -> None:
            with open_table(raster) as table:
                values = table["x"][:]
            source = gdal.Open(str(raster))
            out = gdal.GetDriverByName("GTiff").Create(
                f"{scratch}/take.tif", side, side, 1, gdal.GDT_Float32, OPTIONS
            )
            for y in range(0, side, STRIP):
                pixels = source.ReadAsArray(0, y, side, min(STRIP, side - y))
                out.WriteArray(np.take(values, pixels), 0, y)
            out.FlushCache()

        rival = "numpy.take on the whole column"
        seconds = compare({"ratzarr": ours, rival: take}, scale.rounds)
        work = f"paint {side * side / 1e6:g} M pixels from {rows / 1e6:g} M rows"
        yield result(work, rival, seconds, BAR, remark="GDAL reads and writes")
