"""Many processes write rows of one column at once."""

from collections import Counter

import numpy as np

from ratzarr import RatZarr
from tests.stress.processes import no_failures
from tests.stress.raw import check, same
from tests.stress.scenario import scenario


def write_in_one_chunk(url, rounds, rows_each, number):
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            start = number * rows_each
            values = np.arange(start, start + rows_each) + 1000 * n
            # In pieces, so that there are more writers than processes.
            for first in range(0, rows_each, 3):
                table.writeBlock("a", values[first : first + 3], start + first)


@scenario("each writes other rows of one chunk", 6)
def one_chunk(stage):
    url = stage.place.new()
    rows = 7 * len(stage.crew)
    with stage.table(url) as table:
        table.setRowCount(rows)
        table.createColumn("a", "int64", chunkSize=rows)
    done = []

    def look(_values):
        if done:
            check(stage.raw(url), rows, a=np.arange(rows) + 1000 * (len(done) - 1))
        done.append(None)

    ends = stage.run(
        [(write_in_one_chunk, (url, stage.rounds, 7, n)) for n in range(len(stage.crew))], look
    )
    no_failures(ends)
    check(stage.raw(url), rows, a=np.arange(rows) + 1000 * (stage.rounds - 1))
    return Counter({"every row of every round": rows * stage.rounds})


def write_chunk_or_part(url, rounds, rows, number):
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            stamp = 100 * (n + 1) + number
            if number == 0:
                table.writeBlock("a", np.full(rows, stamp), 0)
            else:
                table.writeBlock("a", np.full(3, stamp), 3 * number)


@scenario("one writes a whole chunk while others write three of its rows each", 10)
def whole_against_parts(stage):
    url = stage.place.new()
    rows = 3 * len(stage.crew) + 2
    with stage.table(url) as table:
        table.setRowCount(rows)
        table.createColumn("a", "int64", chunkSize=rows)
    found = Counter()
    rounds = []
    kept = [0]

    def look(_values):
        if rounds:
            found.update(judge(len(rounds)))
        rounds.append(None)

    def judge(n):
        values = stage.raw(url).columns["a"].values
        whole = 100 * n
        outer = set(values[:3]) | set(values[-2:])
        if stage.place.label.lower() == "ceph" and outer == {kept[-1]}:
            # An unconditional write that a conditional one has overtaken: see the limits in
            # docs/reliability.md. The parts are all there.
            for number in range(1, len(stage.crew)):
                own = set(values[3 * number : 3 * number + 3])
                assert own == {whole + number}, f"round {n}, process {number}: {values}"
            yield "the server lost the whole chunk"
            return
        assert outer == {whole}, f"round {n}: {values}"
        kept.append(whole)
        for number in range(1, len(stage.crew)):
            own = set(values[3 * number : 3 * number + 3])
            # Whole or part, whoever came last; never rows of a round before, never a mixture.
            assert own in ({whole}, {whole + number}), f"round {n}, process {number}: {values}"
            is_part = own == {whole + number}
            yield f"the {'part' if is_part else 'whole chunk'} was written last"

    ends = stage.run(
        [(write_chunk_or_part, (url, stage.rounds, rows, n)) for n in range(len(stage.crew))], look
    )
    no_failures(ends)
    found.update(judge(stage.rounds))
    return found


def write_across_chunks(url, rounds, rows_each, seed, number):
    pick = np.random.default_rng([seed, number])
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            start, stop = number * rows_each, (number + 1) * rows_each
            values = np.arange(start, stop) * 1000 + n
            first = 0
            while first < rows_each:
                count = int(pick.integers(1, rows_each))
                table.writeBlock("a", values[first : first + count], start + first)
                table.writeBlock("t", (values[first : first + count]).astype(str), start + first)
                first += count


@scenario("each writes other rows of one column, across its chunks", 3)
def many_chunks(stage):
    url = stage.place.new()
    rows = 61 * len(stage.crew)
    with stage.table(url) as table:
        table.setRowCount(rows)
        table.createColumn("a", "int64", chunkSize=40)
        table.createColumn("t", str, chunkSize=90)
    stage.run_all(write_across_chunks, url, stage.rounds, 61, stage.seed)
    values = np.arange(rows) * 1000 + stage.rounds - 1
    check(stage.raw(url), rows, a=values, t=values.astype(np.dtypes.StringDType()))
    with stage.table(url, readOnly=True) as table:
        assert same(table.readBlock("a", 0, rows), values)
    return Counter({"every row of every round": 2 * rows * stage.rounds})


def write_blocks(url, chunk, number, size):
    """A bulk writer's share: every size-th chunk."""
    with RatZarr(url) as table:
        yield
        rows = table.getRowCount()
        for start in range(number * chunk, rows, size * chunk):
            block = np.arange(start, min(start + chunk, rows))
            table.writeBlocks({"a": block, "b": block / 7}, start)
        table.flush()


@scenario("all fill two columns together, each writing some whole chunks", 2)
def bulk(stage):
    for _ in range(stage.rounds):
        url = stage.place.new()
        rows = 20 * 4 * len(stage.crew) - 7
        with stage.table(url) as table:
            table.setRowCount(rows)
            table.setChunkSize(20)
            for name, dtype in (("a", "int64"), ("b", "float64")):
                table.createColumn(name, dtype, complete=False)
            size = len(stage.crew)
            ends = stage.run([(write_blocks, (url, 20, n, size)) for n in range(size)])
            no_failures(ends)
            assert not any(column.complete for column in stage.raw(url).columns.values())
            for name in "ab":
                table.setComplete(name)
        check(stage.raw(url), rows, a=np.arange(rows), b=np.arange(rows) / 7)
    return Counter({"every row, and complete": 2 * rows * stage.rounds})
