"""Tables of text, for terminals."""

import shutil
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["GAP", "cell", "fitting", "float_text", "plain_text", "terminal_width", "text_table"]

GAP = "  "
"""Separator between the columns of a text table."""


def fitting(names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> int:
    """Return the number of text columns that fit into a line, at least two."""
    if width is None:
        return len(names)
    used = -len(GAP)
    for place, name in enumerate(names):
        used += len(GAP) + max(len(cell(name)), *(len(cell(row[place])) for row in rows), 0)
        if used > width and place >= 2:
            return place
    return len(names)


def plain_text(value: Any) -> str:
    """Return text without a terminal's control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def cell(value: Any) -> str:
    """Return a value as text for a cell, at most 40 characters; None as an empty text."""
    if value is None:
        return ""
    text = plain_text(float_text(value) if isinstance(value, float) else value)
    return text if len(text) <= 40 else text[:37] + "..."


def float_text(value: float, digits: int = 10) -> str:
    """Return a number with this many digits; whole numbers keep all of theirs."""
    if value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return f"{value:.{digits}g}"


def text_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool] | None = None
) -> str:
    """Return rows of cells under their names, aligned in columns.

    Parameters
    ----------
    names : sequence of str
    rows : sequence of sequences of str
    right : sequence of bool, optional
        True for each column that is aligned to the right. By default none.
    """
    cells = [[cell(name) for name in names], *[[cell(one) for one in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    cells.insert(1, ["-" * width for width in widths])
    align = [str.rjust if one else str.ljust for one in right or [False] * len(names)]
    return "\n".join(
        GAP.join(
            put(one, width) for put, one, width in zip(align, row, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def terminal_width() -> int | None:
    """Return the width of a line, if the output goes to a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns
