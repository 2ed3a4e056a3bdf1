"""How a table looks in a notebook."""

from collections.abc import Sequence
from html import escape

__all__ = ["html"]


def html(title: str, columns: Sequence[tuple[str, str, int | str]]) -> str:
    """Return a table of (name, dtype, width); names are data and are escaped."""
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(name)}</td><td>{escape(dtype)}</td>"
        f"<td>{width}</td></tr>"
        for name, dtype, width in columns
    )
    head = "<tr><th>column</th><th>dtype</th><th>width</th></tr>"
    return f"<div>{escape(title)}</div>" + (f"<table>{head}{rows}</table>" if rows else "")
