"""Date-times as text: the whole block at once and row by row give the same, as Python has it."""

import datetime as dt
import random

import numpy as np
import pytest

from gdalbridge.errors import ConversionError
from gdalbridge.gdalio.datetimes import NAIVE, parse, text_for_gdal, to_text

ZONES = ["+00:00", "-00:00", "+05:45", "-09:30", "-00:15", "+14:00", "+23:45", "-23:45"]


def some_texts(count, seed=0):
    rng = random.Random(seed)
    return [
        f"{rng.choice([1, 1000, 1969, 2020, 9999]):04d}-{rng.randint(1, 12):02d}-"
        f"{rng.randint(1, 28):02d}T{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:"
        f"{rng.randint(0, 59):02d}.{rng.randint(0, 999):03d}{rng.choice(ZONES)}"
        if rng.random() < 0.9
        else ""
        for _ in range(count)
    ]


def by_python(text):
    """The oracle: microseconds of UTC from 1970, and the offset."""
    if not text:
        return None, NAIVE
    naive = dt.datetime.fromisoformat(text[:23])
    since = (naive - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)  # noqa: DTZ001 - both are local times
    if text.endswith("-00:00"):
        return since, NAIVE
    east = (int(text[24:26]) * 60 + int(text[27:29])) * (-1 if text[23] == "-" else 1)
    return since - east * 60_000_000, east


# With an unusual one among them they are parsed one by one.
@pytest.mark.parametrize("more", [[], ["2020-01-02T03:04:05Z"]])
def test_as_python_reads_them(more):
    texts = some_texts(500)
    times, offsets = parse(texts + more)
    for text, time, offset in zip(texts, times, offsets.tolist(), strict=False):
        since, east = by_python(text)
        assert (None if np.isnat(time) else int(time.view("i8")), offset) == (since, east), text
    if more:
        assert (str(times[-1]), offsets[-1]) == ("2020-01-02T03:04:05.000000", 0)


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01T00:00:00.000+00:00",
        "-005-01-01T00:00:00.000-00:00",
        "10000-01-01T00:00:00.000+00:00",
        "2020-13-01T00:00:00.000+00:00",
        "2020-02-30T00:00:00.000+00:00",
        "2020-01-01T24:00:00.000+00:00",
        "2020-01-01T00:60:00.000+00:00",
        "2020-01-01T00:00:00.000+24:00",
        "2020-01-01T00:00:00.000-25:00",
        "2020-01-01T00:00:00.000+99:99",
        "2020-01-01T00:00:00.000 00:00",
        "2020-01-01 00:00:00.000+00:00",
        "２020-01-01T00:00:00.000+00:00",
        "soon",
        " ",
    ],
)
def test_what_is_no_date_time_is_refused_by_row(text):
    texts = some_texts(5)
    with pytest.raises(ConversionError, match=r"column 'd'.* row 1(05|00)"):
        parse([*texts, text], column="d", first_row=100)


def test_a_minute_whose_last_second_was_rounded_up():
    times, offsets = parse(["2020-01-02T03:04:60.000+01:00"])
    assert (str(times[0]), offsets[0]) == ("2020-01-02T02:04:59.999999", 60)


@pytest.mark.parametrize("texts", [[], [""], ["", "", ""]])
def test_none_at_all(texts):
    times, offsets = parse(texts)
    assert np.isnat(times).all()
    assert (len(times), offsets.tolist()) == (len(texts), [NAIVE] * len(texts))


def test_to_text_and_back():
    times, offsets = parse(some_texts(300, seed=1))
    texts = to_text(times, offsets)
    again = parse(texts, column="d")
    assert (again[0].view("i8") == times.view("i8")).all()
    assert (again[1] == offsets).all()
    assert len(set(offsets.tolist())) > 1


def test_what_gdal_is_given_reads_back():
    times, offsets = parse(some_texts(300, seed=2))
    texts = text_for_gdal(times, offsets, column="d", first_row=0)
    again = parse([text.decode() for text in texts.tolist()])
    assert (again[0].view("i8") == times.view("i8")).all()
    assert (again[1] == offsets).all()
    # GDAL reads -00:00, which it prints for "no zone", as UTC.
    assert not any(text.endswith(b"-00:00") for text in texts.tolist())


@pytest.mark.parametrize(
    ("time", "offset", "why"),
    [
        ("2020-01-01T00:00:59.123457", 0, "finer than GDAL's seconds"),
        ("2020-01-01T00:00:59.999999", 0, "finer than GDAL's seconds"),
        ("10000-01-01", NAIVE, "outside the years 1 to 9999"),
        ("9999-12-31T23:59", 60, "outside the years 1 to 9999"),
        ("0000-12-31T23:00", NAIVE, "outside the years 1 to 9999"),
        ("2020-01-01", 7, "has an offset that GDAL can't hold"),
        ("2020-01-01", 24 * 60, "has an offset that GDAL can't hold"),
        ("2020-01-01", -25 * 60, "has an offset that GDAL can't hold"),
    ],
)
def test_what_gdal_can_not_hold_is_refused_by_row(time, offset, why):
    times = np.array(["NaT", "2020-01-01", time], "M8[us]")
    offsets = np.array([NAIVE, 0, offset])
    with pytest.raises(ConversionError, match=f"column 'd', row 12: .*{why}"):
        text_for_gdal(times, offsets, column="d", first_row=10)


def test_microseconds_that_32_bits_of_seconds_hold():
    times = np.array(["2020-01-01T00:00:03.000001", "1969-12-31T23:59:02.123456"], "M8[us]")
    texts = text_for_gdal(times, np.zeros(2, np.int32), column="d", first_row=0)
    assert texts.tolist() == [
        b"2020-01-01T00:00:03.000001Z",
        b"1969-12-31T23:59:02.123456Z",
    ]
