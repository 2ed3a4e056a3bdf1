"""Threads, back-off and reusable memory.

- :func:`run_bounded` and its relatives run independent pieces of work in one pool of threads. One
  limit holds for all requests of the process.
- :func:`pause` waits a random, growing time after a lost race, so that writers that collided once do
  not collide again.
- :func:`scratch` lends memory to read into. New memory is expensive, because the system must clear each
  page of it.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice

import numpy as np

from ratzarr.errors import ArgumentError

__all__ = [
    "IN_FLIGHT",
    "PATIENCE",
    "PROCESSORS",
    "REQUESTS_VARIABLE",
    "TRIES",
    "Attempts",
    "Room",
    "in_flight",
    "lent",
    "request_slot",
    "run",
    "stream",
]


TRIES = 60
"""After so many lost races something else than bad luck is at work."""
PATIENCE = 120.0
"""Seconds after which there is no further try, where nothing else was set."""


class Attempts:
    """The tries of one change, with a pause before each but the first.

        for attempt in (attempts := Attempts(patience)):
            ...
        raise ConflictError(f"others came first {attempts}")

    Parameters
    ----------
    patience : float
        Seconds after which there is no further try.
    """  # fmt: skip

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience, self._began = patience, time.monotonic()
        self._count = 0

    def __iter__(self) -> Iterator[int]:
        for attempt in range(TRIES):
            if attempt:
                wait = random.uniform(0, min(0.5, 0.005 * 2 ** min(attempt, 10)))  # noqa: S311 - spreads load, guards nothing
                if time.monotonic() + wait > self._began + self._patience:
                    return
                time.sleep(wait)
            self._count = attempt + 1
            yield attempt

    def __str__(self) -> str:
        times = "once" if self._count == 1 else f"{self._count} times"
        return f"{times} in {time.monotonic() - self._began:.1f} s"


KEPT = 8
"""Pieces that are kept for later."""
LARGEST = 8 * 2**20
"""Bytes of the largest that is."""

LARGEST_OF_MALLOC = 2**25 - 2**16
"""Bytes that glibc's malloc takes from what was freed at most: of more it asks the system."""

# glibc gives what is freed back to the system, and asks for it anew for each chunk, until a large
# piece was once freed: by that it sees that a program uses such (mallopt(3), M_MMAP_THRESHOLD).
# Most programs do so sooner or later; ours from the first chunk on. Nothing is touched, so it takes
# no time, and where malloc is another it does nothing.
np.empty(LARGEST_OF_MALLOC, np.uint8)

_free: list[bytearray] = []
# A list's pop() and append() are atomic: no lock is needed, nor could one be held in a fork.


class Room:
    """A piece of memory that grows with what is asked of it."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory

    def __call__(self, size: int) -> memoryview:
        """Return so many bytes, of any content: valid until it is called again or given back."""
        if len(self.memory) < size:
            self.memory = bytearray(size)
        return memoryview(self.memory)[:size]


@contextmanager
def lent() -> Iterator[Room]:
    """Lend some memory; nothing may refer to it afterwards."""
    try:
        room = Room(_free.pop())
    except IndexError:
        room = Room(bytearray())
    try:
        yield room
    finally:
        if len(_free) < KEPT and len(room.memory) <= LARGEST:
            _free.append(room.memory)


REQUESTS_VARIABLE = "RATZARR_REQUESTS"
IN_FLIGHT = 32
"""How many pieces of work are under way at once, unless the environment says otherwise."""
MOST = 1024
"""Each is a thread, and a connection: more would ask too much of either side."""

AT_ONCE = 0.0002
"""Seconds that a task takes which is over at once: little more than a thread takes to begin."""

WAITS = 0.0005
"""Seconds that a task waits which waits for a disk, or a server; for a lock it is less, mostly."""

PROCESSORS = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
"""That this process may use."""

type _Key = tuple[int, int]

_pools: dict[_Key, ThreadPoolExecutor] = {}
_slots: dict[_Key, threading.Semaphore] = {}
_lock = threading.Lock()
_inside = threading.local()
if hasattr(os, "register_at_fork"):
    # A thread that held it is not there in a forked child, and would never let go of it.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release,
                        after_in_child=_lock.release)  # fmt: skip


def in_flight() -> int:
    """Return how many pieces of work, and requests, may be under way at once.

    Raises
    ------
    ArgumentError
        Where the environment variable RATZARR_REQUESTS is not such a number.
    """
    text = os.environ.get(REQUESTS_VARIABLE)
    if not text:
        return IN_FLIGHT
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MOST:
        raise ArgumentError(
            f"the environment variable {REQUESTS_VARIABLE} is how many requests may be under way "
            f"at once, from 1 to {MOST}: got {text!r}"
        )
    return int(text)


def _mine[T](made: dict[_Key, T], make: Callable[[int], T]) -> T:
    # Keyed by process: the threads of a pool do not survive a fork.
    key = os.getpid(), in_flight()
    with _lock:
        if key not in made:
            for other in [other for other in made if other[0] != key[0]]:
                del made[other]
            made[key] = make(key[1])
        return made[key]


def _pool() -> ThreadPoolExecutor:
    return _mine(_pools, lambda most: ThreadPoolExecutor(most, "ratzarr"))


def request_slot() -> threading.Semaphore:
    """Return what to hold during a request: ``with request_slot(): ...``.

    The pool alone would not bound them: a block of one chunk is read in its caller's own
    thread, and there can be any number of those. Nothing that waits for another request may
    be done while one is held.
    """
    return _mine(_slots, threading.Semaphore)


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


def run[T](
    tasks: Sequence[Callable[[], T]],
    few: int | None = None,
    *,
    quick: bool = False,
    short: bool = False,
    processors: int = PROCESSORS,
    waits: float = WAITS,
) -> list[T]:
    """Run the tasks and return their results, in order.

    When one fails, those not yet begun are dropped, those under way are waited for
    (nothing goes on behind the caller's back), and the first error is raised. A task
    that calls this in turn has its own tasks run one after another: waiting for a place
    in the pool while holding one could wait for ever.

    Parameters
    ----------
    few : int, optional
        How many threads are enough, for tasks that hardly wait for anything: each takes one task
        after the other, which costs less than to hand each to the pool.
    quick : bool
        Where few are enough: the tasks may well be over at once. Then they are done here, as
        threads would but wait for each other.
    short : bool
        Where few are enough: each task is short, and calls the system several times. If they don't
        wait for it, no more threads are used than there are processors: they would wait for each
        other, at each call.
    processors : int
        How many threads are enough for short tasks that wait for nothing, if two or more.
    waits : float
        Seconds: a short task that waits for less waits for nothing.
    """
    if not tasks:
        return []
    if few is not None and (quick or few < len(tasks)):
        return _run_in_few(
            tasks, few, quick=quick, short=short, processors=processors, waits=waits
        )
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


def _run_in_few[T](
    tasks: Sequence[Callable[[], T]],
    threads: int,
    *,
    quick: bool,
    short: bool,
    processors: int,
    waits: float,
) -> list[T]:
    results: dict[int, T] = {}
    # What is drawn from is atomic.
    numbers = iter(range(len(tasks)))
    slow, failed = 0, False
    # The first of its kind may have something to load.
    while quick and slow < 2 and (number := next(numbers, None)) is not None:
        began = time.perf_counter()
        results[number] = tasks[number]()
        slow += time.perf_counter() - began > AT_ONCE

    if short and len(tasks) > 2 * threads:
        waited = []
        for number in islice(numbers, 2):
            began = time.perf_counter() - time.thread_time()
            results[number] = tasks[number]()
            waited.append(time.perf_counter() - time.thread_time() - began)
        if waited and min(waited) < waits:
            threads = min(threads, max(2, processors))

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
    """Run tasks as they are drawn from an iterable without end, and yield results in order.

    No more than ``window`` tasks (by default twice as many as are under way) are drawn
    before the result of the first of them is taken: memory doesn't grow with their number.
    What is under way is waited for when the caller stops early.
    """
    if getattr(_inside, "worker", False):
        yield from (task() for task in tasks)
        return
    window = window or 2 * in_flight()
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
