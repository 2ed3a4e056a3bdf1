import threading
import time
from contextlib import closing

import pytest

from ratzarr.pipeline import ReadAhead, write_behind


def test_order_and_values():
    pairs = ReadAhead(range(20), lambda n: n * n, threads=3, ahead=4)
    written = []
    assert list(write_behind(pairs, lambda n, v: written.append((n, v)))) == list(range(20))
    assert sorted(written) == [(n, n * n) for n in range(20)]


def test_a_bounded_number_of_blocks_is_in_memory():
    lock, alive, most = threading.Lock(), 0, 0

    def read(n):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return n

    def write(n, value):
        nonlocal alive
        time.sleep(0.002)
        with lock:
            alive -= 1

    list(write_behind(ReadAhead(range(200), read, ahead=2), write, threads=2, behind=3))
    assert most <= 2 + 1 + 3 + 1


@pytest.mark.parametrize(("each", "most"), [(0, 9), (10, 3), (30, 1), (1000, 1)])
def test_large_blocks_are_fewer(each, most):
    """As many as there is room for, but one at least."""
    lock, gate, now, peak = threading.Lock(), threading.Barrier(most), 0, 0

    def write(n, value):
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        # So many are under way at once, or this would never end.
        gate.wait(timeout=30)
        with lock:
            now -= 1

    pairs = ((n, n) for n in range(18))
    written = write_behind(pairs, write, threads=9, behind=9, size=lambda _: each, max_bytes=30)
    assert list(written) == list(range(18))
    assert peak == most


def test_what_is_written_is_told_of_before_the_rest_is_asked_for():
    asked = []

    def pairs():
        for n in range(20):
            asked.append(n)
            yield n, n
            # Long enough for the write of nothing.
            time.sleep(0.01)

    written = write_behind(pairs(), lambda *_: None, behind=20)
    assert next(written) == 0
    assert len(asked) < 10
    assert list(written) == list(range(1, 20))


def test_reading_ahead_begins_at_once_and_keeps_to_its_room():
    begun, gate = [], threading.Event()

    def read(n):
        begun.append(n)
        gate.wait(timeout=30)
        return n

    # Each takes 10 bytes, which nobody knows before the first has been read.
    reading = ReadAhead(
        range(30), read, threads=8, ahead=8, size=lambda _: 10, max_bytes=40, guess=8
    )  # fmt: skip
    with closing(reading):
        deadline = time.monotonic() + 30
        while len(begun) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(begun) == [0, 1, 2, 3, 4]
        gate.set()
        for n in range(20):
            assert next(reading) == (n, n)
            # Room for four, and one that is handed out; by the guess there was room for five.
            assert max(begun) <= max(5, n + 4)
        assert reading.waited > 0
    count = len(begun)
    time.sleep(0.02)
    assert len(begun) == count


@pytest.mark.parametrize(("each", "most"), [(0, 9), (10, 3), (16, 2), (30, 2), (1000, 2)])
def test_small_blocks_are_read_further_ahead(each, most):
    """Two, until one has come; then as many as there is room for, and two at least."""
    drawn, ahead = [], []
    items = (drawn.append(n) or n for n in range(30))
    sizes = {"size": lambda _: each, "max_bytes": 30}
    for n, value in ReadAhead(items, lambda n: -n, threads=9, ahead=9, **sizes):
        assert value == -n
        ahead.append(len(drawn) - n - 1)
    assert ahead[0] == 2
    assert max(ahead) == most


def test_a_block_that_is_larger_than_those_before():
    drawn, ahead = [], []
    items = (drawn.append(n) or n for n in range(40))
    for n, _ in ReadAhead(
        items, lambda n: n, threads=9, ahead=9, size=lambda n: 30 if n == 15 else 1, max_bytes=30
    ):
        ahead.append(len(drawn) - n - 1)
    assert max(ahead[:15]) == 9
    assert max(ahead[24:]) == 2


def test_of_blocks_of_another_kind_it_is_not_known_how_large_they_are():
    """Small ones came before: of what may be larger no more than two are there when the first comes."""
    kind = [n // 20 for n in range(40)]
    drawn, large_ahead = [], []
    items = (drawn.append(n) or n for n in range(40))
    for n, _ in ReadAhead(
        items,
        lambda n: n,
        threads=9,
        ahead=9,
        size=lambda n: 30 if kind[n] else 1,
        max_bytes=30,
        like=kind.__getitem__,
    ):
        if len(drawn) > 20:
            large_ahead.append(len(drawn) - max(n + 1, 20))
        elif n > 5:
            assert len(drawn) - n - 1 == 9 or len(drawn) == 20
    # Each counts for half of the room until one is there, and for all of it from then on.
    assert max(large_ahead) == 2


def test_reading_goes_on_while_writing():
    """No write ends before the next block is being read: one after another would never end."""
    begun = [threading.Event() for _ in range(8)]

    def read(n):
        begun[n].set()

    def write(n, value):
        if n + 1 < len(begun):
            assert begun[n + 1].wait(timeout=30)

    assert list(write_behind(ReadAhead(range(8), read), write, threads=2)) == list(range(8))


@pytest.mark.parametrize("bad", ["read", "write"])
def test_an_error_comes_through_and_stops_the_rest(bad):
    calls = []

    def work(kind, n):
        calls.append(kind)
        if kind == bad and n == 3:
            raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        list(
            write_behind(
                ReadAhead(range(1000), lambda n: work("read", n)), lambda n, _: work("write", n)
            )
        )
    count = len(calls)
    time.sleep(0.03)
    assert len(calls) == count < 100


def test_what_was_read_before_an_error_is_written():
    written = []

    def write(n, _):
        time.sleep(0.02)
        written.append(n)

    def items():
        yield from range(5)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(write_behind(ReadAhead(items(), lambda n: n, ahead=4), write, threads=1, behind=9))
    assert sorted(written) == list(range(5))

    def fails(n):
        if n == 5:
            raise KeyError("bad")

    written.clear()
    pairs = ReadAhead(range(20), fails, threads=3, ahead=8)
    with pytest.raises(KeyError, match="bad"):
        list(write_behind(pairs, write, threads=1, behind=9))
    assert sorted(written) == list(range(5))


def test_nothing_runs_on_when_the_consumer_stops():
    running = []
    with closing(ReadAhead(range(100), lambda n: (time.sleep(0.01), running.append(n)))) as pairs:
        next(iter(pairs))
    count = len(running)
    time.sleep(0.05)
    assert len(running) == count
