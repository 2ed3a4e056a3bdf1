"""Files of polygons with attributes: GeoPackage, GeoParquet, Shapefile and GeoJSON, by suffix.

GeoParquet is written by pyarrow, because many builds of GDAL lack its driver.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.exchange.layers import CHOOSE, Losses, write_dbf, write_geojson, write_gpkg
from gdalbridge.gdalio.vector_layer import LayerPolygons, LayerWriter, projjson

__all__ = ["geometry_name", "polygon_format", "polygon_suffixes", "write_polygons"]

FORMATS = {
    ".gpkg": "gpkg", ".parquet": "parquet", ".shp": "shp", ".geojson": "geojson",
    ".json": "geojson",
}  # fmt: skip
GEOMETRY = {"gpkg": "geom"}
SHAPE_FILES = (".shx", ".dbf", ".cpg", ".prj")


def polygon_format(out: Any) -> str:
    """Return the format of a file of polygons by its suffix.

    Raises
    ------
    BridgeError
        For another suffix.

    >>> polygon_format("a/seg.GPKG")
    'gpkg'
    """
    suffix = Path(os.fspath(out)).suffix.lower()
    if suffix not in FORMATS:
        raise BridgeError(
            f"{out}: the suffix determines the format: expected one of {', '.join(FORMATS)}"
        )
    return FORMATS[suffix]


def polygon_suffixes(kind: str) -> tuple[str, ...]:
    """Return the suffixes of a format's other files, beside the one with the output's name."""
    return SHAPE_FILES if kind == "shp" else ()


def geometry_name(kind: str, names: Iterable[str]) -> str:
    """Return a name for the column of polygons that no other column has.

    >>> geometry_name("gpkg", ["row", "Geom"])
    '_geom'
    """
    taken = {name.casefold() for name in names}
    found = GEOMETRY.get(kind, "geometry")
    while found in taken:
        found = f"_{found}"
    return found


def write_polygons(
    path: Path,
    kind: str,
    schema: Any,
    batches: Iterable[Any],
    attributes: Callable[[], Iterator[Any]],
    polygons: LayerPolygons,
    losses: Losses,
) -> None:
    """Write a file of multipolygons.

    Parameters
    ----------
    path : Path
        The file; for a Shapefile, the others are written beside it.
    kind : str
        From :func:`polygon_format`.
    schema : pyarrow.Schema
        Its first column has the features' numbers, and its last one the polygons in WKB.
    batches : iterable of pyarrow.RecordBatch
    attributes : callable
        Returns the batches of the same features without polygons; for a Shapefile, after
        ``batches`` have been read.
    polygons : LayerPolygons
    losses : Losses
    """
    if kind == "gpkg":
        write_gpkg(path, schema, batches, row=True, losses=losses, polygons=polygons)
    elif kind == "geojson":
        write_geojson(path, schema, batches, losses=losses, polygons=polygons)
    elif kind == "parquet":
        from gdalbridge.exchange.arrow_files import write_parquet

        described = schema.with_metadata({b"geo": json.dumps(_geo(polygons)).encode()})
        write_parquet(path, described, (one.cast(described) for one in batches))
    else:
        _write_shapefile(path, schema, batches, attributes, polygons, losses)


def _geo(polygons: LayerPolygons) -> dict[str, Any]:
    """Return the metadata of GeoParquet 1.0."""
    column = {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon"],
        # None says that the system is unknown; left out, it would be longitude and latitude.
        "crs": projjson(polygons.crs),
    }
    return {
        "version": "1.0.0",
        "primary_column": polygons.name,
        "columns": {polygons.name: column},
    }


def _write_shapefile(
    path: Path,
    schema: Any,
    batches: Iterable[Any],
    attributes: Callable[[], Iterator[Any]],
    polygons: LayerPolygons,
    losses: Losses,
) -> None:
    """Write the shapes by GDAL, and the table as every other dBASE table."""
    import pyarrow as pa

    shapes = pa.schema([schema.field(polygons.name)])
    with LayerWriter("ESRI Shapefile", str(path), path.stem, [], polygons=polygons) as layer:
        for batch in batches:
            layer.write(batch.select(shapes.names))
    # GDAL has written a table of the features' numbers alone.
    for suffix in (".dbf", ".cpg"):
        path.with_suffix(suffix).unlink(missing_ok=True)
    folder = path.parent / "table"
    folder.mkdir()
    table = folder / f"{path.stem}.dbf"
    own = pa.schema(list(schema)[:-1])
    write_dbf(table, own, attributes, row=True, losses=losses, hint=CHOOSE)
    for one in sorted(folder.iterdir()):
        one.rename(path.parent / one.name)
