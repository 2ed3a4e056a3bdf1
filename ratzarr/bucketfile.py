"""An object on S3 that is copied to or from, whatever it is: uploaded in parts where it is large.

S3 shows an object when its upload is finished. What has arrived is told by its etag;
where the server makes those otherwise, the object is read again. Between two places on
one server the server copies, and nothing passes through here.
"""

import base64
import contextlib
import datetime as dt
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, override

from .errors import ChangedError, RatZarrError, StoreError
from .filepieces import FileState, Part, Place, Told, compare, etag, is_one, md5, split, sums_of
from .location import Location
from .parallel import stream
from .s3errors import ConditionRefused, MissingObject, error_code
from .s3objects import WRITES, S3Objects

__all__ = ["BucketFile"]

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
        # Another client that tables may be reached by has no part in files.
        options = {name: value for name, value in (options or {}).items() if name != "client"}
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
        (:mod:`ratzarr.s3objects`): there is something there already, or no upload any more.
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
