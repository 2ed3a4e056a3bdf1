"""The plan of a copy: the action for each column, decided before anything is written.

A column is created, replaces another, continues an interrupted copy, or is skipped because that
copy had finished it. ``PROVENANCE`` shows if an existing column comes from the current table of
this raster.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gdalbridge.errors import BridgeError, ColumnSelectionError, OutputExistsError
from gdalbridge.gdalio.field_types import FieldType, FieldUsage, usage_attributes
from gdalbridge.gdalio.rat_reader import RatColumn, RatSource, StoredColumn, unique_names
from gdalbridge.sidecars.staleness import table_changes
from ratzarr import RatZarr
from ratzarr.errors import Advice
from ratzarr.format import CUTS_ATTR, CUTTING_ATTR, PROVENANCE_ATTR, is_complete

__all__ = [
    "GDAL_NAME_ATTR",
    "Action",
    "Plan",
    "check_names",
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
    check_names("columns", wanted or (), [column.name for column in columns], where)
    return [column for column in columns if wanted is None or column.name in wanted]


def check_names(what: str, wanted: Iterable[str], there: Collection[str], where: str) -> None:
    """Raise ColumnSelectionError for a string instead of names, and for a missing name."""
    if isinstance(wanted, str):
        raise ColumnSelectionError(f"{what} is a list of names: got the string {wanted!r}")
    for name in wanted:
        if name not in there:
            raise ColumnSelectionError(f"{where} has no column {name!r}; it has {list(there)}")


def plan_columns(
    source: RatSource,
    table: RatZarr,
    columns: Sequence[RatColumn],
    provenance: Mapping[str, Any],
    *,
    overwrite: bool,
    resume: bool,
    chunk_rows: int | None,
) -> list[Plan]:
    """Decide the action for each column. Nothing is written.

    Parameters
    ----------
    columns : sequence of RatColumn
        Those to be copied.
    provenance : mapping
        The provenance of all of them, but for ``column``.

    Raises
    ------
    OutputExistsError
        If a column exists and may not be replaced.
    BridgeError
        If a column cannot be resumed. The message names the difference.
    """
    there = table.getColumnNames()
    planner = _Planner(source, table, there, overwrite, resume, chunk_rows)
    names = unique_names(source.schema.columns)
    decided = []
    for column in columns:
        name, origin = names[column.index], {**provenance, "column": column.name}
        decided.append((column, name, origin, *planner.decide(column, name, origin)))
    planner.check_rows({name for _, name, *_ in decided})
    # Only now, because this reads date-times. It finds unknown types and invalid dates; text that
    # is not UTF-8 is found only when it is read.
    return [planner.plan(*one) for one in decided]


@dataclass(frozen=True, slots=True)
class _Planner:
    """Decides the action for each column; see :func:`plan_columns`."""

    source: RatSource
    table: RatZarr
    there: Sequence[str]
    """The table's columns."""
    overwrite: bool
    resume: bool
    chunk_rows: int | None

    def decide(
        self, column: RatColumn, name: str, origin: Mapping[str, Any]
    ) -> tuple[Action, StoredColumn | None]:
        """Return the action for a column, and how an existing column to be kept is stored."""
        table = self.table
        unfinished = table.resumeColumn(name) if self.resume else None
        if unfinished is not None:
            kept = StoredColumn(table.getColumnDtype(name), unfinished)
            differs = self._differences(column, name, origin, kept)
            if not differs:
                return Action.RESUME, self._expected(column, kept)
            if not self.overwrite:
                raise BridgeError(
                    Advice(
                        f"{table.filename}: column {name!r} is not complete, and can't be "
                        f"resumed: {'; '.join(differs)}.",
                        "Use overwrite=True to start it again.",
                    )
                )
            return Action.START_OVER, None
        if name not in self.there:
            return Action.CREATE, None
        attributes = table.getColumnAttributeMapping(name).asdict()
        complete = is_complete(attributes)
        if self.resume and complete and not self._origin_differs(attributes, origin):
            return Action.KEEP, StoredColumn(table.getColumnDtype(name), attributes)
        if not self.overwrite:
            also = "" if complete else ", or resume=True to continue an interrupted copy"
            raise OutputExistsError(
                Advice(
                    f"{table.filename} has a column {name!r} already.",
                    f"Use overwrite=True to replace it{also}.",
                )
            )
        return (Action.REPLACE if complete else Action.START_OVER), None

    def _differences(
        self, column: RatColumn, name: str, origin: Mapping[str, Any], kept: StoredColumn
    ) -> list[str]:
        """Explain why this copy cannot resume an unfinished column; empty if it can."""
        words = self._origin_differs(kept.attributes, origin)
        if words:
            return words
        if self._expected(column, kept) is None:
            words.append(f"its dtype is {kept.dtype}, and this copy would store it differently")
        chunk, asked = self.table.getColumnChunkSize(name), self.chunk_rows
        if asked is not None and asked != chunk:
            words.append(f"it has chunks of {chunk} rows, and not of {asked}")
        return words

    def _origin_differs(self, attributes: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        then = attributes.get(PROVENANCE_ATTR)
        if not isinstance(then, Mapping) or then.get("operation") != now["operation"]:
            return [f"it does not say that it comes from a {now['operation']}"]
        if attributes.get(CUTS_ATTR) or CUTTING_ATTR in attributes:
            # Part of a chunk may have been cleared, although the chunk exists.
            return ["rows of it have been cut off since"]
        has, rows = self.table.getRowCount(), self.source.schema.rows
        if has != rows:
            return [f"it has {has} rows, and the raster's table {rows}"]
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

    def _expected(self, column: RatColumn, kept: StoredColumn) -> StoredColumn | None:
        """Return how a column is stored, if that agrees with ``kept``; otherwise None.

        A date-time column is not read for this: each block is checked when it is copied.
        """
        if column.type == FieldType.DATETIME:
            self.source.expect(column.index, kept)
        stored = self.source.stored(column.index)
        same_dtype = stored.dtype.kind == kept.dtype.kind and (
            stored.dtype.kind in "TO" or stored.dtype == kept.dtype
        )
        wanted = stored.attributes
        if column.usage == FieldUsage.GENERIC:
            # It may be the usage of the column that this one will replace.
            wanted = {k: v for k, v in wanted.items() if k not in usage_attributes(column.usage)}
        return stored if same_dtype and wanted.items() <= kept.attributes.items() else None

    def check_rows(self, chosen: Collection[str]) -> None:
        """Raise BridgeError if the table has other rows, and columns that would stay."""
        table, rows = self.table, self.source.schema.rows
        kept = [name for name in self.there if name not in chosen]
        if kept and table.getRowCount() != rows:
            raise BridgeError(
                f"{table.filename} has {table.getRowCount()} rows and the raster's table has "
                f"{rows}: its column {kept[0]!r} would no longer fit"
            )

    def plan(
        self,
        column: RatColumn,
        name: str,
        origin: Mapping[str, Any],
        action: Action,
        kept: StoredColumn | None,
    ) -> Plan:
        """Return the plan for a column."""
        if kept is not None:
            chunk = self.table.getColumnChunkSize(name)
            return Plan(column, name, kept, chunk, action, origin)
        stored = self.source.stored(column.index)
        chunk = self.chunk_rows or self._chunk_rows(column, stored)
        return Plan(column, name, stored, chunk, action, origin)

    def _chunk_rows(self, column: RatColumn, stored: StoredColumn) -> int:
        """Return fewer rows than the table's chunks for a column of long strings."""
        default = self.table.getRATChunkSize()
        if stored.dtype.kind not in "TO":
            return default
        rows = self.source.schema.rows
        length = seen = 0
        for start in {0, max(0, rows // 2), max(0, rows - 500)}:
            sample = self.source.read(column.index, start, min(500, rows - start))
            seen += len(sample)
            length += sum(map(len, sample.tolist()))
        each = ROW_OVERHEAD + (length / seen if seen else 0)
        return int(min(default, max(1000, CHUNK_BYTES // each)))
