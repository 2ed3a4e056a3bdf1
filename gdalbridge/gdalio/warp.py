"""An image on the grid of another raster, resampled by GDAL while it is read."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import exceptions, gdal
from gdalbridge.gdalio.crs import transformed
from gdalbridge.gdalio.pixels import Grid, Pixels, pixel_value
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
    nodata: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[tuple[Pixels, int, list[Any]]]:
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
    nodata : float, optional
        A value that doesn't count, besides the bands' own nodata values.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.

    Returns
    -------
    list of (Pixels, int, list)
        For each band, where to read it, the place among the bands there, and the values that don't
        count. Those of a resampled image did not count when it was resampled.

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
        given = [pixel_value(nodata, dtype) for dtype in found.dtypes]
        differences = grid.differences(found.grid)
        if not differences:
            values = zip(found.nodata, given, strict=True)
            return [
                (found, place, [one for one in both if one is not None])
                for place, both in enumerate(values)
            ]
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
        # Band by band, because GDAL would take a pixel for valid if one of its bands is.
        warped = [
            _warped(found, place, one, grid, grid.transform, METHODS[resampling])
            for place, one in enumerate(given)
        ]
        return [
            (Pixels(one, [1], mask=one.RasterCount), 0, _of_nan(resampling, dtype))
            for one, dtype in zip(warped, found.dtypes, strict=True)
        ]
    except BaseException:
        found.close()
        raise


def _of_nan(method: str, dtype: np.dtype[Any]) -> list[float]:
    """Return what GDAL makes of nothing but NaN that is not NaN."""
    sign = {"min": 1, "max": -1}.get(method)
    if sign is None or dtype.kind != "f":
        return []
    return [sign * (sys.float_info.max if dtype.itemsize == 8 else math.inf)]


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


def _warped(
    image: Pixels, place: int, nodata: Any, grid: Grid, transform: tuple[float, ...], method: int
) -> Any:
    """Return a band as a VRT in memory; GDAL resamples what is read from it."""
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
                _band(image, place, nodata),
                format="VRT",
                outputBounds=(x, y + grid.height * d, x + grid.width * a, y),
                width=grid.width,
                height=grid.height,
                dstSRS=grid.crs or None,
                resampleAlg=method,
                # The last band tells which pixels are valid; the others are 0.
                dstAlpha=True,
                dstNodata="none",
                warpOptions=["INIT_DEST=0"],
            )
        except RuntimeError as error:
            raise BridgeError(f"{image.name} can't be resampled: {error}") from error


def _band(image: Pixels, place: int, nodata: Any) -> Any:
    """Return a VRT of a band with its mask and its nodata value, or another one.

    Raises
    ------
    BridgeError
        If it has two of these. GDAL knows one when it resamples.
    """
    number = image.bands[place]
    values = {repr(one) for one in (image.nodata[place], nodata) if one is not None}
    kinds = [f"the nodata value {one}" for one in sorted(values)]
    if image.masked[place]:
        kinds.append("a mask")
    if len(kinds) > 1:
        raise BridgeError(
            f"{image.name}, band {number}: {' and '.join(kinds)} can't be left out together when the "
            "image is resampled. Resample it with gdalwarp, or let one of them mark all such pixels"
        )
    if not kinds and image.dtypes[place].kind == "f":
        # Otherwise a NaN would spread to its neighbours.
        nodata = np.nan
    dataset = image.dataset
    bands = [number]
    if dataset.GetRasterBand(number).GetMaskFlags() & gdal.GMF_ALPHA:
        bands += [
            one
            for one in range(1, image.count + 1)
            if dataset.GetRasterBand(one).GetColorInterpretation() == gdal.GCI_AlphaBand
        ]
    return gdal.Translate(
        "",
        dataset,
        format="VRT",
        bandList=bands,
        noData=None if nodata is None else str(nodata),
        # An alpha band may be the one. Without a change, GDAL loses the mask's path of a VRT.
        options=["-colorinterp_1", "undefined"],
    )
