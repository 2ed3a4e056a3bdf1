"""Sidecars on a server that does not say what lies beside a raster: a warning, or an error."""

import os
import warnings

import numpy as np
import pytest
from osgeo import gdal

import gdalbridge
from gdalbridge import attach, copy_to_sidecar, find_sidecars, list_tables
from gdalbridge.errors import LossWarning
from ratzarr import RatZarr, RedirectError, StoreError, StorePermissionError
from tests.gdalbridge.sample_rasters import make
from tests.servers.scripted import scripted_s3

pytestmark = pytest.mark.moto_only

RASTER = "/vsis3/bucket/dir/seg.tif"
LISTING = ".*list-type=2.*"
ANSWERS = [
    (200, b"<!DOCTYPE html><html/>", {"Content-Type": "text/html"}),
    (200, b"", {}),
    (200, b"<Wrong/>", {"Content-Type": "application/xml"}),
    (403, b"<html>No</html>", {"Content-Type": "text/html"}),
    (404, b"<html>No</html>", {"Content-Type": "text/html"}),
    (301, b"", {"x-amz-bucket-region": "us-west-2"}),
]


def raster_with_table(path):
    table = gdal.RasterAttributeTable()
    table.CreateColumn("own", gdal.GFT_Integer, gdal.GFU_Generic)
    table.SetRowCount(3)
    for row in range(3):
        table.SetValueAsInt(row, 0, row + 1)
    created = make(path)
    created.GetRasterBand(1).SetDefaultRAT(table)
    created.Close() if hasattr(created, "Close") else created.FlushCache()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A bucket with a raster that has a table of its own."""
    path = str(tmp_path / "seg.tif")
    raster_with_table(path)
    with scripted_s3() as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "RATZARR_S3_BACKOFF": "0.01",
        }.items():
            monkeypatch.setenv(name, value)
        for file in os.listdir(tmp_path):
            data = (tmp_path / file).read_bytes()
            server.answer("GET|HEAD", f"/bucket/dir/{file}", 200, body=data, headers={
                "ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"})  # fmt: skip
        yield server


def test_a_bucket_that_may_not_be_listed_is_one_warning(server):
    server.answer("GET", LISTING, 403, "AccessDenied")
    with pytest.warns(LossWarning, match=r"sidecars can't be listed.*AccessDenied") as told:
        assert find_sidecars(RASTER) == []
    assert len(told) == 1


@pytest.mark.parametrize(("status", "body", "headers"), ANSWERS)
def test_nonsense_is_an_error(server, status, body, headers):
    server.answer("GET", LISTING, status, body=body, headers=headers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StoreError) as caught:
            find_sidecars(RASTER)
    assert isinstance(caught.value, RedirectError) == (status == 301)


def test_who_asks_for_tables_is_not_told_that_there_are_none(server):
    """A move would leave them behind, and ``ls`` would say something wrong."""
    server.answer("GET", LISTING, 403, "AccessDenied")
    for work in (
        lambda: list_tables(RASTER),
        lambda: gdalbridge.check(RASTER),
        lambda: find_sidecars(RASTER, must_list=True),
    ):
        with pytest.raises(StorePermissionError):
            work()


def test_attaching_without_a_listing(moto_s3, monkeypatch, tmp_path):
    """The raster's own table, and one warning."""
    path = str(tmp_path / "seg.tif")
    raster_with_table(path)
    copy_to_sidecar(path)

    dataset = gdal.Open(path)
    monkeypatch.setenv("GDALBRIDGE_SIDECAR_DIR", "s3://bucket/tables")
    with scripted_s3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        server.answer("GET", LISTING, 403, "AccessDenied")
        with pytest.warns(LossWarning, match="sidecars can't be listed") as told:
            table = attach(dataset)
        assert len(told) == 1
        assert table.GetNameOfCol(0) == "own"
        assert np.asarray(table.ReadAsArray(0)).tolist() == [1, 2, 3]
        server.answer("GET", LISTING, 200, body=b"")
        with pytest.raises(StoreError, match="does not speak S3"):
            attach(dataset)
    assert RatZarr.exists(f"{path}.rat.zarr")
