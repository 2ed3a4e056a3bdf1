"""Executors within this process: one block after another, or in several threads."""

import contextvars
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import ExecutorError
from .inorder import in_order, settle
from .protocol import processors, window

__all__ = ["SerialExecutor", "ThreadExecutor"]


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
