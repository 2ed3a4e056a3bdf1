"""Which columns a table has, and in what order.

The listing of the group is the truth; the order kept in the table's attributes is a
hint, brought up to date by whoever creates or deletes a column. So columns can come and
go by other hands (upstream's, another machine's) and none is ever hidden.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from .attributes import checked_attributes
from .column import Column
from .dtypes import ColumnType
from .errors import (
    ColumnExistsError,
    ColumnNotFoundError,
    InvalidNameError,
    RatZarrError,
    TableNotFoundError,
)
from .layout import (
    COLUMN_ORDER_ATTR,
    COMPLETE_ATTR,
    FORMAT_VERSION_ATTR,
    GROUP,
    OWN_COLUMN_ATTRS,
    ROWCOUNT_ATTR,
    ROWS_DONE_ATTR,
    Document,
    column_document,
    key_of,
    looks_encoded,
    order_of,
    plausible_keys,
    true_name,
)
from .metadata import MetadataDocument
from .objects import Objects
from .parallel import run

__all__ = ["Catalog"]


class Catalog:
    """The columns of one table.

    Parameters
    ----------
    objects : Objects
        The store.
    table : MetadataDocument
        The table's own document.
    """

    def __init__(self, objects: Objects, table: MetadataDocument) -> None:
        self._objects, self._table = objects, table
        self._verified: set[str] = set()

    def names(self) -> list[str]:
        """Return the names of all columns: in order of creation, unknown ones last."""
        keys = set(self._objects.list_dirs(GROUP))
        names = []
        for name in self._order() or []:
            for key in _keys(name):
                if key in keys:
                    keys.discard(key)
                    names.append(name)
                    break
        return names + sorted(self._names_of(keys))

    def _order(self) -> list[str] | None:
        return order_of(self._table.document)

    def _names_of(self, keys: Iterable[str]) -> list[str]:
        """Return the names of keys that the column order does not know."""
        # In a table of ours such a key can also be what is left of a deleted column: it
        # counts only once its zarr.json has been seen. Upstream keeps no order.
        ours = FORMAT_VERSION_ATTR in self._table.attributes
        names: list[str] = []
        unsure: list[str] = []
        for key in keys:
            sure = not looks_encoded(key) and (not ours or key in self._verified)
            (names if sure else unsure).append(key)
        return names + [
            name for name in run([partial(self._name_of, key) for key in unsure]) if name
        ]

    def _name_of(self, key: str) -> str | None:
        document = MetadataDocument(self._objects, Column(self._objects, key, key).document.key)
        if not document.load() or document.document.get("node_type") == "group":
            return None
        self._verified.add(key)
        return true_name(key, document.attributes)

    def find(self, name: str) -> Column:
        """Open the column of this name.

        Raises
        ------
        ColumnNotFoundError
            Names what is there instead.
        """
        column = Column.find(self._objects, name)
        if column is None:
            raise self._no_column(name)
        return column

    def _no_column(self, name: str) -> ColumnNotFoundError:
        try:
            names = self.names()
        except RatZarrError:
            # A place that can't be listed (https): the columns are there all the same.
            return ColumnNotFoundError(f"{self._objects.location} has no column {name!r}")
        shown = ", ".join(repr(other) for other in names[:10])
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return ColumnNotFoundError(
            f"{self._objects.location} has no column {name!r}; it has "
            + (f"{shown}{more}" if names else "none")
        )

    def create(
        self,
        name: str,
        described: ColumnType,
        *,
        rows: int,
        width: int,
        chunk_rows: int,
        attributes: Mapping[str, Any] | None = None,
        complete: bool = True,
    ) -> Column:
        """Create a column; it has as many rows as the table has when it is there.

        Raises
        ------
        ColumnExistsError
            Where there is one of this name.
        """
        extra = checked_attributes(attributes or {}, OWN_COLUMN_ATTRS)
        if not complete:
            extra |= {COMPLETE_ATTR: False, ROWS_DONE_ATTR: 0}
        document = column_document(
            name,
            rows=rows,
            width=width,
            chunk_rows=chunk_rows,
            data_type=described.data_type,
            fill_value=described.fill_value,
            codecs=list(described.codecs),
            attributes=extra,
        )
        column = Column(self._objects, name, key_of(name))
        # Upstream may have written the same name under another key.
        taken = len(plausible_keys(name)) > 1 and Column.find(self._objects, name) is not None
        if taken or not column.create(document):
            raise ColumnExistsError(f"{self._objects.location} has a column {name!r} already")

        known = self._order()
        # In a table that keeps no order yet (upstream's) the others were there before.
        before = [] if known is not None else [other for other in self.names() if other != name]

        def append(document: Document) -> None:
            order = order_of(document) or before
            order = [other for other in order if other != name] + [name]
            document["attributes"][COLUMN_ORDER_ATTR] = order

        self._table.update(append, self.table_missing)
        now = self._table.attributes.get(ROWCOUNT_ATTR, rows)
        if now != rows:
            # The table was resized between our look at it and the column's creation.
            column.set_length(now)
        return column

    def delete(self, name: str) -> None:
        """Delete a column.

        Raises
        ------
        ColumnNotFoundError
            Where there is none of this name.
        """
        column = self.find(name)

        def incomplete(document: Document) -> None:
            document["attributes"] |= {COMPLETE_ATTR: False, ROWS_DONE_ATTR: 0}

        if column.takes_many_requests_to_delete():
            # Interrupted in between, what is left must not be read as if it were whole.
            column.document.update(incomplete, column.missing)
        self._objects.delete_tree(column.prefix)

        def forget(document: Document) -> bool:
            order = order_of(document) or []
            if name not in order:
                return False
            document["attributes"][COLUMN_ORDER_ATTR] = [one for one in order if one != name]
            return True

        self._table.update(forget, self.table_missing)

    def table_missing(self) -> TableNotFoundError:
        """Make the error for a table that is no longer there."""
        return TableNotFoundError(f"there is no RatZarr at {self._objects.location} any more")


def _keys(name: str) -> tuple[str, ...]:
    try:
        return plausible_keys(name)
    except InvalidNameError:
        # Only in an order that someone else wrote.
        return ()
