"""What the other modules of this folder need from a table: its fields, and blocks of rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.strings import Convert
from ratzarr.errors import (
    ArgumentError,
    ChangedError,
    ColumnNotFoundError,
    PackageMissingError,
)
from ratzarr.format.blocks import Block
from ratzarr.format.names import MISSING_ATTR, near_names

__all__ = [
    "GEOMETRY",
    "ROW",
    "Field",
    "Source",
    "check_missing",
    "check_unchanged",
    "chosen_fields",
    "is_missing",
    "missing_value",
    "required",
    "row_name",
    "row_range",
    "unused_integer",
]

Array = NDArray[Any]

ROW = "row"
"""The name of the virtual column with the row numbers."""

GEOMETRY = 5
"""GDAL's type of columns with geometries (``GFT_WKBGeometry``), in the attribute GDAL_TYPE."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column as other libraries see it."""

    name: str
    dtype: np.dtype[Any]
    """The dtype of one value, as numpy reads it."""
    width: int
    """Values per row."""
    rows: int
    """Number of rows of the column; later rows of the table are missing values."""
    chunk_rows: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    missing: Any = None
    """The value that stands for missing values, or None."""
    empty_is_missing: bool = False
    """True if empty bytes are missing values, as in columns of geometries."""

    @property
    def row_bytes(self) -> int:
        """Approximate memory of a row, in bytes."""
        each = 24 if self.dtype.kind in "TO" else self.dtype.itemsize
        return self.width * each


class Source(Protocol):
    """A table that blocks are read from."""

    @property
    def place(self) -> str:
        """Path or URL, for messages."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def threads(self) -> int:
        """Number of threads that may read at the same time."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns, in order."""

    def field(self, name: str) -> Field:
        """Return a column's description."""

    def attributes(self, name: str) -> Mapping[str, Any]:
        """Return a column's attributes as last read, perhaps of a column that has replaced it."""

    def read(self, names: Sequence[str], block: Block) -> Mapping[str, Array]:
        """Return rows of columns as arrays of shape (n,) or (n, width).

        From a column with fewer rows than the table, only its existing rows are returned.
        """

    def read_utf8(self, name: str, block: Block, convert: Convert[Any]) -> list[Any] | None:
        """Return a function's result for the text of each chunk; None if :meth:`read` is better.

        The function gets the arguments of :func:`ratzarr.codecs.strings.to_offsets`.
        """

    def reopener(self) -> Callable[[], "Source"]:
        """Return a picklable function that opens the table again, in another process."""


def check_unchanged(
    place: str,
    name: str,
    expected: tuple[np.dtype[Any], tuple[int, ...]],
    found: tuple[np.dtype[Any], tuple[int, ...]],
) -> None:
    """Check that a column's values have the dtype and shape that were expected.

    Raises
    ------
    ChangedError
        If another process has replaced the column by one of another type, or cut rows off.
    """
    (dtype, shape), (now, there) = expected, found
    if now != dtype or there[1:] != shape[1:]:
        raise ChangedError(
            f"{place}: column {name!r} has been replaced by another process since it was looked up: "
            f"expected {dtype} of shape {shape}, found {now} of shape {there}"
        )
    if there[0] < shape[0]:
        raise ChangedError(
            f"{place}: {shape[0] - there[0]} of {shape[0]} rows of column {name!r} have been cut off "
            "by another process since it was looked up"
        )


def check_missing(
    place: str, name: str, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Check that the same values of a column are missing as was expected, given its attributes.

    Raises
    ------
    ChangedError
        If another process has replaced the column by one with other missing values.
    """
    for attribute in (MISSING_ATTR, "GDAL_TYPE"):
        # NaN is not equal to itself.
        then, now = repr(expected.get(attribute)), repr(found.get(attribute))
        if then != now:
            raise ChangedError(
                f"{place}: column {name!r} has been replaced or changed since it was looked up: "
                f"expected {attribute} {then}, found {now}"
            )


def missing_value(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    """Return the value that stands for missing values, in the column's dtype, or None.

    Also None if the dtype can't hold the recorded value, because then no row has it.
    """
    kept = attributes.get(MISSING_ATTR)
    if kept is None or isinstance(kept, (list, dict)):
        return None
    if dtype.kind in "OST":
        return _missing_text(kept, dtype) if isinstance(kept, str) else None
    try:
        with np.errstate(all="ignore"):
            value = np.array(kept).astype(dtype)[()]
        # JSON stores a float32 as the decimals of a double, so take the nearest float32.
        exact = dtype.kind in "fM" or (isinstance(kept, (int, float)) and value == kept)
    except (ValueError, TypeError, OverflowError):
        return None
    return value if exact else None


def _missing_text(kept: str, dtype: np.dtype[Any]) -> str | bytes | None:
    try:
        data = kept.encode()
    except UnicodeEncodeError:
        return None
    if dtype.kind == "T":
        return kept
    return data if dtype.kind == "O" or np.array(data, dtype)[()] == data else None


def is_missing(values: Array, missing: Any) -> NDArray[np.bool_]:
    r"""Return where values equal the one that stands for missing values; see :func:`missing_value`.

    >>> is_missing(np.array([b"a", b"a\0"], object), b"a\0")
    array([False,  True])
    """
    if values.dtype.kind in "OT":
        # From a string of Python's, numpy would drop zeros at the end.
        one = np.empty(1, values.dtype)
        one[0] = missing
        missing = one
    return np.asarray(values == missing, np.bool_)


def unused_integer(present: Array, dtype: np.dtype[Any]) -> int | None:
    """Return an integer of a dtype that no value is equal to; None if there is none.

    The smallest of a signed dtype, or the greatest of an unsigned one, if it is free.

    >>> unused_integer(np.array([3, 255], "u1"), np.dtype("u1"))
    254
    >>> unused_integer(np.arange(5, dtype="i8"), np.dtype("i8"))
    -9223372036854775808
    """
    limits = np.iinfo(dtype)
    step, first, last = (1, limits.min, limits.max)
    if dtype.kind == "u":
        step, first, last = -1, limits.max, limits.min
    taken = np.unique(present)
    for value in (taken if step > 0 else taken[::-1]).tolist():
        if value != first:
            break
        if first == last:
            return None
        first += step
    return int(first)


def required(name: str, extra: str, purpose: str) -> Any:
    """Import a library that is optional.

    Parameters
    ----------
    name : str
        The module.
    extra : str
        The extra of this package that installs it.
    purpose : str
        The beginning of the message: what the library is needed for.

    Raises
    ------
    PackageMissingError
        If it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise PackageMissingError(
            f"{purpose} needs {package} ({error}): pip install 'ratzarr[{extra}]', or "
            f"conda install -c conda-forge {'python-duckdb' if package == 'duckdb' else package}"
        ) from error


def row_name(names: Sequence[str]) -> str:
    """Return the name of the virtual column with the row numbers.

    >>> row_name(["a", "row"])
    '_row'
    """
    taken = {name.casefold() for name in names}
    name = ROW
    while name in taken:
        name = f"_{name}"
    return name


def chosen_fields(source: Source, columns: Sequence[str] | None) -> list[str]:
    """Return the chosen columns' names, by default all.

    Raises
    ------
    ArgumentError
        If ``columns`` is a string, or has a name twice.
    ColumnNotFoundError
        If a column does not exist.
    """
    names = list(source.names)
    if columns is None:
        return names
    if isinstance(columns, str):
        raise ArgumentError(f"columns is a list of names; got the string {columns!r}")
    wanted = list(columns)
    for place, name in enumerate(wanted):
        if name not in names:
            raise ColumnNotFoundError(
                f"{source.place} has no column {name!r}{near_names(str(name), names)}"
            )
        if name in wanted[:place]:
            raise ArgumentError(f"column {name!r} is chosen twice")
    return wanted


def row_range(source: Source, rows: Any) -> Block:
    """Return the block for a ``rows`` argument: None, a slice, a range or (start, stop).

    Raises
    ------
    ArgumentError
        If it has a step, or is something else.
    """
    if rows is None:
        return Block(0, source.rows)
    if isinstance(rows, range):
        rows = slice(rows.start, rows.stop, rows.step)
    elif isinstance(rows, tuple) and len(rows) == 2:
        rows = slice(*rows)
    try:
        start, stop, step = rows.indices(source.rows)
    except (AttributeError, TypeError):
        raise ArgumentError(
            f"rows is a slice, a range or (start, stop): got {rows!r:.100}"
        ) from None
    if step != 1:
        raise ArgumentError(f"rows must be consecutive: got a step of {step}")
    return Block(start, max(0, stop - start))
