"""Rows, blocks and chunks: arithmetic on half-open ranges of rows.

Rows count from 0. A *block* is the range of rows that a caller reads or writes. A *chunk* is the
range of rows stored as one object. A block has one *part* in each chunk that it overlaps. A part
that covers all rows of its chunk is *whole* and can be written without reading the chunk.

>>> [(part.chunk, part.in_chunk, part.in_block, part.whole)
...  for part in parts(Block(3, 5), chunk_rows=4, row_count=8)]
... # doctest: +NORMALIZE_WHITESPACE
[(0, slice(3, 4, None), slice(0, 1, None), False),
 (1, slice(0, 4, None), slice(1, 5, None), True)]
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from ratzarr.errors import RowRangeError

__all__ = ["Block", "Part", "Runs", "chunk_count", "parts"]

MOST_RUNS = 64
"""The number of runs that :class:`Runs` keeps; beyond it, it stops counting."""
_start_of, _stop_of = itemgetter(0), itemgetter(1)


@dataclass(frozen=True, slots=True)
class Block:
    """A range of rows from ``start`` up to but not including ``stop``."""

    start: int
    """First row, >= 0."""
    length: int
    """Number of rows, >= 0."""

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 0:
            raise RowRangeError(
                f"a block starts at row 0 or later and has 0 rows or more: "
                f"got start {self.start}, length {self.length}"
            )

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Part:
    """The overlap of a block and a chunk."""

    chunk: int
    """Index of the chunk, from 0."""
    in_chunk: slice
    """The rows, counted from the first row of the chunk."""
    in_block: slice
    """The same rows, counted from the first row of the block."""
    whole: bool
    """True if these are all rows of the table in this chunk."""


def chunk_count(rows: int, chunk_rows: int) -> int:
    """Return the number of chunks of ``chunk_rows`` rows needed for ``rows`` rows."""
    return -(-rows // chunk_rows)


def parts(block: Block, chunk_rows: int, row_count: int) -> Iterator[Part]:
    """Split a block at chunk boundaries.

    Parameters
    ----------
    block : Block
        Rows of a table with ``row_count`` rows.
    chunk_rows : int
        Rows per chunk, >= 1.
    row_count : int
        Rows of the table. The last chunk may hold fewer than ``chunk_rows``.

    Yields
    ------
    Part
        In row order; nothing for an empty block.
    """
    row = block.start
    while row < block.stop:
        chunk = row // chunk_rows
        first = chunk * chunk_rows
        stop = min(block.stop, first + chunk_rows)
        yield Part(
            chunk,
            slice(row - first, stop - first),
            slice(row - block.start, stop - block.start),
            row == first and stop >= min(first + chunk_rows, row_count),
        )
        row = stop


class Runs:
    """The rows seen so far, added in any order as ranges."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []
        """Half-open ranges in order, with gaps between them."""

    def add(self, rows: slice) -> None:
        """Add a range of rows."""
        runs, start, stop = self._runs, rows.start, rows.stop
        if len(runs) > MOST_RUNS:
            return
        if len(runs) == 1 and runs[0][1] == start:
            runs[0] = runs[0][0], stop
            return
        first = bisect_left(runs, start, key=_stop_of)
        last = bisect_right(runs, stop, key=_start_of)
        if first < last:
            start, stop = min(start, runs[first][0]), max(stop, runs[last - 1][1])
        runs[first:last] = [(start, stop)]

    def are_all(self, count: int) -> bool:
        """Return True if all of the first ``count`` rows have been seen.

        Also False if the rows were added in more separate ranges than this object keeps.
        """
        return len(self._runs) == 1 and self._runs[0][0] == 0 and self._runs[0][1] >= count
