"""One worker process, as its parent sees it.

It is a fresh interpreter, never a fork: clients of S3 hang in forked children. Unlike
multiprocessing's, it doesn't run the user's script again, which therefore needs no
``if __name__ == "__main__":``.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.spawn import get_executable
from typing import Any

from ..errors import WorkerLostError
from .pickling import loads
from .workermain import END, HELLO, ITEM, LOOK, ORDER

__all__ = ["LostError", "Order", "Worker"]

PATIENCE = 30.0
"""Seconds that a worker has for what it does at its end; it may have to write what waits."""

_BEGIN = (
    "import sys; sys.path[:] = {path!r}; "
    "from gdalbridge.executors.workermain import main; main({descriptor})"
)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A function with its surroundings, to be sent to each worker once."""

    content: bytes


class LostError(Exception):
    """A worker came to its end with an item in hand."""


class Worker:
    """A process that works on one item at a time.

    Raises
    ------
    WorkerLostError
        Where it can't even begin.
    """

    def __init__(self) -> None:
        ours, theirs = Pipe()
        program = _BEGIN.format(
            path=[str(entry) for entry in sys.path], descriptor=theirs.fileno()
        )
        options = [f"-W{option}" for option in sys.warnoptions]
        with theirs:
            self._process = subprocess.Popen(
                [os.fsdecode(get_executable()), *options, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._channel = ours
        self._order: Order | None = None
        try:
            hello = self._receive()
        except (EOFError, OSError):
            hello = b""
        if hello != HELLO:
            self.kill()
            self.wait()
            if (self._process.returncode or 0) < 0:
                raise LostError(self.ending())
            raise WorkerLostError(
                f"a worker process ({os.fsdecode(get_executable())}) can't begin: {self.ending()}; "
                "what it said is on standard error"
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Return whether it is there, and can be asked."""
        return self._process.poll() is None

    def ask(self, order: Order, item: bytes) -> tuple[bool, Any]:
        """Have the function applied to an item; return whether it went well, and what came of it.

        Raises
        ------
        LostError
            Where the process comes to its end before it answers.
        """
        try:
            if self._order is not order:
                self._channel.send_bytes(ORDER)
                self._channel.send_bytes(order.content)
                self._order = order
            self._channel.send_bytes(ITEM)
            self._channel.send_bytes(item)
            answer = self._receive()
        except (EOFError, OSError) as error:
            self.kill()
            self.wait()
            raise LostError(self.ending()) from error
        went_well, value = loads(answer)
        return went_well, value

    def _receive(self) -> bytes:
        while not self._channel.poll(LOOK):
            # Looked at once more: it may have answered, and then ended.
            if not self.is_alive() and not self._channel.poll():
                raise EOFError
        return self._channel.recv_bytes()

    def ending(self) -> str:
        """Return in words how it came to its end."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"it exited with status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", as happens when memory runs out" if -code == signal.SIGKILL else ""
        return f"it was killed by {name}{hint}"

    def kill(self) -> None:
        """End it now, whatever it is doing; may be called from any thread."""
        self._process.kill()

    def dismiss(self) -> None:
        """Tell it to end; it does what it has to do at its end."""
        # It may have ended already, or be told by the end of the connection.
        with suppress(OSError):
            self._channel.send_bytes(END)
            self._channel.send_bytes(b"")
        self._channel.close()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._channel.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
