"""The open columns of an instance."""

import copy
import dataclasses
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.strings import Convert, pack, to_padded
from ratzarr.columns.catalog import UNREADABLE, Catalog
from ratzarr.columns.chunk_cache import ChunkCache
from ratzarr.columns.chunk_io import (
    BlockRead,
    Part,
    Use,
    block_writes,
    cached_parts,
)
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState, NewColumn
from ratzarr.columns.resize import rows_of
from ratzarr.columns.write_buffer import BufferedRows, WriteBuffer
from ratzarr.concurrency import PROCESSORS, run
from ratzarr.errors import (
    ArgumentError,
    ChangedError,
    ColumnNotFoundError,
    ConflictError,
    RatZarrError,
    RowRangeError,
    StoreError,
)
from ratzarr.format.casting import integer
from ratzarr.format.limits import MAX_ROWS, MEMORY, TASK_BYTES, check_memory
from ratzarr.format.names import RESIZE_ATTR, check_name, stated_rows
from ratzarr.stores.document import MetadataDocument

__all__ = ["OpenColumns"]

Array = NDArray[Any]

PAGES = 16
"""A block is a page if it has at most 1/PAGES of a chunk's rows."""
CUTS = 3
"""The number of attempts to read rows that other processes cut off."""
READ_ATTEMPTS = 5
"""The number of attempts to read a column that other processes keep replacing."""

type Write = tuple[Column, ColumnState, int]
"""A column, its state at the first of several writes, and the end of the written rows."""


class OpenColumns:
    """The columns of an instance by name, each opened on first use. Thread-safe.

    Parameters
    ----------
    table : MetadataDocument
        The table's own document.
    cache : ChunkCache
        The cache of chunks.
    buffer : WriteBuffer, optional
        Collects rows until their chunks are full.
    """

    def __init__(
        self, table: MetadataDocument, cache: ChunkCache, buffer: WriteBuffer | None = None
    ) -> None:
        self._table, self._cache, self._buffer = table, cache, buffer
        self._objects = table.objects
        # The number of threads that are enough for reading, and for coding whole chunks; None for one
        # per request. On stores without waiting, each further thread only needs more memory.
        self._few = self._objects.threads
        self._packers = None if self._few is None else max(2, PROCESSORS)
        self._columns: dict[str, Column] = {}
        # Columns whose log has an event of this instance, by name and identity: a column created
        # anew has a new log.
        self._logged: set[tuple[str, str]] = set()
        # One lock per column, so that the logs of several columns are written in parallel.
        self._log_locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        # Writes whose column, by name and identity, has not been checked since. On a local disk, each
        # write checks it. On S3 that takes a request, so many writes are checked together.
        self._unconfirmed: dict[tuple[str, str], Write] = {}
        self._rows: int | None = None
        """The row count; None until it is determined."""
        self._sample: Column | None = None
        """The column that the row count was compared with."""

    @cached_property
    def catalog(self) -> Catalog:
        """The table's columns, open or not."""
        return Catalog(self._table)

    def __getitem__(self, name: Any) -> Column:
        column = self._columns.get(name) if isinstance(name, str) else None
        if column is None:
            column = Column.find(self._objects, check_name(name))
            if column is None:
                raise self.catalog.no_column(name)
            self._use(column)
        return column

    def add(self, column: Column) -> None:
        """Add a column that was just opened."""
        known = self._columns.get(column.name)
        # In the instance that writes a hidden replacement, the name refers to the replacement.
        if column.in_place:
            wanted = known is None or known.in_place
        else:
            wanted = known is not None and known.prefix == column.prefix
        if wanted:
            self._use(column)

    def add_new(self, column: Column, *, logged: bool = False) -> None:
        """Add a column that was just created or resumed; ``logged`` if its log has an event."""
        self._forget_writes(column.name)
        self._use(column)
        if logged:
            self._logged.add((column.name, column.state.id))

    def _use(self, column: Column) -> Column:
        column.cache = self._cache
        self._columns[column.name] = column
        return column

    def forget(self, name: str | None = None) -> None:
        """Close a column, by default all; the next use opens it anew."""
        if name is None:
            self._columns.clear()
            self._cache.clear()
        else:
            self._columns.pop(name, None)
            self._forget_writes(name)

    def open(self, names: Iterable[str]) -> dict[str, Column]:
        """Return columns by name; open missing ones in parallel."""
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._columns]
        if unknown:
            opening = [partial(self.__getitem__, name) for name in unknown]
            _run(opening, self._few, quick=True)
        return {name: self._columns.get(name) or self[name] for name in wanted}

    def unreadable(self, names: Iterable[str]) -> dict[str, RatZarrError]:
        """Open columns in parallel; return the unreadable ones with their errors, in order."""
        names = list(names)
        found: dict[str, RatZarrError] = {}

        def attempt(name: str) -> None:
            try:
                self[name]
            except UNREADABLE as error:
                found[name] = error

        wanted = [partial(attempt, name) for name in names if name not in self._columns]
        _run(wanted, self._few, quick=True)
        return {name: found[name] for name in names if name in found}

    def html(self, title: str, names: Sequence[str]) -> str:
        """Return an HTML table of the columns, with all names escaped."""
        unreadable = self.unreadable(names)
        lines = ""
        for name in names:
            dtype, width = "can't be read", ""
            if name not in unreadable:
                state = self[name].state
                dtype = "str" if state.dtype.kind == "T" else str(state.dtype)
                width = str(state.width)
            lines += (
                f"<tr><td style='text-align:left'>{escape(name)}</td>"
                f"<td>{escape(dtype)}</td><td>{width}</td></tr>"
            )
        head = "<tr><th>column</th><th>dtype</th><th>width</th></tr>"
        return f"<div>{escape(title)}</div>" + (f"<table>{head}{lines}</table>" if lines else "")

    # ---- the row count

    def row_count(self, names: Iterable[str] = ()) -> int:
        """Return the number of rows of the table. The first call reads one column to determine it.

        ``ROWCOUNT`` is the row count, and each of our resizes changes it first. The existing
        module 1.0.2 resizes the columns and does not update ``ROWCOUNT``, so it is compared with
        the length of one column; see :func:`rows_of`.

        Parameters
        ----------
        names : iterable of str
            Columns that the caller needs anyway. If the row count is not known, they are opened
            and serve to determine it, so that costs no extra request.
        """
        if self._rows is None:
            self.open(names)
            opened = (column for column in self._columns.copy().values() if column.in_place)
            for column in self._determine_rows(next(opened, None)):
                self.add(column)
        return self._rows or 0

    def _determine_rows(self, sample: Column | None = None) -> list[Column]:
        """Compare ROWCOUNT with one column, by default the first; return columns opened for that."""
        stated = stated_rows(self._table.document)
        self._sample = None
        if stated is not None and RESIZE_ATTR in self._table.attributes:
            self._rows = stated
            return []
        self._sample = sample = sample or self.catalog.first()
        if sample is None or stated is None or sample.state.length == stated:
            self._rows = stated if stated is not None else sample.state.length if sample else 0
            return [] if sample is None else [sample]
        columns = self.catalog.all({})
        self._rows = rows_of(stated, [column.state for column in columns])
        return columns

    def accept_row_count(self) -> None:
        """Trust ROWCOUNT, because this instance has just written the document."""
        self._rows = stated_rows(self._table.document)

    def set_row_count(self, rows: int, *, grow_only: bool = False) -> None:
        """Set the number of rows; growing also keeps rows that the existing module has added."""
        rows = integer(rows, "the row count", 0, MAX_ROWS)
        (self.begin_change if grow_only else self.write_back)()
        self._cut_writes(MAX_ROWS if grow_only else rows)
        opened = self._columns.copy().items()
        known = {name: column.snapshot() for name, column in opened if column.in_place}
        try:
            for column in self.catalog.resizing.set(rows, known, grow_only=grow_only):
                self.add(column)
        finally:
            self._cache.distrust()
        self.accept_row_count()

    def begin_change(self) -> None:
        """Prepare a change of metadata: write buffered rows, to keep the order of the calls."""
        self.write_back()
        self._correct_row_count()

    def _correct_row_count(self) -> None:
        """Update the stored row count if another program has changed the number of rows."""
        sample = self._sample
        if self._objects.looks_before_writing and (
            self._rows is None or sample is None or not sample.document.is_still()
        ):
            # Here, this needs no request.
            self._determine_rows()
        rows = self.row_count()
        if rows != stated_rows(self._table.document):
            self._rows = self.catalog.correct_row_count(rows)

    def reload(self) -> None:
        """Read the table's document again; the next use of a column opens it anew.

        The cached chunks are used again when the store confirms them.
        """
        self._cache.distrust()
        # Iterate over a copy, because another thread may be opening a column.
        self._columns = {
            name: column for name, column in self._columns.copy().items() if not column.in_place
        }
        self._table.reload()
        self._rows = self._sample = None

    # ---- creating, completing, deleting

    def create(self, new: NewColumn, *, replaces: bool = False) -> None:
        """Create a column; see :meth:`Catalog.create`."""
        if replaces and new.complete:
            raise ArgumentError("replace=True is for columns created with complete=False")
        if replaces:
            kept = self.catalog.kept_attributes(new.name)
            new = dataclasses.replace(new, attributes={**kept, **new.attributes})
        column = self.catalog.create(new, self.row_count(), replace=replaces)
        self.accept_row_count()
        self.add_new(column, logged=not new.complete)

    def create_many(self, columns: Sequence[NewColumn]) -> None:
        """Create columns; see :meth:`Catalog.create_many`."""
        if not columns:
            return
        created = self.catalog.create_many(columns, self.row_count())
        self.accept_row_count()
        for new, column in zip(columns, created, strict=True):
            self.add_new(column, logged=not new.complete)

    def complete(self, name: str, rows_done: int | None) -> None:
        """Declare a column complete, or its first rows; see :meth:`RatZarr.setComplete`."""
        if rows_done is not None:
            rows_done = integer(rows_done, "rowsDone", 0, MAX_ROWS)
        column = self[name]
        with self.confirming([name]) as written:
            column.set_complete(rows_done, self.row_count(), written)
        if rows_done is None and not column.in_place:
            self.forget(name)
            self.add(self.catalog.put_in_place(column))

    def resume(self, name: str) -> dict[str, Any] | None:
        """Resume writing a column, and return its attributes; see :meth:`RatZarr.resumeColumn`."""
        column = self.catalog.unfinished(check_name(name))
        if column is None:
            return None
        self.add_new(column)
        return copy.deepcopy(column.document.attributes)

    def delete(self, name: str) -> None:
        """Delete a column, with its buffered rows."""
        order = self.catalog.order
        # Store the row count before a deletion: it may be known only from the last column.
        if self._rows is not None or not order or order == [check_name(name)]:
            self._correct_row_count()
        known = self._columns.get(name)
        if known is not None and not known.in_place:
            self._objects.delete_tree(known.prefix)
        else:
            self.catalog.delete(name, known)
        self._cache.distrust()
        self.forget(name)
        if self._buffer is not None:
            self._buffer.drop(name)

    def discard(self, name: str) -> None:
        """Delete the unfinished column of this name, with its buffered rows; if there is one."""
        self.forget(name)
        if self._buffer is not None:
            self._buffer.drop(name)
        self.catalog.discard(check_name(name))

    # ---- reading

    def read(
        self, names: Iterable[str], start: int, length: int, *, allow_incomplete: bool
    ) -> dict[str, Array]:
        """Read the same rows of several columns; fewer at the end of the table."""
        wanted = list(dict.fromkeys(names))
        for attempt in range(CUTS):
            stop = self._stop(wanted, start, length)
            # Taken before the store is read: rows that are written in between are in one of both.
            buffered = self._buffered(wanted, start, stop)
            try:
                blocks = self._read_cached(wanted, start, stop)
                left = [name for name in wanted if name not in blocks]
                if left:
                    reads = self._read(left, start, stop, allow_incomplete=allow_incomplete)
                    blocks |= {name: read.out for name, read in reads.items()}
                break
            except ChangedError:
                # The remaining rows can be read.
                if attempt + 1 == CUTS:
                    raise
        for name, (state, rows) in buffered.items():
            # Rows for a column that another process has replaced are discarded when they are due.
            if self[name].state.is_same_column(state):
                for in_block, is_buffered, values in rows:
                    blocks[name][in_block][is_buffered] = values[is_buffered]
        return {name: blocks[name] for name in wanted}

    def _stop(self, names: Iterable[str], start: int, length: int) -> int:
        """Return the end of a block of rows in the table.

        Raises
        ------
        RowRangeError
            If the block is outside the table.
        """
        if type(start) is not int or type(length) is not int:
            start = integer(start, "startRow")
            length = integer(length, "blockLen")
        rows = self.row_count(names)
        if start > rows:
            self.reload()
            rows = self.row_count(names)
        if not 0 <= start <= rows or length < 0:
            raise RowRangeError(
                f"{self._objects.location} has {rows} rows: a block of {length} rows from "
                f"row {start} is outside the table"
            )
        return min(start + length, rows)

    def _buffered(
        self, names: Iterable[str], start: int, stop: int
    ) -> dict[str, tuple[ColumnState, list[BufferedRows]]]:
        """Return the buffered rows of a block, by column; only of columns that have some."""
        found: dict[str, tuple[ColumnState, list[BufferedRows]]] = {}
        if self._buffer is not None and not self._buffer.is_empty:
            for name, column in self.open(names).items():
                state = column.state
                rows = self._buffer.rows(column, state, start, stop)
                if rows:
                    found[name] = state, rows
        return found

    def _read_cached(self, names: Iterable[str], start: int, stop: int) -> dict[str, Array]:
        """Read the columns whose rows are cached and confirmed as current by the store."""
        blocks: dict[str, Array] = {}
        for name in names:
            column = self._columns.get(name)
            if column is None or not (state := column.state).complete:
                continue
            if (found := cached_parts(column, state, start, stop)) is not None:
                blocks[name] = out = np.empty((stop - start, *state.row_shape), state.dtype)
                for part, chunk in found:
                    with column.damage_in_words(state, part.chunk):
                        chunk.copy(part.in_chunk, out[part.in_block])
        return blocks

    def _read(
        self,
        names: Iterable[str],
        start: int,
        stop: int,
        use: Use | None = None,
        *,
        allow_incomplete: bool = False,
    ) -> dict[str, BlockRead]:
        """Read rows of columns, again if other processes replace a column meanwhile.

        Parameters
        ----------
        use : callable, optional
            What to do with undecoded chunks; see :class:`BlockRead`.
        """
        left, done = self.open(names), dict[str, BlockRead]()
        for _ in range(READ_ATTEMPTS):
            size = 0
            for name, column in left.items():
                if not allow_incomplete and column.in_place:
                    self._check_complete(name, column)
                size += _memory(column.state, start, stop)
            if size > MEMORY and use is None:
                check_memory(size, f"a block of {stop - start} rows of {len(left)} columns")
            reads = {name: BlockRead(self[name], start, stop, use) for name in left}
            # Decoding whole chunks runs in parallel; pages need little decoding.
            pages = use is None and all(
                (stop - start) * PAGES <= one.state.chunk_rows for one in reads.values()
            )
            few = None if use is not None else self._few if pages else self._packers
            _run([task for one in reads.values() for task in one.tasks()], few, quick=pages)
            checks = [partial(self._validate, one) for one in reads.values()]
            for name, sure in zip(reads, _run(checks, self._few, quick=True), strict=True):
                if sure:
                    done[name] = reads[name]
                    del left[name]
            if not left:
                return done
        raise ConflictError(
            f"{self._objects.location}: other processes replaced column {next(iter(left))!r} "
            f"{READ_ATTEMPTS} times while it was read"
        )

    def read_text(self, name: str, start: int, length: int) -> list[Array] | None:
        """Read rows of a column as fixed-width UTF-8; see :meth:`RatZarr.readText`."""
        stop = self._stop([name], start, length)
        column = self[name]
        state = column.state
        if not _is_text(state) or self._buffered([name], start, stop):
            return None
        cached = cached_parts(column, state, start, stop) if state.complete else None
        if cached is None and self._cache.trusts and stop - start <= state.chunk_rows:
            # The next block is probably in the same chunk.
            self.read([name], start, length, allow_incomplete=False)
            cached = cached_parts(self[name], self[name].state, start, stop) or []
        if cached is None:
            found = self.read_utf8(name, start, length, to_padded) or []
        else:
            found = []
            for part, chunk in cached:
                with column.damage_in_words(state, part.chunk):
                    found.append(chunk.padded(part.in_chunk))
        pieces = [piece for part in found for piece in part or ()]
        # read() handles the rest: rows beyond the column's end, and strings that can't be padded.
        return pieces if sum(map(len, pieces)) == stop - start else None

    def read_utf8[T](
        self, name: str, start: int, length: int, convert: Convert[T]
    ) -> list[T] | None:
        """Read rows of a column of strings; see :meth:`RatZarr.readUtf8`."""
        stop = self._stop([name], start, length)
        if not _is_text(self[name].state) or self._buffered([name], start, stop):
            return None

        def decode(state: ColumnState, part: Part, data: bytes | None) -> tuple[int, T | None]:
            first, stop = part.in_chunk.start, part.in_chunk.stop
            rows = stop - first
            if data is not None:
                return rows, state.codec.decode_utf8(data, first, stop, convert)
            if not _is_text(state):
                return rows, None
            # Not np.full(), which drops zeros at the end of a string.
            (blank := np.empty(rows, state.dtype)).fill(state.fill)
            return rows, convert(pack(blank), rows, 0, rows)

        try:
            results = self._read([name], start, stop, decode)[name].found
        except ChangedError:
            return None
        found = [results[first] for first in sorted(results)]
        pieces = [piece for _, piece in found if piece is not None]
        rows = sum(rows for rows, _ in found)
        return pieces if len(pieces) == len(found) and rows == stop - start else None

    def check(self, name: str, start: int, length: int) -> None:
        """Check that the chunks of these rows exist and are not damaged."""
        stop = self._stop([name], start, length)
        self.write_back([name])
        self._read([name], start, stop, _check_chunk)

    def _check_complete(self, name: str, column: Column) -> None:
        try:
            column.check_complete()
        except ColumnNotFoundError:
            self._columns.pop(name, None)  # Its writes are still to be confirmed.
            raise

    def _validate(self, one: BlockRead) -> bool:
        try:
            return one.validate(self._table)
        except ColumnNotFoundError:
            self._columns.pop(one.column.name, None)
            raise
        except ChangedError:
            # Another process has cut off rows, and the row count is another one.
            self.reload()
            raise

    # ---- writing

    def write(self, blocks: Mapping[str, Any], start: int) -> None:
        """Write the same rows of several columns; if one block does not fit, write nothing."""
        start = start if type(start) is int else integer(start, "startRow")
        rows = self.row_count(blocks)
        try:
            self._write(blocks, start, rows)
        except RowRangeError:
            self.reload()
            now = self.row_count(blocks)
            if now <= rows:
                raise
            self._write(blocks, start, now)
        except ChangedError:
            self.reload()
            raise

    def _write(self, blocks: Mapping[str, Any], start: int, row_count: int) -> None:
        columns = self.open(blocks)
        fitted: dict[str, tuple[Column, ColumnState, Array]] = {}
        try:
            for name, column in columns.items():
                state, values = column.fit(blocks[name], start)
                if start < 0 or start + len(values) > row_count:
                    raise RowRangeError(
                        f"{column.objects.location} has {row_count} rows: a block of "
                        f"{len(values)} rows from row {start} of column {name!r} is outside the "
                        "table"
                    )
                fitted[name] = column, state, values
            unlogged = [
                partial(self._log, column, state)
                for name, (column, state, _) in fitted.items()
                if (name, state.id) not in self._logged
            ]
            _run(unlogged)
            lagging = [
                name
                for name, (_, state, values) in fitted.items()
                if start + len(values) > state.length
            ]
            if lagging:
                self._rows = self.catalog.correct_row_count(row_count)
                grow = self.catalog.grow
                grown = _run([partial(grow, *fitted[name], start) for name in lagging])
                fitted.update(zip(lagging, grown, strict=True))
            tasks: list[Callable[[], None]] = []
            for column, state, values in fitted.values():
                if not column.objects.looks_before_writing:
                    self._add_write(column, state, start + len(values))
                if self._buffer is None:
                    tasks += block_writes(column, state, values, start)
                else:
                    tasks += self._buffer.put(column, state, values, start)
            _run(tasks, self._packers)
        except (ChangedError, ColumnNotFoundError):
            self._close_visible(columns)
            raise

    def _close_visible(self, names: Iterable[str]) -> None:
        """Close visible columns; the next use opens them anew."""
        for name in names:
            column = self._columns.get(name)
            if column is not None and column.in_place:
                self._columns.pop(name, None)

    def abandon(self, error: BaseException | None) -> None:
        """Write buffered rows and close all columns, after an error."""
        try:
            self.write_back()
        except RatZarrError as other:
            # The first error is the important one; later errors are notes on it.
            if error is not None:
                error.add_note(f"{other}\n" + "\n".join(getattr(other, "__notes__", ())))
        self.forget()

    def write_back(self, names: Collection[str] | None = None) -> None:
        """Write buffered rows, by default of all columns.

        Raises
        ------
        RatZarrError
            If rows could not be written.
        """
        if self._buffer is None:
            return
        try:
            self._buffer.write_back(names)
        except (ChangedError, ColumnNotFoundError):
            self._close_visible(list(self._columns) if names is None else names)
            raise

    def _log(self, column: Column, state: ColumnState) -> None:
        # Write one event per column and instance, even if several threads write at once.
        key = column.name, state.id
        with self._lock:
            lock = self._log_locks[key]
        with lock:
            if key in self._logged:
                return
            column.log(state)
            self._logged.add(key)

    def confirm(self) -> None:
        """Check that written rows still exist, in the columns that they were meant for.

        Raises
        ------
        ChangedError, ColumnNotFoundError
            If another process has deleted a column, created it anew, or cut rows off.
        """
        with self.confirming() as written:
            _run([partial(column.confirm, state, stop) for column, state, stop in written])

    @contextmanager
    def confirming(self, names: Iterable[str] | None = None) -> Iterator[list[Write]]:
        """Write buffered rows; yield the unchecked writes of columns, by default of all.

        If the store can't be reached to check them, they stay unchecked.
        """
        wanted = None if names is None else set(names)
        self.write_back(wanted)
        with self._lock:
            chosen = [key for key in self._unconfirmed if wanted is None or key[0] in wanted]
            writes = [self._unconfirmed.pop(key) for key in chosen]
        try:
            yield writes
        except (StoreError, KeyboardInterrupt):
            for one in writes:
                self._add_write(*one)
            raise

    def _add_write(self, column: Column, state: ColumnState, stop: int) -> None:
        key = (column.name, state.id)
        with self._lock:
            known = self._unconfirmed.setdefault(key, (column, state, stop))
            if stop > known[2]:
                self._unconfirmed[key] = known[0], known[1], stop

    def _forget_writes(self, name: str) -> None:
        with self._lock:
            for key in [key for key in self._unconfirmed if key[0] == name]:
                del self._unconfirmed[key]

    def _cut_writes(self, rows: int) -> None:
        with self._lock:
            for key, (column, state, stop) in self._unconfirmed.items():
                self._unconfirmed[key] = column, state, min(stop, rows)


def _check_chunk(state: ColumnState, _part: Part, data: bytes | None) -> None:
    if data is not None:
        state.codec.check(data)


def _is_text(state: ColumnState) -> bool:
    """Return True for a column of strings with one value per row."""
    return state.dtype.kind == "T" and not state.row_shape


def _memory(state: ColumnState, start: int, stop: int) -> int:
    rows = max(0, min(stop, state.length) - start)
    return (stop - start) * state.row_bytes + rows // state.chunk_rows * TASK_BYTES


def _run[T](
    tasks: Sequence[Callable[[], T]], few: int | None = None, *, quick: bool = False
) -> list[T]:
    # Most blocks are rows of one column in one chunk. Such a task needs no thread pool.
    return [task() for task in tasks] if len(tasks) < 2 else run(tasks, few, quick=quick)
