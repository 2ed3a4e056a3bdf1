"""Whether a raster keeps the table that it is given. Some drivers take one and drop it.

Looked at before, where it can be told in advance, and afterwards, by opening the raster
again.
"""

from contextlib import suppress
from typing import Any

from ._gdal import VERSION, gdal, own_rat, silence
from .errors import BridgeError, NotWrittenError, RasterNotFoundError
from .gdalopen import band_of, open_dataset
from .gdalrat import RatSchema, schema_of
from .gdaltypes import usage_name

__all__ = ["check_not_hidden", "check_open_for_update", "keeps_values", "see_what_was_kept"]

EXACT = frozenset({"MEM", "HFA", "KEA"})
"""Drivers that keep the bits of every value that they take."""


def keeps_values(dataset: Any) -> bool:
    """Return whether a raster keeps every value of its table that it takes."""
    driver = dataset.GetDriver().ShortName
    # A VRT in memory lists its sources' files, and is not among them.
    in_memory = driver == "VRT" and dataset.GetDescription() not in (dataset.GetFileList() or [])
    return driver in EXACT or in_memory


def check_open_for_update(dataset: Any, band: Any, name: str) -> None:
    """Refuse a dataset that was opened for reading, where GDAL would not say so.

    Raises
    ------
    NotWrittenError
    """
    # From 3.12 on GeoTIFFs that were opened for reading take a table, show it, and drop it.
    if VERSION < (3, 12) or dataset.GetDriver().ShortName != "GTiff":
        return
    # GDAL's bindings don't say how a dataset was opened. A write outside of the raster is
    # refused for the one reason or the other, and writes nothing.
    outside = (dataset.RasterXSize, 0, 1, 1, b"\0", 1, 1, gdal.GDT_Byte)
    with silence():
        gdal.ErrorReset()
        with suppress(RuntimeError):
            band.WriteRaster(*outside)
        reason = gdal.GetLastErrorNo()
        gdal.ErrorReset()
    if reason in (gdal.CPLE_AppDefined, gdal.CPLE_NotSupported, gdal.CPLE_NoWriteAccess):
        raise NotWrittenError(
            f"{name} was opened for reading, and GDAL would drop its table in silence: "
            "it has to be opened for update (gdal.OF_UPDATE), or given by its path"
        )


def check_not_hidden(dataset: Any, number: int, name: str) -> None:
    """Refuse a dataset that does not see the table that its band has already.

    Raises
    ------
    NotWrittenError
    """
    # With GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR a dataset does not see a table in its
    # .aux.xml, and what is written would take that table's place.
    path = dataset.GetDescription()
    with silence():
        beside = path and gdal.VSIStatL(f"{path}.aux.xml") is not None
        if not beside or dataset.GetDriver().ShortName == "MEM":
            return
        again = open_dataset(path)
        hidden = own_rat(again.GetRasterBand(number)) is not None
    if hidden:
        raise NotWrittenError(
            f"{name} has a table in {path}.aux.xml that this dataset does not see: open "
            "it without GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR, or give its path"
        )


def see_what_was_kept(name: str, number: int, expected: RatSchema) -> list[str]:
    """Open a raster again and compare its table's schema with what it was given.

    Returns
    -------
    losses : list of str
        In words, which names and usages became others.

    Raises
    ------
    NotWrittenError
        Where rows, columns or their types are others.
    """
    try:
        dataset = open_dataset(name)
        with silence():
            rat = own_rat(band_of(dataset, number, name))
        found = None if rat is None else schema_of(rat)
        del rat, dataset
    except (BridgeError, RasterNotFoundError) as error:
        raise NotWrittenError(f"{name} can't be read any more: {error}") from error
    # A table without columns, or without rows, is not always kept.
    if found is None and not (expected.columns and expected.rows):
        return ["the table, which has no cells, was not kept"] if expected.columns else []
    if (
        found is None
        or found.rows != expected.rows
        or [c.type for c in found.columns] != [c.type for c in expected.columns]
    ):
        what = "no table" if found is None else f"{len(found.columns)} columns, {found.rows} rows"
        raise NotWrittenError(
            f"{name} was not written: it has {what} where {len(expected.columns)} columns "
            f"and {expected.rows} rows were given to GDAL. Was the dataset opened for update?"
        )
    losses = []
    for was, now in zip(expected.columns, found.columns, strict=True):
        if now.name != was.name:
            losses.append(f"the name of column {was.name!r} became {now.name!r}")
        if now.usage != was.usage:
            losses.append(
                f"the usage of column {was.name!r} became {usage_name(now.usage)}, "
                f"it was {usage_name(was.usage)}"
            )
    return losses
