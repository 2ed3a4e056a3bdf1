"""Servers that point elsewhere, and what answers in an S3 server's place: nobody else is believed.

Server A points to server B, which keeps every request that it gets: there must be none.
"""

import http.server
import os
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from ratzarr import (
    ConflictError,
    RatZarr,
    RatZarrError,
    RedirectError,
    StoreConnectionError,
    StoreError,
    StoreTimeoutError,
)
from ratzarr.stores.open import open_place
from tests.servers.scripted import scripted_s3

pytestmark = pytest.mark.moto_only

URL = "s3://bucket/dir/x.rat.zarr"
TOKEN = "a-token-nobody-may-see"
REDIRECTS = [301, 302, 303, 307, 308]
OPERATIONS = {
    "get": lambda objects: objects.get("zarr.json"),
    "put": lambda objects: objects.put("k", b"x" * 3_000_000),
    "create": lambda objects: objects.create("k", b"x"),
    "replace": lambda objects: objects.replace("k", b"x", "1"),
    "list": lambda objects: list(objects.list_tree("")),
    "delete": lambda objects: objects.delete(["k"]),
    "occupied": lambda objects: objects.occupied(),
}
BY_NAME = {
    "exists": lambda: RatZarr.exists(URL),
    "isValidRatZarr": lambda: RatZarr.isValidRatZarr(URL),
    "delete": lambda: RatZarr.delete(URL),
    "open": lambda: RatZarr(URL, readOnly=True),
    "create": lambda: RatZarr(URL),
}
PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body/></html>"


@pytest.fixture
def servers(monkeypatch):
    with scripted_s3() as a, scripted_s3() as b:
        environment(monkeypatch, a.url)
        yield a, b


def environment(monkeypatch, url):
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "RATZARR_S3_BACKOFF": "0.01",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_no_redirect_is_followed(servers, status, operation, host):
    """Neither to another host nor to another port of the same one."""
    a, b = servers
    elsewhere = b.url.replace("127.0.0.1", host)
    a.answer(".*", ".*", status, headers={"Location": f"{elsewhere}/bucket/other?signature=1"})
    started = time.monotonic()
    with pytest.raises(RedirectError) as caught:
        OPERATIONS[operation](open_place(URL))
    assert time.monotonic() - started < 40
    assert b.requests == []
    assert f"redirects to '{elsewhere}'" in str(caught.value)
    assert "signature" not in str(caught.value)
    assert f"HTTP {status}" in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "elements", "headers", "words"),
    [
        (301, "PermanentRedirect", {"Endpoint": "{b}"}, {}, "redirects to '{b}'"),
        (307, "TemporaryRedirect", {"Endpoint": "{b}"}, {"Location": "{url}/x"}, "redirects to '{b}'"),
        (301, "PermanentRedirect", {}, {"x-amz-bucket-region": "us-west-2"}, "AWS_REGION=us-west-2"),
        (400, "AuthorizationHeaderMalformed", {"Region": "us-west-2"}, {}, "AWS_REGION=us-west-2"),
        (301, "NoSuchKey", {}, {"Location": "http://[/"}, "another endpoint"),
        (301, None, {}, {"Location": "http://me:pw@host/x"}, "redirects to 'http://host'"),
    ],
)  # fmt: skip
def test_where_to_is_said(servers, status, code, elements, headers, words):
    a, b = servers
    words = words.format(b=b.host, url=b.url)
    elements = {name: text.format(b=b.host) for name, text in elements.items()}
    headers = {name: text.format(url=b.url) for name, text in headers.items()}
    a.answer(".*", ".*", status, code, headers=headers, **elements)
    asked = len(a.requests)
    with pytest.raises(RedirectError) as caught:
        RatZarr(URL, readOnly=True)
    assert words in str(caught.value)
    assert "pw@" not in str(caught.value)
    assert len(a.requests) == asked + 1
    assert b.requests == []


# ---- limits


@contextmanager
def deaf_server(answer=b""):
    """Give the URL of a server that reads heads of requests, and never a body."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = []

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection):
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(1)
                if not more:
                    return
                head += more
            if answer:
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()


@pytest.mark.parametrize("size", [1000, 20_000_000])
def test_a_body_that_nobody_takes(monkeypatch, size):
    """Whether ``100 Continue`` does not come, or nothing reads on: there is an end."""
    monkeypatch.setenv("RATZARR_S3_TIMEOUT", "1")
    monkeypatch.setenv("RATZARR_S3_RETRIES", "1")
    with deaf_server() as url:
        environment(monkeypatch, url)
        started = time.monotonic()
        with pytest.raises((StoreTimeoutError, StoreConnectionError)):
            open_place(URL).put("k", b"x" * size)
        assert time.monotonic() - started < 40


def test_a_redirect_before_the_body(monkeypatch):
    answer = b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:9/x\r\nContent-Length: 0\r\n\r\n"
    with deaf_server(answer) as url:
        environment(monkeypatch, url)
        started = time.monotonic()
        with pytest.raises(RedirectError, match=r"http://127\.0\.0\.1:9"):
            open_place(URL).put("k", b"x" * 20_000_000)
        assert time.monotonic() - started < 40


# ---- what is no answer of an S3 server


@pytest.mark.parametrize("use", BY_NAME)
@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, PAGE, {"Content-Type": "text/html"}),
        (200, PAGE, {"Content-Type": "text/html", "ETag": '"1"'}),
        (200, b"", {}),
        (200, b"<html xmlns='http://www.w3.org/1999/xhtml'><body/></html>", {}),
        (404, PAGE, {"Content-Type": "text/html"}),
        (404, b"", {}),
    ],
)  # fmt: skip
def test_nothing_is_called_absent_that_was_not_said_to_be(servers, status, body, headers, use):
    a, _ = servers
    a.answer(".*", ".*", status, body=body, headers=headers)
    with pytest.raises(RatZarrError) as caught:
        BY_NAME[use]()
    assert isinstance(caught.value, StoreError), repr(caught.value)
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("body", [b"", PAGE, b"<html/>"])
def test_an_answer_200_to_a_removal_or_a_write_that_is_none(servers, body):
    a, _ = servers
    a.answer("POST|PUT", ".*", 200, body=body)
    objects = open_place(URL)
    for work in (lambda: objects.delete(["k"]), lambda: objects.put("k", b"x")):
        with pytest.raises(StoreError, match="does not speak S3"):
            work()


def test_a_clear_answer_is_believed(servers):
    a, _ = servers
    a.answer("GET", ".*list-type=2.*", 200, body=b"<ListBucketResult><IsTruncated>false"
             b"</IsTruncated></ListBucketResult>")  # fmt: skip
    assert RatZarr.exists(URL) is False
    assert RatZarr.isValidRatZarr(URL) is False
    RatZarr.delete(URL)


def test_a_listing_without_end(servers):
    a, _ = servers
    a.answer("GET", ".*list-type=2.*", 200, body=b"<ListBucketResult><IsTruncated>true"
             b"</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>")  # fmt: skip
    with pytest.raises(StoreError, match="continues, but not where"):
        list(open_place(URL).list_tree(""))


# ---- conflicts without end


class _Fickle(http.server.BaseHTTPRequestHandler):
    """In front of a server: each answer has another etag, and each condition is refused."""

    protocol_version = "HTTP/1.1"

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT" and {"if-match", "if-none-match"} & {
            name.lower() for name in self.headers
        }:
            self.say(412, b"<Error><Code>PreconditionFailed</Code></Error>", [])
            return
        connection = http.client.HTTPConnection(*self.server.target, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        kept = [
            (name, f'"{os.urandom(8).hex()}"' if name.lower() == "etag" else value)
            for name, value in answer.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date")
        ]
        data = answer.read()
        self.say(answer.status, data, kept, answer.getheader("Content-Length"))
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

    def say(self, status, data, headers, length=None):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header(
            "Content-Length", length if self.command == "HEAD" and length else str(len(data))
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *args):
        pass


@contextmanager
def fickle_server(url):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Fickle)
    server.daemon_threads, server.block_on_close = True, False
    host, port = url.removeprefix("http://").split(":")
    server.target = (host, int(port))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


WRITES = {
    "attribute": lambda table: table.getRatAttributeMapping().__setitem__("x", 1),
    "column attribute": lambda table: table.getColumnAttributeMapping("a").__setitem__("x", 1),
    "part of a chunk": lambda table: table.writeBlock("a", [5], 1),
    "resize": lambda table: table.setRowCount(20),
    "shrink": lambda table: table.setRowCount(2),
    "new column": lambda table: table.createColumn("b", "int32"),
    "setComplete": lambda table: table.setComplete("half"),
}


@pytest.mark.parametrize("write", WRITES)
def test_conflicts_end_within_the_patience(moto_s3, moto, monkeypatch, write):
    url = moto_s3.new()
    with RatZarr(url) as table:
        table.setRowCount(8)
        table.createColumn("a", "int32")
        table.writeBlock("a", range(8), 0)
        table.createColumn("half", "int32", complete=False)
        table.writeBlock("half", range(8), 0)
    before = moto_s3.everything()
    monkeypatch.setenv("RATZARR_S3_PATIENCE", "2")
    with fickle_server(moto.url) as fickle:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fickle)
        table = RatZarr(url)
        started = time.monotonic()
        with pytest.raises((ConflictError, RatZarrError)) as caught:
            WRITES[write](table)
        assert time.monotonic() - started < 40
        text = str(caught.value)
        assert re.search(r"(once|\d+ times) in \d|already", text), text
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)
    assert moto_s3.everything() == before
