"""The sidecars in use by this process.

Each sidecar has one :class:`~gdalbridge.attached_rat.sidecar_table.SidecarTable` per process. Its
changes are written when an attached table of it is closed or no longer referenced, and as
:mod:`ratzarr.pending` describes.
"""

import os
import threading
from collections.abc import Iterable
from weakref import WeakValueDictionary

from gdalbridge.attached_rat.sidecar_table import BUFFER_BYTES, CACHE_BYTES, SidecarTable
from gdalbridge.sidecars.naming import where
from ratzarr import RatZarrError
from ratzarr.stores import parse as parse_location

__all__ = ["flush_all", "flush_each", "shared_table"]

_tables: WeakValueDictionary[str, SidecarTable] = WeakValueDictionary()
_tables_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    # In a forked child, the thread that held it does not exist and would never release it.
    os.register_at_fork(before=_tables_lock.acquire, after_in_parent=_tables_lock.release,
                        after_in_child=_tables_lock.release)  # fmt: skip


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
    location, key = parse_location(path), where(path)
    if location.kind == "local":
        # The table may be created after the program has changed its working directory.
        path = location.path
    with _tables_lock:
        table = _tables.get(key)
        if table is None:
            table = _tables[key] = SidecarTable(path, cache_bytes, buffer_bytes)
        return table


def flush_all() -> None:
    """Write the pending changes of all sidecars of this process.

    Raises
    ------
    RatZarrError
        The first error, after all sidecars were tried.
    """
    with _tables_lock:
        tables = list(_tables.values())
    flush_each(tables)


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
