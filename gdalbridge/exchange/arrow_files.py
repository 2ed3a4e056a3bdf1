"""Parquet, CSV and Arrow files, by pyarrow: written batch by batch, and read to be joined."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, ConversionError
from ratzarr.errors import Advice
from ratzarr.interop import required

__all__ = ["SUFFIXES", "read_table", "write_arrow", "write_csv", "write_parquet"]

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow"}
"""The formats of this module by suffix."""
GROUP_ROWS = 250_000
"""The fewest rows of a row group of Parquet, except the last."""
GROUP_BYTES = 2**26
FAR = 2.0**63
"""Integers beyond 64 bits are read as floats by pyarrow's reader of CSV."""


def write_parquet(path: Path, schema: Any, batches: Iterable[Any]) -> None:
    """Write batches to a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        # The first batches of a scan are small.
        kept: list[Any] = []
        for batch in batches:
            kept.append(batch)
            if (
                sum(one.num_rows for one in kept) >= GROUP_ROWS
                or sum(one.nbytes for one in kept) >= GROUP_BYTES
            ):
                writer.write_table(pa.Table.from_batches(kept, schema))
                kept = []
        if kept:
            writer.write_table(pa.Table.from_batches(kept, schema))


def write_arrow(path: Path, schema: Any, batches: Iterable[Any]) -> None:
    """Write batches to a file in Arrow's IPC format, which Feather files have, too."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_csv(path: Path, schema: Any, batches: Iterable[Any]) -> None:
    """Write batches to a CSV file: UTF-8, text in quotes, NULL as an empty field."""
    import pyarrow as pa
    from pyarrow import csv

    with pa.OSFile(str(path), "wb") as sink, csv.CSVWriter(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


# ---- reading


def read_table(
    data: Any,
    key: str | None = None,
    columns: Sequence[str] | None = None,
    options: Any = None,
) -> Any:
    """Return data as a ``pyarrow.Table`` of a key column and others.

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

    Raises
    ------
    BridgeError
        If a column is missing or exists twice, or the data is none of these.
    """
    pa = required("pyarrow", "arrow", "a join")
    name = "the data"
    keys = [] if key is None else [key]
    wanted = None if columns is None else [*keys, *columns]
    try:
        if isinstance(data, str | os.PathLike):
            name = str(data)
            table = _read_file(data, wanted, options)
        elif _is_pandas(data):
            table = pa.Table.from_pandas(data, preserve_index=key in data.index.names or False)
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
    names = table.column_names
    for one in keys if wanted is None else wanted:
        if one not in names:
            raise BridgeError(f"{name} has no column {one!r}; it has {names!r:.500}")
    for one in names if wanted is None else wanted:
        if names.count(one) > 1:
            raise BridgeError(f"{name} has several columns of the name {one!r}")
    if wanted is not None and len(set(wanted)) < len(wanted):
        raise BridgeError(
            f"a column is chosen twice, or is the key {key!r}: {list(columns or ())}"
        )
    chosen = names if wanted is None else wanted
    return table.select(chosen).replace_schema_metadata(None)


def _is_pandas(data: Any) -> bool:
    return any(
        kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame"
        for kind in type(data).__mro__
    )


def _read_file(data: Any, columns: Sequence[str] | None, options: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = SUFFIXES.get(Path(os.fspath(data)).suffix.lower())
    if kind is None:
        raise BridgeError(
            f"{data}: the suffix is none of those that can be joined: {', '.join(SUFFIXES)}"
        )
    with _local(data, options) as path:
        if kind == "csv":
            return _read_csv(path)
        # Not memory-mapped: somebody may write to the file.
        with pa.OSFile(str(path)) as file:
            if kind == "arrow":
                table = pa.ipc.open_file(file).read_all()
            else:
                there = pq.ParquetFile(file)
                known = set(there.schema_arrow.names)
                some = None if columns is None else [one for one in columns if one in known]
                table = there.read(columns=some)
        return table


@contextmanager
def _local(data: Any, options: Any) -> Iterator[Path]:
    """Yield a local path of a file; one on S3 is copied to a temporary directory."""
    import tempfile

    from ratzarr.stores import Location, copy_file, parse, temporary_path

    place = parse(data)
    if place.kind == "local":
        yield Path(place.path)
        return
    if place.kind != "s3":
        raise BridgeError(f"{data}: only local files and files on S3 can be joined")
    with temporary_path(Path(tempfile.gettempdir()), folder=True) as folder:
        path = folder / "data"
        copy_file(place, Location("local", str(path)), options=options)
        yield path


def _read_csv(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    table = csv.read_csv(path)
    for at, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            raise BridgeError(
                f"column {field.name!r} of {path} is not UTF-8 text: convert the file first "
                "(iconv -f cp1252 -t utf-8)"
            )
        if not pa.types.is_float64(field.type):
            continue
        largest = pc.max(pc.abs(pc.if_else(pc.is_finite(table[at]), table[at], None))).as_py()
        if largest is None or largest < FAR:
            continue
        # Read these as text: integers beyond 64 bits would be rounded.
        text = csv.read_csv(
            path,
            convert_options=csv.ConvertOptions(
                include_columns=[field.name], column_types={field.name: pa.string()}
            ),
        )[field.name]
        text = pc.if_else(pc.equal(text, ""), None, text)
        if not pc.all(pc.match_substring_regex(text, r"^[+-]?[0-9]+$")).as_py():
            continue
        try:
            table = table.set_column(at, field.name, text.cast(pa.uint64()))
        except pa.ArrowInvalid as error:
            raise ConversionError(
                Advice(
                    f"column {field.name!r} has integers beyond 64 bits ({error}).",
                    "Choose other columns with columns=...",
                )
            ) from error
    return table
