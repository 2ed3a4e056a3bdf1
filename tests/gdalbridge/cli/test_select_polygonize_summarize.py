"""``gdalbridge select``, ``polygonize`` and ``summarize``, as typed."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal, ogr

from gdalbridge import build, open_table
from gdalbridge.cli import main
from tests.gdalbridge.pixel_rasters import squares, write

pytestmark = pytest.mark.main_env_only


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def segments(tmp_path):
    path = write(tmp_path / "seg.tif", squares(40, 50, size=10))
    build(path)
    with open_table(path) as table:
        table["class"] = np.where(np.arange(20) < 5, "forest", "water, deep")
        table["ndvi"] = np.arange(20) / 16
        table["height"] = np.arange(20.0)
    return path


def test_select(tmp_path, segments):
    where = "ndvi > 0.1 and class = 'forest'"
    assert run("select", segments, where) == "2\n3\n4\n"
    assert run("select", segments, where, "--count") == "3\n"
    assert run("select", segments, "ndvi > 9") == ""
    assert run("select", segments, "ndvi > 9", "--count") == "0\n"
    mask = tmp_path / "mask.tif"
    found = json.loads(run("select", segments, where, "--json", "--mask", mask))
    assert found == {
        "raster": segments, "where": where, "rows": 3, "mask": str(mask),
        "row_numbers": [2, 3, 4],
    }  # fmt: skip
    assert np.array_equal(
        gdal.Open(str(mask)).ReadAsArray(), np.isin(squares(40, 50, size=10), [2, 3, 4])
    )
    assert "--overwrite" in run("select", segments, where, "--mask", mask, code=1)
    said = run("select", segments, "height = 7", "--mask", mask, "--overwrite")
    assert said.rstrip().endswith("mask.tif: the pixels of 1 rows")
    assert gdal.Open(str(mask)).ReadAsArray().sum() == 100
    assert "ndvi" in run("select", segments, "ndv > 1", code=1)
    assert run("select", segments, "ndvi > 0", "-q") == ""


def test_polygonize(tmp_path, segments):
    out = tmp_path / "o.gpkg"
    assert "20 features of 20 polygons" in run("polygonize", segments, out)
    assert "--overwrite" in run("polygonize", segments, out, code=1)
    report = json.loads(
        run(
            "polygonize", segments, out, "--overwrite", "--json", "--where", "class = 'forest'",
            "--column", "ndvi", "--connectedness", "8",
        )
    )  # fmt: skip
    assert report["features"] == 5
    assert report["columns"] == ["part", "row", "ndvi"]
    dataset = gdal.OpenEx(str(out))
    assert [one.GetGeometryRef().GetArea() for one in dataset.GetLayer(0)] == [400.0] * 5
    assert "'6'" in run("polygonize", segments, out, "--connectedness", "6", code=2)
    assert ".gpkg" in run("polygonize", segments, tmp_path / "o.kml", code=1)


def test_summarize(segments):
    said = run("summarize", segments, "--by", "class", "--columns", "ndvi,height")
    assert said == (
        "class        rows  pixels  area (m2)  share  ndvi_mean  height_mean\n"
        "-----------  ----  ------  ---------  -----  ---------  -----------\n"
        "forest          5     500       2000   0.25      0.125            2\n"
        "water, deep    15    1500       6000   0.75       0.75           12\n"
    )
    words = ["--column", "height", "--stat", "max,min"]
    lines = list(
        csv.DictReader(io.StringIO(run("summarize", segments, "--by", "class", "--csv", *words)))
    )
    assert lines[1] == {
        "class": "water, deep", "rows": "15", "pixels": "1500", "area": "6000.0", "share": "0.75",
        "height_max": "19.0", "height_min": "5.0",
    }  # fmt: skip
    found = json.loads(run("summarize", segments, "--by", "class", "--by", "height", "--json"))
    assert found["by"] == ["class", "height"]
    assert found["area_unit"] == "m2"
    assert len(found["classes"]) == 20
    assert "can't be combined" in run(
        "summarize", segments, "--by", "class", "--csv", "--json", code=2
    )
    assert "class" in run("summarize", segments, "--by", "klass", code=1)
    assert "--by" in run("summarize", segments, code=2)


def test_a_table_without_counts_names_the_way(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 1]], "u1"))
    with open_table(path) as table:
        table["class"] = ["a", "b"]
    said = run("summarize", path, "--by", "class", code=1)
    command = said.rstrip().rpartition("gdalbridge ")[2].split()
    assert command == ["build", path, "--recount"]
    run(*command)
    assert "a         1       1" in run("summarize", path, "--by", "class")


def test_summarize_of_many_classes_and_of_text(tmp_path):
    path = write(tmp_path / "seg.tif", squares(40, 50, size=4))
    build(path)
    with open_table(path) as table:
        table["id"] = np.arange(len(table))
        table["class"] = ["a"] * len(table)
        classes = len(table)
    done = CliRunner().invoke(main, ["summarize", path, "--by", "id"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*map(str, range(50)), "...", "50"]
    assert lines[-1] == f"50 of {classes} classes"
    assert "--csv and --json print all classes" in done.stderr
    assert len(run("summarize", path, "--by", "id", "--csv").splitlines()) == classes + 1
    said = run("summarize", path, "--by", "id", "--columns", "class", code=1)
    assert "column 'class' is text, and only numbers have a mean" in said


QUIET = """
import json, sys
from click.testing import CliRunner
from gdalbridge.cli import main
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "FutureWarning" in done.output) == (0, False), (words, done.output)
"""


@pytest.mark.main_env_only
def test_no_command_shows_gdals_warning_of_a_later_version(tmp_path):
    """The warning is an error here; GDAL issues it where a module's exceptions are not set."""
    names = [str(tmp_path / name) for name in ("seg.tif", "image.tif", "plots.gpkg", "o.parquet")]
    seg, image, plots, parquet = names
    for name in (seg, image):
        write(name, np.array([[1, 1, 2]], "u1"), crs=32632)
    (tmp_path / "plots.csv").write_text("lon,lat\n9,0\n", encoding="utf-8")
    with gdal.ExceptionMgr():
        dataset = gdal.GetDriverByName("GPKG").Create(plots, 0, 0, 0, gdal.GDT_Unknown)
        system = gdal.Open(seg).GetSpatialRef()
        layer = dataset.CreateLayer("plots", system, ogr.wkbPoint)
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(ogr.CreateGeometryFromWkt("POINT (500000 0)"))
        layer.CreateFeature(feature)
        del feature, layer, dataset
    commands = [
        ["build", seg, "--area", "--bbox"], ["zonal", seg, image], ["info", seg], ["head", seg],
        ["polygonize", seg, str(tmp_path / "o.gpkg")], ["polygonize", seg, parquet],
        ["export", seg, str(tmp_path / "t.gpkg")], ["paint", seg, "area", "-o", str(tmp_path / "p.tif")],
        ["sample", seg, plots], ["sample", seg, str(tmp_path / "plots.csv")],
        ["select", seg, "area > 0", "--mask", str(tmp_path / "m.tif")],
        ["summarize", seg, "--by", "Histogram"], ["touch", seg], ["ls", seg],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", QUIET, json.dumps(commands)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
