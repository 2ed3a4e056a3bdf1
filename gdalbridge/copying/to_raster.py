"""Copy a sidecar's columns into a raster's own attribute table.

Values are checked before they are written. Afterwards the raster is opened again and compared with
the sidecar: every value if the format stores text (XML silently loses digits and blanks),
otherwise the borders of the blocks.
"""

import os
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.compare import Borders, compare
from gdalbridge.copying.plan import GDAL_NAME_ATTR, check_names
from gdalbridge.copying.raster_blocks import ExportPlan, blocks, check_all, rows_per_block
from gdalbridge.copying.replica import replica
from gdalbridge.copying.report import ColumnReport, CopyReport
from gdalbridge.errors import (
    BridgeError,
    ConversionError,
    LossWarning,
    NotWrittenError,
    OutputExistsError,
    SidecarNameError,
)
from gdalbridge.gdalio.aux_xml import older_gdal_note
from gdalbridge.gdalio.compat import NEW_TYPES
from gdalbridge.gdalio.datasets import open_dataset, opened
from gdalbridge.gdalio.field_types import (
    COLOUR_USAGES,
    FieldType,
    export_type,
    linear_binning,
    table_type,
    type_name,
    usage_name,
)
from gdalbridge.gdalio.own_table import DBF_SUFFIX, dbf_beside
from gdalbridge.gdalio.rat_reader import RatColumn
from gdalbridge.gdalio.rat_writer import RatSink, keeps_values, open_rat_for_update
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.column_access import readable_columns
from gdalbridge.sidecars.naming import find_sidecars
from gdalbridge.sidecars.provenance import RASTER_ATTR, raster_attribute
from gdalbridge.sidecars.staleness import refuse_stale, same_raster
from ratzarr import ArgumentError, RatZarr
from ratzarr.errors import Advice
from ratzarr.format import Block, chunk_count, is_complete
from ratzarr.stores import parse as parse_location
from ratzarr.stores import sweep_leftovers

__all__ = ["copy_to_raster"]


def copy_to_raster(
    sidecar: Any,
    raster: Any,
    *,
    band: int = 1,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    cast: Mapping[str, str] | None = None,
    block_rows: int | None = None,
    verify: bool | None = None,
    lossy: bool = False,
    strict: bool = False,
    accept_stale: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> CopyReport:
    """Copy a sidecar's columns into a raster's own attribute table.

    Parameters
    ----------
    sidecar : str or os.PathLike
        The store; it is only read.
    raster : str, os.PathLike or gdal.Dataset
        A path, or a dataset opened for update. The table's existing columns are kept.
    band : int
        Counted from 1.
    columns : sequence of str, optional
        Only these, in the sidecar's order.
    overwrite : bool
        Overwrite columns that the raster's table already has.
    cast : mapping of str to str, optional
        GDAL type by column: ``{"id": "Real"}``. Values must still be equal.
    block_rows : int, optional
        Rows per block; by default a chunk.
    verify : bool, optional
        How to compare the raster, read again, with the sidecar. True compares every value; False
        compares names, types and usages only. By default every value is compared, except in
        rasters that preserve each value that they accept (in memory, HFA, KEA): there, the first
        and last rows of blocks spread over each column.
    lossy : bool
        Write even if GDAL lost or altered values of the raster's existing table. It is then
        written again without them.
    strict : bool
        Turn every loss into an error, and leave the raster unchanged. The export works on a copy
        of the raster's files in its directory, then moves it into place. This needs a raster on a
        local disk, given by its path.
    accept_stale : bool
        Continue even if the raster has changed since the sidecar was made.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    CopyReport
        Its ``losses`` describe values that the raster's format could not keep; each is a
        :class:`~gdalbridge.LossWarning` too. Its ``notes`` describe the view of other software: a
        table that GDAL before 3.12 cannot see, or a ``.vat.dbf`` with a different table.

    Raises
    ------
    ConversionError
        Names the column, the row, and the value that GDAL's type cannot hold. The raster is
        unchanged.
    NotWrittenError
        If the format does not keep the table, or with ``strict``, not exactly.
    OutputExistsError
        If the raster's table already has such a column.
    StaleError
        If the sidecar is beside the raster or names it, but was made for an earlier state of it:
        see :func:`gdalbridge.touch`. Another raster is not compared.
    BridgeError
        For other failures.
    """
    started = time.perf_counter()
    if block_rows is not None and (isinstance(block_rows, bool) or block_rows < 1):
        raise BridgeError(f"block_rows is an integer >= 1: got {block_rows!r}")
    if strict and verify is False:
        raise BridgeError(Advice("strict compares all values.", "Leave out verify=False."))
    if isinstance(raster, str | os.PathLike):
        sweep_leftovers(Path(os.fspath(raster)).parent)
    shown = None if hasattr(raster, "GetRasterBand") else os.fspath(raster)
    with (
        RatZarr(sidecar, readOnly=True, storageOptions=storage_options) as table,
        replica(raster) if strict else nullcontext() as copy,
        open_rat_for_update(
            raster if copy is None else copy.path, band, ReadOptions(lossy=lossy), shown=shown
        ) as sink,
        progress_of(progress) as reporter,
    ):
        target = raster if copy is None else copy.path
        if not accept_stale:
            # For the raster itself, because the copy is in another place.
            seen = sink.dataset if copy is None else open_dataset(raster)
            _check_fit(table, raster, seen, sink.name, band)
            # An HFA is complete when the last reference to it is released.
            del seen
        plans = _plan(table, columns, cast or {}, block_rows)
        if sink.is_hfa:
            plans = [replace(plan, is_colour=plan.usage in COLOUR_USAGES) for plan in plans]
        rows = table.getRowCount()
        name, exact = sink.name, keeps_values(sink.dataset)
        there = _numbered(sink.schema.columns)
        _check_target(sink, there, plans, rows, overwrite)
        longest: dict[str, tuple[int, NDArray[Any]] | None] = {}
        if sink.writes_through:
            # Changes to such a file cannot be undone, so check all values first.
            longest = {plan.key: check_all(table, plan, rows) for plan in plans}
        losses, written = _write(table, sink, plans, rows, longest, reporter)
        losses += sink.commit()
        with opened(_file_of(target)) as again:
            losses += compare(
                table,
                again,
                band,
                written,
                reporter,
                every=verify if verify is not None else not exact,
                values=verify is not False,
            )
            notes = _notes(again, name, band, plans)
        if copy is not None:
            if losses:
                raise NotWrittenError(f"{name} was left unchanged: {'; '.join(losses)}")
            copy.put_back()
        reporter.report(1.0)
    for loss in losses:
        warnings.warn(f"{name}: {loss}", LossWarning, stacklevel=2)
    return CopyReport(
        source=str(sidecar),
        target=name,
        rows=rows,
        columns=tuple(
            ColumnReport.of(plan.key, plan.dtype, plan.kind, plan.usage) for plan in plans
        ),
        bytes_read=sum(rows * plan.dtype.itemsize for plan in plans),
        bytes_stored=_size_on_disk(raster),
        seconds=time.perf_counter() - started,
        losses=tuple(losses),
        notes=notes,
    )


def _file_of(raster: Any) -> Any:
    """Return the file of an open dataset, which shows GDAL's memory; or what can't be reopened."""
    if (
        hasattr(raster, "GetRasterBand")
        # A VRT in memory lists only its sources, and an HFA file is complete only when it is
        # closed.
        and raster.GetDescription() in (raster.GetFileList() or [])
        and raster.GetDriver().ShortName != "HFA"
    ):
        return raster.GetDescription()
    return raster


def _notes(dataset: Any, name: str, band: int, plans: Sequence[ExportPlan]) -> tuple[str, ...]:
    """Return notes on other software's view of a written table."""
    if not dataset.GetDescription():
        return ()
    notes = []
    other = dbf_beside(dataset)
    if other is not None:
        ending = other[-len(DBF_SUFFIX) :]
        notes.append(
            f"{name}{ending} holds another table: GDAL shows the one in the raster, ArcGIS may "
            "show the other. Remove it, or rename it"
        )
    older = older_gdal_note(dataset, band, name)
    new = [plan for plan in plans if plan.kind > FieldType.STRING]
    if older is not None:
        notes.append(older)
    elif new:
        columns = ", ".join(f"{plan.name!r} ({type_name(plan.kind)})" for plan in new)
        notes.append(f"GDAL before 3.12 can't read {columns}: cast to Integer or String for it")
    return tuple(notes)


def _check_fit(table: RatZarr, raster: Any, dataset: Any, name: str, band: int) -> None:
    recorded = table.getRatAttributeMapping().get(RASTER_ATTR)
    if recorded is None:
        return
    now = raster_attribute(dataset, band, table.filename)
    if same_raster(recorded, now) or _lies_beside(raster, band, table.filename):
        refuse_stale(name, now, {str(table.filename): recorded})


def _lies_beside(raster: Any, band: int, sidecar: Any) -> bool:
    # A raster in memory has no files beside it, and a zarr store has no path.
    with suppress(SidecarNameError, ArgumentError, TypeError):
        place = parse_location(sidecar)
        return any(parse_location(one.path) == place for one in find_sidecars(raster, band))
    return False


def _plan(
    table: RatZarr,
    columns: Sequence[str] | None,
    casts: Mapping[str, str],
    block_rows: int | None,
) -> list[ExportPlan]:
    there = table.getColumnNames()
    for what, names in (("columns", columns or ()), ("cast", casts)):
        check_names(what, names, there, f"{what}: {table.filename}")
    plans = []
    chosen = (
        readable_columns(table, there)
        if columns is None
        else [name for name in there if name in columns]
    )
    numbers = _numbers(table, there, chosen)
    for key in chosen:
        attributes = table.getColumnAttributeMapping(key).asdict()
        if not is_complete(attributes):
            raise BridgeError(f"{table.filename}: column {key!r} is not complete")
        if table.getColumnWidth(key) > 1:
            raise ConversionError(
                Advice(
                    f"column {key!r} has {table.getColumnWidth(key)} values per row, and GDAL's "
                    "tables have one.",
                    "Choose other columns with columns=...",
                )
            )
        dtype = table.getColumnDtype(key)
        kind = export_type(key, dtype, attributes, casts.get(key), new_types=NEW_TYPES)
        usage = attributes.get("GDAL_USAGE", 0)
        if not isinstance(usage, int):
            raise BridgeError(f"column {key!r}: its GDAL_USAGE is {usage!r}, not a number")
        if usage in COLOUR_USAGES and kind != FieldType.INTEGER:
            raise ConversionError(
                Advice(
                    f"column {key!r} is {type_name(kind)}, and with its usage {usage_name(usage)} "
                    "GDAL would make it Integer.",
                    "Ask for Integer with cast=..., or change its GDAL_USAGE.",
                )
            )
        plans.append(
            ExportPlan(
                key,
                _gdal_name(table, key),
                numbers[key],
                dtype,
                kind,
                usage,
                attributes,
                block_rows or rows_per_block(table.getColumnChunkSize(key), dtype),
            )
        )
    return plans


def _gdal_name(table: RatZarr, key: str) -> str:
    return str(table.getColumnAttributeMapping(key).get(GDAL_NAME_ATTR, key))


def _numbers(table: RatZarr, there: Sequence[str], chosen: Sequence[str]) -> dict[str, int]:
    """Return for each column the number of earlier ones that have the same name in GDAL."""
    if all(_gdal_name(table, key) == key for key in chosen):
        return dict.fromkeys(chosen, 0)
    # This call opens all columns in parallel.
    unreadable = table.getUnreadableColumns(there)
    counted, found = Counter[str](), {}
    for key in there:
        if key not in unreadable:
            name = _gdal_name(table, key)
            found[key] = counted[name]
            counted[name] += 1
    return found


def _numbered(columns: Iterable[RatColumn]) -> dict[tuple[str, int], RatColumn]:
    """Return columns by name and the number of earlier columns of that name."""
    counted, found = Counter[str](), {}
    for column in columns:
        found[column.name, counted[column.name]] = column
        counted[column.name] += 1
    return found


def _check_target(
    sink: RatSink,
    there: Mapping[tuple[str, int], RatColumn],
    plans: Sequence[ExportPlan],
    rows: int,
    overwrite: bool,
) -> None:
    for plan in plans:
        column = there.get((plan.name, plan.number))
        if column is None:
            continue
        if not overwrite:
            raise OutputExistsError(
                Advice(
                    f"{sink.name} has a column {plan.name!r} already.",
                    "Use overwrite=True to write over it.",
                )
            )
        if column.type != plan.kind and (plan.kind, column.type) != (
            FieldType.INTEGER,
            FieldType.REAL,
        ):
            raise OutputExistsError(
                f"{sink.name} has a column {plan.name!r} of type {type_name(column.type)}, and "
                f"GDAL can't change that to {type_name(plan.kind)}"
            )
    new, changed = (
        [
            (one.name, one.kind, one.usage)
            for one in plans
            if ((one.name, one.number) in there) == old
        ]
        for old in (False, True)
    )
    sink.check_columns(new, changed)
    kept = set(there) - {(plan.name, plan.number) for plan in plans}
    now = sink.schema.rows
    if kept and now != rows:
        raise BridgeError(
            f"{sink.name or 'the raster'} has a table of {now} rows and the sidecar has {rows}: "
            f"the raster's column {min(kept)[0]!r} would no longer fit"
        )


def _write(
    table: RatZarr,
    sink: RatSink,
    plans: Sequence[ExportPlan],
    rows: int,
    longest: Mapping[str, tuple[int, NDArray[Any]] | None],
    reporter: Progress,
) -> tuple[list[str], list[tuple[ExportPlan, int, Borders]]]:
    losses: list[str] = []
    written: list[tuple[ExportPlan, int, Borders]] = []
    existing = _numbered(sink.schema.columns).keys()
    if sink.schema.rows != rows:
        sink.set_row_count(rows)
    # Read the next column while one is written.
    with closing(blocks(table, plans, rows)) as reading:
        for done, plan in enumerate(plans):
            # Look it up each time, because a driver may rename a new column.
            place = plan.name, plan.number
            if place in existing:
                index = _numbered(sink.schema.columns)[place].index
                sink.expect_usage(index, plan.usage)
            else:
                index = sink.create_column(plan.name, plan.kind, plan.usage)
            count = chunk_count(rows, plan.block_rows)
            borders = Borders(count)
            written.append((plan, index, borders))
            if (first := longest.get(plan.key)) is not None:
                # HFA rewrites a whole column whenever a longer text arrives.
                sink.write(index, *first, is_text=True)
            # Some drivers have no Integer columns, and make them Real.
            real = sink.schema.columns[index].type == FieldType.REAL
            for block, pieces in islice(reading, count):
                _write_block(sink, index, plan, block, pieces, real=real)
                borders.put(block, pieces)
                reporter.report((done + block.stop / rows) / len(plans) / 2, plan.key)
    attributes = table.getRatAttributeMapping().asdict()
    kind = table_type(attributes)
    if kind is not None and kind != sink.schema.table_type:
        losses += sink.set_table_type(kind)
    binning = linear_binning(attributes)
    if binning is not None:
        losses += sink.set_linear_binning(*binning)
    return losses, written


def _write_block(
    sink: RatSink,
    index: int,
    plan: ExportPlan,
    block: Block,
    pieces: Sequence[NDArray[Any]],
    *,
    real: bool,
) -> None:
    start = block.start
    for piece in pieces:
        values = piece.astype(np.float64) if real and plan.kind == FieldType.INTEGER else piece
        sink.write(index, start, values, is_text=plan.kind == FieldType.STRING)
        start += len(piece)


def _size_on_disk(raster: Any) -> int:
    if hasattr(raster, "GetRasterBand"):
        names = raster.GetFileList() or []
    else:
        name = os.fspath(raster)
        names = [name, name + ".aux.xml"]
    return sum(Path(name).stat().st_size for name in names if Path(name).exists())
