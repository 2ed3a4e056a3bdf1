"""Single files on local disks and S3: metadata, copies, removal.

A file is copied in parts, a few at a time, so memory depends on the size of a part, not of the
file. The copy gets its name when it is complete.

>>> split(5, 2)
[Part(number=1, start=0, length=2), Part(number=2, start=2, length=2), Part(number=3, start=4, length=1)]
"""

import base64
import contextlib
import datetime as dt
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ratzarr.concurrency import stream
from ratzarr.errors import ChangedError, RatZarrError, ReadOnlyError, StoreError
from ratzarr.stores.base import Location
from ratzarr.stores.local_files import errors_in_words, read_at
from ratzarr.stores.s3 import S3Objects
from ratzarr.stores.s3_errors import ConditionRefused, MissingObject, answer_to
from ratzarr.stores.temp_output import temporary_path

__all__ = [
    "FileState",
    "Part",
    "copy_file",
    "file_state",
    "name_file",
    "names_beside",
    "remove_file",
    "same_file",
    "split",
]

PART_BYTES = 16 * 2**20
"""Size of a part. S3 accepts no parts below 5 MiB, except the last."""
MAX_PARTS = 10_000
"""Largest number of parts in an S3 upload."""
PARTS_IN_FLIGHT = 4
SERVER_BYTES = 5 * 10**9
"""Largest file that an S3 server copies in one request."""
SERVER_PART_BYTES = 512 * 2**20
"""Size of a part that a server copies."""


@dataclass(frozen=True, slots=True)
class FileState:
    """The state of a file."""

    size: int
    """In bytes; -1 if it is not a regular file, for example a symbolic link."""
    state: str
    """Changes whenever the file is written; on S3 the etag."""
    modified: float
    """Time of the last change, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file: its number, from 1, and its bytes."""

    number: int
    start: int
    length: int


def split(size: int, length: int) -> list[Part]:
    """Return the parts of a file of this size, all of equal length except the last.

    Parts are longer if the upload would otherwise have too many. An empty file has one empty
    part.
    """
    length = max(length, -(-size // MAX_PARTS), 1)
    return [
        Part(number, start, min(length, size - start))
        for number, start in enumerate(range(0, max(size, 1), length), 1)
    ]


def file_state(location: Location, options: Mapping[str, Any] | None = None) -> FileState | None:
    """Return the file at a location; None if it does not exist.

    Raises
    ------
    ReadOnlyError
        For a location that is neither local nor on S3.
    """
    return _open(location, options).look()


def names_beside(
    location: Location, start: str, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the names of files in a location's directory that begin with ``start``."""
    return _open(location, options).beside(start)


def name_file(file: Path, target: Path, *, overwrite: bool = False) -> None:
    """Give a finished local file its name in the same file system.

    Raises
    ------
    FileExistsError
        If the name is taken and may not be replaced.
    """
    if overwrite:
        file.replace(target)
        return
    try:
        # Only a hard link names a finished file atomically if the name is free.
        target.hardlink_to(file)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(f"{target} already exists") from None
        file.rename(target)
    else:
        file.unlink()


def remove_file(location: Location, options: Mapping[str, Any] | None = None) -> None:
    """Remove a file; do nothing if it does not exist."""
    _open(location, options).remove()


def same_file(one: Location, other: Location, options: Mapping[str, Any] | None = None) -> bool:
    """Return True if two locations hold the same bytes."""
    first, second = _open(one, options), _open(other, options)
    a, b = first.look(), second.look()
    if a is None or b is None or a.size != b.size or a.size < 0:
        return False
    if isinstance(first, _Bucket) and isinstance(second, _Bucket) and a.state == b.state:
        return True
    parts = split(a.size, PART_BYTES)
    with first.opened(a) as here, second.opened(b) as there:
        return _digests(here, parts) == _digests(there, parts)


def copy_file(
    source: Location,
    target: Location,
    *,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
    told: Callable[[int], None] | None = None,
    part_bytes: int = PART_BYTES,
) -> None:
    """Copy a file.

    The copy is compared with the source. On a disk it is read again. On S3 its etag must be the
    expected MD5; otherwise it is read again. Between locations on S3 that one client can reach,
    the server copies.

    Parameters
    ----------
    source, target : Location
        Local, or on S3.
    overwrite : bool
        Replace an existing target.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``.
    told : callable, optional
        Called with the size of each finished part. It may raise to stop the copy.
    part_bytes : int
        Size of a part.

    Raises
    ------
    FileExistsError
        If the target exists and may not be replaced.
    StoreError
        If the source is not a file or cannot be read, or the copy differs from it.
    ChangedError
        If the source has changed during the copy.
    """
    told = told or (lambda size: None)
    here, there = _open(source, options), _open(target, options)
    before = here.look()
    if before is None or before.size < 0:
        what = "does not exist" if before is None else "is a symbolic link or special file"
        raise StoreError(f"{source} {what}")
    if not overwrite and there.look() is not None:
        raise FileExistsError(f"{target} already exists")
    if isinstance(here, _Bucket) and isinstance(there, _Bucket) and there.reaches(here):
        there.copy_from(here, before, overwrite, told)
    else:
        parts = split(before.size, part_bytes)
        with here.opened(before) as read:
            there.receive(_Incoming(read, before, parts, told), overwrite)
    if here.look() != before:
        there.remove()
        raise ChangedError(f"{source} was changed while it was copied: copy it again")


type _Read = Callable[[int, int], bytes]
"""Returns bytes of an open file, by offset and length."""


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A file to be written."""

    read: _Read
    state: FileState
    parts: Sequence[Part]
    told: Callable[[int], None]


def _digests(
    read: _Read,
    parts: Sequence[Part],
    write: Callable[[Part, bytes], None] = lambda part, data: None,
    told: Callable[[int], None] = lambda size: None,
) -> list[bytes]:
    """Read the parts, write each, and return their MD5s."""

    def one(part: Part) -> tuple[int, bytes]:
        data = read(part.start, part.length)
        if len(data) != part.length:
            raise ChangedError(f"a file became shorter while it was read, at byte {part.start}")
        write(part, data)
        return len(data), _md5(data)

    digests = []
    for size, digest in stream((partial(one, part) for part in parts), PARTS_IN_FLIGHT):
        told(size)
        digests.append(digest)
    return digests


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


class _Disk:
    """A file on a disk, or the location of a new one."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._path = Path(location.path)

    def look(self) -> FileState | None:
        with self._in_words():
            try:
                found = os.lstat(self._path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        size = found.st_size if stat.S_ISREG(found.st_mode) else -1
        return FileState(size, f"{found.st_ino}-{found.st_mtime_ns}", found.st_mtime)

    @contextlib.contextmanager
    def opened(self, state: FileState) -> Iterator[_Read]:
        with self._in_words():
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
            file = os.open(self._path, flags)
        try:
            yield partial(self._read, file)
        finally:
            os.close(file)

    def _read(self, file: int, start: int, length: int) -> bytes:
        data = bytearray(length)
        with self._in_words():
            return bytes(memoryview(data)[: read_at(file, start, memoryview(data))])

    def receive(self, incoming: _Incoming, overwrite: bool) -> None:
        with self._in_words():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_path(self._path.parent) as hidden:
                file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                try:
                    self._fill(file, incoming)
                    os.utime(file, (incoming.state.modified, incoming.state.modified))
                finally:
                    os.close(file)
                name_file(hidden, self._path, overwrite=overwrite)

    def _fill(self, file: int, incoming: _Incoming) -> None:
        def write(part: Part, data: bytes) -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(file, data[done:], part.start + done)

        parts = incoming.parts
        digests = _digests(incoming.read, parts, write, incoming.told)
        if _digests(partial(self._read, file), parts) != digests:
            raise StoreError(f"{self._location} holds other bytes than were written to it")

    def beside(self, start: str) -> list[str]:
        with self._in_words(), os.scandir(self._path.parent) as entries:
            return [one.name for one in entries if one.name.startswith(start) and not one.is_dir()]

    def remove(self) -> None:
        with self._in_words():
            self._path.unlink(missing_ok=True)

    def _in_words(self) -> contextlib.AbstractContextManager[None]:
        return errors_in_words(self._location)


class _Bucket:
    """An object in a bucket, or the location of a new one."""

    def __init__(self, location: Location, options: Mapping[str, Any] | None) -> None:
        self._location = location
        self._objects = S3Objects(location, options)

    def _call(self, method: str, **request: Any) -> dict[str, Any]:
        return self._objects.request(method, Key=self._location.key, **request)

    def look(self) -> FileState | None:
        try:
            found = self._call("head_object")
        except MissingObject:
            return None
        when: dt.datetime = found["LastModified"]
        return FileState(int(found["ContentLength"]), found["ETag"].strip('"'), when.timestamp())

    @contextlib.contextmanager
    def opened(self, state: FileState) -> Iterator[_Read]:
        def read(start: int, length: int) -> bytes:
            try:
                # All parts must come from the same version of the object.
                return self._objects.read_range(start, length, IfMatch=state.state)
            except ConditionRefused as error:
                raise ChangedError(f"{self._location} was changed while it was read") from error

        yield lambda start, length: read(start, length) if length else b""

    def receive(self, incoming: _Incoming, overwrite: bool) -> None:
        free: dict[str, str] = {} if overwrite else {"IfNoneMatch": "*"}
        if len(incoming.parts) == 1:
            data = incoming.read(0, incoming.state.size)
            incoming.told(len(data))
            digests, expected = [_md5(data)], _md5(data).hex()
            with self._answer_may_be_lost(expected):
                self._put("put_object", data, **free)
        else:
            digests, expected = self._upload(incoming, free)
        now = self.look()
        if now is None or now.size != incoming.state.size:
            raise StoreError(f"{self._location} is not as long as the data written to it")
        if now.state != expected:
            with self.opened(now) as read:
                if _digests(read, incoming.parts) != digests:
                    raise StoreError(f"{self._location} holds other bytes than were written to it")

    def _put(self, method: str, data: bytes, **request: Any) -> str:
        # The server refuses data that has changed in transit.
        digest = base64.b64encode(_md5(data)).decode("ascii")
        return str(self._call(method, Body=data, ContentMD5=digest, **request)["ETag"]).strip('"')

    def _upload(self, incoming: _Incoming, free: Mapping[str, str]) -> tuple[list[bytes], str]:
        tags: dict[int, str] = {}
        with self._uploading() as upload:

            def write(part: Part, data: bytes) -> None:
                number = part.number
                tags[number] = self._put("upload_part", data, UploadId=upload, PartNumber=number)

            digests = _digests(incoming.read, incoming.parts, write, incoming.told)
            expected = f"{_md5(b''.join(digests)).hex()}-{len(digests)}"
            self._finish(upload, tags, free, expected)
        return digests, expected

    @contextlib.contextmanager
    def _uploading(self, **described: Any) -> Iterator[str]:
        upload = str(self._call("create_multipart_upload", **described)["UploadId"])
        try:
            yield upload
        except BaseException:
            # An unfinished upload is invisible but billed.
            with contextlib.suppress(RatZarrError):
                self._call("abort_multipart_upload", UploadId=upload)
            raise

    def _finish(
        self, upload: str, tags: Mapping[int, str], free: Mapping[str, str], expected: str
    ) -> None:
        if free and self.look() is not None:
            # Some servers ignore conditions on multipart uploads, so check just before the object
            # appears.
            raise FileExistsError(f"{self._location} already exists")
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        with self._answer_may_be_lost(expected):
            self._call(
                "complete_multipart_upload",
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **free,
            )

    @contextlib.contextmanager
    def _answer_may_be_lost(self, expected: str) -> Iterator[None]:
        """Continue if a refused write turns out to have succeeded earlier.

        If an answer was lost and the request repeated, the repetition is refused because of its
        own first attempt: the name exists, or the upload has ended.
        """
        try:
            yield
        except StoreError as error:
            refused = isinstance(error, ConditionRefused)
            if not refused and answer_to(error).code != "NoSuchUpload":
                raise
            found = self.look()
            if found is not None and found.state == expected:
                return
            if refused:
                raise FileExistsError(f"{self._location} already exists") from error
            raise

    def reaches(self, source: "_Bucket") -> bool:
        """Return True if the server can copy from there."""
        return self._objects.can_copy_from(source._objects)

    def copy_from(
        self, source: "_Bucket", state: FileState, overwrite: bool, told: Callable[[int], None]
    ) -> None:
        """Let the server copy."""
        place = {"Bucket": source._location.bucket, "Key": source._location.key}
        condition = {"CopySource": place, "CopySourceIfMatch": state.state}
        if state.size <= SERVER_BYTES:
            self._call("copy_object", **condition)
            told(state.size)
        else:
            self._copy_parts(source, state, condition, overwrite, told)
        now = self.look()
        if now is None or now.size != state.size:
            raise StoreError(f"{self._location} is not as long as its source")

    def _copy_parts(
        self,
        source: "_Bucket",
        state: FileState,
        condition: Mapping[str, Any],
        overwrite: bool,
        told: Callable[[int], None],
    ) -> None:
        head = source._call("head_object")
        kept = ("ContentType", "ContentEncoding", "CacheControl", "Metadata")

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
        with self._uploading(**{name: head[name] for name in kept if head.get(name)}) as upload:
            parts = split(state.size, SERVER_PART_BYTES)
            for part, tag in stream(partial(copy, upload, part) for part in parts):
                told(part.length)
                tags[part.number] = tag
            self._finish(upload, tags, {} if overwrite else {"IfNoneMatch": "*"}, "")

    def beside(self, start: str) -> list[str]:
        folder = self._location.key.rpartition("/")[0]
        folder += "/" if folder else ""
        return [
            str(one["Key"])[len(folder) :]
            for page in self._objects.pages(Prefix=folder + start, Delimiter="/")
            for one in page.get("Contents", [])
        ]

    def remove(self) -> None:
        self._call("delete_object")


def _open(location: Location, options: Mapping[str, Any] | None) -> _Disk | _Bucket:
    if location.kind == "local":
        return _Disk(location)
    if location.kind == "s3":
        return _Bucket(location, options)
    raise ReadOnlyError(f"{location}: files are copied between local disk and S3 only")
