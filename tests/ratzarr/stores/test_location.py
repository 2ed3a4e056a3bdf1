from pathlib import Path

import pytest

from ratzarr import RatZarrError
from ratzarr.stores.base import gdal_name, parse, url_name


@pytest.mark.parametrize(
    ("filename", "kind", "path"),
    [
        ("/data/x.zarr", "local", "/data/x.zarr"),
        ("/data/x.zarr/", "local", "/data/x.zarr"),
        (Path("/data/x.zarr"), "local", "/data/x.zarr"),
        ("file:///data/x%20y.zarr", "local", "/data/x y.zarr"),
        ("s3://bucket/a/x.zarr/", "s3", "bucket/a/x.zarr"),
        ("S3://bucket/x.zarr", "s3", "bucket/x.zarr"),
        ("/vsis3/bucket/x.zarr", "s3", "bucket/x.zarr"),
        ("https://host/x.zarr/", "url", "https://host/x.zarr"),
        ("/vsicurl/https://host/x.zarr", "url", "https://host/x.zarr"),
        ("/vsigs/bucket/x.zarr", "url", "gs://bucket/x.zarr"),
        ("memory://x.zarr", "url", "memory://x.zarr"),
    ],
)
def test_filenames(filename, kind, path):
    found = parse(filename)
    assert (found.kind, found.path) == (kind, path)


def test_relative_paths_do_not_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = parse("x.zarr")
    monkeypatch.chdir("/")
    assert found.path == str(tmp_path / "x.zarr")


@pytest.mark.parametrize(
    "filename",
    [
        "",
        "/",
        "a\x00b",
        None,
        5,
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "s3://b/a/../x",
        "s3://b/a//x",
        "/vsimem/x.zarr",
        Path("s3://bucket/x.zarr"),
        "/vsizip/a.zip/x.zarr",
    ],
)
def test_places_that_are_none(filename):
    with pytest.raises(RatZarrError):
        parse(filename)


@pytest.mark.parametrize(
    ("url", "vsi"),
    [
        ("s3://bucket/x.tif", "/vsis3/bucket/x.tif"),
        ("gs://bucket/x.tif", "/vsigs/bucket/x.tif"),
        ("az://container/x.tif", "/vsiaz/container/x.tif"),
        ("https://host/x.tif", "/vsicurl/https://host/x.tif"),
        ("/data/x.tif", "/data/x.tif"),
    ],
)
def test_gdals_names_both_ways(url, vsi):
    assert gdal_name(url) == vsi
    assert url_name(vsi) == url
