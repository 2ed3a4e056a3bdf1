"""How chunks are packed: numbers as suits what is in a chunk, text in large blocks.

A Blosc buffer says itself how it was packed, so chunks of one column may be packed in
different ways, and whatever reads Blosc reads them all. The column's ``zarr.json`` names
one way; it is taken where no other packs this chunk much better, which is seen from a
sample of it (docs/decisions/0002-packing.md has what was measured):

- lz4 with byte shuffle: the fastest both ways, and as small as any for most numbers;
- lz4 with bit shuffle: half as fast, for codes that fill a few bits of each value;
- zstd without shuffle: a tenth as fast to write, for values that come again whole, such
  as decimals in float64, which it packs three times smaller.

Text is always packed by zstd, and never unpacked in part. So its blocks are as long as they
can be: what is packed on its own knows nothing of what came before it, and Blosc's own
32 KiB make twice as much of names with a number in them, in more time.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

__all__ = ["chooses", "chooses_for_text", "pack", "pack_text"]

LZ4, ZSTD = b"lz4", b"zstd"
NO_SHUFFLE, BYTES, BITS = 0, 1, 2


class _Way(NamedTuple):
    compressor: bytes
    level: int
    shuffle: int
    block: int
    """Bytes that are packed on their own; 0: Blosc's choice."""


LZ4_BYTES = _Way(LZ4, 5, BYTES, 2**15)
LZ4_BITS = _Way(LZ4, 5, BITS, 2**15)
ZSTD_WHOLE = _Way(ZSTD, 2, NO_SHUFFLE, 2**18)

USUAL: Mapping[str, Any] = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}
USUAL_TEXT: Mapping[str, Any] = {
    "cname": "zstd",
    "clevel": 1,
    "shuffle": "noshuffle",
    "blocksize": 0,
}
TEXT_BLOCK = 2**23
"""Bytes of text that are packed on their own at most."""
TEXT_IN_TWO = 2**22
"""Bytes of text from which on there are two blocks, or four, ...: Blosc has two threads where the
computer has two processors."""

SAMPLE = 2**16
BITS_SAVE, ZSTD_SAVES = 0.05, 0.25
"""What part of the unpacked bytes a slower way must save."""


def chooses(configuration: Mapping[str, Any]) -> bool:
    """Return whether chunks of a column with this configuration of Blosc are packed here.

    Any other than the one that columns are created with by default is somebody's wish.
    """
    return _same(configuration, USUAL)


def chooses_for_text(configuration: Mapping[str, Any]) -> bool:
    """Return the same for a column of strings, or bytes, of any length."""
    return _same(configuration, USUAL_TEXT)


def _same(configuration: Mapping[str, Any], usual: Mapping[str, Any]) -> bool:
    return all(str(configuration.get(name)) == str(value) for name, value in usual.items())


def pack_text(data: NDArray[np.uint8]) -> bytes:
    """Return a chunk of text, as bytes, as a Blosc buffer."""
    pairs = -(-len(data) // (2 * TEXT_BLOCK))
    blocks = 2 * pairs if len(data) >= TEXT_IN_TWO else 1
    return bytes(blosc.compress(data, ZSTD, 1, NO_SHUFFLE, -(-len(data) // blocks)))


def pack(data: NDArray[np.uint8], item_bytes: int) -> bytes:
    """Return a chunk of numbers as a Blosc buffer.

    Parameters
    ----------
    data : ndarray of uint8
        The values' bytes.
    item_bytes : int
        Bytes per value, which their number can be divided by.
    """
    values = data.view(f"V{item_bytes}")
    return _by(_choose(values), values)


def _by(way: _Way, values: NDArray[np.void]) -> bytes:
    # The item size of what it is given is what Blosc shuffles by.
    return bytes(blosc.compress(values, way.compressor, way.level, way.shuffle, way.block))


def _choose(values: NDArray[np.void]) -> _Way:
    rows = SAMPLE // values.itemsize
    # From the middle: tables often begin with rows that are like no others.
    start = max(0, (len(values) - rows) // 2)
    sample = values[start : start + rows]
    if not len(sample):
        return LZ4_BYTES

    def part(way: _Way) -> float:
        return len(_by(way, sample)) / sample.nbytes

    usual, bits = part(LZ4_BYTES), part(LZ4_BITS)
    best, size = (LZ4_BITS, bits) if usual - bits > BITS_SAVE else (LZ4_BYTES, usual)
    # Where there is nothing to save the slow one is not even tried.
    if size > ZSTD_SAVES and size - part(ZSTD_WHOLE) > ZSTD_SAVES:
        return ZSTD_WHOLE
    return best
