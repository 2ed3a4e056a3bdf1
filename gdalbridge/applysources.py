"""The tables that a script reads, open in one process."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ratzarr import TableNotFoundError

from .ratassociations import Handle, RatHandle
from .zarrsource import NOTHING, ZarrSource

__all__ = ["Source", "Sources"]

Array = NDArray[Any]


class Source(Protocol):
    """A table that can be read, by several threads."""

    name: str

    @property
    def rows(self) -> int:
        """How many it had when it was opened."""

    @property
    def chunk_rows(self) -> int | None:
        """Rows per chunk, where it has chunks."""

    def has(self, name: str) -> bool:
        """Return whether there is such a column."""

    def names(self) -> list[str]:
        """Return the names of all columns."""

    def names_known(self) -> list[str]:
        """Return names of columns that are known without a request."""

    def read(self, names: Sequence[str], start: int, length: int) -> dict[str, Array]:
        """Read rows of several columns that it has."""

    def usage(self, name: str) -> int:
        """Return the number of GDAL's usage of a column."""

    def own_usages(self) -> Mapping[str, int]:
        """Return the numbers of GDAL's usages of a raster's own columns, by name."""

    def attributes(self, name: str) -> dict[str, Any]:
        """Return a column's attributes."""

    def place_of(self, name: str) -> tuple[str, str] | None:
        """Return where a column is stored, and its name there; None for a raster's own."""

    def close(self) -> None:
        """Let go of it."""


class Sources:
    """Tables by handle, each opened when it is first asked for. Thread-safe.

    Parameters
    ----------
    strings : bool
        Whether text of rasters is StringDType.
    ours : mapping
        Columns that this run is writing, see :class:`~gdalbridge.zarrsource.ZarrSource`.
    """

    def __init__(self, strings: bool, ours: Mapping[tuple[str, str], bool] = NOTHING) -> None:
        self._strings, self._ours = strings, ours
        self._open: dict[Handle, Source] = {}
        self._locks: dict[Handle, threading.Lock] = {}
        self._lock = threading.Lock()

    def __getitem__(self, handle: Handle) -> Source:
        with self._lock:
            lock = self._locks.setdefault(handle, threading.Lock())
        with lock:
            if handle not in self._open:
                self._open[handle] = self._opened(handle)
            return self._open[handle]

    def _opened(self, handle: Handle) -> Source:
        if isinstance(handle, RatHandle):
            # Tables that are stores need no GDAL.
            from .rastersource import RasterSource

            return RasterSource(handle, self._strings, self._ours)
        return ZarrSource(handle.filename, handle.storageOptions, self._ours)

    def get(self, handle: Handle) -> Source | None:
        """Return a table; None where there is no store, yet."""
        try:
            return self[handle]
        except TableNotFoundError:
            return None

    def close(self) -> None:
        """Let go of all of them."""
        for source in self._open.values():
            source.close()
        self._open.clear()
