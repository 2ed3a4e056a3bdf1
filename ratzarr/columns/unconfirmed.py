"""Writes whose column has not been checked since.

On a local disk, each write checks that its column still exists. On S3 that takes a request, so the
writes of many blocks are checked together.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from ratzarr.columns.column import Column
from ratzarr.columns.metadata import ColumnState
from ratzarr.errors import StoreError

__all__ = ["Unconfirmed"]

type Write = tuple[Column, ColumnState, int]
"""A column, its state at the first write, and the end of the written rows."""


class Unconfirmed:
    """The unchecked writes of an instance, by column. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A column created anew has another identity.
        self._writes: dict[tuple[str, str], Write] = {}

    def add(self, column: Column, state: ColumnState, stop: int) -> None:
        """Add a write of rows up to ``stop``."""
        key = (column.name, state.id)
        with self._lock:
            known = self._writes.setdefault(key, (column, state, stop))
            if stop > known[2]:
                self._writes[key] = known[0], known[1], stop

    @contextmanager
    def taken(self, names: Collection[str] | None) -> Iterator[list[Write]]:
        """Remove the writes of these columns, or of all, and yield them to be checked.

        If the store can't be reached, they are added again.
        """
        with self._lock:
            chosen = [key for key in self._writes if names is None or key[0] in names]
            writes = [self._writes.pop(key) for key in chosen]
        try:
            yield writes
        except (StoreError, KeyboardInterrupt):
            for one in writes:
                self.add(*one)
            raise

    def forget(self, names: Iterable[str]) -> None:
        """Forget the writes of columns."""
        gone = set(names)
        with self._lock:
            self._writes = {key: one for key, one in self._writes.items() if key[0] not in gone}

    def cut(self, rows: int) -> None:
        """Record that this instance has set the row count."""
        with self._lock:
            self._writes = {
                key: (column, state, min(stop, rows))
                for key, (column, state, stop) in self._writes.items()
            }
