"""Compute new columns from others with expressions, block by block.

>>> import tempfile
>>> import numpy as np
>>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
>>> with RatZarr(path) as table:
...     table.setRowCount(2)
...     table.createColumns({"red": "float64", "nir": "float64"})
...     table.writeBlocks({"red": [1.0, 2.0], "nir": [3.0, 2.0]}, 0)
>>> _ = calc(path, {"ndvi": "(nir - red) / (nir + red)"})
>>> RatZarr(path).readBlock("ndvi", 0, 2)
array([0.5, 0. ])
"""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.report import Report
from gdalbridge.errors import BridgeError
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.merged import Column, Columns, open_columns
from gdalbridge.sidecars.new_columns import NewColumn, new_columns
from gdalbridge.sidecars.provenance import versions
from gdalbridge.sql.expressions import Program
from gdalbridge.text_table import dtype_text
from ratzarr import RatZarr
from ratzarr.format import BLOCK_ROWS, MISSING_ATTR, Block, blocks_of, normalize_dtype
from ratzarr.pipeline import IN_FLIGHT_BYTES, ReadAhead, at_once, memory_of, write_behind

__all__ = ["CalcReport", "calc"]

Array = NDArray[Any]

READERS = 2


@dataclass(frozen=True, slots=True)
class CalcColumn:
    """A computed column."""

    name: str
    dtype: str
    expression: str
    inputs: tuple[str, ...]
    """The columns that the expressions use, all together."""


@dataclass(frozen=True, slots=True)
class CalcReport(Report):
    """The result of a computation."""

    target: str
    """The table that was written."""
    rows: int
    columns: tuple[CalcColumn, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [f"{self.target}: {self.rows} rows, {self.seconds:.2f} s"]
        lines += [f"  {one.name} ({one.dtype}) = {one.expression}" for one in self.columns]
        return "\n".join(lines)


def calc(
    raster: Any,
    outputs: Mapping[str, str],
    *,
    band: int = 1,
    name: str | None = None,
    dtype: Any = None,
    overwrite: bool = False,
    encoding: str | None = None,
    lossy: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Any = None,
    block_rows: int = BLOCK_ROWS,
) -> CalcReport:
    """Compute new columns of a raster's table with expressions, and write them to its sidecar.

    Parameters
    ----------
    raster : str, os.PathLike, gdal.Dataset or zarr store
        A raster: expressions can use its own columns and its sidecars', and the raster is only
        read. Or a sidecar or any other RatZarr, which is read and written.
    outputs : mapping of str to str
        Expressions by name of the new column. An expression is DuckDB SQL over columns of the same
        table: ``(nir - red) / (nir + red)``. See docs/calc-and-stats.md.
    band : int
        Band of a raster, counted from 1.
    name : str, optional
        Write to a further table of this name, beside the band's first.
    dtype : dtype-like, or mapping of str to dtype-like, optional
        The stored dtypes. Each value must be exact. By default the dtypes of the results.
    overwrite : bool
        Replace existing columns. Each stays readable, also by the expression, until its
        replacement is complete.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8; for a ``.vat.dbf``
        the encoding that it declares.
    lossy : bool
        Read the raster's own table even if GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`. Also used for a raster on S3.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.
    block_rows : int
        Approximate number of rows computed at a time; rounded to whole chunks, at least one.

    Returns
    -------
    CalcReport

    Raises
    ------
    ColumnSelectionError
        For a missing column; suggests similar names.
    OutputExistsError
        If a column exists and may not be replaced. Nothing is written.
    ConversionError
        If an integer overflows, or a result is NULL and the dtype cannot hold it; names the row.
        In integers, NULL is the value in the column's attribute ``missing_value``.
    BridgeError
        For an invalid expression, or if the extra ``sql`` is not installed.
    CancelledError
        If the progress cancelled. After this, after Ctrl-C and after every other error, unfinished
        columns are removed.
    """
    started = time.perf_counter()
    reading = ReadOptions(encoding, lossy)
    given: Any = outputs
    if not isinstance(given, Mapping) or not given:
        raise BridgeError(
            f"outputs is a mapping of new columns' names to expressions: got {outputs!r:.100}"
        )
    with (
        open_columns(raster, band=band, storage_options=storage_options, options=reading) as there,
        progress_of(progress) as reporter,
        Program(outputs, there) as program,
    ):
        rows = _rows_of(there, program)
        dtypes = _dtypes(program, dtype)
        inputs = tuple(column.name for column in program.columns)
        wanted = {
            column: NewColumn(kind, origin={"expression": outputs[column], "inputs": list(inputs)})
            for column, kind in dtypes.items()
        }
        with new_columns(
            there, raster, wanted, rows, operation="calc",
            provenance={"versions": versions() | {"duckdb": metadata.version("duckdb")}},
            band=band, name=name, overwrite=overwrite, storage_options=storage_options,
        ) as writer:  # fmt: skip
            _compute(there, program, writer.table, rows, reporter, block_rows, dtypes)
            target = writer.path
            # Before the columns take their places: who cancels now gets none of them.
            reporter.report(1.0)
    return CalcReport(
        target,
        rows,
        tuple(
            CalcColumn(column, dtype_text(kind), outputs[column], inputs)
            for column, kind in dtypes.items()
        ),
        time.perf_counter() - started,
    )


def _rows_of(there: Columns, program: Program[Column]) -> int:
    columns = program.columns or list(there.by_name.values())
    counts = {column.rows: column.name for column in columns}
    if program.columns and len(counts) > 1:
        said = " and ".join(f"{name!r} {rows}" for rows, name in sorted(counts.items()))
        raise BridgeError(f"{there.name}: columns of different numbers of rows: {said}")
    return max(counts, default=0)


def _dtypes(program: Program[Column], asked: Any) -> dict[str, np.dtype[Any]]:
    found = dict(program.dtypes)
    if asked is None:
        return found
    wanted = asked if isinstance(asked, Mapping) else dict.fromkeys(found, asked)
    for name, kind in wanted.items():
        if name not in found:
            raise BridgeError(
                f"a dtype is given for {name!r}, which is not computed: {list(found)}"
            )
        found[name] = normalize_dtype(kind)
    return found


# ---- computing


def _compute(
    there: Columns,
    program: Program[Column],
    table: RatZarr,
    rows: int,
    reporter: Progress,
    block_rows: int,
    dtypes: Mapping[str, np.dtype[Any]],
) -> None:
    from gdalbridge.sql.arrow_values import Nulls, to_arrow

    nulls = {name: Nulls(name, dtype) for name, dtype in dtypes.items()}

    columns = [(column, column.missing_value()) for column in program.columns]
    blocks = blocks_of(rows, table.getRATChunkSize(), block_rows)

    def read(block: Block) -> list[Any]:
        return [
            to_arrow(
                column.read(block.start, block.length), missing,
                column=column.name, first_row=block.start,
            )
            for column, missing in columns
        ]  # fmt: skip

    def computed(
        reading: Iterator[tuple[Block, list[Any]]],
    ) -> Generator[tuple[tuple[Block, str], Array]]:
        for block, arrays in reading:
            found = program.compute(arrays, block.start, block.length, nulls)
            while found:
                name = next(iter(found))
                yield (block, name), found.pop(name)

    def write(item: tuple[Block, str], values: Array) -> None:
        # Encode one column's chunk in this thread, because used memory stays with each thread.
        block, name = item
        table.writeBlock(name, values, block.start)

    # Only one thread at a time may use GDAL.
    readers = 1 if there.has_own else READERS
    longest = max((block.length for block in blocks), default=1)
    writers = min(at_once(dtype, longest) for dtype in program.dtypes.values())
    with (
        closing(ReadAhead(blocks, read, threads=readers)) as reading,
        closing(computed(reading)) as results,
        closing(
            write_behind(
                results, write, threads=writers, behind=writers, size=memory_of, max_bytes=IN_FLIGHT_BYTES
            )
        ) as written,
    ):  # fmt: skip
        for block, name in written:
            reporter.report(block.stop / rows, name)
    for name, one in nulls.items():
        if one.missing is not None:
            table.getColumnAttributeMapping(name)[MISSING_ATTR] = one.missing
