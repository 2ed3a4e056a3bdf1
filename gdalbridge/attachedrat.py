"""A raster's own table and its sidecars' as one table of GDAL's."""

import weakref
from collections import Counter
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ratzarr import RatZarrError
from ratzarr.casting import as_block

from ._gdal import exceptions, gdal, silence
from .attachedblocks import has_rows, read_array, read_values
from .attachedcolumns import OwnColumn, SidecarColumn, Window, blank
from .errors import BridgeError, ConversionError
from .joined import Joined
from .nativecopy import RowFinder, in_memory
from .opensidecars import let_go
from .ownrat import HeldRat
from .valuesgiven import check_text, stored_array, stored_cell

__all__ = ["AttachedRAT"]

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
    :mod:`gdalbridge.shownvalues`. A column that is not complete, or of a dtype that GDAL has
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
