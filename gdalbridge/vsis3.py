"""GDAL's ``/vsis3/`` reaches the same server as our own stores.

GDAL and the AWS tools read different environment variables. For each bucket that is
about to be opened, what the user has said in the AWS tools' words is passed on to GDAL
in its own; whatever the user has said in GDAL's own words stays.
"""

import os

from ratzarr.location import gdal_name
from ratzarr.s3settings import S3Settings

from ._gdal import gdal

__all__ = ["effective_options", "forget", "prepare"]

PREFIX = "/vsis3/"
OPTIONS = (
    "AWS_S3_ENDPOINT",
    "AWS_HTTPS",
    "AWS_VIRTUAL_HOSTING",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_NO_SIGN_REQUEST",
    "AWS_REQUEST_PAYER",
)
"""GDAL's options that say where S3 is and how to speak to it."""

_prepared: dict[str, dict[str, str]] = {}


def prepare(raster: str) -> str:
    """Return GDAL's name for a raster, once GDAL knows how to reach it.

    Parameters
    ----------
    raster : str
        A path, a URL or a ``/vsi`` name.
    """
    name = gdal_name(raster)
    if name.startswith(PREFIX):
        bucket = PREFIX + name[len(PREFIX) :].partition("/")[0] + "/"
        wanted = {
            key: value
            for key, value in S3Settings.from_environment(os.environ).gdal_options().items()
            if gdal.GetConfigOption(key) is None
        }
        for key in _prepared.get(bucket, {}).keys() - wanted.keys():
            gdal.SetPathSpecificOption(bucket, key, None)
        if wanted != _prepared.get(bucket):
            for key, value in wanted.items():
                gdal.SetPathSpecificOption(bucket, key, value)
            # What was cached was another server's.
            gdal.VSICurlPartialClearCache(bucket)
            _prepared[bucket] = wanted
    return name


def forget(raster: str) -> None:
    """Let GDAL look again beside a raster on S3: it remembers what was there, and what was not."""
    name = gdal_name(raster)
    if name.startswith(PREFIX):
        gdal.VSICurlPartialClearCache(name.rpartition("/")[0])


def effective_options() -> dict[str, str]:
    """Return what GDAL will use for a bucket, by option: the user's words, else ours."""
    ours = S3Settings.from_environment(os.environ).gdal_options()
    found = {key: gdal.GetConfigOption(key) or ours.get(key) for key in OPTIONS}
    return {key: value for key, value in found.items() if value is not None}
