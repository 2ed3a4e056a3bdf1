"""Threads and back-off.

- :func:`run` and :func:`stream` run independent tasks in one thread pool. A single limit holds for
  all requests of the process.
- :class:`Attempts` waits a random, growing time after a lost race, so that writers that collided once
  do not collide again.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np

from ratzarr.settings import requests

__all__ = [
    "PATIENCE",
    "PROCESSORS",
    "TRIES",
    "Attempts",
    "request_slot",
    "run",
    "stream",
]


TRIES = 60
"""Number of lost races after which a change gives up, because more than bad luck is at work."""
PATIENCE = 120.0
"""Default time limit of all attempts of a change, in seconds."""


class Attempts:
    """The attempts of one change, with a pause before each except the first.

        for attempt in (attempts := Attempts(patience)):
            ...
        raise ConflictError(f"others came first {attempts}")

    Parameters
    ----------
    patience : float
        Seconds after which no further attempt is made.
    """  # fmt: skip

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience, self._began = patience, time.monotonic()
        self._count = 0

    def __iter__(self) -> Iterator[int]:
        for attempt in range(TRIES):
            if attempt:
                wait = random.uniform(0, min(0.5, 0.005 * 2 ** min(attempt, 10)))  # noqa: S311 - spreads load, not for security
                if time.monotonic() + wait > self._began + self._patience:
                    return
                time.sleep(wait)
            self._count = attempt + 1
            yield attempt

    def __str__(self) -> str:
        times = "once" if self._count == 1 else f"{self._count} times"
        return f"{times} in {time.monotonic() - self._began:.1f} s"


LARGEST_OF_MALLOC = 2**25 - 2**16
"""Largest size that glibc's malloc serves from freed memory; larger pieces come from the
system."""

# glibc returns freed memory to the system and requests it again for each chunk, until the program
# has freed one large piece; it then raises its threshold (mallopt(3), M_MMAP_THRESHOLD). This
# frees such a piece at import. The memory is not touched, so it takes no time, and with another
# malloc it has no effect.
np.empty(LARGEST_OF_MALLOC, np.uint8)

INLINE_SECONDS = 0.0002
"""Tasks that take fewer seconds run in the caller's thread: a thread would cost more."""

WAITS = 0.0005
"""Waiting time of a task that waits for a disk or a server, in seconds; locks mostly take less."""

PROCESSORS = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
"""The number of processors that this process may use."""

type _Key = tuple[int, int]

_pools: dict[_Key, ThreadPoolExecutor] = {}
_slots: dict[_Key, threading.Semaphore] = {}
_lock = threading.Lock()
_inside = threading.local()
if hasattr(os, "register_at_fork"):
    # In a forked child, the thread that held it does not exist and would never release it.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release,
                        after_in_child=_lock.release)  # fmt: skip


def _mine[T](made: dict[_Key, T], make: Callable[[int], T]) -> T:
    # Keyed by process, because a pool's threads do not survive a fork.
    key = os.getpid(), requests()
    with _lock:
        if key not in made:
            for other in [other for other in made if other[0] != key[0]]:
                del made[other]
            made[key] = make(key[1])
        return made[key]


def _pool() -> ThreadPoolExecutor:
    return _mine(_pools, lambda most: ThreadPoolExecutor(most, "ratzarr"))


def request_slot() -> threading.Semaphore:
    """Return a context manager to hold during a request: ``with request_slot(): ...``.

    The thread pool alone does not limit requests, because a block of one chunk is read in its
    caller's thread, and a program may have any number of those. While holding a slot, do not wait
    for another request.
    """
    return _mine(_slots, threading.Semaphore)


def _flagged[T](task: Callable[[], T]) -> T:
    _inside.worker = True
    try:
        return task()
    finally:
        _inside.worker = False


def _submitted[T](task: Callable[[], T]) -> Future[T]:
    """Submit a task to the pool; run it here if the pool takes no more."""
    pool = _pool()
    try:
        return pool.submit(_flagged, task)
    except RuntimeError:
        # atexit handlers run after the pools have ended and must do their work themselves.
        pass
    except BaseException:
        # Ctrl-C while a thread of the pool started. The pool does not know this thread, which would
        # wait for tasks for ever, and the process for the thread.
        with _lock:
            for key in [key for key, other in _pools.items() if other is pool]:
                del _pools[key]
        pool.shutdown(wait=False)
        raise
    future: Future[T] = Future()
    future.set_result(task())
    return future


def run[T](
    tasks: Sequence[Callable[[], T]], few: int | None = None, *, quick: bool = False
) -> list[T]:
    """Run the tasks and return their results, in order.

    If a task fails, tasks that have not started are dropped, running ones are awaited, and the
    first error is raised. If a task calls this function, its own tasks run one after another,
    because waiting for a place in the pool while holding one could deadlock.

    Parameters
    ----------
    few : int, optional
        The number of threads that are enough for tasks that rarely wait. Each thread runs several
        tasks, which costs less than submitting every task to the pool.
    quick : bool
        With ``few``: the tasks may be very fast. They run in the calling thread, until two of them
        have been slow. If these did not wait, no more threads than processors run the others,
        because they would wait for each other's locks.
    """
    if few is not None and (quick or few < len(tasks)):
        return _run_in_few(tasks, few, quick=quick)
    if len(tasks) <= 1 or getattr(_inside, "worker", False):
        return [task() for task in tasks]
    futures: list[Future[T]] = []
    try:
        futures.extend(map(_submitted, tasks))
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled() and (error := future.exception()) is not None:
            raise error
    return [future.result() for future in futures]


def _run_in_few[T](tasks: Sequence[Callable[[], T]], threads: int, *, quick: bool) -> list[T]:
    results: dict[int, T] = {}
    # Drawing from the list is atomic.
    numbers = iter(range(len(tasks)))
    failed = False
    waited: list[float] = []
    # The first task of its kind may load modules.
    while quick and len(waited) < 2 and (number := next(numbers, None)) is not None:
        began, worked = time.perf_counter(), time.thread_time()
        results[number] = tasks[number]()
        took = time.perf_counter() - began
        if took > INLINE_SECONDS:
            waited.append(took - (time.thread_time() - worked))
    if waited and min(waited) < WAITS:
        threads = min(threads, max(2, PROCESSORS))

    def work() -> None:
        nonlocal failed
        try:
            for number in numbers:
                if failed:
                    return
                results[number] = tasks[number]()
        except BaseException:
            failed = True
            raise

    if len(results) < len(tasks):
        run([work] * min(threads, len(tasks) - len(results)))
    return [results[number] for number in range(len(tasks))]


def stream[T](tasks: Iterable[Callable[[], T]], window: int | None = None) -> Iterator[T]:
    """Run tasks drawn from an endless iterable, and yield their results in order.

    At most ``window`` tasks (by default twice the number in flight) are drawn before the first
    result is taken, so memory does not grow with their number. When the caller stops early,
    running tasks are awaited.
    """
    if getattr(_inside, "worker", False):
        yield from (task() for task in tasks)
        return
    window = window or 2 * requests()
    futures: deque[Future[T]] = deque()
    try:
        for task in tasks:
            futures.append(_submitted(task))
            if len(futures) >= window:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
