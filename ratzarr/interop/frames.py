"""A table as frames of pandas, Polars and Dask, and as a dataset of xarray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ratzarr.errors import ArgumentError
from ratzarr.format.blocks import Block
from ratzarr.interop.dataset import TableDataset
from ratzarr.interop.source import (
    Field,
    Source,
    check_missing,
    check_unchanged,
    chosen_fields,
    required,
    row_name,
)

__all__ = ["lazy", "to_dask", "to_pandas", "to_polars", "to_xarray"]

Array = NDArray[Any]


def to_pandas(scan: TableDataset, dtype_backend: str = "numpy") -> Any:
    """Return a DataFrame of a scan; see :meth:`ratzarr.RatZarr.to_pandas`."""
    pd = required("pandas", "pandas", "to_pandas()")
    if dtype_backend not in ("numpy", "pyarrow"):
        raise ArgumentError(f"dtype_backend is 'numpy' or 'pyarrow': got {dtype_backend!r}")
    return _frame(pd, scan.to_reader(scan.schema.names).read_all(), scan.row_name, dtype_backend)


def _frame(
    pd: Any, table: Any, row: str, dtype_backend: str, nullable: Sequence[str] | None = None
) -> Any:
    """Return a DataFrame; the last column, with the row numbers, becomes the index.

    Parameters
    ----------
    pd : module
    table : pyarrow.Table
    row : str
        The column with the row numbers.
    dtype_backend : {"numpy", "pyarrow"}
    nullable : sequence of str, optional
        The columns of integers and bools that get nullable dtypes, and Arrow's types for text,
        bytes and lists. By default those with nulls, and the usual dtypes of pandas.
    """
    rows = table.column(row).to_numpy()
    table = table.drop_columns([row]).replace_schema_metadata(None)
    if dtype_backend == "pyarrow":
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    else:
        frame = pd.DataFrame(
            {
                place: _series(
                    pd,
                    column,
                    is_nullable=bool(column.null_count) if nullable is None else name in nullable,
                    has_objects=nullable is None,
                )
                for place, (name, column) in enumerate(
                    zip(table.column_names, table.columns, strict=True)
                )
            },
            index=range(table.num_rows),
        )
        frame.columns = table.column_names
    consecutive = len(rows) == 0 or rows[-1] - rows[0] == len(rows) - 1
    start = int(rows[0]) if len(rows) else 0
    frame.index = (
        pd.RangeIndex(start, start + len(rows), name="row")
        if consecutive
        else pd.Index(rows, name="row")
    )
    return frame


def _series(pd: Any, column: Any, *, is_nullable: bool, has_objects: bool) -> Any:
    """Return an Arrow array as a Series of numpy's dtypes, as far as they hold its nulls."""
    nullable = {
        "int8": pd.Int8Dtype(), "int16": pd.Int16Dtype(), "int32": pd.Int32Dtype(),
        "int64": pd.Int64Dtype(), "uint8": pd.UInt8Dtype(), "uint16": pd.UInt16Dtype(),
        "uint32": pd.UInt32Dtype(), "uint64": pd.UInt64Dtype(), "bool": pd.BooleanDtype(),
    }  # fmt: skip
    numbers = ("int", "uint", "float", "double", "half", "bool", "date", "timestamp")

    def mapper(kind: Any) -> Any:
        if is_nullable and str(kind) in nullable:
            return nullable[str(kind)]
        is_object = not has_objects and not str(kind).startswith(numbers)
        return pd.ArrowDtype(kind) if is_object else None

    # Integers with nulls in lists would become floats, which round.
    return column.to_pandas(types_mapper=mapper, date_as_object=False, integer_object_nulls=True)


def to_polars(scan: TableDataset) -> Any:
    """Return a Polars DataFrame of a scan."""
    pl = required("polars", "polars", "to_polars()")
    return pl.DataFrame(scan.to_reader().read_all())


def lazy(scan: TableDataset) -> Any:
    """Return a Polars LazyFrame of a scan without a filter.

    Polars' own reader of pyarrow datasets would lose rows with NaN: it hands comparisons to Arrow,
    where they are false for NaN, and to Polars NaN is the largest number.
    """
    pl = required("polars", "polars", "lazy()")
    plugins = required("polars.io.plugins", "polars", "lazy()")
    names = scan.schema.names
    schema = pl.DataFrame(scan.schema.empty_table()).schema

    def source(
        with_columns: Sequence[str] | None,
        predicate: Any,
        n_rows: int | None,
        batch_size: int | None,
    ) -> Iterator[Any]:
        wanted = list(names if with_columns is None else with_columns)
        needed = [] if predicate is None else predicate.meta.root_names()
        part = scan
        if n_rows is not None:
            # Polars limits the rows before it filters them.
            first, stop = scan.range
            part = scan.between(first, min(stop, first + n_rows))
        if predicate is not None:
            part = part.between(*_rows_of(pl, predicate, part))
        for batch in part.to_reader(list(dict.fromkeys([*wanted, *needed]))):
            frame = pl.from_arrow(batch)
            if predicate is not None:
                frame = frame.filter(predicate)
            yield frame.select(wanted)

    return plugins.register_io_source(source, schema=schema)


def _rows_of(pl: Any, predicate: Any, scan: TableDataset) -> tuple[int, int]:
    """Return the range of the rows for which the conditions on the row number alone are true."""
    row = scan.row_name
    tests = [one for one in _conditions(predicate) if set(one.meta.root_names()) == {row}]
    first, stop = scan.range
    if not tests or first == stop:
        return first, stop
    # A condition on the row number is computed for all rows, a million at a time: no table is
    # read for it.
    low, high = stop, first
    for start in range(first, stop, 2**20):
        rows = pl.int_range(start, min(start + 2**20, stop), eager=True).alias(row).to_frame()
        found = rows.filter(*tests)
        if len(found):
            low, high = min(low, found[row][0]), found[row][-1] + 1
    return (low, high) if low < high else (first, first)


def _conditions(predicate: Any) -> list[Any]:
    """Return the conditions that a predicate joins by "and"."""
    parts = predicate.meta.pop()
    if len(parts) == 2:
        one, other = parts
        for both in (one & other, other & one):
            if predicate.meta.eq(both):
                return [*_conditions(one), *_conditions(other)]
    return [predicate]


# ---- Dask


class _Partition:
    """Reads one partition, in any process."""

    def __init__(
        self,
        reopen: Callable[[], Source],
        fields: Sequence[Field],
        nullable: Sequence[str],
    ) -> None:
        self.reopen, self.fields = reopen, {one.name: one for one in fields}
        self.nullable = list(nullable)
        # Dask takes results of one name for equal. Nothing that is cheap to look at changes with
        # every write of every process, so no two frames have the same names.
        self.token = uuid4().hex

    def __call__(self, block: tuple[int, int], columns: Sequence[str] | None = None) -> Any:
        pd = required("pandas", "dask", "to_dask()")
        names = list(self.fields if columns is None else columns)
        source = self.reopen()
        rows = max(0, min(source.rows, block[1]) - block[0])
        for name in names:
            one, now = self.fields[name], source.field(name)
            expected = one.dtype, (block[1] - block[0], one.width)
            check_unchanged(source.place, name, expected, (now.dtype, (rows, now.width)))
            check_missing(source.place, name, one.attributes, now.attributes)
        scan = TableDataset(source, names, rows=block)
        table = scan.to_reader(scan.schema.names).read_all()
        return _frame(pd, table, scan.row_name, "numpy", self.nullable)

    def __dask_tokenize__(self) -> Any:
        return ("ratzarr", self.token)


def to_dask(source: Source, columns: Sequence[str] | None = None) -> Any:
    """Return a Dask DataFrame; see :meth:`ratzarr.RatZarr.to_dask`."""
    dd = required("dask.dataframe", "dask", "to_dask()")
    pd = required("pandas", "dask", "to_dask()")
    names = chosen_fields(source, columns)
    fields = [source.field(name) for name in names]
    scan = TableDataset(source, names)
    # All partitions have the same dtypes, whether they have nulls or not. Floats are numpy's: Dask's
    # sums of Arrow's floats are wrong where there is a NaN.
    rows = source.rows
    nullable = [one.name for one in fields if one.missing is not None or one.rows < rows]
    meta = _frame(pd, scan.schema.empty_table(), row_name(source.names), "numpy", nullable)
    step = max((one.chunk_rows for one in fields), default=max(1, rows))
    blocks = [(first, min(first + step, rows)) for first in range(0, rows, step)] or [(0, 0)]
    divisions = [*(first for first, _ in blocks), max(0, rows - 1)]
    read = _Partition(source.reopener(), fields, nullable)
    return dd.from_map(read, blocks, meta=meta, divisions=divisions, enforce_metadata=False)


# ---- xarray


def to_xarray(source: Source, columns: Sequence[str] | None = None) -> Any:
    """Return an xarray Dataset; see :meth:`ratzarr.RatZarr.to_xarray`."""
    xr = required("xarray", "xarray", "to_xarray()")
    da = required("dask.array", "xarray", "to_xarray()")
    found: dict[str, Any] = {}
    names = chosen_fields(source, columns)
    taken = {*source.names}

    def dimension(name: str) -> str:
        # A variable with the name of its dimension would be a coordinate, which is read at once.
        while name in taken:
            name = f"_{name}"
        taken.add(name)
        return name

    rows = dimension("row")
    for name in names:
        one = source.field(name)
        shape = (one.rows,) if one.width == 1 else (one.rows, one.width)
        lazy_column = _Rows(source.reopener(), name, one.dtype, shape)
        chunks = (one.chunk_rows, *shape[1:])
        values = da.from_array(lazy_column, chunks=chunks, name=False, asarray=False)
        # Rows beyond a short column would have no value: it gets a dimension of its own.
        dimensions = [rows if one.rows == source.rows else dimension(f"{name}_row")]
        if one.width > 1:
            dimensions.append(dimension(f"{name}_value"))
        found[name] = (dimensions, values, dict(one.attributes))
    return xr.Dataset(found)


class _Rows:
    """A column for Dask: an array whose slices are read when a worker needs them."""

    def __init__(
        self,
        reopen: Callable[[], Source],
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self.reopen, self.name, self.dtype, self.shape = reopen, name, dtype, shape
        self.ndim = len(shape)

    def __getitem__(self, key: Any) -> Array:
        # A worker asks for a slice, a row or several rows.
        rows, *rest = key if isinstance(key, tuple) else (key,)
        wanted = np.arange(self.shape[0])[rows] if not isinstance(rows, slice) else rows
        if isinstance(wanted, slice):
            start, stop, step = wanted.indices(self.shape[0])
            inside: Any = slice(None, None, step)
        else:
            start = int(wanted.min(initial=self.shape[0]))
            stop, inside = int(wanted.max(initial=-1)) + 1, wanted - start
        block = Block(min(start, self.shape[0]), max(0, stop - start))
        source = self.reopen()
        values = source.read([self.name], block)[self.name]
        expected = self.dtype, (block.length, *self.shape[1:])
        check_unchanged(source.place, self.name, expected, (values.dtype, values.shape))
        chosen: Array = values[(inside, *rest)]
        return chosen
