"""Copy, move or remove a raster together with its tables.

Everything is checked before anything is written. Tables are copied first and the raster last, so an
unfinished copy has no raster. A move that copies removes the source only after the whole copy has
been compared with it, and only if the source is unchanged. If the removal is interrupted, a resumed
move compares the rest of the source with the copy, and removes it.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdalbridge.copying.report import Report, size_text
from gdalbridge.errors import BridgeError, CancelledError, OutputExistsError, RasterNotFoundError
from gdalbridge.gdalio.vsis3 import forget
from gdalbridge.progress import Progress, progress_of
from gdalbridge.rasters.checkpoint import remove_checkpoint
from gdalbridge.sidecars.naming import (
    find_checkpoints,
    find_sidecars,
    is_folder,
    raster_label,
    sidecar_path,
)
from gdalbridge.sidecars.provenance import RASTER_ATTR, REFERRERS
from gdalbridge.sidecars.raster_files import (
    BESIDE,
    RasterFiles,
    moved_files,
    place_of,
    raster_files,
)
from ratzarr import ChangedError, RatZarr, RatZarrError, StoreError
from ratzarr.errors import Advice
from ratzarr.maintenance import Entry, copy_store, inventory, remove_source
from ratzarr.stores import (
    FileState,
    Location,
    copy_file,
    file_state,
    link_file,
    open_objects,
    remove_file,
    same_file,
)
from ratzarr.stores import parse as parse_location

__all__ = ["TravelReport", "copy_raster", "move_raster", "remove_raster"]


@dataclass(frozen=True, slots=True)
class TableItem:
    """A table to copy, move or remove."""

    source: Location
    target: Location
    """The source itself, if it is only to be removed."""
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all objects of the table."""
        return sum(one.size for one in self.entries)


@dataclass(frozen=True, slots=True)
class FileItem:
    """A file of the raster to copy, move or remove."""

    source: Location
    target: Location
    """The source itself, if it is only to be removed."""
    state: FileState | None
    """None if an earlier move has removed it from the source."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return 0 if self.state is None else self.state.size


Item = TableItem | FileItem


def goal_of(main: Location, target: Any, *, linked: bool = False) -> Location:
    """Return the raster's new location. In a directory, it keeps its name.

    With ``linked``, the target may be a second hard link of the source, which an interrupted move
    leaves.

    Raises
    ------
    BridgeError
        If the target is the source, or its directory does not exist.
    """
    if isinstance(target, str | os.PathLike) and is_folder(target):
        name = main.path.rpartition("/")[2]
        target = f"{os.fspath(target).rstrip('/')}/{name}"
    goal = place_of(target)
    if goal == main:
        raise BridgeError(f"{main} and {target} are the same file")
    if goal.kind == main.kind == "local":
        with suppress(OSError):
            old, new = Path(main.path), Path(goal.path)
            if old.samefile(new) and not (linked and _are_two_names(old, new)):
                raise BridgeError(f"{main} and {target} are the same file")
    if goal.kind == "local" and not Path(goal.path).parent.is_dir():
        raise RasterNotFoundError(f"{Path(goal.path).parent} is not a directory")
    return goal


def _are_two_names(one: Path, other: Path) -> bool:
    """Return True if two paths of one file are two hard links, so that removing one is safe."""
    if one.is_symlink() or other.is_symlink() or one.lstat().st_nlink < 2:
        return False
    if not one.parent.samefile(other.parent):
        return True
    # A file system that ignores case lists only one of SEG.tif and seg.tif.
    listed = {path.name for path in one.parent.iterdir()}
    return one.name != other.name and {one.name, other.name} <= listed


def check_apart(items: list[Item], kept: list[Item], goal: Location) -> None:
    """Check that no target is a source to keep. Two rasters can share a world file."""
    sources = {one.source for one in kept}
    for one in items:
        if one.target in sources:
            raise BridgeError(
                f"{one.target} would be a file of {goal} as well. Choose another name."
            )


def items_of(
    found: RasterFiles,
    goal: Location | None,
    options: Mapping[str, Any] | None,
    *,
    rest: bool = False,
) -> list[Item]:
    """Return the tables and files of a raster in the order of work, the raster itself last.

    With ``rest``, tables may be what an interrupted move has left.
    """
    tables: list[Item] = []
    for one in found.tables:
        place = parse_location(one.path)
        target = place
        if goal is not None:
            target = parse_location(sidecar_path(goal.url, one.band, one.name))
        entries = inventory(open_objects(place, options), rest=rest)
        tables.append(TableItem(place, target, entries))
    files: list[Item] = [
        FileItem(place, place if goal is None else found.target(place, goal), state)
        for place, state in found.beside.items()
    ]
    return [*tables, *files, FileItem(found.main, goal or found.main, found.state)]


def existing_at(items: list[Item], goal: Location, options: Mapping[str, Any] | None) -> list[str]:
    """Return the files and tables at the target, with any that GDAL would take for the raster's."""
    names = [one.target for one in items if isinstance(one, FileItem)]
    names += [Location(goal.kind, goal.path + end) for end in BESIDE]
    found = [name.url for name in dict.fromkeys(names) if file_state(name, options) is not None]
    found += [one.path for one in find_sidecars(goal.url, storage_options=options, must_list=True)]
    for one in items:
        # A broken link or a plain file may have the table's name.
        if isinstance(one, TableItem) and one.target.url not in found:
            found += [one.target.url] if open_objects(one.target, options).occupied() else []
    return found


INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""Errors after which a copy can be resumed, because nothing is wrong with the raster or tables."""


# ---- copying


def copy_items(
    items: list[Item],
    main: Location,
    resume: bool,
    move: bool,
    options: Mapping[str, Any] | None,
    progress: Progress,
) -> None:
    """Copy tables and files in order.

    After an interruption, copied items stay. After any other error they are removed, unless
    ``resume`` is True.
    """
    count = _Counter(progress, sum(one.size for one in items))
    made: list[Item] = []
    try:
        for one in items:
            count.name = one.target.url
            made.append(one)
            if isinstance(one, TableItem):
                copy_store(
                    open_objects(one.source, options),
                    open_objects(one.target, options),
                    one.entries,
                    change=_change(one, items[-1]),
                    resume=resume,
                    move=move,
                    report=count,
                )
            elif one.state is None or (resume and same_file(one.source, one.target, options)):
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
            # The failed item is skipped: its copy has cleaned up after itself, and its target may
            # belong to another program.
            for one in reversed(made[:-1]):
                with suppress(RatZarrError):
                    _remove_at(one.target, one, options)
        raise


def _copy_file(one: FileItem, options: Mapping[str, Any] | None, report: "_Counter") -> None:
    if file_state(one.source, options) != one.state:
        raise ChangedError(f"{one.source} was changed during the copy. Copy it again.")
    try:
        copy_file(one.source, one.target, options=options, report=report)
    except FileExistsError as error:
        raise OutputExistsError(f"{one.target} already exists and is a different file") from error


class _Counter:
    """Reports copied bytes as a fraction of all bytes."""

    def __init__(self, progress: Progress, size: int) -> None:
        self._progress, self._size, self._done = progress, max(size, 1), 0
        self.name = ""

    def __call__(self, size: int) -> None:
        self._done += size
        self._progress.report(min(1.0, self._done / self._size), self.name)


def _change(table: TableItem, raster: Item) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return a function that puts the raster's new name into the attributes of its table.

    Attributes that name another raster stay unchanged.
    """
    is_path = raster.source.kind == "local"
    then = raster_label(raster.source.url, table.source.url, is_path=is_path)
    name = raster.target.path.rpartition("/")[2]
    now = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def change(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        recorded = attributes.get(RASTER_ATTR)
        if not isinstance(recorded, Mapping) or recorded.get("name") != then:
            return attributes
        return {**attributes, RASTER_ATTR: {**recorded, "name": now}}

    return change


# ---- moving


def can_rename(items: list[Item]) -> bool:
    """Return True if all sources and targets are on one local file system."""
    if any(place.kind != "local" for one in items for place in (one.source, one.target)):
        return False
    devices = {Path(one.source.path).lstat().st_dev for one in items}
    devices |= {Path(one.target.path).parent.stat().st_dev for one in items}
    return len(devices) == 1


def rename_items(items: list[Item], main: Location) -> None:
    """Move tables and files by renaming them in order.

    Files get their new names before they lose the old ones, so that GDAL can open the raster by
    one of the two at any time.
    """
    linked: list[Path] = []
    try:
        for one in items:
            old, new = Path(one.source.path), Path(one.target.path)
            if isinstance(one, TableItem):
                old.rename(new)
                _remember(one, items[-1], None)
            elif link_file(old, new):
                linked.append(old)
        for old in linked:
            old.unlink()
    except OSError as error:
        raise StoreError(
            Advice(
                f"{main}: {error}; items already moved stay at the target.",
                "Use resume=True to move the rest.",
            )
        ) from error
    except KeyboardInterrupt as error:
        error.add_note(
            Advice("Items already moved stay at the target.", "Use resume=True to move the rest.")
        )
        raise


def remember_items(source: Location, goal: FileItem, options: Mapping[str, Any] | None) -> None:
    """Put the target's name into its tables that still have the source's name.

    If a move was killed, a table may have been renamed without an update of its attributes.
    """
    for one in find_sidecars(goal.target.url, storage_options=options, must_list=True):
        was = parse_location(sidecar_path(source.url, one.band, one.name))
        _remember(TableItem(was, parse_location(one.path), ()), goal, options)


def _remember(table: TableItem, raster: Item, options: Mapping[str, Any] | None) -> None:
    with RatZarr(table.target.url, create=False, storageOptions=options) as opened:
        mapping = opened.getRatAttributeMapping()
        before = mapping.asdict()
        after = _change(table, raster)(before)
        if after.get(RASTER_ATTR) != before.get(RASTER_ATTR):
            mapping[RASTER_ATTR] = after[RASTER_ATTR]


# ---- removing


def remove_items(
    items: list[Item], options: Mapping[str, Any] | None, progress: Progress | None
) -> None:
    """Remove the sources of tables and files in order."""
    for number, one in enumerate(items):
        if progress is not None:
            progress.report(number / len(items), one.source.url)
        if isinstance(one, TableItem) and one.target != one.source:
            remove_source(open_objects(one.source, options), one.entries)
        else:
            _remove_at(one.source, one, options)
    forget(items[-1].source.url, options)


def _remove_at(place: Location, one: Item, options: Mapping[str, Any] | None) -> None:
    if isinstance(one, TableItem):
        RatZarr.delete(place.url, storageOptions=options)
    else:
        remove_file(place, options)


def check_unchanged(items: list[Item], options: Mapping[str, Any] | None) -> None:
    """Check that the source is unchanged since it was copied, before it is removed."""
    for one in items:
        if isinstance(one, TableItem):
            same = inventory(open_objects(one.source, options), rest=True) == one.entries
        else:
            same = file_state(one.source, options) == one.state
        if not same:
            raise ChangedError(
                f"{one.source} was changed during the move. Nothing of the source was removed, and "
                f"the copy has the state before the change."
            )


def clear_target(
    goal: Location, existing: list[str], items: list[Item], options: Mapping[str, Any] | None
) -> None:
    """Remove an existing raster at the target with its tables and files, then ``existing``."""
    for place in find_checkpoints(goal.url, storage_options=options):
        remove_checkpoint(place, options)
    with suppress(RasterNotFoundError):
        old = items_of(raster_files(goal.url, options), None, options)
        check_apart(old, items, goal)
        remove_items(old, options, None)
    tables = {one.path for one in find_sidecars(goal.url, storage_options=options, must_list=True)}
    for name in existing:
        if name in tables:
            RatZarr.delete(name, storageOptions=options)
        else:
            _clear_file(parse_location(name), options)


def _clear_file(place: Location, options: Mapping[str, Any] | None) -> None:
    found = file_state(place, options)
    if found is not None and found.size < 0:
        raise OutputExistsError(
            f"{place} was not removed, because it is a symbolic link or not a regular file"
        )
    remove_file(place, options)


@dataclass(frozen=True, slots=True)
class TravelReport(Report):
    """A summary of a copy, move or removal, done or planned."""

    action: str
    """``copy``, ``move`` or ``remove``."""
    source: str
    target: str | None
    tables: tuple[str, ...]
    """The sidecars' names, at the target if there is one."""
    files: tuple[str, ...]
    """The names of the raster's files, at the target if there is one; the raster itself last.
    Before them are removed checkpoints of interrupted runs."""
    bytes: int
    seconds: float
    dry_run: bool = False
    left: tuple[str, ...] = ()
    """What was left in place: files that GDAL lists for the raster, but that are not its own, and
    checkpoints of interrupted runs, because only a run over the same raster can continue them."""

    def __str__(self) -> str:
        done = {"copy": "copied", "move": "moved", "remove": "removed"}[self.action]
        to = "" if self.target is None else f" -> {self.target}"
        head = f"{self.source}{to}: {'would be ' * self.dry_run}{done}, {size_text(self.bytes)}"
        head += "" if self.dry_run else f", {self.seconds:.2f} s"
        lines = [head, *(f"  {name}" for name in (*self.tables, *self.files))]
        lines += [f"  left where it is: {name}" for name in self.left]
        return "\n".join(lines)


def copy_raster(
    source: Any,
    target: Any,
    *,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> TravelReport:
    """Copy a raster with its own files and all of its tables.

    Parameters
    ----------
    source : str or os.PathLike
        A raster on local disk or S3.
    target : str or os.PathLike
        The raster's new name, or a directory. On S3, a directory is a name that ends in ``/``.
    overwrite : bool
        Remove an existing raster at the target first, with all of its files and tables.
    resume : bool
        Continue an interrupted copy. Files and chunks that are already equal are skipped.
    dry_run : bool
        Check everything without changing anything.
    storage_options : mapping, optional
        Arguments for s3fs, for both source and target.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    TravelReport

    Raises
    ------
    OutputExistsError
        If something exists at the target. Nothing has been changed.
    RasterNotFoundError
        If the source can't be opened as a raster.
    CancelledError
        If the progress function cancelled the copy. Copied parts stay, and ``resume=True``
        continues the copy. The same applies after Ctrl-C and after a failure of a disk or
        server (:class:`ratzarr.StoreError`).
    BridgeError, ratzarr.RatZarrError
        For other errors. Everything that this call has written is removed again.
    """
    return _travel("copy", source, target, overwrite, resume, dry_run, storage_options, progress)


def move_raster(
    source: Any,
    target: Any,
    *,
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> TravelReport:
    """Move a raster with its own files and all of its tables.

    Within one file system, files and tables are renamed. Otherwise they are copied and
    compared, and the source is removed if it has not changed meanwhile. ``resume=True`` also
    completes a move that was interrupted while it removed the source: the rest of the source is
    removed if it equals the target. Parameters, result and errors are those of
    :func:`copy_raster`.
    """
    return _travel("move", source, target, overwrite, resume, dry_run, storage_options, progress)


def remove_raster(
    raster: Any,
    *,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> TravelReport:
    """Remove a raster with its own files and all of its tables, the raster last.

    Checkpoints of interrupted runs beside its tables are removed, too.

    Parameters
    ----------
    raster : str or os.PathLike
        A raster on local disk or S3. It must exist, so that a mistyped name removes nothing.
    dry_run, storage_options, progress
        See :func:`copy_raster`.

    Raises
    ------
    RasterNotFoundError
        If it can't be opened as a raster.
    ratzarr.NotARatZarrError
        If a table contains foreign files or is a symbolic link. Nothing has been removed.
    """
    started = time.perf_counter()
    found = raster_files(raster, storage_options)
    items = items_of(found, None, storage_options)
    checkpoints = find_checkpoints(found.main.url, storage_options=storage_options)
    with progress_of(progress) as reporter:
        if not dry_run:
            for place in checkpoints:
                remove_checkpoint(place, storage_options)
            remove_items(items, storage_options, reporter)
    return _report("remove", found, None, items, started, dry_run, checkpoints)


def _travel(
    action: str,
    source: Any,
    target: Any,
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    options: Mapping[str, Any] | None,
    progress: Any,
) -> TravelReport:
    started = time.perf_counter()
    if overwrite and resume:
        raise BridgeError(
            "overwrite=True removes the files that resume=True would keep: use only one of them"
        )
    resumed_move = resume and action == "move"
    main = place_of(source)
    goal = goal_of(main, target, linked=resumed_move)
    # The raster is moved last, so the target is complete then.
    if resumed_move and file_state(goal, options) is not None:
        found = moved_files(main, goal, options)
    else:
        found = raster_files(source, options)
    if found.driver in REFERRERS and found.others:
        raise BridgeError(
            f"{source} refers to other files ({', '.join(found.others[:3])}), which would not be "
            "copied or moved. Make a raster of its own from it first, or copy one of those files."
        )
    items = items_of(found, goal, options, rest=resumed_move)
    checkpoints = find_checkpoints(main.url, storage_options=options)
    check_apart(items, items, goal)
    existing = [] if resume else existing_at(items, goal, options)
    if existing and not overwrite:
        raise OutputExistsError(
            Advice(
                f"{', '.join(existing)} already exists.",
                "Use overwrite=True to remove the raster there with its files and tables first, or "
                "resume=True to continue an interrupted copy.",
            )
        )
    with progress_of(progress) as reporter:
        if not dry_run:
            if existing:
                clear_target(goal, existing, items, options)
            if action == "move" and not resume and can_rename(items):
                rename_items(items, found.main)
            else:
                copy_items(items, found.main, resume, action == "move", options, reporter)
                if resumed_move:
                    remember_items(found.main, FileItem(found.main, goal, found.state), options)
                if action == "move":
                    check_unchanged(items, options)
                    remove_items(items, options, None)
            forget(goal.url, options)
            reporter.report(1.0)
    return _report(action, found, goal, items, started, dry_run, checkpoints)


def _report(
    action: str,
    found: RasterFiles,
    goal: Location | None,
    items: list[Item],
    started: float,
    dry_run: bool,
    checkpoints: list[str],
) -> TravelReport:
    files = [one.target.url for one in items if isinstance(one, FileItem)]
    left = list(found.others)
    if goal is None:
        files = [*checkpoints, *files]
    else:
        left += checkpoints
    return TravelReport(
        action,
        found.main.url,
        None if goal is None else goal.url,
        tuple(one.target.url for one in items if isinstance(one, TableItem)),
        tuple(files),
        sum(one.size for one in items),
        time.perf_counter() - started,
        dry_run,
        tuple(left),
    )
