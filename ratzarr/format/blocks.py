"""Ranges of rows. Rows count from 0."""

from dataclasses import dataclass

from ratzarr.errors import RowRangeError

__all__ = ["Block", "chunk_count"]


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
