"""Points of a vector layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from osgeo import ogr

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import exceptions, gdal, ogr_exceptions
from gdalbridge.gdalio.special_files import refuse_special_files
from gdalbridge.gdalio.vsis3 import reached

__all__ = ["PointLayer", "point_layer"]


@dataclass(frozen=True, slots=True)
class PointLayer:
    """A layer whose features are points."""

    name: str
    points: NDArray[np.float64]
    """Of shape (n, 2); NaN for a feature without a geometry."""
    crs: str
    """The coordinate reference system as WKT, or an empty string."""
    attributes: dict[str, list[Any]]
    """The features' values of each field; date-times as text."""


def point_layer(path: str, name: str | None = None) -> PointLayer:
    """Read a layer of points.

    Parameters
    ----------
    path : str
        A path, URL or ``/vsi`` name.
    name : str, optional
        The layer, if there are several.

    Raises
    ------
    BridgeError
        If GDAL can't open it, the layer is not named or not there, or a feature is no point.
    """
    with exceptions(), ogr_exceptions(), reached(path, None) as place:
        refuse_special_files(place)
        try:
            dataset = gdal.OpenEx(place, gdal.OF_VECTOR | gdal.OF_VERBOSE_ERROR)
        except RuntimeError as error:
            raise BridgeError(f"{path} can't be opened as a layer of points: {error}") from error
        if dataset is None:
            raise BridgeError(f"{path} can't be opened as a layer of points: GDAL gives no reason")
        names = [dataset.GetLayer(number).GetName() for number in range(dataset.GetLayerCount())]
        if name is None and len(names) == 1:
            name = names[0]
        if name is None or name not in names:
            said = "name one of them" if name is None else f"there is no {name!r}"
            raise BridgeError(f"{path} has the layers {names!r:.300}: {said}")
        layer = dataset.GetLayerByName(name)
        system = layer.GetSpatialRef()
        points = []
        schema = layer.GetLayerDefn()
        names = [schema.GetFieldDefn(at).GetName() for at in range(schema.GetFieldCount())]
        attributes: dict[str, list[Any]] = {one: [] for one in names}
        for feature in layer:
            for at, values in enumerate(attributes.values()):
                is_binary = schema.GetFieldDefn(at).GetType() == ogr.OFTBinary
                get = feature.GetFieldAsBinary if is_binary else feature.GetField
                values.append(get(at) if feature.IsFieldSetAndNotNull(at) else None)
            geometry = feature.GetGeometryRef()
            if geometry is None or geometry.IsEmpty():
                points.append((np.nan, np.nan))
                continue
            if ogr.GT_Flatten(geometry.GetGeometryType()) != ogr.wkbPoint:
                raise BridgeError(
                    f"{path}, layer {name!r}, feature {feature.GetFID()}: points are needed, and it is "
                    f"a {geometry.GetGeometryName()}"
                )
            points.append((geometry.GetX(), geometry.GetY()))
        # A GeoPackage without a system says so by the name of one.
        unknown = system is None or str(system.GetName()).startswith("Undefined ")
        crs = "" if unknown else system.ExportToWkt()
    return PointLayer(name, np.array(points, np.float64).reshape(-1, 2), crs, attributes)
