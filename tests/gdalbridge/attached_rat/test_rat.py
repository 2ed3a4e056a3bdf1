"""The attached table says of every cell what a table of GDAL's with the same values says."""

import gc
import inspect
import math
import struct
import subprocess
import sys

import numpy as np
import pytest
from osgeo import gdal, gdal_array

from gdalbridge import AttachedRAT, LossWarning, StaleWarning, attach
from gdalbridge.attached_rat.attached_table import AttachedTable
from gdalbridge.attached_rat.gdal_rat import open_own_rat
from gdalbridge.attached_rat.rat import RowFinder
from gdalbridge.attached_rat.sidecar_table import SidecarTable
from gdalbridge.errors import (
    BridgeError,
    ConversionError,
    RasterNotFoundError,
    SidecarNameError,
)
from gdalbridge.gdalio.read_options import DEFAULTS
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import (
    BOOLEAN,
    DATETIME,
    HAS_HFA,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    WKB,
    all_kinds,
    describe,
    make,
    new_rat,
    utc,
)

new_types = pytest.mark.skipif(not NEW_TYPES, reason="came with GDAL 3.12")
TEXT = np.dtypes.StringDType()


def raster(path, columns=(), rows=0, **options):
    dataset = make(path, **options)
    if columns:
        dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, rows))
    dataset.FlushCache()
    del dataset
    return str(path)


def sidecar(path, columns, rows, *, chunk=None, name=""):
    """Columns are (name, dtype, values, attributes)."""
    with RatZarr(f"{path}{name}.rat.zarr") as table:
        table.setRowCount(rows)
        if chunk:
            table.setChunkSize(chunk)
        for key, dtype, values, attributes in columns:
            if not isinstance(values, np.ndarray):
                values = np.array(values, dtype)
            width = values.shape[1] if values.ndim == 2 else 1
            kind = bytes if dtype is object else dtype
            table.createColumn(key, kind, width, attributes=attributes)
            table.writeBlock(key, values, 0)


def names(rat):
    return [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]


def outcome(call, *args):
    """What a call returns, to the last bit, or what it raises."""
    try:
        found = call(*args)
    except Exception as error:
        return type(error)
    if isinstance(found, float):
        return struct.pack("d", found)
    if isinstance(found, np.ndarray):
        return found.dtype, found.tobytes() if found.dtype.kind != "O" else found.tolist()
    if isinstance(found, (bytearray, memoryview)):
        return bytes(found)
    if isinstance(found, list):
        return [struct.pack("d", v) if isinstance(v, float) else v for v in found]
    return found


@pytest.fixture(params=[True, False], ids=["exceptions", "no exceptions"])
def exceptions(request):
    before = gdal.GetUseExceptions()
    (gdal.UseExceptions if request.param else gdal.DontUseExceptions)()
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    yield request.param
    gdal.PopErrorHandler()
    (gdal.UseExceptions if before else gdal.DontUseExceptions)()


# ---- every method


def test_every_method_of_gdals_class_is_ours():
    ours, theirs = vars(AttachedRAT), vars(gdal.RasterAttributeTable)
    methods = {name for name in theirs if not name.startswith("_") and callable(theirs[name])}
    assert len(methods) >= 24
    assert methods <= set(ours)
    # Nothing lies below that a method which GDAL adds later could reach by accident.
    assert "__init__" in ours


def test_it_is_a_rat_and_cpp_is_not_handed_an_empty_one(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("n", "i4", [1, 2], {})], 2)
    rat = attach(path)
    assert isinstance(rat, gdal.RasterAttributeTable)
    memory = make("", "MEM")
    target = memory.GetRasterBand(1)
    for call in (
        lambda: target.SetDefaultRAT(rat),
        lambda: gdal.RasterAttributeTable.GetColumnCount(rat),
        lambda: gdal_array.RATReadArray(rat, 0),
        lambda: gdal_array.RATWriteArray(rat, np.zeros(2, int), 0),
    ):
        with pytest.raises(TypeError, match="RasterAttributeTable"):
            call()
    target.SetDefaultRAT(rat.Clone())
    assert describe(memory.GetRasterBand(1).GetDefaultRAT()) == describe(rat)


def test_methods_can_be_called_by_the_names_of_their_arguments(tmp_path):
    path = raster(tmp_path / "a.tif", [("n", INTEGER, 0, [4, 5, 6])], 3)
    rat = attach(path)
    assert rat.ReadAsArray(field=0, start=1, length=2).tolist() == [5, 6]
    for name in ("ReadAsArray", "WriteArray"):
        theirs = inspect.signature(getattr(gdal.RasterAttributeTable, name))
        ours = inspect.signature(getattr(AttachedRAT, name))
        assert [*theirs.parameters] == [*ours.parameters]


# ---- conversions

NUMBERS = [0, 1, -1, 7, 2**31 - 1, -(2**31), 42]
DOUBLES = [
    0.0,
    -0.0,
    1.5,
    -2.7,
    math.nan,
    math.inf,
    -math.inf,
    1e300,
    5e-324,
    2.0**31,
    2.0**53,
    0.1,
]
TEXTS = ["", "abc", "1e5", " 12", "-7", "99999999999999999999", "nan", "true", "false", "1.5",
         "größe 🛰", "2020-01-02T03:04:05Z", "POINT (1 2)"]  # fmt: skip
TIMES = ["2020-01-02T03:04:05.678+02:00", "", "1969-12-31T23:59:59Z", "2021-06-07T08:09:10"]
POINT = struct.pack("<BIdd", 1, 1, 1.0, 2.0)

STORED = {
    "int8": ("i1", INTEGER, [0, 1, -128, 127], {}),
    "uint16": ("u2", INTEGER, [0, 1, 65535], {}),
    "int32": ("i4", INTEGER, NUMBERS, {}),
    "int32, Real": ("i4", REAL, NUMBERS, {"GDAL_TYPE": 1}),
    "uint32": ("u4", REAL, [0, 2**32 - 1], {}),
    "int64": ("i8", REAL, [0, -(2**53), 2**53, 2**60], {}),
    "uint64": ("u8", REAL, [0, 2**53, 2**63], {}),
    "float16": ("f2", REAL, [0.0, -0.0, 65504.0, math.inf], {}),
    "float32": ("f4", REAL, [0.1, 3.4e38, math.nan], {}),
    "float64": ("f8", REAL, DOUBLES, {}),
    "str": (TEXT, STRING, TEXTS, {}),
    "bytes of 12": ("S12", STRING, [b"", b"abc", b"1e5", "größe".encode()], {}),
    "bool": ("?", BOOLEAN if NEW_TYPES else INTEGER, [True, False], {}),
    "bool, Integer": ("?", INTEGER, [True, False], {"GDAL_TYPE": 0}),
}
if NEW_TYPES:
    STORED |= {
        "str, DateTime": (TEXT, DATETIME, TIMES, {"GDAL_TYPE": 4}),
        "datetime64": ("M8[us]", DATETIME, ["2020-01-02T03:04:05.678Z", ""], {}),
        "datetime64, no zone": (
            "M8[ms]", DATETIME, ["2020-01-02T03:04:05.678"], {"UTC_OFFSET_MINUTES": None}
        ),
        "bytes": (object, WKB, [b"", POINT, b"\x00\x01junk"], {}),
    }  # fmt: skip


def stored_values(dtype, kind, values):
    if kind == DATETIME and dtype is not TEXT:
        return np.array([v.removesuffix("Z") or "NaT" for v in values], "M8[us]").astype(dtype)
    if dtype is object:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    return np.array(values, dtype)


GETTERS = [
    name for name in (
        "GetValueAsString", "GetValueAsInt", "GetValueAsDouble", "GetValueAsBoolean",
        "GetValueAsDateTime", "GetValueAsWKBGeometry",
    ) if hasattr(gdal.RasterAttributeTable, name)
]  # fmt: skip
BLOCKS = [
    name for name in (
        "ReadValuesIOAsString", "ReadValuesIOAsInteger", "ReadValuesIOAsDouble",
        "ReadValuesIOAsBoolean",
    ) if hasattr(gdal.RasterAttributeTable, name)
]  # fmt: skip


@pytest.mark.parametrize("stored", STORED)
def test_every_cell_is_read_as_gdal_reads_it(tmp_path, stored, exceptions):
    dtype, kind, values, attributes = STORED[stored]
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("c", dtype, stored_values(dtype, kind, values), attributes)], len(values))
    given = values
    if np.dtype(dtype).kind == "f":
        given = np.array(values, dtype).astype("f8")
    if np.dtype(dtype).kind == "S":
        given = [value.decode() for value in values]
    expected = new_rat([("c", kind, 0, given)], len(values))
    rat = attach(path)
    assert rat.GetTypeOfCol(0) == kind
    for row in range(-1, len(values) + 2):
        for name in GETTERS:
            theirs, ours = getattr(expected, name), getattr(rat, name)
            assert outcome(ours, row, 0) == outcome(theirs, row, 0), (name, row)
    assert outcome(rat.ReadAsArray, 0) == outcome(expected.ReadAsArray, 0)
    for name in BLOCKS:
        theirs, ours = getattr(expected, name), getattr(rat, name)
        # Of no rows, GDAL's raise a TypeError.
        for start, length in ((0, len(values)), (len(values) - 1, 1)):
            assert outcome(ours, 0, start, length) == outcome(theirs, 0, start, length), name


SETTERS = {
    "SetValueAsInt": NUMBERS,
    "SetValueAsDouble": [v for v in DOUBLES if abs(v) < 2**31],
    "SetValueAsString": [*TEXTS, *TIMES],
    "SetValueAsBoolean": [True, False],
    "SetValueAsDateTime": [
        utc(2020, 1, 2, 3, 4, 5, 678000, offset=90), utc(1, 1, 1), utc(9999, 12, 31), None,
        utc(2020, 1, 2, 3, 4, 5).replace(tzinfo=None),
    ],
    "SetValueAsWKBGeometry": [b"", POINT],
}  # fmt: skip
KINDS = [INTEGER, REAL, STRING] + ([BOOLEAN, DATETIME, WKB] if NEW_TYPES else [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setter", [n for n in SETTERS if hasattr(gdal.RasterAttributeTable, n)])
def test_every_cell_is_written_as_gdal_writes_it(tmp_path, kind, setter):
    path = raster(tmp_path / "a.tif")
    values = SETTERS[setter]
    expected = new_rat([("c", kind, 0, None)], len(values))
    with attach(path, update=True) as rat:
        assert rat.CreateColumn("c", kind, 0) == 0
        rat.SetRowCount(len(values))
        refused = []
        for row, value in enumerate(values):
            found, wanted = (
                outcome(getattr(one, setter), row, 0, value) for one in (rat, expected)
            )
            assert (found == wanted) or inspect.isclass(found), value
            refused += [row] if inspect.isclass(found) else []
        written = describe(rat)
    kept = describe(attach(path))
    assert kept == written
    for row in range(len(values)):
        if row not in refused:
            assert kept["columns"][0][3][row] == describe(expected)["columns"][0][3][row], row


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_written_as_gdal_writes_them(tmp_path, kind):
    path = raster(tmp_path / "a.tif")
    arrays = [
        np.array([1, 2, 3], "i2"), np.array([1, 0, 1], "?"), np.array([1.0, 0.0, 1.0], "f4"),
        np.array([b"1", b"22", b""]),
    ]  # fmt: skip
    if kind == BOOLEAN:
        # Of 2, GDAL makes True: here it is refused.
        arrays[0] = np.array([1, 0, 1], "i2")
    if kind == DATETIME:
        arrays = [np.array([v.encode() for v in TIMES])]
    if kind == WKB:
        arrays = [stored_values(object, WKB, [b"", POINT])]
    with attach(path, update=True) as rat:
        rat.CreateColumn("c", kind, 0)
        rat.SetRowCount(4)
        for array in arrays:
            expected = new_rat([("c", kind, 0, None)], 4)
            if outcome(expected.WriteArray, array, 0, 0) == 0:
                assert rat.WriteArray(array, 0) == 0
                rows = slice(0, len(array))
                ours, theirs = (describe(one)["columns"][0][3][rows] for one in (rat, expected))
                assert ours == theirs, array


def test_arrays_are_exact_or_refused(tmp_path):
    path = raster(tmp_path / "a.tif")
    with attach(path, update=True) as rat:
        rat.CreateColumn("n", INTEGER, 0)
        rat.CreateColumn("s", STRING, 0)
        rat.SetRowCount(3)
        for array in ([0, 2**31, 0], [0.0, 0.5, 0.0], [0.0, math.nan, 0.0]):
            with pytest.raises(ConversionError, match="row 1"):
                rat.WriteArray(np.array(array), 0)
        rat.WriteArray(np.array(["größe", "x", ""]), 1)
        rat.WriteArray(np.array([2.0, 3.0]), 0, 1)
        assert rat.ReadAsArray(0).tolist() == [0, 2, 3]
        assert rat.GetValueAsString(0, 1) == "größe"
        for array, start, message in (
            (np.zeros(4), 0, "too big"), (np.zeros(2), 2, "too big"), (np.zeros((1, 1)), 0, "dim 1"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                rat.WriteArray(array, 0, start)


@new_types
def test_bytes_of_fixed_width_are_text_for_a_geometry(tmp_path):
    """An array of them has lost the zeros at the end of a value."""
    origin = struct.pack("<BIdd", 1, 1, 0.0, 0.0)
    texts = np.array([b"POINT (1 2)", b""])
    expected = new_rat([("w", WKB, 0, [b"", b""])], 2)
    expected.WriteArray(texts, 0)
    path = raster(tmp_path / "a.tif")
    with attach(path, update=True) as rat:
        rat.CreateColumn("w", WKB, 0)
        rat.SetRowCount(2)
        rat.WriteArray(texts, 0)
        assert describe(rat)["columns"] == describe(expected)["columns"]
        with pytest.raises(ConversionError, match=r"row 1: .* is not WKT"):
            rat.WriteArray(np.array([origin]), 0, 1)
        rat.WriteArray(np.array([origin, b"x"], object), 0)
        assert rat.GetValueAsWKBGeometry(0, 0) == origin


# ---- what GDAL has no type for


def test_integers_that_no_double_holds_are_refused_and_can_be_seen_as_text(tmp_path):
    path = raster(tmp_path / "a.tif")
    values = [1, 2**53 + 1, -(2**60) - 1]
    sidecar(path, [("id", "i8", values, {}), ("u", "u8", [0, 2**64 - 1, 5], {})], 3)
    rat = attach(path)
    # The rows beside it can be read.
    assert rat.GetValueAsDouble(0, 0) == 1.0
    for row, column in ((1, 0), (2, 0), (1, 1)):
        with pytest.raises(ConversionError, match=rf"row {row}.*as_text"):
            rat.GetValueAsDouble(row, column)
    with pytest.raises(ConversionError, match="row 1"):
        rat.ReadAsArray(0)
    rat = attach(path, as_text=["id", "u"], update=True)
    assert rat.GetTypeOfCol(0) == STRING
    assert rat.ReadAsArray(0).tolist() == [str(v).encode() for v in values]
    assert rat.GetValueAsString(1, 1) == str(2**64 - 1)
    rat.SetValueAsString(0, 1, str(2**63))
    with pytest.raises(ConversionError, match="'x'"):
        rat.SetValueAsString(0, 0, "x")
    assert rat.GetValueAsString(0, 0) == "1"
    rat.close()
    with RatZarr(f"{path}.rat.zarr") as table:
        assert table.readBlock("u", 0, 3).tolist() == [2**63, 2**64 - 1, 5]


def test_values_per_row_are_columns_of_their_own(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("rgb", "u1", np.arange(12).reshape(4, 3), {"GDAL_USAGE": 0})], 4)
    with attach(path, update=True) as rat:
        assert names(rat) == ["rgb[0]", "rgb[1]", "rgb[2]"]
        assert rat.ReadAsArray(1).tolist() == [1, 4, 7, 10]
        rat.SetValueAsInt(2, 1, 99)
        rat.WriteArray(np.array([7, 7]), 0, 1)
        with pytest.raises(ConversionError, match="300"):
            rat.SetValueAsInt(2, 1, 300)
    with RatZarr(f"{path}.rat.zarr") as table:
        expected = [[0, 1, 2], [7, 4, 5], [7, 99, 8], [9, 10, 11]]
        assert table.readBlock("rgb", 0, 4).tolist() == expected


def test_what_can_not_be_shown_is_left_out_with_a_warning(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("n", "i4", [1, 2], {}), ("wide", "i4", np.zeros((2, 101)), {})], 2)
    with RatZarr(f"{path}.rat.zarr") as table:
        table.createColumn("half", "i4", complete=False)
    rat = attach(path)
    with pytest.warns(LossWarning) as warned:
        assert names(rat) == ["n"]
    said = " ".join(str(one.message) for one in warned)
    assert "'wide' is left out: it has 101" in said
    assert "'half' is left out: it is not complete" in said


@pytest.mark.parametrize(
    "texts",
    [
        [f"größe {n} 🛰" for n in range(300)],
        ["", "é", "", "€€", "a" * 5, ""],
        # One that is long, and would make all others as long.
        ["é", *["x"] * 500, "ü" * 3000],
    ],
)
def test_blocks_of_text_are_gdals_utf8(tmp_path, texts):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("t", TEXT, texts, {})], len(texts))
    expected = new_rat([("t", STRING, 0, texts)], len(texts))
    rat = attach(path)
    for length in (1, 2, len(texts)):
        assert outcome(rat.ReadAsArray, 0, 0, length) == outcome(
            expected.ReadAsArray, 0, 0, length
        )


def test_text_that_gdal_cuts_is_said(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("s", TEXT, np.array(["a\0b", "c"], TEXT), {})], 2)
    rat = attach(path)
    with pytest.warns(LossWarning, match="row 0.*zero character"):
        assert rat.GetValueAsString(0, 0) == "a"


@new_types
def test_date_times_that_gdal_can_not_hold(tmp_path):
    path = raster(tmp_path / "a.tif")
    times = np.array(["2020-01-01T00:00:59.123456", "2020-01-01T00:00:00.5", "NaT"], "M8[us]")
    far = np.array(["0000-01-01", "12020-01-01", "2020-01-01"], "M8[D]")
    sidecar(path, [("t", "M8[us]", times, {}), ("far", "M8[D]", far, {})], 3)
    rat = attach(path)
    with pytest.warns(LossWarning, match="row 0.*not as fine"):
        assert rat.GetValueAsString(0, 0) == "2020-01-01T00:00:59.123+00:00"
    assert rat.GetValueAsDateTime(1, 0) == utc(2020, 1, 1, 0, 0, 0, 500000)
    assert rat.GetValueAsDateTime(2, 0) is None
    for row in (0, 1):
        with pytest.raises(ConversionError, match=f"row {row}.*years"):
            rat.GetValueAsString(row, 1)
    assert rat.GetValueAsString(2, 1).startswith("2020-01-01T")
    assert attach(path, as_text=["far"]).ReadAsArray(1).tolist() == [
        b"0000-01-01", b"12020-01-01", b"2020-01-01",
    ]  # fmt: skip


@pytest.mark.skipif(NEW_TYPES, reason="before GDAL 3.12")
def test_types_that_old_versions_lack(tmp_path):
    path = raster(tmp_path / "a.tif")
    times = np.array(["2020-01-01T00:00:59.123", "NaT"], "M8[ms]")
    raw = stored_values(object, None, [b"\x01\xff", b""])
    sidecar(path, [("t", "M8[ms]", times, {}), ("b", "?", [True, False], {}),
                   ("o", object, raw, {})], 2)  # fmt: skip
    rat = attach(path)
    assert [rat.GetTypeOfCol(i) for i in range(3)] == [STRING, INTEGER, STRING]
    assert rat.ReadAsArray(0).tolist() == [b"2020-01-01T00:00:59.123", b""]
    assert rat.ReadAsArray(1).tolist() == [1, 0]
    assert rat.GetValueAsString(0, 2) == "01ff"
    with attach(path, update=True) as rat, pytest.raises(ConversionError, match="no type"):
        rat.CreateColumn("x", 4, 0)


# ---- joining


# Newer versions know no other usages than their own, and say so.
@pytest.mark.filterwarnings("ignore:.*field usage. 77:gdalbridge.errors.GdalWarning")
def test_all_that_a_raster_has_is_seen_unchanged(tmp_path):
    columns = all_kinds()
    path = raster(tmp_path / "a.tif", columns, 7)
    dataset = gdal.Open(path)
    expected = dataset.GetRasterBand(1).GetDefaultRAT()
    # As other columns come after its own, and more rows.
    copied = {"PROVENANCE": {"operation": "copy"}}
    sidecar(path, [("n", "i4", list(range(9)), copied)], 9)
    rat = attach(path)
    theirs, ours = describe(expected), describe(rat)
    empty = new_rat([(name, kind, 0, None) for name, kind, *_ in columns], 2)
    assert ours["rows"] == 9
    for index, column in enumerate(theirs["columns"]):
        beyond = describe(empty)["columns"][index][3]
        assert ours["columns"][index][:3] == column[:3]
        assert ours["columns"][index][3] == [*column[3], *beyond], column[:3]
        for start, length in ((0, 7), (3, 2), (6, 1), (0, 0)):
            whole = expected.ReadAsArray(index)[start : start + length].tolist()
            if column[1] == REAL:
                whole = [struct.pack("d", v) for v in whole]
            read = rat.ReadAsArray(index, start, length).tolist()
            if column[1] == REAL:
                read = [struct.pack("d", v) for v in read]
            assert read == whole
    assert rat.ReadAsArray(0, 6, 3).tolist() == [expected.GetValueAsInt(6, 0), 0, 0]
    assert rat.ReadAsArray(2, 8, 1).tolist() == [b""]
    assert ours["columns"][-1][3] == list(range(9))


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
@pytest.mark.parametrize("rows", [5, 400_000])
def test_tables_that_formats_write_through_are_left_alone(tmp_path, rows):
    """Above a million cells such a table can't be cloned."""
    path = str(tmp_path / "a.img")
    dataset = make(path, "HFA")
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    for name in "xyz":
        rat.CreateColumn(name, REAL, 0)
    rat.SetRowCount(rows)
    rat.WriteArray(np.arange(rows) / 3, 1)
    del rat, dataset
    with open(path, "rb") as file:
        before = file.read()
    dataset = gdal.Open(path)
    own = attach(dataset.GetRasterBand(1), update=True)
    del dataset
    gc.collect()
    assert own.ReadAsArray(1).tolist() == (np.arange(rows) / 3).tolist()
    assert own.ReadAsArray(1, rows - 3, 2).tolist() == (np.arange(rows - 3, rows - 1) / 3).tolist()
    assert own.GetValueAsDouble(rows - 1, 1) == (rows - 1) / 3
    own.CreateColumn("new", INTEGER, 0)
    own.SetValueAsInt(rows - 1, 3, 5)
    own.close()
    again = attach(path)
    assert names(again) == ["x", "y", "z", "new"]
    assert again.GetValueAsInt(rows - 1, 3) == 5
    again.close()
    with open(path, "rb") as file:
        assert file.read() == before


def test_order_precedence_and_choice(tmp_path):
    own = [("a", INTEGER, 0, [1, 1, 1]), ("b", REAL, 1, [2, 2, 2]), ("a", INTEGER, 0, [3, 3, 3])]
    path = raster(tmp_path / "a.tif", own, 3)
    sidecar(path, [("b", "f8", [5, 5], {"GDAL_USAGE": 1}), ("new", "i4", [6, 6], {})], 2)
    sidecar(path, [("new", "i4", [7], {}), ("z", "i4", [8], {}), ("a", "i4", [9], {}),
                   ("a 2", "i4", [10], {"GDAL_NAME": "a"})], 1, name=".more")  # fmt: skip

    def first_row(**how):
        rat = attach(path, **how)
        return [
            (rat.GetNameOfCol(i), rat.GetValueAsInt(0, i)) for i in range(rat.GetColumnCount())
        ]

    rest = [("new", 6), ("z", 8)]
    assert first_row() == [("a", 9), ("b", 5), ("a", 10), *rest]
    assert first_row(prefer="raster") == [("a", 1), ("b", 2), ("a", 3), *rest]
    assert first_row(names=["more"]) == [("a", 9), ("b", 2), ("a", 10), ("new", 7), ("z", 8)]
    assert first_row(names=[None]) == [("a", 1), ("b", 5), ("a", 3), ("new", 6)]
    rat = attach(path)
    # Row counts: the longest; what is shorter ends in GDAL's empty values.
    assert rat.GetRowCount() == 3
    assert rat.ReadAsArray(1).tolist() == [5, 5, 0]
    assert rat.ReadAsArray(4).tolist() == [8, 0, 0]
    assert rat.GetColOfUsage(gdal.GFU_PixelCount) == 1
    assert rat.GetColOfUsage(gdal.GFU_Alpha) == -1


def test_wrong_arguments_are_said(tmp_path):
    path = raster(tmp_path / "a.tif")
    with pytest.raises(BridgeError, match="no sidecar 'x'"):
        attach(path, names=["x"])
    with pytest.raises(BridgeError, match="list of names"):
        attach(path, names="x")
    with pytest.raises(BridgeError, match="prefer"):
        attach(path, prefer="both")
    with pytest.raises(RasterNotFoundError, match="has 1 band,"):
        attach(path, 2)
    with pytest.raises(RasterNotFoundError):
        attach(tmp_path / "no.tif")
    with pytest.raises(SidecarNameError):
        attach(make("", "MEM"))


def test_a_closed_table_says_so(tmp_path):
    path = raster(tmp_path / "a.tif", [("n", INTEGER, 0, [1])], 1)
    rat = attach(path)
    assert rat.GetValueAsInt(0, 0) == 1
    rat.close()
    rat.close()
    for call in (rat.GetRowCount, rat.GetColumnCount, lambda: rat.GetValueAsInt(0, 0),
                 lambda: rat.ReadAsArray(0)):  # fmt: skip
        with pytest.raises(BridgeError, match="closed"):
            call()


# ---- rows of values


@pytest.mark.parametrize("usages", [(5, None), (3, 4), (3, None), (None, 4), (None, None)])
@pytest.mark.parametrize("kind", [INTEGER, REAL, STRING])
def test_rows_are_found_by_value_as_gdal_finds_them(tmp_path, usages, kind, exceptions):
    low, high = [0, 5, 5, 20, 30], [4, 9, 9, 25, 30]
    texts = [list(map(str, values)) for values in (low, high)]
    columns = [
        (name, kind, usage, (texts if kind == STRING else (low, high))[i])
        for i, (name, usage) in enumerate(zip("lh", usages, strict=True)) if usage is not None
    ]  # fmt: skip
    expected = new_rat(columns or [("x", INTEGER, 0, low)], 5)
    path = raster(tmp_path / "a.tif")
    dtype = {INTEGER: "i4", REAL: "f8", STRING: TEXT}[kind]
    sidecar(path, [(name, dtype, np.array(values, dtype), {"GDAL_USAGE": usage})
                   for name, _, usage, values in columns] or [("x", "i4", low, {})], 5)  # fmt: skip
    rat = attach(path)
    for value in (-1, 0, 3, 4, 4.5, 5, 9, 10, 20, 27, 30, 31, math.nan, math.inf):
        assert rat.GetRowOfValue(value) == expected.GetRowOfValue(value), value
    with RatZarr(f"{path}.rat.zarr") as table:
        table.getRatAttributeMapping()["GDAL_LINEAR_BINNING"] = [10.0, 2.5]
    rat = attach(path)
    expected.SetLinearBinning(10.0, 2.5)
    assert rat.GetLinearBinning() == expected.GetLinearBinning()
    for value in (9.9, 10, 12.4, 12.5, 22.4, 22.5, 1e9):
        assert rat.GetRowOfValue(value) == expected.GetRowOfValue(value), value


def test_rows_of_a_long_table_are_found_in_bounded_memory(tmp_path):
    rows = 1000
    low = np.arange(rows) * 10
    low[300] = low[700] = 5
    path = raster(tmp_path / "a.tif")
    # The upper limits end before: beyond, they are GDAL's empty value.
    sidecar(path, [("l", "i4", low, {"GDAL_USAGE": 3})], rows, name=".low")
    sidecar(path, [("h", "f8", low[:500] + 9.5, {"GDAL_USAGE": 4})], 500, name=".high")
    high = [*(low[:500] + 9.5), *[0] * 500]
    expected = new_rat([("l", INTEGER, 3, low), ("h", REAL, 4, high)], rows)
    rat = attach(path)
    dataset = gdal.Open(str(path))
    own = open_own_rat(dataset, dataset.GetRasterBand(1), keep=False, options=DEFAULTS)
    tables = [SidecarTable(f"{path}.{name}.rat.zarr") for name in ("high", "low")]
    for one in tables:
        one.open(update=False)
    table = AttachedTable("a.tif", own, tables, tables[0], "a")
    finder = RowFinder(table, piece_rows=64, max_pieces=3)
    # Each value twice: pieces are kept, and made anew.
    values = (-20, -1, 0, 5, 9.7, 12, 14.5, 3009, 4999, 4999.7, 5001, 9999, 1e9, math.nan)
    for value in (*values, *values):
        assert rat.GetRowOfValue(value) == expected.GetRowOfValue(value), value
        assert finder.find(value) == expected.GetRowOfValue(value), value
    assert finder.pieces_kept == 3
    with pytest.raises(TypeError):
        rat.GetRowOfValue("x")
    with pytest.raises(TypeError):
        attach(raster(tmp_path / "b.tif")).GetRowOfValue("x")


def test_a_row_is_found_by_what_was_written_since(tmp_path):
    path = raster(tmp_path / "a.tif")
    with attach(path, update=True) as rat:
        rat.CreateColumn("v", INTEGER, gdal.GFU_MinMax)
        rat.SetRowCount(3)
        assert rat.GetRowOfValue(7) == -1
        rat.SetValueAsInt(2, 0, 7)
        assert rat.GetRowOfValue(7) == 2


# ---- printed, cloned


def test_it_prints_what_its_clone_prints(tmp_path):
    path = raster(tmp_path / "a.tif", [("n", INTEGER, 5, [1, 2])], 2)
    sidecar(path, [("s", TEXT, np.array(["x", "y"], TEXT), {"GDAL_USAGE": 2})], 2)
    code = (
        "from gdalbridge import attach; import sys, warnings; warnings.simplefilter('ignore');"
        "rat = attach(sys.argv[1]); rat.{}DumpReadable()"
    )
    said = [
        subprocess.run([sys.executable, "-W", "ignore", "-c", code.format(how), path],
                       capture_output=True, text=True, check=True).stdout
        for how in ("", "Clone().")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert "<F>y</F>" in said[0]


def test_colours_that_are_not_integers_are_not_rounded(tmp_path):
    path = raster(tmp_path / "a.tif")
    sidecar(path, [("red", "f8", [0.5, 0.25], {"GDAL_USAGE": gdal.GFU_Red})], 2)
    rat = attach(path)
    assert (rat.GetTypeOfCol(0), rat.GetUsageOfCol(0)) == (REAL, gdal.GFU_Red)
    assert rat.ReadAsArray(0).tolist() == [0.5, 0.25]
    assert rat.GetValueAsDouble(1, 0) == 0.25
    assert rat.Clone().ReadAsArray(0).tolist() == [0.5, 0.25]


# ---- staleness


def test_a_raster_that_was_changed_is_said(tmp_path):
    path = raster(tmp_path / "a.tif", [("n", INTEGER, 0, [1, 2])], 2)
    with attach(path, update=True) as rat:
        rat.CreateColumn("x", INTEGER, 0)
    attach(path).close()
    raster(path, size=(5, 3))
    with pytest.warns(StaleWarning, match=r"may not fit .*a\.tif.*5 x 3 pixels, and was 4 x 3"):
        attach(path).close()
