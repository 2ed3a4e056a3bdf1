"""Whether tables still fit their raster: one check, for everything that opens both.

Whatever reads a table with its raster warns, once in a process for each table. Whatever
makes a new product of both refuses, unless it is told to accept that.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gdalbridge.errors import GdalMissingError, RasterNotFoundError, StaleError, StaleWarning
from gdalbridge.sidecars.provenance import raster_attribute, raster_changes
from ratzarr import RatZarrError
from ratzarr.errors import Advice

__all__ = ["changed_tables", "refuse_stale", "warn_if_stale", "warn_of_changes"]

ADVICE = (
    "'gdalbridge touch' accepts the raster where the table still fits, "
    "'gdalbridge copy --overwrite' copies the raster's own table anew"
)

_said: set[tuple[str, tuple[str, ...]]] = set()


def changed_tables(
    recorded: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Return what has changed, by the path of each table that does not fit its raster any more.

    Parameters
    ----------
    recorded : mapping
        The attribute ``RASTER`` of each table, by its path; None where it has none.
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
    """Warn where a raster is not as its tables have recorded it; once for each table.

    Parameters
    ----------
    name : str
        The raster.
    now, recorded : mapping
        See :func:`changed_tables`.
    stacklevel : int
        As for :func:`warnings.warn`, from here.
    """
    for path, changes in changed_tables(recorded, now).items():
        said = (path if "://" in path else str(Path(path).absolute()), changes)
        if said in _said:
            continue
        warnings.warn(
            f"{path} may not fit {name} any more: {'; '.join(changes)}. {ADVICE}",
            StaleWarning,
            stacklevel=stacklevel,
        )
        # Not where a filter has made an error of it.
        _said.add(said)


def warn_if_stale(
    raster: Any,
    band: int,
    recorded: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
    *,
    stacklevel: int = 4,
) -> None:
    """Open a raster to see whether its tables fit it, and warn as :func:`warn_of_changes` does.

    Nothing is said where the raster is not there, or GDAL is not.
    """
    if all(value is None for value in recorded.values()):
        return
    now = None
    with suppress(GdalMissingError, RasterNotFoundError, RatZarrError):
        from gdalbridge.gdalio.datasets import opened

        with opened(raster, storage_options) as dataset:
            if band <= dataset.RasterCount:
                now = raster_attribute(dataset, band, next(iter(recorded)))
    if now is not None:
        warn_of_changes(str(raster), now, recorded, stacklevel=stacklevel)


def refuse_stale(name: str, now: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Refuse to make anything of a raster and tables that may not fit it any more.

    Raises
    ------
    StaleError
        Says of the first such table what has changed.
    """
    for path, changes in changed_tables(recorded, now).items():
        raise StaleError(
            Advice(
                f"{path} may not fit {name} any more: {'; '.join(changes)}. 'gdalbridge touch' "
                "accepts the raster where the table still fits.",
                "Or use accept_stale=True to go on as it is.",
            )
        )
