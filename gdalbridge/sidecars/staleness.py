"""Stale tables: tables that no longer fit their raster.

Code that reads a table together with its raster warns, once per process and table. Code that makes
a new product from both raises an error, unless the caller accepts stale tables.

The records of :mod:`gdalbridge.sidecars.provenance` are compared with the raster's present state.
Anybody may have written them, so nothing read from them is trusted.
"""

import os
import posixpath
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gdalbridge.errors import RasterNotFoundError, StaleError, StaleWarning
from gdalbridge.sidecars.provenance import REFERRERS, differing_samples, raster_attribute
from ratzarr import RatZarrError
from ratzarr.errors import Advice
from ratzarr.stores import Location, gdal_name
from ratzarr.stores import parse as parse_location

__all__ = [
    "changed_tables",
    "file_changes",
    "parsed_provenance",
    "parsed_raster",
    "pixel_changes",
    "raster_changes",
    "recorded_now",
    "recorded_raster",
    "refuse_stale",
    "same_raster",
    "table_changes",
    "warn_of_changes",
]

LONGEST = 1000
"""The maximum length of untrusted text in output; longer text is cut."""
MANY = 20
"""The maximum number of package versions accepted from a table."""
MOST_SAMPLES = 64
"""The maximum number of samples accepted from a table."""
TRANSFORM_ERROR = 1e-3
"""The tolerated shift of a corner, as a fraction of a pixel: formats store geotransforms with
different precision."""

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
        From :func:`raster_attribute`.
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


# ---- records, as far as they are valid


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
    if (function := _text(value.get("function"))) is not None:
        by["function"] = function
    if isinstance(inputs := value.get("inputs"), Mapping):
        by["inputs"] = {
            str(_text(key)): _text(one)
            for key, one in list(inputs.items())[:MANY]
            if isinstance(one, str)
        }
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


# ---- comparison with the raster's present state


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


def table_changes(recorded: object, now: Mapping[str, Any]) -> list[str]:
    """Describe the changes of a raster's own table.

    Parameters
    ----------
    recorded, now : dict
        Results of :func:`table_source`. ``recorded`` may also be any other value.

    Returns
    -------
    list of str
        Empty only if the table is certainly unchanged.
    """
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("files"), Mapping):
        return ["nothing was recorded to tell whether the table has changed"]
    if "files" not in now:
        return ["it is not a file, so changes of its table can't be detected"]
    words = [
        f"it has {now[what]} {what}, and had {recorded.get(what)!r:.40}"
        for what in ("rows", "columns")
        if recorded.get(what) != now[what]
    ]
    if not words and recorded.get("schema") != now["schema"]:
        words.append("the names, types or usages of its columns have changed")
    return words + file_changes(recorded["files"], now["files"])


def file_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the changes of files, by the endings of their names.

    Parameters
    ----------
    recorded, now : mapping
        Results of :func:`pixel_files`, or the files of :func:`table_source`.
    """
    ends = [*now, *(end for end in recorded if end not in now)]
    return [
        words
        for end in ends
        for words in _changes_of_file(str(end), recorded.get(end), now.get(end))
    ]


def _changes_of_file(end: str, then: object, now: Mapping[str, Any] | None) -> list[str]:
    if now is None:
        return [f"its file *{end} was removed"]
    if then is None:
        return [f"a file *{end} was added"]
    if not isinstance(then, Mapping):
        return [f"the recorded fingerprint of its file *{end} is not valid"]
    size, modified = then.get("bytes"), then.get("modified")
    if size != now["bytes"]:
        return [f"its file *{end} has {now['bytes']} bytes, and had {size!r:.40}"]
    if dict(then) != now:
        return [f"its file *{end} was changed at {now['modified']} (before: {modified!s:.40})"]
    return []


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
