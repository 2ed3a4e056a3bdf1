"""Columns that HFA takes for colours by their names, in ``bake`` and ``export``.

GDAL's own reading of the output is the oracle.
"""

import random
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

from gdalbridge import ConversionError, LossWarning, bake, copy_to_raster
from gdalbridge.cli import main
from gdalbridge.errors import NotWrittenError
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import HAS_HFA, make

pytestmark = pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")

ROWS = 6
COLOURS = {"red": 6, "green": 7, "blue": 8, "opacity": 9}
KEPT = {1: "Histogram", 2: "Class_Names", 6: "Red", 7: "Green", 8: "Blue", 9: "Opacity"}
VALUES = {
    "i4": np.arange(ROWS, dtype="i4") * 40,
    "f8": np.arange(ROWS) + 0.25,
    "T": np.array([f"t {row}" for row in range(ROWS)], np.dtypes.StringDType()),
}
KIND = {"i4": gdal.GFT_Integer, "f8": gdal.GFT_Real, "T": gdal.GFT_String}


def raster_with(path, columns, *, colours=False, histogram=False):
    """Make a raster with a sidecar of columns (name, dtype, usage)."""
    dataset = make(path, size=(8, 8))
    band = dataset.GetRasterBand(1)
    band.WriteArray(np.arange(64, dtype=np.uint8).reshape(8, 8) % ROWS)
    if colours:
        table = gdal.ColorTable()
        for entry in range(256):
            table.SetColorEntry(entry, (entry, (entry + 1) % 256, (entry + 2) % 256, 255))
        band.SetColorTable(table)
    if histogram:
        band.SetDefaultHistogram(-0.5, 255.5, [3] * 256)
    del band, dataset
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(ROWS)
        for name, dtype, usage in columns:
            table.createColumn(name, str if dtype == "T" else dtype)
            table.writeBlock(name, VALUES[dtype], 0)
            table.getColumnAttributeMapping(name)["GDAL_USAGE"] = usage
    return path


def table_of(path):
    """Read with GDAL alone: types, usages and values by name, and the colour table."""
    dataset = gdal.Open(str(path))
    band = dataset.GetRasterBand(1)
    rat, colours = band.GetDefaultRAT(), band.GetColorTable()
    found = {}
    for index in range(rat.GetColumnCount()):
        values = rat.ReadAsArray(index)
        if rat.GetTypeOfCol(index) == gdal.GFT_String:
            values = np.array([value.decode() for value in values], np.dtypes.StringDType())
        found[rat.GetNameOfCol(index).lower()] = (
            rat.GetTypeOfCol(index),
            rat.GetUsageOfCol(index),
            values,
        )
    entries = range(colours.GetCount()) if colours else ()
    return found, [tuple(colours.GetColorEntry(entry)) for entry in entries]


def baked(*args, **keywords):
    """Bake; return what was said to be lost, but for the table's type, which HFA never keeps."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", LossWarning)
        bake(*args, **keywords)
    words = [str(one.message).partition(": ")[2] for one in said]
    return [one for one in words if one != "the table's type was not kept"]


def is_taken_for_a_colour(name, dtype, usage):
    kept = KEPT.get(usage, name).lower()
    return kept in COLOURS and (dtype != "i4" or usage != COLOURS[kept])


@pytest.mark.parametrize("order", [("area", "Red"), ("Red", "area")])
@pytest.mark.parametrize("name", ["Red", "GREEN", "blue", "Opacity"])
@pytest.mark.parametrize(("dtype", "usage"), [("f8", 0), ("T", 0), ("i4", 0), ("i4", 1)])
@pytest.mark.parametrize("colours", [False, True])
def test_a_column_named_as_a_colour(tmp_path, order, name, dtype, usage, colours):
    columns = {"area": ("area", "f8", 0), "Red": (name, dtype, usage)}
    path = raster_with(tmp_path / "x.tif", [columns[one] for one in order], colours=colours)
    out = tmp_path / "x.img"
    if usage == 1:
        # Of this usage HFA has a name of its own.
        [loss] = baked(path, out)
        assert f"column '{name}'" in loss
        assert table_of(out)[0]["histogram"][2].tolist() == VALUES[dtype].tolist()
        return
    with pytest.raises(NotWrittenError, match=rf"column '{name}' is .* for the colour"):
        bake(path, out)
    assert not out.exists()
    done = CliRunner().invoke(main, ["bake", str(path), str(out)])
    assert done.exit_code == 1
    assert f"column '{name}'" in done.stderr
    assert "--column" in done.stderr
    assert baked(path, out, columns=["area"]) == []
    found, entries = table_of(out)
    assert found["area"][2].tolist() == VALUES["f8"].tolist()
    assert entries == table_of_colours(path)


def table_of_colours(path):
    dataset = gdal.Open(str(path))
    colours = dataset.GetRasterBand(1).GetColorTable()
    return [tuple(colours.GetColorEntry(i)) for i in range(colours.GetCount())] if colours else []


@pytest.mark.parametrize("seed", range(60))
def test_any_columns_in_any_order(tmp_path, seed):
    """Either an error names a column that is no colour, or GDAL reads every value again."""
    pick = random.Random(seed)
    pool = ["Red", "green", "BLUE", "Opacity", "Histogram", "Class_Names", "area", "class"]
    columns = []
    for name in pick.sample(pool, pick.randint(1, 5)):
        dtype = pick.choice(["i4", "f8", "T"])
        usage = pick.choice([0, COLOURS.get(name.lower(), 0)])
        if dtype != "i4" and usage:
            usage = 0
        if dtype == "f8" and name == "area" and pick.random() < 0.3:
            usage = 1
        columns.append((name, dtype, usage))
    colours, histogram = pick.random() < 0.5, pick.random() < 0.5
    path = raster_with(tmp_path / "x.tif", columns, colours=colours, histogram=histogram)
    out = tmp_path / "x.img"
    bad = [one[0] for one in columns if is_taken_for_a_colour(*one)]
    kept = [KEPT.get(usage, name).lower() for name, _, usage in columns]
    if bad or len(set(kept)) < len(kept):
        with pytest.raises(NotWrittenError) as raised:
            bake(path, out)
        assert not bad or any(f"column {name!r}" in str(raised.value) for name in bad)
        assert not out.exists()
        return
    words = "\n".join(baked(path, out))
    found, entries = table_of(out)
    for (name, dtype, usage), now in zip(columns, kept, strict=True):
        kind, usage_now, values = found[now]
        assert values.tolist() == VALUES[dtype].tolist(), name
        assert kind == KIND[dtype] or f"column {name!r}" in words
        assert usage_now == usage or f"column {name!r}" in words
    before = table_of_colours(path)
    if before and entries != before:
        assert "the colour table of band 1" in words
        assert set(kept) & set(COLOURS)


@pytest.mark.parametrize("dtype", ["f8", "T", "i4"])
def test_export_into_an_hfa(tmp_path, dtype):
    path = raster_with(tmp_path / "x.tif", [("area", "f8", 0), ("Red", dtype, 0)])
    out = tmp_path / "x.img"
    make(out, "HFA", size=(8, 8)).FlushCache()
    before = out.read_bytes()
    with pytest.raises(NotWrittenError, match=r"column 'Red' is .* for the colour Red"):
        copy_to_raster(f"{path}.rat.zarr", out)
    assert out.read_bytes() == before
    copy_to_raster(f"{path}.rat.zarr", out, columns=["area"])
    assert table_of(out)[0]["area"][2].tolist() == VALUES["f8"].tolist()


def test_export_over_a_colour_of_an_hfa(tmp_path):
    path = raster_with(tmp_path / "x.tif", [("Red", "i4", 6)])
    out = tmp_path / "x.img"
    make(out, "HFA", size=(8, 8)).FlushCache()
    copy_to_raster(f"{path}.rat.zarr", out)
    assert table_of(out)[0]["red"][2].tolist() == VALUES["i4"].tolist()
    with RatZarr(f"{path}.rat.zarr") as table:
        table.getColumnAttributeMapping("Red")["GDAL_USAGE"] = 0
    before = out.read_bytes()
    with pytest.raises(NotWrittenError, match="column 'Red' is Integer with the usage Generic"):
        copy_to_raster(f"{path}.rat.zarr", out, overwrite=True)
    assert out.read_bytes() == before


@pytest.mark.parametrize("value", [-1, 256, 300])
def test_a_value_that_is_no_colour(tmp_path, value):
    """HFA would keep the nearest colour, and only some rows are compared afterwards."""
    path = raster_with(tmp_path / "x.tif", [("Red", "i4", 6)])
    rows = 5000
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(rows)
        table.writeBlock("Red", np.array([value]), 2345)
    out = tmp_path / "x.img"
    make(out, "HFA", size=(8, 8)).FlushCache()
    before = out.read_bytes()
    with pytest.raises(ConversionError, match=f"column 'Red', row 2345: {value} is not a colour"):
        copy_to_raster(f"{path}.rat.zarr", out)
    assert out.read_bytes() == before
    # Made anew, an HFA keeps some of them.
    losses = baked(path, tmp_path / "baked.img")
    now = table_of(tmp_path / "baked.img")[0]["red"][2][2345]
    assert (now == value) != any(one.startswith("column 'Red', row 2345: ") for one in losses)
