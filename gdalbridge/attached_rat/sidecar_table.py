"""A sidecar as attached tables use it: read in chunks, with delayed writes.

Reading single cells or pages decodes a chunk once. Writing part of a chunk changes it in memory;
:meth:`SidecarTable.flush` writes the change to the store.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from gdalbridge.attached_rat.chunk_cache import Chunk, ChunkCache, Key, empty
from gdalbridge.attached_rat.values import PaddedText
from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.merged import Description
from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError, TableNotFoundError
from ratzarr.pipeline import run

__all__ = ["Limits", "SidecarTable"]

Array = NDArray[Any]

MOST_RUNS = 8
"""A chunk with more ranges of changed rows than this is written in one piece."""
PUTS_BETWEEN = 1024
"""The limits are checked after this many rows are written to already changed chunks."""
SHORTEST_CHUNK = 1024
PAGE_ROWS = 8192
"""Text of up to this many rows is read through the cache, even if it is longer than a chunk."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a sidecar's data in memory and of its pending changes.

    If one of the ``changed_`` limits is exceeded, all pending changes are written.
    """

    cache_bytes: int = 256 * 2**20
    """Bytes of decoded chunks in the cache."""
    changed_chunks: int = 64
    """Number of chunks with pending changes."""
    changed_bytes: int = 128 * 2**20
    """Bytes of the chunks with pending changes."""
    changed_seconds: float = 30.0
    """Age of the oldest pending change; checked at writes."""


DEFAULT_LIMITS = Limits()


class SidecarTable:
    """A sidecar, which need not exist: the first write creates it.

    Parameters
    ----------
    path : str
        Path or URL.
    limits : Limits
    """

    is_ending = False
    """True while the program ends: changes are then written at once."""

    def __init__(self, path: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path, self._limits = path, limits
        self.lock = threading.RLock()
        self.users: WeakSet[Any] = WeakSet()
        """The attached tables of this sidecar. Each is notified of the others' changes."""
        self._rows: int | None = 0
        """None if the number must still be read from the store."""
        self.version = 0
        """A number that changes whenever values may have changed."""
        self._store: RatZarr | None = None
        self._cache = ChunkCache(self._limits.cache_bytes)
        self._writable = False
        self._names: list[str] | None = None
        self._chunk_rows: dict[str, int] = {}
        self._padded: dict[str, bool] = {}
        """By column, True if chunks can be kept as padded text: one string per row."""
        self._puts = 0

    def forget(self) -> None:
        """Drop pending changes in the child of a fork, because the parent writes them."""
        self.lock = threading.RLock()
        self._cache = ChunkCache(self._limits.cache_bytes)
        self._names = None
        self.rows = 0 if self._store is None else self._store.rowCount
        self.version += 1

    @property
    def cached_bytes(self) -> int:
        """Estimated bytes of the chunks in memory."""
        return self._cache.size

    # ---- the store

    @property
    def exists(self) -> bool:
        """True if the store exists."""
        return self._store is not None

    @property
    def rows(self) -> int:
        """Number of rows, including pending ones that :meth:`flush` adds to the store."""
        rows = self._rows
        if rows is None:
            with self.lock:
                rows = self._rows = max(self._open.rowCount, self._pending_rows())
        return rows

    @rows.setter
    def rows(self, rows: int) -> None:
        self._rows = rows

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
                self._cache.drop_unchanged()
                self._store = RatZarr(self.path, readOnly=not update, create=False)
                self._writable = update
            else:
                try:
                    self._store.refresh()
                except TableNotFoundError:
                    # Another process has deleted the store, so pending changes are dropped.
                    self._store, self._names, self.rows = None, None, 0
                    self._cache = ChunkCache(self._limits.cache_bytes)
                    raise
                self._cache.drop_unchanged()
            self._names = None
            self._chunk_rows.clear()
            self._padded.clear()
            self.version += 1
            # The number of rows is read later, when the columns are probably open already.
            self._rows = None

    def _pending_rows(self) -> int:
        return max((c.start + len(c) for _, c in self._cache.changed()), default=0)

    def create(self, rows: int, attributes: Callable[[], Mapping[str, Any]]) -> None:
        """Create the store if it does not exist."""
        with self.lock:
            if self._store is not None:
                return
            store = RatZarr(self.path)
            if not store.getColumnNames() and store.rowCount == 0:
                # Chunks are always read whole, so a short table gets one short chunk. The final
                # length of a table without rows is unknown, so it keeps the default.
                if rows:
                    store.setChunkSize(min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, rows)))
                    store.setRowCount(rows)
                store.getRatAttributeMapping().update(attributes())
            self._store, self._writable, self._names = store, True, None
            self.rows = store.rowCount

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

    def names(self) -> list[str]:
        """Return the names of the columns, in order."""
        with self.lock:
            if self._store is None:
                return []
            if self._names is None:
                self._names = self._store.getColumnNames()
            return list(self._names)

    def open_columns(self) -> None:
        """Fetch the metadata of all columns in parallel."""
        names = self.names()
        if names:
            # Unreadable columns raise their error in describe.
            self._open.getUnreadableColumns(names)

    def describe(self, name: str) -> Description:
        """Return a column's dtype, values per row, and attributes."""
        store = self._open
        attributes = store.getColumnAttributeMapping(name).asdict()
        return Description(store.getColumnDtype(name), store.getColumnWidth(name), attributes)

    def create_column(self, name: str, dtype: Any, attributes: Mapping[str, Any]) -> None:
        """Create a column with as many rows as the table."""
        with self.lock:
            self._apply_rows()
            self._open.createColumn(name, dtype, attributes=attributes)
            self._names = None

    def set_column_attributes(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Change attributes of a column."""
        with self.lock:
            self._open.getColumnAttributeMapping(name).update(attributes)

    def delete_column(self, name: str) -> None:
        """Delete a column."""
        with self.lock:
            for key, _ in self._cache.of_column(name):
                self._cache.drop(key)
            self._open.deleteColumn(name)
            self._names = None
            self._padded.pop(name, None)
            self.version += 1

    def _rows_per_chunk(self, name: str) -> int:
        if name not in self._chunk_rows:
            self._chunk_rows[name] = self._open.getColumnChunkSize(name)
        return self._chunk_rows[name]

    # ---- rows

    def set_rows(self, rows: int) -> None:
        """Set the number of rows, in the store as well."""
        with self.lock:
            if rows < self.rows:
                self.flush()
                self._cache.drop_unchanged()
            self._open.setRowCount(rows)
            self.rows = rows
            self.version += 1

    def grow(self, rows: int) -> None:
        """Grow the table to at least ``rows`` rows; :meth:`flush` grows the store."""
        with self.lock:
            self.rows = max(self.rows, rows)
            self.version += 1

    def _apply_rows(self) -> None:
        if self._store is not None and self._store.rowCount < self.rows:
            self._store.setRowCount(self.rows)

    # ---- reading

    def read(self, name: str, start: int, length: int) -> Array:
        """Return rows of a column, with pending changes. The caller must not change them.

        Parameters
        ----------
        name : str
        start, length : int
            The rows, which must exist.
        """
        with self.lock:
            step = self._rows_per_chunk(name)
            number, stop = start // step, start + length
            if length and number == (stop - 1) // step:
                chunk = self._chunk(name, number)
                first = start - chunk.start
                return chunk.rows(first, first + length)
            if 0 < length <= step:
                # Both chunks are cached, because the next page probably overlaps them too.
                border = (number + 1) * step
                parts = [(start, border - start), (border, stop - border)]
                return np.concatenate([self.read(name, *part) for part in parts])
            return self._read_long(name, start, length)

    def read_text(self, name: str, start: int, length: int) -> Array | None:
        """Return rows of a text column as fixed-width bytes. The caller must not change them.

        The parameters are those of :meth:`read`.

        Returns
        -------
        ndarray of fixed-width bytes, or None
            UTF-8 without zero characters, at least as wide as the longest text. None if only
            :meth:`read` can return the rows: long texts, texts with zero characters, or more
            rows than both a page and a chunk.
        """
        with self.lock:
            step, stop = self._rows_per_chunk(name), start + length
            if not 0 < length <= max(step, PAGE_ROWS) or not self._is_padded(name):
                return None
            numbers = range(start // step, -(-stop // step))
            self._fetch(name, numbers)
            found = []
            for number in numbers:
                chunk = self._chunk(name, number)
                first = max(start, chunk.start)
                part = chunk.padded(
                    first - chunk.start, min(stop, chunk.start + step) - chunk.start
                )
                if part is None:
                    return None
                found.append(part)
            return found[0] if len(found) == 1 else np.concatenate(found)

    def _fetch(self, name: str, numbers: range) -> None:
        """Read the chunks that the cache lacks, in parallel."""
        missing = [number for number in numbers if self._cache.get((name, number)) is None]
        if len(missing) > 1:
            step = self._rows_per_chunk(name)
            for number, chunk in zip(
                missing, run([partial(self._read_chunk, name, n) for n in missing]), strict=True
            ):
                chunk.grow(min(step, self.rows - number * step))
                self._cache.add((name, number), chunk)

    def _is_padded(self, name: str) -> bool:
        if name not in self._padded:
            dtype, width = self._open.getColumnDtype(name), self._open.getColumnWidth(name)
            self._padded[name] = dtype.kind == "T" and width == 1
        return self._padded[name]

    def _read_long(self, name: str, start: int, length: int) -> Array:
        """Read more rows than a chunk, without caching them, with parallel requests.

        Cached chunks are used, and no other chunk is dropped for a long block. Only the last
        chunk is cached if the block ends inside it, because the next block probably begins there.
        """
        step, stop = self._rows_per_chunk(name), start + length
        parts: list[Array] = []
        row = start
        for number in range(start // step, -(-stop // step)):
            chunk = self._cache.get((name, number))
            if chunk is not None:
                # Chunks with pending changes are always in the cache.
                if row < number * step:
                    parts.append(self._read_past(name, row, number * step))
                    row = number * step
                end = min(stop, (number + 1) * step)
                parts.append(self.read(name, row, end - row))
                row = end
        if row < stop or not parts:
            parts.append(self._read_past(name, row, stop))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_past(self, name: str, start: int, stop: int) -> Array:
        """Read rows of chunks that are not in the cache; cache the last one if it is cut."""
        step, last = self._rows_per_chunk(name), (stop - 1) // self._rows_per_chunk(name)
        keep = start < stop < self.rows and stop % step > 0
        if keep and self._is_padded(name):
            first = max(start, last * step)
            rest = self._chunk(name, last).rows(first - last * step, stop - last * step)
            if first == start:
                return rest
            return np.concatenate([self._read_past(name, start, first), rest])
        end = min((last + 1) * step, self.rows) if keep else stop
        there = max(0, min(end, self._open.rowCount) - start)
        values = self._open.readBlock(name, min(start, self._open.rowCount), there)
        if there < end - start:
            values = np.concatenate([values, empty(values, end - start - there)])
        if keep and last * step >= start:
            rest = values[last * step - start :].copy()
            self._cache.add((name, last), Chunk(last * step, rest))
        return values[: stop - start]

    def _chunk(self, name: str, number: int) -> Chunk:
        key = (name, number)
        chunk = self._cache.get(key)
        step = self._rows_per_chunk(name)
        length = min(step, self.rows - number * step)
        if chunk is None:
            chunk = self._read_chunk(name, number)
            chunk.grow(length)
            self._cache.add(key, chunk)
        elif len(chunk) < length:
            chunk.grow(length)
        return chunk

    def _read_chunk(self, name: str, number: int) -> Chunk:
        """Read a chunk from the store, which may have fewer rows than the table, or none."""
        step, rows = self._rows_per_chunk(name), self._open.rowCount
        start = number * step
        there = max(0, min(step, self.rows - start, rows - start))
        return Chunk(start, self._fetched(name, min(start, rows), there))

    def _fetched(self, name: str, start: int, length: int) -> Array | PaddedText:
        if self._is_padded(name):
            pieces = self._open.readText(name, start, length)
            if pieces is not None:
                return PaddedText(pieces)
            # The other chunks are probably not padded text either. Do not fetch each of them twice.
            self._padded[name] = False
        values = self._open.readBlock(name, start, length)
        return values if values.flags.writeable else values.copy()

    # ---- writing

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
            self.version += 1
            step, stop = self._rows_per_chunk(name), start + len(values)
            first = -(-start // step) * step
            last = stop if stop >= self.rows else stop // step * step
            if first < last:
                self._put_at_once(name, first, values[first - start : last - start])
            else:
                first = last = stop
            is_new = False
            for one, other in ((start, min(first, stop)), (max(last, start), stop)):
                is_new |= self._put_behind(name, one, values[one - start : other - start])
            self._puts += len(values)
            if SidecarTable.is_ending:
                self.flush()
            elif is_new or self._puts >= PUTS_BETWEEN:
                self._puts = 0
                self._flush_if_over_limits()

    def _put_at_once(self, name: str, start: int, values: Array) -> None:
        self._apply_rows()
        self._open.writeBlock(name, values, start)
        for key, chunk in self._cache.of_column(name):
            if start <= chunk.start < start + len(values):
                self._cache.drop(key)

    def _put_behind(self, name: str, start: int, values: Array) -> bool:
        step = self._rows_per_chunk(name)
        stop = start + len(values)
        row, is_new = start, False
        while row < stop:
            end = min(stop, (row // step + 1) * step)
            key, part = (name, row // step), values[row - start : end - start]
            chunk = self._chunk(*key)
            before = chunk.values
            is_new |= chunk.put(row, part)
            self._cache.measure(key, part if chunk.values is before else None)
            if chunk.changes == step:
                # All rows have changed. A program that writes a column in order thus writes each
                # chunk once.
                self._apply_rows()
                self._write_back(name, chunk)
                self._cache.measure(key)
            row = end
        return is_new

    def _flush_if_over_limits(self) -> None:
        chunks, size, oldest = self._cache.waiting()
        limits = self._limits
        too_old = chunks and time.monotonic() - oldest > limits.changed_seconds
        if chunks > limits.changed_chunks or size > limits.changed_bytes or too_old:
            self.flush()

    def flush(self) -> None:
        """Write all pending changes, and check that they went to the intended columns.

        Raises
        ------
        RatZarrError
            The first error, after all chunks were tried. Chunks that could not be written stay
            pending.
        """
        with self.lock:
            if self._store is None or not self._writable:
                return
            self._apply_rows()
            waiting = list(self._cache.changed())
            errors = run([partial(self._try_to_write_back, *one) for one in waiting])
            for key, _ in waiting:
                self._cache.measure(key)
            self._cache.shrink()
            for error in errors:
                if error is not None:
                    raise error
            self._store.flush()

    def _try_to_write_back(self, key: Key, chunk: Chunk) -> RatZarrError | None:
        name, number = key
        try:
            self._write_back(name, chunk)
        except RatZarrError as error:
            error.add_note(f"changes to chunk {number} of column {name!r} are not written")
            return error
        return None

    def _write_back(self, name: str, chunk: Chunk) -> None:
        runs = chunk.runs()
        if len(runs) <= MOST_RUNS:
            for first, last in runs:
                self._open.writeBlock(name, chunk.rows(first, last), chunk.start + first)
        else:
            # Another process may have written the rows between the changed ones, so read them.
            first, last = runs[0][0], runs[-1][1]
            now = self._open.readBlock(name, chunk.start + first, last - first).copy()
            changed = np.asarray(chunk.changed)[first:last]
            now[changed] = chunk.rows(first, last)[changed]
            self._open.writeBlock(name, now, chunk.start + first)
            chunk.replace(first, now)
            self.version += 1
        chunk.mark_written()
