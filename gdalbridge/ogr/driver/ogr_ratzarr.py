# gdal: DRIVER_NAME = "RATZARR"
# gdal: DRIVER_SUPPORTED_API_VERSION = [1]
# gdal: DRIVER_DCAP_VECTOR = "YES"
# gdal: DRIVER_DMD_LONGNAME = "Raster attribute tables of ratzarr"
# gdal: DRIVER_DMD_CONNECTION_PREFIX = "RATZARR:"
# gdal: DRIVER_DMD_OPENOPTIONLIST = "<OpenOptionList><Option name='COLUMNS' type='string' description='Names of columns, with commas between them'/><Option name='BAND' type='int' description='Band of a raster'/><Option name='TEXT' type='string' description='Columns to show as text'/></OpenOptionList>"
"""GDAL's vector driver for tables of ratzarr. GDAL runs this file in the Python of its program.

That Python needs neither ratzarr nor numpy: this file uses the standard library only. A helper
process in ratzarr's own Python (:mod:`gdalbridge.ogr.helper`) reads the tables, and sends rows
over a socket. All tables of a program share one helper. It ends when the socket closes, however
the program ends.

Every request says which table it is about, and where a scan goes on. So a new helper, in a forked
child or after the first one was killed, can take over at any request.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    # GDAL itself makes this module, in its own interpreter only.
    from gdal_python_driver import BaseDriver
except ImportError:
    BaseDriver = object

PREFIX = "RATZARR:"
SUFFIX = ".rat.zarr"
PROTOCOL = 1
"""The helper's must be equal: another version of ratzarr may be installed meanwhile."""
PYTHON = "RATZARR_PYTHON"
RECORD = "ratzarr-python.json"
"""A file beside this one, written by ``gdalbridge driver-path``: ratzarr's Python."""
PAGE_ROWS = 100
"""Rows read together where single rows are asked for."""
_UPDATE = 1
_FAILURE, _OPEN_FAILED = 3, 4
"""CE_Failure and CPLE_OpenFailed of GDAL's cpl_error.h."""
_HEAD = struct.Struct("<IQ")
# The variables of a program that brings its own Python or GDAL are wrong for the helper.
_FOREIGN = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "GDAL_PYTHON_DRIVER_PATH", "GDAL_DRIVER_PATH",
    "GDAL_DATA", "PROJ_LIB", "PROJ_DATA",
)  # fmt: skip
# A helper reads these as they were when it began.
_SETTINGS = ("AWS_", "RATZARR_", "GDALBRIDGE_", "GDAL_", "CPL_", "VSI", "GS_", "AZURE_")

_keys = itertools.count()
_dropped: list[int] = []
"""Tables and scans that the helper may forget. Only appended to where objects are destroyed: that
can happen at any time, also while a request holds the lock."""


class TableError(Exception):
    """A table can't be read; the message says why."""


def interpreter() -> tuple[str, str]:
    """Return ratzarr's Python, and the PYTHONPATH that it needs."""
    given = os.environ.get(PYTHON)
    if given:
        return given, ""
    here = Path(__file__).absolute().parent
    with suppress(FileNotFoundError):
        record = json.loads((here / RECORD).read_text(encoding="utf-8"))
        return record["python"], record["path"]
    # As pip and conda install: <prefix>/lib/python3.12/site-packages/gdalbridge/ogr/driver.
    *prefix, _, version, packages, _, _, _ = ("", "", "", *here.parts)
    python = Path(*prefix, "bin", version)
    if packages == "site-packages" and version.startswith("python") and os.access(python, os.X_OK):
        return str(python), ""
    raise TableError(
        "the Python that has ratzarr is not known. Set GDAL_PYTHON_DRIVER_PATH to the first line "
        "of `gdalbridge driver-path`, or RATZARR_PYTHON to the path of that Python"
    )


def _settings() -> dict[str, str]:
    return {key: text for key, text in os.environ.items() if key.startswith(_SETTINGS)}


class Helper:
    """A helper process and the socket to it."""

    def __init__(self) -> None:
        self.settings = _settings()
        python, path = interpreter()
        environment = {k: v for k, v in os.environ.items() if k not in _FOREIGN}
        if path:
            environment["PYTHONPATH"] = path
        ours, theirs = socket.socketpair()
        # The program may have set another default.
        ours.settimeout(None)
        self.lock = threading.Lock()
        self.is_usable = True
        self.socket = ours
        number = str(theirs.fileno())
        try:
            with theirs:
                self.process = subprocess.Popen(
                    # -P: a module in the current directory must not replace one of ours.
                    [python, "-P", "-m", "gdalbridge.ogr.helper", number],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    # Ctrl-C in a terminal is for the program; the helper ends with it.
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise TableError(f"can't start ratzarr's Python {python}: {error}") from error
        try:
            header, _ = self._received()
        except OSError as error:
            raise TableError(
                f"{python} -m gdalbridge.ogr.helper did not start{self._end()}. Is ratzarr "
                "installed for this Python?"
            ) from error
        if header["protocol"] != PROTOCOL:
            self._end()
            raise TableError(
                f"this driver and the ratzarr of {python} are of different versions: set "
                "GDAL_PYTHON_DRIVER_PATH to the first line of `gdalbridge driver-path`"
            )

    def call(self, request: dict[str, Any]) -> tuple[dict[str, Any], memoryview]:
        """Send a request and return the reply: its header, and its bytes."""
        with self.lock:
            dropped, _dropped[:] = _dropped[:], []
            data = json.dumps(dict(request, drop=dropped)).encode()
            try:
                # A program in C would end at SIGPIPE.
                self.socket.sendall(
                    _HEAD.pack(len(data), 0) + data, getattr(socket, "MSG_NOSIGNAL", 0)
                )
                header, payload = self._received()
            except OSError as error:
                raise TableError("ratzarr's helper process has ended" + self._end()) from error
        if "error" in header:
            raise TableError(header["error"])
        return header, payload

    def _received(self) -> tuple[dict[str, Any], memoryview]:
        length, size = _HEAD.unpack(self._read(_HEAD.size))
        return json.loads(bytes(self._read(length))), self._read(size)

    def _read(self, size: int) -> memoryview:
        data = memoryview(bytearray(size))
        done = 0
        while done < size:
            got = self.socket.recv_into(data[done:])
            if not got:
                raise ConnectionError("end of file")
            done += got
        return data

    def _end(self) -> str:
        """Close the socket, and return how the process has ended."""
        self.is_usable = False
        self.socket.close()
        try:
            return f" with exit code {self.process.wait(5)}"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return ""

    def leave(self) -> None:
        """Close a forked child's copy of the socket: the helper must notice the parent's end."""
        self.is_usable = False
        self.socket.close()


_helper: Helper | None = None
_starting = threading.Lock()
_helpers: weakref.WeakSet[Helper] = weakref.WeakSet()


def _current() -> Helper:
    """Return a helper of this process with the present settings."""
    global _helper  # noqa: PLW0603 - one for the process
    with _starting:
        if _helper is None or not _helper.is_usable or _helper.settings != _settings():
            _helper = Helper()
            _helpers.add(_helper)
        return _helper


def _after_fork() -> None:
    # Another thread may have held the lock.
    global _helper, _starting
    _helper, _starting = None, threading.Lock()
    for one in list(_helpers):
        one.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Table:
    """An open table: a name, its options, and a helper that knows it."""

    def __init__(self, name: str, options: dict[str, str]) -> None:
        self.key = next(_keys)
        self.name, self.options = name, options
        self.helper = _current()
        self.schema: str | None = None
        header, _ = self.call("open")
        self.schema = header["schema"]
        self.rows: int = header["rows"]
        self.fields: list[dict[str, str]] = header["fields"]
        self.fid_name: str = header["fid_name"]

    def call(self, operation: str, **more: Any) -> tuple[dict[str, Any], memoryview]:
        """Send a request about this table."""
        if not self.helper.is_usable:
            self.helper = _current()
        request = {
            "operation": operation, "table": self.key, "name": self.name,
            "options": self.options, "schema": self.schema,
        }  # fmt: skip
        return self.helper.call(dict(request, **more))

    def close(self) -> None:
        """Let the helper forget the table."""
        _dropped.append(self.key)
        if self.helper.is_usable and self.helper.lock.acquire(blocking=False):
            self.helper.lock.release()
            with suppress(TableError):
                self.helper.call({"operation": "drop"})


class Layer:
    """The rows of a table, as GDAL asks for them. The names are GDAL's."""

    name = "rat"

    def __init__(self, table: Table) -> None:
        self.table = table
        self.geometry_fields: list[Any] = []
        self.fid_name = table.fid_name
        self.fields = table.fields
        self.attribute_filter: str | None = None
        self._names = [field["name"] for field in table.fields]
        self._loop = _loop(self._names)
        self._page: tuple[int, list[Any]] = -1, []

    def test_capability(self, name: str) -> bool:
        """Return whether GDAL may rely on a capability."""
        if name == "FastFeatureCount":
            return not self.attribute_filter
        return name in ("RandomRead", "StringsAsUTF8")

    def feature_count(self, force: bool) -> int:
        """Return the number of rows. GDAL itself counts where there is a filter."""
        return self.table.rows

    def feature_by_id(self, row: int) -> dict[str, Any] | None:
        """Return a row, or None where the table has no such row."""
        if not 0 <= row < self.table.rows:
            return None
        first = row - row % PAGE_ROWS
        begin, columns = self._page
        if begin != first:
            header, data = self.table.call("page", row=first, rows=PAGE_ROWS)
            _, columns = _decoded(header, data)
            self._page = first, columns
        values = (column[row - first] for column in columns)
        fields = dict(zip(self._names, values))  # noqa: B905 - Python 3.9 has no strict
        return {"type": "OGRFeature", "id": row, "fields": fields}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # One dictionary serves all rows, because GDAL copies the values before it asks for more.
        fields: dict[str, Any] = {}
        feature = {"type": "OGRFeature", "id": 0, "fields": fields}
        return self._loop(self._blocks(self.attribute_filter or ""), feature, fields)

    def _blocks(self, condition: str) -> Iterator[tuple[Iterable[int], list[Any]]]:
        """Yield rows that may fulfil a condition: row numbers, and the values of each column."""
        scan, row = next(_keys), 0
        try:
            while row < self.table.rows:
                header, data = self.table.call("next", scan=scan, row=row, condition=condition)
                row = header["next"]
                if header["count"]:
                    yield _decoded(header, data)
        finally:
            _dropped.append(scan)


def _loop(names: list[str]) -> Callable[..., Iterator[dict[str, Any]]]:
    """Return a generator function whose loop stores all values of a row without further calls."""
    targets = ", ".join(f"fields[{name!r}]" for name in names)
    source = (
        "def features(blocks, feature, fields):\n"
        "    for ids, columns in blocks:\n"
        f"        for feature['id'], {targets} in zip(ids, *columns):\n"
        "            yield feature\n"
    )
    made: dict[str, Any] = {}
    exec(source, made)  # noqa: S102 - names are literals made by repr, never read as code
    features: Callable[..., Iterator[dict[str, Any]]] = made["features"]
    return features


def _decoded(header: dict[str, Any], data: memoryview) -> tuple[Iterable[int], list[Any]]:
    """Return the row numbers and columns of a reply."""
    place = 0

    def taken(size: int) -> memoryview:
        nonlocal place
        place += size
        return data[place - size : place]

    first, count = header["first"], header["count"]
    ids: Iterable[int] = range(first, first + count)
    if header["ids"]:
        ids = taken(header["ids"]).cast("q").tolist()
    columns = []
    for code, size, missing in header["columns"]:
        values = _values(code, taken(size), count)
        for number in taken(missing).cast("i"):
            values[number] = None
        columns.append(values)
    return ids, columns


def _values(code: Any, data: memoryview, count: int) -> list[Any]:
    """Return the values of a column of a reply."""
    values: list[Any]
    if code == "text":
        # No text has a zero character.
        values = str(data, "utf-8").split("\0")
    elif code == "bytes":
        values, start = [], 8 * count
        for length in data[:start].cast("q"):
            values.append(bytes(data[start : start + length]))
            start += length
    else:
        values = data.cast(code).tolist()
    return values


class Dataset:
    """A table as a dataset of one layer."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def layer_count(self) -> int:
        """Return the number of layers."""
        return 1

    def layer(self, number: int) -> Layer | None:
        """Return the layer."""
        return Layer(self._table) if number == 0 else None

    def close(self) -> None:
        """Close the table."""
        self._table.close()


class Driver(BaseDriver):  # type: ignore[misc] # GDAL's has no annotations
    """The driver, as GDAL calls it."""

    def identify(
        self, filename: str, header: bytes, flags: int, open_options: dict[str, str] | None = None
    ) -> bool:
        """Return whether a name is that of a table, by its name alone."""
        # GDAL tries again for reading only.
        if flags & _UPDATE:
            return False
        if filename[: len(PREFIX)].upper() == PREFIX:
            return True
        path = filename.rstrip("/")
        if not path.endswith(SUFFIX):
            return False
        return "://" in path or path.startswith("/vsi") or Path(path).is_dir()

    def open(
        self, filename: str, header: bytes, flags: int, open_options: dict[str, str] | None = None
    ) -> Dataset | None:
        """Open a table for reading."""
        if not self.identify(filename, header, flags):
            return None
        name, options = filename, {key.lower(): text for key, text in (open_options or {}).items()}
        if filename[: len(PREFIX)].upper() == PREFIX:
            name, more = _parsed(filename[len(PREFIX) :])
            options.update(more)
        if os.path.lexists(name):
            # The helper may have another current directory.
            name = str(Path(name).absolute())
        try:
            return Dataset(Table(name, options))
        except TableError as error:
            if _reported(str(error)):
                return None
            # GDAL shows the traceback too.
            raise error.with_traceback(None) from None


def _reported(message: str) -> bool:
    """Report an error as GDAL's C code does, without a traceback; False if GDAL is not found.

    It is found in programs that are linked with GDAL, such as ogrinfo and QGIS.
    """
    try:
        import ctypes

        report = ctypes.CDLL(None).CPLError
    except (ImportError, OSError, AttributeError, TypeError):
        return False
    # The arguments of the format follow these three.
    report.argtypes, report.restype = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p], None
    report(_FAILURE, _OPEN_FAILED, b"%s", ctypes.c_char_p(message.encode("utf-8", "replace")))
    return True


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """Return the name of a table, and the options after a question mark.

    A question mark that is followed by anything else is part of the name.
    """
    name, mark, query = text.rpartition("?")
    options = dict(part.partition("=")[::2] for part in query.split("&"))
    if mark and all(key in ("columns", "band", "text") for key in options):
        return name, options
    return text, {}
