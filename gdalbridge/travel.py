"""A raster with all of its tables: copied, moved and removed as one thing.

Everything is looked at before anything is written: what is there already, what is no part
of a raster or a table, what can't be read. Then the tables go first and the raster last,
so that whoever comes upon a copy that is not finished finds no raster; and of a move the
source is removed when all of the copy has been compared with it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratzarr.errors import Advice
from ratzarr.location import Location

from .errors import BridgeError, OutputExistsError
from .pixel_samples import REFERRERS
from .progress import progress_of
from .rasterfiles import RasterFiles, raster_files
from .report import size_text
from .travelplan import FileItem, Item, TableItem, check_apart, goal_of, items_of, there_already
from .travelsteps import (
    can_rename,
    check_unchanged,
    clear_target,
    copy_items,
    remember_items,
    remove_items,
    rename_items,
)
from .vsis3 import forget

__all__ = ["TravelReport", "copy_raster", "move_raster", "remove_raster"]


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
            remove_items(items, storage_options, told)
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
            Advice(
                f"{', '.join(there)} already exists.",
                "Use overwrite=True to remove the raster there with its files and tables first, or "
                "resume=True to continue an interrupted copy.",
            )
        )
    with progress_of(progress) as told:
        if not dry_run:
            if there:
                clear_target(goal, there, items, options)
            if action == "move" and not resume and can_rename(items):
                rename_items(items, found.main)
            else:
                copy_items(items, found.main, resume, options, told)
                if resume and action == "move":
                    remember_items(found.main, FileItem(found.main, goal, found.state), options)
                if action == "move":
                    check_unchanged(items, options)
                    remove_items(items, options, None)
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
