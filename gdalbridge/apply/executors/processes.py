"""An executor with worker processes."""

import os
import reprlib
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.spawn import get_executable
from typing import Any

from gdalbridge.apply.executors.local import in_order, processors, settle, window
from gdalbridge.apply.executors.pickling import Surroundings, dumps, ensure, loads, sendable
from gdalbridge.apply.executors.worker_main import END, HELLO, ITEM, LOOK, ORDER
from gdalbridge.errors import ExecutorError, WorkerLostError

__all__ = [
    "LOSSES",
    "LostError",
    "Order",
    "ProcessExecutor",
    "Worker",
]


PATIENCE = 30.0
"""Seconds that a worker has for what it does at its end; it may have to write what waits."""

_BEGIN = (
    "import sys; sys.path[:] = {path!r}; "
    "from gdalbridge.apply.executors.worker_main import main; main({descriptor})"
)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A function with its surroundings, to be sent to each worker once."""

    content: bytes


class LostError(Exception):
    """A worker came to its end with an item in hand."""


class Worker:
    """A process that works on one item at a time.

    Raises
    ------
    WorkerLostError
        Where it can't even begin.
    """

    def __init__(self) -> None:
        ours, theirs = Pipe()
        program = _BEGIN.format(
            path=[str(entry) for entry in sys.path], descriptor=theirs.fileno()
        )
        options = [f"-W{option}" for option in sys.warnoptions]
        with theirs:
            self._process = subprocess.Popen(
                [os.fsdecode(get_executable()), *options, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._channel = ours
        self._order: Order | None = None
        try:
            hello = self._receive()
        except (EOFError, OSError):
            hello = b""
        if hello != HELLO:
            self.kill()
            self.wait()
            if (self._process.returncode or 0) < 0:
                raise LostError(self.ending())
            raise WorkerLostError(
                f"a worker process ({os.fsdecode(get_executable())}) can't begin: {self.ending()}; "
                "what it said is on standard error"
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Return whether it is there, and can be asked."""
        return self._process.poll() is None

    def ask(self, order: Order, item: bytes) -> tuple[bool, Any]:
        """Have the function applied to an item; return whether it went well, and what came of it.

        Raises
        ------
        LostError
            Where the process comes to its end before it answers.
        """
        try:
            if self._order is not order:
                self._channel.send_bytes(ORDER)
                self._channel.send_bytes(order.content)
                self._order = order
            self._channel.send_bytes(ITEM)
            self._channel.send_bytes(item)
            answer = self._receive()
        except (EOFError, OSError) as error:
            self.kill()
            self.wait()
            raise LostError(self.ending()) from error
        went_well, value = loads(answer)
        return went_well, value

    def _receive(self) -> bytes:
        while not self._channel.poll(LOOK):
            # Looked at once more: it may have answered, and then ended.
            if not self.is_alive() and not self._channel.poll():
                raise EOFError
        return self._channel.recv_bytes()

    def ending(self) -> str:
        """Return in words how it came to its end."""
        code = self._process.returncode
        if code is None or code >= 0:
            return f"it exited with status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", as happens when memory runs out" if -code == signal.SIGKILL else ""
        return f"it was killed by {name}{hint}"

    def kill(self) -> None:
        """End it now, whatever it is doing; may be called from any thread."""
        self._process.kill()

    def dismiss(self) -> None:
        """Tell it to end; it does what it has to do at its end."""
        # It may have ended already, or be told by the end of the connection.
        with suppress(OSError):
            self._channel.send_bytes(END)
            self._channel.send_bytes(b"")
        self._channel.close()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._channel.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()


LOSSES = 3
"""An item may cost so many workers; with the next it is given up. (Dask counts alike.)"""


class ProcessExecutor:
    """Does the work in several processes; see :class:`Executor`.

    They begin when they are first needed, and stay until the executor is closed.

    Parameters
    ----------
    workers : int, optional
        How many; by default one for each processor.
    losses : int
        How many workers an item may cost; with the next it is given up.
    """

    kind = "processes"
    in_process = False

    def __init__(self, workers: int | None = None, *, losses: int = LOSSES) -> None:
        ensure("processes")
        self.workers = workers or processors()
        self._losses = losses
        self._crew = _Crew()
        self._pool = ThreadPoolExecutor(self.workers, "worker-process")
        # Also of an executor that is forgotten, or there when the program ends.
        self._end = weakref.finalize(self, _end, self._pool, self._crew)

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in order."""
        if not self._end.alive:
            raise ExecutorError("this executor of processes is closed")
        pickled = sendable(task, f"the function {getattr(task, '__qualname__', task)}")
        run = _Run(Order(dumps((Surroundings.here(), pickled))), self._crew, self._losses)

        def begin(number: int, item: T) -> Future[R]:
            content = sendable(item, f"item {number}")
            return self._pool.submit(run.outcome, number, content)

        def abandon(futures: Sequence[Future[R]], by_keyboard: bool) -> None:
            if by_keyboard:
                run.stop()
            settle(futures, run.stop)

        most = window(ahead, self.workers)
        yield from in_order(begin, items, lambda: most, abandon, Future.result)

    def close(self) -> None:
        """End the processes, once they have done what they do at their end."""
        self._end()


def _end(pool: ThreadPoolExecutor, crew: "_Crew") -> None:
    try:
        pool.shutdown(cancel_futures=True)
    finally:
        crew.disband()


class _Crew:
    """The workers that there are."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self._busy: dict[Worker, object] = {}
        self._lock = threading.Lock()

    def take(self, run: object) -> Worker:
        """Return a worker that has nothing to do, perhaps a new one."""
        worker = self._one_that_is_idle(run)
        if worker is None:
            worker = Worker()
            with self._lock:
                self._busy[worker] = run
        return worker

    def _one_that_is_idle(self, run: object) -> Worker | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                worker = self._idle.pop()
                if worker.is_alive():
                    self._busy[worker] = run
                    return worker
            # It was killed while it had nothing to do.
            worker.wait()

    def put_back(self, worker: Worker, *, lost: bool) -> None:
        """Have a worker again that was taken."""
        with self._lock:
            del self._busy[worker]
            if not lost:
                self._idle.append(worker)

    def kill(self, run: object) -> None:
        """Kill who works for a run."""
        with self._lock:
            for worker, whose in self._busy.items():
                if whose is run:
                    worker.kill()

    def disband(self) -> None:
        """End all that are idle, together."""
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.wait()


class _Run:
    """One function, applied to many items."""

    def __init__(self, order: Order, crew: _Crew, losses: int) -> None:
        self._order, self._losses = order, losses
        self._crew = crew
        self._stopped = False

    def stop(self) -> None:
        """Have no more done, and kill who does it."""
        self._stopped = True
        self._crew.kill(self)

    def outcome(self, number: int, content: bytes) -> Any:
        """Return the result for an item, however many workers that costs."""
        endings: list[str] = []
        while len(endings) <= self._losses:
            if self._stopped:
                raise CancelledError
            try:
                return self._attempt(content)
            except LostError as lost:
                endings.append(str(lost))
        raise WorkerLostError(
            f"item {number} ({_shown(content)}) was given up: {len(endings)} worker processes, "
            f"one after the other, came to their end while they worked on it. Of the last: "
            f"{endings[-1]}"
        )

    def _attempt(self, content: bytes) -> Any:
        worker = self._crew.take(self)
        lost = True
        try:
            if self._stopped:
                # The order to stop may have come while the worker was being made.
                raise CancelledError
            went_well, value = worker.ask(self._order, content)
            lost = False
        finally:
            if lost:
                worker.kill()
                worker.wait()
            self._crew.put_back(worker, lost=lost)
        if went_well:
            return value
        raise value


def _shown(content: bytes) -> str:
    return reprlib.repr(loads(content))
