"""What the tests have for processes."""

import os
import signal
import subprocess
import sys

import pytest

from tests.processes import LimitedPopen, interruptible, running

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class ShortPopen(LimitedPopen):
    limit = 0.3


@pytest.mark.parametrize("wait", ["wait", "communicate", "with"])
def test_no_process_is_waited_for_without_a_limit(wait):
    assert subprocess.Popen is LimitedPopen
    process = ShortPopen(SLEEP)
    end = process.__exit__ if wait == "with" else getattr(process, wait)
    with pytest.raises(subprocess.TimeoutExpired):
        end(*[None] * 3 if wait == "with" else ())
    assert process.returncode == -signal.SIGKILL


def test_a_limit_of_ones_own_is_kept():
    with ShortPopen([sys.executable, "-c", "import time; time.sleep(0.6)"]) as process:
        assert process.wait(60) == 0


def test_children_can_be_interrupted_where_the_tests_can_not():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with running(SLEEP) as process:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            code = "import signal; print(signal.getsignal(2) is signal.default_int_handler)"
            with running([sys.executable, "-c", code]) as asked:
                assert asked.communicate()[0] == "True\n"
            os.kill(process.pid, signal.SIGINT)
            process.communicate(timeout=20)
        assert process.returncode == -signal.SIGINT
        with interruptible(), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
