"""Compare a raster's table, read again after writing, with the source.

Formats that store a table as XML silently lose digits and blanks. For these, and for unknown
formats (:func:`gdalbridge.gdalio.rat_writer.keeps_values`), every value is compared. Other formats
preserve every bit, and values that they cannot hold were refused earlier. For these, the first and
last rows of the written blocks are compared, which shows misplaced and missing blocks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.raster_blocks import ExportPlan, blocks
from gdalbridge.errors import RasterNotFoundError
from gdalbridge.gdalio.field_types import (
    FieldType,
    linear_binning,
    stored_dtype,
    table_type,
)
from gdalbridge.gdalio.losses import DOUBLE, ValueLoss, loss_lines, table_losses
from gdalbridge.gdalio.rat_reader import RatSource, open_rat
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.progress import Progress
from ratzarr import RatZarr
from ratzarr.format import Block

__all__ = ["Borders", "compare"]

Array = NDArray[Any]

BORDER = 64
"""Number of rows compared at either end of a block."""
BLOCKS = 64
"""Largest number of blocks of a column whose borders are kept."""


class Borders:
    """The first and last rows of a column's blocks, as written.

    Parameters
    ----------
    count : int
        Number of blocks of the column.
    """

    def __init__(self, count: int) -> None:
        # Evenly spread, including the first and the last.
        self._kept = set(np.linspace(0, max(0, count - 1), min(count, BLOCKS), dtype=int).tolist())
        self._seen = 0
        self.blocks: list[tuple[Block, list[Array]]] = []
        """The rows that were kept, in order."""

    def put(self, block: Block, pieces: Sequence[Array]) -> None:
        """Add the next block."""
        if self._seen in self._kept and block.length:
            first, last = pieces[0][:BORDER], pieces[-1][-BORDER:]
            for start, values in (
                (block.start, first),
                (block.stop - len(last), last),
            ):
                # Copy the rows: a view would keep the whole block in memory.
                self.blocks.append((Block(start, len(values)), [values.copy()]))
        self._seen += 1


def compare(
    table: RatZarr,
    raster: Any,
    band: int,
    written: Sequence[tuple[ExportPlan, int, Borders]],
    reporter: Progress,
    *,
    every: bool,
    values: bool,
) -> list[str]:
    """Return descriptions of the differences between the raster, opened again, and the sidecar.

    Parameters
    ----------
    written : sequence of (ExportPlan, int, Borders)
        With the column's index in the raster.
    every : bool
        Compare every value, not only the borders of blocks.
    values : bool
        Compare values at all.
    """
    rows = table.getRowCount()
    found = []
    options = ReadOptions(lossy=True, compared=every and values)
    try:
        opened = open_rat(raster, band, options=options)
    except RasterNotFoundError:
        # Some drivers drop a table without columns or rows. RatSink.commit reports that.
        return []
    with opened as source:
        attributes = table.getRatAttributeMapping().asdict()
        losses = table_losses(table_type(attributes), linear_binning(attributes), source.schema)
        for done, (plan, index, borders) in enumerate(written if values and rows else ()):
            is_single = plan.dtype.kind == "f" and plan.dtype.itemsize < 8
            column = ValueLoss(plan.name, plan.kind == FieldType.REAL)
            found.append(column)
            for block, pieces in blocks(table, [plan], rows) if every else borders.blocks:
                start = block.start
                for piece in pieces:
                    now = _read_again(source, index, plan, start, piece)
                    column.add(start, *now, plan.dtype if is_single else DOUBLE)
                    start += len(piece)
                reporter.report(0.5 + (done + block.stop / rows) / len(written) / 2, plan.key)
    return losses + loss_lines(found, f"{rows} values" if every else "the values looked at")


def _read_again(
    source: RatSource, index: int, plan: ExportPlan, start: int, values: Array
) -> tuple[Array, Array]:
    """Return the written values, and those that the raster has, in comparable form."""
    if plan.kind != FieldType.STRING:
        return values, source.read_native(index, start, len(values))
    now = source.read_encoded(index, start, len(values))
    if now.dtype.kind != values.dtype.kind:
        text = stored_dtype(FieldType.STRING)
        return values.astype(text), source.read(index, start, len(values))
    return values, now
