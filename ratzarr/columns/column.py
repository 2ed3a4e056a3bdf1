"""One column: checked blocks of rows in and out of its chunks.

A chunk that a block covers wholly is written without a look at what was there. Of any
other the rest is read, merged and put back by compare-and-swap, so that two writers of
different rows of one chunk don't undo each other's. Rows never written hold the
column's fill value, as do rows of a table that has grown since.

Another process can change the column meanwhile: cut off rows, or delete it and create
another of its name. So after chunks were read the document is looked at again, unless
the chunks themselves say whose they are; and chunks are written for an
:class:`~ratzarr.stores.base.Owner`, which keeps them out of another column.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratzarr.codecs.blosc import ReadAt
from ratzarr.codecs.strings import is_unicode, is_utf8
from ratzarr.columns.chunk_cache import ChunkShelf, Kept, Merged, OpenChunk
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import Attempts, lent
from ratzarr.errors import (
    ChangedError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    ConflictError,
    DamagedError,
    ShapeError,
    TooLargeError,
)
from ratzarr.format.blocks import Block, Part, Runs, parts
from ratzarr.format.casting import as_block, exact
from ratzarr.format.names import (
    GROUP,
    ZARR_JSON,
    Document,
    mark_external,
    plausible_keys,
    true_name,
)
from ratzarr.stores.base import Objects, Owner, Seen
from ratzarr.stores.document import MetadataDocument

__all__ = ["Column", "Reading"]

Array = NDArray[Any]

TILES = 8
"""What part of a chunk is a large piece of it."""
LAST_ROW = -1


@dataclass(slots=True)
class Reading:
    """A block being read."""

    state: ColumnState
    block: Block
    out: Array
    """Of shape (length,) or (length, width): filled when the tasks have run."""
    doubted: bool = False
    """Whether something was found that the column as known doesn't explain."""
    missing: list[int] = field(default_factory=list)
    """Chunks that are not there."""
    foreign: list[int] = field(default_factory=list)
    """Chunks that say they are another column's."""
    damaged: list[DamagedError] = field(default_factory=list)
    found: dict[int, Any] = field(default_factory=dict)
    """Of chunks that are only looked at: what was made of each, by the block's first row in it."""


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
        """Where chunks that were read are kept for the next block; its user's."""
        self._read_through: tuple[int, ...] = ()
        """Chunks of which of late every row was read."""
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

    def read_kept(self, block: Block) -> Array | None:
        """Return rows that are at hand, and are in the store as they are here; else None.

        As reading and settling would, in the same order: the chunks are looked at, and then
        whether the column is still the same.
        """
        state = self.state
        step, start, stop = state.chunk_rows, block.start, block.stop
        if stop > state.length:
            return None
        out = np.empty((0, *state.row_shape), state.dtype)
        found: list[tuple[int, slice, Kept]] = []
        for chunk in range(start // step, -(-stop // step)):
            first = chunk * step
            rows = slice(max(start - first, 0), min(stop - first, step))
            key = f"{self.prefix}/{state.chunk_name(chunk)}"
            kept = self.shelf.find(key, state.kind)
            if kept is None or not kept.chunk.has(rows):
                return None
            if not self.objects.is_still(key, kept.state):
                return None
            if not found:
                out = np.empty((block.length, *state.row_shape), state.dtype)
            begin = first + rows.start - start
            kept.chunk.copy(rows, out[begin : begin + rows.stop - rows.start])
            found.append((chunk, rows, kept))
        if not self.document.is_still() or self.state is not state:
            return None
        for chunk, rows, kept in found:
            self._note(state, chunk, rows, kept)
        return out

    def _note(self, state: ColumnState, chunk: int, rows: slice, kept: Kept) -> None:
        """Note that rows of a chunk were read, and when all of them have been."""
        count = min(state.chunk_rows, state.length - chunk * state.chunk_rows)
        if kept.chunk.seen(rows, count) and chunk not in self._read_through:
            self._read_through = (*self._read_through[-15:], chunk)

    def _let_go(self, state: ColumnState, chunk: int) -> None:
        """Let go of chunks that were read through, when another is unpacked that is not next to them."""
        if self.objects.threads is None:
            # To fetch them once more would take longer than to find new memory.
            return
        for other in self._read_through:
            if abs(chunk - other) > 1:
                self.shelf.drop(f"{self.prefix}/{state.chunk_name(other)}")

    def reading(self, block: Block) -> Reading:
        """Prepare to read rows that the table has; :meth:`settle` when the tasks have run."""
        state = self.state
        reading = Reading(state, block, np.empty((block.length, *state.row_shape), state.dtype))
        there = max(0, min(block.stop, state.length) - block.start)
        if there < block.length:
            # It may have grown since.
            reading.doubted = True
            reading.out[there:].fill(state.fill)
        return reading

    def tasks(self, reading: Reading) -> list[Callable[[], None]]:
        """Return what is to be done: independent of each other, one request each.

        They know the reading, so it must not know them: in a circle its array would stay in
        memory until Python looks for circles, block after block.
        """
        state, block = reading.state, reading.block
        there = Block(block.start, max(0, min(block.stop, state.length) - block.start))
        return [
            partial(self._read_part, part, reading)
            for part in parts(there, state.chunk_rows, state.length)
        ]

    def _read_part(self, part: Part, reading: Reading) -> None:
        state, out = reading.state, reading.out
        key = f"{self.prefix}/{state.chunk_name(part.chunk)}"
        kept = self.shelf.find(key, state.kind)
        known = kept.state if kept is not None and kept.chunk.has(part.in_chunk) else ""
        with lent() as room:
            opened = kept

            def take(now: str, length: int, read: ReadAt) -> bool:
                nonlocal opened
                opened = self._opened(state, part.chunk, kept, now)
                all_of_it = self._goes_on(state, part)
                return opened.chunk.unpack_from(
                    part.in_chunk, length, read, room, all_of_it=all_of_it
                )

            try:
                found = self.objects.get_unless(
                    key, known, state.codec.packed_limit, room, None if part.whole else take
                )
            except DamagedError as error:
                reading.damaged.append(error)
                return
            # fill(), as an assignment would take a bytes object through a dtype that drops zeros.
            if found is None:
                out[part.in_block].fill(state.fill)
                reading.missing.append(part.chunk)
                return
            stop = part.chunk * state.chunk_rows + part.in_chunk.stop
            if not state.vouches_for(found.mark, stop):
                reading.doubted = True
            if state.disowns(found.mark):
                reading.foreign.append(part.chunk)
                return
            try:
                self._fill(state, part, key, found, opened, out[part.in_block])
            except DamagedError as error:
                reading.damaged.append(error)

    def _fill(
        self,
        state: ColumnState,
        part: Part,
        key: str,
        found: Seen,
        kept: Kept | None,
        out: Array,
    ) -> None:
        """Put rows of a chunk that was just looked at where they are wanted."""
        rows = part.in_chunk
        if part.whole and found.data is not None:
            # It is not likely to be asked for again.
            with self._damage_in_words(state, part.chunk):
                if len(out) == state.chunk_rows:
                    state.codec.decode_into(found.data, out)
                else:
                    out[:] = state.codec.decode(found.data)[rows]
            return
        kept = self._opened(state, part.chunk, kept, found.state)
        if found.data is not None:
            with self._damage_in_words(state, part.chunk):
                kept.chunk.unpack(rows, found.data, all_of_it=self._goes_on(state, part))
        kept.chunk.copy(rows, out)
        # Else nothing would tell that it has changed.
        if found.state:
            self.shelf.keep(key, kept)
            self._note(state, part.chunk, rows, kept)

    def _opened(self, state: ColumnState, chunk: int, kept: Kept | None, now: str) -> Kept:
        """Return what is kept of a chunk that is in this state, or what is to be."""
        if kept is not None and kept.state == now:
            return kept
        self._let_go(state, chunk)
        return Kept(state.kind, now, OpenChunk(state.codec))

    def _goes_on(self, state: ColumnState, part: Part) -> bool:
        """Return whether all of a chunk is likely to be asked for, piece by piece."""
        rows = part.in_chunk
        if rows.start == 0 and part.chunk and self._is_at_hand(state, part.chunk - 1, LAST_ROW):
            # Somebody goes from row to row.
            return True
        # Or from tile to tile: large pieces, in any order, but near each other.
        return (rows.stop - rows.start) * TILES >= state.chunk_rows and any(
            self._is_at_hand(state, chunk) for chunk in (part.chunk - 1, part.chunk + 1)
        )

    def _is_at_hand(self, state: ColumnState, chunk: int, row: int | None = None) -> bool:
        """Return whether a chunk was read of late: some of it, or up to a row (-1: its last)."""
        if chunk in self._read_through:
            return True
        if chunk < 0:
            return False
        kept = self.shelf.find(f"{self.prefix}/{state.chunk_name(chunk)}", state.kind)
        if kept is None or row is None:
            return kept is not None
        row %= state.chunk_rows
        return kept.chunk.has(slice(row, row + 1))

    def looking(
        self, block: Block, use: Callable[[ColumnState, Part, bytes | None], Any]
    ) -> tuple[Reading, list[Callable[[], None]]]:
        """Prepare to look at the chunks of rows: as :meth:`reading`, but nothing is decoded here.

        Parameters
        ----------
        use : callable
            Makes what is wanted of a chunk's bytes (None: it is not there); what it returns is in
            the reading's ``found``.
        """
        state = self.state
        reading = Reading(state, block, np.empty(0, np.bool_))
        there = Block(block.start, max(0, min(block.stop, state.length) - block.start))
        reading.doubted = there.length < block.length
        return reading, [
            partial(self._look_at, part, reading, use)
            for part in parts(there, state.chunk_rows, state.length)
        ]

    def _look_at(
        self, part: Part, reading: Reading, use: Callable[[ColumnState, Part, bytes | None], Any]
    ) -> None:
        state, data = reading.state, None
        key = f"{self.prefix}/{state.chunk_name(part.chunk)}"
        try:
            found = self.objects.get_marked(key, state.codec.packed_limit)
            if found is None:
                reading.missing.append(part.chunk)
            else:
                data, mark = found
                stop = part.chunk * state.chunk_rows + part.in_chunk.stop
                if not state.vouches_for(mark, stop):
                    reading.doubted = True
                if state.disowns(mark):
                    reading.foreign.append(part.chunk)
                    return
            with self._damage_in_words(state, part.chunk):
                reading.found[part.in_block.start] = use(state, part, data)
        except DamagedError as error:
            reading.damaged.append(error)

    def settle(self, reading: Reading) -> bool:
        """Look whether what was read is what was asked for.

        Returns
        -------
        bool
            False where the column has become another, or longer: read again.

        Raises
        ------
        ColumnNotFoundError, ChangedError
            Where the column, or these rows of it, are gone.
        DamagedError
            Where a chunk is damaged, missing, or another column's.
        """
        state = reading.state
        if reading.doubted or reading.missing or reading.foreign or reading.damaged:
            if not self.document.load():
                raise self.missing()
            now, stop = self.state, reading.block.stop
            grown = now.length > state.length and stop > state.length
            if grown or not now.is_same_column(state):
                return False
            if now.length < min(state.length, stop):
                raise self.cut(now.length, stop)
        if reading.damaged:
            raise reading.damaged[0]
        for chunk in reading.foreign:
            raise self._foreign(state, chunk)
        for chunk in reading.missing:
            if chunk * state.chunk_rows < state.all_there:
                raise self._chunk_missing(state, chunk)
        return True

    @contextmanager
    def _damage_in_words(self, state: ColumnState, chunk: int) -> Iterator[None]:
        try:
            yield
        except TooLargeError as error:
            raise TooLargeError(f"{self._chunk_in_words(state, chunk)}: {error}") from error
        except Exception as error:
            raise DamagedError(
                f"{self._chunk_in_words(state, chunk)} is damaged: {error}"
            ) from error

    def _chunk_in_words(self, state: ColumnState, chunk: int) -> str:
        first = chunk * state.chunk_rows
        last = max(first, min(first + state.chunk_rows, state.length) - 1)
        return (
            f"{self.objects.location}/{self.prefix}/{state.chunk_name(chunk)} (rows {first} to "
            f"{last} of column {self.name!r})"
        )

    def _chunk_missing(self, state: ColumnState, chunk: int) -> DamagedError:
        return DamagedError(
            f"{self._chunk_in_words(state, chunk)} is missing: it was written, and is not there"
        )

    def _foreign(self, state: ColumnState, chunk: int) -> DamagedError:
        return DamagedError(
            f"{self._chunk_in_words(state, chunk)} holds rows of an earlier column of this name: a "
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

    def writing(self, state: ColumnState, values: Array, start: int) -> list[Callable[[], None]]:
        """Prepare to write rows that the column has.

        Parameters
        ----------
        state, values
            From :meth:`fit`.
        start : int
            The table's row that the first is.

        Returns
        -------
        list of callable
            Independent of each other, one per chunk.
        """
        # Strings are taken out of an array with the interpreter's lock held, some thousands at a
        # time: two threads have the processors busy, and more of them would wait in turn for that
        # lock, which takes half as long again as the work.
        turns = threading.Semaphore(2) if values.dtype.kind == "T" else None
        return [
            partial(
                self.write_rows, state, part.chunk, part.in_chunk, values[part.in_block], turns
            )
            for part in parts(Block(start, len(values)), state.chunk_rows, state.length)
        ]

    def _owner(self, state: ColumnState, stop: int) -> Owner:
        return Owner(self.prefix, state.mark(), lambda data: self.check_still(state, data, stop))

    def write_rows(
        self,
        state: ColumnState,
        chunk: int,
        rows: slice | NDArray[np.intp],
        values: Array,
        turns: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Write rows of one chunk.

        Parameters
        ----------
        state, values
            From :meth:`fit`.
        chunk : int
            Which chunk.
        rows : slice or ndarray of int
            Which of its rows, counted from its first: a run, or in ascending order.
        turns : context manager, optional
            See :meth:`ChunkCodec.encode`.
        """
        first = chunk * state.chunk_rows
        key = f"{self.prefix}/{state.chunk_name(chunk)}"
        stop = first + (int(rows.stop) if isinstance(rows, slice) else int(rows[-1]) + 1)
        owner = self._owner(state, stop)
        self.shelf.drop(key)
        merged = self.shelf.take(key, state.kind)
        if len(values) == state.chunk_rows:
            data = state.codec.encode(values, turns)
            self.objects.put(key, data, owner)
            self._count(data)
            return
        if merged is not None and self._merge_further(
            state, chunk, owner, merged, rows, values, stop
        ):
            return
        # The last chunk of a table is never covered: rows may follow that we know nothing of.
        whole = len(values) >= min(state.chunk_rows, state.length - first)
        if not (whole and self._write_first(state, key, owner, rows, values)):
            self._merge(state, chunk, owner, rows, values, stop)

    def _write_first(
        self,
        state: ColumnState,
        key: str,
        owner: Owner,
        rows: slice | NDArray[np.intp],
        values: Array,
    ) -> bool:
        """Write a chunk of which nothing is there yet; return False where something is."""
        chunk = self.blank(state)
        chunk[rows] = values
        data = state.codec.encode(chunk)
        version = self.objects.create(key, data, owner)
        if version is None:
            return False
        self._count(data)
        self._keep_merged(state, key, Merged(state.kind, version, owner.mark, chunk, Runs()), rows)
        return True

    def _keep_merged(
        self, state: ColumnState, key: str, merged: Merged, rows: slice | NDArray[np.intp]
    ) -> None:
        """Keep a chunk that rows were just put into, unless all of them have been by now."""
        if isinstance(rows, slice):
            merged.written.add(rows)
        if not merged.written.are_all(state.chunk_rows):
            self.shelf.put_back(key, merged)

    def _merge_further(
        self,
        state: ColumnState,
        chunk: int,
        owner: Owner,
        merged: Merged,
        rows: slice | NDArray[np.intp],
        values: Array,
        stop: int,
    ) -> bool:
        """Put further rows into a chunk as we have left it; return False where others came since."""
        if not self.objects.looks_before_writing and not state.vouches_for(merged.mark, stop):
            return False
        key = f"{self.prefix}/{state.chunk_name(chunk)}"
        merged.values[rows] = values
        data = state.codec.encode(merged.values)
        version = self.objects.replace(key, data, merged.version, owner)
        if version is None:
            return False
        self._count(data)
        after = replace(merged, version=version, mark=owner.mark)
        self._keep_merged(state, key, after, rows)
        return True

    def _count(self, data: bytes) -> None:
        with self._count_lock:
            self.bytes_written += len(data)

    def blank(self, state: ColumnState) -> Array:
        """Return a chunk of rows never written."""
        state.codec.check_size()
        chunk = np.empty(state.chunk_shape, state.dtype)
        chunk.fill(state.fill)
        return chunk

    def _merge(
        self,
        state: ColumnState,
        chunk: int,
        owner: Owner,
        rows: slice | NDArray[np.intp],
        values: Array,
        stop: int,
    ) -> None:
        """Put rows of a chunk in their place, and leave the others as they are."""
        key = f"{self.prefix}/{state.chunk_name(chunk)}"
        for _ in (attempts := Attempts(self.objects.patience)):
            try:
                found = self.objects.get_versioned(key, state.codec.packed_limit)
            except DamagedError:
                self.confirm(state, stop)
                raise
            if found is None:
                if chunk * state.chunk_rows < state.all_there:
                    self.confirm(state, stop)
                    raise self._chunk_missing(state, chunk)
                if self._write_first(state, key, owner, rows, values):
                    return
                continue
            if not self.objects.looks_before_writing and not state.vouches_for(found.mark, stop):
                self.confirm(state, stop)
            if state.disowns(found.mark):
                raise self._foreign(state, chunk)
            try:
                with self._damage_in_words(state, chunk):
                    merged = state.codec.decode(found.data).copy()
            except DamagedError:
                self.confirm(state, stop)
                raise
            merged[rows] = values
            data = state.codec.encode(merged)
            version = self.objects.replace(key, data, found.version, owner)
            if version is not None:
                self._count(data)
                after = Merged(state.kind, version, owner.mark, merged, Runs())
                self._keep_merged(state, key, after, rows)
                return
        raise ConflictError(
            f"{self.objects.location}/{key}: other writers changed this chunk of column "
            f"{self.name!r} {attempts} while rows of it were to be written"
        )

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
