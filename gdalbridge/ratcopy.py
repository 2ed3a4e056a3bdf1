"""Copies of a raster attribute table, from a raster to a sidecar.

What is to be done with each column is decided first, then done, block after block. A copy
that was interrupted, even by a killed process, can be gone on with: what its finished
columns and blocks are is seen from the store itself.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from typing import Any

from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError
from ratzarr.errors import Advice
from ratzarr.layout import RESIZE_ATTR

from .columncopy import INTERRUPTIONS, Copied, copy_columns
from .copyplan import Choice, choose, plan_columns, unique_names
from .errors import BridgeError, OutputExistsError
from .fingerprint import table_source
from .gdalrat import RatSource, open_rat
from .gdaltypes import type_name, usage_name
from .progress import progress_of
from .provenance import (
    RASTER_ATTR,
    column_provenance,
    raster_attribute,
    raster_changes,
    same_raster,
)
from .read_options import ReadOptions
from .report import ColumnReport, CopyReport
from .sidecar import writable_sidecar_path
from .staleness import warn_of_changes
from .tableattributes import table_attributes

__all__ = ["copy_to_sidecar"]

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
