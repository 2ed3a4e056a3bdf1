"""Memory to read into, used again and again.

New memory is expensive: the system has to clear each page of it, which takes longer than
to copy a chunk from a disk's cache, compare its checksum and unpack what is wanted of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["Room", "lent"]

KEPT = 8
"""Pieces that are kept for later."""
LARGEST = 8 * 2**20
"""Bytes of the largest that is."""

LARGEST_OF_MALLOC = 2**25 - 2**16
"""Bytes that glibc's malloc takes from what was freed at most: of more it asks the system."""

# glibc gives what is freed back to the system, and asks for it anew for each chunk, until a large
# piece was once freed: by that it sees that a program uses such (mallopt(3), M_MMAP_THRESHOLD).
# Most programs do so sooner or later; ours from the first chunk on. Nothing is touched, so it takes
# no time, and where malloc is another it does nothing.
np.empty(LARGEST_OF_MALLOC, np.uint8)

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
