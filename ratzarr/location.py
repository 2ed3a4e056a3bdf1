"""Where a table lives: what a filename means. Pure; nothing is looked up here.

A filename is a local path, a ``file://`` URL, ``s3://bucket/key``, GDAL's
``/vsis3/bucket/key``, or any other URL that fsspec can read. GDAL's names and URLs
translate both ways:

>>> parse("/vsis3/bucket/dir/x.rat.zarr/").url
's3://bucket/dir/x.rat.zarr'
>>> gdal_name("s3://bucket/dir/x.tif"), url_name("/vsicurl/https://host/x.tif")
('/vsis3/bucket/dir/x.tif', 'https://host/x.tif')
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from .errors import ArgumentError

__all__ = ["Location", "gdal_name", "parse", "url_name"]

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
