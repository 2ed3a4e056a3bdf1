"""Files of other formats, read back by pyarrow, pandas, DuckDB, OGR and pyogrio."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from osgeo import gdal

import gdalbridge
from gdalbridge import BridgeError, CancelledError, ConversionError, LossWarning
from gdalbridge.errors import ColumnSelectionError, NotWrittenError, OutputExistsError
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat
from tests.processes import running

ROWS = 7
VALUES = {
    "i1": np.array([-128, 127, 0, 1, 2, 3, 4], "i1"),
    "u1": np.array([0, 255, 0, 1, 2, 3, 4], "u1"),
    "u2": np.array([0, 65535, 0, 1, 2, 3, 4], "u2"),
    "i4": np.array([-(2**31), 2**31 - 1, 0, 1, 2, 3, 4], "i4"),
    "u4": np.array([0, 2**32 - 1, 0, 1, 2, 3, 4], "u4"),
    "i8": np.array([2**53 + 1, -(2**53) - 1, 0, 1, 2, 3, 4], "i8"),
    "f4": np.array([0.1, 1e-40, -0.0, 3, np.inf, -np.inf, 16777216], "f4"),
    "f8": np.array([1 / 3, 5e-324, -0.0, 3, np.inf, -np.inf, 1e300]),
    "b": np.array([True, False] * 3 + [True]),
    "s": np.array(["", "größe 🛰", 'a"b,c', "l\nm", " x", "y", "NULL"], "T"),
    "d": np.array(["2020-01-02", "0001-01-01", "9999-12-31", "1969-12-31"] + 3 * ["1970-01-01"], "M8[D]"),
    "ms": np.array([0, 1, -1, 10**12, 253402300799999, -62135596800000, 7], "M8[ms]"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "seg.tif.rat.zarr"
    fill(path, VALUES)
    return path


def fill(path, values, **attributes):
    rows = len(next(iter(values.values())))
    with RatZarr(path, newRowCount=rows, newChunkSize=3) as table:
        for name, one in values.items():
            table[name] = one
            for key, value in attributes.get(name, {}).items():
                table[name].attrs[key] = value


def same(column, values):
    """Compare an Arrow column with the stored array, bit by bit where it is a float."""
    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0)
    assert not found.null_count
    if values.dtype.kind == "T":
        return found.to_pylist() == values.tolist()
    got = found.to_numpy(zero_copy_only=False).astype(values.dtype)
    return got.tobytes() == values.tobytes()


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
@pytest.mark.main_env_only
def test_arrow_files_keep_every_value_type_and_attribute(store, tmp_path, suffix):
    import pyarrow.feather
    import pyarrow.parquet as pq

    with RatZarr(store) as table:
        table["when"] = np.array(["NaT", "2020-01-01T00:00:00.000000001"] + ["NaT"] * 5, "M8[ns]")
        table["l"] = np.arange(14, dtype="u2").reshape(7, 2)
        table["raw"] = np.array([b"", b"a\0b", b"c", b"", b"", b"", b""], object)
        table["n"] = np.arange(7)
        table["n"].attrs["missing_value"] = 3
        table["f8"].attrs["units"] = "ha"
    out = tmp_path / f"out.{suffix}"
    report = gdalbridge.export_table(store, out)
    read = pq.read_table if suffix == "parquet" else pyarrow.feather.read_table
    found = read(out)
    assert found.column_names == ["row", *VALUES, "when", "l", "raw", "n"]
    assert found["row"].to_pylist() == list(range(7))
    for name, values in VALUES.items():
        assert same(found[name], values), name
        kind = {"T": pa.string(), "M": found[name].type}.get(values.dtype.kind)
        assert found[name].type == (kind or pa.from_numpy_dtype(values.dtype))
    assert found["when"].cast(pa.int64()).to_pylist() == [None, 1577836800000000001] + [None] * 5
    assert found["l"].to_pylist() == np.arange(14).reshape(7, 2).tolist()
    assert found["raw"].to_pylist() == [b"", b"a\0b", b"c", b"", b"", b"", b""]
    assert found["n"].to_pylist() == [0, 1, 2, None, 4, 5, 6]
    assert found.schema.field("f8").metadata[b"units"] == b"ha"
    assert (report.rows, report.format) == (7, "parquet" if suffix == "parquet" else "arrow")
    assert report.bytes_stored == out.stat().st_size


def test_csv_is_what_pandas_and_duckdb_read(store, tmp_path):
    import duckdb
    import pandas as pd

    out = tmp_path / "out.csv"
    gdalbridge.export_table(store, out)
    frame = pd.read_csv(out, keep_default_na=False)
    types = {name: one.dtype for name, one in VALUES.items() if one.dtype.kind in "iufb"}
    for name, dtype in types.items():
        assert frame[name].to_numpy().astype(dtype).tobytes() == VALUES[name].tobytes(), name
    assert frame["s"].tolist() == VALUES["s"].tolist()
    read = duckdb.sql(f"SELECT d, ms, s FROM read_csv('{out}', all_varchar=true)").fetchall()
    assert [row[0] for row in read] == [str(one) for one in VALUES["d"]]
    assert [np.datetime64(row[1]) for row in read] == VALUES["ms"].tolist()
    assert read[1][2] == "größe 🛰"


def test_csv_tells_nan_null_and_empty_text_apart(tmp_path):
    path = tmp_path / "t.rat.zarr"
    values = {"f": np.array([np.nan, -9.0]), "s": np.array(["", "n/a"], "T")}
    fill(path, values, f={"missing_value": -9.0}, s={"missing_value": "n/a"})
    gdalbridge.export_table(path, tmp_path / "out.csv", row=False)
    assert (tmp_path / "out.csv").read_text() == '"f","s"\nnan,""\n,\n'


@pytest.mark.main_env_only
def test_where_columns_order_and_names(store, tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "out.parquet"
    gdalbridge.export_table(
        store,
        out,
        columns=["s", "i8"],
        where="u4 < 3 AND row > 2",
        rename={"i8": "big", "row": "id"},
    )
    assert pq.read_table(out).to_pydict() == {
        "id": [3, 4, 5][:2],
        "s": ["l\nm", " x"],
        "big": [1, 2],
    }
    gdalbridge.export_table(store, out, where="i8 > 1000", row=False, overwrite=True)
    found = pq.read_table(out)
    assert found.column_names == list(VALUES)
    for name, values in VALUES.items():
        assert same(found[name], values[:1]), name
    for bad in ("nope > 1", "i8 >", "", "1; SELECT 1", "u4 = (SELECT max(u4) FROM rat)"):
        with pytest.raises(BridgeError):
            gdalbridge.export_table(store, tmp_path / "no.csv", where=bad)
    assert sorted(os.listdir(tmp_path)) == ["out.parquet", store.name]


@pytest.mark.main_env_only
def test_rows_keep_their_order_through_a_condition(tmp_path):
    import pyarrow.parquet as pq

    rows, path = 700_000, tmp_path / "t.rat.zarr"
    random = np.random.default_rng(3)
    values = random.random(rows)
    with RatZarr(path, newRowCount=rows, newChunkSize=50_000) as table:
        table["x"] = values
    gdalbridge.export_table(path, tmp_path / "out.parquet", where="x > 0.5")
    found = pq.read_table(tmp_path / "out.parquet")
    wanted = np.flatnonzero(values > 0.5)
    assert (found["row"].to_numpy() == wanted).all()
    assert found["x"].to_numpy().tobytes() == values[wanted].tobytes()
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups <= 3


@pytest.mark.main_env_only
def test_names_that_differ_only_in_case(tmp_path):
    path = tmp_path / "t.rat.zarr"
    fill(path, {"A": np.arange(3), "a": np.arange(3) * 2})
    gdalbridge.export_table(path, tmp_path / "o.csv", where="a = 4 AND A = 2")
    assert (tmp_path / "o.csv").read_text() == '"row","A","a"\n2,2,4\n'
    with pytest.raises(BridgeError, match=r"'A' and 'a'.*rename"):
        gdalbridge.export_table(path, tmp_path / "o.gpkg")


def test_a_raster_with_its_own_columns_and_its_sidecars(tmp_path):
    raster = tmp_path / "seg.tif"
    rat = new_rat([("Histogram", REAL, 1, [5.0, 6.0]), ("s", STRING, 0, ["a", "b"])], 2)
    dataset = make(raster)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    with gdalbridge.open_table(raster) as table:
        table["new"] = [1.5, 2.5]
        gdalbridge.export_table(table, tmp_path / "one.csv")
    gdalbridge.export_table(raster, tmp_path / "two.csv")
    expected = '"row","Histogram","s","new"\n0,5,"a",1.5\n1,6,"b",2.5\n'
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "two.csv").read_text() == expected


# ---- GeoPackage


def features(path):
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    layer = dataset.GetLayer(0)
    return [(one.GetFID(), one.items()) for one in layer], layer.GetLayerDefn(), dataset


def test_geopackage(store, tmp_path):
    out = tmp_path / "out.gpkg"
    report = gdalbridge.export_table(store, out)
    found, definition, _dataset = features(out)
    assert [fid for fid, _ in found] == list(range(ROWS))
    for name, values in VALUES.items():
        got = [one[name] for _, one in found]
        if name == "d":
            assert [one.replace("/", "-") for one in got] == values.astype(str).tolist()
        elif values.dtype.kind in "iufbT":
            assert np.array(got, values.dtype).tobytes() == values.tobytes() or (
                got == values.tolist()
            ), name
    at = definition.GetFieldIndex("b")
    assert definition.GetFieldDefn(at).GetSubType() == 1
    assert report.losses == report.notes == ()


@pytest.mark.main_env_only
def test_pyogrio_reads_the_geopackage(store, tmp_path):
    from pyogrio.raw import read_arrow

    out = tmp_path / "out.gpkg"
    gdalbridge.export_table(store, out, where="row <> 3")
    meta, found = read_arrow(out, return_fids=True)
    assert meta["fields"].tolist() == list(VALUES)
    assert found["row"].to_pylist() == [0, 1, 2, 4, 5, 6]
    kept = np.array([0, 1, 2, 4, 5, 6])
    stamps = found["ms"].cast(pa.int64()).to_pylist()
    assert stamps == VALUES["ms"][kept].astype(np.int64).tolist()
    # SQLite has no negative zero.
    assert found["f8"].to_pylist() == VALUES["f8"][kept].tolist()
    assert same(found["i8"], VALUES["i8"][kept])


def test_nan_is_null_in_a_geopackage_and_said(tmp_path):
    path, out = tmp_path / "t.rat.zarr", tmp_path / "o.gpkg"
    values = {
        "f": np.array([np.nan, 2.0]),
        "n": np.array([1, 2]),
        "raw": np.array([b"\0a", b""], object),
    }
    fill(path, values, n={"missing_value": 2})
    report = gdalbridge.export_table(path, out, row=False)
    assert report.notes == ("column 'f': NaN is NULL",)
    found, _, _dataset = features(out)
    assert [(one["f"], one["n"]) for _, one in found] == [(None, 1), (2.0, None)]
    layer = _dataset.GetLayer(0)
    layer.ResetReading()
    raw = [one.GetFieldAsBinary("raw") for one in layer]
    assert [bytes(one) for one in raw] == [b"\0a", b""]


@pytest.mark.parametrize(
    ("name", "values", "suffix", "words"),
    [
        ("u8", np.array([0, 2**63], "u8"), "gpkg", r"row 1: 9223372036854775808 has 64 bits"),
        ("us", np.array([0, 1], "M8[us]"), "gpkg", "row 1.*finer than the milliseconds.*Parquet"),
        ("d", np.array([0, 3000000], "M8[D]"), "gpkg", "row 1: .*years 1 to 9999"),
        ("d", np.array([0, 3000000], "M8[D]"), "csv", "row 1: .*years 1 to 9999"),
        ("s", np.array(["a", "b\0"], "T"), "gpkg", "row 1: .*zero character"),
        ("a\0b", np.array([0, 1]), "gpkg", r"zero character in 'a\\x00b'"),
        ("a\0b", np.array([0, 1]), "dbf", r"zero character in 'a\\x00b'"),
        ("l", np.zeros((2, 3)), "gpkg", "'l': a GeoPackage can't hold several values"),
        ("l", np.zeros((2, 3)), "csv", "'l': CSV can't hold several values per row; Parquet"),
        ("l", np.zeros((2, 3)), "dbf", "'l': a dBASE table can't hold several values"),
        ("raw", np.array([b"a", b""], object), "csv", "CSV can't hold bytes"),
        ("raw", np.array([b"a", b""], object), "dbf", "can't hold bytes"),
        ("s", np.array(["a", "ü" * 128], "T"), "dbf", "row 1: 'ü.* longer than the 254 bytes"),
        ("i", np.array([0, 10**18]), "dbf", "row 1: 1000000000000000000 has more than 18 digits"),
        ("i", np.array([0, -(10**18)]), "dbf", "row 1: -1000000000000000000 has more"),
        ("u", np.array([0, 2**64 - 1], "u8"), "dbf", "row 1: 18446744073709551615 has more"),
        ("f", np.array([np.nan, 1e300]), "dbf", "row 1: 1e.300 has more than 18 digits"),
        ("f", np.array([np.nan, np.inf]), "dbf", "row 1: inf has more"),
        ("a_long_name", np.array([0, 1]), "dbf", "10 bytes, and 'a_long_name' has 11.*rename"),
        ("größegröß", np.array([0, 1]), "dbf", "'größegröß' has 13"),
    ],
)  # fmt: skip
def test_what_a_format_does_not_hold(tmp_path, name, values, suffix, words):
    path = tmp_path / "t.rat.zarr"
    fill(path, {name: values})
    with pytest.raises((ConversionError, BridgeError), match=words):
        gdalbridge.export_table(path, tmp_path / f"o.{suffix}")
    assert os.listdir(tmp_path) == [path.name]


# ---- dBASE


def test_dbf(tmp_path):
    path, out = tmp_path / "t.rat.zarr", tmp_path / "o.dbf"
    values = {
        "i": np.array([-(10**17), 7, 5]),
        "n": np.array([1, 2, 3]),
        "w": np.array([1.0, np.nan, 1e15]),
        "f": np.array([0.5, -12345.25, 0.0]),
        "b": np.array([True, False, True]),
        "s": np.array(["größe", "", "x"], "T"),
        "d": np.array(["2020-01-02", "NaT", "0001-01-01"], "M8[D]"),
        "t": np.array(["2020-01-02T03:04:05.678", "NaT", "1969-01-01"], "M8[ms]"),
    }
    fill(path, values, n={"missing_value": 2})
    report = gdalbridge.export_table(path, out)
    found, definition, _dataset = features(out)
    assert [one["row"] for _, one in found] == [0, 1, 2]
    assert [one["i"] for _, one in found] == [-(10**17), 7, 5]
    assert [one["n"] for _, one in found] == [1, None, 3]
    assert [one["w"] for _, one in found] == [1, None, 10**15]
    assert [one["f"] for _, one in found] == [0.5, -12345.25, 0]
    assert [one["b"] for _, one in found] == [1, 0, 1]
    assert [one["s"] for _, one in found] == ["größe", None, "x"]
    assert [one["d"] for _, one in found] == ["2020/01/02", None, "0001/01/01"]
    assert [one["t"] for _, one in found] == [
        "2020-01-02T03:04:05.678",
        None,
        "1969-01-01T00:00:00.000",
    ]
    widths = {one.GetName(): one.GetWidth() for one in map(definition.GetFieldDefn, range(9))}
    assert (widths["n"], widths["s"], widths["i"]) == (1, 7, 19)
    assert (tmp_path / "o.cpg").read_text().strip() == "UTF-8"
    assert report.losses == ()
    assert [note.split("'")[1] for note in report.notes] == ["w", "t"]


def test_losses_of_a_dbf_are_warnings_or_with_strict_errors(tmp_path):
    path, out = tmp_path / "t.rat.zarr", tmp_path / "o.dbf"
    fill(path, {"f": np.array([1 / 3, 0]), "s": np.array(["a ", "b"], "T")})
    with pytest.raises(ConversionError, match="'f': a dBASE table rounds it to 15 decimals"):
        gdalbridge.export_table(path, out, strict=True)
    assert os.listdir(tmp_path) == [path.name]
    with pytest.warns(LossWarning) as warned:
        report = gdalbridge.export_table(path, out)
    assert len(warned) == len(report.losses) == 2
    assert features(out)[0][0][1]["f"] == pytest.approx(1 / 3, abs=5e-16)


def test_vat_dbf_is_the_rasters_table(tmp_path):
    raster, source = tmp_path / "seg.tif", tmp_path / "t.rat.zarr"
    make(raster).FlushCache()
    fill(
        source,
        {"class": np.array(["x", "y", "z"], "T"), "Histogram": np.array([5.0, 0.0, 7.0])},
        Histogram={"GDAL_USAGE": 1},
    )
    out = tmp_path / "seg.tif.vat.dbf"
    report = gdalbridge.export_table(source, out, where="Histogram > 0")
    assert report.columns == ("Value", "Count", "class")
    found, _, _dataset = features(out)
    assert [one for _, one in found] == [
        {"Value": 0, "Count": 5, "class": "x"}, {"Value": 2, "Count": 7, "class": "z"},
    ]  # fmt: skip
    # As a raster's table, by our own reader.
    with gdalbridge.open_table(raster) as table:
        assert table["Value"][:].tolist() == [0, 2]
        assert table["Count"][:].tolist() == [5, 7]
        assert table["class"][:].tolist() == ["x", "z"]


def test_some_rows_in_a_vat_dbf_beside_the_raster_are_noted(tmp_path):
    raster = tmp_path / "seg.tif"
    make(raster).FlushCache()
    fill(
        tmp_path / "seg.tif.rat.zarr",
        {"Histogram": np.array([5, 0, 7])},
        Histogram={"GDAL_USAGE": 1},
    )
    (tmp_path / "other").mkdir()
    for out, where, notes in (
        (tmp_path / "other" / "seg.tif.vat.dbf", "Histogram > 0", 0),
        (tmp_path / "seg.tif.vat.dbf", "Histogram >= 0", 0),
        (tmp_path / "seg.tif.vat.dbf", "Histogram > 0", 1),
    ):
        report = gdalbridge.export_table(raster, out, where=where, overwrite=True)
        assert len(report.notes) == notes
    assert "Write all rows" in report.notes[0]


def test_vat_dbf_takes_a_column_value_and_needs_counts(tmp_path):
    source = tmp_path / "t.rat.zarr"
    fill(
        source,
        {"name": np.array(["x", "y"], "T"), "VALUE": np.array([9, 4]), "n": np.array([1, 2])},
    )
    out = tmp_path / "seg.vat.dbf"
    with pytest.raises(BridgeError, match=r"no column of pixel counts.*rename"):
        gdalbridge.export_table(source, out)
    report = gdalbridge.export_table(source, out, columns=["name", "n"], rename={"n": "Count"})
    assert report.columns == ("Value", "Count", "name")
    assert [one for _, one in features(out)[0]] == [
        {"Value": 9, "Count": 1, "name": "x"}, {"Value": 4, "Count": 2, "name": "y"},
    ]  # fmt: skip
    with RatZarr(source) as table:
        table["n"] = [0.5, 1.0]
    with pytest.raises(ConversionError, match="'Count' has fractions"):
        gdalbridge.export_table(source, out, rename={"n": "Count"}, overwrite=True)


# ---- the file


def test_an_existing_file_is_replaced_only_with_overwrite(store, tmp_path):
    out = tmp_path / "o.csv"
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        gdalbridge.export_table(store, out)
    assert out.read_text() == "mine"
    gdalbridge.export_table(store, out, overwrite=True, columns=["i4"])
    assert out.read_text().startswith('"row","i4"')
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputExistsError, match="directory"):
        gdalbridge.export_table(store, tmp_path / "folder.csv", overwrite=True)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow", "gpkg", "dbf"])
def test_a_failure_leaves_the_old_file(store, tmp_path, suffix):
    out = tmp_path / f"o.{suffix}"
    out.write_bytes(b"old")

    def stop(done, message, data):
        return done < 1

    with pytest.raises(CancelledError):
        gdalbridge.export_table(store, out, columns=["i4", "b"], overwrite=True, progress=stop)
    assert out.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == [out.name, store.name]
    gdalbridge.export_table(store, out, columns=["i4", "b"], overwrite=True)
    assert out.stat().st_size > 20


def test_progress_grows_to_one(store, tmp_path):
    told = []
    gdalbridge.export_table(
        store, tmp_path / "o.dbf", columns=["i4"], progress=lambda done, *_: told.append(done)
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert 0.5 in told


def test_wrong_arguments(store, tmp_path):
    for given, words in (
        ({"columns": ["nope"]}, "no column 'nope'"),
        ({"columns": "i4"}, "list of names"),
        ({"rename": {"nope": "x"}}, "'nope' is not exported"),
        ({"rename": {"i4": "i8"}}, "two columns would be called 'i8'"),
    ):
        with pytest.raises(BridgeError, match=words):
            gdalbridge.export_table(store, tmp_path / "o.csv", **given)
    with pytest.raises(ColumnSelectionError, match="chosen twice"):
        gdalbridge.export_table(store, tmp_path / "o.csv", columns=["i4", "i4"])
    with pytest.raises(BridgeError, match=r"expected one of \.parquet"):
        gdalbridge.export_table(store, tmp_path / "o.xlsx")
    with pytest.raises(BridgeError, match="no directory"):
        gdalbridge.export_table(store, tmp_path / "no" / "o.csv")
    with pytest.raises(BridgeError, match="a web server takes no files; write to a local file"):
        gdalbridge.export_table(store, "https://example.com/o.csv")
    with pytest.raises(BridgeError, match=r"nope://a/o\.csv is no URL .*write to a local file"):
        gdalbridge.export_table(store, "nope://a/o.csv")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "gpkg", "dbf"])
def test_s3(moto_s3, tmp_path, suffix):
    path = tmp_path / "t.rat.zarr"
    fill(path, {"n": np.arange(5)})
    url = f"s3://{moto_s3.bucket}/dir/o.{suffix}"
    gdalbridge.export_table(path, url)
    names = {f"o.{suffix}"} | ({"o.cpg"} if suffix == "dbf" else set())
    assert set(moto_s3.objects(f"s3://{moto_s3.bucket}/dir")) == names
    with pytest.raises(OutputExistsError):
        gdalbridge.export_table(path, url)
    if suffix != "gpkg":
        # Back into another table.
        gdalbridge.export_table(path, url, overwrite=True)
    if suffix in ("parquet", "csv"):
        other = tmp_path / "u.rat.zarr"
        RatZarr(other, newRowCount=5).close()
        with gdalbridge.open_table(other) as table:
            assert table.update_from(url).matched == 5
            assert table["n"][:].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow", "dbf"])
def test_urls_that_fsspec_writes_to(tmp_path, suffix):
    import fsspec

    path = tmp_path / "t.rat.zarr"
    fill(path, {"n": np.arange(5)})
    memory = fsspec.filesystem("memory")
    url = f"memory://{tmp_path.name}/o.{suffix}"
    report = gdalbridge.export_table(path, url)
    assert report.bytes_stored == memory.size(url)
    with pytest.raises(OutputExistsError):
        gdalbridge.export_table(path, url)
    gdalbridge.export_table(path, url, where="n > 2", overwrite=True)
    gdalbridge.export_table(path, tmp_path / f"o.{suffix}", where="n > 2")
    local = (tmp_path / f"o.{suffix}").read_bytes()
    assert memory.cat_file(url) == local
    names = {one.rpartition("/")[2] for one in memory.ls(tmp_path.name, detail=False)}
    assert names == {f"o.{suffix}"} | ({"o.cpg"} if suffix == "dbf" else set())


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_ctrl_c_leaves_nothing(tmp_path, suffix):
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path, newRowCount=6_000_000, newChunkSize=20_000) as table:
        table["n"] = np.arange(6_000_000)
    command = [sys.executable, "-m", "gdalbridge", "export", path, tmp_path / f"o.{suffix}"]
    with running(command) as process:
        until = time.monotonic() + 60
        while not list(tmp_path.glob(".ratzarr-*/table.*")) and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "gdalbridge: interrupted\n")
    assert os.listdir(tmp_path) == [path.name]


INTERRUPTED = """
import os, sys, gdalbridge
store, target, folder = sys.argv[1:]
before = sorted(os.listdir(folder))
# As the command does: GDAL's bindings let go of a new object while the interrupt is on its way.
sys.unraisablehook = lambda one: one.exc_type is KeyboardInterrupt or sys.__unraisablehook__(one)
for allowed in range(10_000):
    left = iter(range(allowed))

    def interrupt(frame, event, _, left=left):
        # There, and in the functions of GDAL that are called from there.
        files = [one.f_code.co_filename for one in (frame, frame.f_back) if one is not None]
        inside = files[0].endswith("vector_layer.py") or (
            files[0].endswith(("gdal.py", "ogr.py")) and files[-1].endswith("vector_layer.py")
        )
        if event in ("call", "c_return") and inside and next(left, None) is None:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        gdalbridge.export_table(store, target, columns=["i4"])
        break
    except KeyboardInterrupt as error:
        sys.setprofile(None)
        assert sorted(os.listdir(folder)) == before
        # GDAL closes files that nothing refers to any more.
        error.__traceback__ = None
sys.setprofile(None)
print(allowed)
"""


def test_an_interrupt_while_a_layer_is_made_leaves_nothing_and_says_nothing(store, tmp_path):
    target = tmp_path / "o.gpkg"
    command = [sys.executable, "-c", INTERRUPTED, store, target, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert int(done.stdout) > 8
    assert target.exists()


KILLED = """
import sys, gdalbridge
def told(done, message, data):
    print(done, flush=True)
    input()
gdalbridge.export_table(sys.argv[1], sys.argv[2], progress=told)
"""


def test_what_a_killed_export_leaves_the_next_one_removes(store, tmp_path):
    command = [sys.executable, "-c", KILLED, str(store), str(tmp_path / "o.csv")]
    running = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert running.stdout.readline()
    running.kill()
    running.communicate(timeout=60)
    time.sleep(0.1)
    assert any(name.startswith(".ratzarr-") for name in os.listdir(tmp_path))
    gdalbridge.export_table(store, tmp_path / "o.csv", columns=["i4"])
    assert sorted(os.listdir(tmp_path)) == ["o.csv", store.name]


def test_gdal_says_why_a_file_is_not_written(tmp_path):
    from gdalbridge.gdalio.vector_layer import LayerField, LayerWriter

    layer = LayerWriter("GPKG", str(tmp_path / "no" / "o.gpkg"), "t", [LayerField("n", "integer")])
    with pytest.raises(NotWrittenError), layer:
        pass


def test_a_rasters_own_table_through_a_condition(tmp_path):
    raster = tmp_path / "seg.tif"
    rat = new_rat(
        [("n", INTEGER, 0, np.arange(1000)), ("Count", REAL, 1, np.arange(1000.0))], 1000
    )
    dataset = make(raster)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    report = gdalbridge.export_table(raster, tmp_path / "o.vat.dbf", where="n % 100 = 5")
    assert report.rows == 10
    assert [one["Value"] for _, one in features(tmp_path / "o.vat.dbf")[0]] == list(
        range(5, 1000, 100)
    )
