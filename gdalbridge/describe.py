"""What ``info`` and ``head`` print: a table as data, and that data as text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ratzarr import RatZarr
from ratzarr.layout import COMPLETE_ATTR, FORMAT_VERSION_ATTR, ROWS_DONE_ATTR

from .errors import BridgeError
from .gdaltypes import type_name, usage_name
from .sidecar import find_sidecars, is_sidecar, raster_name

__all__ = ["head", "head_text", "info", "info_text", "text_table"]


def info(table: str) -> dict[str, Any]:
    """Describe a sidecar, or a raster with its own tables and its sidecars.

    Parameters
    ----------
    table : str
        Path, URL or ``/vsi`` name.

    Returns
    -------
    dict
        Ready for JSON.
    """
    if is_sidecar(table):
        return {"sidecar": _sidecar(table)}
    from .gdalrat import bands_with_table, open_rat

    bands = []
    for band in bands_with_table(table):
        with open_rat(table, band) as source:
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
    sidecars = [
        {"band": one.band, "name": one.name} | _sidecar(one.path) for one in find_sidecars(table)
    ]
    return {"raster": raster_name(table), "tables": bands, "sidecars": sidecars}


def _sidecar(path: str) -> dict[str, Any]:
    with RatZarr(path, readOnly=True) as table:
        names = table.getColumnNames()
        # Of no rows: this opens all columns, their requests in parallel.
        table.readBlocks(names, 0, 0, allowIncomplete=True)
        columns = []
        for name in names:
            attributes = table.getColumnAttributeMapping(name).asdict()
            described: dict[str, Any] = {
                "name": name,
                "dtype": _dtype(table.getColumnDtype(name)),
                "width": table.getColumnWidth(name),
                "chunk_rows": table.getColumnChunkSize(name),
                "usage": usage_name(attributes.get("GDAL_USAGE", 0)),
            }
            if attributes.get(COMPLETE_ATTR, True) is False:
                described["rows_done"] = attributes.get(ROWS_DONE_ATTR, 0)
            log = table.getModificationLog(name)
            if log:
                when, user, argv = log[-1]
                described["last_write"] = [when.isoformat(), user, argv]
            columns.append(described)
        attributes = table.getRatAttributeMapping().asdict()
        return {
            "path": str(path),
            "rows": table.getRowCount(),
            "format_version": attributes.get(FORMAT_VERSION_ATTR),
            "chunk_rows": table.getRATChunkSize(),
            "table_type": attributes.get("GDAL_TABLE_TYPE"),
            "linear_binning": attributes.get("GDAL_LINEAR_BINNING"),
            "columns": columns,
        }


def _dtype(dtype: np.dtype[Any]) -> str:
    return {"T": "str", "O": "bytes"}.get(dtype.kind, str(dtype))


def info_text(found: Mapping[str, Any]) -> str:
    """Return what :func:`info` found, for reading."""
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
        lines[0] += f", {one['table_type']}"
    if one["linear_binning"]:
        lines.append("linear binning: row 0 from {}, bins of {}".format(*one["linear_binning"]))
    rows = []
    for column in one["columns"]:
        dtype = column["dtype"] + (f" x {column['width']}" if column["width"] > 1 else "")
        note = ""
        if "rows_done" in column:
            note = f"not complete: {column['rows_done']} rows are whole"
        rows.append((column["name"], dtype, column["usage"], note))
    return "\n".join([*lines, text_table(("column", "dtype", "usage", ""), rows)])


def head(
    table: str,
    *,
    rows: int = 10,
    start: int = 0,
    band: int = 1,
    name: str | None = None,
    columns: Sequence[str] = (),
) -> dict[str, Any]:
    """Return some rows of a sidecar; of a raster, its sidecar's, else its own table's.

    Returns
    -------
    dict
        ``table``, ``rows`` (of the whole table), ``start``, and ``columns``: lists of
        values by name, ready for JSON.
    """
    path = table
    if not is_sidecar(table):
        there = [one for one in find_sidecars(table, band) if one.name == name]
        if not there:
            if name is not None:
                raise BridgeError(f"{table} has no sidecar {name!r} of band {band}")
            return _own_head(table, rows, start, band, columns)
        path = there[0].path
    with RatZarr(path, readOnly=True) as store:
        count = store.getRowCount()
        first = min(start, count)
        blocks = store.readBlocks(columns or store.getColumnNames(), first, rows)
        return {
            "table": str(path),
            "rows": count,
            "start": first,
            "columns": {key: [_plain(v) for v in block] for key, block in blocks.items()},
        }


def _own_head(
    table: str, rows: int, start: int, band: int, columns: Sequence[str]
) -> dict[str, Any]:
    from .gdalrat import open_rat
    from .ratcopy import choose, unique_names

    with open_rat(table, band) as source:
        schema = source.schema
        first = min(start, schema.rows)
        length = min(rows, schema.rows - first)
        names = unique_names(schema.columns)
        return {
            "table": f"{source.name}, band {band}",
            "rows": schema.rows,
            "start": first,
            "columns": {
                names[column.index]: [_plain(v) for v in source.read(column.index, first, length)]
                for column in choose(schema.columns, list(columns) or None, source.name)
            },
        }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN and infinities as strings, bytes as hex."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def head_text(found: Mapping[str, Any]) -> str:
    """Return what :func:`head` found, for reading."""
    columns = found["columns"]
    length = max((len(values) for values in columns.values()), default=0)
    numbers = [found["start"] + i for i in range(length)]
    lines = [
        (str(number), *(_cell(values[i]) for values in columns.values()))
        for i, number in enumerate(numbers)
    ]
    title = f"{Path(found['table']).name}: rows {found['start']} to "
    title += f"{found['start'] + length - 1} of {found['rows']}" if length else "none"
    return f"{title}\n{text_table(('row', *columns), lines)}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= 40 else text[:37] + "..."


def text_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells under their names, in columns as wide as they need be."""
    cells = [[_cell(name) for name in names], *[[_cell(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
