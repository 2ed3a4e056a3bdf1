"""What servers refuse, and servers that aren't there: in words, in time, as the right class."""

import time
from contextlib import contextmanager

import numpy as np
import pytest

from ratzarr import (
    ArgumentError,
    RatZarr,
    RatZarrError,
    RedirectError,
    StoreConnectionError,
    StoreError,
    StorePermissionError,
    StoreTimeoutError,
    TableNotFoundError,
)
from ratzarr.stores import s3_client
from ratzarr.stores.aws_config import MACHINE, NONE, S3Settings
from ratzarr.testing.helpers import make
from tests.servers.scripted import black_hole, closed_port, scripted_s3, silent_server

# Servers of our own, and of moto what it takes any key for.
pytestmark = pytest.mark.moto_only

SECRET, TOKEN = "a-secret-nobody-may-see", "a-token-nobody-may-see"
URL = "s3://bucket/dir/x.rat.zarr"


@pytest.fixture
def server(monkeypatch):
    with scripted_s3() as server:
        environment(monkeypatch, server.url)
        yield server


def environment(monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@contextmanager
def said(error, builtin, *words, within=40):
    """Check class, builtin parent, words and time; that no secret is told, and what was tried."""
    started = time.monotonic()
    with pytest.raises(RatZarrError) as caught:
        yield
    assert time.monotonic() - started < within
    text = str(caught.value)
    assert type(caught.value) is error, text
    assert isinstance(caught.value, builtin)
    for word in (URL, *words, "(tried: endpoint ", "AWS_DEFAULT_REGION", "credentials: "):
        assert word in text
    for secret in (SECRET, TOKEN):
        assert secret not in text


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (403, "InvalidAccessKeyId", StorePermissionError, "the access key is unknown"),
        (403, "SignatureDoesNotMatch", StorePermissionError, "the secret does not belong"),
        (403, "AccessDenied", StorePermissionError, "permission denied to read it"),
        (403, "SomethingNew", StorePermissionError, "SomethingNew HTTP 403"),
        (400, "ExpiredToken", StorePermissionError, "has expired"),
        (400, "InvalidToken", StorePermissionError, "the session token is invalid"),
        (403, "RequestTimeTooSkewed", StorePermissionError, "clock is wrong by minutes"),
        (404, "NoSuchBucket", TableNotFoundError, "the bucket 'bucket' does not exist"),
        (404, "NoSuchKey", TableNotFoundError, None),
        (400, "InvalidRequest", StoreError, "InvalidRequest HTTP 400"),
        (501, "NotImplemented", StoreError, "NotImplemented HTTP 501"),
    ],
)
def test_what_a_server_says(server, status, code, error, words):
    server.answer(".*", ".*", status, code)
    if words is None:
        with pytest.raises(error):
            RatZarr(URL, readOnly=True)
        return
    builtin = {TableNotFoundError: FileNotFoundError, StoreError: OSError}
    with said(error, builtin.get(error, PermissionError), words):
        RatZarr(URL, readOnly=True)


def test_the_words_name_what_was_tried(server):
    server.answer(".*", ".*", 403, "AccessDenied")
    with said(
        StorePermissionError, PermissionError,
        f"endpoint {server.url} (AWS_ENDPOINT_URL)", "region eu-west-1 (AWS_DEFAULT_REGION)",
        "credentials: AWS_ACCESS_KEY_ID",
    ):  # fmt: skip
        RatZarr(URL, readOnly=True)


@pytest.mark.parametrize(
    ("status", "code", "elements", "headers"),
    [
        (400, "AuthorizationHeaderMalformed", {"Region": "ap-south-1"}, {}),
        (301, "PermanentRedirect", {"Endpoint": "b.s3.x"}, {"x-amz-bucket-region": "ap-south-1"}),
        (301, "PermanentRedirect", {}, {}),
        (307, "TemporaryRedirect", {}, {}),
    ],
)
def test_wrong_region(server, status, code, elements, headers):
    server.answer(".*", ".*", status, code, headers=headers, **elements)
    where = "region 'ap-south-1'" if "ap-south-1" in str((elements, headers)) else "another region"
    with said(RedirectError, PermissionError, f"the bucket is in {where}", code):
        RatZarr(URL, readOnly=True)


def test_no_permission_to_list(server, monkeypatch, moto, moto_s3):
    environment(monkeypatch, moto.url)
    url = moto_s3.new()
    make(url, 3, a=("int32",)).close()
    key = url.partition("://")[2]
    environment(monkeypatch, server.url)
    for name, body in moto_s3.objects(url).items():
        server.answer("GET", f"/{key}/{name}", 200, body=body, headers={"ETag": '"1"'})
    server.answer("GET", "/.*[?].*list-type=2.*", 403, "AccessDenied")
    with RatZarr(url, readOnly=True) as table:
        with pytest.raises(StorePermissionError, match=r"list its objects.*AccessDenied") as no:
            table.getColumnNames()
        assert isinstance(no.value, PermissionError)
        assert url in str(no.value)


def test_no_permission_to_write(server):
    server.answer("PUT", ".*", 403, "AccessDenied")
    with said(StorePermissionError, PermissionError, "permission denied to write it", "zarr.json"):
        RatZarr(URL)


def test_the_code_decides_and_no_text(server):
    body = b"<Error><Code>AccessDenied</Code><Message>NoSuchBucket NoSuchKey 404</Message></Error>"
    server.answer(".*", ".*", 403, body=body)
    with said(StorePermissionError, PermissionError, "AccessDenied"):
        RatZarr(URL, readOnly=True)


def test_an_answer_without_a_body(server):
    server.answer(".*", ".*", 403)
    with said(StorePermissionError, PermissionError, "HTTP 403"):
        RatZarr(URL, readOnly=True)


def test_no_credentials(server, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with said(StorePermissionError, PermissionError, "AWS_NO_SIGN_REQUEST"):
        RatZarr(URL, readOnly=True)
    assert server.requests == []


def test_half_of_the_credentials(server, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with said(
        StorePermissionError, PermissionError, "AWS_ACCESS_KEY_ID without AWS_SECRET_ACCESS_KEY"
    ):
        RatZarr(URL, readOnly=True)


def test_a_profile_that_is_not_there(server, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ArgumentError, match=r"profile 'nobody' \(AWS_PROFILE\) is neither in"):
        RatZarr(URL, readOnly=True)


def test_nobody_listens(monkeypatch):
    url = closed_port()
    environment(monkeypatch, url)
    with said(StoreConnectionError, ConnectionError, url, "no connection"):
        RatZarr(URL, readOnly=True)


def test_a_name_that_is_nobodys(monkeypatch):
    environment(monkeypatch, "http://no-such-host.invalid")
    with said(StoreConnectionError, ConnectionError, "no-such-host.invalid", "no connection"):
        RatZarr(URL, readOnly=True)


def test_a_connection_that_never_comes(monkeypatch):
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "4")
    with black_hole() as url:
        environment(monkeypatch, url)
        with said(StoreTimeoutError, TimeoutError, url, "no answer"):
            RatZarr(URL, readOnly=True)


def test_a_server_that_never_answers(monkeypatch):
    with silent_server() as url:
        environment(monkeypatch, url)
        started = time.monotonic()
        with said(StoreTimeoutError, TimeoutError, url, "no answer"):
            RatZarr(URL, readOnly=True)
        default = time.monotonic() - started
        options = {"first_answer": 1}
        with said(StoreTimeoutError, TimeoutError, url, "no answer", within=default):
            RatZarr(URL, readOnly=True, storageOptions=options)
        monkeypatch.setenv("RATZARR_FIRST_ANSWER", "0.5")
        with said(StoreTimeoutError, TimeoutError, url, "no answer", within=default):
            RatZarr(URL)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_a_bound_that_is_none(server, value):
    with pytest.raises(ArgumentError, match=r"first_answer.*number of seconds"):
        RatZarr(URL, storageOptions={"first_answer": value})


def test_a_server_that_was_heard_from_may_be_slow(counted_s3, monkeypatch):
    """Only the first answer is bounded so tightly: a later one is not asked for again."""
    place, proxy = counted_s3
    # A third of it for each attempt: a busy machine keeps answers waiting for tenths of a second.
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "6")
    url = place.new()
    with make(url, 6, a=("int32",)) as table:
        table.writeBlock("a", np.arange(6), 0)
        table.flush()
        asked = []

        def instead(method, key):
            asked.append(key)
            if len(asked) == 1:
                time.sleep(2.5)

        proxy.instead = instead
        # One chunk: another one's answer would count as the server's, too.
        assert table.readBlock("a", 2, 1).tolist() == [2]
        assert len(asked) == 1


def test_a_server_that_stalls_once_is_asked_again(counted_s3, monkeypatch):
    place, proxy = counted_s3
    url = place.new()
    make(url, 6).close()
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "6")  # a client of its own, that has heard nothing
    stalled = []

    def instead(method, key):
        if not stalled:
            stalled.append(key)
            time.sleep(3)

    proxy.instead = instead
    with RatZarr(url, readOnly=True) as table:
        assert table.rowCount == 6
    assert stalled


def test_a_server_that_is_busy_at_first_is_waited_for(counted_s3, monkeypatch):
    """An answer is an answer, even "not now": the bound is for silence."""
    place, proxy = counted_s3
    url = place.new()
    make(url, 6).close()
    # Seconds, because a busy machine keeps answers waiting for tenths of one.
    monkeypatch.setenv("RATZARR_FIRST_ANSWER", "3")
    busy = []

    def instead(method, key):
        busy.append(time.monotonic())
        return 503 if busy[-1] - busy[0] < 4 else None

    proxy.instead = instead
    with RatZarr(url, readOnly=True) as table:
        assert table.rowCount == 6
    assert busy[-1] - busy[0] >= 4


def test_nobody_waits_for_a_role_that_no_machine_has():
    def providers(credentials):
        session = s3_client.new_session(S3Settings(credentials=credentials))
        return [one.METHOD for one in session.get_component("credential_provider").providers]

    assert "iam-role" not in providers(NONE)
    assert "iam-role" in providers(MACHINE)
    assert "env" in providers(NONE)


def test_what_answers_is_another_kind_of_server(server):
    server.answer(".*", ".*", 404, body=b"<html>Not here</html>")
    for use in (lambda: RatZarr(URL), lambda: RatZarr.exists(URL)):
        with said(StoreError, OSError, "does not speak S3"):
            use()
