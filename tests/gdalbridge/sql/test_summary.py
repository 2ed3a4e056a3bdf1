"""The summary of a table's columns, against numpy."""

import csv
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

from gdalbridge import open_table
from gdalbridge.cli import main
from gdalbridge.errors import CancelledError, ColumnSelectionError
from ratzarr import RatZarr
from tests.gdalbridge.cli.test_output import in_terminal
from tests.gdalbridge.sample_rasters import INTEGER, make, new_rat

pytestmark = pytest.mark.main_env_only
ROWS = 1000


@pytest.fixture
def values():
    random = np.random.default_rng(5)
    area = random.lognormal(3, 2, ROWS)
    area[::10] = np.nan
    return {
        "area": area,
        "Histogram": random.integers(1, 2**40, ROWS),
        "class": random.choice(["water", "forest", "<b>"], ROWS, p=[0.2, 0.7, 0.1]).astype(object),
        "flag": random.random(ROWS) < 0.3,
        "date": np.datetime64("2020-01-01T06", "s") + random.integers(0, 10**8, ROWS),
        "bands": random.normal(size=(ROWS, 2)).astype("f4"),
    }


@pytest.fixture
def raster(tmp_path, values):
    own = make(tmp_path / "seg.tif")
    table = new_rat([("Value", INTEGER, 5, np.arange(ROWS))], ROWS)
    own.GetRasterBand(1).SetDefaultRAT(table)
    del own
    with RatZarr(f"{tmp_path}/seg.tif.rat.zarr", newRowCount=ROWS, newChunkSize=300) as store:
        for name, array in values.items():
            store[name] = array
        store["class"].attrs["GDAL_USAGE"] = 2
        store["area"].attrs["units"] = "ha"
        store["Histogram"].attrs["missing_value"] = int(values["Histogram"][7])
    return tmp_path / "seg.tif"


def call(*args):
    return CliRunner().invoke(main, ["describe", *map(str, args)])


def test_each_statistic_against_numpy(raster, values):
    with open_table(raster) as table:
        found = table.describe(["area", "Histogram", "class", "flag", "date", "bands"]).as_dict()
    assert (found["table"], found["rows"]) == (str(raster), ROWS)
    rows = {one["column"]: one for one in found["columns"]}
    assert list(rows) == ["area", "Histogram", "class", "flag", "date", "bands[0]", "bands[1]"]
    area = values["area"][~np.isnan(values["area"])]
    one = rows["area"]
    assert (one["count"], one["missing"], one["distinct"]) == (900, 100, len(np.unique(area)))
    assert (one["min"], one["max"]) == (area.min(), area.max())
    assert one["median"] == np.quantile(area, 0.5, method="inverted_cdf")
    assert one["mean"] == pytest.approx(area.mean(), rel=1e-14)
    assert one["stddev"] == pytest.approx(area.std(), rel=1e-12)
    assert (one["dtype"], one["units"], one["usage"], one["top"]) == ("float64", "ha", "", None)
    counts = values["Histogram"]
    there = counts[counts != counts[7]]
    assert rows["Histogram"]["missing"] == ROWS - len(there)
    assert rows["Histogram"]["max"] == there.max()
    assert rows["class"]["usage"] == "Name"
    forest = int((values["class"] == "forest").sum())
    assert (rows["class"]["top"], rows["class"]["top_count"]) == ("forest", forest)
    assert rows["class"]["distinct"] == 3
    assert rows["flag"]["mean"] == values["flag"].mean()
    assert rows["date"]["min"] == str(values["date"].min())
    for part in range(2):
        assert rows[f"bands[{part}]"]["max"] == values["bands"][:, part].max()


def test_all_columns_with_the_rasters_own(raster):
    with open_table(raster) as table:
        summary = table.describe()
        names = [one.name for one in summary.columns]
        assert names == [
            "Value", "area", "Histogram", "class", "flag", "date", "bands[0]", "bands[1]",
        ]  # fmt: skip
        assert summary.columns[0].usage == "MinMax"
        # What the table itself has changed is seen.
        table["twice"] = np.arange(ROWS) * 2
        [twice] = table.describe(["twice"]).columns
        assert twice.stats.max == 2 * (ROWS - 1)


def test_columns_that_do_not_exist_and_cancelling(raster):
    with open_table(raster) as table:
        with pytest.raises(ColumnSelectionError, match='did you mean "area"'):
            table.describe(["aera"])
        with pytest.raises(ColumnSelectionError, match="list of names"):
            table.describe("area")
        seen = []
        table.describe(progress=lambda done, message, data: seen.append((done, message)))
        assert seen[-1][0] == 1
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        with pytest.raises(CancelledError):
            table.describe(progress=lambda *_: 0)


def test_numbers_for_people(raster):
    with open_table(raster) as table:
        text = table.describe(["area", "Histogram", "date"]).text()
    title, _, head, line, *rows = text.splitlines()
    assert title == "seg.tif: 1,000 rows, 3 columns"
    assert head.split() == [
        "column", "dtype", "units", "count", "missing", "distinct", "min", "mean", "median",
        "max", "stddev",
    ]  # fmt: skip
    assert set(line) == {"-", " "}
    assert "," in rows[1].split()[-2]
    assert "T" not in rows[2].partition("date ")[2]
    # Numbers end below each other.
    place = head.index("count") + len("count")
    assert all(row[place - 1].isdigit() and row[place : place + 1] == " " for row in rows)


def test_the_grid_fits_the_terminal(raster):
    lines = in_terminal(80, "describe", raster)
    assert max(map(len, lines)) <= 80
    heads = [line for line in lines if line.startswith("column ")]
    assert [head.split()[1] for head in heads][:1] == ["dtype"]
    assert any(head.split()[1] == "min" for head in heads)
    for name in ("area", "bands[1]"):
        assert sum(line.startswith(name) for line in lines) == len(heads)
    everything = " ".join(heads).split()
    assert set(call(raster).stdout.splitlines()[2].split()) == set(everything)


def test_the_notebook_shows_names_as_text(raster):
    with open_table(raster) as table:
        table["<i>"] = ["<b>"] * ROWS
        html = table.describe(["<i>", "area"])._repr_html_()
    assert "<i>" not in html
    assert "<b>" not in html
    assert "&lt;i&gt;" in html
    assert html.count("<tr>") == 3


def test_the_command(raster, values):
    found = json.loads(call(raster, "area", "class", "--json").output)
    assert [one["column"] for one in found["columns"]] == ["area", "class"]
    rows = list(csv.DictReader(io.StringIO(call(raster, "area", "class", "--csv").output)))
    assert float(rows[0]["max"]) == np.nanmax(values["area"])
    assert rows[1]["max"] == ""
    assert rows[1]["top"] == "forest"
    assert call(raster, "area", "--json", "--csv").exit_code == 2
    assert call(raster, "aera").exit_code == 1


def test_a_table_without_rows_or_columns(tmp_path):
    make(tmp_path / "empty.tif")
    with open_table(tmp_path / "empty.tif") as table:
        assert "0 rows, 0 columns" in str(table.describe())
        assert table.describe().as_csv() == "column\n"
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store.createColumn("x", "f8")
        store.createColumn("s", str)
    with open_table(tmp_path / "t.rat.zarr") as table:
        rows = table.describe().as_dict()["columns"]
    assert [(one["count"], one["min"], one["top"]) for one in rows] == [(0, None, None)] * 2
