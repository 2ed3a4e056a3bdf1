"""Read ahead, work, write behind, with a bounded number of blocks in memory.

While one block is worked on, the next ones are read and the last ones written. This keeps both cores
busy on a local disk and hides the latency of S3. The number of blocks follows from their size:

>>> import numpy as np
>>> memory_of(np.zeros(1000)), at_once(np.dtype("f8"), 500_000), at_once(np.dtype("f8"), 1000)
(24000, 6, 32)
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, islice
from os import PathLike, fspath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ratzarr.concurrency import PROCESSORS, run
from ratzarr.stores.base import parse
from ratzarr.table import RatZarr

__all__ = [
    "MOST",
    "PROCESSORS",
    "ROOM",
    "ReadAhead",
    "at_once",
    "is_far",
    "memory_of",
    "read_ahead",
    "run",
    "write_behind",
]


MOST = 32
"""However small they are: then all wait together for a server that is far away."""
ROOM = 72 * 2**20
"""Bytes for them: of 500 000 rows of numbers six or more at once, of text one or two."""
TEXT_BYTES = 16
"""Of a text that has not been read yet."""
NUMBERS, TEXTS = 3, 10
"""How often a block's bytes are there, about."""


def at_once(dtype: np.dtype[Any], rows: int) -> int:
    """Return how many blocks of so many rows may be under way at once, of values not seen yet."""
    text = dtype.kind in "TO"
    row = TEXTS * (dtype.itemsize + TEXT_BYTES) if text else NUMBERS * dtype.itemsize
    return max(1, min(MOST, ROOM // max(1, row * rows)))


def memory_of(values: NDArray[Any]) -> int:
    """Return what a block takes in memory, about, while it is under way."""
    if values.dtype.kind == "T":
        return TEXTS * (values.nbytes + int(np.strings.str_len(values).sum()))
    if values.dtype.kind == "O":
        return TEXTS * (values.nbytes + sum(map(len, values.tolist())))
    return NUMBERS * values.nbytes


def is_far(table: RatZarr) -> bool:
    """Return whether requests to a table are waited for: it is on no local disk."""
    place = table.filename
    return not isinstance(place, str | PathLike) or parse(fspath(place)).kind != "local"


FEW = 2
"""Read ahead, however large they are: else one side would always wait for the other."""


def read_ahead[Item, Value](
    items: Iterable[Item],
    read: Callable[[Item], Value],
    *,
    threads: int = 1,
    ahead: int = 2,
    size: Callable[[Value], int] | None = None,
    room: int = 0,
    like: Callable[[Item], Hashable] = lambda _: None,
) -> Generator[tuple[Item, Value]]:
    """Yield each item with what was read for it, in order.

    Parameters
    ----------
    items : iterable
        Blocks to read.
    read : callable
        Runs in other threads, ``threads`` of them. (One, where it reads through GDAL.)
    ahead : int
        How many are read, or being read, before they are asked for.
    size : callable, optional
        Bytes of memory that a value takes. Where it is given, two are read ahead before one has
        come, and from then on as many as there is room for if they are like the largest so far.
    room : int
        Bytes for all that are read ahead.
    like : callable, optional
        Which items have values that are alike in size: by default all.
    """
    items = iter(items)
    first_two = list(islice(items, 2))
    if len(first_two) < 2:
        # A thread would only be waited for.
        for only in first_two:
            yield only, read(only)
        return
    items = chain(first_two, items)
    waiting: deque[tuple[Item, Future[Value]]] = deque()
    few = min(ahead, FEW)
    largest: dict[Hashable, int] = {}

    def too_many() -> bool:
        if len(waiting) > ahead or size is None:
            return len(waiting) > ahead
        weights = (largest.get(like(item), room // FEW) for item, _ in waiting)
        return len(waiting) > few and sum(weights) > room

    with ExitStack() as stack:
        pool = ThreadPoolExecutor(threads, "read-ahead")
        # Whoever stops asking (an error, Ctrl-C) leaves nothing running behind.
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        error: Exception | None = None
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as reason:
                error = reason
                break
            waiting.append((item, pool.submit(read, item)))
            while too_many():
                first, future = waiting.popleft()
                value = future.result()
                if size is not None:
                    largest[like(first)] = max(largest.get(like(first), 1), size(value))
                yield first, value
                # Held here too, it would be one block more than there is room for.
                del future, value
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
        if error is not None:
            # What came before it is as good as ever.
            raise error


class ReadAhead[Item, Value]:
    """Read ahead as :func:`read_ahead` does, from this moment on, and within so many bytes.

    An iterator of pairs of an item and what was read for it, in order; :meth:`close` it.

    Parameters
    ----------
    items : iterable
        Blocks to read.
    read : callable
        Runs in other threads, ``threads`` of them.
    ahead : int
        How many are read, or being read, before they are asked for.
    size : callable
        Bytes of memory that a value takes.
    room : int
        Bytes for all that are read and not asked for: fewer are, where the last ones were
        large, but always one.
    guess : int
        Bytes that a value takes, before one has been read.
    """

    def __init__(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Value],
        *,
        threads: int,
        ahead: int,
        size: Callable[[Value], int],
        room: int,
        guess: int,
    ) -> None:
        self._items, self._read = iter(items), read
        self._ahead, self._size, self._room, self._each = ahead, size, room, guess
        self._waiting: deque[tuple[Item, Future[Value]]] = deque()
        self._pool = ThreadPoolExecutor(threads, "read-ahead")
        self.waited = 0.0
        """Seconds in which nothing was there to be handed out yet."""
        self._fill()

    def _fill(self) -> None:
        while len(self._waiting) < self._ahead and (
            not self._waiting or (len(self._waiting) + 1) * self._each <= self._room
        ):
            try:
                item = next(self._items)
            except StopIteration:
                return
            self._waiting.append((item, self._pool.submit(self._read, item)))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Item, Value]:
        if not self._waiting:
            raise StopIteration
        item, future = self._waiting.popleft()
        started = time.perf_counter()
        value = future.result()
        self.waited += time.perf_counter() - started
        self._each = self._size(value)
        self._fill()
        return item, value

    def close(self) -> None:
        """Leave nothing running behind."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()


def write_behind[Item, Value](
    pairs: Iterable[tuple[Item, Value]],
    write: Callable[[Item, Value], None],
    *,
    threads: int = 4,
    behind: int = 4,
    size: Callable[[Value], int] = lambda _: 0,
    room: int = 0,
) -> Generator[Item]:
    """Write each pair in another thread; yield each item once it is written, in order.

    Parameters
    ----------
    pairs : iterable
        From :func:`read_ahead`, or made of it.
    write : callable
        Runs in other threads, ``threads`` of them.
    behind : int
        How many may be unwritten before the next is asked for.
    size : callable, optional
        Bytes of memory that a value takes while it is being written.
    room : int
        Bytes for all that are unwritten: fewer are, where they are large, but never none.
    """
    waiting: deque[tuple[Item, Future[None], int]] = deque()
    taken = 0
    with ExitStack() as stack:
        # An error in a write stops the reading as well, and at once; an error in a read leaves
        # what was read before it to be written.
        close = getattr(pairs, "close", None)
        if close is not None:
            stack.callback(close)
        pool = ThreadPoolExecutor(threads, "write-behind")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        error: Exception | None = None
        pairs = iter(pairs)
        while True:
            try:
                item, value = next(pairs)
            except StopIteration:
                break
            except Exception as reason:
                error = reason
                break
            weight = size(value)
            while waiting and taken + weight > room > 0:
                first, future, freed = waiting.popleft()
                future.result()
                taken -= freed
                yield first
            waiting.append((item, pool.submit(write, item, value), weight))
            taken += weight
            # Held here too, it would be one block more than there is room for.
            del value
            # Whoever shows how far it is is told at once.
            while waiting and (len(waiting) > behind or waiting[0][1].done()):
                first, future, freed = waiting.popleft()
                future.result()
                taken -= freed
                yield first
        while waiting:
            first, future, _ = waiting.popleft()
            future.result()
            yield first
        if error is not None:
            # What was read before it is written.
            raise error
