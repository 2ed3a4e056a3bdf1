"""Polygons of equal pixels, by GDAL's Polygonize.

GDAL reads the raster line by line and writes each polygon when it is closed, so its memory grows
with the number of polygons that a line crosses, not with the number of pixels. The polygons go to
a temporary file, from which they are read in the order of their values.
"""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gdalbridge.errors import GdalError
from gdalbridge.gdalio.compat import exceptions, gdal, ogr_exceptions, silence

__all__ = ["multipolygon", "polygon_parts"]

BATCH_AREAS = 1000
BATCH_BYTES = 2**24
MULTIPOLYGON = b"\x01\x06\x00\x00\x00"
"""The beginning of a multipolygon in well-known binary (WKB), little-endian."""


def multipolygon(parts: list[bytes]) -> bytes:
    """Return a multipolygon of polygons, all of them in WKB."""
    return b"".join([MULTIPOLYGON, len(parts).to_bytes(4, "little"), *parts])


def polygon_parts(
    raster: Path, connectedness: int, report: Callable[[float], None]
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield each connected area of equal pixels: its value and its polygons, ordered by the value.

    Parameters
    ----------
    raster : Path
        A raster of integers; its nodata value has no polygons. Temporary files are made beside it.
    connectedness : {4, 8}
        With 8, pixels that touch at a corner are connected. A polygon can't be, so such an area
        has several polygons, in WKB.
    report : callable
        Is told the fraction that is done, while GDAL makes polygons; an error of it stops GDAL.

    Raises
    ------
    GdalError
        If GDAL fails; has GDAL's words.
    """
    with exceptions(), ogr_exceptions(), silence():
        try:
            path = _polygonize(raster, connectedness, report)
            found = gdal.OpenEx(str(path), gdal.OF_VECTOR)
            left = found.GetLayer(0).GetFeatureCount()
            layer = found.ExecuteSQL("SELECT fid, value, geom FROM parts ORDER BY value, fid")
        except RuntimeError as error:
            raise GdalError(f"GDAL can't make polygons: {error}") from error
    try:
        while left:
            # Switching exceptions on takes longer than reading a polygon.
            with exceptions(), ogr_exceptions(), silence():
                try:
                    batch = _batch(layer, left, connectedness)
                except RuntimeError as error:
                    raise GdalError(f"GDAL can't read polygons: {error}") from error
            left -= len(batch)
            yield from batch
    finally:
        with exceptions(use=False), silence():
            found.ReleaseResultSet(layer)
            layer = found = None


def _batch(layer: Any, left: int, connectedness: int) -> list[tuple[int, list[bytes]]]:
    batch: list[tuple[int, list[bytes]]] = []
    size = 0
    while len(batch) < min(left, BATCH_AREAS) and size < BATCH_BYTES:
        feature = layer.GetNextFeature()
        # Before 3.7, layers raise no exceptions.
        if feature is None:
            raise RuntimeError(f"{left - len(batch)} are left, and it finds no more")
        polygons = _polygons(feature.GetGeometryRef(), connectedness)
        batch.append((feature.GetField(0), polygons))
        size += sum(map(len, polygons))
    return batch


def _polygonize(raster: Path, connectedness: int, report: Callable[[float], None]) -> Path:
    from osgeo import ogr

    stopped: list[BaseException] = []

    def callback(done: float, message: str, data: Any) -> int:
        try:
            report(done)
        except BaseException as error:
            stopped.append(error)
            return 0
        return 1

    path = raster.with_suffix(".parts.gpkg")
    dataset = layer = made = None
    try:
        dataset = gdal.OpenEx(str(raster), gdal.OF_RASTER)
        made = gdal.GetDriverByName("GPKG").Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
        layer = made.CreateLayer(
            "parts", None, ogr.wkbPolygon, ["SPATIAL_INDEX=NO", "GEOMETRY_NAME=geom", "FID=fid"]
        )
        layer.CreateField(ogr.FieldDefn("value", ogr.OFTInteger64))
        made.StartTransaction()
        band = dataset.GetRasterBand(1)
        options = ["8CONNECTED=8"] if connectedness == 8 else []
        gdal.Polygonize(band, band.GetMaskBand(), layer, 0, options, callback=callback)
        if not stopped:
            made.CommitTransaction()
            made.FlushCache()
    except RuntimeError:
        if not stopped:
            raise
    except BaseException as error:
        # The frames of GDAL's functions have the dataset, too.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        # A traceback would keep the file open until its directory is gone, and GDAL would then
        # print that it can't write.
        layer = made = dataset = None
    if stopped:
        raise stopped[0] from None
    return path


def _polygons(geometry: Any, connectedness: int) -> list[bytes]:
    """Return a feature's polygons in WKB, little-endian."""
    from osgeo import ogr

    if connectedness == 8 and not geometry.IsValid():
        # GDAL's polygon touches itself where pixels touch at a corner.
        geometry = geometry.MakeValid()
    if ogr.GT_Flatten(geometry.GetGeometryType()) == ogr.wkbPolygon:
        return [bytes(geometry.ExportToWkb(ogr.wkbNDR))]
    return [bytes(one.ExportToWkb(ogr.wkbNDR)) for one in geometry]
