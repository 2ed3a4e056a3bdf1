"""Where a column came from, and what a table belongs to: as attributes, and read back.

What was written by whom from which raster goes with each column as ``PROVENANCE``; which
raster the table is of is ``RASTER``, so that one that was changed since is noticed. Both
travel with the table, so no secret of a raster's name is in them; and both may have been
written by anybody, so nothing that is read back is taken on trust.
"""

import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gdalbridge.errors import RasterNotFoundError
from gdalbridge.sidecars.fingerprint import main_file, modified_at
from ratzarr import RatZarrError
from ratzarr.format import mask
from ratzarr.stores import Location, gdal_name, url_name
from ratzarr.stores import parse as parse_location

__all__ = [
    "PROVENANCE_ATTR",
    "RASTER_ATTR",
    "column_provenance",
    "described",
    "parsed_provenance",
    "parsed_raster",
    "pixel_changes",
    "raster_attribute",
    "raster_changes",
    "raster_label",
    "recorded_now",
    "recorded_raster",
    "same_raster",
    "versions",
]

PROVENANCE_ATTR = "PROVENANCE"
RASTER_ATTR = "RASTER"

LONGEST = 1000
"""Characters of a text that somebody else wrote, beyond which it is cut in what is shown."""
MANY = 20
"""Versions of packages that are shown of what somebody else wrote."""

NO_TRANSFORM = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""What some formats say where others say that there is none."""
TRANSFORM_ERROR = 1e-3
"""Part of a pixel by which a corner may move: formats keep a geotransform in other numbers."""
MOST_SAMPLES = 64
"""Samples that are looked at of what somebody else wrote."""

# Of a connection's description, or a file system's options in a name, also percent-encoded.
_SECRET_OPTION = re.compile(
    r"(?i)([\w.-]*(?:passw|pwd|token|secret|key|credential|auth|signature|userpwd|sig)[\w.-]*"
    r"(?:=|%3D))(?:'[^']*'|\"[^\"]*\"|(?:(?!%26)[^&\s])*)"
)
_HEADER = re.compile(r"(?i)\b(bearer|basic)(?: |%20|\+)[^\s&]+")


# ---- making them


def versions() -> dict[str, str]:
    """Return the versions of what reads and writes."""
    return dict(_versions())


@cache
def _versions() -> Mapping[str, str]:
    # Each is a file to be found and read, and they don't change while a process runs.
    from gdalbridge.gdalio.compat import gdal

    found = {"gdal": str(gdal.VersionInfo("RELEASE_NAME"))}
    for package in ("ratzarr", "zarr", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # Run from a directory that was never installed.
            found[package] = "unknown"
    return found


def column_provenance(
    operation: str,
    raster: Mapping[str, Any],
    column: str | None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attribute ``PROVENANCE`` of a column that is to be written.

    Parameters
    ----------
    operation : str
        ``copy``, ``apply``, ...
    raster : mapping
        From :func:`raster_attribute`.
    column : str, optional
        GDAL's name of the column that was read.
    source : mapping, optional
        From :func:`gdalbridge.sidecars.fingerprint.table_source`: what an interrupted copy has to
        find unchanged to be gone on with.
    """
    return {
        "operation": operation,
        "versions": versions(),
        "raster": raster["name"],
        "band": raster["band"],
        "column": column,
        "fingerprint": raster["fingerprint"],
        "source": None if source is None else dict(source),
    }


def raster_attribute(dataset: Any, band: int, sidecar: Any) -> dict[str, Any]:
    """Return the attribute ``RASTER``: a raster as it is now.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    band : int
        The band that the table is of.
    sidecar : str or os.PathLike
        Where the table is: the raster's name is relative to it, where it can be.
    """
    file = main_file(dataset)
    found = described(dataset, band)
    found["name"] = None if file is None else raster_label(dataset.GetDescription(), sidecar)
    if file is not None:
        from gdalbridge.sidecars.pixel_samples import sample_pixels

        found["fingerprint"] = {
            "modified": modified_at(file),
            "pixels": sample_pixels(dataset, band, file),
        }
    return found


def described(dataset: Any, band: int) -> dict[str, Any]:
    """Return the attribute ``RASTER`` without a name and without any pixel looked at."""
    from gdalbridge.gdalio.compat import exceptions, silence
    from gdalbridge.gdalio.datasets import siblings_visible
    from gdalbridge.sidecars.pixel_samples import data_type

    # Some formats look for a geotransform in files beside the raster only now. What GDAL says of a
    # table there is reported where the table is read.
    with exceptions(False), silence(), siblings_visible(dataset.GetDescription()):
        transform = dataset.GetGeoTransform(can_return_null=True)
    is_known = transform is not None and tuple(transform) != NO_TRANSFORM
    is_known = is_known and all(map(math.isfinite, transform))
    return {
        "name": None,
        "band": band,
        "size": [dataset.RasterXSize, dataset.RasterYSize],
        "bands": dataset.RasterCount,
        "type": data_type(dataset.GetRasterBand(band)),
        "geotransform": list(transform) if is_known else [],
        "fingerprint": None,
    }


def raster_label(raster: str, sidecar: Any) -> str:
    """Return the name by which a table remembers its raster, without secrets.

    Relative to the directory that the table is in where both lie in one tree (below one
    directory other than the root; in one bucket), so that both can be moved together:

    >>> raster_label("s3://bucket/dir/seg.tif", "s3://bucket/dir/seg.tif.rat.zarr")
    'seg.tif'
    >>> raster_label("/vsicurl/https://me:pw@host/seg.tif", "s3://bucket/seg.tif.rat.zarr")
    'https://***@host/seg.tif'
    """
    name, place = url_name(raster), parse_location(sidecar)
    if _is_file(name):
        folder = str(Path(place.path).parent.resolve()) if place.kind == "local" else "/"
        own = str(Path(name).absolute().parent.resolve() / Path(name).name)
        apart = len(Path(os.path.commonpath([folder, own])).parts) == 1
        label = own if apart else Path(os.path.relpath(own, folder)).as_posix()
    elif place.kind == "s3" and name.lower().startswith(f"s3://{place.bucket}/".lower()):
        key = name[len(f"s3://{place.bucket}/") :]
        # Of keys with // or .. in them a relative path would mean another.
        label = name
        if posixpath.normpath(key) == key and not key.startswith("."):
            label = posixpath.relpath(key, posixpath.dirname(place.key) or ".")
    else:
        label = _masked(name)
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_file(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:
        return False


def _masked(name: str) -> str:
    masked = _masked_once(name)
    # A whole URL can be an option of another, percent-encoded as often as it is wrapped.
    inner = unquote(masked)
    if inner == masked:
        return masked
    found = _masked(inner)
    return masked if found == inner else found


def _masked_once(name: str) -> str:
    return _SECRET_OPTION.sub(r"\1***", _HEADER.sub(r"\1 ***", mask([name])[0]))


# ---- reading them back


def parsed_provenance(value: object) -> dict[str, Any] | None:
    """Return what of a ``PROVENANCE`` can be shown; None for what is none.

    Only what is known and of the right type is in it, and text that is not too long.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("operation"), str):
        return None
    found = value.get("versions")
    pairs = list(found.items())[:MANY] if isinstance(found, Mapping) else []
    computed = _text(value.get("expression"))
    by = {} if computed is None else {"expression": computed}
    return by | {
        "operation": _text(value["operation"]),
        "raster": _text(value.get("raster")),
        "band": _count(value.get("band")),
        "column": _text(value.get("column")),
        "versions": {str(_text(key)): _text(item) for key, item in pairs},
        "fingerprint": _fingerprint(value.get("fingerprint")),
    }


def parsed_raster(value: object) -> dict[str, Any] | None:
    """Return what of a ``RASTER`` can be shown; None for what is none."""
    if not isinstance(value, Mapping):
        return None
    size, transform = value.get("size"), value.get("geotransform")
    sides = [_count(side) for side in size] if isinstance(size, list) and len(size) == 2 else []
    return {
        "name": _text(value.get("name")),
        "band": _count(value.get("band")),
        "size": sides if None not in sides and sides else None,
        "bands": _count(value.get("bands")),
        "type": _text(value.get("type")),
        "geotransform": transform if _is_transform(transform) else None,
        "fingerprint": _fingerprint(value.get("fingerprint")),
    }


def _is_transform(value: object) -> bool:
    """Return whether this is a geotransform, or the empty list that stands for none."""
    return isinstance(value, list) and (
        not value or (len(value) == 6 and all(isinstance(number, int | float) for number in value))
    )


def _fingerprint(value: object) -> dict[str, Any] | None:
    """Return what can be compared of a fingerprint.

    Versions before took one of the file, which changes with metadata: nothing of it can.
    """
    if not isinstance(value, Mapping):
        return None
    pixels = value.get("pixels")
    samples = list(pixels.items())[:MOST_SAMPLES] if isinstance(pixels, Mapping) else []
    known = {
        window: digest
        for window, digest in samples
        if isinstance(digest, str) and len(window) + len(digest) <= LONGEST
    }
    modified = _text(value.get("modified"))
    return {"modified": modified, "pixels": known} if known or modified else None


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return value if len(value) <= LONGEST else value[:LONGEST] + "..."


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**63 else None


def same_raster(recorded: object, now: Mapping[str, Any]) -> bool:
    """Return whether a ``RASTER`` is of this raster and band, changed or not."""
    then = parsed_raster(recorded)
    # Rasters in memory have no name that could be the same.
    mine = (now["name"], now["band"])
    return then is not None and now["name"] is not None and (then["name"], then["band"]) == mine


def raster_changes(recorded: object, now: Mapping[str, Any]) -> list[str]:
    """Say in words how a raster differs from the one that a table belongs to.

    Parameters
    ----------
    recorded : object
        The table's ``RASTER``, or anything at all.
    now : mapping
        From :func:`raster_attribute`, or a part of it.

    Returns
    -------
    list of str
        Empty where the table fits. What one of the two does not tell is not compared.
    """
    then = parsed_raster(recorded)
    if then is None:
        return ["what the table says of its raster can't be understood"]
    return list(_changes(then, now))


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    same_shape = True
    for what, words in (
        ("size", "the raster is {1} pixels, and was {0}"),
        ("bands", "the raster has {1} bands, and had {0}"),
        ("band", "the table is of band {0}, not {1}"),
        ("type", "the raster's data type is {1}, and was {0}"),
    ):
        before, after = then[what], now.get(what)
        if before is not None and after is not None and before != after:
            same_shape &= what == "bands"
            shown = ["{} x {}".format(*v) if what == "size" else v for v in (before, after)]
            yield words.format(*shown)
    before, after = then["geotransform"], now.get("geotransform")
    if before is not None and after is not None and same_shape:
        was, is_now = (", ".join(map(repr, one)) or "none" for one in (before, after))
        if not _same_place(before, after, now["size"]):
            yield f"the raster's geotransform is {is_now}, and was {was}"
    if same_shape:
        yield from pixel_changes(then["fingerprint"], now.get("fingerprint"))


def _same_place(then: Sequence[float], now: Sequence[float], size: Sequence[int]) -> bool:
    if not then or not now:
        return list(then) == list(now)
    width, height = size
    for first in (0, 3):
        moved = [after - before for before, after in zip(then, now, strict=True)][
            first : first + 3
        ]
        pixel = max(abs(now[first + 1]), abs(now[first + 2]))
        corner = abs(moved[0]) + abs(moved[1]) * width + abs(moved[2]) * height
        # A NaN, which somebody else may have written, is equal to nothing.
        if not corner <= TRANSFORM_ERROR * pixel:
            return False
    return True


def pixel_changes(then: object, now: object) -> list[str]:
    """Say in words whether two fingerprints of a raster are of other pixels.

    Parameters
    ----------
    then, now : dict or None
        From :func:`raster_attribute` or :func:`parsed_raster`; what only one of them has looked
        at is not compared.
    """
    before, after = _fingerprint(then), _fingerprint(now)
    if before is None or after is None:
        return []
    from gdalbridge.sidecars.pixel_samples import differing_samples

    differing, compared = differing_samples(before["pixels"], after["pixels"])
    if not differing:
        return []
    column, row = differing[0].split(",")[:2]
    when = f", changed at {after['modified']}" if after["modified"] else ""
    words = f"the raster has other pixels: {len(differing)} of {compared} samples differ, one at "
    return [words + f"column {column}, row {row}{when}"]


def recorded_raster(recorded: object, sidecar: Any) -> str | None:
    """Return where the raster that a table names must be now, for GDAL.

    Parameters
    ----------
    recorded : object
        The table's ``RASTER``, or anything at all.
    sidecar : str or os.PathLike
        Where the table is.

    Returns
    -------
    str or None
        None where the table names none by a relative name: a table that somebody sent
        must not make us open whatever name it likes.
    """
    then = parsed_raster(recorded)
    name = None if then is None else then["name"]
    if not name or re.match(r"[/\\<]|[A-Za-z][\w.+-]*:", name) or "\x00" in name:
        return None
    place = parse_location(sidecar)
    if place.kind == "local":
        joined = os.path.normpath(Path(place.path).parent / name)
        # Where the table lies in the root directory, such a name would be GDAL's own.
        return None if joined.startswith("/vsi") else joined
    return _beside(place, name)


def recorded_now(
    recorded: object, sidecar: Any, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Look at the raster that a table names, for :func:`raster_changes`.

    Returns
    -------
    dict or None
        None where it is not found, or is one that is made of others: a table that somebody
        sent must not make us open whatever that refers to.

    Raises
    ------
    GdalMissingError
        Where GDAL is not installed.
    """
    name = recorded_raster(recorded, sidecar)
    if name is None or not (name.startswith("/vsi") or Path(name).is_file()):
        return None
    from gdalbridge.gdalio.datasets import driver_of, opened
    from gdalbridge.sidecars.pixel_samples import REFERRERS

    then = parsed_raster(recorded) or {}
    # One that we may not see is not found from here.
    with suppress(RatZarrError, RasterNotFoundError):
        if driver_of(name, storage_options) not in {None, *REFERRERS}:
            with opened(name, storage_options) as dataset:
                band = then.get("band") or 1
                if 1 <= band <= dataset.RasterCount:
                    return raster_attribute(dataset, band, sidecar)
                return {
                    "size": [dataset.RasterXSize, dataset.RasterYSize],
                    "bands": dataset.RasterCount,
                }
    return None


def _beside(place: Location, name: str) -> str | None:
    head, _, path = place.url.partition("://")
    root, _, own = path.partition("/")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(own), name))
    outside = joined == ".." or joined.startswith("../") or "?" in name
    return None if outside or not own else gdal_name(f"{head}://{root}/{joined}")
