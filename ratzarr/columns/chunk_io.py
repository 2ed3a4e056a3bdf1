"""Blocks of rows in and out of a column's chunks.

:class:`BlockRead` reads one block: its tasks fetch and unpack the chunks, and :meth:`BlockRead.settle`
then says whether the values can be trusted. Another process can cut rows off meanwhile, or delete the
column and create another of its name. So the column's document is looked at again after the chunks,
unless the chunks themselves carry the mark of the column.

:func:`write_rows` writes rows of one chunk. A whole chunk is written without reading it first. For any
other, the rest of the chunk is read, merged and put back by compare-and-swap, so that two writers of
different rows of a chunk never undo each other's work. Each chunk is written for an
:class:`~ratzarr.stores.base.Owner`, which keeps it out of a column created anew.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import ReadAt
from ratzarr.columns.chunk_cache import Kept, Merged, OpenChunk
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import Attempts, lent, run
from ratzarr.errors import ConflictError, DamagedError
from ratzarr.format.blocks import Block, Part, Runs, parts
from ratzarr.stores.base import Owner, Seen

__all__ = ["BlockLook", "BlockRead", "block_writes", "read_cached", "write_rows"]

Array = NDArray[Any]
Rows = slice | NDArray[np.intp]
"""A run of rows, or their numbers in ascending order; counted from the chunk's first."""

TILES = 8
"""A piece of at least this part of a chunk is a large one."""
LAST_ROW = -1


class _BlockChunks(ABC):
    """A block of rows, and the chunks that hold them.

    Parameters
    ----------
    column : Column
    block : Block
        Rows that the table has; the column may lag behind.
    """

    def __init__(self, column: Column, block: Block) -> None:
        self.column, self.block = column, block
        self.state = column.state
        """The column's state for the whole block, from the first task to the last."""
        length = self.state.length
        self._there = Block(block.start, max(0, min(block.stop, length) - block.start))
        # The column may have grown since.
        self._doubted = self._there.length < block.length
        self._missing: list[int] = []
        self._foreign: list[int] = []
        self._damaged: list[DamagedError] = []

    def tasks(self) -> list[Callable[[], None]]:
        """Return one task for each chunk, independent of each other.

        They refer to this object, so it must not refer to them: in a cycle its array would stay
        in memory until the garbage collector runs, block after block.
        """
        state = self.state
        return [
            partial(self._read_part, part)
            for part in parts(self._there, state.chunk_rows, state.length)
        ]

    def settle(self) -> bool:
        """Check, when all tasks have run, that the chunks were the column's.

        Returns
        -------
        bool
            False where the column has grown or was created anew: read the block again.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            Where the column, or these rows of it, are gone.
        DamagedError
            Where a chunk is damaged, missing, or another column's.
        """
        column, state = self.column, self.state
        if self._doubted or self._missing or self._foreign or self._damaged:
            if not column.document.load():
                raise column.missing()
            now, stop = column.state, self.block.stop
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
        """Read one chunk, and note what is wrong with it."""

    def _is_ours(self, part: Part, mark: str) -> bool:
        """Return whether a chunk may be the column's, going by its mark."""
        stop = part.chunk * self.state.chunk_rows + part.in_chunk.stop
        if not self.state.vouches_for(mark, stop):
            self._doubted = True
        if self.state.disowns(mark):
            self._foreign.append(part.chunk)
            return False
        return True


class BlockRead(_BlockChunks):
    """One read of a block of a column; see :class:`_BlockChunks` for its parameters."""

    def __init__(self, column: Column, block: Block) -> None:
        super().__init__(column, block)
        state = self.state
        self.out: Array = np.empty((block.length, *state.row_shape), state.dtype)
        """The rows, when the tasks have run."""
        if self._there.length < block.length:
            self.out[self._there.length :].fill(state.fill)

    def _read_part(self, part: Part) -> None:
        column, state, out = self.column, self.state, self.out
        key = column.chunk_key(state, part.chunk)
        kept = column.shelf.find(key, state.kind)
        known = kept.state if kept is not None and kept.chunk.has(part.in_chunk) else ""
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
                    key, known, state.codec.packed_limit, room, None if part.whole else take
                )
                # fill(), as an assignment would take a bytes object through a dtype that drops
                # zeros.
                if found is None:
                    out[part.in_block].fill(state.fill)
                    self._missing.append(part.chunk)
                elif self._is_ours(part, found.mark):
                    self._fill(part, key, found, opened)
            except DamagedError as error:
                self._damaged.append(error)

    def _fill(self, part: Part, key: str, found: Seen, kept: Kept | None) -> None:
        """Copy the rows that are wanted of a chunk that was just read."""
        column, state, rows = self.column, self.state, part.in_chunk
        out = self.out[part.in_block]
        if part.whole and found.data is not None:
            # Not kept: it is not likely to be asked for again.
            with column.damage_in_words(state, part.chunk):
                if len(out) == state.chunk_rows:
                    state.codec.decode_into(found.data, out)
                else:
                    out[:] = state.codec.decode(found.data)[rows]
            return
        kept = _opened(column, state, part.chunk, kept, found.state)
        with column.damage_in_words(state, part.chunk):
            if found.data is not None:
                kept.chunk.unpack(rows, found.data, all_of_it=_goes_on(column, state, part))
            kept.chunk.copy(rows, out)
        # Without a state nothing would tell that the chunk has changed since.
        if found.state:
            column.shelf.keep(key, kept)
            _note_rows(column, state, part.chunk, rows, kept)


class BlockLook(_BlockChunks):
    """A look at the packed chunks of a block: nothing is decoded here.

    Parameters
    ----------
    column, block
        See :class:`BlockRead`.
    use : callable
        Given the state, the part of the block and the chunk's bytes (None where there is no such
        object), returns the result for that chunk.
    """

    def __init__(
        self, column: Column, block: Block, use: Callable[[ColumnState, Part, bytes | None], Any]
    ) -> None:
        super().__init__(column, block)
        self._use = use
        self.found: dict[int, Any] = {}
        """The results, by the first row of each chunk within the block."""

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


def read_cached(column: Column, block: Block) -> Array | None:
    """Return rows from the cache, if the store says that it still has the same; else None.

    Parameters
    ----------
    column, block
        See :class:`BlockRead`.
    """
    state = column.state
    if block.stop > state.length:
        return None
    out = np.empty((0, *state.row_shape), state.dtype)
    found: list[tuple[int, slice, Kept]] = []
    for part in parts(block, state.chunk_rows, state.length):
        key = column.chunk_key(state, part.chunk)
        kept = column.shelf.find(key, state.kind)
        if kept is None or not kept.chunk.has(part.in_chunk):
            return None
        if not column.objects.is_still(key, kept.state):
            return None
        if not found:
            out = np.empty((block.length, *state.row_shape), state.dtype)
        kept.chunk.copy(part.in_chunk, out[part.in_block])
        found.append((part.chunk, part.in_chunk, kept))
    # In the same order as when it is read from the store: the chunks first, then the column.
    if not column.document.is_still() or column.state is not state:
        return None
    for chunk, rows, kept in found:
        _note_rows(column, state, chunk, rows, kept)
    return out


# ---- the cache


def _opened(column: Column, state: ColumnState, chunk: int, kept: Kept | None, now: str) -> Kept:
    """Return the cached chunk if it is in this state, else a new one that is still empty."""
    if kept is not None and kept.state == now:
        return kept
    # Where reading is fast, memory that is warm is worth more than a chunk that was read through.
    # Elsewhere fetching the chunk again would take longer than finding new memory.
    if column.objects.threads is not None:
        for other in column.read_through:
            if abs(chunk - other) > 1:
                column.shelf.drop(column.chunk_key(state, other))
    return Kept(state.kind, now, OpenChunk(state.codec))


def _note_rows(column: Column, state: ColumnState, chunk: int, rows: slice, kept: Kept) -> None:
    """Note that rows of a chunk were read, and whether all of them have been by now."""
    count = min(state.chunk_rows, state.length - chunk * state.chunk_rows)
    if kept.chunk.seen(rows, count) and chunk not in column.read_through:
        column.read_through = (*column.read_through[-15:], chunk)


def _goes_on(column: Column, state: ColumnState, part: Part) -> bool:
    """Return whether the rest of a chunk is likely to be asked for, piece by piece."""
    rows = part.in_chunk
    if rows.start == 0 and part.chunk and _is_cached(column, state, part.chunk - 1, LAST_ROW):
        # Somebody reads row after row.
        return True
    # Or tile by tile: large pieces, in any order, but near each other.
    return (rows.stop - rows.start) * TILES >= state.chunk_rows and any(
        _is_cached(column, state, chunk) for chunk in (part.chunk - 1, part.chunk + 1)
    )


def _is_cached(column: Column, state: ColumnState, chunk: int, row: int | None = None) -> bool:
    """Return whether a chunk was read of late: any of it, or this row (-1: its last)."""
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
    """Prepare to write a block of rows that the column has.

    Parameters
    ----------
    column : Column
    state, values
        From :meth:`Column.fit`.
    start : int
        The table's row that the first is.

    Returns
    -------
    list of callable
        One task for each chunk, independent of each other.
    """
    # Strings are taken out of an array with the interpreter's lock held, some thousands at a
    # time. Two threads keep the processors busy; more would wait for that lock in turn, which
    # takes half as long again as the work.
    turns = threading.Semaphore(2) if values.dtype.kind == "T" else None
    return [
        partial(write_rows, column, state, part.chunk, part.in_chunk, values[part.in_block], turns)
        for part in parts(Block(start, len(values)), state.chunk_rows, state.length)
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
        Which chunk.
    rows : slice or ndarray of int
        Which of its rows: see :data:`Rows`.
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
        # The last chunk of a table is never covered: there may be rows after it by now.
        self._covers_all = len(values) >= min(state.chunk_rows, state.length - first)
        self._key = column.chunk_key(state, chunk)
        self._owner: Owner = column.owner(state, self._stop)

    def run(self) -> None:
        column, state = self._column, self._state
        column.shelf.drop(self._key)
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
        """Write a chunk that is not there yet; return False where it is."""
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
        """Cache the chunk for the next rows of it, unless all have been written by now."""
        if isinstance(self._rows, slice):
            merged.written.add(self._rows)
        if not merged.written.are_all(self._state.chunk_rows):
            self._column.shelf.put_back(self._key, merged)

    def _merge_further(self, merged: Merged) -> bool:
        """Put rows into a chunk that this instance wrote last; return False where others did since."""
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
        """Put rows into the chunk as it is in the store, by compare-and-swap."""
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
            f"{column.name!r} {attempts} while rows of it were to be written"
        )
