"""A demonstration of the whole round trip with a real raster, compared with GDAL."""

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from gdalbridge.cli.table_output import head, head_text
from gdalbridge.copying.to_sidecar import copy_to_sidecar
from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import exceptions, gdal
from ratzarr import RatZarr
from ratzarr.errors import Advice
from ratzarr.stores import temporary_path

__all__ = ["RASTER", "run"]

RASTER = "lc.tif"
SHOWN = ("Red", "Green", "Blue", "Histogram", "Land Cover Class")


def run(say: Callable[[str], object], keep: str | None = None) -> None:
    """Copy a raster's table to a sidecar, add a column, read everything back and compare.

    Parameters
    ----------
    say : callable
        Called with each line of output.
    keep : str, optional
        Work in this directory and keep it; by default a temporary one.

    Raises
    ------
    BridgeError
        If any value differs from GDAL's own.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        folder = _working_folder(stack, keep)
        raster = str(folder / RASTER)
        say(f"A land-cover raster with an attribute table (NLCD, USGS): {raster}\n")

        report = copy_to_sidecar(raster)
        say(f"1. Its table, copied to a sidecar:\n   {report}\n")

        say("2. Its rows from class 11 on:\n")
        say(head_text(head(raster, rows=5, start=11, columns=SHOWN)))

        with RatZarr(report.target) as table:
            pixels = table.readBlock("Histogram", 0, table.rowCount)
            table.createColumn("area_ha", np.float64, attributes={"units": "ha"})
            table.writeBlock("area_ha", pixels * 0.09, 0)
        say("\n3. A column added, area_ha: pixels of 30 m x 30 m are 0.09 ha each:\n")
        say(head_text(head(raster, rows=5, start=11, columns=("Land Cover Class", "area_ha"))))

        cells = _check(raster, report.target)
        say(
            f"\n4. Everything read back, {cells} cells, and compared with what GDAL reads from "
            "the raster: equal."
        )
        say(f"The raster itself was not modified. {time.perf_counter() - started:.2f} s in all.\n")
    if keep is not None:
        kept = sorted(path.name for path in Path(keep).glob(f"{RASTER}*"))
        say(f"Kept in {keep}: {', '.join(kept)}\n")
    say("Next:")
    say("   gdalbridge copy YOUR.tif         your own raster, or /vsis3/bucket/your.tif")
    say("   gdalbridge info YOUR.tif         its table and its sidecars")
    say("   gdalbridge doctor                the installation, and the S3 settings in force")
    say("   README.md, docs/design.md        the Python API, and the architecture")


def _working_folder(stack: ExitStack, keep: str | None) -> Path:
    if keep is None:
        folder = stack.enter_context(temporary_path(Path(tempfile.gettempdir()), folder=True))
    else:
        folder = Path(keep)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise BridgeError(
                Advice(f"{folder} already exists.", "Use keep=... with a new directory.")
            ) from None
    data = stack.enter_context(as_file(files("gdalbridge") / "data" / "nlcd"))
    for name in (RASTER, f"{RASTER}.aux.xml"):
        shutil.copyfile(data / name, folder / name)
    return folder


def _check(raster: str, sidecar: str) -> int:
    """Compare every cell with GDAL's own reading of the raster, and count them."""
    with exceptions():
        dataset = gdal.Open(raster)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    cells = 0
    with RatZarr(sidecar, readOnly=True) as table:
        for index in range(rat.GetColumnCount()):
            name = rat.GetNameOfCol(index)
            block = table.readBlock(name, 0, table.rowCount)
            # Read cell by cell, a different path from the one the copy took.
            get = (rat.GetValueAsInt, rat.GetValueAsDouble, rat.GetValueAsString)[
                rat.GetTypeOfCol(index)
            ]
            expected = [get(row, index) for row in range(rat.GetRowCount())]
            if block.tolist() != expected:
                raise BridgeError(f"column {name!r} differs from GDAL's values")
            cells += len(expected)
        area = table.readBlock("area_ha", 0, table.rowCount)
        if not np.array_equal(area, table.readBlock("Histogram", 0, table.rowCount) * 0.09):
            raise BridgeError("column 'area_ha' differs from the values written")
        cells += len(area)
    return cells
