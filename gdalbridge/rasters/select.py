"""Rows and pixels of a raster by a condition on its table.

>>> import tempfile
>>> import numpy as np
>>> from osgeo import gdal
>>> from gdalbridge import build
>>> path = tempfile.mkdtemp() + "/seg.tif"
>>> dataset = gdal.GetDriverByName("GTiff").Create(path, 3, 1)
>>> _ = dataset.WriteRaster(0, 0, 3, 1, np.array([2, 2, 1], "u1").tobytes())
>>> dataset = None
>>> report = build(path)
>>> select(path, "Histogram > 1")
array([2])
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.pixels import Pixels, Window
from gdalbridge.gdalio.raster_writer import RasterWriter
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.output import Output
from gdalbridge.progress import progress_of
from gdalbridge.sidecars.merged import Columns, open_columns
from gdalbridge.sidecars.pixel_rows import NO_ROW, PixelRows, pixel_rows
from gdalbridge.sidecars.raster_files import BESIDE
from gdalbridge.sql.condition import matching_rows
from ratzarr.pipeline import PROCESSORS, in_threads

__all__ = ["ChosenPixels", "chosen_rows", "select"]

SUFFIXES = (".tif", ".tiff")
BLOCK = 256
"""Height and width of a mask's tiles."""


def select(
    raster: Any,
    where: str,
    *,
    mask: Any = None,
    overwrite: bool = False,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    encoding: str | None = None,
    lossy: bool = False,
    threads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> NDArray[np.int64]:
    """Return the rows of a raster's table for which a condition is true.

    Only the columns that the condition names are read.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A raster, or without ``mask`` also a sidecar or any other RatZarr.
    where : str
        An expression as in :func:`gdalbridge.calc`, such as
        ``"ndvi between 0.6 and 1 and class = 'forest'"``. Rows for which it is NULL are not selected. NaN is greater than any number.
    mask : str or os.PathLike, optional
        Also write the pixels of these rows as a GeoTIFF of bytes, local, on S3, or at another URL
        that fsspec writes to: 1 for selected pixels, 0 for all others. Pixels that are nodata or
        masked are never selected.
    overwrite : bool
        Replace an existing mask.
    band : int
        Counted from 1.
    names, prefer, encoding, lossy
        See :func:`gdalbridge.open_table`.
    threads : int, optional
        Threads that read pixels; by default the number of processors.
    storage_options, progress
        See :func:`gdalbridge.calc`.

    Returns
    -------
    ndarray of int64
        Row numbers, ascending.

    Raises
    ------
    BridgeError
        If the condition is invalid or not true or false.
    ColumnSelectionError
        For a missing column; suggests similar names.
    RasterNotFoundError
        If the band has no table.
    OutputExistsError
        If the mask exists and may not be replaced.
    """
    with ExitStack() as stack:
        reporter = stack.enter_context(progress_of(progress))
        if mask is not None:
            output = Output(mask, overwrite, storage_options, endings=BESIDE)
            if not output.name.lower().endswith(SUFFIXES):
                raise BridgeError(
                    f"{output}: a mask is a GeoTIFF, whose name ends in {' or '.join(SUFFIXES)}"
                )
            output.check(raster)
            pixels = stack.enter_context(Pixels(raster, [band], storage_options))
        columns = stack.enter_context(
            open_columns(
                raster, band=band, names=names, prefer=prefer, parts=False,
                storage_options=storage_options, options=ReadOptions(encoding, lossy),
            )
        )  # fmt: skip
        rows = chosen_rows(columns, where)
        if mask is None:
            return rows
        found = ChosenPixels(pixels, pixel_rows(columns), rows)
        made = stack.enter_context(output.create("mask.tif"))
        tiles = ["TILED=YES", f"BLOCKXSIZE={BLOCK}", f"BLOCKYSIZE={BLOCK}"]
        with RasterWriter(made, pixels.grid, np.uint8, options=tiles) as out:
            for done, (window, numbers) in enumerate(found.each(threads), start=1):
                out.write(window, (numbers >= 0).astype(np.uint8))
                reporter.report(done / found.windows, str(output))
        # The last chance to cancel.
        reporter.report(1.0)
        return rows


def chosen_rows(columns: Columns, where: str) -> NDArray[np.int64]:
    """Return the numbers of rows for which an expression is true, ascending."""
    with closing(matching_rows(columns, where)) as blocks:
        return np.concatenate([np.zeros(0, np.int64), *blocks])


class ChosenPixels:
    """Yields the row of each pixel, window by window, for all rows or only some of them.

    Parameters
    ----------
    pixels : Pixels
        Its first band is read.
    rule : PixelRows
    rows : ndarray of int64, optional
        Only these rows; ascending.

    Attributes
    ----------
    rows : int
        Number of rows of the table.
    windows : int
        Number of windows.
    outside : int
        Number of pixels read so far that are not nodata, and have no row in the table.
    """

    def __init__(
        self, pixels: Pixels, rule: PixelRows, rows: NDArray[np.int64] | None = None
    ) -> None:
        self._pixels, self._rule = pixels, rule
        self._parts = pixels.windows()
        self.rows, self.windows, self.outside = rule.rows, len(self._parts), 0
        self._is_chosen: NDArray[np.bool_] | None = None
        if rows is not None:
            # The memory of rows that are never set is never touched.
            size = max(rule.rows, int(rows[-1]) + 1 if len(rows) else 1)
            self._is_chosen = np.zeros(size, np.bool_)
            self._is_chosen[rows] = True

    def each(self, threads: int | None = None) -> Iterator[tuple[Window, NDArray[np.int64]]]:
        """Yield each window with the row of each pixel; -1 if it has no row, or none of these."""
        self.outside = 0
        count = max(1, min(self._pixels.threads, threads or PROCESSORS))
        with closing(in_threads(self._parts, self._load, count)) as reading:
            for window, (outside, rows) in reading:
                self.outside += outside
                yield window, rows

    def _load(self, window: Window) -> tuple[int, NDArray[np.int64]]:
        values = self._pixels.read(window)
        rows = self._rule.of(values)
        valid = np.ones(values.shape, np.bool_)
        nodata = self._pixels.nodata[0]
        if nodata is not None:
            valid &= values != nodata
        if values.dtype.kind == "f":
            valid &= ~np.isnan(values)
        mask = self._pixels.valid(window)
        if mask is not None:
            valid &= mask
        outside = int(np.count_nonzero(valid & (rows < 0)))
        if self._is_chosen is not None:
            valid &= self._is_chosen[np.maximum(rows, 0)]
        rows[~valid] = NO_ROW
        return outside, rows
