"""The files that install the project agree with each other, and the wheel holds what it should."""

import ast
import configparser
import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.main_env_only

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))

# GDAL comes from conda-forge there, where gdal-wheel is the makeshift of those without conda.
CONDA_ONLY = {"python", "pip", "gdal", "libgdal-kea"}
PYPI_ONLY = {"gdal-wheel"}
# What conda-forge calls by another name.
PYPI_NAMES = {"python-duckdb": "duckdb"}

PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][^ ;]*)( ; (?P<marker>.+))?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def declared():
    """Map every package of pyproject.toml to its bounds."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    requirements = [Requirement(line) for line in lines]
    # The extra `all` names the other extras of this package.
    return {canonicalize_name(r.name): r.specifier for r in requirements if r.name != "ratzarr"}


def conda():
    """Map every package of conda-env.yml to its bounds; the file is plain enough for a regex."""
    text = (ROOT / "conda-env.yml").read_text()
    _, _, listed = text.partition("\ndependencies:\n")
    lines = [line.strip() for line in listed.splitlines()]
    entries = [line.removeprefix("- ") for line in lines if line and not line.startswith("#")]
    requirements = [Requirement(entry) for entry in entries]
    assert len({r.name for r in requirements}) == len(requirements), "a package is listed twice"
    return {PYPI_NAMES.get(r.name, r.name): r.specifier for r in requirements}


def pinned(path):
    """Map every package of a requirements file to its version, all lines being checked."""
    found = {}
    text = "\n".join(ln for ln in path.read_text().splitlines() if not ln.startswith("#"))
    for entry in text.replace("\\\n", " ").splitlines():
        head, *hashes = re.split(r" +(?=--hash)", entry.strip())
        pin = PIN.fullmatch(head.strip())
        assert pin, f"{path.name}: not pinned as name==version: {head!r}"
        assert hashes, f"{path.name}: {head!r} has no hash"
        for each in hashes:
            assert HASH.fullmatch(each.strip()), f"{path.name}: {head!r}: {each!r} is no sha256"
        assert pin["name"] not in found, f"{path.name}: {pin['name']} is listed twice"
        found[pin["name"]] = pin["version"]
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the wheel and the sdist, by the tool of the environment: no network is needed."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = target.glob("*.whl")
    (sdist,) = target.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(built[0]) as archive:
        yield archive


def read_metadata(wheel, name):
    (path,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_conda_and_pyproject_list_the_same_packages():
    assert conda().keys() - CONDA_ONLY == declared().keys() - PYPI_ONLY


def test_conda_and_pyproject_give_the_same_bounds():
    ours = {name: spec for name, spec in declared().items() if name not in PYPI_ONLY}
    theirs = {name: spec for name, spec in conda().items() if name not in CONDA_ONLY}
    assert theirs == ours


def test_the_extra_all_has_every_extra_of_users():
    extras = PROJECT["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    # GDAL comes from elsewhere (see the comment beside it), and tests are for developers.
    assert everything.extras == extras.keys() - {"all", "gdal-wheel", "test", "testing"}


def test_conda_asks_for_the_same_python():
    assert str(conda()["python"]) == PROJECT["requires-python"]


def test_conda_takes_everything_from_conda_forge():
    text = (ROOT / "conda-env.yml").read_text()
    assert "\nchannels:\n  - conda-forge\n  - nodefaults\n" in text
    assert "gdal" in conda()


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pinned_and_hashed(path):
    assert pinned(path)


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_name_no_index(path):
    text = path.read_text()
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links|://", text)
    assert not re.search(r"\b[\w-]+\.(org|com|net|io)\b", text)


def test_every_core_dependency_is_pinned_within_its_bounds():
    run = pinned(ROOT / "requirements/run.txt")
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gdal-wheel"]]:
        requirement = Requirement(line)
        assert requirement.name in run, f"{line} is not in requirements/run.txt"
        assert requirement.specifier.contains(run[requirement.name]), line


def test_every_test_dependency_is_pinned_within_its_bounds():
    test = pinned(ROOT / "requirements/test.txt")
    for line in PROJECT["optional-dependencies"]["test"]:
        requirement = Requirement(line)
        assert requirement.name in test, f"{line} is not in requirements/test.txt"
        assert requirement.specifier.contains(test[requirement.name]), line


def test_the_tests_run_on_what_the_demo_runs_on():
    run = pinned(ROOT / "requirements/run.txt")
    test = pinned(ROOT / "requirements/test.txt")
    assert run.items() <= test.items()


def test_gdal_is_no_dependency_that_pip_would_compile():
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert not core & {"gdal", "gdal-wheel"}
    assert "gdal" not in declared()


@pytest.mark.parametrize("package", ["ratzarr", "gdalbridge"])
def test_wheel_holds_every_module_and_the_mark_of_typing(wheel, package):
    inside = {name for name in wheel.namelist() if name.startswith(f"{package}/")}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= inside
    assert inside == source


def test_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"ratzarr", "gdalbridge", f"ratzarr-{PROJECT['version']}.dist-info"}


def test_wheel_has_the_two_commands(wheel):
    parser = configparser.ConfigParser()
    parser.read_string(read_metadata(wheel, "entry_points.txt"))
    assert dict(parser["console_scripts"]) == {
        "gdalbridge": "gdalbridge.__main__:main",
        "ratzarr_tests": "ratzarr:mainCmd",
    }


def test_wheel_carries_name_version_and_licence(wheel):
    about = email.message_from_string(read_metadata(wheel, "METADATA"))
    assert (about["Name"], about["Version"]) == ("ratzarr", PROJECT["version"])
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.12"
    licence = read_metadata(wheel, "licenses/LICENSE")
    assert licence == (ROOT / "LICENSE").read_text()
    assert "ratzarr developers" in licence


def test_sdist_holds_the_tests_and_what_runs_them(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"tests/test_packaging.py", "Makefile", "requirements/test.txt", "scripts/test"}
    assert wanted | {"pyproject.toml", "LICENSE", "README.md", "conda-env.yml"} <= names
    assert not [name for name in names if name.startswith((".venv", ".git/", "dist"))]


@pytest.mark.parametrize("module", ["ratzarr", "gdalbridge.cli"])
def test_importing_does_not_need_gdal(module):
    """The command has to start without GDAL, or it can't say where to get it."""
    code = f"import sys; sys.modules['osgeo'] = None; import {module}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_ratzarr_does_not_import_gdal_or_the_bridge():
    code = "import sys, ratzarr; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "ratzarr" in loaded
    assert not loaded & {"osgeo", "gdalbridge", "click"}


def test_the_help_needs_neither_zarr_nor_gdal():
    """Each takes longer to import than the help takes to be read."""
    code = """
import sys
from gdalbridge.cli import main
try:
    main(["--help"])
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert not {"zarr", "s3fs", "osgeo", "ratzarr.table"} & set(done.stderr.split())


def test_importing_ratzarr_does_not_import_zarr_before_a_table_is_opened():
    code = "import sys, ratzarr; assert 'zarr' not in sys.modules; ratzarr.RatZarr; import zarr"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_zarrs_private_names_are_those_that_the_design_lists():
    listed = re.findall(
        r"^\| `(zarr\.[\w.]+)`", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE
    )
    used = set()
    for path in [*ROOT.glob("ratzarr/**/*.py"), *ROOT.glob("gdalbridge/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                used |= {f"{node.module}.{one.name}" for one in node.names}
            elif isinstance(node, ast.Import):
                used |= {one.name for one in node.names}
    private = re.compile(r"zarr\.core\b|zarr\..*\b_")
    assert {name for name in used if private.match(name)} == set(listed)


@pytest.mark.parametrize("wanted", ["ratzarr>=1.0.2", "ratzarr>=1.0.2,<3"])
def test_programs_that_ask_for_the_existing_module_accept_this_one(wanted):
    """As pip does with what is installed: a release candidate counts."""
    specifier = Requirement(wanted).specifier
    assert specifier.contains(PROJECT["version"], prereleases=True)
    assert Version(PROJECT["version"]) > Version("1.0.2")
