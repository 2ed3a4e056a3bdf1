"""GDAL's drivers that write rasters, and copies by them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from gdalbridge.errors import BridgeError, GdalError, NotWrittenError
from gdalbridge.gdalio.compat import data_type, exceptions, gdal, silence
from gdalbridge.gdalio.datasets import open_dataset
from gdalbridge.progress import Progress
from ratzarr.errors import Advice
from ratzarr.format import near_names

__all__ = ["check_pixels", "copy_dataset", "may_lose", "output_driver"]

FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".img": "HFA", ".kea": "KEA", ".vrt": "VRT"}
"""Drivers by the output's file extension. Other drivers are selected by name."""

PACKAGES = {
    "HFA": "GDAL of conda-forge (libgdal-core) or of Debian (python3-gdal)",
    "KEA": "GDAL of conda-forge with the package libgdal-kea",
}
"""Packages with the drivers that some builds of GDAL lack."""

KEEPING = ("COG", "GTiff", "HFA", "KEA", "VRT")
"""Drivers that keep all pixels without the following options."""
LOSSY = ("DISCARD_LSB", "MAX_Z_ERROR", "NBITS", "COMPRESS=JPEG", "COMPRESS=JXL", "COMPRESS=WEBP")
WINDOW_PIXELS = 2**20


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


def may_lose(driver: Any, options: Sequence[str]) -> bool:
    """Return True if a driver with these creation options may change pixels."""
    return driver.ShortName not in KEEPING or any(one.upper().startswith(LOSSY) for one in options)


def check_pixels(
    driver: Any, made: Path, source: Any, options: Sequence[str], *, values: bool = True
) -> None:
    """Compare a copy's bands with its source, and their pixels if the driver may change them.

    Parameters
    ----------
    values : bool
        Compare pixels, and not only the types of the bands.

    Raises
    ------
    NotWrittenError
        If they differ; names the first pixel that does.
    """
    copy = open_dataset(str(made))
    if copy.RasterCount != source.RasterCount:
        raise NotWrittenError(
            f"{driver.ShortName} keeps {copy.RasterCount} of {source.RasterCount} bands"
        )
    for number in range(1, source.RasterCount + 1):
        before, after = source.GetRasterBand(number), copy.GetRasterBand(number)
        what = f"{driver.ShortName} does not keep the pixels of band {number}"
        was, now = map(data_type, (before, after))
        if was != now:
            raise NotWrittenError(f"{what}: their type {was} became {now}")
        for window in _windows(after) if values and may_lose(driver, options) else ():
            old, new = before.ReadAsArray(*window), after.ReadAsArray(*window)
            wrong = (old != new) & ((old == old) | (new == new))
            if wrong.any():
                line, column = map(int, np.argwhere(wrong)[0])
                raise NotWrittenError(
                    f"{what}: at column {window[0] + column}, line {window[1] + line}, "
                    f"{old[line, column]} became {new[line, column]}. Choose a lossless format or "
                    "compression"
                )


def _windows(band: Any) -> Iterator[tuple[int, int, int, int]]:
    """Yield windows of whole blocks: the first column and line, width and height."""
    wide, high = band.GetBlockSize()
    wide *= max(1, min(WINDOW_PIXELS // (wide * high), -(-band.XSize // wide)))
    high *= max(1, WINDOW_PIXELS // (wide * high))
    for y in range(0, band.YSize, high):
        for x in range(0, band.XSize, wide):
            yield x, y, min(wide, band.XSize - x), min(high, band.YSize - y)
