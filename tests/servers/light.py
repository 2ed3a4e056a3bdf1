"""An S3 server that costs next to nothing, in a process of its own, and as far away as one likes.

    with light_server() as server:
        server.client().create_bucket(Bucket="b")
        server.far(0.03)                      # seconds for each request from now on

moto takes several milliseconds of the processor for each request, in the test's own process and
under its lock: so what a client hides of 30 ms can't be measured with it, and what takes thousands of
requests takes minutes. This one keeps objects in dictionaries, carries out one request after the
other, knows the requests that we make and no others, and checks no signatures. What servers are like
is for the tests with moto and Ceph; it serves those of what we make of a server that is as it should be.
"""

import asyncio
import hashlib
import itertools
import os
import pickle
import re
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape, unescape

KEY, SECRET, REGION = "testing-key", "testing-secret", "eu-west-1"
PAGE = 1000
"""Keys in a listing, as Amazon has it."""


@dataclass(slots=True)
class LightServer:
    """The server, as the test that started it sees it."""

    url: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead any AWS client here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }

    def far(self, seconds: float, keys: str = "") -> int:
        """Have it wait so long before it carries out a request, of a key with this text in it.

        Returns
        -------
        int
            How many requests were under way at once since this was last called.
        """
        query = urlencode({"delay": seconds, "keys": keys})
        with urllib.request.urlopen(f"{self.url}/?{query}") as answer:
            return int(answer.read())

    def put_many(self, bucket: str, contents: dict[str, bytes]) -> None:
        """Put objects into a bucket without a request for each."""
        self._have("put_many", bucket, contents)

    def contents(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Return the objects whose keys begin so, without a request for each."""
        found: dict[str, bytes] = self._have("contents", bucket, prefix)
        return found

    def metadata(self, bucket: str, prefix: str) -> dict[str, dict[str, str]]:
        """Return what is kept with the objects whose keys begin so, besides their bytes."""
        found: dict[str, dict[str, str]] = self._have("metadata", bucket, prefix)
        return found

    def copy_many(self, bucket: str, prefix: str, other: str) -> None:
        """Copy the objects whose keys begin so to others, with their metadata."""
        self._have("copy_many", bucket, prefix, other)

    def _have(self, *what: Any) -> Any:
        with urllib.request.urlopen(f"{self.url}/?have", pickle.dumps(what)) as answer:
            return pickle.loads(answer.read())

    def client(self) -> Any:
        """Return a boto3 client of this server, the same one each time."""
        import boto3
        from botocore.config import Config

        if "s3" not in self._clients:
            self._clients["s3"] = boto3.session.Session().client(
                "s3",
                endpoint_url=self.url,
                aws_access_key_id=KEY,
                aws_secret_access_key=SECRET,
                region_name=REGION,
                config=Config(s3={"addressing_style": "path"}),
            )
        return self._clients["s3"]

    def fresh_bucket(self) -> str:
        """Return a name that no other test has had: a bucket is there when something is in it."""
        return f"bucket-{next(self._numbers)}"


@contextmanager
def light_server() -> Iterator[LightServer]:
    """Start the server; end it at the end."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=root,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        server = LightServer(process.stdout.readline().strip())
        try:
            yield server
        finally:
            for client in server._clients.values():
                client.close()
            # Its input ends, and so does it.
            process.communicate()
    assert process.returncode == 0


# ---- the other process


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass(frozen=True, slots=True)
class _Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


type _Answer = tuple[int, list[tuple[str, str]], bytes]


class _Serving:
    def __init__(self) -> None:
        self.buckets: defaultdict[str, dict[str, _Object]] = defaultdict(dict)
        self.delay, self.keys = 0.0, ""
        self.under_way = self.peak = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await self.next_request(reader, writer)) is not None:
                if asked.path == "/" and "delay" in asked.query:
                    self.delay, self.keys = float(asked.query["delay"]), asked.query["keys"]
                    status, headers, data = 200, [], str(self.peak).encode()
                    self.peak = self.under_way
                elif asked.path == "/" and "have" in asked.query:
                    name, bucket, *rest = pickle.loads(asked.body)
                    made = getattr(self, name)(self.buckets[bucket], *rest)
                    status, headers, data = 200, [], pickle.dumps(made)
                else:
                    self.under_way += 1
                    self.peak = max(self.peak, self.under_way)
                    if self.delay and self.keys in asked.path:
                        await asyncio.sleep(self.delay)
                    status, headers, data = self.answer(asked)
                    self.under_way -= 1
                lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {text}" for name, text in headers)]
                if not any(name == "Content-Length" for name, _ in headers):
                    lines.append(f"Content-Length: {len(data)}")
                head = "\r\n".join([*lines, "", ""]).encode()
                writer.write(head if asked.method == "HEAD" else head + data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def next_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> _Asked | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): text.strip() for name, text in pairs}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if "aws-chunked" in headers.get("content-encoding", ""):
            body = _unframed(body)
        parts = urlsplit(target)
        query = {name: texts[0] for name, texts in parse_qs(parts.query, True).items()}
        return _Asked(method, unquote(parts.path), query, headers, body)

    @staticmethod
    def put_many(bucket: dict[str, _Object], contents: dict[str, bytes]) -> None:
        bucket.update((key, _Object(data)) for key, data in contents.items())

    @staticmethod
    def contents(bucket: dict[str, _Object], prefix: str) -> dict[str, bytes]:
        return {key: one.data for key, one in bucket.items() if key.startswith(prefix)}

    @staticmethod
    def metadata(bucket: dict[str, _Object], prefix: str) -> dict[str, dict[str, str]]:
        return {
            key: {name.removeprefix("x-amz-meta-"): text for name, text in one.metadata}
            for key, one in bucket.items()
            if key.startswith(prefix)
        }

    @staticmethod
    def copy_many(bucket: dict[str, _Object], prefix: str, other: str) -> None:
        for key in [key for key in bucket if key.startswith(prefix)]:
            bucket[other + key.removeprefix(prefix)] = bucket[key]

    def answer(self, asked: _Asked) -> _Answer:
        name, _, key = asked.path.removeprefix("/").partition("/")
        bucket = self.buckets[name]
        there = bucket.get(key)
        # Written out, so that a request which is not known is none that seems to work.
        match asked.method, bool(key), sorted(asked.query.keys() - {"x-id"}):
            case "PUT" | "HEAD", False, []:
                return 200, [], b""
            case "POST", False, ["delete"]:
                for one in re.findall(r"<Key>(.*?)</Key>", asked.body.decode(), re.DOTALL):
                    bucket.pop(unescape(one), None)
                return _xml("<DeleteResult/>")
            case "GET", False, [*names] if "list-type" in names:
                return self.listing(bucket, asked.query)
            case "PUT", True, []:
                return self.put(bucket, key, asked)
            case "DELETE", True, []:
                bucket.pop(key, None)
                return 204, [], b""
            case "GET" | "HEAD", True, []:
                return _error(404, "NoSuchKey") if there is None else self.get(there, asked)
        return _error(501, "NotImplemented")

    def get(self, there: _Object, asked: _Asked) -> _Answer:
        status, data, size = 200, there.data, len(there.data)
        headers = [
            ("ETag", there.etag),
            ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
            *there.metadata,
        ]
        if asked.headers.get("if-match", there.etag).strip('"') != there.etag.strip('"'):
            return _error(412, "PreconditionFailed")
        if "range" in asked.headers:
            first, _, last = asked.headers["range"].removeprefix("bytes=").partition("-")
            begin = int(first) if first else max(0, size - int(last))
            end = min(size, int(last) + 1) if first and last else size
            if begin >= size:
                return _error(416, "InvalidRange")
            status, data = 206, data[begin:end]
            headers.append(("Content-Range", f"bytes {begin}-{end - 1}/{size}"))
        return status, [*headers, ("Content-Length", str(len(data)))], data

    def put(self, bucket: dict[str, _Object], key: str, asked: _Asked) -> _Answer:
        there = bucket.get(key)
        if "if-none-match" in asked.headers and there is not None:
            return _error(412, "PreconditionFailed")
        if match := asked.headers.get("if-match"):
            if there is None:
                return _error(404, "NoSuchKey")
            if match.strip('"') != there.etag.strip('"'):
                return _error(412, "PreconditionFailed")
        if source := asked.headers.get("x-amz-copy-source"):
            name, _, other = unquote(source).removeprefix("/").partition("/")
            if other not in self.buckets[name]:
                return _error(404, "NoSuchKey")
            bucket[key] = copied = self.buckets[name][other]
            return _xml(f"<CopyObjectResult><ETag>{escape(copied.etag)}</ETag></CopyObjectResult>")
        kept = [item for item in asked.headers.items() if item[0].startswith("x-amz-meta-")]
        bucket[key] = put = _Object(asked.body, tuple(kept))
        return 200, [("ETag", put.etag)], b""

    def listing(self, bucket: dict[str, _Object], query: dict[str, str]) -> _Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        entries: dict[str, str] = {}
        for key, one in bucket.items():
            if not key.startswith(prefix):
                continue
            inner, found, _ = (
                key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            )
            if found:
                folder = prefix + inner + delimiter
                entries[folder] = (
                    f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                )
            else:
                entries[key] = (
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(one.data)}</Size>"
                    f"<ETag>{escape(one.etag)}</ETag>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        after = query.get("continuation-token", "")
        rest = [key for key in sorted(entries) if key > after]
        page = rest[: min(PAGE, int(query.get("max-keys", PAGE)))]
        text = "".join(entries[key] for key in page)
        if len(page) < len(rest):
            token = escape(page[-1])
            text += f"<NextContinuationToken>{token}</NextContinuationToken>"
        more = str(len(page) < len(rest)).lower()
        return _xml(
            f"<ListBucketResult>{text}<IsTruncated>{more}</IsTruncated></ListBucketResult>"
        )


def _unframed(body: bytes) -> bytes:
    """Return a body without the lines that give the length of each piece."""
    pieces = []
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        pieces.append(body[:size])
        body = body[size + 2 :]
    return b"".join(pieces)


def _xml(text: str) -> _Answer:
    return 200, [("Content-Type", "application/xml")], text.encode()


def _error(status: int, code: str) -> _Answer:
    return status, [("Content-Type", "application/xml")], (
        f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    )  # fmt: skip


async def _serve() -> None:
    server = await asyncio.start_server(_Serving().connection, "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Clients keep their connections: there is nobody to be told.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve())
