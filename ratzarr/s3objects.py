"""A store on S3 or a server that speaks its protocol, through s3fs.

Each method here is one request, or one per 1000 objects where it lists or deletes.
Conditions (``If-None-Match: *`` to create, ``If-Match`` to replace) go in single PUTs:
some servers ignore them on multipart uploads. Etags are sent without their quotes,
which Ceph's gateway does not match otherwise.
"""

import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import batched
from typing import Any, override

import fsspec.asyn
from s3fs import S3FileSystem
from s3fs import core as s3fs_core

from .errors import (
    DamagedError,
    RatZarrError,
    StoreError,
    StorePermissionError,
    StoreTimeoutError,
    TableNotFoundError,
)
from .layout import ZARR_JSON
from .location import Location
from .objects import Objects, Owner, Versioned
from .parallel import run
from .s3settings import S3Settings

__all__ = ["ConditionRefusedError", "MissingObjectError", "S3Objects", "client", "in_words"]

DELETE_AT_ONCE = 1000
"""Keys in one DeleteObjects; servers refuse more."""
MARK = "ratzarr"
"""User metadata of an object: the mark of its owner."""

_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_MISSING = {"NoSuchKey", "404"}
_FORBIDDEN = {
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnauthorizedAccess",
}


class S3Objects(Objects):
    """The objects of a store on S3.

    Parameters
    ----------
    location : Location
        Bucket and key of the store's root.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``; they go before what the environment says.
    """

    writable = True
    looks_before_writing = False

    def __init__(self, location: Location, options: Mapping[str, Any] | None = None) -> None:
        self.location = location
        self._fs = client(options)

    def _key(self, key: str) -> str:
        return f"{self.location.key}/{key}" if key else self.location.key

    @override
    def get(self, key: str, limit: int | None = None) -> bytes | None:
        found = self.get_versioned(key, limit)
        return None if found is None else found.data

    @override
    def get_marked(self, key: str, limit: int | None = None) -> tuple[bytes, str] | None:
        found = self.get_versioned(key, limit)
        return None if found is None else (found.data, found.mark)

    @override
    def get_versioned(self, key: str, limit: int | None = None) -> Versioned | None:
        async def fetch() -> Versioned:
            # Once more where the connection broke in the middle of the body, which is
            # after s3fs's own retries.
            for attempt in range(5):
                answer = await self._fs._call_s3(
                    "get_object", Bucket=self.location.bucket, Key=self._key(key)
                )
                try:
                    async with answer["Body"] as body:
                        size = answer["ContentLength"]
                        if limit is not None and size > limit:
                            raise DamagedError(
                                f"{self.location}/{key} has {size} bytes: at most {limit} were "
                                "expected"
                            )
                        data = await body.read()
                        mark = answer.get("Metadata", {}).get(MARK, "")
                        return Versioned(data, _etag(answer), mark)
                except s3fs_core.S3_RETRYABLE_ERRORS:
                    if attempt == 4:
                        raise
            raise AssertionError("unreachable")

        try:
            return self._do(key, fetch)
        except MissingObjectError:
            return None

    @override
    def put(self, key: str, data: bytes, owner: Owner | None = None) -> None:
        self._put(key, data, owner)

    @override
    def create(self, key: str, data: bytes, owner: Owner | None = None) -> str | None:
        return self._put_if(key, data, owner, IfNoneMatch="*")

    @override
    def replace(
        self, key: str, data: bytes, version: str, owner: Owner | None = None
    ) -> str | None:
        return self._put_if(key, data, owner, IfMatch=version)

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: Owner) -> bool:
        # Few servers remove on condition; all that matter replace on condition.
        return self.replace(key, blank(), version, owner) is not None

    def _put(self, key: str, data: bytes, owner: Owner | None, **condition: str) -> str:
        marked = {} if owner is None or not owner.mark else {"Metadata": {MARK: owner.mark}}
        answer = self._call(
            key, "put_object", Key=self._key(key), Body=data, **marked, **condition
        )
        return _etag(answer)

    def _put_if(self, key: str, data: bytes, owner: Owner | None, **condition: str) -> str | None:
        try:
            return self._put(key, data, owner, **condition)
        except (ConditionRefusedError, MissingObjectError):
            return None

    @override
    def delete(self, keys: Iterable[str]) -> None:
        # A zarr.json last: what is interrupted here still says what its objects are.
        documents: list[str] = []

        def others() -> Iterator[str]:
            for key in keys:
                if key.endswith("/" + ZARR_JSON) or key == ZARR_JSON:
                    documents.append(self._key(key))
                else:
                    yield self._key(key)
            yield from documents

        for batch in batched(others(), DELETE_AT_ONCE):
            answer = self._call(
                "",
                "delete_objects",
                Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True},
            )
            for refused in answer.get("Errors", []):
                raise StoreError(
                    f"{self.location}: s3://{self.location.bucket}/{refused.get('Key')} was not "
                    f"deleted: {refused.get('Code')} {refused.get('Message', '')}".rstrip()
                )

    @override
    def delete_tree(self, prefix: str) -> None:
        self.delete(self.list_tree(prefix))

    @override
    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        document = f"{prefix}/{ZARR_JSON}"
        final = self.get(f"{source}/{ZARR_JSON}")
        if final is None:
            raise StoreError(f"{self.location}/{source}/{ZARR_JSON} is not there any more")
        self.put(document, interim)
        self.delete(key for key in self.list_tree(prefix) if key != document)
        chunks = (key for key in self.list_tree(source) if not key.endswith("/" + ZARR_JSON))
        for batch in batched(chunks, DELETE_AT_ONCE):
            run([partial(self._copy, key, prefix + key.removeprefix(source)) for key in batch])
        self.put(document, final)
        self.delete_tree(source)

    def _copy(self, source: str, target: str) -> None:
        self.copy_from(self, source, target)

    def copy_from(self, other: "S3Objects", source: str, target: str) -> str:
        """Let the server copy an object of another store, with its mark; return its version."""
        where = {"Bucket": other.location.bucket, "Key": other._key(source)}
        answer = self._call(target, "copy_object", Key=self._key(target), CopySource=where)
        return _etag(answer["CopyObjectResult"])

    @override
    def list_dirs(self, prefix: str) -> list[str]:
        start = self._key(prefix) + "/"
        return [
            str(entry["Prefix"])[len(start) : -1]
            for page in self._pages(Prefix=start, Delimiter="/")
            for entry in page.get("CommonPrefixes", [])
        ]

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        for key, _ in self.list_versions(prefix):
            yield key

    @override
    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        for key, _, version in self.list_states(prefix):
            yield key, version

    @override
    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        skip = len(self.location.key) + 1
        start = self._key(prefix) + "/"
        for page in self._pages(Prefix=start):
            for entry in page.get("Contents", []):
                yield str(entry["Key"])[skip:], int(entry["Size"]), _etag(entry)

    @override
    def occupied(self) -> bool:
        # Two questions: 'x.zarr!' sorts between 'x.zarr' and 'x.zarr/...'.
        key = self.location.key
        for prefix in (key, key + "/"):
            page = self._call("", "list_objects_v2", Prefix=prefix, MaxKeys=1)
            for entry in page.get("Contents", []):
                if entry["Key"] == key or str(entry["Key"]).startswith(key + "/"):
                    return True
        return False

    @override
    def list_beside(self) -> list[str]:
        folder = len(self.location.key.rpartition("/")[0])
        skip = folder + 1 if folder else 0
        return [
            str(entry["Prefix"])[skip:-1]
            for page in self._pages(Prefix=self.location.key, Delimiter="/")
            for entry in page.get("CommonPrefixes", [])
        ]

    @override
    def remove_place(self) -> None:
        # Nothing is left where there are no directories.
        return

    def _pages(self, **request: Any) -> Iterable[dict[str, Any]]:
        while True:
            page = self._call("", "list_objects_v2", **request)
            yield page
            # Some servers' pages hold fewer than they could: only this says "the end".
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, key: str, method: str, **request: Any) -> dict[str, Any]:
        async def call() -> dict[str, Any]:
            answer: dict[str, Any] = await self._fs._call_s3(
                method, Bucket=self.location.bucket, **request
            )
            return answer

        return self._do(key, call)

    def _do[T](self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        try:
            result: T = fsspec.asyn.sync(self._fs.loop, call)
            return result
        except RatZarrError:
            raise
        except Exception as error:
            raise self._in_words(key, error) from error

    def _in_words(self, key: str, error: Exception) -> Exception:
        return in_words(self.location.bucket, self._key(key), error)


_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_clients: dict[tuple[int, str, int], Any] = {}
_clients_lock = threading.Lock()
MAX_CLIENTS = 16


def client(options: Mapping[str, Any] | None = None) -> Any:
    """Return an s3fs file system for these options, which go before the environment's."""
    arguments: dict[str, Any] = {
        # Off, both: a listing kept from before hides what others have written since,
        # and ranged reads ask for each object's size first.
        "use_listings_cache": False,
        "max_concurrency": 1,
    }
    arguments.update(S3Settings.from_environment(os.environ).s3fs_arguments())
    for name, value in (options or {}).items():
        if isinstance(value, Mapping) and isinstance(arguments.get(name), dict):
            arguments[name] = {**arguments[name], **value}
        else:
            arguments[name] = value
    return _client(arguments)


def _client(arguments: dict[str, Any]) -> Any:
    """Return a client for these arguments and the credentials that are in force now.

    Making one takes longer than most requests, so it is kept; but fsspec's own cache
    would hand one out with the credentials of before, and in a forked process.
    """
    secrets = hash(tuple(os.environ.get(name) for name in _CREDENTIALS))
    key = (os.getpid(), repr(sorted(arguments.items())), secrets)
    with _clients_lock:
        if key not in _clients:
            while len(_clients) >= MAX_CLIENTS:
                del _clients[next(iter(_clients))]
            _clients[key] = S3FileSystem(**arguments, skip_instance_cache=True)
        return _clients[key]


class MissingObjectError(StoreError):
    """There is no such object."""


class ConditionRefusedError(StoreError):
    """The object was changed, or created, by somebody else."""


def in_words(bucket: str, key: str, error: Exception) -> Exception:
    """Return an error that names bucket and key.

    The server's text can be empty, its code never is.
    """
    place = f"s3://{bucket}/{key}"
    code = _code(error)
    if code in _MISSING:
        return MissingObjectError(f"{place} does not exist")
    if code in _REFUSED or isinstance(error, FileExistsError):
        return ConditionRefusedError(f"{place} was changed by another writer")
    if code == "NoSuchBucket":
        return TableNotFoundError(f"{place}: the bucket {bucket!r} does not exist")
    if code in _FORBIDDEN or isinstance(error, PermissionError):
        return StorePermissionError(
            f"{place}: the server does not let us ({code or error}): check the credentials "
            "(AWS_ACCESS_KEY_ID, AWS_PROFILE, ...) and the bucket's policy"
        )
    if type(error).__name__ == "NoCredentialsError":
        return StorePermissionError(
            f"{place}: no AWS credentials found (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ...); AWS_NO_SIGN_REQUEST=YES for public data"
        )
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreTimeoutError(f"{place}: no answer from the server: {error}")
    return StoreError(f"{place}: {code or type(error).__name__}: {error}")


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _code(error: BaseException | None) -> str:
    """Return the server's error code, however deep s3fs has wrapped it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
