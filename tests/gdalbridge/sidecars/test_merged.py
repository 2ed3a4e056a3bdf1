"""One answer to "which columns does this raster have", whoever asks."""

import json
import warnings
from urllib.parse import parse_qs

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from osgeo import gdal

from gdalbridge import attach, bake, calc, column_stats, list_tables, ratapplier, touch
from gdalbridge.cli import main
from gdalbridge.cli.table_output import head
from gdalbridge.errors import BridgeError, LossWarning
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, REAL, make, new_rat

OWN = [("Value", INTEGER, 5, [0, 1, 2, 3]), ("x", REAL, 0, [1.0, 2, 3, 4])]


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(OWN, 4))
    return path


def sidecar(path, name=None, **columns):
    middle = f".{name}" if name else ""
    with RatZarr(f"{path}{middle}.rat.zarr", newRowCount=4) as table:
        for key, values in columns.items():
            table.createColumn(key, "f8")
            table.writeBlock(key, np.asarray(values, "f8"), 0)


def seen_attached(path):
    with attach(path) as rat:
        return {
            rat.GetNameOfCol(i): rat.ReadAsArray(i).tolist() for i in range(rat.GetColumnCount())
        }


def seen_by_script(path):
    found = {}

    def collect(info, inputs, outputs):
        for name in inputs.raster.getColumnNames():
            found[name] = np.asarray(getattr(inputs.raster, name)).tolist()

    tables = ratapplier.RatAssociations()
    tables.raster = ratapplier.RatHandle(str(path))
    ratapplier.apply(collect, tables, ratapplier.RatAssociations())
    return found


def seen_by_head(path):
    return head(str(path))["columns"]


def seen_by_stats(path):
    # Minimum and maximum are enough to tell the columns here from each other.
    return {name: (one.min, one.max) for name, one in column_stats(path).items()}


def seen_in_output(path):
    out = path.with_name("out.tif")
    bake(path, out, overwrite=True)
    dataset = gdal.Open(str(out))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    return {
        rat.GetNameOfCol(i): [rat.GetValueAsDouble(row, i) for row in range(rat.GetRowCount())]
        for i in range(rat.GetColumnCount())
    }


def assert_one_answer(path, expected, warns=None):
    views = (seen_attached, seen_by_script, seen_by_head, seen_in_output)
    for view in views:
        if warns is None:
            found = view(path)
        else:
            with pytest.warns(LossWarning, match=warns):
                found = view(path)
        assert found == expected, view.__name__
    if warns is None:
        found = seen_by_stats(path)
    else:
        with pytest.warns(LossWarning, match=warns):
            found = seen_by_stats(path)
    assert found == {name: (min(v), max(v)) for name, v in expected.items()}


def test_the_raster_s_own_come_first_and_sidecars_replace_them(raster):
    sidecar(raster, y=[5, 6, 7, 8], x=[9, 9, 9, 8])
    sidecar(raster, "texture", x=[0, 0, 0, 1], z=[1, 1, 1, 2])
    # bake takes no two sidecars of one column: which one is meant has to be said.
    with pytest.raises(BridgeError, match="both have a column 'x'"):
        bake(raster, raster.with_name("out.tif"))
    expected = {
        "Value": [0, 1, 2, 3], "x": [9, 9, 9, 8], "y": [5, 6, 7, 8], "z": [1, 1, 1, 2],
    }  # fmt: skip
    assert seen_attached(raster) == expected
    assert seen_by_script(raster) == expected
    assert seen_by_head(raster) == expected


@pytest.mark.parametrize("fault", ["incomplete", "unreadable"])
def test_a_column_that_is_left_out_hides_nothing(raster, fault):
    sidecar(raster, x=[9, 9, 9, 9], y=[5, 6, 7, 8])
    store = f"{raster}.rat.zarr"
    if fault == "incomplete":
        with RatZarr(store) as table:
            table.deleteColumn("x")
            table.createColumn("x", "f8", complete=False)
        words = "column 'x' is left out: it is not complete"
    else:
        document = raster.with_name("seg.tif.rat.zarr") / "RAT" / "x" / "zarr.json"
        document.write_bytes(b"{}")
        words = "column 'x' is left out"
    expected = {"Value": [0, 1, 2, 3], "x": [1, 2, 3, 4], "y": [5, 6, 7, 8]}
    assert_one_answer(raster, expected, words)


def test_a_column_of_the_next_sidecar_stands_in_for_an_incomplete_one(raster):
    with RatZarr(f"{raster}.rat.zarr", newRowCount=4) as table:
        table.createColumn("x", "f8", complete=False)
    sidecar(raster, "texture", x=[7, 7, 7, 8])
    expected = {"Value": [0, 1, 2, 3], "x": [7, 7, 7, 8]}
    with pytest.warns(LossWarning, match="not complete"):
        assert seen_attached(raster) == expected
    with pytest.warns(LossWarning, match="not complete"):
        assert seen_by_head(raster) == expected
    found = {}

    def collect(info, inputs, outputs):
        found["x"] = inputs.raster.x.tolist()

    tables = ratapplier.RatAssociations()
    tables.raster = ratapplier.RatHandle(str(raster))
    ratapplier.apply(collect, tables, ratapplier.RatAssociations())
    assert found == {"x": expected["x"]}


NAMES = ["Value", "x", "y", "z"]
SIDECAR = st.dictionaries(st.sampled_from(NAMES), st.booleans(), max_size=len(NAMES))
"""The columns of a sidecar, in order; True for those that are complete."""


@settings(max_examples=25, deadline=None)
@given(sidecars=st.lists(SIDECAR, max_size=3))
def test_the_rule_for_any_sidecars(tmp_path_factory, sidecars):
    path = tmp_path_factory.mktemp("rule") / "seg.tif"
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(OWN, 4))
    del dataset
    expected = {name: list(values) for name, *_, values in OWN}
    of_sidecar = set()
    for number, columns in enumerate(sidecars):
        middle = f".{number}" if number else ""
        with RatZarr(f"{path}{middle}.rat.zarr", newRowCount=4) as table:
            for place, (name, complete) in enumerate(columns.items()):
                values = [100.0 + 10 * number + place] * 4
                table.createColumn(name, "f8", complete=complete)
                table.writeBlock(name, np.array(values), 0)
                if complete and name not in of_sidecar:
                    of_sidecar.add(name)
                    expected[name] = values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        for view in (seen_attached, seen_by_script, seen_by_head):
            assert list(view(path).items()) == list(expected.items()), view.__name__


def test_the_sidecars_of_a_vrt(raster):
    """Those of its only source, in every command, for reading and for writing."""
    sidecar(raster, y=[5, 6, 7, 8])
    vrt = raster.with_name("sub.vrt")
    gdal.Translate(str(vrt), str(raster), srcWin=[0, 0, 2, 2], format="VRT").FlushCache()
    store = f"{raster}.rat.zarr"
    calc(vrt, {"double": "y * 2"})
    assert not vrt.with_name("sub.vrt.rat.zarr").exists()
    with RatZarr(store) as table:
        assert table.readBlock("double", 0, 4).tolist() == [10, 12, 14, 16]
    with attach(vrt) as rat:
        names = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]
    assert names[-2:] == ["y", "double"]
    assert list(seen_by_script(vrt)) == list(seen_by_head(vrt)) == names
    assert list(column_stats(vrt)) == list(seen_in_output(vrt)) == names
    [listed] = list_tables(vrt)
    assert (listed.path, listed.band, listed.changes) == (store, 1, ())
    shown = json.loads(CliRunner().invoke(main, ["info", str(vrt), "--json"]).stdout)
    assert [one["path"] for one in shown["sidecars"]] == [store]
    assert shown["sidecars"][0]["fits"] is True
    checked = CliRunner().invoke(main, ["check", str(vrt)])
    assert checked.exit_code == 0, checked.output
    [touched] = touch(vrt)
    assert (touched.path, touched.changes) == (store, ())


VIEWS = [seen_attached, seen_by_script, seen_by_head]


@pytest.mark.parametrize(
    ("view", "where"),
    [(view, None) for view in VIEWS]
    + [(view, name) for view in [*VIEWS, list_tables, touch] for name in ("seg.tif", "sub.vrt")],
)
def test_on_s3_a_vrt_and_its_source_are_each_listed_once(raster, counted_s3, view, where):
    place, proxy = counted_s3
    vrt = raster.with_name("sub.vrt")
    gdal.Translate(str(vrt), str(raster), bandList=[1, 1], format="VRT").FlushCache()
    for one in raster.parent.iterdir():
        place.client.upload_file(str(one), place.bucket, one.name)
    if where is not None:
        sidecar(f"s3://{place.bucket}/{where}", y=[5, 6, 7, 8])
    proxy.clear()
    view(f"s3://{place.bucket}/sub.vrt")
    listed = [
        prefix
        for one in proxy.requests
        for prefix in parse_qs(one.query).get("prefix", [])
        if prefix in ("sub.vrt", "seg.tif")
        and not one.headers.get("user-agent", "gdal").lower().startswith("gdal")
    ]
    assert "sub.vrt" in listed
    assert len(listed) == len(set(listed))


def test_a_vrt_with_a_sidecar_of_its_own(raster):
    sidecar(raster, y=[5, 6, 7, 8])
    vrt = raster.with_name("sub.vrt")
    gdal.Translate(str(vrt), str(raster), format="VRT").FlushCache()
    sidecar(vrt, z=[1, 1, 1, 2])
    assert list(seen_attached(vrt))[-1] == list(seen_by_head(vrt))[-1] == "z"
    assert [one.path for one in list_tables(vrt)] == [f"{vrt}.rat.zarr"]
