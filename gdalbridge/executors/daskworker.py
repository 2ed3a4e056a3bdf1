"""What runs in Dask's workers: a function, unpickled once in each, applied to items."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from .pickling import loads, portable

__all__ = ["apply", "carried", "stop"]

KEPT = 8
"""Functions that a worker keeps unpickled: those of so many runs, the last used."""
REMEMBERED = 1000
"""Runs of which a worker knows that they are stopped."""

_tasks: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()
_stopped: OrderedDict[str, None] = OrderedDict()
_running: Counter[str] = Counter()
_lock = threading.Lock()


def carried(content: bytes) -> bytes:
    """Return what it is given: as a task of its own, a large function goes to a worker once."""
    return content


def apply(run: str, pickled: bytes, content: bytes) -> Any:
    """Return the result for an item; None where the run was stopped before."""
    with _lock:
        if run in _stopped:
            # Nobody waits for it: it was on its way here when it was cancelled.
            return None
        _running[run] += 1
    try:
        return _task(run, pickled)(loads(content))
    except Exception as error:
        sent = portable(error)
        if sent is error:
            raise
        raise sent from error
    finally:
        with _lock:
            _running[run] -= 1
            if not _running[run]:
                del _running[run]


def _task(run: str, pickled: bytes) -> Callable[[Any], Any]:
    with _lock:
        if run not in _tasks:
            _tasks[run] = loads(pickled)
            while len(_tasks) > KEPT:
                _tasks.popitem(last=False)
        _tasks.move_to_end(run)
        return _tasks[run]


def stop(run: str) -> int:
    """Begin no more of a run's items; return how many are still being worked on."""
    with _lock:
        _stopped[run] = None
        while len(_stopped) > REMEMBERED:
            _stopped.popitem(last=False)
        _tasks.pop(run, None)
        return _running[run]
