"""The command, as users run it: real processes for what matters, in-process for the rest."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from gdalbridge.cli import COMMANDS, main
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, describe_band, make, new_rat


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path, bands=3)
    for band in (1, 3):
        rat = new_rat(
            [("Value", INTEGER, 5, np.arange(30) * band), ("s", STRING, 0, ["ü"] * 30)], 30
        )
        dataset.GetRasterBand(band).SetDefaultRAT(rat)
    return path


def process(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gdalbridge", *map(str, args)],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_copy_says_what_it_did_and_makes_the_sidecar(raster):
    done = process("copy", raster)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{raster} -> {raster}.rat.zarr: 2 columns of 30 rows" in done.stdout
    with RatZarr(f"{raster}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("Value", 0, 30).tolist() == list(range(30))
        # The log has the command as it was given.
        assert table.getModificationLog("Value")[0][2][1:] == ["copy", str(raster)]


def test_copy_from_s3_to_s3_with_nothing_but_the_aws_variables(raster, moto_s3):
    import boto3

    for name in raster.parent.iterdir():
        boto3.client("s3").upload_file(str(name), moto_s3.bucket, f"dir/{name.name}")
    done = process("copy", f"/vsis3/{moto_s3.bucket}/dir/seg.tif")
    assert (done.returncode, done.stderr) == (0, "")
    url = f"s3://{moto_s3.bucket}/dir/seg.tif.rat.zarr"
    assert f"-> {url}: 2 columns of 30 rows" in done.stdout
    with RatZarr(url, readOnly=True) as table:
        assert table.readBlock("Value", 0, 30).tolist() == list(range(30))
    shown = process("head", f"s3://{moto_s3.bucket}/dir/seg.tif", "--rows", 2)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "rows 0 to 1 of 30" in shown.stdout


def test_the_same_with_gdals_own_variables(raster, moto_s3, monkeypatch):
    import boto3

    for name in raster.parent.iterdir():
        boto3.client("s3").upload_file(str(name), moto_s3.bucket, name.name)
    host = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    gdals = {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    done = process("copy", f"s3://{moto_s3.bucket}/seg.tif", **gdals)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_existing_output_is_refused(raster):
    assert call("copy", raster, "-q").exit_code == 0
    again = call("copy", raster)
    assert again.exit_code == 1
    assert "already exists. Use --overwrite" in again.stderr
    assert call("copy", raster, "--overwrite").exit_code == 0


def test_options_stand_anywhere(raster, tmp_path):
    out = tmp_path / "out.rat.zarr"
    assert call("copy", "--column", "s", raster, "--chunk-rows", 7, out, "-q").output == ""
    with RatZarr(out, readOnly=True) as table:
        assert table.getColumnNames() == ["s"]
        assert table.getColumnChunkSize("s") == 7


def test_all_bands(raster, tmp_path):
    found = json.loads(call("copy", raster, "--all-bands", "--json").output)
    assert [one["target"] for one in found] == [f"{raster}.rat.zarr", f"{raster}.band3.rat.zarr"]
    assert call("copy", raster, "x.rat.zarr", "--all-bands").exit_code == 2
    make(tmp_path / "none.tif")
    failed = call("copy", tmp_path / "none.tif", "--all-bands")
    assert failed.exit_code == 1
    assert "has no attribute table" in failed.stderr


def test_json_of_copy(raster):
    [found] = json.loads(call("copy", raster, "--json").output)
    assert found["rows"] == 30
    assert found["columns"][0] == {
        "name": "Value", "dtype": "int32", "gdal_type": "Integer", "usage": "MinMax",
    }  # fmt: skip


def test_export(raster, tmp_path):
    call("copy", raster, "--band", 3, "-q")
    out = tmp_path / "out.tif"
    make(out).FlushCache()
    done = call("export", f"{raster}.band3.rat.zarr", out)
    assert done.exit_code == 0, done.stderr
    assert describe_band(out)["columns"] == describe_band(raster, 3)["columns"]
    # From a raster: the sidecar beside it.
    again = tmp_path / "again.tif"
    make(again, bands=3).FlushCache()
    assert call("export", raster, again, "--band", 3).exit_code == 0
    assert describe_band(again, 3)["columns"] == describe_band(raster, 3)["columns"]


def test_export_with_casts(raster, tmp_path):
    call("copy", raster, "-q")
    out = tmp_path / "out.tif"
    make(out).FlushCache()
    assert call("export", raster, out, "--cast", "Value=Real").exit_code == 0
    assert describe_band(out)["columns"][0][1] == REAL
    bad = call("export", raster, out, "--cast", "Value")
    assert bad.exit_code == 2
    assert "expected COLUMN=TYPE" in bad.stderr


def test_info_of_a_raster_and_of_a_sidecar(raster):
    call("copy", raster, "-q")
    found = json.loads(call("info", raster, "--json").output)
    assert [table["band"] for table in found["tables"]] == [1, 3]
    assert [one["path"] for one in found["sidecars"]] == [f"{raster}.rat.zarr"]
    alone = json.loads(call("info", f"{raster}.rat.zarr", "--json").output)["sidecar"]
    assert alone["rows"] == 30
    assert [column["name"] for column in alone["columns"]] == ["Value", "s"]
    text = call("info", raster).output
    assert "band 3: 30 rows in the raster itself" in text
    assert "MinMax" in text


def test_info_says_what_is_not_complete(raster):
    call("copy", raster, "-q")
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.createColumn("half", "f4", complete=False)
    assert "incomplete: 0 rows are written" in call("info", raster).output


def test_head_of_a_sidecar_and_of_a_raster_without_one(raster):
    own = json.loads(call("head", raster, "--rows", 3, "--from", 2, "--json").output)
    assert own["columns"] == {"Value": [2, 3, 4], "s": ["ü"] * 3}
    call("copy", raster, "-q")
    beside = json.loads(call("head", raster, "--rows", 3, "--from", 2, "--json").output)
    assert beside["columns"] == own["columns"]
    assert own["table"] == beside["table"] == str(raster)
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.createColumn("more", "f4")
    merged = json.loads(call("head", raster, "--rows", 2, "--json").output)
    assert merged["columns"] == {"Value": [0, 1], "s": ["ü"] * 2, "more": [0, 0]}
    assert "rows 29 to 29 of 30" in call("head", raster, "--from", 29).output
    assert call("head", raster, "--from", 500).exit_code == 0


def test_head_shows_control_characters_and_long_text_safely(tmp_path):
    store = tmp_path / "t.rat.zarr"
    with RatZarr(store) as table:
        table.setRowCount(2)
        table.createColumn("\x1b[31mred", str)
        table.writeBlock("\x1b[31mred", ["a\nb", "x" * 100], 0)
    text = call("head", store).output
    assert "\x1b" not in text
    assert "a\\nb" in text
    assert "..." in text


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_of_every_command(command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert "Usage:" in done.output
    if command != "demo":
        assert "Examples:" in done.output


@pytest.mark.parametrize(
    "args",
    [["nonsense"], ["copy"], ["copy", "x.tif", "--band", "0"], ["head", "x", "--rows", "a"]],
)
def test_wrong_usage_is_2(args):
    assert call(*args).exit_code == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["copy", "no-such.tif"], "no-such.tif can't be opened"),
        (["info", "no-such.rat.zarr"], "there is no RatZarr at"),
        (["head", "no-such.tif"], "no-such.tif can't be opened"),
        (["export", "no-such.rat.zarr", "x.tif"], "there is no RatZarr at"),
        (["copy", "s3://no-such-bucket-of-ours/x.tif"], "can't be opened"),
    ],
)
def test_errors_in_words(args, words, moto_s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = process(*args)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_demo(tmp_path):
    done = process("demo", "--keep", tmp_path / "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1792 cells, and compared with what GDAL reads from the raster: equal." in done.stdout
    assert (tmp_path / "demo" / "lc.tif.rat.zarr").is_dir()
    again = process("demo", "--keep", tmp_path / "demo")
    assert again.returncode == 1
    assert "already exists" in again.stderr


def test_doctor(moto_s3):
    done = call("doctor", f"s3://{moto_s3.bucket}", "--json")
    assert done.exception is None
    found = json.loads(done.output)
    assert found["problems"] == []
    assert done.exit_code == 0
    assert found["s3"]["endpoint"] == os.environ["AWS_ENDPOINT_URL"]
    assert found["s3_in_gdal"]["AWS_S3_ENDPOINT"] in os.environ["AWS_ENDPOINT_URL"]
    assert found["asked"]["gdal_sees_bucket"] is True
    assert found["drivers"]["GTiff"] is True
    text = call("doctor").output
    assert "no problems found" in text
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in text + done.output


def test_doctor_says_what_is_wrong(moto_s3):
    done = call("doctor", "s3://no-such-bucket-of-ours/x")
    assert done.exit_code == 1
    assert "the bucket 'no-such-bucket-of-ours' does not exist" in done.output
