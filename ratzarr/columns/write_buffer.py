"""A write buffer, which collects rows until their chunks are full.

A chunk is one object, so writing a few rows means reading, changing and writing the whole chunk.
With a write buffer, rows stay in memory, and a complete chunk is written once without being read.
Reads of the same instance show the buffered rows over those in the store. Buffers are flushed after
one second (later if that takes long), when an instance is no longer referenced, and as
:mod:`ratzarr.pending` describes.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.columns.chunk_cache import size_of
from ratzarr.columns.chunk_io import Part, parts, write_rows
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import run
from ratzarr.errors import ChangedError, ColumnNotFoundError, RatZarrError
from ratzarr.pending import PendingWrites, is_ending, write_after

__all__ = ["WriteBuffer", "buffer_of"]


SECONDS = 1.0
"""The maximum age of buffered rows in seconds, approximately, if writing them is fast."""
MAX_SECONDS = 30.0
"""The maximum age of buffered rows in seconds, approximately, however long writing takes."""
PAUSE = 10
"""Rows wait for this many times as long as the last write took, so that a program which goes on
changing the same chunks does not spend all its time on writing them."""

Array = NDArray[Any]
type _Key = tuple[str, tuple[Any, ...], int]


class _BufferedChunk:
    """The buffered rows of one chunk. Its lock is held during a write; later rows wait for it."""

    def __init__(self, column: Column, state: ColumnState, chunk: int) -> None:
        self.lock = threading.Lock()
        self.key = _key(column, state, chunk)
        self.column, self.state, self.chunk = column, state, chunk
        rows = rows_of(state, chunk)
        self.values: Array = np.empty((rows, *state.row_shape), state.dtype)
        self.is_buffered = np.zeros(rows, np.bool_)
        """True for each row that is buffered."""
        self.count = 0
        self.since = time.monotonic()
        self.size = int(self.values.nbytes) + self.is_buffered.nbytes
        """Approximate size in memory, in bytes."""
        self.is_done = False
        """True if this object has been written or discarded, and takes no further rows."""

    def put(self, column: Column, state: ColumnState, rows: slice, values: Array) -> None:
        """Add rows. The caller holds the lock."""
        if state.length >= self.state.length:
            self.column, self.state = column, state
        if (more := rows_of(self.state, self.chunk) - len(self.is_buffered)) > 0:
            # The column has grown since.
            new = np.empty((more, *self.values.shape[1:]), self.values.dtype)
            self.values = np.concatenate([self.values, new])
            self.is_buffered = np.concatenate([self.is_buffered, np.zeros(more, np.bool_)])
            self.size += int(new.nbytes) + more
        self.values[rows] = values
        self.count += len(values) - int(np.count_nonzero(self.is_buffered[rows]))
        self.is_buffered[rows] = True
        if self.values.dtype.kind in "TO":
            # Strings may be given as fixed-width bytes.
            had = values.nbytes if values.dtype.kind in "TO" else 0
            self.size += size_of(values) - had

    @property
    def is_full(self) -> bool:
        """True if all rows of the column in this chunk are buffered."""
        return self.count >= rows_of(self.state, self.chunk)

    def write(self) -> None:
        """Write the rows. The caller holds the lock."""
        if self.is_done:
            return
        rows: slice | NDArray[np.intp] = slice(0, self.count)
        if self.count < len(self.is_buffered):
            each = np.flatnonzero(self.is_buffered)
            first, stop = int(each[0]), int(each[-1]) + 1
            rows = slice(first, stop) if stop - first == self.count else each
        try:
            write_rows(self.column, self.state, self.chunk, rows, self.values[rows])
        except (ChangedError, ColumnNotFoundError) as error:
            self.is_done = True
            error.add_note(f"({self} were in the write buffer, and are discarded)")
            raise
        except RatZarrError as error:
            error.add_note(f"({self} were not written, and stay in the write buffer)")
            raise
        self.is_done = True

    def __str__(self) -> str:
        rows = self.state.chunk_rows
        first = self.chunk * rows
        return (
            f"{self.count} rows of column {self.column.name!r}, of those from {first} to "
            f"{first + rows - 1}"
        )


type BufferedRows = tuple[slice, NDArray[np.bool_], Array]
"""Rows of a block that are in one chunk: the rows, counted from the first row of the block; True for
each of them that is buffered; and their values."""


class WriteBuffer(PendingWrites):
    """The buffered rows of one instance. Thread-safe.

    Parameters
    ----------
    limit : int
        The maximum size in bytes. Beyond it, the least recently used chunk is written first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.seconds = SECONDS
        self.forget()
        super().__init__()

    def forget(self) -> None:
        """Drop all rows, as in the child of a fork, whose parent writes them."""
        self._lock = threading.Lock()
        self._waiting: OrderedDict[_Key, _BufferedChunk] = OrderedDict()
        self._size = 0
        """Approximate size of all chunks in memory, in bytes."""
        self._stored_errors: list[tuple[str, RatZarrError]] = []
        """Errors for a later caller, each with the name of its column."""

    # ---- adding rows

    def put(
        self, column: Column, state: ColumnState, values: Array, start: int
    ) -> list[Callable[[], None]]:
        """Add existing rows of a column.

        Returns
        -------
        list of callable
            Tasks that write the chunks that are now full; independent of each other.

        Raises
        ------
        RatZarrError
            If writing other chunks to make room fails. These rows are not added.
        """
        tasks: list[Callable[[], None]] = []
        for part in parts(start, start + len(values), state.chunk_rows, state.length):
            given = values[part.in_block]
            # Rows of a chunk that is larger than the buffer are written at once.
            too_large = rows_of(state, part.chunk) * (state.row_bytes + 1) > self._limit
            if too_large or is_ending():
                tasks.append(partial(write_rows, column, state, part.chunk, part.in_chunk, given))
            elif len(given) == state.chunk_rows:
                tasks.append(partial(self._write_whole, column, state, part, given))
            elif (chunk := self._put(column, state, part, given)).is_full:
                tasks.append(partial(self._write, chunk))
        return tasks

    def _put(
        self, column: Column, state: ColumnState, part: Part, values: Array
    ) -> _BufferedChunk:
        while True:
            chunk = self._find(column, state, part.chunk)
            is_new = chunk is None
            if chunk is None:
                chunk = _BufferedChunk(column, state, part.chunk)
                self._make_room(chunk.size)
            with chunk.lock:
                if chunk.is_done:
                    self._remove(chunk)
                    continue
                before = 0 if is_new else chunk.size
                chunk.put(column, state, part.in_chunk, values)
                more = chunk.size - before
                is_ours = True
                if more:
                    with self._lock:
                        is_ours = self._waiting.setdefault(chunk.key, chunk) is chunk
                        self._size += more if is_ours else 0
            if is_ours:
                if is_new:
                    self.write_later()
                elif more:
                    self._make_room(0)
                return chunk

    def _find(self, column: Column, state: ColumnState, number: int) -> _BufferedChunk | None:
        key = _key(column, state, number)
        with self._lock:
            chunk = self._waiting.get(key)
            if chunk is not None:
                self._waiting.move_to_end(key)
            return chunk

    def _remove(self, chunk: _BufferedChunk) -> None:
        with self._lock:
            if self._waiting.get(chunk.key) is chunk:
                del self._waiting[chunk.key]
                self._size -= chunk.size

    def _make_room(self, size: int) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._size + size <= self._limit:
                    return
                chunk = next(iter(self._waiting.values()))
            self._write(chunk)

    # ---- reading

    @property
    def is_empty(self) -> bool:
        """True if no rows are buffered."""
        return not self._waiting

    def rows(
        self, column: Column, state: ColumnState, start: int, stop: int
    ) -> list[BufferedRows]:
        """Return copies of the buffered rows of a block. To be taken before the block is read."""
        found: list[BufferedRows] = []
        for part in parts(start, stop, state.chunk_rows, state.length):
            with self._lock:
                chunk = self._waiting.get(_key(column, state, part.chunk))
            if chunk is None:
                continue
            with chunk.lock:
                # Rows that have been written meanwhile are in the store.
                is_buffered = chunk.is_buffered[part.in_chunk]
                if not chunk.is_done and np.count_nonzero(is_buffered):
                    values = chunk.values[part.in_chunk].copy()
                    first = part.in_block.start
                    # The column may have grown since the rows were buffered.
                    in_block = slice(first, first + len(is_buffered))
                    found.append((in_block, is_buffered.copy(), values))
        return found

    # ---- writing

    def _write(self, chunk: _BufferedChunk) -> None:
        try:
            with chunk.lock:
                chunk.write()
        finally:
            if chunk.is_done:
                self._remove(chunk)

    def _write_whole(self, column: Column, state: ColumnState, part: Part, values: Array) -> None:
        """Write all rows of a chunk; discard buffered rows of it."""
        chunk = self._find(column, state, part.chunk)
        with nullcontext() if chunk is None else chunk.lock:
            write_rows(column, state, part.chunk, part.in_chunk, values)
            if chunk is not None:
                chunk.is_done = True
                self._remove(chunk)

    def write_back(self, names: Collection[str] | None = None) -> None:
        """Write buffered rows, by default of all columns.

        Raises
        ------
        RatZarrError
            The first error, after all chunks have been tried, with further errors as notes. This
            includes stored errors of earlier attempts.
        """
        with self._lock:
            chosen = [
                chunk
                for chunk in self._waiting.values()
                if names is None or chunk.column.name in names
            ]
            errors = [
                error for name, error in self._stored_errors if names is None or name in names
            ]
            self._stored_errors = [each for each in self._stored_errors if each[1] not in errors]
        errors += [error for error in self._try(chosen) if error is not None]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(
                    "\n".join(["and:", str(other), *getattr(other, "__notes__", ())])
                )
            raise errors[0]

    def _try(self, chosen: list[_BufferedChunk]) -> list[RatZarrError | None]:
        def attempt(chunk: _BufferedChunk) -> RatZarrError | None:
            try:
                self._write(chunk)
            except RatZarrError as error:
                return error
            return None

        return run([partial(attempt, chunk) for chunk in chosen])

    def drop(self, name: str) -> None:
        """Discard the rows of a column that this instance has deleted."""
        with self._lock:
            chosen = [one for one in self._waiting.values() if one.column.name == name]
            self._stored_errors = [each for each in self._stored_errors if each[0] != name]
        for chunk in chosen:
            with chunk.lock:
                chunk.is_done = True
            self._remove(chunk)

    def write_due(self, before: float) -> None:
        """Write rows buffered before a time; store errors for a later caller."""
        with self._lock:
            chosen = [chunk for chunk in self._waiting.values() if chunk.since <= before]
        began = time.monotonic()
        for chunk, error in zip(chosen, self._try(chosen), strict=True):
            if error is not None and not chunk.is_done:
                chunk.since = time.monotonic()
            elif error is not None:
                with self._lock:
                    self._stored_errors.append((chunk.column.name, error))
        if chosen:
            pause = PAUSE * (time.monotonic() - began)
            self.seconds = min(MAX_SECONDS, max(SECONDS, pause))

    def waits_since(self) -> float | None:
        """Return the time at which the oldest rows were buffered; None for an empty buffer."""
        with self._lock:
            return min((chunk.since for chunk in self._waiting.values()), default=None)


def buffer_of(owner: object, limit: int) -> WriteBuffer:
    """Return a buffer whose rows are written when its owner, an instance, is no longer used."""
    buffer = WriteBuffer(limit)
    write_after(owner, buffer)
    return buffer


def rows_of(state: ColumnState, chunk: int) -> int:
    """Return the number of rows of a column in a chunk."""
    return min(state.chunk_rows, state.length - chunk * state.chunk_rows)


def _key(column: Column, state: ColumnState, chunk: int) -> _Key:
    # The kind distinguishes a column that was created anew.
    return column.prefix, state.kind, chunk
