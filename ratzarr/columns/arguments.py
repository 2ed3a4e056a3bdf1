"""Checks of the arguments of :class:`ratzarr.RatZarr`'s methods, and its HTML representation."""

import operator
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ratzarr.errors import ArgumentError

__all__ = [
    "column_options",
    "html",
    "integer",
    "seconds",
]


_OPTIONS = {"dtype", "width", "fillValue", "chunkSize", "attributes", "complete"}


def column_options(name: object, options: Any) -> dict[str, Any]:
    """Return the arguments for one column of :meth:`ratzarr.RatZarr.createColumns`."""
    if not isinstance(options, Mapping):
        return {"dtype": options}
    if "dtype" not in options or not set(options) <= _OPTIONS:
        raise ArgumentError(
            f"column {name!r}: expected a dtype, or a mapping with 'dtype' and optionally "
            f"{sorted(_OPTIONS - {'dtype'})}; got {list(options)!r:.200}"
        )
    return dict(options)


_BOOLS = (bool, np.bool_)
_REALS = (int, float, np.integer, np.floating)


def integer(value: Any, what: str, least: int | None, most: int | None) -> int:
    """Return an integer argument. NumPy integers are accepted; bools and floats are refused."""
    try:
        if isinstance(value, _BOOLS):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(
            f"{what} is an integer: got {value!r}, a {type(value).__name__}"
        ) from None
    too_small = least is not None and number < least
    if too_small or (most is not None and number > most):
        raise ArgumentError(f"{what} is an integer from {least} to {most}: got {number}")
    return number


def seconds(value: Any, what: str) -> float:
    """Return a time as an argument, which may be infinite."""
    if isinstance(value, _BOOLS) or not isinstance(value, _REALS) or not value >= 0:
        raise ArgumentError(f"{what} is a number of seconds, 0 or more: got {value!r:.100}")
    return float(value)


def html(title: str, columns: Sequence[tuple[str, str, int | str]]) -> str:
    """Return an HTML table of (name, dtype, width), with all names escaped."""
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(name)}</td><td>{escape(dtype)}</td>"
        f"<td>{width}</td></tr>"
        for name, dtype, width in columns
    )
    head = "<tr><th>column</th><th>dtype</th><th>width</th></tr>"
    return f"<div>{escape(title)}</div>" + (f"<table>{head}{rows}</table>" if rows else "")
