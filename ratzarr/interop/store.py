"""A store as a source of blocks, and new columns from whole arrays."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.strings import Convert
from ratzarr.errors import (
    ArgumentError,
    ChangedError,
    RatZarrError,
    ShapeError,
    UnequalValueError,
    UnsupportedDtypeError,
)
from ratzarr.format.blocks import Block
from ratzarr.format.casting import as_block
from ratzarr.format.dataframes import nullable_integers
from ratzarr.format.dtypes import normalize_dtype
from ratzarr.format.names import MISSING_ATTR, OWN_COLUMN_ATTRS
from ratzarr.interop.container import LazyColumn
from ratzarr.interop.source import (
    GEOMETRY,
    Field,
    Source,
    missing_value,
    unused_integer,
)
from ratzarr.pipeline import PROCESSORS

__all__ = ["StoreSource", "store_column"]

Array = NDArray[Any]

PAGES = 16
"""Text is decoded in whole chunks, if at least 1/PAGES of a chunk's rows are needed."""
WRITE_ROWS = 2**21
"""Approximate number of rows written at a time."""


class StoreSource:
    """A :class:`ratzarr.RatZarr` as a :class:`~ratzarr.interop.source.Source`."""

    threads = max(2, PROCESSORS)

    def __init__(self, table: Any, storage_options: Mapping[str, Any] | None = None) -> None:
        self._table, self._options = table, storage_options

    @property
    def place(self) -> str:
        """Path or URL."""
        return str(self._table.filename)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._table.getRowCount())

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""
        names: list[str] = self._table.getColumnNames()
        return names

    def field(self, name: str) -> Field:
        """Return a column's description."""
        table = self._table
        attributes = table.getColumnAttributeMapping(name).asdict()
        dtype = table.getColumnDtype(name)
        return Field(
            name,
            dtype,
            table.getColumnWidth(name),
            self.rows,
            table.getColumnChunkSize(name),
            {key: value for key, value in attributes.items() if key not in OWN_COLUMN_ATTRS},
            missing_value(attributes, dtype),
            dtype.kind == "O" and attributes.get("GDAL_TYPE") == GEOMETRY,
        )

    def attributes(self, name: str) -> Mapping[str, Any]:
        """Return a column's attributes as last read."""
        found: Mapping[str, Any] = self._table.getColumnAttributeMapping(name)
        return found

    def read(self, names: Sequence[str], block: Block) -> Mapping[str, Array]:
        """Return rows of columns."""
        found: dict[str, Array] = self._table.readBlocks(names, block.start, block.length)
        self._check_rows(block)
        return found

    def read_utf8(self, name: str, block: Block, convert: Convert[Any]) -> list[Any] | None:
        """Return a function's result for the text of each chunk; None for pages of a chunk."""
        if block.length * PAGES < self._table.getColumnChunkSize(name):
            return None
        found: list[Any] | None
        found = self._table.readUtf8(name, block.start, block.length, convert)
        self._check_rows(block)
        return found

    def _check_rows(self, block: Block) -> None:
        """Raise an error if fewer rows than a block's were read, because the others were cut off."""
        if block.stop > self.rows:
            raise ChangedError(
                f"{self.place} has {self.rows} rows now: its rows up to {block.stop - 1}, which were to "
                "be read, have been cut off"
            )

    def reopener(self) -> Callable[[], Source]:
        """Return a picklable function that opens the table in another process.

        Rows in the write buffer are written first, because only this instance sees them.
        """
        self._table.flush()
        return partial(_reopened, type(self._table), self._table.filename, self._options)


def _reopened(
    kind: Callable[..., Any], filename: Any, storage_options: Mapping[str, Any] | None
) -> StoreSource:
    return StoreSource(kind(filename, True, storageOptions=storage_options), storage_options)


def _check_index(values: Any, name: str) -> None:
    """Refuse a Series of pandas whose index has row numbers in another order.

    :meth:`TableMethods.to_pandas` names the index of its frames ``row``. A Series that was sorted
    or joined since would go to the wrong rows.
    """
    index: Any = getattr(values, "index", None)
    if getattr(index, "name", None) not in ("row", "_row") or not hasattr(index, "to_numpy"):
        return
    rows = index.to_numpy()
    if rows.dtype.kind in "iu" and not np.array_equal(rows, np.arange(len(rows))):
        raise ArgumentError(
            f"the values for column {name!r} are not in the order of the rows: their index "
            f"{index.name!r} has other numbers. Sort them with .sort_index(), or drop the index with "
            ".to_numpy() if the order is meant"
        )


def store_column(
    table: Any,
    name: str,
    values: Any,
    attributes: Callable[[np.dtype[Any]], dict[str, Any]] | None = None,
) -> None:
    """Create a column from all its values, or replace it.

    If this fails, the table is as it was.

    Parameters
    ----------
    table : RatZarr
    name : str
    values : array-like, LazyColumn or scalar
        One row for each row of the table; a scalar is the value of all rows. A table without rows
        and columns gets as many rows as there are values. Nulls among integers of pandas, Polars
        or Arrow become an unused integer, which is recorded in the attribute ``missing_value``. A
        column of a table keeps its own.
    attributes : callable, optional
        Returns the attributes of the column, for its dtype.

    Raises
    ------
    ShapeError
        If the number of rows differs.
    UnsupportedDtypeError, UnequalValueError
        If no column holds the values exactly, nulls among text for example.
    """
    _check_index(values, name)
    missing: Any = None
    given: Array | LazyColumn
    if (nullable := nullable_integers(values)) is not None:
        given, missing = _filled(*nullable, name)
    elif isinstance(values, LazyColumn):
        given, missing = values, values.attrs.get(MISSING_ATTR)
    else:
        given = as_block(values, column=name)
    shape = given.shape
    is_new = not table.getColumnNames() and not table.getRowCount()
    if not shape and not is_new:
        given = np.broadcast_to(given, (table.getRowCount(),))
        shape = given.shape
    if len(shape) not in (1, 2) or 0 in shape[1:]:
        raise ShapeError(
            f"column {name!r}: expected values of shape (rows,) or (rows, width), got {shape}"
        )
    if not is_new:
        _check_length(table, name, shape[0])
    dtype = normalize_dtype(_dtype_for(given, name))
    if is_new:
        table.setRowCount(shape[0])
    replaces = table.colExists(name)
    if isinstance(given, LazyColumn) and given.is_of(str(table.filename), name):
        # In this instance, the name will refer to the new column before the old one has been read.
        given = given.reopened()
    try:
        table.createColumn(
            name,
            dtype,
            shape[1] if len(shape) == 2 else 1,
            attributes=(attributes(dtype) if attributes is not None else {})
            | ({} if missing is None else {MISSING_ATTR: missing}),
            complete=False,
            replace=replaces,
        )
        # Now the instance knows of rows that another process has added.
        _check_length(table, name, shape[0])
        if missing is None:
            # The new values don't use the old column's value for missing.
            mapping = table.getColumnAttributeMapping(name)
            if MISSING_ATTR in mapping:
                del mapping[MISSING_ATTR]
        chunk = table.getColumnChunkSize(name)
        step = chunk * max(1, WRITE_ROWS // chunk)
        for first in range(0, shape[0], step):
            table.writeBlock(name, given[first : first + step], first)
        table.setComplete(name)
    except BaseException:
        with suppress(RatZarrError):
            # Once the replacement is complete, it stays: the old column is gone.
            table.deleteColumn(name, onlyUnfinished=replaces)
        with suppress(RatZarrError):
            if is_new and not table.getColumnNames():
                table.setRowCount(0)
        raise


def _check_length(table: Any, name: str, length: int) -> None:
    rows = table.getRowCount()
    if length != rows:
        raise ShapeError(
            f"{table.filename} has {rows} rows, and the values for column {name!r} have {length}"
        )


def _filled(present: Array, missing: Array, name: str) -> tuple[Array, int]:
    """Return integers with an unused one for each missing value, and this one."""
    spare = unused_integer(present, present.dtype)
    if spare is None:
        raise UnequalValueError(
            f"column {name!r} has every value of {present.dtype}, and none is left to stand for nulls: "
            "convert it to a wider dtype"
        )
    values = np.full(len(missing), spare, present.dtype)
    values[~missing] = present
    return values, spare


def _dtype_for(values: Any, name: str) -> Any:
    dtype = values.dtype
    if dtype.kind == "U" or (dtype.kind == "T" and hasattr(dtype, "na_object")):
        return str
    if dtype.kind != "O" or dtype.metadata is not None:
        return dtype
    kinds = {type(one) for one in np.asarray(values).flat}
    if kinds <= {str, np.str_}:
        return str
    if kinds <= {bytes, np.bytes_}:
        return bytes
    if all(issubclass(kind, (int, np.integer)) for kind in kinds - {bool}):
        # Writing refuses what this does not hold.
        return np.dtype(np.uint64 if max(values.flat) >= 2**63 else np.int64)
    if all(issubclass(kind, (int, float, np.integer, np.floating)) for kind in kinds - {bool}):
        # Writing refuses integers that float64 would round.
        return np.dtype(np.float64)
    said = ", ".join(sorted(kind.__name__ for kind in kinds))
    if len(kinds) == 1:
        is_time = said in ("date", "datetime")
        raise UnsupportedDtypeError(
            f"column {name!r}: values of the type {said}, and a column has numbers, bools, text, bytes "
            "or date-times of numpy"
            + (": convert them with numpy.array(values, 'datetime64[us]')" if is_time else "")
        )
    raise UnsupportedDtypeError(
        f"column {name!r}: values of different types ({said}), and a column has one: give an array "
        "of one dtype, without None or NaN among text"
    )
