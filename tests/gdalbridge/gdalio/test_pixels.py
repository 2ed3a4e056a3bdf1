"""Pixels read by windows."""

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge.gdalio.pixels import Pixels
from tests.gdalbridge.pixel_rasters import write

BANDS = np.random.default_rng(0).integers(0, 65536, (3, 1000, 1300)).astype("u2")


@pytest.mark.parametrize(
    "options",
    [
        {"TILED": "YES"},
        {"TILED": "YES", "INTERLEAVE": "BAND"},
        {"COMPRESS": "DEFLATE"},
    ],
    ids=["tiles", "tiles of each band", "strips"],
)
def test_gdal_keeps_no_blocks_of_windows_that_were_read(tmp_path, options):
    path = write(tmp_path / "image.tif", BANDS, **options)
    before = gdal.GetCacheUsed()
    with Pixels(path, [1, 2, 3]) as pixels:
        for window in pixels.windows(2**16):
            here = np.s_[window.y : window.y + window.height, window.x : window.x + window.width]
            for index in range(3):
                assert np.array_equal(pixels.read(window, index), BANDS[index][here])
            assert gdal.GetCacheUsed() == before


def test_gdal_keeps_blocks_that_the_next_windows_need(tmp_path):
    path = write(tmp_path / "image.tif", BANDS, TILED="YES")
    before = gdal.GetCacheUsed()
    with Pixels(path) as pixels:
        first = pixels.windows()[0]
        part = type(first)(0, 0, 300, 200)
        assert np.array_equal(pixels.read(part), BANDS[0, :200, :300])
        assert gdal.GetCacheUsed() > before


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("u1", np.inf), ("u1", -np.inf), ("u1", 1.5), ("i2", np.nan), ("u2", -1)]
)
def test_a_nodata_value_that_no_pixel_can_have_is_none(tmp_path, dtype, nodata):
    path = write(tmp_path / "seg.tif", np.array([[1, 2]], dtype), nodata=nodata)
    with Pixels(path) as pixels:
        assert pixels.nodata == [None]
