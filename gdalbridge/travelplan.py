"""What travels where: everything that is looked at before a raster is copied, moved or removed."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratzarr.filecopy import FileState, file_state
from ratzarr.location import Location
from ratzarr.location import parse as parse_location
from ratzarr.storecopy import Entry, inventory
from ratzarr.stores import open_objects

from .errors import BridgeError, RasterNotFoundError
from .rasterfiles import BESIDE, RasterFiles, place_of
from .sidecar import find_sidecars, is_folder, sidecar_path

__all__ = [
    "FileItem",
    "Item",
    "TableItem",
    "check_apart",
    "goal_of",
    "items_of",
    "target_of",
    "there_already",
]


@dataclass(frozen=True, slots=True)
class TableItem:
    """A table on its way; without a target, on its way out."""

    source: Location
    target: Location | None
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """What its objects hold, in bytes."""
        return sum(one.size for one in self.entries)


@dataclass(frozen=True, slots=True)
class FileItem:
    """A file of the raster's, likewise."""

    source: Location
    target: Location | None
    state: FileState

    @property
    def size(self) -> int:
        """In bytes."""
        return self.state.size


Item = TableItem | FileItem


def target_of(one: Item) -> Location:
    """Return where something on its way is to be.

    Raises
    ------
    ValueError
        Where it is on its way out.
    """
    if one.target is None:
        raise ValueError(f"{one.source} is to be removed, and goes nowhere")
    return one.target


def goal_of(main: Location, target: Any) -> Location:
    """Return where a raster is to be: in a directory, under its own name.

    Raises
    ------
    BridgeError
        Where it is there already, or there is no such directory.
    """
    if isinstance(target, str | os.PathLike) and is_folder(target):
        name = main.path.rpartition("/")[2]
        target = f"{os.fspath(target).rstrip('/')}/{name}"
    goal = place_of(target)
    if goal == main:
        raise BridgeError(f"{main} and {target} are one and the same")
    if goal.kind == main.kind == "local":
        with suppress(OSError):
            if Path(main.path).samefile(goal.path):
                raise BridgeError(f"{main} and {target} are one and the same")
    if goal.kind == "local" and not Path(goal.path).parent.is_dir():
        raise RasterNotFoundError(f"{Path(goal.path).parent} is no directory to copy to")
    return goal


def check_apart(items: list[Item], sources: set[Location], goal: Location) -> None:
    """Refuse a target that shares a file with the source: one world file can serve two."""
    for one in items:
        place = one.target or one.source
        if place in sources:
            raise BridgeError(f"{place} would be a file of {goal} as well: choose another name")


def items_of(
    found: RasterFiles, goal: Location | None, options: Mapping[str, Any] | None
) -> list[Item]:
    """Return what is to be copied or removed, in that order: the raster itself last."""
    tables: list[Item] = []
    for one in found.tables:
        place = parse_location(one.path)
        target = None
        if goal is not None:
            target = parse_location(sidecar_path(goal.url, one.band, one.name))
        tables.append(TableItem(place, target, inventory(open_objects(place, options))))
    files: list[Item] = [
        FileItem(place, None if goal is None else found.target(place, goal), state)
        for place, state in found.beside.items()
    ]
    return [*tables, *files, FileItem(found.main, goal, found.state)]


def there_already(
    items: list[Item], goal: Location, options: Mapping[str, Any] | None
) -> list[str]:
    """Return what is at the target, or would be taken for the raster's there."""
    names = [one.target for one in items if isinstance(one, FileItem) and one.target is not None]
    names += [Location(goal.kind, goal.path + end) for end in BESIDE]
    there = [name.url for name in dict.fromkeys(names) if file_state(name, options) is not None]
    there += [one.path for one in find_sidecars(goal.url, storage_options=options, must_list=True)]
    for one in items:
        target = one.target
        if isinstance(one, TableItem) and target is not None and target.url not in there:
            # A link that leads nowhere, a file of that name.
            there += [target.url] if open_objects(target, options).occupied() else []
    return there
