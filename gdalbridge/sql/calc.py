"""New columns computed from others, block by block, by expressions.

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
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, LossWarning, OutputExistsError
from gdalbridge.gdalio.field_types import kept_usage, usage_attributes, usage_in, usage_name
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import Progress, progress_of
from gdalbridge.sidecars.merged import MISSING_ATTR, Column, Columns, is_store, open_columns
from gdalbridge.sidecars.naming import writable_sidecar_path
from gdalbridge.sidecars.provenance import (
    PROVENANCE_ATTR,
    RASTER_ATTR,
    column_provenance,
    parsed_raster,
)
from gdalbridge.sql.expressions import Program
from ratzarr import DFLT_CHUNKSIZE, RatZarr, RatZarrError
from ratzarr.errors import Advice
from ratzarr.format import COMPLETE_ATTR, Block, kept_attributes, normalize_dtype
from ratzarr.pipeline import ROOM, at_once, memory_of, read_ahead, write_behind

__all__ = ["CalcReport", "calc"]

Array = NDArray[Any]

BLOCK_ROWS = 500_000
SHORTEST_CHUNK = 1024
READERS = 2


@dataclass(frozen=True, slots=True)
class CalcColumn:
    """One column that was computed."""

    name: str
    dtype: str
    expression: str
    inputs: tuple[str, ...]
    """The columns that all of the expressions together were computed from."""


@dataclass(frozen=True, slots=True)
class CalcReport:
    """What was computed."""

    target: str
    """The table that was written to."""
    rows: int
    columns: tuple[CalcColumn, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        return asdict(self)

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
    """Compute new columns of a raster's table by expressions, and put them into its sidecar.

    Parameters
    ----------
    raster : str, os.PathLike, gdal.Dataset or zarr store
        A raster: its own columns and its sidecars' can be used, and nothing is written to
        it. Or a sidecar, or any other RatZarr, which is read and written.
    outputs : mapping of str to str
        By the new column's name, an expression of DuckDB's SQL over columns of the same
        table: ``(nir - red) / (nir + red)``. What it can have is in docs/calc-and-stats.md.
    band : int
        Of a raster, counted from 1.
    name : str, optional
        Put them into a further table of this name, beside the band's first.
    dtype : dtype-like, or mapping of str to dtype-like, optional
        What they are to be stored as: each value exactly, or refused. By default what the
        expressions' results are.
    overwrite : bool
        Replace columns that are there already. Each can be read, also by the expression, as it
        was until the new one is complete.
    encoding : str, optional
        Of text and names in the raster's own table; by default UTF-8, or as its
        ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table also where GDAL lost or altered values of it.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`; they go for a raster on S3 as well.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.
    block_rows : int
        How many rows are computed at a time, about: as many whole chunks as fit, at least one.

    Returns
    -------
    CalcReport

    Raises
    ------
    ColumnSelectionError
        For a column that is not there: names those that are called much the same.
    OutputExistsError
        Where a column is there already and may not be. Nothing is written.
    ConversionError
        Names the row where an integer overflows, or a result is NULL and has no place.
    BridgeError
        For what is no expression, and where the extra ``sql`` is not installed.
    CancelledError
        Where the progress said so. After this, after Ctrl-C and after every other error,
        what was begun is removed again.
    """
    started = time.perf_counter()
    reading = ReadOptions(encoding, lossy)
    given: Any = outputs
    if not isinstance(given, Mapping) or not given:
        raise BridgeError(
            f"outputs is a mapping of new columns' names to expressions: got {outputs!r:.100}"
        )
    own = is_store(raster)
    if own and name is not None:
        raise BridgeError(
            f"{raster} is a table itself, and has none of the name {name!r} beside it"
        )
    with (
        open_columns(raster, band=band, storage_options=storage_options, options=reading) as there,
        progress_of(progress) as told,
        Program(outputs, there) as program,
    ):
        rows = _rows_of(there, program)
        target = raster if own else _sidecar_of(there, raster, band, name, storage_options)
        dtypes = _dtypes(program, dtype)
        with _target(target, rows, list(outputs), overwrite, storage_options) as (table, begun):
            belongs = _belongs(table, there, target)
            for column, kind in dtypes.items():
                attributes = _kept(there.by_name.get(column), kind)
                attributes[PROVENANCE_ATTR] = _provenance(program, belongs, outputs[column])
                _begin(table, column, kind, attributes)
                begun.append(column)
            _compute(there, program, table, rows, told, block_rows)
            for column in dtypes:
                table.setComplete(column)
            mapping = table.getRatAttributeMapping()
            if not own and mapping.get(RASTER_ATTR) is None:
                mapping[RASTER_ATTR] = dict(belongs)
            told.report(1.0)
    inputs = tuple(column.name for column in program.columns)
    return CalcReport(
        str(target),
        rows,
        tuple(
            CalcColumn(column, _dtype_name(kind), outputs[column], inputs)
            for column, kind in dtypes.items()
        ),
        time.perf_counter() - started,
    )


def _sidecar_of(
    there: Columns, raster: Any, band: int, name: str | None, options: Mapping[str, Any] | None
) -> str:
    if there.host is None:
        # Raises the error that says why there is no place.
        return writable_sidecar_path(raster, band, name)
    return there.host.writable_path(name, storage_options=options)


def _rows_of(there: Columns, program: Program) -> int:
    columns = program.columns or list(there.by_name.values())
    counts = {column.rows: column.name for column in columns}
    if program.columns and len(counts) > 1:
        said = " and ".join(f"{name!r} {rows}" for rows, name in sorted(counts.items()))
        raise BridgeError(f"{there.name}: columns of different numbers of rows: {said}")
    return max(counts, default=0)


def _dtypes(program: Program, asked: Any) -> dict[str, np.dtype[Any]]:
    found = dict(program.dtypes)
    if asked is None:
        return found
    wanted = asked if isinstance(asked, Mapping) else dict.fromkeys(found, asked)
    for name, kind in wanted.items():
        if name not in found:
            raise BridgeError(
                f"a dtype is asked for {name!r}, which is not computed: {list(found)}"
            )
        found[name] = normalize_dtype(kind)
    return found


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return {"T": "str", "O": "bytes"}.get(dtype.kind, str(dtype))


def _belongs(table: RatZarr, there: Columns, target: Any) -> Mapping[str, Any]:
    """Return which raster the columns are of."""
    if there.host is not None:
        return there.host.now(there.dataset, target)
    known = parsed_raster(table.getRatAttributeMapping().get(RASTER_ATTR))
    return known or {"name": None, "band": None, "fingerprint": None}


def _provenance(program: Program, belongs: Mapping[str, Any], text: str) -> dict[str, Any]:
    found = column_provenance("calc", belongs, None)
    found["versions"] |= {"duckdb": metadata.version("duckdb")}
    return found | {"expression": text, "inputs": [column.name for column in program.columns]}


# ---- the table that is written to


@contextmanager
def _target(
    target: Any,
    rows: int,
    names: Sequence[str],
    overwrite: bool,
    storage_options: Mapping[str, Any] | None,
) -> Iterator[tuple[RatZarr, list[str]]]:
    """Open it, and leave it as it was where something goes wrong."""
    is_new = not RatZarr.exists(target, storageOptions=storage_options)
    begun: list[str] = []
    with RatZarr(target, storageOptions=storage_options) as table:
        try:
            _prepare(table, rows, names, overwrite, is_new)
            yield table, begun
        except BaseException:
            with suppress(RatZarrError):
                for name in begun:
                    table.deleteColumn(name)
            with suppress(RatZarrError):
                if is_new and not table.getColumnNames():
                    RatZarr.delete(target, storageOptions=storage_options)
            raise


def _prepare(
    table: RatZarr, rows: int, names: Sequence[str], overwrite: bool, is_new: bool
) -> None:
    there = set(table.getColumnNames())
    for name in names:
        if name in there and not overwrite:
            whole = table.getColumnAttributeMapping(name).get(COMPLETE_ATTR, True) is not False
            raise OutputExistsError(
                Advice(
                    f"{table.filename} has a column {name!r} already"
                    f"{'' if whole else ', which is not complete'}.",
                    "Use overwrite=True to replace it.",
                )
            )
    if table.rowCount != rows:
        if there:
            raise BridgeError(
                f"{table.filename} has {table.rowCount} rows, and the columns to compute with {rows}"
            )
        if is_new:
            # A chunk is packed and read as a whole: no longer than a short table.
            table.setChunkSize(min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, rows)))
        table.setRowCount(rows)


def _kept(before: Column | None, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the attributes that a column keeps where new values take its own values' place."""
    if before is None:
        return {}
    kept = kept_attributes(before.attributes)
    usage = usage_in(kept)
    if usage != (now := kept_usage(usage, dtype)):
        warnings.warn(
            f"column {before.name!r} loses its usage {usage_name(usage)}: its new values are "
            f"{dtype}, and GDAL's colours are integers",
            LossWarning,
            stacklevel=3,
        )
    # Of the values that mean "missing" none is left: in an expression they are NULL.
    kept.pop(MISSING_ATTR, None)
    return kept | (usage_attributes(now) if usage else {})


def _begin(table: RatZarr, name: str, dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> None:
    """Create a column that is not complete; what an interrupted one has left goes first."""
    while table.resumeColumn(name) is not None:
        table.deleteColumn(name)
    table.createColumn(
        name,
        dtype,
        attributes=attributes,
        complete=False,
        replace=table.colExists(name),
    )
    mapping = table.getColumnAttributeMapping(name)
    if MISSING_ATTR in mapping:
        del mapping[MISSING_ATTR]


# ---- computing


def _compute(
    there: Columns,
    program: Program,
    table: RatZarr,
    rows: int,
    told: Progress,
    block_rows: int,
) -> None:
    from gdalbridge.sql.arrow_values import to_arrow

    columns = [(column, column.missing_value()) for column in program.columns]
    chunk = table.getRATChunkSize()
    step = chunk * max(1, block_rows // chunk)
    blocks = [Block(first, min(step, rows - first)) for first in range(0, rows, step)]

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
            found = program.compute(arrays, block.start, block.length)
            while found:
                name = next(iter(found))
                yield (block, name), found.pop(name)

    def write(item: tuple[Block, str], values: Array) -> None:
        # One column's chunk is packed in this thread: each thread keeps what it has once used.
        block, name = item
        table.writeBlock(name, values, block.start)

    # GDAL is asked by one thread at a time anyhow.
    readers = 1 if there.has_own else READERS
    longest = max((block.length for block in blocks), default=1)
    writers = min(at_once(dtype, longest) for dtype in program.dtypes.values())
    with (
        closing(read_ahead(blocks, read, threads=readers)) as reading,
        closing(computed(reading)) as results,
        closing(
            write_behind(
                results, write, threads=writers, behind=writers, size=memory_of, room=ROOM
            )
        ) as written,
    ):  # fmt: skip
        for block, name in written:
            told.report(block.stop / rows, name)
