"""A raster's table, with its sidecars', for Python: a container of columns, and data of other tools.

>>> import tempfile
>>> import numpy as np
>>> import ratzarr
>>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
>>> ratzarr.RatZarr(path, newRowCount=3).close()
>>> with open_table(path) as table:
...     table["area"] = np.array([1.5, 2.5, 3.5])
...     table["area"][1:]
array([2.5, 3.5])
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import progress_of
from gdalbridge.sidecars.merged import Column, Columns, is_store
from gdalbridge.sidecars.naming import sidecar_dir_advised
from gdalbridge.sidecars.new_columns import inherited_attributes, target_of
from gdalbridge.sidecars.provenance import RASTER_ATTR, column_provenance
from gdalbridge.sidecars.source import ColumnsSource, open_source
from ratzarr import (
    ClosedError,
    RatZarr,
    RatZarrError,
    ReadOnlyError,
    ShapeError,
)
from ratzarr.errors import Advice
from ratzarr.format import PROVENANCE_ATTR, chunk_rows_of
from ratzarr.interop import TableMethods, is_missing, required, store_column

if TYPE_CHECKING:
    from gdalbridge.exchange.join import JoinReport

__all__ = ["Table", "open_table"]

SHOWN_ROWS = 5
"""Rows that a notebook shows."""
SHOWN_COLUMNS = 20


def open_table(
    place: Any,
    band: int = 1,
    *,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    update: bool = True,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> "Table":
    """Open a raster's table: the raster's own columns and its sidecars', or a store.

    Parameters
    ----------
    place : str, os.PathLike, gdal.Dataset or zarr store
        A raster (path, URL, ``/vsi...`` name or open dataset), or a sidecar or any other RatZarr.
    band : int
        Band of a raster, counted from 1.
    names : sequence of str or None, optional
        The sidecars of a raster to include: the names of further tables, and None for the band's
        first table. By default all. New columns go to the first of these.
    prefer : {"sidecar", "raster"}
        The source of a column that both have.
    update : bool
        False to refuse writes. Nothing is written to the raster itself in any case, and a place
        that can't be written is opened for reading.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8; for a ``.vat.dbf``
        the encoding that it declares.
    lossy : bool
        Read the raster's own table even if GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`. Also used for a raster on S3.

    Returns
    -------
    Table
        A context manager. A raster without a table gives one without rows and columns, whose first
        column determines the number of rows.

    Raises
    ------
    RasterNotFoundError
        If the raster or the band does not exist; with ``update=False`` also if there is no table.
    BridgeError
        If a sidecar in ``names`` does not exist.
    """
    options = ReadOptions(encoding, lossy)
    columns, source = open_source(
        place, band=band, names=names, prefer=prefer, may_be_empty=update,
        storage_options=storage_options, options=options,
    )  # fmt: skip
    name = None if not names else names[0]
    return Table(columns, source, place, band, name, update, storage_options)


class Table(TableMethods):
    """The table of a raster, or a store; opened by :func:`open_table`.

    ``table["ndvi"]`` is a column whose values are read when they are needed. ``table["ndvi"] =
    values`` creates or replaces a column in the raster's sidecar, and ``del table["ndvi"]`` deletes
    it there; nothing is written to the raster. ``len(table)`` is the number of rows, and iteration
    yields the names of the columns.

    Examples
    --------
    >>> import tempfile, ratzarr
    >>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
    >>> ratzarr.RatZarr(path, newRowCount=2).close()
    >>> table = open_table(path)
    >>> table["class"] = ["water", "forest"]
    >>> table.to_pandas()
          class
    row
    0     water
    1    forest
    """

    def __init__(
        self,
        columns: Columns,
        source: ColumnsSource,
        place: Any,
        band: int,
        name: str | None,
        update: bool,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        self._columns, self._opened = columns, source
        self._place, self._band, self._name = place, band, name
        self._update, self._options = update, storage_options
        self._written: dict[str, RatZarr] = {}
        self._closed = self._stale = False

    # ---- reading

    @property
    def _source(self) -> ColumnsSource:
        self._check_open()
        if self._stale:
            self._look_again()
        return self._opened

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._columns.name}: this table was closed")

    def _attributes_of(self, name: str) -> Mapping[str, Any]:
        column = self._columns[name]
        if self._update and column.table is not None:
            with suppress(RatZarrError):
                writable = self._store(str(column.table.filename))
                # The caller may change them.
                self._stale = True
                mapping: Mapping[str, Any] = writable.getColumnAttributeMapping(column.key)
                return mapping
        return MappingProxyType(dict(self._opened.field(name).attributes))

    @property
    def place(self) -> str:
        """The raster or the store, as it was opened."""
        return self._columns.name

    @property
    def sidecars(self) -> list[str]:
        """Paths or URLs of the stores that columns come from."""
        return [str(one.filename) for one in self._columns.tables]

    @property
    def rowCount(self) -> int:  # noqa: N802 - the name that RatZarr has
        """Number of rows. Assigning to it changes the sidecar, which is created if needed."""
        return len(self)

    @rowCount.setter
    def rowCount(self, rows: int) -> None:  # noqa: N802 - RatZarr's name
        self._check_writable()
        own = max((one.rows for one in self._columns.own), default=0)
        if rows < own:
            raise BridgeError(
                f"{self.place} has {own} rows of its own, which are never cut off: {rows} rows were "
                "asked for"
            )
        self._sidecar(rows, self._name).setRowCount(rows)
        self._look_again()

    def sql(self, query: str, **tables: Any) -> Any:
        """Run a query over the table, which is called ``rat``; see the guide to DuckDB.

        Parameters
        ----------
        query : str
            SQL of DuckDB: one statement that only reads. The column ``row`` has the row numbers.
        **tables
            Further tables by their names in the query: a Table, a :class:`ratzarr.RatZarr`, a data
            frame or an Arrow table.

        Returns
        -------
        duckdb.DuckDBPyRelation
            Nothing is read before its rows are fetched. It can't reach files or the network. If a
            table can't be read while rows are fetched, the error is one of DuckDB's, with the
            reason.

        Raises
        ------
        BridgeError
            For an invalid query, or something that is not a table.
        PackageMissingError
            If the extra ``sql`` is not installed.

        Warns
        -----
        UserWarning
            If columns get other names in the query, because theirs differ only in case.

        Examples
        --------
        >>> import tempfile, ratzarr
        >>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
        >>> ratzarr.RatZarr(path, newRowCount=2).close()
        >>> table = open_table(path)
        >>> table["area"] = [1.5, 2.5]
        >>> table.sql("SELECT row, area FROM rat WHERE area > 2").fetchall()
        [(1, 2.5)]
        """
        from gdalbridge.sql.query import relation

        if "rat" in tables:
            raise BridgeError("rat is this table's own name: give the other one another name")
        return relation({"rat": self, **tables}, query)

    # ---- looking

    def describe(self, columns: Iterable[str] | None = None, *, progress: Any = None) -> Any:
        """Return exact statistics of the columns as one grid: a row for each column.

        Parameters
        ----------
        columns : iterable of str, optional
            Only these, in this order.
        progress : None, True, callable or object
            See :mod:`gdalbridge.progress`.

        Returns
        -------
        TableSummary
            Prints as a grid, in a terminal and in a notebook. ``as_dict`` and ``as_csv`` have all
            digits.

        Raises
        ------
        ColumnSelectionError
            If a column does not exist.
        PackageMissingError
            If the extra ``sql`` is not installed.

        Examples
        --------
        >>> import tempfile, ratzarr
        >>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
        >>> ratzarr.RatZarr(path, newRowCount=3).close()
        >>> table = open_table(path)
        >>> table["area"] = [1.5, 2.5, 5.0]
        >>> table.describe().columns[0].stats.mean
        3.0
        """
        from gdalbridge.sql.summary import summarize

        # This looks at the stores again, if needed.
        _ = self._source
        return summarize(self._columns, columns, progress=progress)

    def plot(
        self,
        column: str,
        by: str | None = None,
        *,
        ax: Any = None,
        kind: str | None = None,
        bins: Any = None,
        weights: str | bool | None = None,
        log: bool | None = None,
        top: int = 20,
    ) -> Any:
        """Draw a column, alone or by another one.

        A column of numbers or date-times is a histogram; text, bools and integers of at most 20
        different values are classes with bars. A number by a class has a box for each class, a
        class by a class stacked bars, and a number by a number is a scatter plot, or a density
        if there are many rows. Classes have their colours from the columns with the usages Red,
        Green, Blue and Alpha, if all rows of a class have the same one. The title says what is
        left out: rows without a value, and rare classes.

        Parameters
        ----------
        column : str
            For one value of a column with several values per row, ``"name[0]"``.
        by : str, optional
            Another column, on the horizontal axis if both are numbers.
        ax : matplotlib.axes.Axes, optional
            By default one in a new figure of ``matplotlib.pyplot``.
        kind : {"bars", "box", "density", "histogram", "scatter"}, optional
            By default chosen by the columns.
        bins : int or (int, float, float), optional
            Bins of a histogram, and their first and last edge.
        weights : str or bool, optional
            For bars and histograms: the column whose sum is drawn in place of the number of rows;
            True for the one whose usage is PixelCount.
        log : bool, optional
            Logarithmic counts. By default, if the largest is at least 1000 times the smallest.
        top : int
            Number of classes; rarer ones are drawn together.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        BridgeError
            If the column has no value that can be drawn.
        PackageMissingError
            If the extra ``plot`` is not installed.
        """
        from gdalbridge.plots import plot

        return plot(
            self, self.place, column, by, ax=ax, kind=kind, bins=bins, weights=weights, log=log,
            top=top,
        )  # fmt: skip

    # ---- writing

    def __setitem__(self, name: str, values: Any) -> None:
        """Create a column in the sidecar from all its values, or replace it there.

        Parameters
        ----------
        name : str
        values : array-like, LazyColumn or scalar
            One row for each row of the table: an array of numpy, pandas, Polars or Arrow, a list, or
            a column of another table. A scalar is the value of all rows.

        Raises
        ------
        ShapeError
            If the number of rows differs.
        UnsupportedDtypeError, UnequalValueError
            If no column holds the values exactly. Nothing is changed.
        """
        self._check_writable()
        if isinstance(values, np.ndarray) and not values.ndim:
            values = values[()]
        rows = len(self)
        empty = not rows and not self._columns.by_name
        if empty:
            rows = len(values) if hasattr(values, "__len__") else 0
        elif hasattr(values, "__len__") and len(values) != rows and not isinstance(values, str):
            raise ShapeError(
                f"{self.place} has {rows} rows, and the values for column {name!r} have {len(values)}"
            )
        existed = set(self.sidecars)
        store = self._target(rows, self._name, f"Set table.rowCount = {rows} first.")
        try:
            store_column(store, name, values, partial(self._attributes, name, store))
        except BaseException:
            self._forget_new(store, existed)
            raise
        self._look_again()

    def update_from(
        self,
        data: Any,
        *,
        on: str = "row",
        columns: Sequence[str] | None = None,
        name: str | None = None,
        overwrite: bool = False,
        progress: Any = None,
    ) -> "JoinReport":
        """Join columns of other data into the sidecar, by a key.

        The keys are held in memory; the table is read and written block by block. Large files are
        read into a temporary file first.

        Parameters
        ----------
        data : str, os.PathLike or data frame
            A CSV, Parquet, Arrow or Feather file, local or on S3, or a DataFrame or table of
            pandas, Polars or Arrow. It has the key's column; with pandas the key may be the index.
        on : str
            The key: a column of the table and of the data, or "row" for the row numbers.
        columns : sequence of str, optional
            The columns to take from the data. By default all others.
        name : str, optional
            Write to a further table of this name, which is created if needed.
        overwrite : bool
            Replace existing columns. Each stays readable until its replacement is complete.
        progress : None, True, callable or object
            See :mod:`gdalbridge.progress`.

        Returns
        -------
        JoinReport
            Says how many rows matched and missed, which keys of the data no row has, and how many
            of its rows repeat another one.

        Raises
        ------
        OutputExistsError
            If a column exists and may not be replaced.
        BridgeError
            If no row matches, the keys can't be compared, or two rows of the data have one key and
            different values.
        ConversionError
            If a column of bools has no value for a row. Rows without a value get NaN, NaT or empty
            text; integers get an unused value, which is recorded in ``missing_value`` and reads as
            NULL. After every error and Ctrl-C, unfinished columns are removed.

        Examples
        --------
        >>> import tempfile, pandas, ratzarr
        >>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
        >>> ratzarr.RatZarr(path, newRowCount=3).close()
        >>> table = open_table(path)
        >>> frame = pandas.DataFrame({"row": [2, 0], "owner": ["Ann", "Bob"]})
        >>> report = table.update_from(frame)
        >>> report.matched, report.missed, table["owner"][:].tolist()
        (2, 1, ['Bob', '', 'Ann'])
        """
        started = time.perf_counter()
        self._check_writable()
        required("pyarrow", "arrow", "update_from()")
        from gdalbridge.exchange.join import JoinReport, KeyedData, refuse_existing, write_joined
        from gdalbridge.exchange.join_data import open_data

        rows = len(self)
        if not rows:
            raise BridgeError(
                f"{self.place} has no rows to join to: set their number first (table.rowCount = n)"
            )
        source = self._source
        # A CSV does not say that 007 is text.
        texts = [on] if on in source.names and source.field(on).dtype.kind in "TSU" else []
        with open_data(data, on, columns, self._options, texts=texts) as opened:
            joined = KeyedData(opened, on, source)
            if not overwrite:
                refuse_existing(joined.names, self.columns, self.place)
            existed = set(self.sidecars)
            store = self._target(
                rows,
                self._name if name is None else name,
                "Write to a further table with name=...",
            )
            report = JoinReport(str(store.filename), on)
            try:
                with progress_of(progress) as reporter:
                    write_joined(
                        store,
                        joined,
                        lambda name, dtype: self._attributes(name, store, dtype, "join"),
                        report,
                        reporter,
                    )
            except BaseException:
                self._forget_new(store, existed)
                raise
        self._look_again()
        report.seconds = time.perf_counter() - started
        return report

    def __delitem__(self, name: str) -> None:
        """Delete a column from its sidecar. The raster's own columns can't be deleted."""
        self._check_writable()
        column: Column = self._columns[name]
        if column.table is None:
            raise BridgeError(
                f"column {name!r} belongs to the raster's own table of {self.place}, which is never "
                "changed"
            )
        if column.part is not None:
            raise BridgeError(f"column {name!r} is a part of {column.key!r}; delete that one")
        self._store(str(column.table.filename)).deleteColumn(column.key)
        self._look_again()

    def _check_writable(self) -> None:
        self._check_open()
        if not self._update:
            raise ReadOnlyError(f"{self.place} was opened with update=False")

    def _store(self, path: Any) -> RatZarr:
        """Return the store at a path, opened for writing."""
        key = str(path)
        if key not in self._written:
            self._written[key] = RatZarr(path, create=False, storageOptions=self._options)
        return self._written[key]

    def _target(self, rows: int, name: str | None, hint: str) -> RatZarr:
        """Return the store for new columns; create it if needed, or say how to get so many rows."""
        store = self._sidecar(rows, name)
        if store.rowCount != rows:
            if store.getColumnNames():
                raise ShapeError(
                    Advice(
                        f"{store.filename} has {store.rowCount} rows, and the table of {self.place} "
                        f"{rows}.",
                        hint,
                    )
                )
            store.setRowCount(rows)
        return store

    def _sidecar(self, rows: int, name: str | None) -> RatZarr:
        """Return the store of this name, opened for writing; a new one gets so many rows."""
        path = target_of(self._columns, self._place, self._band, name, self._options)
        if is_store(self._place) or str(path) in self._written:
            return self._store(path)
        chunk = chunk_rows_of(rows)
        with sidecar_dir_advised(path):
            store = RatZarr(
                path, storageOptions=self._options, newRowCount=rows, newChunkSize=chunk
            )
        self._written[str(path)] = store
        return store

    def _forget_new(self, store: RatZarr, existed: set[str]) -> None:
        """Delete a sidecar that a failed write has created."""
        path = str(store.filename)
        if is_store(self._place) or path in existed:
            return
        with suppress(RatZarrError):
            if not store.getColumnNames():
                self._written.pop(path, None)
                store.close()
                RatZarr.delete(path, storageOptions=self._options)

    def _attributes(
        self, name: str, store: RatZarr, dtype: np.dtype[Any], operation: str = "table"
    ) -> dict[str, Any]:
        """Return the attributes of a new column: its origin, and those it inherits."""
        kept = inherited_attributes(self._columns.by_name.get(name), dtype)
        host = self._columns.host
        if host is None or self._columns.dataset is None:
            return kept
        now = host.now(self._columns.dataset, str(store.filename), self._options)
        mapping = store.getRatAttributeMapping()
        if mapping.get(RASTER_ATTR) is None:
            mapping[RASTER_ATTR] = dict(now)
        return kept | {PROVENANCE_ATTR: column_provenance(operation, now, None)}

    def _look_again(self) -> None:
        self._stale = False
        self._columns.reload()

    # ---- the instance

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the raster and the stores."""
        if not self._closed:
            self._closed = True
            try:
                while self._written:
                    self._written.popitem()[1].close()
            finally:
                self._columns.__exit__(None, None, None)

    def __repr__(self) -> str:
        if self._closed:
            return f"<Table of {self.place}: closed>"
        kinds, values = self._first_rows()
        lines = [f"<Table of {self.place}: {len(self)} rows, {len(self.columns)} columns>"]
        width = max(map(len, kinds), default=0)
        room = max(map(len, kinds.values()), default=0)
        lines += [
            f"  {name:<{width}}  {kind:<{room}}  {', '.join(values[name])}"
            + (", ..." if len(self) > SHOWN_ROWS else "")
            for name, kind in kinds.items()
        ]
        if len(self.columns) > len(kinds):
            lines.append(f"  and {len(self.columns) - len(kinds)} more columns")
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if self._closed:
            return f"<div>{escape(self.place)}: closed</div>"
        kinds, values = self._first_rows()
        title = f"{escape(self.place)}: {len(self)} rows, {len(self.columns)} columns"
        head = "".join(f"<th>{escape(name)}</th>" for name in kinds)
        under = "".join(f"<td><i>{escape(kind)}</i></td>" for kind in kinds.values())
        body = "".join(
            f"<tr><th>{row}</th>"
            + "".join(
                f"<td>{escape(one[row]) if row < len(one) else ''}</td>" for one in values.values()
            )
            + "</tr>"
            for row in range(min(len(self), SHOWN_ROWS))
        )
        if len(self.columns) > len(kinds):
            title += f", the first {len(kinds)} are shown"
        return (
            f"<div>{title}</div><table><tr><th>row</th>{head}</tr><tr><td></td>{under}</tr>"
            f"{body}</table>"
        )

    def _first_rows(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        """Describe the first columns, and return their first values as text."""
        names = self.columns[:SHOWN_COLUMNS]
        kinds = {name: _kind(self._columns[name]) for name in names}
        values = {}
        for name in names:
            try:
                values[name] = self._first_values(name)
            except RatZarrError as error:
                values[name] = [f"can't be read: {error}"]
        return kinds, values

    def _first_values(self, name: str) -> list[str]:
        """Return the first values of a column as text."""
        values = self[name][:SHOWN_ROWS]
        missing = self._source.field(name).missing
        if missing is not None:
            shown = values.astype(object)
            shown[is_missing(values, missing)] = MISSING
            values = shown
        return [_short(one) for one in values.tolist()]


class _Missing:
    """A missing value, also inside a list, as pandas shows it."""

    def __repr__(self) -> str:
        return "<NA>"


MISSING = _Missing()


def _kind(column: Column) -> str:
    """Describe a column: dtype, values per row, usage and units."""
    from gdalbridge.gdalio.field_types import usage_in, usage_name

    dtype = column.dtype
    words = [{"T": "str", "O": "bytes"}.get(dtype.kind, str(dtype))]
    if column.width > 1:
        words[0] += f"[{column.width}]"
    usage = usage_in(column.attributes)
    if usage:
        words.append(usage_name(usage))
    units = column.attributes.get("units")
    if isinstance(units, str) and units:
        words.append(f"[{units}]")
    return " ".join(words)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
