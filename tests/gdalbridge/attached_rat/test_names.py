"""Names and text that GDAL hands out, and ends the process for when it is handed them."""

import copy
import pickle
import subprocess
import sys

import pytest
from osgeo import gdal

import gdalbridge
from gdalbridge import attach
from gdalbridge.errors import ConversionError
from ratzarr import RatZarr
from tests.gdalbridge.attached_rat.test_rat import names, raster, sidecar
from tests.gdalbridge.attached_rat.test_writing import everything, stored
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, new_rat

# As a program of a Western European Windows writes it.
TABLE = """<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable tableType="thematic">
  <FieldDefn index="0"><Name>Größe</Name><Type>1</Type><Usage>5</Usage></FieldDefn>
  <FieldDefn index="1"><Name>n</Name><Type>0</Type><Usage>0</Usage></FieldDefn>
  <FieldDefn index="2"><Name>Fläche</Name><Type>2</Type><Usage>2</Usage></FieldDefn>
  <Row index="0"><F>1.5</F><F>3</F><F>größer</F></Row>
  <Row index="1"><F>2.5</F><F>4</F><F>b</F></Row>
</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"""
HALF = "n\udcf6"


@pytest.fixture
def path(tmp_path):
    found = raster(tmp_path / "a.tif")
    (tmp_path / "a.tif.aux.xml").write_bytes(TABLE.encode("latin-1"))
    return found


def test_names_that_are_not_utf8_are_as_gdal_has_them(path, tmp_path, capfd):
    before = everything(tmp_path)
    dataset = gdal.Open(path)
    theirs = dataset.GetRasterBand(1).GetDefaultRAT()
    sidecar(path, [("x", "i4", [7, 8], {}), ("n", "i4", [5, 6], {})], 2)
    with attach(path, update=True, override=True) as rat:
        assert names(rat) == [*names(theirs), "x"]
        assert [rat.GetTypeOfCol(i) for i in range(4)] == [REAL, INTEGER, STRING, INTEGER]
        for column in (0, 2):
            assert rat.ReadAsArray(column).tolist() == theirs.ReadAsArray(column).tolist()
            for row in range(2):
                for get in ("GetValueAsString", "GetValueAsDouble", "GetValueAsInt"):
                    expected = getattr(theirs, get)(row, column)
                    assert getattr(rat, get)(row, column) == expected
        assert rat.ReadAsArray(1).tolist() == [5, 6]
        assert rat.GetRowOfValue(2.5) == 1
        assert names(rat.Clone()) == ["Gr\ufffd\ufffde", "n", "Fl\ufffdche", "x"]
        rat.DumpReadable()
        assert "<F>2.5</F>" in capfd.readouterr().out
        rat.SetValueAsInt(1, 3, 80)
        rat.CreateColumn("y", INTEGER, 0)
        # No column of a sidecar can be called so: it can't be put there to be changed.
        with pytest.raises(ConversionError, match="no UTF-8"):
            rat.SetValueAsDouble(0, 0, 9.5)
        if hasattr(gdal.RasterAttributeTable, "RemoveStatistics"):
            rat.RemoveStatistics()
        assert rat.GetColumnCount() == 5
    assert stored(path, "x") == [7, 80]
    assert everything(tmp_path) == before


def test_programs_that_worked_go_on_working(path):
    with gdalbridge.enable():
        dataset = gdal.Open(path)
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
        rat.CreateColumn("area", REAL, 0)
        rat.SetValueAsDouble(1, 3, 0.5)
        assert dataset.GetRasterBand(1).SetDefaultRAT(rat) == 0
    assert stored(path, "area") == [0, 0.5]


def test_a_table_with_such_a_name_is_set_elsewhere_as_a_whole_or_not_at_all(path, tmp_path):
    other = raster(tmp_path / "b.tif")
    dataset, target = gdal.Open(path), gdal.Open(other)
    theirs = dataset.GetRasterBand(1).GetDefaultRAT()
    with gdalbridge.enable(), pytest.raises(ConversionError, match="no UTF-8"):
        target.GetRasterBand(1).SetDefaultRAT(theirs)
    assert not (tmp_path / "b.tif.rat.zarr").exists()


GIVES = """
import sys
import gdalbridge
rat = gdalbridge.attach(sys.argv[1], update=True)
rat.CreateColumn("t", 2, 0)
for call in (
    lambda: rat.CreateColumn(sys.argv[2], 0, 0),
    lambda: rat.SetValueAsString(0, 0, sys.argv[2]),
    lambda: rat.WriteArray([sys.argv[2]], 0),
):
    try:
        call()
    except gdalbridge.ConversionError as error:
        print("refused", "pair" in str(error))
rat.SetValueAsString(0, 0, "größe")
"""


def test_text_that_has_no_utf8_is_refused_and_ends_nothing(tmp_path):
    path = raster(tmp_path / "a.tif")
    with attach(path, update=True) as rat:
        rat.SetRowCount(1)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GIVES, path, HALF],
        capture_output=True, check=False, errors="surrogateescape",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "True"] * 3
    assert stored(path, "t") == ["größe"]


def test_empty_names_and_ones_that_are_taken_in_the_sidecar(tmp_path):
    path = raster(tmp_path / "a.tif", [("", INTEGER, 0, [1])], 1)
    sidecar(path, [("twice 2", "i4", [4], {"GDAL_NAME": "twice"})], 1)
    other = raster(tmp_path / "b.tif")
    with attach(path, update=True) as rat:
        rat.CreateColumn("twice 2", INTEGER, 0)
        rat.SetValueAsInt(0, 2, 5)
    assert names(attach(path)) == ["", "twice", "twice 2"]
    assert [attach(path).GetValueAsInt(0, i) for i in range(3)] == [1, 4, 5]
    with attach(other, update=True) as rat:
        rat.SetRowCount(1)
        rat.CreateColumn("", REAL, 0)
        rat.SetValueAsDouble(0, 0, 0.5)
    assert names(attach(other)) == [""]
    with RatZarr(f"{other}.rat.zarr", readOnly=True) as table:
        [name] = table.getColumnNames()
    assert stored(other, name) == [0.5]


def test_it_is_neither_copied_nor_pickled(tmp_path):
    path = raster(tmp_path / "a.tif", [("n", INTEGER, 0, [1])], 1)
    rat = attach(path)
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="Clone"):
            make(rat)
    assert names(rat.Clone()) == names(new_rat([("n", INTEGER, 0, [1])], 1))
