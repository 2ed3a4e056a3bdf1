"""Copy a raster's files aside, change the copy, and move it into place on success."""

import filecmp
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, RasterNotFoundError
from gdalbridge.sidecars.provenance import REFERRERS
from gdalbridge.sidecars.raster_files import RasterFiles, place_of, raster_files
from ratzarr.stores import Location, temporary_path

__all__ = ["Replica", "replica"]


class Replica:
    """A copy of a raster.

    Parameters
    ----------
    raster
        The raster's name.
    files : RasterFiles
        Its files when they were copied.
    path : pathlib.Path
        The copy's main file.
    """

    def __init__(self, raster: Any, files: RasterFiles, path: Path) -> None:
        self._raster, self._files = raster, files
        self._main = Path(files.main.path)
        self.path = path
        for source in (files.main, *files.beside):
            copy = files.target(source, Location("local", str(path))).path
            shutil.copy2(source.path, copy)

    def put_back(self) -> None:
        """Replace the raster's changed files by those of the closed copy.

        Each file is replaced in one step, the main file last.

        Raises
        ------
        BridgeError
            If another process has changed the raster meanwhile; it is left unchanged.
        """
        if raster_files(self._raster) != self._files:
            raise BridgeError(
                f"{self._raster} was changed by another process: nothing was written"
            )
        kept = {Path(one.path) for one in self._files.beside}
        places = {self._place(copy.name): copy for copy in self._copies()}
        for place in sorted(places, key=lambda place: place == self._main):
            copy = places[place]
            if not (place.exists() and filecmp.cmp(copy, place, shallow=False)):
                copy.replace(place)
        for removed in kept - set(places):
            removed.unlink()

    def _copies(self) -> list[Path]:
        if self.path.parent != self._main.parent:
            return list(self.path.parent.iterdir())
        stem = f"{self.path.stem}."
        names = [one for one in self.path.parent.iterdir() if one.name.startswith(stem)]
        return [one for one in names if not one.name.endswith(".lock")]

    def _place(self, name: str) -> Path:
        if name.startswith(self.path.name):
            renamed = self._main.name + name.removeprefix(self.path.name)
        else:
            renamed = self._main.stem + name.removeprefix(self.path.stem)
        return self._main.with_name(renamed)


@contextmanager
def replica(raster: Any) -> Iterator[Replica]:
    """Copy a raster on a local disk, with its other files, to its own directory.

    Parameters
    ----------
    raster : str or os.PathLike

    Raises
    ------
    BridgeError
        For an open dataset, or a raster that is not a file on a local disk.
    """
    is_named = not hasattr(raster, "GetRasterBand") and not str(raster).startswith("/vsi")
    if not is_named or place_of(raster).kind != "local":
        raise BridgeError(
            "an export without losses (strict) works on a copy first: it needs the path of a "
            "raster on a local disk"
        )
    try:
        files = raster_files(raster)
    except RasterNotFoundError as error:
        raise RasterNotFoundError(
            f"{error}. 'gdalbridge bake' makes a raster that has a table"
        ) from error
    main = Path(files.main.path)
    # A raster may refer to others relative to its directory, and an HFA contains its own name.
    refers = files.driver in REFERRERS
    with temporary_path(main.parent, main.suffix if refers else "", folder=not refers) as made:
        yield Replica(raster, files, made if refers else made / main.name)
