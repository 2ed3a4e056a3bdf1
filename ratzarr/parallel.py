"""Independent pieces of work, a bounded number of them at a time.

Requests to an object store wait much longer than they work, and the codecs release the
interpreter's lock: threads serve both. One pool serves the whole process.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

__all__ = ["IN_FLIGHT", "run", "stream"]

IN_FLIGHT = 16
"""How many pieces of work are under way at once, at the most."""

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
_inside = threading.local()


def _pool() -> ThreadPoolExecutor:
    # Keyed by process: the threads of a pool do not survive a fork.
    with _lock:
        pool = _pools.get(os.getpid())
        if pool is None:
            _pools.clear()
            pool = _pools[os.getpid()] = ThreadPoolExecutor(IN_FLIGHT, "ratzarr")
        return pool


def _flagged[T](task: Callable[[], T]) -> T:
    _inside.worker = True
    try:
        return task()
    finally:
        _inside.worker = False


def _submitted[T](task: Callable[[], T]) -> Future[T] | None:
    """Give a task to the pool; None where the interpreter is ending, which ends all pools."""
    try:
        return _pool().submit(_flagged, task)
    except RuntimeError:
        # What is called at exit (atexit) comes after that, and has to do its work itself.
        return None


def run[T](tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run the tasks and return their results, in order.

    When one fails, those not yet begun are dropped, those under way are waited for
    (nothing goes on behind the caller's back), and the first error is raised. A task
    that calls this in turn has its own tasks run one after another: waiting for a place
    in the pool while holding one could wait for ever.
    """
    if len(tasks) <= 1 or getattr(_inside, "worker", False):
        return [task() for task in tasks]
    first = _submitted(tasks[0])
    if first is None:
        return [task() for task in tasks]
    futures: list[Future[T]] = [first]
    try:
        futures.extend(_pool().submit(_flagged, task) for task in tasks[1:])
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled() and (error := future.exception()) is not None:
            raise error
    return [future.result() for future in futures]


def stream[T](tasks: Iterable[Callable[[], T]], window: int = 2 * IN_FLIGHT) -> Iterator[T]:
    """Run tasks as they are drawn from an iterable without end, and yield results in order.

    No more than ``window`` tasks are drawn before the result of the first of them is
    taken: memory doesn't grow with their number. What is under way is waited for when
    the caller stops early.
    """
    if getattr(_inside, "worker", False):
        yield from (task() for task in tasks)
        return
    futures: deque[Future[T]] = deque()
    try:
        for task in tasks:
            future = _submitted(task)
            if future is None:
                future = Future()
                future.set_result(task())
            futures.append(future)
            if len(futures) >= window:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
