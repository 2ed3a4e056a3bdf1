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
from ratzarr.format import BYTES, STRING, exact
from ratzarr.interop import Field, arrow_array, unused_integer

__all__ = ["DTYPES", "Nulls", "empty_array", "from_arrow", "to_arrow"]

Array = NDArray[Any]

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


class Nulls:
    """The value that stands for the nulls of a column, as it is stored.

    Parameters
    ----------
    column : str
        For messages.
    dtype : numpy.dtype
        The dtype that is stored.

    Attributes
    ----------
    missing : int, optional
        The integer that stands for nulls; None if there were none.
    """

    def __init__(self, column: str, dtype: np.dtype[Any]) -> None:
        self._column, self._dtype = column, dtype
        self._value: int | None = None
        if dtype.kind in "iu":
            self._value = unused_integer(np.empty(0, dtype), dtype)
        self._null_row: int | None = None
        self._value_row: int | None = None

    @property
    def missing(self) -> int | None:
        """See the class."""
        return None if self._null_row is None else self._value

    def fill(self, values: Array, null: NDArray[np.bool_], first_row: int) -> Array:
        """Return values in the stored dtype, with nulls as this dtype has them.

        Parameters
        ----------
        values : ndarray
            Numbers or bools; arbitrary where they are null.
        null : ndarray of bool
        first_row : int
            For messages.

        Raises
        ------
        ConversionError
            If the dtype can't hold a null, or a value is the one that stands for nulls.
        UnequalValueError
            If the dtype can't hold a value.
        """
        row = first_row + int(np.argmax(null))
        if self._dtype.kind == "f":
            found = exact(values, self._dtype, column=self._column, first_row=first_row)
            return np.where(null, np.asarray(np.nan, self._dtype), found)
        if self._value is None:
            raise ConversionError(
                f"column {self._column!r}, row {row}: the result is NULL, which "
                f"{dtype_text(self._dtype)} can't hold: supply a value with coalesce(..., value)"
            )
        self._null_row = row if self._null_row is None else self._null_row
        found = exact(values, self._dtype, column=self._column, first_row=first_row).copy()
        found[null] = self._value
        self.check(values, ~null, first_row)
        return found

    def check(self, values: Array, there: NDArray[np.bool_] | None, first_row: int) -> None:
        """Look for the value that stands for nulls.

        Raises
        ------
        ConversionError
            If a row has it, and another row is null; names both.
        """
        if self._value is None:
            return
        if self._value_row is None:
            same = values == self._value
            same = same if there is None else same & there
            if same.any():
                self._value_row = first_row + int(np.argmax(same))
        if self._value_row is not None and self._null_row is not None:
            raise ConversionError(
                f"column {self._column!r}, row {self._null_row}: the result is NULL, and row "
                f"{self._value_row} has {self._value}, which stands for NULL in "
                f"{dtype_text(self._dtype)}: choose a wider dtype, or supply a value with "
                "coalesce(..., value)"
            )


def from_arrow(
    array: Any, dtype: np.dtype[Any], *, column: str, first_row: int, nulls: Nulls | None = None
) -> Array:
    """Return an Arrow array's values as they will be stored.

    Parameters
    ----------
    array : pyarrow.Array
    dtype : numpy.dtype
        One of :data:`DTYPES`.
    column, first_row
        For messages.
    nulls : Nulls, optional
        Of the column. By default its dtype is this one, and the values are the only ones.

    Raises
    ------
    ConversionError
        For a null that the dtype cannot hold; names the row.
    """
    nulls = nulls or Nulls(column, dtype)
    if array.null_count and dtype.kind != "M":
        null = array.is_null().to_numpy(zero_copy_only=False)
        if dtype.kind not in "iufb":
            # Raises the error for the first one.
            Nulls(column, dtype).fill(np.empty(0), null, first_row)
        zero: Any = False if dtype.kind == "b" else 0
        values = array.fill_null(zero).to_numpy(zero_copy_only=False)
        return nulls.fill(values, null, first_row)
    if dtype.kind == "T":
        return np.array(array.to_pylist(), dtype)
    if dtype.kind == "O":
        values = np.empty(len(array), object)
        values[:] = array.to_pylist()
        return values
    found: Array = array.to_numpy(zero_copy_only=False)
    if dtype.kind in "iuf":
        nulls.check(found, None, first_row)
    return found.astype(dtype, copy=False)
