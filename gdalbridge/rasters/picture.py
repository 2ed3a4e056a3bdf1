"""A picture of a column on a raster's pixels, with a legend."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.gdalio.crs import units_of
from gdalbridge.gdalio.pixels import Window
from gdalbridge.progress import Progress
from gdalbridge.rasters.painter import Painter, pixel_dtype, windows_of
from gdalbridge.rasters.shades import Shades, class_colors, limits_of, own_rgba
from gdalbridge.sql.bins import shown_text
from ratzarr.interop import required
from ratzarr.pipeline import in_threads

__all__ = ["draw"]

Array = NDArray[Any]

SIDE = 1200
"""Pixels of the raster's longer side that are drawn, at most."""
MOST_CLASSES = 20
"""Classes in a legend: those with the most pixels."""
INCHES, DPI = 8.0, 150
PAPER = "#f2f2f2"
"""Behind the map, where pixels have no value."""
LONG = 36
"""Characters of a class's name in the legend."""
LINE = 70
"""Characters of a name or a condition in the title."""


def draw(
    painter: Painter,
    column: str | None,
    made: Path,
    region: Window,
    *,
    cmap: str | None,
    limits: tuple[float, float] | None,
    where: str | None,
    threads: int | None,
    reporter: Progress,
) -> tuple[int, int, int]:
    """Draw a region into a new PNG file; the parameters are those of :func:`gdalbridge.paint`.

    Returns
    -------
    width, height : int
        Pixels of the raster that were drawn.
    painted : int
        Those with a value.
    """
    required("matplotlib", "plot", "a picture")
    from matplotlib.figure import Figure

    columns, has = _thinned(painter, region, threads, reporter)
    height, width = has.shape
    figure = Figure(figsize=_size(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor(PAPER)
    first = painter.values.columns[0]
    if column is None:
        colors = own_rgba(columns, has, [one.name for one in painter.values.columns])
        _show(axes, np.moveaxis(colors, 0, -1), painter, region)
    elif painter.classes or first.dtype.kind == "T":
        _draw_classes(figure, axes, painter, region, columns[0], has, cmap)
    else:
        pixel_dtype(first.dtype, column)
        shades = Shades(cmap or "viridis", limits or limits_of(columns[0][has]))
        colors = shades.rgba(columns[0], has)
        _show(axes, np.moveaxis(colors, 0, -1), painter, region)
        _add_bar(figure, axes, shades, columns[0][has], first)
    name = painter.pixels.name.rstrip("/").rpartition("/")[2]
    title = f"{shown_text(name, LINE)}: {shown_text(column or 'colours', LINE)}"
    axes.set_title(f"{title}\nwhere {_short(where, LINE)}" if where else title, fontsize=10)
    figure.savefig(made, format="png", bbox_inches="tight", pad_inches=0.1)
    # The last chance to cancel.
    reporter.report(1.0)
    return width, height, int(has.sum())


def _thinned(
    painter: Painter, region: Window, threads: int | None, reporter: Progress
) -> tuple[list[Array], NDArray[np.bool_]]:
    """Return the columns on evenly spaced pixels, and which of these have values."""
    step = max(1, -(-max(region.width, region.height) // SIDE))
    # Lines and columns are counted from the raster's first.
    left, top = (-(-start // step) for start in (region.x, region.y))
    right, bottom = (
        max(-(-stop // step), start + 1)
        for stop, start in (
            (region.x + region.width, left),
            (region.y + region.height, top),
        )
    )
    found: list[Array] = []
    has = np.zeros((bottom - top, right - left), np.bool_)

    def load(window: Window) -> Any:
        return painter.read(window, step)

    windows = windows_of(painter, region)
    for number, (window, (columns, there)) in enumerate(
        in_threads(windows, load, painter.threads(threads))
    ):
        if not found:
            found = [np.zeros(has.shape, one.dtype) for one in columns]
        y, x = -(-window.y // step) - top, -(-window.x // step) - left
        cut = (slice(y, y + there.shape[0]), slice(x, x + there.shape[1]))
        for whole, part in zip(found, columns, strict=True):
            whole[cut] = part
        has[cut] = there
        reporter.report(0.9 * (number + 1) / len(windows), painter.pixels.name)
    return found, has


def _size(width: int, height: int) -> tuple[float, float]:
    """Return the figure's size in inches: that of the map, with space for legend and title."""
    scale = INCHES / max(width, height)
    return max(3.5, width * scale) + 2.2, max(3.0, height * scale) + 0.9


def _show(axes: Any, colors: Array, painter: Painter, region: Window) -> None:
    transform, crs = painter.pixels.grid.transform, painter.pixels.grid.crs
    x, a, b, y, c, d = transform or (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    if b or c or transform is None:
        # A rotated raster is drawn in its own lines and columns.
        x, a, y, d = 0.0, 1.0, 0.0, 1.0
        axes.set_xlabel("column", fontsize=8)
        axes.set_ylabel("line", fontsize=8)
    else:
        units = units_of(crs)
        axes.set_xlabel(f"x ({units})" if units else "x", fontsize=8)
        axes.set_ylabel(f"y ({units})" if units else "y", fontsize=8)
    left, top = x + a * region.x, y + d * region.y
    extent = (left, left + a * region.width, top + d * region.height, top)
    # The pixels are not averaged: colours between those of two segments mean nothing.
    axes.imshow(colors, extent=extent, interpolation="nearest", aspect="equal", origin="upper")
    axes.tick_params(labelsize=7)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.locator_params(axis="x", nbins=5)
    for label in axes.get_yticklabels():
        label.set(rotation=90, va="center")


def _add_bar(figure: Any, axes: Any, shades: Shades, values: Array, column: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = shades.limits
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    below, above = (
        (bool((known < low).any()), bool((known > high).any())) if len(known) else (False, False)
    )
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(
        (below, above), "neither"
    )
    bar = figure.colorbar(
        ScalarMappable(Normalize(low, high), shades.map),
        ax=axes, extend=extend, shrink=0.8, aspect=30, pad=0.02,
    )  # fmt: skip
    units = column.attributes.get("units")
    label = shown_text(column.name, LINE)
    if isinstance(units, str) and units:
        label += f" ({shown_text(units)})"
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_classes(
    figure: Any,
    axes: Any,
    painter: Painter,
    region: Window,
    codes: Array,
    has: NDArray[np.bool_],
    cmap: str | None,
) -> None:
    from matplotlib.patches import Patch

    count = len(painter.classes)
    colors = painter.table_colors() if cmap is None else None
    if colors is None:
        name = cmap or ("tab10" if count <= 10 else "tab20" if count <= 20 else "gist_ncar")
        colors = np.zeros((count + 1, 4), np.uint8)
        colors[1:] = class_colors(name, count)
    shown = np.where(has, codes, 0)
    has &= shown > 0
    _show(axes, colors[shown], painter, region)
    pixels = np.bincount(shown.reshape(-1), minlength=count + 1)[1:]
    there = np.flatnonzero(pixels)
    most = there[np.argsort(-pixels[there], kind="stable")][:MOST_CLASSES]
    total = max(1, int(pixels.sum()))
    patches = [
        Patch(
            facecolor=colors[one + 1] / 255,
            edgecolor="#555555",
            linewidth=0.5,
            label=f"{_short(painter.classes[one], LONG)}  {_percent(pixels[one] / total)}",
        )
        for one in most
    ]
    if len(there) > len(most):
        patches.append(Patch(alpha=0, label=f"and {len(there) - len(most)} more"))
    axes.legend(
        handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0,
        fontsize=8, frameon=False, alignment="left",
        title=shown_text(painter.values.columns[0].name), title_fontsize=9,
    )  # fmt: skip
    longest = max((len(str(one.get_label())) for one in patches), default=0)
    wide, high = figure.get_size_inches()
    figure.set_size_inches(wide + 0.075 * longest, max(high, 0.17 * len(patches) + 1.0))


def _percent(share: float) -> str:
    return "<0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _short(text: str | None, most: int) -> str:
    text = " ".join((text or "").split())
    return shown_text(text if len(text) <= most else f"{text[: most - 3]}...", most)
