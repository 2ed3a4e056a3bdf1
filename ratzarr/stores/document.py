"""A ``zarr.json`` document and its attributes, changed only by compare-and-swap.

A change is a function that modifies the document in place. It is applied to the current document,
which is written back only if no other writer changed it meanwhile. Otherwise the document is read
again and the change is repeated. So two writers of different changes both succeed, and neither
undoes the other's change.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

from zarr.core.attributes import Attributes

from ratzarr.concurrency import Attempts
from ratzarr.errors import ArgumentError, ConflictError
from ratzarr.format.limits import MAX_DOCUMENT_BYTES
from ratzarr.format.names import (
    Document,
    from_json,
    has_checksum,
    json_value,
    same_json,
    to_json,
)
from ratzarr.stores.base import Objects, Version

__all__ = ["LiveAttributes", "MetadataDocument"]


class MetadataDocument:
    """A ``zarr.json`` as last read.

    Parameters
    ----------
    objects : Objects
        The store.
    key : str
        The document's key, ending in ``zarr.json``.
    missing : callable
        Returns the error for a document that no longer exists.
    check : callable, optional
        Called with each document after reading; raises an exception to reject it.
    external : callable, optional
        Called with each document of another program, to mark it as external.
    """

    def __init__(
        self,
        objects: Objects,
        key: str,
        missing: Callable[[], Exception],
        check: Callable[[Document], None] | None = None,
        external: Callable[[Document], None] | None = None,
    ) -> None:
        self.objects, self.key, self.missing = objects, key, missing
        self._check, self._external = check, external
        self.document: Document = {}
        """The document as last read. Do not modify it."""
        self.data: bytes | None = None
        """The document's bytes as last read."""
        self._version: Version = ""
        """Version of the object that these bytes come from; empty if unknown."""
        self._state = ""
        # Document and version belong together. Threads that share an instance must never write one
        # thread's document with the version of another.
        self._lock = threading.RLock()

    @property
    def place(self) -> str:
        """The document's location, for messages."""
        return f"{self.objects.location}/{self.key}"

    @property
    def attributes(self) -> dict[str, Any]:
        """The document's attributes as last read. Do not modify them."""
        attributes: dict[str, Any] = self.document.get("attributes", {})
        return attributes

    def snapshot(self) -> Self:
        """Return an independent copy with the same content."""
        with self._lock:
            other = copy.copy(self)
        other._lock = threading.RLock()
        return other

    def is_still(self) -> bool:
        """Return True if the document is certainly unchanged, without a request."""
        return self.objects.is_still(self.key, self._state)

    def load(self) -> bool:
        """Read the document again; return True if it exists."""
        with self._lock:
            if self.objects.is_still(self.key, self._state):
                return True
            self._state = ""
            found = self.objects.read(self.key, MAX_DOCUMENT_BYTES)
            if found is None:
                return False
            if found.data != self.data:
                self.document = self.parse(found.data)
            self.data, self._version, self._state = found.data, found.version, found.state
            return True

    def reload(self) -> None:
        """Read the document again; raise the error for a missing one if it no longer exists."""
        if not self.load():
            raise self.missing()

    def parse(self, data: bytes) -> Document:
        """Return the parsed document, if the check accepts it.

        Raises
        ------
        DamagedError
            If it has changed since it was written. The check may raise further errors.
        """
        document = from_json(data, self.place)
        if self._check is not None:
            self._check(document)
        if self._external is not None and not has_checksum(data):
            self._external(document)
        return document

    def create(self, document: Document) -> bool:
        """Write a new document; return False if one exists."""
        return self._write(document, self.objects.create)

    def swap(self, change: Callable[[Document], None]) -> bool:
        """Apply a change to the document as last read; return False if that is out of date."""
        with self._lock:
            document = copy.deepcopy(self.document)
            change(document)
            return self._replace(document)

    def _replace(self, document: Document) -> bool:
        return self._write(document, partial(self.objects.replace, version=self._version))

    def _write(self, document: Document, write: Callable[[str, bytes], Version | None]) -> bool:
        """Write the document, if ``write`` succeeds; it returns the new version or None."""
        with self._lock:
            data = to_json(document)
            version = write(self.key, data)
            if version is None:
                return False
            self.document, self._version, self.data, self._state = document, version, data, ""
            return True

    def update(self, change: Callable[[Document], bool | None]) -> bool:
        """Apply a change and write the document back.

        Parameters
        ----------
        change : callable
            Modifies the given document. It is called again with the newer document whenever
            another writer came first, so it must depend on nothing else. It returns False if
            nothing needs to change, and raises if the change is impossible.

        Returns
        -------
        bool
            True if something was changed.

        Raises
        ------
        ConflictError
            If other writers came first every time.
        """
        with self._lock:
            document = copy.deepcopy(self.document)
            # It may be outdated: then neither "nothing to change" nor an error is reliable.
            try:
                is_changed = bool(self._version) and change(document) is not False
            except Exception:
                is_changed = False
            if is_changed and self._replace(document):
                return True
            for _ in (attempts := Attempts(self.objects.patience)):
                self.reload()
                document = copy.deepcopy(self.document)
                if change(document) is False:
                    return False
                if self._replace(document):
                    return True
        raise ConflictError(
            f"{self.place}: other writers changed it {attempts} while this process tried to"
        )


class LiveAttributes(Attributes):
    """The attributes of one ``zarr.json``, as a mapping that saves each change.

    It is an instance of zarr's class, because programs for the existing module expect one. It
    differs in two ways. Each change is a compare-and-swap of the one attribute, so an old instance
    does not undo changes by others. And attributes that follow from the table's state are
    read-only.

    Values are JSON: str, int, float, bool, None, and lists and dicts of these. NumPy scalars are
    converted to these. As in zarr-python, NaN and infinities are written as NaN and Infinity.

    Parameters
    ----------
    document : MetadataDocument
        The document that contains the attributes.
    own : frozenset of str
        Names of read-only attributes.
    guard : callable
        Called before each change; raises if changes are not allowed.
    """

    def __init__(
        self, document: MetadataDocument, own: frozenset[str], guard: Callable[[], None]
    ) -> None:
        # The parent's __init__ requires a Zarr array or group, and would write through it.
        self._live, self._own, self._guard = document, own, guard

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._live.attributes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._live.attributes))

    def __len__(self) -> int:
        return len(self._live.attributes)

    def __contains__(self, key: object) -> bool:
        return key in self._live.attributes

    def __repr__(self) -> str:
        return repr(self.asdict())

    def asdict(self) -> dict[str, Any]:
        """Return a copy as a dict."""
        return copy.deepcopy(self._live.attributes)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        def change(attributes: dict[str, Any]) -> None:
            if key not in attributes:
                raise KeyError(key)
            self._refuse_own(key)
            del attributes[key]

        self._change(change)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several attributes at once. The arguments are those of ``dict.update``."""
        new = {key: json_value(key, value) for key, value in dict(*args, **kwargs).items()}

        def change(attributes: dict[str, Any]) -> None:
            for key, value in new.items():
                if key not in attributes or not same_json(attributes[key], value):
                    self._refuse_own(key)
                attributes[key] = value

        self._change(change)

    def put(self, d: Mapping[str, Any]) -> None:
        """Replace all attributes except those that follow from the table's state."""
        new = {key: json_value(key, value) for key, value in d.items()}

        def change(attributes: dict[str, Any]) -> None:
            for key, value in new.items():
                if key in self._own and not (
                    key in attributes and same_json(attributes[key], value)
                ):
                    self._refuse_own(key)
            kept = {key: value for key, value in attributes.items() if key in self._own}
            attributes.clear()
            attributes.update(kept | new)

        self._change(change)

    def clear(self) -> None:
        """Remove all attributes except those that follow from the table's state."""
        self.put({})

    def popitem(self) -> tuple[str, Any]:
        """Remove the attribute set last; return its name and value."""
        for key in reversed(self._live.attributes):
            if key not in self._own:
                return key, self.pop(key)
        raise KeyError("there is no attribute that can be removed")

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an attribute; if it does not exist, set it to ``default`` first."""
        self._guard()
        return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove an attribute and return it; if it does not exist, return ``default``."""
        self._guard()
        return super().pop(key, *default)

    def _refuse_own(self, key: str) -> None:
        if key in self._own:
            raise ArgumentError(
                f"{self._live.place}: the attribute {key} follows from the table's state and "
                "can't be set or removed by hand"
            )

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        self._guard()

        def in_document(document: Document) -> bool:
            before = copy.deepcopy(document.setdefault("attributes", {}))
            change(document["attributes"])
            return not same_json(before, document["attributes"])

        self._live.update(in_document)
