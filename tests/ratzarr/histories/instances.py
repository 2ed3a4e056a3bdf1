"""Instances come and go, look again, and flush; and what each may take a name for.

All other rules stand on this.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from ratzarr import ChangedError, ClosedError, ColumnNotFoundError, RatZarr
from tests.ratzarr.histories.draws import NAMES, ROWS, SEEDS, SLOTS, rarely
from tests.ratzarr.histories.views import View, attempt, expect
from tests.ratzarr.looking import Look
from tests.ratzarr.model import KINDS, TableModel


class Instances:
    """Several views of one table, and the model of it."""

    place = None
    every = 1
    """Steps between two looks at everything."""

    @initialize(
        names=st.lists(st.sampled_from(NAMES), min_size=3, max_size=3, unique=True),
        rows=ROWS, chunk=st.integers(1, 6),
        kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=2),
        anew=st.booleans(), then=st.sampled_from(["write", "read"]), seed=SEEDS,
    )  # fmt: skip
    def begin(self, names, rows, chunk, kinds, anew, then, seed):
        self.url = self.place.new()
        self.s3 = self.place.kind == "s3"
        self.names, self.model = names, TableModel()
        self.strays = False
        self.step = 0
        self.views = [self._opened(read_only=False) for _ in range(3)]
        self.views[0].table.setRowCount(rows)
        self.model.resize(rows)
        self.views[0].table.setChunkSize(chunk)
        self.model.chunk_rows = chunk
        self.model.tick()
        self.views[0].looked = self.model.clock
        self.views.append(self._opened(read_only=True))
        for which, kind in enumerate(kinds):
            self.create(0, which, kind, 1, 0, False, None, {}, True, False)
            # Whatever comes now, others have it open, and some have written to it.
            for slot in range(4):
                self.write(slot, [which], rows + slot, 0, slot + 1, True, 0, False)
                self.read(slot, [which], 0, rows, False, True)
        # One that looks again is still the instance that it was; and it changes a row of a chunk.
        self.refresh(seed % 3)
        self.write(seed % 3, [0], seed, seed % 4, 1, False, 1, False)
        # On S3 it is up to marks of chunks, in too few histories to leave it to chance.
        if anew or self.s3:
            self.behind(1, 0, 0, rows, kinds[0], "alike", True, then, seed)

    def _opened(self, *, read_only):
        return View(RatZarr(self.url, readOnly=read_only), not read_only, self.model.clock)

    def _writer(self, slot):
        view = self.views[slot % len(self.views)]
        return view if view.writes else self.views[0]

    @rule(slot=SLOTS, read_only=st.booleans())
    def reopen(self, slot, read_only):
        self._close(self.views[slot])
        # There is always one that can write.
        self.views[slot] = self._opened(read_only=read_only and slot > 0)

    def _close(self, view):
        self._confirm(view, view.table.close)
        for call in (view.table.refresh, view.table.getColumnNames, view.table.flush):
            expect(attempt(call)[1], ClosedError)
        expect(attempt(view.table.readBlock, self.names[0], 0, 1)[1], ClosedError)
        view.table.close()

    @rarely
    @rule(slot=SLOTS)
    def refresh(self, slot):
        view = self.views[slot]
        view.table.refresh()
        view.looked = self.model.clock
        view.used.clear()
        view.counted = False
        self._count(view)
        assert view.table.rowCount == view.table.getRowCount() == self.model.rows
        assert view.table.getRATChunkSize() == self.model.chunk_rows

    @rarely
    @rule(slot=SLOTS)
    def flush(self, slot):
        view = self.views[slot]
        self._confirm(view, view.table.flush)

    def _confirm(self, view, call, names=None):
        """Flush: what was written, and is gone since, is said; nothing else is."""
        must = may = False
        for column, (stop, looked, written, sure) in list(view.unconfirmed.items()):
            if names is not None and column.name not in names:
                continue
            del view.unconfirmed[column]
            gone = not self._alive(column)
            must |= sure is not None and (
                gone or (not self._is_pending(column) and self.model.lowest_since(written) < sure)
            )
            may |= gone or self.model.lowest_since(looked) < stop
        _, error = attempt(call)
        if error is None:
            assert not must, "rows that were written are gone, and nothing was said"
        else:
            assert may or must, f"nothing is wrong with what was written, but: {error!r}"
            expect(error, ChangedError, ColumnNotFoundError)
        return error

    def _alive(self, column):
        return self.model.columns.get(column.name) is column or self._is_pending(column)

    def _is_pending(self, column):
        return self.model.pending.get(column.name) is column

    def _target(self, view, name):
        """Return the column that is meant, and those that the instance may take for it."""
        column = view.building.get(name)
        if column is None:
            column = self.model.columns.get(name)
        elif not self._is_pending(column):
            return None, {column}
        return column, view.used.get(name, set()) - {column}

    def _count(self, view):
        """It is about to need the row count: it may open any column that is there."""
        if view.counted and self.s3:
            return
        view.counted = True
        for name, column in self.model.columns.items():
            if name not in view.building:
                view.used.setdefault(name, set()).add(column)

    def _using(self, view, name):
        column, _ = self._target(view, name)
        if column is not None:
            view.used.setdefault(name, set()).add(column)

    def _foreign(self, column):
        """Return the chunks that earlier columns' writers have put into a column."""
        if not self.strays or column is None or self._is_pending(column):
            return {}
        return Look(self.place, self.url).foreign(column.name)
