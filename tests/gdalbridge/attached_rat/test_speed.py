"""The attached table is quick where GDAL's own is, and asks S3 for no more than it needs."""

import time
from collections import Counter

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import AttachedRAT, attach, enable
from ratzarr import RatZarr
from tests.audits import recorded
from tests.gdalbridge.attached_rat.test_rat import raster, sidecar
from tests.gdalbridge.sample_rasters import (
    DATETIME,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    VERSION,
    new_rat,
)
from tests.ratzarr.budget import BUDGET

TEXT = np.dtypes.StringDType()
ROWS, PAGE = 100_000, 1000
TIMES_AS_LONG = 6
"""On a quiet machine it is 4 at the most; other work on the same processors adds to that."""
OF_TEXT_AS_NUMBERS = 12
"""The same for text that GDAL reads as numbers: 6 at the most, where a loop over cells takes 27."""


def columns():
    numbers = np.arange(ROWS)
    found = []
    for number in range(4):
        found += [
            (f"i{number}", INTEGER, 0, numbers + number),
            (f"f{number}", REAL, 0, numbers / (number + 3)),
        ]
    return [*found, ("s", STRING, 0, [f"name {n}" for n in range(ROWS)])]


def both(tmp_path):
    """A table of GDAL's own in memory, and an attached one with the same values."""
    made = columns()
    path = raster(tmp_path / "a.tif")
    dtypes = {INTEGER: "i4", REAL: "f8", STRING: TEXT}
    sidecar(path, [(n, dtypes[k], np.array(v, dtypes[k]), {}) for n, k, _, v in made], ROWS)
    return new_rat(made, ROWS), attach(path)


def pages(rat):
    return [
        rat.ReadAsArray(column, start, PAGE)
        for start in range(0, ROWS, 5 * PAGE)
        for column in range(rat.GetColumnCount())
    ]


def cells(rat):
    count = 0
    for row in range(20_000):
        for column in range(0, rat.GetColumnCount(), 2):
            count += rat.GetValueAsString(row, column) != ""
            count += rat.GetValueAsInt(row, column) >= 0
    return count


def ratio(work, native, attached):
    """How many times as long it takes, in the best of rounds that take turns."""
    times = {id(native): [], id(attached): []}
    for _ in range(7):
        for rat in (native, attached):
            start = time.process_time()
            work(rat)
            times[id(rat)].append(time.process_time() - start)
    return min(times[id(attached)]) / min(times[id(native)])


# ---- text and date-times

FORMS = ["größe {}", "straße 東京 {}", "🛰 {} é", "plain {}"]
SECONDS = np.random.default_rng(1).integers(-(10**12), 3 * 10**12, ROWS)
ZONES = ["Z", "+02:00", "-03:30", ""]


def texts_and_times():
    """Columns as (type, values as GDAL takes them, stored values, attributes)."""
    text = [FORMS[row % len(FORMS)].format(row) for row in range(ROWS)]
    times = SECONDS.view("M8[ms]")
    found = {
        "ASCII": (STRING, [f"name {row}" for row in range(ROWS)], None, {}),
        "long text": (
            STRING,
            [one * (20 if row % 3 else 1) for row, one in enumerate(text)],
            None,
            {},
        ),
        "text": (STRING, text, None, {}),
        "bytes": (STRING, text, np.array([one.encode() for one in text]), {}),
    }
    for unit in ("us", "D"):
        few = times.astype(f"M8[{unit}]")
        few[::7] = "NaT"
        iso = np.datetime_as_string(few if not NEW_TYPES else few.astype("M8[ms]"))
        given = ["" if one == "NaT" else one + "Z" * NEW_TYPES for one in iso.tolist()]
        found[f"times, {unit}"] = (DATETIME if NEW_TYPES else STRING, given, few, {})
    if NEW_TYPES:
        iso = np.datetime_as_string(times).tolist()
        given = [one + ZONES[row % len(ZONES)] for row, one in enumerate(iso)]
        found["times of many zones"] = (DATETIME, given, None, {"GDAL_TYPE": DATETIME})
    return found


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """For each such column a table of GDAL's own, and an attached one."""
    found = {}
    for number, (name, (kind, given, stored, attributes)) in enumerate(texts_and_times().items()):
        path = raster(tmp_path_factory.mktemp("speed") / f"{number}.tif")
        values = np.array(given, TEXT) if stored is None else stored
        sidecar(path, [("c", values.dtype, values, attributes)], ROWS)
        found[name] = new_rat([("c", kind, 0, given)], ROWS), attach(path)
    return found


CALLS = [
    "ReadAsArray", "ReadValuesIOAsString", "ReadValuesIOAsInteger", "ReadValuesIOAsDouble",
    "GetValueAsString", "GetValueAsInt", "GetValueAsDouble", "GetValueAsBoolean",
    "GetValueAsDateTime",
]  # fmt: skip
KINDS = ["ASCII", "text", "long text", "bytes", "times, us", "times, D"]
KINDS += ["times of many zones"] if NEW_TYPES else []
OF_LONG_TEXT = {"ReadAsArray", "ReadValuesIOAsString", "GetValueAsString"}
OF_TIMES = {"ReadAsArray", "ReadValuesIOAsString", "GetValueAsString", "GetValueAsDateTime"}


def some_pages(name):
    """Pages that are nowhere in order, by one call each, or a thousand."""

    def work(rat):
        if isinstance(rat, AttachedRAT):
            # As if none of them had been seen before.
            rat.forget()
        ask = getattr(rat, name)
        for start in range(37, ROWS - PAGE, 9 * PAGE):
            if name.startswith("Read"):
                ask(0, start, PAGE)
            else:
                for row in range(start, start + PAGE):
                    ask(row, 0)

    return work


def is_there(kind, name):
    if kind == "long text" and name not in OF_LONG_TEXT:
        # GDAL looks at its first letters only, and is asked for no numbers of descriptions.
        return False
    if name.startswith("Read") and VERSION < (3, 12, 4):
        # Blocks that begin later are of the wrong memory.
        return False
    if name == "ReadValuesIOAsInteger":
        # Of text, GDAL looks at the first letters only; an attached table reads and converts it all.
        return False
    # GDAL makes no numbers of date-times.
    return not (NEW_TYPES and kind.startswith("times") and name not in OF_TIMES)


PAGES = [
    (kind, name)
    for kind in KINDS
    for name in CALLS
    if hasattr(gdal.RasterAttributeTable, name) and is_there(kind, name)
]


def assert_quick(work, native, attached, most=TIMES_AS_LONG):
    found = []
    # What else the machine is doing makes it slower, never quicker.
    while not found or (found[-1] >= most and len(found) < 4):
        found.append(ratio(work, native, attached))
    assert found[-1] < most, found


@pytest.mark.parametrize(("kind", "name"), PAGES)
def test_pages_of_text_and_of_date_times(tables, kind, name):
    most = OF_TEXT_AS_NUMBERS if name == "ReadValuesIOAsDouble" else TIMES_AS_LONG
    assert_quick(some_pages(name), *tables[kind], most)


@pytest.mark.parametrize("kind", KINDS)
def test_pages_that_begin_in_the_first_row(tables, kind):
    """What all versions of GDAL read rightly."""

    def work(rat):
        for _ in range(20):
            rat.ReadAsArray(0, 0, PAGE)

    assert_quick(work, *tables[kind])


@pytest.mark.skipif(VERSION < (3, 12, 4), reason="GDAL's own pages are of the wrong memory")
def test_pages_of_rows(tmp_path):
    native, attached = both(tmp_path)
    for one, other in zip(pages(native), pages(attached), strict=True):
        assert (one == other).all()
    assert ratio(pages, native, attached) < TIMES_AS_LONG


def test_single_cells(tmp_path):
    native, attached = both(tmp_path)
    assert cells(native) == cells(attached)
    assert ratio(cells, native, attached) < TIMES_AS_LONG


def test_a_loop_over_all_rows_is_quick(tmp_path):
    _, attached = both(tmp_path)
    start = time.process_time()
    total = sum(attached.GetValueAsInt(row, 0) for row in range(ROWS))
    seconds = time.process_time() - start
    assert total == sum(range(ROWS))
    # 10 microseconds a cell would be ten times as long as it takes.
    assert seconds < 1 + ROWS * 10e-6


CHUNK, CHUNKS = 500, 20


def test_no_chunk_is_packed_twice(tmp_path):
    """Blocks of a fifth of a chunk, of several columns by turns: more than may wait at once."""
    path, rows = raster(tmp_path / "a.tif"), CHUNK * CHUNKS
    sidecar(path, [], rows, chunk=CHUNK)
    with recorded("os.link", "os.rename") as named, attach(path, update=True) as rat:
        for name in "abcd":
            rat.CreateColumn(name, REAL, 0)
        for start in range(0, rows, CHUNK // 5):
            for column in range(4):
                rat.WriteArray(np.arange(start, start + CHUNK // 5) / 3 + column, column, start)
    # A chunk that is packed gets its name, which is a number.
    assert sum(str(name).isdigit() for _, name, *_ in named) == 4 * CHUNKS
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        for column, name in enumerate("abcd"):
            assert (table.readBlock(name, 0, rows) == np.arange(rows) / 3 + column).all()


@pytest.mark.parametrize("block", [CHUNK // 5, 130, CHUNK, 620, 1100])
def test_no_chunk_is_unpacked_twice(tmp_path, block):
    path, rows = raster(tmp_path / "a.tif"), CHUNK * CHUNKS + 7
    values = np.arange(rows) / 3
    sidecar(path, [(name, "f8", values, {}) for name in "ab"], rows, chunk=CHUNK)
    rat = attach(path, update=True)
    changed = values.copy()
    changed[CHUNK + 1] = -1
    with recorded("open") as opened:
        rat.SetValueAsDouble(CHUNK + 1, 1, -1)
        for start in range(0, rows, block):
            length = min(block, rows - start)
            for column, expected in enumerate((values, changed)):
                found = rat.ReadAsArray(column, start, length)
                assert (found == expected[start : start + length]).all()
    # A chunk that is to be unpacked is read first.
    assert sum("/c/" in str(name) for name, *_ in opened) == 2 * (CHUNKS + 1)
    rat.close()


def test_what_waits_is_written_in_parallel(tmp_path, counted_s3):
    place, proxy = counted_s3
    url = remote(tmp_path, place, ["a", "b"], chunk=1000)
    rat = attach(url, update=True)
    for column in range(2):
        for row in range(5, 3000, 1000):
            rat.SetValueAsDouble(row, column, -1)
    proxy.clear()
    proxy.delay = 0.1
    rat.close()
    proxy.delay = 0
    assert proxy.peak >= 4
    with RatZarr(f"{url}.rat.zarr", readOnly=True) as table:
        assert [(table.readBlock(name, 0, 3000) == -1).sum() for name in "ab"] == [3, 3]


def test_cells_in_no_order_read_each_chunk_once(tmp_path, counted_s3):
    place, proxy = counted_s3
    url = remote(tmp_path, place, ["a", "b"], chunk=1000)
    rat = attach(url)
    rat.GetColumnCount()
    proxy.clear()
    rows = np.random.default_rng(1).permutation(3000)
    for row in rows[:300].tolist():
        assert rat.GetValueAsDouble(row, 0) == row
    assert sorted(key_of(one) for one in proxy.requests) == ["a/c/0", "a/c/1", "a/c/2"]


def remote(tmp_path, place, names, chunk):
    """A raster on S3 with a sidecar that is none of GDAL's business."""
    path = raster(tmp_path / "a.tif")
    place.client.upload_file(path, place.bucket, "a.tif")
    url = f"s3://{place.bucket}/a.tif"
    with RatZarr(f"{url}.rat.zarr") as table:
        table.setChunkSize(chunk)
        table.setRowCount(3000)
        for name in names:
            table.createColumn(name, "f8")
            table.writeBlock(name, np.arange(3000.0), 0)
    return url


def key_of(request):
    return request.key.partition("/RAT/")[2] or request.key.partition("/")[2]


def ours(proxy):
    """Requests that are not GDAL's for the raster itself."""
    return [
        (one.method, "list" if "list-type" in one.query else key_of(one))
        for one in proxy.requests
        if not one.headers.get("user-agent", "gdal").lower().startswith("gdal")
    ]


def test_requests_until_the_first_value(tmp_path, counted_s3):
    place, proxy = counted_s3
    url = remote(tmp_path, place, ["a"], chunk=1000)
    proxy.clear()
    rat = attach(url)
    attached = ours(proxy)
    assert rat.GetValueAsDouble(5, 0) == 5
    assert attached == [("GET", "list"), ("GET", "zarr.json")]
    names, *value = ours(proxy)[len(attached) :]
    assert names == ("GET", "list")
    assert value == [("GET", "a/zarr.json"), ("GET", "a/c/0")]
    before = Counter("LIST" if key == "list" else method for method, key in [*attached, names])
    assert before == BUDGET["attach"].requests


def test_requests_of_a_page_of_all_columns(tmp_path, counted_s3):
    place, proxy = counted_s3
    names = [f"c{number}" for number in range(10)]
    remote(tmp_path, place, names, chunk=1000)
    with enable(update=False):
        dataset = gdal.OpenEx(f"/vsis3/{place.bucket}/a.tif")
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
        assert rat.GetColumnCount() == 10
        proxy.clear()
        for start in (0, 100, 500):
            for column in range(10):
                assert rat.ReadAsArray(column, start, 100)[0] == start
    assert sorted(ours(proxy)) == sorted(("GET", f"{name}/c/0") for name in names)


def test_requests_of_cells_that_are_written(tmp_path, counted_s3):
    place, proxy = counted_s3
    url = remote(tmp_path, place, ["a"], chunk=1000)
    rat = attach(url, update=True)
    rat.GetColumnCount()
    proxy.clear()
    for row in range(500):
        rat.SetValueAsDouble(row, 0, -1)
    # The first write is noted in the column's log. No chunk is read for a cell.
    assert ours(proxy) == [("PUT", "a/zarr.json")]
    rat.close()
    writes = [(method, key) for method, key in ours(proxy) if method == "PUT"]
    assert writes.count(("PUT", "a/c/0")) == 1
    assert len(ours(proxy)) <= 6
