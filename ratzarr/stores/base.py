"""Locations and the protocol of a store.

:func:`parse` says what a filename means: a local path, a ``file://`` URL, ``s3://bucket/key``, GDAL's
``/vsis3/bucket/key``, or another URL that fsspec can read. Nothing is looked up.

>>> parse("/vsis3/bucket/dir/x.rat.zarr/").url
's3://bucket/dir/x.rat.zarr'
>>> gdal_name("s3://bucket/dir/x.tif"), url_name("/vsicurl/https://host/x.tif")
('/vsis3/bucket/dir/x.tif', 'https://host/x.tif')

A store is a set of objects named by keys (:class:`Objects`). An object is replaced whole or not at
all. :meth:`Objects.create` and :meth:`Objects.replace` succeed only if no other writer came first.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from ratzarr.codecs.blosc import ReadAt
from ratzarr.concurrency import PATIENCE
from ratzarr.errors import ArgumentError, StoreError

__all__ = [
    "Location",
    "Objects",
    "Owner",
    "Seen",
    "Take",
    "Versioned",
    "gdal_name",
    "parse",
    "url_name",
]


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::)")

_FOLDED = re.compile(r"(?:s3a?|gs|az|abfs|https?|file|memory):/(?!/)", re.IGNORECASE)

# GDAL's prefix, and the scheme that fsspec knows the same place by.
_VSI = (
    ("/vsis3/", "s3://"),
    ("/vsigs/", "gs://"),
    ("/vsiaz/", "az://"),
    ("/vsiadls/", "abfs://"),
)


@dataclass(frozen=True, slots=True)
class Location:
    """A place in which a store is, or could be."""

    kind: Literal["local", "s3", "url", "store"]
    """Which kind of place."""
    path: str
    """Absolute path; ``bucket/key``; the whole URL; what a store calls itself, and the path in
    it. No slash at the end."""

    @property
    def url(self) -> str:
        """The place's name: a path for a local one, else a URL."""
        return f"s3://{self.path}" if self.kind == "s3" else self.path

    @property
    def bucket(self) -> str:
        """The bucket, of a place on S3."""
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        """The key in the bucket, of a place on S3."""
        return self.path.partition("/")[2]

    def __str__(self) -> str:
        return self.url


def url_name(name: str) -> str:
    """Return the URL of one of GDAL's ``/vsi`` names; any other name as it is."""
    for prefix, scheme in _VSI:
        if name.startswith(prefix):
            return scheme + name[len(prefix) :]
    if name.startswith("/vsicurl/"):
        return name[len("/vsicurl/") :]
    return name


def gdal_name(name: str) -> str:
    """Return GDAL's name for a URL; a path, or a ``/vsi`` name, as it is."""
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
    """Return the place that a filename means.

    Parameters
    ----------
    filename : str or os.PathLike
        See above. Slashes at the end do not count.

    Raises
    ------
    ArgumentError
        Where it is neither, is empty, or is a place in which no store can be.
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
        raise ArgumentError(f"{name!r} can't be a table's filename")
    if isinstance(filename, PurePath):
        if _FOLDED.match(name):
            raise ArgumentError(
                f"{name!r}: a pathlib path can't hold a URL (it folds the slashes): pass a string"
            )
        return _local(name)
    name = url_name(name)
    if name.startswith("/vsi"):
        raise ArgumentError(f"{name!r}: no table can be kept in this one of GDAL's file systems")
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
        # file://relative/path is common and means what it looks like.
        return url.partition("://")[2]
    return unquote(rest.path) if "%" in rest.path else url.partition("://")[2]


def _s3(name: str, rest: str) -> Location:
    bucket, _, key = rest.rstrip("/").partition("/")
    parts = key.split("/")
    if not bucket or not key:
        raise ArgumentError(f"{name!r} names no table: expected s3://bucket/key")
    if any(part in ("", ".", "..") for part in parts):
        # Clients and servers differ in what they make of these.
        raise ArgumentError(f"{name!r}: a key with an empty, '.' or '..' component is no table's")
    return Location("s3", f"{bucket}/{key}")


type Take = Callable[[str, int, ReadAt], bool]
"""Takes what is needed of an object from a part of it, if that can be done: see
:meth:`Objects.get_unless`."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """An object's bytes, and what tells this state of it from another."""

    data: bytes
    version: str
    mark: str = ""
    """The mark of the :class:`Owner` that it was written for; empty where that isn't known."""
    state: str = ""
    """For :meth:`Objects.is_still`; empty where that has no answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An object's bytes, or that they are still those that are known."""

    data: bytes | memoryview | None
    """None where the object is still in the state that was given, or what was needed of it was
    taken."""
    mark: str
    state: str
    """What an object has in no other state; empty where nothing tells, or not for sure."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The column that a chunk is written for.

    A column can be deleted, and another created in its place, while a process still
    writes to it. Each kind of place helps in its own way to notice that: a local disk
    lets us look at the column's document in the very directory that the chunk goes to;
    S3 keeps a mark with each object, which readers see with no request of its own.
    """

    prefix: str
    """The column's own, within the store."""
    mark: str
    """Which column it is, for objects that can be marked."""
    check: Callable[[bytes | None], None]
    """Raises unless these are the bytes of this column's document, None for none."""


class Objects(Protocol):
    """The objects of one store. Thread-safe."""

    location: Location
    """The store's root."""
    writable: bool
    """Whether this place can be written at all."""
    read_only_reason: str = ""
    """Where it can't be: why, for messages."""

    looks_before_writing: bool
    """Whether each write for an owner looks at the owner's document first."""

    patience: float = PATIENCE
    """Seconds after which a change that others always forestall is given up."""

    deletes_at_once: bool = False
    """Whether :meth:`delete_tree` takes everything away in one step."""

    threads: int | None = None
    """How many threads are enough to read many objects; None: as many as requests may be.

    Where reading is work more than it is waiting, more threads are in each other's way.
    """

    def get(self, key: str, limit: int | None = None) -> bytes | None:
        """Return the object's bytes; None where there is none.

        Raises
        ------
        DamagedError
            Where it has more bytes than ``limit``; they are not read.
        """

    def get_marked(self, key: str, limit: int | None = None) -> tuple[bytes, str] | None:
        """Return the object's bytes and the mark of its owner, as far as that is known."""

    def is_still(self, key: str, state: str) -> bool:
        """Return whether an object is in a state that it was seen in: sure, and all but free.

        False also where that could only be asked of a server.
        """
        return False

    def get_unless(
        self,
        key: str,
        state: str,
        limit: int | None = None,
        room: Callable[[int], memoryview] | None = None,
        take: Take | None = None,
    ) -> Seen | None:
        """Return the object, without its bytes if it is still in a state that was seen before.

        A state is told by a look that costs less than the bytes do. Where there is no such look
        the bytes are always returned.

        Parameters
        ----------
        room : callable, optional
            Returns memory for so many bytes, which may be used for them.
        take : callable, optional
            Where a part of an object can be had for less than the whole, it is asked first
            whether it takes what it needs from there: of an object in this state, of so many
            bytes, by what reads from it. If it does, no bytes are returned.
        """
        found = self.get_marked(key, limit)
        return None if found is None else Seen(found[0], found[1], "")

    def get_versioned(self, key: str, limit: int | None = None) -> Versioned | None:
        """Return the object with its version; None where there is none."""

    def put(self, key: str, data: bytes, owner: Owner | None = None) -> None:
        """Write the object, whatever was there."""

    def create(self, key: str, data: bytes, owner: Owner | None = None) -> str | None:
        """Write the object if there is none; return its version, or None if there is."""

    def replace(
        self, key: str, data: bytes, version: str, owner: Owner | None = None
    ) -> str | None:
        """Write the object if it is still of this version; return the new one or None."""

    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: Owner) -> bool:
        """Make an object as good as absent, if it is still of this version.

        Parameters
        ----------
        key, version : str
            From :meth:`list_versions`.
        blank : callable
            Makes what the object is replaced by where a place can't remove on condition.
        owner : Owner
            Whose chunk it is.

        Returns
        -------
        bool
            False where it was changed meanwhile, and left as it is.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that aren't there are passed over."""

    def delete_tree(self, prefix: str) -> None:
        """Remove every object below ``prefix/``.

        Interrupted, it leaves nothing that could be taken for data: either all is gone
        from its place at once, or ``prefix/zarr.json`` goes last.
        """

    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        """Put all that is below ``source/`` in the place of all that is below ``prefix/``.

        At once, where the place can do that. Elsewhere ``prefix/zarr.json`` holds
        ``interim`` in the meantime; interrupted, it can be done again.
        """

    def list_dirs(self, prefix: str) -> list[str] | None:
        """Return the names of what has a ``zarr.json`` below it, directly below ``prefix/``.

        Object stores can't look: there it is what has any object below it. None where the
        place can't be listed at all, as most web servers can't.
        """

    def list_tree(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all objects below ``prefix/`` (``""``: the whole store)."""

    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the key of each object below ``prefix/`` with its version, for :meth:`erase`."""

    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        """Yield the key of each object below ``prefix/``, its size in bytes and its state.

        The state is another once the object has been written again; it is empty where
        nothing tells. The size of what is no file is -1.
        """

    def can_copy_from(self, other: "Objects") -> bool:
        """Return whether the server itself copies from there: :meth:`copy_from`."""
        return False

    def copy_from(self, other: "Objects", source: str, target: str) -> None:
        """Copy an object of another place with its mark, where :meth:`can_copy_from` says so."""
        raise StoreError(f"{self.location} does not copy {other.location}/{source} by itself")

    def occupied(self) -> bool:
        """Return whether anything at all is at this place."""

    def list_beside(self) -> list[tuple[str, bool]]:
        """Return what lies beside this place and is called as it is or begins so.

        Each with whether it is a directory (on object stores: the beginning of others' names).
        """

    def remove_place(self) -> None:
        """Remove what is left of an emptied store: a directory; on object stores, nothing."""
