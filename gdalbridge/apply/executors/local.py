"""Executors in this process, and the order of results that all executors share."""

import contextvars
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from gdalbridge.errors import ExecutorError

__all__ = [
    "Executor",
    "SerialExecutor",
    "ThreadExecutor",
    "in_order",
    "processors",
    "settle",
    "window",
]


class Executor(Protocol):
    """Maps a function over items; results come in the items' order."""

    @property
    def kind(self) -> str:
        """``"serial"``, ``"threads"``, ``"processes"`` or ``"dask"``."""

    @property
    def in_process(self) -> bool:
        """True if tasks use the caller's own objects, so that nothing is pickled."""

    @property
    def workers(self) -> int:
        """Number of items that run at once."""

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in the order of the items.

        Parameters
        ----------
        task : callable
            A function of one item. Each worker process gets it once, not with each item.
        items : iterable
            Read in the caller's thread while the caller takes results.
        ahead : int, optional
            Maximum number of items in progress: read, but their results not yet taken. By default
            enough to keep all workers busy.

        Notes
        -----
        If the iterator is closed or an item fails, waiting items are cancelled, and the call
        returns only when running items have ended. If a worker is lost, another one repeats its
        items. So a task may run several times for one item, and must have the same effect each
        time.
        """

    def close(self) -> None:
        """Release threads, processes and connections."""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def window(ahead: int | None, workers: int) -> int:
    """Return how many items may be in progress; by default two for each worker."""
    return 2 * workers if ahead is None else max(1, ahead)


def in_order[T, R, P](
    begin: Callable[[int, T], P],
    items: Iterable[T],
    ahead: Callable[[], int],
    abandon: Callable[[Sequence[P], bool], None],
    result: Callable[[P], R],
) -> Generator[R]:
    """Yield results in the order of the items.

    Parameters
    ----------
    begin : callable
        Takes an item's number and the item, starts the item, and returns a handle at once.
    ahead : callable
        Returns how many items may be in progress. It is called for each item, because the number
        of workers may change.
    abandon : callable
        Called if an item fails or no more results are wanted. Takes the handles of all items in
        progress, and True if the user pressed Ctrl-C.
    result : callable
        Takes a handle, waits, and returns the item's result.
    """
    waiting: deque[P] = deque()
    numbered = enumerate(items)
    more = True
    try:
        while True:
            while more and len(waiting) < ahead():
                more = _begun(numbered, begin, waiting)
            if not waiting:
                return
            yield _first(waiting, result)
    except BaseException as error:
        abandon(waiting, _by_keyboard(error))
        raise


# These are functions so that no variable of the generator keeps a block while the caller runs.


def _begun[T, P](
    numbered: "enumerate[T]", begin: Callable[[int, T], P], waiting: deque[P]
) -> bool:
    for number, item in numbered:
        waiting.append(begin(number, item))
        return True
    return False


def _first[R, P](waiting: deque[P], result: Callable[[P], R]) -> R:
    # The handle stays in the queue while waiting, so that Ctrl-C abandons this item too.
    value = result(waiting[0])
    waiting.popleft()
    return value


def _by_keyboard(error: BaseException) -> bool:
    # If Ctrl-C makes the caller close the iterator, the KeyboardInterrupt is in the context chain
    # of the GeneratorExit, even through other generators.
    reason: BaseException | None = error
    while isinstance(reason, GeneratorExit):
        reason = reason.__context__
    return isinstance(reason, KeyboardInterrupt)


def settle(futures: Sequence[Future[Any]], hurry: Callable[[], None] | None = None) -> None:
    """Cancel waiting futures, and wait for running ones.

    Parameters
    ----------
    hurry : callable, optional
        Called if the user presses Ctrl-C while waiting; ends the running futures.
    """
    for future in futures:
        future.cancel()
    try:
        wait(futures)
    except KeyboardInterrupt:
        if hurry is not None:
            hurry()
            wait(futures)
        raise


class SerialExecutor:
    """Runs each item in the caller's thread when its result is taken; see :class:`Executor`."""

    kind = "serial"
    in_process = True
    workers = 1

    def results[T, R](
        self,
        task: Callable[[T], R],
        items: Iterable[T],
        *,
        ahead: int | None = None,
    ) -> Generator[R]:
        """Yield the task's result for each item."""
        for item in items:
            yield task(item)

    def close(self) -> None:
        """Do nothing."""


class ThreadExecutor:
    """Runs items in several threads; see :class:`Executor`.

    Threads run at the same time in numpy, codecs and requests, and take turns in Python code.
    """

    kind = "threads"
    in_process = True

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or processors()
        self._pool = ThreadPoolExecutor(self.workers, "executor")
        self._closed = False

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in order."""
        if self._closed:
            raise ExecutorError("this executor of threads is closed")

        def begin(_: int, item: T) -> Future[R]:
            # Context variables of the caller, such as numpy's errstate, apply in the thread too.
            return self._pool.submit(contextvars.copy_context().run, task, item)

        def abandon(futures: Sequence[Future[R]], _: bool) -> None:
            settle(futures)

        most = window(ahead, self.workers)
        yield from in_order(begin, items, lambda: most, abandon, Future.result)

    def close(self) -> None:
        """End the threads."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
