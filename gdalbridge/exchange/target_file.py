"""Output files, local or on a server, that get their names when they are complete.

They are written to a temporary directory. S3 has its own client, which checks what it has uploaded;
fsspec writes to other servers (``gs://``, ``abfs://``, ...).
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdalbridge.errors import (
    BridgeError,
    NotWrittenError,
    OutputExistsError,
    PackageMissingError,
)
from ratzarr.errors import Advice
from ratzarr.stores import Location, copy_file, file_state, temporary_path

__all__ = ["check_free", "folder_for", "put_in_place"]

READ_ONLY = ("http", "https")
"""Schemes of URLs that are only read, though fsspec would send a file."""


def check_free(
    target: Location, files: Sequence[Location], overwrite: bool, options: Mapping[str, Any] | None
) -> list[Location]:
    """Check that an output can be written, and return those of its files that exist.

    Parameters
    ----------
    target : Location
    files : sequence of Location
        All files of the output.
    overwrite : bool
        Whether existing files may be replaced.
    options : mapping, optional
        For files on a server, see :class:`ratzarr.RatZarr`.

    Raises
    ------
    BridgeError
        If nothing can be written to such a URL.
    PackageMissingError
        If a package for such URLs is missing.
    OutputExistsError
        If there is something that may not be replaced.
    """
    if target.kind == "local" and Path(target.path).is_dir():
        raise OutputExistsError(f"{target} is a directory, and is not replaced")
    existing = [one for one in files if _exists(one, options)]
    if existing and not overwrite:
        raise OutputExistsError(
            Advice(f"{existing[0]} already exists.", "Use overwrite=True to replace it.")
        )
    return existing


def _exists(one: Location, options: Mapping[str, Any] | None) -> bool:
    if one.kind != "url":
        return file_state(one, options) is not None
    system, path = _file_system(one, options)
    try:
        return bool(system.exists(path))
    except Exception as error:
        # Each of fsspec's packages has its own errors.
        raise NotWrittenError(f"{one} can't be reached: {error}") from error


def _file_system(one: Location, options: Mapping[str, Any] | None) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it."""
    import fsspec

    if str(one).partition("://")[0].lower() in READ_ONLY:
        raise BridgeError(
            f"{one}: a web server takes no files; write to a local file, to S3, or to another URL "
            "that fsspec writes to, such as gs:// or abfs://"
        )
    try:
        system, path = fsspec.url_to_fs(str(one), **(options or {}))
    except ImportError as error:
        raise PackageMissingError(f"{one} can't be reached: {error}") from error
    except ValueError as error:
        raise BridgeError(
            f"{one} is no URL that fsspec writes to ({error}); write to a local file or to S3"
        ) from error
    return system, str(path)


@contextmanager
def folder_for(target: Location) -> Iterator[Path]:
    """Yield a temporary directory: for a local file on the same file system."""
    parent = Path(target.path).parent if target.kind == "local" else Path(tempfile.gettempdir())
    if not parent.is_dir():
        raise BridgeError(f"{target}: there is no directory {parent}")
    with temporary_path(parent, folder=True) as made:
        yield made


def put_in_place(
    made: Path, target: Location, overwrite: bool, options: Mapping[str, Any] | None
) -> None:
    """Give a finished file its name.

    Raises
    ------
    OutputExistsError
        If the name has been taken meanwhile, and may not be replaced. Only local disks and S3 tell.
    NotWrittenError
        If a server refuses the file.
    """
    if target.kind == "url":
        _upload(made, target, options)
        return
    try:
        if target.kind == "s3":
            copy_file(Location("local", str(made)), target, overwrite=overwrite, options=options)
        elif overwrite:
            made.replace(target.path)
        else:
            try:
                # Only a hard link fails if the name has been taken meanwhile.
                Path(target.path).hardlink_to(made)
            except FileExistsError:
                raise
            except OSError:
                made.rename(target.path)
    except FileExistsError as error:
        raise OutputExistsError(f"{target} already exists") from error


def _upload(made: Path, target: Location, options: Mapping[str, Any] | None) -> None:
    system, path = _file_system(target, options)
    size = made.stat().st_size
    try:
        system.put_file(str(made), path)
        system.invalidate_cache()
        found = system.size(path)
    except Exception as error:
        # Each of fsspec's packages has its own errors.
        raise NotWrittenError(f"{target} can't be written: {error}") from error
    if found != size:
        raise NotWrittenError(f"{target} has {found} bytes, and {size} were written to it")
