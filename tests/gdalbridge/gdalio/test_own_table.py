"""What GDAL reports of a raster and its table: errors where values are lost, else warnings."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

import gdalbridge
from gdalbridge import attach, bake, calc, column_stats, copy_to_sidecar, ratapplier
from gdalbridge.cli import main
from gdalbridge.errors import ConversionError, GdalLossError, GdalWarning, LossWarning
from gdalbridge.gdalio.rat_reader import open_rat
from gdalbridge.gdalio.read_options import ReadOptions
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import HAS_HFA, INTEGER, STRING, VERSION, make, new_rat

FIELD = '<FieldDefn index="{}"><Name>{}</Name><Type>{}</Type><Usage>{}</Usage></FieldDefn>'


def aux_xml(path, fields, rows, encoding="utf-8", band=1):
    """Write a raster's .aux.xml: rows are (index, values)."""
    text = "".join(FIELD.format(i, *field) for i, field in enumerate(fields))
    for index, values in rows:
        cells = "".join(f"<F>{value}</F>" for value in values)
        text += f'<Row index="{index}">{cells}</Row>'
    text = (
        f'<PAMDataset><PAMRasterBand band="{band}"><GDALRasterAttributeTable>{text}'
        "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>\n"
    )
    path.with_name(f"{path.name}.aux.xml").write_bytes(text.encode(encoding))


def raster(tmp_path, fields, rows, name="seg.tif", **options):
    path = tmp_path / name
    if path.suffix == ".png":
        source = gdal.GetDriverByName("MEM").Create("", 4, 3)
        gdal.GetDriverByName("PNG").CreateCopy(os.fspath(path), source)
    else:
        make(path).FlushCache()
    aux_xml(path, fields, rows, **options)
    return path


def gap(tmp_path, name="seg.tif"):
    """A raster whose table has three rows, of which GDAL keeps two."""
    return raster(tmp_path, [("n", 0, 0)], [(0, [5]), (1, [6]), (98, [7])], name)


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def doors(path, **options):
    """Every way to read the raster's own table."""
    tables, out = ratapplier.RatAssociations(), ratapplier.RatAssociations()
    tables.seg = ratapplier.RatHandle(os.fspath(path), **options)
    out.t = ratapplier.RatZarrHandle(f"{path}.applied.rat.zarr")

    def double(info, inputs, outputs):
        outputs.t.m = inputs.seg.n * 2

    return {
        "copy": lambda: copy_to_sidecar(path, f"{path}.copied.rat.zarr", **options),
        "attach": lambda: attach(path, **options).close(),
        "stats": lambda: column_stats(path, **options),
        "bake": lambda: bake(path, f"{path}.baked.tif", **options),
        "apply": lambda: ratapplier.apply(double, tables, out),
        "calc": lambda: calc(path, {"m": "n * 2"}, **options),
    }


@pytest.mark.parametrize("name", ["seg.tif", "seg.png"])
def test_a_row_that_gdal_drops_is_an_error_everywhere(tmp_path, name):
    if name.endswith("png") and gdal.GetDriverByName("PNG") is None:
        pytest.skip("this GDAL has no PNG driver")
    path = gap(tmp_path, name)
    before = sorted(os.listdir(tmp_path))
    for door, run in doors(path).items():
        with pytest.raises(
            GdalLossError, match=rf"{name}: .*iRow \(98\) out of range.*lossy=True"
        ):
            run()
        assert sorted(os.listdir(tmp_path)) == before, door
    for command in (
        ["copy"], ["head"], ["info"], ["stats"], ["calc", "--out", "m", "n"],
        ["bake", tmp_path / "o.tif"], ["copy", "--all-bands"],
    ):  # fmt: skip
        done = call(command[0], path, *command[1:])
        assert done.exit_code == 1, command
        assert "iRow (98) out of range" in done.output, command
        assert sorted(os.listdir(tmp_path)) == before, command


def test_lossy_reads_what_is_left(tmp_path):
    path = gap(tmp_path)
    for run in doors(path, lossy=True).values():
        with pytest.warns(LossWarning, match=r"iRow \(98\) out of range"):
            run()
    with RatZarr(f"{path}.copied.rat.zarr", readOnly=True) as table:
        assert table.readBlock("n", 0, 9).tolist() == [5, 6]
    with RatZarr(f"{path}.applied.rat.zarr", readOnly=True) as table:
        assert table.readBlock("m", 0, 9).tolist() == [10, 12]


@pytest.mark.filterwarnings("default::gdalbridge.LossWarning")
@pytest.mark.parametrize("command", [
    "copy", "stats",
    pytest.param("head", marks=pytest.mark.thorough),
    pytest.param("info", marks=pytest.mark.thorough),
])  # fmt: skip
def test_commands_take_lossy(tmp_path, command):
    path = gap(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "gdalbridge", command, os.fspath(path), "--lossy"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Once, whoever else looks at the raster in the course of it.
    assert done.stderr.count("iRow (98) out of range") == 1


def test_export_does_not_write_a_table_without_its_lost_rows(tmp_path):
    path = gap(tmp_path)
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(2)
        table.createColumn("new", np.int32)
        table.writeBlock("new", np.arange(2, dtype=np.int32), 0)
    before = path.with_name("seg.tif.aux.xml").read_bytes()
    with pytest.raises(GdalLossError, match="out of range"):
        gdalbridge.copy_to_raster(f"{path}.rat.zarr", path)
    assert "out of range" in call("export", path, path).output
    assert path.with_name("seg.tif.aux.xml").read_bytes() == before
    with pytest.warns(LossWarning, match="out of range"):
        gdalbridge.copy_to_raster(f"{path}.rat.zarr", path, lossy=True)
    with open_rat(path) as source:
        assert [column.name for column in source.schema.columns] == ["n", "new"]


def test_a_dataset_that_was_parsed_already_is_heard_again(tmp_path):
    path = gap(tmp_path)
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    dataset = gdal.Open(os.fspath(path))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    gdal.PopErrorHandler()
    assert rat.GetRowCount() == 2
    for door in (
        lambda: copy_to_sidecar(dataset),
        lambda: attach(dataset),
        lambda: attach(dataset.GetRasterBand(1)),
        lambda: column_stats(dataset),
    ):
        for _ in range(2):
            with pytest.raises(GdalLossError, match="out of range"):
                door()
    with pytest.warns(LossWarning, match="out of range"):
        attach(dataset, lossy=True).close()
    # Mended, it is another file.
    del rat, dataset
    aux_xml(path, [("n", 0, 0)], [(0, [5])])
    dataset = gdal.Open(os.fspath(path))
    assert copy_to_sidecar(dataset).rows == 1


def test_gdals_exceptions_make_no_difference(tmp_path):
    path = gap(tmp_path)
    before = gdal.GetUseExceptions()
    gdal.UseExceptions()
    try:
        for door in (lambda: attach(path), lambda: attach(gdal.Open(os.fspath(path)))):
            with pytest.raises(GdalLossError, match="out of range"):
                door()
        with pytest.warns(LossWarning), attach(path, lossy=True) as rat:
            assert rat.ReadAsArray(0).tolist() == [5, 6]
        assert gdal.GetUseExceptions()
    finally:
        if not before:
            gdal.DontUseExceptions()


def test_programs_that_know_only_gdal(tmp_path):
    path = gap(tmp_path)
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    try:
        with gdalbridge.enable():
            dataset = gdal.Open(os.fspath(path))
            with pytest.raises(GdalLossError, match="out of range"):
                dataset.GetRasterBand(1).GetDefaultRAT()
        with gdalbridge.enable(lossy=True), pytest.warns(LossWarning):
            assert dataset.GetRasterBand(1).GetDefaultRAT().GetRowCount() == 2
    finally:
        gdal.PopErrorHandler()


def test_datasets_in_memory_say_nothing():
    dataset = gdal.GetDriverByName("MEM").Create("", 4, 3)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("n", INTEGER, 0, [1, 2])], 2))
    with open_rat(dataset) as source:
        assert source.read(0, 0, 2).tolist() == [1, 2]
    dataset = gdal.GetDriverByName("MEM").Create("no/such/file.tif", 4, 3)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("n", INTEGER, 0, [1, 2])], 2))
    with open_rat(dataset) as source:
        assert source.schema.rows == 2


def test_a_table_of_another_band_is_heard_too(tmp_path):
    path = tmp_path / "seg.tif"
    make(path, bands=2).FlushCache()
    aux_xml(path, [("n", 0, 0)], [(0, [1]), (5, [2])], band=2)
    with pytest.raises(GdalLossError, match=r"iRow \(5\) out of range"):
        copy_to_sidecar(path, band=2)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, -3])
def test_an_aux_xml_that_was_cut_short_is_no_missing_table(tmp_path, part):
    rows = [(i, [i]) for i in range(50)]
    path = raster(tmp_path, [("n", 0, 0)], rows)
    aux = path.with_name("seg.tif.aux.xml")
    whole = aux.read_bytes()
    aux.write_bytes(whole[: part - 1] if part < 0 else whole[: int(part * len(whole))])
    for door in (copy_to_sidecar, attach, column_stats):
        with pytest.raises(GdalLossError, match=r"seg\.tif\.aux\.xml is damaged: .+lossy=True"):
            door(path)
    for command in ("copy", "head", "info"):
        done = call(command, path)
        assert done.exit_code == 1
        assert "seg.tif.aux.xml is damaged" in done.output


def test_negative_values_and_whole_tables_are_as_they_were(tmp_path):
    rows = [(i, [-(2**31) + i, f"row {i}"]) for i in range(3)]
    path = raster(tmp_path, [("n", 0, 5), ("s", 2, 2)], rows)
    assert copy_to_sidecar(path).rows == 3
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("n", 0, 3).tolist() == [-(2**31), -(2**31) + 1, -(2**31) + 2]


def test_an_aux_xml_without_a_table_is_no_damage(tmp_path):
    path = tmp_path / "seg.tif"
    make(path).FlushCache()
    path.with_name("seg.tif.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="a">b</MDI></Metadata></PAMDataset>'
    )
    with pytest.raises(gdalbridge.BridgeError, match="has no attribute table"):
        copy_to_sidecar(path)


# ---- what is no loss


def odd_tag(path):
    """Give a TIFF a tag that libtiff warns of: a private one."""
    data = bytearray(path.read_bytes())
    place = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[place : place + 2], "little")
    entries = [bytes(data[place + 2 + 12 * i :][:12]) for i in range(count)]
    # A tag with a count that makes no sense for it.
    odd = (65000).to_bytes(2, "little") + (3).to_bytes(2, "little")
    odd += (1).to_bytes(4, "little") + (7).to_bytes(4, "little")
    new = len(data)
    data += (count + 1).to_bytes(2, "little") + b"".join([*entries, odd]) + bytes(4)
    data[4:8] = new.to_bytes(4, "little")
    path.write_bytes(data)


def test_other_words_of_gdal_are_warnings(tmp_path):
    path = raster(tmp_path, [("n", 0, 77)], [(0, [5])])
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    gdal.ErrorReset()
    dataset = gdal.Open(os.fspath(path))
    usage = dataset.GetRasterBand(1).GetDefaultRAT().GetUsageOfCol(0)
    said = gdal.GetLastErrorMsg()
    gdal.PopErrorHandler()
    if not said:
        # Older versions keep the number.
        assert (VERSION < (3, 12), usage) == (True, 77)
        return
    with pytest.warns(GdalWarning, match="seg.tif: .*usage: 77"):
        assert copy_to_sidecar(path).rows == 1


def test_words_on_tags_are_no_errors(tmp_path):
    path = raster(tmp_path, [("n", 0, 0)], [(0, [5])])
    odd_tag(path)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert copy_to_sidecar(path).rows == 1
    assert {one.category for one in found} <= {GdalWarning}


def test_failures_that_concern_no_table_are_no_errors(tmp_path):
    """A second image in a TIFF that can't be read: GDAL calls it an error, and goes on."""
    path = raster(tmp_path, [("n", 0, 0)], [(0, [5])])
    data = bytearray(path.read_bytes())
    place = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[place : place + 2], "little")
    end = place + 2 + 12 * count
    data[end : end + 4] = (len(data) + 10**6).to_bytes(4, "little")
    path.write_bytes(data)
    heard = []
    gdal.PushErrorHandler(lambda level, number, text: heard.append(level))
    dataset = gdal.Open(os.fspath(path))
    dataset.GetRasterBand(1).GetOverviewCount()
    gdal.PopErrorHandler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GdalWarning)
        assert copy_to_sidecar(path).rows == 1


# ---- encodings


def test_text_of_an_aux_xml_in_latin_1(tmp_path):
    rows = [(0, ["ok", 1]), (1, ["café", 2])]
    path = raster(tmp_path, [("naïve", 2, 0), ("n", 0, 0)], rows, encoding="latin-1")
    with pytest.raises(ConversionError, match=r"row 1: b'caf\\xe9' is not UTF-8.*encoding="):
        copy_to_sidecar(path)
    assert not os.path.exists(f"{path}.rat.zarr")
    # The other column can be had, and this one by its escaped name.
    copy_to_sidecar(path, columns=["n"])
    found = call("head", path, "--column", "n")
    assert found.exit_code == 0, found.output
    with open_rat(path) as source:
        assert [column.name for column in source.schema.columns] == [r"na\xefve", "n"]
    assert (
        call("copy", path, "--append", "--column", "naïve", "--encoding", "latin-1").exit_code == 0
    )
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("naïve", 0, 2).tolist() == ["ok", "café"]


def test_attach_decodes_text_and_names(tmp_path):
    rows = [(0, ["ok", 1]), (1, ["prix 5 €", 2])]
    path = raster(tmp_path, [("naïve", 2, 2), ("n", 0, 0)], rows, encoding="cp1252")
    with attach(path, encoding="cp1252") as rat:
        assert [rat.GetNameOfCol(i) for i in (0, 1)] == ["naïve", "n"]
        assert (rat.GetTypeOfCol(0), rat.GetUsageOfCol(0)) == (STRING, 2)
        assert [rat.GetValueAsString(row, 0) for row in (0, 1)] == ["ok", "prix 5 €"]
        assert rat.ReadAsArray(0).tolist() == [b"ok", "prix 5 €".encode()]
        assert rat.ReadAsArray(1).tolist() == [1, 2]
        clone = rat.Clone()
        assert clone.GetValueAsString(1, 0) == "prix 5 €"
    with attach(path, encoding="ascii") as rat, pytest.raises(ConversionError, match="row 1"):
        rat.ReadAsArray(0)


def test_bake_stats_calc_and_apply_decode(tmp_path):
    rows = [(0, ["ok"]), (1, ["café"])]
    path = raster(tmp_path, [("t", 2, 0)], rows, encoding="cp1252")
    bake(path, tmp_path / "o.tif", encoding="cp1252")
    dataset = gdal.Open(os.fspath(tmp_path / "o.tif"))
    assert dataset.GetRasterBand(1).GetDefaultRAT().GetValueAsString(1, 0) == "café"
    calc(path, {"big": "upper(t)"}, encoding="cp1252")
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("big", 0, 2).tolist() == ["OK", "CAFÉ"]
    assert column_stats(path, ["t"], encoding="cp1252")["t"].frequent == (("café", 1), ("ok", 1))
    tables = ratapplier.RatAssociations()
    tables.seg = ratapplier.RatHandle(os.fspath(path), encoding="cp1252")
    seen = []
    ratapplier.apply(
        lambda info, inputs, outputs: seen.extend(np.array(inputs.seg.t).tolist()),
        tables, ratapplier.RatAssociations(),
    )  # fmt: skip
    assert seen == [b"ok", "café".encode()]


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_text_of_an_hfa_file(tmp_path):
    path = tmp_path / "x.img"
    dataset = make(path, "HFA")
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    rat.SetRowCount(2)
    rat.CreateColumn("t", STRING, 0)
    assert rat.WriteArray(np.array([b"ok", "café".encode("cp1252")]), 0) == 0
    del rat
    dataset = None
    with pytest.raises(ConversionError, match=r"row 1: .*encoding="):
        copy_to_sidecar(path)
    assert call("copy", path, "--encoding", "cp1252").exit_code == 0
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.readBlock("t", 0, 2).tolist() == ["ok", "café"]
    with attach(path, encoding="cp1252") as rat:
        index = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())].index("t")
        assert rat.GetValueAsString(1, index) == "café"


def test_encodings_of_more_bytes_than_one(tmp_path):
    path = raster(tmp_path, [("t", 2, 0)], [(0, ["森林"])], encoding="gbk")
    with open_rat(path, options=ReadOptions("gbk")) as source:
        assert source.read(0, 0, 1).tolist() == ["森林"]
        assert source.read_encoded(0, 0, 1).tolist() == ["森林"]
