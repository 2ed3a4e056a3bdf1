"""The directory of the vector driver, for GDAL's option ``GDAL_PYTHON_DRIVER_PATH``."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from gdalbridge.errors import BridgeError
from gdalbridge.settings import data_home, driver_python, python_path

__all__ = ["driver_directory"]

STUB = Path(__file__).parent / "driver" / "ogr_ratzarr.py"


def driver_directory() -> Path:
    """Return a directory whose driver starts its helper with this Python.

    That is the package's own directory where the driver finds this Python from its place, as in
    environments of conda and venv. Elsewhere it is a directory in the user's ``XDG_DATA_HOME``
    (``~/.local/share``) with a link to the driver, and a file that names this Python.

    Raises
    ------
    BridgeError
        If that directory can't be written.
    """
    python, path = sys.executable, python_path()
    stub = _stub()
    if not path and _is_found(stub, python):
        return STUB.parent
    record = json.dumps({"python": python, "path": path})
    digest = hashlib.sha256(f"{STUB}\0{record}".encode()).hexdigest()[:12]
    directory = data_home() / "ratzarr" / f"gdal-driver-{digest}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / stub.RECORD, lambda new: new.write_text(record, encoding="utf-8"))
        _replace(directory / STUB.name, lambda new: new.symlink_to(STUB))
    except OSError as error:
        raise BridgeError(
            f"can't write {directory}: {error.strerror}. Set XDG_DATA_HOME to another directory, or "
            f"use GDAL_PYTHON_DRIVER_PATH={STUB.parent} and RATZARR_PYTHON={python}"
        ) from error
    return directory


def _stub() -> ModuleType:
    """Import the driver, which lies outside of the package."""
    loader = SourceFileLoader("ogr_ratzarr", str(STUB))
    module = ModuleType(loader.name)
    module.__file__ = str(STUB)
    loader.exec_module(module)
    return module


def _is_found(stub: ModuleType, python: str) -> bool:
    """Return whether the driver finds this Python without a record."""
    if driver_python():
        # Not set where the driver will be used, perhaps.
        return False
    try:
        found, _ = stub.interpreter()
    except stub.TableError:
        return False
    # Not Path.samefile: the interpreters of several environments are links to one file.
    return Path(found).parent == Path(python).parent


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and move it into place: a program may be reading it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    write(new)
    new.replace(path)
