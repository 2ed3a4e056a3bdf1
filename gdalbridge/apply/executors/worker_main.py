"""What runs in a worker process: one function after another, applied to items as they come.

Messages are pairs: ``b"order"`` and the function with its surroundings; ``b"item"`` and an item,
which is answered with ``(True, result)`` or ``(False, error)``; ``b"end"`` and nothing.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from gdalbridge.apply.executors.pickling import Surroundings, dumps, loads, with_story
from gdalbridge.errors import NotSendableError

__all__ = ["END", "HELLO", "ITEM", "LOOK", "ORDER", "main"]

HELLO = b"ready"
ORDER = b"order"
ITEM = b"item"
END = b"end"

LOOK = 1.0
"""Seconds after which either side looks whether the other, being silent, is still there. As a rule
the end of the connection says so at once; not, where a forked process holds on to that."""

type _Messages = SimpleQueue[tuple[bytes, bytes] | None]


def main(descriptor: int) -> None:
    """Do what the parent sends, until it closes the connection or is no more."""
    # Ctrl-C in a terminal reaches all of its processes: the parent says who has to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Connection(descriptor)
    messages: _Messages = SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(channel, messages, busy), daemon=True).start()
    channel.send_bytes(HELLO)
    work = _Work()
    # In the main thread, as some libraries want it; listening is the other's.
    while (message := messages.get()) is not None:
        kind, content = message
        if kind == ORDER:
            work.take(content)
            continue
        answer = work.do(content)
        del message, content
        _show()
        busy.clear()
        try:
            channel.send_bytes(answer)
        except OSError:
            # There is nobody left to tell.
            return


def _listen(channel: Connection, messages: _Messages, busy: threading.Event) -> None:
    parent = os.getppid()
    try:
        while True:
            while not channel.poll(LOOK):
                if os.getppid() != parent:
                    raise EOFError
            kind = channel.recv_bytes()
            content = channel.recv_bytes()
            if kind == END:
                break
            if kind == ITEM:
                busy.set()
            messages.put((kind, content))
    except (EOFError, OSError):
        if busy.is_set():
            # The parent was killed, or Ctrl-C pressed: nobody wants what is being done.
            os._exit(1)
    messages.put(None)


def _show() -> None:
    # What a function prints is seen when it is done, and not lost with a worker.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


class _Work:
    """The function in force."""

    def __init__(self) -> None:
        self._surroundings: Surroundings | None = None
        self._task: Callable[[Any], Any] | None = None
        self._failed: BaseException | None = None

    def take(self, order: bytes) -> None:
        """Make a function the one in force; should that fail, each item tells."""
        self._task = self._failed = None
        try:
            surroundings, pickled = loads(order)
            surroundings.enter(self._surroundings)
            self._surroundings = surroundings
            # Only now: it may be found in a place that the surroundings tell of.
            self._task = loads(pickled)
        except BaseException as error:
            error.add_note(
                "(while a worker process took over the function: are all modules that it uses "
                "to be found there?)"
            )
            self._failed = error

    def do(self, content: bytes) -> bytes:
        """Return the answer for an item."""
        where = f"worker process {os.getpid()}"
        try:
            if self._failed is not None:
                raise self._failed
            assert self._task is not None  # noqa: S101 - an order comes first
            result = self._task(loads(content))
        # Also SystemExit: it ends the caller's program, as it would in the caller's own process.
        except BaseException as error:
            return dumps((False, with_story(error, where)))
        try:
            return dumps((True, result))
        except Exception as error:
            refused = NotSendableError(
                f"what the function returned ({type(result).__name__}) can't be sent back from "
                f"another process: {type(error).__name__}: {error}"
            )
            return dumps((False, with_story(refused, where)))
