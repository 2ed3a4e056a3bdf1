"""Real processes: a crew that works at once, and children that are killed.

A :class:`Crew` is some processes that stay for many scenarios, forked from an interpreter that has
everything imported and has done nothing yet. What one of them does is a function, or a generator: where it yields it waits until all have come that far, so that they
collide as hard as they can.

    with Crew(8) as crew:
        ends = crew.run([Task("tests.stress.rows:write", (url, n)) for n in range(8)])

A :class:`Nursery` forks children from such an interpreter, with no threads and no connections. So a
child costs milliseconds, and can be killed hundreds of times.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
"""Seconds after which a process that says nothing is taken to hang."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The exception that ended a task, as it can be sent from one process to another."""

    kinds: tuple[str, ...]
    """Names of its class and of that one's parents."""
    text: str
    trace: str


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to do: ``module:function``, by name."""

    function: str
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    crash_at: int | None = None
    """Kill itself just before its n-th change of the file system, counted from 1."""


def _environment() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        # A pool of threads per process on a few cores measures nothing but the scheduler, and
        # one that was started could not be forked.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # Else the first child of many would write files that the test does not mean.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _start(mode: str, count: int = 1) -> tuple[subprocess.Popen[bytes], list[Connection]]:
    pairs = [socket.socketpair() for _ in range(count)]
    descriptors = [theirs.fileno() for _, theirs in pairs]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.stress.worker", mode, *map(str, descriptors)],
        pass_fds=descriptors,
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
    )
    for _, theirs in pairs:
        theirs.close()
    return process, [Connection(ours.detach()) for ours, _ in pairs]


def _stop(process: subprocess.Popen[bytes], pipes: list[Connection]) -> None:
    for pipe in pipes:
        with suppress(OSError):
            pipe.send(None)
        pipe.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _receive(pipe: Connection, what: str) -> Any:
    if not pipe.poll(PATIENCE):
        raise AssertionError(f"{what} said nothing for {PATIENCE} s")
    try:
        return pipe.recv()
    except EOFError:
        raise AssertionError(f"{what} died") from None


class Crew:
    """Processes that stay, each of which does one task at a time."""

    def __init__(self, size: int) -> None:
        self._process, self._members = _start("crew", size)

    def __len__(self) -> int:
        return len(self._members)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        _stop(self._process, self._members)

    def run(
        self, tasks: Sequence[Task], between: Callable[[list[Any]], None] | None = None
    ) -> list[Any]:
        """Run one task in each process; return their results, or :class:`Failure`, in order.

        Parameters
        ----------
        tasks
            As many as there are processes, or fewer.
        between
            Called each time all of them wait at a barrier, with what they yielded. When one has
            failed, the others are stopped there.
        """
        assert len(tasks) <= len(self._members)
        pipes = self._members[: len(tasks)]
        for pipe, task in zip(pipes, tasks, strict=True):
            pipe.send(task)
        ends: list[Any] = [None] * len(tasks)
        under_way = dict(enumerate(pipes))
        while under_way:
            waiting = {}
            for number, pipe in list(under_way.items()):
                kind, value = _receive(pipe, f"process {number} of the crew")
                if kind == "at":
                    waiting[number] = value
                else:
                    ends[number] = value
                    del under_way[number]
            if waiting and any(isinstance(end, Failure) for end in ends):
                # What the others say means nothing without this one.
                self._call_off(under_way)
                return ends
            if waiting and between is not None:
                try:
                    between(list(waiting.values()))
                except BaseException:
                    self._call_off(under_way)
                    raise
            for number in waiting:
                under_way[number].send("go")
        return ends

    def _call_off(self, waiting: Mapping[int, Connection]) -> None:
        # The processes stay: others have tasks for them.
        for pipe in waiting.values():
            pipe.send("stop")
        for number, pipe in waiting.items():
            _receive(pipe, f"process {number} of the crew")


def no_failures(ends: Sequence[Any]) -> None:
    """Fail with the first failure's own traceback."""
    for number, end in enumerate(ends):
        if isinstance(end, Failure):
            raise AssertionError(f"process {number} failed:\n{end.trace}")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended."""

    signal: int | None
    """The signal that killed it; None where it came to its end."""
    value: Any = None
    """The task's result, or :class:`Failure`; None where it was killed."""

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self.signal == signal.SIGKILL


class Child:
    """A forked process with one task."""

    def __init__(self, nursery: "Nursery", pid: int, pipe: Connection) -> None:
        self._nursery, self.pid, self._pipe = nursery, pid, pipe

    def wait_begun(self) -> bool:
        """Wait until the task itself begins; return False where it is dead already."""
        try:
            return bool(_receive(self._pipe, "a child")[0] == "begun")
        except AssertionError:
            return False

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal. Until :meth:`join` its number is nobody else's."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def join(self) -> Ending:
        """Wait for its end."""
        value = None
        try:
            while self._pipe.poll(PATIENCE):
                kind, value = self._pipe.recv()
                if kind == "done":
                    break
            else:
                self.signal()
                raise AssertionError(f"a child said nothing for {PATIENCE} s")
        except (EOFError, ConnectionResetError):
            value = None
        self._pipe.close()
        status = self._nursery.reap(self.pid)
        if os.WIFSIGNALED(status):
            return Ending(os.WTERMSIG(status))
        assert os.WEXITSTATUS(status) == 0, f"a child ended with status {status}"
        return Ending(None, value)


class Nursery:
    """An interpreter that has all imported and forks children."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rz-")
        self._listener = Listener(f"{self._folder.name}/s", "AF_UNIX")
        self._process, (self._pipe,) = _start("nursery")

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        _stop(self._process, [self._pipe])
        self._listener.close()
        self._folder.cleanup()

    def start(self, task: Task) -> Child:
        """Fork a child."""
        self._pipe.send(("start", self._listener.address, task))
        pid = _receive(self._pipe, "the nursery")
        return Child(self, pid, self._listener.accept())

    def reap(self, pid: int) -> int:
        """Wait for the end of a child, and return its status."""
        self._pipe.send(("reap", pid))
        return int(_receive(self._pipe, "the nursery"))

    def time(self, task: Task) -> float:
        """Run a task to its end; return the seconds from its beginning."""
        child = self.start(task)
        assert child.wait_begun()
        begun = time.monotonic()
        ending = child.join()
        assert ending.signal is None, ending
        no_failures([ending.value])
        return time.monotonic() - begun


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables set in this process."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def can_be_sent(value: Any) -> bool:
    """Return whether a value can go to another process."""
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
