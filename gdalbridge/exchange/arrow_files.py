"""Parquet, CSV and Arrow files, written batch by batch by pyarrow."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["SUFFIXES", "write_arrow", "write_csv", "write_parquet"]

SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow"}
"""The formats by suffix."""
GROUP_ROWS = 250_000
"""Minimum number of rows of a Parquet row group, except the last."""
GROUP_BYTES = 2**26


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
