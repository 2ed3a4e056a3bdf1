"""A table from the pixels: numpy and scipy.ndimage are the judges."""

import shutil

import numpy as np
import pytest
from osgeo import gdal
from scipy import ndimage

from gdalbridge import BridgeError, attach, build, calc, open_table
from gdalbridge.errors import CancelledError, OutputExistsError
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import squares, write

pytestmark = pytest.mark.main_env_only


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_one_row_for_each_value(tmp_path, dtype):
    pixels = np.random.default_rng(2).integers(0, 120, (300, 200)).astype(dtype)
    path = write(tmp_path / "a.tif", pixels, TILED="YES")
    report = build(path)
    assert report.values == len(np.unique(pixels))
    table = open_table(path)
    assert table.columns == ["Histogram"]
    assert np.array_equal(table["Histogram"][:], np.bincount(pixels.ravel()))
    with attach(path) as rat:
        assert rat.GetUsageOfCol(0) == gdal.GFU_PixelCount


def test_places_and_areas(tmp_path):
    pixels = squares(230, 170, first=3)
    path = write(tmp_path / "a.tif", pixels)
    build(path, bbox=True, centroid=True, area=True)
    table = open_table(path)
    ids = np.unique(pixels)
    lines, columns = np.mgrid[:230, :170]
    assert np.array_equal(table["xmin"][:][ids], 500 + 2 * ndimage.minimum(columns, pixels, ids))
    assert np.array_equal(table["xmax"][:][ids], 502 + 2 * ndimage.maximum(columns, pixels, ids))
    assert np.array_equal(table["ymax"][:][ids], 900 - 2 * ndimage.minimum(lines, pixels, ids))
    assert np.array_equal(table["ymin"][:][ids], 898 - 2 * ndimage.maximum(lines, pixels, ids))
    assert np.allclose(table["x"][:][ids], 501 + 2 * ndimage.mean(columns, pixels, ids))
    assert np.allclose(table["y"][:][ids], 899 - 2 * ndimage.mean(lines, pixels, ids))
    assert np.array_equal(table["area"][:], 4.0 * table["Histogram"][:])
    assert np.isnan(table["x"][:3]).all()
    assert table["x"].attrs["units"] == "m"
    assert table["area"].attrs["units"] == "m2"


def test_a_rotated_raster(tmp_path):
    pixels = np.array([[1, 1], [2, 1]], "u1")
    transform = (100, 3, 4, 200, 4, -3)
    path = write(tmp_path / "a.tif", pixels, transform=transform)
    build(path, bbox=True, centroid=True, area=True, sparse=True)
    table = open_table(path)
    assert table["area"][:].tolist() == [75, 25]
    # The one pixel of value 2, by its four corners.
    corners = [gdal.ApplyGeoTransform(transform, x, y) for x in (0, 1) for y in (1, 2)]
    assert table["xmin"][1] == min(x for x, _ in corners)
    assert table["ymax"][1] == max(y for _, y in corners)
    assert (table["x"][1], table["y"][1]) == tuple(gdal.ApplyGeoTransform(transform, 0.5, 1.5))


def test_sparse_and_negative_values(tmp_path):
    pixels = np.array([[-7, 2**31 - 1, 5], [5, -7, -7]], "i4")
    path = write(tmp_path / "a.tif", pixels)
    with pytest.raises(BridgeError, match=r"-7.*sparse"):
        build(path)
    assert open_table(path).columns == []
    build(path, sparse=True)
    table = open_table(path)
    assert table["Value"][:].tolist() == [-7, 5, 2**31 - 1]
    assert table["Histogram"][:].tolist() == [3, 2, 1]
    with attach(path) as rat:
        assert rat.GetRowOfValue(5) == 1


def test_the_largest_id(tmp_path):
    pixels = np.array([[0, 2**32 - 1]], "u4")
    path = write(tmp_path / "a.tif", pixels)
    build(path, sparse=True)
    assert open_table(path)["Value"][:].tolist() == [0, 2**32 - 1]


def test_a_sparse_dense_table_says_so(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[1, 2_000_000]], "u4"))
    report = build(path)
    assert report.rows == 2_000_001
    assert "2 of 2000001 rows" in report.notes[0]
    assert "sparse=True" in report.notes[0]


def test_a_table_of_empty_rows_is_refused_unless_asked_for(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[1, 4_000_000_000]], "u4"))
    with pytest.raises(
        BridgeError,
        match=r"2 values, the largest is 4000000000.*4000000001 rows.*sparse=True.*sparse=False",
    ):
        build(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tif"]
    build(path, sparse=True)
    assert open_table(path)["Value"][:].tolist() == [1, 4_000_000_000]
    other = write(tmp_path / "b.tif", np.array([[1, 10_000_001]], "u4"))
    with pytest.raises(BridgeError, match="10000002 rows"):
        build(other)
    assert build(other, sparse=False).rows == 10_000_002
    # As many values as are worth it.
    third = write(tmp_path / "c.tif", np.arange(20_001, dtype="u4").reshape(1, -1) * 500)
    assert build(third).rows == 10_000_001


def test_a_further_table(tmp_path):
    pixels = np.array([[0, 1, 1, 2]], "u1")
    path = write(tmp_path / "a.tif", pixels)
    build(path)
    with pytest.raises(
        BridgeError, match=r"has no sidecar 'again' of band 1; it has \(unnamed\)$"
    ):
        open_table(path, names=["again"])
    with pytest.raises(BridgeError, match=r"has no sidecar 'again'; it has \(unnamed\)$"):
        attach(path, names=["again"])
    build(path, sparse=True, name="again")
    with open_table(path, names=["again"]) as table:
        assert table["Value"][:].tolist() == [0, 1, 2]
        assert table["Histogram"][:].tolist() == [1, 2, 1]
    other = write(tmp_path / "b.tif", pixels + 5)
    build(other)
    # Row 0 would be pixel 0 in one and pixel 5 in the other.
    with pytest.raises(BridgeError, match=r"a table of 8 rows, and the further one would have 3"):
        build(other, sparse=True, name="again")
    build(other, tmp_path / "elsewhere.rat.zarr", sparse=True)
    assert open_table(tmp_path / "elsewhere.rat.zarr")["Value"][:].tolist() == [5, 6, 7]


def test_nodata_is_not_counted(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[1, 9, 9, 2]], "u1"), nodata=9)
    build(path)
    assert open_table(path)["Histogram"][:].tolist() == [0, 1, 1]
    empty = write(tmp_path / "b.tif", np.full((4, 4), 9, "u1"), nodata=9)
    report = build(empty, bbox=True, centroid=True, area=True)
    assert report.rows == 0
    assert report.columns == ("Histogram", "xmin", "ymin", "xmax", "ymax", "x", "y", "area")


def test_recount_by_the_tables_own_rows(tmp_path):
    pixels = np.array([[10, 10, 20]], "u1")
    path = write(tmp_path / "a.tif", pixels)
    build(path, sparse=True)
    with open_table(path) as table:
        table["class"] = ["w", "f"]
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.GetRasterBand(1).WriteArray(np.array([[20, 20, 20]], "u1"))
    dataset = None
    with pytest.warns(Warning, match="pixels"):
        build(path, recount=True)
    table = open_table(path)
    assert table["Histogram"][:].tolist() == [0, 3]
    assert table["class"][:].tolist() == ["w", "f"]
    plain = write(tmp_path / "b.tif", pixels)
    with pytest.raises(BridgeError, match="no table"):
        build(plain, recount=True)


def test_colours_and_names(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[0, 1, 2]], "u1"))
    dataset = gdal.Open(path, gdal.GA_Update)
    colours = gdal.ColorTable()
    colours.SetColorEntry(0, (1, 2, 3, 255))
    colours.SetColorEntry(2, (9, 8, 7, 255))
    dataset.GetRasterBand(1).SetRasterColorTable(colours)
    dataset.GetRasterBand(1).SetRasterCategoryNames(["", "water", "näh"])
    dataset = None
    build(path)
    table = open_table(path)
    assert table["Class_Name"][:].tolist() == ["", "water", "näh"]
    assert [int(table[key][2]) for key in ("Red", "Green", "Blue", "Alpha")] == [9, 8, 7, 255]
    assert table["Red"].attrs["GDAL_USAGE"] == gdal.GFU_Red


def test_names_of_a_few_of_many_values(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[0, 1, 70_000]], "u4"))
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.GetRasterBand(1).SetRasterCategoryNames(["sea", "land"])
    dataset = None
    build(path)
    names = open_table(path)["Class_Name"]
    assert (names[:2].tolist(), names[70_000], len(names)) == (["sea", "land"], "", 70_001)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u8", "i8"])
def test_other_types_are_refused_by_name(tmp_path, dtype):
    path = write(tmp_path / "a.tif", np.ones((2, 2), dtype))
    with pytest.raises(BridgeError, match=rf"a\.tif.*{np.dtype(dtype)}"):
        build(path)


def test_an_existing_table_is_kept(tmp_path):
    path = write(tmp_path / "a.tif", np.array([[0, 1]], "u1"))
    build(path)
    with pytest.raises(OutputExistsError, match="Histogram"):
        build(path)
    build(path, overwrite=True)
    assert open_table(path)["Histogram"][:].tolist() == [1, 1]


def test_cancelling_leaves_nothing(tmp_path):
    path = write(tmp_path / "a.tif", squares(100, 100))
    with pytest.raises(CancelledError):
        build(path, progress=lambda *_: 0)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tif"]


def test_the_land_cover_rasters_own_histogram(nlcd):
    with open_table(nlcd) as table:
        own = table["Histogram"][:]
    pixels = gdal.Open(str(nlcd)).ReadAsArray()
    build(nlcd, overwrite=True)
    with open_table(nlcd) as table:
        found = table["Histogram"][:]
    assert np.array_equal(found[: pixels.max() + 1], np.bincount(pixels.ravel()))
    assert (found > 0).sum() == len(np.unique(pixels))
    # The raster is a part of the map whose table it carries.
    assert (found <= own[: len(found)]).all()


def test_a_sidecar_whose_creation_was_killed_is_completed(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1, 1, 2]], "u1"))
    RatZarr(f"{path}.rat.zarr").close()
    # What is left of it if it is killed before its second document.
    shutil.rmtree(f"{path}.rat.zarr/RAT")
    with pytest.raises(BridgeError, match=r"no other band has one.*gdalbridge build"):
        calc(path, {"x": "1"})
    assert build(path).rows == 3
    with open_table(path) as table:
        assert table["Histogram"][:].tolist() == [0, 2, 1]
