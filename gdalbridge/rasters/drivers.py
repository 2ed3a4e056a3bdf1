"""GDAL's drivers that write rasters, and copies by them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, GdalError
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.progress import Progress
from ratzarr.errors import Advice

__all__ = ["copy_dataset", "output_driver"]

FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".img": "HFA", ".kea": "KEA", ".vrt": "VRT"}
"""Drivers by the output's file extension. Other drivers are selected by name."""

PACKAGES = {
    "HFA": "GDAL of conda-forge (libgdal-core) or of Debian (python3-gdal)",
    "KEA": "GDAL of conda-forge with the package libgdal-kea",
}
"""Packages with the drivers that some builds of GDAL lack."""


def output_driver(target: str, asked: str | None) -> tuple[Any, str]:
    """Return the driver of an output, by its name or the file extension, and its short name."""
    suffix = Path(target).suffix
    name = asked or FORMATS.get(suffix.lower())
    if name is None:
        raise BridgeError(
            Advice(
                f"{target}: unknown file extension {suffix!r}; expected one of "
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
