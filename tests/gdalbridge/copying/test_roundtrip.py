"""Tables from a raster to a sidecar and back, equal field by field by GDAL's own reading."""

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import LossWarning, copy_to_raster, copy_to_sidecar
from gdalbridge.errors import NotWrittenError
from ratzarr import RatZarr
from tests.gdalbridge import sample_rasters
from tests.gdalbridge.sample_rasters import HAS_HFA, INTEGER, REAL, STRING, describe, make, new_rat


def memory(columns, rows, *, bands=1, binning=None, table_type=None):
    """A raster in memory: GDAL keeps everything in it, exactly."""
    dataset = make("", "MEM", bands)
    rat = new_rat(columns, rows)
    if binning is not None:
        rat.SetLinearBinning(*binning)
    if table_type is not None:
        rat.SetTableType(table_type)
    for band in range(1, bands + 1):
        dataset.GetRasterBand(band).SetDefaultRAT(rat)
    return dataset


def table_of(dataset, band=1):
    return describe(dataset.GetRasterBand(band).GetDefaultRAT())


def test_everything_that_gdal_has(tmp_path):
    source = memory(sample_rasters.all_kinds(), 7, bands=2, binning=(-0.1, 1 / 3), table_type=1)
    target = make("", "MEM", 2)
    for band in (1, 2):
        store = tmp_path / f"{band}.rat.zarr"
        report = copy_to_sidecar(source, store, band=band, chunk_rows=3)
        assert report.rows == 7
        back = copy_to_raster(store, target, band=band)
        assert back.losses == ()
        assert table_of(target, band) == table_of(source, band)


@pytest.mark.parametrize("rows", [0, 1])
def test_short_tables(tmp_path, rows):
    source = memory(sample_rasters.all_kinds(rows), rows)
    copy_to_sidecar(source, tmp_path / "t.rat.zarr")
    target = make("", "MEM")
    copy_to_raster(tmp_path / "t.rat.zarr", target)
    assert table_of(target) == table_of(source)


def test_no_columns(tmp_path):
    source = memory([], 3)
    assert copy_to_sidecar(source, tmp_path / "t.rat.zarr").columns == ()
    assert RatZarr(tmp_path / "t.rat.zarr").rowCount == 3


@pytest.mark.parametrize("binning", [(0.0, 1.0), (-1e300, 5e-324), (float("inf"), float("nan"))])
def test_linear_binning_is_exact(tmp_path, binning):
    source = memory([("a", INTEGER, 0, [1])], 1, binning=binning)
    copy_to_sidecar(source, tmp_path / "t.rat.zarr")
    target = make("", "MEM")
    copy_to_raster(tmp_path / "t.rat.zarr", target)
    assert table_of(target)["binning"] == table_of(source)["binning"]


def test_blocks_of_any_size_give_the_same(tmp_path):
    rows = 1000
    columns = [
        ("i", INTEGER, 0, np.arange(rows)),
        ("r", REAL, 0, np.arange(rows) / 7),
        ("s", STRING, 0, [f"class {i}" * (i % 5) for i in range(rows)]),
    ]
    source = memory(columns, rows)
    for number, (chunk, block) in enumerate([(1, None), (7, 3), (999, 5000), (1000, 1), (64, 64)]):
        store = tmp_path / f"{number}.rat.zarr"
        copy_to_sidecar(source, store, chunk_rows=chunk, block_rows=block)
        target = make("", "MEM")
        copy_to_raster(store, target, block_rows=block)
        assert table_of(target) == table_of(source)


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_hfa_there_and_back(tmp_path):
    rows = 5000
    path, again = tmp_path / "a.img", tmp_path / "b.img"
    dataset = make(path, "HFA")
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    rng = np.random.default_rng(0)
    sample_rasters.fill(
        rat,
        [
            ("Histogram", REAL, 1, rng.integers(0, 9999, rows).astype("f8")),
            ("Red", INTEGER, 6, rng.integers(0, 256, rows)),
            ("area", REAL, 0, rng.normal(size=rows)),
            ("label", STRING, 0, [f"größe {i}" for i in range(rows)]),
            ("id", INTEGER, 0, rng.integers(-(2**31), 2**31 - 1, rows)),
        ],
        rows,
    )
    rat = dataset = None
    before = sample_rasters.describe_band(path)
    copy_to_sidecar(path, chunk_rows=999)
    make(again, "HFA").FlushCache()
    report = copy_to_raster(f"{path}.rat.zarr", again)
    assert report.losses == ()
    assert sample_rasters.describe_band(again) == before
    assert sample_rasters.describe_band(path) == before


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_what_hfa_changes_is_said(tmp_path):
    store = tmp_path / "t.rat.zarr"
    columns = [
        ("count", INTEGER, 1, [1, 2]),
        ("class", STRING, 2, ["a", "b"]),
        ("v", INTEGER, 5, [0, 1]),
    ]
    copy_to_sidecar(memory(columns, 2), store)
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    with pytest.warns(LossWarning):
        report = copy_to_raster(store, path)
    text = "\n".join(report.losses)
    assert "the type of column 'count' became Real, its name 'Histogram'" in text
    assert "the name of column 'class' became 'Class_Names'" in text
    assert "the usage of column 'v' became" in text
    found = sample_rasters.describe_band(path)
    assert [column[0] for column in found["columns"]] == ["Histogram", "Class_Names", "v"]


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_nothing_is_written_through_to_hfa_before_all_is_checked(tmp_path):
    store = tmp_path / "t.rat.zarr"
    with RatZarr(store) as table:
        table.setRowCount(3)
        table.createColumn("good", np.int32)
        table.createColumn("bad", np.int64)
        table.writeBlock("bad", [1, 2, 2**31], 0)
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"column 'bad', row 2: 2147483648 does not fit int32"):
        copy_to_raster(store, path)
    assert path.read_bytes() == before


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_columns_that_hfa_can_not_tell_apart_are_refused_before_any_is_written(tmp_path):
    store = tmp_path / "t.rat.zarr"
    columns = [("a", INTEGER, 0, [1]), ("one", STRING, 2, ["x"]), ("other", STRING, 2, ["y"])]
    copy_to_sidecar(memory(columns, 1), store)
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    before = path.read_bytes()
    with pytest.raises(NotWrittenError, match="would replace with 'other'"):
        copy_to_raster(store, path)
    assert path.read_bytes() == before


def test_geotiff_there_and_back(tmp_path):
    """What XML can hold comes back; what it can't is said, row by row."""
    rows = 6
    columns = [
        ("Value", INTEGER, 5, np.arange(rows)),
        ("Histogram", REAL, 1, [1.0, 2.5, 1e10, 0.1, 1 / 3, 2**53]),
        ("label", STRING, 2, ["plain", " blank", "größe", "", "a&b<c>", "end "]),
    ]
    source = memory(columns, rows, binning=(0.5, 0.1), table_type=0)
    store = tmp_path / "t.rat.zarr"
    copy_to_sidecar(source, store)
    path = tmp_path / "x.tif"
    make(path).FlushCache()
    with pytest.warns(LossWarning):
        report = copy_to_raster(store, path)
    found, wanted = sample_rasters.describe_band(path), table_of(source)
    # The oracle: what differs by GDAL's own reading is what the report says, and no more.
    said = "\n".join(report.losses)
    for (name, *_, now), (_, *_, was) in zip(found["columns"], wanted["columns"], strict=True):
        for row, (one, other) in enumerate(zip(now, was, strict=True)):
            assert (one != other) == (f"column '{name}', row {row}:" in said), (name, row)
    assert "column 'label', row 1:  blank became blank" in said
    assert found["rows"] == rows


def test_a_geotiff_that_is_its_own_source(tmp_path):
    path = tmp_path / "x.tif"
    dataset = make(path, bands=2)
    for band in (1, 2):
        rat = new_rat([("Value", INTEGER, 5, [band, 2, 3]), ("c", STRING, 0, ["a", "", "ü"])], 3)
        dataset.GetRasterBand(band).SetDefaultRAT(rat)
    rat = dataset = None
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    for band in (1, 2):
        copy_to_sidecar(path, band=band)
    # The raster is only read.
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    again = tmp_path / "y.tif"
    make(again, bands=2).FlushCache()
    copy_to_raster(f"{path}.rat.zarr", again)
    copy_to_raster(f"{path}.band2.rat.zarr", again, band=2)
    for band in (1, 2):
        assert sample_rasters.describe_band(again, band) == sample_rasters.describe_band(
            path, band
        )


def test_the_land_cover_raster(nlcd, tmp_path):
    report = copy_to_sidecar(nlcd)
    expected = sample_rasters.describe_band(nlcd)
    with RatZarr(report.target, readOnly=True) as table:
        assert table.getColumnNames() == [column[0] for column in expected["columns"]]
        assert table.readBlock("Land Cover Class", 11, 1)[0] == "Open Water"
    again = tmp_path / "again.tif"
    gdal.GetDriverByName("GTiff").Create(str(again), 84, 46).FlushCache()
    assert copy_to_raster(report.target, again).losses == ()
    assert sample_rasters.describe_band(again) == expected
