"""Medians, percentiles, modes and fractions of pixels by row, from pixels sorted by DuckDB.

DuckDB counts or sorts the pixels of each row, and spills to a temporary directory what exceeds its
memory; here only the sorted pixels pass by, so the results are exact at any size.

With weights, which are whole numbers, each pixel counts as often as its weight says. Percentiles are
then the smallest value that has at least this share of the weight below and at it, as numpy's method
``inverted_cdf``.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.rasters.zonal_kernel import as_column
from gdalbridge.sql.query import Database

__all__ = ["RANKS", "RankTables", "is_rank"]

Array = NDArray[Any]

RANKS = frozenset({"median", "mode", "fraction"})
PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d{1,6})?)")
"""With at most 6 decimals, so that shares of counts are exact in 64 bits."""
MOST_CLASSES = 256
LEAST_MEMORY = 2**27
PENDING = 2**22
"""Pixels that are collected before DuckDB gets them."""


def is_rank(name: str) -> bool:
    """Return True for a statistic that needs the pixels in order."""
    return name in RANKS or _percent(name) is not None


def _percent(name: str) -> Fraction | None:
    if name == "median":
        return Fraction(50)
    found = PERCENTILE.fullmatch(name)
    value = None if found is None else Fraction(found[1])
    return value if value is not None and value <= 100 else None


def _shares(counts: Array, percent: Fraction) -> tuple[Array, Array]:
    """Return ``percent`` of each count as a whole number and the rest below 1.

    In integers: 1.1 percent of 1000 is 11, where floats give a little more.
    """
    share = percent / 100
    wholes, left = np.divmod(counts, share.denominator)
    more, rest = np.divmod(left * share.numerator, share.denominator)
    return wholes * share.numerator + more, rest / share.denominator


class RankTables:
    """The pixels of one band with their rows.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the pixels.
    stats : sequence of str
        For which :func:`is_rank` is true.
    what : str
        The image and band, for messages.
    memory : int
        Bytes that DuckDB may use before it spills to disk; it gets :data:`LEAST_MEMORY` at least.
    is_weighted : bool
        True if pixels have weights.
    """

    def __init__(
        self,
        dtype: np.dtype[Any],
        stats: Sequence[str],
        what: str,
        memory: int,
        *,
        is_weighted: bool = False,
    ) -> None:
        self._dtype, self._stats, self._what = dtype, tuple(stats), what
        self._is_weighted = is_weighted
        self._database = Database({}, memory=max(memory, LEAST_MEMORY))
        self._connection = self._database.connection
        types = {"f4": "FLOAT", "f8": "DOUBLE", "u8": "UBIGINT"}
        kind = types.get(f"{dtype.kind}{dtype.itemsize}", "BIGINT")
        self._execute(f"CREATE TABLE pairs (row BIGINT, v {kind}, n BIGINT)")
        self._rows: list[Array] = []
        self._values: list[Array] = []
        self._weights: list[Array] = []
        self._pending = 0

    def close(self) -> None:
        """Close the database, and remove what it has spilled."""
        self._database.close()

    def add(self, rows: Array, values: Array, weights: Array | None = None) -> None:
        """Add a window's pixels, with their weights as int64."""
        self._rows.append(rows)
        self._values.append(values)
        if weights is not None:
            self._weights.append(weights)
        self._pending += len(rows)
        if self._pending >= PENDING:
            self._insert()

    def pairs(self) -> Iterator[tuple[str, Array]]:
        """Yield all that was added, for a checkpoint: pieces of ``row``, ``v`` and ``n`` in turn."""
        self._insert()
        for batch in self._batches("SELECT row, v, n FROM pairs"):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield name, column.to_numpy()

    def restore(self, row: Array, v: Array, n: Array) -> None:
        """Add pieces of :meth:`pairs`."""
        import pyarrow as pa

        self._database.register("more", pa.table({"row": row, "v": pa.array(v), "n": n}))
        self._execute("INSERT INTO pairs SELECT row, v, n FROM more")
        self._database.in_thread(lambda: self._connection.unregister("more"))

    def _execute(self, query: str) -> list[tuple[Any, ...]]:
        # Not in this thread, where DuckDB would make its own error of Ctrl-C.
        found: list[tuple[Any, ...]]
        found = self._database.run(lambda: self._connection.execute(query).fetchall())
        return found

    def _batches(self, query: str) -> Iterator[Any]:
        _, found = self._database.batches(self._database.relation(query))
        return found

    def _insert(self) -> None:
        if not self._pending:
            return
        import pyarrow as pa

        rows, values = np.concatenate(self._rows), np.concatenate(self._values)
        weights = np.concatenate(self._weights) if self._weights else None
        self._rows, self._values, self._weights, self._pending = [], [], [], 0
        if values.dtype.kind in "iu":
            values = values if values.dtype == np.uint64 else values.astype(np.int64)
        else:
            # -0.0 and 0.0 are one value.
            values = values + values.dtype.type(0)
        found = {"row": rows, "v": pa.array(values, from_pandas=False)}
        if weights is not None:
            found["n"] = weights
        self._database.register("more", pa.table(found))
        # Counted here first: segments have far fewer values than pixels.
        count = "count(*)" if weights is None else "sum(n)"
        self._execute(
            f"INSERT INTO pairs SELECT row, v, {count} FROM more GROUP BY row, v"  # noqa: S608 - our own SQL
        )
        self._database.in_thread(lambda: self._connection.unregister("more"))

    def classes(self) -> list[int]:
        """Return the values of a class image, in order.

        Raises
        ------
        BridgeError
            If it has too many, or is no class image.
        """
        self._insert()
        if self._dtype.kind == "f":
            raise BridgeError(f"{self._what}: fractions are of classes, and its pixels are floats")
        found = self._execute(
            f"SELECT DISTINCT v FROM pairs ORDER BY v LIMIT {MOST_CLASSES + 1}"  # noqa: S608 - a number
        )
        if len(found) > MOST_CLASSES:
            raise BridgeError(
                f"{self._what}: fractions would need more than {MOST_CLASSES} columns, one for each "
                "value of the image"
            )
        return [int(value) for (value,) in found]

    def results(self, rows: int, step: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yield the statistics of consecutive blocks of rows, from row 0 to the last.

        Parameters
        ----------
        rows : int
            Number of rows of the table.
        step : int
            Rows of a block.
        """
        self._insert()
        classes = self.classes() if "fraction" in self._stats else []
        batches = self._batches(
            "SELECT row, v, sum(n)::BIGINT AS n FROM pairs GROUP BY row, v ORDER BY row, v"
        )
        held: list[tuple[Array, Array, Array]] = []
        ended = False
        for first in range(0, rows, step):
            stop = min(first + step, rows)
            while not ended and not (held and held[-1][0][-1] >= stop):
                batch = next(batches, None)
                if batch is None:
                    ended = True
                elif batch.num_rows:
                    held.append(tuple(one.to_numpy() for one in batch.columns))
            row, value, count = (
                np.concatenate([one[place] for one in held]) if held else np.zeros(0, np.int64)
                for place in range(3)
            )
            cut = int(np.searchsorted(row, stop))
            yield (
                first,
                self._block(
                    first, row[:cut] - first, value[:cut], count[:cut], stop - first, classes
                ),
            )
            held = [(row[cut:], value[cut:], count[cut:])] if cut < len(row) else []

    def _block(
        self,
        first: int,
        row: Array,
        value: Array,
        count: Array,
        rows: int,
        classes: Sequence[int],
    ) -> dict[str, Array]:
        found: dict[str, Array] = {}
        starts = np.searchsorted(row, np.arange(rows + 1))
        there = np.flatnonzero(starts[1:] > starts[:-1])
        cumulative = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        total = cumulative[starts[1:]] - cumulative[starts[:-1]]
        for name in self._stats:
            if name == "fraction":
                for one in classes:
                    part = np.full(rows, np.nan)
                    part[there] = 0.0
                    mine = value == one
                    part[row[mine]] = count[mine]
                    with np.errstate(invalid="ignore"):
                        found[f"fraction_{one}"] = part / np.where(total, total, 1)
                continue
            if name == "mode":
                modes = np.zeros(rows, value.dtype)
                if len(there):
                    most = np.maximum.reduceat(count, starts[there])
                    best = count == np.repeat(most, np.diff(np.append(starts[there], len(count))))
                    # The smallest of several equally frequent values.
                    firsts = np.flatnonzero(best)
                    _, at = np.unique(row[firsts], return_index=True)
                    modes[there] = value[firsts[at]]
                found["mode"] = as_column("mode", modes, total > 0, self._dtype, first, self._what)
                continue
            percent = _percent(name) or Fraction(0)
            out = np.full(rows, np.nan)
            if len(there) and self._is_weighted:
                least, rest = _shares(total[there], percent)
                least = np.maximum(least + (rest > 0), 1)
                at = np.searchsorted(cumulative, cumulative[starts[there]] + least)
                out[there] = value[at - 1]
            elif len(there):
                begin = cumulative[starts[there]]
                low, share = _shares(total[there] - 1, percent)
                high = np.minimum(low + 1, total[there] - 1)
                a, b = (
                    value[np.searchsorted(cumulative, begin + one, side="right") - 1].astype(
                        np.float64
                    )
                    for one in (low, high)
                )
                with np.errstate(invalid="ignore"):
                    out[there] = np.where(share == 0, a, a + (b - a) * share)
            found[name] = out
        return found
