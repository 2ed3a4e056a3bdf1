"""The columns of a raster and its sidecars, merged into one table.

:func:`merge` defines the rule. The raster's own columns come first, then the columns of each
sidecar. If two columns have the same name, a sidecar's column replaces the raster's, and the first
sidecar's column takes precedence over those of later sidecars. A sidecar's column that is
incomplete or unreadable replaces nothing.

:class:`Columns`, in this module, returns values as they are stored. The attached table
(:mod:`gdalbridge.attached_rat.attached_table`) returns values as GDAL would, and scripts get arrays
(:mod:`gdalbridge.apply.inputs`); both use the same rule. ``bake`` alone is stricter: two sidecars
with columns of one name are an error (:mod:`gdalbridge.rasters.baked_table`).

A column with several values per row appears as several columns: ``name[0]``, ``name[1]``, ...
"""

import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import (
    BridgeError,
    ColumnSelectionError,
    LossWarning,
    RasterNotFoundError,
    SidecarNameError,
)
from gdalbridge.gdalio.datasets import band_of, opened
from gdalbridge.gdalio.field_types import FieldUsage, linear_binning, usage_in
from gdalbridge.gdalio.rat_reader import RatSource, no_table, open_rat, unique_names
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.sidecars.host import Host, chosen_sidecars, host_of
from gdalbridge.sidecars.naming import find_sidecars, is_sidecar
from gdalbridge.sidecars.own_rows import own_columns_fit
from gdalbridge.sidecars.provenance import RASTER_ATTR
from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError, TableNotFoundError
from ratzarr.format import MISSING_ATTR, is_complete, near_names
from ratzarr.interop import GEOMETRY, check_missing, check_unchanged, missing_value

__all__ = [
    "INCOMPLETE",
    "Column",
    "Columns",
    "LeftOut",
    "ShownColumn",
    "is_store",
    "merge",
    "open_columns",
    "shown_columns",
    "shown_part",
    "sidecar_with",
]

Array = NDArray[Any]

MOST_PARTS = 100
"""The maximum number of values per row; columns with more are left out."""
INCOMPLETE = "it is not complete yet"


# ---- the rule


class Named(Protocol):
    """A column with a name."""

    @property
    def name(self) -> str:
        """Its name in the merged table."""


def merge[C: Named](
    own: Sequence[C], sidecars: Iterable[Iterable[C]], prefer: str = "sidecar"
) -> list[C]:
    """Merge a raster's own columns and its sidecars' into one table.

    Parameters
    ----------
    own : sequence
        The raster's own columns, in order. GDAL allows several columns of one name. A sidecar's
        first column of that name replaces the raster's first, its second column the raster's
        second.
    sidecars : iterable of iterables
        The complete columns of each sidecar, in order.
    prefer : {"sidecar", "raster"}
        The source of a column that exists in both.

    Returns
    -------
    list
        The merged columns: the raster's in their order, some of them replaced, then the sidecars'
        others.
    """
    found = list(own)
    places = {key: place for place, key in enumerate(_numbered(own))}
    replaceable = set(range(len(found))) if prefer == "sidecar" else set()
    for columns in sidecars:
        given = list(columns)
        for key, column in zip(_numbered(given), given, strict=True):
            if key not in places:
                places[key] = len(found)
                found.append(column)
            elif places[key] in replaceable:
                found[places[key]] = column
                replaceable.remove(places[key])
    return found


def _numbered(columns: Iterable[Named]) -> Iterator[tuple[str, int]]:
    """Yield the name of each column, with the number of earlier columns of the same name."""
    counted = Counter[str]()
    for column in columns:
        yield column.name, counted[column.name]
        counted[column.name] += 1


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sidecar's column that is not shown."""

    sidecar: str
    """Path or URL."""
    name: str
    reason: str
    cause: RatZarrError | None = None
    """The error in reading it from the store, if any."""

    @property
    def error(self) -> RatZarrError | BridgeError:
        """The error for a request of this column by name."""
        if self.cause is not None:
            return self.cause
        return BridgeError(f"{self.sidecar}: column {self.name!r} can't be read: {self.reason}")

    def warn(self) -> None:
        """Issue a LossWarning with the reason."""
        warnings.warn(
            f"{self.sidecar}: column {self.name!r} is left out: {self.reason}",
            LossWarning,
            stacklevel=4,
        )


class SidecarColumns(Protocol):
    """A sidecar whose columns are looked up by name, without a listing."""

    def has(self, name: str) -> bool:
        """Return True if the sidecar has the column, complete or not."""

    def left_out(self, name: str) -> LeftOut | None:
        """Return the reason why an existing column is not shown; None if it is shown."""


def sidecar_with[S: SidecarColumns](
    name: str, sidecars: Iterable[S], *, raster_has: bool
) -> S | None:
    """Return the sidecar whose column a name refers to; None for the raster's column, or for none.

    This is the rule of :func:`merge` for one column. If all sidecars leave the column out and the
    raster does not have it, the first sidecar is returned; reading the column then raises the
    error with the reason.

    Warns
    -----
    LossWarning
        If the raster's own column is shown because a sidecar's is left out.
    """
    first = None
    for sidecar in sidecars:
        if not sidecar.has(name):
            continue
        missing = sidecar.left_out(name)
        if missing is None:
            return sidecar
        first = first or (sidecar, missing)
    if first is None:
        return None
    sidecar, missing = first
    if not raster_has:
        return sidecar
    missing.warn()
    return None


@dataclass(frozen=True, slots=True)
class ShownColumn:
    """A sidecar's column, or one part of a column with several values per row."""

    key: str
    """The column's name in the store."""
    name: str
    """Its name in GDAL: the recorded ``GDAL_NAME``, otherwise the key."""
    part: int | None
    """The index of the value in each row; None if rows have one value."""
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]


def shown_part(
    place: str,
    name: str,
    values: Array,
    part: int | None,
    expected: tuple[np.dtype[Any], tuple[int, ...]],
) -> Array:
    """Return one value of each row of a store's column, or all, if they are as expected.

    Raises
    ------
    ChangedError
        If another process has replaced the column by one of another type, or cut rows off.
    """
    if part is not None:
        has_part = values.ndim == 2 and part < values.shape[1]
        # Otherwise the shape is none that a part can have.
        values = np.ascontiguousarray(values[:, part] if has_part else values[..., None])
    check_unchanged(place, name, expected, (values.dtype, values.shape))
    return values


def shown_columns(table: RatZarr) -> Iterator[ShownColumn | LeftOut]:
    """Yield the shown columns of a sidecar, and the columns left out, in order."""
    sidecar, names = str(table.filename), table.getColumnNames()
    # This call opens all columns in parallel.
    unreadable = table.getUnreadableColumns(names)
    for key in names:
        if key in unreadable:
            yield LeftOut(sidecar, key, str(unreadable[key]), unreadable[key])
            continue
        attributes = table.getColumnAttributeMapping(key).asdict()
        dtype, width = table.getColumnDtype(key), table.getColumnWidth(key)
        if not is_complete(attributes):
            yield LeftOut(sidecar, key, INCOMPLETE)
        elif width > MOST_PARTS:
            yield LeftOut(sidecar, key, f"it has {width} values per row")
        else:
            kept = attributes.get("GDAL_NAME")
            name = kept if isinstance(kept, str) else key
            for part in [None] if width == 1 else range(width):
                shown = name if part is None else f"{name}[{part}]"
                yield ShownColumn(key, shown, part, dtype, attributes)


# ---- the table as it is stored


@dataclass(frozen=True, slots=True)
class Column:
    """A readable column."""

    name: str
    rows: int
    chunk_rows: int
    """The number of rows that are best read together."""
    attributes: Mapping[str, Any]
    dtype_of: Callable[[], np.dtype[Any]]
    load: Callable[[int, int], Array] | None
    """Takes the first row and the number of rows; returns an array with one row each. None for a
    column that is stored as it is shown."""
    table: RatZarr | None = None
    """The sidecar or store that has the column; None for a raster's own."""
    key: str = ""
    """The column's name in that store."""
    part: int | None = None
    """The index of the value in each row; None for all of them."""
    width: int = 1
    """Values per row."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype. For a raster's own column of date-times, this reads the column."""
        return self.dtype_of()

    @property
    def is_count(self) -> bool:
        """True if its GDAL usage is PixelCount."""
        return self.attributes.get("GDAL_USAGE") == FieldUsage.PIXEL_COUNT

    @property
    def empty_is_missing(self) -> bool:
        """True if empty bytes are missing values, as in columns of geometries."""
        return self.dtype.kind == "O" and (
            self.table is None or self.attributes.get("GDAL_TYPE") == GEOMETRY
        )

    def read(self, start: int, length: int) -> Array:
        """Return an array with one row for each of these rows; fewer at the column's end.

        Raises
        ------
        ChangedError
            See :meth:`shown`.
        """
        if self.load is not None:
            return self.load(start, length)
        store: Any = self.table
        shown = self.shown(store.readBlock(self.key, start, length), start, length)
        now = store.getColumnAttributeMapping(self.key)
        check_missing(str(store.filename), self.key, self.attributes, now)
        return shown

    def shown(self, values: Array, start: int, length: int) -> Array:
        """Return a block of this column from that of the store's column, which is checked.

        Raises
        ------
        ChangedError
            If another process has replaced the column by one of another type, or cut rows off.
        """
        rows = max(0, min(length, self.rows - start))
        expected = self.dtype, (rows,) if self.width == 1 else (rows, self.width)
        place = str(getattr(self.table, "filename", ""))
        return shown_part(place, self.key, values, self.part, expected)

    def missing_value(self) -> Any:
        """Return the value that stands for missing values, in the column's dtype, or None.

        Also None if the dtype can't hold the recorded value, because then no row has it.
        """
        if MISSING_ATTR not in self.attributes:
            return None
        return missing_value(self.attributes, self.dtype)


class Columns:
    """The columns of a table, by name, in order. A context manager.

    Parameters
    ----------
    name : str
        For messages.
    stack : ExitStack
        Closes the stores.
    look : callable
        Finds and opens the sidecars in order, or the one store.
    prefer : {"sidecar", "raster"}
        See :func:`merge`.
    parts : bool
        False to join the parts of columns with several values per row to whole columns again.
    own : sequence of Column
        The raster's own columns.
    dataset : gdal.Dataset, optional
        The open raster.
    host : Host, optional
        The raster that the sidecars lie beside; None for a table without a raster.
    own_binning : tuple of float, optional
        The linear binning of the raster's own table: minimum of row 0, and bin size.
    """

    def __init__(
        self,
        name: str,
        stack: ExitStack,
        look: Callable[[], list[RatZarr]],
        *,
        prefer: str,
        parts: bool,
        own: Sequence[Column] = (),
        dataset: Any = None,
        host: Host | None = None,
        own_binning: tuple[float, float] | None = None,
    ) -> None:
        self.name, self.stack = name, stack
        self._look, self._prefer, self._parts = look, prefer, parts
        self.own, self.own_binning = own, own_binning
        self.dataset, self.host = dataset, host
        self.left_out: list[LeftOut] = []
        """The columns of sidecars that are left out."""
        self.tables: list[RatZarr] = []
        """The open sidecars, or the one store."""
        stack.callback(self._close)
        self.reload()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def __getitem__(self, name: str) -> Column:
        missing = next((one for one in self.left_out if one.name == name), None)
        if name in self.by_name:
            if missing is not None:
                missing.warn()
            return self.by_name[name]
        if missing is not None:
            raise missing.error
        raise ColumnSelectionError(
            f"{self.name} has no column {name!r}{near_names(name, self.by_name)}"
        )

    def chosen(self, wanted: Iterable[str] | None) -> list[Column]:
        """Return the columns with these names, by default all.

        Raises
        ------
        ColumnSelectionError
            If a column does not exist; the message suggests similar names.

        Warns
        -----
        LossWarning
            For each column that is left out, if ``wanted`` is None.
        """
        if isinstance(wanted, str):
            raise ColumnSelectionError(
                f"columns must be a list of names; got the string {wanted!r}"
            )
        if wanted is not None:
            return [self[name] for name in wanted]
        for one in self.left_out:
            one.warn()
        return list(self.by_name.values())

    def count_column(self) -> Column:
        """Return the column whose usage is PixelCount.

        Raises
        ------
        ColumnSelectionError
            If no column has this usage.
        """
        for column in self.by_name.values():
            if column.is_count:
                return column
        raise ColumnSelectionError(
            f"{self.name} has no column whose usage is PixelCount. Name the column with the counts."
        )

    @property
    def binning(self) -> tuple[float, float] | None:
        """Linear binning of the table; the first sidecar's that has one, or the raster's own."""
        for table in self.tables:
            found = linear_binning(table.getRatAttributeMapping())
            if found is not None:
                return found
        return self.own_binning if self._own_fits else None

    def reload(self) -> None:
        """Open the sidecars again, after a change of them. The raster is not read again."""
        self._close()
        self.left_out.clear()
        self.tables = self._look()
        sidecars = [self.of_store(table) for table in self.tables]
        columns = [(one.name, usage_in(one.attributes), one.read) for one in self.own]
        rows = max((one.rows for one in self.own), default=0)
        self._own_fits = own_columns_fit(self.name, columns, rows, self.tables, self._prefer)
        merged = merge(self.own if self._own_fits else (), sidecars, self._prefer)
        self.by_name = {one.name: one for one in (merged if self._parts else _joined(merged))}

    @property
    def rows(self) -> int:
        """Rows of the longest column; 0 without columns."""
        return max((one.rows for one in self.by_name.values()), default=0)

    @property
    def has_own(self) -> bool:
        """True if some columns are the raster's own. Only one thread at a time may use GDAL."""
        return any(one is self.by_name.get(one.name) for one in self.own)

    def _close(self) -> None:
        while self.tables:
            self.tables.pop().close()

    def of_store(self, table: RatZarr) -> list[Column]:
        """Return the columns of a sidecar, or of any other store."""
        rows = table.rowCount
        found = []
        for one in shown_columns(table):
            if isinstance(one, LeftOut):
                self.left_out.append(one)
                continue
            found.append(
                Column(
                    one.key if one.part is None else f"{one.key}[{one.part}]",
                    rows,
                    table.getColumnChunkSize(one.key),
                    one.attributes,
                    partial(np.dtype, one.dtype),
                    None,
                    table,
                    one.key,
                    one.part,
                )
            )
        return found


def _joined(columns: Sequence[Column]) -> list[Column]:
    """Replace the parts of a column by the whole column, at the place of its first part.

    A column of which some parts are hidden stays in parts.
    """
    parts: dict[tuple[int, str], list[Column]] = {}
    for one in columns:
        if one.table is not None and one.part is not None:
            parts.setdefault((id(one.table), one.key), []).append(one)
    found: list[Column] = []
    for one in columns:
        group = parts.get((id(one.table), one.key), [])
        if one.part is None or one.table is None:
            found.append(one)
            continue
        width = one.table.getColumnWidth(one.key)
        taken = any(other.name == one.key for other in columns)
        if len(group) < width or taken:
            found.append(one)
        elif one is group[0]:
            found.append(replace(one, name=one.key, part=None, width=width))
    return found


def _of_own_table(source: RatSource) -> list[Column]:
    """Return the columns of a raster's own table."""
    lock = threading.Lock()

    def alone(function: Callable[..., Any], *arguments: int) -> Any:
        # Only one thread at a time may use the table.
        with lock:
            return function(*arguments)

    names = unique_names(source.schema.columns)
    return [
        Column(
            names[column.index],
            source.schema.rows,
            DFLT_CHUNKSIZE,
            {"GDAL_USAGE": column.usage} | source.missing(column.index),
            partial(alone, source.dtype, column.index),
            partial(alone, source.read, column.index),
        )
        for column in source.schema.columns
    ]


def is_store(table: Any) -> bool:
    """Return True if the argument is a table itself, not a raster."""
    if hasattr(table, "GetRasterBand"):
        return False
    if not isinstance(table, str | os.PathLike):
        # This is a zarr store.
        return True
    text = str(table).rstrip("/")
    return is_sidecar(text) or text.endswith(".zarr")


def open_columns(
    table: Any,
    *,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    parts: bool = True,
    may_be_empty: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    options: ReadOptions = DEFAULTS,
) -> Columns:
    """Open a table for reading its columns.

    Parameters
    ----------
    table : str, os.PathLike, gdal.Dataset or zarr store
        A raster, a sidecar or any other RatZarr.
    band : int
        The band of a raster, counted from 1.
    names : sequence of str or None, optional
        The sidecars of a raster to include: the names of further tables, and None for the band's
        first table. By default all.
    prefer : {"sidecar", "raster"}
        The source of a column that both have.
    parts : bool
        True to show a column with several values per row as several columns.
    may_be_empty : bool
        True to open a raster that has no table yet.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    options : ReadOptions
        Options for reading the raster's own table.

    Raises
    ------
    RasterNotFoundError
        If the raster or the band does not exist, or has no table.
    BridgeError
        If a sidecar in ``names`` does not exist.
    """
    if isinstance(names, str):
        raise BridgeError(f"names must be a list of names; got {names!r}")
    if prefer not in ("sidecar", "raster"):
        raise BridgeError(f'prefer is "sidecar" or "raster": got {prefer!r}')
    with ExitStack() as stack:
        if is_store(table):
            if names is not None:
                raise BridgeError(f"{table} is a table itself, and has no sidecars to choose from")
            columns = Columns(
                str(table),
                stack,
                lambda: [RatZarr(table, readOnly=True, storageOptions=storage_options)],
                prefer=prefer,
                parts=parts,
            )
        else:
            columns = _of_raster(
                stack, table, band, names, storage_options, options, prefer=prefer, parts=parts
            )
            if not columns.tables and not columns.by_name and not may_be_empty:
                beside = (
                    find_sidecars(table, storage_options=storage_options) if columns.host else []
                )
                bands = {one.band for one in beside}
                raise no_table(columns.dataset, band, columns.name, " and no sidecar", bands)
        columns.stack = stack.pop_all()
        return columns


def _of_raster(
    stack: ExitStack,
    raster: Any,
    band: int,
    names: Sequence[str | None] | None,
    storage_options: Mapping[str, Any] | None,
    options: ReadOptions,
    *,
    prefer: str,
    parts: bool,
) -> Columns:
    dataset = stack.enter_context(opened(raster, storage_options))
    name = dataset.GetDescription() if raster is dataset else os.fspath(raster)
    one, path = band_of(dataset, band, name), None if raster is dataset else raster
    host = None
    # A dataset in memory has no place for sidecars.
    with suppress(SidecarNameError):
        host = host_of(dataset, one, path, storage_options=storage_options)
    own, binning = [], None
    # The raster may have no table of its own.
    with suppress(RasterNotFoundError):
        source = stack.enter_context(open_rat(dataset, band, options=options))
        own, binning = _of_own_table(source), source.schema.linear_binning

    def look() -> list[RatZarr]:
        found = [] if host is None else host.find(storage_options=storage_options)
        tables = []
        for one in chosen_sidecars(found, names, name, f" of band {band}"):
            # Another process may just be creating or deleting it, or was killed meanwhile.
            with suppress(TableNotFoundError):
                tables.append(RatZarr(one.path, readOnly=True, storageOptions=storage_options))
        return tables

    columns = Columns(
        name, stack, look, prefer=prefer, parts=parts, own=own, dataset=dataset, host=host,
        own_binning=binning,
    )  # fmt: skip
    if host is not None:
        recorded = {
            str(table.filename): table.getRatAttributeMapping().get(RASTER_ATTR)
            for table in columns.tables
        }
        host.warn_of_changes(name, dataset, recorded, storage_options)
    return columns
