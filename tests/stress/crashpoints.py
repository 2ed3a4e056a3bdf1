"""A process counts its changes of the file system, and kills itself just before the n-th.

Between two changes the disk stays as it is: to die before each of them in turn is to die at every
moment that makes a difference. (A file that is half written is one such moment too, and as good as
one that is empty: it has no name that anybody reads.)

Python's audit hooks tell of each change before it is made, from whatever library, so the code under
test is neither changed nor wrapped.
"""

import os
import signal
import sys
import threading
from typing import Any

CHANGES = frozenset(
    {
        "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
        "os.truncate",
    }
)  # fmt: skip
CREATING = os.O_CREAT | os.O_TRUNC


class Counted:
    """The changes so far."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.events: list[str] = []
        self._lock = threading.Lock()

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count an event, if it is about to change something."""
        if event == "open":
            if not (isinstance(arguments[2], int) and arguments[2] & CREATING):
                return
        elif event == "ctypes.dlsym":
            # Python has no function of its own that exchanges two names.
            if not str(arguments[1]).startswith("rename"):
                return
        elif event not in CHANGES:
            return
        with self._lock:
            self.events.append(event)
            if len(self.events) == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def install(at: int) -> Counted:
    """Count from now on, and die before change number ``at`` (0: never). Stays for ever."""
    counted = Counted(at)
    sys.addaudithook(counted.hear)
    return counted
