"""Operations on whole stores: open, create, find, recognise and delete.

A RatZarr is a Zarr group that contains a group ``RAT``. Anything else at a location is refused by
name and left unchanged. This module accesses nothing outside the location.
"""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, StorePath

from ratzarr.errors import (
    ArgumentError,
    DamagedError,
    NotARatZarrError,
    ReadOnlyError,
    TableNotFoundError,
)
from ratzarr.format.limits import MAX_DOCUMENT_BYTES
from ratzarr.format.names import (
    GROUP,
    PENDING,
    TABLE_KEY,
    ZARR_JSON,
    check_table_document,
    first_of,
    from_json,
    root_document,
    table_document,
    to_json,
)
from ratzarr.stores.base import Location, Objects, parse
from ratzarr.stores.document import MetadataDocument
from ratzarr.stores.local import LocalObjects
from ratzarr.stores.zarr_store import StoreObjects

__all__ = [
    "Place",
    "check_writable",
    "delete",
    "is_litter",
    "is_ours",
    "is_valid",
    "open_objects",
    "open_place",
    "open_table",
    "table_metadata",
]

type Place = str | os.PathLike[str] | Store | StorePath
"""The location of a table: a name, or a zarr store that contains the table."""


def open_place(filename: Any, options: Mapping[str, Any] | None = None) -> Objects:
    """Return the objects of the store that a user names or passes.

    Parameters
    ----------
    filename : str, os.PathLike, zarr.abc.store.Store or zarr.storage.StorePath
        See :func:`ratzarr.stores.base.parse`. In a zarr store the table is at the root; use a
        ``StorePath`` for another path.
    options : mapping, optional
        Arguments for the file system of the filename.

    Raises
    ------
    ArgumentError
        For other objects, and for options with a store, which has its own options.
    """
    if not isinstance(filename, Store | StorePath):
        return open_objects(parse(filename), options)
    if options:
        raise ArgumentError(
            f"storageOptions apply to names: {filename} is a store with its own options"
        )
    store, path = (
        (filename.store, filename.path) if isinstance(filename, StorePath) else (filename, "")
    )
    folder = _local_folder(store)
    if folder is not None:
        # zarr's own local writer has no locks, and fsspec's leaves half a chunk when interrupted.
        local = LocalObjects(parse(str(Path(folder, path))))
        if store.read_only:
            local.read_only_reason = f"the {type(store).__name__} was opened for reading only"
        return local
    return StoreObjects(store, path)


def _local_folder(store: Store) -> str | None:
    if type(store) is LocalStore:
        return str(store.root)
    if isinstance(store, FsspecStore):
        protocols = store.fs.protocol
        if "file" in ([protocols] if isinstance(protocols, str) else protocols):
            return str(store.path)
    return None


def check_writable(objects: Objects) -> None:
    """Raise an error if the location is read-only.

    Raises
    ------
    ReadOnlyError
        Gives the reason.
    """
    if not objects.writable:
        raise ReadOnlyError(f"{objects.location} is for reading only: {objects.read_only_reason}")


def open_objects(location: Location, options: Mapping[str, Any] | None = None) -> Objects:
    """Return the objects of a store, without accessing it."""
    if location.kind == "local":
        return LocalObjects(location)
    if location.kind == "s3":
        # Importing the S3 client takes longer than most work on a local table.
        from ratzarr.stores.s3 import S3Objects

        return S3Objects(location, options)
    return StoreObjects.at(location, options)


def table_metadata(objects: Objects) -> MetadataDocument:
    """Return the table's own document, not yet loaded."""
    place = f"{objects.location}/{TABLE_KEY}"
    gone = partial(TableNotFoundError, f"there is no RatZarr at {objects.location} any more")
    return MetadataDocument(objects, TABLE_KEY, gone, partial(check_table_document, place=place))


def open_table(
    objects: Objects, rows: int, chunk_rows: int, *, create: bool
) -> tuple[MetadataDocument, bool]:
    """Open a table, or create it if there is none.

    If several processes create the same store at once, all succeed and share one table.

    Parameters
    ----------
    objects : Objects
        The store's location.
    rows, chunk_rows : int
        The row count and chunk size, if this call creates the table.
    create : bool
        Create the table if there is none.

    Returns
    -------
    document : MetadataDocument
        The table's document as read or written.
    is_new : bool
        True if the table did not exist.

    Raises
    ------
    TableNotFoundError
        If it does not exist and ``create`` is False.
    NotARatZarrError
        If something else exists there.
    ReadOnlyError
        If it does not exist and the location cannot be written.
    """
    table = table_metadata(objects)
    if table.load():
        return table, False
    if not create:
        if refuse_foreign_root(objects) and _has_come(table):
            return table, False
        raise TableNotFoundError(f"there is no RatZarr at {objects.location}")
    check_writable(objects)
    if isinstance(objects, LocalObjects):
        _refuse_other_content(objects)
    if objects.create(ZARR_JSON, to_json(root_document())) is None:
        refuse_foreign_root(objects)
        if _has_come(table):
            return table, False
    if not table.create(table_document(rows, chunk_rows)):
        table.load()
    return table, True


def _refuse_other_content(objects: LocalObjects) -> None:
    if Path(objects.location.path).is_file():
        raise NotARatZarrError(f"{objects.location} is not a RatZarr: it is a file")
    strangers = [key for key in objects.list_tree("") if not is_ours(key)]
    if strangers:
        raise NotARatZarrError(
            f"{objects.location} is not a RatZarr: it is a directory that holds {first_of(sorted(strangers), 3)}"
        )


def _has_come(table: MetadataDocument) -> bool:
    """Look again for a table of which the root exists: another process may be creating it.

    Raises
    ------
    NotARatZarrError
        If there are columns without a table.
    """
    objects = table.objects
    has_columns = bool(objects.list_dirs(GROUP))
    if table.load():
        return True
    if has_columns:
        raise NotARatZarrError(
            f"{objects.location} is not a RatZarr, but a part of one: it has columns, and no "
            f"{TABLE_KEY}. Resume the copy or move that was interrupted, or restore this file"
        )
    return False


def refuse_foreign_root(objects: Objects) -> bool:
    """Raise an error if the store's root is not one that ratzarr writes.

    A root of ours without a table comes from a process that is creating it, or was killed
    meanwhile. It is completed.

    Returns
    -------
    bool
        True if there is a root.

    Raises
    ------
    NotARatZarrError
        Describes the root.
    """
    data = objects.get(ZARR_JSON, MAX_DOCUMENT_BYTES)
    if data is None:
        return False
    found = from_json(data, f"{objects.location}/{ZARR_JSON}")
    if found != root_document():
        kind = found.get("node_type", "node")
        raise NotARatZarrError(
            f"{objects.location} is not a RatZarr: it is a Zarr {kind} without a group {GROUP}"
        )
    return True


def is_valid(objects: Objects) -> bool:
    """Return True if the location has a RatZarr that this version can read."""
    try:
        root = objects.get(ZARR_JSON, MAX_DOCUMENT_BYTES)
        if root is None or from_json(root, ZARR_JSON).get("node_type") != "group":
            return False
        return table_metadata(objects).load()
    except (NotARatZarrError, DamagedError):
        return False


def delete(objects: Objects) -> None:
    """Delete a RatZarr; do nothing if nothing exists.

    Raises
    ------
    NotARatZarrError
        If something else exists there, or foreign objects besides the table. Nothing is deleted
        then.
    ReadOnlyError
        If the location is read-only.
    """
    if not objects.occupied():
        return
    check_writable(objects)
    if isinstance(objects, LocalObjects) and Path(objects.location.path).is_symlink():
        raise NotARatZarrError(
            f"{objects.location} is a symbolic link: delete the store it leads to by its own name"
        )
    strangers: list[str] = []
    is_empty, has_table = True, False
    for key in objects.list_tree(""):
        is_empty, has_table = False, has_table or key == TABLE_KEY
        if not is_ours(key):
            strangers.append(key)
    is_remains = not (strangers or has_table) and _is_remains(objects, is_empty)
    if not is_valid(objects) and not is_remains:
        raise NotARatZarrError(f"{objects.location} is not a RatZarr: it was not deleted")
    if strangers:
        raise NotARatZarrError(
            f"{objects.location} was not deleted: besides the RatZarr it holds {first_of(sorted(strangers), 3)}"
        )
    # After an interruption, the rest can still be recognised and deleted.
    last = (TABLE_KEY, ZARR_JSON)
    objects.delete(k for k in objects.list_tree("") if k not in last and is_ours(k))
    objects.delete(last)
    objects.remove_place()


# Documents, chunks, and leftovers of killed writers (ours, or zarr's local store). A name with /
# makes upstream nest its groups.
_OURS = re.compile(
    rf"""{re.escape(ZARR_JSON)}
    | {GROUP}/(?:.+/)?(?:{re.escape(ZARR_JSON)} | c(?:[/.][0-9]+)+)
    | (?:{GROUP}/.+)?[^/]*\.[0-9a-f]{{32}}\.partial
    | \.[0-9a-f]{{32}}\.deleted/.+
    | {re.escape(PENDING)}/[^/]+/[0-9a-f]+/(?:{re.escape(ZARR_JSON)} | c(?:/[0-9]+)+)""",
    re.VERBOSE | re.DOTALL,
)


def is_ours(key: str) -> bool:
    """Return True if an object belongs to a table or is a leftover of a killed writer."""
    return _OURS.fullmatch(key) is not None


def is_litter(key: str) -> bool:
    """Return True if an object is a temporary file or a tree being deleted."""
    return is_ours(key) and (
        key.endswith(".partial") or key.partition("/")[0].endswith(".deleted")
    )


def _is_remains(objects: Objects, is_empty: bool) -> bool:
    """Return True if the objects are the remains of a store that was being deleted.

    That is nothing (empty directories), or only the root's document exactly as we write it, with
    its checksum, which no other program writes.
    """
    if not is_empty:
        return objects.get(ZARR_JSON) == to_json(root_document())
    if isinstance(objects, LocalObjects):
        return not Path(objects.location.path).is_file()
    # An object whose key is exactly the store's name belongs to another program.
    return not objects.occupied()
