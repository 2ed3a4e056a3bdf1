"""When what waits in write buffers is written, if nobody asks for it.

After a second, by a thread of our own; when the last reference to an instance goes; when
the program, or a process of ``multiprocessing``, ends; before a fork. The child of a fork
forgets what waits: it is its parent's to write.
"""

import atexit
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakSet

from .errors import RatZarrError

__all__ = ["SECONDS", "Buffer", "know", "let_go", "wait"]

SECONDS = 1.0
"""How long rows wait at the most, about."""
IDLE = 10.0
"""Seconds after which the thread ends, if nothing waits."""


class Buffer(Protocol):
    """What waits of one instance."""

    def waits_since(self) -> float | None:
        """Return since when the first row waits; None where none does."""

    def write_due(self, before: float) -> None:
        """Write what waits since before a time; keep errors."""

    def write_back(self) -> None:
        """Write what waits."""

    def forget(self) -> None:
        """Be empty."""


class _Process:
    """What waits in this process, and the thread that sees to it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in the child of a fork, which has no thread but its own."""
        self.changed = threading.Condition()
        self.waiting: set[Buffer] = set()
        """Held here, whoever else has let go of them."""
        self.thread: threading.Thread | None = None
        self.hurried: set[Buffer] = set()
        self.ends_are_known = False

    def work(self) -> None:
        while True:
            with self.changed:
                found = [(buffer, buffer.waits_since()) for buffer in self.waiting]
                self.waiting = {buffer for buffer, since in found if since is not None}
                if not self.waiting:
                    self.changed.wait(IDLE)
                    if not self.waiting:
                        self.thread = None
                        return
                    continue
                hurried, self.hurried = self.hurried, set()
                oldest = min(since for _, since in found if since is not None)
                left = oldest + SECONDS - time.monotonic()
                if left > 0 and not hurried:
                    self.changed.wait(left)
                    continue
                buffers = list(self.waiting)
            now = time.monotonic()
            for buffer in buffers:
                buffer.write_due(now if buffer in hurried else now - SECONDS)


_process = _Process()
_known: WeakSet[Any] = WeakSet()
_here = threading.local()


def know(buffer: Buffer) -> None:
    """Know a buffer, that it may forget what waits in it where it was copied by a fork."""
    _watch_process()
    _known.add(buffer)


@functools.cache
def _watch_process() -> None:
    gc.callbacks.append(_note_collection)
    # Not before the first buffer is there, and all that it needs is imported: what is registered
    # last is called first before a fork, while nobody holds his locks for it yet.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def wait(buffer: Buffer) -> None:
    """See to it that what has begun to wait is written in time."""
    with _process.changed:
        _process.waiting.add(buffer)
        if not _process.ends_are_known:
            _process.ends_are_known = True
            _know_ends()
        if _process.thread is None:
            _process.thread = threading.Thread(
                target=_process.work, name="ratzarr-writer", daemon=True
            )
            _process.thread.start()
        _process.changed.notify_all()


def _know_ends() -> None:
    # Now, and not when this is imported: what was registered last is called first, and
    # connections are closed by then that were opened before.
    atexit.register(_write_all)
    # Processes of multiprocessing that are forks end without what atexit knows.
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import parent_process, util

        if parent_process() is not None:
            util.Finalize(None, _write_all, exitpriority=100)


def _write_all() -> None:
    """Write all that waits, and say on stderr what can't be: nobody comes after this."""
    with _process.changed:
        buffers, _process.waiting = _process.waiting, set()
    for buffer in buffers:
        _write(buffer)


def _write(buffer: Buffer) -> None:
    try:
        buffer.write_back()
    except RatZarrError as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        print(f"ratzarr: rows that waited were not written: {error}\n{notes}", file=sys.stderr)


def let_go(buffer: Buffer) -> None:
    """Write what waits of an instance that is no longer used: now, or as soon as it can be.

    The garbage collector runs in any thread, at any time: in the one that all requests to
    S3 wait for, or where a lock is held that we would need. Nothing is written then.
    """
    if buffer.waits_since() is None:
        return
    if getattr(_here, "collecting", False) or threading.current_thread().daemon:
        with _process.changed:
            _process.hurried.add(buffer)
            _process.changed.notify_all()
    else:
        _write(buffer)


def _note_collection(phase: str, info: Mapping[str, Any]) -> None:
    _here.collecting = phase == "start"


def _before_fork() -> None:
    for buffer in list(_process.waiting):
        buffer.write_due(time.monotonic())


def _in_child() -> None:
    _process.reset()
    for buffer in list(_known):
        buffer.forget()
