"""How chunks are packed: numbers as suits what is in a chunk, text in large blocks.

A Blosc buffer says itself how it was packed, so chunks of one column may be packed in
different ways, and whatever reads Blosc reads them all. The column's ``zarr.json`` names
one way; it is taken where no other packs this chunk much better, which is seen from a
sample of it (docs/decisions/0002-packing.md has what was measured):

- lz4 with byte shuffle: the fastest both ways, and as small as any for most numbers;
- lz4 with bit shuffle: half as fast, for codes that fill half of each value's bits;
- zstd with byte shuffle: half as fast as lz4, for codes of which some are more frequent
  than others, or that fill few bits;
- zstd without shuffle: a tenth as fast to write, for values that come again whole, such
  as decimals in float64, which it packs three times smaller.

Looking at a sample takes as long as packing a chunk, and the chunks of a column are mostly
like each other. So the way of the last one is taken again, as long as it packs as well.

Text is always packed by zstd, and never unpacked in part. So its blocks are as long as they
can be: what is packed on its own knows nothing of what came before it, and Blosc's own
32 KiB make twice as much of names with a number in them, in more time.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import Piece, compress

__all__ = ["Packer", "chooses", "chooses_for_text", "pack_text"]

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
ZSTD_BYTES = _Way(ZSTD, 1, BYTES, 2**18)
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
"""Text of at least so many bytes has an even number of blocks, so that two threads of a reader's Blosc
have equal shares."""

SAMPLE = 2**16
BITS_SAVE, BYTES_SAVE, WHOLE_SAVES = 0.1, 0.05, 0.25
"""What part of the unpacked bytes a slower way must save."""
BYTES_LEAVE = 0.75
"""And what zstd with byte shuffle may leave of what lz4 makes."""
PROBES = 256
"""Values that tell where a chunk ends of which only a part has rows."""
LIKE_THE_LAST = 0.02
"""How far a chunk's packed part may be from what was expected of its way."""
LOOK_AGAIN = 16
"""Chunks after which another way may be better, whatever the last one packs to."""


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


def pack_text(data: NDArray[np.uint8]) -> list[Piece]:
    """Return a chunk of text, as bytes, as a Blosc buffer, in pieces."""
    pairs = -(-len(data) // (2 * TEXT_BLOCK))
    blocks = 2 * pairs if len(data) >= TEXT_IN_TWO else 1
    return compress(data, ZSTD, 1, NO_SHUFFLE, -(-len(data) // blocks))


class Packer:
    """Packs the chunks of one column of numbers.

    Parameters
    ----------
    item_bytes : int
        Bytes per value.
    """

    def __init__(self, item_bytes: int) -> None:
        self._item = f"V{item_bytes}"
        # Threads that pack at once may each choose; whichever is remembered will do.
        self._last: tuple[_Way, float, int] | None = None

    def pack(self, data: NDArray[np.uint8]) -> list[Piece]:
        """Return a chunk as a Blosc buffer, in pieces.

        Parameters
        ----------
        data : ndarray of uint8
            The values' bytes: of whole values.
        """
        values, tried = data.view(self._item), None
        if self._last is not None and self._last[2]:
            tried, expected, left = self._last
            packed, part = _by(tried, values, summed=True)
            if abs(part - expected) <= LIKE_THE_LAST:
                self._last = tried, expected, left - 1
                return packed
        way = _choose(values)
        if way != tried:
            packed, part = _by(way, values, summed=True)
        self._last = way, part, LOOK_AGAIN
        return packed


def _by(way: _Way, values: NDArray[np.void], *, summed: bool = False) -> tuple[list[Piece], float]:
    """Pack in one way; return what part of the bytes is left as well."""
    packed = compress(values, way.compressor, way.level, way.shuffle, way.block, summed=summed)
    return packed, sum(map(len, packed)) / max(1, values.nbytes)


def _choose(values: NDArray[np.void]) -> _Way:
    rows = SAMPLE // values.itemsize
    # From the middle: tables often begin with rows that are like no others.
    start = max(0, (_filled(values) - rows) // 2)
    sample = values[start : start + rows]
    if not len(sample):
        return LZ4_BYTES
    usual = _by(LZ4_BYTES, sample)[1]
    best, size = LZ4_BYTES, usual
    # Where there is nothing to save the slower ones are not even tried.
    if usual > BYTES_SAVE:
        bits, zstd = _by(LZ4_BITS, sample)[1], _by(ZSTD_BYTES, sample)[1]
        if usual - zstd > BYTES_SAVE and zstd < BYTES_LEAVE * usual:
            best, size = ZSTD_BYTES, zstd
        elif usual - bits > BITS_SAVE:
            best, size = LZ4_BITS, bits
    if size > WHOLE_SAVES and size - _by(ZSTD_WHOLE, sample)[1] > WHOLE_SAVES:
        return ZSTD_WHOLE
    return best


def _filled(values: NDArray[np.void]) -> int:
    """Return how many values a chunk has before those, all alike, that only fill it up, about."""
    if not len(values):
        return 0
    places = np.linspace(0, len(values) - 1, PROBES).astype(np.intp)
    probes = values[places].tolist()
    different = [place for place, value in zip(places, probes, strict=True) if value != probes[-1]]
    return int(different[-1]) if different else len(values)
