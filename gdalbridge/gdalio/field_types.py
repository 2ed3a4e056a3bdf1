"""GDAL's column types and usages, and the dtypes they are stored as. Pure: no GDAL here.

:data:`CONVERSIONS` is the table of docs/conversions.md, both ways.

>>> stored_dtype(FieldType.INTEGER), type_name(4), usage_name(1), usage_name(99)
(dtype('int32'), 'DateTime', 'PixelCount', 'Unknown 99')
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from gdalbridge.errors import ConversionError
from ratzarr.format import BYTES

__all__ = [
    "COLOUR_USAGES",
    "CONVERSIONS",
    "HFA_NAMES",
    "FieldType",
    "FieldUsage",
    "conversion_table",
    "export_type",
    "hfa_colour_conflict",
    "hfa_cut",
    "kept_name",
    "kept_usage",
    "parse_type",
    "replaced_column",
    "stored_dtype",
    "type_name",
    "usage_attributes",
    "usage_in",
    "usage_name",
]


class FieldType(IntEnum):
    """``GDALRATFieldType``; the last three from GDAL 3.12 on."""

    INTEGER = 0
    REAL = 1
    STRING = 2
    BOOLEAN = 3
    DATETIME = 4
    WKB_GEOMETRY = 5


_TYPE_NAMES = {
    FieldType.INTEGER: "Integer",
    FieldType.REAL: "Real",
    FieldType.STRING: "String",
    FieldType.BOOLEAN: "Boolean",
    FieldType.DATETIME: "DateTime",
    FieldType.WKB_GEOMETRY: "WKBGeometry",
}


class FieldUsage(IntEnum):
    """``GDALRATFieldUsage``."""

    GENERIC = 0
    PIXEL_COUNT = 1
    NAME = 2
    MIN = 3
    MAX = 4
    MIN_MAX = 5
    RED = 6
    GREEN = 7
    BLUE = 8
    ALPHA = 9
    RED_MIN = 10
    GREEN_MIN = 11
    BLUE_MIN = 12
    ALPHA_MIN = 13
    RED_MAX = 14
    GREEN_MAX = 15
    BLUE_MAX = 16
    ALPHA_MAX = 17


COLOUR_USAGES = frozenset({6, 7, 8, 9})
"""GDAL makes columns of these usages Integer, whatever type was asked for."""

HFA_NAMES = {1: "Histogram", 2: "Class_Names", 6: "Red", 7: "Green", 8: "Blue", 9: "Opacity"}
"""What HFA calls columns of these usages, whatever name was asked for."""
HFA_NAME_BYTES = 63

# From, to, and when. "checked" means that every value is, and an unequal one is an error
# that names its row.
CONVERSIONS: tuple[tuple[str, str, str], ...] = (
    ("GDAL Integer", "int32", "exact"),
    ("GDAL Real", "float64", "exact, every bit"),
    (
        "GDAL String",
        "str",
        "exact; text that is not UTF-8 is refused, unless its encoding is given",
    ),
    ("GDAL Boolean", "bool", "exact"),
    (
        "GDAL DateTime",
        "datetime64[us]",
        (
            "in UTC, with the common offset in UTC_OFFSET_MINUTES; to the millisecond, and finer "
            "where GDAL's 32-bit seconds are; years 1 to 9999"
        ),
    ),
    (
        "GDAL DateTime, offsets mixed",
        "str",
        "ISO-8601 with offset; so are all of a column made through an attached table",
    ),
    ("GDAL WKBGeometry", "bytes", "exact; no bytes is null"),
    ("bool", "Boolean", "exact; before GDAL 3.12 only where Integer is asked for"),
    ("int8, int16, int32, uint8, uint16", "Integer", "exact"),
    (
        "uint32, int64, uint64",
        "Integer",
        "checked: refused below -2147483648 and above 2147483647; Real or String can be asked for",
    ),
    ("float16, float32, float64", "Real", "exact"),
    ("str", "String", "exact; a zero character is refused, as GDAL would cut there"),
    ("fixed-width bytes", "String", "checked: refused where not UTF-8"),
    ("bytes", "WKBGeometry", "exact; refused before GDAL 3.12"),
    (
        "datetime64",
        "DateTime",
        (
            "checked: to the millisecond, years 1 to 9999; String can be asked for; refused before "
            "GDAL 3.12"
        ),
    ),
    ("several values per row", "", "refused: GDAL has one value per cell"),
    ("anything, asked to be Integer, Real, ...", "that type", "checked: refused where unequal"),
)


def type_name(number: int) -> str:
    """Return GDAL's name of a column type."""
    return _TYPE_NAMES[FieldType(number)] if number in set(FieldType) else f"Unknown {number}"


def usage_name(number: int) -> str:
    """Return GDAL's name of a usage."""
    if number not in set(FieldUsage):
        return f"Unknown {number}"
    return "".join(part.capitalize() for part in FieldUsage(number).name.split("_"))


def usage_attributes(number: int) -> dict[str, Any]:
    """Return the attributes by which a stored column keeps its usage."""
    return {"GDAL_USAGE": int(number), "GDAL_USAGE_NAME": usage_name(number)}


def usage_in(attributes: Mapping[str, Any]) -> int:
    """Return the number of GDAL's usage that a column's attributes tell; 0 where they don't."""
    usage = attributes.get("GDAL_USAGE")
    return usage if isinstance(usage, int) and not isinstance(usage, bool) else 0


def kept_usage(usage: int, dtype: np.dtype[Any]) -> int:
    """Return the usage that a column keeps when values of this dtype replace its own.

    GDAL's colours are integers: a column of other values can't have such a usage.
    """
    is_lost = usage in COLOUR_USAGES and dtype.kind not in "iu"
    return int(FieldUsage.GENERIC) if is_lost else usage


def parse_type(name: str | int) -> FieldType:
    """Return a column type by its name or number.

    Raises
    ------
    ConversionError
        Lists the names there are.
    """
    for kind, text in _TYPE_NAMES.items():
        if name == kind or (isinstance(name, str) and name.lower() == text.lower()):
            return kind
    raise ConversionError(
        f"{name!r} is no type of GDAL's: expected one of {', '.join(_TYPE_NAMES.values())}"
    )


def stored_dtype(kind: int) -> np.dtype[Any]:
    """Return the dtype that a column of a GDAL type is stored as."""
    dtypes: dict[FieldType, np.dtype[Any]] = {
        FieldType.INTEGER: np.dtype(np.int32),
        FieldType.REAL: np.dtype(np.float64),
        FieldType.STRING: np.dtypes.StringDType(),
        FieldType.BOOLEAN: np.dtype(np.bool_),
        FieldType.DATETIME: np.dtype("datetime64[us]"),
        FieldType.WKB_GEOMETRY: BYTES,
    }
    return dtypes[FieldType(kind)]


# What a stored kind can be in GDAL at all; the first is the default.
_EXPORTS: dict[str, tuple[FieldType, ...]] = {
    "b": (FieldType.BOOLEAN, FieldType.INTEGER, FieldType.REAL, FieldType.STRING),
    "i": (FieldType.INTEGER, FieldType.REAL, FieldType.STRING, FieldType.BOOLEAN),
    "u": (FieldType.INTEGER, FieldType.REAL, FieldType.STRING, FieldType.BOOLEAN),
    "f": (FieldType.REAL, FieldType.INTEGER, FieldType.STRING, FieldType.BOOLEAN),
    "T": (FieldType.STRING, FieldType.DATETIME),
    "S": (FieldType.STRING,),
    "M": (FieldType.DATETIME, FieldType.STRING),
    "O": (FieldType.WKB_GEOMETRY,),
}


def export_type(
    column: str,
    dtype: np.dtype[Any],
    attributes: Mapping[str, Any],
    cast: str | None = None,
    *,
    new_types: bool = True,
) -> FieldType:
    """Return the GDAL type that a stored column becomes.

    Parameters
    ----------
    column : str
        For messages.
    dtype : numpy.dtype
        The column's.
    attributes : mapping
        The column's: ``GDAL_TYPE`` decides where the dtype can be that type.
    cast : str, optional
        The type that was asked for.
    new_types : bool
        Whether this GDAL has Boolean, DateTime and WKBGeometry (3.12 and later).

    Raises
    ------
    ConversionError
        Where no value of the dtype could be of the type.
    """
    allowed = _EXPORTS.get(dtype.kind, ())
    if not allowed:
        raise ConversionError(f"column {column!r}: GDAL has no type for {dtype}")
    kind = allowed[0]
    kept = attributes.get("GDAL_TYPE")
    if cast is not None:
        kind = parse_type(cast)
    elif isinstance(kept, int) and kept in set(FieldType) and FieldType(kept) in allowed:
        kind = FieldType(kept)
    if kind not in allowed:
        names = ", ".join(type_name(one) for one in allowed)
        raise ConversionError(
            f"column {column!r}: {dtype} can't be {type_name(kind)} in GDAL, only {names}"
        )
    if kind >= FieldType.BOOLEAN and not new_types:
        others = [type_name(one) for one in allowed if one < FieldType.BOOLEAN]
        hint = f"; ask for {' or '.join(others)} (cast)" if others else ""
        raise ConversionError(
            f"column {column!r}: GDAL before 3.12 has no type {type_name(kind)}{hint}"
        )
    return kind


def conversion_table() -> str:
    """Return :data:`CONVERSIONS` as Markdown."""
    lines = ["| from | to | |", "|---|---|---|"]
    lines += [f"| {one} | {other or '-'} | {when} |" for one, other, when in CONVERSIONS]
    return "\n".join(lines) + "\n"


def hfa_cut(name: str) -> str:
    """Return a name as HFA keeps it, but never with half a character at its end."""
    return name.encode("utf-8", "surrogateescape")[:HFA_NAME_BYTES].decode("utf-8", "ignore")


def kept_name(name: str, usage: int) -> str:
    """Return what HFA calls a column of this name and usage."""
    return hfa_cut(HFA_NAMES.get(usage, name))


def hfa_colour_conflict(name: str, kind: int, usage: int) -> str | None:
    """Return why HFA can't have a column, in words; None where it can.

    Whatever its usage, HFA takes a column called Red, Green, Blue or Opacity for colours: other
    values would change the colour table, or be rounded to it.
    """
    colours = {HFA_NAMES[usage]: usage for usage in COLOUR_USAGES if usage in HFA_NAMES}
    kept = kept_name(name, usage)
    colour = next((one for one in colours if one.lower() == kept.lower()), None)
    if colour is None or (kind == FieldType.INTEGER and usage == colours[colour]):
        return None
    return (
        f"column {name!r} is {type_name(kind)} with the usage {usage_name(usage)}, and HFA takes "
        f"it for the colour {colour} of its colour table"
    )


def replaced_column(there: Sequence[str], name: str, usage: int, *, hfa: bool) -> str | None:
    """Return the column that a file format would take for a new one of this name; or None.

    Formats that are written through find a column in the file by its name. HFA gives
    columns of some usages its own names, has 63 bytes for one, knows no case, and takes
    what follows a colon for a number.
    """
    if not hfa:
        return name if name in there else None
    name = HFA_NAMES.get(usage, name)
    taken = {hfa_cut(one).lower() for one in (name, name.partition(":")[0])}
    return next((other for other in there if hfa_cut(other).lower() in taken), None)
