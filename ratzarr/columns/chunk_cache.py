"""A cache of chunks that were read or written in part.

A chunk is decoded block by block, on demand. A cached chunk is used only if the store confirms
that the object has not changed since, or has confirmed it recently (see ``seconds`` of
:class:`ChunkCache`). The cache has a limit in bytes, and drops the least recently used chunk first.

Chunks of a write buffer are not here but in :mod:`ratzarr.columns.write_buffer`: they hold rows that
exist nowhere else, so none of them may be dropped before it is written.
"""

import math
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import Blocks, ReadAt
from ratzarr.codecs.strings import PackedStrings
from ratzarr.columns.metadata import ColumnState
from ratzarr.errors import ArgumentError
from ratzarr.settings import CACHE_BYTES, environment, number_of
from ratzarr.stores.base import Version

__all__ = ["ChunkCache", "ReadChunk", "WrittenChunk", "size_of"]


Array = NDArray[Any]

AHEAD = 16
"""When a read continues directly behind the decoded blocks, decode this many times as many
blocks as are already decoded."""
PART = 0.25
"""If a second read brings the requested blocks to this part of the chunk, decode the whole
chunk."""
RUNS = 64
"""Number of runs of rows that are remembered as read."""
SAMPLE = 256
"""The number of strings sampled to estimate the memory of an array."""
OVERHEAD = 50
"""The overhead of a Python object, in bytes."""


class ReadChunk:
    """The decoded part of a chunk that was read. Thread-safe.

    Parameters
    ----------
    column : ColumnState
        The state of the column under which the chunk is decoded.
    state : str
        The state of the object, as reported by the store; empty if unknown.
    values : ndarray, optional
        All values of the chunk, if they are known.
    """

    def __init__(self, column: ColumnState, state: str = "", values: Array | None = None) -> None:
        self.kind, self.state = column.kind, state
        self._codec = column.codec
        self._lock = threading.Lock()
        self._values: Array | PackedStrings | None = values
        """All values, if the chunk is decoded as a whole."""
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        """The decoded blocks of a chunk in blocks. Each is an array of its own, so that missing
        blocks take no memory."""
        self._block_bytes = 0
        self._row_bytes = column.codec.row_bytes
        self._read: dict[int, int] = {}
        """The runs of rows that were read: the first row by the row behind the last."""
        self.size = 0 if values is None else size_of(values)
        """Approximate size in memory, in bytes."""

    def has(self, rows: slice) -> bool:
        """Return True if these rows are decoded."""
        if self._values is not None:
            return True
        with self._lock:
            return self._block_bytes > 0 and not self._lacking(*self._blocks_of(rows))

    def copy(self, rows: slice, out: Array) -> None:
        """Copy decoded rows (see :meth:`has`) to a contiguous array of the column's dtype."""
        # Read the blocks first: another thread stores the values and then clears the blocks.
        blocks, values = self._blocks, self._values
        if isinstance(values, PackedStrings):
            flat = out.reshape(-1)
            values.copy(rows.start * (flat.size // max(1, len(out))), flat)
        elif values is not None:
            out[:] = values[rows]
        else:
            # A decoded block never changes.
            to = out.reshape(-1).view(np.uint8)
            begin, end = rows.start * self._row_bytes, rows.stop * self._row_bytes
            for number in range(*self._blocks_of(rows)):
                first = number * self._block_bytes
                start, stop = max(begin, first), min(end, first + self._block_bytes)
                to[start - begin : stop - begin] = blocks[number][start - first : stop - first]
        first = self._read.pop(rows.start, rows.start)
        if first != rows.start or len(self._read) < RUNS:
            self._read[rows.stop] = first

    def is_read_through(self, count: int) -> bool:
        """Return True if as many rows were read as there are; some may have been read twice."""
        return sum(stop - first for stop, first in self._read.copy().items()) >= count

    def padded(self, rows: slice) -> list[Array] | None:
        """Return decoded rows of strings as fixed-width bytes; None if :meth:`copy` is needed."""
        values = self._values
        return values.padded(rows.start, rows.stop) if isinstance(values, PackedStrings) else None

    def decode(self, rows: slice, data: bytes, *, whole: bool) -> None:
        """Decode those of these rows that are not decoded yet, and rows likely to follow.

        Parameters
        ----------
        data : bytes
            The chunk's object, the same in each call.
        whole : bool
            If True, decode the whole chunk, because its other rows will be read too.

        Raises
        ------
        Exception
            The errors of :meth:`ratzarr.codecs.chunk_codec.ChunkCodec.decode`.
        """
        with self._lock:
            if self._values is not None:
                return
            found = None if whole and not self._blocks else self._codec.blocks(data)
            if found is not None:
                self._decode_blocks(found, rows, whole=whole)
                return
            self._values = values = self._codec.decode_pages(data)
            self._blocks = {}
            self.size = values.nbytes if isinstance(values, PackedStrings) else size_of(values)

    def decode_part(self, rows: slice, length: int, read: ReadAt) -> bool:
        """Decode rows as :meth:`decode` does, but read only parts of an object of this length.

        Return False if the whole object must be read, with :meth:`decode`, which also reports
        damage.
        """
        with self._lock:
            if self._values is not None:
                return True
            try:
                found = self._codec.stored_blocks(length, read)
                if found is not None:
                    self._decode_blocks(found, rows)
            except (ValueError, RuntimeError):
                return False
            return found is not None

    def _decode_blocks(self, found: Blocks, rows: slice, *, whole: bool = False) -> None:
        """Decode the blocks of rows that are not decoded yet, and blocks likely to follow."""
        self._block_bytes = found.block
        first, last = self._blocks_of(rows)
        lacking = sum(other - one for one, other in self._lacking(first, last))
        if whole or (self._blocks and len(self._blocks) + lacking >= found.count * PART):
            first, last = 0, found.count
        elif first - 1 in self._blocks:
            last = min(last + AHEAD * len(self._blocks), found.count)
        for one, other in self._lacking(first, last):
            start, stop = found.bytes_of(one, other)
            out = np.empty(stop - start, np.uint8)
            self._codec.unpack_blocks(found, one, other, out)
            self.size += len(out)
            for number in range(one, other):
                begin = number * found.block - start
                self._blocks[number] = out[begin : begin + found.block]

    def _blocks_of(self, rows: slice) -> tuple[int, int]:
        return (
            rows.start * self._row_bytes // self._block_bytes,
            -(-rows.stop * self._row_bytes // self._block_bytes),
        )

    def _lacking(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the blocks of a run that are not decoded, as runs."""
        runs: list[tuple[int, int]] = []
        for number in range(first, last):
            if number in self._blocks:
                continue
            if runs and runs[-1][1] == number:
                runs[-1] = runs[-1][0], number + 1
            else:
                runs.append((number, number + 1))
        return runs


def size_of(values: Array) -> int:
    """Return the approximate size of values in memory, in bytes."""
    size = int(values.nbytes)
    if values.dtype.kind in "TO" and values.size:
        sample = values.ravel()[:: max(1, values.size // SAMPLE)].tolist()
        size += int((sum(map(len, sample)) / len(sample) + OVERHEAD) * values.size)
    return size


@dataclass(frozen=True, slots=True)
class WrittenChunk:
    """A chunk that this instance has written rows to, or is about to.

    The values are current only if no other process has written the chunk since. So the instance
    changes them further, and writes the chunk on condition that the object has not changed.
    """

    kind: tuple[Any, ...]
    """The :attr:`ColumnState.kind` of the column."""
    version: Version
    """The version of the object, as reported by the store."""
    owner_tag: str
    """The tag of the object."""
    values: Array
    count: int
    """The number of rows that this instance has written."""

    @property
    def size(self) -> int:
        """Approximate size in memory; on a local disk the version is as long as the object."""
        return size_of(self.values) + len(self.version)


type _Key = tuple[str, type[ReadChunk] | type[WrittenChunk]]


class ChunkCache:
    """A cache of chunks, by key. Thread-safe.

    Parameters
    ----------
    limit : int or None
        The maximum size in bytes; with 0 nothing is cached. None selects the environment variable
        ``RATZARR_CACHE_BYTES``.
    seconds : float
        The time for which a chunk that was read is trusted: the store is not asked whether the
        object has changed. Writes of this instance end the trust.

    Raises
    ------
    ArgumentError
        If one of them is not a number of 0 or more.
    """

    def __init__(self, limit: Any, seconds: float = 0.0) -> None:
        if limit is None:
            limit = number_of(CACHE_BYTES, environment.get(CACHE_BYTES))
        if not isinstance(limit, int | np.integer) or isinstance(limit, bool) or limit < 0:
            raise ArgumentError(f"cacheBytes is a number of bytes, 0 or more: got {limit!r:.100}")
        is_number = isinstance(seconds, int | float | np.integer | np.floating)
        if isinstance(seconds, bool) or not is_number or not seconds >= 0:
            raise ArgumentError(
                f"cacheSeconds is a number of seconds, 0 or more: got {seconds!r:.100}"
            )
        self._limit, self._seconds = int(limit), float(seconds)
        self.trusts = self._seconds > 0
        """True if chunks are trusted for some time."""
        self.clear()

    def clear(self) -> None:
        """Drop all chunks."""
        self._process, self._mutex = os.getpid(), threading.Lock()
        # Chunks with their sizes; the least recently used one first.
        self._chunks: OrderedDict[_Key, tuple[ReadChunk | WrittenChunk, int]] = OrderedDict()
        self._asked: dict[str, float] = {}
        """The time at which the store was asked for each chunk that was read."""
        self._changed: dict[str, float] = {}
        """The time of the last write to each chunk."""
        self._distrusted = -math.inf
        self._size = 0

    @property
    def _lock(self) -> threading.Lock:
        # In a forked child, a thread that does not exist there may hold the old lock.
        if self._process != os.getpid():
            self.clear()
        return self._mutex

    def is_trusted(self, key: str) -> bool:
        """Return True if a cached chunk may be used without asking the store."""
        asked = self._asked.get(key)
        if asked is None or not self.trusts:
            return False
        return asked > self._distrusted and time.monotonic() - asked < self._seconds

    def distrust(self) -> None:
        """Ask the store again before any cached chunk is used."""
        self._distrusted = time.monotonic()

    def confirm(self, key: str, asked: float) -> None:
        """Record that the store has confirmed a cached chunk; ``asked`` is as for :meth:`keep`."""
        if self.trusts and asked > self._changed.get(key, -math.inf):
            self._asked[key] = asked

    def find(self, key: str, kind: tuple[Any, ...]) -> ReadChunk | None:
        """Return the cached chunk, if it was decoded for this kind of column."""
        with self._lock:
            found = self._chunks.get((key, ReadChunk))
            if found is None or not isinstance(found[0], ReadChunk) or found[0].kind != kind:
                return None
            self._chunks.move_to_end((key, ReadChunk))
            return found[0]

    def keep(self, key: str, read: ReadChunk, asked: float) -> None:
        """Cache a chunk, or update its size; drop other chunks to stay below the limit.

        Parameters
        ----------
        asked : float
            A time before the store was asked for it. A chunk that may be older than the last write
            is not cached.
        """
        with self._lock:
            if self.trusts:
                if asked <= self._changed.get(key, -math.inf):
                    return
                self._asked[key] = asked
            self._put(key, read)

    def keep_written(self, key: str, written: WrittenChunk) -> None:
        """Cache a chunk that rows were written to, for the next rows."""
        with self._lock:
            self._put(key, written)

    def take_written(self, key: str, kind: tuple[Any, ...]) -> WrittenChunk | None:
        """Remove and return a chunk that rows were written to. Only the caller may change it."""
        with self._lock:
            found = self._remove((key, WrittenChunk))
        return found if isinstance(found, WrittenChunk) and found.kind == kind else None

    def drop(self, key: str) -> None:
        """Drop the chunk that was read under a key."""
        with self._lock:
            self._remove((key, ReadChunk))

    def _put(self, key: str, chunk: ReadChunk | WrittenChunk) -> None:
        place, size = (key, type(chunk)), chunk.size
        self._remove(place)
        if size > self._limit:
            return
        self._chunks[place] = chunk, size
        self._size += size
        while self._size > self._limit:
            self._remove(next(iter(self._chunks)))

    def _remove(self, place: _Key) -> ReadChunk | WrittenChunk | None:
        found, size = self._chunks.pop(place, (None, 0))
        self._size -= size
        return found

    def begin_write(self, key: str) -> float:
        """Drop a chunk that is about to be written; return the time for :meth:`end_write`."""
        self.drop(key)
        began = time.monotonic()
        if self.trusts:
            self._changed[key] = began
        return began

    def end_write(self, key: str, began: float, written: ReadChunk | None) -> None:
        """Record the end of a write, so that no chunk that was read meanwhile is trusted.

        Parameters
        ----------
        written : ReadChunk, optional
            The chunk as it was written. It is cached, unless another thread writes it too.
        """
        if not self.trusts:
            return
        with self._lock:
            is_alone = self._changed.get(key) == began
            self._remove((key, ReadChunk))
            self._changed[key] = ended = time.monotonic()
        if written is not None and is_alone:
            self.keep(key, written, math.nextafter(ended, math.inf))
