"""GDAL's drivers that write rasters, and copies by them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from gdalbridge.errors import BridgeError, GdalError
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.progress import Progress
from ratzarr.errors import Advice
from ratzarr.format import near_names

__all__ = ["copy_dataset", "output_driver"]

FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".img": "HFA", ".kea": "KEA", ".vrt": "VRT"}
"""Drivers by the output's file extension. Other drivers are selected by name."""

PACKAGES = {
    "HFA": "GDAL of conda-forge (libgdal-core) or of Debian (python3-gdal)",
    "KEA": "GDAL of conda-forge with the package libgdal-kea",
}
"""Packages with the drivers that some builds of GDAL lack."""


def output_driver(target: str, asked: str | None, options: Sequence[str] = ()) -> tuple[Any, str]:
    """Return the driver of an output, and its short name.

    Parameters
    ----------
    target : str
        Its file name.
    asked : str or None
        The driver's name; by default that for the file extension.
    options : sequence of str
        Creation options.

    Raises
    ------
    BridgeError
        If there is no such driver, it can't write rasters, or it does not know an option. GDAL would
        only warn, and ignore the option.
    """
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
    _check_options(driver, options)
    return driver, str(driver.ShortName)


def _check_options(driver: Any, options: Sequence[str]) -> None:
    listed = driver.GetMetadataItem("DMD_CREATIONOPTIONLIST")
    document = ET.fromstring(listed or "<none/>")  # noqa: S314 - GDAL's own
    known = {one.get("name", ""): one for one in document}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise BridgeError(f"a creation option is NAME=VALUE: got {option!r}")
        if not listed:
            continue
        if name.upper() not in known:
            raise BridgeError(
                f"GDAL's driver {driver.ShortName} has no creation option {name!r}"
                f"{near_names(name.upper(), known)}"
            )
        one = known[name.upper()]
        values = [
            word for each in one.iter("Value") for word in (each.text, each.get("alias")) if word
        ]
        if one.get("type") == "string-select" and value.upper() not in map(str.upper, values):
            raise BridgeError(
                f"creation option {option!r}: {name.upper()} of GDAL's driver {driver.ShortName} is one "
                f"of {', '.join(values)}"
            )


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
