"""The choice of compression for each chunk: numbers by a sample, text in large blocks.

A Blosc buffer describes its own compression, so the chunks of one column may be compressed
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
Blocks are compressed independently. Blosc's own blocks of 32 KiB would make names that contain a
number twice as large, and take longer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import Piece, compress

__all__ = ["Way", "choose", "chooses", "chooses_for_text", "pack_text"]

LZ4, ZSTD = b"lz4", b"zstd"
NO_SHUFFLE, BYTES, BITS = 0, 1, 2


class Way(NamedTuple):
    """Arguments of :func:`ratzarr.codecs.blosc.compress`."""

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


def chooses(configuration: Mapping[str, Any]) -> bool:
    """Return True if this module chooses how to compress columns with this configuration.

    Any other configuration than the default was a user's choice and stays.
    """
    return _same(configuration, USUAL)


def chooses_for_text(configuration: Mapping[str, Any]) -> bool:
    """Return True if this module chooses the blocks for a text column with this configuration."""
    return _same(configuration, USUAL_TEXT)


def _same(configuration: Mapping[str, Any], usual: Mapping[str, Any]) -> bool:
    return all(str(configuration.get(name)) == str(value) for name, value in usual.items())


def pack_text(data: NDArray[np.uint8], marks: Sequence[int]) -> list[Piece]:
    """Return a chunk of encoded text as a Blosc buffer, in pieces, with the places of strings."""
    pairs = -(-len(data) // (2 * TEXT_BLOCK))
    blocks = 2 * pairs if len(data) >= TEXT_IN_TWO else 1
    return compress(data, ZSTD, 1, NO_SHUFFLE, -(-len(data) // blocks), marks=marks)


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
    return sum(map(len, compress(values, *way))) / values.nbytes


def _filled(values: NDArray[np.void]) -> int:
    """Return the approximate number of values before the padding at a chunk's end."""
    if not len(values):
        return 0
    places = np.linspace(0, len(values) - 1, PROBES).astype(np.intp)
    probes = values[places].tolist()
    different = [place for place, value in zip(places, probes, strict=True) if value != probes[-1]]
    return int(different[-1]) if different else len(values)
