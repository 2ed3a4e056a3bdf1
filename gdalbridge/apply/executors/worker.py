"""The code of a worker process: receive a function, and apply it to items."""

import os
import sys
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from typing import Any

from gdalbridge.apply.executors.pickling import Surroundings, dumps, loads, with_traceback
from gdalbridge.errors import NotSendableError

__all__ = ["apply", "watch_parent"]

CHECK_SECONDS = 1.0
"""Seconds between checks that the parent is alive. Usually a closed pipe shows its end at once, but
another process that the parent has forked may hold the pipe open."""

_surroundings: Surroundings | None = None
_function: Callable[[Any], Any] | None = None


def watch_parent() -> None:
    """End this process when its parent has ended, because its results are not needed then."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    while parent is not None and os.getppid() == parent.pid:
        parent.join(CHECK_SECONDS)
    os._exit(1)


def apply(order: bytes | None, item: bytes) -> bytes:
    """Return ``(True, result)`` for an item, or ``(False, error)``, pickled.

    Parameters
    ----------
    order : bytes, optional
        A pickled function with its surroundings. None keeps the last function.
    """
    where = f"worker process {os.getpid()}"
    try:
        if order is not None:
            _load(order)
        assert _function is not None  # noqa: S101 - an order comes first
        result = _function(loads(item))
    # This includes SystemExit, which ends the caller's program as it would without a worker.
    except BaseException as error:
        return dumps((False, with_traceback(error, where)))
    finally:
        # The function's output appears now, and is not lost if the process is killed.
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
        return dumps((False, with_traceback(refused, where)))


def _load(order: bytes) -> None:
    global _surroundings, _function  # noqa: PLW0603 - like the surroundings, one per process
    try:
        surroundings, pickled = loads(order)
        surroundings.enter(_surroundings)
        _surroundings = surroundings
        # The function may need the surroundings' path to be unpickled.
        _function = loads(pickled)
    except BaseException as error:
        error.add_note(
            "(while a worker process loaded the function: can the worker import all modules that "
            "the function uses?)"
        )
        raise
