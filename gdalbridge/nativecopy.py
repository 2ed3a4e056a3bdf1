"""The attached table as tables of GDAL's own: a whole one in memory, and pieces to look rows up in.

What GDAL makes of a table (its text, the row that a value belongs to) is asked of GDAL.
"""

from typing import Any

import numpy as np

from ._gdal import exceptions, gdal, silence
from .attachedcolumns import AttachedColumn, pieces, plain_of, usage_for_gdal
from .joined import Joined
from .ownrat import name_for_gdal

__all__ = ["RowFinder", "in_memory"]

KEPT_PIECES = 64
"""Pieces of a table that are kept for the next value; those beyond are made anew each time."""


def in_memory(joined: Joined) -> Any:
    """Return a table of GDAL's with all that is in the attached one.

    A name that is not UTF-8 can't be given to GDAL from Python: what of it is none is
    U+FFFD in the copy.
    """
    rat = gdal.RasterAttributeTable()
    with exceptions(), silence():
        rat.SetRowCount(joined.rows)
        for column in joined.columns:
            _add(rat, column, 0, joined.rows)
        if joined.linear_binning is not None:
            rat.SetLinearBinning(*joined.linear_binning)
        rat.SetTableType(joined.table_type)
    return rat


def _add(rat: Any, column: AttachedColumn, start: int, rows: int) -> None:
    """Add a column with these rows of it; what it lacks of them stays GDAL's empty value."""
    index = rat.GetColumnCount()
    rat.CreateColumn(name_for_gdal(column.name), int(column.type), usage_for_gdal(column))
    there = max(0, min(rows, column.rows - start))
    values = [plain_of(column, first, size) for first, size in pieces(start, there)]
    if values:
        # At once: some versions write other rows than a block's that begins later.
        plain = values[0] if len(values) == 1 else np.concatenate(values)
        rat.WriteArray(np.ascontiguousarray(plain), index)


class RowFinder:
    """Finds rows as GDAL does: by linear binning, or else in the columns of limits.

    Parameters
    ----------
    joined : Joined
        It must not change as long as this is used.
    """

    def __init__(self, joined: Joined) -> None:
        self._joined = joined
        self._kept: list[Any] = []
        self._binned: Any = None
        binning = joined.linear_binning
        if binning is not None:
            self._binned = gdal.RasterAttributeTable()
            self._binned.SetRowCount(joined.rows)
            self._binned.SetLinearBinning(*binning)
        usages = [column.usage for column in joined.columns]
        wanted = [
            next((usages.index(usage) for usage in both if usage in usages), None)
            for both in ((gdal.GFU_Min, gdal.GFU_MinMax), (gdal.GFU_Max, gdal.GFU_MinMax))
        ]
        self._limits = [
            joined.columns[index] for index in dict.fromkeys(wanted) if index is not None
        ]

    def find(self, value: Any) -> int:
        """Return the first row that a value belongs to; -1 for none."""
        if self._binned is not None:
            return int(self._binned.GetRowOfValue(value))
        rows = self._joined.rows if self._limits else 0
        # Of no rows one is asked as well, which knows what no value is.
        for number, (first, size) in enumerate(list(pieces(0, rows)) or [(0, 0)]):
            row = self._piece(number, first, size).GetRowOfValue(value)
            if row >= 0:
                return first + int(row)
        return -1

    def _piece(self, number: int, first: int, size: int) -> Any:
        if number < len(self._kept):
            return self._kept[number]
        rat = gdal.RasterAttributeTable()
        with exceptions(), silence():
            rat.SetRowCount(size)
            for column in self._limits:
                _add(rat, column, first, size)
        if number < KEPT_PIECES:
            self._kept.append(rat)
        return rat
