"""Places for tables, with access to their raw objects that does not use the code under test.

A place creates names for new tables, and shows and changes the raw objects there: files with
``os.walk``, a bucket's objects with boto3, and those of a store with zarr-python.
:meth:`Place.open` is zarr-python's own, on zarr's own stores.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, override

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath

__all__ = ["LocalPlace", "Place", "S3Place", "StorePlace"]


class Place(ABC):
    """A place for tables, returned by the fixture of a :class:`~ratzarr.testing.TableTests`
    subclass.

    Tables have names, which are strings with ``/`` between components, like paths and URLs.
    """

    kind: ClassVar[str] = "store"
    """Some rules of the format depend on the kind of place: the tests ask for ``"local"`` and
    ``"s3"``."""

    def __init__(self) -> None:
        self._count = 0

    @property
    @abstractmethod
    def root(self) -> object:
        """The common prefix of all names."""

    def new(self, name: str = "seg.tif.rat.zarr") -> str:
        """Return the name of a table that does not exist yet, in a directory of its own."""
        self._count += 1
        return f"{self.root}/d{self._count}/{name}"

    def at(self, url: Any) -> Any:
        """Return RatZarr's argument for a name. The tests also pass invalid names and types."""
        return url

    @abstractmethod
    def everything(self) -> dict[str, bytes | str | None]:
        """Return everything in the place: contents (or hashes) by path, None for a directory."""

    @abstractmethod
    def objects(self, url: str) -> dict[str, bytes]:
        """Return the contents of a table's objects, by their keys in the table."""

    @abstractmethod
    def content(self, url: str, key: str) -> bytes:
        """Return one object of a table."""

    @abstractmethod
    def put(self, url: str, key: str, content: bytes) -> None:
        """Write one object. An empty ``key`` writes a plain file at ``url`` itself."""

    @abstractmethod
    def remove(self, url: str, key: str) -> None:
        """Remove one object of a table."""

    @abstractmethod
    def store(self, url: str, *, read_only: bool = True) -> Store | StorePath:
        """Return zarr's own store for a table."""

    def open(self, url: str) -> zarr.Group:
        """Return the root group, opened by zarr for reading."""
        return zarr.open_group(self.store(url), mode="r", zarr_format=3, use_consolidated=False)

    def create(self, url: str) -> zarr.Group:
        """Create and return a root group with zarr."""
        return zarr.open_group(
            self.store(url, read_only=False), mode="w-", zarr_format=3, use_consolidated=False
        )

    def edit(self, url: str) -> zarr.Group:
        """Return the root group, opened by zarr for writing."""
        return zarr.open_group(
            self.store(url, read_only=False), mode="r+", zarr_format=3, use_consolidated=False
        )


class LocalPlace(Place):
    """A directory ``place`` in a given directory.

    Parameters
    ----------
    directory
        The directory in which to create it.
    """

    kind = "local"

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        self._root = Path(directory) / "place"
        self._root.mkdir()

    @property
    @override
    def root(self) -> Path:
        return self._root

    @override
    def new(self, name: str = "seg.tif.rat.zarr") -> str:
        url = super().new(name)
        Path(f"{self.root}/d{self._count}").mkdir()
        return url

    @override
    def everything(self) -> dict[str, bytes | str | None]:
        found: dict[str, bytes | str | None] = {}
        for directory, names, files in os.walk(self.root):
            here = Path(directory)
            for name in names + files:
                path = here / name
                key = os.path.relpath(path, self.root)
                if path.is_symlink():
                    found[key] = f"-> {path.readlink()}".encode()
                else:
                    found[key] = None if path.is_dir() else path.read_bytes()
        return found

    @override
    def objects(self, url: str) -> dict[str, bytes]:
        root = Path(url)
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    @override
    def content(self, url: str, key: str) -> bytes:
        return Path(url, key).read_bytes()

    @override
    def put(self, url: str, key: str, content: bytes) -> None:
        path = Path(url, key) if key else Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    @override
    def remove(self, url: str, key: str) -> None:
        Path(url, key).unlink()

    @override
    def store(self, url: str, *, read_only: bool = True) -> Store:
        return LocalStore(url, read_only=read_only)


class S3Place(Place):
    """An S3 bucket.

    RatZarr finds the server through the usual AWS variables. The test must set them.

    Parameters
    ----------
    bucket
        Name of the bucket. It must be empty and not used by others, because the tests compare all
        of its objects.
    client
        A boto3 S3 client.
    storage_options
        Server and credentials for s3fs, if the AWS variables do not define them.
    """

    kind = "s3"

    def __init__(
        self, bucket: str, client: Any, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.bucket, self.client = bucket, client
        self._options = dict(storage_options or {})

    @property
    @override
    def root(self) -> str:
        return f"s3://{self.bucket}"

    def key(self, url: str, key: str = "") -> str:
        """Return an object's key in the bucket."""
        start = f"{self.root}/"
        if not url.startswith(start):
            raise ValueError(f"{url} does not begin with {start}")
        return f"{url.removeprefix(start)}/{key}" if key else url.removeprefix(start)

    def _items(self, prefix: str = "") -> list[Any]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return [item for page in pages for item in page.get("Contents", ())]

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys of the bucket with this prefix."""
        return [item["Key"] for item in self._items(prefix)]

    def _get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    @override
    def everything(self) -> dict[str, bytes | str | None]:
        """Return the MD5 of each object's content (its etag), by key."""
        return {item["Key"]: item["ETag"] for item in self._items()}

    @override
    def objects(self, url: str) -> dict[str, bytes]:
        prefix = self.key(url) + "/"
        keys = self.keys(prefix)
        with ThreadPoolExecutor(4) as pool:
            contents = list(pool.map(self._get, keys))
        return {
            key.removeprefix(prefix): content for key, content in zip(keys, contents, strict=True)
        }

    @override
    def content(self, url: str, key: str) -> bytes:
        return self._get(self.key(url, key))

    @override
    def put(self, url: str, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(url, key), Body=content)

    @override
    def remove(self, url: str, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.key(url, key))

    @override
    def store(self, url: str, *, read_only: bool = True) -> Store:
        options = {**self._options, "use_listings_cache": False}
        return FsspecStore.from_url(url, storage_options=options, read_only=read_only)


class StorePlace(Place):
    """A zarr store, with tables at paths in it.

    Its names are strings, as in other places; :meth:`at` converts them to RatZarr's argument.

    Parameters
    ----------
    store
        The store. It must be empty, and open for writing.
    label
        RatZarr's name for it in messages; by default ``str(store)``.
    """

    def __init__(self, store: Store, label: str | None = None) -> None:
        super().__init__()
        self._store, self._label = store, str(store) if label is None else label

    @property
    @override
    def root(self) -> str:
        return self._label

    @override
    def at(self, url: Any) -> Any:
        name = url.__fspath__() if hasattr(url, "__fspath__") else url
        if isinstance(name, str) and name.startswith(f"{self.root}/"):
            return StorePath(self._store, self._key(name))
        return url

    def _key(self, url: str, key: str = "") -> str:
        return f"{url.removeprefix(f'{self.root}/').rstrip('/')}/{key}".strip("/")

    def _get(self, key: str) -> bytes:
        found = sync(self._store.get(key, default_buffer_prototype()))
        if found is None:
            raise FileNotFoundError(f"{self.root}/{key} does not exist")
        return found.to_bytes()

    @override
    def everything(self) -> dict[str, bytes | str | None]:
        return {key: self._get(key) for key in self._keys("")}

    def _keys(self, prefix: str) -> list[str]:
        async def keys() -> list[str]:
            return [key async for key in self._store.list() if key.startswith(prefix)]

        return sync(keys())

    @override
    def objects(self, url: str) -> dict[str, bytes]:
        start = self._key(url) + "/"
        return {key.removeprefix(start): self._get(key) for key in self._keys(start)}

    @override
    def content(self, url: str, key: str) -> bytes:
        return self._get(self._key(url, key))

    @override
    def put(self, url: str, key: str, content: bytes) -> None:
        buffer = default_buffer_prototype().buffer.from_bytes(content)
        sync(self._store.set(self._key(url, key), buffer))

    @override
    def remove(self, url: str, key: str) -> None:
        sync(self._store.delete(self._key(url, key)))

    @override
    def store(self, url: str, *, read_only: bool = True) -> StorePath:
        return StorePath(self._store.with_read_only(read_only), self._key(url))
