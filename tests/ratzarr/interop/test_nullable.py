"""Nulls among integers of pandas, Polars and Arrow become a missing_value, and are NULL again."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ratzarr import RatZarr, UnequalValueError

BIG = 2**53 + 1


@pytest.fixture
def table(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3) as found:
        yield found


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pd.Series([1, None, BIG], dtype="Int64"), "i8"),
        (pd.Series([1, None, 2**64 - 1], dtype="uint64[pyarrow]"), "u8"),
        (pl.Series([-128, None, 127], dtype=pl.Int8), "i1"),
        (pa.array([255, None, 254], pa.uint8()), "u1"),
        (pa.chunked_array([[BIG], [None, -(2**63)]], pa.int64()), "i8"),
        (pa.array([None, None, None], pa.int16()), "i2"),
    ],
)
def test_they_read_back_as_they_were(table, values, dtype):
    table["x"] = values
    given = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    expected = [None if one is None or one is pd.NA else int(one) for one in given]
    assert table.to_arrow(["x"])["x"].to_pylist() == expected
    stored = table.readBlock("x", 0, 3)
    assert stored.dtype == np.dtype(dtype)
    missing = table.getColumnAttributeMapping("x")["missing_value"]
    assert (stored == missing).tolist() == [one is None for one in expected]


def test_a_dtype_whose_values_are_all_taken(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=257) as table:
        with pytest.raises(UnequalValueError, match=r"every value of uint8.*wider"):
            table["x"] = pa.array([*range(256), None], pa.uint8())
        assert table.getColumnNames() == []


def test_other_nulls_are_still_refused(table):
    for values in (pa.array(["a", None, "b"]), pd.Series([True, None, False], dtype="boolean")):
        with pytest.raises(UnequalValueError, match="fill the block first"):
            table["x"] = values
    assert table.getColumnNames() == []


def test_text_of_no_rows_is_empty(table):
    table["s"] = ["a", "b", "c"]
    assert table.to_arrow(["s"], rows=(1, 1))["s"].to_pylist() == []


def test_a_replaced_column_forgets_the_value_for_missing(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=3) as table:
        table["n"] = pd.Series([1, None, 3], dtype="UInt8")
        missing = table["n"].attrs["missing_value"]
        table["n"] = np.array([missing, 1, 2], "u1")
        assert table.to_arrow()["n"].to_pylist() == [missing, 1, 2]


def test_a_column_of_a_table_keeps_its_value_for_missing(table, tmp_path):
    table["n"] = pd.Series([1, None, BIG], dtype="Int64")
    with RatZarr(tmp_path / "other.rat.zarr", newRowCount=3) as other:
        other["n"] = pd.Series([None, 1, 2], dtype="UInt8")
        for target, name in ((table, "copy"), (table, "n"), (other, "new"), (other, "n")):
            target[name] = table["n"]
            assert target.to_arrow([name])[name].to_pylist() == [1, None, BIG]
