"""Options, refusals and interruptions of copies to a sidecar."""

import json
from pathlib import Path

import numpy as np
import pytest

from gdalbridge import (
    BridgeError,
    CancelledError,
    ConversionError,
    copy_to_sidecar,
    open_table,
)
from gdalbridge.errors import (
    ColumnSelectionError,
    GdalLossError,
    OutputExistsError,
    RasterNotFoundError,
)
from ratzarr import RatZarr, RatZarrError
from tests.audits import listening
from tests.gdalbridge.sample_rasters import (
    DATETIME,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    make,
    new_rat,
)


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path)
    columns = [
        ("Value", INTEGER, 5, np.arange(10)),
        ("area", REAL, 0, np.arange(10) / 4),
        ("label", STRING, 0, list("abcdefghij")),
    ]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 10))
    dataset = None
    return path


def names(path):
    return RatZarr(path, readOnly=True).getColumnNames()


def test_the_report(raster):
    report = copy_to_sidecar(str(raster))
    assert (report.source, report.target) == (str(raster), f"{raster}.rat.zarr")
    assert (report.rows, report.losses) == (10, ())
    assert [(c.name, c.dtype, c.gdal_type, c.usage) for c in report.columns] == [
        ("Value", "int32", "Integer", "MinMax"),
        ("area", "float64", "Real", "Generic"),
        ("label", "str", "String", "Generic"),
    ]
    assert report.bytes_read >= 10 * 12
    assert 0 < report.bytes_stored < 2000
    assert report.seconds > 0
    assert "3 columns of 10 rows" in str(report)


def test_the_table_has_its_rows_and_chunk_size_from_the_beginning(raster):
    document, seen = Path(f"{raster}.rat.zarr/RAT/zarr.json"), []

    def look(event, arguments):
        if event in ("os.link", "os.rename") and document.exists():
            attributes = json.loads(document.read_text())["attributes"]
            seen.append((attributes["ROWCOUNT"], attributes["CHUNKSIZE"]))

    with listening(look):
        copy_to_sidecar(raster, chunk_rows=7)
    # Not one of the changes of documents that follow finds others.
    assert len(seen) > 3
    assert set(seen) == {(10, 7)}


def test_attributes_of_the_columns(raster):
    target = copy_to_sidecar(raster).target
    attributes = RatZarr(target, readOnly=True).getColumnAttributeMapping("Value").asdict()
    said = {name: value for name, value in attributes.items() if name.startswith("GDAL_")}
    assert said == {
        "GDAL_TYPE": 0,
        "GDAL_TYPE_NAME": "Integer",
        "GDAL_USAGE": 5,
        "GDAL_USAGE_NAME": "MinMax",
    }


def test_chosen_columns_in_the_tables_order(raster):
    assert names(copy_to_sidecar(raster, columns=["label", "Value"]).target) == ["Value", "label"]


@pytest.mark.parametrize("columns", [["nope"], ["Value", "nope"], "Value"])
def test_columns_that_are_not_there(raster, columns):
    with pytest.raises(ColumnSelectionError):
        copy_to_sidecar(raster, columns=columns)
    assert not RatZarr.exists(f"{raster}.rat.zarr")


def test_an_existing_sidecar_is_refused(raster):
    target = copy_to_sidecar(raster, columns=["Value"]).target
    with pytest.raises(OutputExistsError, match="Use overwrite=True to replace"):
        copy_to_sidecar(raster)
    assert names(target) == ["Value"]


@pytest.mark.parametrize("names_of_other", [["b"], []])
def test_a_table_that_another_process_makes_meanwhile_keeps_its_rows(raster, names_of_other):
    class Columns(list):
        """Looked at when the raster has been read."""

        def __iter__(self):
            with RatZarr(f"{raster}.rat.zarr", newRowCount=30) as other:
                for name in names_of_other:
                    other[name] = np.arange(30)
            return super().__iter__()

    with pytest.raises(OutputExistsError, match="Use overwrite=True to replace"):
        copy_to_sidecar(raster, columns=Columns(["area"]))
    with RatZarr(f"{raster}.rat.zarr", readOnly=True) as other:
        assert (other.rowCount, other.getColumnNames()) == (30, names_of_other)


def test_it_is_refused_before_gdal_reads_a_long_table(tmp_path):
    path = tmp_path / "a.vrt"
    dataset = make(path, "VRT")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("n", INTEGER, 0, [5])], 1))
    del dataset
    copy_to_sidecar(path)
    # Reading this table is an error.
    path.write_text(path.read_text().replace("<F>5</F>", "<F>5a</F>"))
    with pytest.raises(OutputExistsError, match="already exists"):
        copy_to_sidecar(path)
    with pytest.raises(GdalLossError, match="5a"):
        copy_to_sidecar(path, overwrite=True)


def test_append_adds_and_never_replaces(raster):
    target = copy_to_sidecar(raster, columns=["Value"]).target
    copy_to_sidecar(raster, columns=["label"], append=True)
    assert names(target) == ["Value", "label"]
    with pytest.raises(OutputExistsError, match="'Value' already"):
        copy_to_sidecar(raster, append=True)
    assert names(target) == ["Value", "label"]


def test_overwrite_replaces_its_columns_and_keeps_others(raster):
    target = copy_to_sidecar(raster).target
    with RatZarr(target) as table:
        table.createColumn("mine", np.int32)
        table.writeBlock("mine", np.arange(10), 0)
        table.writeBlock("Value", np.zeros(10, int), 0)
    copy_to_sidecar(raster, overwrite=True)
    with RatZarr(target, readOnly=True) as table:
        assert table.readBlock("Value", 0, 10).tolist() == list(range(10))
        assert table.readBlock("mine", 0, 10).tolist() == list(range(10))


def test_rows_that_no_longer_fit_other_columns(raster):
    target = copy_to_sidecar(raster).target
    with RatZarr(target) as table:
        table.createColumn("mine", np.int32)
        table.setRowCount(20)
    with pytest.raises(BridgeError, match="'mine' would no longer fit"):
        copy_to_sidecar(raster, overwrite=True)
    assert RatZarr(target).rowCount == 20


def test_something_else_in_the_way(raster):
    place = raster.with_name("seg.tif.rat.zarr")
    place.mkdir()
    (place / "precious.txt").touch()
    with pytest.raises((BridgeError, RatZarrError)):
        copy_to_sidecar(raster, overwrite=True)
    assert [entry.name for entry in place.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("option", ["block_rows", "chunk_rows"])
@pytest.mark.parametrize("value", [0, -5, True])
def test_rows_that_can_not_be(raster, option, value):
    with pytest.raises(BridgeError, match=option):
        copy_to_sidecar(raster, **{option: value})


def test_a_raster_that_is_not_there(tmp_path):
    with pytest.raises(RasterNotFoundError, match=r"no\.tif can't be opened"):
        copy_to_sidecar(tmp_path / "no.tif")


@pytest.mark.parametrize("band", [0, 2, -1, True, "1"])
def test_a_band_that_is_not_there(raster, band):
    with pytest.raises(BridgeError, match="band"):
        copy_to_sidecar(raster, "x.rat.zarr", band=band)


def test_a_band_without_a_table(tmp_path):
    make(tmp_path / "x.tif").FlushCache()
    with pytest.raises(RasterNotFoundError, match="no attribute table"):
        copy_to_sidecar(tmp_path / "x.tif")
    assert not RatZarr.exists(tmp_path / "x.tif.rat.zarr")


def test_text_that_is_not_utf8(tmp_path):
    dataset = make("", "MEM")
    rat = new_rat([("c", STRING, 0, None)], 2)
    assert rat.WriteArray(np.array([b"ok", "größe".encode("latin-1")]), 0) == 0
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    with pytest.raises(ConversionError, match=r"column 'c', row 1: .* is not UTF-8"):
        copy_to_sidecar(dataset, tmp_path / "t.rat.zarr")
    # What the call had created is gone.
    assert not RatZarr.exists(tmp_path / "t.rat.zarr")


def test_a_virtual_raster_whose_table_is_not_utf8(tmp_path):
    path = tmp_path / "a.vrt"
    dataset = make(path, "VRT")
    rat = new_rat([("s", STRING, 0, ["x", ""])], 2)
    rat.WriteArray(np.array([b"gr\xf6n", b""]), 0)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset, rat
    with pytest.raises(ConversionError, match=r"'s', row 0: .*gr\\xf6n"):
        copy_to_sidecar(path)
    copy_to_sidecar(path, encoding="latin-1")
    with open_table(path) as table:
        assert table["s"][:].tolist() == ["grön", ""]


def test_a_value_that_is_refused_costs_no_old_column_and_leaves_no_new_one(raster, tmp_path):
    """Also where it comes so late that blocks of the column are written already."""
    target = copy_to_sidecar(raster).target
    dataset = make("", "MEM")
    rat = new_rat([("label", STRING, 0, None), ("fresh", STRING, 0, None)], 10)
    for index in range(2):
        assert rat.WriteArray(np.array([b"ok"] * 9 + [b"\xff"]), index) == 0
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    for columns in (["label"], ["fresh"]):
        with pytest.raises(ConversionError, match="row 9"):
            copy_to_sidecar(dataset, target, columns=columns, overwrite=True, chunk_rows=2)
    with RatZarr(target, readOnly=True) as table:
        assert table.getColumnNames() == ["Value", "area", "label"]
        assert table.readBlock("label", 0, 10).tolist() == list("abcdefghij")


def test_what_another_has_put_into_a_new_sidecar_stays(tmp_path):
    target = tmp_path / "t.rat.zarr"
    dataset = make("", "MEM")
    rat = new_rat([("good", INTEGER, 0, [1, 2]), ("bad", STRING, 0, None)], 2)
    assert rat.WriteArray(np.array([b"ok", b"\xff"]), 1) == 0
    dataset.GetRasterBand(1).SetDefaultRAT(rat)

    def meanwhile(done, name, data):
        if name == "bad" and not RatZarr(target).colExists("theirs"):
            with RatZarr(target) as table:
                table.createColumn("theirs", np.int8)
                table.writeBlock("theirs", [7, 8], 0)
        return 1

    with pytest.raises(ConversionError):
        copy_to_sidecar(dataset, target, chunk_rows=1, progress=meanwhile)
    with RatZarr(target, readOnly=True) as table:
        assert table.getColumnNames() == ["theirs"]
        assert table.readBlock("theirs", 0, 2).tolist() == [7, 8]


def cancel_at(fraction):
    return lambda done, message, data: int(done < fraction)


def test_cancelling_keeps_finished_columns_and_says_what_is_not(raster):
    with pytest.raises(CancelledError):
        copy_to_sidecar(raster, chunk_rows=1, progress=cancel_at(0.5))
    with RatZarr(f"{raster}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("Value", 0, 10).tolist() == list(range(10))
        with pytest.raises(RatZarrError, match="'area' is not complete"):
            table.readBlock("area", 0, 10)


def test_progress_goes_from_0_to_1_and_names_columns(raster):
    calls = []
    copy_to_sidecar(raster, chunk_rows=3, progress=lambda *args: calls.append(args) or 1)
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, 1.0)
    assert {call[1] for call in calls} >= {"Value", "area", "label"}


def test_long_strings_get_short_chunks(tmp_path):
    rows = 3000
    dataset = make("", "MEM")
    texts = [f"{i}" + "x" * 40_000 for i in range(rows)]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("s", STRING, 0, texts)], rows))
    target = tmp_path / "t.rat.zarr"
    copy_to_sidecar(dataset, target)
    with RatZarr(target, readOnly=True) as table:
        assert table.getColumnChunkSize("s") < 2000
        assert table.readBlock("s", 0, rows).tolist() == texts


@pytest.mark.skipif(not NEW_TYPES, reason="DateTime came with GDAL 3.12")
def test_years_that_datetimes_do_not_have(tmp_path):
    dataset = make("", "MEM")
    rat = new_rat([("d", DATETIME, 0, ["2020-01-01T00:00:00Z", "12020-01-01T00:00:00Z"])], 2)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    with pytest.raises(ConversionError, match="column 'd', row 1"):
        copy_to_sidecar(dataset, tmp_path / "t.rat.zarr")
    assert not RatZarr.exists(tmp_path / "t.rat.zarr")


def test_from_and_to_s3(s3_bucket, raster):
    import boto3

    boto3.client("s3").upload_file(str(raster), s3_bucket, "dir/seg.tif")
    aux = raster.with_name("seg.tif.aux.xml")
    if aux.exists():
        boto3.client("s3").upload_file(str(aux), s3_bucket, "dir/seg.tif.aux.xml")
    report = copy_to_sidecar(f"/vsis3/{s3_bucket}/dir/seg.tif")
    assert report.target == f"s3://{s3_bucket}/dir/seg.tif.rat.zarr"
    with RatZarr(report.target, readOnly=True) as table:
        assert table.readBlock("label", 0, 10).tolist() == list("abcdefghij")
