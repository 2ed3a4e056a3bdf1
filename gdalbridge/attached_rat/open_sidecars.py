"""The sidecars in use by this process. Their pending changes are written even without ``close``.

Each sidecar has one :class:`~gdalbridge.attached_rat.sidecar_table.SidecarTable` per process. A
closed attached table flushes its own sidecars. This module flushes the others: when an attached
table is garbage-collected, when the program ends, and before a fork. The child of a fork discards
pending changes, because the parent writes them.
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

from gdalbridge.attached_rat.sidecar_table import BUFFER_BYTES, CACHE_BYTES, SidecarTable
from ratzarr import RatZarrError

__all__ = ["flush_all", "flush_each", "release", "shared_table"]

_tables: WeakValueDictionary[str, SidecarTable] = WeakValueDictionary()
_tables_lock = threading.Lock()


_orphans: SimpleQueue[list[SidecarTable]] = SimpleQueue()
"""Sidecars of tables that the garbage collector has freed, to be flushed later."""
_here = threading.local()


def _note_collection(phase: str, info: Mapping[str, Any]) -> None:
    _here.collecting = phase == "start"


gc.callbacks.append(_note_collection)


def release(tables: list[SidecarTable]) -> None:
    """Flush the sidecars of an unused attached table, or queue them during garbage collection.

    The garbage collector runs in any thread at any time: in the thread that serves all requests
    to S3, or in the middle of a write. Flushing there is not safe, so it is postponed.
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


def shared_table(
    path: str, cache_bytes: int = CACHE_BYTES, buffer_bytes: int = BUFFER_BYTES
) -> SidecarTable:
    """Return the process's only instance for a sidecar, which need not exist yet.

    Parameters
    ----------
    path : str
        Path or URL.
    cache_bytes, buffer_bytes : int
        The limits of a new instance; an existing instance keeps its own.
    """
    _flush_orphans()
    with _tables_lock:
        table = _tables.get(path)
        if table is None:
            table = _tables[path] = SidecarTable(path, cache_bytes, buffer_bytes)
        return table


def flush_all() -> None:
    """Write the pending changes of all sidecars of this process.

    Raises
    ------
    RatZarrError
        The first error, after all sidecars were tried.
    """
    _flush_orphans()
    with _tables_lock:
        tables = list(_tables.values())
    flush_each(tables)


def _at_exit() -> None:
    # Later changes are written at once, because nothing flushes them after this. They can come
    # from exit handlers registered before ours, or from a __del__ at the interpreter's end.
    SidecarTable.is_ending = True
    flush_all()


atexit.register(_at_exit)


def _before_fork() -> None:
    # Changes that can't be written stay pending; the next flush raises the error.
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
    """Write the pending changes of some sidecars; errors as in :func:`flush_all`."""
    errors = []
    for table in tables:
        try:
            table.flush()
        except RatZarrError as error:
            errors.append(error)
    if errors:
        raise errors[0]
