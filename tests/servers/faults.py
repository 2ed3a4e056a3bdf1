"""A proxy in front of an S3 server that does to requests what networks and servers do to them.

    with faulty_proxy("http://127.0.0.1:5000", Faults(seed=1, share=0.1)) as proxy:
        ...                                     # talk to proxy.url
        assert proxy.faults.count("late 500") > 0

Which requests are hit follows from the seed, the request's method and key, and how many of its
kind came before it: not from the order in which threads happen to make them. A test can also name
the requests itself (:attr:`Faults.plan`), and do something between a request and its answer
(:attr:`Faults.meanwhile`).
"""

import random
import re
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.servers.counting import CountingProxy, Handler, counting_proxy

BEFORE = ("500", "503", "drop", "stall")
"""The request is not carried out: an answer in the server's place, a connection that ends, and
one that is silent, then goes on if the client is still there."""
AFTER = ("late 500", "late drop", "late cut", "late stall")
"""It is carried out, and its answer is lost: another one in its place, none at all, half of it,
and one that comes too late."""
EVERYWHERE = BEFORE + AFTER
CONFLICT = "409"
"""To a write on condition: another one is under way."""
COPY_ERROR = "200 with an error"
"""To a copy: a status that says that all is well, and a body that doesn't."""
DELETE_ERRORS = "200 with errors"
"""To a removal of many objects: none of them was removed."""

_REASONS = {
    "500": ("InternalError", "We encountered an internal error. Please try again."),
    "503": ("SlowDown", "Please reduce your request rate."),
    CONFLICT: ("ConditionalRequestConflict", "A conflicting operation occurred. Please retry."),
}
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to one request."""

    kind: str
    method: str
    key: str
    """Without the bucket."""
    conditional: bool
    """Whether it was a write on condition."""


@dataclass(slots=True)
class Faults:
    """Which requests are hit, and how."""

    seed: int = 0
    share: float = 0.0
    """Of all requests."""
    kinds: tuple[str, ...] = EVERYWHERE
    """What can happen to them; the special ones to requests that they are meant for, besides."""
    stall: float = 10.0
    """Seconds of silence."""
    plan: Callable[[str, str, int], str | None] | None = None
    """Called with method, key and number (from 0) of each request of this method and key, in
    place of the seed."""
    meanwhile: Callable[[], None] | None = None
    """Called once, after the next request that is hit was carried out and before its answer."""
    done: list[Fault] = field(default_factory=list)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, *, conditional: bool | None = None, method: str = "") -> int:
        """Return how often something was done."""
        return sum(
            fault.kind == kind
            and conditional in (None, fault.conditional)
            and method in ("", fault.method)
            for fault in list(self.done)
        )

    def choose(self, method: str, key: str, conditional: bool, special: str | None) -> str | None:
        """Return what is to be done to a request; None for nothing."""
        with self._lock:
            number = self._seen[method, key]
            self._seen[method, key] += 1
        if self.plan is not None:
            kind = self.plan(method, key, number)
        else:
            chance = random.Random(f"{self.seed} {method} {key} {number}")
            kind = None
            if chance.random() < self.share:
                kind = chance.choice((*self.kinds, *([special] if special else [])))
        if kind is not None:
            with self._lock:
                self.done.append(Fault(kind, method, key, conditional))
        return kind

    def happen(self) -> None:
        """Do what is to be done in the meantime."""
        with self._lock:
            meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


class FaultyProxy:
    """The proxy, and what it did."""

    def __init__(self, proxy: CountingProxy, faults: Faults) -> None:
        self.url, self.requests, self.faults = proxy.url, proxy.requests, faults


type _Answer = tuple[int, str, list[tuple[str, str]], bytes]


class _Faulty(Handler):
    faults: Faults
    """Of all connections: set in a class of each proxy's own."""
    cut = False

    def ask(self, body: bytes) -> _Answer:
        parts = urlsplit(self.path)
        key = unquote(parts.path).removeprefix("/").partition("/")[2]
        conditional = bool({"if-match", "if-none-match"} & {name.lower() for name in self.headers})
        kind = self.faults.choose(
            self.command, key, conditional, self.special(parts.query, conditional)
        )
        match kind:
            case None:
                return super().ask(body)
            case "500" | "503" | "409":
                return self.refusal(kind)
            case "drop":
                raise ConnectionAbortedError
            case "stall":
                self.stall()
                return super().ask(body)
            case "200 with an error":
                return 200, "OK", [], self.refusal("500")[3]
            case "200 with errors":
                return 200, "OK", [], self.errors_of(body)
        answer = super().ask(body)
        self.faults.happen()
        match kind:
            case "late 500":
                return self.refusal("500")
            case "late drop":
                raise ConnectionAbortedError
            case "late cut":
                self.cut = True
            case "late stall":
                self.stall()
            case _:
                raise AssertionError(kind)
        return answer

    def special(self, query: str, conditional: bool) -> str | None:
        if conditional:
            return CONFLICT
        if "x-amz-copy-source" in {name.lower() for name in self.headers}:
            return COPY_ERROR
        if self.command == "POST" and "delete" in query:
            return DELETE_ERRORS
        return None

    def refusal(self, status: str) -> _Answer:
        code, text = _REASONS[status]
        xml = f"{_XML}<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        return int(status), code, [("Content-Type", "application/xml")], xml.encode()

    def errors_of(self, body: bytes) -> bytes:
        code, text = _REASONS["503"]
        errors = "".join(
            f"<Error><Key>{key}</Key><Code>{code}</Code><Message>{text}</Message></Error>"
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode(), re.DOTALL)
        )
        return f"{_XML}<DeleteResult>{errors}</DeleteResult>".encode()

    def stall(self) -> None:
        """Be silent; give up where the client does."""
        end = time.monotonic() + self.faults.stall
        while (left := end - time.monotonic()) > 0:
            if select.select([self.connection], [], [], left)[0]:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError
                time.sleep(min(left, 0.05))

    def reply(
        self, status: int, reason: str, headers: list[tuple[str, str]], answer: bytes
    ) -> None:
        if not self.cut:
            super().reply(status, reason, headers, answer)
            return
        # Half of the body, of which the whole length was announced; else half of the header.
        lines = [f"HTTP/1.1 {status} {reason}"]
        lines += [f"{name}: {text}" for name, text in headers if name.lower() != "content-length"]
        head = "\r\n".join([*lines, f"Content-Length: {len(answer)}", "", ""]).encode()
        whole = head + answer
        self.wfile.write(whole[: len(head) + len(answer) // 2 if answer else len(head) // 2])
        raise ConnectionAbortedError


@contextmanager
def faulty_proxy(server_url: str, faults: Faults) -> Iterator[FaultyProxy]:
    """Put a proxy in front of ``server_url``."""
    handler = type("_OneProxysHandler", (_Faulty,), {"faults": faults})
    with counting_proxy(server_url, handler) as proxy:
        yield FaultyProxy(proxy, faults)
