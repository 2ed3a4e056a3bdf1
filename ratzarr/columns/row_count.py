"""How many rows a table has: what its document says, or else what its columns have.

``ROWCOUNT`` is the row count, and every resize of ours changes it first. The existing module
1.0.2 knows nothing of it: it resizes the arrays and leaves the attribute as it was. So one
column is looked at before the attribute is believed. Where its length differs all columns are
looked at: if all that can be read have one length, and another program has written at least one
of their documents, that length is the row count. Columns whose documents are all ours never
change it: they lag behind, as whoever created them was killed before they could follow.
"""

from collections.abc import Callable, Collection
from functools import partial

from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.concurrency import Attempts
from ratzarr.errors import ConflictError, TableNotFoundError
from ratzarr.format.names import RESIZE_ATTR, ROWCOUNT_ATTR, Document
from ratzarr.stores.document import MetadataDocument

__all__ = ["RowCount", "rows_of"]


def rows_of(stated: int, states: Collection[ColumnState]) -> int:
    """Return the row count of a table without an unfinished resize.

    Parameters
    ----------
    stated : int
        ROWCOUNT.
    states : collection of ColumnState
        Those of all columns that can be read, opened after the table's document was read.
    """
    lengths = {state.length for state in states}
    if len(lengths) == 1 and any(state.is_external for state in states):
        return lengths.pop()
    return stated


class RowCount:
    """The row count of one table, as an instance sees it.

    Parameters
    ----------
    table : MetadataDocument
        The table's own document.
    first, every : callable
        Open one column, None where no column can be read; open all columns that can be read.
    table_missing : callable
        Makes the error for a table that is no longer there.
    """

    def __init__(
        self,
        table: MetadataDocument,
        first: Callable[[], Column | None],
        every: Callable[[], list[Column]],
        table_missing: Callable[[], TableNotFoundError],
    ) -> None:
        self._table, self._first, self._every = table, first, every
        self._table_missing = table_missing
        self._sample: Column | None = None
        self.known: int | None = None
        """None until it has been looked for."""

    @property
    def stated(self) -> int | None:
        """ROWCOUNT, as last seen; None where the table has none."""
        value = self._table.attributes.get(ROWCOUNT_ATTR)
        return None if value is None else int(value)

    @property
    def _is_pending(self) -> bool:
        return RESIZE_ATTR in self._table.attributes

    def forget(self) -> None:
        """Look again when it is next asked for."""
        self.known, self._sample = None, None

    def accept(self) -> None:
        """Believe ROWCOUNT: this instance has just changed the document that says it."""
        self.known = self.stated

    def look(self, opened: Collection[Column] = ()) -> list[Column]:
        """Find out how many rows there are; return the columns that were opened for it.

        Parameters
        ----------
        opened : collection of Column
            Columns that were opened since the table's document was read: one of them is as
            good as another one that would have to be fetched.
        """
        stated = self.stated
        if stated is not None and self._is_pending:
            self.known = stated
            return []
        sample = next(iter(opened), None) or self._first()
        self._sample = sample
        if sample is None or stated is None or sample.state.length == stated:
            self.known = stated if stated is not None else sample.state.length if sample else 0
            return [] if sample is None else [sample]
        columns = self._every()
        self.known = rows_of(stated, [column.state for column in columns])
        return columns

    def look_again(self) -> None:
        """Forget what is known if the column that it was compared with has changed.

        For places where that costs no request.
        """
        sample = self._sample
        if sample is None or not sample.document.is_still():
            self.forget()

    def correct(self) -> None:
        """Write the row count to ROWCOUNT, where another program has changed it.

        On condition that the table's document has not changed since before the columns were
        opened: a resize by another process is never undone.
        """
        for attempt in (attempts := Attempts(self._table.objects.patience)):
            if attempt and not self._table.load():
                raise self._table_missing()
            stated = self.stated
            if stated is None or self._is_pending or stated == self.known:
                return
            rows = rows_of(stated, [column.state for column in self._every()])
            if rows == stated or self._table.swap(partial(_state, rows=rows)):
                self.known = rows
                return
        raise ConflictError(
            f"{self._table.place}: other processes changed the table {attempts} while its row count "
            "was to be corrected"
        )


def _state(table: Document, rows: int) -> None:
    table["attributes"][ROWCOUNT_ATTR] = rows
