"""The columns of a table: listing, creating, replacing, deleting.

The listing of the group decides which columns exist. The table's attributes also store the order
of the columns, updated by each creation and deletion. This order is only a hint, so columns
created by other programs are never hidden.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

from numpy.typing import NDArray

from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState, NewColumn
from ratzarr.columns.resize import Resizing, rows_of
from ratzarr.concurrency import Attempts, run
from ratzarr.errors import (
    ColumnExistsError,
    ColumnNotFoundError,
    ConflictError,
    DamagedError,
    InvalidNameError,
    RatZarrError,
    StoreError,
    UnsupportedCodecError,
)
from ratzarr.format.names import (
    CHUNKSIZE_ATTR,
    COLUMN_ID_ATTR,
    COLUMN_ORDER_ATTR,
    COMPLETE_ATTR,
    FORMAT_VERSION_ATTR,
    GROUP,
    PENDING,
    RESIZE_ATTR,
    RESIZED_ATTR,
    ROWCOUNT_ATTR,
    ROWS_DONE_ATTR,
    ZARR_JSON,
    Document,
    kept_attributes,
    key_of,
    looks_encoded,
    near_names,
    order_of,
    plausible_keys,
    stated_rows,
    to_json,
    true_name,
)
from ratzarr.stores.document import MetadataDocument

__all__ = ["UNREADABLE", "Catalog", "keys_of"]


UNREADABLE = (DamagedError, UnsupportedCodecError)
"""The errors for a column whose document this version can't interpret."""

KEYS_PER_REQUEST = 1000
"""The number of objects that one request can list or delete."""
_CHUNK = re.compile(r"(?:c/)?[0-9]+(?:[./][0-9]+)*")


class Catalog:
    """The columns of one table.

    Parameters
    ----------
    table : MetadataDocument
        The table's own document.
    """

    def __init__(self, table: MetadataDocument) -> None:
        self.objects, self._table = table.objects, table
        self._verified: set[str] = set()
        self.left_out: dict[str, RatZarrError] = {}
        """The columns that could not be read when all were last opened, with the reason."""

    @cached_property
    def resizing(self) -> Resizing:
        """The changes of the row count."""
        return Resizing(self._table, self)

    def names(self) -> list[str]:
        """Return the names of all columns: in order of creation, then the others."""
        listed = self.objects.list_dirs(GROUP)
        if listed is not None:
            return self._names_listed(listed)
        if self.order is None:
            raise StoreError(
                f"{self.objects.location} can't be listed, and keeps no order of its columns: "
                "they can only be read by name"
            )
        return [name for name in self.order if keys_of(name)]

    def _names_listed(self, listed: list[str]) -> list[str]:
        """Return the column names for a listing of keys, in order."""
        keys = set(listed)
        names = _ordered(self.order, keys)
        if not keys:
            return names
        if len(keys) > 1 and self._is_ours and not keys <= self._verified:
            # Other processes have created columns since. One request reads the current order,
            # which should list them all.
            now = self._table.snapshot()
            if now.load():
                names += _ordered(order_of(now.document), keys)
        return names + sorted(self._names_of(keys))

    @property
    def _is_ours(self) -> bool:
        """True if the table stores an order; tables of the existing module don't."""
        return FORMAT_VERSION_ATTR in self._table.attributes

    @property
    def order(self) -> list[str] | None:
        """The order of the columns as last read; None if the table stores none."""
        return order_of(self._table.document)

    def _names_of(self, keys: Iterable[str]) -> list[str]:
        """Return the column names for keys that the order lacks."""
        # In our tables, such a key can also be the remains of a deleted column. It counts only
        # after its zarr.json has been read. Tables of the existing module have no order.
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
        document = Column(self.objects, key, key).document
        try:
            if not document.load() or document.document.get("node_type") == "group":
                return None
        except DamagedError:
            # A column with an unreadable document still exists, under the name of its key.
            return key
        self._verified.add(key)
        return true_name(key, document.attributes)

    def _locate(self, name: str) -> Column:
        """Return the column of this name, readable or not; raise an error if there is none."""
        column = Column.find(self.objects, name, unreadable=True)
        if column is None:
            raise self.no_column(name)
        return column

    def no_column(self, name: str) -> ColumnNotFoundError:
        """Return the error for a column that does not exist; it lists the existing columns."""
        try:
            names = self.names()
        except RatZarrError:
            # The location (https) can't be listed, so the message can't name the columns.
            return ColumnNotFoundError(f"{self.objects.location} has no column {name!r}")
        return ColumnNotFoundError(
            f"{self.objects.location} has no column {name!r}{near_names(name, names)}"
        )

    def create(self, new: NewColumn, rows: int, *, replace: bool = False) -> Column:
        """Create a column; it has the table's row count at the time the column appears.

        With ``replace``, the column stays hidden until :meth:`put_in_place`.

        Raises
        ------
        ColumnExistsError
            If a column of this name exists.
        """
        if replace:
            return self._create_hidden(new.name, key_of(new.name), self._document(new, rows))
        # The existing module may have stored the same name under another key.
        others = plausible_keys(new.name)[1:]
        taken = (
            bool(others)
            and Column.find(self.objects, new.name, others, unreadable=True) is not None
        )
        column = None if taken else self._create(new, rows)
        if column is None:
            raise ColumnExistsError(f"{self.objects.location} has a column {new.name!r} already")
        self._append(new.name)
        self._catch_up([column], rows)
        return column

    def create_many(self, columns: Sequence[NewColumn], rows: int) -> list[Column]:
        """Create columns in parallel: one listing, a request for each, and two for the order.

        Raises
        ------
        ColumnExistsError
            If a column of one of these names exists. No column is created. If another process
            creates such a column during this call, the other columns may have been created.
        """
        keys = set(self.objects.list_dirs(GROUP) or ())
        there = run([partial(self._is_there, new.name, keys) for new in columns])
        taken = [new.name for new, found in zip(columns, there, strict=True) if found]
        if taken:
            raise ColumnExistsError(
                f"{self.objects.location} has a column {taken[0]!r} already: none of the "
                f"{len(columns)} columns was created"
            )
        # Readers skip names in the order that don't exist. Appending all names first keeps the
        # requested order, even if some columns are created only by a second attempt after a
        # failure of the store.
        self._append(*(new.name for new in columns))
        created = run([partial(self._create, new, rows) for new in columns])
        made = [column for column in created if column is not None]
        # The table may have been resized in the meantime.
        self._table.reload()
        self._catch_up(made, rows)
        if len(made) < len(columns):
            late = columns[created.index(None)].name
            raise ColumnExistsError(
                f"{self.objects.location}: another process has just created a column {late!r}; of "
                f"the {len(columns)} columns {len(made)} were created"
            )
        return made

    def _is_there(self, name: str, keys: set[str]) -> bool:
        return any(key in keys for key in plausible_keys(name)) and self.is_there(name)

    def _document(self, new: NewColumn, rows: int) -> Document:
        resize = self._table.attributes.get(RESIZE_ATTR)
        if isinstance(resize, dict) and rows == resize.get("TO"):
            # The column has the row count that this resize leads to, so it need not follow the
            # resize.
            return new.document(rows, {RESIZED_ATTR: resize.get("ID")})
        return new.document(rows, {})

    def _create(self, new: NewColumn, rows: int) -> Column | None:
        column = Column(self.objects, new.name, key_of(new.name))
        return column if column.document.create(self._document(new, rows)) else None

    def _catch_up(self, columns: Sequence[Column], rows: int) -> None:
        if self.row_count() != rows:
            # The table was resized after we read it, and before the columns were created.
            run([partial(self.resizing.follow, column) for column in columns])

    def grow(
        self, column: Column, state: ColumnState, values: NDArray[Any], start: int
    ) -> tuple[Column, ColumnState, NDArray[Any]]:
        """Let a column grow to the table's row count before rows are written.

        Return the column with its new state, and the values.

        Raises
        ------
        ChangedError
            If the column was created anew since ``state``, or the table has become shorter.
        """
        self.resizing.follow(column)
        if not column.state.is_same_column(state):
            raise column.replaced()
        if start + len(values) > column.state.length:
            # The table has become shorter, and these rows are outside it.
            raise column.cut(column.state.length, start + len(values))
        return column, column.state, values

    def _append(self, *names: str) -> None:
        """Append columns to the order, except those already in it."""
        known = self.order
        # A table of the existing module has no order yet. Its columns are older than the new ones.
        before = [] if known is not None else [old for old in self.names() if old not in names]

        def append(document: Document) -> bool:
            order = order_of(document) or before
            # A name may be in the current order, though not in the one that this instance has
            # read.
            added = [name for name in names if name not in order]
            document["attributes"][COLUMN_ORDER_ATTR] = [*order, *added]
            return bool(added)

        self._table.update(append)

    # ---- replacing

    def kept_attributes(self, name: str) -> dict[str, Any]:
        """Return the attributes that a replacement of this column keeps."""
        # A column with an unknown codec has attributes too, and a damaged document has none.
        column = Column.find(self.objects, name, unreadable=True)
        return kept_attributes(copy.deepcopy(column.document.attributes)) if column else {}

    def _create_hidden(self, name: str, key: str, document: Document) -> Column:
        # Discard an unfinished replacement by another process. That process notices when it
        # finishes.
        self.objects.delete_tree(f"{PENDING}/{key}")
        own = document["attributes"][COLUMN_ID_ATTR]
        column = Column(self.objects, name, key, f"{PENDING}/{key}/{own}")
        if not column.document.create(document):  # pragma: no cover - the name is random
            raise ConflictError(f"{column.document.place} already exists")
        # The table may have been resized since this instance read it.
        self.resizing.follow(column)
        return column

    def unfinished(self, name: str) -> Column | None:
        """Open the unfinished column of this name, or return None.

        It is either a hidden replacement, or a column marked as incomplete.
        """
        # An unreadable column can be replaced too.
        there = self.find_readable(name)
        key = key_of(name)
        for folder in self.objects.list_dirs(f"{PENDING}/{key}") or []:
            column = Column(self.objects, name, key, f"{PENDING}/{key}/{folder}")
            try:
                if not column.document.load():
                    continue
                column.state  # noqa: B018 - an unreadable column can't be resumed
            except UNREADABLE:
                continue
            if there is not None and there.state.id == folder and there.state.complete:
                # The replacement is in place, but its writer was killed before it removed this
                # tree: the old column, or the source of the server's copy.
                self.objects.delete_tree(f"{PENDING}/{key}/{folder}")
            elif column.state.id == folder:
                return column
        # Anything else here, at most an empty directory, has no document.
        self.objects.delete_tree(f"{PENDING}/{key}")
        if there is None or there.state.complete:
            return None
        self._append(name)
        return there

    def discard(self, name: str) -> None:
        """Delete the unfinished column of this name, if there is one.

        A replacement that is finished, but was interrupted while it was put in place, is put in
        place: the old column may be gone.
        """
        column = self.unfinished(name)
        if column is None:
            return
        if column.in_place:
            self.delete(name, column)
        elif column.state.complete:
            self.put_in_place(column)
        else:
            self.objects.delete_tree(column.prefix)

    def put_in_place(self, column: Column) -> Column:
        """Replace the column of this name by a finished one; return it in its place."""
        interim = copy.deepcopy(column.document.document)
        interim["attributes"][COMPLETE_ATTR] = False
        target = Column(self.objects, column.name, column.key)
        others = [key for key in plausible_keys(column.name) if key != column.key]
        self.objects.replace_tree(target.prefix, column.prefix, to_json(interim))
        if not target.document.load() or not target.state.is_same_column(column.state):
            raise target.replaced()
        for key in others:
            # The existing module's key for this name. Without this, the table would have the
            # column twice.
            old = Column.find(self.objects, column.name, [key], unreadable=True)
            if old is not None:
                self.objects.delete_tree(old.prefix)
        # This reads the table again, because the order as last read may contain a deleted column.
        self.resizing.follow(target)
        if column.name not in (self.order or []):
            self._append(column.name)
        target.bytes_written = column.bytes_written
        return target

    # ---- rows

    def set_chunk_rows(self, rows: int) -> None:
        """Set the chunk size of new columns."""
        self._table.update(partial(_set_attribute, name=CHUNKSIZE_ATTR, value=rows))

    def row_count(self) -> int:
        """Return the row count in the table's document, as last read."""
        stated = stated_rows(self._table.document)
        if stated is not None:
            return stated
        # A table of the existing module stores no row count; its columns all have the same length.
        column = self.first()
        return 0 if column is None else column.state.length

    def correct_row_count(self, rows: int) -> int:
        """Update ROWCOUNT if another program has changed the number of rows; return the row count.

        The write fails if the table's document has changed since before the columns were opened.
        So it never undoes a resize by another process. ``rows`` is the row count as known.
        """
        for attempt in (attempts := Attempts(self.objects.patience)):
            if attempt:
                self._table.reload()
            stated = stated_rows(self._table.document)
            if stated is None or RESIZE_ATTR in self._table.attributes or stated == rows:
                return rows
            rows = rows_of(stated, [column.state for column in self.all({})])
            change = partial(_set_attribute, name=ROWCOUNT_ATTR, value=rows)
            if rows == stated or self._table.swap(change):
                return rows
        raise ConflictError(
            f"{self._table.place}: other processes changed the table {attempts} while this process "
            "tried to correct its row count"
        )

    def first(self) -> Column | None:
        """Open a readable column. This takes one request if the order is correct."""
        ordered = [name for name in self.order or [] if keys_of(name)]
        for name in ordered:
            column = self.find_readable(name)
            if column is not None:
                return column
        listed = self.objects.list_dirs(GROUP)
        if listed is None:
            return None
        others = (name for name in self._names_listed(listed) if name not in ordered)
        return next(filter(None, map(self.find_readable, others)), None)

    def find_readable(self, name: str) -> Column | None:
        """Open the column of this name; None if it does not exist or can't be read."""
        try:
            return Column.find(self.objects, name)
        except UNREADABLE:
            return None

    def is_there(self, name: str) -> bool:
        """Return True if a column of this name exists, readable or not."""
        return Column.find(self.objects, name, unreadable=True) is not None

    def all(self, known: Mapping[str, Column]) -> list[Column]:
        """Return every visible column: from ``known`` if it is there, otherwise newly opened.

        Unreadable columns are omitted, and listed in :attr:`left_out`.
        """
        left_out: dict[str, RatZarrError] = {}

        def get(name: str) -> Column | None:
            try:
                return known[name] if name in known else Column.find(self.objects, name)
            except UNREADABLE as error:
                left_out[name] = error
                return None

        found = run([partial(get, name) for name in self.names()])
        self.left_out = left_out
        return [column for column in found if column is not None]

    def being_built(self) -> list[Column]:
        """Open every readable column that is still hidden, to replace another later."""
        columns = []
        for place in self.objects.list_tree(PENDING):
            folders = place.split("/")
            if len(folders) != 4 or folders[-1] != ZARR_JSON:
                continue
            key = folders[1]
            column = Column(self.objects, key, key, place.removesuffix(f"/{ZARR_JSON}"))
            try:
                if column.document.load():
                    column.name = true_name(key, column.document.attributes)
                    column.state  # noqa: B018 - raises for an unreadable column, which is skipped
                    columns.append(column)
            except UNREADABLE:
                continue
        return columns

    # ---- deleting

    def delete(self, name: str, known: Column | None = None) -> None:
        """Delete a column; ``known`` is the column of this name as last read.

        Raises
        ------
        ColumnNotFoundError
            If there is no column of this name.
        """
        if self.objects.deletes_at_once:
            self.objects.delete_tree(self._locate(name).prefix)
        else:
            self._delete_objects(name, known)

        def forget(document: Document) -> bool:
            order = order_of(document) or []
            if name not in order:
                return False
            document["attributes"][COLUMN_ORDER_ATTR] = [one for one in order if one != name]
            return True

        self._table.update(forget)

    def _delete_objects(self, name: str, known: Column | None) -> None:
        """Delete a column's objects, with as many requests as necessary."""
        keys = plausible_keys(name)
        column = Column(self.objects, name, keys[0])
        listing = self.objects.list_tree(column.prefix)
        first = list(islice(listing, KEYS_PER_REQUEST + 1))
        if (
            len(keys) > 1
            or len(first) > KEYS_PER_REQUEST
            or not _is_a_column(column, first, known)
        ):
            column = self._locate(name)
        if column.key != keys[0]:
            listing = self.objects.list_tree(column.prefix)
            first = list(islice(listing, KEYS_PER_REQUEST + 1))

        def incomplete(document: Document) -> None:
            document["attributes"] |= {COMPLETE_ATTR: False, ROWS_DONE_ATTR: 0}

        if len(first) > KEYS_PER_REQUEST:
            # Mark the column as incomplete, so that the rest of an interrupted deletion is not
            # read as a whole column. A damaged document protects by itself.
            with suppress(DamagedError):
                column.document.update(incomplete)
        self.objects.delete(chain(first, listing))


def _is_a_column(column: Column, keys: Sequence[str], known: Column | None) -> bool:
    """Return True if a listing alone proves that a key is a column."""
    names = {key.removeprefix(f"{column.prefix}/") for key in keys}
    if ZARR_JSON not in names:
        return False
    chunks = names - {ZARR_JSON}
    # The document alone could be a group: the existing module makes groups for names with a slash.
    # Chunks prove an array, and so does an earlier reading.
    seen = known is not None and known.prefix == column.prefix
    return (seen or bool(chunks)) and all(_CHUNK.fullmatch(chunk) for chunk in chunks)


def _set_attribute(document: Document, name: str, value: object) -> None:
    document["attributes"][name] = value


def _ordered(order: list[str] | None, keys: set[str]) -> list[str]:
    """Return the names with a key among these, in order; remove these keys from the set."""
    if "%" not in "".join(keys):
        # Most tables have no encoded keys, so that each key is its name.
        if order and len(order) == len(keys) and keys == set(order):
            keys.clear()
            return order
        names = [name for name in dict.fromkeys(order or []) if name in keys]
        keys.difference_update(names)
        return names
    names = []
    for name in order or []:
        key = next((key for key in keys_of(name) if key in keys), None)
        if key is not None:
            keys.discard(key)
            names.append(name)
    return names


def keys_of(name: str) -> tuple[str, ...]:
    """Return the keys at which a column may be stored; none for an invalid column name."""
    try:
        return plausible_keys(name)
    except InvalidNameError:
        # Only an order written by another program can contain such a name.
        return ()
