"""Limits on the memory that a store's documents and chunks can claim.

A few bytes of ``zarr.json`` can claim 2**62 rows, and a few kilobytes of a chunk can decode to
gigabytes. Every size is checked against these limits before memory is allocated. Writers check
them too, so that they write nothing unreadable.
"""

import contextlib
import functools
import os
import re
import sys
from pathlib import Path

import numpy as np

from ratzarr.errors import TooLargeError
from ratzarr.settings import MAX_CHUNK_BYTES, max_chunk_bytes

__all__ = [
    "MAX_DEPTH",
    "MAX_DOCUMENT_BYTES",
    "MAX_DOCUMENT_VALUES",
    "MAX_ROWS",
    "MEMORY",
    "PACKABLE",
    "TASK_BYTES",
    "check_memory",
    "chunk_rows_within",
    "memory_there",
    "objection_to",
]

MAX_ROWS = 2**63 - 1
"""The largest index of an array."""

PACKABLE = 2**31 - 2**16
"""Blosc stores buffer sizes as signed 32-bit integers."""

MAX_DOCUMENT_BYTES = 64 * 2**20
"""Limit of a ``zarr.json``. A log of 100 000 events takes about 20 MB."""
MAX_DOCUMENT_VALUES = 2**22
"""Limit of values in a ``zarr.json``. An empty list takes 3 bytes there and over 60 in memory."""
MAX_DEPTH = 64
"""Limit of nested lists and objects, because parsers, copies and comparisons are recursive."""

TASK_BYTES = 2000
"""Memory for a pending read of a chunk, without its values."""

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of a container's processes."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def chunk_rows_within(chunk_rows: int, row_bytes: int, column: str) -> int:
    """Return the number of rows in a chunk of a new column.

    Parameters
    ----------
    chunk_rows : int
        The preferred number.
    row_bytes : int
        Size of a row in memory.
    column : str
        For messages.

    Raises
    ------
    TooLargeError
        If a single row is too large.
    """
    most = min(max_chunk_bytes(), PACKABLE)
    if row_bytes > most:
        raise TooLargeError(
            f"column {column!r}: a row of {row_bytes} bytes is more than the {most} bytes that "
            f"a chunk may have in memory ({MAX_CHUNK_BYTES})"
        )
    return min(chunk_rows, most // max(1, row_bytes))


def check_memory(size: int, what: str) -> None:
    """Raise an error if an allocation exceeds this computer's memory, before the system kills us.

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
    """Return the memory available to processes here; None if unknown.

    Parameters
    ----------
    files : tuple of str
        Files with a lower limit than the computer's memory. Each is read once.
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


MEMORY = memory_there() or sys.maxsize
"""The size in bytes up to which :func:`check_memory` raises no error."""


def objection_to(data: bytes) -> str | None:
    """Return an explanation if a JSON document is too large to parse, otherwise None.

    Parameters
    ----------
    data : bytes
        UTF-8, possibly not JSON. The count is right up to the point where a parser would stop.
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
        return f"its lists and objects are nested {depth} deep, expected {MAX_DEPTH} or less"
    return None
