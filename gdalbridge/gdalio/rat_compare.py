"""Compare two GDAL tables cell by cell, to report a raster's losses."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from gdalbridge.errors import NotWrittenError, RasterNotFoundError
from gdalbridge.gdalio.compat import silence
from gdalbridge.gdalio.field_types import HFA_NAMES, FieldType, kept_name, type_name
from gdalbridge.gdalio.losses import DOUBLE, ValueLoss, description_loss, loss_lines, table_losses
from gdalbridge.gdalio.rat_reader import RatColumn, RatSource, open_rat
from gdalbridge.gdalio.read_options import ReadOptions
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS

__all__ = ["colour_losses", "losses_between"]

SINGLE = np.dtype(np.float32)


def losses_between(
    was: Any, now: Any, band: int, singles: Collection[str] = frozenset()
) -> list[str]:
    """Return descriptions of the differences between a raster's table and the original.

    Parameters
    ----------
    was, now : gdal.Dataset or str
        The raster with the original table, and the one that should have kept it.
    band : int
        Counted from 1, in both rasters.
    singles : collection of str
        Real columns with float32 values. They have no loss if the values are equal as float32.

    Raises
    ------
    NotWrittenError
        If the table is missing, or its rows, columns or types differ.
    """
    with open_rat(was, band) as first:
        try:
            second = open_rat(now, band, options=ReadOptions(compared=True))
        except RasterNotFoundError as error:
            raise NotWrittenError(
                f"the format does not keep the table of band {band}: {error}"
            ) from error
        with second:
            return _losses(first, second, singles)


def colour_losses(was: Any, now: Any) -> list[str]:
    """Return descriptions of the bands whose colour tables have changed or become shorter.

    Parameters
    ----------
    was, now : gdal.Dataset
    """
    losses = []
    for band in range(1, was.RasterCount + 1):
        before, after = (_colours(one.GetRasterBand(band)) for one in (was, now))
        # Drivers may or may not show the colour of nodata pixels as transparent.
        hidden = was.GetRasterBand(band).GetNoDataValue()
        changed = [
            index
            for index, colour in enumerate(before)
            if index >= len(after)
            or after[index][:3] != colour[:3]
            or (after[index] != colour and index != hidden)
        ]
        if not changed:
            continue
        first = changed[0]
        is_there = first < len(after)
        losses.append(
            f"the colour table of band {band}: entry {first}, {before[first]}, "
            + (f"became {after[first]}" if is_there else "was not kept")
            + (f"; {len(changed)} of {len(before)} changed in all" if len(changed) > 1 else "")
        )
    return losses


def _colours(band: Any) -> list[tuple[int, ...]]:
    with silence():
        table = band.GetColorTable()
        if table is None:
            return []
        return [tuple(table.GetColorEntry(index)) for index in range(table.GetCount())]


def _losses(was: RatSource, now: RatSource, singles: Collection[str]) -> list[str]:
    then, found = was.schema, now.schema
    pairs = _pairs(then.columns, found.columns)
    if pairs is None or then.rows != found.rows:
        raise NotWrittenError(
            f"the format does not keep the table: it has {len(found.columns)} columns of "
            f"{found.rows} rows, and was given {len(then.columns)} of {then.rows}"
        )
    losses, values = table_losses(then.table_type, then.linear_binning, found), []
    for before, after in pairs:
        losses += _of_description(before, after)
        values.append(_of_values(was, now, before, after, single=before.name in singles))
    return losses + loss_lines(values, f"{then.rows} values")


def _pairs(
    before: Sequence[RatColumn], after: Sequence[RatColumn]
) -> list[tuple[RatColumn, RatColumn]] | None:
    """Return the columns of both tables in pairs; None if they do not match.

    HFA inserts columns for the colour table and the histogram before the others.
    """
    kept = [kept_name(one.name, one.usage).lower() for one in before]
    by_name = {one.name.lower(): one for one in after}
    if len(by_name) == len(after) and len(set(kept)) == len(kept) and by_name.keys() >= set(kept):
        added = by_name.keys() - set(kept)
        if added <= {name.lower() for name in HFA_NAMES.values()}:
            return [(one, by_name[name]) for one, name in zip(before, kept, strict=True)]
    return list(zip(before, after, strict=True)) if len(before) == len(after) else None


def _of_description(before: RatColumn, after: RatColumn) -> list[str]:
    allowed = ((FieldType.INTEGER, FieldType.REAL), (before.type, before.type))
    if (before.type, after.type) not in allowed:
        raise NotWrittenError(
            Advice(
                f"the type of column {before.name!r} became {type_name(after.type)}, it was "
                f"{type_name(before.type)}.",
                "Choose other columns with columns=...",
            )
        )
    loss = description_loss(before, after)
    return [] if loss is None else [loss]


def _of_values(
    was: RatSource, now: RatSource, before: RatColumn, after: RatColumn, *, single: bool
) -> ValueLoss:
    found = ValueLoss(before.name, before.type == FieldType.REAL)
    dtype = SINGLE if single else DOUBLE
    for start in range(0, was.schema.rows, BLOCK_ROWS):
        length = min(BLOCK_ROWS, was.schema.rows - start)
        mine, theirs = (
            source.read_native(column.index, start, length)
            for source, column in ((was, before), (now, after))
        )
        found.add(start, mine, theirs, dtype)
    return found
