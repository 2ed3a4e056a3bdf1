"""Convert stored values to GDAL's types, and back.

A dtype that GDAL has a type for is shown as that type, exactly. Other dtypes:

- Integers wider than GDAL's 32 bits (uint32, int64, uint64) are shown as Real, which is exact up to
  2**53. A larger value that is not exact raises an error. All values can be read as text (``as_text``).
- float16 and float32 are shown as Real, fixed-width bytes as String.
- Date-times are shown as DateTime if GDAL has that type, else as ISO-8601 text.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError, LossWarning
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.field_types import FieldType, stored_dtype
from ratzarr import RatZarrError
from ratzarr.codecs import to_fixed_width
from ratzarr.format import exact

__all__ = [
    "Shown",
    "fixed_width",
    "from_plain",
    "narrowed",
    "shown_as",
    "to_plain",
    "to_stored",
]


Array = NDArray[Any]


def narrowed(text: Array) -> Array | None:
    """Return a copy as wide as the longest text; None if a text contains a zero byte."""
    lengths = np.strings.str_len(text)
    narrow = text.astype(f"S{int(lengths.max(initial=0)) or 1}")
    # str_len counts zero bytes inside a text, but count_nonzero does not.
    return narrow if np.count_nonzero(narrow.view(np.uint8)) == int(lengths.sum()) else None


TO_TEXT = "To show the column as text, use as_text=[...]."


@dataclass(frozen=True, slots=True)
class Shown:
    """The GDAL type and usage that a stored column is shown with."""

    column: str
    """The stored name, for error messages."""
    dtype: np.dtype[Any]
    """The stored dtype."""
    type: FieldType
    usage: int
    offset: int
    """Offset of the column's date-times in minutes east of UTC, or NAIVE."""


def shown_as(
    column: str,
    dtype: np.dtype[Any],
    attributes: Mapping[str, Any],
    *,
    new_types: bool,
    as_text: bool = False,
) -> Shown | None:
    """Choose the GDAL type and usage for a column; None if GDAL has no type for its dtype.

    Parameters
    ----------
    column : str
    dtype : numpy.dtype
    attributes : mapping
        ``GDAL_TYPE`` and ``GDAL_USAGE`` are used if the dtype allows them.
    new_types : bool
        True if this version of GDAL has Boolean, DateTime and WKBGeometry.
    as_text : bool
        Show the column as String.
    """
    kind = _type(dtype, attributes.get("GDAL_TYPE"), new_types)
    if kind is None:
        return None
    usage = attributes.get("GDAL_USAGE")
    east = attributes.get("UTC_OFFSET_MINUTES", 0)
    return Shown(
        column,
        dtype,
        FieldType.STRING if as_text else kind,
        usage if isinstance(usage, int) and not isinstance(usage, bool) else 0,
        east if isinstance(east, int) and abs(east) < 24 * 60 else datetimes.NAIVE,
    )


def _type(dtype: np.dtype[Any], asked: Any, new_types: bool) -> FieldType | None:
    kind = dtype.kind
    if kind == "b":
        is_integer = not new_types or (asked == FieldType.INTEGER and asked is not False)
        return FieldType.INTEGER if is_integer else FieldType.BOOLEAN
    if kind in "iu":
        fits = np.can_cast(dtype, np.int32, casting="safe") and asked != FieldType.REAL
        return FieldType.INTEGER if fits else FieldType.REAL
    if kind == "T":
        # Date-times with different offsets from UTC are stored as text.
        is_time = asked == FieldType.DATETIME and new_types
        return FieldType.DATETIME if is_time else FieldType.STRING
    if kind == "M":
        return FieldType.DATETIME if new_types else FieldType.STRING
    if kind == "O":
        return FieldType.WKB_GEOMETRY if new_types else FieldType.STRING
    return {"f": FieldType.REAL, "S": FieldType.STRING}.get(kind)


# ---- to GDAL


def to_plain(shown: Shown, values: Array, first_row: int) -> Array:
    """Convert stored values to the form that GDAL accepts.

    Parameters
    ----------
    shown : Shown
    values : ndarray
        In the column's dtype. Strings may also be UTF-8 in fixed-width bytes.
    first_row : int
        Number of the first row, for error messages.

    Raises
    ------
    ConversionError
        If a value can't be shown as this type; names its row.
    """
    kind = shown.type
    if kind == FieldType.STRING:
        return _plain_text(shown, values, first_row)
    if kind == FieldType.DATETIME:
        return _plain_datetimes(shown, values, first_row)
    if kind == FieldType.REAL:
        # Also keeps the payloads of NaNs.
        return _exact(replace(shown, dtype=stored_dtype(kind)), values, first_row, TO_TEXT)
    return values.astype(stored_dtype(kind), copy=False)


def _plain_text(shown: Shown, values: Array, first_row: int) -> Array:
    kind = values.dtype.kind
    if not len(values):
        return np.empty(0, "S1")
    if kind == "T":
        plain = to_fixed_width(values)
        if plain is not None:
            return plain
        encoded = [text.encode("utf-8") for text in values.tolist()]
    elif kind == "M":
        return datetimes.write(values)
    elif kind == "S":
        # Text of the store is as wide as the longest already.
        plain = values if shown.dtype.kind == "T" else narrowed(values)
        if plain is not None:
            return plain
        encoded = values.tolist()
    elif kind == "O":
        return fixed_width([raw.hex().encode() for raw in values.tolist()])
    else:
        return fixed_width([str(value).encode() for value in values.tolist()])
    if b"\x00" in b"".join(encoded):
        row = first_row + next(i for i, text in enumerate(encoded) if b"\x00" in text)
        _warn(shown, row, "GDAL's text ends at the zero character")
        encoded = [text.partition(b"\x00")[0] for text in encoded]
    return fixed_width(encoded)


def fixed_width(encoded: list[bytes]) -> Array:
    """Return texts as an array with the width of the longest."""
    return np.array(encoded, f"S{max(map(len, encoded)) or 1}")


def _plain_datetimes(shown: Shown, values: Array, first_row: int) -> Array:
    column = shown.column
    if values.dtype.kind == "T":
        padded = to_fixed_width(values)
        values = values if padded is None else padded
    if values.dtype.kind == "S" and datetimes.is_for_gdal(values):
        return values.astype(values.dtype)
    if values.dtype.kind in "TS":
        texts = values if values.dtype.kind == "S" else values.tolist()
        times, offsets = datetimes.parse(texts, column=column, first_row=first_row)
    else:
        _check_years(shown, values, first_row, f". {TO_TEXT}")
        times = values.astype("M8[us]")
        offsets = np.full(len(times), shown.offset, np.int32)
        if np.datetime_data(values.dtype)[0] in ("ns", "ps", "fs", "as"):
            finer = np.flatnonzero((times != values) & ~np.isnat(times))
            if len(finer):
                _warn(shown, first_row + int(finer[0]), "GDAL's date-times are not as fine")
    coarse = datetimes.not_held(times)
    if coarse.any():
        _warn(shown, first_row + int(np.argmax(coarse)), "GDAL's date-times are not as fine")
        times = np.where(coarse, times.astype("M8[ms]").astype("M8[us]"), times)
    return datetimes.text_for_gdal(times, offsets, column=column, first_row=first_row)


def _check_years(shown: Shown, values: Array, first_row: int, hint: str) -> None:
    bad = datetimes.outside(values)
    if bad.any():
        place = int(np.argmax(bad))
        raise ConversionError(
            f"column {shown.column!r}, row {first_row + place}: {values[place]} is outside the "
            f"years 1 to 9999{hint}"
        )


def _warn(shown: Shown, row: int, why: str) -> None:
    warnings.warn(
        f"column {shown.column!r}, row {row}: {why}, so only part of the stored value is shown",
        LossWarning,
        stacklevel=2,
    )


# ---- from GDAL


def from_plain(shown: Shown, plain: Array, first_row: int) -> Array:
    """Convert values from GDAL to the stored dtype.

    Raises
    ------
    ConversionError
        If the column's dtype can't hold a value; names its row.
    """
    if shown.type == FieldType.DATETIME:
        return _stored_datetimes(shown, plain, first_row)
    if shown.type == FieldType.STRING and shown.dtype.kind not in "TS":
        return _from_text(shown, plain, first_row)
    return _exact(shown, plain, first_row)


def to_stored(shown: Shown, values: Array, first_row: int) -> Array | None:
    """Convert a user's array to the stored dtype without GDAL.

    Returns
    -------
    ndarray or None
        None if only GDAL can convert the values.

    Raises
    ------
    ConversionError
        If the column's dtype can't hold a value; names its row.
    """
    given, kept = values.dtype.kind, shown.dtype.kind
    if given == "M" and kept == "T" and shown.type == FieldType.DATETIME:
        times = _exact(replace(shown, dtype=np.dtype("M8[us]")), values, first_row)
        _check_years(shown, times, first_row, "")
        utc = np.zeros(len(times), np.int16)
        return np.array(datetimes.to_text(times, utc), shown.dtype)
    same = (
        (given in "iufb" and kept in "iufb")
        or (given in "SUT" and kept in "TS" and shown.type == FieldType.STRING)
        or (given == kept == "M")
        or (given == kept == "O" and shown.type == FieldType.WKB_GEOMETRY)
    )
    if given == "O" and kept in "TS" and shown.type == FieldType.STRING:
        same = all(isinstance(value, str | bytes) for value in values.tolist())
    return _exact(shown, values, first_row) if same else None


def _exact(shown: Shown, values: Array, first_row: int, hint: str = "") -> Array:
    try:
        return exact(values, shown.dtype, column=shown.column, first_row=first_row)
    except RatZarrError as error:
        raise ConversionError(f"{error}. {hint}" if hint else str(error)) from error


def _from_text(shown: Shown, plain: Array, first_row: int) -> Array:
    kind = shown.dtype.kind
    texts = [raw.decode("ascii", "replace") for raw in plain.tolist()]
    made: list[Any] = []
    for row, text in enumerate(texts, first_row):
        try:
            if kind == "O":
                made.append(bytes.fromhex(text))
            elif kind == "M":
                made.append(np.datetime64(text or "NaT"))
            elif kind == "b":
                made.append({"True": True, "False": False}[text])
            else:
                made.append(int(text) if kind in "iu" else float(text))
        except (ValueError, KeyError):
            raise ConversionError(
                f"column {shown.column!r}, row {row}: {text!r} can't be converted to the column's "
                f"{shown.dtype}"
            ) from None
    if kind == "M":
        return _exact(shown, np.array(made, "M8"), first_row)
    objects = np.empty(len(made), object)
    objects[:] = made
    return _exact(shown, objects, first_row)


def _stored_datetimes(shown: Shown, plain: Array, first_row: int) -> Array:
    texts = [raw.decode("ascii", "replace") for raw in plain.tolist()]
    times, offsets = datetimes.parse(texts, column=shown.column, first_row=first_row)
    if shown.dtype.kind == "T":
        return np.array(datetimes.to_text(times, offsets), shown.dtype)
    other = ~np.isnat(times) & (offsets != shown.offset)
    if other.any():
        place = int(np.argmax(other))
        zone = "none" if shown.offset == datetimes.NAIVE else f"{shown.offset} minutes"
        raise ConversionError(
            f"column {shown.column!r}, row {first_row + place}: the offset from UTC of "
            f"{texts[place]} differs from the column's ({zone})"
        )
    return _exact(shown, times, first_row)
