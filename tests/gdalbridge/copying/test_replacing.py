"""A column that replaces another keeps its GDAL usage and its user's attributes."""

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import LossWarning, attach, calc, copy_to_sidecar, enable, ratapplier
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat

RED, COUNT, GENERIC = gdal.GFU_Red, gdal.GFU_PixelCount, gdal.GFU_Generic
OWN = [
    ("Red", INTEGER, RED, [10, 20]),
    ("Histogram", REAL, COUNT, [3.0, 4.0]),
    ("label", STRING, gdal.GFU_Name, ["a", "b"]),
    ("plain", INTEGER, GENERIC, [1, 2]),
]


def raster(path, columns):
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 2))
    return str(path)


@pytest.fixture
def path(tmp_path):
    return raster(tmp_path / "lc.tif", OWN)


def usages(path):
    """Read them as a program that knows GDAL alone does."""
    with enable():
        dataset = gdal.Open(path)
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
        return {rat.GetNameOfCol(i): rat.GetUsageOfCol(i) for i in range(rat.GetColumnCount())}


def attributes(path, column):
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        return table.getColumnAttributeMapping(column).asdict()


def values(path, column):
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        return table.readBlock(column, 0, 2).tolist()


def say(path, column, **said):
    with RatZarr(f"{path}.rat.zarr") as table:
        table.getColumnAttributeMapping(column).update(said)


def script(path, function, **options):
    tables = ratapplier.RatAssociations()
    tables.lc = ratapplier.RatHandle(path, **options)
    ratapplier.apply(function, tables, tables)


EXPECTED = {"Red": RED, "Histogram": COUNT, "label": gdal.GFU_Name, "plain": GENERIC}


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "the raster's own"])
def test_calc(path, copied):
    if copied:
        copy_to_sidecar(path)
    say_units = {"units": "DN", "missing_value": 99}
    if copied:
        say(path, "Red", **say_units)
    calc(path, {"Red": "Red // 2", "Histogram": "Histogram * 2"}, overwrite=True)
    assert usages(path) == EXPECTED
    assert (values(path, "Red"), values(path, "Histogram")) == ([5, 10], [6, 8])
    found = attributes(path, "Red")
    assert found["PROVENANCE"]["operation"] == "calc"
    assert found.get("GDAL_USAGE_NAME") == "Red"
    assert found.get("units") == ("DN" if copied else None)
    assert not found.keys() & {"GDAL_TYPE", "missing_value"}


def test_calc_in_a_store_by_itself(path):
    copy_to_sidecar(path)
    say(path, "Red", units="DN")
    calc(f"{path}.rat.zarr", {"Red": "Red + 1"}, overwrite=True)
    assert usages(path) == EXPECTED
    assert attributes(path, "Red")["units"] == "DN"


@pytest.mark.parametrize("copied", [True, False])
def test_colours_that_are_no_integers_any_more(path, copied):
    if copied:
        copy_to_sidecar(path)
    with pytest.warns(LossWarning, match=r"column 'Red' loses its usage Red.*float64"):
        calc(path, {"Red": "Red / 4"}, overwrite=True)
    assert usages(path) == EXPECTED | {"Red": GENERIC}
    assert attributes(path, "Red")["GDAL_USAGE_NAME"] == "Generic"


def test_a_script_replaces_a_column_of_the_raster(path):
    def double(info, inputs, outputs):
        outputs.lc.Red = inputs.lc.Red * 2
        outputs.lc.plain = inputs.lc.plain * 2
        outputs.lc.label = np.array(["c", "d"])
        outputs.lc.Histogram = inputs.lc.Histogram / 2
        outputs.lc.setUsage("Histogram", gdal.GFU_Min)

    script(path, double)
    assert usages(path) == EXPECTED | {"Histogram": gdal.GFU_Min}
    assert values(path, "Red") == [20, 40]
    # From now on it is the sidecar's, which keeps it by itself.
    say(path, "Red", units="DN")
    script(path, double)
    assert usages(path)["Red"] == RED
    assert attributes(path, "Red")["units"] == "DN"


def test_a_script_that_only_writes(path):
    inputs, outputs = ratapplier.RatAssociations(), ratapplier.RatAssociations()
    outputs.lc = ratapplier.RatHandle(path)
    controls = ratapplier.RatApplierControls()
    controls.setRowCount(2)

    def write(info, inputs, outputs):
        outputs.lc.Red = np.array([1, 2], np.uint8)
        outputs.lc.new = np.array([1, 2])

    ratapplier.apply(write, inputs, outputs, controls=controls)
    assert usages(path) == EXPECTED | {"new": GENERIC}


def test_a_script_writes_another_table_of_the_raster(path):
    inputs, outputs = ratapplier.RatAssociations(), ratapplier.RatAssociations()
    inputs.lc = ratapplier.RatHandle(path)
    outputs.lc = ratapplier.RatHandle(path, table="more")

    def write(info, inputs, outputs):
        outputs.lc.Red = inputs.lc.Red

    ratapplier.apply(write, inputs, outputs)
    assert usages(path) == EXPECTED


def test_attached_columns_that_override_the_rasters(path):
    with attach(path, update=True, override=True) as rat:
        columns = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]
        rat.WriteArray(np.array([7, 8]), columns.index("Red"))
        # As RIOS's writeColumn does: Generic unless it is told something else.
        rat.CreateColumn("Histogram", gdal.GFT_Real, GENERIC)
        rat.CreateColumn("plain", gdal.GFT_Integer, gdal.GFU_Max)
        rat.CreateColumn("label", gdal.GFT_String, gdal.GFU_Generic)
    assert usages(path) == EXPECTED | {"plain": gdal.GFU_Max}
    assert values(path, "Red") == [7, 8]


def test_an_attached_colour_of_another_type(path):
    with attach(path, update=True, override=True) as rat:
        rat.CreateColumn("Red", gdal.GFT_Real, GENERIC)
    assert usages(path)["Red"] == GENERIC


def test_a_copy_takes_the_rasters_usages(path):
    copy_to_sidecar(path)
    say(path, "Red", GDAL_USAGE=GENERIC, units="DN")
    # The raster says nothing of this one.
    say(path, "plain", GDAL_USAGE=gdal.GFU_Max, GDAL_USAGE_NAME="Max", note="mine")
    copy_to_sidecar(path, overwrite=True)
    assert usages(path) == EXPECTED | {"plain": gdal.GFU_Max}
    assert attributes(path, "Red")["units"] == "DN"
    assert attributes(path, "plain")["note"] == "mine"
    assert attributes(path, "plain")["PROVENANCE"]["operation"] == "copy"


def test_a_made_up_name_does_not_stay_with_a_column_of_that_very_name(tmp_path):
    twins = [("x", INTEGER, 0, [1, 2]), ("x", INTEGER, 0, [3, 4])]
    path = raster(tmp_path / "twins.tif", twins)
    copy_to_sidecar(path)
    assert attributes(path, "x 2")["GDAL_NAME"] == "x"
    calc(path, {"x 2": '"x 2" + 1'}, overwrite=True)
    assert attributes(path, "x 2")["GDAL_NAME"] == "x"
    others = [("x", INTEGER, 0, [1, 2]), ("x 2", INTEGER, 0, [5, 6])]
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(others, 2))
    dataset = None
    copy_to_sidecar(path, overwrite=True)
    assert "GDAL_NAME" not in attributes(path, "x 2")
    assert values(path, "x 2") == [5, 6]


def test_an_interrupted_copy_that_keeps_a_usage_is_resumed(path):
    copy_to_sidecar(path)
    say(path, "plain", GDAL_USAGE=gdal.GFU_Max, GDAL_USAGE_NAME="Max")

    def stop(done, message, data):
        return int("plain" not in message)

    with pytest.raises(Exception, match="cancelled"):
        copy_to_sidecar(path, overwrite=True, progress=stop)
    copy_to_sidecar(path, overwrite=True, resume=True)
    assert usages(path)["plain"] == gdal.GFU_Max


@pytest.mark.parametrize("is_json", [True, False], ids=["unknown codec", "damaged"])
def test_a_column_that_cannot_be_read_is_replaced_all_the_same(path, is_json):
    copy_to_sidecar(path)
    document = f"{path}.rat.zarr/RAT/Red/zarr.json"
    with open(document, "rb") as file:
        raw = file.read()
    with open(document, "wb") as file:
        # Without its last line, the checksum, it is another program's.
        raw = raw.rstrip(b" \t\n") if is_json else raw
        file.write(raw.replace(b"lz4", b"zzz"))
    with RatZarr(f"{path}.rat.zarr") as table:
        table.createColumn("Red", np.int32, complete=False, replace=True)
        table.writeBlock("Red", [5, 6], 0)
        table.setComplete("Red")
        assert table.readBlock("Red", 0, 2).tolist() == [5, 6]
        usage = table.getColumnAttributeMapping("Red").get("GDAL_USAGE")
    assert usage == (RED if is_json else None)
