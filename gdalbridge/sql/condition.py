"""Select rows of a table by a condition and an order; only the columns that they name are read."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ColumnSelectionError
from gdalbridge.sidecars.merged import Columns
from gdalbridge.sidecars.source import ColumnsSource
from gdalbridge.sql.expressions import Program
from gdalbridge.sql.query import Database, needed
from ratzarr import ColumnNotFoundError
from ratzarr.format import near_names
from ratzarr.interop import Field, Source, row_name

__all__ = ["Condition", "matching_rows", "selected_rows"]


class Condition(Program[Field]):
    """An expression that is true or false for each row of a table; a context manager.

    Every ``where`` of commands and functions is one of these.

    Parameters
    ----------
    where : str
        An expression as in :func:`gdalbridge.calc`. It may also use the row numbers, ``row``
        (``_row`` if the table has a column of that name), and one value of a column with several
        values per row, ``"name[0]"``.
    source : Source
        The table.

    Attributes
    ----------
    names : list of str
        The columns of the table that it needs.

    Raises
    ------
    BridgeError
        If the expression is invalid, or not true or false.
    ColumnSelectionError
        For a missing column; suggests similar names.
    """

    def __init__(self, where: str, source: Source) -> None:
        self._operands = _Operands(source)
        super().__init__({"where": where}, self._operands)
        if self.dtypes["where"] != np.bool_:
            self.close()
            raise BridgeError(f"{where!r} is not true or false for a row: write a comparison")
        columns = (self._operands.column(one.name)[0] for one in self.columns)
        self.names = list(dict.fromkeys(name for name in columns if name is not None))

    def mask(self, columns: Mapping[str, Any], first_row: int, rows: int) -> NDArray[np.bool_]:
        """Return the rows of a block for which the condition is true; NULL is not.

        Parameters
        ----------
        columns : mapping of str to pyarrow.Array
            A block of each of :attr:`names`.
        first_row, rows : int
            The block.

        Raises
        ------
        ConversionError
            If a row can't be computed, for instance because a text is not a number; names the row.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not rows:
            return np.zeros(0, np.bool_)
        arrays = []
        for one in self.columns:
            name, part = self._operands.column(one.name)
            if name is None:
                arrays.append(pa.array(np.arange(first_row, first_row + rows)))
            elif part is None:
                arrays.append(columns[name])
            else:
                arrays.append(pc.list_element(columns[name], part))
        return self.true_rows(arrays, first_row, rows)

    def filtered(self, dataset: Any) -> Generator[Any]:
        """Yield the batches of a table's scan with the rows for which the condition is true.

        Parameters
        ----------
        dataset : ratzarr.interop.TableDataset
            Its columns include :attr:`names`.

        Yields
        ------
        pyarrow.RecordBatch
            All columns, and the row numbers last; some batches may be empty.
        """
        import pyarrow as pa

        with closing(dataset.to_reader(dataset.schema.names)) as reader:
            for batch in reader:
                if batch.num_rows:
                    columns = {name: batch.column(name) for name in self.names}
                    first = batch.column(dataset.row_name)[0].as_py()
                    mask = self.mask(columns, first, batch.num_rows)
                    yield batch.filter(pa.array(mask))


class _Operands:
    """What an expression about rows can name: columns, parts of columns, and the row number."""

    def __init__(self, source: Source) -> None:
        self._source, self._names = source, list(source.names)
        self._row = row_name(self._names)

    def column(self, name: str) -> tuple[str | None, int | None]:
        """Return an operand's column, None for the row number, and the value in each row."""
        if name == self._row:
            return None, None
        whole, bracket, rest = name.rpartition("[")
        part = rest.removesuffix("]")
        if name in self._names or not bracket or not rest.endswith("]") or not part.isdecimal():
            return name, None
        wide = whole in self._names and int(part) < self._source.field(whole).width > 1
        return (whole, int(part)) if wide else (name, None)

    def __getitem__(self, name: str) -> Field:
        whole, part = self.column(name)
        if whole is None:
            return Field(name, np.dtype(np.int64), 1, self._source.rows, 1)
        try:
            found = self._source.field(whole)
        except (ColumnNotFoundError, ColumnSelectionError) as error:
            if whole in self._names:
                raise
            near = near_names(name, self._names)
            quotes = "" if near.startswith(":") else "; text is written in single quotes"
            raise ColumnSelectionError(
                f"{self._source.place} has no column {name!r}{near}{quotes}"
            ) from error
        if found.width > 1 and part is None:
            raise BridgeError(
                f"column {name!r} of {self._source.place} has {found.width} values per row; the "
                f'first of them is written "{name}[0]", in double quotes'
            )
        return replace(found, name=name, width=1)


def selected_rows(
    there: Columns, where: str | None, sort: Sequence[str], *, start: int = 0, count: int
) -> list[int]:
    """Return the numbers of rows for which a condition is true, in an order.

    Without an order, no more blocks are read than it takes to find the rows.

    Parameters
    ----------
    there : Columns
        The table.
    where : str, optional
        A :class:`Condition`; rows for which it is NULL don't count. By default all rows.
    sort : sequence of str
        Names of columns, the first one first; a minus before a name means the largest values
        first. NaN and then missing values come last, and equal rows in the order of their numbers.
    start, count : int
        Leave out this many of the rows found, and return at most this many.

    Raises
    ------
    BridgeError
        If the condition is invalid.
    ColumnSelectionError
        For a missing column; suggests similar names.
    """
    needed()
    from ratzarr.interop import TableDataset

    orders = [_order(there, text) for text in sort]
    source = ColumnsSource(there, lambda: there)
    with ExitStack() as stack:
        condition = None if where is None else stack.enter_context(Condition(where, source))
        used = [] if condition is None else condition.names
        dataset = TableDataset(source, list(dict.fromkeys([*used, *(name for name, _ in orders)])))
        if orders:
            return _sorted(there, dataset, condition, orders, start, count)
        with closing(_matching(dataset, condition, [])) as batches:
            rows = (row for batch in batches for row in batch.column(0).to_pylist())
            return list(islice(rows, start, start + count))


def matching_rows(there: Columns, where: str) -> Generator[NDArray[np.int64]]:
    """Yield the numbers of the rows for which a condition is true, block by block, ascending.

    Parameters and errors are those of :func:`selected_rows`.
    """
    needed()
    from ratzarr.interop import TableDataset

    source = ColumnsSource(there, lambda: there)
    with Condition(where, source) as condition:
        dataset = TableDataset(source, condition.names)
        with closing(_matching(dataset, condition, [])) as batches:
            for batch in batches:
                yield batch.column(0).to_numpy()


def _order(there: Columns, text: str) -> tuple[str, bool]:
    """Return a column's name, and True if its largest values come first."""
    if text in there.by_name or not text.startswith("-"):
        return there[text].name, False
    return there[text[1:]].name, True


def _matching(dataset: Any, condition: Condition | None, keys: Sequence[str]) -> Generator[Any]:
    """Yield batches of row numbers and columns, of the rows for which a condition is true."""
    import pyarrow as pa

    found = (
        dataset.to_reader(dataset.schema.names)
        if condition is None
        else condition.filtered(dataset)
    )
    names = ["row", *(f"k{number}" for number in range(len(keys)))]
    with closing(found) as batches:
        for batch in batches:
            yield pa.record_batch(
                [batch.column(dataset.row_name), *map(batch.column, keys)], names
            )


def _sorted(
    there: Columns,
    dataset: Any,
    condition: Condition | None,
    orders: Sequence[tuple[str, bool]],
    start: int,
    count: int,
) -> list[int]:
    import pyarrow as pa

    failed: list[Exception] = []

    def batches() -> Generator[Any]:
        try:
            yield from _matching(dataset, condition, [name for name, _ in orders])
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
