"""A file in pieces, wherever it is: what places that files are copied between have in common.

A few pieces are under way at once, so memory depends on the size of a piece. Their MD5s
say what was read, and what an S3 server calls an object is as a rule made of them.

>>> split(3, 2)
[Part(number=1, start=0, length=2), Part(number=2, start=2, length=1)]
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from .errors import ChangedError
from .location import Location
from .parallel import stream

__all__ = [
    "FileState",
    "Part",
    "Place",
    "Told",
    "compare",
    "etag",
    "is_one",
    "md5",
    "split",
    "sums_of",
]

PART_BYTES = 16 * 2**20
"""Size of a piece."""
MOST_PARTS = 10_000
"""Parts of an upload that S3 allows."""
AT_ONCE = 4

Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it is now."""

    size: int
    """In bytes; -1 for what is no file, a symbolic link among them."""
    state: str
    """Another once it was written again."""
    modified: float
    """When it was, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file: its number, from 1, and its bytes."""

    number: int
    start: int
    length: int


def split(size: int, length: int | None = None) -> list[Part]:
    """Return the pieces of a file of a size, each of a length but the last one.

    Longer ones, where there would be more than an upload may have; one that is empty for no bytes.
    """
    length = max(length or PART_BYTES, -(-size // MOST_PARTS), 1)
    return [
        Part(number, start, min(length, size - start))
        for number, start in enumerate(range(0, max(size, 1), length), 1)
    ]


def is_one(size: int) -> bool:
    """Return whether a file of a size is not worth being taken to pieces."""
    return size <= PART_BYTES


def sums_of(
    parts: Sequence[Part],
    read: Callable[[int, int], bytes],
    told: Told,
    write: Callable[[Part, bytes], None] | None = None,
) -> list[bytes]:
    """Read the parts, write each where there is a way to, and return their MD5s."""

    def one(part: Part) -> tuple[int, bytes]:
        data = read(part.start, part.length)
        if len(data) != part.length:
            raise ChangedError(f"a file became shorter while it was read, at byte {part.start}")
        if write is not None:
            write(part, data)
        return len(data), md5(data).digest()

    sums = []
    for size, digest in stream((partial(one, part) for part in parts), AT_ONCE):
        told(size)
        sums.append(digest)
    return sums


def compare(one: "Place", other: "Place", size: int, told: Told) -> bool:
    """Return whether two places hold the same bytes, of a size that is known."""
    parts = split(size)
    with one.opened(), other.opened():
        return sums_of(parts, one.read, told) == sums_of(parts, other.read, told)


def md5(data: bytes) -> Any:
    """Return the MD5 of bytes; more can be added to it."""
    return hashlib.md5(data, usedforsecurity=False)


def etag(sums: Sequence[bytes], parted: bool) -> str:
    """Return what most S3 servers call an object, by the MD5s of its parts."""
    if not parted:
        return sums[0].hex()
    return f"{md5(b''.join(sums)).hexdigest()}-{len(sums)}"


class Place(Protocol):
    """A place that a file is at, or may be; its errors are in words."""

    location: Location
    has_etags: bool
    """Whether a file's state says what bytes it has."""

    def look(self) -> FileState | None:
        """Return what is there; None where nothing is."""
        ...

    def part_bytes(self, state: FileState) -> int | None:
        """Return the size of the parts that the file was written in; None where it was not."""
        ...

    def opened(self) -> contextlib.AbstractContextManager[None]:
        """Keep to one file while it is read."""
        ...

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the file that was opened."""
        ...

    def receive(self, source: "Place", state: FileState, overwrite: bool, told: Told) -> None:
        """Copy the file of another place, that is opened, to here, and compare."""
        ...

    def beside(self, start: str) -> list[str]:
        """Return the names of files in the same directory that begin with ``start``."""
        ...

    def remove(self) -> None:
        """Remove the file, if there is one."""
        ...
