"""Write GeoPackages, GeoJSON and dBASE tables with GDAL; report or refuse what they can't hold.

A GeoPackage has 64-bit integers and floats. A dBASE table (``.dbf``, and ``.vat.dbf`` beside a
raster) has decimal numbers of fixed width, text of at most 254 bytes, and names of at most 10
bytes, so its columns are measured before they are written.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.gdalio.vector_layer import LayerField, LayerPolygons, LayerWriter
from ratzarr.errors import Advice

__all__ = [
    "CHOOSE",
    "Losses",
    "check_calendar",
    "check_kinds",
    "refuse_rows",
    "write_dbf",
    "write_geojson",
    "write_gpkg",
]

LAYER = "rat"
"""Name of the layer in a GeoPackage, as in SQL queries."""
NAME_BYTES = 10
TEXT_BYTES = 254
DIGITS = 18
"""GDAL reads wider whole numbers of a dBASE table as floats, which would round."""
REAL_WIDTH, REAL_DECIMALS = 24, 15
MOST_FIELDS = 255
MOST_BYTES = 2**31 - 1
"""Largest size of a dBASE table in bytes: ArcGIS and many other programs can't read larger ones."""
FIRST_DAY, FIRST_AFTER = "0001-01-01", "10000-01-01"
GPKG, GEOJSON = "a GeoPackage", "GeoJSON"
ELSEWHERE = "Parquet and Arrow files keep it"


@dataclass
class Losses:
    """What a format does not keep, by column."""

    strict: bool = False
    losses: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def lose(self, column: str, words: str) -> None:
        """Record that values of a column change.

        Raises
        ------
        ConversionError
            If losses are errors.
        """
        if self.strict:
            raise ConversionError(f"column {column!r}: {words}")
        self.losses.setdefault(column, words)

    def note(self, column: str, words: str) -> None:
        """Record how a column's values are written."""
        self.notes.setdefault(column, words)


def check_kinds(
    schema: Any, format_name: str, refused: Mapping[Callable[[Any], bool], str]
) -> None:
    """Refuse columns of types that a format does not have.

    Parameters
    ----------
    schema : pyarrow.Schema
    format_name : str
        For messages.
    refused : mapping
        What to call the types, by tests of :mod:`pyarrow.types`.
    """
    for one in schema:
        for test, words in refused.items():
            if test(one.type):
                raise ConversionError(
                    Advice(
                        f"column {one.name!r}: {format_name} can't hold {words}; {ELSEWHERE}.",
                        "Choose the other columns with columns=...",
                    )
                )


def refuse_rows(batch: Any, name: str, bad: Any, words: str) -> None:
    """Raise an error for the first row for which ``bad`` is true.

    The first column of the batch has the row numbers.
    """
    if not pc.any(bad).as_py():
        return
    at = pc.index(bad, True).as_py()
    row = batch.column(0)[at].as_py()
    value = batch.column(name)[at]
    try:
        shown = repr(value.as_py())
    except (ValueError, OverflowError):
        # Python has no such date.
        shown = f"{value.value} ({value.type})"
    raise ConversionError(f"column {name!r}, row {row}: {shown:.80} {words}")


def check_calendar(batch: Any, format_name: str) -> None:
    """Refuse date-times beyond the years 1 to 9999."""
    for one in batch.schema:
        if pa.types.is_date32(one.type):
            unit, bits = "D", pa.int32()
        elif pa.types.is_timestamp(one.type) and one.type.unit != "ns":
            # Nanoseconds only reach the year 2262.
            unit, bits = one.type.unit, pa.int64()
        else:
            continue
        ends = np.array([FIRST_DAY, FIRST_AFTER], f"M8[{unit}]").astype(np.int64).tolist()
        numbers = batch.column(one.name).view(bits)
        bad = pc.or_(pc.less(numbers, ends[0]), pc.greater_equal(numbers, ends[1]))
        refuse_rows(batch, one.name, bad, f"is beyond the years 1 to 9999 of {format_name}")


def _check_text(batch: Any, name: str, format_name: str) -> None:
    bad = pc.match_substring(batch.column(name), "\0")
    refuse_rows(batch, name, bad, f"has a zero character, where text ends in {format_name}")


def _field(name: str, kind: Any) -> LayerField:
    """Return the field for a column of Arrow's type."""
    types = pa.types
    if types.is_boolean(kind):
        return LayerField(name, "integer", "boolean")
    if types.is_integer(kind):
        if kind.bit_width == 8 or kind == pa.int16():
            return LayerField(name, "integer", "int16")
        small = kind in (pa.uint16(), pa.int32())
        return LayerField(name, "integer" if small else "integer64")
    if types.is_floating(kind):
        return LayerField(name, "real", "float32" if kind == pa.float32() else "")
    if types.is_date(kind):
        return LayerField(name, "date")
    if types.is_timestamp(kind):
        return LayerField(name, "datetime")
    return LayerField(name, "binary" if types.is_binary(kind) else "string")


_LAYER_TYPES = {
    "integer64": pa.int64(), "real": pa.float64(), "string": pa.string(), "date": pa.date32(),
    "datetime": pa.timestamp("ms", "UTC"), "binary": pa.binary(),
}  # fmt: skip


def _layer_type(one: LayerField) -> Any:
    """Return the Arrow type of the values for a field."""
    if one.kind == "integer":
        return {"boolean": pa.bool_(), "int16": pa.int16()}.get(one.subtype, pa.int32())
    if one.subtype == "float32":
        return pa.float32()
    return _LAYER_TYPES[one.kind]


RENAME = "Give them other names with rename=..."
CHOOSE = "Choose other columns with columns=..., or write GeoParquet, which takes any names."
"""Advice for polygon files, in which columns can't be renamed."""


def _check_case(schema: Any, format_name: str, hint: str) -> None:
    seen: dict[str, str] = {}
    for name in schema.names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise BridgeError(
                Advice(
                    f"columns {other!r} and {name!r}: names in {format_name} differ in more than case.",
                    hint,
                )
            )


# ---- GeoPackage


def write_gpkg(
    path: Path,
    schema: Any,
    batches: Iterable[Any],
    *,
    row: bool,
    losses: Losses,
    polygons: LayerPolygons | None = None,
) -> None:
    """Write batches to a GeoPackage, by default as a layer without geometry.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
        Its first column has the row numbers.
    batches : iterable of pyarrow.RecordBatch
    row : bool
        Row numbers become the features' numbers (FID).
    losses : Losses
    polygons : LayerPolygons, optional
        Its column is the last one of the schema.
    """
    columns = pa.schema(list(schema)[1 : None if polygons is None else -1])
    _check_case(schema if row else columns, GPKG, RENAME if polygons is None else CHOOSE)
    fid = schema.names[0] if row else "fid"
    while not row and fid.casefold() in {one.casefold() for one in columns.names}:
        fid = f"_{fid}"
    options = [f"FID={fid}"]
    if polygons is not None:
        options.append(f"GEOMETRY_NAME={polygons.name}")
    _write_layer(
        "GPKG", path, schema, columns, batches, GPKG, losses, fid if row else None, options,
        polygons,
    )  # fmt: skip


def write_geojson(
    path: Path, schema: Any, batches: Iterable[Any], *, losses: Losses, polygons: LayerPolygons
) -> None:
    """Write batches to a GeoJSON file, in the coordinate reference system that they have.

    Parameters are those of :func:`write_gpkg`; the first column becomes a property, too.
    """
    columns = pa.schema(list(schema)[:-1])
    check_kinds(columns, GEOJSON, {pa.types.is_binary: "bytes"})
    # Its default would round coordinates.
    options = ["COORDINATE_PRECISION=17", "WRITE_NAME=NO"]
    _write_layer(
        "GeoJSON", path, schema, columns, batches, GEOJSON, losses, None, options, polygons
    )


def _write_layer(
    driver: str,
    path: Path,
    schema: Any,
    columns: Any,
    batches: Iterable[Any],
    what: str,
    losses: Losses,
    fid: str | None,
    options: list[str],
    polygons: LayerPolygons | None,
) -> None:
    check_kinds(columns, what, {pa.types.is_fixed_size_list: "several values per row"})
    fields = [_field(one.name, one.type) for one in columns]
    target = [(one.name, _layer_type(one)) for one in fields]
    if fid is not None:
        target.insert(0, (fid, pa.int64()))
    if polygons is not None:
        target.append((polygons.name, pa.binary()))
    kept = schema.names if fid is not None else [name for name, _ in target]
    with LayerWriter(
        driver, str(path), LAYER, fields, fid=fid, options=options, polygons=polygons
    ) as layer:
        for batch in batches:
            _check_gpkg(batch, columns, what, losses)
            batch = batch if list(kept) == batch.schema.names else batch.select(kept)
            if what == GEOJSON:
                batch = _finite(batch)
            layer.write(_cast(batch, pa.schema(target)))


def _finite(batch: Any) -> Any:
    """Return a batch with NULL in place of NaN; infinities are refused, which JSON lacks, too."""
    for at, one in enumerate(batch.schema):
        if pa.types.is_floating(one.type):
            values = batch.column(at)
            refuse_rows(batch, one.name, pc.is_inf(values), f"is no number of {GEOJSON}")
            batch = batch.set_column(at, one, pc.if_else(pc.is_nan(values), None, values))
    return batch


def _check_gpkg(batch: Any, columns: Any, what: str, losses: Losses) -> None:
    check_calendar(batch, what)
    for one in columns:
        values = batch.column(one.name)
        if pa.types.is_string(one.type):
            _check_text(batch, one.name, what)
        elif one.type == pa.uint64():
            bad = pc.greater(values, pa.scalar(2**63 - 1, pa.uint64()))
            refuse_rows(batch, one.name, bad, f"has 64 bits and no sign, unlike {what}'s integers")
        elif pa.types.is_floating(one.type):
            if pc.any(pc.is_nan(values)).as_py():
                losses.note(one.name, "NaN is NULL")
        elif pa.types.is_timestamp(one.type) and one.type.unit in ("us", "ns"):
            part = 1000 if one.type.unit == "us" else 1_000_000
            numbers = values.view(pa.int64())
            whole = pc.multiply(pc.divide(numbers, part), part)
            refuse_rows(
                batch, one.name, pc.not_equal(whole, numbers),
                f"is finer than the milliseconds of {what}; {ELSEWHERE}",
            )  # fmt: skip


def _cast(batch: Any, target: Any) -> Any:
    return pa.RecordBatch.from_arrays(
        [
            column.cast(one.type, safe=False) if column.type != one.type else column
            for column, one in zip(batch.columns, target, strict=True)
        ],
        schema=target,
    )


# ---- dBASE


@dataclass
class _Measured:
    """The measures of a column's values that determine its dBASE field."""

    longest: int = 0
    """Largest length of a text, in bytes."""
    least: float | int = 0
    greatest: float | int = 0
    whole: bool = True
    """True if all floats are whole numbers."""


def write_dbf(
    path: Path,
    schema: Any,
    batches: Callable[[], Iterator[Any]],
    *,
    row: bool,
    losses: Losses,
    whole: Iterable[str] = (),
    hint: str = RENAME,
) -> None:
    """Write batches to a dBASE table with its ``.cpg``, which says that it is in UTF-8.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
        Its first column has the row numbers.
    batches : callable
        Returns the batches; it is called twice.
    row : bool
        Row numbers are the first column.
    losses : Losses
    whole : iterable of str
        Columns that must have whole numbers.
    hint : str
        What helps with names that don't fit.
    """
    what = "a dBASE table"
    refused = {
        pa.types.is_fixed_size_list: "several values per row",
        pa.types.is_binary: "bytes",
    }
    check_kinds(schema, what, refused)
    columns = schema if row else pa.schema(list(schema)[1:])
    _check_dbf_names(columns, what, hint)
    _check_case(columns, what, hint)
    found = {one.name: _Measured() for one in columns}
    rows = 0
    for batch in batches():
        rows += batch.num_rows
        check_calendar(batch, what)
        for one in columns:
            _measure(found[one.name], batch, one, what)
    for name in whole:
        if not found[name].whole:
            raise ConversionError(
                f"column {name!r} has fractions, and in a .vat.dbf it is a whole number"
            )
    fields = [_dbf_field(one, found[one.name]) for one in columns]
    size = rows * (1 + sum(one.width for one in fields))
    if size > MOST_BYTES:
        raise ConversionError(
            Advice(
                f"{rows} rows would take {size} bytes, and {what} at most {MOST_BYTES}.",
                "Choose fewer columns with columns=..., or fewer rows with where=...",
            )
        )
    target = pa.schema([(one.name, _dbf_type(one)) for one in fields])
    with LayerWriter(
        "ESRI Shapefile", str(path), path.stem, fields, options=["ENCODING=UTF-8"]
    ) as layer:
        for batch in batches():
            arrays = [_dbf_values(batch.column(one.name), one, losses) for one in fields]
            layer.write(pa.RecordBatch.from_arrays(arrays, schema=target))


def _check_dbf_names(columns: Any, what: str, hint: str) -> None:
    if len(columns) > MOST_FIELDS:
        raise BridgeError(
            Advice(
                f"{len(columns)} columns are too many for {what}, which has up to {MOST_FIELDS}.",
                "Choose columns with columns=...",
            )
        )
    wrong = [name for name in columns.names if not 0 < len(name.encode()) <= NAME_BYTES]
    if wrong:
        raise BridgeError(
            Advice(
                f"names in {what} have 1 to {NAME_BYTES} bytes, and "
                f"{', '.join(f'{name!r} has {len(name.encode())}' for name in wrong)}.",
                hint,
            )
        )


def _measure(found: _Measured, batch: Any, one: Any, what: str) -> None:
    values = batch.column(one.name)
    if pa.types.is_string(one.type):
        _check_text(batch, one.name, what)
        lengths = pc.binary_length(values)
        refuse_rows(
            batch, one.name, pc.greater(lengths, TEXT_BYTES),
            f"is longer than the {TEXT_BYTES} bytes of text in {what}; {ELSEWHERE}",
        )  # fmt: skip
        found.longest = max(found.longest, pc.max(lengths).as_py() or 0)
    elif pa.types.is_integer(one.type):
        limit = 10**DIGITS - 1
        # Arrow's comparisons need a number of the same type.
        if one.type.bit_width == 64:
            bad = pc.greater(values, pa.scalar(limit, one.type))
            if one.type == pa.int64():
                bad = pc.or_(bad, pc.less(values, -limit))
            refuse_rows(
                batch, one.name, bad,
                f"has more than {DIGITS} digits, which GDAL reads as a rounded float; {ELSEWHERE}",
            )  # fmt: skip
        ends = pc.min_max(values)
        found.least = min(found.least, ends["min"].as_py() or 0)
        found.greatest = max(found.greatest, ends["max"].as_py() or 0)
    elif pa.types.is_floating(one.type):
        bad = pc.or_(pc.is_inf(values), pc.greater_equal(pc.abs(values), 10.0**DIGITS))
        bad = pc.and_(bad, pc.invert(pc.is_nan(values)))
        refuse_rows(
            batch, one.name, bad, f"has more than {DIGITS} digits before the point; {ELSEWHERE}"
        )
        known = pc.if_else(pc.is_finite(values), values, None)
        ends = pc.min_max(known)
        found.least = min(found.least, ends["min"].as_py() or 0)
        found.greatest = max(found.greatest, ends["max"].as_py() or 0)
        if found.whole:
            found.whole = pc.all(pc.equal(pc.trunc(known), known)).as_py() is not False


def _dbf_field(one: Any, found: _Measured) -> LayerField:
    name, kind = one.name, one.type
    digits = max(len(str(int(found.greatest))), len(str(int(found.least))))
    if pa.types.is_boolean(kind):
        return LayerField(name, "integer", "boolean", 1)
    if pa.types.is_integer(kind):
        return LayerField(name, "integer64", width=digits)
    if pa.types.is_floating(kind):
        if found.whole:
            return LayerField(name, "real", width=digits)
        # A sign and the point.
        decimals = min(REAL_DECIMALS, REAL_WIDTH - 2 - digits)
        return LayerField(name, "real", width=REAL_WIDTH, decimals=decimals)
    if pa.types.is_date(kind):
        return LayerField(name, "date", width=8)
    if pa.types.is_timestamp(kind):
        return LayerField(name, "string", width=29)
    return LayerField(name, "string", width=max(1, found.longest))


def _dbf_type(one: LayerField) -> Any:
    return pa.bool_() if one.subtype == "boolean" else _LAYER_TYPES[one.kind]


def _dbf_values(values: Any, one: LayerField, losses: Losses) -> Any:
    """Return values as they are written, and record losses."""
    kind = values.type
    if pa.types.is_floating(kind):
        if pc.any(pc.is_nan(values)).as_py():
            losses.note(one.name, "NaN is NULL")
        values = pc.if_else(pc.is_nan(values), None, values)
        if one.decimals and one.name not in losses.losses and _rounds(values, one.decimals):
            losses.lose(one.name, f"a dBASE table rounds it to {one.decimals} decimals")
    elif pa.types.is_string(kind) and one.name not in losses.losses:
        if pc.any(pc.or_(pc.starts_with(values, " "), pc.ends_with(values, " "))).as_py():
            losses.lose(one.name, "GDAL drops blanks around the text of a dBASE table")
    elif pa.types.is_timestamp(kind):
        losses.note(one.name, "date-times are text, because a dBASE table has only dates")
        return pc.binary_replace_slice(values.cast(pa.string()), 10, 11, "T")
    return values.cast(_dbf_type(one), safe=False) if values.type != _dbf_type(one) else values


def _rounds(values: Any, decimals: int) -> bool:
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    kind = numbers.dtype.type
    return any(kind(f"{number:.{decimals}f}") != number for number in numbers)
