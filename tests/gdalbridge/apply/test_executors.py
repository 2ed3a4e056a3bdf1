"""Executors: the same results in the same order, whoever does the work and whatever dies."""

import atexit
import gc
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from contextlib import closing
from multiprocessing.spawn import get_executable, set_executable
from multiprocessing.synchronize import SemLock
from pathlib import Path

import numpy as np
import pytest
from numpy.dtypes import StringDType

from gdalbridge.apply.executors import make_executor, processes
from gdalbridge.apply.executors.dask import DaskExecutor
from gdalbridge.errors import ExecutorError, NotSendableError, TaskError, WorkerLostError
from ratzarr.testing.helpers import assert_same, message
from tests.processes import LIMIT, running

ROOT = Path(__file__).parents[3]


class Diary:
    """Who worked on what: one empty file for each event, so that nothing is lost with a process."""

    def __init__(self, directory):
        self.directory = str(directory)

    def note(self, event, item):
        for n in itertools.count():
            name = f"{self.directory}/{event}-{item}-{n}-{os.getpid()}"
            if not any(f.startswith(f"{event}-{item}-{n}-") for f in os.listdir(self.directory)):
                Path(name).touch()
                return

    def events(self, event):
        """Return how often it happened, by item."""
        return Counter(
            int(name.split("-")[1])
            for name in os.listdir(self.directory)
            if name.startswith(f"{event}-")
        )

    def pids(self, event):
        """Return the processes in which it happened."""
        return {
            int(name.split("-")[3])
            for name in os.listdir(self.directory)
            if name.startswith(f"{event}-")
        }


@pytest.fixture
def diary(tmp_path):
    (tmp_path / "diary").mkdir()
    return Diary(tmp_path / "diary")


def wait_for(condition, seconds=LIMIT):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def squares(item):
    number, pause = item
    time.sleep(pause)
    return number, np.full(3, number * number)


def test_results_come_in_the_order_of_the_items(executor):
    chance = random.Random(1)
    items = [(n, chance.random() * 0.02) for n in range(30)]
    found = list(executor.results(squares, items))
    assert [number for number, _ in found] == list(range(30))
    assert [values.tolist() for _, values in found] == [[n * n] * 3 for n in range(30)]


def test_no_items_no_results(executor):
    assert list(executor.results(squares, [])) == []


@pytest.mark.parametrize("ahead", [1, 3, None])
def test_few_items_are_drawn_before_their_results_are_taken(executor, ahead):
    """From an iterable without end, in the thread of the caller."""
    drawn, threads = [], set()

    def items():
        for n in itertools.count():
            drawn.append(n)
            threads.add(threading.get_ident())
            yield n

    most = ahead or max(8, 2 * executor.workers)
    with closing(executor.results(str, items(), ahead=ahead)) as results:
        for n, result in enumerate(itertools.islice(results, 40)):
            assert result == str(n)
            assert len(drawn) - n <= most
    assert threads == {threading.get_ident()}


ALIVE = weakref.WeakSet()


class Block:
    """A result that is counted, also where it is one that was unpickled."""

    def __init__(self, number=0):
        self.number = number
        ALIVE.add(self)

    def __setstate__(self, state):
        self.__dict__.update(state)
        ALIVE.add(self)


def test_few_results_are_held(executor):
    most = 0
    for n, block in enumerate(executor.results(Block, range(60), ahead=3)):
        assert block.number == n
        most = max(most, len(ALIVE))
    # Those in flight, the one in hand, and what a thread lets go of a moment later.
    assert most <= 3 + 1 + 2
    del block


def values_of_every_kind(number):
    return {
        "text": np.array(["", "Wald é", "x" * 40, str(number)], StringDType()),
        "missing": np.array([1.5, np.nan, -0.0, np.inf]),
        "days": np.array(["NaT", "2026-03-01T00:00:00.000001"], "datetime64[us]"),
        "bytes": np.array([b"a\0b", b""], "S3"),
        "wide": np.arange(6, dtype=">i2").reshape(3, 2),
        "large": np.array([2**64 - 1], "uint64"),
        "empty": np.empty((0, 2), bool),
    }


def test_values_arrive_to_the_last_bit(executor):
    """And can be changed, as those that were made here can."""
    for found in executor.results(values_of_every_kind, range(3)):
        number = int(found["text"][3])
        for name, expected in values_of_every_kind(number).items():
            assert_same(found[name], expected)
            assert found[name].flags.writeable


def test_closures_lambdas_and_callable_objects(executor):
    offset = np.arange(3)
    found = list(executor.results(lambda n: (offset + n).sum(), range(4)))
    assert found == [3, 6, 9, 12]

    class Local:
        def __call__(self, number):
            return type(self)

    # Of a class that exists nowhere else, also there and back.
    assert list(executor.results(Local(), range(2))) == [Local, Local]


def fails_at(number, diary):
    diary.note("begun", number)
    if number == 7:
        raise FloatingPointError("seven is too much", 7)
    time.sleep(0.01)
    diary.note("done", number)
    return number


def test_an_error_is_raised_where_the_result_is_asked_for(executor, diary):
    """With its traceback; what came before is handed out, the rest cancelled."""
    found = []
    with pytest.raises(FloatingPointError, match="seven is too much") as caught:
        found.extend(executor.results(lambda n: fails_at(n, diary), range(1000)))
    assert caught.value.args == ("seven is too much", 7)
    assert "in fails_at" in "".join(traceback.format_exception(caught.value))
    begun = diary.events("begun")
    # What had begun was waited for, and nothing goes on.
    assert set(begun) - set(diary.events("done")) == {7}
    assert set(range(8)) <= set(begun)
    assert len(begun) < 40
    time.sleep(0.1)
    assert diary.events("begun") == begun
    # And the executor can be used again.
    assert list(executor.results(str, [1])) == ["1"]


def test_results_before_the_error_are_handed_out(executor, diary):
    results = executor.results(lambda n: fails_at(n, diary), range(1000))
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(FloatingPointError):
        next(results)
    assert list(results) == []


def test_closing_waits_for_what_has_begun(executor, diary):
    def slow(number):
        diary.note("begun", number)
        time.sleep(0.3)
        diary.note("done", number)
        return number

    with closing(executor.results(slow, range(100), ahead=20)) as results:
        assert next(results) == 0
        if executor.workers > 1:
            wait_for(lambda: 2 in diary.events("begun"))
    begun = diary.events("begun")
    assert diary.events("done") == begun
    assert len(begun) <= 6
    time.sleep(0.4)
    assert diary.events("begun") == begun


def test_an_error_of_the_items_is_the_callers(executor):
    def items():
        yield from range(3)
        raise LookupError("no more items")

    results = executor.results(str, items(), ahead=1)
    assert list(itertools.islice(results, 3)) == ["0", "1", "2"]
    with pytest.raises(LookupError, match="no more items"):
        next(results)


class Odd(Exception):
    """An exception that can't be made from its pickle: it takes other arguments."""

    def __init__(self, name, row):
        super().__init__(f"{name} in row {row}")


def odd(number):
    error = Odd("x", number)
    error.add_note("seen in block 3")
    raise error


def test_exceptions_that_cant_be_sent_are_told_in_words(executor):
    with pytest.raises((Odd, TaskError)) as caught:
        list(executor.results(odd, [5]))
    assert "x in row 5" in message(caught.value)
    assert "seen in block 3" in message(caught.value)
    assert executor.in_process == isinstance(caught.value, Odd)


def test_what_cant_be_sent(worker_processes, dask_client):
    lock = threading.Lock()
    for executor in (worker_processes, make_executor(dask_client)):
        with pytest.raises(NotSendableError, match=r"the function .*_thread.lock.*'threads'"):
            list(executor.results(lambda _: lock.locked(), [1]))
        with pytest.raises(NotSendableError, match="item 1 can't"):
            list(executor.results(str, [1, lock]))
    with pytest.raises(NotSendableError, match=r"returned \(generator\) can't"):
        list(worker_processes.results(lambda n: (n for _ in ()), [1]))


def test_in_process_executors_see_the_callers_objects():
    seen = []
    for kind in ("serial", "threads"):
        with closing(make_executor(kind)) as executor:
            assert executor.in_process
            list(executor.results(seen.append, range(3)))
            with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
                # What holds for the caller's thread holds in the others.
                list(executor.results(lambda n: np.ones(2) / n, [0]))
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2)
    with closing(make_executor("threads", 2)) as executor:
        assert len(list(executor.results(lambda _: both.wait(10), range(2)))) == 2


# Processes


def surroundings(name):
    return os.environ.get(name), os.getcwd(), sys.argv, sys.path[0]


def test_workers_see_what_the_program_has_set_since(worker_processes, tmp_path, monkeypatch):
    """Environment, directory, command line: also of workers that were there already."""
    list(worker_processes.results(str, range(4)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["classify.py", "--fast"])
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "beside_the_script.py").write_text("def twice(n):\n    return 2 * n\n")
    expected = ("http://127.0.0.1:1", str(tmp_path), sys.argv, str(tmp_path))
    found = list(worker_processes.results(surroundings, ["AWS_ENDPOINT_URL"] * 4))
    assert found == [expected] * 4
    from beside_the_script import twice

    assert list(worker_processes.results(twice, range(3))) == [0, 2, 4]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert next(worker_processes.results(surroundings, ["AWS_ENDPOINT_URL"]))[0] is None


def option(name):
    from osgeo import gdal

    return gdal.GetConfigOption(name)


def test_workers_have_gdals_options(worker_processes):
    from osgeo import gdal

    gdal.SetConfigOption("AWS_S3_ENDPOINT", "127.0.0.1:9")
    try:
        found = list(worker_processes.results(option, ["AWS_S3_ENDPOINT"] * 4))
    finally:
        gdal.SetConfigOption("AWS_S3_ENDPOINT", None)
    assert found == ["127.0.0.1:9"] * 4
    assert list(worker_processes.results(option, ["AWS_S3_ENDPOINT"] * 4)) == [None] * 4


def killed_once(number, diary, victims):
    diary.note("begun", number)
    if number in victims and diary.events("begun")[number] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def test_a_worker_that_is_killed_costs_its_item_again_and_no_other(worker_processes, diary):
    victims = {3, 11}
    found = list(
        worker_processes.results(lambda n: killed_once(n, diary, victims), range(20), ahead=9)
    )
    assert found == [n * 10 for n in range(20)]
    assert diary.events("begun") == Counter(range(20)) + Counter(victims)


def test_workers_that_are_killed_while_idle_cost_nothing(worker_processes, diary):
    pids = set(worker_processes.results(lambda _: (time.sleep(0.1), os.getpid())[1], range(4)))
    assert len(pids) == 2
    killed = pids.pop()
    os.kill(killed, signal.SIGKILL)
    assert list(worker_processes.results(lambda n: killed_once(n, diary, ()), range(6))) == list(
        range(0, 60, 10)
    )
    assert diary.events("begun") == Counter(range(6))
    assert killed not in diary.pids("begun")


def poison(number):
    if number == ("block", 5):
        os.kill(os.getpid(), signal.SIGSEGV)
    return number


def test_an_item_that_kills_every_worker_is_named():
    assert processes.LOSSES == 3
    items = [("block", n) for n in range(10)]
    with (
        closing(processes.ProcessExecutor(2, losses=1)) as executor,
        pytest.raises(WorkerLostError, match=r"item 5 \(\('block', 5\)\).* 2 worker.*SIGSEGV"),
    ):
        list(executor.results(poison, items))


def test_workers_that_are_lost_leave_no_semaphores():
    """To the garbage collector: it may come while others are being made, and then they leak."""

    def semaphores():
        return sum(isinstance(one, SemLock) for one in gc.get_objects())

    counts = []
    gc.collect()
    gc.disable()
    try:
        with closing(processes.ProcessExecutor(1, losses=0)) as executor:
            for _ in range(3):
                with pytest.raises(WorkerLostError):
                    list(executor.results(poison, [("block", 5)]))
                counts.append(semaphores())
    finally:
        gc.enable()
    assert counts[0] == counts[1] == counts[2]


def test_functions_and_modules_that_workers_dont_find(worker_processes, tmp_path, monkeypatch):
    """The error says so; the workers stay in use."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "vanishing.py").write_text("def twice(n):\n    return 2 * n\n")
    from vanishing import twice

    (tmp_path / "vanishing.py").unlink()
    with pytest.raises(ModuleNotFoundError, match="vanishing") as caught:
        list(worker_processes.results(twice, range(9)))
    assert "loaded the function" in message(caught.value)
    assert list(worker_processes.results(str, range(2))) == ["0", "1"]


def test_workers_that_cant_begin():
    before = get_executable()
    set_executable("/bin/false")
    try:
        with (
            closing(make_executor("processes", 1)) as executor,
            pytest.raises(
                WorkerLostError, match=r"\(/bin/false\) can't start: it exited with status 1"
            ),
        ):
            list(executor.results(str, [1]))
    finally:
        set_executable(before)


def test_a_worker_that_is_killed_while_it_is_sent_an_item():
    with closing(make_executor("processes", 1)) as executor:
        pid = next(executor.results(lambda _: os.getpid(), [0]))
        os.kill(pid, signal.SIGSTOP)
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        assert list(executor.results(len, [bytes(20_000_000)])) == [20_000_000]
        killer.join()


KILLED_WHILE_SENDING = """
import os, sys, time
from pathlib import Path
from gdalbridge.apply.executors import make_executor

diary = Path(sys.argv[1])
parent = os.getpid()

def large(number):
    if not (diary / "stopped").exists():
        (diary / "stopped").touch()
        # Nobody reads while the worker writes, and then nobody writes any more.
        steps = "kill -STOP {0}; sleep 0.5; kill -KILL {1}; kill -CONT {0}"
        os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", steps.format(parent, os.getpid()))
        time.sleep(0.2)
    return bytes(10_000_000)

print([len(value) for value in make_executor("processes", 1).results(large, [0])])
"""


def test_a_worker_that_is_killed_while_it_sends_a_result(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED_WHILE_SENDING)
    with running(
        [sys.executable, "-W", "error", script, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (0, "[10000000]\n", "")
    assert (tmp_path / "stopped").exists()


def pid_and_last_words(path):
    atexit.register(Path(path).write_text, "done")
    return os.getpid()


def test_closing_waits_for_what_workers_do_at_their_end(tmp_path):
    with closing(make_executor("processes", 1)) as executor:
        pid = next(executor.results(pid_and_last_words, [str(tmp_path / "end")]))
    assert (tmp_path / "end").read_text() == "done"
    assert gone([pid])


def test_workers_of_an_executor_that_is_forgotten_end(tmp_path):
    executor = make_executor("processes", 1)
    pid = next(executor.results(pid_and_last_words, [str(tmp_path / "end")]))
    del executor
    wait_for(lambda: gone([pid]))
    assert (tmp_path / "end").read_text() == "done"


def test_a_closed_executor():
    for kind in ("threads", "processes"):
        executor = make_executor(kind, 1)
        executor.close()
        executor.close()
        with pytest.raises(ExecutorError, match="closed"):
            list(executor.results(str, [1]))


SCRIPT = """
import os, sys, time
from gdalbridge.apply.executors import make_executor, processes
print("begins", flush=True)
directory = sys.argv[1]
factor = 3

class Result:
    def __init__(self, value):
        self.value = value

def work(number):
    open(f"{directory}/begun-{number}-0-{os.getpid()}", "w").close()
    print(f"works on {number}")
    time.sleep(float(sys.argv[2]) * (number < 2))
    return Result(number * factor)

results = make_executor("processes", int(sys.argv[3])).results(work, range(5))
print(sum(result.value for result in results))
"""


def started(diary, tmp_path, pause, workers):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return running(
        [sys.executable, "-W", "error", script, diary.directory, pause, workers],
        start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def gone(pids):
    """Return whether none of the processes is there any more."""
    return not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_script_without_a_guard(diary, tmp_path):
    """It runs once; its functions and classes are its own. It need not close anything."""
    with started(diary, tmp_path, 0, 2) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    assert lines.count("begins") == 1
    assert "30" in lines
    # Two workers write to one pipe: a line of one may come between the text and the end of the other's.
    assert sorted(re.findall(r"works on \d", out)) == [f"works on {n}" for n in range(5)]
    wait_for(lambda: gone(diary.pids("begun")))


@pytest.mark.parametrize("to", ["all", "kill the parent"])
def test_ctrl_c_leaves_no_processes(diary, tmp_path, to):
    """Also where a task would go on for an hour: a terminal sends the signal to all of them."""
    # The third one has nothing to do then.
    workers = 3 if to == "all" else 1
    with started(diary, tmp_path, 3600, workers) as process:
        wait_for(lambda: len(diary.events("begun")) == (5 if to == "all" else 1))
        if to == "all":
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: gone(diary.pids("begun")))
        _, err = process.communicate(timeout=LIMIT)
    if to == "kill the parent":
        assert process.returncode == -signal.SIGKILL
        return
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")


# Dask


def work_slowly(number, diary):
    diary.note("begun", number)
    time.sleep(0.03)
    return number * 10


def test_dask_workers_killed_in_the_middle(mortal_dask_client, diary):
    """Two of three, one after the other; the result is the same."""
    executor = make_executor(mortal_dask_client)
    assert executor.workers == 3
    found, killed = [], set()
    for number, value in enumerate(
        executor.results(lambda n: work_slowly(n, diary), range(120), ahead=20)
    ):
        found.append(value)
        if number in (20, 60):
            pid = min(diary.pids("begun") - killed - {os.getpid()})
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            if number == 60:
                wait_for(lambda: len(diary.pids("begun")) >= 3)
    assert found == [n * 10 for n in range(120)]
    assert len(killed) == 2
    begun = diary.events("begun")
    assert set(begun) == set(range(120))
    # What was in flight, twice over at most: never everything again.
    assert 120 < begun.total() <= 120 + 2 * 20 + 4


def test_dask_gives_up_an_item_that_kills_every_worker(mortal_dask_client):
    mortal_dask_client.run_on_scheduler(allow_failures, 0)
    items = [("block", n) for n in range(6)]
    with pytest.raises(WorkerLostError, match=r"item 5 \(\('block', 5\)\) was given up"):
        list(make_executor(mortal_dask_client).results(poison, items, ahead=1))


def allow_failures(count, dask_scheduler):
    dask_scheduler.allowed_failures = count


class Large:
    """A function that is large, and says in which processes it was unpickled."""

    def __init__(self, diary):
        self.diary = diary
        self.values = np.zeros(20_000)

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.diary.note("unpickled", 0)

    def __call__(self, number):
        time.sleep(0.005)
        return number + len(self.values)


def test_dask_workers_get_a_function_once(dask_client, diary):
    found = list(make_executor(dask_client).results(Large(diary), range(50)))
    assert found == [n + 20_000 for n in range(50)]
    assert diary.events("unpickled").total() == len(diary.pids("unpickled")) <= 2


def test_dask_leaves_nothing_on_the_cluster(dask_client, diary):
    list(make_executor(dask_client).results(Large(diary), range(10)))
    with closing(make_executor(dask_client).results(Large(diary), range(50))) as results:
        next(results)
    wait_for(lambda: not dask_client.run_on_scheduler(keys))


def keys(dask_scheduler):
    return [str(key) for key in dask_scheduler.tasks]


def test_dask_futures_that_others_cancel(dask_client):
    from distributed import Future

    results = make_executor(dask_client).results(lambda n: time.sleep(0.2) or n, range(9))
    assert next(results) == 0
    dask_client.cancel([Future(key, dask_client) for key in dask_client.futures])
    with pytest.raises(WorkerLostError, match=r"item 1 .*cancelled on the Dask cluster"):
        next(results)


def test_which_dask_is_meant(dask_client):
    with pytest.raises(ExecutorError, match="no current Dask client: make one first"):
        make_executor("dask")
    with dask_client.as_current(), closing(make_executor("dask")) as executor:
        assert list(executor.results(str, [1])) == ["1"]
    with closing(make_executor(dask_client.scheduler.address)) as executor:
        assert isinstance(executor, DaskExecutor)
        assert list(executor.results(str, [1, 2])) == ["1", "2"]
    # What was handed over is not closed here.
    make_executor(dask_client).close()
    assert dask_client.status == "running"


def test_dask_schedulers_that_are_not_there(free_port):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(ExecutorError, match=f"no Dask scheduler at tcp://127.0.0.1:{free_port}"),
    ):
        make_executor(f"tcp://127.0.0.1:{free_port}")


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        # Bound, and not listened at: nobody else takes it, and nobody answers.
        yield found.getsockname()[1]


# Which one


@pytest.mark.parametrize(
    ("kind", "workers", "said"),
    [
        ("thread", None, "no executor is called 'thread': expected \"serial\""),
        (None, None, "no executor is called None"),
        ("threads", 0, "at least 1: got 0"),
        ("processes", True, "at least 1: got True"),
        ("dask", 2, "a Dask cluster has a number of workers of its own"),
    ],
)
def test_what_is_no_executor(kind, workers, said):
    with pytest.raises(ExecutorError) as caught:
        make_executor(kind, workers)
    assert said in str(caught.value)


def test_an_executor_of_somebody_elses_is_not_closed(worker_processes):
    """It is used as it is. Other tests use this one for several scripts."""
    assert make_executor(worker_processes) is worker_processes


def test_how_many_workers():
    assert make_executor("serial", 5).workers == 1
    assert make_executor("threads", 5).workers == 5
    with closing(make_executor("processes")) as executor:
        assert executor.workers == len(os.sched_getaffinity(0))


def test_packages_are_imported_when_they_are_needed():
    code = (
        "import sys; from gdalbridge.apply.executors import make_executor; make_executor('threads'); "
        "print({'distributed', 'dask', 'cloudpickle'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("kind", "missing"), [("processes", "cloudpickle"), ("dask", "dask")])
def test_packages_that_are_missing(monkeypatch, kind, missing):
    for name in ("cloudpickle", "distributed")[missing == "dask" :]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'ratzarr\[{kind}\]'"):
        make_executor(kind)
