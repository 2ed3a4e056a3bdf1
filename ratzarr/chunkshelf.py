"""Chunks that an instance has just had in hand, kept for its next block.

What is here may be out of date. It is used only where the store has said, at this very
moment, that the object is still in the state in which it was read; so what is read is
what an instance without a shelf would have read.

How much is kept is bounded in bytes: what was not used for longest goes first. On a disk a
chunk of which every row was handed out is let go of by who had it from here, once another is
unpacked that is not beside it: most read a table once, in whatever order, and the next chunk
is unpacked sooner into memory that is there than into new.

Chunks that rows were put into are kept for the next rows of them, so that who writes in
small blocks need not read and unpack them again each time.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .blocks import Runs
from .openchunk import OpenChunk, size_of

__all__ = ["ChunkShelf", "Kept", "Merged"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk, and what it was when it was read."""

    kind: tuple[Any, ...]
    """What decided how it was unpacked."""
    state: str
    """The object's, as the store tells it."""
    chunk: OpenChunk


@dataclass(frozen=True, slots=True)
class Merged:
    """A chunk that this instance has put rows into, as it is in the store if nobody came since.

    That is not believed: it is changed further, and put back on condition.
    """

    kind: tuple[Any, ...]
    version: str
    """The object's, as the store told it when it was written."""
    mark: str
    """The mark that it was written with."""
    values: NDArray[Any]
    written: Runs
    """Rows that were put into it."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about: on a local disk the version is as long as the object."""
        return size_of(self.values) + len(self.version)


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
        self._merged: OrderedDict[str, Merged] = OrderedDict()
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
            self._make_room()

    def _make_room(self) -> None:
        while self.size > self.limit:
            if self._merged:
                # What is read is more likely to be asked for again than written.
                self._take(next(iter(self._merged)))
            else:
                self._remove(next(iter(self._kept)))

    def _remove(self, key: str) -> None:
        if self._kept.pop(key, None) is not None:
            self.size -= self._sizes.pop(key)

    def put_back(self, key: str, merged: Merged) -> None:
        """Keep a chunk that rows were put into, for the next rows of it."""
        if merged.size > self.limit:
            return
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            self._take(key)
            self._merged[key] = merged
            self.size += merged.size
            self._make_room()

    def take(self, key: str, kind: tuple[Any, ...]) -> Merged | None:
        """Hand over a chunk that rows were put into: to one, who may change it."""
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            merged = self._take(key)
        return merged if merged is not None and merged.kind == kind else None

    def _take(self, key: str) -> Merged | None:
        merged = self._merged.pop(key, None)
        if merged is not None:
            self.size -= merged.size
        return merged

    def drop(self, key: str) -> None:
        """Let go of what is kept under a key."""
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        """Let go of everything."""
        self._clear()
