"""Repairs: remove leftovers, and complete operations that lack only their last step.

Repairs never change values. Other processes may use the store meanwhile, so each repair checks the
state again and, if the store supports it, acts conditionally. Objects that have become part of a
column meanwhile stay.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ratzarr.columns.catalog import Catalog, keys_of
from ratzarr.columns.column import Column
from ratzarr.errors import ChangedError, RatZarrError
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    COLUMN_ORDER_ATTR,
    GROUP,
    PENDING,
    PROVENANCE_ATTR,
    ZARR_JSON,
    Document,
    order_of,
    root_document,
    to_json,
)
from ratzarr.maintenance.column_check import ColumnCheck
from ratzarr.stores.base import ChunkOwner, Objects
from ratzarr.stores.document import MetadataDocument
from ratzarr.stores.local import LocalObjects
from ratzarr.table import RatZarr

__all__ = [
    "REMOVING",
    "Repair",
    "complete",
    "empty_folders",
    "erase_beyond",
    "finish_resize",
    "is_link",
    "is_old",
    "mend_order",
    "remove_folder",
    "remove_impossible",
    "remove_old",
    "remove_orphans",
    "remove_pending",
    "sweep",
]

WHOLE_CHUNKS = "copy"
"""The operation that writes whole chunks, so that an existing chunk is complete."""
REMOVING = {**root_document(), "attributes": {"REMOVING": True}}
"""Reserves a column's name while its last chunks are removed from an object store."""
OLD = 3600.0
"""Seconds after which an unlocked temporary file has no writer any more."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair for a finding."""

    words: str
    """Description of the repair, to follow "would" or "will"."""
    act: Callable[[], bool]
    """Makes the repair; returns False if another process came first."""

    def do(self) -> str | None:
        """Make the repair; return the reason if it was not made, otherwise None."""
        try:
            done = self.act()
        except (RatZarrError, FileNotFoundError) as error:
            return " ".join(str(error).split())
        return None if done else "another process is at work there, or came first"


# ---- completing operations


def complete(check: ColumnCheck, opened: Callable[[], RatZarr], patience: float) -> Repair | None:
    """Mark a column complete if all of its chunks exist and can be read.

    Parameters
    ----------
    check : ColumnCheck
        The check of an unfinished column, or of a replacement column.
    opened : callable
        Opens the table for writing.
    patience : float
        Seconds within which another process that is moving the column into place makes a change.

    Returns
    -------
    Repair or None
        None if rows are missing or were cut off, or if an existing chunk may lack rows.
    """
    state = check.state
    if state is None or check.document is None or check.missing(state.rows):
        return None
    if not state.complete and state.never_cut(state.rows) < state.rows:
        return None
    if any(finding.wrong and finding.kind != "unfinished" for finding in check.findings):
        return None
    provenance = check.document.get("attributes", {}).get(PROVENANCE_ATTR)
    operation = provenance.get("operation") if isinstance(provenance, dict) else None
    if not state.complete and operation != WHOLE_CHUNKS:
        return None
    words = "move it into place" if check.prefix.startswith(PENDING) else "mark it complete"
    return Repair(words, partial(_complete, check, state.id, opened, patience))


def _complete(
    check: ColumnCheck, own: str, opened: Callable[[], RatZarr], patience: float
) -> bool:
    # Two processes that move the same column into place would undo each other's work.
    if check.prefix.startswith(PENDING) and _busy(check, patience):
        return False
    with opened() as table:
        attributes = table.resumeColumn(check.name)
        if attributes is None or attributes.get(COLUMN_ID_ATTR, "") != own:
            return False
        if table.getMissingRows(check.name):
            return False
        table.setComplete(check.name)
    return True


def _busy(check: ColumnCheck, patience: float) -> bool:
    def now() -> list[tuple[str, str]]:
        prefixes = check.prefix, f"{GROUP}/{check.key}"
        return sorted(one for prefix in prefixes for one in check.objects.list_versions(prefix))

    before = now()
    time.sleep(patience)
    return now() != before or check.objects.get(f"{check.prefix}/{ZARR_JSON}") != check.data


def finish_resize(table: MetadataDocument) -> bool:
    """Bring all columns and ROWCOUNT to the table's row count."""
    catalog = Catalog(table)
    catalog.all({})
    for error in catalog.left_out.values():
        # An unreadable column would keep its length.
        raise error
    catalog.resizing.finish()
    return True


def mend_order(
    objects: Objects, table: MetadataDocument, gone: list[str], left_out: list[str]
) -> bool:
    """Remove names from the order of columns, and append others."""

    def exists(name: str) -> bool:
        return bool(keys_of(name)) and Column.find(objects, name) is not None

    out = {name for name in gone if not exists(name)}
    more = [name for name in left_out if exists(name)]

    def change(document: Document) -> bool:
        order = order_of(document) or []
        mended = list(dict.fromkeys(name for name in [*order, *more] if name not in out))
        document["attributes"][COLUMN_ORDER_ATTR] = mended
        return mended != order

    table.update(change)
    return True


# ---- removing objects without a column


def _refuse_change(check: ColumnCheck, data: bytes | None) -> None:
    """Raise an error if a column's document is not the one that was checked."""
    if data != check.data:
        raise ChangedError(f"{check.objects.location}/{check.prefix}: the column has changed")


def _refuse_change_now(check: ColumnCheck) -> None:
    _refuse_change(check, check.objects.get(f"{check.prefix}/{ZARR_JSON}"))


def remove_orphans(check: ColumnCheck) -> bool:
    """Remove chunks without a column."""
    objects, document = check.objects, f"{check.prefix}/{ZARR_JSON}"
    _refuse_change_now(check)
    if check.prefix.startswith(PENDING):
        # The name is random, so no process creates another column of this name.
        objects.delete(check.orphans)
    elif isinstance(objects, LocalObjects):
        owner = ChunkOwner(check.prefix, "", partial(_refuse_change, check))
        for key in check.orphans:
            objects.erase(key, "", bytes, owner)
        if check.data is not None:
            objects.delete([document])
    else:
        # Object stores have no conditional delete, so the name is reserved meanwhile.
        if check.data is None and objects.create(document, to_json(REMOVING)) is None:
            return False
        objects.delete([*check.orphans, document])
    return True


def erase_beyond(check: ColumnCheck) -> bool:
    """Replace chunks beyond a column's end by empty ones."""
    objects, prefix, state = check.objects, check.prefix, check.state
    assert state is not None  # noqa: S101 - for mypy: only readable columns have such chunks
    column = Column(objects, check.name, check.key, prefix)
    owner = ChunkOwner(prefix, state.owner_tag, partial(_refuse_change, check))
    wanted = set(check.beyond)
    # Use versions from before the document was read: a process that writes rows there afterwards
    # either changes the version or is seen in the document.
    found = [one for one in objects.list_versions(prefix) if one[0] in wanted]
    _refuse_change_now(check)

    def blank() -> bytes:
        return state.codec.encode(column.blank(state))

    erased = [objects.erase(key, version, blank, owner) for key, version in found]
    return all(erased)


def remove_impossible(check: ColumnCheck) -> bool:
    """Remove objects with chunk-like keys that the column never uses."""
    _refuse_change_now(check)
    check.objects.delete(check.impossible)
    return True


def remove_pending(check: ColumnCheck) -> bool:
    """Remove a column from the directory where it was built, or where it was moved for removal.

    Only if it is unchanged: an old column, or a duplicate of one already in place.
    """
    _refuse_change_now(check)
    check.objects.delete_tree(check.prefix)
    return True


# ---- local disks only


def _path(local: LocalObjects, key: str) -> Path:
    return Path(local.location.path, key)


def is_link(local: LocalObjects, key: str) -> bool:
    """Return True if the path is a symbolic link."""
    return _path(local, key).is_symlink()


def is_old(local: LocalObjects, key: str) -> bool:
    """Return True if a file's last change is so old that its writer must have ended."""
    try:
        return time.time() - _path(local, key).lstat().st_mtime > OLD
    except FileNotFoundError:
        return False


def sweep(local: LocalObjects, name: str) -> bool:
    """Remove the leftovers of dead writers in the root."""
    if name in local.litter():
        local.sweep()
    return not os.path.lexists(_path(local, name))


def remove_old(local: LocalObjects, key: str) -> bool:
    """Remove a temporary file."""
    if is_old(local, key):
        local.delete([key])
    return not os.path.lexists(_path(local, key))


def empty_folders(local: LocalObjects) -> Iterator[str]:
    """Yield the keys of directories of columns that contain no file, only empty directories.

    A process that was killed while it created or deleted a column leaves them.
    """
    try:
        with os.scandir(_path(local, GROUP)) as entries:
            folders = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(folders):
        if _is_empty(_path(local, f"{GROUP}/{name}")):
            yield f"{GROUP}/{name}"


def _is_empty(path: Path) -> bool:
    return not any(
        files or any(Path(folder, name).is_symlink() for name in folders)
        for folder, folders, files in os.walk(path)
    )


def remove_folder(local: LocalObjects, key: str) -> bool:
    """Remove a directory and its subdirectories, unless files have been added meanwhile."""
    try:
        for folder, _, _ in os.walk(_path(local, key), topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True
