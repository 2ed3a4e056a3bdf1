"""Ranges of rows. Rows count from 0."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import itemgetter

from ratzarr.errors import RowRangeError

__all__ = ["Block", "Runs", "chunk_count"]

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


def chunk_count(rows: int, chunk_rows: int) -> int:
    """Return the number of chunks of ``chunk_rows`` rows needed for ``rows`` rows."""
    return -(-rows // chunk_rows)


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
