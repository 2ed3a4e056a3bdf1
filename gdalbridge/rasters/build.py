"""The table of a raster, made from its pixels.

>>> import tempfile
>>> import numpy as np
>>> from osgeo import gdal
>>> path = tempfile.mkdtemp() + "/seg.tif"
>>> dataset = gdal.GetDriverByName("GTiff").Create(path, 3, 1)
>>> _ = dataset.WriteRaster(0, 0, 3, 1, np.array([2, 2, 1], "u1").tobytes())
>>> dataset = None
>>> build(path).rows
3
>>> from gdalbridge import open_table
>>> open_table(path)["Histogram"][:].tolist()
[0, 1, 2]
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.report import Report
from gdalbridge.errors import BridgeError, OutputExistsError
from gdalbridge.gdalio.crs import units_of
from gdalbridge.gdalio.field_types import FieldUsage, usage_attributes
from gdalbridge.gdalio.pixels import Grid, Pixels, Window
from gdalbridge.progress import Progress, progress_of
from gdalbridge.rasters.checkpoint import (
    SECONDS,
    Checkpoint,
    checkpoint_place,
    job_input,
    pieces_of,
)
from gdalbridge.sidecars.merged import Columns, open_columns
from gdalbridge.sidecars.new_columns import JOB, NewColumn, new_columns, target_of
from gdalbridge.sidecars.pixel_rows import PixelRows, pixel_rows
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS, PROVENANCE_ATTR, STRING
from ratzarr.pipeline import PROCESSORS, in_threads

__all__ = ["BuildReport", "build"]

Array = NDArray[Any]

SPARSE_ROWS = 1_000_000
SPARSE_SHARE = 0.1
"""A table of more than SPARSE_ROWS rows is called sparse if a smaller share of them has pixels."""
EMPTY_ROWS = 10_000_000
EMPTY_SHARE = 0.001
"""A table of more than EMPTY_ROWS rows is refused if a smaller share of them has pixels."""
COUNT = "Histogram"


@dataclass(frozen=True, slots=True)
class BuildReport(Report):
    """The result of :func:`build`."""

    raster: str
    target: str
    """The table that was written."""
    rows: int
    values: int
    """Number of different pixel values."""
    columns: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    windows: int = 0
    """Windows of pixels."""
    windows_there: int = 0
    """Windows that an interrupted run had read."""

    def __str__(self) -> str:
        text = (
            f"{self.target}: {self.rows} rows of {self.values} values, "
            f"{', '.join(self.columns)}, {self.seconds:.2f} s"
        )
        if self.windows_there:
            text += f"; {self.windows_there} of {self.windows} windows were read before"
        return text + "".join(f"\n  {note}" for note in self.notes)


@dataclass(frozen=True, slots=True)
class _Part:
    """A window's values with their counts and extents."""

    values: Array
    count: NDArray[np.int64]
    extents: Mapping[str, Array]


def build(
    raster: Any,
    sidecar: Any = None,
    *,
    band: int = 1,
    name: str | None = None,
    sparse: bool | None = None,
    bbox: bool = False,
    centroid: bool = False,
    area: bool = False,
    colors: bool = True,
    recount: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint: float = SECONDS,
    threads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> BuildReport:
    """Make a raster's table from its pixels: one row for each value, with its number of pixels.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A raster of integers of 8 to 32 bits.
    sidecar : str or os.PathLike, optional
        The table to write; by default the raster's sidecar.
    band : int
        Counted from 1.
    name : str, optional
        Write a further table of this name.
    sparse : bool, optional
        True: one row for each value that occurs, in ascending order, with a column ``Value``.
        False: the row number is the value, up to the largest one. By default the same, but a table
        of more than 10 million rows of which fewer than one in a thousand have pixels is refused.
        Negative values need True.
    bbox : bool
        Add ``xmin``, ``ymin``, ``xmax``, ``ymax``: the bounding box, in the raster's coordinates.
    centroid : bool
        Add ``x`` and ``y``: the mean position of the pixels' centres.
    area : bool
        Add ``area`` in square units of the raster's coordinate reference system.
    colors : bool
        Add the colour table as ``Red``, ``Green``, ``Blue`` and ``Alpha``, and category names as
        ``Class_Name``, where the raster has them.
    recount : bool
        Only write ``Histogram`` of an existing table anew, by that table's rows.
    overwrite : bool
        Replace existing columns.
    resume : bool
        Continue an interrupted run of the same raster and options from its last checkpoint.
        Without one, start a new run.
    checkpoint : float
        Seconds between checkpoints, more if saving one takes longer than a twentieth of that; 0 for
        none. They are in a directory beside the table, named like it, until the run is complete.
    threads : int, optional
        Threads that read; by default the number of processors.
    storage_options, progress
        See :func:`gdalbridge.calc`.

    Returns
    -------
    BuildReport

    Raises
    ------
    BridgeError
        For pixels of another type, negative values without ``sparse``, or a table of empty rows.
        With ``resume`` also if the raster or an option is not that of the interrupted run; the
        message says which.
    OutputExistsError
        If the raster has such columns already. Nothing is written.
    CancelledError
        If the progress cancelled. After this, after Ctrl-C, and after an error of a disk or server,
        ``resume`` continues if there is a checkpoint. Otherwise, and after every other error, there
        are no new columns.
    """
    started = time.perf_counter()
    with ExitStack() as stack, progress_of(progress) as reporter:
        pixels = stack.enter_context(Pixels(raster, [band], storage_options))
        _check_type(pixels)
        columns = stack.enter_context(
            open_columns(
                raster, band=band, parts=False, may_be_empty=True, storage_options=storage_options
            )
        )
        rule = pixel_rows(columns) if recount else None
        if recount and not columns.by_name:
            raise BridgeError(
                f"{pixels.name} has no table to count again; build it without recount"
            )
        extents = frozenset(
            key for key, asked in (("bbox", bbox), ("centroid", centroid)) if asked and not recount
        )
        place = raster if sidecar is None else sidecar
        target = target_of(columns, place, band, name, storage_options)
        flags = {
            "sparse": sparse, "bbox": bbox, "centroid": centroid, "area": area, "colors": colors,
            "recount": recount,
        }  # fmt: skip
        windows = pixels.windows()
        job = {
            "inputs": [job_input(pixels)],
            "options": flags
            | {
                "band": band,
                "nodata": pixels.nodata[0],
                "rows of the pixels": None if rule is None else rule.digest(),
                "windows": f"{len(windows)} of {windows[0].width} x {windows[0].height}",
            },
        }
        names = [key for key, is_wanted in flags.items() if is_wanted]
        saving = Checkpoint(
            checkpoint_place(target, "build", names), job, checkpoint, storage_options
        )
        with saving:
            if resume:
                saving.resume(str(target))
            saved = saving["pixels"]
            there = 0 if saved is None else saved.state["windows"]
            mine = saving.digest if resume else None
            is_main = place is raster and name is None
            if is_main and not (overwrite or recount):
                # Before the pixels are read.
                _check_new(columns, [COUNT], mine)
            found = _collected(pixels, windows, rule, extents, threads, saving, reporter)
            specs, blocks, rows, notes = _contents(
                pixels, columns, found, rule,
                sparse=sparse, area=area and not recount, colors=colors and not recount,
                extents=extents, band=band,
            )  # fmt: skip
            if is_main and not (overwrite or recount):
                _check_new(columns, specs, mine)
            if name is not None:
                _check_rows(columns, rows)
            with new_columns(
                columns, place, specs, rows, operation="build", band=band, name=name,
                overwrite=overwrite or recount, resume=resume, job=saving.digest,
                keeps=saving.keeps, storage_options=storage_options,
            ) as writer:  # fmt: skip
                step = writer.chunk_rows * max(1, BLOCK_ROWS // writer.chunk_rows)
                for first in range(0, rows, step):
                    stop = min(first + step, rows)
                    writer.write({key: make(first, stop) for key, make in blocks.items()}, first)
                    reporter.report(0.9 + 0.1 * stop / rows, writer.path)
                path = writer.path
        reporter.report(1.0)
        return BuildReport(
            pixels.name, path, rows, len(found.values), tuple(specs),
            time.perf_counter() - started, tuple(notes), len(windows), there,
        )  # fmt: skip


def _check_type(pixels: Pixels) -> None:
    dtype = pixels.dtypes[0]
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        raise BridgeError(
            f"{pixels.name}: a table is built from integers of 8 to 32 bits, and the pixels are {dtype}"
        )


def _check_rows(columns: Columns, rows: int) -> None:
    """Refuse a further table with other rows than the raster's table."""
    if columns.by_name and columns.rows != rows:
        raise BridgeError(
            f"{columns.name} has a table of {columns.rows} rows, and the further one would have "
            f"{rows}: all tables beside a raster need the same rows. Give this one another "
            "path, such as other.rat.zarr"
        )


def _check_new(columns: Columns, names: Iterable[str], job: str | None) -> None:
    """Refuse columns that the raster has; not those that an interrupted run of a job completed."""
    taken = [
        key
        for key in names
        if key in columns.by_name
        and (job is None or _job_of(columns.by_name[key].attributes) != job)
    ]
    if taken:
        raise OutputExistsError(
            Advice(
                f"{columns.name} has a table with the column {taken[0]!r} already.",
                "Use overwrite=True to replace it, or recount=True to count its rows again.",
            )
        )


def _job_of(attributes: Mapping[str, Any]) -> Any:
    origin = attributes.get(PROVENANCE_ATTR)
    return origin.get(JOB) if isinstance(origin, Mapping) else None


# ---- reading


def _collected(
    pixels: Pixels,
    windows: Sequence[Window],
    rule: PixelRows | None,
    extents: frozenset[str],
    threads: int | None,
    saving: Checkpoint,
    reporter: Progress,
) -> _Part:
    """Return all values, or all rows, with their counts."""

    def load(window: Window) -> _Part:
        return _reduced(pixels, window, rule, extents)

    count = max(1, min(pixels.threads, threads or PROCESSORS))
    parts: list[_Part] = []
    done = pending = 0
    if (saved := saving["pixels"]) is not None:
        done = saved.state["windows"]
        parts = [_restored(saved.pieces())]
    with closing(in_threads(windows[done:], load, count)) as reading:
        for _, part in reading:
            parts.append(part)
            pending += len(part.values)
            # Joined when as much is new as is known: each value is touched a few times in all.
            if pending > 2 * len(parts[0].values) + 2**20:
                parts = [_joined(parts)]
                pending = 0
            done += 1
            if saving.is_due():
                parts, pending = [_joined(parts)], 0
                [part] = parts
                arrays = {"values": part.values, "count": part.count, **part.extents}
                saving.save("pixels", {"windows": done}, pieces_of(arrays))
            reporter.report(0.9 * done / len(windows), pixels.name)
    return _joined(parts)


def _restored(pieces: Iterator[tuple[str, Array]]) -> _Part:
    found: dict[str, list[Array]] = {}
    for name, values in pieces:
        found.setdefault(name, []).append(values)
    arrays = {name: np.concatenate(each) for name, each in found.items()}
    none = np.zeros(0, np.int64)
    return _Part(arrays.pop("values", none), arrays.pop("count", none), arrays)


def _reduced(
    pixels: Pixels, window: Window, rule: PixelRows | None, extents: frozenset[str]
) -> _Part:
    found = pixels.read(window)
    keep = np.ones(found.shape, np.bool_)
    if pixels.nodata[0] is not None:
        keep &= found != pixels.nodata[0]
    mask = pixels.valid(window)
    if mask is not None:
        keep &= mask
    values = found.astype(np.int64) if rule is None else rule.of(found)
    if rule is not None:
        keep &= values >= 0
    chosen = values[keep]
    if not len(chosen):
        return _Part(chosen, np.zeros(0, np.int64), {})
    low, span = int(chosen.min()), int(chosen.max()) - int(chosen.min()) + 1
    if span <= 4 * len(chosen):
        places = chosen - low
        count = np.bincount(places, minlength=span)
        there = np.flatnonzero(count)
        unique = there + low
    else:
        unique, places = np.unique(chosen, return_inverse=True)
        span = len(unique)
        count = np.bincount(places, minlength=span)
        there = np.arange(span)
    parts: dict[str, Array] = {}
    if extents:
        y, x = np.nonzero(keep)
        for key, at in (("column", x + window.x), ("line", y + window.y)):
            if "bbox" in extents:
                for end, function, start in (
                    ("min", np.minimum, np.iinfo(np.int64).max),
                    ("max", np.maximum, -1),
                ):
                    limit = np.full(span, start, np.int64)
                    function.at(limit, places, at)
                    parts[f"{key}_{end}"] = limit[there]
            if "centroid" in extents:
                # Exact: sums of a window's pixel numbers are far below 2**53.
                parts[f"{key}_sum"] = np.bincount(places, at, minlength=span)[there].astype(
                    np.int64
                )
    return _Part(unique, count[there], parts)


def _joined(parts: Sequence[_Part]) -> _Part:
    """Add up windows."""
    parts = [one for one in parts if len(one.values)]
    if not parts:
        return _Part(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([one.values for one in parts])
    order = np.argsort(values, kind="stable")
    values = values[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))

    def reduced(function: Any, arrays: Iterator[Array]) -> Array:
        found: Array = function.reduceat(np.concatenate(list(arrays))[order], starts)
        return found

    functions = {"min": np.minimum, "max": np.maximum, "sum": np.add}
    return _Part(
        values[starts],
        reduced(np.add, (one.count for one in parts)),
        {
            key: reduced(functions[key.rpartition("_")[2]], (one.extents[key] for one in parts))
            for key in parts[0].extents
        },
    )


# ---- the columns


def _contents(
    pixels: Pixels,
    columns: Columns,
    found: _Part,
    rule: PixelRows | None,
    *,
    sparse: bool | None,
    area: bool,
    colors: bool,
    extents: frozenset[str],
    band: int,
) -> tuple[dict[str, NewColumn], dict[str, Any], int, list[str]]:
    """Return the new columns, functions that return blocks of their rows, the rows, and notes."""
    values, notes = found.values, []
    if rule is not None:
        rows = columns.rows
        count_name = next((one.name for one in columns.by_name.values() if one.is_count), COUNT)
    elif sparse:
        rows, count_name = len(values), COUNT
    else:
        if len(values) and values[0] < 0:
            raise BridgeError(
                Advice(
                    f"{pixels.name} has negative pixels (the smallest is {values[0]}), and rows count "
                    "from 0.",
                    "Use sparse=True for a table with a column of values.",
                )
            )
        rows, count_name = int(values[-1]) + 1 if len(values) else 0, COUNT
        if sparse is None and rows > EMPTY_ROWS and len(values) < EMPTY_SHARE * rows:
            raise BridgeError(
                Advice(
                    f"{pixels.name} has {len(values)} values, the largest is {rows - 1}: with the "
                    f"value as the row number, the table would have {rows} rows.",
                    f"Use sparse=True for a table of {len(values)} rows with a column of values, "
                    f"or sparse=False for one of {rows} rows.",
                )
            )
        if rows > SPARSE_ROWS and len(values) < SPARSE_SHARE * rows:
            notes.append(
                f"{len(values)} of {rows} rows have pixels; sparse=True would make a table of "
                f"{len(values)} rows"
            )
    specs: dict[str, NewColumn] = {}
    blocks: dict[str, Any] = {}
    is_dense = rule is not None or not sparse

    def spread(of: Array, empty: Any) -> Any:
        """Return a function for blocks of rows; rows without pixels get ``empty``."""
        if not is_dense:
            return lambda first, stop: of[first:stop]

        def block(first: int, stop: int) -> Array:
            low, high = np.searchsorted(values, [first, stop])
            out = np.full(stop - first, empty, of.dtype)
            out[values[low:high] - first] = of[low:high]
            return out

        return block

    def add(key: str, array: Array, empty: Any, usage: FieldUsage, **attributes: Any) -> None:
        specs[key] = NewColumn(array.dtype, usage_attributes(usage) | attributes)
        blocks[key] = spread(array, empty)

    if not is_dense:
        add("Value", values, 0, FieldUsage.MIN_MAX)
    add(count_name, found.count, 0, FieldUsage.PIXEL_COUNT)
    if extents or area:
        _add_places(add, pixels.grid, found, extents, area)
    if colors:
        _add_looks(specs, blocks, pixels, band, None if is_dense else values)
    return specs, blocks, rows, notes


def _add_places(add: Any, grid: Grid, found: _Part, extents: frozenset[str], area: bool) -> None:
    transform = grid.transform or (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    x0, a, b, y0, c, d = transform
    units = units_of(grid.crs)
    of_units = {"units": units} if units else {}
    # Without a valid pixel there are no extents.
    parts = defaultdict(lambda: np.zeros(0, np.int64), found.extents)
    if "bbox" in extents:
        # The corners of the pixels' rectangle; for a rotated raster, the box around them.
        columns = [parts["column_min"], parts["column_max"] + 1]
        lines = [parts["line_min"], parts["line_max"] + 1]
        corners = [(i, j) for i in columns for j in lines]
        xs = np.array([x0 + a * i + b * j for i, j in corners]).reshape(4, -1)
        ys = np.array([y0 + c * i + d * j for i, j in corners]).reshape(4, -1)
        for key, values in (
            ("xmin", xs.min(0)), ("ymin", ys.min(0)), ("xmax", xs.max(0)), ("ymax", ys.max(0)),
        ):  # fmt: skip
            add(key, values, np.nan, FieldUsage.GENERIC, **of_units)
    if "centroid" in extents:
        column = parts["column_sum"] / found.count + 0.5
        line = parts["line_sum"] / found.count + 0.5
        add("x", x0 + a * column + b * line, np.nan, FieldUsage.GENERIC, **of_units)
        add("y", y0 + c * column + d * line, np.nan, FieldUsage.GENERIC, **of_units)
    if area:
        squared = {"units": f"{units}2"} if units else {}
        add("area", found.count * abs(a * d - b * c), 0.0, FieldUsage.GENERIC, **squared)


def _add_looks(
    specs: dict[str, NewColumn],
    blocks: dict[str, Any],
    pixels: Pixels,
    band: int,
    values: Array | None,
) -> None:
    """Add columns with the colours and category names that the raster has for pixel values.

    ``values`` has the pixel value of each row; None if that is the row number.
    """
    palette, categories = pixels.looks(band)

    def add(key: str, dtype: Any, looks: Array, usage: FieldUsage) -> None:
        """Add a column of ``looks``: entry ``i`` for pixel value ``i``, the last for any other."""

        def block(first: int, stop: int) -> Array:
            keys = np.arange(first, stop) if values is None else values[first:stop]
            inside = (keys >= 0) & (keys < len(looks))
            return looks[np.where(inside, keys, -1)]

        specs[key] = NewColumn(dtype, usage_attributes(usage))
        blocks[key] = block

    if palette is not None:
        for place, usage in enumerate(
            (FieldUsage.RED, FieldUsage.GREEN, FieldUsage.BLUE, FieldUsage.ALPHA)
        ):
            looks = np.append(palette[:, place], 0).astype(np.int32)
            add(usage.name.capitalize(), looks.dtype, looks, usage)
    if categories:
        names = np.array([*categories, ""], STRING)
        add("Class_Name", str, names, FieldUsage.NAME)
