"""Results in order, of work that is done in any order, a bounded number of pieces at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, wait
from typing import Any

__all__ = ["in_order", "settle"]


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
