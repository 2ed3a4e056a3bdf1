"""Describe the losses of a table: one line per column, or one line for many columns.

>>> loss_lines([ValueLoss("a", 3, "0.1", "0.2", 2, "10 values", real=True)])
["column 'a', row 3: 0.1 became 0.2; 2 of 10 values changed in all"]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.gdalio.field_types import type_name, usage_name

__all__ = ["ValueLoss", "changed_reals", "description_loss", "loss_lines"]

MAX_LINES = 5
"""Number of numeric columns with a line each; further ones are summarised in one line."""


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """Changed values of one column."""

    column: str
    row: int
    """The first changed row."""
    before: str
    after: str
    """The value of that row."""
    changed: int
    """Number of changed values."""
    compared: str
    """The number of compared values, as text."""
    real: bool
    """True if GDAL's type is Real."""


def loss_lines(losses: Sequence[ValueLoss]) -> list[str]:
    """Return the losses as lines of text."""
    reals = [loss for loss in losses if loss.real]
    summed = reals if len(reals) > MAX_LINES else []
    lines = [_line(loss) for loss in losses if not (loss.real and summed)]
    if summed:
        names = ", ".join(repr(loss.column) for loss in summed)
        lines.append(
            f"values of {len(summed)} Real columns changed: {names}. First: {_line(summed[0])}"
        )
    return lines


def _line(loss: ValueLoss) -> str:
    text = f"column {loss.column!r}, row {loss.row}: {loss.before} became {loss.after}"
    if loss.changed > 1:
        text += f"; {loss.changed} of {loss.compared} changed in all"
    return text


def changed_reals(
    before: NDArray[Any], after: NDArray[Any], dtype: np.dtype[Any]
) -> NDArray[np.bool_]:
    """Return which values differ as a floating dtype in any bit, including NaN payloads and -0.0.

    Parameters
    ----------
    dtype : numpy.dtype
        The original dtype. GDAL stores float32 as float64, and formats keep enough digits for a
        float32.
    """
    bits = f"u{dtype.itemsize}"
    # On both sides, a signalling NaN becomes a quiet one.
    with np.errstate(over="ignore", invalid="ignore"):
        one, other = (values.astype(dtype).view(bits) for values in (before, after))
    differ = np.asarray(one != other)
    if before.dtype == after.dtype:
        # A cast would make signalling NaNs quiet and truncate payloads, so compare without one.
        nans = np.isnan(before) & np.isnan(after)
        if nans.any():
            own = f"u{before.dtype.itemsize}"
            differ[nans] = before[nans].view(own) != after[nans].view(own)
    return differ


def description_loss(
    name: str, before: tuple[str, int, int], after: tuple[str, int, int]
) -> str | None:
    """Return the changes of a column's description in one line, or None.

    Parameters
    ----------
    name : str
        The column.
    before, after : tuple of (str, int, int)
        Name, and GDAL's numbers of type and usage.

    >>> description_loss("n", ("n", 0, 1), ("Histogram", 1, 1))
    "the type of column 'n' became Real, its name 'Histogram'"
    """
    changes = []
    if before[1] != after[1]:
        changes.append(("type", type_name(after[1])))
    if before[0] != after[0]:
        changes.append(("name", repr(after[0])))
    if before[2] != after[2]:
        changes.append(("usage", f"{usage_name(after[2])}, it was {usage_name(before[2])}"))
    if not changes:
        return None
    (what, now), *more = changes
    return f"the {what} of column {name!r} became {now}" + "".join(
        f", its {what} {now}" for what, now in more
    )
