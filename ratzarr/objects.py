"""A store as a set of objects, named by keys relative to the store's root.

Everything that reads or writes a store does it through this protocol, of which there is
one implementation for each kind of place. Two rules carry the rest of the package: an
object is replaced whole or not at all, and :meth:`Objects.create` and
:meth:`Objects.replace` succeed only if nobody came in between.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from .location import Location

__all__ = ["Objects", "Versioned"]


@dataclass(frozen=True, slots=True)
class Versioned:
    """An object's bytes, and what tells this state of it from another."""

    data: bytes
    version: str


class Objects(Protocol):
    """The objects of one store. Thread-safe."""

    location: Location
    """The store's root."""
    writable: bool
    """Whether this kind of place can be written at all."""

    def get(self, key: str) -> bytes | None:
        """Return the object's bytes; None where there is none."""

    def get_versioned(self, key: str) -> Versioned | None:
        """Return the object with its version; None where there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Write the object, whatever was there."""

    def create(self, key: str, data: bytes) -> str | None:
        """Write the object if there is none; return its version, or None if there is."""

    def replace(self, key: str, data: bytes, version: str) -> str | None:
        """Write the object if it is still of this version; return the new one or None."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that aren't there are passed over."""

    def delete_tree(self, prefix: str) -> None:
        """Remove every object below ``prefix/``.

        Interrupted, it leaves nothing that could be taken for data: either all is gone
        from its place at once, or ``prefix/zarr.json`` goes last.
        """

    def list_dirs(self, prefix: str) -> list[str]:
        """Return the names of what has objects below it, directly below ``prefix/``."""

    def list_tree(self, prefix: str) -> list[str]:
        """Return the keys of all objects below ``prefix/`` (``""``: the whole store)."""

    def occupied(self) -> bool:
        """Return whether anything at all is at this place."""

    def list_beside(self) -> list[str]:
        """Return the names of directories beside this place that begin with its own name."""

    def remove_place(self) -> None:
        """Remove what is left of an emptied store: a directory; on object stores, nothing."""
