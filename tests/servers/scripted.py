"""A server that answers as it is told: the errors of S3 servers, on request.

    with scripted_s3() as server:
        server.answer("GET", ".*", 403, "SignatureDoesNotMatch")
        ...
        assert server.requests[0].region == "eu-west-1"

What no rule is for, is not there (404, NoSuchKey). Messages are empty, as some servers' are: a
client that goes by the text has nothing to go by. Every request is kept, with what its signature
says of key and region. It checks none: what is signed with what key is for the test to look at.
"""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/s3/")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    """Percent-decoded, with its slash."""
    query: str
    headers: dict[str, str]
    """By lower-case name."""

    @property
    def key_id(self) -> str | None:
        """The access key that it was signed with; None where it was not signed."""
        match = _CREDENTIAL.search(self.headers.get("authorization", ""))
        return match[1] if match else None

    @property
    def region(self) -> str | None:
        """The region that it was signed for."""
        match = _CREDENTIAL.search(self.headers.get("authorization", ""))
        return match[2] if match else None


@dataclass(slots=True)
class Scripted:
    """The rules, and what was asked."""

    url: str
    rules: list[tuple[str, str, int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Host and port, as GDAL wants an endpoint."""
        return self.url.removeprefix("http://")

    def answer(
        self,
        method: str,
        path: str,
        status: int,
        code: str | None = None,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        **elements: str,
    ) -> None:
        """Answer such requests so; a later rule goes before an earlier one.

        ``method`` and ``path`` (with the query) are patterns. With a code, the body is an error's
        XML, with further elements (``Region="eu-west-1"``).
        """  # fmt: skip
        if code is not None:
            inner = "".join(f"<{name}>{text}</{name}>" for name, text in elements.items())
            body = (
                '<?xml version="1.0" encoding="UTF-8"?>'
                f"<Error><Code>{code}</Code><Message></Message>{inner}</Error>"
            ).encode()
        self.rules.insert(0, (method, path, status, headers or {}, body))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: "_Server"

    def handle_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        script = self.server.script
        script.requests.append(Asked(self.command, path, parts.query, headers))
        whole = f"{path}?{parts.query}" if parts.query else path
        status, extra, body = next(
            (
                answer
                for method, pattern, *answer in script.rules
                if re.fullmatch(method, self.command) and re.fullmatch(pattern, whole)
            ),
            (404, {}, b"<Error><Code>NoSuchKey</Code><Message></Message></Error>"),
        )
        self.send_response_only(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = Scripted(f"http://127.0.0.1:{self.server_address[1]}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are none of ours to report."""


@contextmanager
def scripted_s3() -> Iterator[Scripted]:
    """Start the server; stop it at the end."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[str]:
    """Give the URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        # The kernel completes the handshake: nobody has to accept.
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """Give the URL of a port at which no connection is ever made."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # the queue is full after these: the kernel drops what comes then
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> str:
    """Return a URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"
