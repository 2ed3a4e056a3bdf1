"""Columns come and go, and rows; others go on with what they knew before."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ratzarr import ColumnExistsError, ColumnNotFoundError
from tests.ratzarr.histories.draws import (
    ATTRIBUTES,
    MAX_ROWS,
    ROWS,
    SEEDS,
    SLOTS,
    WHICH,
    rarely,
)
from tests.ratzarr.histories.views import attempt, expect, settled
from tests.ratzarr.looking import Look
from tests.ratzarr.model import KINDS, ColumnModel, empty_of, kinds_like, values_of


class Columns:
    """Creations, deletions, changes of the row count."""

    @rule(
        slot=SLOTS, which=WHICH, kind=st.sampled_from(sorted(KINDS)),
        width=st.sampled_from([1, 1, 1, 2, 3]), seed=SEEDS, own_fill=st.booleans(),
        chunk=st.none() | st.integers(1, 8), attributes=ATTRIBUTES,
        complete=st.sampled_from([True, True, True, False]), replace=st.booleans(),
    )  # fmt: skip
    def create(
        self, slot, which, kind, width, seed, own_fill, chunk, attributes, complete, replace
    ):
        view, name, dtype = self._writer(slot), self.names[which], KINDS[kind]
        self._count(view)
        replace = replace and not complete
        fill = empty_of(dtype)
        if own_fill:
            fill = values_of(dtype, (1,), np.random.default_rng(seed))[0]
        chunk_rows = view.table.getRATChunkSize() if chunk is None else chunk
        assert chunk is not None or chunk_rows in self.model.since(view.looked, "chunk_rows")
        _, error = attempt(
            view.table.createColumn, name, dtype, width, fillValue=fill if own_fill else None,
            chunkSize=chunk, attributes=attributes, complete=complete, replace=replace,
        )  # fmt: skip
        if name in self.model.columns and not replace:
            expect(error, ColumnExistsError)
            return
        settled(error)
        shape = (0,) if width == 1 else (0, width)
        replaced = self.model.columns.get(name)
        kept = {} if replaced is None else replaced.attributes
        column = ColumnModel(
            name, dtype, width, fill, chunk_rows, np.empty(shape, dtype), {**kept, **attributes},
            complete,
        )  # fmt: skip
        column.resize(self.model.rows)
        self.model.create(column, pending=replace)
        column.id = Look(self.place, self.url).identity(name, pending=replace)
        view.forget(name)
        view.used[name] = {column}
        if not complete:
            # A bulk writer's event comes with the column.
            view.logged.add(column)
            column.events = 1
        if replace:
            view.building[name] = column
        # A creation changes the table's document, and that is looked at again.
        assert replace or view.table.rowCount == self.model.rows

    @rule(slot=SLOTS, which=WHICH, again=st.sampled_from([True, True, False]), data=st.data())
    def delete(self, slot, which, again, data):
        view, name = self._writer(slot), self.names[which]
        self._count(view)
        building = view.building.get(name)
        _, error = attempt(view.table.deleteColumn, name)
        if building is not None:
            settled(error)
            if self._is_pending(building):
                del self.model.pending[name]
        elif name not in self.model.columns:
            expect(error, ColumnNotFoundError)
            return
        else:
            settled(error)
            self.model.delete(name)
        view.forget(name)
        if again and name not in self.model.columns:
            kind = data.draw(st.sampled_from(sorted(KINDS)), "kind")
            self.create(slot, which, kind, 1, 0, False, None, {}, True, False)

    @rule(slot=SLOTS, rows=ROWS)
    def resize(self, slot, rows):
        view = self._writer(slot)
        view.table.setRowCount(rows)
        self.model.resize(rows)
        view.looked = self.model.clock
        for name, column in self.model.columns.items():
            view.used[name] = {column}
        for column, (stop, looked, written, sure) in view.unconfirmed.items():
            # It knows of this cut itself.
            known = None if sure is None else min(sure, rows)
            view.unconfirmed[column] = (min(stop, rows), looked, written, known)
        assert view.table.rowCount == rows

    @rarely
    @rule(slot=SLOTS, rows=st.integers(1, 9))
    def chunk_size(self, slot, rows):
        view = self._writer(slot)
        view.table.setChunkSize(rows)
        self.model.chunk_rows = rows
        self.model.tick()
        assert view.table.getRATChunkSize() == rows

    @rule(
        slot=SLOTS, other=SLOTS, which=WHICH, rows=ROWS, kind=st.sampled_from(sorted(KINDS)),
        how=st.sampled_from(["rows", "another", "alike", "alike"]), filled=st.booleans(),
        then=st.sampled_from(["write", "write", "read", "attributes"]), seed=SEEDS,
    )  # fmt: skip
    def behind(self, slot, other, which, rows, kind, how, filled, then, seed):
        """One changes a column or the rows, and another that has it open goes on at once."""
        name = self.names[which]
        if how == "rows":
            self.resize(other, rows)
        elif name in self._writer(other).building:
            return
        else:
            chunk, width = None, 1
            old = self.model.columns.get(name)
            if old is not None:
                if how == "alike":
                    # Only its id tells a chunk of the one from a chunk of the other.
                    kinds = kinds_like(old.dtype) or [kind]
                    kind, chunk, width = kinds[seed % len(kinds)], old.chunk_rows, old.width
                self.delete(other, which, False, None)
            self.create(other, which, kind, width, 0, False, chunk, {}, True, False)
            if filled:
                column = self.model.columns[name]
                block = values_of(column.dtype, column.values.shape, np.random.default_rng(seed))
                self._write(self._writer(other), 0, self.model.rows, {name: block})
        if then == "write":
            self.write(slot, [which], seed, 0, 3, seed % 3 > 0, MAX_ROWS, False)
        elif then == "read":
            self.read(slot, [which], 0, MAX_ROWS, False, True)
        else:
            self.column_attributes(slot, which, {"unit": seed}, "update")
