"""Statistics by segment: numpy on whole arrays and scipy.ndimage are the judges."""

from contextlib import contextmanager

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal
from scipy import ndimage

from gdalbridge import BridgeError, bake, build, open_table, zonal
from gdalbridge.cli import main
from gdalbridge.errors import CancelledError, OutputExistsError
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import squares, write

pytestmark = pytest.mark.main_env_only

HEIGHT, WIDTH = 310, 470
ALL = [
    "count",
    "sum",
    "mean",
    "stddev",
    "variance",
    "min",
    "max",
    "range",
    "median",
    "mode",
    "p10",
    "p97.5",
]
NAMED = {"mean": ndimage.mean, "stddev": ndimage.standard_deviation, "variance": ndimage.variance,
         "min": ndimage.minimum, "max": ndimage.maximum, "median": ndimage.median}  # fmt: skip


@pytest.fixture
def segments(tmp_path):
    pixels = squares(HEIGHT, WIDTH, first=1)
    pixels[5:90, 7:60] = 3
    return write(tmp_path / "seg.tif", pixels, TILED="YES"), pixels.astype(int)


def image(dtype, bands=2):
    random = np.random.default_rng(5)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        found = random.normal(1e6, 3, (bands, HEIGHT, WIDTH)).astype(kind)
        found[0, 3:30, 3:200] = np.nan
        return found
    limits = np.iinfo(kind)
    high = min(limits.max, 2**31 - 1)
    low = max(high - 90, limits.min)
    return random.integers(low, high, (bands, HEIGHT, WIDTH), dtype=kind)


def expected(stat, values, labels, ids):
    if stat == "sum":
        return ndimage.sum(values.astype(np.float64), labels, ids)
    if stat == "range":
        return expected("max", values, labels, ids) - expected("min", values, labels, ids)
    if stat.startswith("p"):
        return [np.percentile(values[labels == one].astype("f8"), float(stat[1:])) for one in ids]
    if stat == "mode":
        found = []
        for one in ids:
            unique, counts = np.unique(values[labels == one], return_counts=True)
            found.append(unique[counts.argmax()])
        return found
    # scipy divides by the counts of labels that don't occur.
    with np.errstate(invalid="ignore"):
        return NAMED[stat](values.astype(np.float64), labels, ids)


@pytest.mark.parametrize("dtype", [
    "u1", "i2", "u4", "f4", "f8",
    *(pytest.param(one, marks=pytest.mark.thorough) for one in ("i1", "u2", "i4")),
])  # fmt: skip
def test_every_statistic_of_every_type(tmp_path, segments, dtype):
    path, labels = segments
    values = image(dtype)
    nodata = None if values.dtype.kind == "f" else float(values[0, 0, 0])
    source = write(tmp_path / "image.tif", values, nodata=nodata)
    report = zonal(path, source, stats=ALL, bands={1: "a", 2: "b"})
    assert report.rows == labels.max() + 1
    table = open_table(path)
    ids = np.unique(labels)[::7]
    for name, pixels in zip("ab", values, strict=True):
        valid = ~np.isnan(pixels.astype("f8"))
        if nodata is not None:
            valid &= pixels != nodata
        lab = np.where(valid, labels, -1)
        counts = np.bincount(labels[valid], minlength=report.rows)
        assert np.array_equal(table[f"{name}_count"][:], counts)
        there = ids[counts[ids] > 0]
        scale = 90 if values.dtype.kind != "f" else 30
        for stat in ALL[1:]:
            found = table[f"{name}_{stat}"][:][there].astype("f8")
            wanted = np.asarray(expected(stat, np.nan_to_num(pixels), lab, there), "f8")
            if stat == "sum":
                assert np.allclose(found, wanted, rtol=1e-12), stat
            else:
                assert np.abs(found - wanted).max() <= 1e-9 * scale**2, stat
        frame = table.to_pandas([f"{name}_{stat}" for stat in ALL])
        empty = frame[counts == 0]
        assert len(empty)
        assert (empty[[f"{name}_count", f"{name}_sum"]] == 0).all().all()
        assert empty.drop(columns=[f"{name}_count", f"{name}_sum"]).isna().all().all()


def test_fractions_of_classes(tmp_path, segments):
    path, labels = segments
    classes = np.random.default_rng(1).integers(3, 6, (HEIGHT, WIDTH)).astype("u1")
    report = zonal(path, write(tmp_path / "lc.tif", classes), stats=["fraction"], bands=1)
    assert report.columns == ("lc_fraction_3", "lc_fraction_4", "lc_fraction_5")
    table = open_table(path)
    for one in (1, 3, 200):
        share = (classes[labels == one] == 4).mean()
        assert table["lc_fraction_4"][one] == pytest.approx(share)
    assert np.isnan(table["lc_fraction_4"][0])
    with pytest.raises(BridgeError, match="256 columns"):
        zonal(path, write(tmp_path / "x.tif", np.arange(HEIGHT * WIDTH, dtype="u4").reshape(HEIGHT, WIDTH)),
              stats=["fraction"])  # fmt: skip


def test_little_memory_takes_passes_and_changes_nothing(tmp_path, segments):
    path, _ = segments
    source = write(tmp_path / "image.tif", image("f4"))
    stats = ["count", "mean", "stddev", "min", "max", "median"]
    zonal(path, source, stats=stats, prefix="one_", threads=1)
    report = zonal(path, source, stats=stats, prefix="many_", memory=20_000, threads=2)
    assert report.passes > 3
    table = open_table(path)
    for band in ("band1", "band2"):
        for stat in stats:
            one, many = (table[f"{which}_{band}_{stat}"][:] for which in ("one", "many"))
            assert np.array_equal(one, many, equal_nan=True)
    # All passes that are reported take place.
    seen = []
    report = zonal(
        path, source, stats=["count"], prefix="least_", memory=400, threads=1,
        progress=lambda done, *_: seen.append(done) or 1,
    )  # fmt: skip
    assert report.passes > 100
    assert seen[-1] == 1
    # The last twentieth is what completes the columns.
    assert np.diff(seen).max() == pytest.approx(0.05)
    table = open_table(path)
    for band in ("band1", "band2"):
        assert np.array_equal(table[f"least_{band}_count"][:], table[f"one_{band}_count"][:])


def test_names_of_bands_and_images(tmp_path, segments):
    path, _ = segments
    first = write(tmp_path / "s2.tif", image("u1"), names=["red", ""])
    second = write(tmp_path / "l8.x.tif", image("u1", 1))
    assert zonal(path, first, stats=["mean"]).columns == ("red_mean", "band2_mean")
    assert zonal(path, [first, second], stats=["max"]).columns == (
        "s2_red_max", "s2_band2_max", "l8_max",
    )  # fmt: skip
    assert zonal(path, first, stats=["min"], bands={2: "nir"}, prefix="t1_").columns == (
        "t1_nir_min",
    )
    # The only band of an image has the name of its file, unless it has one of its own.
    assert zonal(path, second, stats=["min"]).columns == ("l8_min",)
    assert zonal(path, second, stats=["min"], prefix="t2_").columns == ("t2_l8_min",)
    named = [first, second]
    assert zonal(path, named, stats=["p10"], bands={1: "ndvi"}).columns == (
        "s2_ndvi_p10", "l8_ndvi_p10",
    )  # fmt: skip
    with pytest.raises(BridgeError, match="'l8'"):
        zonal(path, [second, second], prefix="")
    attributes = open_table(path)["red_mean"].attrs
    assert attributes["image"] == "s2.tif"
    assert attributes["image_band"] == 1
    assert attributes["PROVENANCE"]["operation"] == "zonal"
    assert attributes["PROVENANCE"]["images"] == ["s2.tif"]


def test_two_calls_add_columns_and_overwrite_replaces(tmp_path, segments):
    path, labels = segments
    source = write(tmp_path / "a.tif", image("u1", 1))
    zonal(path, source, stats=["mean"])
    with pytest.raises(OutputExistsError, match="a_mean"):
        zonal(path, source, stats=["count", "mean"])
    assert open_table(path).columns == ["a_mean"]
    (tmp_path / "more").mkdir()
    other = write(tmp_path / "more" / "a.tif", np.full((HEIGHT, WIDTH), 7, "u1"))
    zonal(path, other, stats=["count", "mean"], overwrite=True)
    table = open_table(path)
    assert table.columns == ["a_mean", "a_count"]
    means = table["a_mean"][:]
    assert set(means[~np.isnan(means)].tolist()) == {7.0}
    assert table["a_count"][:].tolist() == np.bincount(labels.ravel()).tolist()


def test_a_sparse_table_chooses_the_rows(tmp_path):
    labels = np.array([[-5, -5, 7], [7, 7, 2_000_000_000]], "i4")
    path = write(tmp_path / "seg.tif", labels)
    with RatZarr(f"{path}.rat.zarr", newRowCount=2) as table:
        table["Value"] = [7, -5]
        table["Value"].attrs["GDAL_USAGE"] = 5
    report = zonal(
        path, write(tmp_path / "a.tif", np.arange(6, dtype="f4").reshape(2, 3)), stats=["sum"]
    )
    assert report.outside == 1
    assert open_table(path)["a_sum"][:].tolist() == [9.0, 1.0]


@contextmanager
def config_option(name, value):
    """Set an option of GDAL, as gdal.config_option does from GDAL 3.7 on."""
    gdal.SetConfigOption(name, value)
    try:
        yield
    finally:
        gdal.SetConfigOption(name, None)


def test_nodata_and_masks(tmp_path):
    labels = np.array([[1, 1, 2, 2, 0, 0]], "u1")
    path = write(tmp_path / "seg.tif", labels, nodata=0)
    values = np.array([[1, 2, 3, 4, 5, 6]], "u1")
    source = write(tmp_path / "a.tif", values)
    with config_option("GDAL_TIFF_INTERNAL_MASK", "YES"):
        dataset = gdal.Open(source, gdal.GA_Update)
        dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
        dataset.GetRasterBand(1).GetMaskBand().WriteArray(
            np.array([[255, 0, 255, 255, 255, 255]], "u1")
        )
        dataset = None
    zonal(path, source, stats=["sum", "count"], nodata=4)
    table = open_table(path)
    assert table["a_sum"][:].tolist() == [0, 1, 3]
    assert table["a_count"][:].tolist() == [0, 1, 1]


def test_rows_without_pixels_can_be_baked(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1, 1, 2, 2]], "u1"))
    build(path)
    source = write(tmp_path / "a.tif", np.arange(4, dtype="f4").reshape(1, 4))
    zonal(path, source, stats=["mean", "stddev", "min"])
    with open_table(path) as table:
        assert not np.signbit(table["a_mean"][:]).any()
    bake(path, tmp_path / "baked.tif")
    baked = gdal.Open(str(tmp_path / "baked.tif"))
    rat = baked.GetRasterBand(1).GetDefaultRAT()
    columns = {rat.GetNameOfCol(i): rat.ReadAsArray(i) for i in range(rat.GetColumnCount())}
    assert np.array_equal(columns["a_mean"], [np.nan, 0.5, 2.5], equal_nan=True)


def test_bands_of_numpys_integers(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    image = write(tmp_path / "image.tif", np.array([[[1, 2]], [[3, 4]]], "u1"))
    report = zonal(path, image, stats=["sum"], bands=np.array([2]))
    assert report.columns == ("band2_sum",)
    with open_table(path) as table:
        assert table["band2_sum"][:].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("dtype", "nodata", "counted"), [("i8", "1152921504606846977", 2), ("f4", "1e300", 3)]
)
def test_nodata_that_floats_would_round(tmp_path, dtype, nodata, counted):
    path = write(tmp_path / "seg.tif", np.array([[0, 0, 0]], "u1"))
    values = [2**60 + 1, 2**60 + 2, 5 if dtype == "i8" else np.inf]
    source = write(tmp_path / "image.tif", np.array([values], dtype))
    options = ["zonal", path, source, "--stat", "count", "--nodata", nodata]
    assert CliRunner().invoke(main, options).exit_code == 0
    with open_table(path) as table:
        assert table["image_count"][:].tolist() == [counted]


def test_nodata_of_the_segments_is_no_row(tmp_path):
    labels = np.array([[1, 2, 2**32 - 1, 2]], "u4")
    path = write(tmp_path / "seg.tif", labels, nodata=2**32 - 1)
    source = write(tmp_path / "a.tif", np.arange(4, dtype="u1").reshape(1, 4))
    assert zonal(path, source, stats=["sum"]).rows == 3
    assert open_table(path)["a_sum"][:].tolist() == [0, 0, 4]
    nothing = write(tmp_path / "none.tif", labels * 0 + 7, nodata=7)
    assert zonal(nothing, source, stats=["sum"]).rows == 0


def test_infinite_and_all_missing_pixels(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 0, 1, 1, 2]], "u1"))
    values = np.array([[1, np.inf, np.nan, np.nan, -0.0]], "f4")
    zonal(path, write(tmp_path / "a.tif", values), stats=["count", "mean", "min", "max", "median"])
    frame = open_table(path).to_pandas()
    assert frame["a_count"].tolist() == [2, 0, 1]
    assert frame["a_mean"][0] == np.inf
    assert frame["a_max"][0] == np.inf
    assert frame.loc[1].drop("a_count").isna().all()
    assert frame["a_median"][2] == 0


def test_another_grid_is_refused_or_resampled(tmp_path, segments):
    path, labels = segments
    coarse = np.arange(155 * 235, dtype="u2").reshape(155, 235)
    source = write(tmp_path / "coarse.tif", coarse, transform=(500, 4, 0, 900, 0, -4))
    with pytest.raises(BridgeError, match=r"coarse\.tif has 235 x 155 pixels.*resampl"):
        zonal(path, source)
    with pytest.raises(BridgeError, match="'nearest'"):
        zonal(path, source, resampling="nearest")
    zonal(path, source, stats=["sum", "count"], resampling="near")
    fine = coarse.repeat(2, 0).repeat(2, 1)
    table = open_table(path)
    wanted = np.bincount(labels.ravel(), fine.ravel(), minlength=len(table))
    assert np.array_equal(table["coarse_sum"][:], wanted)
    # Outside the image there are no pixels, not zeros.
    inside = np.bincount(labels[:100, :100].ravel(), minlength=len(table))
    for number, dtype in enumerate(("u1", "u2", "i2", "i4", "u4", "f4", "f8")):
        part = write(
            tmp_path / f"part{number}.tif",
            coarse[:50, :50].astype(dtype),
            transform=(500, 4, 0, 900, 0, -4),
        )
        zonal(path, part, stats=["count"], resampling="near", prefix=f"{dtype}_")
        assert np.array_equal(open_table(path)[f"{dtype}_part{number}_count"][:], inside), dtype
    far = write(tmp_path / "far.tif", coarse, transform=(50000, 4, 0, 900, 0, -4))
    with pytest.raises(BridgeError, match=r"far\.tif lies outside the segments"):
        zonal(path, far, resampling="near", prefix="far_")
    turned = write(tmp_path / "turned.tif", coarse, transform=(500, 0, 4, 900, -4, 0))
    with pytest.raises(BridgeError, match="grid is rotated"):
        zonal(turned, source, resampling="near")


def test_what_does_not_count_is_left_out_before_images_are_resampled(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"), transform=(0, 4, 0, 4, 0, -4))
    grid = {"transform": (0, 2, 0, 4, 0, -2)}
    given = {"resampling": "average", "stats": ["count", "mean"]}
    pixels = np.array([[[9, 1], [1, 1]], [[1, 9], [3, 5]], [[9, 9], [9, 9]]], "i2")
    own = write(tmp_path / "own.tif", pixels, nodata=9, **grid)
    none = write(tmp_path / "none.tif", pixels, **grid)
    nans = write(tmp_path / "nans.tif", np.where(pixels == 9, np.nan, pixels).astype("f4"), **grid)
    for prefix, image, nodata in (
        ("a", own, None),
        ("b", own, 9),
        ("c", none, 9),
        ("d", nans, None),
    ):
        zonal(path, image, prefix=prefix, nodata=nodata, **given)
        frame = open_table(path).to_pandas().filter(regex=f"^{prefix}").iloc[1]
        assert frame.tolist()[:4] == [1, 1, 1, 3], prefix
        assert frame.iloc[4] == 0
    # GDAL's minimum of NaN alone is the largest number, or infinite.
    for dtype in ("f4", "f8"):
        gaps = np.array([[np.nan, np.nan], [np.nan, np.nan]], dtype)
        gaps = write(tmp_path / f"gaps_{dtype}.tif", gaps, nodata=-9, **grid)
        for method in ("min", "max", "average"):
            zonal(path, gaps, prefix=method, stats=["count"], resampling=method)
            assert open_table(path)[f"{method}gaps_{dtype}_count"][1] == 0
    # A resampled pixel may have the value.
    means = write(tmp_path / "means.tif", np.array([[1, 3], [1, 3]], "i2"), **grid)
    zonal(path, means, nodata=2, **given)
    assert open_table(path)["means_mean"][1] == 2
    with pytest.raises(
        BridgeError, match=r"band 1: the nodata value 1 and the nodata value 9 can't"
    ):
        zonal(path, own, prefix="e", nodata=1, **given)
    gdal.Open(own, gdal.GA_Update).CreateMaskBand(gdal.GMF_PER_DATASET)
    with pytest.raises(BridgeError, match=r"band 1: the nodata value 9 and a mask can't"):
        zonal(path, own, prefix="e", **given)


@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_masks_of_resampled_images(tmp_path, kind):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"), transform=(0, 4, 0, 4, 0, -4))
    pixels = np.array([[[9, 1], [1, 1]], [[0, 255], [255, 255]]], "u1")
    shown = pixels if kind == "alpha" else pixels[:1]
    image = write(tmp_path / "image.tif", shown, transform=(0, 2, 0, 4, 0, -2))
    dataset = gdal.Open(image, gdal.GA_Update)
    if kind == "alpha":
        dataset.GetRasterBand(2).SetColorInterpretation(gdal.GCI_AlphaBand)
    else:
        dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
        dataset.GetRasterBand(1).GetMaskBand().WriteArray(pixels[1])
    dataset = None
    # The path of a VRT's source is relative to it.
    vrt = str(tmp_path / "image.vrt")
    gdal.Translate(vrt, image, format="VRT").FlushCache()
    for prefix, source in (("a", image), ("b", vrt)):
        zonal(path, source, bands={1: "v"}, prefix=prefix, resampling="average", stats=["mean"])
        assert open_table(path)[f"{prefix}v_mean"][1] == 1
    if kind == "alpha":
        zonal(path, image, bands={2: "alpha"}, resampling="near", stats=["count", "max"])
        assert open_table(path)["alpha_count"][1] == 1


def test_a_map_around_the_pole_covers_its_inside(tmp_path):
    path = write(
        tmp_path / "seg.tif", np.ones((20, 40), "u1"), transform=(0, 0.5, 0, 80, 0, -0.5), crs=4326
    )
    arctic = write(
        tmp_path / "arctic.tif", np.arange(10_000, dtype="f4").reshape(100, 100),
        transform=(-3e6, 6e4, 0, 3e6, 0, -6e4), crs=3413,
    )  # fmt: skip
    zonal(path, arctic, stats=["count", "sum"], resampling="near")
    wanted = gdal.Warp(
        "", arctic, format="MEM", dstSRS="EPSG:4326", width=40, height=20, outputBounds=(0, 70, 20, 80)
    ).ReadAsArray()  # fmt: skip
    table = open_table(path)
    assert table["arctic_count"][1] == 800
    assert table["arctic_sum"][1] == wanted.sum(dtype="f8")


def test_datasets_in_memory_and_one_pixel(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[3]], "u4"))
    source = gdal.GetDriverByName("MEM").Create("", 1, 1, 1, gdal.GDT_Float64)
    source.GetRasterBand(1).WriteArray(np.array([[2.5]]))
    source.SetGeoTransform((500, 2, 0, 900, 0, -2))
    zonal(gdal.Open(path), source, stats=["mean", "stddev"])
    table = open_table(path)
    assert table["band1_mean"][:].tolist()[3] == 2.5
    assert table["band1_stddev"][:].tolist()[3] == 0


@pytest.mark.parametrize(("arguments", "said"), [
    ({"stats": ["average"]}, "'average'"), ({"stats": "mean"}, "list"), ({"stats": []}, "no statistic"),
    ({"stats": ["p101"]}, "'p101'"), ({"bands": [3]}, "3"),
])  # fmt: skip
def test_wrong_arguments_are_named(tmp_path, segments, arguments, said):
    path, _ = segments
    source = write(tmp_path / "a.tif", image("u1"))
    with pytest.raises(BridgeError, match=said):
        zonal(path, source, **arguments)
    assert open_table(path).columns == []


def test_cancelling_leaves_no_columns(tmp_path, segments):
    path, _ = segments
    source = write(tmp_path / "a.tif", image("u1"))
    with pytest.raises(CancelledError):
        zonal(path, source, progress=lambda done, *_: done < 0.5)
    assert open_table(path).columns == []


@pytest.mark.parametrize("values", [
    [2**53 + 1, 2**53 + 1, 2**53 + 2, 2**53 + 8, 5, 6],
    [-(2**60) - 1, -(2**60) - 1, 2**60 + 3, 7, -1, 2],
    [2**61, 2**61 + 1, 2**61 + 1, 0, 0, 1],
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_integers_of_64_bits_are_exact(tmp_path, dtype, values):
    if dtype == "u8":
        values = np.abs(values)
    pixels = np.array([values], dtype)
    labels = np.array([[1, 1, 1, 1, 2, 2]])
    path = write(tmp_path / "seg.tif", labels.astype("u1"))
    zonal(path, write(tmp_path / "a.tif", pixels), stats=ALL, bands={1: "a"})
    table = open_table(path)
    for row in (1, 2):
        here = [int(one) for one in pixels[labels == row]]
        mean = sum(here) / len(here)
        expected = {
            "sum": sum(here), "min": min(here), "max": max(here), "range": max(here) - min(here),
            "mode": min(here, key=lambda one: (-here.count(one), one)), "mean": mean,
        }  # fmt: skip
        assert {stat: int(table[f"a_{stat}"][row]) for stat in expected if stat != "mean"} == {
            stat: value for stat, value in expected.items() if stat != "mean"
        }
        assert table["a_mean"][row] == pytest.approx(mean, rel=1e-15)
        assert table["a_median"][row] == pytest.approx(np.median(here), rel=1e-15)
        assert table["a_stddev"][row] == pytest.approx(np.std(np.array(here, "f8")), rel=1e-9)


@pytest.mark.parametrize("stat", ["sum", "min", "max", "range", "mode"])
@pytest.mark.parametrize(("dtype", "value"), [("u8", 2**63), ("i8", -(2**63))])
def test_integers_beyond_the_column_are_refused(tmp_path, stat, dtype, value):
    pixels = np.array([[value, value if stat != "range" else 0, 1]], dtype)
    path = write(tmp_path / "seg.tif", np.array([[4, 4, 2]], "u1"))
    source = write(tmp_path / "a.tif", pixels)
    with pytest.raises(BridgeError, match=rf"a\.tif, band 1: the {stat} in row 4 is -?\d+"):
        zonal(path, source, stats=["count", stat])
    assert open_table(path).columns == []
    zonal(path, source, stats=["mean", "median"])
    table = open_table(path)
    assert table["a_mean"][4] == float(pixels[0, :2].astype("f8").mean())
    assert table["a_median"][4] == float(np.median(pixels[0, :2].astype("f8")))


def test_sums_in_a_file_of_one_large_block_are_exact(tmp_path):
    pixels = np.full((1, 2**22 + 2**20), 2**32 - 1, "u4")
    path = write(tmp_path / "seg.tif", np.ones(pixels.shape, "u1"), BLOCKYSIZE="1")
    source = write(tmp_path / "a.tif", pixels)
    zonal(path, source, stats=["sum"])
    assert int(open_table(path)["a_sum"][1]) == int(pixels.astype("u8").sum())


# ---- weights


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_weighted_statistics(tmp_path, segments, dtype, kind):
    path, labels = segments
    values = image(dtype, 1)[0]
    random = np.random.default_rng(8)
    weights = random.integers(0, 6, values.shape).astype(kind)
    if kind == "f4":
        weights *= np.float32(0.37)
    weights[50:80] = 99
    source = write(tmp_path / "image.tif", values)
    observed = write(tmp_path / "n.tif", np.stack([weights * 0, weights]), nodata=99)
    stats = ["count", "weight", "sum", "mean", "variance", "stddev", "min", "max", "range"]
    zonal(path, source, stats=stats, bands={1: "a"}, weights=(observed, 2))
    table = open_table(path)
    w = np.where((weights != 99) & ~np.isnan(values.astype("f8")), weights.astype("f8"), 0)
    x = np.nan_to_num(values.astype("f8"))
    offset = x.max()
    rows = len(table)
    lab = labels.ravel()
    weight = np.bincount(lab, w.ravel(), minlength=rows)
    # Of deviations from a number near the mean, for an exact oracle.
    first = np.bincount(lab, (w * (x - offset)).ravel(), minlength=rows)
    with np.errstate(invalid="ignore"):
        mean = first / weight
        second = np.bincount(lab, (w * (x - offset - mean[labels]) ** 2).ravel(), minlength=rows)
        variance = second / weight
    there = weight > 0
    assert not there.all()
    assert np.array_equal(table["a_count"][:], np.bincount(lab[w.ravel() > 0], minlength=rows))
    assert np.allclose(table["a_weight"][:], weight, rtol=1e-12)
    assert np.allclose(table["a_sum"][:], first + weight * offset, rtol=1e-12)
    assert np.allclose(table["a_mean"][:][there], mean[there] + offset, rtol=1e-12)
    assert np.allclose(table["a_variance"][:][there], variance[there], rtol=1e-9, atol=1e-9)
    assert np.allclose(table["a_stddev"][:][there] ** 2, table["a_variance"][:][there])
    assert np.isnan(table["a_mean"][:][~there]).all()
    counted = np.where(w > 0, labels, -1)
    ids = np.flatnonzero(there)
    assert np.array_equal(table["a_min"][:][ids], ndimage.minimum(x, counted, ids))
    assert np.array_equal(table["a_max"][:][ids], ndimage.maximum(x, counted, ids))
    assert table["a_weight"].attrs["weights"] == "n.tif"
    assert table["a_weight"].attrs["weights_band"] == 2


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_weighted_medians_modes_and_fractions(tmp_path, segments, dtype):
    path, labels = segments
    random = np.random.default_rng(9)
    values = random.integers(0, 5, labels.shape).astype(dtype)
    # Counts are often stored as floats.
    weights = random.integers(0, 4, labels.shape).astype("f4" if dtype == "f4" else "u1")
    source = write(tmp_path / "image.tif", values)
    observed = write(tmp_path / "n.tif", weights)
    stats = ["median", "p0", "p10", "p90", "p100", "mode"]
    stats += ["fraction"] if dtype == "u1" else []
    zonal(path, source, stats=stats, bands={1: "a"}, weights=observed)
    table = open_table(path)
    for one in np.unique(labels)[::5]:
        x, w = values[labels == one], weights[labels == one]
        for stat, q in (("median", 0.5), ("p0", 0), ("p10", 0.1), ("p90", 0.9), ("p100", 1)):
            wanted = np.quantile(x[w > 0], q, weights=w[w > 0], method="inverted_cdf")
            assert table[f"a_{stat}"][one] == wanted
        sums = np.bincount(x.astype(int), w, minlength=5)
        assert table["a_mode"][one] == sums.argmax()
        for value in range(5) if dtype == "u1" else ():
            assert table[f"a_fraction_{value}"][one] == sums[value] / sums.sum()


def test_a_percentile_is_a_decimal(tmp_path):
    """1.1 percent of 3000 is 33, where floats give a little more."""
    path = write(tmp_path / "seg.tif", np.full((10, 100), 1, "u1"))
    source = write(tmp_path / "a.tif", np.arange(1, 1001, dtype="i4").reshape(10, 100))
    threes = write(tmp_path / "n.tif", np.full((10, 100), 3, "u1"))
    zonal(path, source, stats=["p1.1", "p0.000001", "p99.999999"], weights=threes)
    table = open_table(path)
    assert [table[f"a_{one}"][1] for one in ("p1.1", "p0.000001", "p99.999999")] == [11, 1, 1000]
    path = write(tmp_path / "part.tif", np.full((1, 101), 1, "u1"))
    source = write(tmp_path / "b.tif", np.arange(101, dtype="i4").reshape(1, 101))
    zonal(path, source, stats=["p7", "p33.3"])
    table = open_table(path)
    assert table["b_p7"][1] == 7
    assert table["b_p33.3"][1] == 33.3


@pytest.mark.parametrize(("weights", "stats", "said"), [
    ([[1, 2], [-1, 1]], ["mean"], r"n\.tif, band 1: weights are numbers of 0 or more.*column 0, line 1 is -1"),
    ([[1, np.inf], [1, 1]], ["mean"], r"column 1, line 0 is inf"),
    ([[1, 1], [1, 0.5]], ["median"], r"whole numbers for medians.*column 1, line 1 is 0\.5"),
    (np.array([[1, 2**63], [1, 1]], "u8"), ["median"], f"whole numbers.*column 1, line 0 is {2**63}"),
])  # fmt: skip
def test_wrong_weights_are_named(tmp_path, weights, stats, said):
    path = write(tmp_path / "seg.tif", np.ones((2, 2), "u1"))
    source = write(tmp_path / "a.tif", np.ones((2, 2), "f4"))
    weights = np.asarray(weights)
    kind = "u8" if weights.dtype.kind == "u" else "f4"
    observed = write(tmp_path / "n.tif", weights.astype(kind))
    with pytest.raises(BridgeError, match=said):
        zonal(path, source, stats=stats, weights=observed)
    assert open_table(path).columns == []


def test_weights_need_a_raster_and_a_grid(tmp_path, segments):
    path, labels = segments
    source = write(tmp_path / "a.tif", image("u1"))
    with pytest.raises(BridgeError, match=r"'weight' is the sum of the weights.*weights=\.\.\."):
        zonal(path, source, stats=["weight"])
    coarse = np.arange(155 * 235, dtype="u2").reshape(155, 235)
    observed = write(tmp_path / "n.tif", coarse, transform=(500, 4, 0, 900, 0, -4))
    with pytest.raises(BridgeError, match=r"n\.tif has 235 x 155 pixels"):
        zonal(path, source, stats=["weight"], weights=observed)
    zonal(path, source, stats=["weight"], bands=[1], weights=observed, resampling="near")
    fine = coarse.repeat(2, 0).repeat(2, 1)
    found = open_table(path)["band1_weight"][:]
    assert np.array_equal(found, np.bincount(labels.ravel(), fine.ravel(), len(found)))


def test_weighted_statistics_in_passes_are_the_same(tmp_path, segments):
    path, _ = segments
    source = write(tmp_path / "image.tif", image("f4"))
    observed = write(tmp_path / "n.tif", image("u1", 1)[0])
    stats = ["weight", "sum", "mean", "stddev"]
    zonal(path, source, stats=stats, prefix="one_", threads=1, weights=observed)
    report = zonal(
        path, source, stats=stats, prefix="many_", memory=20_000, threads=2, weights=observed
    )
    assert report.passes > 3
    table = open_table(path)
    for stat in stats:
        one, many = (table[f"{which}_band2_{stat}"][:] for which in ("one", "many"))
        assert np.array_equal(one, many, equal_nan=True)


def test_memory_is_more_than_nothing(tmp_path, segments):
    path, _ = segments
    with pytest.raises(BridgeError, match="memory is a number of bytes above 0"):
        zonal(path, write(tmp_path / "a.tif", np.ones((HEIGHT, WIDTH), "u1")), memory=0)


def test_gdals_cache_is_part_of_the_memory(tmp_path, segments):
    path, _ = segments
    before, seen = gdal.GetCacheMax(), []
    source = write(tmp_path / "a.tif", np.ones((HEIGHT, WIDTH), "u1"))
    zonal(
        path, source, memory=800 * 10**6, progress=lambda *_: seen.append(gdal.GetCacheMax()) or 1
    )
    assert set(seen) == {10**8}
    assert gdal.GetCacheMax() == before
