"""The row of the table that a pixel value belongs to.

GDAL's rule (``RasterAttributeTable.GetRowOfValue``) decides: with linear binning, the bin of the
value; otherwise the row whose column of usage MinMax has the value, or whose columns of usage Min
and Max enclose it. A table without these columns has the row number equal to the value. Here all
pixels of an array are looked up at once, and a table that GDAL's rule would answer arbitrarily is
refused.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.field_types import FieldUsage, usage_in
from gdalbridge.sidecars.merged import Column, Columns
from gdalbridge.text_table import kind_text
from ratzarr.format import BLOCK_ROWS

__all__ = ["PixelRows", "pixel_rows", "rows_of_values"]

Array = NDArray[Any]
Rows = NDArray[np.int64]

NO_ROW = -1
MOST_UNUSED = 4
"""Pixel values are looked up in an array with one element for each number from the smallest to the
largest value, if that is at most this many times the number of rows."""


class PixelRows:
    """The rows of pixel values; made by :func:`pixel_rows`.

    Attributes
    ----------
    rows : int
        Number of rows of the table.
    is_identity : bool
        True if the row number is the pixel value.
    how : str
        The rule, for people.
    """

    def __init__(self, rows: int, how: str, *values: Array) -> None:
        self.rows, self.how = rows, how
        self.is_identity = False
        self._decisive = values

    def digest(self) -> str:
        """Return a digest of the rule; a rule that finds other rows has another digest."""
        found = hashlib.sha256(f"{self.rows} {self.how}".encode())
        for one in self._decisive:
            found.update(np.ascontiguousarray(one).data)
        return found.hexdigest()[:16]

    def of(self, pixels: Array) -> Rows:
        """Return the row of each pixel, -1 where the table has none.

        Parameters
        ----------
        pixels : ndarray of integers or floats
            Of any shape. NaN has no row.
        """
        raise NotImplementedError

    def values(self, first: int, stop: int) -> Array:
        """Return the pixel values of rows, if each row has one."""
        raise BridgeError(f"a row does not have one pixel value here: {self.how}")


class _Identity(PixelRows):
    def __init__(self, rows: int) -> None:
        super().__init__(rows, "the row number is the pixel value")
        self.is_identity = True

    def of(self, pixels: Array) -> Rows:
        if pixels.dtype.kind == "f":
            raise BridgeError(
                "the pixels are floats, which can't be row numbers: the table needs linear "
                "binning, or a column of usage MinMax with the pixel value of each row"
            )
        if pixels.dtype == np.uint64:
            found = np.where(pixels < np.uint64(self.rows), pixels, 0).astype(np.int64)
            found[pixels >= np.uint64(self.rows)] = NO_ROW
            return found
        found = pixels.astype(np.int64)
        if not pixels.size or (int(pixels.min()) >= 0 and int(pixels.max()) < self.rows):
            return found
        found[(found < 0) | (found >= self.rows)] = NO_ROW
        return found

    def values(self, first: int, stop: int) -> Array:
        return np.arange(first, stop)


class _Bins(PixelRows):
    def __init__(self, rows: int, minimum: float, size: float) -> None:
        super().__init__(rows, f"linear binning from {minimum}, bins of {size}")
        self._minimum, self._size = minimum, size

    def of(self, pixels: Array) -> Rows:
        with np.errstate(invalid="ignore"):
            bins = np.floor((pixels.astype(np.float64) - self._minimum) / self._size)
            inside = (bins >= 0) & (bins < self.rows)
        return np.where(inside, bins, NO_ROW).astype(np.int64)


class _Values(PixelRows):
    """One value for each row, in any order. The first of several rows with a value counts."""

    def __init__(self, column: str, values: Array) -> None:
        super().__init__(len(values), f"column {column!r} has the pixel values", values)
        self._given = values
        self._table: Array | None = None
        low, high = (int(values.min()), int(values.max())) if values.dtype.kind != "f" else (0, -1)
        self._low = low
        if 0 <= high - low < max(MOST_UNUSED * len(values), 2**20):
            self._table = np.full(high - low + 1, NO_ROW, np.int64)
            # As integers without a sign, whose differences fit. Backwards, so that the first row of
            # a value is the one that stays.
            places = (values - values.dtype.type(low)).astype(f"u{values.dtype.itemsize}")
            self._table[places[::-1]] = np.arange(len(values) - 1, -1, -1)
        else:
            self._order = np.argsort(values, kind="stable")
            self._sorted = values[self._order]

    def of(self, pixels: Array) -> Rows:
        flat = pixels.reshape(-1)
        if flat.dtype.kind == "f":
            # GDAL compares doubles.
            flat = flat.astype(np.float64)
        if self._table is not None:
            inside = (flat >= self._low) & (flat <= self._low + len(self._table) - 1)
            if flat.dtype.kind == "f":
                inside &= flat == np.floor(flat)
            # Outside values are looked up at the first place, and dropped afterwards.
            at = np.where(inside, flat, np.asarray(self._low).astype(flat.dtype))
            kind = np.int64 if self._low < 0 else np.uint64
            found = self._table[(at.astype(kind) - kind(self._low)) * inside]
            return np.where(inside, found, NO_ROW).reshape(pixels.shape)
        values, fits = self._sorted, None
        if "f" in (flat.dtype.kind, values.dtype.kind):
            values, flat = values.astype(np.float64), flat.astype(np.float64)
        elif flat.dtype.kind != values.dtype.kind:
            # Not as floats, which would round integers of 64 bits.
            kind = np.int64 if values.dtype.kind == "i" else np.uint64
            fits = flat <= np.iinfo(np.int64).max if kind is np.int64 else flat >= 0
            values, flat = values.astype(kind), flat.astype(kind)
        at = np.minimum(np.searchsorted(values, flat), len(values) - 1)
        same = values[at] == flat if fits is None else (values[at] == flat) & fits
        return np.where(same, self._order[at], NO_ROW).reshape(pixels.shape)

    def values(self, first: int, stop: int) -> Array:
        return self._given[first:stop]


class _Ranges(PixelRows):
    """A range for each row, both ends included, in ascending order."""

    def __init__(self, names: str, low: Array, high: Array) -> None:
        super().__init__(len(low), f"columns {names} have ranges of pixel values", low, high)
        self._low, self._high = low, high

    def of(self, pixels: Array) -> Rows:
        values = pixels.astype(np.float64)
        # The first range that does not end before the value.
        at = np.searchsorted(self._high, values)
        inside = at < len(self._high)
        at = np.where(inside, at, 0)
        with np.errstate(invalid="ignore"):
            inside &= self._low[at] <= values
        return np.where(inside, at, NO_ROW).astype(np.int64)


def rows_of_values(rows: int) -> PixelRows:
    """Return the rule of a table whose row numbers are the pixel values."""
    return _Identity(rows)


def pixel_rows(columns: Columns) -> PixelRows:
    """Return the rule by which pixels of a raster belong to rows of its table.

    Parameters
    ----------
    columns : Columns
        The raster's table, open.

    Raises
    ------
    BridgeError
        If the rule has no clear answer: a text column of usage MinMax, Min without Max, ranges that
        overlap or are not in ascending order, or a bin size of 0.
    """
    rows = columns.rows
    if columns.binning is not None:
        minimum, size = columns.binning
        if not (np.isfinite(minimum) and np.isfinite(size) and size > 0):
            raise BridgeError(
                f"{columns.name}: linear binning from {minimum} with bins of {size} has no bins"
            )
        return _Bins(rows, minimum, size)
    both, low, high = (
        _of_usage(columns, usage) for usage in (FieldUsage.MIN_MAX, FieldUsage.MIN, FieldUsage.MAX)
    )
    if both is not None:
        return _by_value(columns, both, rows)
    if low is None and high is None:
        return _Identity(rows)
    if low is None or high is None:
        there = low or high
        name = there.name if there is not None else ""
        raise BridgeError(
            f"{columns.name}: column {name!r} is one end of ranges of pixel values, and there "
            "is no column for the other end (usage Min and Max)"
        )
    ends = [_numbers(columns, one).astype(np.float64) for one in (low, high)]
    names = f"{low.name!r} and {high.name!r}"
    starts, stops = (one[: min(map(len, ends))] for one in ends)
    wrong = ~(starts <= stops)
    wrong[1:] |= ~((starts[1:] >= stops[:-1]) & (stops[1:] > stops[:-1]))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BridgeError(
            f"{columns.name}: columns {names} have no clear ranges of pixel values: row {row} has "
            f"{starts[row]} to {stops[row]}"
            + (f", row {row - 1} {starts[row - 1]} to {stops[row - 1]}" if row else "")
        )
    return _Ranges(names, starts, stops)


def _of_usage(columns: Columns, usage: FieldUsage) -> Column | None:
    for one in columns.by_name.values():
        if usage_in(one.attributes) == usage and one.width == 1:
            return one
    return None


def _by_value(columns: Columns, column: Column, rows: int) -> PixelRows:
    """Read the column block by block; while it has the row numbers, nothing is kept."""
    kept: list[Array] = []
    for first in range(0, column.rows, BLOCK_ROWS):
        values = _checked(
            columns, column, column.read(first, min(BLOCK_ROWS, column.rows - first))
        )
        if not kept and np.array_equal(values, np.arange(first, first + len(values))):
            continue
        if not kept and first:
            kept.append(np.arange(first).astype(values.dtype))
        kept.append(values)
    if not kept:
        return _Identity(min(rows, column.rows))
    return _Values(column.name, np.concatenate(kept))


def _numbers(columns: Columns, column: Column) -> Array:
    return _checked(columns, column, column.read(0, column.rows))


def _checked(columns: Columns, column: Column, values: Array) -> Array:
    if values.dtype.kind not in "iufb":
        raise BridgeError(
            f"{columns.name}: column {column.name!r} has the usage "
            f"{FieldUsage(usage_in(column.attributes)).name}, for pixel values: expected numbers, "
            f"got {kind_text(values.dtype)}"
        )
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and len(values) and np.all(values == np.floor(values)):
        whole = np.abs(values) < 2**53
        if whole.all():
            return values.astype(np.int64)
    return values
