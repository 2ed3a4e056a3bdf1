"""A sidecar column that can't be read is named, and the others are used as ever."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import LossWarning, attach, bake, copy_to_raster, list_tables, ratapplier
from gdalbridge.cli.table_output import head, info
from ratzarr import RatZarr, RatZarrError

SPOILED = {
    "unknown codec": lambda one: one["codecs"].append({"name": "of tomorrow"}),
    "unknown data type": lambda one: one.update(data_type="decimal12"),
    "not JSON": None,
}


@pytest.fixture(params=list(SPOILED))
def raster(tmp_path, request):
    """A raster whose sidecar has columns a, bad and b."""
    path = str(tmp_path / "s.tif")
    dataset = gdal.GetDriverByName("GTiff").Create(path, 3, 3, 1, gdal.GDT_Byte)
    dataset.GetRasterBand(1).WriteArray(np.arange(9, dtype="u1").reshape(3, 3))
    dataset.FlushCache()
    del dataset
    with RatZarr(path + ".rat.zarr", newRowCount=9) as table:
        for name in ("a", "bad", "b"):
            table.createColumn(name, "i4")
            table.writeBlock(name, np.arange(9), 0)
    document = Path(path + ".rat.zarr", "RAT", "bad", "zarr.json")
    change = SPOILED[request.param]
    if change is None:
        document.write_text("{")
    else:
        contents = json.loads(document.read_text())
        change(contents)
        document.write_text(json.dumps(contents))
    return path


def own_columns(path):
    dataset = gdal.Open(path)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    return [rat.GetNameOfCol(n) for n in range(rat.GetColumnCount())]


def test_attach(raster):
    with attach(raster) as rat:
        with pytest.warns(LossWarning, match="'bad' is left out"):
            assert rat.GetColumnCount() == 2
        assert [rat.GetNameOfCol(n) for n in range(rat.GetColumnCount())] == ["a", "b"]
        assert rat.GetRowCount() == 9
        assert rat.ReadAsArray(1).tolist() == list(range(9))


def test_bake_and_export(raster, tmp_path):
    out = str(tmp_path / "out.tif")
    with pytest.warns(LossWarning, match="'bad' is left out"):
        bake(raster, out)
    assert own_columns(out) == ["a", "b"]
    with pytest.warns(LossWarning, match="'bad' is left out"):
        copy_to_raster(raster + ".rat.zarr", raster)
    assert own_columns(raster) == ["a", "b"]


def _add(info, inputs, outputs):
    outputs.s.c = inputs.s.a + inputs.s.b


def test_apply(raster):
    tables = ratapplier.RatAssociations()
    tables.s = ratapplier.RatHandle(raster)
    ratapplier.apply(_add, tables, tables)
    with RatZarr(raster + ".rat.zarr") as table:
        assert table.readBlock("c", 0, 9).tolist() == list(range(0, 18, 2))


def _list(info, inputs, outputs):
    assert inputs.s.getColumnNames()[:2] == ["a", "b"]
    outputs.s.d = inputs.s.a


def _ask(info, inputs, outputs):
    outputs.s.d = inputs.s.bad


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_script_that_lists_or_asks_for_it(raster, executor):
    tables = ratapplier.RatAssociations()
    tables.s = ratapplier.RatHandle(raster)
    controls = ratapplier.RatApplierControls()
    controls.setBlockLength(2)
    controls.setExecutor(executor)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", LossWarning)
        ratapplier.apply(_list, tables, tables, controls=controls)
    assert ["'bad' is left out" in str(one.message) for one in said] == [True]
    with pytest.raises(RatZarrError, match=r"RAT/bad/zarr\.json"):
        ratapplier.apply(_ask, tables, tables, controls=controls)


def test_copy_rat(raster, tmp_path):
    out = str(tmp_path / "copy.rat.zarr")
    with pytest.warns(LossWarning, match="'bad' is left out"):
        ratapplier.copyRAT(raster + ".rat.zarr", out)
    with RatZarr(out) as table:
        assert sorted(table.getColumnNames()) == ["a", "b"]


def test_what_is_shown(raster):
    [sidecar] = info(raster)["sidecars"]
    assert [one["name"] for one in sidecar["columns"]] == ["a", "bad", "b"]
    assert "bad" in sidecar["columns"][1]["unreadable"]
    with pytest.warns(LossWarning, match="'bad' is left out"):
        assert list(head(raster)["columns"]) == ["a", "b"]
    with pytest.warns(LossWarning, match="'bad' is left out"):
        [table] = list_tables(raster)
    assert (table.columns, table.rows, table.problem) == (3, 9, None)


@pytest.mark.parametrize("command", [["info"], ["head"], ["stats"], ["ls"]], ids=" ".join)
def test_in_a_terminal(raster, command):
    done = subprocess.run(
        [sys.executable, "-m", "gdalbridge", *command, raster],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bad" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
