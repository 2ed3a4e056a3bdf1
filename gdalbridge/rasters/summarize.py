"""Segments, pixels, area and means of the classes in a raster's table.

>>> import tempfile
>>> import ratzarr
>>> from osgeo import gdal
>>> from gdalbridge import open_table
>>> path = tempfile.mkdtemp() + "/seg.tif"
>>> dataset = gdal.GetDriverByName("GTiff").Create(path, 4, 1)
>>> _ = dataset.SetGeoTransform((0, 10, 0, 0, 0, -10))
>>> dataset = None
>>> table = open_table(path)
>>> table["class"] = ["forest", "water", "forest"]
>>> table["ndvi"] = [0.5, 0.1, 0.9]
>>> table["Histogram"] = [1, 1, 2]
>>> table["Histogram"].attrs["GDAL_USAGE"] = 1
>>> print(summarize(path, "class", columns=["ndvi"]))
class   rows  pixels  area  share  ndvi_mean
------  ----  ------  ----  -----  ---------
forest     2       3   300   0.75   0.766667
water      1       1   100   0.25        0.1
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from gdalbridge.errors import BridgeError, ColumnSelectionError
from gdalbridge.gdalio.crs import units_of
from gdalbridge.gdalio.pixels import Pixels
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import progress_of
from gdalbridge.sidecars.merged import Column, Columns
from gdalbridge.sidecars.source import open_source
from gdalbridge.sql.query import Database, needed
from gdalbridge.sql.result import python_values
from gdalbridge.text_table import cell, float_text, html_table, json_value, kind_text, text_table

__all__ = ["ClassSummary", "summarize"]

STATS = {
    # A compensated sum of infinities would be NaN.
    "mean": (
        "CASE WHEN isfinite(fsum({weighted})) THEN fsum({weighted}) ELSE sum({weighted}) END "
        "/ fsum({pixels}) FILTER (WHERE {value} IS NOT NULL)"
    ),
    "min": "min({value})",
    "max": "max({value})",
}
"""The SQL of each statistic. NaN has become NULL in the column's values."""
NEGATIVE = "a number of pixels is negative"
DIGITS = 6
"""Significant digits of a float in the text."""
SHOWN_ROWS = 50
"""Number of classes that the text shows."""


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """A row for each class; made by :func:`summarize`. It prints as a table."""

    raster: str
    by: tuple[str, ...]
    """The columns whose values are the classes."""
    unit: str
    """The unit of the area, such as ``m2``; empty if the raster does not say."""
    table: Any
    """A ``pyarrow.Table``: the classes, ``rows``, ``pixels``, ``area``, ``share`` and the statistics."""

    def to_arrow(self) -> Any:
        """Return the summary as a ``pyarrow.Table``."""
        return self.table

    def to_pandas(self) -> Any:
        """Return the summary as a pandas DataFrame."""
        return self.table.to_pandas()

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-compatible values; NaN and infinities are text."""
        return {
            "raster": self.raster,
            "by": list(self.by),
            "area_unit": self.unit,
            "classes": [
                dict(zip(self.table.column_names, json_value(row), strict=True))
                for row in self._rows()
            ],
        }

    def as_csv(self) -> str:
        """Return the summary as CSV with all digits; a missing value is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.table.column_names)
        writer.writerows(json_value(row) for row in self._rows())
        return out.getvalue()

    @property
    def is_cut(self) -> bool:
        """True if the text does not show all classes."""
        return bool(self.table.num_rows > SHOWN_ROWS)

    def _rows(self) -> list[tuple[Any, ...]]:
        return list(zip(*(python_values(one) for one in self.table.columns), strict=True))

    def _cells(self) -> tuple[list[str], list[list[str]], list[bool]]:
        """Return the names and cells of the text, and which columns are aligned to the right."""
        import pyarrow as pa

        names = [
            f"area ({self.unit})" if name == "area" and self.unit else name
            for name in self.table.column_names
        ]
        rows = [[_text(value) for value in row] for row in self._rows()]
        if self.is_cut:
            rows = [*rows[:SHOWN_ROWS], ["..."] * len(names)]
        types = pa.types
        kinds = self.table.schema.types
        return names, rows, [types.is_integer(one) or types.is_floating(one) for one in kinds]

    def __str__(self) -> str:
        note = f"\n{SHOWN_ROWS} of {self.table.num_rows} classes" if self.is_cut else ""
        return text_table(*self._cells()) + note

    def _repr_html_(self) -> str:
        return html_table(*self._cells())


def summarize(
    raster: Any,
    by: str | Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    stats: Sequence[str] = ("mean",),
    band: int = 1,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> ClassSummary:
    """Count the segments, pixels and area of each class, and average columns over its pixels.

    The table alone is read, not the pixels: its column of usage PixelCount has their numbers. Rows
    without pixels are left out.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
    by : str or sequence of str
        The column whose values are the classes, or several for their combinations.
    columns : sequence of str, optional
        Columns of numbers or bools to take statistics of. By default none.
    stats : sequence of str
        ``mean`` (weighted by the pixels), ``min`` and ``max``. NaN and missing values don't count,
        and neither do their pixels. The results are called ``<column>_<stat>``.
    band : int
        Counted from 1.
    names, prefer, encoding, lossy
        See :func:`gdalbridge.open_table`.
    storage_options, progress
        See :func:`gdalbridge.calc`.

    Returns
    -------
    ClassSummary
        Prints as a table, in the order of the classes, a missing one last. ``area`` is in square
        units of the raster's coordinate reference system, and ``share`` is that of all pixels of
        the table.

    Raises
    ------
    ColumnSelectionError
        For a missing column, or if no column has the number of pixels.
    BridgeError
        For a column that is no class or not numbers, or negative numbers of pixels.
    """
    needed()
    groups = (by,) if isinstance(by, str) else tuple(by)
    with ExitStack() as stack:
        reporter = stack.enter_context(progress_of(progress))
        there, source = open_source(
            raster, band=band, names=names, prefer=prefer, storage_options=storage_options,
            options=ReadOptions(encoding, lossy),
        )  # fmt: skip
        stack.enter_context(there)
        pixels = stack.enter_context(Pixels(raster, [band], storage_options))
        chosen = _chosen(there, groups, columns, stats, pixels.name)
        from ratzarr.interop import TableDataset

        # Names of our own, because SQL does not tell apart names that differ only in case.
        short = {name: f"c{place}" for place, name in enumerate(chosen)}
        dataset = TableDataset(source, chosen, rename=short)
        query, titles = _query(there, groups, columns or (), stats, short, pixels)
        reporter.report(0.0, pixels.name)
        found = _run(dataset, query).rename_columns(titles)
        reporter.report(1.0, pixels.name)
        units = units_of(pixels.grid.crs)
        return ClassSummary(pixels.name, groups, f"{units}2" if units else "", found)


def _chosen(
    there: Columns,
    groups: Sequence[str],
    columns: Sequence[str] | None,
    stats: Sequence[str],
    raster: str,
) -> list[str]:
    """Return the columns to read, the last one being that of the pixels; check all of them."""
    if not groups:
        raise BridgeError("by names no column")
    if isinstance(columns, str) or isinstance(stats, str):
        raise BridgeError("columns and stats are lists of names: got a string")
    for stat in stats:
        if stat not in STATS:
            raise BridgeError(f"there is no statistic {stat!r}: expected {', '.join(STATS)}")
    for name in groups:
        _check_single(there, there[name])
    for name in columns or ():
        one = there[name]
        _check_single(there, one)
        if one.dtype.kind not in "iufb":
            raise BridgeError(
                f"{there.name}: column {name!r} is {kind_text(one.dtype)}, and only numbers have a "
                f"{' or a '.join(stats)}"
            )
    count = next((one for one in there.by_name.values() if one.is_count), None)
    if count is None:
        raise ColumnSelectionError(
            f"{there.name} has no column of pixel counts, whose usage is PixelCount. Count the "
            f"pixels with: gdalbridge build {raster} --recount"
        )
    if count.dtype.kind not in "iuf" or count.width != 1:
        raise BridgeError(
            f"{there.name}: column {count.name!r} is {kind_text(count.dtype)}, and its usage is PixelCount: "
            "expected numbers"
        )
    return list(dict.fromkeys([*groups, *(columns or ()), count.name]))


def _check_single(there: Columns, one: Column) -> None:
    if one.width != 1:
        raise BridgeError(f"{there.name}: column {one.name!r} has {one.width} values per row")


def _query(
    there: Columns,
    groups: Sequence[str],
    columns: Sequence[str],
    stats: Sequence[str],
    short: Mapping[str, str],
    pixels: Pixels,
) -> tuple[str, list[str]]:
    """Return the query, and the names of its columns."""
    count = next(one for one in there.by_name.values() if one.is_count)
    keys = [short[name] for name in groups]
    weight = short[count.name]
    # 128 bits: no sum of integers overflows.
    total = f"sum({weight})" if count.dtype.kind in "iu" else f"fsum({weight})"
    transform = pixels.grid.transform or (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    area = abs(transform[1] * transform[5] - transform[2] * transform[4])
    chosen = [
        *keys,
        "count(*)",
        f"CAST({total} AS {'BIGINT' if count.dtype.kind in 'iu' else 'DOUBLE'})",
        f"CAST({total} AS DOUBLE) * {area!r}",
        f"CAST({total} AS DOUBLE) / sum(CAST({total} AS DOUBLE)) OVER ()",
    ]
    titles = [*groups, "rows", "pixels", "area", "share"]
    for name in dict.fromkeys(columns):
        value = short[name]
        if there[name].dtype.kind == "f":
            value = f"(CASE WHEN isnan({value}) THEN NULL ELSE {value} END)"
        weighted = f"CAST({value} AS DOUBLE) * {weight}::DOUBLE"
        for stat in dict.fromkeys(stats):
            chosen.append(
                STATS[stat].format(value=value, weighted=weighted, pixels=f"{weight}::DOUBLE")
            )
            titles.append(f"{name}_{stat}")
    for title in titles:
        if titles.count(title) > 1:
            raise BridgeError(f"two columns of the summary would be called {title!r}")
    order = [f"{key} ASC NULLS LAST" for key in keys]
    # DuckDB sorts NaN above all numbers.
    there_are = f"{weight} > 0" + (f" AND NOT isnan({weight})" if count.dtype.kind == "f" else "")
    query = (
        f"SELECT {', '.join(f'{one} AS r{place}' for place, one in enumerate(chosen))} FROM rat "  # noqa: S608 - numbers and our own names
        f"WHERE CASE WHEN {weight} < 0 THEN error('{NEGATIVE}') ELSE {there_are} END "
        f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(order)}"
    )
    return query, titles


def _run(dataset: Any, query: str) -> Any:
    with Database({"rat": dataset}) as database:
        return database.run(database.relation(query).to_arrow_table)


# ---- values


def _text(value: Any) -> str:
    """Return a value for a cell."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return float_text(value, DIGITS)
    if isinstance(value, bytes):
        value = value.hex()
    return cell(value)
