"""Polygons of a raster's segments, with their attributes.

The rows of the pixels go to a temporary raster, of which GDAL makes polygons line by line. These go
to a temporary file, so that the memory does not grow with the raster. Then the polygons of one row
become one feature, with the attributes of this row.
"""

import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.report import Report
from gdalbridge.errors import BridgeError, LossWarning
from gdalbridge.gdalio.pixels import Pixels
from gdalbridge.gdalio.polygons import multipolygon, polygon_parts
from gdalbridge.gdalio.raster_writer import RasterWriter
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.gdalio.vector_layer import LayerPolygons
from gdalbridge.output import Output
from gdalbridge.progress import Progress, progress_of
from gdalbridge.rasters.select import ChosenPixels, chosen_rows
from gdalbridge.sidecars.pixel_rows import NO_ROW, pixel_rows
from gdalbridge.sidecars.source import ColumnsSource, open_source
from ratzarr.interop import required

__all__ = ["PolygonReport", "polygonize"]

BATCH_FEATURES = 10_000
BATCH_BYTES = 2**25
"""Approximate size in bytes of the polygons of a batch."""
READ_ROWS = 2**16
"""Approximate number of rows that are read at a time."""
PART = "part"
"""The column with the features' numbers, where they are not the rows."""


@dataclass(frozen=True, slots=True)
class PolygonReport(Report):
    """The result of :func:`polygonize`."""

    raster: str
    target: str
    format: str
    features: int
    polygons: int
    """Number of polygons; a feature has several if its pixels are not connected."""
    columns: tuple[str, ...]
    """Names in the file, without that of the polygons."""
    outside: int
    """Number of pixels whose value has no row in the table; they have no polygons."""
    seconds: float
    losses: tuple[str, ...] = ()
    """Descriptions of values that the format does not keep."""
    notes: tuple[str, ...] = ()
    """Descriptions of how values are written."""

    def __str__(self) -> str:
        text = (
            f"{self.raster} -> {self.target}: {self.features} features of {self.polygons} polygons, "
            f"{len(self.columns)} columns, {self.seconds:.2f} s"
        )
        if self.outside:
            text += f"\n  {self.outside} pixels have no row in the table, and no polygons"
        return text


def polygonize(
    raster: Any,
    out: Any,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    connectedness: int | None = None,
    overwrite: bool = False,
    strict: bool = False,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    encoding: str | None = None,
    lossy: bool = False,
    threads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> PolygonReport:
    """Write the outlines of a raster's segments, with the columns of its table.

    Each row of the table that has pixels becomes a feature: a multipolygon that covers exactly the
    row's pixels.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
    out : str or os.PathLike
        The file: local, on S3, or at another URL that fsspec writes to. Its suffix is the format: ``.gpkg``, ``.parquet`` (GeoParquet),
        ``.shp`` or ``.geojson``.
    columns : sequence of str, optional
        The columns to write, in this order. By default all. The row number is always written: as
        the features' number (FID) in a GeoPackage, otherwise as the first column, ``row``.
    where : str, optional
        Only rows for which this is true, an expression as in :func:`gdalbridge.calc`.
    connectedness : {4, 8}, optional
        Make a feature of each connected area of a row, rather than of each row; its number is in
        the column ``part``. With 8, pixels that touch at a corner are connected.
    overwrite : bool
        Replace an existing file.
    strict : bool
        Make every loss an error.
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
    PolygonReport

    Raises
    ------
    BridgeError
        For an unknown suffix, an invalid condition, or pixels that the table has no clear rows for.
    OutputExistsError
        If the file exists and may not be replaced.
    ConversionError
        If the format can't hold a column, or a value; names the row.
    CancelledError
        If the progress cancelled. After this and every other error, there is no file.

    Warns
    -----
    LossWarning
        For each column of which the format does not keep all values.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from osgeo import gdal
    >>> from gdalbridge import build
    >>> folder = tempfile.mkdtemp()
    >>> dataset = gdal.GetDriverByName("GTiff").Create(folder + "/seg.tif", 3, 1)
    >>> _ = dataset.WriteRaster(0, 0, 3, 1, np.array([2, 1, 2], "u1").tobytes())
    >>> dataset = None
    >>> report = build(folder + "/seg.tif")
    >>> report = polygonize(folder + "/seg.tif", folder + "/seg.gpkg", where="Histogram > 1")
    >>> report.features, report.polygons
    (1, 2)
    """
    started = time.perf_counter()
    required("pyarrow", "arrow", "polygonize")
    from gdalbridge.exchange.polygon_files import polygon_format, polygon_suffixes

    if connectedness not in (None, 4, 8):
        raise BridgeError(f"connectedness is 4 or 8: got {connectedness!r}")
    kind = polygon_format(out)
    output = Output(out, overwrite, storage_options, suffixes=polygon_suffixes(kind))
    output.check(raster, keep_rasters=kind == "gpkg")
    with ExitStack() as stack:
        reporter = stack.enter_context(progress_of(progress))
        pixels = stack.enter_context(Pixels(raster, [band], storage_options))
        there, source = open_source(
            raster, band=band, names=names, prefer=prefer, storage_options=storage_options,
            options=ReadOptions(encoding, lossy),
        )  # fmt: skip
        stack.enter_context(there)
        job = _Job(source, [one.name for one in there.chosen(columns)], kind, connectedness)
        rows = None if where is None else chosen_rows(there, where)
        chosen = ChosenPixels(pixels, pixel_rows(there), rows)
        made = stack.enter_context(output.create(f"polygons.{kind}"))
        path = _row_raster(made.with_name("rows.tif"), pixels, chosen, threads, reporter)
        losses = job.write(made, path, pixels.grid.crs, strict, reporter)
        # The last chance to cancel.
        reporter.report(1.0)
    for name, words in losses.losses.items():
        warnings.warn(f"{output}: column {name!r}: {words}", LossWarning, stacklevel=2)
    return PolygonReport(
        pixels.name,
        str(output),
        kind,
        job.features,
        job.polygons,
        tuple(job.schema.names[:-1]),
        chosen.outside,
        time.perf_counter() - started,
        tuple(f"column {name!r}: {words}" for name, words in losses.losses.items()),
        tuple(f"column {name!r}: {words}" for name, words in losses.notes.items()),
    )


def _row_raster(
    path: Path, pixels: Pixels, chosen: ChosenPixels, threads: int | None, reporter: Progress
) -> Path:
    """Write the row of each pixel to a raster, -1 as nodata."""
    dtype = np.int32 if chosen.rows <= np.iinfo(np.int32).max else np.int64
    with RasterWriter(path, pixels.grid, dtype, nodata=NO_ROW, options=["ZLEVEL=1"]) as out:
        for done, (window, rows) in enumerate(chosen.each(threads), start=1):
            out.write(window, rows.astype(dtype))
            reporter.report(0.3 * done / chosen.windows, pixels.name)
    return path


class _Job:
    """One call's features."""

    def __init__(
        self, source: ColumnsSource, columns: list[str], kind: str, connectedness: int | None
    ) -> None:
        import pyarrow as pa

        from gdalbridge.exchange.polygon_files import geometry_name
        from ratzarr.interop import TableDataset

        self._kind, self._connectedness = kind, connectedness
        self._dataset = TableDataset(source, columns)
        self._row = self._dataset.row_name
        fields = [source.field(name) for name in columns]
        # Whole chunks, so that each is decoded once.
        self._step = max([READ_ROWS, *(min(one.chunk_rows, 2**20) for one in fields)])
        self._columns = columns
        kinds = self._dataset.schema
        own = [kinds.field(self._row), *(kinds.field(name) for name in columns)]
        if connectedness is not None:
            part = PART
            while part.casefold() in {one.name.casefold() for one in own}:
                part = f"_{part}"
            own.insert(0, pa.field(part, pa.int64()))
        self._geometry = geometry_name(kind, [one.name for one in own])
        self.schema = pa.schema([*own, pa.field(self._geometry, pa.binary())])
        self.features = self.polygons = 0
        self._written: list[NDArray[np.int64]] = []

    def write(self, made: Path, rows: Path, crs: str, strict: bool, reporter: Progress) -> Any:
        """Write the file, and return what it does not keep."""
        from gdalbridge.exchange.layers import Losses
        from gdalbridge.exchange.polygon_files import write_polygons

        losses = Losses(strict)
        with closing(self._batches(rows, reporter)) as batches:
            write_polygons(
                made, self._kind, self.schema, batches,
                self._attributes, LayerPolygons(self._geometry, crs), losses,
            )  # fmt: skip
        return losses

    def _batches(self, rows: Path, reporter: Progress) -> Generator[Any]:
        import pyarrow as pa

        def report(done: float) -> None:
            reporter.report(0.3 + 0.4 * done)

        parts = polygon_parts(rows, self._connectedness or 4, report)
        last = self._dataset.range[1] or 1
        with closing(self._features(parts)) as features:
            for numbers, shapes in features:
                yield pa.RecordBatch.from_arrays(
                    [*self._table(numbers).columns, pa.array(shapes, pa.binary())],
                    schema=self.schema,
                )
                reporter.report(min(1.0, 0.7 + 0.3 * numbers[-1] / last))

    def _features(
        self, parts: Iterator[tuple[int, list[bytes]]]
    ) -> Generator[tuple[NDArray[np.int64], list[bytes]]]:
        """Yield rows, ascending, with their multipolygons; those of a batch are in one block."""
        numbers: list[int] = []
        shapes: list[list[bytes]] = []
        size = 0

        def batch() -> tuple[NDArray[np.int64], list[bytes]]:
            self.features += len(numbers)
            self.polygons += sum(map(len, shapes))
            rows = np.array(numbers, np.int64)
            if self._kind == "shp":
                self._written.append(rows)
            return rows, [multipolygon(one) for one in shapes]

        for row, polygons in parts:
            if numbers and numbers[-1] == row and self._connectedness is None:
                shapes[-1] += polygons
            else:
                if numbers and (
                    len(numbers) >= BATCH_FEATURES
                    or size >= BATCH_BYTES
                    or row // self._step != numbers[0] // self._step
                ):
                    yield batch()
                    numbers, shapes, size = [], [], 0
                numbers.append(row)
                shapes.append(polygons)
            size += sum(map(len, polygons))
        if numbers:
            yield batch()

    def _table(self, rows: NDArray[np.int64], first: int | None = None) -> Any:
        """Return the attributes of rows, which are ascending and in one block."""
        import pyarrow as pa

        start = int(rows[0])
        found = self._dataset.between(start, int(rows[-1]) + 1).to_reader(
            [self._row, *self._columns]
        )
        table = found.read_all().take(pa.array(rows - start)).combine_chunks()
        [batch] = table.to_batches()
        if self._connectedness is None:
            return batch
        before = self.features - len(rows) if first is None else first
        part = pa.array(np.arange(before, before + len(rows)))
        return pa.RecordBatch.from_arrays([part, *batch.columns], schema=self._own)

    @property
    def _own(self) -> Any:
        import pyarrow as pa

        return pa.schema(list(self.schema)[:-1])

    def _attributes(self) -> Iterator[Any]:
        """Yield the attributes of the features that were written, again."""
        first = 0
        for rows in self._written:
            yield self._table(rows, first)
            first += len(rows)
