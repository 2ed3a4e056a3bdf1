"""The environment variables that ratzarr reads, each with its type, default and meaning.

A variable is read when its value is needed, so a program can set it at any time. Where an argument of
a function says the same, the argument takes precedence. An empty variable counts as not set.

AWS's own variables (``AWS_*``) are looked up in :data:`environment`, at the same time; see
:mod:`ratzarr.stores.aws_config` for the order in which they and other sources apply.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from numbers import Integral
from typing import Any

from ratzarr.errors import ArgumentError

__all__ = [
    "BUFFER_BYTES",
    "CACHE_BYTES",
    "DEFAULT_REQUESTS",
    "MAX_CHUNK_BYTES",
    "REQUESTS",
    "S3_BUCKET",
    "S3_FIRST_ANSWER",
    "S3_RETRIES",
    "WRITE_BUFFER",
    "environment",
    "number_of",
    "requests",
    "retry_setting",
    "selftest_bucket",
    "write_buffer_bytes",
]

MAX_CHUNK_BYTES = "RATZARR_MAX_CHUNK_BYTES"
"""Bytes: the largest decoded chunk that is read or written; by default 1 GiB. A column keeps the limit
that applied when it was opened."""
CACHE_BYTES = "RATZARR_CACHE_BYTES"
"""Bytes: decoded chunks that one ``RatZarr`` keeps for its next block; by default 64 MiB, 0 for none."""
WRITE_BUFFER = "RATZARR_WRITE_BUFFER"
"""``on``, ``off`` or bytes: rows that wait until their chunk is full; by default off."""
REQUESTS = "RATZARR_REQUESTS"
"""Number from 1 to 1024: tasks and requests in flight at once; by default 32."""
S3_FIRST_ANSWER = "RATZARR_FIRST_ANSWER"
"""Time limit for a server's first answer, in seconds, over all attempts; by default 8."""
S3_RETRIES = "RATZARR_S3_"
"""Prefix of ``RETRIES``, ``TIMEOUT``, ``BACKOFF`` and ``PATIENCE``: see
:class:`ratzarr.stores.s3_client.Retries`."""
S3_BUCKET = "S3BUCKET"
"""A bucket for :mod:`ratzarr.selftest`, which then also runs on S3."""

environment: Mapping[str, str] = os.environ
"""All variables, for :func:`number_of` and for the choice among AWS's."""

BUFFER_BYTES = 256 * 2**20
"""Size of a write buffer, if :data:`WRITE_BUFFER` or an argument turns it on without a size."""
DEFAULT_REQUESTS, _MOST_REQUESTS = 32, 1024

_NUMBERS = {
    MAX_CHUNK_BYTES: (2**30, 1, 10**18, "a number of bytes"),
    CACHE_BYTES: (64 * 2**20, 0, 10**18, "a number of bytes"),
    REQUESTS: (
        DEFAULT_REQUESTS,
        1,
        _MOST_REQUESTS,
        f"the number of requests in flight, from 1 to {_MOST_REQUESTS}",
    ),
}
"""For each variable: the default, the smallest and largest number, and a phrase for errors."""


@lru_cache(64)
def number_of(variable: str, text: str | None) -> int:
    """Return the number that a variable has with this text; None or "" selects the default.

    Each text is parsed once, because every table that is opened asks.

    Raises
    ------
    ArgumentError
        If the text is no such number.
    """
    default, least, most, expected = _NUMBERS[variable]
    if not text:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not is_number or not least <= int(text) <= most:
        raise ArgumentError(f"the environment variable {variable} is {expected}: got {text!r}")
    return int(text)


def requests() -> int:
    """Return the limit of tasks and requests in flight: :data:`REQUESTS`."""
    return number_of(REQUESTS, environment.get(REQUESTS))


def retry_setting(name: str) -> str | None:
    """Return the text of a limit for repetitions, or None: :data:`S3_RETRIES` and this name."""
    return os.environ.get(S3_RETRIES + name.upper()) or None


def selftest_bucket() -> str | None:
    """Return the bucket for tests on S3, or None: :data:`S3_BUCKET`."""
    return os.environ.get(S3_BUCKET) or None


def write_buffer_bytes(asked: Any) -> int:
    """Return how many bytes of rows may wait in a write buffer; 0 for none.

    Parameters
    ----------
    asked : bool, int or None
        True selects 256 MiB. None selects the variable :data:`WRITE_BUFFER`.

    Raises
    ------
    ArgumentError
        For any other value.
    """
    if asked is None:
        words = {"on": True, "off": False}
        text = os.environ.get(WRITE_BUFFER, "")
        try:
            asked = words[text.lower()] if text.lower() in words else int(text or "0")
        except ValueError:
            asked = -1
        if asked < 0:
            raise ArgumentError(
                f"the environment variable {WRITE_BUFFER} is 'on', 'off' or a number of "
                f"bytes: got {text!r}"
            )
    # By its name, because numpy takes long to import, and a command's --help needs none of it.
    if type(asked).__name__ == "bool":
        return BUFFER_BYTES if asked else 0
    if not isinstance(asked, Integral) or asked < 0:
        raise ArgumentError(
            f"writeBuffer is True, False or a number of bytes, 0 or more: got {asked!r:.100}"
        )
    return int(asked)
