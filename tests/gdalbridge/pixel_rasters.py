"""Rasters with given pixels, for tests of what raster and table do together."""

import numpy as np
from osgeo import gdal, gdal_array, osr

UTM = 32755


def write(
    path, pixels, *, nodata=None, transform=(500, 2, 0, 900, 0, -2), crs=UTM, names=(), **options
):
    """Write one band, or several if ``pixels`` has three dimensions; return the path as text."""
    bands = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = bands.shape
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(bands.dtype)
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), width, height, count, kind, [f"{key}={value}" for key, value in options.items()]
    )
    if transform is not None:
        dataset.SetGeoTransform(transform)
    if crs is not None:
        system = osr.SpatialReference()
        system.ImportFromEPSG(crs)
        dataset.SetProjection(system.ExportToWkt())
    for number, values in enumerate(bands, start=1):
        band = dataset.GetRasterBand(number)
        band.WriteArray(values)
        if nodata is not None:
            band.SetNoDataValue(nodata)
        if names:
            band.SetDescription(names[number - 1])
    return str(path)


def squares(height, width, size=9, first=0, dtype="u4"):
    """Return a segmentation of squares, numbered row by row."""
    across = -(-width // size)
    lines, columns = np.mgrid[:height, :width]
    return (lines // size * across + columns // size + first).astype(dtype)
