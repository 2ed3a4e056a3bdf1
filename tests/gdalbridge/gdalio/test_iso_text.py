"""Date-times as letters are numpy's and Python's, whatever the unit, the form and the date."""

import datetime as dt
import random
import re

import numpy as np
import pytest

from gdalbridge.gdalio.datetimes import NAIVE, is_for_gdal, read, write, write_zoned

DAYS = [
    "0000-01-01", "0000-12-31", "0001-01-01", "1582-10-15", "1899-12-31", "1900-02-28",
    "1969-12-31", "1970-01-01", "1999-12-31", "2000-02-29", "2024-02-29", "2100-03-01",
    "9999-12-31",
]  # fmt: skip


def by_numpy(times):
    return np.where(np.isnat(times), "", np.datetime_as_string(times)).tolist()


def some_times(unit, count=400):
    rng = np.random.default_rng(5)
    day = np.array(DAYS, "M8[D]").view("i8")
    if unit == "ns":
        # No others can be told in nanoseconds.
        day = day[(day > -100_000) & (day < 100_000)]
    days = rng.choice([*day, *(day[:-1] + 1), *(day[1:] - 1)], count)
    if unit in "YMDW":
        times = days.view("M8[D]").astype(f"M8[{unit}]")
    else:
        ticks = int(np.timedelta64(1, "D") // np.timedelta64(1, unit))
        edges = [0, 1, ticks // 2, ticks - 1]
        within = np.where(
            rng.random(count) < 0.3, rng.choice(edges, count), rng.integers(0, ticks, count)
        )
        times = (days * ticks + within).view(f"M8[{unit}]")
    times[rng.random(count) < 0.1] = "NaT"
    return times


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"])
def test_written_as_numpy_writes_them(unit):
    times = some_times(unit)
    assert [text.decode() for text in write(times).tolist()] == by_numpy(times)


@pytest.mark.parametrize("time", ["-0001-12-31T23:59:59", "10000-01-01", "-290000-01-01", "NaT"])
@pytest.mark.parametrize("unit", ["D", "s", "us", "25s", "7D"])
def test_other_years_and_units(time, unit):
    times = np.array(["2020-02-29", time, "NaT"]).astype("M8[us]").astype(f"M8[{unit}]")
    for few in (times, times[1:], times[2:], times[:0]):
        assert [text.decode() for text in write(few).tolist()] == by_numpy(few)
        # An array of GDAL's is as wide as its longest.
        assert write(few).dtype.itemsize == max([1, *map(len, by_numpy(few))])


def test_with_zones():
    times = some_times("us")
    zones = np.array([b"+05:45", b"", b"Z"] * 200)[: len(times)]
    for given in (zones, zones[:1], zones[1:2]):
        each = np.broadcast_to(given, len(times)) if len(given) == 1 else given
        expected = [
            text + zone.decode() if text else ""
            for text, zone in zip(by_numpy(times), each.tolist(), strict=True)
        ]
        assert [text.decode() for text in write_zoned(times, given).tolist()] == expected


FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:[0-5]\d)?", re.ASCII)


def by_python(text):
    """Microseconds of UTC from 1970 and the offset; None where it is no date-time."""
    if text == "":
        return None, NAIVE
    if not FORM.fullmatch(text):
        return None
    zone = re.search(r"(Z|[+-]\d\d:\d\d)?$", text)[0]
    try:
        local = dt.datetime.fromisoformat(text.removesuffix(zone))
        minutes = int(zone[1:3]) * 60 + int(zone[4:]) if len(zone) > 1 else 0
        if minutes >= 24 * 60:
            return None
    except ValueError:
        return None
    since = (local - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)  # noqa: DTZ001 - both are local times
    if zone in ("", "-00:00"):
        return since, NAIVE
    east = -minutes if zone[0] == "-" else minutes
    return since - east * 60_000_000, east


def some_text(rng):
    day = rng.choice(DAYS[2:])
    fraction = rng.choice(["", ".5", ".25", ".678", ".6789", ".123456", ".000"])
    zone = rng.choice(["", "Z", "+00:00", "-00:00", "+05:45", "-09:30", "+23:59", "-23:45"])
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    return f"{day}T{clock}{fraction}{zone}"


def found(texts):
    both = read(np.array([text.encode() for text in texts]))
    if both is None:
        return None
    times, offsets = both
    assert times.dtype == "M8[us]"
    since = [None if np.isnat(time) else int(time.view("i8")) for time in times]
    return list(zip(since, offsets.tolist(), strict=True))


def test_read_as_python_reads_them():
    rng = random.Random(1)
    for count in (1, 2, 50, 700):
        texts = [some_text(rng) if rng.random() < 0.9 else "" for _ in range(count)]
        assert found(texts) == [by_python(text) for text in texts]
    for text in ("", "2020-01-02T03:04:05", "2020-01-02T03:04:05.5-00:00"):
        assert found([text] * 3) == [by_python(text)] * 3


def test_nothing_else_is_read():
    """Letters are changed, left out, doubled: each such text is one that Python has, or none."""
    rng = random.Random(2)
    letters = "0123456789-+:.TZtz /eé\x01"
    refused = 0
    for _ in range(4000):
        text = some_text(rng)
        for _ in range(rng.randint(1, 2)):
            place = rng.randrange(len(text))
            with_ = rng.choice([rng.choice(letters), "", text[place] * 2])
            text = text[:place] + with_ + text[place + 1 :]
        expected = by_python(text)
        assert found([text]) == (None if expected is None else [expected]), text
        assert expected is None or found(["", text, "2020-01-02T03:04:05Z"])[1] == expected
        refused += expected is None
        if expected is None:
            assert found(["2020-01-02T03:04:05Z", text]) is None
    assert 1000 < refused < 3900


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("2020-01-02T03:04:05.678Z", True),
        ("2020-01-02T03:04:05.678000+05:45", True),
        ("2020-01-02T03:04:05", True),
        ("", True),
        # No zone; GDAL reads it as UTC.
        ("2020-01-02T03:04:05-00:00", False),
        ("2020-01-02T03:04:05.678123Z", False),
        ("2020-01-02T03:04:05+05:46", False),
        ("2020-01-02T03:04:60.000Z", False),
        ("0000-01-02T03:04:05Z", False),
        ("soon", False),
    ],
)
def test_what_gdal_may_be_handed_as_it_is(text, is_so):
    for others in ([], ["2021-01-02T03:04:05Z", ""], ["2021-01-02T03:04:05"]):
        assert is_for_gdal(np.array([*others, text], "S40")) is is_so
