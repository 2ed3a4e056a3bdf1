"""Samples of a raster's pixels, which tell it from another raster of the same shape.

A sample is a small window of one band. Its digest is of the values as GDAL decodes them, so
it stays the same when the file is copied, compressed again or tiled otherwise, and when
metadata, statistics, overviews or a colour table are written. The windows depend on the
raster's size and data type alone; two sets of samples are compared where they have the same
windows. A change outside all windows is not noticed.

On a server each sample costs requests, so few are taken: :func:`sample_pixels`.
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
"""Drivers of rasters that are made of others."""

PLACES = (
    (1 / 2, 1 / 2), (1 / 4, 3 / 4), (3 / 4, 1 / 4), (1 / 4, 1 / 4), (3 / 4, 3 / 4),
    (1 / 2, 1 / 16), (1 / 2, 1 / 256), (0, 0),
)  # fmt: skip
"""Where the windows are, as parts of width and height; the most telling ones first."""
WIDTH, HEIGHT = 256, 16
"""Pixels of a window. Its corner is at a multiple of both: tiles of TIFFs are multiples of 16
pixels, so a window lies in one row of them."""
STRIP_BYTES = 2**20
"""Bytes of a window over the raster's whole width: windows of wide rasters are less high."""
BLOCK_BYTES = 32 * 2**20
"""Bytes of a block, decoded, beyond which no sample is taken."""

REMOTE_SAMPLES = 2
REMOTE_BLOCKS = 768
"""Blocks of a TIFF up to which GDAL has read where each of them is when the raster is open: the
first 16 KiB hold two lists of 8 bytes each. Each sample is then one request."""
REMOTE_INDEX = 1500
"""In a TIFF of more blocks: the place in its list up to which a block's offset, and not its
length, is surely among the first 16 KiB. A sample of such a block is two requests."""

_REMOTE = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)")
_STREAMED = re.compile(r"/vsi\w+_streaming")

EMPTY = "empty"
"""In place of a digest: no values are stored. What GDAL makes of that depends on metadata."""
CONSTANT = "all "
"""What precedes the value, in place of a digest, where a window has one value."""


KNOWN_FILES = 64
_known: dict[tuple[str, int], tuple[str, dict[str, str]]] = {}
"""Samples of files on a disk, by name and band, with the state that the file was in: programs
attach to one raster again and again."""


@dataclass(frozen=True, slots=True)
class _Window:
    x: int
    y: int
    columns: int
    rows: int

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.columns},{self.rows}"


def is_remote(name: str) -> bool:
    """Return whether GDAL asks a server for a file."""
    return _REMOTE.search(name) is not None


def data_type(band: Any) -> str:
    """Return the name of a band's data type, the same for all versions of GDAL."""
    from gdalbridge.gdalio.compat import VERSION, gdal

    name = str(gdal.GetDataTypeName(band.DataType))
    if name == "Byte":
        # Before 3.7 signed bytes were no type of their own.
        signed = (
            VERSION < (3, 7)
            and band.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE") == "SIGNEDBYTE"
        )
        return "Int8" if signed else "UInt8"
    return name


def sample_pixels(dataset: Any, number: int, file: str) -> dict[str, str]:
    """Return digests of a band's samples, by their windows.

    On a server at most two requests are made. There a TIFF of few blocks has two samples, and
    one of many blocks has one, near its beginning; formats in which it takes more requests to
    find a block have none.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    number : int
        Its band, counted from 1.
    file : str
        The file that it is.

    Returns
    -------
    dict of str to str
        By ``"column,row,columns,rows"`` of the window. Empty where samples would be too
        expensive, or can't be read.
    """
    # Not for the whole module: samples are compared without GDAL as well.
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
            # Neither the band nor its server vouches for anything now.
            return {}
        finally:
            gdal.ErrorReset()
    if state:
        if len(_known) >= KNOWN_FILES:
            _known.clear()
        _known[file, number] = state, dict(found)
    return found


def _state(dataset: Any, file: str) -> str:
    """Return what tells whether a file has changed; empty where nothing does."""
    # Other formats keep pixels in several files.
    if dataset.GetDriver().ShortName != "GTiff" or file.startswith("/vsi"):
        return ""
    try:
        return state_of(Path(file).stat())
    except (OSError, ValueError):
        return ""


def _windows(dataset: Any, itemsize: int) -> Iterator[_Window]:
    width, height = dataset.RasterXSize, dataset.RasterYSize
    # A power of two, so that a multiple of it never crosses a tile's border.
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
            # Narrow tiles that a window needs several of need not lie side by side in the file.
            is_narrow = block_width < min(WIDTH, dataset.RasterXSize)
            windows = windows[: 1 if is_narrow else REMOTE_SAMPLES]
        else:

            def last(window: _Window) -> int:
                row = (window.y + window.rows - 1) // block_height
                column = (window.x + window.columns - 1) // block_width
                return int(before + row * across + column)

            windows = [one for one in windows if last(one) <= REMOTE_INDEX][:1]
    # Some formats can only be read from the top.
    return sorted(windows, key=lambda one: one.y)


def _is_readable(dataset: Any, file: str) -> bool:
    """Return whether reading pixels asks for no file that GDAL has not opened yet."""
    driver = dataset.GetDriver().ShortName
    if driver not in REFERRERS:
        return True
    # A server may take for ever, and so may a pipe.
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
    """Return the windows in which two sets of samples differ, and how many could be compared."""
    common = [window for window in now if window in then]
    judged = [window for window in common if not _undecided(then[window], now[window])]
    return [window for window in judged if then[window] != now[window]], len(judged)


def _undecided(then: str, now: str) -> bool:
    # A copy of what is empty has one value there: zero, or the one for no data.
    return EMPTY in (then, now) and then != now and _is_flat(then) and _is_flat(now)


def _is_flat(sample: str) -> bool:
    return sample == EMPTY or sample.startswith(CONSTANT)
