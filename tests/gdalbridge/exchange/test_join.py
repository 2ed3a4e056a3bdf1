"""Data joined into a table by key, compared with what pandas merges."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gdalbridge
from gdalbridge import BridgeError, CancelledError, ConversionError
from gdalbridge.errors import OutputExistsError
from ratzarr import RatZarr, ReadOnlyError
from tests.gdalbridge.sample_rasters import INTEGER, REAL, make, new_rat

ROWS = 100


@pytest.fixture
def store(tmp_path):
    """A table whose keys are in no order, in blocks of 16 rows."""
    path = tmp_path / "seg.tif.rat.zarr"
    random = np.random.default_rng(7)
    with RatZarr(path, newRowCount=ROWS, newChunkSize=16) as table:
        table["Value"] = random.permutation(ROWS).astype("i4") * 3
        table["text"] = [f"größe {n % 10}" for n in range(ROWS)]
        table["half"] = np.arange(ROWS) / 2
        table["day"] = np.arange(ROWS).astype("M8[D]")
    return path


@pytest.fixture
def table(store):
    with gdalbridge.open_table(store) as found:
        yield found


def data(rows=60):
    """Data for some keys and others, with nulls, in no order."""
    random = np.random.default_rng(8)
    keys = random.choice(ROWS * 4, rows, replace=False)
    return pd.DataFrame(
        {
            "Value": keys,
            "i": pd.array(np.where(keys % 5 == 0, None, keys * 2**40), "Int64"),
            "u": pd.array(keys % 200, "UInt8"),
            "f": np.where(keys % 7 == 0, np.nan, keys / 3),
            "s": pd.array(np.where(keys % 3 == 0, None, keys.astype(str)), "str"),
            "t": pd.to_datetime(keys, unit="s").as_unit("ms").where(keys % 11 > 0),
        }
    )


def expected(table, frame, on):
    keys = pd.DataFrame({on: table[on][:]})
    return keys.merge(frame, how="left", on=on)


def check(table, frame, on="Value"):
    merged = expected(table, frame, on)
    found = table.to_arrow(list(frame.columns))
    for name in frame.columns:
        got, wanted = found[name].to_pylist(), merged[name]
        if name == "f":
            assert np.array_equal(np.array(got), wanted.to_numpy(), equal_nan=True)
        elif name == "s":
            assert got == ["" if pd.isna(one) else one for one in wanted.tolist()]
        else:
            assert got == [
                None if one is None or pd.isna(one) else one for one in wanted.tolist()
            ], name


@pytest.mark.parametrize(
    "kind", ["pandas", "index", "polars", "arrow", "csv", "parquet", "feather"]
)
def test_it_is_what_pandas_merges(table, tmp_path, kind):
    frame = data()
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    given = frame
    if kind == "index":
        given = frame.set_index("Value")
    elif kind == "polars":
        given = pl.from_arrow(arrow)
    elif kind == "arrow":
        given = arrow
    elif kind == "csv":
        given = tmp_path / "data.csv"
        frame.to_csv(given, index=False)
    elif kind == "parquet":
        given = str(tmp_path / "data.parquet")
        pq.write_table(arrow, given)
    elif kind == "feather":
        import pyarrow.feather

        given = tmp_path / "data.feather"
        pyarrow.feather.write_feather(arrow, given)
    report = table.update_from(given, on="Value")
    if kind == "csv":
        # pyarrow reads these as text of digits, int64 and seconds.
        frame["s"] = frame["s"].astype("Int64")
        found = table.to_arrow(["s", "u", "i"])
        merged = expected(table, frame, "Value")
        for name in ("s", "u", "i"):
            assert found[name].to_pylist() == [None if pd.isna(x) else x for x in merged[name]]
    else:
        check(table, frame)
        assert table["u"].dtype == np.uint8
        assert table["t"].dtype == np.dtype("M8[ms]")
    matched = int(np.isin(table["Value"][:], frame["Value"]).sum())
    assert (report.matched, report.missed) == (matched, ROWS - matched)
    unused = ~frame["Value"].isin(table["Value"][:])
    assert report.unused == unused.sum()
    assert report.unused_keys == tuple(map(str, sorted(frame["Value"][unused])[:3]))
    assert report.missing_values["i"] == -(2**63)


def test_the_sentinel_is_no_value_of_the_data(table):
    frame = pd.DataFrame({"row": [0, 1, 2], "u": np.array([255, 254, 0], "u1")})
    report = table.update_from(frame)
    assert report.missing_values == {"u": 253}
    assert table.to_arrow(["u"])["u"].to_pylist() == [255, 254, 0] + [None] * (ROWS - 3)
    everything = pd.DataFrame({"Value": np.arange(256), "all": np.arange(256).astype("u1")})
    with pytest.raises(ConversionError, match=r"every value of uint8.*wider"):
        table.update_from(everything, on="Value")
    assert "all" not in table


@pytest.mark.parametrize(
    ("on", "keys", "matched"),
    [
        ("row", pa.array([99, 5, 0], pa.uint64()), 3),
        ("row", pa.array([99.0, 5.0, 100.0]), 2),
        ("text", pa.array(["größe 1", "no", "größe 2"], pa.string_view()), 20),
        ("text", pa.array(["größe 1", "no", "größe 2"]).dictionary_encode(), 20),
        ("half", pa.array([1, 2, 1000]), 2),
        ("half", pa.array([0.5, float("nan"), 2.5]), 2),
        ("day", pa.array([3 * 86_400, 1, 0], pa.timestamp("s")), 2),
        ("day", pa.array([3, 1, None], pa.int32()).cast(pa.date32()), 2),
        ("Value", pa.array([6, 2**64 - 1, 0], pa.uint64()), 2),
        ("Value", pa.array([6, -3, None], pa.int8()), 1),
        ("Value", pa.array([6.0, 6.5, 9.0]), 2),
    ],
)
def test_keys_of_every_kind(table, on, keys, matched):
    report = table.update_from(pa.table({on: keys, "n": [1, 2, 3]}), on=on)
    assert (report.matched, report.missed) == (matched, ROWS - matched)
    first = keys[0].as_py()
    if on in ("row", "text", "half", "Value"):
        own = list(range(ROWS)) if on == "row" else table[on][:].tolist()
        got = table.to_arrow(["n"])["n"].to_pylist()
        assert [row for row, one in enumerate(got) if one == 1] == [
            row for row, one in enumerate(own) if one == first
        ]


def test_lists_get_a_row_of_missing_values(table):
    lists = pa.array([[1, None], [3, 4], None], pa.list_(pa.int16(), 2))
    table.update_from(pa.table({"row": [0, 1, 2], "l": lists}))
    assert table.to_arrow(["l"], rows=(0, 4))["l"].to_pylist() == [
        [1, None],
        [3, 4],
        [None] * 2,
        [None] * 2,
    ]


def test_duplicates_are_taken_once_if_they_are_equal(table):
    frame = pd.DataFrame(
        {"row": [3, 1, 3, 3], "f": [np.nan, 1, np.nan, np.nan], "s": [None, "b", None, None]}
    )
    report = table.update_from(frame)
    assert (report.duplicates, report.matched) == (2, 2)
    frame["s"] = ["a", "b", "a", "c"]
    with pytest.raises(BridgeError, match=r"2 rows with repeated keys.*row 3 .*'s'"):
        table.update_from(frame, columns=["s"], overwrite=True)
    assert table["s"][:4].tolist() == ["", "b", "", ""]


def test_existing_columns_are_replaced_only_with_overwrite(table):
    frame = pd.DataFrame({"row": [1], "half": [7], "new": [1]})
    with pytest.raises(OutputExistsError, match=r"columns 'half' already.*overwrite=True"):
        table.update_from(frame)
    assert "new" not in table
    table["half"].attrs["units"] = "ha"
    table.update_from(frame, overwrite=True)
    assert table.to_arrow(["half"], rows=(0, 2))["half"].to_pylist() == [None, 7]
    assert table["half"].attrs["units"] == "ha"
    # All values there: the missing_value of before is gone.
    whole = pd.DataFrame({"row": range(ROWS), "half": [-(2**63)] * ROWS})
    table.update_from(whole, overwrite=True)
    assert table.to_arrow(["half"])["half"].null_count == 0


def test_what_is_refused_leaves_nothing(table, store):
    before = sorted(os.listdir(store / "RAT"))
    for frame, on, words in (
        (
            {"Value": [0], "b": [True]},
            "Value",
            "'b', row .* no missing value: give the column as uint8",
        ),
        ({"Value": ["0"], "n": [1]}, "Value", "can't be compared with int32"),
        ({"Value": [1], "n": [1]}, "Value", "no row of the table has a key of the data.* 1"),
        ({"Value": [0], "n": [None]}, "Value", "'n' of the data has no value"),
        ({"Value": [0], "n": [[1]]}, "Value", "'n' of the data: no column can have"),
        ({"nope": [0], "n": [1]}, "nope", "no column 'nope' to join on"),
        ({"Value": [0]}, "Value", "no other column than the key"),
        ({"text": [2**60], "n": [1]}, "half", "the data has no column and no index 'half'"),
        ({"half": [2**60 + 1], "n": [1]}, "half", "integers and floats"),
    ):
        with pytest.raises(BridgeError, match=words):
            table.update_from(pd.DataFrame(frame), on=on)
    for given, words in (
        (7, "got int"),
        ("x.xlsx", "suffix"),
        (pd.DataFrame({"row": [1], "x": [object()]}), "can't be read: .*column x"),
        (pd.DataFrame([[1, 2, 3]], columns=["row", "x", "x"]), "[Dd]uplicate|several columns"),
    ):
        with pytest.raises((BridgeError, ValueError), match=words):
            table.update_from(given)
    with pytest.raises(BridgeError, match="no column 'z'"):
        table.update_from(pd.DataFrame({"row": [1], "x": [1]}), columns=["z"])
    assert sorted(os.listdir(store / "RAT")) == before
    with gdalbridge.open_table(store, update=False) as closed, pytest.raises(ReadOnlyError):
        closed.update_from(pd.DataFrame({"row": [1], "x": [1]}))


def test_zeros_of_either_sign_are_one_key(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path, newRowCount=3) as store:
        store["x"] = np.array([0.0, -0.0, 1.0], "f4")
    with gdalbridge.open_table(path) as table:
        table.update_from(pd.DataFrame({"x": [-0.0], "n": [7]}), on="x")
        assert table.to_arrow(["n"])["n"].to_pylist() == [7, 7, None]
        table.update_from(pd.DataFrame({"x": [0.0], "m": [7]}), on="x")
        assert table.to_arrow(["m"])["m"].to_pylist() == [7, 7, None]


def test_a_cancelled_join_leaves_the_old_column(store, table):
    frame = pd.DataFrame({"row": range(ROWS), "half": 1.0, "new": 2})
    with pytest.raises(CancelledError):
        table.update_from(frame, overwrite=True, progress=lambda done, *_: done < 0.9)
    assert table["half"][:].tolist() == (np.arange(ROWS) / 2).tolist()
    assert "new" not in table
    with RatZarr(store, readOnly=True) as again:
        assert again.getColumnNames() == ["Value", "text", "half", "day"]


def test_into_a_raster_and_its_provenance(tmp_path):
    raster = tmp_path / "seg.tif"
    rat = new_rat([("Value", INTEGER, 5, [4, 2, 9]), ("Histogram", REAL, 1, [1.0, 2.0, 3.0])], 3)
    dataset = make(raster)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    with gdalbridge.open_table(raster) as table:
        with pytest.raises(BridgeError, match="no row"):
            table.update_from(pd.DataFrame({"Value": [7], "n": [1]}), on="Value")
        assert not os.path.exists(f"{raster}.rat.zarr")
        table.update_from(pd.DataFrame({"Value": [9, 4], "n": [90, 40]}), on="Value")
        assert table.to_arrow(["n"])["n"].to_pylist() == [40, None, 90]
        assert table["n"].attrs["PROVENANCE"]["operation"] == "join"


def test_integers_beyond_64_bits_in_csv_are_not_rounded(table, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(f"row,n,f\n0,{2**64 - 1},1e30\n1,,5\n")
    table.update_from(path)
    assert table["n"].dtype == np.uint64
    assert table.to_arrow(["n"], rows=(0, 2))["n"].to_pylist() == [2**64 - 1, None]
    assert table["f"][:2].tolist() == [1e30, 5]
    path.write_text(f"row,n2\n0,{2**64}\n")
    with pytest.raises(ConversionError, match="'n2' has integers beyond 64 bits"):
        table.update_from(path)


def test_csv_that_is_not_utf_8_is_refused(table, tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes("row,town\n0,Jérémie\n".encode("cp1252"))
    before = table.columns
    with pytest.raises(BridgeError, match=r"column 'town' of .* is not UTF-8 text"):
        table.update_from(path)
    assert table.columns == before


LATE = 250_000
"""Rows of CSV that are more than one block of it."""


@pytest.mark.parametrize(
    ("first", "late", "dtype"),
    [
        ("1", "2", "i8"),
        ("1", "2.5", "f8"),
        ("", "7", "i8"),
        ("1", str(2**63 + 1), "u8"),
        ("0", "true", "?"),
        ("2020-01-02", "2020-01-02 03:04:05", "M8[s]"),
        ("2020-01-02 03:04:05", "2020-01-02 03:04:05.000000001", "M8[ns]"),
        ("1", "1 a", "T"),
        ("2020-01-02", "7", "T"),
        ("true", "größe", "T"),
    ],
)
def test_types_of_csv_are_those_of_all_its_rows(tmp_path, first, late, dtype):
    path, place = tmp_path / "d.csv", tmp_path / "t.rat.zarr"
    lines = [f"{row},{first},a line of text\n" for row in range(LATE)]
    lines[-1] = f'{LATE - 1},{late},"two\nlines"\n'
    path.write_text("row,x,s\n" + "".join(lines))
    RatZarr(place, newRowCount=LATE).close()
    with gdalbridge.open_table(place) as table:
        assert table.update_from(path).matched == LATE
        dtype = np.dtypes.StringDType() if dtype == "T" else np.dtype(dtype)
        assert table["x"].dtype == dtype
        ends = [table["x"][0], table["x"][LATE - 1]]
        assert table["s"][LATE - 1] == "two\nlines"
        missing = table["x"].attrs.get("missing_value")
    if first:
        if dtype.kind == "b":
            assert ends == [False, True]
        else:
            kind = dtype.type if dtype.kind in "iuf" else str
            wanted = np.array([kind(first), kind(late)]).astype(dtype)
            assert ends == wanted.tolist() or (np.array(ends, dtype) == wanted).all()
    else:
        assert ends == [missing, int(late)]


IMPORT_MEMORY = """
import sys
from tests.memory import peak
import gdalbridge
before = peak()
report = gdalbridge.open_table(sys.argv[1]).update_from(sys.argv[2])
assert report.matched == report.rows, report
print(peak() - before)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_memory_does_not_grow_with_the_data(tmp_path, suffix):
    """Only the keys are in memory."""
    peaks = {}
    for rows in (1_000_000, 3_000_000):
        path = tmp_path / f"{rows}.rat.zarr"
        with RatZarr(path, newRowCount=rows, newChunkSize=100_000) as table:
            for name in "abcdef":
                table[name] = np.arange(rows) / 7
        data = tmp_path / f"{rows}.{suffix}"
        gdalbridge.export_table(path, data)
        other = tmp_path / f"{rows}-other.rat.zarr"
        RatZarr(other, newRowCount=rows, newChunkSize=100_000).close()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", IMPORT_MEMORY, other, data],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks[rows] = int(done.stdout)
    # Two million more rows are 112 MB, and their text more. Their keys, the order of the keys, and the
    # sorted keys are 48 MB.
    assert peaks[3_000_000] < peaks[1_000_000] + 64, peaks
    print(peaks)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_an_export_comes_back(store, tmp_path, suffix):
    out = tmp_path / f"o.{suffix}"
    gdalbridge.export_table(store, out)
    other = tmp_path / "other.rat.zarr"
    RatZarr(other, newRowCount=ROWS).close()
    with gdalbridge.open_table(other) as table, gdalbridge.open_table(store) as before:
        report = table.update_from(out)
        assert (report.matched, report.missed, report.unused) == (ROWS, 0, 0)
        assert table.columns == before.columns
        for name in before:
            assert table[name][:].tolist() == before[name][:].tolist()
        if suffix != "csv":
            assert [table[name].dtype for name in table] == [before[name].dtype for name in before]


def test_a_table_without_rows_says_what_to_do(tmp_path):
    make(tmp_path / "seg.tif").FlushCache()
    with gdalbridge.open_table(tmp_path / "seg.tif") as table:
        frame = pd.DataFrame({"row": [1, 0], "n": [10, 0]})
        with pytest.raises(BridgeError, match="rowCount = n"):
            table.update_from(frame)
        table.rowCount = 2
        assert len(table) == 2
        table.update_from(frame)
        assert table["n"][:].tolist() == [0, 10]


MEMORY = """
import sys
import numpy as np, pandas as pd
from tests.memory import peak
import gdalbridge
table = gdalbridge.open_table(sys.argv[1])
report = table.update_from(pd.DataFrame({"key": np.arange(1000), "f": np.arange(1000.0)}), on="key")
assert report.matched == int(sys.argv[2]), report
gdalbridge.export_table(sys.argv[1], sys.argv[1] + ".csv")
gdalbridge.export_table(sys.argv[1], sys.argv[1] + ".parquet")
gdalbridge.export_table(sys.argv[1], sys.argv[1] + ".arrow", where="a > 10 AND key <> 7")
gdalbridge.export_table(sys.argv[1], sys.argv[1] + ".gpkg", columns=["key"])
print(peak())
"""


@pytest.mark.main_env_only
@pytest.mark.thorough
def test_memory_does_not_grow_with_the_table(tmp_path):
    peaks = {}
    for rows in (4_000_000, 10_000_000):
        path = tmp_path / f"{rows}.rat.zarr"
        with RatZarr(path, newRowCount=rows, newChunkSize=100_000) as table:
            table["key"] = np.arange(rows) % 1000
            for name in "abcd":
                table[name] = np.arange(rows) / 7
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MEMORY, path, str(rows)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks[rows] = int(done.stdout)
    # Six million more rows of these columns take 290 MB.
    assert peaks[10_000_000] < peaks[4_000_000] + 180, peaks
    print(peaks)


@pytest.mark.parametrize(
    ("separator", "decimal"), [(";", ","), (";", "."), ("\t", ","), ("|", ".")]
)
def test_separators_of_other_countries(tmp_path, separator, decimal):
    lines = ["row;height;name", "1;2.5;Ann, B.", "0;-10.25;Bob"]
    path = tmp_path / "data.csv"
    text = [line.replace(".5", f"{decimal}5").replace(".25", f"{decimal}25") for line in lines]
    path.write_text("\n".join(line.replace(";", separator) for line in text))
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3):
        pass
    with gdalbridge.open_table(tmp_path / "t.rat.zarr") as table:
        report = table.update_from(path)
        assert report.dtypes == {"height": "float64", "name": "str"}
        assert "height: float64" in str(report)
        assert table["height"][:2].tolist() == [-10.25, 2.5]
        assert table["name"][:].tolist() == ["Bob", "Ann, B.", ""]


def test_a_comma_in_the_header_decides(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("row,a;b\n1,x;y\n")
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3):
        pass
    with gdalbridge.open_table(tmp_path / "t.rat.zarr") as table:
        table.update_from(path)
        assert table["a;b"][1] == "x;y"


def test_a_key_that_is_no_number_is_named(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("row,a\n1,5\nx,6\n")
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3):
        pass
    with (
        gdalbridge.open_table(tmp_path / "t.rat.zarr") as table,
        pytest.raises(BridgeError, match="row 1 of it has 'x'"),
    ):
        table.update_from(path)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([2**53 + 1, 0.5], f"'n' of .* has {2**53 + 1} beside '0.5'"),
        ([2**53 + 1, "+3"], rf"'n' of .* has {2**53 + 1} beside '\+3'"),
        ([2**64 - 1, -3], "'n' has -3, and integers from 2\\*\\*63 on"),
    ],
)
def test_integers_of_csv_that_floats_would_round_are_refused(table, tmp_path, cells, words):
    path = tmp_path / "d.csv"
    path.write_text("".join(f"{row},{cell}\n" for row, cell in [("row", "n"), *enumerate(cells)]))
    with pytest.raises(ConversionError, match=words):
        table.update_from(path)
    assert "n" not in table
    path.write_text(f"row,n\n0,{2**53 + 2}\n1,0.5\n")
    table.update_from(path)
    assert table["n"][:2].tolist() == [2.0**53 + 2, 0.5]


def test_keys_of_csv_are_text_if_the_tables_are(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("code,n\n007,1\n010,2\n")
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["code"] = ["010", "7", "007"]
    with gdalbridge.open_table(tmp_path / "t.rat.zarr") as table:
        table.update_from(path, on="code")
        assert table.to_arrow(["n"])["n"].to_pylist() == [2, None, 1]


def test_what_a_frame_lacks_is_said(table, tmp_path):
    with pytest.raises(BridgeError, match=r"no column and no index 'row'.*rename_axis\('row'\)"):
        table.update_from(pd.DataFrame({"w": [1, 2]}))
    with pytest.raises(BridgeError, match="the data has no rows"):
        table.update_from(pd.DataFrame({"row": np.zeros(0, int), "w": np.zeros(0)}))
    path = tmp_path / "d.csv"
    pd.DataFrame({"row": [0], "w": [1]}).to_csv(path)
    with pytest.raises(BridgeError, match=r"d\.csv has a column without a name"):
        table.update_from(path)
    table.update_from(path, columns=["w"])
    assert table["w"][0] == 1


def test_an_index_and_a_column_of_the_same_name(table):
    frame = pd.DataFrame({"row": [1, 0], "w": [10, 20]}).rename_axis("row")
    table.update_from(frame)
    assert table["w"][:2].tolist() == [20, 10]
    assert "__index_level_0__" not in table


def test_keys_out_of_range_are_named(table):
    keys = np.array([0, 2**64 - 1], "u8")
    report = table.update_from(pd.DataFrame({"row": keys, "w": [1, 2]}))
    assert report.unused_keys == (str(2**64 - 1),)
