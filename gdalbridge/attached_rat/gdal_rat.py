"""Read a raster's own table through GDAL, safely.

GDAL frees a table with its dataset, and a later call on the table crashes the process. So the table
is read from a dataset that we keep open. In a dataset of the caller, GDAL's bindings mark the bands
as invalid when the dataset is closed (since 3.8); the raster is then opened again. With older
versions, the table is copied, or read from a second dataset.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import GdalError
from gdalbridge.gdalio.compat import INVALIDATES_BANDS, exceptions, gdal, own_rat, silence
from gdalbridge.gdalio.datasets import band_of, opened, siblings_visible
from gdalbridge.gdalio.own_table import open_own_table
from gdalbridge.gdalio.rat_reader import DbfSource, RatSchema, RatSource, schema_of
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.gdalio.vat_dbf import DbfTable

__all__ = ["GdalRat", "OwnRat", "name_for_gdal", "native_rat", "open_own_rat"]

Array = NDArray[Any]


def native_rat(kind: int, plain: Array | None, rows: int = 0) -> Any:
    """Return a GDAL table with one column of these values, or of empty rows."""
    rat = gdal.RasterAttributeTable()
    with exceptions(), silence():
        rat.CreateColumn("", int(kind), 0)
        rat.SetRowCount(rows if plain is None else len(plain))
        if plain is not None and len(plain):
            rat.WriteArray(np.ascontiguousarray(plain), 0)
    return rat


def name_for_gdal(name: str) -> str:
    """Return a valid UTF-8 name; GDAL's bindings abort the process for any other."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class GdalRat(RatSource):
    """A GDAL table, whose columns keep the names that GDAL's bindings give them."""

    is_kept = True
    """True if the table stays valid as long as this object is in use."""

    def _described(self) -> RatSchema:
        return self._schema_of(self._rat)

    def _schema_of(self, rat: Any) -> RatSchema:
        # Without a declared encoding, an undecodable name does not make the table unreadable.
        encoding = self.options.encoding
        return schema_of(rat, any_name=encoding is None, encoding=encoding)


class OwnRat(GdalRat):
    """A band's own table in a dataset of the caller, who may close it.

    Parameters
    ----------
    dataset : gdal.Dataset or None
        The dataset, to keep it open.
    band : gdal.Band
    rat : gdal.RasterAttributeTable
    name : str
        The raster's name.
    options : ReadOptions
    """

    is_kept = False

    def __init__(self, dataset: Any, band: Any, rat: Any, name: str, options: ReadOptions) -> None:
        super().__init__(dataset, band, rat, name, options)
        self._number = band.GetBand()

    @property
    def rat(self) -> Any:
        """The GDAL table.

        Raises
        ------
        GdalError
            If the dataset was closed and can't be opened again, or has another table now.
        """
        if self._band is not None and getattr(self._band, "this", None) is None:
            self._rat = self._band = self._dataset = None
            try:
                dataset, band, rat = _opened_again(self.name, self._number)
            except FileNotFoundError as error:
                raise GdalError(f"the dataset of this table was closed, and {error}") from error
            if rat is None or self._schema_of(rat) != self.schema:
                raise GdalError(
                    f"the dataset of this table was closed, and {self.name} has another one now"
                )
            self._dataset, self._band, self._rat, self.is_kept = dataset, band, rat, True
        return self._rat


def open_own_rat(
    dataset: Any,
    band: Any,
    *,
    keep: bool,
    ours: bool = False,
    options: ReadOptions = DEFAULTS,
) -> GdalRat | DbfSource:
    """Open a band's own table; without columns if the band has none.

    Parameters
    ----------
    dataset : gdal.Dataset
    band : gdal.Band
    keep : bool
        Keep the dataset open as long as the table is in use.
    ours : bool
        True if no other code has the dataset.
    options : ReadOptions
    """
    name = dataset.GetDescription()
    rat = open_own_table(dataset, band, name or "the raster", options)
    if isinstance(rat, DbfTable):
        # The whole table is in memory, so it needs no dataset.
        return DbfSource(None, None, rat, name, options)
    held = dataset if keep else None
    if rat is not None and not ours and INVALIDATES_BANDS:
        return OwnRat(held, band, rat, name, options)
    if rat is None or keep:
        return GdalRat(held, band, rat, name, options)
    with silence():
        try:
            copy = rat.Clone()
        except RuntimeError:
            copy = None
    if copy is not None:
        return GdalRat(None, None, copy, name, options)
    # Some formats can't copy large tables, so open the raster once more.
    return GdalRat(*_opened_again(name, band.GetBand()), name, options)


def _opened_again(name: str, number: int) -> tuple[Any, Any, Any]:
    with opened(name) as dataset:
        band = band_of(dataset, number, name)
        with siblings_visible(name), exceptions(False), silence():
            return dataset, band, own_rat(band)
