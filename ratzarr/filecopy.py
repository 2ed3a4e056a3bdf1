"""One file of any size copied between local disk and S3, in pieces, and compared afterwards.

A few pieces are under way at once, so memory depends on the size of a piece. What has
arrived is compared with what was read: a file on a disk is read again; an object by its
etag, which is the MD5 of its bytes or of its parts' MD5s, and where the server makes
etags otherwise (it encrypts with keys of its own) by reading it again.

A file appears under its name when it is whole: on a disk it is written beside it and
renamed, and S3 shows an object when its upload is finished.
"""

from collections.abc import Mapping
from typing import Any

from .diskfile import DiskFile
from .errors import ChangedError, ReadOnlyError, StoreError
from .filepieces import FileState, Place, Told, compare
from .location import Location

__all__ = [
    "FileState",
    "copy_file",
    "file_state",
    "names_beside",
    "remove_file",
    "same_file",
]


def file_state(location: Location, options: Mapping[str, Any] | None = None) -> FileState | None:
    """Return what is at a place; None where nothing is.

    Raises
    ------
    ReadOnlyError
        For a place that is neither local nor on S3.
    """
    return _open(location, options).look()


def names_beside(
    location: Location, start: str, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the names of files in a place's directory that begin with ``start``."""
    return _open(location, options).beside(start)


def remove_file(location: Location, options: Mapping[str, Any] | None = None) -> None:
    """Remove a file; do nothing where nothing is."""
    _open(location, options).remove()


def same_file(one: Location, other: Location, options: Mapping[str, Any] | None = None) -> bool:
    """Return whether two places hold the same bytes."""
    first, second = _open(one, options), _open(other, options)
    found = first.look(), second.look()
    if found[0] is None or found[1] is None or found[0].size != found[1].size:
        return False
    if found[0].size < 0:
        return False
    both = first.has_etags and second.has_etags
    if both and found[0].state == found[1].state:
        return True
    return compare(first, second, found[0].size, lambda size: None)


def copy_file(
    source: Location,
    target: Location,
    *,
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
    told: Told | None = None,
) -> None:
    """Copy a file.

    Parameters
    ----------
    source, target : Location
        Local, or on S3.
    overwrite : bool
        Replace what is at the target.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``.
    told : callable, optional
        Told the bytes of each piece that is done; it may raise to stop the work.

    Raises
    ------
    FileExistsError
        Where something is at the target, and is not to be replaced.
    StoreError
        Where the source is no file, can't be read, or the copy is not equal to it.
    ChangedError
        Where the source was changed meanwhile.
    """
    told = told or (lambda size: None)
    here, there = _open(source, options), _open(target, options)
    before = here.look()
    if before is None or before.size < 0:
        what = "is not there" if before is None else "is a symbolic link, or no file"
        raise StoreError(f"{source} {what}")
    with here.opened():
        there.receive(here, before, overwrite, told)
        if here.look() != before:
            there.remove()
            raise ChangedError(f"{source} was changed while it was copied: copy it again")


def _open(location: Location, options: Mapping[str, Any] | None) -> Place:
    if location.kind == "local":
        return DiskFile(location)
    if location.kind == "s3":
        # Loading an S3 client takes longer than copying most files on a disk.
        from .bucketfile import BucketFile

        return BucketFile(location, options)
    raise ReadOnlyError(f"{location}: files are copied between local disk and S3 only")
