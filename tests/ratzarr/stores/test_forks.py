"""A table that was open when its process was forked: parent and child read and write on, at once.

What lies in the store in the end is judged by zarr-python.
"""

import multiprocessing
import os
import sys
import time
import warnings

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing.helpers import make, raw

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are forks elsewhere only"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
ROUNDS = 12
LIMIT = 60


def forked(work):
    """Run this in a forked child; return what waits for it, and asserts that it succeeded."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)

    def ended():
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "hangs"

    return ended


def test_parent_and_child_read_and_write_at_once(moto_s3):
    url = moto_s3.new()
    with make(url, 40, chunk=8, a=("int32",), b=("int32",)) as table:
        table.writeBlock("a", np.arange(40), 0)

        def child():
            for turn in range(ROUNDS):
                # A part of a chunk that the parent writes to as well.
                table.writeBlock("b", np.full(20, turn), 0)
                assert table.readBlock("a", 0, 40).tolist() == list(range(40))
                table.getRatAttributeMapping()["child"] = turn
            table.createColumn("c", "int8")
            table.close()

        ended = forked(child)
        for turn in range(ROUNDS):
            table.writeBlock("b", np.full(20, 100 + turn), 20)
            assert table.readBlock("a", 0, 40).tolist() == list(range(40))
            table.getRatAttributeMapping()["parent"] = turn
        assert ended() == 0
        table.refresh()
        assert table.getColumnNames() == ["a", "b", "c"]
        attributes = table.getRatAttributeMapping().asdict()
        assert (attributes["child"], attributes["parent"]) == (ROUNDS - 1, ROUNDS - 1)
    assert raw(moto_s3, url, "b").tolist() == [ROUNDS - 1] * 20 + [99 + ROUNDS] * 20


def test_readers_of_multiprocessing(moto_s3):
    """The table is inherited by workers that were forked."""
    url = moto_s3.new()
    with make(url, 40, chunk=8, a=("int32",)) as table:
        table.writeBlock("a", np.arange(40), 0)
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()

        def work(start):
            queue.put((start, int(table.readBlock("a", start, 4).sum())))

        workers = [context.Process(target=work, args=(start,)) for start in range(0, 40, 10)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(LIMIT)
            assert worker.exitcode == 0
        found = dict(queue.get() for _ in workers)
        assert found == {start: 4 * start + 6 for start in range(0, 40, 10)}


def test_what_waits_is_written_by_the_parent_only(moto_s3):
    url = moto_s3.new()
    make(url, 16, chunk=8, a=("int32",)).close()
    table = RatZarr(url, writeBuffer=2**20)
    table.writeBlock("a", [1, 2], 0)

    def child():
        assert table.readBlock("a", 0, 2).tolist() == [1, 2]
        # If it had the parent's rows as well, this would write them, too.
        with RatZarr(url) as other:
            other.writeBlock("a", [70, 80], 0)
        table.writeBlock("a", [9], 8)
        table.close()

    assert forked(child)() == 0
    table.writeBlock("a", [3], 2)
    table.close()
    assert raw(moto_s3, url, "a").tolist() == [70, 80, 3] + [0] * 5 + [9] + [0] * 7


def test_a_child_of_a_child(moto_s3):
    url = moto_s3.new()
    with make(url, 8, a=("int32",)) as table:

        def grandchild():
            table.writeBlock("a", [3], 2)

        def child():
            table.writeBlock("a", [1], 0)
            assert forked(grandchild)() == 0
            table.writeBlock("a", [2], 1)

        assert forked(child)() == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            assert table.readBlock("a", 0, 3).tolist() == [1, 2, 3]
