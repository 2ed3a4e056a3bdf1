"""AttachedRAT: a raster's own table and its sidecars as one ``gdal.RasterAttributeTable``.

Results that depend on GDAL's rules, such as a dump's text or the row of a value, are computed by
GDAL on tables in memory.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from gdalbridge.attached_rat.attached_table import AttachedTable
from gdalbridge.attached_rat.columns import (
    PIECE,
    AttachedColumn,
    OwnColumn,
    SidecarColumn,
    Window,
    blank,
    check_text,
    pieces,
    stored_array,
    stored_cell,
    usage_for_gdal,
)
from gdalbridge.attached_rat.gdal_rat import GdalRat, name_for_gdal, native_rat
from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.gdalio.field_types import MAX_TABLE_ROWS
from ratzarr import RatZarrError
from ratzarr.format import as_block
from ratzarr.pending import write_after

__all__ = [
    "AttachedRAT",
    "RowFinder",
    "has_rows",
    "in_memory",
    "read_array",
    "read_values",
]


def has_rows(table: AttachedTable, start: int, length: int) -> bool:
    """Return True if the table has all of these rows."""
    return 0 <= start <= start + length <= table.rows


def read_array(table: AttachedTable, field: int, start: int, length: int | None) -> Any:
    """Return rows of a column as an array, as GDAL's ``ReadAsArray`` does."""
    if length is None:
        length = table.rows - start
    column = table.column(field)
    if column is None or not has_rows(table, start, length):
        return _no_such_block(table, field, start, length)
    there = max(0, min(length, column.rows - start))
    if there == length and length:
        return column.read(start, length)
    empty = native_rat(column.type, None, length - there).ReadAsArray(0, 0, length - there)
    return np.concatenate([column.read(start, there), empty]) if there else empty


def read_values(table: AttachedTable, method: str, field: int, start: int, length: int) -> Any:
    """Return rows of a column as a list, as one of GDAL's ``ReadValuesIOAs...`` methods does."""
    column = table.column(field)
    if column is None or not has_rows(table, start, length):
        return _no_such_block(table, field, start, length)
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


def _no_such_block(table: AttachedTable, field: int, start: int, length: int) -> None:
    rows, columns = table.rows, len(table.columns)
    message = (
        f"can't read {length} rows of column {field} from row {start}: the table has {rows} rows "
        f"and {columns} columns"
    )
    # As in GDAL: an exception if the program uses exceptions, else an error message and None.
    gdal.Error(gdal.CE_Failure, gdal.CPLE_AppDefined, message)
    if gdal.GetUseExceptions():
        raise RuntimeError(message)


def in_memory(table: AttachedTable) -> Any:
    """Copy the attached table to a GDAL table in memory.

    GDAL's bindings accept only UTF-8 names. In the copy, U+FFFD replaces invalid bytes.
    """
    rat = gdal.RasterAttributeTable()
    with exceptions(), silence():
        rat.SetRowCount(table.rows)
        for column in table.columns:
            _add(rat, column, 0, table.rows)
        if table.linear_binning is not None:
            rat.SetLinearBinning(*table.linear_binning)
        rat.SetTableType(table.table_type)
    return rat


def _add(rat: Any, column: AttachedColumn, start: int, rows: int) -> None:
    """Add a column with these rows. Rows after the column's last keep GDAL's empty value."""
    index = rat.GetColumnCount()
    rat.CreateColumn(name_for_gdal(column.name), int(column.type), usage_for_gdal(column))
    there = max(0, min(rows, column.rows - start))
    values = [column.exact(first, size) for first, size in pieces(start, there)]
    if values:
        # All rows in one call: some versions write a block after row 0 to the wrong rows.
        plain = values[0] if len(values) == 1 else np.concatenate(values)
        rat.WriteArray(np.ascontiguousarray(plain), index)


class RowFinder:
    """Finds the row of a pixel value as GDAL does: by linear binning, or by the limit columns.

    Parameters
    ----------
    table : AttachedTable
        Must not change as long as the finder is used.
    piece_rows : int
        Number of rows that are searched at a time.
    max_pieces : int
        Number of pieces that are kept in memory for the next value. Further pieces are read
        again for each value.
    """

    def __init__(
        self, table: AttachedTable, piece_rows: int = PIECE, max_pieces: int = 64
    ) -> None:
        self._table, self._rows, self._max = table, piece_rows, max_pieces
        self._kept: list[Any] = []
        self._binned: Any = None
        binning = table.linear_binning
        if binning is not None:
            self._binned = gdal.RasterAttributeTable()
            self._binned.SetRowCount(table.rows)
            self._binned.SetLinearBinning(*binning)
        usages = [column.usage for column in table.columns]
        wanted = [
            next((usages.index(usage) for usage in both if usage in usages), None)
            for both in ((gdal.GFU_Min, gdal.GFU_MinMax), (gdal.GFU_Max, gdal.GFU_MinMax))
        ]
        self._limits = [
            table.columns[index] for index in dict.fromkeys(wanted) if index is not None
        ]

    @property
    def pieces_kept(self) -> int:
        """Number of pieces kept in memory."""
        return len(self._kept)

    def find(self, value: Any) -> int:
        """Return the first row that a value belongs to; -1 if no row matches."""
        if self._binned is not None:
            return int(self._binned.GetRowOfValue(value))
        rows = self._table.rows if self._limits else 0
        # GDAL is called even without rows, so that it checks the value's type.
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


def _getter(name: str) -> Callable[["AttachedRAT", int, int], Any]:
    """Return the method of this name: it asks the window that has the cell."""

    def get(self: "AttachedRAT", iRow: int, iCol: int) -> Any:
        window = self._windows.get(iCol)
        if window is None or not window.first <= iRow < window.stop:
            window = self._window(iRow, iCol)
        return getattr(window.rat, name)(iRow - window.first, window.column)

    get.__name__ = name
    return get


# GDAL's class has no type annotations.
class AttachedRAT(gdal.RasterAttributeTable):  # type: ignore[misc]  # GDAL has no types
    """A raster's own table and its sidecars as one ``gdal.RasterAttributeTable``.

    :func:`gdalbridge.attach` returns it. Every Python method of GDAL's class works on the attached
    table. The object has no C++ table behind it, so a GDAL function in C++ that gets it raises a
    ``TypeError``. Pass such functions the result of :meth:`Clone`.

    The raster's own columns come first, then each sidecar's, in the order of the sidecars' names.
    If a sidecar and the raster have columns of the same name, the sidecar's is shown in place of
    the raster's; with ``prefer="raster"``, the raster's is shown. The table has as many rows as
    its longest column; shorter columns read as GDAL's empty value at the end. A column of several
    values per row is shown as ``name[0]``, ``name[1]``, and so on.
    :mod:`gdalbridge.attached_rat.values` describes how dtypes that GDAL lacks are shown.
    Incomplete columns, and columns of dtypes that GDAL can't show, are left out with a warning.

    Reading and conversions are as in GDAL. The differences are:

    - Errors in writing always raise exceptions, even without ``gdal.UseExceptions``, so that no
      lost change goes unnoticed.
    - ``WriteArray`` writes numbers exactly or raises an error, where GDAL would wrap or truncate
      them. It also accepts arrays of ``str`` and of numpy's date-times.
    - A column can't be created if its name is already in use.

    Only one thread may use the table at a time. As a context manager, it closes itself at the end.
    """

    def __init__(self, table: AttachedTable) -> None:
        # GDAL's __init__ is not called, so no C++ table exists that an inherited method could use.
        self._table = table
        self._windows: dict[int, Window] = {}
        self._lookup: RowFinder | None = None
        for sidecar in table.sidecars:
            sidecar.users.add(self)
        self._finalizer = write_after(self, *table.sidecars)

    def __repr__(self) -> str:
        if self._table.is_closed:
            return "<AttachedRAT: closed>"
        where = ", ".join(one.path for one in self._table.sidecars if one.exists)
        return f"<AttachedRAT of {self._table.name!r}: {where or 'no sidecar yet'}>"

    def __reduce__(self) -> Any:
        # A copy would not be flushed at its end, and another process would lack pending changes.
        raise TypeError(
            "an attached table can't be copied or pickled. Call attach() again, or use Clone(), "
            "which returns a GDAL table in memory."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- methods that GDAL's class lacks

    @property
    def key(self) -> str:
        """A key that is the same for all attached tables of one band of a raster."""
        return self._table.key

    @property
    def is_empty(self) -> bool:
        """True if the raster has neither a table of its own nor a sidecar."""
        table = self._table
        return table.own.rat is None and not any(one.exists for one in table.sidecars)

    def take(self, table: Any) -> None:
        """Copy all columns of another GDAL table, except those that are equal already.

        Raises
        ------
        ConversionError
            If a sidecar has one of the columns with another type.
        """
        held, rows = GdalRat(None, None, table, "the table"), table.GetRowCount()
        for column in held.schema.columns:
            check_text(column.name, f"{self._table.name}, name of a column")
        if self.GetRowCount() != rows:
            self.SetRowCount(rows)
        counted: Counter[str] = Counter()
        for index, column in enumerate(held.schema.columns):
            self._table.take(OwnColumn(held, index), counted[column.name])
            counted[column.name] += 1
        binning, kind = held.schema.linear_binning, held.schema.table_type
        if binning is not None and binning != self._table.linear_binning:
            self.SetLinearBinning(*binning)
        if kind is not None and kind != self._table.table_type:
            self.SetTableType(kind)
        self._changed()
        for own in self._table.sidecars:
            self._notify_others(own, of_columns=True)

    def flush(self) -> None:
        """Write pending changes to the sidecars.

        Raises
        ------
        RatZarrError
            If a sidecar can't be written, or another process has changed it so that a pending
            change no longer fits.
        """
        self._table.flush()

    def close(self) -> None:
        """Write pending changes and close the table. Any later use raises an error."""
        if not self._table.is_closed:
            self._table.flush()
            self._finalizer.detach()
            self._windows.clear()
            self._lookup = None
            self._table.close()

    def refresh(self) -> None:
        """Read the sidecars again: their columns, rows and values."""
        self._table.flush()
        self._table.load(again=True)
        self.forget()

    def forget(self) -> None:
        """Drop cached values, because another attached table has changed a shared sidecar.

        The columns and their order stay until :meth:`refresh`, except that :meth:`adopt` shows a
        sidecar's column in place of the raster's own.
        """
        self._windows.clear()
        self._lookup = None

    def adopt(self) -> None:
        """Show the columns that another attached table has put in place of the raster's own."""
        self._table.adopt()
        self.forget()

    def _changed(self, column: int | None = None) -> None:
        """Drop cached values after a change: those of one column, or of all."""
        if column is None:
            self._windows.clear()
        else:
            self._windows.pop(column, None)
        self._lookup = None

    def _notify_others(self, table: Any, *, of_columns: bool = False) -> None:
        if len(table.users) > 1:
            for other in list(table.users):
                if other is not self:
                    other.adopt() if of_columns else other.forget()

    # ---- the columns

    def GetColumnCount(self) -> int:
        return len(self._table.columns)

    def GetNameOfCol(self, iCol: int) -> str:
        column = self._table.column(iCol)
        return "" if column is None else column.name

    def GetUsageOfCol(self, iCol: int) -> int:
        column = self._table.column(iCol)
        return 0 if column is None else column.usage

    def GetTypeOfCol(self, iCol: int) -> int:
        column = self._table.column(iCol)
        return 0 if column is None else int(column.type)

    def GetColOfUsage(self, eUsage: int) -> int:
        for index, column in enumerate(self._table.columns):
            if column.usage == eUsage:
                return index
        return -1

    def CreateColumn(self, pszName: str, eType: int, eUsage: int) -> int:
        check_text(pszName, f"{self._table.name}, name of a column")
        # GDAL may change the type for a usage: colours are always Integer.
        asked = gdal.RasterAttributeTable()
        with exceptions(), silence():
            asked.CreateColumn(pszName, eType, eUsage)
        kind, usage = asked.GetTypeOfCol(0), asked.GetUsageOfCol(0)
        before = len(self._table.columns)
        self._table.create_column(pszName, kind, usage)
        self._changed()
        if len(self._table.columns) == before:
            # It has taken the place of one of the raster's own.
            self._notify_others(self._table.target, of_columns=True)
        return 0

    # ---- rows

    def GetRowCount(self) -> int:
        return self._table.rows

    def SetRowCount(self, nCount: int) -> None:
        if not 0 <= nCount <= MAX_TABLE_ROWS:
            raise BridgeError(
                f"{self._table.name}: can't set {nCount} rows, a table has 0 to {MAX_TABLE_ROWS}"
            )
        self._table.set_rows(nCount)
        self._changed()
        for sidecar in self._table.sidecars:
            self._notify_others(sidecar)

    def ChangesAreWrittenToFile(self) -> int:
        return int(self._table.update)

    # ---- cells

    def _window(self, row: int, index: int) -> Window:
        """Return a window with a cell. If no such cell exists, the window makes GDAL complain."""
        column = self._table.column(index)
        if column is None or not 0 <= row < self._table.rows:
            return Window(self._table.shell(), 0, 0, index, lasting=False)
        if row >= column.rows:
            window = blank(column.type, row, row + 1)
        else:
            window = column.window(row, self._windows.get(index))
        if window.lasting:
            self._windows[index] = window
        else:
            self._windows.pop(index, None)
        return window

    GetValueAsInt = _getter("GetValueAsInt")
    GetValueAsDouble = _getter("GetValueAsDouble")
    GetValueAsString = _getter("GetValueAsString")
    GetValueAsBoolean = _getter("GetValueAsBoolean")
    GetValueAsDateTime = _getter("GetValueAsDateTime")
    GetValueAsWKBGeometry = _getter("GetValueAsWKBGeometry")

    def SetValueAsInt(self, iRow: int, iCol: int, nValue: int) -> None:
        self._set("SetValueAsInt", iRow, iCol, nValue)

    def SetValueAsDouble(self, iRow: int, iCol: int, dfValue: float) -> None:
        self._set("SetValueAsDouble", iRow, iCol, dfValue)

    def SetValueAsString(self, iRow: int, iCol: int, pszValue: str) -> None:
        check_text(pszValue, f"{self._table.name}, row {iRow} of column {iCol}")
        self._set("SetValueAsString", iRow, iCol, pszValue)

    def SetValueAsBoolean(self, iRow: int, iCol: int, value: bool) -> None:
        self._set("SetValueAsBoolean", iRow, iCol, value)

    def SetValueAsDateTime(self, iRow: int, iCol: int, dt: Any) -> None:
        self._set("SetValueAsDateTime", iRow, iCol, dt)

    def SetValueAsWKBGeometry(self, iRow: int, iCol: int, nLen: bytes) -> Any:
        return self._set("SetValueAsWKBGeometry", iRow, iCol, nLen)

    def _set(self, method: str, row: int, index: int, value: Any) -> Any:
        table = self._table
        table.check_update()
        if self._table.column(index) is None or not 0 <= row <= min(
            table.rows, MAX_TABLE_ROWS - 1
        ):
            # GDAL raises its own error for the row or column.
            with exceptions():
                getattr(table.shell(), method)(row, index, value)
            raise BridgeError(f"{table.name}: row {row} or column {index} does not exist")
        column = self._writable(index)
        if row >= column.rows:
            table.grow(column, row + 1)
            self._changed(index)
        window = self._windows.get(index)
        is_shown = window is not None and window.first <= row < window.stop
        if not is_shown and column.takes_cells_by(method):
            column.put(row, column.cell(method, row, value))
            if self._windows.get(index) is not window:
                # Another thread has read the rows meanwhile, perhaps before the change.
                self._windows.pop(index, None)
        else:
            self._set_shown(column, method, row, index, value)
        self._lookup = None
        self._notify_others(column.table)
        return gdal.CE_None

    def _set_shown(
        self, column: SidecarColumn, method: str, row: int, index: int, value: Any
    ) -> None:
        """Change a cell in the window, and store it as GDAL then shows it."""
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

    def _writable(self, index: int) -> SidecarColumn:
        column = self._table.columns[index]
        if isinstance(column, SidecarColumn):
            return column
        made = self._table.override(index)
        self._changed()
        self._notify_others(self._table.target, of_columns=True)
        return made

    # ---- blocks

    def ReadAsArray(self, field: int, start: int = 0, length: int | None = None) -> Any:
        return read_array(self._table, field, start, length)

    def ReadValuesIOAsString(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._table, "ReadValuesIOAsString", iField, iStartRow, iLength)

    def ReadValuesIOAsInteger(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._table, "ReadValuesIOAsInteger", iField, iStartRow, iLength)

    def ReadValuesIOAsDouble(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._table, "ReadValuesIOAsDouble", iField, iStartRow, iLength)

    def ReadValuesIOAsBoolean(self, iField: int, iStartRow: int, iLength: int) -> Any:
        return read_values(self._table, "ReadValuesIOAsBoolean", iField, iStartRow, iLength)

    def WriteArray(self, array: Any, field: int, start: int = 0) -> int:
        self._table.check_update()
        if isinstance(array, np.ma.MaskedArray) or not isinstance(array, np.ndarray | list):
            array = self._as_block(array, field, start)
        values = np.asarray(array)
        if values.ndim != 1:
            raise ValueError("Expected array of dim 1")
        if self._table.column(field) is None:
            with exceptions():
                self._table.shell().GetValueAsInt(0, field)
        if not has_rows(self._table, start, len(values)):
            raise ValueError("Array too big to fit into RAT from start position")
        column = self._writable(field)
        if start + len(values) > column.rows:
            self._table.grow(column, start + len(values))
        if len(values):
            column.put(start, stored_array(column.shown, values, start))
        self._changed(field)
        self._notify_others(column.table)
        return 0

    def _as_block(self, array: Any, field: int, start: int) -> Any:
        """Convert another object to a numpy array; masked and null values are an error."""
        column = self._table.column(field)
        name = str(field) if column is None else column.name
        try:
            return as_block(array, column=name, first_row=start)
        except RatZarrError as error:
            raise ConversionError(str(error)) from error

    # ---- the table as a whole

    def GetRowOfValue(self, dfValue: float) -> int:
        if self._lookup is None:
            self._lookup = RowFinder(self._table)
        return self._lookup.find(dfValue)

    def GetLinearBinning(self) -> list[Any]:
        binning = self._table.linear_binning
        return [False, 0.0, 0.0] if binning is None else [True, *binning]

    def SetLinearBinning(self, dfRow0Min: float, dfBinSize: float) -> int:
        self._table.set_linear_binning(float(dfRow0Min), float(dfBinSize))
        self._lookup = None
        self._notify_others(self._table.target)
        return 0

    def GetTableType(self) -> int:
        return self._table.table_type

    def SetTableType(self, eTableType: int) -> None:
        self._table.set_table_type(eTableType)

    def RemoveStatistics(self) -> None:
        self._table.remove_statistics()
        self._changed()

    def Clone(self) -> Any:
        """Copy the whole table to a GDAL table in memory."""
        return in_memory(self._table)

    def DumpReadable(self) -> Any:
        return self.Clone().DumpReadable()
