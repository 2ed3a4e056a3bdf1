"""Read a sidecar's columns ahead, block by block, as GDAL's tables accept them.

Reading, decoding and converting run in other threads than the one that passes the blocks to GDAL.
Text stays encoded, as in the store and in GDAL. Every value equals the sidecar's, or is an error.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import ConversionError
from gdalbridge.gdalio import datetimes
from gdalbridge.gdalio.field_types import FieldType, stored_dtype
from ratzarr import RatZarr, RatZarrError
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS, Block, exact, has_payload
from ratzarr.pipeline import (
    IN_FLIGHT_BYTES,
    PROCESSORS,
    ReadAhead,
    is_remote,
    max_blocks,
    memory_of,
)

__all__ = ["ExportPlan", "blocks", "check_all", "rows_per_block"]

Array = NDArray[Any]

MAX_COLOUR = 255
CHECKED_BLOCKS = 8
"""Number of blocks whose checksums are verified at once."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """A column to be copied."""

    key: str
    """Name in the sidecar."""
    name: str
    """Name in the raster."""
    number: int
    """The number of earlier columns of the sidecar that have the same name in the raster."""
    dtype: np.dtype[Any]
    kind: FieldType
    usage: int
    attributes: Mapping[str, Any]
    block_rows: int
    is_colour: bool = False
    """True if the format stores its values as colours, 0 to 255."""


def rows_per_block(chunk_rows: int, dtype: np.dtype[Any]) -> int:
    """Return the number of rows to read at once: several small chunks of numbers, in parallel."""
    # Chunks of text may be small because their strings are long.
    several = 1 if dtype.kind in "TO" else max(1, BLOCK_ROWS // chunk_rows)
    return min(several * chunk_rows, BLOCK_ROWS)


def blocks(
    table: RatZarr, plans: Sequence[ExportPlan], rows: int
) -> Generator[tuple[Block, list[Array]]]:
    """Yield the blocks of columns, one column after another, as :class:`RatSink` accepts them.

    Yields
    ------
    block : Block
    pieces : list of ndarray
        Its rows in order. Text is fixed-width bytes (:meth:`RatSink.write_text`) if possible;
        other values are as :meth:`RatSink.write` accepts them.

    Raises
    ------
    ConversionError
        Names the column, the row, and the value that GDAL's type cannot hold.
    """

    def read(item: tuple[ExportPlan, Block]) -> list[Array]:
        plan, block = item
        if _is_text(plan):
            pieces = table.readText(plan.key, block.start, block.length)
            if pieces is not None:
                return pieces
        values = table.readBlock(plan.key, block.start, block.length)
        return [for_gdal(plan, values, block.start)]

    steps = (
        (plan, Block(start, min(plan.block_rows, rows - start)))
        for plan in plans
        for start in range(0, rows, plan.block_rows)
    )
    # Memory that a thread has used stays with it.
    most = max_blocks() if is_remote(table) else max(2, PROCESSORS)
    reading = ReadAhead(
        steps,
        read,
        threads=most,
        ahead=most,
        size=_memory,
        max_bytes=IN_FLIGHT_BYTES,
        like=lambda item: item[0].key,
    )
    with closing(reading) as ahead:
        for (_, block), pieces in ahead:
            yield block, pieces


def _memory(pieces: list[Array]) -> int:
    return sum(map(memory_of, pieces))


def _is_text(plan: ExportPlan) -> bool:
    return plan.kind == FieldType.STRING and plan.dtype.kind == "T"


def check_all(table: RatZarr, plan: ExportPlan, rows: int) -> tuple[int, Array] | None:
    """Verify that every value of a column can be read, and that GDAL's type can hold it.

    If the conversion can change no value, verifying the chunks' checksums is enough.

    Returns
    -------
    (int, ndarray) or None
        For text, the row of the longest text and the text itself; None if that is not needed.

    Raises
    ------
    ConversionError, DamagedError
    """
    if _always_fits(plan):
        step = CHECKED_BLOCKS * plan.block_rows
        for start in range(0, rows, step):
            table.checkBlock(plan.key, start, step)
        return None
    longest, most = None, 0
    for block, pieces in blocks(table, [plan], rows):
        start = block.start
        for piece in pieces:
            if _is_text(plan) and piece.dtype.kind == "S" and piece.dtype.itemsize > most:
                row = int(np.argmax(np.strings.str_len(piece)))
                longest, most = (start + row, piece[row : row + 1].copy()), piece.dtype.itemsize
            start += len(piece)
    return longest


def _always_fits(plan: ExportPlan) -> bool:
    if plan.is_colour or plan.kind not in (FieldType.INTEGER, FieldType.REAL):
        return False
    wanted = stored_dtype(plan.kind)
    if plan.dtype.kind in "iu" and wanted.kind == "f" and plan.dtype.itemsize == 8:
        # numpy calls this cast safe, but it is inexact above 2**53.
        return False
    return plan.dtype.kind in "iufb" and np.can_cast(plan.dtype, wanted, casting="safe")


def for_gdal(plan: ExportPlan, values: Array, start: int) -> Array:
    """Return equal values, as :meth:`RatSink.write` accepts them."""
    if plan.kind == FieldType.DATETIME:
        if values.dtype.kind == "T":
            times, offsets = datetimes.parse(values.tolist(), column=plan.key, first_row=start)
        else:
            times = _checked(plan, values, np.dtype("datetime64[us]"), start)
            east = plan.attributes.get("UTC_OFFSET_MINUTES", 0)
            offsets = np.full(len(times), datetimes.NAIVE if east is None else east, np.int32)
        return datetimes.text_for_gdal(times, offsets, column=plan.key, first_row=start)
    if plan.kind == FieldType.STRING:
        return _as_text(plan, values, start)
    checked = _checked(plan, values, stored_dtype(plan.kind), start)
    if plan.is_colour and ((checked < 0) | (checked > MAX_COLOUR)).any():
        row = int(np.argmax((checked < 0) | (checked > MAX_COLOUR)))
        raise ConversionError(
            f"column {plan.key!r}, row {start + row}: {checked[row]} is not a colour for this "
            f"format (0 to {MAX_COLOUR})"
        )
    return checked


def _checked(plan: ExportPlan, values: Array, dtype: np.dtype[Any], start: int) -> Array:
    try:
        return exact(values, dtype, column=plan.key, first_row=start)
    except RatZarrError as error:
        others = {
            FieldType.INTEGER: "Real or String",
            FieldType.REAL: "String",
        }.get(plan.kind, "")
        if not others:
            raise ConversionError(str(error)) from error
        hint = f"Ask for {others} with cast=..."
        raise ConversionError(Advice(f"{error}.", hint)) from error


def _as_text(plan: ExportPlan, values: Array, start: int) -> Array:
    text = stored_dtype(FieldType.STRING)
    if values.dtype.kind == "M":
        return datetimes.write(values).astype(text)
    if values.dtype.kind in "iufb":
        if values.dtype.kind == "f" and (payloads := has_payload(values)).any():
            row = start + int(np.argmax(payloads))
            raise ConversionError(
                f"column {plan.key!r}, row {row}: a NaN with a payload, which text can't hold"
            )
        # Python prints the shortest text that reads back as the same number.
        return np.array([str(value) for value in values.tolist()], text)
    return _checked(plan, values, text, start)
