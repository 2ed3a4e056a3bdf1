"""Ranges of rows. Rows count from 0."""

from dataclasses import dataclass

from ratzarr.errors import RowRangeError
from ratzarr.format.names import DFLT_CHUNKSIZE

__all__ = ["BLOCK_ROWS", "Block", "blocks_of", "chunk_count"]

BLOCK_ROWS = DFLT_CHUNKSIZE
"""Approximate number of rows that are read or written together, if nothing else determines it."""


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


def blocks_of(rows: int, chunk_rows: int, about: int) -> list[Block]:
    """Return blocks of whole chunks, each of at most ``about`` rows, but of one chunk at least.

    >>> blocks_of(50, 20, 30)
    [Block(start=0, length=20), Block(start=20, length=20), Block(start=40, length=10)]
    """
    step = chunk_rows * max(1, about // chunk_rows)
    return [Block(first, min(step, rows - first)) for first in range(0, rows, step)]
