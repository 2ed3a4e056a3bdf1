"""Row numbers of a table by a condition and an order, from the columns that these need alone."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.merged import Columns
from gdalbridge.sidecars.source import ColumnsSource
from gdalbridge.sql.expressions import Program, needed
from gdalbridge.sql.query import Database

__all__ = ["condition", "matching_rows", "selected_rows"]


def selected_rows(
    there: Columns, where: str | None, sort: Sequence[str], *, start: int = 0, count: int
) -> list[int]:
    """Return the numbers of rows for which an expression is true, in an order.

    Without an order, no more blocks are read than it takes to find the rows.

    Parameters
    ----------
    there : Columns
        The table.
    where : str, optional
        An expression as in :func:`gdalbridge.calc`; rows for which it is NULL don't count. By
        default all rows.
    sort : sequence of str
        Names of columns, the first one first; a minus before a name means the largest values
        first. NaN and then missing values come last, and equal rows in the order of their numbers.
    start, count : int
        Leave out this many of the rows found, and return at most this many.

    Raises
    ------
    BridgeError
        If the expression is invalid or not true or false.
    ColumnSelectionError
        For a missing column; suggests similar names.
    """
    needed()
    from ratzarr.interop.dataset import TableDataset

    orders = [_order(there, text) for text in sort]
    with ExitStack() as stack:
        program = None if where is None else stack.enter_context(condition(where, there))
        used = [] if program is None else [one.name for one in program.columns]
        names = list(dict.fromkeys([*used, *(name for name, _ in orders)]))
        dataset = TableDataset(ColumnsSource(there, lambda: there), names)
        if orders:
            return _sorted(there, dataset, program, orders, start, count)
        with closing(_matching(dataset, program, [])) as batches:
            rows = (row for batch in batches for row in batch.column(0).to_pylist())
            return list(islice(rows, start, start + count))


def matching_rows(there: Columns, where: str) -> Generator[NDArray[np.int64]]:
    """Yield the numbers of the rows for which an expression is true, block by block, ascending.

    Parameters and errors are those of :func:`selected_rows`.
    """
    needed()
    from ratzarr.interop.dataset import TableDataset

    with condition(where, there) as program:
        names = [one.name for one in program.columns]
        dataset = TableDataset(ColumnsSource(there, lambda: there), names)
        with closing(_matching(dataset, program, [])) as batches:
            for batch in batches:
                yield batch.column(0).to_numpy()


def condition(where: str, there: Columns) -> Program:
    """Return the program of an expression; its mask has the rows for which it is true.

    Raises
    ------
    BridgeError
        If the expression is invalid or not true or false.
    """
    program = Program({"where": where}, there)
    if program.dtypes["where"] != np.dtype(np.bool_):
        program.close()
        raise BridgeError(f"{where!r} is not true or false for a row: write a comparison")
    return program


def _order(there: Columns, text: str) -> tuple[str, bool]:
    """Return a column's name, and True if its largest values come first."""
    if text in there.by_name or not text.startswith("-"):
        return there[text].name, False
    return there[text[1:]].name, True


def _matching(dataset: Any, program: Program | None, keys: Sequence[str]) -> Generator[Any]:
    """Yield batches of row numbers and columns, of the rows for which the expression is true."""
    import pyarrow as pa

    with closing(dataset.to_reader([*dataset.schema.names])) as reader:
        for batch in reader:
            rows = batch.column(dataset.row_name)
            chosen = pa.record_batch(
                [rows, *map(batch.column, keys)], ["row", *(f"k{n}" for n in range(len(keys)))]
            )
            if program is not None and batch.num_rows:
                arrays = [batch.column(one.name) for one in program.columns]
                mask = program.mask(arrays, rows[0].as_py(), batch.num_rows)
                chosen = chosen.filter(pa.array(mask))
            yield chosen


def _sorted(
    there: Columns,
    dataset: Any,
    program: Program | None,
    orders: Sequence[tuple[str, bool]],
    start: int,
    count: int,
) -> list[int]:
    import pyarrow as pa

    failed: list[Exception] = []

    def batches() -> Generator[Any]:
        try:
            yield from _matching(dataset, program, [name for name, _ in orders])
        except Exception as error:
            # DuckDB would replace it by one of its own.
            failed.append(error)
            raise

    fields = [("row", pa.int64())]
    fields += [(f"k{n}", dataset.schema.field(name).type) for n, (name, _) in enumerate(orders)]
    reader = pa.RecordBatchReader.from_batches(pa.schema(fields), batches())
    by = []
    for number, (name, descending) in enumerate(orders):
        if there[name].dtype.kind == "f":
            by.append(f"isnan(k{number}) NULLS LAST")
        by.append(f"k{number} {'DESC' if descending else 'ASC'} NULLS LAST")
    query = f"SELECT row FROM rat ORDER BY {', '.join(by)}, row LIMIT {count} OFFSET {start}"  # noqa: S608 - numbers and our own names
    with Database({"rat": reader}) as database:
        try:
            rows: list[tuple[int]] = database.run(database.relation(query).fetchall)
        except BridgeError:
            if failed:
                raise failed[0] from None
            raise
    return [row for (row,) in rows]
