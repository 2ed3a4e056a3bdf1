"""What is written through the attached table: to the sidecar, behind, and never lost at an end."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import attach, bake, enable
from gdalbridge.attached_rat.open_sidecars import shared_table
from gdalbridge.cli.table_output import info, info_text
from gdalbridge.errors import BridgeError, ConversionError, NotWrittenError, OutputExistsError
from ratzarr import ChangedError, RatZarr, RatZarrError, TableNotFoundError
from tests.audits import recorded
from tests.gdalbridge.attached_rat.test_rat import names, raster, sidecar
from tests.gdalbridge.sample_rasters import (
    DATETIME,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    describe,
    new_rat,
)
from tests.processes import LIMIT

OWN = [("Value", INTEGER, 5, [0, 1, 2, 3]), ("Name", STRING, 2, ["a", "b", "c", "d"])]


@pytest.fixture
def path(tmp_path):
    return raster(tmp_path / "a.tif", OWN, 4)


def everything(folder):
    """Contents and modification times of all but the sidecars."""
    found = {}
    for directory, _, files in os.walk(folder):
        if ".rat.zarr" not in directory:
            for file in files:
                full = os.path.join(directory, file)
                with open(full, "rb") as opened:
                    found[full] = opened.read(), os.stat(full).st_mtime_ns
    return found


def stored(path, column):
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        return table.readBlock(column, 0, table.rowCount).tolist()


# ---- where it goes


def test_a_sidecar_is_made_when_it_is_first_needed(path, tmp_path):
    before = everything(tmp_path)
    with attach(path, update=True) as rat:
        assert rat.ChangesAreWrittenToFile() == 1
        rat.GetValueAsInt(1, 0)
        assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, before))
        assert rat.CreateColumn("area", REAL, gdal.GFU_Generic) == 0
        assert rat.CreateColumn("red", REAL, gdal.GFU_Red) == 0
        # GDAL makes colours Integer.
        assert rat.GetTypeOfCol(3) == INTEGER
        assert rat.WriteArray(np.array([1.5, 2.5, 3.5, 4.5]), 2) == 0
        rat.SetValueAsInt(1, 3, 255)
    assert everything(tmp_path) == before
    assert set(os.listdir(tmp_path)) == {*map(os.path.basename, before), "a.tif.rat.zarr"}
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.getColumnNames() == ["area", "red"]
        assert table.rowCount == 4
        assert [table.getColumnDtype(n) for n in ("area", "red")] == [np.float64, np.int32]
        attributes = table.getColumnAttributeMapping("red").asdict()
        assert [attributes[k] for k in ("GDAL_TYPE", "GDAL_TYPE_NAME", "GDAL_USAGE",
                                        "GDAL_USAGE_NAME")] == [0, "Integer", 6, "Red"]  # fmt: skip
        belongs = table.getRatAttributeMapping()["RASTER"]
        assert (belongs["name"], belongs["size"], belongs["bands"]) == ("a.tif", [4, 3], 1)
        assert set(belongs["fingerprint"]) == {"modified", "pixels"}
        assert belongs["fingerprint"]["pixels"]
    assert names(attach(path)) == ["Value", "Name", "area", "red"]


@pytest.mark.parametrize("first", ["rows", "column"])
def test_a_new_sidecar_has_chunks_for_its_rows(tmp_path, first):
    path = raster(tmp_path / "a.tif")
    with attach(path, update=True) as rat:
        if first == "rows":
            rat.SetRowCount(200_000)
        rat.CreateColumn("x", REAL, 0)
        rat.SetRowCount(200_000)
        rat.WriteArray(np.arange(200_000.0), 0)
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        expected = 200_000 if first == "rows" else 500_000
        assert table.getColumnChunkSize("x") == expected
        assert table.readBlock("x", 199_999, 1) == [199_999]


def test_nothing_is_written_unless_it_was_asked_for(path, tmp_path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    rat = attach(path)
    assert rat.ChangesAreWrittenToFile() == 0
    for call in (
        lambda: rat.CreateColumn("x", INTEGER, 0),
        lambda: rat.SetValueAsInt(0, 2, 5),
        lambda: rat.SetValueAsString(0, 0, "5"),
        lambda: rat.WriteArray(np.zeros(4, int), 2),
        lambda: rat.SetRowCount(9),
        lambda: rat.SetLinearBinning(0, 1),
        lambda: rat.SetTableType(1),
    ):
        with pytest.raises(NotWrittenError, match="update=True"):
            call()
    rat.close()
    assert stored(path, "n") == [1, 2, 3, 4]


def test_the_rasters_own_columns_are_refused_or_overridden(path, tmp_path):
    before = everything(tmp_path)
    with attach(path, update=True) as rat:
        for call in (
            lambda: rat.SetValueAsInt(0, 0, 5),
            lambda: rat.WriteArray(np.zeros(4, int), 0),
        ):
            with pytest.raises(
                NotWrittenError, match=r"'Value' is the raster's own.*override=True"
            ):
                call()
        with pytest.raises(OutputExistsError, match="the raster itself has a column 'Name'"):
            rat.CreateColumn("Name", STRING, 2)
    assert not os.path.exists(f"{path}.rat.zarr")
    with attach(path, update=True, override=True) as rat:
        rat.SetValueAsInt(1, 0, 50)
        assert names(rat) == ["Value", "Name"]
        assert rat.ReadAsArray(0).tolist() == [0, 50, 2, 3]
        assert rat.GetUsageOfCol(0) == gdal.GFU_MinMax
        rat.CreateColumn("Name", STRING, 2)
        assert rat.ReadAsArray(1).tolist() == [b"", b"", b"", b""]
    assert everything(tmp_path) == before
    rat = attach(path)
    assert rat.ReadAsArray(0).tolist() == [0, 50, 2, 3]
    assert attach(path, prefer="raster").ReadAsArray(0).tolist() == [0, 1, 2, 3]
    rat = attach(path, update=True, override=True, prefer="raster")
    with pytest.raises(NotWrittenError, match="prefer"):
        rat.SetValueAsInt(1, 0, 50)


def test_a_column_says_where_it_came_from(path):
    with attach(path, update=True, override=True) as rat:
        rat.CreateColumn("area", REAL, 0)
        rat.SetValueAsString(0, 1, "A")
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        raster_then = table.getRatAttributeMapping()["RASTER"]
        made, copied = (
            table.getColumnAttributeMapping(name)["PROVENANCE"] for name in ("area", "Name")
        )
    assert made["versions"]["gdal"] == gdal.VersionInfo("RELEASE_NAME")
    for found, column in ((made, None), (copied, "Name")):
        assert found["operation"] == "attach"
        assert (found["raster"], found["band"], found["column"]) == ("a.tif", 1, column)
        assert found["fingerprint"] == raster_then["fingerprint"]
    lines = info_text(info(path)).splitlines()
    [line] = [one for one in lines if "attached to a.tif, band 1" in one]
    assert line.endswith(": area, Name")


# Newer versions know no other usages than their own, and say so.
@pytest.mark.filterwarnings("ignore:.*field usage. 77:gdalbridge.errors.GdalWarning")
def test_every_type_can_be_overridden_exactly(tmp_path):
    from tests.gdalbridge.sample_rasters import all_kinds

    columns = [(f"{i}", *rest) for i, (_, *rest) in enumerate(all_kinds())]
    path = raster(tmp_path / "a.tif", columns, 7)
    before = describe(attach(path))
    with attach(path, update=True, override=True) as rat:
        for index, (_, kind, *_) in enumerate(columns):
            value = rat.GetValueAsString(0, index)
            if kind in (INTEGER, STRING, DATETIME):
                rat.SetValueAsString(0, index, value)
            elif kind == REAL:
                rat.SetValueAsDouble(0, index, rat.GetValueAsDouble(0, index))
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert len(table.getColumnNames()) >= len(columns) - 2
    after = describe(attach(path))
    assert after == before


def test_rows_grow_and_shrink(path):
    with attach(path, update=True) as rat:
        rat.CreateColumn("x", INTEGER, 0)
        rat.SetRowCount(6)
        assert rat.ReadAsArray(0).tolist() == [0, 1, 2, 3, 0, 0]
        # As in GDAL, the row after the last one makes the table longer.
        rat.SetValueAsInt(6, 2, 66)
        assert rat.GetRowCount() == 7
        rat.SetValueAsInt(7, 2, 77)
        with pytest.raises(RuntimeError, match="out of range"):
            rat.SetValueAsInt(9, 2, 1)
        for wrong in (-1, 2**31):
            with pytest.raises(BridgeError, match="rows"):
                rat.SetRowCount(wrong)
        with pytest.raises(NotWrittenError, match="4 rows"):
            rat.SetRowCount(3)
    assert stored(path, "x") == [0, 0, 0, 0, 0, 0, 66, 77]
    with attach(path, update=True) as rat:
        rat.SetRowCount(5)
        assert rat.GetRowCount() == 5
    assert stored(path, "x") == [0, 0, 0, 0, 0]


def test_a_shorter_sidecar_becomes_as_long_as_is_written(path):
    sidecar(path, [("n", "i4", [1, 2], {})], 2)
    with attach(path, update=True) as rat:
        rat.SetValueAsInt(3, 2, 9)
        assert rat.ReadAsArray(2).tolist() == [1, 2, 0, 9]
    assert stored(path, "n") == [1, 2, 0, 9]


def test_rows_that_are_appended_cell_by_cell_resize_the_store_a_few_times(tmp_path):
    path, rows = raster(tmp_path / "a.tif"), 20_000
    sidecar(path, [("n", "i4", [7] * 10, {}), ("s", "T", ["x"] * 10, {})], 10, chunk=3000)
    with attach(path, update=True) as rat, attach(path) as other:
        with recorded("os.rename") as renamed:
            for row in range(10, rows):
                rat.SetValueAsInt(row, 0, row)
                if row % 3 == 0:
                    rat.SetValueAsString(row, 1, f"größe {row}")
                if row % 1000 == 15:
                    # Over the end of what is in the store, by whichever table of the process.
                    for one in (rat, other):
                        assert one.ReadAsArray(0, 5, row - 4).tolist() == [7] * 5 + [
                            *range(10, row + 1)
                        ]
                        for at in (row, row - 1):
                            text = "" if at % 3 else f"größe {at}"
                            assert one.GetValueAsString(at, 1) == text
        assert sum("zarr.json" in map(str, names) for names in renamed) < 60
        assert rat.GetRowCount() == other.GetRowCount() == rows
    assert stored(path, "n") == [7] * 10 + [*range(10, rows)]
    texts = ["" if row % 3 else f"größe {row}" for row in range(10, rows)]
    assert stored(path, "s") == ["x"] * 10 + texts


@pytest.mark.parametrize("more", [3, 40])
def test_appended_rows_do_not_cut_off_those_of_another_process(tmp_path, more):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("n", "i4", [7] * 10, {})], 10, chunk=4)
    with attach(path, update=True) as rat:
        rat.SetValueAsInt(10, 0, 1)
        with RatZarr(f"{path}.rat.zarr") as other:
            other.setRowCount(10 + more)
            other.writeBlock("n", [2, 3], 8 + more)
        rat.SetValueAsInt(11, 0, 4)
        rat.flush()
        assert rat.GetRowCount() == 10 + more
    found = stored(path, "n")
    assert found[:12] == [7] * 10 + [1, 4]
    assert len(found) == 10 + more
    assert found[-1] == 3


def test_a_row_count_set_beyond_the_rows_shown_keeps_those_of_another_process(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("n", "i4", [7] * 10, {})], 10, chunk=4)
    with attach(path, update=True) as rat:
        with RatZarr(f"{path}.rat.zarr") as other:
            other.setRowCount(50)
            other.writeBlock("n", [3], 49)
        rat.SetRowCount(20)
        assert rat.GetRowCount() == 50
        assert rat.ReadAsArray(0).tolist() == [7] * 10 + [0] * 39 + [3]
        rat.SetRowCount(20)
        assert rat.ReadAsArray(0).tolist() == [7] * 10 + [0] * 10


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("i2", -7), ("f8", np.nan), ("T", "none"), ("S3", b"no"), ("?", True), (bytes, b"x"),
     ("M8[s]", np.datetime64("2000-01-01", "s"))],
    ids=str,
)  # fmt: skip
def test_appended_rows_have_the_fill_value_before_they_are_written(tmp_path, dtype, fill):
    path = raster(tmp_path / "a.tif")
    with RatZarr(f"{path}.rat.zarr", newRowCount=2) as table:
        table.createColumn("a", dtype, fillValue=fill)
        table.createColumn("n", "i4")
    with attach(path, update=True) as rat:
        for row in (2, 3, 4):
            rat.SetValueAsInt(row, 1, 1)
        if rat.GetTypeOfCol(0) in (INTEGER, STRING):
            rat.SetValueAsString(3, 0, "1")
        before = describe(rat)
        rat.flush()
        assert describe(attach(path)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("i2", "f8"), ("i2", "i8"), ("f4", "i2"), ("T", "f8"), ("?", "i4"), ("i2", "cut"), ("T", "cut")],
)  # fmt: skip
def test_a_column_that_another_process_changes_is_not_cast(tmp_path, old, new):
    """The types of an attached table are those of the columns that it was opened with."""
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("n", old, np.arange(10).astype(old), {})], 10, chunk=4)
    with attach(path) as rat:
        rat.ReadAsArray(0, 1, 9)
        with RatZarr(f"{path}.rat.zarr") as other:
            if new == "cut":
                other.setRowCount(3)
            else:
                other.deleteColumn("n")
                other.createColumn("n", new)
                other.writeBlock("n", np.array([2.5 if new == "f8" else 9] * 10, new), 0)
        with pytest.raises(ChangedError, match=r"column 'n' has been replaced|rows of column 'n'"):
            rat.ReadAsArray(0)
        rat.refresh()
        assert rat.GetRowCount() == (3 if new == "cut" else 10)
        assert len(rat.ReadAsArray(0)) == rat.GetRowCount()


def test_the_tables_type_and_binning_go_to_the_sidecar(path):
    with attach(path, update=True) as rat:
        rat.SetLinearBinning(0.1, 1 / 3)
        rat.SetTableType(gdal.GRTT_ATHEMATIC)
        assert rat.GetLinearBinning() == [True, 0.1, 1 / 3]
        with pytest.raises(BridgeError, match=r"0 \(thematic\) or 1"):
            rat.SetTableType(7)
    rat = attach(path)
    assert rat.GetLinearBinning() == [True, 0.1, 1 / 3]
    assert rat.GetTableType() == gdal.GRTT_ATHEMATIC
    assert attach(path, prefer="raster").GetTableType() == gdal.GRTT_THEMATIC


@pytest.mark.skipif(not hasattr(gdal.RasterAttributeTable, "RemoveStatistics"), reason="GDAL 3.6")
def test_statistics_are_removed_from_sidecars_only(tmp_path):
    columns = [("Histogram", REAL, 1, [1.0]), ("x", INTEGER, 0, [1]), ("m", INTEGER, 3, [1])]
    path = raster(tmp_path / "a.tif")
    with attach(path, update=True) as rat:
        for name, kind, usage, _ in columns:
            rat.CreateColumn(name, kind, usage)
        expected = new_rat(columns, 1)
        expected.RemoveStatistics()
        rat.RemoveStatistics()
        assert names(rat) == names(expected)
    assert names(attach(path)) == names(expected)
    own = raster(tmp_path / "b.tif", columns, 1)
    with attach(own, update=True) as rat, pytest.raises(NotWrittenError, match="'Histogram'"):
        rat.RemoveStatistics()
    with attach(own, update=True, override=True) as rat:
        rat.SetValueAsDouble(0, 0, 5)
        rat.SetValueAsInt(0, 2, 5)
        # Without the sidecar's columns, the raster's own would be shown again.
        with pytest.raises(NotWrittenError, match="'Histogram'"):
            rat.RemoveStatistics()
        assert rat.ReadAsArray(0).tolist() == [5]


def test_a_further_table_is_written_where_it_is_named(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    with attach(path, names=["texture"], update=True) as rat:
        rat.CreateColumn("t", REAL, 0)
    with attach(path, update=True) as rat:
        # Into the table that it belongs to.
        rat.SetValueAsDouble(0, 3, 2.5)
    with RatZarr(f"{path}.texture.rat.zarr", readOnly=True) as table:
        assert table.readBlock("t", 0, 4).tolist() == [2.5, 0, 0, 0]
    assert names(attach(path)) == ["Value", "Name", "n", "t"]


@pytest.mark.parametrize("read_first", [False, True], ids=["unread", "read"])
def test_cells_are_converted_as_gdal_converts_them(path, read_first):
    columns = {"i": INTEGER, "x": REAL, "s": STRING}
    values = {
        "SetValueAsInt": (-7, 2**31 - 1),
        "SetValueAsDouble": (2.75, -1e9, 1e300, float("nan")),
        "SetValueAsString": ("", "12.5", "größe", "x" * 300),
    }
    cells = [(method, value) for method in values for value in values[method]]
    expected = new_rat([(name, kind, 0, []) for name, kind in columns.items()], len(cells))
    with attach(path, update=True) as rat:
        rat.SetRowCount(len(cells))
        first = rat.GetColumnCount()
        for name, kind in columns.items():
            rat.CreateColumn(name, kind, gdal.GFU_Generic)
        # Neighbours are not written in order, so each value comes from its own cell.
        for row in (*range(0, len(cells), 2), *range(1, len(cells), 2)):
            method, value = cells[row]
            for column, name in enumerate(columns):
                if name == "i" and isinstance(value, float) and not abs(value) < 2**31:
                    # GDAL's result is undefined.
                    continue
                if read_first:
                    rat.GetValueAsString(row, first + column)
                getattr(rat, method)(row, first + column, value)
                getattr(expected, method)(row, column, value)
        shown = [
            [rat.GetValueAsString(row, first + column) for column in range(3)]
            for row in range(len(cells))
        ]
    assert shown == [
        [expected.GetValueAsString(row, column) for column in range(3)]
        for row in range(len(cells))
    ]
    assert stored(path, "s") == [row[2] for row in shown]


def test_a_value_that_gdal_can_not_show_can_be_overwritten_by_a_cell(path):
    sidecar(path, [("n", "i8", [5, 2**53 + 1, 6, 7], {})], 4)
    with attach(path, update=True) as rat:
        column = names(rat).index("n")
        with pytest.raises(ConversionError, match="row 1"):
            rat.GetValueAsDouble(1, column)
        rat.SetValueAsDouble(1, column, 8.0)
        assert rat.ReadAsArray(column).tolist() == [5.0, 8.0, 6.0, 7.0]
    assert stored(path, "n") == [5, 8, 6, 7]


def test_threads_write_cells_of_one_column(tmp_path):
    rows, count = 4000, 4
    path = raster(tmp_path / "a.tif", [], 4)
    sidecar(path, [("n", "i8", np.zeros(rows, np.int64), {})], rows)
    order = np.random.default_rng(0).permutation(rows)
    errors = []
    with attach(path, update=True) as rat:
        column = names(rat).index("n")

        def write(own):
            try:
                for row in own.tolist():
                    rat.SetValueAsDouble(row, column, row + 1.0)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=[own]) for own in order.reshape(count, -1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert stored(path, "n") == list(range(1, rows + 1))


def test_an_array_handed_out_is_the_callers(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    with attach(path, update=True) as rat:
        rat.ReadAsArray(2)[:] = 9
        assert rat.ReadAsArray(2).tolist() == [1, 2, 3, 4]


# ---- behind


def test_all_tables_of_a_process_see_what_one_has_written(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    one, other = attach(path, update=True), attach(path)
    assert other.GetValueAsInt(2, 2) == 3
    one.SetValueAsInt(2, 2, 33)
    assert other.GetValueAsInt(2, 2) == 33
    assert other.ReadAsArray(2).tolist() == [1, 2, 33, 4]
    assert stored(path, "n") == [1, 2, 3, 4]
    one.flush()
    assert stored(path, "n") == [1, 2, 33, 4]
    one.close()


def test_one_table_sees_the_binning_that_another_has_set(tmp_path):
    path = raster(tmp_path / "b.tif", [("n", INTEGER, 0, [1, 2, 3, 4])], 4)
    one, other = attach(path, update=True), attach(path)
    assert other.GetRowOfValue(2.5) == -1
    one.SetLinearBinning(0.0, 1.0)
    assert other.GetRowOfValue(2.5) == 2


def test_all_names_of_a_raster_are_one_table(path, tmp_path, monkeypatch):
    with attach(path, update=True) as rat:
        rat.CreateColumn("x", INTEGER, 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    given = ["a.tif", "./a.tif", f"../{tmp_path.name}/a.tif", "link/a.tif", path]
    tables = [attach(name, update=True) for name in given]
    for rat in tables:
        assert rat.ReadAsArray(2).tolist() == [0] * 4
    for row, rat in enumerate(tables[:4]):
        rat.SetValueAsInt(row, 2, row + 5)
    for rat in tables:
        assert rat.ReadAsArray(2).tolist() == [5, 6, 7, 8]
        rat.close()


def test_a_sidecar_is_made_beside_its_raster_wherever_the_program_is_by_then(
    path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with attach("a.tif", update=True) as rat:
        monkeypatch.chdir(elsewhere)
        rat.CreateColumn("x", INTEGER, 0)
    assert list(elsewhere.iterdir()) == []
    assert names(attach(path)) == ["Value", "Name", "x"]


def test_columns_stay_where_they_are_until_a_refresh(path):
    sidecar(path, [("t", "i4", [5, 6, 7, 8], {})], 4, name=".texture")
    rat = attach(path)
    assert names(rat) == ["Value", "Name", "t"]
    with attach(path, update=True) as other:
        other.CreateColumn("x", INTEGER, 0)
        other.SetValueAsInt(1, 3, 9)
        other.SetValueAsInt(1, 2, 66)
    assert names(rat) == ["Value", "Name", "t"]
    assert rat.ReadAsArray(2).tolist() == [5, 66, 7, 8]
    rat.refresh()
    assert names(rat) == ["Value", "Name", "x", "t"]
    assert rat.GetValueAsInt(1, 2) == 9


def test_all_tables_of_a_process_see_a_column_that_takes_the_place_of_the_rasters(path):
    tables = [attach(path, update=True, override=True) for _ in range(3)]
    for rat in tables:
        assert rat.ReadAsArray(0).tolist() == [0, 1, 2, 3]
    for row, rat in enumerate(tables[:2]):
        rat.SetValueAsInt(row, 0, 50 + row)
    tables[2].CreateColumn("Name", STRING, 0)
    tables[0].SetValueAsString(3, 1, "new")
    for rat in tables:
        assert names(rat) == ["Value", "Name"]
        assert rat.ReadAsArray(0).tolist() == [50, 51, 2, 3]
        assert rat.ReadAsArray(1).tolist() == [b"", b"", b"", b"new"]
        rat.close()
    assert names(attach(path)) == ["Value", "Name"]


def test_a_column_that_another_process_has_put_in_place_of_the_rasters(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    with attach(path, update=True, override=True) as rat:
        assert names(rat) == ["Value", "Name", "n"]
        with RatZarr(f"{path}.rat.zarr") as table:
            table.createColumn("Value", "i4", attributes={"GDAL_USAGE": 5})
            table.writeBlock("Value", [4, 5, 6, 7], 0)
        with pytest.raises(OutputExistsError, match="a sidecar has a column 'Value' already"):
            rat.CreateColumn("Value", INTEGER, 5)
        rat.SetValueAsInt(1, 0, 50)
    assert stored(path, "Value") == [4, 50, 6, 7]
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.getColumnNames() == ["n", "Value"]


def test_the_second_column_of_a_name_is_overridden_in_its_place(tmp_path):
    own = [("a", INTEGER, 0, [1, 2]), ("b", INTEGER, 0, [3, 4]), ("a", INTEGER, 0, [5, 6])]
    expected = [[1, 2], [3, 4], [50, 6]]
    path = raster(tmp_path / "d.tif", own, 2)
    with attach(path, update=True, override=True) as rat:
        rat.SetValueAsInt(0, 2, 50)
        assert [rat.ReadAsArray(i).tolist() for i in range(3)] == expected
    with attach(path) as rat:
        assert [rat.ReadAsArray(i).tolist() for i in range(3)] == expected
    path = raster(tmp_path / "e.tif", own, 2)
    with enable():
        dataset = gdal.Open(path)
        band = dataset.GetRasterBand(1)
        rat = band.GetDefaultRAT().Clone()
        rat.SetValueAsInt(0, 2, 50)
        band.SetDefaultRAT(rat)
    with attach(path) as rat:
        assert [rat.ReadAsArray(i).tolist() for i in range(3)] == expected


def test_what_other_processes_write_is_seen_after_a_refresh(path):
    rat = attach(path)
    assert names(rat) == ["Value", "Name"]
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    rat.refresh()
    assert rat.GetValueAsInt(0, 2) == 1
    with RatZarr(f"{path}.rat.zarr") as table:
        table.writeBlock("n", [9], 0)
    assert rat.GetValueAsInt(0, 2) == 1
    rat.refresh()
    assert rat.GetValueAsInt(0, 2) == 9


def test_a_sidecar_that_was_deleted_is_made_anew(path):
    sidecar(path, [("n", "i4", [1, 2, 3, 4], {})], 4)
    before = attach(path)
    assert before.GetValueAsInt(0, 2) == 1
    RatZarr.delete(f"{path}.rat.zarr")
    with attach(path, update=True) as rat:
        assert names(rat) == ["Value", "Name"]
        rat.CreateColumn("x", INTEGER, 0)
        rat.SetValueAsInt(1, 2, 5)
    assert stored(path, "x") == [0, 5, 0, 0]
    before.close()


def test_a_table_that_is_no_longer_used_is_flushed(path):
    rat = attach(path, update=True)
    rat.CreateColumn("x", INTEGER, 0)
    rat.SetValueAsInt(2, 2, 5)
    assert stored(path, "x") == [0, 0, 0, 0]
    del rat
    assert stored(path, "x") == [0, 0, 5, 0]


def test_whole_chunks_are_written_at_once_and_parts_behind(path):
    sidecar(path, [("n", "i4", np.arange(10), {})], 10, chunk=4)
    with attach(path, update=True) as rat:
        rat.WriteArray(np.arange(100, 108), 2, 1)
        assert rat.ReadAsArray(2).tolist() == [0, *range(100, 108), 9]
        assert stored(path, "n") == [0, 1, 2, 3, *range(103, 107), 8, 9]
        for start, length in ((0, 3), (2, 4), (3, 7), (8, 2)):
            expected = [0, *range(100, 108), 9][start : start + length]
            assert rat.ReadAsArray(2, start, length).tolist() == expected
    assert stored(path, "n") == [0, *range(100, 108), 9]


def test_rows_of_others_in_the_same_chunk_stay(path):
    """Also of those between our own, if we changed many."""
    sidecar(path, [("n", "i4", np.zeros(100), {})], 100)
    with attach(path, update=True) as rat:
        for row in range(0, 100, 2):
            rat.SetValueAsInt(row, 2, 1)
        with RatZarr(f"{path}.rat.zarr") as table:
            table.writeBlock("n", [7], 51)
    assert stored(path, "n") == [7 if row == 51 else 1 - row % 2 for row in range(100)]


def test_few_chunks_wait(path):
    # A chunk of 5 rows takes 25 bytes: four for each value, one that says that it has come.
    most = 20
    rows = 5 * (most + 10)
    sidecar(path, [("n", "i4", np.zeros(rows), {})], rows, chunk=5)
    limited = shared_table(f"{path}.rat.zarr", buffer_bytes=25 * most)
    rat = attach(path, update=True)
    assert limited.users
    for row in range(0, rows, 5):
        rat.SetValueAsInt(row, 2, 1)
    waiting = rows // 5 - sum(stored(path, "n"))
    assert 0 < waiting <= most
    rat.flush()
    assert sum(stored(path, "n")) == rows // 5
    rat.close()


def test_no_change_waits_for_long(path):
    """Neither while others are made, nor if none follows."""
    sidecar(path, [("n", "i4", np.zeros(20), {})], 20, chunk=5)
    rat = attach(path, update=True)
    rat.SetValueAsInt(1, 2, 1)
    assert sum(stored(path, "n")) == 0
    began = time.monotonic()
    while not sum(stored(path, "n")):
        assert time.monotonic() < began + LIMIT
        time.sleep(0.02)
    assert rat.GetValueAsInt(1, 2) == 1
    rat.SetValueAsInt(7, 2, 1)
    while sum(stored(path, "n")) < 2:
        assert time.monotonic() < began + LIMIT
        rat.SetValueAsInt(8, 2, 0)
        time.sleep(0.02)
    # Also if it makes the table longer.
    rat.SetValueAsInt(20, 2, 1)
    while sum(stored(path, "n")) < 3:
        assert time.monotonic() < began + LIMIT
        time.sleep(0.1)
    assert rat.GetRowCount() == len(stored(path, "n")) == 21
    rat.close()


def test_what_waits_is_bounded_in_bytes_whatever_is_in_it(path):
    limited = shared_table(f"{path}.rat.zarr", buffer_bytes=1_000_000)
    rat = attach(path, update=True)
    assert limited.users
    rat.SetRowCount(4000)
    rat.CreateColumn("t", STRING, 0)
    text, most = "größe " * 100, 0
    for start in range(0, 3900, 100):
        rat.WriteArray(np.array([f"{text}{row}" for row in range(start, start + 100)]), 2, start)
        waiting = start + 100 - sum(map(bool, stored(path, "t")))
        most = max(most, waiting * len(text.encode()))
    # Its size is estimated, by the number of characters.
    assert 500_000 < most < 1_300_000 + 100 * len(text.encode())
    rat.close()
    assert stored(path, "t") == [*(f"{text}{row}" for row in range(3900)), *[""] * 100]


def test_the_cache_is_bounded(path):
    sidecar(path, [("n", "f8", np.arange(1000.0), {})], 1000, chunk=10)
    # Ten of the hundred chunks.
    limited = shared_table(f"{path}.rat.zarr", cache_bytes=800)
    rat = attach(path)
    assert limited.users

    def read(row):
        rat.forget()
        with recorded("open") as opened:
            assert rat.ReadAsArray(2, row, 1) == [row]
        return any("/c/" in str(name) for name, *_ in opened)

    assert all(read(row) for row in range(5, 1000, 10))
    assert not any(read(row) for row in range(905, 1000, 10))
    assert all(read(row) for row in range(5, 900, 10))


def test_what_can_not_be_written_waits_and_says_so(path):
    rat = attach(path, update=True)
    for name in ("x", "y"):
        rat.CreateColumn(name, INTEGER, 0)
    for column in (2, 3):
        rat.SetValueAsInt(1, column, 5)
    with RatZarr(f"{path}.rat.zarr") as table:
        table.deleteColumn("x")
    with pytest.raises(RatZarrError) as caught:
        rat.flush()
    assert "1 rows of column 'x'" in "".join(caught.value.__notes__)
    # The rest was tried all the same.
    assert stored(path, "y") == [0, 5, 0, 0]
    rat.SetValueAsInt(2, 3, 7)
    # Of what is deleted nothing waits any more.
    url = f"{path}.rat.zarr"
    RatZarr.delete(url)
    with pytest.raises(TableNotFoundError):
        shared_table(url).open(update=True)
    rat.close()
    assert not os.path.exists(url) or not os.listdir(url)


def test_what_can_not_be_read_to_be_changed_waits(path):
    """A damaged chunk is not covered up; what was to be written into it is written later."""
    sidecar(path, [("n", "i4", np.arange(10), {}), ("m", "i4", np.arange(10), {})], 10, chunk=5)
    rat = attach(path, update=True)
    rat.SetValueAsInt(1, 2, -1)
    file = f"{path}.rat.zarr/RAT/n/c/0"
    with open(file, "rb") as opened:
        good = opened.read()
    with open(file, "wb") as opened:
        opened.write(good[:-1])
    rat.SetValueAsInt(1, 3, -1)
    for _ in range(2):
        with pytest.raises(RatZarrError, match="c/0"):
            rat.flush()
        assert stored(path, "m") == [0, -1, *range(2, 10)]
    with open(file, "wb") as opened:
        opened.write(good)
    rat.close()
    assert stored(path, "n") == [0, -1, *range(2, 10)]


# ---- ends of programs

WRITER = """
import atexit, os, sys, threading, numpy as np
last = []
atexit.register(lambda: last and last[0].SetValueAsString(3, 2, "7"))
import gdalbridge
rat = gdalbridge.attach(sys.argv[1], update=True)
rat.CreateColumn("x", 0, 0)
rat.WriteArray(np.array([5, 6]), rat.GetColumnCount() - 1, 1)
rat.SetValueAsString(3, rat.GetColumnCount() - 1, "8" if sys.argv[2] == "handler" else "7")
# Several, so that the requests at the end would be made by threads.
for name in ("y", "z"):
    rat.CreateColumn(name, 2, 0)
    rat.SetValueAsString(1, rat.GetColumnCount() - 1, name)
how = sys.argv[2]
if how == "error":
    raise ValueError("of the program")
if how == "exit":
    sys.exit(3)
if how == "thread":
    # The program ends with it, and the table is held by nothing but a circle.
    def ends():
        circle = [rat]
        circle.append(circle)
        sys.exit(5)
    thread = threading.Thread(target=ends)
    thread.start()
    thread.join()
if how == "handler":
    # It was there before us, so it comes when all has been written.
    last.append(rat)
"""


def upload(place, path):
    for name in (path, f"{path}.aux.xml"):
        if os.path.exists(name):
            place.client.upload_file(name, place.bucket, os.path.basename(name))


ENDS = [("end", 0), ("error", 1), ("exit", 3), ("thread", 0)]


@pytest.mark.parametrize(
    ("where", "how", "code"),
    # A client of S3 is closed when such a handler is called: it gets an error.
    [*(("local", *end) for end in ENDS), *(("s3", *end) for end in ENDS), ("local", "handler", 0)],
)
def test_nothing_is_lost_where_a_program_ends(request, tmp_path, how, code, where):
    path = raster(tmp_path / "a.tif", OWN, 4)
    if where == "s3":
        place = request.getfixturevalue("moto_s3")
        upload(place, path)
        path = f"s3://{place.bucket}/a.tif"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WRITER, path, how],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("ValueError: of the program" in done.stderr) == (how == "error"), done.stderr
    assert how == "error" or not done.stderr
    assert stored(path, "x") == [0, 5, 6, 7]
    assert stored(path, "y") == ["", "y", "", ""]
    assert stored(path, "z") == ["", "z", "", ""]


def test_a_table_that_the_garbage_collector_finds_is_flushed_later(path):
    """It runs in any thread, also in the one that requests wait for."""
    rat = attach(path, update=True)
    rat.CreateColumn("x", INTEGER, 0)
    rat.SetValueAsInt(2, 2, 5)
    circle = [rat]
    circle.append(circle)
    del rat, circle
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    assert attach(path).GetValueAsInt(2, 2) == 5
    assert stored(path, "x") == [0, 0, 5, 0]


KILLED = """
import sys
import gdalbridge
rat = gdalbridge.attach(sys.argv[1], update=True)
for row in range(100_000):
    rat.SetValueAsInt(row, 2, 1)
    if row % 1000 == 999:
        print(row + 1, flush=True)
"""


def test_what_a_kill_loses_is_bounded(path):
    rows, chunk = 100_000, 100
    sidecar(path, [("n", "i4", np.zeros(rows), {})], rows, chunk=chunk)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, path], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            written = int(line)
            if written >= 20_000:
                process.send_signal(signal.SIGKILL)
                break
    kept = np.array(stored(path, "n"))
    # Each chunk is written when it is full.
    assert kept.sum() >= written - chunk
    # What is there is there from the beginning, without gaps.
    assert kept[: kept.sum()].all()


def test_a_kill_loses_no_change_that_is_older_than_a_second_or_so(path):
    sidecar(path, [("n", "i4", np.zeros(100_000), {})], 100_000, chunk=50_000)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, path], stdout=subprocess.PIPE, text=True
    ) as process:
        written = int(process.stdout.readline())
        began = time.monotonic()
        # Another process sees them, as this one goes on.
        while sum(stored(path, "n")[:written]) < written:
            assert time.monotonic() < began + LIMIT
        process.send_signal(signal.SIGKILL)
    assert sum(stored(path, "n")) >= written


@pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
def test_numpys_date_times_are_taken_as_utc(path, tmp_path):
    given = np.array(["2020-01-02T03:04:05.678", "NaT", "1999-01-02", "0001-01-01"], "M8[ms]")
    texts = ["2020-01-02T03:04:05.678Z", "", "1999-01-02T00:00:00Z", "0001-01-01T00:00:00Z"]
    with attach(path, update=True) as rat:
        rat.CreateColumn("t", DATETIME, 0)
        assert rat.WriteArray(given, 2) == 0
        for bad, reason in (
            (np.array(["10000-01-01"], "M8[s]"), "row 1: .* years 1 to 9999"),
            (np.array(["2020-01-01T00:00:00.000000001"], "M8[ns]"), "row 1: "),
        ):
            with pytest.raises(ConversionError, match=reason):
                rat.WriteArray(bad, 2, 1)
    expected = new_rat([("t", DATETIME, 0, texts)], 4)
    assert describe(attach(path))["columns"][2] == describe(expected)["columns"][0]
    # And as any others they go into a raster's own table.
    bake(path, tmp_path / "b.tif", native=True)
    baked = gdal.Open(str(tmp_path / "b.tif"))
    assert describe(baked.GetRasterBand(1).GetDefaultRAT()) == describe(attach(path))


@pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
def test_date_times_keep_each_their_own_offset(path):
    texts = [
        b"2020-01-02T03:04:05.678+02:00",
        b"",
        b"2020-01-02T03:04:05Z",
        b"2020-01-02T03:04:05",
    ]
    with attach(path, update=True) as rat:
        rat.CreateColumn("t", DATETIME, 0)
        rat.WriteArray(np.array(texts), 2)
    expected = new_rat([("t", DATETIME, 0, [text.decode() for text in texts])], 4)
    assert describe(attach(path))["columns"][2] == describe(expected)["columns"][0]


def test_payloads_of_nans_pass_through_a_float32_column(path):
    bits = np.array([0x7F800001, 0xFFC00000, 0x7FC01234, 0x7FC00000], "u4")
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(4)
        table.createColumn("f", "f4")
        table.writeBlock("f", bits.view("f4"), 0)
    with attach(path, update=True) as rat:
        column = names(rat).index("f")
        wide = rat.ReadAsArray(column)
        rat.WriteArray(wide[::-1], column)
        lost = np.array([0x7FF00000000007A2], "u8").view("f8")
        with pytest.raises(ConversionError, match="row 2: nan has a payload, 0x7ff00000000007a2"):
            rat.WriteArray(lost, column, 2)
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("f", 0, 4).view("u4").tolist() == bits[::-1].tolist()
