"""What the chunks that are being unpacked at once may take together, in all threads of a process."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .limits import max_chunk_bytes
from .parallel import in_flight

__all__ = ["ROOM"]


class UnpackRoom:
    """What the chunks that are being unpacked at once may take together."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            # A forked child has none of the threads that are in here.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._waiting, self._taken = threading.Condition(), 0

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until there is room; a chunk that is small can't take too much."""
        most = max_chunk_bytes()
        if size <= most // in_flight():
            yield
            return
        with self._waiting:
            self._waiting.wait_for(lambda: not self._taken or self._taken + size <= most)
            self._taken += size
        try:
            yield
        finally:
            with self._waiting:
                self._taken -= size
                self._waiting.notify_all()


ROOM = UnpackRoom()
