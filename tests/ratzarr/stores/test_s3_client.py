"""What a client does for each request: little, as many requests share its one thread."""

import importlib.metadata

import pytest
from botocore.utils import parse_timestamp

from ratzarr import ArgumentError, RatZarr
from ratzarr.stores.base import parse
from ratzarr.stores.files import copy_file
from ratzarr.stores.s3_client import parse_time


def test_each_request_says_who_asks(counted_s3):
    place, proxy = counted_s3
    RatZarr(place.new()).close()
    said = {request.headers["user-agent"] for request in proxy.requests}
    names = ("ratzarr", "s3fs", "aiobotocore", "botocore")
    assert said == {" ".join(f"{name}/{importlib.metadata.version(name)}" for name in names)}


def test_what_a_user_says_of_himself_counts(counted_s3):
    place, proxy = counted_s3
    options = {"config_kwargs": {"user_agent": "mine/1", "user_agent_extra": "more/2"}}
    RatZarr(place.new(), storageOptions=options).close()
    said = {request.headers["user-agent"] for request in proxy.requests}
    assert said == {f"mine/1 botocore/{importlib.metadata.version('botocore')} more/2"}


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 25 Nov 2026 01:02:03 GMT",
        "Wed, 25 Nov 2026 01:02:03 +0200",
        "2026-11-25T01:02:03.456Z",
        "2026-11-25T01:02:03Z",
        "2026-11-25T01:02:03+02:00",
        "20261125T010203Z",
        "1795568523",
        1795568523,
        "1795568523.5",
    ],
)
def test_times_are_those_that_botocore_reads(text):
    assert parse_time(text) == parse_timestamp(text)
    assert parse_time(text).utcoffset() == parse_timestamp(text).utcoffset()


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-25T01:02:03Z"])
def test_what_is_no_time_is_refused_as_botocore_does(text):
    with pytest.raises(ValueError, match="timestamp"):
        parse_timestamp(text)
    with pytest.raises(ValueError, match="timestamp"):
        parse_time(text)


def test_only_s3fs_can_be_asked_for(moto_s3, tmp_path, monkeypatch):
    """By name it changes nothing; another client is refused, also for files, before any request."""
    url = moto_s3.new()
    by_name = {"client": "s3fs"}
    RatZarr(url, storageOptions=by_name).close()
    monkeypatch.setenv("RATZARR_S3_CLIENT", "s3fs")
    assert RatZarr(url, readOnly=True, storageOptions=by_name).rowCount == 0
    before = moto_s3.everything()
    with pytest.raises(ArgumentError, match=r"'obstore': .*was removed, only s3fs exists"):
        RatZarr(moto_s3.new(), storageOptions={"client": "obstore"})
    with pytest.raises(ArgumentError, match=r"'curl': there is no such client, only s3fs exists"):
        RatZarr.exists(url, storageOptions={"client": "curl"})
    monkeypatch.setenv("RATZARR_S3_CLIENT", "obstore")
    (tmp_path / "a").write_bytes(b"x")
    for use in (
        lambda: RatZarr(url, storageOptions=by_name),
        lambda: RatZarr.delete(url),
        lambda: copy_file(parse(tmp_path / "a"), parse(moto_s3.new())),
    ):
        with pytest.raises(
            ArgumentError, match=r"RATZARR_S3_CLIENT asks for .*obstore was removed"
        ):
            use()
    # What is not on S3 is not concerned.
    RatZarr(tmp_path / "t.rat.zarr").close()
    assert moto_s3.everything() == before
