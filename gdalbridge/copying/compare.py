"""Compare a raster's table, read again after writing, with the source.

Formats that store a table as XML silently lose digits and blanks. For these, and for unknown
formats (:func:`gdalbridge.gdalio.rat_writer.keeps_values`), every value is compared. Other formats
preserve every bit, and values that they cannot hold were refused earlier. For these, the first and
last rows of the written blocks are compared, which shows misplaced and missing blocks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.copying.raster_blocks import ExportPlan, blocks
from gdalbridge.gdalio.field_types import FieldType, stored_dtype
from gdalbridge.gdalio.losses import ValueLoss, changed_reals, loss_lines
from gdalbridge.gdalio.rat_reader import RatSource, open_rat
from gdalbridge.gdalio.table_attributes import linear_binning, table_type
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
        """Number of rows written."""

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
    rows: int,
    told: Progress,
    *,
    every: bool,
    values: bool,
) -> list[str]:
    """Return descriptions of the differences between the raster, read again, and the sidecar.

    Parameters
    ----------
    written : sequence of (ExportPlan, int, Borders)
        With the column's index in the raster.
    every : bool
        Compare every value, not only the borders of blocks.
    values : bool
        Compare values at all.
    """
    if not written or not rows:
        return []
    losses: list[str] = []
    lost = []
    with open_rat(_again(raster), band) as source:
        losses += _of_the_table(table.getRatAttributeMapping().asdict(), source)
        for done, (plan, index, borders) in enumerate(written):
            if not values:
                continue
            changed, first = 0, None
            looked_at = blocks(table, [plan], rows) if every else borders.blocks
            for block, pieces in looked_at:
                start = block.start
                for piece in pieces:
                    differ = np.flatnonzero(_differences(source, index, plan, start, piece))
                    changed += len(differ)
                    if first is None and len(differ):
                        first = _first(source, index, plan, start, piece, int(differ[0]))
                    start += len(piece)
                told.report(0.5 + (done + block.stop / rows) / len(written) / 2, plan.key)
            if first is not None:
                which = f"{rows} values" if every else "the values looked at"
                real = plan.kind == FieldType.REAL
                lost.append(ValueLoss(plan.name, *first, changed, which, real))
    return losses + loss_lines(lost)


def _again(raster: Any) -> Any:
    # An open dataset shows GDAL's memory, not its file.
    if (
        hasattr(raster, "GetRasterBand")
        # A VRT in memory lists only its sources, and an HFA file is complete only when it is
        # closed.
        and raster.GetDescription() in (raster.GetFileList() or [])
        and raster.GetDriver().ShortName != "HFA"
    ):
        return raster.GetDescription()
    return raster


def _of_the_table(attributes: Mapping[str, Any], source: RatSource) -> list[str]:
    losses = []
    binning = linear_binning(attributes)
    if binning is not None and not _same_doubles(source.schema.linear_binning, binning):
        losses.append(f"the linear binning became {source.schema.linear_binning}, was {binning}")
    kind = table_type(attributes)
    if kind is not None and source.schema.table_type != kind:
        losses.append("the table's type was not kept")
    return losses


def _same_doubles(one: tuple[float, float] | None, other: tuple[float, float]) -> bool:
    return one is not None and np.array(one).tobytes() == np.array(other).tobytes()


def _first(
    source: RatSource, index: int, plan: ExportPlan, start: int, values: Array, row: int
) -> tuple[int, str, str]:
    """Return a changed row, its value, and the new value."""
    was, now = values[row], source.read(index, start + row, 1)[0]
    if isinstance(was, bytes) and plan.kind == FieldType.STRING:
        was = was.decode("utf-8")
    return start + row, str(was), str(now)


def _differences(
    source: RatSource, index: int, plan: ExportPlan, start: int, values: Array
) -> NDArray[np.bool_]:
    length = len(values)
    if plan.kind == FieldType.DATETIME:
        return np.asarray(source.read_datetime_text(index, start, length) != values)
    if plan.kind == FieldType.STRING:
        now = source.read_encoded(index, start, length)
        if now.dtype.kind != values.dtype.kind:
            text = stored_dtype(FieldType.STRING)
            return np.asarray(source.read(index, start, length) != values.astype(text))
        return np.asarray(now != values)
    now = source.read(index, start, length)
    if now.dtype.kind == "f":
        single = plan.dtype.kind == "f" and plan.dtype.itemsize < 8
        return changed_reals(values, now, plan.dtype if single else np.dtype(np.float64))
    return np.asarray(now != values)
