"""An executor that runs functions on a Dask cluster."""

import reprlib
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gdalbridge.apply.executors.local import in_order, window
from gdalbridge.apply.executors.pickling import ensure, loads, portable, sendable
from gdalbridge.errors import ExecutorError, PackageMissingError, WorkerLostError

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = [
    "DaskExecutor",
    "apply",
    "carried",
    "stop",
]


MAX_CACHED_RUNS = 8
"""Number of recent runs whose unpickled functions a worker keeps."""
REMEMBERED = 1000
"""Number of recent stopped runs that a worker remembers."""

_tasks: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()
_stopped: OrderedDict[str, None] = OrderedDict()
_running: Counter[str] = Counter()
_lock = threading.Lock()


def carried(content: bytes) -> bytes:
    """Return the content unchanged. As a Dask task, it sends a large function to a worker once."""
    return content


def apply(run: str, pickled: bytes, content: bytes) -> Any:
    """Return the result for an item; None if the run was stopped before."""
    with _lock:
        if run in _stopped:
            # The item was cancelled on its way to the worker, so its result is not needed.
            return None
        _running[run] += 1
    try:
        return _task(run, pickled)(loads(content))
    except Exception as error:
        sent = portable(error)
        if sent is error:
            raise
        raise sent from error
    finally:
        with _lock:
            _running[run] -= 1
            if not _running[run]:
                del _running[run]


def _task(run: str, pickled: bytes) -> Callable[[Any], Any]:
    with _lock:
        if run not in _tasks:
            _tasks[run] = loads(pickled)
            while len(_tasks) > MAX_CACHED_RUNS:
                _tasks.popitem(last=False)
        _tasks.move_to_end(run)
        return _tasks[run]


def stop(run: str) -> int:
    """Refuse further items of a run, and return the number of its items in progress."""
    with _lock:
        _stopped[run] = None
        while len(_stopped) > REMEMBERED:
            _stopped.popitem(last=False)
        _tasks.pop(run, None)
        return _running[run]


SMALL = 64 * 1024
"""A pickled function up to this size in bytes is sent with each item. A larger one is sent to each
worker once, as the result of a Dask task. Dask can run the task again if all workers with the
result are lost; scattered data would be lost."""
FEWEST = 8
"""Minimum number of items in progress. An adaptive cluster grows only if it has items to do."""
ASK_SECONDS = 1.0
"""Seconds between requests for the number of workers."""
PAUSE = 0.05
"""Seconds between checks if running items have finished."""


class DaskExecutor:
    """Runs functions on the workers of a Dask cluster; see :class:`Executor`.

    Parameters
    ----------
    client : distributed.Client or str, optional
        A client, or the address of a scheduler. By default the current client.

    Raises
    ------
    ExecutorError
        If there is no current client, or the scheduler can't be reached.
    PackageMissingError
        If distributed or cloudpickle is not installed.
    """

    kind = "dask"
    in_process = False

    def __init__(self, client: object = None) -> None:
        ensure("dask")
        self._own = isinstance(client, str)
        self._client = _client(client)
        self._looked = 0.0
        self._threads = 0

    @property
    def workers(self) -> int:
        """Number of threads of all current workers; each thread runs one item."""
        if not self._looked or time.monotonic() - self._looked > ASK_SECONDS:
            self._threads = sum(self._client.nthreads().values())
            self._looked = time.monotonic()
        return self._threads

    def results[T, R](
        self, task: Callable[[T], R], items: Iterable[T], *, ahead: int | None = None
    ) -> Generator[R]:
        """Yield the task's result for each item, in order."""
        if self._client.status != "running":
            raise ExecutorError(
                f"{self._client} is {self._client.status}, and can't run functions"
            )
        name = getattr(task, "__qualname__", None) or type(task).__name__
        run = _Run(self._client, name, sendable(task, f"the function {name}"))

        def most() -> int:
            return window(ahead, self.workers) if ahead else max(FEWEST, 2 * self.workers)

        yield from in_order(run.begin, items, most, run.abandon, run.result)

    def close(self) -> None:
        """Close the client if this executor has made it. The cluster keeps running."""
        if self._own:
            self._client.close()


def _client(given: object) -> "Client":
    try:
        from distributed import Client, get_client
    except ImportError as error:
        raise PackageMissingError(
            "work on a Dask cluster needs the package distributed: "
            "pip install 'ratzarr[dask]', or conda install distributed"
        ) from error
    if isinstance(given, Client):
        client = given
    elif isinstance(given, str):
        try:
            client = Client(given, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ExecutorError(f"no Dask scheduler at {given}: {error}") from error
    elif given is None:
        try:
            client = get_client()
        except ValueError as error:
            raise ExecutorError(
                "no current Dask client: make one first (client = distributed.Client(...)), or "
                'pass a client or the address of a scheduler ("tcp://host:8786")'
            ) from error
    else:
        raise ExecutorError(
            f"expected a distributed.Client, or the address of a scheduler: got {given!r}"
        )
    if client.asynchronous:
        raise ExecutorError(
            f"{client} is asynchronous: expected a client made with asynchronous=False"
        )
    return client


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    number: int
    item: Any
    future: "Future[Any]"


class _Run:
    """One function, applied to many items."""

    def __init__(self, client: "Client", name: str, pickled: bytes) -> None:
        self._client = client
        self._id = uuid.uuid4().hex
        # The dashboard shows the key, and groups tasks by its part before the last hyphen.
        self._key = f"{''.join(c if c.isalnum() else '_' for c in name)}-{self._id}"
        self._pickled: bytes | Future[bytes] = pickled
        if len(pickled) > SMALL:
            self._pickled = self._submit(carried, pickled, key=f"function-{self._id}")

    def _submit(self, function: Callable[..., Any], *arguments: Any, key: Any) -> "Future[Any]":
        import dask

        # Dask warns about large arguments and advises futures, which this call is making.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return self._client.submit(function, *arguments, key=key, pure=False)

    def begin(self, number: int, item: object) -> _Begun:
        """Submit an item to the cluster."""
        # Pickled here, because Dask would search other objects for futures.
        content = sendable(item, f"item {number}")
        future = self._submit(apply, self._id, self._pickled, content, key=(self._key, number))
        return _Begun(number, item, future)

    def result(self, begun: _Begun) -> Any:
        """Wait for a result, fetch it, and release it on the cluster."""
        from distributed import KilledWorker

        try:
            value = begun.future.result()
        except KilledWorker as error:
            raise WorkerLostError(
                f"item {begun.number} ({reprlib.repr(begun.item)}) was given up: {error}"
            ) from error
        except CancelledError as error:
            if not begun.future.cancelled():
                # The function itself has raised it.
                raise
            raise WorkerLostError(
                f"item {begun.number} ({reprlib.repr(begun.item)}) was cancelled on the Dask "
                f"cluster, not by this program: {error}"
            ) from error
        begun.future.release()
        return value

    def abandon(self, waiting: Sequence[_Begun], by_keyboard: bool) -> None:
        """Cancel waiting items, and wait for running ones unless the user pressed Ctrl-C."""
        # If the scheduler is gone, nothing is left to cancel, and the first error matters more.
        with suppress(OSError, TimeoutError, CancelledError):
            self._client.cancel([begun.future for begun in waiting])
            while not by_keyboard and self._still_running():
                time.sleep(PAUSE)

    def _still_running(self) -> int:
        if self._client.status != "running":
            return 0
        # Lost workers are ignored: they run nothing.
        counts = self._client.run(stop, self._id, on_error="ignore")
        return sum(counts.values())
