"""Copy a whole store to another location, object by object, and compare afterwards.

A table consists of many small objects, so many requests run in parallel, and each object is read
as a whole. Memory depends on the size of a chunk. Between two locations on S3 the server copies.
The identity of a chunk's column (:class:`~ratzarr.stores.base.ChunkOwner`) is copied with it: on S3 it
is kept, and copies from a disk get it.

An unfinished copy is not a table, because the table's document is written last. Each column's
document follows its chunks. The source of a finished move is removed in the other direction, the
table's document first, so that nobody reads a table with missing rows.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import run, stream
from ratzarr.errors import (
    Advice,
    ChangedError,
    DamagedError,
    NotARatZarrError,
    RatZarrError,
    StoreError,
    TableNotFoundError,
    UnsupportedCodecError,
)
from ratzarr.format.limits import MAX_DOCUMENT_BYTES
from ratzarr.format.names import (
    TABLE_KEY,
    ZARR_JSON,
    check_table_document,
    from_json,
    root_document,
    to_json,
)
from ratzarr.stores.base import ChunkOwner, Entry, Objects
from ratzarr.stores.open import check_writable, is_litter, is_ours, table_metadata

__all__ = ["Entry", "copy_store", "inventory", "remove_source"]

_CHUNK = re.compile(r"(.+)/c(?:[/.][0-9]+)+")

Change = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Maps the table's attributes to those of the copy."""


def inventory(objects: Objects, *, rest: bool = False) -> tuple[Entry, ...]:
    """Return the objects of a table by key, without the leftovers of killed writers.

    Parameters
    ----------
    objects : Objects
        The table's location.
    rest : bool
        Also accept the rest of a table, of which an interrupted move has removed some objects.

    Raises
    ------
    NotARatZarrError
        If the location holds something else, or foreign objects besides the table, such as a
        symbolic link or a user's file. The message names it.
    TableNotFoundError
        If the location is empty.
    """
    if objects.location.kind == "local" and Path(objects.location.path).is_symlink():
        raise NotARatZarrError(
            f"{objects.location} is a symbolic link, which is not followed: give the name of "
            "the store that it leads to"
        )
    found = list(objects.list_states(""))
    keys = {one.key for one in found}
    if (TABLE_KEY in keys or not rest) and not table_metadata(objects).load():
        if ZARR_JSON in keys and objects.get(ZARR_JSON) == to_json(root_document()):
            raise NotARatZarrError(
                f"{objects.location} is not a RatZarr, but a part of one: resume the copy or move "
                "that was interrupted"
            )
        if objects.occupied():
            raise NotARatZarrError(f"{objects.location} is not a RatZarr")
        raise TableNotFoundError(f"there is no RatZarr at {objects.location}")
    for one in found:
        if one.size < 0 and objects.location.kind == "local":
            raise NotARatZarrError(
                f"{objects.location}/{one.key} is a symbolic link or special file: links in a "
                "store are not followed"
            )
        if not is_ours(one.key):
            raise NotARatZarrError(
                f"besides the RatZarr, {objects.location} holds {one.key!r}, which does not "
                "belong to it. Move that away first."
            )
    return tuple(sorted((one for one in found if not is_litter(one.key)), key=lambda one: one.key))


def copy_store(
    source: Objects,
    target: Objects,
    entries: Sequence[Entry],
    *,
    change: Change | None = None,
    resume: bool = False,
    move: bool = False,
    report: Callable[[int], None] | None = None,
) -> int:
    """Copy a store, and compare the copy with its source.

    Parameters
    ----------
    source, target : Objects
        The two locations.
    entries : sequence of Entry
        From :func:`inventory`.
    change : callable, optional
        Returns the table attributes of the copy. Everything else is copied byte for byte.
    resume : bool
        Skip objects that exist and are equal. Replace others, unless the target is another table.
    move : bool
        The source will be removed. With ``resume``, it may be the rest of a table, of which an
        interrupted move has removed some objects, if the target has all others.
    report : callable, optional
        Called with the size of each finished object. It may raise to stop the copy.

    Returns
    -------
    int
        The number of objects copied, without those that existed.

    Raises
    ------
    NotARatZarrError
        If the target is not empty; with ``resume``, if it holds another table, or is the source
        by another name.
    DamagedError
        If checksums show that the source is damaged, or if it has rows of an earlier column, which
        only S3 can distinguish.
    ChangedError
        If the source has changed during the copy.
    ReadOnlyError
        If the target can't be written.
    StoreError
        If the copy differs from the source.
    """
    check_writable(target)
    _check_apart(source, target)
    copy = _Copy(source, target, entries, change, report or (lambda size: None))
    if resume and move and copy.is_complete():
        return 0
    if all(one.key != ZARR_JSON for one in entries):
        raise DamagedError(
            f"{source.location}/{ZARR_JSON} is missing, and every table has it: nothing was copied"
        )
    was_there = copy.claim(resume)
    try:
        copied = copy.run(was_there)
        copy.verify()
        if inventory(source) != tuple(entries):
            raise ChangedError(f"{source.location} was changed while it was copied: copy it again")
    except RatZarrError as error:
        # After another error of the store, resuming can go on with the objects that are there.
        if isinstance(error, _UnequalError) or not isinstance(error, StoreError):
            copy.remove()
        raise
    return copied


def remove_source(objects: Objects, entries: Iterable[Entry]) -> None:
    """Remove a table that was moved, and the leftovers of killed writers.

    The table's document is removed first. So if this is interrupted, the rest can't be mistaken
    for a table; :func:`copy_store` with ``move`` and ``resume`` accepts it.

    Parameters
    ----------
    objects : Objects
        The table's location.
    entries : iterable of Entry
        From :func:`inventory`. Objects that were added since then stay, and are an error.
    """
    check_writable(objects)
    ends = (TABLE_KEY, ZARR_JSON)
    objects.delete([TABLE_KEY])
    objects.delete(one.key for one in entries if one.key not in ends)
    objects.delete([key for key in objects.list_tree("") if is_litter(key)])
    objects.delete([ZARR_JSON])
    objects.remove_place()


def _check_apart(source: Objects, target: Objects) -> None:
    """Check that the target isn't the source by another name, such as a symbolic link."""
    if source.location.kind == target.location.kind == "local":
        with suppress(OSError):
            if Path(source.location.path).samefile(target.location.path):
                raise NotARatZarrError(
                    f"{target.location} already exists: it is the same directory as "
                    f"{source.location}"
                )


class _UnequalError(StoreError):
    pass


class _Copy:
    def __init__(
        self,
        source: Objects,
        target: Objects,
        entries: Sequence[Entry],
        change: Change | None,
        report: Callable[[int], None],
    ) -> None:
        self._source, self._target, self._report = source, target, report
        self._entries = {one.key: one for one in entries}
        documents = [key for key in self._entries if key.endswith(ZARR_JSON)]
        contents = run([partial(self._read, key) for key in documents])
        self._documents = dict(zip(documents, contents, strict=True))
        self._states = {
            key.removesuffix("/" + ZARR_JSON): _state(data, key, f"{source.location}/{key}")
            for key, data in self._documents.items()
        }
        if change is not None and TABLE_KEY in self._documents:
            self._documents[TABLE_KEY] = _changed(
                self._documents[TABLE_KEY], change, f"{source.location}/{TABLE_KEY}"
            )
        self._digests = {key: _digest(data) for key, data in self._documents.items()}
        self._is_mine = False

    @property
    def _server_copies(self) -> bool:
        return self._target.can_copy_from(self._source)

    def is_complete(self) -> bool:
        """Return True if the target is a table with all objects that the source still has.

        Raises
        ------
        NotARatZarrError
            If the target is a table that differs from the source, or if neither is a whole table.
        """
        ends = {TABLE_KEY, ZARR_JSON}
        there = {one.key: one for one in self._target.list_states("")}
        if not ends <= there.keys():
            if ends <= self._entries.keys():
                return False
            raise NotARatZarrError(
                f"{self._source.location} is only a part of a table, and {self._target.location} "
                "is not the whole table either: nothing was changed"
            )
        strangers = [key for key in there if not is_ours(key)]
        if strangers:
            raise NotARatZarrError(
                f"{self._target.location} is not a RatZarr: it holds {min(strangers)!r}"
            )
        different = self._entries.keys() - self._equal(there).keys()
        if different:
            key = min(different)
            problem = "differs from" if key in there else "does not exist, unlike"
            raise NotARatZarrError(
                f"{self._target.location} already exists and is a different table: its {key} "
                f"{problem} that of {self._source.location}. Nothing was removed."
            )
        for one in self._entries.values():
            self._report(one.size)
        return True

    def claim(self, resume: bool) -> dict[str, Entry]:
        """Reserve the target, and return the existing objects of the copy."""
        target = self._target
        other = NotARatZarrError(f"{target.location} already exists and is not a table")
        there: dict[str, Entry] = {}
        if resume:
            there = {one.key: one for one in target.list_states("")}
            if ZARR_JSON not in there and not all(map(is_litter, there)):
                # A copy writes this document first.
                raise other
        elif target.occupied():
            raise NotARatZarrError(f"{target.location} already exists")
        if target.create(ZARR_JSON, self._documents[ZARR_JSON]) is not None:
            self._is_mine = not there
            return {}
        if not resume:
            raise NotARatZarrError(f"{target.location} was just created by another process")
        strangers = [key for key in there if key not in self._entries and not is_litter(key)]
        is_table = TABLE_KEY in there
        if not all(map(is_ours, there)) or (is_table and strangers):
            raise other
        equal = self._equal(there)
        if ZARR_JSON not in equal:
            raise other
        if is_table and len(equal) != len(self._entries):
            raise NotARatZarrError(
                Advice(
                    f"{target.location} already exists and is a different table.",
                    "Use overwrite=True to replace it.",
                )
            )
        target.delete(strangers)
        return equal

    def _equal(self, there: Mapping[str, Entry]) -> dict[str, Entry]:
        both = [(self._entries[key], one) for key, one in there.items() if key in self._entries]
        tasks = (partial(self._is_equal, mine, theirs) for mine, theirs in both)
        return {
            theirs.key: theirs
            for (_, theirs), equal in zip(both, stream(tasks), strict=True)
            if equal
        }

    def run(self, was_there: Mapping[str, Entry]) -> int:
        """Copy the missing objects."""
        todo = [one for key, one in self._entries.items() if key not in was_there]
        for one in was_there.values():
            self._report(one.size)
        # Each column's document is written after its chunks, and the table's after everything.
        of_columns = [one for one in todo if one.key not in self._documents]
        documents = [one for one in todo if one.key in self._documents and one.key != TABLE_KEY]
        last = [one for one in todo if one.key == TABLE_KEY]
        for group in (of_columns, documents, last):
            for size in stream(partial(self._copy, one) for one in group):
                self._report(size)
        return len(todo)

    def _copy(self, one: Entry) -> int:
        data = self._documents.get(one.key)
        if data is None and self._server_copies:
            self._target.copy_from(self._source, one.key, one.key)
            return one.size
        if data is not None:
            self._target.put(one.key, data)
            return one.size
        data = self._chunk(one)
        self._digests[one.key] = _digest(data)
        self._target.put(one.key, data, self._owner(one.key))
        return one.size

    def _owner(self, key: str) -> ChunkOwner | None:
        prefix, state = self._column(key)
        # On a disk, writing a chunk reads the column's document, which is written after it here.
        if state is None or self._target.looks_before_writing:
            return None
        return ChunkOwner(prefix, state.owner_tag, lambda data: None)

    def _column(self, key: str) -> tuple[str, ColumnState | None]:
        match = _CHUNK.fullmatch(key)
        prefix = "" if match is None else match[1]
        return prefix, self._states.get(prefix)

    def _chunk(self, one: Entry) -> bytes:
        """Read a chunk, and verify that it is undamaged and belongs to its column."""
        found = self._source.read(one.key)
        # On S3, a state begins with the etag, which a listing has, too.
        is_s3 = self._source.location.kind == "s3"
        if found is None or (is_s3 and found.state.partition(" ")[0] != one.state):
            raise ChangedError(
                f"{self._source.location}/{one.key} was changed while the table was copied"
            )
        _, state = self._column(one.key)
        place = f"{self._source.location}/{one.key}"
        if state is None:
            return found.data
        if state.is_foreign(found.owner_tag):
            raise DamagedError(
                f"{place} holds rows of an earlier column of this name, which a copy could no "
                "longer show. Write these rows again; 'gdalbridge check' lists them."
            )
        try:
            state.codec.check_sum(found.data)
        except ValueError as error:
            raise DamagedError(f"{place} is damaged, and was not copied: {error}") from error
        return found.data

    def _read(self, key: str) -> bytes:
        data = self._source.get(key, MAX_DOCUMENT_BYTES)
        if data is None:
            raise ChangedError(f"{self._source.location}/{key} was deleted meanwhile")
        return data

    # ---- comparing

    def verify(self) -> None:
        """Verify that the target holds exactly the objects to be copied."""
        listed = self._target.list_states("")
        there = {one.key: one for one in listed if not is_litter(one.key)}
        for key in self._entries.keys() ^ there.keys():
            raise _UnequalError(f"{self._target.location}/{key} differs from the source")
        equal = self._equal(there)
        for key in there.keys() - equal.keys():
            raise _UnequalError(
                f"{self._target.location}/{key} holds other bytes than were written to it"
            )

    def _is_equal(self, mine: Entry, theirs: Entry) -> bool:
        digest = self._digests.get(mine.key)
        if mine.key != TABLE_KEY and mine.size != theirs.size:
            return False
        if self._target.location.kind == "s3":
            # The etag is the MD5 of the bytes, unless the server encrypts with its own keys.
            known = digest or (mine.state if self._server_copies else _digest(self._chunk(mine)))
            if theirs.state == known:
                return True
        now = self._target.get(mine.key)
        return now is not None and _digest(now) == (digest or _digest(self._chunk(mine)))

    def remove(self) -> None:
        """Remove the written objects that did not exist before."""
        if self._is_mine:
            # An error here must not hide the original one.
            with suppress(RatZarrError):
                listed = list(self._target.list_tree(""))
                self._target.delete(key for key in listed if key in self._entries)
                self._target.remove_place()


def _digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _state(data: bytes, key: str, place: str) -> ColumnState | None:
    try:
        document = from_json(data, place)
        if document.get("node_type") != "array":
            return None
        return ColumnState.of(document, place, key.split("/")[1])
    except (DamagedError, UnsupportedCodecError) as error:
        if key in (ZARR_JSON, TABLE_KEY):
            raise
        # The chunks of an unreadable column are copied unchanged.
        warnings.warn(
            f"column {key.split('/')[1]!r} can't be read; its chunks are copied without "
            f"verification: {error}",
            stacklevel=2,
        )
        return None


def _changed(data: bytes, change: Change, place: str) -> bytes:
    document = from_json(data, place)
    check_table_document(document, place)
    attributes = dict(change(document["attributes"]))
    if attributes == document["attributes"]:
        return data
    return to_json(document | {"attributes": attributes})
