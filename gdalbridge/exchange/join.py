"""Join data into a table by a key: new columns, block by block.

Arrow finds each row's key among the data's, which are in memory; other columns are not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError, OutputExistsError
from gdalbridge.exchange.join_data import JoinData
from gdalbridge.progress import Progress
from gdalbridge.sidecars.new_columns import begin_column, begun_columns
from gdalbridge.text_table import dtype_text
from ratzarr import RatZarr, RatZarrError
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS, MISSING_ATTR, Block, blocks_of, near_names, normalize_dtype
from ratzarr.interop import Source, arrow_type, read_arrays, row_name, unused_integer

__all__ = ["JoinReport", "KeyedData", "refuse_existing", "write_joined"]

Array = NDArray[Any]

SHOWN = 3
"""Number of unused keys that a report names."""


@dataclass(slots=True)
class JoinReport:
    """The result of a join."""

    target: str
    """The table that was written."""
    on: str
    rows: int = 0
    """Rows of the table."""
    columns: tuple[str, ...] = ()
    """The new columns."""
    dtypes: dict[str, str] = field(default_factory=dict)
    """Their dtypes."""
    matched: int = 0
    """Rows of the table whose key is in the data."""
    missed: int = 0
    """Rows of the table whose key is not in the data."""
    duplicates: int = 0
    """Rows of the data that repeat another one."""
    unused: int = 0
    """Keys of the data that no row of the table has."""
    unused_keys: tuple[str, ...] = ()
    """The first of these keys, as text."""
    missing_values: dict[str, int] = field(default_factory=dict)
    """The integers that stand for missing values, by column."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.target}: {len(self.columns)} columns joined on {self.on}, {self.seconds:.2f} s",
            f"  rows: {self.matched} of {self.rows} matched, {self.missed} missed",
        ]
        lines += [f"  {name}: {dtype}" for name, dtype in self.dtypes.items()]
        if self.duplicates:
            lines.append(f"  data: {self.duplicates} rows repeat another one")
        if self.unused:
            more = ", ..." if self.unused > len(self.unused_keys) else ""
            keys = f"{', '.join(self.unused_keys)}{more}"
            lines.append(f"  data: {self.unused} keys are in no row of the table: {keys}")
        lines += [
            f"  {name}: {value} stands for missing values"
            for name, value in self.missing_values.items()
        ]
        return "\n".join(lines)


class KeyedData:
    """Data to join to a table, with one row for each key.

    Parameters
    ----------
    data : JoinData
        The key's column, and the others.
    on : str
        The key's column.
    source : Source
        The table that the data is joined to.

    Raises
    ------
    BridgeError
        If the keys can't be compared, or two rows with different values have one key.
    UnsupportedDtypeError
        If no column holds the values exactly.
    """

    def __init__(self, data: JoinData, on: str, source: Source) -> None:
        self.on, self._source, self._data = on, source, data
        virtual = row_name(list(source.names))
        if on != virtual and on not in source.names:
            raise BridgeError(
                f"{source.place} has no column {on!r} to join on ({virtual!r} means the row numbers)"
                f"{near_names(on, source.names)}"
            )
        self._field = None if on == virtual else source.field(on)
        if self._field is not None and self._field.width > 1:
            raise BridgeError(f"column {on!r} has several values per row, and can't be a key")
        # Row numbers that an export has written are no values.
        self.names = [name for name in data.schema.names if name not in (on, virtual)]
        if not self.names:
            raise BridgeError(f"the data has no other column than the key {on!r}")
        self.dtypes = {name: _dtype(name, data.schema.field(name).type) for name in self.names}
        self._keys, self._rows, self.duplicates = self._prepared()
        self.used = np.zeros(len(self._keys), np.bool_)

    def _prepared(self) -> tuple[Any, Any, int]:
        """Return the distinct keys, sorted; the row of each; and the number of repeated rows."""
        given = _plain(self._data.column(self.on))
        kind = pa.int64()
        if self._field is not None:
            kind = arrow_type(self._field)
        keys = _comparable(given, kind, self.on, f"the data's {given.type}")
        self._unequal = given.filter(keys.is_null())
        # Nulls come last.
        rows = pc.array_sort_indices(keys)[: len(keys) - keys.null_count].view(pa.int64())
        keys = keys.take(rows)
        repeats = pc.equal(keys[1:], keys[:-1]) if len(keys) > 1 else pa.array([], pa.bool_())
        again = np.flatnonzero(repeats.to_numpy(zero_copy_only=False)) + 1
        if len(again):
            for first in range(0, len(again), BLOCK_ROWS):
                self._check_equal(keys, rows, again[first : first + BLOCK_ROWS], len(again))
            kept = np.ones(len(keys), np.bool_)
            kept[again] = False
            keys, rows = keys.filter(pa.array(kept)), rows.filter(pa.array(kept))
        return keys, rows, len(again)

    def _check_equal(self, keys: Any, rows: Any, again: Array, duplicates: int) -> None:
        ones, others = (
            self._data.take(self.names, rows.take(pa.array(places)))
            for places in (again, again - 1)
        )
        for name in self.names:
            one, other = _plain(ones.column(name)), _plain(others.column(name))
            if pa.types.is_fixed_size_list(one.type):
                equal = np.array([a == b for a, b in zip(one, other, strict=True)])
            else:
                same = pc.fill_null(pc.equal(one, other), False)
                both = pc.and_(pc.is_null(one), pc.is_null(other))
                if pa.types.is_floating(one.type):
                    nan = pc.and_(pc.is_nan(one), pc.is_nan(other))
                    both = pc.or_(both, pc.fill_null(nan, False))
                equal = pc.or_(same, both).to_numpy(zero_copy_only=False)
            if not equal.all():
                key = keys[int(again[np.argmin(equal)])].as_py()
                raise BridgeError(
                    f"the data has {duplicates} rows with repeated keys, and their values differ: "
                    f"{self.on} {key!r} has two different values of {name!r}. Keep one row for "
                    "each key"
                )

    def places(self, block: Block) -> Any:
        """Return the position in the data for each row of a block; null if its key is not there."""
        if self._field is None:
            keys = pa.array(np.arange(block.start, block.stop, dtype=np.int64))
        else:
            found = read_arrays(self._source, [self._field], block)[0]
            keys = _comparable(found, self._keys.type, self.on, f"the table's {found.type}")
        ends = pc.min_max(keys) if len(keys) else None
        if ends is None or ends["min"].as_py() is None:
            return pa.nulls(len(keys), pa.int32())
        # Only the keys between the block's ends can match: few, if the table is sorted by them.
        first, behind = _between(self._keys, ends["min"], ends["max"])
        places = pc.index_in(keys, self._keys.slice(first, behind - first), skip_nulls=True)
        if first:
            places = pc.add(places.cast(pa.int64()), first)
        self.used[places.drop_null().to_numpy()] = True
        return places

    def values(self, places: Any) -> Iterator[tuple[str, Any]]:
        """Yield the names of the columns, and their values at these places as Arrow arrays."""
        found = self._data.take(self.names, self._rows.take(places))
        for name in self.names:
            yield name, _plain(found.column(name))

    def width(self, name: str) -> int:
        """Return the number of values in a row."""
        kind = self._data.schema.field(name).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 1

    def spare(self, name: str) -> int | None:
        """Return an unused integer for missing values; None for a column of another dtype.

        Raises
        ------
        ConversionError
            If every integer of the type is taken.
        """
        dtype = self.dtypes[name]
        if dtype.kind not in "iu":
            return None
        # Of n values, at most n are taken: only those near the end of the range matter.
        limits = np.iinfo(dtype)
        number = min(self._data.rows * self.width(name), int(limits.max) - int(limits.min))
        near = []
        for piece in self._data.pieces(name):
            values = _flat(piece).drop_null().to_numpy()
            near.append(
                np.unique(
                    values[values >= limits.max - number]
                    if dtype.kind == "u"
                    else values[values <= limits.min + number]
                )
            )
        found = unused_integer(np.concatenate([np.zeros(0, dtype), *near]), dtype)
        if found is None:
            raise ConversionError(
                f"column {name!r} has every value of {dtype}, and none is left for missing values: "
                "give it a wider type"
            )
        return found

    def unused_keys(self) -> tuple[int, tuple[str, ...]]:
        """Return the number of keys that no row has had, and the first of them as text."""
        rest = np.flatnonzero(~self.used)
        shown = [str(self._keys[int(at)].as_py()) for at in rest[:SHOWN]]
        # NULL, NaN and integers out of range are equal to no row's key.
        others = self._unequal[:SHOWN].to_pylist()
        shown += dict.fromkeys("NULL" if one is None else str(one) for one in others)
        return len(rest) + len(self._unequal), tuple(shown)


def _plain(column: Any) -> Any:
    """Return one array, without dictionaries and with the usual types of text and bytes."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        # Too large for one array of this type.
        array = pa.chunked_array(array.chunks).cast(_large(array.type)).combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    elif pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_binary())
    return array


def _large(kind: Any) -> Any:
    return {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}.get(kind, kind)


def _flat(array: Any) -> Any:
    return array.flatten() if pa.types.is_fixed_size_list(array.type) else array


def _dtype(name: str, kind: Any) -> np.dtype[Any]:
    if pa.types.is_null(kind):
        raise BridgeError(f"column {name!r} of the data has no value, so its type is unknown")
    if pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    try:
        return normalize_dtype(kind)
    except RatZarrError as error:
        raise BridgeError(f"column {name!r} of the data: {error}") from error


_EXPECTED = "a key is compared with values of its own kind: numbers, text, bools or date-times"


def _comparable(keys: Any, kind: Any, on: str, said: str) -> Any:
    """Return keys in the type in which both sides are compared; null where they can't be equal."""
    types = pa.types
    mine = keys.type
    if types.is_integer(mine) and types.is_integer(kind):
        if mine == pa.uint64():
            fits = pc.less_equal(keys, pa.scalar(2**63 - 1, pa.uint64()))
            if kind == pa.uint64():
                return keys
            return pc.if_else(fits, keys, None).cast(pa.int64())
        if kind == pa.uint64():
            return pc.if_else(pc.greater_equal(keys, 0), keys, None).cast(pa.uint64())
        return keys.cast(pa.int64())
    numbers = (types.is_integer, types.is_floating)
    if any(test(mine) for test in numbers) and any(test(kind) for test in numbers):
        try:
            # An integer beyond 2**53 is refused, because it would be rounded.
            # Arrow finds equal bits; -0.0 + 0.0 is 0.0.
            floats = pc.add(keys.cast(pa.float64()), 0.0)
            # NaN is equal to nothing.
            return pc.if_else(pc.is_nan(floats), None, floats)
        except pa.ArrowInvalid as error:
            raise BridgeError(f"{on!r}: integers and floats are not compared: {error}") from error
    text = (types.is_string, types.is_large_string)
    if any(test(mine) for test in text) and any(test(kind) for test in text):
        return keys.cast(pa.large_string())
    times = (types.is_timestamp, types.is_date)
    zones = {getattr(one, "tz", None) for one in (mine, kind)}
    if any(test(mine) for test in times) and any(test(kind) for test in times) and zones == {None}:
        try:
            return keys.cast(pa.timestamp("ns"))
        except pa.ArrowInvalid as error:
            raise BridgeError(f"{on!r}: date-times can't be compared: {error}") from error
    # Bools were compared as integers on one side already.
    if types.is_boolean(mine) and (types.is_boolean(kind) or kind == pa.int64()):
        return keys.cast(pa.int64())
    example = ""
    if any(test(mine) for test in text) and any(test(kind) for test in numbers):
        odd = pc.invert(pc.match_substring_regex(keys, r"^\s*[+-]?[0-9]+([.][0-9]+)?\s*$"))
        row = pc.index(odd, True).as_py()
        if row >= 0:
            example = f"; row {row} of it has {keys[row].as_py()!r:.100}"
    raise BridgeError(f"{on!r}: {said} can't be compared with {kind}{example}; {_EXPECTED}")


def _between(keys: Any, least: Any, greatest: Any) -> tuple[int, int]:
    """Return the range of sorted keys from ``least`` to ``greatest``."""
    if pa.types.is_large_string(keys.type):
        # numpy has no view of Arrow's text.
        return 0, len(keys)
    numbers = keys.view(pa.int64()) if pa.types.is_timestamp(keys.type) else keys
    values = numbers.to_numpy(zero_copy_only=False)

    def number(end: Any) -> Any:
        return end.value if pa.types.is_timestamp(end.type) else end.as_py()

    first = np.searchsorted(values, number(least), "left")
    return int(first), int(np.searchsorted(values, number(greatest), "right"))


# ---- writing


def write_joined(
    table: RatZarr,
    joined: KeyedData,
    attributes: Callable[[str, np.dtype[Any]], Mapping[str, Any]],
    report: JoinReport,
    reporter: Progress,
) -> None:
    """Create the columns of a join in a store; after an error they are deleted.

    Parameters
    ----------
    table : RatZarr
        Has the rows of the table that is joined to.
    joined : KeyedData
    attributes : callable
        Returns the attributes of a new column, by its name and dtype.
    report : JoinReport
        Filled in.
    reporter : Progress

    Raises
    ------
    BridgeError
        If no row matches, or a column of bools has missing values.
    """
    with begun_columns(table) as begun:
        for name, dtype in joined.dtypes.items():
            begun[name] = table.colExists(name)
            begin_column(table, name, dtype, joined.width(name), attributes(name, dtype))
        _fill(table, joined, report, reporter)
        for name, value in report.missing_values.items():
            table.getColumnAttributeMapping(name)[MISSING_ATTR] = value
    report.columns = tuple(begun)
    report.dtypes = {name: dtype_text(joined.dtypes[name]) for name in begun}


def _fill(table: RatZarr, joined: KeyedData, report: JoinReport, reporter: Progress) -> None:
    spare: dict[str, int | None] = {}
    for block in blocks_of(table.rowCount, table.getRATChunkSize(), BLOCK_ROWS):
        places = joined.places(block)
        missed = places.null_count
        report.missed += missed
        report.matched += block.length - missed
        for name, array in joined.values(places):
            dtype, width = joined.dtypes[name], joined.width(name)
            nulls = array.null_count or (width > 1 and _flat(array).null_count)
            if nulls and name not in spare:
                spare[name] = found = joined.spare(name)
                if found is not None:
                    report.missing_values[name] = found
            values = _values(array, dtype, spare.get(name), width, name, block.start)
            table.writeBlock(name, values, block.start)
        reporter.report(block.stop / table.rowCount)
    report.rows = table.rowCount
    report.duplicates = joined.duplicates
    report.unused, report.unused_keys = joined.unused_keys()
    if not report.matched:
        raise BridgeError(
            f"no row of the table has a key of the data: {joined.on!r} has other values there, for "
            f"instance {', '.join(report.unused_keys)}"
            if report.unused
            else "the data has no rows"
        )


def _values(
    array: Any, dtype: np.dtype[Any], spare: int | None, width: int, name: str, first_row: int
) -> Array:
    """Return Arrow values as a column's values; nulls become the value for missing ones."""
    if width > 1 and array.null_count:
        # A missing row has missing values.
        places = pa.array(np.arange(len(array) * width))
        rows = pc.divide(places, width)
        valid = pc.is_valid(array).take(rows)
        inner = array.values.slice(array.offset * width, len(array) * width)
        array = pc.if_else(valid, inner, None)
    elif width > 1:
        array = array.flatten()
    if array.null_count:
        if dtype.kind == "b":
            at = int(np.argmax(pc.is_null(array).to_numpy(zero_copy_only=False)))
            raise ConversionError(
                f"column {name!r}, row {first_row + at // width}: the data has no value for it, and "
                "bool has no missing value: give the column as uint8, or a value for each row"
            )
        if dtype.kind in "iu":
            array = array.fill_null(pa.scalar(spare, array.type))
        elif dtype.kind == "f":
            array = array.fill_null(pa.scalar(float("nan"), array.type))
        elif dtype.kind == "T":
            array = array.fill_null("")
        elif dtype.kind == "O":
            array = array.fill_null(b"")
    found: Array = array.to_numpy(zero_copy_only=False)
    if dtype.kind == "M":
        # pyarrow hands out dates as days already, and date-times in their own unit.
        found = found.astype(dtype, copy=False)
    return found.reshape(-1, width) if width > 1 else found


def refuse_existing(names: Sequence[str], there: Sequence[str], place: str) -> None:
    """Raise an error if columns exist already.

    Raises
    ------
    OutputExistsError
        Names them.
    """
    known = [name for name in names if name in there]
    if known:
        raise OutputExistsError(
            Advice(
                f"{place} has columns {', '.join(map(repr, known))} already.",
                "Choose others with columns=..., or use overwrite=True to replace them.",
            )
        )
