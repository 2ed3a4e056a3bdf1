"""The columns of a table: listing, creating, replacing, deleting.

The listing of the group is the truth. The order in the table's attributes is a hint, updated by each
creation and deletion, so columns created by other programs are never hidden.
"""

import copy
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Self

from ratzarr.codecs.chunk_codec import value_bytes
from ratzarr.columns.attributes import checked_attributes
from ratzarr.columns.column import Column
from ratzarr.columns.resize import Resizing
from ratzarr.columns.row_count import RowCount
from ratzarr.concurrency import run
from ratzarr.errors import (
    ColumnExistsError,
    ColumnNotFoundError,
    ConflictError,
    DamagedError,
    InvalidNameError,
    RatZarrError,
    StoreError,
    TableNotFoundError,
    UnsupportedCodecError,
)
from ratzarr.format.casting import exact_scalar
from ratzarr.format.dtypes import ColumnType, check_width, column_type, normalize_dtype
from ratzarr.format.history import event
from ratzarr.format.limits import chunk_rows_within
from ratzarr.format.names import (
    COLUMN_ID_ATTR,
    COLUMN_ORDER_ATTR,
    COMPLETE_ATTR,
    FORMAT_VERSION_ATTR,
    GROUP,
    MODIFICATION_ATTR,
    OWN_COLUMN_ATTRS,
    PENDING,
    RESIZE_ATTR,
    RESIZED_ATTR,
    ROWS_DONE_ATTR,
    ZARR_JSON,
    Document,
    are_in_the_raw,
    check_name,
    column_document,
    kept_attributes,
    key_of,
    looks_encoded,
    order_of,
    plausible_keys,
    to_json,
    true_name,
)
from ratzarr.stores.base import Objects
from ratzarr.stores.document import MetadataDocument

__all__ = [
    "UNREADABLE",
    "Catalog",
    "NewColumn",
]


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A column that can be created."""

    name: str
    type: ColumnType
    width: int
    """Values per row."""
    chunk_rows: int
    attributes: Mapping[str, Any]
    """JSON, and none that follow from the table's state."""
    complete: bool

    @classmethod
    def of(
        cls,
        name: str,
        dtype: Any,
        width: int,
        *,
        fill: Any,
        chunk_rows: int,
        attributes: Mapping[str, Any] | None,
        complete: bool,
    ) -> Self:
        """Check what was asked for; see :meth:`ratzarr.RatZarr.createColumn`.

        Raises
        ------
        InvalidNameError, UnsupportedDtypeError, UnequalValueError, ArgumentError, TooLargeError
            For what can't be.
        """
        check_name(name)
        values = check_width(width)
        found = normalize_dtype(dtype)
        scalar = None if fill is None else exact_scalar(fill, found, column=name)
        described = column_type(found, scalar)
        return cls(
            name=name,
            type=described,
            width=values,
            # Fewer where a chunk would be too large to be read again.
            chunk_rows=chunk_rows_within(
                chunk_rows, value_bytes(described.dtype) * values, column=name
            ),
            attributes=checked_attributes(attributes or {}, OWN_COLUMN_ATTRS),
            complete=complete,
        )

    def document(self, rows: int, marks: Mapping[str, Any]) -> Document:
        """Return the document to create it with.

        Parameters
        ----------
        rows : int
            How many it is to have.
        marks : mapping
            Attributes that follow from the table's state.
        """
        unfinished: dict[str, Any] = {}
        if not self.complete:
            # Who creates it so is about to write it: that is noted here, and not by a request.
            unfinished = {
                COMPLETE_ATTR: False,
                ROWS_DONE_ATTR: 0,
                MODIFICATION_ATTR: [event()],
            }
        return column_document(
            self.name,
            column_id=secrets.token_hex(8),
            rows=rows,
            width=self.width,
            chunk_rows=self.chunk_rows,
            data_type=self.type.data_type,
            fill_value=self.type.fill_value,
            codecs=list(self.type.codecs),
            attributes={**self.attributes, **marks, **unfinished},
        )


UNREADABLE = (DamagedError, UnsupportedCodecError)
"""What opening a column raises whose document can't be understood here."""

AT_ONCE = 1000
"""Objects that one request lists, and one deletes."""
_agreements: dict[int, tuple[Sequence[str], list[str]]] = {}
"""By a listing's id: itself, and the order that has its names and no others."""
KEPT = 8
"""Of these. Only of a disk's listings do the same ones come again."""
_CHUNK = re.compile(r"(?:c/)?[0-9]+(?:[./][0-9]+)*")


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
        self.left_out: dict[str, RatZarrError] = {}
        """Columns that can't be read, when all were last opened, with the reason."""
        self.rows = RowCount(table, self._first, partial(self.all, {}), self.table_missing)
        self.resizing = Resizing(
            table, self.all, self.being_built, self.row_count, self.table_missing
        )

    @property
    def threads(self) -> int | None:
        """How many threads are enough for reading; None: as many as requests may be."""
        return self._objects.threads

    def names(self) -> list[str]:
        """Return the names of all columns: in order of creation, unknown ones last."""
        listed = self._objects.list_dirs(GROUP)
        return self._names_by_order() if listed is None else self._names_listed(listed)

    def _names_listed(self, listed: list[str]) -> list[str]:
        """Return the names of a listing of keys, in order."""
        order = self._order()
        if order is not None and _agreed(listed, order):
            return order
        keys = set(listed)
        names = _ordered(order, keys)
        if not keys and order == names:
            _agree(listed, names)
        if not keys:
            return names
        if len(keys) > 1 and self._is_ours and not keys <= self._verified:
            # Columns that others have created since: the order as it is now knows them all,
            # at the price of one.
            now = self._table.snapshot()
            if now.load():
                names += _ordered(order_of(now.document), keys)
        return names + sorted(self._names_of(keys))

    def _names_by_order(self) -> list[str]:
        """Return the names in the order alone, of a place that can't be listed."""
        order = self._order()
        if order is None:
            raise StoreError(
                f"{self._objects.location} can't be listed, and keeps no order of its columns: "
                "they can only be read by name"
            )
        return [name for name in order if _keys(name)]

    @property
    def _is_ours(self) -> bool:
        """Whether the table keeps an order; upstream's don't."""
        return FORMAT_VERSION_ATTR in self._table.attributes

    def _order(self) -> list[str] | None:
        return order_of(self._table.document)

    def _names_of(self, keys: Iterable[str]) -> list[str]:
        """Return the names of keys that the column order does not know."""
        # In a table of ours such a key can also be what is left of a deleted column: it
        # counts only once its zarr.json has been seen. Upstream keeps no order.
        ours = self._is_ours
        names: list[str] = []
        unsure: list[str] = []
        for key in keys:
            sure = not looks_encoded(key) and (not ours or key in self._verified)
            (names if sure else unsure).append(key)
        if unsure:
            names += [
                name for name in run([partial(self._name_of, key) for key in unsure]) if name
            ]
        return names

    def _name_of(self, key: str) -> str | None:
        document = MetadataDocument(self._objects, Column(self._objects, key, key).document.key)
        try:
            if not document.load() or document.document.get("node_type") == "group":
                return None
        except DamagedError:
            # A column whose document can't be read is there all the same, under its key.
            return key
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

    def _locate(self, name: str) -> Column:
        """Return the column of this name, whether or not it can be read.

        Raises
        ------
        ColumnNotFoundError
            Names what is there instead.
        """
        column = Column.locate(self._objects, name)
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

    def create(self, new: NewColumn, rows: int, *, replace: bool = False) -> Column:
        """Create a column; it has as many rows as the table has when it is there.

        With ``replace`` it is out of sight until :meth:`put_in_place`.

        Raises
        ------
        ColumnExistsError
            Where there is one of this name.
        """
        if replace:
            return self._create_out_of_sight(new.name, key_of(new.name), self._document(new, rows))
        # Upstream may have written the same name under another key.
        others = plausible_keys(new.name)[1:]
        taken = bool(others) and Column.locate(self._objects, new.name, others) is not None
        column = None if taken else self._create(new, rows)
        if column is None:
            raise ColumnExistsError(f"{self._objects.location} has a column {new.name!r} already")
        self._append(new.name)
        self._catch_up([column], rows)
        return column

    def create_many(self, columns: Sequence[NewColumn], rows: int) -> list[Column]:
        """Create columns in parallel: one listing, a request for each, and two for the order.

        Raises
        ------
        ColumnExistsError
            Where there is one of such a name. None is created, unless it has come into being
            just now: then the others are.
        """
        keys = set(self._objects.list_dirs(GROUP) or ())
        there = run([partial(self._is_there, new.name, keys) for new in columns])
        taken = [new.name for new, found in zip(columns, there, strict=True) if found]
        if taken:
            raise ColumnExistsError(
                f"{self._objects.location} has a column {taken[0]!r} already: none of the "
                f"{len(columns)} columns was created"
            )
        # Names in the order that are not there are passed over. So it is the one that was asked for
        # also where some are created only at a second try, after the store has failed.
        self._append(*(new.name for new in columns))
        created = run([partial(self._create, new, rows) for new in columns])
        made = [column for column in created if column is not None]
        # The table may have been resized meanwhile.
        if not self._table.load():
            raise self.table_missing()
        self._catch_up(made, rows)
        if len(made) < len(columns):
            late = columns[created.index(None)].name
            raise ColumnExistsError(
                f"{self._objects.location}: another process has just created a column {late!r}; of "
                f"the {len(columns)} columns {len(made)} were created"
            )
        return made

    def _is_there(self, name: str, keys: set[str]) -> bool:
        return any(key in keys for key in plausible_keys(name)) and self.is_there(name)

    def _document(self, new: NewColumn, rows: int) -> Document:
        resize = self._table.attributes.get(RESIZE_ATTR)
        if isinstance(resize, dict) and rows == resize.get("TO"):
            # It need not follow: it is created with the rows that this leads to.
            return new.document(rows, {RESIZED_ATTR: resize.get("ID")})
        return new.document(rows, {})

    def _create(self, new: NewColumn, rows: int) -> Column | None:
        column = Column(self._objects, new.name, key_of(new.name))
        return column if column.create(self._document(new, rows)) else None

    def _catch_up(self, columns: Sequence[Column], rows: int) -> None:
        if self.row_count() != rows:
            # The table was resized between our look at it and the columns' creation.
            run([partial(self.resizing.follow, column) for column in columns])

    def _append(self, *names: str) -> None:
        """Put columns at the end of the order, if they are not in it."""
        known = self._order()
        # In a table that keeps no order yet (upstream's) the others were there before.
        before = [] if known is not None else [old for old in self.names() if old not in names]

        def append(document: Document) -> bool:
            order = order_of(document) or before
            # One that is, this instance may just not have seen there yet.
            added = [name for name in names if name not in order]
            document["attributes"][COLUMN_ORDER_ATTR] = [*order, *added]
            return bool(added)

        self._table.update(append, self.table_missing)

    # ---- columns that are to take another's place

    def kept_attributes(self, name: str) -> dict[str, Any]:
        """Return the attributes that the column of this name hands on to one that replaces it."""
        for key in plausible_keys(name):
            # The document alone: a column with an unknown codec has attributes all the same.
            document = MetadataDocument(
                self._objects, Column(self._objects, name, key).document.key
            )
            # A damaged document has none, and must not keep its column from being replaced.
            with suppress(DamagedError):
                is_there = document.load() and document.document.get("node_type") != "group"
                if is_there and true_name(key, document.attributes) == name:
                    return kept_attributes(copy.deepcopy(document.attributes))
        return {}

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
        # In the place of one that can't be read another can be put.
        there = self.find_readable(name)
        key = key_of(name)
        for folder in self._objects.list_dirs(f"{PENDING}/{key}") or []:
            column = Column(self._objects, name, key, f"{PENDING}/{key}/{folder}")
            try:
                if not column.document.load():
                    continue
                column.state  # noqa: B018 - what can't be read can't be gone on with
            except UNREADABLE:
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
        self._append(name)
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
            self._append(column.name)
        target.bytes_written = column.bytes_written
        return target

    # ---- rows

    def row_count(self) -> int:
        """Return the number of rows that the table's document says, as last seen."""
        stated = self.rows.stated
        if stated is not None:
            return stated
        # A table of upstream's keeps no count: its columns are all of one length.
        if self.rows.known is None:
            self.rows.look()
        return self.rows.known or 0

    def _first(self) -> Column | None:
        """Open a column that can be read: one request, if the order is right."""
        ordered = [name for name in self._order() or [] if _keys(name)]
        for name in ordered:
            column = self.find_readable(name)
            if column is not None:
                return column
        listed = self._objects.list_dirs(GROUP)
        if listed is None:
            return None
        others = (name for name in self._names_listed(listed) if name not in ordered)
        return next(filter(None, map(self.find_readable, others)), None)

    def find_readable(self, name: str) -> Column | None:
        """Open the column of this name; None where there is none, or none that can be read."""
        try:
            return Column.find(self._objects, name)
        except UNREADABLE:
            return None

    def is_there(self, name: str) -> bool:
        """Return whether there is a column of this name, whether or not it can be read."""
        return Column.locate(self._objects, name) is not None

    def all(self, known: Mapping[str, Column]) -> list[Column]:
        """Return every column in its place: as it is in ``known``, or else as it is now.

        Those that can't be read are not among them (:attr:`left_out`).
        """
        left_out: dict[str, RatZarrError] = {}

        def get(name: str) -> Column | None:
            try:
                return known[name] if name in known else Column.find(self._objects, name)
            except UNREADABLE as error:
                left_out[name] = error
                return None

        found = run([partial(get, name) for name in self.names()])
        self.left_out = left_out
        return [column for column in found if column is not None]

    def being_built(self) -> list[Column]:
        """Open every column that is being built out of sight, as it is now, if it can be read."""
        columns = []
        for place in self._objects.list_tree(PENDING):
            folders = place.split("/")
            if len(folders) != 4 or folders[-1] != ZARR_JSON:
                continue
            key = folders[1]
            column = Column(self._objects, key, key, place.removesuffix(f"/{ZARR_JSON}"))
            try:
                if column.document.load():
                    column.name = true_name(key, column.document.attributes)
                    column.state  # noqa: B018 - understood now: one that can't be is left as it is
                    columns.append(column)
            except UNREADABLE:
                continue
        return columns

    # ---- deleting

    def delete(self, name: str, known: Column | None = None) -> None:
        """Delete a column.

        Parameters
        ----------
        name : str
            Its name.
        known : Column, optional
            The column of this name that was there when last looked at.

        Raises
        ------
        ColumnNotFoundError
            Where there is none of this name.
        """
        if self._objects.deletes_at_once:
            self._objects.delete_tree(self._locate(name).prefix)
        else:
            self._delete_objects(name, known)

        def forget(document: Document) -> bool:
            order = order_of(document) or []
            if name not in order:
                return False
            document["attributes"][COLUMN_ORDER_ATTR] = [one for one in order if one != name]
            return True

        self._table.update(forget, self.table_missing)

    def _delete_objects(self, name: str, known: Column | None) -> None:
        """Delete a column's objects, by as many requests as they take."""
        keys = plausible_keys(name)
        column = Column(self._objects, name, keys[0])
        listing = self._objects.list_tree(column.prefix)
        first = list(islice(listing, AT_ONCE + 1))
        if len(keys) > 1 or len(first) > AT_ONCE or not _is_a_column(column, first, known):
            column = self._locate(name)
        if column.key != keys[0]:
            listing = self._objects.list_tree(column.prefix)
            first = list(islice(listing, AT_ONCE + 1))

        def incomplete(document: Document) -> None:
            document["attributes"] |= {COMPLETE_ATTR: False, ROWS_DONE_ATTR: 0}

        if len(first) > AT_ONCE:
            # Interrupted in between, what is left must not be read as if it were whole: a column
            # that can't be read won't be.
            with suppress(DamagedError):
                column.document.update(incomplete, column.missing)
        self._objects.delete(chain(first, listing))

    def table_missing(self) -> TableNotFoundError:
        """Make the error for a table that is no longer there."""
        return TableNotFoundError(f"there is no RatZarr at {self._objects.location} any more")


def _is_a_column(column: Column, keys: Sequence[str], known: Column | None) -> bool:
    """Return whether a listing alone says that there is such a column."""
    names = {key.removeprefix(f"{column.prefix}/") for key in keys}
    if ZARR_JSON not in names:
        return False
    chunks = names - {ZARR_JSON}
    # An array or a group, as upstream makes of a name with /: chunks tell, or who has seen it.
    seen = known is not None and known.prefix == column.prefix
    return (seen or bool(chunks)) and all(_CHUNK.fullmatch(chunk) for chunk in chunks)


def _agreed(listed: Sequence[str], order: list[str]) -> bool:
    """Return whether an order was seen to have the names of this very listing, and no others."""
    known = _agreements.get(id(listed))
    return known is not None and known[0] is listed and known[1] == order


def _agree(listed: Sequence[str], order: list[str]) -> None:
    if len(_agreements) >= KEPT:
        _agreements.clear()
    # A copy: what is returned is its receiver's.
    _agreements[id(listed)] = listed, list(order)


def _ordered(order: list[str] | None, keys: set[str]) -> list[str]:
    """Return the names that have a key among these, in order; take these keys out."""
    order = order or []
    if are_in_the_raw(keys):
        # By far the most tables are like that, and nothing is to be worked out for each name.
        known = set(order)
        if known == keys and len(known) == len(order):
            keys.clear()
            return order
        names = [name for name in dict.fromkeys(order) if name in keys]
        keys -= known
        return names
    names = []
    for name in order:
        for key in _keys(name):
            if key in keys:
                keys.discard(key)
                names.append(name)
                break
    return names


def _keys(name: str) -> tuple[str, ...]:
    try:
        return plausible_keys(name)
    except InvalidNameError:
        # Only in an order that someone else wrote.
        return ()
