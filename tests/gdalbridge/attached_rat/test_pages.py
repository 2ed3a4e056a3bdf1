"""Pages of text and of date-times: what a table of GDAL's with the same rows says, bit for bit."""

import warnings

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import LossWarning, attach
from ratzarr import RatZarr
from tests.gdalbridge.attached_rat.test_rat import BLOCKS, GETTERS, TEXT, outcome, raster, sidecar
from tests.gdalbridge.sample_rasters import (
    DATETIME,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    fill,
    new_rat,
)

new_types = pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
ROWS, CHUNK = 2300, 700
# Within a chunk, over the border of two, of three, whole chunks, all rows, one row.
PAGES = [(0, 500), (650, 100), (699, 2), (690, 720), (1400, 700), (0, ROWS), (ROWS - 1, 1)]
CELLS = [0, 1, 2, 3, 4, 5, 6, 7, 698, 699, 700, 1399, 1400, ROWS - 1]

LETTERS = [
    "größe {}", "straße 東京 {}", "🛰 {} é", "", "plain {}", " {} ", "\u0301{}\ufeff", "\t\n\x01{}",
    "\U0010ffff{}", "\x7f\x80{}", "1{}", "-2.5e{}",
]  # fmt: skip


def texts(forms, rows=ROWS):
    return [forms[row % len(forms)].format(row) for row in range(rows)]


KINDS = {
    "ASCII": texts(["name {}", "", "{}"]),
    "other": texts(LETTERS),
    "of 255 bytes and more": texts([*LETTERS, "é" * 120 + "{:015d}", "é" * 127 + "{:03d}"]),
    "nothing": [""] * ROWS,
}


def native(kind, values):
    """A table of GDAL's with these rows: some versions read pages that begin in row 0 only."""
    return new_rat([("c", kind, 0, values)], len(values))


def compare(rat, kind, values, column=0):
    """Pages and cells are the same, whoever has been asked for what before."""
    for start, length in PAGES:
        if start + length > len(values):
            continue
        theirs = native(kind, values[start : start + length])
        found = outcome(rat.ReadAsArray, column, start, length)
        assert found == outcome(theirs.ReadAsArray, 0, 0, length), (start, length)
        for name in BLOCKS:
            found = outcome(getattr(rat, name), column, start, length)
            assert found == outcome(getattr(theirs, name), 0, 0, length), (name, start)
    theirs = native(kind, values)
    for row in [row for row in CELLS if row < len(values)]:
        for name in GETTERS:
            found = outcome(getattr(rat, name), row, column)
            assert found == outcome(getattr(theirs, name), row, 0), (name, row)


@pytest.fixture(autouse=True)
def quiet():
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    yield
    gdal.PopErrorHandler()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [CHUNK, 300, 10_000])
def test_text(tmp_path, kind, chunk):
    path = raster(tmp_path / "a.tif")
    values = KINDS[kind]
    sidecar(path, [("s", TEXT, np.array(values, TEXT), {})], ROWS, chunk=chunk)
    compare(attach(path), STRING, values)


def test_text_with_zero_characters(tmp_path):
    """GDAL ends a text there: so it is shown, with a warning, in pages with such rows and not."""
    path = raster(tmp_path / "a.tif")
    values = texts(LETTERS)
    values[5], values[1500] = "größe\0and more", "\0"
    sidecar(path, [("s", TEXT, np.array(values, TEXT), {})], ROWS, chunk=CHUNK)
    with pytest.warns(LossWarning, match="row 5.*zero character"):
        assert attach(path).ReadAsArray(0, 0, 10)[5] == "größe".encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        compare(attach(path), STRING, [value.partition("\0")[0] for value in values])


def test_bytes_that_are_no_text(tmp_path):
    path = raster(tmp_path / "a.tif")
    values = np.array([b"\xff\xfe", b"", b"ok", "größe".encode(), b"\xc3", b"\xed\xa0\x80"] * 50)
    sidecar(path, [("b", values.dtype, values, {})], 300, chunk=70)
    rat, theirs = attach(path), gdal.RasterAttributeTable()
    fill(theirs, [("b", STRING, 0, None)], 300)
    theirs.WriteArray(values, 0)
    assert outcome(rat.ReadAsArray, 0, 0, 300) == outcome(theirs.ReadAsArray, 0, 0, 300)
    for row in range(12):
        for name in GETTERS:
            found = outcome(getattr(rat, name), row, 0)
            assert found == outcome(getattr(theirs, name), row, 0), (name, row)


def test_text_that_is_changed(tmp_path):
    """Longer and shorter texts, in rows of several chunks; seen before they are written, and after."""
    path = raster(tmp_path / "a.tif")
    values = texts(["größe {}", "x"])
    sidecar(path, [("s", TEXT, np.array(values, TEXT), {})], ROWS, chunk=CHUNK)
    rat = attach(path, update=True)
    for step, new in enumerate(["", "🛰" * 20, "y" * 300, "plain"]):
        for row in (3 + step, 699, 700, 1405):
            rat.SetValueAsString(row, 0, new)
            values[row] = new
        page = texts([f"{new}{{}}"], 90)
        rat.WriteArray(np.array(page, TEXT), 0, 660 + step)
        values[660 + step : 750 + step] = page
        compare(rat, STRING, values)
        compare(attach(path), STRING, values)
    rat.SetRowCount(ROWS + 500)
    rat.SetValueAsString(ROWS + 499, 0, "größe")
    values += [""] * 499 + ["größe"]
    compare(rat, STRING, values)
    rat.close()
    compare(attach(path), STRING, values)


def test_pages_beyond_the_end_of_a_column(tmp_path):
    """Of columns that are shorter than the table the rest is GDAL's empty value."""
    path = raster(tmp_path / "a.tif", [("own", INTEGER, 0, [7] * 40)], 40)
    columns = [
        ("s", TEXT, np.array(texts(LETTERS, 30), TEXT), {}),
        ("i", "i4", np.arange(30), {}),
        ("r", "f8", np.arange(30) / 3, {}),
    ]
    sidecar(path, columns, 30, chunk=20)
    rat = attach(path)
    theirs = new_rat(
        [
            ("s", STRING, 0, [*texts(LETTERS, 30), *[""] * 10]),
            ("i", INTEGER, 0, [*range(30), *[0] * 10]),
            ("r", REAL, 0, [*(np.arange(30) / 3), *[0.0] * 10]),
        ],
        40,
    )
    assert rat.GetRowCount() == 40
    for column in range(3):
        found = outcome(rat.ReadAsArray, 1 + column, 0, 40)
        assert found == outcome(theirs.ReadAsArray, column, 0, 40)
        for name in BLOCKS:
            for start, length in ((0, 40), (25, 10), (30, 5), (39, 1)):
                found = outcome(getattr(rat, name), 1 + column, start, length)
                expected = outcome(getattr(theirs, name), column, 0, 40)
                assert found == expected[start : start + length], (name, start)


# ---- date-times


def some_times(unit):
    """Days and seconds of all years that GDAL has, and some that are none."""
    rng = np.random.default_rng(3)
    low, high = (-5364662400, 7289654399) if unit == "ns" else (-62135596800 + 86400, 253402214400)
    times = rng.integers(low, high, ROWS).view("M8[s]")
    times[:6] = np.array([low, high, 0, -1, 951782400, 951868800]).view("M8[s]")
    if unit in ("ms", "us", "ns"):
        milli = times.astype("M8[ms]") + rng.integers(0, 1000, ROWS).astype("m8[ms]")
        times = np.where(np.arange(ROWS) % 3, milli, times.astype("M8[ms]"))
    times = times.astype(f"M8[{unit}]")
    times[rng.random(ROWS) < 0.2] = "NaT"
    times[7] = "NaT"
    return times


def as_text(times, offset, unit="ms"):
    """By numpy; GDAL is told the zone."""
    zone = ""
    if offset is not None:
        zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    local = times.astype("M8[us]") + np.timedelta64(offset or 0, "m")
    return [
        "" if text == "NaT" else text + zone
        for text in np.datetime_as_string(local, unit=unit, casting="unsafe").tolist()
    ]


@new_types
@pytest.mark.parametrize("unit", ["D", "h", "s", "ms", "us", "ns"])
@pytest.mark.parametrize("offset", [0, None, 345, -570])
def test_date_times(tmp_path, unit, offset):
    path = raster(tmp_path / "a.tif")
    times = some_times(unit)
    sidecar(path, [("t", times.dtype, times, {"UTC_OFFSET_MINUTES": offset})], ROWS, chunk=CHUNK)
    compare(attach(path), DATETIME, as_text(times, offset))


@new_types
def test_date_times_finer_than_milliseconds(tmp_path):
    """Those that GDAL's 32-bit seconds hold are the same to the last microsecond."""
    path = raster(tmp_path / "a.tif")
    micro = np.arange(ROWS) * 7 % 1_000_000
    # Up to 3 seconds that is exact, every other one is rounded with a warning.
    times = (np.arange(ROWS) * 60_000_000 + micro).view("M8[us]")
    sidecar(path, [("t", "M8[us]", times, {})], ROWS, chunk=CHUNK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(attach(path), DATETIME, as_text(times, 0, unit="us"))


@new_types
@pytest.mark.parametrize("milli", [True, False], ids=["milliseconds", "microseconds"])
def test_date_times_of_many_zones(tmp_path, milli):
    path = raster(tmp_path / "a.tif")
    times = some_times("ms")
    offsets = [0, None, 345, -570, 1425, -1425, 15]
    each = [as_text(times, offset) for offset in offsets]
    values = [each[row % len(each)][row] for row in range(ROWS)]
    stored = values
    if not milli:
        # The forms that writers have: digits to the microsecond, none, Z.
        stored = [
            value.replace(".000", "").replace("+00:00", "Z") if row % 2
            else value[:23] + "000" * bool(value) + value[23:]
            for row, value in enumerate(values)
        ]  # fmt: skip
    sidecar(path, [("t", TEXT, np.array(stored, TEXT), {"GDAL_TYPE": 4})], ROWS, chunk=CHUNK)
    compare(attach(path), DATETIME, values)


@new_types
def test_date_times_that_gdal_would_read_otherwise(tmp_path):
    """-00:00 is no zone, as GDAL itself prints it."""
    path = raster(tmp_path / "a.tif")
    stored = ["2020-01-02T03:04:05-00:00", "2020-01-02T03:04:05.678-00:00", "2020-01-02T03:04:05"]
    stored = (stored * ROWS)[:ROWS]
    sidecar(path, [("t", TEXT, np.array(stored, TEXT), {"GDAL_TYPE": 4})], ROWS, chunk=CHUNK)
    expected = [text.removesuffix("-00:00") for text in stored]
    compare(attach(path), DATETIME, expected)


def page_of(rat, values):
    """The same page once more, and nothing between."""
    theirs = native(DATETIME, values[:9])
    assert outcome(rat.ReadAsArray, 0, 0, 9) == outcome(theirs.ReadAsArray, 0, 0, 9)


@new_types
def test_date_times_that_are_changed(tmp_path):
    """A page that was read before is read as it is now, whoever has changed it."""
    path = raster(tmp_path / "a.tif")
    values = as_text(some_times("ms"), 0)
    sidecar(path, [("t", TEXT, np.array(values, TEXT), {"GDAL_TYPE": 4})], ROWS, chunk=CHUNK)
    one, other = attach(path, update=True), attach(path, update=True)
    for row, rat in enumerate((one, other, one)):
        compare(one, DATETIME, values)
        for reader in (one, other):
            page_of(reader, values)
        values[row] = f"202{row}-03-04T05:06:07.089+05:45"
        rat.SetValueAsString(row, 0, values[row])
        for reader in (one, other):
            page_of(reader, values)
        compare(one, DATETIME, values)
        page = ["1999-12-31T23:59:59.999-09:30"] * 3
        rat.WriteArray(np.array(page, "S40"), 0, 698 + row)
        values[698 + row : 701 + row] = page
        compare(other, DATETIME, values)
    one.close()
    other.close()
    reader = attach(path)
    page_of(reader, values)
    with RatZarr(f"{path}.rat.zarr") as table:
        values[5] = "2001-02-03T04:05:06.000+00:00"
        table.writeBlock("t", np.array(values[5:6], TEXT), 5)
    reader.refresh()
    page_of(reader, values)


@pytest.mark.parametrize("unit", ["D", "s", "ms", "us", "ns"])
def test_date_times_as_text(tmp_path, unit):
    """As numpy prints them; so are all of them where GDAL has no type for them."""
    path = raster(tmp_path / "a.tif")
    times = some_times(unit)
    if unit != "ns":
        times[[10, 1200]] = np.array(["-0044-03-15", "12020-01-01"], "M8[D]").astype(times.dtype)
        times[900] = np.datetime64("0000-02-29", "D").astype(times.dtype)
    sidecar(path, [("t", times.dtype, times, {})], ROWS, chunk=CHUNK)
    values = np.where(np.isnat(times), "", np.datetime_as_string(times)).tolist()
    compare(attach(path, as_text=["t"]), STRING, values)
    if not NEW_TYPES:
        compare(attach(path), STRING, values)
