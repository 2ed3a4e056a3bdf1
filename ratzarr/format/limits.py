"""How much memory a store may ask for: what its documents and chunks say is only a claim.

A few bytes of a ``zarr.json`` can claim 2**62 rows, a few kilobytes of a chunk unpack to
gigabytes. Nothing is allocated before the claim was held against these limits, for
writing as for reading: what could not be read again is not written.
"""

import contextlib
import functools
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ratzarr.errors import ArgumentError, TooLargeError

__all__ = [
    "MAX_CHUNK_VARIABLE",
    "MAX_DEPTH",
    "MAX_DOCUMENT_BYTES",
    "MAX_DOCUMENT_VALUES",
    "MAX_ROWS",
    "PACKABLE",
    "TASK_BYTES",
    "buffer_bytes",
    "cache_bytes",
    "check_memory",
    "chunk_rows_within",
    "max_chunk_bytes",
    "memory_there",
    "objection_to",
]

MAX_ROWS = 2**63 - 1
"""What an index of an array can count to."""

MAX_CHUNK_VARIABLE = "RATZARR_MAX_CHUNK_BYTES"
MAX_CHUNK_BYTES = 2**30
"""A chunk in memory, unless the environment says otherwise; several are there at once."""
PACKABLE = 2**31 - 2**16
"""Blosc counts the bytes of a buffer in 32 bits, with a sign."""

CACHE_VARIABLE = "RATZARR_CACHE_BYTES"
CACHE_BYTES = 64 * 2**20
"""Chunks that an instance keeps for its next block, unless the environment says otherwise."""

BUFFER_VARIABLE = "RATZARR_WRITE_BUFFER"
BUFFER_BYTES = 256 * 2**20
"""Rows that wait until their chunks are full, where a buffer is asked for without a size."""

MAX_DOCUMENT_BYTES = 64 * 2**20
"""A ``zarr.json``. A log of 100 000 events has some 20 MB."""
MAX_DOCUMENT_VALUES = 2**22
"""Values in it: an empty list takes 3 bytes there, and more than 60 in memory."""
MAX_DEPTH = 64
"""Lists and objects in each other: parsers, copies and comparisons of them are recursive."""

TASK_BYTES = 2000
"""What a chunk that is to be read takes in memory besides its values."""

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files that say how much memory the processes of a container may have."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def max_chunk_bytes() -> int:
    """Return how large a chunk may be in memory.

    Raises
    ------
    ArgumentError
        Where the environment variable RATZARR_MAX_CHUNK_BYTES is not a number of bytes.
    """
    return _bytes_of(MAX_CHUNK_VARIABLE, MAX_CHUNK_BYTES, least=1)


def cache_bytes() -> int:
    """Return how many bytes of chunks an instance may keep for its next block; 0: none.

    Raises
    ------
    ArgumentError
        Where the environment variable RATZARR_CACHE_BYTES is not a number of bytes.
    """
    return _bytes_of(CACHE_VARIABLE, CACHE_BYTES, least=0)


def buffer_bytes(asked: Any) -> int:
    """Return how many bytes of rows may wait to be written; 0: none.

    Parameters
    ----------
    asked : bool, int or None
        True: :data:`BUFFER_BYTES`; None: what the environment variable RATZARR_WRITE_BUFFER says,
        which is ``on``, ``off`` or a number of bytes.

    Raises
    ------
    ArgumentError
        For anything else.
    """
    if asked is None:
        words = {"on": True, "off": False}
        text = os.environ.get(BUFFER_VARIABLE, "")
        try:
            asked = words[text.lower()] if text.lower() in words else int(text or "0")
        except ValueError:
            asked = -1
        if asked < 0:
            raise ArgumentError(
                f"the environment variable {BUFFER_VARIABLE} is 'on', 'off' or a number of "
                f"bytes: got {text!r}"
            )
    if isinstance(asked, bool | np.bool_):
        return BUFFER_BYTES if asked else 0
    if not isinstance(asked, int | np.integer) or asked < 0:
        raise ArgumentError(
            f"writeBuffer is True, False or a number of bytes, 0 or more: got {asked!r:.100}"
        )
    return int(asked)


def _bytes_of(variable: str, default: int, *, least: int) -> int:
    text = os.environ.get(variable)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < least:
        raise ArgumentError(
            f"the environment variable {variable} is a number of bytes: got {text!r}"
        )
    return int(text)


def chunk_rows_within(chunk_rows: int, row_bytes: int, column: str) -> int:
    """Return how many rows a chunk of a new column may have.

    Parameters
    ----------
    chunk_rows : int
        How many it should have.
    row_bytes : int
        Size of a row in memory.
    column : str
        For messages.

    Raises
    ------
    TooLargeError
        Where a single row is too large.
    """
    most = min(max_chunk_bytes(), PACKABLE)
    if row_bytes > most:
        raise TooLargeError(
            f"column {column!r}: a row of {row_bytes} bytes is more than the {most} bytes that a "
            f"chunk may have in memory ({MAX_CHUNK_VARIABLE})"
        )
    return min(chunk_rows, most // max(1, row_bytes))


def check_memory(size: int, what: str) -> None:
    """Refuse what this computer's memory can't hold: the system would end the process.

    Raises
    ------
    TooLargeError
    """
    there = memory_there()
    if there is not None and size > there:
        raise TooLargeError(
            f"{what}: {size} bytes are more than the memory of this computer, {there} bytes"
        )


@functools.cache
def memory_there(*, files: tuple[str, ...] = CGROUPS) -> int | None:
    """Return the memory that processes here can have; None where no one says.

    Parameters
    ----------
    files : tuple of str
        Those that may say that it is less than the computer's; each is read once.
    """
    found = []
    # Windows has no sysconf.
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in files:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():
            found.append(int(text))
    return min((size for size in found if size > 0), default=None)


def objection_to(data: bytes) -> str | None:
    """Say what is wrong with the size of a JSON document; None where nothing is.

    Parameters
    ----------
    data : bytes
        UTF-8, perhaps not JSON at all: up to where a parser would stop, the count is right.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        return f"it has {len(data)} bytes, a zarr.json has at most {MAX_DOCUMENT_BYTES}"
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH and len(data) <= MAX_DOCUMENT_VALUES:
        return None
    bare = np.frombuffer(_STRING.sub(b'""', data), np.uint8)
    opens = (bare == ord("[")) | (bare == ord("{"))
    closes = (bare == ord("]")) | (bare == ord("}"))
    values = int(np.count_nonzero(opens)) + int(np.count_nonzero(bare == ord(",")))
    if values > MAX_DOCUMENT_VALUES:
        return f"it has {values} values, a zarr.json has at most {MAX_DOCUMENT_VALUES}"
    steps = opens.astype(np.int8)
    steps -= closes
    depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    if depth > MAX_DEPTH:
        return (
            f"its lists and objects are {depth} deep in each other, expected {MAX_DEPTH} or less"
        )
    return None
