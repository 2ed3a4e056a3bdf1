"""Which files and tables a raster consists of, and what they are called in another place.

Which files belong to a raster is GDAL's to say (``GetFileList``), and it says more than
that: a VRT's list has its sources, a satellite scene's a file that all of its bands
share. A raster's own are those in its directory that are called as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdalbridge.errors import BridgeError, RasterNotFoundError
from gdalbridge.gdalio.compat import silence
from gdalbridge.gdalio.datasets import open_dataset, siblings_known, siblings_visible
from gdalbridge.gdalio.vsis3 import forget, reached
from gdalbridge.sidecars.naming import Sidecar, find_sidecars, raster_name
from gdalbridge.sidecars.pixel_samples import REFERRERS
from ratzarr.stores import FileState, Location, file_state, names_beside, url_name
from ratzarr.stores import parse as parse_location

__all__ = ["BESIDE", "RasterFiles", "place_of", "raster_files"]

BESIDE = (".aux.xml", ".ovr", ".msk", ".msk.ovr", ".vat.dbf", ".vat.cpg")
"""What is put behind a raster's name for files that GDAL takes for its own. Looked for by
these names as well: its list leaves out what it was told not to look at."""
HFA_PARTS = (".ige", ".rrd")
"""Files whose names an HFA keeps within itself."""


@dataclass(frozen=True, slots=True)
class RasterFiles:
    """What a raster consists of."""

    main: Location
    """The file that it is opened by."""
    beside: Mapping[Location, FileState]
    """Its own other files."""
    state: FileState
    """Of the main file."""
    tables: tuple[Sidecar, ...]
    """Its sidecars, by band and name."""
    others: tuple[str, ...]
    """Files that GDAL lists, and that are not this raster's alone."""
    driver: str

    def target(self, source: Location, target: Location) -> Location:
        """Return where one of its files is to be where the main one is at ``target``.

        Raises
        ------
        BridgeError
            Where the format does not allow another name.
        """
        old, new = _name(self.main), _name(target)
        name = _name(source)
        if name.startswith(old):
            renamed = new + name[len(old) :]
        else:
            renamed = _stem(new) + name[len(_stem(old)) :]
            if self.driver == "HFA" and renamed != name and name.lower().endswith(HFA_PARTS):
                raise BridgeError(
                    f"{self.main} keeps the name of its other file {name} within itself: it can't "
                    f"be called {new}. Keep its name"
                )
        return beside(target, renamed)


def place_of(raster: Any) -> Location:
    """Return where a raster is.

    Raises
    ------
    SidecarNameError, ArgumentError, BridgeError
        For what is no name of a file.
    """
    if hasattr(raster, "GetRasterBand"):
        raise BridgeError(
            "an open dataset is no file that could be copied or removed: give a path"
        )
    return parse_location(raster_name(raster))


def beside(place: Location, name: str) -> Location:
    """Return the place of this name in the same directory."""
    return Location(place.kind, place.path.rpartition("/")[0] + "/" + name)


def _name(place: Location) -> str:
    return place.path.rpartition("/")[2]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def raster_files(raster: Any, options: Mapping[str, Any] | None = None) -> RasterFiles:
    """Return what a raster consists of.

    Raises
    ------
    RasterNotFoundError
        Where it can't be opened as a raster.
    BridgeError
        Where it is no plain file, or one of its files is a symbolic link.
    """
    main = place_of(raster)
    state = file_state(main, options)
    if state is None:
        raise RasterNotFoundError(f"{raster} is not there, or is no file by itself")
    if state.size < 0:
        raise BridgeError(
            f"{main} is a symbolic link, or no regular file: links are not followed, and rasters that "
            "are directories, pipes or devices are not handled"
        )
    # Others have been there since GDAL last looked, and we ourselves.
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
            found = file_state(place, options)
            if found is not None and found.size < 0:
                raise BridgeError(f"{place} is a symbolic link, or no file: it is not followed")
            if found is not None:
                own[place] = found
    tables = tuple(find_sidecars(main.url, storage_options=options, must_list=True))
    return RasterFiles(main, own, state, tables, tuple(others), driver)


def _listed(
    main: Location, siblings: Sequence[str] | None, options: Mapping[str, Any] | None
) -> tuple[str, list[str]]:
    """Return GDAL's name of a raster's driver, and its list of the raster's files."""
    with reached(main.url, options) as name:
        dataset = open_dataset(main.url, storage_options=options, siblings=siblings)
        seen = siblings_visible(name) if siblings is None else siblings_known(name)
        with seen, silence():
            driver = str(dataset.GetDriver().ShortName)
            listed = list(dict.fromkeys(dataset.GetFileList() or ()))
        # Closed while its place can be reached.
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
    # A VRT is called as one of its sources, often enough.
    return driver not in REFERRERS and name.startswith(_stem(mine) + ".")
