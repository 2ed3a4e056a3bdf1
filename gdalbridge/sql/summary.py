"""A summary of a table: one row of exact statistics for each column."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.gdalio.field_types import usage_in, usage_name
from gdalbridge.progress import progress_of
from gdalbridge.sidecars.merged import Column, Columns
from gdalbridge.sql.query import needed
from gdalbridge.sql.stats import ColumnStats, stats_of
from gdalbridge.text_table import (
    GAP,
    cell,
    html_table,
    plain_text,
    terminal_width,
    text_table,
)

__all__ = ["ColumnSummary", "TableSummary", "summarize"]

Array = NDArray[Any]

DIGITS = 6
"""Significant digits of a float in the grid."""
TOP_CHARACTERS = 24
"""Length of a most frequent text in the grid."""


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """One column: its kind and its exact statistics."""

    name: str
    dtype: str
    usage: str
    """GDAL's usage, e.g. ``PixelCount``; empty if it has none."""
    units: str
    stats: ColumnStats

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values; NaN and infinities as text."""
        one, known = self.stats, self.stats.as_dict()
        top = known["frequent"][0] if _has_top(one) and one.frequent else (None, None)
        return {
            "column": self.name,
            "dtype": self.dtype,
            "usage": self.usage,
            "units": self.units,
            "rows": one.rows,
            "count": one.count,
            "missing": one.missing,
            "distinct": one.distinct,
            "top": top[0],
            "top_count": top[1],
            "min": known["min"],
            "mean": known["mean"],
            "median": None if not one.quantiles else known["quantiles"][0]["value"],
            "max": known["max"],
            "stddev": known["stddev"],
        }

    def cells(self) -> dict[str, str]:
        """Return the texts for the grid."""
        one = self.stats
        top = ""
        if _has_top(one) and one.frequent:
            value, times = one.frequent[0]
            shown = value.hex() if isinstance(value, bytes) else str(value)
            if len(shown) > TOP_CHARACTERS:
                shown = f"{shown[: TOP_CHARACTERS - 3]}..."
            top = f"{shown or "''"} ({times:,})"
        return {
            "column": self.name,
            "dtype": self.dtype,
            "usage": self.usage,
            "units": self.units,
            "count": _text(one.count),
            "missing": _text(one.missing),
            "distinct": _text(one.distinct),
            "top": top,
            "min": _text(one.min),
            "mean": _text(one.mean),
            "median": _text(one.median),
            "max": _text(one.max),
            "stddev": _text(one.stddev),
        }


def _has_top(one: ColumnStats) -> bool:
    """Return True for text and bytes, whose most frequent value says more than their extremes."""
    return one.min_length is not None


LEFT = frozenset(["column", "dtype", "usage", "units", "top"])
"""Columns of the grid that are aligned to the left; the others have numbers."""


@dataclass(frozen=True, slots=True)
class TableSummary:
    """One row of statistics for each column of a table.

    It prints as a grid, which is split into several if it is wider than the terminal.
    """

    place: str
    """The raster or the store."""
    rows: int
    columns: tuple[ColumnSummary, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return {
            "table": self.place,
            "rows": self.rows,
            "columns": [one.as_dict() for one in self.columns],
        }

    def as_csv(self) -> str:
        """Return the summary as CSV, with all digits; a statistic that does not exist is empty."""
        out = io.StringIO()
        names = list(self.as_dict()["columns"][0]) if self.columns else ["column"]
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(one.as_dict() for one in self.columns)
        return out.getvalue()

    def text(self, width: int | None = None) -> str:
        """Return the grid as text.

        Parameters
        ----------
        width : int, optional
            Width of a line. A wider grid continues below itself, with the columns' names again.
        """
        title = (
            f"{plain_text(Path(self.place).name)}: {self.rows:,} rows, {len(self.columns)} columns"
        )
        grid = self._grid()
        if not grid:
            return title
        wide = {
            name: max(len(cell(one)) for one in [name, *texts]) for name, texts in grid.items()
        }
        pieces: list[list[str]] = [[]]
        used, whole = 0, sum(len(GAP) + one for one in wide.values()) - len(GAP)
        for name in grid:
            room = len(GAP) + wide[name]
            # The statistics of numbers begin a grid of their own.
            splits = name == "min" or (len(pieces[-1]) > 1 and used + room > (width or 0))
            if width is not None and whole > width and splits:
                pieces.append(["column"])
                used = wide["column"]
            pieces[-1].append(name)
            used += room if used else wide[name]
        return "\n\n".join(
            [title, *(text_table(*_cells({one: grid[one] for one in piece})) for piece in pieces)]
        )

    def _grid(self) -> dict[str, list[str]]:
        """Return the texts of the grid by column; without columns that are empty throughout."""
        rows = [one.cells() for one in self.columns]
        names = list(rows[0]) if rows else []
        return {name: [row[name] for row in rows] for name in names if any(r[name] for r in rows)}

    def __str__(self) -> str:
        return self.text(terminal_width())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        title = f"{escape(self.place)}: {self.rows:,} rows, {len(self.columns)} columns"
        return f"<div>{title}</div>{html_table(*_cells(self._grid()))}"


def _cells(grid: Mapping[str, list[str]]) -> tuple[list[str], list[tuple[str, ...]], list[bool]]:
    """Return the names of columns, the rows, and which columns are aligned to the right."""
    return list(grid), list(zip(*grid.values(), strict=True)), [name not in LEFT for name in grid]


def _text(value: Any) -> str:
    """Return a statistic for people: thousands separated, few digits of floats.

    >>> _text(1234567), _text(1234.56789), _text(0.000012345), _text(None)
    ('1,234,567', '1,234.57', '1.2345e-05', '')
    """
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not math.isfinite(number) or number == 0:
            return f"{number:g}"
        size = math.floor(math.log10(abs(number)))
        if not -4 <= size < 15:
            return f"{number:.{DIGITS}g}"
        text = f"{number:,.{max(0, DIGITS - 1 - size)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, np.datetime64):
        day, _, time = str(value).partition("T")
        time = time.rstrip("0").rstrip(".") if "." in time else time
        return day if time.strip("0:") == "" else f"{day} {time}"
    return str(value)


def summarize(
    there: Columns, columns: Iterable[str] | None = None, *, progress: Any = None
) -> TableSummary:
    """Return the summary of an open table.

    Parameters
    ----------
    there : Columns
        The table.
    columns : iterable of str, optional
        Only these. A column with several values per row has a row for each of them: ``name[0]``,
        ...
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Raises
    ------
    ColumnSelectionError
        If a column does not exist.
    PackageMissingError
        If the extra ``sql`` is not installed.
    """
    needed()
    chosen = [part for one in _chosen(there, columns) for part in _parts(one)]
    with progress_of(progress) as reporter:
        stats = stats_of(there, chosen, reporter)
    return TableSummary(
        there.name,
        there.rows,
        tuple(
            ColumnSummary(
                one.name,
                stats[one.name].dtype,
                usage_name(usage_in(one.attributes)) if usage_in(one.attributes) else "",
                _units(one),
                stats[one.name],
            )
            for one in chosen
        ),
    )


def _chosen(there: Columns, columns: Iterable[str] | None) -> list[Column]:
    if columns is None or isinstance(columns, str):
        return there.chosen(columns)
    parts = {
        part.name: part for one in there.by_name.values() if one.width > 1 for part in _parts(one)
    }
    return [parts[name] if name in parts else there[name] for name in dict.fromkeys(columns)]


def _parts(column: Column) -> list[Column]:
    """Return a column as columns with one value per row."""
    if column.width == 1:
        return [column]
    return [
        replace(
            column,
            name=f"{column.name}[{part}]",
            load=_part_reader(column.read, part),
            part=part,
            width=1,
        )
        for part in range(column.width)
    ]


def _part_reader(read: Callable[[int, int], Array], part: int) -> Callable[[int, int], Array]:
    return lambda start, length: np.ascontiguousarray(read(start, length)[:, part])


def _units(column: Column) -> str:
    units = column.attributes.get("units")
    return units if isinstance(units, str) else ""
