"""The table of a raster and its sidecars as one, in memory, on a VRT that stands for the raster.

GDAL's tables in memory are what its drivers write; they hold all rows at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ratzarr import RatZarr

from ._gdal import exceptions, gdal, silence
from .column_access import readable_columns
from .copyplan import unique_names
from .errors import BridgeError, ColumnSelectionError, GdalError
from .gdalrat import bands_with_table, open_rat
from .gdalratwrite import open_rat_for_update
from .ratexport import copy_to_raster
from .read_options import DEFAULTS, ReadOptions

__all__ = ["Wanted", "fill", "stand_in_for"]

BLOCK_ROWS = 500_000


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
    reading: ReadOptions = DEFAULTS,
) -> bool:
    """Give a band of the stand-in its table; return whether it has any column.

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
    reading : ReadOptions
        For the raster's own table.

    Raises
    ------
    BridgeError
        Where two sidecars have a column of one name, or tables have other numbers of rows.
    """
    chosen, given = _chosen(tables, wanted, options)
    own = band in bands_with_table(dataset, options=reading)
    has_any = _copy_own(dataset, stand_in, band, wanted, given, reading) if own else False
    for path, names in chosen.items():
        copy_to_raster(
            path,
            stand_in,
            band=band,
            columns=names,
            cast={name: kind for name, kind in cast.items() if name in names},
            storage_options=options,
        )
    return has_any or bool(chosen)


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
                index, _ = sink.create_column(column.name, column.type, column.usage)
                for start in range(0, schema.rows, BLOCK_ROWS):
                    length = min(BLOCK_ROWS, schema.rows - start)
                    sink.write(index, start, source.read_native(column.index, start, length))
            if schema.table_type is not None:
                sink.set_table_type(schema.table_type)
            if schema.linear_binning is not None:
                sink.set_linear_binning(*schema.linear_binning)
            sink.commit()
    return True
