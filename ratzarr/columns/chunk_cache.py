"""A cache of chunks that were read or written in part.

A chunk is decoded block by block, on demand. A cached chunk is used only if the store confirms
that the object has not changed since, or has confirmed it recently (see ``seconds`` of
:class:`ChunkShelf`). The cache has a limit in bytes, and drops the least recently used chunk first.
"""

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import BloscBlocks, ReadAt, SummedBlocks
from ratzarr.codecs.chunk_codec import ChunkCodec
from ratzarr.codecs.strings import PackedStrings, to_fixed_width
from ratzarr.errors import ArgumentError
from ratzarr.format.blocks import Runs

__all__ = [
    "ChunkShelf",
    "Kept",
    "Merged",
    "OpenChunk",
    "size_of",
]


Array = NDArray[Any]

AHEAD = 16
"""When a read continues directly behind the decoded blocks, decode this many times as many
blocks as are already decoded."""
PART = 0.25
"""If a second read brings the requested blocks to this part of the chunk, decode the whole
chunk."""
SAMPLE = 256
"""The number of strings sampled to estimate the memory of an array."""
OVERHEAD = 50
"""The overhead of a Python object, in bytes."""


class OpenChunk:
    """The decoded part of a chunk. Thread-safe.

    Parameters
    ----------
    codec : ChunkCodec
        The codec of the chunk's column.
    values : ndarray, optional
        All values of the chunk, if they are known.
    """

    def __init__(self, codec: ChunkCodec, values: Array | None = None) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._strings: PackedStrings | None = None
        """All values of a chunk of text."""
        self._values: Array | None = None
        """All values of a chunk that is decoded as a whole."""
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        """The decoded blocks of a chunk in blocks. Each is an array of its own, so that missing
        blocks take no memory."""
        self._block_bytes = 0
        self._row_bytes = codec.row_bytes
        self._seen = Runs()
        self.size = 0
        """Approximate size in memory, in bytes."""
        if values is not None:
            self._keep_all(values)

    def has(self, rows: slice) -> bool:
        """Return True if these rows are decoded."""
        if self._values is not None or self._strings is not None:
            return True
        with self._lock:
            return self._block_bytes > 0 and not self._lacking(*self._blocks_of(rows))

    def copy(self, rows: slice, out: Array) -> None:
        """Copy decoded rows (see :meth:`has`) to a contiguous array of the column's dtype."""
        # Read the blocks first: another thread stores the values and then clears the blocks.
        blocks = self._blocks
        if self._strings is not None:
            values = out.reshape(-1)
            self._strings.copy(rows.start * (values.size // max(1, len(out))), values)
            return
        if self._values is not None:
            out[:] = self._values[rows]
            return
        # A decoded block never changes.
        to = out.reshape(-1).view(np.uint8)
        begin, end = rows.start * self._row_bytes, rows.stop * self._row_bytes
        for number in range(*self._blocks_of(rows)):
            first = number * self._block_bytes
            start, stop = max(begin, first), min(end, first + self._block_bytes)
            to[start - begin : stop - begin] = blocks[number][start - first : stop - first]

    def padded(self, rows: slice) -> list[Array] | None:
        """Return decoded rows of strings as fixed-width bytes; None if :meth:`copy` is needed."""
        if self._strings is not None:
            return self._strings.padded(rows.start, rows.stop)
        if self._values is None:
            return None
        found = to_fixed_width(self._values[rows])
        return None if found is None else [found]

    def seen(self, rows: slice, count: int) -> bool:
        """Record rows as read; return True if all of the first ``count`` rows have been read."""
        with self._lock:
            self._seen.add(rows)
            return self._seen.are_all(count)

    def unpack(self, rows: slice, data: bytes | memoryview, *, all_of_it: bool = False) -> None:
        """Decode those of these rows that are not decoded yet.

        Parameters
        ----------
        data : bytes-like
            The bytes of the chunk's object, the same in each call. They are not kept.
        all_of_it : bool
            If True, decode the whole chunk, because its other rows will be read too.

        Raises
        ------
        Exception
            The errors of :meth:`ChunkCodec.decode`.
        """
        found = self._codec.blocks(data)
        with self._lock:
            if self._values is not None or self._strings is not None:
                return
            if found is None:
                self._strings = self._codec.decode_strings(bytes(data))
                if self._strings is not None:
                    self.size = self._strings.nbytes
                    return
                # Copy the data: without compression, the values would be a view of the caller's
                # memory.
                self._keep_all(self._codec.decode(bytes(data)))
                return
            first, last = self._wanted(found, rows, all_of_it=all_of_it)
            if (first, last) == (0, found.count):
                self._unpack_all(found)
            else:
                self._unpack_some(found, first, last)

    def unpack_from(
        self,
        rows: slice,
        length: int,
        read: ReadAt,
        room: Callable[[int], memoryview],
        *,
        all_of_it: bool = False,
    ) -> bool:
        """Decode rows as :meth:`unpack` does, but read only parts of the object.

        Parameters
        ----------
        length : int
            The size of the object in bytes.
        read : callable
            Reads a part of the object.
        room : callable
            Returns memory for a number of bytes.
        all_of_it : bool
            See :meth:`unpack`.

        Returns
        -------
        bool
            False if the whole object must be read with :meth:`unpack`, which also reports damage.
        """
        with self._lock:
            if self._values is not None or self._strings is not None:
                return True
            try:
                found = self._codec.summed_blocks(length, read, room)
                if found is None:
                    return False
                first, last = self._wanted(found, rows, all_of_it=all_of_it)
                if (first, last) == (0, found.count):
                    return False
                self._unpack_some(found, first, last)
            except (ValueError, RuntimeError):
                return False
            return True

    def _wanted(
        self, found: BloscBlocks | SummedBlocks, rows: slice, *, all_of_it: bool
    ) -> tuple[int, int]:
        """Return the run of blocks to decode for these rows and the rows likely to follow."""
        self._block_bytes = found.block
        first, last = self._blocks_of(rows)
        lacking = sum(other - one for one, other in self._lacking(first, last))
        comes_again = self._blocks and len(self._blocks) + lacking >= found.count * PART
        if all_of_it or comes_again:
            return 0, found.count
        if first - 1 in self._blocks:
            last = min(last + AHEAD * len(self._blocks), found.count)
        return first, last

    def _unpack_some(self, found: BloscBlocks | SummedBlocks, first: int, last: int) -> None:
        for one, other in self._lacking(first, last):
            start, stop = found.bytes_of(one, other)
            out = np.empty(stop - start, np.uint8)
            self._codec.unpack_blocks(found, one, other, out)
            self.size += len(out)
            for number in range(one, other):
                begin = number * found.block - start
                self._blocks[number] = out[begin : begin + found.block]

    def _unpack_all(self, found: BloscBlocks) -> None:
        """Decode the missing blocks, and store all blocks in one array."""
        out = np.empty(found.size, np.uint8)
        for number, block in self._blocks.items():
            start, stop = found.bytes_of(number, number + 1)
            out[start:stop] = block
        for one, other in self._lacking(0, found.count):
            start, stop = found.bytes_of(one, other)
            self._codec.unpack_blocks(found, one, other, out[start:stop])
        self._keep_all(self._codec.as_values(out))

    def _keep_all(self, values: Array) -> None:
        self._values, self._blocks = values, {}
        self.size = size_of(values)

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
class Kept:
    """A cached chunk, with the state of its object when it was read."""

    kind: tuple[Any, ...]
    """The :attr:`ColumnState.kind` under which the chunk was decoded."""
    state: str
    """The state of the object, as reported by the store; empty if unknown."""
    chunk: OpenChunk


@dataclass(frozen=True, slots=True)
class Merged:
    """A chunk that this instance has written rows to.

    The values are current only if no other process has written the chunk since. So the instance
    changes them further, and writes the chunk on condition that the object has not changed.
    """

    kind: tuple[Any, ...]
    version: str
    """The version of the object, as reported by the store when it was written."""
    mark: str
    """The mark of the written object."""
    values: NDArray[Any]
    written: Runs
    """The rows that this instance has written."""

    @property
    def size(self) -> int:
        """Approximate size in memory; on a local disk the version is as long as the object."""
        return size_of(self.values) + len(self.version)


class ChunkShelf:
    """A cache of chunks, by key. Thread-safe.

    Parameters
    ----------
    limit : int
        The maximum size in bytes; with 0 nothing is cached.
    seconds : float
        The time for which a chunk that was read is trusted: the store is not asked whether the
        object has changed. Writes of this instance end the trust.

    Raises
    ------
    ArgumentError
        If ``seconds`` is not a number of 0 or more.
    """

    def __init__(self, limit: int, seconds: float = 0.0) -> None:
        is_number = isinstance(seconds, int | float | np.integer | np.floating)
        if isinstance(seconds, bool) or not is_number or not seconds >= 0:
            raise ArgumentError(
                f"cacheSeconds is a number of seconds, 0 or more: got {seconds!r:.100}"
            )
        self.limit, self.seconds = limit, float(seconds)
        self._clear()

    def _clear(self) -> None:
        # In a forked child, a thread that does not exist there may hold the old lock.
        self._process, self._lock = os.getpid(), threading.Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._merged: OrderedDict[str, Merged] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        """The time at which the store was asked for each chunk that was read."""
        self._changed: dict[str, float] = {}
        """The time of the last write to each chunk."""
        self._distrusted = -math.inf
        self.size = 0
        """The size of all cached chunks, in bytes."""

    @property
    def trusts(self) -> bool:
        """True if chunks are trusted for some time."""
        return self.seconds > 0

    def is_trusted(self, key: str) -> bool:
        """Return True if a cached chunk may be used without asking the store."""
        asked = self._asked.get(key)
        if asked is None or not self.trusts:
            return False
        return asked > self._distrusted and time.monotonic() - asked < self.seconds

    def distrust(self) -> None:
        """Ask the store again before any cached chunk is used."""
        self._distrusted = time.monotonic()

    def confirm(self, key: str, asked: float) -> None:
        """Record that the store has confirmed a cached chunk; ``asked`` is as for :meth:`keep`."""
        if self.trusts and asked > self._changed.get(key, -math.inf):
            self._asked[key] = asked

    def find(self, key: str, kind: tuple[Any, ...]) -> Kept | None:
        """Return the cached chunk, if it was decoded for this kind of column."""
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.kind != kind:
                return None
            self._kept.move_to_end(key)
            return kept

    def keep(self, key: str, kept: Kept, asked: float) -> None:
        """Cache a chunk, or update its size; drop other chunks to stay below the limit.

        Parameters
        ----------
        asked : float
            A time before the store was asked for it. A chunk that may be older than the last write
            is not cached.
        """
        if not self.limit:
            return
        with self._lock:
            if self.trusts:
                if asked <= self._changed.get(key, -math.inf):
                    return
                self._asked[key] = asked
            self._kept[key] = kept
            self._kept.move_to_end(key)
            size = kept.chunk.size
            self.size += size - self._sizes.get(key, 0)
            self._sizes[key] = size
            self._make_room()

    def _make_room(self) -> None:
        while self.size > self.limit:
            if self._merged:
                # Chunks that were read are more likely to be used again than chunks that were
                # written.
                self._take(next(iter(self._merged)))
            else:
                self._remove(next(iter(self._kept)))

    def _remove(self, key: str) -> None:
        if self._kept.pop(key, None) is not None:
            self.size -= self._sizes.pop(key)
            self._asked.pop(key, None)

    def put_back(self, key: str, merged: Merged) -> None:
        """Cache a chunk that rows were written to, for the next rows."""
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
        """Remove and return a chunk that rows were written to. Only the caller may change it."""
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
        """Drop the chunk that was read under a key."""
        if self._process != os.getpid():
            self._clear()
        with self._lock:
            self._remove(key)

    def begin_write(self, key: str) -> float:
        """Drop a chunk that is about to be written; return the time for :meth:`end_write`."""
        self.drop(key)
        began = time.monotonic()
        if self.trusts:
            self._changed[key] = began
        return began

    def end_write(self, key: str, began: float, written: Kept | None) -> None:
        """Record the end of a write, so that no chunk that was read meanwhile is trusted.

        Parameters
        ----------
        written : Kept, optional
            The chunk as it was written. It is cached, unless another thread writes it too.
        """
        if not self.trusts:
            return
        with self._lock:
            is_alone = self._changed.get(key) == began
            self._remove(key)
            self._changed[key] = ended = time.monotonic()
        if written is not None and is_alone:
            self.keep(key, written, math.nextafter(ended, math.inf))

    def clear(self) -> None:
        """Drop all chunks."""
        self._clear()
