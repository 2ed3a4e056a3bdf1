"""The output of ``info`` and ``head``: a table as data, and the data as text."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gdalbridge.errors import GdalMissingError, LossWarning, RasterNotFoundError
from gdalbridge.gdalio.field_types import type_name, usage_name
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.gdalio.special_files import refuse_special_files
from gdalbridge.sidecars.column_access import readable_columns
from gdalbridge.sidecars.naming import find_sidecars, is_sidecar, raster_name
from gdalbridge.sidecars.provenance import RASTER_ATTR
from gdalbridge.sidecars.staleness import (
    parsed_provenance,
    parsed_raster,
    pixel_changes,
    raster_changes,
    recorded_now,
)
from gdalbridge.text_table import cell, dtype_text, fitting, json_value, plain_text, text_table
from ratzarr import RatZarr
from ratzarr.format import (
    FORMAT_VERSION_ATTR,
    PROVENANCE_ATTR,
    ROWS_DONE_ATTR,
    is_complete,
)
from ratzarr.interop import is_missing, missing_value
from ratzarr.pipeline import run
from ratzarr.stores import gdal_name

if TYPE_CHECKING:
    from gdalbridge.sidecars.merged import Columns

__all__ = ["head", "head_text", "info", "info_text"]

SHOWN_NAMES = 5
"""Number of columns of the same origin that are listed by name."""


def info(table: str, reading: ReadOptions = DEFAULTS, band: int | None = None) -> dict[str, Any]:
    """Describe a sidecar, or a raster with its own tables and its sidecars.

    Parameters
    ----------
    table : str
        Path, URL or ``/vsi`` name.
    reading : ReadOptions
        For a raster's own table.
    band : int, optional
        Only this band of a raster; by default all.

    Returns
    -------
    dict
        JSON-compatible.
    """
    if is_sidecar(table):
        return {"sidecar": _sidecar(table)}
    from gdalbridge.gdalio.datasets import band_of, opened

    with opened(table) as dataset:
        if band is not None:
            band_of(dataset, band, table)
        return _raster_info(table, dataset, reading, band)


def _raster_info(
    table: str, dataset: Any, reading: ReadOptions, only: int | None
) -> dict[str, Any]:
    from gdalbridge.gdalio.rat_reader import bands_with_table, open_rat
    from gdalbridge.sidecars.host import find_hosted

    bands = []
    for band in bands_with_table(dataset, options=reading):
        if only not in (None, band):
            continue
        with open_rat(dataset, band, options=reading) as source:
            schema = source.schema
            bands.append(
                {
                    "band": band,
                    "rows": schema.rows,
                    "columns": [
                        {
                            "name": column.name,
                            "type": type_name(column.type),
                            "usage": usage_name(column.usage),
                        }
                        for column in schema.columns
                    ],
                }
            )
    sidecars = []
    for one in find_hosted(table):
        if only not in (None, one.sidecar.band):
            continue
        now = partial(one.host.now, dataset, one.sidecar.path)
        sidecars.append(
            {"band": one.sidecar.band, "name": one.sidecar.name} | _sidecar(one.sidecar.path, now)
        )
    return {"raster": raster_name(table), "tables": bands, "sidecars": sidecars}


def _sidecar(path: str, now: Callable[[], Mapping[str, Any]] | None = None) -> dict[str, Any]:
    with RatZarr(path, readOnly=True) as table:
        of_table = table.getRatAttributeMapping().asdict()
        names = table.getColumnNames()
        unreadable = table.getUnreadableColumns(names)
        columns: list[dict[str, Any]] = []
        for name in names:
            if name in unreadable:
                columns.append({"name": name, "unreadable": str(unreadable[name])})
                continue
            attributes = table.getColumnAttributeMapping(name).asdict()
            usage = attributes.get("GDAL_USAGE", 0)
            described: dict[str, Any] = {
                "name": name,
                "dtype": dtype_text(table.getColumnDtype(name)),
                "width": table.getColumnWidth(name),
                "chunk_rows": table.getColumnChunkSize(name),
                "usage": usage_name(usage if isinstance(usage, int) else -1),
            }
            if not is_complete(attributes):
                described["rows_done"] = attributes.get(ROWS_DONE_ATTR, 0)
            log = table.getModificationLog(name)
            if log:
                when, user, argv = log[-1]
                described["last_write"] = [when.isoformat(), user, argv]
            origin = parsed_provenance(attributes.get(PROVENANCE_ATTR))
            if origin is not None:
                described["provenance"] = origin
            columns.append(described)
        return {
            "path": str(path),
            "rows": table.getRowCount(),
            "format_version": of_table.get(FORMAT_VERSION_ATTR),
            "chunk_rows": table.getRATChunkSize(),
            "table_type": of_table.get("GDAL_TABLE_TYPE"),
            "linear_binning": of_table.get("GDAL_LINEAR_BINNING"),
            **_raster(of_table.get(RASTER_ATTR), path, now),
            "columns": columns,
        }


def _raster(
    recorded: Any, path: str, look: Callable[[], Mapping[str, Any]] | None
) -> dict[str, Any]:
    """Return a table's raster, and whether it has changed; None if the table records no raster."""
    found: dict[str, Any] = {"raster": parsed_raster(recorded), "fits": None, "changes": []}
    now: Mapping[str, Any] | None = None
    if look is not None:
        now = look()
    elif recorded is not None:
        with suppress(GdalMissingError):
            now = recorded_now(recorded, path)
    if recorded is not None and now is not None:
        found["changes"] = raster_changes(recorded, now)
        found["fits"] = not found["changes"]
        found["raster_now"] = now.get("fingerprint")
    return found


def info_text(found: Mapping[str, Any]) -> str:
    """Return the result of :func:`info` as text."""
    if "sidecar" in found:
        return _sidecar_text(found["sidecar"])
    parts = [str(found["raster"])]
    for table in found["tables"]:
        parts.append(f"band {table['band']}: {table['rows']} rows in the raster itself")
        rows = [(c["name"], c["type"], c["usage"]) for c in table["columns"]]
        parts.append(text_table(("column", "type", "usage"), rows))
    if not found["tables"]:
        parts.append("no table in the raster itself")
    parts += [_sidecar_text(one) for one in found["sidecars"]]
    if not found["sidecars"]:
        parts.append("no sidecar beside it")
    return "\n\n".join(parts)


def _sidecar_text(one: Mapping[str, Any]) -> str:
    lines = [f"{one['path']}: {one['rows']} rows, chunks of {one['chunk_rows']}"]
    if one["table_type"]:
        lines[0] += f", {plain_text(one['table_type'])}"
    if one["linear_binning"]:
        binning = one["linear_binning"]
        is_pair = isinstance(binning, list) and len(binning) == 2
        minimum, size = map(plain_text, binning) if is_pair else ("?", "?")
        lines.append(f"linear binning: row 0 from {minimum}, bins of {size}")
    lines += [*_raster_text(one), *_provenance_text(one)]
    rows, reasons = [], []
    for column in one["columns"]:
        if "unreadable" in column:
            rows.append((column["name"], "?", "", "can't be read"))
            reasons.append(f"column {plain_text(column['name'])}: {column['unreadable']}")
            continue
        dtype = column["dtype"] + (f" x {column['width']}" if column["width"] > 1 else "")
        note = ""
        if "rows_done" in column:
            note = f"incomplete: {column['rows_done']} rows are written"
        rows.append((column["name"], dtype, column["usage"], note))
    return "\n".join([*lines, text_table(("column", "dtype", "usage", ""), rows), *reasons])


def _raster_text(one: Mapping[str, Any]) -> list[str]:
    if one["raster"] is None:
        return [f"raster: {text}" for text in one["changes"]]
    name = plain_text(one["raster"]["name"] or "a raster in memory")
    line = f"raster: {name}" + _band_text(one["raster"])
    if one["fits"] is None:
        return [f"{line} (not found from here)"]
    if one["fits"]:
        return [f"{line}, unchanged since"]
    return [f"{line}, changed since: {'; '.join(map(plain_text, one['changes']))}"]


_NOT_FROM_RASTER = {"attach": "attached to", "join": "joined to", "table": "assigned to"}
"""Operations whose values come from elsewhere than the raster."""


def _operation_text(origin: Mapping[str, Any]) -> str:
    """Return a column's origin as text."""
    operation = str(origin["operation"])
    if operation == "apply":
        given = origin.get("inputs")
        inputs = ", ".join(map(str, given.values())) if isinstance(given, Mapping) else ""
        return f"apply {origin.get('function', 'a function')} to {inputs or 'no table'}"
    images = origin.get("images")
    if operation == "zonal" and isinstance(images, list) and images:
        return (
            f"zonal of {', '.join(map(str, images))} by {origin['raster'] or 'a raster in memory'}"
        )
    if "expression" in origin:
        operation = f"{operation} {origin['expression']!r}"
    words = _NOT_FROM_RASTER.get(operation, f"{operation} from")
    return f"{words} {origin['raster'] or 'a raster in memory'}"


def _band_text(described: Mapping[str, Any]) -> str:
    return "" if described["band"] is None else f", band {described['band']}"


def _provenance_text(one: Mapping[str, Any]) -> list[str]:
    """Return a line for each origin, which may have many columns."""
    origins: dict[str, list[str]] = {}
    now = one.get("raster_now") or (one["raster"] or {}).get("fingerprint")
    for column in one["columns"]:
        origin = column.get("provenance")
        if origin is None:
            continue
        line = _operation_text(origin)
        line += _band_text(origin)
        by = [f"{name} {version}" for name, version in origin["versions"].items()]
        line += f" ({', '.join(by)})" if by else ""
        same_name = one["raster"] is not None and origin["raster"] == one["raster"]["name"]
        if same_name and pixel_changes(origin["fingerprint"], now):
            line += f", as it was at {origin['fingerprint']['modified']}: changed since"
        origins.setdefault(plain_text(line), []).append(column["name"])
    lines = []
    for line, names in origins.items():
        shown = ", ".join(map(cell, names[:SHOWN_NAMES]))
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        lines.append(f"{line}: {shown}{more}")
    return lines


def head(
    table: str,
    *,
    rows: int = 10,
    start: int = 0,
    band: int = 1,
    name: str | None = None,
    columns: Sequence[str] = (),
    where: str | None = None,
    sort: Sequence[str] = (),
    reading: ReadOptions = DEFAULTS,
) -> dict[str, Any]:
    """Return some rows of a sidecar, or of a raster's columns merged with its sidecars'.

    Parameters
    ----------
    table : str
        Path, URL or ``/vsi`` name.
    rows, start : int
        Number of rows, and the first row; with ``where`` or ``sort`` the number of rows to leave out
        of those found.
    band : int
        Band of a raster, counted from 1.
    name : str, optional
        Of a raster's sidecars, use only the further table of this name.
    columns : sequence of str
        Only these columns; by default all.
    where : str, optional
        Only rows for which this expression is true; see :func:`gdalbridge.calc`.
    sort : sequence of str
        Names of columns that determine the order; a minus before a name means descending.
    reading : ReadOptions
        For a raster's own table.

    Returns
    -------
    dict
        ``table``, ``rows`` (of the whole table), ``start``, and ``columns``: lists of
        JSON-compatible values by name. Beyond the end of a shorter column they are None. With
        ``where`` or ``sort`` also these, and ``row_numbers``.
    """
    pick = _Pick(where, tuple(sort), start, rows)
    if is_sidecar(table):
        return _store_head(table, pick, columns)
    refuse_special_files(gdal_name(table))
    try:
        return _merged_head(table, pick, band, name, columns, reading)
    except (GdalMissingError, RasterNotFoundError) as error:
        # The sidecar may be readable even if the raster is not.
        there = [one for one in find_sidecars(table, band) if one.name == name]
        if not there:
            raise
        warnings.warn(
            f"only the sidecar is shown, without the raster's own columns: {error}",
            LossWarning,
            stacklevel=2,
        )
        return _store_head(there[0].path, pick, columns)


class _HeadColumn(NamedTuple):
    """A column of the table that is shown."""

    name: str
    rows: int
    chunk_rows: int
    read: Callable[[int, int], Any]
    """Takes the first row and the number of rows."""
    missing: Any

    def by_numbers(self, numbers: Sequence[int]) -> list[Any]:
        """Return rows by their numbers; those of one chunk are read together."""
        by_chunk: dict[int, list[int]] = {}
        for number in numbers:
            if number < self.rows:
                by_chunk.setdefault(number // self.chunk_rows, []).append(number)
        found: dict[int, Any] = {}
        for rows in by_chunk.values():
            first = min(rows)
            block = self.read(first, max(rows) - first + 1)
            values = _shown(block[np.array(rows) - first], self.missing)
            found |= zip(rows, values, strict=True)
        return [found.get(number) for number in numbers]


@dataclass(frozen=True, slots=True)
class _Pick:
    """The rows to show."""

    where: str | None
    sort: tuple[str, ...]
    start: int
    count: int

    def shown(
        self, title: str, rows: int, columns: Sequence[_HeadColumn], there: "_Opener"
    ) -> dict[str, Any]:
        """Return the result of :func:`head`."""
        found: dict[str, Any] = {"table": title, "rows": rows}
        if self.where is None and not self.sort:
            first = min(self.start, rows)
            length = min(self.count, rows - first)
            blocks = run(
                [
                    partial(one.read, min(first, one.rows), max(0, min(length, one.rows - first)))
                    for one in columns
                ]
            )
            return found | {
                "start": first,
                "columns": {
                    one.name: _shown(block, one.missing) + [None] * (length - len(block))
                    for one, block in zip(columns, blocks, strict=True)
                },
            }
        from gdalbridge.sql.condition import selected_rows

        with there() as opened:
            numbers = selected_rows(
                opened, self.where, self.sort, start=self.start, count=self.count
            )
        return found | {
            "start": self.start,
            "where": self.where,
            "sort": list(self.sort),
            "row_numbers": numbers,
            "columns": {one.name: one.by_numbers(numbers) for one in columns},
        }


type _Opener = Callable[[], AbstractContextManager["Columns"]]


def _merged_head(
    table: str,
    pick: _Pick,
    band: int,
    name: str | None,
    columns: Sequence[str],
    reading: ReadOptions,
) -> dict[str, Any]:
    from gdalbridge.sidecars.merged import open_columns

    names = None if name is None else [name]
    with open_columns(table, band=band, names=names, options=reading) as there:
        chosen = [
            _HeadColumn(one.name, one.rows, one.chunk_rows, one.read, one.missing_value())
            for one in there.chosen(columns or None)
        ]
        title = there.name if band == 1 else f"{there.name}, band {band}"
        return pick.shown(title, there.rows, chosen, lambda: nullcontext(there))


def _store_head(path: str, pick: _Pick, columns: Sequence[str]) -> dict[str, Any]:
    def there() -> AbstractContextManager["Columns"]:
        from gdalbridge.sidecars.merged import open_columns

        return open_columns(path)

    # Not merged columns: opening these would open the columns that are not shown, and needs GDAL.
    with RatZarr(path, readOnly=True) as store:
        rows = store.getRowCount()
        chosen = [
            _HeadColumn(
                name,
                rows,
                store.getColumnChunkSize(name),
                partial(store.readBlock, name),
                missing_value(
                    store.getColumnAttributeMapping(name).asdict(), store.getColumnDtype(name)
                ),
            )
            for name in columns or readable_columns(store)
        ]
        return pick.shown(str(path), rows, chosen, there)


def _shown(block: Any, missing: Any) -> list[Any]:
    """Return values as JSON has them; those that stand for a missing one are None."""
    values = [json_value(value) for value in block]
    if missing is None:
        return values
    masks = is_missing(block, missing).tolist()
    return [_masked(value, mask) for value, mask in zip(values, masks, strict=True)]


def _masked(value: Any, mask: Any) -> Any:
    if isinstance(mask, list):
        return [_masked(*one) for one in zip(value, mask, strict=True)]
    return None if mask else value


def head_text(found: Mapping[str, Any], width: int | None = None) -> str:
    """Return the result of :func:`head` as text.

    Parameters
    ----------
    found : mapping
        From :func:`head`.
    width : int, optional
        Width of a line. Columns that do not fit are counted in the last line. By default all are
        shown.
    """
    columns = found["columns"]
    length = max((len(values) for values in columns.values()), default=0)
    numbers = found.get("row_numbers", range(found["start"], found["start"] + length))
    lines = [
        (str(number), *(cell(values[i]) for values in columns.values()))
        for i, number in enumerate(numbers)
    ]
    title = f"{Path(found['table']).name}: "
    if "row_numbers" in found:
        title += f"{len(numbers)} of {found['rows']} rows"
        title += f", from match {found['start']}" if found["start"] else ""
        title += f", where {plain_text(found['where'])}" if found["where"] is not None else ""
        title += f", sorted by {plain_text(', '.join(found['sort']))}" if found["sort"] else ""
    else:
        start, rows = found["start"], found["rows"]
        if length:
            title += f"rows {start} to {start + length - 1} of {rows}"
        else:
            title += f"no rows from {start} on, of {rows}" if start else "no rows"
    names = ("row", *columns)
    shown = fitting(names, lines, width)
    text = f"{title}\n{text_table(names[:shown], [line[:shown] for line in lines])}"
    more = len(names) - shown
    if more:
        text += f"\n... and {more} more column{'s' if more > 1 else ''}: --all shows them"
    return text
