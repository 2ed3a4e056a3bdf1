"""A cache of decoded chunks of an attached table, with their unwritten changes.

A chunk is always read whole, so a program that reads single cells or pages of rows needs the same
chunk again. The cache has a limit in bytes. It drops the least recently used chunks first, but
never a chunk with unwritten changes. This module does not access the store.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.attached_rat.values import PaddedText

__all__ = ["Chunk", "ChunkCache", "Key"]

Array = NDArray[Any]
Key = tuple[str, int]
"""A column's name and the number of a chunk."""

SAMPLE = 256
"""Rows of text that are sampled to estimate the length of all."""
OVERHEAD = 50
"""Bytes of a Python object besides its content."""


class Chunk:
    """A chunk of a column, with a mask of its changed rows.

    Parameters
    ----------
    start : int
        Number of its first row in the table.
    values : ndarray or PaddedText
        Text is kept as PaddedText as long as that can hold it.
    """

    __slots__ = ("changed", "changes", "since", "start", "values")

    def __init__(self, start: int, values: Array | PaddedText) -> None:
        self.start, self.values = start, values
        self.changed: NDArray[np.bool_] | None = None
        self.since = 0.0
        """Time of the first change."""
        self.changes = 0
        """Number of changed rows."""

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, first: int, last: int) -> Array:
        """Return rows, counted from the chunk's first. The caller must not change them."""
        if isinstance(self.values, PaddedText):
            return self.values.strings(first, last)
        return self.values[first:last]

    def padded(self, first: int, last: int) -> Array | None:
        """Return rows as fixed-width bytes; None if the values are not PaddedText."""
        return self.values.padded(first, last) if isinstance(self.values, PaddedText) else None

    def put(self, start: int, values: Array) -> bool:
        """Change rows of the chunk. Return True if this is its first change."""
        is_first = self.changed is None
        if self.changed is None:
            self.changed = np.zeros(len(self), np.bool_)
            self.since = time.monotonic()
        first = start - self.start
        rows = slice(first, first + len(values))
        self.changes += len(values) - int(np.count_nonzero(self.changed[rows]))
        self.replace(first, values)
        self.changed[rows] = True
        return is_first

    def replace(self, first: int, values: Array) -> None:
        """Replace the values of rows without marking the rows as changed."""
        if isinstance(self.values, PaddedText):
            if self.values.put(first, values):
                return
            self.values = self.values.strings(0, len(self.values))
        self.values[first : first + len(values)] = values

    def mark_written(self) -> None:
        """Mark all changes as written."""
        self.changed, self.changes = None, 0

    def grow(self, length: int) -> None:
        """Append empty rows until the chunk has ``length`` rows."""
        more = length - len(self)
        if more > 0:
            if isinstance(self.values, PaddedText):
                self.values = self.values.grown(more)
            else:
                self.values = np.concatenate([self.values, empty(self.values, more)])
            if self.changed is not None:
                self.changed = np.concatenate([self.changed, np.zeros(more, np.bool_)])

    def runs(self) -> list[tuple[int, int]]:
        """Return the ranges of changed rows, each as first row and row after the last."""
        if self.changed is None:
            return []
        edges = np.flatnonzero(np.diff(self.changed, prepend=False, append=False))
        return [(int(one), int(other)) for one, other in edges.reshape(-1, 2)]


def empty(like: Array, rows: int) -> Array:
    """Return rows of empty values: 0, False, "", b"" or NaT."""
    shape = (rows, *like.shape[1:])
    if like.dtype.kind == "M":
        return np.full(shape, "NaT", like.dtype)
    if like.dtype.kind == "O":
        return np.full(shape, b"", like.dtype)
    return np.zeros(shape, like.dtype)


class ChunkCache:
    """Chunks by column and number, in the order of their last use.

    Parameters
    ----------
    limit : int
        Bytes of decoded values.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunks: OrderedDict[Key, Chunk] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self.size = 0
        """Estimated bytes of all chunks."""

    def get(self, key: Key) -> Chunk | None:
        """Return a chunk; None if it is not in the cache."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def add(self, key: Key, chunk: Chunk) -> None:
        """Add a chunk, and drop others if the cache is over its limit."""
        self.drop(key)
        self._chunks[key] = chunk
        self._sizes[key] = 0
        self.measure(key)
        self.shrink(key)

    def measure(self, key: Key, more: Array | None = None) -> None:
        """Update the size of a chunk; passing only the new values is faster."""
        size, values = self._sizes[key], self._chunks[key].values
        if more is None or isinstance(values, PaddedText):
            self._sizes[key] = size_of(values)
        elif more.dtype.kind in "TO":
            # The replaced values are not subtracted: too large an estimate is safe.
            self._sizes[key] += size_of(more)
        self.size += self._sizes[key] - size

    def shrink(self, kept: Key | None = None) -> None:
        """Drop unchanged chunks until the cache is within its limit."""
        for other in [*self._chunks] if self.size > self.limit else ():
            if other != kept and self._chunks[other].changed is None:
                self.drop(other)
                if self.size <= self.limit:
                    return

    def drop(self, key: Key) -> None:
        """Drop a chunk."""
        if self._chunks.pop(key, None) is not None:
            self.size -= self._sizes.pop(key)

    def drop_unchanged(self) -> None:
        """Drop all chunks without unwritten changes."""
        for key in [key for key, chunk in self._chunks.items() if chunk.changed is None]:
            self.drop(key)

    def of_column(self, name: str) -> list[tuple[Key, Chunk]]:
        """Return the cached chunks of a column."""
        return [(key, chunk) for key, chunk in self._chunks.items() if key[0] == name]

    def changed(self) -> Iterator[tuple[Key, Chunk]]:
        """Return the chunks with unwritten changes."""
        return iter([(k, chunk) for k, chunk in self._chunks.items() if chunk.changed is not None])

    def waiting(self) -> tuple[int, int, float]:
        """Return the number and bytes of the changed chunks, and the time of the oldest change."""
        found = list(self.changed())
        oldest = min((chunk.since for _, chunk in found), default=time.monotonic())
        return len(found), sum(self._sizes[key] for key, _ in found), oldest


def size_of(values: Array | PaddedText) -> int:
    """Return an estimate of the bytes of memory that values take."""
    if isinstance(values, PaddedText):
        return values.size
    size = int(values.nbytes)
    if values.dtype.kind in "TO" and values.size:
        sample = values.ravel()[:: max(1, values.size // SAMPLE)].tolist()
        size += int((sum(map(len, sample)) / len(sample) + OVERHEAD) * values.size)
    return size
