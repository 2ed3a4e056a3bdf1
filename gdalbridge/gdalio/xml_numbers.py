"""Find rows and numbers of an attribute table in XML that GDAL's parser silently loses or alters.

A row with the index of another row overwrites it; a row without an index overwrites row 0.
GDAL reads a cell up to its first non-digit, wraps or clamps integers of more than 32 bits, and
from 3.13 reads ``-nan`` as 0. This module scans the XML again, block by block. A regular
expression recognises rows of plain numbers in a tenth of the time of GDAL's own parsing. Other
rows are parsed, and GDAL's value of each number is compared with the text.
"""

import math
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import numpy as np

from gdalbridge.gdalio.compat import exceptions, gdal, silence
from gdalbridge.gdalio.datasets import siblings_visible
from gdalbridge.gdalio.field_types import FieldType, type_name

__all__ = ["altered_numbers"]

BLOCK_BYTES = 4 * 2**20
MAX_FOUND = 100
"""Largest number of altered values that are reported."""

_BAND = re.compile(rb"<(?:PAM|VRT)RasterBand\b[^>]*?\bband\s*=\s*[\"'](\d+)[\"'][^>]*>")
_MARKS = re.compile(rb"<(?:PAM|VRT)RasterBand\b[^>]*>|<GDALRasterAttributeTable\b[^>]*>")
_FIRST_ROW = re.compile(rb"<Row\b|</GDALRasterAttributeTable>")
_END = re.compile(rb"\s*</GDALRasterAttributeTable>")
_ANY = rb"[^<]*+"
_INDEX = re.compile(rb"<Row\b[^>]*?\bindex\s*=\s*[\"']\s*([0-9]{1,18})\s*[\"']")
# Less than 32 bits, and less than the 53 of a Real, for any digits. [0-9] is twice as fast as a
# category.
_PLAIN = {
    FieldType.INTEGER: rb"[+-]?+[0-9]{1,9}+",
    FieldType.REAL: (
        rb"(?:[+-]?+[0-9]{1,15}+(?:\.[0-9]*+)?+(?:[eE][+-]?+[0-9]{1,2}+)?+|nan|-?+inf)"
    ),
}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NAN = re.compile(r"[+-]?(?:nan(?:\(\w*\))?|1\.#(?:QNAN|SNAN|IND)[0-9]*)", re.I)
_INFINITE = re.compile(r"[+-]?(?:inf(?:inity)?|1\.#INF[0-9]*)", re.I)


def altered_numbers(path: str, band: int, columns: Sequence[tuple[str, int]]) -> list[str]:
    """Return descriptions of the values that GDAL altered in a band's table in an XML file.

    Parameters
    ----------
    path : str
        A ``.aux.xml`` or a VRT, in GDAL's file systems.
    band : int
        Counted from 1.
    columns : sequence of (str, int)
        Name and type of each of the table's columns in GDAL.

    Returns
    -------
    list of str
        Empty also if the file has no table with these columns for the band.
    """
    found: list[str] = []
    with exceptions(False), silence(), closing(_odd_rows(path, band, columns)) as rows:
        for row in rows:
            found += [row] if isinstance(row, str) else _altered(row, columns)
            if len(found) >= MAX_FOUND:
                break
    return found


class _Text:
    """The bytes of a file from an offset on. One or two blocks are in memory."""

    def __init__(self, path: str) -> None:
        self.data, self.start = b"", 0
        self._file = gdal.VSIFOpenL(path, "rb")

    def more(self) -> bool:
        """Read the next block; return False at the end of the file."""
        piece = gdal.VSIFReadL(1, BLOCK_BYTES, self._file) if self._file else None
        if piece:
            self.data, self.start = self.data[self.start :] + bytes(piece), 0
        return bool(piece)

    def skip(self, mark: re.Pattern[bytes]) -> bytes | None:
        """Advance to the end of a marker and return it; None if it does not occur."""
        while True:
            match = mark.search(self.data, self.start)
            if match is not None:
                self.start = match.end()
                return match[0]
            # The block may end within a marker.
            begun = self.data.rfind(b"<", self.start)
            self.start = len(self.data) if begun < 0 else begun
            if not self.more():
                return None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            gdal.VSIFCloseL(self._file)


def _odd_rows(path: str, band: int, columns: Sequence[tuple[str, int]]) -> Generator[bytes | str]:
    """Yield the XML of rows with other than plain numbers, and words about a row's wrong index."""
    with siblings_visible(path), closing(_Text(path)) as text:
        of_band = False
        while (mark := text.skip(_MARKS)) is not None:
            if not mark.startswith(b"<GDALR"):
                number = _BAND.match(mark)
                of_band = number is not None and int(number[1]) == band
            elif of_band:
                yield from _odd_rows_of_table(text, columns)
                return


def _odd_rows_of_table(text: _Text, columns: Sequence[tuple[str, int]]) -> Iterator[bytes | str]:
    count = 0
    while (first := _FIRST_ROW.search(text.data, text.start)) is None:
        if not text.more():
            return
    if not _are_fields(text.data[text.start : first.start()], columns):
        # GDAL uses another table for the band.
        return
    text.start = first.start()
    cells = b"".join(
        rb"<F>" + _PLAIN.get(FieldType(kind), _ANY) + rb"</F>[^<]*+" for _, kind in columns
    )
    plain = re.compile(rb"(?:[^<]*+<Row index=\"[0-9]++\">[^<]*+" + cells + rb"</Row>)*+")
    while True:
        match = plain.match(text.data, text.start)
        if match and match.end() > text.start:
            numbers = np.array(_INDEX.findall(match[0])).astype(np.int64)
            wrong = np.flatnonzero(numbers != np.arange(count, count + len(numbers)))
            if len(wrong):
                yield _wrong_index(count + int(wrong[0]), int(numbers[wrong[0]]))
            count += len(numbers)
            text.start = match.end()
        if _END.match(text.data, text.start):
            return
        end = text.data.find(b"</Row>", text.start)
        if end >= 0:
            stop = end + len(b"</Row>")
            row = text.data[text.start : stop]
            index = _INDEX.search(row)
            if index is None or int(index[1]) != count:
                yield _wrong_index(count, None if index is None else int(index[1]))
            yield row
            count, text.start = count + 1, stop
        elif not text.more():
            return


def _wrong_index(row: int, index: int | None) -> str:
    what = "no index" if index is None else f"the index {index}"
    return f"row {row} of the file has {what}: GDAL puts it in the place of another row"


def _are_fields(header: bytes, columns: Sequence[tuple[str, int]]) -> bool:
    tree = gdal.ParseXMLString(f"<t>{header.decode('latin-1')}</t>")
    if tree is None:
        return False
    fields = [one for one in tree[2:] if one[1] == "FieldDefn"]
    names = [_text(*(one for one in field[2:] if one[1] == "Name")) for field in fields]
    # Non-ASCII names were decoded differently.
    return len(names) == len(columns) and all(
        name == column or not (name.isascii() and column.isascii())
        for name, (column, _) in zip(names, columns, strict=True)
    )


def _text(*elements: list[Any]) -> str:
    """Return the text that GDAL takes from the first element: its first child, if that is text."""
    children = [one for one in elements[0][2:] if one[0] != gdal.CXT_Attribute] if elements else []
    return str(children[0][1]) if children and children[0][0] == gdal.CXT_Text else ""


def _altered(row: bytes, columns: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Return descriptions of the numbers in a row that GDAL's parser altered."""
    tree = gdal.ParseXMLString(row.decode("latin-1"))
    # A comment before the row is the first element in that case.
    nodes = [tree, *(tree[2:] if tree else ())]
    element = next((one for one in nodes if one and one[1] == "Row"), None)
    if element is None:
        return
    number = next((one[2][1] for one in element[2:] if one[1] == "index"), "?")
    cells = [_text(one) for one in element[2:] if one[0] == gdal.CXT_Element and one[1] == "F"]
    cells += [""] * (len(columns) - len(cells))
    for (name, kind), cell in zip(columns, cells, strict=False):
        if kind in _PLAIN and not _is_exact(cell, kind):
            what = repr(cell) if cell.strip() else "an empty text"
            noun = "32-bit Integer" if kind == FieldType.INTEGER else f"exact {type_name(kind)}"
            yield f"column {name!r}, row {number}: {what} is no {noun}"


def _is_exact(cell: str, kind: int) -> bool:
    """Return True if this version of GDAL reads the written number."""
    rat = gdal.RasterAttributeTable()
    rat.CreateColumn("", kind, 0)
    rat.SetRowCount(1)
    rat.SetValueAsString(0, 0, cell)
    cell = cell.strip()
    if kind == FieldType.INTEGER:
        return bool(_NUMBER.fullmatch(cell)) and Decimal(cell) == rat.GetValueAsInt(0, 0)
    value = rat.GetValueAsDouble(0, 0)
    if _NAN.fullmatch(cell):
        return math.isnan(value)
    if _INFINITE.fullmatch(cell):
        return bool(value == (-math.inf if cell.startswith("-") else math.inf))
    if not _NUMBER.fullmatch(cell) or not math.isfinite(value):
        return False
    # Every reader rounds decimals to the nearest double; an integer must be exact.
    return bool(
        Decimal(cell) == Decimal(value) if _WHOLE.fullmatch(cell) else float(cell) == value
    )
