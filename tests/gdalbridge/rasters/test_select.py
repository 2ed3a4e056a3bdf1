"""Rows and pixels by a condition: pandas and numpy on whole arrays are the judges."""

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import BridgeError, build, open_table, select
from gdalbridge.errors import (
    CancelledError,
    ColumnSelectionError,
    NaNWarning,
    OutputExistsError,
    RasterNotFoundError,
)
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import squares, write

pytestmark = pytest.mark.main_env_only

WHERE = "ndvi > 0.6 and class = 'forest' and not isnan(ndvi)"
CLASSES = np.array(["forest", "water", ""])


def filled(path, **kwargs):
    """Build a table with an index of vegetation and a class; return it as a data frame."""
    build(path, **kwargs)
    with open_table(path) as table:
        rows = len(table)
        ndvi = np.random.default_rng(3).random(rows)
        ndvi[::7] = np.nan
        table["ndvi"] = ndvi
        table["class"] = CLASSES[np.arange(rows) % 3]
        return table.to_pandas()


def wanted(frame):
    return frame.index[(frame["ndvi"] > 0.6) & (frame["class"] == "forest")].to_numpy()


def pixels_of(path):
    dataset = gdal.Open(str(path))
    return dataset.ReadAsArray(), dataset


@pytest.fixture
def segments(tmp_path):
    pixels = squares(310, 470, first=1)
    pixels[5:90, 7:60] = 3
    pixels[100:120] = 0
    return write(tmp_path / "seg.tif", pixels, nodata=0, TILED="YES"), pixels.astype(int)


def test_rows_and_their_pixels(tmp_path, segments):
    path, labels = segments
    frame = filled(path)
    told = []
    found = select(
        path, WHERE, mask=tmp_path / "mask.tif", progress=lambda done, *_: told.append(done) or 1
    )
    assert found.dtype == np.int64
    assert np.array_equal(found, wanted(frame))
    assert 10 < len(found) < len(frame) / 2
    mask, dataset = pixels_of(tmp_path / "mask.tif")
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.isin(labels, found))
    assert dataset.GetGeoTransform() == (500, 2, 0, 900, 0, -2)
    assert dataset.GetSpatialRef().GetAuthorityCode(None) == "32755"
    structure = dataset.GetRasterBand(1).GetBlockSize()
    assert structure == [256, 256]
    assert dataset.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
    assert dataset.GetRasterBand(1).GetNoDataValue() is None
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_values_that_are_not_the_rows(tmp_path):
    pixels = np.array([[-7, 4, 4, 2_000_000_000], [9, 4, -7, 9]], "i4")
    path = write(tmp_path / "seg.tif", pixels)
    build(path, sparse=True)
    rows = select(path, "Value < 0 or Value > 100", mask=tmp_path / "m.tif")
    assert rows.tolist() == [0, 3]
    assert pixels_of(tmp_path / "m.tif")[0].tolist() == [[1, 0, 0, 1], [0, 0, 1, 0]]


def test_pixels_that_are_nodata_or_have_no_row(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 2, 9]], "u1"), nodata=1)
    with RatZarr(f"{path}.rat.zarr", newRowCount=3) as table:
        table["x"] = [1, 1, 1]
    assert select(path, "x = 1", mask=tmp_path / "m.tif").tolist() == [0, 1, 2]
    assert pixels_of(tmp_path / "m.tif")[0].tolist() == [[1, 0, 1, 0]]


@pytest.mark.parametrize(("where", "rows"), [("x > 5", []), ("true", [0, 1, 2]), ("x = 2", [1])])
def test_nothing_all_and_one(tmp_path, where, rows):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 2, 2]], "u1"))
    with open_table(path) as table:
        table["x"] = [1, 2, 3]
    found = select(path, where, mask=tmp_path / "m.tif")
    assert found.tolist() == rows
    assert found.dtype == np.int64
    assert np.array_equal(pixels_of(tmp_path / "m.tif")[0], np.isin([[0, 1, 2, 2]], rows))


def test_a_raster_of_nodata_alone(tmp_path):
    path = write(tmp_path / "seg.tif", np.zeros((300, 300), "u1"), nodata=0)
    with open_table(path) as table:
        table["x"] = [1]
    assert select(path, "x = 1", mask=tmp_path / "m.tif").tolist() == [0]
    assert not pixels_of(tmp_path / "m.tif")[0].any()


def test_a_mask_of_the_raster_counts(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 1]], "u1"))
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(np.array([[255, 0, 255]], "u1"))
    dataset = None
    with open_table(path) as table:
        table["x"] = [1, 1]
    select(path, "x = 1", mask=tmp_path / "m.tif")
    assert pixels_of(tmp_path / "m.tif")[0].tolist() == [[1, 0, 1]]


def test_nan_is_greater_than_any_number(segments):
    """As in every expression."""
    frame = filled(segments[0])
    rows = frame.index[(frame["ndvi"] > 0.6) | frame["ndvi"].isna()]
    with pytest.warns(NaNWarning, match="NaN in ndvi"):
        found = select(segments[0], "ndvi > 0.6")
    assert np.array_equal(found, rows)


def test_null_is_not_selected_and_a_store_needs_no_raster(tmp_path):
    with RatZarr(f"{tmp_path}/a.rat.zarr", newRowCount=4) as table:
        table["x"] = [1.0, float("nan"), 3.0, 4.0]
        table["y"] = [True, True, False, True]
    assert select(f"{tmp_path}/a.rat.zarr", "y and x < 4").tolist() == [0]


def test_what_is_refused(tmp_path, segments):
    path, _ = segments
    with pytest.raises(RasterNotFoundError, match="gdalbridge build"):
        select(path, "x > 1")
    filled(path)
    out = tmp_path / "mask.tif"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"mask\.tif already exists"):
        select(path, WHERE, mask=out)
    assert out.read_bytes() == b"mine"
    select(path, WHERE, mask=out, overwrite=True)
    assert pixels_of(out)[0].any()
    for where, error, words in (
        ("ndvi", BridgeError, "not true or false"),
        ("ndv1 > 0", ColumnSelectionError, "ndvi"),
        ("", BridgeError, "expression"),
    ):
        with pytest.raises(error, match=words):
            select(path, where)
    with pytest.raises(BridgeError, match=r"\.tif"):
        select(path, WHERE, mask=tmp_path / "mask.png")
    with pytest.raises(BridgeError, match="no directory"):
        select(path, WHERE, mask=tmp_path / "no" / "mask.tif")


def test_a_cancelled_mask_leaves_nothing(tmp_path, segments):
    path, _ = segments
    filled(path)
    before = sorted(one.name for one in tmp_path.iterdir())
    with pytest.raises(CancelledError):
        select(path, WHERE, mask=tmp_path / "mask.tif", progress=lambda done, *_: done < 0.4)
    assert sorted(one.name for one in tmp_path.iterdir()) == before


def test_on_s3(tmp_path, segments, moto_s3):
    path, labels = segments
    moto_s3.client.upload_file(path, moto_s3.bucket, "d/seg.tif")
    name = f"/vsis3/{moto_s3.bucket}/d/seg.tif"
    frame = filled(name)
    found = select(name, WHERE, mask=f"s3://{moto_s3.bucket}/d/mask.tif")
    assert np.array_equal(found, wanted(frame))
    moto_s3.client.download_file(moto_s3.bucket, "d/mask.tif", str(tmp_path / "mask.tif"))
    assert np.array_equal(pixels_of(tmp_path / "mask.tif")[0], np.isin(labels, found))
