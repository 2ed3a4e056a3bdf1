"""The steps of a raster's travel: what was looked at is copied, renamed, removed.

Tables go first and the raster last, so that whoever comes upon a copy that is not finished
finds no raster.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ratzarr import ChangedError, RatZarr, RatZarrError, StoreError
from ratzarr.errors import Advice
from ratzarr.filecopy import copy_file, file_state, remove_file, same_file
from ratzarr.location import Location
from ratzarr.location import parse as parse_location
from ratzarr.storecopy import copy_store, inventory
from ratzarr.stores import open_objects

from .errors import CancelledError, OutputExistsError, RasterNotFoundError
from .progress import Progress
from .provenance import RASTER_ATTR, raster_label
from .rasterfiles import raster_files
from .sidecar import find_sidecars, sidecar_path
from .travelplan import FileItem, Item, TableItem, check_apart, items_of, target_of
from .vsis3 import forget

__all__ = [
    "can_rename",
    "check_unchanged",
    "clear_target",
    "copy_items",
    "remember_items",
    "remove_items",
    "rename_items",
]

INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""What stops the work without saying anything against it: it can be gone on with."""


# ---- copying


def copy_items(
    items: list[Item],
    main: Location,
    resume: bool,
    options: Mapping[str, Any] | None,
    told: Progress,
) -> None:
    """Copy tables and files, in their order.

    What was copied stays where the work was interrupted; after any other error it is removed.
    """
    count = _Counter(told, sum(one.size for one in items))
    made: list[Item] = []
    try:
        for one in items:
            target = target_of(one)
            count.name = target.url
            made.append(one)
            if isinstance(one, TableItem):
                copy_store(
                    open_objects(one.source, options),
                    open_objects(target, options),
                    one.entries,
                    change=_change(one, items[-1]),
                    resume=resume,
                    told=count,
                )
            elif resume and same_file(one.source, target, options):
                count(one.size)
            else:
                _copy_file(one, options, count)
    except INTERRUPTIONS as error:
        error.add_note(
            Advice(
                f"The copied parts stay, and {main} is unchanged.", "Use resume=True to continue."
            )
        )
        raise
    except Exception:
        if not resume:
            # The last one removes what is its own, and may have found another's.
            for one in reversed(made[:-1]):
                with suppress(RatZarrError):
                    _remove_at(target_of(one), one, options)
        raise


def _copy_file(one: FileItem, options: Mapping[str, Any] | None, told: "_Counter") -> None:
    target = target_of(one)
    if file_state(one.source, options) != one.state:
        raise ChangedError(f"{one.source} was changed meanwhile: copy it again")
    try:
        copy_file(one.source, target, options=options, told=told)
    except FileExistsError as error:
        raise OutputExistsError(f"{target} is there already, and is another file") from error


class _Counter:
    """Bytes that are done, as a share of all."""

    def __init__(self, told: Progress, size: int) -> None:
        self._told, self._size, self._done = told, max(size, 1), 0
        self.name = ""

    def __call__(self, size: int) -> None:
        self._done += size
        self._told.report(min(1.0, self._done / self._size), self.name)


def _change(table: TableItem, raster: Item) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return what makes a table remember the raster's new name, if it is this raster's table."""
    then = raster_label(raster.source.url, table.source.url)
    name = target_of(raster).path.rpartition("/")[2]
    now = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def change(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        recorded = attributes.get(RASTER_ATTR)
        if not isinstance(recorded, Mapping) or recorded.get("name") != then:
            return attributes
        return {**attributes, RASTER_ATTR: {**recorded, "name": now}}

    return change


# ---- moving


def can_rename(items: list[Item]) -> bool:
    """Return whether all of it stays on one local file system."""
    places = [(one.source, one.target) for one in items]
    if any(a.kind != "local" or b is None or b.kind != "local" for a, b in places):
        return False
    devices = {Path(a.path).lstat().st_dev for a, _ in places}
    devices |= {Path(b.path).parent.stat().st_dev for _, b in places if b is not None}
    return len(devices) == 1


def rename_items(items: list[Item], main: Location) -> None:
    """Move tables and files by giving them their new names, in their order."""
    try:
        for one in items:
            target = target_of(one)
            old, new = Path(one.source.path), Path(target.path)
            change = _change(one, items[-1]) if isinstance(one, TableItem) else None
            if change is not None:
                old.rename(new)
                _remember(target, change, None)
            else:
                _rename_file(old, new)
    except OSError as error:
        raise StoreError(
            Advice(f"{main}: {error}; what was moved stays.", "Use resume=True to move the rest.")
        ) from error
    except KeyboardInterrupt as error:
        error.add_note(Advice("What was moved stays.", "Use resume=True to move the rest."))
        raise


def _rename_file(old: Path, new: Path) -> None:
    try:
        # Unlike a rename it takes nobody's place.
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(new):
            raise
        old.rename(new)
    else:
        old.unlink()


def remember_items(source: Location, goal: FileItem, options: Mapping[str, Any] | None) -> None:
    """Let tables that are at the target remember its name, where they still have the source's.

    A process that was killed in a move may have renamed a table, and written nothing in it.
    """
    for one in find_sidecars(target_of(goal).url, storage_options=options, must_list=True):
        was = parse_location(sidecar_path(source.url, one.band, one.name))
        target = parse_location(one.path)
        _remember(target, _change(TableItem(was, target, ()), goal), options)


def _remember(
    table: Location,
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    options: Mapping[str, Any] | None,
) -> None:
    with RatZarr(table.url, create=False, storageOptions=options) as opened:
        mapping = opened.getRatAttributeMapping()
        before = mapping.asdict()
        after = change(before)
        if after.get(RASTER_ATTR) != before.get(RASTER_ATTR):
            mapping[RASTER_ATTR] = after[RASTER_ATTR]


# ---- removing


def remove_items(
    items: list[Item], options: Mapping[str, Any] | None, told: Progress | None
) -> None:
    """Remove tables and files where they are, in their order."""
    for number, one in enumerate(items):
        if told is not None:
            told.report(number / len(items), one.source.url)
        _remove_at(one.source, one, options)
    forget(items[-1].source.url, options)


def _remove_at(place: Location, one: Item, options: Mapping[str, Any] | None) -> None:
    if isinstance(one, TableItem):
        RatZarr.delete(place.url, storageOptions=options)
    else:
        remove_file(place, options)


def check_unchanged(items: list[Item], options: Mapping[str, Any] | None) -> None:
    """Refuse to remove what somebody has changed since it was copied."""
    for one in items:
        if isinstance(one, TableItem):
            same = inventory(open_objects(one.source, options)) == one.entries
        else:
            same = file_state(one.source, options) == one.state
        if not same:
            raise ChangedError(
                f"{one.source} was changed while it was moved: nothing of the source was removed, "
                f"and the copy is of before"
            )


def clear_target(
    goal: Location, there: list[str], items: list[Item], options: Mapping[str, Any] | None
) -> None:
    """Remove what is at the target: the raster there, as far as it is one, and what was named."""
    with suppress(RasterNotFoundError):
        old = items_of(raster_files(goal.url, options), None, options)
        check_apart(old, {one.source for one in items}, goal)
        remove_items(old, options, None)
    tables = {one.path for one in find_sidecars(goal.url, storage_options=options, must_list=True)}
    for name in there:
        if name in tables:
            RatZarr.delete(name, storageOptions=options)
        else:
            _clear_file(parse_location(name), options)


def _clear_file(place: Location, options: Mapping[str, Any] | None) -> None:
    found = file_state(place, options)
    if found is not None and found.size < 0:
        raise OutputExistsError(f"{place} is a symbolic link, or no file: it was not removed")
    remove_file(place, options)
