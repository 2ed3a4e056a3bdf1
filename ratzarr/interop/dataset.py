"""A table as a ``pyarrow.dataset.Dataset``: columns and rows are read only as a query needs them.

DuckDB, Polars and Arrow ask a dataset for columns and a filter. :class:`TableDataset` reads these
columns and the filter's, block by block, and applies the filter exactly, because the callers rely
on it. A filter on the virtual column with the row numbers also selects the blocks that are read.

The first batches are small and nothing is read ahead of them, so that a query for a few rows reads
little. After them, the next blocks are read while one is worked on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from ratzarr.errors import ArgumentError, UnsupportedDtypeError
from ratzarr.format.blocks import BLOCK_ROWS, Block
from ratzarr.format.names import near_names
from ratzarr.interop.arrow import Texts, arrow_schema, read_arrays
from ratzarr.interop.source import (
    Field,
    Source,
    chosen_fields,
    row_name,
    row_range,
)
from ratzarr.interop.text import DICTIONARY, as_dictionary
from ratzarr.pipeline import ReadAhead, max_blocks

__all__ = ["TableDataset"]

FIRST_ROWS = (8192, 65_536)
"""Rows of the first batches. They are small, because DuckDB's threads request several batches
before they notice that the query already has all its rows."""
BLOCK_BYTES = 2**27
"""Approximate memory of a batch, so tables of very many columns get smaller batches."""
READ_AHEAD_BYTES = 3 * 2**26
"""Memory for the batches read ahead."""
PAGES = 32
"""If a filter on row numbers leaves at most this many chunks, each is divided into as many parts,
and only the parts that can match are read."""
MAX_CHUNKS = 2**14
"""Largest number of chunks that are tested one by one against a filter on row numbers."""


class TableDataset(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """A table for everything that reads Arrow datasets.

    Parameters
    ----------
    source : Source
        The table.
    columns : sequence of str, optional
        Only these, in this order.
    rows : slice, range or (start, stop), optional
        Only these rows.
    filter : pyarrow.dataset.Expression, optional
        Only rows for which it is true; of any columns of the table. Row numbers are the column ``row`` (``_row`` if the table
        has a column of this name).
    rename : mapping of str to str, optional
        Other names of columns, for readers to which "a" and "A" are the same name.
    dictionaries : bool
        Deliver text as dictionary arrays: the different strings of a chunk, and which of them each
        row has. DuckDB groups and joins them faster. Chunks whose strings do not repeat are their
        own dictionaries.
    row_first : bool
        Put the row numbers first in the schema. DuckDB reads the first column for a query that
        needs none, such as ``SELECT count(*)``.
    block_rows : int
        Approximate number of rows of a batch.

    Attributes
    ----------
    row_name : str
        Name of the virtual column with the row numbers.
    rows_read : int
        Number of rows that the last scan has delivered or filtered out.
    error : BaseException or None
        The error of the last scan. DuckDB replaces it by one of its own.
    """

    def __init__(
        self,
        source: Source,
        columns: Sequence[str] | None = None,
        *,
        rows: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
        rename: Mapping[str, str] | None = None,
        dictionaries: bool = False,
        row_first: bool = False,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self._source, self._rename = source, dict(rename or {})
        names = chosen_fields(source, columns)
        self._chosen = names
        self._range = row_range(source, rows)
        self._block_rows, self._dictionaries = block_rows, dictionaries
        self._row_first = row_first
        self.row_name = row_name([*source.names, *self._rename.values()])
        self._describe(names)
        # Without the columns that only the filter needs.
        self._schema = self._readable
        if isinstance(filter, ds.Expression) and columns is not None:
            self._describe([*names, *self._filtered(filter)])
        self.filter_expression = _checked(filter, self._readable)
        self.rows_read = 0
        self.error: BaseException | None = None

    def _describe(self, names: Sequence[str]) -> None:
        """Make the fields, their names for readers, and the schema of these columns."""
        self._fields = [self._source.field(name) for name in names]
        self._shown = [self._rename.get(name, name) for name in names]
        self._readable = arrow_schema(
            [
                replace(one, name=shown)
                for one, shown in zip(self._fields, self._shown, strict=True)
            ]
        ).append(pa.field(self.row_name, pa.int64(), nullable=False))

    def _filtered(self, wanted: Any) -> list[str]:
        """Return the columns that are not chosen and that a filter needs."""
        fields = {}
        for name in self._source.names:
            # A column of a type that Arrow lacks can't be in a filter.
            with suppress(UnsupportedDtypeError):
                one = replace(self._source.field(name), name=self._rename.get(name, name))
                fields[name] = arrow_schema([one]).field(0)
        row = pa.field(self.row_name, pa.int64(), nullable=False)
        used = _used([wanted], pa.schema([*fields.values(), row]))
        return [
            name for name, one in fields.items() if one.name in used and name not in self._chosen
        ]

    @property
    def schema(self) -> Any:
        """The columns' types, with the row numbers last, or first with ``row_first``."""
        *columns, row = self._delivered(self._schema)
        return pa.schema([row, *columns] if self._row_first else [*columns, row])

    def _delivered(self, schema: Any) -> Any:
        """Return a schema with the types of the batches."""
        if not self._dictionaries:
            return schema
        return pa.schema(
            [one.with_type(DICTIONARY) if one.type == pa.string() else one for one in schema]
        )

    @property
    def partition_expression(self) -> Any:
        """An expression that is true for all rows."""
        return ds.scalar(True)

    def replace_schema(self, schema: Any) -> Any:
        """Refuse: values keep the types in which they are stored."""
        raise NotImplementedError("cast the batches of to_batches() instead")

    def get_fragments(self, filter: Any = None) -> Iterator[Any]:  # noqa: A002 - pyarrow's name
        """Refuse: a table has blocks of rows, not files; :meth:`scanner` reads them."""
        raise NotImplementedError(f"{self._source.place} has no fragments; use scanner()")

    def sort_by(self, sorting: Any, **_: Any) -> Any:
        """Refuse: Arrow's own method would use a dataset of files."""
        raise NotImplementedError("use to_table().sort_by()")

    def join(self, right_dataset: Any, *_: Any, **__: Any) -> Any:
        """Refuse: Arrow's own method would use a dataset of files."""
        raise NotImplementedError("use to_table().join()")

    def join_asof(self, right_dataset: Any, *_: Any, **__: Any) -> Any:
        """Refuse: Arrow's own method would use a dataset of files."""
        raise NotImplementedError("use to_table().join_asof()")

    @property
    def range(self) -> tuple[int, int]:
        """The first row, and the row after the last."""
        return self._range.start, self._range.stop

    def filter(self, expression: Any) -> "TableDataset":
        """Return the dataset of the rows for which an expression is true, too."""
        known = self.filter_expression
        return self._part(self.range, expression if known is None else known & expression)

    def between(self, start: int, stop: int) -> "TableDataset":
        """Return the dataset of the rows from ``start`` up to ``stop``."""
        return self._part((start, stop), self.filter_expression)

    def _part(self, rows: tuple[int, int], wanted: Any) -> "TableDataset":
        return TableDataset(
            self._source,
            self._chosen,
            rows=rows,
            filter=wanted,
            rename=self._rename,
            dictionaries=self._dictionaries,
            row_first=self._row_first,
            block_rows=self._block_rows,
        )

    def scanner(
        self,
        columns: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
        batch_size: int | None = None,
        **_: Any,
    ) -> Any:
        """Return a scanner as ``pyarrow.dataset.Scanner``, which reads the table once.

        Parameters
        ----------
        columns : list of str, or mapping of str to expressions, optional
            The columns; by default all of the schema. Only what they need is read.
        filter : pyarrow.dataset.Expression, optional
            The rows.
        batch_size : int, optional
            The largest number of rows of a batch.
        """
        wanted = _checked(filter, self._schema)
        if self.filter_expression is not None:
            wanted = self.filter_expression if wanted is None else self.filter_expression & wanted
        names = self.schema.names if columns is None else columns
        if isinstance(names, Mapping):
            needed = _used(list(names.values()), self._schema)
        else:
            names = list(names)
            for name in names:
                if name not in self._schema.names:
                    raise ArgumentError(
                        f"{self._source.place} has no column {name!r} in this scan"
                        f"{near_names(str(name), self._schema.names)}"
                    )
            needed = list(dict.fromkeys(names))
        batches, schema = self._scan(needed, wanted, batch_size)
        # The batches come filtered.
        if not isinstance(columns, Mapping):
            return _Scanner(batches, schema, self.schema)
        return ds.Scanner.from_batches(batches, schema=schema, columns=names)

    def to_reader(self, columns: Sequence[str] | None = None) -> Any:
        """Return a ``pyarrow.RecordBatchReader`` over the columns, by default without row numbers."""
        names = self._schema.names[:-1] if columns is None else list(columns)
        batches, schema = self._scan(names, self.filter_expression, None)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def count_rows(self, filter: Any = None, **_: Any) -> int:  # noqa: A002 - pyarrow's name
        """Return the number of rows; without a filter nothing is read."""
        if filter is None and self.filter_expression is None:
            return self._range.length
        batches, _schema = self._scan(
            [self.row_name], self.filter(filter).filter_expression if filter is not None
            else self.filter_expression, None,
        )  # fmt: skip
        return sum(batch.num_rows for batch in batches)

    # ---- reading

    def _scan(self, names: Sequence[str], wanted: Any, batch_size: int | None) -> tuple[Any, Any]:
        """Return the batches of a scan and their schema."""
        schema = self._delivered(pa.schema([self._schema.field(name) for name in names]))
        used = [] if wanted is None else _used([wanted], self._readable)
        read = list(dict.fromkeys([*names, *used]))
        fields = [
            one for one, shown in zip(self._fields, self._shown, strict=True) if shown in read
        ]
        blocks = self._blocks(fields, wanted)
        # The first batches are parts of a chunk.
        texts: Texts | None = {} if len(blocks) > 1 else None

        def load(block: Block) -> list[Any]:
            return self._load(block, read, fields, names, schema, wanted, used, texts)

        return self._batches(iter(blocks), load, batch_size), schema

    def _load(
        self,
        block: Block,
        read: Sequence[str],
        fields: Sequence[Field],
        names: Sequence[str],
        schema: Any,
        wanted: Any,
        used: Sequence[str],
        texts: Texts | None,
    ) -> list[Any]:
        # A filter compares plain text.
        dictionaries = [
            one.name
            for one, shown in zip(self._fields, self._shown, strict=True)
            if shown in schema.names and shown not in used
            and pa.types.is_dictionary(schema.field(shown).type)
        ]  # fmt: skip
        found = read_arrays(self._source, fields, block, dictionaries, texts)
        arrays = dict(zip((one.name for one in fields), found, strict=True))
        columns = {}
        real = dict(zip(self._shown, (one.name for one in self._fields), strict=True))
        for name in read:
            if name == self.row_name:
                columns[name] = pa.array(np.arange(block.start, block.stop, dtype=np.int64))
            else:
                columns[name] = arrays[real[name]]
        if wanted is None:
            return [_batch([columns[name] for name in names], schema, block.length)]
        table = pa.table([columns[name] for name in read], names=list(read))
        kept = table.filter(wanted).select(list(names)).combine_chunks()
        return [
            pa.RecordBatch.from_arrays(
                [
                    as_dictionary(array) if pa.types.is_dictionary(one.type) else array
                    for array, one in zip(batch.columns, schema, strict=True)
                ],
                schema=schema,
            ) if len(names) else batch
            for batch in kept.to_batches()
        ]  # fmt: skip

    def _batches(
        self,
        blocks: Iterator[Block],
        load: Callable[[Block], list[Any]],
        batch_size: int | None,
    ) -> Iterator[Any]:
        self.rows_read, self.error = 0, None
        try:
            for block in islice(blocks, len(FIRST_ROWS)):
                yield from _cut(load(block), batch_size)
                self.rows_read += block.length
            threads = max(1, self._source.threads)
            reading = ReadAhead(
                blocks,
                load,
                threads=threads,
                ahead=min(max_blocks(), 2 * threads),
                size=lambda batches: sum(batch.nbytes for batch in batches) + 1,
                max_bytes=READ_AHEAD_BYTES,
            )
            with closing(reading):
                for block, batches in reading:
                    yield from _cut(batches, batch_size)
                    self.rows_read += block.length
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise

    def _blocks(self, fields: Sequence[Field], wanted: Any) -> list[Block]:
        """Return the blocks to read, in order; those without a row for the filter are left out."""
        chunk = max((one.chunk_rows for one in fields), default=self._block_rows)
        step = chunk * max(1, self._block_rows // chunk)
        row = max(1, sum(one.row_bytes for one in fields))
        while step > FIRST_ROWS[0] and step * row > BLOCK_BYTES:
            step = -(-step // 2)
        start, stop = self._range.start, self._range.stop
        cuts = [start, *range(start - start % step + step, stop, step), stop]
        blocks = [Block(a, b - a) for a, b in pairwise(cuts) if b > a]
        if wanted is not None and self.row_name in _used([wanted], self._readable):
            blocks = self._matching(blocks, wanted)
            size = min(chunk, step)
            if sum(-(-one.length // size) for one in blocks) <= MAX_CHUNKS:
                blocks = self._matching(_cut_at(blocks, size), wanted)
                if len(blocks) <= PAGES:
                    blocks = self._matching(_cut_at(blocks, max(1, size // PAGES)), wanted)
            blocks = _joined(blocks, step)
        for place, most in enumerate(FIRST_ROWS):
            if place < len(blocks):
                blocks[place : place + 1] = _split(blocks[place], most, chunk)
        return blocks

    def _matching(self, blocks: Sequence[Block], wanted: Any) -> list[Block]:
        """Return the blocks that may have rows for a filter, from their row numbers alone.

        Arrow decides: it leaves out the fragments of a dataset whose rows can't match. These
        fragments stand for blocks; no file of theirs exists or is opened.
        """
        from pyarrow.fs import LocalFileSystem

        files, form, row = LocalFileSystem(), ds.IpcFileFormat(), ds.field(self.row_name)
        fragments = [
            form.make_fragment(
                f"/{place}",
                files,
                partition_expression=(row >= ds.scalar(block.start))
                & (row < ds.scalar(block.stop)),
            )
            for place, block in enumerate(blocks)
        ]
        there = ds.FileSystemDataset(fragments, self._readable, form)
        try:
            found = [int(one.path[1:]) for one in there.get_fragments(filter=wanted)]
        except pa.ArrowException:
            # It compares row numbers with values of another type: then all blocks are read.
            return list(blocks)
        return [blocks[place] for place in found]


def _cut_at(blocks: Sequence[Block], rows: int) -> list[Block]:
    """Cut blocks at multiples of a number of rows."""
    return [
        Block(max(one.start, first), min(first + rows, one.stop) - max(one.start, first))
        for one in blocks
        for first in range(one.start - one.start % rows, one.stop, rows)
    ]


class _Scanner:
    """The part of a ``pyarrow.dataset.Scanner`` that its users need; reads once.

    Arrow's own would read many batches ahead, even for a query of a few rows.
    """

    def __init__(self, batches: Iterator[Any], schema: Any, dataset_schema: Any) -> None:
        self._batches = batches
        self.projected_schema, self.dataset_schema = schema, dataset_schema

    def to_reader(self) -> Any:
        """Return a ``pyarrow.RecordBatchReader``."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches)

    def to_batches(self) -> Iterator[Any]:
        """Return the record batches."""
        return self._batches

    def scan_batches(self) -> Iterator[Any]:
        """Raise an error: Arrow's method yields batches with their fragments, such as files.

        A table has no fragments. DuckDB and Polars call the other methods.
        """
        raise NotImplementedError("a table has no fragments; use to_batches()")

    def to_table(self) -> Any:
        """Return a ``pyarrow.Table``."""
        return self.to_reader().read_all()

    def count_rows(self) -> int:
        """Return the number of rows."""
        return sum(batch.num_rows for batch in self._batches)

    def head(self, num_rows: int) -> Any:
        """Return the first rows as a table."""
        found, left = [], num_rows
        for batch in self._batches:
            found.append(batch.slice(0, left))
            left -= found[-1].num_rows
            if left <= 0:
                break
        return pa.Table.from_batches(found, self.projected_schema)

    def take(self, indices: Any) -> Any:
        """Return rows by their places in the scan."""
        return self.to_table().take(indices)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_reader().__arrow_c_stream__(requested_schema)


def _split(block: Block, most: int, chunk: int) -> list[Block]:
    """Cut about this many rows off the beginning of a block, at the end of a chunk if possible.

    >>> _split(Block(0, 100), 30, 20)
    [Block(start=0, length=20), Block(start=20, length=80)]
    >>> _split(Block(0, 100), 30, 90)
    [Block(start=0, length=30), Block(start=30, length=70)]
    >>> _split(Block(0, 20), 30, 90)
    [Block(start=0, length=20)]
    """
    stop = block.start + most
    if chunk <= 2 * most:
        stop = max(stop - stop % chunk, block.start - block.start % chunk + chunk)
    if stop >= block.stop:
        return [block]
    return [Block(block.start, stop - block.start), Block(stop, block.stop - stop)]


def _joined(pages: Sequence[Block], most: int) -> list[Block]:
    """Join pages that follow each other to blocks of at most this many rows."""
    found: list[Block] = []
    for page in pages:
        last = found[-1] if found else None
        if (
            last is not None
            and last.stop == page.start
            and last.start // most == (page.stop - 1) // most
        ):
            found[-1] = Block(last.start, last.length + page.length)
        else:
            found.append(page)
    return found


def _batch(arrays: Sequence[Any], schema: Any, rows: int) -> Any:
    if arrays:
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    # A batch without columns still has a number of rows.
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _cut(batches: Sequence[Any], most: int | None) -> Iterator[Any]:
    for batch in batches:
        if most is None or batch.num_rows <= most:
            yield batch
        else:
            for first in range(0, batch.num_rows, most):
                yield batch.slice(first, most)


def _binds(expressions: Sequence[Any], schema: Any) -> None:
    """Raise Arrow's error if expressions can't be evaluated with these columns."""
    for one in expressions:
        ds.dataset(schema.empty_table()).scanner(columns={"x": one})


def _checked(expression: Any, schema: Any) -> Any:
    """Return a filter after checking that it is one for these columns."""
    if expression is None:
        return None
    if not isinstance(expression, ds.Expression):
        raise ArgumentError(
            "filter is an expression of pyarrow, such as pyarrow.dataset.field('area') > 10: got "
            f"{expression!r:.100}"
        )
    try:
        kind = ds.dataset(schema.empty_table()).scanner(columns={"x": expression}).projected_schema
    except (pa.ArrowException, KeyError) as error:
        raise ArgumentError(f"the filter {expression} can't be applied: {error}") from error
    if not pa.types.is_boolean(kind.field("x").type):
        raise ArgumentError(f"the filter {expression} is not true or false for a row")
    return expression


def _used(expressions: Sequence[Any], schema: Any) -> list[str]:
    """Return the columns that expressions need: those without which they can't be evaluated."""

    def needed(names: list[str]) -> list[str]:
        rest = pa.schema([one for one in schema if one.name not in names])
        try:
            _binds(expressions, rest)
        except pa.ArrowException:
            if len(names) == 1:
                return names
            half = len(names) // 2
            return needed(names[:half]) + needed(names[half:])
        return []

    return needed(list(schema.names))
