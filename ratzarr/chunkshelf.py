"""Chunks that an instance has just had in hand, kept for its next block.

What is here may be out of date. It is used only where the store has said, at this very
moment, that the object is still in the state in which it was read; so what is read is
what an instance without a shelf would have read.

How much is kept is bounded in bytes: what was not used for longest goes first.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from .openchunk import OpenChunk

__all__ = ["ChunkShelf", "Kept"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk, and what it was when it was read."""

    kind: tuple[Any, ...]
    """What decided how it was unpacked."""
    state: str
    """The object's, as the store tells it."""
    chunk: OpenChunk


class ChunkShelf:
    """Chunks by key. Thread-safe.

    Parameters
    ----------
    limit : int
        How many bytes they may take; 0: nothing is kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._clear()

    def _clear(self) -> None:
        # In a forked child the lock may be held by a thread that is not there.
        self._process, self._lock = os.getpid(), threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.size = 0
        """Bytes that are kept."""

    def find(self, key: str, kind: tuple[Any, ...]) -> Kept | None:
        """Return what is kept under a key, if it was unpacked as this kind of column."""
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.kind != kind:
                return None
            self._kept.move_to_end(key)
            return kept

    def keep(self, key: str, kept: Kept) -> None:
        """Keep a chunk, or what has become of it since it was kept, and let go of others."""
        if not self.limit:
            return
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            size = kept.chunk.size
            self.size += size - self._sizes.get(key, 0)
            self._sizes[key] = size
            while self.size > self.limit:
                self._remove(next(iter(self._kept)))

    def _remove(self, key: str) -> None:
        if self._kept.pop(key, None) is not None:
            self.size -= self._sizes.pop(key)

    def drop(self, key: str) -> None:
        """Let go of what is kept under a key."""
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        """Let go of everything."""
        self._clear()
