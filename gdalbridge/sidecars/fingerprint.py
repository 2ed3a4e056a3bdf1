"""Fingerprints of the files that contain a raster's own table.

A fingerprint consists of a file's size, a digest of its first 64 KiB and its modification time. An
interrupted copy of a table is resumed only if all fingerprints are unchanged.
:mod:`gdalbridge.sidecars.pixel_samples` detects changes of a raster's pixels.
"""

import datetime as dt
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdalbridge.gdalio.rat_reader import RatSchema

__all__ = [
    "HEAD",
    "file_changes",
    "fingerprint",
    "main_file",
    "modified_at",
    "pixel_files",
    "table_changes",
    "table_source",
]

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
    # Imported here, because local files are described without GDAL.
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


def table_changes(recorded: object, now: Mapping[str, Any]) -> list[str]:
    """Describe the changes of a raster's own table.

    Parameters
    ----------
    recorded, now : dict
        Results of :func:`table_source`. ``recorded`` may also be any other value.

    Returns
    -------
    list of str
        Empty only if the table is certainly unchanged.
    """
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("files"), Mapping):
        return ["nothing was recorded to tell whether the table has changed"]
    if "files" not in now:
        return ["it is not a file, so changes of its table can't be detected"]
    words = [
        f"it has {now[what]} {what}, and had {recorded.get(what)!r:.40}"
        for what in ("rows", "columns")
        if recorded.get(what) != now[what]
    ]
    if not words and recorded.get("schema") != now["schema"]:
        words.append("the names, types or usages of its columns have changed")
    return words + file_changes(recorded["files"], now["files"])


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


def file_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the changes of files, by the endings of their names.

    Parameters
    ----------
    recorded, now : mapping
        Results of :func:`pixel_files`, or the files of :func:`table_source`.
    """
    ends = [*now, *(end for end in recorded if end not in now)]
    return [
        words
        for end in ends
        for words in _changes_of_file(str(end), recorded.get(end), now.get(end))
    ]


def _changes_of_file(end: str, then: object, now: Mapping[str, Any] | None) -> list[str]:
    if now is None:
        return [f"its file *{end} was removed"]
    if then is None:
        return [f"a file *{end} was added"]
    if not isinstance(then, Mapping):
        return [f"the recorded fingerprint of its file *{end} is not valid"]
    size, modified = then.get("bytes"), then.get("modified")
    if size != now["bytes"]:
        return [f"its file *{end} has {now['bytes']} bytes, and had {size!r:.40}"]
    if dict(then) != now:
        return [f"its file *{end} was changed at {now['modified']} (before: {modified!s:.40})"]
    return []
