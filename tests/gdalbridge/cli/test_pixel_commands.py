"""paint and sample on the command line."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

from gdalbridge import open_table
from gdalbridge.cli import main
from tests.gdalbridge.pixel_rasters import write

pytestmark = pytest.mark.main_env_only


@pytest.fixture
def raster(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 2], [2, 2, 9]], "u1"))
    with open_table(path) as table:
        table["ndvi"] = [0.25, 0.5, np.nan]
        table["class"] = ["", "wood, old", "lake"]
    return path


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_paint_as_a_process(raster, tmp_path):
    out, picture = tmp_path / "out.tif", tmp_path / "out.png"
    done = subprocess.run(
        [sys.executable, "-m", "gdalbridge", "paint", raster, "ndvi", "-o", str(out),
         "--png", str(picture), "--where", "ndvi < 0.6"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{raster}, ndvi -> {out} (GTiff, 3 x 2 pixels, 1 band of float64)" in done.stdout
    assert "4 of 6 pixels have no value" in done.stdout
    found = gdal.Open(str(out)).ReadAsArray()
    assert np.array_equal(found[0, :2], [0.25, 0.5])
    assert np.isnan(found.reshape(-1)[2:]).all()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_no_output_is_written_if_the_other_one_cannot_be(raster, tmp_path):
    out, there = tmp_path / "out.tif", tmp_path / "there.png"
    there.write_bytes(b"a")
    for code, *more in ((2, "map.tif"), (1, there), (1, "new.png", "--limits", 2, 1)):
        done = call("paint", raster, "ndvi", "-o", out, "--png", *more)
        assert done.exit_code == code, done.output
        assert str(more[-1]) in done.stderr.replace("\n", "")
        assert not out.exists()
    assert there.read_bytes() == b"a"


def test_describe_is_quiet(raster):
    done = call("describe", raster, "-q")
    assert (done.exit_code, done.output) == (0, "")


def test_a_name_twice_in_one_option(raster, tmp_path):
    for command, option, first, second in (
        ("export", "--rename", "ndvi=a", "ndvi=b"),
        ("bake", "--cast", "ndvi=Real", "ndvi=Integer"),
        ("calc", "--dtype", "ndvi=int8", "ndvi=int16"),
    ):
        more = ["--out", "ndvi", "1"] if command == "calc" else [tmp_path / "out.csv"]
        done = call(command, raster, *more, option, first, option, second)
        assert done.exit_code == 2
        assert f"Invalid value for '{option}': 'ndvi' is given twice" in done.stderr


def test_paint_with_options_and_json(raster, tmp_path):
    done = call("paint", raster, "class", "-o", tmp_path / "out.tif", "--json", "--of", "COG")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["classes"], report["format"], report["nodata"]) == (2, "COG", 0)
    assert call("paint", raster, "ndvi", "-o", tmp_path / "out.tif").exit_code == 1
    done = call("paint", raster, "ndvi", "-o", tmp_path / "out.tif", "--overwrite", "--nodata", "-1",
                "--window", 1, 0, 2, 1, "-q")  # fmt: skip
    assert (done.exit_code, done.output) == (0, "")
    found = gdal.Open(str(tmp_path / "out.tif"))
    assert found.ReadAsArray()[0, 0] == 0.5
    assert found.GetRasterBand(1).GetNoDataValue() == -1
    for wrong in (["ndvi"], ["-o", "x.tif"], ["ndvi", "--colors", "-o", "x.tif"],
                  ["ndvi", "-o", "x.tif", "--nodata", "a"], ["ndvi", "--png", "x.tif"],
                  ["ndvi", "-o", "x.tif", "--limits", 0, 1]):  # fmt: skip
        assert call("paint", raster, *wrong).exit_code == 2, wrong
    assert call("paint", raster, "--colors", "-o", tmp_path / "x.tif").exit_code == 1


def test_sample_of_coordinates(raster):
    done = call("sample", raster, 502, 899)
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["x", "502"], ["y", "899"], ["row", "1"], ["value", "1"], ["ndvi", "0.5"],
        ["class", "wood,", "old"],
    ]  # fmt: skip
    done = call("sample", raster, 502, 899, -7.5, -1e3, 504, 899.5, 504, 897, "--json")
    records = json.loads(done.stdout)
    assert [one["row"] for one in records] == [1, None, 2, None]
    assert [one["value"] for one in records] == [1, None, 2, 9]
    assert (records[1]["x"], records[1]["y"], records[2]["ndvi"]) == (-7.5, -1000, "nan")
    done = call("sample", raster, 502, 899, 0, 0, 501, 899, 503, 899, "--column", "class")
    assert done.stdout.splitlines()[0].split() == ["x", "y", "row", "value", "class"]
    assert len(done.stdout.splitlines()) == 6


def test_sample_sends_no_control_characters_to_a_terminal(raster):
    with open_table(raster) as table:
        table["\x1b[31mred"] = ["", "\x1b]0;title\x07", ""]
    for points in ([502, 899], [502, 899, 0, 0, 501, 899, 503, 899]):
        done = call("sample", raster, *points)
        assert done.exit_code == 0
        assert "\x1b" not in done.stdout
        assert "]0;title" in done.stdout


def test_sample_of_a_file_to_csv(raster, tmp_path):
    (tmp_path / "points.csv").write_text("x,y\n503,899\n,\n505,899\n")
    done = call("sample", raster, tmp_path / "points.csv", "--csv")
    assert done.exit_code == 0
    assert "columns 'x' and 'y'" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(one["x"], one["row"], one["class"]) for one in rows] == [
        ("503", "1", "wood, old"), ("", "", ""), ("505", "2", "lake"),
    ]  # fmt: skip


def test_sample_keeps_every_column(raster, tmp_path):
    with open_table(raster) as table:
        table["x"] = [1.5, 2.5, 3.5]
    (tmp_path / "plots.csv").write_text("x,y,plot,class\n503,899,p1,A\n")
    done = call("sample", raster, tmp_path / "plots.csv", "--csv")
    assert done.exit_code == 0, done.output
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["_x", "y", "plot", "_class", "row", "value", "ndvi", "class", "x"]
    assert rows[1] == ["503", "899", "p1", "A", "1", "1", "0.5", "wood, old", "2.5"]
    assert (
        done.stderr.count("columns of the same names as the points: class is _class, x is _x") == 1
    )
    done = call("sample", raster, 503, 899, "--json")
    (record,) = json.loads(done.stdout)
    assert (record["_x"], record["y"], record["x"]) == (503, 899, 2.5)


def test_sample_says_that_all_points_are_elsewhere(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"), crs=32632)
    with open_table(path) as table:
        table["n"] = [1, 2]
    done = call("sample", path, 9.1, 48.2)
    assert done.exit_code == 0
    assert "WGS 84 / UTM zone 32N (EPSG:32632); --crs names that of the points" in done.stderr
    assert "note" not in call("sample", path, 9.1, 48.2, 501, 899).stderr


def test_wrong_usage_of_sample(raster, tmp_path):
    for wrong in ([], [1], [1, 2, 3], [1, "b"], ["a.csv", "b.csv"], [1, 2, "--cvs"], [1, 2, "-z"],
                  [1, 2, "--csv", "--json"]):  # fmt: skip
        assert call("sample", raster, *wrong).exit_code == 2, wrong
    assert call("sample", raster, tmp_path / "none.gpkg").exit_code == 1
