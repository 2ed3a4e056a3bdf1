"""Statistics of columns, block by block: memory does not grow with the rows.

One pass over a column gives counts, extremes, sums, and where about the quantiles are
(:mod:`gdalbridge.accumulators`); one or two more give the quantiles exactly
(:mod:`gdalbridge.ranks`) and fill the bins of a histogram. A column with up to a million
values takes a single pass for all but the histogram.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.blocks import Block

from .accumulators import (
    NumberAccumulator,
    TextAccumulator,
    accumulator_for,
    checked_weights,
    present,
)
from .errors import BridgeError, ConversionError
from .histograms import Bins, Histogram, HistogramCounter, as_bins
from .orderedkeys import from_key, to_keys
from .pipeline import read_ahead
from .progress import Progress, progress_of
from .ranks import Narrowing, Sought, narrowed, target_rank
from .read_options import ReadOptions
from .tablecolumns import Column, Columns, open_columns

__all__ = ["QUANTILES", "ColumnStats", "Histogram", "Quantile", "column_stats"]

Array = NDArray[Any]
Counts = NDArray[np.int64]
type Consume = Callable[[Array, Counts | None], None]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BLOCK_ROWS = 500_000
READERS = 2
MOST_FREQUENT = 10
"""Values that are named as the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """The smallest value whose cumulative weight reaches ``q`` of the total."""

    q: float
    value: Any
    """It; after a single pass a value that may be beside it."""
    lower: Any
    upper: Any
    """It is surely from ``lower`` to ``upper``; where it is known exactly both are it."""


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """What there is to say of a column's values."""

    name: str
    dtype: str
    rows: int
    """All of them."""
    missing: int
    """Rows with NaN, NaT, or the column's ``missing_value``."""
    count: int
    """Rows with a value and, where there are weights, one that is not 0: all below is of these."""
    weight: int
    """Their weights together; without weights their number."""
    min: Any = None
    """In the column's own type."""
    max: Any = None
    sum: int | float | None = None
    """Of integers and bools exact."""
    mean: Any = None
    """Of integers the float64 nearest to it, of date-times the nearest in the column's unit."""
    stddev: float | None = None
    """Of the values there are (divided by the weight, as GDAL's STATISTICS_STDDEV)."""
    quantiles: tuple[Quantile, ...] = ()
    histogram: Histogram | None = None
    true: int | None = None
    """Of bools: the weight of those that are true."""
    empty: int | None = None
    """Of text and bytes: the weight of those that have no length."""
    min_length: int | None = None
    """Of text in characters, of bytes in bytes."""
    max_length: int | None = None
    distinct: int | None = None
    """How many different values there are; None where there are more than 10 000, or they have
    more than a megabyte of text."""
    frequent: tuple[tuple[Any, int], ...] | None = None
    """The ten most frequent values with their weights, of equally frequent ones the smallest
    first: the first is the mode. None where ``distinct`` is: they are exact or not told."""

    @property
    def median(self) -> Any:
        """The value of the quantile 0.5, if it was asked for."""
        return next((one.value for one in self.quantiles if one.q == 0.5), None)

    @property
    def mode(self) -> Any:
        """The most frequent value, where it is known."""
        return self.frequent[0][0] if self.frequent else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON would have it; what has no number there (NaN) as text."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def column_stats(
    table: Any,
    columns: Iterable[str] | None = None,
    *,
    weights: str | bool | None = None,
    quantiles: Sequence[float] = QUANTILES,
    histogram: Any = None,
    exact: bool = True,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> dict[str, ColumnStats]:
    """Return statistics of columns of a raster's table, with its sidecars', or of a store.

    Parameters
    ----------
    table : str, os.PathLike, gdal.Dataset or zarr store
        A raster: its own columns and its sidecars'. Or a sidecar, or any other RatZarr. What
        an attached table of this process has not flushed yet is not seen.
    columns : iterable of str, optional
        Only these. One of several values per row is as many columns: ``name[0]``, ...
    weights : str or bool, optional
        The column that says how often each row counts, e.g. its number of pixels; True for
        the one whose usage is PixelCount. Whole numbers; rows with 0 don't count.
    quantiles : sequence of float
        From 0 to 1. The q-th quantile is the smallest value whose cumulative weight reaches
        q of the total (numpy's ``inverted_cdf``).
    histogram : int or (int, float, float), optional
        How many bins, and from where to where: by default from the smallest value to the
        largest, infinities left out. Of integers and floats only.
    exact : bool
        False for quantiles from one pass over the data: each is known to lie between two
        values that differ by less than 1 part in 256.
    band : int
        Of a raster, counted from 1.
    names : sequence of str or None, optional
        Which of a raster's sidecars, see :func:`gdalbridge.attach`.
    encoding : str, optional
        Of text and names in the raster's own table; by default UTF-8, or as its
        ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table also where GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`; they go for a raster on S3 as well.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    dict of str to ColumnStats
        By name, in the table's order or the order asked for.

    Raises
    ------
    ColumnSelectionError
        Where there is no such column: names those that are called much the same.
    ConversionError
        Where a weight is negative, NaN or not whole: names the column and the row.
    RasterNotFoundError, CancelledError, BridgeError, RatZarrError
        Where there is no table, the progress said so, or something else is wrong.

    Warns
    -----
    LossWarning
        For columns that are not complete, and so are left out where none are named.

    Examples
    --------
    >>> import tempfile
    >>> from ratzarr import RatZarr
    >>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
    >>> with RatZarr(path) as store:
    ...     store.setRowCount(4)
    ...     store.createColumns({"area": "float64", "Histogram": "int64"})
    ...     store.writeBlocks({"area": [1.5, 2.5, 4.0, 0.0], "Histogram": [1, 2, 1, 0]}, 0)
    >>> area = column_stats(path, ["area"], weights="Histogram")["area"]
    >>> area.count, area.weight, area.mean, area.median
    (3, 4, 2.625, 2.5)
    """
    reading = ReadOptions(encoding, lossy)
    asked = _Asked(tuple(float(q) for q in quantiles), as_bins(histogram), exact)
    for q in asked.quantiles:
        if not 0 <= q <= 1:
            raise BridgeError(f"a quantile is a number from 0 to 1: got {q}")
    with (
        open_columns(
            table, band=band, names=names, storage_options=storage_options, options=reading
        ) as there,
        progress_of(progress) as told,
    ):
        chosen = there.chosen(columns)
        heavy = _weights_of(there, weights)
        found = {}
        for number, column in enumerate(chosen):
            share = _Passes(told, number, len(chosen), column.name)
            found[column.name] = _of_column(_Reading(there, column, heavy, share), asked)
        told.report(1.0)
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    quantiles: tuple[float, ...]
    bins: Bins | None
    exact: bool


def _weights_of(there: Columns, weights: str | bool | None) -> Column | None:
    if weights is None or weights is False:
        return None
    return there.count_column() if weights is True else there[weights]


class _Passes:
    """A column's share of the progress: how many passes there will be nobody knows before."""

    def __init__(self, told: Progress, done: int, columns: int, name: str) -> None:
        self._told, self._done, self._columns, self._name = told, done, columns, name
        self._before, self._share = 0.0, 0.5

    def report(self, fraction: float) -> None:
        """Say how much of a pass is done."""
        part = self._before + fraction * self._share
        self._told.report((self._done + part) / self._columns, self._name)

    def end(self) -> None:
        """Say that a pass is over: the next has half of what is left."""
        self._before += self._share
        self._share /= 2


class _Reading:
    """A column, read from its first row to its last as often as need be."""

    def __init__(
        self, there: Columns, column: Column, weights: Column | None, share: _Passes
    ) -> None:
        if weights is not None and weights.rows != column.rows:
            raise BridgeError(
                f"{there.name}: column {column.name!r} has {column.rows} rows, and its weights "
                f"{weights.name!r} have {weights.rows}"
            )
        self.column, self._weights, self._share = column, weights, share
        # GDAL is asked by one thread at a time anyhow.
        self._threads = 1 if there.has_own else READERS

    def each_block(self, consume: Consume) -> None:
        """Hand out each block with its weights; the next are being read meanwhile."""
        column, rows = self.column, self.column.rows
        step = column.chunk_rows * max(1, BLOCK_ROWS // column.chunk_rows)
        blocks = [Block(first, min(step, rows - first)) for first in range(0, rows, step)]
        with closing(read_ahead(blocks, self._read, threads=self._threads)) as reading:
            for block, (values, weights) in reading:
                consume(values, weights)
                self._share.report(block.stop / rows)
        self._share.end()

    def _read(self, block: Block) -> tuple[Array, Counts | None]:
        values = self.column.read(block.start, block.length)
        if self._weights is None:
            return values, None
        weights = self._weights.read(block.start, block.length)
        name = self._weights.name
        return values, checked_weights(weights, column=name, first_row=block.start)


def _of_column(reading: _Reading, asked: _Asked) -> ColumnStats:
    column = reading.column
    dtype, missing = column.dtype, column.missing_value()
    seen = accumulator_for(dtype, missing, ranks=bool(asked.quantiles) and dtype.kind != "b")
    try:
        reading.each_block(seen.update)
    except ConversionError as error:
        error.add_note(f"(these were to be the weights of column {column.name!r})")
        raise
    common: dict[str, Any] = {
        "name": column.name,
        "dtype": {"T": "str", "O": "bytes"}.get(dtype.kind, str(dtype)),
        "rows": seen.rows,
        "missing": seen.missing,
        "count": seen.count,
        "weight": seen.weight,
        "frequent": seen.frequent.most(MOST_FREQUENT),
        "distinct": None if seen.frequent.counts is None else len(seen.frequent.counts),
    }
    if isinstance(seen, TextAccumulator):
        return ColumnStats(
            **common, empty=seen.empty, min_length=seen.min_length, max_length=seen.max_length
        )
    quantiles, histogram = _closer(reading, seen, asked)
    return ColumnStats(**common, **_summary(seen), quantiles=quantiles, histogram=histogram)


def _summary(seen: NumberAccumulator) -> dict[str, Any]:
    if not seen.count:
        return {"true": 0, "sum": 0} if seen.dtype.kind == "b" else {}
    moments, kind = seen.moments, seen.dtype.kind
    found: dict[str, Any] = {"min": _scalar(seen.min), "max": _scalar(seen.max)}
    if kind == "M":
        nearest = round(Fraction(int(moments.sum), moments.weight))
        found["mean"] = np.array(nearest, np.int64).view(seen.dtype)[()]
        return found
    found |= {"sum": moments.sum, "mean": moments.mean, "stddev": moments.stddev}
    if kind == "b":
        found["true"] = moments.sum
    return found


def _scalar(value: Any) -> Any:
    """Return a number as Python's, which is exact; a date-time as it is."""
    return value if isinstance(value, np.datetime64) else value.item()


def _closer(
    reading: _Reading, seen: NumberAccumulator, asked: _Asked
) -> tuple[tuple[Quantile, ...], Histogram | None]:
    """Look as often as need be, for the quantiles and the histogram."""
    if not seen.count:
        return (), None
    counter = None
    if asked.bins is not None and seen.dtype.kind in "iuf":
        least, most = (seen.min, seen.max) if seen.finite is None else seen.finite
        if np.isfinite(least) and np.isfinite(most):
            counter = HistogramCounter(asked.bins, seen.dtype, least, most)
    sought = _first_look(seen, asked)
    narrowing = narrowed(sought) if asked.exact else None
    binned = counter is None
    while narrowing is not None or not binned:
        reading.each_block(_both(narrowing, None if binned else counter, seen.missing_value))
        binned = True
        if narrowing is not None:
            sought = [one if one.found else narrowing.closer(one) for one in sought]
            narrowing = narrowed(sought)
    quantiles = tuple(
        # Of bools there are none.
        _quantile(q, one, seen.dtype)
        for q, one in zip(asked.quantiles, sought, strict=bool(sought))
    )
    return quantiles, None if counter is None else counter.result()


def _first_look(seen: NumberAccumulator, asked: _Asked) -> list[Sought]:
    if seen.codes is None:
        return []
    low, high = (int(to_keys(np.array([one], seen.dtype))[0]) for one in (seen.min, seen.max))
    targets = [target_rank(q, seen.weight) for q in asked.quantiles]
    sought = seen.codes.sought(targets, low, high)
    kept = seen.codes.narrowing()
    if kept is not None:
        # They are all here: what is exact costs no more.
        sought = [one if one.found else kept.closer(one) for one in sought]
    return sought


def _both(narrowing: Narrowing | None, counter: HistogramCounter | None, missing: Any) -> Consume:
    def consume(values: Array, weights: Counts | None) -> None:
        for chosen, heavy in _that_count(values, weights, missing):
            if counter is not None:
                counter.update(chosen, heavy)
            if narrowing is not None:
                narrowing.update(to_keys(chosen), heavy)

    return consume


def _that_count(
    values: Array, weights: Counts | None, missing: Any
) -> Iterator[tuple[Array, Counts | None]]:
    there = present(values, missing)
    if weights is not None:
        heavy = weights > 0
        there = heavy if there is None else there & heavy
    if there is None:
        yield values, weights
    elif there.any():
        yield values[there], None if weights is None else weights[there]


def _quantile(q: float, sought: Sought, dtype: np.dtype[Any]) -> Quantile:
    lower, upper = (_scalar(from_key(key, dtype)) for key in (sought.low, sought.high))
    middle = _scalar(from_key((sought.low + sought.high) // 2, dtype))
    return Quantile(q, middle, lower, upper)
