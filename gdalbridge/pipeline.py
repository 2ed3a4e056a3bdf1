"""Read ahead, work, write behind: a bounded number of blocks in memory at any time.

While one block is worked on, the next are being read and the last ones written. The
same few lines serve a local disk, where they keep both cores busy, and S3, where they
hide the latency of each request.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, islice

__all__ = ["read_ahead", "write_behind"]


def read_ahead[Item, Value](
    items: Iterable[Item], read: Callable[[Item], Value], *, threads: int = 1, ahead: int = 2
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
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(threads, "read-ahead")
        # Whoever stops asking (an error, Ctrl-C) leaves nothing running behind.
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


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
        # An error in a write stops the reading as well, and at once.
        close = getattr(pairs, "close", None)
        if close is not None:
            stack.callback(close)
        pool = ThreadPoolExecutor(threads, "write-behind")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for item, value in pairs:
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
            if len(waiting) > behind:
                first, future, freed = waiting.popleft()
                future.result()
                taken -= freed
                yield first
        while waiting:
            first, future, _ = waiting.popleft()
            future.result()
            yield first
