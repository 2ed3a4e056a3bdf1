"""Asking an S3 server again: when, how often, and how long to wait in between.

Every repetition is ours. What s3fs and botocore would repeat by themselves is switched
off, as they do it without telling: their pauses add up, and to a write on condition that
was carried out, but whose answer was lost, a second attempt gets the answer "refused".
(:mod:`ratzarr.s3objects` finds out which it was.)

The pause before each repetition is random and may be twice as long as the one before:
clients that were turned away together don't come back together.
"""

import http.client
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import aiohttp
import botocore.exceptions
import botocore.parsers

from .errors import ArgumentError
from .s3errors import answer_to, error_code

__all__ = ["Retries", "passes"]

LONGEST_PAUSE = 5.0
UNREACHABLE = 5.0
"""Seconds after which a server that can't even be connected to isn't tried again: that is a
wrong name or no network far more often than something that passes."""
GARBLED = 4
"""Answers in a row that are no XML: it is not an S3 server that answers."""
CONNECT_TIMEOUT = 4.0

_PREFIX = "RATZARR_S3_"

_PASSING = frozenset(
    {
        "BadDigest",  # the body was changed on its way
        "ConditionalRequestConflict",  # another write of this key is under way: no winner yet
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
    """How patient we are with a server.

    Each can be set by an environment variable, ``RATZARR_S3_`` and the name in capitals, and
    by ``storageOptions={"retry": {...}}``, which goes before it.
    """

    retries: int = 10
    """How often a request is repeated, at the most; 0: never."""
    timeout: float = 20.0
    """Seconds for which the server may be silent before the connection is given up."""
    backoff: float = 0.1
    """Seconds that the first pause can be long."""
    patience: float = 120.0
    """Seconds after which a request is not repeated any more."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            zero = field.name in ("retries", "backoff")
            if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
                expected = "0 or more" if zero else "more than 0"
                raise ArgumentError(f"{_setting(field.name)} is {value}: expected {expected}")

    @classmethod
    def of(cls, environment: Mapping[str, str], options: Mapping[str, Any]) -> Self:
        """Read the settings.

        Parameters
        ----------
        environment : mapping
            ``os.environ``, or the like.
        options : mapping
            Names and values that go before it.

        Raises
        ------
        ArgumentError
            For a name that there isn't, and for what is no number, or not one that can be meant.
        """
        names = {field.name for field in fields(cls)}
        for name in options:
            if name not in names:
                raise ArgumentError(
                    f"the storage option 'retry' has no {name!r}: expected "
                    f"{', '.join(sorted(names))}"
                )
        found: dict[str, Any] = {}
        for name in names:
            value = options.get(name, environment.get(_PREFIX + name.upper()) or None)
            if value is None:
                continue
            try:
                found[name] = int(value) if name == "retries" else float(value)
            except (TypeError, ValueError):
                raise ArgumentError(f"{_setting(name)} is {value!r}: expected a number") from None
        return cls(**found)

    def config(self) -> dict[str, Any]:
        """Return arguments for botocore's ``Config``: timeouts, and no retries of its own."""
        return {
            "connect_timeout": min(CONNECT_TIMEOUT, self.timeout),
            "read_timeout": self.timeout,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }

    def run[T](self, attempt: Callable[[], T], patience: Callable[[], float] | None = None) -> T:
        """Call ``attempt`` until it succeeds, or fails with something that does not pass.

        Parameters
        ----------
        attempt : callable
            Makes the request, once.
        patience : callable, optional
            Seconds, in place of our own patience: asked after each failure, and the longest
            that it said counts.

        Returns
        -------
        object
            What it returned.

        Raises
        ------
        Exception
            Its last error, with a note that says how often it was tried.
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
                # Once says little: a machine that was asleep for a while sees that too.
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
        return random.uniform(0, longest)  # noqa: S311 - spreads load, guards nothing


def _setting(name: str) -> str:
    return f"{_PREFIX}{name.upper()} (or {name!r} of the storage option 'retry')"


def passes(error: BaseException) -> bool:
    """Return whether the same request may succeed when it is made again."""
    response, _ = answer_to(error)
    if not response:
        return isinstance(error, _BROKEN)
    # The status decides where a proxy answers in the server's place, and to HEAD, which has no code.
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (
        error_code(error) in _PASSING
        or status in _PASSING_STATUS
        or (status >= 500 and status not in _FINAL_STATUS)
    )


def _is_unconnected(error: BaseException) -> bool:
    cause = getattr(error, "kwargs", {}).get("error")
    return isinstance(error, _NOT_CONNECTED) or isinstance(cause, aiohttp.ClientConnectorError)
