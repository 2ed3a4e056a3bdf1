"""Two directories change places in one step, where the system can do that.

Linux (``renameat2``) and macOS (``renamex_np``) can, on most of their own file systems;
Python has no function for it.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

__all__ = ["exchange"]

_SWAP = 2
"""``RENAME_EXCHANGE`` of Linux and ``RENAME_SWAP`` of macOS have the same number."""
_AT_FDCWD = -100
_CANT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def exchange(one: Path, other: Path) -> bool:
    """Let two existing directories change places.

    Returns
    -------
    bool
        False where the system, or this file system, can't do it: nothing has changed.

    Raises
    ------
    OSError
        For any other reason.
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _SWAP)
        else:  # pragma: no cover - macOS
            failed = libc.renamex_np(*names, _SWAP)
    except (AttributeError, TypeError, OSError):  # pragma: no cover - systems that have neither
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANT:  # pragma: no cover - depends on the file system
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
