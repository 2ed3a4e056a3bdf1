"""Pickle functions, results and errors to send them between processes."""

import os
import pickle
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any, Self

from gdalbridge.errors import NotSendableError, PackageMissingError, TaskError
from ratzarr.stores import NAMES

__all__ = [
    "Surroundings",
    "dumps",
    "ensure",
    "loads",
    "portable",
    "sendable",
    "with_traceback",
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The state of a process that a worker process must share with its parent."""

    environment: dict[str, str] = field(repr=False)
    """All environment variables, including credentials. They are sent only to child processes."""
    directory: str | None
    path: tuple[str, ...]
    arguments: tuple[str, ...]
    """The command line, which the modification log of a column contains."""
    gdal: dict[str, str] = field(repr=False)
    """GDAL options that the program has set, for the process and for the calling thread."""

    @classmethod
    def here(cls) -> Self:
        """Return the surroundings of this process."""
        try:
            directory = os.getcwd()  # noqa: PTH109 - as text, as it is sent
        except FileNotFoundError:
            directory = None
        return cls(
            dict(os.environ),
            directory,
            tuple(str(entry) for entry in sys.path),
            tuple(sys.argv),
            _gdal_options(),
        )

    def enter(self, before: Self | None = None) -> None:
        """Apply these surroundings to this process.

        Parameters
        ----------
        before : Surroundings, optional
            The surroundings applied last.
        """
        # The environment is never cleared, because other threads read it meanwhile.
        for name in set(os.environ) - set(self.environment):
            del os.environ[name]
        for name, value in self.environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        if self.directory is not None:
            os.chdir(self.directory)
        sys.path[:] = self.path
        sys.argv[:] = self.arguments
        known = {} if before is None else before.gdal
        if self.gdal != known:
            from gdalbridge.gdalio.compat import gdal

            for name in known | self.gdal:
                gdal.SetConfigOption(name, self.gdal.get(name))


def _gdal_options() -> dict[str, str]:
    if "osgeo.gdal" not in sys.modules:
        # A program that has not imported GDAL has set no options.
        return {}
    from gdalbridge.gdalio.compat import LISTS_OPTIONS, gdal

    if LISTS_OPTIONS:
        return dict(gdal.GetConfigOptions())
    asked = {name: gdal.GetConfigOption(name) for name in NAMES}
    return {
        name: value
        for name, value in asked.items()
        if value is not None and value != os.environ.get(name)
    }


loads = pickle.loads
"""Results of cloudpickle are ordinary pickles."""


def ensure(extra: str) -> None:
    """Check that cloudpickle is installed.

    Parameters
    ----------
    extra : str
        The extra of this package that installs it, for the error message.
    """
    try:
        import cloudpickle  # noqa: F401 - only to check that it is installed
    except ImportError as error:
        raise PackageMissingError(
            "work in other processes needs the package cloudpickle: "
            f"pip install 'ratzarr[{extra}]', or conda install cloudpickle"
        ) from error


def dumps(value: object) -> bytes:
    """Return a value as bytes."""
    import cloudpickle

    pickled: bytes = cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return pickled


def sendable(value: object, what: str) -> bytes:
    """Return a value as bytes.

    Parameters
    ----------
    what : str
        A description of the value for the error message.

    Raises
    ------
    NotSendableError
        If the value holds an object that belongs to one process: an open file, a lock, a GDAL
        dataset.
    """
    try:
        return dumps(value)
    # A class's own __reduce__ may raise any exception.
    except Exception as error:
        raise NotSendableError(
            f"{what} can't be sent to another process: {type(error).__name__}: {error}. Open "
            "files, locks and GDAL objects belong to one process: create them in the function "
            "itself, or use the executor 'serial' or 'threads', which sends nothing."
        ) from error


def portable(error: BaseException) -> BaseException:
    """Return the error if it can be pickled and unpickled, else a TaskError with its text.

    An exception that can't be unpickled would fail in the receiving process without its message.
    """
    try:
        made: Any = loads(dumps(error))
        if type(made) is type(error):
            return error
    except Exception as failure:
        reason = f"{type(failure).__name__}: {failure}"
    else:
        reason = f"it arrives as {type(made).__name__}"
    kind = type(error)
    replacement = TaskError(f"{kind.__module__}.{kind.__qualname__}: {error}")
    for note in getattr(error, "__notes__", ()):
        replacement.add_note(note)
    replacement.add_note(f"(the exception itself can't be sent from another process: {reason})")
    return replacement


def with_traceback(error: BaseException, where: str) -> BaseException:
    """Return an error to send, with its traceback as a note, because pickles lack tracebacks."""
    text = "".join(traceback.format_exception(error))
    sent = portable(error)
    sent.add_note(f"In {where}:\n{text.rstrip()}")
    return sent
