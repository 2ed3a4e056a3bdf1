"""S3 clients, their time limits, and the repetition of requests."""

import asyncio
import contextlib
import datetime as dt
import email.utils
import functools
import http.client
import importlib.metadata
import io
import itertools
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import aiohttp
import botocore.exceptions
import botocore.parsers
import fsspec.config
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError
from botocore.session import Session
from botocore.utils import parse_timestamp
from s3fs import S3FileSystem

from ratzarr.errors import ArgumentError, StorePermissionError
from ratzarr.settings import S3_RETRIES, environment, requests, retry_setting
from ratzarr.stores.aws_config import MACHINE, PROFILES, Keys, S3Settings
from ratzarr.stores.s3_errors import answer_to

__all__ = [
    "Retries",
    "client_for",
    "keys_of_profile",
    "new_session",
    "parse_time",
    "passes",
    "service_loader",
]


LONGEST_PAUSE = 5.0
UNREACHABLE = 5.0
"""Seconds after which failed connections are not retried: usually the name is wrong or the network
is down."""
GARBLED = 4
"""Largest number of consecutive answers that are not XML, after which the server counts as no S3
server."""
CONNECT_TIMEOUT = 4.0


_PASSING = frozenset(
    {
        "BadDigest",  # the body was changed in transit
        "ConditionalRequestConflict",  # another write of this key is in progress: no winner yet
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_STATUS = frozenset({408, 429})
_FINAL_STATUS = frozenset({501, 505})
_BROKEN = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.FlexibleChecksumError,
    botocore.parsers.ResponseParserError,
    aiohttp.ClientError,
    http.client.IncompleteRead,
    ConnectionError,
    TimeoutError,
)
_GARBLED = botocore.parsers.ResponseParserError
_NOT_CONNECTED = (
    botocore.exceptions.ConnectTimeoutError,
    botocore.exceptions.ProxyConnectionError,
    botocore.exceptions.SSLError,
)


@dataclass(frozen=True, slots=True)
class Retries:
    """Limits for repeating requests.

    Set each by an environment variable, ``RATZARR_S3_`` followed by its name in capitals, or by
    ``storageOptions={"retry": {...}}``, which takes precedence.
    """

    retries: int = 10
    """How often a failed request may be repeated; 0 for never."""
    timeout: float = 20.0
    """Seconds of silence after which a connection is closed."""
    backoff: float = 0.1
    """Maximum of the first pause, in seconds."""
    patience: float = 120.0
    """Seconds after the first attempt until which a request may be repeated."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Read the settings.

        Parameters
        ----------
        options : mapping
            Names and values that precede the environment's.

        Raises
        ------
        ArgumentError
            For an unknown name, and for a value that is not a valid number.
        """
        names = sorted(field.name for field in fields(cls))
        for name in options:
            if name not in names:
                raise ArgumentError(
                    f"the storage option 'retry' has an unknown key {name!r}: expected "
                    f"{', '.join(names)}"
                )
        found: dict[str, Any] = {}
        for name in names:
            value = options.get(name, retry_setting(name))
            if value is None:
                continue
            setting = f"{S3_RETRIES}{name.upper()} (or {name!r} of the storage option 'retry')"
            try:
                number = found[name] = int(value) if name == "retries" else float(value)
            except (TypeError, ValueError):
                raise ArgumentError(f"{setting} is {value!r}: expected a number") from None
            zero = name in ("retries", "backoff")
            if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
                expected = "0 or more" if zero else "more than 0"
                raise ArgumentError(f"{setting} is {number}: expected {expected}")
        return cls(**found)

    def config(self) -> dict[str, Any]:
        """Return arguments for botocore's ``Config``: timeouts, and no retries of its own."""
        return {
            "connect_timeout": min(CONNECT_TIMEOUT, self.timeout),
            "read_timeout": self.timeout,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }

    def run[T](self, attempt: Callable[[], T], patience: Callable[[], float] | None = None) -> T:
        """Call ``attempt`` until it succeeds or fails permanently.

        Parameters
        ----------
        attempt : callable
            Makes the request, once.
        patience : callable, optional
            Returns a time limit in seconds, in place of our own. It is called after each failure,
            and its largest result counts.

        Returns
        -------
        object
            The result of ``attempt``.

        Raises
        ------
        Exception
            The last error, with a note on the number of attempts.
        """
        began = time.monotonic()
        longest = 0.0
        unconnected: list[float] = []
        garbled = 0
        for number in itertools.count(1):
            this = time.monotonic()
            try:
                return attempt()
            except Exception as error:
                unconnected = [*unconnected, this] if _is_unconnected(error) else []
                garbled = garbled + 1 if isinstance(error, _GARBLED) else 0
                longest = max(longest, self.patience if patience is None else patience())
                now, pause = time.monotonic(), self._pause(number)
                # A single failure is no evidence: a computer that has just woken up has one too.
                unreachable = len(unconnected) > 1 and now + pause > unconnected[0] + UNREACHABLE
                if (
                    number > self.retries
                    or not passes(error)
                    or now + pause > began + longest
                    or unreachable
                    or garbled >= GARBLED
                ):
                    if number > 1:
                        error.add_note(f"tried {number} times in {now - began:.1f} s")
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _pause(self, number: int) -> float:
        longest = min(LONGEST_PAUSE, self.backoff * 2 ** min(number - 1, 20))
        return random.uniform(0, longest)  # noqa: S311 - spreads load, not for security


def passes(error: BaseException) -> bool:
    """Return True if the same request may succeed when repeated."""
    answer = answer_to(error)
    if not answer.has_come:
        return isinstance(error, _BROKEN)
    # The HTTP status decides if a proxy answers for the server, and for HEAD, which has no error
    # code.
    return (
        answer.code in _PASSING
        or answer.status in _PASSING_STATUS
        or (answer.status >= 500 and answer.status not in _FINAL_STATUS)
    )


def _is_unconnected(error: BaseException) -> bool:
    cause = getattr(error, "kwargs", {}).get("error")
    return isinstance(error, _NOT_CONNECTED) or isinstance(cause, aiohttp.ClientConnectorError)


TRIES = 3
"""Number of attempts on a silent server within the time limit."""
HEARD = 60.0
"""Seconds for which a server that has answered counts as responsive."""
SMALL = 2**20
"""Size of a request body above which sending it may exceed the first-answer limit."""
PIECE = 2**16
"""Size of the pieces in which a body is sent. Each piece counts as progress."""
GRACE = 1.0
"""Extra seconds in which the HTTP client may report its own timeout."""
ROOTS = {
    "CompleteMultipartUpload": b"CompleteMultipartUploadResult",
    "CopyObject": b"CopyObjectResult",
    "CreateMultipartUpload": b"InitiateMultipartUploadResult",
    "DeleteObjects": b"DeleteResult",
    "ListObjectsV2": b"ListBucketResult",
    "UploadPartCopy": b"CopyPartResult",
}
"""The root element of an answer 200, by operation."""
_ROOT = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)")
_TAGGED = {"GetObject", "HeadObject", "PutObject", "UploadPart"}
"""Operations whose answer 200 has an etag."""
_READING = {"GetObject", "HeadObject"}

MAX_CLIENTS = 16
_ENVIRONMENT = (
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_DECIDED = {"anon", "profile", "first_answer", "retry", "username", "password"}
"""Arguments that the settings already determine."""
_clients: dict[tuple[int, str, str, int], "_Client"] = {}
_inherited: list[dict[tuple[int, str, str, int], "_Client"]] = []
"""Clients of the parent process. Freeing them would close its connections."""
_lock = threading.Lock()


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - after a fork, the thread that holds the lock may not exist
    _lock = threading.Lock()
    _inherited.append(dict(_clients))
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def client_for(
    settings: S3Settings,
    options: Mapping[str, Any] | None = None,
    retries: Retries | None = None,
) -> Any:
    """Return a client.

    Creating a client takes longer than most requests, so it is cached. fsspec's own cache could
    return a client with outdated credentials, or one from before a fork.

    Parameters
    ----------
    settings : S3Settings
        Resolved with the same options.
    options : mapping, optional
        Further arguments for ``s3fs.S3FileSystem``.
    retries : Retries, optional
        Limits for repetitions; by default those of the environment.

    Raises
    ------
    ArgumentError
        If the settings cannot be used.
    """
    if settings.problem:
        raise ArgumentError(settings.problem)
    arguments: dict[str, Any] = {
        # Turn both off: cached listings hide the writes of other processes, and ranged reads
        # request each object's size first.
        "use_listings_cache": False,
        "max_concurrency": 1,
    }
    arguments |= settings.s3fs_arguments()
    retries = retries or Retries.of({})
    # With fewer connections than requests, some requests would wait for a connection.
    arguments["config_kwargs"] |= {"max_pool_connections": requests(), **retries.config()}
    arguments["config_kwargs"]["user_agent"] = _user_agent()
    arguments["config_kwargs"]["http_session_cls"] = _DirectSession
    for name, value in fsspec.config.conf.get("s3", {}).items():
        _put(arguments, name, value, over=False)
    for name, value in (options or {}).items():
        _put(arguments, name, value, over=True)
    arguments["anon"] = settings.anonymous
    given = arguments.pop("session", None)
    # The repr of the settings has no keys, and the arguments do not always have them.
    state = hash((settings.keys, *(environment.get(name) for name in _ENVIRONMENT)))
    key = (os.getpid(), repr(sorted(arguments.items())), f"{settings!r} {given!r}", state)
    with _lock:
        if key not in _clients:
            while len(_clients) >= MAX_CLIENTS:
                del _clients[next(iter(_clients))]
            session = given or new_session(settings)
            _clients[key] = _Client(settings, session, arguments, skip_instance_cache=True)
            # Attempts, not repetitions: those are ours.
            _clients[key].retries = 1
        return _clients[key]


def keys_of_profile(settings: S3Settings) -> Keys | None:
    """Return the current keys from a profile's role, portal or program; None if it has none.

    For clients that support fewer methods than ours. Such keys are valid for a few hours at most.
    """
    if settings.use_profile is None:
        return None
    session = _with_files(Session(profile=settings.use_profile), settings)
    try:
        found = session.get_credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
    except BotoCoreError as error:
        raise StorePermissionError(
            f"the profile {settings.use_profile!r} gives no credentials: {type(error).__name__}"
        ) from error
    return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _with_files(session: Any, settings: S3Settings) -> Any:
    for name, path in zip(("config_file", "credentials_file"), settings.files, strict=True):
        session.set_config_variable(name, path)
    return session


def _put(arguments: dict[str, Any], name: str, value: Any, *, over: bool) -> None:
    if name in _DECIDED:
        return
    there = arguments.get(name)
    if isinstance(there, dict) and isinstance(value, Mapping):
        for inner, inner_value in value.items():
            _put(there, inner, inner_value, over=over)
    elif over or name not in arguments:
        arguments[name] = dict(value) if isinstance(value, Mapping) else value


def new_session(settings: S3Settings) -> Any:
    """Return botocore's session for these settings, with the right source of credentials."""
    # If the environment names the profile, s3fs finds it, and knows that keys take precedence.
    from_environment = settings.sources.get("profile") in PROFILES
    session = AioSession(profile=None if from_environment else settings.profile)
    _with_files(session, settings)
    if settings.credentials != MACHINE:
        # It would wait for a service that exists only on Amazon's machines.
        session.get_component("credential_provider").remove("iam-role")
    session.get_component("response_parser_factory").set_parser_defaults(
        timestamp_parser=parse_time
    )
    session.register_component(
        "data_loader", service_loader(session.get_config_variable("data_path"))
    )
    return session


@functools.cache
def service_loader(data_path: str | None) -> Any:
    """Return botocore's loader for the description of S3, shared by all clients."""
    return create_loader(data_path)


@functools.cache
def _user_agent() -> str:
    """Return the User-Agent header; botocore would build it again for each request.

    That takes as long as signing the request, and many parallel requests share one thread.
    """
    # botocore appends its own name.
    names = ("ratzarr", "s3fs", "aiobotocore")
    return " ".join(f"{name}/{importlib.metadata.version(name)}" for name in names)


def parse_time(text: Any) -> dt.datetime:
    """Return a server's time stamp as a datetime.

    Each answer has the object's time of modification. For the two formats that servers use, the
    standard library takes a tenth of the time of botocore's parser.
    """
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            when = (
                dt.datetime.fromisoformat(text)
                if text[:4].isdigit()
                else email.utils.parsedate_to_datetime(text)
            )
            if when.tzinfo is not None:
                return when
    parsed: dt.datetime = parse_timestamp(text)
    return parsed


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Mark a request as already redirected, because botocore follows only one redirect."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _check_answer(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Reject a successful answer that does not come from an S3 server.

    A login page, a proxy's page or an empty body would look like a listing without objects.
    """
    if response_dict["status_code"] >= 300:
        return
    name, headers = operation_model.name, response_dict["headers"]
    expected = ROOTS.get(name)
    if expected is not None:
        # Another root element is a late error, which botocore recognises.
        match = _ROOT.search(response_dict["body"] or b"")
        if match is None or match[1] not in (expected, b"Error"):
            raise ResponseParserError(f"an answer to {name} that is not a {expected.decode()}")
    elif name in _TAGGED and "etag" not in headers:
        raise ResponseParserError(f"an answer to {name} without an etag")
    elif name in _READING and "html" in headers.get("content-type", ""):
        # Web servers send etags too, and some send a page for every missing object.
        raise ResponseParserError(f"an answer to {name} that is a web page")


class _DirectSession(AIOHTTPSession):  # type: ignore[misc]  # the base class has no types
    """An HTTP client that does not follow redirects."""

    async def _get_session(self, proxy_url: Any) -> Any:
        return _Direct(await super()._get_session(proxy_url))


class _Direct:
    """The interface of aiohttp's session that is used here, with one more argument."""

    def __init__(self, session: Any) -> None:
        self.request = functools.partial(session.request, allow_redirects=False)


class _Body(io.BytesIO):
    """A request body that records when the last piece was sent."""

    taken = 0.0

    def read(self, size: int | None = -1) -> bytes:
        self.taken = time.monotonic()
        # Send pieces: for one large buffer, progress would be unknown.
        return super().read(size if size is None or size < 0 else min(size, PIECE))


class _Client(S3FileSystem):  # type: ignore[misc]  # the base class has no types
    """A client with a time limit for the first answer of a server."""

    def __init__(
        self, settings: S3Settings, session: Any, arguments: Mapping[str, Any], **_: Any
    ) -> None:
        # Other defaults come from fsspec's configuration and were applied earlier.
        super().__init__(**arguments, session=session)
        self._bound = settings.first_answer
        self._heard = -HEARD
        self._prepared: list[Any] = []
        self._direct: dict[str, float] = {}

    @property
    def heard(self) -> bool:
        """True if the server has answered recently."""
        return time.monotonic() < self._heard + HEARD

    def is_direct(self, bucket: str) -> bool:
        """Return True if the server has recently answered for a bucket without a redirect."""
        return time.monotonic() < self._direct.get(bucket, -HEARD) + HEARD

    async def get_s3(self, bucket: str | None = None) -> Any:
        """Return the client for a bucket, which does not change its region."""
        client = await super().get_s3(bucket)
        if not any(client is one for one in self._prepared):
            client.meta.events.register_last("before-parameter-build.s3", _stay)
            client.meta.events.register("before-parse.s3", _check_answer)
            self._prepared.append(client)
        return client

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        bucket = kwargs.get("Bucket", "")
        try:
            answer = await self._ask(method, *akwarglist, **kwargs)
        except ClientError as error:
            if not answer_to(error).is_redirect:
                self._direct[bucket] = time.monotonic()
            raise
        self._direct[bucket] = time.monotonic()
        return answer

    async def _ask(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        data = kwargs.get("Body")
        if self.heard or len(data or b"") > SMALL:
            return await self._send(method, *akwarglist, **kwargs)
        # Creating the client and fetching credentials do not count as waiting for the server.
        events = (await self.set_session()).meta.events
        await asyncio.wait_for(self._fetch_credentials(), self._bound)
        async with asyncio.timeout(self._bound / TRIES) as silence:

            def watch(response: Any = None, **_: Any) -> None:
                if response is not None:
                    self._heard = time.monotonic()
                    if not silence.expired():
                        silence.reschedule(None)

            # This is told the answers to all requests of the client.
            events.register("needs-retry.s3", watch)
            try:
                answer = await self._send(method, *akwarglist, **kwargs)
            finally:
                events.unregister("needs-retry.s3", watch)
        self._heard = time.monotonic()
        return answer

    async def _send(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        """Make a request, and cancel it if the server stops accepting its body.

        The HTTP client's own time limit covers the time after the body, and requests without a
        body.
        """
        data = kwargs.get("Body")
        if not data and method != "delete_objects":
            return await super()._call_s3(method, *akwarglist, **kwargs)
        client = await self.set_session()
        silence = client.meta.config.read_timeout + GRACE
        body = _Body(data or b"")
        if data:
            kwargs["Body"] = body
        asked = asyncio.ensure_future(super()._call_s3(method, *akwarglist, **kwargs))
        body.taken = time.monotonic()
        try:
            while not asked.done():
                left = body.taken + silence - time.monotonic()
                if left <= 0:
                    raise ReadTimeoutError(endpoint_url=client.meta.endpoint_url)
                await asyncio.wait({asked}, timeout=left)
            return await asked
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def _fetch_credentials(self) -> None:
        """Fetch credentials beforehand, because that may take longer than an attempt."""
        if not self.anon:
            credentials = await self.session.get_credentials()
            if credentials is not None:
                await credentials.get_frozen_credentials()
