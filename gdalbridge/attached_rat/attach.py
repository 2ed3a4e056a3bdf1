"""Attach a raster's sidecars to its own table.

>>> import tempfile
>>> from osgeo import gdal
>>> path = tempfile.mkdtemp() + "/seg.tif"
>>> _ = gdal.GetDriverByName("GTiff").Create(path, 3, 2).FlushCache()
>>> with attach(path, update=True) as rat:
...     rat.SetRowCount(3)
...     _ = rat.CreateColumn("area", gdal.GFT_Real, gdal.GFU_Generic)
...     rat.SetValueAsDouble(2, 0, 1.5)
>>> attach(path).ReadAsArray(0)
array([0. , 0. , 1.5])
"""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gdalbridge.attached_rat.attached_table import AttachedTable
from gdalbridge.attached_rat.gdal_rat import open_own_rat
from gdalbridge.attached_rat.open_sidecars import shared_table
from gdalbridge.attached_rat.rat import AttachedRAT
from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.compat import gdal
from gdalbridge.gdalio.datasets import band_of, opened
from gdalbridge.gdalio.rat_reader import RatSource
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.sidecars.host import chosen_sidecars, host_of
from gdalbridge.sidecars.naming import sidecar_path, writable_sidecar_path
from gdalbridge.sidecars.provenance import RASTER_ATTR
from ratzarr import TableNotFoundError

__all__ = [
    "AttachedRAT",
    "Options",
    "attach",
    "attach_band",
    "key_of",
]


def attach(
    raster: Any,
    band: int = 1,
    *,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    update: bool = False,
    override: bool = False,
    as_text: Collection[str] = (),
    encoding: str | None = None,
    lossy: bool = False,
) -> AttachedRAT:
    """Return a band's own attribute table and its sidecars as one table.

    Parameters
    ----------
    raster : str, os.PathLike, gdal.Dataset or gdal.Band
        A path, URL or ``/vsi`` name, or an open dataset or band. The raster is only read. A
        dataset passed here stays open as long as the table is in use; the dataset of a band
        does not.
    band : int
        Number of the band, counted from 1. Ignored if ``raster`` is a band.
    names : sequence of str or None, optional
        The sidecars to attach: the names of further tables, and None for the band's first. By
        default all. New columns go to the first sidecar listed, by default the band's first.
    prefer : {"sidecar", "raster"}
        Which column is shown if a sidecar and the raster have columns of the same name.
    update : bool
        Write changes to the sidecars, which are created when needed.
    override : bool
        Allow changes to the raster's own columns. The sidecar gets a changed copy of the
        column, which is shown from then on in place of the raster's.
    as_text : collection of str
        Columns of the sidecars, or of a ``.vat.dbf``, to show as text.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8, or the
        encoding that its ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table even if GDAL has lost or altered values of it.

    Returns
    -------
    AttachedRAT
        A ``gdal.RasterAttributeTable``.

    Raises
    ------
    RasterNotFoundError
        If the raster or band does not exist.
    SidecarNameError
        If no sidecar can be stored beside the raster.
    GdalLossError
        If GDAL has lost or altered values of the raster's own table; with GDAL's message.
    BridgeError
        If a sidecar in ``names`` does not exist and ``update`` is False.

    Warns
    -----
    StaleWarning
        If the raster has changed since a sidecar was made.
    LossWarning
        If a column of a sidecar can't be shown.

    Examples
    --------
    >>> import numpy, tempfile
    >>> from osgeo import gdal
    >>> path = tempfile.mkdtemp() + "/seg.tif"
    >>> _ = gdal.GetDriverByName("GTiff").Create(path, 3, 2).FlushCache()
    >>> with attach(path, update=True) as rat:
    ...     rat.SetRowCount(3)
    ...     _ = rat.CreateColumn("area", gdal.GFT_Real, gdal.GFU_Generic)
    ...     _ = rat.WriteArray(numpy.array([1.5, 2.5]), 0, 1)
    ...     rat.ReadAsArray(0)
    array([0. , 1.5, 2.5])
    """
    if prefer not in ("sidecar", "raster"):
        raise BridgeError(f'prefer must be "sidecar" or "raster": got {prefer!r}')
    if isinstance(names, str) or (names is not None and not list(names)):
        raise BridgeError(f"names must be a non-empty list of names: got {names!r}")
    options = Options(
        None if names is None else tuple(names), prefer, update, override, frozenset(as_text),
        ReadOptions(encoding, lossy),
    )  # fmt: skip
    if isinstance(raster, gdal.Band):
        return attach_band(raster, options)
    is_open = hasattr(raster, "GetRasterBand")
    with opened(raster) as dataset:
        name = dataset.GetDescription() if is_open else os.fspath(raster)
        one = band_of(dataset, band, name)
        own = open_own_rat(dataset, one, keep=True, ours=not is_open, options=options.reading)
        return _attached(dataset, one, None if is_open else raster, own, options)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of :func:`attach`."""

    names: tuple[str | None, ...] | None = None
    prefer: str = "sidecar"
    update: bool = False
    override: bool = False
    as_text: frozenset[str] = frozenset()
    reading: ReadOptions = DEFAULTS


def attach_band(band: Any, options: Options) -> AttachedRAT:
    """Attach to an open band; see :func:`attach`."""
    dataset = band.GetDataset()
    own = open_own_rat(dataset, band, keep=False, options=options.reading)
    return _attached(dataset, band, None, own, options)


def key_of(band: Any) -> str:
    """Return a key that is the same for all attached tables of one band of a raster.

    Raises
    ------
    SidecarNameError
        If no sidecar can be stored beside the raster.
    """
    return host_of(band.GetDataset(), band).key


def _attached(dataset: Any, band: Any, path: Any, own: RatSource, options: Options) -> AttachedRAT:
    host = host_of(dataset, band, path)
    name = dataset.GetDescription() or str(host.raster)
    found = host.find()
    names: Collection[str | None] | None = options.names
    if names is not None and options.update:
        # A missing one is created.
        names = {one.name for one in found} & set(names)
    found = chosen_sidecars(found, names, name)
    main = options.names[0] if options.names else None
    tables = {one.name: shared_table(one.path) for one in found}
    for one in found:
        try:
            tables[one.name].open(update=options.update)
        except TableNotFoundError:
            # Another process may just be creating or deleting the sidecar.
            del tables[one.name]
    if main not in tables:
        beside = writable_sidecar_path if options.update else sidecar_path
        tables[main] = shared_table(beside(host.raster, host.band, main))
        if tables[main].exists:
            # Another attached table has opened the sidecar, but it may have been deleted since.
            with suppress(TableNotFoundError):
                tables[main].open(update=options.update)
    recorded = {one.path: one.attributes.get(RASTER_ATTR) for one in tables.values() if one.exists}
    host.warn_of_changes(name, dataset, recorded)
    order = sorted(tables, key=lambda one: one or "")
    table = AttachedTable(
        name,
        own,
        [tables[one] for one in order],
        tables[main],
        host.key,
        prefer=options.prefer,
        update=options.update,
        may_override=options.override,
        as_text=options.as_text,
        describe=host.describing(dataset, band) if options.update else lambda _: {},
    )
    return AttachedRAT(table)
