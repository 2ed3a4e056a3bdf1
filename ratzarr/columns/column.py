"""One column: its document, what it says, and what other processes have done to it.

Blocks of rows go in and out by :mod:`ratzarr.columns.chunk_io`.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.strings import is_unicode, is_utf8
from ratzarr.columns.chunk_cache import ChunkShelf
from ratzarr.columns.metadata import ColumnState
from ratzarr.errors import (
    ChangedError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    DamagedError,
    ShapeError,
    TooLargeError,
)
from ratzarr.format.casting import as_block, exact
from ratzarr.format.names import (
    GROUP,
    ZARR_JSON,
    Document,
    mark_external,
    plausible_keys,
    true_name,
)
from ratzarr.stores.base import Objects, Owner
from ratzarr.stores.document import MetadataDocument

__all__ = ["Column"]

Array = NDArray[Any]

TILES = 8
"""What part of a chunk is a large piece of it."""
LAST_ROW = -1


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
    prefix : str, optional
        Where it is being built, if not yet in its place.
    """

    def __init__(self, objects: Objects, name: str, key: str, prefix: str = "") -> None:
        self.objects, self.name, self.key = objects, name, key
        self.prefix = prefix or f"{GROUP}/{key}"
        self.document = MetadataDocument(
            objects, f"{self.prefix}/{ZARR_JSON}", external=mark_external
        )
        self._understood: tuple[Document, ColumnState] | None = None
        self.shelf = ChunkShelf(0)
        """The cache of its chunks, which belongs to the instance that uses the column."""
        self.read_through: tuple[int, ...] = ()
        """Chunks of which every row was read lately."""
        self.bytes_written = 0
        self._count_lock = threading.Lock()

    @classmethod
    def find(
        cls, objects: Objects, name: str, keys: Sequence[str] | None = None
    ) -> "Column | None":
        """Open the column of this name; None where there is none.

        Parameters
        ----------
        keys : sequence of str, optional
            Where to look: by default wherever it may be.

        Raises
        ------
        InvalidNameError
            For a name that no column can have.
        DamagedError
            Where its ``zarr.json`` can't be what was written.
        """
        for key in plausible_keys(name) if keys is None else keys:
            column = cls(objects, name, key)
            if column.document.load() and column._has_its_name():
                column.state  # noqa: B018 - understood now, so that what is damaged is said now
                return column
        return None

    @classmethod
    def locate(
        cls, objects: Objects, name: str, keys: Sequence[str] | None = None
    ) -> "Column | None":
        """Return the column of this name, whether or not it can be read; None where there is none.

        One whose ``zarr.json`` is damaged counts as that of its key. Parameters are those of
        :meth:`find`.
        """
        for key in plausible_keys(name) if keys is None else keys:
            column = cls(objects, name, key)
            try:
                if column.document.load() and column._has_its_name():
                    return column
            except DamagedError:
                return column
        return None

    def _has_its_name(self) -> bool:
        """Return whether the document is that of a column, and of this one.

        A key that looks encoded means another name only where NAME says so; and a group (a name
        with / makes upstream nest its columns) is no column.
        """
        if self.document.document.get("node_type") == "group":
            return False
        return true_name(self.key, self.document.attributes) == self.name

    def snapshot(self) -> "Column":
        """Return the column as last seen, to be changed without this one's users noticing."""
        other = Column(self.objects, self.name, self.key, self.prefix)
        other.document = self.document.snapshot()
        other.bytes_written = self.bytes_written
        return other

    def create(self, document: Document) -> bool:
        """Write the column's document; return False where its key is taken."""
        return self.document.create(document)

    @property
    def in_place(self) -> bool:
        """Whether everybody can see it; else it is being built to replace another."""
        return self.prefix == f"{GROUP}/{self.key}"

    @property
    def state(self) -> ColumnState:
        """What its document says, as last seen."""
        document = self.document.document
        known = self._understood
        if known is None or known[0] is not document:
            known = (document, ColumnState.of(document, self.document.place, self.name))
            self._understood = known
        return known[1]

    # ---- what others may have done

    def missing(self) -> ColumnNotFoundError:
        """Make the error for a column that is no longer there."""
        return ColumnNotFoundError(
            f"{self.objects.location}: there is no column {self.name!r} any more: it was deleted"
        )

    def replaced(self) -> ChangedError:
        """Make the error for a column in whose place there is another now."""
        return ChangedError(
            f"{self.objects.location}: column {self.name!r} was deleted and created anew by "
            "another process since this one opened it: what was to be written is the earlier "
            "column's, and was not written to the new one"
        )

    def cut(self, length: int, stop: int) -> ChangedError:
        """Make the error for rows that another process has cut off."""
        return ChangedError(
            f"{self.objects.location}: column {self.name!r} was cut to {length} rows by another "
            f"process: rows up to {stop - 1} were asked for"
        )

    def check_still(self, state: ColumnState, data: bytes | None, stop: int) -> None:
        """Raise unless these bytes describe the same column, and one that has these rows.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            Say what has happened to it.
        """
        if data is None:
            raise self.missing()
        if data != self.document.data or state is not self.state:
            document = self.document.parse(data)
            now = ColumnState.of(document, self.document.place, self.name)
            if not now.is_same_column(state):
                raise self.replaced()
            if now.length < min(stop, state.length):
                raise self.cut(now.length, stop)

    def confirm(self, state: ColumnState, stop: int) -> None:
        """Look at the document again: :meth:`check_still` for it as it is now."""
        if not self.document.load():
            raise self.missing()
        self.check_lasts(self.state, state, stop)

    def check_lasts(self, now: ColumnState, state: ColumnState, stop: int) -> None:
        """Raise unless rows up to ``stop``, written under one state, are there in a later one.

        Raises
        ------
        ChangedError
        """
        if not now.is_same_column(state):
            raise self.replaced()
        lowest = now.lowest_since(state)
        if lowest < min(stop, state.length):
            raise self.cut(lowest, stop)

    # ---- reading

    def check_complete(self) -> None:
        """Refuse a column that a bulk writer has not finished.

        Raises
        ------
        ColumnIncompleteError
            Says how many of its rows are whole.
        """
        if not self.state.complete and not self.document.load():
            raise self.missing()
        if self.state.complete:
            return
        raise ColumnIncompleteError(
            f"{self.objects.location}: column {self.name!r} is not complete: of its rows only "
            f"the first {self.state.rows_done} are sure to be what they should be. "
            "Whatever was writing it is still at work, or was interrupted."
        )

    @contextmanager
    def damage_in_words(self, state: ColumnState, chunk: int) -> Iterator[None]:
        """Turn errors of unpacking a chunk into ones that name the chunk and its rows."""
        try:
            yield
        except TooLargeError as error:
            raise TooLargeError(f"{self.chunk_in_words(state, chunk)}: {error}") from error
        except Exception as error:
            raise DamagedError(
                f"{self.chunk_in_words(state, chunk)} is damaged: {error}"
            ) from error

    def chunk_key(self, state: ColumnState, chunk: int) -> str:
        """Return the key of a chunk in the store."""
        return f"{self.prefix}/{state.chunk_name(chunk)}"

    def chunk_in_words(self, state: ColumnState, chunk: int) -> str:
        """Return a chunk's object and rows, for messages."""
        first = chunk * state.chunk_rows
        last = max(first, min(first + state.chunk_rows, state.length) - 1)
        return (
            f"{self.objects.location}/{self.prefix}/{state.chunk_name(chunk)} (rows {first} to "
            f"{last} of column {self.name!r})"
        )

    def chunk_missing(self, state: ColumnState, chunk: int) -> DamagedError:
        """Make the error for a chunk that was written and is gone."""
        return DamagedError(
            f"{self.chunk_in_words(state, chunk)} is missing: it was written, and is not there"
        )

    def foreign(self, state: ColumnState, chunk: int) -> DamagedError:
        """Make the error for a chunk that carries an earlier column's mark."""
        return DamagedError(
            f"{self.chunk_in_words(state, chunk)} holds rows of an earlier column of this name: a "
            "process that did not know of the new one has written them. Write these rows again."
        )

    # ---- writing

    def fit(self, block: Any, start: int) -> tuple[ColumnState, Array]:
        """Return a block of rows as this column stores them, or refuse it.

        Parameters
        ----------
        block : array-like
            Of shape (n,), or (n, width) where the width is not 1.
        start : int
            The table's row that its first is, for messages.

        Returns
        -------
        state : ColumnState
            The column for which it fits.
        values : ndarray
            Of the column's dtype; for strings that came in an array of fixed width this, which
            is packed without becoming strings of any length before.

        Raises
        ------
        ShapeError
            Where the shape is another.
        UnequalValueError, UnsupportedDtypeError
            See :func:`ratzarr.format.casting.exact`.
        """
        state = self.state
        block = as_block(block, column=self.name, first_row=start)
        shape = block.shape
        if len(shape) != 1 + len(state.row_shape) or shape[1:] != state.row_shape:
            expected = f"(n, {state.width})" if state.row_shape else "(n,)"
            raise ShapeError(
                f"column {self.name!r}: expected a block of shape {expected}, got {shape}"
            )
        if state.dtype.kind == "T" and _is_text(block):
            return state, block
        return state, exact(block, state.dtype, column=self.name, first_row=start)

    def owner(self, state: ColumnState, stop: int) -> Owner:
        """Return whom chunks with rows up to ``stop`` are written for."""
        return Owner(self.prefix, state.mark(), lambda data: self.check_still(state, data, stop))

    def count(self, data: bytes) -> None:
        """Add the bytes of a chunk that was written to :attr:`bytes_written`."""
        with self._count_lock:
            self.bytes_written += len(data)

    def blank(self, state: ColumnState) -> Array:
        """Return a chunk of rows never written."""
        state.codec.check_size()
        chunk = np.empty(state.chunk_shape, state.dtype)
        chunk.fill(state.fill)
        return chunk

    # ---- its chunks

    def chunks_there(self) -> set[int]:
        """Return which chunks have been written, from a listing."""
        state, skip = self.state, len(self.prefix) + 1
        found = (state.chunk_of(key[skip:]) for key in self.objects.list_tree(self.prefix))
        return {chunk for chunk in found if chunk is not None}


def _is_text(block: Array) -> bool:
    """Return whether these are strings of fixed width, or their bytes, that can be packed as they are."""
    if block.dtype.kind == "U":
        return block.dtype.isnative and block.dtype.itemsize > 0 and is_unicode(block)
    return block.dtype.kind == "S" and is_utf8(block)
