"""Tables and their values as text for terminals, and values as JSON."""

import math
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape
from typing import Any

import numpy as np

__all__ = [
    "GAP",
    "cell",
    "dtype_text",
    "fitting",
    "float_text",
    "html_table",
    "json_value",
    "kind_text",
    "plain_text",
    "terminal_width",
    "text_table",
]

GAP = "  "
"""Separator between the columns of a text table."""


def fitting(names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> int:
    """Return the number of text columns that fit into a line, at least two."""
    if width is None:
        return len(names)
    used = -len(GAP)
    for place, name in enumerate(names):
        used += len(GAP) + max(_width(cell(name)), *(_width(cell(row[place])) for row in rows), 0)
        if used > width and place >= 2:
            return place
    return len(names)


def plain_text(value: Any) -> str:
    """Return text without a terminal's control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _width(text: str) -> int:
    """Return the width of text in a terminal, where some characters are two wide, or none.

    >>> _width("größe"), _width("gro\u0308ße"), _width("森林")
    (5, 5, 4)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cell(value: Any) -> str:
    """Return a value as text for a cell, at most 40 characters wide; None as an empty text."""
    if value is None:
        return ""
    text = plain_text(float_text(value) if isinstance(value, float) else value)
    if _width(text) <= 40:
        return text
    text = text[:37]
    while _width(text) > 37:
        text = text[:-1]
    return text + "..."


def float_text(value: float, digits: int = 10) -> str:
    """Return a number with this many digits; whole numbers keep all of theirs."""
    if value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return f"{value:.{digits}g}"


def dtype_text(dtype: np.dtype[Any]) -> str:
    """Return the name of a column's dtype.

    >>> dtype_text(np.dtype("f4")), dtype_text(np.dtypes.StringDType())
    ('float32', 'str')
    """
    return {"T": "str", "O": "bytes"}.get(dtype.kind, str(dtype))


def kind_text(dtype: np.dtype[Any]) -> str:
    """Return what values a column of a dtype has, in words for messages.

    >>> kind_text(np.dtypes.StringDType()), kind_text(np.dtype("f4"))
    ('text', 'float32')
    """
    return "text" if dtype.kind == "T" else dtype_text(dtype)


def json_value(value: Any) -> Any:
    r"""Return a value as JSON has it: NaN and infinities as text, bytes in hexadecimal, NaT as null.

    >>> json_value([np.float32(0.1), float("nan"), b"\x01", np.datetime64("2020-01-02")])
    [0.1, 'nan', '01', '2020-01-02']
    """
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.float32 | np.float16):
        # The shortest digits of the float32; as a float64 it would have more.
        value = float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        # A number if its shortest digits are these, otherwise text.
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [json_value(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


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
    widths = [max(_width(row[i]) for row in cells) for i in range(len(names))]
    cells.insert(1, ["-" * width for width in widths])
    sides = right or [False] * len(names)
    return "\n".join(
        GAP.join(
            _padded(one, width, side) for one, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in cells
    )


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks


def html_table(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Return rows of cells under their names as HTML; parameters are those of :func:`text_table`."""
    sides = ["right" if one else "left" for one in right]
    lines = [
        "".join(
            f'<td style="text-align: {side}">{escape(cell(one))}</td>'
            for side, one in zip(sides, row, strict=True)
        )
        for row in rows
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def terminal_width() -> int | None:
    """Return the width of a line, if the output goes to a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns
