"""Packed by several threads, a Blosc buffer is the one that a single thread makes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
from numcodecs import blosc

from ratzarr.codecs.blosc import BloscBlocks, compress
from ratzarr.concurrency import REQUESTS_VARIABLE, Processors, run, run_together

WAYS = [
    (b"lz4", 5, 1, 2**15),
    (b"lz4", 5, 2, 2**15),
    (b"zstd", 1, 1, 2**18),
    (b"zstd", 2, 0, 2**18),
]
RNG = np.random.default_rng(5)
VALUES = {
    "noise": RNG.integers(0, 2**62, 600_011),
    "decimals": np.round(RNG.normal(12, 9, 600_011), 2),
    "codes": RNG.integers(0, 20, 1_200_001).astype("i4"),
    "short": RNG.integers(0, 300, 2_400_000).astype("i2"),
    "bytes": RNG.integers(0, 9, 4_800_123).astype("u1"),
    "zeros": np.zeros(600_000),
    "noise, then zeros": np.concatenate(
        [RNG.integers(0, 2**62, 300_000), np.zeros(300_000, "i8")]
    ),
    "complex": RNG.normal(0, 1, 300_001) + 1j,
    "three bytes": RNG.integers(0, 9, 4_800_000).astype("u1").view("V3"),
}


class Watched(Processors):
    """Processors that remember how many were taken at once."""

    def __init__(self, count):
        super().__init__(count)
        self.count, self.taken = count, []

    @contextmanager
    def take(self, most):
        with super().take(most) as threads:
            self.taken.append(threads)
            yield threads


@pytest.fixture(params=[2, 3, 5])
def processors(request):
    return Watched(request.param)


@pytest.mark.parametrize("name", VALUES)
def test_the_bytes_are_those_of_one_thread(name, processors):
    values = VALUES[name].view(f"V{VALUES[name].itemsize}")
    for way in WAYS:
        packed = b"".join(compress(values, *way, processors=processors))
        assert packed == blosc.compress(values, *way)
    assert (max(processors.taken) > 1) == (values.itemsize in (1, 2, 4, 8))
    assert set(processors.taken) <= set(range(1, processors.count + 1))
    assert processors.idle == processors.count
    if max(processors.taken) > 1:
        assert any(one.name.startswith("ratzarr-packing") for one in threading.enumerate())


@pytest.mark.parametrize("length", [2**22, 2**22 + 1, 5_000_000, 2**24 - 3])
def test_text(length, processors):
    data = RNG.integers(97, 110, length).astype("u1")
    block = -(-length // 2)
    whole = blosc.compress(data, b"zstd", 1, 0, block)
    assert b"".join(compress(data, b"zstd", 1, 0, block, processors=processors)) == whole
    assert processors.taken == [2]
    assert blosc.decompress(whole) == data.tobytes()


def test_blocks_of_the_parts_can_be_had_alone(processors):
    values = VALUES["decimals"]
    buffer = b"".join(compress(values.view("V8"), b"lz4", 5, 1, 2**15, processors=processors))
    blocks = BloscBlocks.of(memoryview(buffer), values.nbytes)
    for first, last in ((0, 1), (blocks.count // 2 - 1, blocks.count // 2 + 2), (3, blocks.count)):
        start, stop = blocks.bytes_of(first, last)
        out = np.empty(stop - start, np.uint8)
        blocks.unpack(first, last, out)
        assert out.tobytes() == values.tobytes()[start:stop]


def test_short_ones_are_packed_here(processors):
    for length, way in product((0, 1, 10_000, 65_535), WAYS):
        values = RNG.integers(0, 2**40, length).view("V8")
        packed = b"".join(compress(values, *way, processors=processors))
        assert packed == blosc.compress(values, *way)
    assert set(processors.taken) == {1}


def test_no_more_threads_than_idle_processors():
    three = Processors(3)
    with three.take(2) as first, three.take(5) as second:
        with three.take(5) as third:
            # Whoever finds none works nevertheless.
            assert (first, second, third) == (2, 1, 1)
        assert three.idle == 0
    assert three.idle == 3

    def taken_in_a_task():
        with three.take(4) as taken:
            return taken

    # A task of several that are run at once has company enough.
    assert run([taken_in_a_task] * 3) == [1, 1, 1]


def test_every_part_is_waited_for_where_one_fails():
    finished = []

    def fails():
        raise ValueError("no")

    def slow():
        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: None).result()
        finished.append(True)

    with pytest.raises(ValueError, match="no"):
        run_together([fails, slow, slow])
    assert finished == [True, True]
    with pytest.raises(ValueError, match="no"):
        run_together([slow, fails, slow])
    assert len(finished) == 4


def test_packing_does_not_wait_for_threads_that_wait_for_it(monkeypatch):
    """Whoever packs a chunk holds its lock, and others that want it may take all threads of a pool."""
    monkeypatch.setenv(REQUESTS_VARIABLE, "2")
    values, way = VALUES["decimals"].view("V8"), WAYS[3]
    lock, ready = threading.Lock(), threading.Barrier(3)

    def waits():
        ready.wait(timeout=30)
        with lock:
            return True

    with ThreadPoolExecutor(1) as other, lock:
        waiting = other.submit(run, [waits, waits])
        ready.wait(timeout=30)
        packed = other_thread(lambda: b"".join(compress(values, *way, processors=Processors(2))))
    assert packed == blosc.compress(values, *way)
    assert waiting.result(timeout=30) == [True, True]


def other_thread(task):
    """Run a task in another thread, for half a minute at most."""
    result = []
    thread = threading.Thread(target=lambda: result.append(task()), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert result, "it waits for ever"
    return result[0]
