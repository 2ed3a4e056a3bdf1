"""Statistics of columns as text, for reading."""

from collections.abc import Iterator, Mapping
from typing import Any

from .columnstats import ColumnStats, Histogram
from .describe import text_table

__all__ = ["stats_text"]

BAR = 40
"""Characters of the longest bar of a histogram."""


def stats_text(found: Mapping[str, ColumnStats]) -> str:
    """Return what :func:`gdalbridge.column_stats` found, a paragraph for each column."""
    return "\n\n".join("\n".join(_lines(one)) for one in found.values()) or "no columns"


def _lines(one: ColumnStats) -> Iterator[str]:
    name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in one.name)
    line = f"{name} ({one.dtype}): {one.count} of {one.rows} rows"
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
    for each in one.quantiles:
        exact = each.lower == each.upper
        value = _text(each.value) if exact else f"{_text(each.lower)} to {_text(each.upper)}"
        rows.append((f"quantile {each.q:g}", value))
    for value, weight in (one.frequent or ())[:3]:
        rows.append(("frequent", f"{_text(value)} ({weight})"))
    yield text_table(("", ""), rows).partition("\n")[2].partition("\n")[2]
    if one.histogram is not None:
        yield _bars(one.histogram)


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _bars(histogram: Histogram) -> str:
    most = max(histogram.counts, default=0) or 1
    rows = [
        (_text(low), _text(high), str(count), "#" * round(BAR * count / most))
        for low, high, count in zip(
            histogram.edges, histogram.edges[1:], histogram.counts, strict=False
        )
    ]
    return text_table(("from", "to", "count", ""), rows)
