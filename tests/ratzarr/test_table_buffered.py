"""Tables whose small writes wait in a buffer: the suite, and when what waits is written."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from ratzarr import ArgumentError, ChangedError, DamagedError, RatZarr, RatZarrError
from ratzarr.testing.helpers import make
from tests.processes import LIMIT
from tests.ratzarr.conformance import TableConformance

ROWS, CHUNK = 35, 10


class TestBufferedTablesOnLocalDisk(TableConformance):
    examples = 20

    @pytest.fixture
    def place(self, local, monkeypatch):
        monkeypatch.setenv("RATZARR_WRITE_BUFFER", "on")
        return local


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "t.rat.zarr"
    make(path, ROWS, chunk=CHUNK, a=("int32",), s=("str",)).close()
    return path


@pytest.fixture
def table(path):
    with RatZarr(path, writeBuffer=True) as table:
        yield table


def stored(path, name="a"):
    """Return what zarr-python reads."""
    return zarr.open_array(path / "RAT" / name, mode="r")[:].tolist()


def chunks(path, name="a"):
    """Return which chunks are there."""
    return sorted(file.name for file in (path / "RAT" / name).glob("c/*"))


def test_chunks_are_written_when_they_are_full_in_any_order(path, table):
    whole = np.arange(100, 100 + ROWS)
    for start in (5, 15, 0):
        table.writeBlock("a", whole[start : start + 5], start)
        assert chunks(path) == (["0"] if start == 0 else [])
    # The last one has fewer rows.
    table.writeBlock("a", whole[30:], 30)
    assert chunks(path) == ["0", "3"]
    # Over the border of two chunks: one is full, of the other a part waits.
    table.writeBlock("a", whole[10:24], 10)
    assert chunks(path) == ["0", "1", "3"]
    table.flush()
    assert stored(path) == [*whole[:24], *[0] * 6, *whole[30:]]


def test_a_whole_chunk_takes_the_place_of_what_waits(path, table):
    table.writeBlock("a", [1, 2], 3)
    table.writeBlock("a", np.arange(10), 0)
    assert stored(path)[:10] == list(range(10))
    table.writeBlock("a", [7], 0)
    table.flush()
    assert stored(path)[:10] == [7, *range(1, 10)]


def test_a_read_shows_what_waits_and_writes_nothing(path, table):
    with RatZarr(path) as other:
        other.writeBlock("a", np.arange(100, 100 + ROWS), 0)
    expected = np.arange(100, 100 + ROWS)
    for start, length in ((0, 1), (8, 4), (12, 1), (25, 9), (9, 2)):
        values = np.arange(length) - start
        table.writeBlock("a", values, start)
        expected[start : start + length] = values
        for first, stop in ((0, ROWS), (start, start + length), (9, 11), (5, 14), (19, 35)):
            assert (
                table.readBlock("a", first, stop - first).tolist() == expected[first:stop].tolist()
            )
    table.writeBlock("s", ["größe"], 11)
    assert table.readBlocks(["s", "a"], 10, 3)["s"].tolist() == ["", "größe", ""]
    for read in (table.readText, table.readUtf8):
        assert read("s", 10, 3) is None
        assert read("s", 20, 3) is not None
    assert stored(path) == list(range(100, 100 + ROWS))
    assert chunks(path, "s") == []
    table.flush()
    assert stored(path) == expected.tolist()
    assert stored(path, "s")[11] == "größe"
    assert table.readText("s", 11, 1)[0].tolist() == ["größe".encode()]
    assert table.readUtf8("s", 11, 1)[0][1].tobytes() == "größe".encode()


def test_a_read_beside_what_waits_sees_what_others_write(path, table):
    table.writeBlock("a", [5], 4)
    with RatZarr(path) as other:
        for value in range(1, 4):
            other.writeBlock("a", [value, value], 3)
            assert table.readBlock("a", 3, 2).tolist() == [value, 5]


def test_what_waits_for_a_column_that_was_replaced_is_not_shown_as_of_the_new_one(path):
    table = RatZarr(path, writeBuffer=True)
    table.writeBlock("a", [5], 4)
    with RatZarr(path) as other:
        other.deleteColumn("a")
        other.createColumn("a", "float64")
    # A chunk that is not there: so the column is looked at again.
    assert table.readBlock("a", 0, 10).tolist() == [0.0] * 10
    with pytest.raises(ChangedError, match="'a'") as caught:
        table.flush()
    assert "1 rows of column 'a'" in "".join(caught.value.__notes__)
    table.close()


def test_where_writing_is_slow_rows_wait_longer(counted_s3):
    """A program that goes on changing a chunk is not kept waiting for most of the time."""
    place, proxy = counted_s3
    url = place.new()
    make(url, 100, chunk=100, a=("int32",)).close()
    with RatZarr(url, writeBuffer=True) as table:
        table.readBlock("a", 0, 1)
        proxy.clear()
        proxy.delay = 0.5
        began, row = time.monotonic(), 0
        while time.monotonic() < began + 6:
            table.writeBlock("a", [row], row % 99)
            row += 1
            time.sleep(0.01)
        proxy.delay = 0
        writes = sum("/c/" in one.key and one.method == "PUT" for one in proxy.requests)
    # Four in these six seconds, if each came a second after the one before.
    assert 1 <= writes <= 3
    found = place.open(url)["RAT/a"][:99].tolist()
    assert sorted(found) == list(range(max(0, row - 99), row)) + [0] * max(0, 99 - row)


def test_nothing_waits_after_the_end_of_a_program(path):
    program = """
import atexit, sys
last = []
atexit.register(lambda: last[0].writeBlock("a", [7], 7))
from ratzarr import RatZarr
last.append(RatZarr(sys.argv[1], writeBuffer=True))
last[0].writeBlock("a", [5], 5)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(path)], check=True)
    assert stored(path)[:10] == [0, 0, 0, 0, 0, 5, 0, 7, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.flush(),
        lambda table: table.refresh(),
        lambda table: table.setRowCount(ROWS + 1),
        lambda table: table.setRowCount(ROWS - 1),
        lambda table: table.setChunkSize(7),
        lambda table: table.setComplete("a"),
        lambda table: table.createColumn("b", "i4"),
        lambda table: table.createColumns({"b": "i4"}),
        lambda table: table.getMissingRows("a"),
        lambda table: table.getRatAttributeMapping().update(x=1),
        lambda table: table.getColumnAttributeMapping("s").update(x=1),
        lambda table: table.bytesWritten("a"),
        lambda table: table.close(),
        lambda table: table.__exit__(None, None, None),
        lambda table: table.__exit__(ValueError, ValueError(), None),
    ],
    ids=range(15),
)
def test_what_writes_what_waits(path, change):
    table = RatZarr(path, writeBuffer=True)
    table.writeBlock("a", [5], 4)
    assert chunks(path) == []
    change(table)
    assert stored(path)[:6] == [0, 0, 0, 0, 5, 0]


def test_others_see_it_within_a_second_or_so(path, table):
    table.writeBlock("a", [5], 4)
    began = time.monotonic()
    while not chunks(path):
        assert time.monotonic() < began + LIMIT
        time.sleep(0.02)
    assert time.monotonic() > began + 0.5
    assert stored(path)[4] == 5


def test_what_others_write_into_the_same_chunk_stays(path, table):
    with RatZarr(path) as other:
        table.writeBlock("a", [1, 1], 0)
        table.writeBlock("a", [1], 5)
        other.writeBlock("a", [2, 2, 2, 2], 2)
        other.writeBlock("a", [2], 8)
        table.writeBlock("a", [3], 9)
        table.flush()
    assert stored(path)[:10] == [1, 1, 2, 2, 2, 1, 0, 0, 2, 3]


def test_the_buffer_is_bounded(path):
    # A chunk of 10 rows takes 50 bytes: four for each value, one that says that it has come.
    with RatZarr(path, writeBuffer=100) as table:
        table.writeBlock("a", [1], 0)
        table.writeBlock("a", [1], 10)
        assert chunks(path) == []
        table.writeBlock("a", [1], 5)
        table.writeBlock("a", [1], 20)
        assert chunks(path) == ["1"]
    with RatZarr(path, writeBuffer=49) as table:
        table.writeBlock("a", [2], 0)
        assert stored(path)[0] == 2


def test_texts_count_by_their_length(path):
    with RatZarr(path, writeBuffer=100_000) as table:
        table.writeBlock("s", ["x" * 99_900], 0)
        assert chunks(path, "s") == []
        table.writeBlock("s", ["x"], 10)
        assert chunks(path, "s") == ["0"]
    assert stored(path, "s")[:11] == ["x" * 99_900, *[""] * 9, "x"]


def test_values_are_refused_at_once(path, table):
    for block, start in (([1.5], 0), ([2**40], 0), ([1], ROWS), ([[1, 2]], 0)):
        with pytest.raises(RatZarrError):
            table.writeBlock("a", block, start)
    with pytest.raises(RatZarrError):
        table.writeBlocks({"a": [1], "s": [2]}, 0)
    table.flush()
    assert chunks(path) == []


def test_the_block_may_be_changed_afterwards(path, table):
    block = np.array([1, 2, 3], "i4")
    table.writeBlock("a", block, 0)
    block[:] = 9
    table.flush()
    assert stored(path)[:3] == [1, 2, 3]


def test_what_can_not_be_written_goes_on_waiting(path):
    with RatZarr(path) as table:
        table.writeBlock("a", np.arange(10), 0)
    file = path / "RAT" / "a" / "c" / "0"
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    table = RatZarr(path, writeBuffer=True)
    table.writeBlock("a", [50], 5)
    with pytest.raises(DamagedError, match="c/0"):
        table.readBlock("a", 0, 1)
    for attempt in (table.flush, table.close, table.refresh):
        with pytest.raises(DamagedError, match="c/0") as caught:
            attempt()
        assert "1 rows of column 'a'" in "".join(caught.value.__notes__)
    # By our own thread as well.
    time.sleep(1.5)
    file.write_bytes(good)
    table.close()
    assert stored(path)[:10] == [0, 1, 2, 3, 4, 50, 6, 7, 8, 9]


def test_what_has_no_place_any_more_is_given_up_with_an_error(path):
    table = RatZarr(path, writeBuffer=True)
    with RatZarr(path) as other:
        for wait in (0, 1.6):
            table.writeBlock("a", [5], 0)
            other.deleteColumn("a")
            other.createColumn("a", "int32")
            # In time for our own thread, which can tell nobody: so it is told here.
            time.sleep(wait)
            with pytest.raises(ChangedError, match="'a'") as caught:
                table.flush()
            assert "1 rows of column 'a'" in "".join(caught.value.__notes__)
            assert chunks(path) == []
            table.flush()
    table.writeBlock("a", [6], 0)
    table.close()
    assert stored(path)[0] == 6


def test_rows_of_a_column_that_is_deleted_go_with_it(path, table):
    table.writeBlock("a", [5], 0)
    table.deleteColumn("a")
    table.flush()
    assert not (path / "RAT" / "a").exists()


def test_threads(path):
    rows, chunk, step = 4000, 200, 7
    make(path.parent / "u", rows, chunk=chunk, a=("int64",)).close()
    expected = np.random.default_rng(1).integers(1, 10**9, rows)
    starts = np.random.default_rng(2).permutation(np.arange(0, rows, step))
    # So little that rows are written all the time, while others come.
    with RatZarr(path.parent / "u", writeBuffer=5 * chunk * 9) as table:

        def work(mine):
            for start in mine:
                table.writeBlock("a", expected[start : start + step], int(start))
                if start % 5 == 0:
                    got = table.readBlock("a", int(start), step)
                    assert got.tolist() == expected[start : start + step].tolist()

        threads = [threading.Thread(target=work, args=[starts[n::8]]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stored(path.parent / "u") == expected.tolist()


@pytest.mark.parametrize("value", ["-1", "yes", "1.5", "1e9", "64M"])
def test_a_variable_that_is_no_size(path, monkeypatch, value):
    monkeypatch.setenv("RATZARR_WRITE_BUFFER", value)
    with pytest.raises(ArgumentError, match="RATZARR_WRITE_BUFFER"):
        RatZarr(path)
    RatZarr(path, readOnly=True)


@pytest.mark.parametrize("value", [-1, 1.5, "on"])
def test_an_argument_that_is_no_size(path, value):
    with pytest.raises(ArgumentError, match="writeBuffer"):
        RatZarr(path, writeBuffer=value)


@pytest.mark.parametrize(
    ("variable", "argument", "waits"),
    [("on", None, True), ("100000", None, True), ("on", False, False), ("off", None, False),
     ("0", None, False), ("", None, False), ("", True, True), ("off", 100_000, True)],
)  # fmt: skip
def test_who_asks_for_it(path, monkeypatch, variable, argument, waits):
    monkeypatch.setenv("RATZARR_WRITE_BUFFER", variable)
    with RatZarr(path, writeBuffer=argument) as table:
        table.writeBlock("a", [1], 0)
        assert chunks(path) == ([] if waits else ["0"])


def test_on_s3_a_full_chunk_is_one_request(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    make(url, 30, chunk=10, a=("int32",)).close()
    with RatZarr(url, writeBuffer=True) as table:
        table.writeBlock("a", [1], 0)
        proxy.clear()
        for start in (20, 10, 25, 15):
            table.writeBlock("a", np.full(5, start), start)
        found = [(request.method, request.key[-3:]) for request in proxy.requests]
        assert sorted(found) == [("PUT", "c/1"), ("PUT", "c/2")]
    assert place.open(url)["RAT/a"][:].tolist() == [
        1, *[0] * 9, *[10] * 5, *[15] * 5, *[20] * 5, *[25] * 5,
    ]  # fmt: skip


# ---- every end of a program


PROGRAM = """
import gc, os, sys
import numpy as np
from ratzarr import RatZarr
path, how = sys.argv[1:]

def write():
    table = RatZarr(path)
    for start in (1, 2, 11, 4):
        table.writeBlock("a", [start], start)
    return table

def in_child():
    kept = write()
    globals()["kept"] = kept

if how == "end":
    kept = write()
elif how == "error":
    kept = write()
    raise ValueError("of the program")
elif how == "exit":
    kept = write()
    sys.exit(0)
elif how == "dropped":
    write()
    # Nothing of what comes at an ordinary end.
    os._exit(0)
elif how == "collected":
    kept = [write()]
    kept.append(kept)
    del kept
    gc.collect()
    import time; time.sleep(0.8)
    os._exit(0)
elif how == "multiprocessing":
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=in_child)
    process.start()
    process.join()
    os._exit(process.exitcode)
elif how == "fork":
    kept = write()
    child = os.fork()
    if not child:
        # What its parent wrote it sees, and has nothing of it to write again.
        assert kept.readBlock("a", 0, 3).tolist() == [0, 1, 2]
        kept.writeBlock("a", [4], 4)
        kept.close()
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    "how",
    [
        "end",
        "error",
        "exit",
        "multiprocessing",
        "fork",
        *(pytest.param(one, marks=pytest.mark.thorough) for one in ("dropped", "collected")),
    ],
)
def test_every_end_writes_what_waits(path, how):
    environment = {**os.environ, "RATZARR_WRITE_BUFFER": "on"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(path), how],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if how == "error" else 0), done.stderr
    assert how == "error" or not done.stderr
    assert stored(path)[:12] == [0, 1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 11]


def test_what_can_not_be_written_at_the_end_is_told(path):
    program = PROGRAM + "\nimport shutil; shutil.rmtree(path)"
    environment = {**os.environ, "RATZARR_WRITE_BUFFER": "on"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(path), "end"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "3 rows of column 'a'" in done.stderr
    assert "were not written" in done.stderr
    assert not (path / "RAT").exists()


def test_an_instance_in_a_circle_is_written_and_goes(path):
    circle = [RatZarr(path, writeBuffer=True)]
    circle.append(circle)
    circle[0].writeBlock("a", [5], 4)
    del circle
    gc.collect()
    began = time.monotonic()
    while not chunks(path):
        assert time.monotonic() < began + LIMIT
        time.sleep(0.02)


KILLED = """
import sys, time
import numpy as np
from ratzarr import RatZarr
table = RatZarr(sys.argv[1])
for start in range(0, table.rowCount, 3):
    table.writeBlock("a", np.arange(start, min(start + 3, table.rowCount)) + 1, start)
    print(start, time.time(), flush=True)
    time.sleep(0.002)
"""


def test_a_process_that_is_killed_loses_no_more_than_the_last_second_or_so(path):
    """Chunks that take longer to fill than rows wait, so most of them are written in parts."""
    rows = 30_000
    with RatZarr(path, create=False) as table:
        table.setChunkSize(1000)
        table.setRowCount(rows)
        table.deleteColumn("a")
        table.createColumn("a", "int32")
    written = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(path)],
        env={**os.environ, "RATZARR_WRITE_BUFFER": "on"}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            start, when = line.split()
            written.append((int(start), float(when)))
            if written[-1][1] - written[0][1] > 3.5:
                process.send_signal(signal.SIGKILL)
                break
    found = np.array(stored(path))
    assert np.isin(found - np.arange(rows), [1, *-np.arange(rows)]).all()
    there = found == np.arange(rows) + 1
    assert (found[~there] == 0).all()
    # Half a second for a machine that has much else to do.
    old = [start for start, when in written if when < written[-1][1] - 1.5]
    assert old
    assert there[: old[-1] + 3].all()
    # And it does wait.
    assert not there[: written[-1][0]].all()
    with RatZarr(path) as table:
        assert table.readBlock("a", 0, rows).tolist() == found.tolist()


def test_no_temporary_files_stay(path):
    with RatZarr(path, writeBuffer=True) as table:
        for start in range(0, ROWS, 5):
            table.writeBlock("a", np.arange(5), start)
    assert sorted(os.listdir(path)) == ["RAT", "zarr.json"]
    assert Path(path, "RAT", "a", "c", "3").exists()
