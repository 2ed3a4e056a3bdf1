"""Statistics of pixels by row, accumulated window by window.

Each window is first reduced to one result per row, in any thread. The results are then added to the
accumulators in the order of the windows, so that the outcome does not depend on the threads.

Counts are exact, and so are sums of integers: 64-bit integers are added up in two halves of 32
bits. An integer result that its column can't hold is an error. Variances of integers of up to 16
bits come from exact sums of squares. For all other types, each window's variance comes from the
deviations from its mean, and windows are combined by the formula of Chan, Golub and LeVeque
(Updating formulae and a pairwise algorithm for computing sample variances, 1979).

With weights, each pixel counts as often as its weight says, except in the count, the minimum and
the maximum. Sums are then floats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError

__all__ = [
    "MOMENTS",
    "Accumulator",
    "Groups",
    "Reduced",
    "as_column",
    "missing_of",
    "result_dtype",
]

Array = NDArray[Any]
Rows = NDArray[np.int64]

MOMENTS = frozenset(
    {"count", "weight", "sum", "mean", "stddev", "variance", "min", "max", "range"}
)
"""Statistics that are accumulated in one pass."""
SPARSE = 4
"""A window is reduced in arrays with one element for each number from its smallest to its largest
row, if that is at most this many times the number of its pixels."""
WEIGHTED = frozenset({"weight", "sum", "mean", "stddev", "variance"})
"""The statistics that weights change."""
EXACT_PIXELS = 2**20
"""This many 32-bit integers, or products of two 16-bit integers, add up exactly in float64."""
HALF = 32
"""Number of bits in the lower half of a 64-bit integer."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """A window's statistics; each array has one element for each of ``rows``."""

    rows: Rows
    count: NDArray[np.int64]
    parts: Mapping[str, Array]


class Groups:
    """The pixels of a window, grouped by row. Bands with the same valid pixels share one object.

    Parameters
    ----------
    rows : ndarray of int64
        The row of each pixel that counts.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows, self.count = rows, np.zeros(0, np.int64)
        self._span = 0
        if not len(rows):
            return
        low, high = int(rows.min()), int(rows.max())
        self._span = high - low + 1
        found = None
        if self._span <= max(SPARSE * len(rows), 4096):
            self._places = rows - low
        else:
            found, self._places = np.unique(rows, return_inverse=True)
            self._span = len(found)
        self._counts = np.bincount(self._places, minlength=self._span)
        self._there = np.flatnonzero(self._counts)
        self.rows = low + self._there if found is None else found[self._there]
        self.count = self._counts[self._there]

    def reduce(
        self, values: Array, wanted: frozenset[str], weights: Array | None = None
    ) -> Reduced:
        """Return the statistics of a band's pixels by row.

        Parameters
        ----------
        values : ndarray
            One value for each element of ``rows``.
        wanted : frozenset of str
            Some of :data:`MOMENTS`.
        weights : ndarray of float64, optional
            One weight for each value, all positive.
        """
        if not self._span:
            return Reduced(self.rows, self.count, {})
        places, there, span = self._places, self._there, self._span
        if weights is None:
            parts = self._unweighted(values, wanted)
        else:
            parts = self._weighted(values, wanted, weights)
        for name, function in (("min", np.minimum), ("max", np.maximum)):
            if wanted & {name, "range"}:
                found = np.full(span, _start(name, values.dtype), values.dtype)
                function.at(found, places, values)
                parts[name] = found[there]
        return Reduced(self.rows, self.count, parts)

    def _unweighted(self, values: Array, wanted: frozenset[str]) -> dict[str, Array]:
        places, there, span = self._places, self._there, self._span
        parts: dict[str, Array] = {}
        if wanted & {"sum", "mean", "stddev", "variance"}:
            if _is_wide(values.dtype):
                parts["sum"] = _exact_sums(places, values & (2**HALF - 1), span)[there]
                parts["high"] = _exact_sums(places, values >> HALF, span)[there]
            elif values.dtype.kind in "iu":
                # bincount would make the same copy for each of its calls.
                weights = values.astype(np.float64)
                parts["sum"] = _exact_sums(places, weights, span)[there]
            else:
                parts["sum"] = np.bincount(places, values, minlength=span)[there]
            if wanted & {"stddev", "variance"}:
                if _is_small(values.dtype):
                    # The copy is not needed any more.
                    weights *= weights
                    parts["squares"] = _exact_sums(places, weights, span)[there]
                else:
                    total = np.bincount(places, values, minlength=span)
                    parts["total"] = total[there]
                    with np.errstate(invalid="ignore", divide="ignore"):
                        mean = total / self._counts
                        deviations = values - mean[places]
                        deviations *= deviations
                    parts["m2"] = np.bincount(places, deviations, minlength=span)[there]
        return parts

    def _weighted(self, values: Array, wanted: frozenset[str], weights: Array) -> dict[str, Array]:
        places, there, span = self._places, self._there, self._span
        if not wanted & WEIGHTED:
            return {}
        weight = np.bincount(places, weights, minlength=span)
        parts = {"weight": weight[there]}
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            total = np.bincount(places, weights * values, minlength=span)
            parts["sum"] = parts["total"] = total[there]
            if wanted & {"stddev", "variance"}:
                deviations = values - (total / weight)[places]
                deviations *= deviations
                deviations *= weights
                parts["m2"] = np.bincount(places, deviations, minlength=span)[there]
        return parts


def _exact_sums(places: Array, values: Array, span: int) -> NDArray[np.int64]:
    """Return the sums of whole numbers of up to 32 bits at each place."""
    total = np.zeros(span, np.int64)
    for start in range(0, len(values), EXACT_PIXELS):
        part = slice(start, start + EXACT_PIXELS)
        total += np.bincount(places[part], values[part], minlength=span).astype(np.int64)
    return total


def _is_wide(dtype: np.dtype[Any]) -> bool:
    """Return True for integers whose sums may need more than 64 bits."""
    return dtype.kind in "iu" and dtype.itemsize == 8


def _is_small(dtype: np.dtype[Any]) -> bool:
    """Return True if the squares of a window's integers add up exactly in float64."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _start(name: str, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return np.inf if name == "min" else -np.inf
    limits = np.iinfo(dtype)
    return limits.max if name == "min" else limits.min


class Accumulator:
    """Statistics of one band for consecutive rows.

    Parameters
    ----------
    first, rows : int
        The first row, and the number of rows.
    dtype : numpy.dtype
        Of the pixels.
    wanted : frozenset of str
        Some of :data:`MOMENTS`.
    what : str
        The image and band, for messages.
    is_weighted : bool
        True if pixels have weights.
    """

    def __init__(
        self,
        first: int,
        rows: int,
        dtype: np.dtype[Any],
        wanted: frozenset[str],
        what: str,
        *,
        is_weighted: bool = False,
    ) -> None:
        self._first, self._dtype, self._what = first, dtype, what
        self._is_weighted = is_weighted
        self._is_small = _is_small(dtype) and not is_weighted
        self._count = np.zeros(rows, np.int64)
        self._arrays: dict[str, Array] = {}
        for name, kind in self._layout(dtype, wanted, is_weighted).items():
            if name in ("min", "max"):
                self._arrays[name] = np.full(rows, _start(name, dtype), kind)
            else:
                self._arrays[name] = np.zeros(rows, kind)

    @staticmethod
    def _layout(
        dtype: np.dtype[Any], wanted: frozenset[str], is_weighted: bool
    ) -> dict[str, np.dtype[Any]]:
        found: dict[str, np.dtype[Any]] = {}
        deviates = bool(wanted & {"stddev", "variance"})
        if is_weighted:
            names = ["weight"] if wanted & WEIGHTED else []
            names += ["sum"] if wanted & {"sum", "mean"} else []
            names += ["mean", "m2"] if deviates else []
            found = dict.fromkeys(names, np.dtype(np.float64))
        elif wanted & {"sum", "mean"} or deviates:
            found["sum"] = np.dtype(np.int64 if dtype.kind in "iu" else np.float64)
            if _is_wide(dtype):
                found["high"] = np.dtype(np.int64)
        if deviates and not is_weighted:
            if _is_small(dtype):
                found["squares"] = np.dtype(np.int64)
            else:
                found |= {"mean": np.dtype(np.float64), "m2": np.dtype(np.float64)}
        for name in ("min", "max"):
            if wanted & {name, "range"}:
                found[name] = dtype
        return found

    @classmethod
    def row_bytes(
        cls, dtype: np.dtype[Any], wanted: frozenset[str], *, is_weighted: bool = False
    ) -> int:
        """Return the memory of one row in bytes."""
        return 8 + sum(one.itemsize for one in cls._layout(dtype, wanted, is_weighted).values())

    @property
    def arrays(self) -> dict[str, Array]:
        """The accumulators, for a checkpoint: they may be read and filled."""
        return {"count": self._count, **self._arrays}

    def add(self, found: Reduced) -> None:
        """Add a window's statistics of rows that lie within this accumulator's."""
        at, more = found.rows - self._first, found.count
        if not len(at):
            return
        arrays, parts = self._arrays, found.parts
        before = self._count[at]
        if "m2" in arrays:
            had, has = before, more
            if self._is_weighted:
                had, has = arrays["weight"][at], parts["weight"]
            with np.errstate(invalid="ignore", over="ignore"):
                mean = parts["total"] / has
                total = had + has
                delta = mean - arrays["mean"][at]
                arrays["mean"][at] += delta * (has / total)
                arrays["m2"][at] += parts["m2"] + delta * delta * (had * (has / total))
        for name in ("weight", "sum", "squares", "high"):
            if name in arrays:
                with np.errstate(invalid="ignore"):
                    arrays[name][at] += parts[name]
        if "high" in arrays:
            low = arrays["sum"][at]
            arrays["high"][at] += low >> HALF
            arrays["sum"][at] = low & (2**HALF - 1)
        for name, function in (("min", np.minimum), ("max", np.maximum)):
            if name in arrays:
                arrays[name][at] = function(arrays[name][at], parts[name])
        self._count[at] = before + more

    def results(self, names: Sequence[str], start: int, stop: int) -> dict[str, Array]:
        """Return statistics of rows; missing in rows without pixels, 0 for their counts and sums.

        Parameters
        ----------
        names : sequence of str
            Some of the statistics that were wanted.
        start, stop : int
            The rows, counted from the table's first.

        Raises
        ------
        BridgeError
            If an integer result doesn't fit its column.
        """
        here = slice(start - self._first, stop - self._first)
        count = self._count[here]
        none = count == 0
        arrays = {name: values[here] for name, values in self._arrays.items()}
        share = arrays.get("weight", count)
        found: dict[str, Array] = {}
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for name in names:
                if name == "count":
                    found[name] = count.copy()
                elif name == "weight":
                    found[name] = share.copy()
                elif name == "sum":
                    found[name] = self._sums(arrays, start)
                elif name == "mean":
                    total = arrays["sum"]
                    if "high" in arrays:
                        total = arrays["high"] * float(2**HALF) + total
                    # Not 0 / 0, whose NaN has a sign.
                    found[name] = np.where(none, np.nan, total / share)
                elif name in ("variance", "stddev"):
                    deviations = self._deviations(arrays, count)
                    variance = np.where(none, np.nan, np.maximum(deviations, 0) / share)
                    found[name] = np.sqrt(variance) if name == "stddev" else variance
                else:
                    if name != "range":
                        values = arrays[name]
                    elif _is_wide(self._dtype):
                        # Subtracted without a sign, as the difference may need 64 bits.
                        values = arrays["max"].view(np.uint64) - arrays["min"].view(np.uint64)
                    else:
                        kind = result_dtype("range", self._dtype)
                        values = arrays["max"].astype(kind) - arrays["min"].astype(kind)
                    found[name] = as_column(name, values, ~none, self._dtype, start, self._what)
        return found

    def _sums(self, arrays: Mapping[str, Array], start: int) -> Array:
        if "high" not in arrays:
            return arrays["sum"].copy()
        high, low = arrays["high"], arrays["sum"]
        limit = 2 ** (63 - HALF)
        too_large = np.flatnonzero((high < -limit) | (high >= limit))
        if len(too_large):
            row = too_large[0]
            _refuse("sum", int(high[row]) * 2**HALF + int(low[row]), start + row, self._what)
        return (high << HALF) + low

    def _deviations(self, arrays: Mapping[str, Array], count: Array) -> Array:
        """Return the sums of squared deviations from the mean."""
        if not self._is_small:
            return arrays["m2"]
        # With sum = q n + r, the sum of squares less sum^2 / n is (squares - q^2 n - 2 q r) - r^2 / n:
        # the difference of large numbers is one of integers.
        n = np.maximum(count, 1)
        q, r = np.divmod(arrays["sum"], n)
        whole = arrays["squares"] - q * q * n - 2 * q * r
        exact: Array = whole - r.astype(np.float64) ** 2 / n
        return exact


def result_dtype(
    statistic: str, dtype: np.dtype[Any], *, is_weighted: bool = False
) -> np.dtype[Any]:
    """Return the dtype of a statistic's column for pixels of a dtype.

    Values of integer pixels get a wider type, which has room for a value that means missing.
    """
    if statistic == "count":
        return np.dtype(np.int64)
    if is_weighted and statistic in WEIGHTED:
        return np.dtype(np.float64)
    if dtype.kind == "f":
        return dtype if statistic in ("min", "max", "range", "mode") else np.dtype(np.float64)
    if statistic == "sum":
        return np.dtype(np.int64)
    if statistic in ("min", "max", "range", "mode"):
        return np.dtype(f"i{min(8, 2 * dtype.itemsize)}")
    return np.dtype(np.float64)


def missing_of(dtype: np.dtype[Any]) -> int | None:
    """Return the value that stands for missing in a column of integer results; None for floats."""
    return int(np.iinfo(dtype).min) if dtype.kind == "i" else None


def as_column(
    name: str, values: Array, there: NDArray[np.bool_], dtype: np.dtype[Any], start: int, what: str
) -> Array:
    """Return a statistic's values as those of its column, and missing where there are none.

    Parameters
    ----------
    name : str
        The statistic.
    values : ndarray
        Of consecutive rows.
    there : ndarray of bool
        Which of the rows have a value.
    dtype : numpy.dtype
        Of the pixels.
    start : int
        The first row, for messages.
    what : str
        The image and band, for messages.

    Raises
    ------
    BridgeError
        If an integer doesn't fit the column, or is the one that means missing.
    """
    kind = result_dtype(name, dtype)
    missing = missing_of(kind)
    if missing is None:
        return np.where(there, values, np.nan).astype(kind)
    if _is_wide(dtype):
        refused = values > np.iinfo(kind).max if values.dtype.kind == "u" else values == missing
        bad = np.flatnonzero(refused & there)
        if len(bad):
            _refuse(name, int(values[bad[0]]), start + bad[0], what)
    found = values.astype(kind)
    found[~there] = missing
    return found


def _refuse(name: str, value: int, row: int, what: str) -> None:
    limits = np.iinfo(np.int64)
    raise BridgeError(
        f"{what}: the {name} in row {row} is {value}, and its column holds integers from "
        f"{limits.min + 1} to {limits.max}"
    )
