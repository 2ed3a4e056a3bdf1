"""Blocks are written, by instances that know what is there and by others.

What a block of an instance that was late has come to, the store itself has to tell.
"""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ratzarr import (
    ChangedError,
    ColumnNotFoundError,
    DamagedError,
    RowRangeError,
    UnequalValueError,
    UnsupportedDtypeError,
)
from tests.ratzarr.histories.draws import MAX_ROWS, SEEDS, SLOTS, WHICH
from tests.ratzarr.histories.views import attempt, expect
from tests.ratzarr.looking import Look
from tests.ratzarr.model import misfit_of, plain_values_of, same, values_of


class Writing:
    """Blocks that are written, wholly, in part or not at all."""

    @rule(
        slot=SLOTS, chosen=st.lists(WHICH, min_size=1, max_size=2, unique=True), seed=SEEDS,
        first=st.integers(0, 5), chunks=st.integers(1, 3), aligned=st.booleans(),
        length=st.integers(0, MAX_ROWS), bad=st.sampled_from([False] * 7 + [True]),
    )  # fmt: skip
    def write(self, slot, chosen, seed, first, chunks, aligned, length, bad):
        view = self._writer(slot)
        self._count(view)
        targets = [self._target(view, self.names[which]) for which in chosen]
        columns = [column for column, _ in targets]
        start, stop = first * 3, first * 3 + length
        # The end as the table has it, or as the instance believes.
        rows = self.model.rows if seed % 2 else view.table.rowCount
        if aligned and columns[0] is not None:
            step = columns[0].chunk_rows
            start = min(first * step, rows // step * step)
            stop = min(start + chunks * step, rows)
        elif stop > rows and seed % 8:
            start, stop = min(start, rows), rows
        random = np.random.default_rng(seed)
        blocks = {}
        for which, (column, stale) in zip(chosen, targets, strict=True):
            if column is None:
                blocks[self.names[which]] = np.zeros(stop - start, np.int8)
            else:
                # What an earlier column could hold as well gets further than to a refusal.
                make = plain_values_of if stale and seed % 4 else values_of
                blocks[column.name] = make(column.dtype, column.shape(stop - start), random)
        if bad and columns[-1] is not None and stop > start:
            last = columns[-1]
            if last.dtype.kind == "M":
                blocks[last.name] = np.full(last.shape(stop - start), misfit_of(last.dtype))
            else:
                items = blocks[last.name].astype(object).tolist()
                (items if last.width == 1 else items[-1])[-1] = misfit_of(last.dtype)
                blocks[last.name] = items
            self._write(view, start, stop, blocks, refused=True)
        else:
            self._write(view, start, stop, blocks)
        # Somebody else looks at once.
        self.read((slot + seed) % 4, chosen, max(0, start - 1), stop - start + 2, True, False)

    def _write(self, view, start, stop, blocks, *, refused=False):
        self._count(view)
        must, may, silent = set(), set(), False
        looks = {}
        for name in blocks:
            column, stale = self._target(view, name)
            cut = self.model.lowest_since(view.looked) < stop
            looks[name] = column, stale, cut
            if column is None:
                must.add(ColumnNotFoundError)
                silent |= bool(stale & view.logged)
                if stale and stop > self.model.rows:
                    # Whichever of the two is noticed first.
                    may.add(RowRangeError)
            elif stop > self.model.rows:
                must |= {RowRangeError, ChangedError} if cut else {RowRangeError}
                # An event can be logged in a column that is shorter than it is known to be.
                silent |= cut and column in view.used.get(name, ())
            if stale:
                may |= {ChangedError, ColumnNotFoundError}
                silent |= bool(stale & view.logged)
            if cut:
                may |= {ChangedError}
            foreign = self._foreign(column)
            for chunk, low, high in column.parts(start, stop) if column is not None else ():
                if chunk in foreign and high - low < column.chunk_rows:
                    must.add(DamagedError)
        if refused:
            must |= {UnequalValueError, UnsupportedDtypeError}
            # The last is the one that its column can't hold; an earlier column might.
            silent = silent and bool(looks[next(reversed(blocks))][1])
        if len(blocks) == 1:
            (name, block), = blocks.items()  # fmt: skip
            _, error = attempt(view.table.writeBlock, name, block, start)
        else:
            _, error = attempt(view.table.writeBlocks, blocks, start)
        self._check_rows(view)
        if error is None:
            # Nothing is asked of the store for a block of no rows.
            unasked = start == stop and (silent or cut)
            assert not must or (silent and self.s3) or unasked, (
                f"written, expected {[kind.__name__ for kind in must]}"
            )
        else:
            expect(error, *must, *may)
        for name, (column, stale, cut) in looks.items():
            self._using(view, name)
            if error is not None and not isinstance(
                error, ChangedError | ColumnNotFoundError | DamagedError
            ):
                continue
            if error is None and not stale and not (cut and stop > self.model.rows):
                self._wrote(view, column, start, stop, blocks[name])
                continue
            if column is not None:
                self._resolve(view, column, start, blocks[name])
            if self.s3:
                self._owe(view, stale | {column} - {None}, stop, sure=False)
                if error is None and stale:
                    self._stray(view, column, stale, start, stop)
                elif error is None:
                    self._owe(view, {column}, stop, sure=True)
                # Whatever went where it should not have gone stays there.
                self.strays = True

    def _wrote(self, view, column, start, stop, block):
        column.write(start, block)
        if column not in view.logged:
            view.logged.add(column)
            column.events += 1
        view.used[column.name] = {column}
        if self.s3:
            self._owe(view, {column}, stop, sure=True)
        self.model.tick()

    def _owe(self, view, columns, stop, *, sure):
        for column in columns:
            known = view.unconfirmed.get(column, (0, view.looked, self.model.clock, None))
            rows = known[3]
            if sure:
                rows = stop if rows is None else max(stop, rows)
            view.unconfirmed[column] = (
                max(stop, known[0]), min(view.looked, known[1]), self.model.clock, rows,
            )  # fmt: skip

    def _stray(self, view, column, stale, start, stop):
        """Something was written to a column that is gone: flush() has to say so."""
        self.strays = True
        if column is not None and start < stop:
            own = Look(self.place, self.url)
            marks = {
                own.marks.get(f"{own.keys[column.name]}/c/{chunk}" + "/0" * (column.width > 1))
                for chunk in column.chunks(start, min(stop, self.model.rows))
            } if not self._is_pending(column) else {column.id}  # fmt: skip
            if column.id in marks:
                # It knew of the new column after all.
                return
        if len(gone := stale & view.logged) == 1 and start < stop:
            self._owe(view, gone, stop, sure=True)

    def _resolve(self, view, column, start, block):
        """See which chunks of a block were written: each as a whole, or not at all."""
        look = Look(self.place, self.url)
        found = look.column(column.name, column.id)
        assert found is not None, f"column {column.name!r} is gone"
        foreign = {} if self._is_pending(column) else look.foreign(column.name)
        for chunk, low, high in column.parts(start, min(start + len(block), self.model.rows)):
            if chunk in foreign:
                continue
            part = block[low - start : high - start]
            # A list is what the column can't hold.
            if not isinstance(part, list) and same(found.values[low:high], part):
                column.write(low, part)
            else:
                assert same(found.values[low:high], column.values[low:high]), (
                    f"rows {low} to {high} of {column.name!r}: neither as they were nor as written"
                )
        events = len(found.attributes["MODIFICATIONLOG"])
        if events != column.events:
            assert column not in view.logged, "a second event of one instance"
            assert events == column.events + 1, f"{events} events, expected {column.events + 1}"
            view.logged.add(column)
            column.events += 1
        self.model.tick()

    def _check_rows(self, view):
        """The row count that an instance tells is one that the table had since it looked."""
        assert view.table.rowCount in self.model.since(view.looked, "rows")
