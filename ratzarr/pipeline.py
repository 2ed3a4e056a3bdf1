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
from contextlib import ExitStack, closing
from itertools import islice
from os import PathLike, fspath
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ratzarr.concurrency import PROCESSORS, run
from ratzarr.settings import requests
from ratzarr.stores.base import parse

__all__ = [
    "IN_FLIGHT_BYTES",
    "MAX_IN_FLIGHT",
    "PROCESSORS",
    "ReadAhead",
    "at_once",
    "in_threads",
    "is_remote",
    "max_blocks",
    "memory_of",
    "run",
    "write_behind",
]


MAX_IN_FLIGHT = 32
"""Largest number of blocks, even for small ones: their requests to a distant server wait
together."""
IN_FLIGHT_BYTES = 72 * 2**20
"""Memory for the blocks: six or more of 500 000 rows of numbers, one or two of text."""
TEXT_BYTES = 16
"""Assumed bytes of a text that has not been read yet."""
NUMBERS, TEXTS = 3, 10
"""Approximate number of copies of a block's bytes in memory."""


def max_blocks() -> int:
    """Return the largest number of blocks in flight: RATZARR_REQUESTS limits it, too."""
    return min(MAX_IN_FLIGHT, requests())


def at_once(dtype: np.dtype[Any], rows: int) -> int:
    """Return the number of blocks in flight, for values not read yet."""
    text = dtype.kind in "TO"
    row = TEXTS * (dtype.itemsize + TEXT_BYTES) if text else NUMBERS * dtype.itemsize
    return max(1, min(max_blocks(), IN_FLIGHT_BYTES // max(1, row * rows)))


def memory_of(values: NDArray[Any]) -> int:
    """Return the approximate memory of a block in flight."""
    if values.dtype.kind == "T":
        return TEXTS * (values.nbytes + int(np.strings.str_len(values).sum()))
    if values.dtype.kind == "O":
        return TEXTS * (values.nbytes + sum(map(len, values.tolist())))
    return NUMBERS * values.nbytes


class Table(Protocol):
    """A :class:`ratzarr.RatZarr`."""

    filename: Any


def is_remote(table: Table) -> bool:
    """Return True if requests to a table have latency: it is not on a local disk."""
    place = table.filename
    return not isinstance(place, str | PathLike) or parse(fspath(place)).kind != "local"


MIN_READ_AHEAD = 2
"""Minimum number of blocks read ahead, of any size, so that neither side always waits."""


class ReadAhead[Item, Value]:
    """Items with the values read for them in other threads, in order.

    An iterator of pairs. Call :meth:`close` afterwards, or use :func:`contextlib.closing`.

    Parameters
    ----------
    items : iterable
        Blocks to read.
    read : callable
        Runs in ``threads`` other threads; use one thread if it reads through GDAL.
    ahead : int
        The number of items read, or being read, before they are requested.
    size : callable, optional
        Memory of a value in bytes. If given, ``max_bytes`` limits the number read ahead, as soon as a
        value has arrived.
    max_bytes : int
        Memory for all values read ahead, in bytes.
    like : callable, optional
        Groups items whose values have similar sizes; by default all. The largest value of a group
        so far is the assumed size of the next ones.
    guess : int, optional
        Assumed memory of a value before the first has arrived. If given, reading starts in the
        constructor, and at least one item is read ahead. By default reading starts with the first
        request, and at least two items are read ahead, whatever their size.

    Attributes
    ----------
    waited : float
        Seconds in which the consumer waited for values.
    """

    def __init__(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Value],
        *,
        threads: int = 1,
        ahead: int = 2,
        size: Callable[[Value], int] | None = None,
        max_bytes: int = 0,
        like: Callable[[Item], Hashable] = lambda _: None,
        guess: int | None = None,
    ) -> None:
        self._items, self._read = iter(items), read
        self._threads, self._ahead, self._size = threads, ahead, size
        self._max_bytes, self._like = max_bytes, like
        if guess is None:
            self._few, self._unknown = MIN_READ_AHEAD, max_bytes // MIN_READ_AHEAD
        else:
            self._few, self._unknown = 1, guess
        self._largest: dict[Hashable, int] = {}
        self._waiting: deque[tuple[Item, Future[Value]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._error: Exception | None = None
        self.waited = 0.0
        if guess is not None:
            self._fill(0)

    def _fill(self, requested: int) -> None:
        """Start reading items, ``requested`` more than may be read ahead."""
        while self._error is None and self._has_room(requested):
            try:
                item = next(self._items)
            except StopIteration:
                return
            except Exception as error:
                # Raised when the earlier values have been delivered.
                self._error = error
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "read-ahead")
            self._waiting.append((item, self._pool.submit(self._read, item)))

    def _has_room(self, requested: int) -> bool:
        count = len(self._waiting) - requested
        if count >= self._ahead or self._size is None:
            return count < self._ahead
        if count < min(self._ahead, self._few):
            return True
        ahead = islice(self._waiting, requested, None)
        weights = [self._largest.get(self._like(item), self._unknown) for item, _ in ahead]
        # The next item is not known yet: it is assumed to be like the last.
        return sum(weights) + weights[-1] <= self._max_bytes

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Item, Value]:
        self._fill(1)
        if not self._waiting:
            if self._error is not None:
                raise self._error
            raise StopIteration
        item, future = self._waiting.popleft()
        started = time.perf_counter()
        value = future.result()
        self.waited += time.perf_counter() - started
        if self._size is not None:
            kind = self._like(item)
            self._largest[kind] = max(self._largest.get(kind, 1), self._size(value))
        return item, value

    def close(self) -> None:
        """Stop all threads; wait for reads under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._items = iter(())
        self._waiting.clear()


def in_threads[Item, Value](
    items: Iterable[Item], load: Callable[[Item], Value], threads: int
) -> Generator[tuple[Item, Value]]:
    """Yield each item with what ``load`` returns for it, in order; computed in other threads."""
    with closing(ReadAhead(items, load, threads=threads, ahead=2 * threads)) as reading:
        yield from reading


def write_behind[Item, Value](
    pairs: Iterable[tuple[Item, Value]],
    write: Callable[[Item, Value], None],
    *,
    threads: int = 4,
    behind: int = 4,
    size: Callable[[Value], int] = lambda _: 0,
    max_bytes: int = 0,
) -> Generator[Item]:
    """Write each pair in another thread; yield each item once it is written, in order.

    Parameters
    ----------
    pairs : iterable
        From :class:`ReadAhead`, or pairs derived from its results.
    write : callable
        Runs in ``threads`` other threads.
    behind : int
        The number of unwritten pairs at which the next pair waits.
    size : callable, optional
        Memory of a value while it is being written, in bytes.
    max_bytes : int
        Memory for all unwritten values, in bytes. Large values reduce their number, but never
        below one.
    """
    waiting: deque[tuple[Item, Future[None], int]] = deque()
    taken = 0

    def first() -> Item:
        nonlocal taken
        item, future, weight = waiting.popleft()
        future.result()
        taken -= weight
        return item

    with ExitStack() as stack:
        # A write error stops the reading at once. After a read error, the values read before it
        # are still written.
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
            while waiting and taken + weight > max_bytes > 0:
                yield first()
            waiting.append((item, pool.submit(write, item, value), weight))
            taken += weight
            # Drop this reference: it would keep one block more than the memory allows.
            del value
            # Yield finished items promptly, so that progress stays current.
            while waiting and (len(waiting) > behind or waiting[0][1].done()):
                yield first()
        while waiting:
            yield first()
        if error is not None:
            # Values read before the error are still written.
            raise error
