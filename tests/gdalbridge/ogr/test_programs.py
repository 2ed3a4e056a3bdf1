"""Programs with a Python and a GDAL of their own read our tables. The oracle is numpy's arrays."""

import ast
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gdalbridge.ogr
from tests.gdalbridge.ogr.test_lifetime import processes
from tests.gdalbridge.ogr.test_values import TEXT, write
from tests.processes import wait_until

pytestmark = pytest.mark.main_env_only

STUB = Path(gdalbridge.ogr.__file__).parent / "driver" / "ogr_ratzarr.py"
ROWS = 100_000

debian = pytest.mark.skipif(
    shutil.which("ogr2ogr", path="/usr/bin") is None,
    reason="needs Debian's own programs: apt-get install gdal-bin",
)


def columns():
    rng = np.random.default_rng(4)
    return {
        "id": np.arange(ROWS, dtype="i8"),
        "area": rng.random(ROWS),
        "class": rng.integers(0, 20, ROWS).astype("u1"),
        "name": np.array(rng.choice(["wäter", "forest", ""], ROWS), TEXT),
        "when": np.arange(ROWS).astype("M8[ms]"),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("programs") / "seg.tif.rat.zarr"
    return write(place, columns(), chunk=30_000)


@pytest.fixture
def run(driver_path, tmp_path):
    """A function that runs a program of the system, with its own Python, and returns its output."""

    def done(*command, check=True, **options):
        environment = {
            "GDAL_PYTHON_DRIVER_PATH": driver_path, "PATH": "/usr/bin:/bin",
            "HOME": os.environ["HOME"], "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        found = subprocess.run(
            [str(word) for word in command], env=environment, cwd=tmp_path, capture_output=True,
            text=True, check=False, **options,
        )  # fmt: skip
        if check:
            assert (found.returncode, found.stderr) == (0, "")
        return found

    return done


@debian
def test_ogrinfo_describes_a_table(run, path):
    said = run("ogrinfo", "-ro", "-so", path, "rat").stdout
    assert f"Feature Count: {ROWS}" in said
    assert "FID Column = row" in said
    for field in ("id: Integer64", "area: Real", "name: String", "when: DateTime"):
        assert f"\n{field}" in said
    said = run("ogrinfo", "-ro", "-q", f"RATZARR:{path}?columns=name,id", "rat", "-fid", "77777")
    name = columns()["name"][77777]
    assert (
        f"OGRFeature(rat):77777\n  name (String) = {name}\n  id (Integer64) = 77777\n"
        in said.stdout
    )


@debian
def test_ogrinfo_selects_by_sql(run, path):
    where = "class = 3 AND area > 0.99"
    said = run("ogrinfo", "-ro", "-q", "-geom=NO", path, "-sql",
               f"SELECT COUNT(*) AS n FROM rat WHERE {where}").stdout  # fmt: skip
    values = columns()
    expected = np.flatnonzero((values["class"] == 3) & (values["area"] > 0.99))
    assert f"n (Integer) = {len(expected)}\n" in said
    said = run("ogrinfo", "-ro", "-q", path, "rat", "-where", where).stdout
    lines = said.splitlines()
    assert [int(line.split(":")[1]) for line in lines if "OGRFeature" in line] == expected.tolist()


@debian
def test_ogr2ogr_copies_every_value(run, path, tmp_path):
    done = run("ogr2ogr", "-f", "GPKG", "out.gpkg", f"RATZARR:{path}", check=False)
    # GDAL 3.6 says so of row 0, wrongly.
    assert (done.returncode, done.stderr) in (
        (0, ""),
        (0, "Warning 1: Feature id not preserved\n"),
    )
    with sqlite3.connect(tmp_path / "out.gpkg") as database:
        rows = database.execute('SELECT row, id, area, class, name, "when" FROM rat ORDER BY 1')
        found = [np.array(values) for values in zip(*rows.fetchall(), strict=True)]
    values = columns()
    assert found[0].tolist() == found[1].tolist() == values["id"].tolist()
    assert found[2].tolist() == values["area"].tolist()
    assert found[3].tolist() == values["class"].tolist()
    assert found[4].tolist() == values["name"].tolist()
    times = np.char.rstrip(found[5], "Z").astype("M8[ms]")
    assert times.tolist() == values["when"].tolist()


@debian
def test_an_error_is_ogr2ogrs_error(run, tmp_path):
    big = np.zeros(50_000, "u8")
    big[-1] = 2**63
    path = write(tmp_path / "t.rat.zarr", {"x": big})
    done = run("ogr2ogr", "-f", "CSV", "/vsistdout/", f"RATZARR:{path}", check=False)
    assert "column 'x', row 49999: 9223372036854775808 is larger than GDAL's" in done.stderr
    done = run("ogrinfo", "RATZARR:missing.tif", check=False)
    assert done.returncode == 1
    assert "missing.tif can't be opened as a raster" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@debian
def test_the_reader_of_ogrinfo_goes_away(run, path):
    done = run("sh", "-c", f"ogrinfo -ro -q {path} rat | head -n 2")
    assert done.stdout == "\nLayer name: rat\n"

    def commands():
        return [command for _, state, command in processes().values() if state != "Z"]

    wait_until(lambda: not any("ogrinfo" in command for command in commands()))


PYOGRIO = """
import json, sys
import pyogrio
import pyogrio.raw
name = sys.argv[1]
info = pyogrio.read_info(name)
meta, table = pyogrio.read_arrow(name, return_fids=True)
part = pyogrio.read_arrow(name, where="class = 3 AND area > 0.99")[1]
rows = pyogrio.raw.read(name, fids=[5, 99999], columns=["id", "name"], return_fids=True)
print(json.dumps({
    "info": [info["features"], list(info["fields"]), info["fid_column"], info["driver"]],
    "columns": {name: table[name].to_pylist() for name in ("row", "id", "area", "class", "name")},
    "when": table["when"].cast("int64").to_pylist(),
    "part": part["id"].to_pylist(),
    "rows": [rows[1].tolist(), [values.tolist() for values in rows[3]]],
}))
"""


def test_pyogrio(driver_path, path):
    done = subprocess.run(
        [sys.executable, "-c", PYOGRIO, str(path)],
        env=os.environ | {"GDAL_PYTHON_DRIVER_PATH": driver_path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    values = columns()
    assert found["info"] == [ROWS, list(values), "row", "RATZARR"]
    assert found["columns"].pop("row") == list(range(ROWS))
    for name, column in found["columns"].items():
        assert column == values[name].tolist()
    assert found["when"] == list(range(ROWS))
    assert (
        found["part"] == np.flatnonzero((values["class"] == 3) & (values["area"] > 0.99)).tolist()
    )
    assert found["rows"] == [[5, 99999], [[5, 99999], values["name"][[5, 99999]].tolist()]]


def test_the_stub_needs_an_old_python_and_its_standard_library_only():
    # That of QGIS 3.22 on Windows.
    tree = ast.parse(STUB.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {one.split(".")[0] for one in imported} - sys.stdlib_module_names == {
        "gdal_python_driver"
    }
    # GDAL's limits.
    lines = STUB.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 1000
    assert max(map(len, lines)) < 1000
