"""The readable columns of a table, with warnings for the others."""

import warnings
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from gdalbridge.errors import LossWarning
from ratzarr import RatZarr

__all__ = ["readable_columns"]

_named: WeakKeyDictionary[RatZarr, set[str]] = WeakKeyDictionary()
"""The columns already named in a warning, for each open table. Scripts ask for the names at
each block, and must not repeat the warning."""


def readable_columns(table: RatZarr, names: Iterable[str] | None = None) -> list[str]:
    """Return the readable columns of a table, opened in parallel.

    Parameters
    ----------
    table : RatZarr
    names : iterable of str, optional
        The columns to choose from; by default all.

    Warns
    -----
    LossWarning
        For each unreadable column, once for each open table; the message contains the reason.
    """
    wanted = table.getColumnNames() if names is None else list(names)
    unreadable = table.getUnreadableColumns(wanted)
    named = _named.setdefault(table, set())
    for name, error in unreadable.items():
        if name in named:
            continue
        named.add(name)
        warnings.warn(
            f"{table.filename}: column {name!r} is left out: {error}", LossWarning, stacklevel=3
        )
    return [name for name in wanted if name not in unreadable]
