"""Date-times between GDAL's text and numpy, exactly. Pure: no GDAL here.

GDAL keeps a date-time as year to minute, seconds as a 32-bit float, and a time zone in
steps of 15 minutes (or none). Its text is exact to the millisecond, and says the zone:
``+00:00`` is UTC, ``-00:00`` no zone. Finer seconds come from its datetime objects.

Here a block of them is two arrays: UTC in microseconds (NaT for none), and the offset in
minutes, with :data:`NAIVE` where there is none.

>>> times, offsets = parse(["2020-01-02T03:04:05.678+02:00", "", "2020-01-02T03:04:05-00:00"])
>>> times.astype(str).tolist()
['2020-01-02T01:04:05.678000', 'NaT', '2020-01-02T03:04:05.000000']
>>> offsets.tolist() == [120, NAIVE, NAIVE]
True
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConversionError

__all__ = ["NAIVE", "finer", "parse", "text_for_gdal", "to_text"]

Array = NDArray[Any]

NAIVE = -32768
"""Offset of a date-time that has no zone."""
MAX_OFFSET = 23 * 60 + 45
"""The widest that GDAL's bindings can hand out: of a day or more they crash."""
STEP = 15
"""GDAL keeps offsets in such steps; of any other it makes none at all, silently."""

_FORM = "0000-00-00T00:00:00.000+00:00"
"""How GDAL prints a date-time: digits at the zeros, either sign at the last but five."""
_NONE = "\x00" * len(_FORM)
_SIGN = 23
_DIGITS = [i for i, letter in enumerate(_FORM) if letter == "0"]
_FIXED = [i for i, letter in enumerate(_FORM) if letter in "-T:."]
_FIXED_LETTERS = np.frombuffer(_FORM.encode("ascii"), np.uint8)[_FIXED]

_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:)(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


def parse(texts: Sequence[str], *, column: str = "", first_row: int = 0) -> tuple[Array, Array]:
    """Read date-times as GDAL prints them; the empty string is none.

    Parameters
    ----------
    texts : sequence of str
        ISO-8601 with four digits of year.
    column, first_row
        For messages.

    Returns
    -------
    times : ndarray of datetime64[us], shape (n,)
        In UTC; those without a zone as they are.
    offsets : ndarray of int16, shape (n,)
        Minutes east of UTC, or :data:`NAIVE`.

    Raises
    ------
    ConversionError
        Names the column, the row and the text that is no such date-time.
    """
    fast = _parse_at_once(texts)
    return fast if fast is not None else _parse_one_by_one(texts, column, first_row)


def _parse_at_once(texts: Sequence[str]) -> tuple[Array, Array] | None:
    """Parse texts that are all of GDAL's usual form; None where one is not, or is wrong."""
    times = np.full(len(texts), "NaT", "M8[us]")
    offsets = np.full(len(texts), NAIVE, np.int16)
    lengths = set(map(len, texts))
    if not lengths <= {0, len(_FORM)}:
        return None
    # Joined they are letters of an array at once, which strings one by one are not.
    joined = "".join([text or _NONE for text in texts] if 0 in lengths else texts)
    try:
        letters = np.frombuffer(joined.encode("ascii"), np.uint8).reshape(-1, len(_FORM))
    except UnicodeEncodeError:
        return None
    there = letters[:, 0] != 0
    letters = np.ascontiguousarray(letters[there])
    digits = letters[:, _DIGITS]
    signs = letters[:, _SIGN]
    if (
        ((digits < ord("0")) | (digits > ord("9"))).any()
        or (letters[:, _FIXED] != _FIXED_LETTERS).any()
        or ((signs != ord("+")) & (signs != ord("-"))).any()
        # The year 0, and a second of 60.
        or (letters[:, :4] == ord("0")).all(axis=1).any()
        or (letters[:, 17] >= ord("6")).any()
    ):
        return None
    try:
        found = np.ascontiguousarray(letters[:, :_SIGN]).view(f"S{_SIGN}")[:, 0].astype("M8[us]")
    except ValueError:
        return None
    hours, minutes = (
        (letters[:, i].astype(np.int32) - ord("0")) * 10 + letters[:, i + 1] - ord("0")
        for i in (_SIGN + 1, _SIGN + 4)
    )
    if (hours > 23).any() or (minutes > 59).any():
        return None
    negative = signs == ord("-")
    east = np.where(negative, -1, 1) * (hours * 60 + minutes)
    times[there] = found - east.astype("m8[m]")
    offsets[there] = np.where(negative & (east == 0), NAIVE, east)
    return times, offsets


def _parse_one_by_one(texts: Sequence[str], column: str, first_row: int) -> tuple[Array, Array]:
    times = np.full(len(texts), "NaT", "M8[us]")
    offsets = np.full(len(texts), NAIVE, np.int16)
    zones: dict[str, int] = {}
    there: list[int] = []
    local: list[str] = []
    for row, text in enumerate(texts):
        if not text:
            continue
        match = _TEXT.fullmatch(text)
        if match is None or match[1].startswith("0000"):
            raise ConversionError(
                f"column {column!r}, row {first_row + row}: {text!r} is no date-time of the years "
                "1 to 9999"
            )
        zone = match[4] or "-00:00"
        if zone not in zones:
            zones[zone] = _minutes(zone)
            if zones[zone] != NAIVE and abs(zones[zone]) >= 24 * 60:
                # Python's time zones end before it, and asking GDAL for such a date-time as
                # an object crashes the process.
                raise ConversionError(
                    f"column {column!r}, row {first_row + row}: {text!r} has an offset of a day "
                    "or more"
                )
        offsets[row] = zones[zone]
        # A second of 60 is a 59.9996 that was rounded up, or a leap second.
        seconds = "59" if match[2] == "60" else match[2]
        there.append(row)
        local.append(f"{match[1]}{seconds}.{match[3] or '0'}")
        if match[2] == "60":
            local[-1] = f"{match[1]}59.999999"
    if there:
        try:
            found = np.array(local).astype("M8[us]")
        except ValueError as error:
            raise ConversionError(f"column {column!r}, from row {first_row}: {error}") from error
        east = np.where(offsets[there] == NAIVE, 0, offsets[there])
        times[there] = found - east.astype("m8[m]")
    return times, offsets


def _minutes(zone: str) -> int:
    if zone == "-00:00":
        return NAIVE
    if zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    return -minutes if zone[0] == "-" else minutes


def finer(
    times: Array,
    offsets: Array,
    objects: Sequence[Any],
    texts: Sequence[str],
    *,
    column: str,
    first_row: int,
) -> Array:
    """Return the times with what GDAL's text has rounded away.

    Parameters
    ----------
    times, offsets : ndarray
        From :func:`parse` of ``texts``.
    objects : sequence of datetime.datetime or None
        The same rows as GDAL's bindings make objects of them: their microseconds are
        those of GDAL's 32-bit seconds.

    Raises
    ------
    ConversionError
        For a leap second, which datetime64 does not have.
    """
    rows = np.array([row for row, value in enumerate(objects) if value is not None], np.intp)
    there = [value for value in objects if value is not None]
    second = np.fromiter((value.second for value in there), np.int64, len(there))
    micro = np.fromiter((value.microsecond for value in there), np.int64, len(there))
    for place in np.flatnonzero(second != 59).tolist() if _has_second_60(texts) else ():
        row = int(rows[place])
        if texts[row][17:19] == "60":
            raise ConversionError(
                f"column {column!r}, row {first_row + row}: {texts[row]!r} is a leap second, which "
                "no datetime64 has"
            )
    # A millisecond that was written comes back up to 2 microseconds off.
    milli = (micro + 500) // 1000 * 1000
    same = np.float32(second + milli / 1e6) == np.float32(second + micro / 1e6)
    micro = np.where(same & (milli < 1_000_000), milli, micro)
    exact = times.copy()
    # The minute is the text's (offsets are whole minutes); only the object knows the second.
    minute = times[rows].astype("M8[m]").astype("M8[us]")
    exact[rows] = minute + (second * 1_000_000 + micro).astype("m8[us]")
    return exact


def _has_second_60(texts: Sequence[str]) -> bool:
    return any(text[17:19] == "60" for text in texts)


def to_text(times: Array, offsets: Array) -> list[str]:
    """Return ISO-8601 text with offset, for a column in which offsets are mixed.

    What :func:`parse` reads; none is the empty string, no zone is no suffix.
    """
    east = np.where(offsets == NAIVE, 0, offsets).astype("m8[m]")
    texts: list[str] = np.datetime_as_string(times + east, unit="us").tolist()
    return [
        "" if text == "NaT" else text.removesuffix("000") + _zone(offset)
        for text, offset in zip(texts, offsets.tolist(), strict=True)
    ]


def _zone(offset: int) -> str:
    if offset == NAIVE:
        return ""
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"


def text_for_gdal(times: Array, offsets: Array, *, column: str, first_row: int) -> Array:
    """Return date-times as text that GDAL reads exactly, or refuse them.

    Parameters
    ----------
    times : ndarray of datetime64[us], shape (n,)
        In UTC.
    offsets : ndarray of int, shape (n,)
        Minutes, or :data:`NAIVE`.

    Returns
    -------
    ndarray of fixed-width bytes, shape (n,)

    Raises
    ------
    ConversionError
        For years outside 1 to 9999, offsets that are no multiple of 15 minutes below
        24 hours, and microseconds that a 32-bit float of seconds does not hold.
    """
    there = ~np.isnat(times)
    east = np.where(offsets == NAIVE, 0, offsets)
    local = times + east.astype("m8[m]")
    bad_zone = there & ((east % STEP != 0) | (np.abs(east) > MAX_OFFSET))
    low, high = (
        np.datetime64("0001-01-01", "us"),
        np.datetime64("9999-12-31T23:59:59.999999", "us"),
    )
    bad_year = there & ((local < low) | (local > high))
    ticks = np.where(there, local, low).astype("M8[us]").view("i8") % 60_000_000
    kept = np.round(np.float32(ticks / 1e6).astype(np.float64) * 1e6).astype("i8")
    bad_time = there & (ticks % 1000 != 0) & (kept != ticks)
    for bad, why in (
        (bad_year, "is outside the years 1 to 9999"),
        (bad_zone, "has an offset that GDAL can't hold: multiples of 15 minutes below 24 hours"),
        (bad_time, "is finer than GDAL's seconds, which are exact to the millisecond"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise ConversionError(f"column {column!r}, row {first_row + row}: {times[row]} {why}")
    zones, which = np.unique(offsets, return_inverse=True)
    suffixes = np.array([_zone(offset) for offset in zones.tolist()], "S6")[which]
    texts = np.datetime_as_string(np.where(there, local, low), unit="us").astype("S26")
    return np.where(there, np.strings.add(texts, suffixes), b"").astype("S32")
