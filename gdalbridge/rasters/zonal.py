"""Statistics of images for each row of a segmentation's table.

>>> import tempfile
>>> import numpy as np
>>> from osgeo import gdal
>>> folder = tempfile.mkdtemp()
>>> driver = gdal.GetDriverByName("GTiff")
>>> for name, pixels in {"seg": [[1, 1, 2]], "image": [[10, 20, 7]]}.items():
...     dataset = driver.Create(f"{folder}/{name}.tif", 3, 1)
...     _ = dataset.WriteRaster(0, 0, 3, 1, np.array(pixels, "u1").tobytes())
...     dataset = None
>>> report = zonal(f"{folder}/seg.tif", f"{folder}/image.tif", bands={1: "red"})
>>> report.columns
('red_count', 'red_mean')
>>> from gdalbridge import open_table
>>> open_table(f"{folder}/seg.tif")["red_mean"][:].tolist()
[nan, 15.0, 7.0]
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.report import Report
from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import block_cache
from gdalbridge.gdalio.pixels import Pixels, Window
from gdalbridge.gdalio.warp import on_grid
from gdalbridge.progress import Progress, progress_of
from gdalbridge.rasters.checkpoint import (
    SECONDS,
    Checkpoint,
    Saved,
    checkpoint_place,
    job_input,
    pieces_of,
)
from gdalbridge.rasters.zonal_kernel import (
    MOMENTS,
    Accumulator,
    Groups,
    missing_of,
    result_dtype,
)
from gdalbridge.rasters.zonal_ranks import RANKS, RankTables, is_rank
from gdalbridge.sidecars.merged import Columns, open_columns
from gdalbridge.sidecars.new_columns import ColumnWriter, NewColumn, new_columns, target_of
from gdalbridge.sidecars.pixel_rows import PixelRows, pixel_rows, rows_of_values
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS, MISSING_ATTR
from ratzarr.pipeline import PROCESSORS, in_threads

__all__ = ["ZonalReport", "zonal"]

Array = NDArray[Any]

MEMORY = 2 * 2**30
OVERHEAD = 800 * 10**6
"""Bytes besides the accumulators: windows of pixels, GDAL's cache, and rows to write."""
LEAST_CACHE = 2**26


@dataclass(frozen=True, slots=True)
class ZonalReport(Report):
    """The result of :func:`zonal`."""

    segments: str
    target: str
    """The table that was written."""
    rows: int
    columns: tuple[str, ...]
    pixels: int
    """Number of pixels of the segmentation."""
    outside: int
    """Number of these pixels whose value has no row in the table."""
    passes: int
    """How often the pixels were read: more than once if the statistics exceed the memory limit."""
    seconds: float
    windows: int = 0
    """Number of windows that were read, over all passes."""
    windows_there: int = 0
    """Number of these windows that an interrupted run had read already."""

    def __str__(self) -> str:
        text = (
            f"{self.target}: {len(self.columns)} columns of {self.rows} rows, {self.seconds:.2f} s"
        )
        if self.passes > 1:
            text += f", {self.passes} passes"
        if self.windows_there:
            text += f"; {self.windows_there} of {self.windows} windows were read before"
        if self.outside:
            text += f"\n  {self.outside} of {self.pixels} pixels belong to no row"
        return text + "".join(f"\n  {name}" for name in self.columns)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One band of an image, and its columns."""

    pixels: Pixels
    index: int
    name: str
    image: str
    band: int
    input: Mapping[str, Any]
    """See :func:`gdalbridge.rasters.checkpoint.job_input`."""
    nodata: Sequence[Any]
    """Values that don't count."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtypes[self.index]

    @property
    def label(self) -> str:
        """The image and band, for messages."""
        return f"{self.image}, band {self.band}"


def zonal(
    segments: Any,
    values: Any,
    *,
    stats: Sequence[str] = ("count", "mean"),
    bands: Mapping[int, str] | Sequence[int] | int | None = None,
    prefix: str | None = None,
    band: int = 1,
    name: str | None = None,
    nodata: float | None = None,
    weights: Any = None,
    resampling: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint: float = SECONDS,
    memory: int = MEMORY,
    threads: int | None = None,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> ZonalReport:
    """Compute statistics of images for each segment, and write them to the segments' table.

    The images are read once for all statistics that accumulate (count, sum, mean, stddev, variance,
    min, max, range), in windows of the segmentation's blocks. Medians, percentiles and modes are
    exact; their pixels are sorted by DuckDB in a temporary directory (``TMPDIR``). It takes up to 45
    bytes for each pixel and band, and less where values repeat within a segment.

    Parameters
    ----------
    segments : str, os.PathLike or gdal.Dataset
        The segmentation, whose pixels choose rows of its table (see
        :func:`gdalbridge.sidecars.pixel_rows.pixel_rows`). If it has no table, the rows are the
        pixel values.
    values : str, os.PathLike, gdal.Dataset, or a list of them
        The images. An image on another grid needs ``resampling``.
    stats : sequence of str
        ``count``, ``sum``, ``mean``, ``stddev`` (of the population), ``variance``, ``min``, ``max``,
        ``range``, ``median``, ``mode``, percentiles such as ``p10`` or ``p97.5`` (linear
        interpolation, as numpy's), and ``fraction``: a column for each value of a class image with
        its share of the segment's valid pixels. With ``weights`` also ``weight``, their sum.
    bands : mapping of int to str, sequence of int, or int, optional
        The bands, counted from 1, with names for their columns. By default all bands, by their
        descriptions; without one, the band of a one-band image has the file's name without its
        suffix, and the bands of others are ``band1`` and so on.
    prefix : str, optional
        Begins the columns' names. By default nothing for one image, and the file name of each of
        several.
    band : int
        The band of the segmentation.
    name : str, optional
        Write to a further table of this name.
    nodata : float, optional
        A value of the images that doesn't count, in addition to their own nodata values and masks.
        NaN never counts.
    weights : str, os.PathLike, gdal.Dataset, or a pair of one and a band, optional
        A raster that says how often each pixel counts, such as a number of observations: in
        ``sum``, ``mean``, ``stddev``, ``variance``, ``median``, ``mode``, percentiles (then numpy's
        method ``inverted_cdf``) and ``fraction``. ``count`` remains the number of pixels. Pixels
        of weight 0 or without a weight don't count at all. Median, mode, percentiles and fractions
        need whole numbers.
    resampling : str, optional
        How GDAL resamples images of another grid: ``near``, ``bilinear``, ``average``, ...
    overwrite : bool
        Replace existing columns.
    resume : bool
        Continue an interrupted run of the same inputs and options from its last checkpoint.
        Without one, start a new run.
    checkpoint : float
        Seconds between checkpoints, more if saving one takes longer than a twentieth of that; 0 for
        none. They are in a directory beside the table, named like it, until the run is complete.
    memory : int
        Approximate bytes that the run uses. If the accumulators don't fit, pixels are read several
        times, each time for a part of the rows.
    threads : int, optional
        Threads that read and reduce windows; by default the number of processors.
    encoding, lossy, storage_options
        See :func:`gdalbridge.calc`.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    ZonalReport

    Raises
    ------
    BridgeError
        For an unknown statistic, grids that differ (the message says in what), pixels that the
        table has no clear rows for, an integer result beyond those of int64, or a negative weight.
        With ``resume`` also if an input or option is not that of the interrupted run; the message
        says which.
    OutputExistsError
        If a column exists and ``overwrite`` is False. Nothing is written.
    CancelledError
        If the progress cancelled. After this, after Ctrl-C, and after an error of a disk or server,
        ``resume`` continues if there is a checkpoint: unfinished columns stay, marked incomplete.
        Otherwise, and after every other error, there are no new columns.
    """
    started = time.perf_counter()
    wanted = _checked(stats, is_weighted=weights is not None)
    if memory < 1:
        raise BridgeError(f"memory is a number of bytes above 0: got {memory!r}")
    with ExitStack() as stack, progress_of(progress) as reporter:
        stack.enter_context(block_cache(max(LEAST_CACHE, memory // 8)))
        zones = stack.enter_context(Pixels(segments, [band], storage_options))
        layers = _layers(stack, zones, values, bands, prefix, resampling, nodata, storage_options)
        weighing = None
        if weights is not None:
            raster, number = weights if isinstance(weights, (list, tuple)) else (weights, 1)
            [weighing] = _layers(
                stack, zones, raster, [number], "", resampling, None, storage_options
            )
        columns = stack.enter_context(
            open_columns(
                segments, band=band, parts=False, may_be_empty=True,
                storage_options=storage_options, options=_options(encoding, lossy),
            )
        )  # fmt: skip
        rule, rows = _rule(columns, zones, threads)
        job = _Job(zones, layers, weighing, rule, rows, wanted, nodata, memory, threads)
        stack.callback(job.close)
        target = target_of(columns, segments, band, name, storage_options)
        names = [*wanted, *(one.name for one in layers)]
        saving = Checkpoint(
            checkpoint_place(target, "zonal", names),
            job.described(resampling),
            checkpoint,
            storage_options,
        )
        with saving:
            if resume:
                saving.resume(str(target))
            if "fraction" in wanted:
                # The classes decide which columns there are.
                job.count(saving, reporter)
            specs = job.columns()
            with new_columns(
                columns, segments, specs, rows, operation="zonal", band=band, name=name,
                overwrite=overwrite, resume=resume, job=saving.digest, keeps=saving.keeps,
                storage_options=storage_options,
                provenance={"images": sorted({one.image for one in layers}), "stats": list(wanted)},
            ) as writer:  # fmt: skip
                if writer.names:
                    job.run(writer, saving, reporter)
                path = writer.path
        reporter.report(1.0)
        return ZonalReport(
            zones.name,
            path,
            rows,
            tuple(specs),
            zones.grid.width * zones.grid.height,
            job.outside,
            job.passes,
            time.perf_counter() - started,
            job.windows,
            job.windows_there,
        )


def _options(encoding: str | None, lossy: bool) -> Any:
    from gdalbridge.gdalio.read_options import ReadOptions

    return ReadOptions(encoding, lossy)


def _checked(stats: Sequence[str], *, is_weighted: bool) -> tuple[str, ...]:
    if isinstance(stats, str):
        raise BridgeError(f"stats is a list of names: got the string {stats!r}")
    found = tuple(dict.fromkeys(stats))
    for one in found:
        if one not in MOMENTS and not is_rank(one):
            raise BridgeError(
                f"there is no statistic {one!r}: expected {', '.join(sorted(MOMENTS | RANKS))} or "
                "a percentile such as p10"
            )
        if one == "weight" and not is_weighted:
            raise BridgeError(
                Advice(
                    "the statistic 'weight' is the sum of the weights, but no weights are given.",
                    "Name the raster that has them with weights=...",
                )
            )
    if not found:
        raise BridgeError("stats names no statistic")
    return found


def _rule(columns: Columns, zones: Pixels, threads: int | None) -> tuple[PixelRows, int]:
    """Return the rule for rows, and the number of rows of the table."""
    if columns.rows:
        return pixel_rows(columns), columns.rows
    if zones.dtypes[0].kind == "f":
        raise BridgeError(
            f"{zones.name} has no attribute table, and its pixels are floats, which can't be row "
            "numbers. Convert the raster to integers first"
        )

    def largest(window: Window) -> int:
        found = zones.read(window)
        keep = np.ones(found.shape, np.bool_) if (mask := zones.valid(window)) is None else mask
        if zones.nodata[0] is not None:
            keep &= found != zones.nodata[0]
        return int(found[keep].max()) if keep.any() else -1

    count = max(1, min(zones.threads, threads or PROCESSORS))
    with closing(in_threads(zones.windows(), largest, count)) as reading:
        rows = max(0, max((found for _, found in reading), default=-1) + 1)
    return rows_of_values(rows), rows


def _layers(
    stack: ExitStack,
    zones: Pixels,
    values: Any,
    bands: Mapping[int, str] | Sequence[int] | int | None,
    prefix: str | None,
    resampling: str | None,
    nodata: float | None,
    storage_options: Mapping[str, Any] | None,
) -> list[_Layer]:
    images = list(values) if isinstance(values, (list, tuple)) else [values]
    if not images:
        raise BridgeError("expected at least one image to compute statistics of: got none")
    found: list[_Layer] = []
    for image in images:
        with Pixels(image, [], storage_options) as first:
            count, label = first.count, first.name
            described, described_input = first.descriptions, job_input(first)
        chosen = [bands] if isinstance(bands, int | np.integer) else bands
        numbers = list(range(1, count + 1)) if chosen is None else np.array([*chosen]).tolist()
        given = bands if isinstance(bands, Mapping) else {}
        there = on_grid(image, numbers, zones.grid, resampling, nodata, storage_options)
        stem = label.rstrip("/").rpartition("/")[2].partition(".")[0]
        start = prefix if prefix is not None else (f"{stem}_" if len(images) > 1 else "")
        for number, (pixels, index, none) in zip(numbers, there, strict=True):
            stack.enter_context(pixels)
            own = given.get(number) or described[number - 1]
            if own or count > 1 or not stem:
                column = f"{start}{own or f'band{number}'}"
            else:
                column = f"{prefix or ''}{stem}"
            found.append(
                _Layer(
                    pixels,
                    index,
                    column,
                    label.rstrip("/").rpartition("/")[2],
                    number,
                    described_input,
                    none,
                )
            )
    names = [one.name for one in found]
    for one in names:
        if names.count(one) > 1:
            raise BridgeError(
                f'two bands would have columns named {one!r}: name the bands (bands={{1: "red"}}), '
                "or give each image a prefix of its own in a call of its own"
            )
    return found


def _fill(arrays: Mapping[str, Array], saved: Saved) -> None:
    """Fill arrays with the pieces that a checkpoint has of them."""
    places = dict.fromkeys(arrays, 0)
    for name, values in saved.pieces():
        start = places[name]
        arrays[name][start : start + len(values)] = values
        places[name] += len(values)


class _Job:
    """One call's work."""

    def __init__(
        self,
        zones: Pixels,
        layers: Sequence[_Layer],
        weights: _Layer | None,
        rule: PixelRows,
        rows: int,
        stats: tuple[str, ...],
        nodata: float | None,
        memory: int,
        threads: int | None,
    ) -> None:
        self._zones, self._layers, self._rule, self._rows = zones, layers, rule, rows
        self._weights, self._stats, self._nodata = weights, stats, nodata
        self._is_weighted = weights is not None
        self._moments = frozenset(stats) & MOMENTS
        self._ranks = tuple(one for one in stats if is_rank(one))
        least = min(one.pixels.threads for one in (*layers, *([weights] if weights else ())))
        self._threads = max(1, min(zones.threads, least, threads or PROCESSORS))
        # The classes of fractions are counted before anything accumulates, and stay.
        parts = 2 if self._moments and "fraction" in stats else 1
        self._memory = max(1, (memory - min(OVERHEAD, memory // 2)) // parts)
        self._windows = zones.windows()
        each = sum(
            Accumulator.row_bytes(one.dtype, self._moments, is_weighted=self._is_weighted)
            for one in layers
        )
        fitting = max(1, self._memory // max(1, each))
        self.passes = max(1, -(-rows // fitting)) if self._moments else 1
        self._page = -(-rows // self.passes) if rows else 0
        self._tables: list[RankTables] = []
        self.outside = 0
        self._done = self.windows_there = 0
        self.windows = len(self._windows) * (bool(self._moments) * self.passes + bool(self._ranks))

    def close(self) -> None:
        """Remove temporary files."""
        for one in self._tables:
            one.close()

    def described(self, resampling: str | None) -> dict[str, Any]:
        """Describe all inputs and options that affect the results, for a checkpoint."""
        layers = [*self._layers, *([self._weights] if self._weights else ())]
        inputs = [job_input(self._zones)]
        for one in layers:
            if one.input not in inputs:
                inputs.append(dict(one.input))
        first = self._windows[0]
        return {
            "inputs": inputs,
            "options": {
                "band": self._zones.bands[0],
                "bands": [f"{one.label}: {one.name}" for one in self._layers],
                "stats": list(self._stats),
                "weights": self._weights.label if self._weights else None,
                "resampling": resampling,
                # As text, because NaN differs from itself.
                "nodata": repr(self._nodata),
                "nodata of the rasters": repr(
                    [self._zones.nodata, *(one.pixels.nodata[one.index] for one in layers)]
                ),
                "rows of the table": self._rows,
                "rows of a pass": self._page,
                "rows of the pixels": self._rule.digest(),
                "windows": f"{len(self._windows)} of {first.width} x {first.height}",
            },
        }

    # ---- what to write

    def count(self, saving: Checkpoint, reporter: Progress) -> None:
        """Collect the pixels for medians, percentiles, modes and fractions."""
        if self._tables or not self._ranks:
            return
        for one in self._layers:
            self._tables.append(
                RankTables(
                    one.dtype, self._ranks, one.label, self._memory // len(self._layers),
                    is_weighted=self._is_weighted,
                )
            )  # fmt: skip
        done, saved = 0, saving["pairs"]
        if saved is not None:
            done = self._taken(saved)
            pieces = saved.pieces()
            for place, row in pieces:
                v, n = next(pieces)[1], next(pieces)[1]
                self._tables[int(place.partition("/")[0])].restore(row, v, n)
        for _, reduced in self._reading(0, self._rows, reporter, done, pairs=True):
            for table, found in zip(self._tables, reduced, strict=True):
                table.add(*found)
            done += 1
            if saving.is_due():
                pairs = (
                    (f"{number}/{name}", values)
                    for number, table in enumerate(self._tables)
                    for name, values in table.pairs()
                )
                saving.save("pairs", self._state(done), pairs)

    def _state(self, windows: int, first: int = 0) -> dict[str, int]:
        return {"windows": windows, "first": first, "outside": self.outside}

    def _taken(self, saved: Saved) -> int:
        """Continue the counts of an interrupted run; return the windows read in its last pass."""
        windows: int = saved.state["windows"]
        there = saved.state["first"] // max(1, self._page) * len(self._windows) + windows
        self.windows_there += there
        self._done += there
        self.outside = saved.state["outside"]
        return windows

    def columns(self) -> dict[str, NewColumn]:
        """Return the new columns."""
        found: dict[str, NewColumn] = {}
        for place, layer in enumerate(self._layers):
            for stat in self._stats:
                names = [stat]
                if stat == "fraction":
                    names = [f"fraction_{one}" for one in self._tables[place].classes()]
                for one in names:
                    dtype = result_dtype(one, layer.dtype, is_weighted=self._is_weighted)
                    attributes: dict[str, Any] = {
                        "statistic": stat, "image": layer.image, "image_band": layer.band,
                    }  # fmt: skip
                    if self._weights:
                        attributes["weights"] = self._weights.image
                        attributes["weights_band"] = self._weights.band
                    missing = missing_of(dtype)
                    if missing is not None and one not in ("count", "sum"):
                        attributes[MISSING_ATTR] = missing
                    found[f"{layer.name}_{one}"] = NewColumn(dtype, attributes)
        return found

    # ---- the work

    def run(self, writer: ColumnWriter, saving: Checkpoint, reporter: Progress) -> None:
        """Compute and write all columns."""
        self._sum(writer, saving, reporter)
        self.count(saving, reporter)
        for layer, table in zip(self._layers, self._tables, strict=False):
            for start, blocks in table.results(self._rows, self._step(writer)):
                writer.write({f"{layer.name}_{key}": one for key, one in blocks.items()}, start)

    def _sum(self, writer: ColumnWriter, saving: Checkpoint, reporter: Progress) -> None:
        """Compute and write the statistics that accumulate, and free their arrays at the end."""
        saved = saving["sums"]
        if saved is not None and saved.state["first"] and not writer.is_resumed:
            # The rows that were written are gone.
            saved = None
        begin = saved.state["first"] if saved is not None else 0
        for first in range(begin, self._rows, self._page or 1) if self._moments else ():
            stop = min(first + self._page, self._rows)
            sums = [
                Accumulator(
                    first, stop - first, one.dtype, self._moments, one.label,
                    is_weighted=self._is_weighted,
                )
                for one in self._layers
            ]  # fmt: skip
            arrays = {
                f"{number}/{name}": values
                for number, one in enumerate(sums)
                for name, values in one.arrays.items()
            }
            done = 0
            if saved is not None:
                done = self._taken(saved)
                _fill(arrays, saved)
                saved = None
            for _, reduced in self._reading(first, stop, reporter, done):
                for total, one in zip(sums, reduced, strict=True):
                    total.add(one)
                done += 1
                if saving.is_due():
                    saving.save("sums", self._state(done, first), pieces_of(arrays))
            self._write_moments(writer, sums, first, stop)
            if stop < self._rows and saving.is_due():
                writer.table.flush()
                saving.save("sums", self._state(0, stop), ())

    def _write_moments(
        self, writer: ColumnWriter, sums: Sequence[Accumulator], first: int, stop: int
    ) -> None:
        names = [one for one in self._stats if one in MOMENTS]
        step = self._step(writer)
        for start in range(first, stop, step):
            end = min(start + step - start % step, stop)
            blocks: dict[str, Array] = {}
            for layer, total in zip(self._layers, sums, strict=True):
                found = total.results(names, start, end)
                blocks |= {f"{layer.name}_{key}": values for key, values in found.items()}
            writer.write(blocks, start)

    def _step(self, writer: ColumnWriter) -> int:
        chunk = writer.chunk_rows
        return chunk * max(1, BLOCK_ROWS // chunk)

    def _reading(
        self, first: int, stop: int, reporter: Progress, done: int = 0, *, pairs: bool = False
    ) -> Iterator[tuple[Window, list[Any]]]:
        """Yield each window with the statistics of its pixels, for each layer.

        ``done`` of the windows were read by an interrupted run.
        """

        def load(window: Window) -> tuple[int, list[Any]]:
            return self._reduced(window, first, stop, pairs=pairs)

        if not done:
            self.outside = 0
        with closing(in_threads(self._windows[done:], load, self._threads)) as reading:
            for window, (lost, reduced) in reading:
                self.outside += lost
                yield window, reduced
                self._done += 1
                reporter.report(self._done / self.windows * 0.95, self._zones.name)

    def _reduced(
        self, window: Window, first: int, stop: int, *, pairs: bool
    ) -> tuple[int, list[Any]]:
        zones = self._zones.read(window)
        rows = self._rule.of(zones).reshape(-1)
        is_zone = rows >= 0
        lost = len(rows) - int(np.count_nonzero(is_zone))
        nodata = self._zones.nodata[0]
        if nodata is not None:
            is_zone &= zones.reshape(-1) != nodata
        mask = self._zones.valid(window)
        if mask is not None:
            is_zone &= mask.reshape(-1)
        if first or stop < self._rows:
            is_zone &= (rows >= first) & (rows < stop)
        weights = None
        if self._weights is not None:
            weights = self._weighed(self._weights, window, is_zone, whole=pairs)
        everything = bool(is_zone.all())
        shared = rows if everything else rows[is_zone]
        groups: Groups | None = None
        found: list[Any] = []
        for layer in self._layers:
            values = layer.pixels.read(window, layer.index).reshape(-1)
            valid = self._valid(layer, values, window)
            keep = is_zone if valid is None else is_zone & valid
            kept = values if valid is None and everything else values[keep]
            more = () if weights is None else (weights[keep],)
            if pairs:
                found.append((shared if valid is None else rows[keep], kept, *more))
            elif valid is None:
                groups = groups or Groups(shared)
                found.append(groups.reduce(kept, self._moments, *more))
            else:
                found.append(Groups(rows[keep]).reduce(kept, self._moments, *more))
        return lost, found

    def _weighed(
        self, layer: _Layer, window: Window, is_zone: NDArray[np.bool_], *, whole: bool
    ) -> Array:
        """Return the weights of a window's pixels, and leave out those without one.

        Parameters
        ----------
        is_zone : ndarray of bool
            Which pixels have a row; changed in place.
        whole : bool
            Return whole numbers as int64, and refuse others.
        """
        weights = layer.pixels.read(window, layer.index).reshape(-1)
        valid = self._valid(layer, weights, window)
        if valid is not None:
            is_zone &= valid
        wrong, expected = is_zone & ~((weights >= 0) & (weights < np.inf)), "numbers of 0 or more"
        if whole and not wrong.any():
            wrong = is_zone & ((weights != np.floor(weights)) | (weights > 2**53))
            expected = "whole numbers for medians, modes, percentiles and fractions"
        if wrong.any():
            at = int(np.argmax(wrong))
            line, column = divmod(at, window.width)
            raise BridgeError(
                f"{layer.label}: weights are {expected}, and the one at column "
                f"{window.x + column}, line {window.y + line} is {weights[at]}"
            )
        is_zone &= weights > 0
        return np.where(is_zone, weights, 0).astype(np.int64 if whole else np.float64)

    def _valid(self, layer: _Layer, values: Array, window: Window) -> NDArray[np.bool_] | None:
        """Return which pixels of an image count; None for all."""
        found: NDArray[np.bool_] | None = None
        tests = [~np.isnan(values)] if values.dtype.kind == "f" else []
        tests += [values != one for one in layer.nodata if one == one]
        mask = layer.pixels.valid(window, layer.index)
        if mask is not None:
            tests.append(mask.reshape(-1))
        for test in tests:
            found = test if found is None else found & test
        return found
