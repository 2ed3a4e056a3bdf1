"""A store at a place that knows no conditions: what is compared, is compared by us.

Disks have locks and S3 has ``If-Match``; a zarr ``Store`` can only be read and written.
So an object is read, compared and written while every other thread of this process that
would write it waits. **Other processes don't wait**: two of them that change one document
at once can undo each other's change. docs/stores.md says so, place by place.

Two guards do it. Whoever changes a column's document, or deletes the column, is alone with
that column. Whoever writes a chunk is there with others, has looked at the document, and
holds the lock of that one chunk.
"""

import hashlib
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import batched
from typing import override

from .errors import DamagedError, StoreError
from .layout import ZARR_JSON
from .objects import Objects, Owner, Versioned
from .parallel import run

__all__ = ["GuardedObjects"]

AT_ONCE = 1000
"""How many keys of a listing are worked on before the next ones are looked at."""


class GuardedObjects(Objects):
    """The objects of a store, guarded against other threads of this process.

    A kind of place brings the four methods below, and the listings.
    """

    looks_before_writing = True
    deletes_at_once = True

    @abstractmethod
    def _read(self, key: str, limit: int | None) -> bytes | None:
        """Return an object's bytes, of which no more than ``limit + 1`` need be fetched."""

    @abstractmethod
    def _write(self, key: str, data: bytes) -> None:
        """Write an object, whole or not at all."""

    @abstractmethod
    def _create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; return whether it was written."""

    @abstractmethod
    def _remove(self, keys: Sequence[str]) -> None:
        """Remove objects, several at once; those that aren't there are passed over."""

    # ---- reading

    @override
    def get(self, key: str, limit: int | None = None) -> bytes | None:
        data = self._read(key, limit)
        if data is not None and limit is not None and len(data) > limit:
            raise DamagedError(f"{self.location}/{key} has more than {limit} bytes")
        return data

    @override
    def get_marked(self, key: str, limit: int | None = None) -> tuple[bytes, str] | None:
        data = self.get(key, limit)
        return None if data is None else (data, "")

    @override
    def get_versioned(self, key: str, limit: int | None = None) -> Versioned | None:
        data = self.get(key, limit)
        return None if data is None else Versioned(data, _version(data))

    # ---- writing

    @override
    def put(self, key: str, data: bytes, owner: Owner | None = None) -> None:
        with self._guarded(key, owner):
            self._write(key, data)

    @override
    def create(self, key: str, data: bytes, owner: Owner | None = None) -> str | None:
        with self._guarded(key, owner):
            if not self._create(key, data):
                return None
            try:
                self._refuse_leftovers(key)
            except StoreError:
                self._remove([key])
                raise
            return _version(data)

    @override
    def replace(
        self, key: str, data: bytes, version: str, owner: Owner | None = None
    ) -> str | None:
        with self._guarded(key, owner):
            now = self._read(key, None)
            if now is None or _version(now) != version:
                return None
            self._write(key, data)
            return _version(data)

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: Owner) -> bool:
        # Who may write this chunk has to change the owner's document first, and nobody can do
        # that meanwhile.
        with self._guarded(key, owner):
            self._remove([key])
        return True

    @override
    def delete(self, keys: Iterable[str]) -> None:
        # A zarr.json last: what is interrupted here still says what its objects are.
        documents: list[str] = []

        def others() -> Iterator[str]:
            for key in keys:
                if key.endswith("/" + ZARR_JSON) or key == ZARR_JSON:
                    documents.append(key)
                else:
                    yield key

        for batch in batched(others(), AT_ONCE):
            self._remove(batch)
        for batch in batched(documents, AT_ONCE):
            run([partial(self._delete_document, key) for key in batch])

    def _delete_document(self, key: str) -> None:
        with self._guarded(key, None):
            self._remove([key])

    @override
    def delete_tree(self, prefix: str) -> None:
        with self._gate(prefix).alone():
            self._clear(prefix)

    def _clear(self, prefix: str, but: str = "") -> None:
        """Remove all below a prefix, ``prefix/zarr.json`` last; all but one object."""
        document = f"{prefix}/{ZARR_JSON}"
        keys = [key for key in self.list_tree(prefix) if key not in (but, document)]
        # Documents further down go after their chunks, too.
        keys.sort(key=lambda key: key.endswith("/" + ZARR_JSON))
        for batch in batched(keys, AT_ONCE):
            self._remove(batch)
        if document != but:
            self._remove([document])

    @override
    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        document = f"{prefix}/{ZARR_JSON}"
        with self._gate(prefix).alone():
            final = self._read(f"{source}/{ZARR_JSON}", None)
            if final is None:
                raise StoreError(f"{self.location}/{source}/{ZARR_JSON} is not there any more")
            self._write(document, interim)
            self._clear(prefix, but=document)
            chunks = [key for key in self.list_tree(source) if not key.endswith("/" + ZARR_JSON)]
            for key in chunks:
                self._copy(key, prefix + key.removeprefix(source))
            self._write(document, final)
        self.delete_tree(source)

    def _copy(self, source: str, target: str) -> None:
        data = self._read(source, None)
        if data is None:
            raise StoreError(f"{self.location}/{source} is not there any more")
        self._write(target, data)

    @override
    def list_versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        # erase() looks under the guard: it needs none here.
        for key in self.list_tree(prefix):
            yield key, ""

    @override
    def list_states(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        # Not every kind of place tells more than names.
        for key in self.list_tree(prefix):
            data = self._read(key, None)
            if data is not None:
                yield key, len(data), _version(data)

    @override
    def remove_place(self) -> None:
        # Nothing is left where there are no directories.
        return

    # ---- guards

    def _gate(self, prefix: str) -> "_Gate":
        return _gates[hash((str(self.location), prefix)) % len(_gates)]

    @contextmanager
    def _guarded(self, key: str, owner: Owner | None) -> Iterator[None]:
        """Keep other threads away while an object is looked at and written."""
        if owner is None:
            with self._gate(key.rpartition("/")[0]).alone():
                yield
            return
        lock = _locks[hash((str(self.location), key)) % len(_locks)]
        with self._gate(owner.prefix).with_others(), lock:
            owner.check(self._read(f"{owner.prefix}/{ZARR_JSON}", None))
            yield

    def _refuse_leftovers(self, key: str) -> None:
        # Chunks without a document would become the new column's.
        if key.count("/") != 2 or not key.endswith("/" + ZARR_JSON):
            return
        prefix = key.removesuffix("/" + ZARR_JSON)
        if any(other.startswith(f"{prefix}/c/") for other in self.list_tree(prefix)):
            raise StoreError(
                f"{self.location}/{prefix} holds chunks of a column that is no longer there: "
                "'gdalbridge check --repair' removes them"
            )


class _Gate:
    """Lets in either one thread that is to be alone, or any number of others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0
        """Threads that want to be alone: they would wait for ever if others kept coming."""
        self._taken = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                while self._taken or self._inside:
                    self._changed.wait()
                self._taken = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    @contextmanager
    def with_others(self) -> Iterator[None]:
        with self._changed:
            while self._taken or self._waiting:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()


# For all stores of the process, so that one place is guarded however many objects stand for
# it. Two that share a guard by chance wait for each other, no more: nobody holds two gates.
_gates: list[_Gate] = []
_locks: list[threading.Lock] = []


def _make_guards() -> None:
    _gates[:] = [_Gate() for _ in range(256)]
    _locks[:] = [threading.Lock() for _ in range(1024)]


_make_guards()
if hasattr(os, "register_at_fork"):
    # The threads that hold some of them don't exist in a forked child.
    os.register_at_fork(after_in_child=_make_guards)


def _version(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
