"""Access to files and directories below a root, never outside it.

Paths are opened without following links. Directory listings are cached while the directory is
unchanged. The module also has temporary files that get their name when they are complete, locks
that show which temporary files are stale, and the atomic exchange of two directories.
"""

import contextlib
import ctypes
import errno
import functools
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ratzarr.errors import DamagedError, RatZarrError, StoreError, StorePermissionError
from ratzarr.format.names import ZARR_JSON
from ratzarr.stores.base import Found, Take

__all__ = [
    "HAS_LOCKS",
    "LinkError",
    "ListingCache",
    "NotAFileError",
    "discard",
    "errors_in_words",
    "exchange",
    "is_in_state",
    "lock_if_free",
    "locked",
    "new_held",
    "open_folder",
    "open_root",
    "read_all",
    "read_at",
    "read_below",
    "read_file",
    "state_of",
    "walked",
    "with_document",
    "writer_is_dead",
]


class ListingCache:
    """Cache of directory listings, each valid while its directory is unchanged.

    Parameters
    ----------
    max_listings : int
        Largest number of cached listings.
    max_names : int
        Directories with more names are not cached.
    """

    def __init__(self, max_listings: int = 64, max_names: int = 10_000) -> None:
        self._max_listings, self._max_names = max_listings, max_names
        # By directory state: names of directories with a document, and of others. All operations
        # on this dict are atomic; a lock could be inherited by a forked child while it is held.
        self._known: dict[str, tuple[list[str], list[str]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def with_document(self, folder: int) -> list[str]:
        """Return the names in an open directory that are directories with a ``zarr.json``.

        A cached result is the same list each time: do not modify it.

        Symbolic links are included, so that opening them reports an error with their name.
        """
        # Take the state before the names: a change during the listing then yields another state.
        state = state_of(os.fstat(folder))
        known = self._known.get(state) if state else None
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
        if state and len(sure) + len(unsure) <= self._max_names:
            if len(self._known) >= self._max_listings:
                self._known.clear()
            self._known[state] = sure, unsure
        return sure


with_document = ListingCache().with_document
"""The cache shared by all stores of this process."""


def _has_document(folder: int, name: str) -> bool:
    path = f"{name}/{ZARR_JSON}"
    if os.access(path, os.F_OK, dir_fd=folder):
        return True
    try:
        # A dangling link counts as present too. Other errors must be reported.
        os.stat(path, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # mypy knows no optional modules


FINE, COARSE = 10**8, 3 * 10**9
"""Nanoseconds within which two changes may have equal times. File times have the resolution of the
system's ticks, about 10 ms, or of one or two seconds on some file systems."""

HAS_LOCKS = fcntl is not None
_HAS_DIR_FD = os.open in os.supports_dir_fd
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_FOR_LOCK = os.O_RDWR | _NOFOLLOW | _CLOEXEC


class LinkError(OSError):
    """A symbolic link or special file where a file was expected."""


class NotAFileError(LinkError):
    """A directory or special file where a file was expected."""


@contextlib.contextmanager
def errors_in_words(*places: object) -> Iterator[None]:
    """Turn errors of the file system into errors of ratzarr that name a place, then one in it.

    Both are made text only for an error, because this surrounds every read and write.
    """
    try:
        yield
    except (RatZarrError, FileExistsError):
        raise
    except OSError as error:
        where = ": ".join(map(str, places))
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise StorePermissionError(f"{where}: no permission: {error}") from error
        raise StoreError(f"{where}: {error}") from error


def open_root(root: Path) -> int:
    """Open the root itself. It may be a link, because the user named it."""
    return os.open(root, os.O_RDONLY | _DIRECTORY | _CLOEXEC)


def open_folder(parent: int, name: str, *, make: bool = False) -> int:
    """Open a directory in a directory.

    Raises
    ------
    LinkError
        If it is a symbolic link.
    FileNotFoundError, NotADirectoryError
        If it does not exist.
    """
    flags = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC
    while True:
        try:
            return os.open(name, flags, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(parent, name):
                raise LinkError(
                    errno.ELOOP, "is a symbolic link: links in a store are not followed", name
                ) from error
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)


@contextlib.contextmanager
def walked(root: Path, folders: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """Open the directory at the end of a path below the root, as a context manager."""
    folder = open_root(root)
    try:
        for name in folders:
            # Forget the descriptor before closing it: Ctrl-C may come in between, and closing it
            # twice could close another file.
            above, folder = folder, open_folder(folder, name, make=make)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _open_regular(folder: int, name: str, flags: int) -> tuple[int, os.stat_result]:
    try:
        file = os.open(name, flags | _NOFOLLOW | _NONBLOCK | _CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LinkError(
                errno.ELOOP, "is a symbolic link: links in a store are not followed", name
            ) from error
        if error.errno == errno.ENXIO:
            raise NotAFileError(errno.ENXIO, "is not a file", name) from error
        raise
    now = os.fstat(file)
    if not stat.S_ISREG(now.st_mode):
        os.close(file)
        raise NotAFileError(errno.EINVAL, "is not a file", name)
    return file, now


def read_file(folder: int, name: str) -> bytes | None:
    """Return the bytes of a file in an open directory; None if it does not exist.

    Raises
    ------
    LinkError
        If it is not a regular file.
    """
    try:
        file, now = _open_regular(folder, name, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _read(file, now.st_size)
    finally:
        os.close(file)


def read_below(
    root: Path,
    key: str,
    limit: int | None = None,
    take: Take | None = None,
) -> Found | None:
    """Read a file below the root; return None if it does not exist.

    Parameters
    ----------
    take : callable, optional
        Called first: see :meth:`ratzarr.stores.base.Objects.read`.

    Raises
    ------
    DamagedError
        If the file has more bytes than ``limit``.
    LinkError
        If it is not a regular file, or the path contains a link.
    """
    if not _HAS_DIR_FD:  # pragma: no cover - Windows
        return _read_by_name(root, key, limit)
    try:
        file, now = _open_below(root, key)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        state = state_of(now)
        _check_size(root, key, now.st_size, limit)
        if take is not None and take(state, now.st_size, functools.partial(read_at, file)):
            return Found(b"", state=state, is_read=False)
        data = _read(file, now.st_size)
        return Found(data, data, state=state)
    finally:
        os.close(file)


def _check_size(root: Path, key: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise DamagedError(f"{root}/{key} has {size} bytes: at most {limit} were expected")


def _read_by_name(
    root: Path, key: str, limit: int | None
) -> Found | None:  # pragma: no cover - Windows
    path = root
    for part in key.split("/"):
        path /= part
        if path.is_symlink():
            raise LinkError(errno.ELOOP, "is a symbolic link: links are not followed", part)
    try:
        _check_size(root, key, path.stat().st_size, limit)
        return Found(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _open_below(root: Path, key: str) -> tuple[int, os.stat_result]:
    """Open a file below the root like :func:`walked`, with as few system calls as possible.

    Walking takes two system calls for each directory. So the file is opened by its full name.
    Before reading, the system reports where the opened file really is (proc(5),
    ``/proc/self/fd``). This differs from the name if the path contained a link. In that case, or
    if the system reports nothing, the path is walked step by step.
    """
    found = _opened_at_once(root, key)
    if found is not None:
        return found
    *folders, name = key.split("/")
    with walked(root, folders) as folder:
        return _open_regular(folder, name, os.O_RDONLY)


def _opened_at_once(root: Path, key: str) -> tuple[int, os.stat_result] | None:
    try:
        file = os.open(f"{root}/{key}", os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC)
    except OSError:
        return None
    try:
        lies = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115 - a Path takes as long again
        now = os.fstat(file)
        if lies == f"{_real(root)}/{key}" and stat.S_ISREG(now.st_mode):
            return file, now
    except OSError:
        # For example, /proc does not exist. Walking step by step finds the cause.
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


@functools.lru_cache(maxsize=16)
def _real(root: Path) -> str:
    # If the path contains a link by now, the system reports another location.
    return os.path.realpath(root)


def read_at(file: int, place: int, memory: memoryview) -> int:
    """Read from an offset of a file; return the number of bytes."""
    size = 0
    while size < len(memory) and (read := os.preadv(file, [memory[size:]], place + size)):
        size += read
    return size


def state_of(found: os.stat_result, *, now: int | None = None) -> str:
    """Return the state of a file, which changes with it; empty while it is not yet reliable.

    A rewritten file has another inode number or, if a deleted file's number was reused, a later
    time. Times have a limited resolution: after a very recent change, the next change may have the
    same time. ``ctime`` is set by the system only.

    Parameters
    ----------
    now : int, optional
        The time in nanoseconds; by default the system's.
    """
    if now is None:
        now = time.time_ns()
    step = COARSE if found.st_ctime_ns % 10**9 == 0 else FINE
    return "" if now - found.st_ctime_ns <= step else _in_figures(found)


def is_in_state(found: os.stat_result, state: str) -> bool:
    """Return True if a file is in a state returned by :func:`state_of`."""
    return _in_figures(found) == state


def _in_figures(found: os.stat_result) -> str:
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def locked(folder: int, name: str) -> AbstractContextManager[io.FileIO | None]:
    """Open the file at ``name``, locked until it is closed; return None if it does not exist.

    Ctrl-C may interrupt Python code between any two steps, including the entry and exit of a
    context manager written in Python. A file left open there would keep its lock as long as the
    exception is referenced. A cleanup that writes the file again would then wait for itself. A
    Python file object, written in C, has no such steps.
    """
    while True:
        try:
            file = io.FileIO(_open_for_lock(folder, name), "rb")
        except FileNotFoundError:
            return contextlib.nullcontext(None)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            if _leads_to(folder, name, file.fileno()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _open_for_lock(folder: int, name: str) -> int:
    try:
        # Opened for writing, although nothing is written, because NFS requires it for an exclusive
        # lock.
        return _open_regular(folder, name, os.O_RDWR)[0]
    except PermissionError:
        return _open_regular(folder, name, os.O_RDONLY)[0]


def _leads_to(folder: int, name: str, file: int) -> bool:
    try:
        now = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(file)
    return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)


def lock_if_free(file: int) -> bool:
    """Lock an open file; return False if another process holds its lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_all(file: int) -> bytes:
    """Return all bytes of an open file."""
    # Read without duplicating the descriptor: after Ctrl-C, an open duplicate would keep the lock.
    return _read(file, os.fstat(file).st_size)


def _read(file: int, size: int) -> bytes:
    """Read a file of known size in one step, because each step may switch threads."""
    data = os.pread(file, size + 1, 0)
    while len(data) != size and (more := os.pread(file, 2**20, len(data))):
        data += more
    return data


_SWAP = 2
"""Both ``RENAME_EXCHANGE`` of Linux and ``RENAME_SWAP`` of macOS have this value."""
_AT_FDCWD = -100
_CANT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def exchange(one: Path, other: Path) -> bool:
    """Exchange two existing directories.

    Returns
    -------
    bool
        False if the system or the file system does not support it; nothing has changed.

    Raises
    ------
    OSError
        For any other failure.
    """
    names = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _SWAP)
        else:  # pragma: no cover - macOS
            failed = libc.renamex_np(*names, _SWAP)
    except (AttributeError, TypeError, OSError):  # pragma: no cover - systems that have neither
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANT:  # pragma: no cover - depends on the file system
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def new_held(
    named: Callable[[], str], folder: int | None = None, *, locks_needed: bool = True
) -> tuple[io.FileIO, str]:
    """Create an empty file that stays locked until it is closed.

    Parameters
    ----------
    named : callable
        Returns a new name at each call.
    folder : int, optional
        The open directory of the name.
    locks_needed : bool
        True if missing support for locks is an error. Otherwise no file there is ever considered
        stale.

    Returns
    -------
    io.FileIO
        The file, open for reading and writing. Close it with ``with``, and do not duplicate its
        descriptor: see :func:`~ratzarr.stores.local_files.locked`.
    str
        The file's name.
    """
    while True:
        name = named()
        file = io.FileIO(
            os.open(name, _FOR_LOCK | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder), "r+b"
        )
        try:
            # Another process may have removed it as stale before it was locked.
            if _is_held(file, locks_needed) and os.fstat(file.fileno()).st_nlink:
                return file, name
        except BaseException:
            discard(file, name, folder)
            raise
        discard(file, name, folder)


def _is_held(file: io.FileIO, locks_needed: bool) -> bool:
    try:
        return lock_if_free(file.fileno())
    except (OSError, AttributeError):
        # The file system, or Windows, has no locks.
        if locks_needed:
            raise
        return True


def discard(file: io.FileIO, name: str, folder: int | None = None) -> None:
    """Close a file and remove it."""
    file.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def writer_is_dead(path: Path, *, remove: bool = False) -> bool:
    """Return True if no process holds a file's lock; optionally remove the file.

    Remove it under the lock: otherwise its writer could take the lock between the check and the
    removal.
    """
    if not HAS_LOCKS:  # pragma: no cover - Windows
        return False
    try:
        file = os.open(path, _FOR_LOCK | _NONBLOCK)
    except OSError:
        return False
    try:
        free = lock_if_free(file)
        if free and remove:
            path.unlink(missing_ok=True)
        return free
    except OSError:
        return False
    finally:
        os.close(file)
