"""Read a raster's own table through GDAL, safely.

GDAL frees a table with its dataset, and a later call on the table crashes the process. So the table
is read from a dataset that we keep open. In a dataset of the caller, GDAL's bindings mark the bands
as invalid when the dataset is closed (since 3.8); the raster is then opened again. With older
versions, the table is copied, or read from a second dataset.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError, GdalError
from gdalbridge.gdalio.compat import block_io_is_safe, exceptions, gdal, own_rat, silence
from gdalbridge.gdalio.datasets import band_of, opened, siblings_visible
from gdalbridge.gdalio.field_types import FieldType, stored_dtype
from gdalbridge.gdalio.messages import collected, report
from gdalbridge.gdalio.own_table import open_own_table
from gdalbridge.gdalio.rat_reader import RatSchema, dbf_schema, schema_of
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.gdalio.vat_dbf import DbfColumn, DbfTable

__all__ = ["HeldRat", "OwnRat", "name_for_gdal", "native_rat"]

Array = NDArray[Any]

BANDS_ARE_MARKED = hasattr(gdal.Dataset, "_invalidate_children")
CELLS = 4096
"""Longest block, in rows, that is read cell by cell with versions that can't read blocks."""
_GETTERS = {
    FieldType.INTEGER: "GetValueAsInt",
    FieldType.REAL: "GetValueAsDouble",
    FieldType.STRING: "GetValueAsString",
}


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


class HeldRat:
    """A GDAL table that stays valid.

    Parameters
    ----------
    rat : gdal.RasterAttributeTable or None
    name : str
        Name of the table or raster, for error messages.
    options : ReadOptions
    dbf : DbfTable, optional
        A table from a ``.vat.dbf`` file, which is read without GDAL.
    """

    def __init__(
        self, rat: Any, name: str, options: ReadOptions = DEFAULTS, dbf: DbfTable | None = None
    ) -> None:
        self._rat, self._name, self._options, self._dbf = rat, name, options, dbf
        self._whole: tuple[int, Array] | None = None
        self.schema = RatSchema((), 0, None, None)
        if dbf is not None:
            self.schema = dbf_schema(dbf)
        elif rat is not None:
            self.schema = self._schema_of(rat)
            self._safe = block_io_is_safe(rat)

    def _schema_of(self, rat: Any) -> RatSchema:
        # Without a declared encoding, an undecodable name does not make the table unreadable.
        encoding = self._options.encoding
        return schema_of(rat, any_name=encoding is None, encoding=encoding)

    @property
    def rat(self) -> Any:
        """The GDAL table."""
        return self._rat

    @property
    def is_kept(self) -> bool:
        """True if :attr:`rat` never changes."""
        return True

    def is_converted(self, index: int) -> bool:
        """Return True if a column must be read by :meth:`stored`, because GDAL would alter it."""
        is_text = self.schema.columns[index].type == FieldType.STRING
        return self._dbf is not None or (is_text and self._options.encoding is not None)

    def stored_as(self, index: int) -> tuple[np.dtype[Any], dict[str, Any]]:
        """Return the dtype and attributes of a column that :meth:`stored` reads."""
        column = self.schema.columns[index]
        attributes: dict[str, Any] = {"GDAL_TYPE": column.type, "GDAL_USAGE": column.usage}
        if self._dbf is None:
            return stored_dtype(FieldType.STRING), attributes
        found = self._dbf.column(index)
        attributes |= found.attributes | {"GDAL_TYPE": int(found.type)}
        return self._shown_dtype(found), attributes

    @staticmethod
    def _shown_dtype(column: DbfColumn) -> np.dtype[Any]:
        # A wide field may hold only small integers. GDAL shows it as Integer.
        is_integer = column.type == FieldType.INTEGER
        return np.dtype(np.int32) if is_integer else column.dtype

    def stored(self, index: int, start: int, length: int) -> Array:
        """Read the exact rows of a column that GDAL would alter.

        Raises
        ------
        ConversionError
            If text is not in the encoding; names its row.
        """
        if self._dbf is not None:
            column = self._dbf.column(index)
            return column.values[start : start + length].astype(self._shown_dtype(column))
        encoding = self._options.encoding or "utf-8"
        out = np.empty(length, stored_dtype(FieldType.STRING))
        for row, raw in enumerate(self.read(index, start, length).tolist()):
            try:
                out[row] = raw.decode(encoding)
            except UnicodeDecodeError:
                raise ConversionError(
                    f"{self._name}, column {self.schema.columns[index].name!r}, row "
                    f"{start + row}: {raw!r:.200} is not {encoding.upper()}"
                ) from None
        return out

    def read(self, index: int, start: int, length: int) -> Array:
        """Read rows as GDAL's ``ReadAsArray`` returns them, with every version of GDAL."""
        rat = self.rat
        if self._safe or start == 0:
            return self._read_block(rat, index, start, length)
        kind = self.schema.columns[index].type
        if kind == FieldType.STRING or (length <= CELLS and kind in _GETTERS):
            get = getattr(rat, _GETTERS[FieldType(kind)])
            cells = [get(row, index) for row in range(start, start + length)]
            if kind != FieldType.STRING:
                return np.array(cells, "i4" if kind == FieldType.INTEGER else "f8")
            return np.array([_bytes(text) for text in cells] or [b""], "S")[:length]
        # Read the whole column from row 0 and keep it, because the next block is probably of the
        # same column.
        if self._whole is None or self._whole[0] != index:
            self._whole = None
            self._whole = (index, self._read_block(rat, index, 0, self.schema.rows))
        return self._whole[1][start : start + length].copy()

    def _read_block(self, rat: Any, index: int, start: int, length: int) -> Array:
        column = self.schema.columns[index].name
        with exceptions(), collected(of_table=True) as found:
            try:
                values: Array | None = rat.ReadAsArray(index, start, length)
            except (RuntimeError, SystemError, ValueError) as error:
                raise GdalError(f"{self._name}, column {column!r}: {error}") from error
        if found:
            report(found, self._name, lossy=self._options.lossy)
        if values is None or len(values) != length:
            raise GdalError(
                f"{self._name}, column {column!r}: GDAL could not read {length} rows from row "
                f"{start}"
            )
        return values


class OwnRat(HeldRat):
    """A band's own table; without columns if the band has no table.

    Parameters
    ----------
    dataset : gdal.Dataset
    band : gdal.Band
    keep : bool
        Keep the dataset open as long as this object is in use.
    ours : bool
        True if no other code has the dataset.
    options : ReadOptions
    """

    def __init__(
        self,
        dataset: Any,
        band: Any,
        *,
        keep: bool,
        ours: bool = False,
        options: ReadOptions = DEFAULTS,
    ) -> None:
        self._ours = ours
        name = dataset.GetDescription()
        self._number = band.GetBand()
        rat = open_own_table(dataset, band, name or "the raster", options)
        if isinstance(rat, DbfTable):
            # The whole table is in memory, so it needs no dataset.
            self._dataset = self._band = None
            self.has_table = True
            super().__init__(None, name, options, rat)
            return
        self._dataset = dataset if keep else None
        self._band = band
        if rat is not None and not keep and not BANDS_ARE_MARKED:
            rat, self._band = self._outliving(rat, name)
        self.has_table = rat is not None
        """True if the band has a table, even one without columns."""
        super().__init__(rat, name, options)

    def _outliving(self, rat: Any, name: str) -> tuple[Any, Any]:
        """Return a table that outlives the caller's dataset, and its band unless it is a copy."""
        with silence():
            try:
                copy = rat.Clone()
            except RuntimeError:
                copy = None
        if copy is not None:
            return copy, None
        # Some formats can't copy large tables, so open the raster once more.
        with opened(name) as dataset:
            self._dataset, self._ours = dataset, True
            band = band_of(dataset, self._number, name)
            with exceptions(False), silence():
                return own_rat(band), band

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
                with opened(self._name) as dataset:
                    band = band_of(dataset, self._number, self._name)
                    with siblings_visible(self._name), exceptions(False), silence():
                        rat = own_rat(band)
            except FileNotFoundError as error:
                raise GdalError(f"the dataset of this table was closed, and {error}") from error
            if rat is None or self._schema_of(rat) != self.schema:
                raise GdalError(
                    f"the dataset of this table was closed, and {self._name} has another one now"
                )
            self._dataset, self._band, self._rat, self._ours = dataset, band, rat, True
        return self._rat

    @property
    def is_kept(self) -> bool:
        """True if the table stays valid as long as this object is in use."""
        return self._band is None or self._ours or not BANDS_ARE_MARKED

    def close(self) -> None:
        """Release the table, then its band, then its dataset."""
        self._rat = self._band = self._dataset = self._whole = None


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
