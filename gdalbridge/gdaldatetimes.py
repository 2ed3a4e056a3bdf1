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

__all__ = ["NAIVE", "common_offset", "finer", "from_text", "parse", "text_for_gdal", "to_text"]

Array = NDArray[Any]

NAIVE = -32768
"""Offset of a date-time that has no zone."""
MAX_OFFSET = 14 * 60
STEP = 15

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
    exact = times.copy()
    for row, value in enumerate(objects):
        if value is None:
            continue
        micro = value.microsecond
        milli = round(micro / 1000) * 1000
        seconds = np.float32(value.second + micro / 1e6)
        # A millisecond that was written comes back up to 2 microseconds off.
        if milli < 1_000_000 and np.float32(value.second + milli / 1e6) == seconds:
            micro = milli
        if texts[row][17:19] == "60" and value.second != 59:
            raise ConversionError(
                f"column {column!r}, row {first_row + row}: {texts[row]!r} is a leap second, which "
                "no datetime64 has"
            )
        local = np.datetime64(value.replace(tzinfo=None, microsecond=micro), "us")
        east = 0 if offsets[row] == NAIVE else int(offsets[row])
        exact[row] = local - np.timedelta64(east, "m")
    return exact


def common_offset(offsets: Array, times: Array) -> int | None:
    """Return the one offset that all date-times of a block have; None where they differ.

    Returns
    -------
    int or None
        Minutes or :data:`NAIVE` (also where there is no date-time at all).
    """
    found = np.unique(offsets[~np.isnat(times)])
    if len(found) > 1:
        return None
    return int(found[0]) if len(found) else NAIVE


def to_text(times: Array, offsets: Array) -> list[str]:
    """Return ISO-8601 text with offset, for a column in which offsets are mixed.

    The inverse of :func:`from_text`; none is the empty string, no zone is no suffix.
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


def from_text(texts: Sequence[str], *, column: str, first_row: int) -> tuple[Array, Array]:
    """Read what :func:`to_text` wrote; errors as :func:`parse`."""
    return parse(texts, column=column, first_row=first_row)


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
        For years outside 1 to 9999, offsets that are no multiple of 15 minutes up to 14
        hours, and microseconds that a 32-bit float of seconds does not hold.
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
        (bad_zone, "has an offset that GDAL can't hold: multiples of 15 minutes up to 14 hours"),
        (bad_time, "is finer than GDAL's seconds, which are exact to the millisecond"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise ConversionError(f"column {column!r}, row {first_row + row}: {times[row]} {why}")
    texts = np.datetime_as_string(np.where(there, local, low), unit="us").tolist()
    zones = [_zone(offset) for offset in offsets.tolist()]
    lines = [
        (text.removesuffix("000") + zone).encode("ascii") if is_there else b""
        for text, zone, is_there in zip(texts, zones, there.tolist(), strict=True)
    ]
    return np.array(lines, "S32")
