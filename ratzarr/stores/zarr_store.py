"""Tables in zarr ``Store`` objects, and at other URLs through a read-only zarr store.

zarr's interface has no conditional requests. This module compares objects itself, under locks of
the process, so only one process at a time may write.
"""

import asyncio
import glob
import hashlib
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import batched
from typing import Any, override
from urllib.parse import quote

from zarr.abc.store import RangeByteRequest, Store
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from ratzarr.concurrency import run
from ratzarr.errors import (
    ArgumentError,
    DamagedError,
    RatZarrError,
    StoreError,
    StorePermissionError,
    StoreTimeoutError,
)
from ratzarr.format.names import GROUP, ZARR_JSON, is_document, key_of, looks_encoded
from ratzarr.stores.base import (
    BATCH_KEYS,
    ChunkOwner,
    Entry,
    Found,
    Location,
    Objects,
    Take,
    Version,
    documents_last,
)

__all__ = ["StoreObjects"]

IN_FLIGHT = 16
"""Largest number of objects removed at once."""
_WEB = re.compile(r"https?://", re.IGNORECASE)


class StoreObjects(Objects):
    """The objects of a table in a zarr ``Store``.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store. This class neither opens nor closes it.
    path : str
        Path of the table's root in the store; by default the store's own root.
    """

    looks_before_writing = True
    deletes_at_once = True

    def __init__(self, store: Store, path: str = "") -> None:
        self._store, self._path = store, path
        self._fs = store.fs if isinstance(store, FsspecStore) else None
        protocols = getattr(self._fs, "protocol", ())
        self._web = bool({"http", "https"} & {protocols, *protocols})
        name = str(store)
        if name.startswith("<"):
            # Some reprs only name the class, and some have several lines.
            name = name.strip("<>") if self._fs is not None else type(store).__name__
        self.location = Location("store", f"{name}/{path}" if path else name)
        if self._web:
            self.read_only_reason = "it is on a web server"
        elif store.read_only:
            self.read_only_reason = f"the {type(store).__name__} was opened for reading only"
        elif not (store.supports_writes and store.supports_deletes):
            self.read_only_reason = f"a {type(store).__name__} can't change or remove objects"

    @classmethod
    def at(cls, location: Location, options: Mapping[str, Any] | None = None) -> "StoreObjects":
        """Return the objects at a URL, for reading, with these file system arguments."""
        try:
            store = FsspecStore.from_url(
                location.url, storage_options=dict(options or {}), read_only=True
            )
        except (ValueError, TypeError, ImportError) as error:
            # fsspec's error names the unknown protocol, the missing package, or the missing part
            # of the URL.
            raise ArgumentError(f"{location}: {error}") from error
        except Exception as error:
            # Creating the file system opens an archive, and may contact a server.
            raise _in_words(str(location), error) from error
        # The names beside the table may be requested too.
        folder, _, name = store.path.rstrip("/").rpartition("/")
        found = cls(FsspecStore(store.fs, path=folder, read_only=True), name)
        found.location = location
        # Also behind a cache: simplecache::https://...
        found._web |= bool(_WEB.search(location.url))
        found.read_only_reason = (
            "it is on a web server"
            if found._web
            else f"tables at {location.url.partition('://')[0]}:// are read, not written. Write the "
            "table to a local disk or S3, and copy its files"
        )
        return found

    def _key(self, key: str) -> str:
        if self._web:
            # Use the key as a path: in a URL some of its characters would have another meaning.
            key = quote(key)
        return f"{self._path}/{key}".strip("/")

    def _read(self, key: str, limit: int | None) -> bytes | None:
        # Request one byte more than the limit, to detect larger objects. Stores treat a range
        # beyond the end differently; fsspec returns the whole object.
        is_part = self._fs is not None and limit is not None
        wanted = RangeByteRequest(0, limit + 1) if is_part and limit is not None else None
        try:
            call = self._store.get(self._key(key), default_buffer_prototype(), wanted)
            found = self._do(key, call)
        except StoreError as error:
            if isinstance(error.__cause__, ValueError) and _is_only_upstreams(key):
                return None
            raise
        return None if found is None else found.to_bytes()

    @override
    def _write(self, key: str, data: bytes) -> None:
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._do(key, self._store.set(self._key(key), buffer))

    def _create(self, key: str, data: bytes) -> bool:
        if self._read(key, None) is not None:
            return False
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._do(key, self._store.set_if_not_exists(self._key(key), buffer))
        # The store does not report if it has created the object; another process may have come
        # first.
        return self._read(key, None) == data

    @override
    def _remove(self, keys: Sequence[str]) -> None:
        # Not by the threads of run(): they may all wait for the gate that this thread holds.
        chunks = batched((key for key in keys if not is_document(key)), IN_FLIGHT)
        for group in (*chunks, *([key] for key in filter(is_document, keys))):
            self._do("", _gathered(map(self._removal, group)))

    def _removal(self, key: str) -> Coroutine[Any, Any, None]:
        # fsspec treats a name with * or [ as a pattern.
        name = self._key(key) if self._fs is None else glob.escape(self._key(key))
        return self._store.delete(name)

    # ---- reading

    @override
    def read(
        self, key: str, limit: int | None = None, *, state: str = "", take: Take | None = None
    ) -> Found | None:
        data = self._read(key, limit)
        if data is not None and limit is not None and len(data) > limit:
            raise DamagedError(f"{self.location}/{key} has more than {limit} bytes")
        return None if data is None else Found(data, data)

    # ---- writing

    @override
    def put(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> None:
        with self._guarded(key, owner):
            self._write(key, data)

    @override
    def create(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> Version | None:
        with self._guarded(key, owner):
            if not self._create(key, data):
                return None
            try:
                self._refuse_leftovers(key)
            except StoreError:
                self._remove([key])
                raise
            return data

    @override
    def replace(
        self, key: str, data: bytes, version: Version, owner: ChunkOwner | None = None
    ) -> Version | None:
        with self._guarded(key, owner):
            if self._read(key, None) != version:
                return None
            self._write(key, data)
            return data

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: ChunkOwner) -> bool:
        # A new owner of this chunk must change the owner's document first, which is impossible
        # under this guard.
        with self._guarded(key, owner):
            self._remove([key])
        return True

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for batch in batched(documents_last(keys), BATCH_KEYS):
            self._remove([key for key in batch if not is_document(key)])
            run([partial(self._remove_document, key) for key in filter(is_document, batch)])

    def _remove_document(self, key: str) -> None:
        with self._guarded(key, None):
            self._remove([key])

    @override
    def _copy(self, targets: Mapping[str, str]) -> None:
        # One after another, because this thread holds a gate: see _remove().
        for source, target in targets.items():
            data = self._read(source, None)
            if data is None:
                raise StoreError(f"{self.location}/{source} no longer exists")
            self._write(target, data)

    # ---- guards

    def _gate(self, prefix: str) -> "_Gate":
        number = hash((str(self.location), prefix)) % 256
        return _gates.get(number) or _gates.setdefault(number, _Gate())

    @override
    def _alone(self, prefix: str) -> AbstractContextManager[None]:
        return self._gate(prefix).alone()

    @contextmanager
    def _guarded(self, key: str, owner: ChunkOwner | None) -> Iterator[None]:
        """Exclude other threads while an object is read, compared and written."""
        if owner is None:
            with self._alone(key.rpartition("/")[0]):
                yield
            return
        with self._gate(owner.prefix).with_others(key):
            owner.check(self._read(f"{owner.prefix}/{ZARR_JSON}", None))
            yield

    def _refuse_leftovers(self, key: str) -> None:
        # Chunks without a document would become the new column's.
        if key.count("/") != 2 or not key.endswith("/" + ZARR_JSON):
            return
        prefix = key.removesuffix("/" + ZARR_JSON)
        if any(other.startswith(f"{prefix}/c/") for other in self.list_tree(prefix)):
            raise StoreError(
                f"{self.location}/{prefix} holds chunks of a column that no longer exists: "
                "'gdalbridge check --repair' removes them"
            )

    # ---- listing

    @override
    def list_dirs(self, prefix: str) -> list[str] | None:
        if self._web or not self._store.supports_listing:
            return None
        names = {name.rstrip("/") for name in self._children(prefix, self._key(prefix))}
        if not names:
            skip = len(prefix) + 1
            below = (key[skip:] for key in self.list_tree(prefix))
            names = {name.partition("/")[0] for name in below if "/" in name}
        return sorted(names - {ZARR_JSON})

    def _children(self, key: str, folder: str) -> list[str]:
        async def children() -> list[str]:
            return [name async for name in self._store.list_dir(folder)]

        self._look_anew()
        return self._do(key, children())

    def _look_anew(self) -> None:
        """Discard a file system's cached listings."""
        if self._web:
            raise StoreError(f"{self.location}: a web server's objects can't be listed")
        if self._fs is not None:
            getattr(self._fs, "sync_fs", self._fs).invalidate_cache()

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        self._look_anew()
        start = self._key(prefix)
        start, skip = start and start + "/", len(self._path) + 1 if self._path else 0
        for key in self._do(prefix, self._listed(start)):
            yield key[skip:]

    async def _listed(self, start: str) -> list[str]:
        try:
            keys = [key async for key in self._store.list_prefix(start)]
        except ValueError:
            # Icechunk lists only objects below a group or an array.
            keys = [key async for key in self._store.list()]
        return [key for key in keys if key.startswith(start)]

    @override
    def list_states(self, prefix: str) -> Iterator[Entry]:
        for key in self.list_tree(prefix):
            if self._fs is not None:
                # Request the sizes; other stores cannot return them without reading.
                yield Entry(key, self._do(key, self._store.getsize(self._key(key))), "")
            elif (data := self._read(key, None)) is not None:
                yield Entry(key, len(data), hashlib.blake2b(data, digest_size=16).hexdigest())

    @override
    def occupied(self) -> bool:
        if self._read(ZARR_JSON, None) is not None:
            return True
        return (not self._web and any(True for _ in self.list_tree(""))) or self._is_object()

    def _is_object(self) -> bool:
        """Return True if an object has the name of the table's root."""
        if not self._path:
            return False
        try:
            return self._do("", self._store.exists(self._path))
        except StoreError as error:
            if isinstance(error.__cause__, ValueError):
                # A name that no object of this kind of store can have.
                return False
            raise

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        folder, _, name = self._path.rpartition("/")
        # This store does not distinguish directories.
        entries = [entry.rstrip("/") for entry in self._children("", folder)]
        return [(entry, True) for entry in entries if name and entry.startswith(name)]

    def _do[T](self, key: str, call: Coroutine[Any, Any, T]) -> T:
        try:
            return sync(call)
        except Exception as error:
            raise _in_words(f"{self.location}/{key}".rstrip("/"), error) from error


class _Gate:
    """The locks of a column: a chunk takes one of them, and a change of its document all."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(128)]

    @contextmanager
    def alone(self) -> Iterator[None]:
        with ExitStack() as held:
            for lock in self._locks:
                held.enter_context(lock)
            yield

    def with_others(self, key: str) -> threading.Lock:
        return self._locks[hash(key) % len(self._locks)]


_gates: dict[int, _Gate] = {}
"""Shared by all stores of the process, because several objects may represent one location.
Different locations may share a gate by chance, which only costs time, because no thread holds two
gates."""
if hasattr(os, "register_at_fork"):
    # In a forked child, the threads that hold gates do not exist.
    os.register_at_fork(after_in_child=_gates.clear)


def _is_only_upstreams(key: str) -> bool:
    """Return True if only upstream would store a column's document at this key.

    Upstream writes names unchanged. Stores that refuse such a name cannot hold such a column.
    """
    name = key.removeprefix(GROUP + "/").removesuffix("/" + ZARR_JSON)
    is_document = key == f"{GROUP}/{name}/{ZARR_JSON}"
    return is_document and not looks_encoded(name) and key_of(name) != name


async def _gathered(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Await all of these together, then raise the first error."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _in_words(place: str, error: Exception) -> RatZarrError:
    """Add the object's name to an error of another library's store."""
    if isinstance(error, RatZarrError):
        return error
    said = str(error) or type(error).__name__
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return StorePermissionError(f"{place}: no permission: {said}")
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreTimeoutError(f"{place}: no answer: {said}")
    return StoreError(f"{place}: {type(error).__name__}: {said}")
