"""A raster's ``.vat.dbf``: the attribute table that ArcGIS writes beside a raster.

GDAL 3.11 and later convert it to a table of 32-bit integers, clamp larger values, and turn missing
numbers into 0. This module reads every value as stored. OGR's driver for Shapefiles identifies the
file and its encoding. Records have a fixed width, so numpy extracts the columns directly, at any
size.

Rows are the records without a deletion mark, in file order, as in OGR and GDAL.
"""

import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError, GdalError, GdalLossError, LossWarning
from gdalbridge.gdalio.compat import exceptions, gdal, ogr_exceptions, silence
from gdalbridge.gdalio.datasets import read_file
from gdalbridge.gdalio.field_types import FieldType, FieldUsage
from gdalbridge.gdalio.read_options import SAY_ENCODING, ReadOptions, is_encoding
from ratzarr.errors import Advice
from ratzarr.format import MISSING_ATTR, STRING

__all__ = ["DbfColumn", "DbfTable"]

Array = NDArray[Any]

HEADER, FIELD = 32, 32
"""Size of a file header, and of each field descriptor in it."""
END_OF_FIELDS = 13
INT32_DIGITS = 9
"""Number of digits with which every number is a 32-bit integer."""
NUMERIC, LOGICAL, DATE = b"NF", b"L", b"D"
TEXTUAL = b"CNFLD"
"""Types whose cells are text; those of later versions of dBASE and FoxPro are binary, or name another file."""
DELETED = b"*"
BLANK = b" \x00"
INTEGER = re.compile(rb"[+-]?[0-9]+")
NO_DATE = (b"", b"0", b"00000000")


@dataclass(frozen=True, slots=True)
class Field:
    """A field as described in the file header."""

    name: bytes
    kind: bytes
    offset: int
    width: int
    decimals: int


@dataclass(eq=False)
class DbfColumn:
    """A column of the table."""

    name: str
    type: FieldType
    dtype: np.dtype[Any]
    load: Callable[[], Array]
    """Reads the values; it is called once."""
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def usage(self) -> FieldUsage:
        """The usage that GDAL gives to a field of this name."""
        name = self.name.upper()
        if name == "VALUE":
            return FieldUsage.MIN_MAX
        if name == "COUNT" and self.dtype.kind == "i":
            return FieldUsage.PIXEL_COUNT
        if self.type == FieldType.STRING and (name.startswith("CLASS") or name == "NAME"):
            return FieldUsage.NAME
        return FieldUsage.GENERIC

    @cached_property
    def values(self) -> Array:
        """Every row.

        Raises
        ------
        ConversionError, GdalLossError
            Names the row of an invalid text, number or date.
        """
        return self.load()


class DbfTable:
    """A ``.vat.dbf``, open for reading.

    Parameters
    ----------
    path : str
        The name as passed to GDAL.
    options : ReadOptions

    Raises
    ------
    GdalLossError
        If the file has fewer records than its header states, unless ``options.lossy``.
    GdalError
        If the file is not a dBASE table.
    """

    def __init__(self, path: str, options: ReadOptions) -> None:
        self.path, self._lossy = path, options.lossy
        self._declared = _declared_encoding(path)
        self._encoding = options.encoding or self._declared
        data = _content(path)
        self._fields, start, width, count = _header(path, data)
        there = max(0, min(count, (len(data) - start) // width))
        if there < count:
            self._lose(
                f"{path} is truncated: its header says {count} records, and {there} are whole"
            )
        # A record begins with a blank or, if deleted, an asterisk. After the last one, a file may
        # have an end mark and anything after that.
        behind = start + there * width
        whole = (len(data) - start) // width
        if whole > count and data[behind : behind + 1] in (b" ", DELETED):
            self._lose(
                f"{path}: its header says {count} records, and the file has room for {whole}: GDAL "
                f"reads {count}"
            )
        records = np.frombuffer(data, np.dtype((np.void, width)), there, start)
        self._records = records.view("u1").reshape(there, width)
        deleted = self._records[:, 0] == ord(DELETED) if there else np.zeros(0, bool)
        if deleted.any():
            self._records = self._records[~deleted]
        self.rows = len(self._records)
        self._columns: dict[int, DbfColumn] = {}

    def __len__(self) -> int:
        return len(self._fields)

    def _lose(self, words: str) -> None:
        # Always warn from this line, so that Python shows each warning once.
        if not self._lossy:
            raise GdalLossError(Advice(f"{words}.", "Use lossy=True to read what is left."))
        warnings.warn(words, LossWarning, stacklevel=1)

    def column(self, index: int) -> DbfColumn:
        """Return a column. An unreadable column does not hide the others."""
        if index not in self._columns:
            self._columns[index] = self._described(self._fields[index])
        return self._columns[index]

    def _described(self, one: Field) -> DbfColumn:
        name = self._name(one)
        if one.kind in NUMERIC:
            return self._numbers(name, one)
        if one.kind == DATE and one.width == 8:
            return DbfColumn(
                name,
                FieldType.DATETIME,
                np.dtype("M8[us]"),
                lambda: self._dates(name, one),
                # Dates have no time zone.
                {"UTC_OFFSET_MINUTES": None},
            )
        if one.kind == LOGICAL and one.width == 1:
            return self._logicals(name, one)
        if one.kind not in TEXTUAL:
            return DbfColumn(name, FieldType.STRING, STRING, lambda: self._not_text(name, one))
        return DbfColumn(name, FieldType.STRING, STRING, lambda: self._text(name, one))

    def _not_text(self, name: str, one: Field) -> Array:
        shown = one.kind.decode("latin-1")
        self._lose(
            f"{self.path}, column {name!r}: fields of the type {shown!r} can't be read, only "
            f"{', '.join(TEXTUAL.decode())}"
        )
        return np.zeros(self.rows, STRING)

    def _name(self, one: Field) -> str:
        encoding = self._encoding or "utf-8"
        # A name that cannot be decoded does not hide the other columns.
        return one.name.decode(encoding, "backslashreplace")

    def _cells(self, one: Field) -> Array:
        cells = self._records[:, one.offset : one.offset + one.width]
        return np.ascontiguousarray(cells).view(f"S{one.width}").reshape(-1)

    def _where(self, name: str, row: int) -> str:
        return f"{self.path}, column {name!r}, row {row}"

    # ---- text

    def _text(self, name: str, one: Field) -> Array:
        # Text in a dbf ends at its last non-blank character, or at a zero byte.
        cells = np.strings.rstrip(_until_zero(self._cells(one)), b" ")
        out = np.empty(len(cells), STRING)
        encoding = self._encoding or "utf-8"
        if is_ascii(cells):
            out[:] = cells.astype("U")
            return out
        for row, raw in enumerate(cells.tolist()):
            try:
                out[row] = raw.decode(encoding)
            except UnicodeDecodeError:
                raise ConversionError(
                    Advice(
                        f"{self._where(name, row)}: {raw!r} is not {encoding.upper()}.",
                        SAY_ENCODING,
                    )
                ) from None
        return out

    # ---- numbers

    def _numbers(self, name: str, one: Field) -> DbfColumn:
        cells = np.strings.strip(_until_zero(self._cells(one)), BLANK)
        # dBASE writes asterisks for a number too wide for its field, whose value is lost; GDAL
        # writes them for NULL.
        starred = (np.strings.str_len(cells) > 0) & (np.strings.strip(cells, b"*") == b"")
        if starred.any():
            rows = np.flatnonzero(starred)
            warnings.warn(
                f"{self._where(name, int(rows[0]))}: {len(rows)} values are asterisks, which "
                "stand for NULL or for a number too wide for its field: read as missing",
                LossWarning,
                stacklevel=1,
            )
        missing = starred | (cells == b"")
        if one.decimals == 0 and (values := _integers(cells, missing, one.width)) is not None:
            return _integer_column(name, values, missing)
        filled = np.where(missing, b"nan", cells)
        whole = one.decimals == 0
        return DbfColumn(
            name, FieldType.REAL, np.dtype("f8"), lambda: self._doubles(name, filled, whole)
        )

    def _doubles(self, name: str, cells: Array, whole: bool) -> Array:
        try:
            # Python accepts underscores between digits.
            odd = bool((np.strings.find(cells, b"_") >= 0).any())
            values = None if odd else cells.astype(np.float64)
        except ValueError:
            values = None
        if values is None:
            values = self._doubles_one_by_one(name, cells)
        for row in np.flatnonzero(np.isinf(values)).tolist():
            if any(digit in cells[row] for digit in b"0123456789"):
                self._lose(
                    f"{self._where(name, row)}: {bytes(cells[row])!r} is beyond a 64-bit float"
                )
        if whole:
            self._check_whole(name, cells, values)
        return values

    def _doubles_one_by_one(self, name: str, cells: Array) -> Array:
        values = np.full(len(cells), np.nan)
        for row, raw in enumerate(cells.tolist()):
            try:
                values[row] = float(raw.replace(b"_", b"?"))
            except ValueError:
                self._lose(f"{self._where(name, row)}: {raw!r} is not a number")
        return values

    def _check_whole(self, name: str, cells: Array, values: Array) -> None:
        """Raise an error for integers beyond 64 bits that a double cannot hold."""
        far = np.flatnonzero(np.abs(values) > 2.0**53)
        for row in far.tolist():
            raw = cells[row]
            if INTEGER.fullmatch(raw) and int(values[row]) != int(raw):
                self._lose(
                    f"{self._where(name, row)}: {raw.decode()} has more than 64 bits, and a "
                    "64-bit float can't hold it exactly"
                )

    # ---- dates and logical values

    def _dates(self, name: str, one: Field) -> Array:
        cells = np.strings.strip(_until_zero(self._cells(one)), BLANK)
        known, places = np.unique(cells, return_inverse=True)
        dates = np.full(len(known), "NaT", "M8[us]")
        for number, raw in enumerate(known.tolist()):
            if raw in NO_DATE or not raw.strip(b"*"):
                continue
            text = raw.decode("latin-1")
            try:
                if not (len(raw) == 8 and raw.isdigit()):
                    raise ValueError(text)
                dates[number] = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}", "us")
            except ValueError:
                row = int(np.flatnonzero(places == number)[0])
                self._lose(f"{self._where(name, row)}: {raw!r} is not a date (YYYYMMDD)")
        found: Array = dates[places]
        return found

    def _logicals(self, name: str, one: Field) -> DbfColumn:
        cells = self._cells(one)
        is_true = np.isin(cells, [b"T", b"t", b"Y", b"y"])
        is_false = np.isin(cells, [b"F", b"f", b"N", b"n"])
        if (is_true | is_false).all():
            return DbfColumn(name, FieldType.BOOLEAN, np.dtype(np.bool_), lambda: is_true)
        # Some row is neither true nor false, which bool cannot represent.
        return DbfColumn(name, FieldType.STRING, STRING, lambda: self._text(name, one))


def is_ascii(cells: Array) -> bool:
    """Return True if all fixed-width bytes are ASCII."""
    return not len(cells) or int(np.ascontiguousarray(cells).view("u1").max()) < 128


def _until_zero(cells: Array) -> Array:
    """Truncate each cell at its first zero byte, as GDAL does; numpy drops only trailing ones."""
    width = cells.dtype.itemsize
    letters = cells.view("u1").reshape(-1, width)
    is_text = np.logical_and.accumulate(letters != 0, axis=1)
    return np.where(is_text, letters, np.uint8(0)).view(cells.dtype).reshape(-1)


def _integers(cells: Array, missing: Array, width: int) -> Array | None:
    """Return integers, with 0 for missing ones; None if any is not a 64-bit integer."""
    filled = np.where(missing, b"0", cells)
    # Python's int accepts underscores between digits.
    if not np.strings.isdigit(np.strings.lstrip(filled, b"+-")).all():
        return None
    try:
        values = filled.astype(np.int64)
    except (ValueError, OverflowError):
        return None
    return values.astype(np.int32) if width <= INT32_DIGITS else values


def _integer_column(name: str, values: Array, missing: Array) -> DbfColumn:
    present = values[~missing]
    fits = not len(present) or bool(present.min() >= -(2**31) and present.max() < 2**31)
    attributes: dict[str, Any] = {}
    if missing.any():
        none = _free_value(present, -(2**31) if fits else -(2**63))
        fits = fits and none < 2**31
        values[missing] = none
        attributes[MISSING_ATTR] = none
    kind = FieldType.INTEGER if fits else FieldType.REAL
    return DbfColumn(name, kind, values.dtype, lambda: values, attributes)


def _free_value(present: Array, first: int) -> int:
    """Return the smallest value from ``first`` that does not occur in the column."""
    taken = np.unique(present[present < first + len(present) + 1]).tolist()
    for value in taken:
        if value > first:
            break
        if value == first:
            first += 1
    return first


def _content(path: str) -> bytes:
    data = read_file(path)
    if data is None:
        raise GdalError(f"{path} can't be opened for reading")
    with silence():
        size = gdal.VSIStatL(path).size
    if len(data) != size:
        raise GdalError(f"{path}: {len(data)} of its {size} bytes could be read")
    return data


def _header(path: str, data: bytes) -> tuple[list[Field], int, int, int]:
    """Return the fields, the offset of the records, their width in bytes, and their number."""
    if len(data) < HEADER:
        raise GdalError(f"{path} is truncated: it has {len(data)} bytes, and a header has 32")
    count, start, width = struct.unpack_from("<IHH", data, 4)
    if width < 1 or start < HEADER:
        raise GdalError(f"{path} is not a dBASE table: its header is invalid")
    if len(data) < start:
        raise GdalError(
            f"{path} is truncated: its header has {start} bytes, and the file {len(data)}"
        )
    fields, offset, place = [], 1, HEADER
    while place + FIELD <= start and data[place] != END_OF_FIELDS:
        name, kind, length, decimals = struct.unpack_from("<11sc4xBB", data, place)
        if kind == b"C" and decimals:
            # Long text fields store their width in both bytes.
            length, decimals = length + 256 * decimals, 0
        if length:
            name = name.partition(b"\x00")[0].rstrip(b" ")
            fields.append(Field(name, kind, offset, length, decimals))
        offset += length
        place += FIELD
    if offset > width:
        raise GdalError(f"{path} is not a dBASE table: its fields are wider than its records")
    return fields, start, width, count


def _declared_encoding(path: str) -> str | None:
    """Return the encoding declared by the file or by a ``.cpg`` beside it."""
    with exceptions(), ogr_exceptions(), silence():
        try:
            found = gdal.OpenEx(path, gdal.OF_VECTOR, allowed_drivers=["ESRI Shapefile"])
            said = found.GetLayer(0).GetMetadata("SHAPEFILE") if found is not None else {}
        except RuntimeError:
            # OGR failed; parsing the header here explains why.
            return None
    for key in ("ENCODING_FROM_CPG", "ENCODING_FROM_LDID"):
        name = said.get(key)
        if name is None:
            continue
        iso = re.fullmatch(r"ISO[ _-]?8859[ _-]?([0-9]+)", name, re.I)
        page = re.fullmatch(r"(?:ANSI|OEM|CP|WINDOWS)?[ _-]?([0-9]{3,5})", name, re.I)
        name = f"iso-8859-{iso[1]}" if iso else f"cp{page[1]}" if page else name
        # An unknown encoding counts as none: text beyond ASCII is refused.
        return name.lower() if is_encoding(name) else None
    return None
