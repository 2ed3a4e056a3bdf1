"""Some blocks of a Blosc buffer, unpacked without the others.

Blosc packs a buffer in blocks that know nothing of each other: after a header of 16 bytes
comes where each block begins, then the blocks, in any order. So the blocks that hold the
rows that are wanted, with a header that speaks of no others, are a Blosc buffer too, which
is unpacked by Blosc as any other is. (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT)

Nothing is believed of a header that does not fit what the chunk must be.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from .scratch import lent

__all__ = ["BloscBlocks", "check_header", "lone_last", "whole_buffer"]

HEADER = 16
COPIED = 0x02
"""In the flags: it is not packed at all, the bytes follow the header as they are."""
MOST = 2**16
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
        if count > MOST:
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
