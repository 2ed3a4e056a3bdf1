"""One column: its document, its state, and the changes made to it by other processes.

:mod:`ratzarr.columns.chunk_io` reads and writes its blocks of rows.
"""

import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.strings import is_unicode, is_utf8
from ratzarr.columns.chunk_cache import ChunkCache
from ratzarr.columns.metadata import ColumnState
from ratzarr.errors import (
    ChangedError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    DamagedError,
    ShapeError,
    TooLargeError,
    UnequalValueError,
    UnsupportedDtypeError,
)
from ratzarr.format.blocks import chunk_count
from ratzarr.format.casting import as_block, exact
from ratzarr.format.history import event
from ratzarr.format.names import (
    COMPLETE_ATTR,
    GROUP,
    MODIFICATION_ATTR,
    ROWS_DONE_ATTR,
    ZARR_JSON,
    Document,
    mark_external,
    plausible_keys,
    true_name,
)
from ratzarr.stores.base import ChunkOwner, Objects
from ratzarr.stores.document import MetadataDocument

__all__ = ["Column"]

Array = NDArray[Any]

_NO_CACHE = ChunkCache(0)


class Column:
    """A column of a table, as last read.

    Parameters
    ----------
    objects : Objects
        The store.
    name : str
        The column's true name.
    key : str
        The column's key in the group.
    prefix : str, optional
        The location of a hidden column that will replace another.
    """

    def __init__(self, objects: Objects, name: str, key: str, prefix: str = "") -> None:
        self.objects, self.name, self.key = objects, name, key
        self.prefix = prefix or f"{GROUP}/{key}"
        gone = f"{objects.location}: there is no column {name!r} any more; it was deleted"
        self.document = MetadataDocument(
            objects,
            f"{self.prefix}/{ZARR_JSON}",
            partial(ColumnNotFoundError, gone),
            external=mark_external,
        )
        self._understood: tuple[Document, ColumnState] | None = None
        self.cache = _NO_CACHE
        """The cache of chunks, shared by all columns of an instance."""
        self.bytes_written = 0
        self._count_lock = threading.Lock()

    @classmethod
    def find(
        cls,
        objects: Objects,
        name: str,
        keys: Sequence[str] | None = None,
        *,
        unreadable: bool = False,
    ) -> "Column | None":
        """Return the column of this name as read now; None if it does not exist.

        Parameters
        ----------
        keys : sequence of str, optional
            The keys to try; by default all possible keys of the name.
        unreadable : bool
            Also return a column that can't be read. A damaged ``zarr.json`` counts as the document
            of its key's column.

        Raises
        ------
        InvalidNameError
            If no column can have this name.
        DamagedError, UnsupportedCodecError
            If the column can't be read.
        """
        for key in plausible_keys(name) if keys is None else keys:
            column = cls(objects, name, key)
            try:
                found = column.document.load() and column._has_its_name()
            except DamagedError:
                if unreadable:
                    return column
                raise
            if found:
                if not unreadable:
                    column.state  # noqa: B018 - raises now if the column is damaged
                return column
        return None

    def _has_its_name(self) -> bool:
        """Return True if the document describes a column of this name.

        A key that looks encoded stands for another name only if NAME says so. A group is not a
        column: for a name with a slash, the existing module creates a group with the column in it.
        """
        if self.document.document.get("node_type") == "group":
            return False
        return true_name(self.key, self.document.attributes) == self.name

    def snapshot(self) -> "Column":
        """Return a copy as last read, which can change without affecting users of this object."""
        other = copy.copy(self)
        other.document = self.document.snapshot()
        return other

    @property
    def in_place(self) -> bool:
        """True if the column is visible; False for a hidden column that will replace another."""
        return self.prefix == f"{GROUP}/{self.key}"

    @property
    def state(self) -> ColumnState:
        """The state described by the document, as last read."""
        document = self.document.document
        known = self._understood
        if known is None or known[0] is not document:
            state = ColumnState.of(document, self.document.place, self.name)
            if known is not None and known[1].is_same_column(state):
                # It remembers the compression that suits the column.
                state = replace(state, codec=known[1].codec)
            self._understood = known = document, state
        return known[1]

    # ---- changes by other processes

    def replaced(self) -> ChangedError:
        """Return the error for a column that was deleted and created anew."""
        return ChangedError(
            f"{self.objects.location}: column {self.name!r} was deleted and created anew by "
            "another process since this process opened it. Rows for the earlier column were not "
            "written to the new one."
        )

    def cut(self, length: int, stop: int) -> ChangedError:
        """Return the error for rows that another process has cut off."""
        return ChangedError(
            f"{self.objects.location}: column {self.name!r} was cut to {length} rows by another "
            f"process; rows up to {stop - 1} were requested"
        )

    def check_still(self, state: ColumnState, data: bytes | None, stop: int) -> None:
        """Raise an error unless these bytes describe the same column, with these rows.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            If the column was deleted, created anew or cut.
        """
        if data is None:
            raise self.document.missing()
        if data != self.document.data or state is not self.state:
            document = self.document.parse(data)
            now = ColumnState.of(document, self.document.place, self.name)
            if not now.is_same_column(state):
                raise self.replaced()
            if now.length < min(stop, state.length):
                raise self.cut(now.length, stop)

    def confirm(self, state: ColumnState, stop: int) -> None:
        """Read the document again, and check it as :meth:`check_still` does."""
        self.document.reload()
        self.check_lasts(self.state, state, stop)

    def check_lasts(self, now: ColumnState, state: ColumnState, stop: int) -> None:
        """Raise an error unless rows up to ``stop`` still exist in a later state.

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
        """Raise an error if the column is incomplete.

        Raises
        ------
        ColumnIncompleteError
            The message tells how many of its rows are complete.
        """
        if not self.state.complete:
            self.document.reload()
        if self.state.complete:
            return
        raise ColumnIncompleteError(
            f"{self.objects.location}: column {self.name!r} is not complete: only its first "
            f"{self.state.rows_done} rows are known to be correct. Its writer is still running, or "
            "was interrupted."
        )

    @contextmanager
    def damage_in_words(self, state: ColumnState, chunk: int) -> Iterator[None]:
        """Convert errors in decoding to errors that name the chunk and its rows."""
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
        place = (chunk, 0) if state.row_shape else (chunk,)
        return f"{self.prefix}/{state.chunk_keys.encode_chunk_key(place)}"

    def chunk_in_words(self, state: ColumnState, chunk: int) -> str:
        """Describe a chunk by its object and its rows, for messages."""
        first = chunk * state.chunk_rows
        last = max(first, min(first + state.chunk_rows, state.length) - 1)
        return (
            f"{self.objects.location}/{self.chunk_key(state, chunk)} (rows {first} to {last} of "
            f"column {self.name!r})"
        )

    def chunk_missing(self, state: ColumnState, chunk: int) -> DamagedError:
        """Return the error for a chunk that was written and no longer exists."""
        return DamagedError(
            f"{self.chunk_in_words(state, chunk)} is missing, although it was written"
        )

    def foreign(self, state: ColumnState, chunk: int) -> DamagedError:
        """Return the error for a chunk with the tag of an earlier column."""
        return DamagedError(
            f"{self.chunk_in_words(state, chunk)} holds rows of an earlier column of this name, written "
            "by a process that did not know of the new one. Write these rows again."
        )

    # ---- writing

    def fit(self, block: Any, start: int) -> tuple[ColumnState, Array]:
        """Validate a block of rows; return the state that it was validated for, and its values.

        They have the column's dtype. Strings in an array of fixed width stay in that array, because
        they are encoded faster without conversion. ``start`` is for messages.

        Raises
        ------
        ShapeError
            If the block has a different shape.
        UnequalValueError, UnsupportedDtypeError
            See :func:`ratzarr.format.casting.exact`.
        ColumnNotFoundError, ChangedError
            If the column was deleted or created anew, in place of an error about its old dtype.
        """
        state = self.state
        try:
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
        except (ShapeError, UnequalValueError, UnsupportedDtypeError):
            self.confirm(state, 0)
            raise

    def owner(self, state: ColumnState, stop: int) -> ChunkOwner:
        """Return the owner for chunks with rows up to ``stop``."""
        return ChunkOwner(
            self.prefix, state.owner_tag, lambda data: self.check_still(state, data, stop)
        )

    def log(self, state: ColumnState) -> None:
        """Add an event to the column's modification log.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            If the column was deleted, or created anew since ``state``.
        """
        entry = event()

        def change(document: Document) -> None:
            # This document was just read, so the column's state describes it.
            if not self.state.is_same_column(state):
                raise self.replaced()
            log = document["attributes"].setdefault(MODIFICATION_ATTR, [])
            if not isinstance(log, list):
                raise DamagedError(
                    f"{self.document.place} is damaged: its {MODIFICATION_ATTR} is "
                    f"{log!r:.100}, expected a list of events"
                )
            log.append(entry)

        self.document.update(change)

    def set_complete(
        self,
        rows_done: int | None,
        row_count: int,
        written: Iterable[tuple["Column", ColumnState, int]],
    ) -> None:
        """Declare the column complete, or its first ``rows_done`` rows.

        ``written`` are writes to the column that have not been checked yet, each with the column,
        its state then, and the end of the rows.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            If the column was deleted or created anew, or written rows were cut off.
        """
        state = self.state

        def change(document: Document) -> None:
            attributes = document["attributes"]
            now = ColumnState.of(document, self.document.place, self.name)
            if now.id != state.id:
                raise self.replaced()
            for column, then, stop in written:
                column.check_lasts(now, then, stop)
            attributes[COMPLETE_ATTR] = rows_done is None
            # Other processes may have added rows, or cut rows off and added them again. This
            # writer did not write those rows, so they don't count.
            known = min(row_count, now.length, *(now.cuts or ()))
            attributes[ROWS_DONE_ATTR] = known if rows_done is None else rows_done

        self.document.update(change)

    def count(self, data: bytes) -> None:
        """Add the size of a written chunk to :attr:`bytes_written`."""
        with self._count_lock:
            self.bytes_written += len(data)

    def blank(self, state: ColumnState) -> Array:
        """Return a chunk filled with the fill value."""
        state.codec.check_size()
        chunk = np.empty(state.chunk_shape, state.dtype)
        chunk.fill(state.fill)
        return chunk

    # ---- chunks

    def chunks_there(self) -> set[int]:
        """Return the numbers of the stored chunks, from a listing."""
        state, skip = self.state, len(self.prefix) + 1
        found = (state.chunk_of(key[skip:]) for key in self.objects.list_tree(self.prefix))
        return {chunk for chunk in found if chunk is not None}

    def missing_rows(self, row_count: int) -> list[tuple[int, int]]:
        """Return the rows that are not written yet; see :meth:`RatZarr.getMissingRows`."""
        # Read the document again, because the caller is about to write these rows. An unfinished
        # column that will replace another is not reopened when other processes resize the table.
        self.document.reload()
        step, rows = self.state.chunk_rows, min(row_count, self.state.length)
        kept = self.state.never_cut(rows)
        written = {one for one in self.chunks_there() if min((one + 1) * step, rows) <= kept}
        runs: list[tuple[int, int]] = []
        start = 0
        for chunk in [*sorted(written), chunk_count(rows, step)]:
            if start < (stop := min(chunk * step, rows)):
                runs.append((start, stop))
            start = (chunk + 1) * step
        return runs


def _is_text(block: Array) -> bool:
    """Return True if the block has fixed-width text that can be encoded directly."""
    if block.dtype.kind == "U":
        return block.dtype.isnative and block.dtype.itemsize > 0 and is_unicode(block)
    return block.dtype.kind == "S" and is_utf8(block)
