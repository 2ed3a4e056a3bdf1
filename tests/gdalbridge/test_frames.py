"""The table as frames of pandas, Polars and Dask and as an xarray dataset, against numpy arrays."""

import datetime as dt
import pickle

import dask
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

from gdalbridge import open_table
from ratzarr import RatZarr
from ratzarr.errors import ArgumentError, ChangedError, ColumnNotFoundError
from tests.audits import recorded
from tests.gdalbridge.sample_rasters import INTEGER, REAL, make, new_rat

pytestmark = pytest.mark.main_env_only
ROWS, CHUNK, SHORT = 5000, 1000, 1700
WHEN = dt.datetime(2020, 1, 5)  # noqa: DTZ001 - as in the column
NAMES = ["own", "own_real", "x", "code", "text", "lists", "when", "day", "flag", "half", "big"]


@pytest.fixture(scope="module")
def values():
    random = np.random.default_rng(3)
    x = random.normal(size=ROWS)
    x[::7] = np.nan
    when = np.datetime64("2020-01-01", "ms") + random.integers(0, 10**9, ROWS)
    when[::11] = np.datetime64("NaT", "ms")
    return {
        "x": x,
        "code": random.integers(0, 9, ROWS).astype("i2"),
        "text": np.array([f"größe {n % 13}" for n in range(ROWS)], object),
        "lists": random.normal(size=(ROWS, 3)).astype("f4"),
        "when": when,
        "day": np.datetime64("1999-12-01", "D") + np.arange(ROWS),
        "flag": random.random(ROWS) < 0.3,
        "half": x.astype("f2"),
        "big": random.integers(2**60, 2**63, ROWS, dtype="u8"),
    }


@pytest.fixture(scope="module")
def raster(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("frames") / "seg.tif"
    dataset = make(path)
    own = [("own", INTEGER, 0, np.arange(SHORT)), ("own_real", REAL, 0, np.arange(SHORT) / 2)]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(own, SHORT))
    del dataset
    with RatZarr(f"{path}.rat.zarr", newRowCount=ROWS, newChunkSize=CHUNK) as store:
        for name, array in values.items():
            store[name] = array
        store["code"].attrs["missing_value"] = 5
    return path


@pytest.fixture
def table(raster):
    with open_table(raster, update=False) as table:
        yield table


def there(values, name):
    """Return the rows of a column that have a value; NaN is one."""
    if name in ("own", "own_real"):
        return np.arange(ROWS) < SHORT
    array = values[name]
    return (
        array != 5
        if name == "code"
        else ~np.isnat(array)
        if name == "when"
        else np.full(ROWS, True)
    )


# ---- pandas


def test_to_pandas(table, values):
    frame = table.to_pandas()
    assert list(frame) == NAMES
    assert frame.index.equals(pd.RangeIndex(ROWS, name="row"))
    assert [str(frame[name].dtype) for name in ("own", "own_real", "x", "code", "flag", "half")] == [
        "Int32", "float64", "float64", "Int16", "bool", "float32",
    ]  # fmt: skip
    np.testing.assert_array_equal(frame["x"].to_numpy(), values["x"])
    np.testing.assert_array_equal(frame["half"].to_numpy(), values["half"].astype("f4"))
    np.testing.assert_array_equal(frame["when"].to_numpy(), values["when"])
    np.testing.assert_array_equal(frame["day"].to_numpy().astype("M8[D]"), values["day"])
    np.testing.assert_array_equal(frame["big"].to_numpy(), values["big"])
    assert frame["big"].dtype == np.uint64
    assert frame["text"].tolist() == values["text"].tolist()
    np.testing.assert_array_equal(np.stack(frame["lists"]), values["lists"])
    assert frame["own"].dropna().tolist() == list(range(SHORT))
    for name in ("own", "code", "when"):
        np.testing.assert_array_equal(frame[name].notna().to_numpy(), there(values, name))
    expected = pd.Series(values["x"]).groupby(values["text"]).mean()
    pd.testing.assert_series_equal(
        frame.groupby("text")["x"].mean(), expected, check_names=False, check_index_type=False
    )


def test_integers_of_lists_are_not_rounded_in_pandas(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=2) as table:
        table["x"] = np.array([[1, 2**63 - 1], [2, 3]])
        assert table.to_pandas()["x"][0].dtype == np.int64
        table["x"].attrs["missing_value"] = 1
        found = [one.tolist() for one in table.to_pandas()["x"]]
    assert found == [[None, 2**63 - 1], [2, 3]]


def test_to_pandas_of_some_rows_and_columns(table, values):
    import pyarrow.dataset as ds

    frame = table.to_pandas(["code", "x"], rows=(990, 2010), dtype_backend="pyarrow")
    assert frame.index.equals(pd.RangeIndex(990, 2010, name="row"))
    assert str(frame["code"].dtype) == "int16[pyarrow]"
    np.testing.assert_array_equal(frame["x"].to_numpy(), values["x"][990:2010])
    frame = table.to_pandas(["x"], filter=ds.field("code") == 3)
    np.testing.assert_array_equal(frame.index, np.flatnonzero(values["code"] == 3))
    assert list(frame) == ["x"]
    assert len(table.to_pandas(["x"], filter=ds.field("code") == 5)) == 0
    both = (ds.field("row") >= 4000) & ds.field("flag")
    found = table.to_polars(["big"], filter=both)
    assert found.columns == ["big"]
    np.testing.assert_array_equal(
        found["big"].to_numpy(), values["big"][4000:][values["flag"][4000:]]
    )
    assert (
        table.scan(["x"], filter=ds.field("code") == 3).count_rows() == (values["code"] == 3).sum()
    )
    with pytest.raises(ArgumentError, match=r"filter .* can't be applied"):
        table.to_pandas(["x"], filter=ds.field("nothing") == 5)
    pd.testing.assert_frame_equal(table.head(3), table.to_pandas(rows=(0, 3)))
    with pytest.raises(ArgumentError, match="dtype_backend"):
        table.to_pandas(dtype_backend="polars")
    with pytest.raises(ColumnNotFoundError, match="no column 'y'"):
        table.to_pandas(["y"])


# ---- Polars


def test_to_polars(table, values):
    frame = table.to_polars()
    assert frame.columns == NAMES
    assert frame.schema["lists"] == pl.Array(pl.Float32, 3)
    assert frame.schema["text"] == pl.String
    assert frame.schema["when"] == pl.Datetime("ms")
    for name in ("x", "big", "flag", "day"):
        np.testing.assert_array_equal(
            frame[name].to_numpy().astype(values[name].dtype), values[name]
        )
    # NaN is a value, and only a missing value is null.
    assert {name: frame[name].null_count() for name in NAMES if frame[name].null_count()} == {
        name: int((~there(values, name)).sum()) for name in ("own", "own_real", "code", "when")
    }
    assert frame["x"].is_nan().sum() == np.isnan(values["x"]).sum()
    np.testing.assert_array_equal(frame["lists"].to_numpy(), values["lists"])


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("x") > 0.5, pl.col("x") >= 0.5, pl.col("x") < 0.5, pl.col("x") != 0.5,
        pl.col("x").is_nan(), pl.col("x").is_between(-1, 1), pl.col("code") == 5,
        pl.col("code").is_null(), pl.col("when") > WHEN, pl.col("own") < 7,
        (pl.col("row") > 1500) & (pl.col("x") > 0), (pl.col("row") > 1500) | (pl.col("x") > 0),
        pl.col("row").is_in([1, 4999]), pl.col("text").str.ends_with("3") & pl.col("flag"),
        pl.col("row") > 10**9, ~(pl.col("row") < 4000), pl.col("row") % 2 == 0,
    ],
    ids=str,
)  # fmt: skip
def test_a_lazy_query_is_what_polars_says(table, expression):
    """The same query of the frame in memory: NaN is the largest number in Polars."""
    frame = table.to_polars().with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    found = table.lazy().filter(expression)
    expected = frame.filter(expression)
    assert found.collect().equals(expected)
    assert found.select(pl.len()).collect().item() == len(expected)
    assert found.select("text").head(3).collect().equals(expected.select("text").head(3))


@pytest.mark.parametrize("expression", [pl.col("row") % 3 == 1, pl.col("x") > 0.5], ids=str)
def test_a_lazy_query_of_the_first_rows(table, expression):
    frame = table.to_polars().with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    for query in (
        lambda rows: rows.head(7).filter(expression),
        lambda rows: rows.filter(expression).head(7),
        lambda rows: rows.filter(expression).head(7).filter(pl.col("row") > 4),
        lambda rows: rows.head(1500).filter(expression).head(3),
        lambda rows: rows.head(0).filter(expression),
        lambda rows: rows.slice(5, 7).filter(expression),
    ):
        assert query(table.lazy()).collect().equals(query(frame))


def test_lazy_reads_only_what_a_query_needs(table):
    def chunks(query):
        with recorded("open") as seen:
            found = query.collect()
        names = [str(arguments[0]) for arguments in seen]
        return found, sorted(name.partition("/RAT/")[2] for name in names if "/c/" in name)

    found, read = chunks(table.lazy().filter(pl.col("row").is_between(2100, 2200)).select("x"))
    assert len(found) == 101
    assert read == ["x/c/2"]
    _, read = chunks(
        table.lazy().filter((pl.col("row") == 4000) & (pl.col("x") > 0)).select("text")
    )
    assert read == ["text/c/4", "x/c/4"]
    _, read = chunks(table.lazy().filter(pl.col("row") < 0).select("x"))
    assert read == []
    _, read = chunks(table.lazy().group_by("code").agg(pl.col("big").max()))
    assert {name.partition("/")[0] for name in read} == {"code", "big"}
    assert len(set(read)) == 10


# ---- xarray


def test_to_xarray(table, values):
    dataset = table.to_xarray()
    assert list(dataset.data_vars) == NAMES
    assert dataset.sizes == {
        "row": ROWS,
        "own_row": SHORT,
        "own_real_row": SHORT,
        "lists_value": 3,
    }
    assert all(isinstance(one.data, dask.array.Array) for one in dataset.data_vars.values())
    for name, array in values.items():
        np.testing.assert_array_equal(dataset[name].values.astype(array.dtype), array)
    assert dataset["code"].attrs["missing_value"] == 5
    assert dataset["x"].dtype == np.float64
    np.testing.assert_array_equal(dataset["own"].values, np.arange(SHORT))
    part = dataset.isel(row=slice(990, 2010, 3))
    np.testing.assert_array_equal(part["x"].values, values["x"][990:2010:3])
    picked = dataset["text"].isel(row=[4000, 3, 3, 1500])
    assert picked.values.tolist() == values["text"][[4000, 3, 3, 1500]].tolist()
    np.testing.assert_allclose(
        dataset["lists"].mean("row").values, values["lists"].mean(0), rtol=1e-4
    )
    by_code = dataset[["x"]].groupby(xr.DataArray(values["code"], dims="row", name="code")).mean()
    expected = pd.Series(values["x"]).groupby(values["code"]).mean()
    np.testing.assert_allclose(by_code["x"].values, expected.to_numpy())
    assert list(table.to_xarray(["x", "code"]).data_vars) == ["x", "code"]


def test_xarray_reads_only_the_chunks_it_needs(table):
    dataset = table.to_xarray()
    with recorded("open") as seen:
        dataset["x"].isel(row=slice(2100, 2200)).values  # noqa: B018 - reads
    names = [str(arguments[0]) for arguments in seen]
    assert [name.partition("/RAT/")[2] for name in names if "/c/" in name] == ["x/c/2"]


def test_columns_named_like_dimensions(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=4) as store:
        store["row"] = [5, 6, 7, 8]
        store["a"] = np.arange(8).reshape(4, 2)
        store["a_value"] = [1.5] * 4
        dataset = store.to_xarray()
        assert dataset["row"].dims == ("_row",)
        assert dataset["a"].dims == ("_row", "_a_value")
        assert not dataset.coords
        store["_a"] = np.arange(12).reshape(4, 3)
        assert store.to_xarray()["_a"].dims == ("_row", "__a_value")
        assert dataset["row"].values.tolist() == [5, 6, 7, 8]
        assert store.to_pandas().index.name == "row"
        assert store.lazy().filter(pl.col("_row") == 2).collect()["row"].to_list() == [7]


# ---- Dask


def test_to_dask(table, values):
    frame = table.to_dask()
    assert list(frame.columns) == NAMES
    known = pd.DataFrame(
        {name: list(array) if array.ndim > 1 else array for name, array in values.items()}
    )
    known["code"] = known["code"].astype("Int16").where(known["code"] != 5)
    assert frame["x"].sum().compute() == pytest.approx(known["x"].sum(), rel=1e-12)
    assert frame["x"].mean().compute() == pytest.approx(known["x"].mean(), rel=1e-12)
    assert frame["x"].count().compute() == known["x"].count()
    found = frame.groupby("text")["x"].mean().compute().sort_index()
    expected = known.groupby("text")["x"].mean()
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-12)
    assert found.index.tolist() == expected.index.tolist()
    found = frame.groupby("code")["big"].max().compute().sort_index()
    assert found.to_dict() == known.groupby("code")["big"].max().to_dict()
    assert frame["when"].min().compute() == known["when"].min()
    assert frame["own"].count().compute() == SHORT
    assert frame["own_real"].sum().compute() == (np.arange(SHORT) / 2).sum()
    whole = frame.compute()
    assert whole.index.tolist() == list(range(ROWS))
    pd.testing.assert_series_equal(
        whole["x"], known["x"], check_names=False, check_index=False, check_exact=True
    )
    np.testing.assert_array_equal(np.stack(whole["lists"].to_list()), values["lists"])
    np.testing.assert_array_equal(whole["code"].notna(), there(values, "code"))


def test_the_partitions_are_the_chunks_and_have_the_same_dtypes(table):
    frame = table.to_dask(["x", "code", "own", "text", "lists", "flag"])
    partial = table.to_dask(["x", "code"])
    assert partial.npartitions == ROWS // CHUNK
    assert partial.divisions == (0, 1000, 2000, 3000, 4000, ROWS - 1)
    parts = [frame.partitions[n].compute() for n in range(frame.npartitions)]
    for part in parts:
        assert part.dtypes.tolist() == frame.dtypes.tolist()
    assert partial.loc[2500:2510].compute().index.tolist() == list(range(2500, 2511))


def test_dask_reads_only_the_chosen_columns(table):
    with recorded("open") as seen:
        table.to_dask()["x"].sum().compute(scheduler="sync")
    names = [str(arguments[0]) for arguments in seen]
    read = {name.partition("/RAT/")[2] for name in names if "/c/" in name}
    assert read == {f"x/c/{n}" for n in range(ROWS // CHUNK)}


def test_results_of_values_that_have_changed_are_not_used_again(tmp_path):
    """Dask takes results of one name for equal: each frame has names of its own."""
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=3) as store:
        store["x"] = [1.0, 2.0, 3.0]
        before = store.to_dask(["x"])
        held = before.persist(scheduler="sync")
        store.writeBlock("x", np.array([5.0, 6.0]), 0)
        after = store.to_dask(["x"])
        assert not set(before.dask) & set(after.dask)
        total = after["x"].sum() + held["x"].sum()
        assert total.compute(scheduler="sync") == 14 + 6
        loaded = pickle.loads(pickle.dumps(before))
        assert loaded._name == before._name


def test_daskss_processes(raster, values):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        open_table(raster, update=False) as table,
    ):
        assert client.scheduler_info()["workers"]
        frame = table.to_dask(["x", "own", "text"])
        assert frame["x"].sum().compute() == pytest.approx(np.nansum(values["x"]), rel=1e-12)
        assert frame["own"].sum().compute() == np.arange(SHORT).sum()
        dataset = table.to_xarray(["big", "text"])
        assert dataset["big"].max().compute().item() == values["big"].max()
        assert dataset["text"][:2].values.tolist() == values["text"][:2].tolist()


def test_an_empty_table(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store.createColumn("x", "f8")
        store.createColumn("s", str)
        assert store.to_pandas().shape == (0, 2)
        assert store.to_polars().shape == (0, 2)
        assert store.lazy().collect().shape == (0, 3)
        assert store.to_xarray().sizes == {"row": 0}
        assert len(store.to_dask()) == 0


# ---- S3


def test_on_s3_a_range_of_rows_reads_its_chunks(counted_s3, values):
    place, proxy = counted_s3
    url = f"s3://{place.bucket}/seg.tif.rat.zarr"
    with RatZarr(url, newRowCount=ROWS, newChunkSize=CHUNK) as store:
        for name in ("x", "code", "text"):
            store[name] = values[name]

    def read(action):
        proxy.clear()
        found = action()
        keys = {request.key.partition("/RAT/")[2] for request in proxy.requests}
        return found, sorted(key for key in keys if "/c/" in key)

    with open_table(url, update=False) as table:
        query = table.lazy().filter(pl.col("row").is_between(2100, 2200)).select("x")
        found, keys = read(query.collect)
        np.testing.assert_array_equal(found["x"].to_numpy(), values["x"][2100:2201])
        assert keys == ["x/c/2"]
        total, keys = read(table.to_dask()["x"].sum().compute)
        assert total == pytest.approx(np.nansum(values["x"]), rel=1e-12)
        assert keys == [f"x/c/{n}" for n in range(5)]
        part, keys = read(lambda: table.to_xarray()["text"][4500:].values)
        assert part.tolist() == values["text"][4500:].tolist()
        assert keys == ["text/c/4"]


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("change", ["cut", "shape", "dtype", "missing"])
def test_a_table_that_another_process_changes(tmp_path, change, width):
    """Rows that were cut off were nulls, and values of another type were cast."""
    values = np.arange(6 * width, dtype="i4").reshape((6, width) if width > 1 else 6)
    with RatZarr(tmp_path / "a.rat.zarr", newRowCount=6, newChunkSize=4) as store:
        store["a"] = values
        with open_table(tmp_path / "a.rat.zarr") as table:
            frame, arrays, column = table.to_dask(), table.to_xarray(), table["a"]
            query = table.sql("SELECT count(*), count(a) FROM rat")
            if change == "cut":
                store.setRowCount(3)
            elif change == "dtype":
                store["a"] = values.astype("f4")
            elif change == "missing":
                del store["a"]
                store.createColumn("a", "i4", width, attributes={"missing_value": 3})
            else:
                store["a"] = np.stack([values] * 2, 1) if width == 1 else values[:, 0]
            reads = [
                table.to_arrow, table.to_pandas, table.to_polars, table.lazy().collect,
                table.describe, frame.compute,
            ]  # fmt: skip
            if change != "missing":
                # These have the values as they are stored.
                reads += [arrays.compute, lambda: column[:]]
            for read in reads:
                with pytest.raises(ChangedError, match="column 'a'"):
                    read()
            with pytest.raises(duckdb.Error, match="column 'a'"):
                query.fetchall()
        with open_table(tmp_path / "a.rat.zarr") as table:
            assert len(table.to_arrow()) == store.rowCount
