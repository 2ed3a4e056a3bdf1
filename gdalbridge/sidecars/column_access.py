"""Which columns of a table can be read; the others are named, and left out."""

import warnings
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from gdalbridge.errors import LossWarning
from ratzarr import RatZarr

__all__ = ["readable_columns"]


_named: WeakKeyDictionary[RatZarr, set[str]] = WeakKeyDictionary()
"""Columns that were warned of, by open table: a script asks for the names at each block."""


def readable_columns(table: RatZarr, names: Iterable[str] | None = None) -> list[str]:
    """Return the columns of a table that can be read, opened in parallel.

    Parameters
    ----------
    table : RatZarr
    names : iterable of str, optional
        The columns to choose from; by default all.

    Warns
    -----
    LossWarning
        For each column that can't be read, with the reason, once for each open table.
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
