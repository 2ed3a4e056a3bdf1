from pathlib import Path

import fsspec
import pytest
from zarr.storage import FsspecStore

from gdalbridge import BridgeError
from gdalbridge.settings import SIDECAR_DIR
from gdalbridge.sidecars.naming import (
    Sidecar,
    find_sidecars,
    is_sidecar,
    sidecar_path,
    writable_sidecar_path,
)
from ratzarr import RatZarr


@pytest.mark.parametrize(
    ("raster", "band", "name", "path"),
    [
        ("dir/seg.tif", 1, None, "dir/seg.tif.rat.zarr"),
        ("dir/seg.tif", 2, None, "dir/seg.tif.band2.rat.zarr"),
        ("dir/seg.tif", 1, "texture", "dir/seg.tif.texture.rat.zarr"),
        ("dir/seg.tif", 2, "texture", "dir/seg.tif.band2.texture.rat.zarr"),
        ("/vsis3/bucket/seg.tif", 1, None, "s3://bucket/seg.tif.rat.zarr"),
        ("s3://bucket/seg.tif", 1, None, "s3://bucket/seg.tif.rat.zarr"),
        ("/vsicurl/https://h/seg.tif", 1, None, "https://h/seg.tif.rat.zarr"),
        ("https://h/seg.tif?X-Sig=1", 1, None, "https://h/seg.tif.rat.zarr"),
        (Path("/d/seg.kea"), 1, None, "/d/seg.kea.rat.zarr"),
    ],
)
def test_names(raster, band, name, path):
    assert sidecar_path(raster, band, name) == path


@pytest.mark.parametrize(
    ("raster", "band", "name"),
    [
        ("x.tif", 0, None),
        ("x.tif", -1, None),
        ("x.tif", 1.0, None),
        ("x.tif", True, None),
        ("x.tif", 1, ""),
        ("x.tif", 1, "a.b"),
        ("x.tif", 1, "a/b"),
        ("x.tif", 1, "band3"),
        ("x.tif", 1, "größe"),
        ("", 1, None),
        (None, 1, None),
        ("/vsimem/x.tif", 1, None),
    ],
)
def test_names_that_can_not_be(raster, band, name):
    with pytest.raises(BridgeError):
        sidecar_path(raster, band, name)


def make(folder, *names):
    for name in names:
        RatZarr(folder / name).close()


def test_found_by_band_then_name(tmp_path):
    make(
        tmp_path,
        "seg.tif.texture.rat.zarr",
        "seg.tif.rat.zarr",
        "seg.tif.band10.rat.zarr",
        "seg.tif.band2.rat.zarr",
        "seg.tif.band2.a-b_c.rat.zarr",
        # Neighbours, and names that only look like one of ours.
        "seg.tiff.rat.zarr",
        "seg.rat.zarr",
        "xseg.tif.rat.zarr",
        "seg.tif.band1.rat.zarr",
        "seg.tif.band02.rat.zarr",
        "seg.tif.a.b.rat.zarr",
        "seg.tif.zarr",
    )
    (tmp_path / "seg.tif.aux.xml").touch()
    (tmp_path / "seg.tif.file.rat.zarr").touch()
    raster = tmp_path / "seg.tif"
    assert find_sidecars(raster) == [
        Sidecar(f"{raster}.rat.zarr", 1, None),
        Sidecar(f"{raster}.texture.rat.zarr", 1, "texture"),
        Sidecar(f"{raster}.band2.rat.zarr", 2, None),
        Sidecar(f"{raster}.band2.a-b_c.rat.zarr", 2, "a-b_c"),
        Sidecar(f"{raster}.band10.rat.zarr", 10, None),
    ]
    assert [one.band for one in find_sidecars(raster, 2)] == [2, 2]


def test_relative_names_stay_relative(tmp_path, monkeypatch):
    make(tmp_path, "seg.tif.rat.zarr")
    monkeypatch.chdir(tmp_path)
    assert find_sidecars("seg.tif") == [Sidecar("seg.tif.rat.zarr", 1, None)]


PLACES = ["disk", "s3", "memory"]


@pytest.mark.parametrize("place", PLACES)
def test_anothers_table_is_not_this_ones(request, tmp_path, place):
    """seg.tif.rat.zarr can be the table tif of a raster seg, unless there is a seg.tif."""
    if place == "s3":
        folder = f"s3://{request.getfixturevalue('s3_bucket')}/dir"
    else:
        folder = str(tmp_path) if place == "disk" else f"memory://{tmp_path.name}"

    def put(name):
        with fsspec.open(f"{folder}/{name}", "wb") as file:
            file.write(b"x")

    for raster in ("seg", "seg.band2", "plain"):
        for table in (".tif.rat.zarr", ".rat.zarr"):
            name = f"{folder}/{raster}{table}"
            # There tables are read by name, and written in a store of zarr's.
            RatZarr(FsspecStore.from_url(name) if place == "memory" else name).close()
    put("seg")
    put("plain")

    def tables(raster):
        found = find_sidecars(f"{folder}/{raster}")
        return [(one.band, one.name) for one in found]

    assert tables("seg") == [(1, None), (1, "tif"), (2, None), (2, "tif")]
    put("seg.tif")
    assert tables("seg") == [(1, None), (2, None), (2, "tif")]
    put("seg.band2.tif")
    assert tables("seg") == [(1, None), (2, None)]
    assert tables("seg.tif") == tables("seg.band2.tif") == [(1, None)]
    assert tables("plain") == [(1, None), (1, "tif")]


def test_nothing_there(tmp_path):
    assert find_sidecars(tmp_path / "seg.tif") == []
    assert find_sidecars(tmp_path / "no" / "such" / "seg.tif") == []


def test_the_other_place_is_looked_in_second(tmp_path, monkeypatch):
    other = tmp_path / "other"
    monkeypatch.setenv(SIDECAR_DIR, str(other))
    raster = tmp_path / "a" / "seg.tif"
    raster.parent.mkdir()
    # There is no such directory: it can't be written.
    elsewhere = writable_sidecar_path(tmp_path / "gone" / "seg.tif")
    assert Path(elsewhere).parent == other
    assert elsewhere.endswith("-seg.tif.rat.zarr")
    assert writable_sidecar_path(raster) == f"{raster}.rat.zarr"
    # Tables are written to disks and S3 alone.
    for name, is_there in (("s3://b/seg.tif", True), ("gs://b/seg.tif", False),
                           ("https://host/seg.tif", False)):  # fmt: skip
        assert (writable_sidecar_path(name) == f"{name}.rat.zarr") == is_there
    make(tmp_path, elsewhere)
    assert [one.path for one in find_sidecars(tmp_path / "gone" / "seg.tif")] == [elsewhere]
    assert find_sidecars(raster) == []
    make(tmp_path, f"{raster}.rat.zarr")
    assert [one.path for one in find_sidecars(raster)] == [f"{raster}.rat.zarr"]


def test_the_other_place_is_the_same_for_all_names_of_a_raster(tmp_path, monkeypatch):
    monkeypatch.setenv(SIDECAR_DIR, str(tmp_path / "other"))
    rasters = tmp_path / "rasters"
    (rasters / "inner").mkdir(parents=True)
    # There is no such directory: it can't be written.
    expected = writable_sidecar_path(tmp_path / "gone" / "seg.tif")
    monkeypatch.chdir(rasters)
    for name in ("../gone/seg.tif", "inner/../../gone/./seg.tif", rasters / ".." / "gone/seg.tif"):
        assert writable_sidecar_path(name) == expected
    # This is not the parent of the link, but of its target.
    (tmp_path / "link").symlink_to(rasters / "inner")
    assert writable_sidecar_path(tmp_path / "link/../../gone/seg.tif") == expected


def test_on_s3(s3_bucket):
    raster = f"s3://{s3_bucket}/dir/seg.tif"
    for name in (".rat.zarr", ".band2.rat.zarr", "f.rat.zarr"):
        RatZarr(raster + name).close()
    expected = [
        Sidecar(f"{raster}.rat.zarr", 1, None),
        Sidecar(f"{raster}.band2.rat.zarr", 2, None),
    ]
    assert find_sidecars(raster) == expected
    assert find_sidecars(f"/vsis3/{s3_bucket}/dir/seg.tif") == expected


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("x.tif.rat.zarr", True),
        ("s3://b/x.rat.zarr/", True),
        (".rat.zarr", False),
        ("x.tif", False),
    ],
)
def test_is_sidecar(name, answer):
    assert is_sidecar(name) is answer
