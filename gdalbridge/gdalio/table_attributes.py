"""What GDAL says of a table as a whole, as attributes of the store, and back.

Linear binning is two doubles, which must come back exactly: JSON's shortest round-trip
decimals do, and what JSON has no number for (NaN, infinities) is a hexadecimal string.
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
    """Return the attributes that a table with this schema has."""
    attributes: dict[str, Any] = {}
    if schema.table_type is not None:
        attributes[TYPE_ATTR] = TYPES.get(schema.table_type, str(schema.table_type))
    if schema.linear_binning is not None:
        attributes[BINNING_ATTR] = [
            value if math.isfinite(value) else value.hex() for value in schema.linear_binning
        ]
    return attributes


def table_type(attributes: Mapping[str, Any]) -> int | None:
    """Return GDAL's number of the table's type; None where none was kept.

    Raises
    ------
    BridgeError
        For a type that is none.
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
    """Return (minimum of row 0, bin size); None where the table has no linear binning.

    Raises
    ------
    BridgeError
        For what is not two numbers.
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
