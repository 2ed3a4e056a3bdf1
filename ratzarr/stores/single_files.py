"""Single files on local disks and S3: metadata, copies, removal.

A file is copied in parts, a few at a time, so memory depends on the size of a part, not of the
file. The copy gets its name when it is complete. ``docs/decisions/0004-file-copies.md`` says why s3fs
does not copy.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ratzarr.concurrency import stream
from ratzarr.errors import ChangedError, RatZarrError, ReadOnlyError, StoreError
from ratzarr.stores.base import Location
from ratzarr.stores.local_files import errors_in_words
from ratzarr.stores.s3 import S3Objects
from ratzarr.stores.s3_errors import ConditionRefused, MissingObject, answer_to
from ratzarr.stores.temp_output import name_file, temporary_path

__all__ = [
    "FileState",
    "copy_file",
    "file_state",
    "names_beside",
    "remove_file",
    "same_file",
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
METADATA = ("CacheControl", "ContentEncoding", "ContentType", "Metadata")
"""Properties of an object that its copy in parts would lose."""


@dataclass(frozen=True, slots=True)
class FileState:
    """The state of a file."""

    size: int
    """In bytes; -1 if it is not a regular file, for example a symbolic link."""
    state: str
    """Changes whenever the file is written; on S3 the etag."""
    modified: float
    """Time of the last change, in seconds since 1970."""


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
    """Return the names of files beside a location on S3 that begin with ``start``."""
    place = Location(location.kind, f"{location.path.rpartition('/')[0]}/{start}")
    found = S3Objects(place, options).list_beside()
    return [name for name, is_folder in found if not is_folder]


def remove_file(location: Location, options: Mapping[str, Any] | None = None) -> None:
    """Remove a file; do nothing if it does not exist."""
    _open(location, options).remove()


def same_file(one: Location, other: Location, options: Mapping[str, Any] | None = None) -> bool:
    """Return True if two locations hold the same bytes."""
    # The second is not read if its etag is that of the first one's bytes.
    places = sorted((one, other), key=lambda place: place.kind == "s3")
    first, second = (_open(place, options) for place in places)
    a, b = first.look(), second.look()
    if a is None or b is None or a.size != b.size or a.size < 0:
        return False
    if isinstance(first, _Bucket) and a.state == b.state:
        return True
    length = _length(a.size, PART_BYTES)
    return _holds(second, b, _etag(first, a, length), length)


def copy_file(
    source: Location,
    target: Location,
    *,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
    report: Callable[[int], None] | None = None,
    part_bytes: int = PART_BYTES,
    server_bytes: int = SERVER_BYTES,
) -> None:
    """Copy a file.

    The copy is compared with the source. On a disk it is read again. On S3 its etag must be the
    expected one; otherwise it is read again. Between locations on S3 that one client can reach,
    the server copies.

    Parameters
    ----------
    source, target : Location
        Local, or on S3.
    overwrite : bool
        Replace an existing target.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``.
    report : callable, optional
        Called with the size of each finished part. It may raise to stop the copy.
    part_bytes : int
        Size of a part.
    server_bytes : int
        Size of a file above which a server copies it in parts.

    Raises
    ------
    FileExistsError
        If the target exists and may not be replaced.
    StoreError
        If the source is not a file or cannot be read, or the copy differs from it.
    ChangedError
        If the source has changed during the copy.
    """
    report = report or (lambda size: None)
    here, there = _open(source, options), _open(target, options)
    before = here.look()
    if before is None or before.size < 0:
        what = "does not exist" if before is None else "is a symbolic link or special file"
        raise StoreError(f"{source} {what}")
    if not overwrite and there.look() is not None:
        raise FileExistsError(f"{target} already exists")
    length = _length(before.size, part_bytes)
    try:
        if isinstance(here, _Bucket) and isinstance(there, _Bucket) and there.reaches(here):
            there.copy_from(here, before, overwrite, report, server_bytes)
        else:
            read = partial(_etag, here, before, length, report=report)
            there.receive(read, before, overwrite, length)
    except StoreError as error:
        # If an answer was lost, the repeated request is refused because of its own first attempt:
        # the name exists, or the upload has ended.
        refused = isinstance(error, ConditionRefused)
        if not refused and answer_to(error).code != "NoSuchUpload":
            raise
        if not same_file(source, target, options):
            if refused:
                raise FileExistsError(f"{target} already exists") from error
            raise
    if here.look() != before:
        there.remove()
        raise ChangedError(f"{source} was changed while it was copied: copy it again")


type _Write = Callable[[int, bytes], None]
"""Takes the offset of a part and its bytes."""
type _Send = Callable[..., None]
"""Sends a part of an upload: the method, the number from 1, and what else the request has."""


def _length(size: int, least: int) -> int:
    """Return the length of a file's parts: longer if an upload would have too many of them."""
    return max(least, -(-size // MAX_PARTS))


def _etag(
    file: "_Disk | _Bucket",
    state: FileState,
    length: int,
    write: _Write = lambda start, data: None,
    report: Callable[[int], None] = lambda size: None,
) -> str:
    """Read a file in parts, write each, and return the etag that S3 gives to such an upload."""

    def copy(start: int) -> tuple[int, bytes]:
        expected = min(length, state.size - start)
        data = file.read(start, expected, state) if expected else b""
        if len(data) != expected:
            raise ChangedError(f"{file.location} became shorter while it was read")
        write(start, data)
        return expected, _md5(data)

    digests = []
    starts = range(0, max(state.size, 1), length)
    for size, digest in stream((partial(copy, start) for start in starts), PARTS_IN_FLIGHT):
        report(size)
        digests.append(digest)
    if len(digests) == 1:
        return digests[0].hex()
    return f"{_md5(b''.join(digests)).hex()}-{len(digests)}"


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _holds(file: "_Disk | _Bucket", state: FileState, etag: str, length: int) -> bool:
    """Return True if a file holds the bytes that have this etag in parts of this length."""
    return state.state == etag or _etag(file, state, length) == etag


def _check(copy: "_Disk | _Bucket", size: int, etag: str, length: int) -> None:
    now = copy.look()
    if now is None or now.size != size or not _holds(copy, now, etag, length):
        raise StoreError(f"{copy.location} holds other bytes than were written to it")


class _Disk:
    """A file on a disk, or the location of a new one."""

    def __init__(self, location: Location, path: Path | None = None) -> None:
        self.location = location
        self._path = path or Path(location.path)

    def look(self) -> FileState | None:
        with errors_in_words(self.location):
            try:
                found = os.lstat(self._path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        size = found.st_size if stat.S_ISREG(found.st_mode) else -1
        return FileState(size, f"{found.st_ino}-{found.st_mtime_ns}", found.st_mtime)

    def read(self, start: int, length: int, state: FileState) -> bytes:
        with errors_in_words(self.location), open(self._path, "rb", opener=_open_no_link) as file:
            file.seek(start)
            return file.read(length)

    def receive(
        self, read: Callable[[_Write], str], state: FileState, overwrite: bool, length: int
    ) -> None:
        with errors_in_words(self.location):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_path(self._path.parent) as hidden:
                hidden.touch(exist_ok=False)

                def write(start: int, data: bytes) -> None:
                    with hidden.open("r+b") as file:
                        file.seek(start)
                        file.write(data)

                etag = read(write)
                os.utime(hidden, (state.modified, state.modified))
                _check(_Disk(self.location, hidden), state.size, etag, length)
                name_file(hidden, self._path, overwrite=overwrite)

    def remove(self) -> None:
        with errors_in_words(self.location):
            self._path.unlink(missing_ok=True)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


class _Bucket:
    """An object in a bucket, or the location of a new one."""

    def __init__(self, location: Location, options: Mapping[str, Any] | None) -> None:
        self.location = location
        self._objects = S3Objects(location, options)

    def _call(self, method: str, **request: Any) -> dict[str, Any]:
        return self._objects.request(method, Key=self.location.key, **request)

    def look(self) -> FileState | None:
        try:
            found = self._call("head_object")
        except MissingObject:
            return None
        when: dt.datetime = found["LastModified"]
        return FileState(int(found["ContentLength"]), _tag(found), when.timestamp())

    @contextlib.contextmanager
    def _same_version(self) -> Iterator[None]:
        try:
            yield
        except ConditionRefused as error:
            raise ChangedError(f"{self.location} was changed while it was read") from error

    def read(self, start: int, length: int, state: FileState) -> bytes:
        with self._same_version():
            return self._objects.read_range(start, length, IfMatch=state.state)

    def receive(
        self, read: Callable[[_Write], str], state: FileState, overwrite: bool, length: int
    ) -> None:
        if state.size > length:

            def fill(send: _Send) -> str:
                return read(lambda at, data: send("upload_part", at // length + 1, **_body(data)))

            etag, _ = self._upload(fill, overwrite)
        else:
            parts: list[bytes] = []
            etag = read(lambda at, data: parts.append(data))
            self._call("put_object", **_body(parts[0]), **_condition(overwrite))
        _check(self, state.size, etag, length)

    def _upload[T](
        self, fill: Callable[[_Send], T], overwrite: bool, **described: Any
    ) -> tuple[T, str]:
        """Make an object of parts, which ``fill`` sends; return its result and the etag."""
        upload = {"UploadId": self._call("create_multipart_upload", **described)["UploadId"]}
        tags: dict[int, str] = {}

        def send(method: str, number: int, **request: Any) -> None:
            answer = self._call(method, PartNumber=number, **upload, **request)
            tags[number] = _tag(answer.get("CopyPartResult", answer))

        try:
            result = fill(send)
            if not overwrite and self.look() is not None:
                # Some servers ignore conditions on multipart uploads, so check just before the
                # object appears.
                raise FileExistsError(f"{self.location} already exists")
            parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
            request = {"MultipartUpload": {"Parts": parts}, **upload, **_condition(overwrite)}
            return result, _tag(self._call("complete_multipart_upload", **request))
        except BaseException:
            # An unfinished upload is invisible but billed.
            with contextlib.suppress(RatZarrError):
                self._call("abort_multipart_upload", **upload)
            raise

    def reaches(self, source: "_Bucket") -> bool:
        """Return True if the server can copy from there."""
        return self._objects.can_copy_from(source._objects)

    def copy_from(
        self,
        source: "_Bucket",
        state: FileState,
        overwrite: bool,
        report: Callable[[int], None],
        most: int,
    ) -> None:
        """Let the server copy."""
        place = {"Bucket": source.location.bucket, "Key": source.location.key}
        request = {"CopySource": place, "CopySourceIfMatch": state.state}
        length = _length(state.size, min(most, SERVER_PART_BYTES))

        def copy(send: _Send, start: int) -> int:
            size = min(length, state.size - start)
            part = f"bytes={start}-{start + size - 1}"
            with source._same_version():
                send("upload_part_copy", start // length + 1, CopySourceRange=part, **request)
            return size

        def fill(send: _Send) -> None:
            starts = range(0, state.size, length)
            for size in stream(partial(copy, send, start) for start in starts):
                report(size)

        if state.size <= most:
            with source._same_version():
                tag = _tag(self._call("copy_object", **request)["CopyObjectResult"])
            report(state.size)
        else:
            head = source._call("head_object")
            kept = {name: head[name] for name in METADATA if head.get(name)}
            _, tag = self._upload(fill, overwrite, **kept)
        now = self.look()
        if now is None or now.size != state.size or now.state not in (tag, state.state):
            # Others have written there, or the server's etags are unreliable.
            _check(self, state.size, _etag(source, state, PART_BYTES), PART_BYTES)

    def remove(self) -> None:
        self._call("delete_object")


def _tag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _body(data: bytes) -> dict[str, Any]:
    # The server refuses data that has changed in transit.
    return {"Body": data, "ContentMD5": base64.b64encode(_md5(data)).decode("ascii")}


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {"IfNoneMatch": "*"}


def _open(location: Location, options: Mapping[str, Any] | None) -> _Disk | _Bucket:
    if location.kind == "local":
        return _Disk(location)
    if location.kind == "s3":
        return _Bucket(location, options)
    raise ReadOnlyError(f"{location}: files are copied between local disk and S3 only")
