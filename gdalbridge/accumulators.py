"""What is known of a column from the blocks of it that were seen. Pure: no store here.

An accumulator takes blocks in (``update``) and what another one has seen (``merge``), in
any order: counts, smallest and largest values and sums of integers come out the same, to
the last bit; sums of floats the same but for rounding. They can be pickled, so that blocks may be
looked at in other processes.

>>> one, other = (accumulator_for(np.dtype("f8")) for _ in range(2))
>>> one.update(np.array([1.0, np.nan]))
>>> other.update(np.array([4.0]), np.array([3]))
>>> one.merge(other)
>>> one.count, one.missing, one.moments.mean
(2, 1, 3.25)
"""

from collections import Counter
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .errors import ConversionError
from .moments import FloatMoments, IntMoments, integer_sum
from .ranks import Codes, count_by

__all__ = [
    "Accumulator",
    "NumberAccumulator",
    "TextAccumulator",
    "accumulator_for",
    "checked_weights",
    "present",
]

Array = NDArray[Any]
Counts = NDArray[np.int64]

MOST_DISTINCT = 10_000
"""Different values that are told apart, and how much text they may have."""
MOST_TEXT = 2**20
MOST_WEIGHT = 2**63
"""What the weights of a column may not add up to: counts of pixels never do."""


def checked_weights(weights: Array, *, column: str, first_row: int) -> Counts:
    """Return weights as counts.

    Raises
    ------
    ConversionError
        For what is no count: names the row of a weight that is negative, NaN or not whole,
        and says so where weights are not numbers at all.
    """
    kind = weights.dtype.kind
    if kind == "b":
        return weights.astype(np.int64)
    if kind not in "iuf":
        raise ConversionError(f"column {column!r} of {weights.dtype} has no counts to weigh by")
    if kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~((weights >= 0) & (weights < MOST_WEIGHT) & (weights == np.floor(weights)))
    elif kind == "i":
        wrong = weights < 0
    else:
        wrong = weights > np.uint64(MOST_WEIGHT - 1) if weights.dtype.itemsize == 8 else None
    if wrong is not None and wrong.any():
        row = int(np.argmax(wrong))
        raise ConversionError(
            f"column {column!r}, row {first_row + row}: {weights[row]} is no weight: expected "
            "a count, a whole number from 0 to 2**63 - 1"
        )
    return weights.astype(np.int64, copy=False)


def present(values: Array, missing: Any) -> NDArray[np.bool_] | None:
    """Return which values are there; None where all are."""
    kind = values.dtype.kind
    if kind == "f":
        there = ~np.isnan(values)
    elif kind == "M":
        there = ~np.isnat(values)
    else:
        there = None
    if missing is not None:
        also: NDArray[np.bool_] = np.asarray(values != missing, np.bool_)
        there = also if there is None else there & also
    return None if there is None or there.all() else there


class Accumulator(Protocol):
    """What all of them have in common."""

    rows: int
    missing: int
    count: int
    weight: int

    def update(self, values: Array, weights: Counts | None = None) -> None:
        """Take a block in."""

    def merge(self, other: Self) -> None:
        """Take in what another one has seen."""


class _Tally:
    """How many rows there are, and which of them count.

    Attributes
    ----------
    rows : int
        All of them.
    missing : int
        Those that have no value.
    count : int
        Those that have one, and a weight that is not 0.
    weight : int
        The weights of those; without weights their number.
    """

    def __init__(self, missing: Any = None) -> None:
        self.missing_value = missing
        self.rows = self.missing = self.count = self.weight = 0
        self.frequent = Frequent()

    def _counted(self, values: Array, weights: Counts | None) -> tuple[Array, Counts | None]:
        """Return what counts of a block."""
        self.rows += len(values)
        there = present(values, self.missing_value)
        if there is not None:
            values = values[there]
            weights = None if weights is None else weights[there]
        self.missing += self.rows_of(there)
        if weights is not None:
            heavy = weights > 0
            if not heavy.all():
                values, weights = values[heavy], weights[heavy]
        self.count += len(values)
        self.weight += len(values) if weights is None else integer_sum(weights, None)
        self._check_weight()
        return values, weights

    @staticmethod
    def rows_of(there: NDArray[np.bool_] | None) -> int:
        """Return how many rows are not there."""
        return 0 if there is None else int(np.count_nonzero(~there))

    def _check_weight(self) -> None:
        if self.weight >= MOST_WEIGHT:
            raise ConversionError(
                f"the weights add up to {self.weight}: expected less than 2**63, as of counts"
            )

    def _merge_tally(self, other: "_Tally") -> None:
        self.rows += other.rows
        self.missing += other.missing
        self.count += other.count
        self.weight += other.weight
        self._check_weight()
        self.frequent.merge(other.frequent)


class Frequent:
    """How often each value is there, as long as there are few: exactly, or not at all."""

    def __init__(self) -> None:
        self.counts: Counter[Any] | None = Counter()

    def update(self, values: list[Any], weights: list[int]) -> None:
        """Take in different values and their weights."""
        if self.counts is not None:
            for value, weight in zip(values, weights, strict=True):
                self.counts[value] += weight
            self._check()

    def merge(self, other: "Frequent") -> None:
        """Take in what another one has seen."""
        if self.counts is None or other.counts is None:
            self.counts = None
        else:
            self.counts.update(other.counts)
            self._check()

    def _check(self) -> None:
        # Both only grow with what is seen: the same blocks come to the same, in any order.
        counts = self.counts
        if counts is None:
            return
        if len(counts) > MOST_DISTINCT or (
            sum(len(v) for v in counts if isinstance(v, (str, bytes))) > MOST_TEXT
        ):
            self.counts = None

    def most(self, number: int) -> tuple[tuple[Any, int], ...] | None:
        """Return the most frequent values with their weights; of equal ones the smallest first."""
        if self.counts is None:
            return None
        order = sorted(sorted(self.counts.items()), key=lambda pair: -pair[1])
        return tuple(order[:number])


class NumberAccumulator(_Tally):
    """Of numbers, bools and date-times.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the values.
    missing : scalar, optional
        The value that stands for none, besides NaN and NaT.
    keep : int, optional
        How many values are kept for the quantiles, before they are counted.
    ranks : bool
        Whether quantiles will be asked for.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        missing: Any = None,
        *,
        keep: int | None = None,
        ranks: bool = True,
    ) -> None:
        super().__init__(missing)
        self.dtype = dtype
        self.min: Any = None
        self.max: Any = None
        self.finite: tuple[Any, Any] | None = None
        """The smallest and largest of the values that are not infinite."""
        self.moments = FloatMoments() if dtype.kind == "f" else IntMoments()
        self.codes = Codes(dtype, keep) if ranks else None

    def update(self, values: Array, weights: Counts | None = None) -> None:
        """Take in a block; weights are counts (:func:`checked_weights`)."""
        values, weights = self._counted(values, weights)
        if not len(values):
            return
        self._bound(values.min(), values.max())
        if self.dtype.kind == "f":
            finite = values[np.isfinite(values)]
            if len(finite):
                self._bound_finite(finite.min(), finite.max())
        plain = values.view(np.int64) if self.dtype.kind == "M" else values
        self.moments.update(plain.view(np.uint8) if self.dtype.kind == "b" else plain, weights)
        if self.codes is not None:
            self.codes.update(values, weights)
        if self.frequent.counts is not None:
            different, inverse = np.unique(values, return_inverse=True)
            if len(different) > MOST_DISTINCT:
                self.frequent.counts = None
            else:
                found = count_by(inverse, weights, len(different))
                plain_values = list(different) if self.dtype.kind == "M" else different.tolist()
                self.frequent.update(plain_values, found.tolist())

    def _bound(self, low: Any, high: Any) -> None:
        self.min = low if self.min is None else min(self.min, low)
        self.max = high if self.max is None else max(self.max, high)

    def _bound_finite(self, low: Any, high: Any) -> None:
        before = self.finite or (low, high)
        self.finite = min(before[0], low), max(before[1], high)

    def merge(self, other: Self) -> None:
        """Take in what another one has seen."""
        self._merge_tally(other)
        if other.min is not None:
            self._bound(other.min, other.max)
        if other.finite is not None:
            self._bound_finite(*other.finite)
        # Both are of the same dtype, and so of the same kind, which no annotation can say.
        self.moments.merge(other.moments)  # type: ignore[arg-type]
        if self.codes is not None and other.codes is not None:
            self.codes.merge(other.codes)


class TextAccumulator(_Tally):
    """Of strings (lengths in characters) and of bytes (in bytes)."""

    def __init__(self, dtype: np.dtype[Any], missing: Any = None) -> None:
        super().__init__(missing)
        self.dtype = dtype
        self.empty = 0
        self.min_length: int | None = None
        self.max_length: int | None = None

    def update(self, values: Array, weights: Counts | None = None) -> None:
        """Take in a block; weights are counts (:func:`checked_weights`)."""
        values, weights = self._counted(values, weights)
        if not len(values):
            return
        plain = values.tolist()
        if self.dtype.kind == "O":
            lengths = np.fromiter(map(len, plain), np.int64, len(plain))
        else:
            lengths = np.strings.str_len(values)
        nothing = lengths == 0
        self.empty += (
            int(np.count_nonzero(nothing))
            if weights is None
            else integer_sum(weights[nothing], None)
        )
        self._bound(int(lengths.min()), int(lengths.max()))
        if self.frequent.counts is not None:
            if weights is None:
                found = Counter(plain)
            else:
                found = Counter()
                for value, weight in zip(plain, weights.tolist(), strict=True):
                    found[value] += weight
            self.frequent.update(list(found), list(found.values()))

    def _bound(self, low: int, high: int) -> None:
        self.min_length = low if self.min_length is None else min(self.min_length, low)
        self.max_length = high if self.max_length is None else max(self.max_length, high)

    def merge(self, other: Self) -> None:
        """Take in what another one has seen."""
        self._merge_tally(other)
        self.empty += other.empty
        if other.min_length is not None and other.max_length is not None:
            self._bound(other.min_length, other.max_length)


def accumulator_for(
    dtype: np.dtype[Any], missing: Any = None, *, ranks: bool = True
) -> "NumberAccumulator | TextAccumulator":
    """Return an empty accumulator for a column of a dtype."""
    if dtype.kind in "TSO":
        return TextAccumulator(dtype, missing)
    return NumberAccumulator(dtype, missing, ranks=ranks)
