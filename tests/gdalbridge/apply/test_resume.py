"""Scripts that are interrupted: what they leave, and how they go on."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gdalbridge import BridgeError, CancelledError, ratapplier
from ratzarr import ColumnIncompleteError, RatZarr, StoreError
from tests.audits import listening
from tests.gdalbridge.apply.test_ratapplier import (
    Pickled,
    attributes,
    controls,
    given,
    joined,
    stored,
    table,
    tables,
)

BLOCK, BLOCKS = 1024, 8
ROWS = BLOCK * BLOCKS - 100
N = np.arange(ROWS)


@pytest.fixture
def place(tmp_path):
    return table(tmp_path / "t.rat.zarr", ROWS, BLOCK, n=N)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.rat.zarr"


def note_run(info):
    """Write down, where all processes can, that a block was worked on."""
    with Path(os.environ["RUNS"]).open("a") as file:
        file.write(f"{info.blockNdx}\n")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Which blocks were worked on since it was last asked."""
    file = tmp_path / "runs"
    file.touch()
    monkeypatch.setenv("RUNS", str(file))

    def asked():
        found = sorted(map(int, file.read_text().split()))
        file.write_text("")
        return found

    return asked


def doubles(info, inputs, outputs):
    note_run(info)
    outputs.out.double = inputs.t.n * 2
    outputs.out.text = np.array([f"row {n}" for n in inputs.t.n])


def cancel_after(blocks, of_all=BLOCKS):
    return lambda done, *_: done < blocks / of_all


EXECUTORS = ["serial", "threads", "pickled"]


def how(executor, block=BLOCK, **settings):
    chosen = (Pickled(),) if executor == "pickled" else (executor, 3)
    # One block waits to be written at a time.
    return controls(block, setExecutor=chosen, setMemory=1, **settings)


def check(out):
    assert (stored(out, "double") == 2 * N).all()
    assert stored(out, "text").tolist() == [f"row {n}" for n in range(ROWS)]
    for column in ("double", "text"):
        assert attributes(out, column)["COMPLETE"] is True
        assert attributes(out, column)["ROWS_DONE"] == ROWS


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("block", [BLOCK, 1000])
def test_cancelled_and_gone_on_with(place, out, runs, executor, block):
    options = how(executor, block, setProgress=cancel_after(3))
    with pytest.raises(CancelledError) as caught:
        ratapplier.apply(doubles, tables(t=place), tables(out=out), controls=options)
    assert (
        "blocks that are written stay; resume the run with controls.setResume(True)"
        in caught.value.__notes__
    )
    first = runs()
    done = attributes(out, "double")["ROWS_DONE"]
    assert attributes(out, "double")["COMPLETE"] is False
    assert done >= (3 * BLOCK if block == BLOCK else 2 * BLOCK)
    assert (np.asarray(stored(out, "double"))[:done] == 2 * N[:done]).all()
    with RatZarr(out, readOnly=True) as found, pytest.raises(ColumnIncompleteError):
        found.readBlock("text", 0, 1)
    options = how(executor, block, setResume=True)
    report = ratapplier.apply(doubles, tables(t=place), tables(out=out), controls=options)
    check(out)
    again = runs()
    if block == BLOCK:
        # Known by its chunks, whichever block was written first.
        there = report.blocks_there
        assert there >= 3
        assert len(again) == BLOCKS - there
    else:
        assert again == list(range(done // block, -(-ROWS // block)))
    assert set(first) | set(again) == set(range(-(-ROWS // block)))
    # There is nothing left to be gone on with: it is a run like any other.
    report = ratapplier.apply(doubles, tables(t=place), tables(out=out), controls=options)
    assert report.blocks_there == 0
    check(out)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_error_of_the_function_mended_and_gone_on_with(place, out, runs, executor, monkeypatch):
    monkeypatch.setenv("FAIL", "5")
    with pytest.raises(ZeroDivisionError) as caught:
        ratapplier.apply(may_fail, tables(t=place), tables(out=out), controls=how(executor))
    assert caught.value.__notes__ == [f"in block 5 (rows {5 * BLOCK} to {6 * BLOCK - 1})"]
    assert attributes(out, "double")["COMPLETE"] is False
    assert attributes(out, "double")["ROWS_DONE"] in range(0, 5 * BLOCK + 1, BLOCK)
    runs()
    monkeypatch.setenv("FAIL", "")
    ratapplier.apply(
        may_fail, tables(t=place), tables(out=out),
        controls=how(executor, setResume=True),
    )  # fmt: skip
    assert 5 in runs()
    check(out)


def may_fail(info, inputs, outputs):
    if str(info.blockNdx) == os.environ["FAIL"]:
        raise ZeroDivisionError
    doubles(info, inputs, outputs)


def test_ctrl_c(place, out, runs, monkeypatch):
    def interrupted(info, inputs, outputs):
        if info.blockNdx == 4 and not os.environ.get("GO_ON"):
            raise KeyboardInterrupt
        doubles(info, inputs, outputs)

    with pytest.raises(KeyboardInterrupt) as caught:
        ratapplier.apply(interrupted, tables(t=place), tables(out=out), controls=controls(BLOCK))
    assert "setResume" in "\n".join(caught.value.__notes__)
    assert attributes(out, "double")["COMPLETE"] is False
    monkeypatch.setenv("GO_ON", "1")
    ratapplier.apply(
        interrupted, tables(t=place), tables(out=out), controls=controls(BLOCK, setResume=True)
    )
    check(out)


def test_a_store_that_fails(place, out, runs):
    def full(event, arguments):
        if event in ("os.link", "os.rename") and arguments[1] == "5":
            raise OSError(errno.ENOSPC, "No space left on device")

    with listening(full), pytest.raises(StoreError, match="No space left") as caught:
        ratapplier.apply(doubles, tables(t=place), tables(out=out), controls=controls(BLOCK))
    assert caught.value.__notes__[0] == f"in block 5 (rows {5 * BLOCK} to {6 * BLOCK - 1})"
    assert "setResume" in caught.value.__notes__[1]
    runs()
    ratapplier.apply(
        doubles, tables(t=place), tables(out=out), controls=controls(BLOCK, setResume=True)
    )
    assert 5 in runs()
    check(out)


# ---- a real process

SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from gdalbridge import ratapplier
from tests.gdalbridge.apply.test_ratapplier import controls, tables
from tests.gdalbridge.apply.test_resume import doubles

held = threading.Event()

def function(info, inputs, outputs):
    if info.blockNdx == 2:
        held.wait()
    doubles(info, inputs, outputs)

function.__module__, function.__qualname__ = doubles.__module__, doubles.__qualname__
place, out, executor, block = sys.argv[1:]
def kill_when(count):
    chunks = Path(out, "RAT", "text", "c")
    while not chunks.exists() or len(list(chunks.iterdir())) < count:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill_when, args=(2,), daemon=True).start()
ratapplier.apply(function, tables(t=place), tables(out=out),
                 controls=controls(int(block), setExecutor=(executor, 3)))
"""


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_a_killed_process(place, out, runs, executor):
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), place, out, executor, str(BLOCK)],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr
    chunks = {
        column: {int(path.name) for path in Path(out, "RAT", column, "c").iterdir()}
        for column in ("double", "text")
    }
    both = chunks["double"] & chunks["text"]
    assert 2 not in both
    runs()
    report = ratapplier.apply(
        doubles, tables(t=place), tables(out=out), controls=controls(BLOCK, setResume=True)
    )
    assert runs() == [block for block in range(BLOCKS) if block not in both]
    assert report.blocks_there == len(both) > 0
    check(out)


class LosesTheFirst(Pickled):
    """Has done the last blocks when it fails, and none of the first."""

    def results(self, task, items, *, ahead=None):
        for item in items[3:]:
            task(item)
        raise StoreError("the server is gone")
        yield


def test_blocks_that_were_done_out_of_order(place, out, runs):
    options = controls(BLOCK, setExecutor=LosesTheFirst())
    with pytest.raises(StoreError, match="the server is gone"):
        ratapplier.apply(doubles, tables(t=place), tables(out=out), controls=options)
    assert runs() == [0, 4, 5, 6, 7]
    report = ratapplier.apply(
        doubles, tables(t=place), tables(out=out), controls=controls(BLOCK, setResume=True)
    )
    assert runs() == [1, 2, 3]
    assert report.blocks_there == 5
    check(out)


def doubles_and_rare(info, inputs, outputs):
    doubles(info, inputs, outputs)
    if info.blockNdx == 6:
        outputs.rare.n = inputs.t.n


def test_a_table_that_only_a_later_block_writes(place, out, runs, tmp_path):
    both = tables(out=out, rare=tmp_path / "rare.rat.zarr")
    options = controls(BLOCK, setExecutor=LosesTheFirst())
    with pytest.raises(StoreError, match="the server is gone"):
        ratapplier.apply(doubles_and_rare, tables(t=place), both, controls=options)
    options = controls(BLOCK, setResume=True)
    ratapplier.apply(doubles_and_rare, tables(t=place), both, controls=options)
    check(out)
    found = stored(tmp_path / "rare.rat.zarr", "n")
    assert (found[6 * BLOCK : 7 * BLOCK] == N[6 * BLOCK : 7 * BLOCK]).all()


# ---- columns that were there


def test_a_column_that_was_there_is_known_by_what_was_noted(place, out, runs):
    table(out, ROWS, BLOCK, double=np.zeros(ROWS, int), text=np.full(ROWS, "old"))
    options = controls(BLOCK, setMemory=1, setProgress=cancel_after(3))
    with pytest.raises(CancelledError):
        ratapplier.apply(doubles, tables(t=place), tables(out=out), controls=options)
    done = attributes(out, "double")["ROWS_DONE"]
    assert done >= 3 * BLOCK
    runs()
    ratapplier.apply(
        doubles, tables(t=place), tables(out=out), controls=controls(BLOCK, setResume=True)
    )
    # All of its chunks are there: nothing can be seen from that.
    assert runs() == list(range(done // BLOCK, BLOCKS))
    check(out)


@pytest.mark.parametrize("is_there", [True, False])
def test_while_it_runs_its_columns_are_not_read(place, out, is_there):
    if is_there:
        table(out, ROWS, BLOCK, double=np.zeros(ROWS, int))
    looked = []

    def function(info, inputs, outputs):
        outputs.out.double = inputs.t.n * 2
        if info.blockNdx == 5:
            # Of the blocks before, with one of them written at a time, some are there.
            with RatZarr(out, readOnly=True) as found, pytest.raises(ColumnIncompleteError):
                found.readBlock("double", 0, 1)
            looked.append(found)

    ratapplier.apply(
        function, tables(t=place), tables(out=out), controls=controls(BLOCK, setMemory=1)
    )
    assert looked
    assert attributes(out, "double")["COMPLETE"] is True


def adds_one(info, inputs, outputs):
    outputs.t.n = inputs.t.n + 1


def test_a_column_that_is_read_and_written_can_not_be_gone_on_with(place):
    with pytest.raises(CancelledError):
        ratapplier.apply(
            adds_one, tables(t=place), tables(t=place),
            controls=controls(BLOCK, setMemory=1, setProgress=cancel_after(3)),
        )  # fmt: skip
    before = stored(place, "n").tolist()
    for resume in (True, False):
        # Nor is 1 added twice to some rows without a word.
        with pytest.raises(ColumnIncompleteError) as caught:
            ratapplier.apply(
                adds_one, tables(t=place), tables(t=place),
                controls=controls(BLOCK, setResume=resume),
            )  # fmt: skip
        if resume:
            assert "which it also writes can't be resumed" in "\n".join(caught.value.__notes__)
        assert stored(place, "n").tolist() == before


def test_a_run_that_is_complete_is_not_cancelled(place):
    """Otherwise 1 would be added again by the run that resumes it."""
    before, calls, last = stored(place, "n").tolist(), [], []

    def progress(*_):
        calls.append(None)
        return len(calls) not in last

    for _ in range(2):
        ratapplier.apply(
            adds_one,
            tables(t=place),
            tables(t=place),
            controls=controls(BLOCK, setProgress=progress),
        )
        last.append(2 * len(calls))
    assert stored(place, "n").tolist() == [n + 2 for n in before]


def adds_one_and_copies(info, inputs, outputs):
    outputs.t.n = inputs.t.n + 1
    outputs.out.m = inputs.out.other


def test_a_run_that_ends_between_its_columns_does_not_run_again(place, out):
    """Otherwise 1 would be added again, to a column that is complete."""
    table(out, ROWS, BLOCK, m=np.zeros(ROWS, int), other=N)

    def full(event, arguments):
        if event in ("os.link", "os.rename") and arguments[1] == "zarr.json":
            document = json.loads(Path(place, "RAT", "n", "zarr.json").read_text())
            if document["attributes"].get("COMPLETE") is True:
                raise OSError(errno.ENOSPC, "No space left on device")

    both = tables(t=place, out=out)
    with listening(full), pytest.raises(StoreError, match="No space left"):
        ratapplier.apply(adds_one_and_copies, both, both, controls=controls(BLOCK))
    assert attributes(out, "m")["COMPLETE"] is False
    assert (stored(place, "n") == N + 1).all()
    ratapplier.apply(adds_one_and_copies, both, both, controls=controls(BLOCK, setResume=True))
    assert (stored(place, "n") == N + 1).all()
    assert (stored(out, "m") == N).all()


class Repeats(Pickled):
    """Loses workers: each block is done twice, and only the second result arrives."""

    def results(self, task, items, *, ahead=None):
        items = list(items)
        list(super().results(task, items))
        yield from super().results(task, items)


def adds_one_to_output(info, inputs, outputs):
    outputs.t.n = outputs.t.n + 1


@pytest.mark.parametrize("function", [adds_one, adds_one_to_output])
def test_a_column_that_is_read_and_written_by_workers_that_are_lost(place, function):
    ratapplier.apply(
        function, tables(t=place), tables(t=place), controls=controls(BLOCK, setExecutor=Repeats())
    )
    assert (stored(place, "n") == N + 1).all()


def test_a_column_that_is_read_and_written(place):
    ratapplier.apply(adds_one, tables(t=place), tables(t=place), controls=controls(BLOCK))
    ratapplier.apply(
        adds_one, tables(t=place), tables(t=place),
        controls=controls(1000, setExecutor=("threads", 3)),
    )  # fmt: skip
    assert (stored(place, "n") == N + 2).all()


# ---- what can't be gone on with


def begun(function, place, out, others=None, **settings):
    with pytest.raises(CancelledError):
        ratapplier.apply(
            function, tables(t=place), tables(out=out), others,
            controls(BLOCK, setMemory=1, setProgress=cancel_after(3), **settings),
        )  # fmt: skip


def gone_on(function, place, out, others=None, **settings):
    return ratapplier.apply(
        function, tables(t=place), tables(out=out), others,
        controls(BLOCK, setResume=True, **settings),
    )  # fmt: skip


def evens(info, inputs, outputs):
    outputs.out.n = inputs.t.n[::2]


def adds_up(info, inputs, outputs, others):
    others.rows.append(info.blockNdx)
    outputs.out.n = inputs.t.n


def another(info, inputs, outputs):
    outputs.out.double = inputs.t.n * 3


def test_rows_that_were_added_one_after_the_other(place, out):
    begun(evens, place, out)
    with pytest.raises(BridgeError, match="'n' is not complete, but can't be resumed: its"):
        gone_on(evens, place, out)
    # Anew it can be done.
    ratapplier.apply(evens, tables(t=place), tables(out=out), controls=controls(BLOCK))
    assert (
        stored(out, "n").tolist()
        == np.concatenate(
            [N[start : start + BLOCK][::2] for start in range(0, ROWS, BLOCK)]
        ).tolist()
    )


def test_otherargs_that_add_up(place, out):
    begun(adds_up, place, out, given(0))
    with pytest.raises(BridgeError, match="changes its otherargs, so the run can't be resumed"):
        gone_on(adds_up, place, out, given(0))
    with pytest.raises(BridgeError, match="a run that merges otherargs can't be resumed"):
        gone_on(adds_up, place, out, given(0), setExecutor=("threads", 2), setMerge=joined)
    assert attributes(out, "n")["COMPLETE"] is False


def test_another_function_or_other_rows(place, out, runs):
    begun(doubles, place, out)
    with pytest.raises(BridgeError, match=r"doubles has written it, not .*another"):
        gone_on(another, place, out)
    with pytest.raises(BridgeError, match=f"was over {ROWS} rows, this one is over 5000"):
        gone_on(doubles, place, out, setRowCount=5000)
    gone_on(doubles, place, out)
    check(out)


def test_without_resume_it_is_done_anew_also_with_another_type(place, out, runs):
    begun(doubles, place, out)

    def floats(info, inputs, outputs):
        outputs.out.double = inputs.t.n / 2
        outputs.out.text = inputs.t.n

    ratapplier.apply(floats, tables(t=place), tables(out=out), controls=controls(BLOCK))
    assert (stored(out, "double") == N / 2).all()
    assert (stored(out, "text") == N).all()


def test_with_another_block_length(place, out, runs):
    begun(doubles, place, out)
    report = ratapplier.apply(
        doubles, tables(t=place), tables(out=out), controls=controls(500, setResume=True)
    )
    assert report.blocks_there >= 6
    check(out)


# ---- progress


class Rios:
    def __init__(self, cancel_at=200):
        self.said, self.labels, self.cancel_at = [], [], cancel_at

    def setTotalSteps(self, steps):
        self.total = steps

    def setProgress(self, percent):
        self.said.append(percent)

    def setLabelText(self, text):
        self.labels.append(text)

    def wasCancelled(self):
        return self.said[-1] >= self.cancel_at


def test_progress(place, out, runs):
    progress = Rios()
    arguments = (doubles, tables(t=place), tables(out=out), None)
    ratapplier.apply(*arguments, controls(BLOCK, setProgress=progress))
    assert progress.total == 100
    assert progress.said == sorted(progress.said)
    # Each percent once: the last block and the end are one.
    assert len(set(progress.said)) == len(progress.said) == BLOCKS + 1
    assert (progress.said[0], progress.said[-1]) == (0, 100)
    # RIOS's own bar prints a line for each.
    assert progress.labels == []
    with pytest.raises(CancelledError):
        ratapplier.apply(*arguments, controls(BLOCK, setProgress=Rios(cancel_at=40)))
    said = []

    def callback(done, message, data):
        said.append((done, message))
        return 1

    ratapplier.apply(*arguments, controls(BLOCK, setProgress=callback))
    assert said[1][0] == 1 / BLOCKS
    assert said[1][1].startswith(f"block 1 of {BLOCKS}, about ")
    assert said[1][1].endswith(" s left")
    assert said[-1] == (1.0, "")
