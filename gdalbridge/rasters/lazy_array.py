"""A column on a raster's pixels as a lazy array of xarray and Dask."""

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.pixels import Window
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.rasters.painter import Painter, check_nodata, first_nodata, pixel_dtype, region_of
from ratzarr.interop import required

__all__ = ["lazy_array"]

Array = NDArray[Any]

BLOCK = 1024
"""Approximate width and height of blocks."""


class _PaintedPixels:
    """An array of painted pixels from which Dask reads blocks. Each process opens the raster."""

    ndim = 2

    def __init__(
        self, arguments: Mapping[str, Any], region: Window, dtype: np.dtype[Any], nodata: Any
    ) -> None:
        self._arguments, self._region, self._nodata = dict(arguments), region, nodata
        self.dtype = dtype
        self.shape = (region.height, region.width)
        self._lock = threading.Lock()
        self._painter: Painter | None = None

    def __reduce__(self) -> Any:
        return type(self), (self._arguments, self._region, self.dtype, self._nodata)

    def _opened(self) -> Painter:
        with self._lock:
            if self._painter is None:
                self._painter = Painter(**self._arguments)
                weakref.finalize(self, self._painter.close)
            return self._painter

    def __getitem__(self, key: tuple[slice, slice]) -> Array:
        (top, bottom, _), (left, right, _) = (
            one.indices(size) for one, size in zip(key, self.shape, strict=True)
        )
        window = Window(self._region.x + left, self._region.y + top, right - left, bottom - top)
        painter = self._opened()
        if self.dtype.kind == "O":
            [values], has = painter.read(window)
            texts: Array = values.astype(object)
            texts[~has] = None
            return texts
        name = painter.values.columns[0].name
        return painter.filled(window, self.dtype, self._nodata, name)


def lazy_array(
    raster: Any,
    column: str,
    *,
    nodata: Any,
    window: Any,
    band: int,
    where: str | None,
    options: ReadOptions,
    storage_options: Mapping[str, Any] | None,
) -> Any:
    """Return an ``xarray.DataArray`` of a column on the raster's pixels; see :func:`gdalbridge.paint`."""
    xarray = required("xarray", "xarray", "a lazy array")
    dask_array = required("dask.array", "xarray", "a lazy array")
    arguments = {
        "raster": raster, "names": [column], "band": band, "where": where, "classes": False,
        "options": options, "storage_options": storage_options,
    }  # fmt: skip
    with Painter(**arguments) as painter:
        region, grid = region_of(painter, window), painter.pixels.grid
        first = painter.values.columns[0]
        attributes: dict[str, Any] = {"raster": painter.pixels.name}
        if first.dtype.kind == "T":
            if nodata is not None:
                raise BridgeError(f"column {column!r} is text: pixels without a value are None")
            dtype = np.dtype(object)
        else:
            dtype = pixel_dtype(first.dtype, column)
            nodata = (
                first_nodata(dtype, first.missing_value())
                if nodata is None
                else check_nodata(nodata, dtype, column)
            )
            attributes["nodata"] = nodata
        units = first.attributes.get("units")
        if isinstance(units, str) and units:
            attributes["units"] = units
        wide, high = (int(one) for one in painter.pixels.block)
    if grid.crs:
        attributes["crs_wkt"] = grid.crs
    coordinates = {}
    if grid.transform is not None:
        x, a, b, y, c, d = grid.transform
        attributes["transform"] = grid.transform
        if not b and not c:
            coordinates = {
                "y": y + d * (region.y + np.arange(region.height) + 0.5),
                "x": x + a * (region.x + np.arange(region.width) + 0.5),
            }
    blocks = (_side(high, region.height), _side(wide, region.width))
    pixels = _PaintedPixels(arguments, region, dtype, nodata)
    array = dask_array.from_array(
        pixels, chunks=blocks, name=False, asarray=False, fancy=False, meta=np.empty((0, 0), dtype)
    )
    return xarray.DataArray(array, coordinates, ("y", "x"), column, attributes)


def _side(block: int, size: int) -> int:
    """Return a side of blocks: whole blocks of the raster, about BLOCK pixels."""
    return min(size, block * max(1, BLOCK // block)) if block <= 4 * BLOCK else min(size, BLOCK)
