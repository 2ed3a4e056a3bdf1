"""Operations on whole stores: check, repair, copy.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratzarr.maintenance.check import check_store
    from ratzarr.maintenance.column_check import Finding
    from ratzarr.maintenance.copy import Entry, copy_store, inventory

__all__ = [
    "Entry",
    "Finding",
    "check_store",
    "copy_store",
    "inventory",
]

# Modules load on first use: some import zarr, which would slow down ``gdalbridge --help``.
_MODULES = {
    "Entry": "copy",
    "Finding": "column_check",
    "check_store": "check",
    "copy_store": "copy",
    "inventory": "copy",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
