"""GDAL's raster attribute tables beside their rasters, as Zarr stores.

>>> import gdalbridge
>>> gdalbridge.sidecar_path("/vsis3/bucket/seg.tif")
's3://bucket/seg.tif.rat.zarr'
"""

import os
import sys

try:
    from importlib import import_module
    from typing import TYPE_CHECKING, Any

    from gdalbridge.errors import (
        BridgeError,
        CancelledError,
        ConversionError,
        LossWarning,
        StaleWarning,
    )
    from gdalbridge.gdalio.config_options import words
    from ratzarr.stores import consult
except KeyboardInterrupt:
    # The command imports this package before it can handle Ctrl-C itself.
    _program = sys.argv[0].replace("\\", "/").rpartition("/")[2]
    if _program.startswith("gdalbridge") or (_program == "-m" and __name__ in sys.orig_argv):
        os.write(2, b"gdalbridge: interrupted\n")
        os._exit(130)
    raise

if TYPE_CHECKING:
    from gdalbridge.attached_rat.attach import attach
    from gdalbridge.attached_rat.enable import disable, enable
    from gdalbridge.attached_rat.rat import AttachedRAT
    from gdalbridge.copying.report import ColumnReport, CopyReport
    from gdalbridge.copying.to_raster import copy_to_raster
    from gdalbridge.copying.to_sidecar import copy_to_sidecar
    from gdalbridge.rasters.bake import BakeReport, bake
    from gdalbridge.rasters.build import BuildReport, build
    from gdalbridge.rasters.files import TravelReport, copy_raster, move_raster, remove_raster
    from gdalbridge.rasters.paint import PaintReport, paint
    from gdalbridge.rasters.sample import sample
    from gdalbridge.rasters.zonal import ZonalReport, zonal
    from gdalbridge.sidecars.accept import TouchReport, touch
    from gdalbridge.sidecars.check import CheckReport, check
    from gdalbridge.sidecars.listing import TableInfo, list_tables
    from gdalbridge.sidecars.naming import Sidecar, find_sidecars, sidecar_path
    from gdalbridge.sql.calc import CalcReport, calc
    from gdalbridge.sql.stats import ColumnStats, column_stats
    from gdalbridge.table import Table, open_table

__all__ = [
    "AttachedRAT",
    "BakeReport",
    "BridgeError",
    "BuildReport",
    "CalcReport",
    "CancelledError",
    "CheckReport",
    "ColumnReport",
    "ColumnStats",
    "ConversionError",
    "CopyReport",
    "LossWarning",
    "PaintReport",
    "Sidecar",
    "StaleWarning",
    "Table",
    "TableInfo",
    "TouchReport",
    "TravelReport",
    "ZonalReport",
    "attach",
    "bake",
    "build",
    "calc",
    "check",
    "column_stats",
    "copy_raster",
    "copy_to_raster",
    "copy_to_sidecar",
    "disable",
    "enable",
    "find_sidecars",
    "list_tables",
    "move_raster",
    "open_table",
    "paint",
    "remove_raster",
    "sample",
    "sidecar_path",
    "touch",
    "zonal",
]

# From now on, GDAL's S3 options apply to tables too.
consult(words)

# Most names need GDAL and zarr, and are imported on first use. Without GDAL the others still work,
# and the error tells how to install it.
_WHEN_USED = {
    "AttachedRAT": "attached_rat.rat",
    "BakeReport": "rasters.bake",
    "BuildReport": "rasters.build",
    "CalcReport": "sql.calc",
    "CheckReport": "sidecars.check",
    "ColumnReport": "copying.report",
    "ColumnStats": "sql.stats",
    "CopyReport": "copying.report",
    "PaintReport": "rasters.paint",
    "Sidecar": "sidecars.naming",
    "Table": "table",
    "TableInfo": "sidecars.listing",
    "TouchReport": "sidecars.accept",
    "TravelReport": "rasters.files",
    "ZonalReport": "rasters.zonal",
    "attach": "attached_rat.attach",
    "bake": "rasters.bake",
    "build": "rasters.build",
    "calc": "sql.calc",
    "check": "sidecars.check",
    "column_stats": "sql.stats",
    "copy_raster": "rasters.files",
    "copy_to_raster": "copying.to_raster",
    "copy_to_sidecar": "copying.to_sidecar",
    "disable": "attached_rat.enable",
    "enable": "attached_rat.enable",
    "find_sidecars": "sidecars.naming",
    "list_tables": "sidecars.listing",
    "move_raster": "rasters.files",
    "open_table": "table",
    "paint": "rasters.paint",
    "remove_raster": "rasters.files",
    "sample": "rasters.sample",
    "sidecar_path": "sidecars.naming",
    "touch": "sidecars.accept",
    "zonal": "rasters.zonal",
}


def __getattr__(name: str) -> Any:
    if name not in _WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_WHEN_USED[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
