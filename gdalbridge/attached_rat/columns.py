"""Columns of an attached table, read and written with GDAL's semantics."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.attached_rat.gdal_rat import GdalRat, native_rat
from gdalbridge.attached_rat.sidecar_table import SidecarTable
from gdalbridge.attached_rat.values import Shown, from_plain, shown_as, to_plain, to_stored
from gdalbridge.errors import ConversionError, GdalError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.compat import NEW_TYPES, exceptions, silence
from gdalbridge.gdalio.field_types import (
    COLOUR_USAGES,
    FieldType,
    FieldUsage,
    stored_dtype,
    type_name,
    usage_attributes,
    usage_name,
)
from gdalbridge.gdalio.rat_reader import DbfSource, RatSource
from gdalbridge.sidecars.merged import shown_part

__all__ = [
    "AttachedColumn",
    "ConvertedColumn",
    "OwnColumn",
    "SidecarColumn",
    "Window",
    "are_equal",
    "as_list",
    "blank",
    "check_text",
    "datetime_text",
    "own_column",
    "pieces",
    "stored_array",
    "stored_cell",
    "usage_for_gdal",
]


Array = NDArray[Any]

_LISTS: dict[str, np.dtype[Any]] = {
    "ReadValuesIOAsInteger": np.dtype(np.int32),
    "ReadValuesIOAsDouble": np.dtype(np.float64),
    "ReadValuesIOAsBoolean": np.dtype(np.bool_),
}


def as_list(method: str, plain: Array) -> list[Any] | None:
    """Return rows of numbers as one of GDAL's methods would; None if only GDAL can answer.

    Parameters
    ----------
    method : str
        ``ReadValuesIOAsInteger`` and the like.
    plain : ndarray
        Values in the form that GDAL accepts, see :mod:`gdalbridge.attached_rat.values`.
    """
    dtype = _LISTS.get(method)
    if dtype is None or not len(plain) or plain.dtype.kind not in "ifb":
        return None
    if plain.dtype.kind == "f" and dtype.kind != "f" and not np.abs(plain).max() < 2**31:
        # GDAL truncates to an integer, which is undefined in C++ for NaN and larger values.
        return None
    found: list[Any] = plain.astype(dtype, copy=False).tolist()
    return found


def check_text(text: Any, what: str) -> None:
    """Check that text can be encoded as UTF-8. GDAL's bindings abort the process if it can't.

    Parameters
    ----------
    text
        Anything but a ``str`` is left for GDAL to check.
    what : str
        The subject of the error message.

    Raises
    ------
    ConversionError
        If the text holds half of a surrogate pair.
    """
    if isinstance(text, str) and not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ConversionError(
                f"{what}: {text!r} holds half of a surrogate pair, which has no UTF-8 encoding"
            ) from None


def stored_cell(shown: Shown, rat: Any, at: int, row: int) -> Array:
    """Return a cell of a one-column GDAL table in the column's stored dtype.

    Parameters
    ----------
    shown : Shown
        The column.
    rat, at
        The GDAL table, and the cell's row in it.
    row : int
        Row of the attached table, for error messages.

    Raises
    ------
    ConversionError
        If the column's dtype can't hold the value.
    """
    kind = shown.type
    if kind == FieldType.DATETIME:
        plain = datetime_text(rat, at, 1, 0)
    elif kind == FieldType.STRING:
        text = rat.GetValueAsString(at, 0)
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        plain = np.array([raw], f"S{len(raw) or 1}")
    elif kind == FieldType.WKB_GEOMETRY:
        plain = np.empty(1, object)
        plain[0] = bytes(rat.GetValueAsWKBGeometry(at, 0))
    elif kind == FieldType.INTEGER:
        plain = np.array([rat.GetValueAsInt(at, 0)], np.int32)
    elif kind == FieldType.BOOLEAN:
        plain = np.array([rat.GetValueAsBoolean(at, 0)], np.bool_)
    else:
        plain = np.array([rat.GetValueAsDouble(at, 0)], np.float64)
    return from_plain(shown, plain, row)


def stored_array(shown: Shown, values: Array, first_row: int) -> Array:
    """Convert a user's array to the column's stored dtype, exactly.

    Raises
    ------
    ConversionError
        If a value can't be stored exactly; names its row.
    GdalError
        If GDAL refuses the array.
    """
    stored = to_stored(shown, values, first_row)
    if stored is not None:
        return stored
    found = []
    for at, size in pieces(0, len(values)):
        rat = _written_to_gdal(shown, values[at : at + size], first_row + at)
        if shown.type == FieldType.DATETIME:
            plain = datetime_text(rat, 0, size, 0)
        else:
            plain = rat.ReadAsArray(0, 0, size)
        found.append(from_plain(shown, plain, first_row + at))
    if not found:
        return np.empty(0, shown.dtype)
    return found[0] if len(found) == 1 else np.concatenate(found)


def _written_to_gdal(shown: Shown, values: Array, first_row: int) -> Any:
    """Write values to a new GDAL table, and return the table."""
    if values.dtype.kind in "UT":
        values = np.array([text.encode("utf-8") for text in values.tolist()], "S")
    rat = native_rat(shown.type, None, len(values))
    with exceptions(), silence():
        try:
            if shown.type == FieldType.DATETIME and values.dtype.kind == "O":
                # Some versions of GDAL crash if the array has a date-time without a time zone.
                for at, value in enumerate(values.tolist()):
                    rat.SetValueAsDateTime(at, 0, value)
            elif len(values) and rat.WriteArray(np.ascontiguousarray(values), 0):
                raise GdalError(
                    f"column {shown.column!r}: GDAL refused an array of {values.dtype}"
                )
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise GdalError(
                f"column {shown.column!r}, from row {first_row}: GDAL can't convert an array of "
                f"{values.dtype} to {type_name(shown.type)}: {error}"
            ) from error
    noun = {FieldType.DATETIME: "a date-time", FieldType.WKB_GEOMETRY: "WKT"}.get(shown.type)
    if noun is not None and values.dtype.kind == "S":
        for at, text in enumerate(values.tolist()):
            if text and not rat.GetValueAsString(at, 0):
                raise ConversionError(
                    f"column {shown.column!r}, row {first_row + at}: {text!r} is not {noun}"
                )
    return rat


FIRST_WINDOW = 64
LONGEST_WINDOW = 8192
PIECE = 65536
"""Rows that are converted at once through a GDAL table."""
_CELL_TYPES = frozenset({FieldType.INTEGER, FieldType.REAL, FieldType.STRING})
_CELL_METHODS = frozenset({"SetValueAsInt", "SetValueAsDouble", "SetValueAsString"})
_PLAIN = {FieldType.INTEGER: "i4", FieldType.REAL: "f8", FieldType.BOOLEAN: "?"}


def pieces(start: int, length: int, rows: int = PIECE) -> Iterator[tuple[int, int]]:
    """Split a range of rows into (start, length) pairs of bounded length."""
    for first in range(start, start + length, rows):
        yield first, min(rows, start + length - first)


@dataclass(slots=True)
class Window:
    """Rows of a column in a GDAL table."""

    rat: Any
    first: int
    stop: int
    """The window holds rows ``first`` to ``stop - 1`` of the attached table."""
    column: int
    """The column's number in ``rat``."""
    lasting: bool = True
    """True if the window stays valid for later calls."""


type AttachedColumn = OwnColumn | SidecarColumn
"""A column of an attached table."""


def blank(kind: int, first: int, stop: int) -> Window:
    """Return a window of empty values."""
    return Window(native_rat(kind, None, min(stop - first, 1)), first, stop, 0, lasting=False)


class OwnColumn:
    """A column of the raster's own table, or of any other GDAL table."""

    def __init__(self, own: RatSource, index: int) -> None:
        self.own, self.index = own, index
        column = own.schema.columns[index]
        self.name, self.type, self.usage = column.name, column.type, column.usage

    @property
    def rows(self) -> int:
        """Number of rows. Later rows of the table read as empty values."""
        return self.own.schema.rows

    def window(self, row: int, after: Window | None) -> Window:
        """Return a window with a row; ``after`` is the last window, which lacks the row."""
        lasting = not isinstance(self.own, GdalRat) or self.own.is_kept
        return Window(self.own.rat, 0, self.rows, self.index, lasting=lasting)

    def read(self, start: int, length: int) -> Array:
        """Return existing rows as GDAL's ``ReadAsArray`` does."""
        return self.own.read_raw(self.index, start, length)

    def values(self, method: str, start: int, length: int) -> list[Any] | None:
        """Return existing rows as one of GDAL's ``ReadValuesIOAs...`` methods does."""
        found: list[Any] | None = getattr(self.own.rat, method)(self.index, start, length)
        return found

    def exact(self, start: int, length: int) -> Array:
        """Return existing rows as :func:`gdalbridge.attached_rat.values.from_plain` takes them."""
        if self.type == FieldType.DATETIME:
            return datetime_text(self.own.rat, start, length, self.index)
        return self.read(start, length)


class ShownColumn(ABC):
    """A column whose values are converted to a type of GDAL's.

    :mod:`gdalbridge.attached_rat.values` describes the conversions.
    """

    name: str
    type: int
    usage: int

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of rows."""

    @abstractmethod
    def plain(self, start: int, length: int) -> Array:
        """Return rows in the form that GDAL accepts, see :mod:`gdalbridge.attached_rat.values`."""

    def _native(self, start: int, length: int) -> Any:
        return native_rat(self.type, self.plain(start, length))

    def window(self, row: int, after: Window | None) -> Window:
        """See :meth:`OwnColumn.window`."""
        length = FIRST_WINDOW
        if after is not None and row == after.stop:
            # The rows are read in order, so the windows grow: each window costs some calls.
            length = min(LONGEST_WINDOW, 2 * (after.stop - after.first))
        first = row if after is not None and row == after.stop else row // length * length
        stop = min(first + length, self.rows)
        try:
            plain = self.plain(first, stop - first)
        except ConversionError:
            # The error may concern another row of the window, so read this row alone.
            first, stop = row, row + 1
            plain = self.plain(first, 1)
        return Window(native_rat(self.type, plain), first, stop, 0)

    def read(self, start: int, length: int) -> Array:
        """See :meth:`OwnColumn.read`."""
        if self.type in _PLAIN:
            return self.plain(start, length)
        if self.type == FieldType.STRING:
            found = [self.plain(first, size) for first, size in pieces(start, length)]
        else:
            found = [self._objects(first, size) for first, size in pieces(start, length)]
        if not found:
            found = [self._objects(start, 0)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _objects(self, start: int, length: int) -> Array:
        rat = self._native(start, length)
        with exceptions(), silence():
            values: Array = rat.ReadAsArray(0, 0, length)
        return values

    def values(self, method: str, start: int, length: int) -> list[Any] | None:
        """See :meth:`OwnColumn.values`."""
        if (
            self.type in _PLAIN
            and (made := as_list(method, self.plain(start, length))) is not None
        ):
            return made
        found: list[Any] | None = getattr(self._native(start, length), method)(0, 0, length)
        return found

    def exact(self, start: int, length: int) -> Array:
        """See :meth:`OwnColumn.exact`."""
        if self.type != FieldType.DATETIME:
            return self.read(start, length)
        times, offsets = datetimes.parse(self.plain(start, length))
        return datetimes.text_for_gdal(times, offsets, column=self.name, first_row=start)


class ConvertedColumn(ShownColumn, OwnColumn):
    """A column of the raster's own that GDAL's table would alter.

    These are the columns of a ``.vat.dbf``, and text in another encoding than UTF-8.
    """

    def __init__(self, own: RatSource, index: int, *, as_text: bool = False) -> None:
        OwnColumn.__init__(self, own, index)
        dtype, attributes = stored_dtype(FieldType.STRING), {"GDAL_TYPE": self.type}
        if isinstance(own, DbfSource):
            found = own.rat.column(index)
            attributes = found.attributes | {"GDAL_TYPE": int(found.type)}
            # A wide field may hold only small integers. GDAL shows it as Integer.
            is_integer = found.type == FieldType.INTEGER
            dtype = stored_dtype(FieldType.INTEGER) if is_integer else found.dtype
        attributes["GDAL_USAGE"] = self.usage
        shown = shown_as(self.name, dtype, attributes, new_types=NEW_TYPES, as_text=as_text)
        if shown is None:
            raise ConversionError(f"column {self.name!r}: GDAL has no type for {dtype}")
        self.shown, self.type = shown, int(shown.type)

    rows = OwnColumn.rows

    def plain(self, start: int, length: int) -> Array:
        """See :meth:`ShownColumn.plain`."""
        stored = self.own.read(self.index, start, length)
        return to_plain(self.shown, stored.astype(self.shown.dtype, copy=False), start)


class SidecarColumn(ShownColumn):
    """A column of a sidecar, or one value per row of a sidecar column that has several.

    Parameters
    ----------
    table : SidecarTable
    shown : Shown
    name : str
        The name that GDAL's code sees.
    part : int or None
        The index of the value in each row; None for a column with one value per row.
    """

    def __init__(self, table: SidecarTable, shown: Shown, name: str, part: int | None) -> None:
        self.table, self.shown, self.name, self.part = table, shown, name, part
        self.type, self.usage = int(shown.type), shown.usage
        self._cell: Any = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.table.rows

    def stored(self, start: int, length: int) -> Array:
        """Return rows in their stored dtype.

        Raises
        ------
        ChangedError
            If another process has replaced the column by one of another type, or cut rows off.
        """
        values = self.table.read(self.shown.column, start, length)
        return shown_part(
            self.table.path, self.shown.column, values, self.part, (self.shown.dtype, (length,))
        )

    def plain(self, start: int, length: int) -> Array:
        """Return rows in the form that GDAL accepts, see :mod:`gdalbridge.attached_rat.values`."""
        values = None
        if self.shown.dtype.kind == "T" and self.part is None:
            values = self.table.read_text(self.shown.column, start, length)
        if values is None or len(values) < length:
            values = self.stored(start, length)
        return to_plain(self.shown, values, start)

    # ---- writing

    def set_usage(self, usage: int) -> None:
        """Set the column's usage.

        Raises
        ------
        ConversionError
            If it is one of several values per row.
        """
        if self.part is not None:
            raise ConversionError(
                f"{self.table.path}: column {self.name!r} is one of several values per row, and "
                f"can't have the usage {usage_name(usage)} by itself"
            )
        self.table.set_column_attributes(self.shown.column, usage_attributes(usage))
        self.usage = usage

    def put(self, start: int, values: Array) -> None:
        """Change rows; values have the stored dtype."""
        if self.part is not None:
            whole = self.table.read(self.shown.column, start, len(values)).copy()
            whole[:, self.part] = values
            values = whole
        self.table.put(self.shown.column, start, values)

    def takes_cells_by(self, method: str) -> bool:
        """Return True if :meth:`cell` can convert values for one of GDAL's ``SetValueAs...``.

        False if GDAL may leave the former value of the cell.
        """
        return method in _CELL_METHODS and self.type in _CELL_TYPES

    def cell(self, method: str, row: int, value: Any) -> Array:
        """Convert a value as one of GDAL's methods does, without reading the cell's former value.

        Returns
        -------
        ndarray of one value
            In the stored dtype.
        """
        # The table of one row is used by one thread at a time.
        with self.table.lock:
            if self._cell is None:
                self._cell = native_rat(self.type, None, 1)
            with exceptions(), silence():
                getattr(self._cell, method)(0, 0, value)
            return stored_cell(self.shown, self._cell, 0, row)

    def put_plain(self, start: int, plain: Array) -> None:
        """Change rows; values have the form that GDAL returns."""
        self.put(start, from_plain(self.shown, plain, start))

    def take_from(self, other: AttachedColumn, rows: int) -> None:
        """Copy rows of another column to this one."""
        for start, length in pieces(0, rows):
            there = max(0, min(length, other.rows - start))
            if there:
                self.put_plain(start, other.exact(start, there))


def own_column(own: RatSource, index: int, as_text: Collection[str] = ()) -> OwnColumn:
    """Return a column of the raster's own table."""
    column = own.schema.columns[index]
    is_encoded = column.type == FieldType.STRING and own.options.encoding is not None
    if isinstance(own, DbfSource) or is_encoded:
        return ConvertedColumn(own, index, as_text=column.name in as_text)
    return OwnColumn(own, index)


def usage_for_gdal(column: AttachedColumn) -> int:
    """Return the usage for a copy in a GDAL table, where only Integer columns can be colours."""
    is_other = column.usage in COLOUR_USAGES and column.type != FieldType.INTEGER
    return int(FieldUsage.GENERIC) if is_other else column.usage


def are_equal(one: AttachedColumn, other: AttachedColumn, rows: int) -> bool:
    """Return True if two columns have the same type and bit-identical values."""
    if one.type != other.type or one.rows < rows or other.rows < rows:
        return False
    for start, length in pieces(0, rows):
        here, there = (column.exact(start, length) for column in (one, other))
        if here.dtype.kind == "f":
            here, there = here.view("u8"), there.view("u8")
        if not bool(np.all(here == there)):
            return False
    return True


def datetime_text(rat: Any, start: int, length: int, index: int) -> Array:
    """Return date-times of a GDAL table as exact ISO text."""
    rows = range(start, start + length)
    # Cells are read one by one: some versions read the wrong rows in blocks, and values in blocks
    # are less exact.
    texts = [rat.GetValueAsString(row, index) for row in rows]
    objects = [rat.GetValueAsDateTime(row, index) for row in rows]
    name = rat.GetNameOfCol(index)
    times, offsets = datetimes.parse(texts, column=name, first_row=start)
    times = datetimes.finer(times, objects, texts, column=name, first_row=start)
    return datetimes.text_for_gdal(times, offsets, column=name, first_row=start)
