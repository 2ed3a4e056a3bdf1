"""Read GDAL's raster attribute tables, block by block.

This module avoids every access that is unsafe or loses values in some GDAL version. Band and
dataset are kept alive with their table. Blocks that begin after row 0 are read only if the version
reads the right memory. Text is read in pieces of limited size. Date-times are read as text.

Only one thread at a time may use a source, but not necessarily the one that opened it.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError, GdalError, RasterNotFoundError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.compat import NEW_TYPES, block_io_is_safe, collected, exceptions
from gdalbridge.gdalio.datasets import band_of, opened
from gdalbridge.gdalio.field_types import (
    FieldType,
    stored_dtype,
    table_attributes,
    type_name,
    usage_attributes,
)
from gdalbridge.gdalio.own_table import open_own_table, report_messages
from gdalbridge.gdalio.read_options import DEFAULTS, SAY_ENCODING, ReadOptions
from gdalbridge.gdalio.vat_dbf import DbfTable, is_ascii
from ratzarr import RatZarrError
from ratzarr.errors import Advice
from ratzarr.format import MISSING_ATTR, exact

__all__ = [
    "NO_SCHEMA",
    "DbfSource",
    "RatColumn",
    "RatSchema",
    "RatSource",
    "StoredColumn",
    "bands_with_table",
    "no_table",
    "open_rat",
    "open_source",
    "schema_of",
    "unique_names",
]

Array = NDArray[Any]

TEXT_ROWS = 1024
"""Rows of text read at once. GDAL pads all of them to the longest, which may be very long."""
PADDED = 64 * 2**20
"""Largest size of a block of text padded to its longest row, in bytes."""
OFFSET_ATTR = "UTC_OFFSET_MINUTES"
CELLS = 4096
"""Longest block, in rows, that is read cell by cell with versions that can't read blocks."""
_GETTERS = {FieldType.INTEGER: "GetValueAsInt", FieldType.REAL: "GetValueAsDouble"}
SCAN_ROWS = 100_000
"""Rows of date-times whose offsets are examined at once."""
FAR = 2**32 - 2 * 86_400
"""Seconds from 1970 (1834 to 2105) within which blocks of date-times are exact.

GDAL's bindings create them from a double of seconds, with an error of 4 microseconds in the year 1
and 16 in 9999. Read cell by cell, which is far slower, they are exact."""


@dataclass(frozen=True, slots=True)
class RatColumn:
    """A column as described by GDAL."""

    index: int
    name: str
    type: int
    """GDAL's type number."""
    usage: int
    """GDAL's usage number. Numbers unknown to GDAL are valid."""


@dataclass(frozen=True, slots=True)
class RatSchema:
    """A table as described by GDAL."""

    columns: tuple[RatColumn, ...]
    rows: int
    table_type: int | None
    """0 thematic, 1 athematic."""
    linear_binning: tuple[float, float] | None
    """(minimum of row 0, bin size), if the table has it."""

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes that store the table's properties."""
        return table_attributes(self.table_type, self.linear_binning)


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """The dtype and attributes that store a column."""

    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]


NO_SCHEMA = RatSchema((), 0, None, None)
"""The schema of a band without a table."""


def schema_of(rat: Any, *, any_name: bool = False, encoding: str | None = None) -> RatSchema:
    r"""Return the schema of a GDAL table.

    Parameters
    ----------
    rat
        The GDAL table.
    any_name : bool
        Return names that cannot be decoded as GDAL's bindings do, with lone surrogates. By default
        their bytes are escaped (``\xe9``).
    encoding : str, optional
        Encoding of the names; by default UTF-8.
    """
    count = rat.GetColumnCount()
    columns = tuple(
        RatColumn(
            index,
            _encoded(rat.GetNameOfCol(index)).decode(
                encoding or "utf-8", "surrogateescape" if any_name else "backslashreplace"
            ),
            rat.GetTypeOfCol(index),
            rat.GetUsageOfCol(index),
        )
        for index in range(count)
    )
    is_binned, minimum, size = rat.GetLinearBinning()
    return RatSchema(
        columns,
        rat.GetRowCount(),
        rat.GetTableType(),
        (float(minimum), float(size)) if is_binned else None,
    )


def _column_count(table: Any) -> int:
    return len(table) if isinstance(table, DbfTable) else int(table.GetColumnCount())


def _encoded(text: Any) -> bytes:
    """Return the bytes of text from GDAL's bindings, which is bytes or a str with surrogates."""
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def open_rat(
    raster: Any,
    band: int = 1,
    storage_options: Mapping[str, Any] | None = None,
    options: ReadOptions = DEFAULTS,
    before: Callable[[], object] = lambda: None,
) -> "RatSource":
    """Open a band's own attribute table, for reading.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A path, URL or ``/vsi`` name, or an open dataset.
    band : int
        Counted from 1.
    storage_options : mapping, optional
        For a raster on S3, see :class:`ratzarr.RatZarr`.
    options : ReadOptions
    before : callable
        Called when the raster is open, before GDAL reads the table, which may take minutes.

    Raises
    ------
    RasterNotFoundError
        If the raster or band does not exist, or the band has no table.
    GdalLossError
        If GDAL lost or altered values of the table, unless ``options.lossy``.
    """
    is_open = hasattr(raster, "GetRasterBand")
    with ExitStack() as stack:
        dataset = stack.enter_context(opened(raster, storage_options))
        name = dataset.GetDescription() if is_open else os.fspath(raster)
        found = band_of(dataset, band, name)
        before()
        source = open_source(dataset, found, f"{name}", options)
        source.settings = stack.pop_all()
        return source


def open_source(
    dataset: Any, band: Any, name: str, options: ReadOptions = DEFAULTS
) -> "RatSource":
    """Open the table of an open band; see :func:`open_rat`."""
    table = open_own_table(dataset, band, name, options)
    if table is None:
        raise no_table(dataset, band.GetBand(), name)
    kind = DbfSource if isinstance(table, DbfTable) else RatSource
    return kind(dataset, band, table, name, options)


def bands_with_table(
    raster: Any,
    storage_options: Mapping[str, Any] | None = None,
    options: ReadOptions = DEFAULTS,
) -> list[int]:
    """Return the bands of a raster that have their own attribute table."""
    found = []
    with opened(raster, storage_options) as dataset:
        for number in range(1, dataset.RasterCount + 1):
            band = dataset.GetRasterBand(number)
            table = open_own_table(dataset, band, dataset.GetDescription(), options)
            # Some drivers return a table without columns for every band.
            if table is not None and _column_count(table):
                found.append(number)
            del table, band
    return found


def no_table(
    dataset: Any, band: int, name: str, also: str = "", sidecars: Iterable[int] = ()
) -> RasterNotFoundError:
    """Return the error for a band without a table. It names the bands that have one.

    Parameters
    ----------
    also : str
        Text about other missing tables.
    sidecars : iterable of int
        Bands that have a table beside the raster.
    """
    bands = sorted({*bands_with_table(dataset), *sidecars} - {band})
    text = f"{name}: band {band} has no attribute table{also}"
    if not bands:
        return RasterNotFoundError(
            f"{text}, and no other band has one. To make one from the pixels: gdalbridge build "
            f"{shlex.quote(name)}"
        )
    which = f"band {bands[0]}" if len(bands) == 1 else f"bands {', '.join(map(str, bands))}"
    has = "has" if len(bands) == 1 else "have"
    return RasterNotFoundError(Advice(f"{text}, but {which} {has}.", f"Use band={bands[0]}."))


class RatSource:
    """A band's own table, open for reading, as a context manager.

    Parameters
    ----------
    dataset, band, rat
        The GDAL objects. All are kept while the table is in use, because GDAL frees a table with
        its dataset.
    name : str
        For messages.
    options : ReadOptions

    Attributes
    ----------
    schema : RatSchema
        Without columns if ``rat`` is None.
    """

    def __init__(
        self, dataset: Any, band: Any, rat: Any, name: str, options: ReadOptions = DEFAULTS
    ) -> None:
        self.name, self.options = name, options
        self._dataset, self._band, self._rat = dataset, band, rat
        self.schema = NO_SCHEMA if rat is None else self._described()
        is_native = rat is not None and not isinstance(rat, DbfTable)
        self._safe = is_native and options.block_io and block_io_is_safe(rat)
        self._whole: tuple[int, Array] | None = None
        self._stored: dict[int, StoredColumn] = {}
        self._offsets: dict[int, int | None] = {}
        self.settings = ExitStack()
        """Releases GDAL's settings for the raster when the table is closed."""

    @property
    def rat(self) -> Any:
        """The GDAL table, or the :class:`DbfTable`."""
        return self._rat

    def _described(self) -> RatSchema:
        return schema_of(self._rat, encoding=self.options.encoding)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Turn GDAL's errors into exceptions, and report its other messages."""
        with exceptions(), collected(of_table=True) as found:
            yield
        if found:
            report_messages(found, self.name, self.options)

    @property
    def dataset(self) -> Any:
        """The raster's dataset. Use it only while the table is open."""
        return self._dataset

    def close(self) -> None:
        """Release the table, band and dataset, in this order."""
        self._rat = self._band = self._dataset = self._whole = None
        self.settings.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stored(self, index: int) -> StoredColumn:
        """Return the dtype and attributes for storing a column.

        A date-time column is read for this, block by block, because its dtype depends on whether
        all rows have the same offset.

        Raises
        ------
        ConversionError
            For a type unknown to this version, or date-times that cannot be stored.
        """
        if index not in self._stored:
            self._stored[index] = self._decide(index)
        return self._stored[index]

    def dtype(self, index: int) -> np.dtype[Any]:
        """Return the dtype for storing a column; see :meth:`stored`."""
        return self.stored(index).dtype

    def missing(self, index: int) -> dict[str, Any]:
        """Return the attribute ``missing_value`` of a column, if it has one."""
        return {}

    def expect(self, index: int, stored: StoredColumn) -> None:
        """Assume that a date-time column is stored as it was before, without reading it.

        Each block is checked when it is read. Invalid attributes are ignored: :meth:`stored` then
        reads the column.
        """
        kept = stored.attributes.get(OFFSET_ATTR)
        is_offset = kept is None or (isinstance(kept, int) and abs(kept) < 24 * 60)
        if stored.dtype.kind == "T" and OFFSET_ATTR not in stored.attributes:
            self._offsets[index] = None
        elif stored.dtype.kind == "M" and OFFSET_ATTR in stored.attributes and is_offset:
            self._offsets[index] = datetimes.NAIVE if kept is None else kept

    def _decide(self, index: int) -> StoredColumn:
        column = self.schema.columns[index]
        if column.type not in set(FieldType):
            raise ConversionError(
                f"{self.name}, column {column.name!r}: GDAL's type {column.type} is not known here"
            )
        if column.type >= FieldType.BOOLEAN and not NEW_TYPES:
            # GDAL takes the type from a file written by a newer version, but cannot read the
            # values.
            raise ConversionError(
                f"{self.name}, column {column.name!r}: GDAL before 3.12 can't read "
                f"{type_name(column.type)}"
            )
        attributes: dict[str, Any] = {
            "GDAL_TYPE": column.type,
            "GDAL_TYPE_NAME": type_name(column.type),
            **usage_attributes(column.usage),
        }
        dtype = stored_dtype(column.type)
        if column.type == FieldType.DATETIME:
            if index not in self._offsets:
                self._offsets[index] = self._one_offset(index)
            offset = self._offsets[index]
            if offset is None:
                dtype = stored_dtype(FieldType.STRING)
            else:
                naive = offset == datetimes.NAIVE
                attributes[OFFSET_ATTR] = None if naive else offset
        return StoredColumn(dtype, attributes)

    def _one_offset(self, index: int) -> int | None:
        seen: set[int] = set()
        for start in range(0, self.schema.rows, SCAN_ROWS):
            length = min(SCAN_ROWS, self.schema.rows - start)
            times, offsets = self._datetimes(index, start, length, fine=False)
            seen.update(np.unique(offsets[~np.isnat(times)]).tolist())
            if len(seen) > 1:
                return None
        return seen.pop() if seen else datetimes.NAIVE

    def read(self, index: int, start: int, length: int) -> Array:
        """Read rows of a column in the dtype that stores them.

        Parameters
        ----------
        index : int
            The column's index.
        start, length : int
            The rows; all must be in the table.

        Returns
        -------
        ndarray of shape (length,)

        Raises
        ------
        ConversionError
            For text that is not UTF-8, and date-times that cannot be stored; names the row.
        GdalError
            If GDAL fails.
        """
        if not 0 <= start <= start + length <= self.schema.rows:
            raise BridgeError(
                f"{self.name} has {self.schema.rows} rows: {length} from row {start} are not in it"
            )
        return self._values(index, start, length)

    def _values(self, index: int, start: int, length: int) -> Array:
        dtype = self.stored(index).dtype
        kind = self.schema.columns[index].type
        if length == 0:
            return np.empty(0, dtype)
        if kind == FieldType.STRING:
            pieces = self._text_pieces(index, start, length)
            return self._as_strings(index, start, length, pieces)
        if kind == FieldType.DATETIME:
            times, offsets = self._datetimes(index, start, length, fine=True)
            if dtype.kind == "T":
                return np.array(datetimes.to_text(times, offsets), dtype)
            self._check_offsets(index, start, offsets[~np.isnat(times)])
            return times
        return self.read_raw(index, start, length).astype(dtype, copy=False)

    def read_raw(self, index: int, start: int, length: int) -> Array:
        """Read rows as GDAL's ``ReadAsArray`` returns them, with every version of GDAL."""
        with self._listening():
            return self._raw(index, start, length)

    def _raw(self, index: int, start: int, length: int) -> Array:
        if self._safe or start == 0:
            return self._block(index, start, length)
        kind, rows = self.schema.columns[index].type, range(start, start + length)
        if kind == FieldType.STRING:
            # GDAL would pad the whole column to its longest row.
            texts = [_encoded(self.rat.GetValueAsString(row, index)) for row in rows]
            return np.array(texts or [b""], "S")[:length]
        if length <= CELLS and kind in _GETTERS:
            get = getattr(self.rat, _GETTERS[FieldType(kind)])
            return np.array([get(row, index) for row in rows], stored_dtype(kind))
        # Read the whole column from row 0, and keep it, because the next block will be from the
        # same column.
        if self._whole is None or self._whole[0] != index:
            self._whole = None
            self._whole = (index, self._block(index, 0, self.schema.rows))
        return self._whole[1][start : start + length].copy()

    def _block(self, index: int, start: int, length: int) -> Array:
        found: Array = self._asked(self.rat.ReadAsArray, index, start, length)
        return found

    def _asked(
        self, read: Callable[[int, int, int], Any], index: int, start: int, length: int
    ) -> Any:
        """Return the rows that a function of GDAL's bindings returns."""
        try:
            found = read(index, start, length)
        except (RuntimeError, SystemError, ValueError) as error:
            raise GdalError(f"{self._where(index)}: {error}") from error
        if found is None or len(found) != length:
            raise GdalError(f"{self._where(index)}: GDAL could not read rows from {start}")
        return found

    def _where(self, index: int) -> str:
        return f"{self.name}, column {self.schema.columns[index].name!r}"

    # ---- text

    def read_encoded(self, index: int, start: int, length: int) -> Array:
        """Read rows like :meth:`read`, but leave text as GDAL returns it, if possible.

        Returns
        -------
        ndarray of shape (length,)
            Text is fixed-width bytes and is not validated: the caller must check that it is UTF-8.
            If strings need far less memory, it is strings.
        """
        is_utf8 = self.options.encoding is None
        if self.schema.columns[index].type != FieldType.STRING or not is_utf8:
            return self.read(index, start, length)
        pieces = self._text_pieces(index, start, length)
        width = max((piece.dtype.itemsize for piece in pieces), default=1)
        if width * length > PADDED:
            return self._as_strings(index, start, length, pieces)
        out = np.empty(length, f"S{width}")
        for number, piece in enumerate(pieces):
            out[number * TEXT_ROWS :][: len(piece)] = piece
        return out

    def check_encoded(self, index: int, start: int, values: Array) -> None:
        """Raise an error if text from :meth:`read_encoded` is not UTF-8.

        Raises
        ------
        ConversionError
            Names the row.
        """
        if values.dtype.kind == "S":
            self._decoded(index, start, values.tolist())

    def _text_pieces(self, index: int, start: int, length: int) -> list[Array]:
        """Read text as fixed-width bytes, some rows at a time."""
        # Enter the context once: entering it for each piece would take a tenth of the time.
        with self._listening():
            return [
                self._raw(index, first, min(TEXT_ROWS, start + length - first))
                for first in range(start, start + length, TEXT_ROWS)
            ]

    def _as_strings(self, index: int, start: int, length: int, pieces: list[Array]) -> Array:
        out = np.empty(length, stored_dtype(FieldType.STRING))
        for number, piece in enumerate(pieces):
            first = number * TEXT_ROWS
            rows = out[first : first + len(piece)]
            if self.options.encoding is None or is_ascii(piece):
                # Decoding row by row finds the row of an error.
                with suppress(UnicodeDecodeError, ValueError, TypeError):
                    rows[:] = piece
                    continue
            rows[:] = self._decoded(index, start + first, piece.tolist())
        return out

    def _decoded(self, index: int, start: int, texts: list[Any]) -> list[str]:
        encoding = self.options.encoding or "utf-8"
        found = []
        for row, text in enumerate(texts, start):
            # Newer bindings return bytes, older ones a str with lone surrogates.
            raw = _encoded(text)
            try:
                found.append(raw.decode(encoding))
            except UnicodeDecodeError:
                raise ConversionError(
                    Advice(
                        f"{self._where(index)}, row {row}: {raw!r:.200} is not {encoding.upper()}.",
                        SAY_ENCODING,
                    )
                ) from None
        return found

    # ---- date-times

    def _check_offsets(self, index: int, start: int, offsets: Array) -> None:
        expected = self._offsets[index]
        if len(offsets) and expected is not None and bool((offsets != expected).any()):
            raise ConversionError(
                f"{self._where(index)}, from row {start}: date-times with another offset from UTC "
                "than the column had before: the table was changed"
            )

    def read_native(self, index: int, start: int, length: int) -> Array:
        """Read rows in the dtype that a GDAL table of this column's type accepts."""
        if self.schema.columns[index].type == FieldType.DATETIME:
            return self.read_datetime_text(index, start, length)
        return self.read(index, start, length)

    def read_datetime_text(self, index: int, start: int, length: int) -> Array:
        """Read date-times as :func:`gdalbridge.gdalio.datetimes.text_for_gdal` writes them."""
        column = self.schema.columns[index].name
        times, offsets = self._datetimes(index, start, length, fine=True)
        return datetimes.text_for_gdal(times, offsets, column=column, first_row=start)

    def _datetimes(
        self, index: int, start: int, length: int, *, fine: bool
    ) -> tuple[Array, Array]:
        column = self.schema.columns[index].name
        with self._listening():
            texts = self._datetime_texts(index, start, length)
        times, offsets = datetimes.parse(texts, column=column, first_row=start)
        if fine:
            # Not earlier: datetime objects outside Python's years would fail for the whole block.
            objects = self.read_raw(index, start, length).tolist()
            seconds = np.where(np.isnat(times), 0, times.astype("M8[s]").view("i8"))
            for row in np.flatnonzero(np.abs(seconds) > FAR).tolist():
                # A leap second is a ValueError, and is refused below.
                with suppress(ValueError):
                    objects[row] = self.rat.GetValueAsDateTime(start + row, index)
            times = datetimes.finer(times, objects, texts, column=column, first_row=start)
        return times, offsets

    def _datetime_texts(self, index: int, start: int, length: int) -> list[Any]:
        if not self._safe:
            rows = range(start, start + length)
            return [self.rat.GetValueAsString(row, index) for row in rows]
        texts: list[Any] = self._asked(self.rat.ReadValuesIOAsString, index, start, length)
        return texts


class DbfSource(RatSource):
    """A band's ``.vat.dbf``, open for reading; see :class:`RatSource`."""

    _rat: DbfTable

    def _described(self) -> RatSchema:
        columns = []
        for index in range(len(self._rat)):
            column = self._rat.column(index)
            kind = column.type
            if kind >= FieldType.BOOLEAN and not NEW_TYPES:
                kind = FieldType.INTEGER if kind == FieldType.BOOLEAN else FieldType.STRING
            columns.append(RatColumn(index, column.name, int(kind), int(column.usage)))
        return RatSchema(tuple(columns), self._rat.rows, 0, None)

    def _decide(self, index: int) -> StoredColumn:
        column = self._rat.column(index)
        attributes: dict[str, Any] = {
            "GDAL_TYPE": int(column.type),
            "GDAL_TYPE_NAME": type_name(column.type),
            **usage_attributes(column.usage),
            **column.attributes,
        }
        # Read everything here, so that unreadable values are found before anything is written.
        return StoredColumn(column.values.dtype, attributes)

    def missing(self, index: int) -> dict[str, Any]:
        """See :meth:`RatSource.missing`."""
        found = self._rat.column(index).attributes
        return {key: found[key] for key in (MISSING_ATTR,) if key in found}

    def expect(self, index: int, stored: StoredColumn) -> None:
        """See :meth:`RatSource.expect`."""

    def _values(self, index: int, start: int, length: int) -> Array:
        return self._rat.column(index).values[start : start + length].copy()

    def read_encoded(self, index: int, start: int, length: int) -> Array:
        """See :meth:`RatSource.read_encoded`."""
        return self.read(index, start, length)

    def read_native(self, index: int, start: int, length: int) -> Array:
        """See :meth:`RatSource.read_native`."""
        values = self.read(index, start, length)
        kind = self.schema.columns[index].type
        if kind == FieldType.DATETIME:
            return self.read_datetime_text(index, start, length)
        if kind == FieldType.STRING and values.dtype.kind == "M":
            naive = np.full(length, datetimes.NAIVE, np.int32)
            return np.array(datetimes.to_text(values, naive), stored_dtype(kind))
        try:
            column = self.schema.columns[index].name
            return exact(values, stored_dtype(kind), column=column, first_row=start)
        except RatZarrError as error:
            raise ConversionError(f"{self.name}: {error}") from error

    def _datetimes(
        self, index: int, start: int, length: int, *, fine: bool
    ) -> tuple[Array, Array]:
        values = self.read(index, start, length)
        return values, np.full(length, datetimes.NAIVE, np.int32)


def unique_names(columns: Iterable[RatColumn]) -> dict[int, str]:
    """Return a unique, non-empty name for each column's index.

    GDAL allows duplicate and empty names. If a name must be made up, the attribute ``GDAL_NAME``
    keeps GDAL's own.
    """
    columns = list(columns)
    taken = {column.name for column in columns}
    names: dict[int, str] = {}
    for column in columns:
        name = column.name
        if not name or name in names.values():
            base = name or "column"
            number = column.index + 1 if not name else 2
            name = f"{base} {number}"
            while name in taken or name in names.values():
                number += 1
                name = f"{base} {number}"
        names[column.index] = name
    return names
