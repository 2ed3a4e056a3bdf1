"""Blosc buffers: read in part, checked block by block.

A Blosc buffer starts with a header of 16 bytes and a table of block offsets; the blocks follow in any
order and are independent of each other (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT). This
allows two things:

- A page of rows needs only its own blocks. They are copied behind a new header and unpacked by Blosc.
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
    "BloscBlocks",
    "Piece",
    "ReadAt",
    "SummedBlocks",
    "block_sums",
    "check_header",
    "compress",
    "lone_last",
    "summed_head",
    "whole_buffer",
]


HEADER = 16
COPIED = 0x02
"""In the flags: it is not packed at all, the bytes follow the header as they are."""
MAX_BLOCKS = 2**16
"""Blocks, of a buffer that is unpacked in parts: what is kept of each takes memory."""


def check_header(data: memoryview, least: int, most: int) -> int:
    """Return how many bytes a Blosc buffer says that it has unpacked, if it may have so many.

    Raises
    ------
    ValueError
    """
    if len(data) < HEADER:
        raise ValueError(f"{len(data)} bytes are no Blosc buffer")
    size, _, packed = struct.unpack_from("<III", data, 4)
    if not least <= size <= most:
        expected = f"{most}" if least == most else f"at most {most}"
        raise ValueError(f"expected {expected} bytes unpacked, got {size}")
    if packed != len(data):
        # Blosc itself would read on beyond the end.
        raise ValueError(f"expected {packed} bytes of packed data, got {len(data)}")
    return int(size)


def lone_last(first: int, last: int, count: int) -> bool:
    """Return whether a run of blocks is the last one alone.

    It is shorter than the others. Alone it would be taken for a full one, and those are packed in
    another way: the one before it has to be unpacked with it.
    """
    return first == last - 1 == count - 1


def whole_buffer(
    packed: memoryview, how: bytes | memoryview, size: int, block: int, starts: Sequence[int]
) -> None:
    """Write Blosc's header for blocks that are in memory already, behind where it goes.

    Parameters
    ----------
    packed : memoryview
        What becomes the buffer, from its first byte to its last.
    how : bytes
        The header's first four, of the buffer that the blocks are from.
    size, block : int
        Bytes unpacked, of all, and of each but the last.
    starts : sequence of int
        Where each begins.
    """
    packed[:4] = how
    struct.pack_into(f"<III{len(starts)}i", packed, 4, size, block, len(packed), *starts)


@dataclass(frozen=True, slots=True)
class BloscBlocks:
    """A Blosc buffer of more than one block."""

    data: memoryview
    size: int
    """Bytes, unpacked."""
    block: int
    """Bytes of each block but the last, unpacked."""
    count: int
    """How many blocks."""
    starts: tuple[int, ...] = ()
    """Where in the buffer each block begins; none where it is not packed."""
    borders: tuple[int, ...] = ()
    """The same in ascending order, then the buffer's end."""

    @classmethod
    def of(cls, data: memoryview, size: int) -> Self | None:
        """Look at a buffer; None where it has a single block, or more than are looked at here.

        Parameters
        ----------
        data : memoryview
            Of bytes.
        size : int
            What it must have unpacked.

        Raises
        ------
        ValueError
            Where it can't be such a buffer.
        """
        check_header(data, size, size)
        block = struct.unpack_from("<I", data, 8)[0]
        if not 0 < block < size:
            # None of these are Blosc's, if they are not of one block: it says so itself.
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
            raise ValueError(f"{len(data)} bytes can't be {count} blocks")
        # As plain numbers: most buffers have few blocks, and numpy is slow to begin with.
        starts = struct.unpack_from(f"<{count}i", data, HEADER)
        # They lie in the order in which Blosc's threads had them ready.
        borders = (*sorted(starts), len(data))
        if borders[0] < first or borders[-2] >= len(data):
            raise ValueError("a block is said to begin where there is none")
        return cls(data, size, block, count, starts, borders)

    def bytes_of(self, first: int, last: int) -> tuple[int, int]:
        """Return which unpacked bytes a run of blocks holds, half-open."""
        return first * self.block, min(last * self.block, self.size)

    def unpack(self, first: int, last: int, out: NDArray[np.uint8]) -> None:
        """Unpack a run of blocks.

        Parameters
        ----------
        out : ndarray of uint8
            For exactly their bytes, contiguous.

        Raises
        ------
        ValueError, RuntimeError
            Where they are not what Blosc has packed.
        """
        start, stop = self.bytes_of(first, last)
        if len(out) != stop - start:
            raise ValueError(f"expected room for {stop - start} bytes, got {len(out)}")
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
        """Put a run of blocks together as a buffer that has no others."""
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
"""Reads from a place in an object into memory; returns how many bytes there were."""

MAGIC = b"rzbs"
SUM = 4
"""Bytes of a CRC-32C, the least significant first."""
HEAD = 4096
"""Bytes that are read for the header and the table."""
MAX_SUMMED_BLOCKS = (HEAD - HEADER - len(MAGIC) - SUM) // (4 + SUM)
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

    As :class:`~ratzarr.codecs.blosc.BloscBlocks`, of which all is in memory.
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
    """Pack values as Blosc's ``compress`` does.

    Parameters
    ----------
    values : ndarray
        One-dimensional. Blosc shuffles by its item size.
    compressor, level, shuffle, block
        See numcodecs; ``block`` is not 0.
    summed : bool
        Whether to put a checksum of each block into it, if it has more than one.

    Returns
    -------
    list of bytes and ndarray of uint8
        Which make the buffer, one behind the other.
    """
    data = blosc.compress(values, compressor, level, shuffle, block)
    sums = block_sums(data) if summed else []
    if not 1 < len(sums) <= MAX_SUMMED_BLOCKS:
        return [data]
    starts = struct.unpack_from(f"<{len(sums)}i", data, HEADER)
    head = summed_head(data[:HEADER], starts, sums)
    return [head, np.frombuffer(data, np.uint8)[HEADER + 4 * len(sums) :]]
