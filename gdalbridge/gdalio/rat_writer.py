"""Write a band's own attribute table, safely and without silent losses.

GDAL has two kinds of tables. Some are written directly to the file (HFA, KEA). Others are in
memory: this module builds them on a copy and sets them on the band at the end, so a failed copy
leaves the raster unchanged. In both cases the raster is then opened again to see which values it
has kept, because some drivers accept values and drop them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import (
    BridgeError,
    ConversionError,
    GdalError,
    NotWrittenError,
    RasterNotFoundError,
)
from gdalbridge.gdalio.compat import (
    DROPS_TABLES,
    block_io_is_safe,
    exceptions,
    gdal,
    own_rat,
    set_own_rat,
    silence,
    write_array,
)
from gdalbridge.gdalio.datasets import band_of, file_of, is_updatable, open_dataset
from gdalbridge.gdalio.field_types import (
    HFA_NAMES,
    MAX_TABLE_ROWS,
    FieldType,
    FieldUsage,
    hfa_colour_conflict,
    hfa_cut,
    kept_name,
    replaced_column,
    stored_dtype,
    type_name,
    usage_name,
)
from gdalbridge.gdalio.losses import description_loss
from gdalbridge.gdalio.own_table import open_own_table
from gdalbridge.gdalio.rat_reader import NO_SCHEMA, RatColumn, RatSchema, schema_of
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.gdalio.vat_dbf import DbfTable
from ratzarr.errors import Advice
from ratzarr.stores import gdal_name

__all__ = [
    "EXACT",
    "RatSink",
    "check_columns",
    "check_not_hidden",
    "check_open_for_update",
    "keeps_values",
    "open_rat_for_update",
    "with_plain_nan",
]


Array = NDArray[Any]

EXACT = frozenset({"MEM", "HFA", "KEA"})
"""Drivers that preserve every bit of the values that they accept."""


def keeps_values(dataset: Any) -> bool:
    """Return True if a raster preserves every table value that it accepts."""
    driver = dataset.GetDriver().ShortName
    # A VRT in memory lists its sources' files, but not itself.
    in_memory = driver == "VRT" and dataset.GetDescription() not in (dataset.GetFileList() or [])
    return driver in EXACT or in_memory


def with_plain_nan(values: Array) -> Array:
    """Return floats without the signs of NaNs.

    In XML, GDAL writes them as ``-nan``, which its versions from 3.13 read as 0.
    """
    signed = np.isnan(values) & np.signbit(values)
    return np.where(signed, np.nan, values) if signed.any() else values


def check_open_for_update(dataset: Any, band: Any, name: str) -> None:
    """Reject a dataset opened for reading if GDAL would not report it.

    Raises
    ------
    NotWrittenError
    """
    is_affected = DROPS_TABLES and dataset.GetDriver().ShortName == "GTiff"
    if is_affected and not is_updatable(dataset, band):
        raise NotWrittenError(
            f"{name} was opened for reading, and GDAL would silently drop its table. Open it "
            "for update (gdal.OF_UPDATE), or pass its path."
        )


def check_not_hidden(dataset: Any, number: int, name: str) -> None:
    """Reject a dataset that cannot see its band's existing table.

    Raises
    ------
    NotWrittenError
    """
    # With GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR a dataset does not see a table in its .aux.xml,
    # and writing would replace that table.
    path = file_of(dataset)
    with silence():
        if path is None or gdal.VSIStatL(f"{path}.aux.xml") is None:
            return
        again = open_dataset(path)
        hidden = own_rat(again.GetRasterBand(number)) is not None
    if hidden:
        raise NotWrittenError(
            f"{name} has a table in {path}.aux.xml that this dataset does not see: open it "
            "without GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR, or pass its path"
        )


def _schema_kept(path: str, number: int, expected: RatSchema, name: str) -> RatSchema:
    """Open a raster again, and return the schema of its table, in place of the expected one.

    Raises
    ------
    NotWrittenError
        If the rows, columns or their types differ.
    """
    try:
        dataset = open_dataset(path)
        with silence():
            rat = own_rat(band_of(dataset, number, name))
        found = NO_SCHEMA if rat is None else schema_of(rat)
    except BridgeError as error:
        raise NotWrittenError(f"{name} can't be read any more: {error}") from error
    has = "no table" if rat is None else f"{len(found.columns)} columns, {found.rows} rows"
    # Some drivers drop a table without columns or rows.
    is_dropped = not found.columns and not (expected.columns and expected.rows)
    del rat, dataset
    types = [[column.type for column in one.columns] for one in (expected, found)]
    if not is_dropped and (found.rows != expected.rows or types[0] != types[1]):
        raise NotWrittenError(
            f"{name} was not written: it has {has} where {len(expected.columns)} columns and "
            f"{expected.rows} rows were given to GDAL. Was the dataset opened for update?"
        )
    return found


Columns = Sequence[tuple[str, int, int]]
"""Name, type and usage of each column."""


def check_columns(
    name: str, new: Columns, there: Sequence[str] = (), changed: Columns = (), *, hfa: bool
) -> None:
    """Reject columns that a directly written format cannot have, before creating any.

    Parameters
    ----------
    name : str
        The raster's name, for messages.
    new : sequence of (name, type, usage)
        In order of creation.
    there : sequence of str
        The raster's existing columns.
    changed : sequence of (name, type, usage)
        Existing columns to be overwritten.
    hfa : bool
        True for HFA, which also treats some names as colours.

    Raises
    ------
    NotWrittenError
        Names the column, and the existing column that would be replaced.
    """
    for asked in (*new, *changed) if hfa else ():
        conflict = hfa_colour_conflict(*asked)
        if conflict is not None:
            raise NotWrittenError(
                Advice(
                    f"{name}: {conflict}.",
                    "Choose other columns with columns=..., give it another name, or make it "
                    "Integer with that usage.",
                )
            )
    names = list(there)
    for column, _, usage in new:
        other = replaced_column(names, column, usage, hfa=hfa)
        if other is not None:
            raise NotWrittenError(
                f"{name} has a column {other!r}, which this format would replace with {column!r} "
                f"({usage_name(usage)}): it does not tell the two apart"
            )
        names.append(kept_name(column, usage) if hfa else column)


WRITTEN_KINDS = {
    FieldType.INTEGER: "i",
    FieldType.REAL: "f",
    FieldType.STRING: "T",
    FieldType.BOOLEAN: "b",
    FieldType.DATETIME: "S",
    FieldType.WKB_GEOMETRY: "O",
}
"""The numpy dtype kind of the values that are written to each GDAL type."""
TEXT_BYTES = 32 * 2**20
"""Largest size of a text block in bytes, because GDAL's bindings pad all rows to the longest."""


def open_rat_for_update(
    raster: Any, band: int = 1, options: ReadOptions = DEFAULTS, *, shown: str | None = None
) -> "RatSink":
    """Open a band's own attribute table, for writing.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
        A path, or a dataset opened for update.
    band : int
        Counted from 1.
    options : ReadOptions
        For the existing table.
    shown : str, optional
        The raster's name in messages.

    Raises
    ------
    GdalLossError
        If GDAL lost or altered values of the existing table: writing would make that permanent.
    NotWrittenError
        For locations where GDAL cannot update a raster (``/vsis3/``, ...).
    RasterNotFoundError
        If the raster or band does not exist, or cannot be opened for writing.
    """
    if hasattr(raster, "GetRasterBand"):
        return RatSink(raster, band, raster.GetDescription(), path=None, options=options)
    path = os.fspath(raster)
    name = gdal_name(path)
    if name.startswith("/vsi") and not name.startswith("/vsimem/"):
        raise NotWrittenError(
            f"{path}: GDAL can't change a raster there; copy the table to a sidecar instead, or "
            "export to a local raster"
        )
    try:
        dataset = open_dataset(path, update=True)
    except RasterNotFoundError as error:
        if os.path.lexists(path):
            words = str(error).replace(path, shown or path)
            raise RasterNotFoundError(words) from error
        raise RasterNotFoundError(
            f"{error}. 'gdalbridge bake' makes a raster that has a table"
        ) from error
    return RatSink(dataset, band, shown or path, path=path, options=options)


class RatSink:
    """A band's own table, open for writing.

    As a context manager: without commit, a table in memory keeps its old content.

    Parameters
    ----------
    dataset
        The GDAL dataset, opened for update.
    band : int
        Counted from 1.
    name : str
        For messages.
    path : str or None
        The path, if the dataset was opened here.
    options : ReadOptions
    """

    def __init__(
        self,
        dataset: Any,
        band: int,
        name: str,
        path: str | None,
        options: ReadOptions = DEFAULTS,
    ) -> None:
        self.name, self._path, self._number = name, path, band
        self._dataset = dataset
        self._band = band_of(dataset, band, name)
        check_open_for_update(dataset, self._band, name)
        rat = open_own_table(dataset, self._band, name or "the raster", options)
        if isinstance(rat, DbfTable):
            raise NotWrittenError(
                f"{name}: its table is {rat.path}, which a table in the raster would hide. "
                "'gdalbridge bake' writes a raster with both; or rename the .vat.dbf first"
            )
        if rat is None:
            check_not_hidden(dataset, band, name)
        self.writes_through = rat is not None and bool(rat.ChangesAreWrittenToFile())
        if rat is None:
            rat = gdal.RasterAttributeTable()
        elif not self.writes_through:
            # Work on a copy, so that the band's table changes only at the end. GDAL 3.6 also
            # crashes if a band is given its own table.
            rat = rat.Clone()
        self._rat = rat
        self._keeps_values = keeps_values(dataset)
        self._blocks_are_safe = options.block_io and block_io_is_safe(rat)
        self._held: _Held | None = None
        self._asked: dict[int, RatColumn] = {}
        """The requested columns by index, where GDAL may have accepted others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release everything; uncommitted changes are dropped."""
        self._held = None
        self._rat = self._band = self._dataset = None

    @contextmanager
    def _errors_of_gdal(
        self, kind: type[BridgeError] = GdalError, *, column: str | None = None
    ) -> Iterator[None]:
        """Turn errors of GDAL and its bindings into ours."""
        where = self.name if column is None else f"{self.name}, column {column!r}"
        with exceptions(), silence():
            try:
                yield
            except (RuntimeError, ValueError, TypeError) as error:
                raise kind(f"{where}: {error}") from error

    @property
    def dataset(self) -> Any:
        """The raster's dataset, until it is closed."""
        return self._dataset

    @property
    def schema(self) -> RatSchema:
        """The table's current schema."""
        return schema_of(self._rat)

    def set_row_count(self, rows: int) -> None:
        """Set the number of rows.

        Raises
        ------
        ConversionError
            Above 2147483647, GDAL's limit.
        """
        if not 0 <= rows <= MAX_TABLE_ROWS:
            raise ConversionError(
                f"{self.name}: GDAL's tables have at most {MAX_TABLE_ROWS} rows: {rows}"
            )
        self._give_held()
        with self._errors_of_gdal():
            self._rat.SetRowCount(rows)
        if self._rat.GetRowCount() != rows:
            raise NotWrittenError(
                f"{self.name} has {self._rat.GetRowCount()} rows after its row count was set to "
                f"{rows}"
            )

    @property
    def is_hfa(self) -> bool:
        """True if the raster is an HFA, whose driver changes colour columns."""
        return bool(self._dataset.GetDriver().ShortName == "HFA")

    def check_columns(self, new: Columns, changed: Columns = ()) -> None:
        """Reject columns that the format can't have, before creating any: :func:`check_columns`."""
        if self.writes_through:
            there = [column.name for column in self.schema.columns]
            check_columns(self.name, new, there, changed, hfa=self.is_hfa)

    def create_column(self, name: str, kind: int, usage: int) -> int:
        """Create a column and return its index; :meth:`commit` reports the differences.

        Raises
        ------
        ConversionError
            If the driver's type for it could not hold the values.
        NotWrittenError
            If the format would overwrite another column.
        """
        if "\x00" in name:
            raise ConversionError(f"{self.name}: GDAL can't have a zero character in {name!r}")
        before = int(self._rat.GetColumnCount())
        self.check_columns([(name, kind, usage)])
        given = hfa_cut(name) if self.is_hfa else name
        with self._errors_of_gdal(column=name):
            self._rat.CreateColumn(given, int(kind), int(usage))
        if self._rat.GetColumnCount() != before + 1:
            raise NotWrittenError(
                f"{self.name}: this format has no column {name!r} of type {type_name(kind)}"
            )
        found = schema_of(self._rat).columns[before]
        if found.type != kind and (kind, found.type) != (FieldType.INTEGER, FieldType.REAL):
            raise ConversionError(
                f"{self.name}, column {name!r}: with the usage {usage_name(usage)} this format "
                f"makes it {type_name(found.type)}, not {type_name(kind)}"
            )
        self._asked[before] = RatColumn(before, name, int(kind), int(usage))
        return before

    def expect_usage(self, index: int, usage: int) -> None:
        """Make :meth:`commit` report if an existing column has another usage."""
        self._asked[index] = replace(self.schema.columns[index], usage=usage)

    def write(self, index: int, start: int, values: Array, *, is_text: bool = False) -> None:
        """Write rows of a column.

        Parameters
        ----------
        index : int
            The column's index.
        start : int
            First row.
        values : ndarray of shape (n,)
            int32 for Integer, float64 for Real (and for Integers that a driver made Real), bool,
            StringDType, object (bytes) for WKBGeometry; date-times as fixed-width bytes
            (:func:`gdalbridge.gdalio.datetimes.text_for_gdal`).
        is_text : bool
            True if fixed-width bytes are text for a String: UTF-8 without zero bytes, as
            :meth:`ratzarr.RatZarr.readText` returns it. They are not validated.

        Raises
        ------
        ConversionError
            For text with a zero character, where GDAL would truncate it, and for values of another
            dtype than the column's, which GDAL would convert silently.
        BridgeError
            For a column or rows outside the table.
        """
        count, rows = self._rat.GetColumnCount(), self._rat.GetRowCount()
        if not 0 <= index < count:
            raise BridgeError(f"{self.name} has {count} columns, counted from 0: no {index}")
        if not 0 <= start <= start + len(values) <= rows:
            # Writing cell by cell, GDAL would extend the table.
            raise BridgeError(
                f"{self.name} has {rows} rows: {len(values)} from row {start} are not in it"
            )
        kind = self._rat.GetTypeOfCol(index)
        if is_text and values.dtype.kind == "S" and kind == FieldType.STRING:
            if len(values) and self._blocks_are_safe:
                self._give(index, start, values)
                return
            values = values.astype(stored_dtype(FieldType.STRING))
        if values.dtype.kind not in WRITTEN_KINDS[kind] or (
            values.dtype.kind in "if" and values.dtype != stored_dtype(kind)
        ):
            raise ConversionError(
                f"{self.name}, column {self._rat.GetNameOfCol(index)!r} is {type_name(kind)}: "
                f"{values.dtype} would be converted by GDAL, whether it fits or not"
            )
        if not len(values):
            return
        if values.dtype.kind == "f" and not self._keeps_values:
            values = with_plain_nan(values)
        if values.dtype.kind == "T":
            self._write_text(index, start, values)
        elif self._blocks_are_safe:
            self._give(index, start, values)
        else:
            if self._held is None or self._held.index != index:
                self._give_held()
                self._held = _Held(index, rows, values.dtype)
            self._held.put(start, values)

    def _give_held(self) -> None:
        """Write a column that was buffered because it can only be written as a whole."""
        held, self._held = self._held, None
        if held is None:
            return
        if not held.written.all():
            with exceptions(), silence():
                before = self._rat.ReadAsArray(held.index, 0, len(held.values))
            rest = ~held.written
            if before.dtype.kind == "O" and held.values.dtype.kind == "S":
                # Date-times are written as text, because the objects that GDAL returns are less
                # exact.
                if any(value is not None for value in before[rest].tolist()):
                    raise NotWrittenError(
                        f"{self.name}: this version of GDAL can't change only some rows of "
                        f"column {self._rat.GetNameOfCol(held.index)!r}"
                    )
            else:
                held.values[rest] = before[rest]
        self._give(held.index, 0, held.values)

    def _write_text(self, index: int, start: int, values: Array) -> None:
        column = self._rat.GetNameOfCol(index)
        encoded = [text.encode("utf-8") for text in values.tolist()]
        if b"\x00" in b"".join(encoded):
            row = next(row for row, text in enumerate(encoded) if b"\x00" in text)
            raise ConversionError(
                f"{self.name}, column {column!r}, row {start + row}: GDAL would cut "
                f"{values[row]!r} at its zero character"
            )
        if not self._blocks_are_safe:
            for row, value in enumerate(values.tolist(), start):
                self._rat.SetValueAsString(row, index, value)
            return
        for piece in text_pieces(np.fromiter(map(len, encoded), np.int64, len(encoded))):
            longest = max(map(len, encoded[piece])) or 1
            self._give(index, start + piece.start, np.array(encoded[piece], f"S{longest}"))

    def _give(self, index: int, start: int, values: Array) -> None:
        with self._errors_of_gdal(column=self._rat.GetNameOfCol(index)):
            failed = write_array(self._rat, np.ascontiguousarray(values), index, start)
        if failed:
            raise NotWrittenError(f"{self.name}: GDAL did not write rows from {start}")

    def set_table_type(self, kind: int) -> list[str]:
        """Set thematic (0) or athematic (1); return descriptions of losses."""
        with exceptions(), silence():
            try:
                self._rat.SetTableType(kind)
            except RuntimeError as error:
                return [f"the table's type was not kept ({error})"]
        return [] if self._rat.GetTableType() == kind else ["the table's type was not kept"]

    def set_linear_binning(self, minimum: float, size: float) -> list[str]:
        """Set linear binning; return descriptions of losses."""
        with exceptions(), silence():
            try:
                self._rat.SetLinearBinning(minimum, size)
            except RuntimeError as error:
                return [f"the linear binning was not kept ({error})"]
        return []

    def commit(self) -> list[str]:
        """Write the table to the raster, and verify that it was kept.

        Returns
        -------
        losses : list of str
            Descriptions of the names, types and usages that have changed in the reopened raster: a
            line per column. Values are not compared here.

        Raises
        ------
        NotWrittenError
            If the reopened raster has a different table.
        """
        self._give_held()
        expected = self.schema
        with self._errors_of_gdal(NotWrittenError):
            failed = not self.writes_through and set_own_rat(self._band, self._rat)
            if failed:
                raise NotWrittenError(f"{self.name}: GDAL did not take the table")
            self._dataset.FlushCache()
        driver = self._dataset.GetDriver().ShortName
        # A VRT in memory has files too: those of its sources.
        path = self.name if self._path is None else self._path
        own_file = path in (self._dataset.GetFileList() or [])
        if self._path is not None:
            self.close()
        # An HFA file is complete only when the dataset is closed; a caller's dataset is not closed
        # here.
        is_open_hfa = driver == "HFA" and self._path is None
        now: Sequence[RatColumn] = expected.columns
        if is_open_hfa:
            generic = int(FieldUsage.GENERIC)
            now = [one if one.usage in HFA_NAMES else replace(one, usage=generic) for one in now]
        elif self._path is not None or (driver != "MEM" and own_file):
            kept = _schema_kept(path, self._number, expected, self.name)
            now = kept.columns
            is_binned = expected.linear_binning is not None and kept.linear_binning is None
            if not now and (expected.columns or expected.rows != kept.rows or is_binned):
                return ["the table, which has no cells, was not kept"]
        losses = []
        for was, one in zip(expected.columns, now, strict=True):
            loss = description_loss(self._asked.get(was.index, was), one)
            if loss is not None:
                is_later = is_open_hfa and one.usage != was.usage
                losses.append(loss + (", when the dataset is closed" if is_later else ""))
        return losses


class _Held:
    """Buffers a column that can only be written as a whole, and the rows filled so far."""

    def __init__(self, index: int, rows: int, dtype: np.dtype[Any]) -> None:
        self.index = index
        self.values: Array = np.zeros(rows, dtype)
        self.written = np.zeros(rows, np.bool_)
        if dtype.kind == "O":
            self.values[:] = b""

    def put(self, start: int, values: Array) -> None:
        if values.dtype.itemsize > self.values.dtype.itemsize:
            # Text of a date-time: numpy would truncate the longer one.
            self.values = self.values.astype(values.dtype)
        self.values[start : start + len(values)] = values
        self.written[start : start + len(values)] = True


def text_pieces(lengths: NDArray[np.int64], max_bytes: int = TEXT_BYTES) -> Iterator[slice]:
    """Split rows of text so that no piece, padded to its longest, is larger than allowed.

    Parameters
    ----------
    lengths : ndarray of int
        Bytes of each row.
    max_bytes : int
        Of a piece. A single row may have more.
    """
    first, count = 0, len(lengths)
    while first < count:
        padded = np.maximum.accumulate(lengths[first:]) * np.arange(1, count - first + 1)
        stop = first + max(1, int(np.searchsorted(padded, max_bytes, side="right")))
        yield slice(first, stop)
        first = stop
