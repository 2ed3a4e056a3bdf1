"""A table as a container of columns, and as data of other libraries.

These are the methods that :class:`ratzarr.RatZarr` and ``gdalbridge.Table`` share.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.errors import ArgumentError, ColumnNotFoundError
from ratzarr.format.blocks import Block
from ratzarr.format.names import near_names
from ratzarr.interop.source import Source, required

if TYPE_CHECKING:
    from ratzarr.interop.dataset import TableDataset

__all__ = ["LazyColumn", "TableMethods"]

Array = NDArray[Any]


class LazyColumn:
    """A column of a table; its values are read when they are asked for.

    ``column[a:b]`` reads rows, ``column[7]`` one value, ``numpy.asarray(column)`` all.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
    shape : tuple of int
        (rows,), or (rows, width).
    """

    def __init__(
        self, source: Source, name: str, attributes: Callable[[str], Mapping[str, Any]]
    ) -> None:
        field = source.field(name)
        self._source, self.name, self._attributes = source, name, attributes
        self.dtype: np.dtype[Any] = field.dtype
        self.shape = (field.rows,) if field.width == 1 else (field.rows, field.width)
        self.chunk_rows = field.chunk_rows

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The column's attributes; where they can be changed, each change is saved at once."""
        return self._attributes(self.name)

    @property
    def ndim(self) -> int:
        """1, or 2 for a column with several values per row."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise ArgumentError(
            f"column {self.name!r} is neither true nor false; read its values first"
        )

    def __eq__(self, other: object) -> bool:
        if self is other or isinstance(other, LazyColumn):
            return self is other
        # Python's answer would be False.
        raise ArgumentError(
            f"column {self.name!r} is not compared as a whole: read its values first, as column[:]"
        )

    __hash__ = object.__hash__

    def __getitem__(self, key: Any) -> Any:
        if key is Ellipsis:
            key = slice(None)
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) and key else (key, ())
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step < 0:
                wanted = range(start, stop, step)
                low, high = (wanted[-1], wanted[0] + 1) if wanted else (0, 0)
                values = self._read(low, high)[::-1][::-step]
            else:
                values = self._read(start, max(start, stop))[::step]
            part: Array = values[:, *rest] if rest else values
            return part
        try:
            at = rows.__index__() if not isinstance(rows, (bool, np.bool_)) else None
        except (AttributeError, TypeError):
            at = None
        if at is None:
            raise ArgumentError(
                f"column {self.name!r} takes a row number or a slice of rows: got {rows!r:.100}. For "
                "chosen rows, read them with numpy.asarray(column)[rows]"
            )
        if not -len(self) <= at < len(self):
            raise IndexError(f"column {self.name!r} has {len(self)} rows; row {at} was asked for")
        at %= len(self)
        value = self._read(at, at + 1)[0]
        return value[rest] if rest else value

    def is_of(self, place: str, name: str) -> bool:
        """Return True if this is the column of this name, of the table at this place."""
        return (self._source.place, self.name) == (place, name)

    def reopened(self) -> "LazyColumn":
        """Return the column as a new instance of its table shows it."""
        return LazyColumn(self._source.reopener()(), self.name, self._attributes)

    def _read(self, start: int, stop: int) -> Array:
        if start == stop:
            # An empty block has the right dtype, too.
            start = stop = min(start, len(self))
        values: Array = self._source.read([self.name], Block(start, stop - start))[self.name]
        return values

    def __iter__(self) -> Iterator[Any]:
        step = self.chunk_rows
        for start in range(0, len(self), step):
            yield from self._read(start, min(start + step, len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a column is read into a new array: copy=False is not possible")
        values = self[:]
        wanted: Array = values if dtype is None else values.astype(dtype, copy=False)
        return wanted

    def __arrow_array__(self, type: Any = None) -> Any:  # noqa: A002 - Arrow's name
        from ratzarr.interop.dataset import TableDataset

        array = TableDataset(self._source, [self.name]).to_reader().read_all().column(0)
        return array if type is None else array.cast(type)

    def __repr__(self) -> str:
        dtype = {"T": "str", "O": "bytes"}.get(self.dtype.kind, str(self.dtype))
        return f"<column {self.name!r}: {dtype}, shape {self.shape}>"


class TableMethods:
    """A table as a container of columns, and as data of other libraries."""

    @property
    @abstractmethod
    def _source(self) -> Source:
        """Return the source from which blocks of rows are read."""

    def _attributes_of(self, name: str) -> Mapping[str, Any]:
        """Return a column's attributes."""
        return MappingProxyType(dict(self._source.field(name).attributes))

    # ---- a container

    def __len__(self) -> int:
        return self._source.rows

    def __bool__(self) -> bool:
        # A table without rows is still a table.
        return True

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._source.names

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._source.names))

    def __getitem__(self, name: str) -> LazyColumn:
        if not isinstance(name, str):
            raise ArgumentError(
                f"a table is indexed by a column's name: got {name!r:.100}. Rows are read from a "
                "column, as table['area'][10:20], or with to_arrow(rows=slice(10, 20))"
            )
        if name not in self:
            raise ColumnNotFoundError(
                f"{self._source.place} has no column {name!r}{near_names(name, self._source.names)}"
            )
        return LazyColumn(self._source, name, self._attributes_of)

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._source.names)

    # ---- Arrow

    @property
    def schema(self) -> Any:
        """The columns' Arrow types (``pyarrow.Schema``), with their attributes as metadata."""
        return self.scan().to_reader().schema

    def scan(
        self,
        columns: Sequence[str] | None = None,
        rows: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
        *,
        rename: Mapping[str, str] | None = None,
        dictionaries: bool = False,
        row_first: bool = False,
    ) -> "TableDataset":
        """Return the table as a ``pyarrow.dataset.Dataset``, without reading it.

        DuckDB, Arrow and others read only the columns and rows that they need from it.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these columns, in this order.
        rows : slice, range or (start, stop), optional
            Only these rows.
        filter : pyarrow.dataset.Expression, optional
            Only rows for which it is true. The row number is the column ``row``, or ``_row`` if the
            table has a column ``row``; a condition on it selects the chunks that are read.
        rename : mapping of str to str, optional
            Other names for columns, by their own names.
        dictionaries : bool
            Deliver text as Arrow's dictionary arrays, which DuckDB groups and joins faster.
        row_first : bool
            Put the row numbers first in the schema. DuckDB reads the first column for a query that
            needs none, such as ``SELECT count(*)``.

        Returns
        -------
        TableDataset

        Examples
        --------
        >>> import pyarrow.dataset as ds, tempfile, ratzarr
        >>> rat = ratzarr.RatZarr(tempfile.mkdtemp() + "/seg.tif.rat.zarr", newRowCount=3)
        >>> rat["area"] = [1.5, 2.5, 3.5]
        >>> rat.scan(filter=ds.field("area") > 2).to_table(columns=["row"])["row"].to_pylist()
        [1, 2]
        """
        required("pyarrow", "arrow", "a scan")
        from ratzarr.interop.dataset import TableDataset

        return TableDataset(
            self._source,
            columns,
            rows=rows,
            filter=filter,
            rename=rename,
            dictionaries=dictionaries,
            row_first=row_first,
        )

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.scan().__arrow_c_stream__(requested_schema)

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        rows: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
    ) -> Any:
        """Return the table as a ``pyarrow.Table``; parameters are those of :meth:`scan`."""
        return self.scan(columns, rows, filter).to_reader().read_all()

    # ---- data frames

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        rows: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
        *,
        dtype_backend: str = "numpy",
    ) -> Any:
        """Return a ``pandas.DataFrame``; its index has the row numbers.

        Parameters
        ----------
        columns, rows, filter
            See :meth:`scan`.
        dtype_backend : {"numpy", "pyarrow"}
            "numpy": the usual dtypes of pandas; a column of integers or bools with missing values
            gets one of pandas' nullable dtypes, because floats would round. "pyarrow": Arrow's
            types.
        """
        required("pyarrow", "pandas", "to_pandas()")
        from ratzarr.interop.frames import to_pandas

        return to_pandas(self.scan(columns, rows, filter), dtype_backend)

    def to_polars(
        self,
        columns: Sequence[str] | None = None,
        rows: Any = None,
        filter: Any = None,  # noqa: A002 - pyarrow's name
    ) -> Any:
        """Return a ``polars.DataFrame``; parameters are those of :meth:`scan`."""
        required("pyarrow", "polars", "to_polars()")
        from ratzarr.interop.frames import to_polars

        return to_polars(self.scan(columns, rows, filter))

    def lazy(self) -> Any:
        """Return a ``polars.LazyFrame``; only what a query needs is read when it is collected.

        It has the row numbers as the last column, ``row``.
        """
        required("pyarrow", "polars", "lazy()")
        from ratzarr.interop.frames import lazy

        return lazy(self.scan())

    def to_dask(self, columns: Sequence[str] | None = None) -> Any:
        """Return a Dask DataFrame; its partitions are the chunks, its index the row numbers.

        Its dtypes are those of :meth:`to_pandas`, and Arrow's for text, bytes and lists. Integers
        and bools are nullable in columns that have a missing value, or fewer rows than the table.

        Values are read when they are computed. Dask's names for the partitions are new with each
        call, so that results of values that have changed meanwhile are not used again.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these columns.
        """
        required("pyarrow", "dask", "to_dask()")
        from ratzarr.interop.frames import to_dask

        return to_dask(self._source, columns)

    def to_xarray(self, columns: Sequence[str] | None = None) -> Any:
        """Return an ``xarray.Dataset`` with lazy (Dask) arrays, one for each column, in order.

        The dimensions are ``row``, and ``<column>_value`` for a column with several values per
        row; underscores are put before them if there are columns of these names. A column that is
        shorter than the table has a dimension of its own, ``<column>_row``. Values are as they are
        stored: an integer that stands for a missing value stays one.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these columns.
        """
        required("pyarrow", "xarray", "to_xarray()")
        from ratzarr.interop.frames import to_xarray

        return to_xarray(self._source, columns)

    def head(self, n: int = 5) -> Any:
        """Return the first rows as a ``pandas.DataFrame``."""
        required("pandas", "pandas", "head()")
        return self.to_pandas(rows=(0, n))
