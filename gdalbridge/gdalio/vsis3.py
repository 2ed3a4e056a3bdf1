"""GDAL's access to S3, with the same server and credentials as our own stores.

For the duration of a call, the settings from :mod:`ratzarr.stores.aws_config` are set in GDAL for
the bucket in question. Conversely, our stores respect options that the user has set with
``gdal.SetConfigOption``, a configuration file or ``--config``.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.config_options import PREFIX, hold, hold_all, release, release_all
from gdalbridge.settings import environment
from ratzarr import ArgumentError, DamagedError, RatZarrError
from ratzarr.stores import S3Settings, current, gdal_name, open_objects
from ratzarr.stores import parse as parse_location

__all__ = [
    "DERIVED",
    "ask",
    "bucket_of",
    "effective_options",
    "forget",
    "in_this_thread",
    "prepare_all",
    "reached",
]

DERIVED = "from the settings above"
"""Source of GDAL options that follow from our stores' settings."""

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
PATIENCE = {"GDAL_HTTP_CONNECTTIMEOUT": "5", "GDAL_HTTP_LOW_SPEED_TIME": "8"} | {
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "6",
    "GDAL_HTTP_RETRY_DELAY": "0.1",
}
"""By default GDAL waits forever for a silent server, and takes a file for missing if the server is busy
when it is requested, without an error. Slow transfers are not aborted. Each pause is more than twice as
long as the one before."""

_users: dict[str, list[tuple[int, dict[str, str]]]] = {}
"""By bucket, the current users of options: thread and options."""
_changed = threading.Condition()


def bucket_of(name: str) -> str | None:
    """Return the bucket of a GDAL name; None if it is not on S3."""
    if not name.startswith(PREFIX):
        return None
    return name[len(PREFIX) :].partition("/")[0] or None


@contextmanager
def reached(raster: str, options: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Let GDAL access a raster within the block; yield GDAL's name for it.

    Parameters
    ----------
    raster : str
        A path, a URL or a ``/vsi`` name.
    options : mapping, optional
        Storage options, see :class:`ratzarr.RatZarr`. They precede everything else.

    Raises
    ------
    RatZarrError
        If the server is unreachable or refuses (:mod:`ratzarr.stores.s3_errors`).
    """
    name = gdal_name(raster)
    bucket = bucket_of(name)
    if bucket is None:
        yield name
        return
    from ratzarr.stores import client_for

    settings = current(bucket, options)
    wanted = _options(settings)
    if not client_for(settings, options).is_direct(bucket):
        # GDAL would wait longer, once for each name that it tries, and explain less. It would also
        # follow a redirect and send the session token there.
        ask(name, options)
    me = (threading.get_ident(), wanted)
    with _changed:
        # Threads that need the same bucket name on different servers take turns.
        _changed.wait_for(lambda: _free_for(bucket, me))
        users = _users.setdefault(bucket, [])
        if users and users[0][1] != wanted:
            raise BridgeError(f"{raster}: its bucket is in use already, with other S3 settings")
        if not users:
            hold(bucket, wanted)
        users.append(me)
    try:
        yield name
    finally:
        with _changed:
            users.remove(me)
            if not users:
                release(bucket)
                del _users[bucket]
            _changed.notify_all()


def forget(raster: str, options: Mapping[str, Any] | None = None) -> None:
    """Make GDAL look for a raster on S3 again, because it caches both hits and misses."""
    # GDAL's cache is keyed by the server's address, so the settings must be in place.
    with reached(raster, options) as name, in_this_thread(name):
        if name.startswith(PREFIX):
            from gdalbridge.gdalio.compat import gdal

            gdal.VSICurlPartialClearCache(name.rpartition("/")[0])


def _free_for(bucket: str, me: tuple[int, dict[str, str]]) -> bool:
    users = _users.get(bucket, [])
    return not users or users[0][1] == me[1] or any(thread == me[0] for thread, _ in users)


@contextmanager
def in_this_thread(name: str) -> Iterator[None]:
    """Let GDAL list the directory of a raster that is :func:`reached`, within the block.

    Path-specific options do not apply when GDAL lists the top of a bucket, because GDAL omits the
    trailing slash. Options for the name without a slash would also apply to other buckets whose
    names begin with it.
    """
    users = _users.get(bucket_of(name) or "", [])
    if not users:
        yield
        return
    from gdalbridge.gdalio.compat import thread_options

    with thread_options(users[0][1]):
        yield


def ask(name: str, options: Mapping[str, Any] | None = None) -> bool:
    """Request an object with our own client, to get a clear error if it fails.

    Returns
    -------
    bool
        False if the server says that it is missing.

    Raises
    ------
    RatZarrError
        Unless the object exists or is reported missing.
    """
    try:
        location = parse_location(name)
    except ArgumentError:
        # For a bucket alone, or a key that only a raster can have, let GDAL report the error.
        return True
    try:
        # Only the status matters, so the body is not read.
        return open_objects(location, options).get("", limit=0) is not None
    except DamagedError:
        return True
    except RatZarrError as error:
        raise type(error)(f"{name} can't be opened: {error}") from error


def _options(settings: S3Settings) -> dict[str, str]:
    from gdalbridge.gdalio.compat import gdal
    from ratzarr.stores import keys_of_profile

    wanted = settings.gdal_options(keys_of_profile(settings))
    patience = {key: value for key, value in PATIENCE.items() if gdal.GetConfigOption(key) is None}
    return wanted | patience


def prepare_all() -> Callable[[], None]:
    """Let other code's GDAL datasets use the same settings for all buckets from now on.

    Returns
    -------
    callable
        Resets the options.
    """
    from gdalbridge.gdalio.compat import gdal

    settings = S3Settings.resolve(environment)
    wanted = {
        name: value
        for name, value in settings.gdal_options().items()
        if gdal.GetConfigOption(name) is None
    }
    hold_all(wanted)
    return release_all


def effective_options(settings: S3Settings, bucket: str) -> dict[str, tuple[str, str]]:
    """Return the options that GDAL uses during our calls, with their sources, without secrets."""
    from gdalbridge.gdalio.config_options import words

    said = words(bucket)
    found = {}
    for name, value in settings.gdal_options().items():
        if name in SECRETS:
            value = "set" if value else "not set"
        if name == "AWS_S3_ENDPOINT":
            value = value.rpartition("@")[2]
        chosen = said.get(name)
        found[name] = (value, chosen[1] if chosen else DERIVED)
    return found
