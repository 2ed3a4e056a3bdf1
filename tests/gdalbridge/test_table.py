"""A raster's table for Python. GDAL's own reading and numpy are the judges."""

import os
import signal
import sys
import time
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from osgeo import gdal

from gdalbridge import BridgeError, LossWarning, attach, find_sidecars, open_table
from gdalbridge.errors import RasterNotFoundError
from ratzarr import (
    ClosedError,
    NotARatZarrError,
    RatZarr,
    RatZarrError,
    ReadOnlyError,
    ShapeError,
    UnsupportedDtypeError,
)
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat
from tests.processes import running
from tests.servers.web import web_server

OWN = [
    ("Value", INTEGER, 5, [0, 1, 2, 3]),
    ("Histogram", REAL, 1, [9.0, 2, 3, 4]),
    ("name", STRING, 2, ["", "a", "bc", "näh"]),
]


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(OWN, 4))
    return path


def test_the_rasters_own_columns_and_its_sidecars(raster):
    with RatZarr(f"{raster}.rat.zarr", newRowCount=4) as sidecar:
        sidecar["Histogram"] = [1, 2, 3, 4]
        sidecar["v"] = np.arange(8).reshape(4, 2)
    with RatZarr(f"{raster}.more.rat.zarr", newRowCount=5) as further:
        further["z"] = [1.5, 2.5, 3.5, 4.5, 5.5]
    table = open_table(raster)
    assert table.columns == ["Value", "Histogram", "name", "v", "z"]
    assert len(table) == 5
    frame = table.to_pandas()
    assert frame["Value"].tolist() == [0, 1, 2, 3, pd.NA]
    assert frame["Histogram"].tolist() == [1, 2, 3, 4, pd.NA]
    assert frame["name"].tolist()[:4] == ["", "a", "bc", "näh"]
    assert frame["v"][3].tolist() == [6, 7]
    assert frame["z"].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert frame.index.name == "row"
    own = open_table(raster, prefer="raster")
    assert own["Histogram"][:].tolist() == [9, 2, 3, 4]
    assert open_table(raster, names=["more"]).columns == ["Value", "Histogram", "name", "z"]
    # The attached table shows the same columns, but those with several values in parts.
    with attach(raster) as rat:
        shown = [rat.GetNameOfCol(at) for at in range(rat.GetColumnCount())]
    assert shown == ["Value", "Histogram", "name", "v[0]", "v[1]", "z"]


def test_a_part_of_a_sidecar_is_not_left_out(raster):
    """As an interrupted copy of the sidecar alone leaves it."""
    with RatZarr(f"{raster}.rat.zarr", newRowCount=4) as sidecar:
        sidecar["x"] = [1, 2, 3, 4]
    os.remove(f"{raster}.rat.zarr/RAT/zarr.json")
    for opening in (open_table, attach, partial(attach, update=True)):
        with pytest.raises(NotARatZarrError, match="a part of one"):
            opening(raster)
    assert sorted(os.listdir(f"{raster}.rat.zarr/RAT")) == ["x"]


def test_new_columns_go_to_the_sidecar_and_gdal_sees_them(raster):
    before = raster.read_bytes()
    with open_table(raster) as table:
        table["seven"] = np.array(7)
        assert table["seven"][:].tolist() == [7] * 4
        del table["seven"]
        table["ndvi"] = np.array([0.5, 0.25, -1, 0])
        table["class"] = ["w", "f", "f", "w"]
        assert table.columns[-2:] == ["ndvi", "class"]
        assert table["ndvi"][1:3].tolist() == [0.25, -1]
        assert table.sidecars == [f"{raster}.rat.zarr"]
    assert raster.read_bytes() == before
    with attach(raster) as rat:
        found = {rat.GetNameOfCol(at): rat.ReadAsArray(at).tolist() for at in range(5)}
    assert found["ndvi"] == [0.5, 0.25, -1, 0]
    assert found["class"] == [b"w", b"f", b"f", b"w"] or found["class"] == ["w", "f", "f", "w"]
    stored = RatZarr(f"{raster}.rat.zarr", readOnly=True)
    assert stored.getColumnAttributeMapping("ndvi")["PROVENANCE"]["operation"] == "table"
    assert stored.getRatAttributeMapping()["RASTER"]["name"] == "seg.tif"


def test_a_replaced_column_keeps_its_usage(raster):
    with open_table(raster) as table:
        table["Histogram"] = [5, 6, 7, 8]
        assert table["Histogram"].dtype == np.int64
        assert table["Histogram"].attrs["GDAL_USAGE"] == gdal.GFU_PixelCount
        del table["Histogram"]
        assert table["Histogram"][:].tolist() == [9, 2, 3, 4]
        with pytest.raises(BridgeError, match=r"'Histogram' belongs to the raster's own"):
            del table["Histogram"]


def test_attributes_are_saved_in_the_sidecar(raster):
    with open_table(raster) as table:
        table["area"] = [1.0, 2, 3, 4]
        table["area"].attrs["units"] = "ha"
        assert "[ha]" in repr(table)
    assert open_table(raster)["area"].attrs["units"] == "ha"
    with pytest.raises(TypeError):
        open_table(raster)["Value"].attrs["units"] = "m"


@pytest.mark.parametrize(("values", "error"), [
    (np.zeros(3), ShapeError),
    (["a", None, "b", "c"], UnsupportedDtypeError),
    (np.zeros((4, 2, 2)), ShapeError),
])  # fmt: skip
def test_what_fails_leaves_no_sidecar(raster, values, error):
    there = sorted(os.listdir(raster.parent))
    with open_table(raster) as table:
        with pytest.raises(error):
            table["new"] = values
        assert table.columns == ["Value", "Histogram", "name"]
        assert sorted(os.listdir(raster.parent)) == there
        # And the next one succeeds.
        table["new"] = [1, 2, 3, 4]
        assert table["new"][:].tolist() == [1, 2, 3, 4]


def test_a_raster_without_a_table(tmp_path):
    path = tmp_path / "plain.tif"
    make(path)
    with open_table(path) as table:
        assert table
        assert len(table) == 0
        assert table.columns == []
        table["a"] = [7, 8, 9]
        assert len(table) == 3
    assert [one.path for one in find_sidecars(path)] == [f"{path}.rat.zarr"]


def test_a_second_band_and_a_store(raster, tmp_path):
    two = tmp_path / "two.tif"
    make(two, bands=2)
    with open_table(two, 2) as table:
        table["a"] = [1, 2]
    assert [one.path for one in find_sidecars(two)] == [f"{two}.band2.rat.zarr"]
    with open_table(f"{two}.band2.rat.zarr") as store:
        store["b"] = [3, 4]
        assert store.columns == ["a", "b"]
    assert open_table(two, 2).columns == ["a", "b"]


def test_an_open_dataset(raster):
    dataset = gdal.Open(str(raster))
    with open_table(dataset) as table:
        table["x"] = [1, 2, 3, 4]
        assert table.columns == ["Value", "Histogram", "name", "x"]


def test_rows_are_added_to_the_sidecar_and_never_cut_from_the_raster(raster):
    with open_table(raster) as table:
        table["x"] = [1, 2, 3, 4]
        table.rowCount = 6
        assert len(table) == 6
        assert table["x"][:].tolist() == [1, 2, 3, 4, 0, 0]
        with pytest.raises(BridgeError, match="never cut off"):
            table.rowCount = 3


def test_a_sidecar_with_fewer_rows_than_the_raster(raster):
    with RatZarr(f"{raster}.rat.zarr", newRowCount=2) as store:
        store["x"] = [1, 2]
    with open_table(raster) as table:
        for write in (
            lambda: table.__setitem__("y", [1, 2, 3, 4]),
            lambda: table.update_from(pa.table({"row": [0], "y": [5]})),
        ):
            with pytest.raises(ShapeError, match=r"has 2 rows, and the table of .* 4"):
                write()
        table.rowCount = 4
        table["y"] = [1, 2, 3, 4]
        assert table["x"][:].tolist() == [1, 2, 0, 0]


def test_a_join_into_a_further_table(raster):
    with RatZarr(f"{raster}.rat.zarr", newRowCount=2) as store:
        store["x"] = [1, 2]
    data = pa.table({"row": [3, 0], "y": [5, 6]})
    with open_table(raster) as table:
        report = table.update_from(data, name="more")
        assert report.target == f"{raster}.more.rat.zarr"
        assert table.to_arrow(["y"])["y"].to_pylist() == [6, None, None, 5]
    with pytest.raises(BridgeError, match="is a table itself"):
        open_table(f"{raster}.rat.zarr").update_from(data, name="more")


def test_text_of_a_shorter_sidecar_is_missing_in_later_batches(tmp_path):
    path, rows = tmp_path / "seg.tif", 10_000
    own = ("own", INTEGER, 0, list(range(rows)))
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([own], rows))
    dataset = None
    texts = [f"t{number % 7}" for number in range(1500)]
    with RatZarr(f"{path}.rat.zarr") as store:
        store.setChunkSize(1000)
        store.setRowCount(len(texts))
        store.createColumn("text", str)
        store.writeBlock("text", np.array(texts, np.dtypes.StringDType()), 0)
    table = open_table(path)
    found = table.to_arrow(["text"])["text"].to_pylist()
    assert found == texts + [None] * (rows - len(texts))
    found = table.sql("SELECT text, count(own) FROM rat GROUP BY text").fetchall()
    assert dict(found) == Counter(texts) | {None: rows - len(texts)}


def test_nothing_is_written_with_update_false_or_after_close(raster):
    table = open_table(raster, update=False)
    with pytest.raises(ReadOnlyError, match="update=False"):
        table["x"] = [1, 2, 3, 4]
    with pytest.raises(ReadOnlyError):
        table.rowCount = 9
    table.close()
    table.close()
    with pytest.raises(ClosedError):
        len(table)
    assert "closed" in repr(table)
    assert os.listdir(raster.parent) == ["seg.tif"] or "seg.tif.rat.zarr" not in os.listdir(
        raster.parent
    )


def test_a_place_that_cannot_be_written_opens_and_refuses_writes(raster):
    with open_table(raster) as table:
        table["x"] = [1, 2, 3, 4]
    with web_server(raster.parent) as web:
        table = open_table(f"/vsicurl/{web.url}/seg.tif")
        assert table["Value"][:].tolist() == [0, 1, 2, 3]
        assert table["x"][:].tolist() == [1, 2, 3, 4]
        with pytest.raises(RatZarrError, match="for reading only"):
            table["x"] = [5, 6, 7, 8]
        with pytest.raises((BridgeError, RatZarrError)):
            del table["x"]
        assert table["x"][:].tolist() == [1, 2, 3, 4]


def test_an_incomplete_column_of_a_sidecar_hides_nothing(raster):
    with RatZarr(f"{raster}.rat.zarr", newRowCount=4) as sidecar:
        sidecar.createColumn("Histogram", "i4", complete=False)
    table = open_table(raster)
    with pytest.warns(LossWarning, match="not complete"):
        assert table["Histogram"][:].tolist() == [9, 2, 3, 4]


def test_missing_rasters_and_sidecars_are_named(raster, tmp_path):
    with pytest.raises(RasterNotFoundError, match=r"nowhere\.tif"):
        open_table(tmp_path / "nowhere.tif")
    with pytest.raises(BridgeError, match="'nope'"):
        open_table(raster, names=["nope"])
    with pytest.raises(BridgeError, match="prefer"):
        open_table(raster, prefer="both")


def test_what_people_see(raster):
    with open_table(raster) as table:
        table["<b>"] = ["<i>", "b", "c", "d" * 99]
        text, html = repr(table), table._repr_html_()
    assert "4 rows, 4 columns" in text
    assert "Histogram" in text
    assert "PixelCount" in text
    assert "9.0, 2.0, 3.0, 4.0" in text
    assert "&lt;b&gt;" in html
    assert "&lt;i&gt;" in html
    assert "<i>" in html
    assert "d" * 99 not in html


def test_people_see_missing_values_as_missing(raster):
    with open_table(raster) as table:
        table["code"] = [7, -1, 8, -1]
        table["code"].attrs["missing_value"] = -1
        table["pair"] = [[1, 2], [-1, 3], [4, -1], [5, 6]]
        table["pair"].attrs["missing_value"] = -1
        table["name"] = ["a", "none", "<NA>", "b"]
        table["name"].attrs["missing_value"] = "none"
        text, html = repr(table), table._repr_html_()
    assert "7, <NA>, 8, <NA>" in text
    assert "[1, 2], [<NA>, 3], [4, <NA>], [5, 6]" in text
    assert "a, <NA>, <NA>, b" in text
    assert "<td>7</td>" in html
    assert "<td>&lt;NA&gt;</td>" in html
    assert ", -1" not in text
    assert "<td>-1</td>" not in html


def test_a_query_over_the_merged_table(raster):
    with open_table(raster) as table:
        table["class"] = ["w", "f", "f", "w"]
        query = "SELECT class, sum(Histogram) FROM rat GROUP BY class ORDER BY class"
        assert table.sql(query).fetchall() == [("f", 5.0), ("w", 13.0)]


KILLED = """
import sys, numpy as np, gdalbridge
table = gdalbridge.open_table(sys.argv[1])
table["big"] = np.zeros(len(table))
print("ready", flush=True)
for k in range(1000):
    table["big"] = np.full(len(table), k + 1.0)
"""


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.35, 0.5])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_replacement_leaves_a_whole_column(tmp_path, how, seconds):
    path = tmp_path / "seg.tif"
    make(path)
    with open_table(path) as table:
        table["id"] = np.arange(300_000)
    with running([sys.executable, "-c", KILLED, path]) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert how == signal.SIGKILL or "KeyboardInterrupt" in said
    with open_table(path) as table:
        values = table["big"][:]
        assert len(values) == 300_000
        assert np.unique(values).size == 1
        if how == signal.SIGINT:
            assert not list((path.parent / "seg.tif.rat.zarr").glob("**/.pending/*"))
        table["big"] = np.ones(len(table))
        assert table["big"][-1] == 1
