"""Processes for tests: interruptible, and none waited for without a limit."""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial

LIMIT = 120
"""Seconds after which a process that should have ended is killed, and the test fails."""


class LimitedPopen(subprocess.Popen):
    """A process that is killed where a test would wait for it for ever.

    The tests' configuration puts it in the place of ``subprocess.Popen``, so that ``run`` and all
    that is built on it has the limit too.
    """

    limit = 600.0
    """Seconds."""

    def wait(self, timeout=None):
        return self._within(super().wait, timeout)

    def communicate(self, input=None, timeout=None):  # noqa: A002 - subprocess's name
        return self._within(partial(super().communicate, input), timeout)

    def _within(self, end, timeout):
        try:
            return end(timeout=self.limit if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            if timeout is None:
                self.kill()
                super().wait(self.limit)
            raise


@contextmanager
def interruptible():
    """Handle SIGINT here as Python does by default, also where the tests run with it ignored.

    A shell ignores it in what it runs in the background, and children inherit that. Begin
    processes that are to be interrupted within.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def running(command, **options):
    """Run a command that Ctrl-C reaches, as text; kill it at the end, if it is still there."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with interruptible():
        process = subprocess.Popen([str(word) for word in command], **given)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_until(condition, every=0.01):
    """Wait for what a process is about to do."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"nothing in {LIMIT} s"
        time.sleep(every)


def gdalbridge(*args):
    """Return the command line of gdalbridge."""
    return [sys.executable, "-m", "gdalbridge", *args]


@contextmanager
def silent_server():
    """Serve on loopback without ever an answer.

    Yields
    ------
    tuple of (str, threading.Event)
        Its address, and what is set once somebody has asked.
    """
    asked = threading.Event()
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    taken.append(connection)
                    if connection.recv(1):
                        asked.set()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", asked
        finally:
            # Closing alone does not wake who waits in accept().
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for connection in taken:
                connection.close()
            thread.join(5)
