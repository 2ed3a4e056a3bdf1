"""The columns that an instance has in use: opened once, logged once, used many at a time."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from numpy.typing import NDArray

from .blocks import Block
from .catalog import Catalog
from .column import Column
from .errors import RowRangeError
from .history import event
from .layout import MODIFICATION_ATTR, Document, check_name
from .parallel import run

__all__ = ["OpenColumns"]

Array = NDArray[Any]


class OpenColumns:
    """Columns by name, each opened when it is first asked for. Thread-safe.

    Parameters
    ----------
    catalog : Catalog
        The table's columns.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._columns: dict[str, Column] = {}
        self._logged: set[str] = set()
        self._log_lock = threading.Lock()

    def __getitem__(self, name: str) -> Column:
        column = self._columns.get(check_name(name))
        if column is None:
            column = self._columns[name] = self._catalog.find(name)
        return column

    def add(self, column: Column) -> None:
        """Take in a column that was just opened."""
        self._columns[column.name] = column

    def add_new(self, column: Column) -> None:
        """Take in a column that was just created: nothing of it is logged yet."""
        self._logged.discard(column.name)
        self.add(column)

    def forget(self, name: str | None = None) -> None:
        """Open a column (all of them, by default) anew when it is next asked for."""
        if name is None:
            self._columns.clear()
        else:
            self._columns.pop(name, None)

    def open(self, names: Iterable[str]) -> dict[str, Column]:
        """Return columns by name, those not yet open opened in parallel."""
        wanted = list(dict.fromkeys(names))
        run([partial(self.__getitem__, name) for name in wanted if name not in self._columns])
        return {name: self[name] for name in wanted}

    def read(
        self, names: Iterable[str], block: Block, *, allow_incomplete: bool
    ) -> dict[str, Array]:
        """Read the same rows, which the table has, of several columns."""
        blocks: dict[str, Array] = {}
        tasks: list[Callable[[], None]] = []
        for name, column in self.open(names).items():
            if not allow_incomplete:
                column.check_complete()
            blocks[name], reads = column.reading(block)
            tasks += reads
        run(tasks)
        return blocks

    def write(self, blocks: Mapping[str, Any], start: int, row_count: int) -> None:
        """Write the same rows of several columns: all of them fit, or none is written."""
        fitted = {}
        for name, column in self.open(blocks).items():
            values = column.fit(blocks[name], start)
            if start < 0 or start + len(values) > row_count:
                raise RowRangeError(
                    f"{column.objects.location} has {row_count} rows: a block of {len(values)} "
                    f"from row {start} of column {name!r} does not fit"
                )
            fitted[name] = values
        run([partial(self._log, name) for name in fitted if name not in self._logged])
        run(list(self._tasks(fitted, start, row_count)))

    def _tasks(
        self, fitted: Mapping[str, Array], start: int, row_count: int
    ) -> Iterator[Callable[[], None]]:
        for name, values in fitted.items():
            yield from self[name].writing(values, start, row_count)

    def _log(self, name: str) -> None:
        # One event per column and instance, also where several threads write at once.
        with self._log_lock:
            if name in self._logged:
                return
            column = self[name]
            entry = event()

            def change(document: Document) -> None:
                log = document["attributes"].setdefault(MODIFICATION_ATTR, [])
                log.append(entry)

            column.document.update(change, column.missing)
            self._logged.add(name)
