"""An executor with worker processes."""

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
"""An item may cost so many workers; with the next it is given up. (Dask counts alike.)"""
PATIENCE = 30.0
"""Seconds that a worker has for what it does at its end; it may have to write what waits."""


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
        self._closed = False
        self._crew = [_Worker() for _ in range(self.workers)]
        # The last one first: a worker begins only where all that have begun are busy.
        self._idle = LifoQueue[_Worker]()
        for worker in self._crew:
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
            for worker in self._crew:
                worker.kill()

        def abandon(futures: Sequence[Future[R]], by_keyboard: bool) -> None:
            if by_keyboard:
                stop()
            settle(futures, stop)

        most = window(ahead, self.workers)
        yield from in_order(begin, items, lambda: most, abandon, Future.result)

    def _outcome(self, run: "_Run", number: int, content: bytes) -> Any:
        """Return the result for an item, however many workers that costs."""
        for _ in range(self._losses + 1):
            # There are as many workers as threads.
            worker = self._idle.get()
            try:
                went_well, value = worker.ask(run, content)
                break
            except _LostError as lost:
                ending = str(lost)
            finally:
                self._idle.put(worker)
        else:
            raise WorkerLostError(
                f"item {number} ({reprlib.repr(loads(content))}) was given up: "
                f"{self._losses + 1} worker processes, one after the other, came to their end "
                f"while they worked on it. Of the last: {ending}"
            )
        if went_well:
            return value
        raise value

    def close(self) -> None:
        """End the processes, once they have done what they do at their end."""
        self._closed = True
        try:
            self._threads.shutdown(cancel_futures=True)
        finally:
            for worker in self._crew:
                worker.dismiss()
            for worker in self._crew:
                worker.wait()


class _Run:
    """One function, applied to many items."""

    def __init__(self, order: bytes) -> None:
        self.order = order
        self.stopped = False


class _LostError(Exception):
    """A worker came to its end with an item in hand."""

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
    """A process that works on one item at a time; it is begun again where it came to its end.

    Each is a pool of its own. One that dies breaks its pool: in a common one, that would cost the
    items of all others too, and nobody would know which item it was.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._context = _Context()
        self._run: _Run | None = None

    def ask(self, run: _Run, content: bytes) -> tuple[bool, Any]:
        """Have the function applied to an item; return whether it went well, and what came of it.

        Raises
        ------
        _LostError
            Where the process comes to its end before it answers.
        WorkerLostError
            Where it can't even begin.
        CancelledError
            Where the run is stopped.
        """
        pool = self._pool or self._begin(run)
        # A function is sent to each worker once.
        order = None if self._run is run else run.order
        went_well, value = loads(self._answer(pool, run, apply, order, content))
        if went_well:
            self._run = run
        return went_well, value

    def _begin(self, run: _Run) -> ProcessPoolExecutor:
        self._context = _Context()
        try:
            pool = ProcessPoolExecutor(1, self._context, initializer=watch_parent)
            self._answer(pool, run, os.getpid)
        except (OSError, _LostError) as error:
            if isinstance(error, _LostError) and error.killed:
                raise
            raise WorkerLostError(
                f"a worker process ({os.fsdecode(get_executable())}) can't begin: {error}; "
                "what it said is on standard error"
            ) from error
        # Its own copy of the end that the worker writes to: were it left open, a worker that is
        # killed while it sends a result would be waited for, for ever.
        self._context.results._writer.close()  # type: ignore[attr-defined]
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
                # The order to stop may have come before there was a process to be killed.
                self.kill()
            return future.result()
        except BrokenProcessPool as error:
            pool.shutdown()
            self._pool = self._run = None
            if run.stopped:
                raise CancelledError from error
            raise _LostError(self._context.process.exitcode) from error
        finally:
            # Its error's traceback leads back here: a circle, which would keep the pool's semaphores
            # until the garbage collector comes, perhaps in the middle of a call that makes others.
            future = None

    def kill(self) -> None:
        """End it now, whatever it is doing; may be called from any thread."""
        if self._context.process.pid is not None:
            self._context.process.kill()

    def dismiss(self) -> None:
        """Tell it to end; it does what it has to do at its end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._pool is not None:
            process = self._context.process
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


class _Context(SpawnContext):
    """Makes what a pool of one process needs, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.process = _Process()
        self.results: SimpleQueue[Any]

    def Process(self, *arguments: Any, **keywords: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        """Return the process."""
        self.process = _Process(*arguments, **keywords)
        return self.process

    def SimpleQueue(self) -> SimpleQueue[Any]:  # noqa: N802
        """Return the queue of results."""
        self.results = super().SimpleQueue()
        return self.results


class _Process(SpawnProcess):
    def start(self) -> None:
        """Begin, without the script as its ``__main__``, and deaf to Ctrl-C.

        What is sent is pickled by value, so nothing needs the script to be imported: it would run
        once more, but for what ``if __name__ == "__main__":`` guards. Ctrl-C in a terminal reaches
        all of its processes: the parent says who has to stop.
        """
        main = sys.modules["__main__"]
        # All of it but its name and place, should another thread look meanwhile.
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
