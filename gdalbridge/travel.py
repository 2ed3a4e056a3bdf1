"""A raster with all of its tables: copied, moved and removed as one thing.

Everything is looked at before anything is written: what is there already, what is no part
of a raster or a table, what can't be read. Then the tables go first and the raster last,
so that whoever comes upon a copy that is not finished finds no raster; and of a move the
source is removed when all of the copy has been compared with it.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratzarr import ChangedError, RatZarr, RatZarrError, StoreError
from ratzarr.filecopy import copy_file, file_state, remove_file, same_file
from ratzarr.location import Location
from ratzarr.location import parse as parse_location
from ratzarr.storecopy import copy_store, inventory
from ratzarr.stores import open_objects

from .errors import BridgeError, CancelledError, OutputExistsError, RasterNotFoundError
from .progress import Progress, progress_of
from .provenance import RASTER_ATTR, raster_label
from .rasterfiles import REFERRERS, RasterFiles, raster_files
from .report import size_text
from .sidecar import find_sidecars
from .travelplan import FileItem, Item, TableItem, check_apart, goal_of, items_of, there_already
from .vsis3 import forget

__all__ = ["TravelReport", "copy_raster", "move_raster", "remove_raster"]

INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""What stops the work without saying anything against it: it can be gone on with."""


@dataclass(frozen=True, slots=True)
class TravelReport:
    """What was copied, moved or removed; or would be."""

    action: str
    """``copy``, ``move`` or ``remove``."""
    source: str
    target: str | None
    tables: tuple[str, ...]
    """Sidecars, as they are called now."""
    files: tuple[str, ...]
    """The raster's files, as they are called now; the raster itself last."""
    bytes: int
    seconds: float
    dry_run: bool = False
    left: tuple[str, ...] = field(default=())
    """Files that GDAL lists as the raster's, and that were left where they are."""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

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
        Its new name, or a directory (on S3: a name that ends in ``/``).
    overwrite : bool
        Remove what is at the target first: the raster there with all of its files and
        tables.
    resume : bool
        Go on with a copy that was interrupted: what is there and equal is passed over.
    dry_run : bool
        Look at everything, and change nothing.
    storage_options : mapping, optional
        Arguments for s3fs, of both places.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    TravelReport

    Raises
    ------
    OutputExistsError
        Names what is at the target. Nothing has been changed.
    RasterNotFoundError
        Where the source can't be opened as a raster.
    CancelledError
        Where the progress said so. What was copied stays, and ``resume=True`` goes on; as
        after Ctrl-C, or where a disk or server fails (:class:`ratzarr.StoreError`).
    BridgeError, ratzarr.RatZarrError
        For everything else. What this call had written is removed again.
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

    Within one file system they are renamed. Elsewhere all is copied and compared, and then
    removed from the source, if nobody has changed it meanwhile. Parameters, result and
    errors are those of :func:`copy_raster`.
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

    Parameters
    ----------
    raster : str or os.PathLike
        A raster on local disk or S3. It must be there: a name by mistake removes nothing.
    dry_run, storage_options, progress
        See :func:`copy_raster`.

    Raises
    ------
    RasterNotFoundError
        Where it can't be opened as a raster.
    ratzarr.NotARatZarrError
        Where something else lies in a table, or a table is a symbolic link. Nothing has been
        removed.
    """
    started = time.perf_counter()
    found = raster_files(raster, storage_options)
    items = items_of(found, None, storage_options)
    with progress_of(progress) as told:
        if not dry_run:
            _remove(items, storage_options, told)
    return _report("remove", found, None, items, started, dry_run)


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
        raise BridgeError("overwrite removes what is there, and resume goes on with it: not both")
    found = raster_files(source, options)
    if found.driver in REFERRERS and found.others:
        raise BridgeError(
            f"{source} is made of other files ({', '.join(found.others[:3])}), which would not go "
            "with it: make a raster of it first, or one of them travel"
        )
    goal = goal_of(found.main, target)
    items = items_of(found, goal, options)
    check_apart(items, {one.source for one in items if one.target is not None}, goal)
    there = [] if resume else there_already(items, goal, options)
    if there and not overwrite:
        raise OutputExistsError(
            f"{', '.join(there)}: there already. overwrite=True (--overwrite) removes the raster "
            "there with all of its files and tables first"
        )
    with progress_of(progress) as told:
        if not dry_run:
            if there:
                _clear(goal, there, items, options)
            if action == "move" and not resume and _can_rename(items):
                _rename(items, found.main)
            else:
                _copy(items, found.main, resume, options, told)
                if action == "move":
                    _check_unchanged(items, options)
                    _remove(items, options, None)
            forget(goal.url, options)
            told.report(1.0)
    return _report(action, found, goal, items, started, dry_run)


def _report(
    action: str,
    found: RasterFiles,
    goal: Location | None,
    items: list[Item],
    started: float,
    dry_run: bool,
) -> TravelReport:
    return TravelReport(
        action,
        found.main.url,
        None if goal is None else goal.url,
        tuple((one.target or one.source).url for one in items if isinstance(one, TableItem)),
        tuple((one.target or one.source).url for one in items if isinstance(one, FileItem)),
        sum(one.size for one in items),
        time.perf_counter() - started,
        dry_run,
        found.others,
    )


# ---- copying


def _copy(
    items: list[Item],
    main: Location,
    resume: bool,
    options: Mapping[str, Any] | None,
    told: Progress,
) -> None:
    count = _Counter(told, sum(one.size for one in items))
    made: list[Item] = []
    try:
        for one in items:
            assert one.target is not None  # noqa: S101 - for mypy
            count.name = one.target.url
            made.append(one)
            if isinstance(one, TableItem):
                copy_store(
                    open_objects(one.source, options),
                    open_objects(one.target, options),
                    one.entries,
                    change=_change(one, items[-1]),
                    resume=resume,
                    told=count,
                )
            elif resume and same_file(one.source, one.target, options):
                count(one.size)
            else:
                _copy_file(one, options, count)
    except INTERRUPTIONS as error:
        error.add_note(
            f"what is copied stays, and {main} is as it was; resume=True (--resume) goes on"
        )
        raise
    except Exception:
        if not resume:
            # The last one removes what is its own, and may have found another's.
            for one in reversed(made[:-1]):
                with suppress(RatZarrError):
                    _remove_at(one.target, one, options)
        raise


def _copy_file(one: FileItem, options: Mapping[str, Any] | None, told: "_Counter") -> None:
    assert one.target is not None  # noqa: S101 - for mypy
    if file_state(one.source, options) != one.state:
        raise ChangedError(f"{one.source} was changed meanwhile: copy it again")
    try:
        copy_file(one.source, one.target, options=options, told=told)
    except FileExistsError as error:
        raise OutputExistsError(f"{one.target} is there already, and is another file") from error


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
    assert raster.target is not None  # noqa: S101 - for mypy
    name = raster.target.path.rpartition("/")[2]
    now = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def change(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        recorded = attributes.get(RASTER_ATTR)
        if not isinstance(recorded, Mapping) or recorded.get("name") != then:
            return attributes
        return {**attributes, RASTER_ATTR: {**recorded, "name": now}}

    return change


# ---- moving


def _can_rename(items: list[Item]) -> bool:
    places = [(one.source, one.target) for one in items]
    if any(a.kind != "local" or b is None or b.kind != "local" for a, b in places):
        return False
    devices = {Path(a.path).lstat().st_dev for a, _ in places}
    devices |= {Path(b.path).parent.stat().st_dev for _, b in places if b is not None}
    return len(devices) == 1


def _rename(items: list[Item], main: Location) -> None:
    try:
        for one in items:
            assert one.target is not None  # noqa: S101 - for mypy
            old, new = Path(one.source.path), Path(one.target.path)
            change = _change(one, items[-1]) if isinstance(one, TableItem) else None
            if change is not None:
                old.rename(new)
                _remember(one.target, change)
            else:
                _rename_file(old, new)
    except OSError as error:
        raise StoreError(
            f"{main}: {error}; what was moved stays, and resume=True (--resume) moves the rest"
        ) from error
    except KeyboardInterrupt as error:
        error.add_note("what was moved stays; resume=True (--resume) moves the rest")
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


def _remember(table: Location, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    with RatZarr(table.url, create=False) as opened:
        mapping = opened.getRatAttributeMapping()
        before = mapping.asdict()
        after = change(before)
        if after.get(RASTER_ATTR) != before.get(RASTER_ATTR):
            mapping[RASTER_ATTR] = after[RASTER_ATTR]


# ---- removing


def _remove(items: list[Item], options: Mapping[str, Any] | None, told: Progress | None) -> None:
    for number, one in enumerate(items):
        if told is not None:
            told.report(number / len(items), one.source.url)
        _remove_at(one.source, one, options)
    forget(items[-1].source.url, options)


def _remove_at(place: Location | None, one: Item, options: Mapping[str, Any] | None) -> None:
    assert place is not None  # noqa: S101 - for mypy
    if isinstance(one, TableItem):
        RatZarr.delete(place.url, storageOptions=options)
    else:
        remove_file(place, options)


def _check_unchanged(items: list[Item], options: Mapping[str, Any] | None) -> None:
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


def _clear(
    goal: Location, there: list[str], items: list[Item], options: Mapping[str, Any] | None
) -> None:
    """Remove what is at the target: the raster there, as far as it is one, and what was named."""
    with suppress(RasterNotFoundError):
        old = items_of(raster_files(goal.url, options), None, options)
        check_apart(old, {one.source for one in items}, goal)
        _remove(old, options, None)
    tables = {one.path for one in find_sidecars(goal.url, storage_options=options)}
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
