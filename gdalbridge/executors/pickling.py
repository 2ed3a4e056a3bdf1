"""Functions, items, results and errors as bytes, for other processes.

Functions that are defined in a script, a notebook or another function are sent as they are,
by cloudpickle; those of a module that can be imported, by their name.
"""

import pickle
import traceback
from typing import Any

from ..errors import NotSendableError, PackageMissingError, TaskError

__all__ = ["dumps", "ensure", "loads", "portable", "sendable", "with_story"]

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
