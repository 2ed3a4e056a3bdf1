"""A store on a local disk, or on a network disk mounted as one.

Whole objects are written to a temporary file and renamed into place. Compare-and-swap
takes the object's own file as the lock (``flock``): whoever holds the lock of the file
that the name still leads to may rename a new one over it; whoever waited for it finds
that the name leads to another file now, and looks again. The lock goes with the process
that held it, and there is no lock file to be left behind. Over NFS the lock is as good
as the server's (Linux turns it into a byte-range lock there).
"""

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import override

from .errors import StoreError, StorePermissionError
from .layout import ZARR_JSON
from .location import Location
from .objects import Objects, Versioned

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # mypy knows no optional modules

__all__ = ["LocalObjects"]


class LocalObjects(Objects):
    """The objects of a store in a local directory."""

    writable = True

    def __init__(self, location: Location) -> None:
        self.location = location
        self._root = Path(location.path)

    @override
    def get(self, key: str) -> bytes | None:
        with _in_words(self.location, key):
            try:
                return (self._root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return None
                raise

    @override
    def get_versioned(self, key: str) -> Versioned | None:
        data = self.get(key)
        return None if data is None else Versioned(data, _version(data))

    @override
    def put(self, key: str, data: bytes) -> None:
        with _in_words(self.location, key):
            path = self._root / key
            with self._temporary(data) as temporary:
                self._into_place(temporary.replace, path)

    @override
    def create(self, key: str, data: bytes) -> str | None:
        with _in_words(self.location, key):
            path = self._root / key
            with self._temporary(data) as temporary:
                try:
                    # A hard link is the one way to name a finished file only if the name
                    # is free.
                    self._into_place(lambda to: os.link(temporary, to), path)
                except FileExistsError:
                    return None
            return _version(data)

    @override
    def replace(self, key: str, data: bytes, version: str) -> str | None:
        with _in_words(self.location, key):
            path = self._root / key
            with _locked(path) as file:
                if file is None or _version(_read_all(file)) != version:
                    return None
                with self._temporary(data) as temporary:
                    temporary.replace(path)
            return _version(data)

    @override
    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with _in_words(self.location, key):
                path = self._root / key
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
                self._prune(path.parent)

    @override
    def delete_tree(self, prefix: str) -> None:
        with _in_words(self.location, prefix):
            path = self._root / prefix
            if path.is_symlink():
                path.unlink()
                return
            # Gone for every reader in one step, however long the files take.
            doomed = self._root / f".{uuid.uuid4().hex}.deleted"
            try:
                path.rename(doomed)
            except FileNotFoundError:
                return
            shutil.rmtree(doomed)

    @override
    def list_dirs(self, prefix: str) -> list[str]:
        with _in_words(self.location, prefix):
            try:
                with os.scandir(self._root / prefix) as entries:
                    return [
                        entry.name for entry in entries if Path(entry.path, ZARR_JSON).exists()
                    ]
            except FileNotFoundError:
                return []

    @override
    def list_tree(self, prefix: str) -> list[str]:
        found = []
        with _in_words(self.location, prefix):
            for folder, folders, files in os.walk(self._root / prefix, onerror=_unless_missing):
                relative = Path(folder).relative_to(self._root)
                links = [name for name in folders if Path(folder, name).is_symlink()]
                found += [(relative / name).as_posix() for name in (*files, *links)]
        return found

    @override
    def occupied(self) -> bool:
        with _in_words(self.location, ""):
            return os.path.lexists(self._root)

    @override
    def list_beside(self) -> list[str]:
        with _in_words(self.location, ""):
            try:
                with os.scandir(self._root.parent) as entries:
                    return [
                        entry.name
                        for entry in entries
                        if entry.name.startswith(self._root.name) and entry.is_dir()
                    ]
            except FileNotFoundError:
                return []

    def is_link(self) -> bool:
        """Return whether the place itself is a symbolic link."""
        return self._root.is_symlink()

    def is_file(self) -> bool:
        """Return whether a file is where the store's directory would be."""
        return self._root.is_file()

    @override
    def remove_place(self) -> None:
        with _in_words(self.location, ""):
            for folder, _, _ in os.walk(self._root, topdown=False):
                Path(folder).rmdir()

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        # In the root: a stray one, after a kill, is not in the way of any listing.
        path = self._root / f".{uuid.uuid4().hex}.partial"
        try:
            try:
                file = path.open("xb")
            except FileNotFoundError:
                self._root.mkdir(parents=True, exist_ok=True)
                file = path.open("xb")
            with file:
                file.write(data)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _into_place(self, move: Callable[[Path], object], path: Path) -> None:
        for _ in range(8):
            try:
                move(path)
                return
            except FileNotFoundError:
                # No such directory yet; or another process just removed an empty one.
                path.parent.mkdir(parents=True, exist_ok=True)
        move(path)

    def _prune(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _version(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _read_all(file: int) -> bytes:
    with os.fdopen(os.dup(file), "rb") as stream:
        return stream.read()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Hold the lock of the file that ``path`` leads to; None where it leads nowhere."""
    if fcntl is None:  # pragma: no cover - Windows
        raise StoreError(
            f"{path}: changing a table on a local disk needs POSIX file locks, which this "
            "system does not have; tables on S3 can be changed from here"
        )
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _leads_to(path, file):
                yield file
                return
        finally:
            os.close(file)


def _leads_to(path: Path, file: int) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(file)
    return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextlib.contextmanager
def _in_words(location: Location, key: str) -> Iterator[None]:
    """Say which store and object an error of the file system is about."""
    try:
        yield
    except StoreError:
        raise
    except PermissionError as error:
        raise StorePermissionError(f"{location}: no permission: {error}") from error
    except OSError as error:
        raise StoreError(f"{location}: {key or 'the store'}: {error}") from error
