"""The table for other libraries: Arrow, DuckDB, pandas, Polars, Dask and xarray.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal, and import
their libraries when they are used.
"""

from ratzarr.interop.container import TableMethods
from ratzarr.interop.source import Field, Source, required

__all__ = ["Field", "Source", "TableMethods", "required"]
