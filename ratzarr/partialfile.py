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

from .heldfiles import discard, new_held, writer_is_dead

__all__ = ["name_it", "partial_file"]


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
    file, name = new_held(
        lambda: str(path.parent / f".{mark}{secrets.token_hex(10)}.partial"), locks_needed=False
    )
    try:
        yield file.fileno(), Path(name)
    finally:
        discard(file, name)


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


def _sweep(folder: Path, mark: str) -> None:
    """Remove what processes have left that are no more."""
    hidden = re.compile(rf"\.{mark}[0-9a-f]{{20}}\.partial")
    # It is a favour: what can't be removed has never stood in anybody's way.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [one.name for one in entries if hidden.fullmatch(one.name)]:
            writer_is_dead(folder / name, remove=True)
