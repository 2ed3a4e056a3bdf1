"""Rows gathered to whole chunks before they are written.

A chunk that is written whole is written once, without a look at what was there. So of the
rows that a script sets, in whatever pieces, what makes no whole chunk yet waits.

>>> column = OutputColumn("n", np.dtype("i8"), width=1, chunk_rows=4, created=True)
>>> [(start, part.tolist()) for start, part in column.add(0, np.arange(3))]
[]
>>> [(start, part.tolist()) for start, part in column.add(3, np.arange(3, 9))]
[(0, [0, 1, 2, 3, 4, 5, 6, 7])]
>>> [(start, part.tolist()) for start, part in column.rest()]
[(8, [8])]
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr import DFLT_CHUNKSIZE, RatZarr

from .blockvalues import weight

__all__ = ["OutputColumn", "Write", "chunk_rows_for"]

Array = NDArray[Any]

SHORTEST_CHUNK = 1024


def chunk_rows_for(block_rows: int | None, rows: int, usual: int | None) -> int:
    """Return the chunk size of a table that is to be created.

    Parameters
    ----------
    block_rows : int, optional
        The block length that was asked for: it is to be whole chunks, or, where it is a
        very short one, a chunk whole blocks.
    rows : int
        Rows that the table will have.
    usual : int, optional
        The inputs' chunk size.

    Examples
    --------
    >>> chunk_rows_for(None, 10**7, None), chunk_rows_for(1_000_000, 10**7, None)
    (500000, 500000)
    >>> chunk_rows_for(200_000, 10**7, None), chunk_rows_for(100, 10**7, None)
    (200000, 1100)
    >>> chunk_rows_for(None, 300, None)
    1024
    """
    if block_rows is None:
        return usual or min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, rows))
    if block_rows < SHORTEST_CHUNK:
        return block_rows * math.ceil(SHORTEST_CHUNK / block_rows)
    for pieces in range(math.ceil(block_rows / DFLT_CHUNKSIZE), block_rows // SHORTEST_CHUNK + 1):
        if block_rows % pieces == 0:
            return block_rows // pieces
    return DFLT_CHUNKSIZE


@dataclass(slots=True)
class Write:
    """Rows of some columns of one table, to be written at once."""

    table: RatZarr
    start: int
    columns: dict[str, Array]

    @property
    def weight(self) -> int:
        """Bytes of memory."""
        return sum(map(weight, self.columns.values()))

    def __call__(self) -> None:
        """Write them."""
        self.table.writeBlocks(self.columns, self.start)


@dataclass(slots=True)
class OutputColumn:
    """A column that is written."""

    name: str
    dtype: np.dtype[Any]
    width: int
    chunk_rows: int
    created: bool
    start: int = 0
    """Row of the first that waits."""
    waiting: list[Array] = field(default_factory=list)
    """Rows that make no whole chunk yet."""
    waits: int = 0
    """How many."""
    rows: int = 0
    """Rows that it was given."""

    def add(self, start: int, values: Array) -> Iterator[tuple[int, Array]]:
        """Take rows in, and hand out what can be written."""
        self.rows += len(values)
        if self.waits and start != self.start + self.waits:
            yield from self.rest()
        stop = start + len(values)
        if not self.waits:
            self.start = start
            if start % self.chunk_rows == 0 and stop % self.chunk_rows == 0:
                self.start = stop
                if len(values):
                    yield start, values
                return
        self.waiting.append(values)
        self.waits += len(values)
        whole = stop // self.chunk_rows * self.chunk_rows
        if whole > self.start:
            together = np.concatenate(self.waiting) if len(self.waiting) > 1 else self.waiting[0]
            size = whole - self.start
            yield self.start, together[:size]
            self.waiting, self.waits, self.start = [together[size:].copy()], stop - whole, whole

    def rest(self) -> Iterator[tuple[int, Array]]:
        """Hand out what is no whole chunk."""
        if self.waits:
            values = np.concatenate(self.waiting)
            start, self.start = self.start, self.start + self.waits
            self.waiting, self.waits = [], 0
            yield start, values
