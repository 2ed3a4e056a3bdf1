"""Lists the tables of a raster or a directory, and tells whether they fit their rasters."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, GdalMissingError, RasterNotFoundError
from gdalbridge.gdalio.special_files import refuse_special_files
from gdalbridge.sidecars.column_access import readable_columns
from gdalbridge.sidecars.naming import (
    Sidecar,
    find_sidecars,
    is_folder,
    is_sidecar,
    parsed_name,
    raster_name,
)
from gdalbridge.sidecars.provenance import (
    RASTER_ATTR,
    parsed_raster,
    recorded_now,
)
from gdalbridge.sidecars.staleness import changed_tables
from ratzarr import RatZarr, RatZarrError, StoreError
from ratzarr.format import COMPLETE_ATTR
from ratzarr.pipeline import run
from ratzarr.stores import Location, Objects, gdal_name, open_objects
from ratzarr.stores import parse as parse_location

__all__ = ["TableInfo", "list_tables"]

MAX_FOLDERS = 1000
"""The maximum number of directories that one listing of a bucket reads."""

type Now = Callable[[Sidecar, Any], Mapping[str, Any] | None]
"""A function that returns the current description of a table's raster, given the table and the
recorded description."""


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table in a listing."""

    path: str
    band: int
    name: str | None
    """Name of a further table; None for the band's first table."""
    rows: int
    columns: int
    bytes: int | None
    """Stored size in bytes; None if the location, such as a web server, can't list objects."""
    complete: bool
    """True if all columns are complete."""
    problem: str | None = None
    """If the table can't be read, the reason. Its numbers are then 0."""
    changes: tuple[str, ...] = ()
    """Descriptions of the changes of its raster since the table was made."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def list_tables(
    raster: Any, *, storage_options: Mapping[str, Any] | None = None
) -> list[TableInfo]:
    """Return the tables of a raster, or all tables in a directory and below it.

    Parameters
    ----------
    raster : str or os.PathLike
        A raster, a directory, or a single table. The raster may be missing if its tables exist. On
        S3, a directory is a bucket, a name that ends in ``/``, or any other name that is not a
        raster with tables. Each directory on S3 costs a request, and more than 1000 are refused.
    storage_options : mapping, optional
        Arguments for the tables' file system.

    Raises
    ------
    RasterNotFoundError
        If the location contains neither a raster nor a directory nor a table.
    RatZarrError
        If the location can't be listed. A problem with a single table or subdirectory does not
        raise an error; it is reported in :attr:`TableInfo.problem`.

    Notes
    -----
    For a directory on S3, the rasters are not opened, so their changes are not reported.
    """

    def recorded(one: Sidecar, then: Any) -> Mapping[str, Any] | None:
        return recorded_now(then, one.path, storage_options)

    if is_sidecar(raster):
        return [_described(str(os.fspath(raster)), storage_options, recorded)]
    if is_folder(raster):
        is_local = parse_location(os.fspath(raster).rstrip("/") + "/x").kind == "local"
        names = _in_folder(os.fspath(raster), storage_options)
        return _all_described(names, storage_options, recorded if is_local else _unknown)
    if isinstance(raster, str | os.PathLike):
        refuse_special_files(gdal_name(os.fspath(raster)))
    with ExitStack() as stack:
        found = _tables_of(raster, storage_options, stack)
        if not found:
            if folder := _s3_folder(raster):
                names = _in_folder(folder, storage_options, raster)
                return _all_described(names, storage_options, _unknown)
            if not hasattr(raster, "GetRasterBand"):
                _check_there(raster)
        return [_described(one, storage_options, now_of) for one, now_of in found]


def _tables_of(
    raster: Any, options: Mapping[str, Any] | None, stack: ExitStack
) -> list[tuple[Sidecar, Now]]:
    """Return a raster's tables, each with a function that describes its raster."""
    try:
        from gdalbridge.gdalio.datasets import opened
        from gdalbridge.sidecars.host import find_hosted
    except GdalMissingError:
        found = find_sidecars(raster, storage_options=options, must_list=True)
        return [(one, _unknown) for one in found]
    hosted = find_hosted(raster, storage_options=options, must_list=True)
    dataset = None
    if hosted:
        # The raster may be missing.
        with suppress(RasterNotFoundError, RatZarrError):
            dataset = stack.enter_context(opened(raster, options))

    def now_of(host: Any, one: Sidecar, then: Any) -> Mapping[str, Any] | None:
        if dataset is None or one.band > dataset.RasterCount:
            return None
        now: Mapping[str, Any] = host.now(dataset, one.path, options)
        return now

    return [(one.sidecar, partial(now_of, one.host)) for one in hosted]


def _all_described(
    found: list[str | TableInfo], options: Mapping[str, Any] | None, now_of: Now
) -> list[TableInfo]:
    return [
        one if isinstance(one, TableInfo) else _described(one, options, now_of) for one in found
    ]


def _check_there(raster: Any) -> None:
    place = parse_location(raster_name(raster))
    if place.kind == "local" and not os.path.lexists(place.path):
        raise RasterNotFoundError(f"{raster} does not exist, and no table lies beside it")


def _unknown(one: Sidecar, then: Any) -> None:
    return None


def _s3_folder(raster: Any) -> str:
    """Return the prefix that a name on S3 may stand for; otherwise an empty string."""
    if hasattr(raster, "GetRasterBand"):
        return ""
    place = parse_location(raster_name(raster))
    return place.url + "/" if place.kind == "s3" else ""


def _in_folder(
    folder: str, options: Mapping[str, Any] | None, raster: Any = None
) -> list[str | TableInfo]:
    """Return the tables in a directory and below it, and subdirectories that can't be listed."""
    inside = parse_location(folder.rstrip("/") + "/x")
    is_s3 = inside.kind == "s3"
    top = inside.url[: -len("x")] if is_s3 else folder.rstrip("/") + "/"
    names = _s3_names if is_s3 else _local_names
    found: list[str | TableInfo] = []
    level, count, is_top = [top], 0, True
    while level:
        count += len(level)
        if is_s3 and count > MAX_FOLDERS:
            raise BridgeError(
                f"{folder} has more than {MAX_FOLDERS} directories below it, and listing each "
                "costs a request. Name one of them instead."
            )
        listed = run([partial(_tried, names, place, options) for place in level])
        below = []
        for place, entries in zip(level, listed, strict=True):
            if isinstance(entries, Exception):
                if is_top:
                    raise entries
                text = f"can't be listed: {getattr(entries, 'strerror', None) or entries}"
                found.append(TableInfo(place, 1, None, 0, 0, 0, False, text))
                continue
            if is_top and is_s3 and not entries and inside.key != "x":
                _check_raster(raster or folder, options)
            for name, may_descend in entries:
                if is_sidecar(name):
                    found.append(place + name)
                elif may_descend and not name.endswith(".zarr"):
                    below.append(f"{place}{name}/")
        level, is_top = below, False
    return sorted(found, key=lambda one: one.path if isinstance(one, TableInfo) else one)


type _Entries = list[tuple[str, bool]]


def _tried(
    names: Callable[[str, Mapping[str, Any] | None], _Entries],
    folder: str,
    options: Mapping[str, Any] | None,
) -> _Entries | Exception:
    try:
        return names(folder, options)
    except (OSError, RatZarrError) as error:
        return error


def _s3_names(folder: str, options: Mapping[str, Any] | None) -> _Entries:
    # An empty prefix matches all names.
    start = Location("s3", parse_location(folder + "x").path[: -len("x")])
    # Keep files too, because an empty listing means that the directory does not exist.
    return [
        (name, is_folder_there)
        for name, is_folder_there in open_objects(start, options).list_beside()
        if is_folder_there or not is_sidecar(name)
    ]


def _local_names(folder: str, options: Mapping[str, Any] | None) -> _Entries:
    # Don't follow links, which may form a cycle.
    return [
        (entry.name, not entry.is_symlink())
        for entry in os.scandir(Path(parse_location(folder).path))
        if entry.is_dir()
    ]


def _check_raster(raster: Any, options: Mapping[str, Any] | None) -> None:
    """Raise an error if neither an object nor a prefix has this name on S3."""
    place = parse_location(raster_name(raster))
    name = place.key.rpartition("/")[2]
    if (name, False) not in open_objects(place, options).list_beside():
        raise RasterNotFoundError(f"{place.url} is neither a raster nor a directory")


def _size(objects: Objects) -> int | None:
    try:
        return sum(max(0, size) for _, size, _ in objects.list_states(""))
    except StoreError:
        if objects.list_dirs("") is not None:
            raise
        return None


def _described(found: Sidecar | str, options: Mapping[str, Any] | None, now_of: Now) -> TableInfo:
    one = parsed_name(found) if isinstance(found, str) else found
    try:
        with RatZarr(one.path, readOnly=True, storageOptions=options) as table:
            names = table.getColumnNames()
            complete = all(
                table.getColumnAttributeMapping(name).get(COMPLETE_ATTR, True) is not False
                for name in readable_columns(table, names)
            )
            rows = table.getRowCount()
            then = table.getRatAttributeMapping().get(RASTER_ATTR)
            if isinstance(found, str):
                one = parsed_name(found, (parsed_raster(then) or {}).get("name"))
        objects = open_objects(parse_location(one.path), options)
        size = _size(objects)
        changes = _changes(one, then, now_of)
    except (RatZarrError, BridgeError) as error:
        return TableInfo(one.path, one.band, one.name, 0, 0, 0, False, str(error))
    count = len(names)
    return TableInfo(one.path, one.band, one.name, rows, count, size, complete, changes=changes)


def _changes(one: Sidecar, then: Any, now_of: Now) -> tuple[str, ...]:
    now = None
    if then is not None:
        with suppress(GdalMissingError):
            now = now_of(one, then)
    return () if now is None else changed_tables({one.path: then}, now).get(one.path, ())
