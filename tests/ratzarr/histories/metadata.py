"""What is said of columns, attributes, and calls that are refused whatever is there."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ratzarr import (
    ArgumentError,
    ColumnNotFoundError,
    InvalidNameError,
    RatZarrError,
    ReadOnlyError,
    UnequalValueError,
    UnsupportedDtypeError,
)
from tests.ratzarr.histories.draws import ATTRIBUTES, OWN, SLOTS, WHICH, rarely
from tests.ratzarr.histories.views import attempt, expect, settled


class Metadata:
    """Descriptions, attributes, refusals."""

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
        self._count(view)
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
        self._count(view)
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
        # Of a column that is not there any more, attributes that it never had can be deleted.
        assert column is not None or not change or how == "delete", (
            "an attribute of a column that is not there"
        )
        if column is not None and (change or how != "delete"):
            self._check_attributes(mapping, column.attributes)
        self.model.tick()

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
            (table.createColumn, ("new", "int8"), {"attributes": {"a": 1j}}, ArgumentError),
            (table.setRowCount, (-1,), {}, ArgumentError),
            (table.setRowCount, (True,), {}, ArgumentError),
            (table.setChunkSize, (0,), {}, ArgumentError),
            (table.getRatAttributeMapping().update, ({"ROWCOUNT": 99},), {}, ArgumentError),
            (table.getRatAttributeMapping().update, ({"a": {1}},), {}, ArgumentError),
            (table.readBlock, (name, 0.5, 1), {}, ArgumentError),
            (table.deleteColumn, ("never there",), {}, ColumnNotFoundError),
        ][case - 1]
        expect(attempt(call, *given, **options)[1], kind)
