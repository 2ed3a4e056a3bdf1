"""Pixels of a raster, with a column's values in place of the pixel values."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import INT8_PIXELS, INT64_PIXELS
from gdalbridge.gdalio.field_types import FieldUsage, usage_in
from gdalbridge.gdalio.pixels import Pixels, Window
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.rasters.row_values import RowValues
from gdalbridge.sidecars.merged import Columns, open_columns
from gdalbridge.sidecars.pixel_rows import pixel_rows
from ratzarr.interop import required
from ratzarr.pipeline import PROCESSORS, in_threads

__all__ = [
    "Painter",
    "UsedNodataError",
    "check_nodata",
    "class_names",
    "first_nodata",
    "free_nodata",
    "pixel_dtype",
    "region_of",
    "sampled",
    "tile_of",
    "windows_of",
]

Array = NDArray[Any]

MOST_CLASSES = 65_535
"""The largest number of different texts that become classes."""
WINDOW_PIXELS = 2**20
MOST_PIXELS = 2**22
"""Largest number of pixels of a window that is as wide as the raster."""
TILE = 256
COLORS = (FieldUsage.RED, FieldUsage.GREEN, FieldUsage.BLUE)


class UsedNodataError(BridgeError):
    """A row has the value that stands for pixels without a value."""


class Painter:
    """A raster and columns of its table, open; a context manager. Windows are read by threads.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
    names : sequence of str, optional
        The columns; None for those with colours.
    band : int
    where : str, optional
        See :func:`gdalbridge.paint`.
    classes : bool
        True to read the text of the column as numbers of its sorted texts, from 1.
    options : ReadOptions
    storage_options : mapping, optional

    Attributes
    ----------
    pixels : Pixels
    columns : Columns
    values : RowValues
    classes : list of str
        The texts, if ``classes`` was True and the column has text.
    """

    def __init__(
        self,
        raster: Any,
        names: Sequence[str] | None,
        *,
        band: int = 1,
        where: str | None = None,
        classes: bool = True,
        options: ReadOptions = ReadOptions(),  # noqa: B008 - immutable
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._stack = ExitStack()
        try:
            self.pixels = self._stack.enter_context(Pixels(raster, [band], storage_options))
            self.columns = self._stack.enter_context(
                open_columns(raster, band=band, storage_options=storage_options, options=options)
            )
            self._rule, self._where = pixel_rows(self.columns), where
            wanted = color_names(self.columns) if names is None else list(names)
            self.values = RowValues(self.columns, wanted, where)
            self._stack.callback(self._close_values)
            self.classes: list[str] = []
            column = self.values.columns[0]
            if classes and column.dtype.kind == "T":
                self.classes = class_names(self.values)
                self.values.close()
                self.values = RowValues(self.columns, wanted, where, convert=_coded(self.classes))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self.values.warn_of_nan()

    def close(self) -> None:
        """Close the raster and the table."""
        self._stack.close()

    def _close_values(self) -> None:
        self.values.close()

    def threads(self, most: int | None) -> int:
        """Return the number of threads for windows: by default one for each processor."""
        return max(1, min(self.pixels.threads, most or PROCESSORS))

    def rows(self, window: Window, step: int = 1) -> NDArray[np.int64]:
        """Return the row of each pixel of a window, -1 for nodata and pixels without a row.

        Parameters
        ----------
        window : Window
        step : int
            Return only the first of so many lines and columns, counted from the raster's first.
        """
        found = self.pixels.read(window)
        mask = self.pixels.valid(window)
        wide, high = self.pixels.block
        if self.pixels.threads > 1 and window.size >= int(wide) * int(high):
            # Whole blocks are not read again: GDAL need not keep them.
            self.pixels.dataset.GetRasterBand(self.pixels.bands[0]).FlushCache()
        if step > 1:
            cut = (slice(-window.y % step, None, step), slice(-window.x % step, None, step))
            found = found[cut]
            mask = None if mask is None else mask[cut]
        rows = self._rule.of(found)
        nodata = self.pixels.nodata[0]
        if nodata is not None:
            rows[found == nodata] = -1
        if mask is not None:
            rows[~mask] = -1
        return rows

    def read(self, window: Window, step: int = 1) -> tuple[list[Array], NDArray[np.bool_]]:
        """Return the columns' values on a window's pixels, and which pixels have one."""
        rows = self.rows(window, step)
        columns, has = self.values.take(np.ascontiguousarray(rows).reshape(-1))
        return [one.reshape(rows.shape) for one in columns], has.reshape(rows.shape)

    def table_colors(self) -> NDArray[np.uint8] | None:
        """Return the table's colours of the classes, of shape (classes + 1, 4).

        None if the table has no colours, or a class has rows of several colours.
        """
        try:
            names = color_names(self.columns)[:3]
        except BridgeError:
            return None
        packed = np.full(len(self.classes) + 1, -1, np.int64)
        coded = _coded(self.classes)
        with RowValues(self.columns, [*names, self.values.columns[0].name], self._where) as colors:
            for number in range(colors.chunks):
                [red, green, blue, texts], keep = colors.chunk(number)
                kept = slice(None) if keep is None else keep
                codes = coded(texts[kept])
                parts = [one[kept].astype(np.int64) for one in (red, green, blue)]
                if any(((one < 0) | (one > 255)).any() for one in parts):
                    return None
                color = parts[0] << 16 | parts[1] << 8 | parts[2]
                for code in np.unique(codes[codes > 0]).tolist():
                    mine = np.unique(color[codes == code])
                    if len(mine) > 1 or packed[code] not in (-1, mine[0]):
                        return None
                    packed[code] = mine[0]
        found = np.full((len(packed), 4), 255, np.uint8)
        for place, shift in enumerate((16, 8, 0)):
            found[:, place] = packed >> shift & 255
        found[0] = 0
        return found

    def filled(self, window: Window, dtype: np.dtype[Any], nodata: Any, name: str) -> Array:
        """Return the first column's values on a window's pixels, and nodata elsewhere.

        Raises
        ------
        UsedNodataError
            If a pixel's row has the value ``nodata``.
        """
        rows = np.ascontiguousarray(self.rows(window))
        [values], has = self.values.take(rows.reshape(-1))
        values, has = values.astype(dtype, copy=False).reshape(rows.shape), has.reshape(rows.shape)
        # NaN is not equal to itself, and stands for missing values in any case.
        same = values == dtype.type(nodata)
        same &= has
        if same.any():
            raise UsedNodataError(
                f"column {name!r}, row {rows[same][0]}: the value is {nodata}, which stands for pixels "
                "without a value; choose another nodata value"
            )
        np.logical_not(has, out=has)
        if has.any():
            values[has] = nodata
        return values


def color_names(columns: Columns) -> list[str]:
    """Return the names of the columns of usage Red, Green and Blue, and Alpha if there is one.

    Raises
    ------
    BridgeError
        If one of the three is missing.
    """
    found: dict[int, str] = {}
    for one in columns.by_name.values():
        found.setdefault(usage_in(one.attributes), one.name)
    missing = [one.name.capitalize() for one in COLORS if one not in found]
    if missing:
        raise BridgeError(
            f"{columns.name} has no column of usage {', '.join(missing)}: its table has no colours"
        )
    alpha = [found[FieldUsage.ALPHA]] if FieldUsage.ALPHA in found else []
    return [*(found[one] for one in COLORS), *alpha]


# ---- windows


def region_of(painter: Painter, window: Any) -> Window:
    """Return the window for the argument; by default the whole raster.

    Raises
    ------
    BridgeError
        If it is not inside the raster.
    """
    grid = painter.pixels.grid
    if window is None:
        return Window(0, 0, grid.width, grid.height)
    try:
        x, y, width, height = (one.__index__() for one in window)
    except (TypeError, ValueError, AttributeError):
        raise BridgeError(
            f"window is four integers, the first column and line, width and height: got {window!r}"
        ) from None
    if (
        min(x, y) < 0
        or min(width, height) < 1
        or x + width > grid.width
        or y + height > grid.height
    ):
        raise BridgeError(
            f"the window of {width} x {height} pixels from column {x}, line {y} is not inside "
            f"{painter.pixels.name}, which has {grid.width} x {grid.height} pixels"
        )
    return Window(x, y, width, height)


def tile_of(painter: Painter, region: Window) -> tuple[int, int]:
    """Return width and height of the output's tiles: the raster's own, or of a usual size."""
    wide, high = (int(one) for one in painter.pixels.block)
    if wide < painter.pixels.grid.width and wide % 16 == high % 16 == 0 and wide * high <= 2**20:
        return wide, high
    high = TILE
    while region.width * high > MOST_PIXELS and high > 16:
        high //= 2
    return TILE, high


def windows_of(painter: Painter, region: Window) -> list[Window]:
    """Return windows that cover a region row by row, in whole tiles."""
    wide, high = tile_of(painter, region)
    if int(painter.pixels.block[0]) >= painter.pixels.grid.width:
        # Lines of the raster are read whole.
        width = region.width
        height = high * max(1, WINDOW_PIXELS // (width * high))
    else:
        width, height = wide * max(1, WINDOW_PIXELS // (wide * high)), high
    return [
        Window(
            region.x + x,
            region.y + y,
            min(width, region.width - x),
            min(height, region.height - y),
        )
        for y in range(0, region.height, height)
        for x in range(0, region.width, width)
    ]


def sampled(painter: Painter, region: Window, pixels: int, threads: int | None) -> Array:
    """Return the first column's values on evenly spaced pixels of a region, as one array."""
    step = max(1, int(np.ceil(np.sqrt(region.size / pixels))))

    def load(window: Window) -> Array:
        columns, has = painter.read(window, step)
        return columns[0][has]

    windows = windows_of(painter, region)
    found = [one for _, one in in_threads(windows, load, painter.threads(threads))]
    return np.concatenate(found) if found else np.zeros(0)


# ---- text


def class_names(values: RowValues) -> list[str]:
    """Return the different texts of the rows with values, sorted, without the empty text.

    The empty text is what rows without a text have: GDAL's tables have no nulls.

    Raises
    ------
    BridgeError
        If there are too many.
    """
    pa = required("pyarrow", "arrow", "painting text")
    found: set[str] = set()
    for number in range(values.chunks):
        [texts], keep = values.chunk(number)
        kept = texts if keep is None else texts[keep]
        found.update(pa.array(kept.astype(object), pa.large_string()).unique().to_pylist())
        if len(found) > MOST_CLASSES:
            raise BridgeError(
                f"column {values.columns[0].name!r} has more than {MOST_CLASSES} different texts, and "
                "each becomes a class of the raster"
            )
    return sorted(found - {""})


def _coded(names: Sequence[str]) -> Callable[[Array], Array]:
    """Return a function that turns texts into class numbers; texts of no class into 0."""
    pa = required("pyarrow", "arrow", "painting text")
    compute = required("pyarrow.compute", "arrow", "painting text")
    known = pa.array(names, pa.large_string())
    dtype = np.min_scalar_type(len(names))

    def convert(values: Array) -> Array:
        texts = pa.array(values.astype(object), pa.large_string())
        places = compute.index_in(texts, value_set=known)
        codes: Array = compute.fill_null(places, -1).to_numpy(zero_copy_only=False)
        return (codes + 1).astype(dtype)

    return convert


# ---- types and nodata


def pixel_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the type of pixels that holds a column's values exactly.

    Raises
    ------
    BridgeError
        If GDAL has no such type.
    """
    found: np.dtype[Any] = dtype.newbyteorder("=")
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16:
        return np.dtype(np.float32)
    if dtype == np.int8 and not INT8_PIXELS:
        return np.dtype(np.int16)
    is_wide = dtype.kind in "iu" and dtype.itemsize == 8
    if dtype.kind not in "iuf" or (is_wide and not INT64_PIXELS):
        kind = {"T": "text", "O": "bytes"}.get(dtype.kind, str(dtype))
        raise BridgeError(
            f"column {name!r} is {kind}, and this GDAL has no pixels that hold it exactly"
        )
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise BridgeError(f"column {name!r} is {dtype}, and GDAL's widest floats have 64 bits")
    return found


def check_nodata(nodata: Any, dtype: np.dtype[Any], name: str) -> Any:
    """Return a nodata value as a Python number, if pixels of a type can have it.

    Raises
    ------
    BridgeError
    """
    try:
        value = dtype.type(nodata) if dtype.kind == "f" else int(nodata)
        is_exact = value == nodata or (value != value and nodata != nodata)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            is_exact = is_exact and limits.min <= int(value) <= limits.max
    except (TypeError, ValueError, OverflowError):
        is_exact = False
    if not is_exact:
        raise BridgeError(
            f"nodata={nodata!r}: the pixels of column {name!r} are {dtype}, which can't have this "
            "value"
        )
    return float(value) if dtype.kind == "f" else int(value)


def first_nodata(dtype: np.dtype[Any], missing: Any) -> Any:
    """Return the nodata value to try first: NaN, the missing value, or an end of the range."""
    if dtype.kind == "f":
        return float("nan")
    if missing is not None and not isinstance(missing, (bool, np.bool_)):
        return int(missing)
    limits = np.iinfo(dtype)
    return int(limits.min) if dtype.kind == "i" else int(limits.max)


def free_nodata(values: RowValues, dtype: np.dtype[Any], name: str) -> int:
    """Return an integer that no row has; reads the whole column, chunk by chunk.

    Raises
    ------
    BridgeError
        If there is none among those tried; for 8 bits, all are.
    """
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    tried = [high, low, 0, -1, -9999, *(high - 2**power for power in range(16))]
    if dtype.itemsize == 1:
        tried = list(range(high, low - 1, -1))
    wanted = np.array([one for one in dict.fromkeys(tried) if low <= one <= high], dtype)
    free = np.ones(len(wanted), np.bool_)
    for number in range(values.chunks):
        [column], keep = values.chunk(number)
        kept = column if keep is None else column[keep]
        free &= ~np.isin(wanted, kept.astype(dtype, copy=False))
    if not free.any():
        raise BridgeError(
            f"column {name!r} has no value of {dtype} left that could stand for pixels without a "
            "value: convert the column to a wider type first (gdalbridge calc)"
        )
    return int(wanted[np.argmax(free)])
