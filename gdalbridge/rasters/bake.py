"""Copy a raster with an ordinary attribute table, for tools that do not know sidecars.

The merged table is built in memory on a VRT of the raster, and GDAL copies the VRT. The copy is read
again and compared, because formats may lose digits and names without an error.
"""

import os
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gdalbridge.copying.to_raster import copy_to_raster
from gdalbridge.errors import (
    BridgeError,
    ColumnSelectionError,
    ConversionError,
    GdalError,
    LossWarning,
    NotWrittenError,
    OutputExistsError,
)
from gdalbridge.gdalio.aux_xml import write_beside
from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.gdalio.datasets import open_dataset, opened
from gdalbridge.gdalio.field_types import FieldType, export_type, stored_dtype, type_name
from gdalbridge.gdalio.rat_compare import colour_losses, losses_between
from gdalbridge.gdalio.rat_reader import bands_with_table, open_rat, unique_names
from gdalbridge.gdalio.rat_writer import check_columns, open_rat_for_update
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.host import Host, Hosted, find_hosted
from gdalbridge.sidecars.merged import INCOMPLETE, MISSING_ATTR
from gdalbridge.sidecars.naming import Sidecar, find_sidecars, is_sidecar, parsed_name
from gdalbridge.sidecars.provenance import RASTER_ATTR, same_raster
from gdalbridge.sidecars.raster_files import BESIDE, place_of
from gdalbridge.sidecars.staleness import refuse_stale
from ratzarr import RatZarr
from ratzarr.errors import Advice
from ratzarr.format import COMPLETE_ATTR
from ratzarr.stores import temporary_path

__all__ = [
    "BakeReport",
    "Filled",
    "Wanted",
    "bake",
    "fill",
    "vrt_of",
]


BLOCK_ROWS = 500_000


OLDER = {FieldType.BOOLEAN: FieldType.INTEGER, FieldType.DATETIME: FieldType.STRING}
"""Types that only GDAL 3.12 and later read, with types that every version reads."""


@dataclass(frozen=True, slots=True)
class Filled:
    """Notes about the table that a band was given."""

    older: Mapping[str, FieldType]
    """Columns that were written with an older type, with their original type."""
    singles: Collection[str]
    """Columns whose values are float32 or float16."""
    losses: Sequence[str]
    """Losses in words: missing integers, which GDAL does not have, and columns left out."""


class Wanted:
    """The selected columns, and those of them that were found."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        if isinstance(columns, str):
            raise ColumnSelectionError(
                f"columns must be a list of names: got the string {columns!r}"
            )
        self._selected: set[str | None] | None = None if columns is None else set(columns)
        self._found: set[str | None] = set()
        self._all: dict[str, None] = {}

    def takes(self, name: str, also: str | None = None) -> bool:
        """Return True if a column is selected by either of its names."""
        self._all[name] = None
        if self._selected is None:
            return True
        found = self._selected & {name, also}
        self._found |= found
        return bool(found)

    def check(self, raster: Any) -> None:
        """Check that every selected column was found.

        Raises
        ------
        ColumnSelectionError
            Names a missing column, and lists the existing ones.
        """
        missing = sorted(map(str, (self._selected or set()) - self._found))
        if missing:
            raise ColumnSelectionError(
                f"neither {raster} nor its sidecars have a column {missing[0]!r}; the columns are "
                f"{list(self._all)}"
            )


def vrt_of(dataset: Any) -> Any:
    """Return a VRT in memory that refers to a raster, without attribute tables."""
    with exceptions(), silence():
        try:
            made = gdal.Translate("", dataset, options="-of VRT -norat")
        except RuntimeError as error:
            raise GdalError(f"{dataset.GetDescription()}: {error}") from error
    if made is None:
        raise GdalError(f"{dataset.GetDescription()}: GDAL can't make a VRT of the raster")
    return made


def fill(
    dataset: Any,
    vrt: Any,
    band: int,
    tables: Sequence[str],
    wanted: Wanted,
    cast: Mapping[str, str],
    options: Mapping[str, Any] | None,
    *,
    native: bool,
    reading: ReadOptions = DEFAULTS,
) -> "Filled | None":
    """Write a band's merged table to the VRT; return None if it has no column.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster.
    vrt : gdal.Dataset
        From :func:`vrt_of`.
    band : int
        Counted from 1.
    tables : sequence of str
        The band's sidecars.
    wanted : Wanted
        The selected columns.
    cast : mapping
        See :func:`gdalbridge.copying.to_raster.copy_to_raster`.
    options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    native : bool
        Keep the types of GDAL 3.12 and later. By default Boolean becomes Integer, and DateTime
        becomes String.
    reading : ReadOptions
        Options for reading the raster's own table.

    Raises
    ------
    BridgeError
        If two sidecars have a column of the same name, or tables differ in rows.
    """
    losses: list[str] = []
    chosen, given = _chosen(tables, wanted, options, losses)
    own = band in bands_with_table(dataset, options=reading)
    older: dict[str, FieldType] = {}
    has_any = False
    if own:
        has_any = _copy_own(
            dataset, vrt, band, wanted, given, reading, None if native else older, losses
        )
    singles: set[str] = set()
    for path, names in chosen.items():
        casts = {name: kind for name, kind in cast.items() if name in names}
        with RatZarr(path, readOnly=True, storageOptions=options) as table:
            for name in names:
                dtype = table.getColumnDtype(name)
                attributes = table.getColumnAttributeMapping(name).asdict()
                shown = str(attributes.get("GDAL_NAME", name))
                if dtype.kind == "f" and dtype.itemsize < 8:
                    singles.add(shown)
                if dtype.kind in "iu" and (none := attributes.get(MISSING_ATTR)) is not None:
                    rows = range(0, table.rowCount, BLOCK_ROWS)
                    blocks = (table.readBlock(name, row, BLOCK_ROWS) for row in rows)
                    losses += _missing(shown, none, blocks)
                if native or name in casts or table.getColumnWidth(name) > 1:
                    continue
                kind = export_type(name, dtype, attributes)
                if kind in OLDER:
                    casts[name] = type_name(OLDER[kind])
                    older[shown] = kind
                elif kind > FieldType.STRING:
                    raise ConversionError(_no_older(name, kind))
        copy_to_raster(
            path,
            vrt,
            band=band,
            columns=names,
            cast=casts,
            storage_options=options,
        )
    return Filled(older, singles, losses) if has_any or chosen else None


def _missing(name: str, none: Any, blocks: Iterable[Any]) -> list[str]:
    """Report the missing values of an integer column, because GDAL has no missing values."""
    count = sum(int(np.count_nonzero(block == none)) for block in blocks)
    if not count:
        return []
    values = "missing value is" if count == 1 else "missing values are"
    return [f"column {name!r}: {count} {values} written as {none}"]


def _no_older(name: str, kind: int) -> Advice:
    return Advice(
        f"column {name!r}: {type_name(kind)} can't be read by GDAL before 3.12.",
        "Leave it out, or use native=True to keep GDAL's newest types.",
    )


def _chosen(
    tables: Sequence[str],
    wanted: Wanted,
    options: Mapping[str, Any] | None,
    losses: list[str],
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the columns to copy by table, and the table by GDAL's name of a column."""
    chosen: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for path in tables:
        with RatZarr(path, readOnly=True, storageOptions=options) as table:
            keys = list(filter(wanted.takes, table.getColumnNames()))
            unreadable = table.getUnreadableColumns(keys)
            losses += [f"column {key!r} is left out: {why}" for key, why in unreadable.items()]
            for key in keys:
                if key in unreadable:
                    continue
                attributes = table.getColumnAttributeMapping(key)
                if attributes.get(COMPLETE_ATTR, True) is False:
                    losses.append(f"column {key!r} is left out: {INCOMPLETE}")
                    continue
                name = str(attributes.get("GDAL_NAME", key))
                if given.get(name, path) != path:
                    raise BridgeError(
                        Advice(
                            f"{given[name]} and {path} both have a column {name!r}.",
                            "Choose columns with columns=..., or tables with sidecars=...",
                        )
                    )
                given[name] = path
                chosen.setdefault(path, []).append(key)
    return chosen, given


def _copy_own(
    dataset: Any,
    vrt: Any,
    band: int,
    wanted: Wanted,
    given: Mapping[str, str],
    reading: ReadOptions,
    older: dict[str, FieldType] | None,
    losses: list[str],
) -> bool:
    """Copy the raster's own columns, except those that a sidecar replaces."""
    with open_rat(dataset, band, options=reading) as source:
        schema = source.schema
        names = unique_names(schema.columns)
        own = [
            column
            for column in schema.columns
            if column.name not in given and wanted.takes(names[column.index], column.name)
        ]
        if not own:
            return False
        with open_rat_for_update(vrt, band) as sink:
            sink.set_row_count(schema.rows)
            for column in own:
                kind = column.type
                if older is not None and kind in OLDER:
                    older[column.name] = FieldType(kind)
                    kind = OLDER[FieldType(kind)]
                elif older is not None and kind > FieldType.STRING:
                    raise ConversionError(_no_older(column.name, kind))
                index = sink.create_column(column.name, kind, column.usage)
                none = source.missing(column.index).get(MISSING_ATTR)
                if none is not None:
                    rows = range(0, schema.rows, BLOCK_ROWS)
                    lengths = (min(BLOCK_ROWS, schema.rows - row) for row in rows)
                    blocks = map(partial(source.read, column.index), rows, lengths)
                    losses += _missing(column.name, none, blocks)
                for start in range(0, schema.rows, BLOCK_ROWS):
                    length = min(BLOCK_ROWS, schema.rows - start)
                    values = source.read_native(column.index, start, length)
                    if kind != column.type:
                        values = values.astype(stored_dtype(kind))
                    sink.write(index, start, values)
            if schema.table_type is not None:
                sink.set_table_type(schema.table_type)
            if schema.linear_binning is not None:
                sink.set_linear_binning(*schema.linear_binning)
            sink.commit()
    return True


FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".img": "HFA", ".kea": "KEA", ".vrt": "VRT"}
"""Drivers by the output's file extension. Other drivers are selected by name."""

PACKAGES = {
    "HFA": "GDAL of conda-forge (libgdal-core) or of Debian (python3-gdal)",
    "KEA": "GDAL of conda-forge with the package libgdal-kea",
}
"""Packages with the drivers that some builds of GDAL lack."""


@dataclass(frozen=True, slots=True)
class BakeReport:
    """A summary of a baked raster and its tables."""

    source: str
    target: str
    format: str
    """GDAL's short name of the driver."""
    bands: Mapping[int, tuple[str, ...]]
    """By band, the names of the table's columns."""
    rows: Mapping[int, int]
    """By band, the number of the table's rows."""
    seconds: float
    losses: tuple[str, ...] = ()
    """In words, values and names that the format could not hold exactly."""
    notes: tuple[str, ...] = ()
    """In words, lossless changes for older software, and sidecars beside the output."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.source} -> {self.target} ({self.format}), {self.seconds:.2f} s"]
        for band, names in self.bands.items():
            lines.append(f"  band {band}: {len(names)} columns of {self.rows[band]} rows")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def bake(
    raster: Any,
    out: Any = None,
    *,
    vrt: bool = False,
    band: int | None = None,
    columns: Sequence[str] | None = None,
    sidecars: Sequence[Any] | None = None,
    cast: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - GDAL's own word for it
    options: Sequence[str] = (),
    overwrite: bool = False,
    strict: bool = False,
    encoding: str | None = None,
    lossy: bool = False,
    accept_stale: bool = False,
    native: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> BakeReport:
    """Copy a raster, with the raster's own columns and its sidecars' in the copy's table.

    Parameters
    ----------
    raster : str or os.PathLike
        A raster, which is only read.
    out : str or os.PathLike, optional
        Name of the copy, on a local disk. With ``vrt``, the default is ``<raster>.vrt``.
    vrt : bool
        Make a VRT that refers to the raster, instead of copying its pixels.
    band : int, optional
        Copy only this band's table. By default the tables of all bands.
    columns : sequence of str, optional
        Names of the columns to copy; by default all. If the raster and a sidecar have a
        column of the same name, the sidecar's is copied.
    sidecars : sequence of str or os.PathLike, optional
        Tables to use in place of those beside the raster. The name of another raster selects
        all of its tables.
    cast : mapping of str to str, optional
        GDAL types of columns of the sidecars: ``{"id": "Real"}``. The values must stay equal.
    format : str, optional
        GDAL's short name of a driver. By default the driver is chosen by the file extension.
    options : sequence of str
        Creation options of the driver, ``NAME=VALUE``.
    overwrite : bool
        Replace an existing raster at ``out``. Its sidecars are kept.
    strict : bool
        Raise an error, and leave no output, if the format can't hold everything exactly.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8, or the
        encoding that its ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table even if GDAL has lost or altered values of it.
    accept_stale : bool
        Continue even if the raster has changed since a table was made.
    native : bool
        Keep GDAL's newest column types, and let the driver choose where to store the table. By
        default GDAL before 3.12, QGIS and ArcGIS can read the output: Boolean becomes Integer 0
        and 1, DateTime becomes ISO text, and the table of a GeoTIFF is written to its
        ``.aux.xml``. No value is lost.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    progress
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    BakeReport
        Each loss in it is also a :class:`~gdalbridge.LossWarning`.

    Raises
    ------
    ConversionError
        If GDAL can't hold a value; names its column and row.
    NotWrittenError
        If the format does not keep the table, or with ``strict`` not exactly.
    OutputExistsError
        If ``out`` exists already.
    StaleError
        If a table was made for another state of the raster: see :func:`gdalbridge.touch`. Tables
        from ``sidecars`` are checked only if they name this raster.
    BridgeError
        For other errors. No error leaves anything at ``out``.
    """
    started = time.perf_counter()
    reading = ReadOptions(encoding, lossy)
    source, target = place_of(raster), _target(raster, out, vrt)
    driver, name = _driver(target, "VRT" if vrt else format)
    if source.kind == "local" and target == Path(source.path):
        raise BridgeError(f"{raster} can't be baked into itself. Name another output.")
    _check_free(target, overwrite)
    with opened(source.url, storage_options) as dataset, progress_of(progress) as reporter:
        hosted = _hosted(raster, sidecars, band, storage_options)
        tables = [one.sidecar for one in hosted]
        bands = _bands(dataset, tables, band, reading)
        if not accept_stale:
            of_bands = [one for one in hosted if one.sidecar.band in bands]
            _check_fit(str(raster), dataset, of_bands, sidecars is None, storage_options)
        reporter.report(0.0, "reading tables")
        merged = vrt_of(dataset)
        wanted = Wanted(columns)
        _check_casts(cast, tables, wanted, storage_options)
        filled: dict[int, Filled] = {}
        for number in bands:
            mine = [one.path for one in tables if one.band == number]
            found = fill(
                dataset,
                merged,
                number,
                mine,
                wanted,
                cast or {},
                storage_options,
                native=native,
                reading=reading,
            )
            if found is not None:
                filled[number] = found
        wanted.check(raster)
        if name == "HFA":
            for number in filled:
                with open_rat(merged, number) as rat:
                    given = [(one.name, one.type, one.usage) for one in rat.schema.columns]
                check_columns(target.name, given, hfa=True)
        reporter.report(0.3, f"writing {target.name}")
        losses = _write(driver, target, merged, filled, options, strict, native, reporter)
        reporter.report(1.0)
    for loss in losses:
        warnings.warn(f"{target}: {loss}", LossWarning, stacklevel=2)
    shown, rows = {}, {}
    for number in filled:
        with open_rat(merged, number) as rat:
            shown[number] = tuple(column.name for column in rat.schema.columns)
            rows[number] = rat.schema.rows
    seconds = time.perf_counter() - started
    return BakeReport(
        source.url, str(target), name, shown, rows, seconds, tuple(losses), _notes(filled, target)
    )


def _notes(filled: Mapping[int, Filled], target: Path) -> tuple[str, ...]:
    notes = [
        f"{one.path} is beside the output: its columns are shown in place of those of the same name"
        for one in find_sidecars(target)
    ]
    for kind, words in ((FieldType.BOOLEAN, "Integer 0 and 1"), (FieldType.DATETIME, "ISO text")):
        names = {
            name: 1 for one in filled.values() for name, was in one.older.items() if was == kind
        }
        if names:
            notes.append(
                f"{type_name(kind)} columns are written as {words}, for older GDAL: "
                f"{', '.join(map(repr, names))} ('native' keeps the type)"
            )
    return tuple(notes)


# ---- checks of the arguments


def _target(raster: Any, out: Any, vrt: bool) -> Path:
    if out is None and not vrt:
        raise BridgeError(Advice("name an output,", "or make a VRT with vrt=True"))
    place = place_of(f"{place_of(raster).url}.vrt" if out is None else out)
    if place.kind != "local":
        raise BridgeError(
            f"{place}: GDAL can write rasters with a table only to a local disk. Copy the output "
            "with 'gdalbridge cp'."
        )
    path = Path(place.path)
    if not path.parent.is_dir():
        raise BridgeError(f"{path.parent} is not a directory")
    return path


def _driver(target: Path, asked: str | None) -> tuple[Any, str]:
    name = asked or FORMATS.get(target.suffix.lower())
    if name is None:
        raise BridgeError(
            Advice(
                f"{target.name}: unknown file extension {target.suffix!r}; expected one of "
                f"{', '.join(FORMATS)}.",
                "Name GDAL's driver with format=...",
            )
        )
    driver = gdal.GetDriverByName(name)
    if driver is None:
        package = PACKAGES.get(name)
        hint = f". {package} has the driver; the package gdal-wheel does not" if package else ""
        raise BridgeError(f"this GDAL has no driver {name!r}{hint}")
    metadata = driver.GetMetadata()
    if "YES" not in (metadata.get("DCAP_CREATECOPY"), metadata.get("DCAP_CREATE")):
        raise BridgeError(f"GDAL's driver {name!r} can't write rasters")
    return driver, str(driver.ShortName)


def _check_free(target: Path, overwrite: bool) -> None:
    existing = [name for name in (target, *_beside(target)) if os.path.lexists(name)]
    if existing and not overwrite:
        raise OutputExistsError(
            Advice(
                f"{', '.join(map(str, existing))} already exists.",
                "Use overwrite=True to replace the raster there.",
            )
        )
    for one in existing:
        if one.is_symlink() or not one.is_file():
            raise OutputExistsError(f"{one} is not a regular file, and is not replaced")


def _beside(target: Path) -> list[Path]:
    """Return the names of files that GDAL takes for the target's own, existing or not.

    GDAL ignores upper and lower case when it looks for them, so existing files of any case count.
    """
    names = [target.name + end for end in BESIDE]
    wanted = {name.lower() for name in names}
    with os.scandir(target.parent) as entries:
        existing = [one.name for one in entries if one.name.lower() in wanted]
    return [target.with_name(name) for name in dict.fromkeys((*names, *existing))]


def _hosted(
    raster: Any,
    sidecars: Sequence[Any] | None,
    band: int | None,
    options: Mapping[str, Any] | None,
) -> list[Hosted]:
    """Return the sidecars to copy to the output."""
    source = place_of(raster).url
    if sidecars is None:
        return find_hosted(source, storage_options=options, must_list=True)
    found: list[Hosted] = []
    for one in sidecars:
        if is_sidecar(one):
            named = parsed_name(str(one))
            number = band or named.band
            found.append(Hosted(Sidecar(named.path, number, named.name), Host(source, number)))
            continue
        more = find_sidecars(place_of(one).url, storage_options=options, must_list=True)
        if not more:
            raise BridgeError(f"{one} has no sidecar")
        found += [Hosted(sidecar, Host(source, sidecar.band)) for sidecar in more]
    return found


def _check_casts(
    cast: Mapping[str, str] | None,
    tables: Sequence[Sidecar],
    wanted: Wanted,
    options: Mapping[str, Any] | None,
) -> None:
    """Check that all columns to cast are copied. Other casts would be ignored without an error."""
    if not cast:
        return
    names: set[str] = set()
    for one in tables:
        with RatZarr(one.path, readOnly=True, storageOptions=options) as table:
            names |= {name for name in table.getColumnNames() if wanted.takes(name)}
    for name in cast:
        if name not in names:
            raise ColumnSelectionError(
                f"cast: no column {name!r} is copied from a sidecar; the columns are {sorted(names)}"
            )


def _check_fit(
    name: str,
    dataset: Any,
    tables: Sequence[Hosted],
    all_are_its: bool,
    options: Mapping[str, Any] | None,
) -> None:
    for hosted in tables:
        one = hosted.sidecar
        with RatZarr(one.path, readOnly=True, storageOptions=options) as table:
            recorded = table.getRatAttributeMapping().get(RASTER_ATTR)
        if recorded is None:
            continue
        now = hosted.host.now(dataset, one.path, options)
        if all_are_its or same_raster(recorded, now):
            refuse_stale(name, now, {one.path: recorded})


def _bands(
    dataset: Any, tables: Sequence[Sidecar], band: int | None, reading: ReadOptions
) -> list[int]:
    count = dataset.RasterCount
    for one in tables:
        if one.band > count:
            raise BridgeError(
                f"{one.path} belongs to band {one.band}, but the raster has only {count} bands"
            )
    found = sorted({*bands_with_table(dataset, options=reading), *(one.band for one in tables)})
    if band is not None:
        found = [number for number in found if number == band]
    if not found:
        owner = "the raster" if band is None else f"band {band}"
        raise BridgeError(f"{owner} has no table, neither of its own nor in a sidecar")
    return found


# ---- the output


def _write(
    driver: Any,
    target: Path,
    vrt: Any,
    filled: Mapping[int, Filled],
    options: Sequence[str],
    strict: bool,
    native: bool,
    progress: Progress,
) -> list[str]:
    """Write the output, compare it with the VRT, put it in place, and return the losses."""
    with _folder_for(driver, target) as made:
        beside = not native and driver.ShortName in ("GTiff", "COG")
        if beside:
            # GDAL 3.12 and later would put the table into the TIFF, where older GDAL, QGIS and
            # ArcGIS can't read it.
            _create(driver, made, vrt_of(vrt), options, progress)
            write_beside(made, vrt, list(filled))
        else:
            _create(driver, made, vrt, options, progress)
        progress.report(0.8, f"comparing {target.name}")
        losses = [loss for table in filled.values() for loss in table.losses]
        losses += [
            loss
            for band, table in filled.items()
            for loss in losses_between(vrt, str(made), band, table.singles)
        ]
        losses += colour_losses(vrt, open_dataset(str(made)))
        if losses and strict:
            raise NotWrittenError(f"{target} was not written: {'; '.join(losses)}")
        _put_in_place(made, target)
    return losses


@contextmanager
def _folder_for(driver: Any, target: Path) -> Iterator[Path]:
    """Yield a temporary name in the target's file system, and clean up at the end."""
    if driver.ShortName == "VRT":
        # A VRT refers to the raster by a relative path, so it is written in the target's directory.
        with temporary_path(target.parent, ".vrt") as made:
            yield made
        return
    # The file keeps its final name, because an HFA file contains its own name.
    with temporary_path(target.parent, folder=True) as folder:
        yield folder / target.name


def _create(driver: Any, made: Path, vrt: Any, options: Sequence[str], progress: Progress) -> None:
    stopped: list[BaseException] = []

    def callback(done: float, message: str, data: Any) -> int:
        try:
            progress.report(0.3 + done / 2)
        except BaseException as error:
            stopped.append(error)
            return 0
        return 1

    with exceptions(), silence():
        try:
            copy = driver.CreateCopy(
                str(made), vrt, strict=0, options=list(options), callback=callback
            )
            if copy is not None:
                copy.FlushCache()
            failed = copy is None
            # Closing the dataset completes the file.
            del copy
        except RuntimeError as error:
            if stopped:
                raise stopped[0] from None
            raise GdalError(f"{driver.ShortName} can't write {made.name}: {error}") from error
    if stopped:
        raise stopped[0]
    if failed:
        raise GdalError(f"{driver.ShortName} did not write {made.name}")


def _put_in_place(made: Path, target: Path) -> None:
    if made.parent == target.parent:
        for old in _beside(target):
            old.unlink(missing_ok=True)
        made.replace(target)
        return
    names = sorted(one.name for one in made.parent.iterdir())
    # GDAL would take a table in an old .aux.xml for the new raster's.
    for old in _beside(target):
        if old.name not in names:
            old.unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == target.name):
        (made.parent / name).replace(target.parent / name)
