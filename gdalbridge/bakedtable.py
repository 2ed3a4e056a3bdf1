"""The table of a raster and its sidecars as one, in memory, on a VRT that stands for the raster.

GDAL's tables in memory are what its drivers write; they hold all rows at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratzarr import RatZarr

from ._gdal import exceptions, gdal, silence
from .column_access import readable_columns
from .copyplan import unique_names
from .errors import BridgeError, ColumnSelectionError, ConversionError, GdalError
from .gdalrat import bands_with_table, open_rat
from .gdalratwrite import open_rat_for_update
from .gdaltypes import FieldType, export_type, stored_dtype, type_name
from .ratexport import copy_to_raster
from .read_options import DEFAULTS, ReadOptions

__all__ = ["Filled", "Wanted", "fill", "stand_in_for"]

BLOCK_ROWS = 500_000


OLDER = {FieldType.BOOLEAN: FieldType.INTEGER, FieldType.DATETIME: FieldType.STRING}
"""Types that every version of GDAL reads, by types of 3.12 and later."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The table of a band."""

    older: Mapping[str, FieldType]
    """Columns that got an older type, with the type that they would have had."""
    singles: Collection[str]
    """Columns whose values are float32 or float16."""


class Wanted:
    """The columns that were asked for, and which of them were met."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        if isinstance(columns, str):
            raise ColumnSelectionError(f"columns is a list of names: got the string {columns!r}")
        self._asked: set[str | None] | None = None if columns is None else set(columns)
        self._met: set[str | None] = set()
        self._seen: dict[str, None] = {}

    def takes(self, name: str, also: str | None = None) -> bool:
        """Return whether a column is wanted, by the one name or by the other."""
        self._seen[name] = None
        if self._asked is None:
            return True
        met = self._asked & {name, also}
        self._met |= met
        return bool(met)

    def check(self, raster: Any) -> None:
        """Refuse names that no column had.

        Raises
        ------
        ColumnSelectionError
            Names one, and the columns that there are.
        """
        missing = sorted(map(str, (self._asked or set()) - self._met))
        if missing:
            raise ColumnSelectionError(
                f"{raster} has no column {missing[0]!r}, nor have its sidecars; there are "
                f"{list(self._seen)}"
            )


def stand_in_for(dataset: Any) -> Any:
    """Return a VRT in memory that shows a raster, without any table."""
    with exceptions(), silence():
        try:
            made = gdal.Translate("", dataset, options="-of VRT -norat")
        except RuntimeError as error:
            raise GdalError(f"{dataset.GetDescription()}: {error}") from error
    if made is None:
        raise GdalError(f"{dataset.GetDescription()}: GDAL can't make a VRT of it")
    return made


def fill(
    dataset: Any,
    stand_in: Any,
    band: int,
    tables: Sequence[str],
    wanted: Wanted,
    cast: Mapping[str, str],
    options: Mapping[str, Any] | None,
    *,
    native: bool,
    reading: ReadOptions = DEFAULTS,
) -> "Filled | None":
    """Give a band of the stand-in its table; return None if it has no column.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    stand_in : gdal.Dataset
        From :func:`stand_in_for`.
    band : int
        Counted from 1.
    tables : sequence of str
        The band's sidecars.
    wanted : Wanted
        Asked for each column by name.
    cast : mapping
        See :func:`gdalbridge.ratexport.copy_to_raster`.
    options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    native : bool
        Keep the types of GDAL 3.12 and later. By default Boolean becomes Integer, and DateTime
        becomes String.
    reading : ReadOptions
        For the raster's own table.

    Raises
    ------
    BridgeError
        Where two sidecars have a column of one name, or tables have other numbers of rows.
    """
    chosen, given = _chosen(tables, wanted, options)
    own = band in bands_with_table(dataset, options=reading)
    older: dict[str, FieldType] = {}
    has_any = False
    if own:
        has_any = _copy_own(
            dataset, stand_in, band, wanted, given, reading, None if native else older
        )
    singles: set[str] = set()
    for path, names in chosen.items():
        casts = {name: kind for name, kind in cast.items() if name in names}
        with RatZarr(path, readOnly=True, storageOptions=options) as table:
            for name in names:
                dtype = table.getColumnDtype(name)
                attributes = table.getColumnAttributeMapping(name).asdict()
                shown = str(attributes.get("GDAL_NAME", name))
                if dtype.kind == "f" and dtype.itemsize < 8:
                    singles.add(shown)
                if native or name in casts or table.getColumnWidth(name) > 1:
                    continue
                kind = export_type(name, dtype, attributes)
                if kind in OLDER:
                    casts[name] = type_name(OLDER[kind])
                    older[shown] = kind
                elif kind > FieldType.STRING:
                    raise ConversionError(_no_older(name, kind))
        copy_to_raster(
            path,
            stand_in,
            band=band,
            columns=names,
            cast=casts,
            storage_options=options,
        )
    return Filled(older, singles) if has_any or chosen else None


def _no_older(name: str, kind: int) -> str:
    return (
        f"column {name!r}: {type_name(kind)} can't be read by GDAL before 3.12. Leave it out "
        "(columns), or ask for GDAL's newest types (native=True, --native)"
    )


def _chosen(
    tables: Sequence[str], wanted: Wanted, options: Mapping[str, Any] | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the columns to copy by table, and by GDAL's name of a column its table."""
    chosen: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for path in tables:
        with RatZarr(path, readOnly=True, storageOptions=options) as table:
            for key in readable_columns(table, filter(wanted.takes, table.getColumnNames())):
                name = str(table.getColumnAttributeMapping(key).get("GDAL_NAME", key))
                if given.get(name, path) != path:
                    raise BridgeError(
                        f"{given[name]} and {path} both have a column {name!r}: choose the columns "
                        "(columns), or the tables (sidecars)"
                    )
                given[name] = path
                chosen.setdefault(path, []).append(key)
    return chosen, given


def _copy_own(
    dataset: Any,
    stand_in: Any,
    band: int,
    wanted: Wanted,
    given: Mapping[str, str],
    reading: ReadOptions,
    older: dict[str, FieldType] | None,
) -> bool:
    """Copy the raster's own columns, but for those that a sidecar has as well."""
    with open_rat(dataset, band, options=reading) as source:
        schema = source.schema
        names = unique_names(schema.columns)
        own = [
            column
            for column in schema.columns
            if column.name not in given and wanted.takes(names[column.index], column.name)
        ]
        if not own:
            return False
        with open_rat_for_update(stand_in, band) as sink:
            sink.set_row_count(schema.rows)
            for column in own:
                kind = column.type
                if older is not None and kind in OLDER:
                    older[column.name] = FieldType(kind)
                    kind = OLDER[FieldType(kind)]
                elif older is not None and kind > FieldType.STRING:
                    raise ConversionError(_no_older(column.name, kind))
                index, _ = sink.create_column(column.name, kind, column.usage)
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
    return True
