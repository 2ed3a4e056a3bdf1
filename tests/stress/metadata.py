"""Many processes create and delete columns, set attributes and write to the log, at once."""

from collections import Counter

import numpy as np

from ratzarr import RatZarr
from tests.stress.processes import Failure, no_failures
from tests.stress.raw import check
from tests.stress.scenario import scenario


def create_store(url, number):
    yield
    with RatZarr(url) as table:
        table.getRatAttributeMapping()[f"by {number}"] = number


@scenario("all create the same store", 6)
def one_store(stage):
    for _ in range(stage.rounds):
        url = stage.place.new()
        stage.run_all(create_store, url)
        raw = stage.raw(url)
        check(raw, 0)
        for number in range(len(stage.crew)):
            assert raw.attributes[f"by {number}"] == number
        assert raw.strangers() == []
    return Counter({"one table, which all have open": stage.rounds})


def create_columns(url, count, number):
    with RatZarr(url) as table:
        yield
        for column in range(count):
            table.createColumn(f"c{number} {column}", "int32")


@scenario("each creates other columns", 2)
def different_columns(stage):
    for _ in range(stage.rounds):
        url = stage.place.new()
        with stage.table(url) as table:
            table.setRowCount(3)
        stage.run_all(create_columns, url, 4)
        names = [f"c{n} {column}" for n in range(len(stage.crew)) for column in range(4)]
        raw = stage.raw(url)
        check(raw, 3, **dict.fromkeys(names, np.zeros(3, "i4")))
        assert sorted(raw.order) == sorted(names), "the order of columns is not complete"
        with stage.table(url) as table:
            assert table.getColumnNames() == raw.order
    return Counter({"all columns, in the order of columns too": stage.rounds})


def create_column(url, rounds, dtypes, number):
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            try:
                table.createColumn(f"c{n}", dtypes[number % len(dtypes)])
            except Exception as error:
                yield type(error).__name__
            else:
                yield "created"


@scenario("all create the same column", 5)
def same_column(stage):
    url = stage.place.new()
    with stage.table(url) as table:
        table.setRowCount(3)
    dtypes = ["int16", "int32", "float32", "float64", "bool", "uint8", "S3", "datetime64[s]"]
    said = []
    ends = stage.run(
        [(create_column, (url, stage.rounds, dtypes, n)) for n in range(len(stage.crew))],
        lambda values: said.append(values) if values[0] is not None else None,
    )
    no_failures(ends)
    raw = stage.raw(url)
    assert len(said) == stage.rounds
    for n, values in enumerate(said):
        assert Counter(values) == {"created": 1, "ColumnExistsError": len(values) - 1}
        winner = dtypes[values.index("created") % len(dtypes)]
        assert raw.columns[f"c{n}"].values.dtype == np.dtype(winner)
    assert sorted(raw.order) == sorted(raw.columns) == sorted(f"c{n}" for n in range(stage.rounds))
    return Counter({"one created it, the others got ColumnExistsError": stage.rounds})


def delete_or_create(url, rounds, number):
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            if number % 2:
                table.createColumn(f"new {n} {number}", "int8")
            else:
                table.deleteColumn(f"old {n} {number}")


@scenario("some delete columns while others create some", 3)
def deletions(stage):
    url = stage.place.new()
    crew = range(len(stage.crew))
    with stage.table(url) as table:
        table.setRowCount(2)
        for n in range(stage.rounds):
            for number in crew[::2]:
                table.createColumn(f"old {n} {number}", "int8")
                table.writeBlock(f"old {n} {number}", [1, 2], 0)
    stage.run_all(delete_or_create, url, stage.rounds)
    raw = stage.raw(url)
    left = [f"new {n} {number}" for n in range(stage.rounds) for number in crew[1::2]]
    check(raw, 2, **dict.fromkeys(left, np.zeros(2, "i1")))
    assert sorted(raw.order) == sorted(left)
    assert raw.strangers() == []
    return Counter({"exactly the expected columns": stage.rounds})


def set_attributes(url, rounds, number):
    with RatZarr(url) as table:
        own, columns = table.getRatAttributeMapping(), table.getColumnAttributeMapping("a")
        yield
        for n in range(rounds):
            own[f"{number} {n}"] = [number, n]
            columns[f"{number} {n}"] = {"of": number, "n": n}


@scenario("all set attributes of the table and of one column", 4)
def attributes(stage):
    url = stage.place.new()
    with stage.table(url) as table:
        table.createColumn("a", "int8")
    stage.run_all(set_attributes, url, stage.rounds)
    raw = stage.raw(url)
    column = raw.columns["a"].attributes
    for number in range(len(stage.crew)):
        for n in range(stage.rounds):
            assert raw.attributes[f"{number} {n}"] == [number, n]
            assert column[f"{number} {n}"] == {"of": number, "n": n}
    return Counter({"none lost": 2 * len(stage.crew) * stage.rounds})


def log_events(url, rounds, number):
    yield
    for n in range(rounds):
        with RatZarr(url) as table:
            table.writeBlock("a", [number], number)
            table.writeBlock("a", [n], number)


@scenario("all write to the modification log of one column", 4)
def log(stage):
    url = stage.place.new()
    size = len(stage.crew)
    with stage.table(url) as table:
        table.setRowCount(size)
        table.createColumn("a", "int32")
    stage.run_all(log_events, url, stage.rounds)
    raw = stage.raw(url)
    check(raw, size, a=np.full(size, stage.rounds - 1, "i4"))
    events = raw.columns["a"].attributes["MODIFICATIONLOG"]
    assert len(events) == size * stage.rounds, f"{len(events)} events"
    return Counter({"exactly one event for each instance": len(events)})


def set_chunk_size(url, rounds, number):
    with RatZarr(url) as table:
        for n in range(rounds):
            yield
            table.setChunkSize(100 * n + number + 1)


@scenario("all set the chunk size", 4)
def chunk_size(stage):
    url = stage.place.new()
    with stage.table(url) as table:
        table.setRowCount(5)
        table.getRatAttributeMapping()["mine"] = 1
        table.createColumn("before", "int8", chunkSize=3)
    stage.run_all(set_chunk_size, url, stage.rounds)
    raw = stage.raw(url)
    last = 100 * (stage.rounds - 1)
    assert raw.attributes["CHUNKSIZE"] in range(last + 1, last + len(stage.crew) + 1)
    assert (raw.rows, raw.attributes["mine"], raw.columns["before"].chunk_rows) == (5, 1, 3)
    with stage.table(url) as table:
        table.createColumn("after", "int8")
        assert table.getColumnChunkSize("after") == raw.attributes["CHUNKSIZE"]
    return Counter({"one of the values that were set; nothing else changed": stage.rounds})


def whole_table(url, number):
    """Do all of it at once, to one store."""
    yield
    with RatZarr(url) as table:
        if table.getRowCount() < 16:
            table.setRowCount(16)
        name = f"c{number}"
        table.createColumn(name, "int64", attributes={"of": number})
        table.refresh()
        table.writeBlock(name, np.arange(16) + 100 * number, 0)
        table.getRatAttributeMapping()[name] = number


@scenario("all build one table from nothing: rows, columns, values, attributes", 3)
def from_nothing(stage):
    for _ in range(stage.rounds):
        url = stage.place.new()
        ends = stage.run([(whole_table, (url, n)) for n in range(len(stage.crew))])
        failures = [end for end in ends if isinstance(end, Failure)]
        assert not failures, failures[0].trace
        raw = stage.raw(url)
        numbers = range(len(stage.crew))
        check(raw, 16, **{f"c{n}": np.arange(16) + 100 * n for n in numbers})
        assert all(raw.attributes[f"c{n}"] == n for n in numbers)
        assert sorted(raw.order) == sorted(f"c{n}" for n in numbers)
    return Counter({"the whole table, exactly": stage.rounds})
