"""Tables copied between GDAL and sidecars, against GDAL handing over and taking the same blocks."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal

from gdalbridge import copy_to_raster, copy_to_sidecar
from ratzarr import RatZarr

from .columns import make
from .contest import Bar, Result, compare, result
from .scale import Scale

__all__ = ["main"]

BLOCK = 500_000
INTEGER, REAL, STRING = 0, 1, 2
NUMBERS = {"count": INTEGER, "class": INTEGER, "mean": REAL, "two_decimals": REAL}
TEXT = {"class_name": STRING, "label": STRING}
COPY_BAR = Bar(1.3)


def _raster(folder: Path, driver: str) -> Any:
    if driver == "MEM":
        return gdal.GetDriverByName("MEM").Create("", 4, 4)
    return gdal.GetDriverByName(driver).Create(str(folder / "raster.img"), 4, 4)


def _fill(dataset: Any, kinds: dict[str, int], values: dict[str, np.ndarray], rows: int) -> Any:
    """Give a raster a table; return the raster with it."""
    band = dataset.GetRasterBand(1)
    own = band.GetDefaultRAT()
    rat = own if own is not None else gdal.RasterAttributeTable()
    rat.SetRowCount(rows)
    for index, (name, kind) in enumerate(kinds.items()):
        rat.CreateColumn(name, kind, gdal.GFU_Generic)
        for start in range(0, rows, BLOCK):
            rat.WriteArray(values[name][start : start + BLOCK], index, start)
    if own is None:
        band.SetDefaultRAT(rat)
    dataset.FlushCache()
    return dataset


def _for_gdal(name: str, rows: int) -> np.ndarray:
    values = make(name, rows)
    if values.dtype.kind != "T":
        return values
    encoded = [text.encode() for text in values.tolist()]
    return np.array(encoded, f"S{max(map(len, encoded))}")


def main(scale: Scale) -> Iterator[Result]:
    """Compare copies both ways, for a table in memory and, where GDAL has the format, in an HFA."""
    # Blocks after the first are only right where the version says so; 3.6 can't with MEM.
    drivers = ["MEM"] if int(gdal.VersionInfo()) >= 3_120_000 else []
    drivers += ["HFA"] if gdal.GetDriverByName("HFA") else []
    with gdal.ExceptionMgr(useExceptions=True):
        for driver in drivers:
            for rows in scale.rows:
                for what, kinds in (("numbers", NUMBERS), ("strings", TEXT)):
                    if what == "strings" and rows > scale.text_rows:
                        continue
                    yield from _one(scale, driver, rows, what, kinds)


def _one(
    scale: Scale, driver: str, rows: int, what: str, kinds: dict[str, int]
) -> Iterator[Result]:
    values = {name: _for_gdal(name, rows) for name in kinds}
    label = f"{what}, {driver}, {rows / 1e6:g} M rows"
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        folder = Path(scratch)
        dataset = _fill(_raster(folder, driver), kinds, values, rows)
        sidecar, floor = folder / "s.rat.zarr", folder / "numpy"

        def remove() -> None:
            shutil.rmtree(sidecar, ignore_errors=True)
            shutil.rmtree(floor, ignore_errors=True)

        def gdal_reads() -> None:
            rat = dataset.GetRasterBand(1).GetDefaultRAT()
            for index in range(len(kinds)):
                for start in range(0, rows, BLOCK):
                    rat.ReadAsArray(index, start, min(BLOCK, rows - start))

        def numpy_writes() -> None:
            floor.mkdir()
            for name in kinds:
                with (floor / name).open("wb") as file:
                    for start in range(0, rows, BLOCK):
                        values[name][start : start + BLOCK].tofile(file)

        contenders = {
            "ratzarr": lambda: copy_to_sidecar(dataset, sidecar),
            "GDAL reads": gdal_reads,
        }
        rival = "GDAL reads"
        if what == "numbers":
            contenders["numpy writes"] = numpy_writes
            rival = "GDAL reads|numpy writes"
        seconds = compare(contenders, scale.rounds, remove)
        yield result(f"copy to a sidecar, {label}", rival, seconds, COPY_BAR)

        remove()
        copy_to_sidecar(dataset, sidecar)
        with RatZarr(sidecar, readOnly=True) as table:
            for name in kinds:
                found = table.readBlock(name, 0, rows)
                if found.dtype.kind == "T":
                    assert found.tolist() == [raw.decode() for raw in values[name].tolist()]
                else:
                    assert found.tobytes() == values[name].tobytes(), name

        made = 0

        def empty() -> Any:
            nonlocal made
            made += 1
            target = folder / f"out{made}"
            target.mkdir()
            return _raster(target, driver)

        # The targets are made beforehand, and closed afterwards: neither is the copy's work.
        targets: list[Any] = []

        def fresh() -> None:
            targets.clear()
            shutil.rmtree(folder / f"out{made}", ignore_errors=True)
            targets.append(empty())

        seconds = compare(
            {
                "ratzarr": lambda: copy_to_raster(sidecar, targets[0]),
                "GDAL writes": lambda: _fill(targets[0], kinds, values, rows),
            },
            scale.rounds,
            fresh,
        )
        yield result(f"copy to a raster, {label}", "GDAL writes", seconds, COPY_BAR)
