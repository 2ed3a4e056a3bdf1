"""Points from coordinates, a CSV file, or a layer of a format that GDAL reads."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.gdalio.point_layer import point_layer
from ratzarr.interop import required

__all__ = ["Points", "points_of"]

NAMES = (
    ("x", "y"),
    ("lon", "lat"),
    ("long", "lat"),
    ("lng", "lat"),
    ("longitude", "latitude"),
    ("easting", "northing"),
    ("east", "north"),
    ("e", "n"),
)
"""Names of a CSV's columns with coordinates, in the order in which they are looked for."""
DEGREES = "EPSG:4326"


@dataclass(frozen=True, slots=True)
class Points:
    """Points to sample, with their own columns."""

    places: NDArray[np.float64]
    """Of shape (n, 2); NaN for a point without a place."""
    crs: str | None
    """Their coordinate reference system; None for the raster's."""
    source: str
    """Where they are from, in words."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Arrow arrays of their other columns or attributes, by name."""


def points_of(points: Any, crs: str | None = None, layer: str | None = None) -> Points:
    """Return points for an argument of :func:`gdalbridge.sample`.

    Raises
    ------
    BridgeError
        For coordinates that are no pairs of numbers, a CSV whose columns with coordinates can't be
        told, or a layer of other geometries.
    """
    if isinstance(points, (str, os.PathLike)):
        path = os.fspath(points)
        is_csv = path.lower().endswith((".csv", ".csv.gz"))
        return _of_csv(path, crs) if is_csv else _of_layer(path, crs, layer)
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise BridgeError(f"points are pairs of numbers (x, y): {error}") from error
    if array.size == 0:
        array = array.reshape(0, 2)
    if array.shape == (2,):
        array = array.reshape(1, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise BridgeError(
            f"points are pairs (x, y), an array of shape (n, 2): got the shape {array.shape}"
        )
    return Points(array, crs, "coordinates")


def _of_csv(path: str, crs: str | None) -> Points:
    pa = required("pyarrow", "arrow", "a CSV of points")
    from gdalbridge.exchange.join_data import read_table

    try:
        table = read_table(path)
    except ConversionError:
        # A number of another column would be rounded.
        table = read_table(path, texts=None)
    folded = {name.strip().casefold(): name for name in table.column_names}
    chosen = next((pair for pair in NAMES if set(pair) <= folded.keys()), None)
    if chosen is None and all(map(_is_number, table.column_names)):
        raise BridgeError(
            f"{path} has no names of columns: put a line such as x,y before the first, which is "
            f"{','.join(table.column_names):.100}"
        )
    if chosen is None and table.num_columns == 2:
        chosen = (table.column_names[0], table.column_names[1])
        folded |= {name: name for name in chosen}
    if chosen is None:
        raise BridgeError(
            f"{path} has the columns {table.column_names!r:.300}: call those with the coordinates x and "
            "y, or lon and lat"
        )
    columns = []
    for name in (folded[one] for one in chosen):
        try:
            values = table.column(name).cast(pa.float64())
        except pa.ArrowException as error:
            raise BridgeError(f"{path}, column {name!r} has no coordinates: {error}") from error
        columns.append(values.to_numpy(zero_copy_only=False).astype(np.float64))
    said = f"{path}, columns {folded[chosen[0]]!r} and {folded[chosen[1]]!r}"
    if crs is None and chosen[1] in ("lat", "latitude"):
        crs = DEGREES
        said += f" in {DEGREES}"
    others = [one for one in table.column_names if one not in {folded[key] for key in chosen}]
    return Points(np.stack(columns, axis=1), crs, said, _exact(path, table, others))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _exact(path: str, table: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return columns of a CSV: as Arrow reads them, or as text where this has other digits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from gdalbridge.exchange.join_data import read_table

    if not names:
        return {}
    texts = read_table(path, texts=names)
    found = {}
    for name in names:
        text, read = (one.column(name).combine_chunks() for one in (texts, table))
        text = pc.if_else(pc.equal(text, ""), None, text)
        is_same = not pa.types.is_string(read.type) and read.cast(pa.string()).equals(text)
        found[name] = read if is_same else text
    return found


def _of_layer(path: str, crs: str | None, name: str | None) -> Points:
    pa = required("pyarrow", "arrow", "a layer of points")
    found = point_layer(path, name)
    said = f"{path}, layer {found.name!r}"
    columns = {key: pa.array(values) for key, values in found.attributes.items()}
    return Points(found.points, crs or found.crs or None, said, columns)
