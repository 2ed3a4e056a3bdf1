"""The columns that an instance has opened."""

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
from ratzarr.columns.chunk_io import BlockLook, BlockRead, block_writes, read_cached
from ratzarr.columns.column import Column
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
from ratzarr.settings import cache_bytes

__all__ = ["OpenColumns"]

Array = NDArray[Any]

PAGES = 16
"""A block of no more than such a part of a chunk is a page."""
LOOKS = 5
"""A column that has become another each of so many times can't be read as one."""


class OpenColumns:
    """Columns by name, each opened when it is first asked for. Thread-safe.

    Parameters
    ----------
    catalog : Catalog
        The table's columns.
    buffer : WriteBuffer, optional
        Where rows of chunks wait until these are full.
    """

    def __init__(self, catalog: Catalog, buffer: WriteBuffer | None = None) -> None:
        self._catalog, self._buffer = catalog, buffer
        self._columns: dict[str, Column] = {}
        self._shelf = ChunkShelf(cache_bytes())
        # By name and identity: a column created anew has a log of its own.
        self._logged: set[tuple[str, str]] = set()
        # One for each column: those of many columns are written at the same time.
        self._log_locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._locks_lock = threading.Lock()
        # What was written where nobody looked first: which column it was, and up to which row.
        self._unconfirmed: dict[tuple[str, str], tuple[Column, ColumnState, int]] = {}

    def __getitem__(self, name: str) -> Column:
        column = self._columns.get(check_name(name))
        if column is None:
            column = self._use(self._catalog.find(name))
        return column

    def known(self) -> dict[str, Column]:
        """Return the columns in use, as last seen, but those being built here."""
        return {
            name: column.snapshot()
            for name, column in self._columns.copy().items()
            if column.in_place
        }

    def add(self, column: Column) -> None:
        """Take in a column that was just opened."""
        known = self._columns.get(column.name)
        # One that is being built to replace another is what this instance means by the name,
        # where it is the one that builds it.
        if column.in_place:
            wanted = known is None or known.in_place
        else:
            wanted = known is not None and known.prefix == column.prefix
        if wanted:
            self._use(column)

    def add_new(self, column: Column, *, logged: bool = False) -> None:
        """Take in a column that was just created or resumed, with an event in its log or not."""
        self._forget_writes(column.name)
        self._use(column)
        if logged:
            self._logged.add((column.name, column.state.id))

    def _use(self, column: Column) -> Column:
        column.shelf = self._shelf
        self._columns[column.name] = column
        return column

    def get(self, name: str) -> Column | None:
        """Return the column in use under this name, or None; nothing is asked of the store."""
        return self._columns.get(name)

    def samples(self) -> list[Column]:
        """Return a column in use that everybody sees, if there is one."""
        found = (column for column in self._columns.copy().values() if column.in_place)
        return list(islice(found, 1))

    def forget(self, name: str | None = None) -> None:
        """Open a column (all of them, by default) anew when it is next asked for."""
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
        """Open all columns anew when they are next asked for, but those being built here."""
        # A copy: another thread may just be opening one.
        self._columns = {
            name: column for name, column in self._columns.copy().items() if not column.in_place
        }

    def open(self, names: Iterable[str]) -> dict[str, Column]:
        """Return columns by name, those not yet open opened in parallel."""
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._columns]
        if unknown:
            opening = [partial(self.__getitem__, name) for name in unknown]
            run(opening, self._catalog.threads, quick=True)
        return {name: self[name] for name in wanted}

    def unreadable(self, names: Iterable[str]) -> dict[str, RatZarrError]:
        """Open columns in parallel; return those that can't be read, with the reason."""
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
        """Read the same rows, which the table has, of several columns."""
        wanted = list(dict.fromkeys(names))
        blocks = self._read_kept(wanted, block)
        if len(blocks) == len(wanted):
            return blocks
        left = self.open(name for name in wanted if name not in blocks)
        self.write_back(left, block)
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
        raise self._never_the_same(next(iter(left)))

    @property
    def _packers(self) -> int | None:
        """How many threads are enough to pack and unpack whole chunks; None: as for requests."""
        # Where nothing is waited for, each further one takes memory that is not in use already.
        return None if self._catalog.threads is None else max(2, PROCESSORS)

    def _read_kept(self, names: Iterable[str], block: Block) -> dict[str, Array]:
        """Read what is at hand, and sure to be what is in the store, with no more ado."""
        blocks: dict[str, Array] = {}
        if self._buffer is not None:
            return blocks
        for name in names:
            column = self._columns.get(name)
            if column is not None and column.state.complete:
                rows = read_cached(column, block)
                if rows is not None:
                    blocks[name] = rows
        return blocks

    def _read(self, left: dict[str, Column], block: Block) -> dict[str, Array]:
        """Read rows of columns, and take those out of what is left that are sure."""
        reads = {name: BlockRead(self[name], block) for name in left}
        few = self._catalog.threads
        # Whole chunks are unpacked, which threads do beside each other; of pages little is.
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

    def look(
        self, name: str, block: Block, use: Callable[[ColumnState, Part, bytes | None], Any]
    ) -> BlockLook:
        """Have a look at the chunks of rows, which the table has: :class:`BlockLook`."""
        self.write_back([name], block)
        for _ in range(LOOKS):
            column = self[name]
            if column.in_place:
                self._check_complete(name, column)
            look = BlockLook(column, block, use)
            run(look.tasks())
            if self._settle(look):
                return look
        raise self._never_the_same(name)

    def _never_the_same(self, name: str) -> ConflictError:
        return ConflictError(
            f"{self[name].objects.location}: column {name!r} has become another while it was "
            f"read, {LOOKS} times"
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
        """Write the same rows of several columns: all of them fit, or none is written."""
        columns = self.open(blocks)
        fitted: dict[str, tuple[Column, ColumnState, Array]] = {}
        try:
            for name, column in columns.items():
                state, values = _fit(column, blocks[name], start)
                if start < 0 or start + len(values) > row_count:
                    raise RowRangeError(
                        f"{column.objects.location} has {row_count} rows: a block of "
                        f"{len(values)} from row {start} of column {name!r} does not fit"
                    )
                fitted[name] = column, state, values
            unlogged = [
                partial(self._log, column, state)
                for name, (column, state, _) in fitted.items()
                if (name, state.id) not in self._logged
            ]
            run(unlogged)
            lagging = [
                name
                for name, (_, state, values) in fitted.items()
                if start + len(values) > state.length
            ]
            grown = run([partial(self._grown, *fitted[name], start) for name in lagging])
            fitted.update(zip(lagging, grown, strict=True))
            tasks: list[Callable[[], None]] = []
            for column, state, values in fitted.values():
                self._remember(column, state, start + len(values))
                if self._buffer is None:
                    tasks += block_writes(column, state, values, start)
                else:
                    tasks += self._buffer.put(column, state, values, start)
            run(tasks, self._packers)
        except (ChangedError, ColumnNotFoundError):
            self._doubt(columns)
            raise

    def give_up(self, name: str) -> None:
        """Forget a column that this instance has deleted, and what waits to be written to it."""
        self.forget(name)
        if self._buffer is not None:
            self._buffer.drop(name)

    def _doubt(self, names: Iterable[str]) -> None:
        """Open columns anew when they are next asked for, but those being built here."""
        for name in names:
            column = self._columns.get(name)
            if column is not None and column.in_place:
                self._columns.pop(name, None)

    def write_back(self, names: Collection[str] | None = None, block: Block | None = None) -> None:
        """Write what waits in the buffer, of some columns or rows; see :class:`WriteBuffer`.

        Raises
        ------
        RatZarrError
            Where something could not be written.
        """
        if self._buffer is None:
            return
        try:
            self._buffer.write_back(names, block)
        except (ChangedError, ColumnNotFoundError):
            self._doubt(list(self._columns) if names is None else names)
            raise

    def _grown(
        self, column: Column, state: ColumnState, values: Array, start: int
    ) -> tuple[Column, ColumnState, Array]:
        """Let a column that lags behind the table grow first."""
        self._catalog.rows.correct()
        self._catalog.resizing.follow(column)
        if not column.state.is_same_column(state):
            raise column.replaced()
        if start + len(values) > column.state.length:
            # It is the table that has become shorter: these rows would be no rows of it.
            raise column.cut(column.state.length, start + len(values))
        return column, column.state, values

    def _log(self, column: Column, state: ColumnState) -> None:
        # One event per column and instance, also where several threads write at once.
        key = column.name, state.id
        with self._locks_lock:
            lock = self._log_locks[key]
        with lock:
            if key in self._logged:
                return
            entry = event()

            def change(document: Document) -> None:
                # The document that is to be changed is the one last seen: understood already.
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
        """See that what was written is there, went to the columns it was meant for, and lasts.

        Raises
        ------
        ChangedError, ColumnNotFoundError
            Where another process has deleted a column, created it anew, or cut rows off.
        """
        with self.confirming(names) as written:
            run([partial(column.confirm, state, stop) for column, state, stop in written])

    @contextmanager
    def confirming(
        self, names: Iterable[str] | None = None
    ) -> Iterator[list[tuple[Column, ColumnState, int]]]:
        """Hand over what is to be confirmed: of each column its state, and up to which row.

        Where the store can't be reached, it stays to be confirmed.
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
        """Know that this instance itself has set the row count."""
        with self._locks_lock:
            self._unconfirmed = {
                key: (column, state, min(stop, rows))
                for key, (column, state, stop) in self._unconfirmed.items()
            }


def _fit(column: Column, block: Any, start: int) -> tuple[ColumnState, Array]:
    """Return a block as :meth:`Column.fit` does, refused only for what the column is now."""
    state = column.state
    try:
        return column.fit(block, start)
    except (ShapeError, UnequalValueError, UnsupportedDtypeError):
        # It may fit another column, created anew since: a word on dtypes would mislead then.
        column.confirm(state, 0)
        raise


def _memory(state: ColumnState, block: Block) -> int:
    rows = max(0, min(block.stop, state.length) - block.start)
    return block.length * state.row_bytes + rows // state.chunk_rows * TASK_BYTES
