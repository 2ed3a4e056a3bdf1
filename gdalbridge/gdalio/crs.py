"""Coordinate reference systems, whose coordinates are always x, y: longitude before latitude."""

from typing import Any

import numpy as np
from osgeo import osr

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import osr_exceptions

__all__ = ["crs_name", "same_crs", "spatial_reference", "transformed", "units_of"]

SHORT = {"metre": "m", "meter": "m", "US survey foot": "US-ft", "foot": "ft"}


def spatial_reference(text: str) -> Any:
    """Return the system for a text, such as WKT or "EPSG:4326"; None if GDAL doesn't know it."""
    with osr_exceptions(False):
        found = osr.SpatialReference()
        if not text or found.SetFromUserInput(text) != 0:
            return None
        found.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return found


def same_crs(one: str, other: str) -> bool:
    """Return True if two texts mean the same system."""
    if one == other:
        return True
    systems = [spatial_reference(one), spatial_reference(other)]
    if None in systems:
        return False
    with osr_exceptions(False):
        return bool(systems[0].IsSame(systems[1]))


def crs_name(crs: str) -> str:
    """Return the name of a system, with its code if it has one; empty if it is unknown.

    >>> crs_name("EPSG:4326")
    'WGS 84 (EPSG:4326)'
    """
    system = spatial_reference(crs)
    if system is None:
        return ""
    with osr_exceptions(False):
        name, code = system.GetName(), system.GetAuthorityCode(None)
        return f"{name} ({system.GetAuthorityName(None)}:{code})" if code else str(name)


def units_of(crs: str) -> str:
    """Return the unit of a coordinate reference system, such as "m"; empty if it is unknown."""
    system = spatial_reference(crs)
    if system is None:
        return ""
    with osr_exceptions(False):
        if system.IsGeographic():
            return "degree"
        name = str(system.GetLinearUnitsName() or "")
    return SHORT.get(name, name)


def transformed(points: Any, source: str, target: str) -> Any:
    """Return points, of shape (n, 2), in another system; infinite where they have no place in it.

    Raises
    ------
    BridgeError
        If GDAL doesn't know a system, or has no transformation.
    """
    if same_crs(source, target):
        return points
    systems = []
    for text in (source, target):
        system = spatial_reference(text)
        if system is None:
            raise BridgeError(f"GDAL knows no coordinate reference system {text!r:.200}")
        systems.append(system)
    known = np.isfinite(points).all(axis=1)
    found = np.full(points.shape, np.inf)
    with osr_exceptions(True):
        try:
            way = osr.CoordinateTransformation(*systems)
        except RuntimeError as error:
            raise BridgeError(
                f"GDAL has no transformation from {systems[0].GetName()} to "
                f"{systems[1].GetName()}: {error}"
            ) from error
    if not known.any():
        return found
    # Points that can't be transformed become infinite, without an error.
    with osr_exceptions(False):
        places = way.TransformPoints(points[known].tolist())
    found[known] = np.array(places, np.float64)[:, :2]
    return found
