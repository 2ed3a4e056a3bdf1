"""Convert stored values to Arrow arrays and back: numbers without a copy, NaN as NaN.

Missing values become Arrow nulls: NaT, and the value in a column's ``missing_value``. A stored NaN
is an ordinary number here. On the way back, a null becomes NaN in floats, NaT in date-times, and in
integers a value that no other row has. Other dtypes cannot hold one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError
from gdalbridge.text_table import dtype_text
from ratzarr import UnequalValueError, UnsupportedDtypeError
from ratzarr.format import BYTES
from ratzarr.interop import Field
from ratzarr.interop.arrow import arrow_array

__all__ = ["DTYPES", "StoredNulls", "empty_array", "from_arrow", "to_arrow"]

Array = NDArray[Any]

STRING = np.dtypes.StringDType()

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOLEAN": np.dtype("?"),
    "TINYINT": np.dtype("i1"),
    "SMALLINT": np.dtype("i2"),
    "INTEGER": np.dtype("i4"),
    "BIGINT": np.dtype("i8"),
    "UTINYINT": np.dtype("u1"),
    "USMALLINT": np.dtype("u2"),
    "UINTEGER": np.dtype("u4"),
    "UBIGINT": np.dtype("u8"),
    "FLOAT": np.dtype("f4"),
    "DOUBLE": np.dtype("f8"),
    "VARCHAR": STRING,
    "BLOB": BYTES,
    "DATE": np.dtype("M8[D]"),
    "TIMESTAMP_S": np.dtype("M8[s]"),
    "TIMESTAMP_MS": np.dtype("M8[ms]"),
    "TIMESTAMP": np.dtype("M8[us]"),
    "TIMESTAMP_NS": np.dtype("M8[ns]"),
}
"""The dtypes that store DuckDB's result types."""


def empty_array(dtype: np.dtype[Any], *, column: str) -> Any:
    """Return an empty Arrow array with the type for a column's values."""
    return to_arrow(np.empty(0, dtype), None, column=column, first_row=0)


def to_arrow(values: Array, missing: Any, *, column: str, first_row: int) -> Any:
    """Return values as an Arrow array.

    Parameters
    ----------
    values : ndarray
        Stored values, one per row.
    missing : scalar, optional
        The value that means missing.
    column, first_row
        For messages.

    Raises
    ------
    ConversionError
        For date-times finer than nanoseconds, or out of range; names the row.
    """
    field = Field(column, values.dtype, 1, len(values), max(1, len(values)), missing=missing)
    try:
        return arrow_array(values, field, first_row=first_row, rows=len(values))
    except (UnequalValueError, UnsupportedDtypeError) as error:
        raise ConversionError(str(error)) from error


def from_arrow(array: Any, dtype: np.dtype[Any], *, column: str, first_row: int) -> Array:
    """Return an Arrow array's values as they will be stored.

    Parameters
    ----------
    array : pyarrow.Array
    dtype : numpy.dtype
        One of :data:`DTYPES`.
    column, first_row
        For messages.

    Raises
    ------
    ConversionError
        For a null that the dtype cannot hold; names the row.
    """
    if array.null_count and dtype.kind not in "fM":
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise ConversionError(
            f"column {column!r}, row {first_row + row}: the result is NULL, which "
            f"{dtype_text(dtype)} can't hold: supply a value with coalesce(..., value)"
        )
    if dtype.kind == "T":
        return np.array(array.to_pylist(), dtype)
    if dtype.kind == "O":
        values = np.empty(len(array), object)
        values[:] = array.to_pylist()
        return values
    if array.null_count and dtype.kind == "f":
        array = array.fill_null(float("nan"))
    found: Array = array.to_numpy(zero_copy_only=False)
    return found.astype(dtype, copy=False)
