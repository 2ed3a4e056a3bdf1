"""The rows of a query in a file."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.exchange.arrow_files import write_arrow, write_parquet
from gdalbridge.output import Output
from gdalbridge.sql.query import Database
from gdalbridge.sql.result import csv_text, distinct, exact, json_text

__all__ = ["write_result"]


def write_result(
    database: Database,
    relation: Any,
    out: Any,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write all rows to a file, in batches; the file gets its name when it is complete.

    Parameters
    ----------
    database : Database
    relation : duckdb.DuckDBPyRelation
        One of the database's.
    out : str or os.PathLike
        The file: local, on S3, or at another URL that fsspec writes to. Its suffix is the format:
        ``.parquet``, ``.arrow``, ``.csv`` or ``.json``.
    overwrite : bool
        Replace an existing file.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.

    Raises
    ------
    BridgeError
        For another suffix, or if two columns have the same name, or there is no such directory.
    ConversionError
        If the format can't hold a type; names the column.
    OutputExistsError
        If the file exists.
    """
    output = Output(out, overwrite, storage_options)
    suffix = Path(output.name).suffix
    write = WRITERS.get(suffix.lower())
    if write is None:
        raise BridgeError(
            f"{out}: the suffix of an output is one of {', '.join(WRITERS)}: got {suffix or 'none'}"
        )
    output.check()
    with output.create(f"result{suffix}") as made:
        write(database, relation, made)


def _write_batches(
    database: Database,
    relation: Any,
    path: Path,
    write: Callable[[Path, Any, Iterator[Any]], None],
) -> None:
    import pyarrow as pa

    schema, batches = database.batches(database.run(lambda: exact(relation)))
    distinct(schema.names)
    try:
        write(path, schema, batches)
    # Arrow raises these for a type that the format can't hold.
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise ConversionError(
            f"{path.suffix} can't hold the result: {error}. Convert the column in the query with "
            "CAST(... AS VARCHAR)"
        ) from error


def _write_text(
    database: Database,
    relation: Any,
    path: Path,
    text: Callable[[Database, Any], Iterator[str]],
) -> None:
    with path.open("w", encoding="utf-8", newline="") as output:
        output.writelines(text(database, relation))


WRITERS = {
    ".parquet": partial(_write_batches, write=write_parquet),
    ".arrow": partial(_write_batches, write=write_arrow),
    ".csv": partial(_write_text, text=csv_text),
    ".json": partial(_write_text, text=json_text),
}
