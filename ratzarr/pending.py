"""Changes that wait in memory are written even if their owner makes no further call.

A thread writes them when they are due. They are also written when the program or a worker process
ends, and before a fork. The child of a fork drops them; the parent writes them.
"""

import atexit
import functools
import gc
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakSet, finalize

from ratzarr.errors import RatZarrError

__all__ = ["PendingWrites", "is_ending", "write_after"]


IDLE = 10.0
"""The time after which the idle thread ends, in seconds."""


class PendingWrites(ABC):
    """Changes that wait in memory. Thread-safe."""

    seconds: float
    """The age in seconds at which changes are due."""

    def __init__(self) -> None:
        _watch_process()
        _known.add(self)

    def write_later(self) -> None:
        """Have the changes written when they are due; this object stays alive until then."""
        _process.add(self)

    def stop_waiting(self) -> None:
        """Take back :meth:`write_later`, because nothing waits any more."""
        with _process.changed:
            _process.waiting.discard(self)

    @abstractmethod
    def waits_since(self) -> float | None:
        """Return the time since which the oldest change waits; None if nothing waits.

        Infinity means that changes wait for the end of the program or a fork only. This method
        must not wait for a lock that is held during a write.
        """

    @abstractmethod
    def write_due(self, before: float) -> None:
        """Write changes that wait since before a time; keep errors for a later caller."""

    @abstractmethod
    def write_back(self) -> None:
        """Write all changes.

        Raises
        ------
        RatZarrError
        """

    @abstractmethod
    def forget(self) -> None:
        """Drop all changes, and replace all locks, in the child of a fork."""


class _Process:
    """The pending changes of this process, and the thread that writes them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset all fields; the child of a fork has none of its parent's threads."""
        self.changed = threading.Condition()
        self.waiting: set[PendingWrites] = set()
        """This set keeps them alive after all other references are gone."""
        self.thread: threading.Thread | None = None
        self.due_now: set[PendingWrites] = set()
        self.has_exit_handlers = False
        self.is_ending = False

    def add(self, pending: PendingWrites) -> None:
        """Register changes, so that they are written in time."""
        with self.changed:
            self.waiting.add(pending)
            if not self.has_exit_handlers:
                self.has_exit_handlers = True
                _register_exit_handlers()
            if self.thread is None:
                self.thread = threading.Thread(
                    target=self._work, name="ratzarr-writer", daemon=True
                )
                self.thread.start()
            self.changed.notify_all()

    def _work(self) -> None:
        while self._write_due():
            pass

    def _write_due(self) -> bool:
        """Wait for changes that are due, and write them; return False to end the thread."""
        with self.changed:
            found = [(one, one.waits_since()) for one in self.waiting]
            self.waiting = {one for one, since in found if since is not None}
            if not self.waiting:
                self.changed.wait(IDLE)
                if not self.waiting:
                    self.thread = None
                    return False
                return True
            due_now, self.due_now = self.due_now, set()
            due = min(since + one.seconds for one, since in found if since is not None)
            left = due - time.monotonic()
            if left > 0 and not due_now:
                del found
                self.changed.wait(min(left, IDLE))
                return True
            chosen = list(self.waiting)
        now = time.monotonic()
        for one in chosen:
            if one in due_now:
                _write(one)
            else:
                one.write_due(now - one.seconds)
        return True


_process = _Process()
_known: WeakSet[PendingWrites] = WeakSet()
"""All changes that the child of a fork drops."""
_here = threading.local()


def is_ending() -> bool:
    """Return True if the program is ending: no change that is made now is written later."""
    return _process.is_ending


@functools.cache
def _watch_process() -> None:
    gc.callbacks.append(_note_collection)
    # Register this with the first object, after all imports. Functions registered last are called
    # first before a fork, so at that time other modules don't hold their locks for the fork yet.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def _register_exit_handlers() -> None:
    # Register this now, not on import. Functions registered last are called first, so the rows are
    # written before connections opened earlier are closed.
    atexit.register(_write_all)
    # Forked processes of multiprocessing don't run atexit functions.
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            util.Finalize(None, _write_all, exitpriority=100)


def _write_all() -> None:
    """Write all changes at exit; report errors on stderr, because no caller can get them."""
    _process.is_ending = True
    with _process.changed:
        chosen, _process.waiting = _process.waiting, set()
    for one in chosen:
        _write(one)


def _write(pending: PendingWrites) -> None:
    try:
        pending.write_back()
    except RatZarrError as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        print(f"ratzarr: buffered rows were not written: {error}\n{notes}", file=sys.stderr)


def write_after(owner: object, *pending: PendingWrites) -> "finalize[..., Any]":
    """Write changes when their owner is no longer referenced; return the finalizer."""
    finalizer = finalize(owner, _write_remaining, pending)
    # At the end of the program, the exit handler writes them.
    finalizer.atexit = False
    return finalizer


def _write_remaining(pending: Iterable[PendingWrites]) -> None:
    """Write changes now or soon.

    The garbage collector can run in any thread at any time: in the thread that all S3 requests
    depend on, or while a lock that we need is held. In these cases the writer thread writes the
    changes later.
    """
    waiting = [one for one in pending if one.waits_since() is not None]
    if getattr(_here, "collecting", False) or threading.current_thread().daemon:
        with _process.changed:
            _process.due_now.update(waiting)
            _process.changed.notify_all()
        return
    for one in waiting:
        _write(one)


def _note_collection(phase: str, info: Mapping[str, Any]) -> None:
    _here.collecting = phase == "start"


def _before_fork() -> None:
    for one in list(_process.waiting):
        one.write_due(time.monotonic())


def _in_child() -> None:
    _process.reset()
    for one in list(_known):
        one.forget()
