"""Queries of DuckDB over our table: against the same over a Parquet copy."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ratzarr import RatZarr
from tests.benchmarks.columns import make
from tests.benchmarks.contest import Bar, Result, compare, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

KINDS = {
    "class": "class",
    "count": "count",
    "class_name": "class_name",
    "area": "two_decimals",
    "nir": "mean",
    "red": "mean",
    "green": "mean",
    "swir": "mean",
    "perimeter": "count",
    "sequence": "sequence",
}
"""The columns of the table, and what is in each."""
CHUNK = 500_000
QUERIES = {
    "GROUP BY of a number column": (
        'SELECT "class" AS k, sum("count") AS s FROM t GROUP BY k ORDER BY k',
        Bar(2.5),
    ),
    "GROUP BY of a text column": (
        'SELECT class_name AS k, sum("count") AS s FROM t GROUP BY k ORDER BY k',
        Bar(6),
    ),
    "2 % of the rows by their numbers": (
        'SELECT sum("count") AS s, max(nir) AS m FROM t WHERE "row" BETWEEN {first} AND {last}',
        Bar(2),
    ),
}


def main(scale: Scale) -> Iterator[Result]:
    """Run each query over both, in turn; both have given the same rows before."""
    rows = scale.queried
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        table, parquet = Path(scratch, "t.rat.zarr"), Path(scratch, "t.parquet")
        _write(table, parquet, rows)
        first = rows // 2 + 123
        limits = {"first": first, "last": first + rows // 50 - 1}
        for what, (query, bar) in QUERIES.items():
            ours, theirs = _contenders(table, parquet, query.format(**limits))
            assert ours() == theirs(), what
            seconds = compare({"ratzarr": ours, "DuckDB on Parquet": theirs}, scale.rounds)
            yield result(
                f"{what}, {rows / 1e6:g} M rows of {len(KINDS)} columns",
                "DuckDB on Parquet",
                seconds,
                bar,
            )


def _write(table: Path, parquet: Path, rows: int) -> None:
    names = {**KINDS, "row": "row"}
    schema = pa.schema([(name, _arrow(kind)) for name, kind in names.items()])
    with RatZarr(table, newRowCount=rows) as rat, pq.ParquetWriter(parquet, schema) as writer:
        for name, kind in KINDS.items():
            dtype = make(kind, 1).dtype
            rat.createColumn(name, str if dtype.kind == "T" else dtype)
        for start in range(0, rows, CHUNK):
            length = min(CHUNK, rows - start)
            block = {name: make(kind, length, start) for name, kind in KINDS.items()}
            for name, values in block.items():
                rat.writeBlock(name, values, start)
            arrays = [pa.array(values) for values in block.values()]
            arrays.append(pa.array(np.arange(start, start + length)))
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=CHUNK)


def _arrow(kind: str) -> pa.DataType:
    if kind == "row":
        return pa.int64()
    return pa.array(make(kind, 1)).type


def _contenders(
    table: Path, parquet: Path, query: str
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return both: what is open is the table, or a view of the file, before the query comes."""
    theirs = duckdb.connect()
    theirs.execute(f"CREATE VIEW t AS SELECT * FROM read_parquet('{parquet}')")
    ours = duckdb.connect()
    rat = RatZarr(table, readOnly=True)

    def of_ours() -> object:
        t = rat.scan(dictionaries=True)  # noqa: F841 - DuckDB finds it by its name
        return ours.execute(query).fetchall()

    return of_ours, lambda: theirs.execute(query).fetchall()
