import pytest

from ratzarr.s3settings import S3Settings


def settings(**environment):
    return S3Settings.from_environment(environment)


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
        "AWS_PROFILE": "p",
        "AWS_NO_SIGN_REQUEST": "YES",
        "AWS_REQUEST_PAYER": "requester",
    }
    told = found.s3fs_arguments()
    assert told["endpoint_url"] == "http://h:1"
    assert told["client_kwargs"]["region_name"] == "eu-north-1"
    assert told["config_kwargs"]["s3"] == {"addressing_style": "path"}
    assert (told["profile"], told["anon"], told["requester_pays"]) == ("p", True, True)


def test_virtual_hosting_can_be_asked_for():
    assert not settings(AWS_ENDPOINT_URL="http://h", AWS_VIRTUAL_HOSTING="TRUE").path_style
    assert settings(AWS_VIRTUAL_HOSTING="FALSE").path_style


def test_nothing_said_is_nothing_passed_on():
    assert settings().gdal_options() == {}
    assert settings().s3fs_arguments()["client_kwargs"] == {}


def test_secrets_are_not_kept():
    found = settings(AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="hunter2")
    assert "hunter2" not in repr(found) + repr(found.gdal_options()) + repr(found.s3fs_arguments())
