"""A store on S3 or a server that speaks its protocol, through s3fs.

Each method makes one request, or one per 1000 objects for listing and deleting. Conditions
(``If-None-Match: *`` to create, ``If-Match`` to replace) are sent with single PUTs, because some
servers ignore them on multipart uploads. Etags are sent without their quotes; Ceph's gateway does
not match them otherwise.

A refused condition is not conclusive. After a lost answer, a request may be repeated: by this
module, by the HTTP client if a connection breaks, or by a proxy. The repeated request is refused
because of its own first attempt. Therefore each conditional write stores its name in the object's
metadata, before the names that it found there. A refused writer looks for its own name: if it is
there, the write was carried out, even if others have written since.
"""

import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, override

import fsspec.asyn
from botocore.exceptions import ClientError

from ratzarr.concurrency import Attempts, request_slot
from ratzarr.errors import ConflictError, DamagedError, RatZarrError, StoreError
from ratzarr.stores.aws_config import current
from ratzarr.stores.base import ChunkOwner, Entry, Found, Location, Objects, Take, Version
from ratzarr.stores.s3_client import Retries, client_for, passes
from ratzarr.stores.s3_errors import (
    ConditionRefused,
    MissingObject,
    answer_to,
    in_words,
    no_bucket,
)

__all__ = ["S3Objects"]

OWNER_TAG = "ratzarr"
"""User metadata with the tag of an object's owner."""
WRITES = "ratzarr-writes"
"""User metadata with the names of the last conditional writes, latest first."""
WRITES_KEPT = 64
"""Number of names kept, so this many other writes may happen before the check after a lost answer.
All metadata of an object is limited to 2 KB."""


class S3Objects(Objects):
    """The objects of a store on S3.

    Parameters
    ----------
    location : Location
        Bucket and key of the store's root.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``, which precede the environment. Two are ours:
        ``first_answer`` in seconds (:mod:`ratzarr.stores.s3_client`), and ``retry``
        (:class:`~ratzarr.stores.s3_client.Retries`).
    """

    looks_before_writing = False

    def __init__(self, location: Location, options: Mapping[str, Any] | None = None) -> None:
        self.location = location
        options = dict(options or {})
        self._retries = Retries.of(options.pop("retry", {}))
        self.patience = self._retries.patience
        self._settings = current(location.bucket, options)
        self._options = options
        self._connect()

    def _connect(self) -> None:
        self._client = client_for(self._settings, self._options, self._retries)
        self._process = os.getpid()

    @property
    def _fs(self) -> Any:
        """The client of this process: a parent's would wait for a thread that does not exist."""
        if self._process != os.getpid():
            self._connect()
        return self._client

    def _key(self, key: str) -> str:
        return f"{self.location.key}/{key}" if key else self.location.key

    @override
    def read(
        self, key: str, limit: int | None = None, *, state: str = "", take: Take | None = None
    ) -> Found | None:
        # Not by If-None-Match: its answer has no metadata, and a chunk of another column may have
        # the same bytes.
        if state:
            try:
                answer = self._call(key, "head_object", Key=self._key(key))
            except MissingObject:
                return None
            if _state(answer) == state:
                return Found(b"", owner_tag=_owner_tag(answer), state=state, is_read=False)

        async def fetch() -> Found:
            answer = await self._ask("get_object", Key=self._key(key))
            async with answer["Body"] as body:
                size = answer["ContentLength"]
                if limit is not None and size > limit:
                    raise DamagedError(
                        f"{self.location}/{key} has {size} bytes: at most {limit} were expected"
                    )
                data = await body.read()
                return Found(data, _version(answer), _owner_tag(answer), _state(answer))

        try:
            return self._do(key, fetch)
        except MissingObject:
            return None
        except StoreError as error:
            if answer_to(error).status == 404 and not key.isprintable():
                # Only upstream would store a column under such a key. Some servers reject its URL
                # without an S3 error.
                return None
            raise

    @override
    def put(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> None:
        self._put(key, data, owner)

    @override
    def create(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> Version | None:
        return self._put_if(key, data, owner, IfNoneMatch="*")

    @override
    def replace(
        self, key: str, data: bytes, version: Version, owner: ChunkOwner | None = None
    ) -> Version | None:
        etag, _, writes = str(version).partition(" ")
        return self._put_if(key, data, owner, writes, IfMatch=etag)

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: ChunkOwner) -> bool:
        # Few servers support conditional deletes; all relevant ones support conditional writes.
        return self.replace(key, blank(), version, owner) is not None

    def _put(
        self, key: str, data: bytes, owner: ChunkOwner | None, writes: str = "", **condition: str
    ) -> str:
        metadata = {OWNER_TAG: "" if owner is None else owner.owner_tag, WRITES: writes}
        metadata = {name: value for name, value in metadata.items() if value}
        extra: dict[str, Any] = {"Metadata": metadata} if metadata else {}
        answer = self._call(key, "put_object", Key=self._key(key), Body=data, **extra, **condition)
        return f"{_etag(answer)} {writes}".rstrip()

    def _put_if(
        self, key: str, data: bytes, owner: ChunkOwner | None, earlier: str = "", **condition: str
    ) -> str | None:
        own = secrets.token_hex(5)
        writes = " ".join([own, *earlier.split()][:WRITES_KEPT])
        for _ in (attempts := Attempts(self.patience)):
            try:
                return self._put(key, data, owner, writes, **condition)
            except ConditionRefused:
                found = self._look(key)
            except MissingObject as error:
                # Our write may have been carried out and the object deleted since, which amounts
                # to a refusal.
                if "IfMatch" in condition:
                    return None
                place = f"s3://{self.location.bucket}/{self._key(key)}"
                raise no_bucket(place, self._settings) from error
            if found is not None and own in found.partition(" ")[2].split():
                # If others have written since, a condition on our version fails anyway.
                return found if found.split()[1] == own else f"{own} {writes}"
            if found is not None or "IfMatch" in condition:
                return None
            # Refused because the object existed, then found missing: it was deleted in between.
        raise ConflictError(
            f"{self.location}/{key}: it existed {attempts} when it was to be created, and was "
            "missing each time it was read"
        )

    def _look(self, key: str) -> str | None:
        """Return the version of an object; None if it does not exist."""
        try:
            return _version(self._call(key, "head_object", Key=self._key(key)))
        except MissingObject:
            return None

    @override
    def _remove(self, keys: tuple[str, ...]) -> None:
        left = [self._key(key) for key in keys]

        async def remove() -> None:
            nonlocal left
            answer = await self._ask(
                "delete_objects",
                Delete={"Objects": [{"Key": key} for key in left], "Quiet": True},
            )
            # An answer 200 may list errors. Temporary ones are retried, for these keys only.
            errors = [
                ClientError({"Error": refused}, "DeleteObjects")
                for refused in answer.get("Errors", [])
            ]
            for error in errors:
                if not passes(error):
                    raise error
            left = [error.response["Error"]["Key"] for error in errors]
            if errors:
                raise errors[0]

        try:
            self._do("", remove)
        except StoreError as error:
            key = answer_to(error).error.get("Key", left[0])
            error.add_note(f"s3://{self.location.bucket}/{key} may not have been deleted")
            raise

    @override
    def can_copy_from(self, other: Objects) -> bool:
        # The same client means the same server and user; another could not find the source.
        return isinstance(other, S3Objects) and other._fs is self._fs

    @override
    def copy_from(self, other: Objects, source: str, target: str) -> None:
        root = other.location.key
        where = {"Bucket": other.location.bucket, "Key": f"{root}/{source}"}
        self._call(target, "copy_object", Key=self._key(target), CopySource=where)

    @override
    def list_dirs(self, prefix: str) -> list[str]:
        start = self._key(prefix) + "/"
        return [
            str(entry["Prefix"])[len(start) : -1]
            for page in self.pages(Prefix=start, Delimiter="/")
            for entry in page.get("CommonPrefixes", [])
        ]

    @override
    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        for key, _, version in self.list_states(prefix):
            yield key, version

    @override
    def list_states(self, prefix: str) -> Iterator[Entry]:
        skip = len(self.location.key) + 1
        start = self._key(prefix) + "/"
        for page in self.pages(Prefix=start):
            for entry in page.get("Contents", []):
                yield Entry(str(entry["Key"])[skip:], int(entry["Size"]), _etag(entry))

    @override
    def occupied(self) -> bool:
        # Two requests: 'x.zarr!' sorts between 'x.zarr' and 'x.zarr/...'.
        key = self.location.key
        for prefix in (key, key + "/"):
            page = self._call("", "list_objects_v2", Prefix=prefix, MaxKeys=1)
            for entry in page.get("Contents", []):
                if entry["Key"] == key or str(entry["Key"]).startswith(key + "/"):
                    return True
        return False

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        folder = len(self.location.key.rpartition("/")[0])
        skip = folder + 1 if folder else 0
        found: list[tuple[str, bool]] = []
        for page in self.pages(Prefix=self.location.key, Delimiter="/"):
            prefixes = page.get("CommonPrefixes", [])
            found += [(str(entry["Prefix"])[skip:-1], True) for entry in prefixes]
            found += [(str(entry["Key"])[skip:], False) for entry in page.get("Contents", [])]
        return found

    def pages(self, **request: Any) -> Iterable[dict[str, Any]]:
        """Yield the pages of a listing."""
        while True:
            page = self._call("", "list_objects_v2", **request)
            yield page
            # Some servers return shorter pages than allowed: only this flag marks the end.
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken")
            if not token or token == request.get("ContinuationToken"):
                raise StoreError(
                    f"{self.location}: the server says that its listing continues, but not where"
                )
            request["ContinuationToken"] = token

    def request(self, method: str, **request: Any) -> dict[str, Any]:
        """Make a request about the bucket, outside a store: see :mod:`ratzarr.stores.single_files`."""
        return self._call("", method, **request)

    def read_range(self, start: int, length: int, **condition: str) -> bytes:
        """Return bytes of the object whose key is exactly the root's."""

        async def fetch() -> bytes:
            answer = await self._ask(
                "get_object",
                Key=self.location.key,
                Range=f"bytes={start}-{start + length - 1}",
                **condition,
            )
            async with answer["Body"] as body:
                return bytes(await body.read())

        return self._do("", fetch)

    def _call(self, key: str, method: str, **request: Any) -> dict[str, Any]:
        return self._do(key, partial(self._ask, method, **request))

    async def _ask(self, method: str, **request: Any) -> dict[str, Any]:
        """Make one request, once."""
        answer: dict[str, Any] = await self._fs._call_s3(
            method, Bucket=self.location.bucket, **request
        )
        return answer

    def _do[T](self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a request until the server answers, and translate its errors."""

        def once() -> T:
            # Release the request slot during a pause.
            with request_slot():
                result: T = fsspec.asyn.sync(self._fs.loop, call)
            return result

        try:
            return self._retries.run(once, self._patience)
        except RatZarrError:
            raise
        except Exception as error:
            worded = self._in_words(key, error)
            for note in getattr(error, "__notes__", ()):
                worded.add_note(note)
            raise worded from error

    def _patience(self) -> float:
        # A server that has never answered will most likely never answer.
        most = self._retries.patience
        return most if self._fs.heard else min(most, self._settings.first_answer)

    def _in_words(self, key: str, error: Exception) -> Exception:
        return in_words(f"s3://{self.location.bucket}/{self._key(key)}", error, self._settings)


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _owner_tag(answer: Mapping[str, Any]) -> str:
    owner_tag: str = answer.get("Metadata", {}).get(OWNER_TAG, "")
    return owner_tag


def _state(answer: Mapping[str, Any]) -> str:
    """Return a state that identifies these bytes and this column.

    Writing the same bytes again yields the same state.
    """
    return f"{_etag(answer)} {answer['ContentLength']} {_owner_tag(answer)}"


def _version(answer: Mapping[str, Any]) -> str:
    """Return an object's version: its etag and the names of the writes that led to it."""
    writes = answer.get("Metadata", {}).get(WRITES, "")
    return f"{_etag(answer)} {writes}".rstrip()
