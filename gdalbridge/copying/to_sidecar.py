"""Copies of a raster's attribute table into a sidecar.

GDAL is read in one thread while earlier blocks are packed and written in others. A column is marked
incomplete until its last block is written. A copy that was interrupted, even by a killed process, can
be resumed: the store itself says which columns and blocks are complete.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from gdalbridge.copying.plan import GDAL_NAME_ATTR, Action, Choice, Plan, choose, plan_columns
from gdalbridge.copying.report import ColumnReport, CopyReport
from gdalbridge.errors import BridgeError, CancelledError, OutputExistsError
from gdalbridge.gdalio.field_types import FieldUsage, type_name, usage_attributes, usage_name
from gdalbridge.gdalio.rat_reader import RatSource, open_rat, unique_names
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.gdalio.table_attributes import table_attributes
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.fingerprint import table_source
from gdalbridge.sidecars.naming import writable_sidecar_path
from gdalbridge.sidecars.provenance import (
    PROVENANCE_ATTR,
    RASTER_ATTR,
    column_provenance,
    raster_attribute,
    raster_changes,
    same_raster,
)
from gdalbridge.sidecars.staleness import warn_of_changes
from ratzarr import (
    DFLT_CHUNKSIZE,
    ConflictError,
    RatZarr,
    RatZarrError,
    StoreError,
    UnequalValueError,
)
from ratzarr.errors import Advice
from ratzarr.format import RESIZE_ATTR, Block
from ratzarr.pipeline import PROCESSORS, ROOM, at_once, is_far, memory_of, read_ahead, write_behind

__all__ = [
    "INTERRUPTIONS",
    "Copied",
    "copy_columns",
    "copy_to_sidecar",
]


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


SHORTEST_CHUNK = 1024


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
        Where to; by default beside the raster (:func:`~gdalbridge.sidecar_path`).
    band : int
        Counted from 1.
    name : str, optional
        Name of a further table.
    columns : sequence of str, optional
        Only these, in the table's own order.
    overwrite : bool
        Replace columns that the sidecar has already. Each can be read as it was until the
        new one is complete, which takes space for both; on S3 the server then copies the
        new one into place, with a request for each chunk, and in that short time the
        column says that it is not complete. The sidecar's other columns are kept.
    append : bool
        Add to a sidecar that is there already.
    resume : bool
        Go on with a copy that was interrupted: columns that it has finished are passed
        over, of others only the blocks that are missing are copied. Where nothing is
        there, a copy like any other.
    block_rows, chunk_rows : int, optional
        Rows per block and per chunk; blocks are made of whole chunks. By default the
        store's chunk size, and fewer for columns of long strings.
    encoding : str, optional
        Of text and names in the raster's own table; by default UTF-8, or as its
        ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table also where GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`; they go for a raster on S3 as well.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    CopyReport

    Warns
    -----
    StaleWarning
        Where only some columns of a sidecar are copied, and the others are of the raster as it
        was before it changed.

    Raises
    ------
    OutputExistsError
        Where the sidecar, or a column in it, is there already and may not be.
    ColumnSelectionError
        Where a column that was asked for is not in the raster's table.
    CancelledError
        Where the progress said so. What is finished stays, a column that is not says so,
        and ``resume=True`` goes on. It is the same with Ctrl-C, and where the sidecar's
        disk or server fails (:class:`ratzarr.StoreError`).
    GdalLossError
        Where GDAL lost or altered values of the table, with its own words.
    BridgeError
        For everything else; with ``resume=True`` also where the raster's table is not the
        one that the interrupted copy was of, or a column there comes from elsewhere: it
        says what differs. A column that was begun by this call and could not be finished
        is removed again, and so is all that it has written to a sidecar that was not there
        before.
    """
    started = time.perf_counter()
    target = sidecar if sidecar is not None else writable_sidecar_path(raster, band, name)
    for what, value in (("block_rows", block_rows), ("chunk_rows", chunk_rows)):
        if value is not None and (isinstance(value, bool) or value < 1):
            raise BridgeError(f"{what} is an integer >= 1: got {value!r}")
    reading = ReadOptions(encoding, lossy)
    with open_rat(raster, band, storage_options, reading) as source, progress_of(progress) as told:
        schema = source.schema
        belongs = raster_attribute(source.dataset, band, target)
        choices = _choices(source, columns, belongs)
        is_new = not RatZarr.exists(target, storageOptions=storage_options)
        if is_new:
            # What can't be copied is found out before anything is written.
            for choice in choices:
                source.stored(choice.column.index)
        elif not (overwrite or append or resume):
            raise OutputExistsError(
                Advice(
                    f"{target} already exists.",
                    "Use overwrite=True to replace its columns, append=True to add columns, or "
                    "resume=True to continue an interrupted copy.",
                )
            )
        done: list[Copied] = []
        with (
            RatZarr(target, storageOptions=storage_options) as table,
            _sound_if_it_fails(table, is_new, overwrite, done, storage_options),
        ):
            _set_chunk_size(table, is_new, resume, chunk_rows, schema.rows)
            plans = plan_columns(
                source,
                table,
                choices,
                overwrite=overwrite,
                resume=resume,
                chunk_rows=chunk_rows,
            )
            # Also where that was begun, and interrupted.
            if table.getRowCount() != schema.rows or RESIZE_ATTR in table.getRatAttributeMapping():
                table.setRowCount(schema.rows)
            copy_columns(source, table, plans, block_rows, told, done)
            made = {plan.name for plan in plans}
            _describe_table(table, source.name, made, table_attributes(schema), belongs)
            told.report(1.0)
    return CopyReport(
        source=source.name,
        target=str(target),
        rows=schema.rows,
        columns=tuple(
            ColumnReport(
                plan.name,
                "str" if plan.stored.dtype.kind == "T" else str(plan.stored.dtype),
                type_name(plan.column.type),
                usage_name(plan.column.usage),
            )
            for plan in plans
        ),
        bytes_read=sum(copied.bytes_read for copied in done),
        bytes_stored=sum(copied.bytes_stored for copied in done),
        seconds=time.perf_counter() - started,
        values_there=sum(copied.rows_there for copied in done),
    )


def _choices(
    source: RatSource, columns: Sequence[str] | None, belongs: Mapping[str, Any]
) -> list[Choice]:
    schema = source.schema
    names = unique_names(schema.columns)
    kept_in = table_source(source.dataset, schema)
    return [
        Choice(
            column, names[column.index], column_provenance("copy", belongs, column.name, kept_in)
        )
        for column in choose(schema.columns, columns, source.name)
    ]


def _set_chunk_size(
    table: RatZarr, is_new: bool, resume: bool, chunk_rows: int | None, rows: int
) -> None:
    # The copy that is gone on with may not have come so far.
    untouched = table.getRATChunkSize() == DFLT_CHUNKSIZE and not table.getColumnNames()
    if is_new or (resume and untouched):
        # A chunk is packed and read as a whole: no longer than a short table.
        table.setChunkSize(chunk_rows or min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, rows)))


def _describe_table(
    table: RatZarr,
    raster: str,
    made: AbstractSet[str],
    attributes: Mapping[str, Any],
    belongs: Mapping[str, Any],
) -> None:
    """Write down what the table is, and which raster it belongs to."""
    mapping = table.getRatAttributeMapping()
    recorded = mapping.get(RASTER_ATTR)
    new = dict(attributes)
    # Columns that come from elsewhere don't make it another raster's table.
    if recorded is None or same_raster(recorded, belongs):
        changed = recorded is not None and bool(raster_changes(recorded, belongs))
        if not changed or made >= set(table.getColumnNames()):
            new[RASTER_ATTR] = dict(belongs)
        else:
            # It has columns of the raster as it was. Which of the two it fits is not ours to say.
            warn_of_changes(raster, belongs, {str(table.filename): recorded}, stacklevel=4)
    mapping.update(new)


@contextmanager
def _sound_if_it_fails(
    table: RatZarr,
    is_new: bool,
    overwrite: bool,
    done: Sequence[Copied],
    storage_options: Mapping[str, Any] | None,
) -> Iterator[None]:
    """Leave what can be gone on with after an interruption, else nothing of a new sidecar."""
    try:
        yield
    except INTERRUPTIONS as error:
        if is_new and _is_empty(table):
            _delete(table, storage_options)
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
        if is_new:
            # Nothing that another process has put there in the meantime goes with it.
            with suppress(RatZarrError):
                for copied in done:
                    table.deleteColumn(copied.plan.name)
                if _is_empty(table):
                    _delete(table, storage_options)
        raise


def _is_empty(table: RatZarr) -> bool:
    try:
        return not table.getColumnNames()
    except RatZarrError:
        return False


def _delete(table: RatZarr, storage_options: Mapping[str, Any] | None) -> None:
    with suppress(RatZarrError):
        RatZarr.delete(table.filename, storageOptions=storage_options)
