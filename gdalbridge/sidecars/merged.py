"""The columns of a raster and its sidecars, merged into one table.

The rule, in :func:`merge`: the raster's own columns come first, then each sidecar's. Where two share
a name, the sidecar's takes the place of the raster's, and the first sidecar's that of another
sidecar's. A sidecar's column that is incomplete or can't be read takes no place: the raster's own
shows instead.

The rule has three views. :class:`Columns`, in this module, has values as they are stored; the attached
table has them as GDAL would; the inputs of scripts have them as arrays.

A column with several values per row is shown as several columns: ``name[0]``, ``name[1]``, ...
"""

import difflib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
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
from gdalbridge.gdalio.field_types import FieldUsage
from gdalbridge.gdalio.rat_reader import unique_names
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.sidecars.host import Host, host_of
from gdalbridge.sidecars.naming import Sidecar, is_sidecar
from gdalbridge.sidecars.provenance import RASTER_ATTR
from gdalbridge.sidecars.staleness import warn_of_changes
from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError
from ratzarr.format import COMPLETE_ATTR

__all__ = [
    "INCOMPLETE",
    "MISSING_ATTR",
    "Column",
    "Columns",
    "Description",
    "LeftOut",
    "ShownColumn",
    "is_store",
    "merge",
    "near_names",
    "open_columns",
    "shown_columns",
    "sidecar_with",
]

Array = NDArray[Any]

MISSING_ATTR = "missing_value"
"""A column's attribute: the value that stands for none."""
MOST_PARTS = 100
"""Values per row, beyond which a column is not taken apart."""
INCOMPLETE = "it is not complete yet"


# ---- the rule


class Named(Protocol):
    """A column, known by name."""

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
        The raster's own columns, in order. GDAL allows several of one name; the first is
        replaced by a sidecar's first of that name, the second by its second.
    sidecars : iterable of iterables
        The complete columns of each sidecar, in order.
    prefer : {"sidecar", "raster"}
        Whose column is shown where both have one of a name.

    Returns
    -------
    list
        One column for each name: the raster's first, each replaced by the sidecar's in its place.
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
    """Return the name of each column, and how many before it have the same."""
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
    """Why the store could not read it."""

    @property
    def error(self) -> RatZarrError | BridgeError:
        """The error for whoever asks for this column by name."""
        if self.cause is not None:
            return self.cause
        return BridgeError(f"{self.sidecar}: column {self.name!r} can't be read: {self.reason}")

    def warn(self) -> None:
        """Issue the LossWarning that says so."""
        warnings.warn(
            f"{self.sidecar}: column {self.name!r} is left out: {self.reason}",
            LossWarning,
            stacklevel=4,
        )


class SidecarColumns(Protocol):
    """A sidecar that is asked for single columns, without listing them all."""

    def has(self, name: str) -> bool:
        """Return whether it has the column, complete or not."""

    def left_out(self, name: str) -> LeftOut | None:
        """Return why a column that it has is not shown; None where it is."""


def sidecar_with[S: SidecarColumns](
    name: str, sidecars: Iterable[S], *, raster_has: bool
) -> S | None:
    """Return the sidecar whose column a name means; None for the raster's own, or for none.

    The same rule as :func:`merge`, for one column. A column that is left out and that nothing
    replaces is returned: reading it raises the error that says why.

    Warns
    -----
    LossWarning
        Where the raster's own column is shown in place of one that is left out.
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
class Description:
    """How a column is stored."""

    dtype: np.dtype[Any]
    width: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShownColumn:
    """A sidecar's column, or one of the values per row of it."""

    key: str
    """The column's name in the store."""
    name: str
    """Its name in GDAL: ``GDAL_NAME`` where that is recorded."""
    part: int | None
    """Which of the values per row, where there are several."""
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]


def shown_columns(
    sidecar: str, names: Iterable[str], describe: Callable[[str], Description]
) -> Iterator[ShownColumn | LeftOut]:
    """Return what is shown of a sidecar's columns, in order.

    Parameters
    ----------
    sidecar : str
        Path or URL, for messages.
    names : iterable of str
        The names of its columns in the store.
    describe : callable
        Describes one of them, or raises a :class:`ratzarr.RatZarrError`.
    """
    for key in names:
        try:
            found = describe(key)
        except RatZarrError as error:
            yield LeftOut(sidecar, key, str(error), error)
            continue
        if found.attributes.get(COMPLETE_ATTR, True) is False:
            yield LeftOut(sidecar, key, INCOMPLETE)
        elif found.width > MOST_PARTS:
            yield LeftOut(sidecar, key, f"it has {found.width} values per row")
        else:
            kept = found.attributes.get("GDAL_NAME")
            name = kept if isinstance(kept, str) else key
            for part in [None] if found.width == 1 else range(found.width):
                shown = name if part is None else f"{name}[{part}]"
                yield ShownColumn(key, shown, part, found.dtype, found.attributes)


# ---- the table as it is stored


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can be read."""

    name: str
    rows: int
    chunk_rows: int
    """Rows that are best read together."""
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
        self.left_out: list[LeftOut] = []
        """Columns of sidecars that can't be shown."""
        self.sidecars: list[Sidecar] = []
        self.host: Host | None = None
        """The raster that the sidecars lie beside, where there is a raster."""
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
        """Return the columns of these names, by default all.

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
        for one in self.left_out:
            one.warn()
        return list(self.by_name.values())

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

    def add(self, own: Sequence[Column], sidecars: Sequence[Sequence[Column]]) -> None:
        """Merge a raster's own columns and those of its sidecars, or of one store."""
        self.by_name = {one.name: one for one in merge(own, sidecars)}
        self.has_own = any(one is self.by_name[one.name] for one in own)

    def of_store(self, table: RatZarr) -> list[Column]:
        """Return the columns of a sidecar, or of any other store."""
        names = table.getColumnNames()
        # Opens all of them at once.
        table.getUnreadableColumns(names)
        rows = table.rowCount
        found = []
        for one in shown_columns(str(table.filename), names, partial(_described, table)):
            if isinstance(one, LeftOut):
                self.left_out.append(one)
                continue
            found.append(
                Column(
                    one.key if one.part is None else f"{one.key}[{one.part}]",
                    rows,
                    table.getColumnChunkSize(one.key),
                    one.attributes,
                    _constant(one.dtype),
                    _reader(table, one.key, one.part),
                )
            )
        return found


def _described(table: RatZarr, name: str) -> Description:
    attributes = table.getColumnAttributeMapping(name).asdict()
    return Description(table.getColumnDtype(name), table.getColumnWidth(name), attributes)


def _of_own_table(source: Any) -> list[Column]:
    """Return the columns of a raster's own table."""
    lock = threading.Lock()
    names = unique_names(source.schema.columns)
    return [
        Column(
            names[column.index],
            source.schema.rows,
            DFLT_CHUNKSIZE,
            {"GDAL_USAGE": column.usage} | source.missing(column.index),
            _own_dtype(source, column.index, lock),
            _own_reader(source, column.index, lock),
        )
        for column in source.schema.columns
    ]


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
            columns.add([], [columns.of_store(stack.enter_context(store))])
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
    # A dataset in memory has no place for sidecars.
    with suppress(SidecarNameError):
        columns.host = host_of(
            dataset,
            band_of(dataset, band, name),
            None if raster is dataset else raster,
            storage_options=storage_options,
        )
    own: list[Column] = []
    # It may have no table of its own.
    with suppress(RasterNotFoundError):
        own = _of_own_table(stack.enter_context(open_rat(dataset, band, options=options)))
    host = columns.host
    found = [] if host is None else host.find(storage_options=storage_options)
    if names is not None:
        there = [one.name for one in found]
        for asked in names:
            if asked not in there:
                raise BridgeError(
                    f"{name} has no sidecar {asked!r} of band {band}; it has {there}"
                )
        found = [one for one in found if one.name in names]
    recorded: dict[str, Any] = {}
    sidecars = []
    for one in found:
        store = RatZarr(one.path, readOnly=True, storageOptions=storage_options)
        sidecars.append(columns.of_store(stack.enter_context(store)))
        recorded[one.path] = store.getRatAttributeMapping().get(RASTER_ATTR)
    columns.add(own, sidecars)
    columns.sidecars = found
    if host is not None and any(value is not None for value in recorded.values()):
        now = host.now(dataset, found[0].path, storage_options)
        warn_of_changes(name, now, recorded, stacklevel=4)
    if not found and not columns.by_name:
        raise no_table(dataset, band, name, " and no sidecar")
    return columns
