"""Opening: tables of any size in the same time, and faster than the table inside a raster."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from osgeo import gdal

from gdalbridge import copy_to_sidecar
from ratzarr import RatZarr
from tests.benchmarks.contest import Bar, Result, Spread, compare, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

SAME = Bar(2)
MILLISECONDS = Bar(5)
TIMES = 20
"""Openings in one run: one alone is too short to be timed."""


def main(scale: Scale) -> Iterator[Result]:
    """Compare tables with few and many columns and rows; and with a GeoTIFF's own table."""
    yield from _sizes(scale)
    yield from _geotiff(scale)


def _sizes(scale: Scale) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        paths = {}
        for columns in (1, scale.columns):
            for rows in (1000, scale.counted):
                path = Path(scratch, f"{columns}-{rows}.rat.zarr")
                with RatZarr(path) as table:
                    table.setRowCount(rows)
                    for number in range(columns):
                        table.createColumn(f"column {number}", np.int32)
                paths[f"{columns} columns, {rows} rows"] = path

        def call(path: Path) -> None:
            for _ in range(TIMES):
                with RatZarr(path, readOnly=True) as table:
                    table.getColumnNames()

        def only_open(path: Path) -> None:
            for _ in range(TIMES):
                RatZarr(path, readOnly=True).close()

        first = next(iter(paths))
        for what, run in (("open", only_open), ("open and list", call)):
            contenders = {words: (lambda p=path, r=run: r(p)) for words, path in paths.items()}
            seconds = compare(contenders, scale.rounds)
            for words in list(paths)[1:]:
                yield result(f"{what} {words}", first, seconds, SAME, ours=words)
            worst = max(seconds.values(), key=max)
            yield Result(
                f"{what}, the slowest of these",
                "a limit in milliseconds",
                Spread.of([one / TIMES * 1e3 for one in worst]),
                MILLISECONDS,
                unit="ms",
            )


def _geotiff(scale: Scale) -> Iterator[Result]:
    rows = scale.rows[0] // 12
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch, gdal.ExceptionMgr():
        path = str(Path(scratch, "seg.tif"))
        dataset = gdal.GetDriverByName("GTiff").Create(path, 10, 10)
        rat = gdal.RasterAttributeTable()
        rat.SetRowCount(rows)
        for index, name in enumerate(("a", "b", "c")):
            rat.CreateColumn(name, gdal.GFT_Real, gdal.GFU_Generic)
            rat.WriteArray(np.arange(rows) / 3, index)
        dataset.GetRasterBand(1).SetDefaultRAT(rat)
        rat = dataset = None
        sidecar = copy_to_sidecar(path).target

        def theirs() -> None:
            opened = gdal.Open(path)
            band = opened.GetRasterBand(1)
            band.GetDefaultRAT().GetValueAsDouble(5, 1)

        def ours() -> None:
            RatZarr(sidecar, readOnly=True).readBlock("b", 5, 1)

        seconds = compare({"ratzarr": ours, "GDAL's GeoTIFF": theirs}, scale.rounds)
        yield result(
            f"open and read one value of {rows} rows", "GDAL's GeoTIFF", seconds, Bar(1.0)
        )
