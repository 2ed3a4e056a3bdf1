"""What doctor says of S3: what each side uses, where it comes from, what may be done; no secret."""

import json
import subprocess

import pytest
from click.testing import CliRunner

from gdalbridge.cli import main
from gdalbridge.cli.diagnosis import diagnose
from tests.processes import gdalbridge
from tests.servers.scripted import scripted_s3

SECRETS = ("hunter-secret", "hunter-token", "hunter-password", "hunter-file", "hunter-gdal")


@pytest.fixture
def server(monkeypatch):
    with scripted_s3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter-secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "hunter-token")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        server.answer("GET", "/bucket.*list-type=2.*", 200, body=b"<ListBucketResult/>")
        yield server


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def run(*args):
    """In a process of its own: --config sets GDAL's options for the process."""
    done = subprocess.run(gdalbridge(*args), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_each_value_and_where_it_comes_from(server):
    config = ("--config", "AWS_REGION=ap-south-1")
    found = json.loads(run("doctor", "--json", *config))
    assert (found["s3"]["endpoint"], found["s3"]["region"]) == (server.url, "ap-south-1")
    assert found["s3"]["credentials"] == "AWS_ACCESS_KEY_ID"
    assert found["s3_sources"] == {
        "endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION in --config",
    }  # fmt: skip
    assert found["s3_in_gdal"] == {
        "AWS_S3_ENDPOINT": server.host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "ap-south-1", "AWS_DEFAULT_REGION": "ap-south-1",
    }  # fmt: skip
    assert found["s3_in_gdal_sources"]["AWS_REGION"] == "--config"
    text = run("doctor", *config)
    assert f"{server.url} (AWS_ENDPOINT_URL)" in text
    assert "ap-south-1 (AWS_REGION in --config)" in text


def test_conflicts_are_told(server, monkeypatch):
    monkeypatch.setenv("AWS_S3_ENDPOINT", "elsewhere:1")
    done = call("doctor")
    assert "AWS_ENDPOINT_URL and AWS_S3_ENDPOINT differ" in done.output
    assert server.url in done.output
    assert "https://elsewhere:1" in done.output


@pytest.mark.parametrize("how", [
    "environment", "password",
    *(pytest.param(one, marks=pytest.mark.thorough) for one in ("file", "config")),
])  # fmt: skip
def test_no_secret_is_told(server, monkeypatch, tmp_path, how):
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "1")  # one of the addresses is nobody's
    config = []
    server.answer(".*", ".*", 403, "SignatureDoesNotMatch")
    if how == "file":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name)
        file = tmp_path / "credentials"
        file.write_text("[default]\naws_access_key_id=A\naws_secret_access_key=hunter-file\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    if how == "config":
        config = ["AWS_ACCESS_KEY_ID=AKGDAL", "AWS_SECRET_ACCESS_KEY=hunter-gdal"]
        config = [word for one in config for word in ("--config", one)]
    if how == "password":
        url = server.url.replace("http://", "http://user:hunter-password@")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_S3_ENDPOINT", "user:hunter-password@other")
    for more in ([], ["--json"], ["s3://bucket/x.tif"], ["s3://bucket/x.tif", "--json"]):
        said = run("doctor", *config, *more) if config else call("doctor", *more).output
        assert "S3_ENDPOINT" in said or "S3 endpoint" in said
        for secret in SECRETS:
            assert secret not in said


def test_what_may_be_done(moto_s3):
    place = moto_s3.new("x.tif")
    moto_s3.put(f"s3://{moto_s3.bucket}/a", "", b"a")
    before = moto_s3.everything()
    found = diagnose(place)
    assert found["problems"] == []
    assert found["asked"] == {
        "place": place, "something_there": False, "may_list": True, "may_read": True,
        "may_write": True, "gdal_sees_bucket": True,
    }  # fmt: skip
    assert moto_s3.everything() == before


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("GET", ".*list-type=2.*", "may_list"),
        ("GET", "/bucket/x[.]tif", "may_read"),
        ("PUT", ".*", "may_write"),
    ],
)
def test_what_may_not_be_done(server, method, path, what):
    server.answer(method, path, 403, "AccessDenied")
    found = diagnose("s3://bucket/x.tif")
    asked = found["asked"]
    assert {name for name in asked if name.startswith("may_") and not asked[name]} == {what}
    assert any("AccessDenied" in text for text in found["problems"])
    assert call("doctor", "s3://bucket/x.tif").exit_code == 1


def test_a_server_that_ignores_conditions(server):
    server.answer("PUT", ".*", 200, headers={"ETag": '"1"'})
    server.answer("POST", ".*[?]delete.*", 200, body=b"<DeleteResult/>")
    found = diagnose("s3://bucket/x.tif")
    assert any("ignores conditions" in text for text in found["problems"])
    assert [one.method for one in server.requests if "delete" in one.query] == ["POST"]


def test_a_config_option_without_a_value():
    done = call("doctor", "--config", "AWS_SECRET_ACCESS_KEY")
    assert done.exit_code == 2
    assert "expected NAME=VALUE" in done.output
