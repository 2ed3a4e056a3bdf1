"""Columns of a raster's table into a sidecar, or what is missing of them.

GDAL is read in one thread, the next blocks while the last ones are packed and written in
others; also the next column's, which is created for it. A column says that it is not
complete until its last block is there, and from time to time how far it is, so that
whoever looks is told the truth about a copy at work and about one that was interrupted.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ratzarr import ConflictError, RatZarr, RatZarrError, StoreError, UnequalValueError
from ratzarr.blocks import Block
from ratzarr.parallel import PROCESSORS

from .blocksizes import ROOM, at_once, is_far, memory_of
from .copyplan import GDAL_NAME_ATTR, Action, Plan
from .errors import CancelledError
from .gdalrat import RatSource
from .gdaltypes import FieldUsage, usage_attributes
from .pipeline import read_ahead, write_behind
from .progress import Progress
from .provenance import PROVENANCE_ATTR

__all__ = ["INTERRUPTIONS", "Copied", "copy_columns"]

INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""What stops a copy without saying anything against its values: it can be gone on with."""
SECONDS = 5.0
"""Between two notes of how far a column is: each is a request."""
TOGETHER = 16
"""How many columns are created at once where a server has to be waited for."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A column that is complete now."""

    plan: Plan
    bytes_read: int
    bytes_stored: int
    rows_there: int
    """Of its rows, those that were there already."""


def copy_columns(
    source: RatSource,
    table: RatZarr,
    plans: Sequence[Plan],
    block_rows: int | None,
    told: Progress,
    finished: list[Copied],
) -> None:
    """Copy columns as they are planned.

    Parameters
    ----------
    finished : list
        To it each column is added, in order, as soon as it is complete.

    Raises
    ------
    CancelledError, KeyboardInterrupt, StoreError
        What is written stays, and can be gone on with.
    Exception
        For everything else. Columns that were begun here and are not complete are removed
        again.
    """
    Copying(source, table, plans, block_rows, told, finished).run()


@dataclass(slots=True)
class _Column:
    """A column that was begun."""

    number: int
    plan: Plan
    blocks: Sequence[Block]
    """To be copied."""
    done: "_RowsDone"
    rows_there: int
    bytes_read: list[int] = field(default_factory=list)
    failed: bool = False


@dataclass(slots=True)
class Copying:
    """Columns on their way: see :func:`copy_columns`."""

    source: RatSource
    table: RatZarr
    plans: Sequence[Plan]
    block_rows: int | None
    told: Progress
    finished: list[Copied]
    begun: deque[_Column] = field(default_factory=deque)
    """Not complete yet, in order."""
    created: set[int] = field(default_factory=set)
    """Numbers of columns that are there already, to be begun later."""

    def run(self) -> None:
        """Copy all of them."""
        texts = any(plan.stored.dtype.kind in "TO" for plan in self.plans)
        self._report(0, 0.0)
        with self._sound_if_it_fails():
            threads = self._threads()
            with (
                closing(
                    read_ahead(self._blocks(), self._read, ahead=1 if texts else 2)
                ) as reading,
                closing(
                    write_behind(
                        reading,
                        self._write,
                        threads=threads,
                        behind=threads,
                        size=memory_of,
                        room=ROOM,
                    )
                ) as written,
            ):
                for column, block in written:
                    # Those before it had no blocks.
                    while self.begun[0] is not column:
                        self._finish()
                    column.done.one_more()
                    self._report(column.number, block.stop / self.source.schema.rows)
                    if block is column.blocks[-1]:
                        self._finish()
            while self.begun:
                self._finish()

    def _threads(self) -> int:
        """Return how many are to pack and write."""
        # No more than there is room for blocks: what each has once used stays with it. Of text that
        # is known when it has come.
        room = [at_once(plan.stored.dtype, self._step(plan)) for plan in self.plans]
        most = max([2, *room])
        return most if is_far(self.table) else min(most, max(2, PROCESSORS))

    def _blocks(self) -> Iterator[tuple[_Column, Block]]:
        """Begin one column after another, and yield what is to be copied of it."""
        for number, plan in enumerate(self.plans):
            column = self._begin(number, plan)
            for block in column.blocks:
                yield column, block

    def _step(self, plan: Plan) -> int:
        """Return how many rows a block has at most, of whole chunks."""
        step = plan.chunk_rows * max(1, -(-(self.block_rows or 0) // plan.chunk_rows))
        return max(1, min(step, self.source.schema.rows))

    def _begin(self, number: int, plan: Plan) -> _Column:
        rows = self.source.schema.rows
        runs = self._missing(number, plan)
        step = self._step(plan)
        blocks = [
            Block(first, min(step, stop - first))
            for start, stop in runs
            for first in range(start, stop, step)
        ]
        there = rows - sum(stop - start for start, stop in runs)
        done = _RowsDone(self.table, plan.name, blocks, rows)
        column = _Column(number, plan, blocks, done, there)
        self.begun.append(column)
        return column

    def _missing(self, number: int, plan: Plan) -> list[tuple[int, int]]:
        """Make the column, if need be, and return the runs of rows that it lacks."""
        if plan.action is Action.KEEP:
            return []
        if plan.action is Action.RESUME:
            return _missing_rows(self.table, plan)
        if plan.action is Action.CREATE:
            self._create(number)
        else:
            _create_anew(self.table, plan)
        rows = self.source.schema.rows
        return [(0, rows)] if rows else []

    def _create(self, number: int) -> None:
        """Create a column, and those after it where each would have to be waited for."""
        if number not in self.created:
            together = TOGETHER if is_far(self.table) else 1
            later = range(number, min(number + together, len(self.plans)))
            group = [one for one in later if self.plans[one].action is Action.CREATE]
            plans = [self.plans[one] for one in group]
            if len(plans) == 1:
                # In fewer requests.
                self.table.createColumn(plans[0].name, **_options(self.table, plans[0]))
            else:
                self.table.createColumns({one.name: _options(self.table, one) for one in plans})
            self.created.update(group)
        self.created.remove(number)

    def _read(self, item: tuple[_Column, Block]) -> NDArray[Any]:
        column, block = item
        with _noting(column):
            return self.source.read_encoded(column.plan.column.index, block.start, block.length)

    def _write(self, item: tuple[_Column, Block], values: NDArray[Any]) -> None:
        column, block = item
        with _noting(column):
            column.bytes_read.append(values.nbytes)
            try:
                self.table.writeBlock(column.plan.name, values, block.start)
            except UnequalValueError:
                # Bytes that are no UTF-8, which GDAL can have: said in its terms, with the row.
                self.source.check_encoded(column.plan.column.index, block.start, values)
                raise

    def _finish(self) -> None:
        """Say that the first column that was begun is complete."""
        column = self.begun[0]
        if column.plan.action is not Action.KEEP:
            with _noting(column):
                self.table.setComplete(column.plan.name)
        self.begun.popleft()
        stored = self.table.bytesWritten(column.plan.name)
        self.finished.append(
            Copied(column.plan, sum(column.bytes_read), stored, column.rows_there)
        )
        if column.number + 1 < len(self.plans):
            self._report(column.number + 1, 0.0)

    def _report(self, number: int, fraction: float) -> None:
        if self.plans:
            self.told.report((number + fraction) / len(self.plans), self.plans[number].name)

    @contextmanager
    def _sound_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except INTERRUPTIONS:
            for column in self.begun:
                # One that was complete before stays so: a note would say that it is not.
                if column.plan.action is not Action.KEEP:
                    column.done.note()
            raise
        except Exception as error:
            for column in self.begun:
                # What is there by now of the one in conflict is another process's, or may be.
                if column.plan.action in (Action.RESUME, Action.KEEP) or (
                    column.failed and isinstance(error, ConflictError)
                ):
                    continue
                with suppress(RatZarrError):
                    self.table.deleteColumn(column.plan.name)
            for number in self.created:
                with suppress(RatZarrError):
                    self.table.deleteColumn(self.plans[number].name)
            raise


@contextmanager
def _noting(column: _Column) -> Iterator[None]:
    try:
        yield
    except Exception:
        column.failed = True
        raise


def _missing_rows(table: RatZarr, plan: Plan) -> list[tuple[int, int]]:
    """Go on with a column: return the runs of rows that it lacks."""
    attributes = table.getColumnAttributeMapping(plan.name)
    origin, now = attributes[PROVENANCE_ATTR], plan.provenance["versions"]
    if origin.get("versions") != now:
        attributes[PROVENANCE_ATTR] = origin | {"resumed_with": now}
    return table.getMissingRows(plan.name)


def _create_anew(table: RatZarr, plan: Plan) -> None:
    """Create a column that takes another's place, once it is complete."""
    if plan.action is Action.START_OVER:
        # One that is to take another's place, or one in its own place; there can be both.
        while table.resumeColumn(plan.name) is not None:
            table.deleteColumn(plan.name)
    # What is there can be read until this is complete.
    options, replaces = _options(table, plan), table.colExists(plan.name)
    if replaces and plan.column.usage == FieldUsage.GENERIC:
        # It says nothing, and so the usage that the column has in the sidecar is kept.
        for name in usage_attributes(plan.column.usage):
            options["attributes"].pop(name, None)
    table.createColumn(plan.name, **options, replace=replaces)
    attributes = table.getColumnAttributeMapping(plan.name)
    if GDAL_NAME_ATTR in attributes and GDAL_NAME_ATTR not in options["attributes"]:
        # The raster has a column of this very name now.
        del attributes[GDAL_NAME_ATTR]


def _options(table: RatZarr, plan: Plan) -> dict[str, Any]:
    """Return what to create a column with, besides its name."""
    usual = table.getRATChunkSize()
    return {
        "dtype": plan.stored.dtype,
        "attributes": plan.attributes,
        "complete": False,
        "chunkSize": plan.chunk_rows if plan.chunk_rows != usual else None,
    }


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
