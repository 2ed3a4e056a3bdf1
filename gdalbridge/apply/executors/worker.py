"""What runs in a worker process: it takes a function over, and applies it to items."""

import os
import sys
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from typing import Any

from gdalbridge.apply.executors.pickling import Surroundings, dumps, loads, with_story
from gdalbridge.errors import NotSendableError

__all__ = ["apply", "watch_parent"]

LOOK = 1.0
"""Seconds between looks whether the parent is still there. As a rule the end of a pipe says so at
once; not, where another process that the parent forked holds that pipe open."""

_surroundings: Surroundings | None = None
_function: Callable[[Any], Any] | None = None


def watch_parent() -> None:
    """End this process as soon as its parent has ended: nobody waits for its results then."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    while parent is not None and os.getppid() == parent.pid:
        parent.join(LOOK)
    os._exit(1)


def apply(order: bytes | None, item: bytes) -> bytes:
    """Return ``(True, result)`` for an item, or ``(False, error)``, pickled.

    Parameters
    ----------
    order : bytes, optional
        A function with its surroundings, to be taken over first; by default the last one stays.
    """
    where = f"worker process {os.getpid()}"
    try:
        if order is not None:
            _take_over(order)
        assert _function is not None  # noqa: S101 - an order comes first
        result = _function(loads(item))
    # Also SystemExit: it ends the caller's program, as it would in the caller's own process.
    except BaseException as error:
        return dumps((False, with_story(error, where)))
    finally:
        # What a function prints is seen when it is done, and not lost with the process.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    try:
        return dumps((True, result))
    except Exception as error:
        refused = NotSendableError(
            f"what the function returned ({type(result).__name__}) can't be sent back from "
            f"another process: {type(error).__name__}: {error}"
        )
        return dumps((False, with_story(refused, where)))


def _take_over(order: bytes) -> None:
    global _surroundings, _function  # noqa: PLW0603 - of the whole process, as what is entered is
    try:
        surroundings, pickled = loads(order)
        surroundings.enter(_surroundings)
        _surroundings = surroundings
        # Only now: it may be found in a place that the surroundings tell of.
        _function = loads(pickled)
    except BaseException as error:
        error.add_note(
            "(while a worker process took over the function: are all modules that it uses "
            "to be found there?)"
        )
        raise
