"""Provenance that a run stores with its output columns, so that it can be resumed."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gdalbridge.apply.block import Span
from gdalbridge.apply.controls import Handle
from gdalbridge.errors import BridgeError
from gdalbridge.sidecars.naming import raster_label
from gdalbridge.sidecars.provenance import versions
from ratzarr import RatZarr
from ratzarr.format import COMPLETE_ATTR, PROVENANCE_ATTR, ROWS_DONE_ATTR

__all__ = ["Record", "Unfinished", "is_left_over", "rows_before", "unfinished_columns"]


@dataclass(frozen=True, slots=True)
class Record:
    """The description of a run that is stored with each output column."""

    function: str
    rows: int
    inputs: Mapping[str, str]

    @classmethod
    def of(
        cls, function: Callable[..., Any], rows: int, inputs: Mapping[str, Handle], target: str
    ) -> "Record":
        """Return the record for one output table."""
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
            True if the run has created the column.
        whole : bool
            True if each block is whole chunks.
        appended : bool
            True if rows are appended. False if output rows have the numbers of the input rows.
        table_rows : int
            Rows of the table before the run.
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
    """Return the versions of the software; empty if GDAL is not installed."""
    try:
        return versions()
    except ImportError:
        return {}


def _origin(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the provenance of a column that a run has left incomplete; empty for others."""
    origin = attributes.get(PROVENANCE_ATTR)
    if attributes.get(COMPLETE_ATTR) is not False or not isinstance(origin, Mapping):
        return {}
    return origin if origin.get("operation") == "apply" else {}


def is_left_over(attributes: Mapping[str, Any]) -> bool:
    """Return True if an interrupted run has created the column."""
    return _origin(attributes).get("created") is True


def rows_before(attributes: Mapping[str, Any]) -> int | None:
    """Return the table's rows before the run that left a column unfinished; None if unknown."""
    rows = _origin(attributes).get("table_rows")
    return rows if isinstance(rows, int) and not isinstance(rows, bool) and rows >= 0 else None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A column that an interrupted run has not completed."""

    name: str
    attributes: Mapping[str, Any]
    by_chunks: bool
    """True if the stored chunks tell which blocks are done."""
    missing: tuple[tuple[int, int], ...]
    """Ranges of rows whose chunks do not exist; empty unless ``by_chunks``."""
    rows_done: int

    def has(self, span: Span) -> bool:
        """Return True if a block of the column is done."""
        if span.stop <= self.rows_done:
            return True
        return self.by_chunks and not any(
            start < span.stop and span.start < stop for start, stop in self.missing
        )


def unfinished_columns(table: RatZarr, record: Record) -> list[Unfinished]:
    """Return the columns that an interrupted run of the same script has not completed.

    Raises
    ------
    BridgeError
        If another script has left such a column, or the run can't be resumed.
    """
    found = []
    names = table.getColumnNames()
    unreadable = table.getUnreadableColumns(names)
    for name in names:
        if name in unreadable:
            # An unreadable column is an error only for a script that uses it.
            continue
        attributes = dict(table.getColumnAttributeMapping(name))
        if origin := _origin(attributes):
            found.append(_unfinished(table, name, attributes, origin, record))
    return found


def _unfinished(
    table: RatZarr,
    name: str,
    attributes: Mapping[str, Any],
    origin: Mapping[str, Any],
    record: Record,
) -> Unfinished:
    def refused(why: str) -> BridgeError:
        return BridgeError(
            f"{table.filename}: column {name!r} is not complete, but can't be resumed: {why}. "
            "Without setResume, the run writes the column anew."
        )

    if origin.get("function") != record.function:
        raise refused(f"{origin.get('function')} has written it, not {record.function}")
    if origin.get("rows") != record.rows:
        raise refused(
            f"the interrupted run was over {origin.get('rows')} rows, this one is over "
            f"{record.rows}"
        )
    if origin.get("appended") is not False:
        raise refused("its rows were appended, so it is unknown which input rows they come from")
    by_chunks = origin.get("created") is True and origin.get("whole") is True
    done = attributes.get(ROWS_DONE_ATTR)
    return Unfinished(
        name,
        attributes,
        by_chunks,
        tuple(table.getMissingRows(name)) if by_chunks else (),
        done if isinstance(done, int) else 0,
    )
