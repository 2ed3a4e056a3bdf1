"""The attributes PROVENANCE (the origin of a column) and RASTER (the raster of a table).

``PROVENANCE`` records with each column which operation and versions wrote it, and from which
raster. ``RASTER`` describes the raster that a table belongs to, so that a change of the raster is
detected. Both travel with the table, so they contain no secrets of a raster's name. Anybody may
have written them, so nothing read from them is trusted.
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
from gdalbridge.sidecars.fingerprint import (
    REFERRERS,
    differing_samples,
    main_file,
    modified_at,
    sample_pixels,
)
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
"""The maximum length of untrusted text in output; longer text is cut."""
MANY = 20
"""The maximum number of package versions accepted from a table."""

NO_TRANSFORM = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""The geotransform that some formats return in place of none."""
TRANSFORM_ERROR = 1e-3
"""The tolerated shift of a corner, as a fraction of a pixel: formats store geotransforms with
different precision."""
MOST_SAMPLES = 64
"""The maximum number of samples accepted from a table."""

# Matches secrets in a connection string, or in file system options in a name, also
# percent-encoded.
_SECRET_OPTION = re.compile(
    r"(?i)([\w.-]*(?:passw|pwd|token|secret|key|credential|auth|signature|userpwd|sig)[\w.-]*"
    r"(?:=|%3D))(?:'[^']*'|\"[^\"]*\"|(?:(?!%26)[^&\s])*)"
)
_HEADER = re.compile(r"(?i)\b(bearer|basic)(?: |%20|\+)[^\s&]+")


# ---- writing the attributes


def versions() -> dict[str, str]:
    """Return the versions of GDAL and of the packages involved."""
    return dict(_versions())


@cache
def _versions() -> Mapping[str, str]:
    # Cached, because each version is read from a file, and none changes while the process runs.
    from gdalbridge.gdalio.compat import gdal

    found = {"gdal": str(gdal.VersionInfo("RELEASE_NAME"))}
    for package in ("ratzarr", "zarr", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # The package runs from a directory without being installed.
            found[package] = "unknown"
    return found


def column_provenance(
    operation: str,
    raster: Mapping[str, Any],
    column: str | None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attribute ``PROVENANCE`` for a new column.

    Parameters
    ----------
    operation : str
        ``copy``, ``apply``, ...
    raster : mapping
        From :func:`raster_attribute`.
    column : str, optional
        GDAL's name of the source column.
    source : mapping, optional
        From :func:`gdalbridge.sidecars.fingerprint.table_source`. An interrupted copy is resumed
        only if this is unchanged.
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
    """Return the attribute ``RASTER``, which describes a raster's current state.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    band : int
        The band that the table belongs to.
    sidecar : str or os.PathLike
        The location of the table. The raster's name is relative to it if possible.
    """
    file = main_file(dataset)
    found = described(dataset, band)
    found["name"] = None if file is None else raster_label(dataset.GetDescription(), sidecar)
    if file is not None:
        found["fingerprint"] = {
            "modified": modified_at(file),
            "pixels": sample_pixels(dataset, band, file),
        }
    return found


def described(dataset: Any, band: int) -> dict[str, Any]:
    """Return the attribute ``RASTER`` without a name, and without reading pixels."""
    from gdalbridge.gdalio.compat import data_type, exceptions, silence
    from gdalbridge.gdalio.datasets import siblings_visible

    # Some formats only now look for a geotransform in files beside the raster. If GDAL reports an
    # error in a table there, it is reported when the table is read, not here.
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


def raster_label(raster: str, sidecar: Any, *, is_path: bool = False) -> str:
    """Return the name of a raster for ``RASTER``, without secrets.

    With ``is_path``, it is certainly a local path, even if the file no longer exists.

    The name is relative to the table's directory if both lie in one tree (below a common directory
    other than the root, or in one bucket), so that both can be moved together:

    >>> raster_label("s3://bucket/dir/seg.tif", "s3://bucket/dir/seg.tif.rat.zarr")
    'seg.tif'
    >>> raster_label("/vsicurl/https://me:pw@host/seg.tif", "s3://bucket/seg.tif.rat.zarr")
    'https://***@host/seg.tif'
    """
    name, place = url_name(raster), parse_location(sidecar)
    if is_path or _is_file(name):
        folder = str(Path(place.path).parent.resolve()) if place.kind == "local" else "/"
        own = str(Path(name).absolute().parent.resolve() / Path(name).name)
        apart = len(Path(os.path.commonpath([folder, own])).parts) == 1
        label = own if apart else Path(os.path.relpath(own, folder)).as_posix()
    elif place.kind == "s3" and name.lower().startswith(f"s3://{place.bucket}/".lower()):
        key = name[len(f"s3://{place.bucket}/") :]
        # For keys with // or .., a relative path would refer to another object.
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
    # A URL can be an option of another URL, and percent-encoded once per level.
    inner = unquote(masked)
    if inner == masked:
        return masked
    found = _masked(inner)
    return masked if found == inner else found


def _masked_once(name: str) -> str:
    return _SECRET_OPTION.sub(r"\1***", _HEADER.sub(r"\1 ***", mask([name])[0]))


# ---- reading the attributes


def parsed_provenance(value: object) -> dict[str, Any] | None:
    """Return the valid parts of a ``PROVENANCE``; None if it is not valid at all.

    The result contains only known entries with correct types, and text of limited length.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("operation"), str):
        return None
    found = value.get("versions")
    pairs = list(found.items())[:MANY] if isinstance(found, Mapping) else []
    computed = _text(value.get("expression"))
    by: dict[str, Any] = {} if computed is None else {"expression": computed}
    if isinstance(images := value.get("images"), list):
        by["images"] = [_text(one) for one in images[:MANY] if isinstance(one, str)]
    return by | {
        "operation": _text(value["operation"]),
        "raster": _text(value.get("raster")),
        "band": _count(value.get("band")),
        "column": _text(value.get("column")),
        "versions": {str(_text(key)): _text(item) for key, item in pairs},
        "fingerprint": _fingerprint(value.get("fingerprint")),
    }


def parsed_raster(value: object) -> dict[str, Any] | None:
    """Return the valid parts of a ``RASTER``; None if it is not valid at all."""
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
    """Return True for a geotransform, or for the empty list that stands for none."""
    return isinstance(value, list) and (
        not value or (len(value) == 6 and all(isinstance(number, int | float) for number in value))
    )


def _fingerprint(value: object) -> dict[str, Any] | None:
    """Return the comparable parts of a fingerprint.

    Earlier versions stored a fingerprint of the file. It changes with metadata, so it is ignored.
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
    """Return True if a ``RASTER`` names this raster and band, changed or not."""
    then = parsed_raster(recorded)
    # Rasters in memory have no name to compare.
    mine = (now["name"], now["band"])
    return then is not None and now["name"] is not None and (then["name"], then["band"]) == mine


def raster_changes(recorded: object, now: Mapping[str, Any]) -> list[str]:
    """Describe the changes of a raster since its table was made.

    Parameters
    ----------
    recorded : object
        The table's ``RASTER``, or any other value.
    now : mapping
        From :func:`raster_attribute`, or a part of it.

    Returns
    -------
    list of str
        Empty if the table fits. A property is compared only if both contain it.
    """
    then = parsed_raster(recorded)
    if then is None:
        return ["the table's description of its raster is not valid"]
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
        # Written so that a NaN, which an untrusted table may contain, counts as a difference.
        if not corner <= TRANSFORM_ERROR * pixel:
            return False
    return True


def pixel_changes(then: object, now: object) -> list[str]:
    """Describe the differences between two fingerprints of a raster's pixels.

    Parameters
    ----------
    then, now : dict or None
        From :func:`raster_attribute` or :func:`parsed_raster`. A sample is compared only if both
        contain it.
    """
    before, after = _fingerprint(then), _fingerprint(now)
    if before is None or after is None:
        return []
    differing, compared = differing_samples(before["pixels"], after["pixels"])
    if not differing:
        return []
    column, row = differing[0].split(",")[:2]
    when = f", changed at {after['modified']}" if after["modified"] else ""
    words = f"the raster has other pixels: {len(differing)} of {compared} samples differ, one at "
    return [words + f"column {column}, row {row}{when}"]


def recorded_raster(recorded: object, sidecar: Any) -> str | None:
    """Return the current location of the raster that a table names, for GDAL.

    Parameters
    ----------
    recorded : object
        The table's ``RASTER``, or any other value.
    sidecar : str or os.PathLike
        The location of the table.

    Returns
    -------
    str or None
        None unless the table names a raster by a relative name. An untrusted table must not make
        us open arbitrary names.
    """
    then = parsed_raster(recorded)
    name = None if then is None else then["name"]
    if not name or re.match(r"[/\\<]|[A-Za-z][\w.+-]*:", name) or "\x00" in name:
        return None
    place = parse_location(sidecar)
    if place.kind == "local":
        joined = os.path.normpath(Path(place.path).parent / name)
        # If the table lies in the root directory, the result could be one of GDAL's special names.
        return None if joined.startswith("/vsi") else joined
    return _beside(place, name)


def recorded_now(
    recorded: object, sidecar: Any, storage_options: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Describe the current state of the raster that a table names, for :func:`raster_changes`.

    Returns
    -------
    dict or None
        None if the raster is not found, or is composed of others. An untrusted table must not make
        us open arbitrary files that such a raster refers to.

    Raises
    ------
    GdalMissingError
        If GDAL is not installed.
    """
    name = recorded_raster(recorded, sidecar)
    if name is None or not (name.startswith("/vsi") or Path(name).is_file()):
        return None
    from gdalbridge.gdalio.datasets import driver_of, opened

    then = parsed_raster(recorded) or {}
    # A raster without read permission counts as not found.
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
