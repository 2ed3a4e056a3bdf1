"""Rasters that are written under a temporary name, and put in place when they are complete."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, GdalError, OutputExistsError
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.progress import Progress
from gdalbridge.sidecars.raster_files import BESIDE, place_of
from ratzarr.errors import Advice
from ratzarr.stores import temporary_path

__all__ = [
    "check_free",
    "copy_dataset",
    "local_target",
    "output_driver",
    "output_folder",
    "put_in_place",
]

FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".img": "HFA", ".kea": "KEA", ".vrt": "VRT"}
"""Drivers by the output's file extension. Other drivers are selected by name."""

PACKAGES = {
    "HFA": "GDAL of conda-forge (libgdal-core) or of Debian (python3-gdal)",
    "KEA": "GDAL of conda-forge with the package libgdal-kea",
}
"""Packages with the drivers that some builds of GDAL lack."""


def local_target(out: Any) -> Path:
    """Return the path of an output on a local disk.

    Raises
    ------
    BridgeError
        If it is elsewhere, or its directory does not exist.
    """
    place = place_of(out)
    if place.kind != "local":
        raise BridgeError(
            f"{place}: GDAL can write rasters with a table only to a local disk. Copy the output "
            "with 'gdalbridge cp'."
        )
    path = Path(place.path)
    if not path.parent.is_dir():
        raise BridgeError(f"{path.parent} is not a directory")
    return path


def output_driver(target: Path, asked: str | None) -> tuple[Any, str]:
    """Return the driver of an output, by its name or the file extension, and its short name."""
    name = asked or FORMATS.get(target.suffix.lower())
    if name is None:
        raise BridgeError(
            Advice(
                f"{target.name}: unknown file extension {target.suffix!r}; expected one of "
                f"{', '.join(FORMATS)}.",
                "Name GDAL's driver with format=...",
            )
        )
    driver = gdal.GetDriverByName(name)
    if driver is None:
        package = PACKAGES.get(name)
        hint = f". {package} has the driver; the package gdal-wheel does not" if package else ""
        raise BridgeError(f"this GDAL has no driver {name!r}{hint}")
    metadata = driver.GetMetadata()
    if "YES" not in (metadata.get("DCAP_CREATECOPY"), metadata.get("DCAP_CREATE")):
        raise BridgeError(f"GDAL's driver {name!r} can't write rasters")
    return driver, str(driver.ShortName)


def check_free(target: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if there is something that may not be replaced."""
    existing = [name for name in (target, *_beside(target)) if os.path.lexists(name)]
    if existing and not overwrite:
        raise OutputExistsError(
            Advice(
                f"{', '.join(map(str, existing))} already exists.",
                "Use overwrite=True to replace the raster there.",
            )
        )
    for one in existing:
        if one.is_symlink() or not one.is_file():
            raise OutputExistsError(f"{one} is not a regular file, and is not replaced")


def _beside(target: Path) -> list[Path]:
    """Return the names of files that GDAL takes for the target's own, existing or not.

    GDAL ignores upper and lower case when it looks for them, so existing files of any case count.
    """
    names = [target.name + end for end in BESIDE]
    wanted = {name.lower() for name in names}
    with os.scandir(target.parent) as entries:
        existing = [one.name for one in entries if one.name.lower() in wanted]
    return [target.with_name(name) for name in dict.fromkeys((*names, *existing))]


@contextmanager
def output_folder(driver: Any, target: Path) -> Iterator[Path]:
    """Yield a temporary name in the target's file system, and clean up at the end."""
    if driver.ShortName == "VRT":
        # A VRT refers to the raster by a relative path, so it is written in the target's directory.
        with temporary_path(target.parent, ".vrt") as made:
            yield made
        return
    # The file keeps its final name, because an HFA file contains its own name.
    with temporary_path(target.parent, folder=True) as folder:
        yield folder / target.name


def copy_dataset(
    driver: Any,
    made: Path,
    source: Any,
    options: Sequence[str],
    progress: Progress,
    share: tuple[float, float] = (0.3, 0.8),
) -> None:
    """Copy a dataset to a new file; an error of the progress stops it.

    Parameters
    ----------
    driver : gdal.Driver
    made : pathlib.Path
        The file.
    source : gdal.Dataset
    options : sequence of str
        Creation options.
    progress : Progress
    share : (float, float)
        What is done of the whole work before and after the copy.
    """
    first, last = share
    stopped: list[BaseException] = []

    def callback(done: float, message: str, data: Any) -> int:
        try:
            progress.report(first + done * (last - first))
        except BaseException as error:
            stopped.append(error)
            return 0
        return 1

    with exceptions(), silence():
        try:
            copy = driver.CreateCopy(
                str(made), source, strict=0, options=list(options), callback=callback
            )
            if copy is not None:
                copy.FlushCache()
            failed = copy is None
            # Closing the dataset completes the file.
            del copy
        except RuntimeError as error:
            if stopped:
                raise stopped[0] from None
            raise GdalError(f"{driver.ShortName} can't write {made.name}: {error}") from error
    if stopped:
        raise stopped[0]
    if failed:
        raise GdalError(f"{driver.ShortName} did not write {made.name}")


def put_in_place(made: Path, target: Path) -> None:
    """Move a complete output, and the files beside it, to its name; replaces what is there."""
    if made.parent == target.parent:
        for old in _beside(target):
            old.unlink(missing_ok=True)
        made.replace(target)
        return
    names = sorted(one.name for one in made.parent.iterdir())
    # GDAL would take a table in an old .aux.xml for the new raster's.
    for old in _beside(target):
        if old.name not in names:
            old.unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == target.name):
        (made.parent / name).replace(target.parent / name)
