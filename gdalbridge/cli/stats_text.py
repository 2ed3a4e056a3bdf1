"""Column statistics as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gdalbridge.sql.stats import ColumnStats, Histogram
from gdalbridge.text_table import fitting, float_text, plain_text, text_table

__all__ = ["stats_text"]

SHORT = 20
"""Width of a cell, in the table of several columns."""

BAR = 40
"""Width of the longest bar of a histogram."""


def stats_text(
    found: Mapping[str, ColumnStats], *, full: bool = False, width: int | None = None
) -> str:
    """Return the result of :func:`gdalbridge.column_stats` as text.

    Parameters
    ----------
    found : mapping
        From :func:`gdalbridge.column_stats`.
    full : bool
        Write a paragraph with every statistic for each column. This is the default for a single
        column, and for histograms. By default several columns become one table with a line each.
    width : int, optional
        Width of a line of that table. Numbers that do not fit are left out, and the last line says
        so.
    """
    if not found:
        return "no columns"
    if full or len(found) == 1 or any(one.histogram is not None for one in found.values()):
        return "\n\n".join("\n".join(_lines(one)) for one in found.values())
    return _grid(list(found.values()), width)


def _grid(columns: Sequence[ColumnStats], width: int | None) -> str:
    named: dict[str, list[str]] = {
        "column": [_short(one.name) for one in columns],
        "count": [str(one.count) for one in columns],
        "missing": [str(one.missing or "") for one in columns],
        "min": [_short(one.min) for one in columns],
        "max": [_short(one.max) for one in columns],
        "mean": [_short(one.mean) for one in columns],
        "median": [_short(one.median) for one in columns],
        "stddev": [_short(one.stddev) for one in columns],
        "distinct": ["" if one.distinct is None else str(one.distinct) for one in columns],
        "weight": [str(one.weight) if one.weight != one.count else "" for one in columns],
    }
    named = {name: cells for name, cells in named.items() if any(cells)}
    names, rows = list(named), list(zip(*named.values(), strict=True))
    shown = fitting(names, rows, width)
    text = text_table(names[:shown], [row[:shown] for row in rows])
    left_out = f"{', '.join(names[shown:])}, " if shown < len(names) else ""
    return f"{text}\n--full shows {left_out}quantiles and frequent values, with all digits"


def _short(value: Any) -> str:
    """Return a value in a few characters."""
    if value is None:
        return ""
    text = float_text(value, 6) if isinstance(value, float) else str(value)
    return text if len(text) <= SHORT else text[: SHORT - 3] + "..."


def _lines(one: ColumnStats) -> Iterator[str]:
    line = f"{plain_text(one.name)} ({one.dtype}): {one.count} of {one.rows} rows"
    line += f", weight {one.weight}" if one.weight != one.count else ""
    line += f", {one.missing} missing" if one.missing else ""
    yield line
    rows = [
        (what, _text(value))
        for what, value in (
            ("min", one.min),
            ("max", one.max),
            ("sum", one.sum if one.true is None else None),
            ("mean", one.mean),
            ("stddev", one.stddev),
            ("true", one.true),
            ("empty", one.empty),
            ("shortest", one.min_length),
            ("longest", one.max_length),
            ("distinct", one.distinct),
        )
        if value is not None
    ]
    rows += [(f"quantile {each.q:g}", _text(each.value)) for each in one.quantiles]
    rows += [
        ("frequent", f"{_text(value)} ({weight})") for value, weight in (one.frequent or ())[:3]
    ]
    yield text_table(("", ""), rows).partition("\n")[2].partition("\n")[2]
    if one.histogram is not None:
        yield _bars(one.histogram)


def _text(value: Any) -> str:
    return float_text(value) if isinstance(value, float) else str(value)


def _bars(histogram: Histogram) -> str:
    most = max(histogram.counts, default=0) or 1
    rows = [
        (_text(low), _text(high), str(count), "#" * round(BAR * count / most))
        for low, high, count in zip(
            histogram.edges, histogram.edges[1:], histogram.counts, strict=False
        )
    ]
    return text_table(("from", "to", "count", ""), rows)
