"""The files beside a raster on S3 that determine its pixels, as GDAL has read them or not.

GDAL takes a file for missing if a server refuses it or breaks off its answer, without a message. Pixels
would lack their mask (``.msk``) or nodata value (``.aux.xml``) then. So our own client asks for these
files, and each dataset is compared with what they say.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from gdalbridge.errors import GdalLossError
from gdalbridge.gdalio.aux_xml import bands_with_nodata
from gdalbridge.gdalio.compat import collected, exceptions, gdal
from gdalbridge.gdalio.datasets import siblings_visible
from gdalbridge.gdalio.vsis3 import bucket_of
from ratzarr import ArgumentError, DamagedError, StorePermissionError
from ratzarr.stores import open_objects
from ratzarr.stores import parse as parse_location

__all__ = ["FilesBeside", "check_files_read", "files_beside"]

XML_BYTES = 64 * 2**20
"""The largest ``.aux.xml`` in which a nodata value is looked for."""


class FilesBeside(NamedTuple):
    """What our own client finds beside a raster; nothing if that is not on S3."""

    has_mask: bool = False
    """True if there is a ``.msk``."""
    nodata: frozenset[str] = frozenset()
    """Numbers of the bands to which the ``.aux.xml`` gives a nodata value."""


def files_beside(dataset: Any, storage_options: Mapping[str, Any] | None = None) -> FilesBeside:
    """Return the files beside a raster that determine its pixels.

    Raises
    ------
    RatZarrError
        If the server does not answer. A file that may not be read counts as missing, as for GDAL: so
        answers a server for missing files, if the bucket may not be listed.
    """
    name = dataset.GetDescription()
    if bucket_of(name) is None:
        return FilesBeside()
    # As GDAL has been told.
    allowed = gdal.GetConfigOption("CPL_VSIL_CURL_ALLOWED_EXTENSIONS")
    is_read = not allowed or ".msk" in allowed
    has_mask = is_read and _content(f"{name}.msk", storage_options, 0) is not None
    is_read = (gdal.GetConfigOption("GDAL_PAM_ENABLED") or "YES").upper() != "NO"
    data = _content(f"{name}.aux.xml", storage_options, XML_BYTES) if is_read else None
    return FilesBeside(has_mask, bands_with_nodata(data) if data else frozenset())


def _content(name: str, options: Mapping[str, Any] | None, limit: int) -> bytes | None:
    """Return a file's content, b"" if it has more bytes than the limit, None if it is missing."""
    with suppress(ArgumentError, StorePermissionError):
        try:
            return open_objects(parse_location(name), options).get("", limit=limit)
        except DamagedError:
            return b""
    return None


def check_files_read(dataset: Any, beside: FilesBeside, bands: Sequence[int]) -> None:
    """Raise an error if GDAL has not read a file beside a raster.

    Parameters
    ----------
    dataset : gdal.Dataset
    beside : FilesBeside
    bands : sequence of int
        The bands whose pixels are needed, counted from 1.

    Raises
    ------
    GdalLossError
        Names the file.
    """
    name, missed = dataset.GetDescription(), None
    for band in map(dataset.GetRasterBand, bands):
        if str(band.GetBand()) in beside.nodata and band.GetNoDataValue() is None:
            missed = f"{name}.aux.xml"
        elif beside.has_mask and _is_unmasked(band, f"{name}.msk"):
            missed = f"{name}.msk"
    if missed is not None:
        raise GdalLossError(
            f"GDAL has not read {missed}, so that {name} lacks pixels without a value: the server has "
            "refused it or broken off. Repeat the command."
        )


def _is_unmasked(band: Any, mask: str) -> bool:
    """Return True if a band does not use a ``.msk`` that is made for it."""
    if not band.GetMaskFlags() & (gdal.GMF_ALL_VALID | gdal.GMF_NODATA | gdal.GMF_ALPHA):
        return False
    with exceptions(False), collected() as found, siblings_visible(mask):
        other = gdal.OpenEx(mask, gdal.OF_RASTER)
    # Without its end, the file may lack the metadata that make it a mask.
    is_whole = other is not None and not found
    return not is_whole or bool(other.GetMetadataItem(f"INTERNAL_MASK_FLAGS_{band.GetBand()}"))
