"""Operations on whole stores: check, repair, copy.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal.
"""

# mypy: implicit-reexport
from typing import TYPE_CHECKING

from ratzarr.lazy import lazy

if TYPE_CHECKING:
    from ratzarr.maintenance.check import check_store
    from ratzarr.maintenance.column_check import Finding
    from ratzarr.maintenance.copy import Entry, copy_store, inventory, remove_source

# Modules load on first use: some import zarr, which would slow down ``gdalbridge --help``.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "check": "check_store",
        "column_check": "Finding",
        "copy": "Entry copy_store inventory remove_source",
    },
)
