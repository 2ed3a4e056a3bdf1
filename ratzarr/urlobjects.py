"""A store at any other place that fsspec knows: ``https://``, ``gs://``, ``az://``, ``memory://``.

Web servers are for reading. So are places where an object is not replaced in one step
(``ftp://``, ``sftp://``, archives, caches): whoever is interrupted there leaves half a
chunk. The object stores named below are written as well.

A web server lists nothing that could be relied on: its answer for a directory may be an
index, a page of its own making, or an error. The table's order of columns stands for it.
"""

import contextlib
import posixpath
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, override
from urllib.parse import quote

import fsspec
import fsspec.asyn
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.core.sync import sync as zarr_sync
from zarr.storage import FsspecStore

from .errors import ArgumentError, StoreError
from .guardedobjects import GuardedObjects
from .layout import ZARR_JSON
from .location import Location
from .storeobjects import gathered, in_words

__all__ = ["UrlObjects"]

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
