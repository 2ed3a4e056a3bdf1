"""``gdalbridge check``: tables of a raster, as GDAL sees them; the command and its exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

import gdalbridge
from gdalbridge import BridgeError, CancelledError, check, copy_to_sidecar
from gdalbridge.cli import main
from gdalbridge.gdalio.compat import NEW_TYPES
from ratzarr import RatZarr, TableNotFoundError
from ratzarr.maintenance.column_check import NOTES
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat

DOCUMENT = Path(__file__).parents[3] / "docs" / "checking.md"


@pytest.fixture
def raster(tmp_path):
    """A raster with tables of two bands, and their sidecars."""
    path = tmp_path / "seg.tif"
    dataset = make(path, bands=3)
    for band in (1, 3):
        rat = new_rat(
            [
                ("Value", INTEGER, 5, np.arange(30) * band),
                ("x", REAL, 0, np.arange(30) / 7),
                ("s", STRING, 0, ["ü"] * 30),
            ],
            30,
        )
        dataset.GetRasterBand(band).SetDefaultRAT(rat)
    dataset.FlushCache()
    dataset = None
    for band in (1, 3):
        copy_to_sidecar(path, band=band, chunk_rows=10)
    return path


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def contents(folder):
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def flip(path):
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(bytes(content))


def found(report):
    return [(one.kind, one.key) for one in report.findings]


def test_nothing_wrong(raster):
    reports = check(raster)
    assert [one.path for one in reports] == [f"{raster}.rat.zarr", f"{raster}.band3.rat.zarr"]
    assert [found(one) for one in reports] == [[], []]
    done = call("check", raster)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"{raster}.rat.zarr: nothing wrong", f"{raster}.band3.rat.zarr: nothing wrong",
    ]  # fmt: skip
    assert call("check", raster, "-q").output == ""


def test_damage_is_one_line_and_exit_code_1(raster):
    sidecar = f"{raster}.band3.rat.zarr"
    flip(f"{sidecar}/RAT/x/c/1")
    os.remove(f"{sidecar}/RAT/s/c/2")
    done = call("check", raster)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == f"{raster}.rat.zarr: nothing wrong"
    assert lines[1].startswith("missing: RAT/s/c/2, column 's', rows 20 to 29: ")
    assert lines[2].startswith("damaged: RAT/x/c/1, column 'x', rows 10 to 19: ")
    assert lines[3] == f"{sidecar}: 2 wrong"
    assert (call("check", raster, "-q").exit_code, call("check", raster, "-q").output) == (1, "")
    assert call("check", f"{raster}.rat.zarr").exit_code == 0
    [first, second] = json.loads(call("check", raster, "--json").output)
    assert first == {"path": f"{raster}.rat.zarr", "wrong": 0, "findings": []}
    assert second["wrong"] == 2
    assert second["findings"][1]["rows"] == [10, 20]
    assert second["findings"][1]["object"] == "RAT/x/c/1"


def test_repair_and_dry_run(raster):
    sidecar = f"{raster}.rat.zarr"
    os.makedirs(f"{sidecar}/RAT/gone/c")
    Path(f"{sidecar}/RAT/gone/c/0").write_bytes(b"anything")
    Path(f"{sidecar}/.{'0' * 32}.partial").write_bytes(b"half")
    Path(f"{sidecar}/notes.txt").write_bytes(b"precious")
    before = contents(raster.parent)
    for options in ([], ["--dry-run"], ["--repair", "--dry-run"]):
        done = call("check", sidecar, *options)
        assert done.exit_code == 1
        assert contents(raster.parent) == before
        word = "would" if options else "--repair would"
        assert f"[{word} remove them]" in done.output
        assert f"{sidecar}: 2 wrong, 1 note" in done.output
    done = call("check", sidecar, "--repair")
    assert done.exit_code == 0
    assert "[repaired: remove them]" in done.output
    assert done.output.splitlines()[-1] == f"{sidecar}: nothing wrong, 2 repaired, 1 note"
    assert contents(raster.parent) == {
        name: content
        for name, content in before.items()
        if "gone" not in name and ".partial" not in name
    }
    done = call("check", sidecar)
    assert (done.exit_code, done.output.splitlines()[0]) == (
        0, "foreign: notes.txt: does not belong to the table",
    )  # fmt: skip


def test_a_raster_that_has_changed(raster):
    make(raster, bands=3, size=(9, 9)).FlushCache()
    for table in (raster, f"{raster}.rat.zarr"):
        reports = check(table)
        assert {one.kind for one in reports[0].findings} == {"raster"}
        assert all("no longer fits" in str(one) for one in reports[0].findings)
        assert call("check", table).exit_code == 1
    assert any("9 x 9" in one.words for one in check(raster)[0].findings)
    before = contents(raster.parent)
    assert call("check", raster, "--repair").exit_code == 1
    assert contents(raster.parent) == before


def test_a_sidecar_of_another_band(raster):
    shutil.copytree(f"{raster}.rat.zarr", f"{raster}.band2.rat.zarr")
    [_, second, _] = check(raster)
    assert [(one.kind, "band 1, not 2" in one.words) for one in second.findings] == [
        ("raster", True)
    ]


def test_a_raster_that_is_not_there(raster, tmp_path):
    """A table that was moved by itself is worth a note; that a raster can't be opened is wrong."""
    moved = tmp_path / "elsewhere" / "t.rat.zarr"
    shutil.copytree(f"{raster}.rat.zarr", moved)
    [report] = check(moved)
    assert [one.kind for one in report.findings] == ["unchecked"]
    assert "not checked" in report.findings[0].words
    assert call("check", moved).exit_code == 0
    raster.write_bytes(b"no raster")
    [first, _] = check(raster)
    assert [one.kind for one in first.findings] == ["raster"]
    assert "opened" in first.findings[0].words


@pytest.mark.parametrize("value", ["seg.tif", 3, {"name": 5, "size": "x"}, [], {}], ids=repr)
def test_a_raster_attribute_that_is_none(raster, value):
    """Whatever somebody wrote there, the rest is looked at."""
    sidecar = f"{raster}.rat.zarr"
    with RatZarr(sidecar) as table:
        table.getRatAttributeMapping()["RASTER"] = value
    flip(f"{sidecar}/RAT/x/c/1")
    for table in (raster, sidecar):
        report = check(table)[0]
        kinds = [one.kind for one in report.findings]
        assert kinds[0] == "damaged"
        assert set(kinds[1:]) <= {"raster", "unchecked"}


def test_gdals_type_and_the_dtype(raster):
    sidecar = f"{raster}.rat.zarr"
    kinds = {"s": 0, "x": 5, "Value": "Real"}
    with RatZarr(sidecar) as table:
        for name, kind in kinds.items():
            table.getColumnAttributeMapping(name)["GDAL_TYPE"] = kind
        # Ones that can be: dates with offsets are text; and a type of some later GDAL.
        table.createColumn("when", str, attributes={"GDAL_TYPE": 4})
        table.createColumn("later", str, attributes={"GDAL_TYPE": 17})
        table.createColumn("a/b", "int16", attributes={"GDAL_TYPE": 5})
    [report] = check(sidecar)
    said = {one.column: one for one in report.findings}
    assert {one.kind for one in report.findings} == {"dtype"}
    assert set(said) == {*kinds, "a/b"}
    assert "can't be Integer" in said["s"].words
    assert "float64, which can't be WKBGeometry" in said["x"].words
    assert "'Real'" in said["Value"].words
    assert said["a/b"].key == "RAT/a%2Fb"
    assert report.wrong == 4


def test_an_interrupted_copy(raster, tmp_path):
    """What a copy has left is gone on with by resume, or finished where nothing is missing."""
    sidecar = f"{raster}.rat.zarr"
    with RatZarr(sidecar) as table:
        table.createColumn("y", "int32", complete=False)
        table.writeBlock("y", np.arange(10), 10)
    done = call("check", sidecar)
    assert done.exit_code == 1
    assert done.output.startswith("unfinished: RAT/y, column 'y', rows 0 to 29: ")
    assert "10 of 30 rows" in done.output
    assert "--resume" in done.output
    assert "--resume" in call("copy", "--help").output
    with RatZarr(sidecar) as table:
        assert table.resumeColumn("y") is not None
        table.getColumnAttributeMapping("y")["PROVENANCE"] = {"operation": "copy"}
        for start, stop in table.getMissingRows("y"):
            table.writeBlock("y", np.arange(start, stop), start)
    assert call("check", sidecar, "--repair").exit_code == 0
    with RatZarr(sidecar, readOnly=True) as table:
        assert table.readBlock("y", 0, 10).tolist() == list(range(10))
    assert call("check", sidecar).exit_code == 0


def test_what_can_not_be_checked(tmp_path):
    with pytest.raises(TableNotFoundError):
        check(tmp_path / "none.rat.zarr")
    with pytest.raises(BridgeError, match="no sidecar"):
        check(tmp_path / "none.tif")
    done = call("check", tmp_path / "none.tif")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no sidecar" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_s3(raster, moto_s3):
    url = moto_s3.new("seg.tif.rat.zarr")
    copy_to_sidecar(raster, url, chunk_rows=10)
    assert [one.wrong for one in check(url)] == [0]
    bad = bytearray(moto_s3.content(url, "RAT/x/c/1"))
    bad[-1] ^= 1
    moto_s3.put(url, "RAT/x/c/1", bytes(bad))
    [report] = check(url.replace("s3://", "/vsis3/"))
    assert [one for one in found(report) if one[0] != "unchecked"] == [("damaged", "RAT/x/c/1")]


def test_a_raster_on_s3_costs_gdal_three_requests(raster, counted_s3):
    place, proxy = counted_s3
    url = f"s3://{place.bucket}/seg.tif"
    for file in filter(Path.is_file, raster.parent.iterdir()):
        place.client.upload_file(str(file), place.bucket, file.name)
    copy_to_sidecar(url)
    gdal.VSICurlClearCache()
    proxy.clear()
    [report] = check(url)
    assert report.wrong == 0
    gdals = [
        "list" if "delimiter" in one.query else one.key.partition("/")[2]
        for one in proxy.requests
        if one.headers.get("user-agent", "gdal").lower().startswith("gdal")
    ]
    # Its beginning, in which all of its pixels are; and what lies beside it, which is asked for
    # again where its georeferencing is.
    # GDAL before 3.12 keeps the table in another file.
    assert gdals == ["list", "seg.tif", "list", *([] if NEW_TYPES else ["seg.tif.aux.xml"])]


def test_progress(raster):
    told = []
    check(raster, progress=lambda done, message, data: told.append(done) or 1)
    assert told == sorted(told)
    assert told[-1] == 1
    with pytest.raises(CancelledError):
        check(raster, progress=lambda done, message, data: 0)


def test_the_command_as_a_process(raster):
    done = subprocess.run(
        [sys.executable, "-m", "gdalbridge", "check", f"{raster}.rat.zarr"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{raster}.rat.zarr: nothing wrong\n"


def test_without_gdal(raster):
    """A store is checked where there is no GDAL; what could not be looked at is said."""
    code = """
import sys
sys.modules["osgeo"] = None
from gdalbridge import check
for one in check(sys.argv[1])[0].findings:
    print(one.kind, one.words)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"{raster}.rat.zarr"],
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = done.stdout.splitlines()
    assert line.startswith("unchecked whether the table still fits its raster was not checked")


def test_the_guide_names_every_kind():
    from typing import get_args

    from ratzarr.maintenance.column_check import Kind

    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == set(get_args(Kind))
    for row in rows:
        assert ("note" in row.split("|")[2]) == (row.split("`")[1] in NOTES), row
    assert gdalbridge.check.__doc__
