"""The environment variables that ratzarr reads, each with its type, default and meaning.

A variable is read when its value is needed, so a program can set it at any time. Where an argument of
a function says the same, the argument takes precedence. An empty variable counts as not set.

AWS's own variables (``AWS_*``) are read in the same way, by :data:`environment`; see
:mod:`ratzarr.stores.aws_config` for the order in which they and other sources apply.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ratzarr.errors import ArgumentError

__all__ = [
    "CACHE_BYTES",
    "DEFAULT_REQUESTS",
    "MAX_CHUNK_BYTES",
    "REQUESTS",
    "S3_BUCKET",
    "S3_CLIENT",
    "S3_FIRST_ANSWER",
    "S3_RETRIES",
    "WRITE_BUFFER",
    "cache_bytes",
    "environment",
    "max_chunk_bytes",
    "requests",
    "text_of",
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
"""Seconds until a server must have answered for the first time; by default 8."""
S3_RETRIES = "RATZARR_S3_"
"""Prefix of ``RETRIES``, ``TIMEOUT``, ``BACKOFF`` and ``PATIENCE``: see
:class:`ratzarr.stores.s3_client.Retries`."""
S3_CLIENT = "RATZARR_S3_CLIENT"
"""Chose another S3 client in former versions; any value but ``s3fs`` is an error."""
S3_BUCKET = "S3BUCKET"
"""A bucket for :mod:`ratzarr.selftest`, which then also runs on S3."""

environment: Mapping[str, str] = os.environ
"""All variables, for code that takes a mapping of them."""

_CHUNK, _CACHE, _BUFFER = 2**30, 64 * 2**20, 256 * 2**20
DEFAULT_REQUESTS, _MOST_REQUESTS = 32, 1024


def text_of(variable: str) -> str:
    """Return the value of a variable, or an empty string if it is not set."""
    return os.environ.get(variable, "")


def max_chunk_bytes() -> int:
    """Return the largest allowed size of a decoded chunk: :data:`MAX_CHUNK_BYTES`.

    Raises
    ------
    ArgumentError
        If the variable is not a number of bytes.
    """
    return _bytes_of(MAX_CHUNK_BYTES, _CHUNK, least=1)


def cache_bytes(asked: Any = None) -> int:
    """Return how many bytes of decoded chunks an instance may cache.

    Parameters
    ----------
    asked : int, optional
        None selects the variable :data:`CACHE_BYTES`.

    Raises
    ------
    ArgumentError
        If the argument or the variable is not a number of bytes.
    """
    if asked is None:
        return _bytes_of(CACHE_BYTES, _CACHE, least=0)
    if not isinstance(asked, int | np.integer) or isinstance(asked, bool) or asked < 0:
        raise ArgumentError(f"cacheBytes is a number of bytes, 0 or more: got {asked!r:.100}")
    return int(asked)


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
        text = text_of(WRITE_BUFFER)
        try:
            asked = words[text.lower()] if text.lower() in words else int(text or "0")
        except ValueError:
            asked = -1
        if asked < 0:
            raise ArgumentError(
                f"the environment variable {WRITE_BUFFER} is 'on', 'off' or a number of "
                f"bytes: got {text!r}"
            )
    if isinstance(asked, bool | np.bool_):
        return _BUFFER if asked else 0
    if not isinstance(asked, int | np.integer) or asked < 0:
        raise ArgumentError(
            f"writeBuffer is True, False or a number of bytes, 0 or more: got {asked!r:.100}"
        )
    return int(asked)


def requests() -> int:
    """Return the limit of tasks and requests in flight: :data:`REQUESTS`.

    Raises
    ------
    ArgumentError
        If the variable is not such a number.
    """
    text = text_of(REQUESTS)
    if not text:
        return DEFAULT_REQUESTS
    if not _is_number(text, 9) or not 1 <= int(text) <= _MOST_REQUESTS:
        raise ArgumentError(
            f"the environment variable {REQUESTS} is the number of requests in flight, "
            f"from 1 to {_MOST_REQUESTS}: got {text!r}"
        )
    return int(text)


def _bytes_of(variable: str, default: int, *, least: int) -> int:
    text = text_of(variable)
    if not text:
        return default
    if not _is_number(text, 18) or int(text) < least:
        raise ArgumentError(
            f"the environment variable {variable} is a number of bytes: got {text!r}"
        )
    return int(text)


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits
