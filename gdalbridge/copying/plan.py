"""What is to be done with each column of a raster's table, decided before anything is written.

A column is created, or takes the place of one that is there, or is gone on with where an
earlier copy was interrupted, or is passed over as that copy had finished it. Whether what
is there came from this raster's table as it is now is told by its ``PROVENANCE``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gdalbridge.errors import BridgeError, ColumnSelectionError, OutputExistsError
from gdalbridge.gdalio.field_types import FieldType, FieldUsage, usage_attributes
from gdalbridge.gdalio.rat_reader import RatColumn, RatSource, StoredColumn
from gdalbridge.sidecars.fingerprint import table_changes
from gdalbridge.sidecars.provenance import PROVENANCE_ATTR
from ratzarr import RatZarr
from ratzarr.errors import Advice
from ratzarr.format import COMPLETE_ATTR, CUTS_ATTR, CUTTING_ATTR

__all__ = [
    "GDAL_NAME_ATTR",
    "Action",
    "Choice",
    "Plan",
    "choose",
    "plan_columns",
]

GDAL_NAME_ATTR = "GDAL_NAME"
"""A column's attribute: GDAL's name of it, where a copy had to make up another."""

CHUNK_BYTES = 64 * 2**20
"""A chunk of text, unpacked, should not be larger: several are in memory at once."""
ROW_OVERHEAD = 64
"""Bytes per string or bytes object in memory, besides its characters."""


class Action(Enum):
    """What is to be done with a column."""

    CREATE = "create"
    """There is none of its name."""
    REPLACE = "replace"
    """It takes another's place, once it is complete."""
    START_OVER = "start over"
    """What is there is not complete, and not to be gone on with."""
    RESUME = "resume"
    """Rows that an interrupted copy has not written are written."""
    KEEP = "keep"
    """All of it is there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A column that was chosen, and where it will say that it came from."""

    column: RatColumn
    name: str
    """Its name in the sidecar."""
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """A column to be copied."""

    column: RatColumn
    name: str
    stored: StoredColumn
    chunk_rows: int
    action: Action
    provenance: Mapping[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes to create it with."""
        found = dict(self.stored.attributes)
        if self.name != self.column.name:
            found[GDAL_NAME_ATTR] = self.column.name
        return found | {PROVENANCE_ATTR: dict(self.provenance)}


def choose(
    columns: Sequence[RatColumn], wanted: Sequence[str] | None, where: str
) -> list[RatColumn]:
    """Return the columns of these names, all of them by default.

    Raises
    ------
    ColumnSelectionError
        Names what is not there, and what is.
    """
    if wanted is None:
        return list(columns)
    if isinstance(wanted, str):
        raise ColumnSelectionError(f"columns is a list of names: got the string {wanted!r}")
    there = [column.name for column in columns]
    for name in wanted:
        if name not in there:
            raise ColumnSelectionError(f"{where} has no column {name!r}; it has {there}")
    return [column for column in columns if column.name in wanted]


def plan_columns(
    source: RatSource,
    table: RatZarr,
    choices: Sequence[Choice],
    *,
    overwrite: bool,
    resume: bool,
    chunk_rows: int | None,
) -> list[Plan]:
    """Decide on each column. Nothing is written.

    Raises
    ------
    OutputExistsError
        Where a column is there already and may not be.
    BridgeError
        Where one can't be gone on with: says what differs.
    """
    there = set(table.getColumnNames())
    decided = [
        (choice, *_decide(source, table, choice, there, overwrite, resume, chunk_rows))
        for choice in choices
    ]
    _check_rows(source, table, {choice.name for choice in choices})
    plans = []
    for choice, action, kept in decided:
        # A type that is not known, or a date that can't be kept, is found out here; text that
        # is no UTF-8 only when it is read.
        stored = kept or source.stored(choice.column.index)
        chunk = (
            table.getColumnChunkSize(choice.name)
            if kept is not None
            else chunk_rows or _chunk_rows(source, choice.column, stored, table.getRATChunkSize())
        )
        plans.append(Plan(choice.column, choice.name, stored, chunk, action, choice.provenance))
    return plans


def _decide(
    source: RatSource,
    table: RatZarr,
    choice: Choice,
    there: set[str],
    overwrite: bool,
    resume: bool,
    chunk_rows: int | None,
) -> tuple[Action, StoredColumn | None]:
    """Return what to do with a column, and how it is stored where it is to be kept."""
    name = choice.name
    unfinished = table.resumeColumn(name) if resume else None
    if unfinished is not None:
        kept = StoredColumn(table.getColumnDtype(name), unfinished)
        differs = _differences(source, table, choice, kept, chunk_rows)
        if not differs:
            return Action.RESUME, _expected(source, choice.column, kept)
        if not overwrite:
            raise BridgeError(
                Advice(
                    f"{table.filename}: column {name!r} is not complete, and can't be resumed: "
                    f"{'; '.join(differs)}.",
                    "Use overwrite=True to start it anew.",
                )
            )
        return Action.START_OVER, None
    if name not in there:
        return Action.CREATE, None
    attributes = table.getColumnAttributeMapping(name).asdict()
    is_complete = attributes.get(COMPLETE_ATTR, True) is not False
    if resume and is_complete and not _origin_differs(source, table, attributes, choice):
        return Action.KEEP, StoredColumn(table.getColumnDtype(name), attributes)
    if not overwrite:
        also = "" if is_complete else ", or resume=True to continue an interrupted copy"
        raise OutputExistsError(
            Advice(
                f"{table.filename} has a column {name!r} already.",
                f"Use overwrite=True to replace it{also}.",
            )
        )
    return (Action.REPLACE if is_complete else Action.START_OVER), None


def _differences(
    source: RatSource,
    table: RatZarr,
    choice: Choice,
    kept: StoredColumn,
    chunk_rows: int | None,
) -> list[str]:
    """Say in words why an unfinished column is not one that this copy can go on with."""
    words = _origin_differs(source, table, kept.attributes, choice)
    if words:
        return words
    column = choice.column
    if _expected(source, column, kept) is None:
        words.append(f"it is of {kept.dtype}, and not stored as this copy would")
    chunk = table.getColumnChunkSize(choice.name)
    if chunk_rows is not None and chunk_rows != chunk:
        words.append(f"it has chunks of {chunk} rows, and not of {chunk_rows}")
    return words


def _origin_differs(
    source: RatSource, table: RatZarr, attributes: Mapping[str, Any], choice: Choice
) -> list[str]:
    now, then = choice.provenance, attributes.get(PROVENANCE_ATTR)
    if not isinstance(then, Mapping) or then.get("operation") != now["operation"]:
        return [f"it does not say that it comes from a {now['operation']}"]
    if attributes.get(CUTS_ATTR) or CUTTING_ATTR in attributes:
        # Part of a chunk can be cleared, and it is there all the same.
        return ["rows of it were cut off since"]
    if table.getRowCount() != source.schema.rows:
        return [f"it has {table.getRowCount()} rows, and the raster's table {source.schema.rows}"]
    words = [
        f"it is of {what} {then.get(what)!r:.80}, not of {now[what]!r}"
        for what in ("band", "column")
        if then.get(what) != now[what]
    ]
    return words or [
        f"{now['raster'] or 'the raster'} is not the one it comes from, or its table was "
        f"changed: {change}"
        for change in table_changes(then.get("source"), now["source"])[:1]
    ]


def _expected(source: RatSource, column: RatColumn, kept: StoredColumn) -> StoredColumn | None:
    """Return how a column is stored, if it is as ``kept`` says; else None.

    A column of date-times is not read for this: that it is as it was is checked block by
    block.
    """
    if column.type == FieldType.DATETIME:
        source.expect(column.index, kept)
    stored = source.stored(column.index)
    same_dtype = stored.dtype.kind == kept.dtype.kind and (
        stored.dtype.kind in "TO" or stored.dtype == kept.dtype
    )
    has, wanted = kept.attributes, dict(stored.attributes)
    if column.usage == FieldUsage.GENERIC:
        # It may be that of the column that this one is to replace.
        for name in usage_attributes(column.usage):
            wanted.pop(name, None)
    same = same_dtype and all(k in has and has[k] == v for k, v in wanted.items())
    return stored if same else None


def _check_rows(source: RatSource, table: RatZarr, chosen: set[str]) -> None:
    rows, has = source.schema.rows, table.getRowCount()
    if has == rows:
        return
    kept = [name for name in table.getColumnNames() if name not in chosen]
    if kept:
        raise BridgeError(
            f"{table.filename} has {has} rows and the raster's table has {rows}: "
            f"its column {kept[0]!r} would no longer fit"
        )


def _chunk_rows(source: RatSource, column: RatColumn, stored: StoredColumn, default: int) -> int:
    """Return fewer rows than the default for a column of long strings."""
    if stored.dtype.kind not in "TO":
        return default
    rows = source.schema.rows
    length = seen = 0
    for start in {0, max(0, rows // 2), max(0, rows - 500)}:
        sample = source.read(column.index, start, min(500, rows - start))
        seen += len(sample)
        length += sum(map(len, sample.tolist()))
    each = ROW_OVERHEAD + (length / seen if seen else 0)
    return int(min(default, max(1000, CHUNK_BYTES // each)))
