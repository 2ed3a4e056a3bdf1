"""A chunk of which rows are unpacked as they are asked for.

The chunk's checksum is compared over all of its bytes, each time that they come. Of a
chunk of numbers only the blocks that hold the rows are unpacked, each of them once; where
reading goes on behind what is there, some more than are asked for, so that a chunk that is
read from one end to the other in small blocks need not come often. Any other chunk is
unpacked as a whole.

Packed bytes are not kept: reading them again from a disk's cache takes less time than to
find new memory for them.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codec import ChunkCodec

__all__ = ["OpenChunk", "size_of"]

Array = NDArray[Any]

AHEAD = 16
"""How many times as many blocks as are there are unpacked when reading goes on behind them."""
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
        self.size = 0
        """Bytes that it takes in memory, about."""

    def has(self, rows: slice) -> bool:
        """Return whether these rows are unpacked."""
        with self._lock:
            return self._values is not None or (
                self._block_bytes > 0 and not self._lacking(*self._blocks_of(rows))
            )

    def copy(self, rows: slice, out: Array) -> None:
        """Copy rows that it :meth:`has` to a contiguous array of the column's dtype."""
        if self._values is not None:
            out[:] = self._values[rows]
            return
        # A block is never changed once it is here, and none ever goes.
        to = out.reshape(-1).view(np.uint8)
        begin, end = rows.start * self._row_bytes, rows.stop * self._row_bytes
        for number in range(*self._blocks_of(rows)):
            first = number * self._block_bytes
            start, stop = max(begin, first), min(end, first + self._block_bytes)
            to[start - begin : stop - begin] = self._blocks[number][start - first : stop - first]

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
            if found is None:
                # A copy: what is not compressed would be a view of the caller's memory.
                self._values = self._codec.decode(bytes(data))
                self.size = size_of(self._values)
                return
            self._block_bytes = found.block
            first, last = self._blocks_of(rows)
            if all_of_it:
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
