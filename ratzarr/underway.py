"""What is on its way into a store's directory, or out of it.

Both lie in the root, under hidden names: a stray one, after a kill, is in the way of no
listing there. A file on its way in is held by its writer; a tree on its way out is
nobody's any more, and whoever finds it may remove it.
"""

import contextlib
import errno
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from .heldfiles import discard, new_held, writer_is_dead

__all__ = ["doomed_name", "litter", "remove_tree", "sweep", "temporary_file"]

PARTIAL, DELETED = ".partial", ".deleted"


def temporary_file(root: int, data: bytes) -> tuple[io.FileIO, str]:
    """Write a file on its way in; return it open, held until it is closed, and its name."""
    file, name = new_held(lambda: f".{uuid.uuid4().hex}{PARTIAL}", root)
    try:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        return file, name
    except BaseException:
        discard(file, name, root)
        raise


def doomed_name() -> str:
    """Return a name for a tree on its way out."""
    return f".{uuid.uuid4().hex}{DELETED}"


def litter(root: Path) -> Iterator[str]:
    """Yield the names, in a root, of what dead processes have left on the way."""
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") and (
                entry.name.endswith(DELETED)
                or (entry.name.endswith(PARTIAL) and writer_is_dead(Path(entry.path)))
            ):
                yield entry.name


def sweep(root: Path, names: list[str]) -> None:
    """Remove what dead processes have left, by the names that :func:`litter` has yielded."""
    for name in names:
        with contextlib.suppress(OSError):
            if name.endswith(DELETED):
                remove_tree(root / name)
            else:
                writer_is_dead(root / name, remove=True)


def remove_tree(path: Path) -> None:
    """Remove a tree that others may be removing, too, or putting a last chunk into."""

    def gone(_function: object, _path: str, error: BaseException) -> None:
        # Another process sweeps it too.
        if not isinstance(error, FileNotFoundError):
            raise error

    for _ in range(8):
        try:
            shutil.rmtree(path, onexc=gone)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            # A writer that had it open has just put a chunk there.
        else:
            return
