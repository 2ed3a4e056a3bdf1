"""A raster's own table whose rows are for other pixels than the sidecar's."""

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import (
    attach,
    build,
    copy_to_sidecar,
    export_table,
    open_table,
    paint,
    sample,
    zonal,
)
from gdalbridge.errors import BridgeError, CancelledError, LossWarning
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import write
from tests.gdalbridge.sample_rasters import INTEGER, REAL, new_rat
from tests.gdalbridge.sidecars.test_merged import seen_by_script

PIXELS = np.array([[3, 3, 7, 7], [9, 9, 9, 9]], "u1")
OWN = [("Value", INTEGER, 5, [3, 7, 9]), ("Count", INTEGER, 1, [2, 2, 4])]
COUNTS = [0, 0, 0, 2, 0, 0, 0, 2, 0, 4]
SAID = "rows for different pixels"


def set_rat(path, rat):
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset.FlushCache()


@pytest.fixture
def raster(tmp_path):
    """A raster with a row for each value that occurs, as a .vat.dbf has."""
    path = write(tmp_path / "s.tif", PIXELS)
    set_rat(path, new_rat(OWN, 3))
    return path


def dense(path, name="nir"):
    """Write a sidecar as another program does, with a row for each number."""
    with RatZarr(f"{path}.rat.zarr", newRowCount=10) as table:
        table.createColumn(name, "f8")
        table.writeBlock(name, np.arange(10.0), 0)


@pytest.mark.filterwarnings("ignore:.*rows for different pixels")
def test_only_the_sidecars_columns_are_shown(raster, tmp_path):
    build(raster)
    with open_table(raster) as table:
        assert table.columns == ["Histogram"]
        assert table["Histogram"][:].tolist() == COUNTS
    with attach(raster) as rat:
        assert (rat.GetColumnCount(), rat.GetRowCount()) == (1, 10)
        assert rat.GetRowOfValue(7) in (7, -1)
    assert seen_by_script(raster) == {"Histogram": COUNTS}
    painted = paint(raster, "Histogram")
    assert painted.tolist() == [[2, 2, 2, 2], [4, 4, 4, 4]]
    image = write(tmp_path / "image.tif", PIXELS.astype("f4") * 10)
    zonal(raster, image, stats=["mean"])
    assert open_table(raster)["image_mean"][7] == 70
    places = sample(raster, [(500, 900)], columns=["Histogram"])
    assert places["row"].to_pylist() in ([3], [None])


def test_columns_that_are_not_complete_say_nothing_about_the_rows(raster):
    with pytest.raises(CancelledError):
        copy_to_sidecar(raster, progress=lambda done, *_: int(done < 0.5))
    with pytest.warns(LossWarning, match="not complete"), attach(raster) as rat:
        assert rat.ReadAsArray(0).tolist() == [3, 7, 9]
    with pytest.warns(LossWarning, match="not complete"), open_table(raster) as table:
        assert table["Value"][:].tolist() == [3, 7, 9]


@pytest.mark.parametrize("make", [build, dense])
def test_it_is_said(raster, make):
    make(raster)
    with pytest.warns(LossWarning, match=SAID), open_table(raster):
        pass
    with pytest.warns(LossWarning, match=SAID), attach(raster) as rat:
        rat.GetColumnCount()
    with pytest.warns(LossWarning, match=SAID):
        seen_by_script(raster)
    with pytest.raises(BridgeError, match="leave the raster's own columns out"):
        open_table(raster, prefer="raster")


def test_a_table_beside_its_raster_with_rows_left_out(tmp_path):
    path = write(tmp_path / "s.tif", PIXELS)
    build(path)
    export_table(path, f"{path}.vat.dbf", columns=["Histogram"], where="Histogram > 0")
    with pytest.warns(LossWarning, match=SAID), open_table(path) as table:
        assert table["Histogram"][:].tolist() == COUNTS


def test_tables_of_the_same_rows_are_shown_side_by_side(raster, tmp_path):
    copy_to_sidecar(raster, columns=["Count"])
    with open_table(raster) as table:
        assert table.columns == ["Value", "Count"]
    image = write(tmp_path / "image.tif", PIXELS.astype("f4") * 10)
    zonal(raster, image, stats=["mean"])
    with open_table(raster) as table:
        assert table["image_mean"][:].tolist() == [30, 70, 90]
        # Rows may be added to a copy.
        table.rowCount = 5
    with open_table(raster) as table:
        assert table.columns == ["Value", "Count", "image_mean"]


@pytest.mark.parametrize("override", [False, True])
def test_a_row_appended_through_an_attached_table(raster, override):
    """Its columns were made beside the raster's own, so their rows are the same."""
    with attach(raster, update=True, override=override) as rat:
        rat.CreateColumn("x", gdal.GFT_Integer, gdal.GFU_Generic)
        rat.SetValueAsInt(3, 2, 7)
        if override:
            rat.SetValueAsInt(3, 0, 11)
    values = [3, 7, 9, 11 if override else 0]
    with attach(raster) as rat:
        names = [rat.GetNameOfCol(at) for at in range(rat.GetColumnCount())]
        assert names == ["Value", "Count", "x"]
        assert rat.ReadAsArray(0).tolist() == values
        assert rat.ReadAsArray(2).tolist() == [0, 0, 0, 7]
    with open_table(raster) as table:
        assert table.columns == names
    # Another table of its own, or rows by pixel value.
    set_rat(raster, new_rat([("Value", INTEGER, 5, [3, 7, 9, 12, 13])], 5))
    with pytest.warns(LossWarning, match=SAID), attach(raster) as rat:
        shown = {rat.GetNameOfCol(at) for at in range(rat.GetColumnCount())}
    assert shown == ({"x", "Value"} if override else {"x"})


def test_two_columns_of_values_are_compared(raster):
    with RatZarr(f"{raster}.rat.zarr", newRowCount=3) as table:
        table.createColumn("id", "i4", attributes={"GDAL_USAGE": 5})
        table.writeBlock("id", np.array([3, 7, 9], "i4"), 0)
    with open_table(raster) as found:
        assert found.columns == ["Value", "Count", "id"]
    with RatZarr(f"{raster}.rat.zarr") as table:
        table.writeBlock("id", np.array([9, 7, 3], "i4"), 0)
    with pytest.warns(LossWarning, match="'Value' and 'id' differ"), open_table(raster) as found:
        assert found.columns == ["id"]


def test_a_value_column_of_row_numbers_fits_every_sidecar(tmp_path):
    path = write(tmp_path / "s.tif", PIXELS)
    own = [("Value", INTEGER, 5, list(range(8))), ("x", REAL, 0, [0.5] * 8)]
    set_rat(path, new_rat(own, 8))
    dense(path)
    with open_table(path) as table:
        assert table.columns == ["Value", "x", "nir"]
