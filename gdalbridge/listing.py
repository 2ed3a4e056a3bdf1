"""Which tables a raster has, or all rasters of a directory; without GDAL."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ratzarr import RatZarr, RatZarrError, StoreError
from ratzarr.layout import COMPLETE_ATTR
from ratzarr.location import Location
from ratzarr.location import parse as parse_location
from ratzarr.objects import Objects
from ratzarr.stores import open_objects

from .errors import BridgeError
from .provenance import RASTER_ATTR, parsed_raster
from .sidecar import Sidecar, find_sidecars, is_folder, is_sidecar, parsed_name, raster_name

__all__ = ["TableInfo", "list_tables"]


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table, as a listing shows it."""

    path: str
    band: int
    name: str | None
    """Name of a further table; None for the band's first."""
    rows: int
    columns: int
    bytes: int | None
    """Size of its objects, as they are stored; None where a place, a web server, can't list them."""
    complete: bool
    """Whether every column is."""
    problem: str | None = None
    """Why it can't be read, in words; its numbers are then 0."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def list_tables(
    raster: Any, *, storage_options: Mapping[str, Any] | None = None
) -> list[TableInfo]:
    """Return the tables of a raster, or all that lie in a directory.

    Parameters
    ----------
    raster : str or os.PathLike
        A raster, which need not be there; a directory (on S3 a bucket, a name that ends in
        ``/``, or any other that no raster with tables has); or one table.
    storage_options : mapping, optional
        Arguments for the tables' file system.

    Raises
    ------
    RatZarrError
        Where the place can't be listed. What is wrong with one table is said with it.
    """
    if is_sidecar(raster):
        path = os.fspath(raster)
        found: Sequence[Sidecar | str] = [str(path)]
    elif is_folder(raster):
        found = _in_folder(os.fspath(raster), storage_options)
    else:
        found = find_sidecars(raster, storage_options=storage_options, must_list=True)
        if not found and (folder := _s3_folder(raster)):
            found = _in_folder(folder, storage_options)
    return [_described(one, storage_options) for one in found]


def _s3_folder(raster: Any) -> str:
    """Return the prefix that a name on S3 may be meant for; else an empty string."""
    if hasattr(raster, "GetRasterBand"):
        return ""
    place = parse_location(raster_name(raster))
    return place.url + "/" if place.kind == "s3" else ""


def _in_folder(folder: str, options: Mapping[str, Any] | None) -> list[str]:
    if parse_location(folder.rstrip("/") + "/x").kind == "s3":
        inside = parse_location(folder.rstrip("/") + "/x")
        # All names that begin with nothing.
        start = Location("s3", inside.path[: -len("x")])
        beside = open_objects(start, options).list_beside()
        names = [name for name, is_folder_there in beside if is_folder_there]
        base = start.url
    else:
        place = Path(parse_location(folder).path)
        names = [entry.name for entry in os.scandir(place) if entry.is_dir()]
        base = folder.rstrip("/") + "/"
    return [base + name for name in sorted(names) if is_sidecar(name)]


def _size(objects: Objects) -> int | None:
    try:
        return sum(max(0, size) for _, size, _ in objects.list_states(""))
    except StoreError:
        if objects.list_dirs("") is not None:
            raise
        return None


def _described(found: Sidecar | str, options: Mapping[str, Any] | None) -> TableInfo:
    one = parsed_name(found) if isinstance(found, str) else found
    try:
        with RatZarr(one.path, readOnly=True, storageOptions=options) as table:
            names = table.getColumnNames()
            # Of no rows: this opens all columns, their requests in parallel.
            table.readBlocks(names, 0, 0, allowIncomplete=True)
            complete = all(
                table.getColumnAttributeMapping(name).get(COMPLETE_ATTR, True) is not False
                for name in names
            )
            rows = table.getRowCount()
            if isinstance(found, str):
                belongs = parsed_raster(table.getRatAttributeMapping().get(RASTER_ATTR)) or {}
                one = parsed_name(found, belongs.get("name"))
        objects = open_objects(parse_location(one.path), options)
        size = _size(objects)
    except (RatZarrError, BridgeError) as error:
        return TableInfo(one.path, one.band, one.name, 0, 0, 0, False, str(error))
    return TableInfo(one.path, one.band, one.name, rows, len(names), size, complete)
