"""Alternative decoders for a chunk: UTF-8 bytes, or a checksum test only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.columns.metadata import ColumnState
from ratzarr.format.blocks import Part

__all__ = ["check_chunk", "padded_rows", "utf8_rows"]


def padded_rows(state: ColumnState, part: Part, data: bytes | None) -> list[NDArray[Any]] | None:
    """Return strings as fixed-width bytes, in pieces; None if decoding to strings is better."""
    if state.dtype.kind != "T" or state.row_shape:
        return None
    first, stop = part.in_chunk.start, part.in_chunk.stop
    if data is None:
        # The chunk was never written. A fill value other than "" may have any length.
        return None if state.fill else [np.zeros(stop - first, "S1")]
    pieces = state.codec.decode_padded(data)
    if pieces is None:
        return None
    rows: list[NDArray[Any]] = []
    begin = 0
    for piece in pieces:
        cut = piece[max(0, first - begin) : max(0, stop - begin)]
        begin += len(piece)
        if len(cut):
            rows.append(cut)
    return rows


def utf8_rows(
    state: ColumnState, part: Part, data: bytes | None
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return strings as offsets and UTF-8 bytes; None for other values."""
    if state.dtype.kind != "T" or state.row_shape:
        return None
    first, stop = part.in_chunk.start, part.in_chunk.stop
    if data is not None:
        return state.codec.decode_utf8(data, first, stop)
    fill = np.frombuffer(str(state.fill).encode(), np.uint8)
    return np.arange(stop - first + 1) * len(fill), np.tile(fill, stop - first)


def check_chunk(state: ColumnState, part: Part, data: bytes | None) -> None:
    """Check that a chunk can be read; the caller judges a missing chunk."""
    if data is not None:
        state.codec.check(data)
