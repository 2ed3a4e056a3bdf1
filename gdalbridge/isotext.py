"""Date-times as ISO-8601 letters and back, many at a time. Pure.

numpy's own way makes an object of Python of each, or prints it digit by digit: a page of
them takes longer so than GDAL takes to hand it out. Here all letters are an array, a digit
of all date-times is one step, and a number of two to four digits is looked up.

>>> write(np.array(["2020-01-02T03:04:05.678", "NaT"], "M8[ms]")).tolist()
[b'2020-01-02T03:04:05.678', b'']
>>> times, offsets = read(np.array([b"2020-01-02T03:04:05.678+02:00", b""]))
>>> times.astype(str).tolist(), offsets.tolist() == [120, NAIVE]
(['2020-01-02T01:04:05.678000', 'NaT'], True)
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAIVE", "WIDTH", "read", "write", "write_zoned"]

Array = NDArray[Any]

NAIVE = -32768
"""Offset of a date-time that has no zone."""
WIDTH = len("0000-00-00T00:00:00.000000+00:00")

_TWO = np.array([b"%02d" % number for number in range(100)]).view("u2")
_FOUR = np.array([b"%04d" % number for number in range(10000)]).view("u4")
_POINT = np.array([b".%03d" % number for number in range(1000)]).view("u4")
# The fourth letter is another's, which is written after it.
_THREE = np.array([b"%03d0" % number for number in range(1000)]).view("u4")
_SIXTY = [b"%02d" % number for number in range(60)]
_TIMES = np.array(
    [b":".join([b"%02d" % h, m, s]) for h in range(24) for m in _SIXTY for s in _SIXTY]
).view("u8")
"""The letters of every second of a day."""
_PLACES = {
    "year": ("u4", 0), "month": ("u2", 5), "day": ("u2", 8), "time": ("u8", 11),
    "milli": ("u4", 19), "micro": ("u4", 23), "nano": ("u4", 26), "zone": ("S6", 26),
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
_WIDTHS = {"Y": 4, "M": 7, "D": 10, "h": 13, "m": 16, "s": 19, "ms": 23, "us": 26, "ns": 29}
"""How many letters of them each of numpy's units has."""
_PER_DAY = {
    "h": 24, "m": 1440, "s": 86400, "ms": 86400 * 10**3, "us": 86400 * 10**6, "ns": 86400 * 10**9
}  # fmt: skip


def write(times: Array) -> Array:
    """Return what :func:`numpy.datetime_as_string` makes of date-times; ``b""`` for NaT.

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
    letters = _written(times, there) if step == 1 and unit in _WIDTHS else None
    if letters is None:
        # Other units, and years of more than four digits, or with a sign.
        return np.where(there, np.datetime_as_string(times), "").astype("S")
    return letters.view(f"S{WIDTH}").astype(f"S{_WIDTHS[unit]}")


def write_zoned(times: Array, zones: Array) -> Array:
    """Return date-times with microseconds and zone; ``b""`` for NaT.

    Parameters
    ----------
    times : ndarray of datetime64[us], shape (n,)
        Of the years 0 to 9999, as they are to be read.
    zones : ndarray of S6, shape (n,)
        What follows them.

    Returns
    -------
    ndarray of S32, shape (n,)
    """
    there = ~np.isnat(times)
    letters = _written(times, there)
    if letters is None:
        raise ValueError("date-times of years that have not four digits")
    letters["zone"] = zones
    text = letters.view(f"S{WIDTH}")
    if not there.all():
        text[~there] = b""
    return text


def _written(times: Array, there: NDArray[np.bool_]) -> Array | None:
    """Return all letters of date-times; None where a year has not four digits."""
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
    text = np.full(len(times), _BLANK, f"S{WIDTH}")
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
    if not all_there:
        text[~there] = b""
    return letters


def _write_fraction(
    letters: Array, ticks: NDArray[np.int64], per_second: int
) -> NDArray[np.int64]:
    """Write what is less than a second, three digits at a time; return the seconds."""
    seconds = ticks // per_second
    rest = ticks - seconds * per_second
    for name, table in (("milli", _POINT), ("micro", _THREE), ("nano", _THREE)):
        per_second //= 1000
        three = rest // per_second
        letters[name] = table[three]
        if per_second == 1:
            break
        rest = rest - three * per_second
    return seconds


_PAIRS = np.full(2**16, -1, np.int32)
_PAIRS[_TWO] = np.arange(100)
"""The number that two letters are, both digits; else -1."""
_SCALES = (10 ** np.arange(6)[::-1]).astype(np.int32)
_SEPARATORS = {4: ord("-"), 7: ord("-"), 10: ord("T"), 13: ord(":"), 16: ord(":")}
_SECOND = len("0000-00-00T00:00:00")
_ZONE = len("+00:00")


def read(text: Array) -> tuple[Array, Array] | None:
    """Return date-times that are all of the usual form.

    That is date, ``T``, time, up to six digits of a second or none, and ``Z``, an offset
    below a day, or nothing; the empty string is no date-time.

    Parameters
    ----------
    text : ndarray of fixed-width bytes, shape (n,)

    Returns
    -------
    times : ndarray of datetime64[us], shape (n,)
        In UTC; those without a zone as they are.
    offsets : ndarray of int16, shape (n,)
        Minutes east of UTC, or :data:`NAIVE`: for no zone, and for ``-00:00``.

    None where one of them has another form, or there is no such date-time.
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
    if any((letters[:, place] != letter).any() for place, letter in _SEPARATORS.items()):
        return None
    century, year, month, day = (_pairs(letters, place) for place in (0, 2, 5, 8))
    hour, minute, second = (_pairs(letters, place) for place in (11, 14, 17))
    days = _days(century, year, month, day)
    lowest = min(hour.min(), minute.min(), second.min())
    # A second of 60 is for who knows what it means.
    if days is None or lowest < 0 or hour.max() > 23 or max(minute.max(), second.max()) > 59:
        return None
    micro = np.zeros(len(letters), np.int32)
    zone = np.full(len(letters), NAIVE, np.int16)
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        same = lengths == length
        rest = _rest(letters[same, _SECOND:length])
        if rest is None:
            return None
        micro[same], zone[same] = rest
    seconds = (hour * 60 + minute - np.where(zone == NAIVE, 0, zone)) * 60 + second
    times[there] = days.astype("M8[us]") + (seconds.astype("i8") * 10**6 + micro).view("m8[us]")
    offsets[there] = zone
    return times, offsets


def _pairs(letters: Array, place: int) -> NDArray[np.int32]:
    """Return the number in two columns of letters."""
    found: NDArray[np.int32] = _PAIRS[letters[:, place : place + 2].view("u2")[:, 0]]
    return found


def _days(century: Array, year: Array, month: Array, day: Array) -> Array | None:
    """Return days; None where there is no such one of the years 1 to 9999."""
    if min(century.min(), year.min()) < 0 or month.min() < 1 or month.max() > 12 or day.min() < 1:
        return None
    years = century * 100 + year
    months = ((years - 1970) * 12 + month - 1).astype("i8").view("M8[M]")
    found = months.astype("M8[D]") + (day - 1).astype("m8[D]")
    is_day = day.max() <= 28 or bool((found.astype("M8[M]") == months).all())
    return found if is_day and years.min() > 0 else None


def _rest(letters: Array) -> tuple[Any, Any] | None:
    """Return microseconds and offsets of what follows the seconds, all of one length.

    None where there is something else, or not the same in all of them.
    """
    east: Any = NAIVE
    if letters.shape[1] >= 1 and letters[0, -1] == ord("Z"):
        if (letters[:, -1] != ord("Z")).any():
            return None
        letters, east = letters[:, :-1], 0
    elif letters.shape[1] >= _ZONE and letters[0, -_ZONE] in b"+-":
        zone = _offsets(letters[:, -_ZONE:])
        if zone is None:
            return None
        letters, east = letters[:, :-_ZONE], zone
    if letters.shape[1] == 0:
        return 0, east
    digits = letters[:, 1:] - np.uint8(ord("0"))
    if not 1 <= digits.shape[1] <= 6 or (letters[:, 0] != ord(".")).any() or digits.max() > 9:
        return None
    return digits @ _SCALES[: digits.shape[1]], east


def _offsets(letters: Array) -> Array | None:
    minus = letters[:, 0] == ord("-")
    hours, minutes = _pairs(letters, 1), _pairs(letters, 4)
    is_zone = (minus | (letters[:, 0] == ord("+"))) & (letters[:, 3] == ord(":"))
    if not is_zone.all() or min(hours.min(), minutes.min()) < 0:
        return None
    if hours.max() > 23 or minutes.max() > 59:
        return None
    east = hours * 60 + minutes
    return np.where(minus, np.where(east == 0, NAIVE, -east), east)
