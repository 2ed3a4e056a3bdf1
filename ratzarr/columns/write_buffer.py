"""Small writes collected until their chunks are full.

A chunk is one object, so writing a few rows means reading, changing and writing all of it. With a
write buffer, rows wait in memory, and a chunk that is complete is written once without being read.
Buffers are flushed after one second, when the last reference to an instance goes, when a program or a
worker process ends, and before a fork. The child of a fork drops the rows; its parent writes them.
"""

import atexit
import functools
import gc
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ratzarr.columns.chunk_cache import size_of
from ratzarr.columns.chunk_io import write_rows
from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import run
from ratzarr.errors import ChangedError, ColumnNotFoundError, RatZarrError
from ratzarr.format.blocks import Block, Part, parts

__all__ = [
    "SECONDS",
    "Buffer",
    "WriteBuffer",
    "know",
    "wait",
    "write_remaining",
]


SECONDS = 1.0
"""How long rows wait at the most, about."""
IDLE = 10.0
"""Seconds after which the thread ends, if nothing waits."""


class Buffer(Protocol):
    """What waits of one instance."""

    def waits_since(self) -> float | None:
        """Return since when the first row waits; None where none does."""

    def write_due(self, before: float) -> None:
        """Write what waits since before a time; keep errors."""

    def write_back(self) -> None:
        """Write what waits."""

    def forget(self) -> None:
        """Be empty."""


class _Process:
    """What waits in this process, and the thread that sees to it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in the child of a fork, which has no thread but its own."""
        self.changed = threading.Condition()
        self.waiting: set[Buffer] = set()
        """Held here, whoever else has let go of them."""
        self.thread: threading.Thread | None = None
        self.hurried: set[Buffer] = set()
        self.ends_are_known = False

    def work(self) -> None:
        while True:
            with self.changed:
                found = [(buffer, buffer.waits_since()) for buffer in self.waiting]
                self.waiting = {buffer for buffer, since in found if since is not None}
                if not self.waiting:
                    self.changed.wait(IDLE)
                    if not self.waiting:
                        self.thread = None
                        return
                    continue
                hurried, self.hurried = self.hurried, set()
                oldest = min(since for _, since in found if since is not None)
                left = oldest + SECONDS - time.monotonic()
                if left > 0 and not hurried:
                    self.changed.wait(left)
                    continue
                buffers = list(self.waiting)
            now = time.monotonic()
            for buffer in buffers:
                buffer.write_due(now if buffer in hurried else now - SECONDS)


_process = _Process()
_known: WeakSet[Any] = WeakSet()
_here = threading.local()


def know(buffer: Buffer) -> None:
    """Know a buffer, that it may forget what waits in it where it was copied by a fork."""
    _watch_process()
    _known.add(buffer)


@functools.cache
def _watch_process() -> None:
    gc.callbacks.append(_note_collection)
    # Not before the first buffer is there, and all that it needs is imported: what is registered
    # last is called first before a fork, while nobody holds his locks for it yet.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def wait(buffer: Buffer) -> None:
    """See to it that what has begun to wait is written in time."""
    with _process.changed:
        _process.waiting.add(buffer)
        if not _process.ends_are_known:
            _process.ends_are_known = True
            _know_ends()
        if _process.thread is None:
            _process.thread = threading.Thread(
                target=_process.work, name="ratzarr-writer", daemon=True
            )
            _process.thread.start()
        _process.changed.notify_all()


def _know_ends() -> None:
    # Now, and not when this is imported: what was registered last is called first, and
    # connections are closed by then that were opened before.
    atexit.register(_write_all)
    # Processes of multiprocessing that are forks end without what atexit knows.
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            util.Finalize(None, _write_all, exitpriority=100)


def _write_all() -> None:
    """Write all that waits, and say on stderr what can't be: nobody comes after this."""
    with _process.changed:
        buffers, _process.waiting = _process.waiting, set()
    for buffer in buffers:
        _write(buffer)


def _write(buffer: Buffer) -> None:
    try:
        buffer.write_back()
    except RatZarrError as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        print(f"ratzarr: rows that waited were not written: {error}\n{notes}", file=sys.stderr)


def write_remaining(buffer: Buffer) -> None:
    """Write what waits of an instance that is no longer used: now, or as soon as it can be.

    The garbage collector runs in any thread, at any time: in the one that all requests to
    S3 wait for, or where a lock is held that we would need. Nothing is written then.
    """
    if buffer.waits_since() is None:
        return
    if getattr(_here, "collecting", False) or threading.current_thread().daemon:
        with _process.changed:
            _process.hurried.add(buffer)
            _process.changed.notify_all()
    else:
        _write(buffer)


def _note_collection(phase: str, info: Mapping[str, Any]) -> None:
    _here.collecting = phase == "start"


def _before_fork() -> None:
    for buffer in list(_process.waiting):
        buffer.write_due(time.monotonic())


def _in_child() -> None:
    _process.reset()
    for buffer in list(_known):
        buffer.forget()


Array = NDArray[Any]
type _Key = tuple[str, tuple[Any, ...], int]


class _WaitingChunk:
    """Rows of one chunk. Its lock is held while they are written: what comes then, comes after."""

    def __init__(self, column: Column, state: ColumnState, chunk: int) -> None:
        self.lock = threading.Lock()
        self.column, self.state, self.chunk = column, state, chunk
        rows = rows_of(state, chunk)
        self.values: Array = np.empty((rows, *state.row_shape), state.dtype)
        self.come = np.zeros(rows, np.bool_)
        """Which rows have."""
        self.count = 0
        self.since = time.monotonic()
        self.characters = 0
        """Bytes of texts, besides what stands for them in the array."""
        self.is_done = False
        """Whether nothing waits here any more, nor ever will."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return int(self.values.nbytes) + self.come.nbytes + self.characters

    def put(self, column: Column, state: ColumnState, rows: slice, values: Array) -> None:
        """Take rows in; with the lock held."""
        if state.length >= self.state.length:
            self.column, self.state = column, state
        if (more := rows_of(self.state, self.chunk) - len(self.come)) > 0:
            # The column has become longer since.
            new = np.empty((more, *self.values.shape[1:]), self.values.dtype)
            self.values = np.concatenate([self.values, new])
            self.come = np.concatenate([self.come, np.zeros(more, np.bool_)])
        self.values[rows] = values
        self.count += len(values) - int(np.count_nonzero(self.come[rows]))
        self.come[rows] = True
        if self.values.dtype.kind in "TO":
            # Strings may come as their bytes.
            had = values.nbytes if values.dtype.kind in "TO" else 0
            self.characters += size_of(values) - had

    @property
    def first(self) -> int:
        """The column's row that is the chunk's first."""
        return self.chunk * self.state.chunk_rows

    @property
    def is_full(self) -> bool:
        """Whether all rows have come that the column has in this chunk."""
        return self.count >= rows_of(self.state, self.chunk)

    def write(self) -> None:
        """Write what has come; with the lock held."""
        if self.is_done:
            return
        rows: slice | NDArray[np.intp] = slice(0, self.count)
        if self.count < len(self.come):
            each = np.flatnonzero(self.come)
            first, stop = int(each[0]), int(each[-1]) + 1
            rows = slice(first, stop) if stop - first == self.count else each
        try:
            write_rows(self.column, self.state, self.chunk, rows, self.values[rows])
        except (ChangedError, ColumnNotFoundError) as error:
            self.is_done = True
            error.add_note(f"({self}, which waited to be written, were given up)")
            raise
        except RatZarrError as error:
            error.add_note(f"({self} were not written: they go on waiting)")
            raise
        self.is_done = True

    def __str__(self) -> str:
        return (
            f"{self.count} rows of column {self.column.name!r}, of those from {self.first} to "
            f"{self.first + self.state.chunk_rows - 1}"
        )


class WriteBuffer:
    """What waits of one instance. Thread-safe.

    Parameters
    ----------
    limit : int
        How many bytes it may take: what was not written to for longest goes first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.forget()
        know(self)

    def forget(self) -> None:
        """Be empty: in the child of a fork, where what waits is the parent's."""
        self._lock = threading.Lock()
        self._waiting: OrderedDict[_Key, _WaitingChunk] = OrderedDict()
        self._given_up: list[tuple[str, RatZarrError]] = []
        """By column: what could not be raised where it happened."""

    # ---- what comes

    def put(
        self, column: Column, state: ColumnState, values: Array, start: int
    ) -> list[Callable[[], None]]:
        """Take rows in that the column has.

        Returns
        -------
        list of callable
            Write those chunks that are full now; independent of each other.

        Raises
        ------
        RatZarrError
            Where there is no room, and none can be made. These rows are not taken in.
        """
        tasks: list[Callable[[], None]] = []
        block = Block(start, len(values))
        for part in parts(block, state.chunk_rows, state.length):
            given = values[part.in_block]
            # Of a chunk that is larger than the buffer, nothing ever waits.
            if rows_of(state, part.chunk) * (state.row_bytes + 1) > self._limit:
                tasks.append(partial(write_rows, column, state, part.chunk, part.in_chunk, given))
                continue
            if len(given) == state.chunk_rows:
                tasks.append(partial(self._write_whole, column, state, part, given))
                continue
            key, chunk = self._put(column, state, part, given)
            if chunk.is_full:
                tasks.append(partial(self._write, key, chunk))
        return tasks

    def _put(
        self, column: Column, state: ColumnState, part: Part, values: Array
    ) -> tuple[_Key, _WaitingChunk]:
        key = _key(column, state, part.chunk)
        while True:
            chunk = self._find(key)
            is_new = chunk is None
            if chunk is None:
                chunk = _WaitingChunk(column, state, part.chunk)
                self._make_room(chunk.size)
            with chunk.lock:
                if chunk.is_done:
                    self._remove(key, chunk)
                    continue
                chunk.put(column, state, part.in_chunk, values)
                if not is_new:
                    return key, chunk
                with self._lock:
                    is_first = self._waiting.setdefault(key, chunk) is chunk
            if is_first:
                wait(self)
                return key, chunk

    def _find(self, key: _Key) -> _WaitingChunk | None:
        with self._lock:
            chunk = self._waiting.get(key)
            if chunk is not None:
                self._waiting.move_to_end(key)
            return chunk

    def _remove(self, key: _Key, chunk: _WaitingChunk) -> None:
        with self._lock:
            if self._waiting.get(key) is chunk:
                del self._waiting[key]

    def _make_room(self, size: int) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                if sum(chunk.size for chunk in self._waiting.values()) + size <= self._limit:
                    return
                key, chunk = next(iter(self._waiting.items()))
            self._write(key, chunk)

    # ---- what goes

    def _write(self, key: _Key, chunk: _WaitingChunk) -> None:
        try:
            with chunk.lock:
                chunk.write()
        finally:
            if chunk.is_done:
                self._remove(key, chunk)

    def _write_whole(self, column: Column, state: ColumnState, part: Part, values: Array) -> None:
        """Write all rows of a chunk; what has waited of them is done with."""
        key = _key(column, state, part.chunk)
        chunk = self._find(key)
        if chunk is None:
            write_rows(column, state, part.chunk, part.in_chunk, values)
            return
        with chunk.lock:
            write_rows(column, state, part.chunk, part.in_chunk, values)
            chunk.is_done = True
        self._remove(key, chunk)

    def write_back(self, names: Collection[str] | None = None, block: Block | None = None) -> None:
        """Write what waits: of some columns only, or of chunks that hold rows of a block.

        Raises
        ------
        RatZarrError
            The first error, once all were tried; also those of earlier attempts that nobody
            was there to be told of. It has the others as notes.
        """
        with self._lock:
            chosen = [
                (key, chunk)
                for key, chunk in self._waiting.items()
                if (names is None or chunk.column.name in names) and _touches(chunk, block)
            ]
            told = [error for name, error in self._given_up if names is None or name in names]
            self._given_up = [each for each in self._given_up if each[1] not in told]
        if chosen:
            told += [error for error in self._try(chosen) if error is not None]
        if told:
            for other in told[1:]:
                told[0].add_note("\n".join(["and:", str(other), *getattr(other, "__notes__", ())]))
            raise told[0]

    def _try(self, chosen: list[tuple[_Key, _WaitingChunk]]) -> list[RatZarrError | None]:
        def attempt(key: _Key, chunk: _WaitingChunk) -> RatZarrError | None:
            try:
                self._write(key, chunk)
            except RatZarrError as error:
                return error
            return None

        return run([partial(attempt, *each) for each in chosen])

    def drop(self, name: str) -> None:
        """Give up what waits of a column, without a word: it was deleted by who wrote it."""
        with self._lock:
            chosen = [each for each in self._waiting.items() if each[1].column.name == name]
            self._given_up = [each for each in self._given_up if each[0] != name]
        for key, chunk in chosen:
            with chunk.lock:
                chunk.is_done = True
            self._remove(key, chunk)

    def write_due(self, before: float) -> None:
        """Write what waits since before a time, where nobody can be told of errors."""
        with self._lock:
            chosen = [each for each in self._waiting.items() if each[1].since <= before]
        for (_, chunk), error in zip(chosen, self._try(chosen), strict=True):
            if error is not None and not chunk.is_done:
                chunk.since = time.monotonic()
            elif error is not None:
                with self._lock:
                    self._given_up.append((chunk.column.name, error))

    def waits_since(self) -> float | None:
        """Return since when the first row waits; None where none does."""
        with self._lock:
            return min((chunk.since for chunk in self._waiting.values()), default=None)


def rows_of(state: ColumnState, chunk: int) -> int:
    """Return how many rows a column has in a chunk."""
    return min(state.chunk_rows, state.length - chunk * state.chunk_rows)


def _key(column: Column, state: ColumnState, chunk: int) -> _Key:
    # A column that was created anew is another one.
    return column.prefix, state.kind, chunk


def _touches(chunk: _WaitingChunk, block: Block | None) -> bool:
    if block is None:
        return True
    return chunk.first < block.stop and block.start < chunk.first + chunk.state.chunk_rows
