"""The otherargs of a script: a copy for each block that is worked on beside others.

Blocks that are worked on at the same time can't share what they change. So each gets a
copy of the otherargs as they were given; whether a function has changed its copy is seen
from what it is pickled to, before and after.
"""

import copy
import hashlib
import pickle
from typing import Any

from .errors import ExecutorError

__all__ = ["OtherArguments", "fingerprint_of", "fresh_copy"]


class OtherArguments:
    """Whatever a function is to be given besides the tables, as attributes."""

    def __repr__(self) -> str:
        return f"OtherArguments({', '.join(self.__dict__)})"


def fresh_copy(otherargs: Any) -> Any:
    """Return a copy that shares nothing with the original.

    Raises
    ------
    ExecutorError
        Where there can be none.
    """
    if otherargs is None:
        return None
    try:
        return copy.deepcopy(otherargs)
    except Exception as error:
        raise ExecutorError(
            "the otherargs can't be copied, and each block that is worked on beside others needs "
            f'a copy: {error}; setExecutor("serial") needs none'
        ) from error


def fingerprint_of(otherargs: Any) -> bytes:
    """Return what is another if the same object has been changed in between.

    Raises
    ------
    ExecutorError
        Where it can't be known.
    """
    if otherargs is None:
        return b""
    digest, buffers = hashlib.blake2b(digest_size=16), list[pickle.PickleBuffer]()
    try:
        pickled = pickle.dumps(otherargs, protocol=5, buffer_callback=buffers.append)
    except Exception as error:
        buffers.clear()
        pickled = _by_value(otherargs, error)
    digest.update(pickled)
    for buffer in buffers:
        digest.update(buffer.raw())
    return digest.digest()


def _by_value(otherargs: Any, reason: Exception) -> bytes:
    """Pickle what is of a function's or a notebook's own classes."""
    try:
        import cloudpickle
    except ImportError:
        raise _unknown(reason) from reason
    try:
        pickled: bytes = cloudpickle.dumps(otherargs)
    except Exception as error:
        raise _unknown(error) from error
    return pickled


def _unknown(reason: Exception) -> ExecutorError:
    return ExecutorError(
        "the otherargs can't be pickled, so nobody knows whether the function changes them: "
        f'{reason}; setMerge(...) says what becomes of changes, setExecutor("serial") runs the '
        "blocks one after another"
    )
