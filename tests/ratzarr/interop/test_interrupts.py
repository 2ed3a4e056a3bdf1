"""Ctrl-C in a script that reads a table: the process ends."""

import subprocess
import sys

import numpy as np
import pytest

from ratzarr import RatZarr

ROWS = 400_000

SCRIPT = """
import faulthandler, signal, sys, threading
# A shell's background jobs ignore SIGINT, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
faulthandler.dump_traceback_later(60, exit=True)
import ratzarr
rat = ratzarr.RatZarr(sys.argv[1], readOnly=True)
start = threading.Thread.start

def interrupted(self):
    start(self)
    if self.name.startswith(sys.argv[3]) and threading.current_thread() is threading.main_thread():
        # Ctrl-C comes while Python waits for the new thread.
        threading.Thread.start = start
        signal.raise_signal(signal.SIGINT)

threading.Thread.start = interrupted
exec(sys.argv[2])
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("interrupts") / "t.rat.zarr"
    with RatZarr(place, newRowCount=ROWS, newChunkSize=20_000) as table:
        table["a"] = np.arange(ROWS)
        table["b"] = np.arange(ROWS)
    return place


@pytest.mark.parametrize(
    ("work", "thread"),
    [
        ("rat.readBlock('a', 0, len(rat))", "ratzarr"),
        ("rat.readBlocks(['a', 'b'], 0, len(rat))", "ratzarr"),
        ("rat.to_arrow()", "ratzarr"),
        ("rat.to_arrow()", "read-ahead"),
        ("for batch in rat.scan().to_batches(): pass", "read-ahead"),
    ],
)
def test_an_interrupt_while_a_thread_starts_ends_the_process(path, work, thread):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, work, thread],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Timeout" not in done.stderr, done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_after_an_interrupt_the_table_is_read_as_before(path):
    work = """
try:
    rat.readBlock("a", 0, len(rat))
except KeyboardInterrupt:
    assert rat.readBlock("a", 0, len(rat)).sum() == sum(range(len(rat)))
    print("read")
"""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, work, "ratzarr"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("read\n", "")
