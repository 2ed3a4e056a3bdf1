"""Accepting a changed raster: its tables record the raster's current state."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gdalbridge.errors import BridgeError, RasterNotFoundError
from gdalbridge.gdalio.datasets import opened
from gdalbridge.gdalio.vsis3 import forget
from gdalbridge.sidecars.host import Host, Hosted, find_hosted
from gdalbridge.sidecars.naming import Sidecar, is_sidecar
from gdalbridge.sidecars.provenance import RASTER_ATTR
from gdalbridge.sidecars.raster_files import place_of
from gdalbridge.sidecars.staleness import parsed_raster, raster_changes
from ratzarr import RatZarr

__all__ = ["TouchReport", "touch"]


@dataclass(frozen=True, slots=True)
class TouchReport:
    """The outcome of :func:`touch` for one table."""

    path: str
    band: int
    name: str | None
    """Name of a further table; None for the band's first table."""
    changes: tuple[str, ...]
    """Descriptions of the differences; empty if the table fits its raster."""
    written: bool
    """True if the table was updated."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.changes:
            return f"{self.path}: fits its raster"
        done = "accepted" if self.written else "would be accepted"
        return "\n".join([f"{self.path}: {done}", *(f"  {words}" for words in self.changes)])


def touch(
    raster: Any,
    *,
    sidecar: Any = None,
    band: int | None = None,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> list[TouchReport]:
    """Accept a changed raster: record its current state in its tables.

    This reads some samples of the raster's pixels. It does not change the columns.

    Parameters
    ----------
    raster : str or os.PathLike
        The raster.
    sidecar : str or os.PathLike, optional
        A single table, at any location; by default all tables beside the raster.
    band : int, optional
        Only the tables of this band. With ``sidecar``, the band that the table belongs to; by
        default the band that the table names.
    dry_run : bool
        Report the differences, and change nothing.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.

    Returns
    -------
    list of TouchReport
        One for each table.

    Raises
    ------
    RasterNotFoundError
        If the raster does not exist or has no table.
    BridgeError
        If a table belongs to a band that the raster does not have. No table is changed.
    """
    if is_sidecar(raster):
        raise BridgeError(f"{raster} is a table: pass the raster, and the table as sidecar")
    # GDAL may have cached the old state of a raster on S3.
    forget(place_of(raster).url, storage_options)
    with opened(raster, storage_options) as dataset:
        hosted = _hosted(raster, sidecar, band, storage_options)
        tables = [one.sidecar for one in hosted]
        if not tables:
            suffix = "" if band is None else f" of band {band}"
            raise RasterNotFoundError(f"{raster} has no sidecar{suffix}")
        for one in tables:
            if not 1 <= one.band <= dataset.RasterCount:
                raise BridgeError(
                    f"{one.path} is of band {one.band}, and {raster} has {dataset.RasterCount} "
                    "bands: the table can't belong to this raster"
                )
        return [_touched(dataset, one, dry_run, storage_options) for one in hosted]


def _hosted(
    raster: Any, sidecar: Any, band: int | None, options: Mapping[str, Any] | None
) -> list[Hosted]:
    if sidecar is None:
        found = find_hosted(place_of(raster).url, storage_options=options, must_list=True)
        return [one for one in found if band in (None, one.sidecar.band)]
    with RatZarr(sidecar, readOnly=True, storageOptions=options) as table:
        recorded = parsed_raster(table.getRatAttributeMapping().get(RASTER_ATTR)) or {}
    number = band or recorded.get("band") or 1
    return [Hosted(Sidecar(str(sidecar), number, None), Host(raster, number))]


def _touched(
    dataset: Any, hosted: Hosted, dry_run: bool, options: Mapping[str, Any] | None
) -> TouchReport:
    one = hosted.sidecar
    now = hosted.host.now(dataset, one.path, options)
    with RatZarr(one.path, readOnly=dry_run, create=False, storageOptions=options) as table:
        mapping = table.getRatAttributeMapping()
        changes = _changes(mapping.get(RASTER_ATTR), now)
        if changes and not dry_run:
            mapping[RASTER_ATTR] = now
    return TouchReport(one.path, one.band, one.name, changes, bool(changes) and not dry_run)


def _changes(recorded: object, now: Mapping[str, Any]) -> tuple[str, ...]:
    if recorded is None:
        return ("the table recorded no raster",)
    changes = raster_changes(recorded, now)
    then = parsed_raster(recorded)
    if then is not None:
        if then["name"] != now["name"]:
            changes.insert(0, f"the raster is called {now['name']}, and was called {then['name']}")
        # Properties that were never recorded count as differences too.
        changes += [
            f"the table recorded no {what} of its raster"
            for what in ("size", "bands", "band", "type", "geotransform", "fingerprint")
            if then[what] is None and now[what] is not None
        ]
    return tuple(changes)
