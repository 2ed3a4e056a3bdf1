"""Reading and writing blocks of rows in a column's chunks.

A *block* is the range of rows that a caller reads or writes. A *chunk* is the range of rows stored as
one object. A block has one *part* in each chunk that it overlaps. A part that covers all rows of its
chunk is *whole* and can be written without reading the chunk.

:class:`BlockRead` reads one block. Its tasks fetch and decode the chunks; then
:meth:`BlockRead.validate` checks that the values can be trusted. Another process can cut rows off
meanwhile, or delete the column and create another of its name. So the column's document is read
again after the chunks, unless the tag of each chunk proves that it belongs to the column.

:func:`write_rows` writes rows of one chunk. A whole chunk is written without reading it first.
Otherwise the chunk is read, the rows are merged into it, and it is written back by
compare-and-swap, so that two writers of different rows in a chunk never undo each other's work.
Each chunk is written for an :class:`~ratzarr.stores.base.ChunkOwner`, which keeps it out of a column
created anew.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import ReadAt
from ratzarr.columns.chunk_cache import ReadChunk, WrittenChunk
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import Attempts
from ratzarr.errors import ConflictError, DamagedError
from ratzarr.format.names import stated_rows
from ratzarr.stores.document import MetadataDocument

__all__ = [
    "BlockRead",
    "Part",
    "Use",
    "block_writes",
    "cached_parts",
    "parts",
    "write_rows",
]

Array = NDArray[Any]
Rows = slice | NDArray[np.intp]
"""Rows of a chunk, as a slice or as ascending numbers, counted from the chunk's first row."""

TILES = 8
"""A block is large if it has at least 1/TILES of a chunk's rows."""
MAX_BLANK = 2
"""Chunks that do not exist are cached if a block has no more of them than this."""


class Part(NamedTuple):
    """The overlap of a block and a chunk."""

    chunk: int
    """Index of the chunk, from 0."""
    in_chunk: slice
    """The rows, counted from the first row of the chunk."""
    in_block: slice
    """The same rows, counted from the first row of the block."""
    whole: bool
    """True if these are all rows of the table in this chunk."""


type Use = Callable[[ColumnState, Part, bytes | None], Any]
"""Takes the state, the part of the block, and the chunk's bytes (None if it does not exist)."""


def parts(start: int, stop: int, chunk_rows: int, row_count: int) -> Iterator[Part]:
    """Split a block at chunk boundaries.

    Parameters
    ----------
    start, stop : int
        The rows of the block, of a table with ``row_count`` rows.
    chunk_rows : int
        Rows per chunk, >= 1.
    row_count : int
        Rows of the table. The last chunk may hold fewer than ``chunk_rows``.

    Yields
    ------
    Part
        In row order; nothing for an empty block.

    Examples
    --------
    >>> for part in parts(3, 8, chunk_rows=4, row_count=8):
    ...     print(part.chunk, part.in_chunk, part.in_block, part.whole)
    0 slice(3, 4, None) slice(0, 1, None) False
    1 slice(0, 4, None) slice(1, 5, None) True
    """
    row = start
    while row < stop:
        chunk = row // chunk_rows
        first = chunk * chunk_rows
        end = min(stop, first + chunk_rows)
        yield Part(
            chunk,
            slice(row - first, end - first),
            slice(row - start, end - start),
            row == first and end >= min(first + chunk_rows, row_count),
        )
        row = end


class BlockRead:
    """One read of a block of a column.

    Parameters
    ----------
    column : Column
    start, stop : int
        Rows of the table. The column may have fewer rows, if it has not followed a resize yet.
    use : callable, optional
        Instead of decoding the rows, apply this to each chunk.
    """

    def __init__(
        self,
        column: Column,
        start: int,
        stop: int,
        use: Use | None = None,
    ) -> None:
        self.column, self.start, self.stop, self._use = column, start, stop, use
        self.state = state = column.state
        """The column's state for the whole block, from the first task to the last."""
        self._existing_stop = max(start, min(stop, state.length))
        # The column may have grown since its document was read.
        self._needs_reload = self._existing_stop < stop
        self._missing: list[int] = []
        self._damaged: list[DamagedError] = []
        self._began = time.monotonic()
        self.found: dict[int, Any] = {}
        """The result of ``use`` for each chunk, by the chunk's first row within the block."""
        rows = 0 if use is not None else stop - start
        self.out: Array = np.empty((rows, *state.row_shape), state.dtype)
        """The rows; valid after the tasks have run."""
        self.out[self._existing_stop - start :].fill(state.fill)

    def tasks(self) -> list[Callable[[], None]]:
        """Return one task for each chunk, independent of each other.

        The tasks refer to this object, so this object must not refer to them. Otherwise the cycle
        would keep each block's array in memory until the garbage collector runs.
        """
        state = self.state
        return [
            partial(self._read_part, part)
            for part in parts(self.start, self._existing_stop, state.chunk_rows, state.length)
        ]

    def validate(self, table: MetadataDocument) -> bool:
        """After all tasks have run, check that the chunks belong to the column.

        Parameters
        ----------
        table : MetadataDocument
            The table's document. It is read again if the column has fewer rows than the block, to
            tell a column that is behind the table from rows that were cut off.

        Returns
        -------
        bool
            False if the column has grown or was created anew; the caller must read the block
            again.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            If the column or these rows have been deleted.
        DamagedError
            If a chunk is damaged or missing, or belongs to another column.
        """
        column, state = self.column, self.state
        if self._needs_reload or self._missing or self._damaged:
            column.document.reload()
            now, stop = column.state, self.stop
            if now is not state:
                grown = now.length > state.length and stop > state.length
                if grown or not now.is_same_column(state):
                    return False
                if now.length < min(state.length, stop):
                    raise column.cut(now.length, stop)
            if self._existing_stop < stop:
                table = table.snapshot()
                table.reload()
                rows = stated_rows(table.document)
                if rows is not None and rows < stop:
                    raise column.cut(rows, stop)
        if self._damaged:
            raise self._damaged[0]
        for chunk in self._missing:
            # Rows may have been cut off, and added again, since the column was opened.
            if chunk * state.chunk_rows < min(state.all_there, column.state.all_there):
                raise column.chunk_missing(state, chunk)
        if column.cache.trusts and self._use is None and len(self._missing) <= MAX_BLANK:
            # On S3, two requests show that a chunk does not exist.
            for chunk in self._missing:
                blank = ReadChunk(state, values=column.blank(state))
                column.cache.keep(column.chunk_key(state, chunk), blank, self._began)
        return True

    def _read_part(self, part: Part) -> None:
        """Read one chunk, and record any problem with it."""
        column, state = self.column, self.state
        try:
            if self._use is None:
                self._read_rows(part, column.chunk_key(state, part.chunk))
                return
            found = column.objects.read(
                column.chunk_key(state, part.chunk), state.codec.packed_limit
            )
            if found is None:
                self._missing.append(part.chunk)
            elif not self._is_ours(part, found.owner_tag):
                return
            data = None if found is None else found.data
            with column.damage_in_words(state, part.chunk):
                self.found[part.in_block.start] = self._use(state, part, data)
        except DamagedError as error:
            self._damaged.append(error)

    def _is_ours(self, part: Part, owner_tag: str) -> bool:
        """Return False if a chunk's tag shows that it belongs to another column."""
        if not owner_tag:
            self._needs_reload = True
            return True
        stop = part.chunk * self.state.chunk_rows + part.in_chunk.stop
        if not self.state.covers(owner_tag, stop):
            self._needs_reload = True
        if self.state.is_foreign(owner_tag):
            self._damaged.append(self.column.foreign(self.state, part.chunk))
            return False
        return True

    def _read_rows(self, part: Part, key: str) -> None:
        """Read the rows of one chunk: from the cache, in part, or as a whole."""
        column, state, cache, rows = self.column, self.state, self.column.cache, part.in_chunk
        out = self.out[part.in_block]
        asked = time.monotonic()
        kept = cache.find(key, state.kind)
        known = ""
        if kept is not None and kept.has(rows):
            if cache.is_trusted(key):
                with column.damage_in_words(state, part.chunk):
                    kept.copy(rows, out)
                return
            known = kept.state
        if kept is not None and not kept.state:
            # Nothing can tell whether it is current.
            kept = None
        # Whole chunks are unlikely to be read again, unless the caller wants to avoid requests.
        one_chunk = self.stop - self.start == rows.stop - rows.start
        keeps = not part.whole or (cache.trusts and one_chunk)
        goes_on = keeps and _goes_on(column, state, part)

        def of_state(now: str) -> ReadChunk:
            nonlocal kept
            if kept is None or kept.state != now:
                kept = ReadChunk(state, now)
            return kept

        def take(now: str, length: int, read: ReadAt) -> bool:
            return of_state(now).decode_part(rows, length, read)

        found = column.objects.read(
            key,
            state.codec.packed_limit,
            state=known,
            take=take if keeps and not goes_on else None,
        )
        # Use fill(): an assignment would convert a bytes object to a dtype that drops trailing
        # zeros.
        if found is None:
            out.fill(state.fill)
            self._missing.append(part.chunk)
            return
        if not self._is_ours(part, found.owner_tag):
            return
        with column.damage_in_words(state, part.chunk):
            if found.is_read and not keeps:
                if len(out) == state.chunk_rows:
                    state.codec.decode_into(found.data, out)
                else:
                    out[:] = state.codec.decode(found.data)[rows]
                return
            opened = of_state(found.state)
            if found.is_read:
                # Without the whole chunk, its other rows would take another request.
                waits = cache.trusts and column.objects.threads is None
                opened.decode(rows, found.data, whole=waits or goes_on)
            opened.copy(rows, out)
        # Without a state, later changes of the chunk would go unnoticed. A caller that trusts the
        # cache accepts that.
        if found.state or cache.trusts:
            cache.keep(key, opened, asked)


def cached_parts(
    column: Column, state: ColumnState, start: int, stop: int
) -> list[tuple[Part, ReadChunk]] | None:
    """Return the chunks of a block from the cache, in row order.

    Return None if a row is not cached, or if it is not trusted and only a request could tell
    whether it is current.
    """
    cache = column.cache
    if stop > state.length:
        return None
    found: list[tuple[Part, ReadChunk]] = []
    asked, doubted = time.monotonic(), []
    for part in parts(start, stop, state.chunk_rows, state.length):
        key = column.chunk_key(state, part.chunk)
        kept = cache.find(key, state.kind)
        if kept is None or not kept.has(part.in_chunk):
            return None
        if not cache.is_trusted(key):
            if not column.objects.is_still(key, kept.state):
                return None
            doubted.append(key)
        found.append((part, kept))
    # Check the column after the chunks, in the order of a read from the store.
    if doubted or not found:
        if not column.document.is_still() or column.state is not state:
            return None
        for key in doubted:
            cache.confirm(key, asked)
    return found


def _goes_on(column: Column, state: ColumnState, part: Part) -> bool:
    """Return True if the rest of a chunk is likely to be read next, piece by piece.

    On fast stores, chunks a little before it that have been read through are dropped: this chunk
    reuses their memory, which is faster than new memory. On slow stores, fetching them again would
    take longer.
    """
    rows, chunk_rows = part.in_chunk, state.chunk_rows

    def cached(chunk: int) -> ReadChunk | None:
        key = column.chunk_key(state, max(0, chunk))
        return column.cache.find(key, state.kind) if chunk >= 0 else None

    if column.objects.threads is not None and not column.cache.trusts:
        for chunk in (part.chunk - 3, part.chunk - 2):
            found = cached(chunk)
            if found is not None and found.is_read_through(chunk_rows):
                column.cache.drop(column.chunk_key(state, chunk))
    before = cached(part.chunk - 1)
    if rows.start == 0 and before is not None and before.has(slice(chunk_rows - 1, chunk_rows)):
        # The caller reads row after row.
        return True
    # The caller may read tile by tile: large blocks in any order, but near each other.
    is_large = (rows.stop - rows.start) * TILES >= chunk_rows
    return is_large and (before is not None or cached(part.chunk + 1) is not None)


# ---- writing


def block_writes(
    column: Column, state: ColumnState, values: Array, start: int
) -> list[Callable[[], None]]:
    """Return independent tasks that write a block of existing rows, as :meth:`Column.fit` returned it."""
    # Strings are extracted from an array some thousands at a time, with the interpreter's lock
    # held. Two threads keep the processors busy. More threads would wait for that lock in turn,
    # which takes half as long again as the work.
    turns = threading.Semaphore(2) if values.dtype.kind == "T" else None
    return [
        partial(write_rows, column, state, part.chunk, part.in_chunk, values[part.in_block], turns)
        for part in parts(start, start + len(values), state.chunk_rows, state.length)
    ]


def write_rows(
    column: Column,
    state: ColumnState,
    chunk: int,
    rows: Rows,
    values: Array,
    turns: AbstractContextManager[Any] | None = None,
) -> None:
    """Write rows of one chunk; ``turns`` is as for :meth:`ChunkCodec.encode`."""
    key, cache, written = column.chunk_key(state, chunk), column.cache, None
    began = cache.begin_write(key)
    try:
        known = cache.take_written(key, state.kind)
        if len(values) < state.chunk_rows:
            merged = _merge(column, state, chunk, rows, values, known)
            if cache.trusts:
                written = ReadChunk(state, values=merged)
        else:
            data = state.codec.encode(values, turns)
            stop = (chunk + 1) * state.chunk_rows
            column.objects.put(key, data, column.owner(state, stop))
            column.count(data)
    finally:
        cache.end_write(key, began, written)


def _merge(
    column: Column,
    state: ColumnState,
    chunk: int,
    rows: Rows,
    values: Array,
    known: WrittenChunk | None,
) -> Array:
    """Merge rows into a chunk by compare-and-swap; return all values of the chunk.

    ``known`` is the chunk as this instance last wrote it. If that is still current, it is not read.
    """
    objects, key, first = column.objects, column.chunk_key(state, chunk), chunk * state.chunk_rows
    stop = first + (rows.stop if isinstance(rows, slice) else int(rows[-1]) + 1)
    owner = column.owner(state, stop)
    # The chunk may not exist yet. A block that covers the last, partial chunk must not replace it
    # unread, because another process may have added rows to that chunk.
    may_create = len(values) >= min(state.chunk_rows, state.length - first)
    for _ in (attempts := Attempts(objects.patience)):
        if known is not None and not (
            objects.looks_before_writing or state.covers(known.owner_tag, stop)
        ):
            known = None
        if known is None and not may_create:
            known = _stored(column, state, chunk, stop)
        whole = column.blank(state) if known is None else known.values
        whole[rows] = values
        data = state.codec.encode(whole)
        if known is None:
            version = objects.create(key, data, owner)
        else:
            version = objects.replace(key, data, known.version, owner)
        if version is not None:
            column.count(data)
            count = len(values) + (0 if known is None else known.count)
            if count < state.chunk_rows:
                # More rows are likely to follow.
                merged = WrittenChunk(state.kind, version, owner.owner_tag, whole, count)
                column.cache.keep_written(key, merged)
            return whole
        known, may_create = None, False
    raise ConflictError(
        f"{objects.location}/{key}: other writers changed this chunk of column {column.name!r} "
        f"{attempts} while this process tried to write rows of it"
    )


def _stored(column: Column, state: ColumnState, chunk: int, stop: int) -> WrittenChunk | None:
    """Read a chunk in order to write rows up to ``stop``; return None if it does not exist."""
    objects = column.objects
    try:
        found = objects.read(column.chunk_key(state, chunk), state.codec.packed_limit)
        if found is not None and state.is_foreign(found.owner_tag):
            raise column.foreign(state, chunk)
        if found is not None:
            with column.damage_in_words(state, chunk):
                values = state.codec.decode(found.data).copy()
        elif chunk * state.chunk_rows < state.all_there:
            raise column.chunk_missing(state, chunk)
    except DamagedError:
        # Rows of a column that was deleted or cut meanwhile are no damage.
        column.confirm(state, stop)
        raise
    if found is None:
        return None
    if not objects.looks_before_writing and not state.covers(found.owner_tag, stop):
        column.confirm(state, stop)
    return WrittenChunk(state.kind, found.version, found.owner_tag, values, 0)
