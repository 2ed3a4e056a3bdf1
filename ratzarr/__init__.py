"""Raster attribute tables as Zarr groups, written column by column and block by block.

>>> import numpy, tempfile, ratzarr
>>> rat = ratzarr.RatZarr(tempfile.mkdtemp() + "/seg.tif.rat.zarr")
>>> rat.setRowCount(3)
>>> rat.createColumn("pixels", numpy.int64)
>>> rat.writeBlock("pixels", [7, 8, 9], 0)
>>> rat.readBlock("pixels", 1, 2)
array([8, 9])
"""

from importlib.metadata import version

from .errors import (
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
    NotARatZarrError,
    RatZarrError,
    ReadOnlyError,
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
from .layout import CHUNKSIZE_ATTR, DFLT_CHUNKSIZE, MODIFICATION_ATTR, ROWCOUNT_ATTR
from .selftest import AllTests, colNameByType, mainCmd
from .table import RatZarr

__version__ = version("ratzarr")

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
    "NotARatZarrError",
    "RatZarr",
    "RatZarrError",
    "ReadOnlyError",
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
