"""The tables that a run writes.

Columns are created at the first block and marked incomplete until the last one is written. Rows are
collected to whole chunks.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    RatHandle,
    Settings,
)
from gdalbridge.apply.inputs import where
from gdalbridge.apply.records import (
    Record,
    Unfinished,
    is_left_over,
    rows_before,
    unfinished_columns,
)
from gdalbridge.errors import BlockError, BridgeError
from gdalbridge.gdalio.field_types import kept_usage, usage_attributes
from gdalbridge.sidecars.provenance import PROVENANCE_ATTR
from ratzarr import (
    DFLT_CHUNKSIZE,
    ColumnNotFoundError,
    RatZarr,
    RatZarrError,
    ShapeError,
    TableNotFoundError,
)
from ratzarr.format import exact
from ratzarr.pipeline import run

__all__ = [
    "OutputColumn",
    "Sink",
    "Write",
    "chunk_rows_for",
    "same_places",
]


Array = NDArray[Any]

SHORTEST_CHUNK = 1024


def chunk_rows_for(block_rows: int | None, rows: int, usual: int | None) -> int:
    """Return the chunk size of a table that is to be created.

    Parameters
    ----------
    block_rows : int, optional
        The block length that was asked for: it is to be whole chunks, or, where it is a
        very short one, a chunk whole blocks.
    rows : int
        Rows that the table will have.
    usual : int, optional
        The inputs' chunk size.

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
        return usual or min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, rows))
    if block_rows < SHORTEST_CHUNK:
        return block_rows * math.ceil(SHORTEST_CHUNK / block_rows)
    for pieces in range(math.ceil(block_rows / DFLT_CHUNKSIZE), block_rows // SHORTEST_CHUNK + 1):
        if block_rows % pieces == 0:
            return block_rows // pieces
    return DFLT_CHUNKSIZE


@dataclass(slots=True)
class Write:
    """Rows of some columns of one table, to be written at once."""

    table: RatZarr
    start: int
    columns: dict[str, Array]

    @property
    def weight(self) -> int:
        """Bytes of memory."""
        return sum(map(weight, self.columns.values()))

    def __call__(self) -> None:
        """Write them."""
        self.table.writeBlocks(self.columns, self.start)


@dataclass(slots=True)
class OutputColumn:
    """A column that is written."""

    name: str
    dtype: np.dtype[Any]
    width: int
    chunk_rows: int
    created: bool
    start: int = 0
    """Row of the first that waits."""
    waiting: list[Array] = field(default_factory=list)
    """Rows that make no whole chunk yet."""
    waits: int = 0
    """How many."""
    rows: int = 0
    """Rows that it was given."""

    def add(self, start: int, values: Array) -> Iterator[tuple[int, Array]]:
        """Take rows in, and hand out what can be written."""
        self.rows += len(values)
        if self.waits and start != self.start + self.waits:
            yield from self.rest()
        stop = start + len(values)
        if not self.waits:
            self.start = start
            if start % self.chunk_rows == 0 and stop % self.chunk_rows == 0:
                self.start = stop
                if len(values):
                    yield start, values
                return
        self.waiting.append(values)
        self.waits += len(values)
        whole = stop // self.chunk_rows * self.chunk_rows
        if whole > self.start:
            together = np.concatenate(self.waiting) if len(self.waiting) > 1 else self.waiting[0]
            size = whole - self.start
            yield self.start, together[:size]
            self.waiting, self.waits, self.start = [together[size:].copy()], stop - whole, whole

    def rest(self) -> Iterator[tuple[int, Array]]:
        """Hand out what is no whole chunk."""
        if self.waits:
            values = np.concatenate(self.waiting)
            start, self.start = self.start, self.start + self.waits
            self.waiting, self.waits = [], 0
            yield start, values


class Sink:
    """A table that a script writes.

    Parameters
    ----------
    label : str
        The script's name for it.
    handle : Handle
        A raster's is its sidecar.
    own_usages : callable, optional
        Returns the usages of a raster's own columns by name.
    """

    def __init__(
        self,
        label: str,
        handle: Handle,
        own_usages: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.label, self._options, self._own_usages = label, handle.storageOptions, own_usages
        self._describe: Callable[[str], Mapping[str, Any]] | None = None
        self.name = handle.filename
        if isinstance(handle, RatHandle):
            # Tables that are stores need no GDAL.
            from gdalbridge.apply.inputs import place_to_write

            self.name, self._describe = place_to_write(handle)
        self.where = where(self.name)
        self.table: RatZarr | None = None
        with suppress(TableNotFoundError):
            self.table = RatZarr(self.name, create=False, storageOptions=self._options)
        self.first_rows = 0 if self.table is None else self.table.rowCount
        self.appended = False
        self.position = 0
        """Rows that are written, or wait to be."""
        self._columns: dict[str, OutputColumn] = {}
        # What was said of columns, which may be set in a later block.
        self._said: dict[str, dict[str, Any]] = {}
        self._untyped: set[str] = set()
        self._made_here = self._looked = False
        self._unfinished: dict[str, Unfinished] = {}

    @property
    def _store(self) -> RatZarr:
        if self.table is None:
            raise BridgeError(f"{self.label} ({self.name}) has not been created yet")
        return self.table

    @property
    def _is_untouched(self) -> bool:
        """Whether there is a table to which nobody has done anything."""
        return (
            self.table is not None
            and self.first_rows == 0
            and self.table.getRATChunkSize() == DFLT_CHUNKSIZE
            and not self.table.getColumnNames()
        )

    @property
    def chunk_rows(self) -> int | None:
        """The chunk size of a table that is there; None of one that will be created."""
        if self.table is None or self._is_untouched:
            return None
        return self.table.getRATChunkSize()

    def prepare(
        self,
        settings: Settings,
        record: Record,
        block_rows: int,
        chunk_rows: int,
        ours: dict[tuple[str, str], bool],
        reads: Callable[[], set[tuple[str, str]]],
    ) -> None:
        """Take in what is known before the first block.

        Parameters
        ----------
        settings : Settings
        record : Record
            What is written down of the run.
        block_rows, chunk_rows : int
            The block length; the chunk size where the table is to be created.
        ours : dict
            Columns written by this run, and whether it created them; it is added to.
        reads : callable
            Returns the columns that the function is known to read.
        """
        self._settings, self._record = settings, record
        self._block_rows, self._chunk_rows = block_rows, chunk_rows
        self._ours, self._reads = ours, reads
        self.appended = settings.method == RCM_INCREMENT

    def resume(self) -> list[Unfinished]:
        """Go on with the columns that an interrupted run has left; return them."""
        if self.table is None:
            return []
        for one in unfinished_columns(self.table, self._record):
            self._unfinished[one.name] = one
            if is_left_over(one.attributes):
                self._ours[self.where, one.name] = True
            self._columns[one.name] = self._opened(one.name, created=one.by_chunks)
            if one.by_chunks and self._block_rows % self._columns[one.name].chunk_rows:
                # From now on a chunk that is there may not be whole.
                self._write_record(self._columns[one.name], whole=False)
        return list(self._unfinished.values())

    # ---- a block

    def place(self, span: Span, block: OutputBlock) -> list[Write]:
        """Give a block its rows in the table, and return what can be written.

        Raises
        ------
        BlockError
            For rows that the table can't have.
        ShapeError, UnequalValueError, UnsupportedDtypeError
            For values that a column can't hold.
        """
        for name, said in block.attributes.items():
            self._said.setdefault(name, {}).update(said)
        if block.rows is None:
            self._tell(block)
            return []
        start = self._start(span, block.rows)
        stop = start + block.rows
        self._check_reads(span, stop, block)
        self._have_rows(span, stop)
        self._have_columns(block)
        self._tell(block)
        found: dict[tuple[int, int], dict[str, Array]] = {}
        for name, values in block.columns.items():
            if name in self._columns:
                fitted = self._fitted(self._columns[name], values, start)
                for first, part in self._columns[name].add(start, fitted):
                    found.setdefault((first, len(part)), {})[name] = part
        self.position = max(self.position, stop)
        return self._writes(found)

    def account(self, span: Span, block: OutputBlock, names: Iterable[str]) -> None:
        """Take note of a block whose columns another process has written."""
        self._tell(block)
        for name in names:
            self._columns[name].rows += span.length
        self.position = max(self.position, span.stop)

    def _writes(self, found: Mapping[tuple[int, int], dict[str, Array]]) -> list[Write]:
        return [Write(self._store, start, columns) for (start, _), columns in found.items()]

    def _start(self, span: Span, rows: int) -> int:
        if not self.appended and rows == span.length:
            return span.start
        if not self.appended:
            if self._unfinished or self.position != span.start:
                raise BlockError(
                    f"{self.label} ({self.name}): a block of {span.length} rows gave {rows}, and "
                    "not all blocks before it have filled their rows: say "
                    "controls.outputRowCountHandling(RCM_INCREMENT) where rows are to be added "
                    "one after the other"
                )
            self.appended = True
            for column in self._columns.values():
                self._write_record(column)
        return self.position

    def only_whole_blocks(self, span: Span, rows: int | None) -> None:
        """Refuse a block of other rows than it was given, of a table written to in parallel.

        Raises
        ------
        BlockError
        """
        if rows is not None and rows != span.length:
            raise BlockError(
                f"{self.label} ({self.name}): a block of {span.length} rows gave {rows}, where the "
                "first gave as many as it had, so blocks were written in parallel: say "
                "controls.outputRowCountHandling(RCM_INCREMENT) where rows are to be added one "
                "after the other"
            )

    def _check_reads(self, span: Span, stop: int, block: OutputBlock) -> None:
        if stop <= span.stop:
            return
        reads = self._reads()
        for name in block.columns:
            if (self.where, name) in reads:
                raise BlockError(
                    f"{self.label}: column {name!r} of {self.name} is also read, and would be "
                    f"written up to row {stop - 1}, which the function has not read yet: write to "
                    "another table"
                )

    def _have_rows(self, span: Span, stop: int) -> None:
        """Let the table have so many rows, and be there."""
        settings, rows = self._settings, self._record.rows
        most = {RCM_EQUALS_INPUT: rows, RCM_FIXED: settings.total_rows}.get(settings.method)
        there = 0 if self.table is None else self.table.rowCount
        if stop > there and most is not None and stop > most:
            raise BlockError(
                f"{self.label} ({self.name}): rows up to {stop - 1} are to be written, and the "
                f"table may have {most}: controls.outputRowCountHandling says how many it may have"
            )
        if most is None:
            # Each time it costs requests for each column, so it is not done for each block.
            most = max(stop, self.position + max(self.position, settings.increment or 0))
            if not self.appended:
                most = max(stop, rows)
        if self.table is None:
            self._made_here = True
            self.table = RatZarr(
                self.name,
                storageOptions=self._options,
                newRowCount=most,
                newChunkSize=self._chunk_rows,
            )
        elif not self._looked and self._is_untouched:
            self.table.setChunkSize(self._chunk_rows)
        if not self._looked and self._describe is not None and self.first_rows == 0:
            self.table.getRatAttributeMapping().update(self._describe(self.name))
        self._looked = True
        if stop > self.table.rowCount:
            self.table.setRowCount(most)

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
            made = "the first block that set it made it so" if column.created else "it was so"
            kind = "text" if column.dtype.kind == "T" else str(column.dtype)
            error.add_note(
                f"(column {column.name!r} of {self.label}, {self.name}, holds {kind} of shape "
                f"{expected}: {made})"
            )
            raise

    # ---- columns

    def _have_columns(self, block: OutputBlock) -> None:
        wanted = [name for name in block.columns if name not in self._columns]
        # Of a table that was created here nobody needs to ask.
        looks = [] if self._made_here else [partial(self._there, name) for name in wanted]
        there = [name for name in run(looks) if name]
        new: dict[str, dict[str, Any]] = {}
        replaced = self._own_usages() if len(there) < len(wanted) else {}
        for name in wanted:
            values = block.columns[name]
            if name in there:
                continue
            if block.rows == 0 and values.dtype.kind == "O":
                # Nobody can say of no values what they are.
                self._untyped.add(name)
                continue
            # A column of this name that is the raster's own is replaced by the new one.
            usage = kept_usage(replaced.get(name, 0), values.dtype)
            attributes = usage_attributes(usage) if usage else {}
            attributes |= self._said.get(name, {})
            attributes[PROVENANCE_ATTR] = self._origin(self._store.getRATChunkSize(), created=True)
            width = 1 if values.ndim == 1 else values.shape[1]
            new[name] = {
                "dtype": bytes if values.dtype.kind == "O" else values.dtype,
                "width": width,
                "attributes": attributes,
                "complete": False,
            }
        for name in [*there, *new]:
            self._ours[self.where, name] = name in new
        run([partial(self._take_over, name) for name in there])
        if len(new) == 1:
            [(name, options)] = new.items()
            self._store.createColumn(name, **options)
        elif new:
            self._store.createColumns(new)
        for name in wanted:
            if name in there or name in new:
                self._columns[name] = self._opened(name, created=name in new)
        self._untyped -= self._columns.keys()

    def _there(self, name: str) -> str | None:
        """Return the name of a column that is there, and is to stay."""
        try:
            self._store.openColumn(name, allowIncomplete=True)
        except ColumnNotFoundError:
            return None
        attributes = self._store.getColumnAttributeMapping(name)
        before = rows_before(attributes)
        if before is not None:
            # What an interrupted run has added is not the table's own.
            self.first_rows = min(self.first_rows, before)
        if is_left_over(attributes):
            self._store.deleteColumn(name)
            return None
        return name

    def _take_over(self, name: str) -> None:
        """Say of a column that is there that it is being changed."""
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

    def _tell(self, block: OutputBlock) -> None:
        """Write down what is said of columns that are there."""
        for name, said in block.attributes.items():
            if self.table is None or (name not in self._columns and not self._has(name)):
                continue
            attributes = self._store.getColumnAttributeMapping(name)
            if any(key not in attributes or attributes[key] != said[key] for key in said):
                attributes.update(said)

    def _has(self, name: str) -> bool:
        return self._store.colExists(name)

    # ---- how far it is, and the end

    @property
    def is_direct(self) -> bool:
        """Whether other processes can write whole blocks without meeting in a chunk."""
        return (
            self.table is not None
            and not self.appended
            and bool(self._columns)
            and all(self._block_rows % one.chunk_rows == 0 for one in self._columns.values())
        )

    @property
    def columns(self) -> frozenset[str]:
        """The columns that are written."""
        return frozenset(self._columns)

    @property
    def options(self) -> Mapping[str, Any] | None:
        """Storage options."""
        return self._options

    def certain(self, rows: int) -> int:
        """Return how many leading rows are whole when what was handed out is written.

        Parameters
        ----------
        rows : int
            Up to where blocks are done.
        """
        starts = [one.start for one in self._columns.values() if one.waits]
        return min([self.position if self.appended else rows, *starts])

    def note(self, rows: int) -> None:
        """Write down that so many leading rows are whole."""
        if self.table is not None:
            rows = min(rows, self._store.rowCount)
            run([partial(self._store.setComplete, name, rows) for name in self._columns])

    def rest(self) -> list[Write]:
        """Return what is left to be written when all blocks were placed.

        Raises
        ------
        BridgeError
            Where a column never got a row, and nobody knows what it would hold.
        """
        if self._untyped:
            raise BridgeError(
                f"{self.label} ({self.name}): no block had a row of column "
                f"{min(self._untyped)!r}, so its type can't be known: set it to an array with a "
                "dtype, be it empty"
            )
        found: dict[tuple[int, int], dict[str, Array]] = {}
        for name, column in self._columns.items():
            for start, part in column.rest():
                found.setdefault((start, len(part)), {})[name] = part
        return self._writes(found) if found else []

    def finish(self) -> None:
        """Say that all is there."""
        if self.table is None:
            return
        rows = self._store.rowCount
        wanted = max(self.first_rows, self.position) if self.appended else rows
        if self._settings.truncate and self._columns:
            wanted = self.position if self.appended else self._record.rows
        if wanted < rows:
            self._store.setRowCount(wanted)
        for column in self._columns.values():
            if column.rows < self._store.rowCount:
                self._fill(column)
        run([partial(self._store.setComplete, name) for name in self._columns])

    def _fill(self, column: OutputColumn) -> None:
        """Write the rows that no block has set: of a complete column all chunks are there."""
        for start, stop in self._store.getMissingRows(column.name):
            for first in range(start, stop, column.chunk_rows):
                length = min(column.chunk_rows, stop - first)
                empty = self._store.readBlock(column.name, first, length, allowIncomplete=True)
                self._store.writeBlock(column.name, empty, first)

    def written(self) -> bool:
        """Return whether there is anything of this run in it."""
        return bool(self._columns)

    def close(self) -> None:
        """Let go of the table."""
        if self.table is not None:
            with suppress(RatZarrError):
                self._store.close()


def same_places(sinks: Sequence[Sink]) -> None:
    """Refuse two outputs that are one table: each would not know of the other's rows.

    Raises
    ------
    BridgeError
    """
    seen: dict[str, Sink] = {}
    for sink in sinks:
        other = seen.setdefault(sink.where, sink)
        if other is not sink:
            raise BridgeError(
                f"the outputs {other.label} and {sink.label} are one table, {sink.name}: set all "
                "columns of one table through one of them"
            )
