"""The plan of a copy: the action for each column, decided before anything is written.

A column is created, replaces another, continues an interrupted copy, or is skipped because that
copy had finished it. ``PROVENANCE`` shows if an existing column comes from the current table of
this raster.
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
"""Attribute with GDAL's name of the column, if a copy had to make up another."""

CHUNK_BYTES = 64 * 2**20
"""Largest size of a decoded chunk of text, because several are in memory at once."""
ROW_OVERHEAD = 64
"""Memory of a string or bytes object without its characters."""


class Action(Enum):
    """The action for a column."""

    CREATE = "create"
    """Create a new column."""
    REPLACE = "replace"
    """Replace an existing column once the new one is complete."""
    START_OVER = "start over"
    """Replace an incomplete column, without resuming it."""
    RESUME = "resume"
    """Write the rows missing from an interrupted copy."""
    KEEP = "keep"
    """Skip a complete column."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A selected column, and its future provenance."""

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
        """The attributes of the new column."""
        found = dict(self.stored.attributes)
        if self.name != self.column.name:
            found[GDAL_NAME_ATTR] = self.column.name
        return found | {PROVENANCE_ATTR: dict(self.provenance)}


def choose(
    columns: Sequence[RatColumn], wanted: Sequence[str] | None, where: str
) -> list[RatColumn]:
    """Return the columns with these names; by default all.

    Raises
    ------
    ColumnSelectionError
        Names the missing column and the existing ones.
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
    """Decide the action for each column. Nothing is written.

    Raises
    ------
    OutputExistsError
        If a column exists and may not be replaced.
    BridgeError
        If a column cannot be resumed. The message names the difference.
    """
    there = set(table.getColumnNames())
    decided = [
        (choice, *_decide(source, table, choice, there, overwrite, resume, chunk_rows))
        for choice in choices
    ]
    _check_rows(source, table, {choice.name for choice in choices})
    plans = []
    for choice, action, kept in decided:
        # This finds unknown types and invalid dates. Text that is not UTF-8 is found only when it
        # is read.
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
    """Return the action for a column, and how an existing column to be kept is stored."""
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
                    "Use overwrite=True to start it again.",
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
    """Explain why this copy cannot resume an unfinished column; None if it can."""
    words = _origin_differs(source, table, kept.attributes, choice)
    if words:
        return words
    column = choice.column
    if _expected(source, column, kept) is None:
        words.append(f"its dtype is {kept.dtype}, and this copy would store it differently")
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
        # Part of a chunk may have been cleared, although the chunk exists.
        return ["rows of it have been cut off since"]
    if table.getRowCount() != source.schema.rows:
        return [f"it has {table.getRowCount()} rows, and the raster's table {source.schema.rows}"]
    words = [
        f"it is of {what} {then.get(what)!r:.80}, not of {now[what]!r}"
        for what in ("band", "column")
        if then.get(what) != now[what]
    ]
    return words or [
        f"{now['raster'] or 'the raster'} is not the raster it comes from, or its table was "
        f"changed: {change}"
        for change in table_changes(then.get("source"), now["source"])[:1]
    ]


def _expected(source: RatSource, column: RatColumn, kept: StoredColumn) -> StoredColumn | None:
    """Return how a column is stored, if that agrees with ``kept``; otherwise None.

    A date-time column is not read for this: each block is checked when it is copied.
    """
    if column.type == FieldType.DATETIME:
        source.expect(column.index, kept)
    stored = source.stored(column.index)
    same_dtype = stored.dtype.kind == kept.dtype.kind and (
        stored.dtype.kind in "TO" or stored.dtype == kept.dtype
    )
    has, wanted = kept.attributes, dict(stored.attributes)
    if column.usage == FieldUsage.GENERIC:
        # It may be the dtype of the column that this one will replace.
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
