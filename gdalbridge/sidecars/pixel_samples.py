"""Samples of a raster's pixels, to detect changes of their values.

A sample is a small window of one band, with a digest of the values as GDAL decodes them. The
digest stays the same if the file is copied, compressed or tiled differently, and if metadata,
statistics, overviews or a colour table are written. The windows depend only on the raster's size
and data type. Two sets of samples are compared in the windows that they share. A change outside
all windows is not detected.

On a server each sample costs requests, so :func:`sample_pixels` takes few.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ratzarr.stores import state_of

__all__ = ["REFERRERS", "data_type", "differing_samples", "is_remote", "sample_pixels"]

REFERRERS = frozenset({"VRT", "GTI", "STACTA", "STACIT", "WMS", "WMTS"})
"""Drivers of rasters that are composed of other rasters."""

PLACES = (
    (1 / 2, 1 / 2), (1 / 4, 3 / 4), (3 / 4, 1 / 4), (1 / 4, 1 / 4), (3 / 4, 3 / 4),
    (1 / 2, 1 / 16), (1 / 2, 1 / 256), (0, 0),
)  # fmt: skip
"""The positions of the windows, as fractions of width and height; the most significant ones
first."""
WIDTH, HEIGHT = 256, 16
"""The size of a window in pixels. Its corner is at a multiple of both numbers. Tiles of TIFFs
are multiples of 16 pixels, so a window lies in one row of tiles."""
STRIP_BYTES = 2**20
"""The maximum size in bytes of the window's rows over the full width of the raster. Windows of
wide rasters therefore have fewer rows."""
BLOCK_BYTES = 32 * 2**20
"""The maximum size of a decoded block in bytes; no sample is taken of larger ones."""

REMOTE_SAMPLES = 2
REMOTE_BLOCKS = 768
"""For a TIFF with at most this number of blocks, GDAL knows the location of each block after
opening the file: the first 16 KiB contain two lists of 8 bytes per block. Each sample is then
one request."""
REMOTE_INDEX = 1500
"""For a TIFF with more blocks: up to this index, a block's offset is certainly within the first
16 KiB, but its length is not. A sample of such a block takes two requests."""

_REMOTE = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)")
_STREAMED = re.compile(r"/vsi\w+_streaming")

EMPTY = "empty"
"""Replaces the digest of a window without stored values. The values that GDAL returns for it
depend on metadata."""
CONSTANT = "all "
"""Prefix of the value that replaces the digest of a window with a single value."""


KNOWN_FILES = 64
_known: dict[tuple[str, int], tuple[str, dict[str, str]]] = {}
"""Samples of local files, by name and band, with the state of the file. Programs attach to the
same raster repeatedly."""


@dataclass(frozen=True, slots=True)
class _Window:
    x: int
    y: int
    columns: int
    rows: int

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.columns},{self.rows}"


def is_remote(name: str) -> bool:
    """Return True if GDAL reads a file from a server."""
    return _REMOTE.search(name) is not None


def data_type(band: Any) -> str:
    """Return the name of a band's data type, equal in all versions of GDAL."""
    from gdalbridge.gdalio.compat import VERSION, gdal

    name = str(gdal.GetDataTypeName(band.DataType))
    if name == "Byte":
        # Before GDAL 3.7, signed bytes were not a separate type.
        signed = (
            VERSION < (3, 7)
            and band.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE") == "SIGNEDBYTE"
        )
        return "Int8" if signed else "UInt8"
    return name


def sample_pixels(dataset: Any, number: int, file: str) -> dict[str, str]:
    """Return the digests of a band's samples, by window.

    On a server, at most two requests are made. A TIFF of few blocks then has two samples, and a
    TIFF of many blocks has one sample near its beginning. Formats that need more requests to find
    a block have no samples.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    number : int
        The band, counted from 1.
    file : str
        The file of the raster.

    Returns
    -------
    dict of str to str
        Digests by window, as ``"column,row,columns,rows"``. Empty if samples are too expensive or
        can't be read.
    """
    # Imported here, because samples are compared without GDAL.
    from gdalbridge.gdalio.compat import exceptions, gdal, silence

    state = _state(dataset, file)
    if state and (known := _known.get((file, number))) is not None and known[0] == state:
        return dict(known[1])
    band = dataset.GetRasterBand(number)
    found = {}
    with exceptions(), silence():
        try:
            itemsize = max(1, gdal.GetDataTypeSize(band.DataType) // 8)
            for window in _affordable(dataset, band, number, file, itemsize):
                found[str(window)] = _digest(band, window, itemsize)
        except (RuntimeError, ValueError, MemoryError):
            # After an error, no samples can be trusted.
            return {}
        finally:
            gdal.ErrorReset()
    if state:
        if len(_known) >= KNOWN_FILES:
            _known.clear()
        _known[file, number] = state, dict(found)
    return found


def _state(dataset: Any, file: str) -> str:
    """Return a state that changes with the file; empty if it can't be determined."""
    # Other formats may store pixels in several files.
    if dataset.GetDriver().ShortName != "GTiff" or file.startswith("/vsi"):
        return ""
    try:
        return state_of(Path(file).stat())
    except (OSError, ValueError):
        return ""


def _windows(dataset: Any, itemsize: int) -> Iterator[_Window]:
    width, height = dataset.RasterXSize, dataset.RasterYSize
    # Use a power of two, so that no window crosses the border of a tile.
    rows = max(1, min(HEIGHT, STRIP_BYTES // (width * itemsize)))
    rows = 1 << (rows.bit_length() - 1)
    for across, down in PLACES:
        x = int(width * across) // WIDTH * WIDTH
        y = int(height * down) // HEIGHT * HEIGHT
        yield _Window(x, y, min(WIDTH, width - x), min(rows, height - y))


def _affordable(dataset: Any, band: Any, number: int, file: str, itemsize: int) -> list[_Window]:
    block_width, block_height = band.GetBlockSize()
    if block_width * block_height * itemsize > BLOCK_BYTES or not _is_readable(dataset, file):
        return []
    windows = list(dict.fromkeys(_windows(dataset, itemsize)))
    if is_remote(file):
        if dataset.GetDriver().ShortName != "GTiff" or _STREAMED.search(file):
            return []
        across = -(-dataset.RasterXSize // block_width)
        blocks = across * -(-dataset.RasterYSize // block_height)
        before = 0
        if dataset.GetMetadataItem("INTERLEAVE", "IMAGE_STRUCTURE") == "BAND":
            before = (number - 1) * blocks
            blocks *= dataset.RasterCount
        if blocks <= REMOTE_BLOCKS:
            # If a window spans several narrow tiles, they may not be adjacent in the file.
            is_narrow = block_width < min(WIDTH, dataset.RasterXSize)
            windows = windows[: 1 if is_narrow else REMOTE_SAMPLES]
        else:

            def last(window: _Window) -> int:
                row = (window.y + window.rows - 1) // block_height
                column = (window.x + window.columns - 1) // block_width
                return int(before + row * across + column)

            windows = [one for one in windows if last(one) <= REMOTE_INDEX][:1]
    # Some formats can only be read from top to bottom.
    return sorted(windows, key=lambda one: one.y)


def _is_readable(dataset: Any, file: str) -> bool:
    """Return True if reading pixels opens no remote or special files besides the raster."""
    driver = dataset.GetDriver().ShortName
    if driver not in REFERRERS:
        return True
    # A server or a pipe may never respond.
    described = (dataset.GetMetadata("xml:VRT") or [""])[0] if driver == "VRT" else "://"
    if is_remote(file) or any(word in described for word in ("/vsi", "://", ".vrt")):
        return False
    return all(Path(name).is_file() for name in dataset.GetFileList() or ())


def _digest(band: Any, window: _Window, itemsize: int) -> str:
    from gdalbridge.gdalio.compat import gdal

    place = (window.x, window.y, window.columns, window.rows)
    status, _ = band.GetDataCoverageStatus(*place)
    if status & gdal.GDAL_DATA_COVERAGE_STATUS_EMPTY:
        return EMPTY
    data = bytes(band.ReadRaster(*place, buf_type=band.DataType))
    if sys.byteorder == "big":  # pragma: no cover - no such machine is tested
        complex_ = gdal.DataTypeIsComplex(band.DataType)
        unit = itemsize // 2 if complex_ else itemsize
        data = np.frombuffer(data, f"V{unit}").view(f"u{unit}").byteswap().tobytes()
    first = data[:itemsize]
    if first * (len(data) // itemsize) == data:
        return CONSTANT + first.hex()
    return hashlib.sha256(data).hexdigest()[:16]


def differing_samples(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[list[str], int]:
    """Return the windows in which two sets of samples differ, and the number compared."""
    common = [window for window in now if window in then]
    judged = [window for window in common if not _undecided(then[window], now[window])]
    return [window for window in judged if then[window] != now[window]], len(judged)


def _undecided(then: str, now: str) -> bool:
    # A copy of an empty window has a single value there: zero or the no-data value.
    return EMPTY in (then, now) and then != now and _is_flat(then) and _is_flat(now)


def _is_flat(sample: str) -> bool:
    return sample == EMPTY or sample.startswith(CONSTANT)
