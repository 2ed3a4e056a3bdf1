"""Where columns say they came from, what a table says it belongs to, and what info makes of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from gdalbridge import StaleWarning, copy_to_sidecar, open_table, ratapplier
from gdalbridge.cli import main
from gdalbridge.gdalio.datasets import open_dataset
from gdalbridge.sidecars.naming import raster_label
from gdalbridge.sidecars.provenance import raster_attribute
from gdalbridge.sidecars.staleness import (
    parsed_provenance,
    parsed_raster,
    raster_changes,
    recorded_raster,
)
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, STRING, VERSION, make, new_rat

COLUMNS = [
    ("Value", INTEGER, 5, np.arange(10)),
    ("label", STRING, 0, list("abcdefghij")),
    ("", INTEGER, 0, np.arange(10)),
]


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path, bands=2)
    for band in (1, 2):
        dataset.GetRasterBand(band).SetDefaultRAT(new_rat(COLUMNS, 10))
    dataset = None
    return path


def document(store, key):
    """Read a zarr.json as any program would."""
    return json.loads((Path(store) / key / "zarr.json").read_bytes())["attributes"]


def change_pixels(path):
    dataset = open_dataset(path, update=True)
    dataset.GetRasterBand(1).WriteArray(np.full((3, 4), 77, "u1"))
    dataset.FlushCache()


def info(*args):
    done = CliRunner().invoke(main, ["info", *map(str, args)])
    assert done.exit_code == 0, done.output
    return done.output


# ---- what is written


def test_every_column_says_what_wrote_it_from_what(raster):
    store = copy_to_sidecar(raster, band=2).target
    for key, column in (("Value", "Value"), ("label", "label"), ("column 3", "")):
        found = document(store, f"RAT/{key}")["PROVENANCE"]
        assert found["operation"] == "copy"
        assert found["versions"]["gdal"] == ".".join(map(str, VERSION[:3]))
        assert found["versions"]["numpy"] == np.__version__
        assert set(found["versions"]) == {"gdal", "numpy", "ratzarr", "zarr"}
        assert (found["raster"], found["band"], found["column"]) == ("seg.tif", 2, column)
        # All pixels are zero.
        assert found["fingerprint"]["pixels"] == {"0,0,4,3": "all 00"}
        assert found["source"]["rows"] == 10
        assert ".tif" in found["source"]["files"]
    table = document(store, "RAT")["RASTER"]
    assert table["fingerprint"] == found["fingerprint"]
    del table["fingerprint"]
    assert table == {"name": "seg.tif", "band": 2, "size": [4, 3], "bands": 2,
                     "type": "UInt8", "geotransform": []}  # fmt: skip


def test_a_raster_in_memory_has_no_name_and_no_fingerprint(tmp_path):
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(COLUMNS, 10))
    store = copy_to_sidecar(dataset, tmp_path / "t.rat.zarr").target
    found = document(store, "RAT/Value")["PROVENANCE"]
    assert (found["raster"], found["fingerprint"]) == (None, None)
    assert document(store, "RAT")["RASTER"]["size"] == [4, 3]
    assert "raster: a raster in memory, band 1 (not found from here)" in info(store)


def test_on_s3(raster, moto_s3):
    for name in os.listdir(raster.parent):
        moto_s3.client.upload_file(str(raster.parent / name), moto_s3.bucket, f"dir/{name}")
    url = copy_to_sidecar(f"/vsis3/{moto_s3.bucket}/dir/seg.tif").target
    attributes = moto_s3.open(url)["RAT"].attrs
    assert attributes["RASTER"]["name"] == "seg.tif"
    assert attributes["RASTER"]["fingerprint"]["pixels"] == {"0,0,4,3": "all 00"}
    assert "raster: seg.tif, band 1, unchanged since" in info(url)
    assert "raster: seg.tif, band 1, unchanged since" in info(f"s3://{moto_s3.bucket}/dir/seg.tif")


def test_a_later_copy_of_the_same_raster_brings_the_table_up_to_date(raster, tmp_path):
    store = copy_to_sidecar(raster).target
    before = document(store, "RAT")["RASTER"]
    change_pixels(raster)
    copy_to_sidecar(raster, overwrite=True)
    after = document(store, "RAT")["RASTER"]
    assert before["fingerprint"] != after["fingerprint"]
    # Columns from elsewhere do not make it another raster's table.
    other = tmp_path / "other.tif"
    dataset = make(other, size=(9, 9))
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("more", INTEGER, 0, np.arange(10))], 10))
    dataset = None
    copy_to_sidecar(other, store, append=True)
    assert document(store, "RAT")["RASTER"] == after
    assert document(store, "RAT/more")["PROVENANCE"]["raster"] == "other.tif"


# ---- names


@pytest.mark.parametrize(
    ("raster", "sidecar", "label"),
    [
        ("s3://b/dir/seg.tif", "s3://b/dir/seg.tif.rat.zarr", "seg.tif"),
        ("/vsis3/b/dir/seg.tif", "s3://b/tables/x.rat.zarr", "../dir/seg.tif"),
        ("s3://b/seg.tif", "s3://b/x.rat.zarr", "seg.tif"),
        ("s3://b/seg.tif", "s3://other/x.rat.zarr", "s3://b/seg.tif"),
        ("s3://b/a//seg.tif", "s3://b/x.rat.zarr", "s3://b/a//seg.tif"),
        ("/vsicurl/https://me:pw@h/x.tif", "s3://b/x.rat.zarr", "https://***@h/x.tif"),
        ("https://h/x.tif?X-Amz-Signature=abc&v=1", "/t/x.rat.zarr", "https://h/x.tif?X-Amz-Signature=***&v=1"),
        ("/vsicurl?pc_url_signing=no&url=https%3A%2F%2Fh%2Fx.tif%3Fsig%3Dabc%26v%3D1", "/t/x.rat.zarr", None),
        ("/vsicurl?header.Authorization=Bearer%20abc&url=http://h/x", "/t/x.rat.zarr", None),
        ("/vsicurl?url=https%253A%252F%252Fme%253Aabc%2540h%252Fx.tif", "/t/x.rat.zarr", None),
        ("PG:dbname=x user=me password='a abc c'", "/t/x.rat.zarr", None),
        ("WMS:http://h/?token=abc&x=1", "/t/x.rat.zarr", None),
    ],
)  # fmt: skip
def test_names_without_secrets(raster, sidecar, label):
    found = raster_label(raster, sidecar)
    assert "abc" not in found
    assert label is None or found == label


def test_names_are_relative_within_one_tree(tmp_path):
    (tmp_path / "rasters").mkdir()
    path = tmp_path / "rasters" / "seg.tif"
    path.touch()
    for sidecar, label in (
        (tmp_path / "rasters" / "seg.tif.rat.zarr", "seg.tif"),
        (tmp_path / "tables" / "x.rat.zarr", "../rasters/seg.tif"),
        (tmp_path / "x.rat.zarr", "rasters/seg.tif"),
        ("/x.rat.zarr", str(path)),
        ("s3://bucket/x.rat.zarr", str(path)),
    ):
        assert raster_label(str(path), sidecar) == label


def test_a_name_that_is_no_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tif")
    Path(path).touch()
    assert raster_label(path, tmp_path / "x.rat.zarr") == "\\xff.tif"


@pytest.mark.parametrize(
    ("name", "sidecar", "place"),
    [
        ("seg.tif", "/dir/seg.tif.rat.zarr", "/dir/seg.tif"),
        ("../a/seg.tif", "/dir/x.rat.zarr", "/a/seg.tif"),
        ("seg.tif", "s3://b/dir/x.rat.zarr", "/vsis3/b/dir/seg.tif"),
        ("../seg.tif", "s3://b/dir/x.rat.zarr", "/vsis3/b/seg.tif"),
        ("../../other/seg.tif", "s3://b/dir/x.rat.zarr", None),
        ("seg.tif", "https://h/dir/x.rat.zarr", "/vsicurl/https://h/dir/seg.tif"),
        ("../../../other/seg.tif", "https://h/dir/x.rat.zarr", None),
        # Names that a table from anywhere could hold, and that nobody asked us to open.
        ("/etc/passwd", "/dir/x.rat.zarr", None),
        ("/vsicurl/http://h/x", "/dir/x.rat.zarr", None),
        ("vsicurl/http://h/x", "/x.rat.zarr", None),
        ("http://h/x", "/dir/x.rat.zarr", None),
        ("PG:dbname=x", "/dir/x.rat.zarr", None),
        ("C:\\x.tif", "/dir/x.rat.zarr", None),
        ("<VRTDataset/>", "/dir/x.rat.zarr", None),
        ("", "/dir/x.rat.zarr", None),
        ("a\0b", "/dir/x.rat.zarr", None),
    ],
)
def test_where_a_table_looks_for_its_raster(name, sidecar, place):
    assert recorded_raster({"name": name}, sidecar) == place


# ---- what has changed


def test_a_raster_that_was_changed_is_noticed(raster):
    store = copy_to_sidecar(raster).target
    recorded = document(store, "RAT")["RASTER"]

    def changes(path=raster, band=1):
        return raster_changes(recorded, raster_attribute(open_dataset(path), band, store))

    assert changes() == []
    copied = raster.with_name("copied.tif")
    shutil.copyfile(raster, copied)
    os.utime(copied, (1, 1))
    assert changes(copied) == []
    assert changes(band=2) == ["the table is of band 1, not 2"]
    change_pixels(raster)
    [words] = changes()
    assert words.startswith("the raster has other pixels: 1 of 1 samples differ, one at column 0")
    make(raster, size=(5, 3)).FlushCache()
    assert changes() == [
        "the raster is 5 x 3 pixels, and was 4 x 3",
        "the raster has 1 bands, and had 2",
    ]


GARBAGE = [
    7, "x", [], {}, None, True, {"name": 7}, {"name": "a\x1b[31m", "size": [1]},
    {"size": [True, "x"], "band": -1, "bands": 2**70}, {"fingerprint": {"bytes": "many"}},
    {"operation": []}, {"operation": "x" * 5000, "versions": 7, "raster": {}, "band": [1]},
    {"operation": "c\x1b[2J", "versions": {f"v{i}": i for i in range(500)}, "column": 1},
    {"operation": "apply", "function": "f\x1b", "inputs": {"a": 1, "b\x1b": "c\x1b" * 200}},
    {"operation": "apply", "function": 5, "inputs": ["seg.tif"]},
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g)[:40])
def test_garbage_in_the_attributes(raster, garbage):
    store = copy_to_sidecar(raster).target
    with RatZarr(store) as table:
        table.getRatAttributeMapping().update(RASTER=garbage, GDAL_LINEAR_BINNING=garbage)
        table.getColumnAttributeMapping("Value").update(PROVENANCE=garbage, GDAL_USAGE=garbage)
    for name in (store, raster):
        text = info(name)
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) < 3000
        json.loads(info(name, "--json"))
    now = raster_attribute(open_dataset(raster), 1, store)
    assert isinstance(raster_changes(garbage, now), list)
    assert parsed_raster(garbage) is None or isinstance(garbage, dict)
    assert parsed_provenance(garbage) is None or "operation" in garbage


# ---- info


def test_info_names_the_function_of_a_script_and_what_it_read(raster):
    def double(info, inputs, outputs):
        outputs.seg.twice = inputs.seg.Value * 2

    associations = ratapplier.RatAssociations()
    associations.seg = ratapplier.RatHandle(str(raster))
    ratapplier.apply(double, associations, associations)
    with open_table(raster) as table:
        table["mine"] = np.arange(10)
        table.update_from(pa.table({"row": [1, 2], "theirs": [0.5, 1.5]}))
    lines = info(raster).splitlines()
    for words, column in (
        (f"apply {double.__module__}.{double.__qualname__} to seg.tif (", "twice"),
        ("assigned to seg.tif, band 1 (", "mine"),
        ("joined to seg.tif, band 1 (", "theirs"),
    ):
        [line] = [line for line in lines if line.startswith(words)]
        assert line.endswith(f": {column}")
    columns = json.loads(info(f"{raster}.rat.zarr", "--json"))["sidecar"]["columns"]
    assert columns[0]["provenance"]["inputs"] == {"seg": "seg.tif"}


def test_info_has_a_line_for_each_origin(raster):
    store = copy_to_sidecar(raster, columns=["Value", "label"]).target
    with RatZarr(store) as table:
        table.createColumn("mine", np.int8)
    text = info(raster)
    [line] = [line for line in text.splitlines() if line.startswith("copy from")]
    assert line.startswith("copy from seg.tif, band 1 (gdal ")
    assert line.endswith(": Value, label")
    assert "raster: seg.tif, band 1, unchanged since" in text
    found = json.loads(info(store, "--json"))["sidecar"]
    assert found["fits"] is True
    assert found["changes"] == []
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["Value"]["provenance"]["raster"] == "seg.tif"
    assert "provenance" not in columns["mine"]


def test_info_says_that_the_raster_has_changed_and_which_columns_are_older(raster):
    store = copy_to_sidecar(raster).target
    change_pixels(raster)
    for name in (store, raster):
        assert "raster: seg.tif, band 1, changed since: the raster has other pixels" in info(name)
    # One column anew: the others are still of the raster as it was.
    with pytest.warns(StaleWarning, match="other pixels"):
        copy_to_sidecar(raster, columns=["label"], overwrite=True)
    for name in (store, raster):
        text = info(name)
        assert "raster: seg.tif, band 1, changed since" in text
        lines = [line for line in text.splitlines() if line.startswith("copy from")]
        assert len(lines) == 2
        [old] = [line for line in lines if "changed since" in line]
        assert old.endswith(": Value, column 3")
    assert json.loads(info(raster, "--json"))["sidecars"][0]["fits"] is False
    copy_to_sidecar(raster, overwrite=True)
    assert json.loads(info(raster, "--json"))["sidecars"][0]["fits"] is True


def test_info_without_the_raster(raster, tmp_path):
    store = copy_to_sidecar(raster).target
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(store, elsewhere / "seg.tif.rat.zarr")
    text = info(elsewhere / "seg.tif.rat.zarr")
    assert "raster: seg.tif, band 1 (not found from here)" in text
    shutil.copy(raster, elsewhere / "seg.tif")
    assert "unchanged since" in info(elsewhere / "seg.tif.rat.zarr")


def test_info_of_tables_from_before(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.createColumn("x", "i4")
    text = info(tmp_path / "t.rat.zarr")
    assert "raster" not in text
    assert "copy from" not in text


def test_info_of_a_sidecar_needs_no_gdal(raster):
    store = copy_to_sidecar(raster).target
    code = (
        "import sys; sys.modules['osgeo'] = None\n"
        "from gdalbridge.cli import main; main(['info', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "raster: seg.tif, band 1 (not found from here)" in done.stdout


# ---- who, and by what command


def test_secrets_on_the_command_line_are_not_in_the_table(raster, tmp_path, moto_s3):
    """A signed address, as users paste them."""
    moto_s3.client.upload_file(str(raster), moto_s3.bucket, "seg.tif")
    key = {"Bucket": moto_s3.bucket, "Key": "seg.tif"}
    url = moto_s3.client.generate_presigned_url("get_object", Params=key)
    found = re.findall(r"(?:Signature|Credential|AccessKeyId)=([^&]+)", url)
    assert len(found) == 2
    if raster.with_name("seg.tif.aux.xml").exists():
        # GDAL does not find it beside an address that ends in a signature.
        pytest.skip("this GDAL keeps the table in another file")
    store = tmp_path / "out.rat.zarr"
    done = subprocess.run(
        [sys.executable, "-m", "gdalbridge", "copy", f"/vsicurl/{url}", str(store)],
        capture_output=True, text=True, check=False,
        # The address is signed for GET.
        env=os.environ | {"CPL_VSIL_CURL_USE_HEAD": "NO"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    everything = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    for secret in found:
        assert unquote(secret).encode() not in everything
        assert secret.encode() not in everything
    [(_, _, argv)] = document(store, "RAT/Value")["MODIFICATIONLOG"]
    assert argv[1] == "copy"
    assert argv[2].startswith(f"/vsicurl/{url.partition('?')[0]}?")
    assert "Signature=***" in argv[2]
    assert "Signature=***" in document(store, "RAT/Value")["PROVENANCE"]["raster"]


NOBODY = """
import os, pwd, sys
if os.geteuid() == 0:
    # Known by this number, but with root's rights to read the packages.
    os.setresuid(54321, 0, 0)
else:
    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")
    pwd.getpwuid = nobody
from gdalbridge.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="users have numbers only there")
def test_no_name_of_the_user_anywhere(raster):
    """In a container, under a number that no passwd knows."""
    names = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, "copy", str(raster)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    [(_, user, _)] = document(f"{raster}.rat.zarr", "RAT/Value")["MODIFICATIONLOG"]
    assert user == "unknown"
