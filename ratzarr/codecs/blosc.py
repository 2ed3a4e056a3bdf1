"""Blosc buffers: compressed in a way that suits their values, read in part, verified block by block.

A Blosc buffer starts with a header of 16 bytes and a table of block offsets; the blocks follow in any
order and are independent of each other (https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT). This
allows two things:

- A page of rows needs only its own blocks. They are copied behind a new header, and Blosc decodes
  them.
- Between the offsets and the first block, where no Blosc reader looks, there is room for a table: the
  CRC-32C of each block, so that a page can be verified without the rest of its chunk; or, for text, the
  places of some strings, so that a page can be found in it.

A buffer also describes its own compression, so the chunks of one column may be compressed
differently, and every Blosc reader can read them. The column's ``zarr.json`` names the default. A
sample of each chunk shows whether another compression saves much more
(docs/decisions/0002-packing.md has the measurements):

- lz4 with byte shuffle: the fastest in both directions, and small enough for most numbers;
- lz4 with bit shuffle: half as fast, for codes that use half of each value's bits;
- zstd with byte shuffle: half as fast as lz4, for codes that use few bits or have frequent values;
- zstd without shuffle: a tenth of the writing speed, for values that repeat as a whole, such as
  decimals in float64, which become three times smaller.

Compressing a sample takes as long as compressing a chunk, so :class:`ChunkCodec` does not choose
for each chunk.

Text is always compressed by zstd and never decompressed in part, so its blocks are as long as possible.
Blosc's own blocks of 32 KiB would make names that contain a number twice as large, and take longer.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any, NamedTuple, Self

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

__all__ = [
    "HEADER",
    "PACKABLE",
    "SIZES",
    "Blocks",
    "Piece",
    "ReadAt",
    "Way",
    "choose",
    "chooses",
    "compress",
    "marks_in",
    "pack_text",
    "reader_of",
]

SIZES = struct.Struct("<4xIII")
"""The header: four bytes with flags, then the numbers of bytes of the values, of a block, and of the
buffer."""
HEADER = SIZES.size
PACKABLE = 2**31 - 2**16
"""Largest number of bytes that are compressed: Blosc's sizes are signed."""
COPIED = 0x02
"""Flag, in the third byte, of a buffer that is not compressed: the bytes follow the header unchanged."""
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
        claimed, block, packed = SIZES.unpack_from(head)
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
        SIZES.pack_into(packed, 0, stop - start, self.block, len(packed))
        packed[: len(self.how)] = np.frombuffer(self.how, np.uint8)
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


# ---- compressing

type Piece = bytes | NDArray[np.uint8]

LZ4, ZSTD = b"lz4", b"zstd"
NO_SHUFFLE, BYTES, BITS = 0, 1, 2


class Way(NamedTuple):
    """Arguments of Blosc's ``compress``; see numcodecs."""

    compressor: bytes
    level: int
    shuffle: int
    block: int
    """Bytes of a block; 0 lets Blosc choose."""


LZ4_BYTES = Way(LZ4, 5, BYTES, 2**15)
LZ4_BITS = Way(LZ4, 5, BITS, 2**15)
ZSTD_BYTES = Way(ZSTD, 1, BYTES, 2**18)
ZSTD_WHOLE = Way(ZSTD, 2, NO_SHUFFLE, 2**18)

USUAL: Mapping[str, Any] = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}
USUAL_TEXT: Mapping[str, Any] = {
    "cname": "zstd",
    "clevel": 1,
    "shuffle": "noshuffle",
    "blocksize": 0,
}
TEXT_BLOCK = 2**23
"""Largest block of text, in bytes."""
TEXT_IN_TWO = 2**22
"""Text of at least this many bytes has an even number of blocks, so that two threads of a reader's
Blosc have equal work."""

SAMPLE = 2**16
BITS_SAVE, BYTES_SAVE, WHOLE_SAVES = 0.1, 0.05, 0.25
"""The part of the uncompressed bytes that a slower compression must save."""
BYTES_LEAVE = 0.75
"""The part of lz4's result that zstd with byte shuffle must not exceed."""
PROBES = 256
"""Number of values compared to find the padding of a partly filled chunk."""


def compress(
    values: NDArray[Any], way: Way, *, summed: bool = False, marks: Sequence[int] = ()
) -> list[Piece]:
    """Compress values.

    Parameters
    ----------
    values : ndarray
        One-dimensional. Blosc shuffles by its item size.
    way : Way
    summed : bool
        Add a checksum of each block, if the buffer has more than one block.
    marks : sequence of int
        Add these offsets in the values' bytes, instead of checksums.

    Returns
    -------
    list of bytes and ndarray of uint8
        The consecutive parts of the buffer.
    """
    data = blosc.compress(values, *way)
    size, block, _ = SIZES.unpack_from(data)
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
    size, block, _ = SIZES.unpack_from(data)
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


def chooses(configuration: Mapping[str, Any], *, is_text: bool) -> bool:
    """Return True if this module chooses how to compress columns with this configuration.

    Any other configuration than the default was a user's choice and stays.
    """
    usual = USUAL_TEXT if is_text else USUAL
    return all(str(configuration.get(name)) == str(value) for name, value in usual.items())


def pack_text(data: NDArray[np.uint8], marks: Sequence[int]) -> list[Piece]:
    """Return a chunk of encoded text as a Blosc buffer, in pieces, with the places of strings."""
    pairs = -(-len(data) // (2 * TEXT_BLOCK))
    blocks = 2 * pairs if len(data) >= TEXT_IN_TWO else 1
    return compress(data, Way(ZSTD, 1, NO_SHUFFLE, -(-len(data) // blocks)), marks=marks)


def choose(values: NDArray[np.void]) -> Way:
    """Return the best compression for a chunk of numbers, from a sample of it."""
    rows = SAMPLE // values.itemsize
    # Sample the middle, because the first rows of a table are often unusual.
    start = max(0, (_filled(values) - rows) // 2)
    sample = values[start : start + rows]
    if not len(sample):
        return LZ4_BYTES
    usual = _part(LZ4_BYTES, sample)
    best, size = LZ4_BYTES, usual
    # If lz4 saves nothing, skip the slower ones.
    if usual > BYTES_SAVE:
        bits, zstd = _part(LZ4_BITS, sample), _part(ZSTD_BYTES, sample)
        if usual - zstd > BYTES_SAVE and zstd < BYTES_LEAVE * usual:
            best, size = ZSTD_BYTES, zstd
        elif usual - bits > BITS_SAVE:
            best, size = LZ4_BITS, bits
    if size > WHOLE_SAVES and size - _part(ZSTD_WHOLE, sample) > WHOLE_SAVES:
        return ZSTD_WHOLE
    return best


def _part(way: Way, values: NDArray[np.void]) -> float:
    """Return the compressed size as a part of the uncompressed bytes."""
    return sum(map(len, compress(values, way))) / values.nbytes


def _filled(values: NDArray[np.void]) -> int:
    """Return the approximate number of values before the padding at a chunk's end."""
    if not len(values):
        return 0
    places = np.linspace(0, len(values) - 1, PROBES).astype(np.intp)
    probes = values[places].tolist()
    different = [place for place, value in zip(places, probes, strict=True) if value != probes[-1]]
    return int(different[-1]) if different else len(values)
