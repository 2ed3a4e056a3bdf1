"""Sum, mean and variance of blocks, put together afterwards. Pure.

Integers are added up as integers, of any size. Of floats a block's mean is made of numpy's
pairwise sum and corrected by the mean distance from it, and means of blocks are put
together with what each addition loses (Knuth's two-sum). The sum of squared distances from
the mean, M2, is that of each block about its own mean, and two are put together by the
updating formula of Chan, Golub and LeVeque (Algorithms for
computing the sample variance, The American Statistician 37, 1983):

    M2 = M2_a + M2_b + (mean_b - mean_a)**2 * a * b / (a + b)

a and b being the weights. The variance is M2 divided by the whole weight: that of the
values there are, as GDAL's STATISTICS_STDDEV, not an estimate from a sample.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatMoments", "IntMoments", "integer_sum"]

Array = NDArray[Any]
Counts = NDArray[np.int64]

SAFE = 2**63


def integer_sum(values: Array, weights: Counts | None) -> int:
    """Return the sum of integers, times their weights, exactly.

    >>> integer_sum(np.array([2**63, 2**63], np.uint64), None) == 2**64
    True
    """
    if not len(values):
        return 0
    largest = max(abs(int(values.min())), abs(int(values.max())))
    heaviest = 1 if weights is None else int(weights.max())
    if largest * heaviest * len(values) < SAFE:
        wide = values.astype(np.int64, copy=False)
        return int(wide.sum() if weights is None else np.dot(wide, weights))
    plain = values.tolist()
    return sum(plain) if weights is None else int(math.sumprod(plain, weights.tolist()))


def _squares(distances: Array, weights: Counts | None) -> float:
    """Return the sum of squares about the mean, of distances from what is close to it."""
    if weights is None:
        total, first = float(len(distances)), float(distances.sum())
        second = float((distances * distances).sum())
    else:
        heavy = weights.astype(np.float64)
        total, first = float(heavy.sum()), float((heavy * distances).sum())
        second = float((heavy * distances * distances).sum())
    return max(0.0, second - first * first / total) if math.isfinite(second) else second


@dataclass(slots=True)
class IntMoments:
    """Of integers: the sum is exact, the mean the nearest float64."""

    weight: int = 0
    sum: int = 0
    m2: float = 0.0

    def update(self, values: Array, weights: Counts | None) -> None:
        """Take in a block; weights are positive."""
        if not len(values):
            return
        weight = len(values) if weights is None else integer_sum(weights, None)
        total = integer_sum(values, weights)
        near = total // weight
        low, high = int(values.min()), int(values.max())
        if high - low < SAFE:
            # Differences that wrap around are right all the same, as they fit.
            wide = values.astype(np.int64, copy=False)
            pivot = np.array(near % 2**64, np.uint64).view(np.int64)
            distances = (wide - pivot).astype(np.float64)
        else:
            distances = values.astype(np.float64) - float(near)
        self.merge(type(self)(weight, total, _squares(distances, weights)))

    def merge(self, other: Self) -> None:
        """Take in another one's values."""
        if self.weight and other.weight:
            apart = float(Fraction(other.sum, other.weight) - Fraction(self.sum, self.weight))
            shared = float(Fraction(self.weight * other.weight, self.weight + other.weight))
            self.m2 += other.m2 + apart * apart * shared
        else:
            self.m2 += other.m2
        self.weight += other.weight
        self.sum += other.sum

    @property
    def mean(self) -> float | None:
        """The mean; None of no values."""
        return float(Fraction(self.sum, self.weight)) if self.weight else None

    @property
    def stddev(self) -> float | None:
        """The standard deviation; None of no values."""
        return math.sqrt(self.m2 / self.weight) if self.weight else None


@dataclass(slots=True)
class FloatMoments:
    """Of floats, none of them NaN. Infinities make what they make of IEEE's arithmetic."""

    weight: int = 0
    high: float = 0.0
    """The mean."""
    low: float = 0.0
    """What rounding has taken from it: means of blocks may differ by less than that."""
    m2: float = 0.0

    def update(self, values: Array, weights: Counts | None) -> None:
        """Take in a block; weights are positive."""
        if not len(values):
            return
        with np.errstate(all="ignore"):
            wide = values.astype(np.float64, copy=False)
            heavy = np.float64(1) if weights is None else weights.astype(np.float64)
            weight = len(values) if weights is None else integer_sum(weights, None)
            mean = float((wide * heavy).sum()) / weight
            if not math.isfinite(mean):
                # Perhaps only the sum is too large.
                mean = float((wide * (heavy / weight)).sum())
            distances = wide - mean
            low = float((distances * heavy).sum()) / weight
            m2 = _squares(distances, weights)
        self.merge(type(self)(weight, mean, low if math.isfinite(low) else 0.0, m2))

    def merge(self, other: Self) -> None:
        """Take in another one's values."""
        if not (self.weight and other.weight):
            if other.weight:
                self.high, self.low = other.high, other.low
            self.weight, self.m2 = self.weight + other.weight, self.m2 + other.m2
            return
        weight = self.weight + other.weight
        apart = (other.high - self.high) + (other.low - self.low)
        shared = float(Fraction(self.weight * other.weight, weight))
        self.m2 += other.m2 + apart * apart * shared
        if math.isfinite(apart):
            step = apart * (other.weight / weight)
            high = self.high + step
            part = high - self.high
            lost = (self.high - (high - part)) + (step - part)
            self.low += lost
            self.high = high
        else:
            mine, others = self.weight / weight, other.weight / weight
            self.high, self.low = self.high * mine + other.high * others, 0.0
        self.weight = weight

    @property
    def sum(self) -> float:
        """The sum."""
        return self.high * self.weight + self.low * self.weight if self.weight else 0.0

    @property
    def mean(self) -> float | None:
        """The mean; None of no values."""
        return self.high + self.low if self.weight else None

    @property
    def stddev(self) -> float | None:
        """The standard deviation; None of no values."""
        if not self.weight:
            return None
        return math.sqrt(self.m2 / self.weight) if self.m2 >= 0 else math.nan
