"""The names and locations of a raster's tables.

A table's name is the raster's full name plus a suffix, like the names of GDAL's own sidecars
(``.aux.xml``, ``.ovr``):

>>> sidecar_path("dir/seg.tif"), sidecar_path("/vsis3/bucket/seg.tif", band=2, name="texture")
('dir/seg.tif.rat.zarr', 's3://bucket/seg.tif.band2.texture.rat.zarr')

If the raster's directory is not writable, the environment variable ``GDALBRIDGE_SIDECAR_DIR``
names a directory (or a prefix on S3) for sidecars, as ``GDAL_PAM_PROXY_DIR`` does for GDAL's.
Sidecars are searched for in the raster's directory first.
"""

import hashlib
import os
import posixpath
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gdalbridge.errors import LossWarning, SidecarNameError
from gdalbridge.settings import SIDECAR_DIR, sidecar_dir
from ratzarr import ListingRefusedError, RatZarr, RatZarrError, StorePermissionError
from ratzarr.format import mask
from ratzarr.stores import gdal_name, open_objects, url_name
from ratzarr.stores import parse as parse_location

__all__ = [
    "SUFFIX",
    "Sidecar",
    "find_checkpoints",
    "find_sidecars",
    "is_folder",
    "is_sidecar",
    "named",
    "parsed_name",
    "raster_label",
    "raster_name",
    "sidecar_dir_advised",
    "sidecar_path",
    "where",
    "writable_sidecar_path",
]

SUFFIX = ".rat.zarr"

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_BAND = re.compile(r"band([0-9]+)")
_TAIL = re.compile(
    r"(?:\.band(?P<band>[1-9][0-9]*))?(?:\.(?!band[0-9]+\.)(?P<name>[A-Za-z0-9_-]+))?\.rat\.zarr"
)
_CHECKPOINT = re.compile(r"(?P<table>.*)\.(?:build|zonal)-[0-9a-f]{8}\.checkpoint")
_BANDED = re.compile(r".+(?P<tail>\.band[1-9][0-9]*(?:\.[A-Za-z0-9_-]+)?\.rat\.zarr)")
# Matches secrets in a connection string, or in file system options in a name, also
# percent-encoded.
_SECRET_OPTION = re.compile(
    r"(?i)([\w.-]*(?:passw|pwd|token|secret|key|credential|auth|signature|userpwd|sig)[\w.-]*"
    r"(?:=|%3D))(?:'[^']*'|\"[^\"]*\"|(?:(?!%26)[^&\s])*)"
)
_HEADER = re.compile(r"(?i)\b(bearer|basic)(?: |%20|\+)[^\s&]+")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A table found beside a raster."""

    path: str
    """Path or URL of the store."""
    band: int
    """Band of the raster that it belongs to, counted from 1."""
    name: str | None
    """Name of a further table; None for the band's first table."""


def raster_name(raster: Any) -> str:
    """Return the path or URL of a raster.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        GDAL's ``/vsi`` names are converted to URLs if possible.

    Raises
    ------
    SidecarNameError
        If the dataset is not a file, so that no sidecar can lie beside it.
    """
    if isinstance(raster, str | os.PathLike):
        name = os.fspath(raster)
    elif hasattr(raster, "GetDescription") and hasattr(raster, "GetRasterBand"):
        name = raster.GetDescription()
        driver = raster.GetDriver().ShortName
        if not name or driver == "MEM" or name.startswith("<"):
            raise SidecarNameError(
                f"a dataset in memory ({driver}) has no file that a sidecar could lie beside. "
                "Pass the path of the sidecar."
            )
    else:
        raise SidecarNameError(
            f"a raster must be a path, a URL or a gdal.Dataset; got {raster!r}, a "
            f"{type(raster).__name__}"
        )
    if not name:
        raise SidecarNameError("a raster's name must not be empty")
    url = url_name(str(name))
    if url.startswith("/vsi"):
        raise SidecarNameError(
            f"{name}: no sidecar can lie beside a raster in this file system of GDAL. "
            "Pass the path of the sidecar."
        )
    if not url.strip("/"):
        raise SidecarNameError(f"{name} is a directory, not a raster")
    return url.rstrip("/")


def raster_label(raster: str, sidecar: Any, *, is_path: bool = False) -> str:
    """Return the name of a raster for ``RASTER``, without secrets.

    With ``is_path``, it is certainly a local path, even if the file no longer exists.

    The name is relative to the table's directory if both lie in one tree (below a common directory
    other than the root, or in one bucket), so that both can be moved together:

    >>> raster_label("s3://bucket/dir/seg.tif", "s3://bucket/dir/seg.tif.rat.zarr")
    'seg.tif'
    >>> raster_label("/vsicurl/https://me:pw@host/seg.tif", "s3://bucket/seg.tif.rat.zarr")
    'https://***@host/seg.tif'
    """
    name, place = url_name(raster), parse_location(sidecar)
    if is_path or _is_file(name):
        folder = str(Path(place.path).parent.resolve()) if place.kind == "local" else "/"
        own = str(Path(name).absolute().parent.resolve() / Path(name).name)
        apart = len(Path(os.path.commonpath([folder, own])).parts) == 1
        label = own if apart else Path(os.path.relpath(own, folder)).as_posix()
    elif place.kind == "s3" and name.lower().startswith(f"s3://{place.bucket}/".lower()):
        key = name[len(f"s3://{place.bucket}/") :]
        # For keys with // or .., a relative path would refer to another object.
        label = name
        if posixpath.normpath(key) == key and not key.startswith("."):
            label = posixpath.relpath(key, posixpath.dirname(place.key) or ".")
    else:
        label = _masked(name)
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_file(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:
        return False


def _masked(name: str) -> str:
    masked = _masked_once(name)
    # A URL can be an option of another URL, and percent-encoded once per level.
    inner = unquote(masked)
    if inner == masked:
        return masked
    found = _masked(inner)
    return masked if found == inner else found


def _masked_once(name: str) -> str:
    return _SECRET_OPTION.sub(r"\1***", _HEADER.sub(r"\1 ***", mask([name])[0]))


def is_sidecar(name: Any) -> bool:
    """Return True if a name has the form of a sidecar's name."""
    text = str(name).rstrip("/")
    return text.endswith(SUFFIX) and len(text) > len(SUFFIX)


def where(name: str) -> str:
    """Return a normalized location: the same for all names of one table."""
    location = parse_location(name)
    return os.path.realpath(location.path) if location.kind == "local" else location.url


def is_folder(name: Any) -> bool:
    """Return True if a name refers to a directory, not a raster."""
    text = url_name(str(name))
    if text.lower().startswith("s3://"):
        return text.endswith("/") or "/" not in text[len("s3://") :]
    return text.endswith("/") or Path(text).is_dir()


def parsed_name(path: str, raster: str | None = None) -> Sidecar:
    """Parse a sidecar's name.

    >>> parsed_name("dir/seg.tif.band2.texture.rat.zarr")
    Sidecar(path='dir/seg.tif.band2.texture.rat.zarr', band=2, name='texture')
    >>> parsed_name("dir/seg.tif.texture.rat.zarr", "seg.tif")
    Sidecar(path='dir/seg.tif.texture.rat.zarr', band=1, name='texture')

    Without the raster's name, the end of the name could also be part of it, so the table's name is
    None.
    """
    base = path.rstrip("/").rpartition("/")[2]
    tail = base.removeprefix(raster) if raster and base.startswith(raster) else None
    if tail is None:
        banded = _BANDED.fullmatch(base)
        tail = banded["tail"] if banded else SUFFIX
    match = _TAIL.fullmatch(tail)
    if match is None:
        return Sidecar(path, 1, None)
    return Sidecar(path, int(match["band"] or 1), match["name"])


def _suffix(band: object, name: object) -> str:
    if isinstance(band, bool) or not isinstance(band, int) or band < 1:
        raise SidecarNameError(f"bands are counted from 1; got {band!r}")
    middle = "" if band == 1 else f".band{band}"
    if name is not None:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or _BAND.fullmatch(name):
            raise SidecarNameError(
                f"a table's name must consist of letters, digits, '_' and '-', and must not be "
                f"'band' with a number; got {name!r}"
            )
        middle += f".{name}"
    return middle + SUFFIX


def named(name: str | None) -> str:
    """Return the name of a table for messages.

    >>> named("texture"), named(None)
    ("'texture'", '(unnamed)')
    """
    return "(unnamed)" if name is None else repr(name)


def sidecar_path(raster: Any, band: int = 1, name: str | None = None) -> str:
    """Return the path of a raster's sidecar, which need not exist.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A path, a URL, a ``/vsi`` name or an open dataset.
    band : int
        Counted from 1.
    name : str, optional
        The name of a further table of the band: letters, digits, ``_`` and ``-``.

    Raises
    ------
    SidecarNameError
        If the band or the name is not valid, or the raster is not a file.
    """
    url = raster_name(raster)
    if url.lower().startswith(("http://", "https://")):
        # The part after the ? is a signature for the raster's URL only.
        url = url.partition("?")[0]
    return url + _suffix(band, name)


def _proxy_base(url: str) -> str | None:
    folder = sidecar_dir()
    if not folder:
        return None
    whole = url if "://" in url else _full_name(url)
    # A digest of the full path distinguishes rasters of one name in different directories.
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    base = whole.partition("?")[0].rpartition("/")[2]
    return f"{url_name(folder).rstrip('/')}/{digest}-{base}"


def _full_name(path: str) -> str:
    found = Path(path).absolute()
    # The parent of a symbolic link's target is not the link's.
    return str(found.parent.resolve() / found.name if ".." in found.parts else found)


def writable_sidecar_path(raster: Any, band: int = 1, name: str | None = None) -> str:
    """Return the path for writing a raster's sidecar.

    The path is beside the raster, or in ``GDALBRIDGE_SIDECAR_DIR`` if the raster's directory is
    not writable.

    Parameters and errors are those of :func:`sidecar_path`.
    """
    beside = sidecar_path(raster, band, name)
    proxy = None if _can_write(beside) else _proxy_base(raster_name(raster))
    return beside if proxy is None else proxy + _suffix(band, name)


@contextmanager
def sidecar_dir_advised(path: Any) -> Iterator[None]:
    """Add the way out to an error that says that a sidecar's place can't be written.

    Parameters
    ----------
    path : str
        The sidecar.
    """
    try:
        yield
    except StorePermissionError as error:
        if isinstance(path, str) and is_sidecar(path) and not _can_write(path):
            error.add_note(
                f"{SIDECAR_DIR} names a directory, or a prefix on S3, for tables that can't lie beside "
                "their rasters."
            )
        raise


def _can_write(path: str) -> bool:
    kind = parse_location(path).kind
    if kind != "local":
        return kind == "s3"
    here = Path(path)
    return os.access(here if here.exists() else here.absolute().parent, os.W_OK)


def find_sidecars(
    raster: Any,
    band: int | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    must_list: bool = False,
) -> list[Sidecar]:
    """Return the tables that lie beside a raster.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        See :func:`sidecar_path`. It need not exist.
    band : int, optional
        Return only the tables of this band.
    storage_options : mapping, optional
        Arguments for the file system.
    must_list : bool
        If True, raise an error if listing the bucket is not allowed. If False, issue a
        :class:`LossWarning` and return no tables: a public bucket may allow reading a raster and
        forbid listing.

    Raises
    ------
    ratzarr.RatZarrError
        If the names beside the raster can't be determined.

    Returns
    -------
    list of Sidecar
        Tables ordered by band and name, the band's first table first. If a table exists both
        beside the raster and in ``GDALBRIDGE_SIDECAR_DIR``, only the former is returned.
        ``seg.tif.rat.zarr`` could be the table ``tif`` of a raster ``seg``; if ``seg.tif`` exists,
        it belongs to ``seg.tif``.
    """
    found: dict[tuple[int, str | None], Sidecar] = {}
    for base in _bases(raster):
        try:
            beside = _beside(base, storage_options)
        except ListingRefusedError as error:
            if must_list:
                raise
            warnings.warn(
                f"{raster_name(raster)}: its sidecars can't be listed, and are left out: {error}",
                LossWarning,
                stacklevel=2,
            )
            continue
        for tail, is_directory in beside.items():
            key = _table_of(tail, beside) if is_directory else None
            if key is not None:
                found.setdefault(key, Sidecar(base + tail, *key))
    order = sorted(found.values(), key=lambda one: (one.band, one.name or ""))
    return [one for one in order if band is None or one.band == band]


def find_checkpoints(
    raster: Any, *, storage_options: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the places of checkpoints that interrupted runs have left beside a raster's tables.

    See :mod:`gdalbridge.rasters.checkpoint`. The tables need not exist yet. Parameters are those of
    :func:`find_sidecars`.
    """
    found = []
    for base in _bases(raster):
        beside = _beside(base, storage_options)
        for tail, is_directory in beside.items():
            match = _CHECKPOINT.fullmatch(tail) if is_directory else None
            if match is not None and _table_of(match["table"], beside) is not None:
                found.append(base + tail)
    return sorted(found)


def _bases(raster: Any) -> list[str]:
    """Return the beginnings of the names of a raster's tables, in both places."""
    proxy = _proxy_base(raster_name(raster))
    beside = sidecar_path(raster)[: -len(SUFFIX)]
    return [beside] if proxy is None else [beside, proxy]


def _table_of(tail: str, beside: Mapping[str, bool]) -> tuple[int, str | None] | None:
    """Return band and name of a raster's table by the end of its name; None if it is not its own.

    ``beside`` has the endings of all names that begin with the raster's.
    """
    match = _TAIL.fullmatch(tail)
    if match is None or match["band"] == "1":
        return None
    # If seg.tif exists, seg.tif.rat.zarr is its table, not a table of a raster seg.
    if match["name"] and tail.removesuffix(SUFFIX) in beside:
        return None
    return int(match["band"] or 1), match["name"]


def _beside(base: str, storage_options: Mapping[str, Any] | None) -> dict[str, bool]:
    """Return the endings of names that begin with ``base``, each with True for a directory."""
    objects = open_objects(parse_location(base), storage_options)
    try:
        names = objects.list_beside()
    except RatZarrError:
        if objects.writable:
            raise
        # Most web servers can't list, so check only the name of the first table.
        there = RatZarr.isValidRatZarr(base + SUFFIX, storageOptions=storage_options)
        return {SUFFIX: True} if there else {}
    name = gdal_name(base).rpartition("/")[2]
    return {entry[len(name) :]: is_directory for entry, is_directory in names}
