"""A store on a local or network disk.

Objects are written to a temporary file and renamed into place. A writer that replaces an object holds
the lock of the file that the name refers to; after waiting for a lock it checks that the name still
refers to that file. Locks end with the process that holds them.

Temporary files and deleted trees lie in the root of the store under hidden names. A temporary file is
locked by its writer; one without a lock is stale and is swept.
"""

import contextlib
import errno
import io
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import override

from ratzarr.errors import DamagedError, StoreError
from ratzarr.format.names import ZARR_JSON
from ratzarr.stores.base import ChunkOwner, Entry, Found, Location, Objects, Take, Version
from ratzarr.stores.local_files import (
    HAS_LOCKS,
    NotAFileError,
    errors_in_words,
    exchange,
    is_in_state,
    locked,
    new_held,
    open_folder,
    open_root,
    read_all,
    read_below,
    read_file,
    walked,
    with_document,
    writer_is_dead,
)

__all__ = ["LocalObjects"]


PARTIAL, DELETED = ".partial", ".deleted"


def remove_tree(path: Path) -> None:
    """Remove a tree, although others may be removing it or writing a last chunk into it."""

    def gone(_function: object, _path: str, error: BaseException) -> None:
        # Another process is removing it too.
        if not isinstance(error, FileNotFoundError):
            raise error

    for _ in range(8):
        try:
            shutil.rmtree(path, onexc=gone)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            # A writer that had it open has just written a chunk there.
        else:
            return


NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalObjects(Objects):
    """The objects of a store in a local directory."""

    looks_before_writing = True
    deletes_at_once = True
    # A network disk, or one that must locate the data first, makes each thread wait.
    threads = max(4, 2 * (os.cpu_count() or 1))

    def __init__(self, location: Location) -> None:
        self.location = location
        self._root = Path(location.path)
        self._swept = False
        self._sweep_lock = threading.Lock()

    # ---- reading

    @override
    def is_still(self, key: str, state: str) -> bool:
        # The name may lead to the file in any way: the file counts only if it is the one that was
        # read, and unchanged.
        try:
            return bool(state) and is_in_state(os.lstat(f"{self.location.path}/{key}"), state)
        except (OSError, ValueError):
            return False

    @override
    def read(
        self, key: str, limit: int | None = None, *, state: str = "", take: Take | None = None
    ) -> Found | None:
        if self.is_still(key, state):
            return Found(b"", state=state, is_read=False)
        with self._in_words(key):
            try:
                return read_below(self._root, key, limit, take)
            except NotAFileError as error:
                # For example, the column was replaced by one of another width, whose chunks are a
                # directory deeper. A reader of a chunk reads the column's document again.
                raise DamagedError(f"{self.location}/{key} is not a file") from error
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    return None
                raise

    # ---- writing

    @override
    def put(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> None:
        def write(folder: int, name: str, root: int, temporary: str) -> bool:
            with locked(folder, name) as file:
                # Replace an existing file only under its lock: another process may be merging rows
                # into it.
                if file is not None:
                    os.replace(temporary, name, src_dir_fd=root, dst_dir_fd=folder)
                    return True
                try:
                    os.link(temporary, name, src_dir_fd=root, dst_dir_fd=folder)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    os.replace(temporary, name, src_dir_fd=root, dst_dir_fd=folder)
                return True

        self._write_file(key, data, owner, write)

    @override
    def create(self, key: str, data: bytes, owner: ChunkOwner | None = None) -> Version | None:
        def write(folder: int, name: str, root: int, temporary: str) -> bool:
            if name == ZARR_JSON:
                self._refuse_leftovers(folder, key)
            # Only a hard link names a finished file atomically if the name is free.
            os.link(temporary, name, src_dir_fd=root, dst_dir_fd=folder)
            return True

        try:
            self._write_file(key, data, owner, write)
        except FileExistsError:
            return None
        return data

    @override
    def replace(
        self, key: str, data: bytes, version: Version, owner: ChunkOwner | None = None
    ) -> Version | None:
        replaced = False

        def write(folder: int, name: str, root: int, temporary: str) -> bool:
            nonlocal replaced
            with locked(folder, name) as file:
                if file is not None and read_all(file.fileno()) == version:
                    os.replace(temporary, name, src_dir_fd=root, dst_dir_fd=folder)
                    replaced = True
            return True

        self._write_file(key, data, owner, write, make=False)
        return data if replaced else None

    @override
    def erase(self, key: str, version: str, blank: Callable[[], bytes], owner: ChunkOwner) -> bool:
        # A writer of this chunk waits for the lock, and a new owner changes the document first. So
        # the document as read under the lock applies to the file.
        *folders, name = key.split("/")
        with (
            self._in_words(key),
            contextlib.suppress(FileNotFoundError),
            walked(self._root, folders) as folder,
            locked(folder, name) as file,
        ):
            if file is not None:
                owner.check(self.get(f"{owner.prefix}/{ZARR_JSON}"))
                os.unlink(name, dir_fd=folder)
        self._prune(self._root.joinpath(*folders))
        return True

    @override
    def _remove(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            *folders, name = key.split("/")
            with self._in_words(key):
                with (
                    contextlib.suppress(FileNotFoundError, NotADirectoryError),
                    walked(self._root, folders) as folder,
                ):
                    os.unlink(name, dir_fd=folder)
                self._prune(self._root.joinpath(*folders))

    @override
    def delete_tree(self, prefix: str) -> None:
        *folders, name = prefix.split("/")
        # The rename hides it from all readers in one step, however long removing the files takes.
        doomed = f".{uuid.uuid4().hex}{DELETED}"
        with self._in_words(prefix):
            try:
                with walked(self._root, folders) as folder, walked(self._root, []) as root:
                    os.rename(name, doomed, src_dir_fd=folder, dst_dir_fd=root)
            except FileNotFoundError:
                self._prune(self._root.joinpath(*folders))
                return
            remove_tree(self._root / doomed)
            self._prune(self._root.joinpath(*folders))

    @override
    def replace_tree(self, prefix: str, source: str, interim: bytes) -> None:
        *folders, name = prefix.split("/")
        *source_folders, source_name = source.split("/")
        with self._in_words(prefix):
            with (
                walked(self._root, folders, make=True) as folder,
                walked(self._root, source_folders) as source_folder,
            ):
                new, old = self._root / source, self._root / prefix
                with contextlib.suppress(FileNotFoundError):
                    if exchange(new, old):
                        self.delete_tree(source)
                        self._prune(new.parent)
                        return
                # No old tree exists; or two steps, and neither tree exists in between.
                self.delete_tree(prefix)
                os.rename(source_name, name, src_dir_fd=source_folder, dst_dir_fd=folder)
            self._prune(new.parent)

    # ---- listing

    @override
    def list_dirs(self, prefix: str) -> list[str]:
        with self._in_words(prefix):
            try:
                with walked(self._root, prefix.split("/")) as folder:
                    return with_document(folder)
            except FileNotFoundError:
                return []

    @override
    def list_tree(self, prefix: str) -> Iterator[str]:
        with self._in_words(prefix):
            for folder, folders, files in os.walk(self._root / prefix, onerror=_unless_missing):
                relative = Path(folder).relative_to(self._root)
                links = [name for name in folders if Path(folder, name).is_symlink()]
                for name in (*files, *links):
                    yield (relative / name).as_posix()

    @override
    def list_states(self, prefix: str) -> Iterator[Entry]:
        for key in self.list_tree(prefix):
            with self._in_words(key), contextlib.suppress(FileNotFoundError):
                found = os.lstat(self._root / key)
                size = found.st_size if stat.S_ISREG(found.st_mode) else -1
                yield Entry(key, size, f"{found.st_ino}-{found.st_mtime_ns}")

    @override
    def occupied(self) -> bool:
        with self._in_words(""):
            return os.path.lexists(self._root)

    @override
    def list_beside(self) -> list[tuple[str, bool]]:
        with self._in_words(""):
            try:
                with os.scandir(self._root.parent) as entries:
                    return [
                        (entry.name, entry.is_dir())
                        for entry in entries
                        if entry.name.startswith(self._root.name)
                    ]
            except FileNotFoundError:
                return []

    @override
    def remove_place(self) -> None:
        with self._in_words(""):
            for folder, _, _ in os.walk(self._root, topdown=False):
                Path(folder).rmdir()

    # ---- leftovers of interrupted writers

    def litter(self) -> Iterator[str]:
        """Yield the names of dead processes' leftovers in the root."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._root) as entries:
            for entry in entries:
                if entry.name.startswith(".") and (
                    entry.name.endswith(DELETED)
                    or (entry.name.endswith(PARTIAL) and writer_is_dead(Path(entry.path)))
                ):
                    yield entry.name

    def sweep(self, names: Iterable[str] | None = None) -> None:
        """Remove leftovers of dead processes: by default all, or those with these names."""
        for name in list(self.litter()) if names is None else names:
            with contextlib.suppress(OSError):
                if name.endswith(DELETED):
                    remove_tree(self._root / name)
                else:
                    writer_is_dead(self._root / name, remove=True)

    # ---- internal

    def _write_file(
        self,
        key: str,
        data: bytes,
        owner: ChunkOwner | None,
        write: Callable[[int, str, int, str], bool],
        *,
        make: bool = True,
    ) -> None:
        """Write a temporary file, and give it its name by ``write``, once that returns True."""
        if not HAS_LOCKS:  # pragma: no cover - Windows
            raise StoreError(
                f"{self.location}: changing a table on a local disk needs POSIX file locks, "
                "which this system does not have; tables on S3 can be changed from here"
            )
        *folders, name = key.split("/")
        with self._in_words(key):
            root = self._open_root()
            try:
                self._sweep_once()
                stream, temporary = new_held(lambda: f".{uuid.uuid4().hex}{PARTIAL}", root)
                # Another process removes the file if it has no lock. No Python code closes it: see
                # locked().
                with stream:
                    try:
                        _write_all(stream, data)
                        for attempt in range(8):
                            try:
                                with self._folder(folders, owner, make=make) as folder:
                                    if write(folder, name, root, temporary):
                                        return
                            except FileNotFoundError:
                                # Another process has just removed an empty directory of the path.
                                if not make:
                                    return
                                if attempt == 7:
                                    raise
                    finally:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(temporary, dir_fd=root)
            finally:
                os.close(root)
            raise StoreError(
                f"{self.location}/{key}: other processes create and delete it faster than it "
                "can be written"
            )

    def _open_root(self) -> int:
        try:
            return open_root(self._root)
        except FileNotFoundError:
            self._root.mkdir(parents=True, exist_ok=True)
            return open_root(self._root)

    @contextlib.contextmanager
    def _folder(
        self, folders: list[str], owner: ChunkOwner | None, *, make: bool = False
    ) -> Iterator[int]:
        """Open an object's directory, through its owner's once the document was checked."""
        if owner is None:
            with walked(self._root, folders, make=make) as folder:
                yield folder
            return
        own = owner.prefix.split("/")
        try:
            with walked(self._root, own) as column:
                owner.check(read_file(column, ZARR_JSON))
                folder = os.dup(column)
        except (FileNotFoundError, NotADirectoryError):
            owner.check(None)
            raise
        try:
            for name in folders[len(own) :]:
                above, folder = folder, open_folder(folder, name, make=make)
                os.close(above)
            yield folder
        finally:
            os.close(folder)

    def _sweep_once(self) -> None:
        with self._sweep_lock:
            if not self._swept:
                self._swept = True
                self.sweep()

    def _refuse_leftovers(self, folder: int, key: str) -> None:
        # Chunks without a document would become the new column's. Check twice: a process that has
        # just created the directory has written the document by the second check.
        if key.count("/") != 2:
            return
        for _ in range(2):
            names = set(os.listdir(folder))
            if ZARR_JSON in names or "c" not in names:
                return
        raise StoreError(
            f"{self.location}/{key.removesuffix(ZARR_JSON)} holds chunks of a column that no "
            "longer exists: 'gdalbridge check --repair' removes them"
        )

    def _prune(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _in_words(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Add the store and object to errors of the file system."""
        return errors_in_words(self.location, key or "the store")


def _write_all(stream: io.FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
