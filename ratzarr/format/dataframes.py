"""Convert dtypes and arrays of pandas, Polars and Arrow to NumPy, without importing the libraries.

Dtypes that map exactly are converted; others are errors that name the dtype. A column cannot hold
nulls, except as NaT in date-times. Their own conversions to NumPy are not used where they lose
values: 2**53 + 1 beside a null would become a rounded float.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.errors import UnequalValueError, UnsupportedDtypeError

__all__ = ["nullable_integers", "numpy_block", "numpy_dtype"]

Array = NDArray[Any]

_LIBRARIES = {"pandas": "pandas", "polars": "Polars", "pyarrow": "Arrow"}
_NO_ZONE = {
    "pandas": '.dt.tz_convert("UTC").dt.tz_localize(None)',
    "polars": '.dt.convert_time_zone("UTC").dt.replace_time_zone(None)',
    "pyarrow": "a cast to a timestamp without a zone",
}
_POLARS: dict[str, Any] = {
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}")
       for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)},
    **{f"Float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "Boolean": np.dtype(bool), "String": str, "Utf8": str, "Categorical": str, "Enum": str,
    "Binary": bytes, "Date": np.dtype("M8[D]"),
}  # fmt: skip


def _library(thing: Any) -> str | None:
    """Return the library that defines an object's class or a base class of it, or None."""
    if isinstance(thing, np.ndarray | np.dtype | np.generic | str | int | float | list):
        return None
    roots = [kind.__module__.partition(".")[0] for kind in type(thing).__mro__]
    return next((root for root in roots if root in _LIBRARIES), None)


def numpy_dtype(dtype: Any) -> Any:
    """Return the NumPy dtype for a dtype of these libraries; None for any other dtype.

    Returns
    -------
    numpy.dtype, str or bytes
        ``str`` and ``bytes`` mean text and bytes of any length.

    Raises
    ------
    UnsupportedDtypeError
        If no column can hold its values. The message suggests a conversion.
    """
    library = _library(dtype)
    return None if library is None else _DTYPES[library](dtype)


def _refused(library: str, dtype: Any, hint: str = "") -> UnsupportedDtypeError:
    return UnsupportedDtypeError(
        f"no column can have the {_LIBRARIES[library]} dtype {dtype}"
        + (f": {hint}" if hint else "; convert the values to numbers, text or date-times first")
    )


def _pandas_dtype(dtype: Any) -> Any:
    name = type(dtype).__name__
    if name == "ArrowDtype":
        return _arrow_dtype(dtype.pyarrow_dtype)
    if name == "StringDtype":
        return str
    if name == "DatetimeTZDtype":
        raise _refused(
            "pandas", dtype, f"use {_NO_ZONE['pandas']}, which has the same times in UTC"
        )
    if name == "CategoricalDtype":
        if dtype.categories is None:
            raise _refused(
                "pandas", dtype, "it has no categories, so the dtype of its values is unknown"
            )
        return _dtype_of_categories(dtype)
    found = getattr(dtype, "numpy_dtype", None)
    if not isinstance(found, np.dtype):
        raise _refused("pandas", dtype)
    return found


def _dtype_of_categories(dtype: Any) -> Any:
    found = dtype.categories.dtype
    if not isinstance(found, np.dtype):
        return _pandas_dtype(found)
    if found.kind != "O":
        return found
    kinds = set(map(type, dtype.categories))
    if len(kinds) == 1 and kinds <= {str, bytes}:
        return kinds.pop()
    raise _refused("pandas", dtype, "its categories are not all text, or all bytes")


def _polars_dtype(dtype: Any) -> Any:
    name = dtype.__name__ if isinstance(dtype, type) else type(dtype).__name__
    if name == "Datetime":
        if getattr(dtype, "time_zone", None):
            raise _refused(
                "polars", dtype, f"use {_NO_ZONE['polars']}, which has the same times in UTC"
            )
        return np.dtype(f"M8[{getattr(dtype, 'time_unit', None) or 'us'}]")
    if name not in _POLARS:
        raise _refused("polars", dtype)
    return _POLARS[name]


def _arrow_dtype(dtype: Any) -> Any:
    import pyarrow as pa

    is_a = pa.types
    if not isinstance(dtype, pa.DataType):
        raise _refused("pyarrow", dtype)
    if is_a.is_dictionary(dtype):
        return _arrow_dtype(dtype.value_type)
    if is_a.is_integer(dtype) or is_a.is_floating(dtype) or is_a.is_boolean(dtype):
        return np.dtype(dtype.to_pandas_dtype())
    if is_a.is_timestamp(dtype):
        if dtype.tz is not None:
            raise _refused("pyarrow", dtype, f"{_NO_ZONE['pyarrow']} has the same times in UTC")
        return np.dtype(f"M8[{dtype.unit}]")
    if is_a.is_date(dtype):
        return np.dtype("M8[D]" if is_a.is_date32(dtype) else "M8[ms]")
    if is_a.is_string(dtype) or is_a.is_large_string(dtype) or is_a.is_string_view(dtype):
        return str
    if is_a.is_binary(dtype) or is_a.is_large_binary(dtype) or is_a.is_binary_view(dtype):
        return bytes
    raise _refused("pyarrow", dtype)


_DTYPES: dict[str, Callable[[Any], Any]] = {
    "pandas": _pandas_dtype,
    "polars": _polars_dtype,
    "pyarrow": _arrow_dtype,
}


# ---- values


def numpy_block(values: Any, *, column: str, first_row: int | None) -> Array | None:
    """Return an array or frame of these libraries as a NumPy array; None for any other object.

    Parameters
    ----------
    values
        A Series, an Index, an array, or a table whose columns all have one dtype. Each row of such
        a table becomes one row of a column with several values.
    column, first_row
        For messages.

    Raises
    ------
    UnequalValueError
        For a null. The message names its row and how to fill it.
    UnsupportedDtypeError
        If no column can hold the values.
    """
    library = _library(values)
    if library is None:
        return None
    if not (hasattr(values, "columns") and len(getattr(values, "shape", ())) == 2):
        return _one_column(library, values, column, first_row)
    if library == "pandas":
        parts = [values.iloc[:, at] for at in range(values.shape[1])]
    else:
        parts = values.get_columns() if library == "polars" else values.columns
    blocks = [_one_column(library, part, column, first_row) for part in parts]
    kinds = {str(block.dtype): None for block in blocks}
    if len(kinds) != 1:
        raise UnsupportedDtypeError(
            f"column {column!r}: the block's columns have different dtypes "
            f"({', '.join(kinds)}), but a column with several values per row has only one"
        )
    return np.stack(blocks, axis=1)


def _one_column(library: str, values: Any, column: str, first_row: int | None) -> Array:
    dtype = getattr(values, "type" if library == "pyarrow" else "dtype", None)
    if dtype is None:
        # pd.NA, an expression or a scalar: not an array.
        found = np.empty((), object)
        found[()] = values
        return found
    if isinstance(dtype, np.dtype):
        return np.asarray(values)
    wanted = numpy_dtype(dtype)
    is_time = isinstance(wanted, np.dtype) and wanted.kind == "M"
    if not is_time and (missing := _nulls(library, values)).any():
        row = "" if first_row is None else f", row {int(np.argmax(missing)) + first_row}"
        raise UnequalValueError(
            f"column {column!r}{row}: a null of {_LIBRARIES[library]} dtype {dtype}, and a column has "
            f"no nulls; fill the block first, for instance by {_filled(library, wanted)}"
        )
    return _VALUES[library](values, wanted)


def nullable_integers(values: Any) -> tuple[Array, Array] | None:
    """Return the integers of a pandas, Polars or Arrow array that has nulls, and where the nulls are.

    Returns
    -------
    present : ndarray
        The values that are no nulls, in order.
    missing : ndarray of bool
        True for each null.
    None
        For other objects, and for arrays without nulls.
    """
    library = _library(values)
    if library is None or hasattr(values, "columns"):
        return None
    dtype = getattr(values, "type" if library == "pyarrow" else "dtype", None)
    if dtype is None or isinstance(dtype, np.dtype) or hasattr(dtype, "categories"):
        return None
    if library == "pyarrow" and not str(dtype).startswith(("int", "uint")):
        return None
    wanted = numpy_dtype(dtype)
    if not isinstance(wanted, np.dtype) or wanted.kind not in "iu":
        return None
    missing = _nulls(library, values)
    if not missing.any():
        return None
    if library == "pandas":
        return values.dropna().to_numpy(dtype=wanted), missing
    present = values.drop_nulls() if library == "polars" else values.drop_null()
    return np.asarray(present, wanted), missing


def _nulls(library: str, values: Any) -> Array:
    """Return where the values of an array are nulls."""
    return np.asarray(values.isna() if library == "pandas" else values.is_null(), np.bool_)


def _filled(library: str, wanted: Any) -> str:
    """Return the call that replaces nulls with a value of this dtype."""
    if not isinstance(wanted, np.dtype):
        value = '""' if wanted is str else 'b""'
    elif wanted.kind == "f" and library == "pandas":
        # pandas' fillna treats NaN as a null.
        return f'.to_numpy("{wanted}", na_value=float("nan"))'
    else:
        value = {"f": 'float("nan")', "b": "False"}.get(wanted.kind, "0")
    return f".fillna({value})" if library == "pandas" else f".fill_null({value})"


def _pandas_values(values: Any, wanted: Any) -> Array:
    if type(values.dtype).__name__ == "ArrowDtype":
        # pandas itself can't convert dates with nulls, or views of strings.
        return _arrow_values(getattr(values, "array", values).__arrow_array__(), wanted)
    if isinstance(wanted, np.dtype) and not hasattr(values.dtype, "categories"):
        return np.asarray(values.to_numpy(dtype=wanted))
    return np.asarray(values)


def _polars_values(values: Any, wanted: Any) -> Array:
    if wanted is str and type(values.dtype).__name__ in ("Categorical", "Enum"):
        values = values.cast(str)
    return np.asarray(values.to_numpy())


def _arrow_values(values: Any, wanted: Any) -> Array:
    if hasattr(values.type, "value_type") and hasattr(values.type, "index_type"):
        if hasattr(values, "combine_chunks") and hasattr(values, "chunks"):
            values = values.combine_chunks()
        values = values.dictionary_decode()
    if hasattr(values, "chunks"):
        return np.asarray(values.to_numpy())
    return np.asarray(values.to_numpy(zero_copy_only=False))


_VALUES: dict[str, Callable[[Any, Any], Array]] = {
    "pandas": _pandas_values,
    "polars": _polars_values,
    "pyarrow": _arrow_values,
}
