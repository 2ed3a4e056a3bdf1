"""A store as a container of columns; numpy is the judge."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from zarr.storage import MemoryStore

import ratzarr
from ratzarr import (
    ArgumentError,
    ColumnNotFoundError,
    RatZarr,
    RatZarrError,
    ReadOnlyError,
    ShapeError,
)

ROWS = 2_500


@pytest.fixture
def table(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=ROWS, newChunkSize=1000) as table:
        table["x"] = np.arange(ROWS) / 4
        table["v"] = np.arange(2 * ROWS).reshape(ROWS, 2)
        yield table


def files(table):
    """Return the names of all files of a store."""
    top = Path(table.filename)
    return {
        str(Path(root, name).relative_to(top)) for root, _, names in os.walk(top) for name in names
    }


def test_a_table_is_a_container_of_its_columns(table):
    assert len(table) == ROWS
    assert list(table) == table.columns == ["x", "v"]
    assert "x" in table
    assert "nope" not in table
    assert 7 not in table
    del table["x"]
    assert list(table) == ["v"]
    with pytest.raises(ColumnNotFoundError, match="'x'"):
        table["x"]
    with pytest.raises(ColumnNotFoundError, match="'x'"):
        del table["x"]
    with pytest.raises(ArgumentError, match="to_arrow"):
        table[0:10]


def test_a_table_without_rows_is_true(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr")) as table:
        assert table
        assert len(table) == 0


@pytest.mark.parametrize("key", [
    slice(None), slice(10), slice(990, 2010), slice(-3, None), slice(5, 2), slice(100, 2000, 7),
    slice(2000, 100, -7), slice(None, None, -1), 0, -1, 1234, np.int64(7), ...,
])  # fmt: skip
@pytest.mark.parametrize("name", ["x", "v"])
def test_a_column_is_indexed_as_an_array(table, name, key):
    values = np.arange(ROWS) / 4 if name == "x" else np.arange(2 * ROWS).reshape(ROWS, 2)
    column = table[name]
    assert np.array_equal(column[key], values[key])
    assert column.dtype == values.dtype
    assert column.shape == values.shape
    assert column.ndim == values.ndim
    assert len(column) == ROWS


@pytest.mark.parametrize("key", [[0, 2], np.array([0, 2]), np.ones(ROWS, bool), "x", 1.5])
def test_other_indexes_are_refused(table, key):
    with pytest.raises(ArgumentError, match=r"takes a row number or a slice of rows"):
        table["x"][key]


def test_parts_of_rows(table):
    assert np.array_equal(table["v"][5:8, 1], [11, 13, 15])
    assert table["v"][5, 1] == 11


def test_a_whole_column_for_numpy_and_arrow(table):
    assert np.array_equal(np.asarray(table["x"]), np.arange(ROWS) / 4)
    assert np.asarray(table["x"], "f4").dtype == np.float32
    assert pa.chunked_array(pa.array(table["x"])).to_pylist() == (np.arange(ROWS) / 4).tolist()
    assert sum(table["x"]) == (np.arange(ROWS) / 4).sum()
    assert np.mean(table["x"]) == np.mean(np.arange(ROWS) / 4)


@pytest.mark.parametrize(("key", "error"), [(ROWS, IndexError), (-ROWS - 1, IndexError),
    ("x", ArgumentError), ([1, 2], ArgumentError), (1.5, ArgumentError), (True, ArgumentError)])  # fmt: skip
def test_wrong_rows_are_named(table, key, error):
    with pytest.raises(error, match="'x'"):
        table["x"][key]


def test_a_column_is_neither_true_nor_false(table):
    with pytest.raises(ArgumentError, match="'x'"):
        bool(table["x"])


def test_a_column_is_not_compared_as_a_whole(table):
    column = table["x"]
    for compare in (column.__eq__, column.__ne__):
        with pytest.raises(ArgumentError, match=r"'x' is not compared as a whole.*column\[:\]"):
            compare(3)
    assert column == column
    assert column != table["v"]
    assert len({column, table["v"]}) == 2
    assert np.array_equal(np.arange(ROWS) / 4 == np.asarray(column), np.full(ROWS, True))


def test_attributes_are_saved_at_once(table):
    table["x"].attrs["units"] = "m"
    assert RatZarr(table.filename, readOnly=True)["x"].attrs["units"] == "m"


GIVEN = {
    "numpy": np.arange(ROWS, dtype="u2"),
    "big-endian": np.arange(ROWS, dtype=">i4"),
    "strings": np.array([f"s{k}" for k in range(ROWS)]),
    "StringDType": np.array(["näh"] * ROWS, np.dtypes.StringDType()),
    "bool": np.arange(ROWS) % 2 == 0,
    "dates": np.datetime64("2020-01-01", "D") + np.arange(ROWS),
    "two-dimensional": np.arange(3 * ROWS, dtype="f4").reshape(ROWS, 3),
    "list": list(range(ROWS)),
    "list of text": ["a", "bc"] * (ROWS // 2),
    "list of bytes": [b"a\x00", b""] * (ROWS // 2),
    "pandas": pd.Series(np.arange(ROWS) + 0.5),
    "pandas Int64": pd.Series(np.arange(ROWS), dtype="Int64") + 2**53,
    "pandas text": pd.Series(["a", "bc"] * (ROWS // 2)),
    "pandas categories": pd.Series(["a", "bc"] * (ROWS // 2), dtype="category"),
    "pandas Arrow": pd.Series(np.arange(ROWS), dtype="uint32[pyarrow]"),
    "polars": pl.Series(np.arange(ROWS)),
    "polars text": pl.Series(["a", "bc"] * (ROWS // 2)),
    "polars dates": pl.Series(np.datetime64("2020-01-01", "us") + np.arange(ROWS)),
    "arrow": pa.array(np.arange(ROWS)),
    "arrow chunks": pa.chunked_array([np.arange(1000), np.arange(1000, ROWS)]),
    "arrow text": pa.array(["a", "bc"] * (ROWS // 2)),
}


@pytest.mark.parametrize("kind", list(GIVEN))
@pytest.mark.parametrize("name", ["new", "x"])
def test_values_of_every_library_are_stored_exactly(table, kind, name):
    given = GIVEN[kind]
    table[name] = given
    found = RatZarr(table.filename, readOnly=True)[name][:]
    # An array of bytes would drop the zero bytes at the end.
    assert found.tolist() == (given if isinstance(given, list) else np.asarray(given).tolist())
    if isinstance(given, np.ndarray) and given.dtype.kind not in "UT":
        assert found.dtype == given.dtype.newbyteorder("=")
    assert table.columns.count(name) == 1


def test_a_scalar_is_the_value_of_all_rows(table):
    table["flag"] = 7
    table["class"] = "forest"
    assert set(table["flag"]) == {7}
    assert set(table["class"]) == {"forest"}


def test_a_column_of_another_table(table, tmp_path):
    with RatZarr(str(tmp_path / "b.rat.zarr"), newRowCount=ROWS) as other:
        other["copy"] = table["v"]
        assert np.array_equal(other["copy"][:], table["v"][:])
        assert other["copy"].dtype == table["v"].dtype


@pytest.mark.parametrize("make", [lambda folder: folder / "b.rat.zarr", lambda _: MemoryStore()])
def test_a_column_replaced_by_itself(tmp_path, make):
    """In other chunks, for example; rows that wait in the write buffer are its rows too."""
    values = np.arange(9)
    with RatZarr(make(tmp_path), newRowCount=9, newChunkSize=4, writeBuffer=True) as table:
        table.createColumn("x", "int64")
        table.writeBlock("x", values, 0)
        table.setChunkSize(2)
        table["x"] = table["x"]
        assert table["x"][:].tolist() == values.tolist()
        assert table.getColumnChunkSize("x") == 2
        table["y"] = table["x"]
        assert table["y"][:].tolist() == values.tolist()


def test_the_first_column_of_an_empty_table_sets_its_rows(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr")) as table:
        table["x"] = [1, 2, 3]
        assert table.rowCount == 3
        with pytest.raises(ShapeError, match=r"3 rows.*'y'.*2"):
            table["y"] = [1, 2]


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("rows", [ROWS - 3, ROWS + 3])
def test_values_for_a_table_that_another_process_has_resized(table, rows, replaces):
    """Rows that another process has added would have no value."""
    name = "x" if replaces else "y"
    assert len(table) == ROWS
    with RatZarr(table.filename) as other:
        other.setRowCount(rows)
    with pytest.raises(RatZarrError, match=f"has {rows} rows"):
        table[name] = np.ones(ROWS)
    assert table.columns == ["x", "v"]
    assert table["x"][:3].tolist() == [0, 0.25, 0.5]
    table[name] = np.ones(rows)
    assert table[name][:].tolist() == [1] * rows


WRONG = {
    "another number of rows": (np.zeros(3), ShapeError),
    "three dimensions": (np.zeros((ROWS, 2, 2)), ShapeError),
    "None in text": (["a", None] * (ROWS // 2), ratzarr.UnsupportedDtypeError),
    "masked": (np.ma.masked_equal(np.arange(ROWS), 5), ratzarr.UnequalValueError),
    "mixed": (["a", 1] * (ROWS // 2), ratzarr.UnsupportedDtypeError),
    "objects": ([{}] * ROWS, ratzarr.UnsupportedDtypeError),
    "complex": (np.zeros(ROWS, complex), ratzarr.UnsupportedDtypeError),
    "surrogate": (["a", "\ud800"] * (ROWS // 2), ratzarr.RatZarrError),
    "time zone": (pl.Series([0] * ROWS).cast(pl.Datetime("us", "UTC")), ratzarr.UnsupportedDtypeError),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(WRONG))
@pytest.mark.parametrize("name", ["new", "x"])
def test_what_fails_leaves_nothing_behind(table, kind, name):
    values, error = WRONG[kind]
    table.flush()
    before, kept = files(table), table["x"][:]
    with pytest.raises(error):
        table[name] = values
    assert table.columns == ["x", "v"]
    assert np.array_equal(table["x"][:], kept)
    assert files(table) == before


class Interrupted:
    """An array whose reading the user interrupts."""

    dtype, shape = np.dtype("f8"), (ROWS,)

    def __array__(self, dtype=None, copy=None):
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing_behind(table):
    before = files(table)
    with pytest.raises(KeyboardInterrupt):
        table["new"] = Interrupted()
    assert table.columns == ["x", "v"]
    assert files(table) == before


def test_nothing_is_written_to_a_table_opened_for_reading(table):
    reader = RatZarr(table.filename, readOnly=True)
    with pytest.raises(ReadOnlyError):
        reader["new"] = np.zeros(ROWS)
    with pytest.raises(ReadOnlyError):
        del reader["x"]
    assert reader.columns == ["x", "v"]


def test_frames_can_be_read_in_another_process(table):
    reopened = pickle.loads(pickle.dumps(table.to_xarray()["x"]))
    assert np.array_equal(reopened.values, table["x"][:])


@pytest.mark.parametrize(
    "read",
    [lambda table: table.to_xarray()["x"].values, lambda table: table.to_dask()["x"].compute()],
)
def test_frames_have_the_rows_in_the_write_buffer(tmp_path, read):
    with RatZarr(
        tmp_path / "t.rat.zarr", newRowCount=6, newChunkSize=4, writeBuffer=True
    ) as table:
        table.createColumn("x", "int64")
        for values in ([1, 2, 3], [4, 5, 6]):
            table.writeBlock("x", values, 1)
            assert read(table).tolist() == [0, *values, 0, 0]


def test_values_in_another_order_of_rows_are_refused(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3) as table:
        table["x"] = [3.0, 1.0, 2.0]
        frame = table.to_pandas()
        with pytest.raises(ArgumentError, match="not in the order of the rows"):
            table["y"] = frame.x.sort_values()
        assert table.columns == ["x"]
        table["y"] = frame.x.sort_values().sort_index()
        table["z"] = frame.x.sort_values().to_numpy()
        table["u"] = pd.Series([1.0, 2.0, 3.0], index=[2, 1, 0])
        assert table["y"][:].tolist() == [3.0, 1.0, 2.0]
        assert table["z"][:].tolist() == [1.0, 2.0, 3.0]
        assert table["u"][:].tolist() == [1.0, 2.0, 3.0]


def test_a_missing_column_has_near_names(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3) as table:
        table["ndvi"] = 1.0
        for call in (lambda: table["ndvii"], lambda: table.to_arrow(["ndvii"])):
            with pytest.raises(ColumnNotFoundError, match='did you mean "ndvi"'):
                call()
        with pytest.raises(ColumnNotFoundError, match='did you mean "ndvi"'):
            table.readBlock("ndvii", 0, 1)
