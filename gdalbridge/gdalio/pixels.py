"""Pixels of a band, read window by window from several threads.

GDAL lets only one thread at a time use a dataset, so each thread opens the raster for itself. A
dataset that exists only in memory is read by one thread at a time.
"""

import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import GdalError, RasterNotFoundError
from gdalbridge.gdalio.compat import data_type, exceptions, gdal
from gdalbridge.gdalio.crs import same_crs
from gdalbridge.gdalio.datasets import band_of, opened
from gdalbridge.gdalio.files_beside import FilesBeside, check_files_read, files_beside

__all__ = ["Grid", "Pixels", "Window", "pixel_type", "pixel_value"]

Array = NDArray[Any]

WINDOW_PIXELS = 2**20
"""Approximate number of pixels of a window, so that its arrays stay in the processor's caches."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a raster's pixels lie."""

    width: int
    height: int
    transform: tuple[float, ...] | None
    """GDAL's six coefficients; None if the raster has none."""
    crs: str
    """The coordinate reference system as WKT, or an empty string."""

    def differences(self, other: "Grid") -> list[str]:
        """Describe how another grid differs; empty if its pixels lie at the same places."""
        found = []
        if (self.width, self.height) != (other.width, other.height):
            found.append(
                f"{other.width} x {other.height} pixels, not {self.width} x {self.height}"
            )
        if self.transform is not None and other.transform is not None:
            # A shift of less than a thousandth of a pixel is rounding.
            size = max(abs(self.transform[1]), abs(self.transform[2]), 1e-300)
            far = [abs(a - b) for a, b in zip(self.transform, other.transform, strict=True)]
            shifts = max(far[0], far[3])
            stretch = max(far[1] + far[2], far[4] + far[5]) * max(self.width, self.height)
            if max(shifts, stretch) > size / 1000:
                found.append(f"the geotransform {other.transform}, not {self.transform}")
        elif self.transform != other.transform:
            found.append("no geotransform" if other.transform is None else "a geotransform")
        if self.crs and other.crs and not same_crs(self.crs, other.crs):
            found.append("another coordinate reference system")
        return found


class Pixels:
    """One or more bands of a raster, opened for reading; a context manager.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A path, URL or ``/vsi`` name, or an open dataset.
    bands : sequence of int
        The bands that are read, counted from 1.
    storage_options : mapping, optional
        For a raster on S3, see :class:`ratzarr.RatZarr`.
    mask : int, optional
        A band that is 0 at pixels that are not valid. GDAL takes alpha bands for masks only if they
        are Byte or UInt16.

    Attributes
    ----------
    name : str
        For messages.
    grid : Grid
    count : int
        Number of bands of the raster.
    descriptions : list of str
        Of all its bands; empty where a band has none.
    dtypes : list of numpy.dtype
        Of each band.
    nodata : list of float, int or None
        Of each band.
    masked : list of bool
        True for each band with a mask of its own or for the dataset: :meth:`valid` reads it.
    """

    def __init__(
        self,
        raster: Any,
        bands: Sequence[int] = (1,),
        storage_options: Mapping[str, Any] | None = None,
        *,
        mask: int | None = None,
    ) -> None:
        self._mask = mask
        self._stack = ExitStack()
        self._options = storage_options
        self._local = threading.local()
        self._lock = threading.Lock()
        self._raster = raster
        try:
            dataset = self._stack.enter_context(opened(raster, storage_options))
            is_open = dataset is raster
            self.name = dataset.GetDescription() if is_open else os.fspath(raster)
            self.bands = tuple(bands)
            found = [band_of(dataset, band, self.name) for band in self.bands]
            # An open dataset is shared: it may be in memory, or have changes that no file has.
            self._shared = dataset if is_open else None
            self._local.dataset = dataset
            self.grid = _grid(dataset)
            self.count = int(dataset.RasterCount)
            self.descriptions = [
                dataset.GetRasterBand(number + 1).GetDescription() for number in range(self.count)
            ]
            self.dtypes = [_dtype(band, self.name) for band in found]
            self.nodata = [
                pixel_value(band.GetNoDataValue(), kind)
                for band, kind in zip(found, self.dtypes, strict=True)
            ]
            self.masked = [
                mask is not None
                or not band.GetMaskFlags() & (gdal.GMF_ALL_VALID | gdal.GMF_NODATA)
                for band in found
            ]
            self._beside = FilesBeside() if is_open else files_beside(dataset, storage_options)
            check_files_read(dataset, self._beside, self.bands)
            self.block = tuple(found[0].GetBlockSize()) if found else (self.grid.width, 1)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all datasets."""
        self._local = threading.local()
        self._shared = None
        self._stack.close()

    @property
    def threads(self) -> int:
        """Number of threads that may read at the same time."""
        return 1 if self._shared is not None else 64

    @property
    def dataset(self) -> Any:
        """The dataset of this thread."""
        if self._shared is not None:
            return self._shared
        found = getattr(self._local, "dataset", None)
        if found is None:
            with self._lock:
                # Closed with this object, by whichever thread.
                found = self._stack.enter_context(opened(self._raster, self._options))
                check_files_read(found, self._beside, self.bands)
            self._local.dataset = found
        return found

    def looks(self, band: int) -> tuple[NDArray[np.int32] | None, list[str]]:
        """Return a band's colour table, of shape (entries, 4), and its category names."""
        found = self.dataset.GetRasterBand(band)
        table = found.GetRasterColorTable()
        palette = None
        if table is not None:
            entries = [table.GetColorEntry(one) for one in range(table.GetCount())]
            palette = np.array(entries, np.int32).reshape(-1, 4)
        return palette, list(found.GetRasterCategoryNames() or [])

    def windows(self, pixels: int = WINDOW_PIXELS) -> list[Window]:
        """Return windows that cover the raster, row by row, in whole blocks of the file.

        Parameters
        ----------
        pixels : int
            Approximate number of pixels of a window; a window has at least one block.
        """
        grid = self.grid
        wide, high = (max(1, one) for one in self.block)
        height = high
        if grid.width * high <= pixels:
            width = grid.width
            height = high * max(1, pixels // (grid.width * high))
        else:
            width = wide * max(1, pixels // (wide * high))
        return [
            Window(x, y, min(width, grid.width - x), min(height, grid.height - y))
            for y in range(0, grid.height, height)
            for x in range(0, grid.width, width)
        ]

    def read(self, window: Window, index: int = 0) -> Array:
        """Return the pixels of one of the bands as an array of shape (height, width).

        Raises
        ------
        GdalError
            If GDAL can't read them; names the raster, the band and the window.
        """
        return self._read(window, self.bands[index], lambda band: band)

    def valid(self, window: Window, index: int = 0) -> NDArray[np.bool_] | None:
        """Return which pixels the mask of a band calls valid; None if it has no mask.

        The nodata value is not part of it: compare :attr:`nodata` yourself.
        """
        if not self.masked[index]:
            return None
        # The bands may share a mask.
        is_last = index == len(self.bands) - 1
        if self._mask is not None:
            found = self._read(window, self._mask, lambda band: band, is_last)
        else:
            found = self._read(window, self.bands[index], lambda band: band.GetMaskBand(), is_last)
        return np.asarray(found != 0)

    def _read(self, window: Window, number: int, choose: Any, is_last: bool = True) -> Array:
        dataset = self.dataset
        with exceptions(True):
            try:
                if self._shared is None:
                    band = choose(dataset.GetRasterBand(number))
                    values = _array(band, window)
                    if is_last and self._covers_blocks(window):
                        # No other window needs these blocks. GDAL would keep all that fit into a
                        # twentieth of the machine's memory.
                        band.FlushCache()
                else:
                    with self._lock:
                        values = _array(choose(dataset.GetRasterBand(number)), window)
            except (RuntimeError, ValueError) as error:
                raise GdalError(
                    f"{self.name}, band {number}, {window.width} x {window.height} pixels from column "
                    f"{window.x}, line {window.y}: {error}"
                ) from error
        if values is None:
            raise GdalError(f"{self.name}, band {number}: GDAL can't read its pixels")
        return values

    def _covers_blocks(self, window: Window) -> bool:
        """Return True if a window begins and ends where the file's blocks do."""
        ends = (
            (window.x, window.width, self.block[0], self.grid.width),
            (window.y, window.height, self.block[1], self.grid.height),
        )
        return all(
            start % block == 0 and (start + length == size or (start + length) % block == 0)
            for start, length, block, size in ends
        )


def _array(band: Any, window: Window) -> Array:
    found: Array = band.ReadAsArray(window.x, window.y, window.width, window.height)
    return found


def _grid(dataset: Any) -> Grid:
    transform = dataset.GetGeoTransform(can_return_null=True)
    return Grid(
        dataset.RasterXSize,
        dataset.RasterYSize,
        None if transform is None else tuple(transform),
        dataset.GetProjection() or "",
    )


def _dtype(band: Any, name: str) -> np.dtype[Any]:
    from osgeo import gdal_array

    found = gdal_array.GDALTypeCodeToNumericTypeCode(band.DataType)
    if found is None or np.dtype(found).kind not in "iuf":
        raise RasterNotFoundError(
            f"{name}, band {band.GetBand()}: pixels of type {gdal.GetDataTypeName(band.DataType)} "
            "are no numbers of a table"
        )
    return np.dtype(np.int8 if data_type(band) == "Int8" else found)


def pixel_type(dtype: np.dtype[Any]) -> int:
    """Return GDAL's number of a type of pixels."""
    from osgeo import gdal_array

    found: int = gdal_array.NumericTypeCodeToGDALTypeCode(dtype)
    return found


def pixel_value(value: float | None, dtype: np.dtype[Any]) -> Any:
    """Return a nodata value as pixels of a type have it, or None; also None if no pixel can have it.

    >>> pixel_value(255.0, np.dtype("u1")), pixel_value(256, np.dtype("u1"))
    (255, None)
    """
    if value is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            found = float(np.asarray(value, np.float64).astype(dtype))
        return None if math.isinf(found) and not math.isinf(value) else found
    if not math.isfinite(value) or value != int(value):
        return None
    whole = int(value)
    limits = np.iinfo(dtype)
    return whole if limits.min <= whole <= limits.max else None
