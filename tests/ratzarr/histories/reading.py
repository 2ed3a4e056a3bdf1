"""Blocks are read: they are what the model has, or there is an error that says why not."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ratzarr import ColumnIncompleteError, ColumnNotFoundError, DamagedError, RowRangeError
from tests.ratzarr.histories.draws import MAX_ROWS, SLOTS, WHICH
from tests.ratzarr.histories.views import attempt, expect
from tests.ratzarr.looking import Look
from tests.ratzarr.model import same


class Reading:
    """Blocks that are read."""

    @rule(
        slot=SLOTS, chosen=st.lists(WHICH, min_size=1, max_size=3, unique=True),
        start=st.integers(-1, MAX_ROWS + 2), length=st.integers(-1, MAX_ROWS + 4),
        allow=st.booleans(), one=st.booleans(),
    )  # fmt: skip
    def read(self, slot, chosen, start, length, allow, one):
        view = self.views[slot]
        names = [self.names[which] for which in (chosen[:1] if one else chosen)]
        rows = self.model.rows
        self._count(view)
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
            # A column that is not there is found first, where it is the first that is looked at.
            absent = [name for name in names if self._target(view, name)[0] is None]
            expect(error, RowRangeError, *[ColumnNotFoundError] * bool(absent))
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
        # On S3, chunks that were put back after a column was deleted show its rows.
        assert count <= max(0, rows - start) or (self.s3 and self.strays), "rows that were cut off"
        for name, block in blocks.items():
            self._check_block(view, name, start, count, block, sure=not empty)
            # Also of no rows: from now on it has the column open.
            self._using(view, name)

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
