"""A proxy in front of an S3 server that counts what passes: how many requests, and which.

    with counting_proxy("http://127.0.0.1:5000") as proxy:
        ...                                   # talk to proxy.url
        assert proxy.counts() == {"GET": 1}
        assert [r.key for r in proxy.requests] == ["bucket/x.zarr/zarr.json"]

It changes nothing: the Host header passes as it came, because it is part of what is signed;
bodies pass in the framing they came in, chunked ones with their trailers. Connections are kept
alive on both sides, one to the server for each one to us, so that the proxy costs no handshakes.
A test can have it answer in the server's place (:attr:`CountingProxy.instead`), and late
(:attr:`CountingProxy.delay`); it notes how many requests were under way at once.
"""

import http.client
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

# These speak of one connection only. Expect is answered here, before the body is read.
HOP_BY_HOP = frozenset(["connection", "keep-alive", "proxy-connection", "te", "upgrade", "expect"])

NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code><Message>It is not there.</Message></Error>"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in, and the status it was answered with."""

    method: str
    key: str
    """The path, percent-decoded, without the leading slash: ``bucket/key``."""
    query: str
    headers: dict[str, str]
    """By lower-case name."""
    body_length: int
    """Bytes after the headers, framing included."""
    status: int


@dataclass(slots=True)
class CountingProxy:
    """What went through, in the order in which it was answered."""

    url: str
    instead: Callable[[str, str], int | None] | None = None
    """Called with method and key; a number is the status to answer without asking the server."""
    delay: float = 0.0
    """Seconds to wait before each request is passed on, as if the server were far away."""
    requests: list[Request] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    """What went wrong inside the proxy itself. Always empty, or the counts mean nothing."""
    connections: int = 0
    peak: int = 0
    """The most requests that were under way at one time since :meth:`clear`."""
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def counts(self) -> dict[str, int]:
        """Return how many requests there were, by method."""
        return dict(Counter(request.method for request in self.requests))

    def clear(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self.requests.clear()
            self.peak = self._under_way

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count a request as under way, and keep it waiting for the delay."""
        with self._lock:
            self._under_way += 1
            self.peak = max(self.peak, self._under_way)
        try:
            if self.delay:
                time.sleep(self.delay)
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def note(self, request: Request) -> None:
        """Count one request."""
        with self._lock:
            self.requests.append(request)


class Handler(BaseHTTPRequestHandler):
    """One connection of a client, and the one to the server that goes with it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    # A client that keeps its connection for the session must not keep a test run from ending.
    timeout = 60
    server: "_Server"

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(*self.server.target, timeout=60)
        with self.server.proxy._lock:
            self.server.proxy.connections += 1

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        # Buffered output: without this the client waits for what we hold, and we for its body.
        self.wfile.flush()
        return proceed

    def handle_any(self) -> None:
        body = self.read_body()
        parts = urlsplit(self.path)
        key = unquote(parts.path).removeprefix("/")
        instead = self.server.proxy.instead
        with self.server.proxy.under_way():
            status = instead(self.command, key) if instead else None
            if status is None:
                status, reason, headers, answer = self.ask(body)
            else:
                # A 404 is S3's only with its code; a HEAD has no body.
                is_missing = status == 404 and self.command != "HEAD"
                reason, answer = "Instead", NO_SUCH_KEY if is_missing else b""
                headers = [("Content-Type", "application/xml")]
        self.server.proxy.note(
            Request(
                method=self.command,
                key=key,
                query=parts.query,
                headers={name.lower(): value for name, value in self.headers.items()},
                body_length=len(body),
                status=status,
            )
        )
        self.reply(status, reason, headers, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = handle_any

    def read_body(self) -> bytes:
        """Return the body in the framing it came in."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        raw = bytearray()
        while True:
            line = self.rfile.readline()
            raw += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            raw += self.rfile.read(size + 2)
        while line := self.rfile.readline():
            raw += line
            if line in (b"\r\n", b"\n"):
                break
        return bytes(raw)

    def ask(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        """Pass the request on. Return status, reason, headers and body of the answer."""
        connection = self.upstream
        # An idle connection that can be read from has been closed by the server. Asking twice
        # when it fails would be simpler, and wrong: a PUT on condition that did arrive fails
        # the second time.
        if connection.sock and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        answer = response.read()
        headers = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in HOP_BY_HOP and name.lower() != "transfer-encoding"
        ]
        return response.status, response.reason, headers, answer

    def reply(
        self, status: int, reason: str, headers: list[tuple[str, str]], answer: bytes
    ) -> None:
        self.send_response_only(status, reason)
        bodiless = self.command == "HEAD" or status in (204, 304)
        # The length that HEAD announces is the object's, and no body follows it. In the place
        # where it came: GDAL takes a size from the headers only if it comes before the range.
        if not any(name.lower() == "content-length" for name, _ in headers) and not bodiless:
            headers = [*headers, ("Content-Length", "")]
        for name, value in headers:
            is_length = name.lower() == "content-length" and not bodiless
            self.send_header(name, str(len(answer)) if is_length else value)
        self.end_headers()
        if not bodiless:
            self.wfile.write(answer)
        self.wfile.flush()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads sit in connections that their clients keep; waiting for them would take for ever.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, target: tuple[str, int], handler: type["Handler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.target = target
        self.proxy = CountingProxy(f"http://127.0.0.1:{self.server_address[1]}")
        self._sockets: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # A client that goes away in the middle is no fault of the proxy.
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            self.proxy.errors.append(error)

    def close_connections(self) -> None:
        for request in list(self._sockets):
            with suppress(OSError):  # the client was first
                request.shutdown(socket.SHUT_RDWR)


@contextmanager
def counting_proxy(server_url: str, handler: type[Handler] = Handler) -> Iterator[CountingProxy]:
    """Put a proxy in front of ``server_url``; fail at the end if the proxy itself failed."""
    parts = urlsplit(server_url)
    assert parts.hostname is not None
    assert parts.port is not None
    server = _Server((parts.hostname, parts.port), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        server.server_close()
        server.close_connections()
        thread.join()
    assert not server.proxy.errors, server.proxy.errors
