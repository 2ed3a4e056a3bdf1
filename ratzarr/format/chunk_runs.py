"""The set of chunks seen so far, kept as runs of consecutive chunks.

A column may have any number of chunks, and a damaged document may claim an impossible number.
Existing chunks mostly form few runs, so memory grows with the number of gaps, never with a number
found in a document.

>>> seen = ChunkRuns()
>>> for chunk in (0, 1, 10, 2, 9): seen.add(chunk)
>>> list(seen.gaps(2**62)), seen.count()
([(3, 9), (11, 4611686018427387904)], 5)
"""

from collections.abc import Iterator

__all__ = ["ChunkRuns"]

BUFFER = 4096
"""Chunks collected before they are merged into runs."""


class ChunkRuns:
    """A set of chunks, kept as half-open runs."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []
        self._new: list[int] = []

    def add(self, chunk: int) -> None:
        """Add a chunk, in any order and any number of times."""
        self._new.append(chunk)
        if len(self._new) >= BUFFER:
            self._merge()

    def _merge(self) -> None:
        merged: list[tuple[int, int]] = []
        for start, stop in sorted([*self._runs, *((one, one + 1) for one in self._new)]):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        self._runs, self._new = merged, []

    def gaps(self, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of chunks before ``stop`` that were not added."""
        self._merge()
        first = 0
        for start, end in self._runs:
            if start >= stop:
                break
            if start > first:
                yield first, start
            first = end
        if first < stop:
            yield first, stop

    def count(self) -> int:
        """Return the number of chunks added."""
        self._merge()
        return sum(stop - start for start, stop in self._runs)
