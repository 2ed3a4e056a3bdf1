"""What a column's document says, understood once: its dtype, its chunks, how far it is.

A state never changes. Whoever reads or writes a block takes one state and keeps to it
from the first row to the last, so a document that changes meanwhile can't lead to bytes
of one dtype being read as another.
"""

import re
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from zarr.core.chunk_key_encodings import ChunkKeyEncoding

from .codec import ChunkCodec, value_bytes
from .columndocument import understand
from .layout import (
    COLUMN_ID_ATTR,
    COMPLETE_ATTR,
    CUTS_ATTR,
    CUTTING_ATTR,
    ROWS_DONE_ATTR,
    Document,
)

__all__ = ["ColumnState"]

_SEPARATORS = re.compile(r"[./]")


@dataclass(frozen=True, slots=True)
class ColumnState:
    """A column as one version of its document describes it."""

    id: str
    """What tells it from others of its name; empty where its writer gave it none."""
    dtype: np.dtype[Any]
    fill: Any
    """What rows hold that were never written."""
    rows: int
    """Rows of its own shape; the table may have more or fewer."""
    row_shape: tuple[int, ...]
    """() or (width,)."""
    chunk_rows: int
    codec: ChunkCodec
    chunk_keys: ChunkKeyEncoding
    kind: tuple[Any, ...]
    """All that decides how its bytes are read."""
    cutting: int | None
    """Rows that stay, while those after them are being cleared."""
    cuts: tuple[int, ...] | None
    """Rows that were left each time that rows were cut off; None where nobody kept count."""
    complete: bool
    rows_done: int
    """Leading rows that a bulk writer has written: their chunks are there."""

    @classmethod
    def of(cls, document: Document, place: str, name: str) -> Self:
        """Understand a document.

        Parameters
        ----------
        document : dict
            The column's ``zarr.json``.
        place, name : str
            Where it lies and which column it is, for messages.

        Raises
        ------
        DamagedError
            Where it can't be that of a column.
        UnsupportedCodecError
            Where its chunks can't be unpacked in bounded memory.
        """
        found = understand(document, place, name)
        shape, chunk_shape = document["shape"], found.chunk_shape
        attributes = document.get("attributes", {})
        column_id = attributes.get(COLUMN_ID_ATTR)
        cutting = attributes.get(CUTTING_ATTR)
        return cls(
            id=column_id if isinstance(column_id, str) else "",
            dtype=found.dtype,
            fill=found.fill,
            rows=int(shape[0]),
            row_shape=tuple(shape[1:]),
            chunk_rows=int(chunk_shape[0]),
            codec=found.codec,
            chunk_keys=found.chunk_keys,
            kind=(column_id, *found.kind),
            cutting=cutting if _is_count(cutting) else None,
            cuts=_cuts(attributes.get(CUTS_ATTR, [] if column_id else None)),
            complete=attributes.get(COMPLETE_ATTR, True) is not False,
            rows_done=_count(attributes.get(ROWS_DONE_ATTR)),
        )

    @property
    def length(self) -> int:
        """Rows that count; whatever its chunks hold beyond them is no row's."""
        return self.rows if self.cutting is None else min(self.rows, self.cutting)

    @property
    def was_cut(self) -> bool:
        """Whether rows may have been cut off: chunks can then lie beyond its end."""
        return self.cuts is None or len(self.cuts) > 0

    @property
    def is_external(self) -> bool:
        """Whether another program has given it its length, or may have.

        That is so from when the program writes the document until a resize of ours.
        """
        return self.cuts is None

    def lowest_since(self, earlier: "ColumnState") -> int:
        """Return how few rows it has had since an earlier state."""
        cuts = () if self.cuts is None or earlier.cuts is None else self.cuts[len(earlier.cuts) :]
        return min((self.length, *cuts))

    @property
    def width(self) -> int:
        """Values per row."""
        return int(self.row_shape[0]) if self.row_shape else 1

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory; of strings and bytes, besides their characters."""
        return value_bytes(self.dtype) * self.width

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of every chunk, the last one included."""
        return (self.chunk_rows, *self.row_shape)

    @property
    def all_there(self) -> int:
        """Leading rows of which a missing chunk is damage: a bulk writer has finished them."""
        return min(self.rows_done, self.length) if self.complete and not self.is_external else 0

    def is_same_column(self, other: "ColumnState") -> bool:
        """Return whether bytes written under one state can be read under the other."""
        return self.kind == other.kind

    def chunk_name(self, chunk: int) -> str:
        """Return a chunk's key, within the column."""
        return self.chunk_keys.encode_chunk_key((chunk, 0) if self.row_shape else (chunk,))

    def chunk_of(self, name: str) -> int | None:
        """Return which chunk a key within the column is; None where it is none."""
        words = _SEPARATORS.split(name.removeprefix("c"))
        words = words[1:] if words[0] == "" else words
        try:
            chunk = int(words[0])
        except (ValueError, IndexError):
            return None
        return chunk if chunk >= 0 and self.chunk_name(chunk) == name else None

    def mark(self) -> str:
        """Return what chunks are marked with, where they can be."""
        return f"{self.id}/{self.rows}" if self.id else ""

    def vouches_for(self, mark: str, stop: int) -> bool:
        """Return whether a chunk's mark says that rows up to ``stop`` are this column's."""
        column_id, _, rows = mark.partition("/")
        return bool(column_id) and column_id == self.id and rows.isdigit() and stop <= int(rows)

    def disowns(self, mark: str) -> bool:
        """Return whether a chunk's mark says that it is another column's."""
        return bool(self.id) and bool(mark) and mark.partition("/")[0] != self.id


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _cuts(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(map(_is_count, value)) else None


def _count(value: Any) -> int:
    return int(value) if _is_count(value) else 0
