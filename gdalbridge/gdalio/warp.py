"""An image on the grid of another raster, resampled by GDAL while it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import exceptions, gdal
from gdalbridge.gdalio.crs import transformed
from gdalbridge.gdalio.pixels import Grid, Pixels
from ratzarr.errors import Advice

__all__ = ["on_grid"]

METHODS = {
    "near": gdal.GRA_NearestNeighbour,
    "bilinear": gdal.GRA_Bilinear,
    "cubic": gdal.GRA_Cubic,
    "cubicspline": gdal.GRA_CubicSpline,
    "lanczos": gdal.GRA_Lanczos,
    "average": gdal.GRA_Average,
    "mode": gdal.GRA_Mode,
    "max": gdal.GRA_Max,
    "min": gdal.GRA_Min,
    "med": gdal.GRA_Med,
    "q1": gdal.GRA_Q1,
    "q3": gdal.GRA_Q3,
    "sum": gdal.GRA_Sum,
    "rms": gdal.GRA_RMS,
}


def on_grid(
    image: Any,
    bands: Sequence[int],
    grid: Grid,
    resampling: str | None,
    storage_options: Mapping[str, Any] | None = None,
) -> Pixels:
    """Open an image, on another raster's grid.

    Parameters
    ----------
    image : str, os.PathLike or gdal.Dataset
    bands : sequence of int
        Counted from 1.
    grid : Grid
        The grid that is needed.
    resampling : str, optional
        GDAL's method for an image of another grid.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.

    Raises
    ------
    BridgeError
        If the grids differ, and no method is given or GDAL can't resample; says in what they
        differ. Also if the image lies wholly outside the grid.
    """
    if resampling is not None and resampling not in METHODS:
        raise BridgeError(
            f"there is no resampling method {resampling!r}: expected one of {', '.join(METHODS)}"
        )
    found = Pixels(image, bands, storage_options)
    try:
        differences = grid.differences(found.grid)
        if not differences:
            return found
        said = f"{found.name} has {' and '.join(differences)}"
        if resampling is None:
            raise BridgeError(
                Advice(
                    f"{said}.",
                    "Choose how to resample it to the segments' grid with resampling=... (near, "
                    "bilinear, average or another method).",
                )
            )
        if grid.transform is None or found.grid.transform is None:
            raise BridgeError(f"{said}: it can't be resampled without a geotransform")
        if not (_may_touch(found.grid, grid) or _may_touch(grid, found.grid)):
            raise BridgeError(
                f"{found.name} lies outside the segments' raster: none of its pixels is in it"
            )
        warped = _warped(found, grid, grid.transform, METHODS[resampling])
        return Pixels(warped, bands, mask=warped.RasterCount)
    except BaseException:
        found.close()
        raise


def _may_touch(one: Grid, other: Grid) -> bool:
    """Return False if the box around one grid, in pixels of another, lies beside the other."""
    # Points inside it, too: the edges of a map around a pole are far from the pole.
    shares = np.linspace(0, 1, 21)
    columns, lines = map(np.ravel, np.meshgrid(shares * one.width, shares * one.height))
    x, a, b, y, c, d = one.transform or (0, 1, 0, 0, 0, 1)
    points = np.stack([x + a * columns + b * lines, y + c * columns + d * lines], axis=1)
    if one.crs and other.crs:
        points = transformed(points, one.crs, other.crs)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return False
    x, a, b, y, c, d = other.transform or (0, 1, 0, 0, 0, 1)
    places = np.linalg.solve([[a, b], [c, d]], (points - (x, y)).T)
    low, high = places.min(axis=1), places.max(axis=1)
    return bool((high > 0).all() and (low < (other.width, other.height)).all())


def _warped(image: Pixels, grid: Grid, transform: tuple[float, ...], method: int) -> Any:
    """Return a VRT in memory; GDAL resamples what is read from it."""
    x, a, b, y, c, d = transform
    if b or c:
        raise BridgeError(
            f"{image.name} has another grid, and the segments' grid is rotated: GDAL resamples to "
            "grids whose sides run along the axes"
        )
    with exceptions(True):
        try:
            return gdal.Warp(
                "",
                image.dataset,
                format="VRT",
                outputBounds=(x, y + grid.height * d, x + grid.width * a, y),
                width=grid.width,
                height=grid.height,
                dstSRS=grid.crs or None,
                resampleAlg=method,
                # The last band tells which pixels are outside the image, where the others are 0.
                dstAlpha=True,
            )
        except RuntimeError as error:
            raise BridgeError(f"{image.name} can't be resampled: {error}") from error
