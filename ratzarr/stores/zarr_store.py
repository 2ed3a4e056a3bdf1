"""Stores of other kinds: zarr's own ``Store`` objects and URLs that fsspec reads.

Compare-and-swap needs conditional requests. Where a store has none, objects are compared by this
module under a lock of the process.
"""

import asyncio
import contextlib
import hashlib
import os
import posixpath
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import batched
from typing import Any, override
from urllib.parse import quote

import fsspec
import fsspec.asyn
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.core.sync import sync as zarr_sync
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
from ratzarr.format.names import GROUP, ZARR_JSON, key_of, looks_encoded
from ratzarr.stores.base import Location, Objects, Owner, Versioned

__all__ = [
    "GuardedObjects",
    "StoreObjects",
    "UrlObjects",
    "gathered",
    "in_words",
]


AT_ONCE = 1000
"""How many keys of a listing are worked on before the next ones are looked at."""


class GuardedObjects(Objects):
    """The objects of a store, guarded against other threads of this process.

    A kind of place brings the four methods below, and the listings.
    """

    looks_before_writing = True
    deletes_at_once = True

    @abstractmethod
    def _read(self, key: str, limit: int | None) -> bytes | None:
        """Return an object's bytes, of which no more than ``limit + 1`` need be fetched."""

    @abstractmethod
    def _write(self, key: str, data: bytes) -> None:
        """Write an object, whole or not at all."""

    @abstractmethod
    def _create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; return whether it was written."""

    @abstractmethod
    def _remove(self, keys: Sequence[str]) -> None:
        """Remove objects, several at once; those that aren't there are passed over."""

    # ---- reading

    @override
    def get(self, key: str, limit: int | None = None) -> bytes | None:
        data = self._read(key, limit)
        if data is not None and limit is not None and len(data) > limit:
            raise DamagedError(f"{self.location}/{key} has more than {limit} bytes")
        return data

    @override
    def get_marked(self, key: str, limit: int | None = None) -> tuple[bytes, str] | None:
        data = self.get(key, limit)
        return None if data is None else (data, "")

    @override
    def get_versioned(self, key: str, limit: int | None = None) -> Versioned | None:
        data = self.get(key, limit)
        return None if data is None else Versioned(data, _version(data))

    # ---- writing

    @override
    def put(self, key: str, data: bytes, owner: Owner | None = None) -> None:
        with self._guarded(key, owner):
            self._write(key, data)

    @override
    def create(self, key: str, data: bytes, owner: Owner | None = None) -> str | None:
        with self._guarded(key, owner):
            if not self._create(key, data):
                return None
            try:
                self._refuse_leftovers(key)
            except StoreError:
                self._remove([key])
                raise
            return _version(data)

    @override
    def replace(
        self, key: str, data: bytes, version: str, owner: Owner | None = None
    ) -> str | None:
        with self._guarded(key, owner):
            now = self._read(key, None)
            if now is None or _version(now) != version:
                return None
            self._write(key, data)
            return _version(data)

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: Owner) -> bool:
        # Who may write this chunk has to change the owner's document first, and nobody can do
        # that meanwhile.
        with self._guarded(key, owner):
            self._remove([key])
        return True

    @override
    def delete(self, keys: Iterable[str]) -> None:
        # A zarr.json last: what is interrupted here still says what its objects are.
        documents: list[str] = []

        def others() -> Iterator[str]:
            for key in keys:
                if key.endswith("/" + ZARR_JSON) or key == ZARR_JSON:
                    documents.append(key)
                else:
                    yield key

        for batch in batched(others(), AT_ONCE):
            self._remove(batch)
        for batch in batched(documents, AT_ONCE):
            run([partial(self._delete_document, key) for key in batch])

    def _delete_document(self, key: str) -> None:
        with self._guarded(key, None):
            self._remove([key])

    @override
    def delete_tree(self, prefix: str) -> None:
        with self._gate(prefix).alone():
            self._clear(prefix)

    def _clear(self, prefix: str, but: str = "") -> None:
        """Remove all below a prefix, ``prefix/zarr.json`` last; all but one object."""
        document = f"{prefix}/{ZARR_JSON}"
        keys = [key for key in self.list_tree(prefix) if key not in (but, document)]
        # Documents further down go after their chunks, too.
        keys.sort(key=lambda key: key.endswith("/" + ZARR_JSON))
        for batch in batched(keys, AT_ONCE):
            self._remove(batch)
        if document != but:
            self._remove([document])

    @override
    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        document = f"{prefix}/{ZARR_JSON}"
        with self._gate(prefix).alone():
            final = self._read(f"{source}/{ZARR_JSON}", None)
            if final is None:
                raise StoreError(f"{self.location}/{source}/{ZARR_JSON} is not there any more")
            self._write(document, interim)
            self._clear(prefix, but=document)
            chunks = [key for key in self.list_tree(source) if not key.endswith("/" + ZARR_JSON)]
            for key in chunks:
                self._copy(key, prefix + key.removeprefix(source))
            self._write(document, final)
        self.delete_tree(source)

    def _copy(self, source: str, target: str) -> None:
        data = self._read(source, None)
        if data is None:
            raise StoreError(f"{self.location}/{source} is not there any more")
        self._write(target, data)

    @override
    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        # erase() looks under the guard: it needs none here.
        for key in self.list_tree(prefix):
            yield key, ""

    @override
    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        # Not every kind of place tells more than names.
        for key in self.list_tree(prefix):
            data = self._read(key, None)
            if data is not None:
                yield key, len(data), _version(data)

    @override
    def remove_place(self) -> None:
        # Nothing is left where there are no directories.
        return

    # ---- guards

    def _gate(self, prefix: str) -> "_Gate":
        return _gates[hash((str(self.location), prefix)) % len(_gates)]

    @contextmanager
    def _guarded(self, key: str, owner: Owner | None) -> Iterator[None]:
        """Keep other threads away while an object is looked at and written."""
        if owner is None:
            with self._gate(key.rpartition("/")[0]).alone():
                yield
            return
        lock = _locks[hash((str(self.location), key)) % len(_locks)]
        with self._gate(owner.prefix).with_others(), lock:
            owner.check(self._read(f"{owner.prefix}/{ZARR_JSON}", None))
            yield

    def _refuse_leftovers(self, key: str) -> None:
        # Chunks without a document would become the new column's.
        if key.count("/") != 2 or not key.endswith("/" + ZARR_JSON):
            return
        prefix = key.removesuffix("/" + ZARR_JSON)
        if any(other.startswith(f"{prefix}/c/") for other in self.list_tree(prefix)):
            raise StoreError(
                f"{self.location}/{prefix} holds chunks of a column that is no longer there: "
                "'gdalbridge check --repair' removes them"
            )


class _Gate:
    """Lets in either one thread that is to be alone, or any number of others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0
        """Threads that want to be alone: they would wait for ever if others kept coming."""
        self._taken = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                while self._taken or self._inside:
                    self._changed.wait()
                self._taken = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    @contextmanager
    def with_others(self) -> Iterator[None]:
        with self._changed:
            while self._taken or self._waiting:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()


# For all stores of the process, so that one place is guarded however many objects stand for
# it. Two that share a guard by chance wait for each other, no more: nobody holds two gates.
_gates: list[_Gate] = []
_locks: list[threading.Lock] = []


def _make_guards() -> None:
    _gates[:] = [_Gate() for _ in range(256)]
    _locks[:] = [threading.Lock() for _ in range(1024)]


_make_guards()
if hasattr(os, "register_at_fork"):
    # The threads that hold some of them don't exist in a forked child.
    os.register_at_fork(after_in_child=_make_guards)


def _version(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


IN_FLIGHT = 16
"""How many objects are being removed at once, at the most."""


class StoreObjects(GuardedObjects):
    """The objects of a table in a zarr ``Store``.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store; it is neither opened nor closed here.
    path : str
        Where in it the table's root is; by default the store's own root.
    """

    def __init__(self, store: Store, path: str = "") -> None:
        self._store, self._path = store, path
        name = str(store)
        if name.startswith("<"):
            # Some say only that they are an object, some of them on several lines.
            name = type(store).__name__
        self.location = Location("store", f"{name}/{path}" if path else name)
        self.writable = not store.read_only and store.supports_writes and store.supports_deletes
        if store.read_only:
            self.read_only_reason = f"the {type(store).__name__} was opened for reading only"
        elif not self.writable:
            self.read_only_reason = f"a {type(store).__name__} can't change or remove objects"

    def _key(self, key: str) -> str:
        return f"{self._path}/{key}".strip("/")

    @override
    def _read(self, key: str, limit: int | None) -> bytes | None:
        # Whole, whatever the limit: stores differ in what they make of a range that ends
        # beyond the object's end.
        try:
            found = self._do(key, self._store.get(self._key(key), default_buffer_prototype()))
        except StoreError as error:
            if isinstance(error.__cause__, ValueError) and _is_only_upstreams(key):
                return None
            raise
        return None if found is None else found.to_bytes()

    @override
    def _write(self, key: str, data: bytes) -> None:
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._do(key, self._store.set(self._key(key), buffer))

    @override
    def _create(self, key: str, data: bytes) -> bool:
        if self._read(key, None) is not None:
            return False
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._do(key, self._store.set_if_not_exists(self._key(key), buffer))
        # It does not say whether it has: another process may have been quicker.
        return self._read(key, None) == data

    @override
    def _remove(self, keys: Sequence[str]) -> None:
        self._do("", gathered([self._store.delete(self._key(key)) for key in keys]))

    # ---- listing

    @override
    def list_dirs(self, prefix: str) -> list[str] | None:
        if not self._store.supports_listing:
            return None

        async def children() -> list[str]:
            return [name async for name in self._store.list_dir(self._key(prefix))]

        names = {name.rstrip("/") for name in self._do(prefix, children())}
        if not names:
            skip = len(prefix) + 1
            below = (key[skip:] for key in self.list_tree(prefix))
            names = {name.partition("/")[0] for name in below if "/" in name}
        return sorted(names - {ZARR_JSON})

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        start = self._key(prefix)
        start, skip = start and start + "/", len(self._path) + 1 if self._path else 0
        for key in self._do(prefix, self._listed(start)):
            yield key[skip:]

    async def _listed(self, start: str) -> list[str]:
        try:
            keys = [key async for key in self._store.list_prefix(start)]
        except ValueError:
            # Icechunk lists only what is below a group or an array.
            keys = [key async for key in self._store.list()]
        return [key for key in keys if key.startswith(start)]

    @override
    def occupied(self) -> bool:
        if self._read(ZARR_JSON, None) is not None:
            return True
        return any(True for _ in self.list_tree("")) or self._is_object()

    def _is_object(self) -> bool:
        """Return whether an object is where the table's root would be."""
        if not self._path:
            return False
        try:
            return self._do("", self._store.exists(self._path))
        except StoreError as error:
            if isinstance(error.__cause__, ValueError):
                # No name that an object of this kind of store could have.
                return False
            raise

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        folder, _, name = self._path.rpartition("/")

        async def children() -> list[str]:
            return [entry.rstrip("/") async for entry in self._store.list_dir(folder)]

        # Such a store does not say what is a directory.
        found = [entry for entry in self._do("", children()) if name and entry.startswith(name)]
        return [(entry, True) for entry in found]

    def _do[T](self, key: str, call: Coroutine[Any, Any, T]) -> T:
        try:
            return sync(call)
        except Exception as error:
            raise in_words(f"{self.location}/{key}".rstrip("/"), error) from error


def _is_only_upstreams(key: str) -> bool:
    """Return whether only upstream would keep a column's document under this key.

    It writes names as they are. Stores that refuse some of them can't hold such a column.
    """
    name = key.removeprefix(GROUP + "/").removesuffix("/" + ZARR_JSON)
    is_document = key == f"{GROUP}/{name}/{ZARR_JSON}"
    return is_document and not looks_encoded(name) and key_of(name) != name


async def gathered(calls: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """Await all of these, a few at once, and then raise the first error."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(call: Coroutine[Any, Any, Any]) -> None:
        async with places:
            await call

    results = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def in_words(place: str, error: Exception) -> RatZarrError:
    """Say which object an error of somebody else's store is about."""
    if isinstance(error, RatZarrError):
        return error
    said = str(error) or type(error).__name__
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return StorePermissionError(f"{place}: no permission: {said}")
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreTimeoutError(f"{place}: no answer: {said}")
    return StoreError(f"{place}: {type(error).__name__}: {said}")


WRITABLE = {"abfs", "abfss", "az", "gcs", "gs", "memory"}
"""Schemes of places where an object is replaced whole or not at all."""
_WEB = re.compile(r"https?://", re.IGNORECASE)
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class UrlObjects(GuardedObjects):
    """The objects of a store in one of fsspec's file systems.

    Parameters
    ----------
    location : Location
        The store's root, for messages.
    fs : fsspec.asyn.AsyncFileSystem
        The file system.
    root : str
        The store's root in it.
    """

    def __init__(self, location: Location, fs: Any, root: str) -> None:
        self.location, self._fs = location, fs
        self._root = root.rstrip("/")
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._web = bool(protocols & {"http", "https"})
        self.writable = True

    @classmethod
    def at(cls, location: Location, options: Mapping[str, Any] | None = None) -> "UrlObjects":
        """Return the objects at a URL, with these arguments for the file system."""
        try:
            fs, root = fsspec.url_to_fs(location.url, **(options or {}))
        except (ValueError, TypeError, ImportError) as error:
            # fsspec names the protocol it does not know, the package it would need, or what is
            # missing in the URL.
            raise ArgumentError(f"{location}: {error}") from error
        except Exception as error:
            # An archive is opened here; some file systems ask their server.
            raise in_words(str(location), error) from error
        if not fs.async_impl:
            fs = AsyncFileSystemWrapper(fs, asynchronous=False)
        found = cls(location, fs, root)
        scheme = location.url.partition("://")[0].lower()
        # Also behind a cache: simplecache::https://...
        found._web |= bool(_WEB.search(location.url))
        found.writable = scheme in WRITABLE
        if found._web:
            found.read_only_reason = "it is on a web server"
        elif not found.writable:
            found.read_only_reason = (
                f"what is written to {scheme}:// may be half there after an interruption; tables "
                "are written to local disk, s3://, gs://, az:// and memory://"
            )
        return found

    @classmethod
    def of_store(cls, store: FsspecStore, path: str = "") -> "UrlObjects":
        """Return the objects of a table in a zarr store of this kind."""
        root = f"{store.path.rstrip('/')}/{path}".rstrip("/")
        found = cls(
            Location("store", f"{str(store).strip('<>')}/{path}".rstrip("/")), store.fs, root
        )
        found.writable = not store.read_only and not found._web
        if found._web:
            found.read_only_reason = "it is on a web server"
        elif store.read_only:
            found.read_only_reason = "the FsspecStore was opened for reading only"
        return found

    def _path(self, key: str) -> str:
        if self._web:
            # Any key is a name; in a URL some of its characters would mean something else.
            key = quote(key)
        return f"{self._root}/{key}" if key else self._root

    @override
    def _read(self, key: str, limit: int | None) -> bytes | None:
        # One byte more than the limit says that there are too many.
        end = {} if limit is None else {"start": 0, "end": limit + 1}
        try:
            return bytes(self._do(key, lambda: self._fs._cat_file(self._path(key), **end)))
        except StoreError as error:
            if isinstance(error.__cause__, _ABSENT):
                return None
            raise

    @override
    def _write(self, key: str, data: bytes) -> None:
        self._do(key, lambda: self._fs._pipe_file(self._path(key), data))

    @override
    def _create(self, key: str, data: bytes) -> bool:
        # Looked at first: older file systems pass over the mode.
        if self._read(key, None) is not None:
            return False
        try:
            self._do(key, lambda: self._fs._pipe_file(self._path(key), data, mode="create"))
        except StoreError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise
        return True

    @override
    def _remove(self, keys: Sequence[str]) -> None:
        async def remove(path: str) -> None:
            with contextlib.suppress(*_ABSENT):
                # Not _rm(): to that a name with * or [ is a pattern.
                await self._fs._rm_file(path)

        self._do("", lambda: gathered([remove(self._path(key)) for key in keys]))

    # ---- listing

    def _entries(self, path: str) -> list[tuple[str, bool]]:
        """Return the names directly below a path, and whether each has something below it."""
        try:
            # As it is now, not as it was when somebody last looked.
            getattr(self._fs, "sync_fs", self._fs).invalidate_cache()
            entries = self._do("", lambda: self._fs._ls(path, detail=True))
        except StoreError as error:
            if isinstance(error.__cause__, _ABSENT):
                return []
            raise
        start = path.rstrip("/") + "/"
        found = []
        for entry in entries:
            name = str(entry["name"]).rstrip("/")
            if name.startswith(start):
                found.append((name[len(start) :], entry.get("type") == "directory"))
        return found

    @override
    def list_dirs(self, prefix: str) -> list[str] | None:
        if self._web:
            return None
        return [name for name, is_dir in self._entries(self._path(prefix)) if is_dir]

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        for key, _ in self._found(prefix):
            yield key

    def _found(self, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the key of each object below a prefix, and what the file system says of it."""
        if self._web:
            raise StoreError(f"{self.location}: a web server's objects can't be listed")
        getattr(self._fs, "sync_fs", self._fs).invalidate_cache()
        start, skip = self._path(prefix).rstrip("/") + "/", len(self._root) + 1
        found = self._do(prefix, lambda: self._fs._find(self._path(prefix), detail=True))
        for path, entry in found.items():
            if str(path).startswith(start):
                yield str(path)[skip:], entry

    @override
    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        for path, entry in self._found(prefix):
            size = entry.get("size")
            yield path, -1 if size is None else int(size), ""

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        if self._web:
            raise StoreError(f"{self.location}: a web server's objects can't be listed")
        folder, name = posixpath.split(self._root)
        return [entry for entry in self._entries(folder) if entry[0].startswith(name)]

    @override
    def occupied(self) -> bool:
        if self._read(ZARR_JSON, None) is not None:
            return True
        if self._web:
            return bool(self._do("", lambda: self._fs._exists(self._root)))
        if self._entries(self._root):
            return True
        return bool(self._do("", lambda: self._fs._isfile(self._root)))

    def _do[T](self, key: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            if self._fs.asynchronous:
                # Made by zarr, and tied to zarr's event loop.
                return zarr_sync(make())
            result: T = fsspec.asyn.sync(self._fs.loop, make)
            return result
        except Exception as error:
            raise in_words(f"{self.location}/{key}".rstrip("/"), error) from error
