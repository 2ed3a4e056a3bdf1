"""Open rasters and their bands, with the files beside them."""

import os
import posixpath
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from gdalbridge.errors import RasterNotFoundError
from gdalbridge.gdalio.compat import (
    Message,
    collected,
    exceptions,
    gdal,
    silence,
    thread_options,
    vrt_xml,
)
from gdalbridge.gdalio.special_files import refuse_special_files, refuse_special_sources
from gdalbridge.gdalio.vsis3 import ask, bucket_of, in_this_thread, reached
from ratzarr.stores import gdal_name

__all__ = [
    "band_of",
    "driver_of",
    "file_of",
    "is_updatable",
    "messages_of",
    "open_dataset",
    "opened",
    "read_file",
    "siblings_known",
    "siblings_visible",
    "source_of",
    "xml_attribute",
]


AS_THEY_ARE = frozenset(
    ["SourceFilename", "SourceBand", "SourceProperties", "OpenOptions", "SrcRect", "DstRect",
     "NODATA", "resampling"]
)  # fmt: skip
"""Properties of a VRT source that leave its values unchanged."""


def source_of(dataset: Any, band: Any) -> tuple[str, int] | None:
    """Return the path and band of a band's only source; None for any other raster."""
    driver = dataset.GetDriver()
    if driver is None or driver.ShortName != "VRT":
        return None
    # Not band.GetMetadata("vrt_sources"): for a dataset in memory it crashes the process.
    described = vrt_xml(dataset)
    whole = gdal.ParseXMLString(described) if described else None
    root = None if whole is None else _only_source(whole, band.GetBand())
    if root is None:
        return None
    found = {node[1]: node for node in root[2:] if node[0] == gdal.CXT_Element}
    if not found.keys() <= AS_THEY_ARE or "SourceFilename" not in found:
        return None
    if not _is_nearest(root):
        return None
    name = _text(found["SourceFilename"])
    number = _text(found["SourceBand"]) if "SourceBand" in found else "1"
    if not name or not number.isdecimal() or int(number) < 1:
        return None
    if xml_attribute(found["SourceFilename"], "relativeToVRT") == "1":
        name = posixpath.join(posixpath.dirname(dataset.GetDescription()), name)
    return name, int(number)


def _only_source(whole: Any, number: int) -> Any:
    """Return the single source of a band, if its kind can leave values unchanged."""
    tops = [whole] if whole[1] == "VRTDataset" else whole[2:]
    for top in tops:
        for node in top[2:]:
            if node[1] == "VRTRasterBand" and xml_attribute(node, "band") == str(number):
                # Computed bands have a class of their own.
                if xml_attribute(node, "subClass") not in (None, "VRTSourcedRasterBand"):
                    return None
                sources = [child for child in node[2:] if child[1].endswith("Source")]
                simple = [one for one in sources if one[1] in ("SimpleSource", "ComplexSource")]
                return simple[0] if len(sources) == len(simple) == 1 else None
    return None


def _is_nearest(root: Any) -> bool:
    asked = xml_attribute(root, "resampling")
    return asked is None or asked.lower() in ("near", "nearest")


def _text(node: Any) -> str:
    return "".join(child[1] for child in node[2:] if child[0] == gdal.CXT_Text)


def xml_attribute(node: Any, name: str) -> str | None:
    """Return an attribute of an element in one of GDAL's XML trees; None if it has none.

    A node is a list: its kind, its name or text, and its children.
    """
    for child in node[2:]:
        if child[0] == gdal.CXT_Attribute and child[1] == name:
            return _text(child)
    return None


_messages: weakref.WeakKeyDictionary[Any, list[Message]] = weakref.WeakKeyDictionary()
"""GDAL's messages for each dataset that was opened here."""


@contextmanager
def opened(raster: Any, storage_options: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Open a raster by name within the block, or use an open dataset.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A path, URL or ``/vsi`` name, or an open dataset.
    storage_options : mapping, optional
        For a raster on S3, see :class:`ratzarr.RatZarr`.
    """
    if hasattr(raster, "GetRasterBand"):
        yield raster
        return
    name = os.fspath(raster)
    is_remote = gdal_name(name).startswith("/vsi")
    # GDAL may read files beside the raster later, and needs the settings then too.
    with reached(name, storage_options) if is_remote else nullcontext():
        yield open_dataset(raster, storage_options=storage_options)


def open_dataset(
    raster: Any,
    *,
    update: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    siblings: Sequence[str] | None = None,
) -> Any:
    """Open a raster by its path, URL or ``/vsi`` name; on S3, within :func:`opened` only.

    Parameters
    ----------
    raster : str or os.PathLike
        The raster.
    update : bool
        Open for writing.
    storage_options : mapping, optional
        For a raster on S3, see :class:`ratzarr.RatZarr`.
    siblings : sequence of str, optional
        The files of its directory, if known. Otherwise GDAL requests dozens of names one by one.

    Raises
    ------
    RasterNotFoundError
        With GDAL's explanation.
    RatZarrError
        If the raster is on S3 and the server refuses.
    """
    name = gdal_name(os.fspath(raster))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RasterNotFoundError(
            f"{raster} can't be opened as a raster: GDAL accepts only names in UTF-8"
        ) from None
    refuse_special_files(name)
    flags = gdal.OF_RASTER | (gdal.OF_UPDATE if update else gdal.OF_READONLY)
    with exceptions(False), collected() as found, siblings_visible(name):
        if siblings is None:
            dataset = gdal.OpenEx(name, flags)
        else:
            dataset = gdal.OpenEx(name, flags, sibling_files=list(siblings))
    if dataset is None:
        is_path = not name.startswith("/vsi") and ":" not in name
        reason = "GDAL gives no reason"
        is_missing = bucket_of(name) is not None and not ask(name, storage_options)
        if not found and is_path and not os.path.lexists(name):
            reason = "the file does not exist"
        elif not found:
            # Otherwise GDAL does not say that no driver knows a file.
            with exceptions(False), collected() as found, siblings_visible(name):
                gdal.OpenEx(name, flags | gdal.OF_VERBOSE_ERROR)
        if found:
            reason = found[-1].text
        if is_missing and ("404" in reason or "does not exist" in reason):
            # Other words are about a raster that is a directory.
            reason = "the file does not exist"
        how = "for writing " if update else ""
        raise RasterNotFoundError(f"{raster} can't be opened {how}as a raster: {reason}")
    refuse_special_sources(dataset)
    _messages[dataset] = found
    return dataset


def file_of(dataset: Any) -> str | None:
    """Return the name of a dataset; None for a dataset in memory or made from text."""
    name: str = dataset.GetDescription()
    in_memory = not name or name.startswith("<") or dataset.GetDriver().ShortName == "MEM"
    return None if in_memory else name


def messages_of(dataset: Any) -> list[Message] | None:
    """Return GDAL's messages for a dataset so far; None if it was not opened here.

    GDAL reports problems of a table only on its first access, so callers add later messages here.
    """
    return _messages.get(dataset)


def driver_of(raster: str, storage_options: Mapping[str, Any] | None = None) -> str | None:
    """Return the name of the driver that would open a raster; None if there is none."""
    with reached(raster, storage_options) as name:
        refuse_special_files(name)
        with silence(), siblings_visible(name):
            driver = gdal.IdentifyDriverEx(name, gdal.OF_RASTER)
    return None if driver is None else str(driver.ShortName)


def read_file(path: str) -> bytes | None:
    """Return the content of a file in GDAL's file systems; None if it can't be opened."""
    with silence():
        file = gdal.VSIFOpenL(path, "rb")
        if file is None:
            return None
        try:
            pieces = iter(lambda: bytes(gdal.VSIFReadL(1, 2**24, file) or b""), b"")
            return b"".join(pieces)
        finally:
            gdal.VSIFCloseL(file)


def band_of(dataset: Any, band: object, name: str) -> Any:
    """Return a band of a dataset.

    Raises
    ------
    RasterNotFoundError
        Names the number of bands.
    """
    count = dataset.RasterCount
    if isinstance(band, bool) or not isinstance(band, int) or not 1 <= band <= count:
        has = f"{count} band" if count == 1 else f"{count} bands"
        raise RasterNotFoundError(f"{name} has {has}, counted from 1: there is no band {band!r}")
    return dataset.GetRasterBand(band)


def is_updatable(dataset: Any, band: Any) -> bool:
    """Return True if a dataset was opened for update, so that its file may be incomplete."""
    # GDAL's bindings don't tell. So attempt a write outside the raster. It never writes anything,
    # and its error code tells whether the dataset is open for update.
    with silence():
        gdal.ErrorReset()
        with suppress(RuntimeError):
            band.WriteRaster(dataset.RasterXSize, 0, 1, 1, b"\0", 1, 1, gdal.GDT_Byte)
        reason = gdal.GetLastErrorNo()
        gdal.ErrorReset()
    return reason not in (gdal.CPLE_AppDefined, gdal.CPLE_NotSupported, gdal.CPLE_NoWriteAccess)


@contextmanager
def siblings_visible(name: str) -> Iterator[None]:
    """Make GDAL read the .aux.xml beside a raster, which may contain a table."""
    changed: dict[str, str | None] = {}
    # On a local disk, the option hides the file as well.
    if (gdal.GetConfigOption("GDAL_DISABLE_READDIR_ON_OPEN") or "").upper() == "EMPTY_DIR":
        changed["GDAL_DISABLE_READDIR_ON_OPEN"] = "TRUE"
    is_remote = name.startswith("/vsi")
    if is_remote:
        # GDAL takes a file after the first 1000 of a directory for missing.
        changed["GDAL_READDIR_LIMIT_ON_OPEN"] = "0"
        allowed = gdal.GetConfigOption("CPL_VSIL_CURL_ALLOWED_EXTENSIONS")
        if allowed and ".aux.xml" not in allowed:
            separator = "," if "," in allowed else " "
            changed["CPL_VSIL_CURL_ALLOWED_EXTENSIONS"] = f"{allowed}{separator}.aux.xml"
    with thread_options(changed), in_this_thread(name) if is_remote else nullcontext():
        yield


@contextmanager
def siblings_known(name: str) -> Iterator[None]:
    """Keep GDAL from requesting files by name for a dataset opened with its siblings."""
    # Overviews and masks are datasets too, and each would request dozens of names.
    alone = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    with thread_options(alone), in_this_thread(name):
        yield
