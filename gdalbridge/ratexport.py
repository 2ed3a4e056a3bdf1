"""Copies of a sidecar's columns into a raster's own attribute table.

Every value is checked before anything is written to a raster whose table can't be built
aside first. Afterwards the raster is opened again and compared with what was to be
written: formats that keep their tables as XML lose digits and blanks, and say nothing.
"""

import os
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr import RatZarr, RatZarrError
from ratzarr.blocks import Block
from ratzarr.casting import exact
from ratzarr.layout import COMPLETE_ATTR

from . import gdaldatetimes
from ._gdal import VERSION
from .blocksizes import MOST, ROOM, memory_of
from .errors import (
    BridgeError,
    ColumnSelectionError,
    ConversionError,
    LossWarning,
    OutputExistsError,
)
from .gdalrat import RatSource, open_rat
from .gdalratwrite import RatSink, open_rat_for_update
from .gdaltypes import COLOUR_USAGES, FieldType, export_type, stored_dtype, type_name, usage_name
from .pipeline import read_ahead
from .progress import Progress, progress_of
from .report import ColumnReport, CopyReport
from .tableattributes import linear_binning, table_type

__all__ = ["copy_to_raster"]

Array = NDArray[Any]

BLOCK_ROWS = 500_000
SHOWN_LOSSES = 3


@dataclass(frozen=True, slots=True)
class _Plan:
    """A column to be copied."""

    key: str
    """Name in the sidecar."""
    name: str
    """Name in the raster."""
    dtype: np.dtype[Any]
    kind: FieldType
    usage: int
    attributes: Mapping[str, Any]
    block_rows: int


def copy_to_raster(
    sidecar: Any,
    raster: Any,
    *,
    band: int = 1,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    cast: Mapping[str, str] | None = None,
    block_rows: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> CopyReport:
    """Copy a sidecar's columns into a raster's own attribute table.

    Parameters
    ----------
    sidecar : str or os.PathLike
        The store; it is only read.
    raster : str, os.PathLike or gdal.Dataset
        A path, or a dataset opened for update. Columns that its table has already are
        kept.
    band : int
        Counted from 1.
    columns : sequence of str, optional
        Only these, in the sidecar's order.
    overwrite : bool
        Write over columns that the raster's table has already.
    cast : mapping of str to str, optional
        GDAL type by column: ``{"id": "Real"}``. Values must still be equal.
    block_rows : int, optional
        Rows per block; by default a chunk.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    CopyReport
        With what the raster's format could not keep, in ``losses``; each is a
        :class:`~gdalbridge.LossWarning` too.

    Raises
    ------
    ConversionError
        Names the column, row and value that GDAL's type can't hold. The raster is as
        it was.
    OutputExistsError
        Where the raster's table has such a column already.
    BridgeError
        For everything else.
    """
    started = time.perf_counter()
    if block_rows is not None and (isinstance(block_rows, bool) or block_rows < 1):
        raise BridgeError(f"block_rows is an integer >= 1: got {block_rows!r}")
    with (
        RatZarr(sidecar, readOnly=True, storageOptions=storage_options) as table,
        open_rat_for_update(raster, band) as sink,
        progress_of(progress) as told,
    ):
        plans = _plan(table, columns, cast or {}, block_rows)
        rows = table.getRowCount()
        name = sink.name
        there = {column.name: column for column in sink.schema.columns}
        _check_target(sink, there, plans, rows, overwrite)
        if sink.writes_through:
            # Nothing can be taken back from such a file: see first that all of it will do.
            for plan in plans:
                for _ in _blocks(table, plan, rows):
                    pass
        losses, written = _write(table, sink, plans, rows, told)
        losses += [loss for loss in sink.commit() if loss not in losses]
        losses += _compare(table, raster, band, written, rows, told)
        told.report(1.0)
    for loss in losses:
        warnings.warn(f"{name}: {loss}", LossWarning, stacklevel=2)
    return CopyReport(
        source=str(sidecar),
        target=name,
        rows=rows,
        columns=tuple(
            ColumnReport(
                plan.key,
                "str" if plan.dtype.kind == "T" else str(plan.dtype),
                type_name(plan.kind),
                usage_name(plan.usage),
            )
            for plan in plans
        ),
        bytes_read=sum(rows * plan.dtype.itemsize for plan in plans),
        bytes_stored=_size_on_disk(raster),
        seconds=time.perf_counter() - started,
        losses=tuple(losses),
    )


def _plan(
    table: RatZarr,
    columns: Sequence[str] | None,
    casts: Mapping[str, str],
    block_rows: int | None,
) -> list[_Plan]:
    there = table.getColumnNames()
    if isinstance(columns, str):
        raise ColumnSelectionError(f"columns is a list of names: got the string {columns!r}")
    for what, names in (("columns", columns or ()), ("cast", casts)):
        for name in names:
            if name not in there:
                raise ColumnSelectionError(
                    f"{what}: {table.filename} has no column {name!r}; it has {there}"
                )
    plans = []
    for key in there if columns is None else [name for name in there if name in columns]:
        attributes = table.getColumnAttributeMapping(key).asdict()
        if attributes.get(COMPLETE_ATTR, True) is False:
            raise BridgeError(f"{table.filename}: column {key!r} is not complete")
        if table.getColumnWidth(key) > 1:
            raise ConversionError(
                f"column {key!r} has {table.getColumnWidth(key)} values per row, and GDAL's tables "
                "have one: leave it out (columns)"
            )
        dtype = table.getColumnDtype(key)
        kind = export_type(key, dtype, attributes, casts.get(key), new_types=VERSION >= (3, 12))
        usage = attributes.get("GDAL_USAGE", 0)
        if not isinstance(usage, int):
            raise BridgeError(f"column {key!r}: its GDAL_USAGE is {usage!r}, not a number")
        if usage in COLOUR_USAGES and kind != FieldType.INTEGER:
            raise ConversionError(
                f"column {key!r} is {type_name(kind)}, and with its usage {usage_name(usage)} GDAL "
                "would make it Integer: ask for Integer (cast), or change its GDAL_USAGE"
            )
        plans.append(
            _Plan(
                key,
                str(attributes.get("GDAL_NAME", key)),
                dtype,
                kind,
                usage,
                attributes,
                block_rows or _block_rows(table.getColumnChunkSize(key), dtype),
            )
        )
    return plans


def _check_target(
    sink: RatSink, there: Mapping[str, Any], plans: Sequence[_Plan], rows: int, overwrite: bool
) -> None:
    for plan in plans:
        column = there.get(plan.name)
        if column is None:
            continue
        if not overwrite:
            raise OutputExistsError(
                f"{sink.name} has a column {plan.name!r} already: overwrite=True (--overwrite) "
                "writes over it"
            )
        if column.type != plan.kind and (plan.kind, column.type) != (
            FieldType.INTEGER,
            FieldType.REAL,
        ):
            raise OutputExistsError(
                f"{sink.name} has a column {plan.name!r} of type {type_name(column.type)}, and "
                f"GDAL can't change that to {type_name(plan.kind)}"
            )
    sink.check_new([(plan.name, plan.usage) for plan in plans if plan.name not in there])
    kept = set(there) - {plan.name for plan in plans}
    now = sink.schema.rows
    if kept and now != rows:
        raise BridgeError(
            f"{sink.name} has a table of {now} rows and the sidecar has {rows}: the raster's "
            f"column {sorted(kept)[0]!r} would no longer fit"
        )


def _block_rows(chunk_rows: int, dtype: np.dtype[Any]) -> int:
    """Return how many rows to read at once: small chunks of numbers several, in parallel."""
    # Chunks of text may be small because their strings are long.
    several = 1 if dtype.kind in "TO" else max(1, BLOCK_ROWS // chunk_rows)
    return min(several * chunk_rows, BLOCK_ROWS)


def _blocks(table: RatZarr, plan: _Plan, rows: int) -> Generator[tuple[Block, Array]]:
    """Yield a column's blocks as its GDAL type takes them, the next ones read ahead."""
    step = plan.block_rows

    def read(block: Block) -> Array:
        return table.readBlock(plan.key, block.start, block.length)

    blocks = (Block(start, min(step, rows - start)) for start in range(0, rows, step))
    reading = read_ahead(blocks, read, threads=MOST, ahead=MOST, size=memory_of, room=ROOM)
    with closing(reading) as ahead:
        for block, values in ahead:
            yield block, _for_gdal(plan, values, block.start)


def _for_gdal(plan: _Plan, values: Array, start: int) -> Array:
    """Return values as :meth:`RatSink.write` takes them, equal to what they were."""
    if plan.kind == FieldType.DATETIME:
        if values.dtype.kind == "T":
            times, offsets = gdaldatetimes.parse(values.tolist(), column=plan.key, first_row=start)
        else:
            times = _checked(plan, values, np.dtype("datetime64[us]"), start)
            east = plan.attributes.get("UTC_OFFSET_MINUTES", 0)
            offsets = np.full(len(times), gdaldatetimes.NAIVE if east is None else east, np.int32)
        return gdaldatetimes.text_for_gdal(times, offsets, column=plan.key, first_row=start)
    if plan.kind == FieldType.STRING:
        return _as_text(plan, values, start)
    return _checked(plan, values, stored_dtype(plan.kind), start)


def _checked(plan: _Plan, values: Array, dtype: np.dtype[Any], start: int) -> Array:
    try:
        return exact(values, dtype, column=plan.key, first_row=start)
    except RatZarrError as error:
        others = {
            FieldType.INTEGER: "Real or String",
            FieldType.REAL: "String",
        }.get(plan.kind, "")
        hint = f"; {others} can be asked for (cast)" if others else ""
        raise ConversionError(f"{error}{hint}") from error


def _as_text(plan: _Plan, values: Array, start: int) -> Array:
    text = stored_dtype(FieldType.STRING)
    if values.dtype.kind == "M":
        iso = np.datetime_as_string(values)
        return np.where(np.isnat(values), "", iso).astype(text)
    if values.dtype.kind in "iufb":
        # Python's own text of a number is the shortest that reads back as the same one.
        return np.array([str(value) for value in values.tolist()], text)
    return _checked(plan, values, text, start)


def _write(
    table: RatZarr, sink: RatSink, plans: Sequence[_Plan], rows: int, told: Progress
) -> tuple[list[str], list[tuple[_Plan, int]]]:
    losses: list[str] = []
    written: list[tuple[_Plan, int]] = []
    if sink.schema.rows != rows:
        sink.set_row_count(rows)
    for done, plan in enumerate(plans):
        # Looked up again each time: a driver may have given a new column another name.
        there = {column.name: column.index for column in sink.schema.columns}
        if plan.name in there and plan.name not in {one.name for one, _ in written}:
            index = there[plan.name]
        else:
            index, changed = sink.create_column(plan.name, plan.kind, plan.usage)
            losses += changed
        written.append((plan, index))
        real = sink.schema.columns[index].type == FieldType.REAL
        for block, values in _blocks(table, plan, rows):
            wide = real and plan.kind == FieldType.INTEGER
            sink.write(index, block.start, values.astype(np.float64) if wide else values)
            told.report((done + block.stop / rows) / len(plans) / 2, plan.key)
    attributes = table.getRatAttributeMapping().asdict()
    kind = table_type(attributes)
    if kind is not None and kind != sink.schema.table_type:
        losses += sink.set_table_type(kind)
    binning = linear_binning(attributes)
    if binning is not None:
        losses += sink.set_linear_binning(*binning)
    return losses, written


def _compare(
    table: RatZarr,
    raster: Any,
    band: int,
    written: Sequence[tuple[_Plan, int]],
    rows: int,
    told: Progress,
) -> list[str]:
    """Return in words what the raster, read again, has otherwise than the sidecar."""
    if not written or not rows:
        return []
    losses = []
    # A dataset that is open shows what GDAL has in memory: its file is another matter.
    again = raster
    if (
        hasattr(raster, "GetRasterBand")
        # A VRT in memory lists its sources, and an HFA's file is whole when it is closed.
        and raster.GetDescription() in (raster.GetFileList() or [])
        and raster.GetDriver().ShortName != "HFA"
    ):
        again = raster.GetDescription()
    with open_rat(again, band) as source:
        attributes = table.getRatAttributeMapping().asdict()
        binning = linear_binning(attributes)
        if binning is not None and not _same_doubles(source.schema.linear_binning, binning):
            losses.append(
                f"the linear binning became {source.schema.linear_binning}, was {binning}"
            )
        kind = table_type(attributes)
        if kind is not None and source.schema.table_type != kind:
            losses.append("the table's type was not kept")
        for done, (plan, index) in enumerate(written):
            found = source.schema.columns[index]
            if found.usage != plan.usage and not any(repr(plan.name) in loss for loss in losses):
                losses.append(
                    f"the usage of column {plan.name!r} became {usage_name(found.usage)}"
                )
            changed = 0
            for block, values in _blocks(table, plan, rows):
                differ = _differences(source, index, plan, block, values)
                rows_lost = np.flatnonzero(differ)
                for row in rows_lost[: max(0, SHOWN_LOSSES - changed)].tolist():
                    now = source.read(index, block.start + row, 1)[0]
                    losses.append(
                        f"column {plan.name!r}, row {block.start + row}: {values[row]!s} "
                        f"became {now!s}"
                    )
                changed += len(rows_lost)
                told.report(0.5 + (done + block.stop / rows) / len(written) / 2, plan.key)
            if changed > SHOWN_LOSSES:
                losses.append(f"column {plan.name!r}: {changed} of {rows} values changed in all")
    return losses


def _same_doubles(one: tuple[float, float] | None, other: tuple[float, float]) -> bool:
    return one is not None and np.array(one).tobytes() == np.array(other).tobytes()


def _differences(
    source: RatSource, index: int, plan: _Plan, block: Block, values: Array
) -> NDArray[np.bool_]:
    if plan.kind == FieldType.DATETIME:
        return np.asarray(source.read_datetime_text(index, block.start, block.length) != values)
    now = source.read(index, block.start, block.length)
    if now.dtype.kind == "f":
        # Every bit counts, of NaN as well.
        return np.asarray(now.view("u8") != values.astype(np.float64).view("u8"))
    return np.asarray(now != values)


def _size_on_disk(raster: Any) -> int:
    if hasattr(raster, "GetRasterBand"):
        names = raster.GetFileList() or []
    else:
        name = os.fspath(raster)
        names = [name, name + ".aux.xml"]
    return sum(Path(name).stat().st_size for name in names if Path(name).exists())
