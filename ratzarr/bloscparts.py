"""A Blosc buffer packed by several threads, each a part of it.

Blosc has threads of its own, which zarr switches off, as they serve one caller at a time. But
Blosc's blocks know nothing of each other: parts of whole blocks, packed at once, become one
buffer when their blocks are put behind each other, after a header that tells where each begins.
(https://github.com/Blosc/c-blosc, README_CHUNK_FORMAT)
"""

import struct
from collections.abc import Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from . import parallel
from .blocksums import MOST, block_sums, summed_head
from .bloscblocks import COPIED, HEADER

__all__ = ["Piece", "compress"]

type Piece = bytes | NDArray[np.uint8]

LEAST, LEAST_SHUFFLED = 2**19, 3 * 2**19
"""Bytes of a part, at least: fewer are packed before another thread has begun. (Shuffled, ten times
as many in the same time.)"""
ALIGNED, ITEMS = 2**18, (1, 2, 4, 8)
"""Bytes that parts of numbers are multiples of: Blosc makes some blocks longer than it was asked to,
but of values of so many bytes none is longer than this."""


def compress(
    values: NDArray[Any],
    compressor: bytes,
    level: int,
    shuffle: int,
    block: int,
    *,
    summed: bool = False,
) -> list[Piece]:
    """Pack values as Blosc's ``compress`` does, by as many threads as there are idle processors.

    Parameters
    ----------
    values : ndarray
        One-dimensional. Blosc shuffles by its item size.
    compressor, level, shuffle, block
        See numcodecs; ``block`` is not 0.
    summed : bool
        Whether to put a checksum of each block into it (:mod:`ratzarr.blocksums`), if it has more
        than one.

    Returns
    -------
    list of bytes and ndarray of uint8
        Which make the buffer, one behind the other: but for the checksums the very bytes that one
        thread would make.
    """

    def pack(some: NDArray[Any]) -> _Part:
        data = blosc.compress(some, compressor, level, shuffle, block)
        # Here, where it is in the cache still, and by several threads.
        return _Part(data, block_sums(data) if summed else [])

    unit = max(block, ALIGNED)
    least = LEAST_SHUFFLED if shuffle else LEAST
    most = min(values.nbytes // least, -(-values.nbytes // unit))
    if values.itemsize not in ITEMS:
        most = 1
    with parallel.processors(most) as threads:
        if threads > 1:
            ends = _ends(values, unit, threads)
            parts = parallel.run_together([partial(pack, values[a:b]) for a, b in pairwise(ends)])
            whole = _put_together(parts, values.nbytes)
            if whole is not None:
                return whole
        one = pack(values)
        if len(one.sums) > 1 and (whole := _put_together([one], values.nbytes)) is not None:
            return whole
        return [one.data]


class _Part(NamedTuple):
    data: bytes
    sums: list[int]
    """Of its blocks; none where there are to be none."""


def _ends(values: NDArray[Any], unit: int, threads: int) -> list[int]:
    """Return where the parts of so many threads begin, and where the last one ends."""
    units = -(-values.nbytes // unit)
    each = -(-units // threads) * unit // values.itemsize
    return [*range(0, len(values), each), len(values)]


def _put_together(parts: Sequence[_Part], size: int) -> list[Piece] | None:
    """Make one buffer of parts; None where they can't be."""
    first = parts[0].data
    block = struct.unpack_from("<I", first, 8)[0]
    sizes = [struct.unpack_from("<I", part.data, 4)[0] for part in parts]
    if sum(sizes) != size or any(
        # All packed in one way, which the flags tell, in whole blocks, of which one is the last.
        part.data[:4] != first[:4] or part.data[8:12] != first[8:12] or length % block
        for part, length in zip(parts, [*sizes[:-1], 0], strict=True)
    ):
        return None
    if first[2] & COPIED:
        copied = [np.frombuffer(part.data, np.uint8)[HEADER:] for part in parts]
        return [_header(first, size, block, sum(map(len, copied))), *copied]
    counts = [-(-length // block) for length in sizes]
    begin = HEADER + 4 * sum(counts)
    starts: list[int] = []
    bodies: list[Piece] = []
    for part, count in zip(parts, counts, strict=True):
        moved = begin - HEADER - 4 * count
        starts += [start + moved for start in struct.unpack_from(f"<{count}i", part.data, HEADER)]
        bodies.append(np.frombuffer(part.data, np.uint8)[HEADER + 4 * count :])
        begin += len(bodies[-1])
    header = _header(first, size, block, begin - HEADER)
    sums = list(chain.from_iterable(part.sums for part in parts))
    if len(sums) == len(starts) <= MOST:
        return [summed_head(header, starts, sums), *bodies]
    return [header, struct.pack(f"<{len(starts)}i", *starts), *bodies]


def _header(first: bytes, size: int, block: int, packed: int) -> bytes:
    return first[:4] + struct.pack("<III", size, block, HEADER + packed)
