"""The public class :class:`RatZarr`.

An instance shows the table as it was when it was opened: its row count, and the columns used so
far. :meth:`RatZarr.refresh` reads them again, and so does each change of metadata. A write is in
the store when the call returns; with a write buffer, when :meth:`RatZarr.flush` returns.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.strings import Convert, to_offsets
from ratzarr.columns.chunk_cache import ChunkCache
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import NewColumn, new_columns
from ratzarr.columns.open_columns import OpenColumns
from ratzarr.columns.write_buffer import buffer_of
from ratzarr.errors import ClosedError, RatZarrError, ReadOnlyError
from ratzarr.format.casting import integer
from ratzarr.format.dtypes import BYTES
from ratzarr.format.history import Event, parse
from ratzarr.format.limits import MAX_ROWS
from ratzarr.format.names import (
    CHUNKSIZE_ATTR,
    DFLT_CHUNKSIZE,
    MODIFICATION_ATTR,
    OWN_COLUMN_ATTRS,
    OWN_TABLE_ATTRS,
    check_name,
)
from ratzarr.interop import Source, StoreSource, TableMethods, store_column
from ratzarr.settings import write_buffer_bytes
from ratzarr.stores import open as whole_store
from ratzarr.stores.document import LiveAttributes
from ratzarr.stores.open import Place

__all__ = ["RatZarr"]

Array = NDArray[Any]


class RatZarr(TableMethods):
    """A raster attribute table kept beside its raster, as a Zarr group.

    The table has one row per pixel value or segment, and one column per attribute. Columns are
    read and written in blocks of rows.

    Parameters
    ----------
    filename : str, os.PathLike, zarr.abc.store.Store or zarr.storage.StorePath
        A local path, ``s3://bucket/key``, ``/vsis3/bucket/key``, ``file://...``, or another URL
        that fsspec can read. Or a zarr store with the table at its root; for a table elsewhere in
        the store, pass ``StorePath(store, path)``.
    readOnly : bool
        If True, every change raises :class:`ReadOnlyError`.
    create : bool
        If True, create the table if it does not exist. An existing table is never replaced.
    storageOptions : mapping, optional
        Arguments for the file system; for S3, those of ``s3fs.S3FileSystem``. They take precedence
        over the AWS environment variables.
    newRowCount, newChunkSize : int, optional
        Row count and chunk size of the table if this call creates it; they cost no extra request.
        An existing table keeps its own.
    writeBuffer : bool or int, optional
        For programs that write small blocks: collect rows in memory, and write each chunk once,
        when all its rows have arrived or after about one second. True allows 256 MiB of collected
        rows; an int sets another number of bytes. The default comes from the environment variable
        ``RATZARR_WRITE_BUFFER`` (``on``, ``off`` or bytes), otherwise False. This instance reads
        collected rows as if they were written. They are written by :meth:`flush`, :meth:`close`, a
        change of metadata, and the end of the instance. A process that is killed before that loses
        them. Errors in writing are raised by a later call.
    cacheBytes : int, optional
        Bytes of decoded chunks that are kept for the next block; 0 for none. The default comes
        from the environment variable ``RATZARR_CACHE_BYTES``, otherwise 64 MiB.
    cacheSeconds : float
        Seconds for which a chunk in the cache is used without asking the store whether another
        process has changed it. By default every block asks, which on S3 takes a request. With
        ``math.inf``, the instance shows each chunk as it was first read, until :meth:`refresh`.
        Writes of this instance are always seen.

    Raises
    ------
    TableNotFoundError
        If the table does not exist, and ``create`` is False or ``readOnly`` is True.
    NotARatZarrError
        If the location contains something other than a RatZarr.
    FormatVersionError
        If a later version of the format wrote the table.

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
        cacheBytes: int | None = None,
        cacheSeconds: float = 0.0,
    ) -> None:
        create = create and not readOnly
        if create:
            newRowCount = integer(newRowCount, "the row count", 0, MAX_ROWS)
            newChunkSize = integer(newChunkSize, "the chunk size", 1, MAX_ROWS)
        size = 0 if readOnly else write_buffer_bytes(writeBuffer)
        cache = ChunkCache(cacheBytes, cacheSeconds)
        self.filename = filename
        self.readOnly = bool(readOnly)
        self._closed = False
        self._options = storageOptions
        self._objects = whole_store.open_place(filename, storageOptions)
        self._table, created = whole_store.open_table(
            self._objects, newRowCount, newChunkSize, create=create
        )
        self._columns = OpenColumns(self._table, cache, buffer_of(self, size) if size else None)
        if created:
            self._columns.accept_row_count()

    # ---- the table

    def getRowCount(self) -> int:
        """Return the number of rows.

        The first call reads one column, because another program may have resized the columns
        without updating the table's document.
        """
        self._check_open()
        return self._columns.row_count()

    @property
    def rowCount(self) -> int:
        """Number of rows. Assigning to it calls :meth:`setRowCount`."""
        return self._columns.row_count()

    @rowCount.setter
    def rowCount(self, rowCount: int) -> None:
        self.setRowCount(rowCount)

    def setRowCount(self, rowCount: int, *, growOnly: bool = False) -> None:
        """Set the number of rows, of the table and of each of its columns.

        Rows beyond the new count are deleted. New rows have the columns' fill values, even where
        earlier rows were cut off. Columns that can't be read are not changed (see
        :meth:`getUnreadableColumns`).

        Parameters
        ----------
        rowCount : int
            0 or more.
        growOnly : bool
            If True, no rows are deleted: a table that has more rows, such as another process has
            added, keeps them.

        Raises
        ------
        ArgumentError
            If ``rowCount`` is negative or not an integer.
        """
        self._check_writable()
        self._columns.set_row_count(rowCount, grow_only=growOnly)

    def getRATChunkSize(self) -> int:
        """Return the number of rows per chunk for new columns."""
        self._check_open()
        return int(self._table.attributes.get(CHUNKSIZE_ATTR, DFLT_CHUNKSIZE))

    def setChunkSize(self, chunksize: int) -> None:
        """Set the number of rows per chunk for columns created from now on.

        A chunk is one object in the store. Blocks that cover whole chunks are read and written
        fastest. The default is 500 000 rows.

        Raises
        ------
        ArgumentError
            If ``chunksize`` is not an integer of 1 or more.
        """
        self._begin_change()
        self._columns.catalog.set_chunk_rows(integer(chunksize, "the chunk size", 1, MAX_ROWS))

    def getRatAttributeMapping(self) -> LiveAttributes:
        """Return the table's attributes, as a mapping that saves each change at once."""
        self._check_open()
        return LiveAttributes(self._table, OWN_TABLE_ATTRS, self._begin_change)

    # ---- columns

    def getColumnNames(self) -> list[str]:
        """Return the names of all columns, in order of creation.

        This takes one request, regardless of the number of columns.
        """
        self._check_open()
        return self._columns.catalog.names()

    def colExists(self, colName: str) -> bool:
        """Return True if the table has a column of this name."""
        self._check_open()
        return colName != "" and self._columns.catalog.is_there(colName)

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
        """Create a column, with as many rows as the table.

        Parameters
        ----------
        colName : str
            Any string except the empty one.
        dtype : dtype-like
            Any integer, float16 to float64, bool, ``datetime64`` with a unit, fixed-width bytes
            (``S7``), ``str`` (or ``StringDType()``) for text, or ``bytes`` for bytes of any
            length. A dtype of pandas, Polars or Arrow is accepted if it equals one of these
            exactly; for a categorical, the dtype of its categories counts.
        width : int
            Values per row. With more than 1, blocks have the shape (n, width).
        fillValue : scalar, optional
            The value of rows that were never written; by default 0, False, "", b"" or NaT.
        chunkSize : int, optional
            Rows per chunk of this column; by default the table's (:meth:`setChunkSize`).
        attributes : mapping, optional
            Initial attributes of the column.
        complete : bool
            Pass False if a long copy will fill the column. Until :meth:`setComplete` declares it
            complete, reading it raises :class:`ColumnIncompleteError`.
        replace : bool
            With ``complete=False``: replace an existing column of this name, but not before
            :meth:`setComplete` declares the new one complete. Until then, all other readers see
            the old column. In this instance, the name refers to the new one, and
            :meth:`deleteColumn` discards the new one. The new column keeps the old one's GDAL
            usage, units and other attributes that do not describe its values; ``attributes`` take
            precedence over these.

        Raises
        ------
        ColumnExistsError
            If a column of this name exists. It is not changed.
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError
            If the name, dtype, fill value or width is not valid.
        """
        self._begin_change()
        new = NewColumn.of(
            colName,
            dtype,
            width,
            chunk_rows=self._chunk_rows(chunkSize),
            fillValue=fillValue,
            attributes=attributes,
            complete=complete,
        )
        self._columns.create(new, replaces=replace)

    def createColumns(self, columns: Mapping[str, Any]) -> None:
        """Create many columns, with parallel requests.

        Parameters
        ----------
        columns : mapping
            For each name, in order: a dtype, or a mapping with ``dtype`` and any other parameters
            of :meth:`createColumn` (``width``, ``fillValue``, ``chunkSize``, ``attributes``,
            ``complete``).

        Raises
        ------
        ColumnExistsError
            If a column of one of these names exists. No column is created. If another process
            creates such a column during this call, the other columns may have been created.
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError
            If the name, dtype, fill value or width is not valid. None is created.

        Examples
        --------
        >>> import tempfile
        >>> with RatZarr(tempfile.mkdtemp() + "/seg.tif.rat.zarr") as rat:
        ...     rat.createColumns({"area": "float64", "class": {"dtype": "u1", "fillValue": 255}})
        ...     rat.getColumnNames()
        ['area', 'class']
        """
        self._begin_change()
        self._columns.create_many(new_columns(columns, self._chunk_rows))

    def _chunk_rows(self, chunkSize: int | None) -> int:
        if chunkSize is None:
            return self.getRATChunkSize()
        return integer(chunkSize, "the chunk size", 1, MAX_ROWS)

    def setComplete(self, colName: str, rowsDone: int | None = None) -> None:
        """Declare a column complete that was created with ``complete=False``.

        Parameters
        ----------
        colName : str
            The column.
        rowsDone : int, optional
            Only record that the first ``rowsDone`` rows are complete; the column stays incomplete.
        """
        self._begin_change()
        self._columns.complete(colName, rowsDone)

    def resumeColumn(self, colName: str) -> dict[str, Any] | None:
        """Resume writing a column that was created with ``complete=False``.

        Afterwards, the name refers to the unfinished column in this instance, even if that column
        will replace another. Only one process at a time should resume a column.

        Returns
        -------
        dict or None
            The column's attributes; None if no unfinished column has this name.
        """
        self._begin_change()
        return self._columns.resume(colName)

    def getMissingRows(self, colName: str) -> list[tuple[int, int]]:
        """Return the rows of a column that are not written yet, as whole chunks.

        Rows that were cut off from the column count as missing, even if they were written since.

        Returns
        -------
        list of (int, int)
            Runs of rows as (start, stop); stop is not included.
        """
        column = self._column(colName)
        self._columns.write_back([colName])
        return column.missing_rows(self._columns.row_count())

    def deleteColumn(self, colName: str, *, onlyUnfinished: bool = False) -> None:
        """Delete a column, even if it can't be read.

        With ``onlyUnfinished``, complete columns are kept. If a column was being replaced, the old
        one is kept and the unfinished new one is deleted.

        Raises
        ------
        ColumnNotFoundError
            If the column does not exist; not with ``onlyUnfinished``.
        """
        self._check_writable()
        (self._columns.discard if onlyUnfinished else self._columns.delete)(colName)

    def openColumn(self, colName: str, *, allowIncomplete: bool = False) -> None:
        """Open a column now. Reading and writing open columns on demand.

        Raises
        ------
        ColumnNotFoundError
            If the column does not exist.
        ColumnIncompleteError
            If the column is incomplete and ``allowIncomplete`` is False.
        """
        column = self._column(colName)
        if not allowIncomplete:
            column.check_complete()

    def getUnreadableColumns(
        self, colNames: Iterable[str] | None = None
    ) -> dict[str, RatZarrError]:
        """Open columns in parallel, and return the unreadable ones with their errors.

        A column can't be read if its codec is unknown or its ``zarr.json`` is damaged. It can be
        deleted. It does not affect the row count or the other columns.

        Parameters
        ----------
        colNames : iterable of str, optional
            The columns to open; by default all.

        Returns
        -------
        dict of str to RatZarrError
            For each unreadable column, in order, the error that opening it raises.
        """
        self._check_open()
        return self._columns.unreadable(
            self._columns.catalog.names() if colNames is None else colNames
        )

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

    def getColumnFillValue(self, colName: str) -> Any:
        """Return the value of a column's rows that were never written."""
        return self._column(colName).state.fill

    def getColumnAttributeMapping(self, colName: str) -> LiveAttributes:
        """Return a column's attributes, as a mapping that saves each change at once."""
        return LiveAttributes(self._column(colName).document, OWN_COLUMN_ATTRS, self._begin_change)

    def getModificationLog(self, colName: str) -> list[Event]:
        """Return the history of writes to a column: when, by whom, and by which command.

        Returns
        -------
        list of (datetime.datetime, str, list of str)
            Time in UTC, user and command line; oldest first. Each instance of RatZarr adds one
            event, at its first write to the column.
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
            Number of rows. At the end of the table, fewer rows are returned.
        allowIncomplete : bool
            If True, read the column even if it is incomplete.

        Returns
        -------
        ndarray
            The rows, with shape (n,) or (n, width) and the column's dtype.

        Raises
        ------
        ColumnNotFoundError, RowRangeError, ColumnIncompleteError, DamagedError
        """
        self._check_open()
        blocks = self._columns.read(
            [colName], startRow, blockLen, allow_incomplete=allowIncomplete
        )
        return blocks[colName]

    def readBlocks(
        self,
        colNames: Iterable[str],
        startRow: int,
        blockLen: int,
        *,
        allowIncomplete: bool = False,
    ) -> dict[str, Array]:
        """Read the same rows of several columns, with parallel requests.

        Parameters and errors are those of :meth:`readBlock`.

        Returns
        -------
        dict of str to ndarray
            In the order of ``colNames``.
        """
        self._check_open()
        return self._columns.read(colNames, startRow, blockLen, allow_incomplete=allowIncomplete)

    def readText(self, colName: str, startRow: int, blockLen: int) -> list[Array] | None:
        """Read rows of a string column as fixed-width UTF-8, if that is faster.

        Use it to pass text to a library that takes bytes. Parameters and errors are those of
        :meth:`readBlock`.

        Returns
        -------
        list of ndarray of fixed-width bytes, or None
            The rows in order, in pieces of some thousand rows. Each piece is as wide as its
            longest string, and no string contains a zero byte. None for columns of other dtypes,
            for long strings, for strings that contain zero bytes, and for rows that wait in the
            write buffer; read these with :meth:`readBlock`.
        """
        self._check_open()
        return self._columns.read_text(colName, startRow, blockLen)

    def readUtf8(
        self, colName: str, startRow: int, blockLen: int, convert: Convert[Any] = to_offsets
    ) -> list[Any] | None:
        """Read rows of a string column without an object for each string.

        Parameters and errors are those of :meth:`readBlock`, but ``convert``: it is called for each
        chunk as :func:`ratzarr.codecs.strings.to_offsets`, which is the default.

        Returns
        -------
        list, or None
            What ``convert`` returned, in the order of the rows. None for columns of other dtypes,
            if the column has fewer rows than the table, and for rows that wait in the write
            buffer: use :meth:`readBlock`.
        """
        self._check_open()
        return self._columns.read_utf8(colName, startRow, blockLen, convert)

    def checkBlock(self, colName: str, startRow: int, blockLen: int) -> None:
        """Check that the chunks of these rows exist and are not damaged.

        Chunks with checksums are not decompressed. Parameters and errors are those of
        :meth:`readBlock`.
        """
        self._check_open()
        self._columns.check(colName, startRow, blockLen)

    def writeBlock(self, colName: str, block: Any, startRow: int) -> None:
        """Write a block of rows of a column.

        Parameters
        ----------
        colName : str
            The column.
        block : array-like
            The rows, with shape (n,) or (n, width). The column's dtype must hold every value
            exactly; nothing is rounded, wrapped or truncated. A pandas or Polars Series, an Arrow
            array, or a frame with one dtype and as many columns as the width is also accepted.
            Nulls are refused, except in date-times.
        startRow : int
            First row. The whole block must lie within the table.

        Raises
        ------
        UnequalValueError
            If the dtype can't hold a value exactly; the message names the row and the value.
            Nothing is written.
        ColumnNotFoundError, RowRangeError, ShapeError, UnsupportedDtypeError
            Nothing is written.
        """
        self.writeBlocks({colName: block}, startRow)

    def writeBlocks(self, blocks: Mapping[str, Any], startRow: int) -> None:
        """Write the same rows of several columns, with parallel requests.

        If one block does not fit its column, nothing is written. Parameters and errors are those
        of :meth:`writeBlock`.
        """
        self._check_writable()
        self._columns.write(blocks, startRow)

    # ---- the table as a container

    def __setitem__(self, name: str, values: Any) -> None:
        """Create a column from all its values, or replace it; see the guide to data frames."""
        self._check_writable()
        store_column(self, check_name(name), values)

    __delitem__ = deleteColumn

    @property
    def _source(self) -> Source:
        self._check_open()
        return StoreSource(self, self._options)

    def _attributes_of(self, name: str) -> LiveAttributes:
        return self.getColumnAttributeMapping(name)

    # ---- the instance

    def refresh(self) -> None:
        """Write buffered rows, then read the row count, chunk size and columns again.

        Raises
        ------
        TableNotFoundError
            If the table has been deleted.
        """
        self._check_open()
        self._columns.write_back()
        self._columns.reload()

    def flush(self) -> None:
        """Ensure that all written rows are in the store, in the columns they were meant for.

        Without a write buffer, rows are in the store after each call. On S3, however, a chunk is
        written without checking that its column still exists. This method checks that, with one
        request for each column written to since the last check.

        Raises
        ------
        ChangedError, ColumnNotFoundError
            If another process has deleted a column, created it anew, or cut off written rows.
        """
        self._check_open()
        self._columns.confirm()

    def close(self) -> None:
        """Call :meth:`flush`, then close the table.

        Any later use of this instance raises :class:`ClosedError`.
        """
        if not self._closed:
            # If this fails, the rows stay in the buffer and the instance stays open.
            self._columns.write_back()
            self._closed = True
            try:
                self._columns.confirm()
            finally:
                self._columns.forget()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self._columns.abandon(error)
            self._closed = True

    def __repr__(self) -> str:
        try:
            state = "closed" if self._closed else f"{self.rowCount} rows"
        except RatZarrError:
            # A repr must not raise an error.
            state = "unknown rows"
        mode = ", read-only" if self.readOnly else ""
        return f"<RatZarr {str(self._objects.location)!r}: {state}{mode}>"

    def _repr_html_(self) -> str:
        names = [] if self._closed else self.getColumnNames()
        title = repr(self) if self._closed else f"{self!r}, {len(names)} columns"
        return self._columns.html(title, names[:100])

    @staticmethod
    def exists(zarrfile: Place, *, storageOptions: Mapping[str, Any] | None = None) -> bool:
        """Return True if the location contains anything, a RatZarr or not."""
        return whole_store.open_place(zarrfile, storageOptions).occupied()

    @staticmethod
    def isValidRatZarr(
        zarrfile: Place, *, storageOptions: Mapping[str, Any] | None = None
    ) -> bool:
        """Return True if the location contains a RatZarr."""
        return whole_store.is_valid(whole_store.open_place(zarrfile, storageOptions))

    @staticmethod
    def delete(zarrfile: Place, *, storageOptions: Mapping[str, Any] | None = None) -> None:
        """Delete a RatZarr. If the location is empty, do nothing.

        Raises
        ------
        NotARatZarrError
            If the location contains anything else. Nothing is deleted.
        """
        whole_store.delete(whole_store.open_place(zarrfile, storageOptions))

    def bytesWritten(self, colName: str) -> int:
        """Return how many compressed bytes this instance has written to a column."""
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
        if self._objects.read_only_reason:
            whole_store.check_writable(self._objects)

    def _begin_change(self) -> None:
        self._check_writable()
        self._columns.begin_change()

    def _column(self, name: str) -> Column:
        self._check_open()
        return self._columns[name]
