"""A sidecar as attached tables use it.

:class:`ratzarr.RatZarr` caches the chunks that were read, and collects the rows that were written.
This module adds what a GDAL table can do and a ``RatZarr`` can't: rows are appended one by one.
They wait here and not in the store, which would be longer than the table if the process was killed.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.merged import LeftOut, ShownColumn, shown_columns
from gdalbridge.sidecars.naming import sidecar_dir_advised
from ratzarr import RatZarr, RatZarrError, TableNotFoundError
from ratzarr.errors import ChangedError, ColumnNotFoundError
from ratzarr.format import chunk_rows_of
from ratzarr.pending import PendingWrites, is_ending

__all__ = ["BUFFER_BYTES", "CACHE_BYTES", "SidecarTable"]

Array = NDArray[Any]

CACHE_BYTES = 256 * 2**20
"""Bytes of decoded chunks that are kept of one sidecar."""
BUFFER_BYTES = 128 * 2**20
"""Bytes of changed rows of one sidecar that wait to be written."""
APPENDED_ROWS = 16384
"""The store grows when more rows than this were appended."""


class _AppendedRows:
    """Rows after the store's last. The store grows once for many of them, not for each."""

    def __init__(self, first: int) -> None:
        self.first = self.stop = first
        """The rows are ``first`` to ``stop - 1``."""
        self.since = time.monotonic()
        self._columns: dict[str, tuple[Array, NDArray[np.bool_]]] = {}
        """The values of each column that was written to, and which of them are written."""

    def put(self, name: str, start: int, values: Array, fill: Any) -> None:
        if name not in self._columns:
            rows = _filled(values, APPENDED_ROWS, fill)
            self._columns[name] = rows, np.zeros(APPENDED_ROWS, np.bool_)
        rows, is_written = self._columns[name]
        place = slice(start - self.first, start - self.first + len(values))
        rows[place], is_written[place] = values, True

    def read(self, name: str, start: int, stop: int, like: Array, fill: Any) -> Array:
        if name not in self._columns:
            return _filled(like, stop - start, fill)
        return self._columns[name][0][start - self.first : stop - self.first]

    def names(self) -> list[str]:
        return list(self._columns)

    def runs(self, name: str) -> Iterator[tuple[int, Array]]:
        """Return the written rows of a column: the first row, and the values from there on."""
        rows, is_written = self._columns[name]
        edges = np.flatnonzero(np.diff(is_written, prepend=False, append=False))
        for first, stop in edges.reshape(-1, 2).tolist():
            yield self.first + first, rows[first:stop]

    def drop(self, name: str) -> None:
        self._columns.pop(name, None)


def _filled(like: Array, rows: int, fill: Any) -> Array:
    """Return rows of the fill value, as the store has them once it has grown."""
    values = np.empty((rows, *like.shape[1:]), like.dtype)
    values.fill(fill)
    return values


class SidecarTable(PendingWrites):
    """A sidecar, which need not exist: the first write creates it.

    Parameters
    ----------
    path : str
        Path or URL.
    cache_bytes, buffer_bytes : int
        Limits of memory; see :class:`ratzarr.RatZarr`.
    """

    seconds = 5.0
    """The store grows when rows were appended for this long."""

    def __init__(
        self, path: str, cache_bytes: int = CACHE_BYTES, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.path = path
        self._cache_bytes, self._buffer_bytes = cache_bytes, buffer_bytes
        self.users: WeakSet[Any] = WeakSet()
        """The attached tables of this sidecar. Each is notified of the others' changes."""
        self._store: RatZarr | None = None
        self._writable = False
        self.forget()
        super().__init__()

    def forget(self) -> None:
        """Drop pending changes in the child of a fork, because the parent writes them."""
        self.lock = threading.RLock()
        self._appended: _AppendedRows | None = None
        self._is_changed = False
        """True if rows were written since the last flush: the store's buffer writes them in time,
        and a flush checks that they went to the intended columns."""
        self._late_error: RatZarrError | None = None
        """The loss of rows that another thread found; for the next flush."""

    # ---- the store

    @property
    def exists(self) -> bool:
        """True if the store exists."""
        return self._store is not None

    @property
    def store(self) -> RatZarr | None:
        """The open store; None if it does not exist."""
        return self._store

    @property
    def rows(self) -> int:
        """Number of rows, including appended ones that the store does not have yet."""
        if self._appended is not None:
            return self._appended.stop
        return 0 if self._store is None else self._store.rowCount

    def open(self, *, update: bool) -> None:
        """Open the store, or refresh it if it is open.

        Raises
        ------
        TableNotFoundError
            If the store does not exist.
        """
        with self.lock:
            if self._store is not None and update and not self._writable:
                self._store = None
            if self._store is None:
                self._store = self._opened(read_only=not update)
                self._writable = update
                return
            try:
                self._append()
                self._store.refresh()
            except RatZarrError as error:
                if not isinstance(error, TableNotFoundError) and RatZarr.isValidRatZarr(self.path):
                    raise
                # Another process has deleted the store, so pending changes are dropped.
                self._store = self._appended = None
                self._is_changed = False
                raise TableNotFoundError(f"there is no RatZarr at {self.path}") from error

    def _opened(self, *, read_only: bool = False, create: bool = False) -> RatZarr:
        with sidecar_dir_advised(self.path):
            return RatZarr(
                self.path,
                readOnly=read_only,
                create=create,
                writeBuffer=self._buffer_bytes,
                cacheBytes=self._cache_bytes,
                # The table is shown as it was when it was opened or refreshed: a cell takes no
                # request.
                cacheSeconds=float("inf"),
            )

    def create(self, rows: int, attributes: Callable[[], Mapping[str, Any]]) -> None:
        """Create the store if it does not exist."""
        with self.lock:
            if self._store is not None:
                return
            store = self._opened(create=True)
            if not store.getColumnNames() and store.rowCount == 0:
                # A short table gets one short chunk. The final length of a table without rows is
                # unknown, so it keeps the default.
                if rows:
                    store.setChunkSize(chunk_rows_of(rows))
                    store.setRowCount(rows)
                store.getRatAttributeMapping().update(attributes())
            self._store, self._writable = store, True

    @property
    def _open(self) -> RatZarr:
        if self._store is None:
            raise BridgeError(f"{self.path} does not exist")
        return self._store

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of the table's attributes; :meth:`set_attributes` changes them."""
        return {} if self._store is None else self._store.getRatAttributeMapping().asdict()

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Change the table's attributes."""
        self._open.getRatAttributeMapping().update(attributes)

    # ---- columns

    def has(self, name: str) -> bool:
        """Return True if the store has this column, shown or not."""
        return self._store is not None and self._store.colExists(name)

    def columns(self) -> Iterator[ShownColumn | LeftOut]:
        """Yield the columns, and those that are left out, in order; none if the store is missing."""
        return iter(()) if self._store is None else shown_columns(self._store)

    def create_column(self, name: str, dtype: Any, attributes: Mapping[str, Any]) -> None:
        """Create a column with as many rows as the table."""
        with self.lock:
            self._append()
            self._open.createColumn(name, dtype, attributes=attributes)

    def set_column_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Change attributes of a column."""
        with self.lock:
            self._open.getColumnAttributeMapping(name).update(attributes)

    def delete_column(self, name: str) -> None:
        """Delete a column."""
        with self.lock:
            if self._appended is not None:
                self._appended.drop(name)
            self._open.deleteColumn(name)

    # ---- rows

    def set_rows(self, rows: int) -> None:
        """Set the number of rows, in the store as well.

        Growing keeps rows that another process has added since the store was opened or refreshed.
        """
        with self.lock:
            grows = rows > self.rows
            if rows < self.rows:
                self.flush()
            self._append()
            self._open.setRowCount(rows, growOnly=grows)

    def grow(self, rows: int) -> None:
        """Grow the table to at least ``rows`` rows; the store grows later if they are few."""
        with self.lock:
            stored = self._open.rowCount
            if rows <= self.rows:
                return
            if rows - stored > APPENDED_ROWS or is_ending():
                self._append()
                self._open.setRowCount(rows, growOnly=True)
                return
            if self._appended is None:
                self._appended = _AppendedRows(stored)
                self.write_later()
            self._appended.stop = rows

    def _append(self) -> None:
        """Append the rows to the store that it lacks; raise the first error after all columns."""
        appended, store = self._appended, self._open
        if appended is None:
            return
        if store.rowCount < appended.stop:
            # Another process may have added more rows.
            store.setRowCount(appended.stop, growOnly=True)
        errors = []
        for name in appended.names():
            try:
                for start, values in appended.runs(name):
                    store.writeBlock(name, values, start)
            except RatZarrError as error:
                errors.append(error)
                if not isinstance(error, ChangedError | ColumnNotFoundError):
                    continue
                error.add_note(f"(rows appended to column {name!r} are discarded)")
            appended.drop(name)
        if not appended.names():
            self._appended = None
        if errors:
            raise errors[0]

    def read(self, name: str, start: int, length: int) -> Array:
        """Return rows of a column, with pending changes.

        Parameters
        ----------
        name : str
        start, length : int
            The rows, which must exist.
        """
        with self.lock:
            appended, stop = self._appended, start + length
            if appended is None or stop <= appended.first:
                return self._open.readBlock(name, start, length)
            inside = min(start, appended.first)
            values = self._open.readBlock(name, inside, appended.first - inside)
            fill = self._open.getColumnFillValue(name)
            rest = appended.read(name, max(start, appended.first), stop, values, fill)
            return np.concatenate([values, rest]) if len(values) else rest.copy()

    def read_text(self, name: str, start: int, length: int) -> Array | None:
        """Return rows of a text column as fixed-width bytes; None if only :meth:`read` can.

        Parameters are those of :meth:`read`.
        """
        with self.lock:
            if self._appended is not None and start + length > self._appended.first:
                return None
            pieces = self._open.readText(name, start, length)
        if not pieces:
            return None
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def put(self, name: str, start: int, values: Array) -> None:
        """Change rows of a column. Whole chunks are written at once, other rows later.

        Parameters
        ----------
        name : str
        start : int
            Number of the first row.
        values : ndarray
            Values in the column's dtype.
        """
        with self.lock:
            appended = self._appended
            if appended is not None and start + len(values) > appended.first:
                inside = max(0, appended.first - start)
                fill = self._open.getColumnFillValue(name)
                appended.put(name, start + inside, values[inside:], fill)
                values = values[:inside]
            if len(values):
                self._open.writeBlock(name, values, start)
            if not self._is_changed:
                self._is_changed = True
                self.write_later()
            if is_ending():
                self.flush()

    def flush(self) -> None:
        """Write all pending changes, and check that they went to the intended columns.

        Raises
        ------
        RatZarrError
            The first error, after all changes were tried.
        """
        with self.lock:
            if self._store is None or not self._writable:
                return
            try:
                self._append()
            finally:
                self._store.flush()
            self._is_changed = False
            self.stop_waiting()
            error, self._late_error = self._late_error, None
            if error is not None:
                raise error

    write_back = flush

    def waits_since(self) -> float | None:
        """See :meth:`ratzarr.pending.PendingWrites.waits_since`."""
        appended = self._appended
        if appended is not None:
            return appended.since
        return math.inf if self._is_changed or self._late_error is not None else None

    def write_due(self, before: float) -> None:
        """Write all changes if the appended rows wait since before a time."""
        with self.lock:
            if self._appended is None or self._appended.since > before:
                return
            try:
                self.flush()
            except (ChangedError, ColumnNotFoundError) as error:
                self._late_error = error
            except RatZarrError:
                # They wait on, and the next flush raises the error.
                pass
            if self._appended is not None:
                self._appended.since = time.monotonic()
