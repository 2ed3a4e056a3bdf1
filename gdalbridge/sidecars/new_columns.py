"""Create new columns in a table's sidecar, block by block. After an error they are deleted.

Other readers see a new column, or the replacement of an old one, when it is complete.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, LossWarning, OutputExistsError
from gdalbridge.gdalio.field_types import kept_usage, usage_attributes, usage_in, usage_name
from gdalbridge.sidecars.merged import Column, Columns, is_store
from gdalbridge.sidecars.naming import sidecar_dir_advised, writable_sidecar_path
from gdalbridge.sidecars.provenance import RASTER_ATTR, column_provenance
from gdalbridge.sidecars.staleness import parsed_raster
from gdalbridge.text_table import kind_text
from ratzarr import RatZarr, RatZarrError
from ratzarr.errors import Advice
from ratzarr.format import (
    MISSING_ATTR,
    PROVENANCE_ATTR,
    chunk_rows_of,
    is_complete,
    kept_attributes,
)

__all__ = [
    "ColumnWriter",
    "NewColumn",
    "begin_column",
    "begun_columns",
    "inherited_attributes",
    "new_columns",
    "target_of",
]

JOB = "job"
"""Key of the job's digest in a column's ``PROVENANCE``."""


def inherited_attributes(before: Column | None, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the attributes that a column of this dtype inherits from the one it replaces.

    Warns
    -----
    LossWarning
        If the usage is one that columns of this dtype can't have.
    """
    if before is None:
        return {}
    kept = kept_attributes(before.attributes)
    usage = usage_in(kept)
    if usage != (now := kept_usage(usage, dtype)):
        warnings.warn(
            f"column {before.name!r} loses its usage {usage_name(usage)}: its new values are "
            f"{kind_text(dtype)}, and GDAL's colours are integers",
            LossWarning,
            stacklevel=3,
        )
    # Drop missing_value: in an expression, missing values are NULL.
    kept.pop(MISSING_ATTR, None)
    return kept | (usage_attributes(now) if usage else {})


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A column to be created."""

    dtype: Any
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Attributes besides ``PROVENANCE`` and those inherited from a replaced column."""
    width: int = 1
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Further entries for ``PROVENANCE``."""


class ColumnWriter:
    """Writes blocks of the new columns; made by :func:`new_columns`."""

    def __init__(self, table: RatZarr, names: list[str], *, is_resumed: bool = False) -> None:
        self.table = table
        self.names = names
        """The columns to write; others are complete already."""
        self.is_resumed = is_resumed
        """True if an interrupted run created all of these columns, and its rows were kept."""
        self.chunk_rows = min(
            (table.getColumnChunkSize(name) for name in names), default=table.getRATChunkSize()
        )

    @property
    def path(self) -> str:
        """The store that is written."""
        return str(self.table.filename)

    def write(self, blocks: Mapping[str, NDArray[Any]], first_row: int) -> None:
        """Write the same rows of several columns; whole chunks are fastest."""
        self.table.writeBlocks(
            {name: values for name, values in blocks.items() if name in self.names}, first_row
        )


def target_of(
    columns: Columns,
    place: Any,
    band: int,
    name: str | None,
    storage_options: Mapping[str, Any] | None,
) -> Any:
    """Return the store for new columns: the sidecar of this name, or the table itself."""
    if is_store(place):
        if name is not None:
            raise BridgeError(
                f"{place} is a table itself, and has none of the name {name!r} beside it"
            )
        return place
    if columns.host is None:
        # Raises the error for a missing place.
        return writable_sidecar_path(place, band, name)
    return columns.host.writable_path(name, storage_options=storage_options)


@contextmanager
def new_columns(
    columns: Columns,
    place: Any,
    wanted: Mapping[str, NewColumn],
    rows: int,
    *,
    operation: str,
    provenance: Mapping[str, Any] | None = None,
    band: int = 1,
    name: str | None = None,
    overwrite: bool = False,
    job: str | None = None,
    resume: bool = False,
    keeps: Callable[[BaseException], bool] = lambda _: False,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[ColumnWriter]:
    """Create columns in a raster's sidecar, and complete them at the end of the block.

    Parameters
    ----------
    columns : Columns
        The raster's table, open.
    place : str, os.PathLike, gdal.Dataset or zarr store
        The raster, or the store itself.
    wanted : mapping
        The new columns by name, in order.
    rows : int
        Number of rows of the table. A new sidecar gets as many; one without columns is resized.
    operation : str
        The operation that computes the columns, recorded in their ``PROVENANCE``.
    provenance : mapping, optional
        Further entries for ``PROVENANCE``.
    band, name, storage_options
        See :func:`gdalbridge.calc`.
    overwrite : bool
        Replace existing columns of the sidecar.
    job : str, optional
        A digest of what the values are made from, recorded with the columns. Columns that an
        interrupted run of the operation has left incomplete are begun anew.
    resume : bool
        Take the columns of the same job as they are, complete or not.
    keeps : callable
        Returns True for an error after which incomplete columns stay, to be resumed.

    Raises
    ------
    OutputExistsError
        If a column exists and may not be replaced. Nothing is written.
    BridgeError
        If the sidecar has another number of rows.
    """
    target = target_of(columns, place, band, name, storage_options)
    is_new = not RatZarr.exists(target, storageOptions=storage_options)
    with (
        sidecar_dir_advised(target),
        RatZarr(
            target,
            storageOptions=storage_options,
            newRowCount=rows,
            newChunkSize=chunk_rows_of(rows),
        ) as table,
    ):
        try:
            with begun_columns(table, keeps) as begun:
                # Those in place, before a name may refer to a column that will replace it.
                there = {name: _attributes(table, name) for name in table.getColumnNames()
                         if name in wanted and (resume or not overwrite)}  # fmt: skip
                found = _found(table, wanted, there, job) if resume else {}
                if not overwrite:
                    _check_new(table, wanted, found, there, operation)
                _set_rows(table, rows, operation)
                belongs = _belongs(columns, table, target, storage_options)
                origin = column_provenance(operation, belongs, None) | dict(provenance or {})
                if job is not None:
                    origin[JOB] = job
                for key, new in wanted.items():
                    if found.get(key):
                        continue
                    begun[key] = table.colExists(key)
                    if key not in found:
                        _begin(table, key, new, columns, origin)
                yield ColumnWriter(table, list(begun), is_resumed=found.keys() == wanted.keys())
                mapping = table.getRatAttributeMapping()
                if not is_store(place) and mapping.get(RASTER_ATTR) is None:
                    mapping[RASTER_ATTR] = dict(belongs)
        except BaseException as error:
            with suppress(RatZarrError):
                if is_new and not keeps(error) and not table.getColumnNames():
                    RatZarr.delete(target, storageOptions=storage_options)
            raise


@contextmanager
def begun_columns(
    table: RatZarr, keeps: Callable[[BaseException], bool] = lambda _: False
) -> Iterator[dict[str, bool]]:
    """Complete incomplete columns at the end of the block; delete them after an error.

    Parameters
    ----------
    table : RatZarr
    keeps : callable
        Returns True for an error after which the columns stay, to be resumed.

    Yields
    ------
    dict
        To be filled with the columns' names, and whether each replaces another.
    """
    begun: dict[str, bool] = {}
    try:
        yield begun
        for name in begun:
            table.setComplete(name)
    except BaseException as error:
        if not keeps(error):
            for name, replaces in begun.items():
                with suppress(RatZarrError):
                    # Once a replacement is complete, it stays: the old column is gone.
                    table.deleteColumn(name, onlyUnfinished=replaces)
        raise


def begin_column(
    table: RatZarr, name: str, dtype: Any, width: int, attributes: Mapping[str, Any]
) -> None:
    """Create an incomplete column; first delete one that an interrupted run has left."""
    while table.resumeColumn(name) is not None:
        table.deleteColumn(name)
    table.createColumn(
        name, dtype, width, attributes=attributes, complete=False, replace=table.colExists(name)
    )
    if MISSING_ATTR not in attributes:
        # The new values don't use the old column's value for missing.
        mapping = table.getColumnAttributeMapping(name)
        if MISSING_ATTR in mapping:
            del mapping[MISSING_ATTR]


def _attributes(table: RatZarr, name: str) -> dict[str, Any]:
    return dict(table.getColumnAttributeMapping(name))


def _origin(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = None if attributes is None else attributes.get(PROVENANCE_ATTR)
    return found if isinstance(found, Mapping) else {}


def _is_left_over(attributes: Mapping[str, Any], operation: str) -> bool:
    """Return True if an interrupted run of an operation has left the column incomplete."""
    origin = _origin(attributes)
    return not is_complete(attributes) and origin.get("operation") == operation and JOB in origin


def _found(
    table: RatZarr,
    wanted: Mapping[str, NewColumn],
    there: Mapping[str, Mapping[str, Any]],
    job: str | None,
) -> dict[str, bool]:
    """Return the columns that an interrupted run of the same job has left: True if complete."""
    found = {}
    for name in wanted:
        if _origin(table.resumeColumn(name)).get(JOB, "") == job:
            found[name] = False
        elif name in there and is_complete(there[name]) and _origin(there[name]).get(JOB) == job:
            found[name] = True
    return found


def _check_new(
    table: RatZarr,
    wanted: Mapping[str, NewColumn],
    found: Collection[str],
    there: Mapping[str, Mapping[str, Any]],
    operation: str,
) -> None:
    for name in wanted:
        if name in there and name not in found and not _is_left_over(there[name], operation):
            whole = "" if is_complete(there[name]) else ", which is not complete"
            raise OutputExistsError(
                Advice(
                    f"{table.filename} has a column {name!r} already{whole}.",
                    "Use overwrite=True to replace it.",
                )
            )


def _set_rows(table: RatZarr, rows: int, operation: str) -> None:
    if table.rowCount == rows:
        return
    names = table.getColumnNames()
    if not all(_is_left_over(_attributes(table, name), operation) for name in names):
        raise BridgeError(
            Advice(
                f"{table.filename} has {table.rowCount} rows, and the new columns have {rows}.",
                "Write them to a further table with name=...",
            )
        )
    for name in names:
        table.deleteColumn(name)
    table.setRowCount(rows)


def _belongs(
    columns: Columns,
    table: RatZarr,
    target: Any,
    storage_options: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Return the raster that the columns belong to."""
    if columns.host is not None:
        return columns.host.now(columns.dataset, target, storage_options)
    known = parsed_raster(table.getRatAttributeMapping().get(RASTER_ATTR))
    return known or {"name": None, "band": None, "fingerprint": None}


def _begin(
    table: RatZarr, name: str, new: NewColumn, columns: Columns, origin: Mapping[str, Any]
) -> None:
    dtype = np.dtype(new.dtype) if not isinstance(new.dtype, type) else new.dtype
    kept = (
        inherited_attributes(columns.by_name.get(name), np.dtype(dtype))
        if dtype not in (str, bytes)
        else {}
    )
    attributes = kept | dict(new.attributes) | {PROVENANCE_ATTR: {**origin, **new.origin}}
    begin_column(table, name, dtype, new.width, attributes)
