"""Columns on pixels: numpy.take on whole arrays, and GDAL's own reading, are the judges."""

import json
import os
import pickle

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import BridgeError, CancelledError, bake, calc, open_table, paint
from gdalbridge.errors import ColumnSelectionError, NotWrittenError, OutputExistsError
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import squares, write
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, new_rat

pytestmark = pytest.mark.main_env_only

HEIGHT, WIDTH = 310, 470
GDAL_GE_37 = int(gdal.VersionInfo()) >= 3_070_000


def table_of(path, **columns):
    """Write columns of a sidecar, in small chunks, so that windows need several."""
    rows = len(next(iter(columns.values())))
    with RatZarr(f"{path}.rat.zarr", newRowCount=rows, newChunkSize=100) as table:
        for name, values in columns.items():
            table[name] = values


def read(path):
    """Return the pixels and the nodata value as GDAL reads them."""
    dataset = gdal.Open(str(path))
    return dataset.ReadAsArray(), dataset.GetRasterBand(1).GetNoDataValue()


@pytest.fixture
def random():
    return np.random.default_rng(3)


@pytest.fixture(params=["tiles", "lines"])
def segments(tmp_path, request):
    pixels = squares(HEIGHT, WIDTH, first=1)
    pixels[:4] = 0
    pixels[5:90, 7:60] = 3
    options = (
        {"TILED": "YES", "BLOCKXSIZE": 64, "BLOCKYSIZE": 32} if request.param == "tiles" else {}
    )
    path = write(tmp_path / "seg.tif", pixels, nodata=0, **options)
    return path, pixels.astype(np.int64)


KINDS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_numbers_is_exact(tmp_path, segments, random, kind):
    path, pixels = segments
    rows = int(pixels.max()) + 1
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        values = random.normal(0, 3, rows).astype(dtype)
    elif dtype.kind == "b":
        values = random.random(rows) < 0.5
    else:
        limits = np.iinfo(dtype)
        # The smallest and the largest value that no pixel needs for nodata.
        values = random.integers(limits.min + 1, limits.max, rows, dtype=dtype)
        values[1:3] = limits.min + 1, limits.max - 1
    table_of(path, c=values)
    report = paint(path, "c", tmp_path / "out.tif")
    found, nodata = read(tmp_path / "out.tif")
    inside = pixels > 0
    assert np.array_equal(found[inside], np.take(values, pixels[inside]))
    wider = {"?": "u1", "f2": "f4", "i1": "i1" if GDAL_GE_37 else "i2"}
    assert found.dtype == wider.get(kind, kind)
    outside = found[~inside]
    assert np.isnan(outside).all() if dtype.kind == "f" else (outside == nodata).all()
    assert report.painted == inside.sum()
    array = paint(path, "c")
    assert array.dtype == dtype
    assert np.array_equal(array.mask, ~inside)
    assert np.array_equal(array.compressed(), np.take(values, pixels[inside]))


def test_the_output_is_where_the_raster_is_tiled_and_compressed(tmp_path, segments):
    path, pixels = segments
    table_of(path, c=np.arange(pixels.max() + 1, dtype="f4"))
    with open_table(path) as table:
        table["c"].attrs["units"] = "kg"
    paint(path, "c", tmp_path / "out.tif")
    source, out = gdal.Open(path), gdal.Open(str(tmp_path / "out.tif"))
    assert out.GetGeoTransform() == source.GetGeoTransform()
    assert out.GetProjection() == source.GetProjection()
    assert out.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
    band = out.GetRasterBand(1)
    assert band.GetBlockSize()[0] < WIDTH
    assert (band.GetDescription(), band.GetUnitType()) == ("c", "kg")


def test_windows(tmp_path, segments):
    path, pixels = segments
    values = np.arange(pixels.max() + 1, dtype="i4") * 3
    table_of(path, c=values)
    window = (33, 2, 200, 90)
    cut = pixels[2:92, 33:233]
    array = paint(path, "c", window=window, nodata=-5)
    assert type(array) is np.ndarray
    assert np.array_equal(array, np.where(cut > 0, values[cut], -5))
    paint(path, "c", tmp_path / "out.tif", window=window)
    out = gdal.Open(str(tmp_path / "out.tif"))
    assert out.GetGeoTransform() == (500 + 2 * 33, 2, 0, 900 - 2 * 2, 0, -2)
    nodata = out.GetRasterBand(1).GetNoDataValue()
    assert np.array_equal(out.ReadAsArray(), np.where(cut > 0, values[cut], nodata))
    for wrong in [(400, 0, 100, 10), (-1, 0, 5, 5), (0, 0, 0, 5), (1, 2, 3), "abcd", 7]:
        with pytest.raises(BridgeError, match="window"):
            paint(path, "c", window=wrong)


def test_where_and_missing_values_leave_pixels_without_a_value(tmp_path, segments, random):
    path, pixels = segments
    rows = int(pixels.max()) + 1
    values = random.integers(-9, 9, rows).astype("i4")
    names = np.array(["forest", "lake"])[random.integers(0, 2, rows)]
    heights = random.random(rows)
    table_of(path, c=values, h=heights, name=names)
    with open_table(path) as table:
        table["c"].attrs["missing_value"] = -3
    keep = (heights > 0.4) & (names == "forest") & (values != -3)
    inside = (pixels > 0) & keep[pixels]
    report = paint(path, "c", tmp_path / "out.tif", where="h > 0.4 and name = 'forest'")
    found, nodata = read(tmp_path / "out.tif")
    assert nodata == -3
    assert np.array_equal(found, np.where(inside, values[pixels], -3))
    assert report.painted == inside.sum()
    with pytest.raises(BridgeError, match="not true or false"):
        paint(path, "c", where="h + 1")
    with pytest.raises(ColumnSelectionError, match="hh"):
        paint(path, "c", where="hh > 1")


def test_a_nodata_value_that_a_segment_has_is_refused_or_moved(tmp_path, segments):
    path, pixels = segments
    values = np.arange(pixels.max() + 1).astype("u1")
    values[values == 200] = 199
    short = np.arange(len(values), dtype="i2")
    short[5] = np.iinfo("i2").min
    table_of(
        path, c=values, s=short, f=values.astype("f4"), all=np.arange(len(values)).astype("u1")
    )
    inside = pixels > 0
    for name, column, kept in (("c", values, 200), ("s", short, np.iinfo("i2").max)):
        report = paint(path, name, tmp_path / f"{name}.tif")
        found, nodata = read(tmp_path / f"{name}.tif")
        assert (nodata, report.nodata) == (kept, kept)
        assert f"nodata is {kept}" in report.notes[0]
        assert np.array_equal(found, np.where(inside, column[pixels], kept))
    for name in ("c", "f"):
        for out in (None, tmp_path / "x.tif"):
            with pytest.raises(BridgeError, match=rf"'{name}', row \d+: the value is 7"):
                paint(path, name, out, nodata=7)
    # A row that no pixel belongs to may have it.
    values[0] = 200
    with open_table(path) as table:
        table["c"] = values
    assert np.array_equal(paint(path, "c", nodata=200), np.where(inside, values[pixels], 200))
    with pytest.raises(BridgeError, match="no value of uint8 left"):
        paint(path, "all", tmp_path / "x.tif")
    for wrong in (300, -1, 1.5, float("nan"), "a"):
        with pytest.raises(BridgeError, match="nodata="):
            paint(path, "c", nodata=wrong)
    assert sorted(os.listdir(tmp_path)) == ["c.tif", "s.tif", "seg.tif", "seg.tif.rat.zarr"]


def test_nan_stays_nan(tmp_path, segments, random):
    path, pixels = segments
    values = random.random(pixels.max() + 1).astype("f8")
    values[::3] = np.nan
    values[1] = np.inf
    table_of(path, c=values)
    paint(path, "c", tmp_path / "out.tif", nodata=-1)
    found, nodata = read(tmp_path / "out.tif")
    assert nodata == -1
    assert np.array_equal(found, np.where(pixels > 0, values[pixels], -1), equal_nan=True)


def test_text_becomes_classes_with_a_table(tmp_path, segments, random):
    path, pixels = segments
    known = np.array(["wald, naß", "See", "", "Acker"])
    which = random.integers(0, 4, pixels.max() + 1)
    table_of(path, name=known[which])
    report = paint(path, "name", tmp_path / "out.tif")
    found, nodata = read(tmp_path / "out.tif")
    assert (report.classes, nodata, found.dtype) == (3, 0, np.uint8)
    table = open_table(tmp_path / "out.tif")
    assert table.columns == ["Value", "Class_Name", "Histogram"]
    assert table["Class_Name"][:].tolist() == ["Acker", "See", "wald, naß"]
    names = np.array(["", "Acker", "See", "wald, naß"])
    assert np.array_equal(names[found], np.where(pixels > 0, known[which][pixels], ""))
    counts = np.bincount(found.reshape(-1), minlength=4)
    assert table["Histogram"][:].tolist() == counts[1:].tolist()
    # GDAL's own rule finds the class of a pixel.
    dataset = gdal.Open(str(tmp_path / "out.tif"))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    assert rat.GetValueAsString(rat.GetRowOfValue(2), 1) == "See"
    array = paint(path, "name")
    assert array[100, 100] == known[which][pixels[100, 100]]
    assert array.mask.sum() == (pixels == 0).sum()


def test_text_that_gdals_table_would_alter_is_refused(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    table_of(path, name=["a", "b\x01c"])
    with pytest.raises(NotWrittenError, match=r"b\\x01c"):
        paint(path, "name", tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_many_classes_take_wider_pixels_and_too_many_are_refused(tmp_path):
    pixels = np.arange(300 * 300, dtype="u4").reshape(300, 300)
    path = write(tmp_path / "seg.tif", pixels)
    table_of(
        path,
        few=[f"{row % 300:03d}" for row in range(90_000)],
        many=[str(row) for row in range(90_000)],
    )
    assert paint(path, "few", tmp_path / "out.tif").dtype == "uint16"
    assert np.array_equal(read(tmp_path / "out.tif")[0], pixels % 300 + 1)
    with pytest.raises(BridgeError, match="more than 65535 different texts"):
        paint(path, "many", tmp_path / "x.tif")


def test_columns_that_no_pixel_can_have_are_refused(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    table_of(path, when=np.array(["2020-01-01", "2021-01-01"], "M8[D]"), two=np.zeros((2, 2)))
    with pytest.raises(BridgeError, match="'when' is datetime64"):
        paint(path, "when", tmp_path / "x.tif")
    with pytest.raises(ColumnSelectionError, match="two"):
        paint(path, "two", tmp_path / "x.tif")
    # The parts of a column are columns.
    assert paint(path, "two[1]").tolist() == [[0, 0]]


def test_colours_of_the_table(tmp_path, segments, random):
    path, pixels = segments
    rows = int(pixels.max()) + 1
    colors = random.integers(0, 256, (4, rows)).astype("i4")
    table_of(path, r=colors[0], g=colors[1], b=colors[2], o=colors[3])
    with open_table(path) as table:
        for usage, name in zip((6, 7, 8, 9), "rgbo", strict=True):
            table[name].attrs["GDAL_USAGE"] = usage
    report = paint(path, None, tmp_path / "out.tif")
    found = gdal.Open(str(tmp_path / "out.tif"))
    assert [found.GetRasterBand(n).GetColorInterpretation() for n in (1, 2, 3, 4)] == [
        gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand, gdal.GCI_AlphaBand,
    ]  # fmt: skip
    assert np.array_equal(found.ReadAsArray(), np.where(pixels > 0, colors[:, pixels], 0))
    assert report.bands == 4
    assert np.array_equal(paint(path, None), found.ReadAsArray())
    colors[1, 9] = 256
    with open_table(path) as table:
        table["g"] = colors[1]
        table["g"].attrs["GDAL_USAGE"] = 7
    with pytest.raises(BridgeError, match="'g' has the value 256"):
        paint(path, None)
    other = write(tmp_path / "plain.tif", np.zeros((1, 1), "u1"))
    table_of(other, c=[1])
    with pytest.raises(BridgeError, match="no column of usage Red, Green, Blue"):
        paint(other, None, tmp_path / "x.tif")


def test_a_colour_map_gives_colours_or_a_colour_table(tmp_path, segments, random):
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    path, pixels = segments
    values = random.random(pixels.max() + 1)
    values[5] = np.nan
    small = np.nan_to_num(values * 100).astype("u1")
    table_of(path, c=values, u=small, name=np.where(values > 0.5, "high", "low"))
    paint(path, "c", tmp_path / "out.tif", cmap="viridis", limits=(0.2, 0.9))
    wanted = mpl.colormaps["viridis"](Normalize(0.2, 0.9)(values[pixels]), bytes=True)
    there = (pixels > 0) & ~np.isnan(values[pixels])
    found = np.moveaxis(gdal.Open(str(tmp_path / "out.tif")).ReadAsArray(), 0, -1)
    assert np.array_equal(found, np.where(there[..., None], wanted, 0))
    # Bytes keep their values.
    paint(path, "u", tmp_path / "u.tif", cmap="magma", limits=(10, 60))
    out = gdal.Open(str(tmp_path / "u.tif"))
    assert np.array_equal(out.ReadAsArray(), np.where(pixels > 0, small[pixels], 255))
    table = out.GetRasterBand(1).GetColorTable()
    for value in (0, 30, 90):
        color = mpl.colormaps["magma"](Normalize(10, 60)(float(value)), bytes=True)
        assert table.GetColorEntry(value)[:3] == tuple(int(one) for one in color[:3])
    paint(path, "name", tmp_path / "n.tif", cmap="tab10")
    rat = open_table(tmp_path / "n.tif")
    assert [rat[key][0] for key in ("Red", "Green", "Blue")] == [31, 119, 180]
    with pytest.raises(BridgeError, match="no colour map 'viridi'"):
        paint(path, "c", tmp_path / "x.tif", cmap="viridi")
    with pytest.raises(BridgeError, match="the smaller first"):
        paint(path, "c", tmp_path / "x.tif", cmap="viridis", limits=(1, 0))
    with pytest.raises(BridgeError, match="cmap"):
        paint(path, "c", tmp_path / "x.tif", limits=(0, 1))


def test_classes_have_the_tables_colours(tmp_path):
    path = tmp_path / "seg.tif"
    write(path, np.array([[0, 1, 2, 3]], "u1"))
    rat = new_rat(
        [("Red", INTEGER, 6, [9, 0, 0, 250]), ("Green", INTEGER, 7, [9, 80, 80, 1]),
         ("Blue", INTEGER, 8, [9, 0, 0, 2]), ("class", STRING, 2, ["", "wood", "wood", "fire"]),
         ("x", REAL, 0, [1, 2, 3, 4.5])], 4,
    )  # fmt: skip
    dataset = gdal.Open(str(path), gdal.GA_Update)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    paint(path, "class", tmp_path / "out.tif")
    out = open_table(tmp_path / "out.tif")
    assert out["Red"][:].tolist() == [250, 0]
    dataset = gdal.Open(str(tmp_path / "out.tif"))
    colors = dataset.GetRasterBand(1).GetColorTable()
    assert [colors.GetColorEntry(n)[:3] for n in (1, 2)] == [(250, 1, 2), (0, 80, 0)]
    # The raster's own table is read, too.
    assert paint(path, "x").tolist() == [[1, 2, 3, 4.5]]


def test_cog(tmp_path, segments):
    path, pixels = segments
    values = np.arange(pixels.max() + 1, dtype="i4")
    table_of(path, c=values, name=np.where(values % 2, "odd", "even"))
    report = paint(path, "c", tmp_path / "out.tif", format="COG")
    assert report.format == "COG"
    found, nodata = read(tmp_path / "out.tif")
    assert np.array_equal(found, np.where(pixels > 0, values[pixels], nodata))
    assert gdal.Open(str(tmp_path / "out.tif")).GetMetadata("IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    paint(path, "name", tmp_path / "n.tif", format="COG", options=["COMPRESS=LZW"])
    assert open_table(tmp_path / "n.tif")["Class_Name"][:].tolist() == ["even", "odd"]
    assert sorted(os.listdir(tmp_path)) == [
        "n.tif", "n.tif.aux.xml", "out.tif", "seg.tif", "seg.tif.rat.zarr",
    ]  # fmt: skip


def test_creation_options_are_the_users(tmp_path, segments):
    path, pixels = segments
    table_of(path, c=np.arange(pixels.max() + 1))
    paint(path, "c", tmp_path / "out.tif", options=["compress=LZW", "TILED=NO"])
    out = gdal.Open(str(tmp_path / "out.tif"))
    assert out.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "LZW"
    assert out.GetRasterBand(1).GetBlockSize()[0] == WIDTH
    # GDAL would only warn of what it does not know, and write another file.
    for option, words in (
        ("LZW", "NAME=VALUE"),
        ("COMPRES=LZW", 'GTiff has no creation option .*did you mean "COMPRESS"'),
        ("COMPRESS=FOO", "COMPRESS of GDAL's driver GTiff is one of NONE, .*DEFLATE"),
    ):
        with pytest.raises(BridgeError, match=words):
            paint(path, "c", tmp_path / "x.tif", options=[option])
        with pytest.raises(BridgeError, match=words):
            bake(path, tmp_path / "x.tif", options=[option])
    with pytest.raises(BridgeError, match="not for pictures"):
        paint(path, "c", tmp_path / "x.png", options=["COMPRESS=LZW"])


def test_formats_that_change_pixels_are_refused(tmp_path, random):
    path = write(tmp_path / "seg.tif", random.integers(0, 250, (40, 50)).astype("u1"))
    table_of(path, c=random.integers(0, 250, 250).astype("u1"))
    there = sorted(os.listdir(tmp_path))
    for driver, *options in (
        ["JPEG"],
        ["GTiff", "compress=JPEG"],
        ["COG", "COMPRESS=JPEG"],
        ["GTiff", "NBITS=4"],
    ):
        words = rf"{driver} does not keep the pixels of band 1: at column \d+, line 0, \d+ became"
        for make in (bake, lambda source, out, **more: paint(source, "c", out, **more)):
            with pytest.raises(NotWrittenError, match=words):
                make(path, tmp_path / "out.xyz", format=driver, options=options)
            assert sorted(os.listdir(tmp_path)) == there
    if gdal.GetDriverByName("XYZ"):
        with pytest.raises(
            NotWrittenError, match="XYZ does not keep pixels of uint8 with nodata 255"
        ):
            paint(path, "c", tmp_path / "out.xyz", format="XYZ", nodata=255)
    wide = write(tmp_path / "wide.tif", np.array([[0, 300]], "i4"))
    table_of(wide, c=np.arange(301))
    with pytest.raises(NotWrittenError, match="band 1: their type Int32 became UInt8"):
        bake(wide, tmp_path / "out.png", format="PNG")
    colours = {"cmap": "viridis", "options": ["COMPRESS=JPEG"]}
    assert paint(wide, "c", tmp_path / "view.tif", **colours).bands == 4


# ---- which row belongs to a pixel


def test_sparse_tables_negative_ids_and_ids_without_rows(tmp_path, random):
    ids = np.array([-7, 40, 3, 2_000_000_000, 12])
    pixels = random.choice([*ids, 5, -8], (40, 50)).astype("i4")
    path = write(tmp_path / "seg.tif", pixels)
    values = np.array([1.5, 2.5, np.nan, -3.5, 4])
    table_of(path, Value=ids, c=values)
    with open_table(path) as table:
        table["Value"].attrs["GDAL_USAGE"] = 5
    wanted = np.full(pixels.shape, -99.0)
    for one, value in zip(ids, values, strict=True):
        wanted[pixels == one] = value
    assert np.array_equal(paint(path, "c", nodata=-99), wanted, equal_nan=True)


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_64_bit_pixels_and_ids_beyond_the_table(tmp_path, dtype):
    high = np.iinfo(dtype).max
    pixels = np.array([[0, 2, 3, high, high - 1, 1]], dtype)
    path = write(tmp_path / "seg.tif", pixels)
    table_of(path, c=np.array([10, 20, 30], "u8"))
    assert paint(path, "c", nodata=0).tolist() == [[10, 30, 0, 0, 0, 20]]


@pytest.mark.parametrize("rows", [30_000, 2_500_000])
def test_rows_far_apart(tmp_path, random, rows):
    pixels = random.integers(0, rows + 500, (200, 300)).astype("u4")
    path = write(tmp_path / "seg.tif", pixels)
    values = random.normal(0, 1, rows)
    with RatZarr(f"{path}.rat.zarr", newRowCount=rows, newChunkSize=max(100, rows // 25)) as table:
        table["c"] = values
    looked = np.take(values, pixels, mode="clip")
    inside = pixels < rows
    assert np.array_equal(paint(path, "c", nodata=-9), np.where(inside, looked, -9))
    found = paint(path, "c", nodata=-9, where="c < 0.5 and c > -8")
    assert np.array_equal(found, np.where(inside & (looked < 0.5), looked, -9))


def test_only_the_chunks_of_a_window_are_read(tmp_path):
    pixels = np.arange(100 * 100, dtype="u4").reshape(100, 100)
    path = write(tmp_path / "seg.tif", pixels, TILED="YES", BLOCKXSIZE=16, BLOCKYSIZE=16)
    table_of(path, c=pixels.reshape(-1) * 2)
    # Any other chunk is damaged.
    for folder, _, files in os.walk(f"{path}.rat.zarr"):
        for name in files:
            if "/c/" in f"{folder}/{name}" and name.isdigit() and int(name) != 52:
                (tmp_path / folder / name).write_bytes(b"no chunk")
    assert paint(path, "c", window=(3, 52, 90, 1)).tolist() == [list(range(10406, 10586, 2))]
    with pytest.raises(Exception, match="chunk"):
        paint(path, "c")


def test_one_pixel_and_rotated_rasters(tmp_path):
    path = write(tmp_path / "one.tif", np.array([[1]], "u1"))
    table_of(path, c=[1.5, 2.5])
    paint(path, "c", tmp_path / "out.tif")
    assert read(tmp_path / "out.tif")[0].tolist() == [[2.5]]
    turned = (500.0, 1.5, 0.5, 900.0, 0.5, -1.5)
    path = write(tmp_path / "turned.tif", np.array([[0, 1], [1, 0]], "u1"), transform=turned)
    table_of(path, c=[1.5, 2.5])
    paint(path, "c", tmp_path / "turned-out.tif", window=(1, 1, 1, 1))
    out = gdal.Open(str(tmp_path / "turned-out.tif"))
    assert out.GetGeoTransform() == (502.0, 1.5, 0.5, 899.0, 0.5, -1.5)
    assert paint(path, "c", tmp_path / "turned.png").painted == 4


def test_a_dataset_in_memory_with_a_mask(tmp_path):
    dataset = gdal.GetDriverByName("MEM").Create("", 3, 1)
    dataset.WriteArray(np.array([[0, 1, 1]], "u1"))
    rat = new_rat([("c", REAL, 0, [1.5, 2.5])], 2)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(np.array([[255, 255, 0]], "u1"))
    assert paint(dataset, "c", nodata=0).tolist() == [[1.5, 2.5, 0]]


def test_a_raster_on_s3(moto_s3, tmp_path):
    import boto3

    path = write(tmp_path / "seg.tif", squares(60, 80, first=1))
    boto3.client("s3").upload_file(path, moto_s3.bucket, "seg.tif")
    place = f"/vsis3/{moto_s3.bucket}/seg.tif"
    rows = int(gdal.Open(path).ReadAsArray().max()) + 1
    with open_table(place) as table:
        table["c"] = np.arange(rows) * 2
    paint(place, "c", tmp_path / "out.tif")
    assert np.array_equal(read(tmp_path / "out.tif")[0], squares(60, 80, first=1) * 2)


# ---- lazy arrays


def test_a_lazy_array_paints_its_blocks_when_they_are_needed(segments, random):
    path, pixels = segments
    values = random.random(pixels.max() + 1).astype("f4")
    table_of(
        path,
        c=values,
        k=np.arange(len(values), dtype="i8") + 2**60,
        name=np.where(values > 0.5, "a", "b"),
    )
    found = paint(path, "c", lazy=True)
    assert (found.name, found.dims, found.shape) == ("c", ("y", "x"), (HEIGHT, WIDTH))
    assert np.array_equal(found, np.where(pixels > 0, values[pixels], np.nan), equal_nan=True)
    assert float(found.x[3]) == 500 + 2 * 3.5
    assert float(found.y[3]) == 900 - 2 * 3.5
    part = paint(path, "k", lazy=True, nodata=-1, window=(10, 3, 60, 60))[:7, 5:9]
    cut = pixels[3:10, 15:19]
    assert part.dtype == np.int64
    assert np.array_equal(part, np.where(cut > 0, cut + 2**60, -1))
    # Other processes open the raster again.
    sent = pickle.loads(pickle.dumps(part))
    assert np.array_equal(sent, part)
    names = paint(path, "name", lazy=True).values
    assert names[0, 0] is None
    assert names[200, 100] == ("a" if values[pixels[200, 100]] > 0.5 else "b")
    with pytest.raises(BridgeError, match="lazy"):
        paint(path, "c", "x.tif", lazy=True)


# ---- pictures


def test_a_picture_with_a_legend(tmp_path, segments, random):
    path, pixels = segments
    table_of(
        path,
        c=random.random(pixels.max() + 1),
        name=np.array(["a", "b"])[np.arange(pixels.max() + 1) % 2],
    )
    sizes = {}
    for name, more in (
        ("c", {}),
        ("name", {}),
        ("c", {"window": (0, 0, 5, 3), "where": "c > 0.5"}),
    ):
        report = paint(path, name, tmp_path / "out.png", overwrite=True, **more)
        out = gdal.Open(str(tmp_path / "out.png"))
        sizes[name] = out.RasterXSize
        red, green, blue = out.ReadAsArray()[:3].astype("i4")
        assert len(np.unique(red << 16 | green << 8 | blue)) > 3
        assert report.format == "PNG"
    assert min(sizes.values()) > 300
    with pytest.raises(OutputExistsError):
        paint(path, "c", tmp_path / "out.png")


def test_a_picture_of_names_that_look_like_formulas(tmp_path):
    path = write(tmp_path / "a$b_{$.tif", np.array([[0, 1]], "u1"))
    table_of(path, **{"$c_{$": np.array(["_a", "$b^{$"]), "$n^{$": np.array([1.0, 2.0])})
    with open_table(path) as table:
        table["$n^{$"].attrs["units"] = "$m^{$"
    for name in ("$c_{$", "$n^{$"):
        where = "'$' <> '$x_{$'"
        assert paint(path, name, tmp_path / "x.png", where=where, overwrite=True).painted == 2


def test_a_picture_refuses_the_colours_that_a_raster_refuses(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    table_of(path, red=[0, 300], green=[0, 0], blue=[0, 0])
    with open_table(path) as table:
        for usage, name in enumerate(("red", "green", "blue"), start=6):
            table[name].attrs["GDAL_USAGE"] = usage
    for name in ("x.tif", "x.png"):
        with pytest.raises(BridgeError, match="column 'red' has the value 300"):
            paint(path, None, tmp_path / name)


def test_limits_of_colours_at_the_ends_of_floats(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    table_of(path, small=np.array([0, 1], "u1"), same=[1e17, 1e17])
    paint(path, "same", tmp_path / "x.png")
    first, last = paint(path, "small", cmap="gray", limits=(0, 1))[0, 0]
    assert (first, last) == (0, 255)
    # The values were computed in 32 bits, which these limits exceed.
    assert paint(path, "small", cmap="gray", limits=(-1e300, 1))[0, 0].tolist() == [255, 255]
    for limits in ((-1e308, 1e308), (0, 1e-320), (0, np.inf), (1, 1)):
        with pytest.raises(BridgeError, match="the smaller first"):
            paint(path, "small", cmap="gray", limits=limits)


# ---- failures


def test_an_existing_output_is_refused_or_replaced(tmp_path, segments):
    path, pixels = segments
    table_of(path, c=np.arange(pixels.max() + 1), name=["x"] * int(pixels.max() + 1))
    paint(path, "name", tmp_path / "out.tif")
    before = (tmp_path / "out.tif").read_bytes()
    with pytest.raises(OutputExistsError):
        paint(path, "c", tmp_path / "out.tif")
    assert (tmp_path / "out.tif").read_bytes() == before
    paint(path, "c", tmp_path / "out.tif", overwrite=True)
    # The table of the classes is gone with them.
    assert not (tmp_path / "out.tif.aux.xml").exists()
    with pytest.raises(BridgeError, match="extension"):
        paint(path, "c", tmp_path / "out.xyz")
    with pytest.raises(BridgeError, match="no pixels of its own"):
        paint(path, "c", tmp_path / "out.vrt")
    with pytest.raises(BridgeError, match="no directory"):
        paint(path, "c", tmp_path / "none" / "out.tif")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_cancellation_and_errors_leave_nothing(tmp_path, segments, error):
    path, pixels = segments
    table_of(path, c=np.arange(pixels.max() + 1))
    there = sorted(os.listdir(tmp_path))

    def progress(done, message, data):
        if done > 0.3:
            if error is None:
                return 0
            raise error
        return 1

    for target in ("out.tif", "out.png"):
        with pytest.raises(error or CancelledError):
            paint(path, "c", tmp_path / target, progress=progress)
        assert sorted(os.listdir(tmp_path)) == there


def test_a_raster_without_a_table_and_wrong_arguments(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"))
    with pytest.raises(BridgeError, match="no attribute table"):
        paint(path, "c")
    table_of(path, c=[1, 2])
    with pytest.raises(BridgeError, match="none is named"):
        paint(path, None, nodata=3)
    with pytest.raises(ColumnSelectionError, match="'d'"):
        paint(path, "d")


def test_the_report_as_json(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 9]], "u1"))
    table_of(path, c=[1.5, 2.5])
    report = paint(path, "c", tmp_path / "out.tif")
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["nodata"] == "nan"
    assert "1 of 3 pixels have no value: nodata is nan" in str(report)


def test_calc_then_paint(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1, 2]], "u1"))
    table_of(path, c=[1.0, 2.0, 3.0])
    calc(path, {"d": "c * 2"})
    assert paint(path, "d").tolist() == [[2, 4, 6]]
