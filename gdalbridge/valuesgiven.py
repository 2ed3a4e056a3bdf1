"""What a caller of the attached table gives, as stored values.

Numbers, text and numpy's date-times go straight into a column's dtype, exactly or not at
all. Everything else (text for a column of numbers, Python's date-times, ...) is given to
GDAL first: what it makes of it is what is stored.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._gdal import exceptions, silence
from .attachedcolumns import datetime_text, pieces
from .errors import ConversionError, GdalError
from .gdaltypes import FieldType, type_name
from .ownrat import native_rat
from .shownvalues import Shown, from_plain, to_stored

__all__ = ["check_text", "stored_array", "stored_cell"]

Array = NDArray[Any]


def check_text(text: Any, what: str) -> None:
    """Refuse text that has no UTF-8: GDAL's bindings end the process for it.

    Parameters
    ----------
    text
        Anything else than a ``str`` is for GDAL to judge.
    what : str
        For the message.

    Raises
    ------
    ConversionError
        For half of a surrogate pair.
    """
    if isinstance(text, str) and not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ConversionError(
                f"{what}: {text!r} holds half of a surrogate pair, which has no UTF-8"
            ) from None


def stored_cell(shown: Shown, rat: Any, at: int, row: int) -> Array:
    """Return a cell of a table of GDAL's, of one column, as a stored value.

    Parameters
    ----------
    shown : Shown
        The column.
    rat, at
        Where the cell is.
    row : int
        The table's, for messages.

    Raises
    ------
    ConversionError
        Where the column's dtype does not hold it.
    """
    kind = shown.type
    if kind == FieldType.DATETIME:
        plain = datetime_text(rat, at, 1, 0)
    elif kind == FieldType.STRING:
        text = rat.GetValueAsString(at, 0)
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        plain = np.array([raw], f"S{len(raw) or 1}")
    elif kind == FieldType.WKB_GEOMETRY:
        plain = np.empty(1, object)
        plain[0] = bytes(rat.GetValueAsWKBGeometry(at, 0))
    elif kind == FieldType.INTEGER:
        plain = np.array([rat.GetValueAsInt(at, 0)], np.int32)
    elif kind == FieldType.BOOLEAN:
        plain = np.array([rat.GetValueAsBoolean(at, 0)], np.bool_)
    else:
        plain = np.array([rat.GetValueAsDouble(at, 0)], np.float64)
    return from_plain(shown, plain, row)


def stored_array(shown: Shown, values: Array, first_row: int) -> Array:
    """Return an array that was given for rows of a column as stored values.

    Raises
    ------
    ConversionError
        Names the row of a value that can't be stored as it is.
    GdalError
        Where GDAL refuses the array.
    """
    stored = to_stored(shown, values, first_row)
    if stored is not None:
        return stored
    found = []
    for at, size in pieces(0, len(values)):
        rat = _given_to_gdal(shown, values[at : at + size], first_row + at)
        if shown.type == FieldType.DATETIME:
            plain = datetime_text(rat, 0, size, 0)
        else:
            plain = rat.ReadAsArray(0, 0, size)
        found.append(from_plain(shown, plain, first_row + at))
    if not found:
        return np.empty(0, shown.dtype)
    return found[0] if len(found) == 1 else np.concatenate(found)


def _given_to_gdal(shown: Shown, values: Array, first_row: int) -> Any:
    """Return a table of GDAL's that the values were written to."""
    if values.dtype.kind in "UT":
        values = np.array([text.encode("utf-8") for text in values.tolist()], "S")
    rat = native_rat(shown.type, None, len(values))
    with exceptions(), silence():
        try:
            if shown.type == FieldType.DATETIME and values.dtype.kind == "O":
                # Some versions crash where an array has one without a time zone.
                for at, value in enumerate(values.tolist()):
                    rat.SetValueAsDateTime(at, 0, value)
            elif len(values) and rat.WriteArray(np.ascontiguousarray(values), 0):
                raise GdalError(f"column {shown.column!r}: GDAL did not take {values.dtype}")
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise GdalError(
                f"column {shown.column!r}, from row {first_row}: GDAL takes no array of "
                f"{values.dtype} for its {type_name(shown.type)}: {error}"
            ) from error
    if shown.type == FieldType.DATETIME and values.dtype.kind == "S":
        for at, text in enumerate(values.tolist()):
            if text and not rat.GetValueAsString(at, 0):
                raise ConversionError(
                    f"column {shown.column!r}, row {first_row + at}: {text!r} is no date-time"
                )
    return rat
