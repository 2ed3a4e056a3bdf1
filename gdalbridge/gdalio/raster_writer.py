"""A new GeoTIFF of one band, written window by window."""

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import NotWrittenError
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.gdalio.pixels import Grid, Window

__all__ = ["RasterWriter"]

OPTIONS = ("COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER")


class RasterWriter:
    """A compressed GeoTIFF on the grid of another raster; a context manager, which completes it.

    Parameters
    ----------
    path : str or os.PathLike
        The file; it must not exist.
    grid : Grid
    dtype : dtype-like
        Type of the pixels.
    nodata : int, optional
    options : sequence of str
        Further creation options, ``NAME=VALUE``.

    Raises
    ------
    NotWrittenError
        If GDAL can't write it; has GDAL's words.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        grid: Grid,
        dtype: Any,
        *,
        nodata: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        from osgeo import gdal_array

        self._path = os.fspath(path)
        kind = gdal_array.NumericTypeCodeToGDALTypeCode(np.dtype(dtype))

        def create() -> Any:
            driver = gdal.GetDriverByName("GTiff")
            return driver.Create(
                self._path, grid.width, grid.height, 1, kind, [*OPTIONS, *options]
            )

        self._dataset = self._run(create)

        def describe() -> None:
            if grid.transform is not None:
                self._dataset.SetGeoTransform(grid.transform)
            if grid.crs:
                self._dataset.SetProjection(grid.crs)
            if nodata is not None:
                self._dataset.GetRasterBand(1).SetNoDataValue(nodata)

        self._run(describe)

    def _run(self, work: Any) -> Any:
        with exceptions(), silence():
            try:
                return work()
            except RuntimeError as error:
                raise NotWrittenError(f"{self._path}: {error}") from error

    def write(self, window: Window, pixels: NDArray[Any]) -> None:
        """Write a window, of shape (height, width)."""
        self._run(lambda: self._dataset.GetRasterBand(1).WriteArray(pixels, window.x, window.y))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            # Closing the dataset would not report errors.
            self._run(self._dataset.FlushCache)
        with exceptions(use=False), silence():
            self._dataset = None
