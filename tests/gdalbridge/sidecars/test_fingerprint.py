"""Fingerprints of rasters and of the tables in them: what changes them, and what they cost."""

import hashlib
import os
import shutil

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.gdalio.datasets import open_dataset
from gdalbridge.gdalio.rat_reader import open_rat
from gdalbridge.sidecars.provenance import HEAD, fingerprint, main_file, table_source
from gdalbridge.sidecars.staleness import table_changes
from tests.gdalbridge.sample_rasters import HAS_HFA, INTEGER, REAL, STRING, make, new_rat

COLUMNS = [("Value", INTEGER, 5, np.arange(10)), ("label", STRING, 0, list("abcdefghij"))]


def raster(path, columns=COLUMNS, rows=10, driver="GTiff", size=(400, 300)):
    dataset = make(path, driver, size=size)
    pixels = np.arange(size[0] * size[1], dtype="u1").reshape(size[::-1])
    dataset.GetRasterBand(1).WriteArray(pixels)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, rows))
    dataset.FlushCache()
    return str(path)


def source(path):
    with open_rat(path) as opened:
        return table_source(opened.dataset, opened.schema)


def content_of(found):
    return found["bytes"], found["sha256_head"]


def test_it_is_of_size_and_beginning(tmp_path):
    content = np.random.default_rng(1).bytes(HEAD + 100)
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    found = fingerprint(str(path))
    assert found["bytes"] == len(content)
    assert found["sha256_head"] == hashlib.sha256(content[:HEAD]).hexdigest()[:16]
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    moved = fingerprint(str(path))
    assert moved["modified"] == "2023-11-14T22:13:20.123456Z"
    assert content_of(moved) == content_of(found)
    path.write_bytes(content[:100] + b"!" + content[101:])
    assert content_of(fingerprint(str(path))) != content_of(found)
    path.write_bytes(content + b"!")
    assert content_of(fingerprint(str(path))) != content_of(found)


def test_short_and_empty_files(tmp_path):
    for content in (b"", b"a"):
        path = tmp_path / "x"
        path.write_bytes(content)
        assert fingerprint(str(path))["sha256_head"] == hashlib.sha256(content).hexdigest()[:16]


def test_the_same_through_gdals_own_files(tmp_path):
    path = raster(tmp_path / "seg.tif")
    with open(path, "rb") as file:
        content = file.read()
    gdal.FileFromMemBuffer("/vsimem/seg.tif", content)
    try:
        assert content_of(fingerprint("/vsimem/seg.tif")) == content_of(fingerprint(path))
    finally:
        gdal.Unlink("/vsimem/seg.tif")
    assert fingerprint("/vsimem/seg.tif") is None
    assert fingerprint("/vsimem/") is None


def test_what_is_no_file_has_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "no", tmp_path, tmp_path / "pipe", "a\0b", ""):
        assert fingerprint(str(name)) is None


def test_times_that_no_calendar_has(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    os.utime(path, (-5, -5))
    assert fingerprint(str(path))["modified"] is None


def test_the_file_of_a_dataset(tmp_path):
    path = raster(tmp_path / "seg.tif")
    assert main_file(open_dataset(path)) == path
    assert main_file(open_dataset(f"GTIFF_DIR:1:{path}")) == path
    assert main_file(make("", "MEM")) is None
    vrt = gdal.GetDriverByName("VRT").CreateCopy("", open_dataset(path))
    assert main_file(vrt) is None


def edit(path, change):
    """Change a raster's table in place."""
    dataset = gdal.Open(path, gdal.GA_Update)
    band = dataset.GetRasterBand(1)
    rat = band.GetDefaultRAT()
    if not rat.ChangesAreWrittenToFile():
        rat = rat.Clone()
    change(rat)
    if not rat.ChangesAreWrittenToFile():
        band.SetDefaultRAT(rat)
    dataset.FlushCache()


def one_more_row(rat):
    rat.SetRowCount(11)


def another_value(rat):
    rat.SetValueAsInt(3, 0, 7)


def one_more_column(rat):
    rat.CreateColumn("new", REAL, 0)


@pytest.mark.parametrize("driver", ["GTiff", pytest.param("HFA", marks=pytest.mark.skipif(
    not HAS_HFA, reason="this GDAL has no HFA driver"))])  # fmt: skip
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_more_row, "it has 11 rows, and had 10"),
        (one_more_column, "it has 3 columns, and had 2"),
        (another_value, "its file *"),
    ],
)
def test_every_change_of_a_table_is_noticed(tmp_path, driver, change, words):
    path = raster(tmp_path / "seg.tif", driver=driver)
    before = source(path)
    assert table_changes(before, source(path)) == []
    edit(path, change)
    found = table_changes(before, source(path))
    assert found
    assert words in found[0]


def test_a_change_that_leaves_size_and_beginning_as_they_were_is_noticed_by_its_time(tmp_path):
    path = raster(tmp_path / "seg.tif")
    before = source(path)
    found = os.stat(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1000))
    [words] = table_changes(before, source(path))
    assert words.startswith("its file *.tif was changed at ")


def test_other_names_of_columns(tmp_path):
    path = raster(tmp_path / "seg.tif")
    with open_rat(path) as opened:
        before = table_source(opened.dataset, opened.schema)
    other = before | {"schema": "0" * 16}
    [words] = table_changes(other, before)
    assert words == "the names, types or usages of its columns have changed"


def test_a_table_beside_its_raster(tmp_path):
    path = raster(tmp_path / "seg.tif")
    plain = source(path)
    aux = tmp_path / "seg.tif.aux.xml"
    if not aux.exists():
        # Newer GDAL keeps the table in the TIFF; this one has statistics in it, or a table.
        assert set(plain["files"]) == {".tif"}
        aux.write_text("<PAMDataset/>")
        [words] = table_changes(plain, source(path))
        assert words == "a file *.tif.aux.xml was added"
    assert set(source(path)["files"]) == {".tif", ".tif.aux.xml"}
    with_aux = source(path)
    aux.write_text(aux.read_text() + " ")
    assert "*.tif.aux.xml has" in table_changes(with_aux, source(path))[0]


def test_overviews_and_sidecars_are_no_part_of_it(tmp_path):
    path = raster(tmp_path / "seg.tif")
    before = source(path)
    gdal.Open(path).BuildOverviews("NEAREST", [2])
    assert (tmp_path / "seg.tif.ovr").exists()
    (tmp_path / "seg.tif.rat.zarr").mkdir()
    assert table_changes(before, source(path)) == []


def test_a_renamed_raster_is_the_same(tmp_path):
    path = raster(tmp_path / "seg.tif")
    before = source(path)
    for name in os.listdir(tmp_path):
        shutil.move(tmp_path / name, tmp_path / name.replace("seg", "renamed"))
    assert table_changes(before, source(str(tmp_path / "renamed.tif"))) == []


def test_nothing_vouches_for_a_table_in_memory():
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(COLUMNS, 10))
    found = source(dataset)
    assert "files" not in found
    assert table_changes(found, found)


@pytest.mark.parametrize("garbage", [None, 7, "x", [], {}, {"files": 3}, {"files": {".tif": 1}}])
def test_garbage_is_never_the_same_table(tmp_path, garbage):
    assert table_changes(garbage, source(raster(tmp_path / "seg.tif")))


def test_what_it_costs_on_s3(tmp_path, counted_s3):
    place, proxy = counted_s3
    path = raster(tmp_path / "seg.tif", size=(1000, 1000))
    for name in os.listdir(tmp_path):
        place.client.upload_file(str(tmp_path / name), place.bucket, f"dir/{name}")
    with open_rat(f"s3://{place.bucket}/dir/seg.tif") as opened:
        proxy.clear()
        found = fingerprint(main_file(opened.dataset))
        assert content_of(found) == content_of(fingerprint(path))
        assert len(proxy.requests) == 1
        proxy.clear()
        assert fingerprint(main_file(opened.dataset)) == found
        assert proxy.requests == []
        # The files in which a table could be: each is asked for once, if GDAL has not yet.
        files = table_source(opened.dataset, opened.schema)["files"]
        assert set(files) == set(source(path)["files"])
        asked = [one.key.partition("/dir/")[2] for one in proxy.requests]
        assert len(asked) == len(set(asked))
        assert set(asked) <= {"seg.tif.aux.xml", "seg.tif.vat.dbf", "seg.tif.aux", "seg.aux"}
        assert {request.method for request in proxy.requests} <= {"GET", "HEAD"}
