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
from .isotext import NAIVE, read, write_zoned, zones_of

__all__ = [
    "NAIVE",
    "finer",
    "is_for_gdal",
    "not_held",
    "outside",
    "parse",
    "text_for_gdal",
    "to_text",
]

Array = NDArray[Any]

MAX_OFFSET = 23 * 60 + 45
"""The widest that GDAL's bindings can hand out: of a day or more they crash."""
STEP = 15
"""GDAL keeps offsets in such steps; of any other it makes none at all, silently."""

LOW, HIGH = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")

_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:)(\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)


def parse(
    texts: Sequence[str] | Array, *, column: str = "", first_row: int = 0
) -> tuple[Array, Array]:
    """Read date-times as GDAL prints them; the empty string is none.

    Parameters
    ----------
    texts : sequence of str, or ndarray of fixed-width bytes
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
    letters = texts if isinstance(texts, np.ndarray) else _letters(texts)
    fast = None if letters is None else read(letters)
    if fast is not None:
        return fast
    if isinstance(texts, np.ndarray):
        texts = [text.decode() for text in texts.tolist()]
    return _parse_one_by_one(texts, column, first_row)


def _letters(texts: Sequence[str]) -> Array | None:
    """Return texts as fixed-width bytes; None where they have others than ASCII letters."""
    lengths = set(map(len, texts))
    longest = max(lengths, default=0)
    joined = "".join(texts)
    if not joined.isascii() or "\0" in joined:
        return None
    if longest and lengths <= {0, longest}:
        # Joined they are letters of an array at once, which strings one by one are not.
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


def _zone_for_gdal(offset: int) -> str:
    # GDAL reads a letter more quickly than numbers.
    return "Z" if offset == 0 else _zone(offset)


def is_for_gdal(text: Array) -> bool:
    """Return whether GDAL reads texts exactly as they are.

    Parameters
    ----------
    text : ndarray of fixed-width bytes, shape (n,)

    Returns
    -------
    bool
        Whether :func:`text_for_gdal` of what :func:`parse` makes of them is the same to GDAL:
        for sure, and so not of all.
    """
    zones = zones_of(text)
    if zones is None:
        return False
    naive = zones == NAIVE
    if not naive.any():
        return not _bad_zone(zones).any()
    # GDAL reads -00:00, which it prints for no zone, as UTC.
    if np.strings.endswith(text, b"-00:00").any():
        return False
    return not _bad_zone(np.where(naive, 0, zones)).any()


def _bad_zone(east: Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (east % STEP != 0) | (np.abs(east) > MAX_OFFSET)
    return found


def outside(times: Array) -> NDArray[np.bool_]:
    """Return which date-times, of any unit, are outside the years 1 to 9999."""
    if np.datetime_data(times.dtype)[0] in ("ns", "ps", "fs", "as"):
        # Of so fine ones there are none, and the limits are none of them.
        return np.zeros(len(times), np.bool_)
    low, high = LOW.astype(times.dtype), HIGH.astype(times.dtype)
    if low.astype("M8[us]") < LOW:
        # Weeks begin before.
        low += 1
    found: NDArray[np.bool_] = (times < low) | (times > high)
    return found


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
    """Return which times are finer than a millisecond, and than GDAL's 32-bit seconds.

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
