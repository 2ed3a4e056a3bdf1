"""Pass GDAL's S3 options to our own stores.

GDAL's configuration options come from ``gdal.SetConfigOption`` and similar functions, from GDAL's
configuration file, from ``--config`` of a command, and from the environment, which other modules
read.
"""

import threading
from collections.abc import Mapping

from gdalbridge.errors import GdalMissingError
from gdalbridge.settings import environment
from ratzarr.stores import NAMES

__all__ = ["PREFIX", "hold", "hold_all", "release", "release_all", "set_option", "words"]

PREFIX = "/vsis3/"

_given: dict[str, str] = {}
_held: dict[str, dict[str, str | None]] = {}
"""By bucket, the values that our temporary options have replaced."""
_everywhere: dict[str, str] = {}
"""The options that we have set for all buckets."""
_lock = threading.RLock()


def set_option(name: str, value: str) -> None:
    """Set a GDAL option for the process, even if GDAL is not installed."""
    _given[name] = value
    try:
        from gdalbridge.gdalio.compat import gdal
    except GdalMissingError:
        return
    gdal.SetConfigOption(name, value)


def words(bucket: str) -> dict[str, tuple[str, str]]:
    """Return GDAL's options with their sources, for :func:`ratzarr.stores.aws_config.consult`."""
    try:
        from gdalbridge.gdalio.compat import gdal
    except GdalMissingError:
        return {name: (value, "--config") for name, value in _given.items()}
    path = f"{PREFIX}{bucket}/"
    found = {}
    with _lock:
        before = _held.get(bucket, {})
        for name in NAMES:
            said = {
                "GDAL's options for this path": (
                    before[name] if name in before else _of_path(path, name)
                ),
                "GDAL's options of this thread": gdal.GetThreadLocalConfigOption(name),
                "GDAL's options": _of_process(name),
            }
            for source, value in said.items():
                if value is not None:
                    is_given = source == "GDAL's options" and _given.get(name) == value
                    found[name] = (value, "--config" if is_given else source)
                    break
    return found


def _of_path(path: str, name: str) -> str | None:
    from gdalbridge.gdalio.compat import gdal

    # Without an option for this path, GDAL returns the general value.
    found: str | None = gdal.GetPathSpecificOption(path, name)
    return None if found in (gdal.GetConfigOption(name), _everywhere.get(name)) else found


def _of_process(name: str) -> str | None:
    from gdalbridge.gdalio.compat import LISTS_OPTIONS, gdal

    if LISTS_OPTIONS:
        found: str | None = gdal.GetGlobalConfigOption(name)
        return found
    # This may be the environment's value, which is read elsewhere with the same result.
    value: str | None = gdal.GetConfigOption(name)
    return None if value == environment.get(name) else value


def hold(bucket: str, options: Mapping[str, str]) -> None:
    """Set options for one bucket until they are released; skip those that are equal already."""
    from gdalbridge.gdalio.compat import gdal

    path = f"{PREFIX}{bucket}/"
    with _lock:
        before: dict[str, str | None] = {}
        for name, value in options.items():
            if gdal.GetPathSpecificOption(path, name) != value:
                before[name] = _of_path(path, name)
                gdal.SetPathSpecificOption(path, name, value)
        _held[bucket] = before
        _forget(path, before)


def release(bucket: str) -> None:
    """Restore the previous options."""
    from gdalbridge.gdalio.compat import gdal

    path = f"{PREFIX}{bucket}/"
    with _lock:
        before = _held.pop(bucket)
        # While GDAL still has the credentials: without them, it would search for others.
        _forget(path, before)
        for name, value in before.items():
            gdal.SetPathSpecificOption(path, name, None)
            # Options of longer or shorter paths apply again automatically.
            if value is not None and gdal.GetPathSpecificOption(path, name) != value:
                gdal.SetPathSpecificOption(path, name, value)


def hold_all(options: Mapping[str, str]) -> None:
    """Set options for all buckets, until they are released."""
    from gdalbridge.gdalio.compat import gdal

    with _lock:
        for name, value in options.items():
            gdal.SetPathSpecificOption(PREFIX, name, value)
        _everywhere.update(options)


def release_all() -> None:
    """Reset the options for all buckets."""
    from gdalbridge.gdalio.compat import gdal

    with _lock:
        for name in _everywhere:
            gdal.SetPathSpecificOption(PREFIX, name, None)
        _everywhere.clear()


def _forget(path: str, changed: Mapping[str, str | None]) -> None:
    from gdalbridge.gdalio.compat import gdal

    if any(name.startswith("AWS_") for name in changed):
        # GDAL's cache for this bucket may come from another server or user.
        gdal.VSICurlPartialClearCache(path)
