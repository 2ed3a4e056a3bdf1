"""Memory to read into, used again and again.

New memory is expensive: the system has to clear each page of it, which takes longer than
to copy a chunk from a disk's cache, compare its checksum and unpack what is wanted of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Room", "lent"]

KEPT = 8
"""Pieces that are kept for later."""
LARGEST = 8 * 2**20
"""Bytes of the largest that is."""

_free: list[bytearray] = []
# A list's pop() and append() are atomic: no lock is needed, nor could one be held in a fork.


class Room:
    """A piece of memory that grows with what is asked of it."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory

    def __call__(self, size: int) -> memoryview:
        """Return so many bytes, of any content: valid until it is called again or given back."""
        if len(self.memory) < size:
            self.memory = bytearray(size)
        return memoryview(self.memory)[:size]


@contextmanager
def lent() -> Iterator[Room]:
    """Lend some memory; nothing may refer to it afterwards."""
    try:
        room = Room(_free.pop())
    except IndexError:
        room = Room(bytearray())
    try:
        yield room
    finally:
        if len(_free) < KEPT and len(room.memory) <= LARGEST:
            _free.append(room.memory)
