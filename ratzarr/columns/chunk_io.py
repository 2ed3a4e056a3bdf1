"""Reading and writing blocks of rows in a column's chunks.

A *block* is the range of rows that a caller reads or writes. A *chunk* is the range of rows stored as
one object. A block has one *part* in each chunk that it overlaps. A part that covers all rows of its
chunk is *whole* and can be written without reading the chunk.

:class:`BlockRead` reads one block. Its tasks fetch and decode the chunks; then
:meth:`BlockRead.settle` checks that the values can be trusted. Another process can cut rows off
meanwhile, or delete the column and create another of its name. So the column's document is read
again after the chunks, unless the mark of each chunk proves that it belongs to the column.

:func:`write_rows` writes rows of one chunk. A whole chunk is written without reading it first.
Otherwise the chunk is read, the rows are merged into it, and it is written back by
compare-and-swap, so that two writers of different rows in a chunk never undo each other's work.
Each chunk is written for an :class:`~ratzarr.stores.base.Owner`, which keeps it out of a column
created anew.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, override

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import ReadAt
from ratzarr.codecs.strings import Convert, pack
from ratzarr.columns.chunk_cache import Kept, Merged, OpenChunk
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import Attempts, lent, run
from ratzarr.errors import ConflictError, DamagedError
from ratzarr.format.blocks import Runs
from ratzarr.stores.base import Owner, Seen

__all__ = [
    "BlockLook",
    "BlockRead",
    "Part",
    "block_writes",
    "cached_parts",
    "check_chunk",
    "padded_rows",
    "parts",
    "read_cached",
    "utf8_rows",
    "write_rows",
]

Array = NDArray[Any]
Rows = slice | NDArray[np.intp]
"""Rows of a chunk, as a slice or as ascending numbers, counted from the chunk's first row."""

TILES = 8
"""A block is large if it has at least 1/TILES of a chunk's rows."""
LAST_ROW = -1
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


class _BlockChunks(ABC):
    """A block of rows, and the chunks that contain it.

    Parameters
    ----------
    column : Column
    start, stop : int
        Rows of the table. The column may have fewer rows, if it has not followed a resize yet.
    """

    def __init__(self, column: Column, start: int, stop: int) -> None:
        self.column, self.start, self.stop = column, start, stop
        self.state = column.state
        """The column's state for the whole block, from the first task to the last."""
        self._existing_stop = max(start, min(stop, self.state.length))
        # The column may have grown since its document was read.
        self._needs_reload = self._existing_stop < stop
        self._missing: list[int] = []
        self._foreign: list[int] = []
        self._damaged: list[DamagedError] = []

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

    def settle(self) -> bool:
        """After all tasks have run, check that the chunks belong to the column.

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
        if self._needs_reload or self._missing or self._foreign or self._damaged:
            if not column.document.load():
                raise column.missing()
            now, stop = column.state, self.stop
            if now is not state:
                grown = now.length > state.length and stop > state.length
                if grown or not now.is_same_column(state):
                    return False
                if now.length < min(state.length, stop):
                    raise column.cut(now.length, stop)
        if self._damaged:
            raise self._damaged[0]
        for chunk in self._foreign:
            raise column.foreign(state, chunk)
        for chunk in self._missing:
            if chunk * state.chunk_rows < state.all_there:
                raise column.chunk_missing(state, chunk)
        return True

    def run(self) -> bool:
        """Run the tasks and :meth:`settle`."""
        run(self.tasks())
        return self.settle()

    @abstractmethod
    def _read_part(self, part: Part) -> None:
        """Read one chunk, and record any problem with it."""

    def _is_ours(self, part: Part, mark: str) -> bool:
        """Return False if a chunk's mark shows that it belongs to another column."""
        if not mark:
            self._needs_reload = True
            return True
        stop = part.chunk * self.state.chunk_rows + part.in_chunk.stop
        if not self.state.vouches_for(mark, stop):
            self._needs_reload = True
        if self.state.disowns(mark):
            self._foreign.append(part.chunk)
            return False
        return True


class BlockRead(_BlockChunks):
    """One read of a block of a column; see :class:`_BlockChunks` for its parameters."""

    def __init__(self, column: Column, start: int, stop: int) -> None:
        super().__init__(column, start, stop)
        state = self.state
        self._began = time.monotonic()
        # Whole chunks are unlikely to be read again, unless the caller wants to avoid requests.
        self._keeps_whole = column.shelf.trusts and (
            start // state.chunk_rows == (stop - 1) // state.chunk_rows
        )
        self.out: Array = np.empty((stop - start, *state.row_shape), state.dtype)
        """The rows; valid after the tasks have run."""
        if self._existing_stop < stop:
            self.out[self._existing_stop - start :].fill(state.fill)

    @override
    def settle(self) -> bool:
        is_sure = super().settle()
        shelf = self.column.shelf
        if is_sure and shelf.trusts and len(self._missing) <= MAX_BLANK:
            # On S3, two requests show that a chunk does not exist.
            for chunk in self._missing:
                blank = OpenChunk(self.state.codec, self.column.blank(self.state))
                key = self.column.chunk_key(self.state, chunk)
                shelf.keep(key, Kept(self.state.kind, "", blank), self._began)
        return is_sure

    @override
    def _read_part(self, part: Part) -> None:
        column, state, out = self.column, self.state, self.out
        key = column.chunk_key(state, part.chunk)
        asked = time.monotonic()
        kept = column.shelf.find(key, state.kind)
        known = ""
        if kept is not None and kept.chunk.has(part.in_chunk):
            if column.shelf.is_trusted(key):
                kept.chunk.copy(part.in_chunk, out[part.in_block])
                return
            known = kept.state
        if kept is not None and not kept.state:
            # Nothing can confirm it.
            kept = None
        is_kept = self._keeps_whole or not part.whole
        with lent() as room:
            opened = kept

            def take(now: str, length: int, read: ReadAt) -> bool:
                nonlocal opened
                opened = _opened(column, state, part.chunk, kept, now)
                return opened.chunk.unpack_from(
                    part.in_chunk, length, read, room, all_of_it=_goes_on(column, state, part)
                )

            try:
                found = column.objects.get_unless(
                    key, known, state.codec.packed_limit, room, take if is_kept else None
                )
                # Use fill(): an assignment would convert a bytes object to a dtype that drops
                # trailing zeros.
                if found is None:
                    out[part.in_block].fill(state.fill)
                    self._missing.append(part.chunk)
                elif self._is_ours(part, found.mark):
                    if is_kept or found.data is None:
                        self._keep(part, key, found, opened, asked)
                    else:
                        self._fill(part, found.data)
            except DamagedError as error:
                self._damaged.append(error)

    def _fill(self, part: Part, data: bytes | memoryview) -> None:
        """Decode a whole chunk that was just read."""
        column, state, out = self.column, self.state, self.out[part.in_block]
        with column.damage_in_words(state, part.chunk):
            if len(out) == state.chunk_rows:
                state.codec.decode_into(data, out)
            else:
                out[:] = state.codec.decode(data)[part.in_chunk]

    def _keep(self, part: Part, key: str, found: Seen, kept: Kept | None, asked: float) -> None:
        """Copy the requested rows of a chunk that was just read, and cache the chunk."""
        column, state, rows = self.column, self.state, part.in_chunk
        out = self.out[part.in_block]
        kept = _opened(column, state, part.chunk, kept, found.state)
        with column.damage_in_words(state, part.chunk):
            if found.data is not None:
                # Without the whole chunk, its other rows would take another request.
                waits = column.shelf.trusts and column.objects.threads is None
                whole = waits or _goes_on(column, state, part)
                kept.chunk.unpack(rows, found.data, all_of_it=whole)
            kept.chunk.copy(rows, out)
        # Without a state, later changes of the chunk would go unnoticed. A caller that trusts the
        # cache accepts that.
        if found.state or column.shelf.trusts:
            column.shelf.keep(key, kept, asked)
            _note_rows(column, state, part, kept.chunk)


class BlockLook(_BlockChunks):
    """Applies a function to the undecoded chunks of a block.

    Parameters
    ----------
    column, start, stop
        See :class:`BlockRead`.
    use : callable
        Takes the state, the part of the block and the chunk's bytes (None if the object does not
        exist); returns the result for that chunk.
    """

    def __init__(
        self,
        column: Column,
        start: int,
        stop: int,
        use: Callable[[ColumnState, Part, bytes | None], Any],
    ) -> None:
        super().__init__(column, start, stop)
        self._use = use
        self.found: dict[int, Any] = {}
        """The result for each chunk, by the chunk's first row within the block."""

    @override
    def _read_part(self, part: Part) -> None:
        column, state, data = self.column, self.state, None
        try:
            found = column.objects.get_marked(
                column.chunk_key(state, part.chunk), state.codec.packed_limit
            )
            if found is None:
                self._missing.append(part.chunk)
            else:
                data, mark = found
                if not self._is_ours(part, mark):
                    return
            with column.damage_in_words(state, part.chunk):
                self.found[part.in_block.start] = self._use(state, part, data)
        except DamagedError as error:
            self._damaged.append(error)


def padded_rows(state: ColumnState, part: Part, data: bytes | None) -> list[Array] | None:
    """Return strings as fixed-width bytes, in pieces; None if decoding to strings is better."""
    if state.dtype.kind != "T" or state.row_shape:
        return None
    first, stop = part.in_chunk.start, part.in_chunk.stop
    if data is None:
        # The chunk was never written. A fill value other than "" may have any length.
        return None if state.fill else [np.zeros(stop - first, "S1")]
    pieces = state.codec.decode_padded(data)
    if pieces is None:
        return None
    rows: list[Array] = []
    begin = 0
    for piece in pieces:
        cut = piece[max(0, first - begin) : max(0, stop - begin)]
        begin += len(piece)
        if len(cut):
            rows.append(cut)
    return rows


def utf8_rows[T](
    state: ColumnState,
    part: Part,
    data: bytes | None,
    convert: Convert[T],
) -> T | None:
    """Return what a function makes of strings, see :func:`to_offsets`; None for other values."""
    if state.dtype.kind != "T" or state.row_shape:
        return None
    first, stop = part.in_chunk.start, part.in_chunk.stop
    if data is not None:
        return state.codec.decode_utf8(data, first, stop, convert)
    rows = stop - first
    return convert(pack(np.full(rows, state.fill, state.dtype)), rows, 0, rows)


def check_chunk(state: ColumnState, part: Part, data: bytes | None) -> None:
    """Check that a chunk can be read; the caller judges a missing chunk."""
    if data is not None:
        state.codec.check(data)


def cached_parts(column: Column, start: int, stop: int) -> list[tuple[Part, OpenChunk]] | None:
    """Return the chunks of a block from the cache.

    Parameters
    ----------
    column, start, stop
        See :class:`BlockRead`.

    Returns
    -------
    list of (Part, OpenChunk) or None
        In row order. None if a row is not cached, or if it is not trusted and only a request could
        tell whether it is current.
    """
    state, shelf = column.state, column.shelf
    if stop > state.length:
        return None
    found: list[tuple[Part, OpenChunk]] = []
    asked, doubted = time.monotonic(), []
    for part in parts(start, stop, state.chunk_rows, state.length):
        key = column.chunk_key(state, part.chunk)
        kept = shelf.find(key, state.kind)
        if kept is None or not kept.chunk.has(part.in_chunk):
            return None
        if not shelf.is_trusted(key):
            if not column.objects.is_still(key, kept.state):
                return None
            doubted.append(key)
        found.append((part, kept.chunk))
    # Check the column after the chunks, in the order of a read from the store.
    if doubted or not found:
        if not column.document.is_still() or column.state is not state:
            return None
        for key in doubted:
            shelf.confirm(key, asked)
    for part, chunk in found:
        _note_rows(column, state, part, chunk)
    return found


def read_cached(column: Column, start: int, stop: int) -> Array | None:
    """Return rows from the cache, as :func:`cached_parts` does."""
    found, state = cached_parts(column, start, stop), column.state
    if found is None:
        return None
    out = np.empty((stop - start, *state.row_shape), state.dtype)
    for part, chunk in found:
        chunk.copy(part.in_chunk, out[part.in_block])
    return out


# ---- the cache


def _opened(column: Column, state: ColumnState, chunk: int, kept: Kept | None, now: str) -> Kept:
    """Return the cached chunk if it is in this state, otherwise a new, empty one."""
    if kept is not None and kept.state == now:
        return kept
    # On fast stores, drop chunks whose rows have all been read. The next chunk then reuses their
    # memory, which is faster than new memory. On slow stores, fetching a dropped chunk again would
    # take longer.
    if column.objects.threads is not None and not column.shelf.trusts:
        for other in column.read_through:
            if abs(chunk - other) > 1:
                column.shelf.drop(column.chunk_key(state, other))
    return Kept(state.kind, now, OpenChunk(state.codec))


def _note_rows(column: Column, state: ColumnState, part: Part, chunk: OpenChunk) -> None:
    """Record that rows of a chunk were read, and whether all its rows have now been read."""
    if column.shelf.trusts:
        # No chunk is dropped for it.
        return
    count = min(state.chunk_rows, state.length - part.chunk * state.chunk_rows)
    if chunk.seen(part.in_chunk, count) and part.chunk not in column.read_through:
        column.read_through = (*column.read_through[-15:], part.chunk)


def _goes_on(column: Column, state: ColumnState, part: Part) -> bool:
    """Return True if the rest of a chunk is likely to be read next, piece by piece."""
    rows = part.in_chunk
    if rows.start == 0 and part.chunk and _is_cached(column, state, part.chunk - 1, LAST_ROW):
        # The caller reads row after row.
        return True
    # The caller may read tile by tile: large blocks in any order, but near each other.
    return (rows.stop - rows.start) * TILES >= state.chunk_rows and any(
        _is_cached(column, state, chunk) for chunk in (part.chunk - 1, part.chunk + 1)
    )


def _is_cached(column: Column, state: ColumnState, chunk: int, row: int | None = None) -> bool:
    """Return True if a chunk was read recently: any part of it, or one row (-1: its last)."""
    if chunk in column.read_through:
        return True
    if chunk < 0:
        return False
    kept = column.shelf.find(column.chunk_key(state, chunk), state.kind)
    if kept is None or row is None:
        return kept is not None
    row %= state.chunk_rows
    return kept.chunk.has(slice(row, row + 1))


# ---- writing


def block_writes(
    column: Column, state: ColumnState, values: Array, start: int
) -> Sequence[Callable[[], None]]:
    """Return tasks that write a block of existing rows.

    Parameters
    ----------
    column : Column
    state, values
        From :meth:`Column.fit`.
    start : int
        The table row of the block's first row.

    Returns
    -------
    list of callable
        One task for each chunk, independent of each other.
    """
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
    """Write rows of one chunk.

    Parameters
    ----------
    column : Column
    state, values
        From :meth:`Column.fit`.
    chunk : int
        The number of the chunk.
    rows : slice or ndarray of int
        The rows within the chunk; see :data:`Rows`.
    turns : context manager, optional
        See :meth:`ChunkCodec.encode`.
    """
    _ChunkWrite(column, state, chunk, rows, values, turns).run()


class _ChunkWrite:
    """One write to one chunk; parameters are those of :func:`write_rows`."""

    def __init__(
        self,
        column: Column,
        state: ColumnState,
        chunk: int,
        rows: Rows,
        values: Array,
        turns: AbstractContextManager[Any] | None,
    ) -> None:
        self._column, self._state, self._chunk = column, state, chunk
        self._rows, self._values, self._turns = rows, values, turns
        first = chunk * state.chunk_rows
        self._stop = first + (int(rows.stop) if isinstance(rows, slice) else int(rows[-1]) + 1)
        # A block that covers the last, partial chunk must not replace it unread, because another
        # process may have added rows to that chunk.
        self._covers_all = len(values) >= min(state.chunk_rows, state.length - first)
        self._key = column.chunk_key(state, chunk)
        self._owner: Owner = column.owner(state, self._stop)
        self._written: Array | None = None
        """All values of the chunk as written, if they are known."""

    def run(self) -> None:
        column, state, written = self._column, self._state, None
        began = column.shelf.begin_write(self._key)
        try:
            self._write()
            if self._written is not None and column.shelf.trusts:
                written = Kept(state.kind, "", OpenChunk(state.codec, self._written))
        finally:
            column.shelf.end_write(self._key, began, written)

    def _write(self) -> None:
        column, state = self._column, self._state
        merged = column.shelf.take(self._key, state.kind)
        if len(self._values) == state.chunk_rows:
            data = state.codec.encode(self._values, self._turns)
            column.objects.put(self._key, data, self._owner)
            column.count(data)
            return
        if merged is not None and self._merge_further(merged):
            return
        if not (self._covers_all and self._create()):
            self._merge()

    def _create(self) -> bool:
        """Write a new chunk; return False if it already exists."""
        values = self._column.blank(self._state)
        values[self._rows] = self._values
        data = self._state.codec.encode(values)
        version = self._column.objects.create(self._key, data, self._owner)
        if version is None:
            return False
        self._column.count(data)
        self._keep(Merged(self._state.kind, version, self._owner.mark, values, Runs()))
        return True

    def _keep(self, merged: Merged) -> None:
        """Cache the chunk for its next rows, unless all its rows are written."""
        self._written = merged.values
        if isinstance(self._rows, slice):
            merged.written.add(self._rows)
        if not merged.written.are_all(self._state.chunk_rows):
            self._column.shelf.put_back(self._key, merged)

    def _merge_further(self, merged: Merged) -> bool:
        """Add rows to a chunk last written here; return False if another writer came since."""
        column, state = self._column, self._state
        looks = column.objects.looks_before_writing
        if not looks and not state.vouches_for(merged.mark, self._stop):
            return False
        merged.values[self._rows] = self._values
        data = state.codec.encode(merged.values)
        version = column.objects.replace(self._key, data, merged.version, self._owner)
        if version is None:
            return False
        column.count(data)
        self._keep(replace(merged, version=version, mark=self._owner.mark))
        return True

    def _merge(self) -> None:
        """Merge rows into the stored chunk, by compare-and-swap."""
        column, state, chunk = self._column, self._state, self._chunk
        for _ in (attempts := Attempts(column.objects.patience)):
            try:
                found = column.objects.get_versioned(self._key, state.codec.packed_limit)
            except DamagedError:
                column.confirm(state, self._stop)
                raise
            if found is None:
                if chunk * state.chunk_rows < state.all_there:
                    column.confirm(state, self._stop)
                    raise column.chunk_missing(state, chunk)
                if self._create():
                    return
                continue
            looks = column.objects.looks_before_writing
            if not looks and not state.vouches_for(found.mark, self._stop):
                column.confirm(state, self._stop)
            if state.disowns(found.mark):
                raise column.foreign(state, chunk)
            try:
                with column.damage_in_words(state, chunk):
                    merged = state.codec.decode(found.data).copy()
            except DamagedError:
                column.confirm(state, self._stop)
                raise
            merged[self._rows] = self._values
            data = state.codec.encode(merged)
            version = column.objects.replace(self._key, data, found.version, self._owner)
            if version is not None:
                column.count(data)
                self._keep(Merged(state.kind, version, self._owner.mark, merged, Runs()))
                return
        raise ConflictError(
            f"{column.objects.location}/{self._key}: other writers changed this chunk of column "
            f"{column.name!r} {attempts} while this process tried to write rows of it"
        )
