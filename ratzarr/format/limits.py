"""Limits on the memory that a store's documents and chunks can claim.

A few bytes of ``zarr.json`` can claim 2**62 rows, and a few kilobytes of a chunk can decode to
gigabytes. Every size is checked against these limits before memory is allocated. Writers check
them too, so that they write nothing unreadable.
"""

import contextlib
import functools
import os
import sys
from pathlib import Path

from ratzarr.errors import TooLargeError

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "MAX_ROWS",
    "MEMORY",
    "TASK_BYTES",
    "check_memory",
    "memory_there",
]

MAX_ROWS = 2**63 - 1
"""The largest index of an array."""

MAX_DOCUMENT_BYTES = 64 * 2**20
"""Limit of a ``zarr.json``. A log of 100 000 events takes about 20 MB."""

TASK_BYTES = 2000
"""Memory for a pending read of a chunk, without its values."""

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of a container's processes."""


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
