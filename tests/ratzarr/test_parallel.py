import subprocess
import sys
import threading
import time

import pytest

from ratzarr import ArgumentError
from ratzarr.concurrency import PROCESSORS, request_slot, run
from ratzarr.settings import DEFAULT_REQUESTS


def test_results_come_in_order():
    assert run([lambda i=i: (time.sleep(0.002 * (9 - i)), i)[1] for i in range(10)]) == list(
        range(10)
    )


def test_a_bounded_number_at_a_time():
    now, most, lock = 0, 0, threading.Lock()

    def task():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    run([task] * (3 * DEFAULT_REQUESTS))
    assert 1 < most <= DEFAULT_REQUESTS


def test_the_first_error_is_raised_and_nothing_goes_on_behind():
    done = []

    def bad():
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        run([bad, *[lambda: (time.sleep(0.005), done.append(1))] * 100])
    count = len(done)
    time.sleep(0.05)
    assert len(done) == count < 100


def test_tasks_that_have_tasks_do_not_wait_for_themselves():
    inner = [lambda: 1] * 4
    assert run([lambda: sum(run(inner))] * (2 * DEFAULT_REQUESTS)) == [4] * (2 * DEFAULT_REQUESTS)


def peak(tasks, bound):
    """Return how many of these were under way at once, each run by :func:`run` in one go.

    They wait for as many as there may be: a busy machine needs time to start them.
    """
    now, most, lock, reached = 0, 0, threading.Lock(), threading.Event()

    def task():
        nonlocal now, most
        with request_slot():
            with lock:
                now += 1
                most = max(most, now)
                if most >= bound:
                    reached.set()
            if not reached.wait(10):
                reached.set()
            time.sleep(0.01)
            with lock:
                now -= 1

    threads = [threading.Thread(target=run, args=([task] * count,)) for count in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


@pytest.mark.parametrize("bound", [1, 3, 40])
def test_the_bound_is_a_setting(monkeypatch, bound):
    monkeypatch.setenv("RATZARR_REQUESTS", str(bound))
    assert peak([120], bound) == bound


def test_requests_are_bounded_whatever_threads_they_come_from(monkeypatch):
    """A single task is run in the thread that asks for it, not in the pool."""
    monkeypatch.setenv("RATZARR_REQUESTS", "4")
    assert peak([1] * 20 + [9], 4) == 4


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "2000", "９", "1" * 5000])
def test_what_is_no_bound_is_refused(monkeypatch, text):
    monkeypatch.setenv("RATZARR_REQUESTS", text)
    with pytest.raises(ArgumentError, match="RATZARR_REQUESTS"):
        run([lambda: 1] * 2)


AT_EXIT = """
import atexit
from ratzarr.concurrency import run, stream
print(run([lambda i=i: i for i in range(5)]))
@atexit.register
def late():
    print(run([lambda i=i: i * i for i in range(5)]), list(stream(lambda i=i: -i for i in range(5))))
    try:
        run([lambda: 1 / 0, lambda: 1])
    except ZeroDivisionError:
        print("raised")
"""


def test_at_exit_when_all_pools_are_gone_the_work_is_done_all_the_same():
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "[0, 1, 2, 3, 4]", "[0, 1, 4, 9, 16] [0, -1, -2, -3, -4]", "raised"
    ]  # fmt: skip
    assert not done.stderr


def test_what_is_over_at_once_is_done_in_this_thread():
    here = threading.get_ident()
    # A busy machine may make two of them slow.
    assert any(run([threading.get_ident] * 100, 4, quick=True) == [here] * 100 for _ in range(20))
    assert here not in run([threading.get_ident] * 100, 4)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("pause", [0, 0.001])
def test_few_or_many_tasks_quick_or_not(count, pause):
    tasks = [lambda i=i: (time.sleep(pause), i)[1] for i in range(count)]
    for quick in (False, True):
        assert run(tasks, 3, quick=quick) == list(range(count))


def test_few_threads_do_what_takes_longer():
    now, most, threads, lock = 0, 0, set(), threading.Lock()

    def task(number):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            threads.add(threading.get_ident())
        time.sleep(0.003)
        with lock:
            now -= 1
        return number

    tasks = [lambda i=i: task(i) for i in range(60)]
    assert run(tasks, 4) == list(range(60))
    assert 1 < most <= 4
    assert threading.get_ident() not in threads
    # The first two are done here, before it is seen that they take long.
    assert run(tasks, 4, quick=True) == list(range(60))
    assert most <= 4
    assert threading.get_ident() in threads


def test_an_error_in_one_of_few_threads_stops_them_all():
    done = []

    def task(number):
        time.sleep(0.003)
        if number == 10:
            raise KeyError(number)
        done.append(number)

    with pytest.raises(KeyError, match="10"):
        run([lambda i=i: task(i) for i in range(100)], 3)
    count = len(done)
    time.sleep(0.03)
    assert len(done) == count < 20


def test_an_error_of_what_is_over_at_once():
    done = []
    with pytest.raises(ZeroDivisionError):
        run(
            [lambda: done.append(1), lambda: 1 // 0, *[lambda: done.append(2)] * 50], 4, quick=True
        )
    assert done == [1]


@pytest.mark.parametrize("waits", [False, True])
def test_no_more_threads_than_processors_for_quick_tasks_that_wait_for_nothing(waits):
    lock, now, most = threading.Lock(), 0, 0
    threads = []

    def task():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            threads.append(threading.current_thread())
        if waits:
            # Far more than another process takes away from the first two tasks.
            time.sleep(0.03)
        else:
            end = time.thread_time() + 0.0005
            while time.thread_time() < end:
                pass
        with lock:
            now -= 1
        return now >= 0

    processors = max(2, PROCESSORS)
    for _ in range(10):
        most = 0
        threads.clear()
        assert run([task] * 60, 3 * processors, quick=True) == [True] * 60
        assert threads[:2] == [threading.current_thread()] * 2
        # Another process may make the first two tasks wait for a processor.
        if waits or most <= processors:
            break
    assert (most > processors) == waits
