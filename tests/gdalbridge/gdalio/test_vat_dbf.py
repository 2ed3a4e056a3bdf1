"""Tables in a .vat.dbf: exact values in every command, from bytes that are written here."""

import json
import os
import re

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal, ogr

import gdalbridge
from gdalbridge import attach, bake, calc, column_stats, copy_to_sidecar, ratapplier
from gdalbridge.cli import main
from gdalbridge.errors import (
    ConversionError,
    GdalError,
    GdalLossError,
    LossWarning,
    NotWrittenError,
)
from gdalbridge.gdalio.rat_reader import bands_with_table, open_rat
from ratzarr import RatZarr
from tests.gdalbridge.dbf_files import cut, write_dbf
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, VERSION, make, new_rat

FIELDS = [
    (b"Value", b"N", 10, 0), (b"Count", b"N", 18, 0), (b"small", b"N", 9, 0),
    (b"big", b"N", 20, 0), (b"part", b"N", 19, 11), (b"sci", b"F", 19, 11),
    (b"CLASS_NAME", b"C", 12, 0), (b"day", b"D", 8, 0), (b"ok", b"L", 1, 0),
]  # fmt: skip
RECORDS = [
    (b"1", b"21345402912", b"-99999999", b"9007199254740993", b"0.1", b"1.00000000000e+300",
     b"Open Water", b"20240229", b"T"),
    (b"3000000000", b"9007199254740993", b"999999999", b"-9223372036854775807", b"-1.5", b"2.5",
     b"  lead", b"00010101", b"f"),
    (None, b"5", b"5", b"5", b"5", b"5", b"5", b"deleted", b"20240101", b"T"),
    (b"4000000000", b"7", b"0", b"0", b"1234567.12345678901", b"-0", b"", b"99991231", b"Y"),
]  # fmt: skip
EXPECTED = {
    "Value": (np.int64, [1, 3000000000, 4000000000]),
    "Count": (np.int64, [21345402912, 9007199254740993, 7]),
    "small": (np.int32, [-99999999, 999999999, 0]),
    "big": (np.int64, [9007199254740993, -9223372036854775807, 0]),
    "part": (np.float64, [0.1, -1.5, 1234567.12345678901]),
    "sci": (np.float64, [1e300, 2.5, -0.0]),
    "CLASS_NAME": (np.dtypes.StringDType(), ["Open Water", "  lead", ""]),
    "day": (np.dtype("M8[us]"), ["2024-02-29", "0001-01-01", "9999-12-31"]),
    "ok": (np.bool_, [True, False, True]),
}


def raster(tmp_path, fields=FIELDS, records=RECORDS, name="seg.tif", **options):
    path = tmp_path / name
    make(path).FlushCache()
    write_dbf(f"{path}.vat.dbf", fields, records, **options)
    return path


def one(tmp_path, field, *cells, **options):
    """A raster whose table has one field."""
    return raster(tmp_path, [field], [(cell,) for cell in cells], **options)


def stored(path, name):
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        attributes = table.getColumnAttributeMapping(name).asdict()
        return table.readBlock(name, 0, table.rowCount), attributes


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_a_copy_has_the_values_of_the_file(tmp_path):
    path = raster(tmp_path)
    assert copy_to_sidecar(path).rows == 3
    with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
        assert table.getColumnNames() == list(EXPECTED)
    for name, (dtype, values) in EXPECTED.items():
        got, _ = stored(path, name)
        assert got.dtype == dtype, name
        assert got.tolist() == np.array(values, dtype).tolist(), name
        if got.dtype.kind == "f":
            assert got.tobytes() == np.array(values).tobytes()


def test_usages_are_those_of_gdal(tmp_path):
    path = raster(tmp_path)
    with open_rat(path) as source:
        usages = {column.name: column.usage for column in source.schema.columns}
        types = {column.name: column.type for column in source.schema.columns}
    assert {name: usage for name, usage in usages.items() if usage} == {
        "Value": gdal.GFU_MinMax, "Count": gdal.GFU_PixelCount, "CLASS_NAME": gdal.GFU_Name,
    }  # fmt: skip
    assert (types["small"], types["Value"], types["CLASS_NAME"]) == (INTEGER, REAL, STRING)
    if VERSION >= (3, 11):
        gdal.PushErrorHandler("CPLQuietErrorHandler")
        dataset = gdal.Open(os.fspath(path))
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
        gdal.PopErrorHandler()
        assert usages == {rat.GetNameOfCol(i): rat.GetUsageOfCol(i) for i in range(9)}


def test_rows_and_values_are_those_of_ogr(tmp_path):
    path = raster(tmp_path)
    layer = ogr.Open(f"{path}.vat.dbf")
    features = list(layer.GetLayer(0))
    with open_rat(path) as source:
        assert len(features) == source.schema.rows
        for index, name in enumerate(("Value", "Count", "small")):
            expected = [feature.GetFieldAsInteger64(name) for feature in features]
            assert source.read(index, 0, 3).tolist() == expected
        for index, name in ((4, "part"), (5, "sci")):
            expected = [feature.GetFieldAsDouble(name) for feature in features]
            assert source.read(index, 0, 3).tolist() == expected
        texts = [feature.GetFieldAsString("CLASS_NAME") for feature in features]
        # OGR drops leading blanks, which are the file's all the same.
        assert [text.lstrip() for text in source.read(6, 0, 3).tolist()] == texts


def test_missing_numbers(tmp_path):
    fields = [(b"i", b"N", 5, 0), (b"l", b"N", 18, 0), (b"f", b"N", 9, 3), (b"t", b"C", 3, 0),
              (b"d", b"D", 8, 0), (b"L", b"L", 1, 0)]  # fmt: skip
    records = [(b"1", b"3000000000", b"1.5", b"x", b"20240101", b"T"), (b"",) * 6]
    path = raster(tmp_path, fields, records)
    copy_to_sidecar(path)
    values, attributes = stored(path, "i")
    assert values.dtype == np.int32
    assert values.tolist() == [1, -(2**31)]
    assert attributes["missing_value"] == -(2**31)
    values, attributes = stored(path, "l")
    assert values.tolist() == [3000000000, -(2**63)]
    assert attributes["missing_value"] == -(2**63)
    values, attributes = stored(path, "f")
    assert values[0] == 1.5
    assert np.isnan(values[1])
    assert "missing_value" not in attributes
    assert stored(path, "t")[0].tolist() == ["x", ""]
    assert np.isnat(stored(path, "d")[0]).tolist() == [False, True]
    # Neither true nor false: as in the file.
    assert stored(path, "L")[0].tolist() == ["T", ""]
    # They count as missing also where nothing was copied.
    os.rename(f"{path}.rat.zarr", tmp_path / "gone")
    found = column_stats(path, ["i", "f"])
    assert [found[name].count for name in ("i", "f")] == [1, 1]
    calc(path, {"twice": "coalesce(i, 7) * 2"})
    assert stored(path, "twice")[0].tolist() == [2, 14]


def test_the_missing_value_is_no_value_of_the_column(tmp_path):
    low = [str(-(2**31) + i).encode() for i in (0, 1, 3)]
    path = one(tmp_path, (b"i", b"N", 11, 0), *low, b"", b"5")
    copy_to_sidecar(path)
    values, attributes = stored(path, "i")
    assert attributes["missing_value"] == -(2**31) + 2
    assert values.tolist() == [*map(int, low), -(2**31) + 2, 5]


@pytest.mark.parametrize("field", [(b"x", b"N", 5, 0), (b"x", b"N", 5, 2), (b"x", b"F", 5, 1)])
def test_asterisks_are_missing_and_said(tmp_path, field):
    path = one(tmp_path, field, b"1", b"*****", b"3")
    with pytest.warns(LossWarning, match=r"column 'x', row 1: 1 values are asterisks"):
        copy_to_sidecar(path)
    values, attributes = stored(path, "x")
    missing = attributes.get("missing_value")
    assert [None if v == missing or v != v else v for v in values.tolist()] == [1, None, 3]


@pytest.mark.parametrize(
    ("field", "cell", "words"),
    [
        ((b"x", b"N", 9, 2), b"1,5", "'1,5' is not a number"),
        ((b"x", b"N", 9, 0), b"0x1", "'0x1' is not a number"),
        ((b"x", b"N", 9, 0), b"1_000", "'1_000' is not a number"),
        ((b"x", b"N", 9, 2), b"1e999", "'1e999' is beyond a 64-bit float"),
        ((b"x", b"N", 30, 0), b"123456789012345678901", "more than 64 bits"),
        ((b"x", b"D", 8, 0), b"20240230", "'20240230' is not a date"),
        ((b"x", b"D", 8, 0), b"2024", "'2024' is not a date"),
    ],
)
def test_what_is_no_number_or_date_is_refused_by_row(tmp_path, field, cell, words):
    path = one(tmp_path, field, b"", cell)
    with pytest.raises(GdalLossError, match=f"(?s)column 'x', row 1: .*{words}.*lossy=True"):
        copy_to_sidecar(path)
    assert not os.path.exists(f"{path}.rat.zarr")
    with pytest.warns(LossWarning, match=words):
        copy_to_sidecar(path, lossy=True)


def test_whole_numbers_with_exponents_are_exact(tmp_path):
    path = one(tmp_path, (b"x", b"N", 30, 0), b"1e3", b"1.5", str(2**70).encode())
    copy_to_sidecar(path)
    assert stored(path, "x")[0].tolist() == [1000.0, 1.5, 2.0**70]


# ---- seen through every door


def test_attach_shows_what_the_copy_has(tmp_path):
    fields, records = FIELDS[:3] + FIELDS[4:], [r[:3] + r[4:] for r in RECORDS if r[0]]
    records[1] = (*records[1][:1], b"5", *records[1][2:])
    path = raster(tmp_path, fields, records)
    with attach(path) as before:
        own = [
            (before.GetNameOfCol(i), before.GetTypeOfCol(i), before.GetUsageOfCol(i),
             before.ReadAsArray(i).tolist(), [before.GetValueAsString(r, i) for r in range(3)])
            for i in range(before.GetColumnCount())
        ]  # fmt: skip
    assert own[0][3] == [1, 3000000000, 4000000000]
    assert own[1][1:4] == (REAL, gdal.GFU_PixelCount, [21345402912, 5, 7])
    assert own[2][1] == INTEGER
    copy_to_sidecar(path)
    with attach(path) as after:
        for index, (name, kind, usage, values, texts) in enumerate(own):
            assert after.GetNameOfCol(index) == name
            assert (after.GetTypeOfCol(index), after.GetUsageOfCol(index)) == (kind, usage)
            assert after.ReadAsArray(index).tolist() == values
            assert [after.GetValueAsString(r, index) for r in range(3)] == texts


def test_attach_refuses_what_a_double_rounds(tmp_path):
    path = raster(tmp_path)
    with attach(path) as rat:
        assert rat.GetValueAsDouble(0, 1) == 21345402912
        with pytest.raises(ConversionError, match=r"row 1: 9007199254740993 .*as_text"):
            rat.ReadAsArray(1)
    with attach(path, as_text=["Count"]) as rat:
        assert rat.GetValueAsString(1, 1) == "9007199254740993"


def test_enabled_programs_see_the_exact_table(tmp_path):
    path = one(tmp_path, (b"Value", b"N", 11, 0), b"4000000000", b"5")
    with gdalbridge.enable():
        dataset = gdal.Open(os.fspath(path))
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
        assert rat.ReadAsArray(0).tolist() == [4000000000, 5]
        assert rat.GetRowOfValue(4000000000.0) == 0
        del dataset
        assert rat.GetValueAsDouble(0, 0) == 4000000000


def test_a_script_reads_the_exact_values(tmp_path):
    path = raster(tmp_path)
    tables = ratapplier.RatAssociations()
    tables.seg = ratapplier.RatHandle(os.fspath(path))
    seen = {}

    def look(info, inputs, outputs):
        seen["count"] = np.array(inputs.seg.Count)
        outputs.seg.twice = inputs.seg.small * 2

    ratapplier.apply(look, tables, tables)
    assert seen["count"].tolist() == EXPECTED["Count"][1]
    assert stored(path, "twice")[0].tolist() == [-199999998, 1999999998, 0]


def test_commands_show_the_exact_values(tmp_path):
    path = raster(tmp_path)
    found = json.loads(call("head", path, "--json").output)
    assert found["columns"]["Count"] == EXPECTED["Count"][1]
    assert found["columns"]["big"] == EXPECTED["big"][1]
    info = json.loads(call("info", path, "--json").output)
    assert [c["name"] for c in info["tables"][0]["columns"]] == list(EXPECTED)
    calc(path, {"c2": "Count - 1"})
    assert stored(path, "c2")[0].tolist() == [v - 1 for v in EXPECTED["Count"][1]]
    assert column_stats(path, ["Count"])["Count"].max == 9007199254740993


def test_bake_keeps_the_values_or_refuses(tmp_path):
    names = [b"Value", b"small", b"part", b"CLASS_NAME"]
    chosen = [i for i, field in enumerate(FIELDS) if field[0] in names]
    records = [[r[i] for i in chosen] for r in RECORDS if r[0] is not None]
    path = raster(tmp_path, [FIELDS[i] for i in chosen], records)
    bake(path, tmp_path / "out.tif", columns=["Value", "small"])
    dataset = gdal.Open(os.fspath(tmp_path / "out.tif"))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    assert rat.ReadAsArray(0).tolist() == [1, 3000000000, 4000000000]
    assert rat.ReadAsArray(1).tolist() == EXPECTED["small"][1]
    path = raster(tmp_path, name="two.tif")
    with pytest.raises(ConversionError, match=r"column 'Count', row 1: 9007199254740993"):
        bake(path, tmp_path / "out2.tif", columns=["Count"])
    assert not os.path.exists(tmp_path / "out2.tif")


def test_export_does_not_hide_the_table(tmp_path):
    path = raster(tmp_path)
    copy_to_sidecar(path)
    assert "vat.dbf" in call("export", path, path, "--column", "small").output
    with pytest.raises(NotWrittenError, match=r"seg\.tif\.vat\.dbf, which a table in the raster"):
        gdalbridge.copy_to_raster(f"{path}.rat.zarr", path, columns=["small"])
    with open_rat(path) as source:
        assert [column.name for column in source.schema.columns] == list(EXPECTED)


# ---- whose table it is


def table_in_raster(path, rows=2):
    dataset = gdal.Open(os.fspath(path), gdal.GA_Update)
    rat = new_rat([("mine", INTEGER, 0, np.arange(rows))], rows)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset.FlushCache()


def names_of(path, band=1):
    with open_rat(path, band) as source:
        return [column.name for column in source.schema.columns]


def gdal_names(path, band=1):
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    dataset = gdal.Open(os.fspath(path))
    rat = dataset.GetRasterBand(band).GetDefaultRAT()
    gdal.PopErrorHandler()
    return None if rat is None else [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]


def test_a_table_in_the_raster_comes_first(tmp_path):
    path = raster(tmp_path)
    table_in_raster(path)
    assert names_of(path) == gdal_names(path) == ["mine"]
    with attach(path) as rat:
        assert rat.GetColumnCount() == 1


def test_a_table_in_aux_xml_comes_first_even_an_empty_one(tmp_path):
    path = raster(tmp_path)
    aux = "<PAMDataset><PAMRasterBand band='1'><GDALRasterAttributeTable/></PAMRasterBand></PAMDataset>"
    path.with_name("seg.tif.aux.xml").write_text(aux)
    assert names_of(path) == gdal_names(path) == []


@pytest.mark.parametrize("ending", ["VAT.DBF", "vat.DBF", "Vat.dbf"])
def test_upper_and_lower_case(tmp_path, ending):
    path = raster(tmp_path)
    os.rename(f"{path}.vat.dbf", f"{path}.{ending}")
    assert names_of(path) == list(EXPECTED)
    if VERSION >= (3, 11):
        assert gdal_names(path) == list(EXPECTED)


def test_every_band_has_it_and_no_other_name_counts(tmp_path):
    path = tmp_path / "seg.tif"
    make(path, bands=3).FlushCache()
    write_dbf(tmp_path / "seg.vat.dbf", FIELDS, RECORDS[:1])
    assert bands_with_table(path) == []
    assert gdal_names(path) is None
    write_dbf(f"{path}.vat.dbf", FIELDS, RECORDS[:1])
    assert bands_with_table(path) == [1, 2, 3]
    if VERSION >= (3, 11):
        assert gdal_names(path, 3) == names_of(path, 3)
    vrt = tmp_path / "seg.vrt"
    gdal.Translate(os.fspath(vrt), os.fspath(path), options="-of VRT -norat").FlushCache()
    write_dbf(f"{vrt}.vat.dbf", FIELDS, RECORDS[:1])
    assert bands_with_table(vrt) == []
    assert gdal_names(vrt) is None


def test_a_dataset_that_the_caller_has_open(tmp_path):
    path = raster(tmp_path)
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    dataset = gdal.Open(os.fspath(path))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    gdal.PopErrorHandler()
    assert copy_to_sidecar(dataset, tmp_path / "x.rat.zarr").rows == 3
    with RatZarr(tmp_path / "x.rat.zarr", readOnly=True) as table:
        assert table.readBlock("Count", 0, 3).tolist() == EXPECTED["Count"][1]
    del rat


def test_a_table_that_the_caller_gave_an_open_dataset(tmp_path):
    path = raster(tmp_path)
    dataset = gdal.Open(os.fspath(path), gdal.GA_Update)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("mine", INTEGER, 0, [1, 2])], 2))
    with attach(dataset) as rat:
        assert [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())] == ["mine"]


def test_text_ends_at_its_first_zero(tmp_path):
    cells = [b"ab\x00cd", b"\x00x", b"abcde", b"a  \x00b"]
    path = one(tmp_path, (b"t", b"C", 5, 0), *cells)
    copy_to_sidecar(path)
    assert stored(path, "t")[0].tolist() == ["ab", "", "abcde", "a"]


def test_long_text_and_many_rows(tmp_path):
    rows = 20_000
    generator = np.random.default_rng(5)
    numbers = generator.integers(-(2**62), 2**62, rows)
    texts = [b"x" * (i % 700) for i in range(rows)]
    # A width beyond 255 has its second byte where decimals are.
    fields = [(b"n", b"N", 20, 0), (b"t", b"C", 700 - 2 * 256, 2)]
    path = tmp_path / "seg.tif"
    make(path).FlushCache()
    write_dbf(f"{path}.vat.dbf", [fields[0], (b"t", b"C", 188, 0)], [])
    width = 1 + 20 + 700
    header = bytearray((tmp_path / "seg.tif.vat.dbf").read_bytes()[:-1])
    header[4:8] = rows.to_bytes(4, "little")
    header[10:12] = width.to_bytes(2, "little")
    header[32 + 32 + 17] = 2
    body = b"".join(
        b" " + str(n).encode().rjust(20) + t.ljust(700)
        for n, t in zip(numbers.tolist(), texts, strict=True)
    )
    (tmp_path / "seg.tif.vat.dbf").write_bytes(bytes(header) + body)
    copy_to_sidecar(path, chunk_rows=3000)
    assert np.array_equal(stored(path, "n")[0], numbers)
    assert stored(path, "t")[0].tolist() == [text.decode() for text in texts]


def test_a_copy_can_be_resumed(tmp_path):
    path = raster(tmp_path)
    copy_to_sidecar(path, columns=["Value"])
    report = copy_to_sidecar(path, resume=True)
    assert report.values_there == 3
    assert stored(path, "Count")[0].tolist() == EXPECTED["Count"][1]


@pytest.mark.main_env_only
def test_on_s3(tmp_path, s3_bucket):
    import boto3

    path = raster(tmp_path)
    client = boto3.client("s3")
    for end in ("", ".vat.dbf"):
        client.upload_file(f"{path}{end}", s3_bucket, f"d/seg.tif{end}")
    name = f"/vsis3/{s3_bucket}/d/seg.tif"
    assert copy_to_sidecar(name).rows == 3
    with RatZarr(f"s3://{s3_bucket}/d/seg.tif.rat.zarr", readOnly=True) as table:
        for column, (dtype, values) in EXPECTED.items():
            got = table.readBlock(column, 0, 3)
            assert got.tolist() == np.array(values, dtype).tolist()


# ---- damaged files


def doors(path):
    """Every way to read the raster's own table."""
    tables = ratapplier.RatAssociations()
    tables.seg = ratapplier.RatHandle(os.fspath(path))
    out = ratapplier.RatAssociations()
    out.t = ratapplier.RatZarrHandle(f"{path}.other.rat.zarr")
    return {
        "copy": lambda: copy_to_sidecar(path),
        "attach": lambda: attach(path),
        "calc": lambda: calc(path, {"new": "small + 1"}),
        "stats": lambda: column_stats(path),
        "bake": lambda: bake(path, f"{path}.baked.tif"),
        "apply": lambda: ratapplier.apply(lambda info, inputs, outputs: None, tables, out),
    }


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_file_that_was_cut_short_is_refused_everywhere(tmp_path, rows):
    path = raster(tmp_path)
    width = 1 + sum(field[2] for field in FIELDS)
    cut(f"{path}.vat.dbf", 33 + 32 * len(FIELDS) + rows * width + min(rows, 1) * 5)
    before = sorted(os.listdir(tmp_path))
    words = f"is truncated: its header says 4 records, and {rows} are whole"
    for name, door in doors(path).items():
        with pytest.raises(GdalLossError, match=words):
            door()
        assert sorted(os.listdir(tmp_path)) == before, name
    for command in (["copy"], ["head"], ["info"], ["stats"], ["calc", "--out", "n", "small"]):
        done = call(command[0], path, *command[1:])
        assert done.exit_code == 1
        assert words in done.output
    with pytest.warns(LossWarning, match="truncated"):
        assert copy_to_sidecar(path, lossy=True).rows == rows
    with pytest.warns(LossWarning, match="truncated"), attach(path, lossy=True) as rat:
        assert rat.GetRowCount() == rows


@pytest.mark.parametrize("size", [0, 10, 32, 100])
def test_a_file_without_its_whole_header_is_refused(tmp_path, size):
    path = raster(tmp_path)
    cut(f"{path}.vat.dbf", size)
    with pytest.raises(GdalError, match=r"seg\.tif\.vat\.dbf is truncated"):
        copy_to_sidecar(path, lossy=True)
    assert call("info", path).exit_code == 1


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = raster(tmp_path)
    with open(f"{path}.vat.dbf", "wb") as file:
        file.write(bytes(500))
    with pytest.raises(GdalError, match="is not a dBASE table"):
        copy_to_sidecar(path)


# ---- encodings


TEXT = "café Ÿ €"


@pytest.mark.parametrize(
    ("encoding", "ldid", "cpg"),
    [
        ("cp1252", 0x03, None), ("iso-8859-15", 0, "ISO-8859-15"), ("utf-8", 0x57, "UTF-8"),
        ("cp1252", 0, "1252"), ("utf-8", 0, None), ("cp1252", 0x02, "ANSI 1252"),
    ],
)  # fmt: skip
def test_the_encoding_that_the_file_declares(tmp_path, encoding, ldid, cpg):
    text = TEXT
    path = raster(
        tmp_path, [("größe".encode(encoding), b"C", 20, 0)], [(text.encode(encoding),)], ldid=ldid
    )
    if cpg:
        path.with_name("seg.tif.vat.cpg").write_text(cpg)
    copy_to_sidecar(path)
    assert stored(path, "größe")[0].tolist() == [text]


def test_the_declared_encoding_travels_with_the_raster(tmp_path):
    path = raster(tmp_path, [(b"t", b"C", 20, 0)], [("café".encode("cp1252"),)])
    path.with_name("seg.tif.vat.cpg").write_text("1252")
    (tmp_path / "there").mkdir()
    gdalbridge.copy_raster(path, tmp_path / "there" / "other.tif")
    with open_rat(tmp_path / "there" / "other.tif") as source:
        assert source.read(0, 0, 1).tolist() == ["café"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "CP437"])
def test_the_encoding_that_is_asked_for(tmp_path, encoding):
    text = "café"
    path = raster(tmp_path, [(b"t", b"C", 20, 0)], [(text.encode(encoding),)], ldid=0x57)
    copy_to_sidecar(path, encoding=encoding)
    assert stored(path, "t")[0].tolist() == [text]
    with attach(path, encoding=encoding) as rat:
        assert rat.GetValueAsString(0, 0) == text


def test_text_of_an_unknown_encoding_is_refused_by_row(tmp_path):
    fields = [(b"t", b"C", 5, 0), (b"n", b"N", 5, 0)]
    path = raster(tmp_path, fields, [(b"ok", b"1"), (b"caf\xe9", b"2")])
    with pytest.raises(ConversionError, match=r"column 't', row 1: b'caf\\xe9' .*encoding="):
        copy_to_sidecar(path)
    done = call("copy", path)
    assert done.exit_code == 1
    assert "--encoding" in done.output
    # Other columns are not concerned.
    copy_to_sidecar(path, columns=["n"])
    assert stored(path, "n")[0].tolist() == [1, 2]
    assert call("copy", path, "--append", "--column", "t", "--encoding", "cp1252").exit_code == 0
    assert stored(path, "t")[0].tolist() == ["ok", "café"]


def test_a_name_of_an_unknown_encoding_hides_nothing(tmp_path):
    fields = [(b"gr\xf6n", b"N", 5, 0), (b"n", b"N", 5, 0)]
    path = raster(tmp_path, fields, [(b"7", b"1")])
    copy_to_sidecar(path)
    assert stored(path, "n")[0].tolist() == [1]
    assert stored(path, r"gr\xf6n")[0].tolist() == [7]
    assert call("stats", path, r"gr\xf6n").exit_code == 0
    copy_to_sidecar(path, append=True, columns=["grün".replace("ü", "ö")], encoding="latin-1")
    assert stored(path, "grön")[0].tolist() == [7]


def test_an_unknown_name_of_an_encoding(tmp_path):
    path = raster(tmp_path)
    for door in (
        lambda: copy_to_sidecar(path, encoding="latin-9-ish"),
        lambda: attach(path, encoding="base64"),
        lambda: ratapplier.RatHandle(os.fspath(path), encoding="latin-9-ish"),
        lambda: bake(path, tmp_path / "o.tif", encoding="latin-9-ish"),
    ):
        with pytest.raises(gdalbridge.BridgeError, match="unknown encoding"):
            door()
    done = call("head", path, "--encoding", "latin-9-ish")
    assert done.exit_code == 1
    assert "unknown encoding 'latin-9-ish'" in done.output


@pytest.mark.parametrize(
    "kind", [b"I", b"B", b"O", b"@", b"+", b"T", b"Y", b"M", b"G", b"P", b"0"]
)
def test_a_field_whose_cells_are_not_text_is_refused_by_name(tmp_path, kind):
    """Even where they look like text; the other columns are read."""
    fields = [(b"Value", b"N", 9, 0), (b"odd", kind, 4, 0), (b"name", b"C", 5, 0)]
    records = [(b"1", b"AAAA", b"a"), (b"2", b"\x01\x00\x00\x80", b"b")]
    path = raster(tmp_path, fields, records)
    words = f"column 'odd': fields of the type '{re.escape(kind.decode())}' can't be read"
    with pytest.raises(GdalLossError, match=words):
        copy_to_sidecar(path)
    assert not (tmp_path / "seg.tif.rat.zarr").exists()
    assert copy_to_sidecar(path, columns=["Value", "name"]).rows == 2
    assert stored(path, "name")[0].tolist() == ["a", "b"]
    done = call("head", path)
    assert done.exit_code == 1
    assert "column 'odd'" in done.stderr
    with pytest.warns(LossWarning, match=words):
        copy_to_sidecar(path, overwrite=True, lossy=True)
    assert stored(path, "odd")[0].tolist() == ["", ""]


@pytest.mark.parametrize("deleted", [False, True])
def test_more_records_than_the_header_says(tmp_path, deleted):
    records = [(b"1",), (b"2",), (None, b"3") if deleted else (b"3",), (b"4",)]
    path = raster(tmp_path, [(b"n", b"N", 9, 0)], records, count=2)
    words = "its header says 2 records, and the file has room for 4"
    for door in (copy_to_sidecar, attach):
        with pytest.raises(GdalLossError, match=words):
            door(path)
    done = call("head", path)
    assert done.exit_code == 1
    assert words in done.stderr
    assert "--lossy" in done.stderr
    with pytest.warns(LossWarning, match=words):
        copy_to_sidecar(path, lossy=True)
    assert stored(path, "n")[0].tolist() == [1, 2]


@pytest.mark.parametrize("tail", [b"", b"\x1a", b"\x1a" + b" " * 40, b"\x00" * 40])
def test_what_comes_after_the_end_of_a_file(tmp_path, tail):
    """An end mark and padding are no records."""
    path = raster(tmp_path, [(b"n", b"N", 9, 0)], [(b"1",), (b"2",)])
    dbf = tmp_path / "seg.tif.vat.dbf"
    dbf.write_bytes(dbf.read_bytes().removesuffix(b"\x1a") + tail)
    copy_to_sidecar(path)
    assert stored(path, "n")[0].tolist() == [1, 2]
