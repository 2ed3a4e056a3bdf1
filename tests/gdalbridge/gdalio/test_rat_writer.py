"""Writing a band's own table: what was asked is there and what was there stays, or it is said."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.errors import BridgeError, ConversionError, NotWrittenError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.compat import exceptions, silence, write_array
from gdalbridge.gdalio.field_types import replaced_column
from gdalbridge.gdalio.rat_reader import open_rat
from gdalbridge.gdalio.rat_writer import open_rat_for_update
from gdalbridge.gdalio.read_options import ReadOptions
from tests.gdalbridge import sample_rasters
from tests.gdalbridge.sample_rasters import (
    BOOLEAN,
    DATETIME,
    HAS_HFA,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    WKB,
    cells,
    describe,
    make,
    new_rat,
)

TEXT = np.dtypes.StringDType()
new_types = pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
hfa = pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")


@pytest.fixture(params=["as this version writes", "as an unsafe version is written"])
def way(request):
    """Both ways of writing, also where this version needs only one."""
    return ReadOptions(block_io=not request.param.startswith("as an"))


def old_table():
    """A raster in memory with a table of 5 rows."""
    columns = [
        ("i", INTEGER, 0, np.arange(100, 105)),
        ("r", REAL, 0, np.arange(5) / 4),
        ("s", STRING, 0, ["old"] * 5),
    ]
    if NEW_TYPES:
        columns += [
            ("b", BOOLEAN, 0, [True] * 5),
            ("d", DATETIME, 0, ["2020-01-02T03:04:05.678Z"] * 5),
            ("w", WKB, 0, [b"old"] * 5),
        ]
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 5))
    return dataset


def table_of(dataset, band=1):
    return describe(dataset.GetRasterBand(band).GetDefaultRAT())


def column_of(dataset, index):
    return cells(dataset.GetRasterBand(1).GetDefaultRAT(), index)


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


NEW = {
    INTEGER: np.array([-7, 8], np.int32),
    REAL: np.array([np.nan, -0.0]),
    STRING: np.array(["  größe", ""], TEXT),
    BOOLEAN: np.array([False, True]),
    WKB: objects(b"a\x00b", b""),
}


@pytest.mark.parametrize("kind", [INTEGER, REAL, STRING, BOOLEAN, WKB])
def test_some_rows_are_written_and_the_others_kept(way, kind):
    if kind >= BOOLEAN and not NEW_TYPES:
        pytest.skip("came with GDAL 3.12")
    index = {BOOLEAN: 3, WKB: 5}.get(kind, kind)
    dataset = old_table()
    before = column_of(dataset, index)
    new = NEW[kind]
    with open_rat_for_update(dataset, options=way) as sink:
        sink.write(index, 1, new[:1])
        sink.write(index, 3, new[1:])
        assert sink.commit() == []
    expected = [before[0], None, before[2], None, before[4]]
    expected[1], expected[3] = [v.tobytes() for v in new] if kind == REAL else new.tolist()
    assert column_of(dataset, index) == expected


@pytest.mark.parametrize("sizes", [(5,), (2, 3), (1, 1, 1, 1, 1)])
def test_blocks_of_several_columns_in_any_order(way, sizes):
    dataset = make("", "MEM")
    starts = np.cumsum((0, *sizes[:-1])).tolist()
    numbers, texts = np.arange(5, dtype=np.int32), np.array(list("abcde"), TEXT)
    with open_rat_for_update(dataset, options=way) as sink:
        sink.set_row_count(5)
        one = sink.create_column("n", INTEGER, 0)
        two = sink.create_column("t", STRING, 0)
        three = sink.create_column("r", REAL, 0)
        for start, size in zip(starts[::-1], sizes[::-1], strict=True):
            sink.write(one, start, numbers[start : start + size])
            sink.write(two, start, texts[start : start + size])
            sink.write(three, start, numbers[start : start + size] / 3)
        sink.commit()
    with open_rat(dataset) as source:
        assert source.read(0, 0, 5).tolist() == [0, 1, 2, 3, 4]
        assert source.read(1, 0, 5).tolist() == list("abcde")
        assert (source.read(2, 0, 5) == numbers / 3).all()


def test_rows_are_added_between_writes(way):
    dataset = old_table()
    with open_rat_for_update(dataset, options=way) as sink:
        sink.write(0, 0, np.arange(5, dtype=np.int32))
        sink.set_row_count(7)
        sink.write(0, 5, np.array([50, 60], np.int32))
        sink.commit()
    assert column_of(dataset, 0) == [0, 1, 2, 3, 4, 50, 60]


@pytest.mark.parametrize("start", [-1, 4, 5, 2**40])
@pytest.mark.parametrize("kind", [INTEGER, STRING])
def test_rows_that_are_not_there(way, start, kind):
    dataset = old_table()
    before = table_of(dataset)
    with open_rat_for_update(dataset, options=way) as sink:
        with pytest.raises(BridgeError, match="has 5 rows: 2 from row"):
            sink.write(kind, start, NEW[kind])
        sink.commit()
    assert table_of(dataset) == before


@pytest.mark.parametrize("index", [-1, 99])
def test_columns_that_are_not_there(way, index):
    with (
        open_rat_for_update(old_table(), options=way) as sink,
        pytest.raises(BridgeError, match="columns"),
    ):
        sink.write(index, 0, NEW[INTEGER])


@pytest.mark.parametrize(
    ("index", "values"),
    [
        (0, np.array([2**31])),
        (0, np.array([2**32 - 1], np.uint32)),
        (0, np.array([1.5, np.nan])),
        (0, np.array(["1"], TEXT)),
        (0, np.array([True])),
        (1, np.array([2**53 + 1])),
        (1, np.array([0.1], np.float32)),
        (1, np.array(["0.1"], TEXT)),
        (2, np.array([1], np.int32)),
        (2, np.array([b"a"])),
        (2, np.array(["ü"])),
    ],
)
def test_what_gdal_would_convert_in_silence(way, index, values):
    dataset = old_table()
    before = table_of(dataset)
    with open_rat_for_update(dataset, options=way) as sink:
        with pytest.raises(ConversionError, match="would be converted by GDAL"):
            sink.write(index, 0, values)
        sink.commit()
    assert table_of(dataset) == before


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "end\x00"])
def test_a_zero_character_is_refused_by_row(way, text):
    dataset = old_table()
    before = table_of(dataset)
    with open_rat_for_update(dataset, options=way) as sink:
        with pytest.raises(ConversionError, match="column 's', row 3: GDAL would cut"):
            sink.write(2, 2, np.array(["ok", text], TEXT))
        sink.commit()
    assert table_of(dataset) == before


@pytest.mark.parametrize("rows", [-1, 2**31, -(2**31)])
def test_rows_that_gdal_can_not_count(rows):
    with open_rat_for_update(old_table()) as sink:
        with pytest.raises(ConversionError, match="at most 2147483647 rows"):
            sink.set_row_count(rows)
        assert sink.schema.rows == 5


@pytest.mark.parametrize("driver", ["MEM", "GTiff", "VRT"])
def test_without_commit_nothing_stays(tmp_path, way, driver):
    path = tmp_path / "x"
    dataset = make(path, driver)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("i", INTEGER, 0, [1, 2])], 2))
    dataset.FlushCache()
    before = table_of(dataset)
    files = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    with open_rat_for_update(dataset, options=way) as sink:
        sink.write(0, 0, NEW[INTEGER])
        sink.create_column("more", STRING, 0)
        sink.set_row_count(9)
    assert table_of(dataset) == before
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == files


@new_types
@pytest.mark.parametrize("offset", [0, 345, -570, 23 * 60 + 45, None])
def test_datetimes_and_their_offset(way, offset):
    times = np.array(
        ["2020-01-02T03:04:59.999", "NaT", "1833-05-06T07:08:00.001", "5000-01-01"], "M8[us]"
    )
    offsets = np.full(4, datetimes.NAIVE if offset is None else offset)
    dataset = make("", "MEM")
    with open_rat_for_update(dataset, options=way) as sink:
        sink.set_row_count(4)
        index = sink.create_column("d", DATETIME, 0)
        text = datetimes.text_for_gdal(times, offsets, column="d", first_row=0)
        sink.write(index, 0, text[:1])
        sink.write(index, 1, text[1:])
        sink.commit()
    with open_rat(dataset) as source:
        assert source.stored(0).attributes["UTC_OFFSET_MINUTES"] == offset
        assert source.read(0, 0, 4).astype(str).tolist() == times.astype(str).tolist()


@new_types
def test_some_date_times_where_only_whole_columns_can_be_written():
    # Those that stay would have to be read and given back, which is not exact.
    dataset = old_table()
    before = column_of(dataset, 4)
    with open_rat_for_update(dataset, options=ReadOptions(block_io=False)) as sink:
        sink.write(4, 1, np.array([b"2021-01-01T00:00:00Z"]))
        with pytest.raises(NotWrittenError, match="can't change only some rows of column 'd'"):
            sink.commit()
    assert column_of(dataset, 4) == before


def test_one_long_string_costs_its_own_length_and_no_more():
    # Padded to the longest, these rows would be an array of 2 GB.
    code = """
import numpy as np
from osgeo import gdal
from tests.memory import peak
from gdalbridge.gdalio.rat_writer import open_rat_for_update
rows = 100_000
values = np.full(rows, "short", np.dtypes.StringDType())
values[77_777] = "x" * 20_000
dataset = gdal.GetDriverByName("MEM").Create("", 4, 4)
with open_rat_for_update(dataset) as sink:
    sink.set_row_count(rows)
    sink.create_column("s", 2, 0)
    before = peak()
    sink.write(0, 0, values)
    print(peak() - before)
    sink.commit()
rat = dataset.GetRasterBand(1).GetDefaultRAT()
assert [len(rat.GetValueAsString(row, 0)) for row in (77_776, 77_777, 77_778)] == [5, 20_000, 5]
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200


@pytest.mark.parametrize("driver", ["GTiff", "VRT"])
def test_names_that_a_file_does_not_keep_are_said(tmp_path, driver):
    path = tmp_path / "x"
    make(path, driver).FlushCache()
    names = ["plain", "  leading", "a\x01b", "größe <&>\"'", "", "", "trailing "]
    with open_rat_for_update(path) as sink:
        sink.set_row_count(1)
        for name in names:
            index = sink.create_column(name, INTEGER, 0)
            sink.write(index, 0, np.array([index], np.int32))
        losses = sink.commit()
    found = [name for name, *_ in sample_rasters.describe_band(path)["columns"]]
    changed = [(was, now) for was, now in zip(names, found, strict=True) if was != now]
    assert changed
    assert losses == [f"the name of column {was!r} became {now!r}" for was, now in changed]


def test_a_table_in_place_is_added_to(nlcd):
    before = sample_rasters.describe_band(nlcd)
    with open_rat_for_update(nlcd) as sink:
        index = sink.create_column("new", INTEGER, 0)
        sink.write(index, 0, np.arange(256, dtype=np.int32))
        assert sink.commit() == []
    after = sample_rasters.describe_band(nlcd)
    assert after["columns"].pop() == ("new", INTEGER, 0, list(range(256)))
    assert after == before
    # And once more: GDAL may by now have the table in two places.
    with open_rat_for_update(nlcd) as sink:
        sink.write(4, 0, np.arange(256) * 1.5)
        sink.commit()
    with open_rat(nlcd) as source:
        assert (source.read(4, 0, 256) == np.arange(256) * 1.5).all()


def test_a_raster_in_memory_upon_files(nlcd):
    before = sample_rasters.describe_band(nlcd)
    source = gdal.Open(str(nlcd))
    dataset = gdal.GetDriverByName("VRT").CreateCopy("", source)
    with open_rat_for_update(dataset) as sink:
        sink.write(0, 0, np.full(256, 7, np.int32))
        assert sink.commit() == []
    assert column_of(dataset, 0) == [7] * 256
    assert sample_rasters.describe_band(nlcd) == before


def test_a_table_that_the_dataset_does_not_see_is_not_replaced(nlcd, tmp_path, monkeypatch):
    kept = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-kept"))
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    dataset = gdal.OpenEx(str(nlcd), gdal.OF_UPDATE)
    assert dataset.GetRasterBand(1).GetDefaultRAT() is None
    monkeypatch.delenv("GDAL_DISABLE_READDIR_ON_OPEN")
    with pytest.raises(NotWrittenError, match=r"has a table in .*\.aux\.xml"):
        open_rat_for_update(dataset)
    del dataset
    for entry in kept.iterdir():
        assert (tmp_path / entry.name).read_bytes() == entry.read_bytes()


def test_a_table_beside_the_raster_is_added_to_even_where_it_would_be_hidden(nlcd, monkeypatch):
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    with open_rat_for_update(nlcd) as sink:
        assert len(sink.schema.columns) == 6


@new_types
def test_a_geotiff_that_was_opened_for_reading_is_refused_at_the_start(tmp_path):
    path = tmp_path / "x.tif"
    make(path).FlushCache()
    dataset = gdal.Open(str(path))
    with pytest.raises(NotWrittenError, match="opened for reading"):
        open_rat_for_update(dataset)
    assert dataset.GetRasterBand(1).GetDefaultRAT() is None
    gdal.ErrorReset()
    writable = gdal.OpenEx(str(path), gdal.OF_UPDATE)
    pixels = writable.ReadRaster()
    with open_rat_for_update(writable):
        pass
    assert writable.ReadRaster() == pixels
    assert gdal.GetLastErrorMsg() == ""


@pytest.mark.parametrize(
    ("there", "name", "usage", "other"),
    [
        (["a"], "a", 0, "a"),
        (["Name"], "name", 0, "Name"),
        (["Histogram"], "count", 1, "Histogram"),
        (["Class_Names"], "c", 2, "Class_Names"),
        (["x", "opacity"], "alpha", 9, "opacity"),
        (["a"], "a:b", 0, "a"),
        (["x" * 64], "x" * 63, 0, "x" * 64),
        (["x" * 70], "x" * 71, 0, "x" * 70),
        (["é" * 40], "é" * 41, 0, "é" * 40),
        ([""], "", 0, ""),
        (["a:b"], "a", 0, None),
        (["a"], "a.b", 0, None),
        (["x" * 63], "x" * 62, 0, None),
        (["count"], "count", 1, None),
        ([], "a", 0, None),
    ],
)
def test_names_that_hfa_does_not_tell_apart(there, name, usage, other):
    assert replaced_column(there, name, usage, hfa=True) == other


def test_names_that_other_formats_do_not_tell_apart():
    assert replaced_column(["a", "B"], "a", 1, hfa=False) == "a"
    assert replaced_column(["a", "B", "Histogram"], "b", 1, hfa=False) is None


@hfa
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("a", 0), ("a", 0)),
        (("Name", 0), ("NAME", 0)),
        (("Histogram", 0), ("count", 1)),
        (("Class_Names", 0), ("c", 2)),
        (("red", 6), ("r", 6)),
        (("a", 0), ("a:b", 0)),
        (("x" * 64, 0), ("x" * 63, 0)),
    ],
)
def test_no_column_of_an_hfa_is_replaced_by_another(tmp_path, old, new):
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    with open_rat_for_update(path) as sink:
        sink.set_row_count(3)
        index = sink.create_column(old[0], INTEGER, old[1])
        sink.write(index, 0, np.array([1, 2, 3], np.int32))
        sink.commit()
    before = path.read_bytes()
    with (
        open_rat_for_update(path) as sink,
        pytest.raises(NotWrittenError, match="does not tell the two apart"),
    ):
        sink.create_column(new[0], INTEGER, new[1])
    assert path.read_bytes() == before


@hfa
def test_what_an_hfa_does_not_keep_of_names_and_usages_is_said(tmp_path):
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    with open_rat_for_update(path) as sink:
        sink.set_row_count(2)
        for name, kind, usage in (("v", INTEGER, 5), ("é" * 40, INTEGER, 0), ("n", STRING, 2)):
            sink.create_column(name, kind, usage)
        said = sink.commit()
    assert [one[:3] for one in sample_rasters.describe_band(path)["columns"]] == [
        ("v", INTEGER, 0),
        ("é" * 31, INTEGER, 0),
        ("Class_Names", STRING, 2),
    ]
    assert sorted(said) == [
        "the name of column 'n' became 'Class_Names'",
        f"the name of column '{'é' * 40}' became '{'é' * 31}'",
        "the usage of column 'v' became Generic, it was MinMax",
    ]


@hfa
def test_hfa_is_written_through_in_blocks_of_ever_longer_text(tmp_path):
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    texts = ["a", "bb", "  leading", "trailing  ", "x\x01\ty\n", "é" * 100, "z" * 20_000, ""]
    numbers = np.array([np.nan, -0.0, 5e-324, 1 / 3, -np.inf, 2**53, 1e300, 0.1])
    with open_rat_for_update(path) as sink:
        assert sink.writes_through
        sink.set_row_count(8)
        sink.create_column("s", STRING, 0)
        sink.create_column("r", REAL, 0)
        for row in range(8):
            sink.write(0, row, np.array(texts[row : row + 1], TEXT))
            sink.write(1, row, numbers[row : row + 1])
        assert sink.commit() == []
    found = sample_rasters.describe_band(path)["columns"]
    assert [column[3] for column in found] == [texts, [value.tobytes() for value in numbers]]


@hfa
def test_an_hfa_that_is_open_is_written_when_it_is_closed(tmp_path):
    path = tmp_path / "x.img"
    dataset = make(path, "HFA")
    with open_rat_for_update(dataset) as sink:
        sink.set_row_count(2)
        index = sink.create_column("v", INTEGER, 5)
        sink.write(index, 0, np.array([3, 4], np.int32))
        # Its file is not whole yet: nothing to open again.
        losses = sink.commit()
    dataset = sink = None
    assert losses == [
        "the usage of column 'v' became Generic, it was MinMax, when the dataset is closed"
    ]
    assert sample_rasters.describe_band(path)["columns"] == [("v", INTEGER, 0, [3, 4])]


@new_types
def test_texts_of_date_times_of_different_length(way):
    dataset = make("", "MEM")
    with open_rat_for_update(dataset, options=way) as sink:
        sink.set_row_count(2)
        index = sink.create_column("d", DATETIME, 0)
        sink.write(index, 0, np.array([b"2020-01-01T00:00:00Z"]))
        sink.write(index, 1, np.array([b"2020-01-01T00:00:00.567+05:45"]))
        sink.commit()
    assert column_of(dataset, 0) == [
        "2020-01-01T00:00:00.000+00:00",
        "2020-01-01T00:00:00.567+05:45",
    ]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (INTEGER, np.array([1, -(2**31), 2**31 - 1], np.int32)),
        (REAL, np.array([np.nan, -0.0, 1e300])),
        (REAL, np.array([1.5, 2.5, 3.5], np.float32)),
        (STRING, np.array(["größe".encode(), b"", b"ab"])),
        (STRING, np.array(["a", "", "abc"])),
    ],
    ids=["int32", "float64", "float32", "bytes", "str"],
)
def test_arrays_that_are_given_as_they_are_arrive_as_those_that_gdal_copies(kind, values):
    rats = [new_rat([("a", kind, 0, [])], 3) for _ in range(2)]
    before = values.copy()
    with exceptions(), silence():
        assert rats[0].WriteArray(values, 0, 0) == write_array(rats[1], values, 0, 0) == 0
    one, other = ([rat.GetValueAsString(row, 0) for row in range(3)] for rat in rats)
    assert one == other
    assert (rats[0].ReadAsArray(0) == rats[1].ReadAsArray(0))[values == values].all()
    assert values.tobytes() == before.tobytes()


@pytest.mark.parametrize("start", [-1, 3, 2**31 - 1])
def test_an_array_that_does_not_fit_is_not_given(start):
    rat = new_rat([("a", INTEGER, 0, [7, 8, 9, 10])], 4)
    with exceptions(), silence(), pytest.raises(ValueError, match="not in the table"):
        write_array(rat, np.zeros(2, np.int32), 0, start)
    assert [rat.GetValueAsInt(row, 0) for row in range(4)] == [7, 8, 9, 10]


def test_an_array_for_a_column_that_is_not_there():
    rat = new_rat([("a", INTEGER, 0, [7])], 1)
    with exceptions(), silence(), pytest.raises(ValueError, match="column 5 is not in the table"):
        write_array(rat, np.zeros(1, np.int32), 5, 0)
