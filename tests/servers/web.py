"""A web server for files below a directory, on a free port of 127.0.0.1.

    with web_server(directory) as web:
        web.url, web.requests

It answers for files, ranges of bytes included, and never lists a directory. What it says of one is
up to the test: nothing (404) by default, or a page of its own.
"""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Web:
    """What the server does, and has done."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.url = ""
        self.page = None
        """What is said of a directory, or of nothing at all, in place of 404."""
        self.instead = lambda path: None
        """A status for a path that is to be answered otherwise."""
        self.requests = []
        self.sent = 0
        """Bytes of all bodies."""

    def answer(self, path, span):
        """Return status and body for a path (decoded) and the header Range."""
        status = self.instead(path)
        if status is not None:
            return status, b"refused"
        file = self.directory / path.lstrip("/")
        if not file.is_file():
            return (404, b"nothing") if self.page is None else (200, self.page)
        data = file.read_bytes()
        match = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", span or "")
        if match is None:
            return 200, data
        return 206, data[int(match[1]) : int(match[2]) + 1]


@contextmanager
def web_server(directory):
    """Start the server; stop it at the end."""
    web = Web(directory)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = unquote(self.path.partition("?")[0])
            web.requests.append((self.command, path))
            status, body = web.answer(path, self.headers.get("Range"))
            self.send_response(status)
            if body is web.page:
                self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                web.sent += len(body)
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
