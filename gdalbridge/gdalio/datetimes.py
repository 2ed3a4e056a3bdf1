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

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError

__all__ = [
    "NAIVE",
    "WIDTH",
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
    "zones_of",
]


Array = NDArray[Any]

NAIVE = -32768
"""Offset of a date-time without a zone."""
WIDTH = len("0000-00-00T00:00:00.000000+00:00")

_TWO = np.array([b"%02d" % number for number in range(100)]).view("u2")


def _letters_of_a_day() -> Array:
    times = np.full(86400, b"00:00:00").view(
        np.dtype({"names": "hms", "formats": ["u2"] * 3, "offsets": [0, 3, 6], "itemsize": 8})
    )
    second = np.arange(86400)
    for name, number in (("h", second // 3600), ("m", second // 60 % 60), ("s", second % 60)):
        times[name] = _TWO[number]
    return times.view("u8")


_FOUR = np.array([b"%04d" % number for number in range(10000)]).view("u4")
_POINT = np.array([b".%03d" % number for number in range(1000)]).view("u4")
# The first character belongs to the previous field, which is written later.
_THREE = np.array([b"0%03d" % number for number in range(1000)]).view("u4")
_TIMES = _letters_of_a_day()
"""The text of every second of a day."""
_PLACES = {
    "year": ("u4", 0), "month": ("u2", 5), "day": ("u2", 8), "time": ("u8", 11),
    "milli": ("u4", 19), "micro": ("u4", 22), "nano": ("u4", 25), "zone": ("S6", 26),
}  # fmt: skip
_LETTERS = np.dtype(
    {
        "names": list(_PLACES),
        "formats": [form for form, _ in _PLACES.values()],
        "offsets": [offset for _, offset in _PLACES.values()],
        "itemsize": WIDTH,
    }
)
_BLANK = b"0000-00-00T00:00:00.000000000"
_ZONE_AT = len("0000-00-00T00:00:00.000000")
_NO_ZONES = np.zeros(0, "S6")
_WIDTHS = {"Y": 4, "M": 7, "D": 10, "h": 13, "m": 16, "s": 19, "ms": 23, "us": 26, "ns": 29}
"""The text length of each of numpy's units."""
_PER_DAY = {
    "h": 24, "m": 1440, "s": 86400, "ms": 86400 * 10**3, "us": 86400 * 10**6, "ns": 86400 * 10**9
}  # fmt: skip


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
    text = _written(times, there, zones=_NO_ZONES) if step == 1 and unit in _WIDTHS else None
    if text is None:
        # Other units, and years with more than four digits or a sign.
        text = np.where(there, np.datetime_as_string(times), "").astype("S")
        return text.astype(f"S{np.strings.str_len(text).max()}")
    return text.astype(f"S{_WIDTHS[unit]}")


def write_zoned(times: Array, zones: Array) -> Array:
    """Return date-times as text with microseconds and zone; ``b""`` for NaT.

    Parameters
    ----------
    times : ndarray of datetime64[us], shape (n,)
        Local times of the years 0 to 9999.
    zones : ndarray of S6, shape (n,) or (1,)
        The zones to append.

    Returns
    -------
    ndarray of S32, shape (n,)

    Raises
    ------
    ValueError
        For other years.
    """
    text = _written(times, ~np.isnat(times), zones)
    if text is None:
        raise ValueError("date-times of years without four digits")
    return text


def _written(times: Array, there: NDArray[np.bool_], zones: Array) -> Array | None:
    """Return the text of date-times as characters; None for years without four digits."""
    unit, _ = np.datetime_data(times.dtype)
    ticks = times.view("i8")
    all_there = bool(there.all())
    if not all_there:
        ticks = np.where(there, ticks, 0)
    per_day = _PER_DAY.get(unit)
    if per_day is not None:
        days = ticks // per_day
    else:
        days = ticks.view(f"M8[{unit}]").astype("M8[D]").view("i8")
    months = days.view("M8[D]").astype("M8[M]")
    month = months.view("i8")
    years = month // 12
    month = month - years * 12
    years += 1970
    if len(years) and not 0 <= years.min() <= years.max() <= 9999:
        return None
    blank = _BLANK if len(zones) != 1 else _BLANK[:_ZONE_AT] + zones[0]
    text = np.full(len(times), blank, f"S{WIDTH}")
    letters = text.view(_LETTERS)
    letters["year"] = _FOUR[years]
    letters["month"] = _TWO[month + 1]
    letters["day"] = _TWO[days - months.astype("M8[D]").view("i8") + 1]
    if per_day is not None:
        rest = ticks - days * per_day
        if per_day < 86400:
            seconds = rest * (86400 // per_day)
        elif per_day == 86400:
            seconds = rest
        else:
            seconds = _write_fraction(letters, rest, per_day // 86400)
        letters["time"] = _TIMES[seconds]
    if len(zones) > 1:
        letters["zone"] = zones
    if not all_there:
        text[~there] = b""
    return text


def _write_fraction(
    letters: Array, ticks: NDArray[np.int64], per_second: int
) -> NDArray[np.int64]:
    """Write fractions of a second, three digits at a time; return the whole seconds."""
    seconds = ticks // per_second
    rest = ticks - seconds * per_second
    # Finest first: the first character of each group is overwritten by the next.
    names = ["milli", "micro", "nano"][: len(str(per_second)) // 3]
    for name in reversed(names[1:]):
        coarser = rest // 1000
        letters[name] = _THREE[rest - coarser * 1000]
        rest = coarser
    letters["milli"] = _POINT[rest]
    return seconds


_PAIRS = np.full(2**16, -1, np.int32)
_PAIRS[_TWO] = np.arange(100)
"""The number of two characters if both are digits, otherwise -1."""
_MONTHS = np.arange("0000-01", "10000-02", dtype="M8[M]").astype("M8[D]").view("i8")
"""The first day of each month."""
_SCALES = (10 ** np.arange(6)[::-1]).astype(np.int32)
_SEPARATORS = np.array([b"\0\0\0\0-\0\0-\0\0T\0\0:\0\0:"]).astype("S24").view("u8")
_WHERE = np.array([b"\0\0\0\0\xff\0\0\xff\0\0\xff\0\0\xff\0\0\xff"]).astype("S24").view("u8")
"""The separators and their positions, eight characters at a time."""
_SECOND = len("0000-00-00T00:00:00")
_ZONE = len("+00:00")


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

    None if any text has another format or is not a valid date-time.
    """
    times = np.full(len(text), "NaT", "M8[us]")
    offsets = np.full(len(text), NAIVE, np.int16)
    lengths = np.strings.str_len(text)
    there = lengths > 0
    if not there.all():
        text, lengths = text[there], lengths[there]
    if not len(text):
        return times, offsets
    found = _fields(text, lengths)
    if found is None:
        return None
    seconds = found.seconds - np.where(found.zone == NAIVE, 0, found.zone) * 60
    times[there] = ((found.days * 86400 + seconds) * 10**6 + found.micro).view("M8[us]")
    offsets[there] = found.zone
    return times, offsets


def zones_of(text: Array) -> Array | None:
    """Return only the offsets of :func:`read`, without missing date-times.

    None also if any is finer than a millisecond.
    """
    lengths = np.strings.str_len(text)
    there = lengths > 0
    if not there.all():
        text, lengths = text[there], lengths[there]
    if not len(text):
        return np.empty(0, np.int64)
    found = _fields(text, lengths)
    return None if found is None or (found.micro % 1000).any() else found.zone


class _Fields(NamedTuple):
    """Components of date-times: days from 1970, seconds of a day, microseconds, minutes."""

    days: Array
    seconds: Array
    micro: Array
    zone: Array


def _fields(text: Array, lengths: Array) -> _Fields | None:
    if lengths.max() > WIDTH:
        return None
    letters = text.astype(f"S{WIDTH}").view(np.uint8).reshape(-1, WIDTH)
    if (letters.view("u8")[:, :3] & _WHERE != _SEPARATORS).any():
        return None
    century, year, month, day = (_pairs(letters, place) for place in (0, 2, 5, 8))
    hour, minute, second = (_pairs(letters, place) for place in (11, 14, 17))
    # The caller decides how to interpret a second of 60.
    if (
        (hour | minute | second).min() < 0
        or hour.max() > 23
        or max(minute.max(), second.max()) > 59
    ):
        return None
    days = _days(century, year, month, day)
    end, zone = _zones(letters, lengths)
    micro = _micros(letters, end)
    if days is None or zone is None or micro is None:
        return None
    return _Fields(days, (hour * 60 + minute) * 60 + second, micro, zone)


def _pairs(letters: Array, place: int) -> NDArray[np.int32]:
    """Return the number in two columns of characters."""
    found: NDArray[np.int32] = _PAIRS[letters[:, place : place + 2].view("u2")[:, 0]]
    return found


def _days(century: Array, year: Array, month: Array, day: Array) -> Array | None:
    """Return days since 1970; None if a date is invalid or outside the years 1 to 9999."""
    if (century | year).min() < 0 or month.min() < 1 or month.max() > 12 or day.min() < 1:
        return None
    months = (century * 100 + year) * 12 + month - 1
    found = _MONTHS[months] + (day - 1)
    # GDAL has no year 0.
    return found if months.min() >= 12 and (found < _MONTHS[months + 1]).all() else None


def _zones(letters: Array, lengths: Array) -> tuple[Array, Array | None]:
    """Return the positions of the zones, and the offsets; None if other text follows the time."""
    flat, ends = letters.reshape(-1), np.arange(0, letters.size, WIDTH) + lengths
    is_utc = flat[ends - 1] == ord("Z")
    sign = flat[ends - _ZONE]
    minus = sign == ord("-")
    # In shorter texts this is a hyphen of the date.
    signed = (minus | (sign == ord("+"))) & (lengths >= _SECOND + _ZONE)
    begin = lengths - is_utc - _ZONE * signed
    zone: Array = np.where(is_utc, 0, NAIVE)
    if signed.any():
        ends = ends[signed]
        # Each character combined with the next one.
        pairs = np.ndarray((letters.size - 1,), "u2", letters, strides=(1,))
        hours, minutes = _PAIRS[pairs[ends - 5]], _PAIRS[pairs[ends - 2]]
        is_zone = (flat[ends - 3] == ord(":")).all() and min(hours.min(), minutes.min()) >= 0
        if not is_zone or hours.max() > 23 or minutes.max() > 59:
            return begin, None
        east = hours * 60 + minutes
        minus = minus[signed]
        zone[signed] = np.where(minus, np.where(east == 0, NAIVE, -east), east)
    return begin, zone


def _micros(letters: Array, end: Array) -> Array | None:
    """Return the fraction of a second, whose digits end at the given position; or None."""
    there = end > _SECOND
    if not there.any():
        return np.zeros(len(end), np.int64)
    last = int(end.max())
    if (
        last > _SECOND + 7
        or ((letters[:, _SECOND] == ord(".")) & (end > _SECOND + 1) != there).any()
    ):
        return None
    digits = letters[:, _SECOND + 1 : last] - np.uint8(ord("0"))
    if (end != last).any():
        digits[np.arange(_SECOND + 1, last) >= end[:, np.newaxis]] = 0
    return digits @ _SCALES[: last - _SECOND - 1] if digits.max() <= 9 else None


MAX_OFFSET = 23 * 60 + 45
"""The largest offset that GDAL's bindings support: a day or more crashes them."""
STEP = 15
"""GDAL stores offsets in these steps, and silently drops others."""

LOW, HIGH = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")

_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:)(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


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
    fast = None if letters is None else read(letters)
    if fast is not None:
        return fast
    if isinstance(texts, np.ndarray):
        texts = [text.decode() for text in texts.tolist()]
    return _parse_one_by_one(texts, column, first_row)


def _letters(texts: Sequence[str]) -> Array | None:
    """Return texts as fixed-width bytes; None if they have non-ASCII characters."""
    lengths = set(map(len, texts))
    longest = max(lengths, default=0)
    joined = "".join(texts)
    if not joined.isascii() or "\0" in joined:
        return None
    if longest and lengths <= {0, longest}:
        # Joined, they convert to an array of characters in one step.
        if 0 in lengths:
            none = "\0" * longest
            joined = "".join([text or none for text in texts])
        return np.frombuffer(joined.encode("ascii"), f"S{longest}")
    return np.array(texts, "S")


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
                f"column {column!r}, row {first_row + row}: {text!r} is not a date-time of the "
                "years 1 to 9999"
            )
        zone = match[4] or "-00:00"
        if zone not in zones:
            zones[zone] = _minutes(zone)
            if zones[zone] != NAIVE and abs(zones[zone]) >= 24 * 60:
                # Python's time zones end below a day, and requesting such a date-time as an object
                # crashes GDAL.
                raise ConversionError(
                    f"column {column!r}, row {first_row + row}: {text!r} has an offset of a day "
                    "or more"
                )
        offsets[row] = zones[zone]
        # A second of 60 is either 59.9996 rounded up, or a leap second.
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
    """Add the digits that GDAL's text has rounded away.

    Parameters
    ----------
    times, offsets : ndarray
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
    zones = zones_of(text)
    if zones is None:
        return False
    naive = zones == NAIVE
    if not naive.any():
        return not _bad_zone(zones).any()
    # GDAL prints -00:00 for no zone, but reads it as UTC.
    if np.strings.endswith(text, b"-00:00").any():
        return False
    return not _bad_zone(np.where(naive, 0, zones)).any()


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
        low += 1
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
