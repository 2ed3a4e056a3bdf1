"""Which columns a table has, and in what order.

The listing of the group is the truth; the order kept in the table's attributes is a
hint, brought up to date by whoever creates or deletes a column. So columns can come and
go by other hands (upstream's, another machine's) and none is ever hidden.
"""

import copy
import secrets
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from .attributes import checked_attributes
from .codec import value_bytes
from .column import Column
from .dtypes import ColumnType
from .errors import (
    ColumnExistsError,
    ColumnNotFoundError,
    ConflictError,
    InvalidNameError,
    RatZarrError,
    TableNotFoundError,
)
from .layout import (
    COLUMN_ID_ATTR,
    COLUMN_ORDER_ATTR,
    COMPLETE_ATTR,
    FORMAT_VERSION_ATTR,
    GROUP,
    OWN_COLUMN_ATTRS,
    PENDING,
    RESIZE_ATTR,
    RESIZED_ATTR,
    ROWCOUNT_ATTR,
    ROWS_DONE_ATTR,
    ZARR_JSON,
    Document,
    column_document,
    key_of,
    looks_encoded,
    order_of,
    plausible_keys,
    to_json,
    true_name,
)
from .limits import chunk_rows_within
from .metadata import MetadataDocument
from .objects import Objects
from .parallel import run
from .resizing import Resizing

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
        self.resizing = Resizing(table, self.to_resize, self.row_count, self.table_missing)

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
        replace: bool = False,
    ) -> Column:
        """Create a column; it has as many rows as the table has when it is there.

        With ``replace`` it is out of sight until :meth:`put_in_place`.

        Raises
        ------
        ColumnExistsError
            Where there is one of this name.
        """
        extra = checked_attributes(attributes or {}, OWN_COLUMN_ATTRS)
        resize = self._table.attributes.get(RESIZE_ATTR)
        if isinstance(resize, dict) and rows == resize.get("TO"):
            # It need not follow: it is created with the rows that this leads to.
            extra |= {RESIZED_ATTR: resize.get("ID")}
        if not complete:
            extra |= {COMPLETE_ATTR: False, ROWS_DONE_ATTR: 0}
        document = column_document(
            name,
            column_id=secrets.token_hex(8),
            rows=rows,
            width=width,
            # Fewer where a chunk would be too large to be read again.
            chunk_rows=chunk_rows_within(
                chunk_rows, value_bytes(described.dtype) * width, column=name
            ),
            data_type=described.data_type,
            fill_value=described.fill_value,
            codecs=list(described.codecs),
            attributes=extra,
        )
        key = key_of(name)
        if replace:
            return self._create_out_of_sight(name, key, document)
        column = Column(self._objects, name, key)
        # Upstream may have written the same name under another key.
        taken = len(plausible_keys(name)) > 1 and Column.find(self._objects, name) is not None
        if taken or not column.create(document):
            raise ColumnExistsError(f"{self._objects.location} has a column {name!r} already")
        self._append(name)
        if self.row_count() != rows:
            # The table was resized between our look at it and the column's creation.
            self.resizing.follow(column)
        return column

    def _append(self, name: str, *, new: bool = True) -> None:
        """Put a column at the end of the order; one that is not new only if it isn't in it."""
        known = self._order()
        # In a table that keeps no order yet (upstream's) the others were there before.
        before = [] if known is not None else [other for other in self.names() if other != name]

        def append(document: Document) -> bool:
            order = order_of(document) or before
            if not new and name in order:
                # This instance had not yet seen it there.
                return False
            order = [other for other in order if other != name] + [name]
            document["attributes"][COLUMN_ORDER_ATTR] = order
            return True

        self._table.update(append, self.table_missing)

    # ---- columns that are to take another's place

    def _create_out_of_sight(self, name: str, key: str, document: Document) -> Column:
        # What another process has begun is given up: it finds that out when it is done.
        self._objects.delete_tree(f"{PENDING}/{key}")
        own = document["attributes"][COLUMN_ID_ATTR]
        column = Column(self._objects, name, key, f"{PENDING}/{key}/{own}")
        if not column.create(document):  # pragma: no cover - the name is random
            raise ConflictError(f"{column.document.place} is there already")
        # The table may have been resized since this instance looked at it.
        self.resizing.follow(column)
        return column

    def unfinished(self, name: str) -> Column | None:
        """Open the column of this name that a bulk writer has not finished; None for none.

        That is one that is to take another's place, or one that says it is incomplete.
        """
        there = Column.find(self._objects, name)
        key = key_of(name)
        for folder in self._objects.list_dirs(f"{PENDING}/{key}"):
            column = Column(self._objects, name, key, f"{PENDING}/{key}/{folder}")
            if not column.document.load():
                continue
            if there is not None and there.state.id == folder and there.state.complete:
                # It is in its place, and its writer was killed before it had cleared this away:
                # the old column, or what the server has copied.
                self._objects.delete_tree(f"{PENDING}/{key}/{folder}")
            elif column.state.id == folder:
                return column
        # Whatever else is there, an empty directory at most, has no document.
        self._objects.delete_tree(f"{PENDING}/{key}")
        if there is None or there.state.complete:
            return None
        self._append(name, new=False)
        return there

    def put_in_place(self, column: Column) -> Column:
        """Let a finished column take the place of the one of its name; return it there."""
        interim = copy.deepcopy(column.document.document)
        interim["attributes"][COMPLETE_ATTR] = False
        target = Column(self._objects, column.name, column.key)
        others = [key for key in plausible_keys(column.name) if key != column.key]
        self._objects.replace_tree(target.prefix, column.prefix, to_json(interim))
        if not target.document.load() or not target.state.is_same_column(column.state):
            raise target.replaced()
        for key in others:
            # Upstream's key for this name: two would be there otherwise.
            old = Column(self._objects, column.name, key)
            if old.document.load() and true_name(key, old.document.attributes) == column.name:
                self._objects.delete_tree(old.prefix)
        # This looks at the table again: as last seen, its order may have the name of a column that
        # is gone.
        self.resizing.follow(target)
        if column.name not in (self._order() or []):
            self._append(column.name, new=False)
        target.bytes_written = column.bytes_written
        return target

    # ---- rows

    def row_count(self) -> int:
        """Return the table's number of rows, as last seen."""
        attributes = self._table.attributes
        if ROWCOUNT_ATTR in attributes:
            return int(attributes[ROWCOUNT_ATTR])
        # Upstream before 1.0.2 kept no count: its columns are all of one length.
        for name in self.names():
            column = Column.find(self._objects, name)
            if column is not None:
                return column.state.length
        return 0

    def to_resize(self) -> list[Column]:
        """Open every column, those being built out of sight included, as it is now."""
        found = run([partial(Column.find, self._objects, name) for name in self.names()])
        return [column for column in found if column is not None] + self._being_built()

    def _being_built(self) -> list[Column]:
        columns = []
        for place in self._objects.list_tree(PENDING):
            folders = place.split("/")
            if len(folders) != 4 or folders[-1] != ZARR_JSON:
                continue
            key = folders[1]
            column = Column(self._objects, key, key, place.removesuffix(f"/{ZARR_JSON}"))
            if column.document.load():
                column.name = true_name(key, column.document.attributes)
                columns.append(column)
        return columns

    # ---- deleting

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
