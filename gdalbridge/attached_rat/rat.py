"""AttachedRAT: a raster's own table and its sidecars as one ``gdal.RasterAttributeTable``.

GDAL answers what GDAL decides: the text of a dump and the row of a value come from GDAL's own tables
in memory.
"""

import weakref
from collections import Counter
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.attached_rat.columns import (
    PIECE,
    AttachedColumn,
    OwnColumn,
    SidecarColumn,
    Window,
    blank,
    check_text,
    pieces,
    plain_of,
    stored_array,
    stored_cell,
    usage_for_gdal,
)
from gdalbridge.attached_rat.gdal_rat import HeldRat, name_for_gdal, native_rat
from gdalbridge.attached_rat.merged import Joined
from gdalbridge.attached_rat.open_sidecars import let_go
from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from ratzarr import RatZarrError
from ratzarr.format import as_block

__all__ = [
    "AttachedRAT",
    "RowFinder",
    "has_rows",
    "in_memory",
    "read_array",
    "read_values",
]


def has_rows(joined: Joined, start: int, length: int) -> bool:
    """Return whether all of these are rows of the table."""
    return 0 <= start <= start + length <= joined.rows


def read_array(joined: Joined, field: int, start: int, length: int | None) -> Any:
    """Return rows of a column, as an array like GDAL's ``ReadAsArray``."""
    if length is None:
        length = joined.rows - start
    column = joined.column(field)
    if column is None or not has_rows(joined, start, length):
        return _no_such_block(joined, field, start, length)
    there = max(0, min(length, column.rows - start))
    if there == length and length:
        return column.read(start, length)
    empty = native_rat(column.type, None, length - there).ReadAsArray(0, 0, length - there)
    return np.concatenate([column.read(start, there), empty]) if there else empty


def read_values(joined: Joined, method: str, field: int, start: int, length: int) -> Any:
    """Return rows of a column as a list, by one of GDAL's ``ReadValuesIOAs...``."""
    column = joined.column(field)
    if column is None or not has_rows(joined, start, length):
        return _no_such_block(joined, field, start, length)
    found: list[Any] = []
    there = max(0, min(length, column.rows - start))
    for first, size in pieces(start, there):
        values = column.values(method, first, size)
        if values is None:
            return None
        found.extend(values)
    if there < length:
        rest = native_rat(column.type, None, length - there)
        values = getattr(rest, method)(0, 0, length - there)
        if values is None:
            return None
        found.extend(values)
    return found


def _no_such_block(joined: Joined, field: int, start: int, length: int) -> None:
    rows, columns = joined.rows, len(joined.columns)
    message = f"rows {start} to {start + length} of column {field} are not in {rows} x {columns}"
    # GDAL's own way: an exception where the program wants those, else a message and None.
    gdal.Error(gdal.CE_Failure, gdal.CPLE_AppDefined, message)
    if gdal.GetUseExceptions():
        raise RuntimeError(message)


def in_memory(joined: Joined) -> Any:
    """Return a table of GDAL's with all that is in the attached one.

    A name that is not UTF-8 can't be given to GDAL from Python: what of it is none is
    U+FFFD in the copy.
    """
    rat = gdal.RasterAttributeTable()
    with exceptions(), silence():
        rat.SetRowCount(joined.rows)
        for column in joined.columns:
            _add(rat, column, 0, joined.rows)
        if joined.linear_binning is not None:
            rat.SetLinearBinning(*joined.linear_binning)
        rat.SetTableType(joined.table_type)
    return rat


def _add(rat: Any, column: AttachedColumn, start: int, rows: int) -> None:
    """Add a column with these rows of it; what it lacks of them stays GDAL's empty value."""
    index = rat.GetColumnCount()
    rat.CreateColumn(name_for_gdal(column.name), int(column.type), usage_for_gdal(column))
    there = max(0, min(rows, column.rows - start))
    values = [plain_of(column, first, size) for first, size in pieces(start, there)]
    if values:
        # At once: some versions write other rows than a block's that begins later.
        plain = values[0] if len(values) == 1 else np.concatenate(values)
        rat.WriteArray(np.ascontiguousarray(plain), index)


class RowFinder:
    """Finds rows as GDAL does: by linear binning, or else in the columns of limits.

    Parameters
    ----------
    joined : Joined
        It must not change as long as this is used.
    piece_rows : int
        The table is looked through in pieces of so many rows.
    max_pieces : int
        How many of them are kept for the next value; those beyond are made anew each time.
    """

    def __init__(self, joined: Joined, piece_rows: int = PIECE, max_pieces: int = 64) -> None:
        self._joined, self._rows, self._max = joined, piece_rows, max_pieces
        self._kept: list[Any] = []
        self._binned: Any = None
        binning = joined.linear_binning
        if binning is not None:
            self._binned = gdal.RasterAttributeTable()
            self._binned.SetRowCount(joined.rows)
            self._binned.SetLinearBinning(*binning)
        usages = [column.usage for column in joined.columns]
        wanted = [
            next((usages.index(usage) for usage in both if usage in usages), None)
            for both in ((gdal.GFU_Min, gdal.GFU_MinMax), (gdal.GFU_Max, gdal.GFU_MinMax))
        ]
        self._limits = [
            joined.columns[index] for index in dict.fromkeys(wanted) if index is not None
        ]

    @property
    def pieces_kept(self) -> int:
        """How many pieces are."""
        return len(self._kept)

    def find(self, value: Any) -> int:
        """Return the first row that a value belongs to; -1 for none."""
        if self._binned is not None:
            return int(self._binned.GetRowOfValue(value))
        rows = self._joined.rows if self._limits else 0
        # Of no rows one is asked as well, which knows what no value is.
        for number, (first, size) in enumerate(list(pieces(0, rows, self._rows)) or [(0, 0)]):
            row = self._piece(number, first, size).GetRowOfValue(value)
            if row >= 0:
                return first + int(row)
        return -1

    def _piece(self, number: int, first: int, size: int) -> Any:
        if number < len(self._kept):
            return self._kept[number]
        rat = gdal.RasterAttributeTable()
        with exceptions(), silence():
            rat.SetRowCount(size)
            for column in self._limits:
                _add(rat, column, first, size)
        if number < self._max:
            self._kept.append(rat)
        return rat


Array = NDArray[Any]

MAX_ROWS = 2**31 - 1


# mypy is told nothing of GDAL's class.
class AttachedRAT(gdal.RasterAttributeTable):  # type: ignore[misc]
    """One table of GDAL's, made of the raster's own and those of its sidecars.

    Made by :func:`gdalbridge.attach`. Every method that GDAL's class has in Python answers
    for the table as a whole. Nothing of it is in a table of C++: code in C++ that is handed
    one raises a ``TypeError``, and :meth:`Clone` makes it a table that such code can take.

    Columns: the raster's own first, then each sidecar's, in order of the sidecars' names.
    Of several columns of one name the sidecar's is seen, in the raster's one's place (or
    the raster's: ``prefer``); the rows are those of the longest, and a column that ends
    before reads as GDAL's empty value. Columns of several values per row are seen as
    ``name[0]``, ``name[1]``, ... How dtypes that GDAL lacks are shown is said in
    :mod:`gdalbridge.attached_rat.values`. A column that is not complete, or of a dtype that GDAL has
    nothing for, is left out with a warning.

    Reading and conversions are as in GDAL; what is different:

    - errors of writing are always exceptions, whatever ``gdal.UseExceptions`` says: a
      change that is not kept must not pass unseen;
    - ``WriteArray`` of numbers is exact or refused, where GDAL would wrap or cut; also text
      of ``str`` and numpy's date-times are taken;
    - a column of a name that is there already can't be created.

    It is used by one thread at a time. A context manager: leaving it closes it.
    """

    def __init__(self, joined: Joined) -> None:
        # GDAL's __init__ is not called: there is no table in C++ that a method could reach.
        self._joined = joined
        self._windows: dict[int, Window] = {}
        self._lookup: RowFinder | None = None
        for table in joined.tables:
            table.users.add(self)
        self._finalizer = weakref.finalize(self, let_go, list(joined.tables))

    def __repr__(self) -> str:
        if self._joined.is_closed:
            return "<AttachedRAT: closed>"
        where = ", ".join(table.path for table in self._joined.tables if table.exists)
        return f"<AttachedRAT of {self._joined.name!r}: {where or 'no sidecar yet'}>"

    def __reduce__(self) -> Any:
        # A copy would not be flushed at its end, and another process has none of what waits.
        raise TypeError(
            "an attached table can't be copied or pickled: attach() once more, or Clone(), which "
            "is a table of GDAL's in memory"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- ours

    @property
    def key(self) -> str:
        """The same for all attached tables of one band of a raster."""
        return self._joined.key

    @property
    def is_empty(self) -> bool:
        """Whether the raster has no table of its own, and there is no sidecar."""
        joined = self._joined
        return not joined.own.was_there and not any(table.exists for table in joined.tables)

    def take(self, table: Any) -> None:
        """Have all columns of another table of GDAL's, where they are not the same already.

        Raises
        ------
        ConversionError
            Where a sidecar has one as another type.
        """
        held, rows = HeldRat(table, "the table"), table.GetRowCount()
        for column in held.schema.columns:
            check_text(column.name, f"{self._joined.name}, name of a column")
        if self.GetRowCount() != rows:
            self.SetRowCount(rows)
        counted: Counter[str] = Counter()
        for index, column in enumerate(held.schema.columns):
            self._joined.take(OwnColumn(held, index), counted[column.name])
            counted[column.name] += 1
        binning, kind = held.schema.linear_binning, held.schema.table_type
        if binning is not None and binning != self._joined.linear_binning:
            self.SetLinearBinning(*binning)
        if kind is not None and kind != self._joined.table_type:
            self.SetTableType(kind)
        self._changed()
        for own in self._joined.tables:
            self._tell_others(own)

    def flush(self) -> None:
        """Write back what is waiting to be written to the sidecars.

        Raises
        ------
        RatZarrError
            Where a sidecar can't be written, or was changed by another process so that a
            change can't be put where it belongs.
        """
        self._joined.flush()

    def close(self) -> None:
        """Flush, and let go of sidecars and raster; any use from now on is an error."""
        if not self._joined.is_closed:
            self._joined.flush()
            self._finalizer.detach()
            self._windows.clear()
            self._lookup = None
            self._joined.close()

    def refresh(self) -> None:
        """Look at the sidecars again: their columns, their rows, their values."""
        self._joined.flush()
        self._joined.load(again=True)
        self.forget()

    def forget(self) -> None:
        """Be told that another attached table has changed a sidecar of this one.

        Values are looked at again; columns stay where they are until :meth:`refresh`.
        """
        self._windows.clear()
        self._lookup = None

    def _changed(self, column: int | None = None) -> None:
        """Let nobody go on with values of before."""
        if column is None:
            self._windows.clear()
        else:
            self._windows.pop(column, None)
        self._lookup = None

    def _tell_others(self, table: Any) -> None:
        if len(table.users) > 1:
            for other in list(table.users):
                if other is not self:
                    other.forget()

    # ---- the columns

    def GetColumnCount(self) -> int:
        return len(self._joined.columns)

    def GetNameOfCol(self, iCol: int) -> str:
        column = self._joined.column(iCol)
        return "" if column is None else column.name

    def GetUsageOfCol(self, iCol: int) -> int:
        column = self._joined.column(iCol)
        return 0 if column is None else column.usage

    def GetTypeOfCol(self, iCol: int) -> int:
        column = self._joined.column(iCol)
        return 0 if column is None else int(column.type)

    def GetColOfUsage(self, eUsage: int) -> int:
        for index, column in enumerate(self._joined.columns):
            if column.usage == eUsage:
                return index
        return -1

    def CreateColumn(self, pszName: str, eType: int, eUsage: int) -> int:
        check_text(pszName, f"{self._joined.name}, name of a column")
        # GDAL says what it makes of a type and a usage: colours are always Integer.
        asked = gdal.RasterAttributeTable()
        with exceptions(), silence():
            asked.CreateColumn(pszName, eType, eUsage)
        kind, usage = asked.GetTypeOfCol(0), asked.GetUsageOfCol(0)
        self._joined.create_column(pszName, kind, usage)
        self._changed()
        return 0

    # ---- rows

    def GetRowCount(self) -> int:
        return self._joined.rows

    def SetRowCount(self, nCount: int) -> None:
        if not 0 <= nCount <= MAX_ROWS:
            raise BridgeError(f"{self._joined.name}: a table has 0 to {MAX_ROWS} rows: {nCount}")
        self._joined.set_rows(nCount)
        self._changed()
        for table in self._joined.tables:
            self._tell_others(table)

    def ChangesAreWrittenToFile(self) -> int:
        return int(self._joined.update)

    # ---- cells

    def _window(self, row: int, index: int) -> Window:
        """Return where a cell is; GDAL is to complain where it is nowhere."""
        column = self._joined.column(index)
        if column is None or not 0 <= row < self._joined.rows:
            return Window(self._joined.shell(), 0, 0, index, lasting=False)
        if row >= column.rows:
            window = blank(column.type, row, row + 1)
        else:
            window = column.window(row, self._windows.get(index))
        if window.lasting:
            self._windows[index] = window
        else:
            self._windows.pop(index, None)
        return window

    def GetValueAsInt(self, iRow: int, iCol: int) -> int:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        value: int = window.rat.GetValueAsInt(iRow - window.first, window.column)
        return value

    def GetValueAsDouble(self, iRow: int, iCol: int) -> float:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        value: float = window.rat.GetValueAsDouble(iRow - window.first, window.column)
        return value

    def GetValueAsString(self, iRow: int, iCol: int) -> str:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        value: str = window.rat.GetValueAsString(iRow - window.first, window.column)
        return value

    def GetValueAsBoolean(self, iRow: int, iCol: int) -> bool:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        value: bool = window.rat.GetValueAsBoolean(iRow - window.first, window.column)
        return value

    def GetValueAsDateTime(self, iRow: int, iCol: int) -> Any:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        return window.rat.GetValueAsDateTime(iRow - window.first, window.column)

    def GetValueAsWKBGeometry(self, iRow: int, iCol: int) -> Any:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        return window.rat.GetValueAsWKBGeometry(iRow - window.first, window.column)

    def SetValueAsInt(self, iRow: int, iCol: int, nValue: int) -> None:
        self._set("SetValueAsInt", iRow, iCol, nValue)

    def SetValueAsDouble(self, iRow: int, iCol: int, dfValue: float) -> None:
        self._set("SetValueAsDouble", iRow, iCol, dfValue)

    def SetValueAsString(self, iRow: int, iCol: int, pszValue: str) -> None:
        check_text(pszValue, f"{self._joined.name}, row {iRow} of column {iCol}")
        self._set("SetValueAsString", iRow, iCol, pszValue)

    def SetValueAsBoolean(self, iRow: int, iCol: int, value: bool) -> None:
        self._set("SetValueAsBoolean", iRow, iCol, value)

    def SetValueAsDateTime(self, iRow: int, iCol: int, dt: Any) -> None:
        self._set("SetValueAsDateTime", iRow, iCol, dt)

    def SetValueAsWKBGeometry(self, iRow: int, iCol: int, nLen: bytes) -> Any:
        return self._set("SetValueAsWKBGeometry", iRow, iCol, nLen)

    def _set(self, method: str, row: int, index: int, value: Any) -> Any:
        joined = self._joined
        joined.check_update()
        if self._joined.column(index) is None or not 0 <= row <= min(joined.rows, MAX_ROWS - 1):
            # GDAL complains, always as an exception.
            with exceptions():
                getattr(joined.shell(), method)(row, index, value)
            raise BridgeError(f"{joined.name}: there is no row {row}, or no column {index}")
        column = self._writable(index)
        if row >= column.rows:
            joined.grow(column, row + 1)
            self._changed(index)
        window = self._windows.get(index)
        if window is None or not window.first <= row < window.stop:
            window = self._window(row, index)
        at = row - window.first
        with exceptions(), silence():
            getattr(window.rat, method)(at, window.column, value)
        try:
            column.put(row, stored_cell(column.shown, window.rat, at, row))
        except BaseException:
            self._windows.pop(index, None)
            raise
        self._lookup = None
        self._tell_others(column.table)
        return gdal.CE_None

    def _writable(self, index: int) -> SidecarColumn:
        column = self._joined.columns[index]
        if isinstance(column, SidecarColumn):
            return column
        made = self._joined.override(index)
        self._changed()
        return made

    # ---- blocks

    def ReadAsArray(self, field: int, start: int = 0, length: int | None = None) -> Any:
        return read_array(self._joined, field, start, length)

    def ReadValuesIOAsString(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._joined, "ReadValuesIOAsString", iField, iStartRow, iLength)

    def ReadValuesIOAsInteger(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._joined, "ReadValuesIOAsInteger", iField, iStartRow, iLength)

    def ReadValuesIOAsDouble(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._joined, "ReadValuesIOAsDouble", iField, iStartRow, iLength)

    def ReadValuesIOAsBoolean(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._joined, "ReadValuesIOAsBoolean", iField, iStartRow, iLength)

    def WriteArray(self, array: Any, field: int, start: int = 0) -> int:
        self._joined.check_update()
        if isinstance(array, np.ma.MaskedArray) or not isinstance(array, np.ndarray | list):
            array = self._given(array, field, start)
        values = np.asarray(array)
        if values.ndim != 1:
            raise ValueError("Expected array of dim 1")
        if self._joined.column(field) is None:
            with exceptions():
                self._joined.shell().GetValueAsInt(0, field)
        if not has_rows(self._joined, start, len(values)):
            raise ValueError("Array too big to fit into RAT from start position")
        column = self._writable(field)
        if start + len(values) > column.rows:
            self._joined.grow(column, start + len(values))
        if len(values):
            column.put(start, stored_array(column.shown, values, start))
        self._changed(field)
        self._tell_others(column.table)
        return 0

    def _given(self, array: Any, field: int, start: int) -> Any:
        """Return what is no plain array as one; refuse what is masked, or null."""
        column = self._joined.column(field)
        name = str(field) if column is None else column.name
        try:
            return as_block(array, column=name, first_row=start)
        except RatZarrError as error:
            raise ConversionError(str(error)) from error

    # ---- the table as a whole

    def GetRowOfValue(self, dfValue: float) -> int:
        if self._lookup is None:
            self._lookup = RowFinder(self._joined)
        return self._lookup.find(dfValue)

    def GetLinearBinning(self) -> list[Any]:
        binning = self._joined.linear_binning
        return [False, 0.0, 0.0] if binning is None else [True, *binning]

    def SetLinearBinning(self, dfRow0Min: float, dfBinSize: float) -> int:
        self._joined.set_linear_binning(float(dfRow0Min), float(dfBinSize))
        self._lookup = None
        return 0

    def GetTableType(self) -> int:
        return self._joined.table_type

    def SetTableType(self, eTableType: int) -> None:
        self._joined.set_table_type(eTableType)

    def RemoveStatistics(self) -> None:
        self._joined.remove_statistics()
        self._changed()

    def Clone(self) -> Any:
        """Return a table of GDAL's own, in memory, with all that is in this one."""
        return in_memory(self._joined)

    def DumpReadable(self) -> Any:
        return self.Clone().DumpReadable()
