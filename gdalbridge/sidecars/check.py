"""Checks whether tables are sound, and whether they still fit their rasters.

:mod:`ratzarr.maintenance.check` checks the store itself. This module adds the checks that need
GDAL or the raster: where a raster's tables are, whether they fit it, and whether a column's dtype
fits its recorded GDAL type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdalbridge.errors import (
    BridgeError,
    ConversionError,
    GdalMissingError,
    RasterNotFoundError,
)
from gdalbridge.gdalio.field_types import FieldType, export_type, type_name
from gdalbridge.progress import progress_of
from gdalbridge.sidecars.host import find_hosted
from gdalbridge.sidecars.naming import SUFFIX, is_sidecar, parsed_name, sidecar_path
from gdalbridge.sidecars.provenance import raster_attribute
from gdalbridge.sidecars.staleness import (
    parsed_raster,
    raster_changes,
    recorded_now,
    recorded_raster,
)
from ratzarr import RatZarr, RatZarrError
from ratzarr.format import GROUP, TABLE_KEY, key_of
from ratzarr.maintenance import Finding, check_store
from ratzarr.stores import file_state, leftovers, open_objects, sweep_leftovers, url_name
from ratzarr.stores import parse as parse_location

__all__ = ["CheckReport", "check"]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings for one table."""

    path: str
    """Path or URL of the table."""
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> int:
        """The number of findings that are wrong and were not repaired, without notes."""
        return sum(one.wrong and not one.repaired for one in self.findings)

    def __str__(self) -> str:
        notes = sum(not one.wrong for one in self.findings)
        repaired = sum(one.repaired for one in self.findings)
        parts = [f"{self.wrong} wrong" if self.wrong else "nothing wrong"]
        parts += [f"{repaired} repaired"] if repaired else []
        parts += [f"{notes} note{'s' * (notes > 1)}"] if notes else []
        return f"{self.path}: {', '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "path": self.path,
            "wrong": self.wrong,
            "findings": [one.as_dict() for one in self.findings],
        }


def check(
    table: Any,
    *,
    repair: bool = False,
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> list[CheckReport]:
    """Read whole tables, and report damage and other problems.

    Parameters
    ----------
    table : str or os.PathLike
        A sidecar, or a raster, which stands for all its sidecars.
    repair : bool
        If True, remove leftovers and complete interrupted changes where that is safe
        (docs/checking.md). Values are never changed.
    dry_run : bool
        With ``repair``: change nothing, and report what a repair would do.
    storage_options : mapping, optional
        Arguments for the sidecar's file system.
    progress
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    list of CheckReport
        One for each table.

    Raises
    ------
    RasterNotFoundError
        If a raster has no sidecar.
    RatZarrError
        If the table does not exist or can't be opened.
    """
    if is_sidecar(table):
        tables = [(str(table), None, 1)]
    else:
        hosted = find_hosted(table, storage_options=storage_options, must_list=True)
        tables = [(one.sidecar.path, one.host.raster, one.host.band) for one in hosted]
        if not tables:
            raise RasterNotFoundError(f"{table} has no sidecar to check, or does not exist")
    reports = []
    with progress_of(progress) as progress_report:
        for number, (path, raster, band) in enumerate(tables):

            def report(done: float, message: str, number: int = number) -> None:
                progress_report.report((number + done) / len(tables), message)

            findings = check_store(
                path,
                storage_options=storage_options,
                repair=repair,
                dry_run=dry_run,
                progress=report,
            )
            findings += _of_gdal(path, raster, band, storage_options)
            if number == 0:
                findings += _beside(path, repair=repair and not dry_run)
            reports.append(CheckReport(path, tuple(findings)))
        progress_report.report(1.0)
    return reports


def _beside(path: str, *, repair: bool) -> Iterator[Finding]:
    """Yield the leftovers of killed processes in a table's directory."""
    place = parse_location(path)
    if place.kind != "local":
        return
    folder = Path(place.path).parent
    found = leftovers(folder)
    removed = sweep_leftovers(folder) if repair and found else []
    for name in found:
        words = "left by a process that was killed while it wrote a file there"
        is_gone = name in removed
        yield Finding("leftover", f"../{name}", words, repair="remove it", repaired=is_gone)


def _of_gdal(
    path: str, raster: Any, band: int, storage_options: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """Yield the problems that concern GDAL."""
    try:
        table = RatZarr(path, readOnly=True, storageOptions=storage_options)
        names = table.getColumnNames()
    except RatZarrError:
        # check_store has already reported an error in opening the table or a column.
        return
    with table:
        recorded = table.getRatAttributeMapping().asdict().get("RASTER")
        if recorded is not None:
            yield from _of_raster(recorded, path, raster, band, storage_options)
        for name in names:
            try:
                attributes = table.getColumnAttributeMapping(name).asdict()
                words = _mismatch(table.getColumnDtype(name), attributes)
            except RatZarrError:
                continue
            if words:
                yield Finding("dtype", f"{GROUP}/{key_of(name)}", words, name)


def _of_raster(
    recorded: object,
    path: str,
    raster: Any,
    band: int,
    storage_options: Mapping[str, Any] | None,
) -> Iterator[Finding]:
    """Yield the differences between a raster and the raster that the table was made for."""
    if (words := _half_moved(recorded, path, storage_options)) is not None:
        yield Finding("unchecked", TABLE_KEY, words)
    try:
        if raster is None:
            now = recorded_now(recorded, path, storage_options)
        else:
            from gdalbridge.gdalio.datasets import opened

            with opened(raster, storage_options) as dataset:
                now = raster_attribute(dataset, band, path)
    except GdalMissingError:
        yield _unchecked("GDAL is not installed")
        return
    except (BridgeError, RatZarrError) as error:
        yield Finding("raster", TABLE_KEY, str(error))
        return
    for words in raster_changes(recorded, now or {}):
        words = f"it no longer fits its raster: {words} ('gdalbridge touch' accepts that)"
        yield Finding("raster", TABLE_KEY, words)
    if now is None:
        yield _unchecked("the raster that it names was not found")


def _half_moved(recorded: object, path: str, options: Mapping[str, Any] | None) -> str | None:
    """Describe an interrupted move, in which the table has its new name and the raster does not.

    Return None for any other table.
    """
    then, was = parsed_raster(recorded), recorded_raster(recorded, path)
    folder, _, name = path.rstrip("/").rpartition("/")
    if then is None or was is None or "/" in then["name"] or name.startswith(f"{then['name']}."):
        return None
    found = parsed_name(name)
    now = name.removesuffix(SUFFIX)
    if found.band > 1:
        now = now.rpartition(f".band{found.band}")[0]
    # The last part of the name may be the name of a further table.
    rasters = [f"{folder}/{one}".removeprefix("/" * (not folder)) for one in
               (now, now.rpartition(".")[0]) if one]  # fmt: skip
    try:
        old = sidecar_path(url_name(was), found.band, found.name)
        if open_objects(parse_location(old), options).occupied() or not _is_there(was, options):
            return None
        if any(_is_there(one, options) for one in rasters):
            return None
    except RatZarrError:
        return None
    return (
        f"the table is named as a table of {rasters[0]}, which does not exist, but belongs to "
        f"{url_name(was)}, which exists. If a move was interrupted, 'gdalbridge mv "
        f"{url_name(was)} {rasters[0]} --resume' finishes it"
    )


def _is_there(raster: str, options: Mapping[str, Any] | None) -> bool:
    return file_state(parse_location(url_name(raster)), options) is not None


def _unchecked(why: str) -> Finding:
    words = f"whether the table still fits its raster was not checked: {why}"
    return Finding("unchecked", TABLE_KEY, words)


def _mismatch(dtype: Any, attributes: Mapping[str, Any]) -> str | None:
    """Explain why a dtype does not fit ``GDAL_TYPE``; None if it fits or nothing is recorded."""
    kept = attributes.get("GDAL_TYPE")
    if kept is None:
        return None
    if isinstance(kept, bool) or not isinstance(kept, int) or kept < 0:
        return f"its GDAL_TYPE is {kept!r:.100}: expected the number of a GDAL type"
    if kept not in set(FieldType):
        # A newer version of GDAL may define this type.
        return None
    try:
        export_type("", dtype, {}, type_name(kept))
    except ConversionError:
        return f"it is {dtype}, which can't be {type_name(kept)}, its GDAL_TYPE"
    return None
