"""Rows of a raster's table under points.

>>> import tempfile
>>> import numpy as np
>>> from osgeo import gdal
>>> from gdalbridge import open_table
>>> path = tempfile.mkdtemp() + "/seg.tif"
>>> dataset = gdal.GetDriverByName("GTiff").Create(path, 3, 1)
>>> _ = dataset.WriteRaster(0, 0, 3, 1, np.array([2, 2, 1], "u1").tobytes())
>>> dataset = None
>>> with open_table(path) as table:
...     table["class"] = ["", "water", "forest"]
>>> sample(path, [(0.5, 0.5), (2.9, 0.1), (7, 7)]).to_pydict()
{'row': [2, 1, None], 'value': [2, 1, None], 'class': ['forest', 'water', None]}
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.crs import crs_name, transformed
from gdalbridge.gdalio.pixels import Grid, Pixels, Window
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.rasters.points import points_of
from gdalbridge.sidecars.merged import Columns
from gdalbridge.sidecars.pixel_rows import pixel_rows
from gdalbridge.sidecars.source import ColumnsSource, open_source
from ratzarr.format import Block
from ratzarr.interop import Field, required
from ratzarr.pipeline import PROCESSORS, in_threads

__all__ = ["CRS", "HITS", "POINTS", "RENAMED", "free_names", "sample"]

Array = NDArray[Any]

POINTS = b"points"
"""The key of the result's metadata with the source of the points, in words."""
CRS = b"raster_crs"
"""The key with the name of the raster's coordinate reference system."""
HITS = b"points_with_value"
"""The key with the number of points on pixels with a value."""
RENAMED = b"renamed"
"""The key with the columns of the points that were renamed in the result, in words."""
MAX_GAP = 4096
"""Two rows of a chunk are read together if they are at most this many rows apart."""


def sample(
    raster: Any,
    points: Any,
    *,
    columns: Sequence[str] | None = None,
    crs: str | None = None,
    band: int = 1,
    layer: str | None = None,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the pixel value, the row and the table's attributes under points.

    Only the blocks of pixels and the chunks of columns that the points need are read.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A raster with a table.
    points : sequence of (float, float), ndarray of shape (n, 2), str or os.PathLike
        Pairs (x, y); or a CSV file with columns x and y, or lon and lat; or a file with a layer of
        points that GDAL reads. A point on the edge between two pixels belongs to the one to the
        right and below, in the raster's own lines and columns, as GDAL has it.
    columns : sequence of str, optional
        The attributes; by default all columns.
    crs : str, optional
        Coordinate reference system of the points, such as ``"EPSG:4326"``; x is the longitude. By
        default the layer's own, EPSG:4326 for a CSV of lon and lat, or the raster's.
    band : int
        Counted from 1.
    layer : str, optional
        The layer, if the file has several.
    encoding, lossy, storage_options
        See :func:`gdalbridge.open_table`.

    Returns
    -------
    pyarrow.Table
        One row for each point, in order: the other columns or fields of a file of points, ``row``
        and ``value``, then the attributes. Names of the former get a leading underscore if the
        table has columns of these names. ``row``, ``value`` and the attributes are null for a
        point outside the raster or on nodata; all but ``value`` for a pixel without a row. The
        schema's metadata says under ``points`` where the points are from.

    Raises
    ------
    BridgeError
        For points, a layer or a coordinate reference system that can't be used.
    ColumnSelectionError
        If a column does not exist.
    """
    pa = required("pyarrow", "arrow", "sample()")
    given = points_of(points, crs, layer)
    with ExitStack() as stack:
        pixels = stack.enter_context(Pixels(raster, [band], storage_options))
        table, source = open_source(
            raster, band=band, storage_options=storage_options,
            options=ReadOptions(encoding, lossy),
        )  # fmt: skip
        stack.enter_context(table)
        fields = [source.field(one.name) for one in table.chosen(columns)]
        rule = pixel_rows(table)
        at = _pixel_places(pixels, given.places, given.crs)
        values, has_value = _values_at(pixels, at)
        rows = np.full(len(at), -1, np.int64)
        if has_value.any():
            rows[has_value] = rule.of(values[has_value])
        arrays = _attributes(table, source, fields, rows)
    of_points = list(given.columns)
    names = free_names([*of_points, "row", "value"], [one.name for one in fields])
    renamed = dict(zip(of_points, names, strict=False))
    metadata = {
        POINTS: given.source.encode(),
        HITS: str(np.count_nonzero(has_value)).encode(),
        CRS: crs_name(pixels.grid.crs).encode(),
        RENAMED: ", ".join(
            f"{old} is {new}" for old, new in renamed.items() if old != new
        ).encode(),
    }
    schema = pa.schema(
        [
            *(pa.field(renamed[key], one.type) for key, one in given.columns.items()),
            pa.field(names[-2], pa.int64()),
            pa.field(names[-1], pa.from_numpy_dtype(values.dtype)),
            *(pa.field(one.name, array.type) for one, array in zip(fields, arrays, strict=True)),
        ],
        metadata=metadata,
    )
    found = [
        *given.columns.values(),
        pa.array(rows, mask=rows < 0),
        pa.array(values, mask=~has_value),
        *arrays,
    ]
    return pa.Table.from_arrays(found, schema=schema)


def free_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return names with underscores before those that are taken, the last ones chosen first.

    >>> free_names(["id", "row"], ["id", "area"])
    ['_id', 'row']
    """
    used = set(taken)
    found = []
    for name in reversed(names):
        while name in used:
            name = f"_{name}"
        used.add(name)
        found.append(name)
    return found[::-1]


# ---- pixels


def _pixel_places(
    pixels: Pixels, points: NDArray[np.float64], crs: str | None
) -> NDArray[np.int64]:
    """Return column and line of each point, of shape (n, 2); -1 outside the raster."""
    grid = pixels.grid
    if crs is not None:
        if not grid.crs:
            raise BridgeError(
                f"{pixels.name} has no coordinate reference system, and the points have one: {crs:.100}"
            )
        points = transformed(points, crs, grid.crs)
    inverse = _inverse(grid, pixels.name)
    x, y = points[:, 0], points[:, 1]
    with np.errstate(invalid="ignore", over="ignore"):
        column = np.floor(inverse[0] + inverse[1] * x + inverse[2] * y)
        line = np.floor(inverse[3] + inverse[4] * x + inverse[5] * y)
        inside = (column >= 0) & (column < grid.width) & (line >= 0) & (line < grid.height)
    found = np.full((len(points), 2), -1, np.int64)
    found[inside, 0] = column[inside]
    found[inside, 1] = line[inside]
    return found


def _inverse(grid: Grid, name: str) -> tuple[float, ...]:
    from gdalbridge.gdalio.compat import gdal

    found: Any = gdal.InvGeoTransform(list(grid.transform or (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)))
    if found is None:
        raise BridgeError(f"{name}: the geotransform {grid.transform} has no inverse")
    return tuple(found)


def _values_at(pixels: Pixels, at: NDArray[np.int64]) -> tuple[Array, NDArray[np.bool_]]:
    """Return the pixel values at places, and which are valid; each block is read once."""
    found = np.zeros(len(at), pixels.dtypes[0])
    has = np.zeros(len(at), np.bool_)
    inside = np.flatnonzero(at[:, 0] >= 0)
    wide, high = (max(1, int(one)) for one in pixels.block)
    across = -(-pixels.grid.width // wide)
    blocks = at[inside, 1] // high * across + at[inside, 0] // wide
    groups = _groups(blocks)

    def load(group: NDArray[np.int64]) -> tuple[Array, Array | None]:
        mine = at[inside[group]]
        (x, y), (right, bottom) = mine.min(axis=0).tolist(), mine.max(axis=0).tolist()
        window = Window(x, y, right - x + 1, bottom - y + 1)
        place = (mine[:, 1] - y, mine[:, 0] - x)
        mask = pixels.valid(window)
        return pixels.read(window)[place], None if mask is None else mask[place]

    for group, (values, valid) in in_threads(groups, load, min(pixels.threads, PROCESSORS)):
        found[inside[group]] = values
        has[inside[group]] = True if valid is None else valid
    nodata = pixels.nodata[0]
    if nodata is not None:
        has &= ~np.isnan(found) if nodata != nodata else found != nodata
    return found, has


def _groups(keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the places of each key."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    return np.split(order, ends)


# ---- attributes


def _attributes(
    table: Columns, source: ColumnsSource, fields: Sequence[Field], rows: NDArray[np.int64]
) -> list[Any]:
    """Return each column's values of rows as Arrow arrays; null for -1 and missing rows."""
    import pyarrow as pa

    from ratzarr.interop import arrow_type, read_arrays

    wanted = np.unique(rows[rows >= 0])
    places = pa.array(np.searchsorted(wanted, rows), mask=rows < 0)
    if not len(wanted) or not fields:
        return [pa.nulls(len(rows), arrow_type(one)) for one in fields]
    size = max(one.chunk_rows for one in fields)
    blocks = _row_blocks(wanted, size)

    def load(block: NDArray[np.int64]) -> list[Any]:
        start, stop = int(block[0]), int(block[-1]) + 1
        inside = pa.array(block - start)
        read = read_arrays(source, fields, Block(start, stop - start))
        return [one.take(inside) for one in read]

    threads = 1 if table.has_own else max(1, min(source.threads, PROCESSORS))
    parts = [one for _, one in in_threads(blocks, load, threads)]
    found = []
    for column in zip(*parts, strict=True):
        whole = pa.concat_arrays(column) if len(column) > 1 else column[0]
        found.append(whole.take(places))
    return found


def _row_blocks(rows: NDArray[np.int64], chunk: int) -> list[NDArray[np.int64]]:
    """Split ascending rows into runs within one chunk; rows far apart are read separately.

    If a chunk had more than 9 runs, it is one run, because many reads take longer than a long one.
    """
    found = []
    for group in np.split(rows, np.flatnonzero(np.diff(rows // chunk)) + 1):
        gaps = np.flatnonzero(np.diff(group) > MAX_GAP) + 1
        found += [group] if len(gaps) > 8 else np.split(group, gaps)
    return found
