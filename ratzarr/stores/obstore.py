"""A store on S3 through obstore: a faster client, chosen by a setting.

It takes a fraction of the processor's time that s3fs takes. What it lacks is made up for
here: credentials are botocore's (profiles, roles, ``~/.aws``); etags go without their
quotes, which Ceph's gateway does not match otherwise; conditional PUTs are repeated by
us, as a PUT that was repeated unseen would be refused for its own first success; in a
forked child, where obstore would wait for ever, the requests go through s3fs; and other
hosts, to which obstore would follow a redirect, are out of its reach.
"""

import os
import re
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import batched, islice
from typing import Any, override
from urllib.parse import urlsplit
from weakref import WeakSet

import botocore.session
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from ratzarr.concurrency import Attempts, request_slot, run
from ratzarr.errors import (
    ArgumentError,
    DamagedError,
    RatZarrError,
    StoreError,
    StorePermissionError,
    TableNotFoundError,
)
from ratzarr.format.names import ZARR_JSON
from ratzarr.stores.aws_config import MACHINE, S3Settings, current
from ratzarr.stores.base import Location, Objects, Owner, Versioned
from ratzarr.stores.s3 import S3Objects
from ratzarr.stores.s3_client import Retries
from ratzarr.stores.s3_errors import NOT_S3

__all__ = ["ObstoreObjects", "can_be_used"]

MARK = "ratzarr"
"""User metadata of an object: the mark of its owner; as in s3objects."""
DELETE_AT_ONCE = 1000
TRIES = 6
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is none, for hosts that are not the endpoint's."""
_NOT_THERE = re.compile(r"<Code>(NoSuchKey|NoSuchBucket|NotFound)</Code>")
_UNCLEAR = re.compile(r"status: (3[0-9][0-9]|401|403)|kind: Connect")
_NAMES = {"endpoint_url", "key", "secret", "token", "anon", "profile", "requester_pays"}

_used_by: list[int] = []
"""The process that obstore's threads run in: a fork leaves them behind."""


def can_be_used() -> bool:
    """Return whether obstore works in this process: not in the child of one that has used it."""
    return not _used_by or _used_by[0] == os.getpid()


class ObstoreObjects(Objects):
    """The objects of a store on S3.

    Parameters
    ----------
    location : Location
        Bucket and key of the store's root.
    options : mapping, optional
        Those arguments of ``s3fs.S3FileSystem`` that say where to go and as whom:
        ``endpoint_url``, ``key``, ``secret``, ``token``, ``anon``, ``profile``,
        ``requester_pays``, ``client_kwargs={"region_name": ...}``.
    """

    writable = True
    looks_before_writing = False

    def __init__(self, location: Location, options: Mapping[str, Any] | None = None) -> None:
        self.location = location
        self._options = dict(options or {})
        if not _used_by:
            _used_by.append(os.getpid())
        self.patience = Retries.of(os.environ, {}).patience
        self._store, self._once = _clients(location.bucket, self._options)
        _alive.add(self)

    def _key(self, key: str) -> str:
        return f"{self.location.key}/{key}" if key else self.location.key

    # ---- reading

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
        def fetch() -> Versioned | None:
            try:
                answer = obstore.get(self._store, self._key(key))
            except (NotFoundError, FileNotFoundError) as error:
                if not _NOT_THERE.search(str(error)) and key.isprintable():
                    raise StoreError(f"{self.location}/{key}: {NOT_S3} (HTTP 404)") from error
                return None
            size = answer.meta["size"]
            kind = str(answer.attributes.get("Content-Type", ""))
            if not answer.meta["e_tag"] or "html" in kind.lower():
                raise StoreError(f"{self.location}/{key}: {NOT_S3}")
            if limit is not None and size > limit:
                raise DamagedError(
                    f"{self.location}/{key} has {size} bytes: at most {limit} were expected"
                )
            data = bytes(answer.bytes())
            if len(data) != size:
                raise StoreError(f"{self.location}/{key}: {len(data)} of {size} bytes came")
            return Versioned(data, _bare(answer.meta["e_tag"]), answer.attributes.get(MARK, ""))

        try:
            return self._do(key, fetch)
        except StoreError as error:
            if isinstance(error.__cause__, ValueError) and not key.isprintable():
                # Only upstream would keep a column under such a key; it can't be asked for here.
                return None
            raise

    # ---- writing

    @override
    def put(self, key: str, data: bytes, owner: Owner | None = None) -> None:
        try:
            self._do(key, partial(self._put, self._store, key, data, owner, "overwrite"))
        except _Gone as error:
            raise self._no_bucket() from error

    @override
    def create(self, key: str, data: bytes, owner: Owner | None = None) -> str | None:
        try:
            return self._put_if(key, data, owner, "create")
        except _Gone as error:
            raise self._no_bucket() from error

    @override
    def replace(
        self, key: str, data: bytes, version: str, owner: Owner | None = None
    ) -> str | None:
        try:
            return self._put_if(key, data, owner, {"e_tag": version})
        except _Gone:
            return None

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: Owner) -> bool:
        # Few servers remove on condition; all that matter replace on condition.
        return self.replace(key, blank(), version, owner) is not None

    def _put(self, store: S3Store, key: str, data: bytes, owner: Owner | None, mode: Any) -> str:
        marked = {MARK: owner.mark} if owner is not None and owner.mark else None
        # Never in parts: some servers ignore a condition on those.
        answer = obstore.put(
            store, self._key(key), data, attributes=marked, mode=mode, use_multipart=False
        )
        return _bare(answer["e_tag"])

    def _put_if(self, key: str, data: bytes, owner: Owner | None, mode: Any) -> str | None:
        failed: StoreError | None = None
        for _ in islice(Attempts(self.patience), TRIES):
            try:
                return self._do(key, partial(self._put, self._once, key, data, owner, mode))
            except _Refused:
                if failed is None:
                    return None
                # An earlier try may have worked, and only its answer have been lost.
                found = self.get_versioned(key)
                ours = found is not None and found.data == data
                return found.version if ours and found is not None else None
            except (StorePermissionError, _Gone):
                raise
            except StoreError as error:
                failed = error
        assert failed is not None  # noqa: S101 - else the loop has returned
        raise failed

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
            self._do("", partial(obstore.delete, self._store, list(batch)))

    @override
    def delete_tree(self, prefix: str) -> None:
        self.delete(list(self.list_tree(prefix)))

    @override
    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        document = f"{prefix}/{ZARR_JSON}"
        final = self.get(f"{source}/{ZARR_JSON}")
        if final is None:
            raise StoreError(f"{self.location}/{source}/{ZARR_JSON} is not there any more")
        self.put(document, interim)
        self.delete([key for key in self.list_tree(prefix) if key != document])
        chunks = (key for key in self.list_tree(source) if not key.endswith("/" + ZARR_JSON))
        for batch in batched(chunks, DELETE_AT_ONCE):
            run([partial(self._copy, key, prefix + key.removeprefix(source)) for key in batch])
        self.put(document, final)
        self.delete_tree(source)

    def _copy(self, source: str, target: str) -> None:
        self._do(target, partial(obstore.copy, self._store, self._key(source), self._key(target)))

    # ---- listing

    @override
    def list_dirs(self, prefix: str) -> list[str]:
        return [name for name, is_dir in self._children(self._key(prefix)) if is_dir]

    def _children(self, folder: str) -> list[tuple[str, bool]]:
        """Return what is directly below a folder, and whether there is more below that."""
        found = self._do(
            "", partial(obstore.list_with_delimiter, self._store, folder + "/" if folder else None)
        )
        skip = len(folder) + 1 if folder else 0
        folders = [(path[skip:].rstrip("/"), True) for path in found["common_prefixes"]]
        return [*folders, *((entry["path"][skip:], False) for entry in found["objects"])]

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        for key, _, _ in self.list_states(prefix):
            yield key

    @override
    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        for key, _, version in self.list_states(prefix):
            yield key, version

    @override
    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        skip = len(self.location.key) + 1
        pages = iter(obstore.list(self._store, self._key(prefix) + "/"))
        while (page := self._do("", lambda: next(pages, None))) is not None:
            for entry in page:
                yield entry["path"][skip:], int(entry["size"]), _bare(entry["e_tag"])

    @override
    def occupied(self) -> bool:
        # obstore takes a page for a listing of nothing, and for an object.
        return any(True for _ in self.list_tree("")) or self._checked.occupied()

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        folder, _, name = self.location.key.rpartition("/")
        found = [entry for entry in self._children(folder) if entry[0].startswith(name)]
        return found or self._checked.list_beside()

    @property
    def _checked(self) -> S3Objects:
        """The same objects, by a client that looks whether it is an S3 server that answers."""
        return S3Objects(self.location, self._options)

    @override
    def remove_place(self) -> None:
        # Nothing is left where there are no directories.
        return

    # ---- errors

    def _do[T](self, key: str, call: Callable[[], T]) -> T:
        try:
            with request_slot():
                return call()
        except RatZarrError:
            raise
        except Exception as error:
            raise self._in_words(key, error) from error

    def _in_words(self, key: str, error: Exception) -> RatZarrError:
        place = f"s3://{self.location.bucket}/{self._key(key)}"
        if isinstance(error, NotFoundError | FileNotFoundError):
            return _Gone(f"{place} does not exist")
        if isinstance(error, PreconditionError | AlreadyExistsError | FileExistsError):
            return _Refused(f"{place} was changed by another writer")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
            return StorePermissionError(
                f"{place}: the server does not let us: check the credentials "
                "(AWS_ACCESS_KEY_ID, AWS_PROFILE, ...) and the bucket's policy"
            )
        if _UNCLEAR.search(str(error)):
            # A redirect, or a listing that is refused: obstore does not say. Another request does.
            try:
                if key:
                    self._checked.get(key, limit=0)
                else:
                    self._checked.occupied()
            except StorePermissionError as found:
                return found
            except RatZarrError:
                pass
        return StoreError(f"{place}: {type(error).__name__}: {error}")

    def _no_bucket(self) -> TableNotFoundError:
        bucket = self.location.bucket
        return TableNotFoundError(f"{self.location}: the bucket {bucket!r} does not exist")


class _Inherited(ObstoreObjects):
    """The objects of a store, in the child of a fork: they go through s3fs from their first use."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__dict__"):
            return super().__getattribute__(name)
        known = self.__dict__
        known.update(S3Objects(known["location"], known["_options"]).__dict__)
        self.__class__ = S3Objects  # type: ignore[assignment]
        return getattr(self, name)


_alive: WeakSet[ObstoreObjects] = WeakSet()


def _in_child() -> None:
    for objects in list(_alive):
        objects.__class__ = _Inherited
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    known = _NAMES | {"client_kwargs"}
    kwargs = dict(options.get("client_kwargs") or {})
    strange = sorted((set(options) - known) | (set(kwargs) - {"region_name", "endpoint_url"}))
    if strange:
        raise ArgumentError(
            f"storageOptions {', '.join(map(repr, strange))}: with the client obstore there are "
            f"{', '.join(sorted(known))}"
        )


def _refuse_proxy(host: str, url: str) -> None:
    proxies = urllib.request.getproxies_environment()
    name = next((one for one in (urlsplit(url).scheme, "all") if one in proxies), None)
    if name is not None and not urllib.request.proxy_bypass(host):
        raise ArgumentError(
            f"the S3 client obstore follows redirects to any host through a proxy "
            f"({name.upper()}_PROXY): use s3fs, or name {host} in NO_PROXY"
        )


def _arguments(bucket: str, settings: S3Settings) -> dict[str, Any]:
    """Return arguments for S3Store."""
    if settings.problem:
        raise ArgumentError(settings.problem)
    arguments: dict[str, Any] = {
        "region": settings.region or "us-east-1",
        "virtual_hosted_style_request": not (settings.path_style or settings.endpoint),
        "request_payer": settings.requester_pays,
        "client_options": {"timeout": "60s", "connect_timeout": "5s"},
    }
    host = (
        urlsplit(settings.endpoint).hostname or ""
        if settings.endpoint
        else f"{bucket}.s3.{arguments['region']}.amazonaws.com"
    )
    if settings.path_style and not settings.endpoint:
        host = f"s3.{arguments['region']}.amazonaws.com"
    _refuse_proxy(host, settings.endpoint or "https://")
    # It follows redirects, with the session token, and has no switch for it. But a host that is
    # not the endpoint's it would only reach through this.
    arguments["client_options"] |= {"proxy_url": NOWHERE, "proxy_excludes": host}
    if settings.endpoint:
        arguments["endpoint"] = settings.endpoint
        if settings.endpoint.startswith("http://"):
            arguments["client_options"]["allow_http"] = True
    if settings.anonymous:
        arguments["skip_signature"] = True
    elif settings.keys:
        arguments["access_key_id"] = settings.keys.key
        arguments["secret_access_key"] = settings.keys.secret
        if settings.keys.token:
            arguments["session_token"] = settings.keys.token
    else:
        arguments["credential_provider"] = _Credentials(settings)
    return arguments


class _Credentials:
    """What botocore finds, for obstore; asked for again when it runs out."""

    def __init__(self, settings: S3Settings) -> None:
        session = botocore.session.Session(profile=settings.use_profile or settings.profile)
        for name, path in zip(("config_file", "credentials_file"), settings.files, strict=True):
            session.set_config_variable(name, path)
        if settings.credentials != MACHINE:
            # It would wait for a service that only Amazon's own machines have.
            session.get_component("credential_provider").remove("iam-role")
        self._found = session.get_credentials()
        if self._found is None:
            raise StorePermissionError(
                "no AWS credentials found (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "AWS_PROFILE, ...); AWS_NO_SIGN_REQUEST=YES for public data"
            )

    def __call__(self) -> dict[str, Any]:
        now = self._found.get_frozen_credentials()
        expires = getattr(self._found, "_expiry_time", None)
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": expires,
        }


type _Pair = tuple[S3Store, S3Store]

_known: dict[tuple[str, str, int], _Pair] = {}
_known_lock = threading.Lock()
MAX_CLIENTS = 16


def _clients(bucket: str, options: Mapping[str, Any]) -> _Pair:
    """Return a client that tries again, and one that doesn't, for the settings as they are now.

    They are kept, with their connections: making one reads files, and greets the server.
    """
    _refuse_unknown(options)
    settings = current(bucket, options)
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    key = (bucket, repr(settings), hash((settings.keys, repr(sorted(variables.items())))))
    with _known_lock:
        if key not in _known:
            arguments = _arguments(bucket, settings)
            while len(_known) >= MAX_CLIENTS:
                del _known[next(iter(_known))]
            patient, once = (
                S3Store(
                    bucket,
                    retry_config={"max_retries": tries, "retry_timeout": timedelta(seconds=60)},
                    **arguments,
                )
                for tries in (TRIES, 0)
            )
            _known[key] = patient, once
        return _known[key]


class _Gone(StoreError):
    pass


class _Refused(StoreError):
    pass


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')
