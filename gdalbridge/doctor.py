"""What is installed, and which S3 settings are in force: the first thing to look at."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

from ratzarr import RatZarrError
from ratzarr.location import parse as parse_location
from ratzarr.s3settings import S3Settings
from ratzarr.stores import exists, open_objects

from .errors import BridgeError

__all__ = ["diagnose", "diagnosis_text"]

PACKAGES = ("ratzarr", "numpy", "zarr", "s3fs", "fsspec", "click")
RAT_DRIVERS = ("GTiff", "COG", "HFA", "KEA", "VRT", "MEM")


def diagnose(place: str | None = None) -> dict[str, Any]:
    """Look at the installation.

    Parameters
    ----------
    place : str, optional
        A URL on S3 (or a path) to ask something of.

    Returns
    -------
    dict
        Ready for JSON; ``problems`` is a list of sentences, empty where all is well.
        No secret is in it.
    """
    found: dict[str, Any] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "packages": {name: _version(name) for name in PACKAGES},
        "problems": [],
    }
    _look_at_gdal(found)
    _look_at_s3(found)
    if place is not None:
        _ask(found, place)
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _look_at_gdal(found: dict[str, Any]) -> None:
    distributions = {name: _version(name) for name in ("GDAL", "gdal-wheel")}
    installed = {name: version for name, version in distributions.items() if version}
    found["gdal_distributions"] = installed
    if len(installed) > 1:
        found["problems"].append(
            "the distributions GDAL and gdal-wheel are both installed, and the second has "
            "overwritten the first's files: uninstall both, then install one"
        )
    try:
        from ._gdal import gdal
    except BridgeError as error:
        found["gdal"] = None
        found["problems"].append(str(error))
        return
    found["gdal"] = str(gdal.__version__)
    found["drivers"] = {name: gdal.GetDriverByName(name) is not None for name in RAT_DRIVERS}
    version = installed.get("GDAL")
    if version and version.split(".")[:2] != found["gdal"].split(".")[:2]:
        found["problems"].append(
            f"the Python package GDAL {version} runs on libgdal {found['gdal']}: they must match"
        )


def _look_at_s3(found: dict[str, Any]) -> None:
    settings = S3Settings.from_environment(os.environ)
    found["s3"] = {
        "endpoint": settings.endpoint or "AWS's own",
        "region": settings.region,
        "profile": settings.profile,
        "anonymous": settings.anonymous,
        "requester_pays": settings.requester_pays,
        "path_style": settings.path_style,
        "keys_in_environment": bool(os.environ.get("AWS_ACCESS_KEY_ID")),
    }
    if found["gdal"] is not None:
        from .vsis3 import effective_options

        found["s3_in_gdal"] = effective_options()


def _ask(found: dict[str, Any], place: str) -> None:
    answers: dict[str, Any] = {"place": place}
    found["asked"] = answers
    name = place.rstrip("/")
    if name.lower().startswith("s3://") and "/" not in name[5:]:
        # A bucket alone: any key will do to see whether it answers.
        name += "/gdalbridge-doctor"
    try:
        location = parse_location(name)
        answers["something_there"] = exists(open_objects(location))
    except RatZarrError as error:
        found["problems"].append(str(error))
        return
    if location.kind == "s3" and found["gdal"] is not None:
        from ._gdal import gdal, silence
        from .vsis3 import prepare

        bucket = prepare(f"s3://{location.bucket}/")
        with silence():
            answers["gdal_sees_bucket"] = gdal.VSIStatL(bucket) is not None
        if not answers["gdal_sees_bucket"]:
            found["problems"].append(f"the bucket answers us, but GDAL can't see {bucket}")


def diagnosis_text(found: dict[str, Any]) -> str:
    """Return what :func:`diagnose` found, for reading."""
    rows = [("Python", found["python"])]
    rows += [(name, version or "not installed") for name, version in found["packages"].items()]
    rows.append(("GDAL", found["gdal"] or "not installed"))
    rows.append(
        ("  from", ", ".join(map(" ".join, found["gdal_distributions"].items())) or "system")
    )
    for name, there in found.get("drivers", {}).items():
        rows.append((f"  driver {name}", "yes" if there else "no"))
    rows += [(f"S3 {key.replace('_', ' ')}", str(value)) for key, value in found["s3"].items()]
    rows += [(f"GDAL {key}", value) for key, value in found.get("s3_in_gdal", {}).items()]
    rows += [(f"{key.replace('_', ' ')}", str(v)) for key, v in found.get("asked", {}).items()]
    problems = [f"problem: {text}" for text in found["problems"]] or ["no problems found"]
    # Not cut: a path to an interpreter is of use only as a whole.
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in rows), "", *problems])
