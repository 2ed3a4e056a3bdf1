"""The notes that a run leaves in its output columns, so that it can be resumed."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gdalbridge.apply.block import Span
from gdalbridge.apply.controls import Handle
from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.provenance import PROVENANCE_ATTR, raster_label, versions
from ratzarr import RatZarr
from ratzarr.format import COMPLETE_ATTR, ROWS_DONE_ATTR

__all__ = ["Record", "Unfinished", "is_left_over", "rows_before", "unfinished_columns"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is written down of a run."""

    function: str
    rows: int
    inputs: Mapping[str, str]

    @classmethod
    def of(
        cls, function: Callable[..., Any], rows: int, inputs: Mapping[str, Handle], target: str
    ) -> "Record":
        """Return what is written down in one table."""
        while isinstance(function, functools.partial):
            function = function.func
        named = function if hasattr(function, "__qualname__") else type(function)
        names = {label: raster_label(handle.filename, target) for label, handle in inputs.items()}
        return cls(f"{named.__module__}.{named.__qualname__}", rows, names)

    def attribute(
        self, *, created: bool, whole: bool, appended: bool, table_rows: int
    ) -> dict[str, Any]:
        """Return a column's ``PROVENANCE``.

        Parameters
        ----------
        created : bool
            Whether the run has created the column.
        whole : bool
            Whether its blocks are whole chunks.
        appended : bool
            Whether rows were added one after the other, and not put where the inputs' are.
        table_rows : int
            Rows that the table had before the run.
        """
        return {
            "operation": "apply",
            "versions": versions_here(),
            "raster": None,
            "band": None,
            "column": None,
            "fingerprint": None,
            "function": self.function,
            "inputs": dict(self.inputs),
            "rows": self.rows,
            "created": created,
            "whole": whole,
            "appended": appended,
            "table_rows": table_rows,
        }


@functools.cache
def versions_here() -> dict[str, str]:
    """Return the versions of what reads and writes; GDAL's where there is one."""
    try:
        return versions()
    except ImportError:
        return {}


def is_left_over(attributes: Mapping[str, Any]) -> bool:
    """Return whether a run has created this column, and was interrupted."""
    origin = attributes.get(PROVENANCE_ATTR)
    return (
        attributes.get(COMPLETE_ATTR) is False
        and isinstance(origin, Mapping)
        and origin.get("operation") == "apply"
        and origin.get("created") is True
    )


def rows_before(attributes: Mapping[str, Any]) -> int | None:
    """Return how many rows the table of an unfinished column had before; None if unknown."""
    origin = attributes.get(PROVENANCE_ATTR)
    if attributes.get(COMPLETE_ATTR) is not False or not isinstance(origin, Mapping):
        return None
    rows = origin.get("table_rows") if origin.get("operation") == "apply" else None
    return rows if isinstance(rows, int) and not isinstance(rows, bool) and rows >= 0 else None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A column that a run has left."""

    name: str
    attributes: Mapping[str, Any]
    by_chunks: bool
    missing: tuple[tuple[int, int], ...]
    """Runs of rows that nobody has written, of one that is known by its chunks."""
    rows_done: int

    def has(self, span: Span) -> bool:
        """Return whether a block of it is done."""
        if span.stop <= self.rows_done:
            return True
        return self.by_chunks and not any(
            start < span.stop and span.start < stop for start, stop in self.missing
        )


def unfinished_columns(table: RatZarr, record: Record) -> list[Unfinished]:
    """Return the columns that an interrupted run of the same script has left.

    Raises
    ------
    BridgeError
        Where they are another script's, or it can't be gone on with.
    """
    found = []
    names = table.getColumnNames()
    unreadable = table.getUnreadableColumns(names)
    for name in names:
        if name in unreadable:
            # Whoever asks for it is told.
            continue
        attributes = dict(table.getColumnAttributeMapping(name))
        origin = attributes.get(PROVENANCE_ATTR)
        if attributes.get(COMPLETE_ATTR) is not False or not isinstance(origin, Mapping):
            continue
        if origin.get("operation") == "apply":
            found.append(_one(table, name, attributes, origin, record))
    return found


def _one(
    table: RatZarr,
    name: str,
    attributes: Mapping[str, Any],
    origin: Mapping[str, Any],
    record: Record,
) -> Unfinished:
    def refused(why: str) -> BridgeError:
        return BridgeError(
            f"{table.filename}: column {name!r} is not complete, and can't be gone on with: {why}. "
            "Without setResume it is written anew."
        )

    if origin.get("function") != record.function:
        raise refused(f"it is of {origin.get('function')}, not of {record.function}")
    if origin.get("rows") != record.rows:
        raise refused(f"{origin.get('rows')} rows were worked through, and now {record.rows} are")
    if origin.get("appended") is not False:
        raise refused(
            "its rows were added one after the other, and nobody knows which rows of the inputs "
            "they come from"
        )
    by_chunks = origin.get("created") is True and origin.get("whole") is True
    done = attributes.get(ROWS_DONE_ATTR)
    return Unfinished(
        name,
        attributes,
        by_chunks,
        tuple(table.getMissingRows(name)) if by_chunks else (),
        done if isinstance(done, int) else 0,
    )
