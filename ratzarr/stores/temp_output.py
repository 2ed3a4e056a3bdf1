"""Output that is made under a hidden name beside its target, by a program that needs a path.

A lock file beside it is held for as long as its process lives. So what a killed process has
left is told from what another is making just now, and the next one to make something in
that directory removes it.

>>> import tempfile
>>> parent = Path(tempfile.mkdtemp())
>>> with temporary_path(parent, folder=True) as made:
...     _ = (made / "seg.tif").write_bytes(b"whole")
...     _ = (made / "seg.tif").rename(parent / "seg.tif")
>>> [path.name for path in parent.iterdir()]
['seg.tif']
"""

import contextlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ratzarr.stores.local_files import discard, new_held, writer_is_dead

__all__ = ["leftovers", "sweep_leftovers", "temporary_path"]

PREFIX, LOCK = ".ratzarr-", ".lock"
_MADE = re.compile(rf"({re.escape(PREFIX)}[0-9a-f]{{20}})(?:\..*)?", re.DOTALL)


@contextlib.contextmanager
def temporary_path(parent: Path, suffix: str = "", *, folder: bool = False) -> Iterator[Path]:
    """Hand out a free hidden path in a directory; nothing is left of it at the end.

    What dead processes have left in the directory is removed first.

    Parameters
    ----------
    parent : Path
        A directory.
    suffix : str
        What the path ends in. Other files whose names continue it are removed too.
    folder : bool
        Make it a directory, for this user alone.
    """
    sweep_leftovers(parent)
    file, lock = new_held(
        lambda: str(parent / f"{PREFIX}{secrets.token_hex(10)}{LOCK}"), locks_needed=False
    )
    made = Path(lock.removesuffix(LOCK) + suffix)
    try:
        if folder:
            made.mkdir(0o700)
        yield made
    finally:
        # The lock goes last: without it, what is there counts as left over.
        try:
            for name in _names(parent):
                if _stem(name) == _stem(made.name) and not name.endswith(LOCK):
                    _remove(parent / name)
        finally:
            discard(file, lock)


def leftovers(parent: Path) -> list[str]:
    """Return the names, in a directory, of what dead processes have left there."""
    names = _names(parent)
    dead: dict[str, bool] = {}
    found = []
    for name in names:
        stem = _stem(name)
        if stem is None:
            continue
        if stem not in dead:
            lock = parent / f"{stem}{LOCK}"
            # The lock is there before anything else, and goes after it.
            dead[stem] = writer_is_dead(lock) or not lock.exists()
        if dead[stem]:
            found.append(name)
    # Each lock after all that it is of.
    return sorted(found, key=lambda name: name.endswith(LOCK))


def sweep_leftovers(parent: Path) -> list[str]:
    """Remove what dead processes have left in a directory; return the names of it.

    What can't be removed stays: it is in nobody's way.
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
