"""The table that a baked raster gets: the raster's own columns and its sidecars', in one table of GDAL's."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gdalbridge.copying.to_raster import copy_to_raster
from gdalbridge.errors import (
    BridgeError,
    ColumnSelectionError,
    ConversionError,
    GdalError,
)
from gdalbridge.gdalio.compat import (
    exceptions,
    gdal,
    own_rat,
    silence,
    write_array,
)
from gdalbridge.gdalio.field_types import FieldType, export_type, stored_dtype, type_name
from gdalbridge.gdalio.rat_reader import RatColumn, bands_with_table, open_rat, unique_names
from gdalbridge.gdalio.rat_writer import open_rat_for_update, with_plain_nan
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.sidecars.merged import INCOMPLETE, ShownColumn, merge
from ratzarr import RatZarr
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS, MISSING_ATTR, is_complete

__all__ = ["Filled", "Wanted", "fill", "nan_without_signs", "vrt_of"]


OLDER = {FieldType.BOOLEAN: FieldType.INTEGER, FieldType.DATETIME: FieldType.STRING}
"""Types that only GDAL 3.12 and later read, with types that every version reads."""


@dataclass(frozen=True, slots=True)
class Filled:
    """Notes about the table that a band was given."""

    older: Mapping[str, FieldType]
    """Columns that were written with an older type, with their original type."""
    singles: Collection[str]
    """Columns whose values are float32 or float16."""
    losses: Sequence[str]
    """Losses in words: missing integers, which GDAL does not have, and columns left out."""


class Wanted:
    """The selected columns, and those of them that were found."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        if isinstance(columns, str):
            raise ColumnSelectionError(
                f"columns must be a list of names: got the string {columns!r}"
            )
        self._selected: set[str | None] | None = None if columns is None else set(columns)
        self._found: set[str | None] = set()
        self._all: dict[str, None] = {}

    def takes(self, name: str, also: str | None = None) -> bool:
        """Return True if a column is selected by either of its names."""
        self._all[name] = None
        if self._selected is None:
            return True
        found = self._selected & {name, also}
        self._found |= found
        return bool(found)

    def check(self, raster: Any) -> None:
        """Check that every selected column was found.

        Raises
        ------
        ColumnSelectionError
            Names a missing column, and lists the existing ones.
        """
        missing = sorted(map(str, (self._selected or set()) - self._found))
        if missing:
            raise ColumnSelectionError(
                f"neither {raster} nor its sidecars have a column {missing[0]!r}; the columns are "
                f"{list(self._all)}"
            )


def vrt_of(dataset: Any) -> Any:
    """Return a VRT in memory that refers to a raster, without attribute tables."""
    with exceptions(), silence():
        try:
            made = gdal.Translate("", dataset, options="-of VRT -norat")
        except RuntimeError as error:
            raise GdalError(f"{dataset.GetDescription()}: {error}") from error
    if made is None:
        raise GdalError(f"{dataset.GetDescription()}: GDAL can't make a VRT of the raster")
    return made


@contextmanager
def nan_without_signs(vrt: Any, bands: Iterable[int]) -> Iterator[None]:
    """Take the signs off a VRT's NaNs while GDAL writes it as XML: :func:`with_plain_nan`."""
    signed = []
    with exceptions(), silence():
        for rat in [own_rat(vrt.GetRasterBand(band)) for band in bands]:
            for index in range(rat.GetColumnCount()):
                if rat.GetTypeOfCol(index) == FieldType.REAL:
                    values = rat.ReadAsArray(index)
                    plain = with_plain_nan(values)
                    if plain is not values:
                        signed.append((rat, values, index))
                        write_array(rat, plain, index, 0)
    yield
    for rat, values, index in signed:
        write_array(rat, values, index, 0)


def fill(
    dataset: Any,
    vrt: Any,
    band: int,
    tables: Sequence[RatZarr],
    wanted: Wanted,
    cast: Mapping[str, str],
    options: Mapping[str, Any] | None,
    *,
    native: bool,
    reading: ReadOptions = DEFAULTS,
) -> "Filled | None":
    """Write a band's merged table to the VRT; return None if it has no column.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    vrt : gdal.Dataset
        From :func:`vrt_of`.
    band : int
        Counted from 1.
    tables : sequence of RatZarr
        The band's sidecars, open.
    wanted : Wanted
        The selected columns.
    cast : mapping
        See :func:`gdalbridge.copying.to_raster.copy_to_raster`.
    options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    native : bool
        Keep the types of GDAL 3.12 and later. By default Boolean becomes Integer, and DateTime
        becomes String.
    reading : ReadOptions
        Options for reading the raster's own table.

    Raises
    ------
    BridgeError
        If two sidecars have a column of the same name, or tables differ in rows.
    """
    losses: list[str] = []
    chosen = _chosen(tables, wanted, losses)
    own = band in bands_with_table(dataset, options=reading)
    older: dict[str, FieldType] = {}
    first = dataset.GetDescription()
    first_rows: int | None = None
    if own:
        first_rows = _copy_own(
            dataset, vrt, band, wanted, chosen.values(), reading, None if native else older, losses
        )
    has_any = first_rows is not None
    singles: set[str] = set()
    for path, table in {str(one.filename): one for one in tables}.items():
        names = [one.key for one in chosen.get(path, [])]
        if not names:
            continue
        if first_rows is None:
            first, first_rows = path, table.rowCount
        elif table.rowCount != first_rows:
            raise BridgeError(
                Advice(
                    f"{first} has a table of {first_rows} rows, and {path} has {table.rowCount} rows.",
                    "Choose columns of one of them with columns=...",
                )
            )
        casts = {name: kind for name, kind in cast.items() if name in names}
        for one in chosen[path]:
            dtype, attributes = one.dtype, one.attributes
            if dtype.kind == "f" and dtype.itemsize < 8:
                singles.add(one.name)
            if dtype.kind in "iu" and (none := attributes.get(MISSING_ATTR)) is not None:
                rows = range(0, table.rowCount, BLOCK_ROWS)
                blocks = (table.readBlock(one.key, row, BLOCK_ROWS) for row in rows)
                losses += _missing(one.name, none, blocks)
            if native or one.key in casts or table.getColumnWidth(one.key) > 1:
                continue
            kind = export_type(one.key, dtype, attributes)
            if kind in OLDER:
                casts[one.key] = type_name(OLDER[kind])
                older[one.name] = kind
            elif kind > FieldType.STRING:
                raise ConversionError(_no_older(one.key, kind))
        copy_to_raster(
            table.filename, vrt, band=band, columns=names, cast=casts, storage_options=options
        )
    return Filled(older, singles, losses) if has_any or chosen else None


def _missing(name: str, none: Any, blocks: Iterable[Any]) -> list[str]:
    """Report the missing values of an integer column, because GDAL has no missing values."""
    count = sum(int(np.count_nonzero(block == none)) for block in blocks)
    if not count:
        return []
    values = "missing value is" if count == 1 else "missing values are"
    return [f"column {name!r}: {count} {values} written as {none}"]


def _no_older(name: str, kind: int) -> Advice:
    return Advice(
        f"column {name!r}: {type_name(kind)} can't be read by GDAL before 3.12.",
        "Leave it out, or use native=True to keep GDAL's newest types.",
    )


def _chosen(
    tables: Sequence[RatZarr], wanted: Wanted, losses: list[str]
) -> dict[str, list[ShownColumn]]:
    """Return the columns to copy, by table."""
    chosen: dict[str, list[ShownColumn]] = {}
    given: dict[str, str] = {}
    for table in tables:
        path = str(table.filename)
        keys = list(filter(wanted.takes, table.getColumnNames()))
        unreadable = table.getUnreadableColumns(keys)
        losses += [f"column {key!r} is left out: {why}" for key, why in unreadable.items()]
        for key in keys:
            if key in unreadable:
                continue
            attributes = table.getColumnAttributeMapping(key).asdict()
            if not is_complete(attributes):
                losses.append(f"column {key!r} is left out: {INCOMPLETE}")
                continue
            name = str(attributes.get("GDAL_NAME", key))
            if given.get(name, path) != path:
                raise BridgeError(
                    Advice(
                        f"{given[name]} and {path} both have a column {name!r}.",
                        "Choose columns with columns=..., or tables with sidecars=...",
                    )
                )
            given[name] = path
            dtype = table.getColumnDtype(key)
            chosen.setdefault(path, []).append(ShownColumn(key, name, None, dtype, attributes))
    return chosen


def _copy_own(
    dataset: Any,
    vrt: Any,
    band: int,
    wanted: Wanted,
    given: Collection[Sequence[ShownColumn]],
    reading: ReadOptions,
    older: dict[str, FieldType] | None,
    losses: list[str],
) -> int | None:
    """Copy the raster's own columns, except those that a sidecar replaces; return their rows."""
    with open_rat(dataset, band, options=reading) as source:
        schema = source.schema
        names = unique_names(schema.columns)
        own = [
            column
            for column in merge(schema.columns, given)
            if isinstance(column, RatColumn) and wanted.takes(names[column.index], column.name)
        ]
        theirs = {one.name for columns in given for one in columns}
        if not own:
            return None
        with open_rat_for_update(vrt, band) as sink:
            sink.set_row_count(schema.rows)
            for column in own:
                kind = column.type
                if older is not None and kind in OLDER:
                    older[column.name] = FieldType(kind)
                    kind = OLDER[FieldType(kind)]
                elif older is not None and kind > FieldType.STRING:
                    raise ConversionError(_no_older(column.name, kind))
                # GDAL allows a second column of one name: it stays beside the sidecar's.
                name = names[column.index] if column.name in theirs else column.name
                index = sink.create_column(name, kind, column.usage)
                none = source.missing(column.index).get(MISSING_ATTR)
                if none is not None:
                    rows = range(0, schema.rows, BLOCK_ROWS)
                    lengths = (min(BLOCK_ROWS, schema.rows - row) for row in rows)
                    blocks = map(partial(source.read, column.index), rows, lengths)
                    losses += _missing(column.name, none, blocks)
                for start in range(0, schema.rows, BLOCK_ROWS):
                    length = min(BLOCK_ROWS, schema.rows - start)
                    values = source.read_native(column.index, start, length)
                    if kind != column.type:
                        values = values.astype(stored_dtype(kind))
                    sink.write(index, start, values)
            if schema.table_type is not None:
                sink.set_table_type(schema.table_type)
            if schema.linear_binning is not None:
                sink.set_linear_binning(*schema.linear_binning)
            sink.commit()
    return schema.rows
