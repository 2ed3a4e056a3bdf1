"""What is killed in the middle, what may be found afterwards, and how it is finished.

An :class:`Operation` makes a table, has one thing done to it by a process that may die at any
moment, judges what it left, finishes the work, and knows what the table has to be in the end.
"""

import numpy as np

from ratzarr import RatZarr
from tests.stress.raw import check, same

ROWS, CHUNK = 23, 5
TEXT = np.array([f"row {n} é" for n in range(ROWS)], np.dtypes.StringDType())


def bystanders(rows=ROWS):
    """Return the columns that nothing here is meant to change, as they are with so many rows."""
    kept = min(rows, ROWS)
    number = np.zeros(rows, "i8")
    number[:kept] = np.arange(1, kept + 1)
    text = np.full(rows, "", np.dtypes.StringDType())
    text[:kept] = TEXT[:kept]
    wide = np.full((rows, 3), -1.0)
    wide[:kept] = np.arange(3 * kept).reshape(kept, 3) / 7
    return {"number": number, "text": text, "wide": wide}


class Operation:
    """One thing that is done to a table.

    Subclasses say :meth:`act`, which runs in the process that is killed; the rest runs in the
    process that looks.
    """

    name = ""
    arguments: tuple = ()
    """What :meth:`act` is given besides the table's place."""
    most_steps = None
    """At how many steps it is killed at the most; None: at all. Large tables take their time."""

    def prepare(self, url):
        """Make the table as it is before."""
        with RatZarr(url) as table:
            table.setRowCount(ROWS)
            table.setChunkSize(CHUNK)
            for name, values in bystanders().items():
                fill = {"fillValue": -1} if name == "wide" else {}
                width = values.shape[1] if values.ndim == 2 else 1
                table.createColumn(name, values.dtype, width, **fill)
                table.writeBlock(name, values, 0)

    def act(self, url):
        """Do it."""
        raise NotImplementedError

    def judge(self, raw, place):
        """Fail unless what a killed process left is legal; return in words what it is."""
        raise NotImplementedError

    def finish(self, url):
        """Do what was not done."""
        self.act(url)

    def final(self, raw):
        """Fail unless the table is as it has to be in the end."""
        raise NotImplementedError

    def untouched(self, raw, rows=ROWS):
        """Fail unless the columns that this is not about are as they were."""
        assert raw.there, "the table is gone"
        for name, values in bystanders(rows).items():
            assert name in raw.columns, f"column {name!r} is gone"
            assert raw.columns[name].complete, f"column {name!r} says it is incomplete"
            assert same(raw.columns[name].values, values), (name, raw.columns[name].values)

    def whole(self, raw, **columns):
        """Fail unless the table has these columns, besides those that this is not about."""
        check(raw, ROWS, **bystanders(), **columns)
        assert raw.order == [*bystanders(), *columns], raw.order


class CreateTable(Operation):
    name = "creating a table"

    def prepare(self, url):
        pass

    def act(self, url):
        RatZarr(url).close()

    def judge(self, raw, place):
        if raw.there:
            check(raw, 0)
            return "exists, empty"
        left = {key for key in raw.objects if not key.endswith(".partial")}
        assert left <= {"zarr.json"}, left
        return "does not exist"

    def finish(self, url):
        with RatZarr(url) as table:
            table.setRowCount(2)
            table.createColumn("a", "int8")

    def final(self, raw):
        check(raw, 2, a=np.zeros(2, "i1"))


class CreateColumn(Operation):
    name = "creating a column"

    def act(self, url):
        with RatZarr(url) as table:
            table.createColumn("new", "float32", 2, fillValue=1.5, attributes={"mine": [1]})

    def judge(self, raw, place):
        self.untouched(raw)
        if "new" not in raw.columns:
            return "does not exist"
        new = raw.columns["new"]
        assert same(new.values, np.full((ROWS, 2), 1.5, "f4"))
        assert new.attributes["mine"] == [1]
        return "exists, empty"

    def finish(self, url):
        with RatZarr(url) as table:
            if not table.colExists("new"):
                table.createColumn("new", "float32", 2, fillValue=1.5, attributes={"mine": [1]})
            assert table.getColumnNames() == [*bystanders(), "new"]
            table.writeBlock("new", np.ones((1, 2), "f4"), 0)

    def final(self, raw):
        values = np.full((ROWS, 2), 1.5, "f4")
        values[0] = 1
        check(raw, ROWS, **bystanders(), new=values)


class DeleteColumn(Operation):
    name = "deleting a column"
    rows = 1

    @property
    def values(self):
        return np.arange(ROWS, dtype="u2")

    def prepare(self, url):
        super().prepare(url)
        with RatZarr(url) as table:
            table.createColumn("old", "uint16", chunkSize=self.rows)
            table.writeBlock("old", self.values, 0)

    def act(self, url):
        with RatZarr(url) as table:
            table.deleteColumn("old")

    def judge(self, raw, place):
        self.untouched(raw)
        if "old" not in raw.columns:
            return "does not exist"
        if not raw.columns["old"].complete:
            return "exists, marked incomplete"
        assert same(raw.columns["old"].values, self.values), raw.columns["old"].values
        return "as before"

    def finish(self, url):
        with RatZarr(url) as table:
            if table.colExists("old"):
                table.deleteColumn("old")
            # One of the same name and size: nothing of the old one may show through.
            table.createColumn("old", "uint16", chunkSize=self.rows)

    def final(self, raw):
        self.whole(raw, old=np.zeros(ROWS, "u2"))


class DeleteLongColumn(DeleteColumn):
    name = "deleting a column of more chunks than one request deletes"
    long = 1003
    """Rows, and chunks."""
    most_steps = 30

    @property
    def values(self):
        return np.arange(self.long, dtype="u2")

    def prepare(self, url):
        with RatZarr(url) as table:
            table.setRowCount(self.long)
            table.createColumn("number", "int32")
            table.writeBlock("number", np.arange(self.long), 0)
            table.createColumn("old", "uint16", chunkSize=1)
            table.writeBlock("old", self.values, 0)

    def untouched(self, raw, rows=ROWS):
        assert raw.there
        assert same(raw.columns["number"].values, np.arange(self.long, dtype="i4"))

    def final(self, raw):
        zeros = np.zeros(self.long, "u2")
        check(raw, self.long, number=np.arange(self.long, dtype="i4"), old=zeros)


class Write(Operation):
    first, count = 0, ROWS

    def prepare(self, url):
        super().prepare(url)
        with RatZarr(url) as table:
            table.createColumn("a", "int64")
            table.writeBlock("a", np.arange(ROWS), 0)

    @property
    def old(self):
        return np.arange(ROWS)

    @property
    def new(self):
        values = np.arange(ROWS)
        values[self.first : self.first + self.count] += 1000
        return values

    def act(self, url):
        with RatZarr(url) as table:
            block = self.new[self.first : self.first + self.count]
            table.writeBlock("a", block, self.first)

    def judge(self, raw, place):
        self.untouched(raw)
        column = raw.columns["a"]
        assert column.complete
        done = 0
        touched = range(self.first // CHUNK, (self.first + self.count - 1) // CHUNK + 1)
        for chunk in range(-(-ROWS // CHUNK)):
            rows = slice(chunk * CHUNK, min(ROWS, (chunk + 1) * CHUNK))
            is_old = same(column.values[rows], self.old[rows])
            is_new = same(column.values[rows], self.new[rows])
            assert is_old or is_new, f"chunk {chunk} is torn: {column.values[rows]}"
            done += chunk in touched and is_new
        if done in (0, len(touched)):
            return "as after" if done else "as before"
        return "some chunks as before, some as after, none half written"

    def final(self, raw):
        self.whole(raw, a=self.new)


class WriteWhole(Write):
    name = "writing whole chunks"


class WritePart(Write):
    name = "writing parts of chunks"
    first, count = 3, 14


class Resize(Operation):
    rows = ROWS

    def act(self, url):
        with RatZarr(url) as table:
            table.setRowCount(self.rows)

    def judge(self, raw, place):
        assert raw.there
        assert raw.rows in (ROWS, self.rows), raw.rows
        self.untouched(raw, raw.rows)
        return "as before" if raw.rows == ROWS else "has the new length"

    def final(self, raw):
        check(raw, self.rows, **bystanders(self.rows))
        assert "RESIZE" not in raw.attributes
        for name, column in raw.columns.items():
            assert column.length == self.rows, (name, column.length)


class Grow(Resize):
    name = "lengthening the table"
    rows = 41


class Shrink(Resize):
    name = "shortening the table"
    rows = 11


class ShrinkThenOtherwise(Resize):
    name = "shortening the table; another process then lengthens it"
    rows = 11

    def finish(self, url):
        with RatZarr(url) as table:
            self.shrunk = table.getRowCount() == self.rows
            table.setRowCount(31)

    def final(self, raw):
        expected = bystanders(31)
        if self.shrunk:
            # Cut off is gone, whoever grows the table again.
            for name, values in bystanders(self.rows).items():
                expected[name][self.rows :] = -1.0 if name == "wide" else values.dtype.type()
        for name, values in expected.items():
            assert same(raw.columns[name].values, values), (name, raw.columns[name].values)
        check(raw, 31, **expected)


class SetAttributes(Operation):
    name = "setting attributes"

    def act(self, url):
        with RatZarr(url) as table:
            table.getRatAttributeMapping()["mine"] = {"a": 1}
            table.getColumnAttributeMapping("text")["mine"] = "x" * 10000

    def judge(self, raw, place):
        self.untouched(raw)
        both = raw.attributes.get("mine"), raw.columns["text"].attributes.get("mine")
        assert both in ((None, None), ({"a": 1}, None), ({"a": 1}, "x" * 10000))
        return {0: "none set", 1: "one set", 2: "both set"}[sum(map(bool, both))]

    def final(self, raw):
        self.whole(raw)
        assert raw.attributes["mine"] == {"a": 1}
        assert raw.columns["text"].attributes["mine"] == "x" * 10000


class DeleteTable(Operation):
    name = "deleting the table"

    def act(self, url):
        RatZarr.delete(url)

    def judge(self, raw, place):
        if not raw.objects:
            return "gone"
        assert raw.there or set(raw.objects) == {"zarr.json"}, sorted(raw.objects)
        if not raw.there:
            return "partly deleted, recognised as such"
        whole = all(
            name in raw.columns and same(raw.columns[name].values, values)
            for name, values in bystanders().items()
        )
        return "as before" if whole else "partly deleted, recognised as such"

    def final(self, raw):
        assert not raw.objects, sorted(raw.objects)


class FillAndComplete(Operation):
    """A bulk writer: creates a column out of nothing, and says when all of it is there."""

    name = "filling a column in bulk, then resumed"
    values = np.arange(ROWS) / 7

    def act(self, url):
        with RatZarr(url) as table:
            table.createColumn("bulk", "float64", complete=False, attributes={"mine": 1})
            self.fill(table, [(0, ROWS)])

    def fill(self, table, runs):
        for start, stop in runs:
            for first in range(start, stop, CHUNK):
                table.writeBlock("bulk", self.values[first : min(stop, first + CHUNK)], first)
        table.setComplete("bulk")

    def judge(self, raw, place):
        self.untouched(raw)
        if "bulk" not in raw.columns:
            return "does not exist"
        if not raw.columns["bulk"].complete:
            return "exists, marked incomplete"
        assert same(raw.columns["bulk"].values, self.values)
        return "complete"

    def finish(self, url):
        with RatZarr(url) as table:
            if not table.colExists("bulk"):
                self.act(url)
            elif table.resumeColumn("bulk") is not None:
                self.fill(table, table.getMissingRows("bulk"))

    def final(self, raw):
        self.whole(raw, bulk=self.values)
        assert raw.columns["bulk"].attributes["mine"] == 1


class ReplaceColumn(Operation):
    """A bulk writer fills a column that takes another's place."""

    name = "replacing a column, then resumed"
    old = np.arange(ROWS, dtype="f8")
    new = np.arange(ROWS, dtype="f4") / 3

    def prepare(self, url):
        super().prepare(url)
        with RatZarr(url) as table:
            table.createColumn("a", "float64")
            table.writeBlock("a", self.old, 0)

    def act(self, url):
        with RatZarr(url) as table:
            table.createColumn("a", "float32", complete=False, replace=True)
            self.fill(table, [(0, ROWS)])

    def fill(self, table, runs):
        for start, stop in runs:
            for first in range(start, stop, CHUNK):
                table.writeBlock("a", self.new[first : min(stop, first + CHUNK)], first)
        table.setComplete("a")

    def judge(self, raw, place):
        self.untouched(raw)
        if "a" not in raw.columns:
            raise AssertionError("neither the old column nor the new one is there")
        column = raw.columns["a"]
        if not column.complete:
            assert place.kind == "s3", "the old column can't be read, and the new one not yet"
            return "marked incomplete"
        if same(column.values, self.new):
            return "the new one, complete"
        assert same(column.values, self.old), column.values
        return "the old one, complete"

    def finish(self, url):
        with RatZarr(url) as table:
            if table.resumeColumn("a") is not None:
                self.fill(table, table.getMissingRows("a"))
            elif table.getColumnDtype("a") == np.float64:
                self.act(url)
        # What a dead process left on its way out goes when the next one writes.
        with RatZarr(url) as table:
            table.writeBlock("a", self.new[:1], 0)

    def final(self, raw):
        self.whole(raw, a=self.new)


class ReplaceColumnAfresh(ReplaceColumn):
    name = "replacing a column, then started again"

    def finish(self, url):
        self.act(url)


OPERATIONS = [
    CreateTable(), CreateColumn(), DeleteColumn(), DeleteLongColumn(), WriteWhole(), WritePart(),
    Grow(), Shrink(), ShrinkThenOtherwise(), SetAttributes(), DeleteTable(), FillAndComplete(),
    ReplaceColumn(), ReplaceColumnAfresh(),
]  # fmt: skip


def act(name, url, *arguments):
    """Do one of them, by name: what a process that may be killed runs."""
    {type(operation).__name__: operation for operation in OPERATIONS}[name].act(url, *arguments)
