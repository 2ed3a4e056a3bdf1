"""Which columns a raster's own table and its sidecars have as one, and in what order."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from ratzarr import RatZarrError

from ._gdal import NEW_TYPES
from .attachedcolumns import AttachedColumn, SidecarColumn, own_column
from .errors import LossWarning
from .ownrat import HeldRat
from .shownvalues import shown_as
from .sidecartable import SidecarTable

__all__ = ["join_columns"]

MOST_PARTS = 100
"""Values per row, beyond which a column is not taken apart into as many."""


def join_columns(
    own: HeldRat, tables: Sequence[SidecarTable], prefer: str, as_text: Collection[str]
) -> list[AttachedColumn]:
    """Return the raster's own columns and then each sidecar's, in their order.

    Parameters
    ----------
    own : HeldRat
    tables : sequence of SidecarTable
    prefer : str
        Whose column is seen where two have one name: ``sidecar`` or ``raster``. Of two
        sidecars', it is the first one's.
    as_text : collection of str
        Columns that are shown as text.

    Warns
    -----
    LossWarning
        For columns that can't be shown.
    """
    found: list[AttachedColumn] = [
        own_column(own, index, as_text) for index in range(len(own.schema.columns))
    ]
    # GDAL allows several of one name: the sidecar's first is seen for the raster's first.
    counted = Counter[str]()
    places: dict[tuple[str, int], int] = {}
    for place, column in enumerate(found):
        counted[column.name] += 1
        places[column.name, counted[column.name]] = place
    can_be_hidden = set(range(len(found))) if prefer == "sidecar" else set()
    for table in tables:
        if not table.exists:
            continue
        counted = Counter[str]()
        for column in _of_sidecar(table, as_text):
            counted[column.name] += 1
            key = (column.name, counted[column.name])
            if key not in places:
                places[key] = len(found)
                found.append(column)
            elif places[key] in can_be_hidden:
                found[places[key]] = column
                can_be_hidden.remove(places[key])
    return found


def _of_sidecar(table: SidecarTable, as_text: Collection[str]) -> Iterator[SidecarColumn]:
    table.open_columns()
    for stored_name in table.names():
        try:
            dtype, width, attributes, complete = table.describe(stored_name)
        except RatZarrError as error:
            _left_out(table, stored_name, str(error))
            continue
        kept = attributes.get("GDAL_NAME")
        name = kept if isinstance(kept, str) else stored_name
        shown = shown_as(
            stored_name,
            dtype,
            attributes,
            new_types=NEW_TYPES,
            as_text=name in as_text or stored_name in as_text,
        )
        if not complete:
            _left_out(table, stored_name, "it is not complete yet")
        elif shown is None:
            _left_out(table, stored_name, f"GDAL has no type for {dtype}")
        elif width > MOST_PARTS:
            _left_out(table, stored_name, f"it has {width} values per row")
        elif width == 1:
            yield SidecarColumn(table, shown, name, None)
        else:
            for part in range(width):
                yield SidecarColumn(table, shown, f"{name}[{part}]", part)


def _left_out(table: SidecarTable, column: str, why: str) -> None:
    warnings.warn(f"{table.path}: column {column!r} is left out: {why}", LossWarning, stacklevel=2)
