"""Columns that are filled by a long copy, in sight or out of it."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.ratzarr.histories.draws import ROWS, SEEDS, SLOTS, WHICH, rarely
from tests.ratzarr.histories.views import attempt, settled
from tests.ratzarr.model import values_of


class Bulk:
    """Columns that say that they are not complete."""

    @precondition(lambda self: any(not c.complete for c in self._unfinished()))
    @rule(slot=SLOTS, data=st.data(), seed=SEEDS, resume=st.booleans())
    def finish(self, slot, data, seed, resume):
        """Fill what is missing of a column, and say that it is finished."""
        view = self._writer(slot)
        self._count(view)
        names = sorted({c.name for c in self._unfinished() if not c.complete})
        name = data.draw(st.sampled_from(names), "name")
        if resume:
            self._resume(view, name)
        column, stale = self._target(view, name)
        if column is None or column.complete:
            return
        if stale:
            # Whoever means to finish a column has just begun or resumed it.
            view.table.refresh()
            view.looked = self.model.clock
            view.used.clear()
            view.counted = False
            self._count(view)
        runs, error = attempt(view.table.getMissingRows, name)
        settled(error)
        limit = min(view.table.rowCount, self.model.rows)
        expected = [(a, min(b, limit)) for a, b in column.missing() if a < limit]
        assert runs == expected, f"missing {runs}, expected {expected}"
        random = np.random.default_rng(seed)
        foreign = self._foreign(column)
        for start, stop in column.missing() if not foreign else [(0, self.model.rows)]:
            block = values_of(column.dtype, column.shape(stop - start), random)
            self._write(view, start, stop, {name: block})
        if column.missing(cut=False) or self._foreign(column):
            return
        must = [False]

        def done():
            view.table.setComplete(name)
            must[0] = True

        if self._confirm(view, done, [name]) is not None:
            return
        if name in view.building:
            self.model.put_in_place(column)
        column.complete = True
        self.model.tick()
        view.forget(name)
        view.used[name] = {column}

    def _unfinished(self):
        return [*self.model.columns.values(), *self.model.pending.values()]

    @precondition(lambda self: any(not c.complete for c in self.model.columns.values()))
    @rule(slot=SLOTS, data=st.data(), rows=ROWS)
    def rows_done(self, slot, data, rows):
        view = self._writer(slot)
        self._count(view)
        names = [c.name for c in self.model.columns.values() if not c.complete]
        name = data.draw(st.sampled_from(names), "name")
        column, stale = self._target(view, name)
        if stale or column is None or column.complete:
            return
        self._confirm(view, lambda: view.table.setComplete(name, rows), [name])
        self._using(view, name)

    @rarely
    @rule(slot=SLOTS, which=WHICH)
    def resume(self, slot, which):
        self._resume(self._writer(slot), self.names[which])

    def _resume(self, view, name):
        self._count(view)
        found, error = attempt(view.table.resumeColumn, name)
        settled(error)
        column = self.model.pending.get(name)
        if column is None:
            column = self.model.columns.get(name)
            if column is None or column.complete:
                assert found is None, f"nothing is unfinished, and {found} is resumed"
                return
        assert found is not None, f"column {name!r} is unfinished, and not found"
        self._check_attributes(found, column.attributes)
        view.forget(name)
        view.used[name] = {column}
        if self._is_pending(column):
            view.building[name] = column
