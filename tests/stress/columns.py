"""Processes that hold on to a column that others delete and create anew.

Both kinds of column, ``int64`` and ``float64``, have chunks of the same size and shape: the bytes
of the one decode as the other without any error, to nonsense. Integers are written as whole
hundreds and floats as whole hundreds and a half, so that nonsense is seen.
"""

from collections import Counter

import numpy as np

from ratzarr import RatZarr
from tests.stress.processes import no_failures
from tests.stress.raw import RawTable
from tests.stress.scenario import scenario

ROWS, CHUNK = 24, 8


def plausible(values):
    """Return whether these are values that somebody wrote, of their own type."""
    if values.dtype == np.int64:
        return bool((values % 100 == 0).all() and (np.abs(values) < 1e6).all())
    if values.dtype == np.float64:
        return bool(np.isin(values % 100, [0.0, 0.5]).all() and (np.abs(values) < 1e6).all())
    return False


def generation(n):
    """Return the values of the n-th column of the name."""
    return np.full(ROWS, 100 * n) if n % 2 else np.full(ROWS, 100 * n + 0.5)


def recreate(table, n):
    if table.colExists("a"):
        table.deleteColumn("a")
    values = generation(n)
    table.createColumn("a", values.dtype, chunkSize=CHUNK)
    table.writeBlock("a", values, 0)


def hold_and_read(url):
    with RatZarr(url, readOnly=True) as table:
        seen = table.readBlock("a", 0, ROWS)
        yield
        # By now the column is another.
        try:
            seen = table.readBlock("a", 0, ROWS)
        except Exception as error:
            return "error", [kind.__name__ for kind in type(error).__mro__]
        return "values", seen


def hold_and_write(url, whole):
    table = RatZarr(url)
    values = np.full(ROWS, 100) if whole else np.full(3, 100)
    table.readBlock("a", 0, ROWS)
    table.writeBlock("a", np.full(ROWS, 100), 0)
    yield
    try:
        table.writeBlock("a", values, 0 if whole else 2)
        where = "flush"
        table.flush()
        where = "close"
        table.close()
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return "error", kinds
    return "silence", [where]


@scenario("a column is deleted and created again while others have it open", 3)
def stale(stage):
    found = Counter()
    for n in range(stage.rounds):
        url = stage.place.new()
        with stage.table(url) as table:
            table.setRowCount(ROWS)
            recreate(table, 1)

            def replace(_values, table=table):
                recreate(table, 2)

            half = len(stage.crew) // 2
            ends = stage.run(
                [(hold_and_read, (url,))] * half
                + [(hold_and_write, (url, number % 2 == n % 2)) for number in range(half)],
                replace,
            )
        no_failures(ends)
        for kind, value in ends[:half]:
            if kind == "values":
                if value.dtype == np.int64 and stage.place.kind == "s3":
                    # Chunks that a writer of the old column has just written, read as such.
                    assert (value == 100).all(), value
                    found["a reader of the old column sees its values"] += 1
                    continue
                assert value.dtype == np.float64, f"the old column's type: {value}"
                assert plausible(value), value
                found["a reader sees the new column"] += 1
            else:
                assert "RatZarrError" in value, value
                found["a reader gets an error"] += 1
        for kind, value in ends[half:]:
            assert kind == "error", f"a write into a column that is gone was lost in {value}"
            assert "ConflictError" in value, value
            found["a writer gets ChangedError"] += 1
        # Whatever was written: nobody reads integers as floats.
        with stage.table(url, readOnly=True) as table:
            try:
                values = table.readBlock("a", 0, ROWS)
            except Exception as error:
                assert type(error).__name__ == "DamagedError", error
                assert stage.place.kind == "s3", error
                found["chunks of the old column in the new one are an error"] += 1
            else:
                assert (values == generation(2)).all(), values
                found["the new column has its writer's values"] += 1
    return found


def generations(url, rounds):
    with RatZarr(url) as table:
        for n in range(rounds):
            recreate(table, n)
            if n == 0:
                yield
    return rounds


def look_all_the_while(url, rounds, number):
    yield
    seen = Counter()
    table = RatZarr(url)
    for _ in range(rounds * 6):
        try:
            values = table.readBlock("a", number % 4, ROWS - 5)
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if "RatZarrError" not in kinds:
                raise
            seen[f"a reader gets {type(error).__name__}"] += 1
            continue
        if not plausible(values):
            raise AssertionError(f"nobody wrote {values!r}")
        seen["a reader gets values of the right type"] += 1
    table.close()
    return seen


@scenario("one deletes and creates a column again and again while others read it", 12)
def reading_generations(stage):
    url = stage.place.new()
    with stage.table(url) as table:
        table.setRowCount(ROWS)
    ends = stage.run(
        [(generations, (url, stage.rounds))]
        + [(look_all_the_while, (url, stage.rounds, n)) for n in range(len(stage.crew) - 1)]
    )
    no_failures(ends)
    values = RawTable(stage.place.objects(url)).columns["a"].values
    assert (values == generation(stage.rounds - 1)).all(), values
    return sum(ends[1:], Counter())
