"""A table that is a store, as a script reads it."""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from ratzarr import ColumnNotFoundError, RatZarr
from ratzarr.layout import COLUMN_ORDER_ATTR
from ratzarr.location import parse as parse_location

from .column_access import readable_columns
from .gdaltypes import usage_in

__all__ = ["NOTHING", "ZarrSource", "where"]

Array = NDArray[Any]
NOTHING: Mapping[tuple[str, str], bool] = MappingProxyType({})


def where(name: str) -> str:
    """Return what names of one and the same place have in common."""
    location = parse_location(name)
    return os.path.realpath(location.path) if location.kind == "local" else location.url


class ZarrSource:
    """A store, opened for reading. Thread-safe.

    Parameters
    ----------
    name : str
        Path or URL.
    options : mapping, optional
        Storage options.
    ours : mapping
        Places (:func:`where`) and columns that this run itself is writing, and whether it has
        created them. These are not there for it; the others can be read although they are not
        complete. It may grow.

    Raises
    ------
    TableNotFoundError
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        ours: Mapping[tuple[str, str], bool] = NOTHING,
    ) -> None:
        self.name, self._where, self._ours = name, where(name), ours
        self.table = RatZarr(name, readOnly=True, create=False, storageOptions=options)
        self._known: set[str] = set()

    @property
    def rows(self) -> int:
        """How many it had when it was opened."""
        return self.table.rowCount

    @property
    def chunk_rows(self) -> int | None:
        """Its chunk size."""
        return self.table.getRATChunkSize()

    def has(self, name: str) -> bool:
        """Return whether there is such a column, complete or not."""
        if self._ours.get((self._where, name)):
            # To a script a table is as it was before; a raster may have a column of that name.
            return False
        if name not in self._known:
            if not name:
                return False
            try:
                self.table.openColumn(name, allowIncomplete=True)
            except ColumnNotFoundError:
                return False
            self._known.add(name)
        return True

    def names(self) -> list[str]:
        """Return the names of all columns that can be read; the others are warned of."""
        names = readable_columns(self.table)
        return [name for name in names if not self._ours.get((self._where, name))]

    def names_known(self) -> list[str]:
        """Return names of columns that are known without a request."""
        order = self.table.getRatAttributeMapping().get(COLUMN_ORDER_ATTR)
        return [name for name in order if isinstance(name, str)] if isinstance(order, list) else []

    def read(self, names: Sequence[str], start: int, length: int) -> dict[str, Array]:
        """Read rows of several columns, as they are stored."""
        ours = [name for name in names if (self._where, name) in self._ours]
        rest = [name for name in names if name not in ours]
        found: dict[str, Array] = {}
        if rest:
            found |= self.table.readBlocks(rest, start, length)
        if ours:
            found |= self.table.readBlocks(ours, start, length, allowIncomplete=True)
        return found

    def usage(self, name: str) -> int:
        """Return the number of GDAL's usage of a column."""
        return usage_in(self.attributes(name))

    def own_usages(self) -> Mapping[str, int]:
        """Return nothing: there is no raster."""
        return {}

    def attributes(self, name: str) -> dict[str, Any]:
        """Return a column's attributes."""
        return dict(self.table.getColumnAttributeMapping(name))

    def place_of(self, name: str) -> tuple[str, str]:
        """Return where a column is stored."""
        return self._where, name

    def close(self) -> None:
        """Let go of it."""
        self.table.close()
