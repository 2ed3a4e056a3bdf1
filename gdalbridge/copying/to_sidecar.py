"""Copy a raster's attribute table to a sidecar.

One thread reads from GDAL while others encode and write earlier blocks. A column is marked
incomplete until its last block is written. An interrupted copy, even by a killed process, can be
resumed: the store itself shows which columns and blocks are complete.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from numpy.typing import NDArray

from gdalbridge.copying.plan import GDAL_NAME_ATTR, Action, Plan, choose, plan_columns
from gdalbridge.copying.report import ColumnReport, CopyReport
from gdalbridge.errors import BridgeError, CancelledError, OutputExistsError
from gdalbridge.gdalio.field_types import FieldUsage, usage_attributes
from gdalbridge.gdalio.rat_reader import RatSource, open_rat
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.naming import sidecar_dir_advised, writable_sidecar_path
from gdalbridge.sidecars.provenance import (
    RASTER_ATTR,
    column_provenance,
    raster_attribute,
    table_source,
)
from gdalbridge.sidecars.staleness import raster_changes, same_raster, warn_of_changes
from ratzarr import (
    DFLT_CHUNKSIZE,
    ConflictError,
    RatZarr,
    RatZarrError,
    StoreError,
    UnequalValueError,
)
from ratzarr.errors import Advice
from ratzarr.format import PROVENANCE_ATTR, RESIZE_ATTR, chunk_rows_of
from ratzarr.pipeline import (
    IN_FLIGHT_BYTES,
    PROCESSORS,
    ReadAhead,
    at_once,
    is_remote,
    max_blocks,
    memory_of,
    write_behind,
)

__all__ = ["copy_to_sidecar"]

INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""Errors that leave the written values valid, so that the copy can be resumed."""
SECONDS = 5.0
"""Seconds between updates of a column's progress; each is a request."""
TOGETHER = 16
"""Number of columns created at once if the store has latency."""


@dataclass(slots=True)
class _Column:
    """A column being copied."""

    plan: Plan
    blocks: Sequence[range] = ()
    """The rows to copy, in order."""
    is_ours: bool = False
    """True if this copy has created it, and so removes it after an error."""
    written: int = 0
    """Number of its blocks that are written, in order."""
    noted: int = 0
    """That number, when it was recorded in the store."""
    when: float = 0.0
    """When that was, or when the column was started."""

    def note(self, table: RatZarr) -> None:
        """Record how many leading rows are complete."""
        if self.written > self.noted:
            # The record is informational; failing to write it must not fail the copy.
            with suppress(RatZarrError):
                table.setComplete(self.plan.name, self.blocks[self.written - 1].stop)
            self.noted, self.when = self.written, time.monotonic()


@dataclass(slots=True)
class _Copying:
    """Columns being copied, one after another."""

    source: RatSource
    table: RatZarr
    is_new: bool
    """True if the sidecar did not exist before."""
    block_rows: int | None
    reporter: Progress
    columns: list[_Column] = field(default_factory=list)
    finished: int = 0
    """Number of complete columns; the others are incomplete."""
    bytes_read: list[int] = field(default_factory=list)
    """Size of the values of each block."""
    bytes_stored: int = 0
    rows_there: int = 0
    """Number of values that existed before."""

    def run(self, plans: Sequence[Plan]) -> None:
        """Copy all columns."""
        self.columns = [_Column(plan) for plan in plans]
        texts = any(plan.stored.dtype.kind in "TO" for plan in plans)
        self._report(0.0)
        threads = self._threads()
        reading = ReadAhead(self._blocks(), self._read, ahead=1 if texts else 2)
        writing = write_behind(
            reading,
            self._write,
            threads=threads,
            behind=threads,
            size=memory_of,
            max_bytes=IN_FLIGHT_BYTES,
        )
        with closing(reading), closing(writing):
            for column, block in writing:
                # Earlier columns had no blocks.
                while self.columns[self.finished] is not column:
                    self._finish()
                column.written += 1
                if time.monotonic() - column.when >= SECONDS:
                    column.note(self.table)
                self._report(block.stop / self.source.schema.rows)
                if block is column.blocks[-1]:
                    self._finish()
        while self.finished < len(plans):
            self._finish()

    def _threads(self) -> int:
        """Return the number of threads that encode and write."""
        # No more than the blocks that fit into memory, because used memory stays with each thread.
        # For text, that is known only after the first block.
        plans = [one.plan for one in self.columns]
        most = max([2, *(at_once(plan.stored.dtype, self._step(plan)) for plan in plans)])
        return most if is_remote(self.table) else min(most, max(2, PROCESSORS))

    def _step(self, plan: Plan) -> int:
        """Return the largest number of rows in a block, a multiple of whole chunks."""
        step = plan.chunk_rows * max(1, -(-(self.block_rows or 0) // plan.chunk_rows))
        return max(1, min(step, self.source.schema.rows))

    def _blocks(self) -> Iterator[tuple[_Column, range]]:
        """Start one column after another, and yield its blocks to copy."""
        rows = self.source.schema.rows
        for number, column in enumerate(self.columns):
            plan, step = column.plan, self._step(column.plan)
            runs = [(0, rows)]
            if plan.action is Action.KEEP:
                runs = []
            elif plan.action is Action.RESUME:
                runs = _missing_rows(self.table, plan)
            elif plan.action is Action.CREATE:
                self._create(number)
            else:
                _create_anew(self.table, plan)
                column.is_ours = True
            column.blocks = [
                range(first, min(first + step, stop))
                for start, stop in runs
                for first in range(start, stop, step)
            ]
            self.rows_there += rows - sum(map(len, column.blocks))
            column.when = time.monotonic()
            yield from ((column, block) for block in column.blocks)

    def _create(self, number: int) -> None:
        """Create a column; also create the next ones if the store has latency."""
        if self.columns[number].is_ours:
            return
        together = min(TOGETHER, max_blocks()) if is_remote(self.table) else 1
        later = self.columns[number : number + together]
        group = [one for one in later if one.plan.action is Action.CREATE]
        options = {one.plan.name: _options(one.plan) for one in group}
        if len(group) == 1:
            # In fewer requests.
            self.table.createColumn(group[0].plan.name, **options[group[0].plan.name])
        else:
            self.table.createColumns(options)
        for one in group:
            one.is_ours = True

    def _read(self, item: tuple[_Column, range]) -> NDArray[Any]:
        column, block = item
        return self.source.read_encoded(column.plan.column.index, block.start, len(block))

    def _write(self, item: tuple[_Column, range], values: NDArray[Any]) -> None:
        column, block = item
        self.bytes_read.append(values.nbytes)
        try:
            with _unless_replaced(column):
                self.table.writeBlock(column.plan.name, values, block.start)
        except UnequalValueError:
            # GDAL may return bytes that are not UTF-8. Report them in GDAL's terms, with the row.
            self.source.check_encoded(column.plan.column.index, block.start, values)
            raise

    def _finish(self) -> None:
        """Mark the first incomplete column complete."""
        column = self.columns[self.finished]
        name = column.plan.name
        if column.plan.action is not Action.KEEP:
            with _unless_replaced(column):
                self.table.setComplete(name)
        self.finished += 1
        self.bytes_stored += self.table.bytesWritten(name)
        if self.finished < len(self.columns):
            self._report(0.0)

    def _report(self, fraction: float) -> None:
        if self.columns:
            done = (self.finished + fraction) / len(self.columns)
            self.reporter.report(done, self.columns[self.finished].plan.name)

    @contextmanager
    def rollback_on_error(
        self, overwrite: bool, options: Mapping[str, Any] | None
    ) -> Iterator[None]:
        """Keep a resumable copy after an interruption; otherwise remove what was written."""
        table = self.table
        try:
            yield
        except INTERRUPTIONS as error:
            for column in self.columns[self.finished :]:
                column.note(table)
            if self.is_new and _is_empty(table):
                _delete(table, options)
            else:
                also = " with overwrite=True" if overwrite else ""
                error.add_note(
                    Advice(
                        f"The finished part stays in {table.filename}.",
                        f"Use resume=True{also} to continue.",
                    )
                )
            raise
        except Exception:
            for column in self.columns[0 if self.is_new else self.finished :]:
                if column.is_ours:
                    with suppress(RatZarrError):
                        table.deleteColumn(column.plan.name)
            # Anything that another process has written meanwhile stays.
            if self.is_new and _is_empty(table):
                _delete(table, options)
            raise


@contextmanager
def _unless_replaced(column: _Column) -> Iterator[None]:
    """After a conflict, the column may belong to another process."""
    try:
        yield
    except ConflictError:
        column.is_ours = False
        raise


def _missing_rows(table: RatZarr, plan: Plan) -> list[tuple[int, int]]:
    """Resume a column: return the runs of missing rows."""
    attributes = table.getColumnAttributeMapping(plan.name)
    origin, now = attributes[PROVENANCE_ATTR], plan.provenance["versions"]
    if origin.get("versions") != now:
        attributes[PROVENANCE_ATTR] = origin | {"resumed_with": now}
    return table.getMissingRows(plan.name)


def _create_anew(table: RatZarr, plan: Plan) -> None:
    """Create a column that replaces another once it is complete."""
    if plan.action is Action.START_OVER:
        # Either a replacement column, or a column in its own place; both may exist.
        while table.resumeColumn(plan.name) is not None:
            table.deleteColumn(plan.name)
    # The existing column stays readable until this one is complete.
    options, replaces = _options(plan), table.colExists(plan.name)
    if replaces and plan.column.usage == FieldUsage.GENERIC:
        # The raster sets no usage, so the sidecar column's usage is kept.
        for name in usage_attributes(plan.column.usage):
            options["attributes"].pop(name, None)
    table.createColumn(plan.name, **options, replace=replaces)
    attributes = table.getColumnAttributeMapping(plan.name)
    if GDAL_NAME_ATTR in attributes and GDAL_NAME_ATTR not in options["attributes"]:
        # The raster now has a column of this very name.
        del attributes[GDAL_NAME_ATTR]


def _options(plan: Plan) -> dict[str, Any]:
    """Return the arguments for creating a column, without its name."""
    return {
        "dtype": plan.stored.dtype,
        "attributes": plan.attributes,
        "complete": False,
        "chunkSize": plan.chunk_rows,
    }


def copy_to_sidecar(
    raster: Any,
    sidecar: Any = None,
    *,
    band: int = 1,
    name: str | None = None,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    append: bool = False,
    resume: bool = False,
    block_rows: int | None = None,
    chunk_rows: int | None = None,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> CopyReport:
    """Copy a raster's own attribute table to a sidecar.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A path, URL or ``/vsi`` name, or an open dataset. It is only read.
    sidecar : str or os.PathLike, optional
        The target; by default beside the raster (:func:`~gdalbridge.sidecar_path`).
    band : int
        Counted from 1.
    name : str, optional
        Name of a further table.
    columns : sequence of str, optional
        Only these, in the table's own order.
    overwrite : bool
        Replace columns that the sidecar already has. Each stays readable until its replacement is
        complete, which needs space for both. On S3 the server then copies the new column into
        place, with a request for each chunk, and the column is marked incomplete for that short
        time. Other columns of the sidecar are kept.
    append : bool
        Add to an existing sidecar.
    resume : bool
        Continue an interrupted copy: skip finished columns, and copy only the missing blocks of
        others. Without an existing sidecar, start a new copy.
    block_rows, chunk_rows : int, optional
        Rows per block and per chunk. Blocks consist of whole chunks. By default the store's chunk
        size, or fewer for columns of long strings.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8; for a ``.vat.dbf``
        the encoding that it declares.
    lossy : bool
        Read the raster's own table even if GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`. Also used for a raster on S3.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    CopyReport

    Warns
    -----
    StaleWarning
        If only some columns of a sidecar are copied, and the raster has changed since the others
        were.

    Raises
    ------
    OutputExistsError
        If the sidecar, or a column in it, exists and may not be changed.
    ColumnSelectionError
        If a requested column is not in the raster's table.
    CancelledError
        If the progress cancelled the copy. Finished columns stay, unfinished ones are marked
        incomplete, and ``resume=True`` continues. The same holds after Ctrl-C, and after an error
        of the sidecar's disk or server (:class:`ratzarr.StoreError`).
    GdalLossError
        If GDAL lost or altered values of the table, with its own words.
    BridgeError
        For other failures. With ``resume=True`` also if the raster's table is not the one of the
        interrupted copy, or an existing column has another origin; the message names the
        difference. Columns that this call created but did not finish are removed, and so is
        everything that it wrote to a new sidecar.
    """
    started = time.perf_counter()
    target = sidecar if sidecar is not None else writable_sidecar_path(raster, band, name)
    for what, value in (("block_rows", block_rows), ("chunk_rows", chunk_rows)):
        if value is not None and (isinstance(value, bool) or value < 1):
            raise BridgeError(f"{what} is an integer >= 1: got {value!r}")

    @cache
    def is_new() -> bool:
        found = RatZarr.exists(target, storageOptions=storage_options)
        if found and not (overwrite or append or resume):
            raise _exists(target)
        return not found

    reading = ReadOptions(encoding, lossy)
    with (
        open_rat(raster, band, storage_options, reading, before=is_new) as source,
        progress_of(progress) as reporter,
    ):
        schema = source.schema
        belongs = raster_attribute(source.dataset, band, target)
        chosen = choose(schema.columns, columns, source.name)
        kept_in = table_source(source.dataset, schema)
        if is_new():
            # Find problems before anything is written.
            for column in chosen:
                source.stored(column.index)
        usual = chunk_rows or chunk_rows_of(schema.rows)
        with (
            sidecar_dir_advised(target),
            RatZarr(
                target,
                storageOptions=storage_options,
                newRowCount=schema.rows,
                newChunkSize=usual,
            ) as table,
        ):
            if is_new() and table.getRowCount() != schema.rows:
                # Another process has made it since.
                raise _exists(target)
            copying = _Copying(source, table, is_new(), block_rows, reporter)
            with copying.rollback_on_error(overwrite, storage_options):
                if resume and not is_new() and _is_untouched(table):
                    # The interrupted copy did not record this.
                    table.setChunkSize(usual)
                plans = plan_columns(
                    source,
                    table,
                    chosen,
                    column_provenance("copy", belongs, None, kept_in),
                    overwrite=overwrite,
                    resume=resume,
                    chunk_rows=chunk_rows,
                )
                # Also if the existing copy was interrupted.
                if (
                    table.getRowCount() != schema.rows
                    or RESIZE_ATTR in table.getRatAttributeMapping()
                ):
                    table.setRowCount(schema.rows)
                copying.run(plans)
                made = {plan.name for plan in plans}
                _describe_table(table, source.name, made, schema.attributes, belongs)
                reporter.report(1.0)
    return CopyReport(
        source=source.name,
        target=str(target),
        rows=schema.rows,
        columns=tuple(
            ColumnReport.of(plan.name, plan.stored.dtype, plan.column.type, plan.column.usage)
            for plan in plans
        ),
        bytes_read=sum(copying.bytes_read),
        bytes_stored=copying.bytes_stored,
        seconds=time.perf_counter() - started,
        values_there=copying.rows_there,
    )


def _exists(target: object) -> OutputExistsError:
    return OutputExistsError(
        Advice(
            f"{target} already exists.",
            "Use overwrite=True to replace its columns, append=True to add columns, or "
            "resume=True to continue an interrupted copy.",
        )
    )


def _is_untouched(table: RatZarr) -> bool:
    return table.getRATChunkSize() == DFLT_CHUNKSIZE and not table.getColumnNames()


def _describe_table(
    table: RatZarr,
    raster: str,
    made: AbstractSet[str],
    attributes: Mapping[str, Any],
    belongs: Mapping[str, Any],
) -> None:
    """Record the table's properties and its raster."""
    mapping = table.getRatAttributeMapping()
    recorded = mapping.get(RASTER_ATTR)
    new = dict(attributes)
    # Columns of another origin do not change the table's raster.
    if recorded is None or same_raster(recorded, belongs):
        changed = recorded is not None and bool(raster_changes(recorded, belongs))
        if not changed or made >= set(table.getColumnNames()):
            new[RASTER_ATTR] = dict(belongs)
        else:
            # It has columns of the earlier raster, and only the user knows which raster they fit.
            warn_of_changes(raster, belongs, {str(table.filename): recorded}, stacklevel=4)
    mapping.update(new)


def _is_empty(table: RatZarr) -> bool:
    try:
        return not table.getColumnNames()
    except RatZarrError:
        return False


def _delete(table: RatZarr, storage_options: Mapping[str, Any] | None) -> None:
    with suppress(RatZarrError):
        RatZarr.delete(table.filename, storageOptions=storage_options)
