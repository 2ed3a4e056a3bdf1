"""GDAL and our store reach the same server as the same user, whatever the user has set where.

What each of them sends is looked at in a server of our own.
"""

import os
import threading
from contextlib import suppress

import pytest
from osgeo import gdal

from gdalbridge import BridgeError, copy_to_sidecar
from gdalbridge.errors import RasterNotFoundError
from gdalbridge.gdalio.datasets import opened
from gdalbridge.gdalio.rat_reader import bands_with_table
from gdalbridge.gdalio.vsis3 import reached
from ratzarr import (
    RatZarr,
    RatZarrError,
    RedirectError,
    StoreConnectionError,
    StorePermissionError,
)
from ratzarr.stores.aws_config import NAMES
from tests.servers.scripted import closed_port, scripted_s3, silent_server

KEYS = {"AWS_ACCESS_KEY_ID": "AKENV", "AWS_SECRET_ACCESS_KEY": "secret-env"}
FILES = """
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = secret-default
[profile own]
region = eu-south-1
endpoint_url = {url}
aws_access_key_id = AKOWN
aws_secret_access_key = secret-own
aws_session_token = token-own
[profile parts]
region = eu-south-2
endpoint_url = http://127.0.0.1:9
services = home
credential_process = {process}
[services home]
s3 =
  endpoint_url = {url}
"""
PROCESS = '{"Version": 1, "AccessKeyId": "AKPROCESS", "SecretAccessKey": "secret-p", "SessionToken": "t"}'


@pytest.fixture
def server(nlcd, tmp_path, monkeypatch):
    program = tmp_path / "credentials"
    program.write_text(f"#!/bin/sh\necho '{PROCESS}'\n")
    program.chmod(0o700)
    with scripted_s3() as server:
        for name in ("lc.tif", "lc.tif.aux.xml"):
            body = (nlcd.parent / name).read_bytes()
            server.answer("GET|HEAD", f"/bucket/{name}", 200, body=body, headers={"ETag": '"1"'})
        config = tmp_path / "config"
        config.write_text(FILES.format(url=server.url, process=program))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        yield server


def gdals():
    """Return all that GDAL has been told of S3."""
    return {
        (name, path): gdal.GetPathSpecificOption(path, name)
        for name in (*NAMES, "GDAL_HTTP_CONNECTTIMEOUT", "GDAL_HTTP_LOW_SPEED_TIME")
        for path in (
            "/vsis3/",
            "/vsis3/bucket",
            "/vsis3/bucket2/",
            "/vsis3/bucket/",
            "/vsis3/bucket/lc.tif",
            "/vsis3/other/",
        )
    }


def sent(server, options=None):
    """Ask for a raster and for a table; return what each client has sent, without repeats."""
    before = gdals()
    server.requests.clear()
    assert bands_with_table("/vsis3/bucket/lc.tif", options) == [1]
    assert gdals() == before
    with pytest.raises(RatZarrError, match="no RatZarr at"):
        RatZarr("s3://bucket/x.rat.zarr", readOnly=True, storageOptions=options)
    # GDAL's versions differ in what they call themselves; botocore always says its name.
    found = {True: set(), False: set()}
    for one in server.requests:
        is_ours = "botocore" in one.headers.get("user-agent", "")
        found[is_ours].add(
            (
                one.key_id,
                one.region,
                one.headers.get("x-amz-security-token"),
                one.headers.get("x-amz-request-payer"),
            )
        )
    assert len(found[True]) == len(found[False]) == 1, found
    # It is the listing of a bucket's top that GDAL forgets its options for.
    assert "/bucket/" in {one.path for one in server.requests}
    return found[False].pop(), found[True].pop()


def set_environment(monkeypatch, server, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(url=server.url, host=server.host))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"AWS_ENDPOINT_URL": "{url}", "AWS_REGION": "eu-north-1", **KEYS},
            ("AKENV", "eu-north-1", None, None),
        ),
        (
            {
                "AWS_ENDPOINT_URL_S3": "{url}/", "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_DEFAULT_REGION": "eu-north-2", "AWS_SESSION_TOKEN": "token", **KEYS,
            },
            ("AKENV", "eu-north-2", "token", None),
        ),
        (
            {
                "AWS_S3_ENDPOINT": "{host}", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
                "AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-north-2",
                "AWS_REQUEST_PAYER": "requester", **KEYS,
            },
            ("AKENV", "eu-north-1", None, "requester"),
        ),
        (
            {"AWS_S3_ENDPOINT": "{url}", "AWS_NO_SIGN_REQUEST": "YES", **KEYS},
            (None, None, None, None),
        ),
        ({"AWS_PROFILE": "own"}, ("AKOWN", "eu-south-1", "token-own", None)),
        ({"AWS_DEFAULT_PROFILE": "own"}, ("AKOWN", "eu-south-1", "token-own", None)),
        # As the AWS tools and GDAL have it: keys go before a profile that is as near.
        ({"AWS_PROFILE": "own", **KEYS}, ("AKENV", "eu-south-1", None, None)),
        ({"AWS_PROFILE": "parts"}, ("AKPROCESS", "eu-south-2", "t", None)),
        (
            {"AWS_ENDPOINT_URL": "{url}", "AWS_REGION": "eu-north-1"},
            ("AKDEFAULT", "eu-north-1", None, None),
        ),
    ],
)  # fmt: skip
def test_one_environment_for_both(server, monkeypatch, environment, expected):
    set_environment(monkeypatch, server, environment)
    assert sent(server) == (expected, expected)


def test_a_file_of_credentials(server, monkeypatch, tmp_path):
    credentials = tmp_path / "credentials.ini"
    credentials.write_text("[own]\naws_access_key_id = AKFILE\naws_secret_access_key = s\n")
    expected = ("AKFILE", "eu-south-1", None, None)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "CPL_AWS_CREDENTIALS_FILE"):
        with monkeypatch.context() as patch:
            patch.delenv("AWS_SHARED_CREDENTIALS_FILE")
            patch.setenv("AWS_PROFILE", "own")
            patch.setenv(name, str(credentials))
            assert sent(server) == (expected, expected)


def options_of(server):
    return {
        "AWS_S3_ENDPOINT": server.host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "ap-south-1",
        "AWS_ACCESS_KEY_ID": "AKGDAL", "AWS_SECRET_ACCESS_KEY": "secret-gdal",
    }  # fmt: skip


WRONG = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_S3_ENDPOINT": "127.0.0.1:9",
    "AWS_REGION": "us-west-1", "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_SESSION_TOKEN": "token-env", "AWS_NO_SIGN_REQUEST": "YES", **KEYS,
}  # fmt: skip


@pytest.mark.parametrize("scope", ["process", "thread", "path", "bucket"])
def test_gdals_options_go_before_the_environment(server, monkeypatch, scope):
    set_environment(monkeypatch, server, WRONG)
    set_option = {
        "process": gdal.SetConfigOption,
        "thread": gdal.SetThreadLocalConfigOption,
        "path": lambda name, value: gdal.SetPathSpecificOption("/vsis3/", name, value),
        "bucket": lambda name, value: gdal.SetPathSpecificOption("/vsis3/bucket/", name, value),
    }[scope]
    for name, value in options_of(server).items():
        set_option(name, value)
    try:
        expected = ("AKGDAL", "ap-south-1", None, None)
        assert sent(server) == (expected, expected)
    finally:
        for name in options_of(server):
            set_option(name, None)
    assert gdal.GetConfigOption("AWS_REGION") == "us-west-1"


def test_storage_options_go_before_all_else(server, monkeypatch):
    set_environment(monkeypatch, server, WRONG | {"AWS_REQUEST_PAYER": "requester"})
    gdal.SetConfigOption("AWS_REGION", "ap-south-1")
    try:
        options = {
            "endpoint_url": server.url, "key": "AKCALL", "secret": "secret-call",
            "requester_pays": False, "client_kwargs": {"region_name": "ca-west-1"},
        }  # fmt: skip
        expected = ("AKCALL", "ca-west-1", None, None)
        assert sent(server, options) == (expected, expected)
        expected = (None, None, None, "requester")
        anonymous = {"endpoint_url": server.url, "anon": True}
        assert sent(server, anonymous) == (expected, expected)
        expected = ("AKOWN", "ap-south-1", "token-own", "requester")
        profile = {"endpoint_url": server.url, "profile": "own"}
        assert sent(server, profile) == (expected, expected)
    finally:
        gdal.SetConfigOption("AWS_REGION", None)


def test_another_user_is_another_client(server, monkeypatch):
    """What is kept of clients must not outlive the credentials it was made with."""
    set_environment(monkeypatch, server, {"AWS_ENDPOINT_URL": "{url}", **KEYS})
    assert [one[0] for one in sent(server)] == ["AKENV"] * 2
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKOTHER")
    assert [one[0] for one in sent(server)] == ["AKOTHER"] * 2
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert [one[0] for one in sent(server)] == ["AKDEFAULT"] * 2


def test_storage_options_reach_the_raster_of_a_copy(server, tmp_path, monkeypatch, capfd):
    options = {"endpoint_url": server.url, "key": "AKCALL", "secret": "s"}
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    before = gdals()
    report = copy_to_sidecar(
        "s3://bucket/lc.tif", tmp_path / "x.rat.zarr", storage_options={**options}
    )
    assert report.rows == 256
    assert {one.key_id for one in server.requests} == {"AKCALL"}
    assert gdals() == before
    # Nothing was looked for, and missed, when the way to the server was no longer known.
    assert capfd.readouterr().err == ""


def test_options_are_undone_after_an_error(server, monkeypatch):
    set_environment(monkeypatch, server, {"AWS_ENDPOINT_URL": "{url}", **KEYS})
    gdal.SetPathSpecificOption("/vsis3/bucket/", "AWS_REGION", "users-own")
    try:
        before = gdals()
        with pytest.raises(BridgeError, match="can't be opened"), opened("/vsis3/bucket/no.tif"):
            pass
        with reached("s3://bucket/lc.tif") as name:
            assert name == "/vsis3/bucket/lc.tif"
            assert gdal.GetPathSpecificOption(name, "AWS_S3_ENDPOINT") == server.host
            assert gdal.GetPathSpecificOption("/vsis3/other/", "AWS_S3_ENDPOINT") is None
        assert gdals() == before
        assert gdal.GetPathSpecificOption("/vsis3/bucket/x", "AWS_REGION") == "users-own"
    finally:
        gdal.SetPathSpecificOption("/vsis3/bucket/", "AWS_REGION", None)


def test_two_threads_with_different_settings_take_turns(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    seen, first_is_in = [], threading.Event()

    def use(key, wait):
        with reached("s3://bucket/lc.tif", {"key": key, "secret": "s"}) as name:
            first_is_in.set()
            for _ in range(3):
                seen.append((key, gdal.GetPathSpecificOption(name, "AWS_ACCESS_KEY_ID")))
                threading.Event().wait(wait)

    use("AKONE", 0)
    use("AKTWO", 0)  # both clients are there now: what follows is quick
    seen.clear()
    first_is_in.clear()
    first = threading.Thread(target=use, args=("AKONE", 0.2))
    first.start()
    assert first_is_in.wait(20)
    use("AKTWO", 0)
    first.join()
    assert seen == [("AKONE", "AKONE")] * 3 + [("AKTWO", "AKTWO")] * 3


def test_one_thread_cannot_want_two_things(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    one, other = ({"key": key, "secret": "s"} for key in ("AKONE", "AKTWO"))
    with reached("s3://bucket/lc.tif", one):
        with reached("s3://bucket/lc.tif", one):
            pass
        with (
            pytest.raises(BridgeError, match="other S3 settings"),
            reached("s3://bucket/lc.tif", other),
        ):
            pass


def test_errors_of_a_rasters_server(server, monkeypatch):
    set_environment(monkeypatch, server, {"AWS_ENDPOINT_URL": "{url}", **KEYS})
    server.answer(".*", ".*", 403, "SignatureDoesNotMatch")
    with pytest.raises(StorePermissionError, match=r"lc\.tif can't be opened.*the secret"):
        bands_with_table("/vsis3/bucket/lc.tif")
    monkeypatch.setenv("AWS_ENDPOINT_URL", closed_port())
    with pytest.raises(StoreConnectionError, match=r"lc\.tif can't be opened.*no connection"):
        bands_with_table("/vsis3/bucket/lc.tif")
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "1")
    with silent_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(TimeoutError, match="no answer"):
            bands_with_table("/vsis3/bucket/lc.tif")


def test_a_missing_raster_is_said_as_on_a_disk(moto_s3, tmp_path):
    for place in (str(tmp_path), f"s3://{moto_s3.bucket}", f"/vsis3/{moto_s3.bucket}"):
        for name in ("no ne.tif", "d/größe#1.tif"):
            with pytest.raises(RasterNotFoundError) as error:
                bands_with_table(f"{place}/{name}")
            words = "can't be opened as a raster: the file does not exist"
            assert str(error.value) == f"{place}/{name} {words}"


def test_no_credentials_for_a_raster(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(StorePermissionError, match="no usable AWS credentials"):
        bands_with_table("/vsis3/bucket/lc.tif")
    assert server.requests == []


@pytest.mark.moto_only
@pytest.mark.parametrize("status", [301, 307])
def test_gdal_does_not_go_where_a_server_points_to(status, monkeypatch):
    """GDAL signs anew for the endpoint in an error's XML, with the token: it is not let there."""
    code = "PermanentRedirect" if status == 301 else "TemporaryRedirect"
    with scripted_s3() as server, scripted_s3() as other:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        server.answer(".*", "/good/.*", 404, "NoSuchKey")
        server.answer(".*", "/bad/.*", status, code, Endpoint=other.host, Bucket="bad")
        # That another bucket of this server was heard from says nothing.
        with reached("s3://good/seg.tif") as name, suppress(RuntimeError):
            gdal.Open(name)
        for _ in range(2):
            with pytest.raises(RedirectError, match=other.host), reached("s3://bad/seg.tif"):
                pass
        assert other.requests == []
