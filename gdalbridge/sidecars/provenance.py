"""What a table records of the raster that it comes from.

``PROVENANCE`` records with each column which operation and versions wrote it, and from which
raster. ``RASTER`` describes the raster that a table belongs to, so that a change of the raster is
detected. Both travel with the table, so they contain no secrets of a raster's name.
:mod:`gdalbridge.sidecars.staleness` reads and compares them.

A file's fingerprint consists of its size, a digest of its first 64 KiB and its modification time.
An interrupted copy of a table is resumed only if those of all files that can contain the table are
unchanged.

A sample of pixels is a small window of one band, with a digest of the values as GDAL decodes them.
The digest stays the same if the file is copied, compressed or tiled differently, and if metadata,
statistics, overviews or a colour table are written. The windows depend only on the raster's size
and data type. Two sets of samples are compared in the windows that they share. A change outside
all windows is not detected. On a server each sample costs requests, so few are taken there.

GDAL is imported where it is needed, because sidecars are listed without it.
"""

import datetime as dt
import hashlib
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdalbridge.sidecars.naming import raster_label
from ratzarr.stores import state_of

if TYPE_CHECKING:
    from gdalbridge.gdalio.rat_reader import RatSchema

__all__ = [
    "HEAD",
    "RASTER_ATTR",
    "REFERRERS",
    "column_provenance",
    "described",
    "differing_samples",
    "fingerprint",
    "is_remote",
    "main_file",
    "modified_at",
    "pixel_files",
    "raster_attribute",
    "sample_pixels",
    "table_source",
    "versions",
]

RASTER_ATTR = "RASTER"

NO_TRANSFORM = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""The geotransform that some formats return in place of none."""


def versions() -> dict[str, str]:
    """Return the versions of GDAL and of the packages involved."""
    return dict(_versions())


@cache
def _versions() -> Mapping[str, str]:
    # Cached, because each version is read from a file, and none changes while the process runs.
    from gdalbridge.gdalio.compat import gdal

    found = {"gdal": str(gdal.VersionInfo("RELEASE_NAME"))}
    for package in ("ratzarr", "zarr", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # The package runs from a directory without being installed.
            found[package] = "unknown"
    return found


def column_provenance(
    operation: str,
    raster: Mapping[str, Any],
    column: str | None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attribute ``PROVENANCE`` for a new column.

    Parameters
    ----------
    operation : str
        ``copy``, ``apply``, ...
    raster : mapping
        From :func:`raster_attribute`.
    column : str, optional
        GDAL's name of the source column.
    source : mapping, optional
        From :func:`table_source`. An interrupted copy is resumed only if this is unchanged. For a
        column of an attached table, the ``rows`` of the raster's own table that it stood beside.
    """
    return {
        "operation": operation,
        "versions": versions(),
        "raster": raster["name"],
        "band": raster["band"],
        "column": column,
        "fingerprint": raster["fingerprint"],
        "source": None if source is None else dict(source),
    }


def raster_attribute(dataset: Any, band: int, sidecar: Any) -> dict[str, Any]:
    """Return the attribute ``RASTER``, which describes a raster's current state.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    band : int
        The band that the table belongs to.
    sidecar : str or os.PathLike
        The location of the table. The raster's name is relative to it if possible.
    """
    file = main_file(dataset)
    found = described(dataset, band)
    found["name"] = None if file is None else raster_label(dataset.GetDescription(), sidecar)
    if file is not None:
        found["fingerprint"] = {
            "modified": modified_at(file),
            "pixels": sample_pixels(dataset, band, file),
        }
    return found


def described(dataset: Any, band: int) -> dict[str, Any]:
    """Return the attribute ``RASTER`` without a name, and without reading pixels."""
    from gdalbridge.gdalio.compat import data_type, exceptions, silence
    from gdalbridge.gdalio.datasets import siblings_visible

    # Some formats only now look for a geotransform in files beside the raster. If GDAL reports an
    # error in a table there, it is reported when the table is read, not here.
    with exceptions(False), silence(), siblings_visible(dataset.GetDescription()):
        transform = dataset.GetGeoTransform(can_return_null=True)
    is_known = transform is not None and tuple(transform) != NO_TRANSFORM
    is_known = is_known and all(map(math.isfinite, transform))
    return {
        "name": None,
        "band": band,
        "size": [dataset.RasterXSize, dataset.RasterYSize],
        "bands": dataset.RasterCount,
        "type": data_type(dataset.GetRasterBand(band)),
        "geotransform": list(transform) if is_known else [],
        "fingerprint": None,
    }


# ---- fingerprints of files

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
HEAD = 64 * 1024
"""The number of bytes read from a file."""

NOT_THE_TABLE = (".ovr", ".msk", ".rat.zarr")
"""Endings of files that never contain the raster's own table."""
BESIDE = (".aux.xml", ".vat.dbf", ".aux")
"""Endings that GDAL appends to a raster's name for files that can contain its table."""


def fingerprint(name: str) -> dict[str, Any] | None:
    """Return the fingerprint of a file; None if it is missing or not a regular file.

    Parameters
    ----------
    name : str
        A path, or one of GDAL's ``/vsi`` names.

    Returns
    -------
    dict or None
        ``bytes``: its size; ``sha256_head``: 16 hexadecimal digits of the SHA-256 of its first
        64 KiB; ``modified``: its modification time, ISO-8601 in UTC, None if it is unknown.
    """
    try:
        found = _of_vsi(name) if name.startswith("/vsi") else _of_local(name)
    except (OSError, ValueError, RuntimeError):
        # The file is missing or not readable, or the name is invalid.
        return None
    if found is None:
        return None
    size, head, microseconds = found
    digest = hashlib.sha256(head).hexdigest()[:16]
    return {"bytes": size, "sha256_head": digest, "modified": _in_utc(microseconds)}


def _of_local(name: str) -> tuple[int, bytes, int] | None:
    # The name may come from an untrusted table. O_NONBLOCK prevents waiting for the writer of a
    # pipe.
    file = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return None
        # A file with size 0 but content is not a file on a disk (for example, in /proc).
        head = opened.read(HEAD) if found.st_size else b""
    return found.st_size, head, found.st_mtime_ns // 1000


def _of_vsi(name: str) -> tuple[int, bytes, int] | None:
    from gdalbridge.gdalio.compat import gdal, silence

    with silence():
        found = gdal.VSIStatL(name)
        if found is None or found.IsDirectory():
            return None
        file = gdal.VSIFOpenL(name, "rb")
        if file is None:
            return None
        try:
            head = gdal.VSIFReadL(1, HEAD, file)
        finally:
            gdal.VSIFCloseL(file)
    return found.size, bytes(head or b""), found.mtime * 1_000_000


def _in_utc(microseconds: int) -> str | None:
    # Some of GDAL's file systems have no times, or times outside the calendar.
    with suppress(OverflowError):
        if microseconds > 0:
            when = EPOCH + dt.timedelta(microseconds=microseconds)
            return when.isoformat().replace("+00:00", "Z")
    return None


def modified_at(name: str) -> str | None:
    """Return a file's modification time, ISO-8601 in UTC; None if it is unknown.

    Parameters
    ----------
    name : str
        A path, or one of GDAL's ``/vsi`` names.
    """
    try:
        if not name.startswith("/vsi"):
            return _in_utc(os.stat(name).st_mtime_ns // 1000)  # noqa: PTH116 - names, not paths
        from gdalbridge.gdalio.compat import gdal, silence

        with silence():
            found = gdal.VSIStatL(name)
        return None if found is None else _in_utc(found.mtime * 1_000_000)
    except (OSError, ValueError, RuntimeError):
        return None


def main_file(dataset: Any) -> str | None:
    """Return the file of a dataset; None for a dataset in memory or made from text.

    For a part of a file (``NETCDF:"x.nc":v``), return that file.
    """
    from gdalbridge.gdalio.datasets import file_of

    name = file_of(dataset)
    if name is None or name.startswith("/vsi") or os.path.lexists(name):
        return name
    files = dataset.GetFileList()
    return files[0] if files else None


def table_source(dataset: Any, schema: "RatSchema") -> dict[str, Any]:
    """Describe the state of a raster's own table, ready for JSON.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    schema : RatSchema
        The schema of the band's table.

    Returns
    -------
    dict
        The numbers of rows and columns, a digest of the columns' names, types and usages, and
        ``files``: the fingerprint of each file that can contain the table. ``files`` has the
        endings of their names as keys, so that renaming the raster changes nothing. If ``files``
        is missing, a change of the table can't be detected.
    """
    described = [(column.name, column.type, column.usage) for column in schema.columns]
    digest = hashlib.sha256(json.dumps(described).encode("utf-8")).hexdigest()
    found: dict[str, Any] = {
        "rows": schema.rows,
        "columns": len(schema.columns),
        "schema": digest[:16],
    }
    main = main_file(dataset)
    if main is not None:
        files = {
            _end(name, main): mark
            for name in _table_files(dataset, main)
            if (mark := fingerprint(name)) is not None
        }
        if files:
            found["files"] = files
    return found


def _table_files(dataset: Any, main: str) -> list[str]:
    from gdalbridge.gdalio.compat import gdal

    if main.startswith("/vsi") and not gdal.GetConfigOption("GDAL_PAM_PROXY_DIR"):
        # GDAL's list of a raster's files costs dozens of requests on S3; these cost one each.
        stem = main.rpartition(".")[0]
        beside = [*(main + end for end in BESIDE), f"{stem}.aux"] if "?" not in main else []
        return [main, *beside]
    base = _base(main).rpartition(".")[0] or _base(main)
    files = [
        name
        for name in dataset.GetFileList() or ()
        if not name.lower().endswith(NOT_THE_TABLE)
        and (_base(name).startswith(base) or name.lower().endswith(BESIDE))
    ]
    return list(dict.fromkeys([main, *files]))


def _base(name: str) -> str:
    # The part after the ? is a signature, which differs each time.
    return name.partition("?")[0].replace("\\", "/").rpartition("/")[2]


def _end(name: str, main: str) -> str:
    return _base(name).removeprefix(_base(main).rpartition(".")[0])


def pixel_files(dataset: Any) -> dict[str, Any] | None:
    """Describe the state of the files that have a raster's pixels, ready for JSON.

    Files beside the raster for its table, statistics and overviews are left out: a program that
    shows the raster may write them at any time.

    Returns
    -------
    dict or None
        The fingerprint of each file; None if the raster is not a file.
    """
    main = main_file(dataset)
    if main is None:
        return None
    # GDAL's list of a raster's files costs dozens of requests on S3.
    is_alone = main.startswith("/vsi") and dataset.GetDriver().ShortName != "VRT"
    names = [main] if is_alone else [main, *(dataset.GetFileList() or ())]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        mark = fingerprint(name)
        if mark is not None and not name.lower().endswith((".ovr", ".rat.zarr", *BESIDE)):
            end = _end(name, main)
            # The sources of a VRT may lie in several directories.
            found[end if end not in found else f"{end} ({len(found)})"] = mark
    return found or None


# ---- samples of pixels

REFERRERS = frozenset({"VRT", "GTI", "STACTA", "STACIT", "WMS", "WMTS"})
"""Drivers of rasters that are composed of other rasters."""

PLACES = (
    (1 / 2, 1 / 2), (1 / 4, 3 / 4), (3 / 4, 1 / 4), (1 / 4, 1 / 4), (3 / 4, 3 / 4),
    (1 / 2, 1 / 16), (1 / 2, 1 / 256), (0, 0),
)  # fmt: skip
"""The positions of the windows, as fractions of width and height; the most significant ones
first."""
WIDTH, HEIGHT = 256, 16
"""The size of a window in pixels. Its corner is at a multiple of both numbers. Tiles of TIFFs
are multiples of 16 pixels, so a window lies in one row of tiles."""
STRIP_BYTES = 2**20
"""The maximum size in bytes of the window's rows over the full width of the raster. Windows of
wide rasters therefore have fewer rows."""
BLOCK_BYTES = 32 * 2**20
"""The maximum size of a decoded block in bytes; no sample is taken of larger ones."""

REMOTE_SAMPLES = 2
REMOTE_BLOCKS = 768
"""For a TIFF with at most this number of blocks, GDAL knows the location of each block after
opening the file: the first 16 KiB contain two lists of 8 bytes per block. Each sample is then
one request."""
REMOTE_INDEX = 1500
"""For a TIFF with more blocks: up to this index, a block's offset is certainly within the first
16 KiB, but its length is not. A sample of such a block takes two requests."""

_REMOTE = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)")
_STREAMED = re.compile(r"/vsi\w+_streaming")

EMPTY = "empty"
"""Replaces the digest of a window without stored values. The values that GDAL returns for it
depend on metadata."""
CONSTANT = "all "
"""Prefix of the value that replaces the digest of a window with a single value."""


KNOWN_FILES = 64
_known: dict[tuple[str, int], tuple[str, dict[str, str]]] = {}
"""Samples of local files, by name and band, with the state of the file. Programs attach to the
same raster repeatedly."""


@dataclass(frozen=True, slots=True)
class _Window:
    x: int
    y: int
    columns: int
    rows: int

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.columns},{self.rows}"


def is_remote(name: str) -> bool:
    """Return True if GDAL reads a file from a server."""
    return _REMOTE.search(name) is not None


def sample_pixels(dataset: Any, number: int, file: str) -> dict[str, str]:
    """Return the digests of a band's samples, by window.

    On a server, at most two requests are made. A TIFF of few blocks then has two samples, and a
    TIFF of many blocks has one sample near its beginning. Formats that need more requests to find
    a block have no samples.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    number : int
        The band, counted from 1.
    file : str
        The file of the raster.

    Returns
    -------
    dict of str to str
        Digests by window, as ``"column,row,columns,rows"``. Empty if samples are too expensive or
        can't be read.
    """
    from gdalbridge.gdalio.compat import exceptions, gdal, silence

    state = _state(dataset, file)
    if state and (known := _known.get((file, number))) is not None and known[0] == state:
        return dict(known[1])
    band = dataset.GetRasterBand(number)
    found = {}
    with exceptions(), silence():
        try:
            itemsize = max(1, gdal.GetDataTypeSize(band.DataType) // 8)
            for window in _affordable(dataset, band, number, file, itemsize):
                found[str(window)] = _digest(band, window, itemsize)
        except (RuntimeError, ValueError, MemoryError):
            # After an error, no samples can be trusted.
            return {}
        finally:
            gdal.ErrorReset()
    if state:
        if len(_known) >= KNOWN_FILES:
            _known.clear()
        _known[file, number] = state, dict(found)
    return found


def _state(dataset: Any, file: str) -> str:
    """Return a state that changes with the file; empty if it can't be determined."""
    # Other formats may store pixels in several files.
    if dataset.GetDriver().ShortName != "GTiff" or file.startswith("/vsi"):
        return ""
    try:
        return state_of(Path(file).stat())
    except (OSError, ValueError):
        return ""


def _windows(dataset: Any, itemsize: int) -> Iterator[_Window]:
    width, height = dataset.RasterXSize, dataset.RasterYSize
    # Use a power of two, so that no window crosses the border of a tile.
    rows = max(1, min(HEIGHT, STRIP_BYTES // (width * itemsize)))
    rows = 1 << (rows.bit_length() - 1)
    for across, down in PLACES:
        x = int(width * across) // WIDTH * WIDTH
        y = int(height * down) // HEIGHT * HEIGHT
        yield _Window(x, y, min(WIDTH, width - x), min(rows, height - y))


def _affordable(dataset: Any, band: Any, number: int, file: str, itemsize: int) -> list[_Window]:
    block_width, block_height = band.GetBlockSize()
    if block_width * block_height * itemsize > BLOCK_BYTES or not _is_readable(dataset, file):
        return []
    windows = list(dict.fromkeys(_windows(dataset, itemsize)))
    if is_remote(file):
        if dataset.GetDriver().ShortName != "GTiff" or _STREAMED.search(file):
            return []
        across = -(-dataset.RasterXSize // block_width)
        blocks = across * -(-dataset.RasterYSize // block_height)
        before = 0
        if dataset.GetMetadataItem("INTERLEAVE", "IMAGE_STRUCTURE") == "BAND":
            before = (number - 1) * blocks
            blocks *= dataset.RasterCount
        if blocks <= REMOTE_BLOCKS:
            # If a window spans several narrow tiles, they may not be adjacent in the file.
            is_narrow = block_width < min(WIDTH, dataset.RasterXSize)
            windows = windows[: 1 if is_narrow else REMOTE_SAMPLES]
        else:

            def last(window: _Window) -> int:
                row = (window.y + window.rows - 1) // block_height
                column = (window.x + window.columns - 1) // block_width
                return int(before + row * across + column)

            windows = [one for one in windows if last(one) <= REMOTE_INDEX][:1]
    # Some formats can only be read from top to bottom.
    return sorted(windows, key=lambda one: one.y)


def _is_readable(dataset: Any, file: str) -> bool:
    """Return True if reading pixels opens no remote or special files besides the raster."""
    from gdalbridge.gdalio.compat import vrt_xml

    driver = dataset.GetDriver().ShortName
    if driver not in REFERRERS:
        return True
    # A server or a pipe may never respond.
    described = vrt_xml(dataset) if driver == "VRT" else "://"
    if is_remote(file) or any(word in described for word in ("/vsi", "://", ".vrt")):
        return False
    return all(Path(name).is_file() for name in dataset.GetFileList() or ())


def _digest(band: Any, window: _Window, itemsize: int) -> str:
    from gdalbridge.gdalio.compat import gdal

    place = (window.x, window.y, window.columns, window.rows)
    status, _ = band.GetDataCoverageStatus(*place)
    # If only some of its blocks are stored, it has values to compare.
    if status == gdal.GDAL_DATA_COVERAGE_STATUS_EMPTY:
        return EMPTY
    data = bytes(band.ReadRaster(*place, buf_type=band.DataType))
    if sys.byteorder == "big":  # pragma: no cover - no such machine is tested
        complex_ = gdal.DataTypeIsComplex(band.DataType)
        unit = itemsize // 2 if complex_ else itemsize
        data = b"".join(data[at : at + unit][::-1] for at in range(0, len(data), unit))
    first = data[:itemsize]
    if first * (len(data) // itemsize) == data:
        return CONSTANT + first.hex()
    return hashlib.sha256(data).hexdigest()[:16]


def differing_samples(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[list[str], int]:
    """Return the windows in which two sets of samples differ, and the number compared."""
    common = [window for window in now if window in then]
    judged = [window for window in common if not _undecided(then[window], now[window])]
    return [window for window in judged if then[window] != now[window]], len(judged)


def _undecided(then: str, now: str) -> bool:
    # A copy of an empty window has a single value there: zero or the no-data value.
    return EMPTY in (then, now) and then != now and _is_flat(then) and _is_flat(now)


def _is_flat(sample: str) -> bool:
    return sample == EMPTY or sample.startswith(CONSTANT)
