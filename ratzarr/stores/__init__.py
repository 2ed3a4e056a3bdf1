"""Stores: local disks, S3, and other Zarr stores.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal.
"""

# mypy: implicit-reexport
from typing import TYPE_CHECKING

from ratzarr.lazy import lazy

if TYPE_CHECKING:
    from ratzarr.stores.aws_config import NAMES, S3Settings, consult, current, without_password
    from ratzarr.stores.base import Location, Objects, gdal_name, parse, url_name
    from ratzarr.stores.local_files import state_of
    from ratzarr.stores.open import open_objects
    from ratzarr.stores.s3_client import client_for, keys_of_profile
    from ratzarr.stores.single_files import (
        FileState,
        copy_file,
        file_state,
        names_beside,
        remove_file,
        same_file,
    )
    from ratzarr.stores.temp_output import (
        leftovers,
        link_file,
        name_file,
        remove_temporary,
        sweep_leftovers,
        temporary_path,
    )

# Modules load on first use: some import zarr, which would slow down ``gdalbridge --help``.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "aws_config": "NAMES S3Settings consult current without_password",
        "base": "Location Objects gdal_name parse url_name",
        "local_files": "state_of",
        "open": "open_objects",
        "s3_client": "client_for keys_of_profile",
        "single_files": "FileState copy_file file_state names_beside remove_file same_file",
        "temp_output": (
            "leftovers link_file name_file remove_temporary sweep_leftovers temporary_path"
        ),
    },
)
