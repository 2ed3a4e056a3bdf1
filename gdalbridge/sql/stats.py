"""Exact statistics of columns, computed by DuckDB.

Each column is read once, and its different values are counted
(:mod:`gdalbridge.sql.value_counts`). All statistics are computed from these counts: sums of integers
in 128 bits, sums of floats by DuckDB's ``fsum`` (compensated summation), quantiles by a running sum
of the weights in the order of the values.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.merged import Column, Columns, open_columns
from gdalbridge.sql.query import needed
from gdalbridge.sql.value_counts import ValueCounts, counted_columns
from gdalbridge.text_table import dtype_text, json_value, kind_text
from ratzarr.format import BLOCK_ROWS, Block
from ratzarr.interop import Field, Source

__all__ = ["QUANTILES", "ColumnStats", "Histogram", "Quantile", "column_stats", "stats_of"]

Array = NDArray[Any]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_FREQUENT = 10
"""Number of most frequent values to list."""
MAX_BINS = 2**20
MAX_WEIGHT = 2**63
"""Limit of the sum of a column's weights; counts of pixels always stay below it."""
READERS = 2
NEVER = -(2**63)
"""The integer of NaT."""
MEMORY = 2**30
"""Bytes that DuckDB uses before it spills to disk."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """The smallest value whose cumulative weight reaches ``q`` of the total."""

    q: float
    value: Any
    lower: Any
    """Equal to ``value``, because quantiles are exact."""
    upper: Any
    """Equal to ``value``."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Weights of values in bins.

    A value belongs to a bin from its lower edge up to, but not including, its upper edge. The last bin
    includes its upper edge, as in ``numpy.histogram``.
    """

    edges: tuple[float, ...]
    """One more edge than bins."""
    counts: tuple[int, ...]
    """Weight of the values in each bin."""
    below: int
    """Weight of the values below the first edge."""
    above: int
    """Weight of the values above the last edge."""


@dataclass(frozen=True, slots=True)
class ColumnStats:
    """Statistics of one column."""

    name: str
    dtype: str
    rows: int
    """All rows."""
    missing: int
    """Rows with NaN, NaT, or the column's ``missing_value``."""
    count: int
    """Rows with a value and, if weights are given, a weight other than 0. The statistics below
    cover these rows."""
    weight: int
    """The sum of their weights; without weights their number."""
    min: Any = None
    """In the column's own type."""
    max: Any = None
    sum: int | float | None = None
    """Exact for integers and bools."""
    mean: Any = None
    """For integers the float64 nearest to the exact mean, for date-times the nearest in the column's
    unit."""
    stddev: float | None = None
    """Population standard deviation (divided by the weight, as GDAL's STATISTICS_STDDEV)."""
    quantiles: tuple[Quantile, ...] = ()
    histogram: Histogram | None = None
    true: int | None = None
    """For bools: the weight of the true values."""
    empty: int | None = None
    """For text and bytes: the weight of the empty values."""
    min_length: int | None = None
    """In characters for text, in bytes for bytes."""
    max_length: int | None = None
    distinct: int | None = None
    """Number of different values."""
    frequent: tuple[tuple[Any, int], ...] | None = None
    """The ten most frequent values with their weights, the smallest first among equally frequent ones.
    The first is the mode."""

    @property
    def median(self) -> Any:
        """The quantile 0.5, if it was requested."""
        return next((one.value for one in self.quantiles if one.q == 0.5), None)

    @property
    def mode(self) -> Any:
        """The most frequent value."""
        return self.frequent[0][0] if self.frequent else None

    def as_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON values; NaN and infinities as text, bytes in hexadecimal."""
        plain: dict[str, Any] = json_value(asdict(self))
        return plain


def column_stats(
    table: Any,
    columns: Iterable[str] | None = None,
    *,
    weights: str | bool | None = None,
    quantiles: Sequence[float] = QUANTILES,
    histogram: Any = None,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
    memory: int = MEMORY,
    block_rows: int = BLOCK_ROWS,
) -> dict[str, ColumnStats]:
    """Return exact statistics of columns of a raster's table with its sidecars, or of a store.

    Parameters
    ----------
    table : str, os.PathLike, gdal.Dataset or zarr store
        A raster, with its own columns and its sidecars'; or a sidecar or any other RatZarr.
        Pending changes of attached tables in this process are not read: call their ``flush``
        first.
    columns : iterable of str, optional
        Only these. A column with several values per row counts as several columns: ``name[0]``,
        ...
    weights : str or bool, optional
        The column with the weight of each row, e.g. its number of pixels; True for the one whose usage
        is PixelCount. Weights are whole numbers; rows with weight 0 don't count.
    quantiles : sequence of float
        From 0 to 1. The q-th quantile is the smallest value whose cumulative weight reaches q of the
        total (numpy's ``inverted_cdf``).
    histogram : int or (int, float, float), optional
        The number of bins, and the first and the last edge. By default the edges are the smallest and
        the largest finite value. For integers and floats only.
    band : int
        Band of a raster, counted from 1.
    names : sequence of str or None, optional
        Which of a raster's sidecars, see :func:`gdalbridge.attach`.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8; for a ``.vat.dbf``
        the encoding that it declares.
    lossy : bool
        Read the raster's own table even if GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`; also used for a raster on S3.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.
    memory : int
        Bytes that DuckDB may use before it spills to a temporary directory.
    block_rows : int
        Rows read at a time.

    Returns
    -------
    dict of str to ColumnStats
        By name, in the table's order or the requested order.

    Raises
    ------
    ColumnSelectionError
        For a column that does not exist; names similar ones.
    ConversionError
        For a weight that is negative, NaN or fractional; names the column and the row.
    BridgeError
        If DuckDB or pyarrow is missing, or an argument is invalid.
    RasterNotFoundError, CancelledError, RatZarrError
        If the table does not exist or cannot be read, or the progress cancelled.

    Warns
    -----
    LossWarning
        For incomplete columns, which are left out if ``columns`` is not given.

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
    needed()

    reading = ReadOptions(encoding, lossy)
    bins = _as_bins(histogram)
    asked = tuple(float(q) for q in quantiles)
    for q in asked:
        if not 0 <= q <= 1:
            raise BridgeError(f"a quantile is a number from 0 to 1: got {q}")
    with (
        open_columns(
            table, band=band, names=names, storage_options=storage_options, options=reading
        ) as there,
        progress_of(progress) as reporter,
    ):
        return stats_of(
            there, there.chosen(columns), reporter, weight=_weight_column(there, weights),
            quantiles=asked, bins=bins, memory=memory, block_rows=block_rows,
        )  # fmt: skip


def stats_of(
    there: Columns,
    chosen: Sequence[Column],
    progress: Progress,
    *,
    weight: Column | None = None,
    quantiles: Sequence[float] = (0.5,),
    bins: "_Bins | None" = None,
    memory: int = MEMORY,
    block_rows: int = BLOCK_ROWS,
) -> dict[str, ColumnStats]:
    """Return the statistics of columns of an open table, each with one value per row."""
    needed()
    places = {column.name: number for number, column in enumerate(chosen)}
    columns = {column.name: column for column in chosen}

    def report(name: str, rows_read: int) -> None:
        fraction = rows_read / max(1, columns[name].rows)
        progress.report((places[name] + fraction) / len(chosen), name)

    sources = {column.name: _Weighed(there, column, weight) for column in chosen}
    found = {}
    with closing(counted_columns(sources, memory, block_rows, report)) as counted:
        for name, counts in counted:
            column = columns[name]
            found[name] = _Statistics(column.dtype, counts).of(column, quantiles, bins)
    progress.report(1.0)
    return found


def _weight_column(there: Columns, weights: str | bool | None) -> Column | None:
    if weights is None or weights is False:
        return None
    return there.count_column() if weights is True else there[weights]


# ---- reading


class _Weighed:
    """A column and its weights as a :class:`ratzarr.interop.Source`.

    Its columns are ``v``, the values, and ``w``, the weights. Date-times are their 64-bit integers,
    so any unit is exact.
    """

    def __init__(self, there: Columns, column: Column, weight: Column | None) -> None:
        if weight is not None and weight.rows != column.rows:
            raise BridgeError(
                f"{there.name}: column {column.name!r} has {column.rows} rows, and its weights "
                f"{weight.name!r} have {weight.rows}"
            )
        self.place, self.rows = there.name, column.rows
        self.threads = 1 if there.has_own else READERS
        self.names = ["v"] if weight is None else ["v", "w"]
        self._column, self._weight = column, weight
        self._missing = column.missing_value()

    def field(self, name: str) -> Field:
        dtype, chunk = self._column.dtype, self._column.chunk_rows
        if name == "w":
            return Field("w", np.dtype(np.int64), 1, self.rows, chunk)
        if dtype.kind == "M":
            return Field("v", np.dtype(np.int64), 1, self.rows, chunk, missing=NEVER)
        return Field("v", dtype, 1, self.rows, chunk, missing=self._missing)

    def attributes(self, name: str) -> Mapping[str, Any]:
        return {}  # As the fields have; the columns check their own.

    def read(self, names: Sequence[str], block: Block) -> dict[str, Array]:
        found = {}
        if "v" in names:
            found["v"] = self._column.read(block.start, block.length)
            if found["v"].dtype.kind == "M":
                found["v"] = self._integers(found["v"])
        if "w" in names and self._weight is not None:
            weights = self._weight.read(block.start, block.length)
            try:
                none = self._weight.missing_value()
                found["w"] = _counts(weights, none, self._weight.name, block.start)
            except ConversionError as error:
                error.add_note(f"(these are the weights of column {self._column.name!r})")
                raise
        return found

    def _integers(self, values: Array) -> NDArray[np.int64]:
        integers: NDArray[np.int64] = values.view(np.int64)
        if self._missing is None:
            return integers
        return np.where(values == self._missing, NEVER, integers)

    def read_utf8(self, _: str, block: Block, convert: Callable[..., Any]) -> list[Any] | None:
        column = self._column
        if column.table is None or column.part is not None:
            return None
        return column.table.readUtf8(column.key, block.start, block.length, convert)

    def reopener(self) -> Callable[[], Source]:
        raise NotImplementedError("statistics are computed in one process")


def _counts(weights: Array, missing: Any, column: str, first_row: int) -> NDArray[np.int64]:
    """Return weights as counts; raise an error unless they are whole numbers below 2**63."""
    kind = weights.dtype.kind
    if kind == "b":
        return weights.astype(np.int64)
    if kind not in "iuf":
        raise ConversionError(
            f"column {column!r} of {kind_text(weights.dtype)} has no counts to weigh by"
        )
    if kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~((weights >= 0) & (weights < MAX_WEIGHT) & (weights == np.floor(weights)))
    else:
        wrong = weights < 0 if kind == "i" else weights > np.uint64(MAX_WEIGHT - 1)
    if missing:
        wrong = wrong | (weights == missing)
    if wrong.any():
        row = int(np.argmax(wrong))
        is_missing = missing is not None and weights[row] == missing
        shown = f"the missing value ({missing})" if is_missing else weights[row]
        raise ConversionError(
            f"column {column!r}, row {first_row + row}: {shown} is not a weight: expected "
            "a count, a whole number from 0 to 2**63 - 1"
        )
    return weights.astype(np.int64, copy=False)


# ---- computing


class _Statistics:
    """Statistics of counted values."""

    def __init__(self, dtype: np.dtype[Any], counts: ValueCounts) -> None:
        self._dtype, self._counts = dtype, counts
        self._one, self._run = counts.database.one, counts.database.rows

    def of(self, column: Column, quantiles: Sequence[float], bins: "_Bins | None") -> ColumnStats:
        """Return the statistics of a column."""
        kind = self._dtype.kind
        counts = self._counts
        if counts.weight >= MAX_WEIGHT:
            raise ConversionError(
                f"column {column.name!r}: the weights add up to {counts.weight}: expected less than "
                "2**63, as of counts"
            )
        common: dict[str, Any] = {
            "name": column.name,
            "dtype": dtype_text(self._dtype),
            "rows": column.rows,
            "missing": counts.missing,
            "count": counts.count,
            "weight": counts.weight,
            "distinct": counts.distinct,
            "frequent": tuple(
                (self._scalar(value), times) for value, times in counts.frequent(MOST_FREQUENT)
            ),
        }
        if kind in "TSO":
            return ColumnStats(**common, **self._lengths())
        if not counts.count:
            nothing: dict[str, Any] = {"true": 0, "sum": 0} if kind == "b" else {}
            return ColumnStats(**common, **nothing)
        return ColumnStats(
            **common,
            **self._moments(counts.weight),
            quantiles=() if kind == "b" else self._quantiles(quantiles, counts.weight),
            histogram=None if bins is None or kind not in "iuf" else self._histogram(bins),
        )

    def _scalar(self, value: Any) -> Any:
        """Return a database value as a value of the column's dtype."""
        if self._dtype.kind == "M":
            return np.array(value, np.int64).view(self._dtype)[()]
        return bool(value) if self._dtype.kind == "b" else value

    def _lengths(self) -> dict[str, Any]:
        length = "length(v)" if self._dtype.kind == "T" else "octet_length(v)"
        empty, least, most = self._one(
            f"SELECT coalesce(sum(w) FILTER ({length} = 0), 0), min({length}), max({length}) FROM g"  # noqa: S608 - our own SQL
        )
        return {"empty": int(empty), "min_length": least, "max_length": most}

    def _moments(self, weight: int) -> dict[str, Any]:
        low, high = self._counts.extremes()
        found = {"min": self._scalar(low), "max": self._scalar(high)}
        if self._dtype.kind == "f":
            return found | self._float_moments(low, high, weight)
        # Less than 2**127, because the weights add up to less than 2**63.
        (total,) = self._one("SELECT sum(v::HUGEINT * w) FROM g")
        if self._dtype.kind == "M":
            return found | {"mean": self._scalar(round(Fraction(total, weight)))}
        near = total // weight
        first, second = self._one(
            "SELECT fsum(d * w::DOUBLE), fsum(d * d * w::DOUBLE) FROM "  # noqa: S608 - our own SQL
            f"(SELECT (v::HUGEINT - {near}::HUGEINT)::DOUBLE AS d, w FROM g)"
        )
        found |= {
            "sum": total,
            "mean": float(Fraction(total, weight)),
            "stddev": math.sqrt(max(0.0, second - first * first / weight) / weight),
        }
        return found | ({"true": total} if self._dtype.kind == "b" else {})

    def _float_moments(self, low: float, high: float, weight: int) -> dict[str, Any]:
        if not (math.isfinite(low) and math.isfinite(high)):
            # As in IEEE arithmetic; compensated summation would turn an infinity into NaN.
            total = sum(end for end in (low, high) if not math.isfinite(end))
            return {"sum": total, "mean": total, "stddev": math.nan}
        # Use shares of the weight, because the sum itself may exceed a double.
        (near,) = self._one(f"SELECT fsum(v::DOUBLE * (w::DOUBLE / {weight})) FROM g")  # noqa: S608 - our own SQL
        near = min(max(near, low), high)
        first, second = self._one(
            "SELECT fsum(d * w::DOUBLE), fsum(d * d * w::DOUBLE) FROM "  # noqa: S608 - our own SQL
            f"(SELECT v::DOUBLE - {near!r}::DOUBLE AS d, w FROM g)"
        )
        mean = near + first / weight if math.isfinite(first) else near
        m2 = second - first * first / weight if math.isfinite(second) else second
        total = near * weight + first if math.isfinite(first) else mean * weight
        return {
            "sum": total,
            "mean": mean,
            "stddev": math.sqrt(max(0.0, m2) / weight) if not math.isnan(m2) else math.nan,
        }

    def _quantiles(self, asked: Sequence[float], weight: int) -> tuple[Quantile, ...]:
        if not asked:
            return ()
        # Interpret q as a decimal: 0.1 of 10 rows is 1 row.
        ranks = [max(1, math.ceil(Fraction(str(q)) * weight)) for q in asked]
        values = self._counts.ranked(ranks)
        return tuple(
            Quantile(q, value, value, value)
            for q, value in zip(asked, map(self._scalar, values), strict=True)
        )

    def _histogram(self, bins: "_Bins") -> Histogram | None:
        finite = "WHERE isfinite(v)" if self._dtype.kind == "f" else ""
        least, most = self._one(f"SELECT min(v), max(v) FROM g {finite}")  # noqa: S608 - our own SQL
        if least is None:
            return None
        edges = bins.edges(least, most)
        starts: list[Any] = edges[:-1].tolist()
        last: Any = edges.tolist()[-1]
        kind = "DOUBLE"
        if self._dtype.kind in "iu":
            # An integer is compared with the next integer above an edge, never rounded to a float.
            kind = "HUGEINT"
            starts, last = [math.ceil(edge) for edge in starts], math.floor(last)
            if bins.low is None:
                # The float64 nearest to an extreme value may lie beyond it.
                starts[0], last = least, most
        import pyarrow as pa

        # If several bins have the same lower edge, the last one gets the values; the others are
        # empty.
        numbers = {low: number for number, low in enumerate(starts)}
        self._counts.database.register(
            "edges",
            # Integers as text, because Arrow has none with more than 64 bits.
            pa.table({"number": list(numbers.values()), "low": [repr(low) for low in numbers]}),
        )
        counted = dict(
            self._run(
                f"SELECT CASE WHEN v > {_literal(last, kind)} THEN -1 ELSE number END AS bin, sum(w) "  # noqa: S608 - our own SQL
                f"FROM (SELECT v::{kind} AS v, w FROM g) AS g ASOF LEFT JOIN "
                f"(SELECT number, low::{kind} AS low FROM edges) AS edges ON g.v >= edges.low "
                "GROUP BY ALL"
            )
        )
        return Histogram(
            tuple(edges.tolist()),
            tuple(int(counted.get(number, 0)) for number in range(len(starts))),
            int(counted.get(None, 0)),
            int(counted.get(-1, 0)),
        )


def _literal(value: Any, kind: str) -> str:
    return f"'{value!r}'::{kind}"


@dataclass(frozen=True, slots=True)
class _Bins:
    """The number of bins of a histogram, and its first and last edge."""

    number: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.number, bool) or not isinstance(self.number, int):
            raise BridgeError(f"a number of bins is an integer: got {self.number!r}")
        if not 1 <= self.number <= MAX_BINS:
            raise BridgeError(f"expected 1 to {MAX_BINS} bins: got {self.number}")
        if self.low is not None and self.high is not None:
            fits = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
            if not fits:
                raise BridgeError(
                    f"expected a first edge below the last one: got {self.low} and {self.high}"
                )

    def edges(self, least: Any, most: Any) -> NDArray[np.float64]:
        """Return the edges, for finite values from ``least`` to ``most``."""
        low, high = self.low, self.high
        if low is None or high is None:
            low, high = float(least), float(most)
            if low == high:
                low, high = low - 0.5, high + 0.5
        if math.isfinite(high - low):
            return np.linspace(low, high, self.number + 1)
        return np.linspace(low / 2, high / 2, self.number + 1) * 2


def _as_bins(given: Any) -> _Bins | None:
    if given is None:
        return None
    if isinstance(given, int | np.integer):
        return _Bins(given if isinstance(given, bool) else int(given))
    try:
        number, low, high = given
        return _Bins(number, float(low), float(high))
    except (TypeError, ValueError):
        raise BridgeError(
            "a histogram is a number of bins, or (number, first edge, last edge): got "
            f"{given!r:.100}"
        ) from None
