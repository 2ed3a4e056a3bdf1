"""The files and tables of a raster, and their names in another location.

GDAL lists the files of a raster (``GetFileList``), but also files that do not belong to it alone:
the sources of a VRT, or a file shared by all bands of a satellite scene. A raster's own files are
those in its directory with the raster's name.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gdalbridge.errors import BridgeError, RasterNotFoundError
from gdalbridge.gdalio.compat import silence
from gdalbridge.gdalio.datasets import open_dataset, siblings_known, siblings_visible
from gdalbridge.gdalio.vsis3 import forget, reached
from gdalbridge.sidecars.naming import Sidecar, find_sidecars, is_sidecar, raster_name
from gdalbridge.sidecars.provenance import REFERRERS
from ratzarr.stores import FileState, Location, file_state, names_beside, url_name
from ratzarr.stores import parse as parse_location

__all__ = [
    "BESIDE",
    "RasterFiles",
    "moved_files",
    "place_of",
    "raster_files",
]

BESIDE = (".aux.xml", ".ovr", ".msk", ".msk.ovr", ".vat.dbf", ".vat.cpg")
"""Endings that GDAL appends to a raster's name for the raster's own files. The files are also
searched for by these names, because GDAL's list omits files that it was configured to ignore."""
HFA_PARTS = (".ige", ".rrd")
"""Endings of files whose names are stored inside an HFA file."""


@dataclass(frozen=True, slots=True)
class RasterFiles:
    """The files and tables of a raster."""

    main: Location
    """The file that is used to open it."""
    beside: Mapping[Location, FileState]
    """Its own further files."""
    state: FileState | None
    """The state of the main file; None if it was moved away."""
    tables: tuple[Sidecar, ...]
    """Its sidecars, by band and name."""
    others: tuple[str, ...]
    """Files that GDAL lists, but that do not belong to this raster alone."""
    driver: str

    def target(self, source: Location, target: Location) -> Location:
        """Return the new location of one of its files, for a main file at ``target``.

        Raises
        ------
        BridgeError
            If the format does not allow another name.
        """
        old, new = _name(self.main), _name(target)
        name = _name(source)
        if name.startswith(old):
            renamed = new + name[len(old) :]
        else:
            renamed = _stem(new) + name[len(_stem(old)) :]
            if self.driver == "HFA" and renamed != name and name.lower().endswith(HFA_PARTS):
                raise BridgeError(
                    f"{self.main} stores the name of its other file {name}, so it can't be "
                    f"renamed to {new}. Keep its name."
                )
        return beside(target, renamed)


def place_of(raster: Any) -> Location:
    """Return the location of a raster.

    Raises
    ------
    SidecarNameError, ArgumentError, BridgeError
        If the argument does not name a file.
    """
    if hasattr(raster, "GetRasterBand"):
        raise BridgeError("an open dataset can't be copied or removed. Pass a path.")
    return parse_location(raster_name(raster))


def beside(place: Location, name: str) -> Location:
    """Return the location of this name in the same directory."""
    return Location(place.kind, place.path.rpartition("/")[0] + "/" + name)


def _name(place: Location) -> str:
    return place.path.rpartition("/")[2]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def raster_files(raster: Any, options: Mapping[str, Any] | None = None) -> RasterFiles:
    """Return the files and tables of a raster.

    Raises
    ------
    RasterNotFoundError
        If it can't be opened as a raster.
    BridgeError
        If it is a table or not a regular file, or one of its files is a symbolic link.
    """
    main = place_of(raster)
    if is_sidecar(main.url):
        raise BridgeError(
            f"{raster} is a table: expected the name of its raster, whose tables go with it. "
            "RatZarr.delete deletes a table alone"
        )
    state = file_state(main, options)
    if state is None:
        raise RasterNotFoundError(f"{raster} does not exist, or is not a file")
    if state.size < 0:
        raise BridgeError(
            f"{main} is a symbolic link, or no regular file: links are not followed, and rasters that "
            "are directories, pipes or devices are not handled"
        )
    # GDAL's cache may be outdated, by other programs or by this one.
    forget(main.url, options)
    siblings = None
    if main.kind == "s3":
        siblings = names_beside(main, _stem(_name(main)), options)
    driver, listed = _listed(main, siblings, options)
    own: dict[Location, FileState] = {}
    others = []
    wanted = [_location(name) for name in listed]
    more = [end for end in BESIDE if siblings is None or _name(main) + end in siblings]
    wanted += [Location(main.kind, main.path + end) for end in more]
    for name, place in zip([*listed, *more], wanted, strict=True):
        if place is None or not _is_own(place, main, driver):
            others.append(name)
        elif place != main and place not in own:
            _add(own, place, options)
    tables = tuple(find_sidecars(main.url, storage_options=options, must_list=True))
    return RasterFiles(main, own, state, tables, tuple(others), driver)


def _add(
    own: dict[Location, FileState], place: Location, options: Mapping[str, Any] | None
) -> None:
    """Add one of a raster's own files, if it exists."""
    state = file_state(place, options)
    if state is None:
        return
    if state.size < 0:
        raise BridgeError(
            f"{place} is a symbolic link or not a regular file; links are not followed"
        )
    own[place] = state


def moved_files(
    main: Location, goal: Location, options: Mapping[str, Any] | None = None
) -> RasterFiles:
    """Return the files and tables of a raster that an interrupted move has not yet removed.

    The source may lack files without which GDAL can't open it, and even the raster itself. So its
    files are also searched for by the names of the target's files.

    Parameters
    ----------
    main, goal : Location
        The raster before and after the move.
    options : mapping, optional
        Arguments for the file system.

    Raises
    ------
    RasterNotFoundError
        If there is no raster at ``goal``.
    """
    there = raster_files(goal.url, options)
    state = file_state(main, options)
    here = None
    if state is not None:
        with suppress(RasterNotFoundError):
            here = raster_files(main.url, options)
    own = {} if here is None else dict(here.beside)
    names = [there.target(place, main) for place in there.beside]
    for place in (*names, *(Location(main.kind, main.path + end) for end in BESIDE)):
        # Without the raster, a file with only its stem may belong to another raster by now.
        if place in own or (state is None and not place.path.startswith(main.path)):
            continue
        _add(own, place, options)
    tables = tuple(find_sidecars(main.url, storage_options=options, must_list=True))
    source = here or there
    others = () if here is None else here.others
    return RasterFiles(main, own, state, tables, others, source.driver)


def _listed(
    main: Location, siblings: Sequence[str] | None, options: Mapping[str, Any] | None
) -> tuple[str, list[str]]:
    """Return the name of a raster's driver, and GDAL's list of the raster's files."""
    with reached(main.url, options) as name:
        dataset = open_dataset(main.url, storage_options=options, siblings=siblings)
        seen = siblings_visible(name) if siblings is None else siblings_known(name)
        with seen, silence():
            driver = str(dataset.GetDriver().ShortName)
            listed = list(dict.fromkeys(dataset.GetFileList() or ()))
        # Close the dataset while its location is still configured.
        del dataset
    return driver, listed


def _location(name: str) -> Location | None:
    try:
        return parse_location(url_name(name))
    except ValueError:
        return None


def _is_own(place: Location, main: Location, driver: str) -> bool:
    folder = main.path.rpartition("/")[0]
    if place.kind != main.kind or place.path.rpartition("/")[0] != folder:
        return False
    name, mine = _name(place), _name(main)
    if name == mine or name.startswith(mine + "."):
        return True
    # A VRT often has the same stem as one of its sources.
    return driver not in REFERRERS and name.startswith(_stem(mine) + ".")
