"""``gdalbridge bake``: a raster whose ordinary table holds the sidecars' columns, for GDAL alone."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal, osr

from gdalbridge import (
    BridgeError,
    CancelledError,
    ConversionError,
    LossWarning,
    bake,
    copy_to_raster,
    copy_to_sidecar,
    enable,
    open_table,
)
from gdalbridge.cli import main
from gdalbridge.errors import ColumnSelectionError, NotWrittenError, OutputExistsError
from ratzarr import RatZarr
from tests.gdalbridge.dbf_files import write_dbf
from tests.gdalbridge.sample_rasters import (
    HAS_HFA,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    VERSION,
    all_kinds,
    describe_band,
    make,
    new_rat,
)
from tests.processes import LIMIT

ROOT = Path(__file__).parents[3]
ROWS = 30
GUIDE = (ROOT / "docs" / "bake.md").read_text(encoding="utf-8")


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def contents(folder):
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def column(path, name, band=1):
    """Read a column with GDAL alone."""
    dataset = gdal.Open(str(path))
    rat = dataset.GetRasterBand(band).GetDefaultRAT()
    [index] = [i for i in range(rat.GetColumnCount()) if rat.GetNameOfCol(i) == name]
    rows = range(rat.GetRowCount())
    if rat.GetTypeOfCol(index) == STRING:
        return [rat.GetValueAsString(row, index) for row in rows]
    if rat.GetTypeOfCol(index) == INTEGER:
        return [rat.GetValueAsInt(row, index) for row in rows]
    return [rat.GetValueAsDouble(row, index) for row in rows]


def names(path, band=1):
    return [one[0] for one in describe_band(path, band)["columns"]]


def test_tables_of_different_rows_are_named_with_a_way_out(tmp_path):
    path, out = tmp_path / "seg.tif", tmp_path / "out.tif"
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("own", INTEGER, 0, [1, 2, 3])], 3))
    dataset = None
    with RatZarr(f"{path}.rat.zarr", newRowCount=2) as table:
        table["x"] = [1, 2]
    done = call("bake", path, out)
    assert done.exit_code == 1
    assert f"{path} has a table of 3 rows, and {path}.rat.zarr has 2 rows." in done.stderr
    assert "Choose columns of one of them with --column" in done.stderr
    assert call("bake", path, out, "--column", "x").exit_code == 0
    assert column(out, "x") == [1, 2]


@pytest.fixture
def raster(tmp_path):
    """A raster of two bands; the first has a table, and one beside it; the second only beside."""
    path = tmp_path / "in" / "seg.tif"
    path.parent.mkdir()
    dataset = make(path, bands=2, size=(8, 8))
    dataset.GetRasterBand(1).WriteArray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    rat = new_rat(
        [("Value", INTEGER, 5, np.arange(ROWS)), ("old", INTEGER, 0, np.arange(ROWS) * 2)], ROWS
    )
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset, rat
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setChunkSize(10)
        table.setRowCount(ROWS)
        table.createColumn("area", np.float64)
        table.createColumn("class", str)
        table.createColumn("old", np.int16)
        table.createColumn("big", np.int64)
        table.writeBlock("area", np.arange(ROWS) / 4, 0)
        table.writeBlock("class", np.array([f"größe {i}" for i in range(ROWS)]), 0)
        table.writeBlock("old", np.arange(ROWS) * 3, 0)
        table.writeBlock("big", np.arange(ROWS) + 7, 0)
    with RatZarr(f"{path}.band2.rat.zarr") as table:
        table.setRowCount(5)
        table.createColumn("n", np.int32)
        table.writeBlock("n", np.arange(5) * 11, 0)
    return path


OUTPUTS = ["out.tif", "out.vrt"] + ["out.img"] * HAS_HFA


@pytest.mark.parametrize("name", OUTPUTS)
def test_gdal_alone_reads_all_columns(raster, tmp_path, name):
    before = contents(raster.parent)
    out = tmp_path / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        report = bake(raster, out, cast={"big": "Integer"})
    hfas = {
        "the table's type was not kept",
        "the usage of column 'Value' became Generic, it was MinMax",
    }
    assert set(report.losses) == (hfas if name.endswith(".img") else set())
    assert contents(raster.parent) == before
    assert set(names(out)) == {"Value", "area", "class", "old", "big"}
    assert column(out, "Value") == list(range(ROWS))
    assert column(out, "area") == [i / 4 for i in range(ROWS)]
    assert column(out, "class") == [f"größe {i}" for i in range(ROWS)]
    # The sidecar's, not the raster's own.
    assert column(out, "old") == [i * 3 for i in range(ROWS)]
    assert column(out, "big") == [i + 7 for i in range(ROWS)]
    assert column(out, "n", band=2) == [i * 11 for i in range(5)]
    assert report.rows == {1: ROWS, 2: 5}
    pixels = gdal.Open(str(out)).ReadAsArray()
    assert (pixels == gdal.Open(str(raster)).ReadAsArray()).all()
    # And nothing else is left in the directory.
    left = {one.name for one in tmp_path.iterdir()} - {"in"}
    assert left - {f"{name}.aux.xml"} == {name}


def test_a_cloud_optimised_one(raster, tmp_path):
    done = call("bake", raster, tmp_path / "c.tif", "--of", "COG", "--column", "area", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["bands"] == {"1": ["area"]}
    opened = gdal.Open(str(tmp_path / "c.tif"))
    assert opened.GetMetadataItem("LAYOUT", "IMAGE_STRUCTURE") == "COG"
    assert column(tmp_path / "c.tif", "area") == [i / 4 for i in range(ROWS)]


def test_a_small_vrt_beside_it(raster):
    pixels = raster.read_bytes()
    done = call("bake", raster, "--vrt", "--cast", "big=Real")
    assert (done.exit_code, done.stderr) == (0, "")
    vrt = f"{raster}.vrt"
    assert column(vrt, "big") == [float(i + 7) for i in range(ROWS)]
    assert column(vrt, "Value") == list(range(ROWS))
    # It can be moved with its raster: it names it from where it lies.
    assert ">seg.tif<" in Path(vrt).read_text(encoding="utf-8")
    assert raster.read_bytes() == pixels
    assert call("bake", raster).exit_code == 2
    with pytest.raises(BridgeError, match="name an output"):
        bake(raster)


def test_a_second_column_of_a_name_stays_beside_the_sidecars(tmp_path):
    path, out = tmp_path / "seg.tif", tmp_path / "out.tif"
    twice = [("x", INTEGER, 0, [10, 11]), ("x", INTEGER, 0, [20, 21]), ("y", INTEGER, 0, [0, 1])]
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(twice, 2))
    del dataset
    with RatZarr(f"{path}.rat.zarr", newRowCount=2) as table:
        table["x"] = np.array([7, 8], "i4")
    bake(path, out)
    with open_table(path) as table:
        expected = {name: table[name][:].tolist() for name in table}
    assert expected == {name: column(out, name) for name in names(out)}
    assert expected == {"x": [7, 8], "x 2": [20, 21], "y": [0, 1]}


def test_chosen_columns(raster, tmp_path):
    out = tmp_path / "out.tif"
    bake(raster, out, columns=["class", "Value"], band=1)
    assert names(out) == ["Value", "class"]
    # Of the second band there is none then.
    opened = gdal.Open(str(out))
    assert opened.GetRasterBand(2).GetDefaultRAT() is None
    with pytest.raises(ColumnSelectionError, match="have a column 'nope'"):
        bake(raster, tmp_path / "x.tif", columns=["area", "nope"])
    with pytest.raises(ColumnSelectionError, match="the string 'area'"):
        bake(raster, tmp_path / "x.tif", columns="area")
    with pytest.raises(ColumnSelectionError, match="cast: no column 'Value'"):
        bake(raster, tmp_path / "x.tif", cast={"Value": "Real"})
    assert not (tmp_path / "x.tif").exists()


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_gdal_can_not_hold_is_refused(raster, tmp_path, name):
    out = tmp_path / name
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.writeBlock("big", [2**40], 17)
        table.createColumn("wide", np.int8, 3)
    with pytest.raises(ConversionError, match="'wide' has 3 values per row"):
        bake(raster, out)
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.deleteColumn("wide")
    with pytest.raises(ConversionError, match=r"'big'.*row 17.*1099511627776"):
        bake(raster, out, cast={"big": "Integer"})
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.writeBlock("big", [24], 17)
        table.createColumn("half", np.int32, complete=False)
    with pytest.raises(NotWrittenError, match="'half' is left out: it is not complete"):
        bake(raster, out, strict=True)
    # HFA loses other things too.
    with pytest.warns(LossWarning) as said:
        assert "half" not in bake(raster, out).bands[1]
    assert any("'half' is left out: it is not complete" in str(one.message) for one in said)


def test_losses_are_said_or_refused(raster, tmp_path):
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.writeBlock("area", [1 / 3 + 2**-54], 3)
        table.writeBlock("class", [" leading"], 4)
    out = tmp_path / "out.tif"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", LossWarning)
        report = bake(raster, out, columns=["area", "class"])
    assert [str(one.message) for one in said] == [f"{out}: {loss}" for loss in report.losses]
    assert any("'class', row 4:  leading became leading" in loss for loss in report.losses)
    assert any("'area', row 3:" in loss for loss in report.losses)
    assert len(report.losses) == 2
    out.unlink()
    for extra in tmp_path.glob("out.tif.*"):
        extra.unlink()
    with pytest.raises(NotWrittenError, match="'class', row 4"):
        bake(raster, out, columns=["area", "class"], strict=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_numbers_that_gdal_reads_otherwise_from_xml_are_losses(raster, tmp_path):
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.writeBlock("area", [1.7976931348623157e308], 3)
    out = tmp_path / "out.tif"
    with pytest.warns(LossWarning):
        report = bake(raster, out, columns=["area"])
    assert report.losses == ("column 'area', row 3: 1.7976931348623157e+308 became inf",)
    with pytest.raises(NotWrittenError, match="was not written: column 'area', row 3"):
        bake(raster, out, columns=["area"], strict=True, overwrite=True)


def test_every_type_of_gdals_own(tmp_path):
    """A table of the raster's own, of all types, is the same in the copy but for what is said."""
    path, out = tmp_path / "in.tif", tmp_path / "out.vrt"
    columns = [
        one
        for one in all_kinds()
        if one[1] in (INTEGER, STRING) or (one[1] > STRING and NEW_TYPES)
    ]
    columns = [one for one in columns if one[0] not in ("Name", "mixed") and one[0] != ""]
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 7))
    del dataset
    bake(path, out, native=True)
    assert describe_band(out) == describe_band(path)


def test_tables_that_do_not_fit_together(raster, tmp_path):
    out = tmp_path / "out.tif"
    with RatZarr(f"{raster}.more.rat.zarr") as table:
        table.setRowCount(ROWS)
        table.createColumn("area", np.int8)
    with pytest.raises(BridgeError, match="both have a column 'area'"):
        bake(raster, out)
    bake(raster, out, sidecars=[f"{raster}.more.rat.zarr"])
    assert names(out) == ["Value", "old", "area"]
    with RatZarr(f"{raster}.more.rat.zarr") as table:
        table.setRowCount(7)
    with pytest.raises(BridgeError, match=r"30 rows, and .* has 7 rows"):
        bake(raster, tmp_path / "x.tif", sidecars=[f"{raster}.more.rat.zarr"])
    bake(raster, tmp_path / "y.tif", sidecars=[f"{raster}.more.rat.zarr"], columns=["area"])
    assert describe_band(tmp_path / "y.tif")["rows"] == 7
    with pytest.raises(BridgeError, match="has no sidecar"):
        bake(raster, tmp_path / "x.tif", sidecars=[out])


def test_what_is_there_already_is_kept(raster, tmp_path):
    out = tmp_path / "out.tif"
    for there in (out, Path(f"{out}.aux.xml"), Path(f"{out}.ovr")):
        there.write_bytes(b"there before")
        with pytest.raises(OutputExistsError, match=re.escape(str(there))):
            bake(raster, out, columns=["area"])
        assert there.read_bytes() == b"there before"
        done = call("bake", raster, out, "--column", "area", "--overwrite", "-q")
        assert (done.exit_code, done.output) == (0, "")
        assert names(out) == ["area"]
        for left in tmp_path.glob("out.tif*"):
            assert left.read_bytes() != b"there before"
            left.unlink()
    for target, words in (
        (raster, "belongs to the raster"),
        (tmp_path / "x.unknown", "unknown file extension"),
        ("s3://bucket/x.vrt", "local disk"),
        (tmp_path / "none" / "x.tif", "no directory"),
    ):
        with pytest.raises(BridgeError, match=words):
            bake(raster, target, overwrite=True)
    with pytest.raises(BridgeError, match="no driver 'Nope'"):
        bake(raster, out, format="Nope")
    with pytest.raises(BridgeError, match="band 3 has no table"):
        bake(raster, out, band=3)


def test_cancelled_it_leaves_nothing(raster, tmp_path):
    for after in (0.0, 0.2, 0.35, 0.8):
        with pytest.raises(CancelledError):
            bake(raster, tmp_path / "out.tif", progress=lambda done, m, d, a=after: done < a)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_from_s3(raster, tmp_path, moto_s3):
    for name, content in contents(raster.parent).items():
        key = os.path.relpath(name, raster.parent)
        moto_s3.client.put_object(Bucket=moto_s3.bucket, Key=f"d/{key}", Body=content)
    out = tmp_path / "out.tif"
    bake(f"s3://{moto_s3.bucket}/d/seg.tif", out)
    assert column(out, "big") == [i + 7 for i in range(ROWS)]
    assert column(out, "Value") == list(range(ROWS))


def test_where_scripts_get_attached_tables_it_reads_the_rasters_own(raster, tmp_path):
    with enable():
        report = bake(raster, tmp_path / "out.tif")
    assert report.bands == bake(raster, tmp_path / "again.tif").bands
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "again.tif").read_bytes()


def test_a_large_table_is_whole(tmp_path):
    """More than a million cells: beyond that some of GDAL's ways of copying a table drop it."""
    path, out = tmp_path / "in.tif", tmp_path / "out.tif"
    make(path).FlushCache()
    rows = 510_000
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(rows)
        for name in ("a", "b"):
            table.createColumn(name, np.int32)
        table.writeBlock("a", np.arange(rows), 0)
        table.writeBlock("b", rows - np.arange(rows), 0)
    bake(path, out)
    dataset = gdal.Open(str(out))
    opened = dataset.GetRasterBand(1).GetDefaultRAT()
    assert (opened.GetRowCount(), opened.GetColumnCount()) == (rows, 2)
    assert (opened.ReadAsArray(1) == rows - np.arange(rows)).all()


@pytest.mark.skipif(VERSION < (3, 13), reason="the step 'external' is of GDAL 3.13 and later")
def test_the_guides_pipeline(raster, tmp_path, monkeypatch):
    """The example of docs/bake.md, run as it is printed (by the bindings: the wheel has no gdal)."""
    [printed] = re.findall(r"^gdal raster pipeline .*", GUIDE, re.MULTILINE)
    config, arguments = shlex.split(printed)[3:5], shlex.split(printed)[5:]
    assert config == ["--config", "GDAL_ENABLE_EXTERNAL=YES"]
    monkeypatch.chdir(raster.parent)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with gdal.config_option(*config[1].split("=")), gdal.ExceptionMgr():
        raster_commands = gdal.GetGlobalAlgorithmRegistry()["raster"]
        pipeline = raster_commands.InstantiateSubAlgorithm("pipeline")
        assert pipeline.ParseCommandLineArguments(arguments)
        assert pipeline.Run()
        assert pipeline.Finalize()
    written = raster.parent / arguments[-1]
    assert set(names(written)) == {"Value", "area", "class", "old", "big"}
    assert column(written, "class") == [f"größe {i}" for i in range(ROWS)]
    assert column(written, "n", band=2) == [i * 11 for i in range(5)]


def test_a_copied_table_comes_back_the_same(nlcd, tmp_path):
    """A real raster's table, through its sidecar, and into a raster again."""
    copy_to_sidecar(nlcd)
    out = tmp_path / "out.tif"
    done = subprocess.run(
        [sys.executable, "-m", "gdalbridge", "bake", nlcd, out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    before, after = describe_band(nlcd), describe_band(out)
    assert sorted(after["columns"]) == sorted(before["columns"])
    assert after["rows"] == before["rows"]


def test_the_copys_reals(raster, tmp_path):
    """Doubles that a format can hold are the same bit for bit."""
    assert REAL == 1
    bake(raster, tmp_path / "o.tif", columns=["area"], strict=True)
    assert column(tmp_path / "o.tif", "area") == [i / 4 for i in range(ROWS)]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_nan_with_a_sign_stays_a_nan(raster, tmp_path, name):
    """GDAL writes it to XML as -nan, which its versions from 3.13 read as 0."""
    values = np.array([0.5, -np.nan, np.nan, -0.0])
    assert np.signbit(values).tolist() == [False, True, False, True]
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.writeBlock("area", values, 0)
    out = tmp_path / name
    for native in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LossWarning)
            report = bake(raster, out, columns=["area"], native=native, overwrite=True)
        found = np.array(column(out, "area")[:4])
        assert np.isnan(found).tolist() == [False, True, True, False]
        assert found[0] == 0.5
        if name != "out.img":
            assert report.losses == ("column 'area', row 1: -nan became nan",)
            assert (tmp_path / "out.tif.aux.xml").exists() or name == "out.vrt" or native
        assert np.signbit(found).tolist() == [False, name == "out.img", False, True]
    if name != "out.img":
        with pytest.raises(NotWrittenError, match="'area', row 1: -nan became nan"):
            bake(raster, out, columns=["area"], overwrite=True, strict=True)


# ---- killed, or refused


@pytest.fixture
def large(tmp_path):
    """A raster whose copy takes a moment."""
    path = tmp_path / "large.tif"
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), 4000, 4000, 1, gdal.GDT_UInt16)
    dataset.GetRasterBand(1).WriteArray(
        np.random.default_rng(1).integers(0, 60000, (4000, 4000)).astype("u2")
    )
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("Value", INTEGER, 5, np.arange(9))], 9))
    del dataset
    copy_to_sidecar(path)
    return path


def baking(folder, *args):
    code = "from gdalbridge import bake; import sys; print('ready', flush=True); bake(*sys.argv[1:3], "
    code += "vrt=len(sys.argv) > 3, options=[] if len(sys.argv) > 3 else ['COMPRESS=DEFLATE'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=folder, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


@pytest.mark.thorough
def test_what_a_killed_process_has_left_is_removed(large, tmp_path):
    there = set(os.listdir(tmp_path))
    left = 0
    for delay in (0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2):
        process = baking(tmp_path, "large.tif", "out.tif")
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()
        process.wait(20)
        now = set(os.listdir(tmp_path)) - there
        left += any(name.startswith(".ratzarr-") for name in now)
        if "out.tif" in now:
            # It was finished: whole, or not there at all.
            assert column(tmp_path / "out.tif", "Value") == list(range(9))
        for path in tmp_path.glob("out.tif*"):
            path.unlink()
    assert left
    bake(large, tmp_path / "done.vrt", vrt=True)
    assert set(os.listdir(tmp_path)) == there | {"done.vrt"}


@pytest.mark.parametrize("end", ["export", "check"])
def test_an_export_or_a_check_removes_it_too(raster, tmp_path, end):
    folder = raster.parent if end == "check" else tmp_path
    dead = folder / f".ratzarr-{'0' * 20}"
    dead.mkdir()
    (dead / "half.tif").touch()
    if end == "export":
        make(tmp_path / "other.tif").FlushCache()
        assert call("export", f"{raster}.rat.zarr", tmp_path / "other.tif").exit_code == 0
    else:
        done = call("check", raster)
        assert done.exit_code == 1
        assert f"leftover: ../{dead.name}" in done.stdout
        assert dead.exists()
        assert call("check", raster, "--repair").exit_code == 0
    assert not dead.exists()


def test_what_a_living_process_is_making_stays(large, tmp_path):
    process = baking(tmp_path, "large.tif", "out.tif")
    try:
        until = time.monotonic() + LIMIT
        while not (made := list(tmp_path.glob(".ratzarr-*/out.tif"))):
            assert time.monotonic() < until
            assert process.poll() is None
        bake(large, tmp_path / "done.vrt", vrt=True)
        assert made[0].exists() or (tmp_path / "out.tif").exists()
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.wait(20)
    assert column(tmp_path / "out.tif", "Value") == list(range(9))
    assert not list(tmp_path.glob(".ratzarr-*"))


def test_older_gdal_can_read_the_table(raster, tmp_path):
    """The XML beside a GeoTIFF has types 0 to 2 only, read without GDAL; the TIFF has the rest."""
    days = np.array(["2024-02-29T12:34:56.789", "NaT"] * 15, "M8[ms]")
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.createColumn("flag", np.bool_)
        table.createColumn("day", days.dtype)
        table.writeBlock("flag", np.arange(ROWS) % 2 == 1, 0)
        table.writeBlock("day", days, 0)
    out = tmp_path / "out.tif"
    report = bake(raster, out, strict=True)
    assert b"GDALRasterAttributeTable" not in out.read_bytes()
    [first, second] = ET.parse(f"{out}.aux.xml").getroot().iterfind("PAMRasterBand")
    assert [one.get("band") for one in (first, second)] == ["1", "2"]
    types = {one.findtext(".//Name"): one.findtext(".//Type") for one in first.iter("FieldDefn")}
    assert (types["flag"], types["day"]) == ("0", "2")
    assert set(types.values()) <= {"0", "1", "2"}
    assert column(out, "flag") == [0, 1] * 15
    assert column(out, "day")[:2] == ["2024-02-29T12:34:56.789", ""]
    assert [note.partition(" ")[0] for note in report.notes] == ["Boolean", "DateTime"]


def test_many_losses_are_one_line(raster, tmp_path):
    values = np.random.default_rng(1).normal(size=ROWS)
    with RatZarr(f"{raster}.rat.zarr") as table:
        for number in range(20):
            table.createColumn(f"c{number}", np.float64)
            table.writeBlock(f"c{number}", values, 0)
        table.createColumn("single", np.float32)
        table.writeBlock("single", values.astype(np.float32), 0)
    many = [word for number in range(20) for word in ("--column", f"c{number}")]
    done = call("bake", raster, tmp_path / "a.tif", *many)
    assert done.exit_code == 0
    [line] = done.stderr.splitlines()
    assert "values of 20 Real columns changed" in line
    assert ".py:" not in line
    done = call("bake", raster, tmp_path / "b.tif", *many, "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert bake(raster, tmp_path / "c.tif", columns=["single"], strict=True).losses == ()


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_hfa_of_a_raster_with_colours(tmp_path):
    path = tmp_path / "in.tif"
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), 2, 2)
    colours = gdal.ColorTable()
    for value in range(256):
        colours.SetColorEntry(value, (value, 2, 3, 255))
    dataset.GetRasterBand(1).SetColorTable(colours)
    del dataset
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(256)
        table.createColumn("area", np.float64)
        table.writeBlock("area", np.arange(256) / 3, 0)
    out = tmp_path / "out.img"
    assert bake(path, out).losses == ()
    assert column(out, "area") == [i / 3 for i in range(256)]
    assert column(out, "Red") == list(range(256))


@pytest.mark.parametrize("name", ["out.tif", "out.vrt"])
def test_an_older_table_beside_it_is_named_or_replaced(raster, tmp_path, name):
    out, dbf = tmp_path / name, tmp_path / f"{name}.vat.dbf"
    dbf.write_bytes(b"older")
    with pytest.raises(OutputExistsError, match=re.escape(dbf.name)):
        bake(raster, out, columns=["area"])
    bake(raster, out, columns=["area"], overwrite=True)
    assert not dbf.exists()
    assert names(out) == ["area"]


def test_an_export_to_no_raster_names_bake(raster, tmp_path):
    done = call("export", f"{raster}.rat.zarr", tmp_path / "none.tif")
    assert done.exit_code == 1
    assert "gdalbridge bake" in done.stderr


# ---- all else that a raster has


def rich_raster(path, driver="GTiff", rows=256):
    """A raster with all that a GeoTIFF can hold, and a table beside it."""
    dataset = make(path, driver)
    dataset.SetGeoTransform([500000, 30, 0, 4600000, 0, -30])
    srs = osr.SpatialReference()
    srs.ImportFromEPSG(32633)
    dataset.SetProjection(srs.ExportToWkt())
    dataset.SetMetadataItem("key", "größe <&>")
    band = dataset.GetRasterBand(1)
    band.WriteArray(np.arange(12, dtype="u1").reshape(3, 4))
    band.SetNoDataValue(11)
    band.SetMetadataItem("STATISTICS_MEAN", "5.5")
    if driver == "GTiff":
        band.SetMetadataItem("of_band", "yes")
        band.SetScale(0.5)
        band.SetOffset(-3)
        band.SetDescription("classes")
    colours = gdal.ColorTable()
    for value in range(256):
        colours.SetColorEntry(value, (value, 2, 3, 255))
    band.SetColorTable(colours)
    del band, dataset
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(rows)
        table.createColumn("area", np.float64)
        table.writeBlock("area", np.arange(rows) / 4, 0)
    return path


def shown(path, colours=256):
    dataset = gdal.Open(str(path))
    band = dataset.GetRasterBand(1)
    table = band.GetColorTable()
    own = {"AREA_OR_POINT"}
    return {
        "geotransform": dataset.GetGeoTransform(),
        "crs": dataset.GetSpatialRef().GetAuthorityCode(None),
        "metadata": {k: v for k, v in dataset.GetMetadata().items() if k not in own},
        "pixels": dataset.ReadAsArray().tolist(),
        "nodata": band.GetNoDataValue(),
        "statistics": band.GetMetadataItem("STATISTICS_MEAN"),
        "of band": band.GetMetadataItem("of_band"),
        "scale": (band.GetScale(), band.GetOffset()),
        "description": band.GetDescription(),
        "colours": [table.GetColorEntry(value) for value in range(colours)],
    }


@pytest.mark.parametrize("options", [(), ("--native",), ("--of", "COG")])
def test_all_else_of_the_raster_is_in_the_tiff_itself(tmp_path, options):
    path = rich_raster(tmp_path / "in.tif")
    out = tmp_path / "out.tif"
    expected = shown(path)
    assert (expected["statistics"], expected["crs"]) == ("5.5", "32633")
    done = call("bake", path, out, *options, "--strict", "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert column(out, "area")[:3] == [0, 0.25, 0.5]
    beside = Path(f"{out}.aux.xml")
    if beside.exists():
        beside.unlink()
    assert shown(out) == expected


def test_an_aux_xml_that_the_copy_has_is_added_to(tmp_path):
    """A baseline TIFF has neither metadata nor georeference: they are beside it, as is the table."""
    path, out = rich_raster(tmp_path / "in.tif"), tmp_path / "out.tif"
    bake(path, out, strict=True, options=["PROFILE=BASELINE"])
    root = ET.parse(f"{out}.aux.xml").getroot()
    assert root.find(".//MDI[@key='STATISTICS_MEAN']").text == "5.5"
    assert len(list(root.iter("GDALRasterAttributeTable"))) == 1
    assert [one.get("band") for one in root.iterfind("PAMRasterBand")] == ["1"]
    found, expected = shown(out), shown(path)
    for one in (found, expected):
        # Of pixels without data, where the one shows another opacity.
        one["colours"][11] = one["colours"][11][:3]
        # GDAL keeps neither in a baseline TIFF.
        del one["scale"], one["description"]
    assert found == expected
    assert column(out, "area") == [row / 4 for row in range(256)]


hfa = pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")


@hfa
@pytest.mark.parametrize("name", ["out.img", "out.tif"])
def test_from_an_hfa(tmp_path, name):
    """Its table has the columns of the colour table already."""
    path, out = rich_raster(tmp_path / "in.img", "HFA"), tmp_path / name
    expected = shown(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        report = bake(path, out)
    assert set(report.losses) <= {"the table's type was not kept"}
    found = shown(out)
    # Formats have names of their own for a band, and metadata of their own.
    for one in (found, expected):
        del one["description"], one["metadata"]
        # Of pixels without data, where a TIFF shows another opacity.
        one["colours"][11] = one["colours"][11][:3]
    assert found == expected
    assert names(out) == ["Red", "Green", "Blue", "Opacity", "area"]
    assert column(out, "area") == [row / 4 for row in range(256)]
    assert column(out, "Red") == list(range(256))


@hfa
def test_colours_that_an_hfa_would_cut_are_a_loss(tmp_path):
    """Columns of colours in the table are the colour table of an HFA: 16 of 256 are left."""
    path = rich_raster(tmp_path / "in.tif", rows=16)
    dataset = gdal.OpenEx(str(path), gdal.OF_UPDATE)
    red = [row * 16 % 256 for row in range(16)]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("Red", INTEGER, 6, red)], 16))
    del dataset
    done = call("bake", path, tmp_path / "out.img", "--accept-stale")
    assert done.exit_code == 0
    [line] = [line for line in done.stderr.splitlines() if "colour table of band 1" in line]
    assert line.endswith(
        "entry 1, (1, 2, 3, 255), became (16, 2, 3, 255); 255 of 256 changed in all"
    )
    assert len(shown(tmp_path / "out.img", colours=16)["colours"]) == 16
    with pytest.raises(NotWrittenError, match="the colour table of band 1"):
        bake(path, tmp_path / "strict.img", strict=True, accept_stale=True)
    assert not list(tmp_path.glob("strict*"))
    # A table without such columns leaves the colours as they are, however short it is.
    bake(path, tmp_path / "kept.img", columns=["area"], accept_stale=True)
    assert shown(tmp_path / "kept.img")["colours"] == shown(path)["colours"]


@hfa
def test_a_column_that_an_hfa_changes_is_one_line(raster, tmp_path):
    with RatZarr(f"{raster}.band2.rat.zarr") as table:
        table.getColumnAttributeMapping("n")["GDAL_USAGE"] = 1
    done = call("bake", raster, tmp_path / "out.img", "--band", 2)
    assert done.exit_code == 0
    lines = [line for line in done.stderr.splitlines() if "'n'" in line]
    assert [line.partition(": the ")[2] for line in lines] == [
        "type of column 'n' became Real, its name 'Histogram'"
    ]


@pytest.mark.skipif(HAS_HFA, reason="this GDAL has the HFA driver")
def test_a_driver_that_is_missing_is_named_with_its_package(raster, tmp_path):
    for name, package in (("out.img", "python3-gdal"), ("out.kea", "libgdal-kea")):
        if gdal.GetDriverByName({"out.img": "HFA", "out.kea": "KEA"}[name]):
            continue
        done = call("bake", raster, tmp_path / name)
        assert done.exit_code == 1
        assert "this GDAL has no driver" in done.stderr
        assert package in done.stderr
        assert not list(tmp_path.glob("out*"))


def test_an_older_vat_dbf_in_other_letters_is_found(raster, tmp_path):
    """Of a band without a table in the raster it would be the table, for GDAL 3.11 and later."""
    out, dbf = tmp_path / "out.tif", tmp_path / "out.TIF.VAT.DBF"
    write_dbf(dbf, [(b"older", b"N", 9, 0)], [[b"5"]])
    with pytest.raises(OutputExistsError, match=re.escape(dbf.name)):
        bake(raster, out, band=1, columns=["area"])
    assert dbf.exists()
    bake(raster, out, band=1, columns=["area"], overwrite=True)
    assert not dbf.exists()
    assert names(out) == ["area"]
    dataset = gdal.Open(str(out))
    assert dataset.GetRasterBand(2).GetDefaultRAT() is None


def test_geometries_are_refused_with_the_option_that_keeps_them(raster, tmp_path):
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.createColumn("shape", bytes)
    done = call("bake", raster, tmp_path / "out.tif")
    assert done.exit_code == 1
    assert "column 'shape': WKBGeometry can't be read by GDAL before 3.12" in done.stderr
    assert "use --native" in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_missing_integers_are_a_loss(raster, tmp_path):
    """GDAL's tables have no missing numbers: what stands for one is named."""
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.createColumn("n", np.int32, attributes={"missing_value": -9})
        table.writeBlock("n", np.where(np.arange(ROWS) % 10 == 3, -9, 5), 0)
    with pytest.warns(LossWarning, match="column 'n': 3 missing values are written as -9"):
        bake(raster, tmp_path / "a.tif", columns=["n"])
    with pytest.raises(NotWrittenError, match="3 missing values"):
        bake(raster, tmp_path / "b.tif", columns=["n"], strict=True)
    assert not (tmp_path / "b.tif").exists()


def test_a_blank_count_of_a_dbf_is_a_loss(tmp_path):
    path = tmp_path / "d.tif"
    make(path).FlushCache()
    fields = [(b"Value", b"N", 9, 0), (b"Count", b"N", 9, 0)]
    write_dbf(f"{path}.vat.dbf", fields, [(b"0", b"10"), (b"1", b""), (b"2", b"30")])
    with pytest.warns(LossWarning, match="column 'Count': 1 missing value is written as"):
        bake(path, tmp_path / "out.tif")
    assert column(tmp_path / "out.tif", "Count")[::2] == [10, 30]


def test_a_column_that_cant_be_read_is_a_loss(raster, tmp_path):
    document = Path(f"{raster}.rat.zarr/RAT/area/zarr.json")
    document.write_bytes(document.read_bytes()[:40])
    with pytest.warns(LossWarning, match="column 'area' is left out"):
        report = bake(raster, tmp_path / "a.tif", band=1)
    assert "area" not in report.bands[1]
    with pytest.raises(NotWrittenError, match="column 'area' is left out"):
        bake(raster, tmp_path / "b.tif", band=1, strict=True)


def test_a_table_beside_the_output_is_named(raster, tmp_path):
    out = tmp_path / "out.tif"
    with RatZarr(f"{out}.rat.zarr") as table:
        table.setRowCount(1)
    [note] = [
        one for one in bake(raster, out, columns=["old"]).notes if "is beside the output" in one
    ]
    assert "out.tif.rat.zarr" in note


@pytest.mark.skipif(not NEW_TYPES, reason="Boolean came with GDAL 3.12")
def test_exports_of_what_older_gdal_can_not_read_are_noted(raster, tmp_path):
    """The table of a baked GeoTIFF is where older versions see it; these columns they can't read."""
    out = tmp_path / "out.tif"
    bake(raster, out, columns=["class"])
    sidecar = f"{raster}.rat.zarr"
    with RatZarr(sidecar) as table:
        table.createColumns({"flag": "bool", "when": "M8[D]"})
    report = copy_to_raster(sidecar, out, columns=["flag", "when"])
    assert any(
        "'flag' (Boolean), 'when' (DateTime): cast to Integer or String" in note
        for note in report.notes
    ), report.notes
    casts = {"flag": "Integer", "when": "String"}
    other = tmp_path / "other.tif"
    bake(raster, other, columns=["class"])
    report = copy_to_raster(sidecar, other, columns=["flag", "when"], cast=casts)
    assert not any("can't read" in note for note in report.notes)
