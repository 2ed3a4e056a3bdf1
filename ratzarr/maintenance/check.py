"""Check a whole store: read every object and report every problem.

Each document is parsed and its checksum verified, and each chunk is decoded. Chunks are read in
parallel in a bounded window, in the order of one listing. Memory depends on the size of a chunk
and on the number of problems.

>>> import tempfile, ratzarr
>>> folder = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
>>> with ratzarr.RatZarr(folder) as rat:
...     rat.setRowCount(3)
...     rat.createColumn("pixels", "int64")
>>> check_store(folder)
[]
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from ratzarr.columns.catalog import keys_of
from ratzarr.columns.resize import rows_of
from ratzarr.concurrency import run, stream
from ratzarr.errors import DamagedError, RatZarrError, StoreError, TableNotFoundError
from ratzarr.format.blocks import chunk_count
from ratzarr.format.limits import MAX_DOCUMENT_BYTES
from ratzarr.format.names import (
    FORMAT_VERSION_ATTR,
    GROUP,
    PENDING,
    RESIZE_ATTR,
    ROWCOUNT_ATTR,
    TABLE_KEY,
    ZARR_JSON,
    first_of,
    from_json,
    is_document,
    order_of,
)
from ratzarr.maintenance.column_check import ColumnCheck, Finding, Kind, kind_of
from ratzarr.maintenance.repair import (
    REMOVING,
    Repair,
    complete,
    empty_folders,
    erase_beyond,
    finish_resize,
    is_link,
    is_old,
    mend_order,
    remove_folder,
    remove_impossible,
    remove_old,
    remove_orphans,
    remove_pending,
    sweep,
)
from ratzarr.stores.base import Objects
from ratzarr.stores.local import LocalObjects
from ratzarr.stores.open import (
    is_litter,
    open_place,
    refuse_foreign_root,
    table_metadata,
)
from ratzarr.table import RatZarr

__all__ = ["check_store"]

ASKED_AGAIN = 16
"""Largest number of chunks missing from a listing that are read to confirm that they are
absent."""
CHECK_ATTEMPTS = 3
"""Number of times that a column is checked again if other processes change it meanwhile."""

_COLUMN = re.compile(
    rf"{GROUP}/([^/]+)/({re.escape(ZARR_JSON)}|(?:c[/.])?[0-9]+(?:[/.][0-9]+)*)", re.DOTALL
)
_PENDING = re.compile(
    rf"{re.escape(PENDING)}/([^/]+)/([0-9a-f]+)/({re.escape(ZARR_JSON)}|c(?:[/.][0-9]+)+)",
    re.DOTALL,
)

Report = Callable[[float, str], None]


def check_store(
    filename: Any,
    *,
    storage_options: Mapping[str, Any] | None = None,
    repair: bool = False,
    dry_run: bool = False,
    progress: Report | None = None,
    patience: float = 2.0,
) -> list[Finding]:
    """Read a whole store and return its problems.

    Parameters
    ----------
    filename : str or os.PathLike
        See :class:`ratzarr.RatZarr`.
    storage_options : mapping, optional
        Arguments for the file system.
    repair : bool
        Remove leftovers and complete safe operations. Values are never changed.
    dry_run : bool
        With ``repair``: change nothing, and describe the repairs in the findings.
    progress : callable, optional
        Called with the finished fraction, from 0 to 1, and a short text.
    patience : float
        Seconds for which a repair watches a finished replacement column for another process before
        it moves the column into place.

    Returns
    -------
    list of Finding
        Empty if the store has no problems.

    Raises
    ------
    TableNotFoundError, NotARatZarrError, FormatVersionError
        If the location has no table that can be checked.
    StoreError
        If the store cannot be listed.
    """
    objects = open_place(filename, storage_options)
    opened = partial(RatZarr, filename, create=False, storageOptions=storage_options)
    checkup = _Checkup(objects, opened, progress or (lambda done, message: None), patience)
    checkup.look()
    found = []
    for finding, action in checkup.found:
        if action is not None:
            finding = replace(finding, repair=action.words)
            if repair and not dry_run:
                checkup.report(1.0, action.words)
                refused = action.do()
                words = finding.words + (f" (not repaired: {refused})" if refused else "")
                finding = replace(finding, repaired=refused is None, words=words)
        found.append(finding)
    return found


class _Checkup:
    """One check of a store. It collects findings and their possible repairs."""

    def __init__(
        self, objects: Objects, opened: Callable[[], RatZarr], report: Report, patience: float
    ) -> None:
        self.objects, self.opened, self.report = objects, opened, report
        self.patience = patience
        self.found: list[tuple[Finding, Repair | None]] = []
        self._table = table_metadata(objects)
        self._table_read = False
        self._resize: Any = None
        self._columns: dict[str, ColumnCheck] = {}
        self._expected, self._done = 1, 0
        self._foreign: dict[str, list[Any]] = {}

    def _add(
        self,
        kind: Kind,
        key: str,
        words: str,
        column: str | None = None,
        rows: tuple[int, int] | None = None,
        *,
        repair: Repair | None = None,
    ) -> None:
        self.found.append((Finding(kind, key, words, column, rows), repair))

    def look(self) -> None:
        """Check everything."""
        self._look_at_top()
        self._open_columns()
        listed = self._look_at_objects()
        if self._table_read and not listed:
            raise StoreError(
                f"{self.objects.location} can't be checked: its objects can't be listed"
            )
        for prefix in sorted(self._columns):
            self._finish(self._settled(self._columns[prefix]))
        if self._table_read:
            self._look_at_rows()
            self._look_at_order()
        self._look_at_strays()

    # ---- the two groups

    def _look_at_top(self) -> None:
        objects = self.objects
        try:
            root = objects.get(ZARR_JSON, MAX_DOCUMENT_BYTES)
            if root is None:
                self._add("missing", ZARR_JSON, "the store's own group is missing")
            else:
                from_json(root, ZARR_JSON)
        except (DamagedError, StoreError) as error:
            self._add(kind_of(error), ZARR_JSON, f"the store's own group: {error}")
        try:
            self._table_read = self._table.load()
        except (DamagedError, StoreError) as error:
            self._add(kind_of(error), TABLE_KEY, f"the table's own group: {error}")
            return
        if self._table_read:
            self._resize = self._table.attributes.get(RESIZE_ATTR)
            return
        if not objects.occupied():
            raise TableNotFoundError(f"there is no RatZarr at {objects.location}")
        if not self._listed():
            refuse_foreign_root(objects)
            raise TableNotFoundError(
                f"there is no RatZarr at {objects.location}: its creation was interrupted"
            )
        self._add("missing", TABLE_KEY, "the table's own group is missing")

    # ---- columns

    def _listed(self) -> list[str]:
        keys = self.objects.list_dirs(GROUP)
        if keys is None:
            raise StoreError(
                f"{self.objects.location} can't be checked: its objects can't be listed"
            )
        return keys

    def _open_columns(self) -> None:
        keys = self._listed()
        checks = [self._check(f"{GROUP}/{key}", key) for key in keys]
        run([check.load for check in checks])
        self._columns = {check.prefix: check for check in checks}
        self._expected += sum(
            chunk_count(check.state.rows, check.state.chunk_rows)
            for check in checks
            if check.state is not None
        )

    def _check(self, prefix: str, key: str) -> ColumnCheck:
        rows = self._table.attributes.get(ROWCOUNT_ATTR, 0)
        return ColumnCheck(self.objects, prefix, key, rows)

    def _column(self, prefix: str, key: str) -> ColumnCheck:
        check = self._columns.get(prefix)
        if check is None:
            check = self._columns[prefix] = self._check(prefix, key)
            check.load()
        return check

    def _look_at_objects(self) -> bool:
        """Read all objects; return True if the table's own was in the listing."""
        table_listed = False

        def tasks() -> Iterator[Callable[[], tuple[ColumnCheck, Finding | None]]]:
            nonlocal table_listed
            for key in self.objects.list_tree(""):
                table_listed |= key == TABLE_KEY
                check = self._owner_of(key)
                if check is None or is_document(key):
                    continue
                task = check.task(key)
                if task is not None:
                    yield partial(lambda check, task: (check, task()), check, task)

        for check, finding in stream(tasks(), self._window):
            self._done += 1
            if self._done % 16 == 0:
                self.report(min(1.0, self._done / self._expected), check.name)
            if finding is not None:
                check.findings.append(finding)
        return table_listed

    @property
    def _window(self) -> int | None:
        """Return the number of objects in flight: few on a disk, which has no latency to hide."""
        threads = self.objects.threads
        return None if threads is None else 2 * threads

    def _owner_of(self, key: str) -> ColumnCheck | None:
        """Return the column of an object; record objects without a column."""
        if match := _COLUMN.fullmatch(key):
            check = self._column(f"{GROUP}/{match[1]}", match[1])
            in_group = check.is_group and check.document != REMOVING
            if match[2] != ZARR_JSON and (in_group or not _may_be_chunk(check, match[2])):
                self._look_at_stray(key)
                return None
            return check
        if match := _PENDING.fullmatch(key):
            return self._column(f"{PENDING}/{match[1]}/{match[2]}", match[1])
        if key not in (ZARR_JSON, TABLE_KEY):
            self._look_at_stray(key)
        return None

    def _settled(self, check: ColumnCheck) -> ColumnCheck:
        """Return the column's state once no other process changes it during the check."""
        for _ in range(CHECK_ATTEMPTS):
            check.finish()
            if not self._moved(check):
                return check
            again = self._check(check.prefix, check.key)
            again.load()
            tasks = map(again.task, self._chunk_keys(again))
            found = stream((task for task in tasks if task is not None), self._window)
            again.findings += [finding for finding in found if finding is not None]
            check = again
        check.finish()
        return check

    def _chunk_keys(self, check: ColumnCheck) -> Iterator[str]:
        for key in self.objects.list_tree(check.prefix):
            match = _COLUMN.fullmatch(key) or _PENDING.fullmatch(key)
            if match and _may_be_chunk(check, match[match.re.groups]):
                yield key

    def _moved(self, check: ColumnCheck) -> bool:
        """Return True if an apparent problem may be another process at work."""
        suspicious = check.changed or check.orphans or check.beyond or check.impossible
        if not suspicious and not any(finding.wrong for finding in check.findings):
            return False
        try:
            now = self.objects.get(f"{check.prefix}/{ZARR_JSON}")
        except RatZarrError:
            return False
        if now != check.data or check.changed:
            return True
        missing = (finding.key for finding in check.findings if finding.kind == "missing")
        return any(self.objects.get(key) is not None for key in islice(missing, ASKED_AGAIN))

    def _finish(self, check: ColumnCheck) -> None:
        """Add the findings of a column."""
        if check.prefix.startswith(PENDING) and check.state is not None:
            self._finish_pending(check)
        else:
            for finding in check.findings:
                if finding.kind != "unfinished":
                    self.found.append((finding, None))
                elif not self._replacement_of(check):
                    self.found.append((finding, complete(check, self.opened, self.patience)))
        if check.document == REMOVING and not check.orphans:
            words = "the name of a column that was removed"
            repair = Repair("remove them", partial(remove_orphans, check))
            self._add("leftover", check.prefix, words, repair=repair)
        for keys, words, action, act in (
            (check.orphans, "chunks without a column", "remove them", remove_orphans),
            (check.beyond, "chunks beyond the column's end", "empty them", erase_beyond),
            (check.impossible, "invalid chunks of the column", "remove them", remove_impossible),
        ):
            if keys:
                repair = Repair(action, partial(act, check))
                self._add("leftover", keys[0], _count(keys, words), check.name, repair=repair)

    def _replacement_of(self, check: ColumnCheck) -> bool:
        """Return True if the column in place is a replacement that is still being moved there.

        It is not complete before the move ends. The column under ``PENDING`` has the same identity
        and is complete, and its findings are reported.
        """
        state = check.state
        there = self._columns.get(f"{PENDING}/{check.key}/{state.id}") if state else None
        return there is not None and there.state is not None and there.state.complete

    def _finish_pending(self, check: ColumnCheck) -> None:
        """Add the findings of a column that will replace another."""
        assert check.state is not None  # noqa: S101 - unreadable columns do not get here
        live = self._columns.get(f"{GROUP}/{check.key}")
        now = None if live is None else live.state
        in_place = now is not None and now.id == check.state.id and now.complete
        if in_place or check.state.id != check.prefix.rpartition("/")[2]:
            words = "a column that was replaced, or that has already been moved into place"
            repair = Repair("remove it", partial(remove_pending, check))
            self._add("leftover", check.prefix, words, check.name, repair=repair)
            return
        finished = complete(check, self.opened, self.patience)
        for finding in check.findings:
            if finding.kind == "unfinished":
                words = f"a replacement of the column: {finding.words}"
                self.found.append((replace(finding, words=words), finished))
            else:
                self.found.append((finding, None))
        if check.state.complete:
            words = "a replacement of the column is finished, but was not moved into place"
            rows = 0, check.state.rows
            self._add("unfinished", check.prefix, words, check.name, rows, repair=finished)

    # ---- the table's own attributes

    def _live(self) -> list[ColumnCheck]:
        return [
            check
            for check in self._columns.values()
            if check.state is not None and not check.prefix.startswith(PENDING)
        ]

    def _look_at_rows(self) -> None:
        self._table.reload()
        attributes = self._table.attributes
        lengths = {check.name: check.state for check in self._live()}
        resize = attributes.get(RESIZE_ATTR)
        if resize is not None and resize != self._resize:
            # Another process has just begun; the columns will be resized next.
            return
        act = partial(finish_resize, self._table)
        finish = Repair("finish the change of the row count", act)
        if resize is not None:
            words = f"the row count is being changed ({resize}), or that was interrupted"
            self._add("resize", TABLE_KEY, words, repair=finish)
            return
        rows = attributes.get(ROWCOUNT_ATTR)
        states = [state for state in lengths.values() if state is not None]
        if rows is None:
            rows = next((state.rows for state in states), 0)
        elif (found := rows_of(rows, states)) != rows:
            words = (
                f"the attribute says {rows} rows, and the columns have {found}: another program "
                "has resized them, so the columns are right"
            )
            repair = Repair(f"write {found} rows into ROWCOUNT", act)
            self._add("row-count", TABLE_KEY, words, repair=repair)
            return
        for check in self._live():
            # Use the current row count: the table may have been resized since the column was read.
            fresh = self._check(check.prefix, check.key)
            if check.state is not None and (check.state.rows, check.state.cutting) != (rows, None):
                fresh.load()
            state = fresh.state
            if state is None or (state.rows, state.cutting) == (rows, None):
                continue
            words = f"it has {state.rows} rows, and the table has {rows}"
            repair, other = finish, state.rows
            if state.cutting is not None:
                words = (
                    f"its rows from {state.cutting} on are being cut off, or a cut was interrupted"
                )
                other = state.cutting
            elif state.rows < rows:
                repair = Repair(f"extend the column to {rows} rows", act)
            affected = min(other, rows), max(other, rows)
            key = f"{check.prefix}/{ZARR_JSON}"
            self._add("row-count", key, words, check.name, affected, repair=repair)

    def _look_at_order(self) -> None:
        order = order_of(self._table.document)
        if order is None or FORMAT_VERSION_ATTR not in self._table.attributes:
            # Upstream's tables have no order.
            return
        live = [one for one in self._columns.values() if one.prefix.startswith(f"{GROUP}/")]
        keys = {one.key for one in live if not one.is_gone}
        gone = [name for name in order if not keys.intersection(keys_of(name))]
        left_out = [one.name for one in self._live() if one.name not in order]
        mend = Repair(
            "correct the order of columns",
            partial(mend_order, self.objects, self._table, gone, left_out),
        )
        twice = sorted({name for name in order if order.count(name) > 1})
        for names, words in (
            (gone, "lists missing columns"),
            (twice, "lists columns more than once"),
            (left_out, "omits existing columns"),
        ):
            if names:
                words = f"the order of the columns {words}: {first_of(names, 5)}"
                self._add("order", TABLE_KEY, words, repair=mend)

    # ---- objects without a column

    def _look_at_stray(self, key: str) -> None:
        local = self._local
        if local is not None and is_link(local, key):
            if key.count("/") != 1 or not key.startswith(f"{GROUP}/"):
                # An unreadable column is reported when it is opened.
                self._add("link", key, "is a symbolic link: links in a store are not followed")
        elif local is not None and is_litter(key):
            # With a dot, it belongs to a running writer, or is reported with everything below it.
            # Without, zarr's own writer has left it.
            if not key.startswith(".") and is_old(local, key):
                repair = Repair("remove it", partial(remove_old, local, key))
                self._add("leftover", key, "left by a writer that was killed", repair=repair)
        else:
            folder = key.rpartition("/")[0] or key
            self._foreign.setdefault(folder, [key, 0])[1] += 1

    @property
    def _local(self) -> LocalObjects | None:
        return self.objects if isinstance(self.objects, LocalObjects) else None

    def _look_at_strays(self) -> None:
        for first, count in self._foreign.values():
            words = "does not belong to the table"
            if count > 1:
                words = f"and {count - 1} more objects beside it do not belong to the table"
            self._add("foreign", first, words)
        local = self._local
        if local is None:
            return
        for name in sorted(local.litter()):
            repair = Repair("remove it", partial(sweep, local, name))
            self._add("leftover", name, "left by a process that was killed", repair=repair)
        for folder in empty_folders(local):
            repair = Repair("remove it", partial(remove_folder, local, folder))
            self._add("leftover", folder, "an empty directory", repair=repair)


def _may_be_chunk(check: ColumnCheck, name: str) -> bool:
    """Return True if a name in a column may be a chunk's.

    Numbers alone are, if the column's chunk keys have Zarr's encoding ``v2``.
    """
    if not name[0].isdigit():
        return name != ZARR_JSON
    return check.state is not None and check.state.chunk_of(name) is not None


def _count(keys: list[str], words: str) -> str:
    return words if len(keys) == 1 else f"{len(keys)} {words}, up to {keys[-1]}"
