"""A file on a disk that is written under a hidden name, and gets its own when it is whole.

The hidden name says which file it is to become, and the process that writes it holds its
lock. So whoever writes that file next finds what a process left that was killed, and
removes it; what another is writing just now stays.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "seg.tif"
>>> with partial_file(path) as (file, hidden):
...     _ = os.write(file, b"whole")
...     name_it(hidden, path, overwrite=False)
>>> path.read_bytes()
b'whole'
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from .localfiles import HAS_LOCKS, lock_if_free

__all__ = ["name_it", "partial_file"]

_OPEN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[tuple[int, Path]]:
    """Open a hidden file beside a path, for reading and writing.

    At the end it is removed, if it has not got its name by then.

    Yields
    ------
    file : int
        Its descriptor.
    hidden : Path
        What it is called.
    """
    # A name that nobody takes for a raster's, and short where that is long.
    mark = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    _sweep(path.parent, mark)
    file, hidden = _created(path.parent, mark)
    try:
        yield file, hidden
    finally:
        os.close(file)
        hidden.unlink(missing_ok=True)


def name_it(hidden: Path, path: Path, *, overwrite: bool) -> None:
    """Give a finished file its name.

    Raises
    ------
    FileExistsError
        Where something is there, and is not to be replaced.
    """
    if overwrite:
        hidden.replace(path)
        return
    try:
        # The one way to name a finished file only if the name is free.
        os.link(hidden, path)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(path):
            raise FileExistsError(f"{path} is there already") from None
        hidden.rename(path)


def _created(folder: Path, mark: str) -> tuple[int, Path]:
    while True:
        hidden = folder / f".{mark}{secrets.token_hex(10)}.partial"
        file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o666)
        try:
            # One that sweeps may have found it before it was locked.
            if not HAS_LOCKS or (lock_if_free(file) and os.fstat(file).st_nlink):
                return file, hidden
        except OSError:
            # A file system without locks: nothing is swept there either.
            return file, hidden
        os.close(file)
        hidden.unlink(missing_ok=True)


def _sweep(folder: Path, mark: str) -> None:
    """Remove what processes have left that are no more."""
    hidden = re.compile(rf"\.{mark}[0-9a-f]{{20}}\.partial")
    # It is a favour: what can't be removed has never stood in anybody's way.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [one.name for one in entries if hidden.fullmatch(one.name)]:
            if not HAS_LOCKS:
                return
            file = os.open(folder / name, os.O_RDWR | _OPEN | getattr(os, "O_NONBLOCK", 0))
            try:
                if lock_if_free(file):
                    (folder / name).unlink()
            finally:
                os.close(file)
