"""Convert stored values to Arrow arrays and back: numbers without a copy, NaN as NaN.

Missing values become Arrow nulls: NaT, and the value in a column's ``missing_value``. A stored NaN
is an ordinary number here. On the way back, a null becomes NaN in floats and NaT in date-times;
other dtypes cannot hold one.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError
from ratzarr.format import BYTES, exact

__all__ = ["DTYPES", "empty_array", "from_arrow", "to_arrow"]

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

# Units that Arrow does not have, and the next unit that holds them exactly.
_UNITS = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}


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
    mask = None
    if missing is not None:
        mask = np.asarray(values == missing, np.bool_)
    kind = values.dtype.kind
    if kind == "T":
        return pa.array(values.tolist(), pa.large_string(), mask=mask)
    if kind in "SO":
        return pa.array(values.tolist(), pa.large_binary(), mask=mask)
    if kind == "M":
        values = _datetimes(values, column, first_row)
        mask = np.isnat(values) if mask is None else mask | np.isnat(values)
    elif values.dtype == np.float16:
        values = exact(values, np.dtype(np.float32), column=column, first_row=first_row)
    return pa.array(values, mask=mask, from_pandas=False)


def _datetimes(values: Array, column: str, first_row: int) -> Array:
    own, _ = np.datetime_data(values.dtype)
    unit = _UNITS.get(own, own)
    if unit not in ("D", "s", "ms", "us", "ns"):
        raise ConversionError(
            f"column {column!r}: {values.dtype} is finer than nanoseconds, which expressions do "
            "not support"
        )
    target = np.dtype(f"M8[{unit}]")
    try:
        found = values.astype(target, copy=False)
    except OverflowError:
        # Some versions of numpy raise this; others wrap around. The row is found below.
        found = np.array([_or_never(one, target) for one in values])
    unequal = found.astype(values.dtype, copy=False) != values
    if unit == "D":
        # Arrow's days have 32 bits, and pyarrow would wrap them around.
        days = found.view(np.int64)
        unequal |= (days < -(2**31)) | (days >= 2**31)
    unequal &= ~np.isnat(values)
    if unequal.any():
        row = int(np.argmax(unequal))
        raise ConversionError(
            f"column {column!r}, row {first_row + row}: {values[row]} is out of the range of {target}"
        )
    return found


def _or_never(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a date-time in another unit, or a different value if that unit cannot hold it."""
    try:
        return value.astype(dtype)
    except OverflowError:
        return np.array(0, np.int64).view(dtype)[()]


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
            f"{_name(dtype)} can't hold: supply a value with coalesce(..., value)"
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


def _name(dtype: np.dtype[Any]) -> str:
    return {"T": "str", "O": "bytes"}.get(dtype.kind, str(dtype))
