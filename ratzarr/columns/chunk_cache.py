"""Chunks that an instance has read or written in part, kept for the next block.

A chunk is unpacked block by block, as rows are asked for. A cached chunk is used only if the store
confirms that the object has not changed since it was read. The cache is bounded in bytes; the least
recently used chunk is dropped first.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import BloscBlocks, ReadAt, SummedBlocks
from ratzarr.codecs.chunk_codec import ChunkCodec
from ratzarr.codecs.strings import PackedStrings
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
"""How many times as many blocks as are there are unpacked when reading goes on behind them."""
PART = 0.25
"""What part of a chunk has been asked for when the rest is unpacked, too, with the second piece."""
SAMPLE = 256
"""Values of text that tell how long the rest may be."""
OVERHEAD = 50
"""Bytes that an object of Python takes besides what is in it."""


class OpenChunk:
    """What is unpacked of a chunk. Thread-safe.

    Parameters
    ----------
    codec : ChunkCodec
        Of the chunk's column.
    """

    def __init__(self, codec: ChunkCodec) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._strings: PackedStrings | None = None
        """All of them, of a chunk of text."""
        self._values: Array | None = None
        """All of them, of a chunk that is unpacked as a whole."""
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        """Those that are unpacked, of a chunk in blocks: each of its own, so that what is not
        unpacked takes no memory."""
        self._block_bytes = 0
        self._row_bytes = codec.row_bytes
        self._seen = Runs()
        self.size = 0
        """Bytes that it takes in memory, about."""

    def has(self, rows: slice) -> bool:
        """Return whether these rows are unpacked."""
        if self._values is not None or self._strings is not None:
            return True
        with self._lock:
            return self._block_bytes > 0 and not self._lacking(*self._blocks_of(rows))

    def copy(self, rows: slice, out: Array) -> None:
        """Copy rows that it :meth:`has` to a contiguous array of the column's dtype."""
        # In this order: the blocks are let go of when the values are there.
        blocks = self._blocks
        if self._strings is not None:
            values = out.reshape(-1)
            self._strings.copy(rows.start * (values.size // max(1, len(out))), values)
            return
        if self._values is not None:
            out[:] = self._values[rows]
            return
        # A block is never changed once it is here.
        to = out.reshape(-1).view(np.uint8)
        begin, end = rows.start * self._row_bytes, rows.stop * self._row_bytes
        for number in range(*self._blocks_of(rows)):
            first = number * self._block_bytes
            start, stop = max(begin, first), min(end, first + self._block_bytes)
            to[start - begin : stop - begin] = blocks[number][start - first : stop - first]

    def seen(self, rows: slice, count: int) -> bool:
        """Note that rows were handed out; return whether that was the last of its first ``count``."""
        with self._lock:
            self._seen.add(rows)
            return self._seen.are_all(count)

    def unpack(self, rows: slice, data: bytes | memoryview, *, all_of_it: bool = False) -> None:
        """Unpack what is lacking of these rows.

        Parameters
        ----------
        data : bytes-like
            The chunk's object, the same each time; not kept.
        all_of_it : bool
            Unpack everything, as the other rows will be asked for, too.

        Raises
        ------
        Exception
            As :meth:`ChunkCodec.decode`.
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
                # A copy: what is not compressed would be a view of the caller's memory.
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
        """Unpack what is lacking of these rows, of an object that is not read as a whole.

        Parameters
        ----------
        length : int
            Bytes of the object.
        read : callable
            Reads from it.
        room : callable
            Returns memory for so many bytes.
        all_of_it : bool
            See :meth:`unpack`.

        Returns
        -------
        bool
            False where all of it has to be read: :meth:`unpack`, which says what is wrong with it.
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
        """Return which run of blocks is to be unpacked, for these rows and those that may follow."""
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
        """Unpack what is lacking, to one array with what is there."""
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
        """Return which blocks of a run are not unpacked, as runs."""
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
    """Return how many bytes values take in memory, about."""
    size = int(values.nbytes)
    if values.dtype.kind in "TO" and values.size:
        sample = values.ravel()[:: max(1, values.size // SAMPLE)].tolist()
        size += int((sum(map(len, sample)) / len(sample) + OVERHEAD) * values.size)
    return size


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
