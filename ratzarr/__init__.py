"""Raster attribute tables as Zarr groups, written column by column and block by block.

>>> import numpy, tempfile, ratzarr
>>> rat = ratzarr.RatZarr(tempfile.mkdtemp() + "/seg.tif.rat.zarr")
>>> rat.setRowCount(3)
>>> rat.createColumn("pixels", numpy.int64)
>>> rat.writeBlock("pixels", [7, 8, 9], 0)
>>> rat.readBlock("pixels", 1, 2)
array([8, 9])
"""

from typing import TYPE_CHECKING, Any

from ratzarr.errors import (
    ArgumentError,
    ChangedError,
    ClosedError,
    ColumnExistsError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    ConflictError,
    DamagedError,
    FormatVersionError,
    InvalidNameError,
    ListingRefusedError,
    NotARatZarrError,
    PackageMissingError,
    RatZarrError,
    ReadOnlyError,
    RedirectError,
    RowRangeError,
    ShapeError,
    StoreConnectionError,
    StoreError,
    StorePermissionError,
    StoreTimeoutError,
    TableNotFoundError,
    TooLargeError,
    UnequalValueError,
    UnsupportedCodecError,
    UnsupportedDtypeError,
)
from ratzarr.lazy import lazy

if TYPE_CHECKING:
    from ratzarr.format.names import (
        CHUNKSIZE_ATTR,
        DFLT_CHUNKSIZE,
        MODIFICATION_ATTR,
        ROWCOUNT_ATTR,
    )
    from ratzarr.selftest import AllTests, colNameByType, mainCmd
    from ratzarr.table import RatZarr

    __version__: str

__all__ = [
    "CHUNKSIZE_ATTR",
    "DFLT_CHUNKSIZE",
    "MODIFICATION_ATTR",
    "ROWCOUNT_ATTR",
    "AllTests",
    "ArgumentError",
    "ChangedError",
    "ClosedError",
    "ColumnExistsError",
    "ColumnIncompleteError",
    "ColumnNotFoundError",
    "ConflictError",
    "DamagedError",
    "FormatVersionError",
    "InvalidNameError",
    "ListingRefusedError",
    "NotARatZarrError",
    "PackageMissingError",
    "RatZarr",
    "RatZarrError",
    "ReadOnlyError",
    "RedirectError",
    "RowRangeError",
    "ShapeError",
    "StoreConnectionError",
    "StoreError",
    "StorePermissionError",
    "StoreTimeoutError",
    "TableNotFoundError",
    "TooLargeError",
    "UnequalValueError",
    "UnsupportedCodecError",
    "UnsupportedDtypeError",
    "__version__",
    "colNameByType",
    "mainCmd",
]

# zarr and numpy take longer to import than a command takes to print its help: they come when they
# are used.
_lazy, __dir__ = lazy(
    __name__,
    {
        "format.names": "CHUNKSIZE_ATTR DFLT_CHUNKSIZE MODIFICATION_ATTR ROWCOUNT_ATTR",
        "selftest": "AllTests colNameByType mainCmd",
        "table": "RatZarr",
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ratzarr")
    return _lazy(name)
