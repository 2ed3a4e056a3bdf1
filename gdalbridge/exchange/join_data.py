"""Data to be joined: a DataFrame, or a Parquet, CSV or Arrow file.

Files are read batch by batch. Large ones wait in a temporary file, so a join holds one column of
them in memory, the key.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.exchange.arrow_files import SUFFIXES
from ratzarr.errors import Advice
from ratzarr.format import near_names
from ratzarr.stores import Location, copy_file, parse, temporary_path

__all__ = ["JoinData", "open_data", "read_table"]

HELD_BYTES = 2**26
"""Memory for a file's batches; beyond it they go to a temporary file."""
CSV_BYTES = 2**22
"""Bytes of CSV that are converted at a time."""
FAR = 2.0**53
"""A float of at least this size may be a rounded integer: Arrow reads a column of integers as
floats if one value has a fraction, or needs more than 63 bits."""
FAR_DIGITS = 16
"""Number of digits of FAR."""
CSV_TYPES = [
    pa.null(), pa.int64(), pa.bool_(), pa.date32(), pa.time32("s"), pa.timestamp("s"),
    pa.timestamp("ns"), pa.float64(), pa.string(), pa.binary(),
]  # fmt: skip
"""The types that pyarrow tries for a column of a CSV file, in this order."""


class JoinData:
    """Record batches, in memory or in a temporary file; a context manager.

    Parameters
    ----------
    schema : pyarrow.Schema
    batches : iterable of pyarrow.RecordBatch
    is_file : bool
        True to write large batches to a temporary file.

    Attributes
    ----------
    schema : pyarrow.Schema
        Dictionaries are decoded.
    rows : int
    """

    def __init__(self, schema: Any, batches: Iterable[Any], *, is_file: bool) -> None:
        self.schema = pa.schema([_decoded_field(one) for one in schema])
        self._stack = ExitStack()
        self._batches: list[Any] = []
        self._reader: Any = None
        self._last: tuple[int, Any] = (-1, None)
        try:
            sizes = self._fill(map(_decoded, batches), HELD_BYTES if is_file else None)
        except BaseException:
            self.close()
            raise
        self._starts = np.cumsum([0, *sizes])
        self.rows = int(self._starts[-1])

    def _fill(self, batches: Iterator[Any], limit: int | None) -> list[int]:
        sizes, size = [], 0
        for batch in batches:
            sizes.append(batch.num_rows)
            self._batches.append(batch)
            size += batch.nbytes
            if limit is not None and size > limit:
                break
        else:
            return sizes
        folder = self._stack.enter_context(
            temporary_path(Path(tempfile.gettempdir()), folder=True)
        )
        path = str(folder / "data.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
            while self._batches:
                writer.write_batch(self._batches.pop(0))
            for batch in batches:
                writer.write_batch(batch)
                sizes.append(batch.num_rows)
        # Not memory-mapped: the pages would count as memory of this process.
        self._reader = pa.ipc.open_file(self._stack.enter_context(pa.OSFile(path)))
        return sizes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        self._batches.clear()
        self._last = (-1, None)
        self._stack.close()

    def _batch(self, number: int) -> Any:
        if self._reader is None:
            return self._batches[number]
        if self._last[0] != number:
            self._last = (number, self._reader.get_batch(number))
        return self._last[1]

    def pieces(self, name: str) -> Iterator[Any]:
        """Yield a column's arrays."""
        for number in range(len(self._starts) - 1):
            column = self._batch(number).column(name)
            # A column that was read from the file keeps the memory of its whole batch.
            yield column if self._reader is None else pa.concat_arrays([column])

    def column(self, name: str) -> Any:
        """Return a column as a ``pyarrow.ChunkedArray``."""
        return pa.chunked_array(list(self.pieces(name)), self.schema.field(name).type)

    def table(self) -> Any:
        """Return all columns as a ``pyarrow.Table``."""
        numbers = range(len(self._starts) - 1)
        return pa.Table.from_batches(map(self._batch, numbers), self.schema)

    def take(self, names: Sequence[str], rows: Any) -> Any:
        """Return rows of columns as a ``pyarrow.Table``.

        Parameters
        ----------
        names : sequence of str
        rows : pyarrow.Array of int64
            Row numbers; null for a row of nulls.
        """
        known = rows.drop_null().to_numpy()
        order = np.argsort(known, kind="stable")
        ascending = known[order]
        cuts = np.searchsorted(ascending, self._starts)
        parts = [
            self._batch(number).select(names).take(
                pa.array(ascending[cuts[number] : cuts[number + 1]] - self._starts[number])
            )
            for number in np.flatnonzero(np.diff(cuts)).tolist()
        ]  # fmt: skip
        # Each row's place among those that were taken.
        places = np.zeros(len(rows), np.int64)
        is_known = rows.is_valid().to_numpy(zero_copy_only=False)
        inverse = np.empty(len(known), np.int64)
        inverse[order] = np.arange(len(known))
        places[is_known] = inverse
        schema = pa.schema([self.schema.field(name) for name in names])
        return pa.Table.from_batches(parts, schema).take(pa.array(places, mask=~is_known))


def _decoded_field(one: Any) -> Any:
    kind = one.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.field(one.name, views.get(kind, kind))


def _decoded(batch: Any) -> Any:
    """Return a batch with plain types: without dictionaries, and without views of text and bytes.

    An Arrow file has one dictionary for all batches, and Arrow can't take rows of views.
    """
    schema = pa.schema([_decoded_field(one) for one in batch.schema])
    arrays = [
        array if array.type == one.type else array.cast(one.type)
        for array, one in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def open_data(
    data: Any,
    key: str | None = None,
    columns: Sequence[str] | None = None,
    options: Any = None,
    *,
    texts: Sequence[str] | None = (),
) -> JoinData:
    """Return data as batches of a key column and others.

    Parameters
    ----------
    data : str, os.PathLike or data frame
        A CSV, Parquet, Arrow or Feather file, local or on S3, by its suffix; a pandas or Polars
        DataFrame, or anything with Arrow's C stream.
    key : str, optional
        A column, or the name of a pandas index.
    columns : sequence of str, optional
        The other columns, by default all.
    options : mapping, optional
        For S3, see :class:`ratzarr.RatZarr`.
    texts : sequence of str, optional
        Columns of a CSV to read as text, even if it looks like numbers. None: all.

    Raises
    ------
    BridgeError
        If a column is missing or exists twice, or the data is none of these.
    """
    name = str(data) if isinstance(data, str | os.PathLike) else "the data"

    def choose(names: Sequence[str]) -> list[str]:
        return _chosen(name, names, key, columns)

    try:
        if isinstance(data, str | os.PathLike):
            return _from_file(data, choose, options, texts)
        if _is_pandas(data):
            by_index = key in data.index.names and key not in data.columns
            if key is not None and not by_index and key not in data.columns:
                raise BridgeError(
                    f"the data has no column and no index {key!r}{near_names(key, data.columns)}. If the "
                    f"index of the frame has the keys, name it: frame.rename_axis({key!r})"
                )
            table = pa.Table.from_pandas(data, preserve_index=by_index)
        elif hasattr(data, "__arrow_c_stream__"):
            table = pa.table(data)
        else:
            raise BridgeError(
                "the data to join is a path, or a DataFrame or table of pandas, Polars or Arrow: got "
                f"{type(data).__name__}"
            )
    except FileNotFoundError:
        raise BridgeError(f"{name} can't be read: the file does not exist") from None
    except pa.ArrowException as error:
        # pyarrow adds the name of a column as a second argument.
        words = ". ".join(map(str, error.args))
        raise BridgeError(f"{name} can't be read: {words}") from error
    table = table.select(choose(table.column_names))
    return JoinData(table.schema, table.to_batches(), is_file=False)


def read_table(data: Any, options: Any = None, *, texts: Sequence[str] | None = ()) -> Any:
    """Return a file as a ``pyarrow.Table``; errors are those of :func:`open_data`.

    Parameters
    ----------
    data, options
        See :func:`open_data`.
    texts : sequence of str, optional
        Columns of a CSV to read as text. None: all.
    """
    with open_data(data, options=options, texts=texts) as found:
        return found.table()


def _chosen(
    name: str, names: Sequence[str], key: str | None, columns: Sequence[str] | None
) -> list[str]:
    keys = [] if key is None else [key]
    chosen = list(names) if columns is None else [*keys, *columns]
    for one in keys if columns is None else chosen:
        if one not in names:
            raise BridgeError(f"{name} has no column {one!r}{near_names(one, names)}")
    for one in chosen:
        if list(names).count(one) > 1:
            raise BridgeError(f"{name} has several columns of the name {one!r}")
        if not one:
            raise BridgeError(
                Advice(
                    f"{name} has a column without a name, such as an index that pandas has written.",
                    "Choose the others with columns=...",
                )
            )
    if len(set(chosen)) < len(chosen):
        raise BridgeError(
            f"a column is chosen twice, or is the key {key!r}: {list(columns or ())}"
        )
    return chosen


def _is_pandas(data: Any) -> bool:
    return any(
        kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame"
        for kind in type(data).__mro__
    )


# ---- files

DIALECT_BYTES = 2**16
"""Number of bytes at the start of a CSV file that are read to find its separator."""

type _Choose = Callable[[Sequence[str]], list[str]]
"""Returns the columns that are wanted of those in a file."""


def _from_file(data: Any, choose: _Choose, options: Any, texts: Sequence[str] | None) -> JoinData:
    whole = os.fspath(data).lower()
    kind = SUFFIXES.get(Path(whole.removesuffix(".gz")).suffix)
    if kind is None or (kind != "csv" and whole.endswith(".gz")):
        raise BridgeError(
            f"{data} can't be joined: expected a file with a suffix of {', '.join(SUFFIXES)}"
        )
    with _local(data, options) as path:
        if kind == "csv":
            return _from_csv(path, choose, texts)
        # Not memory-mapped: somebody may write to the file.
        with pa.OSFile(str(path)) as file:
            return (_from_arrow if kind == "arrow" else _from_parquet)(file, choose)


@contextmanager
def _local(data: Any, options: Any) -> Iterator[Path]:
    """Yield a local path of a file; one on S3 is copied to a temporary directory."""
    place = parse(data)
    if place.kind == "local":
        yield Path(place.path)
        return
    if place.kind != "s3":
        raise BridgeError(f"{data}: only local files and files on S3 can be joined")
    with temporary_path(Path(tempfile.gettempdir()), folder=True) as folder:
        path = folder / f"data{Path(place.path).suffix.lower()}"
        copy_file(place, Location("local", str(path)), options=options)
        yield path


def _from_arrow(file: Any, choose: _Choose) -> JoinData:
    reader = pa.ipc.open_file(file)
    chosen = choose(reader.schema.names)
    schema = pa.schema([reader.schema.field(name) for name in chosen])
    batches = (reader.get_batch(n).select(chosen) for n in range(reader.num_record_batches))
    return JoinData(schema, batches, is_file=True)


def _from_parquet(file: Any, choose: _Choose) -> JoinData:
    from pyarrow.parquet import ParquetFile

    found = ParquetFile(file)
    schema = found.schema_arrow
    chosen = choose(schema.names)
    batches = (batch.select(chosen) for batch in found.iter_batches(columns=chosen))
    return JoinData(pa.schema([schema.field(name) for name in chosen]), batches, is_file=True)


def _open_csv(path: Path, types: dict[str, Any], columns: Sequence[str] | None = None) -> Any:
    from pyarrow import csv

    delimiter, decimal = _dialect(path)
    return csv.open_csv(
        path,
        read_options=csv.ReadOptions(block_size=CSV_BYTES),
        parse_options=csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
        convert_options=csv.ConvertOptions(
            include_columns=columns, column_types=types, decimal_point=decimal
        ),
    )


def _dialect(path: Path) -> tuple[str, str]:
    """Return the separator of a CSV file, and the decimal point of its numbers.

    In many countries, spreadsheets write semicolons and decimal commas. If the first line contains
    a comma, the separator is a comma.
    """
    with pa.input_stream(str(path)) as file:
        head = file.read(DIALECT_BYTES)
    header = head.partition(b"\n")[0]
    found = next((one for one in (b",", b";", b"\t", b"|") if one in header), b",")
    is_comma = found != b"," and re.search(
        rb"(^|%b)[ ]*[+-]?\d+,\d+[ ]*(%b|\r?$)" % (re.escape(found), re.escape(found)), head, re.M
    )
    return found.decode(), "," if is_comma else "."


def _from_csv(path: Path, choose: _Choose, texts: Sequence[str] | None) -> JoinData:
    with _open_csv(path, {}) as reader:
        names = reader.schema.names
    chosen = choose(names)
    types = dict.fromkeys(names if texts is None else texts, pa.string())
    while True:
        floats: set[str] = set()
        try:
            with _open_csv(path, types, chosen) as reader:
                types |= {one.name: one.type for one in reader.schema}
                batches = _far_floats(reader, floats)
                found = JoinData(reader.schema, batches, is_file=True)
        except pa.ArrowInvalid as error:
            # The types come from the first block; a later one has other values.
            column = re.match(r"In CSV column #(\d+): CSV conversion error", str(error))
            if column is None:
                raise
            name = names[int(column[1])]
            types[name] = _looser(name, types.get(name, pa.null()), error)
            continue
        _check_utf8(found.schema, path)
        try:
            whole = [name for name in floats if _has_integers(path, name)]
        except BaseException:
            found.close()
            raise
        if not whole:
            return found
        # As floats they would be rounded.
        found.close()
        types |= dict.fromkeys(whole, pa.uint64())


def _looser(name: str, kind: Any, error: Exception) -> Any:
    if kind == pa.uint64():
        value = re.search(r"invalid value '(-[^']*)'", str(error))
        said = (
            f"integers beyond 64 bits ({error})" if value is None
            else f"{value[1]}, and integers from 2**63 on: no type of 64 bits holds both"
        )  # fmt: skip
        raise ConversionError(
            Advice(f"column {name!r} has {said}.", "Choose other columns with columns=...")
        ) from error
    return CSV_TYPES[CSV_TYPES.index(kind) + 1]


def _check_utf8(schema: Any, path: Path) -> None:
    for one in schema:
        if pa.types.is_binary(one.type):
            raise BridgeError(
                f"column {one.name!r} of {path} is not UTF-8 text: convert the file first "
                "(iconv -f cp1252 -t utf-8)"
            )


def _far_floats(batches: Iterable[Any], found: set[str]) -> Iterator[Any]:
    """Yield the batches; add to ``found`` the columns of floats that may be rounded integers."""
    for batch in batches:
        for one, values in zip(batch.schema, batch.columns, strict=True):
            if pa.types.is_float64(one.type) and one.name not in found:
                largest = pc.max(pc.abs(pc.if_else(pc.is_finite(values), values, None))).as_py()
                if largest is not None and largest >= FAR:
                    found.add(one.name)
        yield batch


def _has_integers(path: Path, name: str) -> bool:
    """Return True if all values of a column are written as integers.

    Raises
    ------
    ConversionError
        If they are not, and a float can't hold one of the integers exactly.
    """
    rounded = other = None
    with _open_csv(path, {name: pa.string()}, [name]) as reader:
        for batch in reader:
            text = batch.column(0)
            given = text.filter(pc.not_equal(text, ""))
            # Arrow reads no integer with a plus sign.
            whole = pc.match_substring_regex(given, r"^-?[0-9]+$")
            if other is None and pc.all(whole).as_py() is False:
                other = given.filter(pc.invert(whole))[0].as_py()
            if rounded is None:
                numbers = given.filter(whole)
                long = numbers.filter(pc.greater_equal(pc.utf8_length(numbers), FAR_DIGITS))
                # Python compares integers with floats exactly.
                rounded = next((one for one in long.to_pylist() if int(one) != float(one)), None)
            if other is not None and rounded is not None:
                raise ConversionError(
                    Advice(
                        f"column {name!r} of {path} has {rounded} beside {other!r}: as a floating-point "
                        "number it would be rounded.",
                        "Choose other columns with columns=...",
                    )
                )
    return other is None
