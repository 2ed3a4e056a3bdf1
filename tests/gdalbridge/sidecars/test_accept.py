"""``gdalbridge touch``: a changed raster is shown, and accepted; nothing else is changed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gdalbridge import BridgeError, check, copy_to_sidecar, touch
from gdalbridge.cli import main
from gdalbridge.errors import RasterNotFoundError
from gdalbridge.gdalio.datasets import open_dataset
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, make, new_rat


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def contents(folder):
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def kinds(table):
    return {one.kind for report in check(table) for one in report.findings}


def recorded(path):
    document = json.loads(Path(path, "RAT", "zarr.json").read_bytes())
    return document["attributes"].get("RASTER")


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path, bands=2)
    for band in (1, 2):
        rat = new_rat([("Value", INTEGER, 5, np.arange(30) * band)], 30)
        dataset.GetRasterBand(band).SetDefaultRAT(rat)
    del dataset, rat
    for band in (1, 2):
        copy_to_sidecar(path, band=band)
    return path


def test_a_changed_raster_is_shown_and_accepted(raster):
    make(raster, bands=3, size=(9, 8)).FlushCache()
    before = contents(raster.parent)
    assert kinds(raster) == {"raster"}
    assert "gdalbridge touch" in call("check", raster).stdout
    done = call("touch", raster, "--dry-run")
    assert done.exit_code == 0
    assert "would be accepted" in done.stdout
    assert "the raster is 9 x 8 pixels, and was 4 x 3" in done.stdout
    assert "3 bands, and had 2" in done.stdout
    assert contents(raster.parent) == before
    done = call("touch", raster, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [(one["band"], one["written"], len(one["changes"])) for one in json.loads(done.stdout)] == [
        (1, True, 2), (2, True, 2),
    ]  # fmt: skip
    assert kinds(raster) == set()
    after = contents(raster.parent)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        f"{raster}.rat.zarr/RAT/zarr.json",
        f"{raster}.band2.rat.zarr/RAT/zarr.json",
    }
    assert set(after) == set(before)
    for number, path in ((1, f"{raster}.rat.zarr"), (2, f"{raster}.band2.rat.zarr")):
        now = recorded(path)
        assert (now["name"], now["band"], now["size"], now["bands"]) == (
            "seg.tif",
            number,
            [9, 8],
            3,
        )
        assert now["fingerprint"]["pixels"] == {"0,0,9,8": "all 00"}


def test_what_fits_is_not_written(raster):
    before = contents(raster.parent)
    done = call("touch", raster)
    assert done.exit_code == 0
    assert done.stdout.count("fits its raster") == 2
    # Another time alone is the same raster.
    os.utime(raster, (1, 1))
    assert [one.written for one in touch(raster)] == [False, False]
    assert contents(raster.parent) == before


def test_a_table_that_belonged_to_none_or_to_another(raster):
    renamed = raster.with_name("new.tif")
    raster.rename(renamed)
    Path(f"{raster}.rat.zarr").rename(f"{renamed}.rat.zarr")
    with RatZarr(f"{renamed}.more.rat.zarr") as table:
        table.createColumn("y", np.int8)
    with RatZarr(f"{renamed}.odd.rat.zarr") as table:
        table.getRatAttributeMapping()["RASTER"] = {"name": 3}
    [first, more, odd] = touch(renamed)
    assert first.changes == ("the raster is called new.tif, and was called seg.tif",)
    assert "recorded no raster" in more.changes[0]
    assert odd.changes
    assert [one.written for one in (first, more, odd)] == [True] * 3
    for one in (first, more, odd):
        assert recorded(one.path)["name"] == "new.tif"
        assert recorded(one.path)["fingerprint"]["pixels"] == {"0,0,4,3": "all 00"}
    assert kinds(renamed) == set()


def test_a_table_of_another_place(raster, tmp_path):
    (tmp_path / "tables").mkdir()
    moved = tmp_path / "tables" / "t.rat.zarr"
    shutil.move(f"{raster}.band2.rat.zarr", moved)
    [report] = touch(raster, sidecar=moved)
    assert report.band == 2
    assert report.changes == ("the raster is called ../seg.tif, and was called seg.tif",)
    assert recorded(moved)["name"] == "../seg.tif"
    assert kinds(moved) == set()
    [report] = touch(raster, sidecar=moved, band=1)
    assert report.changes == ("the table is of band 2, not 1",)
    assert recorded(moved)["band"] == 1


def test_what_can_not_fit_is_refused_before_anything_is_written(raster, tmp_path):
    make(raster, bands=1, size=(9, 9)).FlushCache()
    before = contents(tmp_path)
    with pytest.raises(BridgeError, match=r"is of band 2, and .* has 1 bands"):
        touch(raster)
    done = call("touch", raster)
    assert done.exit_code == 1
    assert contents(tmp_path) == before
    assert [one.band for one in touch(raster, band=1)] == [1]
    for wrong in (tmp_path / "none.tif", raster.parent):
        with pytest.raises(RasterNotFoundError):
            touch(wrong)
    with pytest.raises(RasterNotFoundError, match="no sidecar of band 7"):
        touch(raster, band=7)
    with pytest.raises(BridgeError, match="is a table"):
        touch(f"{raster}.rat.zarr")


def test_on_s3_it_costs_a_few_requests(raster, counted_s3):
    place, proxy = counted_s3
    for name, content in contents(raster.parent).items():
        key = os.path.relpath(name, raster.parent)
        place.client.put_object(Bucket=place.bucket, Key=f"d/{key}", Body=content)
    url = f"s3://{place.bucket}/d/seg.tif"
    touch(url)
    for band in (1, 2):
        dataset = open_dataset(raster, update=True)
        dataset.GetRasterBand(band).WriteArray(np.full((3, 4), 7, "u1"))
        del dataset
    place.client.upload_file(str(raster), place.bucket, "d/seg.tif")
    proxy.clear()
    reports = touch(url)
    assert [one.written for one in reports] == [True, True]
    # Opened once, and its beginning looked at, whatever the number of tables.
    assert len([one for one in proxy.requests if one.key.endswith("/d/seg.tif")]) <= 3
    assert proxy.counts()["PUT"] == 2
    assert kinds(url) == set()
