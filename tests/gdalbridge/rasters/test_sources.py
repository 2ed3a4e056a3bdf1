"""No output replaces a file of the raster that it is made from."""

import os
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import BridgeError, bake, build, paint, polygonize, select
from tests.gdalbridge.pixel_rasters import write

WRITERS = {
    "paint": lambda raster, out: paint(raster, "Histogram", out, overwrite=True),
    "picture": lambda raster, out: paint(raster, "Histogram", out, format="PNG", overwrite=True),
    "select": lambda raster, out: select(raster, "Histogram > 0", mask=out, overwrite=True),
    "bake": lambda raster, out: bake(raster, out, overwrite=True),
}


@pytest.fixture
def raster(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1, 1], [2, 3]], "u1"))
    build(path)
    return Path(path)


@pytest.mark.parametrize("name", WRITERS)
def test_the_raster_is_not_replaced(raster, tmp_path, name):
    before = raster.read_bytes()
    aliases = [raster, tmp_path / "soft.tif", tmp_path / "hard.tif", f"{tmp_path}/./seg.tif"]
    aliases[1].symlink_to(raster)
    os.link(raster, aliases[2])
    for out in aliases:
        with pytest.raises(BridgeError, match="belongs to the raster"):
            WRITERS[name](raster, out)
    assert raster.read_bytes() == before
    assert aliases[1].is_symlink()


@pytest.mark.parametrize("name", ["paint", "select"])
def test_nor_the_source_of_a_virtual_one(raster, tmp_path, name):
    before = raster.read_bytes()
    virtual = tmp_path / "view.vrt"
    gdal.Translate(str(virtual), str(raster), format="VRT")
    with pytest.raises(BridgeError, match=r"seg\.tif belongs to the raster"):
        WRITERS[name](virtual, raster)
    assert raster.read_bytes() == before


def test_a_geopackage_with_the_raster_gets_no_polygons(raster, tmp_path):
    package = tmp_path / "seg.gpkg"
    gdal.Translate(str(package), str(raster), format="GPKG")
    build(package)
    before = package.read_bytes()
    with pytest.raises(BridgeError, match=r"seg\.gpkg belongs to the raster"):
        polygonize(package, package, overwrite=True)
    assert package.read_bytes() == before
