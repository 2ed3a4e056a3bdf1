"""Where the driver is, and how it finds ratzarr's Python."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import gdalbridge
import ratzarr
from tests.gdalbridge.ogr.test_values import write
from tests.processes import gdalbridge as command

pytestmark = pytest.mark.main_env_only

READ = """
import sys
from osgeo import gdal
gdal.UseExceptions()
dataset = gdal.OpenEx("RATZARR:" + sys.argv[1], gdal.OF_VECTOR)
print([feature.GetField(0) for feature in dataset.GetLayer(0)])
"""


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"XDG_DATA_HOME": str(tmp_path / "data home")}


def said(*words, env):
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def check(directory, env, tmp_path):
    """Read a table with this value of GDAL's option, by a program that knows nothing else."""
    path = write(tmp_path / "t.rat.zarr", {"x": np.arange(3)})
    env = env | {"GDAL_PYTHON_DRIVER_PATH": directory}
    assert said(sys.executable, "-c", READ, str(path), env=env) == "[0, 1, 2]\n"


def test_the_first_line_is_the_value(environment, tmp_path):
    first, *others = said(*command("driver-path"), env=environment).splitlines()
    assert first.startswith(f"{tmp_path}/data home/ratzarr/gdal-driver-")
    assert others[0] == ""
    assert f"export GDAL_PYTHON_DRIVER_PATH='{first}'" in others
    text = "\n".join(others)
    assert all(word in text for word in ("ogrinfo ", "ogr2ogr ", "QGIS", "pyogrio"))
    check(first, environment, tmp_path)
    # Again, over what is there.
    assert said(*command("driver-path"), env=environment).splitlines()[0] == first
    assert sorted(os.listdir(first)) == ["ogr_ratzarr.py", "ratzarr-python.json"]


def test_packages_on_pythonpath_are_found(environment, tmp_path):
    root = Path(gdalbridge.__file__).parents[1]
    environment = environment | {"PYTHONPATH": str(root)}
    first = said(*command("driver-path"), env=environment).splitlines()[0]
    assert str(root) in (Path(first) / "ratzarr-python.json").read_text()
    # The program's own is for the program alone.
    (tmp_path / "zarr.py").write_text("raise RuntimeError('not this one')")
    check(first, environment | {"PYTHONPATH": str(tmp_path)}, tmp_path)


def test_an_installed_package_needs_no_other_place(environment, tmp_path):
    """As pip installs it: the driver knows its Python by its place, and nothing is written."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    for package in (gdalbridge, ratzarr):
        source = Path(package.__file__).parent
        shutil.copytree(source, packages / source.name, ignore=shutil.ignore_patterns("*.pyc"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    # -P: not the checkout, which may be the current directory.
    words = [str(home / "bin" / "python"), "-P", "-m", "gdalbridge", "driver-path"]
    # What the tests themselves run with is not the user's.
    environment = {key: value for key, value in environment.items() if key != "PYTHONPATH"}
    first = said(*words, env=environment).splitlines()[0]
    assert first == str(packages / "gdalbridge" / "ogr" / "driver")
    assert not (tmp_path / "data home").exists()
    check(first, environment, tmp_path)


def test_ratzarr_python_is_used_first(environment, tmp_path):
    first = said(*command("driver-path"), env=environment).splitlines()[0]
    record = Path(first) / "ratzarr-python.json"
    record.write_text('{"python": "/nowhere/python", "path": ""}')
    check(first, environment | {"RATZARR_PYTHON": sys.executable}, tmp_path)


def test_without_a_place_to_write_the_error_names_another_way(environment, tmp_path):
    (tmp_path / "data home").write_text("a file")
    done = subprocess.run(
        command("driver-path"), env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"can't write {tmp_path}/data home/ratzarr/gdal-driver-" in done.stderr
    assert "Set XDG_DATA_HOME" in done.stderr
    way = Path(gdalbridge.__file__).parent / "ogr" / "driver"
    check(str(way), environment | {"RATZARR_PYTHON": sys.executable}, tmp_path)
