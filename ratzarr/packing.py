"""How numbers are packed: chosen for each chunk by what is in it.

A Blosc buffer says itself how it was packed, so chunks of one column may be packed in
different ways, and whatever reads Blosc reads them all. The column's ``zarr.json`` names
one way; it is taken where no other packs this chunk much better, which is seen from a
sample of it (docs/decisions/0002-packing.md has what was measured):

- lz4 with byte shuffle: the fastest both ways, and as small as any for most numbers;
- lz4 with bit shuffle: half as fast, for codes that fill a few bits of each value;
- zstd without shuffle: a tenth as fast to write, for values that come again whole, such
  as decimals in float64, which it packs three times smaller.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

__all__ = ["chooses", "pack"]

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

SAMPLE = 2**16
BITS_SAVE, ZSTD_SAVES = 0.05, 0.25
"""What part of the unpacked bytes a slower way must save."""


def chooses(configuration: Mapping[str, Any]) -> bool:
    """Return whether chunks of a column with this configuration of Blosc are packed here.

    Any other than the one that columns are created with by default is somebody's wish.
    """
    return all(str(configuration.get(name)) == str(value) for name, value in USUAL.items())


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
