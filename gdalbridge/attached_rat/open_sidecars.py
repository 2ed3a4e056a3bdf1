"""The sidecars that are in use in this process, and how what waits is written at every end.

There is one :class:`~gdalbridge.attached_rat.sidecar_table.SidecarTable` for each. An attached table that
is closed flushes its own; one that is merely dropped, or there when the program ends or
forks, comes here. The child of a fork forgets what waits: it is its parent's to write.
"""

import atexit
import gc
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakValueDictionary

from gdalbridge.attached_rat.sidecar_table import DEFAULT_LIMITS, Limits, SidecarTable
from ratzarr import RatZarrError

__all__ = ["flush_all", "flush_each", "let_go", "shared_table"]

_tables: WeakValueDictionary[str, SidecarTable] = WeakValueDictionary()
_tables_lock = threading.Lock()


_orphans: SimpleQueue[list[SidecarTable]] = SimpleQueue()
"""Sidecars of attached tables that went where nothing can be written."""
_here = threading.local()


def _note_collection(phase: str, info: Mapping[str, Any]) -> None:
    _here.collecting = phase == "start"


gc.callbacks.append(_note_collection)


def let_go(tables: list[SidecarTable]) -> None:
    """Flush sidecars of an attached table that is no longer used: now, or when it can be.

    The garbage collector runs in any thread, at any time: in the one that all requests to
    S3 wait for, or in the middle of a write. Nothing is written then, but later.
    """
    if getattr(_here, "collecting", False):
        _orphans.put(tables)
    else:
        flush_each(tables)


def _flush_orphans() -> None:
    while True:
        try:
            tables = _orphans.get_nowait()
        except Empty:
            return
        flush_each(tables)


def shared_table(path: str, limits: Limits = DEFAULT_LIMITS) -> SidecarTable:
    """Return the process's one instance for a sidecar, which need not exist yet.

    Parameters
    ----------
    path : str
        Path or URL.
    limits : Limits
        Where it is only made by this call.
    """
    _flush_orphans()
    with _tables_lock:
        table = _tables.get(path)
        if table is None:
            table = _tables[path] = SidecarTable(path, limits)
        return table


def flush_all() -> None:
    """Write back what waits, of all sidecars of this process.

    Raises
    ------
    RatZarrError
        The first error, after all were tried.
    """
    _flush_orphans()
    with _tables_lock:
        tables = list(_tables.values())
    flush_each(tables)


def _at_the_end() -> None:
    # What is put later (in a handler that was there before us, in a __del__ when modules are
    # taken down) has nobody to write it but itself.
    SidecarTable.is_ending = True
    flush_all()


atexit.register(_at_the_end)


def _before_fork() -> None:
    # What can't be written goes on waiting, and whoever flushes is told.
    with suppress(RatZarrError):
        flush_all()


def _in_child() -> None:
    global _tables_lock, _orphans
    _tables_lock, _orphans = threading.Lock(), SimpleQueue()
    for table in list(_tables.values()):
        table.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def flush_each(tables: Iterable[SidecarTable]) -> None:
    """Write back what waits, of some sidecars; errors as :func:`flush_all`."""
    errors = []
    for table in tables:
        try:
            table.flush()
        except RatZarrError as error:
            errors.append(error)
    if errors:
        raise errors[0]
