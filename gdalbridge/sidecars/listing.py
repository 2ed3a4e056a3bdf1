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
from gdalbridge.sidecars.host import Hosted, find_hosted
from gdalbridge.sidecars.naming import Sidecar, is_folder, is_sidecar, parsed_name, raster_name
from gdalbridge.sidecars.provenance import RASTER_ATTR
from gdalbridge.sidecars.staleness import parsed_raster, raster_changes, recorded_now
from ratzarr import RatZarr, RatZarrError, StoreError
from ratzarr.format import is_complete
from ratzarr.pipeline import run
from ratzarr.stores import Location, Objects, gdal_name, open_objects
from ratzarr.stores import parse as parse_location

__all__ = ["TableInfo", "list_tables"]

MAX_FOLDERS = 1000
"""The maximum number of directories that one listing of a bucket reads."""


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
    options = storage_options
    if is_sidecar(raster):
        return [_described(os.fspath(raster), options)]
    if is_folder(raster):
        return _in_folder(os.fspath(raster), options)
    if isinstance(raster, str | os.PathLike):
        refuse_special_files(gdal_name(os.fspath(raster)))
    hosted = find_hosted(raster, storage_options=options, must_list=True)
    if not hosted and not hasattr(raster, "GetRasterBand"):
        place = parse_location(raster_name(raster))
        if place.kind == "s3":
            return _in_folder(f"{place.url}/", options, raster)
        if place.kind == "local" and not os.path.lexists(place.path):
            raise RasterNotFoundError(f"{raster} does not exist, and no table lies beside it")
    with ExitStack() as stack:
        dataset = None
        if hosted:
            # The raster may be missing.
            with suppress(GdalMissingError, RasterNotFoundError, RatZarrError):
                from gdalbridge.gdalio.datasets import opened

                dataset = stack.enter_context(opened(raster, options))
        return [_hosted(one, dataset, options) for one in hosted]


def _hosted(one: Hosted, dataset: Any, options: Mapping[str, Any] | None) -> TableInfo:
    def now(then: object) -> Mapping[str, Any] | None:
        if dataset is None or one.sidecar.band > dataset.RasterCount:
            return None
        return one.host.now(dataset, one.sidecar.path, options)

    return _described(one.sidecar, options, now)


def _in_folder(
    folder: str, options: Mapping[str, Any] | None, raster: Any = None
) -> list[TableInfo]:
    """Return the tables in a directory and below it, and subdirectories that can't be listed."""
    inside = parse_location(folder.rstrip("/") + "/x")
    is_s3 = inside.kind == "s3"
    top = inside.url[: -len("x")] if is_s3 else folder.rstrip("/") + "/"
    found: list[TableInfo] = []
    level, count, is_top = [top], 0, True
    while level:
        count += len(level)
        if is_s3 and count > MAX_FOLDERS:
            raise BridgeError(
                f"{folder} has more than {MAX_FOLDERS} directories below it, and listing each "
                "costs a request. Name one of them instead."
            )
        listed = run([partial(_entries, place, options) for place in level])
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
            for name, is_directory, may_descend in entries:
                if is_directory and is_sidecar(name):
                    # On S3, opening the rasters would take too many requests.
                    unknown = (lambda then: None) if is_s3 else None
                    found.append(_described(place + name, options, unknown))
                elif may_descend and not name.endswith(".zarr"):
                    below.append(f"{place}{name}/")
        level, is_top = below, False
    return sorted(found, key=lambda one: one.path)


def _entries(
    folder: str, options: Mapping[str, Any] | None
) -> list[tuple[str, bool, bool]] | Exception:
    """Return the names in a directory, whether each is one, and whether to look into it."""
    place = parse_location(f"{folder}x")
    try:
        if place.kind == "s3":
            # An empty prefix matches all names.
            start = Location("s3", place.path[: -len("x")])
            listed = open_objects(start, options).list_beside()
            return [(name, is_directory, is_directory) for name, is_directory in listed]
        # Don't follow links, which may form a cycle.
        with os.scandir(Path(place.path).parent) as entries:
            return [(one.name, one.is_dir(), one.is_dir(follow_symlinks=False)) for one in entries]
    except (OSError, RatZarrError) as error:
        return error


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


def _described(
    found: Sidecar | str,
    options: Mapping[str, Any] | None,
    now_of: Callable[[object], Mapping[str, Any] | None] | None = None,
) -> TableInfo:
    """Describe a table; ``now_of`` describes its raster, given the recorded description."""
    one = parsed_name(found) if isinstance(found, str) else found
    try:
        with RatZarr(one.path, readOnly=True, storageOptions=options) as table:
            names = table.getColumnNames()
            complete = all(
                is_complete(table.getColumnAttributeMapping(name))
                for name in readable_columns(table, names)
            )
            rows = table.getRowCount()
            then = table.getRatAttributeMapping().get(RASTER_ATTR)
            if isinstance(found, str):
                one = parsed_name(found, (parsed_raster(then) or {}).get("name"))
        size = _size(open_objects(parse_location(one.path), options))
        changes: tuple[str, ...] = ()
        if then is not None:
            with suppress(GdalMissingError):
                now = recorded_now(then, one.path, options) if now_of is None else now_of(then)
                changes = () if now is None else tuple(raster_changes(then, now))
    except (RatZarrError, BridgeError) as error:
        return TableInfo(one.path, one.band, one.name, 0, 0, 0, False, str(error))
    count = len(names)
    return TableInfo(one.path, one.band, one.name, rows, count, size, complete, changes=changes)
