"""Executors: run a function on blocks in this thread, in threads, in processes, or on Dask.

An executor maps a function over blocks and yields the results in order, with a limited number of
blocks in progress. The results do not depend on the executor. Executors differ only in where the
function runs, and in how they handle failures of a process or machine.

>>> from contextlib import closing
>>> with closing(make_executor("threads", workers=2)) as executor:
...     list(executor.results(lambda start: start * 2, range(3)))
[0, 2, 4]
"""

import sys
from typing import TypeGuard

from gdalbridge.apply.executors.local import Executor, SerialExecutor, ThreadExecutor
from gdalbridge.errors import ExecutorError

__all__ = ["Executor", "make_executor"]

KINDS = (
    'expected "serial", "threads", "processes", "dask", the address of a Dask scheduler '
    '("tcp://host:8786"), a distributed.Client, or an executor'
)


def make_executor(kind: object = "serial", workers: int | None = None) -> Executor:
    """Return an executor. The caller closes it, unless it existed before.

    Parameters
    ----------
    kind : str, distributed.Client or Executor
        ``"serial"``: one block after another. ``"threads"`` or ``"processes"``: in parallel on
        this machine. ``"dask"``: with the current Dask client. A Dask client or the address of a
        scheduler selects another cluster. An existing executor is returned as it is.
    workers : int, optional
        Number of threads or processes; by default one for each processor. A serial executor
        always has one worker and ignores this, so that a script can be tested by changing only
        ``kind``.

    Raises
    ------
    ExecutorError
        If ``kind`` is unknown, ``workers`` is below 1 or can't be chosen for this kind, or no Dask
        client is available.
    PackageMissingError
        If a package that the executor needs is not installed.
    """
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ExecutorError(f"the number of workers must be at least 1: got {workers!r}")
    if kind == "threads":
        return ThreadExecutor(workers)
    if kind == "processes":
        # Imported only when needed, because the other kinds work without it.
        from gdalbridge.apply.executors.processes import ProcessExecutor

        return ProcessExecutor(workers)
    if kind == "serial":
        return SerialExecutor()
    if _is_dask(kind):
        from gdalbridge.apply.executors.dask import DaskExecutor

        _check_no_workers(workers, "a Dask cluster")
        return DaskExecutor(None if kind == "dask" else kind)
    if _is_executor(kind):
        _check_no_workers(workers, "an existing executor")
        return kind
    hint = "; make a distributed.Client of the cluster" if _is_cluster(kind) else ""
    raise ExecutorError(f"no executor is called {kind!r}: {KINDS}{hint}")


def _check_no_workers(workers: int | None, owner: str) -> None:
    if workers is not None:
        raise ExecutorError(
            f"{owner} has a number of workers of its own: got workers={workers}, expected None"
        )


def _is_dask(kind: object) -> bool:
    if isinstance(kind, str):
        return kind == "dask" or "://" in kind
    # A program with a client has imported distributed. Importing it takes a second, and it may not
    # be installed, so it is not imported here.
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(kind, distributed.Client)


def _is_executor(kind: object) -> TypeGuard[Executor]:
    names = ("kind", "in_process", "workers", "results", "close")
    return all(hasattr(kind, name) for name in names)


def _is_cluster(kind: object) -> bool:
    return hasattr(kind, "scheduler_address")
