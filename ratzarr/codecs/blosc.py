"""Blosc buffers: read in part, and verified block by block.

A Blosc buffer starts with a header of 16 bytes and a table of block offsets; the blocks follow in any
order and are independent of each other (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT). This
allows two things:

- A page of rows needs only its own blocks. They are copied behind a new header, and Blosc decodes
  them.
- Between the offsets and the first block, where no Blosc reader looks, there is room for a table: the
  CRC-32C of each block, so that a page can be verified without the rest of its chunk; or, for text, the
  places of some strings, so that a page can be found in it.
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

__all__ = [
    "HEADER",
    "Blocks",
    "Piece",
    "ReadAt",
    "compress",
    "marks_in",
    "reader_of",
]


HEADER = 16
COPIED = 0x02
"""Flag of a buffer that is not compressed: the bytes follow the header unchanged."""
MAX_BLOCKS = 2**16
"""Largest number of blocks of a buffer that is decoded in parts, because each block needs
memory."""

type ReadAt = Callable[[int, memoryview], int]
"""Reads from an offset of an object into memory and returns the number of bytes."""

MAGIC, MARKS = b"rzbs", b"rztm"
SUM = 4
"""Size of a CRC-32C, least significant byte first."""
HEAD = 4096
"""Number of bytes read to get the header and the table."""
MAX_SUMMED_BLOCKS = (HEAD - HEADER - len(MAGIC) - SUM) // (4 + SUM)
"""Numbers of blocks for which a buffer gets a checksum table."""


def reader_of(data: memoryview) -> ReadAt:
    """Return a function that reads from bytes in memory."""

    def read(place: int, memory: memoryview) -> int:
        found = data[place : place + len(memory)]
        memory[: len(found)] = found
        return len(found)

    return read


@dataclass(frozen=True, slots=True)
class Blocks:
    """A Blosc buffer with more than one block; each is read when it is needed."""

    how: bytes
    """The first four bytes of the header, with the compression flags."""
    size: int
    """Uncompressed size in bytes."""
    block: int
    """Uncompressed bytes of each block except the last."""
    count: int
    """Number of blocks."""
    starts: tuple[int, ...]
    """Offset of each block in the buffer; empty if it is not compressed."""
    borders: tuple[int, ...]
    """The same offsets in ascending order, followed by the buffer's size."""
    sums: tuple[int, ...]
    """CRC-32C of each block; empty if the caller has verified the buffer."""
    read: ReadAt

    @classmethod
    def of(cls, length: int, size: int, read: ReadAt, *, summed: bool) -> Self | None:
        """Parse the beginning of a buffer; return None if it can't be read in parts.

        That is a buffer with a single block or with very many, or whose header is not valid.

        Parameters
        ----------
        length : int
            Size of the buffer in bytes.
        size : int
            The expected uncompressed size.
        read : callable
            Reads from the buffer.
        summed : bool
            If True, only a buffer with a valid checksum table can be read in parts. Otherwise the
            caller has verified the whole buffer.
        """
        head = np.empty(HEAD, np.uint8)
        there = read(0, memoryview(head))
        if there < HEADER:
            return None
        claimed, block, packed = struct.unpack_from("<III", head, 4)
        if (claimed, packed) != (size, length) or not 0 < block < size:
            return None
        how, count = head[:4].tobytes(), -(-size // block)
        if how[2] & COPIED:
            is_whole = length == HEADER + size
            return (
                None if summed or not is_whole else cls(how, size, block, count, (), (), (), read)
            )
        if count > (MAX_SUMMED_BLOCKS if summed else MAX_BLOCKS):
            return None
        table = HEADER + 4 * count
        first = table + (len(MAGIC) + SUM * (count + 1)) * summed
        if first > HEAD:
            head = np.empty(first, np.uint8)
            there = read(0, memoryview(head))
        if there < first:
            return None
        # Plain numbers: most buffers have few blocks, and numpy's overhead is high.
        starts = struct.unpack_from(f"<{count}i", head, HEADER)
        # Blosc's threads write the blocks in the order in which they finish.
        borders = (*sorted(starts), length)
        if borders[0] < first or borders[-2] >= length or len(set(starts)) < count:
            # Overlapping blocks would take more memory than the buffer.
            return None
        if not summed:
            return cls(how, size, block, count, starts, borders, (), read)
        stored = struct.unpack_from("<I", head, first - SUM)[0]
        is_ours = head[table : table + len(MAGIC)].tobytes() == MAGIC
        if not is_ours or google_crc32c.value(head[: first - SUM]) != stored:
            return None
        if starts != borders[:-1]:
            return None
        sums = struct.unpack_from(f"<{count}I", head, table + len(MAGIC))
        return cls(how, size, block, count, starts, borders, sums, read)

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
        start, stop = self.bytes_of(first, last)
        if len(out) != stop - start:
            raise ValueError(f"expected a buffer of {stop - start} bytes, got {len(out)}")
        if self.how[2] & COPIED:
            self._read(HEADER + start, out)
            return
        # The last block is shorter than the others. Alone it would be taken for a full block,
        # which has a different layout, so it is decoded together with the previous one.
        alone = first == last - 1 == self.count - 1
        first -= alone
        starts = self.starts[first:last]
        sizes = [self.borders[bisect_right(self.borders, one)] - one for one in starts]
        place = HEADER + 4 * len(starts)
        packed = np.empty(place + sum(sizes), np.uint8)
        places = []
        for number, (one, size) in enumerate(zip(starts, sizes, strict=True), first):
            piece = packed[place : place + size]
            self._read(one, piece)
            if self.sums and google_crc32c.value(piece) != self.sums[number]:
                raise ValueError(f"the checksum of block {number} differs")
            places.append(place)
            place += size
        start, stop = self.bytes_of(first, last)
        header = struct.pack("<III", stop - start, self.block, len(packed))
        packed[:HEADER] = np.frombuffer(self.how + header, np.uint8)
        struct.pack_into(f"<{len(places)}i", packed, HEADER, *places)
        if alone:
            both = np.empty(stop - start, np.uint8)
            blosc.decompress(packed, both)
            out[:] = both[self.block :]
        else:
            blosc.decompress(packed, out)

    def _read(self, place: int, out: NDArray[np.uint8]) -> None:
        if self.read(place, memoryview(out)) != len(out):
            raise ValueError("the object has become shorter")


type Piece = bytes | NDArray[np.uint8]


def compress(
    values: NDArray[Any],
    compressor: bytes,
    level: int,
    shuffle: int,
    block: int,
    *,
    summed: bool = False,
    marks: Sequence[int] = (),
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
    marks : sequence of int
        Add these offsets in the values' bytes, instead of checksums.

    Returns
    -------
    list of bytes and ndarray of uint8
        The consecutive parts of the buffer.
    """
    data = blosc.compress(values, compressor, level, shuffle, block)
    size, block = struct.unpack_from("<II", data, 4)
    count = -(-size // block) if block else 0
    if data[2] & COPIED or not (marks or (summed and 1 < count <= MAX_SUMMED_BLOCKS)):
        return [data]
    starts = struct.unpack_from(f"<{count}i", data, HEADER)
    if marks:
        return _with_table(data, starts, MARKS, marks)
    if list(starts) != sorted(starts):
        # Several threads of Blosc write the blocks in the order in which they finish.
        return [data]
    view = np.frombuffer(data, np.uint8)
    sums = [
        google_crc32c.value(view[a:b]) for a, b in zip(starts, (*starts[1:], None), strict=True)
    ]
    return _with_table(data, starts, MAGIC, sums)


def _with_table(
    data: bytes, starts: Sequence[int], magic: bytes, numbers: Sequence[int]
) -> list[Piece]:
    """Insert a table into a buffer, in front of its first block."""
    first = HEADER + 4 * len(starts)
    more = len(magic) + SUM * (len(numbers) + 1)
    head = data[:12] + struct.pack(
        f"<I{len(starts)}i{len(magic)}s{len(numbers)}I",
        len(data) + more, *(start + more for start in starts), magic, *numbers,
    )  # fmt: skip
    view = np.frombuffer(data, np.uint8)
    return [head, struct.pack("<I", google_crc32c.value(head)), view[first:]]


def marks_in(data: memoryview, count: int) -> tuple[int, ...]:
    """Return the marks in a valid buffer; see :func:`compress`.

    Parameters
    ----------
    data : memoryview
    count : int
        The number of marks expected.

    Returns
    -------
    tuple of int
        Ascending, within the uncompressed bytes; empty if there are no such marks.
    """
    size, block = struct.unpack_from("<II", data, 4)
    if count < 1 or not block or data[2] & COPIED:
        return ()
    table = HEADER + 4 * -(-size // block)
    end = table + len(MARKS) + SUM * count
    if len(data) < end + SUM or data[table : table + len(MARKS)] != MARKS:
        return ()
    if struct.unpack_from("<I", data, end)[0] != google_crc32c.value(bytes(data[:end])):
        return ()
    marks = struct.unpack_from(f"<{count}I", data, table + len(MARKS))
    is_sound = marks[0] > 0 and marks[-1] < size and all(map(lt, marks, marks[1:]))
    return marks if is_sound else ()
