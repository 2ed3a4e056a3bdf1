"""GDAL's raster attribute tables beside their rasters, as Zarr stores.

>>> import gdalbridge
>>> gdalbridge.sidecar_path("/vsis3/bucket/seg.tif")
's3://bucket/seg.tif.rat.zarr'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratzarr.s3settings import consult

from .checking import CheckReport, check
from .errors import BridgeError, CancelledError, ConversionError, LossWarning, StaleWarning
from .gdalconfig import words
from .listing import TableInfo, list_tables
from .report import ColumnReport, CopyReport
from .sidecar import Sidecar, find_sidecars, sidecar_path

if TYPE_CHECKING:
    from .attachedrat import AttachedRAT
    from .attaching import attach
    from .baking import BakeReport, bake
    from .calculating import CalcReport, calc
    from .columnstats import ColumnStats, column_stats
    from .enabling import disable, enable
    from .ratcopy import copy_to_sidecar
    from .ratexport import copy_to_raster
    from .touching import TouchReport, touch
    from .travel import TravelReport, copy_raster, move_raster, remove_raster

__all__ = [
    "AttachedRAT",
    "BakeReport",
    "BridgeError",
    "CalcReport",
    "CancelledError",
    "CheckReport",
    "ColumnReport",
    "ColumnStats",
    "ConversionError",
    "CopyReport",
    "LossWarning",
    "Sidecar",
    "StaleWarning",
    "TableInfo",
    "TouchReport",
    "TravelReport",
    "attach",
    "bake",
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
    "remove_raster",
    "sidecar_path",
    "touch",
]

# What GDAL was told of S3 counts for tables too, from now on.
consult(words)

# These need GDAL: without it the rest still works, and the error comes where it is used.
_NEED_GDAL = {
    "AttachedRAT": "attachedrat",
    "BakeReport": "baking",
    "CalcReport": "calculating",
    "ColumnStats": "columnstats",
    "TouchReport": "touching",
    "TravelReport": "travel",
    "attach": "attaching",
    "bake": "baking",
    "calc": "calculating",
    "column_stats": "columnstats",
    "copy_raster": "travel",
    "copy_to_raster": "ratexport",
    "copy_to_sidecar": "ratcopy",
    "disable": "enabling",
    "enable": "enabling",
    "move_raster": "travel",
    "remove_raster": "travel",
    "touch": "touching",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_GDAL:
        return getattr(import_module(f".{_NEED_GDAL[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
