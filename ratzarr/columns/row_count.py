"""The row count of a table, from its document or from its columns.

``ROWCOUNT`` is the row count, and each of our resizes changes it first. The existing module 1.0.2
resizes the arrays and does not update ``ROWCOUNT``. So before ``ROWCOUNT`` is trusted, it is
compared with the length of one column. If they differ, all columns are read. If all readable
columns have the same length, and another program has written at least one of their documents, that
length is the row count. Columns whose documents are all ours never change the row count: they are
behind, because their creator was killed before they followed a resize.
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
        The states of all readable columns, opened after the table's document was read.
    """
    lengths = {state.length for state in states}
    if len(lengths) == 1 and any(state.is_external for state in states):
        return lengths.pop()
    return stated


class RowCount:
    """The row count of one table, as known to an instance.

    Parameters
    ----------
    table : MetadataDocument
        The table's own document.
    first, every : callable
        Open one readable column, or None; open all readable columns.
    table_missing : callable
        Returns the error for a table that has been deleted.
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
        """The row count; None until it is determined."""

    @property
    def stated(self) -> int | None:
        """ROWCOUNT as last read; None if the table has none."""
        value = self._table.attributes.get(ROWCOUNT_ATTR)
        return None if value is None else int(value)

    @property
    def _is_pending(self) -> bool:
        return RESIZE_ATTR in self._table.attributes

    def forget(self) -> None:
        """Forget the row count, so that the next use determines it again."""
        self.known, self._sample = None, None

    def accept(self) -> None:
        """Trust ROWCOUNT, because this instance has just written the document."""
        self.known = self.stated

    def look(self, opened: Collection[Column] = ()) -> list[Column]:
        """Determine the row count; return the columns opened for that.

        Parameters
        ----------
        opened : collection of Column
            Columns opened since the table's document was read. Comparing ROWCOUNT with one of them
            saves a request.
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
        """Forget the row count if the column that it was compared with has changed.

        For stores where this check needs no request.
        """
        sample = self._sample
        if sample is None or not sample.document.is_still():
            self.forget()

    def correct(self) -> None:
        """Update ROWCOUNT if another program has changed the number of rows.

        The write fails if the table's document has changed since before the columns were opened.
        So it never undoes a resize by another process.
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
            f"{self._table.place}: other processes changed the table {attempts} while this process "
            "tried to correct its row count"
        )


def _state(table: Document, rows: int) -> None:
    table["attributes"][ROWCOUNT_ATTR] = rows
