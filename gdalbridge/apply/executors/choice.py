"""Which executor is meant."""

import sys
from typing import TypeGuard

from gdalbridge.apply.executors.local import (
    BorrowedExecutor,
    Executor,
    SerialExecutor,
    ThreadExecutor,
)
from gdalbridge.errors import ExecutorError

__all__ = ["make_executor"]

KINDS = (
    'expected "serial", "threads", "processes", "dask", the address of a Dask scheduler '
    '("tcp://host:8786"), a distributed.Client, or an executor'
)


def make_executor(kind: object = "serial", workers: int | None = None) -> Executor:
    """Return an executor; who has it made closes it.

    Parameters
    ----------
    kind : str, distributed.Client or Executor
        ``"serial"``: one block after another. ``"threads"`` and ``"processes"``: on this machine.
        ``"dask"``: with the Dask client that is current; or one that is given here, or the address
        of a scheduler. An executor of somebody else's is left open when what is returned is closed.
    workers : int, optional
        How many threads or processes; by default one for each processor. Serial work has one
        worker, whatever is asked for: so a script can be tried with nothing else changed.

    Raises
    ------
    ExecutorError
        For anything else, a number of workers below 1 or one that another decides on, and where no
        Dask client is to be had.
    PackageMissingError
        Where a package that it needs is not installed.
    """
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ExecutorError(f"the number of workers is at least 1: got {workers!r}")
    if kind == "threads":
        return ThreadExecutor(workers)
    if kind == "processes":
        # Here, as neither is needed by those who work otherwise.
        from gdalbridge.apply.executors.processes import ProcessExecutor

        return ProcessExecutor(workers)
    if kind == "serial":
        return SerialExecutor()
    if _is_dask(kind):
        from gdalbridge.apply.executors.dask import DaskExecutor

        _nobody_decides(workers, "a Dask cluster has the workers that it has")
        return DaskExecutor(None if kind == "dask" else kind)
    if _is_executor(kind):
        _nobody_decides(workers, "an executor has the workers that it has")
        return BorrowedExecutor(kind)
    hint = "; make a distributed.Client of the cluster" if _is_cluster(kind) else ""
    raise ExecutorError(f"no executor is called {kind!r}: {KINDS}{hint}")


def _nobody_decides(workers: int | None, why: str) -> None:
    if workers is not None:
        raise ExecutorError(f"{why}: their number can't be asked for, got workers={workers}")


def _is_dask(kind: object) -> bool:
    if isinstance(kind, str):
        return kind == "dask" or "://" in kind
    # Nobody has a client who has not imported it; it takes a second, and may not be installed.
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(kind, distributed.Client)


def _is_executor(kind: object) -> TypeGuard[Executor]:
    names = ("kind", "in_process", "workers", "results", "close")
    return all(hasattr(kind, name) for name in names)


def _is_cluster(kind: object) -> bool:
    return hasattr(kind, "scheduler_address")
