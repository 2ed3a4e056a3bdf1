"""Several instances of one table, in any order of work, against a table in plain numpy.

Each instance is a view: what others have changed since it last looked, it sees, or it says what
happened (docs/reliability.md, docs/design.md). The model (:mod:`tests.ratzarr.model`) has the
truth; a :class:`View` keeps what one instance may still believe. An outcome that neither the truth
nor such a belief explains is a failure, and so is a store that a fresh instance, zarr-python
(:mod:`tests.ratzarr.looking`) or the check of a whole store find to be otherwise than the model.

    run(place, examples=5000, seed=1)      # another 5000 histories
"""

from dataclasses import dataclass, field

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ratzarr import (
    ArgumentError,
    ChangedError,
    ClosedError,
    ColumnExistsError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    DamagedError,
    InvalidNameError,
    RatZarr,
    RatZarrError,
    ReadOnlyError,
    RowRangeError,
    UnequalValueError,
    UnsupportedDtypeError,
)
from ratzarr.checkup import check_store

from .looking import Look
from .model import (
    KINDS,
    ColumnModel,
    TableModel,
    empty_of,
    kinds_like,
    misfit_of,
    plain_values_of,
    same,
    values_of,
)

NAMES = [
    "plain", "a/b", "%41", ".x", "zarr.json", "x" * 300, "größe 表", "__init__", "a\\b", "e\u0301",
    "c", "a%2Fb", "..", "line\nbreak", "A", "\U0001f600" * 60,
]  # fmt: skip
OWN = {"MODIFICATIONLOG", "NAME", "COMPLETE", "ROWS_DONE", "COLUMN_ID", "CUTTING", "CUTS",
       "RESIZED", "ROWCOUNT", "CHUNKSIZE", "COLUMN_ORDER", "FORMAT_VERSION", "RESIZE",
       "zarr_conventions"}  # fmt: skip
MAX_ROWS = 20

SLOTS = st.integers(0, 3)
WHICH = st.sampled_from([0, 0, 0, 1, 1, 2])
ROWS = st.integers(0, MAX_ROWS)
SEEDS = st.integers(0, 2**16)
# What shares no state with others need not fill the histories.
rarely = precondition(lambda self: self.step % 3 == 0)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["unit", "größe", "NaN"]),
    st.sampled_from(
        [None, True, 1, 1.0, -0.0, 2**70, "", "表", [], [1, {"a": None}], {"b": [2.5]}]
    ),
    max_size=2,
)


@dataclass(eq=False)
class View:
    """One instance, and what it may still believe."""

    table: RatZarr
    writes: bool
    looked: int
    """When it last looked at the table."""
    used: dict = field(default_factory=dict)
    """For each name the columns that it may have open."""
    logged: set = field(default_factory=set)
    """Columns that it has written to."""
    building: dict = field(default_factory=dict)
    """Columns that are to take another's place, and that it means by the name."""
    unconfirmed: dict = field(default_factory=dict)
    """Columns written to where nobody looks first: (rows, looked, written, sure)."""

    def forget(self, name):
        """Know nothing of a name any more."""
        self.used.pop(name, None)
        self.building.pop(name, None)
        self.unconfirmed = {c: w for c, w in self.unconfirmed.items() if c.name != name}


def attempt(call, *args, **kwargs):
    """Return (what comes of it, None), or (None, the error); any but ours is a failure."""
    try:
        return call(*args, **kwargs), None
    except RatZarrError as error:
        assert len(str(error)) > 10, f"an error without words: {error!r}"
        return None, error


def expect(error, *kinds):
    """Fail unless it is an error of one of these kinds."""
    assert error is not None, f"nothing was refused, expected {[kind.__name__ for kind in kinds]}"
    assert isinstance(error, kinds), f"{error!r}, expected {[kind.__name__ for kind in kinds]}"


def settled(error):
    """Fail if there was an error at all."""
    if error is not None:
        raise AssertionError("refused, though nothing forbids it") from error


class Histories(RuleBasedStateMachine):
    """Whatever several instances do."""

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
        # On S3 it is up to marks of chunks, in too few histories to leave it to chance.
        if anew or self.s3:
            self.behind(1, 0, 0, rows, kinds[0], "alike", True, then, seed)

    # ---- instances

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
            must |= sure and (
                gone or (not self._is_pending(column) and self.model.lowest_since(written) < stop)
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

    # ---- columns

    def _target(self, view, name):
        """Return the column that is meant, and those that the instance may take for it."""
        column = view.building.get(name)
        if column is None:
            column = self.model.columns.get(name)
        elif not self._is_pending(column):
            return None, {column}
        return column, view.used.get(name, set()) - {column}

    def _using(self, view, name):
        column, _ = self._target(view, name)
        if column is not None:
            view.used.setdefault(name, set()).add(column)

    def _foreign(self, column):
        """Return the chunks that earlier columns' writers have put into a column."""
        if not self.strays or column is None or self._is_pending(column):
            return {}
        return Look(self.place, self.url).foreign(column.name)

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
        column = ColumnModel(
            name, dtype, width, fill, chunk_rows, np.empty(shape, dtype), dict(attributes), complete
        )  # fmt: skip
        column.resize(self.model.rows)
        self.model.create(column, pending=replace)
        column.id = Look(self.place, self.url).identity(name, pending=replace)
        view.forget(name)
        view.used[name] = {column}
        if replace:
            view.building[name] = column
        # A creation changes the table's document, and that is looked at again.
        assert replace or view.table.rowCount == self.model.rows

    @rule(slot=SLOTS, which=WHICH, again=st.sampled_from([True, True, False]), data=st.data())
    def delete(self, slot, which, again, data):
        view, name = self._writer(slot), self.names[which]
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
        for column, (stop, _, _written, _sure) in view.unconfirmed.items():
            # It knows of this cut itself.
            view.unconfirmed[column] = (min(stop, rows), *view.unconfirmed[column][1:])
        assert view.table.rowCount == rows

    @rarely
    @rule(slot=SLOTS, rows=st.integers(1, 9))
    def chunk_size(self, slot, rows):
        view = self._writer(slot)
        view.table.setChunkSize(rows)
        self.model.chunk_rows = rows
        self.model.tick()
        assert view.table.getRATChunkSize() == rows

    # ---- rows

    @rule(
        slot=SLOTS, chosen=st.lists(WHICH, min_size=1, max_size=2, unique=True), seed=SEEDS,
        first=st.integers(0, 5), chunks=st.integers(1, 3), aligned=st.booleans(),
        length=st.integers(0, MAX_ROWS), bad=st.sampled_from([False] * 7 + [True]),
    )  # fmt: skip
    def write(self, slot, chosen, seed, first, chunks, aligned, length, bad):
        view = self._writer(slot)
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
            known = view.unconfirmed.get(column, (0, view.looked, self.model.clock, False))
            view.unconfirmed[column] = (
                max(stop, known[0]), min(view.looked, known[1]), self.model.clock, sure or known[3],
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

    @rule(
        slot=SLOTS, chosen=st.lists(WHICH, min_size=1, max_size=3, unique=True),
        start=st.integers(-1, MAX_ROWS + 2), length=st.integers(-1, MAX_ROWS + 4),
        allow=st.booleans(), one=st.booleans(),
    )  # fmt: skip
    def read(self, slot, chosen, start, length, allow, one):
        view = self.views[slot]
        names = [self.names[which] for which in (chosen[:1] if one else chosen)]
        rows = self.model.rows
        before = view.table.rowCount
        if one:
            got, error = attempt(
                view.table.readBlock, names[0], start, length, allowIncomplete=allow
            )
            blocks = {names[0]: got}
        else:
            blocks, error = attempt(
                view.table.readBlocks, names, start, length, allowIncomplete=allow
            )
        self._check_rows(view)
        if start < 0 or length < 0 or start > max(rows, before):
            expect(error, RowRangeError)
            return
        must, may = set(), set()
        # Nothing is asked of the store where the instance knows of no row there.
        empty = length == 0 or start >= rows or start == before
        if start > rows:
            may.add(RowRangeError)
        for name in names:
            column, stale = self._target(view, name)
            if column is None:
                (may if stale and (empty or self.s3) else must).add(ColumnNotFoundError)
            elif name not in view.building and not allow and not column.complete:
                (may if stale and (empty or self.s3) else must).add(ColumnIncompleteError)
            if column is not None and not empty:
                touched = set(column.chunks(start, min(rows, start + length)))
                foreign = self._foreign(column)
                marks = {foreign.get(chunk) for chunk in touched}
                if marks - {None}:
                    # The writer's own column, if it is still known here, is read without a doubt.
                    knows = marks <= {ghost.id for ghost in stale}
                    (may if knows else must).add(DamagedError)
        if error is not None:
            expect(error, *must, *may)
            gone = [name for name in names if self._target(view, name)[0] is None]
            if isinstance(error, ColumnNotFoundError) and len(gone) == 1:
                # It was told, and means by the name what everybody means from now on.
                view.used.pop(gone[0], None)
                view.building.pop(gone[0], None)
            for name in names:
                self._using(view, name)
            return
        assert not must, f"read, expected {[kind.__name__ for kind in must]}"
        assert list(blocks) == names
        count = min(length, view.table.rowCount - start)
        for name, block in blocks.items():
            self._check_block(view, name, start, count, block, sure=not empty)

    def _check_block(self, view, name, start, count, block, *, sure):
        column, stale = self._target(view, name)
        if column is not None:
            expected = column.blank(count)
            have = column.values[start : start + count]
            expected[: len(have)] = have
            if same(block, expected):
                if sure and not self._foreign(column):
                    view.used[name] = {column}
                return
        believed = [ghost for ghost in stale if block.dtype == ghost.dtype]
        if not sure and believed:
            return
        if not sure and not len(block):
            # No value is there to be of a wrong type: an earlier column's dtype is as good.
            assert block.dtype in [c.dtype for c, *_ in self.model.column_since(0, name)]
            return
        # On S3 a chunk that the old column's writer has put there since says it is the old one's.
        if self.s3 and believed and self.strays:
            marks = Look(self.place, self.url).marks.values()
            assert any(ghost.id in marks for ghost in believed)
            return
        shown = None if column is None else expected.tolist()
        raise AssertionError(
            f"column {name!r} from row {start}: {block.dtype} {block.tolist()}, expected "
            f"{None if column is None else column.dtype} {shown}"
        )

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

    # ---- columns that are filled by a long copy

    @precondition(lambda self: any(not c.complete for c in self._unfinished()))
    @rule(slot=SLOTS, data=st.data(), seed=SEEDS, resume=st.booleans())
    def finish(self, slot, data, seed, resume):
        """Fill what is missing of a column, and say that it is finished."""
        view = self._writer(slot)
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
        if column.missing() or self._foreign(column):
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

    # ---- what is said of columns

    @rarely
    @rule(slot=SLOTS, which=WHICH)
    def describe(self, slot, which):
        view, name = self.views[slot], self.names[which]
        assert view.table.colExists(name) == (name in self.model.columns)
        names = view.table.getColumnNames()
        assert sorted(names) == sorted(self.model.columns)
        column, stale = self._target(view, name)
        calls = (
            view.table.getColumnDtype, view.table.getColumnWidth, view.table.getColumnChunkSize,
            view.table.getModificationLog, view.table.getColumnAttributeMapping,
        )  # fmt: skip
        for call in calls:
            found, error = attempt(call, name)
            if error is not None:
                expect(error, ColumnNotFoundError)
                assert column is None, f"{error!r}, and it is there"
                return
            if call is calls[3]:
                found = len(found)
            elif call is calls[4]:
                found = {k: v for k, v in found.asdict().items() if k not in OWN}
            known = [
                (c.dtype, c.width, c.chunk_rows, events, attributes)[calls.index(call)]
                for c, attributes, events in self._states(view, name, column, stale)
            ]
            assert found in known, f"{call.__name__}: {found!r}, expected one of {known}"
        self._using(view, name)

    def _states(self, view, name, column, stale):
        states = list(self.model.column_since(0, name))
        states += [(c, c.attributes, c.events) for c in {column, *stale} - {None}]
        own = {column, *stale}
        # Of a column that was being built nothing was noted until it was in its place.
        states += [(c, c.attributes, n) for c in own - {None} for n in range(c.events)]
        return [state for state in states if state[0] in own]

    def _check_attributes(self, found, expected):
        found = {name: value for name, value in found.items() if name not in OWN}
        found, expected = dict(sorted(found.items())), dict(sorted(expected.items()))
        assert repr(found) == repr(expected), f"attributes {found}, expected {expected}"

    @rarely
    @rule(slot=SLOTS, change=ATTRIBUTES, how=st.sampled_from(["update", "delete", "put"]))
    def table_attributes(self, slot, change, how):
        view = self._writer(slot)
        mapping = view.table.getRatAttributeMapping()
        settled(self._change(mapping, self.model.attributes, change, how))
        self.model.tick()
        if change or how != "delete":
            self._check_attributes(mapping, self.model.attributes)

    def _change(self, mapping, attributes, change, how):
        """Change attributes, and the model's in the same way; return our error, if any."""
        if how == "delete":
            for name in change:
                try:
                    del mapping[name]
                except KeyError:
                    assert name not in attributes
                except RatZarrError as error:
                    return error
                else:
                    attributes.pop(name)
            return None
        _, error = attempt(getattr(mapping, how), change)
        if error is None:
            if how == "put":
                attributes.clear()
            attributes |= change
        return error

    @rule(
        slot=SLOTS, which=WHICH, change=ATTRIBUTES,
        how=st.sampled_from(["update", "update", "delete", "put"]),
    )  # fmt: skip
    def column_attributes(self, slot, which, change, how):
        view, name = self._writer(slot), self.names[which]
        column, _stale = self._target(view, name)
        mapping, error = attempt(view.table.getColumnAttributeMapping, name)
        if error is None:
            error = self._change(mapping, {} if column is None else column.attributes, change, how)
        elif column is not None:
            settled(error)
        self._using(view, name)
        if error is not None:
            expect(error, ColumnNotFoundError)
            assert column is None, f"{error!r}, and it is there"
            return
        assert column is not None or not change, "an attribute of a column that is not there"
        if column is not None and (change or how != "delete"):
            self._check_attributes(mapping, column.attributes)
        self.model.tick()

    # ---- what is refused

    @rarely
    @rule(slot=SLOTS, which=WHICH, case=st.integers(0, 17))
    def refused(self, slot, which, case):
        view, name = self._writer(slot), self.names[which]
        table = view.table
        if case == 0:
            reader = next((view for view in self.views if not view.writes), None)
            if reader is not None:
                for call, *given in (
                    (reader.table.setRowCount, 3), (reader.table.createColumn, "n", "int8"),
                    (reader.table.deleteColumn, name), (reader.table.setChunkSize, 2),
                    (reader.table.writeBlock, name, [1], 0), (reader.table.setComplete, name),
                    (reader.table.resumeColumn, name),
                    (reader.table.getRatAttributeMapping().update, {"a": 1}),
                ):  # fmt: skip
                    expect(attempt(call, *given)[1], ReadOnlyError)
            return
        call, given, options, kind = [
            (table.createColumn, ("", "int8"), {}, InvalidNameError),
            (table.createColumn, ("\ud800", "int8"), {}, InvalidNameError),
            (table.createColumn, (5, "int8"), {}, InvalidNameError),
            (table.createColumn, ("new", "complex64"), {}, UnsupportedDtypeError),
            (table.createColumn, ("new", "int8", 0), {}, ArgumentError),
            (table.createColumn, ("new", "int8"), {"chunkSize": 0}, ArgumentError),
            (table.createColumn, ("new", "int8"), {"fillValue": 128}, UnequalValueError),
            (table.createColumn, ("new", "int8"), {"replace": True}, ArgumentError),
            (table.createColumn, ("new", "int8"), {"attributes": {"NAME": "x"}}, ArgumentError),
            (table.createColumn, ("new", "int8"), {"attributes": {"a": np.nan}}, ArgumentError),
            (table.setRowCount, (-1,), {}, ArgumentError),
            (table.setRowCount, (True,), {}, ArgumentError),
            (table.setChunkSize, (0,), {}, ArgumentError),
            (table.getRatAttributeMapping().update, ({"ROWCOUNT": 99},), {}, ArgumentError),
            (table.getRatAttributeMapping().update, ({"a": np.inf},), {}, ArgumentError),
            (table.readBlock, (name, 0.5, 1), {}, ArgumentError),
            (table.deleteColumn, ("never there",), {}, ColumnNotFoundError),
        ][case - 1]
        expect(attempt(call, *given, **options)[1], kind)

    # ---- the truth

    def check_invariants(self, *args, **kwargs):
        super().check_invariants(*args, **kwargs)
        if hasattr(self, "url") and hasattr(self, "views"):
            self.step += 1
            if self.step % self.every == 0:
                self.look()

    def look(self):
        """A fresh instance sees just what the model has."""
        model = self.model
        with RatZarr(self.url, readOnly=True) as fresh:
            assert fresh.rowCount == model.rows
            assert fresh.getRATChunkSize() == model.chunk_rows
            self._check_attributes(fresh.getRatAttributeMapping(), model.attributes)
            assert fresh.getColumnNames() == list(model.columns)
            for name, column in model.columns.items():
                self._look_at(fresh, name, column, self._foreign(column))

    def _look_at(self, fresh, name, column, foreign):
        assert fresh.getColumnDtype(name) == column.dtype
        assert fresh.getColumnWidth(name) == column.width
        assert fresh.getColumnChunkSize(name) == column.chunk_rows
        self._check_attributes(fresh.getColumnAttributeMapping(name), column.attributes)
        events = len(fresh.getModificationLog(name))
        assert events == column.events, f"{name!r}: {events} events, expected {column.events}"
        if not column.complete:
            expect(attempt(fresh.readBlock, name, 0, MAX_ROWS)[1], ColumnIncompleteError)
        rows = len(column.values)
        pieces = [(0, rows)]
        if foreign:
            pieces = [(low, high) for _, low, high in column.parts(0, rows)]
        for low, high in pieces:
            block, error = attempt(fresh.readBlock, name, low, high - low, allowIncomplete=True)
            if low // column.chunk_rows in foreign and foreign:
                expect(error, DamagedError)
                continue
            settled(error)
            assert same(block, column.values[low:high]), (
                f"{name!r} from {low}: {block.tolist()}, expected {column.values[low:high].tolist()}"
            )

    def teardown(self):
        if not hasattr(self, "views"):
            return
        for view in self.views:
            self._close(view)
        self.look()
        self.look_by_zarr()
        unfinished = {column.name for column in self._unfinished() if not column.complete}
        for finding in check_store(self.url):
            known = finding.kind == "unfinished" and finding.column in unfinished
            # Rows of a column that is gone, which S3 can't keep out.
            known |= self.strays and finding.kind in ("stale", "leftover", "missing")
            assert known, f"the check says: {finding.kind}: {finding}"

    def look_by_zarr(self):
        """And so does zarr-python."""
        look, model = Look(self.place, self.url), self.model
        raw = look.table
        assert raw.rows == model.rows
        assert raw.order == list(model.columns)
        self._check_attributes(raw.attributes, model.attributes)
        assert set(raw.columns) == set(model.columns)
        for name, column in model.columns.items():
            found = raw.columns[name]
            assert found.length == model.rows
            assert found.chunk_rows == column.chunk_rows
            self._check_attributes(found.attributes, column.attributes)
            assert len(found.attributes["MODIFICATIONLOG"]) == column.events
            foreign = look.foreign(name)
            for chunk, low, high in column.parts(0, model.rows):
                assert chunk in foreign or same(found.values[low:high], column.values[low:high]), (
                    f"{name!r}: {found.values[low:high].tolist()}, expected "
                    f"{column.values[low:high].tolist()}"
                )
        if not self.strays and not model.pending:
            assert raw.strangers(emptied=self.s3) == []


def run(place, examples, seed=None, *, steps=30, every=1):
    """Run histories; an AssertionError tells the first that went wrong, as short as it can be.

    Parameters
    ----------
    place
        Where the tables lie (:mod:`tests.places`).
    examples : int
        How many histories.
    seed : int, optional
        Which ones; by default always the same.
    steps : int
        The most that is done in one.
    every : int
        Steps between two looks at everything.
    """

    class There(Histories):
        pass

    There.place, There.every = place, every
    if seed is not None:
        There = hypothesis.seed(seed)(There)
    run_state_machine_as_test(
        There,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=seed is None,
            database=None,
            deadline=None,
            print_blob=False,
            # The time goes into disks and servers, not into finding examples; and what was found
            # is told step by step, so there is nothing to explain.
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
