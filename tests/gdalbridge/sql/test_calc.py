"""Expressions over columns against numpy, and what may not be in one."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from osgeo import gdal

from gdalbridge import BridgeError, ConversionError, attach, calc, open_table
from gdalbridge.cli import main
from gdalbridge.errors import (
    CancelledError,
    ColumnSelectionError,
    NaNWarning,
    OutputExistsError,
)
from gdalbridge.sidecars.merged import Column, Columns
from gdalbridge.sql.expressions import SETTINGS, Program
from gdalbridge.sql.query import Database
from ratzarr import RatZarr, UnequalValueError
from ratzarr.format.names import COMPLETE_ATTR
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat
from tests.processes import interruptible


def store(path, columns, chunk=64, **attributes):
    path = f"{path}/seg.tif.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(chunk)
        table.setRowCount(len(next(iter(columns.values()))))
        for name, values in columns.items():
            values = np.asarray(values)
            dtype = bytes if values.dtype == object else values.dtype
            width = values.shape[1] if values.ndim == 2 else 1
            table.createColumn(name, dtype, width, attributes=attributes.get(name))
            table.writeBlock(name, values, 0)
    return path


def column(path, name):
    with RatZarr(path, readOnly=True) as table:
        return table.readBlock(name, 0, table.rowCount)


def result(path, expression, **options):
    calc(path, {"out": expression}, overwrite=True, **options)
    return column(path, "out")


def texts(*values):
    return np.array(values, np.dtypes.StringDType())


def objects(*values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


ALL = {
    "b": np.array([True, False, True]),
    **{f"{k}{s}": np.array([np.iinfo(f"{k}{s}").min, 1, np.iinfo(f"{k}{s}").max], f"{k}{s}")
       for k in "iu" for s in (1, 2, 4, 8)},
    "f4": np.array([np.nan, -0.0, 0.1], "f4"),
    "f8": np.array([np.inf, -0.0, 5e-324]),
    "s": texts("größe 🛰", "", "zero\x00in it"),
    "o": objects(b"", b"\x00\xff", b"x" * 1000),
    "D": np.array(["0001-01-01", "NaT", "9999-12-31"], "M8[D]"),
    "us": np.array(["1969-12-31T23:59:59.999999", "NaT", "2020-01-01"], "M8[us]"),
    "ns": np.array(["1969-12-31T23:59:59.999999999", "NaT", "2020-01-01"], "M8[ns]"),
    "ms": np.array(["1969-12-31", "NaT", "2020-01-01"], "M8[ms]"),
    "sec": np.array(["1969-12-31", "NaT", "2020-01-01"], "M8[s]"),
}  # fmt: skip


@pytest.mark.main_env_only
def test_every_dtype_goes_in_and_out_as_it_is(tmp_path):
    path = store(tmp_path, ALL)
    calc(path, {f"{name} again": f'"{name}"' for name in ALL})
    for name, values in ALL.items():
        found = column(path, f"{name} again")
        assert found.dtype == values.dtype, name
        if values.dtype.kind in "TO":
            assert found.tolist() == values.tolist()
        else:
            assert found.tobytes() == values.tobytes(), name


@pytest.mark.main_env_only
def test_what_arrow_has_nothing_like_is_the_next_that_holds_it(tmp_path):
    path = store(
        tmp_path,
        {"f2": np.array([0.5, np.nan], "f2"), "h": np.array(["2020-01-01T05", "NaT"], "M8[h]"),
         "S": np.array([b"ab", b""]), "W": np.array(["2020-01-02", "NaT"], "M8[W]"),
         "ps": np.array([1, 2], "M8[ps]")},
    )  # fmt: skip
    assert result(path, "f2").tobytes() == np.array([0.5, np.nan], "f4").tobytes()
    assert result(path, "h").tobytes() == np.array(["2020-01-01T05", "NaT"], "M8[s]").tobytes()
    assert result(path, '"S"').tolist() == [b"ab", b""]
    assert result(path, '"W"').dtype == np.dtype("M8[D]")
    with pytest.raises(ConversionError, match=r"datetime64\[ps\] is finer"):
        result(path, "ps")


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    ("dtype", "value"),
    [("M8[D]", 2**31), ("M8[D]", -(2**31) - 1), ("M8[W]", 2**62), ("M8[h]", 2**62)],
)
def test_date_times_that_arrow_has_no_room_for_are_refused(dtype, value):
    values = np.array([0, value]).view(dtype)
    with pytest.raises(ConversionError, match=r"'x', row 1: .* out of the range"):
        Held(x=values).compute("x")


@pytest.mark.main_env_only
def test_the_rows_stay_in_their_order_in_many_blocks(tmp_path):
    rng = np.random.default_rng(3)
    n = 1_050_001
    nir, red = rng.random(n), rng.random(n)
    path = store(tmp_path, {"nir": nir, "red": red, "n": np.arange(n)}, chunk=50_000)
    done = []
    report = calc(
        path, {"ndvi": "(nir - red) / (nir + red)", "row": "n", "late": "nullif(n, 5)::DOUBLE"},
        progress=lambda share, *_: done.append(share) or 1, block_rows=100_000,
    )  # fmt: skip
    with np.errstate(all="ignore"):
        assert np.array_equal(column(path, "ndvi"), (nir - red) / (nir + red))
    assert np.array_equal(column(path, "row"), np.arange(n))
    assert np.flatnonzero(np.isnan(column(path, "late"))).tolist() == [5]
    assert [one.dtype for one in report.columns] == ["float64", "int64", "float64"]
    assert len(set(done)) == 11
    assert done == sorted(done)
    assert done[-1] == 1.0


INTS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


class Held:
    """Columns of one block in memory, for expressions that are looked at alone."""

    def __init__(self, **columns):
        found = [
            Column(name, len(values), 10, {}, lambda v=values: v.dtype,
                   lambda start, length, v=values: v[start : start + length])
            for name, values in columns.items()
        ]  # fmt: skip
        self.columns = Columns(
            "a table", ExitStack(), list, prefer="sidecar", parts=True, own=found
        )
        self.rows = len(next(iter(columns.values())))

    def compute(self, expression):
        from gdalbridge.sql.arrow_values import to_arrow

        with Program({"out": expression}, self.columns) as program:
            arrays = [
                to_arrow(one.read(0, self.rows), None, column=one.name, first_row=0)
                for one in program.columns
            ]
            return program.compute(arrays, 100, self.rows)["out"]


@st.composite
def two_of_integers(draw):
    rows = draw(st.integers(1, 6))
    return [
        draw(hnp.arrays(draw(st.sampled_from(INTS)), rows, elements=None)) for _ in range(2)
    ]  # fmt: skip


@pytest.mark.main_env_only
@settings(max_examples=20, deadline=None)
@given(two_of_integers(), st.sampled_from("+-*"))
def test_integers_never_wrap_around(pair, operator):
    one, other = pair
    exact = [
        {"+": a + b, "-": a - b, "*": a * b}[operator]
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
    ]
    held = Held(a=one, b=other)
    try:
        found = held.compute(f"a {operator} b")
    except ConversionError as error:
        # Some value does not fit what DuckDB has for the two; which, is said with its row.
        row = int(str(error).partition("row ")[2].partition(":")[0]) - 100
        assert 0 <= row < len(exact)
        with pytest.raises(ConversionError, match="row 100"):
            Held(a=one[row : row + 1], b=other[row : row + 1]).compute(f"a {operator} b")
        if row:
            before = Held(a=one[:row], b=other[:row]).compute(f"a {operator} b")
            assert before.tolist() == exact[:row]
        return
    assert found.dtype.kind in "iu"
    assert found.tolist() == exact


@pytest.mark.main_env_only
def test_wider_than_64_bits_only_where_it_fits(tmp_path):
    path = store(tmp_path, {"u": np.array([5, 2**63], "u8"), "i": np.array([-6, -(2**63)], "i8")})
    found = result(path, "u + i")
    assert (found.dtype, found.tolist()) == (np.int64, [-1, 0])
    with pytest.raises(ConversionError, match=r"row 1: .*out of range"):
        result(path, "u - i")
    assert result(path, "greatest(u, 7)").dtype == np.uint64


@pytest.mark.main_env_only
def test_numbers_with_a_point_are_float64s(tmp_path):
    f4 = np.array([0.1, 3], "f4")
    path = store(
        tmp_path, {"f4": f4, "i4": np.array([3, 2**31 - 1], "i4"), "f8": np.array([0.1, 3])}
    )
    for expression, expected in (
        ("i4 * 0.1", np.array([3, 2**31 - 1]) * 0.1),
        ("f4 * 0.1", f4.astype("f8") * 0.1),
        ("3.141592653589793238462643383279502884197", np.full(2, np.pi)),
        ("f8 + -.5", np.array([0.1, 3]) - 0.5),
        ("f4 + f4", f4 + f4),
        # As in numpy: a float32 could not hold the integers.
        ("f4 + i4", f4.astype("f8") + np.array([3, 2**31 - 1])),
        ("1_000.5", np.full(2, 1000.5)),
    ):
        found = result(path, expression)
        assert found.dtype == expected.dtype, expression
        assert found.tobytes() == expected.tobytes(), expression
    with pytest.raises(ConversionError, match=r"DECIMAL\(5,2\), which no column can have"):
        result(path, "CAST(f8 AS DECIMAL(5,2))")


@pytest.mark.main_env_only
def test_division(tmp_path):
    a, b = np.array([7, -7, 7, 0], "i4"), np.array([2, 2, -2, 4], "i4")
    path = store(
        tmp_path, {"a": a, "b": b, "z": np.array([1, 0, -1, 0]), "f": np.array([0.0, 1, -1, 0])}
    )
    assert np.array_equal(result(path, "a / b"), a / b)
    assert result(path, "a // b").tolist() == [3, -3, -3, 0]
    assert np.array_equal(result(path, "a / z"), [7, -np.inf, -7, np.nan], equal_nan=True)
    assert np.array_equal(result(path, "f / 0"), [np.nan, np.inf, -np.inf, np.nan], equal_nan=True)
    for operator in ("//", "%"):
        with pytest.raises(ConversionError, match=r"row 1: .*Division by zero") as caught:
            result(path, f"a {operator} z")
        assert f"(CAST(a AS BIGINT) {operator} z)" in str(caught.value)
        assert str(caught.value).endswith("write the divisor as nullif(..., 0).")
    assert result(path, "coalesce(a // nullif(z, 0), -1)").tolist() == [7, -1, -7, -1]


@pytest.mark.main_env_only
def test_null_and_nan(tmp_path):
    path = store(
        tmp_path,
        {"f": np.array([1, np.nan, 3]), "i": np.array([1, -1, 3], "i2"),
         "t": np.array(["2020-01-01", "NaT", "2020-01-03"], "M8[us]"), "s": texts("a", "n/a", "")},
        i={"missing_value": -1}, s={"missing_value": "n/a"},
    )  # fmt: skip
    assert result(path, "f IS NULL").tolist() == [False] * 3
    assert result(path, "isnan(f)").tolist() == [False, True, False]
    assert result(path, "coalesce(f, 0)").tobytes() == np.array([1, np.nan, 3]).tobytes()
    assert result(path, "i IS NULL").tolist() == [False, True, False]
    assert result(path, "s IS NULL").tolist() == [False, True, False]
    assert np.array_equal(result(path, "i / 2"), [0.5, np.nan, 1.5], equal_nan=True)
    assert np.array_equal(
        result(path, "t + INTERVAL 1 DAY"),
        column(path, "t") + np.timedelta64(1, "D"),
        equal_nan=True,
    )
    for expression, kind in (
        ("s || 'x'", "str"),
        ("f > NULL", "bool"),
    ):
        with pytest.raises(
            ConversionError, match=rf"'out', row \d: .* NULL, which {kind} .*coalesce"
        ):
            result(path, expression)
    assert result(path, "coalesce(i + 1, 0)").tolist() == [2, 0, 4]


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ('owner = "O\'Neil"', "text is written in single ones: 'O''Neil'"),
        ("owner * 2", "'owner' is text"),
        ("rent > 1 && rent < 3", "Write 'and' instead of &&"),
        ("rent && owner", "write 'and'"),
        ("rent > 1 || rent < 3", "Write 'or' for conditions"),
        ("!(rent > 1)", "write 'not'"),
    ],
)
def test_errors_say_what_to_write(tmp_path, expression, said):
    path = store(tmp_path, {"owner": texts("Ann", "O'Neil"), "rent": np.array([1, 2])})
    with pytest.raises((BridgeError, ColumnSelectionError), match=re.escape(said)):
        calc(path, {"out": expression})


@pytest.mark.main_env_only
def test_integers_keep_their_missing_values(tmp_path):
    """As zonal statistics have them: rows without pixels, in a row of its own block."""
    none = np.iinfo("i4").min
    path = store(
        tmp_path,
        {"red": np.array([none, 10, 20, none], "i4"), "nir": np.array([none, 30, 25, 7], "i4"),
         "small": np.array([255, 1, 2, 3], "u1")},
        2, red={"missing_value": none}, nir={"missing_value": none}, small={"missing_value": 1},
    )  # fmt: skip

    def read(expression, **options):
        found = result(path, expression, block_rows=2, **options)
        with open_table(path) as table:
            return found.dtype, table.to_arrow(["out"])["out"].to_pylist()

    assert read("nir - red") == (np.dtype("i4"), [None, 20, 5, None])
    assert read("nir - red", dtype="uint8") == (np.dtype("u1"), [None, 20, 5, None])
    assert read("nir > red", dtype="int8") == (np.dtype("i1"), [None, 1, 1, None])
    dtype, found = read("nir - red", dtype="float64")
    assert (dtype, found[1:3]) == (np.dtype("f8"), [20, 5])
    assert np.isnan([found[0], found[3]]).all()
    assert read("red") == (np.dtype("i4"), [None, 10, 20, None])
    # Without NULL, no value stands for it.
    assert read("coalesce(red, 0)")[1] == [0, 10, 20, 0]
    with RatZarr(path, readOnly=True) as table:
        assert "missing_value" not in table.getColumnAttributeMapping("out")
    # 255 stands for NULL, and row 0 has it.
    with pytest.raises(ConversionError, match="row 1: the result is NULL, and row 0 has 255"):
        read("small")
    assert read("small", dtype="int16")[1] == [255, None, 2, 3]


@pytest.mark.main_env_only
def test_a_warning_says_that_nan_is_greater(tmp_path):
    values = np.array([1, np.nan, 3, np.nan, -9])
    path = store(tmp_path, {"ndvi": values, "n": np.arange(5)}, 2, ndvi={"missing_value": -9.0})
    said = r"^2 rows have NaN in ndvi, .* NaN is greater than any number\. .*isnan\(ndvi\)$"
    with pytest.warns(NaNWarning, match=said) as caught:
        found = result(path, "CASE WHEN ndvi < 2 THEN 'low' ELSE 'high' END", block_rows=2)
    assert (found.tolist(), len(caught)) == (["low", "high", "high", "high", "high"], 1)
    with pytest.warns(NaNWarning, match="is true for them"):
        result(path, "coalesce(ndvi > 2, false)")
    # True for no NaN; tested for; without an order.
    for expression in (
        "coalesce(ndvi < 2, false)",
        "CASE WHEN isnan(ndvi) THEN '' WHEN ndvi < 2 THEN 'low' ELSE '' END",
        "ndvi * 2",
        "n > 2",
    ):
        result(path, expression)


@pytest.mark.main_env_only
def test_text_dates_and_choices(tmp_path):
    path = store(
        tmp_path,
        {"class": texts("wald", "See", "größe"), "n": np.array([1, 20, 3], "u1"),
         "t": np.array(["2020-02-29", "2021-01-01", "1969-12-31"], "M8[us]")},
    )  # fmt: skip
    expected = {
        "lower(class) || ':' || n": ["wald:1", "see:20", "größe:3"],
        "CASE WHEN n > 2 THEN 'big' ELSE 'small' END": ["small", "big", "big"],
        "class IN ('See', 'Moor') OR n BETWEEN 1 AND 2": [True, True, False],
        "class LIKE 'w%'": [True, False, False],
        "regexp_matches(class, '^[A-Z]')": [False, True, False],
        "length(class)": [4, 3, 5],
        "date_part('year', t)": [2020, 2021, 1969],
        "t >= DATE '2021-01-01'": [False, True, False],
        "class[1]": ["w", "S", "g"],
        "if(n > 2, 1, 0)": [0, 1, 1],
        "TRY(CAST(class AS INTEGER)) IS NULL": [True, True, True],
        "'it''s' -- what follows is no part of it": ["it's"] * 3,
    }
    calc(path, {text: text for text in expected})
    for text, values in expected.items():
        assert column(path, text).tolist() == values, text
    assert column(path, "if(n > 2, 1, 0)").dtype == np.int32
    with pytest.raises(ConversionError, match=r"row 0: .*wald"):
        result(path, "CAST(class AS INTEGER)")


@pytest.mark.main_env_only
def test_names_are_what_they_are(tmp_path):
    names = ["NDVI", "ndvi", "b1/b2", "größe", "my column", 'a"b', "select", "c0", "current_date"]
    path = store(tmp_path, {n: np.full(2, i) for i, n in enumerate(names)})
    quoted = [f'"{n.replace('"', '""')}"' for n in names]
    calc(path, {f"new {n}": f"{q} + 0" for n, q in zip(names, quoted, strict=True)})
    for i, n in enumerate(names):
        assert column(path, f"new {n}").tolist() == [i, i]
    assert result(path, "NDVI * 10 + ndvi").tolist() == [1, 1]
    with pytest.raises(ColumnSelectionError, match="no column 'Größe': did you mean \"größe\""):
        result(path, '"Größe"')
    with pytest.raises(BridgeError, match=r'written "a\.b"'):
        result(path, "a.b")


@pytest.mark.main_env_only
def test_one_of_several_values_per_row(tmp_path):
    pairs = np.arange(6).reshape(3, 2)
    path = store(tmp_path, {"pair": pairs})
    assert result(path, '"pair[1]" - "pair[0]"').tolist() == [1, 1, 1]


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("sum(x)", "an aggregate"),
        ("x - avg(x)", "an aggregate"),
        ("count(*)", "an aggregate"),
        ("row_number() OVER ()", "a window function"),
        ("sum(x) OVER ()", "a window function"),
        ("(SELECT 1)", "a query of its own"),
        ("x IN (SELECT 1)", "a query of its own"),
        ("EXISTS (FROM block)", "a query of its own"),
        ("random()", r"random\(\), which is not allowed"),
        ("now()", r"now\(\), which is not allowed"),
        ("current_date", "no column 'current_date'"),
        ("age(t)", r"age\(\), which is not allowed"),
        ("read_text('/etc/passwd')", "which is not allowed"),
        ("current_setting('memory_limit')", "which is not allowed"),
        ("getenv('HOME')", "which does not exist"),
        ("sqrtt(x)", r"does not exist: did you mean sqrt"),
        ("error('x')", "which is not allowed"),
        ("sleep_ms(1)", "which is not allowed"),
        ("list_sum([x])", "which is not allowed"),
        ("unnest([1, 2])", "which is not allowed"),
        ("main.abs(x)", "a function of a schema"),
        ("system.main.abs(x)", "a function of a schema"),
        ("abs(DISTINCT x)", "with further clauses"),
        ("abs(x ORDER BY x)", "with further clauses"),
        ("*", "a star"),
        ("COLUMNS('x')", "a star"),
        ("?", "a parameter"),
        ("$1", "a parameter"),
        ("#1", "a column's number"),
        ("lambda y: y", "a lambda"),
        ("x, x", "which is not allowed"),
        ("1), (2", "not a single expression"),
        ("x) FROM block WHERE (true", "not a single expression"),
        ("1) UNION ALL SELECT (2", "not a single expression"),
        ("1) LIMIT (1", "not a single expression"),
        ("1); SELECT (2", "not a single expression"),
        ("1); DROP TABLE x; SELECT (2", "is not an expression"),
        ("x +", "is not an expression: it ends too early, or its parentheses don't match"),
        ("(x", "is not an expression: it ends too early, or its parentheses don't match"),
        ("x) + 1", "is not an expression: it ends too early, or its parentheses don't match"),
        ("x 1", 'is not an expression: syntax error at or near "1"'),
        ("", "an expression is text"),
        ("x + 'a' + [1]", "."),
        ("GROUPING(x)", "the operator GROUPING"),
        ("x::INTEGER[]", "."),
        ("INTERVAL 1 DAY", "type INTERVAL, which no column can have"),
        ("NULL", "which no column can have"),
        ("1 +" * 3000 + "1", "."),
    ],
)
def test_what_is_no_expression_of_a_row_is_refused(expression, why):
    held = Held(x=np.arange(2.0), t=np.array(["2020", "2021"], "M8[us]"))
    with pytest.raises(BridgeError, match=why):
        held.compute(expression)


@pytest.mark.main_env_only
def test_the_database_reaches_nothing(tmp_path):
    import duckdb
    import pyarrow as pa

    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    frame = pa.table({"a": [1]})  # noqa: F841 - DuckDB would find it by its name
    assert duckdb.connect(":memory:").sql("SELECT * FROM frame").fetchall() == [(1,)]
    with Database({}, settings=SETTINGS) as database:
        connection = database.connection
        for query in (
            f"SELECT * FROM '{secret}'",
            f"SELECT * FROM read_text('{secret}')",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/x.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET threads = 4",
            "SELECT * FROM frame",
        ):
            with pytest.raises(duckdb.Error):
                connection.sql(query).fetchall()
        assert connection.sql("SELECT current_setting('threads')").fetchall() == [(1,)]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.main_env_only
def test_text_of_any_length_stays_within_the_memory(tmp_path):
    path = store(tmp_path, {"x": texts("a", "b")})
    with pytest.raises(ConversionError, match="row 0"):
        calc(path, {"out": "repeat(x, 3000000000)"})


@pytest.mark.main_env_only
def test_a_dtype_of_its_own_is_exact_or_refused(tmp_path):
    path = store(tmp_path, {"x": np.array([1.0, 2.0, 255.0])})
    found = result(path, "x", dtype="uint8")
    assert (found.dtype, found.tolist()) == (np.uint8, [1, 2, 255])
    with pytest.raises(UnequalValueError, match=r"'out', row 2: .*256"):
        calc(path, {"out": "x + 1"}, dtype={"out": "uint8"}, overwrite=True)
    # The one that was there is there still.
    assert column(path, "out").tolist() == [1, 2, 255]
    with pytest.raises(BridgeError, match="given for 'other'"):
        calc(path, {"out": "x"}, dtype={"other": "uint8"}, overwrite=True)


@pytest.mark.main_env_only
def test_a_column_that_is_there_is_refused_or_replaced(tmp_path):
    path = store(tmp_path, {"x": np.arange(3)})
    with pytest.raises(OutputExistsError, match="column 'x' already"):
        calc(path, {"new": "x", "x": "x + 1"})
    with RatZarr(path) as table:
        assert table.getColumnNames() == ["x"]
    calc(path, {"x": "x + 1", "old": "x"}, overwrite=True)
    assert column(path, "x").tolist() == [1, 2, 3]
    assert column(path, "old").tolist() == [0, 1, 2]


@pytest.mark.main_env_only
@pytest.mark.parametrize("moment", [0.3, 1.0])
@pytest.mark.parametrize("error", [CancelledError, KeyboardInterrupt, ValueError])
def test_what_was_begun_is_removed_again(tmp_path, error, moment):
    path = store(tmp_path, {"x": np.arange(100), "y": np.arange(100)}, chunk=10)

    def stop(done, message, data):
        if done >= moment:
            raise error("enough")
        return 1

    with pytest.raises(error):
        calc(path, {"new": "x", "y": "x * 2"}, overwrite=True, progress=stop, block_rows=10)
    with RatZarr(path) as table:
        assert table.getColumnNames() == ["x", "y"]
        assert table.resumeColumn("y") is None
        assert table.readBlock("y", 0, 100).tolist() == list(range(100))
    with pytest.raises(ConversionError, match=r"row 57: .*Division by zero"):
        calc(path, {"new": "y % (x - 57)"})
    with RatZarr(path) as table:
        assert table.getColumnNames() == ["x", "y"]


@pytest.mark.main_env_only
def test_ctrl_c_does_not_wait_for_the_block(tmp_path):
    path = store(tmp_path, {"s": texts(*["abcdefghij" * 40] * 20_000)}, chunk=20_000)
    started = time.monotonic()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with interruptible():
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                # Left alone it takes half a minute.
                calc(path, {"n": "levenshtein(s, reverse(s)) + levenshtein(s || 'x', reverse(s))"})
    finally:
        timer.cancel()
    assert time.monotonic() - started < 20
    with RatZarr(path) as table:
        assert table.getColumnNames() == ["s"]


@pytest.mark.main_env_only
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_process_leaves_what_says_that_it_is_not_complete(tmp_path, overwrite):
    columns = {"x": np.arange(100), "new": np.full(100, 7)}
    path = store(tmp_path, columns if overwrite else {"x": np.arange(100)}, chunk=10)
    code = f"""
import os, signal
from gdalbridge import calc
def stop(done, *_):
    if done > 0.3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1
calc({path!r}, {{"new": "x"}}, overwrite={overwrite}, progress=stop, block_rows=10)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if overwrite:
        assert column(path, "new").tolist() == [7] * 100
    else:
        with RatZarr(path) as table:
            assert table.getColumnAttributeMapping("new")[COMPLETE_ATTR] is False
        with pytest.raises(OutputExistsError, match="'new' already, which is not complete"):
            calc(path, {"new": "x"})
    calc(path, {"new": "x"}, overwrite=True)
    assert column(path, "new").tolist() == list(range(100))


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    rat = new_rat(
        [("Histogram", REAL, 1, np.arange(30.0)), ("red", INTEGER, 0, np.arange(30)),
         ("class", STRING, 2, ["a", "b", "c"] * 10)], 30,
    )  # fmt: skip
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    return path


def test_a_rasters_own_columns_into_a_new_sidecar(raster):
    before = {name: (raster.parent / name).read_bytes() for name in os.listdir(raster.parent)}
    report = calc(raster, {"ha": "Histogram * 0.09", "is b": "class = 'b'"})
    assert report.target == f"{raster}.rat.zarr"
    assert (report.columns[0].dtype, report.columns[0].inputs) == (
        "float64",
        ("Histogram", "class"),
    )
    assert np.array_equal(column(report.target, "ha"), np.arange(30) * 0.09)
    for name, content in before.items():
        assert (raster.parent / name).read_bytes() == content
    with RatZarr(report.target, readOnly=True) as table:
        made = table.getColumnAttributeMapping("ha")["PROVENANCE"]
        assert (made["operation"], made["expression"]) == ("calc", "Histogram * 0.09")
        assert (made["raster"], made["band"]) == ("seg.tif", 1)
        assert made["inputs"] == ["Histogram", "class"]
        assert "duckdb" in made["versions"]
        assert table.getRatAttributeMapping()["RASTER"]["name"] == "seg.tif"
        assert table.getModificationLog("ha")
    # Of what was computed and what the raster has, and as GDAL sees it.
    calc(raster, {"both": "ha + red"})
    rat = attach(str(raster))
    names = [rat.GetNameOfCol(i) for i in range(rat.GetColumnCount())]
    assert names == ["Histogram", "red", "class", "ha", "is b", "both"]
    assert rat.ReadAsArray(5)[10] == 10 * 0.09 + 10
    shown = CliRunner().invoke(main, ["info", str(raster)]).output
    assert "calc 'Histogram * 0.09' from seg.tif" in shown


def test_a_new_sidecar_goes_where_it_can_not_be_finished(raster):
    with pytest.raises(ConversionError, match="row 0"):
        calc(raster, {"x": "red % 0"})
    assert not os.path.exists(f"{raster}.rat.zarr")


def test_a_further_table_and_an_open_dataset(raster):
    dataset = gdal.Open(str(raster))
    calc(dataset, {"row": "red"}, name="more")
    assert column(f"{raster}.more.rat.zarr", "row").tolist() == list(range(30))
    with RatZarr(f"{raster}.short.rat.zarr") as table:
        table.setRowCount(5)
        table.createColumn("s", np.float64)
    with pytest.raises(BridgeError, match="different numbers of rows: 's' 5 and 'red' 30"):
        calc(raster, {"x": "s + red"})
    with pytest.raises(BridgeError, match="has 5 rows, and the new columns have 30"):
        calc(raster, {"x": "red"}, name="short")
    with pytest.raises(BridgeError, match="is a table itself"):
        calc(f"{raster}.more.rat.zarr", {"x": "row"}, name="more")
    calc(raster, {"one": "1"}, name="more")
    assert column(f"{raster}.more.rat.zarr", "one").tolist() == [1] * 30


@pytest.mark.main_env_only
def test_a_table_of_no_rows(tmp_path):
    path = store(tmp_path, {"x": np.empty(0)})
    assert calc(path, {"y": "x + 1", "z": "2"}).rows == 0
    assert column(path, "y").dtype == np.float64


@pytest.mark.main_env_only
def test_on_s3(moto_s3):
    url = f"s3://{moto_s3.bucket}/dir/seg.tif.rat.zarr"
    with RatZarr(url) as table:
        table.setChunkSize(40)
        table.setRowCount(100)
        table.createColumns({"x": "f8", "n": "u4"})
        table.writeBlocks({"x": np.arange(100.0), "n": np.arange(100)}, 0)
    calc(url, {"y": "x * n", "n": "n + 1"}, overwrite=True)
    assert np.array_equal(column(url, "y"), np.arange(100.0) ** 2)
    assert column(url, "n").tolist() == list(range(1, 101))


def test_the_command(raster):
    def call(*args):
        return CliRunner().invoke(main, ["calc", str(raster), *args])

    done = call("--out", "neg", "-red", "--out", "half", "red / 2")
    assert done.exit_code == 0, done.output
    assert "neg (int32) = -red" in done.output
    assert column(f"{raster}.rat.zarr", "neg").tolist() == [-i for i in range(30)]
    done = call("--out", "half", "red / 2")
    assert (done.exit_code, "--overwrite" in done.output) == (1, True)
    done = call("--out", "half", "red * 1.0", "--overwrite", "--dtype", "int16", "--json")
    assert json.loads(done.output)["columns"][0]["dtype"] == "int16"
    done = call("--out", "a=b", "red", "--out", "c", "red", "--dtype", "a=b=float64")
    assert done.exit_code == 0, done.output
    assert column(f"{raster}.rat.zarr", "a=b").dtype == np.float64
    wrong = call("--out", "x", "rde + 1")
    assert (wrong.exit_code, 'did you mean "red"' in wrong.output) == (1, True)
    assert call("--out", "x", "red", "--out", "x", "red").exit_code == 2
    assert call().exit_code == 2
    assert call("--out", "x", "red", "--dtype", "u1", "--dtype", "u2").exit_code == 2
    assert "(nir - red) / (nir + red)" in CliRunner().invoke(main, ["calc", "--help"]).output


def test_without_duckdb_the_error_says_what_to_install(raster, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    done = CliRunner().invoke(main, ["calc", str(raster), "--out", "x", "red"])
    assert done.exit_code == 1
    assert "ratzarr[sql]" in done.output


@pytest.mark.parametrize("outputs", [{}, "x", ["x"]])
def test_outputs_are_a_mapping(raster, outputs):
    with pytest.raises(BridgeError, match="outputs is a mapping"):
        calc(raster, outputs)


# ---- texts that grow

LONG = {
    "repeat": "repeat(s, n * 1000000)",
    "repeat of a constant": "repeat('x', 2000000)",
    "lpad": "lpad(s, 300000, '.')",
    "rpad": "rpad(s, CAST(n * 300000 AS INTEGER), '.')",
    "printf": "printf('%2000000d', n)",
    "format": "format('{:>2000000}', s)",
    "replace": "replace(repeat('a', 100000), 'a', repeat('b', 1000))",
    "regexp_replace": "regexp_replace(repeat('a', 100000), 'a', repeat('b', 1000), 'g')",
    "concat_ws": f"concat_ws(repeat('a', 1000000), {', '.join(['s'] * 40)})",
    "hex": f"{'hex(' * 30}s{')' * 30}",
    "strftime": "strftime(DATE '2020-01-01', repeat('%A', 400000))",
    "damerau_levenshtein": "damerau_levenshtein(repeat('a', 9000), repeat('b', 9000))",
}


@pytest.mark.main_env_only
@pytest.mark.parametrize("name", LONG)
def test_texts_that_would_be_too_long(tmp_path, name):
    path = store(tmp_path, {"n": np.array([0, 1, 2]), "s": texts("a", "größe", "")})
    function = name.split()[0]
    for expression in LONG[name], f"length(CAST({LONG[name]} AS VARCHAR))":
        with pytest.raises(
            ConversionError, match=rf"row \d: {function}\(\) may take up to"
        ) as error:
            calc(path, {"out": expression})
        assert "allowed for one value" in str(error.value)
        assert not RatZarr(path, readOnly=True).colExists("out")


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    "expression",
    [
        "repeat(s, n)",
        "lpad(s, 20, '.') || rpad(s, CAST(n + 3 AS INTEGER), '-')",
        "printf('%5d %s %.3f', n, s, 0.5)",
        "format('{:>10} {} {{}}', s, n)",
        "replace(replace(s, 'a', 'aaaa'), 'ö', '')",
        "regexp_replace(s, '(.)', '\\1\\1', 'g')",
        "concat_ws(', ', s, NULL, s)",
        "hex(s) || to_base64(encode(s)) || regexp_escape(s)",
        "strftime(DATE '2020-02-29' + CAST(n AS INTEGER), '%A %d %B %Y')",
        "CASE WHEN n > 1 THEN repeat(s, n) ELSE lpad('', 3, '0') END",
        "coalesce(repeat(NULL, 3), 'none')",
    ],
)
def test_texts_that_grow_within_bounds_are_duckdbs(tmp_path, expression):
    import duckdb

    values = {"n": np.array([0, 1, 2]), "s": texts("a", "größe", "x.y")}
    path = store(tmp_path, values, chunk=2)
    rows = ", ".join(f"({n}, '{s}')" for n, s in zip(*values.values(), strict=True))
    query = f"SELECT {expression} FROM (VALUES {rows}) AS t(n, s)"
    wanted = [row[0] for row in duckdb.sql(query).fetchall()]
    assert result(path, expression).tolist() == wanted


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("printf(s, n)", "the first argument of printf() must be a quoted text"),
        ("format(s || '{}', n)", "the first argument of format() must be a quoted text"),
        ("printf('%*d', n, n)", "can't take widths from arguments"),
        ("format('{:{}}', s, n)", "can't take widths from arguments"),
        ("CAST(CAST(encode(s) AS BIT) AS VARCHAR)", "the type BIT"),
        ("CAST('[]' AS BIT[])", "the type BIT"),
        ("repeat(s)", "repeat() of 1 arguments"),
    ],
)
def test_texts_whose_length_nobody_can_know(tmp_path, expression, words):
    path = store(tmp_path, {"n": np.array([1]), "s": texts("a")})
    with pytest.raises(BridgeError) as error:
        calc(path, {"out": expression})
    assert words in str(error.value)


@pytest.mark.main_env_only
def test_long_texts_of_many_rows_stay_within_memory(tmp_path):
    """Computed some rows at a time: 6 GB pass through, 600 MB of results are refused."""
    rows = 60_000
    path = store(tmp_path, {"n": np.arange(rows)}, chunk=rows)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))\n"
        "from gdalbridge import calc\n"
        "from gdalbridge.errors import ConversionError\n"
        f"calc({path!r}, {{'out': \"length(repeat('x', 100000)) + n\"}})\n"
        "try:\n"
        f"    calc({path!r}, {{'more': \"repeat('x', 10000)\"}})\n"
        "except ConversionError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "the results take more than" in done.stdout
    assert column(path, "out").tolist() == [100_000 + n for n in range(rows)]


@pytest.mark.main_env_only
def test_an_error_in_a_later_piece_names_its_row(tmp_path):
    numbers = np.arange(500)
    numbers[407] = -1
    path = store(tmp_path, {"n": numbers}, chunk=500)
    with pytest.raises(ConversionError, match="row 407: "):
        calc(path, {"out": "length(repeat('x', 900000)) + CAST(n AS UINTEGER)"})
