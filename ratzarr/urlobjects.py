"""A store at any other place that fsspec can read: ``https://``, ``gs://``, ``memory://``.

For reading only: of these places it is not known that an object can be replaced on
condition, without which changes to a table's metadata could be lost.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, override

import fsspec

from .errors import ArgumentError, DamagedError, ReadOnlyError, StoreError, StorePermissionError
from .layout import ZARR_JSON
from .location import Location
from .objects import Objects, Owner, Versioned

__all__ = ["UrlObjects"]


class UrlObjects(Objects):
    """The objects of a store at a URL.

    Parameters
    ----------
    location : Location
        The store's root.
    options : mapping, optional
        Arguments for the fsspec file system.
    """

    writable = False
    looks_before_writing = False

    def __init__(self, location: Location, options: Mapping[str, Any] | None = None) -> None:
        self.location = location
        try:
            self._fs, self._root = fsspec.url_to_fs(location.url, **(options or {}))
        except (ValueError, ImportError) as error:
            # fsspec names the protocol it does not know, or the package it would need.
            raise ArgumentError(f"{location}: {error}") from error

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else str(self._root)

    @override
    def get(self, key: str, limit: int | None = None) -> bytes | None:
        path = self._path(key)
        try:
            # One byte more than the limit says that there are too many.
            end = None if limit is None else limit + 1
            data = bytes(self._fs.cat_file(path, end=end))
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise StorePermissionError(f"{self.location}/{key}: no permission: {error}") from error
        except Exception as error:
            raise StoreError(f"{self.location}/{key}: {error}") from error
        if limit is not None and len(data) > limit:
            raise DamagedError(f"{self.location}/{key} has more than {limit} bytes")
        return data

    @override
    def get_marked(self, key: str, limit: int | None = None) -> tuple[bytes, str] | None:
        data = self.get(key, limit)
        return None if data is None else (data, "")

    @override
    def get_versioned(self, key: str, limit: int | None = None) -> Versioned | None:
        data = self.get(key, limit)
        return None if data is None else Versioned(data, "")

    @override
    def put(self, key: str, data: bytes, owner: Owner | None = None) -> None:
        raise self._read_only()

    @override
    def create(self, key: str, data: bytes, owner: Owner | None = None) -> str | None:
        raise self._read_only()

    @override
    def replace(
        self, key: str, data: bytes, version: str, owner: Owner | None = None
    ) -> str | None:
        raise self._read_only()

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: Owner) -> bool:
        raise self._read_only()

    @override
    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        raise self._read_only()

    @override
    def delete(self, keys: Iterable[str]) -> None:
        raise self._read_only()

    @override
    def delete_tree(self, prefix: str) -> None:
        raise self._read_only()

    def _read_only(self) -> ReadOnlyError:
        return ReadOnlyError(
            f"{self.location} is for reading only: tables are written to local disk and to S3"
        )

    @override
    def list_dirs(self, prefix: str) -> list[str]:
        try:
            entries = self._fs.ls(self._path(prefix), detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StoreError(
                f"{self.location}/{prefix} can't be listed: {error}; columns can be opened by name"
            ) from error
        names = [str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries]
        return [name for name in names if name != ZARR_JSON]

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        start = len(self._path("")) + 1
        for path in self._fs.find(self._path(prefix)):
            yield str(path)[start:]

    @override
    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        for key in self.list_tree(prefix):
            yield key, ""

    @override
    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        start = len(self._path("")) + 1
        for path, entry in self._fs.find(self._path(prefix), detail=True).items():
            size = entry.get("size")
            yield str(path)[start:], -1 if size is None else int(size), ""

    @override
    def list_beside(self) -> list[str]:
        folder, _, name = self._path("").rpartition("/")
        try:
            entries = self._fs.ls(folder, detail=True)
        except Exception as error:
            raise StoreError(f"{folder}: can't be listed: {error}") from error
        names = [str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries]
        return [entry for entry in names if entry.startswith(name)]

    @override
    def remove_place(self) -> None:
        raise self._read_only()

    @override
    def occupied(self) -> bool:
        return self.get(ZARR_JSON) is not None or bool(self._fs.exists(self._path("")))
