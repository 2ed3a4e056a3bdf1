"""Every value as it was written, or an error. The oracle is what was written, with numpy."""

import struct

import numpy as np
import pytest
from osgeo import gdal, ogr

from gdalbridge.gdalio.field_types import FieldType
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, STRING, make, new_rat

TEXT = np.dtypes.StringDType()
BYTES = np.dtype(object)


def write(path, columns, rows=None, chunk=None, attributes=None):
    """Write a table of arrays, by name."""
    with RatZarr(path) as table:
        if chunk:
            table.setChunkSize(chunk)
        table.setRowCount(rows or max(map(len, columns.values())))
        for name, values in columns.items():
            given = (attributes or {}).get(name)
            if values.dtype == object:
                table.createColumn(name, bytes, attributes=given)
            else:
                width = values.shape[1] if values.ndim > 1 else 1
                table.createColumn(name, values.dtype, width, attributes=given)
            table.writeBlock(name, values, 0)
    return path


def read(layer):
    """Return the values of every field, and the row numbers."""
    definition = layer.GetLayerDefn()
    names = [definition.GetFieldDefn(i).GetName() for i in range(definition.GetFieldCount())]
    rows = [(f.GetFID(), [f.GetField(i) for i in range(len(names))]) for f in layer]
    return [row for row, _ in rows], {
        name: [values[number] for _, values in rows] for number, name in enumerate(names)
    }


def types(layer):
    definition = layer.GetLayerDefn()
    fields = [definition.GetFieldDefn(number) for number in range(definition.GetFieldCount())]
    return {one.GetName(): (one.GetType(), one.GetSubType()) for one in fields}


def test_numbers_of_every_dtype(tmp_path, open_layer):
    columns = {"bool": np.array([True, False, True])}
    for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4"):
        info = np.iinfo(name)
        columns[name] = np.array([info.min, info.max, 1], name)
    columns["u8"] = np.array([0, 2**63 - 1, 2**53 + 1], "u8")
    for name in ("f2", "f4", "f8"):
        info = np.finfo(name)
        columns[name] = np.array([info.max, info.smallest_subnormal, -0.0], name)
    columns["odd"] = np.array([np.nan, np.inf, -np.inf])
    layer = open_layer(write(tmp_path / "t.rat.zarr", columns))
    rows, found = read(layer)
    assert rows == [0, 1, 2]
    assert found.keys() == columns.keys()
    for name, values in columns.items():
        if values.dtype.kind == "f":
            expected = [struct.pack("d", value) for value in values.astype("f8")]
            assert [struct.pack("d", value) for value in found[name]] == expected, name
        else:
            assert found[name] == values.tolist(), name
    kinds = types(layer)
    assert kinds["bool"] == (ogr.OFTInteger, ogr.OFSTBoolean)
    assert kinds["i4"] == kinds["u2"] == (ogr.OFTInteger, ogr.OFSTNone)
    assert kinds["u4"] == kinds["i8"] == kinds["u8"] == (ogr.OFTInteger64, ogr.OFSTNone)
    assert kinds["f4"] == (ogr.OFTReal, ogr.OFSTFloat32)
    assert kinds["f8"] == (ogr.OFTReal, ogr.OFSTNone)


def test_text_and_bytes(tmp_path, open_layer):
    texts = ["", " ä\n\t'\"", "🛰" * 1000, "\x01\x7f", "NULL"]
    wkb = np.empty(5, object)
    wkb[:] = [b"\0\1\2", b"x" * 5000, b"\xff", b"a\0", b"b"]
    path = write(tmp_path / "t.rat.zarr", {"name": np.array(texts, TEXT), "shape": wkb})
    layer = open_layer(path)
    _, found = read(layer)
    assert found["name"] == texts
    if hasattr(ogr.Feature, "GetFieldAsBinary"):
        layer.ResetReading()
        assert [bytes(one.GetFieldAsBinary("shape")) for one in layer] == wkb.tolist()
    assert types(layer)["shape"][0] == ogr.OFTBinary


def test_dates(tmp_path, open_layer):
    days = np.array(["0001-01-01", "1970-01-01", "9999-12-31"], "M8[D]")
    times = np.array(["0001-01-01T00:00:00.001", "NaT", "9999-12-31T23:59:59.999"], "M8[ms]")
    columns = {"day": days, "ms": times, "us": times.astype("M8[us]"), "s": days.astype("M8[s]")}
    layer = open_layer(write(tmp_path / "t.rat.zarr", columns))
    _, found = read(layer)
    assert found["day"] == ["0001/01/01", "1970/01/01", "9999/12/31"]
    assert found["ms"] == ["0001/01/01 00:00:00.001", None, "9999/12/31 23:59:59.999"]
    assert found["us"] == found["ms"]
    assert found["s"] == [f"{day} 00:00:00" for day in found["day"]]
    assert types(layer)["day"][0] == ogr.OFTDate
    assert types(layer)["us"][0] == ogr.OFTDateTime


@pytest.mark.parametrize("unit", ["ns", "ps", "fs", "as"])
def test_dates_finer_than_microseconds(tmp_path, open_layer, unit):
    times = np.array(["1970-01-01T00:00:00.001", "NaT", "1969-12-31T23:59:59.999"], f"M8[{unit}]")
    layer = open_layer(write(tmp_path / "t.rat.zarr", {"x": times}))
    assert read(layer)[1]["x"] == ["1970/01/01 00:00:00.001", None, "1969/12/31 23:59:59.999"]
    fine = write(tmp_path / "fine.rat.zarr", {"x": times + np.timedelta64(1, unit)})
    with pytest.raises(RuntimeError, match=r"column 'x', row 0: .* is finer than a millisecond"):
        read(open_layer(fine))


def test_a_missing_date_may_be_out_of_gdals_range(tmp_path, open_layer):
    days = np.array(["-0001-01-01", "2000-01-01"], "M8[D]")
    attributes = {"day": {"missing_value": "-0001-01-01"}}
    path = write(tmp_path / "t.rat.zarr", {"day": days}, attributes=attributes)
    assert read(open_layer(path))[1]["day"] == [None, "2000/01/01"]


def test_a_recorded_time_zone(tmp_path, open_layer):
    times = np.array(["2020-01-01T00:30", "1969-12-31T23:59:59.999"], "M8[ms]")
    zones = {"a": 345, "b": -120, "c": 0, "d": None}
    attributes = {name: {"UTC_OFFSET_MINUTES": east} for name, east in zones.items()}
    path = write(tmp_path / "t.rat.zarr", dict.fromkeys(zones, times), attributes=attributes)
    layer = open_layer(path)
    feature = layer.GetFeature(0)
    found = {}
    for number, name in enumerate(zones):
        found[name] = feature.GetFieldAsDateTime(number)
    # GDAL's zones: 100 is UTC, and each step a quarter of an hour.
    assert found == {
        "a": [2020, 1, 1, 6, 15, 0, 100 + 23],
        "b": [2019, 12, 31, 22, 30, 0, 100 - 8],
        "c": [2020, 1, 1, 0, 30, 0, 100],
        "d": [2020, 1, 1, 0, 30, 0, 0],
    }


def test_missing_values_are_null(tmp_path, open_layer):
    shape = np.empty(3, object)
    shape[:] = [b"", b"x", b"y"]
    columns = {
        "n": np.array([1, -9999, 3], "i4"),
        "u": np.array([1, 2**64 - 1, 3], "u8"),
        "x": np.array([0.5, np.nan, -1.0]),
        "name": np.array(["a", "none", ""], TEXT),
        "shape": shape,
        "data": shape,
    }
    missing = {"n": -9999, "u": 2**64 - 1, "x": -1.0, "name": "none"}
    attributes = {name: {"missing_value": value} for name, value in missing.items()}
    attributes["shape"] = {"GDAL_TYPE": FieldType.WKB_GEOMETRY}
    layer = open_layer(write(tmp_path / "t.rat.zarr", columns, attributes=attributes))
    _, found = read(layer)
    assert found["n"] == found["u"] == [1, None, 3]
    assert found["x"][0] == 0.5
    assert np.isnan(found["x"][1])
    assert found["x"][2] is None
    assert found["name"] == ["a", None, ""]
    nulls = [[f.IsFieldNull(i) for f in map(layer.GetFeature, range(3))] for i in range(6)]
    assert nulls[4] == [True, False, False]
    # Only an empty geometry is missing, as in SQL.
    assert nulls[5] == [False, False, False]
    assert nulls[0] == [False, True, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1, 2**63], "u8"), "row 1: 9223372036854775808 is larger than"),
        (np.array(["a", "b\0c"], TEXT), r"row 1: 'b\\x00c' contains a zero character"),
        (np.array([0, 1500], "M8[us]"), "row 1: 1970-01-01T00:00:00.001500 is finer than"),
        (np.array(["2000", "-0001"], "M8[D]"), "row 1: -001-01-01 is finer than .* years 1 to"),
        (np.array(["2000", "10000"], "M8[Y]"), "row 1: 10000 is finer than"),
    ],
)
def test_a_value_that_gdal_can_not_hold_is_an_error(tmp_path, open_layer, values, message):
    layer = open_layer(write(tmp_path / "t.rat.zarr", {"x": values}))
    with pytest.raises(RuntimeError, match=f"column 'x', {message}"):
        read(layer)


def test_such_columns_as_text(tmp_path, open_layer):
    columns = {
        "big": np.array([0, 2**64 - 1], "u8"),
        "when": np.array(["NaT", "2000-01-01T00:00:00.000000001"], "M8[ns]"),
        "a,b": np.array([-1, 1], "i1"),
    }
    path = write(tmp_path / "t.rat.zarr", columns)
    expected = {
        "big": ["0", str(2**64 - 1)],
        "when": [None, "2000-01-01T00:00:00.000000001"],
        "a,b": ["-1", "1"],
    }
    assert read(open_layer(f"RATZARR:{path}?text=big,when,a%2Cb"))[1] == expected
    assert read(open_layer(path, TEXT="big,when,a%2Cb"))[1] == expected
    with pytest.raises(RuntimeError, match=r"column 'x'.* only integers and date-times"):
        open_layer(f"RATZARR:{write(tmp_path / 'x.rat.zarr', {'x': np.zeros(1)})}?text=x")


def test_columns_are_chosen_in_an_order(tmp_path, open_layer):
    columns = {"a": np.array([1]), "b": np.array([2]), "c,%?&=": np.array([3])}
    path = write(tmp_path / "t.rat.zarr", columns)
    _, found = read(open_layer(f"RATZARR:{path}?columns=c%2C%25%3F%26=,a"))
    assert list(found.items()) == [("c,%?&=", [3]), ("a", [1])]
    assert list(read(open_layer(path, COLUMNS="b"))[1]) == ["b"]
    for wrong, message in (("A", "no column 'A': did you mean \"a\""), ("a,a", "named twice")):
        with pytest.raises(RuntimeError, match=message):
            open_layer(f"RATZARR:{path}?columns={wrong}")


def test_names_that_gdal_would_take_for_one(tmp_path, open_layer):
    names = ["x", "X", "Row", "x_2", "x\0y", "x\0z", "X_Y"]
    columns = {name: np.array([number]) for number, name in enumerate(names)}
    layer = open_layer(write(tmp_path / "t.rat.zarr", columns))
    expected = ["x", "X_2", "Row", "x_2_2", "x_y", "x_z", "X_Y_2"]
    assert read(layer)[1] == {name: [number] for number, name in enumerate(expected)}
    assert layer.GetFIDColumn() == "_row"


def test_several_values_per_row(tmp_path, open_layer):
    values = np.arange(6, dtype="f4").reshape(3, 2)
    layer = open_layer(write(tmp_path / "t.rat.zarr", {"v": values}))
    assert read(layer)[1] == {"v[0]": [0, 2, 4], "v[1]": [1, 3, 5]}


def test_a_raster_with_its_sidecars(tmp_path, open_layer):
    own = [("Value", INTEGER, 0, [10, 11, 12]), ("name", STRING, 2, ["a", "b", "c"])]
    raster = make(tmp_path / "seg.tif")
    raster.GetRasterBand(1).SetDefaultRAT(new_rat(own, 3))
    del raster
    write(tmp_path / "seg.tif.rat.zarr", {"name": np.array(["x", "y"], TEXT)})
    write(tmp_path / "seg.tif.more.rat.zarr", {"area": np.array([0.5, 1.5, 2.5, 3.5])})
    layer = open_layer(f"RATZARR:{tmp_path}/seg.tif")
    assert layer.GetFeatureCount() == 4
    assert layer.GetName() == "rat"
    assert layer.GetFIDColumn() == "row"
    assert read(layer)[1] == {
        "Value": [10, 11, 12, None],
        "name": ["x", "y", None, None],
        "area": [0.5, 1.5, 2.5, 3.5],
    }
    # Only a table's name makes a table.
    assert gdal.OpenEx(f"{tmp_path}/seg.tif", gdal.OF_RASTER).GetDriver().ShortName == "GTiff"


def test_many_blocks_in_order_and_single_rows(tmp_path, open_layer):
    count = 150_001
    rng = np.random.default_rng(5)
    columns = {"id": np.arange(count), "x": rng.random(count)}
    path = write(tmp_path / "t.rat.zarr", columns, chunk=40_000)
    layer = open_layer(path)
    rows, found = read(layer)
    assert rows == list(range(count))
    assert found["id"] == rows
    assert found["x"] == columns["x"].tolist()
    for row in [0, count - 1, *rng.integers(0, count, 50).tolist()]:
        feature = layer.GetFeature(row)
        assert feature.GetFID() == row
        assert feature.GetField("x") == columns["x"][row]
    assert layer.GetFeature(count) is None
    assert layer.GetFeature(-1) is None
    # Two iterations of a layer, the first one abandoned.
    layer.ResetReading()
    assert [layer.GetNextFeature().GetFID() for _ in range(3)] == [0, 1, 2]
    layer.ResetReading()
    assert layer.GetNextFeature().GetFID() == 0


def test_rows_are_counted_without_reading(tmp_path, open_layer):
    path = write(tmp_path / "t.rat.zarr", {"x": np.arange(2000)}, chunk=1000)
    for chunk in (path / "RAT" / "x" / "c").iterdir():
        chunk.write_bytes(b"damaged")
    layer = open_layer(path)
    assert layer.GetFeatureCount() == 2000
    assert layer.TestCapability(ogr.OLCFastFeatureCount)
    assert layer.TestCapability(ogr.OLCRandomRead)
    with pytest.raises(RuntimeError, match=r"t\.rat\.zarr.*x"):
        read(layer)


def test_a_table_without_columns_or_rows(tmp_path, open_layer):
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(2)
    assert read(open_layer(tmp_path / "t.rat.zarr")) == ([], {})
    with RatZarr(tmp_path / "empty.rat.zarr") as table:
        table.createColumn("x", "f8")
    layer = open_layer(tmp_path / "empty.rat.zarr")
    assert (layer.GetFeatureCount(), read(layer)) == (0, ([], {"x": []}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RATZARR:{0}/missing.tif", "{0}/missing.tif"),
        ("RATZARR:{0}/missing.rat.zarr", "{0}/missing.rat.zarr"),
        ("RATZARR:{0}/plain.tif", "{0}/plain.tif"),
        ("RATZARR:{0}/plain.tif?band=3", "there is no band 3"),
        ("RATZARR:{0}/plain.tif?band=x", "band 'x'"),
        ("RATZARR:", "name of a table is missing"),
        ("RATZARR:{0}/plain.tif?colums=a", "plain.tif[?]colums=a"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, open_layer, name, message):
    make(tmp_path / "plain.tif")
    with pytest.raises(RuntimeError, match=message.format(tmp_path)):
        open_layer(name.format(tmp_path))


@pytest.mark.usefixtures("open_layer")
def test_tables_are_never_opened_for_writing(tmp_path):
    path = write(tmp_path / "t.rat.zarr", {"x": np.arange(3)})
    with pytest.raises(RuntimeError):
        gdal.OpenEx(f"RATZARR:{path}", gdal.OF_VECTOR | gdal.OF_UPDATE)


def test_a_table_on_s3(moto_s3, open_layer):
    url = f"s3://{moto_s3.bucket}/dir/t.rat.zarr"
    write(url, {"x": np.arange(3)})
    for name in (url, f"RATZARR:{url}?columns=x", f"RATZARR:/vsis3/{url[5:]}"):
        assert read(open_layer(name))[1] == {"x": [0, 1, 2]}
