"""Output files, local or on S3, that get their names when they are complete."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdalbridge.errors import BridgeError, OutputExistsError
from ratzarr.errors import Advice
from ratzarr.stores import Location, copy_file, file_state, temporary_path

__all__ = ["check_free", "folder_for", "put_in_place"]


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
        For S3, see :class:`ratzarr.RatZarr`.

    Raises
    ------
    BridgeError
        If the target is neither a local file nor on S3.
    OutputExistsError
        If there is something that may not be replaced.
    """
    if target.kind not in ("local", "s3"):
        raise BridgeError(f"{target}: an output is written to a local file or to S3")
    if target.kind == "local" and Path(target.path).is_dir():
        raise OutputExistsError(f"{target} is a directory, and is not replaced")
    existing = [one for one in files if file_state(one, options) is not None]
    if existing and not overwrite:
        raise OutputExistsError(
            Advice(f"{existing[0]} already exists.", "Use overwrite=True to replace it.")
        )
    return existing


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
        If the name has been taken meanwhile, and may not be replaced.
    """
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
