"""Scripts give the same tables in every executor, whatever dies, however large, however far away."""

import os
import shutil

import numpy as np
import pytest
import zarr
from numpy.dtypes import StringDType
from osgeo import gdal

from gdalbridge.ratapplier import RatHandle, apply
from ratzarr import RatZarr
from tests.ratzarr.conformance.base import assert_same

from . import scripts

ROWS, CHUNK = 5_300, 1_000
"""Six blocks, the last of them a short one."""
STRING = StringDType()


def column(path, name):
    """Return a column as zarr-python reads it."""
    return zarr.open_group(path, mode="r", zarr_format=3)[f"RAT/{name}"][:]


def made(path, chunk=CHUNK, **columns):
    """Make a table of these columns."""
    with RatZarr(path) as table:
        table.setChunkSize(chunk)
        table.setRowCount(len(next(iter(columns.values()))))
        for name, values in columns.items():
            table.createColumn(name, values.dtype, *values.shape[1:])
            table.writeBlock(name, values, 0)
    return path


@pytest.fixture(scope="module")
def values():
    chance = np.random.default_rng(5)
    return {
        "red": chance.integers(1, 4000, ROWS).astype("uint16"),
        "nir": chance.integers(1, 4000, ROWS).astype("uint16"),
        "oldclass": chance.integers(0, 9, ROWS).astype("int32"),
        "height": chance.gamma(2, 3, ROWS).astype("float32"),
        "pixels": chance.integers(1, 10**6, ROWS).astype("int64"),
        "yearly": chance.normal(size=(ROWS, 4)),
    }


@pytest.fixture(scope="module")
def table(values, tmp_path_factory):
    return made(str(tmp_path_factory.mktemp("table") / "seg.rat.zarr"), **values)


@pytest.fixture
def path(table, tmp_path):
    """A table of its own for each test."""
    shutil.copytree(table, tmp_path / "seg.rat.zarr")
    return str(tmp_path / "seg.rat.zarr")


@pytest.fixture
def controls(executor):
    return scripts.controls_for(executor, CHUNK)


def test_ratio(path, values, controls):
    report = scripts.ratio(path, controls)
    red, nir = (values[name].astype("f8") for name in ("red", "nir"))
    assert_same(column(path, "ndvi"), (nir - red) / (nir + red))
    assert (report.rows, report.blocks, report.blocks_there) == (ROWS, 6, 0)


def test_recode(path, values, controls):
    lookup = np.array([7, 1, 1, 3, 200, 5, 6, 0, 9], "uint8")
    scripts.recode(path, lookup, controls)
    assert_same(column(path, "newclass"), lookup[values["oldclass"]])


def test_classify(path, values, controls):
    scripts.classify(path, controls)
    bounds = [(0.5, "ground"), (2.0, "shrub"), (10.0, "mid storey"), (np.inf, "höchste")]
    expected = [next(n for top, n in bounds if value < top) for value in values["height"].tolist()]
    assert column(path, "storey").tolist() == expected


def test_join(path, values, controls, tmp_path):
    raster = str(tmp_path / "seg.tif")
    gdal.GetDriverByName("GTiff").Create(raster, 2, 2)
    os.rename(path, f"{raster}.rat.zarr")
    entropy = np.random.default_rng(6).random(ROWS)
    texture = made(f"{raster}.texture.rat.zarr", entropy=entropy)
    scripts.join(raster, texture, controls)
    assert_same(column(f"{raster}.rat.zarr", "rough"), (values["height"] > 2) & (entropy > 0.5))


def test_filter(path, values, controls, tmp_path):
    shorter = str(tmp_path / "tall.rat.zarr")
    scripts.keep_tall(path, shorter, controls)
    tall = np.flatnonzero(values["height"] > 10)
    assert 50 < len(tall) < ROWS / 2
    assert_same(column(shorter, "row"), tall.astype("int64"))
    assert_same(column(shorter, "height"), values["height"][tall])


def test_years(path, values, controls):
    scripts.years(path, controls)
    assert_same(column(path, "mean"), values["yearly"].mean(axis=1))


def test_totals(path, values, controls):
    totals = scripts.class_totals(path, controls)
    expected = np.bincount(values["oldclass"], values["pixels"], minlength=9)
    assert totals.pixels.tolist() == expected.tolist()
    # Added up in the order of the blocks.
    assert totals.blocks == list(range(6))


def set_environment(variables):
    os.environ.update(variables)


def test_from_a_geotiff_to_s3(controls, executor, request, tmp_path, moto_s3):
    if executor.kind == "dask":
        # As docs/apply.md says: workers elsewhere have settings of their own.
        client = request.getfixturevalue("dask_client")
        client.run(set_environment, moto_s3.moto.environment)
    raster = str(tmp_path / "lc.tif")
    rows = 2_300
    counts = np.arange(rows) * 3.5
    names = [f"class {n % 7} ü" for n in range(rows)]
    dataset = gdal.GetDriverByName("GTiff").Create(raster, 2, 2)
    rat = gdal.RasterAttributeTable()
    rat.CreateColumn("Histogram", gdal.GFT_Real, gdal.GFU_PixelCount)
    rat.CreateColumn("Class", gdal.GFT_String, gdal.GFU_Name)
    rat.SetRowCount(rows)
    rat.WriteArray(counts, 0)
    rat.WriteArray(np.array([name.encode() for name in names]), 1)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset = rat = None
    url = moto_s3.new()
    scripts.to_s3(raster, url, controls)
    group = moto_s3.open(url)
    assert_same(group["RAT/area_ha"][:], counts * 0.09)
    assert group["RAT/name"][:].tolist() == names


# Columns that are read and written


def doubled_in_place(info, inputs, outputs):
    outputs.img.n = inputs.img.n * 2


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_rasters_column_is_replaced_by_one_of_its_name(executor, tmp_path, sidecar):
    """What is read is the raster's own to the end, and not what is being written."""
    n = np.arange(60 * 1024, dtype="int32")
    raster = str(tmp_path / "seg.tif")
    dataset = gdal.GetDriverByName("GTiff").Create(raster, 2, 2)
    rat = gdal.RasterAttributeTable()
    rat.CreateColumn("n", gdal.GFT_Integer, gdal.GFU_Generic)
    rat.SetRowCount(len(n))
    rat.WriteArray(n, 0)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset = rat = None
    if sidecar:
        made(f"{raster}.rat.zarr", chunk=1024, other=n)
    img = scripts.tables(img=RatHandle(raster))
    apply(doubled_in_place, img, img, controls=scripts.controls_for(executor, 1024))
    assert_same(column(f"{raster}.rat.zarr", "n"), n * 2)
