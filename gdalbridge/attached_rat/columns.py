"""Columns of an attached table, read and written as GDAL does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gdalbridge.attached_rat.gdal_rat import HeldRat, native_rat
from gdalbridge.attached_rat.sidecar_table import SidecarTable
from gdalbridge.attached_rat.values import Shown, from_plain, shown_as, to_plain, to_stored
from gdalbridge.errors import ConversionError, GdalError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.compat import NEW_TYPES, exceptions, silence
from gdalbridge.gdalio.field_types import (
    COLOUR_USAGES,
    FieldType,
    FieldUsage,
    type_name,
    usage_attributes,
    usage_name,
)

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
    "needs_no_gdal",
    "own_column",
    "pieces",
    "plain_of",
    "stored_array",
    "stored_cell",
    "usage_for_gdal",
]


Array = NDArray[Any]

MOST_DIGITS = 9
"""So many are always a 32-bit number."""
NUMERIC = frozenset({FieldType.INTEGER, FieldType.REAL, FieldType.BOOLEAN})


def needs_no_gdal(method: str, kind: int) -> bool:
    """Return whether :func:`as_list` knows columns of a type by a method, as a rule."""
    return method in _MAKERS and (kind in NUMERIC or kind == FieldType.STRING)


def as_list(method: str, kind: int, plain: Array) -> list[Any] | None:
    """Return rows as one of GDAL's methods does; None where GDAL is to be asked.

    Parameters
    ----------
    method : str
        ``ReadValuesIOAsInteger`` and the like.
    kind : int
        GDAL's number of the column's type.
    plain : ndarray
        As GDAL takes it, see :mod:`gdalbridge.attached_rat.values`.
    """
    make = _MAKERS.get(method)
    return make(kind, plain) if make is not None and len(plain) else None


def _integers(kind: int, plain: Array) -> list[Any] | None:
    if kind == FieldType.STRING:
        return _listed(_of_text(plain))
    if kind == FieldType.REAL and not np.abs(plain).max() < 2**31:
        # It cuts; what of these does not fit is undefined in C++.
        return None
    return plain.astype(np.int32, copy=False).tolist() if kind in NUMERIC else None


def _doubles(kind: int, plain: Array) -> list[Any] | None:
    if kind == FieldType.STRING:
        numbers = None if _has_words_that_are_doubles(plain) else _of_text(plain)
        return None if numbers is None else _listed(numbers.astype(np.float64))
    return plain.astype(np.float64, copy=False).tolist() if kind in NUMERIC else None


def _booleans(kind: int, plain: Array) -> list[Any] | None:
    if kind == FieldType.STRING:
        first, lengths = plain.view(np.uint8)[:: plain.dtype.itemsize], np.strings.str_len(plain)
        # No, off, and false are none either.
        if (_BEGINS_A_NO[first] & (lengths <= len("false"))).any():
            return None
        return _listed((first != ord("0")) | (lengths != 1))
    if kind == FieldType.REAL and np.isnan(plain).any():
        return None
    return (plain != 0).tolist() if kind in NUMERIC else None


_MAKERS: dict[str, Callable[[int, Array], list[Any] | None]] = {
    "ReadValuesIOAsInteger": _integers,
    "ReadValuesIOAsDouble": _doubles,
    "ReadValuesIOAsBoolean": _booleans,
}


def _listed(numbers: Array | None) -> list[Any] | None:
    return None if numbers is None else numbers.tolist()


def _of_text(plain: Array) -> Array | None:
    """Return what texts are that are all digits, or begin with a letter, or are empty."""
    width = plain.dtype.itemsize
    letters = plain.view(np.uint8).reshape(-1, width)
    is_word = _WORDS[letters[:, 0]]
    if is_word.all():
        return np.zeros(len(plain), np.int32)
    lengths = np.where(is_word, 0, np.strings.str_len(plain))
    longest = int(lengths.max())
    if longest > MOST_DIGITS:
        return None
    digits = letters[:, :longest] - np.uint8(ord("0"))
    digits[np.arange(longest) >= lengths[:, np.newaxis]] = 0
    if digits.max() > 9:
        return None
    powers = 10 ** np.arange(longest + 1)
    found: Array = digits @ powers[longest - 1 :: -1] // powers[longest - lengths]
    return found


def _has_words_that_are_doubles(plain: Array) -> bool:
    letters = plain.view(np.uint8).reshape(-1, plain.dtype.itemsize)
    if letters.shape[1] < 3 or not _BEGINS_A_DOUBLE[letters[:, 0]].any():
        return False
    # Without the bit by which small letters are other than capitals.
    first = letters[:, :3] & 0xDF
    return any((first == np.frombuffer(word, np.uint8)).all(axis=1).any() for word in _DOUBLES)


def _of_letters(letters: bytes) -> Array:
    found = np.zeros(256, np.bool_)
    found[np.frombuffer(letters, np.uint8)] = True
    return found


_DOUBLES = (b"INF", b"NAN")
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
# None at all; and from 0xC0 on they are the first of several bytes.
_WORDS = _of_letters(b"\0" + _LETTERS + _LETTERS.upper() + bytes(range(0xC0, 256)))
_BEGINS_A_DOUBLE = _of_letters(b"inIN")
_BEGINS_A_NO = _of_letters(b"nofNOF")


def check_text(text: Any, what: str) -> None:
    """Refuse text that has no UTF-8: GDAL's bindings end the process for it.

    Parameters
    ----------
    text
        Anything else than a ``str`` is for GDAL to judge.
    what : str
        For the message.

    Raises
    ------
    ConversionError
        For half of a surrogate pair.
    """
    if isinstance(text, str) and not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ConversionError(
                f"{what}: {text!r} holds half of a surrogate pair, which has no UTF-8"
            ) from None


def stored_cell(shown: Shown, rat: Any, at: int, row: int) -> Array:
    """Return a cell of a table of GDAL's, of one column, as a stored value.

    Parameters
    ----------
    shown : Shown
        The column.
    rat, at
        Where the cell is.
    row : int
        The table's, for messages.

    Raises
    ------
    ConversionError
        Where the column's dtype does not hold it.
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
    """Return an array that was given for rows of a column as stored values.

    Raises
    ------
    ConversionError
        Names the row of a value that can't be stored as it is.
    GdalError
        Where GDAL refuses the array.
    """
    stored = to_stored(shown, values, first_row)
    if stored is not None:
        return stored
    found = []
    for at, size in pieces(0, len(values)):
        rat = _given_to_gdal(shown, values[at : at + size], first_row + at)
        if shown.type == FieldType.DATETIME:
            plain = datetime_text(rat, 0, size, 0)
        else:
            plain = rat.ReadAsArray(0, 0, size)
        found.append(from_plain(shown, plain, first_row + at))
    if not found:
        return np.empty(0, shown.dtype)
    return found[0] if len(found) == 1 else np.concatenate(found)


def _given_to_gdal(shown: Shown, values: Array, first_row: int) -> Any:
    """Return a table of GDAL's that the values were written to."""
    if values.dtype.kind in "UT":
        values = np.array([text.encode("utf-8") for text in values.tolist()], "S")
    rat = native_rat(shown.type, None, len(values))
    with exceptions(), silence():
        try:
            if shown.type == FieldType.DATETIME and values.dtype.kind == "O":
                # Some versions crash where an array has one without a time zone.
                for at, value in enumerate(values.tolist()):
                    rat.SetValueAsDateTime(at, 0, value)
            elif len(values) and rat.WriteArray(np.ascontiguousarray(values), 0):
                raise GdalError(f"column {shown.column!r}: GDAL did not take {values.dtype}")
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise GdalError(
                f"column {shown.column!r}, from row {first_row}: GDAL takes no array of "
                f"{values.dtype} for its {type_name(shown.type)}: {error}"
            ) from error
    if shown.type == FieldType.DATETIME and values.dtype.kind == "S":
        for at, text in enumerate(values.tolist()):
            if text and not rat.GetValueAsString(at, 0):
                raise ConversionError(
                    f"column {shown.column!r}, row {first_row + at}: {text!r} is no date-time"
                )
    return rat


FIRST_WINDOW = 64
LONGEST_WINDOW = 8192
LONGEST_PAGE = 2048
"""Rows of a page that is kept as a table of GDAL's: one for each column."""
PIECE = 65536
"""Rows that are taken through a table of GDAL's at once."""
_PLAIN = {FieldType.INTEGER: "i4", FieldType.REAL: "f8", FieldType.BOOLEAN: "?"}


def pieces(start: int, length: int, rows: int = PIECE) -> Iterator[tuple[int, int]]:
    """Cut rows into (start, length) of bounded length."""
    for first in range(start, start + length, rows):
        yield first, min(rows, start + length - first)


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
    """A column whose stored values are shown as GDAL's; see :mod:`gdalbridge.attached_rat.values`."""

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
        """Return rows as GDAL takes them, see :mod:`gdalbridge.attached_rat.values`."""

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
        """Return rows as GDAL takes them, see :mod:`gdalbridge.attached_rat.values`."""
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
    """Return rows of any column as :func:`gdalbridge.attached_rat.values.from_plain` takes them."""
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
    times, offsets = datetimes.parse(texts, column=name, first_row=start)
    times = datetimes.finer(times, offsets, objects, texts, column=name, first_row=start)
    return datetimes.text_for_gdal(times, offsets, column=name, first_row=start)
