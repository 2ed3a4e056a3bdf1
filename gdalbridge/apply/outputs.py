"""The output tables of a run.

The first block creates the columns. They stay marked incomplete until the last block is written.
Rows are collected into whole chunks before they are written.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.apply.block import OutputBlock, Span, weight
from gdalbridge.apply.controls import (
    RCM_EQUALS_INPUT,
    RCM_FIXED,
    RCM_INCREMENT,
    Handle,
    RatApplierControls,
    RatHandle,
)
from gdalbridge.apply.inputs import place_to_write
from gdalbridge.apply.records import (
    Record,
    Unfinished,
    is_left_over,
    rows_before,
    unfinished_columns,
)
from gdalbridge.errors import BlockError, BridgeError
from gdalbridge.gdalio.field_types import kept_usage, usage_attributes
from gdalbridge.sidecars.naming import sidecar_dir_advised, where
from ratzarr import (
    DFLT_CHUNKSIZE,
    ColumnNotFoundError,
    RatZarr,
    RatZarrError,
    ShapeError,
    TableNotFoundError,
)
from ratzarr.format import PROVENANCE_ATTR, RESIZE_ATTR, SHORTEST_CHUNK, chunk_rows_of, exact
from ratzarr.pipeline import run

__all__ = [
    "OutputColumn",
    "Sink",
    "Write",
    "chunk_rows_for",
    "same_places",
]


Array = NDArray[Any]


def chunk_rows_for(block_rows: int | None, rows: int, usual: int | None) -> int:
    """Return the chunk size for a new table.

    Parameters
    ----------
    block_rows : int, optional
        The block length, if it was set. A block is then a whole number of chunks; if the block
        is very short, a chunk is a whole number of blocks.
    rows : int
        Rows that the table will have.
    usual : int, optional
        The default, such as the inputs' chunk size.

    Examples
    --------
    >>> chunk_rows_for(None, 10**7, None), chunk_rows_for(1_000_000, 10**7, None)
    (500000, 500000)
    >>> chunk_rows_for(200_000, 10**7, None), chunk_rows_for(100, 10**7, None)
    (200000, 1100)
    >>> chunk_rows_for(None, 300, None)
    1024
    """
    if block_rows is None:
        return usual or chunk_rows_of(rows)
    if block_rows < SHORTEST_CHUNK:
        return block_rows * math.ceil(SHORTEST_CHUNK / block_rows)
    for pieces in range(math.ceil(block_rows / DFLT_CHUNKSIZE), block_rows // SHORTEST_CHUNK + 1):
        if block_rows % pieces == 0:
            return block_rows // pieces
    return DFLT_CHUNKSIZE


@dataclass(slots=True)
class Write:
    """Rows of some columns of one table, written together."""

    table: RatZarr
    start: int
    columns: dict[str, Array]

    @property
    def weight(self) -> int:
        """Bytes of memory that the rows need."""
        return sum(map(weight, self.columns.values()))

    def __call__(self) -> None:
        """Write the rows."""
        self.table.writeBlocks(self.columns, self.start)


@dataclass(slots=True)
class OutputColumn:
    """An output column, with the rows that wait to form a whole chunk."""

    name: str
    dtype: np.dtype[Any]
    width: int
    chunk_rows: int
    created: bool
    """True if the run has created the column."""
    start: int = 0
    """Number of the first waiting row."""
    waiting: list[Array] = field(default_factory=list)
    """Rows that do not fill a chunk yet."""
    waiting_rows: int = 0
    rows: int = 0
    """Rows received so far."""

    def add(self, start: int, values: Array) -> Iterator[tuple[int, Array]]:
        """Add rows, and yield whole chunks with their first rows."""
        self.rows += len(values)
        if self.waiting_rows and start != self.start + self.waiting_rows:
            yield from self.rest()
        stop = start + len(values)
        if not self.waiting_rows:
            self.start = start
            if start % self.chunk_rows == 0 and stop % self.chunk_rows == 0:
                self.start = stop
                if len(values):
                    yield start, values
                return
        self.waiting.append(values)
        self.waiting_rows += len(values)
        whole = stop // self.chunk_rows * self.chunk_rows
        if whole > self.start:
            together = np.concatenate(self.waiting) if len(self.waiting) > 1 else self.waiting[0]
            size = whole - self.start
            yield self.start, together[:size]
            self.waiting, self.start = [together[size:].copy()], whole
            self.waiting_rows = stop - whole

    def rest(self) -> Iterator[tuple[int, Array]]:
        """Yield the waiting rows, though they do not fill a chunk."""
        if self.waiting_rows:
            values = np.concatenate(self.waiting)
            start, self.start = self.start, self.start + self.waiting_rows
            self.waiting, self.waiting_rows = [], 0
            yield start, values


class Sink:
    """An output table of a script.

    Parameters
    ----------
    label : str
        The script's name for the table.
    handle : Handle
        For a raster, its sidecar is written.
    own_usages : callable, optional
        Returns the GDAL usages of a raster's own columns by name.
    """

    def __init__(
        self,
        label: str,
        handle: Handle,
        own_usages: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.label, self.options, self._own_usages = label, handle.storageOptions, own_usages
        self._describe: Callable[[str], Mapping[str, Any]] | None = None
        self.name = handle.filename
        if isinstance(handle, RatHandle):
            self.name, self._describe = place_to_write(handle)
        self.where = where(self.name)
        self.table: RatZarr | None = None
        with suppress(TableNotFoundError):
            self.table = RatZarr(self.name, create=False, storageOptions=self.options)
        self.first_rows = 0 if self.table is None else self.table.rowCount
        self._set_rows = self.first_rows
        """The rows of the table as this run knows it."""
        self._others_rows = 0
        """The rows of the table as other processes have made it longer meanwhile."""
        self.appended = False
        self.position = 0
        """Number of the row after the last that was written or waits."""
        self._columns: dict[str, OutputColumn] = {}
        # Attributes by column; a script may set a column only in a later block.
        self._attributes: dict[str, dict[str, Any]] = {}
        self._untyped: set[str] = set()
        self._created_here = self._prepared = False
        self._unfinished: dict[str, Unfinished] = {}

    @property
    def _store(self) -> RatZarr:
        if self.table is None:
            raise BridgeError(f"{self.label} ({self.name}) has not been created yet")
        return self.table

    @property
    def _is_untouched(self) -> bool:
        """True if the table exists without rows or columns, at the default chunk size."""
        return (
            self.table is not None
            and self.first_rows == 0
            and self.table.getRATChunkSize() == DFLT_CHUNKSIZE
            and not self.table.getColumnNames()
        )

    @property
    def chunk_rows(self) -> int | None:
        """The chunk size of an existing table; None if it can still be chosen."""
        if self.table is None or self._is_untouched:
            return None
        return self.table.getRATChunkSize()

    def prepare(
        self,
        controls: RatApplierControls,
        record: Record,
        block_rows: int,
        chunk_rows: int,
        ours: dict[tuple[str, str], bool],
        reads: Set[tuple[str, str]],
    ) -> None:
        """Set the options of the run, before the first block.

        Parameters
        ----------
        controls : RatApplierControls
        record : Record
            The provenance of the run.
        block_rows, chunk_rows : int
            The block length, and the chunk size for a new table.
        ours : dict
            The columns that this run writes, and whether it has created them. The sink adds
            its own columns.
        reads : set
            The columns that the function has read so far, which the run adds to.
        """
        self._controls, self._record = controls, record
        self._block_rows, self._chunk_rows = block_rows, chunk_rows
        self._ours, self._reads = ours, reads
        self.appended = controls.outRowCountMethod == RCM_INCREMENT

    def resume(self) -> list[Unfinished]:
        """Resume the columns that an interrupted run has not completed, and return them."""
        if self.table is None:
            return []
        for one in unfinished_columns(self.table, self._record):
            self._unfinished[one.name] = one
            if is_left_over(one.attributes):
                self._ours[self.where, one.name] = True
            self._columns[one.name] = self._opened(one.name, created=one.by_chunks)
            if one.by_chunks and self._block_rows % self._columns[one.name].chunk_rows:
                # From now on, an existing chunk may lack rows.
                self._write_record(self._columns[one.name], whole=False)
        return list(self._unfinished.values())

    # ---- a block

    def place(self, span: Span, block: OutputBlock) -> list[Write]:
        """Assign a block to rows of the table, and return the writes that are ready.

        Raises
        ------
        BlockError
            If the table may not have these rows.
        ShapeError, UnequalValueError, UnsupportedDtypeError
            If a column can't hold the values.
        """
        for name, attributes in block.attributes.items():
            self._attributes.setdefault(name, {}).update(attributes)
        if block.rows is None:
            self._write_attributes(block)
            return []
        start = self._start(span, block.rows)
        stop = start + block.rows
        self._check_reads(span, stop, block)
        self._ensure_rows(stop)
        self._ensure_columns(block)
        self._write_attributes(block)
        writes = self._writes(
            (name, part)
            for name, values in block.columns.items()
            if (column := self._columns.get(name)) is not None
            for part in column.add(start, self._fitted(column, values, start))
        )
        self.position = max(self.position, stop)
        return writes

    def account(self, span: Span, block: OutputBlock, names: Iterable[str]) -> None:
        """Record a block whose columns a worker has written."""
        self._write_attributes(block)
        for name in names:
            self._columns[name].rows += span.length
        self.position = max(self.position, span.stop)

    def _writes(self, parts: Iterable[tuple[str, tuple[int, Array]]]) -> list[Write]:
        """Return writes of parts of columns, given as first row and values, together if possible."""
        found: dict[tuple[int, int], dict[str, Array]] = {}
        for name, (start, values) in parts:
            found.setdefault((start, len(values)), {})[name] = values
        return [Write(self._store, start, columns) for (start, _), columns in found.items()]

    def _start(self, span: Span, rows: int) -> int:
        if not self.appended and rows == span.length:
            return span.start
        if not self.appended:
            if self._unfinished or self.position != span.start:
                raise BlockError(
                    f"{self.label} ({self.name}): a block of {span.length} rows set {rows} rows, "
                    "but not all blocks before it have set all of their rows. To append rows, use "
                    "controls.outputRowCountHandling(RCM_INCREMENT)."
                )
            self.appended = True
            for column in self._columns.values():
                self._write_record(column)
        return self.position

    def only_whole_blocks(self, span: Span, rows: int | None) -> None:
        """Check that a block has set exactly its own rows, in a table that workers write to.

        Raises
        ------
        BlockError
        """
        if rows is not None and rows != span.length:
            raise BlockError(
                f"{self.label} ({self.name}): a block of {span.length} rows set {rows} rows, but "
                "the first block set all of its rows, so blocks are written in parallel. To append "
                "rows, use controls.outputRowCountHandling(RCM_INCREMENT)."
            )

    def _check_reads(self, span: Span, stop: int, block: OutputBlock) -> None:
        if stop <= span.stop:
            return
        for name in block.columns:
            if (self.where, name) in self._reads:
                raise BlockError(
                    f"{self.label}: column {name!r} of {self.name} is also read, and would be "
                    f"written up to row {stop - 1}, which the function has not read yet. Write to "
                    "another table."
                )

    def _ensure_rows(self, stop: int) -> None:
        """Create the table if it does not exist, and let it have ``stop`` rows at least."""
        controls, rows = self._controls, self._record.rows
        limit = {RCM_EQUALS_INPUT: rows, RCM_FIXED: controls.fixedOutRowCount}.get(
            controls.outRowCountMethod
        )
        existing = 0 if self.table is None else self.table.rowCount
        if stop > existing and limit is not None and stop > limit:
            raise BlockError(
                f"{self.label} ({self.name}): the block ends at row {stop - 1}, but the table may "
                f"have only {limit} rows. Set another limit with controls.outputRowCountHandling."
            )
        if limit is None:
            # Growing a table costs requests for each column, so it grows by many rows at once.
            limit = max(
                stop, self.position + max(self.position, controls.rowCountIncrementSize or 0)
            )
            if not self.appended:
                limit = max(stop, rows)
        if self.table is None:
            self._created_here = True
            with sidecar_dir_advised(self.name):
                self.table = RatZarr(
                    self.name,
                    storageOptions=self.options,
                    newRowCount=limit,
                    newChunkSize=self._chunk_rows,
                )
            self._set_rows = limit
        elif not self._prepared and self._is_untouched:
            self.table.setChunkSize(self._chunk_rows)
        if not self._prepared and self._describe is not None and self.first_rows == 0:
            self.table.getRatAttributeMapping().update(self._describe(self.name))
        self._prepared = True
        if stop > self.table.rowCount:
            self._note_others()
            self.table.setRowCount(limit, growOnly=True)
            self._set_rows = limit

    def _note_others(self) -> None:
        """Note whether another process has added rows: they stay when the run ends."""
        # This changes nothing, but reads the row count again.
        self._store.setRowCount(0, growOnly=True)
        if self._store.rowCount > self._set_rows:
            self._others_rows = self._store.rowCount

    def _fitted(self, column: OutputColumn, values: Array, start: int) -> Array:
        expected = "(n,)" if column.width == 1 else f"(n, {column.width})"
        try:
            if values.shape[1:] != ((column.width,) if column.width > 1 else ()):
                raise ShapeError(
                    f"column {column.name!r}, from row {start}: a block of shape {values.shape}, "
                    f"expected {expected}"
                )
            return exact(values, column.dtype, column=column.name, first_row=start)
        except RatZarrError as error:
            source = (
                "as the first block that set it" if column.created else "as it did before the run"
            )
            kind = "text" if column.dtype.kind == "T" else str(column.dtype)
            error.add_note(
                f"(column {column.name!r} of {self.label}, {self.name}, holds {kind} of shape "
                f"{expected}, {source})"
            )
            raise

    # ---- columns

    def _ensure_columns(self, block: OutputBlock) -> None:
        wanted = [name for name in block.columns if name not in self._columns]
        # A table that this run has created has no other columns, so no request is needed.
        lookups = [] if self._created_here else [partial(self._existing, name) for name in wanted]
        existing = [name for name in run(lookups) if name]
        new: dict[str, dict[str, Any]] = {}
        replaced = self._own_usages() if len(existing) < len(wanted) else {}
        for name in wanted:
            values = block.columns[name]
            if name in existing:
                continue
            if block.rows == 0 and values.dtype.kind == "O":
                # An empty array of objects does not tell the column's type.
                self._untyped.add(name)
                continue
            # The new column takes the place of the raster's own column of this name, and keeps
            # its usage.
            usage = kept_usage(replaced.get(name, 0), values.dtype)
            attributes = usage_attributes(usage) if usage else {}
            attributes |= self._attributes.get(name, {})
            attributes[PROVENANCE_ATTR] = self._origin(self._store.getRATChunkSize(), created=True)
            width = 1 if values.ndim == 1 else values.shape[1]
            new[name] = {
                "dtype": bytes if values.dtype.kind == "O" else values.dtype,
                "width": width,
                "attributes": attributes,
                "complete": False,
            }
        for name in [*existing, *new]:
            self._ours[self.where, name] = name in new
        run([partial(self._mark_incomplete, name) for name in existing])
        if len(new) == 1:
            [(name, options)] = new.items()
            self._store.createColumn(name, **options)
        elif new:
            self._store.createColumns(new)
        for name in wanted:
            if name in existing or name in new:
                self._columns[name] = self._opened(name, created=name in new)
        self._untyped -= self._columns.keys()

    def _existing(self, name: str) -> str | None:
        """Return the name if the column exists, else None.

        A column that an interrupted run has created is deleted first.
        """
        try:
            self._store.openColumn(name, allowIncomplete=True)
        except ColumnNotFoundError:
            return None
        attributes = self._store.getColumnAttributeMapping(name)
        before = rows_before(attributes)
        if before is not None:
            # Rows that an interrupted run has added do not count as the table's own.
            self.first_rows = min(self.first_rows, before)
        if is_left_over(attributes):
            self._store.deleteColumn(name)
            return None
        return name

    def _mark_incomplete(self, name: str) -> None:
        """Mark an existing column as incomplete, with this run as its provenance."""
        self._store.setComplete(name, 0)
        origin = self._origin(self._store.getColumnChunkSize(name), created=False)
        self._store.getColumnAttributeMapping(name)[PROVENANCE_ATTR] = origin

    def _opened(self, name: str, *, created: bool) -> OutputColumn:
        return OutputColumn(
            name,
            self._store.getColumnDtype(name),
            self._store.getColumnWidth(name),
            self._store.getColumnChunkSize(name),
            created,
        )

    def _origin(self, chunk_rows: int, *, created: bool) -> dict[str, Any]:
        whole = self._block_rows % chunk_rows == 0
        return self._record.attribute(
            created=created, whole=whole, appended=self.appended, table_rows=self.first_rows
        )

    def _write_record(self, column: OutputColumn, *, whole: bool | None = None) -> None:
        origin = self._origin(column.chunk_rows, created=column.created)
        if whole is not None:
            origin["whole"] = whole
        self._store.getColumnAttributeMapping(column.name)[PROVENANCE_ATTR] = origin

    def _write_attributes(self, block: OutputBlock) -> None:
        """Write the block's attributes of existing columns, where they differ."""
        for name, new in block.attributes.items():
            if self.table is None or (
                name not in self._columns and not self._store.colExists(name)
            ):
                continue
            attributes = self._store.getColumnAttributeMapping(name)
            if any(key not in attributes or attributes[key] != new[key] for key in new):
                attributes.update(new)

    # ---- progress and completion

    @property
    def is_direct(self) -> bool:
        """True if processes can write whole blocks without sharing a chunk or adding rows."""
        return (
            self.table is not None
            and not self.appended
            and self.table.rowCount >= self._record.rows
            and bool(self._columns)
            and all(self._block_rows % one.chunk_rows == 0 for one in self._columns.values())
        )

    @property
    def columns(self) -> frozenset[str]:
        """The columns that the run writes."""
        return frozenset(self._columns)

    def certain(self, rows: int) -> int:
        """Return how many leading rows are complete once all returned writes are done.

        Parameters
        ----------
        rows : int
            Leading rows whose blocks are done.
        """
        starts = [one.start for one in self._columns.values() if one.waiting_rows]
        return min([self.position if self.appended else rows, *starts])

    def note(self, rows: int) -> None:
        """Store the number of complete leading rows with each column."""
        if self.table is not None:
            rows = min(rows, self._store.rowCount)
            run([partial(self._store.setComplete, name, rows) for name in self._columns])

    def rest(self) -> list[Write]:
        """Return the writes of the rows that still wait, after the last block.

        Raises
        ------
        BridgeError
            If a column got no rows and its type is unknown.
        """
        if self._untyped:
            raise BridgeError(
                f"{self.label} ({self.name}): no block has set a row of column "
                f"{min(self._untyped)!r}, so its type is unknown. Set it to an array with a dtype "
                "other than object; the array may be empty."
            )
        return self._writes(
            (name, part) for name, column in self._columns.items() for part in column.rest()
        )

    def finish(self) -> None:
        """Fix the number of rows, and fill those that no block has set."""
        if self.table is None:
            return
        rows = self._store.rowCount
        wanted = max(self.first_rows, self.position) if self.appended else rows
        if self._controls.truncateOutput and self._columns:
            wanted = self.position if self.appended else self._record.rows
        if wanted < rows or RESIZE_ATTR in self._store.getRatAttributeMapping():
            # This also completes a change of the row count that was interrupted.
            self._note_others()
            wanted = max(wanted, self._others_rows)
            if wanted < self._store.rowCount:
                self._store.setRowCount(wanted)
        for column in self._columns.values():
            if column.rows < self._store.rowCount:
                self._fill(column)

    def complete(self) -> None:
        """Mark all columns as complete, when all outputs are finished."""
        run([partial(self._store.setComplete, name) for name in self._columns])

    def _fill(self, column: OutputColumn) -> None:
        """Write empty values to rows that no block has set: a complete column has all chunks."""
        for start, stop in self._store.getMissingRows(column.name):
            for first in range(start, stop, column.chunk_rows):
                length = min(column.chunk_rows, stop - first)
                empty = self._store.readBlock(column.name, first, length, allowIncomplete=True)
                self._store.writeBlock(column.name, empty, first)

    def written(self) -> bool:
        """Return True if the run has written to the table."""
        return bool(self._columns)

    def close(self) -> None:
        """Close the table."""
        if self.table is not None:
            with suppress(RatZarrError):
                self._store.close()


def same_places(sinks: Sequence[Sink]) -> None:
    """Check that no two outputs are the same table: one would not know of the other's rows.

    Raises
    ------
    BridgeError
    """
    seen: dict[str, Sink] = {}
    for sink in sinks:
        other = seen.setdefault(sink.where, sink)
        if other is not sink:
            raise BridgeError(
                f"the outputs {other.label} and {sink.label} are the same table, {sink.name}. Use "
                "one output for all columns of a table."
            )
