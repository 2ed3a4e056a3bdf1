"""Processes change the number of rows while others write.

In each phase every value written is the number of the phase. One process cuts the table to ``LOW``
rows and has it grow again to a number of rows that no phase before had; others write blocks of
their own rows all the while, and note after each write how many rows they knew of. So of each row
can be said exactly what it may hold:

- below ``LOW``, which no phase cuts off: what its owner wrote last;
- above: nothing, or this phase's number; never an earlier one, as it was cut off since; and this
  phase's where its owner wrote it in the knowledge of the growth.
"""

import time
from collections import Counter
from contextlib import suppress

import numpy as np

from ratzarr import ChangedError, RatZarr
from tests.stress.processes import no_failures
from tests.stress.scenario import scenario

LOW = 50
CHUNK = 8


def grown(phase):
    """Rows after the growth of a phase."""
    return LOW + 40 + phase


def cut_and_grow(url, phases):
    with RatZarr(url) as table:
        for phase in range(1, phases + 1):
            yield
            time.sleep(0.02)
            table.setRowCount(LOW)
            time.sleep(0.01)
            table.setRowCount(grown(phase))
            yield []


def write_meanwhile(url, phases, number, size, seed):
    pick = np.random.default_rng([seed, number])
    # Rows that were cut off since they were written are told of when it is closed.
    with suppress(ChangedError), RatZarr(url) as table:
        for phase in range(1, phases + 1):
            yield
            sure = []
            refused = 0
            after = 0
            ends = time.monotonic() + 20
            # Until the growth has been seen and some more has been written, come what may.
            while after < 3 and time.monotonic() < ends:
                table.refresh()
                rows = table.getRowCount()
                knows = rows == grown(phase)
                after += knows
                name = f"c{int(pick.integers(2))}"
                low = rows <= LOW or (not knows and bool(pick.integers(2)))
                start = own_block(number, size, pick, 0 if low else LOW, LOW if low else rows)
                if start is None:
                    continue
                try:
                    table.writeBlock(name, np.full(2, phase), start)
                except Exception as error:
                    kinds = {kind.__name__ for kind in type(error).__mro__}
                    if start < LOW or knows or not kinds & {"RowRangeError", "ConflictError"}:
                        raise
                    refused += 1
                    # What an instance was told once does not go away by itself.
                    table.refresh()
                    continue
                if start < LOW or knows:
                    sure.append((name, start))
            if after < 3:
                raise AssertionError(f"phase {phase}: the growth was not seen: {table!r}")
            yield sure


def own_block(number, size, pick, low, high):
    """Return the first of two rows that nobody else writes."""
    starts = [row for row in range(low, high - 1, 2) if row // 2 % size == number]
    return int(pick.choice(starts)) if starts else None


@scenario("one shortens the table and lengthens it again while the others write", 5)
def cut_while_writing(stage):
    url = stage.place.new()
    with stage.table(url) as table:
        table.setRowCount(grown(0))
        for name in ("c0", "c1", "still"):
            table.createColumn(name, "int32", chunkSize=CHUNK)
            table.writeBlock(name, np.full(grown(0), 0 if name != "still" else 7), 0)
    writers = len(stage.crew) - 1
    expected = {name: np.zeros(LOW, "i4") for name in ("c0", "c1")}
    found = Counter()
    phases = []

    def look(values):
        if values[0] is None:
            return
        phases.append(None)
        judge(len(phases), [block for said in values[1:] for block in said])

    def judge(phase, sure):
        raw = stage.raw(url)
        assert raw.rows == grown(phase), raw.rows
        assert "RESIZE" not in raw.attributes, raw.attributes["RESIZE"]
        must = {name: np.zeros(raw.rows, bool) for name in expected}
        for name, start in sure:
            must[name][start : start + 2] = True
        for name, before in expected.items():
            column = raw.columns[name]
            assert column.length == raw.rows, (name, column.length, raw.rows)
            values = column.values
            before[must[name][:LOW]] = phase
            assert (values[:LOW] == before).all(), f"phase {phase}, {name}: {values} / {before}"
            above, known = values[LOW:], must[name][LOW:]
            old = (above != 0) & (above != phase)
            assert not old.any(), f"phase {phase}, {name}: rows came back: {values}"
            assert (above[known] == phase).all(), f"phase {phase}, {name}: lost: {values} {known}"
            found["a row written after that has its value"] += int(known.sum())
            found["a row before the cut has the last value"] += LOW
            found["a row after the cut is empty or new"] += len(above) - int(known.sum())
        still = raw.columns["still"].values
        assert (still[:LOW] == 7).all()
        assert not still[LOW:].any(), f"rows came back: {still}"
        assert raw.strangers(emptied=stage.place.kind == "s3") == []

    ends = stage.run(
        [(cut_and_grow, (url, stage.rounds))]
        + [(write_meanwhile, (url, stage.rounds, n, writers, stage.seed)) for n in range(writers)],
        look,
    )
    no_failures(ends)
    return found


def resize(url, targets, number):
    with RatZarr(url) as table:
        for counts in targets:
            yield
            table.setRowCount(counts[number])
            yield "resized"


@scenario("all change the number of rows", 4)
def many_resizers(stage):
    url = stage.place.new()
    rows = 64
    names = [f"c{n}" for n in range(5)]
    size = len(stage.crew)
    counts = [stage.random.sample(range(rows // 3, rows * 2), size) for _ in range(stage.rounds)]
    with stage.table(url) as table:
        table.setRowCount(rows)
        for name in names:
            table.createColumn(name, "int32", chunkSize=CHUNK)
            table.writeBlock(name, np.full(rows, 1), 0)
    found = Counter()
    whole = [rows]
    phases = []

    def look(values):
        if values[0] is None:
            return
        targets = counts[len(phases)]
        phases.append(None)
        raw = stage.raw(url)
        assert raw.rows in targets, (raw.rows, targets)
        assert "RESIZE" not in raw.attributes, raw.attributes["RESIZE"]
        # Each took effect, in whatever order: what the lowest of them cut off is gone.
        whole[0] = min(whole[0], *targets)
        for name in names:
            column = raw.columns[name]
            assert column.length == raw.rows, (name, column.length, raw.rows)
            assert (column.values[: whole[0]] == 1).all(), column.values
            assert not column.values[whole[0] :].any(), f"rows came back: {column.values}"
        assert raw.strangers(emptied=stage.place.kind == "s3") == []
        found["table and columns have one of the counts"] += 1
        # Full again for the next phase.
        with stage.table(url) as table:
            for name in names:
                table.writeBlock(name, np.full(raw.rows, 1), 0)
        whole[0] = raw.rows

    ends = stage.run([(resize, (url, counts, n)) for n in range(size)], look)
    no_failures(ends)
    return found


def create_while_resizing(url, rounds, number):
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            if number == 0:
                table.setRowCount(30 + 7 * n % 31)
            else:
                table.createColumn(f"{number} {n}", "int16", chunkSize=CHUNK)
            yield None


@scenario("one changes the number of rows while others create columns", 4)
def create_and_resize(stage):
    url = stage.place.new()
    with stage.table(url) as table:
        table.setRowCount(20)
    stage.run_all(create_while_resizing, url, stage.rounds)
    raw = stage.raw(url)
    size = len(stage.crew)
    names = {f"{number} {n}" for number in range(1, size) for n in range(stage.rounds)}
    assert set(raw.columns) == names == set(raw.order)
    assert raw.rows == 30 + 7 * (stage.rounds - 1) % 31
    for name, column in raw.columns.items():
        assert not column.values.any()
        assert len(column.values) == raw.rows
        assert column.length == raw.rows, (name, column.length, raw.rows)
    return Counter({"all columns, with the table's row count": len(names)})
