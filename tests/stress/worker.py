"""The program of the processes that :mod:`tests.stress.processes` starts."""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Generator
from contextlib import suppress
from multiprocessing.connection import Client, Connection
from typing import Any

from tests.stress import crashpoints
from tests.stress.processes import Failure, Task, can_be_sent


def failure(error: BaseException) -> Failure:
    """Describe an exception."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__)
    return Failure(kinds, str(error), "".join(traceback.format_exception(error)))


def function_of(task: Task) -> Any:
    """Return the function that a task names: in a module, or of a class in it."""
    module, _, name = task.function.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def crew(pipe: Connection) -> None:
    """Do one task after the other, until there is none."""
    while (task := pipe.recv()) is not None:
        os.environ.update(task.environment)
        try:
            value = function_of(task)(*task.arguments)
            if isinstance(value, Generator):
                value = _step_by_step(value, pipe)
        except Exception as error:
            value = failure(error)
        for name in task.environment:
            os.environ.pop(name, None)
        pipe.send(("done", value if can_be_sent(value) else repr(value)))


def _step_by_step(steps: Generator[Any, None, Any], pipe: Connection) -> Any:
    try:
        while True:
            pipe.send(("at", next(steps)))
            if pipe.recv() == "stop":
                steps.close()
                return None
    except StopIteration as end:
        return end.value


def prepare() -> None:
    """Import what children would have to import each for itself, and read what clients need."""
    for module in ("ratzarr", "ratzarr.stores.local", "ratzarr.stores.s3", "s3fs", "zarr",
                   "gdalbridge", "gdalbridge.copying.to_sidecar", "osgeo.gdal", "aiobotocore.session",
                   "tests.stress.operations", "tests.stress.copies"):  # fmt: skip
        importlib.import_module(module)
    from ratzarr.stores import s3_client

    s3_client.service_loader(None).load_service_model("s3", "service-2")


def crews(pipes: list[Connection]) -> None:
    """Fork a member of a crew for each pipe, and wait for their ends."""
    prepare()
    for pipe in pipes:
        if os.fork() == 0:
            for other in pipes:
                if other is not pipe:
                    other.close()
            status = 1
            try:
                crew(pipe)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
    # Who waits at the other end of one is to see when its member dies.
    for pipe in pipes:
        pipe.close()
    with suppress(ChildProcessError):
        while True:
            os.wait()


def nursery(pipe: Connection) -> None:
    """Fork children when told to, and bury them."""
    prepare()
    while (told := pipe.recv()) is not None:
        if told[0] == "reap":
            pipe.send(os.waitpid(told[1], 0)[1])
            continue
        pid = os.fork()
        if pid == 0:
            pipe.close()
            child(told[1], told[2])
        pipe.send(pid)


def child(address: str, task: Task) -> None:
    """Do one task, say what came of it, and end."""
    status = 1
    try:
        os.environ.update(task.environment)
        function = function_of(task)
        pipe = Client(address, "AF_UNIX")
        counted = crashpoints.install(task.crash_at) if task.crash_at is not None else None
        pipe.send(("begun", None))
        try:
            value = function(*task.arguments)
        except (Exception, KeyboardInterrupt) as error:
            value = failure(error)
        if counted is not None:
            value = (counted.events, value)
        pipe.send(("done", value if can_be_sent(value) else repr(value)))
        pipe.close()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    mode, *descriptors = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors]
    # Ctrl-C on a terminal reaches every process there; the one that started these ends them.
    if mode == "crew":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        crews(connections)
    else:
        nursery(*connections)
