"""What of a table a raster has kept: two tables of GDAL's own, compared cell by cell."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NotWrittenError, RasterNotFoundError
from .gdalrat import RatColumn, RatSource, open_rat
from .gdaltypes import FieldType, type_name, usage_name

__all__ = ["losses_between"]

BLOCK_ROWS = 500_000
SHOWN = 3
"""Cells of a column that are named one by one."""


def losses_between(was: Any, now: Any, band: int) -> list[str]:
    """Say in words what a raster has otherwise than it was given.

    Parameters
    ----------
    was, now : gdal.Dataset or str
        The raster with the table as it should be, and the one that was to keep it.
    band : int
        Counted from 1, of both.

    Raises
    ------
    NotWrittenError
        Where there is no table, or its rows, columns or types are others.
    """
    with open_rat(was, band) as first:
        try:
            second = open_rat(now, band)
        except RasterNotFoundError as error:
            raise NotWrittenError(
                f"the format does not keep the table of band {band}: {error}"
            ) from error
        with second:
            return _losses(first, second)


def _losses(was: RatSource, now: RatSource) -> list[str]:
    then, found = was.schema, now.schema
    if (len(then.columns), then.rows) != (len(found.columns), found.rows):
        raise NotWrittenError(
            f"the format does not keep the table: it has {len(found.columns)} columns of "
            f"{found.rows} rows, and was given {len(then.columns)} of {then.rows}"
        )
    losses = []
    if then.table_type is not None and then.table_type != found.table_type:
        losses.append("the table's type was not kept")
    if then.linear_binning is not None and repr(then.linear_binning) != repr(found.linear_binning):
        losses.append(
            f"the linear binning became {found.linear_binning}, was {then.linear_binning}"
        )
    for before, after in zip(then.columns, found.columns, strict=True):
        losses += _of_description(before, after)
        losses += _of_values(was, now, before, after)
    return losses


def _of_description(before: RatColumn, after: RatColumn) -> list[str]:
    column = f"column {before.name!r}"
    losses = []
    if before.type != after.type:
        words = f"the type of {column} became {type_name(after.type)}"
        if (before.type, after.type) != (FieldType.INTEGER, FieldType.REAL):
            raise NotWrittenError(
                f"{words}, it was {type_name(before.type)}: leave it out (columns)"
            )
        losses.append(words)
    if before.name != after.name:
        losses.append(f"the name of {column} became {after.name!r}")
    if before.usage != after.usage:
        losses.append(
            f"the usage of {column} became {usage_name(after.usage)}, it was "
            f"{usage_name(before.usage)}"
        )
    return losses


def _of_values(was: RatSource, now: RatSource, before: RatColumn, after: RatColumn) -> list[str]:
    losses: list[str] = []
    changed, rows = 0, was.schema.rows
    for start in range(0, rows, BLOCK_ROWS):
        length = min(BLOCK_ROWS, rows - start)
        mine, theirs = (
            _comparable(source, column, start, length)
            for source, column in ((was, before), (now, after))
        )
        if mine.dtype.kind in "if" and theirs.dtype.kind == "f":
            # Every bit counts, of NaN as well.
            mine, theirs = (values.astype(np.float64).view("u8") for values in (mine, theirs))
        lost = np.flatnonzero(np.asarray(mine != theirs))
        for row in lost[: max(0, SHOWN - changed)].tolist():
            values = [
                _comparable(s, c, start + row, 1)[0] for s, c in ((was, before), (now, after))
            ]
            losses.append(
                f"column {before.name!r}, row {start + row}: {values[0]!s} became {values[1]!s}"
            )
        changed += len(lost)
    if changed > SHOWN:
        losses.append(f"column {before.name!r}: {changed} of {rows} values changed in all")
    return losses


def _comparable(source: RatSource, column: RatColumn, start: int, length: int) -> NDArray[Any]:
    if column.type == FieldType.DATETIME:
        return source.read_datetime_text(column.index, start, length)
    return source.read(column.index, start, length)
