"""Scripts over tables on S3: what waits for what, and for how long."""

import time

import numpy as np
import pytest

from gdalbridge import ratapplier
from ratzarr import RatZarr

BLOCKS, CHUNK = 50, 1024
ROWS = BLOCKS * CHUNK


def script(info, inputs, outputs):
    outputs.out.total = inputs.a.x + inputs.b.y


@pytest.fixture
def far(counted_s3):
    """Two tables with a column each, on a server that answers 30 ms late."""
    place, proxy = counted_s3
    urls = {}
    for label, column in (("a", "x"), ("b", "y")):
        urls[label] = place.new()
        with RatZarr(urls[label]) as table:
            table.setChunkSize(CHUNK)
            table.setRowCount(ROWS)
            table.createColumn(column, np.float64)
            table.writeBlock(column, np.arange(ROWS) / 7, 0)
    urls["out"] = place.new()
    proxy.clear()
    proxy.delay = 0.03
    return place, proxy, urls


def tables(urls):
    inRats, outRats = ratapplier.RatAssociations(), ratapplier.RatAssociations()
    inRats.a = ratapplier.RatZarrHandle(urls["a"])
    inRats.b = ratapplier.RatZarrHandle(urls["b"])
    outRats.out = ratapplier.RatZarrHandle(urls["out"])
    return inRats, outRats


def test_fifty_blocks_take_an_eighth_of_the_time_of_their_requests(far):
    place, proxy, urls = far
    seconds = {}
    for delay in (0.0, 0.2):
        proxy.delay = delay
        proxy.clear()
        started = time.perf_counter()
        ratapplier.apply(script, *tables(urls | {"out": place.new()}))
        seconds[delay] = time.perf_counter() - started
    # What the machine itself takes is in both: the rest is waiting.
    assert seconds[0.2] - seconds[0.0] < 0.2 * len(proxy.requests) / 8
    print(seconds, len(proxy.requests))
