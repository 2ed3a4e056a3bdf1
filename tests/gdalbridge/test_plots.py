"""Plots against numpy: what the axes show, and what the title says is left out."""

import subprocess
import sys
import warnings
from collections import Counter

import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import dates
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from gdalbridge import BridgeError, open_table
from gdalbridge.cli import main
from gdalbridge.errors import ConversionError
from ratzarr import RatZarr, RatZarrError
from tests.processes import gdalbridge

pytestmark = pytest.mark.main_env_only
ROWS = 6000
COLOURS = {"water": (70, 107, 159), "forest": (28, 95, 44), "rock": (179, 172, 159)}


@pytest.fixture
def ax():
    return Figure(layout="constrained").add_subplot()


@pytest.fixture
def values():
    random = np.random.default_rng(9)
    names = random.choice(list(COLOURS), ROWS, p=[0.5, 0.3, 0.2]).astype(object)
    ndvi = random.normal(0.3, 0.2, ROWS) + 0.3 * (names == "forest")
    ndvi[:40] = np.nan
    ndvi[40:45] = np.inf
    return {
        "Histogram": random.integers(1, 100, ROWS).astype("i4"),
        "ndvi": ndvi,
        "nir": (5000 * ndvi + random.normal(0, 300, ROWS)).astype("f4"),
        "class": names,
        "parcel": random.integers(0, 50, ROWS).astype("u2"),
        "many": np.array([f"a parcel with a long name, number {n % 33}" for n in range(ROWS)], object),
        "code": (random.integers(0, 5, ROWS) * 10).astype("i2"),
        "flag": random.random(ROWS) < 0.01,
        "date": np.datetime64("2020-01-01", "s") + random.integers(0, 10**8, ROWS),
        "bands": random.normal(size=(ROWS, 2)),
        **{
            colour: np.array([COLOURS[name][part] for name in names], "i4")
            for part, colour in enumerate(["Red", "Green", "Blue"])
        },
    }  # fmt: skip


@pytest.fixture
def path(tmp_path, values):
    path = tmp_path / "seg.tif.rat.zarr"
    usages = {"Histogram": 1, "class": 2, "Red": 6, "Green": 7, "Blue": 8}
    with RatZarr(path, newRowCount=ROWS, newChunkSize=1000) as store:
        for name, array in values.items():
            store[name] = array
        for name, usage in usages.items():
            store[name].attrs["GDAL_USAGE"] = usage
        store["nir"].attrs["units"] = "reflectance"
    return path


@pytest.fixture
def table(path):
    with open_table(path, update=False) as table:
        yield table


def bars(ax):
    """Return the widths of horizontal bars by their names."""
    names = [text.get_text() for text in ax.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in ax.patches], strict=True))


def stairs(ax):
    return [patch.get_data() for patch in ax.patches]


def test_a_histogram(table, values, ax):
    assert table.plot("ndvi", ax=ax, bins=30) is ax
    [(counts, edges, _)] = stairs(ax)
    finite = values["ndvi"][np.isfinite(values["ndvi"])]
    expected, expected_edges = np.histogram(finite, 30)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_allclose(edges, expected_edges, rtol=1e-12, atol=1e-12)
    title = ax.get_title()
    assert title.startswith("seg.tif: ndvi\n")
    assert "40 rows with NaN ndvi left out" in title.replace("\n", " ")
    assert "5 rows with infinite ndvi left out" in title.replace("\n", " ")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("ndvi", "rows")


def test_the_edges_of_a_histogram_can_be_given(table, values, ax):
    table.plot("ndvi", ax=ax, bins=(8, 0, 0.5))
    [(counts, _, _)] = stairs(ax)
    expected, _ = np.histogram(values["ndvi"], 8, (0, 0.5))
    np.testing.assert_array_equal(counts, expected)
    outside = ROWS - 45 - expected.sum()
    assert f"{outside:,} rows outside the bins" in ax.get_title().replace("\n", " ")


def test_bins_of_integers_have_equally_many_values(table, values, ax):
    table.plot("parcel", ax=ax, bins=20)
    [(counts, edges, _)] = stairs(ax)
    assert set(np.diff(edges)) == {3}
    np.testing.assert_array_equal(counts, np.histogram(values["parcel"], edges)[0])
    assert counts.sum() == ROWS


@pytest.mark.parametrize(
    "extremes",
    [np.array([0, 2**64 - 1], "u8"), np.array([-(2**63), 2**63 - 1]), np.array([-3e38, 3e38])],
)  # fmt: skip
def test_extreme_numbers(tmp_path, ax, extremes):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["x"] = np.repeat(extremes, 15)
    with open_table(tmp_path / "t.rat.zarr") as table:
        table.plot("x", ax=ax, bins=4, kind="histogram")
    [(counts, _, _)] = stairs(ax)
    assert counts.tolist() == [15, 0, 0, 15]


def test_numbers_that_matplotlib_can_not_draw(tmp_path, ax):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["x"] = np.array([-1.7e308, 1.0, 2.0, 1.7e308])
    with open_table(tmp_path / "t.rat.zarr") as table:
        with pytest.raises(ConversionError, match=r"column 'x'.*choose edges"):
            table.plot("x", ax=ax)
        table.plot("x", ax=ax, bins=(2, 0, 4))
    assert stairs(ax)[0][0].tolist() == [1, 1]


def test_date_times(table, values, ax):
    table.plot("date", ax=ax, bins=10)
    [(counts, edges, _)] = stairs(ax)
    assert counts.sum() == ROWS
    days = dates.date2num(values["date"])
    np.testing.assert_array_equal(counts, np.histogram(days, edges)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.figure.canvas.draw()
    assert "2021" in [text.get_text() for text in ax.get_xticklabels()]


@pytest.mark.parametrize("weights", [None, True, "Histogram"])
def test_bars_in_the_colours_of_the_table(table, values, ax, weights):
    table.plot("class", ax=ax, weights=weights)
    heavy = values["Histogram"] if weights else np.ones(ROWS, int)
    expected = {name: heavy[values["class"] == name].sum() for name in COLOURS}
    assert bars(ax) == expected
    assert list(bars(ax)) == sorted(expected, key=expected.get, reverse=True)
    for name, bar in zip(bars(ax), ax.patches, strict=True):
        assert [round(255 * part) for part in bar.get_facecolor()[:3]] == list(COLOURS[name])
    assert ax.get_xlabel() == {None: "rows", True: "pixels"}.get(weights, "sum of Histogram")
    # The first is on top.
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_few_integers_and_bools_are_classes(table, values, ax):
    table.plot("code", ax=ax)
    counted = Counter(values["code"].tolist())
    assert bars(ax) == {str(code): counted[code] for code in sorted(counted)}
    ax.clear()
    table.plot("flag", ax=ax)
    assert bars(ax) == {"false": (~values["flag"]).sum(), "true": values["flag"].sum()}


def test_rare_classes_are_drawn_together(table, values, ax):
    table.plot("many", ax=ax, top=20)
    found = bars(ax)
    assert len(found) == 21
    assert list(found)[-1] == "13 other classes"
    title = ax.get_title().replace("\n", " ")
    assert "the 20 most frequent of 33 classes, and the others" in title
    # Its bar would be many times as long as the others.
    assert found["13 other classes"] == 0
    assert "no bar for the others" in title
    counted = sorted(Counter(values["many"]).values())
    assert f"{sum(counted[:13]):,}" in [text.get_text() for text in ax.texts]
    # Cut names that would be equal show their end.
    assert len({name.strip() for name in found}) == 21
    assert max(map(len, found)) <= 36


def test_counts_over_decades_are_logarithmic(tmp_path, ax):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["class"] = np.array(["a"] * 5000 + ["b"] * 3, object)
        store["x"] = np.array([1.5] * 4900 + list(range(103)))
    with open_table(tmp_path / "t.rat.zarr") as table:
        table.plot("class", ax=ax)
        assert ax.get_xscale() == "log"
        assert ax.get_xlabel() == "rows (log scale)"
        ax.clear()
        table.plot("class", ax=ax, log=False)
        assert ax.get_xscale() == "linear"
        ax.clear()
        table.plot("x", ax=ax)
        assert ax.get_yscale() == "log"
        assert ax.get_ylim()[0] < stairs(ax)[0][0][stairs(ax)[0][0] > 0].min()


def test_boxes_by_class(table, values, ax):
    table.plot("ndvi", "class", ax=ax)
    names = [text.get_text() for text in ax.get_yticklabels()]
    there = np.isfinite(values["ndvi"])
    for place, label in enumerate(names):
        name, _, rows = label.partition("  ")
        one = values["ndvi"][there & (values["class"] == name)]
        assert rows == f"({len(one):,})"
        low, high = np.sort(ax.patches[place].get_path().vertices[:, 0])[[0, -1]]
        np.testing.assert_allclose([low, high], np.quantile(one, [0.25, 0.75]), rtol=1e-9)
        colour = [round(255 * part) for part in ax.patches[place].get_facecolor()[:3]]
        assert colour == list(COLOURS[name])
    drawn = np.concatenate([line.get_xdata() for line in ax.lines])
    for name in COLOURS:
        one = values["ndvi"][there & (values["class"] == name)]
        for value in (one.mean(), np.median(one), *np.quantile(one, [0.05, 0.95])):
            assert np.isclose(drawn, value, rtol=1e-9).any()
    assert "40 rows with NaN ndvi left out" in ax.get_title().replace("\n", " ")
    # The other order is the same plot.
    other = Figure().add_subplot()
    table.plot("class", "ndvi", ax=other)
    assert [text.get_text() for text in other.get_yticklabels()] == names


def test_histograms_by_class(table, values, ax):
    table.plot("ndvi", "class", kind="histogram", ax=ax, bins=12)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    finite = values["ndvi"][np.isfinite(values["ndvi"])]
    for name, (counts, edges, _) in zip(labels, stairs(ax), strict=True):
        chosen = values["ndvi"][(values["class"] == name) & np.isfinite(values["ndvi"])]
        np.testing.assert_array_equal(
            counts, np.histogram(chosen, 12, (finite.min(), finite.max()))[0]
        )
        assert len(edges) == 13


def test_a_class_by_a_class(table, values, ax):
    table.plot("class", "code", ax=ax)
    names = [text.get_text() for text in ax.get_yticklabels()]
    codes = [int(text.get_text()) for text in ax.get_legend().get_texts()]
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(len(codes), len(names))
    for k, code in enumerate(codes):
        for i, name in enumerate(names):
            assert widths[k, i] == ((values["class"] == name) & (values["code"] == code)).sum()


def test_two_numbers_of_many_rows_are_a_density(table, values, ax):
    table.plot("nir", "ndvi", ax=ax)
    [mesh] = [one for one in ax.collections if isinstance(one, QuadMesh)]
    there = np.isfinite(values["ndvi"]) & np.isfinite(values["nir"])
    x, y = values["ndvi"][there], values["nir"][there].astype("f8")
    expected, _, _ = np.histogram2d(y, x, [80, 100])
    np.testing.assert_array_equal(np.nan_to_num(np.ma.filled(mesh.get_array(), 0)), expected)
    assert f"{there.sum():,} rows in 100 × 80 bins" in ax.get_title()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("ndvi", "nir [reflectance]")


def test_two_numbers_of_few_rows_are_points(tmp_path, ax):
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 300))
    x[:9] = np.nan
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["x"], store["y"] = x, y
    with open_table(tmp_path / "t.rat.zarr") as table:
        table.plot("y", "x", ax=ax)
    [points] = [one for one in ax.collections if isinstance(one, PathCollection)]
    found = np.array(sorted(points.get_offsets().tolist()))
    np.testing.assert_array_equal(found, sorted(zip(x[9:], y[9:], strict=True)))
    assert "291 rows" in ax.get_title()


def test_a_sample_says_so(table, values, ax):
    table.plot("nir", "ndvi", kind="scatter", ax=ax)
    [points] = [one for one in ax.collections if isinstance(one, PathCollection)]
    assert len(points.get_offsets()) == 5000
    assert "a sample of 5,000 rows of 5,955" in ax.get_title()
    known = set(values["ndvi"].tolist())
    assert all(x in known for x, _ in points.get_offsets())


def test_one_of_several_values_per_row(table, values, ax):
    table.plot("bands[1]", ax=ax, bins=10)
    np.testing.assert_array_equal(stairs(ax)[0][0], np.histogram(values["bands"][:, 1], 10)[0])
    for name in ("bands", "bands[2]"):
        with pytest.raises(ConversionError, match=r"2 values per row.*'bands\[0\]'"):
            table.plot(name, ax=ax)
    with pytest.raises(RatZarrError, match=r"no column 'ndvi\[x\]'"):
        table.plot("ndvi[x]", ax=ax)


def test_colours_that_differ_within_a_class_are_not_used(path, ax):
    with open_table(path) as table:
        red = np.asarray(table["Red"])
        red[0] = 255 - red[0]
        first = table["class"][0]
        table["Red"] = red
        table["Red"].attrs["GDAL_USAGE"] = 6
        table.plot("class", ax=ax)
    for name, bar in zip(bars(ax), ax.patches, strict=True):
        colour = [round(255 * part) for part in bar.get_facecolor()[:3]]
        assert (colour == list(COLOURS[name])) is (name != first)


def test_missing_values_are_left_out(tmp_path, ax):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["n"] = np.array([-1, -1, *range(48)])
        store["n"].attrs["missing_value"] = -1
        store["s"] = np.array([*["?"] * 5, *["", "$a'$", "_b"] * 15], object)
        store["s"].attrs["missing_value"] = "?"
    with open_table(tmp_path / "t.rat.zarr") as table:
        table.plot("n", ax=ax)
        assert stairs(ax)[0][0].sum() == 48
        assert "2 rows with missing n left out" in ax.get_title()
        ax.clear()
        table.plot("s", ax=ax)
        assert "5 rows without a s left out" in ax.get_title()
        # No formula is read into it.
        assert set(bars(ax)) == {"(empty)", r"\$a'\$", "_b"}
        ax.figure.canvas.draw()
        ax.clear()
        table.plot("n", "s", ax=ax, kind="histogram")
        ax.figure.canvas.draw()
        assert len(ax.get_legend().get_texts()) == 3
        # One is missing in n of the rows that are missing in s.
        assert sum(counts.sum() for counts, _, _ in stairs(ax)) == 45


def test_blanks_are_no_empty_text(tmp_path, ax):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["s"] = np.array(["", " ", " ", "\t", "\t", "\t"], object)
    with open_table(tmp_path / "t.rat.zarr", update=False) as table:
        table.plot("s", ax=ax)
    assert bars(ax) == {"(empty)": 1, "' '": 2, r"'\t'": 3}


def test_classes_of_other_types(tmp_path, ax):
    names = {"s": np.array([b"a", b"b'\xff"] * 20), "i": np.array([-(2**40), 7] * 20)}
    names["t"] = np.array(["a\0b", "it's"] * 20, object)
    names["f"] = np.array([True, False] * 20)
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["x"] = np.arange(40.0)
        for name, values in names.items():
            store[name] = values
    with open_table(tmp_path / "t.rat.zarr") as table:
        for name in names:
            ax.clear()
            table.plot("x", name, ax=ax)
            assert [text.get_text()[-4:] for text in ax.get_yticklabels()] == ["(20)"] * 2


def test_edges_between_numbers_and_weights_of_0(tmp_path, ax):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["n"], store["none"] = np.arange(30), np.zeros(30, "i4")
        store["day"] = np.datetime64("2020-01-01") + np.arange(30)
        store["few"] = np.arange(30) % 3
    with open_table(tmp_path / "t.rat.zarr", update=False) as table:
        with pytest.raises(BridgeError, match="no value is in the bins"):
            table.plot("n", ax=ax, bins=(3, 0.2, 0.8))
        with pytest.raises(BridgeError, match="bins is a number"):
            table.plot("n", ax=ax, bins=(3, 0, np.inf))
        with pytest.raises(BridgeError, match="'day' has date-times, and the edges"):
            table.plot("day", ax=ax, bins=(3, 0, 1))
        table.plot("few", ax=ax, weights="none", log=True)
        assert set(bars(ax).values()) == {0}


def test_columns_without_a_value(tmp_path, ax):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store["x"] = np.full(5, np.nan)
        store["s"] = np.array(["?"] * 5, object)
        store["s"].attrs["missing_value"] = "?"
        store["y"], store["z"] = np.array([[1, 2, np.nan, np.nan, np.nan], [np.nan] * 3 + [1, 2]])
        store["b"] = [b"1", b"2", b"", b"", b""]
    with open_table(tmp_path / "t.rat.zarr") as table:
        with pytest.raises(BridgeError, match=r"column 'x' of .* no value to draw: 5 NaN"):
            table.plot("x", ax=ax)
        with pytest.raises(BridgeError, match=r"column 'x' of .* no value to draw: 5 NaN"):
            table.plot("y", "x", ax=ax)
        with pytest.raises(BridgeError, match=r"column 's' of .* no value to draw"):
            table.plot("s", ax=ax)
        with pytest.raises(BridgeError, match=r"column 'y' of .* no row has both it and 'z'"):
            table.plot("y", "z", ax=ax)
        with pytest.raises(ConversionError, match=r"column 'b' of .* has bytes"):
            table.plot("b", ax=ax)
    with RatZarr(tmp_path / "empty.rat.zarr") as store:
        store.createColumn("x", "f8")
    words = "has no rows, so column 'x' can't be drawn"
    with (
        open_table(tmp_path / "empty.rat.zarr") as table,
        pytest.raises(BridgeError, match=words),
    ):
        table.plot("x", ax=ax)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"column": "ndvi", "kind": "pie"}, "kind is one of"),
        ({"column": "class", "kind": "density"}, "drawn as bars, not as density"),
        ({"column": "ndvi", "bins": 0}, "from 1 to"),
        ({"column": "ndvi", "bins": (5, 1, 1)}, "first edge"),
        ({"column": "ndvi", "by": "class", "weights": True}, "weights are for"),
        ({"column": "class", "weights": "ndvi"}, "weights are numbers from 0"),
        ({"column": "class", "weights": "many"}, "no counts to weigh by"),
        ({"column": "class", "top": 0}, "from 1"),
    ],
)
def test_what_is_refused(table, ax, args, words):
    with pytest.raises(BridgeError, match=words):
        table.plot(**args, ax=ax)


def test_without_axes_a_new_figure_is_made(table):
    import matplotlib.pyplot as plt

    mpl.use("agg")
    try:
        ax = table.plot("class")
        assert ax.figure.number in plt.get_fignums()
    finally:
        plt.close("all")


# ---- the command


def call(*args):
    return CliRunner().invoke(main, ["plot", *map(str, args)])


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_files_by_suffix(path, tmp_path, suffix, magic):
    out = tmp_path / f"out{suffix}"
    done = call(path, "ndvi", "--by", "class", "-o", out)
    assert (done.exit_code, done.output) == (0, f"{out}\n"), done.output
    assert out.read_bytes().startswith(magic)
    if suffix == ".png":
        colours = Image.open(out).convert("RGB").getcolors(2**20)
        assert set(COLOURS.values()) <= {colour for _, colour in colours}
    before = out.read_bytes()
    again = call(path, "class", "-o", out)
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert out.read_bytes() == before
    assert call(path, "class", "-o", out, "--overwrite", "-q").output == ""
    assert out.read_bytes() != before
    assert sorted(one.name for one in tmp_path.iterdir()) == [out.name, path.name]


def test_other_suffixes_and_errors_leave_no_file(path, tmp_path):
    done = call(path, "ndvi", "-o", tmp_path / "out.bmp")
    assert done.exit_code == 1
    assert ".png" in done.output
    assert call(path, "nothing", "-o", tmp_path / "out.png").exit_code == 1
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert call(path, "ndvi").exit_code == 2
    assert call(path, "ndvi", "-o", "x.png", "--pixels", "--weights", "x").exit_code == 2


def test_the_command_needs_no_display(path, tmp_path):
    out = tmp_path / "größe 🛰.png"
    done = subprocess.run(
        gdalbridge("plot", path, "many", "-o", out), capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "MPLBACKEND": "TkAgg", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert out.exists()
    code = "import gdalbridge.cli.plot, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("first", "rows"),
    [(2**63 - 30, 30), (2**63 - 5, 1), (-(2**63), 25), (2**53, 40), (2**52 + 1, 22)],
)
@pytest.mark.parametrize("kind", ["histogram", None])
def test_integers_that_floats_hardly_tell_apart(ax, tmp_path, first, rows, kind):
    """Warnings, such as matplotlib's about an axis without a length, fail the test."""
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=rows) as store:
        store["id"] = np.array(range(first, first + rows))
    with open_table(tmp_path / "t.rat.zarr") as table:
        table.plot("id", ax=ax, kind=kind if rows > 20 else "histogram")
    ax.figure.canvas.draw()
    [bars] = [one for one in ax.patches if hasattr(one, "get_data")]
    counts, edges, _ = bars.get_data()
    assert counts.sum() == rows
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= float(first)
    assert edges[-1] >= float(first + rows - 1)
    # The bars are wide enough to be seen.
    low, high = ax.get_xlim()
    assert (edges[-1] - edges[0]) > 0.5 * (high - low)
