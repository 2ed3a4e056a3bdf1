"""A table as a stream of Arrow record batches, for DuckDB and other readers of Arrow."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from ratzarr.format import Block
from ratzarr.pipeline import ReadAhead

__all__ = ["Scan"]

BLOCK_ROWS = 500_000
READERS = 2


class Scan:
    """Yields record batches of consecutive row ranges, read ahead.

    Parameters
    ----------
    read : callable
        Takes a :class:`~ratzarr.format.blocks.Block` and returns its record batch. Runs in other
        threads.
    schema : pyarrow.Schema
        Schema of every batch.
    rows : int
        Number of rows of the table.
    chunk_rows : int
        Rows of a chunk. Each batch has whole chunks.
    threads : int
        Number of reading threads. Use one if GDAL is read, because GDAL supports one thread at a
        time.
    block_rows : int
        Approximate number of rows in a batch.

    Attributes
    ----------
    rows_read : int
        Number of rows read so far.
    error : BaseException or None
        The error raised by ``read``. DuckDB reports it as one of its own; callers raise this one
        instead.
    """

    def __init__(
        self,
        read: Callable[[Block], Any],
        schema: Any,
        rows: int,
        *,
        chunk_rows: int,
        threads: int = READERS,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self._read, self._schema, self._rows = read, schema, rows
        self._step = chunk_rows * max(1, block_rows // chunk_rows)
        self._threads = threads
        self.rows_read = 0
        self.error: BaseException | None = None

    def reader(self) -> Any:
        """Return a ``pyarrow.RecordBatchReader`` over all rows."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self._schema, self._batches(self._blocks()))

    def _blocks(self) -> Sequence[Block]:
        step, rows = self._step, self._rows
        return [Block(first, min(step, rows - first)) for first in range(0, rows, step)]

    def _batches(self, blocks: Sequence[Block]) -> Iterator[Any]:
        try:
            with closing(ReadAhead(blocks, self._read, threads=self._threads)) as reading:
                for block, batch in reading:
                    yield batch
                    self.rows_read = block.stop
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise
