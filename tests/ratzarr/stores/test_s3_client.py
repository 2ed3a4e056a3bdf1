"""What a client does for each request: little, as many requests share its one thread."""

import importlib.metadata

import pytest
from botocore.utils import parse_timestamp

from ratzarr import RatZarr
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
