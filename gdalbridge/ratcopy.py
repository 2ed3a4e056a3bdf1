"""Copies of a raster attribute table, from a raster to a sidecar.

Column by column, in blocks of whole chunks: GDAL is read in one thread, the next blocks
while the last ones are packed and written in others. A column says that it is not
complete until its last block is there, so an interrupted copy is never taken for a
finished one.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError
from ratzarr.blocks import Block

from .errors import BridgeError, CancelledError, ColumnSelectionError, OutputExistsError
from .gdalrat import RatColumn, RatSource, StoredColumn, open_rat
from .gdaltypes import FieldType, type_name, usage_name
from .pipeline import read_ahead, write_behind
from .progress import Progress, progress_of
from .report import ColumnReport, CopyReport
from .sidecar import writable_sidecar_path
from .tableattributes import table_attributes

__all__ = ["copy_to_sidecar"]

WRITERS = 2
"""Blocks that are packed and written at once; of text one, as packing it takes 10 times its
size in memory, and the interpreter's lock for most of the time."""
CAN_BE_REFUSED = frozenset({FieldType.STRING, FieldType.DATETIME})
"""Types of which a value may be one that can't be stored: no UTF-8, no such date."""
CHUNK_BYTES = 64 * 2**20
"""A chunk of text, unpacked, should not be larger: several are in memory at once."""
SHORTEST_CHUNK = 1024
ROW_OVERHEAD = 64
"""Bytes per string or bytes object in memory, besides its characters."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A column to be copied."""

    column: RatColumn
    name: str
    stored: StoredColumn
    chunk_rows: int


def copy_to_sidecar(
    raster: Any,
    sidecar: Any = None,
    *,
    band: int = 1,
    name: str | None = None,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    append: bool = False,
    block_rows: int | None = None,
    chunk_rows: int | None = None,
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
        Replace columns that the sidecar has already. Its other columns are kept.
    append : bool
        Add to a sidecar that is there already.
    block_rows, chunk_rows : int, optional
        Rows per block and per chunk; blocks are made of whole chunks. By default the
        store's chunk size, and fewer for columns of long strings.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    CopyReport

    Raises
    ------
    OutputExistsError
        Where the sidecar, or a column in it, is there already and may not be.
    ColumnSelectionError
        Where a column that was asked for is not in the raster's table.
    CancelledError
        Where the progress said so. Finished columns stay, an unfinished one says that
        it is.
    BridgeError
        For everything else. A column that could not be finished is removed again, and so
        is all that this call has written to a sidecar that was not there before.
    """
    started = time.perf_counter()
    target = sidecar if sidecar is not None else writable_sidecar_path(raster, band, name)
    for what, value in (("block_rows", block_rows), ("chunk_rows", chunk_rows)):
        if value is not None and (isinstance(value, bool) or value < 1):
            raise BridgeError(f"{what} is an integer >= 1: got {value!r}")
    with open_rat(raster, band) as source, progress_of(progress) as told:
        schema = source.schema
        chosen = choose(schema.columns, columns, source.name)
        names = unique_names(schema.columns)
        is_new = not RatZarr.exists(target, storageOptions=storage_options)
        if not is_new and not (overwrite or append):
            raise OutputExistsError(
                f"{target} is there already: overwrite=True (--overwrite) replaces columns in it, "
                "append=True (--append) adds columns to it"
            )
        # A type that is not known, or a date that can't be kept, is found out before anything
        # is written; text that is no UTF-8 only when it is read.
        stored = {column.index: source.stored(column.index) for column in chosen}
        copied: list[str] = []
        with RatZarr(target, storageOptions=storage_options) as table:
            try:
                _check_fit(table, schema.rows, [names[c.index] for c in chosen], overwrite)
                if table.getRowCount() != schema.rows:
                    table.setRowCount(schema.rows)
                if is_new:
                    # A chunk is packed and read as a whole: no longer than a short table.
                    usual = min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, schema.rows))
                    table.setChunkSize(chunk_rows or usual)
                plans = [
                    _Plan(
                        column,
                        names[column.index],
                        stored[column.index],
                        chunk_rows
                        or _chunk_rows(
                            source, column, stored[column.index], table.getRATChunkSize()
                        ),
                    )
                    for column in chosen
                ]
                bytes_read = bytes_stored = 0
                for done, plan in enumerate(plans):
                    share = _Share(told, done, len(plans))
                    bytes_read += _copy_column(source, table, plan, block_rows, share)
                    bytes_stored += table.bytesWritten(plan.name)
                    copied.append(plan.name)
                table.getRatAttributeMapping().update(table_attributes(schema))
            except (CancelledError, KeyboardInterrupt):
                raise
            except Exception:
                if is_new:
                    # Nothing that another process has put there in the meantime goes with it.
                    with suppress(RatZarrError):
                        for done_name in copied:
                            table.deleteColumn(done_name)
                        if not table.getColumnNames():
                            RatZarr.delete(target, storageOptions=storage_options)
                raise
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
        bytes_read=bytes_read,
        bytes_stored=bytes_stored,
        seconds=time.perf_counter() - started,
    )


def choose(
    columns: Sequence[RatColumn], wanted: Sequence[str] | None, where: str
) -> list[RatColumn]:
    """Return the columns of these names, all of them by default.

    Raises
    ------
    ColumnSelectionError
        Names what is not there, and what is.
    """
    if wanted is None:
        return list(columns)
    if isinstance(wanted, str):
        raise ColumnSelectionError(f"columns is a list of names: got the string {wanted!r}")
    there = [column.name for column in columns]
    for name in wanted:
        if name not in there:
            raise ColumnSelectionError(f"{where} has no column {name!r}; it has {there}")
    return [column for column in columns if column.name in wanted]


def unique_names(columns: Iterable[RatColumn]) -> dict[int, str]:
    """Return a name for each column's index, no two the same and none empty.

    GDAL allows both; where a name has to be made up, GDAL's own is kept in the
    attribute ``GDAL_NAME``.
    """
    columns = list(columns)
    taken = {column.name for column in columns}
    names: dict[int, str] = {}
    for column in columns:
        name = column.name
        if not name or name in names.values():
            base = name or "column"
            number = column.index + 1 if not name else 2
            name = f"{base} {number}"
            while name in taken or name in names.values():
                number += 1
                name = f"{base} {number}"
        names[column.index] = name
    return names


def _check_fit(table: RatZarr, rows: int, names: Sequence[str], overwrite: bool) -> None:
    there = table.getColumnNames()
    both = [name for name in names if name in there]
    if both and not overwrite:
        raise OutputExistsError(
            f"{table.filename} has a column {both[0]!r} already: overwrite=True (--overwrite) replaces it"
        )
    kept = [name for name in there if name not in names]
    if kept and table.getRowCount() != rows:
        raise BridgeError(
            f"{table.filename} has {table.getRowCount()} rows and the raster's table has {rows}: "
            f"its column {kept[0]!r} would no longer fit"
        )


def _chunk_rows(source: RatSource, column: RatColumn, stored: StoredColumn, default: int) -> int:
    """Return fewer rows than the default for a column of long strings."""
    if stored.dtype.kind not in "TO":
        return default
    rows = source.schema.rows
    length = seen = 0
    for start in {0, max(0, rows // 2), max(0, rows - 500)}:
        sample = source.read(column.index, start, min(500, rows - start))
        seen += len(sample)
        length += sum(map(len, sample.tolist()))
    each = ROW_OVERHEAD + (length / seen if seen else 0)
    return int(min(default, max(1000, CHUNK_BYTES // each)))


class _Share:
    """The share of the whole work's progress that one column is."""

    def __init__(self, told: Progress, done: int, columns: int) -> None:
        self._told, self._done, self._columns = told, done, columns

    def report(self, fraction: float, message: str) -> None:
        self._told.report((self._done + fraction) / self._columns, message)


def _copy_column(
    source: RatSource, table: RatZarr, plan: _Plan, block_rows: int | None, share: _Share
) -> int:
    """Copy one column; return its size in memory."""
    rows = source.schema.rows
    step = plan.chunk_rows * max(1, -(-(block_rows or 0) // plan.chunk_rows))
    blocks = [Block(start, min(step, rows - start)) for start in range(0, rows, step)]
    share.report(0.0, plan.name)
    if table.colExists(plan.name):
        if plan.column.type in CAN_BE_REFUSED:
            # The old column goes before the new one is there: see first that all of it will do.
            for block in blocks:
                source.read(plan.column.index, block.start, block.length)
        table.deleteColumn(plan.name)
    attributes = dict(plan.stored.attributes)
    if plan.name != plan.column.name:
        attributes["GDAL_NAME"] = plan.column.name
    usual = table.getRATChunkSize()
    table.createColumn(
        plan.name,
        plan.stored.dtype,
        attributes=attributes,
        complete=False,
        chunkSize=plan.chunk_rows if plan.chunk_rows != usual else None,
    )
    try:
        size = _copy_blocks(source, table, plan, blocks, share)
    except (CancelledError, KeyboardInterrupt):
        raise
    except Exception:
        with suppress(RatZarrError):
            table.deleteColumn(plan.name)
        raise
    table.setComplete(plan.name)
    return size


def _copy_blocks(
    source: RatSource, table: RatZarr, plan: _Plan, blocks: Sequence[Block], share: _Share
) -> int:
    sizes: list[int] = []

    def read(block: Block) -> NDArray[Any]:
        return source.read(plan.column.index, block.start, block.length)

    def write(block: Block, values: NDArray[Any]) -> None:
        sizes.append(values.nbytes)
        table.writeBlock(plan.name, values, block.start)

    threads = 1 if plan.stored.dtype.kind in "TO" else WRITERS
    with (
        closing(read_ahead(blocks, read, ahead=threads)) as reading,
        closing(write_behind(reading, write, threads=threads, behind=threads)) as written,
    ):
        for block in written:
            share.report(block.stop / source.schema.rows, plan.name)
    return sum(sizes)
