"""A table as an Arrow dataset: Arrow and DuckDB on arrays in memory are the judges."""

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

import ratzarr
from ratzarr import ArgumentError, ChangedError, ColumnNotFoundError, RatZarr

ROWS, CHUNK = 3_500, 1_000
FIELD = ds.field


def arrays():
    """Return a column of every kind, as written and as Arrow."""
    random = np.random.default_rng(7)
    floats = random.normal(size=ROWS)
    floats[::17] = np.nan
    words = ["", "a", "näh", "x" * 300, "with\x00zero", "日本"]
    text = np.array([words[k % 6] for k in range(ROWS)], np.dtypes.StringDType())
    days = np.datetime64("1999-12-31", "D") + np.arange(ROWS)
    seconds = np.datetime64("2001-01-01T00:00:00", "s") + np.arange(ROWS) * 3601
    seconds[5] = "NaT"
    never = np.isnat(seconds)
    return {
        "f8": (floats, pa.array(floats, from_pandas=False)),
        "f4": (floats.astype("f4"), pa.array(floats.astype("f4"), from_pandas=False)),
        "f2": (floats.astype("f2"), pa.array(floats.astype("f2").astype("f4"))),
        "i1": (np.arange(ROWS).astype("i1"), pa.array(np.arange(ROWS).astype("i1"))),
        "u8": (np.arange(ROWS, dtype="u8") + 2**63, pa.array(np.arange(ROWS, dtype="u8") + 2**63)),
        "bool": (np.arange(ROWS) % 3 == 0, pa.array(np.arange(ROWS) % 3 == 0)),
        "text": (text, pa.array([words[k % 6] for k in range(ROWS)])),
        "day": (days, pa.array(days)),
        "second": (seconds, pa.array(seconds, mask=never)),
        "hour": (days.astype("M8[h]"), pa.array(days.astype("M8[s]"))),
        "month": (days.astype("M8[M]"), pa.array(days.astype("M8[M]").astype("M8[D]"))),
        "S3": (np.array([b"ab", b"", b"c"] * (ROWS // 3 + 1), "S3")[:ROWS],
               pa.array(([b"ab", b"", b"c"] * (ROWS // 3 + 1))[:ROWS], pa.binary())),
        "pair": (np.arange(2 * ROWS, dtype="i4").reshape(ROWS, 2),
                 pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * ROWS, dtype="i4")), 2)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("stored") / "a.rat.zarr")
    with RatZarr(place, newRowCount=ROWS, newChunkSize=CHUNK) as table:
        for name, (values, _) in arrays().items():
            table[name] = values
    return place


@pytest.fixture
def table(stored):
    return RatZarr(stored, readOnly=True)


@pytest.fixture(scope="module")
def expected():
    return pa.table({name: array for name, (_, array) in arrays().items()})


def plain(table):
    """Return a table's rows, with NaN as text: NaN is not equal to itself."""
    return [
        tuple("nan" if isinstance(one, float) and one != one else one for one in row.values())
        for row in table.to_pylist()
    ]


@pytest.mark.parametrize("name", list(arrays()))
def test_every_dtype_becomes_the_arrow_array_of_its_values(table, expected, name):
    found = table.to_arrow([name])
    assert plain(found) == plain(expected.select([name]))
    if name != "pair":
        assert found.schema.field(name).type == expected.schema.field(name).type


def test_all_columns_in_order_through_the_stream(table, expected):
    found = pa.table(table)
    assert found.column_names == expected.column_names
    assert plain(found) == plain(expected)


@pytest.mark.parametrize(
    "rows", [slice(10), slice(990, 1010), slice(-5, None), (0, 0), range(2000, 3500), slice(5, 2)]
)
def test_row_ranges(table, expected, rows):
    found = table.to_arrow(["f8", "text"], rows)
    wanted = slice(*rows) if isinstance(rows, tuple) else slice(rows.start, rows.stop)
    start, stop, _ = wanted.indices(ROWS)
    assert plain(found) == plain(
        expected.select(["f8", "text"]).slice(start, max(0, stop - start))
    )


FILTERS = {
    "a comparison": FIELD("i1") > 100,
    "with NaN": FIELD("f8") > 0.5,
    "is NaN": pc.is_nan(FIELD("f8")),
    "null": FIELD("second").is_null(),
    "text": FIELD("text") == "näh",
    "two columns": (FIELD("bool") & (FIELD("u8") < pa.scalar(2**63 + 100, pa.uint64())))
    | FIELD("text").isin(["日本"]),
    "rows": (FIELD("row") >= 995) & (FIELD("row") < 2003),
    "one row": FIELD("row") == 3499,
    "rows in a list": FIELD("row").isin([3, 1500, 99_999]),
    "rows and values": (FIELD("row") < 1500) & (FIELD("f8") > 1) | (FIELD("row") == 3000),
    "not a row": FIELD("row") < 0,
    "a row as a float": FIELD("row") == 7.0,
    "computed row": FIELD("row") * 2 > 6900,
}


@pytest.mark.parametrize("name", list(FILTERS))
def test_filters_are_exact(table, expected, name):
    numbered = expected.append_column("row", pa.array(np.arange(ROWS)))
    wanted = numbered.filter(FILTERS[name]).select(["i1", "f8", "text", "row"])
    found = table.scan(filter=FILTERS[name]).to_table(columns=["i1", "f8", "text", "row"])
    assert plain(found) == plain(wanted)
    again = table.scan().to_table(columns=["i1", "f8", "text", "row"], filter=FILTERS[name])
    assert plain(again) == plain(wanted)
    assert table.scan().count_rows(filter=FILTERS[name]) == wanted.num_rows
    assert table.scan(filter=FILTERS[name]).count_rows() == wanted.num_rows


def test_filters_and_ranges_add_up(table, expected):
    scan = table.scan(["i1"], slice(100, 900), FIELD("i1") > 50).filter(FIELD("i1") < 60)
    wanted = expected.slice(100, 800).filter((FIELD("i1") > 50) & (FIELD("i1") < 60))
    assert scan.to_table(columns=["i1"]).to_pydict() == wanted.select(["i1"]).to_pydict()
    assert scan.head(3, columns=["i1"]).num_rows == 3


def test_computed_columns(table, expected):
    found = table.scan().to_table(columns={"twice": pc.multiply(FIELD("i1"), 2)})
    wanted = ds.dataset(expected).to_table(columns={"twice": pc.multiply(FIELD("i1"), 2)})
    assert found == wanted


def test_a_batch_is_no_larger_than_asked_for(table):
    sizes = [one.num_rows for one in table.scan().to_batches(batch_size=300)]
    assert sum(sizes) == ROWS
    assert max(sizes) <= 300


@pytest.mark.parametrize("query", [
    "SELECT i1, count(*), sum(u8 - 9223372036854775808), avg(f8) FILTER (NOT isnan(f8)) FROM rat GROUP BY 1",
    "SELECT text, count(*) FROM rat GROUP BY 1",
    "SELECT count(*) FROM rat WHERE f8 >= 0.3",
    "SELECT count(*) FROM rat WHERE f8 BETWEEN 0.1 AND 0.2 OR f4 < -1",
    "SELECT count(*) FROM rat WHERE text IN ('a', '日本') AND bool",
    "SELECT count(*), min(day), max(month) FROM rat WHERE second IS NULL OR day > DATE '2005-05-05'",
    "SELECT pair[2], S3 FROM rat WHERE u8 = 9223372036854775810",
    "SELECT count(*) FROM rat WHERE f8 > 'nan'::double",
    "SELECT count(*) FROM rat WHERE isnan(f8)",
])  # fmt: skip
def test_duckdb_answers_as_it_does_for_arrays_in_memory(table, expected, query):
    assert answers(query, table.scan()) == answers(query, expected)


def answers(query, rat):
    """Run a query in which ``rat`` is the name of an Arrow table or dataset."""
    # Sums of floats depend on their order.
    found = [
        [round(one, 9) if isinstance(one, float) else one for one in row]
        for row in duckdb.sql(query).fetchall()
    ]
    return sorted(found, key=repr)


def broken(stored, tmp_path, keep):
    """Copy a store, and damage all chunks but those for which ``keep(column, chunk)`` is true."""
    place = tmp_path / "broken.rat.zarr"
    shutil.copytree(stored, place)
    for path in Path(place, "RAT").rglob("c/*"):
        column = path.relative_to(place / "RAT").parts[0]
        if path.is_file() and not keep(column, int(path.name)):
            path.write_bytes(b"damaged")
    return RatZarr(str(place), readOnly=True)


def test_only_chosen_columns_are_read(stored, tmp_path, expected):
    table = broken(stored, tmp_path, lambda column, _: column in ("i1", "text"))
    rat = table.scan()
    query = "SELECT i1, count(text) FROM rat WHERE text <> 'a' GROUP BY i1 ORDER BY i1"
    found = duckdb.sql(query).fetchall()
    rat = expected  # noqa: F841 - DuckDB finds it by its name
    assert found == duckdb.sql(query).fetchall()
    with pytest.raises(ratzarr.DamagedError):
        table.to_arrow(["f8"])


@pytest.mark.parametrize(
    "condition", ["row BETWEEN 1000 AND 1999", "row >= 1500 AND row < 1600", "row = 1999"]
)
def test_row_numbers_choose_the_chunks(stored, tmp_path, expected, condition):
    table = broken(stored, tmp_path, lambda _, chunk: chunk == 1)
    rat = table.scan()
    query = f"SELECT i1, text FROM rat WHERE {condition}"
    found = duckdb.sql(query).fetchall()
    rat = expected.append_column("row", pa.array(np.arange(ROWS)))  # noqa: F841 - DuckDB finds it by its name
    assert sorted(found) == sorted(duckdb.sql(query).fetchall())


def test_a_table_with_a_column_called_row(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=3) as table:
        table["Row"] = [7, 8, 9]
        scan = table.scan(filter=FIELD("_row") == 1)
        assert scan.to_table().to_pydict() == {"Row": [8], "_row": [1]}


def test_missing_values_are_null_and_nan_is_not(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=3) as table:
        table["i"] = [7, 8, 9]
        table["f"] = [1.0, float("nan"), -1.0]
        table["t"] = ["a", "?", ""]
        table["v"] = np.arange(6).reshape(3, 2)
        table["i"].attrs["missing_value"] = 8
        table["f"].attrs["missing_value"] = -1.0
        table["t"].attrs["missing_value"] = "?"
        table["v"].attrs["missing_value"] = 3
        found = table.to_arrow()
    assert found["i"].to_pylist() == [7, None, 9]
    assert plain(found.select(["f"])) == [(1.0,), ("nan",), (None,)]
    assert found["t"].to_pylist() == ["a", None, ""]
    assert found["v"].to_pylist() == [[0, 1], [2, None], [4, 5]]


def test_missing_values_that_end_in_zeros(tmp_path):
    """numpy drops these zeros where it compares an array with a string of Python's."""
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=3, newChunkSize=3) as table:
        table["text"] = ["a", "a\0", ""]
        table["bytes"] = [b"a", b"a\0", b""]
        table["fixed"] = np.array([b"a", b"abc", b""], "S3")
        for name, missing in (("text", "a\0"), ("bytes", "a\0"), ("fixed", "abcd")):
            table[name].attrs["missing_value"] = missing
        found = table.to_arrow().to_pydict()
    assert found == {
        "text": ["a", None, ""], "bytes": [b"a", None, b""], "fixed": [b"a", b"abc", b""],
    }  # fmt: skip


def test_geometries_that_are_empty_are_null_and_other_bytes_are_not(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=2) as table:
        table.createColumn("wkb", bytes, attributes={"GDAL_TYPE": 5})
        table.createColumn("raw", bytes)
        table.writeBlocks({"wkb": [b"", b"\x01"], "raw": [b"", b"\x01"]}, 0)
        found = table.to_arrow().to_pydict()
    assert found == {"wkb": [None, b"\x01"], "raw": [b"", b"\x01"]}


@pytest.mark.parametrize("fill", ["näh", "zero\0", "\0"])
def test_rows_that_were_never_written_have_the_fill_value(tmp_path, fill):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=5_000, newChunkSize=1000) as table:
        table.createColumn("t", str, fillValue=fill)
        table.createColumn("n", "u1", fillValue=3)
        table.writeBlock("t", ["a"], 1500)
        found = table.to_arrow()
    wanted = [fill] * 5_000
    wanted[1500] = "a"
    assert found["t"].to_pylist() == wanted
    assert set(found["n"].to_pylist()) == {3}


@pytest.mark.parametrize("names", [["number"], ["text"], ["number", "text"]])
@pytest.mark.parametrize("dictionaries", [False, True])
def test_rows_that_are_cut_off_after_a_scan_was_made(tmp_path, names, dictionaries):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=6, newChunkSize=4) as table:
        table["number"] = np.arange(6)
        table["text"] = list("abcdef")
        scan, column = table.scan(names, dictionaries=dictionaries), table[names[0]]
        with RatZarr(table.filename) as other:
            other.setRowCount(3)
        with pytest.raises(ChangedError, match="3 rows now: its rows up to 5"):
            scan.to_table()
        with pytest.raises(ChangedError, match="3 rows now"):
            column[:]
        assert table.to_arrow(names).num_rows == 3


@pytest.mark.parametrize(
    ("old", "new", "width"),
    [
        ("f4", "f8", 1), ("i4", "f8", 1), ("M8[s]", "i8", 1), ("M8[D]", "M8[s]", 1),
        ("i4", "i4", 2), (str, "f8", 1), (bytes, str, 1),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_of_another_type_since_a_scan_was_made(tmp_path, old, new, width):
    """Arrow would round its numbers, cut its times to days, or take numbers for times."""
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=6, newChunkSize=4) as table:
        table.createColumn("a", old)
        scan, frame, arrays = table.scan(["a"]), table.to_dask(["a"]), table.to_xarray(["a"])
        with RatZarr(table.filename) as other:
            other.deleteColumn("a")
            other.createColumn("a", new, width)
        for read in (scan.to_table, scan.scanner().to_table, frame.compute, arrays.compute):
            with pytest.raises(ChangedError, match="column 'a' has been replaced"):
                read()
        assert table.to_arrow().num_rows == 6


@pytest.mark.parametrize(
    ("dtype", "old", "new"),
    [
        ("i4", {"missing_value": 0}, {"missing_value": 5}), ("f8", {}, {"missing_value": 5}),
        (str, {"missing_value": ""}, {}), (str, {}, {"missing_value": ""}),
        (bytes, {}, {"GDAL_TYPE": 5}),
    ],
)  # fmt: skip
def test_other_missing_values_since_a_scan_was_made(tmp_path, dtype, old, new):
    """Numbers would be nulls, and missing values numbers."""
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=6, newChunkSize=4) as table:
        table.createColumn("a", dtype, attributes=old)
        scan, frame = table.scan(["a"]), table.to_dask(["a"])
        with RatZarr(table.filename) as other:
            other.deleteColumn("a")
            other.createColumn("a", dtype, attributes=new)
        for read in (scan.to_table, scan.scanner().to_table, frame.compute):
            with pytest.raises(ChangedError, match="column 'a' has been replaced or changed"):
                read()
        assert table.to_arrow().num_rows == 6


def test_attributes_are_metadata_of_the_fields(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=1) as table:
        table["area"] = [1.5]
        table["area"].attrs.update(units="ha", GDAL_USAGE=1, extra={"a": [1, 2]})
        found = table.schema.field("area").metadata
    assert found == {b"units": b"ha", b"GDAL_USAGE": b"1", b"extra": b'{"a": [1, 2]}'}


def test_an_empty_table(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr")) as table:
        assert table.to_arrow().num_rows == 0
        table.createColumn("a", "f4")
        assert table.to_arrow().schema == pa.schema([("a", pa.float32())])
        assert table.scan(filter=FIELD("a") > 1).count_rows() == 0
        assert table


@pytest.mark.parametrize(("wrong", "error", "said"), [
    ({"columns": ["nope"]}, ColumnNotFoundError, "nope"),
    ({"columns": "f8"}, ArgumentError, "list of names"),
    ({"columns": ["f8", "f8"]}, ArgumentError, "twice"),
    ({"rows": slice(0, 10, 2)}, ArgumentError, "step"),
    ({"rows": 7}, ArgumentError, "rows"),
    ({"filter": "f8 > 1"}, ArgumentError, "pyarrow"),
    ({"filter": "f8 > 1", "columns": ["f8"]}, ArgumentError, "pyarrow"),
    ({"filter": FIELD("nope") > 1}, ArgumentError, "nope"),
    ({"filter": FIELD("f8")}, ArgumentError, "true or false"),
    ({"filter": FIELD("text") > 1}, ArgumentError, "can't be applied"),
])  # fmt: skip
def test_wrong_arguments_are_named(table, wrong, error, said):
    with pytest.raises(error, match=said):
        table.scan(**wrong)


def test_picoseconds_are_refused_by_name(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=1) as table:
        table["when"] = np.array([1], "M8[ps]")
        table["x"] = [1]
        with pytest.raises(ratzarr.UnsupportedDtypeError, match=r"'when'.*nanosecond"):
            table.to_arrow()
        assert table.to_arrow(["x"]).to_pydict() == {"x": [1]}


def test_a_day_beyond_arrows_range_is_refused_by_row(tmp_path):
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=2) as table:
        table["when"] = np.array([0, 2**40], "M8[D]")
        with pytest.raises(ratzarr.UnequalValueError, match=r"'when', row 1"):
            table.to_arrow()


def test_a_query_for_a_few_rows_reads_little(tmp_path):
    rows = 2_000_000
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=rows, newChunkSize=100_000) as table:
        table["n"] = np.arange(rows)
        rat = table.scan()
        assert len(duckdb.sql("SELECT * FROM rat LIMIT 5").fetchall()) == 5
        assert rat.rows_read <= rows / 4


def test_memory_of_a_scan_does_not_grow_with_the_rows(tmp_path):
    # Arrow's own count of the memory of its batches: the oldest are given back.
    with RatZarr(str(tmp_path / "a.rat.zarr"), newRowCount=4_000_000) as table:
        table["n"] = 1.5
        table["m"] = 2.5
        most = total = 0
        for batch in table.scan().to_batches():
            most, total = max(most, batch.nbytes), total + batch.nbytes
    assert most <= 2**27
    assert total > 3 * most


def test_the_error_of_a_query_is_kept(stored, tmp_path):
    table = broken(stored, tmp_path, lambda *_: False)
    rat = table.scan()
    with pytest.raises(Exception, match="damaged"):
        duckdb.sql("SELECT sum(f8) FROM rat").fetchall()
    assert isinstance(rat.error, ratzarr.DamagedError)


def test_on_s3_only_the_chunks_of_two_columns_are_fetched(counted_s3):
    s3, proxy = counted_s3
    place = s3.new()
    names = [f"c{k}" for k in range(10)]
    with RatZarr(place, newRowCount=4_000, newChunkSize=1000) as table:
        for name in names:
            table[name] = np.arange(4_000) % 7
    rat = RatZarr(place, readOnly=True).scan()  # noqa: F841 - the query's name for it
    proxy.requests.clear()
    found = duckdb.sql("SELECT c3, sum(c4) FROM rat GROUP BY c3 ORDER BY c3").fetchall()
    assert found == [(k, k * len(range(k, 4_000, 7))) for k in range(7)]
    chunks = {one.key for one in proxy.requests if "/c/" in one.key}
    assert {key.split("/RAT/")[1].split("/")[0] for key in chunks} == {"c3", "c4"}
    assert len(chunks) == 8
