import subprocess
import sys
import threading
import time

import pytest

from ratzarr import ArgumentError
from ratzarr.parallel import IN_FLIGHT, request_slot, run


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

    run([task] * (3 * IN_FLIGHT))
    assert 1 < most <= IN_FLIGHT


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
    assert run([lambda: sum(run(inner))] * (2 * IN_FLIGHT)) == [4] * (2 * IN_FLIGHT)


def peak(tasks):
    """Return how many of these were under way at once, each run by :func:`run` in one go."""
    now, most, lock = 0, 0, threading.Lock()

    def task():
        nonlocal now, most
        with request_slot():
            with lock:
                now += 1
                most = max(most, now)
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
    assert peak([120]) == bound


def test_requests_are_bounded_whatever_threads_they_come_from(monkeypatch):
    """A single task is run in the thread that asks for it, not in the pool."""
    monkeypatch.setenv("RATZARR_REQUESTS", "4")
    assert peak([1] * 20 + [9]) == 4


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "2000", "９", "1" * 5000])
def test_what_is_no_bound_is_refused(monkeypatch, text):
    monkeypatch.setenv("RATZARR_REQUESTS", text)
    with pytest.raises(ArgumentError, match="RATZARR_REQUESTS"):
        run([lambda: 1] * 2)


AT_EXIT = """
import atexit
from ratzarr.parallel import run, stream
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
