"""Output files, on a local disk or a server, that get their names when they are complete.

They are written to a temporary directory: beside a local output, otherwise the system's
(``TMPDIR``). S3 has its own client, which checks what it has uploaded; fsspec writes to other
servers (``gs://``, ``abfs://``, ...).

>>> import tempfile
>>> folder = tempfile.mkdtemp()
>>> output = Output(f"{folder}/seg.csv")
>>> output.check()
>>> with output.create("table.csv") as made:
...     _ = made.write_text("row")
>>> [path.name for path in Path(folder).iterdir()]
['seg.csv']
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gdalbridge.errors import (
    BridgeError,
    NotWrittenError,
    OutputExistsError,
    PackageMissingError,
)
from ratzarr import ArgumentError, RatZarrError
from ratzarr.errors import Advice
from ratzarr.stores import (
    Location,
    copy_file,
    file_state,
    name_file,
    names_beside,
    parse,
    remove_file,
    temporary_path,
)

__all__ = ["Output"]

READ_ONLY = ("http", "https")
"""Schemes of URLs that are only read, though fsspec would send a file."""


class Output:
    """An output file, with the files beside it.

    Parameters
    ----------
    out : str or os.PathLike
        Its name: a path, a URL or one of GDAL's ``/vsi`` names.
    overwrite : bool
        Whether existing files may be replaced.
    options : mapping, optional
        For files on a server, see :class:`ratzarr.RatZarr`.
    endings : sequence of str
        What is appended to the name for the names of files beside it.
    suffixes : sequence of str
        Suffixes of files beside it that have the same stem.

    Attributes
    ----------
    place : Location
    name : str
        The name of the file without its directory.
    """

    def __init__(
        self,
        out: Any,
        overwrite: bool = False,
        options: Mapping[str, Any] | None = None,
        *,
        endings: Sequence[str] = (),
        suffixes: Sequence[str] = (),
    ) -> None:
        self.place = parse(out)
        self.name = _name(self.place)
        self._overwrite, self._options = overwrite, options
        self._raster: Any = None
        beside = [self.name + one for one in endings]
        beside += [self.name.rpartition(".")[0] + one for one in suffixes]
        self._names = list(dict.fromkeys([self.name, *beside]))

    def __str__(self) -> str:
        return str(self.place)

    @property
    def local_parent(self) -> Path | None:
        """The directory of an output on a local disk; None on a server."""
        return Path(self.place.path).parent if self.place.kind == "local" else None

    # ---- before the work

    def check(self, raster: Any = None, *, keep_rasters: bool = False) -> None:
        """Check that the output can be written.

        Parameters
        ----------
        raster : str, os.PathLike or gdal.Dataset, optional
            The raster that is read. Its files are never replaced.
        keep_rasters : bool
            Never replace any raster.

        Raises
        ------
        BridgeError
            If it belongs to the raster, there is no such directory, or nothing can be written to
            such a URL.
        PackageMissingError
            If a package for such URLs is missing.
        OutputExistsError
            If there is something that may not be replaced.
        """
        self._raster = raster
        parent = self.local_parent
        if parent is not None and not parent.is_dir():
            raise BridgeError(f"{self}: there is no directory {parent}")
        if parent is not None and Path(self.place.path).is_dir():
            raise OutputExistsError(f"{self} is a directory, and is not replaced")
        existing = self._existing(self._names)
        self._check_existing(existing)
        if keep_rasters and existing and self._is_raster():
            raise OutputExistsError(f"{self} is a raster, and is not replaced by a table")

    def _check_existing(self, existing: Sequence[Location]) -> None:
        sources = self._sources() if existing and self._raster is not None else []
        for one in existing:
            if any(self._are_same(one, source) for source in sources):
                raise BridgeError(
                    Advice(
                        f"{one} belongs to the raster that is read, and is never replaced.",
                        "Name another output.",
                    )
                )
        if existing and not self._overwrite:
            raise OutputExistsError(
                Advice(
                    f"{', '.join(map(str, existing))} already exists.",
                    "Use overwrite=True to replace it.",
                )
            )
        for one in existing:
            path = Path(one.path)
            if one.kind == "local" and (path.is_symlink() or not path.is_file()):
                raise OutputExistsError(f"{one} is not a regular file, and is not replaced")

    def _existing(self, names: Sequence[str]) -> list[Location]:
        """Return the existing files of these names; beside the output, case is ignored."""
        if len(names) == 1 or self.place.kind == "url":
            places = [_beside(self.place, name) for name in names]
            return [one for one in places if self._state(one) is not None]
        # GDAL ignores upper and lower case when it looks for the files beside a raster.
        wanted = {name.lower() for name in names if name != self.name}
        if (parent := self.local_parent) is not None:
            listed = os.listdir(parent)  # noqa: PTH208 - names, not paths
        else:
            listed = names_beside(self.place, Path(self.name).stem, self._options)
        found = [name for name in listed if name == self.name or name.lower() in wanted]
        return [_beside(self.place, name) for name in sorted(found)]

    def _state(self, one: Location) -> Any:
        """Return a value that changes when the file is written; None if it does not exist."""
        if one.kind != "url":
            return file_state(one, self._options)
        system, path = self._file_system(one)
        with _in_words(f"{one} can't be reached"):
            system.invalidate_cache()
            return (system.size(path),) if system.exists(path) else None

    def _sources(self) -> list[Location]:
        from gdalbridge.gdalio.compat import silence
        from gdalbridge.gdalio.datasets import opened

        with opened(self._raster, self._options) as dataset, silence():
            listed = list(dataset.GetFileList() or ())
        found = []
        for name in listed:
            with suppress(ArgumentError):
                found.append(parse(name))
        return found

    def _are_same(self, one: Location, other: Location) -> bool:
        if one.kind != other.kind or one == other:
            return one == other
        if one.kind == "local":
            with suppress(OSError):
                return Path(one.path).samefile(other.path)
        # Several schemes lead to one place: gs and gcs, az and abfs.
        return one.kind == "url" and self._file_system(one) == self._file_system(other)

    def _is_raster(self) -> bool:
        if self.place.kind == "url":
            return False
        from gdalbridge.gdalio.vector_layer import is_raster
        from gdalbridge.gdalio.vsis3 import reached

        with reached(self.place.url, self._options) as name:
            return is_raster(name)

    # ---- the files

    @contextmanager
    def create(self, name: str | None = None, *, refers: bool = False) -> Iterator[Path]:
        """Yield the file to write; at the end of the block it gets its name.

        So do the files beside it, whose names begin with the same stem. After an error, nothing
        has changed.

        Parameters
        ----------
        name : str, optional
            A temporary name; by default the output's, which some formats store in the file.
        refers : bool
            Write it in the directory of a local output, because it refers to other files by
            relative paths. It is a single file then.

        Raises
        ------
        OutputExistsError
            If a name has been taken meanwhile, and may not be replaced. Only local disks and S3
            tell.
        NotWrittenError, ratzarr.RatZarrError
            If a server refuses a file.
        """
        parent = self.local_parent or Path(tempfile.gettempdir())
        suffix = Path(self.name).suffix if refers else ""
        with temporary_path(parent, suffix, folder=not refers) as made:
            file = made if refers else made / (name or self.name)
            with self._written(file):
                yield file
            self._put({self.place: file} if refers else self._files(file), file)
        # GDAL would not look for the files again.
        if self.place.kind == "s3" and "osgeo" in sys.modules:
            from gdalbridge.gdalio.vsis3 import forget

            forget(self.place.url, self._options)

    @contextmanager
    def _written(self, made: Path) -> Iterator[None]:
        """Name the output in errors of the file system, such as of a full disk, and in GDAL's."""
        try:
            yield
        except NotWrittenError as error:
            words = str(error).replace(str(made), str(self))
            raise (error if words == str(error) else NotWrittenError(words)) from error.__cause__
        except (BridgeError, RatZarrError):
            raise
        except OSError as error:
            said = error.strerror or error
            raise NotWrittenError(f"{self} can't be written: {said}") from error

    def _files(self, made: Path) -> dict[Location, Path]:
        """Return the files that were written, by their names; the output itself is last."""
        found = {}
        for file in sorted(made.parent.iterdir(), key=lambda file: file == made):
            if file.name.startswith(made.name):
                name = self.name + file.name.removeprefix(made.name)
            elif file.name.startswith(made.stem):
                name = Path(self.name).stem + file.name.removeprefix(made.stem)
            else:
                continue
            found[_beside(self.place, name)] = file
            if self.place.kind != "local" and file.is_dir():
                raise NotWrittenError(f"{self}: only a local disk takes a directory")
        return found

    def _put(self, files: Mapping[Location, Path], made: Path) -> None:
        names = [*self._names, *map(_name, files)]
        old = self._existing(list(dict.fromkeys(names)))
        self._check_existing(old)
        before = self._state(self.place) if self.place in old else None
        undo: list[Callable[[], None]] = []
        replaced = made.with_name(f"{made.name}.replaced")
        replaced.mkdir()
        try:
            # GDAL would take a table in an old .aux.xml for the new raster's.
            for one in old:
                if one != self.place:
                    kept = Location("local", str(replaced / _name(one)))
                    undo.append(partial(self._restore, kept, one))
                    self._move(one, kept)
                    self._remove(one)
            for one, file in files.items():
                is_replaced = one == self.place and before is not None
                if not is_replaced:
                    undo.append(partial(self._remove, one))
                self._move(Location("local", str(file)), one, overwrite=is_replaced)
        except BaseException as error:
            if isinstance(error, FileExistsError):
                # It is another program's.
                del undo[-1]
            if before is None or not self._is_changed(before):
                _undo(undo, error)
            if isinstance(error, FileExistsError):
                raise OutputExistsError(f"{one} already exists") from error
            raise

    def _is_changed(self, before: Any) -> bool:
        """Return True if the output was replaced; it comes last, so all files are in place."""
        with suppress(BridgeError, RatZarrError, OSError):
            return bool(self._state(self.place) != before)
        return False

    def _restore(self, kept: Location, place: Location) -> None:
        if Path(kept.path).exists() and self._state(place) is None:
            self._move(kept, place)

    def _move(self, source: Location, target: Location, overwrite: bool = False) -> None:
        if source.kind == target.kind == "local":
            name_file(Path(source.path), Path(target.path), overwrite=overwrite)
        elif target.kind == "url":
            self._upload(Path(source.path), target)
        elif source.kind == "url":
            system, path = self._file_system(source)
            with _in_words(f"{source} can't be read"):
                system.get_file(path, target.path)
        else:
            copy_file(source, target, overwrite=overwrite, options=self._options)

    def _remove(self, one: Location) -> None:
        if one.kind != "url":
            remove_file(one, self._options)
        elif self._state(one) is not None:
            system, path = self._file_system(one)
            with _in_words(f"{one} can't be removed"):
                system.rm_file(path)

    def _upload(self, made: Path, target: Location) -> None:
        system, path = self._file_system(target)
        size = made.stat().st_size
        with _in_words(f"{target} can't be written"):
            system.put_file(str(made), path)
            system.invalidate_cache()
            found = system.size(path)
        if found != size:
            raise NotWrittenError(f"{target} has {found} bytes, and {size} were written to it")

    def _file_system(self, one: Location) -> tuple[Any, str]:
        """Return fsspec's file system of a URL, and the path in it."""
        import fsspec

        if str(one).partition("://")[0].lower() in READ_ONLY:
            raise BridgeError(
                f"{one}: a web server takes no files; write to a local file, to S3, or to another "
                "URL that fsspec writes to, such as gs:// or abfs://"
            )
        try:
            system, path = fsspec.url_to_fs(str(one), **(self._options or {}))
        except ImportError as error:
            raise PackageMissingError(f"{one} can't be reached: {error}") from error
        except ValueError as error:
            raise BridgeError(
                f"{one} is no URL that fsspec writes to ({error}); write to a local file or to S3"
            ) from error
        return system, str(path)


def _name(place: Location) -> str:
    return place.path.rpartition("/")[2]


def _beside(place: Location, name: str) -> Location:
    return Location(place.kind, f"{place.path.rpartition('/')[0]}/{name}")


def _undo(steps: Sequence[Callable[[], None]], error: BaseException) -> None:
    for step in reversed(steps):
        try:
            step()
        except (BridgeError, RatZarrError, OSError) as failed:
            error.add_note(str(failed))


@contextmanager
def _in_words(words: str) -> Iterator[None]:
    """Raise NotWrittenError for any error of the packages of fsspec, which share no class."""
    try:
        yield
    except Exception as error:
        raise NotWrittenError(f"{words}: {error}") from error
