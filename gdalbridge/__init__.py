"""GDAL's raster attribute tables beside their rasters, as Zarr stores.

>>> import gdalbridge
>>> gdalbridge.sidecar_path("/vsis3/bucket/seg.tif")
's3://bucket/seg.tif.rat.zarr'
"""

import os
import sys

try:
    from typing import TYPE_CHECKING

    from gdalbridge.errors import (
        BridgeError,
        CancelledError,
        ConversionError,
        LossWarning,
        StaleWarning,
    )
    from gdalbridge.gdalio.config_options import words
    from ratzarr.lazy import lazy
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
    from gdalbridge.exchange.export import ExportReport, export_table
    from gdalbridge.exchange.join import JoinReport
    from gdalbridge.rasters.bake import BakeReport, bake
    from gdalbridge.rasters.build import BuildReport, build
    from gdalbridge.rasters.files import TravelReport, copy_raster, move_raster, remove_raster
    from gdalbridge.rasters.paint import PaintReport, paint
    from gdalbridge.rasters.polygonize import PolygonReport, polygonize
    from gdalbridge.rasters.sample import sample
    from gdalbridge.rasters.select import select
    from gdalbridge.rasters.summarize import ClassSummary, summarize
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
    "ClassSummary",
    "ColumnReport",
    "ColumnStats",
    "ConversionError",
    "CopyReport",
    "ExportReport",
    "JoinReport",
    "LossWarning",
    "PaintReport",
    "PolygonReport",
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
    "export_table",
    "find_sidecars",
    "list_tables",
    "move_raster",
    "open_table",
    "paint",
    "polygonize",
    "remove_raster",
    "sample",
    "select",
    "sidecar_path",
    "summarize",
    "touch",
    "zonal",
]

# From now on, GDAL's S3 options apply to tables too.
consult(words)

# Most names need GDAL and zarr, and are imported on first use. Without GDAL the others still work,
# and the error tells how to install it.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "attached_rat.attach": "attach",
        "attached_rat.enable": "disable enable",
        "attached_rat.rat": "AttachedRAT",
        "copying.report": "ColumnReport CopyReport",
        "copying.to_raster": "copy_to_raster",
        "copying.to_sidecar": "copy_to_sidecar",
        "exchange.export": "ExportReport export_table",
        "exchange.join": "JoinReport",
        "rasters.bake": "BakeReport bake",
        "rasters.build": "BuildReport build",
        "rasters.files": "TravelReport copy_raster move_raster remove_raster",
        "rasters.paint": "PaintReport paint",
        "rasters.sample": "sample",
        "rasters.polygonize": "PolygonReport polygonize",
        "rasters.select": "select",
        "rasters.summarize": "ClassSummary summarize",
        "rasters.zonal": "ZonalReport zonal",
        "sidecars.accept": "TouchReport touch",
        "sidecars.check": "CheckReport check",
        "sidecars.listing": "TableInfo list_tables",
        "sidecars.naming": "Sidecar find_sidecars sidecar_path",
        "sql.calc": "CalcReport calc",
        "sql.stats": "ColumnStats column_stats",
        "table": "Table open_table",
    },
)
