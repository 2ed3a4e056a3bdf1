"""The input tables of a run: rasters with their sidecars, and stand-alone tables."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.apply.controls import Handle, RatHandle
from gdalbridge.attached_rat.values import fixed_width
from gdalbridge.errors import (
    ColumnMissingError,
    ConversionError,
    RasterNotFoundError,
    SidecarNameError,
)
from gdalbridge.gdalio.datasets import band_of, opened
from gdalbridge.gdalio.field_types import usage_in
from gdalbridge.gdalio.rat_reader import RatSource, no_table, open_source, unique_names
from gdalbridge.sidecars.column_access import readable_columns
from gdalbridge.sidecars.host import Host, host_of
from gdalbridge.sidecars.merged import INCOMPLETE, LeftOut, sidecar_with
from gdalbridge.sidecars.naming import where
from gdalbridge.sidecars.own_rows import own_columns_fit
from gdalbridge.sidecars.provenance import RASTER_ATTR
from ratzarr import ColumnNotFoundError, RatZarr, RatZarrError, TableNotFoundError
from ratzarr.codecs import to_fixed_width
from ratzarr.format import COLUMN_ORDER_ATTR, check_memory, empty_value, is_complete

__all__ = ["Source", "Sources", "place_to_write"]


Array = NDArray[Any]
NOTHING: Mapping[tuple[str, str], bool] = MappingProxyType({})


class _Table:
    """A RatZarr opened for reading: a sidecar of an input, or the input itself."""

    def __init__(
        self, name: str, options: Mapping[str, Any] | None, ours: Mapping[tuple[str, str], bool]
    ) -> None:
        self.name, self.where, self._ours = name, where(name), ours
        self.store = RatZarr(name, readOnly=True, create=False, storageOptions=options)
        self.rows = self.store.rowCount
        # For each existing column, the error if it can't be read.
        self._known: dict[str, RatZarrError | None] = {}
        # Incomplete columns already named in a warning: scripts ask for the names at each block.
        self._named: set[str] = set()

    def has(self, name: str) -> bool:
        """Return True if the column exists, complete or not."""
        if self._ours.get((self.where, name)):
            # A script sees a table as it was before the run. The raster itself may have a
            # column of this name.
            return False
        if name not in self._known:
            if not name:
                return False
            try:
                unreadable = self.store.getUnreadableColumns([name])
            except ColumnNotFoundError:
                return False
            self._known[name] = unreadable.get(name)
        return True

    def left_out(self, name: str) -> LeftOut | None:
        """Return why an existing column is left out; None if it is shown.

        Columns that this run writes are shown.
        """
        if (self.where, name) in self._ours:
            return None
        if (error := self._known.get(name)) is not None:
            return LeftOut(self.name, name, str(error), error)
        if not is_complete(self.attributes(name)):
            return LeftOut(self.name, name, INCOMPLETE)
        return None

    def names(self) -> list[str]:
        """Return the names of all columns that are shown; warn of the others once."""
        found = []
        for name in readable_columns(self.store):
            if self._ours.get((self.where, name)):
                continue
            if (missing := self.left_out(name)) is None:
                found.append(name)
            elif name not in self._named:
                self._named.add(name)
                missing.warn()
        return found

    def names_known(self) -> list[str]:
        """Return the column names that need no request."""
        order = self.store.getRatAttributeMapping().get(COLUMN_ORDER_ATTR)
        return [name for name in order if isinstance(name, str)] if isinstance(order, list) else []

    def read(self, names: Sequence[str], start: int, length: int) -> dict[str, Array]:
        """Read rows of several columns, as far as the table has them."""
        ours = [name for name in names if (self.where, name) in self._ours]
        rest = [name for name in names if name not in ours]
        rows = min(start, self.rows), max(0, min(length, self.rows - start))
        found = self.store.readBlocks(rest, *rows) if rest else {}
        if ours:
            found |= self.store.readBlocks(ours, *rows, allowIncomplete=True)
        return found

    def attributes(self, name: str) -> dict[str, Any]:
        """Return a column's attributes."""
        return dict(self.store.getColumnAttributeMapping(name))


_gdal = threading.RLock()


def place_to_write(handle: RatHandle) -> tuple[str, Callable[[str], Mapping[str, Any]]]:
    """Return the path of the sidecar to write, and a function for a new sidecar's attributes.

    Raises
    ------
    RasterNotFoundError
        If the raster or band does not exist.
    SidecarNameError
        If no sidecar can be stored beside the raster, such as one in memory.
    """
    options = handle.storageOptions
    with _gdal, opened(handle.filename, options) as dataset:
        band = band_of(dataset, handle.layernum, handle.filename)
        host = host_of(dataset, band, handle.filename, storage_options=options)
        path = host.writable_path(handle.table, storage_options=options)
        return path, host.describing(dataset, band)


class Source:
    """A table opened for reading: a raster's with its sidecars', or a RatZarr. Thread-safe.

    Parameters
    ----------
    handle : RatHandle or RatZarrHandle
        The table.
    strings : bool
        Read text of rasters as StringDType instead of bytes of fixed width.
    ours : mapping
        The columns that this run writes, as pairs of place (:func:`where`) and name. The value
        is True if the run has created the column; such a column is hidden. The others can be
        read although they are incomplete. Keys may be added during the run.

    Raises
    ------
    TableNotFoundError
    """

    def __init__(
        self, handle: Handle, strings: bool, ours: Mapping[tuple[str, str], bool]
    ) -> None:
        self.name = handle.filename
        self._strings = strings or not isinstance(handle, RatHandle)
        self._tables: list[_Table] = []
        # The sidecar of each column found, so that sidecars are not searched for each block.
        self._found: dict[str, _Table | None] = {}
        self._own: RatSource | None = None
        self.missing: RasterNotFoundError | None = None
        """The error for a raster without any table, which can still be an output."""
        if isinstance(handle, RatHandle):
            self._own = self._open_raster(handle, ours)
        else:
            self._tables.append(_Table(handle.filename, handle.storageOptions, ours))
        self._indices: dict[str, int] = {}
        own_rows = 0
        if self._own is not None and self._own_fits(self._own):
            # Repeated names get the same numbered names as in a copy.
            names = unique_names(self._own.schema.columns)
            self._indices = {name: index for index, name in names.items()}
            own_rows = self._own.schema.rows
        self.rows = max([own_rows, *(table.rows for table in self._tables)])
        """Number of rows when the table was opened."""
        self.chunk_rows = self._tables[0].store.getRATChunkSize() if self._tables else None
        """The first table's chunk size; None for a raster without sidecars."""

    def _own_fits(self, own: RatSource) -> bool:
        """Return False if the raster's own rows are for other pixels than a sidecar's."""
        columns = [
            (one.name, one.usage, partial(own.read, one.index)) for one in own.schema.columns
        ]
        with _gdal:
            return own_columns_fit(
                self.name, columns, own.schema.rows, [table.store for table in self._tables]
            )

    def _open_raster(
        self, handle: RatHandle, ours: Mapping[tuple[str, str], bool]
    ) -> RatSource | None:
        """Open a raster's own table, which is returned, and its sidecars."""
        own = None
        options = handle.storageOptions
        with ExitStack() as stack:
            with _gdal:
                dataset = stack.enter_context(opened(handle.filename, options))
                band = band_of(dataset, handle.layernum, self.name)
                host = None
                # A dataset in memory can't have sidecars.
                with suppress(SidecarNameError):
                    host = host_of(dataset, band, handle.filename, storage_options=options)
                with suppress(RasterNotFoundError):
                    own = open_source(dataset, band, self.name, handle.reading)
            if host is not None:
                for found in host.find(storage_options=options):
                    # Another process may just be creating or deleting the sidecar.
                    with suppress(TableNotFoundError):
                        self._tables.append(_Table(found.path, options, ours))
                self._check_fit(dataset, host, options)
            if own is None and not self._tables:
                with _gdal:
                    self.missing = no_table(dataset, handle.layernum, self.name)
            if own is not None:
                own.settings = stack.pop_all()
        return own

    def _check_fit(self, dataset: Any, host: Host, options: Mapping[str, Any] | None) -> None:
        recorded = {
            table.name: table.store.getRatAttributeMapping().get(RASTER_ATTR)
            for table in self._tables
        }
        with _gdal:
            host.warn_of_changes(self.name, dataset, recorded, options)

    def _table_of(self, name: str) -> _Table | None:
        if name not in self._found:
            table = sidecar_with(name, self._tables, raster_has=name in self._indices)
            if table is None and name not in self._indices:
                return None
            self._found[name] = table
        return self._found[name]

    def has(self, name: str) -> bool:
        """Return True if the column exists."""
        return self._table_of(name) is not None or name in self._indices

    def names(self) -> list[str]:
        """Return the names of all columns: the raster's own, then the sidecars'."""
        found = dict.fromkeys(self._indices)
        for table in self._tables:
            found |= dict.fromkeys(table.names())
        return list(found)

    def names_known(self) -> list[str]:
        """Return the column names that need no request."""
        return [*self._indices, *(name for one in self._tables for name in one.names_known())]

    def read(self, names: Sequence[str], start: int, length: int) -> dict[str, Array]:
        """Read rows of several columns, with GDAL's empty values after a column's last row."""
        found: dict[str, Array] = {}
        places = {name: self._table_of(name) for name in names}
        for table in self._tables:
            mine = [name for name, place in places.items() if place is table]
            found |= table.read(mine, start, length)
        for name, place in places.items():
            if place is None:
                found[name] = self._read_own(name, start, length)
        return {name: self._converted(name, found[name], start, length) for name in names}

    def _read_own(self, name: str, start: int, length: int) -> Array:
        own, index = self._own_column(name)
        rows = own.schema.rows
        with _gdal:
            there = max(0, min(length, rows - start))
            return own.read(index, min(start, rows), there)

    def _own_column(self, name: str) -> tuple[RatSource, int]:
        if self._own is None or name not in self._indices:
            raise ColumnMissingError(f"{self.name} has no column {name!r}")
        return self._own, self._indices[name]

    def _converted(self, name: str, values: Array, start: int, length: int) -> Array:
        if len(values) < length:
            whole = np.empty((length, *values.shape[1:]), values.dtype)
            whole[: len(values)] = values
            whole[len(values) :].fill(empty_value(values.dtype))
            values = whole
        if self._strings or values.dtype.kind != "T":
            return values
        return _as_bytes(values.reshape(-1), f"{self.name}, column {name!r}", start).reshape(
            values.shape
        )

    def usage(self, name: str) -> int:
        """Return a column's GDAL usage as a number."""
        table = self._table_of(name)
        if table is not None:
            return usage_in(table.attributes(name))
        own, index = self._own_column(name)
        return int(own.schema.columns[index].usage)

    def own_usages(self) -> Mapping[str, int]:
        """Return the GDAL usages of the raster's own columns, by name."""
        columns = self._own.schema.columns if self._own is not None else ()
        return {name: int(columns[index].usage) for name, index in self._indices.items()}

    def attributes(self, name: str) -> dict[str, Any]:
        """Return a column's attributes; for the raster's own, those that a copy would get."""
        table = self._table_of(name)
        if table is not None:
            return table.attributes(name)
        own, index = self._own_column(name)
        with _gdal:
            return dict(own.stored(index).attributes)

    def place_of(self, name: str) -> tuple[str, str] | None:
        """Return where a column is stored, and its name there; None for the raster's own."""
        table = self._table_of(name)
        return None if table is None else (table.where, name)

    def close(self) -> None:
        """Close the raster and its sidecars."""
        if self._own is not None:
            with _gdal:
                self._own.close()
        for table in self._tables:
            table.store.close()


def _as_bytes(values: Array, where: str, first_row: int) -> Array:
    """Return text as GDAL does: as bytes, with the width of the longest text."""
    if not len(values):
        return np.empty(0, "S1")
    # A single long text makes every row of the array as wide.
    widest = 4 * int(np.strings.str_len(values).max())
    check_memory(
        len(values) * widest,
        f"{where}, from row {first_row}: {len(values)} texts as wide as the longest "
        "(setUseStringDType(True) keeps each at its own length)",
    )
    plain = to_fixed_width(values)
    if plain is not None:
        return plain
    encoded = [text.encode("utf-8") for text in values.tolist()]
    for row, text in enumerate(encoded, first_row):
        if b"\x00" in text:
            raise ConversionError(
                f"{where}, row {row}: bytes of fixed width can't hold the zero character in "
                f"{text!r:.80}; setUseStringDType(True) can"
            )
    return fixed_width(encoded)


class Sources:
    """Tables by handle. Each is opened when it is first used. Thread-safe.

    Parameters
    ----------
    strings : bool
        Read text of rasters as StringDType.
    ours : mapping
        The columns that this run writes, see :class:`Source`.
    """

    def __init__(self, strings: bool, ours: Mapping[tuple[str, str], bool] = NOTHING) -> None:
        self._strings, self._ours = strings, ours
        self._open: dict[Handle, Source] = {}
        self._locks: dict[Handle, threading.Lock] = {}
        self._lock = threading.Lock()

    def __getitem__(self, handle: Handle) -> Source:
        with self._lock:
            lock = self._locks.setdefault(handle, threading.Lock())
        with lock:
            if handle not in self._open:
                self._open[handle] = Source(handle, self._strings, self._ours)
            return self._open[handle]

    def get(self, handle: Handle) -> Source | None:
        """Return a table; None if it does not exist yet."""
        try:
            return self[handle]
        except TableNotFoundError:
            return None

    def close(self) -> None:
        """Close all tables."""
        for source in self._open.values():
            source.close()
        self._open.clear()
