"""A table grows or shrinks, and its columns follow, whoever else is at work and whatever fails.

The table's own document says first how many rows there are, together with a ``RESIZE``
that is under way; when every column has followed, that is taken out again. Whoever finds
a ``RESIZE`` helps to finish it before beginning another, so there is never more than one.

A column that has too many rows is cut in three steps: its document says from which row
on it is ``CUTTING``; the rows are cleared, chunk by chunk, each on the condition that it
has not changed since the document was seen to say so; its shape is set, and ``CUTTING``
taken out. Rows that somebody writes after the table has grown again can't be cleared by
a process that is late, and rows that were cut off don't come back.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import batched

from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.columns.row_count import rows_of
from ratzarr.concurrency import Attempts, run
from ratzarr.errors import ChangedError, ConflictError, DamagedError, TableNotFoundError
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
from ratzarr.stores.base import Owner
from ratzarr.stores.document import MetadataDocument

__all__ = ["Resizing"]

AT_ONCE = 1000
"""Chunks between two looks at the column's document."""


class Resizing:
    """Changes of one table's length.

    Parameters
    ----------
    table : MetadataDocument
        The table's own document.
    columns : callable
        Returns all columns that there are now: those it is given as they are, the others
        opened.
    being_built : callable
        Opens all columns that are being built out of sight.
    rows_now : callable
        Rows of the table as its document, last seen, has them.
    table_missing : callable
        Makes the error for a table that is no longer there.
    """

    def __init__(
        self,
        table: MetadataDocument,
        columns: Callable[[Mapping[str, Column]], list[Column]],
        being_built: Callable[[], list[Column]],
        rows_now: Callable[[], int],
        table_missing: Callable[[], TableNotFoundError],
    ) -> None:
        self._table, self._columns, self._rows_now = table, columns, rows_now
        self._being_built = being_built
        self._table_missing = table_missing

    def set(self, rows: int, known: Mapping[str, Column] | None = None) -> list[Column]:
        """Set the table's row count and let the columns follow; return them.

        Four requests of the table (two listings, its document before and after), and for each
        column one that changes its document, after one that reads it if it isn't known. Cutting
        rows off takes more: see :meth:`_step`.

        Parameters
        ----------
        rows : int
            How many there are to be.
        known : mapping of str to Column, optional
            Columns as last seen, by name; they need not be as they are now.

        Raises
        ------
        ConflictError
            Where other processes resize the table again and again.
        """
        token = secrets.token_hex(8)
        seen = dict(known or {})
        for attempt in (attempts := Attempts(self._table.objects.patience)):
            if attempt:
                # The first time as last seen: if that is no longer so, it isn't put back.
                self._load_table()
            if RESIZE_ATTR in self._table.attributes:
                self.finish()
                continue
            before = self._rows_now()
            # Seen before the table says so: whoever creates a column after this listing finds
            # the new row count when it puts the column into the order, or has changed the
            # order before us, and then we come round again.
            columns = self._columns(seen)
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
            f"{self._table.place}: other processes resized the table {attempts} while its row "
            f"count was to be {rows}"
        )

    def finish(self) -> list[Column]:
        """Let the columns follow the table, and say that they have; return them.

        Without an unfinished resize the table first gets the rows that another program has given
        its columns: of those nothing is cut off.
        """
        for _ in Attempts(self._table.objects.patience):
            self._load_table()
            seen = self._table.data
            columns = self._columns({})
            # After the columns: what the table says now was not said before they were opened.
            self._load_table()
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
        run([partial(self._follow, column, looked=True) for column in columns])
        columns += self._let_hidden_follow()
        self._say_done(resize)
        return columns

    def _longest(self, columns: list[Column]) -> int:
        """Return how many rows the table has, and at least those of columns by other programs."""
        stated = self._rows_now()
        states = [column.state for column in columns]
        return max([rows_of(stated, states), *(one.length for one in states if one.is_external)])

    def _let_hidden_follow(self) -> list[Column]:
        """Let columns follow that are being built out of sight; return them.

        They are in no order of columns: so they are looked for when the table has said how many
        rows there are, and who creates one after that sees it.
        """
        columns = self._being_built()
        run([partial(self._follow, column, looked=True) for column in columns])
        return columns

    def _let_follow(self, columns: list[Column]) -> None:
        """Let columns follow that were seen before the table said that they have to.

        What was seen is enough for a change, which is put back on the condition that the
        column is still so. That nothing has to be changed must be seen afterwards.
        """
        changed = run([partial(self._step, column, sure=False) for column in columns])
        late = [column for column, done in zip(columns, changed, strict=True) if not done]
        there = run([column.document.load for column in late])
        if late:
            self._load_table()
        run(
            [
                partial(self._follow, column, looked=True)
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
            self._table.update(done, self._table_missing)

    def follow(self, column: Column) -> None:
        """Let one column have as many rows as the table.

        Raises
        ------
        ColumnNotFoundError
            Where it has been deleted.
        """
        self._follow(column, looked=False)

    def _follow(self, column: Column, *, looked: bool) -> None:
        for attempt in (attempts := Attempts(self._table.objects.patience)):
            if not looked:
                if not column.document.load():
                    if not attempt:
                        raise column.missing()
                    return
                self._load_table()
            looked = False
            if self._step(column):
                return
        raise ConflictError(
            f"{column.document.place}: other writers changed it {attempts} while column "
            f"{column.name!r} was to follow the table's row count"
        )

    def _step(self, column: Column, *, sure: bool = True) -> bool:
        """Try once; the documents of column and table have been read in this order.

        Return False where that was not so any more, or, unless it is ``sure`` that the column
        is as last seen, where nothing is to be done.
        """
        state, rows = column.state, self._rows_now()
        # Rows that another program has added count, whatever the table says of them.
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
        """Clear all rows from ``keep`` on; return False where the column changes meanwhile."""
        state = column.state
        first = -(-keep // state.chunk_rows)

        def check(data: bytes | None) -> None:
            column.check_still(state, data, 0)
            document = {} if data is None else column.document.parse(data)
            if document.get("attributes", {}).get(CUTTING_ATTR) != keep:
                raise ChangedError(f"{column.document.place}: it is no longer being cut")

        owner = Owner(column.prefix, f"{state.id}/{keep}" if state.id else "", check)
        blank = _once(lambda: state.codec.encode(column.blank(state)))
        try:
            for batch in batched(self._beyond(column, state, first), AT_ONCE):
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

    def _clear_tail(self, column: Column, state: ColumnState, keep: int, owner: Owner) -> bool:
        """Clear the rows that share a chunk with ones that stay."""
        rest = keep % state.chunk_rows
        if not rest:
            return True
        chunk = keep // state.chunk_rows
        key = f"{column.prefix}/{state.chunk_name(chunk)}"
        for _ in Attempts(column.objects.patience):
            found = column.objects.get_versioned(key)
            if found is None or state.disowns(found.mark):
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
            if data == found.data and state.vouches_for(found.mark, keep):
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

    def _load_table(self) -> None:
        if not self._table.load():
            raise self._table_missing()

    def _token(self) -> object:
        resize = self._table.attributes.get(RESIZE_ATTR)
        return resize.get("ID") if isinstance(resize, dict) else None

    def _known(self, column: Column, rows: int) -> int:
        """Return how many rows there were before: what a column holds beyond is no row's."""
        resize = self._table.attributes.get(RESIZE_ATTR)
        token = self._token()
        if token is not None and column.document.attributes.get(RESIZED_ATTR) == token:
            # It has followed already: rows may have been written since.
            return rows
        known = resize.get("FROM") if isinstance(resize, dict) else None
        return max(0, known) if type(known) is int else rows


def _later_length(resize: object, columns: list[Column]) -> int | None:
    """Return the length that another program gave all columns since a resize of ours was killed.

    None where it has not: then the resize is to be finished.
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


def _once[T](make: Callable[[], T]) -> Callable[[], T]:
    made: list[T] = []

    def get() -> T:
        if not made:
            made.append(make())
        return made[0]

    return get
