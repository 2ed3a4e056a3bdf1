"""Check whether a raster's own table and its sidecars have rows for the same pixel values.

A column of usage MinMax has the pixel value of each row. A ``.vat.dbf`` often has rows only for the
values that occur, while a sidecar may have a row for each number. Two such tables can't be shown
side by side.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, LossWarning
from gdalbridge.gdalio.field_types import FieldUsage, usage_in
from ratzarr import RatZarr
from ratzarr.errors import Advice
from ratzarr.format import BLOCK_ROWS, PROVENANCE_ATTR, is_complete

__all__ = ["own_columns_fit"]

Array = NDArray[Any]

type Read = Callable[[int, int], Array]


def own_columns_fit(
    raster: str,
    columns: Iterable[tuple[str, int, Read]],
    rows: int,
    tables: Sequence[RatZarr],
    prefer: str = "sidecar",
) -> bool:
    """Return False if the raster's own columns must be left out, because rows differ.

    Parameters
    ----------
    raster : str
        For messages.
    columns : iterable
        The name and usage of each of the raster's own columns, and a function that reads it: it
        takes the first row and the number of rows.
    rows : int
        The number of rows of the raster's own table.
    tables : sequence of RatZarr
        The sidecars.
    prefer : {"sidecar", "raster"}
        The source of a column that both have.

    Raises
    ------
    BridgeError
        If rows differ, and the raster's own columns are preferred.

    Warns
    -----
    LossWarning
        If rows differ.
    """
    named = ((name, read) for name, usage, read in columns if usage == FieldUsage.MIN_MAX)
    first = next(named, None)
    if not tables or first is None:
        return True
    name, read = first
    if _are_row_numbers(read, rows):
        return True
    for table in tables:
        reason = _difference(name, rows, read, table)
        if reason is None:
            continue
        said = f"{raster} and {table.filename} have rows for different pixels: {reason}."
        if prefer == "raster":
            raise BridgeError(
                Advice(said, 'Use prefer="sidecar" to leave the raster\'s own columns out.')
            )
        warnings.warn(
            f"{said} The raster's own columns are left out. Remove its own table, such as a .vat.dbf, "
            "if the sidecar replaces it.",
            LossWarning,
            stacklevel=5,
        )
        return False
    return True


def _blocks(read: Read, rows: int) -> Iterator[tuple[int, Array]]:
    for first in range(0, rows, BLOCK_ROWS):
        yield first, read(first, min(BLOCK_ROWS, rows - first))


def _are_row_numbers(read: Read, rows: int) -> bool:
    return all(
        np.array_equal(values, np.arange(first, first + len(values)))
        for first, values in _blocks(read, rows)
    )


def _difference(column: str, rows: int, read: Read, table: RatZarr) -> str | None:
    """Describe in what a sidecar's rows differ from those of the raster's own table."""
    operations: set[Any] = set()
    # This call opens all columns in parallel.
    unreadable = table.getUnreadableColumns()
    for name in table.getColumnNames():
        if name in unreadable:
            continue
        attributes = table.getColumnAttributeMapping(name).asdict()
        provenance = attributes.get(PROVENANCE_ATTR)
        if not isinstance(provenance, dict):
            provenance = {}
        operation = provenance.get("operation")
        if operation == "attach" and provenance.get("source") == {"rows": rows}:
            # A column that was made beside this table, or in place of one of it.
            operations.add("copy")
            continue
        operations.add(operation)
        if (
            usage_in(attributes) == FieldUsage.MIN_MAX
            and table.getColumnWidth(name) == 1
            and is_complete(attributes)
        ):
            if table.rowCount == rows and all(
                np.array_equal(values, table.readBlock(name, first, len(values)))
                for first, values in _blocks(read, rows)
            ):
                return None
            return f"their columns {column!r} and {name!r} differ"
    if "build" in operations:
        return f"a row number of the sidecar is the pixel value, and the raster has {column!r}"
    # These columns have the rows of the raster's own table, and may have grown since.
    if table.rowCount == rows or "copy" in operations:
        return None
    return f"the sidecar has {table.rowCount} rows, and the raster {rows}, for the values in {column!r}"
