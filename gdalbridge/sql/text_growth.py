"""Upper bounds of the texts that an expression makes, for functions that lengthen their arguments.

DuckDB's memory limit does not count texts in vectors. So each call that can make a long text gets
an expression for an upper bound of its length in bytes. It is computed first, row by row, from the
arguments, with inner calls before outer ones.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError

__all__ = ["SLICE_BYTES", "bound", "grows", "limit", "slices"]

type Node = dict[str, Any]

MAX_MADE_BYTES = 2**20
"""Limit of a text whose length is given by an argument, as in repeat() and lpad()."""
MAX_CHANGED_BYTES = 16 * 2**20
"""Limit of a text derived from another text, as in replace(), because columns may hold long
texts."""
SLICE_BYTES = 32 * 2**20
"""Limit of the texts of rows that are computed together."""
NUMBER_CHARACTERS = 350
"""Largest number of digits of a float64."""

_BYTES = "strlen(CAST({} AS VARCHAR))"
_TIMES: dict[str, int] = {
    # Each byte may become this many bytes.
    "hex": 2, "to_hex": 2, "base64": 2, "to_base64": 2, "regexp_escape": 4, "strftime": 32,
}  # fmt: skip
_FORMATS = {"printf": "%", "format": "{"}


def grows(function: str) -> bool:
    """Return True if a function's result may be much longer than its arguments."""
    return function in _BOUNDS or function in _TIMES or function in _FORMATS


def limit(function: str) -> int:
    """Return the limit of a function's result in bytes."""
    changes = function in _TIMES or function in ("replace", "regexp_replace", "concat_ws")
    return MAX_CHANGED_BYTES if changes else MAX_MADE_BYTES


def bound(function: str, arguments: Sequence[Node], text: str) -> str:
    """Return SQL for an upper bound of a call's result, in bytes.

    Parameters
    ----------
    function : str
    arguments : sequence
        The trees of the arguments. In the SQL they are the columns ``a0``, ``a1``, ...
    text : str
        The whole expression, for messages.

    Raises
    ------
    BridgeError
        For a format that is computed, or that takes its widths from arguments.
    """
    names = [f"a{number}" for number in range(len(arguments))]
    if function in _FORMATS:
        sql = _of_format(function, arguments, text)
    elif function in _TIMES:
        sql = f"{_TIMES[function]}.0 * ({_sum(names)})"
    else:
        sql = _BOUNDS[function](names)
    # If an argument fails, the call itself will fail too, when it is computed.
    return f"TRY(CAST({sql} AS DOUBLE))"


def _sum(names: Sequence[str]) -> str:
    return " + ".join(f"coalesce({_BYTES.format(name)}, 0)" for name in names) or "0"


def _of_concat_ws(names: Sequence[str]) -> str:
    between = max(0, len(names) - 2)
    return f"{between}.0 * coalesce({_BYTES.format(names[0])}, 0) + {_sum(names[1:])}"


def _of_pad(names: Sequence[str]) -> str:
    # A character takes at most 4 bytes.
    return f"4.0 * greatest({names[1]}, 0)"


_BOUNDS: dict[str, Callable[[Sequence[str]], str]] = {
    "repeat": lambda n: f"{_BYTES.format(n[0])} * greatest(CAST({n[1]} AS DOUBLE), 0)",
    "lpad": _of_pad,
    "rpad": _of_pad,
    "replace": lambda n: (
        f"strlen({n[0]}) * greatest(1.0, strlen({n[2]}) / greatest(strlen({n[1]}), 1))"
    ),
    "regexp_replace": lambda n: f"(strlen({n[0]}) + 1.0) * (2.0 * strlen({n[2]}) + 1)",
    "concat_ws": _of_concat_ws,
    # The memory of the function's matrix, not of a text.
    "damerau_levenshtein": lambda n: f"8.0 * (strlen({n[0]}) + 3) * (strlen({n[1]}) + 3)",
}


def _of_format(function: str, arguments: Sequence[Node], text: str) -> str:
    literal = arguments[0].get("literal") if arguments else None
    if not isinstance(literal, dict) or literal.get("kind") != "STRING":
        raise BridgeError(
            f"{text!r}: the first argument of {function}() must be a quoted text, because it "
            "determines the length of the result"
        )
    given = str(literal.get("text", ""))
    sign = _FORMATS[function]
    nested = re.search(r"%[^a-zA-Z%]*\*" if sign == "%" else r"\{[^}]*\{", given.replace("{{", ""))
    if nested:
        raise BridgeError(
            f"{text!r}: {function}() can't take widths from arguments: write them into {given!r}"
        )
    widths = sum(int(number[:18]) for number in re.findall(r"[0-9]+", given))
    names = [f"a{number}" for number in range(1, len(arguments))]
    each = f"({NUMBER_CHARACTERS} + {_sum(names)})"
    return f"{4 * widths + len(given.encode())}.0 + {given.count(sign)}.0 * {each}"


def slices(weights: NDArray[np.float64]) -> list[slice]:
    """Split rows so that the texts of each piece take about :data:`SLICE_BYTES`.

    >>> slices(np.array([1.0, 40e6, 1.0, 1.0]))
    [slice(0, 1, None), slice(1, 4, None)]
    """
    numbers = (np.cumsum(weights) / SLICE_BYTES).astype(np.int64)
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(weights)], strict=True)]
