"""How many blocks may be under way at once: enough to hide a server's latency, in bounded memory.

While a block of text is read, packed or handed to GDAL it is there several times over, as objects,
as bytes and as what a codec makes of them; numbers are there three times at the most.

>>> import numpy as np
>>> memory_of(np.zeros(1000)), at_once(np.dtype("f8"), 500_000), at_once(np.dtype("f8"), 1000)
(24000, 6, 32)
"""

from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr import RatZarr
from ratzarr.location import parse

__all__ = ["MOST", "ROOM", "at_once", "is_far", "memory_of"]

MOST = 32
"""However small they are: then all wait together for a server that is far away."""
ROOM = 72 * 2**20
"""Bytes for them: of 500 000 rows of numbers six or more at once, of text one or two."""
TEXT_BYTES = 16
"""Of a text that has not been read yet."""
NUMBERS, TEXTS = 3, 10
"""How often a block's bytes are there, about."""


def at_once(dtype: np.dtype[Any], rows: int) -> int:
    """Return how many blocks of so many rows may be under way at once, of values not seen yet."""
    text = dtype.kind in "TO"
    row = TEXTS * (dtype.itemsize + TEXT_BYTES) if text else NUMBERS * dtype.itemsize
    return max(1, min(MOST, ROOM // max(1, row * rows)))


def memory_of(values: NDArray[Any]) -> int:
    """Return what a block takes in memory, about, while it is under way."""
    if values.dtype.kind == "T":
        return TEXTS * (values.nbytes + int(np.strings.str_len(values).sum()))
    if values.dtype.kind == "O":
        return TEXTS * (values.nbytes + sum(map(len, values.tolist())))
    return NUMBERS * values.nbytes


def is_far(table: RatZarr) -> bool:
    """Return whether requests to a table are waited for: it is on no local disk."""
    place = table.filename
    return not isinstance(place, str | PathLike) or parse(fspath(place)).kind != "local"
