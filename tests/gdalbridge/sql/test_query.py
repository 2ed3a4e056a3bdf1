"""Queries against DuckDB on Parquet that pyarrow wrote from numpy arrays, and what they can't reach."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from zarr.storage import MemoryStore, WrapperStore

from gdalbridge import BridgeError, open_table
from gdalbridge.cli import main
from ratzarr import DamagedError, RatZarr
from tests.gdalbridge.cli.test_output import in_terminal
from tests.gdalbridge.dbf_files import write_dbf
from tests.gdalbridge.gdalio.test_own_table import raster
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat
from tests.processes import LIMIT, interruptible

pytestmark = pytest.mark.main_env_only


def call(*args):
    return CliRunner(catch_exceptions=False).invoke(main, [str(arg) for arg in args])


def sql(*args):
    done = call("sql", *args)
    assert done.exit_code == 0, done.output
    return done.stdout


def texts(*values):
    return np.array(values, np.dtypes.StringDType())


def objects(*values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


def store(place, columns, chunk=64, **attributes):
    with RatZarr(place) as table:
        table.setChunkSize(chunk)
        table.setRowCount(len(next(iter(columns.values()))))
        for name, values in columns.items():
            dtype = bytes if values.dtype == object else values.dtype
            width = values.shape[1] if values.ndim == 2 else 1
            table.createColumn(name, dtype, width, attributes=attributes.get(name))
            table.writeBlock(name, values, 0)
    return place


NUMBERS = {
    kind: np.array([0, 1, np.iinfo(kind).min, np.iinfo(kind).max, 5], kind)
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
}
FLOATS = {
    kind: np.array([0.5, np.nan, -np.inf, np.inf, -0.0], kind) for kind in ("f2", "f4", "f8")
}
OTHERS = {
    "flag": np.array([True, False, True, True, False]),
    "text": texts("a", "", "NULL", "größe 🛰", 'x"y,\n'),
    "day": np.array(["2020-01-02", "NaT", "1600-01-01", "9999-12-31", "1970-01-01"], "M8[D]"),
    **{
        unit: np.array(["2020-01-02T03:04:05", "NaT", "1969-12-31", "2000-01-01", "1970"], unit)
        for unit in ("M8[s]", "M8[ms]", "M8[us]", "M8[ns]")
    },
}
MISSING = {"code": np.array([7, -1, 8, -1, 0], "i4"), "label": texts("a", "n/a", "", "b", "n/a")}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """A store of every dtype, and DuckDB on a Parquet file of the same columns; to be read only."""
    tmp_path = tmp_path_factory.mktemp("oracle")
    path = store(
        f"{tmp_path}/seg.tif.rat.zarr",
        NUMBERS | FLOATS | OTHERS | MISSING | {"pair": np.arange(10).reshape(5, 2)},
        chunk=2,
        code={"missing_value": -1},
        label={"missing_value": "n/a"},
    )
    arrays = {name: pa.array(values) for name, values in NUMBERS.items()}
    arrays |= {
        name: pa.array(values.astype("f4") if name == "f2" else values)
        for name, values in FLOATS.items()
    }
    arrays |= {
        name: pa.array(values.tolist() if name == "text" else values)
        for name, values in OTHERS.items()
    }
    arrays["code"] = pa.array([7, None, 8, None, 0], pa.int32())
    arrays["label"] = pa.array(["a", None, "", "b", None])
    arrays["pair"] = pa.array([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]], pa.list_(pa.int64(), 2))
    arrays["row"] = pa.array(range(5))
    pq.write_table(pa.table(arrays), tmp_path / "same.parquet")
    connection = duckdb.connect()
    connection.execute(f"SET TimeZone = 'UTC'; CREATE VIEW rat AS FROM '{tmp_path}/same.parquet'")
    yield path, connection
    connection.close()


NAMES = [*NUMBERS, *FLOATS, *OTHERS, *MISSING]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * EXCLUDE pair FROM rat ORDER BY row",
        "SELECT pair::BIGINT[] AS pair FROM rat ORDER BY row",
        "SELECT row, pair[1] + pair[2] AS s FROM rat ORDER BY s DESC",
        *(f'SELECT "{name}", count(*) FROM rat GROUP BY ALL ORDER BY ALL' for name in NAMES),
        *(f'SELECT row FROM rat WHERE "{name}" IS NULL ORDER BY row' for name in NAMES),
        *(
            f'SELECT a.row, b.row FROM rat a JOIN rat b ON a."{name}" = b."{name}" ORDER BY ALL'
            for name in NAMES
        ),
        *(
            f"SELECT row FROM rat WHERE f8 {condition} ORDER BY row"
            for condition in (
                "= 'nan'", "<> 'nan'", "> 0", ">= 'nan'", "< 0.5", "<= 'inf'", "<> 0.5",
                "IN ('nan', 0.5)", "NOT IN ('nan', 0.5)", "BETWEEN 0 AND 'nan'", "IS NULL",
                "IS DISTINCT FROM 'nan'", "= 'nan' OR f8 = 0",
            )
        ),
        *(
            f"SELECT row FROM rat WHERE {condition} ORDER BY row"
            for condition in (
                "u8 > 9223372036854775807", "i8 = -9223372036854775808", "text = ''", "text > 'O'",
                "code = -1", "code <> 7", "code IS DISTINCT FROM 7", "label = 'n/a'", "flag",
                "NOT flag", "label IS NULL AND code IS NULL", "day < DATE '1970-01-02'",
                "\"M8[ns]\" = TIMESTAMP '2000-01-01'", "text IN ('a', 'größe 🛰')", "row > 2",
                "row BETWEEN 1 AND 3 AND i4 > 0", "row IN (0, 4)", "row + 1 = 3",
            )
        ),
        "SELECT max(f8)::VARCHAR, min(f8), count(code), count(DISTINCT label), sum(u8) FROM rat",
        "SELECT row, f4 FROM rat ORDER BY f4 DESC, row LIMIT 3",
        "SELECT sum(i8) OVER (ORDER BY row) FROM rat ORDER BY row",
    ],
)  # fmt: skip
def test_every_dtype_as_duckdb_on_parquet(oracle, query):
    path, connection = oracle
    with open_table(path, update=False) as table:
        found = table.sql(query)
        expected = connection.sql(query)
        assert found.columns == expected.columns
        # As text, so that NaN equals NaN and -0.0 is not 0.0.
        assert [tuple(map(repr, row)) for row in found.fetchall()] == [
            tuple(map(repr, row)) for row in expected.fetchall()
        ]


def test_a_rasters_own_columns_with_its_sidecars(tmp_path):
    """The sidecar has fewer rows, and one of the names."""
    path = tmp_path / "seg.tif"
    own = {"Histogram": np.arange(6.0) * 10, "class": np.array(["a", "b", "c"] * 2)}
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(
        new_rat(
            [("Histogram", REAL, 1, own["Histogram"]), ("class", STRING, 2, list(own["class"])),
             ("x", INTEGER, 0, np.zeros(6, int))], 6,
        )
    )  # fmt: skip
    del dataset
    store(
        f"{path}.rat.zarr",
        {"x": np.array([1, 2, 3, 4]), "ndvi": np.array([0.1, 0.9, 0.5, np.nan])},
    )
    frame = pd.DataFrame(own | {"x": pd.array([1, 2, 3, 4, None, None], "Int64")})
    expected = frame.groupby("class")[["Histogram", "x"]].sum()
    with open_table(path) as table:
        found = table.sql(
            "SELECT class, sum(Histogram), sum(x) FROM rat GROUP BY class ORDER BY class"
        ).fetchall()
        assert found == list(expected.itertuples(name=None))
        missing = table.sql("SELECT row FROM rat WHERE ndvi IS NULL").fetchall()
        assert missing == [(4,), (5,)]
        assert table.sql("SELECT row FROM rat WHERE isnan(ndvi)").fetchall() == [(3,)]
        with pytest.raises(BridgeError, match=r"there is no table seg; the table is called rat$"):
            table.sql("SELECT * FROM seg")
        with pytest.raises(BridgeError, match="written in single ones: 'wood'"):
            table.sql('SELECT row FROM rat WHERE class = "wood"')


def test_further_tables(tmp_path):
    with open_table(store(f"{tmp_path}/a.tif.rat.zarr", {"id": np.array([1, 2, 3])})) as table:
        query = "SELECT v FROM rat JOIN other USING (id) ORDER BY id DESC"
        with RatZarr(
            store(f"{tmp_path}/b.rat.zarr", {"id": np.array([3, 1]), "v": texts("x", "y")})
        ) as b:
            assert table.sql(query, other=b).fetchall() == [("x",), ("y",)]
        values = {"id": [3, 1], "v": ["x", "y"]}
        for other in (pd.DataFrame(values), pl.DataFrame(values), pa.table(values)):
            assert table.sql(query, other=other).fetchall() == [("x",), ("y",)]
        for wrong in (7, "other.csv", None, {"id": [1]}):
            with pytest.raises(BridgeError, match="other is not a table that DuckDB reads, but a"):
                table.sql(query, other=wrong)
        with pytest.raises(BridgeError, match="rat is this table's own name"):
            table.sql(query, rat=table)
        with pytest.raises(BridgeError, match="the same name in SQL: rat and RAT"):
            table.sql(query, RAT=table)


def test_names_that_differ_only_in_case(tmp_path):
    path = store(f"{tmp_path}/a.rat.zarr", {"Area": np.array([1]), "area": np.array([2])})
    with open_table(path) as table:
        with pytest.warns(UserWarning, match="in rat, 'area' is 'area_2'") as said:
            found = table.sql("SELECT area, area_2, AREA FROM rat").fetchall()
        assert (found, len(said), said[0].filename) == ([(1, 2, 1)], 1, __file__)
    done = call("sql", path, "SELECT area_2 FROM rat", "--csv")
    assert done.stdout == '"area_2"\n2\n'
    assert done.stderr.count("'area' is 'area_2'") == 1


# ---- what is read


class Counting(WrapperStore):
    """Counts the requests for chunks, by column."""

    def __init__(self, inner):
        super().__init__(inner)
        self.read = Counter()

    async def get(self, key, *args, **kwargs):
        if "/c/" in key:
            self.read[key.split("/")[-3]] += 1
        return await super().get(key, *args, **kwargs)


def ten_columns(rows):
    columns = {"class": np.arange(rows) % 7, "Histogram": np.arange(rows)}
    return columns | {f"c{n}": np.arange(rows) * n for n in range(8)}


def test_only_the_columns_and_chunks_of_the_query_are_read():
    rows, chunk = 400_000, 10_000
    counted = Counting(MemoryStore())
    columns = ten_columns(rows)
    store(counted, columns, chunk)

    def read_by(query):
        counted.read.clear()
        with open_table(counted, update=False) as table:
            return table.sql(query).fetchall(), dict(counted.read)

    found, read = read_by("SELECT class, sum(Histogram) FROM rat GROUP BY class ORDER BY class")
    sums = np.bincount(columns["class"], columns["Histogram"])
    assert found == list(enumerate(sums.tolist()))
    assert read == {"class": 40, "Histogram": 40}
    found, read = read_by("SELECT class, c3 FROM rat LIMIT 5")
    assert (len(found), read) == (5, {"class": 1, "c3": 1})
    found, read = read_by("SELECT sum(c2) FROM rat WHERE row BETWEEN 200000 AND 204999")
    assert found == [(int(columns["c2"][200_000:205_000].sum()),)]
    assert read == {"c2": 1}
    assert read_by("SELECT c1 FROM rat WHERE row = 399999") == ([(399_999,)], {"c1": 1})
    for query in ("SELECT count(row) FROM rat", "SELECT count(*) FROM rat"):
        assert read_by(query) == ([(rows,)], {})
    found, read = read_by("SELECT count(*) FROM rat WHERE c4 > 400")
    assert (found, read) == ([(rows - 101,)], {"c4": 40})
    assert read_by("SELECT count(*) FROM rat WHERE row >= 399990") == ([(10,)], {})


def test_the_scan_as_arrow_uses_it(small):
    """Its rows against numpy; what Arrow would do with files of a dataset is refused."""
    with open_table(small) as table:
        scan = table.scan()
        big = pyarrow.dataset.field("x") > 0
        assert scan.to_table(columns=["row"], filter=big).to_pydict() == {"row": [1, 2]}
        assert scan.head(2, columns=["x"]).to_pydict() == {"x": [0, 1]}
        assert scan.take(pa.array([2, 0]), columns=["x"]).to_pydict() == {"x": [2, 0]}
        assert (scan.count_rows(), scan.count_rows(big)) == (3, 2)
        assert scan.scanner(filter=big).count_rows() == 2
        doubled = scan.to_table(columns={"y": pyarrow.dataset.field("x") * 2})
        assert doubled.to_pydict() == {"y": [0, 2, 4]}
        for refused in (
            lambda: scan.sort_by("x"),
            lambda: scan.join(scan, "x"),
            lambda: scan.join_asof(scan, "x", [], 1),
            lambda: next(scan.get_fragments()),
        ):
            with pytest.raises(NotImplementedError):
                refused()


def test_on_s3_too(counted_s3):
    place, proxy = counted_s3
    path = store(f"s3://{place.bucket}/seg.tif.rat.zarr", ten_columns(40_000), 2_000)
    proxy.clear()
    found = json.loads(
        sql(path, "SELECT class, sum(Histogram) AS n FROM rat GROUP BY class ORDER BY n", "--json")
    )
    assert [one["class"] for one in found] == [
        int(n) for n in np.argsort(np.bincount(np.arange(40_000) % 7, np.arange(40_000)))
    ]
    read = Counter(one.key.split("/")[-3] for one in proxy.requests if "/c/" in one.key)
    assert read == {"class": 20, "Histogram": 20}
    proxy.clear()
    assert sql(path, "SELECT c1 FROM rat WHERE row = 7000", "--csv") == '"c1"\n7000\n'
    assert [one.key[-4:] for one in proxy.requests if "/c/" in one.key] == ["/c/3"]


# ---- what is not reached


@pytest.fixture
def small(tmp_path):
    return store(f"{tmp_path}/seg.tif.rat.zarr", {"x": np.arange(3)})


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_csv('{secret}')", "FROM '{secret}'", "FROM read_text('{secret}')",
        "FROM read_blob('{secret}')", "FROM glob('{folder}/*')", "FROM sniff_csv('{secret}')",
        "FROM read_json('{secret}')", "FROM read_parquet('{secret}')",
        "FROM query('FROM read_csv(''{secret}'')')", "FROM query_table('{secret}')",
        "WITH a AS (FROM read_csv('{secret}')) FROM a",
        "EXPLAIN ANALYZE FROM read_csv('{secret}')",
        "COPY (SELECT 1) TO '{new}'", "SELECT 1; COPY (SELECT 1) TO '{new}'",
        "EXPORT DATABASE '{new}'", "IMPORT DATABASE '{folder}'", "ATTACH '{new}'",
        "ATTACH '{new}' AS y (TYPE sqlite)", "CREATE TABLE a AS FROM rat", "DROP VIEW rat",
        "INSTALL httpfs", "LOAD httpfs", "LOAD '{secret}'",
        "FROM read_csv('https://example.org/a.csv')", "FROM read_parquet('s3://a/b.parquet')",
        "SELECT getenv('SECRET_OF_OURS')", "FROM duckdb_secrets()",
        "CREATE SECRET (TYPE s3, KEY_ID 'a')",
        "SET enable_external_access = true", "RESET enable_external_access",
        "PRAGMA enable_external_access = true", "SET GLOBAL enable_external_access = true",
        "SET lock_configuration = false", "RESET lock_configuration",
        "SET python_enable_replacements = true", "SET python_scan_all_frames = true",
        "SET temp_directory = '{new}'", "SET home_directory = '{folder}'",
        "SET VARIABLE a = 1", "PRAGMA enable_profiling = 'json'", "PRAGMA profiling_output = '{new}'",
        "CALL enable_logging(storage = 'file', storage_config = {{'path': '{new}'}})",
        "CALL pragma_version()", "FROM frame_of_ours", "FROM small", "FROM globals", "",
        "SELECT 1; SELECT 2",
    ],
)  # fmt: skip
def test_a_query_reaches_no_files_no_network_and_no_variables(small, tmp_path, monkeypatch, query):
    monkeypatch.setenv("SECRET_OF_OURS", "hidden")
    secret, new = tmp_path / "secret.csv", tmp_path / "new"
    secret.write_text("a\nhidden\n")
    before = sorted(os.listdir(tmp_path))
    frame_of_ours = pd.DataFrame({"a": ["hidden"]})
    text = query.format(secret=secret, folder=tmp_path, new=new)
    done = call("sql", small, text, "--csv")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "unforeseen" not in done.stderr
    with open_table(small) as table, pytest.raises((BridgeError, duckdb.Error)) as error:
        table.sql(text).fetchall()
    assert "hidden" not in f"{done.stderr}{error.value}"
    assert sorted(os.listdir(tmp_path)) == before
    assert len(frame_of_ours) == 1


def test_the_relation_itself_writes_no_files(small, tmp_path):
    with open_table(small) as table:
        found = table.sql("FROM rat")
        for write in (found.write_csv, found.write_parquet):
            with pytest.raises(duckdb.PermissionException):
                write(f"{tmp_path}/new")
        assert not (tmp_path / "new").exists()


def test_files_if_they_are_allowed(small, tmp_path):
    (tmp_path / "a.csv").write_text("x,v\n2,two\n")
    query = f"SELECT v FROM rat JOIN read_csv('{tmp_path}/a.csv') USING (x)"
    assert sql(small, query, "--csv", "--allow-files") == '"v"\n"two"\n'
    sql(small, f"COPY (FROM rat) TO '{tmp_path}/b.parquet'", "--allow-files")
    assert pq.read_table(tmp_path / "b.parquet").column("x").to_pylist() == [0, 1, 2]


# ---- the command


def test_a_table_fits_the_terminal(tmp_path):
    columns = {f"column_{n}": np.arange(100) for n in range(30)}
    columns["s"] = texts("\x1b[31mred", *["NULL"] * 99)
    path = store(f"{tmp_path}/a.rat.zarr", columns)
    lines = in_terminal(72, "sql", path, "FROM rat")
    assert max(map(len, lines)) <= 72
    assert len(lines) < 60
    assert "column_0" in lines[1]
    assert "32 columns" in lines[-1]
    shown = sql(path, "SELECT row, s, NULL AS n, 'nan'::FLOAT AS f, '' AS e FROM rat LIMIT 1")
    assert "\x1b" not in shown
    assert "NULL" in shown
    assert "nan" in shown
    assert "column_29" in sql(path, "FROM rat")


def test_csv_and_json_keep_every_value(oracle):
    path, connection = oracle
    big = "SELECT sum(u8) * 2 AS big, min(i8) AS low, max(u8) AS high FROM rat"
    expected = connection.execute(big).fetchone()
    assert expected[0] > 2**65
    assert sql(path, big, "--csv") == '"big","low","high"\n{},{},{}\n'.format(*expected)
    assert json.loads(sql(path, big, "--json")) == [
        dict(zip(["big", "low", "high"], expected, strict=True))
    ]
    kept = "SELECT text, f4, f8, code, label, flag, day, pair FROM rat ORDER BY row"
    found = json.loads(sql(path, kept, "--json"))
    assert [one["text"] for one in found] == OTHERS["text"].tolist()
    assert [one["f8"] for one in found] == [0.5, "nan", "-inf", "inf", 0.0]
    assert [one["code"] for one in found] == [7, None, 8, None, 0]
    assert [one["label"] for one in found] == ["a", None, "", "b", None]
    assert [one["day"] for one in found][:2] == ["2020-01-02", None]
    assert [one["pair"] for one in found] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(sql(path, kept, "--csv").encode()),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    assert table["text"].to_pylist() == OTHERS["text"].tolist()
    assert table["label"].to_pylist() == ["a", None, "", "b", None]
    assert table["code"].to_pylist() == [7, None, 8, None, 0]
    assert list(map(repr, table["f8"].to_pylist())) == ["0.5", "nan", "-inf", "inf", "-0.0"]
    assert json.loads(sql(path, "SELECT f4 FROM rat WHERE false", "--json")) == []


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_what_is_printed_keeps_controls_and_characters_that_the_output_lacks(tmp_path, charset):
    path = tmp_path / "t.rat.zarr"
    store(path, {"s": texts("\x1b[31mred", "€")})
    runner = CliRunner(charset=charset)
    printed = {
        args: runner.invoke(main, [*args, *(["FROM rat"] if args[0] == "sql" else [])]).stdout_bytes
        for args in [
            ("sql", str(path), "--csv"), ("sql", str(path), "--json"),
            ("describe", str(path), "--csv"),
        ]
    }  # fmt: skip
    as_csv, as_json, described = printed.values()
    assert as_csv.decode() == '"s","row"\n"\x1b[31mred",0\n"€",1\n'
    assert [one["s"] for one in json.loads(as_json.decode(charset))] == ["\x1b[31mred", "€"]
    assert ",\x1b[31mred," in described.decode()
    # What is for people has no controls.
    table = runner.invoke(main, ["sql", str(path), "SELECT 'a\u2028b', s FROM rat"]).stdout_bytes
    assert table
    assert b"\x1b" not in table
    assert "\u2028".encode() not in table


def test_json_of_other_types(small):
    found = json.loads(
        sql(
            small,
            "SELECT 1.50::DECIMAL(4,2) AS d, INTERVAL 1 DAY AS i, 'x'::BLOB AS b, TIME '10:00' AS t, "
            "'2020-01-01 00:00:00+00'::TIMESTAMPTZ AS z, [1::HUGEINT << 70] AS l, MAP {'k': 1} AS m, "
            "{'a': 'nan'::FLOAT} AS s, 0.1::FLOAT AS f, '2020-01-01 00:00:00.123456789'::TIMESTAMP_NS "
            "AS n, uuid() AS u, 12345678901234567.89::DECIMAL(20,2) AS e",
            "--json",
        )
    )[0]  # fmt: skip
    assert uuid.UUID(found.pop("u"))
    assert found == {
        "d": 1.5, "i": "1 day", "b": "78", "t": "10:00:00", "z": "2020-01-01T00:00:00+00:00",
        "l": [2**70], "m": [["k", 1]], "s": {"a": "nan"}, "f": 0.1,
        "n": "2020-01-01T00:00:00.123456789", "e": "12345678901234567.89",
    }  # fmt: skip


def test_what_does_not_fit_is_refused(small, tmp_path):
    most = "340282366920938463463374607431768211455"
    done = call("sql", small, f"SELECT {most}::UHUGEINT", "--csv")
    assert (done.exit_code, most in done.stderr) == (1, True)
    assert sql(small, f"SELECT {most}0::BIGNUM AS a", "--csv") == f'"a"\n"{most}0"\n'
    done = call("sql", small, "SELECT row, * FROM rat", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "two columns of the result are called 'row'" in done.stderr
    done = call("sql", small, "SELECT INTERVAL 1 DAY AS i", "-o", tmp_path / "a.parquet")
    assert "CAST(... AS VARCHAR)" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["seg.tif.rat.zarr"]


READERS = {
    "parquet": pq.read_table,
    "arrow": lambda path: pyarrow.ipc.open_file(path).read_all(),
    "csv": pyarrow.csv.read_csv,
    "json": lambda path: pa.Table.from_pylist(json.loads(path.read_text())),
}


@pytest.mark.parametrize("suffix", READERS)
def test_output_to_a_file(tmp_path, suffix):
    rows = 250_000
    x = np.random.default_rng(1).integers(0, 2**60, rows)
    path = store(f"{tmp_path}/a.rat.zarr", {"x": x, "s": texts("ä", *["b"] * (rows - 1))}, 50_000)
    out = tmp_path / f"out.{suffix}"
    query = "SELECT row, x, s FROM rat WHERE x % 2 = 1 ORDER BY row"
    assert sql(path, query, "-o", out) == ""
    table = READERS[suffix](out)
    assert np.array_equal(table["x"].to_numpy(), x[x % 2 == 1])
    assert np.array_equal(table["row"].to_numpy(), np.flatnonzero(x % 2))
    assert set(table["s"].to_pylist()) <= {"ä", "b"}
    done = call("sql", path, "SELECT 1 AS one", "-o", out)
    assert done.exit_code == 1
    assert f"{out} already exists. Use --overwrite" in done.stderr
    assert READERS[suffix](out).num_rows == table.num_rows
    # A query that fails leaves the file that is there.
    done = call(
        "sql", path, "SELECT error('late') FROM rat WHERE row > 200000", "-o", out, "--overwrite"
    )
    assert (done.exit_code, "late" in done.stderr) == (1, True)
    assert READERS[suffix](out).num_rows == table.num_rows
    sql(path, "SELECT 1 AS one", "-o", out, "--overwrite")
    assert READERS[suffix](out).to_pylist() == [{"one": 1}]
    assert sorted(os.listdir(tmp_path)) == ["a.rat.zarr", out.name]


@pytest.mark.parametrize("suffix", READERS)
def test_output_to_s3_and_to_other_urls(small, moto_s3, tmp_path, suffix):
    import fsspec

    folder = f"s3://{moto_s3.bucket}/dir"
    for url in (f"{folder}/o.{suffix}", f"memory://{tmp_path.name}/o.{suffix}"):
        for more in ([], ["--overwrite"]):
            assert sql(small, "SELECT x FROM rat WHERE row = 1", "-o", url, *more) == ""
        done = call("sql", small, "SELECT 1 AS one", "-o", url)
        assert (done.exit_code, f"{url} already exists. Use --overwrite" in done.stderr) == (
            1,
            True,
        )
        local = tmp_path / f"copy.{suffix}"
        if url.startswith("s3://"):
            local.write_bytes(moto_s3.objects(folder)[f"o.{suffix}"])
        else:
            fsspec.filesystem("memory").get_file(url, str(local))
        wanted = json.loads(sql(small, "SELECT x FROM rat WHERE row = 1", "--json"))
        assert READERS[suffix](local).to_pylist() == wanted
    assert set(moto_s3.objects(folder)) == {f"o.{suffix}"}


def test_output_to_a_web_server_is_refused(small):
    done = call("sql", small, "SELECT 1 AS one", "-o", "https://example.org/o.csv")
    assert (done.exit_code, "a web server takes no files" in done.stderr) == (1, True)


def test_tables_by_name(small, tmp_path):
    sql(small, "SELECT x, x * 2 AS y FROM rat", "-o", tmp_path / "b.parquet")
    sql(small, "SELECT x, x * 3 AS z FROM rat", "-o", tmp_path / "c.csv")
    other = store(f"{tmp_path}/other.rat.zarr", {"x": np.array([2]), "v": texts("two")})
    query = "SELECT v, y, z FROM rat JOIN a USING (x) JOIN b USING (x) JOIN c USING (x)"
    tables = (f"a={other}", f"b={tmp_path}/b.parquet", f"c={tmp_path}/c.csv")
    options = [word for one in tables for word in ("--table", one)]
    assert sql(small, query, "--csv", *options) == '"v","y","z"\n"two",4,6\n'
    for wrong in ("a", "=a", "a=", "rat=a", "RAT=a"):
        assert call("sql", small, query, "--table", wrong).exit_code == 2
    for missing in ("a=no.tif", "a=no.parquet"):
        done = call("sql", small, query, "--table", missing)
        assert (done.exit_code, f"no.{missing.rpartition('.')[2]}" in done.stderr) == (1, True)
        assert "does not exist" in done.stderr


def test_csv_and_feather_files_as_further_tables_keep_their_values(small, tmp_path):
    # The text comes long after the rows from which types could be guessed.
    ids = [str(2**64 - 1 - one) for one in range(3)] + ["7"] * 100_000
    words = ["1"] * 100_002 + ["one"]
    text = "".join(f"{one},{word}\n" for one, word in zip(ids, words, strict=True))
    (tmp_path / "b.csv").write_text(f"id,word\n{text}")
    feather = pa.table({"id": pa.array([int(one) for one in ids], pa.uint64()), "word": words})
    with pa.ipc.new_file(tmp_path / "b.feather", feather.schema) as writer:
        writer.write_table(feather)
    query = "SELECT count(DISTINCT id), max(id), max(word) FROM b"
    for name in ("b.csv", "b.feather"):
        done = sql(small, query, "--csv", "--table", f"b={tmp_path}/{name}")
        assert done.splitlines()[1] == f'4,{2**64 - 1},"one"'


def test_wrong_usage(small, tmp_path):
    for wrong in (["--csv", "--json"], ["--csv", "-o", "a.csv"], ["--overwrite"]):
        assert call("sql", small, "FROM rat", *wrong).exit_code == 2
    for out, words in (("a.xlsx", "suffix"), ("a", "suffix"), ("no/a.csv", "no directory")):
        done = call("sql", small, "FROM rat", "-o", tmp_path / out)
        assert (done.exit_code, words in done.stderr) == (1, True)
    done = call("sql", small, "SELECT nope FROM rat")
    assert (done.exit_code, '"nope" not found' in done.stderr) == (1, True)


def test_bands_encodings_and_losses(tmp_path):
    path = tmp_path / "seg.tif"
    dataset = make(path, bands=2)
    for band in (1, 2):
        rat = new_rat([("v", INTEGER, 0, np.arange(3) * band)], 3)
        dataset.GetRasterBand(band).SetDefaultRAT(rat)
    del dataset
    assert sql(path, "SELECT sum(v) AS s FROM rat", "--band", 2, "--csv") == '"s"\n6\n'
    assert call("sql", path, "FROM rat", "--band", 3).exit_code == 1
    lossy = raster(tmp_path, [("n", INTEGER, 0)], [(0, [1]), (1, [2**32 + 5])], "lossy.tif")
    done = call("sql", lossy, "FROM rat")
    assert (done.exit_code, "--lossy" in done.stderr) == (1, True)
    assert sql(lossy, "SELECT count(*) AS n FROM rat", "--lossy", "--csv") == '"n"\n2\n'


def test_the_encoding_of_a_rasters_own_table(tmp_path):
    path = tmp_path / "seg.tif"
    make(path)
    cells = [(b"0", b"ok"), (b"1", "é".encode("cp1252"))]
    write_dbf(f"{path}.vat.dbf", [(b"Value", b"N", 9, 0), (b"s", b"C", 9, 0)], cells)
    found = sql(path, "SELECT s FROM rat WHERE row = 1", "--encoding", "cp1252", "--csv")
    assert found == '"s"\n"é"\n'


def test_a_tables_own_error(tmp_path):
    path = store(f"{tmp_path}/a.rat.zarr", {"x": np.random.default_rng(1).random(200_000)}, 50_000)
    chunk = next(p for p in (tmp_path / "a.rat.zarr").rglob("c/3"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 255
    chunk.write_bytes(data)
    for more in ([], ["--csv"], ["--json"], ["-o", tmp_path / "a.parquet"]):
        done = call("sql", path, "SELECT sum(x) AS s FROM rat", *more)
        assert done.exit_code == 1
        assert "is damaged: expected the checksum" in done.stderr
        assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["a.rat.zarr"]
    with pytest.raises(DamagedError), open_table(path) as table:
        table.to_arrow()


ENDLESS = "SELECT sum(a.x * b.x) AS s FROM rat a, rat b, rat c"


@pytest.mark.parametrize("more", [
    ["--csv"], ["-o", "out.parquet"], pytest.param([], marks=pytest.mark.thorough),
])  # fmt: skip
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path, more):
    path = store(f"{tmp_path}/a.rat.zarr", {"x": np.arange(300_000.0)})
    spill = tmp_path / "spill"
    spill.mkdir()
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "gdalbridge", "sql", path, ENDLESS, *more],
            cwd=tmp_path, env=os.environ | {"TMPDIR": str(spill), "PYTHONPATH": os.getcwd()},
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    ends = time.monotonic() + LIMIT
    while not os.listdir(spill) and time.monotonic() < ends:
        time.sleep(0.05)
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(2)
    _, error = process.communicate(timeout=LIMIT)
    assert (process.returncode, error) == (130, b"gdalbridge: interrupted\n")
    # Left alone it goes on for hours.
    assert time.monotonic() - began < 30
    assert os.listdir(spill) == []
    assert sorted(os.listdir(tmp_path)) == ["a.rat.zarr", "spill"]


def test_a_closed_pipe_is_silent(tmp_path):
    path = store(f"{tmp_path}/a.rat.zarr", {"x": np.arange(500_000)}, 100_000)
    for form in ("--csv", "--json"):
        process = subprocess.Popen(
            [sys.executable, "-m", "gdalbridge", "sql", path, "FROM rat", form],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(60) == 141


def test_without_duckdb_the_error_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    done = call("sql", small, "FROM rat")
    assert (done.exit_code, "ratzarr[sql]" in done.stderr) == (1, True)
