"""A table as the vector driver shows it: fields of GDAL's types, and blocks of rows as bytes.

Every value is exact, or refused with an error that names its column and row. GDAL's vector model
has no list types: a column with several values per row is shown as ``name[0]``, ``name[1]``, ...
Missing values are NULL: the value in a column's ``missing_value``, NaT, an empty WKB geometry, and
rows beyond the end of a short column. NaN is a number.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ColumnSelectionError, ConversionError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.rat_reader import OFFSET_ATTR
from gdalbridge.ogr.prefilter import ROW, Test, Values, parsed
from gdalbridge.sidecars.merged import Column, open_columns
from ratzarr.format import Block
from ratzarr.interop import is_missing
from ratzarr.pipeline import ReadAhead, run

__all__ = ["Frame", "Layer"]

Array = NDArray[Any]

FIRST_ROWS = 1000
"""Rows of a scan's first block. Nothing is read ahead before a program has asked for a second."""
FRAME_ROWS = 32_768
"""Rows that are sent together."""
BLOCK_BYTES = 32 * 2**20
"""Approximate memory of a block, which is read at once: a chunk, or a part of a large one."""
TEXT_BYTES = 32
"""Assumed bytes of a text."""
READERS = 2

_CODES = {
    "b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q",
    "f4": "f", "f8": "d",
}  # fmt: skip
"""Codes of numbers, as in Python's struct."""
_TYPES = {
    "b1": "Boolean", "i1": "Integer16", "u1": "Integer16", "i2": "Integer16", "u2": "Integer",
    "i4": "Integer", "u4": "Integer64", "i8": "Integer64", "u8": "Integer64", "f2": "Float",
    "f4": "Float", "f8": "Real",
}  # fmt: skip
_SECONDS = frozenset({"h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"})
"""Units of date-times with a time."""
_TICKS = {"us": 10**3, "ns": 10**6, "ps": 10**9, "fs": 10**12, "as": 10**15}
"""A millisecond in each of the finer units."""
_LARGEST = np.uint64(2**63 - 1)


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows, encoded. ``header`` says how ``payload`` is to be read."""

    header: Mapping[str, Any]
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    """Its name in GDAL."""
    column: Column
    type: str
    """Its type in GDAL."""
    as_text: bool
    dtype: np.dtype[Any]

    @property
    def kind(self) -> str:
        """How its comparisons are understood; see :func:`gdalbridge.ogr.prefilter.parsed`."""
        if self.as_text:
            return "other"
        return {"i": "number", "u": "number", "f": "number", "T": "text"}.get(
            self.dtype.kind, "other"
        )

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize + (TEXT_BYTES if self.dtype.kind in "TO" else 0)

    def read(self, block: Block) -> Values:
        """Return the values of a block, and which of them are missing."""
        column, length = self.column, block.length
        there = max(0, min(length, column.rows - block.start))
        values = column.read(block.start, there) if there else np.empty(0, self.dtype)
        missing = None
        kept = column.missing_value()
        if kept is not None:
            missing = is_missing(values, kept)
        if values.dtype.kind == "M":
            missing = _either(missing, np.isnat(values))
        elif column.empty_is_missing:
            empty = np.fromiter((not one for one in values), np.bool_, len(values))
            missing = _either(missing, empty)
        if there < length:
            missing = np.zeros(there, np.bool_) if missing is None else missing
            missing = np.pad(missing, (0, length - there), constant_values=True)
            filler: Array = np.zeros(length - there, values.dtype)
            if values.dtype.kind == "O":
                filler[:] = b""
            values = np.concatenate([values, filler])
        if missing is not None and not missing.any():
            missing = None
        return values, missing

    def encode(self, values: Array, missing: NDArray[np.bool_] | None, rows: Array) -> Any:
        """Return the code and the bytes of values. ``rows`` are their numbers, for messages."""
        kind = values.dtype.kind
        if kind == "M":
            return "text", self._dates(values, missing, rows)
        if kind == "T":
            return "text", self._text(values.tolist(), rows)
        if kind in "OS":
            items = [bytes(one) for one in values.tolist()]
            lengths = np.fromiter(map(len, items), np.int64, len(items))
            return "bytes", lengths.tobytes() + b"".join(items)
        if self.as_text:
            return "text", "\0".join(map(str, values.tolist())).encode()
        if values.dtype == np.uint64:
            values = self._signed(values, missing, rows)
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return _CODES[values.dtype.str[1:]], values.tobytes()

    def _text(self, texts: list[str], rows: Array) -> bytes:
        joined = "\0".join(texts)
        if joined.count("\0") != max(0, len(texts) - 1):
            place = next(number for number, text in enumerate(texts) if "\0" in text)
            raise ConversionError(
                f"column {self.column.name!r}, row {rows[place]}: {texts[place]!r:.100} contains a "
                "zero character, at which GDAL would end the text"
            )
        return joined.encode()

    def _signed(self, values: Array, missing: NDArray[np.bool_] | None, rows: Array) -> Array:
        large = values > _LARGEST
        if missing is not None:
            large &= ~missing
        if large.any():
            place = int(np.argmax(large))
            raise ConversionError(
                f"column {self.column.name!r}, row {rows[place]}: {values[place]} is larger than "
                "GDAL's largest integer, 9223372036854775807. Show the column as text: "
                f"?text={self.column.name}"
            )
        return values.astype(np.int64)

    def _dates(self, values: Array, missing: NDArray[np.bool_] | None, rows: Array) -> bytes:
        if self.as_text:
            return b"\0".join(datetimes.write(values).tolist())
        shown, zone = values, b""
        east = self.column.attributes.get(OFFSET_ATTR)
        if isinstance(east, int) and self.type == "DateTime":
            shown = values + np.timedelta64(east, "m")
            zone = b"%c%02d:%02d" % (b"-+"[east >= 0], *divmod(abs(east), 60))
        wrong = datetimes.outside(shown)
        unit, step = np.datetime_data(shown.dtype)
        if unit in _TICKS:
            # As integers: numpy can't compare all units.
            wrong |= shown.view(np.int64) % (_TICKS[unit] // math.gcd(_TICKS[unit], step)) != 0
        if missing is not None:
            wrong &= ~missing
        if wrong.any():
            place = int(np.argmax(wrong))
            raise ConversionError(
                f"column {self.column.name!r}, row {rows[place]}: {values[place]} is finer than a "
                "millisecond or outside the years 1 to 9999, which GDAL's date-times can't hold. "
                f"Show the column as text: ?text={self.column.name}"
            )
        if self.type == "Date":
            return b"\0".join(datetimes.write(shown.astype("M8[D]")).tolist())
        found = datetimes.write(shown.astype("M8[ms]")).tolist()
        return b"\0".join([one.replace(b"T", b" ") + zone for one in found])


def _either(first: NDArray[np.bool_] | None, second: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return second if first is None else first | second


class Layer:
    """An open table.

    Parameters
    ----------
    name : str
        A raster or a store, as in :func:`gdalbridge.sidecars.merged.open_columns`.
    options : mapping
        ``columns``: names with commas between them, by default all columns; ``text``: names of
        columns of integers or date-times to show as text; ``band``: a number. A comma in a name is
        written ``%2C``.

    Raises
    ------
    ColumnSelectionError, BridgeError
        If a column or the band can't be shown.
    """

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        if not name:
            raise BridgeError("the name of a table is missing: RATZARR:seg.tif")
        band = options.get("band", "1")
        if not band.isdecimal() or band == "0":
            raise BridgeError(f"band {band!r} of {name}: expected a number from 1")
        wanted, text = _listed(options.get("columns")), _listed(options.get("text")) or []
        self._columns = open_columns(name, band=int(band))
        try:
            chosen = self._columns.chosen(wanted)
            if wanted is not None and len(set(wanted)) < len(wanted):
                raise ColumnSelectionError(f"{name}: a column is named twice in {wanted}")
            for one in text:
                if one not in [column.name for column in chosen]:
                    raise ColumnSelectionError(f"{name}: text={one} names no column that is shown")
            self.rows = self._columns.rows
            taken: set[str] = set()
            self._fields = [_field(one, one.name in text, taken, name) for one in chosen]
        except BaseException:
            self.close()
            raise
        self.fid_name = _unlike("row", "_row", taken)
        self.chunk_rows = max((one.column.chunk_rows for one in self._fields), default=FRAME_ROWS)

    @property
    def fields(self) -> list[dict[str, str]]:
        """The fields, as GDAL's drivers describe them."""
        return [{"name": one.name, "type": one.type} for one in self._fields]

    @property
    def schema(self) -> str:
        """A digest of the fields and the number of rows."""
        text = json.dumps([self.fields, self.rows, self.fid_name])
        return hashlib.sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """Close the table."""
        self._columns.__exit__(None, None, None)

    def page(self, row: int, rows: int) -> Frame:
        """Return some rows."""
        block = Block(row, max(0, min(rows, self.rows - row)))
        frames = self._read(block, None)
        return frames[0]

    def frames(self, row: int, condition: str) -> Iterator[Frame]:
        """Yield the rows from ``row`` on that may fulfil a filter; some frames are empty."""
        kinds = {one.name: one.kind for one in self._fields}
        test = parsed(condition, kinds, self.fid_name) if condition else None
        first = next(iter(self._blocks(row, FIRST_ROWS)), None)
        if first is None:
            return
        frames = self._read(first, test)
        yield from frames
        count = sum(frame.header["count"] for frame in frames) or 1
        row_bytes = sum(len(frame.payload) for frame in frames) // count
        # The sum of what is known, where the first rows were all left out or short.
        row_bytes = max(1, row_bytes, sum(one.row_bytes for one in self._fields))
        rest = self._blocks(first.stop, BLOCK_BYTES // row_bytes)
        # GDAL supports one thread at a time.
        threads = 1 if self._columns.has_own else READERS
        reading = ReadAhead(rest, lambda block: self._read(block, test), threads=threads)
        with closing(reading):
            for _, frames in reading:
                yield from frames

    def _blocks(self, row: int, most: int) -> Iterator[Block]:
        """Yield blocks of at most so many rows, which do not cross the ends of chunks."""
        parts = -(-self.chunk_rows // max(1, most))
        step = -(-self.chunk_rows // parts)
        while row < self.rows:
            chunk_end = (row // self.chunk_rows + 1) * self.chunk_rows
            stop = min(row + step, chunk_end, self.rows)
            yield Block(row, stop - row)
            row = stop

    def _read(self, block: Block, test: Test | None) -> list[Frame]:
        """Return the rows of a block that may fulfil a filter; at least one frame."""
        read: dict[str, Values] = {ROW: (np.arange(block.start, block.stop), None)}
        by_name = {one.name: one for one in self._fields}

        def values_of(name: str) -> Values:
            if name not in read:
                values, missing = by_name[name].read(block)
                if values.dtype == np.uint64:
                    rows, _ = read[ROW]
                    values = by_name[name]._signed(values, missing, rows)
                read[name] = values, missing
            return read[name]

        mask = None if test is None else test(values_of)
        rows, _ = read[ROW]
        if mask is not None and not mask.all():
            rows = rows[mask]
        else:
            mask = None
        if not len(rows):
            return [_empty(block)]
        others = [one for one in self._fields if one.name not in read]
        found = run([_task(one, block) for one in others])
        read |= {one.name: values for one, values in zip(others, found, strict=True)}
        shown = {
            name: values if mask is None else _chosen(values, mask)
            for name, values in read.items()
            if name != ROW
        }
        frames = []
        for first in range(0, len(rows), FRAME_ROWS):
            part = slice(first, first + FRAME_ROWS)
            is_last = first + FRAME_ROWS >= len(rows)
            after = block.stop if is_last else int(rows[first + FRAME_ROWS])
            frames.append(self._frame(rows[part], shown, part, after))
        return frames

    def _frame(self, rows: Array, read: Mapping[str, Values], part: slice, after: int) -> Frame:
        parts: list[bytes] = []
        ids = 0
        if rows[-1] - rows[0] + 1 != len(rows):
            parts.append(rows.astype(np.int64, copy=False).tobytes())
            ids = len(parts[0])
        columns = []
        for field in self._fields:
            values, missing = read[field.name]
            values, missing = values[part], None if missing is None else missing[part]
            code, data = field.encode(values, missing, rows)
            nulls = b"" if missing is None else np.flatnonzero(missing).astype(np.int32).tobytes()
            columns.append((code, len(data), len(nulls)))
            parts += [data, nulls]
        header = {
            "first": int(rows[0]), "count": len(rows), "ids": ids, "columns": columns,
            "next": after,
        }  # fmt: skip
        return Frame(header, b"".join(parts))


def _empty(block: Block) -> Frame:
    header = {"first": block.start, "count": 0, "ids": 0, "columns": [], "next": block.stop}
    return Frame(header, b"")


def _task(field: _Field, block: Block) -> Callable[[], Values]:
    return lambda: field.read(block)


def _chosen(values: Values, mask: NDArray[np.bool_]) -> Values:
    found, missing = values
    return found[mask], None if missing is None else missing[mask]


def _listed(text: str | None) -> list[str] | None:
    """Return the names in an option; None if it is not given."""
    return None if text is None else [unquote(name) for name in text.split(",")]


def _field(column: Column, as_text: bool, taken: set[str], table: str) -> _Field:
    dtype = column.dtype
    if as_text and dtype.kind not in "iuM":
        raise ColumnSelectionError(
            f"{table}: column {column.name!r} has the dtype {dtype}; only integers and date-times "
            "can be shown as text"
        )
    if as_text or dtype.kind == "T":
        kind = "String"
    elif dtype.kind in "OS":
        kind = "Binary"
    elif dtype.kind == "M":
        kind = "DateTime" if np.datetime_data(dtype)[0] in _SECONDS else "Date"
    else:
        kind = _TYPES[dtype.str[1:]]
    return _Field(_unlike(column.name, column.name, taken), column, kind, as_text, dtype)


def _unlike(name: str, other: str, taken: set[str]) -> str:
    """Return a name that differs from all others by more than the case of letters, as in GDAL.

    GDAL would end it at a zero character, so there it has an underscore.
    """
    name, other = name.replace("\0", "_"), other.replace("\0", "_")
    found, number = name, 2
    while not found or found.lower() in taken:
        found = other if name != other and number == 2 else f"{other}_{number}"
        number += 1
    taken.add(found.lower())
    return found
