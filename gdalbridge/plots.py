"""Plots of a table's columns, drawn by matplotlib from what DuckDB has counted.

No column is loaded into memory: DuckDB scans the table and returns bins, classes or quantiles.
Single rows are drawn only where there are few of them.
"""

import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.output import Output
from gdalbridge.sql.bins import Classes, Counts, DrawnColumn, count_text, shown_text
from ratzarr.interop import TableMethods, required

__all__ = ["KINDS", "SUFFIXES", "plot", "save_plot"]

Array = NDArray[Any]

KINDS = ("bars", "box", "density", "histogram", "scatter")
SUFFIXES = (".pdf", ".png", ".svg")
BINS = 50
MAX_BINS = 1000
GRID = (100, 80)
"""Number of bins of a density plot, along x and y."""
TOP = 20
"""Number of classes that are drawn; all others are drawn as one."""
TOP_SERIES = 8
"""Largest number of classes that differ only in colour."""
SCATTER_ROWS = 5000
"""Largest number of rows that are drawn as single points."""
EXACT_ROWS = 2_000_000
"""Up to this number of rows quartiles are exact; DuckDB needs memory for all values then."""
DECADES = 3
"""An axis is logarithmic if its counts span at least this many powers of ten."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TITLE_INCHES = 0.088
"""Approximate width of a character of the title."""
NAME_INCHES = 0.075
"""Approximate width of a character of a class name."""
BLUE, GREY, DARK = "#4477aa", "#bbbbbb", "#333333"
SERIES = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99",
)  # fmt: skip
"""Colours for classes without a colour in the table; colour-blind readers can tell them apart."""


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
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Draw a column into a file, without a display.

    Parameters
    ----------
    table : Table
    place : str
        The raster or store, for the title.
    out : str or os.PathLike
        The file: local, on S3, or at another URL that fsspec writes to. Its suffix is the format:
        .png, .svg or .pdf.
    column, by, **options
        See :meth:`gdalbridge.Table.plot`.
    overwrite : bool
        Replace an existing file.
    dpi : int
        Pixels per inch of a .png.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.

    Raises
    ------
    OutputExistsError
        If the file exists.
    BridgeError
        For another suffix, and as :meth:`gdalbridge.Table.plot`.
    """
    output = Output(out, overwrite, storage_options)
    suffix = Path(output.name).suffix
    if suffix.lower() not in SUFFIXES:
        raise BridgeError(
            f"{out}: a plot is written as {', '.join(SUFFIXES)}: the suffix decides, got {suffix!r}"
        )
    output.check()
    figures = required("matplotlib.figure", "plot", "plot()")
    given: dict[str, Any] = {
        "kind": None, "bins": None, "weights": None, "log": None, "top": TOP
    } | options  # fmt: skip
    drawing = _Drawing(table, place, column, by, **given)
    drawing.prepare()
    figure = figures.Figure(figsize=drawing.size, layout="constrained")
    drawing.draw(figure.add_subplot())
    with output.create(f"plot{suffix}") as made, warnings.catch_warnings():
        # A character that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(made, dpi=dpi)


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
        self._kind, self._bins, self._log, self._top = kind, bins, log, top
        self._is_pixels = weights is True
        asked = [column] if by is None else [column, by]
        self._counts = Counts(table, place, asked, weights)
        self._x = self._counts.column(column)
        self._y = None if by is None else self._counts.column(by)
        self.size = (7.0, 4.6)
        self._name_length = 0
        self._draw: Any = None
        name = Path(self._counts.place.rstrip("/")).name.removesuffix(".rat.zarr")
        self._title = f"{shown_text(name, 60)}: {shown_text(column)}"
        self._title += "" if by is None else f" by {shown_text(by)}"

    # ---- numbers

    def prepare(self) -> None:
        """Compute what will be drawn."""
        x, y = self._x, self._y
        self._counts.check_weights()
        classes = None
        if x.kind != "integer" or self._kind not in ("histogram", "density", "scatter"):
            classes = self._counts.classes(x, self._top)
        if y is None:
            self._use("histogram" if classes is None else "bars")
            self._draw = self._histogram(x, None) if classes is None else self._bars(classes)
            return
        others = self._counts.classes(y, self._top)
        if classes is None and others is None:
            self._draw = self._two_numbers(x, y)
        elif classes is not None and others is not None:
            self._use("bars")
            self._draw = self._stacked(classes, others)
        else:
            # A number by class, whichever of the two was named first.
            number, chosen = (x, others) if classes is None else (y, classes)
            assert chosen is not None  # noqa: S101 - one of the two is
            self._use("box", "histogram")
            draw = self._histogram if self._kind == "histogram" else self._boxes
            self._draw = draw(number, chosen)

    def _use(self, *possible: str) -> None:
        """Choose the kind of plot, by default the first that is possible."""
        if self._kind is None:
            self._kind = possible[0]
        if self._kind not in possible:
            what = repr(self._x.name) + ("" if self._y is None else f" by {self._y.name!r}")
            raise BridgeError(
                f"{what} can be drawn as {' or '.join(possible)}, not as {self._kind}"
            )
        if self._counts.weight_name is not None and self._kind not in ("bars", "histogram"):
            raise BridgeError(f"weights are for bars and histograms, not for a {self._kind} plot")

    @property
    def _count_label(self) -> str:
        if self._counts.weight_name is None:
            return "rows"
        return "pixels" if self._is_pixels else f"sum of {shown_text(self._counts.weight_name)}"

    # ---- one column

    def _histogram(self, column: DrawnColumn, classes: Classes | None) -> Any:
        number, limits = _number_of_bins(self._bins)
        axis = self._counts.axis(column, number, limits)
        edges = _edges(axis.edges)
        if classes is not None and len(classes.values) > TOP_SERIES:
            classes = classes.fewer(TOP_SERIES)
            self._counts.notes.append(classes.note)
        source = "rat" if classes is None else classes.numbered()
        series = "0" if classes is None else "k"
        counted = self._counts.run(
            f"SELECT {series}, CASE WHEN {axis.inside} THEN ({axis.sql})::BIGINT ELSE -1 END AS bin, "  # noqa: S608 - our own SQL
            f"{self._counts.weight} FROM {source} WHERE {column.value} IS NOT NULL GROUP BY ALL",
        )
        counts = np.zeros((1 if classes is None else len(classes.names), axis.number))
        for one, place, count in counted:
            if place >= 0:
                counts[one, place] += float(count)
        outside = sum(count for _, place, count in counted if place < 0)
        if outside:
            self._counts.notes.append(f"{outside:,} {self._count_label} outside the bins")
        if not counts.any():
            raise self._counts.nothing(column, "no value is in the bins")

        def draw(ax: Any) -> None:
            # The tails of most distributions have single rows.
            is_log = self._is_log(counts, 0.25)
            if classes is None:
                ax.stairs(
                    counts[0], edges, fill=True, color=BLUE, baseline=0.5 if is_log else 0,
                    edgecolor="white", linewidth=0.4,
                )  # fmt: skip
            else:
                for place, name in enumerate(classes.names):
                    ax.stairs(
                        counts[place], edges, color=_class_colour(classes, place), linewidth=1.8,
                        label=f" {name}" if name.startswith("_") else name,
                    )  # fmt: skip
                _legend(ax, classes.column.label)
            ax.set_xlim(edges[0], edges[-1])
            self._count_axis(ax, "y", counts, is_log)
            _value_axis(ax, "x", column)

        if classes is not None:
            self.size = (8.4, 4.6)
        return draw

    def _bars(self, classes: Classes) -> Any:
        counts = np.array(
            [*classes.counts, *([classes.other_count] if classes.others else [])], "f8"
        )
        bars = counts.copy()
        if classes.others:
            self._counts.notes.append(classes.note)
            if counts[-1] > 2 * counts[:-1].max():
                # Such a bar would make all others too short to read.
                bars[-1] = 0
                self._counts.notes.append("no bar for the others")
        names = self._named(classes)
        self.size = (7.4, max(2.6, 1.4 + 0.29 * len(names)))

        def draw(ax: Any) -> None:
            places = np.arange(len(names))
            colours = [_class_colour(classes, place, BLUE) for place in range(len(names))]
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

    def _named(self, classes: Classes) -> list[str]:
        """Return the names of classes; the title keeps clear of them."""
        names = classes.names
        self._name_length = max(map(len, names))
        return names

    # ---- by class

    def _boxes(self, column: DrawnColumn, classes: Classes) -> Any:
        self._counts.limits(column)
        value = f"({column.value})::DOUBLE"
        rows = self._counts.rows(f"{column.value} IS NOT NULL")
        is_exact = rows <= EXACT_ROWS
        quantiles = "quantile_cont" if is_exact else "approx_quantile"
        found = {
            k: (rows, mean, many)
            for k, rows, mean, many in self._counts.run(
                f"SELECT k, count(v), avg(v), {quantiles}(v, {list(QUANTILES)}) "  # noqa: S608 - our own SQL
                f"FROM (SELECT k, {value} AS v FROM {classes.numbered()}) "
                "WHERE v IS NOT NULL GROUP BY k",
            )
        }
        names = self._named(classes)
        places = [place for place in range(len(names)) if place in found]
        if not places:
            raise self._counts.nothing(column, f"no row has one and a {classes.column.name!r}")
        if len(places) < len(names):
            number = len(names) - len(places)
            self._counts.notes.append(
                f"{count_text(number, 'class', 'classes')} without a value left out"
            )
        if classes.others:
            self._counts.notes.append(classes.note)
        about = "" if is_exact else ", approximately"
        self._counts.notes.append(f"box: quartiles; line: 5 to 95 %{about}; dot: mean")
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
                box.set_facecolor(_class_colour(classes, place, BLUE))
            _class_axis(
                ax, [f"{names[place]}  ({found[place][0]:,})" for place in places],
            )  # fmt: skip
            _value_axis(ax, "x", column)
            ax.grid(axis="x", color="#e5e5e5", linewidth=0.7)
            ax.set_ylabel(f"{classes.column.label} (rows)")

        return draw

    def _stacked(self, rows: Classes, series: Classes) -> Any:
        if len(series.values) > TOP_SERIES:
            series = series.fewer(TOP_SERIES)
            self._counts.notes.append(series.note)
        source = series.numbered(rows.numbered(number="i").removesuffix(" AS rat"))
        found = self._counts.run(f"SELECT i, k, {self._counts.weight} FROM {source} GROUP BY ALL")  # noqa: S608 - our own SQL
        names, labels = self._named(rows), series.names
        counts = np.zeros((len(labels), len(names)))
        for i, k, count in found:
            counts[k, i] = float(count)
        if rows.others:
            self._counts.notes.append(rows.note)
        self._name_length += 12
        self.size = (9.0, max(2.8, 1.4 + 0.29 * len(names)))

        def draw(ax: Any) -> None:
            places, left = np.arange(len(names)), np.zeros(len(names))
            for k, label in enumerate(labels):
                ax.barh(
                    places, counts[k], left=left, color=_class_colour(series, k), height=0.78,
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

    def _two_numbers(self, x: DrawnColumn, y: DrawnColumn) -> Any:
        both = f"{x.value} IS NOT NULL AND {y.value} IS NOT NULL"
        rows = self._counts.rows(both)
        if not rows:
            for column in (x, y):
                self._counts.limits(column)
            raise self._counts.nothing(x, f"no row has both it and {y.name!r}")
        self._use(*(("scatter", "density") if rows <= SCATTER_ROWS else ("density", "scatter")))
        horizontal, vertical = (
            self._counts.axis(one, n) for one, n in zip((y, x), GRID, strict=True)
        )
        if self._kind == "scatter":
            return self._scatter(x, y, both, rows)
        counts = np.zeros((vertical.number, horizontal.number))
        for i, k, count in self._counts.run(
            f"SELECT ({horizontal.sql})::BIGINT AS i, ({vertical.sql})::BIGINT AS k, count(*) "  # noqa: S608 - our own SQL
            f"FROM rat WHERE {both} GROUP BY ALL"
        ):
            counts[k, i] = count
        self._counts.notes.insert(
            0, f"{count_text(rows, 'row')} in {horizontal.number} × {vertical.number} bins"
        )

        def draw(ax: Any) -> None:
            colors = required("matplotlib.colors", "plot", "plot()")
            is_log = self._log if self._log is not None else counts.max() >= 100
            norm = colors.LogNorm(1, max(2, counts.max())) if is_log else colors.Normalize(0)
            mesh = ax.pcolormesh(
                _edges(horizontal.edges), _edges(vertical.edges), np.where(counts > 0, counts, np.nan),
                cmap="viridis", norm=norm, rasterized=True,
            )  # fmt: skip
            bar = ax.figure.colorbar(mesh, ax=ax, label="rows per bin", pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.yaxis.set_major_formatter(_count_formatter(counts.max()))
            _value_axis(ax, "x", y)
            _value_axis(ax, "y", x)

        return draw

    def _scatter(self, x: DrawnColumn, y: DrawnColumn, both: str, rows: int) -> Any:
        sample = f"USING SAMPLE reservoir({SCATTER_ROWS} ROWS) REPEATABLE (1)"
        points = self._counts.run(
            f"SELECT * FROM (SELECT ({y.value})::DOUBLE, ({x.value})::DOUBLE FROM rat WHERE {both}) "  # noqa: S608 - our own SQL
            f"{sample if rows > SCATTER_ROWS else ''}"
        )
        note = f"{count_text(rows, 'row')}"
        if rows > SCATTER_ROWS:
            note = f"a sample of {count_text(SCATTER_ROWS, 'row')} of {rows:,}"
        self._counts.notes.insert(0, note)

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
        if self._counts.notes:
            notes = "; ".join(dict.fromkeys(self._counts.notes))
            room = min(
                ax.get_position().width * ax.figure.get_figwidth(),
                self.size[0] - 0.6 - NAME_INCHES * self._name_length,
            )
            lines += textwrap.wrap(notes, max(30, round(room / TITLE_INCHES)))
        ax.set_title("\n".join(lines), fontsize=10.5, color=DARK)

    def _is_log(self, counts: Array, share: float = 0) -> bool:
        """Return True if counts span :data:`DECADES`, without the smallest ``share`` of them."""
        positive = counts[counts > 0]
        if self._log is not None or not len(positive):
            return bool(self._log and len(positive))
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


def _number_of_bins(given: Any) -> tuple[int, tuple[float, float] | None]:
    if given is None:
        return BINS, None
    limits = None
    number = given
    if isinstance(given, (tuple, list)) and len(given) == 3:
        number, limits = given[0], (float(given[1]), float(given[2]))
    is_number = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
    is_range = limits is None or (limits[0] < limits[1] and np.isfinite(limits).all())
    if not is_number or not 1 <= number <= MAX_BINS or not is_range:
        raise BridgeError(
            f"bins is a number from 1 to {MAX_BINS}, or (number, first edge, last edge): got "
            f"{given!r:.100}"
        )
    return int(number), limits


def _day(microseconds: Any) -> float:
    """Return a date-time in matplotlib's days since 1970."""
    return float(microseconds) / 86_400e6


def _count_formatter(most: float) -> Any:
    tickers = required("matplotlib.ticker", "plot", "plot()")
    if most >= 1e6:
        return tickers.EngFormatter(sep=" ")
    return tickers.StrMethodFormatter("{x:,.0f}")


def _value_axis(ax: Any, which: str, column: DrawnColumn) -> None:
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


def _class_colour(classes: Classes, place: int, default: str | None = None) -> Any:
    """Return the colour of a class; of the others, grey."""
    if place >= len(classes.values):
        return GREY
    return classes.colours[place] or default or SERIES[place % len(SERIES)]


def _edges(values: Array) -> Array:
    """Return edges as matplotlib's numbers."""
    if values.dtype.kind != "M":
        return values
    dates = required("matplotlib.dates", "plot", "plot()")
    found: Array = dates.date2num(values)
    return found


def _legend(ax: Any, title: str) -> None:
    ax.legend(
        title=title, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small",
        title_fontsize="small", borderaxespad=0,
    )  # fmt: skip
