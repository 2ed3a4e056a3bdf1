"""The table of conversions, held to the code and to GDAL's own constants."""

from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import ConversionError, copy_to_raster, copy_to_sidecar
from gdalbridge.gdalio.field_types import (
    FieldType,
    FieldUsage,
    export_type,
    parse_type,
    stored_dtype,
    type_name,
    usage_name,
)
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import NEW_TYPES, all_kinds, make, new_rat

DOCS = Path(__file__).parents[3] / "docs"


def rows_of(prefix):
    """The rows of the first table in the documentation: from, to, and the condition."""
    text = (DOCS / "conversions.md").read_text(encoding="utf-8")
    table = text.partition("| from | to | |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [tuple(map(str.strip, line.strip("|").split("|"))) for line in table.splitlines()]
    assert len(rows) > 10
    return [row for row in rows if row[0].startswith("GDAL ") == prefix]


def test_gdals_own_numbers():
    for kind in FieldType:
        if NEW_TYPES or kind < FieldType.BOOLEAN:
            assert getattr(gdal, f"GFT_{type_name(kind)}") == kind
    for usage in FieldUsage:
        assert getattr(gdal, f"GFU_{usage_name(usage)}") == usage


def test_from_gdal_as_the_table_says(tmp_path):
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(all_kinds(), 7))
    report = copy_to_sidecar(dataset, tmp_path / "t.rat.zarr")
    said = {one: other for one, other, _ in rows_of(prefix=True)}
    for column in report.columns:
        key = f"GDAL {column.gdal_type}"
        if column.name == "mixed":
            key += ", offsets mixed"
        assert column.dtype == {"bytes": "object"}.get(said[key], said[key]), column


STORED = {
    "bool": np.bool_,
    "str": np.dtypes.StringDType(),
    "fixed-width bytes": "S5",
    "bytes": object,
    "datetime64": "M8[s]",
}


def test_to_gdal_as_the_table_says():
    for names, kind, _ in rows_of(prefix=False)[:-2]:
        for name in names.split(", "):
            dtype = np.dtype(STORED.get(name, name))
            assert type_name(export_type("c", dtype, {})) == kind


@pytest.mark.parametrize(
    ("dtype", "values", "cast", "wanted"),
    [
        ("i8", [1, -(2**31), 2**31 - 1], None, [1, -(2**31), 2**31 - 1]),
        ("u4", [0, 2**31 - 1], None, [0, 2**31 - 1]),
        ("i8", [2**31, -(2**53)], "Real", [2.0**31, -(2.0**53)]),
        ("i8", [2**63 - 1], "String", ["9223372036854775807"]),
        ("f8", [1.0, -5.0], "Integer", [1, -5]),
        ("f4", [0.1], None, [float(np.float32(0.1))]),
        ("f2", [65504], None, [65504.0]),
        ("?", [True, False], "Integer", [1, 0]),
        ("f8", [0.1, 1e300], "String", ["0.1", "1e+300"]),
        ("S5", [b"gr\xc3\xb6", b""], None, ["grö", ""]),
        ("M8[s]", ["2020-01-01T00:00:01", "NaT"], "String", ["2020-01-01T00:00:01", ""]),
    ],
)
def test_values_that_are_equal(tmp_path, dtype, values, cast, wanted):
    store = write(tmp_path, dtype, values)
    target = make("", "MEM")
    copy_to_raster(store, target, cast={"c": cast} if cast else None)
    rat = target.GetRasterBand(1).GetDefaultRAT()
    get = [rat.GetValueAsInt, rat.GetValueAsDouble, rat.GetValueAsString][rat.GetTypeOfCol(0)]
    assert [get(row, 0) for row in range(len(values))] == wanted


@pytest.mark.parametrize(
    ("dtype", "values", "cast", "message"),
    [
        (
            "i8",
            [0, 2**31],
            None,
            r"column 'c', row 1: 2147483648 does not fit int32 .*Real or String",
        ),
        ("u4", [2**32 - 1], None, r"row 0: 4294967295 does not fit"),
        ("i8", [2**53 + 1], "Real", r"row 0: 9007199254740993 is not a float64"),
        ("f8", [1.5], "Integer", r"row 0: 1.5 is not an integer"),
        ("f8", [np.nan], "Integer", r"row 0: nan is not an integer"),
        ("i4", [2], "Boolean", r"row 0: 2 is neither|before 3.12"),
        ("S5", [b"ok", b"\xff"], None, r"row 1: .* is not UTF-8"),
        (np.dtypes.StringDType(), ["ok", "a\x00b"], None, r"row 1: GDAL would cut 'a.x00b'"),
        ("i4", [1], "DateTime", r"can't be DateTime in GDAL"),
        ("i4", [1], "Decimal", r"'Decimal' is no type"),
        (np.dtypes.StringDType(), ["1"], "Integer", r"can't be Integer"),
    ],
)
def test_values_that_are_not(tmp_path, dtype, values, cast, message):
    store = write(tmp_path, dtype, values)
    target = make("", "MEM")
    with pytest.raises(ConversionError, match=message):
        copy_to_raster(store, target, cast={"c": cast} if cast else None)
    # The raster is as it was.
    assert target.GetRasterBand(1).GetDefaultRAT() is None


@pytest.mark.skipif(not NEW_TYPES, reason="DateTime came with GDAL 3.12")
@pytest.mark.parametrize(
    ("values", "attributes", "message"),
    [
        (["2020-01-01T00:00:59.123457"], {}, "row 0: .* finer than GDAL's seconds"),
        (["10000-01-01"], {}, "row 0: .* outside the years 1 to 9999"),
        (["0000-12-31"], {}, "row 0: .* outside the years 1 to 9999"),
        (["2020-01-01"], {"UTC_OFFSET_MINUTES": 7}, "row 0: .* offset"),
        (["2020-01-01"], {"UTC_OFFSET_MINUTES": 25 * 60}, "row 0: .* offset"),
    ],
)
def test_date_times_that_gdal_does_not_have(tmp_path, values, attributes, message):
    store = write(tmp_path, "M8[us]", values, attributes)
    with pytest.raises(ConversionError, match=message):
        copy_to_raster(store, make("", "MEM"))


@pytest.mark.skipif(NEW_TYPES, reason="GDAL 3.12 and later have them")
@pytest.mark.parametrize("dtype", ["?", "M8[s]", "bytes"])
def test_types_that_old_gdal_does_not_have(tmp_path, dtype):
    store = write(tmp_path, dtype, [])
    with pytest.raises(ConversionError, match=r"GDAL before 3\.12 has no type"):
        copy_to_raster(store, make("", "MEM"))


def write(folder, dtype, values, attributes=None):
    store = folder / "t.rat.zarr"
    with RatZarr(store) as table:
        table.setRowCount(len(values))
        table.createColumn("c", dtype, attributes=attributes)
        if len(values):
            table.writeBlock("c", np.array(values, dtype), 0)
    return store


def test_colour_usages_are_integers(tmp_path):
    store = write(tmp_path, "f8", [0.5], {"GDAL_USAGE": FieldUsage.RED.value})
    with pytest.raises(ConversionError, match="usage Red GDAL would make it Integer"):
        copy_to_raster(store, make("", "MEM"))


@pytest.mark.parametrize("name", ["Integer", "integer", "REAL", "WKBGeometry", 2])
def test_types_by_name(name):
    assert parse_type(name) in FieldType


def test_every_type_has_a_dtype():
    assert [stored_dtype(kind).kind for kind in FieldType] == list("ifTbMO")
