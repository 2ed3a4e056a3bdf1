"""Samples of pixels: against numpy's own reading; and what they cost on S3."""

import hashlib
import os
import time

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.gdalio.compat import data_type
from gdalbridge.gdalio.datasets import open_dataset, opened
from gdalbridge.sidecars.provenance import differing_samples, is_remote, sample_pixels


def build(path, values, options=(), kind=gdal.GDT_UInt16, bands=1):
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), values.shape[1], values.shape[0], bands, kind, list(options)
    )
    for band in range(1, bands + 1):
        dataset.GetRasterBand(band).WriteArray(values)
    del dataset
    return str(path)


def noise(shape, seed=1):
    return np.random.default_rng(seed).integers(0, 300, shape).astype("<u2")


def test_samples_are_digests_of_the_values(tmp_path):
    values = noise((1200, 3000))
    path = build(tmp_path / "x.tif", values)
    found = sample_pixels(open_dataset(path), 1, path)
    assert len(found) == 8
    assert "1280,592,256,16" in found
    for window, digest in found.items():
        x, y, columns, rows = map(int, window.split(","))
        part = values[y : y + rows, x : x + columns]
        assert part.shape == (rows, columns)
        assert digest == hashlib.sha256(part.tobytes()).hexdigest()[:16]
    values[:] = 300
    path = build(tmp_path / "y.tif", values)
    assert set(sample_pixels(open_dataset(path), 1, path).values()) == {"all 2c01"}


def test_a_file_that_did_not_change_is_sampled_once(tmp_path):
    path = build(tmp_path / "x.tif", noise((1200, 3000)))
    os.utime(path, (1, 1))
    # A change a moment ago could be followed by another with the same time.
    time.sleep(0.2)
    before = sample_pixels(open_dataset(path), 1, path)
    assert sample_pixels(open_dataset(path), 1, path) == before
    build(path, noise((1200, 3000), 2))
    time.sleep(0.2)
    after = sample_pixels(open_dataset(path), 1, path)
    assert after.keys() == before.keys()
    assert not after.items() & before.items()
    os.utime(path, (1, 1))
    assert sample_pixels(open_dataset(path), 1, path) == after


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (17, 257), (16, 256), (40, 40)])
def test_windows_lie_within_the_raster(tmp_path, shape):
    path = build(tmp_path / "x.tif", noise(shape))
    found = sample_pixels(open_dataset(path), 1, path)
    assert found
    for window in found:
        x, y, columns, rows = map(int, window.split(","))
        assert 0 <= x < x + columns <= shape[1]
        assert 0 <= y < y + rows <= shape[0]


def test_a_block_too_large_is_not_decoded(tmp_path):
    values = np.zeros((4100, 4100), "u2")
    path = build(tmp_path / "x.tif", values, ["BLOCKYSIZE=4100", "COMPRESS=DEFLATE"])
    assert sample_pixels(open_dataset(path), 1, path) == {}


def test_what_can_not_be_read_has_none(tmp_path):
    path = build(tmp_path / "x.tif", noise((2000, 2000)), ["COMPRESS=DEFLATE", "TILED=YES"])
    with open(path, "r+b") as file:
        file.truncate(20000)
    assert sample_pixels(open_dataset(path), 1, path) == {}


def test_names_of_data_types():
    for kind, name in ((gdal.GDT_Byte, "UInt8"), (gdal.GDT_Float64, "Float64")):
        dataset = gdal.GetDriverByName("MEM").Create("", 1, 1, 1, kind)
        assert data_type(dataset.GetRasterBand(1)) == name


def test_what_is_remote():
    for name in ("/vsis3/b/x.tif", "/vsizip//vsicurl/http://h/x.zip/x.tif", 'NETCDF:"/vsigs/b":v'):
        assert is_remote(name)
    for name in ("/vsimem/x.tif", "/vsizip//tmp/x.zip/y.tif", "vsis3.tif", "C:/x.tif"):
        assert not is_remote(name)


def test_what_is_compared():
    then = {"a": "1", "b": "all 00", "c": "empty", "d": "empty", "e": "5"}
    assert differing_samples(then, then) == ([], 5)
    assert differing_samples(then, {"a": "2", "x": "9"}) == (["a"], 1)
    # What is not stored has one value in a copy, and may be any.
    assert differing_samples(then, {"b": "empty", "c": "all ff"}) == ([], 0)
    assert differing_samples(then, {"d": "1234", "e": "empty"}) == (["d", "e"], 2)


CASES = {
    "strips": ((1000, 1000), []),
    "few tiles": ((1500, 2000), ["TILED=YES", "COMPRESS=LZW"]),
    "many strips": ((20000, 300), ["BLOCKYSIZE=1", "COMPRESS=LZW"]),
    "many tiles": ((2000, 2000), ["TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16"]),
    "BigTIFF": ((2000, 2000), ["TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32", "BIGTIFF=YES"]),
    "bands": ((1500, 1500), ["TILED=YES", "INTERLEAVE=BAND"]),
    "edited": ((1500, 2000), ["TILED=YES", "COMPRESS=LZW"]),
    "COG": ((3000, 3000), ["COMPRESS=LZW"]),
}


@pytest.mark.parametrize("case", CASES)
def test_on_s3_they_cost_two_requests_at_most(tmp_path, counted_s3, case):
    place, proxy = counted_s3
    shape, options = CASES[case]
    bands = 3 if case == "bands" else 1
    if case == "COG":
        plain = build(tmp_path / "plain.tif", noise(shape))
        path = str(tmp_path / "x.tif")
        gdal.Translate(path, plain, format="COG", creationOptions=options).FlushCache()
    else:
        path = build(tmp_path / "x.tif", noise(shape), options, bands=bands)
    if case == "edited":
        dataset = open_dataset(path, update=True)
        dataset.SetMetadataItem("note", "x" * 50000)
        dataset.GetRasterBand(1).WriteArray(noise(shape, 2) * 200)
        del dataset
    here = sample_pixels(open_dataset(path), bands, path)
    place.client.upload_file(path, place.bucket, "dir/x.tif")
    name = f"/vsis3/{place.bucket}/dir/x.tif"
    with opened(name) as dataset:
        proxy.clear()
        there = sample_pixels(dataset, bands, name)
        assert len(proxy.requests) <= 2
    assert 1 <= len(there) <= 2
    assert there.items() <= here.items()
    read = sum(int(b) - int(a) + 1 for a, b in (
        one.headers["range"].removeprefix("bytes=").split("-") for one in proxy.requests
    ))  # fmt: skip
    assert read < 1_500_000
