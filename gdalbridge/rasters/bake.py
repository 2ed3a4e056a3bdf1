"""Copy a raster with an ordinary attribute table, for tools that do not know sidecars.

The merged table is built in memory on a VRT of the raster, and GDAL copies the VRT. The copy is read
again and compared, because formats may lose digits and names without an error.
"""

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from gdalbridge.copying.report import Report
from gdalbridge.errors import (
    BridgeError,
    ColumnSelectionError,
    LossWarning,
    NotWrittenError,
)
from gdalbridge.gdalio.aux_xml import write_beside
from gdalbridge.gdalio.datasets import open_dataset, opened
from gdalbridge.gdalio.field_types import FieldType, type_name
from gdalbridge.gdalio.files_beside import check_files_read, files_beside
from gdalbridge.gdalio.rat_compare import colour_losses, losses_between
from gdalbridge.gdalio.rat_reader import bands_with_table, open_rat
from gdalbridge.gdalio.rat_writer import EXACT, check_columns
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.output import Output
from gdalbridge.progress import Progress, progress_of
from gdalbridge.rasters.baked_table import Filled, Wanted, fill, nan_without_signs, vrt_of
from gdalbridge.rasters.drivers import check_pixels, copy_dataset, output_driver
from gdalbridge.sidecars.host import Host, Hosted, find_hosted
from gdalbridge.sidecars.naming import Sidecar, find_sidecars, is_sidecar, parsed_name
from gdalbridge.sidecars.provenance import RASTER_ATTR
from gdalbridge.sidecars.raster_files import BESIDE, place_of
from gdalbridge.sidecars.staleness import refuse_stale, same_raster
from ratzarr import RatZarr
from ratzarr.errors import Advice

__all__ = ["BakeReport", "bake"]


@dataclass(frozen=True, slots=True)
class BakeReport(Report):
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
        Name of the copy: local, on S3, or at another URL that fsspec writes to. With ``vrt``, the
        default is ``<raster>.vrt``; a VRT is local, because it refers to the raster.
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
        If the format does not keep the pixels or the table, or with ``strict`` not exactly.
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
    source = place_of(raster)
    if out is None and not vrt:
        raise BridgeError(Advice("name an output,", "or make a VRT with vrt=True"))
    out = f"{source.url}.vrt" if out is None else out
    output = Output(out, overwrite, storage_options, endings=BESIDE)
    driver, name = output_driver(output.name, "VRT" if vrt else format, options)
    if name == "VRT" and output.local_parent is None:
        raise BridgeError(
            f"{output}: a VRT refers to its raster by a path, and is written to a local disk"
        )
    output.check(source.url)
    with (
        opened(source.url, storage_options) as dataset,
        progress_of(progress) as reporter,
        ExitStack() as stack,
    ):
        every = range(1, dataset.RasterCount + 1)
        check_files_read(dataset, files_beside(dataset, storage_options), every)
        hosted = _hosted(raster, sidecars, band, storage_options)
        tables = [one.sidecar for one in hosted]
        bands = _bands(dataset, tables, band, reading)
        stores = {
            one.path: stack.enter_context(
                RatZarr(one.path, readOnly=True, storageOptions=storage_options)
            )
            for one in tables
        }
        if not accept_stale:
            of_bands = [one for one in hosted if one.sidecar.band in bands]
            _check_fit(str(raster), dataset, of_bands, stores, sidecars is None, storage_options)
        reporter.report(0.0, "reading tables")
        merged = vrt_of(dataset)
        wanted = Wanted(columns)
        _check_casts(cast, stores.values(), wanted)
        filled: dict[int, Filled] = {}
        for number in bands:
            mine = [stores[one.path] for one in tables if one.band == number]
            found = fill(
                dataset, merged, number, mine, wanted, cast or {}, storage_options,
                native=native, reading=reading,
            )  # fmt: skip
            if found is not None:
                filled[number] = found
        wanted.check(raster)
        if name == "HFA":
            for number in filled:
                with open_rat(merged, number) as rat:
                    given = [(one.name, one.type, one.usage) for one in rat.schema.columns]
                check_columns(output.name, given, hfa=True)
        reporter.report(0.3, f"writing {output.name}")
        losses = _write(driver, output, merged, filled, options, strict, native, reporter)
    for loss in losses:
        warnings.warn(f"{output}: {loss}", LossWarning, stacklevel=2)
    shown, rows = {}, {}
    for number in filled:
        with open_rat(merged, number) as rat:
            shown[number] = tuple(column.name for column in rat.schema.columns)
            rows[number] = rat.schema.rows
    seconds = time.perf_counter() - started
    notes = _notes(filled, find_sidecars(output.place.url, storage_options=storage_options))
    return BakeReport(source.url, str(output), name, shown, rows, seconds, tuple(losses), notes)


def _notes(filled: Mapping[int, Filled], beside: Sequence[Sidecar]) -> tuple[str, ...]:
    notes = [
        f"{one.path} is beside the output: its columns are shown in place of those of the same name"
        for one in beside
    ]
    for kind, words in ((FieldType.BOOLEAN, "Integer 0 and 1"), (FieldType.DATETIME, "ISO text")):
        names = {
            name: 1 for one in filled.values() for name, was in one.older.items() if was == kind
        }
        if names:
            notes.append(
                f"{type_name(kind)} columns are written as {words}, for older GDAL: "
                f"{', '.join(map(repr, names))}"
            )
    return tuple(notes)


# ---- checks of the arguments


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
    cast: Mapping[str, str] | None, stores: Iterable[RatZarr], wanted: Wanted
) -> None:
    """Check that all columns to cast are copied. Other casts would be ignored without an error."""
    if not cast:
        return
    names = {name for store in stores for name in store.getColumnNames() if wanted.takes(name)}
    for name in cast:
        if name not in names:
            raise ColumnSelectionError(
                f"cast: no column {name!r} is copied from a sidecar; the columns are {sorted(names)}"
            )


def _check_fit(
    name: str,
    dataset: Any,
    tables: Sequence[Hosted],
    stores: Mapping[str, RatZarr],
    all_are_its: bool,
    options: Mapping[str, Any] | None,
) -> None:
    for hosted in tables:
        path = hosted.sidecar.path
        recorded = stores[path].getRatAttributeMapping().get(RASTER_ATTR)
        if recorded is None:
            continue
        now = hosted.host.now(dataset, path, options)
        if all_are_its or same_raster(recorded, now):
            refuse_stale(name, now, {path: recorded})


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
    output: Output,
    vrt: Any,
    filled: Mapping[int, Filled],
    options: Sequence[str],
    strict: bool,
    native: bool,
    progress: Progress,
) -> list[str]:
    """Write the output, compare it with the VRT, put it in place, and return the losses."""
    # A VRT refers to the raster by a relative path.
    with output.create(refers=driver.ShortName == "VRT") as made:
        beside = not native and driver.ShortName in ("GTiff", "COG")
        with nullcontext() if driver.ShortName in EXACT else nan_without_signs(vrt, filled):
            if beside:
                # GDAL 3.12 and later would put the table into the TIFF, where older GDAL, QGIS and
                # ArcGIS can't read it.
                copy_dataset(driver, made, vrt_of(vrt), options, progress)
                write_beside(made, vrt, list(filled))
            else:
                copy_dataset(driver, made, vrt, options, progress)
        progress.report(0.8, f"comparing {output.name}")
        check_pixels(driver, made, vrt, options)
        losses = [loss for table in filled.values() for loss in table.losses]
        losses += [
            loss
            for band, table in filled.items()
            for loss in losses_between(vrt, str(made), band, table.singles)
        ]
        losses += colour_losses(vrt, open_dataset(str(made)))
        if losses and strict:
            raise NotWrittenError(f"{output} was not written: {'; '.join(losses)}")
        # The last chance to cancel.
        progress.report(1.0)
    return losses
