"""One ``zarr.json``, and the only way it is changed: compare-and-swap.

A change is a function that alters the document in place. It is applied to the document
as it is now, and put back only if nobody else changed it in between; otherwise it is
read again and the change applied again. So two writers who change different things both
succeed, and neither puts back what the other has changed.
"""

import copy
import threading
from collections.abc import Callable
from typing import Any, Self

from ratzarr.concurrency import Attempts
from ratzarr.errors import ConflictError
from ratzarr.format.limits import MAX_DOCUMENT_BYTES
from ratzarr.format.names import Document, from_json, has_checksum, to_json
from ratzarr.stores.base import Objects

__all__ = ["MetadataDocument"]


class MetadataDocument:
    """A ``zarr.json`` as last seen.

    Parameters
    ----------
    objects : Objects
        The store.
    key : str
        The document's key, ending in ``zarr.json``.
    check : callable, optional
        Called with each document that is read, to refuse it by an exception.
    external : callable, optional
        Called with each document that another program has written, to note that in it.
    """

    def __init__(
        self,
        objects: Objects,
        key: str,
        check: Callable[[Document], None] | None = None,
        external: Callable[[Document], None] | None = None,
    ) -> None:
        self.objects, self.key = objects, key
        self._check, self._external = check, external
        self._document: Document = {}
        self._version = ""
        self._data: bytes | None = None
        self._state = ""
        """Of the object whose data these are; empty where nothing tells."""
        # Document and version belong together: threads that share an instance must never
        # put back one thread's document under another's version.
        self._lock = threading.RLock()

    @property
    def place(self) -> str:
        """Where the document is, for messages."""
        return f"{self.objects.location}/{self.key}"

    @property
    def document(self) -> Document:
        """The document as last seen; not to be changed."""
        return self._document

    @property
    def data(self) -> bytes | None:
        """The document's bytes as last seen."""
        return self._data

    @property
    def attributes(self) -> dict[str, Any]:
        """The document's attributes as last seen; not to be changed."""
        attributes: dict[str, Any] = self._document.get("attributes", {})
        return attributes

    def snapshot(self) -> Self:
        """Return another that has last seen the same, and changes for itself from now on."""
        with self._lock:
            other = type(self)(self.objects, self.key, self._check, self._external)
            other._document, other._version, other._data = (
                self._document, self._version, self._data,
            )  # fmt: skip
            other._state = self._state
            return other

    def is_still(self) -> bool:
        """Return whether the document is as last seen, where that can be told at once."""
        return self.objects.is_still(self.key, self._state)

    def load(self) -> bool:
        """Read the document again; return whether there is one."""
        with self._lock:
            if self.objects.is_still(self.key, self._state):
                return True
            self._state = ""
            found = self.objects.get_versioned(self.key, MAX_DOCUMENT_BYTES)
            if found is None:
                return False
            if found.data != self._data:
                self._document = self.parse(found.data)
            self._data, self._version, self._state = found.data, found.version, found.state
            return True

    def parse(self, data: bytes) -> Document:
        """Return the document that these bytes are, if it may be this one.

        Raises
        ------
        DamagedError
            Where it is not what was written, and what else the check raises.
        """
        document = from_json(data, self.place)
        if self._check is not None:
            self._check(document)
        if self._external is not None and not has_checksum(data):
            self._external(document)
        return document

    def create(self, document: Document) -> bool:
        """Write a new document; return False where there is one already."""
        with self._lock:
            data = to_json(document)
            version = self.objects.create(self.key, data)
            if version is None:
                return False
            self._document, self._version, self._data, self._state = document, version, data, ""
            return True

    def swap(self, change: Callable[[Document], None]) -> bool:
        """Apply a change to the document as last seen; False if it is no longer that one."""
        with self._lock:
            document = copy.deepcopy(self._document)
            change(document)
            data = to_json(document)
            version = self.objects.replace(self.key, data, self._version)
            if version is None:
                return False
            self._document, self._version, self._data, self._state = document, version, data, ""
            return True

    def update(
        self,
        change: Callable[[Document], bool | None],
        missing: Callable[[], Exception],
    ) -> bool:
        """Apply a change and put the document back.

        Parameters
        ----------
        change : callable
            Alters the document it is given. Called again, with the newer document, each
            time another writer came first, so it may depend on nothing else. Returning
            False means that there is nothing to change, an exception that it can't be.
        missing : callable
            Makes the error for a document that is no longer there.

        Returns
        -------
        bool
            Whether there was something to change.

        Raises
        ------
        ConflictError
            Where others came first every time.
        """
        with self._lock:
            fresh = False
            for attempt in (attempts := Attempts(self.objects.patience)):
                if attempt or not self._version:
                    if not self.load():
                        raise missing()
                    fresh = True
                document = copy.deepcopy(self._document)
                # That an earlier state needs no change, or can't be changed, proves nothing.
                try:
                    if change(document) is False:
                        if fresh:
                            return False
                        continue
                except Exception:
                    if fresh:
                        raise
                    continue
                data = to_json(document)
                version = self.objects.replace(self.key, data, self._version)
                if version is not None:
                    self._document, self._version, self._data, self._state = (
                        document,
                        version,
                        data,
                        "",
                    )
                    return True
        raise ConflictError(
            f"{self.place}: other writers changed it {attempts} while it was to be changed"
        )
