"""Places of tables that only these tests have, beside those of :mod:`ratzarr.testing`."""

import fsspec
from zarr.storage import FsspecStore

from ratzarr import testing
from ratzarr.testing import LocalPlace, Place, StorePlace

__all__ = ["LocalPlace", "MemoryUrlPlace", "S3Place", "StorePlace"]


class S3Place(testing.S3Place):
    """A bucket of its own on one of the tests' servers."""

    def __init__(self, moto):
        self.moto = moto
        variables = moto.environment
        options = {
            "key": variables["AWS_ACCESS_KEY_ID"],
            "secret": variables["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": variables["AWS_ENDPOINT_URL"],
            "client_kwargs": {"region_name": variables["AWS_DEFAULT_REGION"]},
        }
        super().__init__(moto.fresh_bucket(), moto.client(), options)

    def put_many(self, url, contents):
        """Write many objects: thousands, so straight into the server, not by requests."""
        self.moto.put_many(
            self.bucket, {self.key(url, key): content for key, content in contents.items()}
        )


class MemoryUrlPlace(Place):
    """A directory of its own in fsspec's memory, named by URLs."""

    root = None
    _numbers = iter(range(10**9))

    def __init__(self):
        super().__init__()
        self.root = f"memory://conformance-{next(self._numbers)}"
        self.held = fsspec.filesystem("memory").store

    def _path(self, url, key=""):
        return "/" + f"{url.removeprefix('memory://')}/{key}".rstrip("/")

    def everything(self):
        start = self._path(self.root, "")
        return {
            key: self.held[key].getvalue()
            for key in list(self.held)
            if key.startswith(start + "/")
        }

    def objects(self, url):
        start = self._path(url) + "/"
        return {
            key.removeprefix(start): content
            for key, content in self.everything().items()
            if key.startswith(start)
        }

    def content(self, url, key):
        return self.held[self._path(url, key)].getvalue()

    def put(self, url, key, content):
        fsspec.filesystem("memory").pipe_file(self._path(url, key), content)

    def remove(self, url, key):
        del self.held[self._path(url, key)]

    def remove_all(self):
        """Give the memory back."""
        for key in self.everything():
            del self.held[key]

    def store(self, url, *, read_only=True):
        return FsspecStore.from_url(url, read_only=read_only)
