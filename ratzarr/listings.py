"""Which directories of a directory hold a document, remembered while that directory is the same.

To see that 500 directories are columns takes a look into each. A directory that has not changed
has the same names in it, and what was seen to be a column is one for as long as its directory is
there: it is taken away whole, by a rename that its directory's own times tell of. What was seen to
be none may become one at any time, and is looked at each time.

States are those of :func:`ratzarr.localfiles.state_of`: a directory that was changed a moment ago
has none, and its listing is not remembered.
"""

import os

from .layout import ZARR_JSON
from .localfiles import state_of

__all__ = ["with_document"]

KEPT = 64
"""Listings that are remembered."""
LONGEST = 10_000
"""Names in the longest that is."""

_known: dict[str, tuple[list[str], list[str]]] = {}
"""By state: names of those with a document, and of other directories. What is done with this dict
is atomic, so it needs no lock, which could be held in a fork."""


def with_document(folder: int) -> list[str]:
    """Return the names of the directories in an open directory that have a ``zarr.json``.

    The same list each time, where it is remembered: not to be changed.

    Symbolic links are among them, to be refused by name when they are opened: better than not
    to be seen.
    """
    # Before the names: what comes while they are read makes another state of it.
    state = state_of(os.fstat(folder))
    known = _known.get(state) if state else None
    if known is not None:
        sure, unsure = known
        found = [name for name in unsure if _has_document(folder, name)]
        return sure + found if found else sure
    sure, unsure = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                sure.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                (sure if _has_document(folder, entry.name) else unsure).append(entry.name)
    if state and len(sure) + len(unsure) <= LONGEST:
        if len(_known) >= KEPT:
            _known.clear()
        _known[state] = sure, unsure
    return sure


def _has_document(folder: int, name: str) -> bool:
    path = f"{name}/{ZARR_JSON}"
    if os.access(path, os.F_OK, dir_fd=folder):
        return True
    try:
        # A link that leads nowhere is there, too; and an error has to be told.
        os.stat(path, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
