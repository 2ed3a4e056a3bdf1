"""Describe the losses of a table: one line per column, or one line for many columns.

>>> loss = ValueLoss("a", real=True)
>>> loss.add(3, np.array([0.1, 5]), np.array([0.2, 6]))
>>> loss_lines([loss], "10 values")
["column 'a', row 3: 0.1 became 0.2; 2 of 10 values changed in all"]
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.gdalio.field_types import type_name, usage_name
from gdalbridge.gdalio.rat_reader import RatColumn, RatSchema

__all__ = ["ValueLoss", "changed_reals", "description_loss", "loss_lines", "table_losses"]

DOUBLE = np.dtype(np.float64)
MAX_LINES = 5
"""Number of numeric columns with a line each; further ones are summarised in one line."""


class ValueLoss:
    """The changed values of one column, found block by block.

    Parameters
    ----------
    column : str
    real : bool
        True if GDAL's type is Real.
    """

    def __init__(self, column: str, real: bool) -> None:
        self.column, self.real = column, real
        self.changed = 0
        """Number of changed values."""
        self._first: tuple[int, str, str] | None = None

    def add(
        self,
        first_row: int,
        before: NDArray[Any],
        after: NDArray[Any],
        dtype: np.dtype[Any] = DOUBLE,
    ) -> None:
        """Compare rows; Reals as :func:`changed_reals` does."""
        differ = before != after
        if before.dtype.kind in "if" and after.dtype.kind == "f":
            differ = changed_reals(before, after, dtype)
        rows = np.flatnonzero(np.asarray(differ))
        self.changed += len(rows)
        if self._first is None and len(rows):
            row = rows[0]
            self._first = (first_row + int(row), _shown(before[row]), _shown(after[row]))

    def line(self, compared: str) -> str:
        """Return the loss as text; ``compared`` is the number of compared values, as text."""
        row, before, after = self._first or (0, "", "")
        text = f"column {self.column!r}, row {row}: {before} became {after}"
        if self.changed > 1:
            text += f"; {self.changed} of {compared} changed in all"
        return text


def _shown(value: Any) -> str:
    if isinstance(value, np.floating) and np.isnan(value) and np.signbit(value):
        return "-nan"
    return value.decode("utf-8", "replace") if isinstance(value, np.bytes_) else str(value)


def loss_lines(losses: Iterable[ValueLoss], compared: str) -> list[str]:
    """Return the losses as lines of text, without columns that have none."""
    losses = [loss for loss in losses if loss.changed]
    reals = [loss for loss in losses if loss.real]
    summed = reals if len(reals) > MAX_LINES else []
    lines = [loss.line(compared) for loss in losses if not (loss.real and summed)]
    if summed:
        names = ", ".join(repr(loss.column) for loss in summed)
        lines.append(
            f"values of {len(summed)} Real columns changed: {names}. First: "
            f"{summed[0].line(compared)}"
        )
    return lines


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


def description_loss(before: RatColumn, after: RatColumn) -> str | None:
    """Return the changes of a column's description in one line, or None.

    >>> description_loss(RatColumn(0, "n", 0, 1), RatColumn(0, "Histogram", 1, 1))
    "the type of column 'n' became Real, its name 'Histogram'"
    """
    changes = []
    if before.type != after.type:
        changes.append(("type", type_name(after.type)))
    if before.name != after.name:
        changes.append(("name", repr(after.name)))
    if before.usage != after.usage:
        changes.append(("usage", f"{usage_name(after.usage)}, it was {usage_name(before.usage)}"))
    if not changes:
        return None
    (what, now), *more = changes
    return f"the {what} of column {before.name!r} became {now}" + "".join(
        f", its {what} {now}" for what, now in more
    )


def table_losses(
    kind: int | None, binning: tuple[float, float] | None, now: RatSchema
) -> list[str]:
    """Return the changes of a table's type and linear binning, where it had them."""
    losses = []
    if binning is not None and repr(now.linear_binning) != repr(binning):
        losses.append(f"the linear binning became {now.linear_binning}, was {binning}")
    if kind is not None and now.table_type != kind:
        losses.append("the table's type was not kept")
    return losses
