"""A chunk of which rows are unpacked as they are asked for.

Where each block has a checksum of its own, only the blocks that are wanted are read; else the
chunk's is compared over all of its bytes, each time that they come. Of a chunk of numbers only the blocks that hold the rows are unpacked, each of them once; where
reading goes on behind what is there, or large pieces are read in any order, some more than are
asked for, so that a chunk that is read in blocks need not come often. Any other chunk is unpacked
as a whole.

Packed bytes are not kept: reading them again from a disk's cache takes less time than to
find new memory for them.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import Runs
from .blocksums import ReadAt, SummedBlocks
from .bloscblocks import BloscBlocks
from .codec import ChunkCodec

__all__ = ["OpenChunk", "size_of"]

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
        if self._values is not None:
            return True
        with self._lock:
            return self._block_bytes > 0 and not self._lacking(*self._blocks_of(rows))

    def copy(self, rows: slice, out: Array) -> None:
        """Copy rows that it :meth:`has` to a contiguous array of the column's dtype."""
        # In this order: the blocks are let go of when the values are there.
        blocks = self._blocks
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
            if self._values is not None:
                return
            if found is None:
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
            if self._values is not None:
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
