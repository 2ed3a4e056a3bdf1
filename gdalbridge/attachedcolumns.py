"""The columns of an attached table: the raster's own, and those of its sidecars.

Either can be asked for a :class:`Window`, a table of GDAL's in which a cell is found, so
that all conversions between types are GDAL's own; and for rows as GDAL's ``ReadAsArray``
hands them out. What lies beyond a column's own rows is GDAL's empty value.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import gdaldatetimes
from ._gdal import NEW_TYPES, exceptions, silence
from .errors import ConversionError
from .gdaltypes import COLOUR_USAGES, FieldType, FieldUsage, usage_attributes, usage_name
from .numberlists import as_list, needs_no_gdal
from .ownrat import HeldRat, native_rat
from .shownvalues import Shown, from_plain, shown_as, to_plain
from .sidecartable import SidecarTable

__all__ = [
    "AttachedColumn",
    "ConvertedColumn",
    "OwnColumn",
    "SidecarColumn",
    "Window",
    "are_equal",
    "blank",
    "datetime_text",
    "own_column",
    "pieces",
    "plain_of",
    "usage_for_gdal",
]

Array = NDArray[Any]

FIRST_WINDOW = 64
LONGEST_WINDOW = 8192
LONGEST_PAGE = 2048
"""Rows of a page that is kept as a table of GDAL's: one for each column."""
PIECE = 65536
"""Rows that are taken through a table of GDAL's at once."""
_PLAIN = {FieldType.INTEGER: "i4", FieldType.REAL: "f8", FieldType.BOOLEAN: "?"}


def pieces(start: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut rows into (start, length) of bounded length."""
    for first in range(start, start + length, PIECE):
        yield first, min(PIECE, start + length - first)


@dataclass(slots=True)
class Window:
    """Rows of a column, in a table of GDAL's."""

    rat: Any
    first: int
    stop: int
    """Rows of the attached table that are in it."""
    column: int
    """The column's number in it."""
    lasting: bool = True
    """Whether it can be used again without asking for it."""


class AttachedColumn(Protocol):
    """What the attached table knows of a column."""

    @property
    def name(self) -> str:
        """As GDAL's code sees it."""

    @property
    def type(self) -> int:
        """GDAL's number of it."""

    @property
    def usage(self) -> int:
        """GDAL's number of it."""

    @property
    def rows(self) -> int:
        """How many it has; beyond are empty values."""

    def window(self, row: int, after: Window | None) -> Window:
        """Return where a row is; ``after`` is the window that it was looked for in."""

    def read(self, start: int, length: int) -> Array:
        """Return some of its own rows, as GDAL hands them out."""

    def values(self, method: str, start: int, length: int) -> list[Any] | None:
        """Return some of its own rows by one of GDAL's ``ReadValuesIOAs...``."""

    def native(self, start: int, length: int) -> tuple[Any, int, int]:
        """Return a table of GDAL's with some of its own rows; their first, the column there."""


def blank(kind: int, first: int, stop: int) -> Window:
    """Return a window of empty values."""
    return Window(native_rat(kind, None, min(stop - first, 1)), first, stop, 0, lasting=False)


class OwnColumn:
    """A column of the raster itself, or of any other table of GDAL's."""

    def __init__(self, own: HeldRat, index: int) -> None:
        self.own, self.index = own, index
        column = own.schema.columns[index]
        self.name, self.type, self.usage = column.name, column.type, column.usage

    @property
    def rows(self) -> int:
        """How many it has."""
        return self.own.schema.rows

    def window(self, row: int, after: Window | None) -> Window:
        """See :meth:`AttachedColumn.window`."""
        return Window(self.own.rat, 0, self.rows, self.index, lasting=self.own.is_kept)

    def read(self, start: int, length: int) -> Array:
        """See :meth:`AttachedColumn.read`."""
        return self.own.read(self.index, start, length)

    def values(self, method: str, start: int, length: int) -> list[Any] | None:
        """See :meth:`AttachedColumn.values`."""
        found: list[Any] | None = getattr(self.own.rat, method)(self.index, start, length)
        return found

    def native(self, start: int, length: int) -> tuple[Any, int, int]:
        """See :meth:`AttachedColumn.native`."""
        return self.own.rat, start, self.index


class ShownColumn(ABC):
    """A column whose stored values are shown as GDAL's; see :mod:`gdalbridge.shownvalues`."""

    name: str
    type: int
    usage: int
    _last: tuple[tuple[int, int, int], Any] | None = None

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many it has."""

    @property
    @abstractmethod
    def version(self) -> int:
        """Another number whenever values were changed."""

    @abstractmethod
    def plain(self, start: int, length: int) -> Array:
        """Return rows as GDAL takes them, see :mod:`gdalbridge.shownvalues`."""

    def _native(self, start: int, length: int) -> Any:
        """Return a table of GDAL's with rows: a page is asked for again when it is drawn again."""
        # Before it is read: what is changed meanwhile is another version.
        key = (self.version, start, length)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        self._last = None
        rat = native_rat(self.type, self.plain(start, length))
        if length <= LONGEST_PAGE:
            self._last = (key, rat)
        return rat

    def window(self, row: int, after: Window | None) -> Window:
        """See :meth:`AttachedColumn.window`."""
        length = FIRST_WINDOW
        if after is not None and row == after.stop:
            # Read in order: more at once, as each window costs some calls.
            length = min(LONGEST_WINDOW, 2 * (after.stop - after.first))
        first = row if after is not None and row == after.stop else row // length * length
        stop = min(first + length, self.rows)
        try:
            plain = self.plain(first, stop - first)
        except ConversionError:
            # Of another row, perhaps.
            first, stop = row, row + 1
            plain = self.plain(first, 1)
        return Window(native_rat(self.type, plain), first, stop, 0)

    def read(self, start: int, length: int) -> Array:
        """See :meth:`AttachedColumn.read`."""
        if self.type in _PLAIN:
            plain = self.plain(start, length)
            # What the cache has is not the caller's to change.
            return np.array(plain, copy=True)
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
        """See :meth:`AttachedColumn.values`."""
        if not needs_no_gdal(method, self.type):
            rat = self._native(start, length)
        else:
            plain = self.plain(start, length)
            made = as_list(method, self.type, plain)
            if made is not None:
                return made
            rat = native_rat(self.type, plain)
        found: list[Any] | None = getattr(rat, method)(0, 0, length)
        return found

    def native(self, start: int, length: int) -> tuple[Any, int, int]:
        """See :meth:`AttachedColumn.native`."""
        return self._native(start, length), 0, 0


class ConvertedColumn(ShownColumn, OwnColumn):
    """A column of the raster's own that GDAL's table would alter; see :meth:`HeldRat.stored`."""

    def __init__(self, own: HeldRat, index: int, *, as_text: bool = False) -> None:
        OwnColumn.__init__(self, own, index)
        dtype, attributes = own.stored_as(index)
        shown = shown_as(self.name, dtype, attributes, new_types=NEW_TYPES, as_text=as_text)
        if shown is None:
            raise ConversionError(f"column {self.name!r}: GDAL has no type for {dtype}")
        self.shown, self.type = shown, int(shown.type)

    @property
    def rows(self) -> int:
        """How many it has."""
        return self.own.schema.rows

    @property
    def version(self) -> int:
        """It is never written."""
        return 0

    def plain(self, start: int, length: int) -> Array:
        """See :meth:`ShownColumn.plain`."""
        return to_plain(self.shown, self.own.stored(self.index, start, length), start)


class SidecarColumn(ShownColumn):
    """A column of a sidecar, or one of the values per row of one that has several.

    Parameters
    ----------
    table : SidecarTable
    shown : Shown
    name : str
        As GDAL's code sees it.
    part : int or None
        Which of the values per row.
    """

    def __init__(self, table: SidecarTable, shown: Shown, name: str, part: int | None) -> None:
        self.table, self.shown, self.name, self.part = table, shown, name, part
        self.type, self.usage = int(shown.type), shown.usage

    @property
    def rows(self) -> int:
        """How many it has."""
        return self.table.rows

    @property
    def version(self) -> int:
        """Another number whenever the table was changed."""
        return self.table.version

    def stored(self, start: int, length: int) -> Array:
        """Return rows as they are stored."""
        values = self.table.read(self.shown.column, start, length)
        return values if self.part is None else np.ascontiguousarray(values[:, self.part])

    def plain(self, start: int, length: int) -> Array:
        """Return rows as GDAL takes them, see :mod:`gdalbridge.shownvalues`."""
        values = None
        if self.shown.dtype.kind == "T" and self.part is None:
            values = self.table.read_text(self.shown.column, start, length)
        if values is None:
            values = self.stored(start, length)
        return to_plain(self.shown, values, start)

    # ---- writing

    def set_usage(self, usage: int) -> None:
        """Give it another usage.

        Raises
        ------
        ConversionError
            Where it is one of several values per row.
        """
        if self.part is not None:
            raise ConversionError(
                f"{self.table.path}: column {self.name!r} is one of several values per row, and "
                f"can't have the usage {usage_name(usage)} by itself"
            )
        self.table.set_column_attributes(self.shown.column, usage_attributes(usage))
        self.usage = usage

    def put(self, start: int, values: Array) -> None:
        """Change rows; values are as they are stored."""
        if self.part is not None:
            whole = self.table.read(self.shown.column, start, len(values)).copy()
            whole[:, self.part] = values
            values = whole
        self.table.put(self.shown.column, start, values)

    def put_plain(self, start: int, plain: Array) -> None:
        """Change rows; values are as GDAL hands them out."""
        self.put(start, from_plain(self.shown, plain, start))

    def take_from(self, other: AttachedColumn, rows: int) -> None:
        """Fill it with what another column has."""
        for start, length in pieces(0, rows):
            there = max(0, min(length, other.rows - start))
            if there:
                self.put_plain(start, plain_of(other, start, there))


def own_column(own: HeldRat, index: int, as_text: Collection[str] = ()) -> OwnColumn:
    """Return a column of the raster's own."""
    if own.is_converted(index):
        name = own.schema.columns[index].name
        return ConvertedColumn(own, index, as_text=name in as_text)
    return OwnColumn(own, index)


def usage_for_gdal(column: AttachedColumn) -> int:
    """Return the usage that a copy of GDAL's has, which makes colours Integer."""
    is_other = column.usage in COLOUR_USAGES and column.type != FieldType.INTEGER
    return int(FieldUsage.GENERIC) if is_other else column.usage


def plain_of(column: AttachedColumn, start: int, length: int) -> Array:
    """Return rows of any column as :func:`gdalbridge.shownvalues.from_plain` takes them."""
    if column.type != FieldType.DATETIME:
        return column.read(start, length)
    rat, first, index = column.native(start, length)
    return datetime_text(rat, first, length, index)


def are_equal(one: AttachedColumn, other: AttachedColumn, rows: int) -> bool:
    """Return whether two columns are of one type and have the same values, to the last bit."""
    if one.type != other.type or one.rows < rows or other.rows < rows:
        return False
    for start, length in pieces(0, rows):
        here, there = (plain_of(column, start, length) for column in (one, other))
        if here.dtype.kind == "f":
            here, there = here.view("u8"), there.view("u8")
        if not bool(np.all(here == there)):
            return False
    return True


def datetime_text(rat: Any, start: int, length: int, index: int) -> Array:
    """Return date-times of a table of GDAL's as exact ISO text."""
    rows = range(start, start + length)
    # One by one: some versions read other rows in blocks, and blocks are not as exact.
    texts = [rat.GetValueAsString(row, index) for row in rows]
    objects = [rat.GetValueAsDateTime(row, index) for row in rows]
    name = rat.GetNameOfCol(index)
    times, offsets = gdaldatetimes.parse(texts, column=name, first_row=start)
    times = gdaldatetimes.finer(times, offsets, objects, texts, column=name, first_row=start)
    return gdaldatetimes.text_for_gdal(times, offsets, column=name, first_row=start)
