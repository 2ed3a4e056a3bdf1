"""Classes by pixels: pandas and exact fractions are the judges."""

from fractions import Fraction

import numpy as np
import pytest

from gdalbridge import BridgeError, build, open_table, summarize
from gdalbridge.errors import ColumnSelectionError
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import squares, write

pytestmark = pytest.mark.main_env_only

CLASSES = np.array(["forest", "water", "Ödland"])


@pytest.fixture
def segments(tmp_path):
    random = np.random.default_rng(4)
    pixels = squares(200, 300, size=7, first=5)
    path = write(tmp_path / "seg.tif", pixels, nodata=9)
    build(path)
    with open_table(path) as table:
        rows = len(table)
        table["class"] = CLASSES[random.integers(0, 3, rows)]
        ndvi = random.normal(1e6, 1, rows)
        ndvi[random.random(rows) < 0.2] = np.nan
        table["ndvi"] = ndvi
        table["height"] = ndvi.astype("f4")[::-1].copy()
        table["steps"] = random.integers(-5, 5, rows)
        table["wet"] = random.random(rows) < 0.3
    return path


def expected(frame, columns):
    """Return the summary as a dictionary of rows by class, in exact arithmetic."""
    frame = frame[frame["Histogram"] > 0]
    total = int(frame["Histogram"].sum())
    found = {}
    for name, group in frame.groupby("class"):
        pixels = int(group["Histogram"].sum())
        means = {}
        for column in columns:
            known = group.dropna(subset=[column])
            weights = [int(one) for one in known["Histogram"]]
            products = [
                Fraction(float(one)) * weight
                for one, weight in zip(known[column], weights, strict=True)
            ]
            means[f"{column}_mean"] = float(sum(products) / sum(weights))
        found[name] = {
            "class": name, "rows": len(group), "pixels": pixels, "area": pixels * 4.0,
            "share": pixels / total, **means,
        }  # fmt: skip
    return found


def test_against_exact_arithmetic(segments):
    columns = ["ndvi", "height", "steps", "wet"]
    found = summarize(segments, "class", columns=columns)
    wanted = expected(open_table(segments).to_pandas(), columns)
    rows = found.to_arrow().to_pylist()
    assert [row["class"] for row in rows] == sorted(wanted)
    for row in rows:
        other = wanted[row["class"]]
        assert list(row) == list(other)
        assert list(row.values())[1:] == pytest.approx(list(other.values())[1:], rel=1e-14)
        assert type(row["pixels"]) is int
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert sum(row["pixels"] for row in rows) == 200 * 300 - 49
    assert found.unit == "m2"
    assert found.as_dict()["classes"] == rows
    assert found.as_dict()["by"] == ["class"]
    lines = found.as_csv().splitlines()
    assert lines[0] == "class,rows,pixels,area,share,ndvi_mean,height_mean,steps_mean,wet_mean"
    assert [float(one) for one in lines[1].split(",")[1:]] == list(rows[0].values())[1:]
    assert str(found).splitlines()[0].split()[:4] == ["class", "rows", "pixels", "area"]
    assert found._repr_html_().count("<tr>") == 4
    assert found.to_pandas().set_index("class")["pixels"].to_dict() == {
        name: one["pixels"] for name, one in wanted.items()
    }


def test_least_and_greatest(segments):
    found = summarize(segments, "class", columns=["ndvi", "steps"], stats=["min", "max", "mean"])
    frame = open_table(segments).to_pandas()
    frame = frame[frame["Histogram"] > 0].groupby("class")
    got = found.to_pandas().set_index("class")
    for column in ("ndvi", "steps"):
        for stat in ("min", "max"):
            assert got[f"{column}_{stat}"].to_dict() == frame[column].agg(stat).to_dict()


def table_of(tmp_path, counts, usage=1, pixels=None, **columns):
    path = write(tmp_path / "seg.tif", np.zeros((2, 2), "u1") if pixels is None else pixels)
    with RatZarr(f"{path}.rat.zarr", newRowCount=len(counts)) as table:
        for name, values in {"n": counts, **columns}.items():
            table[name] = values
        table["n"].attrs["GDAL_USAGE"] = usage
    return path


def test_weights_of_missing_values_and_empty_rows(tmp_path):
    path = table_of(
        tmp_path, np.array([5, 1, 3, 0, 2, 7], "u4"), **{
            "class": ["a", "a", "a", "a", "b", "c"],
            "x": [np.nan, 2.0, 6.0, 1000.0, np.nan, np.inf],
            "y": np.array([1, 99, 2, 3, 99, 99], "i4"),
        },
    )  # fmt: skip
    with RatZarr(f"{path}.rat.zarr") as table:
        table.getColumnAttributeMapping("y")["missing_value"] = 99
    found = summarize(path, "class", columns=["x", "y"], stats=["mean", "max"]).to_arrow()
    assert found.to_pylist() == [
        {"class": "a", "rows": 3, "pixels": 9, "area": 36.0, "share": 0.5, "x_mean": 5.0,
         "x_max": 6.0, "y_mean": 11 / 8, "y_max": 2},
        {"class": "b", "rows": 1, "pixels": 2, "area": 8.0, "share": 2 / 18, "x_mean": None,
         "x_max": None, "y_mean": None, "y_max": None},
        {"class": "c", "rows": 1, "pixels": 7, "area": 28.0, "share": 7 / 18, "x_mean": np.inf,
         "x_max": np.inf, "y_mean": None, "y_max": None},
    ]  # fmt: skip
    as_json = summarize(path, "class", columns=["x"]).as_dict()["classes"]
    assert [one["x_mean"] for one in as_json] == [5.0, None, "inf"]


def test_classes_of_other_types_and_missing_ones(tmp_path):
    path = table_of(
        tmp_path,
        [1.0, 2.0, np.nan, 4.0],
        code=np.array([3, -1, 3, 3], "i2"),
        Code=["x", "y", "z", "x"],
        day=np.array(["2020-05-01", "NaT", "2020-05-01", "2020-05-01"], "M8[s]"),
    )
    with RatZarr(f"{path}.rat.zarr") as table:
        table.getColumnAttributeMapping("code")["missing_value"] = -1
    found = summarize(path, "code")
    rows = found.to_arrow().to_pylist()
    assert [(row["code"], row["rows"], row["pixels"]) for row in rows] == [
        (3, 2, 5.0),
        (None, 1, 2.0),
    ]
    assert found.as_csv().splitlines()[2].startswith(",1,2.0,8.0,")
    both = summarize(path, ["code", "Code"])
    assert [(row["code"], row["Code"]) for row in both.to_arrow().to_pylist()] == [
        (3, "x"), (None, "y"),
    ]  # fmt: skip
    assert [row["day"] for row in summarize(path, "day").as_dict()["classes"]] == [
        "2020-05-01T00:00:00", None,
    ]  # fmt: skip


def test_counts_beyond_32_bits_and_big_integers(tmp_path):
    path = table_of(
        tmp_path, np.array([2**61, 2**61], "i8"), c=["a", "a"], x=np.array([2**53 + 1, 0], "i8")
    )
    [row] = summarize(path, "c", columns=["x"], stats=["max"]).to_arrow().to_pylist()
    assert row["pixels"] == 2**62
    assert row["x_max"] == 2**53 + 1


def test_a_table_without_pixels(tmp_path):
    path = table_of(tmp_path, np.zeros(3, "i4"), c=["a", "b", "c"])
    found = summarize(path, "c")
    assert found.to_arrow().num_rows == 0
    assert found.as_dict()["classes"] == []
    assert len(str(found).splitlines()) == 2


def test_many_classes_are_cut_in_text_alone(tmp_path):
    path = table_of(tmp_path, np.ones(500, "i4"), c=np.arange(500))
    found = summarize(path, "c")
    assert len(str(found).splitlines()) == 54
    assert len(found.as_csv().splitlines()) == 501


def test_units_and_rotation(tmp_path):
    raster = write(tmp_path / "r.tif", np.array([[0, 0, 1]], "u1"), crs=4326,
                   transform=(0, 3, 4, 0, 4, -3))  # fmt: skip
    build(raster)
    with open_table(raster) as table:
        table["c"] = ["a", "b"]
    found = summarize(raster, "c")
    assert found.unit == "degree2"
    assert found.to_arrow()["area"].to_pylist() == [50.0, 25.0]


def test_what_is_refused(tmp_path, segments):
    other = tmp_path / "other"
    other.mkdir()
    path = table_of(other, [1, 1], usage=0, c=["a", "b"])
    with pytest.raises(ColumnSelectionError, match=r"PixelCount.*gdalbridge build .*--recount"):
        summarize(path, "c")
    build(path, recount=True)
    assert summarize(path, "c").to_arrow()["pixels"].to_pylist() == [4]
    for given, error, words in (
        ({"by": "klass"}, ColumnSelectionError, "class"),
        ({"by": "class", "columns": ["nvdi"]}, ColumnSelectionError, "ndvi"),
        ({"by": "class", "columns": ["class"]}, BridgeError, "'class' is"),
        ({"by": "class", "columns": "ndvi"}, BridgeError, "lists of names"),
        ({"by": "class", "stats": ["median"]}, BridgeError, "'median'.*mean, min, max"),
        ({"by": []}, BridgeError, "no column"),
        ({"by": ["class", "class"]}, BridgeError, "twice|would be called"),
    ):
        with pytest.raises(error, match=words):
            summarize(segments, **given)
    negative = tmp_path / "negative"
    negative.mkdir()
    with pytest.raises(BridgeError, match="a number of pixels is negative"):
        summarize(table_of(negative, [1, -1], c=["a", "b"]), "c")


def test_on_s3(segments, moto_s3):
    moto_s3.client.upload_file(segments, moto_s3.bucket, "d/seg.tif")
    name = f"/vsis3/{moto_s3.bucket}/d/seg.tif"
    build(name)
    with open_table(segments) as table, open_table(name) as far:
        far["class"] = table["class"][:]
        far["ndvi"] = table["ndvi"][:]
    here, there = (summarize(one, "class", columns=["ndvi"]) for one in (segments, name))
    assert here.to_arrow().equals(there.to_arrow())
