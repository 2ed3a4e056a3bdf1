"""Quantiles of any number of values in bounded memory: counting, then looking closer. Pure.

The q-th quantile is here the smallest value whose cumulative weight reaches q of the total
(numpy's ``inverted_cdf``); q is taken as the decimal that it is written as. One pass over
the values counts them by their codes (:mod:`gdalbridge.orderedkeys`), which tells between
which two keys each quantile lies. Each further pass counts only what lies between them,
more finely, until so few values are left that they are kept and sorted. What is counted
are whole numbers, so the order of blocks changes nothing.

Both kinds of counts have ``update`` for a block and ``merge`` for what others have counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .errors import BridgeError
from .orderedkeys import code_count, first_key, to_codes, to_keys

__all__ = ["Codes", "Interval", "Narrowing", "Sought", "count_by", "narrowed", "target_rank"]

Array = NDArray[Any]
Keys = NDArray[np.uint64]
Counts = NDArray[np.int64]

KEPT = 2**20
"""Values that are kept and sorted, rather than counted."""
FINER = 2**16
"""Parts of an interval that are counted."""
PIECE = 2**20
"""Values whose weights' halves are added up as floats: 2**20 of 32 bits are exact."""


def target_rank(q: float, total: int) -> int:
    """Return the cumulative weight that the q-th quantile has to reach.

    >>> target_rank(0.1, 10), target_rank(0.5, 3), target_rank(0, 3)
    (1, 2, 1)
    """
    return max(1, -(-(Fraction(str(float(q))) * total) // 1))


def count_by(places: Array, weights: Counts | None, length: int) -> Counts:
    """Return the sum of weights at each place: exact, where numpy's would be of floats."""
    if weights is None:
        return np.bincount(places, minlength=length).astype(np.int64, copy=False)
    found = np.zeros(length, np.int64)
    for start in range(0, len(places), PIECE):
        piece = slice(start, start + PIECE)
        low = np.bincount(places[piece], weights[piece] & 0xFFFFFFFF, length)
        found += low.astype(np.int64)
        high = weights[piece] >> 32
        if high.any():
            found += np.bincount(places[piece], high, length).astype(np.int64) << 32
    return found


class Codes:
    """The first pass: values counted by their codes; kept, as long as they are few.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the values: numbers, bools or date-times.
    keep : int, optional
        How many values are kept; by default :data:`KEPT`.
    """

    def __init__(self, dtype: np.dtype[Any], keep: int | None = None) -> None:
        self.dtype, self.keep = dtype, KEPT if keep is None else keep
        self.rows = 0
        self.kept: list[tuple[Keys, Counts | None]] | None = []
        self._rows: Counts | None = None
        self._weights: Counts | None = None

    def update(self, values: Array, weights: Counts | None) -> None:
        """Count values; weights are positive."""
        self.rows += len(values)
        if self.kept is not None:
            self.kept.append((to_keys(values), weights))
            self._keep_or_count()
        else:
            self._count(to_codes(values), weights)

    def merge(self, other: Self) -> None:
        """Count what another one has counted."""
        self.rows += other.rows
        if self.kept is not None and other.kept is not None:
            self.kept += other.kept
            self._keep_or_count()
            return
        self._keep_or_count(at_once=True)
        rows, weights = other.counted()
        mine, my_weights = self.counted()
        self._rows = mine + rows
        self._weights = None
        if weights is not rows or my_weights is not mine:
            self._weights = my_weights + weights

    def _keep_or_count(self, *, at_once: bool = False) -> None:
        if self.kept is None or (self.rows <= self.keep and not at_once):
            return
        kept, self.kept = self.kept, None
        for keys, weights in kept:
            self._count(_codes_of(keys, self.dtype), weights)

    def _count(self, codes: Array, weights: Counts | None) -> None:
        length = code_count(self.dtype)
        found = count_by(codes, None, length)
        weighed = None if weights is None else count_by(codes, weights, length)
        before = self._rows
        if weighed is not None or self._weights is not None:
            so_far = before if self._weights is None else self._weights
            more = found if weighed is None else weighed
            self._weights = more if so_far is None else so_far + more
        self._rows = found if before is None else before + found

    def counted(self) -> tuple[Counts, Counts]:
        """Return rows and weights by code."""
        if self.kept is not None:
            copy = Codes(self.dtype, 0)
            copy.kept, copy.rows = list(self.kept), self.rows
            copy._keep_or_count(at_once=True)
            return copy.counted()
        if self._rows is None:
            self._rows = np.zeros(code_count(self.dtype), np.int64)
        return self._rows, self._rows if self._weights is None else self._weights

    def sought(self, targets: Iterable[int], low: int, high: int) -> list["Sought"]:
        """Return where the values lie whose cumulative weights reach the targets.

        Parameters
        ----------
        targets : iterable of int
            From :func:`target_rank`.
        low, high : int
            The keys of the smallest value and the largest.
        """
        if self.kept is not None:
            return [Sought(t, low, high, 0, self.rows) for t in targets]
        rows, weights = self.counted()
        cumulative = np.cumsum(weights)
        found = []
        for target in targets:
            code = int(np.searchsorted(cumulative, target))
            start, stop = (first_key(one, self.dtype) for one in (code, code + 1))
            below = int(cumulative[code - 1]) if code else 0
            inside = max(low, start), min(high, stop - 1)
            found.append(Sought(target, *inside, below, int(rows[code])))
        return found

    def narrowing(self) -> "Narrowing | None":
        """Return a last pass that needs no more reading; None where one does."""
        if self.kept is None:
            return None
        one = Narrowing([Interval(0, 2**64 - 1, keep=True)])
        for keys, weights in self.kept:
            one.update(keys, weights)
        return one


def _codes_of(keys: Keys, dtype: np.dtype[Any]) -> Array:
    """Return the codes of values of which only the keys are there."""
    plain = np.dtype(f"u{dtype.itemsize}")
    top = np.uint64(1 << (8 * dtype.itemsize - 1))
    if dtype.kind in "iM":
        raw = keys ^ top
    elif dtype.kind == "f":
        raw = np.where(keys & top, keys ^ top, keys ^ np.uint64(2 * int(top) - 1))
    else:
        raw = keys
    return to_codes(raw.astype(plain).view(dtype))


@dataclass(frozen=True, slots=True)
class Sought:
    """A quantile that is looked for."""

    target: int
    """The cumulative weight that it has to reach."""
    low: int
    high: int
    """It has a key from ``low`` to ``high``."""
    below: int
    """Weight of the values whose keys are smaller than ``low``."""
    rows: int
    """Values whose keys are from ``low`` to ``high``."""

    @property
    def found(self) -> bool:
        """Whether only one key is left."""
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Interval:
    """Keys from ``low`` to ``high``, to be looked at more closely."""

    low: int
    high: int
    keep: bool
    """Whether their values are few enough to be kept."""

    @property
    def shift(self) -> int:
        """How many bits of a key's distance from ``low`` one part of the interval has."""
        return max(0, (self.high - self.low).bit_length() - FINER.bit_length() + 1)


class Narrowing:
    """A further pass: what lies in a few intervals, counted more finely, or kept."""

    def __init__(self, intervals: Sequence[Interval]) -> None:
        self.intervals = tuple(intervals)
        self._kept: list[list[tuple[Keys, Counts]]] = [[] for _ in intervals]
        self._counts: list[tuple[Counts, Counts] | None] = [None for _ in intervals]

    def update(self, keys: Keys, weights: Counts | None) -> None:
        """Count values by their keys; weights are positive."""
        for place, one in enumerate(self.intervals):
            inside = (keys >= np.uint64(one.low)) & (keys <= np.uint64(one.high))
            mine = keys[inside]
            if not len(mine):
                continue
            weighs = np.ones(len(mine), np.int64) if weights is None else weights[inside]
            if one.keep:
                self._kept[place].append((mine, weighs))
                continue
            parts = ((mine - np.uint64(one.low)) >> np.uint64(one.shift)).astype(np.int64)
            rows = count_by(parts, None, FINER)
            self._add(place, rows, rows if weights is None else count_by(parts, weighs, FINER))

    def _add(self, place: int, rows: Counts, weights: Counts) -> None:
        before = self._counts[place]
        if before is not None:
            rows, weights = rows + before[0], weights + before[1]
        self._counts[place] = rows, weights

    def merge(self, other: Self) -> None:
        """Count what another one has counted, of the same intervals."""
        if self.intervals != other.intervals:
            raise BridgeError("counts of different intervals can't be put together")
        for place, kept in enumerate(other._kept):
            self._kept[place] += kept
        for place, counts in enumerate(other._counts):
            if counts is not None:
                self._add(place, *counts)

    def closer(self, sought: Sought) -> Sought:
        """Return where a quantile is, as it is known now.

        Raises
        ------
        BridgeError
            Where the values are not those of the pass before.
        """
        for place, one in enumerate(self.intervals):
            if one.low <= sought.low and sought.high <= one.high:
                found = self._in_kept(place, sought) if one.keep else self._in_parts(place, sought)
                if found is None:
                    break
                return found
        raise BridgeError(
            "the table was changed while it was read: its values are not as they were"
        )

    def _in_kept(self, place: int, sought: Sought) -> Sought | None:
        if not self._kept[place]:
            return None
        keys = np.concatenate([keys for keys, _ in self._kept[place]])
        weights = np.concatenate([weights for _, weights in self._kept[place]])
        order = np.argsort(keys, kind="stable")
        cumulative = np.cumsum(weights[order])
        at = int(np.searchsorted(cumulative, sought.target - sought.below))
        if at >= len(keys) or len(keys) != sought.rows:
            return None
        key = int(keys[order[at]])
        return Sought(sought.target, key, key, sought.below, 1)

    def _in_parts(self, place: int, sought: Sought) -> Sought | None:
        counts, one = self._counts[place], self.intervals[place]
        if counts is None or int(counts[0].sum()) != sought.rows:
            return None
        rows, weights = counts
        cumulative = np.cumsum(weights)
        part = int(np.searchsorted(cumulative, sought.target - sought.below))
        if part >= len(cumulative):
            return None
        low = one.low + (part << one.shift)
        high = min(one.high, low + (1 << one.shift) - 1)
        below = sought.below + (int(cumulative[part - 1]) if part else 0)
        return Sought(sought.target, low, high, below, int(rows[part]))


def narrowed(sought: Iterable[Sought], keep: int | None = None) -> Narrowing | None:
    """Return the next pass for those that are not found yet; None where all are."""
    open_ones = sorted({(one.low, one.high): one for one in sought if not one.found}.items())
    if not open_ones:
        return None
    if any(first[0][1] >= second[0][0] for first, second in pairwise(open_ones)):
        raise BridgeError("quantiles are looked for in intervals that overlap")
    room = KEPT if keep is None else keep
    # The smallest first: more of them are found at once.
    small = sorted((one.rows, key) for key, one in open_ones)
    kept = set()
    for rows, key in small:
        if rows <= room:
            room -= rows
            kept.add(key)
    intervals = [Interval(*key, keep=key in kept) for key, _ in open_ones]
    return Narrowing(intervals)
