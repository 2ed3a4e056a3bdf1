"""Reading a band's own table: every block as GDAL has it cell by cell, and nothing unsafe."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.errors import BridgeError, ConversionError, RasterNotFoundError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.rat_reader import bands_with_table, open_rat
from gdalbridge.gdalio.read_options import ReadOptions
from tests.gdalbridge.sample_rasters import (
    BOOLEAN,
    DATETIME,
    HAS_HFA,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    WKB,
    all_kinds,
    cells,
    fill,
    make,
    new_rat,
)

new_types = pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
hfa = pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")

AUX = """<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>
<FieldDefn index="0"><Name>c</Name><Type>{kind}</Type><Usage>0</Usage></FieldDefn>
<Row index="0"><F>{value}</F></Row></GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"""


def memory(columns, rows):
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, rows))
    return dataset


def with_aux(folder, kind, value):
    path = folder / "x.tif"
    make(path).FlushCache()
    path.with_name("x.tif.aux.xml").write_text(AUX.format(kind=kind, value=value))
    return path


def run(code, *args):
    """In a process of its own: what is tested for could take this one down."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


def as_cells(values, kind):
    """What the oracle says of a column, made of what was read."""
    if kind == REAL:
        return [value.tobytes() for value in values]
    return values.tolist()


@pytest.fixture(params=["as this version reads", "as an unsafe version is read"])
def way(request):
    """Both ways of reading, also where this version needs only one."""
    return ReadOptions(block_io=not request.param.startswith("as an"))


@pytest.mark.parametrize("length", [1, 3, 7])
def test_every_type_in_blocks_as_gdal_has_it_cell_by_cell(way, length):
    dataset = memory(all_kinds(), 7)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    with open_rat(dataset, options=way) as source:
        assert len(source.schema.columns) > 20
        for column in source.schema.columns:
            if column.type == DATETIME:
                continue
            blocks = [
                source.read(column.index, start, min(length, 7 - start))
                for start in range(0, 7, length)
            ]
            assert {block.dtype for block in blocks} == {source.stored(column.index).dtype}
            read = [cell for block in blocks for cell in as_cells(block, column.type)]
            assert read == cells(rat, column.index), column


@new_types
@pytest.mark.parametrize("name", ["when", "local", "naive", "never"])
def test_datetimes_in_utc_with_their_offset(way, name):
    dataset = memory(all_kinds(), 7)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    with open_rat(dataset, options=way) as source:
        index = next(c.index for c in source.schema.columns if c.name == name)
        stored = source.stored(index)
        expected = {"when": 0, "local": 345, "naive": None, "never": None}[name]
        assert stored.dtype == "M8[us]"
        assert stored.attributes["UTC_OFFSET_MINUTES"] == expected
        read = np.concatenate([source.read(index, start, 1) for start in range(7)])
        local = read + np.timedelta64(expected or 0, "m")
        zone = {"when": "+00:00", "local": "+05:45", "naive": "-00:00", "never": ""}[name]
        text = [
            "" if np.isnat(value) else f"{np.datetime_as_string(value, unit='ms')}{zone}"
            for value in local
        ]
        assert text == cells(rat, index)


@new_types
def test_datetimes_of_several_offsets_are_text(way):
    dataset = memory(all_kinds(), 7)
    with open_rat(dataset, options=way) as source:
        index = next(c.index for c in source.schema.columns if c.name == "mixed")
        assert source.stored(index).dtype.kind == "T"
        assert "UTC_OFFSET_MINUTES" not in source.stored(index).attributes
        assert source.read(index, 0, 7).tolist() == [
            "2020-01-02T03:04:05.000+00:00",
            "2020-01-02T03:04:05.000+02:00",
            "2020-01-02T03:04:05.000",
            "",
            "2020-01-02T03:04:05.500-03:30",
            "2020-01-02T03:04:05.123456+00:00",
            "",
        ]


@new_types
@pytest.mark.parametrize("year", [1, 1000, 1833, 1834, 1970, 2020, 2105, 2106, 2500, 9999])
def test_milliseconds_are_exact_in_every_year(way, year):
    # GDAL's datetime objects are 2 microseconds off, and 16 in far years.
    start = np.datetime64(f"{year:04d}-06-02T03:04:00", "ms")
    times = start + np.r_[0:1000, 1000:60_000:13, 59_999].astype("m8[ms]")
    texts = [f"{text}Z" for text in np.datetime_as_string(times).tolist()]
    dataset = memory([("d", DATETIME, 0, texts)], len(times))
    with open_rat(dataset, options=way) as source:
        assert (source.read(0, 0, len(times)) == times).all()


@new_types
def test_a_second_that_rounds_up_is_not_the_next_minute():
    dataset = memory([("d", DATETIME, 0, ["2020-01-02T03:04:59.9999Z"])], 1)
    with open_rat(dataset) as source:
        # 32 bits of seconds: the nearest to 59.9999 is 59.999901.
        assert source.read(0, 0, 1)[0] == np.datetime64("2020-01-02T03:04:59.999901")


@new_types
def test_a_leap_second_is_refused():
    dataset = memory([("d", DATETIME, 0, ["", "2016-12-31T23:59:60Z"])], 2)
    with open_rat(dataset) as source, pytest.raises(ConversionError, match=r"row 1: .*leap"):
        source.read(0, 0, 2)


@new_types
@pytest.mark.parametrize("zone", ["+24:00", "+25:00", "+30:00"])
def test_an_offset_that_crashes_gdals_bindings_is_refused(tmp_path, zone):
    path = with_aux(tmp_path, DATETIME, f"2020-01-02T03:04:05{zone}")
    code = """
import sys
from gdalbridge.errors import ConversionError
from gdalbridge.gdalio.rat_reader import open_rat
with open_rat(sys.argv[1]) as source:
    for ask in (lambda: source.stored(0), lambda: source.read(0, 0, 1)):
        try:
            ask()
        except ConversionError as error:
            print(error)
"""
    done = run(code, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("row 0:") == 2
    assert (
        f"{zone}' is not a date-time of the years 1 to 9999 with an offset below a day"
        in done.stdout
    )


@new_types
@pytest.mark.parametrize("minutes", [23 * 60 + 45, -(23 * 60 + 45), 15, -15, 14 * 60 + 15])
def test_the_widest_offsets_come_through(minutes):
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    dataset = memory([("d", DATETIME, 0, [f"2020-01-02T03:04:05.006{zone}"])], 1)
    with open_rat(dataset) as source:
        assert source.stored(0).attributes["UTC_OFFSET_MINUTES"] == minutes
        local = np.datetime64("2020-01-02T03:04:05.006", "us")
        assert source.read(0, 0, 1)[0] == local - np.timedelta64(minutes, "m")
        text = datetimes.text_for_gdal(
            source.read(0, 0, 1), np.array([minutes]), column="d", first_row=0
        )
        assert new_rat([("d", DATETIME, 0, [text[0].decode()])], 1).GetValueAsString(0, 0) == (
            f"2020-01-02T03:04:05.006{zone}"
        )


@pytest.mark.skipif(NEW_TYPES, reason="GDAL 3.12 and later can read them")
@pytest.mark.parametrize("kind", [BOOLEAN, DATETIME, WKB])
def test_types_of_newer_versions_are_refused_by_name(tmp_path, kind):
    path = with_aux(tmp_path, kind, "1")
    with (
        open_rat(path) as source,
        pytest.raises(ConversionError, match=r"before 3\.12 can't read"),
    ):
        source.stored(0)


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"gr\xf6n"])
@pytest.mark.parametrize("driver", ["MEM", "HFA"])
def test_text_that_is_not_utf8_is_refused_by_row(tmp_path, way, driver, bad):
    if driver == "HFA" and not HAS_HFA:
        pytest.skip("this GDAL has no HFA driver")
    dataset = make(tmp_path / "x.img", driver)
    rat = gdal.RasterAttributeTable()
    if driver == "HFA":
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
    rat.SetRowCount(3)
    rat.CreateColumn("c", STRING, 0)
    assert rat.WriteArray(np.array([b"a", bad, "ü".encode()]), 0) == 0
    if driver == "MEM":
        dataset.GetRasterBand(1).SetDefaultRAT(rat)
    with open_rat(dataset, options=way) as source:
        with pytest.raises(ConversionError, match=r"column 'c', row 1: .* is not UTF-8"):
            source.read(0, 0, 3)
        assert source.read(0, 0, 1).tolist() == ["a"]
        assert source.read(0, 2, 1).tolist() == ["ü"]
    del rat


@hfa
def test_hfas_own_table_in_blocks_that_begin_anywhere(tmp_path):
    rows = 10_000
    dataset = make(tmp_path / "x.img", "HFA")
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    texts = [f"{'é' * (i % 7)}{i}" for i in range(rows)]
    texts[9000] = "x" * 3000
    fill(
        rat,
        [
            ("i", INTEGER, 0, np.arange(rows) - 5000),
            ("r", REAL, 0, np.arange(rows) / 7),
            ("s", STRING, 0, texts),
        ],
        rows,
    )
    expected = [np.arange(rows) - 5000, np.arange(rows) / 7, np.array(texts)]
    with open_rat(dataset) as source:
        for start, length in ((0, rows), (1, 9998), (4095, 2), (8999, 3), (rows, 0)):
            for index, values in enumerate(expected):
                wanted = values[start : start + length].tolist()
                assert source.read(index, start, length).tolist() == wanted
    del rat


def test_one_long_string_costs_its_own_length_and_no_more():
    # Padded to the longest, these rows would be an array of 4 GB.
    code = """
import numpy as np
from osgeo import gdal
from tests.memory import peak
from gdalbridge.gdalio.rat_reader import open_rat
rows = 200_000
dataset = gdal.GetDriverByName("MEM").Create("", 4, 4)
rat = gdal.RasterAttributeTable()
rat.CreateColumn("s", 2, 0)
rat.SetRowCount(rows)
rat.SetValueAsString(0, 0, "short")
rat.SetValueAsString(123_456, 0, "x" * 20_000)
dataset.GetRasterBand(1).SetDefaultRAT(rat)
with open_rat(dataset) as source:
    before = peak()
    values = source.read(0, 0, rows)
    assert len(values[123_456]) == 20_000 and values[0] == "short" and values[-1] == ""
    print(peak() - before)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100


def test_the_table_outlives_what_the_caller_let_go(nlcd):
    source = open_rat(str(nlcd))
    gc.collect()
    names = [column.name for column in source.schema.columns]
    assert names[-1] == "Land Cover Class"
    assert source.read(5, 11, 1).tolist() == ["Open Water"]
    dataset = gdal.Open(str(nlcd))
    other = open_rat(dataset)
    del dataset
    gc.collect()
    assert other.read(5, 11, 1).tolist() == ["Open Water"]


def test_read_in_another_thread_than_it_was_opened_in(nlcd):
    with open_rat(nlcd) as source, ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(source.read, 4, start, 16) for start in range(0, 256, 16)]
        assert np.concatenate([one.result() for one in ahead]).tolist() == (
            source.read(4, 0, 256).tolist()
        )


def test_land_cover_cell_by_cell(nlcd, way):
    dataset = gdal.Open(str(nlcd))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    with open_rat(nlcd, options=way) as source:
        schema = source.schema
        assert (schema.rows, schema.table_type, schema.linear_binning) == (256, 0, (0.0, 1.0))
        assert [column.usage for column in schema.columns] == [6, 7, 8, 9, 1, 0]
        for column in schema.columns:
            halves = [source.read(column.index, start, 128) for start in (0, 128)]
            read = [cell for half in halves for cell in as_cells(half, column.type)]
            assert read == cells(rat, column.index)
    del rat


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, 257), (256, 1), (10, -1), (300, 0)])
def test_rows_that_are_not_there(nlcd, start, length):
    with open_rat(nlcd) as source, pytest.raises(BridgeError, match="has 256 rows"):
        source.read(0, start, length)


def test_no_rows_and_no_columns():
    with open_rat(memory(all_kinds(0), 0)) as source:
        for column in source.schema.columns:
            values = source.read(column.index, 0, 0)
            assert (values.shape, values.dtype) == ((0,), source.stored(column.index).dtype)
    with open_rat(memory([], 5)) as source:
        assert (source.schema.rows, source.schema.columns) == (5, ())


def test_a_table_beside_the_raster_is_never_hidden(nlcd, monkeypatch):
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR")
    assert gdal.Open(str(nlcd)).GetRasterBand(1) is not None
    assert bands_with_table(nlcd) == [1]
    with open_rat(nlcd) as source:
        assert source.schema.rows == 256
    assert gdal.GetThreadLocalConfigOption("GDAL_DISABLE_READDIR_ON_OPEN") is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR"),
        ("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".tif"),
        ("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".tif,.tiff"),
    ],
)
def test_a_table_beside_the_raster_on_s3_is_never_hidden(
    nlcd, s3_bucket, monkeypatch, option, value
):
    client = boto3.client("s3")
    for name in ("lc.tif", "lc.tif.aux.xml"):
        client.upload_file(str(nlcd.with_name(name)), s3_bucket, f"d/{name}")
    monkeypatch.setenv(option, value)
    with open_rat(f"/vsis3/{s3_bucket}/d/lc.tif") as source:
        assert source.read(5, 11, 1).tolist() == ["Open Water"]


def test_exceptions_are_as_they_were(nlcd):
    before = gdal.GetUseExceptions()
    with open_rat(nlcd) as source:
        source.read(0, 0, 256)
    with pytest.raises(RasterNotFoundError):
        open_rat(nlcd.with_name("no.tif"))
    assert gdal.GetUseExceptions() == before


def test_a_name_that_is_not_utf8_hides_nothing(tmp_path):
    path = tmp_path / "x.tif"
    make(path).FlushCache()
    text = AUX.format(kind=0, value=1).replace("<Name>c<", "<Name>gr\xf6n<")
    path.with_name("x.tif.aux.xml").write_bytes(text.encode("latin-1"))
    for encoding, name in ((None, r"gr\xf6n"), ("latin-1", "grön")):
        with open_rat(os.fspath(path), options=ReadOptions(encoding)) as source:
            assert [column.name for column in source.schema.columns] == [name]
            assert source.read(0, 0, 1).tolist() == [1]
