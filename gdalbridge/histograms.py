"""Values counted in bins: each from its lower edge up to, but not including, its upper one.

The last bin has its upper edge too, as numpy's. Edges are float64; an integer is held
against them as the integer that it is, never rounded to a float first. Pure.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import BridgeError
from .moments import integer_sum
from .ranks import count_by

__all__ = ["MOST_BINS", "Bins", "Histogram", "HistogramCounter", "as_bins"]

Array = NDArray[Any]
Counts = NDArray[np.int64]

MOST_BINS = 2**20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Values counted in bins."""

    edges: tuple[float, ...]
    """One more than there are bins."""
    counts: tuple[int, ...]
    """Weights of the values in each."""
    below: int
    """Weights of the values below the first edge."""
    above: int
    """Weights of the values above the last edge."""


@dataclass(frozen=True, slots=True)
class Bins:
    """How many bins there are to be, and from where to where."""

    number: int
    low: float | None = None
    """The first edge; by default the smallest value that is not infinite."""
    high: float | None = None
    """The last edge; by default the largest value that is not infinite."""

    def __post_init__(self) -> None:
        if isinstance(self.number, bool) or not isinstance(self.number, int):
            raise BridgeError(f"a number of bins is an integer: got {self.number!r}")
        if not 1 <= self.number <= MOST_BINS:
            raise BridgeError(f"expected 1 to {MOST_BINS} bins: got {self.number}")
        if (self.low is None) != (self.high is None):
            raise BridgeError("a histogram has both a first and a last edge, or none is given")
        if self.low is not None and self.high is not None:
            fits = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
            if not fits:
                raise BridgeError(
                    f"expected a first edge below the last one: got {self.low} and {self.high}"
                )

    def edges(self, least: Any, most: Any) -> NDArray[np.float64]:
        """Return the edges, for values from ``least`` to ``most``."""
        low, high = self.low, self.high
        if low is None or high is None:
            low, high = float(least), float(most)
            if low == high:
                low, high = low - 0.5, high + 0.5
        if math.isfinite(high - low):
            return np.linspace(low, high, self.number + 1)
        return np.linspace(low / 2, high / 2, self.number + 1) * 2


def as_bins(given: Any) -> Bins | None:
    """Return what was asked for: a number of bins, or (number, first edge, last edge).

    Raises
    ------
    BridgeError
        For anything else.
    """
    if given is None or isinstance(given, Bins):
        return given
    if isinstance(given, int):
        return Bins(given)
    try:
        number, low, high = given
        return Bins(number, float(low), float(high))
    except (TypeError, ValueError):
        raise BridgeError(
            "a histogram is a number of bins, or (number, first edge, last edge): got "
            f"{given!r:.100}"
        ) from None


class HistogramCounter:
    """Counts values in bins, block by block.

    Parameters
    ----------
    bins : Bins
    dtype : numpy.dtype
        Of the values: integers or floats.
    least, most : scalar
        The smallest value and the largest, infinities left out.
    """

    def __init__(self, bins: Bins, dtype: np.dtype[Any], least: Any, most: Any) -> None:
        self.edges = bins.edges(least, most)
        self._low, self._high = float(self.edges[0]), float(self.edges[-1])
        self._inner: Array = self.edges[1:-1]
        if dtype.kind in "iu":
            least, most = int(least), int(most)
            # An integer is below an edge where it is below the next integer. What no value
            # comes up to is left out, as the dtype may not have it.
            whole = [max(least, math.ceil(edge)) for edge in self._inner.tolist()]
            self._inner = np.array([edge for edge in whole if edge <= most], dtype)
            self._low, self._high = math.ceil(self._low), math.floor(self._high)
            if bins.low is None:
                # The nearest float64 may lie beside the value that the edge is made of.
                self._low, self._high = least, most
        self.counts = np.zeros(len(self.edges) - 1, np.int64)
        self.below = self.above = 0

    def update(self, values: Array, weights: Counts | None) -> None:
        """Count values, none of them NaN; weights are positive."""
        below, above = values < self._low, values > self._high
        self.below += _weight(below, weights)
        self.above += _weight(above, weights)
        inside = ~(below | above)
        if not inside.all():
            values, weights = values[inside], None if weights is None else weights[inside]
        places = np.searchsorted(self._inner, values, side="right")
        self.counts += count_by(places, weights, len(self.counts))

    def merge(self, other: Self) -> None:
        """Count what another one has counted, in the same bins."""
        if not np.array_equal(self.edges, other.edges):
            raise BridgeError("counts in different bins can't be put together")
        self.counts += other.counts
        self.below += other.below
        self.above += other.above

    def result(self) -> Histogram:
        """Return what was counted."""
        return Histogram(
            tuple(self.edges.tolist()), tuple(self.counts.tolist()), self.below, self.above
        )


def _weight(chosen: NDArray[np.bool_], weights: Counts | None) -> int:
    if weights is None:
        return int(np.count_nonzero(chosen))
    return integer_sum(weights[chosen], None)
