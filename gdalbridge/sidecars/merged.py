"""The columns of a table, as they are stored: of a raster with its sidecars, or of a store.

Of a raster these are its own table's columns and then each sidecar's, as in the attached
table: of two with one name the sidecar's counts, of two sidecars' the first one's. But
nothing is shown as GDAL would have it: an int64 is an int64.

A column with several values per row is as many columns, ``name[0]``, ``name[1]``, ...
"""

import difflib
import os
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import (
    BridgeError,
    ColumnSelectionError,
    LossWarning,
    RasterNotFoundError,
    SidecarNameError,
)
from gdalbridge.gdalio.field_types import FieldUsage
from gdalbridge.gdalio.rat_reader import unique_names
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.sidecars.naming import Sidecar, find_sidecars, is_sidecar
from gdalbridge.sidecars.provenance import RASTER_ATTR, raster_attribute
from gdalbridge.sidecars.staleness import warn_of_changes
from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError
from ratzarr.format import COMPLETE_ATTR

__all__ = ["MISSING_ATTR", "Column", "Columns", "is_store", "near_names", "open_columns"]

Array = NDArray[Any]

MISSING_ATTR = "missing_value"
"""A column's attribute: the value that stands for none."""
MOST_PARTS = 100
"""Values per row, beyond which a column is not taken apart."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can be read."""

    name: str
    rows: int
    chunk_rows: int
    """Rows that are best read together."""
    complete: bool
    attributes: Mapping[str, Any]
    dtype_of: Callable[[], np.dtype[Any]]
    read: Callable[[int, int], Array]
    """First row and length, to an array of one value per row."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype. A raster's own column of date-times is read for it."""
        return self.dtype_of()

    @property
    def is_count(self) -> bool:
        """Whether GDAL's usage of it is PixelCount."""
        return self.attributes.get("GDAL_USAGE") == FieldUsage.PIXEL_COUNT

    def missing_value(self) -> Any:
        """Return the value that stands for none, in the column's dtype; None where none does.

        One that the dtype can't hold is in no row.
        """
        kept = self.attributes.get(MISSING_ATTR)
        if kept is None or isinstance(kept, (list, dict)):
            return None
        dtype = self.dtype
        if dtype.kind in "OS":
            return kept.encode() if isinstance(kept, str) else None
        if dtype.kind in "T":
            return kept if isinstance(kept, str) else None
        try:
            with np.errstate(all="ignore"):
                value = np.array(kept).astype(dtype)[()]
            # Of a float32 it is the nearest: JSON has it in decimals of a double.
            exact = dtype.kind in "fM" or (isinstance(kept, (int, float)) and value == kept)
        except (ValueError, TypeError, OverflowError):
            return None
        return value if exact else None


class Columns:
    """The columns of a table, by name, in order. A context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stack = ExitStack()
        self.by_name: dict[str, Column] = {}
        self._unreadable: dict[str, RatZarrError] = {}
        self.sidecars: list[Sidecar] = []
        self.has_own = False
        """Whether some are the raster's own: GDAL is asked by one thread at a time."""
        self.dataset: Any = None
        """The raster, where there is one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()

    def __getitem__(self, name: str) -> Column:
        if name in self._unreadable and name not in self.by_name:
            raise self._unreadable[name]
        if name not in self.by_name:
            raise ColumnSelectionError(
                f"{self.name} has no column {name!r}{near_names(name, self.by_name)}"
            )
        column = self.by_name[name]
        if not column.complete:
            raise BridgeError(f"{self.name}: column {name!r} is not complete yet")
        return column

    def chosen(self, wanted: Iterable[str] | None) -> list[Column]:
        """Return the columns of these names, all that are complete by default.

        Raises
        ------
        ColumnSelectionError
            Names columns that are called much the same.

        Warns
        -----
        LossWarning
            For columns that are left out by default.
        """
        if isinstance(wanted, str):
            raise ColumnSelectionError(f"columns is a list of names: got the string {wanted!r}")
        if wanted is not None:
            return [self[name] for name in wanted]
        for column in self.by_name.values():
            if not column.complete:
                self._left_out(column.name, "it is not complete yet")
        return [column for column in self.by_name.values() if column.complete]

    def count_column(self) -> Column:
        """Return the column whose usage is PixelCount.

        Raises
        ------
        ColumnSelectionError
            Where there is none.
        """
        for column in self.by_name.values():
            if column.is_count:
                return column
        raise ColumnSelectionError(
            f"{self.name} has no column whose usage is PixelCount: name the one with the counts"
        )

    def add(self, column: Column, *, instead: bool = False) -> None:
        """Have one more column; of two with one name the first, or this one."""
        if instead or column.name not in self.by_name:
            self.by_name[column.name] = column

    def add_store(self, table: RatZarr, own: Collection[str] = ()) -> None:
        """Have a store's columns, in place of those that are named."""
        names = table.getColumnNames()
        unreadable = table.getUnreadableColumns(names)
        rows = table.rowCount
        for name in names:
            if name in unreadable:
                self._left_out(name, str(unreadable[name]))
                self._unreadable.setdefault(name, unreadable[name])
                continue
            attributes = table.getColumnAttributeMapping(name).asdict()
            width = table.getColumnWidth(name)
            if width > MOST_PARTS:
                self._left_out(name, f"it has {width} values per row")
                continue
            for part in [None] if width == 1 else range(width):
                self.add(
                    Column(
                        name if part is None else f"{name}[{part}]",
                        rows,
                        table.getColumnChunkSize(name),
                        attributes.get(COMPLETE_ATTR, True) is not False,
                        attributes,
                        _constant(table.getColumnDtype(name)),
                        _reader(table, name, part),
                    ),
                    instead=name in own,
                )

    def add_own(self, source: Any) -> None:
        """Have a raster's own columns."""
        lock = threading.Lock()
        names = unique_names(source.schema.columns)
        for column in source.schema.columns:
            self.has_own = True
            self.add(
                Column(
                    names[column.index],
                    source.schema.rows,
                    DFLT_CHUNKSIZE,
                    True,
                    {"GDAL_USAGE": column.usage} | source.missing(column.index),
                    _own_dtype(source, column.index, lock),
                    _own_reader(source, column.index, lock),
                )
            )

    def _left_out(self, column: str, why: str) -> None:
        warnings.warn(
            f"{self.name}: column {column!r} is left out: {why}", LossWarning, stacklevel=4
        )


def _constant(dtype: np.dtype[Any]) -> Callable[[], np.dtype[Any]]:
    return lambda: dtype


def _reader(table: RatZarr, name: str, part: int | None) -> Callable[[int, int], Array]:
    def read(start: int, length: int) -> Array:
        values = table.readBlock(name, start, length)
        return values if part is None else np.ascontiguousarray(values[:, part])

    return read


def _own_dtype(source: Any, index: int, lock: threading.Lock) -> Callable[[], np.dtype[Any]]:
    def dtype() -> np.dtype[Any]:
        with lock:
            found: np.dtype[Any] = source.stored(index).dtype
            return found

    return dtype


def _own_reader(source: Any, index: int, lock: threading.Lock) -> Callable[[int, int], Array]:
    def read(start: int, length: int) -> Array:
        with lock:
            values: Array = source.read(index, start, length)
            return values

    return read


def near_names(name: str, there: Collection[str]) -> str:
    """Say which names are much the same as one that is not there.

    >>> near_names("ndvi", ["NDVI", "area"])
    ': did you mean "NDVI"?'
    >>> near_names("x", ["NDVI", "area"])
    "; it has ['NDVI', 'area']"
    """
    folded = {one.casefold(): one for one in there}
    near = difflib.get_close_matches(name.casefold(), folded, 3, 0.6)
    if near:
        return f": did you mean {' or '.join(f'"{folded[one]}"' for one in near)}?"
    return f"; it has {list(there)!r:.500}"


def is_store(table: Any) -> bool:
    """Return whether what is given is a table itself, and no raster."""
    if hasattr(table, "GetRasterBand"):
        return False
    if not isinstance(table, str | os.PathLike):
        # One of zarr's stores.
        return True
    text = str(table).rstrip("/")
    return is_sidecar(text) or text.endswith(".zarr")


def open_columns(
    table: Any,
    *,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    options: ReadOptions = DEFAULTS,
) -> Columns:
    """Open a table for reading its columns.

    Parameters
    ----------
    table : str, os.PathLike, gdal.Dataset or zarr store
        A raster, a sidecar or any other RatZarr.
    band : int
        Of a raster, counted from 1.
    names : sequence of str or None, optional
        Which of a raster's sidecars: the names of further tables, and None for the band's
        first; by default all.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    options : ReadOptions
        For a raster's own table.

    Raises
    ------
    RasterNotFoundError
        Where there is no such raster or band, or nothing that is its table.
    BridgeError
        Where a sidecar that is named is not there.
    """
    if isinstance(names, str):
        raise BridgeError(f"names is a list of names: got {names!r}")
    with ExitStack() as stack:
        if is_store(table):
            if names is not None:
                raise BridgeError(f"{table} is a table itself, and has no sidecars to be named")
            store = RatZarr(table, readOnly=True, storageOptions=storage_options)
            columns = Columns(str(table))
            columns.add_store(stack.enter_context(store))
        else:
            columns = _of_raster(stack, table, band, names, storage_options, options)
        columns.stack = stack.pop_all()
        return columns


def _of_raster(
    stack: ExitStack,
    raster: Any,
    band: int,
    names: Sequence[str | None] | None,
    storage_options: Mapping[str, Any] | None,
    options: ReadOptions,
) -> Columns:
    from gdalbridge.gdalio.datasets import band_of, opened
    from gdalbridge.gdalio.rat_reader import no_table, open_rat

    dataset = stack.enter_context(opened(raster, storage_options))
    name = dataset.GetDescription() if raster is dataset else os.fspath(raster)
    columns = Columns(name)
    columns.dataset = dataset
    band_of(dataset, band, name)
    # It may have no table of its own.
    with suppress(RasterNotFoundError):
        columns.add_own(stack.enter_context(open_rat(dataset, band, options=options)))
    own = set(columns.by_name)
    recorded: dict[str, Any] = {}
    try:
        found = find_sidecars(raster, band, storage_options=storage_options)
    except SidecarNameError:
        # In memory: nothing can lie beside it.
        found = []
    if names is not None:
        there = [one.name for one in found]
        for asked in names:
            if asked not in there:
                raise BridgeError(
                    f"{name} has no sidecar {asked!r} of band {band}; it has {there}"
                )
        found = [one for one in found if one.name in names]
    for one in found:
        store = RatZarr(one.path, readOnly=True, storageOptions=storage_options)
        columns.add_store(stack.enter_context(store), own)
        recorded[one.path] = store.getRatAttributeMapping().get(RASTER_ATTR)
        # What one sidecar has put in the place of the raster's, the next one does not replace.
        own -= {n for n in store.getColumnNames() if n in own}
    columns.sidecars = found
    if any(value is not None for value in recorded.values()):
        now = raster_attribute(dataset, band, found[0].path)
        warn_of_changes(name, now, recorded, stacklevel=4)
    if not found and not columns.by_name:
        raise no_table(dataset, band, name, " and no sidecar")
    return columns
