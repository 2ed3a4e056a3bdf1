"""``gdalbridge export`` to files and ``gdalbridge import``."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

import gdalbridge
from gdalbridge.cli import main
from tests.gdalbridge.sample_rasters import INTEGER, STRING, make, new_rat


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    rat = new_rat([("Value", INTEGER, 5, [3, 1, 2]), ("s", STRING, 0, ["a", "b", "c"])], 3)
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    return path


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_export_where_and_import_back(raster, tmp_path):
    out = tmp_path / "o.csv"
    done = call("export", raster, out, "--where", "Value > 1", "--column", "s", "--rename", "s=t")
    assert done.exit_code == 0, done.output
    assert out.read_text() == '"row","t"\n0,"a"\n2,"c"\n'
    assert f"{raster} -> {out}: 2 columns of 2 rows" in done.stdout
    again = call("export", raster, out)
    assert again.exit_code == 1
    assert "already exists. Use --overwrite" in again.stderr
    done = call("import", out, raster, "--on", "row")
    assert done.exit_code == 0, done.output
    assert "rows: 2 of 3 matched, 1 missed" in done.stdout
    with gdalbridge.open_table(raster) as table:
        assert table["t"][:].tolist() == ["a", "", "c"]
    assert call("export", raster, out, "--overwrite", "--no-row", "--column", "t").exit_code == 0
    assert out.read_text() == '"t"\n"a"\n""\n"c"\n'


def test_import_by_a_column(raster, tmp_path):
    (tmp_path / "d.csv").write_text("Value,n,m,s\n2,20,200,x\n9,90,900,y\n9,90,900,y\n")
    done = call(
        "import", tmp_path / "d.csv", raster, "--on", "Value", "--columns", "n, m", "--json"
    )
    report = json.loads(done.stdout)
    assert (report["matched"], report["missed"], report["duplicates"]) == (1, 2, 1)
    assert (report["unused"], report["unused_keys"]) == (1, ["9"])
    assert report["columns"] == ["n", "m"]
    refused = call("import", tmp_path / "d.csv", raster, "--on", "Value", "--column", "m")
    assert refused.exit_code == 1
    assert "Choose others with --column" in refused.stderr
    assert "use --overwrite" in refused.stderr
    named = ("import", tmp_path / "d.csv", raster, "--on", "Value", "--column", "m", "--overwrite")
    assert call(*named, "-q").output == ""


def test_import_into_a_further_table(raster, tmp_path):
    (tmp_path / "d.csv").write_text("row,n\n0,20\n")
    done = call("import", tmp_path / "d.csv", raster, "--on", "row", "--name", "more")
    assert done.exit_code == 0, done.output
    assert [one.name for one in gdalbridge.find_sidecars(raster)] == ["more"]
    (tmp_path / "e.csv").write_text("id,m\n0,20\n")
    wrong = call("import", tmp_path / "e.csv", raster, "--on", "id")
    assert "no column 'id' to join on ('row' means the row numbers)" in wrong.stderr


def test_options_of_the_other_kind_of_output_are_refused(raster, tmp_path):
    for output, option in (
        ("o.csv", ["--cast", "a=Real"]),
        ("o.csv", ["--no-verify"]),
        ("o.tif", ["--where", "a > 1"]),
        ("o.tif", ["--row"]),
        ("o.csv", ["--rename", "a"]),
    ):
        done = call("export", raster, tmp_path / output, *option)
        assert done.exit_code == 2, (output, option)
        assert option[0] in done.stderr


def test_a_geopackage_that_is_a_raster_is_not_replaced(raster, tmp_path):
    call("copy", raster, "-q")
    out = tmp_path / "r.gpkg"
    del_me = gdal.GetDriverByName("GPKG").Create(str(out), 4, 3, 1, gdal.GDT_Byte)
    del_me.SetGeoTransform((0, 1, 0, 0, 0, -1))
    del del_me
    # Goes into the raster's own table, which GDAL does not write into a GeoPackage.
    done = call("export", raster, out)
    assert done.exit_code == 1
    assert f"{out} was not written" in done.stderr
    with pytest.raises(gdalbridge.BridgeError, match="is a raster, and is not replaced"):
        gdalbridge.export_table(raster, out, overwrite=True)
    assert gdal.Open(str(out)).RasterXSize == 4


def test_notes_and_losses_are_said(raster, tmp_path):
    with gdalbridge.open_table(raster) as table:
        table["f"] = np.array([1 / 3, np.nan, 1])
    command = [sys.executable, "-m", "gdalbridge", "export", raster, tmp_path / "o.dbf"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "note: column 'f': NaN is NULL" in done.stderr
    assert done.stderr.count("rounds it to 15 decimals") == 1
    strict = call("export", raster, tmp_path / "p.dbf", "--strict")
    assert strict.exit_code == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("p.", "."))]


def test_an_unknown_suffix_says_which_there_are(raster, tmp_path):
    with gdalbridge.open_table(raster) as table:
        table["x"] = [1, 2, 3]
    done = call("export", raster, tmp_path / "o.xlsx")
    assert done.exit_code == 1
    assert "o.xlsx" in done.stderr
    assert ".parquet, .csv, .arrow, .feather, .gpkg, .dbf, .vat.dbf" in done.stderr
