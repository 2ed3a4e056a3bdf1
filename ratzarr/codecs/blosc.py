"""Blosc buffers: read in part, and verified block by block.

A Blosc buffer starts with a header of 16 bytes and a table of block offsets; the blocks follow in any
order and are independent of each other (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT). This
allows two things:

- A page of rows needs only its own blocks. They are copied behind a new header, and Blosc decodes
  them.
- A table of CRC-32C checksums, one per block, is stored between the offsets and the first block, where
  no Blosc reader looks. A page can be verified without the rest of its chunk.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any, Self

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from ratzarr.concurrency import lent

__all__ = [
    "HEADER",
    "BloscBlocks",
    "Piece",
    "ReadAt",
    "SummedBlocks",
    "block_sums",
    "compress",
    "lone_last",
    "summed_head",
    "whole_buffer",
]


HEADER = 16
COPIED = 0x02
"""Flag of a buffer that is not compressed: the bytes follow the header unchanged."""
MAX_BLOCKS = 2**16
"""Largest number of blocks of a buffer that is decoded in parts, because each block needs
memory."""


def lone_last(first: int, last: int, count: int) -> bool:
    """Return True if a run of blocks consists of the last one only.

    The last block is shorter than the others. Alone it would be taken for a full block, which has
    a different layout, so it must be decoded together with the previous one.
    """
    return first == last - 1 == count - 1


def whole_buffer(
    packed: memoryview, how: bytes | memoryview, size: int, block: int, starts: Sequence[int]
) -> None:
    """Write a Blosc header before blocks that are already in memory.

    Parameters
    ----------
    packed : memoryview
        The future buffer, from its first byte to its last.
    how : bytes
        The first four header bytes of the buffer that the blocks come from.
    size, block : int
        Uncompressed bytes of all blocks, and of each except the last.
    starts : sequence of int
        The offset of each block.
    """
    packed[:4] = how
    struct.pack_into(f"<III{len(starts)}i", packed, 4, size, block, len(packed), *starts)


@dataclass(frozen=True, slots=True)
class BloscBlocks:
    """A Blosc buffer with more than one block."""

    data: memoryview
    size: int
    """Uncompressed size in bytes."""
    block: int
    """Uncompressed bytes of each block except the last."""
    count: int
    """Number of blocks."""
    starts: tuple[int, ...] = ()
    """Offsets of the blocks in the buffer; empty if it is not compressed."""
    borders: tuple[int, ...] = ()
    """The same offsets in ascending order, followed by the buffer's size."""

    @classmethod
    def of(cls, data: memoryview, size: int) -> Self | None:
        """Parse a buffer; return None if it has a single block, or more than the limit.

        Parameters
        ----------
        data : memoryview
            The bytes of the buffer, whose header has the right sizes.
        size : int
            The uncompressed size.

        Raises
        ------
        ValueError
            If it is not a valid buffer.
        """
        block = struct.unpack_from("<I", data, 8)[0]
        if not 0 < block < size:
            # Blosc writes no such buffer with several blocks: its header would mark it as a single
            # block.
            return None
        count = -(-size // block)
        if count > MAX_BLOCKS:
            return None
        if data[2] & COPIED:
            if len(data) != HEADER + size:
                raise ValueError(f"expected {HEADER + size} bytes, got {len(data)}")
            return cls(data, size, block, count)
        first = HEADER + 4 * count
        if first > len(data):
            raise ValueError(f"{len(data)} bytes can't hold {count} blocks")
        # Plain numbers: most buffers have few blocks, and numpy's overhead is high.
        starts = struct.unpack_from(f"<{count}i", data, HEADER)
        # Blosc's threads write the blocks in the order in which they finish.
        borders = (*sorted(starts), len(data))
        if borders[0] < first or borders[-2] >= len(data):
            raise ValueError("a block offset is out of range")
        return cls(data, size, block, count, starts, borders)

    def bytes_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the half-open range of uncompressed bytes in a run of blocks."""
        return first * self.block, min(last * self.block, self.size)

    def unpack(self, first: int, last: int, out: NDArray[np.uint8]) -> None:
        """Decode a run of blocks.

        Parameters
        ----------
        out : ndarray of uint8
            Exactly as long as the decoded bytes, and contiguous.

        Raises
        ------
        ValueError, RuntimeError
            If Blosc did not write them.
        """
        start, stop = self.bytes_of(first, last)
        if len(out) != stop - start:
            raise ValueError(f"expected a buffer of {stop - start} bytes, got {len(out)}")
        if self.data[2] & COPIED:
            out[:] = np.frombuffer(self.data, np.uint8, stop - start, HEADER + start)
            return
        if last - first == self.count:
            blosc.decompress(self.data, out)
            return
        alone = lone_last(first, last, self.count)
        with lent() as room:
            packed = self._cut_out(first - alone, last, room)
            if alone:
                both = np.empty(self.block + len(out), np.uint8)
                blosc.decompress(packed, both)
                out[:] = both[self.block :]
            else:
                blosc.decompress(packed, out)

    def _cut_out(self, first: int, last: int, room: Callable[[int], memoryview]) -> memoryview:
        """Return a new buffer with a run of blocks only."""
        start, stop = self.bytes_of(first, last)
        begins, begin = [], HEADER + 4 * (last - first)
        places = []
        for one in self.starts[first:last]:
            other = self.borders[bisect_right(self.borders, one)]
            places.append((begin, one, other))
            begins.append(begin)
            begin += other - one
        packed = room(begin)
        whole_buffer(packed, self.data[:4], stop - start, self.block, begins)
        for to, one, other in places:
            packed[to : to + other - one] = self.data[one:other]
        return packed


type ReadAt = Callable[[int, memoryview], int]
"""Reads from an offset of an object into memory and returns the number of bytes."""

MAGIC = b"rzbs"
SUM = 4
"""Size of a CRC-32C, least significant byte first."""
HEAD = 4096
"""Number of bytes read to get the header and the table."""
MAX_SUMMED_BLOCKS = (HEAD - HEADER - len(MAGIC) - SUM) // (4 + SUM)
"""Numbers of blocks for which a buffer gets a checksum table."""


def block_sums(part: bytes) -> list[int]:
    """Return the CRC-32C of each block of a newly compressed buffer; none if it gets no table.

    With a single thread, Blosc writes the blocks one after another in order.
    """
    size, block = struct.unpack_from("<II", part, 4)
    if part[2] & COPIED or not block:
        return []
    count = -(-size // block)
    starts = struct.unpack_from(f"<{count}i", part, HEADER)
    view = np.frombuffer(part, np.uint8)
    ends = (*starts[1:], len(part))
    if list(starts) != sorted(starts):
        return []
    return [google_crc32c.value(view[a:b]) for a, b in zip(starts, ends, strict=True)]


def summed_head(header: bytes, starts: Sequence[int], sums: Sequence[int]) -> bytes:
    """Return the bytes before the blocks: Blosc's header, the block offsets, and the table.

    Parameters
    ----------
    header : bytes
        Blosc's 16 bytes, without a table.
    starts : sequence of int
        The offset of each block without a table.
    sums : sequence of int
        The checksum of each block, in the same order.
    """
    count = len(starts)
    longer = _table_bytes(count)
    packed = struct.unpack_from("<I", header, 12)[0] + longer
    head = b"".join(
        (
            header[:12],
            struct.pack(f"<I{count}i", packed, *(start + longer for start in starts)),
            MAGIC,
            struct.pack(f"<{count}I", *sums),
        )
    )
    return head + struct.pack("<I", google_crc32c.value(head))


def _table_bytes(count: int) -> int:
    return len(MAGIC) + SUM * count + SUM


@dataclass(frozen=True, slots=True)
class SummedBlocks:
    """The blocks of a Blosc buffer with a checksum table; each is read when it is needed.

    Like :class:`~ratzarr.codecs.blosc.BloscBlocks`, which holds the whole buffer in memory.
    """

    how: bytes
    """The first four bytes of the header, with the compression flags."""
    size: int
    """Uncompressed size in bytes."""
    block: int
    """Uncompressed bytes of each block except the last."""
    count: int
    """Number of blocks."""
    borders: tuple[int, ...]
    """Offsets of the blocks in ascending order, followed by the buffer's size."""
    sums: tuple[int, ...]
    read: ReadAt
    room: Callable[[int], memoryview]
    """Returns a buffer of the given size from the caller."""

    @classmethod
    def of(
        cls, length: int, size: int, read: ReadAt, room: Callable[[int], memoryview]
    ) -> Self | None:
        """Parse the beginning of a buffer; return None if it has no valid checksum table.

        Parameters
        ----------
        length : int
            Size of the buffer in bytes.
        size : int
            The expected uncompressed size.
        """
        head = room(HEAD)
        there = read(0, head)
        if there < HEADER:
            return None
        claimed, block, packed = struct.unpack_from("<III", head, 4)
        if (claimed, packed) != (size, length) or head[2] & COPIED or not 0 < block < size:
            return None
        count = -(-size // block)
        table = HEADER + 4 * count
        first = table + _table_bytes(count)
        if count > MAX_SUMMED_BLOCKS or there < first or head[table : table + len(MAGIC)] != MAGIC:
            return None
        whole = np.frombuffer(head, np.uint8, first - SUM)
        if google_crc32c.value(whole) != struct.unpack_from("<I", head, first - SUM)[0]:
            return None
        starts = struct.unpack_from(f"<{count}i", head, HEADER)
        borders = (*starts, length)
        if starts[0] != first or not all(map(lt, starts, borders[1:])):
            return None
        sums = struct.unpack_from(f"<{count}I", head, table + len(MAGIC))
        return cls(bytes(head[:4]), size, block, count, borders, sums, read, room)

    def bytes_of(self, first: int, last: int) -> tuple[int, int]:
        """Return the half-open range of uncompressed bytes in a run of blocks."""
        return first * self.block, min(last * self.block, self.size)

    def unpack(self, first: int, last: int, out: NDArray[np.uint8]) -> None:
        """Read a run of blocks, verify their checksums, and decode them.

        Parameters
        ----------
        out : ndarray of uint8
            Exactly as long as the decoded bytes, and contiguous.

        Raises
        ------
        ValueError, RuntimeError
            If Blosc did not write them.
        """
        alone = lone_last(first, last, self.count)
        begin, end = self.borders[first - alone], self.borders[last]
        head = HEADER + 4 * (last - first + alone)
        packed = self.room(head + end - begin)
        if self.read(begin, packed[head:]) != end - begin:
            raise ValueError("the object has become shorter")
        view = np.frombuffer(packed, np.uint8)
        moved = begin - head
        for number in range(first - alone, last):
            one = view[self.borders[number] - moved : self.borders[number + 1] - moved]
            if google_crc32c.value(one) != self.sums[number]:
                raise ValueError(f"the checksum of block {number} differs")
        start, stop = self.bytes_of(first - alone, last)
        starts = [one - moved for one in self.borders[first - alone : last]]
        whole_buffer(packed, self.how, stop - start, self.block, starts)
        if alone:
            both = np.empty(stop - start, np.uint8)
            blosc.decompress(packed, both)
            out[:] = both[self.block :]
        else:
            blosc.decompress(packed, out)


type Piece = bytes | NDArray[np.uint8]


def compress(
    values: NDArray[Any],
    compressor: bytes,
    level: int,
    shuffle: int,
    block: int,
    *,
    summed: bool = False,
) -> list[Piece]:
    """Compress values like Blosc's ``compress``.

    Parameters
    ----------
    values : ndarray
        One-dimensional. Blosc shuffles by its item size.
    compressor, level, shuffle, block
        See numcodecs; ``block`` is not 0.
    summed : bool
        Add a checksum of each block, if the buffer has more than one block.

    Returns
    -------
    list of bytes and ndarray of uint8
        The consecutive parts of the buffer.
    """
    data = blosc.compress(values, compressor, level, shuffle, block)
    sums = block_sums(data) if summed else []
    if not 1 < len(sums) <= MAX_SUMMED_BLOCKS:
        return [data]
    starts = struct.unpack_from(f"<{len(sums)}i", data, HEADER)
    head = summed_head(data[:HEADER], starts, sums)
    return [head, np.frombuffer(data, np.uint8)[HEADER + 4 * len(sums) :]]
