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

from ratzarr.columns.catalog import Catalog
from ratzarr.columns.column import Column
from ratzarr.errors import ChangedError, InvalidNameError, RatZarrError
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    COLUMN_ORDER_ATTR,
    GROUP,
    PENDING,
    ZARR_JSON,
    Document,
    order_of,
    plausible_keys,
    root_document,
    to_json,
)
from ratzarr.maintenance.column_check import ColumnCheck
from ratzarr.stores.base import Objects, Owner
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
    "keys_of",
    "mend_order",
    "remove_folder",
    "remove_impossible",
    "remove_old",
    "remove_orphans",
    "remove_pending",
    "sweep",
]

PROVENANCE_ATTR = "PROVENANCE"
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
        None if rows are missing, or if an existing chunk may lack rows.
    """
    state = check.state
    if state is None or check.document is None or check.missing(state.rows):
        return None
    if any(finding.wrong and finding.kind != "unfinished" for finding in check.findings):
        return None
    provenance = check.document.get("attributes", {}).get(PROVENANCE_ATTR)
    operation = provenance.get("operation") if isinstance(provenance, dict) else None
    if not state.complete and operation != WHOLE_CHUNKS:
        return None
    waits = check.prefix.startswith(PENDING)

    def act() -> bool:
        # Two processes that move the same column into place would undo each other's work.
        if waits and _busy(check, patience):
            return False
        with opened() as table:
            attributes = table.resumeColumn(check.name)
            if attributes is None or attributes.get(COLUMN_ID_ATTR, "") != state.id:
                return False
            if table.getMissingRows(check.name):
                return False
            table.setComplete(check.name)
        return True

    return Repair("move it into place" if waits else "mark it complete", act)


def _busy(check: ColumnCheck, patience: float) -> bool:
    def now() -> list[tuple[str, str]]:
        prefixes = check.prefix, f"{GROUP}/{check.key}"
        return sorted(one for prefix in prefixes for one in check.objects.list_versions(prefix))

    before = now()
    time.sleep(patience)
    return now() != before or check.objects.get(f"{check.prefix}/{ZARR_JSON}") != check.data


def finish_resize(
    objects: Objects, table: MetadataDocument, words: str = "finish the change of the row count"
) -> Repair:
    """Bring all columns and ROWCOUNT to the table's row count."""

    def act() -> bool:
        catalog = Catalog(objects, table)
        catalog.all({})
        for error in catalog.left_out.values():
            # An unreadable column would keep its length.
            raise error
        catalog.resizing.finish()
        return True

    return Repair(words, act)


def keys_of(name: str) -> tuple[str, ...]:
    """Return the keys at which a column may be stored; none for an invalid column name."""
    try:
        return plausible_keys(name)
    except InvalidNameError:
        return ()


def mend_order(
    objects: Objects, table: MetadataDocument, gone: list[str], left_out: list[str]
) -> Repair:
    """Remove names from the order of columns, and append others."""

    def there(name: str) -> bool:
        return bool(keys_of(name)) and Column.find(objects, name) is not None

    def act() -> bool:
        out = {name for name in gone if not there(name)}
        more = [name for name in left_out if there(name)]

        def change(document: Document) -> bool:
            order = order_of(document) or []
            mended = list(dict.fromkeys(name for name in [*order, *more] if name not in out))
            document["attributes"][COLUMN_ORDER_ATTR] = mended
            return mended != order

        table.update(change, Catalog(objects, table).table_missing)
        return True

    return Repair("correct the order of columns", act)


# ---- removing objects without a column


def remove_orphans(check: ColumnCheck) -> Repair:
    """Remove chunks without a column."""
    objects, prefix = check.objects, check.prefix

    def still_none(data: bytes | None) -> None:
        if data != check.data:
            raise ChangedError(f"{objects.location}/{prefix}: a column has been created here")

    def act() -> bool:
        document = f"{prefix}/{ZARR_JSON}"
        still_none(objects.get(document))
        if prefix.startswith(PENDING):
            # The name is random, so no process creates another column of this name.
            objects.delete(check.orphans)
        elif isinstance(objects, LocalObjects):
            owner = Owner(prefix, "", still_none)
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

    return Repair("remove them", act)


def erase_beyond(check: ColumnCheck) -> Repair:
    """Replace chunks beyond a column's end by empty ones."""
    objects, prefix, state = check.objects, check.prefix, check.state

    def still(data: bytes | None) -> None:
        if data != check.data:
            raise ChangedError(f"{objects.location}/{prefix}: the column has been changed")

    def act() -> bool:
        assert state is not None  # noqa: S101 - for mypy: only readable columns have such chunks
        column = Column(objects, check.name, check.key, prefix)
        blank = partial(_blank, column, check)
        owner = Owner(prefix, state.mark, still)
        wanted = set(check.beyond)
        # Use versions from before the document was read: a process that writes rows there
        # afterwards either changes the version or is seen in the document.
        found = [one for one in objects.list_versions(prefix) if one[0] in wanted]
        still(objects.get(f"{prefix}/{ZARR_JSON}"))
        erased = [objects.erase(key, version, blank, owner) for key, version in found]
        return all(erased)

    return Repair("empty them", act)


def _blank(column: Column, check: ColumnCheck) -> bytes:
    assert check.state is not None  # noqa: S101 - for mypy
    return check.state.codec.encode(column.blank(check.state))


def remove_impossible(check: ColumnCheck) -> Repair:
    """Remove objects with chunk-like keys that the column never uses."""

    def act() -> bool:
        if check.objects.get(f"{check.prefix}/{ZARR_JSON}") != check.data:
            return False
        check.objects.delete(check.impossible)
        return True

    return Repair("remove them", act)


def remove_pending(check: ColumnCheck) -> Repair:
    """Remove a column from the directory where it was built, or where it was moved for removal."""

    def act() -> bool:
        # Only if it is unchanged: an old column, or a duplicate of one already in place.
        if check.objects.get(f"{check.prefix}/{ZARR_JSON}") != check.data:
            return False
        check.objects.delete_tree(check.prefix)
        return True

    return Repair("remove it", act)


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


def sweep(local: LocalObjects, name: str) -> Repair:
    """Remove the leftovers of dead writers in the root."""

    def act() -> bool:
        if name in local.litter():
            local.sweep()
        return not os.path.lexists(_path(local, name))

    return Repair("remove it", act)


def remove_old(local: LocalObjects, key: str) -> Repair:
    """Remove a temporary file."""

    def act() -> bool:
        if is_old(local, key):
            local.delete([key])
        return not os.path.lexists(_path(local, key))

    return Repair("remove it", act)


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


def remove_folder(local: LocalObjects, key: str) -> Repair:
    """Remove a directory and its subdirectories, unless files have been added meanwhile."""

    def act() -> bool:
        for folder, _, _ in os.walk(_path(local, key), topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                return False
        return True

    return Repair("remove it", act)
