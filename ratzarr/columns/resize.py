"""Resizing a table and its columns, safely against other processes and failures.

A resize first writes the new row count and a ``RESIZE`` entry to the table's document. After every
column has followed, it removes the entry. A process that finds a ``RESIZE`` entry finishes that
resize before it begins another, so at most one is in progress.

A column with too many rows is cut in three steps. First its document gets the entry ``CUTTING``,
with the first row to remove. Then the rows are cleared chunk by chunk, each on condition that the
chunk has not changed since the document was seen with this entry. Finally its shape is set and
``CUTTING`` removed. So a late process can't clear rows that were written after the table has grown
again, and rows that were cut off don't return.
"""

import secrets
from collections.abc import Collection, Iterator, Mapping
from functools import cache, partial
from itertools import batched
from typing import Protocol

from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import Attempts, run
from ratzarr.errors import ChangedError, ConflictError, DamagedError
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    CUTS_ATTR,
    CUTTING_ATTR,
    RESIZE_ATTR,
    RESIZED_ATTR,
    ROWCOUNT_ATTR,
    ROWS_DONE_ATTR,
    Document,
)
from ratzarr.stores.base import ChunkOwner
from ratzarr.stores.document import MetadataDocument

__all__ = ["Resizing", "rows_of"]

BATCH_CHUNKS = 1000
"""The number of chunks cleared between two reads of the column's document."""


def rows_of(stated: int, states: Collection[ColumnState]) -> int:
    """Return the row count of a table without an unfinished resize.

    The existing module 1.0.2 resizes the columns and not ROWCOUNT. So if all columns have the same
    length, and another program has written at least one of their documents, that length is the row
    count. Columns whose documents are all ours never change it: they are behind, because their
    creator was killed before they followed a resize.

    Parameters
    ----------
    stated : int
        ROWCOUNT.
    states : collection of ColumnState
        The states of all readable columns, opened after the table's document was read.
    """
    lengths = {state.length for state in states}
    if len(lengths) == 1 and any(state.is_external for state in states):
        return lengths.pop()
    return stated


class _Catalog(Protocol):
    """:class:`ratzarr.columns.catalog.Catalog`, which lets its columns follow."""

    def all(self, known: Mapping[str, Column]) -> list[Column]: ...
    def being_built(self) -> list[Column]: ...
    def row_count(self) -> int: ...


class Resizing:
    """Changes of the row count of one table."""

    def __init__(self, table: MetadataDocument, catalog: _Catalog) -> None:
        self._table, self._catalog = table, catalog

    def set(
        self,
        rows: int,
        known: Mapping[str, Column] | None = None,
        *,
        grow_only: bool = False,
    ) -> list[Column]:
        """Set the table's row count and let the columns follow; return them.

        This takes four requests for the table (two listings, and its document before and after),
        and one change of each column's document. A column that isn't known is read before that.
        Cutting rows off takes more requests; see :meth:`_step`.

        Parameters
        ----------
        rows : int
            The new row count.
        known : mapping of str to Column, optional
            Columns by name, as last read; they may have changed since.
        grow_only : bool
            Change nothing, and return no columns, if the table has as many rows or more.

        Raises
        ------
        ConflictError
            If other processes keep resizing the table.
        """
        token = secrets.token_hex(8)
        seen = dict(known or {})
        for attempt in (attempts := Attempts(self._table.objects.patience)):
            if attempt:
                # The first attempt uses the document as last read; if it has changed, the swap
                # fails.
                self._table.reload()
            if RESIZE_ATTR in self._table.attributes:
                self.finish()
                continue
            before = self._catalog.row_count()
            if grow_only and rows <= before:
                if attempt or self._table.is_still():
                    return []
                continue
            # List the columns before the table's document changes. A process that creates a column
            # after this listing updates the column order. If it does so after our change, it finds
            # the new row count; if before, our swap fails and we list again.
            columns = self._catalog.all(seen)
            seen = {column.name: column for column in columns}

            def begin(document: Document, before: int = before) -> None:
                document["attributes"][ROWCOUNT_ATTR] = rows
                document["attributes"][RESIZE_ATTR] = {"FROM": before, "TO": rows, "ID": token}

            if self._table.swap(begin):
                self._let_follow(columns)
                columns += self._let_hidden_follow()
                self._say_done({"FROM": before, "TO": rows, "ID": token})
                return columns
        raise ConflictError(
            f"{self._table.place}: other processes resized the table {attempts} while this "
            f"process tried to set its row count to {rows}"
        )

    def finish(self) -> list[Column]:
        """Finish a resize: let the columns follow, and record that they have. Return them.

        Without an unfinished resize, the table first adopts the longest column that another
        program has resized, so that no rows of that column are cut off.
        """
        for _ in Attempts(self._table.objects.patience):
            self._table.reload()
            seen = self._table.data
            columns = self._catalog.all({})
            # Read the table after the columns, to detect a change that came while they were
            # opened.
            self._table.reload()
            resize = self._table.attributes.get(RESIZE_ATTR)
            if self._table.data != seen:
                continue
            if resize is None:
                rows = self._longest(columns)
                if rows != self._table.attributes.get(ROWCOUNT_ATTR):
                    return self.set(rows)
            elif (later := _later_length(resize, columns)) is not None:
                if self._table.swap(partial(_give_up, rows=later)):
                    return columns
                continue
            break
        run([partial(self.follow, column, looked=True) for column in columns])
        columns += self._let_hidden_follow()
        self._say_done(resize)
        return columns

    def _longest(self, columns: list[Column]) -> int:
        """Return the table's row count, or more if another program has made a column longer."""
        stated = self._catalog.row_count()
        states = [column.state for column in columns]
        return max([rows_of(stated, states), *(one.length for one in states if one.is_external)])

    def _let_hidden_follow(self) -> list[Column]:
        """Let the hidden columns follow; return them.

        The order doesn't contain hidden columns. So they are listed after the table's document has
        the new row count; a process that creates one later reads that row count.
        """
        columns = self._catalog.being_built()
        run([partial(self.follow, column, looked=True) for column in columns])
        return columns

    def _let_follow(self, columns: list[Column]) -> None:
        """Let columns follow that were opened before the table's document changed.

        A change can start from the document as last read, because the swap fails if the document
        has changed. If no change seems necessary, the document must be read again to confirm that.
        """
        changed = run([partial(self._step, column, sure=False) for column in columns])
        late = [column for column, done in zip(columns, changed, strict=True) if not done]
        there = run([column.document.load for column in late])
        if late:
            self._table.reload()
        run(
            [
                partial(self.follow, column, looked=True)
                for column, found in zip(late, there, strict=True)
                if found
            ]
        )

    def _say_done(self, resize: object) -> None:
        def done(document: Document) -> bool:
            if document["attributes"].get(RESIZE_ATTR) != resize:
                return False
            del document["attributes"][RESIZE_ATTR]
            return True

        if resize is not None:
            self._table.update(done)

    def follow(self, column: Column, *, looked: bool = False) -> None:
        """Resize one column to the table's row count.

        Parameters
        ----------
        looked : bool
            True if the caller has just read the column's document, then the table's.

        Raises
        ------
        ColumnNotFoundError
            If the column has been deleted.
        """
        for attempt in (attempts := Attempts(self._table.objects.patience)):
            if not looked:
                if not column.document.load():
                    if not attempt:
                        raise column.document.missing()
                    return
                self._table.reload()
            looked = False
            if self._step(column):
                return
        raise ConflictError(
            f"{column.document.place}: other writers changed it {attempts} while this "
            f"process tried to resize column {column.name!r} to the table's row count"
        )

    def _step(self, column: Column, *, sure: bool = True) -> bool:
        """Try once to let a column follow; the caller has read its document, then the table's.

        Return False if the column's document has changed since. If not ``sure`` that the document
        is current, also return False if no change seems necessary.
        """
        state, rows = column.state, self._catalog.row_count()
        # Rows added by another program count, even beyond the row count before the resize.
        known = rows if state.is_external else self._known(column, rows)
        keep = min(state.length, rows, known)
        if state.rows == rows == keep and state.cutting is None:
            return sure
        if state.rows == keep and not state.was_cut and state.cutting is None:
            return column.document.swap(partial(_set_rows, rows=rows, token=self._token()))
        if state.cutting != keep:
            return column.document.swap(partial(_begin_cut, keep=keep)) and self._step(column)
        if not self._clear(column, keep):
            return False
        return column.document.swap(partial(_end_cut, keep=keep, rows=rows, token=self._token()))

    # ---- clearing

    def _clear(self, column: Column, keep: int) -> bool:
        """Clear all rows from ``keep`` on; return False if the column changes meanwhile."""
        state = column.state
        first = -(-keep // state.chunk_rows)

        def check(data: bytes | None) -> None:
            column.check_still(state, data, 0)
            document = {} if data is None else column.document.parse(data)
            if document.get("attributes", {}).get(CUTTING_ATTR) != keep:
                raise ChangedError(f"{column.document.place}: it is no longer being cut")

        owner = ChunkOwner(column.prefix, f"{state.id}/{keep}" if state.id else "", check)
        blank = cache(lambda: state.codec.encode(column.blank(state)))
        try:
            for batch in batched(self._beyond(column, state, first), BATCH_CHUNKS):
                if not self._still_cutting(column, state, keep):
                    return False
                erased = run(
                    [
                        partial(column.objects.erase, key, version, blank, owner)
                        for key, version in batch
                    ]
                )
                if not all(erased):
                    return False
            return self._clear_tail(column, state, keep, owner)
        except ChangedError:
            return False

    def _beyond(self, column: Column, state: ColumnState, first: int) -> Iterator[tuple[str, str]]:
        skip = len(column.prefix) + 1
        for key, version in column.objects.list_versions(column.prefix):
            chunk = state.chunk_of(key[skip:])
            if chunk is not None and chunk >= first:
                yield key, version

    def _clear_tail(
        self, column: Column, state: ColumnState, keep: int, owner: ChunkOwner
    ) -> bool:
        """Clear the rows that share a chunk with remaining rows."""
        rest = keep % state.chunk_rows
        if not rest:
            return True
        chunk = keep // state.chunk_rows
        key = column.chunk_key(state, chunk)
        for _ in Attempts(column.objects.patience):
            found = column.objects.read(key)
            if found is None or state.is_foreign(found.owner_tag):
                return True
            if not self._still_cutting(column, state, keep):
                return False
            try:
                values = state.codec.decode(found.data).copy()
            except Exception as error:
                raise DamagedError(
                    f"{column.objects.location}/{key} is damaged: rows of column {column.name!r} "
                    f"from {keep} on can't be cut off: {error}"
                ) from error
            values[rest:].fill(state.fill)
            data = state.codec.encode(values)
            if data == found.data and state.covers(found.owner_tag, keep):
                return True
            if column.objects.replace(key, data, found.version, owner) is not None:
                return True
        return False

    @staticmethod
    def _still_cutting(column: Column, state: ColumnState, keep: int) -> bool:
        if not column.document.load():
            return False
        now = column.state
        return now.is_same_column(state) and now.cutting == keep

    # ---- the table

    def _token(self) -> object:
        resize = self._table.attributes.get(RESIZE_ATTR)
        return resize.get("ID") if isinstance(resize, dict) else None

    def _known(self, column: Column, rows: int) -> int:
        """Return the row count before the resize; values beyond it belong to no row."""
        resize = self._table.attributes.get(RESIZE_ATTR)
        token = self._token()
        if token is not None and column.document.attributes.get(RESIZED_ATTR) == token:
            # The column has followed already, and rows may have been written since.
            return rows
        known = resize.get("FROM") if isinstance(resize, dict) else None
        return max(0, known) if type(known) is int else rows


def _later_length(resize: object, columns: list[Column]) -> int | None:
    """Return the length that another program gave all columns after our resize was interrupted.

    Return None if no program did that; then the resize must be finished.
    """
    lengths = {column.state.rows for column in columns}
    if len(lengths) != 1 or not all(column.state.is_external for column in columns):
        return None
    if not isinstance(resize, dict):
        return None
    [length] = lengths
    has_followed = any(
        column.document.attributes.get(RESIZED_ATTR) == resize.get("ID") for column in columns
    )
    before = resize.get("TO") if has_followed else resize.get("FROM")
    return None if length in (before, resize.get("TO")) else length


def _give_up(document: Document, rows: int) -> None:
    document["attributes"][ROWCOUNT_ATTR] = rows
    del document["attributes"][RESIZE_ATTR]


def _set_rows(document: Document, rows: int, token: object) -> None:
    document["shape"][0] = rows
    if token is not None:
        document["attributes"][RESIZED_ATTR] = token


def _begin_cut(document: Document, keep: int) -> None:
    attributes = document["attributes"]
    attributes[CUTTING_ATTR] = keep
    if type(done := attributes.get(ROWS_DONE_ATTR)) is int:
        attributes[ROWS_DONE_ATTR] = min(done, keep)


def _end_cut(document: Document, keep: int, rows: int, token: object) -> None:
    attributes = document["attributes"]
    if token is not None:
        attributes[RESIZED_ATTR] = token
    cuts = attributes.get(CUTS_ATTR, [] if COLUMN_ID_ATTR in attributes else None)
    if keep < document["shape"][0] or cuts is None:
        attributes[CUTS_ATTR] = [*(cuts if isinstance(cuts, list) else []), keep]
    document["shape"][0] = rows
    attributes.pop(CUTTING_ATTR, None)
