"""Convert GDAL's properties of a table to store attributes and back.

Linear binning consists of two doubles, which must be preserved exactly. JSON's shortest round-trip
decimals do that. NaN and infinities, which JSON cannot write as numbers, become hexadecimal
strings.
"""

import math
from collections.abc import Mapping
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.rat_reader import RatSchema

__all__ = ["linear_binning", "table_attributes", "table_type"]

TYPE_ATTR = "GDAL_TABLE_TYPE"
BINNING_ATTR = "GDAL_LINEAR_BINNING"
TYPES = {0: "thematic", 1: "athematic"}


def table_attributes(schema: RatSchema) -> dict[str, Any]:
    """Return the store attributes for a table's schema."""
    attributes: dict[str, Any] = {}
    if schema.table_type is not None:
        attributes[TYPE_ATTR] = TYPES.get(schema.table_type, str(schema.table_type))
    if schema.linear_binning is not None:
        attributes[BINNING_ATTR] = [
            value if math.isfinite(value) else value.hex() for value in schema.linear_binning
        ]
    return attributes


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
    for number, name in TYPES.items():
        if kept in (name, str(number)):
            return number
    raise BridgeError(
        f"the table's {TYPE_ATTR} is {kept!r}: expected one of {list(TYPES.values())}"
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
