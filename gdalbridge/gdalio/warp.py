"""An image on the grid of another raster, resampled by GDAL while it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import exceptions, gdal
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
        differ.
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
        return Pixels(_warped(found, grid, grid.transform, METHODS[resampling]), bands)
    except BaseException:
        found.close()
        raise


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
                # Pixels outside the image are masked: without this they would be 0.
                dstAlpha=True,
            )
        except RuntimeError as error:
            raise BridgeError(f"{image.name} can't be resampled: {error}") from error
