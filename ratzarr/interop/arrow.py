"""Columns as Arrow arrays.

Numbers become Arrow arrays without a copy, text without a Python object for each string. Values
keep their types, with three exceptions that lose nothing: float16 becomes float32, because DuckDB
and most of Arrow's functions don't support it; date-times in units that Arrow lacks get the next
finer unit; date-times in days, weeks, months or years become dates.

NaN is a value. Null are: the value in a column's ``missing_value``, NaT, an empty geometry, and
rows beyond the end of a column that is shorter than its table.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ratzarr.errors import UnequalValueError, UnsupportedDtypeError
from ratzarr.format.blocks import Block
from ratzarr.interop.source import Field, Source, check_missing, check_unchanged, is_missing
from ratzarr.interop.text import as_dictionary, text_of_chunk

__all__ = ["Texts", "arrow_array", "arrow_schema", "arrow_type", "read_arrays"]

Array = NDArray[Any]

UNITS = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}
"""Units that Arrow does not have, and the next unit that holds them exactly."""
MAX_BYTES = 2**31 - 1
"""Largest size of the text in an Arrow array, in bytes: its offsets are int32."""


def arrow_type(field: Field) -> Any:
    """Return the Arrow type of a column.

    Raises
    ------
    UnsupportedDtypeError
        For date-times finer than nanoseconds.

    Examples
    --------
    >>> import numpy as np
    >>> arrow_type(Field("a", np.dtype("u2"), 3, 10, 10))
    FixedSizeListType(fixed_size_list<element: uint16 not null>[3])
    """
    kind = field.dtype.kind
    if kind == "T":
        found = pa.string()
    elif kind in "SO":
        found = pa.binary()
    elif kind == "M":
        unit, _ = np.datetime_data(field.dtype)
        unit = UNITS.get(unit, unit)
        if unit not in ("D", "s", "ms", "us", "ns"):
            raise UnsupportedDtypeError(
                f"column {field.name!r}: {field.dtype} is finer than Arrow's date-times, whose "
                "finest unit is the nanosecond; choose other columns"
            )
        found = pa.date32() if unit == "D" else pa.timestamp(unit)
    elif field.dtype == np.float16:
        found = pa.float32()
    else:
        found = pa.from_numpy_dtype(field.dtype.newbyteorder("="))
    if field.width > 1:
        return pa.list_(pa.field("element", found, nullable=_has_nulls(field)), field.width)
    return found


def _has_nulls(field: Field) -> bool:
    return field.missing is not None or field.dtype.kind == "M" or field.empty_is_missing


def arrow_schema(fields: Sequence[Field], metadata: Mapping[str, str] | None = None) -> Any:
    """Return the schema of columns; their attributes are metadata of the fields, as JSON."""
    return pa.schema(
        [
            pa.field(
                one.name,
                arrow_type(one),
                metadata={
                    key: value if isinstance(value, str) else json.dumps(value)
                    for key, value in one.attributes.items()
                }
                or None,
            )
            for one in fields
        ],
        metadata=metadata or None,
    )


type Texts = dict[str, tuple[int, Any]]
"""The text of a chunk, by column: the chunk's first row, and its array."""


def read_arrays(
    source: Source,
    fields: Sequence[Field],
    block: Block,
    dictionaries: Collection[str] = (),
    texts: Texts | None = None,
) -> list[Any]:
    """Read rows of columns as Arrow arrays.

    Parameters
    ----------
    source : Source
    fields : sequence of Field
        The columns.
    block : Block
        The rows.
    dictionaries : collection of str
        Names of columns of text that become dictionary arrays.
    texts : dict, optional
        Keeps the text of a chunk that the next blocks go on with: text is decoded chunk by chunk.

    Raises
    ------
    UnequalValueError
        If Arrow can't hold a date-time; names the column and the row.
    ChangedError
        If a column's type, missing values or number of rows have changed.
    """
    found: dict[str, Any] = {}
    for one in fields:
        if one.dtype.kind == "T" and one.width == 1 and one.missing is None:
            text = _text(source, one, block, texts, dictionary=one.name in dictionaries)
            if text is not None:
                found[one.name] = text
    names = [one.name for one in fields if one.name not in found and one.rows > block.start]
    values = source.read(names, block) if names else {}
    for one in fields:
        if one.name in values:
            rows = max(0, min(block.stop, one.rows) - block.start)
            expected = one.dtype, (rows,) if one.width == 1 else (rows, one.width)
            now = values[one.name].dtype, values[one.name].shape
            check_unchanged(source.place, one.name, expected, now)
        if one.rows > block.start:
            check_missing(source.place, one.name, one.attributes, source.attributes(one.name))
        if one.name not in found:
            found[one.name] = arrow_array(
                values.get(one.name),
                one,
                first_row=block.start,
                rows=block.length,
            )
        if one.name in dictionaries:
            found[one.name] = as_dictionary(found[one.name])
    return [found[one.name] for one in fields]


def _text(
    source: Source, field: Field, block: Block, texts: Texts | None, *, dictionary: bool
) -> Any:
    first = block.start - block.start % field.chunk_rows
    chunk = Block(first, max(0, min(field.chunk_rows, field.rows - first)))
    held: tuple[int, Any] = (-1, None)
    if texts is not None:
        held = texts.pop(field.name, held)
    start, text = held
    if block.stop > chunk.stop and start == first:
        rest = Block(chunk.stop, block.stop - chunk.stop)
        more = _decoded(source, field, rest, dictionary=dictionary)
        if more is not None:
            return _joined([text.slice(block.start - first), more])
    if texts is None or block.stop > chunk.stop or block.length == chunk.length:
        return _decoded(source, field, block, dictionary=dictionary)
    if start != first:
        text = _decoded(source, field, chunk, dictionary=dictionary)
        if text is None:
            return None
    if block.stop < chunk.stop:
        texts[field.name] = first, text
    return text.slice(block.start - first, block.length)


def _decoded(source: Source, field: Field, block: Block, *, dictionary: bool) -> Any:
    """Return text, as a dictionary array if this is asked for and strings repeat; or None."""
    there = max(0, min(block.stop, field.rows) - block.start)
    rows = Block(block.start, there)
    convert = partial(text_of_chunk, dictionary=dictionary)
    pieces = source.read_utf8(field.name, rows, convert) if there else []
    if pieces is None:
        return None
    arrays = []
    for piece in pieces:
        array = _array_of(piece, field, block) if isinstance(piece, tuple) else piece
        # The bytes are what some program wrote as UTF-8: a cast of bytes to text validates them.
        if pa.types.is_dictionary(array.type):
            different = array.dictionary.cast(pa.string())
            array = pa.DictionaryArray.from_arrays(array.indices, different)
        else:
            array = array.cast(pa.string())
        arrays.append(array)
    if sum(map(len, arrays)) < there:
        # Rows have been cut off.
        return None
    if there < block.length or not arrays:
        arrays.append(pa.nulls(block.length - there, pa.string()))
    return _joined(arrays)


def _joined(arrays: Sequence[Any]) -> Any:
    """Join arrays of text, some of which may be dictionary arrays."""
    if len(arrays) > 1 and any(pa.types.is_dictionary(one.type) for one in arrays):
        arrays = [as_dictionary(one) for one in arrays]
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _array_of(piece: tuple[Array, Array], field: Field, block: Block) -> Any:
    offsets, data = piece
    if len(data) > MAX_BYTES:
        raise UnequalValueError(
            f"column {field.name!r}, rows from {block.start}: {len(data)} bytes of text are "
            "too many for one Arrow array; read fewer rows at a time"
        )
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def arrow_array(values: Array | None, field: Field, *, first_row: int, rows: int) -> Any:
    """Return values as an Arrow array of the column's type.

    Parameters
    ----------
    values : ndarray, optional
        The rows that the column has.
    field : Field
    first_row : int
        For messages.
    rows : int
        Length of the result; rows beyond the values are null.
    """
    target = arrow_type(field)
    if values is None:
        return pa.nulls(rows, target)
    if field.width > 1:
        flat = _flat(values.reshape(-1), field, target.value_type, first_row)
        array = pa.FixedSizeListArray.from_arrays(flat, type=target)
    else:
        array = _flat(values, field, target, first_row)
    if len(values) < rows:
        array = pa.concat_arrays([array, pa.nulls(rows - len(values), target)])
    return array


def _flat(values: Array, field: Field, target: Any, first_row: int) -> Any:
    mask = None
    if field.missing is not None:
        mask = is_missing(values, field.missing)
    kind = values.dtype.kind
    if kind in "SO":
        items = values.tolist()
        if field.empty_is_missing:
            empty = np.fromiter((not one for one in items), np.bool_, len(items))
            mask = empty if mask is None else mask | empty
        return pa.array(items, target, mask=mask)
    if kind == "T":
        return pa.array(values.astype(object), target, mask=mask)
    if kind == "M":
        values = _datetimes(values, field, first_row)
        never = np.isnat(values)
        mask = never if mask is None else mask | never
    elif values.dtype == np.float16:
        values = values.astype(np.float32)
    elif not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if mask is not None and not mask.any():
        mask = None
    return pa.array(values, target, mask=mask, from_pandas=False)


def _datetimes(values: Array, field: Field, first_row: int) -> Array:
    own, _ = np.datetime_data(values.dtype)
    target = np.dtype(f"M8[{UNITS.get(own, own)}]")
    if target == values.dtype and own != "D":
        return values
    try:
        found = values.astype(target, copy=False)
    except OverflowError:
        # Some versions of numpy raise this; others wrap around. The row is found below.
        found = np.array([_or_never(one, target) for one in values])
    unequal = found.astype(values.dtype, copy=False) != values
    if UNITS.get(own, own) == "D":
        # Arrow's days have 32 bits, and pyarrow would wrap them around.
        days = found.view(np.int64)
        unequal |= (days < -(2**31)) | (days >= 2**31)
    unequal &= ~np.isnat(values)
    if unequal.any():
        at = int(np.argmax(unequal))
        raise UnequalValueError(
            f"column {field.name!r}, row {first_row + at // field.width}: {values[at]} is out of the "
            f"range of {target}"
        )
    return found


def _or_never(value: Any, target: np.dtype[Any]) -> Any:
    try:
        return value.astype(target)
    except OverflowError:
        return np.array("NaT", target)[()]
