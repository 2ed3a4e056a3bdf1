"""Values of a table's rows, requested in any order; only the chunks with these rows are read.

Neighbouring pixels have neighbouring rows: most windows need a few chunks, and adjacent windows
need the same ones. Chunks are cached up to a limit in bytes. The cache of a RatZarr would not do: it
has neither the raster's own columns nor the rows that a condition is true for, and computing these
again takes about 50 times as long as copying a cached chunk.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.merged import Columns
from gdalbridge.sidecars.source import ColumnsSource
from gdalbridge.sql.condition import Condition
from ratzarr.format import Block

__all__ = ["RowValues", "Values"]

Array = NDArray[Any]
Values = tuple[list[Array], NDArray[np.bool_]]
"""One array for each column, and a mask that is True for elements with a value."""

CACHE_BYTES = 2**27
"""Approximate memory for cached chunks; at least one chunk is kept."""
SPAN_ROWS = 2**21
"""Consecutive rows from several chunks are joined to one array, up to this number of rows."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    columns: list[Array]
    keep: NDArray[np.bool_] | None
    """The rows with values; None for all."""

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.columns) + 1


class RowValues:
    """Columns of a table, looked up by row numbers; thread-safe, and a context manager.

    Parameters
    ----------
    columns : Columns
        The table, open.
    names : sequence of str
        The columns.
    where : str, optional
        Only rows for which this :class:`gdalbridge.sql.condition.Condition` is true have values.
    convert : callable, optional
        Converts a chunk of each column to numbers; 0 means no value.
    cache_bytes : int
        Memory for chunks.

    Attributes
    ----------
    columns : list of Column
    rows : int
        Rows that the shortest column has.
    chunk_rows : int
    chunks_read : int

    Raises
    ------
    ColumnSelectionError
        If a column does not exist; suggests similar names.
    BridgeError
        If ``where`` is invalid, or not true or false for a row.
    """

    def __init__(
        self,
        columns: Columns,
        names: Sequence[str],
        where: str | None = None,
        convert: Callable[[Array], Array] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.columns = columns.chosen(names)
        self.rows = min((one.rows for one in self.columns), default=0)
        self.chunk_rows = max((one.chunk_rows for one in self.columns), default=1)
        self.chunks_read = 0
        self._source = ColumnsSource(columns, _not_elsewhere)
        self._convert = convert
        self._missing = [one.missing_value() for one in self.columns]
        self._cache_bytes, self._held = cache_bytes, 0
        self._chunks: OrderedDict[int, Future[_Chunk]] = OrderedDict()
        self._lock, self._condition_lock = threading.Lock(), threading.Lock()
        self._condition = None if where is None else Condition(where, self._source)

    def __enter__(self) -> "RowValues":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the chunks, and close the expression."""
        self._chunks.clear()
        if self._condition is not None:
            self._condition.close()

    def warn_of_nan(self) -> None:
        """Warn about rows for which the condition is true because of a NaN."""
        if self._condition is not None:
            self._condition.warn_of_nan()

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def chunk(self, number: int) -> tuple[list[Array], NDArray[np.bool_] | None]:
        """Return a chunk of each column, and the rows with values; None for all."""
        found = self._chunk(number)
        return found.columns, found.keep

    def take(self, rows: NDArray[np.int64]) -> Values:
        """Return the values of rows.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Row numbers; negative for elements without a row.

        Returns
        -------
        columns : list of ndarray, shape (n,)
            Arbitrary where there is no value.
        has_value : ndarray of bool, shape (n,)
            False without a row, beyond the end of a column, where ``where`` is not true, and for a
            column's missing value.
        """
        # Negative numbers are the largest ones here: one comparison for both ends.
        unsigned = rows.view(np.uint64)
        has = unsigned < np.uint64(self.rows)
        low = int(unsigned.min(initial=self.rows))
        if low >= self.rows:
            first = self._chunk(0) if self.rows else None
            empty = [
                np.zeros(len(rows), one.dtype if first is None else first.columns[place].dtype)
                for place, one in enumerate(self.columns)
            ]
            return empty, has
        high = int(rows.max())
        if high >= self.rows:
            high = int(rows.max(where=has, initial=-1))
        size = self.chunk_rows
        if low // size == high // size or high - low < SPAN_ROWS:
            arrays, keep = self._between(low, high + 1)
            at = rows - low
            # Elements without a row take the first or the last one.
            found = [one.take(at, mode="clip") for one in arrays]
            if keep is not None:
                has &= keep.take(at, mode="clip")
            return found, has
        return self._scattered(rows, has)

    def _between(self, start: int, stop: int) -> tuple[list[Array], NDArray[np.bool_] | None]:
        """Return consecutive rows: views of a chunk, or parts of several joined."""
        size = self.chunk_rows
        numbers = range(start // size, (stop - 1) // size + 1)
        chunks = [self._chunk(number) for number in numbers]
        cuts = [
            slice(max(0, start - number * size), max(0, stop - number * size))
            for number in numbers
        ]
        if len(chunks) == 1:
            [chunk], [cut] = chunks, cuts
            return [one[cut] for one in chunk.columns], None if chunk.keep is None else chunk.keep[
                cut
            ]
        columns = [
            np.concatenate(
                [chunk.columns[place][cut] for chunk, cut in zip(chunks, cuts, strict=True)]
            )
            for place in range(len(self.columns))
        ]
        keep = None
        if any(chunk.keep is not None for chunk in chunks):
            keep = np.concatenate(
                [
                    np.ones(len(chunk.columns[0]), np.bool_)[cut]
                    if chunk.keep is None
                    else chunk.keep[cut]
                    for chunk, cut in zip(chunks, cuts, strict=True)
                ]
            )
        return columns, keep

    def _scattered(self, rows: NDArray[np.int64], has: NDArray[np.bool_]) -> Values:
        """Take rows from many chunks, one chunk after the other."""
        places = np.flatnonzero(has)
        numbers = rows[places] // self.chunk_rows
        order = np.argsort(numbers, kind="stable")
        places, numbers = places[order], numbers[order]
        starts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
        found: list[Array] = []
        for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
            number, at = int(numbers[start]), places[start:stop]
            chunk = self._chunk(number)
            inside = rows[at] - number * self.chunk_rows
            if not found:
                found = [np.zeros(len(rows), one.dtype) for one in chunk.columns]
            for values, one in zip(found, chunk.columns, strict=True):
                values[at] = one[inside]
            if chunk.keep is not None:
                has[at] = chunk.keep[inside]
        return found, has

    # ---- chunks

    def _chunk(self, number: int) -> _Chunk:
        with self._lock:
            future = self._chunks.get(number)
            mine = future is None
            if future is None:
                future = self._chunks[number] = Future()
            else:
                self._chunks.move_to_end(number)
        if mine:
            try:
                found = self._read(number)
            except BaseException as error:
                with self._lock:
                    self._chunks.pop(number, None)
                future.set_exception(error)
                raise
            future.set_result(found)
            with self._lock:
                self.chunks_read += 1
                self._held += found.nbytes
                self._drop(number)
        return future.result()

    def _drop(self, newest: int) -> None:
        for number in list(self._chunks):
            if self._held <= self._cache_bytes:
                return
            future = self._chunks[number]
            if number != newest and future.done():
                del self._chunks[number]
                with suppress(Exception):
                    self._held -= future.result().nbytes

    def _read(self, number: int) -> _Chunk:
        start = number * self.chunk_rows
        block = Block(start, min(self.chunk_rows, self.rows - start))
        blocks = self._source.read([one.name for one in self.columns], block)
        columns = [blocks[one.name] for one in self.columns]
        keep: NDArray[np.bool_] | None = None
        for values, missing in zip(columns, self._missing, strict=True):
            if missing is not None:
                there = np.asarray(values != missing, np.bool_)
                keep = there if keep is None else keep & there
        if self._condition is not None:
            true = self._true(self._condition, block)
            keep = true if keep is None else keep & true
        if self._convert is not None:
            columns = [self._convert(one) for one in columns]
            there = columns[0] != 0
            keep = there if keep is None else keep & there
        if keep is not None and keep.all():
            keep = None
        return _Chunk(columns, keep)

    def _true(self, condition: Condition, block: Block) -> NDArray[np.bool_]:
        """Return the rows of a block for which the condition is true."""
        from ratzarr.interop import read_arrays

        fields = [self._source.field(name) for name in condition.names]
        arrays = read_arrays(self._source, fields, block)
        with self._condition_lock:
            return condition.mask(
                dict(zip(condition.names, arrays, strict=True)), block.start, block.length
            )


def _not_elsewhere() -> Columns:
    raise BridgeError("this table is read in one process")
