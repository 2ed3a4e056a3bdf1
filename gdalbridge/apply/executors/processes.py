"""An executor that runs functions in worker processes."""

import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.spawn import get_executable
from queue import LifoQueue
from types import ModuleType
from typing import Any

from gdalbridge.apply.executors.local import in_order, processors, settle, window
from gdalbridge.apply.executors.pickling import Surroundings, dumps, ensure, loads, sendable
from gdalbridge.apply.executors.worker import apply, watch_parent
from gdalbridge.errors import ExecutorError, WorkerLostError

__all__ = ["LOSSES", "ProcessExecutor"]

LOSSES = 3
"""Maximum number of lost workers after which an item is repeated, as in Dask."""
PATIENCE = 30.0
"""Seconds that a worker has to exit. It may have to write pending changes."""


class ProcessExecutor:
    """Runs items in several processes; see :class:`Executor`.

    Processes start when they are first needed, and run until the executor is closed.

    Parameters
    ----------
    workers : int, optional
        Number of processes; by default one for each processor.
    losses : int
        Maximum number of lost workers after which an item is repeated. Losing one more is an
        error.
    """

    kind = "processes"
    in_process = False

    def __init__(self, workers: int | None = None, *, losses: int = LOSSES) -> None:
        ensure("processes")
        self.workers = workers or processors()
        self._losses = losses
        self._closed = False
        self._all = [_Worker() for _ in range(self.workers)]
        # Last in, first out: a new process starts only if all running ones are busy.
        self._idle = LifoQueue[_Worker]()
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.workers, "worker-process")

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in order."""
        if self._closed:
            raise ExecutorError("this executor of processes is closed")
        pickled = sendable(task, f"the function {getattr(task, '__qualname__', task)}")
        run = _Run(dumps((Surroundings.here(), pickled)))

        def begin(number: int, item: T) -> Future[R]:
            content = sendable(item, f"item {number}")
            return self._threads.submit(self._outcome, run, number, content)

        def stop() -> None:
            run.stopped = True
            for worker in self._all:
                worker.kill()

        def abandon(futures: Sequence[Future[R]], by_keyboard: bool) -> None:
            if by_keyboard:
                stop()
            settle(futures, stop)

        most = window(ahead, self.workers)
        yield from in_order(begin, items, lambda: most, abandon, Future.result)

    def _outcome(self, run: "_Run", number: int, content: bytes) -> Any:
        """Return the result for an item; repeat the item if its worker is lost."""
        for _ in range(self._losses + 1):
            # This never waits, because there are as many workers as threads.
            worker = self._idle.get()
            try:
                succeeded, value = worker.ask(run, content)
                break
            except _LostError as lost:
                ending = str(lost)
            finally:
                self._idle.put(worker)
        else:
            raise WorkerLostError(
                f"item {number} ({reprlib.repr(loads(content))}) was given up, because "
                f"{self._losses + 1} worker processes ended while they worked on it. The last "
                f"one: {ending}"
            )
        if succeeded:
            return value
        raise value

    def close(self) -> None:
        """End the processes, after their exit handlers have run."""
        self._closed = True
        try:
            self._threads.shutdown(cancel_futures=True)
        finally:
            for worker in self._all:
                worker.shut_down()
            for worker in self._all:
                worker.wait()


class _Run:
    """One function, applied to many items."""

    def __init__(self, order: bytes) -> None:
        self.order = order
        self.stopped = False


class _LostError(Exception):
    """A worker ended before it returned the result of its item."""

    def __init__(self, code: int | None) -> None:
        self.killed = code is not None and code < 0
        ending = f"it exited with status {code}"
        if code is not None and code < 0:
            number = -code
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            hint = ", as happens when memory runs out" if number == signal.SIGKILL else ""
            ending = f"it was killed by {name}{hint}"
        super().__init__(ending)


class _Worker:
    """A process that works on one item at a time, and is started again if it ends.

    Each process has a pool of its own, because a process that dies breaks its pool. In a shared
    pool, all items in progress would fail, and the item that caused it would be unknown.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._context = _Context()
        self._run: _Run | None = None
        self._ending: threading.Thread | None = None

    def ask(self, run: _Run, content: bytes) -> tuple[bool, Any]:
        """Apply the function to an item; return (True, its result) or (False, its error).

        Raises
        ------
        _LostError
            If the process ends before it answers.
        WorkerLostError
            If the process can't start.
        CancelledError
            If the run is stopped.
        """
        pool = self._pool or self._begin(run)
        # Each worker gets the function once.
        order = None if self._run is run else run.order
        succeeded, value = loads(self._answer(pool, run, apply, order, content))
        if succeeded:
            self._run = run
        return succeeded, value

    def _begin(self, run: _Run) -> ProcessPoolExecutor:
        self._context = _Context()
        try:
            pool = ProcessPoolExecutor(1, self._context, initializer=watch_parent)
            self._answer(pool, run, os.getpid)
        except (OSError, _LostError) as error:
            if isinstance(error, _LostError) and error.killed:
                raise
            raise WorkerLostError(
                f"a worker process ({os.fsdecode(get_executable())}) can't start: {error}. See "
                "standard error for its messages."
            ) from error
        # Close the parent's copy of the pipe's writing end. Otherwise the parent would wait for ever
        # if the worker is killed while it sends a result. The class has no public name for it.
        self._context.results._writer.close()  # type: ignore[attr-defined]  # only its private end can be closed
        self._pool = pool
        return pool

    def _answer[R, **P](
        self,
        pool: ProcessPoolExecutor,
        run: _Run,
        function: Callable[P, R],
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> R:
        future: Future[R] | None = None
        try:
            future = pool.submit(function, *arguments, **keywords)
            if run.stopped:
                # The run may have been stopped before this process existed.
                self.kill()
            return future.result()
        except BrokenProcessPool as error:
            pool.shutdown()
            self._pool = self._run = None
            if run.stopped:
                raise CancelledError from error
            raise _LostError(self._context.process.exitcode) from error
        finally:
            # The error's traceback refers to this frame, and the frame to the error. This cycle
            # would keep the pool's semaphores until the garbage collector runs, perhaps in the
            # middle of a call that creates semaphores.
            future = None

    def kill(self) -> None:
        """Kill the process at once. May be called from any thread."""
        if self._context.process.pid is not None:
            self._context.process.kill()

    def shut_down(self) -> None:
        """Tell the process to exit normally, and return at once."""
        if self._pool is not None:
            # A pool whose own thread still ends when the program does writes an error to stderr.
            self._ending = threading.Thread(target=self._pool.shutdown, daemon=True)
            self._ending.start()

    def wait(self) -> None:
        """Wait until the process has ended; kill it after a time limit."""
        if self._pool is not None:
            process = self._context.process
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
        if self._ending is not None:
            self._ending.join(PATIENCE)


class _Context(SpawnContext):
    """Creates the process and the result queue of a pool with one process, and keeps them."""

    # The names are those of multiprocessing's contexts, where Process is a class and no method.

    def __init__(self) -> None:
        super().__init__()
        self.process = _Process()
        self.results: SimpleQueue[Any]

    def Process(self, *arguments: Any, **keywords: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802 - there a class
        """Create and keep the process."""
        self.process = _Process(*arguments, **keywords)
        return self.process

    def SimpleQueue(self) -> SimpleQueue[Any]:  # noqa: N802 - multiprocessing's name
        """Create and keep the queue of results."""
        self.results = super().SimpleQueue()
        return self.results


class _Process(SpawnProcess):
    def start(self) -> None:
        """Start the process without importing the script, and with Ctrl-C blocked.

        Functions are pickled by value, so the worker does not need the script. Importing it would
        run it again, unless ``if __name__ == "__main__":`` guards it. Ctrl-C in a terminal signals
        all processes, but the parent decides when to stop workers.
        """
        main = sys.modules["__main__"]
        # The copy keeps all attributes but spec and file, in case another thread uses it meanwhile.
        nameless = ModuleType("__main__")
        vars(nameless).update(vars(main), __spec__=None, __file__=None)
        with _starting:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            sys.modules["__main__"] = nameless
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


_starting = threading.Lock()
