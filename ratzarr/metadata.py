"""One ``zarr.json``, and the only way it is changed: compare-and-swap.

A change is a function that alters the document in place. It is applied to the document
as it is now, and put back only if nobody else changed it in between; otherwise it is
read again and the change applied again. So two writers who change different things both
succeed, and neither puts back what the other has changed.
"""

import copy
import threading
from collections.abc import Callable
from typing import Any

from .backoff import TRIES, pause
from .errors import ConflictError
from .layout import Document, from_json, to_json
from .objects import Objects

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
    """

    def __init__(
        self, objects: Objects, key: str, check: Callable[[Document], None] | None = None
    ) -> None:
        self.objects, self.key = objects, key
        self._check = check
        self._document: Document = {}
        self._version = ""
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
    def attributes(self) -> dict[str, Any]:
        """The document's attributes as last seen; not to be changed."""
        attributes: dict[str, Any] = self._document.get("attributes", {})
        return attributes

    def load(self) -> bool:
        """Read the document again; return whether there is one."""
        with self._lock:
            found = self.objects.get_versioned(self.key)
            if found is None:
                return False
            document = from_json(found.data, self.place)
            if self._check is not None:
                self._check(document)
            self._document, self._version = document, found.version
            return True

    def create(self, document: Document) -> bool:
        """Write a new document; return False where there is one already."""
        with self._lock:
            version = self.objects.create(self.key, to_json(document))
            if version is None:
                return False
            self._document, self._version = document, version
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
            False means that there is nothing to change.
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
            for attempt in range(TRIES):
                pause(attempt)
                if (attempt or not self._version) and not self.load():
                    raise missing()
                document = copy.deepcopy(self._document)
                if change(document) is False:
                    return False
                version = self.objects.replace(self.key, to_json(document), self._version)
                if version is not None:
                    self._document, self._version = document, version
                    return True
        raise ConflictError(
            f"{self.place}: other writers changed it {TRIES} times while it was to be changed"
        )
