"""The open columns of an instance."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from ratzarr.columns.catalog import UNREADABLE, Catalog
from ratzarr.columns.chunk_cache import ChunkShelf
from ratzarr.columns.chunk_io import (
    BlockLook,
    BlockRead,
    block_writes,
    cached_parts,
    read_cached,
)
from ratzarr.columns.column import Column
from ratzarr.columns.decoders import padded_rows
from ratzarr.columns.metadata import ColumnState
from ratzarr.columns.write_buffer import WriteBuffer
from ratzarr.concurrency import PROCESSORS, run
from ratzarr.errors import (
    ChangedError,
    ColumnNotFoundError,
    ConflictError,
    DamagedError,
    RatZarrError,
    RowRangeError,
    ShapeError,
    StoreError,
    UnequalValueError,
    UnsupportedDtypeError,
)
from ratzarr.format.blocks import Block, Part
from ratzarr.format.history import event
from ratzarr.format.limits import TASK_BYTES, check_memory
from ratzarr.format.names import MODIFICATION_ATTR, Document, check_name

__all__ = ["OpenColumns"]

Array = NDArray[Any]

PAGES = 16
"""A block is a page if it has at most 1/PAGES of a chunk's rows."""
LOOKS = 5
"""The number of attempts to read a column that other processes keep replacing."""


class OpenColumns:
    """The columns of an instance by name, each opened on first use. Thread-safe.

    Parameters
    ----------
    catalog : Catalog
        The table's columns.
    shelf : ChunkShelf
        The cache of chunks.
    buffer : WriteBuffer, optional
        Collects rows until their chunks are full.
    """

    def __init__(
        self, catalog: Catalog, shelf: ChunkShelf, buffer: WriteBuffer | None = None
    ) -> None:
        self._catalog, self._shelf, self._buffer = catalog, shelf, buffer
        self._columns: dict[str, Column] = {}
        # Columns whose log has an event of this instance, by name and identity: a column created
        # anew has a new log.
        self._logged: set[tuple[str, str]] = set()
        # One lock per column, so that the logs of several columns are written in parallel.
        self._log_locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._locks_lock = threading.Lock()
        # Unchecked writes: for each column, its state at the first write, and the end of the
        # written rows.
        self._unconfirmed: dict[tuple[str, str], tuple[Column, ColumnState, int]] = {}

    def __getitem__(self, name: str) -> Column:
        column = self._columns.get(check_name(name))
        if column is None:
            column = self._use(self._catalog.find(name))
        return column

    def known(self) -> dict[str, Column]:
        """Return the visible open columns, as last read."""
        return {
            name: column.snapshot()
            for name, column in self._columns.copy().items()
            if column.in_place
        }

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
        column.shelf = self._shelf
        self._columns[column.name] = column
        return column

    def get(self, name: str) -> Column | None:
        """Return the open column of this name, or None, without any request."""
        return self._columns.get(name)

    def samples(self) -> list[Column]:
        """Return a visible open column, if any, as a list."""
        found = (column for column in self._columns.copy().values() if column.in_place)
        return list(islice(found, 1))

    def forget(self, name: str | None = None) -> None:
        """Close a column, by default all; the next use opens it anew."""
        if name is None:
            self._columns.clear()
            self._shelf.clear()
        else:
            self._columns.pop(name, None)
            self._forget_writes(name)

    def _forget_writes(self, name: str) -> None:
        with self._locks_lock:
            self._unconfirmed = {
                known: written for known, written in self._unconfirmed.items() if known[0] != name
            }

    def look_again(self) -> None:
        """Close all visible columns; the next use opens them anew, and asks for their chunks."""
        self._shelf.distrust()
        # Iterate over a copy, because another thread may be opening a column.
        self._columns = {
            name: column for name, column in self._columns.copy().items() if not column.in_place
        }

    def open(self, names: Iterable[str]) -> dict[str, Column]:
        """Return columns by name; open missing ones in parallel."""
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._columns]
        if unknown:
            opening = [partial(self.__getitem__, name) for name in unknown]
            run(opening, self._catalog.threads, quick=True)
        return {name: self._columns.get(name) or self[name] for name in wanted}

    def unreadable(self, names: Iterable[str]) -> dict[str, RatZarrError]:
        """Open columns in parallel; return the unreadable ones with their errors."""
        found: dict[str, RatZarrError] = {}

        def attempt(name: str) -> None:
            try:
                self[name]
            except UNREADABLE as error:
                found[name] = error

        wanted = [partial(attempt, name) for name in names if name not in self._columns]
        run(wanted, self._catalog.threads, quick=True)
        return found

    def read(
        self, names: Iterable[str], block: Block, *, allow_incomplete: bool
    ) -> dict[str, Array]:
        """Read the same rows of several columns. The rows must be in the table."""
        wanted = list(dict.fromkeys(names))
        if self._buffer is None or self._buffer.is_empty:
            return self._read_stored(wanted, block, allow_incomplete)
        # Taken before the store is read: rows that are written in between are in one of both.
        buffered = {
            name: (column.state, self._buffer.rows(column, column.state, block))
            for name, column in self.open(wanted).items()
        }
        blocks = self._read_stored(wanted, block, allow_incomplete)
        for name, (state, rows) in buffered.items():
            # Rows for a column that another process has replaced are discarded when they are due.
            if rows and self[name].state.is_same_column(state):
                for one in rows:
                    one.copy_to(blocks[name])
        return blocks

    def _read_stored(
        self, wanted: list[str], block: Block, allow_incomplete: bool
    ) -> dict[str, Array]:
        blocks = self._read_cached(wanted, block)
        if len(blocks) == len(wanted):
            return blocks
        left = self.open(name for name in wanted if name not in blocks)
        for _ in range(LOOKS):
            for name, column in left.items():
                if not allow_incomplete and column.in_place:
                    self._check_complete(name, column)
            check_memory(
                sum(_memory(column.state, block) for column in left.values()),
                f"a block of {block.length} rows of {len(left)} columns",
            )
            blocks |= self._read(left, block)
            if not left:
                return {name: blocks[name] for name in wanted}
        raise self._replaced_repeatedly(next(iter(left)))

    @property
    def _packers(self) -> int | None:
        """The number of threads that are enough to code whole chunks; None for one per request."""
        # On stores without waiting, each further thread only needs more memory.
        return None if self._catalog.threads is None else max(2, PROCESSORS)

    def _read_cached(self, names: Iterable[str], block: Block) -> dict[str, Array]:
        """Read the columns whose rows are cached and confirmed as current by the store."""
        blocks: dict[str, Array] = {}
        for name in names:
            column = self._columns.get(name)
            if column is not None and column.state.complete:
                rows = read_cached(column, block)
                if rows is not None:
                    blocks[name] = rows
        return blocks

    def _read(self, left: dict[str, Column], block: Block) -> dict[str, Array]:
        """Read rows of columns; remove those from ``left`` whose values can be trusted."""
        reads = {name: BlockRead(self[name], block) for name in left}
        few = self._catalog.threads
        # Decoding whole chunks runs in parallel; pages need little decoding.
        pages = all(block.length * PAGES <= one.state.chunk_rows for one in reads.values())
        run(
            [task for one in reads.values() for task in one.tasks()],
            few if pages else self._packers,
            short=pages,
        )
        settled = run([partial(self._settle, one) for one in reads.values()], few, quick=True)
        for name, sure in zip(reads, settled, strict=True):
            if sure:
                del left[name]
        return {name: one.out for name, one in reads.items()}

    def read_text(self, name: str, block: Block) -> list[Array] | None:
        """Read existing rows of a string column as fixed-width bytes; see ``RatZarr.readText``."""
        column = self[name]
        state = column.state
        if state.dtype.kind != "T" or state.row_shape:
            return None
        if self._buffer is not None and self._buffer.rows(column, state, block):
            return None
        found = cached_parts(column, block) if state.complete else None
        if found is None and self._shelf.trusts and block.length <= state.chunk_rows:
            # The next block is probably in the same chunk.
            self.read([name], block, allow_incomplete=False)
            found = cached_parts(self[name], block)
            if found is None:
                return None
        if found is None:
            looked = self.look(name, block, padded_rows).found
            pieces = [looked[first] for first in sorted(looked)]
        else:
            pieces = [chunk.padded(part.in_chunk) for part, chunk in found]
        return [one for of_chunk in pieces for one in of_chunk or ()]

    def look(
        self, name: str, block: Block, use: Callable[[ColumnState, Part, bytes | None], Any]
    ) -> BlockLook:
        """Apply a function to the undecoded chunks of existing rows; see :class:`BlockLook`."""
        self.write_back([name], block)
        for _ in range(LOOKS):
            column = self[name]
            if column.in_place:
                self._check_complete(name, column)
            look = BlockLook(column, block, use)
            run(look.tasks())
            if self._settle(look):
                return look
        raise self._replaced_repeatedly(name)

    def _replaced_repeatedly(self, name: str) -> ConflictError:
        return ConflictError(
            f"{self[name].objects.location}: other processes replaced column {name!r} "
            f"{LOOKS} times while it was read"
        )

    def _check_complete(self, name: str, column: Column) -> None:
        try:
            column.check_complete()
        except ColumnNotFoundError:
            self.forget(name)
            raise

    def _settle(self, one: BlockRead | BlockLook) -> bool:
        try:
            return one.settle()
        except ColumnNotFoundError:
            self.forget(one.column.name)
            raise

    def write(self, blocks: Mapping[str, Any], start: int, row_count: int) -> None:
        """Write the same rows of several columns; if one block does not fit, write nothing."""
        columns = self.open(blocks)
        fitted: dict[str, tuple[Column, ColumnState, Array]] = {}
        try:
            for name, column in columns.items():
                state, values = _fit(column, blocks[name], start)
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
            if unlogged:
                run(unlogged)
            lagging = [
                name
                for name, (_, state, values) in fitted.items()
                if start + len(values) > state.length
            ]
            if lagging:
                grown = run([partial(self._grown, *fitted[name], start) for name in lagging])
                fitted.update(zip(lagging, grown, strict=True))
            tasks: list[Callable[[], None]] = []
            for column, state, values in fitted.values():
                self._remember(column, state, start + len(values))
                if self._buffer is None:
                    tasks += block_writes(column, state, values, start)
                else:
                    tasks += self._buffer.put(column, state, values, start)
            if tasks:
                run(tasks, self._packers)
        except (ChangedError, ColumnNotFoundError):
            self._close_visible(columns)
            raise

    def give_up(self, name: str) -> None:
        """Drop a column that this instance has deleted, with its buffered rows."""
        self._shelf.distrust()
        self.forget(name)
        if self._buffer is not None:
            self._buffer.drop(name)

    def _close_visible(self, names: Iterable[str]) -> None:
        """Close visible columns; the next use opens them anew."""
        for name in names:
            column = self._columns.get(name)
            if column is not None and column.in_place:
                self._columns.pop(name, None)

    def write_back(self, names: Collection[str] | None = None, block: Block | None = None) -> None:
        """Write buffered rows, optionally of some columns or one block (:class:`WriteBuffer`).

        Raises
        ------
        RatZarrError
            If rows could not be written.
        """
        if self._buffer is None:
            return
        try:
            self._buffer.write_back(names, block)
        except (ChangedError, ColumnNotFoundError):
            self._close_visible(list(self._columns) if names is None else names)
            raise

    def _grown(
        self, column: Column, state: ColumnState, values: Array, start: int
    ) -> tuple[Column, ColumnState, Array]:
        """Let a column grow to the table's row count before rows are written."""
        self._catalog.rows.correct()
        self._catalog.resizing.follow(column)
        if not column.state.is_same_column(state):
            raise column.replaced()
        if start + len(values) > column.state.length:
            # The table has become shorter, and these rows are outside it.
            raise column.cut(column.state.length, start + len(values))
        return column, column.state, values

    def _log(self, column: Column, state: ColumnState) -> None:
        # Write one event per column and instance, even if several threads write at once.
        key = column.name, state.id
        with self._locks_lock:
            lock = self._log_locks[key]
        with lock:
            if key in self._logged:
                return
            entry = event()

            def change(document: Document) -> None:
                # This document was just read, so the column's state describes it.
                if not column.state.is_same_column(state):
                    raise column.replaced()
                log = document["attributes"].setdefault(MODIFICATION_ATTR, [])
                if not isinstance(log, list):
                    raise DamagedError(
                        f"{column.document.place} is damaged: its {MODIFICATION_ATTR} is "
                        f"{log!r:.100}, expected a list of events"
                    )
                log.append(entry)

            column.document.update(change, column.missing)
            self._logged.add(key)

    def _remember(self, column: Column, state: ColumnState, stop: int) -> None:
        if not column.objects.looks_before_writing:
            key = (column.name, state.id)
            with self._locks_lock:
                known = self._unconfirmed.setdefault(key, (column, state, stop))
                if stop > known[2]:
                    self._unconfirmed[key] = known[0], known[1], stop

    def confirm(self, names: Iterable[str] | None = None) -> None:
        """Check that written rows still exist, in the columns that they were meant for.

        Raises
        ------
        ChangedError, ColumnNotFoundError
            If another process has deleted a column, created it anew, or cut rows off.
        """
        with self.confirming(names) as written:
            run([partial(column.confirm, state, stop) for column, state, stop in written])

    @contextmanager
    def confirming(
        self, names: Iterable[str] | None = None
    ) -> Iterator[list[tuple[Column, ColumnState, int]]]:
        """Yield the unchecked writes: for each column its state, and the end of the written rows.

        If the store can't be reached, the writes stay unchecked.
        """
        wanted = None if names is None else set(names)
        self.write_back(wanted)
        with self._locks_lock:
            chosen = [key for key in self._unconfirmed if wanted is None or key[0] in wanted]
            written = [self._unconfirmed.pop(key) for key in chosen]
        try:
            yield written
        except (StoreError, KeyboardInterrupt):
            for one in written:
                self._remember(*one)
            raise

    def cut(self, rows: int) -> None:
        """Record that this instance has set the row count."""
        self._shelf.distrust()
        with self._locks_lock:
            self._unconfirmed = {
                key: (column, state, min(stop, rows))
                for key, (column, state, stop) in self._unconfirmed.items()
            }


def _fit(column: Column, block: Any, start: int) -> tuple[ColumnState, Array]:
    """Validate a block as :meth:`Column.fit` does, against the current column."""
    state = column.state
    try:
        return column.fit(block, start)
    except (ShapeError, UnequalValueError, UnsupportedDtypeError):
        # If the column was created anew, raise the error that says so; an error about the old
        # dtype would mislead.
        column.confirm(state, 0)
        raise


def _memory(state: ColumnState, block: Block) -> int:
    rows = max(0, min(block.stop, state.length) - block.start)
    return block.length * state.row_bytes + rows // state.chunk_rows * TASK_BYTES
