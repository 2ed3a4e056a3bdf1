"""Rasters with a column of the table in place of the pixel values.

>>> import tempfile
>>> import numpy as np
>>> from osgeo import gdal
>>> from gdalbridge import open_table
>>> path = tempfile.mkdtemp() + "/seg.tif"
>>> dataset = gdal.GetDriverByName("GTiff").Create(path, 3, 1)
>>> _ = dataset.WriteRaster(0, 0, 3, 1, np.array([2, 2, 1], "u1").tobytes())
>>> dataset = None
>>> with open_table(path) as table:
...     table["ndvi"] = np.array([0, 0.25, 0.5], "f4")
>>> print(paint(path, "ndvi"))
[[0.5 0.5 0.25]]
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, GdalError, NotWrittenError
from gdalbridge.gdalio.aux_xml import write_beside
from gdalbridge.gdalio.compat import exceptions, gdal, own_rat, set_own_rat, silence
from gdalbridge.gdalio.datasets import open_dataset
from gdalbridge.gdalio.field_types import FieldUsage
from gdalbridge.gdalio.pixels import Window, pixel_type
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.output import Output
from gdalbridge.progress import Progress, progress_of
from gdalbridge.rasters.drivers import check_pixels, copy_dataset, may_lose, output_driver
from gdalbridge.rasters.painter import (
    Painter,
    UsedNodataError,
    check_nodata,
    first_nodata,
    free_nodata,
    pixel_dtype,
    region_of,
    sampled,
    tile_of,
    windows_of,
)
from gdalbridge.rasters.shades import Shades, class_colors, limits_of, own_rgba
from gdalbridge.sidecars.raster_files import BESIDE
from ratzarr.pipeline import in_threads

__all__ = ["PaintReport", "paint"]

Array = NDArray[Any]

FLUSH_BYTES = 2**26
"""Bytes of pixels after which GDAL writes them."""
SAMPLE_PIXELS = 2**20
"""Pixels from which the limits of colours are taken."""
COLOR_NAMES = ("Red", "Green", "Blue", "Alpha")


@dataclass(frozen=True, slots=True)
class PaintReport:
    """The result of :func:`paint`."""

    raster: str
    column: str
    target: str
    """The raster or picture that was written."""
    format: str
    """GDAL's short name of its format."""
    dtype: str
    bands: int
    width: int
    height: int
    nodata: float | int | None
    """The value of pixels without a value; None if a band of opacity tells them."""
    painted: int
    """Pixels with a value."""
    classes: int
    """Classes made from text; 0 for other columns."""
    seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        found = asdict(self)
        if isinstance(self.nodata, float) and not np.isfinite(self.nodata):
            found["nodata"] = str(self.nodata)
        return found

    def __str__(self) -> str:
        pixels = self.width * self.height
        text = (
            f"{self.raster}, {self.column} -> {self.target} ({self.format}, {self.width} x "
            f"{self.height} pixels, {self.bands} band{'s' * (self.bands > 1)} of {self.dtype}), "
            f"{self.seconds:.2f} s"
        )
        if self.classes:
            text += f"\n  {self.classes} classes"
        if self.painted < pixels:
            text += f"\n  {pixels - self.painted} of {pixels} pixels have no value"
            if self.nodata is not None:
                text += f": nodata is {self.nodata}"
        return text + "".join(f"\nnote: {one}" for one in self.notes)


def paint(
    raster: Any,
    column: str | None,
    out: Any = None,
    *,
    band: int = 1,
    where: str | None = None,
    nodata: float | None = None,
    window: tuple[int, int, int, int] | None = None,
    cmap: str | None = None,
    limits: tuple[float, float] | None = None,
    lazy: bool = False,
    format: str | None = None,  # noqa: A002 - GDAL's own word for it
    options: Sequence[str] = (),
    overwrite: bool = False,
    threads: int | None = None,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> Any:
    """Put a column of the table in place of the pixel values: a map of the column.

    Pixels get the value of their row exactly. Only the rows that the pixels need are read, a window
    of pixels at a time.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A raster with a table.
    column : str or None
        The column. Text becomes numbers of classes, from 1, with an attribute table of their names
        and numbers of pixels; the empty text is no class. None for the table's colours (columns of usage Red, Green and Blue,
        and Alpha): the output has four bands, and 0 in the last one for pixels without a row.
    out : str or os.PathLike, optional
        The raster to write: local, on S3, or at another URL that fsspec writes to. A tiled and
        compressed GeoTIFF (``.tif``), or another format. A name that ends in ``.png`` is a picture
        with a legend, of at most about 1200
        pixels a side. By default, an array is returned.
    band : int
        Counted from 1.
    where : str, optional
        An expression over the table as in :func:`gdalbridge.calc`. Only pixels whose row it is true
        for get a value.
    nodata : float, optional
        The value of pixels without a value: nodata in the raster, no row, a missing value, or left
        out by ``where``. A value that one of the painted rows has is refused. By default NaN for
        floats, and 0 for classes; for other integers the column's missing value or an end of the
        type's range, and another value if a row has that one.
    window : (int, int, int, int), optional
        Only these pixels: the first column and line, the width and the height.
    cmap : str, optional
        A colour map of matplotlib. The output has four bands (red, green, blue, opacity). Bytes and
        up to 255 classes keep their values, and get a colour table. By default, classes have the
        colours of their rows in the table, if each class has one.
    limits : (float, float), optional
        The values of the first and the last colour; by default the 2nd and the 98th percentile of
        a sample of the pixels.
    lazy : bool
        Return an ``xarray.DataArray`` whose blocks are painted when they are needed, by Dask.
    format : str, optional
        GDAL's short name of a driver, such as ``"COG"``. By default by the file extension.
    options : sequence of str
        Creation options of the driver, ``NAME=VALUE``.
    overwrite : bool
        Replace an existing raster.
    threads : int, optional
        Threads that read and paint; by default the number of processors.
    encoding, lossy, storage_options
        See :func:`gdalbridge.open_table`.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    PaintReport, numpy.ma.MaskedArray, numpy.ndarray or xarray.DataArray
        Without ``out``, a masked array (text stays text); with ``nodata`` an ordinary array.

    Raises
    ------
    BridgeError
        If the column has values that no pixel holds exactly, ``nodata`` is a value of a painted row,
        or the table has no clear row for a pixel.
    ColumnSelectionError
        If the column does not exist.
    OutputExistsError
        If ``out`` exists.
    CancelledError
        If the progress cancelled. This, Ctrl-C and other errors leave nothing at ``out``.
    """
    started = time.perf_counter()
    reading = ReadOptions(encoding, lossy)
    chosen: dict[str, Any] = {
        "band": band, "where": where, "options": reading, "storage_options": storage_options,
    }  # fmt: skip
    if column is None and (nodata is not None or cmap is not None or limits is not None):
        raise BridgeError("nodata, cmap and limits are for a column, and none is named")
    if limits is not None and cmap is None and not _is_picture(out, format):
        raise BridgeError("limits are the ends of a colour map: name one (cmap)")
    names = None if column is None else [column]
    if lazy:
        if out is not None or cmap is not None or column is None:
            raise BridgeError("a lazy array has a column's values: without out and cmap")
        from gdalbridge.rasters.lazy_array import lazy_array

        return lazy_array(raster, column, nodata=nodata, window=window, **chosen)
    if out is None:
        with Painter(raster, names, classes=False, **chosen) as painter:
            return _array(painter, column, nodata, window, cmap, limits, threads)
    output = Output(out, overwrite, storage_options, endings=BESIDE)
    if _is_picture(out, format):
        if options:
            raise BridgeError("creation options are for GeoTIFF and COG, not for pictures")
        from gdalbridge.rasters.picture import draw

        output.check(raster)
        with Painter(raster, names, **chosen) as painter, progress_of(progress) as reporter:
            region = region_of(painter, window)
            with output.create() as made:
                width, height, painted = draw(
                    painter, column, made, region,
                    cmap=cmap, limits=limits, where=where, threads=threads, reporter=reporter,
                )  # fmt: skip
            return PaintReport(
                painter.pixels.name, column or "colours", str(output), "PNG", "uint8", 4, width,
                height, None, painted, len(painter.classes), time.perf_counter() - started,
            )  # fmt: skip
    driver, short = output_driver(output.name, format, options)
    if short == "VRT":
        raise BridgeError(f"{output}: a VRT has no pixels of its own, and is not painted")
    output.check(raster)
    with Painter(raster, names, **chosen) as painter, progress_of(progress) as reporter:
        job = _Job(painter, column, region_of(painter, window), nodata, cmap, limits, threads)
        with output.create() as made:
            job.write(driver, made, options, reporter)
            # The last chance to cancel.
            reporter.report(1.0)
        return PaintReport(
            painter.pixels.name, column or "colours", str(output), short, str(job.dtype),
            job.bands, job.region.width, job.region.height, job.nodata, job.painted,
            len(painter.classes), time.perf_counter() - started, tuple(job.notes),
        )  # fmt: skip


def _is_picture(out: Any, driver: str | None) -> bool:
    return out is not None and driver is None and str(out).lower().endswith(".png")


def _shades(
    painter: Painter,
    region: Window,
    cmap: str,
    limits: tuple[float, float] | None,
    threads: int | None,
) -> Shades:
    if limits is None:
        limits = limits_of(sampled(painter, region, SAMPLE_PIXELS, threads))
    return Shades(cmap, limits)


# ---- arrays


def _array(
    painter: Painter,
    column: str | None,
    nodata: Any,
    window: Any,
    cmap: str | None,
    limits: tuple[float, float] | None,
    threads: int | None,
) -> Any:
    region = region_of(painter, window)
    first = painter.values.columns[0]
    is_text = first.dtype.kind == "T"
    if column is None or cmap is not None:
        if is_text:
            raise BridgeError(f"column {column!r} is text, and an array of colours is of numbers")
        shades = None if cmap is None else _shades(painter, region, cmap, limits, threads)
        colors = np.zeros((4, region.height, region.width), np.uint8)

        def load_colors(at: Window) -> Array:
            return _colors(painter, at, shades)

        for at, part in in_threads(
            windows_of(painter, region), load_colors, painter.threads(threads)
        ):
            colors[:, *_inside(at, region)] = part
        return colors
    dtype = np.dtype(object) if is_text else _array_dtype(first.dtype, column)
    found = np.empty((region.height, region.width), dtype)
    if nodata is not None:
        nodata = check_nodata(nodata, dtype, column)

        def load(at: Window) -> tuple[Array, Any]:
            return painter.filled(at, dtype, nodata, column), None
    else:

        def load(at: Window) -> tuple[Array, Any]:
            [values], has = painter.read(at)
            return values.astype(dtype, copy=False), ~has

    mask = np.zeros(found.shape, np.bool_) if nodata is None else None
    for at, (values, without) in in_threads(
        windows_of(painter, region), load, painter.threads(threads)
    ):
        found[_inside(at, region)] = values
        if mask is not None:
            mask[_inside(at, region)] = without
    if mask is None:
        return found
    if is_text:
        found[mask] = None
    return np.ma.MaskedArray(found, mask)


def _array_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Return the dtype of an array: the column's own, if it has numbers."""
    if dtype.kind not in "b":
        pixel_dtype(dtype, name)
    return dtype.newbyteorder("=")


def _inside(window: Window, region: Window) -> tuple[slice, slice]:
    x, y = window.x - region.x, window.y - region.y
    return slice(y, y + window.height), slice(x, x + window.width)


def _colors(painter: Painter, window: Window, shades: Shades | None) -> NDArray[np.uint8]:
    """Return colours and opacity of a window, of shape (4, height, width)."""
    columns, has = painter.read(window)
    if shades is not None:
        return shades.rgba(columns[0], has)
    return own_rgba(columns, has, [one.name for one in painter.values.columns])


# ---- rasters


@dataclass(slots=True)
class _Job:
    """One raster to write."""

    painter: Painter
    column: str | None
    region: Window
    nodata: Any
    cmap: str | None
    limits: tuple[float, float] | None
    threads: int | None
    dtype: np.dtype[Any] = field(init=False)
    bands: int = field(init=False)
    painted: int = field(init=False, default=0)
    notes: list[str] = field(init=False, default_factory=list)
    _shades: Shades | None = field(init=False, default=None)
    _palette: Any = field(init=False, default=None)
    _counts: Array = field(init=False)
    _is_chosen: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        painter, first = self.painter, self.painter.values.columns[0]
        classes = len(painter.classes)
        is_text = first.dtype.kind == "T"
        self._counts = np.zeros(classes + 1, np.int64)
        if self.column is None:
            self.dtype, self.bands = np.dtype(np.uint8), 4
            return
        self.dtype = (
            np.min_scalar_type(classes) if is_text else pixel_dtype(first.dtype, first.name)
        )
        self.bands = 1
        if self.cmap is not None:
            if self.dtype == np.uint8:
                self._palette = self._colored_values(is_text)
            else:
                self._shade(is_text)
                return
        if is_text:
            if self.cmap is None and self.dtype == np.uint8:
                colors = painter.table_colors()
                if colors is not None:
                    self._palette = np.zeros((256, 4), np.uint8)
                    self._palette[: len(colors)] = colors
            if self.nodata not in (None, 0):
                raise BridgeError(
                    f"nodata of classes is 0, and the classes count from 1: got {self.nodata}"
                )
            self.nodata = 0
        elif self.nodata is None:
            self._is_chosen = True
            self.nodata = first_nodata(self.dtype, first.missing_value())
        else:
            self.nodata = check_nodata(self.nodata, self.dtype, first.name)

    def _shade(self, is_text: bool) -> None:
        if self.nodata is not None:
            raise BridgeError("colours have a band of opacity, and no nodata value")
        cmap = str(self.cmap)
        limits = (1, max(2, len(self.painter.classes))) if is_text else self.limits
        self._shades = _shades(self.painter, self.region, cmap, limits, self.threads)
        self.dtype, self.bands = np.dtype(np.uint8), 4

    def _colored_values(self, is_text: bool) -> NDArray[np.uint8]:
        """Return the colour of each byte."""
        found = np.zeros((256, 4), np.uint8)
        cmap = str(self.cmap)
        if is_text:
            count = len(self.painter.classes)
            found[1 : count + 1] = class_colors(cmap, count)
            return found
        shades = _shades(self.painter, self.region, cmap, self.limits, self.threads)
        values = np.arange(256, dtype=np.uint8)
        return shades.rgba(values, np.ones(256, np.bool_)).T

    # ---- writing

    def write(self, driver: Any, made: Path, options: Sequence[str], reporter: Progress) -> None:
        """Write the raster; once more, if the nodata value turns out to be a row's."""
        is_direct = driver.ShortName == "GTiff" and not (
            self.bands == 1 and may_lose(driver, options)
        )
        place = made if is_direct else made.with_name(f"{made.name}.pixels.tif")
        try:
            self._write_pixels(place, options if is_direct else (), reporter)
        except UsedNodataError:
            if not self._is_chosen:
                raise
            before, column = self.nodata, self.painter.values.columns[0].name
            self.nodata = free_nodata(self.painter.values, self.dtype, column)
            self.notes.append(
                f"nodata is {self.nodata}, because {before} is a value of column {column!r}"
            )
            place.unlink(missing_ok=True)
            self._write_pixels(place, options if is_direct else (), reporter)
        in_tiff = driver.ShortName in ("COG", "GTiff")
        if self.painter.classes and not in_tiff:
            self._write_classes(place)
        if not is_direct:
            self._convert(driver, place, made, options, reporter)
        if self.painter.classes:
            if in_tiff:
                self._write_classes(made)
            self._check_classes(made)

    def _convert(
        self, driver: Any, place: Path, made: Path, options: Sequence[str], reporter: Progress
    ) -> None:
        given = {one.partition("=")[0].upper() for one in options}
        defaults = {}
        if driver.ShortName in ("COG", "GTiff"):
            defaults = {"COMPRESS": "DEFLATE", "NUM_THREADS": "ALL_CPUS"}
            # Values between those of two segments would belong to neither.
            defaults |= (
                {"OVERVIEW_RESAMPLING": "NEAREST"}
                if driver.ShortName == "COG"
                else {"TILED": "YES"}
            )
        more = [f"{key}={value}" for key, value in defaults.items() if key not in given]
        source = open_dataset(str(place))
        copy_dataset(driver, made, source, [*options, *more], reporter, (0.7, 1.0))
        # Colours may be compressed with losses, values may not.
        check_pixels(driver, made, source, options, values=self.bands == 1)
        kept = open_dataset(str(made))
        nodata = kept.GetRasterBand(1).GetNoDataValue()
        same = self.nodata is None or (
            nodata is not None and np.array_equal(nodata, self.nodata, equal_nan=True)
        )
        del source, kept
        for one in made.parent.glob(f"{place.name}*"):
            one.unlink()
        if not same:
            raise NotWrittenError(
                f"{driver.ShortName} does not keep pixels of {self.dtype} with nodata {self.nodata}"
            )

    def _write_pixels(self, place: Path, options: Sequence[str], reporter: Progress) -> None:
        self.painted = pending = 0
        self._counts[:] = 0
        windows = windows_of(self.painter, self.region)
        compute = self._color_window if self.bands == 4 else self._value_window
        with exceptions(), silence():
            try:
                dataset = self._create(place, options)
                results = in_threads(windows, compute, self.painter.threads(self.threads))
                with closing(results):
                    for number, (window, (values, painted, counts)) in enumerate(results):
                        x, y = window.x - self.region.x, window.y - self.region.y
                        # Older versions return an error where newer ones raise it.
                        if dataset.WriteArray(values, x, y):
                            raise GdalError(f"{place.name} can't be written: the disk may be full")
                        pending += values.nbytes
                        if pending > FLUSH_BYTES:
                            # GDAL would keep its blocks up to a share of all memory.
                            for place_of_band in range(self.bands):
                                dataset.GetRasterBand(place_of_band + 1).FlushCache()
                            pending = 0
                        self.painted += painted
                        if counts is not None:
                            self._counts += counts
                        reporter.report(
                            0.7 * (number + 1) / len(windows), self.painter.pixels.name
                        )
                dataset.FlushCache()
                # Closing the dataset completes the file.
                del dataset
            except RuntimeError as error:
                if isinstance(error, BridgeError):
                    raise
                raise GdalError(f"{place.name} can't be written: {error}") from error

    def _value_window(self, window: Window) -> tuple[Array, int, Any]:
        name = self.painter.values.columns[0].name
        values = self.painter.filled(window, self.dtype, self.nodata, name)
        missing = np.isnan(values) if self.nodata != self.nodata else values == self.nodata
        counts = None
        if self.painter.classes:
            counts = np.bincount(values.reshape(-1), minlength=len(self._counts))
        return values, values.size - int(np.count_nonzero(missing)), counts

    def _color_window(self, window: Window) -> tuple[Array, int, Any]:
        found = _colors(self.painter, window, self._shades)
        return found, int(np.count_nonzero(found[3])), None

    def _create(self, place: Path, options: Sequence[str]) -> Any:
        wide, high = tile_of(self.painter, self.region)
        settings = {
            "TILED": "YES", "BLOCKXSIZE": str(wide), "BLOCKYSIZE": str(high), "COMPRESS": "DEFLATE",
            "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS",
        }  # fmt: skip
        if self.bands == 4:
            settings |= {"PHOTOMETRIC": "RGB", "ALPHA": "UNASSOCIATED"}
        for one in options:
            key, _, value = one.partition("=")
            settings[key.upper()] = value
        if settings["TILED"].upper() != "YES":
            settings = {
                key: value
                for key, value in settings.items()
                if not key.startswith("BLOCK") or value not in (str(wide), str(high))
            }
        kind = pixel_type(self.dtype)
        dataset = gdal.GetDriverByName("GTiff").Create(
            str(place), self.region.width, self.region.height, self.bands, kind,
            [f"{key}={value}" for key, value in settings.items()],
        )  # fmt: skip
        grid = self.painter.pixels.grid
        if grid.transform is not None:
            x, a, b, y, c, d = grid.transform
            i, j = self.region.x, self.region.y
            dataset.SetGeoTransform((x + a * i + b * j, a, b, y + c * i + d * j, c, d))
        if grid.crs:
            dataset.SetProjection(grid.crs)
        for number in range(self.bands):
            band = dataset.GetRasterBand(number + 1)
            column = self.painter.values.columns[min(number, len(self.painter.values.columns) - 1)]
            if self.bands == 4:
                band.SetDescription(COLOR_NAMES[number])
                band.SetColorInterpretation(gdal.GCI_RedBand + number)
            else:
                band.SetDescription(column.name)
                units = column.attributes.get("units")
                if isinstance(units, str) and units:
                    band.SetUnitType(units)
                band.SetNoDataValue(self.nodata)
                if self._palette is not None:
                    colors = gdal.ColorTable()
                    for entry, color in enumerate(self._palette.tolist()):
                        colors.SetColorEntry(entry, tuple(color))
                    band.SetColorTable(colors)
        return dataset

    # ---- classes

    def _class_rows(self) -> list[tuple[int, str, int]]:
        """Return number, text and pixels of the classes."""
        return [
            (code, text, int(self._counts[code]))
            for code, text in enumerate(self.painter.classes, start=1)
        ]

    def _write_classes(self, made: Path) -> None:
        rows = self._class_rows()
        many = any(count >= 2**31 for _, _, count in rows)
        with exceptions():
            table = gdal.RasterAttributeTable()
            table.CreateColumn("Value", gdal.GFT_Integer, FieldUsage.MIN_MAX)
            table.CreateColumn("Class_Name", gdal.GFT_String, FieldUsage.NAME)
            table.CreateColumn(
                "Histogram", gdal.GFT_Real if many else gdal.GFT_Integer, FieldUsage.PIXEL_COUNT
            )
            for place, usage in enumerate((FieldUsage.RED, FieldUsage.GREEN, FieldUsage.BLUE)):
                if self._palette is not None:
                    table.CreateColumn(COLOR_NAMES[place], gdal.GFT_Integer, usage)
            table.SetRowCount(len(rows))
            for row, (code, text, count) in enumerate(rows):
                table.SetValueAsInt(row, 0, code)
                table.SetValueAsString(row, 1, text)
                if many:
                    table.SetValueAsDouble(row, 2, count)
                else:
                    table.SetValueAsInt(row, 2, count)
                if self._palette is not None:
                    for place, level in enumerate(self._palette[code, :3].tolist()):
                        table.SetValueAsInt(row, 3 + place, level)
            holder = gdal.GetDriverByName("MEM").Create("", 1, 1)
            set_own_rat(holder.GetRasterBand(1), table)
        write_beside(made, holder, [1])

    def _check_classes(self, made: Path) -> None:
        """Compare the names as GDAL reads them; its XML loses some characters."""
        dataset = open_dataset(str(made))
        table = own_rat(dataset.GetRasterBand(1))
        there = 0 if table is None else table.GetRowCount()
        for row, (_, text, _) in enumerate(self._class_rows()):
            found = table.GetValueAsString(row, 1) if row < there else None
            if found != text:
                raise NotWrittenError(
                    f"class {text!r} of column {self.column!r} is {found!r} when GDAL reads it from "
                    "an attribute table: change the text first (gdalbridge calc)"
                )
