"""Statistics against numpy's, Python's own integers and fractions, and sorted lists."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gdalbridge import BridgeError, ConversionError, LossWarning, column_stats
from gdalbridge.cli import main
from gdalbridge.errors import CancelledError, ColumnSelectionError, RasterNotFoundError
from gdalbridge.sql.stats import Histogram
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat

ROOT = Path(__file__).parents[3]
NUMBERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "M8[us]", "?"]
QS = [0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0]


def store(path, columns, chunk=64, **attributes):
    path = f"{path}/seg.tif.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(chunk)
        table.setRowCount(len(next(iter(columns.values()))))
        for name, values in columns.items():
            values = np.asarray(values)
            table.createColumn(
                name, values.dtype if values.dtype != object else bytes,
                width=values.shape[1] if values.ndim == 2 else 1,
                attributes=attributes.get(name),
            )  # fmt: skip
            table.writeBlock(name, values, 0)
    return path


def ranked(values, weights, q):
    """The smallest value whose cumulative weight reaches q of the total, the slow way."""
    pairs = sorted(zip(values, weights, strict=True))
    total, below = sum(weights), 0
    for value, weight in pairs:
        below += weight
        if weight and below >= Fraction(str(q)) * total:
            return value
    return None


def blocks_of(draw, dtype, most=60):
    elements = {"allow_nan": False} if dtype.kind == "f" else {}
    if dtype.kind == "M":
        elements = {"min_value": -(2**62), "max_value": 2**62}
        values = draw(hnp.arrays("i8", st.integers(1, most), elements=st.integers(**elements)))
        return values.view(dtype)
    return draw(
        hnp.arrays(dtype, st.integers(1, most), elements=hnp.from_dtype(dtype, **elements))
    )


@st.composite
def column_and_weights(draw):
    values = blocks_of(draw, np.dtype(draw(st.sampled_from(NUMBERS))))
    heaviest = draw(st.sampled_from([1, 10, 2**40, 2**57]))
    weights = draw(hnp.arrays("i8", len(values), elements=st.integers(0, heaviest)))
    return values, weights, draw(st.booleans())


@pytest.mark.main_env_only
@settings(max_examples=60, deadline=None)
@given(column_and_weights(), st.integers(5, 70))
def test_any_values_and_weights_against_sorted_lists(tmp_path_factory, given_, chunk):
    values, weights, weighed = given_
    heavy = weights if weighed else np.ones(len(values), np.int64)
    folder = tmp_path_factory.mktemp("stats")
    path = store(folder, {"v": values, "w": weights}, chunk=chunk)
    found = column_stats(
        path, ["v"], weights="w" if weighed else None, quantiles=QS, block_rows=chunk
    )["v"]
    counted = heavy > 0
    assert (found.rows, found.missing, found.count) == (len(values), 0, int(counted.sum()))
    assert found.weight == sum(heavy.tolist())
    if not counted.any():
        assert found.min is None
        return
    assert (found.min, found.max) == (values[counted].min(), values[counted].max())
    plain = values.view("i8").tolist() if values.dtype.kind == "M" else values.tolist()
    exact = sum(Fraction(v) * w for v, w in zip(plain, heavy.tolist(), strict=True)) if all(
        map(math.isfinite, plain)
    ) else None  # fmt: skip
    if values.dtype.kind in "iub":
        assert found.sum == exact
        assert found.mean == float(exact / found.weight)
    for one in found.quantiles:
        got = one.value.view("i8") if values.dtype.kind == "M" else one.value
        assert got == ranked(plain, heavy.tolist(), one.q)
    assert len(found.quantiles) == (0 if values.dtype.kind == "b" else len(QS))
    times = {}
    for value, weight in zip(plain, heavy.tolist(), strict=True):
        if weight:
            times[value] = times.get(value, 0) + weight
    expected = sorted(sorted(times.items()), key=lambda pair: -pair[1])[:10]
    got = [(v.view("i8") if values.dtype.kind == "M" else v, n) for v, n in found.frequent]
    assert (got, found.distinct) == (expected, len(times))


@pytest.mark.main_env_only
@settings(max_examples=40, deadline=None)
@given(hnp.arrays("f8", st.integers(1, 50), elements=st.floats(-1e100, 1e100)))
def test_mean_and_stddev_of_floats_against_fractions(tmp_path_factory, values):
    found = column_stats(store(tmp_path_factory.mktemp("stats"), {"v": values}))["v"]
    exact = [Fraction(v) for v in values.tolist()]
    mean = sum(exact) / len(exact)
    scale = max(map(abs, values.tolist()))
    assert found.mean == pytest.approx(float(mean), rel=1e-13, abs=1e-14 * scale)
    spread = math.sqrt(sum((v - mean) ** 2 for v in exact) / len(exact))
    # Squares of less than 1e-150 are not in a float64.
    assert found.stddev == pytest.approx(spread, rel=1e-9, abs=1e-13 * scale + 1e-150)


@pytest.mark.main_env_only
def test_a_small_spread_about_a_large_mean_is_kept(tmp_path):
    values = 1e9 + np.arange(10_000) % 7 * 1e-3
    whole = np.uint64(2**64 - 10_000) + np.arange(10_000, dtype=np.uint64)
    heavy = np.arange(10_000) % 13
    path = store(tmp_path, {"f": values, "u": whole, "w": heavy}, chunk=700)
    found = column_stats(path, ["f"], block_rows=700)["f"]
    exact = [Fraction(v) for v in values.tolist()]
    mean = sum(exact) / len(exact)
    spread = math.sqrt(sum((v - mean) ** 2 for v in exact) / len(exact))
    assert found.stddev == pytest.approx(spread, rel=1e-12)
    assert found.mean == float(mean)
    found = column_stats(path, ["u"], weights="w", block_rows=700)["u"]
    small = np.arange(10_000)
    mean = np.average(small, weights=heavy)
    spread = math.sqrt(np.average((small - mean) ** 2, weights=heavy))
    assert found.stddev == pytest.approx(spread, rel=1e-12)


@pytest.mark.main_env_only
def test_infinities_and_large_values(tmp_path):
    """As IEEE arithmetic has it: numpy's own mean of the same values."""
    columns = {
        "up": np.array([1.0, np.inf, 2.0, np.nan]),
        "both": np.array([-np.inf, np.inf, 2.0, 1.0]),
        "down": np.array([-np.inf, -np.inf, 2.0, 1.0]),
        "large": np.full(4, 1.5e308),
        "zeros": np.array([0.0, -0.0, -0.0, 0.0]),
    }
    found = column_stats(store(tmp_path, columns))
    assert (found["up"].max, found["up"].mean, found["up"].missing) == (np.inf, np.inf, 1)
    assert math.isnan(found["up"].stddev)
    assert math.isnan(found["both"].mean)
    assert (found["down"].mean, found["down"].min) == (-np.inf, -np.inf)
    assert found["large"].mean == pytest.approx(1.5e308)
    assert (found["zeros"].distinct, found["zeros"].frequent) == (1, ((0.0, 4),))


@pytest.mark.main_env_only
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["i2", "i8", "u8", "f4", "f8"]).flatmap(
        lambda n: hnp.arrays(
            n, st.integers(1, 40),
            elements=st.floats(-1e6, 1e6, width=32) if n[0] == "f"
            else hnp.from_dtype(np.dtype(n)),
        )
    ),
    st.integers(1, 12),
)  # fmt: skip
def test_histograms_count_each_value_where_it_is(tmp_path_factory, values, number):
    path = store(tmp_path_factory.mktemp("stats"), {"v": values, "w": np.full(len(values), 3)})
    found = column_stats(path, ["v"], weights="w", histogram=number)["v"].histogram
    assert (found.below, found.above) == (0, 0)
    edges, expected = list(found.edges), [0] * number
    for value in values.tolist():
        # Python holds integers against floats exactly.
        expected[sum(value >= edge for edge in edges[1:-1])] += 3
    assert list(found.counts) == expected
    if values.dtype.kind == "f":
        plain, np_edges = np.histogram(values.astype("f8"), number)
        assert (np.array(found.edges) == np_edges).all()
        assert (np.array(found.counts) == 3 * plain).all()


@pytest.mark.main_env_only
@pytest.mark.parametrize("dtype", ["u1", "u8", "f4", "?"])
def test_weights_of_any_number_dtype(tmp_path, dtype):
    path = store(tmp_path, {"x": np.arange(3), "w": np.array([0, 1, 1], dtype)})
    assert column_stats(path, ["x"], weights="w")["x"].sum == 3


@pytest.mark.main_env_only
def test_weights_that_are_no_counts_or_too_many(tmp_path):
    path = store(tmp_path, {"x": np.arange(2), "s": np.array(["1", "2"], "T"),
                            "u": np.array([1, 2**63], "u8"), "i": np.array([2**62, 2**62])})  # fmt: skip
    with pytest.raises(ConversionError, match="'u', row 1"):
        column_stats(path, ["x"], weights="u")
    with pytest.raises(ConversionError, match="no counts"):
        column_stats(path, ["x"], weights="s")
    with pytest.raises(ConversionError, match="'x': the weights add up to"):
        column_stats(path, ["x"], weights="i")


MEMORY_OF_STATISTICS = textwrap.dedent("""
    import sys
    from gdalbridge import column_stats
    from tests.memory import peak
    found = column_stats(sys.argv[1], ["v"], memory=2**26)["v"]
    print(found.distinct, repr(found.median), peak())
""")


@pytest.mark.main_env_only
@pytest.mark.thorough
def test_memory_does_not_grow_with_the_different_values(tmp_path):
    """Beyond its memory DuckDB spills to disk; what it spilled is gone afterwards."""
    peaks = []
    for rows in (3_000_000, 9_000_000):
        values = np.random.default_rng(3).permutation(rows).astype("f8")
        path = store(tmp_path / str(rows), {"v": values}, chunk=500_000)
        spill = tmp_path / f"spill{rows}"
        spill.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", MEMORY_OF_STATISTICS, path], capture_output=True, text=True,
            env=os.environ | {"TMPDIR": str(spill)}, cwd=ROOT, timeout=300, check=True,
        )  # fmt: skip
        distinct, median, peak = done.stdout.split()
        assert (int(distinct), float(median)) == (rows, rows // 2 - 1)
        assert not list(spill.iterdir())
        peaks.append(int(peak))
    # The values alone are 46 MiB more.
    assert peaks[1] - peaks[0] < 30


@pytest.mark.main_env_only
def test_an_interrupt_ends_it_and_leaves_nothing(tmp_path):
    path = store(tmp_path, {"v": np.random.default_rng(3).random(20_000_000)}, chunk=500_000)
    spill = tmp_path / "spill"
    spill.mkdir()
    # A shell's background jobs ignore SIGINT, and their children inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code + MEMORY_OF_STATISTICS, path], stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(spill)}, cwd=ROOT,
    )  # fmt: skip
    ends = time.monotonic() + 60
    while not list(spill.iterdir()) and time.monotonic() < ends:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
    assert not list(spill.iterdir())


@pytest.mark.main_env_only
def test_a_histogram_with_edges_of_its_own_says_what_lies_outside(tmp_path):
    values = np.array([-np.inf, -1, 0, 0.5, 1, 2, np.inf, np.nan])
    path = store(tmp_path, {"x": values, "n": np.arange(-3, 5)})
    found = column_stats(path, histogram=(2, 0, 1))
    assert found["x"].histogram == Histogram((0.0, 0.5, 1.0), (1, 2), 2, 2)
    assert found["n"].histogram.counts == (1, 1)
    assert (found["n"].histogram.below, found["n"].histogram.above) == (3, 3)
    own = column_stats(path, ["x"], histogram=3)["x"].histogram
    assert (own.edges[0], own.edges[-1], own.below, own.above) == (-1.0, 2.0, 1, 1)
    same = column_stats(store(tmp_path / "b", {"x": np.full(3, 7)}), histogram=4)["x"].histogram
    assert (same.edges[0], same.edges[-1], sum(same.counts)) == (6.5, 7.5, 3)


@pytest.mark.main_env_only
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("block_rows", [700, 5000], ids=["blocks", "one block"])
def test_a_table_of_all_kinds_against_numpy(tmp_path, weighed, block_rows):
    rng = np.random.default_rng(11)
    n = 3001
    columns = {
        "i1": rng.integers(-128, 128, n, dtype="i1"),
        "i8": rng.integers(-(2**63), 2**63 - 1, n),
        "u8": rng.integers(2**63, 2**64 - 1, n, dtype="u8"),
        "f4": rng.normal(size=n).astype("f4"),
        "f8": np.where(rng.random(n) < 0.1, np.nan, rng.lognormal(size=n)),
        "when": rng.integers(0, 10**15, n).view("M8[us]"),
        "pair": rng.integers(0, 9, (n, 2)),
        "Histogram": rng.integers(0, 50, n).astype("f8"),
    }
    columns["when"][::7] = np.datetime64("NaT", "us")
    path = store(tmp_path, columns, chunk=350)
    found = column_stats(
        path, weights="Histogram" if weighed else None, quantiles=QS, block_rows=block_rows
    )
    columns["pair[0]"], columns["pair[1]"] = columns.pop("pair").T
    assert list(found) == ["i1", "i8", "u8", "f4", "f8", "when", "pair[0]", "pair[1]", "Histogram"]
    for name, one in found.items():
        values = columns[name]
        there = ~(np.isnat(values) if values.dtype.kind == "M" else np.isnan(values))
        heavy = columns["Histogram"].astype("i8") if weighed else np.ones(n, "i8")
        assert (one.rows, one.missing) == (n, int((~there).sum()))
        there &= heavy > 0
        values, heavy = values[there], heavy[there]
        assert (one.count, one.weight) == (len(values), int(heavy.sum()))
        assert (one.min, one.max) == (values.min(), values.max())
        plain = values.view("i8") if values.dtype.kind == "M" else values
        for quantile in one.quantiles:
            assert quantile.lower == quantile.value == quantile.upper
            expected = np.quantile(
                plain, quantile.q, method="inverted_cdf", weights=heavy if weighed else None
            )
            got = quantile.value.view("i8") if values.dtype.kind == "M" else quantile.value
            assert got == expected, (name, quantile.q)
        exact = sum(Fraction(v) * w for v, w in zip(plain.tolist(), heavy.tolist(), strict=True))
        mean = exact / int(heavy.sum())
        if values.dtype.kind == "M":
            assert one.mean == np.datetime64(round(mean), "us")
            continue
        if values.dtype.kind in "iu":
            assert one.sum == exact
            assert one.mean == float(mean)
        assert one.sum == pytest.approx(float(exact), rel=1e-12)
        assert one.mean == pytest.approx(float(mean), rel=1e-12)
        wide = plain.astype("f8")
        spread = math.sqrt(np.average((wide - float(mean)) ** 2, weights=heavy))
        assert one.stddev == pytest.approx(spread, rel=1e-9)


@pytest.mark.main_env_only
def test_integers_beyond_2_53_are_not_rounded(tmp_path):
    values = np.array([2**63 - 1, 2**63 - 2, 2**53 + 1], "i8")
    wide = np.array([2**64 - 1, 2**64 - 1, 0], "u8")
    one, other = column_stats(store(tmp_path, {"i": values, "u": wide}), quantiles=[0.5]).values()
    assert (one.min, one.max, one.sum) == (2**53 + 1, 2**63 - 1, sum(values.tolist()))
    assert one.median == 2**63 - 2
    assert (other.max, other.sum, other.mode) == (2**64 - 1, 2**65 - 2, 2**64 - 1)
    heavy = np.array([2**62, 2**61, 1])
    weighed = column_stats(store(tmp_path / "b", {"u": wide, "w": heavy}), ["u"], weights="w")["u"]
    assert weighed.sum == (2**64 - 1) * (2**62 + 2**61)
    assert weighed.mean == float(Fraction(weighed.sum, weighed.weight))


@pytest.mark.main_env_only
def test_the_edges_of_integers_are_theirs(tmp_path):
    """The float64 nearest to the smallest value lies above it, and to the largest below."""
    values = np.array([2**53 + 1 + 2, 2**54 + 2, 2**60 + 1], "i8")
    assert float(values[0]) > int(values[0])
    assert float(values[-1]) < int(values[-1])
    found = column_stats(store(tmp_path, {"x": values}), histogram=2)["x"].histogram
    assert (found.counts, found.below, found.above) == ((2, 1), 0, 0)


@pytest.mark.main_env_only
def test_text_bytes_and_bools(tmp_path):
    texts = np.array(["wald", "", "see", "wald", "größe"], np.dtypes.StringDType())
    raw = np.empty(5, object)
    raw[:] = [b"", b"\x00", b"ab", b"ab", b""]
    columns = {
        "s": texts, "S": np.array([b"a", b"", b"abc", b"a", b"a"]), "o": raw,
        "b": np.array([True, False, True, True, False]), "n": np.array([1, 2, 0, 3, 4]),
    }  # fmt: skip
    path = store(tmp_path, columns)
    found = column_stats(path)
    assert found == column_stats(store(tmp_path / "blocks", columns, chunk=2), block_rows=2)
    s = found["s"]
    assert (s.count, s.empty, s.min_length, s.max_length, s.distinct) == (5, 1, 0, 5, 4)
    assert s.frequent == (("wald", 2), ("", 1), ("größe", 1), ("see", 1))
    assert found["S"].frequent == ((b"a", 3), (b"", 1), (b"abc", 1))
    assert (found["o"].empty, found["o"].max_length) == (2, 2)
    assert (found["b"].true, found["b"].mean, found["b"].quantiles) == (3, 0.6, ())
    heavy = column_stats(path, weights="n")
    assert heavy["s"].frequent == (("größe", 4), ("wald", 4), ("", 2))
    assert (heavy["s"].empty, heavy["s"].count, heavy["s"].weight) == (2, 4, 10)
    assert heavy["b"].true == 4
    json.dumps({name: one.as_dict() for name, one in heavy.items()})


@pytest.mark.main_env_only
def test_missing_values_do_not_count(tmp_path):
    path = store(
        tmp_path,
        {
            "i": np.array([-1, 5, -1, 7], "i2"), "u": np.array([255, 1, 2, 3], "u1"),
            "f": np.array([0.1, 5, np.nan, 7], "f4"), "s": np.array(["n/a", "x", "", "n/a"], "T"),
            "t": np.array(["2020-01-01", "NaT", "2020-01-03", "2020-01-05"], "M8[D]"),
        },
        i={"missing_value": -1}, u={"missing_value": -1}, f={"missing_value": 0.1},
        s={"missing_value": "n/a"}, t={"missing_value": "2020-01-05"},
    )  # fmt: skip
    found = column_stats(path)
    assert [(one.count, one.missing) for one in found.values()] == [
        (2, 2), (4, 0), (2, 2), (2, 2), (2, 2),
    ]  # fmt: skip
    assert (found["i"].min, found["f"].mean) == (5, 6.0)
    assert str(found["t"].mean) == "2020-01-02"
    assert found["u"].max == 255


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    ("wrong", "row"),
    [([1, -1, 2], 1), ([1.0, 2.0, np.nan], 2), ([1.0, 0.5, 1.0], 1), ([np.inf, 1, 1], 0)],
)
def test_what_is_no_count_is_refused_with_its_row(tmp_path, wrong, row):
    path = store(tmp_path, {"x": np.arange(3), "w": np.array(wrong)})
    with pytest.raises(ConversionError, match=f"column 'w', row {row}: .* is not a weight"):
        column_stats(path, ["x"], weights="w")


@pytest.mark.main_env_only
@pytest.mark.parametrize("dtype", ["u1", "i4", "f4"])
def test_a_missing_weight_is_refused_with_its_row(tmp_path, dtype):
    weights = np.array([1, 2, 255], dtype)
    path = store(tmp_path, {"x": np.arange(3), "w": weights}, w={"missing_value": 255})
    with pytest.raises(ConversionError, match=r"'w', row 2: the missing value \(255.*\) is not a"):
        column_stats(path, ["x"], weights="w")
    # A missing weight of 0 does not count, like any other 0.
    (tmp_path / "0").mkdir()
    path = store(tmp_path / "0", {"x": np.arange(3), "w": weights - 1}, w={"missing_value": 0})
    assert column_stats(path, ["x"], weights="w")["x"].sum == 2 * 254 + 1


@pytest.mark.main_env_only
def test_columns_of_one_and_of_several_blocks_by_turns(tmp_path):
    """They are counted in different ways, in one database."""
    path, rows = str(tmp_path / "t.rat.zarr"), 1000
    with RatZarr(path, newRowCount=rows) as table:
        for name, chunk in (("a", 100), ("b", rows), ("c", 100), ("d", rows)):
            table.createColumn(name, "i4", chunkSize=chunk)
            table.writeBlock(name, np.arange(rows), 0)
    for found in column_stats(path, block_rows=100).values():
        assert (found.count, found.distinct, found.min, found.max) == (rows, rows, 0, rows - 1)


def test_an_empty_column_and_one_of_nothing(tmp_path):
    found = column_stats(store(tmp_path, {"x": np.array([np.nan, np.nan])}), histogram=3)["x"]
    assert (found.rows, found.missing, found.count, found.min, found.mean) == (2, 2, 0, None, None)
    assert (found.quantiles, found.histogram) == ((), None)
    none = column_stats(store(tmp_path / "b", {"x": np.empty(0)}))["x"]
    assert (none.rows, none.count, none.stddev) == (0, 0, None)


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    rat = new_rat(
        [("Value", INTEGER, 5, np.arange(30)), ("n", REAL, 1, np.arange(30.0)),
         ("class", STRING, 2, ["a", "b", "c"] * 10)], 30,
    )  # fmt: skip
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    del dataset
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(30)
        table.createColumn("Value", np.uint64)
        table.writeBlock("Value", 2**63 + np.arange(30, dtype="u8"), 0)
        table.createColumn("late", np.float64, complete=False)
    with RatZarr(f"{path}.tex.rat.zarr") as table:
        table.setRowCount(20)
        table.createColumns({"tex": "f4", "Value": "i1"})
    return path


def test_a_raster_has_its_own_columns_and_its_sidecars(raster):
    with pytest.warns(LossWarning, match="'late' is left out: it is not complete"):
        found = column_stats(raster)
    assert list(found) == ["Value", "n", "class", "tex"]
    assert (found["Value"].dtype, found["Value"].max) == ("uint64", 2**63 + 29)
    assert found["class"].frequent == (("a", 10), ("b", 10), ("c", 10))
    by_pixels = column_stats(raster, ["Value"], weights=True)["Value"]
    assert (by_pixels.weight, by_pixels.count) == (435, 29)
    assert column_stats(raster, ["tex"], names=["tex"])["tex"].rows == 20
    with pytest.raises(BridgeError, match="20 rows, and its weights 'n' have 30"):
        column_stats(raster, ["tex"], weights=True)
    with pytest.raises(BridgeError, match="'late' can't be read: it is not complete"):
        column_stats(raster, ["late"])
    with pytest.raises(ColumnSelectionError, match="no column 'value': did you mean \"Value\""):
        column_stats(raster, ["value"])
    with pytest.raises(BridgeError, match="no sidecar 'other'"):
        column_stats(raster, names=["other"])
    with pytest.raises(BridgeError, match="is a table itself"):
        column_stats(f"{raster}.rat.zarr", names=["other"])


def test_what_is_asked_wrongly_is_said(raster, tmp_path):
    for asked in (
        {"quantiles": [1.5]},
        {"histogram": 0},
        {"histogram": (3, 2, 1)},
        {"histogram": "x"},
    ):
        with pytest.raises(BridgeError, match=r"expected|from 0 to 1|number of bins"):
            column_stats(raster, ["Value"], **asked)
    with pytest.raises(ColumnSelectionError, match="list of names"):
        column_stats(raster, "Value")
    bare = tmp_path / "bare.tif"
    make(bare)
    with pytest.raises(RasterNotFoundError, match="no attribute table"):
        column_stats(bare)
    with pytest.raises(CancelledError):
        column_stats(raster, ["Value"], progress=lambda *_: 0)


@pytest.mark.main_env_only
def test_on_s3(moto_s3):
    url = f"s3://{moto_s3.bucket}/dir/seg.tif.rat.zarr"
    with RatZarr(url) as table:
        table.setChunkSize(40)
        table.setRowCount(100)
        table.createColumns({"x": "f8", "n": "u4"})
        table.writeBlocks({"x": np.arange(100.0), "n": np.arange(100)}, 0)
    found = column_stats(url, ["x"], weights="n", quantiles=[0.5])["x"]
    assert found.mean == np.average(np.arange(100), weights=np.arange(100))
    assert found.median == np.quantile(
        np.arange(100), 0.5, method="inverted_cdf", weights=np.arange(100)
    )


def test_the_command(raster):
    def call(*args):
        return CliRunner().invoke(main, ["stats", str(raster), *args])

    done = call("Value", "class", "--pixels", "--bins", "3", "--quantiles", "0.5")
    assert done.exit_code == 0, done.output
    assert f"max           {2**63 + 29}" in done.output
    assert "quantile 0.5" in done.output
    assert "b (145)" in done.output
    as_json = json.loads(call("Value", "--json", "--weights", "n").output)
    assert as_json["Value"]["max"] == 2**63 + 29
    assert as_json["Value"]["quantiles"][2]["lower"] == as_json["Value"]["quantiles"][2]["value"]
    wrong = call("Valu")
    assert (wrong.exit_code, 'did you mean "Value"' in wrong.output) == (1, True)
    assert call("--quantiles", "x").exit_code == 2
    assert call("--pixels", "--weights", "n").exit_code == 2
