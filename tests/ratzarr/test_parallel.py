import subprocess
import sys
import threading
import time

import pytest

from ratzarr.parallel import IN_FLIGHT, run


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
