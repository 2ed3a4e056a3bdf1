"""The import of GDAL: features of its version, its errors and messages, its options."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np

from gdalbridge.errors import GdalMissingError

__all__ = [
    "ARROW_LAYERS",
    "DROPS_TABLES",
    "INT8_PIXELS",
    "INT64_PIXELS",
    "INVALIDATES_BANDS",
    "LISTS_OPTIONS",
    "NEW_TYPES",
    "READS_DBF",
    "Message",
    "block_cache",
    "block_io_is_safe",
    "collected",
    "data_type",
    "exceptions",
    "gdal",
    "gdal_array",
    "ogr_exceptions",
    "osr_exceptions",
    "own_rat",
    "set_own_rat",
    "silence",
    "thread_options",
    "vrt_xml",
    "write_array",
]

try:
    from osgeo import gdal, gdal_array
except ImportError as error:
    raise GdalMissingError(
        f"GDAL's Python bindings can't be loaded ({error}). Ways to get them: conda-forge "
        "(conda install -c conda-forge gdal), which GDAL itself recommends; the system's "
        "libgdal with the package GDAL of the same version from PyPI (with numpy installed "
        "first, and pip's --no-build-isolation); or, for a first try, the extra gdal-wheel of "
        "ratzarr (pip install 'ratzarr[gdal-wheel]')"
    ) from error

_VERSION = tuple(
    int(part) for part in gdal.VersionInfo("RELEASE_NAME").split(".")[:3] if part.isdigit()
)
"""GDAL's version, e.g. (3, 12, 4). Other modules use the flags below."""

INT64_PIXELS = hasattr(gdal, "GDT_Int64")
"""True if pixels can be integers of 64 bits (since 3.5)."""
INT8_PIXELS = _VERSION >= (3, 7)
"""True if signed bytes are a type of pixels; before, they are UInt8 with a hint in the metadata."""
LISTS_OPTIONS = hasattr(gdal, "GetConfigOptions") and hasattr(gdal, "GetGlobalConfigOption")
"""True if the options of the process can be listed, and told from the environment's (since 3.7)."""
_EXCEPTIONS_OF_THREAD = hasattr(gdal, "ExceptionMgr")
"""True if errors can become exceptions in one thread only, in ``ogr`` and ``osr`` too (since 3.7)."""
INVALIDATES_BANDS = hasattr(gdal.Dataset, "_invalidate_children")
"""True if closing a dataset marks its bands as invalid (since 3.8)."""
ARROW_LAYERS = _VERSION >= (3, 8)
"""True if vector layers take whole Arrow batches."""
READS_DBF = _VERSION >= (3, 11)
"""True if GDAL itself reads a .vat.dbf."""
NEW_TYPES = _VERSION >= (3, 12)
"""True if tables support columns of Boolean, DateTime and WKBGeometry."""
DROPS_TABLES = _VERSION >= (3, 12)
"""True if a GeoTIFF opened for reading accepts a table, shows it, and drops it."""
_BLOCK_IO_IS_SAFE = _VERSION >= (3, 12, 4)
"""True if blocks of a default RAT are known to be read and written correctly at any row.

GDAL 3.6.2 accesses the wrong memory for blocks that do not begin at row 0. The version that fixed
this is unknown, and testing would itself be undefined behaviour, so older versions use the slow
path."""

own_rat = gdal.Band.GetDefaultRAT
"""Returns a band's own table, even if :func:`gdalbridge.enable` replaces ``GetDefaultRAT``."""
set_own_rat = gdal.Band.SetDefaultRAT

RETRY = "Retrying again in"
"""Occurs in the message of a request that GDAL repeats."""
TAKEN = frozenset({np.dtype(np.int32).str, np.dtype(np.float64).str})
"""Numeric dtypes that ``WriteArray`` passes to GDAL unconverted, after copying them."""


def block_io_is_safe(rat: "gdal.RasterAttributeTable") -> bool:
    """Return True if blocks that begin after row 0 can be read and written."""
    return _BLOCK_IO_IS_SAFE or bool(rat.ChangesAreWrittenToFile())


def data_type(band: Any) -> str:
    """Return the name of a band's data type, equal in all versions of GDAL."""
    name = str(gdal.GetDataTypeName(band.DataType))
    if name != "Byte":
        return name
    hint = None if INT8_PIXELS else band.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE")
    return "Int8" if hint == "SIGNEDBYTE" else "UInt8"


def vrt_xml(dataset: Any) -> str:
    """Return the XML of an open VRT. Bytes that are not UTF-8, as its tables may have, are U+FFFD."""
    text = (dataset.GetMetadata("xml:VRT") or [""])[0]
    # GDAL's bindings return such text as bytes.
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def write_array(rat: "gdal.RasterAttributeTable", values: Any, column: int, start: int) -> int:
    """Write an array to a table like ``WriteArray``, but without its initial copy.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Contiguous. Fixed-width text and numbers of GDAL's own dtypes are passed directly; others
        go through ``WriteArray``.

    Returns
    -------
    int
        0; or the result of ``WriteArray``, if that was called with GDAL's exceptions off.

    Raises
    ------
    ValueError
        For a column or rows outside the table.
    RuntimeError
        If GDAL fails.
    """
    if values.dtype.str not in TAKEN and values.dtype.kind != "S":
        failed: int = rat.WriteArray(values, column, start)
        return failed
    # Older versions report neither error.
    if not 0 <= column < rat.GetColumnCount():
        raise ValueError(f"column {column} is not in the table")
    if not 0 <= start <= start + len(values) <= rat.GetRowCount():
        raise ValueError(f"rows {start} to {start + len(values)} are not in the table")
    failed = gdal_array.RATValuesIONumPyWrite(rat, column, start, values)
    if failed:
        raise RuntimeError(gdal.GetLastErrorMsg() or f"GDAL did not write rows from {start}")
    return failed


def exceptions(use: bool = True, module: Any = gdal) -> AbstractContextManager[None]:
    """Turn GDAL's errors into exceptions within a block, not for the whole process.

    Parameters
    ----------
    use : bool
        False keeps errors as messages, even if the caller has enabled exceptions. An exception
        would discard the result of a call that succeeded with an error, and error handlers would
        not be called.
    module : module
        ``osgeo.gdal``, or ``osgeo.osr``, which has its own switch.
    """
    if _EXCEPTIONS_OF_THREAD:
        # The user's other threads keep their setting.
        manager: AbstractContextManager[None] = module.ExceptionMgr(useExceptions=use)
        return manager
    return _exceptions_of_process(use, module)


@contextmanager
def _exceptions_of_process(use: bool, module: Any) -> Iterator[None]:
    switches = module.DontUseExceptions, module.UseExceptions
    before = bool(module.GetUseExceptions())
    switches[use]()
    try:
        yield
    finally:
        switches[before]()


@contextmanager
def ogr_exceptions() -> Iterator[None]:
    """Turn errors of vector layers into exceptions; ``osgeo.ogr`` has its own switch."""
    from osgeo import ogr

    if not _EXCEPTIONS_OF_THREAD:
        yield
        return
    with ogr.ExceptionMgr(useExceptions=True):
        yield


@contextmanager
def osr_exceptions(use: bool = True) -> Iterator[None]:
    """Do as :func:`exceptions` for coordinate reference systems; ``osgeo.osr`` has its own switch.

    Without it, GDAL 3.7 and later warn of a choice that the user has not made.
    """
    from osgeo import osr

    with exceptions(use, osr), silence():
        yield


@contextmanager
def block_cache(limit: int) -> Iterator[None]:
    """Keep GDAL's cache of blocks below a number of bytes within the block.

    By default it grows to 5 % of the machine's memory. It is one for the process, so that runs in
    several threads share the lowest limit.
    """
    with _cache_lock:
        _cache_limits.append(limit)
        if len(_cache_limits) == 1:
            _cache_before[:] = [gdal.GetCacheMax()]
        gdal.SetCacheMax(min([*_cache_before, *_cache_limits]))
    try:
        yield
    finally:
        with _cache_lock:
            _cache_limits.remove(limit)
            gdal.SetCacheMax(min([*_cache_before, *_cache_limits]))


_cache_lock = threading.Lock()
_cache_limits: list[int] = []
_cache_before: list[int] = []


@contextmanager
def silence() -> Iterator[None]:
    """Keep GDAL's messages off stderr."""
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    try:
        yield
    finally:
        gdal.PopErrorHandler()


class Message(NamedTuple):
    """A message from GDAL."""

    level: int
    """``gdal.CE_Warning``, ``gdal.CE_Failure``, ..."""
    text: str
    of_table: bool = False
    """True if GDAL reported it while reading a table."""


@contextmanager
def collected(*, of_table: bool = False) -> Iterator[list[Message]]:
    """Collect GDAL's messages in this thread within the block, and keep them off stderr.

    Parameters
    ----------
    of_table : bool
        True if all messages concern a table.
    """
    found: list[Message] = []

    def handle(level: int, number: int, text: str) -> None:
        if level == gdal.CE_Debug:
            sys.stderr.write(f"{text}\n")
        elif level != gdal.CE_None and RETRY not in text:
            found.append(Message(level, text.strip(), of_table))

    gdal.PushErrorHandler(handle)
    try:
        yield found
    finally:
        gdal.PopErrorHandler()


@contextmanager
def thread_options(options: Mapping[str, str | None]) -> Iterator[None]:
    """Set GDAL options for this thread within the block. None removes an option."""
    # GDAL's own gdal.config_options came with GDAL 3.7.
    before = {key: gdal.GetThreadLocalConfigOption(key) for key in options}
    for key, value in options.items():
        gdal.SetThreadLocalConfigOption(key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            gdal.SetThreadLocalConfigOption(key, value)
