"""Executors in this process: one thread, several threads, or an executor of the caller's."""

import contextvars
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from gdalbridge.errors import ExecutorError

__all__ = [
    "BorrowedExecutor",
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
        """Whether tasks see the caller's own objects, and nothing is pickled."""

    @property
    def workers(self) -> int:
        """How many items are worked on at once."""

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in the order of the items.

        Parameters
        ----------
        task : callable
            Is called with one item. Where that happens in another process it is sent there
            once, not with each item.
        items : iterable
            Is drawn from as results are taken, in the caller's own thread.
        ahead : int, optional
            How many items may have been drawn whose results were not taken yet; by default
            enough to keep all workers busy.

        Notes
        -----
        When the iterator is closed, or an item fails, what has not begun is cancelled and what
        has is waited for: nothing goes on behind the caller's back. A worker that is lost costs
        the items it had in hand, which another one does again: a task may run more than once for
        one item, and has to have the same effect then.
        """

    def close(self) -> None:
        """Let go of threads, processes and connections."""


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def window(ahead: int | None, workers: int) -> int:
    """Return how many items may be under way: so many that no worker waits for the next."""
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
        Is handed an item's number and the item; returns at once what to wait for.
    ahead : callable
        Says how many may be under way; is asked again and again, as workers come and go.
    abandon : callable
        Is handed what is still under way when an item failed or no more results are wanted, and
        whether that is because the user pressed Ctrl-C.
    result : callable
        Waits for what ``begin`` returned.
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


# Functions, so that no variable of the generator holds a block while the caller has its turn.


def _begun[T, P](
    numbered: "enumerate[T]", begin: Callable[[int, T], P], waiting: deque[P]
) -> bool:
    for number, item in numbered:
        waiting.append(begin(number, item))
        return True
    return False


def _first[R, P](waiting: deque[P], result: Callable[[P], R]) -> R:
    # Dropped only when it is there: were it Ctrl-C that ends the waiting, it is abandoned too.
    value = result(waiting[0])
    waiting.popleft()
    return value


def _by_keyboard(error: BaseException) -> bool:
    # Whoever closes the iterator while Ctrl-C is on its way through has it as the context, also
    # through other generators.
    reason: BaseException | None = error
    while isinstance(reason, GeneratorExit):
        reason = reason.__context__
    return isinstance(reason, KeyboardInterrupt)


def settle(futures: Sequence[Future[Any]], hurry: Callable[[], None] | None = None) -> None:
    """Cancel what has not begun, and wait for what has.

    Parameters
    ----------
    hurry : callable, optional
        Ends what has begun; is called when Ctrl-C is pressed during the waiting.
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


class BorrowedExecutor:
    """Another executor, which stays open when this one is closed; see :class:`Executor`."""

    def __init__(self, owned: Executor) -> None:
        self._owned = owned

    @property
    def kind(self) -> str:
        """The other's."""
        return self._owned.kind

    @property
    def in_process(self) -> bool:
        """The other's."""
        return self._owned.in_process

    @property
    def workers(self) -> int:
        """The other's."""
        return self._owned.workers

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in order."""
        return self._owned.results(task, items, ahead=ahead)

    def close(self) -> None:
        """Do nothing: its owner closes it."""


class SerialExecutor:
    """Does the work where the results are asked for; see :class:`Executor`."""

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
        """Do nothing: there is nothing to let go of."""


class ThreadExecutor:
    """Does the work in several threads; see :class:`Executor`.

    They work at the same time where numpy, the codecs or requests do, and take turns in
    Python's own code.
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
            # What is set for the caller alone (numpy's errstate, for one) holds there too.
            return self._pool.submit(contextvars.copy_context().run, task, item)

        def abandon(futures: Sequence[Future[R]], _: bool) -> None:
            settle(futures)

        most = window(ahead, self.workers)
        yield from in_order(begin, items, lambda: most, abandon, Future.result)

    def close(self) -> None:
        """End the threads."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
