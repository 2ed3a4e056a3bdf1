"""A store that the user hands over as one of zarr's own ``Store`` objects.

Memory, an Icechunk session, obstore, or whatever else implements zarr's interface: it is
called as zarr-python calls it, in zarr's own event loop, as a store may be tied to the
loop that it was first used in. Whether what is written is kept, and when others see it,
is the store's affair: an Icechunk session shows nothing until its owner commits it.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, override

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from .errors import RatZarrError, StoreError, StorePermissionError, StoreTimeoutError
from .guardedobjects import GuardedObjects
from .layout import GROUP, ZARR_JSON, key_of, looks_encoded
from .location import Location

__all__ = ["StoreObjects", "gathered", "in_words"]

IN_FLIGHT = 16
"""How many objects are being removed at once, at the most."""


class StoreObjects(GuardedObjects):
    """The objects of a table in a zarr ``Store``.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store; it is neither opened nor closed here.
    path : str
        Where in it the table's root is; by default the store's own root.
    """

    def __init__(self, store: Store, path: str = "") -> None:
        self._store, self._path = store, path
        name = str(store)
        if name.startswith("<"):
            # Some say only that they are an object, some of them on several lines.
            name = type(store).__name__
        self.location = Location("store", f"{name}/{path}" if path else name)
        self.writable = not store.read_only and store.supports_writes and store.supports_deletes
        if store.read_only:
            self.read_only_reason = f"the {type(store).__name__} was opened for reading only"
        elif not self.writable:
            self.read_only_reason = f"a {type(store).__name__} can't change or remove objects"

    def _key(self, key: str) -> str:
        return f"{self._path}/{key}".strip("/")

    @override
    def _read(self, key: str, limit: int | None) -> bytes | None:
        # Whole, whatever the limit: stores differ in what they make of a range that ends
        # beyond the object's end.
        try:
            found = self._do(key, self._store.get(self._key(key), default_buffer_prototype()))
        except StoreError as error:
            if isinstance(error.__cause__, ValueError) and _is_only_upstreams(key):
                return None
            raise
        return None if found is None else found.to_bytes()

    @override
    def _write(self, key: str, data: bytes) -> None:
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._do(key, self._store.set(self._key(key), buffer))

    @override
    def _create(self, key: str, data: bytes) -> bool:
        if self._read(key, None) is not None:
            return False
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        self._do(key, self._store.set_if_not_exists(self._key(key), buffer))
        # It does not say whether it has: another process may have been quicker.
        return self._read(key, None) == data

    @override
    def _remove(self, keys: Sequence[str]) -> None:
        self._do("", gathered([self._store.delete(self._key(key)) for key in keys]))

    # ---- listing

    @override
    def list_dirs(self, prefix: str) -> list[str] | None:
        if not self._store.supports_listing:
            return None

        async def children() -> list[str]:
            return [name async for name in self._store.list_dir(self._key(prefix))]

        names = {name.rstrip("/") for name in self._do(prefix, children())}
        if not names:
            skip = len(prefix) + 1
            below = (key[skip:] for key in self.list_tree(prefix))
            names = {name.partition("/")[0] for name in below if "/" in name}
        return sorted(names - {ZARR_JSON})

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        start = self._key(prefix)
        start, skip = start and start + "/", len(self._path) + 1 if self._path else 0
        for key in self._do(prefix, self._listed(start)):
            yield key[skip:]

    async def _listed(self, start: str) -> list[str]:
        try:
            keys = [key async for key in self._store.list_prefix(start)]
        except ValueError:
            # Icechunk lists only what is below a group or an array.
            keys = [key async for key in self._store.list()]
        return [key for key in keys if key.startswith(start)]

    @override
    def occupied(self) -> bool:
        if self._read(ZARR_JSON, None) is not None:
            return True
        return any(True for _ in self.list_tree("")) or self._is_object()

    def _is_object(self) -> bool:
        """Return whether an object is where the table's root would be."""
        if not self._path:
            return False
        try:
            return self._do("", self._store.exists(self._path))
        except StoreError as error:
            if isinstance(error.__cause__, ValueError):
                # No name that an object of this kind of store could have.
                return False
            raise

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        folder, _, name = self._path.rpartition("/")

        async def children() -> list[str]:
            return [entry.rstrip("/") async for entry in self._store.list_dir(folder)]

        # Such a store does not say what is a directory.
        found = [entry for entry in self._do("", children()) if name and entry.startswith(name)]
        return [(entry, True) for entry in found]

    def _do[T](self, key: str, call: Coroutine[Any, Any, T]) -> T:
        try:
            return sync(call)
        except Exception as error:
            raise in_words(f"{self.location}/{key}".rstrip("/"), error) from error


def _is_only_upstreams(key: str) -> bool:
    """Return whether only upstream would keep a column's document under this key.

    It writes names as they are. Stores that refuse some of them can't hold such a column.
    """
    name = key.removeprefix(GROUP + "/").removesuffix("/" + ZARR_JSON)
    is_document = key == f"{GROUP}/{name}/{ZARR_JSON}"
    return is_document and not looks_encoded(name) and key_of(name) != name


async def gathered(calls: Sequence[Coroutine[Any, Any, Any]]) -> None:
    """Await all of these, a few at once, and then raise the first error."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(call: Coroutine[Any, Any, Any]) -> None:
        async with places:
            await call

    results = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def in_words(place: str, error: Exception) -> RatZarrError:
    """Say which object an error of somebody else's store is about."""
    if isinstance(error, RatZarrError):
        return error
    said = str(error) or type(error).__name__
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return StorePermissionError(f"{place}: no permission: {said}")
    if isinstance(error, TimeoutError | ConnectionError):
        return StoreTimeoutError(f"{place}: no answer: {said}")
    return StoreError(f"{place}: {type(error).__name__}: {said}")
