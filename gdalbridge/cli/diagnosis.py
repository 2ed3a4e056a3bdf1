"""A diagnosis of the installation and of the S3 settings in force."""

import platform
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.vsis3 import DERIVED, bucket_of
from gdalbridge.sidecars.naming import SUFFIX, is_sidecar
from ratzarr import DamagedError, RatZarrError
from ratzarr.stores import (
    Objects,
    current,
    gdal_name,
    open_objects,
    url_name,
    without_password,
)
from ratzarr.stores import parse as parse_location

__all__ = ["diagnose", "diagnosis_text"]

PACKAGES = ("ratzarr", "numpy", "zarr", "s3fs", "fsspec", "click")
RAT_DRIVERS = ("GTiff", "COG", "HFA", "KEA", "VRT", "MEM")


def diagnose(
    place: str | None = None, *, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Examine the installation, and a location if given.

    Parameters
    ----------
    place : str, optional
        An S3 URL or a path to test. Nothing is written there.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.

    Returns
    -------
    dict
        JSON-compatible. ``problems`` is a list of sentences, empty if none were found. The result
        has no secrets.
    """
    found: dict[str, Any] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "packages": {name: _version(name) for name in PACKAGES},
        "problems": [],
    }
    _look_at_gdal(found)
    bucket = bucket_of(gdal_name(place)) if place is not None else None
    _look_at_s3(found, bucket or "", storage_options)
    if place is not None:
        _ask(found, place, storage_options)
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
        from gdalbridge.gdalio.compat import gdal
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


def _look_at_s3(found: dict[str, Any], bucket: str, options: Mapping[str, Any] | None) -> None:
    try:
        settings = current(bucket, options)
    except RatZarrError as error:
        found["s3"] = {}
        found["problems"].append(str(error))
        return
    found["s3"] = {
        "endpoint": without_password(settings.endpoint) or "AWS's own",
        "region": settings.region,
        "profile": settings.profile,
        "credentials": settings.credentials,
        "anonymous": settings.anonymous,
        "requester_pays": settings.requester_pays,
        "path_style": settings.path_style,
        "first_answer": settings.first_answer,
    }
    found["s3_sources"] = dict(settings.sources)
    found["s3_conflicts"] = list(settings.conflicts)
    if settings.problem:
        found["problems"].append(settings.problem)
    if found["gdal"] is not None:
        from gdalbridge.gdalio.vsis3 import effective_options

        used = effective_options(settings, bucket)
        found["s3_in_gdal"] = {name: value for name, (value, _) in used.items()}
        found["s3_in_gdal_sources"] = {name: source for name, (_, source) in used.items()}


def _ask(found: dict[str, Any], place: str, options: Mapping[str, Any] | None) -> None:
    answers: dict[str, Any] = {"place": without_password(place)}
    found["asked"] = answers
    name = url_name(place).rstrip("/")
    if name.lower().startswith("s3://") and "/" not in name[5:]:
        # For a bucket alone, any key shows if it answers.
        name += "/gdalbridge-doctor"
    try:
        location = parse_location(name)
        objects = open_objects(location, options)
    except RatZarrError as error:
        found["problems"].append(str(error))
        return

    def attempt(what: str, question: Callable[[], Any]) -> None:
        try:
            answers[what] = question()
        except (RatZarrError, BridgeError) as error:
            answers[what] = False
            # Every request to an unreachable server fails in the same way.
            reason = str(error).partition(": ")[2]
            if reason not in [text.partition(": ")[2] for text in found["problems"]]:
                found["problems"].append(str(error))

    attempt("something_there", objects.occupied)
    if location.kind != "s3":
        return
    answers["may_list"] = not found["problems"] or answers["something_there"] is True
    attempt("may_read", lambda: _may_read(objects))
    attempt("may_write", lambda: _may_write(found, name, options))
    if found["gdal"] is not None:
        attempt("gdal_sees_bucket", lambda: _gdal_sees(found, location.bucket, options))


def _may_read(objects: Objects) -> bool:
    # With limit=0, an existing object raises DamagedError before its content is read.
    with suppress(DamagedError):
        objects.get("", limit=0)
    return True


def _may_write(found: dict[str, Any], name: str, options: Mapping[str, Any] | None) -> bool:
    """Try to replace a missing object: the answer tells if writing is allowed."""
    sidecar = name if is_sidecar(name) else f"{name}{SUFFIX}"
    objects = open_objects(parse_location(sidecar), options)
    key = f"gdalbridge-doctor-{uuid.uuid4().hex}"
    if objects.replace(key, b"", "0" * 32) is not None:
        objects.delete([key])
        found["problems"].append(
            f"{objects.location}: the server ignores conditions (If-Match): if two processes "
            "change a table's metadata at once, one change is lost there"
        )
    return True


def _gdal_sees(found: dict[str, Any], bucket: str, options: Mapping[str, Any] | None) -> bool:
    from gdalbridge.gdalio.compat import gdal, silence
    from gdalbridge.gdalio.vsis3 import reached

    with reached(f"s3://{bucket}/", options) as name, silence():
        seen = gdal.VSIStatL(name) is not None
    if not seen:
        found["problems"].append(f"the bucket answers us, but GDAL can't see {name}")
    return seen


def diagnosis_text(found: dict[str, Any]) -> str:
    """Return the result of :func:`diagnose` as text."""
    rows = [("Python", found["python"])]
    rows += [(name, version or "not installed") for name, version in found["packages"].items()]
    installed = ", ".join(map(" ".join, found["gdal_distributions"].items())) or "the system's"
    rows.append(("GDAL", f"{found['gdal']}, {installed}" if found["gdal"] else "not installed"))
    drivers = found.get("drivers", {})
    if drivers:
        missing = [name for name, there in drivers.items() if not there]
        text = "drivers " + ", ".join(name for name, there in drivers.items() if there)
        text += f"; this GDAL is built without {' and '.join(missing)}" if missing else ""
        rows.append(("", text))
    rows += _s3_rows(found)
    rows += [("S3 conflict", text) for text in found.get("s3_conflicts", ())]
    asked = dict(found.get("asked", {}))
    place = asked.pop("place", None)
    if place is not None:
        rows.append((place, "; ".join(_answers(asked)) or "could not be asked"))
    problems = [f"problem: {text}" for text in found["problems"]] or ["no problems found"]
    # Not truncated: an interpreter's path is useful only in full.
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in rows), "", *problems])


ANSWERS = {
    "something_there": ("something exists there", "nothing exists there yet"),
    "may_list": ("may list", "may not list"),
    "may_read": ("may read", "may not read"),
    "may_write": ("may write", "may not write"),
    "gdal_sees_bucket": ("GDAL sees the bucket", "GDAL does not see the bucket"),
}
"""The text for an answer of yes, and of no."""


def _answers(asked: Mapping[str, Any]) -> list[str]:
    return [ANSWERS[name][not answer] for name, answer in asked.items()]


def _s3_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the S3 settings, each once; GDAL's only if they differ."""
    sources = found.get("s3_sources", {})
    rows = []
    for key, value in found["s3"].items():
        if value is None or value is False:
            continue
        text = "yes" if value is True else f"{value:g} s" if isinstance(value, float) else value
        source = f" ({sources[key]})" if key in sources and key != "credentials" else ""
        rows.append((f"S3 {key.replace('_', ' ')}", f"{text}{source}"))
    sources = found.get("s3_in_gdal_sources", {})
    for key, value in found.get("s3_in_gdal", {}).items():
        if sources[key] != DERIVED:
            rows.append((f"GDAL {key}", f"{value} ({sources[key]})"))
    return rows
