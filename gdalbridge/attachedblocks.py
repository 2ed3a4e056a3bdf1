"""Blocks of rows of an attached table, as GDAL hands them out."""

from typing import Any

import numpy as np

from ._gdal import gdal
from .attachedcolumns import pieces
from .joined import Joined
from .ownrat import native_rat

__all__ = ["has_rows", "read_array", "read_values"]


def has_rows(joined: Joined, start: int, length: int) -> bool:
    """Return whether all of these are rows of the table."""
    return 0 <= start <= start + length <= joined.rows


def read_array(joined: Joined, field: int, start: int, length: int | None) -> Any:
    """Return rows of a column, as an array like GDAL's ``ReadAsArray``."""
    if length is None:
        length = joined.rows - start
    column = joined.column(field)
    if column is None or not has_rows(joined, start, length):
        return _no_such_block(joined, field, start, length)
    there = max(0, min(length, column.rows - start))
    if there == length and length:
        return column.read(start, length)
    empty = native_rat(column.type, None, length - there).ReadAsArray(0, 0, length - there)
    return np.concatenate([column.read(start, there), empty]) if there else empty


def read_values(joined: Joined, method: str, field: int, start: int, length: int) -> Any:
    """Return rows of a column as a list, by one of GDAL's ``ReadValuesIOAs...``."""
    column = joined.column(field)
    if column is None or not has_rows(joined, start, length):
        return _no_such_block(joined, field, start, length)
    found: list[Any] = []
    there = max(0, min(length, column.rows - start))
    for first, size in pieces(start, there):
        values = column.values(method, first, size)
        if values is None:
            return None
        found.extend(values)
    if there < length:
        rest = native_rat(column.type, None, length - there)
        values = getattr(rest, method)(0, 0, length - there)
        if values is None:
            return None
        found.extend(values)
    return found


def _no_such_block(joined: Joined, field: int, start: int, length: int) -> None:
    rows, columns = joined.rows, len(joined.columns)
    message = f"rows {start} to {start + length} of column {field} are not in {rows} x {columns}"
    # GDAL's own way: an exception where the program wants those, else a message and None.
    gdal.Error(gdal.CE_Failure, gdal.CPLE_AppDefined, message)
    if gdal.GetUseExceptions():
        raise RuntimeError(message)
