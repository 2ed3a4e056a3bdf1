"""Tables copied between GDAL and sidecars, against GDAL handing over and taking the same blocks."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from osgeo import gdal

from gdalbridge import copy_to_raster, copy_to_sidecar
from ratzarr import RatZarr
from tests.benchmarks.columns import make
from tests.benchmarks.contest import Bar, Result, compare, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

BLOCK = 500_000
INTEGER, REAL, STRING = 0, 1, 2
TABLES = {
    "numbers": {"count": INTEGER, "class": INTEGER, "mean": REAL, "two_decimals": REAL},
    "numbers but decimals": {"count": INTEGER, "class": INTEGER, "mean": REAL},
    "strings": {"class_name": STRING, "label": STRING},
}
HFA_TEXT_ROWS = 1_000_000
"""GDAL writes a whole column of an HFA anew each time that a longer text comes."""
COPY_BAR = Bar(1.3)
NOT_SLOWER = Bar(1.0)


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
    gdal.UseExceptions()
    for driver in drivers:
        for rows in scale.rows:
            for what, kinds in TABLES.items():
                most = scale.text_rows if driver != "HFA" else HFA_TEXT_ROWS
                count = min(rows, most) if what == "strings" else rows
                if what == "strings" and rows != min(scale.rows):
                    continue
                yield from _one(scale, driver, count, what, kinds)


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

        def by_hand() -> None:
            rat = dataset.GetRasterBand(1).GetDefaultRAT()
            group = zarr.open_group(floor, mode="w", zarr_format=3)
            for index, name in enumerate(kinds):
                dtype = np.dtypes.StringDType() if what == "strings" else values[name].dtype
                array = group.create_array(name, dtype=dtype, shape=(rows,), chunks=(BLOCK,))
                for start in range(0, rows, BLOCK):
                    block = rat.ReadAsArray(index, start, min(BLOCK, rows - start))
                    array[start : start + BLOCK] = block.astype(dtype, copy=False)

        contenders = {
            "ratzarr": lambda: copy_to_sidecar(dataset, sidecar),
            "GDAL reads": gdal_reads,
            "a loop into plain zarr": by_hand,
        }
        rival = "GDAL reads"
        if what != "strings":
            contenders["numpy writes"] = numpy_writes
            rival = "GDAL reads|numpy writes"
        seconds = compare(contenders, scale.rounds, remove)
        yield result(f"copy to a sidecar, {label}", rival, seconds, COPY_BAR)
        yield result(f"copy to a sidecar, {label}", "a loop into plain zarr", seconds, None)

        remove()
        copy_to_sidecar(dataset, sidecar)
        with RatZarr(sidecar, readOnly=True) as table:
            for name in kinds:
                found = table.readBlock(name, 0, rows)
                if found.dtype.kind == "T":
                    assert found.tolist() == [raw.decode() for raw in values[name].tolist()]
                else:
                    assert found.tobytes() == values[name].tobytes(), name
            if driver == "HFA":
                yield from _whole_columns(scale, dataset, table, what, label)

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


def _whole_columns(
    scale: Scale, dataset: Any, table: RatZarr, what: str, label: str
) -> Iterator[Result]:
    names = table.getColumnNames()
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    # It may have given a column another name; the order is the table's.
    seconds = compare(
        {
            "ratzarr": lambda: [table.readBlock(name, 0, table.rowCount) for name in names],
            "GDAL reads": lambda: [rat.ReadAsArray(index) for index in range(len(names))],
        },
        scale.rounds,
    )
    yield result(f"read whole columns, {label}", "GDAL reads", seconds, NOT_SLOWER)
