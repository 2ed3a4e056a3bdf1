"""A file on a local disk that is copied to or from.

It is written beside its place, read again, and renamed when it is whole.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import override

from .errors import RatZarrError, StoreError, StorePermissionError
from .filepieces import FileState, Part, Place, Told, etag, md5, split, sums_of
from .location import Location
from .partialfile import name_it, partial_file

__all__ = ["DiskFile"]


class DiskFile(Place):
    """A file on a disk, or the place for one."""

    has_etags = False

    def __init__(self, location: Location) -> None:
        self.location = location
        self._path = Path(location.path)
        self._file = -1

    @override
    def look(self) -> FileState | None:
        with self._in_words():
            try:
                found = os.lstat(self._path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        size = found.st_size if stat.S_ISREG(found.st_mode) else -1
        return FileState(size, f"{found.st_ino}-{found.st_mtime_ns}", found.st_mtime)

    @override
    def part_bytes(self, state: FileState) -> None:
        return None

    @override
    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        with self._in_words():
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
            file = os.open(self._path, flags)
        # Again within itself, where a copy is compared that was read from here.
        before, self._file = self._file, file
        try:
            yield
        finally:
            self._file = before
            os.close(file)

    @override
    def read(self, start: int, length: int) -> bytes:
        with self._in_words():
            return _read_at(self._file, start, length)

    @override
    def receive(self, source: Place, state: FileState, overwrite: bool, told: Told) -> None:
        with self._in_words():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with partial_file(self._path) as (file, hidden):
                self._fill(file, source, state, told)
                os.utime(file, (state.modified, state.modified))
                name_it(hidden, self._path, overwrite=overwrite)

    def _fill(self, file: int, source: Place, state: FileState, told: Told) -> None:
        parts = split(state.size, source.part_bytes(state))

        def write(part: Part, data: bytes) -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(file, data[done:], part.start + done)

        sums = sums_of(parts, source.read, told, write)
        if sums_of(parts, partial(_read_at, file), lambda size: None) != sums:
            raise StoreError(f"{self.location} holds other bytes than were written to it")
        if not source.has_etags or state.state == etag(sums, "-" in state.state):
            return
        # No MD5 of these parts: of all bytes; or none at all, and then they are read once more.
        if state.state != _whole(file, parts) and (
            sums_of(parts, source.read, lambda size: None) != sums
        ):
            raise StoreError(f"{source.location} was read twice, with different bytes")

    @override
    def beside(self, start: str) -> list[str]:
        with self._in_words(), os.scandir(self._path.parent) as entries:
            return [one.name for one in entries if one.name.startswith(start) and not one.is_dir()]

    @override
    def remove(self) -> None:
        with self._in_words():
            self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (RatZarrError, FileExistsError):
            raise
        except PermissionError as error:
            raise StorePermissionError(f"{self.location}: no permission: {error}") from error
        except OSError as error:
            raise StoreError(f"{self.location}: {error}") from error


def _read_at(file: int, start: int, length: int) -> bytes:
    pieces: list[bytes] = []
    while length:
        piece = os.pread(file, length, start)
        if not piece:
            break
        pieces.append(piece)
        start, length = start + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _whole(file: int, parts: Sequence[Part]) -> str:
    whole = md5(b"")
    for part in parts:
        whole.update(_read_at(file, part.start, part.length))
    return str(whole.hexdigest())
