"""Rasters with tables, made with GDAL alone, and tables read cell by cell as the oracle."""

import datetime as dt
import struct

import numpy as np
from osgeo import gdal

VERSION = tuple(int(part) for part in gdal.VersionInfo("RELEASE_NAME").split("."))
NEW_TYPES = VERSION >= (3, 12)
HAS_HFA = gdal.GetDriverByName("HFA") is not None
# GDAL 3.6 writes the wrong memory for blocks that do not begin in row 0: from row 0 here.

INTEGER, REAL, STRING, BOOLEAN, DATETIME, WKB = range(6)
ODD_NAMES = ["b1/b2", "100%", "a%2Fb", ".hidden", " blanks ", "größe", "x" * 220, "zarr.json"]


def utc(*args, offset=0):
    return dt.datetime(*args, tzinfo=dt.timezone(dt.timedelta(minutes=offset)))


def make(path, driver="GTiff", bands=1, size=(4, 3), **options):
    """Create a raster and hand it out open for update."""
    created = gdal.GetDriverByName(driver).Create(
        str(path), *size, bands, gdal.GDT_Byte, options=[f"{k}={v}" for k, v in options.items()]
    )
    assert created is not None
    return created


def fill(rat, columns, rows):
    """Fill a RAT: columns are (name, type, usage, values or None)."""
    rat.SetRowCount(rows)
    for name, kind, usage, values in columns:
        index = rat.GetColumnCount()
        rat.CreateColumn(name, kind, usage)
        if values is None or rows == 0:
            continue
        if kind == STRING:
            for row, value in enumerate(values):
                rat.SetValueAsString(row, index, value)
        elif kind == DATETIME:
            array = np.array([v.encode() for v in values], "S40")
            assert rat.WriteArray(array, index) == 0
        elif kind == WKB:
            array = np.empty(rows, object)
            array[:] = values
            assert rat.WriteArray(array, index) == 0
        else:
            dtype = {INTEGER: "i4", REAL: "f8", BOOLEAN: "?"}[kind]
            assert rat.WriteArray(np.asarray(values, dtype), index) == 0


def new_rat(columns, rows):
    rat = gdal.RasterAttributeTable()
    fill(rat, columns, rows)
    return rat


def cells(rat, index):
    """Read a column one cell at a time; doubles as their bits."""
    kind = rat.GetTypeOfCol(index)
    rows = range(rat.GetRowCount())
    if kind == INTEGER:
        return [rat.GetValueAsInt(row, index) for row in rows]
    if kind == REAL:
        return [struct.pack("d", rat.GetValueAsDouble(row, index)) for row in rows]
    if kind == BOOLEAN:
        return [rat.GetValueAsBoolean(row, index) for row in rows]
    if kind == WKB:
        return [bytes(rat.GetValueAsWKBGeometry(row, index)) for row in rows]
    return [rat.GetValueAsString(row, index) for row in rows]


def describe(rat):
    """Return all there is to say of a RAT, for comparison."""
    binned, *binning = rat.GetLinearBinning()
    return {
        "rows": rat.GetRowCount(),
        "table type": rat.GetTableType(),
        "binning": [struct.pack("d", value) for value in binning] if binned else None,
        "columns": [
            (rat.GetNameOfCol(i), rat.GetTypeOfCol(i), rat.GetUsageOfCol(i), cells(rat, i))
            for i in range(rat.GetColumnCount())
        ],
    }


def describe_band(path, band=1):
    dataset = gdal.Open(str(path))
    return describe(dataset.GetRasterBand(band).GetDefaultRAT())


def all_kinds(rows=7):
    """Columns of every type that this GDAL has, with their hardest values, and every usage."""
    n = np.arange(7)
    doubles = n / 3
    doubles[:5] = [
        np.nan,
        -np.inf,
        -0.0,
        5e-324,
        np.array([0x7FF8DEADBEEF0001], "u8").view("f8")[0],
    ]
    columns = [
        ("Value", INTEGER, 5, [-(2**31), 2**31 - 1, 0, *range(4)]),
        ("Histogram", REAL, 1, doubles),
        (
            "Name",
            STRING,
            2,
            ["", " leading", "trailing ", "tab\tnew\nline", "größe 🛰", "<&>\"'", "z"],
        ),
        *[(f"usage {usage}", INTEGER, usage, n * usage) for usage in range(18)],
        ("unknown usage", REAL, 77, n * 1.5),
        *[(name, INTEGER, 0, n + i) for i, name in enumerate(ODD_NAMES)],
        ("", INTEGER, 0, n),
        ("", STRING, 0, list("abcdefg")),
        ("twice", INTEGER, 0, n + 1),
        ("twice", REAL, 0, n + 0.5),
        ("twice 2", INTEGER, 0, n),
    ]
    if NEW_TYPES:
        stamps = [
            "2020-01-02T03:04:05.678Z",
            "",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999Z",
            "1969-12-31T23:59:59.001Z",
            "2000-02-29T12:00:00Z",
            "2026-11-23T20:37:00.5Z",
        ]
        columns += [
            ("flag", BOOLEAN, 0, n % 2 == 0),
            ("when", DATETIME, 0, stamps),
            (
                "local",
                DATETIME,
                0,
                [
                    s.replace("Z", "+05:45") if not s.startswith(("0001", "9999")) else ""
                    for s in stamps
                ],
            ),
            ("naive", DATETIME, 0, [s.replace("Z", "") for s in stamps]),
            (
                "mixed",
                DATETIME,
                0,
                [
                    "2020-01-02T03:04:05Z",
                    "2020-01-02T03:04:05+02:00",
                    "2020-01-02T03:04:05",
                    "",
                    "2020-01-02T03:04:05.5-03:30",
                    "2020-01-02T03:04:05.123456Z",
                    "",
                ],
            ),
            ("never", DATETIME, 0, [""] * 7),
            ("shape", WKB, 0, [b"", b"\x00\x01\x02", b"x" * 1000, b"\x01" * 21, b"", b"a", b"b"]),
        ]
    return [(*column, values[:rows]) for *column, values in columns]
