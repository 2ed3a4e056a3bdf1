"""Rows chosen by an expression and sorted, in head, against pandas."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from zarr.storage import MemoryStore

from gdalbridge import BridgeError, ConversionError, open_table
from gdalbridge.cli import main
from gdalbridge.errors import ColumnSelectionError
from gdalbridge.sidecars.merged import open_columns
from gdalbridge.sql.condition import selected_rows
from tests.gdalbridge.pixel_rasters import write
from tests.gdalbridge.sample_rasters import INTEGER, STRING, make, new_rat
from tests.gdalbridge.sql.test_query import Counting, store, texts

pytestmark = pytest.mark.main_env_only

ROWS = 5_000


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "ndvi": np.where(rng.random(ROWS) < 0.1, np.nan, rng.random(ROWS)),
            "area": rng.integers(0, 50, ROWS),
            "class": rng.choice(["water", "forest", ""], ROWS),
            "Area": rng.integers(-3, 3, ROWS),
        }
    )


@pytest.fixture(scope="module")
def path(frame, tmp_path_factory):
    columns = {name: frame[name].to_numpy() for name in ("ndvi", "area", "Area")}
    columns["class"] = texts(*frame["class"])
    columns["pair"] = np.arange(2 * ROWS).reshape(ROWS, 2)
    place = f"{tmp_path_factory.mktemp('tables')}/seg.tif.rat.zarr"
    return store(place, columns, 1000, Area={"missing_value": 2})


def head(*args):
    done = CliRunner(catch_exceptions=False).invoke(main, ["head", *map(str, args)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("where", "query"),
    [
        ("ndvi > 0.6 AND NOT isnan(ndvi)", "ndvi > 0.6"),
        ("isnan(ndvi)", "ndvi.isna()"),
        ("class = 'water' AND area % 7 = 3", "`class` == 'water' and area % 7 == 3"),
        ("area < 0", "area < 0"),
        ("Area = -3", "Area == -3"),
        # A missing value makes it NULL, which is not true.
        ("Area > 0", "Area > 0 and Area < 2"),
        ("NOT Area > 0", "not Area > 0"),
        # 0 / 0 is NaN, which is greater than any number.
        ("area / Area > 10", "Area == 1 and area > 10 or Area == 0"),
        ("\"pair[1]\" > 9000", "index >= 4500"),
        ("true", "index >= 0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("sort", "ascending"),
    [
        ([], []),
        (["-area"], [("area", False)]),
        (["class", "-ndvi"], [("class", True), ("ndvi", False)]),
        (["ndvi", "Area"], [("ndvi", True), ("Area", True)]),
    ],
)
def test_as_pandas(frame, path, where, query, sort, ascending):
    expected = frame.query(query)
    if ascending:
        by, order = map(list, zip(*ascending, strict=True))
        keys = expected.assign(Area=expected["Area"].mask(expected["Area"] == 2))
        expected = keys.sort_values(by, ascending=order, na_position="last", kind="stable")
    rows = [word for one in sort for word in ("--sort", one)]
    found = json.loads(head(path, "--where", where, *rows, "--rows", 20, "--from", 3, "--json"))
    assert found["row_numbers"] == expected.index[3:23].tolist()
    assert found["columns"]["area"] == expected["area"][3:23].tolist()
    assert found["columns"]["class"] == expected["class"][3:23].tolist()
    assert found["columns"]["pair"] == [[2 * row, 2 * row + 1] for row in found["row_numbers"]]
    with open_columns(path) as there:
        assert selected_rows(there, where, sort, count=ROWS) == expected.index.tolist()


def test_a_note_says_which_rows_are_there_because_of_nan(tmp_path):
    raster = write(tmp_path / "seg.tif", np.array([[0, 1, 2, 3]], "u1"))
    with open_table(raster) as table:
        table["rent"] = [3000.0, np.nan, 10.0, np.nan]
    for command in (
        ["select", raster, "rent > 2499"],
        ["head", raster, "--where", "rent > 2499"],
        ["paint", raster, "rent", "-o", tmp_path / "rent.tif", "--where", "rent > 2499"],
        ["polygonize", raster, tmp_path / "rent.gpkg", "--where", "rent > 2499"],
    ):
        done = CliRunner(catch_exceptions=False).invoke(main, list(map(str, command)))
        assert done.exit_code == 0, done.output
        assert done.stderr.count("2 rows have NaN in rent") == 1, command[0]


def test_missing_values_come_after_nan(tmp_path):
    values = np.array([np.nan, 1.0, -9.0, 3.0, np.nan, -9.0])
    place = store(f"{tmp_path}/a.rat.zarr", {"x": values}, x={"missing_value": -9.0})
    for sort, expected in (("x", [1, 3, 0, 4, 2, 5]), ("-x", [3, 1, 0, 4, 2, 5])):
        assert json.loads(head(place, "--sort", sort, "--json"))["row_numbers"] == expected


def test_the_text_has_the_row_numbers(path, frame):
    lines = head(
        path, "--where", "area = 7", "--sort", "-ndvi", "--rows", 2, "--column", "ndvi"
    ).splitlines()
    best = frame[frame["area"] == 7].sort_values("ndvi", ascending=False)
    assert lines[0] == "seg.tif.rat.zarr: 2 of 5000 rows, where area = 7, sorted by -ndvi"
    assert [line.split()[0] for line in lines[3:]] == list(map(str, best.index[:2]))
    assert "0 of 5000 rows" in head(path, "--where", "area < 0")


def test_a_raster_with_a_shorter_sidecar(tmp_path):
    place = tmp_path / "seg.tif"
    dataset = make(place)
    rat = new_rat([("v", INTEGER, 0, [5, 3, 1, 4]), ("s", STRING, 0, list("abcd"))], 4)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    store(f"{place}.rat.zarr", {"x": np.array([1.5, 2.5])})
    found = json.loads(head(place, "--where", "v > 1", "--sort", "v", "--json"))
    assert (found["rows"], found["row_numbers"]) == (4, [1, 3, 0])
    assert found["columns"] == {"v": [3, 4, 5], "s": ["b", "d", "a"], "x": [2.5, None, 1.5]}
    assert json.loads(head(place, "--where", "x > 0", "--json"))["row_numbers"] == [0, 1]
    assert json.loads(head(place, "--sort", "-x", "--json"))["row_numbers"] == [1, 0, 2, 3]


def test_little_is_read():
    rows, chunk = 1_000_000, 10_000
    counted = Counting(MemoryStore())
    columns = {"a": np.arange(rows), "b": np.arange(rows) % 1000, "other": np.arange(rows)}
    store(counted, columns, chunk)
    counted.read.clear()
    with open_columns(counted) as there:
        assert selected_rows(there, "a >= 10", (), count=5) == [10, 11, 12, 13, 14]
        assert counted.read == Counter(a=1)
        counted.read.clear()
        assert selected_rows(there, None, ["-b"], count=2) == [999, 1999]
        assert set(counted.read) == {"b"}
        assert counted.read["b"] <= 102


def test_errors(path):
    with open_columns(path) as there:
        for where, error, words in (
            ("area", BridgeError, "'area' is not true or false"),
            ("area >", BridgeError, "is not an expression"),
            ("sum(area) > 1", BridgeError, "aggregate"),
            ("nvdi > 1", ColumnSelectionError, 'did you mean "ndvi"'),
            ("(SELECT true)", BridgeError, "a query of its own"),
            ("class::INTEGER > 1", ConversionError, "row 0: .*Could not convert"),
        ):
            for sort in ((), ("area",)):
                with pytest.raises(error, match=words):
                    selected_rows(there, where, sort, count=1)
        with pytest.raises(ColumnSelectionError, match="'nope'"):
            selected_rows(there, None, ["-nope"], count=1)
