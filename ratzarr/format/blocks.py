"""Rows, blocks and chunks: arithmetic on half-open ranges of rows.

Rows count from 0. A *block* is the run of rows that a caller reads or writes; a *chunk*
is the run of rows that is one object in the store. A block falls into one part per
chunk that it touches; a part that covers every row of its chunk is *whole*, and can be
written without reading the chunk first.

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
"""That are kept count of."""
_start_of, _stop_of = itemgetter(0), itemgetter(1)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of rows, ``start`` up to but not including ``stop``."""

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
    """What one block and one chunk have in common."""

    chunk: int
    """Index of the chunk, from 0."""
    in_chunk: slice
    """The rows, counted from the chunk's first."""
    in_block: slice
    """The same rows, counted from the block's first."""
    whole: bool
    """Whether these are all the rows of the table that the chunk holds."""


def chunk_count(rows: int, chunk_rows: int) -> int:
    """Return how many chunks of ``chunk_rows`` rows hold ``rows`` rows."""
    return -(-rows // chunk_rows)


def parts(block: Block, chunk_rows: int, row_count: int) -> Iterator[Part]:
    """Cut a block at the borders of chunks.

    Parameters
    ----------
    block : Block
        Rows of a table that has ``row_count`` of them.
    chunk_rows : int
        Rows per chunk, >= 1.
    row_count : int
        Rows of the table: the last chunk may hold fewer than ``chunk_rows``.

    Yields
    ------
    Part
        In order of rows; none for an empty block.
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
    """Which rows have been seen: in whatever order they come, as long as they come in pieces."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []
        """Half-open, in order, with others between them."""

    def add(self, rows: slice) -> None:
        """Note a run of rows."""
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
        """Return whether all of the first ``count`` rows have been seen.

        False also where they were seen here and there, in more pieces than are kept count of.
        """
        return len(self._runs) == 1 and self._runs[0][0] == 0 and self._runs[0][1] >= count
