"""Export a table to Parquet, CSV, Arrow, GeoPackage and dBASE files, block by block.

The file gets its name when it is complete. After an error or Ctrl-C nothing is left.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdalbridge.copying.report import Report
from gdalbridge.errors import BridgeError, ColumnSelectionError, LossWarning
from gdalbridge.exchange import arrow_files
from gdalbridge.gdalio.field_types import FieldUsage, usage_in
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.output import Output
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.source import open_source
from gdalbridge.sql.condition import Condition
from ratzarr.errors import Advice
from ratzarr.format import near_names
from ratzarr.interop import Source, TableMethods, required, row_name

__all__ = ["SUFFIXES", "ExportReport", "export_table", "table_format"]

FORMATS = arrow_files.SUFFIXES | {".gpkg": "gpkg", ".dbf": "dbf"}
VAT = ".vat.dbf"
SUFFIXES = (*FORMATS, VAT)
"""The file suffixes that determine the format."""
VALUE, COUNT = "Value", "Count"
"""The columns that every ``.vat.dbf`` has."""


@dataclass(frozen=True, slots=True)
class ExportReport(Report):
    """The result of an export to a file."""

    source: str
    target: str
    format: str
    rows: int
    """Number of rows written."""
    columns: tuple[str, ...]
    """Names of the columns in the file."""
    bytes_stored: int
    seconds: float
    losses: tuple[str, ...] = ()
    """Descriptions of values that the format does not keep."""
    notes: tuple[str, ...] = ()
    """Descriptions of how values are written."""

    def __str__(self) -> str:
        return (
            f"{self.source} -> {self.target}: {len(self.columns)} columns of {self.rows} rows, "
            f"{self.bytes_stored / 1e6:.1f} MB, {self.seconds:.2f} s"
        )


def table_format(out: Any) -> str | None:
    """Return the format of a table's file by its suffix, or None.

    >>> table_format("seg.vat.dbf"), table_format("s3://bucket/seg.PARQUET"), table_format("a.tif")
    ('dbf', 'parquet', None)
    """
    return FORMATS.get(Path(os.fspath(out)).suffix.lower())


def export_table(
    place: Any,
    out: Any,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    overwrite: bool = False,
    rename: Mapping[str, str] | None = None,
    row: bool = True,
    strict: bool = False,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
) -> ExportReport:
    """Write a raster's table, or a store, to a file of another format.

    Parameters
    ----------
    place : str, os.PathLike, gdal.Dataset, Table or RatZarr
        A raster: its own columns and its sidecars'. Or a sidecar, or any other RatZarr.
    out : str or os.PathLike
        The file: local, on S3, or at another URL that fsspec writes to. Its suffix is the format:
        ``.parquet``, ``.csv``, ``.arrow``, ``.feather``, ``.gpkg``, ``.dbf`` or ``.vat.dbf``.
    columns : sequence of str, optional
        Only these columns, in this order.
    where : str, optional
        Only the rows for which this expression is true, as in :func:`gdalbridge.calc`. It may also
        use the row numbers, ``row``.
    overwrite : bool
        Replace an existing file.
    rename : mapping of str to str, optional
        Other names in the file, by the columns' own.
    row : bool
        Also write the row numbers: the first column, called ``row``; in a GeoPackage the features'
        numbers (FID); in a ``.vat.dbf`` the column Value, if there is none.
    strict : bool
        Make every loss an error.
    band : int
        Band of a raster, counted from 1.
    names : sequence of str or None, optional
        The sidecars of a raster to include, see :func:`gdalbridge.open_table`.
    prefer : {"sidecar", "raster"}
        The source of a column that both have.
    encoding : str, optional
        Encoding of text and names in the raster's own table.
    lossy : bool
        Read the raster's own table even if GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.

    Returns
    -------
    ExportReport

    Raises
    ------
    OutputExistsError
        If the file exists and may not be replaced.
    ConversionError
        If the format can't hold a column, or a value; names the row, and a way out.
    BridgeError
        For an unknown suffix, or an invalid condition.

    Warns
    -----
    LossWarning
        For each column of which the format does not keep all values, such as floats in a ``.dbf``.

    Examples
    --------
    >>> import tempfile, numpy as np, ratzarr, pyarrow.parquet
    >>> folder = tempfile.mkdtemp()
    >>> rat = ratzarr.RatZarr(folder + "/seg.tif.rat.zarr", newRowCount=3)
    >>> rat["area"] = np.array([1.5, 2.5, 3.5])
    >>> report = export_table(rat, folder + "/big.parquet", where="area > 2")
    >>> pyarrow.parquet.read_table(folder + "/big.parquet").to_pydict()
    {'row': [1, 2], 'area': [2.5, 3.5]}
    """
    started = time.perf_counter()
    kind = table_format(out)
    if kind is None:
        raise BridgeError(
            f"{out}: the suffix determines the format: expected one of {', '.join(SUFFIXES)}"
        )
    required("pyarrow", "arrow", f"export to {kind}")
    suffixes = (".cpg",) if kind == "dbf" else ()
    output = Output(out, overwrite, storage_options, suffixes=suffixes)
    output.check(keep_rasters=kind == "gpkg")
    with ExitStack() as stack:
        reporter = stack.enter_context(progress_of(progress))
        if isinstance(place, TableMethods):
            table: TableMethods = place
        else:
            opened, source = open_source(
                place, band=band, names=names, prefer=prefer, storage_options=storage_options,
                options=ReadOptions(encoding, lossy),
            )  # fmt: skip
            stack.enter_context(opened)
            for one in opened.left_out if columns is None else ():
                one.warn()
            table = _Opened(source)
        rows = _Rows(table, columns, where, dict(rename or {}), row, reporter)
        if output.name.lower().endswith(VAT):
            rows.become_vat()
        losses, notes, size = _write(rows, kind, output, strict, reporter)
    beside = (f"{rows.place}{VAT}", f"{Path(rows.place).absolute()}{VAT}")
    if rows.is_partial and str(output) in beside:
        notes.append(
            f"GDAL takes {output} for the raster's own table. Its rows are not the sidecar's, so "
            "bake fails, and other commands warn. Write all rows, or choose another name"
        )
    for loss in losses:
        warnings.warn(f"{output}: {loss}", LossWarning, stacklevel=2)
    return ExportReport(
        rows.place,
        str(output),
        kind,
        rows.written,
        tuple(rows.schema.names[0 if rows.row else 1 :]),
        size,
        time.perf_counter() - started,
        tuple(losses),
        tuple(notes),
    )


class _Opened(TableMethods):
    """An open source with the methods of tables."""

    def __init__(self, source: Source) -> None:
        self._opened = source

    @property
    def _source(self) -> Source:
        return self._opened


class _Rows:
    """The rows to export, as record batches whose first column has the row numbers."""

    def __init__(
        self,
        table: TableMethods,
        columns: Sequence[str] | None,
        where: str | None,
        rename: dict[str, str],
        row: bool,
        reporter: Progress,
    ) -> None:
        import pyarrow as pa

        self._table, self._where, self._reporter = table, where, reporter
        self.row, self.passes, self._pass = row, 1, 0
        self.written = 0
        self.place = str(getattr(table, "place", None) or table._source.place)
        there = table.columns
        chosen = _chosen(there, columns, self.place)
        for one in rename:
            if one not in (*chosen, row_name(there)):
                raise ColumnSelectionError(
                    f"rename: {one!r} is not exported{near_names(one, chosen)}"
                )
        scan = table.scan(there)
        self._number = scan.row_name
        if self._number in chosen:
            # The row numbers are always first.
            chosen.remove(self._number)
        self.names = chosen
        self._rows = scan.range[1]
        kinds = scan.schema
        number = rename.pop(self._number, self._number)
        self.schema = pa.schema(
            [kinds.field(self._number).with_name(number)]
            + [kinds.field(one).with_name(rename.get(one, one)) for one in chosen]
        )
        self.whole: tuple[str, ...] = ()
        self._check_names()

    def _check_names(self) -> None:
        names = self.schema.names if self.row else self.schema.names[1:]
        for name in names:
            if names.count(name) > 1:
                raise BridgeError(f"rename: two columns would be called {name!r}")

    @property
    def is_partial(self) -> bool:
        """True if fewer rows were written than the table has."""
        return self.written < self._rows

    def become_vat(self) -> None:
        """Put the columns Value and Count first, as ArcGIS expects them in a ``.vat.dbf``."""
        import pyarrow as pa

        shown = dict(zip(self.names, list(self.schema)[1:], strict=True))
        there = self._table.columns
        value = _named(VALUE, shown) or _named(VALUE, dict.fromkeys(there))
        count = _named(COUNT, shown) or _named(COUNT, dict.fromkeys(there))
        source = self._table._source
        if count is None:
            count = next(
                (
                    one
                    for one in [*shown, *there]
                    if usage_in(source.field(one).attributes) == FieldUsage.PIXEL_COUNT
                ),
                None,
            )
        if count is None:
            raise BridgeError(
                Advice(
                    f"{self.place} has no column of pixel counts, and a {VAT} needs one: a column Count, "
                    "or one whose usage is PixelCount.",
                    'Name it with rename={"...": "Count"}.',
                )
            )
        kinds = self._table.scan(there).schema
        number = self.schema.field(0)
        if value is None:
            number, self.row = number.with_name(VALUE), True
        else:
            if not pa.types.is_integer(kinds.field(value).type):
                raise BridgeError(
                    f"column {value!r} is {kinds.field(value).type}, and the column Value of a {VAT} "
                    "has integers"
                )
            number, self.row = number.with_name("row"), False
        first = [one for one in (value, count) if one is not None]
        self.names = first + [one for one in self.names if one not in first]
        others = [shown[one] for one in self.names[len(first) :]]
        renamed = [kinds.field(count).with_name(COUNT)]
        if value is not None:
            renamed.insert(0, kinds.field(value).with_name(VALUE))
        self.schema = pa.schema([number, *renamed, *others])
        self.whole = (COUNT,)
        self._check_names()

    def batches(self) -> Iterator[Any]:
        """Read the rows."""
        import pyarrow as pa

        self.written = 0
        first = self._pass / self.passes
        found = self._all() if self._where is None else self._chosen_rows(self._where)
        for batch, done in found:
            self.written += batch.num_rows
            if batch.num_rows:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
            self._reporter.report(min(1.0, first + done / max(1, self._rows) / self.passes))
        self._pass += 1

    def _all(self) -> Iterator[tuple[Any, int]]:
        scan = self._table.scan(self.names)
        for batch in scan.to_reader([scan.row_name, *self.names]):
            yield batch, scan.rows_read

    def _chosen_rows(self, where: str) -> Iterator[tuple[Any, int]]:
        with Condition(where, self._table._source) as condition:
            scan = self._table.scan(list(dict.fromkeys([*self.names, *condition.names])))
            with closing(condition.filtered(scan)) as found:
                for batch in found:
                    yield batch.select([scan.row_name, *self.names]), scan.rows_read


def _named(wanted: str, shown: Mapping[str, Any]) -> str | None:
    """Return the column of this name, in the file or in the table, ignoring case."""
    for name, kind in shown.items():
        if kind is not None and kind.name.casefold() == wanted.casefold():
            return name
    return next((one for one in shown if one.casefold() == wanted.casefold()), None)


def _chosen(there: Sequence[str], columns: Sequence[str] | None, place: str) -> list[str]:
    if columns is None:
        return list(there)
    if isinstance(columns, str):
        raise ColumnSelectionError(f"columns is a list of names; got the string {columns!r}")
    known = {*there, row_name(list(there))}
    wanted = list(columns)
    for one in wanted:
        if one not in known:
            raise ColumnSelectionError(f"{place} has no column {one!r}{near_names(one, there)}")
        if wanted.count(one) > 1:
            raise ColumnSelectionError(f"column {one!r} is chosen twice")
    return wanted


# ---- the file


def _write(
    rows: _Rows, kind: str, output: Output, strict: bool, reporter: Progress
) -> tuple[list[str], list[str], int]:
    """Write the files, and return losses, notes, and the size of the file with the target's name."""
    from gdalbridge.exchange.layers import Losses, write_dbf, write_gpkg

    found = Losses(strict)
    with output.create(f"table.{kind}") as path:
        if kind == "gpkg":
            write_gpkg(path, rows.schema, rows.batches(), row=rows.row, losses=found)
        elif kind == "dbf":
            rows.passes = 2
            write_dbf(
                path, rows.schema, rows.batches, row=rows.row, losses=found, whole=rows.whole
            )
        else:
            _write_arrow(path, kind, rows)
        size = path.stat().st_size
        # The last chance to cancel.
        reporter.report(1.0)
    return (
        [f"column {name!r}: {words}" for name, words in found.losses.items()],
        [f"column {name!r}: {words}" for name, words in found.notes.items()],
        size,
    )


def _write_arrow(path: Path, kind: str, rows: _Rows) -> None:
    import pyarrow as pa

    from gdalbridge.exchange.layers import check_calendar, check_kinds

    schema = rows.schema if rows.row else pa.schema(list(rows.schema)[1:])
    if kind == "csv":
        types = pa.types
        check_kinds(
            schema, "CSV",
            {types.is_fixed_size_list: "several values per row", types.is_binary: "bytes"},
        )  # fmt: skip

    def batches() -> Iterator[Any]:
        for batch in rows.batches():
            if kind == "csv":
                check_calendar(batch, "CSV")
            yield batch if rows.row else batch.select(schema.names)

    write: dict[str, Callable[..., None]] = {
        "parquet": arrow_files.write_parquet,
        "csv": arrow_files.write_csv,
        "arrow": arrow_files.write_arrow,
    }
    try:
        write[kind](path, schema, batches())
    except pa.ArrowInvalid as error:
        raise BridgeError(f"{kind} can't hold the table: {error}") from error
