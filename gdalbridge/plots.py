"""Plots of a table's columns, drawn by matplotlib from what DuckDB has counted.

No column is loaded into memory: DuckDB scans the table and returns bins, classes or quantiles.
Single rows are drawn only where there are few of them.
"""

import json
import math
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError, OutputExistsError
from gdalbridge.gdalio.field_types import FieldUsage
from gdalbridge.sql.query import relation
from ratzarr import RatZarrError
from ratzarr.interop import TableMethods, required

__all__ = ["KINDS", "SUFFIXES", "plot", "save_plot"]

Array = NDArray[Any]

KINDS = ("bars", "box", "density", "histogram", "scatter")
SUFFIXES = (".pdf", ".png", ".svg")
BINS = 50
MAX_BINS = 1000
GRID = (100, 80)
"""Bins of the two axes of a density."""
TOP = 20
"""Classes that are drawn; the others are drawn together."""
TOP_SERIES = 8
"""Classes that are told apart by colour alone."""
SCATTER_ROWS = 5000
"""Rows that are drawn as single points."""
EXACT_ROWS = 2_000_000
"""Rows for which quartiles are exact: DuckDB needs memory for all values."""
DECADES = 3
"""Powers of ten between the smallest and the largest count that make an axis logarithmic."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NAME_CHARACTERS = 34
TITLE_INCHES = 0.088
"""Width of a character of the title, about."""
NAME_INCHES = 0.075
"""Width of a character of a class's name, about."""
BLUE, GREY, DARK = "#4477aa", "#bbbbbb", "#333333"
SERIES = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99",
)  # fmt: skip
"""Colours of classes that have none in the table; they differ for colour-blind readers, too."""
USAGES = {
    FieldUsage.RED: "red", FieldUsage.GREEN: "green", FieldUsage.BLUE: "blue",
    FieldUsage.ALPHA: "alpha",
}  # fmt: skip


def plot(
    table: TableMethods,
    place: str,
    column: str,
    by: str | None = None,
    *,
    ax: Any = None,
    kind: str | None = None,
    bins: Any = None,
    weights: str | bool | None = None,
    log: bool | None = None,
    top: int = TOP,
) -> Any:
    """Draw a column, alone or by another one; see :meth:`gdalbridge.Table.plot`."""
    drawing = _Drawing(table, place, column, by, kind, bins, weights, log, top)
    matplotlib = required("matplotlib", "plot", "plot()")
    drawing.prepare()
    if ax is None:
        pyplot = required(f"{matplotlib.__name__}.pyplot", "plot", "plot()")
        _, ax = pyplot.subplots(figsize=drawing.size, layout="constrained")
    drawing.draw(ax)
    return ax


def save_plot(
    table: TableMethods,
    place: str,
    out: str | os.PathLike[str],
    column: str,
    by: str | None = None,
    *,
    overwrite: bool = False,
    dpi: int = 150,
    **options: Any,
) -> Path:
    """Draw a column into a file, without a display.

    Parameters
    ----------
    table : Table
    place : str
        The raster or store, for the title.
    out : path
        Ends with .png, .svg or .pdf.
    column, by, **options
        See :meth:`gdalbridge.Table.plot`.
    overwrite : bool
        Replace an existing file.
    dpi : int
        Pixels per inch of a .png.

    Raises
    ------
    OutputExistsError
        If the file exists.
    BridgeError
        For another suffix, and as :meth:`gdalbridge.Table.plot`.
    """
    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise BridgeError(
            f"{path}: a plot is written as {', '.join(SUFFIXES)}: the suffix decides, got "
            f"{path.suffix!r}"
        )
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} already exists: pass overwrite=True to replace it")
    figures = required("matplotlib.figure", "plot", "plot()")
    given: dict[str, Any] = {
        "kind": None, "bins": None, "weights": None, "log": None, "top": TOP
    } | options  # fmt: skip
    drawing = _Drawing(table, place, column, by, **given)
    drawing.prepare()
    figure = figures.Figure(figsize=drawing.size, layout="constrained")
    drawing.draw(figure.add_subplot())
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with warnings.catch_warnings():
            # A character that the font lacks is drawn as a box.
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            figure.savefig(temporary, dpi=dpi)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


# ---- the columns


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a plot, and how queries write it."""

    name: str
    sql: str
    type: Any
    """Its Arrow type."""
    attributes: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """number, integer, time or class."""
        import pyarrow as pa

        kinds = pa.types
        if kinds.is_floating(self.type):
            return "number"
        if kinds.is_integer(self.type):
            return "class" if self.attributes.get("GDAL_USAGE") == FieldUsage.NAME else "integer"
        return "time" if kinds.is_temporal(self.type) else "class"

    @property
    def value(self) -> str:
        """SQL for the number on an axis; null where it can't be drawn."""
        if self.kind == "number":
            return f"CASE WHEN isfinite({self.sql}) THEN {self.sql}::DOUBLE END"
        if self.kind == "time":
            return f"epoch_us({self.sql}::TIMESTAMP)::HUGEINT"
        return f"{self.sql}::HUGEINT"

    @property
    def label(self) -> str:
        units = self.attributes.get("units")
        shown = _shown(self.name)
        return f"{shown} [{_shown(units)}]" if isinstance(units, str) and units else shown


class _Rows:
    """Queries over some columns of a table; in them, the columns are called ``c0``, ``c1``, ..."""

    def __init__(self, table: TableMethods, place: str, names: Sequence[str]) -> None:
        self.place = place
        self._table = table
        own = [self._split(name)[0] for name in names]
        self._renamed = {name: f"c{place}" for place, name in enumerate(dict.fromkeys(own))}
        self._scan = table.scan(list(self._renamed), rename=self._renamed)

    def _split(self, name: str) -> tuple[str, int | None]:
        """Return the column's name, and the number of the value for a name as ``ndvi[2]``."""
        whole, bracket, rest = name.rpartition("[")
        if name in self._table or not bracket or whole not in self._table:
            return name, None
        part = rest.removesuffix("]")
        return (whole, int(part)) if rest.endswith("]") and part.isdecimal() else (name, None)

    def column(self, name: str) -> _Column:
        """Return a column.

        Raises
        ------
        ConversionError
            If it can't be drawn.
        """
        import pyarrow as pa

        whole, part = self._split(name)
        found = self._scan.schema.field(self._renamed[whole])
        kind, sql = found.type, self._renamed[whole]
        if pa.types.is_fixed_size_list(kind):
            if part is None or part >= kind.list_size:
                raise ConversionError(
                    f"column {name!r} of {self.place} has {kind.list_size} values per row; draw one "
                    f"of them, such as {whole + '[0]'!r}"
                )
            kind, sql = kind.value_type, f"{sql}[{part + 1}]"
        if pa.types.is_binary(kind) and self._table[whole].dtype.kind == "O":
            raise ConversionError(
                f"column {name!r} of {self.place} has bytes, which can't be drawn"
            )
        return _Column(name, sql, kind, _attributes(found))

    def run(self, query: str, **tables: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query over ``rat``."""
        duckdb = required("duckdb", "plot", "plot()")
        try:
            found: list[tuple[Any, ...]]
            found = relation({"rat": self._scan, **tables}, query).fetchall()
        except (duckdb.Error, RuntimeError) as error:
            if isinstance(self._scan.error, (BridgeError, RatZarrError)):
                raise self._scan.error from None
            raise BridgeError(f"{self.place} can't be drawn: {error}") from error
        return found


def _attributes(found: Any) -> dict[str, Any]:
    """Return the attributes of a field of an Arrow schema."""
    attributes = {}
    for key, text in (found.metadata or {}).items():
        value = text.decode()
        with suppress(ValueError):
            value = json.loads(value) if key != b"units" else value
        attributes[key.decode()] = value
    return attributes


def _colour_columns(table: TableMethods) -> dict[str, str]:
    """Return the columns with the usages Red, Green, Blue and Alpha; none unless all colours are
    there.
    """
    found: dict[str, str] = {}
    for name in table.columns:
        try:
            schema = table.scan([name]).schema
        except RatZarrError:
            continue
        usage = _attributes(schema.field(0)).get("GDAL_USAGE")
        if usage in USAGES:
            found.setdefault(USAGES[FieldUsage(usage)], name)
    return found if {"red", "green", "blue"} <= found.keys() else {}


# ---- text


def _shown(text: Any, limit: int = NAME_CHARACTERS) -> str:
    """Return text in one line that matplotlib does not take for a formula."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    return line.replace("$", r"\$")


def _class_text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return str(value).lower()
    return _shown(value) if str(value).strip() else "(empty)"


def _distinct_texts(values: Sequence[Any]) -> list[str]:
    """Return class names; those that are equal after cutting show their end, too."""
    texts = [_class_text(value) for value in values]
    half = NAME_CHARACTERS // 2
    return [
        text
        if texts.count(text) == 1 or len(str(value)) <= NAME_CHARACTERS
        else _shown(f"{str(value)[: half - 1]}…{str(value)[-half:]}")
        for text, value in zip(texts, values, strict=True)
    ]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


# ---- what is drawn


@dataclass(slots=True)
class _Classes:
    """The most frequent values of a column."""

    column: _Column
    values: list[Any] = field(default_factory=list)
    counts: list[Any] = field(default_factory=list)
    """Rows, or their weight."""
    colours: list[tuple[float, ...] | None] = field(default_factory=list)
    """Of the table; None where it has none, or several for one class."""
    others: int = 0
    """Number of classes beyond these."""
    other_count: Any = 0

    @property
    def names(self) -> list[str]:
        """Texts of the classes, with the others as the last one."""
        names = _distinct_texts(self.values)
        return [*names, f"{_count(self.others, 'other class', 'other classes')}"][
            : len(names) + bool(self.others)
        ]

    def colour(self, place: int, default: str | None = None) -> Any:
        """Return the colour of a class; of the others, grey."""
        if place >= len(self.values):
            return GREY
        return self.colours[place] or default or SERIES[place % len(SERIES)]

    def table(self) -> Any:
        """Return the classes with their numbers, for joins."""
        import pyarrow as pa

        numbers = list(range(len(self.values)))
        return pa.table({"value": pa.array(self.values, self.column.type), "k": numbers})

    def joined(self, to: str = "rat", table: str = "top", number: str = "k") -> str:
        """Return SQL for the rows that have a class, with the class's number."""
        sql = self.column.sql
        return (
            f"(SELECT rat.*, coalesce({table}.k, {len(self.values)}) AS {number} FROM {to} AS rat "  # noqa: S608 - our own SQL
            f"LEFT JOIN {table} ON {sql} = {table}.value WHERE {sql} IS NOT NULL) AS rat"
        )


@dataclass(frozen=True, slots=True)
class _Axis:
    """The bins of an axis."""

    edges: Array
    """In the unit of the plot: date-times as matplotlib's days."""
    sql: str
    """SQL for the number of the bin of a value."""
    inside: str
    """SQL that is true for values in a bin."""

    @property
    def number(self) -> int:
        return len(self.edges) - 1


class _Drawing:
    """A plot: first its numbers are computed, then it is drawn."""

    def __init__(
        self, table: TableMethods, place: str, column: str, by: str | None, kind: str | None,
        bins: Any, weights: str | bool | None, log: bool | None, top: int,
    ) -> None:  # fmt: skip
        for library in ("pyarrow", "duckdb"):
            required(library, "plot", "plot()")
        if kind is not None and kind not in KINDS:
            raise BridgeError(f"kind is one of {', '.join(KINDS)}: got {kind!r}")
        if top < 1:
            raise BridgeError(f"top is the number of classes to draw, from 1: got {top}")
        if not len(table):
            raise BridgeError(f"the table has no rows, so column {column!r} can't be drawn")
        self._kind, self._bins, self._log, self._top = kind, bins, log, top
        self._weight_name = _weight_name(table, weights)
        self._is_pixels = weights is True
        self._colours = _colour_columns(table)
        asked = [column, *([] if by is None else [by]), *self._colours.values()]
        if self._weight_name is not None:
            asked.append(self._weight_name)
        self._rows = _Rows(table, place, asked)
        self._x = self._rows.column(column)
        self._y = None if by is None else self._rows.column(by)
        self._notes: list[str] = []
        self.size = (7.0, 4.6)
        self._name_length = 0
        self._draw: Any = None
        name = Path(self._rows.place.rstrip("/")).name.removesuffix(".rat.zarr")
        self._title = f"{_shown(name, 60)}: {_shown(column)}"
        self._title += "" if by is None else f" by {_shown(by)}"

    # ---- numbers

    def prepare(self) -> None:
        """Compute what will be drawn."""
        x, y = self._x, self._y
        self._check_weights()
        x_classes = self._classes(x)
        y_classes = None if y is None else self._classes(y)
        if y is None:
            if x_classes is not None:
                self._use("bars")
                self._draw = self._bars(x_classes)
            else:
                self._use("histogram")
                self._draw = self._histogram(x, None)
        elif x_classes is not None and y_classes is not None:
            self._use("bars")
            self._draw = self._stacked(x_classes, y_classes)
        elif x_classes is None and y_classes is None:
            self._draw = self._two_numbers(x, y)
        else:
            # A number by class, whichever of the two was named first.
            number, classes = (x, y_classes) if y_classes is not None else (y, x_classes)
            self._use("box", "histogram")
            if self._kind == "histogram":
                self._draw = self._histogram(number, classes)
            else:
                self._draw = self._boxes(number, classes)

    def _use(self, *possible: str) -> None:
        """Choose the kind of plot, by default the first that is possible."""
        if self._kind is None:
            self._kind = possible[0]
        if self._kind not in possible:
            what = repr(self._x.name) + ("" if self._y is None else f" by {self._y.name!r}")
            raise BridgeError(
                f"{what} can be drawn as {' or '.join(possible)}, not as {self._kind}"
            )
        if self._weight_name is not None and self._kind not in ("bars", "histogram"):
            raise BridgeError(f"weights are for bars and histograms, not for a {self._kind} plot")

    @property
    def _weight(self) -> str:
        """SQL for the count of rows, or the sum of their weights."""
        if self._weight_name is None:
            return "count(*)"
        return f"coalesce(sum({self._rows.column(self._weight_name).sql}), 0)"

    @property
    def _count_label(self) -> str:
        if self._weight_name is None:
            return "rows"
        return "pixels" if self._is_pixels else f"sum of {_shown(self._weight_name)}"

    def _check_weights(self) -> None:
        if self._weight_name is None:
            return
        weight = self._rows.column(self._weight_name)
        if weight.kind not in ("integer", "number"):
            raise ConversionError(f"column {weight.name!r} has no counts to weigh by")
        [(low, high)] = self._rows.run(f"SELECT min({weight.sql}), max({weight.sql}) FROM rat")  # noqa: S608 - our own SQL
        if low is None or low < 0 or not math.isfinite(high):
            raise ConversionError(
                f"weights are numbers from 0: column {weight.name!r} has values from {low} to {high}"
            )

    def _classes(self, column: _Column) -> _Classes | None:
        """Return a column's classes; None if its values are drawn as numbers."""
        if column.kind in ("number", "time") or (
            column.kind == "integer" and self._kind in ("histogram", "density", "scatter")
            and column is self._x
        ):  # fmt: skip
            return None
        if column.kind == "integer":
            [(distinct,)] = self._rows.run(f"SELECT approx_count_distinct({column.sql}) FROM rat")  # noqa: S608 - our own SQL
            if distinct > 2 * TOP:
                return None
        sql = column.sql
        extremes = "".join(
            f", min({one}), max({one})"
            for one in (self._rows.column(name).sql for name in self._colours.values())
        )
        found = self._rows.run(
            f"SELECT {sql} AS v, {self._weight} AS w, count(*) AS rows, count(*) OVER (), "  # noqa: S608 - our own SQL
            f"sum(w) OVER (), sum(rows) OVER () {extremes} FROM rat WHERE {sql} IS NOT NULL "
            f"GROUP BY v ORDER BY w DESC, v LIMIT {max(self._top, TOP + 1)}"
        )
        if not found:
            raise self._nothing(column, "all are missing")
        if column.kind == "integer" and found[0][3] > TOP:
            return None
        total, weight, rows = found[0][3:6]
        self._left_out(self._rows_there() - int(rows), f"without a {_shown(column.name)}")
        found = found[: self._top]
        if column.kind == "integer" or isinstance(found[0][0], bool):
            found.sort(key=lambda row: row[0])
        shown = sum(row[1] for row in found)
        return _Classes(
            column,
            [row[0] for row in found],
            [row[1] for row in found],
            [_colour(dict(zip(self._colours, _pairs(row[6:]), strict=True))) for row in found],
            total - len(found),
            weight - shown,
        )

    def _rows_there(self) -> int:
        [(rows,)] = self._rows.run("SELECT count(*) FROM rat")
        return int(rows)

    def _nothing(self, column: _Column, why: str) -> BridgeError:
        return BridgeError(
            f"column {column.name!r} of {self._rows.place} has no value to draw: {why}"
        )

    def _left_out(self, rows: int, why: str) -> None:
        if rows:
            self._notes.append(f"{_count(rows, 'row')} {why} left out")

    def _range(self, column: _Column) -> tuple[Any, Any]:
        """Return the smallest and the largest value that can be drawn; note what can't."""
        sql, value = column.sql, column.value
        strange = "isnan({0}), isinf({0})" if column.kind == "number" else "false, false"
        nan, infinite = strange.format(sql).split(", ")
        [(low, high, null, nans, infinities)] = self._rows.run(
            f"SELECT min({value}), max({value}), count(*) - count({sql}), "  # noqa: S608 - our own SQL
            f"count(*) FILTER ({nan}), count(*) FILTER ({infinite}) FROM rat"
        )
        reasons = {"missing": null, "NaN": nans, "infinite": infinities}
        if low is None:
            why = ", ".join(f"{number:,} {kind}" for kind, number in reasons.items() if number)
            raise self._nothing(column, why)
        of = "" if self._y is None else f" {_shown(column.name)}"
        for kind, number in reasons.items():
            self._left_out(number, f"with {kind}{of}")
        if column.kind == "time":
            edge = np.array([int(low), int(high)], "M8[us]").astype("M8[Y]").astype(int) + 1970
            if edge[0] < 1 or edge[1] > 9999:
                raise ConversionError(
                    f"column {column.name!r}: date-times from year {edge[0]} to {edge[1]} can't be "
                    "drawn, only years 1 to 9999"
                )
        return low, high

    def _axis(self, column: _Column, number: int, limits: tuple[Any, Any] | None = None) -> _Axis:
        """Return bins for a column."""
        low, high = self._range(column)
        value = column.value
        if limits is not None and column.kind != "time":
            low, high = limits
            if column.kind == "integer":
                low, high = math.ceil(low), math.floor(high)
        if column.kind == "number":
            if low == high:
                pad = max(0.5, abs(low) * 1e-6)
                low, high = low - pad, high + pad
            # In halves, because the difference of two doubles may exceed a double.
            width = (high / 2 - low / 2) / number
            sql = f"least(floor(({value} / 2 - {low / 2!r}::DOUBLE) / {width!r}::DOUBLE), {number - 1})"
            edges = np.linspace(low / 2, high / 2, number + 1) * 2
            inside = f"{value} BETWEEN {low!r}::DOUBLE AND {high!r}::DOUBLE"
            return _Axis(edges, sql, inside)
        low, high = int(low), int(high)
        # Bins of as many whole numbers each, or the picture shows stripes that the values lack.
        width = -(-(high - low + 1) // number)
        places = [low + width * k for k in range(-(-(high - low + 1) // width) + 1)]
        inside = f"{value} BETWEEN {low} AND {high}"
        sql = f"({value} - ({low})) // {width}"
        if column.kind == "time":
            dates = required("matplotlib.dates", "plot", "plot()")
            edges = dates.date2num(np.array(places, "M8[us]"))
        else:
            edges = np.array(places, np.float64) - 0.5
        return _Axis(edges, sql, inside)

    # ---- one column

    def _histogram(self, column: _Column, classes: _Classes | None) -> Any:
        number, limits = _number_of_bins(self._bins)
        axis = self._axis(column, number, limits)
        if classes is not None and len(classes.values) > TOP_SERIES:
            classes = self._fewer(classes, TOP_SERIES)
        source, tables = ("rat", {}) if classes is None else (
            classes.joined(), {"top": classes.table()},
        )  # fmt: skip
        series = "0" if classes is None else "k"
        counted = self._rows.run(
            f"SELECT {series}, CASE WHEN {axis.inside} THEN ({axis.sql})::BIGINT ELSE -1 END AS bin, "  # noqa: S608 - our own SQL
            f"{self._weight} FROM {source} WHERE {column.value} IS NOT NULL GROUP BY ALL",
            **tables,
        )
        counts = np.zeros((1 if classes is None else len(classes.names), axis.number))
        for one, place, count in counted:
            if place >= 0:
                counts[one, place] += float(count)
        outside = sum(count for _, place, count in counted if place < 0)
        if outside:
            self._notes.append(f"{outside:,} {self._count_label} outside the bins")
        if not counts.any():
            raise self._nothing(column, "no value is in the bins")

        def draw(ax: Any) -> None:
            # The tails of most distributions have single rows.
            is_log = self._is_log(counts, 0.25)
            if classes is None:
                ax.stairs(
                    counts[0], axis.edges, fill=True, color=BLUE, baseline=0.5 if is_log else 0,
                    edgecolor="white", linewidth=0.4,
                )  # fmt: skip
            else:
                for place, name in enumerate(classes.names):
                    ax.stairs(
                        counts[place], axis.edges, color=classes.colour(place), linewidth=1.8,
                        label=f" {name}" if name.startswith("_") else name,
                    )  # fmt: skip
                _legend(ax, classes.column.label)
            ax.set_xlim(axis.edges[0], axis.edges[-1])
            self._count_axis(ax, "y", counts, is_log)
            _value_axis(ax, "x", column)

        if classes is not None:
            self.size = (8.4, 4.6)
        return draw

    def _bars(self, classes: _Classes) -> Any:
        counts = np.array(
            [*classes.counts, *([classes.other_count] if classes.others else [])], "f8"
        )
        bars = counts.copy()
        if classes.others:
            self._notes.append(self._top_note(classes))
            if counts[-1] > 2 * counts[:-1].max():
                # Such a bar would make all others too short to read.
                bars[-1] = 0
                self._notes.append("no bar for the others")
        names = self._named(classes)
        self.size = (7.4, max(2.6, 1.4 + 0.29 * len(names)))

        def draw(ax: Any) -> None:
            places = np.arange(len(names))
            colours = [classes.colour(place, BLUE) for place in places]
            ax.barh(places, bars, color=colours, edgecolor=DARK, linewidth=0.5, height=0.78)
            _class_axis(ax, names)
            self._count_axis(ax, "x", bars, self._is_log(bars), 0.14)
            ax.set_ylabel(classes.column.label)
            # The numbers, since bars of rare classes can't be read off.
            left = ax.get_xlim()[0]
            for place, count in enumerate(counts):
                ax.annotate(
                    f"{count:,.0f}", (max(left, bars[place]), place), (4, 0),
                    textcoords="offset points", va="center", fontsize="x-small", color=DARK,
                )  # fmt: skip

        return draw

    def _named(self, classes: _Classes) -> list[str]:
        """Return the names of classes; the title keeps clear of them."""
        names = classes.names
        self._name_length = max(map(len, names))
        return names

    def _top_note(self, classes: _Classes) -> str:
        every = len(classes.values) + classes.others
        return f"the {len(classes.values)} most frequent of {every:,} classes, and the others"

    # ---- by class

    def _fewer(self, classes: _Classes, number: int) -> _Classes:
        """Return the most frequent classes only, and the others together."""
        order = sorted(range(len(classes.values)), key=lambda place: -classes.counts[place])
        kept = sorted(order[:number])
        found = _Classes(
            classes.column,
            [classes.values[place] for place in kept],
            [classes.counts[place] for place in kept],
            [classes.colours[place] for place in kept],
            classes.others + len(classes.values) - len(kept),
            classes.other_count + sum(classes.counts[place] for place in order[number:]),
        )
        self._notes.append(self._top_note(found))
        return found

    def _boxes(self, column: _Column, classes: _Classes) -> Any:
        self._range(column)
        # Joins and fine quantiles need no more digits than a picture.
        value = f"({column.value})::DOUBLE"
        [(rows,)] = self._rows.run(f"SELECT count({column.value}) FROM rat")  # noqa: S608 - our own SQL
        is_exact = rows <= EXACT_ROWS
        quantiles = "quantile_cont" if is_exact else "approx_quantile"
        found = {
            k: (rows, mean, many)
            for k, rows, mean, many in self._rows.run(
                f"SELECT k, count(v), avg(v), {quantiles}(v, {list(QUANTILES)}) "  # noqa: S608 - our own SQL
                f"FROM (SELECT k, {value} AS v FROM {classes.joined()}) "
                "WHERE v IS NOT NULL GROUP BY k",
                top=classes.table(),
            )
        }
        names = self._named(classes)
        places = [place for place in range(len(names)) if place in found]
        if not places:
            raise self._nothing(column, f"no row has one and a {classes.column.name!r}")
        if len(places) < len(names):
            number = len(names) - len(places)
            self._notes.append(f"{_count(number, 'class', 'classes')} without a value left out")
        if classes.others:
            self._notes.append(self._top_note(classes))
        about = "" if is_exact else ", approximately"
        self._notes.append(f"box: quartiles; line: 5 to 95 %{about}; dot: mean")
        self.size = (7.4, max(2.8, 1.6 + 0.31 * len(places)))

        def draw(ax: Any) -> None:
            scale = _day if column.kind == "time" else float
            boxes = []
            for place in places:
                _, mean, many = found[place]
                low, first, middle, third, high = map(scale, many)
                boxes.append(
                    {"whislo": low, "q1": first, "med": middle, "q3": third, "whishi": high,
                     "mean": scale(mean), "label": names[place]}
                )  # fmt: skip
            drawn = ax.bxp(
                boxes, positions=range(len(places)), orientation="horizontal", widths=0.62,
                showfliers=False, showmeans=True, patch_artist=True,
                boxprops={"edgecolor": DARK, "linewidth": 0.8},
                medianprops={"color": DARK, "linewidth": 1.6},
                meanprops={
                    "marker": "o", "markersize": 4.5, "markerfacecolor": "white",
                    "markeredgecolor": DARK,
                },
                whiskerprops={"color": DARK, "linewidth": 0.8},
                capprops={"color": DARK, "linewidth": 0.8},
            )  # fmt: skip
            for box, place in zip(drawn["boxes"], places, strict=True):
                box.set_facecolor(classes.colour(place, BLUE))
            _class_axis(
                ax, [f"{names[place]}  ({found[place][0]:,})" for place in places],
            )  # fmt: skip
            _value_axis(ax, "x", column)
            ax.grid(axis="x", color="#e5e5e5", linewidth=0.7)
            ax.set_ylabel(f"{classes.column.label} (rows)")

        return draw

    def _stacked(self, rows: _Classes, series: _Classes) -> Any:
        if len(series.values) > TOP_SERIES:
            series = self._fewer(series, TOP_SERIES)
        source = series.joined(rows.joined(table="first", number="i").removesuffix(" AS rat"))
        found = self._rows.run(
            f"SELECT i, k, {self._weight} FROM {source} GROUP BY ALL",  # noqa: S608 - our own SQL
            top=series.table(),
            first=rows.table(),
        )
        names, labels = self._named(rows), series.names
        counts = np.zeros((len(labels), len(names)))
        for i, k, count in found:
            counts[k, i] = float(count)
        if rows.others:
            self._notes.append(self._top_note(rows))
        self._name_length += 12
        self.size = (9.0, max(2.8, 1.4 + 0.29 * len(names)))

        def draw(ax: Any) -> None:
            places, left = np.arange(len(names)), np.zeros(len(names))
            for k, label in enumerate(labels):
                ax.barh(
                    places, counts[k], left=left, color=series.colour(k), height=0.78,
                    label=f" {label}" if label.startswith("_") else label, edgecolor="white",
                    linewidth=0.4,
                )  # fmt: skip
                left += counts[k]
            _class_axis(ax, names)
            self._count_axis(ax, "x", left, is_log=False)
            ax.set_ylabel(rows.column.label)
            _legend(ax, series.column.label)

        return draw

    # ---- two numbers

    def _two_numbers(self, x: _Column, y: _Column | None) -> Any:
        assert y is not None
        both = f"{x.value} IS NOT NULL AND {y.value} IS NOT NULL"
        [(rows,)] = self._rows.run(f"SELECT count(*) FROM rat WHERE {both}")  # noqa: S608 - our own SQL
        if not rows:
            for column in (x, y):
                self._range(column)
            raise self._nothing(x, f"no row has both it and {y.name!r}")
        self._use(*(("scatter", "density") if rows <= SCATTER_ROWS else ("density", "scatter")))
        horizontal, vertical = (self._axis(one, n) for one, n in zip((y, x), GRID, strict=True))
        if self._kind == "scatter":
            return self._scatter(x, y, both, rows)
        counts = np.zeros((vertical.number, horizontal.number))
        for i, k, count in self._rows.run(
            f"SELECT ({horizontal.sql})::BIGINT AS i, ({vertical.sql})::BIGINT AS k, count(*) "  # noqa: S608 - our own SQL
            f"FROM rat WHERE {both} GROUP BY ALL"
        ):
            counts[k, i] = count
        self._notes.insert(
            0, f"{_count(rows, 'row')} in {horizontal.number} × {vertical.number} bins"
        )

        def draw(ax: Any) -> None:
            colors = required("matplotlib.colors", "plot", "plot()")
            is_log = self._log if self._log is not None else counts.max() >= 100
            norm = colors.LogNorm(1, max(2, counts.max())) if is_log else colors.Normalize(0)
            mesh = ax.pcolormesh(
                horizontal.edges, vertical.edges, np.where(counts > 0, counts, np.nan),
                cmap="viridis", norm=norm, rasterized=True,
            )  # fmt: skip
            bar = ax.figure.colorbar(mesh, ax=ax, label="rows per bin", pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.yaxis.set_major_formatter(_count_formatter(counts.max()))
            _value_axis(ax, "x", y)
            _value_axis(ax, "y", x)

        return draw

    def _scatter(self, x: _Column, y: _Column, both: str, rows: int) -> Any:
        sample = f"USING SAMPLE reservoir({SCATTER_ROWS} ROWS) REPEATABLE (1)"
        points = self._rows.run(
            f"SELECT * FROM (SELECT ({y.value})::DOUBLE, ({x.value})::DOUBLE FROM rat WHERE {both}) "  # noqa: S608 - our own SQL
            f"{sample if rows > SCATTER_ROWS else ''}"
        )
        note = f"{_count(rows, 'row')}"
        if rows > SCATTER_ROWS:
            note = f"a sample of {_count(SCATTER_ROWS, 'row')} of {rows:,}"
        self._notes.insert(0, note)

        def draw(ax: Any) -> None:
            values = np.array(points, np.float64).T
            for place, column in enumerate((y, x)):
                if column.kind == "time":
                    values[place] /= 86_400e6
            dense = len(points) > 1000
            ax.scatter(
                *values, s=8 if dense else 18, alpha=0.45 if dense else 0.75, color=BLUE,
                linewidths=0,
            )  # fmt: skip
            _value_axis(ax, "x", y)
            _value_axis(ax, "y", x)

        return draw

    # ---- axes

    def draw(self, ax: Any) -> None:
        """Draw the plot."""
        self._draw(ax)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.set_axisbelow(True)
        lines = [self._title]
        if self._notes:
            notes = "; ".join(dict.fromkeys(self._notes))
            room = min(
                ax.get_position().width * ax.figure.get_figwidth(),
                self.size[0] - 0.6 - NAME_INCHES * self._name_length,
            )
            lines += textwrap.wrap(notes, max(30, round(room / TITLE_INCHES)))
        ax.set_title("\n".join(lines), fontsize=10.5, color=DARK)

    def _is_log(self, counts: Array, share: float = 0) -> bool:
        """Return True if counts span decades; ``share`` of them, the smallest, don't matter."""
        if self._log is not None:
            return self._log
        positive = counts[counts > 0]
        if not len(positive):
            return False
        return bool(positive.max() / np.quantile(positive, share) >= 10**DECADES)

    def _count_axis(
        self, ax: Any, which: str, counts: Array, is_log: bool, room: float = 0.05
    ) -> None:
        axis = ax.xaxis if which == "x" else ax.yaxis
        limits = ax.set_xlim if which == "x" else ax.set_ylim
        most = float(counts.max()) or 1.0
        if is_log:
            (ax.set_xscale if which == "x" else ax.set_yscale)("log")
            least = 0.5 * float(counts[counts > 0].min())
            limits(least, most * (most / least) ** room)
        else:
            tickers = required("matplotlib.ticker", "plot", "plot()")
            axis.set_major_locator(tickers.MaxNLocator(6, integer=True))
            limits(0, most * (1 + room))
        axis.set_major_formatter(_count_formatter(most))
        axis.set_label_text(self._count_label + (" (log scale)" if is_log else ""))
        ax.grid(axis=which, color="#e5e5e5", linewidth=0.7)


def _weight_name(table: TableMethods, weights: str | bool | None) -> str | None:
    if weights is None or weights is False:
        return None
    if isinstance(weights, str):
        return weights
    for name in table.columns:
        with suppress(RatZarrError):
            if _attributes(table.scan([name]).schema.field(0)).get("GDAL_USAGE") == 1:
                return name
    raise BridgeError(
        "no column has the usage PixelCount: give the name of the column with the weights"
    )


def _number_of_bins(given: Any) -> tuple[int, tuple[float, float] | None]:
    if given is None:
        return BINS, None
    limits = None
    number = given
    if isinstance(given, (tuple, list)) and len(given) == 3:
        number, limits = given[0], (float(given[1]), float(given[2]))
    is_number = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
    if not is_number or not 1 <= number <= MAX_BINS or (limits and not limits[0] < limits[1]):
        raise BridgeError(
            f"bins is a number from 1 to {MAX_BINS}, or (number, first edge, last edge): got "
            f"{given!r:.100}"
        )
    return int(number), limits


def _pairs(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _colour(extremes: Mapping[str, tuple[Any, Any]]) -> tuple[float, ...] | None:
    """Return a class's colour, from the smallest and the largest value of each part of it."""
    if any(low is None or low != high or not 0 <= low <= 255 for low, high in extremes.values()):
        return None
    parts = [part for part in USAGES.values() if part in extremes]
    return tuple(float(extremes[part][0]) / 255 for part in parts) or None


def _day(microseconds: Any) -> float:
    """Return a date-time in matplotlib's days since 1970."""
    return float(microseconds) / 86_400e6


def _count_formatter(most: float) -> Any:
    tickers = required("matplotlib.ticker", "plot", "plot()")
    if most >= 1e6:
        return tickers.EngFormatter(sep=" ")
    return tickers.StrMethodFormatter("{x:,.0f}")


def _value_axis(ax: Any, which: str, column: _Column) -> None:
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_label_text(column.label)
    if column.kind == "time":
        dates = required("matplotlib.dates", "plot", "plot()")
        locator = dates.AutoDateLocator()
        axis.set_major_locator(locator)
        axis.set_major_formatter(dates.ConciseDateFormatter(locator))
    elif column.kind == "integer":
        tickers = required("matplotlib.ticker", "plot", "plot()")
        axis.set_major_locator(tickers.MaxNLocator(7, integer=True))


def _class_axis(ax: Any, names: Sequence[str]) -> None:
    """Write the classes beside a vertical axis, the first on top."""
    ax.set_yticks(range(len(names)), names, fontsize="small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _legend(ax: Any, title: str) -> None:
    ax.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small",
        title_fontsize="small", borderaxespad=0,
    )  # fmt: skip
