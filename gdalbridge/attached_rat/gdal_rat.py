"""A raster's own table as the attached one reads it: by GDAL's own calls, safely.

GDAL frees a table with its dataset, and a call on one that was freed takes the process
down. So a table is read from a dataset that is ours, or that GDAL's bindings tell us of
when it goes (its bands are marked, since 3.8); else from a copy. Where the dataset is gone
the raster is opened again.
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
"""Rows up to which a version that can't read blocks is asked cell by cell."""
_GETTERS = {
    FieldType.INTEGER: "GetValueAsInt",
    FieldType.REAL: "GetValueAsDouble",
    FieldType.STRING: "GetValueAsString",
}


def native_rat(kind: int, plain: Array | None, rows: int = 0) -> Any:
    """Return a table of GDAL's with one column, of these values (or of empty rows)."""
    rat = gdal.RasterAttributeTable()
    with exceptions(), silence():
        rat.CreateColumn("", int(kind), 0)
        rat.SetRowCount(rows if plain is None else len(plain))
        if plain is not None and len(plain):
            rat.WriteArray(np.ascontiguousarray(plain), 0)
    return rat


def name_for_gdal(name: str) -> str:
    """Return a name as GDAL's bindings take it: they end the process for what is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class HeldRat:
    """A table of GDAL's that stays where it is.

    Parameters
    ----------
    rat
        GDAL's.
    name : str
        For messages.
    options : ReadOptions
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
        # A name that is not of the encoding is no reason to refuse the rest of the table.
        encoding = self._options.encoding
        return schema_of(rat, any_name=encoding is None, encoding=encoding)

    @property
    def rat(self) -> Any:
        """GDAL's table."""
        return self._rat

    @property
    def is_kept(self) -> bool:
        """Whether :attr:`rat` is the same as long as this is in use."""
        return True

    def is_converted(self, index: int) -> bool:
        """Whether a column is to be read by :meth:`stored`: GDAL's table would alter it."""
        is_text = self.schema.columns[index].type == FieldType.STRING
        return self._dbf is not None or (is_text and self._options.encoding is not None)

    def stored_as(self, index: int) -> tuple[np.dtype[Any], dict[str, Any]]:
        """Return the dtype and attributes of what :meth:`stored` reads."""
        column = self.schema.columns[index]
        attributes: dict[str, Any] = {"GDAL_TYPE": column.type, "GDAL_USAGE": column.usage}
        if self._dbf is None:
            return stored_dtype(FieldType.STRING), attributes
        found = self._dbf.column(index)
        attributes |= found.attributes | {"GDAL_TYPE": int(found.type)}
        return self._shown_dtype(found), attributes

    @staticmethod
    def _shown_dtype(column: DbfColumn) -> np.dtype[Any]:
        # Wide fields of small integers are Integer, as in GDAL.
        is_integer = column.type == FieldType.INTEGER
        return np.dtype(np.int32) if is_integer else column.dtype

    def stored(self, index: int, start: int, length: int) -> Array:
        """Read rows of a column that GDAL's own table would alter, exactly.

        Raises
        ------
        ConversionError
            For text that is not of the encoding: names the row.
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
        """Read rows as GDAL's ``ReadAsArray`` hands them out, on every version."""
        rat = self.rat
        if self._safe or start == 0:
            return self._ask(rat, index, start, length)
        kind = self.schema.columns[index].type
        if kind == FieldType.STRING or (length <= CELLS and kind in _GETTERS):
            get = getattr(rat, _GETTERS[FieldType(kind)])
            cells = [get(row, index) for row in range(start, start + length)]
            if kind != FieldType.STRING:
                return np.array(cells, "i4" if kind == FieldType.INTEGER else "f8")
            return np.array([_bytes(text) for text in cells] or [b""], "S")[:length]
        # The whole column, from row 0; kept, as the next block will be of the same one.
        if self._whole is None or self._whole[0] != index:
            self._whole = None
            self._whole = (index, self._ask(rat, index, 0, self.schema.rows))
        return self._whole[1][start : start + length].copy()

    def _ask(self, rat: Any, index: int, start: int, length: int) -> Array:
        column = self.schema.columns[index].name
        with exceptions(), collected(of_table=True) as found:
            try:
                values: Array | None = rat.ReadAsArray(index, start, length)
            except (RuntimeError, SystemError, ValueError) as error:
                raise GdalError(f"{self._name}, column {column!r}: {error}") from error
        if found:
            report(found, self._name, lossy=self._options.lossy)
        if values is None or len(values) != length:
            raise GdalError(f"{self._name}, column {column!r}: GDAL could not read from {start}")
        return values


class OwnRat(HeldRat):
    """A band's own table; without columns, where the band has none.

    Parameters
    ----------
    dataset, band
        GDAL's.
    keep : bool
        Whether the dataset may be kept open for as long as this is in use.
    ours : bool
        Whether nobody else has the dataset.
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
            # All of it is in memory: it needs no dataset.
            self._dataset = self._band = None
            self.was_there = True
            super().__init__(None, name, options, rat)
            return
        self._dataset = dataset if keep else None
        self._band = band
        if rat is not None and not keep and not BANDS_ARE_MARKED:
            rat, self._band = self._outliving(rat, name)
        self.was_there = rat is not None
        """Whether the band has a table, be it without columns."""
        super().__init__(rat, name, options)

    def _outliving(self, rat: Any, name: str) -> tuple[Any, Any]:
        """Return a table that does not go with its dataset, and its band if it has one."""
        with silence():
            try:
                copy = rat.Clone()
            except RuntimeError:
                copy = None
        if copy is not None:
            return copy, None
        # Some formats don't copy large tables.
        with opened(name) as dataset:
            self._dataset, self._ours = dataset, True
            band = band_of(dataset, self._number, name)
            with exceptions(False), silence():
                return own_rat(band), band

    @property
    def rat(self) -> Any:
        """GDAL's table.

        Raises
        ------
        GdalError
            Where its dataset was closed, and can't be opened again.
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
        """Whether the table stays where it is as long as this is in use."""
        return self._band is None or self._ours or not BANDS_ARE_MARKED

    def close(self) -> None:
        """Let go of table, band and dataset, in that order."""
        self._rat = self._band = self._dataset = self._whole = None


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
