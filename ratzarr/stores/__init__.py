"""Stores: local disks, S3, and other Zarr stores.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratzarr.stores.aws_config import NAMES, S3Settings, consult, current, without_password
    from ratzarr.stores.base import Location, Objects, gdal_name, parse, url_name
    from ratzarr.stores.files import (
        FileState,
        copy_file,
        file_state,
        names_beside,
        remove_file,
        same_file,
    )
    from ratzarr.stores.local_files import state_of
    from ratzarr.stores.open import exists, open_objects
    from ratzarr.stores.s3_client import client_for, keys_of_profile
    from ratzarr.stores.temp_output import (
        leftovers,
        remove_temporary,
        sweep_leftovers,
        temporary_path,
    )

__all__ = [
    "NAMES",
    "FileState",
    "Location",
    "Objects",
    "S3Settings",
    "client_for",
    "consult",
    "copy_file",
    "current",
    "exists",
    "file_state",
    "gdal_name",
    "keys_of_profile",
    "leftovers",
    "names_beside",
    "open_objects",
    "parse",
    "remove_file",
    "remove_temporary",
    "same_file",
    "state_of",
    "sweep_leftovers",
    "temporary_path",
    "url_name",
    "without_password",
]

# Modules load on first use: some import zarr, which would slow down ``gdalbridge --help``.
_MODULES = {
    "FileState": "files",
    "Location": "base",
    "NAMES": "aws_config",
    "Objects": "base",
    "S3Settings": "aws_config",
    "client_for": "s3_client",
    "consult": "aws_config",
    "copy_file": "files",
    "current": "aws_config",
    "exists": "open",
    "file_state": "files",
    "gdal_name": "base",
    "keys_of_profile": "s3_client",
    "leftovers": "temp_output",
    "names_beside": "files",
    "open_objects": "open",
    "parse": "base",
    "remove_file": "files",
    "same_file": "files",
    "state_of": "local_files",
    "sweep_leftovers": "temp_output",
    "remove_temporary": "temp_output",
    "temporary_path": "temp_output",
    "url_name": "base",
    "without_password": "aws_config",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
