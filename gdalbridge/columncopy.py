"""One column of a raster's table into a sidecar, or what is missing of it.

GDAL is read in one thread, the next blocks while the last ones are packed and written in
others. The column says that it is not complete until its last block is there, and from
time to time how far it is, so that whoever looks is told the truth about a copy at work
and about one that was interrupted.
"""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from numpy.typing import NDArray

from ratzarr import ConflictError, RatZarr, RatZarrError, StoreError, UnequalValueError
from ratzarr.blocks import Block

from .blocksizes import ROOM, at_once, memory_of
from .copyplan import Action, Plan
from .errors import CancelledError
from .gdalrat import RatSource
from .pipeline import read_ahead, write_behind
from .progress import Progress
from .provenance import PROVENANCE_ATTR

__all__ = ["INTERRUPTIONS", "Copied", "Share", "copy_column"]

INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""What stops a copy without saying anything against its values: it can be gone on with."""
SECONDS = 5.0
"""Between two notes of how far a column is: each is a request."""


class Share:
    """The share of the whole work's progress that one column is."""

    def __init__(self, told: Progress, done: int, columns: int) -> None:
        self._told, self._done, self._columns = told, done, columns

    def report(self, fraction: float, message: str) -> None:
        """Say how much of the column is done."""
        self._told.report((self._done + fraction) / self._columns, message)


class Copied:
    """What was read of a column, and what was there already."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self.rows_there = 0


def copy_column(
    source: RatSource, table: RatZarr, plan: Plan, block_rows: int | None, share: Share
) -> Copied:
    """Copy one column as it is planned.

    Raises
    ------
    CancelledError, KeyboardInterrupt, StoreError
        What is written stays, and can be gone on with.
    Exception
        For everything else. A column that was begun here is removed again.
    """
    rows = source.schema.rows
    copied = Copied()
    share.report(0.0, plan.name)
    if plan.action is Action.KEEP:
        copied.rows_there = rows
        return copied
    runs = _begin(table, plan, rows)
    copied.rows_there = rows - sum(stop - start for start, stop in runs)
    step = plan.chunk_rows * max(1, -(-(block_rows or 0) // plan.chunk_rows))
    blocks = [
        Block(first, min(step, stop - first))
        for start, stop in runs
        for first in range(start, stop, step)
    ]
    done = _RowsDone(table, plan.name, blocks, rows)
    try:
        copied.bytes_read = _copy_blocks(source, table, plan, blocks, done, share)
    except INTERRUPTIONS:
        done.note()
        raise
    except ConflictError:
        # What is there by now is another process's, or may be.
        raise
    except Exception:
        if plan.action is not Action.RESUME:
            with suppress(RatZarrError):
                table.deleteColumn(plan.name)
        raise
    table.setComplete(plan.name)
    return copied


def _begin(table: RatZarr, plan: Plan, rows: int) -> list[tuple[int, int]]:
    """Make the column, if need be, and return the runs of rows that it lacks."""
    if plan.action is Action.RESUME:
        attributes = table.getColumnAttributeMapping(plan.name)
        origin, now = attributes[PROVENANCE_ATTR], plan.provenance["versions"]
        if origin.get("versions") != now:
            attributes[PROVENANCE_ATTR] = origin | {"resumed_with": now}
        return table.getMissingRows(plan.name)
    if plan.action is Action.START_OVER:
        # One that is to take another's place, or one in its own place; there can be both.
        while table.resumeColumn(plan.name) is not None:
            table.deleteColumn(plan.name)
    usual = table.getRATChunkSize()
    table.createColumn(
        plan.name,
        plan.stored.dtype,
        attributes=plan.attributes,
        complete=False,
        chunkSize=plan.chunk_rows if plan.chunk_rows != usual else None,
        # What is there can be read until this is complete.
        replace=plan.action is not Action.CREATE and table.colExists(plan.name),
    )
    return [(0, rows)] if rows else []


class _RowsDone:
    """How many leading rows of a column are whole, noted in the column from time to time."""

    def __init__(self, table: RatZarr, name: str, blocks: Sequence[Block], rows: int) -> None:
        self._table, self._name = table, name
        self._starts = [*(block.start for block in blocks), rows]
        self._finished = self._noted = 0
        self._when = time.monotonic()

    def one_more(self) -> None:
        """Take note of the next block, in their order."""
        self._finished += 1
        if time.monotonic() - self._when >= SECONDS:
            self.note()

    def note(self) -> None:
        """Write it down."""
        # What lies before the next block to be written is there, whoever wrote it.
        done = self._starts[self._finished]
        if done == self._noted:
            return
        # It is for people to read: no copy fails for it.
        with suppress(RatZarrError):
            self._table.setComplete(self._name, done)
        self._noted, self._when = done, time.monotonic()


def _copy_blocks(
    source: RatSource,
    table: RatZarr,
    plan: Plan,
    blocks: Sequence[Block],
    done: _RowsDone,
    share: Share,
) -> int:
    sizes: list[int] = []

    def read(block: Block) -> NDArray[Any]:
        return source.read_encoded(plan.column.index, block.start, block.length)

    def write(block: Block, values: NDArray[Any]) -> None:
        sizes.append(values.nbytes)
        try:
            table.writeBlock(plan.name, values, block.start)
        except UnequalValueError:
            # Bytes that are no UTF-8, which GDAL can have: said in its terms, with the row.
            source.check_encoded(plan.column.index, block.start, values)
            raise

    if len(blocks) == 1:
        # Threads would only be waited for.
        write(blocks[0], read(blocks[0]))
        done.one_more()
        share.report(blocks[0].stop / source.schema.rows, plan.name)
        return sum(sizes)
    ahead = 1 if plan.stored.dtype.kind in "TO" else 2
    # No more threads than there is room for blocks: what each has once used stays with it.
    threads = at_once(plan.stored.dtype, max((block.length for block in blocks), default=1))
    with (
        closing(read_ahead(blocks, read, ahead=ahead)) as reading,
        closing(
            write_behind(
                reading, write, threads=threads, behind=threads, size=memory_of, room=ROOM
            )
        ) as written,
    ):
        for block in written:
            done.one_more()
            share.report(block.stop / source.schema.rows, plan.name)
    return sum(sizes)
