"""Our operations and those of the released module 1.0.2, in turns, on one store.

1.0.2 knows nothing of ROWCOUNT: whatever it does, no row is lost and none invented. The model is a
dict of numpy arrays. What zarr keeps behind the end of an array that it has cut is no row; if
zarr itself grows the array again it shows some of that, and so do we.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.dtypes import StringDType

from ratzarr import RatZarr
from ratzarr.maintenance.check import check_store
from tests.places import S3Place
from tests.ratzarr.released import Released

CHUNK = 4
KINDS = [
    (np.dtype("i4"), 1), (np.dtype("f8"), 1), (np.dtype("bool"), 1), (np.dtype("i2"), 2),
    (StringDType(), 1),
]  # fmt: skip
NAMES = ["a", "b", "c d", "größe", "100%"]


@dataclass
class Model:
    """The table as it ought to be."""

    rows: int = 0
    columns: dict = field(default_factory=dict)
    ghosts: dict = field(default_factory=dict)
    """What 1.0.2 has cut off of each column since we last resized it, from its end on."""

    def blank(self, name, rows):
        """Return empty rows."""
        like = self.columns[name]
        return np.zeros((rows, *like.shape[1:]), like.dtype)

    def create(self, name, kind, rows):
        """Have one more column."""
        dtype, width = kind
        self.columns[name] = np.zeros((rows, width) if width > 1 else rows, dtype)
        self.ghosts[name] = self.blank(name, 0)

    def delete(self, name):
        """Have one less."""
        del self.columns[name], self.ghosts[name]

    def resize(self, rows):
        """Resize as we do: rows that are cut off are gone."""
        self.rows = rows
        for name, values in self.columns.items():
            more = self.blank(name, max(0, rows - len(values)))
            self.columns[name] = np.concatenate([values[:rows], more])
            self.ghosts[name] = self.blank(name, 0)

    def resize_by_zarr(self, rows, seen):
        """Resize as 1.0.2 does; ``seen`` are the columns as zarr has them afterwards."""
        self.rows = rows
        for name, values in list(self.columns.items()):
            cells = np.concatenate([values, self.ghosts[name]])
            added = rows - len(values)
            if added > 0:
                shown, ghost = seen[name][len(values) :], self.ghosts[name][:added]
                blank, ghost = self.blank(name, added).tolist(), ghost.tolist()
                for number, value in enumerate(shown.tolist()):
                    allowed = [blank[number]]
                    if number < len(ghost):
                        allowed.append(ghost[number])
                    assert value in allowed, f"{name}: row {len(values) + number} is {value}"
                cells = np.concatenate([values, shown, self.ghosts[name][added:]])
            self.columns[name], self.ghosts[name] = cells[:rows].copy(), cells[rows:].copy()


class History:
    """One history, drawn from a seed."""

    def __init__(self, place, seed, released):
        self.place, self.released = place, released
        self.pick = random.Random(seed)
        self.values = np.random.default_rng(seed)
        self.url, self.model = place.new(), Model()
        self.said = []
        self.ours = None

    def run(self, turns):
        """Let the two take turns, and compare after each."""
        try:
            if self.pick.random() < 0.5:
                RatZarr(self.url, newChunkSize=CHUNK).close()
            else:
                self.place.create(self.url)
                self._as_released().group.attrs["CHUNKSIZE"] = CHUNK
            for _ in range(turns):
                self.pick.choice([self.our_turn, self.their_turn])()
                self.compare()
            self.check()
        except BaseException as error:
            error.add_note("\n".join(self.said))
            raise
        finally:
            if self.ours is not None:
                self.ours.close()

    def _as_released(self):
        return self.released(self.place.store(self.url, read_only=False), self.url)

    def _name(self):
        return self.pick.choice(list(self.model.columns))

    def _block(self, name):
        rows, like = self.model.rows, self.model.columns[name]
        start = self.pick.randrange(rows)
        length = self.pick.randint(1, rows - start)
        drawn = self.values.integers(0, 3, (length, *like.shape[1:]))
        if like.dtype.kind == "T":
            return start, np.array([["", "x", "größer"][n] for n in drawn], like.dtype)
        return start, drawn.astype(like.dtype)

    def _steps(self):
        """Yield what to do next, and to which column."""
        for _ in range(self.pick.randint(1, 3)):
            free = [name for name in NAMES if name not in self.model.columns]
            what = self.pick.choice(
                ["resize", "resize", "create", "write", "write", "delete", "set"]
            )
            if what == "create" and free:
                yield what, self.pick.choice(free)
            elif (what == "write" and self.model.columns and self.model.rows) or (
                what == "delete" and self.model.columns and self.pick.random() < 0.4
            ):
                yield what, self._name()
            elif what in ("resize", "set"):
                yield what, None

    def our_turn(self):
        """Do some of ours: in a new instance, or in one that looks at the store again."""
        if self.ours is None or self.pick.random() < 0.5:
            if self.ours is not None:
                self.ours.close()
            self.ours = RatZarr(self.url)
        else:
            self.ours.refresh()
        table, model = self.ours, self.model
        for what, name in self._steps():
            if what == "resize":
                rows = self.pick.randint(0, 14)
                self.said.append(f"ours: {rows} rows")
                table.setRowCount(rows)
                model.resize(rows)
            elif what == "create":
                kind = self.pick.choice(KINDS)
                self.said.append(f"ours: create {name} {kind} (of {model.rows} rows)")
                table.createColumn(name, *kind)
                model.create(name, kind, model.rows)
            elif what == "write":
                start, block = self._block(name)
                self.said.append(f"ours: write {name} from {start}: {block.tolist()}")
                table.writeBlock(name, block, start)
                model.columns[name][start : start + len(block)] = block
            elif what == "delete":
                self.said.append(f"ours: delete {name}")
                table.deleteColumn(name)
                model.delete(name)
            else:
                self.said.append("ours: an attribute")
                table.getRatAttributeMapping()["note"] = self.pick.random()
            assert table.rowCount == model.rows
        # Else closing it, later, says that rows it has written were cut off by 1.0.2 since.
        table.flush()

    def their_turn(self):
        """Do some of 1.0.2's."""
        table, model = self._as_released(), self.model
        for what, name in self._steps():
            if what == "resize":
                rows = self.pick.randint(0, 14)
                self.said.append(f"1.0.2: {rows} rows")
                table.resize(rows)
                if model.columns:
                    seen = {one: table.read(one) for one in model.columns}
                    model.resize_by_zarr(rows, seen)
            elif what == "create":
                kind = self.pick.choice(KINDS)
                self.said.append(f"1.0.2: create {name} {kind} (of {table.rows} rows)")
                table.create(name, *kind)
                model.create(name, kind, table.rows)
                model.rows = table.rows
            elif what == "write" and model.rows:
                start, block = self._block(name)
                self.said.append(f"1.0.2: write {name} from {start}: {block.tolist()}")
                table.write(name, block, start)
                model.columns[name][start : start + len(block)] = block
            elif what == "delete":
                self.said.append(f"1.0.2: delete {name}")
                table.delete(name)
                model.delete(name)
        if not model.columns:
            # Nothing but ROWCOUNT is left to tell, and 1.0.2 does not write it.
            with RatZarr(self.url, readOnly=True) as looked:
                model.rows = looked.rowCount

    def check(self):
        """Let the check find nothing but a ROWCOUNT that 1.0.2 has not written; repair that."""
        stated = self.place.open(self.url)["RAT"].attrs.get("ROWCOUNT", self.model.rows)
        findings = [one for one in check_store(self.url, repair=True) if one.wrong]
        kinds = ["row-count"] if stated != self.model.rows else []
        assert [one.kind for one in findings] == kinds, findings
        self.compare()
        assert [one for one in check_store(self.url) if one.wrong] == []
        assert (
            self.place.open(self.url)["RAT"].attrs.get("ROWCOUNT", self.model.rows)
            == self.model.rows
        )

    def compare(self):
        """Compare what we and what zarr read with the model."""
        with RatZarr(self.url, readOnly=True) as table:
            assert table.rowCount == self.model.rows
            assert sorted(table.getColumnNames()) == sorted(self.model.columns)
            found = table.readBlocks(list(self.model.columns), 0, self.model.rows + 9)
        group = self.place.open(self.url)["RAT"]
        for name, values in self.model.columns.items():
            assert found[name].tolist() == values.tolist(), name
            assert group[name][:].tolist() == values.tolist(), f"zarr reads other rows of {name}"


def run(place, seeds, turns=6, released=lambda store, url: Released(store)):
    """Run histories, one for each seed."""
    for seed in seeds:
        try:
            History(place, seed, released).run(turns)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.thorough
def test_200_histories_on_local_disk(local):
    run(local, range(200))


@pytest.mark.thorough
def test_20_histories_on_s3(quick_s3, monkeypatch):
    for name, value in quick_s3.environment.items():
        monkeypatch.setenv(name, value)
    run(S3Place(quick_s3), range(1000, 1020), turns=5)
