"""Where tables lie in tests, and a way to them that goes round the code under test.

A place hands out names for fresh tables, and shows and changes the raw objects there: files by
``os.walk``, objects of a bucket by boto3. Its :meth:`open` is zarr-python's own, on zarr's own stores.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarr
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath


class LocalPlace:
    """A directory."""

    kind = "local"

    def __init__(self, root):
        self.root = Path(root) / "place"
        self.root.mkdir()
        self._count = 0

    def new(self, name="seg.tif.rat.zarr"):
        """Return where a table can be made: a name in a directory of its own."""
        self._count += 1
        directory = self.root / f"d{self._count}"
        directory.mkdir()
        return f"{directory}/{name}"

    def everything(self):
        """Return what is there: contents by path from the root, None for a directory."""
        found = {}
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

    def objects(self, url):
        """Return the contents of the objects of one store, by their keys in it."""
        root = Path(url)
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    def content(self, url, key):
        """Return one object."""
        return Path(url, key).read_bytes()

    def put(self, url, key, content):
        """Write one object; ``key`` may be empty, for a file at ``url`` itself."""
        path = Path(url, key) if key else Path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, url, key):
        """Remove one object."""
        Path(url, key).unlink()

    def store(self, url, *, read_only=True):
        """Return zarr's own store there."""
        return LocalStore(url, read_only=read_only)

    def open(self, url):
        """Return the root group, opened by zarr for reading."""
        return zarr.open_group(self.store(url), mode="r", zarr_format=3, use_consolidated=False)

    def create(self, url):
        """Return a new root group, made by zarr."""
        return zarr.open_group(
            self.store(url, read_only=False), mode="w-", zarr_format=3, use_consolidated=False
        )

    def edit(self, url):
        """Return the root group, opened by zarr for changes."""
        return zarr.open_group(
            self.store(url, read_only=False), mode="r+", zarr_format=3, use_consolidated=False
        )


class S3Place(LocalPlace):
    """A bucket of its own."""

    kind = "s3"

    def __init__(self, moto):
        self.moto = moto
        self.bucket = moto.fresh_bucket()
        self.client = moto.client()
        self._count = 0

    def new(self, name="seg.tif.rat.zarr"):
        self._count += 1
        return f"s3://{self.bucket}/d{self._count}/{name}"

    def _key(self, url):
        start = f"s3://{self.bucket}/"
        assert url.startswith(start)
        return url.removeprefix(start)

    def _items(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        return [item for page in pages for item in page.get("Contents", ())]

    def keys(self, prefix=""):
        """Return all keys that begin so."""
        return [item["Key"] for item in self._items(prefix)]

    def _get(self, key):
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def everything(self):
        """Return what is there: the MD5 of each object's content (that is its etag), by key."""
        return {item["Key"]: item["ETag"] for item in self._items()}

    def objects(self, url):
        prefix = self._key(url) + "/"
        keys = self.keys(prefix)
        with ThreadPoolExecutor(4) as pool:
            contents = list(pool.map(self._get, keys))
        return {
            key.removeprefix(prefix): content for key, content in zip(keys, contents, strict=True)
        }

    def content(self, url, key):
        return self._get(f"{self._key(url)}/{key}")

    def put(self, url, key, content):
        name = f"{self._key(url)}/{key}" if key else self._key(url)
        self.client.put_object(Bucket=self.bucket, Key=name, Body=content)

    def put_many(self, url, contents):
        """Write many objects: thousands, so straight into the server, not by requests."""
        self.moto.put_many(
            self.bucket, {f"{self._key(url)}/{key}": content for key, content in contents.items()}
        )

    def remove(self, url, key):
        self.client.delete_object(Bucket=self.bucket, Key=f"{self._key(url)}/{key}")

    def store(self, url, *, read_only=True):
        variables = self.moto.environment
        options = {
            "key": variables["AWS_ACCESS_KEY_ID"],
            "secret": variables["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": variables["AWS_ENDPOINT_URL"],
            "client_kwargs": {"region_name": variables["AWS_DEFAULT_REGION"]},
            "use_listings_cache": False,
        }
        return FsspecStore.from_url(url, storage_options=options, read_only=read_only)


class StorePlace(LocalPlace):
    """One of zarr's stores, in which tables lie at paths.

    Its names are strings like those of other places; :meth:`at` makes of one what is to be handed
    to ``RatZarr``. ``label`` is what the store calls itself.
    """

    kind = "store"

    def __init__(self, store, label):
        self.held, self.label = store, label
        self._count = 0

    def new(self, name="seg.tif.rat.zarr"):
        self._count += 1
        return f"{self.label}/d{self._count}/{name}"

    def at(self, url):
        """Return the path in the store; what is not one of our names as it is."""
        if hasattr(url, "__fspath__"):
            url = url.__fspath__()
        if isinstance(url, str) and url.startswith(self.label + "/"):
            return StorePath(self.held, url.removeprefix(self.label + "/").rstrip("/"))
        return url

    def _key(self, url, key=""):
        return f"{url.removeprefix(self.label + '/').rstrip('/')}/{key}".strip("/")

    def _get(self, key):
        return sync(self.held.get(key, default_buffer_prototype())).to_bytes()

    def everything(self):
        async def keys():
            return [key async for key in self.held.list()]

        return {key: self._get(key) for key in sync(keys())}

    def objects(self, url):
        start = self._key(url) + "/"
        return {
            key.removeprefix(start): content
            for key, content in self.everything().items()
            if key.startswith(start)
        }

    def content(self, url, key):
        return self._get(self._key(url, key))

    def put(self, url, key, content):
        buffer = default_buffer_prototype().buffer.from_bytes(content)
        sync(self.held.set(self._key(url, key), buffer))

    def remove(self, url, key):
        sync(self.held.delete(self._key(url, key)))

    def store(self, url, *, read_only=True):
        return StorePath(self.held.with_read_only(read_only), self._key(url))
