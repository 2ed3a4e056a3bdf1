"""What every test shares: a clean environment, an S3 server, a header with the versions.

Fixtures for other tests to use:

``moto_s3``
    a :class:`~tests.places.S3Place` in a bucket of its own; the AWS variables lead there.
``moto``
    the server alone, one for the session: moto's imitation
    (:class:`~tests.servers.moto.Moto`), or with ``--s3-server ceph`` a real one
    (:class:`~tests.servers.ceph.S3Server`).
``quick_s3``
    a server that costs little: :mod:`tests.servers.light`, or the real one. For what takes
    thousands of requests, and asks nothing of a server but that it keeps its word.
``counted_s3``
    ``moto_s3`` behind a proxy that counts requests: a pair of place and proxy.
``local``
    a :class:`~ratzarr.testing.LocalPlace` in a fresh directory.
``nlcd``
    a copy of the land-cover raster that the packages bring along.
"""

import importlib.metadata
import importlib.resources
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.places import LocalPlace, S3Place
from tests.processes import LimitedPopen
from tests.servers.ceph import running_ceph
from tests.servers.counting import counting_proxy
from tests.servers.light import light_server
from tests.servers.moto import running_moto

# Time limits of examples would fail on a busy machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

SERVERS = {"moto": running_moto, "ceph": running_ceph}

# Whatever begins like this configures what is tested, and is a developer's own.
FOREIGN = (
    "AWS_", "BOTO", "S3", "FSSPEC", "ZARR_", "GDALBRIDGE_", "RATZARR_",
    "CPL_", "VSI", "GS_", "AZURE_", "GDAL_DISABLE_READDIR", "GDAL_PAM",
)  # fmt: skip


def pytest_configure(config):
    """Let no credentials, profiles or settings of the developer's reach a test.

    Here and not in a fixture: some packages read their settings when they are imported, which
    is before any fixture runs.
    """
    clean = pytest.MonkeyPatch()
    config.add_cleanup(clean.undo)
    home = tempfile.TemporaryDirectory(prefix="ratzarr-tests-home-")
    config.add_cleanup(home.cleanup)
    for name in list(os.environ):
        if name.upper().startswith(FOREIGN):
            clean.delenv(name)
    clean.setenv("HOME", home.name)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        clean.delenv(name, raising=False)
    clean.setenv("AWS_CONFIG_FILE", os.path.join(home.name, "no-aws-config"))
    clean.setenv("AWS_SHARED_CREDENTIALS_FILE", os.path.join(home.name, "no-aws-credentials"))
    # Without credentials botocore asks a server that only Amazon's machines have, and waits.
    clean.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("NO_PROXY", "no_proxy"):
        clean.setenv(name, "127.0.0.1,localhost")
    clean.setattr(subprocess, "Popen", LimitedPopen)


def pytest_report_header():
    """Say which versions of others' code this run was against."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("zarr", "numpy", "s3fs", "moto")
    )
    return [f"Python {platform.python_version()}, {versions}", f"GDAL {_gdal()}"]


def _gdal():
    try:
        from osgeo import gdal
    except ImportError as error:
        return f"not there ({error})"
    drivers = [
        name for name in ("GTiff", "COG", "HFA", "KEA", "VRT", "MEM", "Zarr")
        if gdal.GetDriverByName(name) is not None
    ]  # fmt: skip
    return f"{gdal.VersionInfo('RELEASE_NAME')}, drivers {' '.join(drivers)}"


def pytest_addoption(parser):
    parser.addoption(
        "--s3-server", choices=sorted(SERVERS), default="moto",
        help="what S3 is in these tests: moto's imitation, or Ceph's gateway on loopback",
    )  # fmt: skip


def pytest_collection_modifyitems(config, items):
    """Against a real server run what uses one, and not what is about moto's manners."""
    # Following the README takes longest: were it last, the other processes would wait for it.
    items.sort(key=lambda item: item.path.name != "test_docs.py")
    if config.getoption("--s3-server") == "moto":
        return
    wanted = [
        item for item in items if _uses_s3(item) and item.get_closest_marker("moto_only") is None
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
    items[:] = wanted


def _uses_s3(item):
    given = getattr(item, "callspec", None)
    # A fixture that is asked for by a parameter is in no list of fixtures.
    asked = () if given is None else given.params.values()
    return not {"moto", "quick_s3"}.isdisjoint(getattr(item, "fixturenames", ())) or any(
        isinstance(value, str) and value == "s3" for value in asked
    )


@pytest.fixture(scope="session")
def moto(request):
    with SERVERS[request.config.getoption("--s3-server")]() as server:
        yield server


@pytest.fixture(scope="session")
def quick_s3(request):
    if request.config.getoption("--s3-server") != "moto":
        yield request.getfixturevalue("moto")
        return
    with light_server() as server:
        yield server


def _set(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def moto_s3(moto, monkeypatch):
    _set(monkeypatch, moto.environment)
    return S3Place(moto)


@pytest.fixture
def counted_s3(moto, monkeypatch):
    with counting_proxy(moto.url) as proxy:
        _set(monkeypatch, moto.environment | {"AWS_ENDPOINT_URL": proxy.url})
        yield S3Place(moto), proxy


@pytest.fixture
def local(tmp_path):
    return LocalPlace(tmp_path)


@pytest.fixture
def nlcd(tmp_path):
    """A copy of the land-cover raster, with its .aux.xml."""
    data = Path(str(importlib.resources.files("gdalbridge") / "data" / "nlcd"))
    for name in ("lc.tif", "lc.tif.aux.xml"):
        shutil.copyfile(data / name, tmp_path / name)
    return tmp_path / "lc.tif"
