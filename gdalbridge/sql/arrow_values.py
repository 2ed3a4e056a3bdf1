"""Stored values as Arrow arrays, and back: numbers without a copy, NaN as NaN.

What is missing is Arrow's null: NaT, and the values that a column's ``missing_value`` says
stand for none. A stored NaN is a number like any other here. On the way back a null of
floats is NaN, and one of date-times NaT; nothing else has a place for one.
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
"""What a result of DuckDB's types is stored as."""

# Units that Arrow has none for, and the next that holds them exactly.
_UNITS = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}


def empty_array(dtype: np.dtype[Any], *, column: str) -> Any:
    """Return an Arrow array of no values, of the type that a column's values will have."""
    return to_arrow(np.empty(0, dtype), None, column=column, first_row=0)


def to_arrow(values: Array, missing: Any, *, column: str, first_row: int) -> Any:
    """Return values as an Arrow array.

    Parameters
    ----------
    values : ndarray
        Stored values, one per row.
    missing : scalar, optional
        The value that stands for none.
    column, first_row
        For messages.

    Raises
    ------
    ConversionError
        For date-times that are finer than nanoseconds, or out of range: names the row.
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
            f"column {column!r}: {values.dtype} is finer than nanoseconds: no expression can have it"
        )
    target = np.dtype(f"M8[{unit}]")
    try:
        found = values.astype(target, copy=False)
    except OverflowError:
        # Of some versions of numpy; others wrap around. The row is looked for where it matters.
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
    """Return a date-time in another unit, or one that it is not where there is no room for it."""
    try:
        return value.astype(dtype)
    except OverflowError:
        return np.array(0, np.int64).view(dtype)[()]


def from_arrow(array: Any, dtype: np.dtype[Any], *, column: str, first_row: int) -> Array:
    """Return an Arrow array's values as they are stored.

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
        For a null where the dtype has no place for one: names the row.
    """
    if array.null_count and dtype.kind not in "fM":
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise ConversionError(
            f"column {column!r}, row {first_row + row}: the result is NULL, and {_name(dtype)} has "
            "no value for that: say what it is to be, with coalesce(..., value)"
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
