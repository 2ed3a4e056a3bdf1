"""Dtypes and values of pandas, Polars and Arrow: stored as they are, or refused by name."""

import datetime as dt
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ratzarr import RatZarr, UnequalValueError, UnsupportedDtypeError

BIG = 2**53 + 1
"""Which no float64 holds."""
DAY = dt.datetime(2020, 2, 29, 12, 30, tzinfo=dt.UTC).replace(tzinfo=None)


@pytest.fixture
def table(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as made:
        made.setRowCount(3)
        yield made


def arrow(values, kind):
    return pd.Series(pa.array(values, kind), dtype=pd.ArrowDtype(kind))


EXACT = [
    *[(pd.Series([1, None, 3], dtype=f"{kind}{bits}").fillna(2), f"{kind.lower()}{bits}", [1, 2, 3])
      for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)],
    (pd.Series([1, BIG, -BIG], dtype="Int64"), "int64", [1, BIG, -BIG]),
    (pd.array([1, BIG, 2**64 - 1], dtype="UInt64"), "uint64", [1, BIG, 2**64 - 1]),
    (pd.Series([0.1, 2, 3], dtype="Float64"), "float64", [0.1, 2, 3]),
    (pd.Series([0.5, 2, 3], dtype="Float32"), "float32", [0.5, 2, 3]),
    (pd.Series([True, False, True], dtype="boolean"), "bool", [True, False, True]),
    (pd.Series(["a", "größe", ""], dtype=pd.StringDtype("python")), "str", ["a", "größe", ""]),
    (pd.Series(["a", "größe", ""], dtype=pd.StringDtype("pyarrow")), "str", ["a", "größe", ""]),
    (pd.Series(["b", "a", "b"], dtype="category"), "str", ["b", "a", "b"]),
    (pd.Categorical([BIG, 5, BIG]), "int64", [BIG, 5, BIG]),
    (pd.Series([b"b\0", b"", b"b\0"], dtype="category"), "bytes", [b"b\0", b"", b"b\0"]),
    (pd.CategoricalIndex(["x", "y", "x"]), "str", ["x", "y", "x"]),
    (pd.Index([1, BIG, 3]), "int64", [1, BIG, 3]),
    (pd.Series([DAY, None, DAY]), "datetime64[us]", [DAY, None, DAY]),
    (arrow([1, BIG, 3], pa.int64()), "int64", [1, BIG, 3]),
    (arrow([0.5, 1, 2], pa.float32()), "float32", [0.5, 1, 2]),
    (arrow([True, False, True], pa.bool_()), "bool", [True, False, True]),
    (arrow(["a", "größe", ""], pa.string()), "str", ["a", "größe", ""]),
    (arrow([b"a", b"\0", b""], pa.binary()), "bytes", [b"a", b"\0", b""]),
    (arrow([DAY, None, DAY], pa.timestamp("ms")), "datetime64[ms]", [DAY, None, DAY]),
    (arrow([DAY.date(), None, DAY.date()], pa.date32()), "datetime64[D]",
     [DAY.date(), None, DAY.date()]),
    *[(pl.Series([1, 2, 3], dtype=getattr(pl, f"{kind}{bits}")), f"{kind.lower()}{bits}", [1, 2, 3])
      for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)],
    (pl.Series([1, BIG, -BIG]), "int64", [1, BIG, -BIG]),
    (pl.Series([0.1, 2, 3]), "float64", [0.1, 2, 3]),
    (pl.Series([0.5, 2, 3], dtype=pl.Float32), "float32", [0.5, 2, 3]),
    (pl.Series([True, False, True]), "bool", [True, False, True]),
    (pl.Series(["a", "größe", ""]), "str", ["a", "größe", ""]),
    (pl.Series([b"a", b"\0", b""]), "bytes", [b"a", b"\0", b""]),
    (pl.Series(["b", "a", "b"], dtype=pl.Categorical), "str", ["b", "a", "b"]),
    (pl.Series(["b", "a", "b"], dtype=pl.Enum(["a", "b"])), "str", ["b", "a", "b"]),
    (pl.Series([DAY.date(), None, DAY.date()]), "datetime64[D]", [DAY.date(), None, DAY.date()]),
    (pl.Series([DAY, None, DAY], dtype=pl.Datetime("ms")), "datetime64[ms]", [DAY, None, DAY]),
    (pa.array([1, BIG, 3]), "int64", [1, BIG, 3]),
    (pa.chunked_array([[1], [BIG, 3]]), "int64", [1, BIG, 3]),
    (pa.array(["a", "größe", ""], pa.large_string()), "str", ["a", "größe", ""]),
    (pa.array(["b", "a", "b"]).dictionary_encode(), "str", ["b", "a", "b"]),
    (pa.array([DAY, None, DAY], pa.timestamp("us")), "datetime64[us]", [DAY, None, DAY]),
]  # fmt: skip


def kind_of(values):
    return values.type if hasattr(values, "type") else values.dtype


def name_of(values):
    return f"{type(values).__module__.partition('.')[0]}-{type(values).__name__}-{kind_of(values)}"


@pytest.mark.parametrize(
    ("values", "dtype", "expected"), EXACT, ids=[name_of(case[0]) for case in EXACT]
)
def test_values_and_dtypes_that_map_exactly(table, values, dtype, expected):
    table.createColumn("c", kind_of(values))
    wanted = {"str": np.dtypes.StringDType(), "bytes": np.dtype(object)}.get(dtype)
    assert table.getColumnDtype("c") == (np.dtype(dtype) if wanted is None else wanted)
    table.writeBlock("c", values, 0)
    assert table.readBlock("c", 0, 3).tolist() == expected


NULLS = [
    pd.Series([1, None, BIG], dtype="Int64"),
    pd.Series([1, None, 2], dtype="Float64"),
    pd.Series([True, None, True], dtype="boolean"),
    pd.Series(["a", None, "b"], dtype="string"),
    pd.Series(["a", None, "b"], dtype="str"),
    pd.Series(["a", None, "b"], dtype="category"),
    pd.Series([BIG, None, 1], dtype="Int64").astype("category"),
    arrow([1, None, BIG], pa.int64()),
    arrow(["a", None, "b"], pa.string()),
    pl.Series([1, None, BIG]),
    pl.Series([0.5, None, 1]),
    pl.Series([True, None, True]),
    pl.Series(["a", None, "b"]),
    pl.Series([b"a", None, b"b"]),
    pl.Series(["a", None, "b"], dtype=pl.Categorical),
    pa.array([1, None, BIG]),
    pa.chunked_array([["a", None], ["b"]]),
]


@pytest.mark.parametrize("values", NULLS, ids=name_of)
def test_a_null_is_refused_with_its_row(table, values):
    table.createColumn("c", kind_of(values))
    before = table.readBlock("c", 0, 3).tolist()
    with pytest.raises(
        UnequalValueError, match=r"column 'c', row 1: a null of .*, for instance by \."
    ):
        table.writeBlock("c", values, 0)
    assert table.readBlock("c", 0, 3).tolist() == before
    # NumPy's view of these is a float column's, with 2**53 + 1 rounded.
    if before == [0, 0, 0] and "oo" not in str(kind_of(values)).lower():
        table.createColumn("f", "float64")
        with pytest.raises(UnequalValueError, match="column 'f', row 1: a null"):
            table.writeBlock("f", values, 0)


@pytest.mark.parametrize(
    "values", [one for one in NULLS if name_of(one) != "pyarrow-ChunkedArray-string"], ids=name_of
)
def test_what_the_error_says_to_do_works(table, values):
    table.createColumn("c", kind_of(values))
    with pytest.raises(UnequalValueError) as caught:
        table.writeBlock("c", values, 0)
    call = str(caught.value).rpartition("for instance by ")[2]
    if "ategor" in str(kind_of(values)):
        # The value has to be a category before.
        return
    table.writeBlock("c", eval(f"values{call}"), 0)
    found = table.readBlock("c", 1, 1)[0]
    assert found != found or not found


REFUSED = [
    (np.dtype(object), "use str for text, bytes for bytes"),
    (pd.Series(["a", 1], dtype=object).dtype, "use str for text, bytes for bytes"),
    (pd.DatetimeTZDtype(tz="Europe/Berlin"), r"pandas dtype datetime64.*tz_localize\(None\)"),
    (pd.CategoricalDtype(), "pandas dtype category: it has no categories"),
    (pd.CategoricalDtype(["a", 1]), "its categories are not all text"),
    (pd.PeriodDtype("M"), r"pandas dtype period\[M\]"),
    (pd.ArrowDtype(pa.decimal128(5, 2)), "Arrow dtype decimal128"),
    (pl.List(pl.Int8), r"Polars dtype List\(Int8\)"),
    (pl.Decimal(10, 2), "Polars dtype Decimal"),
    (pl.Int128, "Polars dtype Int128"),
    (pl.Object, "Polars dtype Object"),
    (pl.Null(), "Polars dtype Null"),
    (pl.Time, "Polars dtype Time"),
    (pl.Datetime("us", "UTC"), r"Polars dtype Datetime.*replace_time_zone\(None\)"),
    (pa.timestamp("us", "UTC"), r"Arrow dtype timestamp\[us, tz=UTC\]"),
    (pa.list_(pa.int8()), "Arrow dtype list"),
    (pa.null(), "Arrow dtype null"),
    (pa.time32("s"), "Arrow dtype time32"),
]


@pytest.mark.parametrize(("dtype", "message"), REFUSED, ids=[str(case[0]) for case in REFUSED])
def test_dtypes_that_no_column_has(table, dtype, message):
    with pytest.raises(UnsupportedDtypeError, match=message):
        table.createColumn("c", dtype)
    with pytest.raises(UnsupportedDtypeError, match=message):
        table.createColumns({"d": "int8", "c": dtype})
    assert table.getColumnNames() == []


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.to_datetime(["2020-01-01"] * 3)).dt.tz_localize("UTC"),
        pd.Series(pd.period_range("2020", periods=3, freq="M")),
        pl.Series([[1]] * 3),
        pl.Series(["1.5"] * 3).cast(pl.Decimal(10, 2)),
        pa.array([[1]] * 3),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("dtype", ["float64", "str", "datetime64[us]"])
def test_values_that_no_column_has(table, values, dtype):
    table.createColumn("c", dtype)
    with pytest.raises(UnsupportedDtypeError, match="no column can have the"):
        table.writeBlock("c", values, 0)


def test_zones_are_taken_off_as_the_error_says(table):
    local = pd.Series(pd.to_datetime(["2020-07-01 12:00"] * 3)).dt.tz_localize("Europe/Berlin")
    values = local.dt.tz_convert("UTC").dt.tz_localize(None)
    table.createColumn("c", values.dtype)
    table.writeBlock("c", values, 0)
    assert table.readBlock("c", 0, 1)[0] == np.datetime64("2020-07-01T10:00")


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, BIG]}),
        pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, BIG]}, dtype="Int64"),
        pl.DataFrame({"a": [1, 2, 3], "b": [4, 5, BIG]}),
        pa.table({"a": [1, 2, 3], "b": [4, 5, BIG]}),
    ],
    ids=lambda frame: f"{type(frame).__module__}",
)
def test_frames_are_several_values_per_row(table, frame):
    table.createColumn("c", "int64", 2)
    table.writeBlock("c", frame, 0)
    assert table.readBlock("c", 0, 3).tolist() == [[1, 4], [2, 5], [3, BIG]]


@pytest.mark.parametrize("made", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_of_several_dtypes_are_not_rounded(table, made):
    table.createColumn("c", "float64", 2)
    with pytest.raises(UnsupportedDtypeError, match=r"different dtypes \(int64, float64\)"):
        table.writeBlock("c", made({"a": [1, 2, BIG], "b": [0.5, 1, 2]}), 0)


def test_missing_values_among_objects(table):
    table.createColumn("n", "float64")
    table.createColumn("t", str)
    for values in ([pd.NA, 1, 2], [None, 1, 2], [pd.NaT, 1, 2]):
        with pytest.raises(UnequalValueError, match=r"column 'n', row 0: .* is not a float64"):
            table.writeBlock("n", values, 0)
    for values in (["a", None, "b"], pd.Series(["a", pd.NA, "b"], dtype=object)):
        with pytest.raises(
            UnequalValueError, match=r"column 't', row 1: .* is not a string; write ''"
        ):
            table.writeBlock("t", values, 0)
    with pytest.raises(UnequalValueError, match="<NA> is not a float64"):
        table.createColumn("f", "float64", fillValue=pd.NA)
    assert table.getColumnNames() == ["n", "t"]


def test_a_table_of_a_data_frame_and_back(table):
    frame = pd.DataFrame(
        {
            "name": ["a", "b", "c"],
            "pixels": pd.array([1, 2, BIG], dtype="Int64"),
            "class": pd.Categorical(["x", "y", "x"]),
            "ndvi": np.array([0.5, np.nan, -1]),
        }
    )
    table.createColumns({name: frame[name].dtype for name in frame})
    table.writeBlocks({name: frame[name] for name in frame}, 0)
    for name in frame:
        np.testing.assert_array_equal(
            table.readBlock(name, 0, 3), np.asarray(frame[name].tolist()), strict=False
        )


def test_none_of_them_is_imported():
    code = (
        "import sys, numpy, ratzarr, tempfile\n"
        "with ratzarr.RatZarr(tempfile.mkdtemp() + '/t.rat.zarr') as table:\n"
        "    table.setRowCount(2)\n"
        "    table.createColumn('a', 'int8')\n"
        "    table.writeBlock('a', [1, 2], 0)\n"
        "    table.writeBlock('a', numpy.ma.array([1, 2]), 0)\n"
        "print([one for one in ('pandas', 'polars', 'pyarrow') if one in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
