"""The row of a pixel value: GDAL's own answer for each value is the judge."""

import numpy as np
import pytest

from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.merged import open_columns
from gdalbridge.sidecars.pixel_rows import pixel_rows
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat

MIN, MAX, MIN_MAX = 3, 4, 5


def with_table(tmp_path, columns, binning=None):
    rows = len(columns[0][3])
    rat = new_rat(columns, rows)
    if binning:
        rat.SetLinearBinning(*binning)
    dataset = make(tmp_path / "a.tif")
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset = None
    return str(tmp_path / "a.tif"), rat


TABLES = {
    "values out of order": ([("v", INTEGER, MIN_MAX, [5, 3, -7, 5, 100_000])], None),
    "values far apart": ([("v", INTEGER, MIN_MAX, [5, 2**31 - 1, -(2**31)])], None),
    "floats": ([("v", REAL, MIN_MAX, [0.5, -1.25, 7.0])], None),
    "ranges": ([("a", REAL, MIN, [0, 10, 20.5]), ("b", REAL, MAX, [10, 20, 30])], None),
    "bins": ([("n", INTEGER, 0, [1, 2, 3, 4])], (-1.5, 0.75)),
    "bins before values": ([("v", INTEGER, MIN_MAX, [5, 3, 1])], (0, 10)),
}
PIXELS = {
    "u1": np.arange(256, dtype="u1"),
    "i2": np.arange(-(2**15), 2**15).astype("i2"),
    "u4": np.array([0, 3, 5, 100_000, 2**31 - 1, 2**31, 2**32 - 1], "u4"),
    "i4": np.array([-(2**31), -7, 0, 3, 5, 2**31 - 1], "i4"),
    "f4": np.array([-1.5, -1.25, 0, 0.5, 7, 10, 20, 20.25, 20.5, 30, 31, np.inf], "f4"),
    "f8": np.array([-1.5, -1.25, -0.0, 0.5, 7, 10, 20, 20.25, 20.5, 30, 31, -np.inf]),
}


@pytest.mark.parametrize("kind", list(PIXELS))
@pytest.mark.parametrize("name", list(TABLES))
def test_gdal_gives_the_same_row(tmp_path, name, kind):
    path, rat = with_table(tmp_path, *TABLES[name])
    pixels = PIXELS[kind]
    with open_columns(path) as columns:
        found = pixel_rows(columns).of(pixels.reshape(1, -1))
    assert found.shape == (1, len(pixels))
    assert found[0].tolist() == [rat.GetRowOfValue(float(one)) for one in pixels]


def test_nan_has_no_row(tmp_path):
    for name in ("floats", "ranges", "bins"):
        path, _ = with_table(tmp_path, *TABLES[name])
        with open_columns(path) as columns:
            assert pixel_rows(columns).of(np.array([np.nan]))[0] == -1


def test_without_such_columns_the_row_is_the_value(tmp_path):
    path, _ = with_table(tmp_path, [("n", INTEGER, 0, [1, 2, 3])])
    with open_columns(path) as columns:
        rule = pixel_rows(columns)
    assert rule.is_identity
    for dtype in ("i1", "u1", "i4", "u4", "i8", "u8"):
        pixels = np.array([0, 2, 3, 100], dtype)
        assert rule.of(pixels).tolist() == [0, 2, -1, -1]
    assert rule.of(np.array([-1, 2**63 - 1])).tolist() == [-1, -1]
    assert rule.of(np.array([2**64 - 1], "u8")).tolist() == [-1]
    with pytest.raises(BridgeError, match="floats"):
        rule.of(np.array([1.0]))


def test_a_column_of_row_numbers_is_the_identity(tmp_path):
    path, _ = with_table(tmp_path, [("v", INTEGER, MIN_MAX, [0, 1, 2, 3])])
    with open_columns(path) as columns:
        assert pixel_rows(columns).is_identity


def test_a_sidecars_column_and_binning_count(tmp_path):
    path, _ = with_table(tmp_path, [("n", INTEGER, 0, [1, 2, 3])])
    with RatZarr(f"{path}.rat.zarr", newRowCount=3) as table:
        table["Value"] = [30, 10, 20]
        table["Value"].attrs["GDAL_USAGE"] = MIN_MAX
    with open_columns(path) as columns:
        assert pixel_rows(columns).of(np.array([10, 20, 30, 40])).tolist() == [1, 2, 0, -1]
    with RatZarr(f"{path}.rat.zarr") as table:
        table.getRatAttributeMapping()["GDAL_LINEAR_BINNING"] = [0, 100]
    with open_columns(path) as columns:
        assert pixel_rows(columns).of(np.array([10, 250, 300])).tolist() == [0, 2, -1]


@pytest.mark.parametrize("pixels", ["i8", "u8"])
@pytest.mark.parametrize("values", ["i8", "u8"])
def test_integers_of_64_bits_are_not_rounded(tmp_path, values, pixels):
    path, _ = with_table(tmp_path, [("n", INTEGER, 0, [1, 2, 3])])
    ends = {"i8": -5, "u8": 2**64 - 1}
    with RatZarr(f"{path}.rat.zarr", newRowCount=3) as table:
        table["Value"] = np.array([ends[values], 2**60 + 2, 2**60 + 1], values)
        table["Value"].attrs["GDAL_USAGE"] = MIN_MAX
    wanted = np.array([2**60 + 1, 2**60 + 2, 2**60 + 3, ends[pixels]], pixels)
    with open_columns(path) as columns:
        found = pixel_rows(columns).of(wanted)
    assert found.tolist() == [2, 1, -1, 0 if values == pixels else -1]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("i1", [-100, 0, 50, 100]),
        ("i2", [-30000, 30000, 7]),
        ("u8", [2**63 + 5, 2**63 + 1]),
        ("u8", [2**64 - 1, 2**64 - 3]),
    ],
)
def test_values_that_their_type_can_hold_but_not_their_span(tmp_path, kind, values):
    path, _ = with_table(tmp_path, [("n", INTEGER, 0, [1] * len(values))])
    with RatZarr(f"{path}.rat.zarr", newRowCount=len(values)) as table:
        table["Value"] = np.array(values, kind)
        table["Value"].attrs["GDAL_USAGE"] = MIN_MAX
    wide = "u8" if kind == "u8" else "i4"
    with open_columns(path) as columns:
        found = pixel_rows(columns).of(np.array([*values, 1, 120], wide))
    assert found.tolist() == [*range(len(values)), -1, -1]


def test_a_column_of_bools_has_values(tmp_path):
    path, _ = with_table(tmp_path, [("n", INTEGER, 0, [1, 2])])
    with RatZarr(f"{path}.rat.zarr", newRowCount=2) as table:
        table["Value"] = [True, False]
        table["Value"].attrs["GDAL_USAGE"] = MIN_MAX
    with open_columns(path) as columns:
        assert pixel_rows(columns).of(np.array([0, 1, 2], "u1")).tolist() == [1, 0, -1]


WRONG = {
    "text": ([("v", STRING, MIN_MAX, ["a", "b"])], None, r"'v'.*expected numbers, got"),
    "no maximum": ([("v", REAL, MIN, [0.0, 1])], None, "'v' is one end"),
    "overlapping": ([("a", REAL, MIN, [0, 5.0]), ("b", REAL, MAX, [10, 20.0])], None, "row 1"),
    "descending": ([("a", REAL, MIN, [10, 0.0]), ("b", REAL, MAX, [20, 10.0])], None, "row 1"),
    "inside out": ([("a", REAL, MIN, [10.0]), ("b", REAL, MAX, [5.0])], None, "row 0"),
    "no bins": ([("n", INTEGER, 0, [1, 2])], (0, 0), "no bins"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_has_no_clear_answer_is_refused_by_name(tmp_path, name):
    columns, binning, said = WRONG[name]
    path, _ = with_table(tmp_path, columns, binning)
    with open_columns(path) as there, pytest.raises(BridgeError, match=said):
        pixel_rows(there)


def test_a_long_table_of_row_numbers_takes_no_memory(tmp_path):
    rows = 1_200_000
    path = tmp_path / "b.tif"
    make(path)
    with RatZarr(f"{path}.rat.zarr", newRowCount=rows) as table:
        values = np.arange(rows)
        values[-1] = 7_000_000
        table["Value"] = values
        table["Value"].attrs["GDAL_USAGE"] = MIN_MAX
    with open_columns(path) as columns:
        rule = pixel_rows(columns)
    # The last row differs, so earlier blocks that were row numbers count as well.
    assert rule.of(np.array([0, 600_000, rows - 1, 7_000_000])).tolist() == [
        0,
        600_000,
        -1,
        rows - 1,
    ]
