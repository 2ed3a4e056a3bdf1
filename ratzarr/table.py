"""The table: what users of ratzarr see.

An instance is a view of a table as it was when it was opened: its row count and the
columns it has used. :meth:`RatZarr.refresh` looks again; every change of metadata does
so by itself. Every write is in the store when the call returns, unless a buffer was asked
for (:mod:`ratzarr.columns.write_buffer`): then it is when :meth:`RatZarr.flush` does.
"""

import copy
import dataclasses
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import StorePath

from ratzarr.columns.arguments import column_options, html, integer
from ratzarr.columns.attributes import LiveAttributes
from ratzarr.columns.catalog import Catalog, NewColumn
from ratzarr.columns.column import Column
from ratzarr.columns.decoders import check_chunk, padded_rows
from ratzarr.columns.metadata import ColumnState
from ratzarr.columns.open_columns import OpenColumns
from ratzarr.columns.write_buffer import WriteBuffer, let_go
from ratzarr.errors import (
    ArgumentError,
    ChangedError,
    ClosedError,
    RatZarrError,
    ReadOnlyError,
    RowRangeError,
    TableNotFoundError,
)
from ratzarr.format.blocks import Block, chunk_count
from ratzarr.format.dtypes import BYTES
from ratzarr.format.history import Event, parse
from ratzarr.format.limits import MAX_ROWS
from ratzarr.format.names import (
    CHUNKSIZE_ATTR,
    COMPLETE_ATTR,
    DFLT_CHUNKSIZE,
    MODIFICATION_ATTR,
    OWN_COLUMN_ATTRS,
    OWN_TABLE_ATTRS,
    ROWS_DONE_ATTR,
    Document,
    check_name,
    order_of,
)
from ratzarr.settings import write_buffer_bytes
from ratzarr.stores import open as whole_store

__all__ = ["RatZarr"]

Array = NDArray[Any]
type Place = str | os.PathLike[str] | Store | StorePath
"""Where a table is: a name, or a zarr store that it is in."""


class RatZarr:
    """A raster attribute table kept beside its raster, as a Zarr group.

    One row per pixel value or segment, one column per attribute; columns are read and
    written in blocks of rows.

    Parameters
    ----------
    filename : str, os.PathLike, zarr.abc.store.Store or zarr.storage.StorePath
        A local path, ``s3://bucket/key``, ``/vsis3/bucket/key``, ``file://...``, or
        another URL that fsspec can read; or a zarr store that has the table at its root
        (``StorePath(store, path)``: elsewhere in it).
    readOnly : bool
        Refuse every change.
    create : bool
        Create the table if nothing is there. (An existing one is never replaced.)
    storageOptions : mapping, optional
        Arguments for the file system: for S3 those of ``s3fs.S3FileSystem``. They go
        before what the AWS environment variables say.
    newRowCount, newChunkSize : int, optional
        Row count and chunk size of a table that is created by this call, which takes no
        further requests. One that is there already keeps its own.
    writeBuffer : bool or int, optional
        For programs that write small blocks: let rows wait in memory until their chunks are
        full, for a second at the most, and write chunks that are full at once. True, or how
        many bytes may wait (True: 256 MiB). By default what the environment variable
        ``RATZARR_WRITE_BUFFER`` says (``on``, ``off`` or bytes), and without it False. What
        waits is written by :meth:`flush`, :meth:`close`, a read of these rows, a change of
        metadata, and when the instance is no longer used; a process that is killed before
        loses it, and errors in writing come later than the call that they belong to.

    Attributes
    ----------
    rowCount : int
        Number of rows.

    Raises
    ------
    TableNotFoundError
        Where nothing is there and nothing is to be created.
    NotARatZarrError
        Where something else is there.
    FormatVersionError
        Where the table is of a later format.

    Examples
    --------
    >>> import numpy, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with RatZarr(folder + "/seg.tif.rat.zarr") as rat:
    ...     rat.setRowCount(4)
    ...     rat.createColumn("area", numpy.float64)
    ...     rat.writeBlock("area", numpy.array([1.5, 2.5]), 2)
    ...     rat.readBlock("area", 0, 4)
    array([0. , 0. , 1.5, 2.5])
    """

    def __init__(
        self,
        filename: Place,
        readOnly: bool = False,
        create: bool = True,
        *,
        storageOptions: Mapping[str, Any] | None = None,
        newRowCount: int = 0,
        newChunkSize: int = DFLT_CHUNKSIZE,
        writeBuffer: bool | int | None = None,
    ) -> None:
        rows = integer(newRowCount, "the row count", 0, MAX_ROWS)
        chunk_rows = integer(newChunkSize, "the chunk size", 1, MAX_ROWS)
        size = 0 if readOnly else write_buffer_bytes(writeBuffer)
        self.filename = filename
        self.readOnly = bool(readOnly)
        self._closed = False
        self._objects = whole_store.open_place(filename, storageOptions)
        self._table = whole_store.table_metadata(self._objects)
        created = not self._table.load()
        if created:
            if self.readOnly or not create:
                whole_store.refuse_foreign_root(self._objects)
                asked = "readOnly is True" if self.readOnly else "create is False"
                raise TableNotFoundError(
                    f"there is no RatZarr at {self._objects.location}, and {asked}"
                )
            self._table = whole_store.create(self._objects, rows, chunk_rows)
        self._catalog = Catalog(self._objects, self._table)
        buffer = WriteBuffer(size) if size else None
        self._columns = OpenColumns(self._catalog, buffer)
        if buffer is not None:
            weakref.finalize(self, let_go, buffer).atexit = False
        if created:
            self._catalog.rows.accept()

    # ---- the table

    def getRowCount(self) -> int:
        """Return the number of rows.

        The first time a column is looked at, as another program may have resized the columns
        without saying so in the table's document.
        """
        self._check_open()
        return self._rows

    @property
    def rowCount(self) -> int:
        """Number of rows. Setting it is :meth:`setRowCount`."""
        return self._rows

    @rowCount.setter
    def rowCount(self, rowCount: int) -> None:
        self.setRowCount(rowCount)

    def setRowCount(self, rowCount: int) -> None:
        """Set the number of rows, of the table and of each of its columns.

        Rows that are cut off are gone; rows that are added are empty (the columns' fill
        values), also where there were rows before. A column that can't be read is left as
        it is (:meth:`getUnreadableColumns`).

        Parameters
        ----------
        rowCount : int
            0 or more.

        Raises
        ------
        ArgumentError
            For anything but an integer, or a negative one.
        """
        rows = integer(rowCount, "the row count", 0, MAX_ROWS)
        # However many there were.
        self._check_writable()
        self._columns.write_back()
        self._columns.cut(rows)
        for column in self._catalog.resizing.set(rows, self._columns.known()):
            self._columns.add(column)
        self._catalog.rows.accept()

    def getRATChunkSize(self) -> int:
        """Return the number of rows per chunk of columns to be created."""
        self._check_open()
        return int(self._table.attributes.get(CHUNKSIZE_ATTR, DFLT_CHUNKSIZE))

    def setChunkSize(self, chunksize: int) -> None:
        """Set the number of rows per chunk, of columns created from now on.

        A chunk is one object in the store. Blocks that are whole chunks are read and
        written fastest; the default is 500 000 rows.

        Raises
        ------
        ArgumentError
            For anything but an integer >= 1.
        """
        rows = integer(chunksize, "the chunk size", 1, MAX_ROWS)
        self._begin_change()

        def change(document: Document) -> None:
            document["attributes"][CHUNKSIZE_ATTR] = rows

        self._update_table(change)

    def getRatAttributeMapping(self) -> LiveAttributes:
        """Return the table's attributes: a mapping whose changes are on disk at once."""
        self._check_open()
        return LiveAttributes(
            self._table, OWN_TABLE_ATTRS, self._begin_change, self._catalog.table_missing
        )

    # ---- columns

    def getColumnNames(self) -> list[str]:
        """Return the names of all columns, in order of creation.

        One request, however many columns there are.
        """
        self._check_open()
        return self._catalog.names()

    def colExists(self, colName: str) -> bool:
        """Return whether the table has a column of this name."""
        self._check_open()
        return colName != "" and self._catalog.is_there(colName)

    def createColumn(
        self,
        colName: str,
        dtype: Any,
        width: int = 1,
        *,
        fillValue: Any = None,
        chunkSize: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        complete: bool = True,
        replace: bool = False,
    ) -> None:
        """Create a column, of as many rows as the table has.

        Parameters
        ----------
        colName : str
            Any string but the empty one.
        dtype : dtype-like
            Any integer, float16 to float64, bool, ``datetime64`` with a unit,
            fixed-width bytes (``S7``), ``str`` (or ``StringDType()``) for text, ``bytes``
            for bytes of any length; or a dtype of pandas, Polars or Arrow that is exactly
            one of these (a categorical: that of its categories).
        width : int
            Values per row: more than 1 makes blocks of shape (n, width).
        fillValue : scalar, optional
            What rows hold that were never written; by default 0, False, "", b"", NaT.
        chunkSize : int, optional
            Rows per chunk of this column; by default the table's (:meth:`setChunkSize`).
        attributes : mapping, optional
            Attributes to create it with.
        complete : bool
            False for a column that is to be filled by a long copy: it can't be read
            until :meth:`setComplete` says that all of it is there.
        replace : bool
            With ``complete=False``: let the column take the place of one of its name, if
            there is one, but only when :meth:`setComplete` says that it is finished. Until
            then everybody else sees the old one; this instance means the new one by the
            name, and :meth:`deleteColumn` gives up the new one. The new one keeps the old
            one's GDAL usage, units and other attributes that do not describe its values;
            those in ``attributes`` take precedence.

        Raises
        ------
        ColumnExistsError
            Where there is a column of this name. It is left as it is.
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError
            For a name, dtype, fill value or width that can't be.
        """
        self._begin_change()
        if replace and complete:
            raise ArgumentError("replace=True is for columns created with complete=False")
        new = self._new_column(
            colName,
            dtype,
            width,
            fillValue=fillValue,
            chunkSize=chunkSize,
            attributes=attributes,
            complete=complete,
        )
        if replace:
            kept = self._catalog.kept_attributes(new.name)
            new = dataclasses.replace(new, attributes={**kept, **new.attributes})
        column = self._catalog.create(new, self._rows, replace=replace)
        self._catalog.rows.accept()
        self._columns.add_new(column, logged=not complete)

    def createColumns(self, columns: Mapping[str, Any]) -> None:
        """Create many columns at once, their requests in parallel.

        Parameters
        ----------
        columns : mapping
            By name, in order: a dtype, or a mapping with ``dtype`` and what else
            :meth:`createColumn` takes (``width``, ``fillValue``, ``chunkSize``, ``attributes``,
            ``complete``).

        Raises
        ------
        ColumnExistsError
            Where there is one of such a name. None is created. (Only where another process
            creates it at this very moment the others are.)
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError
            For a name, dtype, fill value or width that can't be. None is created.

        Examples
        --------
        >>> import tempfile
        >>> with RatZarr(tempfile.mkdtemp() + "/seg.tif.rat.zarr") as rat:
        ...     rat.createColumns({"area": "float64", "class": {"dtype": "u1", "fillValue": 255}})
        ...     rat.getColumnNames()
        ['area', 'class']
        """
        self._begin_change()
        if not isinstance(columns, Mapping):
            raise ArgumentError(
                f"createColumns takes a mapping of names to dtypes: got {columns!r:.100}"
            )
        new = []
        for name, asked in columns.items():
            try:
                new.append(self._new_column(name, **column_options(name, asked)))
            except RatZarrError as error:
                error.add_note(f"(this was asked of column {name!r}; none was created)")
                raise
        if not new:
            return
        created = self._catalog.create_many(new, self._rows)
        self._catalog.rows.accept()
        for one, column in zip(new, created, strict=True):
            self._columns.add_new(column, logged=not one.complete)

    def _new_column(
        self,
        name: str,
        dtype: Any,
        width: int = 1,
        *,
        fillValue: Any = None,
        chunkSize: int | None = None,
        attributes: Mapping[str, Any] | None = None,
        complete: bool = True,
    ) -> NewColumn:
        usual = chunkSize is None
        return NewColumn.of(
            name,
            dtype,
            width,
            fill=fillValue,
            chunk_rows=self.getRATChunkSize()
            if usual
            else integer(chunkSize, "the chunk size", 1, MAX_ROWS),
            attributes=attributes,
            complete=complete,
        )

    def setComplete(self, colName: str, rowsDone: int | None = None) -> None:
        """Say that a column created with ``complete=False`` has all its rows.

        Parameters
        ----------
        colName : str
            The column.
        rowsDone : int, optional
            Say instead that only its first rows are whole.
        """
        self._begin_change()
        column = self._column(colName)
        state = column.state

        def change(document: Document) -> None:
            attributes = document["attributes"]
            now = ColumnState.of(document, column.document.place, colName)
            if now.id != state.id:
                raise column.replaced()
            for one, then, stop in written:
                one.check_lasts(now, then, stop)
            attributes[COMPLETE_ATTR] = rowsDone is None
            # Rows that others have added, or cut off and added again, nobody says to have written.
            known = min(self._rows, now.length, *(now.cuts or ()))
            attributes[ROWS_DONE_ATTR] = known if rowsDone is None else done

        done = 0 if rowsDone is None else integer(rowsDone, "rowsDone", 0, MAX_ROWS)
        with self._columns.confirming([colName]) as written:
            column.document.update(change, column.missing)
        if rowsDone is None and not column.in_place:
            self._columns.forget(colName)
            self._columns.add(self._catalog.put_in_place(column))

    def resumeColumn(self, colName: str) -> dict[str, Any] | None:
        """Go on with a column that was created with ``complete=False`` and never finished.

        From now on this instance writes to it, also where it is one that is to replace
        another. Only one process should go on with it.

        Returns
        -------
        dict or None
            Its attributes; None where there is nothing unfinished of this name.
        """
        self._begin_change()
        column = self._catalog.unfinished(check_name(colName))
        if column is None:
            return None
        self._columns.add_new(column)
        return copy.deepcopy(column.document.attributes)

    def getMissingRows(self, colName: str) -> list[tuple[int, int]]:
        """Return which rows of a column nobody has written yet, as whole chunks.

        Returns
        -------
        list of (int, int)
            Runs of rows, from the first up to but not including the second.
        """
        column = self._column(colName)
        self._columns.write_back([colName])
        # Whoever asks is about to write them; and a column that is being built out of sight is not
        # opened anew when the table has grown or was cut.
        if not column.document.load():
            raise column.missing()
        there = column.chunks_there()
        step, rows = column.state.chunk_rows, min(self._rows, column.state.length)
        runs: list[tuple[int, int]] = []
        start = 0
        for chunk in [*sorted(there), chunk_count(rows, step)]:
            if start < (stop := min(chunk * step, rows)):
                runs.append((start, stop))
            start = (chunk + 1) * step
        return runs

    def deleteColumn(self, colName: str) -> None:
        """Delete a column, also one that can't be read.

        Raises
        ------
        ColumnNotFoundError
            Where there is none of this name.
        """
        self._check_writable()
        self._keep_row_count(check_name(colName))
        known = self._columns.get(colName)
        if known is not None and not known.in_place:
            self._objects.delete_tree(known.prefix)
        else:
            self._catalog.delete(colName, known)
        self._columns.give_up(colName)

    def openColumn(self, colName: str, *, allowIncomplete: bool = False) -> None:
        """Open a column now. Reading and writing do so by themselves.

        Raises
        ------
        ColumnNotFoundError
            Where there is none of this name.
        ColumnIncompleteError
            Where its writer has not finished it, unless ``allowIncomplete``.
        """
        column = self._column(colName)
        if not allowIncomplete:
            column.check_complete()

    def getUnreadableColumns(
        self, colNames: Iterable[str] | None = None
    ) -> dict[str, RatZarrError]:
        """Open columns, in parallel, and return those that can't be read.

        Such a column is packed in a way that is not known here, or its ``zarr.json`` is damaged.
        It can be deleted; it has no part in the row count; the other columns are not affected.

        Parameters
        ----------
        colNames : iterable of str, optional
            Which columns; by default all.

        Returns
        -------
        dict of str to RatZarrError
            By name, in the order of the columns: what opening the column raises.
        """
        self._check_open()
        names = self._catalog.names() if colNames is None else list(colNames)
        found = self._columns.unreadable(names)
        return {name: found[name] for name in names if name in found}

    def getColumnChunkSize(self, colName: str) -> int:
        """Return the number of rows per chunk of a column."""
        return self._column(colName).state.chunk_rows

    def getColumnWidth(self, colName: str) -> int:
        """Return the number of values per row of a column."""
        return self._column(colName).state.width

    def getColumnDtype(self, colName: str) -> np.dtype[Any]:
        """Return the dtype of a column's blocks."""
        dtype = self._column(colName).state.dtype
        return BYTES if dtype.kind == "O" else dtype

    def getColumnAttributeMapping(self, colName: str) -> LiveAttributes:
        """Return a column's attributes: a mapping whose changes are on disk at once."""
        column = self._column(colName)
        return LiveAttributes(
            column.document, OWN_COLUMN_ATTRS, self._begin_change, column.missing
        )

    def getModificationLog(self, colName: str) -> list[Event]:
        """Return who wrote to a column, when, and by what command.

        Returns
        -------
        list of (datetime.datetime, str, list of str)
            Time in UTC, user, command line; oldest first. One event for the first
            write to the column by each instance of RatZarr.
        """
        return parse(self._column(colName).document.attributes.get(MODIFICATION_ATTR))

    # ---- blocks

    def readBlock(
        self, colName: str, startRow: int, blockLen: int, *, allowIncomplete: bool = False
    ) -> Array:
        """Read a block of rows of a column.

        Parameters
        ----------
        colName : str
            The column.
        startRow : int
            First row, from 0 to the row count.
        blockLen : int
            Number of rows; at the end of the table fewer are returned.
        allowIncomplete : bool
            Also read a column that its writer has not finished.

        Returns
        -------
        ndarray
            Of shape (n,) or (n, width), and the column's dtype.

        Raises
        ------
        ColumnNotFoundError, RowRangeError, ColumnIncompleteError, DamagedError
        """
        names = [colName]
        return self.readBlocks(names, startRow, blockLen, allowIncomplete=allowIncomplete)[colName]

    def readBlocks(
        self,
        colNames: Iterable[str],
        startRow: int,
        blockLen: int,
        *,
        allowIncomplete: bool = False,
    ) -> dict[str, Array]:
        """Read the same rows of several columns, their requests in parallel.

        Parameters and errors are those of :meth:`readBlock`.

        Returns
        -------
        dict of str to ndarray
            In the order of ``colNames``.
        """
        self._check_open()
        start = integer(startRow, "startRow", None, None)
        length = integer(blockLen, "blockLen", None, None)
        names = list(colNames)
        for _ in range(2):
            rows = self._rows_of(names)
            if start > rows:
                self._look_again()
                rows = self._rows_of(names)
            if not 0 <= start <= rows or length < 0:
                raise RowRangeError(
                    f"{self._objects.location} has {rows} rows: a block of {length} from row "
                    f"{start} is not in it"
                )
            block = Block(start, min(length, rows - start))
            try:
                return self._columns.read(names, block, allow_incomplete=allowIncomplete)
            except ChangedError:
                # Cut by another process: what is left of it can be read.
                self._look_again()
        return self._columns.read(names, block, allow_incomplete=allowIncomplete)

    def readText(self, colName: str, startRow: int, blockLen: int) -> list[Array] | None:
        """Read rows of a column of strings as their UTF-8, where that is faster than as strings.

        For who hands them to something that wants bytes. Parameters and errors are those of
        :meth:`readBlock`.

        Returns
        -------
        list of ndarray of fixed-width bytes, or None
            The rows in order, some thousand in each, as wide as the longest of these; no string
            in them has a zero byte. None where this is no good way: for columns of other dtypes,
            for long strings, for strings with zero bytes. :meth:`readBlock` reads them all.
        """
        block = self._block(colName, startRow, blockLen)
        try:
            reading = self._columns.look(colName, block, padded_rows)
        except ChangedError:
            return None
        found = [reading.found[first] for first in sorted(reading.found)]
        pieces = [piece for part in found for piece in part or ()]
        # Rows that the column does not have yet are for readBlock, as is what could not be padded.
        return pieces if sum(map(len, pieces)) == block.length else None

    def checkBlock(self, colName: str, startRow: int, blockLen: int) -> None:
        """See that rows of a column can be read: their chunks are there, and are not damaged.

        By their checksums, with nothing unpacked, where they have any. Parameters and errors are
        those of :meth:`readBlock`.
        """
        self._columns.look(colName, self._block(colName, startRow, blockLen), check_chunk)

    def _block(self, name: str, startRow: int, blockLen: int) -> Block:
        self._check_open()
        start = integer(startRow, "startRow", None, None)
        length = integer(blockLen, "blockLen", None, None)
        rows = self._rows_of([name])
        if not 0 <= start <= rows or length < 0:
            raise RowRangeError(
                f"{self._objects.location} has {rows} rows: a block of {length} from row "
                f"{start} is not in it"
            )
        return Block(start, min(length, rows - start))

    def writeBlock(self, colName: str, block: Any, startRow: int) -> None:
        """Write a block of rows of a column.

        Parameters
        ----------
        colName : str
            The column.
        block : array-like
            Of shape (n,), or (n, width). Every value must be one that the column's
            dtype holds exactly; nothing is rounded, wrapped or cut. Also a Series of pandas
            or Polars, an Arrow array, or a frame with as many columns of one dtype; but
            none with nulls, save of date-times.
        startRow : int
            First row; the last must be in the table.

        Raises
        ------
        UnequalValueError
            Names the row and the value. Nothing is written.
        ColumnNotFoundError, RowRangeError, ShapeError, UnsupportedDtypeError
            Nothing is written.
        """
        self.writeBlocks({colName: block}, startRow)

    def writeBlocks(self, blocks: Mapping[str, Any], startRow: int) -> None:
        """Write the same rows of several columns, their requests in parallel.

        Nothing is written unless every block fits its column. Parameters and errors are
        those of :meth:`writeBlock`.
        """
        self._check_writable()
        start = integer(startRow, "startRow", None, None)
        try:
            rows = self._rows_of(blocks)
            self._columns.write(blocks, start, rows)
        except RowRangeError:
            self._look_again()
            now = self._rows_of(blocks)
            if now <= rows:
                raise
            self._columns.write(blocks, start, now)
        except ChangedError:
            self._look_again()
            raise

    # ---- the instance

    def refresh(self) -> None:
        """Write what waits, and look at the store again: row count, chunk size, columns.

        Raises
        ------
        TableNotFoundError
            Where the table has been deleted.
        """
        self._check_open()
        self._columns.write_back()
        self._look_again()

    def flush(self) -> None:
        """Make sure that everything written is in the store, and where it was meant to be.

        Without a buffer it is in the store after each call. On S3 a chunk is written without a look at
        whether its column is still there: this looks, with one request for each column
        written to since the last time.

        Raises
        ------
        ChangedError, ColumnNotFoundError
            Where another process has deleted a column, created it anew, or cut off rows
            that were written since.
        """
        self._check_open()
        self._columns.confirm()

    def close(self) -> None:
        """Let go of the table; :meth:`flush` first.

        Any other use of this instance is an error from now on.
        """
        if not self._closed:
            # What can't be written goes on waiting, and so does the instance.
            self._columns.write_back()
            self._closed = True
            try:
                self._columns.confirm()
            finally:
                self._columns.forget()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            # What went wrong first matters more than what it may have led to.
            try:
                self._columns.write_back()
            except RatZarrError as other:
                if error is not None:
                    error.add_note(f"{other}\n" + "\n".join(getattr(other, "__notes__", ())))
            self._closed = True
            self._columns.forget()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._rows_in_words()} rows"
        mode = ", read-only" if self.readOnly else ""
        return f"<RatZarr {str(self._objects.location)!r}: {state}{mode}>"

    def _repr_html_(self) -> str:
        if self._closed:
            return html(repr(self), [])
        names = self.getColumnNames()
        unreadable = self._columns.unreadable(names[:100])
        shown = self._columns.open(name for name in names[:100] if name not in unreadable)
        rows: list[tuple[str, str, int | str]] = [
            (name, str(state.dtype) if state.dtype.kind != "T" else "str", state.width)
            for name, state in ((name, column.state) for name, column in shown.items())
        ]
        rows += [(name, "can't be read", "") for name in unreadable]
        return html(f"{self!r}, {len(names)} columns", rows)

    @staticmethod
    def exists(zarrfile: Place, *, storageOptions: Mapping[str, Any] | None = None) -> bool:
        """Return whether anything, RatZarr or not, is at this place."""
        return whole_store.exists(whole_store.open_place(zarrfile, storageOptions))

    @staticmethod
    def isValidRatZarr(
        zarrfile: Place, *, storageOptions: Mapping[str, Any] | None = None
    ) -> bool:
        """Return whether a RatZarr is at this place."""
        return whole_store.is_valid(whole_store.open_place(zarrfile, storageOptions))

    @staticmethod
    def delete(zarrfile: Place, *, storageOptions: Mapping[str, Any] | None = None) -> None:
        """Delete a RatZarr; do nothing where nothing is.

        Raises
        ------
        NotARatZarrError
            Where something else is there, or something else with it. Nothing is deleted.
        """
        whole_store.delete(whole_store.open_place(zarrfile, storageOptions))

    def bytesWritten(self, colName: str) -> int:
        """Return how many bytes, packed, this instance has written to a column."""
        column = self._column(colName)
        self._columns.write_back([colName])
        return column.bytes_written

    # ---- inside

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._objects.location}: this RatZarr was closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.readOnly:
            raise ReadOnlyError(f"{self._objects.location} was opened with readOnly=True")
        whole_store.check_writable(self._objects)

    def _begin_change(self) -> None:
        """Before any change of metadata: what was written earlier is written earlier."""
        self._check_writable()
        self._columns.write_back()
        self._correct_row_count()

    def _correct_row_count(self) -> None:
        """Write down how many rows there are, where another program has changed that."""
        rows = self._catalog.rows
        if self._objects.looks_before_writing:
            rows.look_again()
            if rows.known is None:
                rows.look()
        if self._rows != rows.stated:
            rows.correct()

    def _keep_row_count(self, name: str) -> None:
        """Before a column is deleted: the last one may be all that says how many rows there are."""
        rows = self._catalog.rows
        order = order_of(self._table.document)
        if rows.known is not None or not order or order == [name]:
            self._correct_row_count()

    @property
    def _rows(self) -> int:
        """The number of rows; the first time, one column is looked at for it."""
        rows = self._catalog.rows
        if rows.known is None:
            for column in rows.look(self._columns.samples()):
                self._columns.add(column)
        return rows.known or 0

    def _rows_of(self, names: Iterable[str]) -> int:
        """Return the number of rows; the first time, these columns are looked at for it.

        They are about to be used, so it takes no request.
        """
        if self._catalog.rows.known is None:
            self._columns.open(names)
        return self._rows

    def _rows_in_words(self) -> str:
        try:
            return str(self._rows)
        except RatZarrError:
            # Whoever looks at an instance wants no error.
            return "unknown"

    def _look_again(self) -> None:
        self._columns.look_again()
        if not self._table.load():
            raise self._catalog.table_missing()
        self._catalog.rows.forget()

    def _update_table(self, change: Callable[[Document], bool | None]) -> None:
        self._table.update(change, self._catalog.table_missing)

    def _column(self, name: str) -> Column:
        self._check_open()
        return self._columns[name]
