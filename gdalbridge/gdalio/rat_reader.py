"""The one door to GDAL's raster attribute tables: reading, block by block.

Everything here avoids what is unsafe or loses values in one GDAL version or another:
a table outlives neither band nor dataset, blocks that begin after row 0 are only read
where that version reads the right memory, text is read in pieces whose size in bytes is
bounded, date-times go through text.

A source is used by one thread at a time; that need not be the one that opened it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError, GdalError, RasterNotFoundError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.compat import NEW_TYPES, VERSION, block_io_is_safe, exceptions
from gdalbridge.gdalio.datasets import band_of, opened
from gdalbridge.gdalio.field_types import FieldType, stored_dtype, type_name, usage_attributes
from gdalbridge.gdalio.messages import collected, report
from gdalbridge.gdalio.own_table import open_own_table
from gdalbridge.gdalio.read_options import DEFAULTS, SAY_ENCODING, ReadOptions
from gdalbridge.gdalio.vat_dbf import DbfTable, is_ascii
from ratzarr.errors import Advice

__all__ = [
    "RatColumn",
    "RatSchema",
    "RatSource",
    "StoredColumn",
    "bands_with_table",
    "dbf_schema",
    "no_table",
    "open_rat",
    "open_source",
    "schema_of",
    "unique_names",
]

Array = NDArray[Any]

TEXT_ROWS = 1024
"""Rows of text read at once: GDAL pads them all to the longest, and some are very long."""
PADDED = 64 * 2**20
"""Bytes that a block of text may take when all of it is padded to its longest."""
OFFSET_ATTR = "UTC_OFFSET_MINUTES"
SCAN_ROWS = 100_000
"""Rows of date-times looked at at once for their offsets."""
FAR = 2**32 - 2 * 86_400
"""Seconds from 1970 (to 1834 and 2105) beyond which blocks of date-times are not exact.

GDAL's bindings make them from one double of seconds: in the year 1 they are 4 microseconds
off, in 9999 16. Asked for cell by cell, which is far slower, they are exact."""


@dataclass(frozen=True, slots=True)
class RatColumn:
    """A column as GDAL describes it."""

    index: int
    name: str
    type: int
    """Number of GDAL's type."""
    usage: int
    """Number of GDAL's usage; ones that GDAL does not know are legal."""


@dataclass(frozen=True, slots=True)
class RatSchema:
    """A table as GDAL describes it."""

    columns: tuple[RatColumn, ...]
    rows: int
    table_type: int | None
    """0 thematic, 1 athematic."""
    linear_binning: tuple[float, float] | None
    """(minimum of row 0, bin size), where the table has it."""


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """How a column is stored."""

    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]


def schema_of(rat: Any, *, any_name: bool = False, encoding: str | None = None) -> RatSchema:
    r"""Describe a RAT of GDAL's.

    Parameters
    ----------
    rat
        GDAL's.
    any_name : bool
        Hand out names that are not of the encoding as GDAL's bindings do: with halves of
        surrogate pairs. By default their bytes are escaped (``\xe9``).
    encoding : str, optional
        Of the names; by default UTF-8.
    """
    count = rat.GetColumnCount()
    columns = tuple(
        RatColumn(
            index,
            _raw(rat.GetNameOfCol(index)).decode(
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


def dbf_schema(table: DbfTable) -> RatSchema:
    """Describe a ``.vat.dbf`` as the table that GDAL could make of it."""
    columns = []
    for index in range(len(table)):
        column = table.column(index)
        kind = column.type
        if kind >= FieldType.BOOLEAN and not NEW_TYPES:
            kind = FieldType.INTEGER if kind == FieldType.BOOLEAN else FieldType.STRING
        columns.append(RatColumn(index, column.name, int(kind), int(column.usage)))
    return RatSchema(tuple(columns), table.rows, 0, None)


def _column_count(table: Any) -> int:
    return len(table) if isinstance(table, DbfTable) else int(table.GetColumnCount())


def _raw(text: Any) -> bytes:
    """Return the bytes of what GDAL's bindings hand out: bytes, or a str with surrogates."""
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def open_rat(
    raster: Any,
    band: int = 1,
    storage_options: Mapping[str, Any] | None = None,
    options: ReadOptions = DEFAULTS,
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

    Raises
    ------
    RasterNotFoundError
        Where there is no such raster or band, or the band has no table.
    GdalLossError
        Where GDAL lost or altered values of the table, unless ``options.lossy``.
    """
    is_open = hasattr(raster, "GetRasterBand")
    with ExitStack() as stack:
        dataset = stack.enter_context(opened(raster, storage_options))
        name = dataset.GetDescription() if is_open else os.fspath(raster)
        source = open_source(dataset, band_of(dataset, band, name), f"{name}", options)
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
    """Return the bands of a raster that have an attribute table of their own."""
    found = []
    with opened(raster, storage_options) as dataset:
        for number in range(1, dataset.RasterCount + 1):
            band = dataset.GetRasterBand(number)
            table = open_own_table(dataset, band, dataset.GetDescription(), options)
            # Some drivers hand out a table without columns for every band.
            if table is not None and _column_count(table):
                found.append(number)
            del table, band
    return found


def no_table(dataset: Any, band: int, name: str, also: str = "") -> RasterNotFoundError:
    """Return the error for a band without a table: it names the bands that have one.

    Parameters
    ----------
    also : str
        What else there is not.
    """
    bands = bands_with_table(dataset)
    text = f"{name}: band {band} has no attribute table{also}"
    if not bands:
        return RasterNotFoundError(
            f"{text}, and no other band has one. QGIS (Create Raster Attribute Table), GDAL's "
            f"Band.SetDefaultRAT and ratzarr.RatZarr({name + '.rat.zarr'!r}) make one."
        )
    which = f"band {bands[0]}" if len(bands) == 1 else f"bands {', '.join(map(str, bands))}"
    has = "has" if len(bands) == 1 else "have"
    return RasterNotFoundError(Advice(f"{text}, but {which} {has}.", f"Use band={bands[0]}."))


class RatSource:
    """A band's own table, for reading. A context manager.

    Parameters
    ----------
    dataset, band, rat
        GDAL's; all are kept for as long as the table is in use, as GDAL frees a table
        with its dataset.
    name : str
        For messages.
    options : ReadOptions
    """

    def __init__(
        self, dataset: Any, band: Any, rat: Any, name: str, options: ReadOptions = DEFAULTS
    ) -> None:
        self.name, self._options = name, options
        self._dataset, self._band, self._rat = dataset, band, rat
        self.schema = self._described()
        by_blocks = options.block_io and not isinstance(rat, DbfTable)
        self._safe = by_blocks and block_io_is_safe(rat)
        self._whole: tuple[int, Array] | None = None
        self._stored: dict[int, StoredColumn] = {}
        self._offsets: dict[int, int | None] = {}
        self.settings = ExitStack()
        """GDAL's settings that reach the raster; undone when the table is closed."""

    def _described(self) -> RatSchema:
        return schema_of(self._rat, encoding=self._options.encoding)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Turn GDAL's errors into exceptions, and pass on what else it reports."""
        with exceptions(), collected(of_table=True) as found:
            yield
        if found:
            report(found, self.name, lossy=self._options.lossy)

    @property
    def dataset(self) -> Any:
        """The raster; only to be used while the table is."""
        return self._dataset

    def close(self) -> None:
        """Let go of table, band and dataset, in that order."""
        self._rat = self._band = self._dataset = self._whole = None
        self.settings.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stored(self, index: int) -> StoredColumn:
        """Return how a column is stored: its dtype and attributes.

        A column of date-times is read for this, block by block, as its dtype depends on
        whether all of them have one offset.

        Raises
        ------
        ConversionError
            For a type that this version does not know, or date-times that can't be kept.
        """
        if index not in self._stored:
            self._stored[index] = self._decide(index)
        return self._stored[index]

    def missing(self, index: int) -> dict[str, Any]:
        """Return the attribute ``missing_value`` of a column that has one."""
        return {}

    def expect(self, index: int, stored: StoredColumn) -> None:
        """Take a column of date-times to be stored as it was before, without reading it.

        Each block is checked as it is read. What can't be understood is passed over: then
        :meth:`stored` reads the column.
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
        if column.type >= FieldType.BOOLEAN and VERSION < (3, 12):
            # It takes the number from a file that a newer version wrote, and reads nothing.
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
        """Read rows of a column, in the dtype they are stored as.

        Parameters
        ----------
        index : int
            The column's.
        start, length : int
            Rows; all of them in the table.

        Returns
        -------
        ndarray of shape (length,)

        Raises
        ------
        ConversionError
            For text that is not UTF-8, and date-times that can't be kept: names the row.
        GdalError
            Where GDAL fails.
        """
        if not 0 <= start <= start + length <= self.schema.rows:
            raise BridgeError(
                f"{self.name} has {self.schema.rows} rows: {length} from row {start} are not in it"
            )
        dtype = self.stored(index).dtype
        kind = self.schema.columns[index].type
        if length == 0:
            return np.empty(0, dtype)
        if kind == FieldType.STRING:
            return self._strings(index, start, length)
        if kind == FieldType.DATETIME:
            times, offsets = self._datetimes(index, start, length, fine=True)
            if dtype.kind == "T":
                return np.array(datetimes.to_text(times, offsets), dtype)
            self._check_offsets(index, start, offsets[~np.isnat(times)])
            return times
        return self._array(index, start, length).astype(dtype, copy=False)

    def _array(self, index: int, start: int, length: int) -> Array:
        if self._safe:
            return self._ask(index, start, length)
        # The whole column, from row 0; kept, as the next block will be of the same one.
        if self._whole is None or self._whole[0] != index:
            self._whole = None
            self._whole = (index, self._ask(index, 0, self.schema.rows))
        return self._whole[1][start : start + length].copy()

    def _ask(self, index: int, start: int, length: int) -> Array:
        with self._listening():
            return self._asked(index, start, length)

    def _asked(self, index: int, start: int, length: int) -> Array:
        try:
            values = self._rat.ReadAsArray(index, start, length)
        except (RuntimeError, SystemError, ValueError) as error:
            raise GdalError(f"{self._where(index)}: {error}") from error
        if values is None or len(values) != length:
            raise GdalError(f"{self._where(index)}: GDAL could not read rows from {start}")
        found: Array = values
        return found

    def _where(self, index: int) -> str:
        return f"{self.name}, column {self.schema.columns[index].name!r}"

    # ---- text

    def read_encoded(self, index: int, start: int, length: int) -> Array:
        """Read rows as :meth:`read` does, but text, where it can be, as it comes from GDAL.

        Returns
        -------
        ndarray of shape (length,)
            For text of fixed-width bytes, not looked at: whoever stores them has to see that
            they are UTF-8. Of strings where these would be far smaller.
        """
        is_utf8 = self._options.encoding is None
        if self.schema.columns[index].type != FieldType.STRING or not (self._safe and is_utf8):
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
        """Refuse text from :meth:`read_encoded` that is not UTF-8.

        Raises
        ------
        ConversionError
            Names the row.
        """
        if values.dtype.kind == "S":
            self._check_text(index, start, values.tolist())

    def _strings(self, index: int, start: int, length: int) -> Array:
        if self._safe:
            pieces = self._text_pieces(index, start, length)
            return self._as_strings(index, start, length, pieces)
        # As a whole column they would all be padded to the longest: cell by cell.
        texts = [self._rat.GetValueAsString(row, index) for row in range(start, start + length)]
        if self._options.encoding is not None:
            return np.array(self._decoded(index, start, texts), stored_dtype(FieldType.STRING))
        try:
            # A bytes object among them would go in as its repr.
            if set(map(type, texts)) == {str}:
                return np.array(texts, stored_dtype(FieldType.STRING))
        except UnicodeEncodeError:
            pass
        self._check_text(index, start, texts)
        raise ConversionError(f"{self._where(index)}, from row {start}: not text")

    def _text_pieces(self, index: int, start: int, length: int) -> list[Array]:
        """Read text as fixed-width bytes, some rows at a time."""
        # Once for all of them: entered for each, it would take a tenth of the time.
        with self._listening():
            return [
                self._asked(index, first, min(TEXT_ROWS, start + length - first))
                for first in range(start, start + length, TEXT_ROWS)
            ]

    def _as_strings(self, index: int, start: int, length: int, pieces: list[Array]) -> Array:
        out = np.empty(length, stored_dtype(FieldType.STRING))
        for number, piece in enumerate(pieces):
            first = number * TEXT_ROWS
            if self._options.encoding is not None and not is_ascii(piece):
                out[first : first + len(piece)] = self._decoded(
                    index, start + first, piece.tolist()
                )
                continue
            try:
                out[first : first + len(piece)] = piece
            except (UnicodeDecodeError, ValueError, TypeError):
                self._check_text(index, start + first, piece.tolist())
                raise
        return out

    def _texts(self, index: int, start: int, length: int) -> list[Any]:
        with self._listening():
            try:
                texts: list[Any] | None = self._rat.ReadValuesIOAsString(index, start, length)
            except (RuntimeError, SystemError, ValueError) as error:
                raise GdalError(f"{self._where(index)}: {error}") from error
        if texts is None or len(texts) != length:
            raise GdalError(f"{self._where(index)}: GDAL could not read rows from {start}")
        return texts

    def _check_text(self, index: int, start: int, texts: list[Any]) -> None:
        """Refuse what GDAL's bindings make of bytes that are not of the encoding."""
        self._decoded(index, start, texts)

    def _decoded(self, index: int, start: int, texts: list[Any]) -> list[str]:
        encoding = self._options.encoding or "utf-8"
        found = []
        for row, text in enumerate(texts, start):
            # Bytes, in newer versions; in older ones a str with halves of surrogate pairs.
            raw = _raw(text)
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
                f"{self._where(index)}, from row {start}: date-times whose offset from UTC is "
                "another than the rest of the column had: the table was changed"
            )

    def read_native(self, index: int, start: int, length: int) -> Array:
        """Read rows as a table of GDAL's takes them, in the column's type there."""
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
        if self._safe:
            texts = self._texts(index, start, length)
        else:
            texts = [
                self._rat.GetValueAsString(row, index) for row in range(start, start + length)
            ]
        times, offsets = datetimes.parse(texts, column=column, first_row=start)
        if fine:
            # Only now: objects of years that Python does not have would fail the block.
            objects = self._array(index, start, length).tolist()
            seconds = np.where(np.isnat(times), 0, times.astype("M8[s]").view("i8"))
            for row in np.flatnonzero(np.abs(seconds) > FAR).tolist():
                # A leap second is a ValueError, and refused below.
                with suppress(ValueError):
                    objects[row] = self._rat.GetValueAsDateTime(start + row, index)
            times = datetimes.finer(times, offsets, objects, texts, column=column, first_row=start)
        return times, offsets


class DbfSource(RatSource):
    """A band's ``.vat.dbf``, for reading; see :class:`RatSource`."""

    _rat: DbfTable

    def _described(self) -> RatSchema:
        return dbf_schema(self._rat)

    def _decide(self, index: int) -> StoredColumn:
        column = self._rat.column(index)
        attributes: dict[str, Any] = {
            "GDAL_TYPE": int(column.type),
            "GDAL_TYPE_NAME": type_name(column.type),
            **usage_attributes(column.usage),
            **column.attributes,
        }
        # What can't be read is found out here, before anything is written.
        return StoredColumn(column.values.dtype, attributes)

    def missing(self, index: int) -> dict[str, Any]:
        """See :meth:`RatSource.missing`."""
        found = self._rat.column(index).attributes
        return {key: found[key] for key in ("missing_value",) if key in found}

    def expect(self, index: int, stored: StoredColumn) -> None:
        """See :meth:`RatSource.expect`."""

    def read(self, index: int, start: int, length: int) -> Array:
        """See :meth:`RatSource.read`."""
        if not 0 <= start <= start + length <= self.schema.rows:
            raise BridgeError(
                f"{self.name} has {self.schema.rows} rows: {length} from row {start} are not in it"
            )
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
        if kind == FieldType.REAL and values.dtype.kind == "i":
            doubles = values.astype(np.float64)
            for row in np.flatnonzero(np.abs(doubles) >= 2.0**53).tolist():
                if int(doubles[row]) != int(values[row]):
                    raise ConversionError(
                        f"{self._where(index)}, row {start + row}: {values[row]} is not exact in "
                        "GDAL's Real, and its Integer has 32 bits"
                    )
            return doubles
        if kind == FieldType.STRING and values.dtype.kind == "M":
            naive = np.full(length, datetimes.NAIVE, np.int32)
            return np.array(datetimes.to_text(values, naive), stored_dtype(kind))
        return values.astype(stored_dtype(kind), copy=False)

    def _datetimes(
        self, index: int, start: int, length: int, *, fine: bool
    ) -> tuple[Array, Array]:
        values = self.read(index, start, length)
        return values, np.full(length, datetimes.NAIVE, np.int32)


def unique_names(columns: Iterable[RatColumn]) -> dict[int, str]:
    """Return a name for each column's index, no two the same and none empty.

    GDAL allows both; where a name has to be made up, GDAL's own is kept in the
    attribute ``GDAL_NAME``.
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
