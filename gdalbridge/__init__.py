"""GDAL's raster attribute tables beside their rasters, as Zarr stores.

>>> import gdalbridge
>>> gdalbridge.sidecar_path("/vsis3/bucket/seg.tif")
's3://bucket/seg.tif.rat.zarr'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratzarr.s3settings import consult

from .errors import BridgeError, CancelledError, ConversionError, LossWarning, StaleWarning
from .gdalconfig import words

if TYPE_CHECKING:
    from .attachedrat import AttachedRAT
    from .attaching import attach
    from .baking import BakeReport, bake
    from .calculating import CalcReport, calc
    from .checking import CheckReport, check
    from .columnstats import ColumnStats, column_stats
    from .enabling import disable, enable
    from .listing import TableInfo, list_tables
    from .ratcopy import copy_to_sidecar
    from .ratexport import copy_to_raster
    from .report import ColumnReport, CopyReport
    from .sidecar import Sidecar, find_sidecars, sidecar_path
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

# Most need GDAL, and zarr: they come when they are used. Without GDAL the rest still works, and the
# error says what is missing.
_WHEN_USED = {
    "AttachedRAT": "attachedrat",
    "BakeReport": "baking",
    "CalcReport": "calculating",
    "CheckReport": "checking",
    "ColumnReport": "report",
    "ColumnStats": "columnstats",
    "CopyReport": "report",
    "Sidecar": "sidecar",
    "TableInfo": "listing",
    "TouchReport": "touching",
    "TravelReport": "travel",
    "attach": "attaching",
    "bake": "baking",
    "calc": "calculating",
    "check": "checking",
    "column_stats": "columnstats",
    "copy_raster": "travel",
    "copy_to_raster": "ratexport",
    "copy_to_sidecar": "ratcopy",
    "disable": "enabling",
    "enable": "enabling",
    "find_sidecars": "sidecar",
    "list_tables": "listing",
    "move_raster": "travel",
    "remove_raster": "travel",
    "sidecar_path": "sidecar",
    "touch": "touching",
}


def __getattr__(name: str) -> Any:
    if name not in _WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_WHEN_USED[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
