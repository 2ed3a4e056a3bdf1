"""The table for other libraries: Arrow, DuckDB, pandas, Polars, Dask and xarray.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal, and import
their libraries when they are used.
"""

# mypy: implicit-reexport
from typing import TYPE_CHECKING

from ratzarr.lazy import lazy

if TYPE_CHECKING:
    from ratzarr.interop.arrow import arrow_array, arrow_schema, arrow_type, read_arrays
    from ratzarr.interop.container import TableMethods
    from ratzarr.interop.dataset import TableDataset
    from ratzarr.interop.source import (
        GEOMETRY,
        Field,
        Source,
        check_missing,
        check_unchanged,
        is_missing,
        missing_value,
        required,
        row_name,
        unused_integer,
    )
    from ratzarr.interop.store import StoreSource, store_column

# Modules load on first use: some import pyarrow, which is optional.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "arrow": "arrow_array arrow_schema arrow_type read_arrays",
        "container": "TableMethods",
        "dataset": "TableDataset",
        "source": "GEOMETRY Field Source check_missing check_unchanged is_missing missing_value "
        "required row_name unused_integer",
        "store": "StoreSource store_column",
    },
)
