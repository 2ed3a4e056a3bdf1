"""Convert date-times between GDAL's text and numpy, exactly and without GDAL.

GDAL stores year to minute, seconds as a 32-bit float, and a time zone in steps of 15 minutes (or
none). Its text is exact to the millisecond and shows the zone: ``+00:00`` is UTC, ``-00:00`` is no
zone. Finer seconds come from its datetime objects.

This module represents a block of date-times as two arrays: UTC in microseconds (NaT for missing
ones), and the offset in minutes, with :data:`NAIVE` for no zone.

>>> times, offsets = parse(["2020-01-02T03:04:05.678+02:00", "", "2020-01-02T03:04:05-00:00"])
>>> times.astype(str).tolist()
['2020-01-02T01:04:05.678000', 'NaT', '2020-01-02T03:04:05.000000']
>>> offsets.tolist() == [120, NAIVE, NAIVE]
True
"""

import bisect
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError

__all__ = [
    "NAIVE",
    "finer",
    "is_for_gdal",
    "not_held",
    "outside",
    "parse",
    "read",
    "text_for_gdal",
    "to_text",
    "write",
    "write_zoned",
]


Array = NDArray[Any]

NAIVE = -32768
"""Offset of a date-time without a zone."""
MAX_OFFSET = 23 * 60 + 45
"""The largest offset that GDAL's bindings support: a day or more crashes them."""
STEP = 15
"""GDAL stores offsets in these steps, and silently drops others."""
LOW, HIGH = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")

FORM = b"0000-00-00T00:00:00.000000+00:00"
"""The longest text that is read: zeros stand for digits."""
WIDTH = len(FORM)
ZONE = len(b"+00:00")
SECOND = len(b"0000-00-00T00:00:00")
"""Length of the text before the fraction of a second."""
TIME = len(b"0000-00-00T00:00:00.000000")
"""Length of the text before the zone."""
_FORM = np.frombuffer(FORM[:TIME], np.uint8)
_SPAN = np.where(ord("0") == _FORM, 9, 0).astype(np.uint8)
"""A character is at most this much above the form's; unsigned numbers have no negative ones."""


_TWO = np.array([b"%02d" % number for number in range(100)]).view(np.uint16)
"""The two digits of each number below 100."""
_PAIRS = (0, 2, 5, 8, 11, 14, 17, 20, 22, 24)
"""Where the pairs of digits begin in a text."""
TICKS_PER_DAY = 86400 * 10**6
_WIDTHS = {"Y": 4, "M": 7, "W": 10, "D": 10, "h": 13, "m": 16, "s": 19, "ms": 23, "us": 26}
"""The text length of numpy's units."""


def write(times: Array) -> Array:
    """Return date-times like :func:`numpy.datetime_as_string`, but as bytes; ``b""`` for NaT.

    Parameters
    ----------
    times : ndarray of datetime64, of any unit, shape (n,)

    Returns
    -------
    ndarray of fixed-width bytes, shape (n,)
    """
    unit, step = np.datetime_data(times.dtype)
    there = ~np.isnat(times)
    if not there.any():
        return np.zeros(len(times), "S1")
    filled = times if there.all() else np.where(there, times, times[there][0])
    if step == 1 and unit in _WIDTHS and not outside(filled).any():
        # numpy's own function takes six times as long.
        text = _digits(filled.astype("M8[us]")).astype(f"S{_WIDTHS[unit]}", copy=False)
    else:
        text = np.datetime_as_string(filled).astype("S")
        text = text.astype(f"S{np.strings.str_len(text).max()}")
    text[~there] = b""
    return text


def _digits(times: Array) -> Array:
    """Return date-times of the years 1 to 9999 as text with microseconds."""
    ticks = times.view(np.int64)
    days = ticks // TICKS_PER_DAY
    micro = ticks - days * TICKS_PER_DAY
    # Among numpy's date-times, these are the fastest conversions.
    months = days.view("M8[D]").astype("M8[M]")
    day = days - months.astype("M8[D]").view(np.int64) + 1
    month = months.view(np.int64)
    year = month // 12 + 1970
    second = micro // 10**6
    micro -= second * 10**6
    minute = second // 60
    hour = minute // 60
    text = np.full(len(times), FORM[:TIME])
    pairs = np.ndarray((len(times), TIME - 1), np.uint16, text, strides=(TIME, 1))
    for place, number in zip(
        _PAIRS,
        (
            year // 100, year % 100, month % 12 + 1, day,
            hour, minute - hour * 60, second - minute * 60,
            micro // 10000, micro // 100 % 100, micro % 100,
        ),
        strict=True,
    ):  # fmt: skip
        pairs[:, place] = _TWO[number]
    return text


def write_zoned(times: Array, zones: Array) -> Array:
    """Return date-times as text with microseconds and zone; ``b""`` for NaT.

    Parameters
    ----------
    times : ndarray of datetime64[us], shape (n,)
        Local times.
    zones : ndarray of fixed-width bytes, shape (n,) or (1,)
        The zones to append.

    Returns
    -------
    ndarray of fixed-width bytes, shape (n,)
    """
    text = np.strings.add(write(times), zones)
    text[np.isnat(times)] = b""
    return text


def read(text: Array) -> tuple[Array, Array] | None:
    """Return the times and offsets of date-times in the usual format.

    The format is the date, ``T``, the time, up to six digits of fractional seconds, and ``Z``, an
    offset below a day, or nothing. The empty string is a missing date-time.

    Parameters
    ----------
    text : ndarray of fixed-width bytes, shape (n,)

    Returns
    -------
    times : ndarray of datetime64[us], shape (n,)
        In UTC; times without a zone are unchanged.
    offsets : ndarray of int16, shape (n,)
        Minutes east of UTC, or :data:`NAIVE` for no zone and for ``-00:00``.

    None if any text has another format or is not a valid date-time of the years 1 to 9999.
    """
    times = np.full(len(text), "NaT", "M8[us]")
    offsets = np.full(len(text), NAIVE, np.int16)
    lengths = np.strings.str_len(text)
    there = lengths > 0
    if not there.all():
        text, lengths = text[there], lengths[there]
    if not len(text):
        return times, offsets
    if lengths.max() > WIDTH:
        return None
    letters = text.astype(f"S{WIDTH}").view(np.uint8).reshape(-1, WIDTH)
    end, zones = _zones(letters, lengths)
    if zones is None or ((end < SECOND) | (end == SECOND + 1) | (end > TIME)).any():
        return None
    stop = int(end.max())
    local = np.ascontiguousarray(letters[:, :stop])
    if (end < stop).any():
        # Missing digits of a fraction are zeros.
        local = np.where(np.arange(stop) < end[:, np.newaxis], local, _FORM[:stop])
    if (local - _FORM[:stop] > _SPAN[:stop]).any():
        return None
    try:
        # numpy checks the ranges of month, day, hour, minute and second.
        found = local.view(f"S{stop}")[:, 0].astype("M8[us]")
    except ValueError:
        return None
    if found.min() < LOW:
        return None
    times[there] = found - np.where(zones == NAIVE, 0, zones).astype("m8[m]")
    offsets[there] = zones
    return times, offsets


def _zones(letters: Array, lengths: Array) -> tuple[Array, Array | None]:
    """Return the positions of the zones, and the offsets; None for a zone of another form."""
    flat, ends = letters.reshape(-1), np.arange(0, letters.size, WIDTH) + lengths
    is_utc = flat[ends - 1] == ord("Z")
    sign = flat[ends - ZONE]
    # In shorter texts this is a hyphen of the date.
    signed = ((sign == ord("-")) | (sign == ord("+"))) & (lengths >= SECOND + ZONE)
    begin = lengths - is_utc - ZONE * signed
    zones: Array = np.where(is_utc, 0, NAIVE)
    if signed.any():
        last = ends[signed]
        digits = [flat[last - place] - np.uint8(ord("0")) for place in (5, 4, 2, 1)]
        hours, minutes = digits[0] * 10 + digits[1], digits[2] * 10 + digits[3]
        is_zone = (flat[last - 3] == ord(":")).all() and max(map(np.max, digits)) <= 9
        if not is_zone or hours.max() > 23 or minutes.max() > 59:
            return begin, None
        east = hours.astype(np.int64) * 60 + minutes
        is_minus = sign[signed] == ord("-")
        zones[signed] = np.where(is_minus, np.where(east == 0, NAIVE, -east), east)
    return begin, zones


_SECOND_60 = re.compile(r"^(.{17})60(?:\.[0-9]*)?")


def parse(
    texts: Sequence[str] | Array, *, column: str = "", first_row: int = 0
) -> tuple[Array, Array]:
    """Parse date-times as GDAL prints them. The empty string is a missing one.

    Parameters
    ----------
    texts : sequence of str, or ndarray of fixed-width bytes
        ISO-8601 with a four-digit year.
    column, first_row
        For messages.

    Returns
    -------
    times : ndarray of datetime64[us], shape (n,)
        In UTC; times without a zone are unchanged.
    offsets : ndarray of int16, shape (n,)
        Minutes east of UTC, or :data:`NAIVE`.

    Raises
    ------
    ConversionError
        Names the column, the row, and the invalid text.
    """
    letters = texts if isinstance(texts, np.ndarray) else _letters(texts)
    found = read(letters)
    if found is not None:
        return found
    # A second of 60 is either 59.9996 rounded up, or a leap second.
    given = [text.decode("utf-8", "replace") for text in letters.tolist()]
    letters = _letters([_SECOND_60.sub(r"\g<1>59.999999", text) for text in given])
    found = read(letters)
    if found is not None:
        return found
    row = bisect.bisect_left(
        range(len(letters)), True, key=lambda row: read(letters[: row + 1]) is None
    )
    shown = given[row] if isinstance(texts, np.ndarray) else texts[row]
    raise ConversionError(
        f"column {column!r}, row {first_row + row}: {shown!r} is not a date-time of the years 1 to "
        "9999 with an offset below a day"
    )


def _letters(texts: Sequence[str]) -> Array:
    """Return texts as fixed-width bytes that :func:`read` refuses if a text is not plain ASCII."""
    joined, longest = "".join(texts), max(map(len, texts), default=0)
    if not joined.isascii() or "\0" in joined:
        return np.array([text.encode("utf-8", "replace").replace(b"\0", b"?") for text in texts])
    if longest and len(joined) == longest * len(texts):
        # In one step, which is faster.
        return np.frombuffer(joined.encode("ascii"), f"S{longest}")
    return np.array(texts, f"S{longest or 1}")


def finer(
    times: Array,
    objects: Sequence[Any],
    texts: Sequence[str],
    *,
    column: str,
    first_row: int,
) -> Array:
    """Add the digits that GDAL's text has rounded away.

    Parameters
    ----------
    times : ndarray
        From :func:`parse` of ``texts``.
    objects : sequence of datetime.datetime or None
        The same rows as datetime objects of GDAL's bindings. Their microseconds come from GDAL's
        32-bit seconds.

    Raises
    ------
    ConversionError
        For a leap second, which datetime64 cannot represent.
    """
    rows = np.array([row for row, value in enumerate(objects) if value is not None], np.intp)
    there = [value for value in objects if value is not None]
    second = np.fromiter((value.second for value in there), np.int64, len(there))
    micro = np.fromiter((value.microsecond for value in there), np.int64, len(there))
    for place in np.flatnonzero(second != 59).tolist() if _has_second_60(texts) else ():
        row = int(rows[place])
        if texts[row][17:19] == "60":
            raise ConversionError(
                f"column {column!r}, row {first_row + row}: {texts[row]!r} is a leap second, "
                "which datetime64 can't hold"
            )
    # A stored millisecond comes back with an error of up to 2 microseconds.
    milli = (micro + 500) // 1000 * 1000
    same = np.float32(second + milli / 1e6) == np.float32(second + micro / 1e6)
    micro = np.where(same & (milli < 1_000_000), milli, micro)
    exact = times.copy()
    # Take the minute from the text (offsets are whole minutes), and the second from the object.
    minute = times[rows].astype("M8[m]").astype("M8[us]")
    exact[rows] = minute + (second * 1_000_000 + micro).astype("m8[us]")
    return exact


def _has_second_60(texts: Sequence[str]) -> bool:
    return any(text[17:19] == "60" for text in texts)


def to_text(times: Array, offsets: Array) -> list[str]:
    """Return ISO-8601 text with offsets, for a column with mixed offsets.

    :func:`parse` reads it back. A missing date-time is the empty string, and no zone is no suffix.
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


def _zone_for_gdal(offset: int) -> str:
    # GDAL parses a letter faster than numbers.
    return "Z" if offset == 0 else _zone(offset)


def is_for_gdal(text: Array) -> bool:
    """Return True if GDAL reads these texts without a change.

    Parameters
    ----------
    text : ndarray of fixed-width bytes, shape (n,)

    Returns
    -------
    bool
        True only if :func:`text_for_gdal` of the :func:`parse` result certainly means the same to
        GDAL. Some unchanged texts give False.
    """
    found = read(text)
    if found is None:
        return False
    times, offsets = found
    if ((times.view("i8") % 1000 != 0) & ~np.isnat(times)).any():
        return False
    naive = offsets == NAIVE
    if _bad_zone(np.where(naive, 0, offsets)).any():
        return False
    # GDAL prints -00:00 for no zone, but reads it as UTC.
    return not (naive.any() and np.strings.endswith(text, b"-00:00").any())


def _bad_zone(east: Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (east % STEP != 0) | (np.abs(east) > MAX_OFFSET)
    return found


def outside(times: Array) -> NDArray[np.bool_]:
    """Return which date-times, of any unit, are outside the years 1 to 9999."""
    if np.datetime_data(times.dtype)[0] in ("ns", "ps", "fs", "as"):
        # These units cannot reach the limits, nor represent them.
        return np.zeros(len(times), np.bool_)
    low, high = LOW.astype(times.dtype), HIGH.astype(times.dtype)
    if low.astype("M8[us]") < LOW:
        # A week may begin before the first day.
        step: Any = np.datetime_data(times.dtype)
        low += np.timedelta64(1, step)
    found: NDArray[np.bool_] = (times < low) | (times > high)
    return found


def text_for_gdal(times: Array, offsets: Array, *, column: str, first_row: int) -> Array:
    """Return date-times as text that GDAL reads exactly, or raise an error.

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
        For years outside 1 to 9999, offsets that are not multiples of 15 minutes below 24 hours,
        and microseconds that a 32-bit float of seconds cannot hold.
    """
    first = offsets[0] if len(offsets) else NAIVE
    if (offsets == first).all():
        zones: Array = np.array([_zone_for_gdal(int(first))], "S6")
        east: Array = np.array([0 if first == NAIVE else first])
    else:
        numbers, which = np.unique(offsets, return_inverse=True)
        zones = np.array([_zone_for_gdal(number) for number in numbers.tolist()], "S6")[which]
        east = np.where(offsets == NAIVE, 0, offsets)
    local = times + east.astype("m8[m]")
    _check(times, local, east, column, first_row)
    return write_zoned(local, zones)


def _check(times: Array, local: Array, east: Array, column: str, first_row: int) -> None:
    for bad, why in (
        ((local < LOW) | (local > HIGH), "is outside the years 1 to 9999"),
        (
            _bad_zone(east),
            "has an offset that GDAL can't hold: multiples of 15 minutes below 24 hours",
        ),
        (not_held(times), "is finer than GDAL's seconds, which are exact to the millisecond"),
    ):
        if bad.any() and (bad := bad & ~np.isnat(times)).any():
            row = int(np.argmax(bad))
            raise ConversionError(f"column {column!r}, row {first_row + row}: {times[row]} {why}")


def not_held(times: Array) -> NDArray[np.bool_]:
    """Return which times are finer than a millisecond and finer than GDAL's 32-bit seconds.

    Parameters
    ----------
    times : ndarray of datetime64[us], shape (n,)
    """
    ticks = times.view("i8")
    fine: NDArray[np.bool_] = (ticks % 1000 != 0) & ~np.isnat(times)
    if fine.any():
        seconds = ticks % 60_000_000
        kept = np.round(np.float32(seconds / 1e6).astype(np.float64) * 1e6).astype("i8")
        fine &= kept != seconds
    return fine
