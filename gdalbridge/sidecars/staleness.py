"""Detection of stale tables: tables that no longer fit their raster.

Code that reads a table together with its raster warns, once per process and table. Code that makes
a new product from both raises an error, unless the caller accepts stale tables.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gdalbridge.errors import StaleError, StaleWarning
from gdalbridge.sidecars.provenance import raster_changes
from ratzarr.errors import Advice

__all__ = ["changed_tables", "refuse_stale", "warn_of_changes"]

ADVICE = (
    "'gdalbridge touch' accepts the raster where the table still fits, "
    "'gdalbridge build --overwrite' makes it from the pixels anew (--recount: only its counts), and "
    "'gdalbridge copy --overwrite' copies the raster's own table anew"
)

_warned: set[tuple[str, tuple[str, ...]]] = set()


def changed_tables(
    recorded: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Return the changes for each table, by path, that no longer fits its raster.

    Parameters
    ----------
    recorded : mapping
        The attribute ``RASTER`` of each table, by path; None for a table without it.
    now : mapping
        From :func:`gdalbridge.sidecars.provenance.raster_attribute`.
    """
    found = {}
    for path, then in recorded.items():
        changes = () if then is None else tuple(raster_changes(then, now))
        if changes:
            found[path] = changes
    return found


def warn_of_changes(
    name: str, now: Mapping[str, Any], recorded: Mapping[str, Any], *, stacklevel: int = 4
) -> None:
    """Warn about tables that no longer fit their raster, once per table.

    Parameters
    ----------
    name : str
        The raster.
    now, recorded : mapping
        See :func:`changed_tables`.
    stacklevel : int
        As for :func:`warnings.warn`, counted from this function.
    """
    for path, changes in changed_tables(recorded, now).items():
        key = (path if "://" in path else str(Path(path).absolute()), changes)
        if key in _warned:
            continue
        warnings.warn(
            f"{path} may not fit {name} any more: {'; '.join(changes)}. {ADVICE}",
            StaleWarning,
            stacklevel=stacklevel,
        )
        # Not reached if a filter turns the warning into an error.
        _warned.add(key)


def refuse_stale(name: str, now: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Raise an error if tables no longer fit their raster.

    Raises
    ------
    StaleError
        If a table is stale. The message describes the changes of the first one.
    """
    for path, changes in changed_tables(recorded, now).items():
        raise StaleError(
            Advice(
                f"{path} may not fit {name} any more: {'; '.join(changes)}. 'gdalbridge touch' "
                "accepts the raster where the table still fits.",
                "Or pass accept_stale=True to continue anyway.",
            )
        )
