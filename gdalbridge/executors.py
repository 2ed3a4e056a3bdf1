"""Where the blocks of a script are worked on: one after another, or several at once."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from .errors import ExecutorError

__all__ = ["Executor", "make_executor"]


class Executor(Protocol):
    """Works on items, and gives the results back in their order."""

    in_process: bool
    """Whether tasks see the caller's objects, and nothing is pickled."""
    workers: int

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Iterator[R]:
        """Yield results in the order of items, at most ``ahead`` of them under way."""

    def close(self) -> None:
        """Let go of the workers."""


class _Serial:
    in_process = True
    workers = 1

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Iterator[R]:
        for item in items:
            yield task(item)

    def close(self) -> None:
        pass


class _Threads:
    in_process = True

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, "apply")

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Iterator[R]:
        futures: deque[Future[R]] = deque()
        try:
            for item in items:
                futures.append(self._pool.submit(task, item))
                if len(futures) >= (ahead or 2 * self.workers):
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_executor(kind: object = "serial", workers: int | None = None) -> Executor:
    """Return an executor by its name.

    Raises
    ------
    ExecutorError
        For one that there is not.
    """
    if kind == "serial":
        return _Serial()
    if kind == "threads":
        return _Threads(workers or os.cpu_count() or 1)
    raise ExecutorError(f"there is no executor {kind!r}: expected serial or threads")
