"""Chunks of a table that are in use: unpacked, some of them changed. Pure: no store here.

A chunk is read as a whole, so whoever asks for single cells, or for pages of rows, must
find it again. How much is kept is bounded in bytes; what was not used for longest goes
first, and never a chunk whose changes are not written yet.
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
"""A column's name, and which of its chunks."""

SAMPLE = 256
"""Rows of text that tell how long the rest may be."""
OVERHEAD = 50
"""Bytes that an object of Python takes besides what is in it."""


class Chunk:
    """Rows of a column, and which of them were changed.

    Parameters
    ----------
    start : int
        First row, in the table.
    values : ndarray or PaddedText
        Strings are the latter as long as it can hold them.
    """

    __slots__ = ("changed", "changes", "since", "start", "values")

    def __init__(self, start: int, values: Array | PaddedText) -> None:
        self.start, self.values = start, values
        self.changed: NDArray[np.bool_] | None = None
        self.since = 0.0
        """When it was first changed."""
        self.changes = 0
        """How many rows were changed."""

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, first: int, last: int) -> Array:
        """Return some rows, counted from the chunk's first; not to be changed."""
        if isinstance(self.values, PaddedText):
            return self.values.strings(first, last)
        return self.values[first:last]

    def padded(self, first: int, last: int) -> Array | None:
        """Return rows of text as fixed-width bytes; None where they are not kept so."""
        return self.values.padded(first, last) if isinstance(self.values, PaddedText) else None

    def put(self, start: int, values: Array) -> bool:
        """Change rows of it; return whether they are the first ones."""
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
        """Have other values in some rows, which do not count as changed."""
        if isinstance(self.values, PaddedText):
            if self.values.put(first, values):
                return
            self.values = self.values.strings(0, len(self.values))
        self.values[first : first + len(values)] = values

    def settle(self) -> None:
        """Be told that all changes are written."""
        self.changed, self.changes = None, 0

    def grow(self, length: int) -> None:
        """Take empty rows in at the end."""
        more = length - len(self)
        if more > 0:
            if isinstance(self.values, PaddedText):
                self.values = self.values.grown(more)
            else:
                self.values = np.concatenate([self.values, empty(self.values, more)])
            if self.changed is not None:
                self.changed = np.concatenate([self.changed, np.zeros(more, np.bool_)])

    def runs(self) -> list[tuple[int, int]]:
        """Return the changed rows, as runs: from the first up to but not including the second."""
        if self.changed is None:
            return []
        edges = np.flatnonzero(np.diff(self.changed, prepend=False, append=False))
        return [(int(one), int(other)) for one, other in edges.reshape(-1, 2)]


def empty(like: Array, rows: int) -> Array:
    """Return rows that hold nothing: 0, False, "", b"", NaT."""
    shape = (rows, *like.shape[1:])
    if like.dtype.kind == "M":
        return np.full(shape, "NaT", like.dtype)
    if like.dtype.kind == "O":
        return np.full(shape, b"", like.dtype)
    return np.zeros(shape, like.dtype)


class ChunkCache:
    """Chunks by column and number, the ones used last at the end.

    Parameters
    ----------
    limit : int
        Bytes of unpacked values.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunks: OrderedDict[Key, Chunk] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self.size = 0
        """Bytes, about."""

    def get(self, key: Key) -> Chunk | None:
        """Return a chunk, if it is here."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def add(self, key: Key, chunk: Chunk) -> None:
        """Keep a chunk, and let go of others."""
        self.drop(key)
        self._chunks[key] = chunk
        self._sizes[key] = 0
        self.measure(key)
        self.shrink(key)

    def measure(self, key: Key, more: Array | None = None) -> None:
        """Look how large a chunk is; or be told what it has got, which is quicker."""
        size, values = self._sizes[key], self._chunks[key].values
        if more is None or isinstance(values, PaddedText):
            self._sizes[key] = size_of(values)
        elif more.dtype.kind in "TO":
            # What went for it is not taken off: better too much than too little.
            self._sizes[key] += size_of(more)
        self.size += self._sizes[key] - size

    def shrink(self, kept: Key | None = None) -> None:
        """Let go of chunks, until the rest is small enough."""
        for other in [*self._chunks] if self.size > self.limit else ():
            if other != kept and self._chunks[other].changed is None:
                self.drop(other)
                if self.size <= self.limit:
                    return

    def drop(self, key: Key) -> None:
        """Let go of a chunk."""
        if self._chunks.pop(key, None) is not None:
            self.size -= self._sizes.pop(key)

    def drop_unchanged(self) -> None:
        """Let go of everything that is in the store."""
        for key in [key for key, chunk in self._chunks.items() if chunk.changed is None]:
            self.drop(key)

    def of_column(self, name: str) -> list[tuple[Key, Chunk]]:
        """Return what is here of a column."""
        return [(key, chunk) for key, chunk in self._chunks.items() if key[0] == name]

    def changed(self) -> Iterator[tuple[Key, Chunk]]:
        """Return the chunks whose changes are not written."""
        return iter([(k, chunk) for k, chunk in self._chunks.items() if chunk.changed is not None])

    def waiting(self) -> tuple[int, int, float]:
        """Return how many chunks that is, their bytes, and since when the oldest waits."""
        found = list(self.changed())
        oldest = min((chunk.since for _, chunk in found), default=time.monotonic())
        return len(found), sum(self._sizes[key] for key, _ in found), oldest


def size_of(values: Array | PaddedText) -> int:
    """Return how many bytes values take in memory, about."""
    if isinstance(values, PaddedText):
        return values.size
    size = int(values.nbytes)
    if values.dtype.kind in "TO" and values.size:
        sample = values.ravel()[:: max(1, values.size // SAMPLE)].tolist()
        size += int((sum(map(len, sample)) / len(sample) + OVERHEAD) * values.size)
    return size
