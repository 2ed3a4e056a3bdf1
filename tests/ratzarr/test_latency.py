"""Requests to a server that is far away wait for it together, a bounded number of them.

The server answers 30 ms late, as one in another town does, and takes next to nothing of the
processor: moto takes more of it for a request than we do, in this very process. A real one can't be
had as cheap, on the two cores that it shares with us: there it answers later by so much that the ratio
of two times says what it would with a server of its own.
"""

import statistics
import threading
import time

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing.helpers import make
from tests.places import S3Place
from tests.servers.light import light_server

DELAY, DELAY_OF_REAL = 0.03, 0.25
BLOCKS, CHUNK, COLUMNS = 50, 4, 100
ATTEMPTS = 8
SAMPLE = 5
"""So many are done one after another; the rest would take as long each."""


@pytest.fixture(scope="module")
def light():
    with light_server() as server:
        yield server


@pytest.fixture
def far(request, moto, light, monkeypatch):
    """A place, and a function by which the test has its server move away, and come near again."""
    if request.config.getoption("--s3-server") != "moto":
        place, proxy = request.getfixturevalue("counted_s3")

        def move(*, away, times=1):
            proxy.delay = DELAY_OF_REAL * away

        yield place, move
        return
    for name, value in light.environment.items():
        monkeypatch.setenv(name, value)

    def move(*, away, times=1):
        light.far(DELAY * away * times)

    yield S3Place(light), move
    move(away=False)


def seconds(use):
    started = time.perf_counter()
    use()
    return time.perf_counter() - started


def one_by_one(use, count):
    """Return how long ``use(0)``, ``use(1)`` ... take, ``count`` of them one after another."""
    return statistics.median(seconds(lambda n=n: use(n)) for n in range(SAMPLE)) * count


def tenth(use, one):
    """Check that ``use(0)`` takes at most a tenth of the time ``one``; return how often it was tried.

    What else this computer does can get in the way once, or more often: then with 1, with 2, and so
    on. What is done one after another, or a few at a time, is too slow each time.
    """
    took = []
    for attempt in range(ATTEMPTS):
        took.append(seconds(lambda attempt=attempt: use(attempt)))
        if took[-1] <= one / 10:
            return len(took)
        time.sleep(0.2 * attempt)
    raise AssertionError(f"{took} s, one after another {one} s")


@pytest.mark.thorough
def test_many_chunks_of_a_column(far):
    """On a busy machine fifty requests cost their tenths of a second: the server is further away."""
    place, move = far
    values = np.arange(BLOCKS * CHUNK, dtype="int32")
    with make(place.new(), len(values), chunk=CHUNK, a=("int32",)) as table:
        table.writeBlock("a", values, 0)
        move(away=True, times=5)
        one = one_by_one(lambda n: table.readBlock("a", n * CHUNK, CHUNK), BLOCKS)
        tenth(lambda _: table.readBlock("a", 0, len(values)), one)
        one = one_by_one(lambda n: table.writeBlock("a", values[:CHUNK], n * CHUNK), BLOCKS)
        tenth(lambda _: table.writeBlock("a", -values, 0), one)
        move(away=False)
        assert table.readBlock("a", 0, len(values)).tolist() == (-values).tolist()


def test_many_columns_created(far):
    place, move = far
    with make(place.new(), CHUNK, chunk=CHUNK) as table:
        move(away=True, times=10)
        one = one_by_one(lambda n: table.createColumn(f"one {n}", "int32"), COLUMNS)
        tenth(lambda n: table.createColumns({f"{n} {m}": "int32" for m in range(COLUMNS)}), one)
        move(away=False)
        assert len(table.getColumnNames()) % COLUMNS == SAMPLE


@pytest.mark.thorough
def test_many_columns_written_and_read(far):
    """For the first time: with their documents, and an event in each log.

    To understand those takes longer than a request does: the server is further away.
    """
    place, move = far
    url = place.new()
    names = [[f"{n} {m}" for m in range(BLOCKS)] for n in range(ATTEMPTS)]
    with make(url, CHUNK, chunk=CHUNK) as table:
        table.createColumns(
            {name: "int32" for some in names for name in (*some, f"one {some[0]}")}
        )
        ones = [f"one {some[0]}" for some in names]
        move(away=True, times=10)
        one = one_by_one(lambda n: table.writeBlock(ones[n], np.ones(CHUNK), 0), BLOCKS)
        values = np.arange(CHUNK)
        times = tenth(lambda n: table.writeBlocks(dict.fromkeys(names[n], values), 0), one)
        flushed = seconds(table.flush)
        assert flushed <= times * one / 10, (flushed, times, one)
    with RatZarr(url, readOnly=True) as table:
        one = one_by_one(lambda n: table.readBlock(ones[n], 0, CHUNK), BLOCKS)
        tenth(lambda n: table.readBlocks(names[n], 0, CHUNK), one)
        move(away=False)
        found = table.readBlocks(names[0], 0, CHUNK)
        assert {tuple(block) for block in found.values()} == {(0, 1, 2, 3)}


@pytest.mark.parametrize("bound", [1, 6])
def test_requests_are_bounded_by_the_setting(counted_s3, monkeypatch, bound):
    """Those of one call, and those of many threads together."""
    place, proxy = counted_s3
    monkeypatch.setenv("RATZARR_REQUESTS", str(bound))
    rows = 20 * CHUNK
    url = place.new()
    with make(url, rows, chunk=CHUNK) as table:
        proxy.clear()
        # Long enough for so many to be under way at once on a busy computer, too.
        proxy.delay = 0.02 * bound
        table.createColumns(dict.fromkeys("abcdefgh", "int32"))
        table.writeBlocks(dict.fromkeys("abcd", np.arange(rows)), 0)
        table.readBlock("a", 0, rows)
        table.setRowCount(rows + 1)
        assert proxy.peak == bound
    # With connections to spare, which would bound them as well.
    options = {"config_kwargs": {"max_pool_connections": 50}}
    with RatZarr(url, readOnly=True, storageOptions=options) as table:
        table.openColumn("b")
        proxy.clear()
        threads = [
            threading.Thread(target=table.readBlock, args=("b", n * CHUNK, CHUNK))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.counts() == {"GET": 20}
        assert proxy.peak == bound


def test_there_is_a_connection_for_each_request(counted_s3, monkeypatch):
    place, proxy = counted_s3
    monkeypatch.setenv("RATZARR_REQUESTS", "40")
    rows = 120 * CHUNK
    with make(place.new(), rows, chunk=CHUNK, a=("int32",)) as table:
        table.writeBlock("a", np.arange(rows), 0)
        proxy.clear()
        proxy.delay = 0.3
        table.readBlock("a", 0, rows)
        assert proxy.peak == 40
