"""Locations and the protocol of a store.

:func:`parse` interprets a filename: a local path, a ``file://`` URL, ``s3://bucket/key``, GDAL's
``/vsis3/bucket/key``, or another URL that fsspec can read. It does not access the location.

>>> parse("/vsis3/bucket/dir/x.rat.zarr/").url
's3://bucket/dir/x.rat.zarr'
>>> gdal_name("s3://bucket/dir/x.tif"), url_name("/vsicurl/https://host/x.tif")
('/vsis3/bucket/dir/x.tif', 'https://host/x.tif')

A store is a set of objects named by keys (:class:`Objects`). An object is replaced whole or not at
all. :meth:`Objects.create` and :meth:`Objects.replace` succeed only if no other writer came first.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import batched
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from ratzarr.codecs.blosc import ReadAt
from ratzarr.concurrency import PATIENCE, run
from ratzarr.errors import ArgumentError, StoreError
from ratzarr.format.names import ZARR_JSON, is_document

__all__ = [
    "BATCH_KEYS",
    "ChunkOwner",
    "Entry",
    "Found",
    "Location",
    "Objects",
    "Take",
    "Version",
    "documents_last",
    "gdal_name",
    "parse",
    "url_name",
]


BATCH_KEYS = 1000
"""Largest number of keys in one request to delete objects, and of objects processed at once."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::)")

_FOLDED = re.compile(r"(?:s3a?|gs|az|abfs|https?|file|memory):/(?!/)", re.IGNORECASE)

# GDAL's prefixes, and the schemes that fsspec uses for the same locations.
_VSI = (
    ("/vsis3/", "s3://"),
    ("/vsigs/", "gs://"),
    ("/vsiaz/", "az://"),
    ("/vsiadls/", "abfs://"),
)


@dataclass(frozen=True, slots=True)
class Location:
    """The location of an existing or future store."""

    kind: Literal["local", "s3", "url", "store"]
    """The kind of location."""
    path: str
    """Absolute path; ``bucket/key``; the whole URL; or a store's name and a path in it. Without a
    trailing slash."""

    @property
    def url(self) -> str:
        """The location's name: a path if it is local, otherwise a URL."""
        return f"s3://{self.path}" if self.kind == "s3" else self.path

    @property
    def bucket(self) -> str:
        """The bucket, for S3."""
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        """The key in the bucket, for S3."""
        return self.path.partition("/")[2]

    def __str__(self) -> str:
        return self.url


def url_name(name: str) -> str:
    """Return the URL of one of GDAL's ``/vsi`` names; return other names unchanged."""
    for prefix, scheme in _VSI:
        if name.startswith(prefix):
            return scheme + name[len(prefix) :]
    if name.startswith("/vsicurl/"):
        return name[len("/vsicurl/") :]
    return name


def gdal_name(name: str) -> str:
    """Return GDAL's name for a URL; return paths and ``/vsi`` names unchanged."""
    lowered = name.lower()
    for prefix, scheme in _VSI:
        if lowered.startswith(scheme):
            return prefix + name[len(scheme) :]
    if lowered.startswith(("http://", "https://")):
        return "/vsicurl/" + name
    if lowered.startswith("file://"):
        return _file_path(name)
    return name


def parse(filename: Any) -> Location:
    """Return the location of a filename.

    Parameters
    ----------
    filename : str or os.PathLike
        See above. Trailing slashes are ignored.

    Raises
    ------
    ArgumentError
        For an invalid or empty filename, or a location that cannot hold a store.
    """
    if not isinstance(filename, str | os.PathLike):
        raise ArgumentError(
            f"a table's filename is a str, os.PathLike or zarr Store: got {filename!r}, "
            f"a {type(filename).__name__}"
        )
    name = os.fspath(filename)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name or "\x00" in name:
        raise ArgumentError(f"{name!r} can't be the name of a table or a raster")
    if isinstance(filename, PurePath):
        if _FOLDED.match(name):
            raise ArgumentError(
                f"{name!r}: a pathlib path can't hold a URL (it folds the slashes): pass a string"
            )
        return _local(name)
    name = url_name(name)
    if name.startswith("/vsi"):
        raise ArgumentError(f"{name!r}: tables can't be stored in this GDAL file system")
    match = _SCHEME.match(name)
    if match is None:
        return _local(name)
    scheme = match[1].lower()
    if scheme in ("file", "local"):
        return _local(_file_path(name))
    if scheme in ("s3", "s3a"):
        return _s3(name, name[match.end() :])
    return Location("url", name.rstrip("/"))


def _local(name: str) -> Location:
    path = str(Path(name).absolute())
    if path == Path(path).anchor:
        raise ArgumentError(f"{name!r} is the root of a file system, and can't be a table")
    return Location("local", path)


def _file_path(url: str) -> str:
    rest = urlsplit(url)
    if rest.netloc not in ("", "localhost"):
        # file://relative/path is a common spelling of a relative path.
        return url.partition("://")[2]
    return unquote(rest.path) if "%" in rest.path else url.partition("://")[2]


def _s3(name: str, rest: str) -> Location:
    bucket, _, key = rest.rstrip("/").partition("/")
    parts = key.split("/")
    if not bucket or not key:
        raise ArgumentError(f"{name!r} names no table: expected s3://bucket/key")
    if any(part in ("", ".", "..") for part in parts):
        # Clients and servers interpret such keys differently.
        raise ArgumentError(
            f"{name!r}: a key with an empty, '.' or '..' component can't be a table's"
        )
    return Location("s3", f"{bucket}/{key}")


def documents_last(keys: Iterable[str]) -> Iterator[str]:
    """Yield the keys, those of documents last, and a document above others after them."""
    documents = []
    for key in keys:
        if is_document(key):
            documents.append(key)
        else:
            yield key
    yield from sorted(documents, key=len, reverse=True)


type Take = Callable[[str, int, ReadAt], bool]
"""Reads the needed part of an object, if possible: see :meth:`Objects.read`."""

type Version = str | bytes
"""The version of an object for :meth:`Objects.replace`. Where a store has no etags, the object's bytes:
comparing them is surest, and costs nothing to prepare."""


class Found(NamedTuple):
    """An object as read."""

    data: bytes
    """Empty if ``is_read`` is False."""
    version: Version = ""
    owner_tag: str = ""
    """The tag of the :class:`ChunkOwner` for which the object was written; empty if unknown."""
    state: str = ""
    """Changes with the object; empty if the store cannot tell, or not reliably."""
    is_read: bool = True
    """False if the object still has the given state, or if ``take`` has read the needed part."""


class Entry(NamedTuple):
    """An object of a store, as listed."""

    key: str
    size: int
    """In bytes; -1 if it is not a file."""
    state: str
    """Changes whenever the object is written; empty if the store cannot tell."""


class ChunkOwner(NamedTuple):
    """The column for which a chunk is written.

    Another process may delete a column and create a new one in its place while this process still
    writes to it. Each kind of store helps to notice that. On a local disk, a writer can read the
    column's document in the directory that will hold the chunk. On S3, a tag on each object shows
    its column, and readers get it without a further request.
    """

    prefix: str
    """The column's directory in the store."""
    owner_tag: str
    """The column's identity, for stores that can tag objects."""
    check: Callable[[bytes | None], None]
    """Takes the bytes of the column's document, or None; raises if it is a different column."""


class Objects(Protocol):
    """The objects of one store. Thread-safe."""

    location: Location
    """The store's root."""
    read_only_reason: str = ""
    """If the location is read-only, the reason, for messages."""

    looks_before_writing: bool
    """True if each write for an owner reads the owner's document first."""

    patience: float = PATIENCE
    """Seconds after which a change gives up if other writers always come first."""

    deletes_at_once: bool = False
    """True if :meth:`delete_tree` removes everything in one step."""

    threads: int | None = None
    """The number of threads that are enough to read many objects; None for one per request.

    If reading is computing more than waiting, further threads only compete for locks.
    """

    @property
    def writable(self) -> bool:
        """True if the location can be written."""
        return not self.read_only_reason

    def get(self, key: str, limit: int | None = None) -> bytes | None:
        """Return the object's bytes; None if it does not exist.

        Raises
        ------
        DamagedError
            If it has more bytes than ``limit``. They are not read.
        """
        found = self.read(key, limit)
        return None if found is None else found.data

    def is_still(self, key: str, state: str) -> bool:
        """Return True if an object certainly still has an earlier state, at almost no cost.

        Also False if only a request to a server could tell.
        """
        return False

    def read(
        self, key: str, limit: int | None = None, *, state: str = "", take: Take | None = None
    ) -> Found | None:
        """Return the object; None if it does not exist.

        Parameters
        ----------
        limit : int, optional
            As for :meth:`get`.
        state : str
            A known state. If the object still has it, its bytes are omitted. A store that cannot
            compare states always returns the bytes.
        take : callable, optional
            If reading part of an object is cheaper than reading all of it, this is called first
            with the object's state, its size and a function that reads from it. If it returns
            True, it has read the needed part, and no bytes are returned.
        """

    def put(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> None:
        """Write the object unconditionally."""

    def create(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> Version | None:
        """Write the object if it does not exist; return its version, or None if it exists."""

    def replace(
        self, key: str, data: bytes, version: Version, owner: ChunkOwner | None = None
    ) -> Version | None:
        """Write the object if it still has this version; return the new version or None."""

    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: ChunkOwner) -> bool:
        """Remove or empty an object if it still has this version.

        Parameters
        ----------
        key, version : str
            From :meth:`list_versions`.
        blank : callable
            Creates the replacement in a store without conditional deletes.
        owner : ChunkOwner
            The column of the chunk.

        Returns
        -------
        bool
            False if the object has changed meanwhile and was not touched.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; ignore missing ones.

        Each ``zarr.json`` is removed last: if interrupted, it still describes the remaining
        objects.
        """
        self._clear(keys)

    def delete_tree(self, prefix: str) -> None:
        """Remove every object below ``prefix/``.

        If interrupted, it leaves nothing that looks like data: either everything disappears in one
        step, or ``prefix/zarr.json`` is removed last.
        """
        with self._alone(prefix):
            self._clear(self.list_tree(prefix))

    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        """Replace everything below ``prefix/`` by everything below ``source/``.

        In one step if the store supports it. Otherwise ``prefix/zarr.json`` contains ``interim``
        meanwhile, and an interrupted call can be repeated.
        """
        document = f"{prefix}/{ZARR_JSON}"
        with self._alone(prefix):
            final = self.get(f"{source}/{ZARR_JSON}")
            if final is None:
                raise StoreError(f"{self.location}/{source}/{ZARR_JSON} no longer exists")
            self._write(document, interim)
            self._clear(key for key in self.list_tree(prefix) if key != document)
            chunks = (key for key in self.list_tree(source) if not is_document(key))
            for batch in batched(chunks, BATCH_KEYS):
                self._copy({key: prefix + key.removeprefix(source) for key in batch})
            self._write(document, final)
        self.delete_tree(source)

    def _clear(self, keys: Iterable[str]) -> None:
        for batch in batched(documents_last(keys), BATCH_KEYS):
            self._remove(batch)

    # The steps of the methods above. A store with a better way overrides the methods.

    def _alone(self, prefix: str) -> AbstractContextManager[None]:
        """Exclude other threads from the objects below ``prefix/``, if the store needs it."""
        return nullcontext()

    def _write(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.put(key, data)

    def _remove(self, keys: tuple[str, ...]) -> None:
        """Remove at most :data:`BATCH_KEYS` objects, documents in this order and last."""

    def _copy(self, targets: Mapping[str, str]) -> None:
        """Copy objects within the store."""
        run([partial(self.copy_from, self, source, target) for source, target in targets.items()])

    def list_dirs(self, prefix: str) -> list[str] | None:
        """Return the names directly below ``prefix/`` that have a ``zarr.json``.

        Object stores cannot check this and return all names with any object below them. None if
        the location cannot be listed at all, like most web servers.
        """

    def list_tree(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all objects below ``prefix/`` (``""``: the whole store)."""
        for entry in self.list_states(prefix):
            yield entry.key

    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield each object below ``prefix/`` with its version, for :meth:`erase`.

        Empty versions if the store does not need them for that.
        """
        for key in self.list_tree(prefix):
            yield key, ""

    def list_states(self, prefix: str) -> Iterator[Entry]:
        """Yield each object below ``prefix/`` with its size and state."""

    def can_copy_from(self, other: "Objects") -> bool:
        """Return True if the server itself can copy from there with :meth:`copy_from`."""
        return False

    def copy_from(self, other: "Objects", source: str, target: str) -> None:
        """Copy an object of another store with its tag, if :meth:`can_copy_from` allows it."""
        raise StoreError(f"{self.location} does not copy {other.location}/{source} by itself")

    def occupied(self) -> bool:
        """Return True if anything exists at this location."""

    def list_beside(self) -> list[tuple[str, bool]]:
        """Return the names beside this location that equal its name or begin with it.

        Each comes with True if it is a directory (on object stores, a prefix of keys).
        """

    def remove_place(self) -> None:
        """Remove the rest of an emptied store: its directory. On object stores, do nothing."""
        return
