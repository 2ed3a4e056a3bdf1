"""The merged columns of a raster and its sidecars, as a source of blocks for other libraries."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.sidecars.merged import Column, Columns, open_columns
from ratzarr import RatZarr
from ratzarr.format import OWN_COLUMN_ATTRS, Block
from ratzarr.interop import Field, Source
from ratzarr.pipeline import PROCESSORS

__all__ = ["ColumnsSource", "open_source"]

Array = NDArray[Any]

PAGES = 16
"""Text is decoded in whole chunks, if at least 1/PAGES of a chunk's rows are needed."""


class ColumnsSource:
    """Merged columns as a :class:`ratzarr.interop.Source`.

    Parameters
    ----------
    columns : Columns
        The columns, opened with ``parts=False``.
    reopen : callable
        Opens the same columns in another process; picklable.
    """

    def __init__(self, columns: Columns, reopen: Callable[[], Columns]) -> None:
        self._columns, self._reopen = columns, reopen

    @property
    def place(self) -> str:
        """The raster or store, for messages."""
        return self._columns.name

    @property
    def rows(self) -> int:
        """Rows of the longest column, or of a store that has no columns yet."""
        counts = [one.rows for one in self._columns.by_name.values()]
        return max([*counts, *(table.rowCount for table in self._columns.tables)], default=0)

    @property
    def threads(self) -> int:
        """One if GDAL is read: only one thread at a time may use it."""
        return 1 if self._columns.has_own else max(2, PROCESSORS)

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns, in order."""
        return list(self._columns.by_name)

    def field(self, name: str) -> Field:
        """Return a column's description."""
        one = self._columns[name]
        return Field(
            name,
            one.dtype,
            one.width,
            one.rows,
            one.chunk_rows,
            {key: value for key, value in one.attributes.items() if key not in OWN_COLUMN_ATTRS},
            one.missing_value(),
            one.empty_is_missing,
        )

    def attributes(self, name: str) -> Mapping[str, Any]:
        """Return a column's attributes as last read."""
        one = self._columns[name]
        return (
            one.attributes if one.table is None else one.table.getColumnAttributeMapping(one.key)
        )

    def read(self, names: Sequence[str], block: Block) -> Mapping[str, Array]:
        """Return rows of columns, those of one store with parallel requests."""
        found: dict[str, Array] = {}
        by_store: dict[int, tuple[RatZarr, list[Column]]] = {}
        for name in names:
            one = self._columns[name]
            if one.table is None:
                length = max(0, min(block.stop, one.rows) - block.start)
                found[name] = one.read(min(block.start, one.rows), length)
            else:
                by_store.setdefault(id(one.table), (one.table, []))[1].append(one)
        for table, columns in by_store.values():
            start = min(block.start, columns[0].rows)
            blocks = table.readBlocks([one.key for one in columns], start, block.length)
            for one in columns:
                found[one.name] = one.shown(blocks[one.key], start, block.length)
        return {name: found[name] for name in names}

    def read_utf8(self, name: str, block: Block, convert: Callable[..., Any]) -> list[Any] | None:
        """Return a function's result for the text of each chunk; None if :meth:`read` is better."""
        one = self._columns[name]
        if one.table is None or block.length * PAGES < one.chunk_rows:
            return None
        return one.table.readUtf8(one.key, block.start, block.length, convert)

    def reopener(self) -> Callable[[], Source]:
        """Return a picklable function that opens the table in another process."""
        return partial(_reopened, self._reopen)


def _reopened(reopen: Callable[[], Columns]) -> Source:
    return ColumnsSource(reopen(), reopen)


def open_source(
    place: Any,
    *,
    band: int = 1,
    names: Sequence[str | None] | None = None,
    prefer: str = "sidecar",
    may_be_empty: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - immutable
) -> tuple[Columns, ColumnsSource]:
    """Open a raster's table, or a store; parameters are those of :func:`open_columns`.

    Returns
    -------
    columns : Columns
        To be closed.
    source : ColumnsSource
        To read them.
    """
    again = place.GetDescription() if hasattr(place, "GetRasterBand") else place
    chosen: dict[str, Any] = {
        "band": band, "names": names, "prefer": prefer, "parts": False,
        "may_be_empty": may_be_empty, "storage_options": storage_options, "options": options,
    }  # fmt: skip
    columns = open_columns(place, **chosen)
    return columns, ColumnsSource(columns, partial(open_columns, again, **chosen))
