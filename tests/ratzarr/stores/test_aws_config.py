import pytest

from ratzarr import ArgumentError
from ratzarr.stores.aws_config import S3Settings


def resolve(environment=None, **more):
    return S3Settings.resolve(environment or {}, **more)


def settings(**environment):
    return resolve(environment)


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://h:1/"}, "http://h:1"),
        ({"AWS_ENDPOINT_URL": "http://h:1", "AWS_ENDPOINT_URL_S3": "http://s:2"}, "http://s:2"),
        ({"AWS_S3_ENDPOINT": "h:1", "AWS_HTTPS": "NO"}, "http://h:1"),
        ({"AWS_S3_ENDPOINT": "h"}, "https://h"),
        ({"AWS_S3_ENDPOINT": "http://h"}, "http://h"),
        ({"AWS_S3_ENDPOINT": "g:1", "AWS_ENDPOINT_URL": "http://h:1"}, "http://h:1"),
    ],
)
def test_endpoint_from_either_family_of_names(environment, endpoint):
    found = settings(**environment)
    assert found.endpoint == endpoint
    assert found.path_style == (endpoint is not None)


def test_both_clients_are_told_the_same():
    found = settings(
        AWS_ENDPOINT_URL="http://h:1",
        AWS_REGION="eu-north-1",
        AWS_PROFILE="p",
        AWS_NO_SIGN_REQUEST="YES",
        AWS_REQUEST_PAYER="requester",
    )
    assert found.gdal_options() == {
        "AWS_S3_ENDPOINT": "h:1",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "eu-north-1",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_PROFILE": "p",
        "AWS_NO_SIGN_REQUEST": "YES",
        "AWS_REQUEST_PAYER": "requester",
    }
    told = found.s3fs_arguments()
    assert told["endpoint_url"] == "http://h:1"
    assert told["client_kwargs"]["region_name"] == "eu-north-1"
    assert told["config_kwargs"]["s3"] == {"addressing_style": "path"}
    assert (told["anon"], told["requester_pays"]) == (True, True)
    assert "neither in ~/.aws/config nor in" in found.problem


def test_virtual_hosting_can_be_asked_for():
    assert not settings(AWS_ENDPOINT_URL="http://h", AWS_VIRTUAL_HOSTING="TRUE").path_style
    found = settings(AWS_VIRTUAL_HOSTING="FALSE")
    assert found.path_style
    assert found.gdal_options() == {"AWS_VIRTUAL_HOSTING": "FALSE"}


def test_nothing_said_is_nothing_passed_on():
    assert settings().gdal_options() == {}
    assert settings().s3fs_arguments()["client_kwargs"] == {}


def test_secrets_are_not_kept():
    found = settings(AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="hunter2")
    assert "hunter2" not in repr(found) + repr(found.gdal_options()) + repr(found.s3fs_arguments())


SHOWN = {"AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "hunter3"}


def test_no_secret_is_shown():
    options = {"key": "AK", "secret": "hunter2", "token": "hunter3"}
    words = {name: (value, "x") for name, value in (SHOWN | {"AWS_ACCESS_KEY_ID": "AK"}).items()}
    for found in (
        resolve({"AWS_ACCESS_KEY_ID": "AK", "AWS_ENDPOINT_URL": "http://u:hunter4@h", **SHOWN}),
        resolve(options=options),
        resolve(words=words),
        resolve(defaults=options),
    ):
        assert (found.keys.secret, found.keys.token) == ("hunter2", "hunter3")
        assert "hunter" not in repr(found).replace("u:hunter4@", "") + found.tried()
        assert "hunter" not in repr(found.keys)


def test_what_goes_before_what():
    environment = {"AWS_REGION": "of-environment", "AWS_ENDPOINT_URL": "http://environment"}
    words = {"AWS_DEFAULT_REGION": ("of-words", "w"), "AWS_S3_ENDPOINT": ("words", "w")}
    options = {"client_kwargs": {"region_name": "of-options"}, "endpoint_url": "http://options"}
    defaults = {"client_kwargs": {"region_name": "of-defaults"}, "anon": True}

    def said(**more):
        found = resolve(**more)
        return found.endpoint, found.region, found.anonymous

    everything = {"environment": environment, "words": words, "options": options}
    assert said(**everything, defaults=defaults) == ("http://options", "of-options", True)
    assert said(environment=environment, words=words) == ("https://words", "of-words", False)
    assert said(environment=environment, defaults=defaults) == (
        "http://environment", "of-environment", True,
    )  # fmt: skip
    assert said(defaults=defaults) == (None, "of-defaults", True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        ("AWS_SHARED_CREDENTIALS_FILE", "CPL_AWS_CREDENTIALS_FILE"),
    ],
)
def test_a_nearer_source_goes_before_the_order_of_names(first, second):
    def said(**more):
        found = resolve(**more)
        return found.endpoint or found.files[1]

    assert said(environment={first: "http://a", second: "http://b"}) == "http://a"
    assert said(environment={first: "http://a"}, words={second: ("http://b", "w")}) == "http://b"


def test_sources_are_named():
    found = resolve(
        {"AWS_DEFAULT_REGION": "r", "AWS_S3_ENDPOINT": "h", "AWS_REQUEST_PAYER": "requester"},
        words={"AWS_NO_SIGN_REQUEST": ("YES", "GDAL's options")},
        options={"config_kwargs": {"s3": {"addressing_style": "virtual"}}},
    )
    assert found.sources == {
        "region": "AWS_DEFAULT_REGION",
        "endpoint": "AWS_S3_ENDPOINT",
        "requester_pays": "AWS_REQUEST_PAYER",
        "anonymous": "AWS_NO_SIGN_REQUEST in GDAL's options",
        "path_style": "config_kwargs.s3.addressing_style in storage options",
    }
    assert found.credentials == (
        "none, requests are not signed (AWS_NO_SIGN_REQUEST in GDAL's options)"
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_S3_ENDPOINT": "b"}, ["http://a", "https://b"]),
        ({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}, ["AWS_REGION", "AWS_DEFAULT_REGION"]),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_S3_ENDPOINT": "a", "AWS_HTTPS": "NO"}, None),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, None),
        ({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "a"}, None),
    ],
)
def test_conflicts_are_told(environment, words):
    found = settings(**environment).conflicts
    if words is None:
        assert found == ()
    else:
        [text] = found
        assert all(word in text for word in words)
        assert "hunter" not in text


def test_credentials_are_those_that_are_nearest(tmp_path):
    config = tmp_path / "config"
    config.write_text("[profile p]\naws_access_key_id = AKP\naws_secret_access_key = s\n")
    environment = {"AWS_CONFIG_FILE": str(config), "AWS_ACCESS_KEY_ID": "AKE", **SHOWN}
    named = environment | {"AWS_PROFILE": "p"}
    assert resolve(named).keys.key == "AKE"
    assert resolve(environment, options={"profile": "p"}).keys == ("AKP", "s", None)
    assert resolve(environment, words={"AWS_PROFILE": ("p", "w")}).keys.key == "AKP"
    # A token belongs to the keys that it was said with.
    words = {"AWS_ACCESS_KEY_ID": ("AKW", "w"), "AWS_SECRET_ACCESS_KEY": ("s", "w")}
    found = resolve(named, words=words)
    assert found.keys == ("AKW", "s", None)
    assert found.gdal_options()["AWS_SESSION_TOKEN"] == ""
    assert resolve(named, words=words, options={"key": "AKO", "secret": "s"}).keys.key == "AKO"
    own = {"key": "AKO", "secret": "s"}
    assert resolve(options=own, defaults={"token": "t"}).keys == ("AKO", "s", None)
    assert resolve(options=own | {"token": "t"}).keys == ("AKO", "s", "t")
    unsigned = named | {"AWS_NO_SIGN_REQUEST": "YES"}
    assert resolve(unsigned).anonymous
    assert not resolve(unsigned, words=words).anonymous
    assert resolve(unsigned, words=words).gdal_options()["AWS_NO_SIGN_REQUEST"] == "NO"


@pytest.mark.parametrize("name", ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", None])
def test_configured_endpoints_can_be_ignored(tmp_path, name):
    config = tmp_path / "config"
    ignore = "" if name else "ignore_configured_endpoint_urls = true\n"
    config.write_text(f"[default]\nendpoint_url = http://a\n{ignore}")
    environment = {"AWS_CONFIG_FILE": str(config), "AWS_ENDPOINT_URL": "http://b"}
    if name:
        assert resolve(environment).endpoint == "http://b"
        environment[name] = "true"
    assert resolve(environment).endpoint is None
    assert resolve(environment | {"AWS_S3_ENDPOINT": "c"}).endpoint == "https://c"


def test_a_file_that_is_none(tmp_path):
    config = tmp_path / "config"
    config.write_text("aws_secret_access_key = hunter2\n")
    with pytest.raises(ArgumentError, match="can't be read as a file of the AWS tools") as caught:
        resolve({"AWS_CONFIG_FILE": str(config)})
    assert "hunter2" not in str(caught.value)


def test_only_one_of_amazons_machines_is_asked_for_its_role(tmp_path):
    vendor = tmp_path / "sys_vendor"

    def settings(**environment):
        return resolve(environment, machines=((str(vendor), "amazon ec2"),))

    role = "none set; the role of this machine, if it has one"
    assert settings().credentials == role  # nothing tells
    vendor.write_text("QEMU\n")
    assert settings().credentials == "none found"
    assert settings(AWS_EC2_METADATA_SERVICE_ENDPOINT="http://h").credentials == role
    vendor.write_text("Amazon EC2\n")
    assert settings().credentials == role
    assert settings(AWS_EC2_METADATA_DISABLED="true").credentials == "none found"
