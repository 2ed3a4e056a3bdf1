"""One column: checked blocks of rows in and out of its chunks.

A chunk that a block covers wholly is written without a look at what was there. Of any
other the rest is read, merged and put back by compare-and-swap, so that two writers of
different rows of one chunk don't undo each other's. Rows never written hold the
column's fill value, as do rows of a table that has grown since.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.metadata.v3 import ArrayV3Metadata, RegularChunkGridMetadata

from .backoff import TRIES, pause
from .blocks import Block, Part, chunk_count, parts
from .casting import as_block, exact
from .codec import ChunkCodec
from .errors import (
    ColumnIncompleteError,
    ColumnNotFoundError,
    ConflictError,
    DamagedError,
    RatZarrError,
    ShapeError,
)
from .layout import (
    COMPLETE_ATTR,
    GROUP,
    ROWS_DONE_ATTR,
    ZARR_JSON,
    Document,
    plausible_keys,
    true_name,
)
from .metadata import MetadataDocument
from .objects import Objects

__all__ = ["Column"]

Array = NDArray[Any]

LISTED_ABOVE = 1000
"""Chunks to remove beyond which it is cheaper to ask which ones exist."""


class Column:
    """A column of a table, as last seen.

    Parameters
    ----------
    objects : Objects
        The store.
    name : str
        The column's true name.
    key : str
        The key it is kept under.
    """

    def __init__(self, objects: Objects, name: str, key: str) -> None:
        self.objects, self.name, self.key = objects, name, key
        self.prefix = f"{GROUP}/{key}"
        self.document = MetadataDocument(objects, f"{self.prefix}/{ZARR_JSON}")
        self._understood: Document | None = None
        self.bytes_written = 0
        self._count_lock = threading.Lock()

    @classmethod
    def find(cls, objects: Objects, name: str) -> "Column | None":
        """Open the column of this name; None where there is none.

        Raises
        ------
        InvalidNameError
            For a name that no column can have.
        DamagedError
            Where its ``zarr.json`` can't be what was written.
        """
        for key in plausible_keys(name):
            column = cls(objects, name, key)
            if not column.document.load():
                continue
            # A key that looks encoded means another name only where NAME says so; and a group
            # (a name with / makes upstream nest its columns) is no column.
            if column.document.document.get("node_type") == "group":
                continue
            if true_name(key, column.document.attributes) == name:
                column._understand()
                return column
        return None

    def create(self, document: Document) -> bool:
        """Write the column's document; return False where its key is taken."""
        if not self.document.create(document):
            return False
        self._understand()
        return True

    def missing(self) -> ColumnNotFoundError:
        """Make the error for a column that is no longer there."""
        return ColumnNotFoundError(
            f"{self.objects.location}: there is no column {self.name!r} any more: it was deleted"
        )

    def _understand(self) -> None:
        document = self.document.document
        if document is self._understood:
            return
        try:
            metadata = ArrayV3Metadata.from_dict(document)
            grid = metadata.chunk_grid
            if not isinstance(grid, RegularChunkGridMetadata):
                raise ValueError("its chunks are not all of one size")
            shape, chunk_shape = metadata.shape, grid.chunk_shape
            if len(shape) not in (1, 2) or chunk_shape[1:] != shape[1:]:
                raise ValueError(
                    f"shape {shape} in chunks of {chunk_shape}: expected (rows,) or "
                    "(rows, width), and each chunk to hold whole rows"
                )
            self._codec = ChunkCodec(metadata, chunk_shape)
        except RatZarrError:
            raise
        except Exception as error:
            raise DamagedError(
                f"{self.document.place}: column {self.name!r} can't be read: {error}"
            ) from error
        self._metadata = metadata
        self._chunk_shape = chunk_shape
        self.dtype: np.dtype[Any] = metadata.data_type.to_native_dtype()
        self.fill: Any = metadata.fill_value
        self.chunk_rows = chunk_shape[0]
        self.row_shape = shape[1:]
        self._understood = document

    @property
    def length(self) -> int:
        """Rows that the column's own shape has; the table may have more or fewer."""
        return int(self.document.document["shape"][0])

    @property
    def width(self) -> int:
        """Values per row."""
        return int(self.row_shape[0]) if self.row_shape else 1

    def chunk_key(self, chunk: int) -> str:
        """Return the key of a chunk."""
        coordinates = (chunk, *(0 for _ in self.row_shape))
        return f"{self.prefix}/{self._metadata.encode_chunk_key(coordinates)}"

    def takes_many_requests_to_delete(self) -> bool:
        """Return whether deleting it can be interrupted halfway on an object store."""
        return chunk_count(self.length, self.chunk_rows) >= LISTED_ABOVE

    # ---- reading

    def check_complete(self) -> None:
        """Refuse a column that a bulk writer has not finished.

        Raises
        ------
        ColumnIncompleteError
            Says how many of its rows are whole.
        """
        attributes = self.document.attributes
        if attributes.get(COMPLETE_ATTR, True) is False:
            raise ColumnIncompleteError(
                f"{self.objects.location}: column {self.name!r} is not complete: of its rows only "
                f"the first {attributes.get(ROWS_DONE_ATTR, 0)} are sure to be what they should be. "
                "Whatever was writing it is still at work, or was interrupted."
            )

    def reading(self, block: Block) -> tuple[Array, list[Callable[[], None]]]:
        """Prepare to read rows that the table has.

        Returns
        -------
        out : ndarray
            Of shape (length,) or (length, width): filled when the tasks have run.
        tasks : list of callable
            Independent of each other, one request each.
        """
        out = np.empty((block.length, *self.row_shape), self.dtype)
        there = Block(block.start, max(0, min(block.stop, self.length) - block.start))
        if there.length < block.length:
            out[there.length :].fill(self.fill)
        return out, [
            partial(self._read_part, part, out)
            for part in parts(there, self.chunk_rows, self.length)
        ]

    def _read_part(self, part: Part, out: Array) -> None:
        key = self.chunk_key(part.chunk)
        data = self.objects.get(key)
        # fill(), as an assignment would take a bytes object through a dtype that drops zeros.
        if data is None:
            out[part.in_block].fill(self.fill)
        else:
            out[part.in_block] = self._decode(key, data)[part.in_chunk]

    def _decode(self, key: str, data: bytes) -> Array:
        try:
            return self._codec.decode(data)
        except Exception as error:
            chunk = int(key[len(self.prefix) + 1 :].strip("c/.").replace(".", "/").split("/")[0])
            first = chunk * self.chunk_rows
            raise DamagedError(
                f"{self.objects.location}/{key} is damaged: rows {first} to "
                f"{min(first + self.chunk_rows, self.length) - 1} of column {self.name!r} can't be "
                f"read: {error}"
            ) from error

    # ---- writing

    def fit(self, block: Any, start: int) -> Array:
        """Return a block of rows as this column stores them, or refuse it.

        Parameters
        ----------
        block : array-like
            Of shape (n,), or (n, width) where the width is not 1.
        start : int
            The table's row that its first is, for messages.

        Raises
        ------
        ShapeError
            Where the shape is another.
        UnequalValueError, UnsupportedDtypeError
            See :func:`ratzarr.casting.exact`.
        """
        block = as_block(block, column=self.name, first_row=start)
        shape = block.shape
        if len(shape) != 1 + len(self.row_shape) or shape[1:] != self.row_shape:
            expected = f"(n, {self.width})" if self.row_shape else "(n,)"
            raise ShapeError(
                f"column {self.name!r}: expected a block of shape {expected}, got {shape}"
            )
        return exact(block, self.dtype, column=self.name, first_row=start)

    def writing(self, values: Array, start: int, row_count: int) -> list[Callable[[], None]]:
        """Prepare to write rows that the table has.

        Parameters
        ----------
        values : ndarray
            From :meth:`fit`.
        start : int
            The table's row that the first is.
        row_count : int
            Rows of the table.

        Returns
        -------
        list of callable
            Independent of each other, one per chunk.
        """
        if start + len(values) > self.length:
            self.set_length(row_count)
        return [
            partial(self._write_part, part, values[part.in_block])
            for part in parts(Block(start, len(values)), self.chunk_rows, row_count)
        ]

    def _write_part(self, part: Part, values: Array) -> None:
        key = self.chunk_key(part.chunk)
        if not part.whole:
            self._merge(key, part.in_chunk, values)
            return
        if len(values) < self.chunk_rows:
            chunk = self._blank()
            chunk[: len(values)] = values
            values = chunk
        self._put(key, self._codec.encode(values))

    def _put(self, key: str, data: bytes) -> None:
        self.objects.put(key, data)
        self._count(data)

    def _count(self, data: bytes) -> None:
        with self._count_lock:
            self.bytes_written += len(data)

    def _blank(self) -> Array:
        chunk = np.empty(self._chunk_shape, self.dtype)
        chunk.fill(self.fill)
        return chunk

    def _merge(self, key: str, rows: slice, values: Array | None) -> None:
        """Put rows of a chunk in their place; None empties them."""
        for attempt in range(TRIES):
            pause(attempt)
            found = self.objects.get_versioned(key)
            if found is None:
                if values is None:
                    return
                chunk = self._blank()
                chunk[rows] = values
                data = self._codec.encode(chunk)
                if self.objects.create(key, data) is not None:
                    self._count(data)
                    return
                continue
            chunk = self._decode(key, found.data).copy()
            if values is None:
                chunk[rows].fill(self.fill)
            else:
                chunk[rows] = values
            data = self._codec.encode(chunk)
            if self.objects.replace(key, data, found.version) is not None:
                self._count(data)
                return
        raise ConflictError(
            f"{self.objects.location}/{key}: other writers changed this chunk of column "
            f"{self.name!r} {TRIES} times while rows of it were to be written"
        )

    # ---- changing its length

    def set_length(self, rows: int) -> None:
        """Change the shape, and nothing else; rows beyond the old end are empty."""

        def change(document: Document) -> bool:
            if document["shape"][0] == rows:
                return False
            document["shape"][0] = rows
            return True

        self.document.update(change, self.missing)
        self._understand()

    def resize(self, known_rows: int, rows: int) -> None:
        """Grow or shrink with the table.

        Rows that are cut off are cleared, not only hidden: growing again must not bring
        them back. They are cleared before the shape changes, so that an interruption
        leaves a shape that says there is something to clear.

        Parameters
        ----------
        known_rows : int
            Rows that the table had; what the column holds beyond them is no row's.
        rows : int
            Rows that the table has now.
        """
        keep = min(known_rows, rows, self.length)
        if keep < self.length:
            self._clear(keep)
        if self.length != rows:
            self.set_length(rows)

    def _clear(self, keep: int) -> None:
        first = chunk_count(keep, self.chunk_rows)
        stop = chunk_count(self.length, self.chunk_rows)
        if keep % self.chunk_rows:
            rest = slice(keep % self.chunk_rows, None)
            self._merge(self.chunk_key(first - 1), rest, None)
        if stop - first > LISTED_ABOVE:
            kept = {self.chunk_key(chunk) for chunk in range(first)}
            kept.add(self.document.key)
            keys = [key for key in self.objects.list_tree(self.prefix) if key not in kept]
        else:
            keys = [self.chunk_key(chunk) for chunk in range(first, stop)]
        self.objects.delete(keys)
