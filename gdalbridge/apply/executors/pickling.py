"""Functions and results sent between processes."""

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
    "with_story",
]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process finds around it."""

    environment: dict[str, str] = field(repr=False)
    """All of it, credentials included: they go from one process to its child, nowhere else."""
    directory: str | None
    path: tuple[str, ...]
    arguments: tuple[str, ...]
    """The command line, which the modification log of a column tells."""
    gdal: dict[str, str] = field(repr=False)
    """Options of GDAL's that the program has set, of the process and of the calling thread."""

    @classmethod
    def here(cls) -> Self:
        """Return those of this process."""
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
        """Make them those of this process.

        Parameters
        ----------
        before : Surroundings, optional
            What was entered before.
        """
        # Never empty in between: other threads of the process read it.
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
        # Then the program has set none.
        return {}
    from gdalbridge.gdalio.compat import gdal

    if hasattr(gdal, "GetConfigOptions"):
        return dict(gdal.GetConfigOptions())
    # Before 3.7 they can't be listed, only asked for by name.
    asked = {name: gdal.GetConfigOption(name) for name in NAMES}
    return {
        name: value
        for name, value in asked.items()
        if value is not None and value != os.environ.get(name)
    }


loads = pickle.loads
"""What cloudpickle makes is an ordinary pickle."""


def ensure(extra: str) -> None:
    """Check that cloudpickle is there.

    Parameters
    ----------
    extra : str
        The extra of this package that brings it along.
    """
    try:
        import cloudpickle  # noqa: F401 - only to see that it is there
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
    """Return a value as bytes, or say in words why that can't be.

    Parameters
    ----------
    what : str
        What the value is, for the error's message.

    Raises
    ------
    NotSendableError
        Where it holds what belongs to one process (an open file, a lock, a dataset of GDAL's).
    """
    try:
        return dumps(value)
    # Whatever a class's own __reduce__ raises.
    except Exception as error:
        raise NotSendableError(
            f"{what} can't be sent to another process: {type(error).__name__}: {error}. Open "
            "files, locks and GDAL's objects belong to one process: open them in the function "
            "itself, or take the executor 'serial' or 'threads', which sends nothing"
        ) from error


def portable(error: BaseException) -> BaseException:
    """Return an error that survives being sent; its own, where it does.

    Not every exception can be made again from its pickle, and one that can't would be a riddle
    at the other end.
    """
    try:
        made: Any = loads(dumps(error))
        if type(made) is type(error):
            return error
    except Exception as reason:
        said = f"{type(reason).__name__}: {reason}"
    else:
        said = f"it arrives as {type(made).__name__}"
    kind = type(error)
    stand_in = TaskError(f"{kind.__module__}.{kind.__qualname__}: {error}")
    for note in getattr(error, "__notes__", ()):
        stand_in.add_note(note)
    stand_in.add_note(f"(the exception itself can't be sent from another process: {said})")
    return stand_in


def with_story(error: BaseException, where: str) -> BaseException:
    """Return an error to be sent, with its traceback as a note: tracebacks stay behind."""
    story = "".join(traceback.format_exception(error))
    sent = portable(error)
    sent.add_note(f"In {where}:\n{story.rstrip()}")
    return sent
