"""An executor that somebody else has made, and uses again afterwards."""

from collections.abc import Callable, Generator, Iterable

from .protocol import Executor

__all__ = ["BorrowedExecutor"]


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
