"""What the commands print, as a newcomer sees it in a terminal."""

import json
import os
import pty
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner

from gdalbridge import list_tables, open_table
from gdalbridge.cli import main
from gdalbridge.errors import BridgeError, RasterNotFoundError
from gdalbridge.sidecars.listing import MAX_FOLDERS
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import INTEGER, make, new_rat
from tests.processes import gdalbridge


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def in_terminal(width, *args):
    """Run a command whose output goes to a terminal of that width; return its lines."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [str(word) for word in gdalbridge(*args)],
        stdout=theirs, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while some := os.read(ours, 65536):
            said += some
    except OSError:
        pass  # Linux says EIO at the end
    os.close(ours)
    with process:
        assert process.wait(60) == 0, process.stderr.read()
    return said.decode().splitlines()


@pytest.fixture
def table(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store.setRowCount(3)
        for number in range(30):
            name = f"column_{number}"
            store.createColumn(name, "f4")
            store.writeBlock(name, np.array([0.1, 16777216, number], "f4"), 0)
    return tmp_path / "t.rat.zarr"


# ---- head


def test_head_fits_the_terminal(table):
    lines = in_terminal(80, "head", table)
    assert max(map(len, lines)) <= 80
    shown = lines[1].split()
    more = 31 - len(shown)
    assert len(shown) > 3
    assert lines[-1] == f"... and {more} more columns: --all shows them"
    every = in_terminal(80, "head", table, "--all")
    assert every[1].split() == ["row", *(f"column_{n}" for n in range(30))]
    # What reads the output gets all of it.
    assert call("head", table).stdout.splitlines() == every
    assert len(json.loads(call("head", table, "--json").output)["columns"]) == 30


def test_a_terminal_narrower_than_a_column_shows_one(table):
    lines = in_terminal(5, "head", table)
    assert lines[1].split() == ["row", "column_0"]


def test_wide_characters_are_aligned(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=4) as store:
        store["森林"] = np.array(["森林", "wald", "fore\u0302t", "森" * 21], "T")
        store["n"] = np.arange(4)
    lines = call("head", tmp_path / "t.rat.zarr").output.splitlines()
    assert lines[1:] == [
        "row  森林                                     n",
        "---  ---------------------------------------  -",
        "0    森林                                     0",
        "1    wald                                     1",
        "2    fore\u0302t                                    2",
        "3    " + "森" * 18 + "...  3",
    ]


def test_float32_has_its_own_digits(table):
    shown = json.loads(call("head", table, "--json").output)["columns"]["column_7"]
    assert shown == [0.1, 16777216.0, 7.0]
    assert np.array(shown, "f4").tolist() == np.array([0.1, 16777216, 7], "f4").tolist()
    assert call("head", table).output.splitlines()[3].split()[1] == "0.1"


def test_every_float32_comes_back_from_json(tmp_path):
    values = np.random.default_rng(5).integers(0, 2**32, 2000, "u4").view("f4")
    values = values[np.isfinite(values)]
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store.setRowCount(len(values))
        store.createColumn("x", "f4")
        store.writeBlock("x", values, 0)
    shown = json.loads(call("head", tmp_path / "t.rat.zarr", "--rows", 2000, "--json").output)
    assert np.array(shown["columns"]["x"], "f4").tobytes() == values.tobytes()


def test_large_whole_numbers_have_all_digits(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr") as store:
        store.setRowCount(2)
        store.createColumn("x", "f8")
        store.writeBlock("x", [21345402912.0, 1e300], 0)
    rows = call("head", tmp_path / "t.rat.zarr").output.splitlines()[3:]
    assert [row.split()[1] for row in rows] == ["21345402912", "1e+300"]


# ---- stats


def test_stats_of_several_columns_are_one_grid(table):
    lines = call("stats", table, "column_3", "column_4").stdout.splitlines()
    assert lines[0].split()[:4] == ["column", "count", "min", "max"]
    assert [line.split()[0] for line in lines[2:4]] == ["column_3", "column_4"]
    assert lines[-1].startswith("--full shows")
    full = call("stats", table, "column_3", "column_4", "--full").stdout
    assert full.count("quantile 0.5") == 2
    alone = call("stats", table, "column_3").stdout
    assert alone.strip() == full.partition("\n\n")[0]
    assert set(json.loads(call("stats", table, "--json").output)) == {
        f"column_{number}" for number in range(30)
    }


def test_stats_fit_the_terminal_and_name_what_is_left_out(table):
    lines = in_terminal(45, "stats", table, "-q")
    assert lines == []
    lines = [
        line for line in in_terminal(45, "stats", table, "column_3", "column_4")
        if not line.startswith("--full")
    ]  # fmt: skip
    assert max(map(len, lines)) <= 45
    assert "stddev" in in_terminal(45, "stats", table, "column_3", "column_4")[-1]


# ---- doctor


def test_doctor_says_a_thing_once(moto_s3):
    said = call("doctor").output.splitlines()
    assert not [line for line in said if line.endswith((" no", " None", " False"))]
    assert len(said) == len({line for line in said if line}) + 1
    url = os.environ["AWS_ENDPOINT_URL"]
    assert sum(url.removeprefix("http://") in line for line in said) == 1


def test_doctor_says_once_that_a_server_is_not_there(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "1")
    monkeypatch.setenv("RATZARR_S3_PATIENCE", "1")
    done = call("doctor", "s3://bucket/x.tif")
    assert done.exit_code == 1
    assert "no problems" not in done.output
    assert (
        sum("127.0.0.1:1" in line and "problem" in line for line in done.output.splitlines()) == 1
    )


# ---- ls


def test_ls_of_what_is_not_there(tmp_path, moto_s3):
    for name in ("nothere", "nothere.tif", "nothere/"):
        done = call("ls", tmp_path / name if not name.endswith("/") else f"{tmp_path}/{name}")
        assert done.exit_code == 1
        assert "nothere" in done.stderr
    for url in ("nothere.tif", "nothere/"):
        with pytest.raises(RasterNotFoundError, match="neither a raster nor a directory"):
            list_tables(f"s3://{moto_s3.bucket}/{url}")


def test_a_raster_without_tables_and_an_empty_folder_are_no_errors(tmp_path, moto_s3):
    make(tmp_path / "a.tif").FlushCache()
    moto_s3.put(f"s3://{moto_s3.bucket}/dir", "a.tif", b"x")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "a.tif", tmp_path / "empty", f"s3://{moto_s3.bucket}/dir/a.tif",
                  f"s3://{moto_s3.bucket}/dir/", f"s3://{moto_s3.bucket}/"):  # fmt: skip
        assert list_tables(place) == []
        assert "no tables" in call("ls", place).stderr


@pytest.mark.parametrize("where", ["local", "s3"])
def test_ls_finds_tables_below(where, tmp_path, moto_s3):
    top = str(tmp_path) if where == "local" else f"s3://{moto_s3.bucket}"
    wanted = ["a.tif.rat.zarr", "deep/c.tif.rat.zarr", "deep/er/b.tif.band2.rat.zarr"]
    for name in wanted:
        with RatZarr(f"{top}/{name}", newRowCount=3):
            pass
    # No table, and not looked into.
    with RatZarr(f"{top}/deep/other.zarr/inner.rat.zarr"):
        pass
    expected = [f"{top}/{name}" for name in wanted]
    assert [one.path for one in list_tables(f"{top}/")] == expected
    assert [one.path for one in list_tables(f"{top}/deep")] == expected[1:]
    shown = call("ls", f"{top}/").stdout
    assert all(path in shown for path in expected)


def test_ls_asks_each_directory_once(counted_s3):
    place, proxy = counted_s3
    top = f"s3://{place.bucket}"
    for name in ("a/x.rat.zarr", "b/c/y.rat.zarr"):
        with RatZarr(f"{top}/{name}"):
            pass
    proxy.clear()
    assert len(list_tables(f"{top}/")) == 2
    listed = [
        one for one in proxy.requests if "delimiter" in one.query and "rat.zarr" not in one.query
    ]
    assert len(listed) == 4, proxy.requests


def test_too_many_directories_are_refused(moto_s3):
    keys = {f"{number}/x": b"" for number in range(MAX_FOLDERS + 1)}
    moto_s3.put_many(f"s3://{moto_s3.bucket}/many", keys)
    with pytest.raises(BridgeError, match="more than 1000 directories below it"):
        list_tables(f"s3://{moto_s3.bucket}/many/")


def test_links_are_not_followed_for_ever(tmp_path):
    with RatZarr(tmp_path / "a" / "x.rat.zarr"):
        pass
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "linked.rat.zarr").symlink_to(tmp_path / "a" / "x.rat.zarr")
    assert [os.path.basename(one.path) for one in list_tables(tmp_path)] == [
        "linked.rat.zarr", "x.rat.zarr",
    ]  # fmt: skip


# ---- which band has a table


@pytest.mark.parametrize("command", ["copy", "head", "stats"])
@pytest.mark.parametrize("bands", [[], [3], [2, 3]])
def test_the_bands_that_have_a_table_are_named(command, bands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = make(tmp_path / "bt.tif", bands=3)
    for band in bands:
        dataset.GetRasterBand(band).SetDefaultRAT(new_rat([("v", INTEGER, 5, [7])], 1))
    dataset = None
    done = call(command, "bt.tif")
    assert done.exit_code == 1
    if not bands:
        assert "band 1 has no attribute table" in done.stderr
        assert "no other band has one. To make one" in done.stderr
    else:
        expected = {1: "but band 3 has. Use --band 3.", 2: "but bands 2, 3 have. Use --band 2."}
        assert expected[len(bands)] in done.stderr.replace("and no sidecar, ", "")
        assert call(command, "bt.tif", "--band", bands[0]).exit_code == 0


@pytest.mark.parametrize(
    "command",
    [["head"], ["describe"], ["sql", "FROM rat"], ["calc", "--out", "a", "v * 2"],
     ["export", "out.csv"]],
)  # fmt: skip
def test_a_sidecar_of_another_band_is_named(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "two.tif", bands=2).FlushCache()
    words = [command[0], "two.tif", *command[1:]]
    done = call(*words)
    assert done.exit_code == 1, done.output
    assert "no other band has one. To make one from the pixels: gdalbridge build" in done.stderr
    with open_table(tmp_path / "two.tif", 2) as table:
        table["v"] = [7]
    done = call(*words)
    assert done.exit_code == 1
    assert "band 1 has no attribute table and no sidecar, but band 2 has. Use " in done.stderr
    assert call(*words, "--band", 2).exit_code == 0


def test_info_of_a_band(tmp_path):
    dataset = make(tmp_path / "two.tif", bands=2)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("v", INTEGER, 5, [7])], 1))
    dataset = None
    with open_table(tmp_path / "two.tif", 2) as table:
        table["x"] = [7]
    path = tmp_path / "two.tif"
    for band, expected in ((1, (1, 0)), (2, (0, 1))):
        found = json.loads(call("info", path, "--band", band, "--json").stdout)
        assert (len(found["tables"]), len(found["sidecars"])) == expected
    assert "there is no band 3" in call("info", path, "--band", 3).stderr


@pytest.mark.parametrize("command", ["info", "head", "stats", "copy"])
def test_a_raster_that_is_not_there_is_said(command, tmp_path):
    done = CliRunner().invoke(main, [command, str(tmp_path / "none.tif")])
    assert done.exit_code == 1
    assert "none.tif can't be opened as a raster: the file does not exist" in done.stderr


def test_head_leaves_out_missing_values(tmp_path):
    store = tmp_path / "t.rat.zarr"
    with RatZarr(store, newRowCount=3) as table:
        table.createColumn("n", "i8", attributes={"missing_value": -(2**63)})
        table.writeBlock("n", [1, -(2**63), 3], 0)
        table.createColumn("m", "i8")
        table.writeBlock("m", [1, -(2**63), 3], 0)
        table.createColumn("s", str, attributes={"missing_value": "none"})
        table.writeBlock("s", ["", "none", "b"], 0)
        table.createColumn("x", "f8", 2, attributes={"missing_value": -1.0})
        table.writeBlock("x", [[0.5, -1.0], [-1.0, -1.0], [2.0, 3.0]], 0)
    shown = json.loads(call("head", store, "--json").output)["columns"]
    assert shown == {
        "n": [1, None, 3], "m": [1, -(2**63), 3], "s": ["", None, "b"],
        "x": [[0.5, None], [None, None], [2.0, 3.0]],
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--of", "--co", "--config"])
def test_options_of_gdal_are_unicode(tmp_path, option):
    given = "\udcff" if option == "--of" else "A=\udcff"
    done = call("bake", tmp_path / "a.tif", tmp_path / "b.tif", option, given)
    assert done.exit_code == 2
    assert option in done.output
    assert "is not Unicode text" in done.output


def test_head_of_no_rows_says_so(tmp_path, table):
    with RatZarr(tmp_path / "empty.rat.zarr") as store:
        store.createColumn("a", "f4")
    assert call("head", tmp_path / "empty.rat.zarr").output.splitlines()[0] == (
        "empty.rat.zarr: no rows"
    )
    said = call("head", table, "--from", "3").output.splitlines()[0]
    assert said == "t.rat.zarr: no rows from 3 on, of 3"
