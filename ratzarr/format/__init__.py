"""The on-disk format: names, dtypes, documents and limits, without I/O.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratzarr.format.blocks import Block, chunk_count
    from ratzarr.format.casting import as_block, exact, has_payload
    from ratzarr.format.dtypes import BYTES, empty_value, normalize_dtype
    from ratzarr.format.history import mask
    from ratzarr.format.limits import check_memory
    from ratzarr.format.names import (
        COLUMN_ORDER_ATTR,
        COMPLETE_ATTR,
        CUTS_ATTR,
        CUTTING_ATTR,
        FORMAT_VERSION_ATTR,
        GROUP,
        OWN_COLUMN_ATTRS,
        RESIZE_ATTR,
        ROWS_DONE_ATTR,
        ZARR_JSON,
        kept_attributes,
        key_of,
    )

__all__ = [
    "BYTES",
    "COLUMN_ORDER_ATTR",
    "COMPLETE_ATTR",
    "CUTS_ATTR",
    "CUTTING_ATTR",
    "FORMAT_VERSION_ATTR",
    "GROUP",
    "OWN_COLUMN_ATTRS",
    "RESIZE_ATTR",
    "ROWS_DONE_ATTR",
    "ZARR_JSON",
    "Block",
    "as_block",
    "check_memory",
    "chunk_count",
    "empty_value",
    "exact",
    "has_payload",
    "kept_attributes",
    "key_of",
    "mask",
    "normalize_dtype",
]

# Modules load on first use: some import zarr, which would slow down ``gdalbridge --help``.
_MODULES = {
    "BYTES": "dtypes",
    "Block": "blocks",
    "COLUMN_ORDER_ATTR": "names",
    "COMPLETE_ATTR": "names",
    "CUTS_ATTR": "names",
    "CUTTING_ATTR": "names",
    "FORMAT_VERSION_ATTR": "names",
    "GROUP": "names",
    "OWN_COLUMN_ATTRS": "names",
    "RESIZE_ATTR": "names",
    "ROWS_DONE_ATTR": "names",
    "ZARR_JSON": "names",
    "as_block": "casting",
    "check_memory": "limits",
    "chunk_count": "blocks",
    "empty_value": "dtypes",
    "exact": "casting",
    "has_payload": "casting",
    "kept_attributes": "names",
    "key_of": "names",
    "mask": "history",
    "normalize_dtype": "dtypes",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
