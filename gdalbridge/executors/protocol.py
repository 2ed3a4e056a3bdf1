"""What all executors have in common."""

import os
from collections.abc import Callable, Generator, Iterable
from typing import Protocol

__all__ = ["Executor", "processors", "window"]


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
