"""A condition means the same wherever it is given; numpy on whole arrays is the judge."""

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from gdalbridge import BridgeError, build, export_table, open_table, paint, polygonize, select
from gdalbridge.cli import main
from gdalbridge.errors import ColumnSelectionError
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import write

pytestmark = [
    pytest.mark.main_env_only,
    pytest.mark.filterwarnings("ignore::gdalbridge.errors.NaNWarning"),
]

ROWS = 60
ROW = np.arange(ROWS)
NDVI = np.where(ROW % 7 == 3, np.nan, ROW / ROWS)
CLASS = np.array(["forest", "water", "bare"])[ROW % 3]
NO_CODE = ROW % 5 == 0
CODE = np.where(NO_CODE, -1, ROW % 4)
PAIR = np.stack([ROW, -ROW], axis=1)


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """A raster with one pixel for each row."""
    path = write(tmp_path_factory.mktemp("where") / "seg.tif", ROW.astype("u1").reshape(6, 10))
    build(path)
    with open_table(path) as table:
        table["ndvi"] = NDVI
        table["class"] = CLASS
        table["code"] = CODE
        table["code"].attrs["missing_value"] = -1
        table["pair"] = PAIR
        table["painted"] = ROW.astype("i4")
    return path


def in_export(raster, where, folder):
    export_table(raster, folder / "o.arrow", where=where, overwrite=True)
    with pa.OSFile(str(folder / "o.arrow")) as file:
        return pa.ipc.open_file(file).read_all()["row"].to_pylist()


def in_export_of_a_table(raster, where, folder):
    with open_table(raster) as table:
        return in_export(table, where, folder)


def in_head(raster, where, _):
    asked = ["head", raster, "--where", where, "--rows", str(ROWS), "--json"]
    done = CliRunner().invoke(main, asked)
    if done.exit_code:
        raise BridgeError(done.output)
    return json.loads(done.stdout)["row_numbers"]


def in_select(raster, where, _):
    return select(raster, where).tolist()


def in_paint(raster, where, _):
    return paint(raster, "painted", where=where).compressed().tolist()


def in_polygonize(raster, where, folder):
    polygonize(raster, folder / "o.geojson", where=where, columns=["painted"], overwrite=True)
    features = json.loads((folder / "o.geojson").read_text())["features"]
    return [one["properties"]["row"] for one in features]


DOORS = [in_export, in_export_of_a_table, in_head, in_select, in_paint, in_polygonize]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("class = 'forest' and ndvi > 0.6", (CLASS == "forest") & ~(NDVI <= 0.6)),
        ("class = 'forest' AND ndvi > 0.6 AND NOT isnan(ndvi)", (CLASS == "forest") & (NDVI > 0.6)),
        ("class IN ('forest', 'bare') OR row < 5", (CLASS != "water") | (ROW < 5)),
        ("code IS NULL", NO_CODE),
        ("code IS NOT NULL AND code NOT IN (1, 2)", np.isin(CODE, [0, 3])),
        ("NOT code > 1", np.isin(CODE, [0, 1])),
        ("class LIKE 'b%' AND row BETWEEN 10 AND 30", (CLASS == "bare") & (ROW >= 10) & (ROW <= 30)),
        # Decimals are floats, and / is true division.
        ("ndvi * 10 = 0.1 * 10 * ndvi * 10 AND row / 8 = 0.25", (ROW == 2)),
        ('"pair[1]" <= -50', ROW >= 50),
        ("row % 2 = 1", ROW % 2 == 1),
    ],
)  # fmt: skip
def test_every_door_finds_the_same_rows(raster, tmp_path, door, where, wanted):
    assert door(raster, where, tmp_path) == np.flatnonzero(wanted).tolist()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("ndvi > (SELECT avg(ndvi) FROM rat)", "a query of its own .gdalbridge sql"),
        ("ndvi > avg(ndvi)", "aggregate"),
        ('class = "forest"', "text is written in single quotes"),
        ("Class = 'forest'", 'did you mean "class"'),
        ("ndvi", "not true or false"),
        ("ndvi >", "is not an expression"),
        ("", "an expression is text"),
    ],
)
def test_what_it_refuses(raster, tmp_path, door, where, words):
    with pytest.raises(BridgeError, match=words):
        door(raster, where, tmp_path)


def test_one_value_of_several_is_named(raster, tmp_path):
    with pytest.raises(BridgeError, match=r'pair.*written "pair\[0\]"'):
        export_table(raster, tmp_path / "o.csv", columns=["code"], where="pair > 3")
    with pytest.raises(ColumnSelectionError, match=r"pair\[2\]"):
        export_table(raster, tmp_path / "o.csv", columns=["code"], where='"pair[2]" > 3')
    assert not (tmp_path / "o.csv").exists()


def test_a_column_called_row_is_not_the_row_number(tmp_path):
    place = str(tmp_path / "t.rat.zarr")
    with RatZarr(place, newRowCount=3) as table:
        table["row"] = [7, 5, 6]
    assert select(place, "row = 5").tolist() == [1]
    assert select(place, "_row = 2").tolist() == [2]
    assert in_head(place, "row - _row = 4", tmp_path) == [1, 2]
    export_table(place, tmp_path / "o.csv", where="row > _row + 4")
    assert (tmp_path / "o.csv").read_text() == '"_row","row"\n0,7\n'


def test_a_row_that_fails_is_named(raster, tmp_path):
    for door in DOORS:
        with pytest.raises(BridgeError, match=r"row 0: .*Could not convert"):
            door(raster, "CAST(class AS INTEGER) > 1", tmp_path)
