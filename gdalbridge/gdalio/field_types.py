"""GDAL's types and usages of columns and tables, and what stores them, without GDAL.

docs/conversions.md has the conversions in both directions.

>>> stored_dtype(FieldType.INTEGER), type_name(4), usage_name(1), usage_name(99)
(dtype('int32'), 'DateTime', 'PixelCount', 'Unknown 99')
"""

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from gdalbridge.errors import BridgeError, ConversionError
from ratzarr.errors import Advice
from ratzarr.format import BYTES, STRING

__all__ = [
    "COLOUR_USAGES",
    "HFA_NAMES",
    "MAX_TABLE_ROWS",
    "FieldType",
    "FieldUsage",
    "export_type",
    "hfa_colour_conflict",
    "hfa_cut",
    "kept_name",
    "kept_usage",
    "linear_binning",
    "parse_type",
    "replaced_column",
    "stored_dtype",
    "table_attributes",
    "table_type",
    "type_name",
    "usage_attributes",
    "usage_in",
    "usage_name",
]

MAX_TABLE_ROWS = 2**31 - 1
"""Largest number of rows of a GDAL table."""


class FieldType(IntEnum):
    """``GDALRATFieldType``; the last three exist from GDAL 3.12."""

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
"""Usages whose columns GDAL always makes Integer."""

HFA_NAMES = {1: "Histogram", 2: "Class_Names", 6: "Red", 7: "Green", 8: "Blue", 9: "Opacity"}
"""Names that HFA gives to columns of these usages."""
HFA_NAME_BYTES = 63


def type_name(number: int) -> str:
    """Return GDAL's name of a column type."""
    return _TYPE_NAMES[FieldType(number)] if number in set(FieldType) else f"Unknown {number}"


def usage_name(number: int) -> str:
    """Return GDAL's name of a usage."""
    if number not in set(FieldUsage):
        return f"Unknown {number}"
    return "".join(part.capitalize() for part in FieldUsage(number).name.split("_"))


def usage_attributes(number: int) -> dict[str, Any]:
    """Return the attributes that store a column's usage."""
    return {"GDAL_USAGE": int(number), "GDAL_USAGE_NAME": usage_name(number)}


def usage_in(attributes: Mapping[str, Any]) -> int:
    """Return GDAL's usage number from a column's attributes; 0 if they have none."""
    usage = attributes.get("GDAL_USAGE")
    return usage if isinstance(usage, int) and not isinstance(usage, bool) else 0


def kept_usage(usage: int, dtype: np.dtype[Any]) -> int:
    """Return the usage that a column keeps if values of this dtype replace its own.

    GDAL's colours are integers, so a column of other values cannot have such a usage.
    """
    is_lost = usage in COLOUR_USAGES and dtype.kind not in "iu"
    return int(FieldUsage.GENERIC) if is_lost else usage


def parse_type(name: str | int) -> FieldType:
    """Return a column type by its name or number.

    Raises
    ------
    ConversionError
        Lists the valid names.
    """
    for kind, text in _TYPE_NAMES.items():
        if name == kind or (isinstance(name, str) and name.lower() == text.lower()):
            return kind
    raise ConversionError(
        f"{name!r} is no type of GDAL's: expected one of {', '.join(_TYPE_NAMES.values())}"
    )


def stored_dtype(kind: int) -> np.dtype[Any]:
    """Return the dtype that stores a GDAL type."""
    return _STORED[FieldType(kind)]


_STORED: dict[FieldType, np.dtype[Any]] = {
    FieldType.INTEGER: np.dtype(np.int32),
    FieldType.REAL: np.dtype(np.float64),
    FieldType.STRING: STRING,
    FieldType.BOOLEAN: np.dtype(np.bool_),
    FieldType.DATETIME: np.dtype("datetime64[us]"),
    FieldType.WKB_GEOMETRY: BYTES,
}


# The possible GDAL types for a dtype's kind; the first is the default.
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
    """Return the GDAL type for a stored column.

    Parameters
    ----------
    column : str
        For messages.
    dtype : numpy.dtype
        The column's dtype.
    attributes : mapping
        The column's attributes. ``GDAL_TYPE`` decides if it is possible for the dtype.
    cast : str, optional
        The requested type.
    new_types : bool
        True if this GDAL has Boolean, DateTime and WKBGeometry (3.12 and later).

    Raises
    ------
    ConversionError
        If the type cannot hold any value of the dtype.
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
        hint = f"Ask for {' or '.join(others)} with cast=..." if others else ""
        raise ConversionError(
            Advice(f"column {column!r}: GDAL before 3.12 has no type {type_name(kind)}.", hint)
        )
    return kind


def hfa_cut(name: str) -> str:
    """Return a name as HFA truncates it, without half a character at its end."""
    return name.encode("utf-8", "surrogateescape")[:HFA_NAME_BYTES].decode("utf-8", "ignore")


def kept_name(name: str, usage: int) -> str:
    """Return HFA's name for a column of this name and usage."""
    return hfa_cut(HFA_NAMES.get(usage, name))


def hfa_colour_conflict(name: str, kind: int, usage: int) -> str | None:
    """Return the reason why HFA cannot have a column; None if it can.

    HFA treats a column named Red, Green, Blue or Opacity as colours, whatever its usage. Other
    values would change the colour table or be rounded.
    """
    colours = {HFA_NAMES[usage]: usage for usage in COLOUR_USAGES if usage in HFA_NAMES}
    kept = kept_name(name, usage)
    colour = next((one for one in colours if one.lower() == kept.lower()), None)
    if colour is None or (kind == FieldType.INTEGER and usage == colours[colour]):
        return None
    return (
        f"column {name!r} is {type_name(kind)} with the usage {usage_name(usage)}, and HFA "
        f"takes it for the colour {colour} of its colour table"
    )


def replaced_column(there: Sequence[str], name: str, usage: int, *, hfa: bool) -> str | None:
    """Return the existing column that the file format would overwrite, or None.

    Formats that write directly to a file identify columns by name. HFA renames columns of some
    usages, limits names to 63 bytes, ignores case, and treats the part after a colon as a number.
    """
    if not hfa:
        return name if name in there else None
    name = HFA_NAMES.get(usage, name)
    taken = {hfa_cut(one).lower() for one in (name, name.partition(":")[0])}
    return next((other for other in there if hfa_cut(other).lower() in taken), None)


TYPE_ATTR = "GDAL_TABLE_TYPE"
BINNING_ATTR = "GDAL_LINEAR_BINNING"
TABLE_TYPES = {0: "thematic", 1: "athematic"}


def table_attributes(kind: int | None, binning: tuple[float, float] | None) -> dict[str, Any]:
    """Return the attributes that store a table's type and linear binning.

    Both doubles of a linear binning must be preserved exactly. JSON's shortest round-trip decimals
    do that. NaN and infinities, which JSON cannot write as numbers, become hexadecimal strings.
    """
    found: dict[str, Any] = {}
    if kind is not None:
        found[TYPE_ATTR] = TABLE_TYPES.get(kind, str(kind))
    if binning is not None:
        found[BINNING_ATTR] = [one if math.isfinite(one) else one.hex() for one in binning]
    return found


def table_type(attributes: Mapping[str, Any]) -> int | None:
    """Return GDAL's number of the table's type; None if the attributes have none.

    Raises
    ------
    BridgeError
        For an invalid type.
    """
    kept = attributes.get(TYPE_ATTR)
    if kept is None:
        return None
    for number, name in TABLE_TYPES.items():
        if kept in (name, str(number)):
            return number
    raise BridgeError(
        f"the table's {TYPE_ATTR} is {kept!r}: expected one of {list(TABLE_TYPES.values())}"
    )


def linear_binning(attributes: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return (minimum of row 0, bin size); None if the table has no linear binning.

    Raises
    ------
    BridgeError
        For a value that is not two numbers.
    """
    kept = attributes.get(BINNING_ATTR)
    if kept is None:
        return None
    try:
        minimum, size = (
            float.fromhex(value) if isinstance(value, str) else float(value) for value in kept
        )
    except (TypeError, ValueError):
        raise BridgeError(
            f"the table's {BINNING_ATTR} is {kept!r}: expected [minimum of row 0, bin size]"
        ) from None
    return minimum, size
