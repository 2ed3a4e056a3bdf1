"""A checksum of each block of a Blosc buffer, within that buffer.

The checksum of a chunk is over all of it. To believe a page of some rows, all of the chunk would
have to be read and summed, a hundred times as many bytes as the page has. So a chunk of numbers
has a table with a checksum of each of its blocks: whoever reads a page reads the beginning of the
chunk and the blocks that hold the page.

Blosc's header tells where each block begins, and no reader looks at what lies before the first
one. There the table is. A chunk without it, or with one that is not right, is read as a whole,
and its own checksum decides. (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT;
docs/format.md, "Checksums of blocks")
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Self

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from .bloscblocks import COPIED, HEADER, lone_last, whole_buffer

__all__ = ["ReadAt", "SummedBlocks", "block_sums", "summed_head"]

type ReadAt = Callable[[int, memoryview], int]
"""Reads from a place in an object into memory; returns how many bytes there were."""

MAGIC = b"rzbs"
SUM = 4
"""Bytes of a CRC-32C, the least significant first."""
HEAD = 4096
"""Bytes that are read for the header and the table."""
MOST = (HEAD - HEADER - len(MAGIC) - SUM) // (4 + SUM)
"""Blocks of a buffer that gets a table."""


def block_sums(part: bytes) -> list[int]:
    """Return the CRC-32C of each block of a buffer that Blosc has just packed; none where it has none.

    Blosc itself puts blocks behind each other in their order, where one thread packs.
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
    """Return what comes before the blocks of a buffer: Blosc's header, where they begin, and the table.

    Parameters
    ----------
    header : bytes
        Blosc's, of 16, without a table.
    starts : sequence of int
        Where each block begins without a table.
    sums : sequence of int
        Of each block, in this order.
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
    """The blocks of a Blosc buffer that has a table: each is read when it is to be unpacked.

    As :class:`~ratzarr.bloscblocks.BloscBlocks`, of which all is in memory.
    """

    how: bytes
    """The first four bytes of the header: what they were packed by."""
    size: int
    """Bytes, unpacked."""
    block: int
    """Bytes of each block but the last, unpacked."""
    count: int
    """How many blocks."""
    borders: tuple[int, ...]
    """Where each begins, in ascending order, then the buffer's end."""
    sums: tuple[int, ...]
    read: ReadAt
    room: Callable[[int], memoryview]
    """Returns memory for so many bytes, of the caller's."""

    @classmethod
    def of(
        cls, length: int, size: int, read: ReadAt, room: Callable[[int], memoryview]
    ) -> Self | None:
        """Look at the beginning of a buffer; None where it has no table, or is not as it should be.

        Parameters
        ----------
        length : int
            Bytes of the buffer.
        size : int
            What it must have unpacked.
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
        if count > MOST or there < first or head[table : table + len(MAGIC)] != MAGIC:
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
        """Return which unpacked bytes a run of blocks holds, half-open."""
        return first * self.block, min(last * self.block, self.size)

    def unpack(self, first: int, last: int, out: NDArray[np.uint8]) -> None:
        """Read a run of blocks, compare their checksums, and unpack them.

        Parameters
        ----------
        out : ndarray of uint8
            For exactly their bytes, contiguous.

        Raises
        ------
        ValueError, RuntimeError
            Where they are not what Blosc has packed.
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
                raise ValueError(f"block {number} has another checksum")
        start, stop = self.bytes_of(first - alone, last)
        starts = [one - moved for one in self.borders[first - alone : last]]
        whole_buffer(packed, self.how, stop - start, self.block, starts)
        if alone:
            both = np.empty(stop - start, np.uint8)
            blosc.decompress(packed, both)
            out[:] = both[self.block :]
        else:
            blosc.decompress(packed, out)
