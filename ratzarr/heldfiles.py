"""A file under a hidden name, held by its lock for as long as somebody writes it.

A lock goes with the process that held it. So a hidden file that nobody holds is what a
dead process left, and what another is writing just now is told from it.
"""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from .localfiles import HAS_LOCKS, lock_if_free

__all__ = ["discard", "new_held", "writer_is_dead"]

_OPEN = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def new_held(
    named: Callable[[], str], folder: int | None = None, *, locks_needed: bool = True
) -> tuple[io.FileIO, str]:
    """Create an empty file that is held until it is closed.

    Parameters
    ----------
    named : callable
        Returns another name at each call.
    folder : int, optional
        The open directory that the name is looked for in.
    locks_needed : bool
        Whether it is an error that files can't be locked there. Where it is none, nothing is
        ever taken for a dead process's there either.

    Returns
    -------
    io.FileIO
        The file, open for reading and writing. To be closed by ``with``, and no duplicates of its
        descriptor: see :func:`~ratzarr.localfiles.locked`.
    str
        Its name.
    """
    while True:
        name = named()
        file = io.FileIO(
            os.open(name, _OPEN | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder), "r+b"
        )
        try:
            # Somebody who sweeps may have taken it for a stray one before it was locked.
            if _is_held(file, locks_needed) and os.fstat(file.fileno()).st_nlink:
                return file, name
        except BaseException:
            discard(file, name, folder)
            raise
        discard(file, name, folder)


def _is_held(file: io.FileIO, locks_needed: bool) -> bool:
    if not HAS_LOCKS and not locks_needed:  # pragma: no cover - Windows
        return True
    try:
        return lock_if_free(file.fileno())
    except OSError:
        if locks_needed:
            raise
        return True


def discard(file: io.FileIO, name: str, folder: int | None = None) -> None:
    """Close a file, and remove it."""
    file.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def writer_is_dead(path: Path, *, remove: bool = False) -> bool:
    """Return whether nobody holds a file; remove it then, if asked to.

    Under its lock: else its writer could take that between our look and the removal.
    """
    if not HAS_LOCKS:  # pragma: no cover - Windows
        return False
    try:
        file = os.open(path, _OPEN | _NONBLOCK)
    except OSError:
        return False
    try:
        free = lock_if_free(file)
        if free and remove:
            path.unlink(missing_ok=True)
        return free
    except OSError:
        return False
    finally:
        os.close(file)
