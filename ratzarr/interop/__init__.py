"""The table for other libraries: Arrow, DuckDB, pandas, Polars, Dask and xarray.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal, and import
their libraries when they are used.
"""

from ratzarr.interop.container import TableMethods
from ratzarr.interop.source import GEOMETRY, Field, Source, missing_value, required
from ratzarr.interop.store import StoreSource, store_column

__all__ = [
    "GEOMETRY",
    "Field",
    "Source",
    "StoreSource",
    "TableMethods",
    "missing_value",
    "required",
    "store_column",
]
