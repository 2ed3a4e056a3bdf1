"""Copies of single files between local disks and S3.

A file is copied in pieces, a few at a time, so memory depends on the size of a piece and not of the
file. The copy is verified: on a disk by reading it again, on S3 by its etag, which is the MD5 of the
bytes or of the parts' MD5s. Where a server computes etags differently, the object is read again.

>>> split(3, 2)
[Part(number=1, start=0, length=2), Part(number=2, start=2, length=1)]
"""

import base64
import contextlib
import datetime as dt
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, override

from ratzarr.concurrency import stream
from ratzarr.errors import (
    ChangedError,
    RatZarrError,
    ReadOnlyError,
    StoreError,
    StorePermissionError,
)
from ratzarr.stores.base import Location
from ratzarr.stores.local_files import name_it, partial_file
from ratzarr.stores.s3 import WRITES, S3Objects
from ratzarr.stores.s3_errors import ConditionRefused, MissingObject, error_code

__all__ = [
    "BucketFile",
    "DiskFile",
    "FileState",
    "Part",
    "Place",
    "Told",
    "compare",
    "copy_file",
    "etag",
    "file_state",
    "is_one",
    "md5",
    "names_beside",
    "remove_file",
    "same_file",
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


SERVER_BYTES = 5 * 10**9
"""Most that an S3 server copies in one request."""
SERVER_PART_BYTES = 512 * 2**20
"""Size of a piece that never passes through here."""


class BucketFile(Place):
    """An object of a bucket, or the place for one."""

    has_etags = True

    def __init__(self, location: Location, options: Mapping[str, Any] | None) -> None:
        self.location = location
        self._own = {WRITES: secrets.token_hex(5)}
        """Metadata of what is written here: it says that it was us."""
        self._objects = S3Objects(location, options)
        self._condition: dict[str, str] = {}

    def _call(self, method: str, **request: Any) -> dict[str, Any]:
        return self._objects.request(method, Key=self.location.key, **request)

    def _head(self, **request: Any) -> dict[str, Any] | None:
        try:
            return self._call("head_object", **request)
        except MissingObject:
            return None

    @override
    def look(self) -> FileState | None:
        found = self._head()
        if found is None:
            return None
        when: dt.datetime = found["LastModified"]
        return FileState(int(found["ContentLength"]), found["ETag"].strip('"'), when.timestamp())

    @override
    def part_bytes(self, state: FileState) -> int | None:
        count = state.state.partition("-")[2]
        if not count.isdigit():
            return None
        try:
            first = self._head(PartNumber=1)
        except StoreError:
            # Not every server knows of parts once they are put together.
            return None
        size = 0 if first is None else int(first["ContentLength"])
        return size if size and -(-state.size // size) == int(count) else None

    @override
    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        state = self.look()
        # Every piece is to be of the same object.
        before, self._condition = (
            self._condition,
            {} if state is None else {"IfMatch": state.state},
        )
        try:
            yield
        finally:
            self._condition = before

    @override
    def read(self, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        try:
            return self._objects.read_range(start, length, **self._condition)
        except ConditionRefused as error:
            raise ChangedError(f"{self.location} was changed while it was read") from error

    @override
    def receive(self, source: Place, state: FileState, overwrite: bool, told: Told) -> None:
        free: dict[str, str] = {} if overwrite else {"IfNoneMatch": "*"}
        try:
            if isinstance(source, BucketFile) and self._objects.can_copy_from(source._objects):
                found, expected = self._copied(source, state, overwrite, told), state.state
            elif is_one(state.size):
                data = source.read(0, state.size)
                told(len(data))
                expected = md5(data).hexdigest()
                write = partial(self._put, "put_object", data, Metadata=self._own, **free)
                found = self._done(write)
            else:
                found, expected = self._upload(source, state, free, told)
        except ConditionRefused as error:
            raise FileExistsError(f"{self.location} is there already") from error
        now = self.look()
        if now is None or now.size != state.size:
            raise StoreError(f"{self.location} is not as long as what was written to it")
        if found != expected and not compare(source, self, state.size, lambda size: None):
            raise StoreError(f"{self.location} holds other bytes than were written to it")

    def _put(self, method: str, data: bytes, **request: Any) -> str:
        # The server refuses what has not arrived as it was sent.
        digest = base64.b64encode(md5(data).digest()).decode("ascii")
        answer = self._call(method, Body=data, ContentMD5=digest, **request)
        return str(answer["ETag"]).strip('"')

    def _done(self, write: Callable[[], str]) -> str:
        """Make an object appear, and return its etag.

        Whoever repeats a request whose answer was lost is refused for what he himself has done
        (:mod:`ratzarr.stores.s3`): there is something there already, or no upload any more.
        """
        try:
            return write()
        except StoreError as error:
            gone = error_code(error) == "NoSuchUpload"
            found = self._head() if gone or isinstance(error, ConditionRefused) else None
            if found is None or not self._own.items() <= found["Metadata"].items():
                raise
            return str(found["ETag"]).strip('"')

    def _upload(
        self, source: Place, state: FileState, free: Mapping[str, str], told: Told
    ) -> tuple[str, str]:
        tags: dict[int, str] = {}

        def write(part: Part, data: bytes) -> None:
            tags[part.number] = self._put(
                "upload_part", data, UploadId=upload, PartNumber=part.number
            )

        # Some servers ignore conditions on uploads in parts: at the beginning nothing is sent in
        # vain, and at the end the time is short in which somebody's could be replaced.
        self._check_free(free)
        with self._uploading(Metadata=self._own) as upload:
            sums = sums_of(split(state.size), source.read, told, write)
            self._check_free(free)
            return self._finish(upload, tags, free), etag(sums, parted=True)

    def _check_free(self, wanted: object) -> None:
        if wanted and self.look() is not None:
            raise FileExistsError(f"{self.location} is there already")

    @contextlib.contextmanager
    def _uploading(self, **described: Any) -> Iterator[str]:
        upload = str(self._call("create_multipart_upload", **described)["UploadId"])
        try:
            yield upload
        except BaseException:
            # Parts that nobody finishes are not seen, and are paid for.
            with contextlib.suppress(RatZarrError):
                self._call("abort_multipart_upload", UploadId=upload)
            raise

    def _finish(self, upload: str, tags: Mapping[int, str], free: Mapping[str, str]) -> str:
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        finish = partial(
            self._call,
            "complete_multipart_upload",
            UploadId=upload,
            MultipartUpload={"Parts": parts},
            **free,
        )
        return self._done(lambda: str(finish()["ETag"]).strip('"'))

    def _copied(self, source: "BucketFile", state: FileState, overwrite: bool, told: Told) -> str:
        """Let the server copy; in the parts that the source has, so that the etag is the same."""
        self._check_free(not overwrite)
        of = {"Bucket": source.location.bucket, "Key": source.location.key}
        condition = {"CopySource": of, "CopySourceIfMatch": state.state}
        length = source.part_bytes(state)
        if length is None and state.size <= SERVER_BYTES:
            answer = self._call("copy_object", **condition)
            told(state.size)
            return str(answer["CopyObjectResult"]["ETag"]).strip('"')
        head = source._head() or {}
        kept = ("ContentType", "ContentEncoding", "CacheControl")
        described = {name: head[name] for name in kept if head.get(name)}
        described["Metadata"] = {**head.get("Metadata", {}), **self._own}

        def copy(upload: str, part: Part) -> tuple[Part, str]:
            answer = self._call(
                "upload_part_copy",
                UploadId=upload,
                PartNumber=part.number,
                CopySourceRange=f"bytes={part.start}-{part.start + part.length - 1}",
                **condition,
            )
            return part, str(answer["CopyPartResult"]["ETag"]).strip('"')

        tags: dict[int, str] = {}
        with self._uploading(**described) as upload:
            parts = split(state.size, length or SERVER_PART_BYTES)
            for part, tag in stream(partial(copy, upload, part) for part in parts):
                told(part.length)
                tags[part.number] = tag
            self._check_free(not overwrite)
            return self._finish(upload, tags, {})

    @override
    def beside(self, start: str) -> list[str]:
        folder = self.location.key.rpartition("/")[0]
        folder += "/" if folder else ""
        return [
            str(one["Key"])[len(folder) :]
            for page in self._objects.pages(Prefix=folder + start, Delimiter="/")
            for one in page.get("Contents", [])
        ]

    @override
    def remove(self) -> None:
        self._call("delete_object")


def file_state(location: Location, options: Mapping[str, Any] | None = None) -> FileState | None:
    """Return what is at a place; None where nothing is.

    Raises
    ------
    ReadOnlyError
        For a place that is neither local nor on S3.
    """
    return _open(location, options).look()


def names_beside(
    location: Location, start: str, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the names of files in a place's directory that begin with ``start``."""
    return _open(location, options).beside(start)


def remove_file(location: Location, options: Mapping[str, Any] | None = None) -> None:
    """Remove a file; do nothing where nothing is."""
    _open(location, options).remove()


def same_file(one: Location, other: Location, options: Mapping[str, Any] | None = None) -> bool:
    """Return whether two places hold the same bytes."""
    first, second = _open(one, options), _open(other, options)
    found = first.look(), second.look()
    if found[0] is None or found[1] is None or found[0].size != found[1].size:
        return False
    if found[0].size < 0:
        return False
    both = first.has_etags and second.has_etags
    if both and found[0].state == found[1].state:
        return True
    return compare(first, second, found[0].size, lambda size: None)


def copy_file(
    source: Location,
    target: Location,
    *,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
    told: Told | None = None,
) -> None:
    """Copy a file.

    Parameters
    ----------
    source, target : Location
        Local, or on S3.
    overwrite : bool
        Replace what is at the target.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``.
    told : callable, optional
        Told the bytes of each piece that is done; it may raise to stop the work.

    Raises
    ------
    FileExistsError
        Where something is at the target, and is not to be replaced.
    StoreError
        Where the source is no file, can't be read, or the copy is not equal to it.
    ChangedError
        Where the source was changed meanwhile.
    """
    told = told or (lambda size: None)
    here, there = _open(source, options), _open(target, options)
    before = here.look()
    if before is None or before.size < 0:
        what = "is not there" if before is None else "is a symbolic link, or no file"
        raise StoreError(f"{source} {what}")
    with here.opened():
        there.receive(here, before, overwrite, told)
        if here.look() != before:
            there.remove()
            raise ChangedError(f"{source} was changed while it was copied: copy it again")


def _open(location: Location, options: Mapping[str, Any] | None) -> Place:
    if location.kind == "local":
        return DiskFile(location)
    if location.kind == "s3":
        # Loading an S3 client takes longer than copying most files on a disk.

        return BucketFile(location, options)
    raise ReadOnlyError(f"{location}: files are copied between local disk and S3 only")
