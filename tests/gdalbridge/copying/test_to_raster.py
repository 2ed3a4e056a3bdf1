"""Options and refusals of copies into a raster."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal, gdal_array

from gdalbridge import (
    BridgeError,
    ConversionError,
    LossWarning,
    copy_to_raster,
    copy_to_sidecar,
)
from gdalbridge.cli import main
from gdalbridge.copying.compare import BORDER, Borders
from gdalbridge.errors import (
    ColumnSelectionError,
    NotWrittenError,
    OutputExistsError,
    RasterNotFoundError,
)
from gdalbridge.gdalio.rat_writer import keeps_values, text_pieces
from ratzarr import DamagedError, RatZarr
from ratzarr.format.blocks import Block
from tests.gdalbridge.dbf_files import write_dbf
from tests.gdalbridge.sample_rasters import (
    HAS_HFA,
    INTEGER,
    NEW_TYPES,
    STRING,
    describe_band,
    make,
    new_rat,
)

IN_BLOCKS = gdal.VersionInfo("VERSION_NUM") >= "3120000"


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setRowCount(4)
        table.createColumn("id", np.int32)
        table.writeBlock("id", [5, 6, 7, 8], 0)
        table.createColumn("name", str)
        table.writeBlock("name", ["a", "b", "c", "d"], 0)
    return path


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "x.tif"
    dataset = make(path)
    rat = new_rat([("own", INTEGER, 0, [1, 2, 3, 4]), ("id", INTEGER, 0, [0, 0, 0, 0])], 4)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    return path


def columns(path):
    return {name: values for name, _, _, values in describe_band(path)["columns"]}


def test_columns_are_added_to_the_rasters_own(store, raster):
    copy_to_raster(store, raster, columns=["name"])
    assert columns(raster) == {"own": [1, 2, 3, 4], "id": [0] * 4, "name": ["a", "b", "c", "d"]}


def test_an_existing_column_is_refused_and_nothing_changes(store, raster):
    before = describe_band(raster)
    with pytest.raises(OutputExistsError, match="'id' already"):
        copy_to_raster(store, raster)
    assert describe_band(raster) == before


def test_overwrite_writes_over_it(store, raster):
    copy_to_raster(store, raster, overwrite=True)
    assert columns(raster)["id"] == [5, 6, 7, 8]
    assert columns(raster)["own"] == [1, 2, 3, 4]


def test_a_type_that_gdal_can_not_change(store, tmp_path):
    path = tmp_path / "y.tif"
    dataset = make(path)
    rat = new_rat([("id", STRING, 0, list("wxyz"))], 4)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset = None
    with pytest.raises(OutputExistsError, match="can't change that to Integer"):
        copy_to_raster(store, path, overwrite=True)
    assert columns(path) == {"id": list("wxyz")}


def duplicates(path):
    dataset = make(path)
    table = [("a", INTEGER, 0, [1, 2]), ("b", INTEGER, 0, [5, 6]), ("a", STRING, 0, ["x", "y"])]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(table, 2))
    dataset.FlushCache()
    return copy_to_sidecar(path).target


def values(path):
    return [(name, values) for name, _, _, values in describe_band(path)["columns"]]


def test_columns_of_one_name_are_each_written_over_their_own(tmp_path):
    path = tmp_path / "d.tif"
    copied = duplicates(path)
    before = values(path)
    assert copy_to_raster(copied, path, overwrite=True).losses == ()
    assert values(path) == before
    with RatZarr(copied) as table:
        table.writeBlock("a 2", ["z"], 1)
    copy_to_raster(copied, path, columns=["a 2"], overwrite=True)
    assert values(path) == [*before[:2], ("a", ["x", "z"])]
    with pytest.raises(OutputExistsError, match="'a' already"):
        copy_to_raster(copied, path, columns=["a 2"])


def test_the_second_column_of_a_name_is_not_written_over_the_first(tmp_path):
    copied, path = duplicates(tmp_path / "d.tif"), tmp_path / "e.tif"
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("a", INTEGER, 0, [7, 8])], 2))
    dataset = None
    copy_to_raster(copied, path, columns=["a 2"], overwrite=True)
    assert values(path) == [("a", [7, 8]), ("a", ["x", "y"])]


def test_another_number_of_rows(store, tmp_path):
    path = tmp_path / "y.tif"
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("own", INTEGER, 0, [1, 2])], 2))
    dataset = None
    with pytest.raises(BridgeError, match="2 rows and the sidecar has 4"):
        copy_to_raster(store, path)


@pytest.mark.parametrize("options", [{"columns": ["no"]}, {"cast": {"no": "Real"}}])
def test_columns_that_are_not_there(store, raster, options):
    with pytest.raises(ColumnSelectionError, match="no column 'no'"):
        copy_to_raster(store, raster, **options)


def test_several_values_per_row(store, raster):
    with RatZarr(store) as table:
        table.createColumn("spectrum", np.float32, width=3)
    with pytest.raises(ConversionError, match="'spectrum' has 3 values per row"):
        copy_to_raster(store, raster, overwrite=True)


def test_a_column_that_is_not_complete(store, raster):
    with RatZarr(store) as table:
        table.createColumn("half", np.float32, complete=False)
    with pytest.raises(BridgeError, match="'half' is not complete"):
        copy_to_raster(store, raster, overwrite=True)


def test_a_raster_on_s3_is_refused_before_anything_is_asked(store):
    with pytest.raises(NotWrittenError, match="GDAL can't change a raster there"):
        copy_to_raster(store, "s3://bucket/x.tif")


def test_a_raster_that_is_not_there(store, tmp_path):
    with pytest.raises(RasterNotFoundError):
        copy_to_raster(store, tmp_path / "no.tif")


def test_a_dataset_that_was_opened_for_reading(store, tmp_path):
    path = tmp_path / "y.tif"
    make(path).FlushCache()
    dataset = gdal.Open(str(path))
    if gdal.VersionInfo("VERSION_NUM") < "3120000":
        # This version writes a .aux.xml beside it, which is as good.
        copy_to_raster(store, dataset)
        assert columns(path)["id"] == [5, 6, 7, 8]
        return
    with pytest.raises(NotWrittenError, match="Open it for update"):
        copy_to_raster(store, dataset)


def test_a_dataset_that_was_opened_for_update(store, tmp_path):
    path = tmp_path / "y.tif"
    make(path).FlushCache()
    dataset = gdal.OpenEx(str(path), gdal.OF_UPDATE)
    copy_to_raster(store, dataset)
    dataset = None
    assert columns(path)["name"] == ["a", "b", "c", "d"]


def test_the_report(store, tmp_path):
    path = tmp_path / "y.tif"
    make(path).FlushCache()
    report = copy_to_raster(store, path)
    assert (report.source, report.target, report.rows) == (str(store), str(path), 4)
    assert [(c.name, c.gdal_type) for c in report.columns] == [
        ("id", "Integer"),
        ("name", "String"),
    ]
    assert report.bytes_stored > 0


def test_progress(store, tmp_path):
    path = tmp_path / "y.tif"
    make(path).FlushCache()
    done = []
    copy_to_raster(store, path, block_rows=1, progress=lambda f, m, d: done.append(f) or 1)
    assert done == sorted(done)
    assert done[-1] == 1.0


@pytest.fixture
def gives(monkeypatch):
    """Let each block that GDAL is given be looked at first, and replaced: on the border to GDAL."""
    give = gdal_array.RATValuesIONumPyWrite

    def let(look):
        def given(rat, column, start, values):
            changed = look(column, start, values)
            return give(rat, column, start, values if changed is None else changed)

        monkeypatch.setattr(gdal_array, "RATValuesIONumPyWrite", given)

    return let


@pytest.mark.parametrize("longest", [900, 5000])
def test_no_piece_of_text_is_padded_to_more_than_it_may_take(longest):
    lengths = np.array([1] * 500 + [longest] + [1, 0] * 300 + [5000, 1])
    pieces = [range(len(lengths))[piece] for piece in text_pieces(lengths, 1000)]
    assert [row for piece in pieces for row in piece] == list(range(len(lengths)))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * max(lengths[list(piece)]) <= 1000
    assert len(pieces) < 10


@pytest.mark.thorough
def test_one_long_text_does_not_pad_all_the_others(tmp_path, gives):
    """Pieces are cut by their size in bytes, and every row comes back."""
    texts = ["a"] * 500 + ["x" * 900_000] + ["b", ""] * 300 + ["y" * 2**25, "z"]
    store = tmp_path / "t.rat.zarr"
    with RatZarr(store) as table:
        table.setRowCount(len(texts))
        table.createColumn("s", str)
        table.writeBlock("s", texts, 0)
    sizes = []
    gives(lambda column, start, values: sizes.append(values.nbytes))
    dataset = make("", "MEM")
    copy_to_raster(store, dataset)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    assert [rat.GetValueAsString(row, 0) for row in range(len(texts))] == texts
    assert all(size <= 2**25 for size in sizes)
    assert bool(sizes) == IN_BLOCKS


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_an_open_hfa_dataset(store, tmp_path):
    path = tmp_path / "x.img"
    dataset = make(path, "HFA")
    assert copy_to_raster(store, dataset).losses == ()
    dataset = None
    assert columns(path) == {"id": [5, 6, 7, 8], "name": ["a", "b", "c", "d"]}


def test_a_vrt_in_memory(store, raster):
    """It lists its sources as its files; the table is its own."""
    before = describe_band(raster)
    dataset = gdal.GetDriverByName("VRT").CreateCopy("", gdal.Open(str(raster)))
    copy_to_raster(store, dataset, columns=["name"])
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    index = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())].index("name")
    assert [rat.GetValueAsString(row, index) for row in range(4)] == ["a", "b", "c", "d"]
    assert describe_band(raster) == before


@pytest.fixture
def thousand(tmp_path):
    """Numbers and text, in chunks of 300 rows."""
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(300)
        table.setRowCount(1000)
        table.createColumn("id", np.int32)
        table.writeBlock("id", np.arange(1000, dtype="i4"), 0)
        table.createColumn("name", str)
        table.writeBlock("name", [f"größe {row}" for row in range(1000)], 0)
    return path


@pytest.fixture
def loses(gives):
    """Have GDAL lose one row of every column."""

    def lose(lost):
        def one_less(column, start, values):
            if start <= lost < start + len(values):
                values = values.copy()
                values[lost - start] = values[0:1].dtype.type()
            return values

        gives(one_less)

    return lose


SEEN = {
    # Within a block, and at its ends; a raster that keeps all, and one that may not.
    ("MEM", 450, None): False,
    ("MEM", 450, True): True,
    ("MEM", 600, None): True,
    ("MEM", 999, None): True,
    ("MEM", 999, False): False,
    ("GTiff", 450, None): True,
    ("GTiff", 450, False): False,
}


@pytest.mark.skipif(not IN_BLOCKS, reason="this GDAL is not given text in blocks there")
@pytest.mark.parametrize(("driver", "row", "verify"), SEEN)
def test_what_is_compared(thousand, tmp_path, loses, driver, row, verify):
    loses(row)
    path = tmp_path / "x.tif"
    target = make("" if driver == "MEM" else path, driver)
    if driver == "GTiff":
        target.FlushCache()
        target = path
    if not SEEN[driver, row, verify]:
        assert copy_to_raster(thousand, target, verify=verify, block_rows=300).losses == ()
        return
    with pytest.warns(LossWarning):
        losses = copy_to_raster(thousand, target, verify=verify, block_rows=300).losses
    assert f"column 'id', row {row}: {row} became 0" in losses
    assert f"column 'name', row {row}: größe {row} became " in losses


def test_which_rasters_keep_every_value(raster, tmp_path):
    assert keeps_values(make("", "MEM"))
    assert keeps_values(gdal.GetDriverByName("VRT").CreateCopy("", gdal.Open(str(raster))))
    assert not keeps_values(gdal.Open(str(raster)))
    gdal.GetDriverByName("VRT").CreateCopy(str(tmp_path / "x.vrt"), gdal.Open(str(raster)))
    assert not keeps_values(gdal.Open(str(tmp_path / "x.vrt")))


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 2), (64, 64), (1000, 64)])
def test_borders_are_of_blocks_all_through_a_column(count, kept):
    borders = Borders(count)
    for number in range(count):
        borders.put(Block(number * 100, 100), [np.arange(number * 100, number * 100 + 100)])
    starts = {block.start // 100 for block, _ in borders.blocks}
    assert len(starts) == kept
    assert {0, count - 1} <= starts
    assert max(np.diff(sorted(starts)), default=0) <= 1000 / 60
    for block, (values,) in borders.blocks:
        assert values.tolist() == list(range(block.start, block.stop))
        assert values.base is None
        assert block.length == BORDER


def test_zero_characters_in_text_are_refused_by_row(thousand):
    with RatZarr(thousand) as table:
        table.writeBlock("name", ["cut \x00 here"], 512)
    dataset = make("", "MEM")
    with pytest.raises(ConversionError, match="column 'name', row 512: GDAL would cut"):
        copy_to_raster(thousand, dataset)
    assert dataset.GetRasterBand(1).GetDefaultRAT() is None


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
@pytest.mark.parametrize("name", ["id", "name"])
def test_damage_is_found_before_anything_is_written_through(thousand, tmp_path, name):
    chunk = thousand / "RAT" / name / "c" / "2"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    before = path.read_bytes()
    with pytest.raises(DamagedError, match=rf"rows 600 to 899 of column '{name}'"):
        copy_to_raster(thousand, path)
    assert path.read_bytes() == before


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_the_longest_text_is_written_through_first(thousand, tmp_path, gives):
    with RatZarr(thousand) as table:
        table.writeBlock("name", ["the very longest of all of them"], 777)
    rows = []
    gives(lambda column, start, values: rows.append((column, start, len(values))))
    path = tmp_path / "x.img"
    make(path, "HFA").FlushCache()
    assert copy_to_raster(thousand, path).losses == ()
    assert next((start, count) for index, start, count in rows if index == 1) == (777, 1)
    expected = [f"größe {row}" for row in range(1000)]
    expected[777] = "the very longest of all of them"
    assert columns(path) == {"id": list(range(1000)), "name": expected}


def test_payloads_of_nans_become_real_or_are_refused_as_text(tmp_path, raster):
    bits = np.array([0x7F800001, 0xFFC00000, 0x7FC01234, 0x3F800000], "u4")
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(4)
        table.createColumn("f", "f4")
        table.writeBlock("f", bits.view("f4"), 0)
        table.createColumn("ordinary", "f4")
        table.writeBlock("ordinary", np.array([np.nan, -np.nan, 1, 2], "f4"), 0)
    memory = gdal.GetDriverByName("MEM").Create("", 2, 2)
    copy_to_raster(tmp_path / "t.rat.zarr", memory)
    rat = memory.GetRasterBand(1).GetDefaultRAT()
    # A wider float has the fraction's bits at its left.
    wanted = [0x7FF0000020000000, 0xFFF8000000000000, 0x7FF8024680000000, 0x3FF0000000000000]
    assert rat.ReadAsArray(0).view("u8").tolist() == wanted
    with pytest.raises(ConversionError, match="column 'f', row 0: a NaN with a payload"):
        copy_to_raster(tmp_path / "t.rat.zarr", raster, columns=["f"], cast={"f": "String"})
    copy_to_raster(
        tmp_path / "t.rat.zarr", raster, columns=["ordinary"], cast={"ordinary": "String"}
    )
    assert columns(raster)["ordinary"] == ["nan", "nan", "1.0", "2.0"]


@pytest.mark.parametrize("options", [{}, {"lossy": True}, {"verify": True}])
def test_numbers_that_gdal_reads_otherwise_from_xml_are_losses(tmp_path, options):
    """GDAL writes 16 digits, which is infinite here, and reads -nan as 0 since 3.13."""
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(3)
        table.createColumn("x", "f8")
        table.writeBlock("x", [1.0, 1.7976931348623157e308, -np.float64("nan")], 0)
    make(tmp_path / "a.tif").FlushCache()
    path = tmp_path / "a.vrt"
    source = gdal.Open(str(tmp_path / "a.tif"))
    gdal.GetDriverByName("VRT").CreateCopy(str(path), source).FlushCache()
    before = path.read_bytes()
    with pytest.raises(NotWrittenError, match=r"a\.vrt was left unchanged: column 'x', row 1"):
        copy_to_raster(tmp_path / "t.rat.zarr", path, strict=True)
    assert path.read_bytes() == before
    with pytest.warns(LossWarning) as said:
        report = copy_to_raster(tmp_path / "t.rat.zarr", path, **options)
    assert "column 'x', row 1: 1.7976931348623157e+308 became inf" in report.losses[0]
    assert [str(one.message) for one in said] == [f"{path}: {report.losses[0]}"]


def test_the_binning_of_a_table_without_rows_is_compared(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.createColumn("x", "f8")
        table.getRatAttributeMapping()["GDAL_LINEAR_BINNING"] = [0.1 + 0.2, 1.0]
    path = tmp_path / "a.tif"
    make(path).FlushCache()
    with pytest.raises(NotWrittenError, match="linear binning became"):
        copy_to_raster(tmp_path / "t.rat.zarr", path, strict=True)


def test_rows_without_columns_are_not_kept(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as table:
        table.setRowCount(3)
    path = tmp_path / "a.tif"
    make(path).FlushCache()
    with pytest.warns(LossWarning):
        report = copy_to_raster(tmp_path / "t.rat.zarr", path)
    assert report.losses == ("the table, which has no cells, was not kept",)


# ---- what other software sees


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def raster_with_xml_table(path):
    """A GeoTIFF whose table and statistics are in its .aux.xml, with any version of GDAL."""
    pixels = make("", "MEM")
    band = pixels.GetRasterBand(1)
    band.SetDefaultRAT(new_rat([("own", INTEGER, 0, [1, 2, 3, 4])], 4))
    band.SetMetadataItem("STATISTICS_MEAN", "7 <&>")
    copy = gdal.GetDriverByName("GTiff").CreateCopy(
        str(path), pixels, options=["PROFILE=BASELINE"]
    )
    assert copy is not None
    del copy
    assert xml_columns(path) == ["own"]
    return path


def xml_columns(path):
    root = ET.parse(f"{path}.aux.xml").getroot()
    return [one.findtext("Name") for one in root.iter("FieldDefn")]


def test_a_table_that_older_gdal_does_not_see_is_said_once(store, tmp_path):
    """Said of a table within the TIFF, which a parser of XML does not find beside it."""
    for name in ("x.tif", "q.tif", "j.tif", "open.tif"):
        make(tmp_path / name).FlushCache()
    done = call("export", store, tmp_path / "x.tif")
    assert done.exit_code == 0
    is_inside = not (tmp_path / "x.tif.aux.xml").exists()
    assert is_inside == NEW_TYPES
    lines = done.stderr.splitlines()
    assert len(lines) == is_inside
    assert all(line.startswith("gdalbridge: note: the table is in ") for line in lines)
    quiet = call("export", store, tmp_path / "q.tif", "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")
    as_json = call("export", store, tmp_path / "j.tif", "--json")
    assert (as_json.exit_code, as_json.stderr) == (0, "")
    assert len(json.loads(as_json.stdout)["notes"]) == is_inside
    dataset = gdal.OpenEx(str(tmp_path / "open.tif"), gdal.OF_UPDATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(copy_to_raster(store, dataset).notes) == is_inside
    assert copy_to_raster(store, make("", "MEM")).notes == ()


def test_a_table_in_the_aux_xml_stays_there_for_older_gdal(store, tmp_path):
    """GDAL 3.12 writes the new table into the TIFF as well: nothing has to be said."""
    path = raster_with_xml_table(tmp_path / "x.tif")
    before = gdal.Open(str(path)).ReadAsArray()
    report = copy_to_raster(store, path)
    assert report.notes == ()
    assert xml_columns(path) == ["own", "id", "name"]
    [mean] = ET.parse(f"{path}.aux.xml").getroot().iterfind(".//MDI[@key='STATISTICS_MEAN']")
    assert mean.text == "7 <&>"
    assert columns(path) == {"own": [1, 2, 3, 4], "id": [5, 6, 7, 8], "name": list("abcd")}
    assert (gdal.Open(str(path)).ReadAsArray() == before).all()


@pytest.mark.parametrize("ending", [".vat.dbf", ".VAT.DBF"])
def test_another_table_in_a_vat_dbf_is_named(store, tmp_path, ending):
    """GDAL, of any version, shows the table of the raster's own file or its .aux.xml."""
    path = raster_with_xml_table(tmp_path / "x.tif")
    write_dbf(f"{path}{ending}", [(b"VALUE", b"N", 9, 0)], [[b"5"], [b"6"]])
    assert set(columns(path)) == {"own"}
    done = call("export", store, path)
    assert done.exit_code == 0
    [line] = done.stderr.splitlines()
    assert line.startswith(f"gdalbridge: note: {path}{ending} holds another table")
    assert set(columns(path)) == {"own", "id", "name"}


def test_a_nan_with_a_sign_stays_a_nan(raster, store):
    """GDAL writes it to XML as -nan, which its versions from 3.13 read as 0."""
    with RatZarr(store) as table:
        table.createColumn("x", np.float64)
        table.writeBlock("x", [0.5, -np.nan, np.nan, 1], 0)
    with pytest.warns(LossWarning, match="'x', row 1: -nan became nan"):
        copy_to_raster(store, raster, columns=["x"])
    dataset = gdal.Open(str(raster))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    assert np.isnan(rat.ReadAsArray(2)).tolist() == [False, True, True, False]


# ---- strict


OUTPUTS = ["x.tif", "aux.tif", "x.vrt"] + ["x.img"] * HAS_HFA


@pytest.fixture
def lossy_store(store):
    """With a double that XML does not keep, and a count that HFA makes Real."""
    with RatZarr(store) as table:
        table.createColumn("r", np.float64)
        table.writeBlock("r", [1, 2, 1 / 3 + 2**-54, 1 / 3 + 2**-54], 0)
        table.createColumn("n", np.int32)
        table.writeBlock("n", [1, 2, 3, 4], 0)
        table.getColumnAttributeMapping("n")["GDAL_USAGE"] = 1
    return store


def target(tmp_path, name):
    path = tmp_path / name
    if name == "aux.tif":
        return raster_with_xml_table(path)
    if name == "x.vrt":
        make(tmp_path / "source.tif").FlushCache()
        copy = gdal.GetDriverByName("VRT").CreateCopy(
            str(path), gdal.Open(str(tmp_path / "source.tif"))
        )
        assert copy is not None
        return path
    make(path, "HFA" if name == "x.img" else "GTiff").FlushCache()
    return path


def contents(folder):
    return {str(one): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize("name", OUTPUTS)
def test_strictly_nothing_is_lost_or_nothing_is_changed(lossy_store, tmp_path, name):
    path = target(tmp_path, name)
    lost = "n" if name == "x.img" else "r"
    before = contents(tmp_path)
    with pytest.raises(NotWrittenError, match=rf"{name} was left unchanged: .*column '{lost}'"):
        copy_to_raster(lossy_store, path, columns=["id", lost], strict=True)
    assert contents(tmp_path) == before
    done = call("export", lossy_store, path, "--column", lost, "--strict")
    assert done.exit_code == 1
    assert "was left unchanged" in done.stderr
    assert contents(tmp_path) == before
    # What can be kept is written, and the raster's other files are not.
    report = copy_to_raster(lossy_store, path, columns=["id", "name"], strict=True)
    assert (report.target, report.losses) == (str(path), ())
    found = columns(path)
    assert (found["id"], found["name"]) == ([5, 6, 7, 8], list("abcd"))
    changed = {one for one, data in contents(tmp_path).items() if before.get(one) != data}
    assert changed <= {str(path), f"{path}.aux.xml"}
    assert (gdal.Open(str(path)).ReadAsArray() == 0).all()


@pytest.mark.parametrize("name", OUTPUTS)
def test_strictly_an_error_changes_nothing(store, tmp_path, name):
    path = target(tmp_path, name)
    with RatZarr(store) as table:
        table.createColumn("big", np.int64)
        table.writeBlock("big", [2**40], 2)
    before = contents(tmp_path)
    with pytest.raises(ConversionError, match="column 'big', row 2"):
        copy_to_raster(store, path, strict=True)
    assert contents(tmp_path) == before


def test_strictly_a_raster_that_another_process_changes_is_left_so(store, tmp_path):
    path = target(tmp_path, "x.tif")
    data = path.read_bytes() + b"more"

    def change(done, message, data_of_call):
        path.write_bytes(data)
        return 1

    with pytest.raises(BridgeError, match="was changed by another process"):
        copy_to_raster(store, path, strict=True, progress=change)
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", OUTPUTS)
def test_strictly_a_killed_process_changes_nothing(store, tmp_path, name):
    path = target(tmp_path, name)
    before = contents(tmp_path)
    code = (
        "import sys, time; from gdalbridge import copy_to_raster\n"
        "def wait(done, message, data):\n"
        "    if done >= 0.5: print('ready', flush=True); time.sleep(60)\n"
        "    return 1\n"
        "copy_to_raster(sys.argv[1], sys.argv[2], strict=True, verify=True, progress=wait)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, store, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        # The table was written to the copy.
        assert process.stdout.readline() == b"ready\n"
        assert list(tmp_path.glob(".ratzarr-*"))
    finally:
        process.kill()
        process.communicate(timeout=20)
    for one, data in before.items():
        assert Path(one).read_bytes() == data
    copy_to_raster(store, path, columns=["id"], strict=True)
    assert not list(tmp_path.glob(".ratzarr-*"))
    assert columns(path)["id"] == [5, 6, 7, 8]


def test_strictly_values_are_compared(store, tmp_path):
    path = target(tmp_path, "x.tif")
    with pytest.raises(BridgeError, match="strict compares all values"):
        copy_to_raster(store, path, strict=True, verify=False)
    done = call("export", store, path, "--strict", "--no-verify")
    assert done.exit_code == 1


def test_strictly_a_raster_that_can_not_be_copied_is_refused(store, tmp_path):
    path = target(tmp_path, "x.tif")
    (tmp_path / "link.tif").symlink_to(path)
    gdal.GetDriverByName("GTiff").Create("/vsimem/strict.tif", 2, 2).FlushCache()
    for raster in (gdal.OpenEx(str(path), gdal.OF_UPDATE), "/vsimem/strict.tif", "s3://b/x.tif"):
        with pytest.raises(BridgeError, match="works on a copy first"):
            copy_to_raster(store, raster, strict=True)
    gdal.Unlink("/vsimem/strict.tif")
    with pytest.raises(BridgeError, match="symbolic link"):
        copy_to_raster(store, tmp_path / "link.tif", strict=True)
    gdal.GetDriverByName("PNG").CreateCopy(str(tmp_path / "x.png"), make("", "MEM"))
    with pytest.raises(RasterNotFoundError, match=rf"^{tmp_path}/x.png can't be opened"):
        copy_to_raster(store, tmp_path / "x.png", strict=True)


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_a_column_that_hfa_changes_is_one_line(lossy_store, tmp_path):
    path = target(tmp_path, "x.img")
    long = "c" * 70
    with RatZarr(lossy_store) as table:
        table.createColumn(long, np.int32)
        table.getColumnAttributeMapping(long)["GDAL_USAGE"] = 5
    done = call("export", lossy_store, path, "--column", "n", "--column", long)
    assert done.exit_code == 0
    assert [line.partition(": the ")[2] for line in done.stderr.splitlines()] == [
        "type of column 'n' became Real, its name 'Histogram'",
        f"name of column '{long}' became '{'c' * 63}', its usage Generic, it was MinMax",
    ]
