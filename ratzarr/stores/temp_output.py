"""Temporary output with a hidden name beside its target, for programs that need a path.

A lock file beside the output is held while its process lives. It distinguishes the leftovers of
killed processes from output that is being written. The next process that writes to the directory
removes leftovers.

>>> import tempfile
>>> parent = Path(tempfile.mkdtemp())
>>> with temporary_path(parent, folder=True) as made:
...     _ = (made / "seg.tif").write_bytes(b"whole")
...     _ = (made / "seg.tif").rename(parent / "seg.tif")
>>> [path.name for path in parent.iterdir()]
['seg.tif']
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ratzarr.errors import StorePermissionError
from ratzarr.stores.local_files import discard, new_held, writer_is_dead

__all__ = [
    "leftovers",
    "link_file",
    "name_file",
    "remove_temporary",
    "sweep_leftovers",
    "temporary_path",
]

PREFIX, LOCK = ".ratzarr-", ".lock"
_MADE = re.compile(rf"({re.escape(PREFIX)}[0-9a-f]{{20}})(?:\..*)?", re.DOTALL)


@contextlib.contextmanager
def temporary_path(parent: Path, suffix: str = "", *, folder: bool = False) -> Iterator[Path]:
    """Yield a free hidden path in a directory; remove everything at that path at the end.

    First remove leftovers of dead processes from the directory.

    Parameters
    ----------
    parent : Path
        The directory.
    suffix : str
        Suffix of the path. Other files whose names continue it are removed too.
    folder : bool
        Create a directory, for this user alone.

    Raises
    ------
    StorePermissionError
        If no file can be created in the directory.
    """
    sweep_leftovers(parent)
    try:
        file, lock = new_held(
            lambda: str(parent / f"{PREFIX}{secrets.token_hex(10)}{LOCK}"), locks_needed=False
        )
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise StorePermissionError(
            f"can't write in {parent.absolute()}: {error.strerror}"
        ) from error
    made = Path(lock.removesuffix(LOCK) + suffix)
    _current[made] = lock
    try:
        if folder:
            made.mkdir(0o700)
        yield made
    finally:
        # Remove the lock last: without it, the files count as leftovers.
        try:
            _remove_all(made)
        finally:
            discard(file, lock)
            _current.pop(made, None)


def name_file(file: Path, target: Path, *, overwrite: bool = False) -> None:
    """Give a finished local file its name in the same file system.

    Raises
    ------
    FileExistsError
        If the name is taken and may not be replaced.
    """
    if overwrite:
        file.replace(target)
    elif link_file(file, target):
        file.unlink()


def link_file(file: Path, target: Path) -> bool:
    """Give a local file another name, which must be free; return True if it then has both.

    On a file system without hard links, the file is renamed.
    """
    try:
        # Only a hard link takes a name atomically if it is free.
        target.hardlink_to(file)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(f"{target} already exists") from None
        file.rename(target)
        return False
    return True


_current: dict[Path, str] = {}
"""This process's temporary output, with its locks."""


def _remove_all(made: Path) -> None:
    for name in _names(made.parent):
        if _stem(name) == _stem(made.name) and not name.endswith(LOCK):
            _remove(made.parent / name)


def remove_temporary() -> None:
    """Remove this process's temporary output: the process is about to end at once."""
    for made, lock in list(_current.items()):
        with contextlib.suppress(OSError):
            _remove_all(made)
            Path(lock).unlink(missing_ok=True)


def leftovers(parent: Path) -> list[str]:
    """Return the names of dead processes' leftovers in a directory."""
    names = _names(parent)
    dead: dict[str, bool] = {}
    found = []
    for name in names:
        stem = _stem(name)
        if stem is None:
            continue
        if stem not in dead:
            lock = parent / f"{stem}{LOCK}"
            # The lock is created before anything else, and removed after it.
            dead[stem] = writer_is_dead(lock) or not lock.exists()
        if dead[stem]:
            found.append(name)
    # Each lock follows the files that it protects.
    return sorted(found, key=lambda name: name.endswith(LOCK))


def sweep_leftovers(parent: Path) -> list[str]:
    """Remove dead processes' leftovers from a directory; return their names.

    Files that cannot be removed stay and do no harm.
    """
    removed = []
    for name in leftovers(parent):
        with contextlib.suppress(OSError):
            if name.endswith(LOCK):
                if not writer_is_dead(parent / name, remove=True):
                    continue
            else:
                _remove(parent / name)
            removed.append(name)
    return removed


def _names(parent: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [path.name for path in parent.iterdir() if path.name.startswith(".")]
    return []


def _stem(name: str) -> str | None:
    found = _MADE.fullmatch(name)
    return None if found is None else found[1]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
