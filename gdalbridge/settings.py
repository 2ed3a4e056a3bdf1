"""The environment variables that gdalbridge reads. Those of ratzarr are in :mod:`ratzarr.settings`.

A variable is read when its value is needed, so a program can set it at any time. An empty variable
counts as not set. The vector driver reads :data:`DRIVER_PYTHON` by itself, in the Python of GDAL's
program, which has no gdalbridge. AWS's and GDAL's own variables are looked up in :data:`environment`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "DATA_HOME",
    "DRIVER_PYTHON",
    "SIDECAR_DIR",
    "TRACEBACK",
    "data_home",
    "driver_python",
    "environment",
    "python_path",
    "shows_traceback",
    "sidecar_dir",
]

SIDECAR_DIR = "GDALBRIDGE_SIDECAR_DIR"
"""A directory, or a prefix on S3: the second place for sidecars of rasters whose own cannot be written."""
TRACEBACK = "GDALBRIDGE_TRACEBACK"
"""Any value: commands print Python's traceback after an error."""
DRIVER_PYTHON = "RATZARR_PYTHON"
"""Path of the Python that has ratzarr, for the vector driver; by default found by its place."""
DATA_HOME = "XDG_DATA_HOME"
"""The directory of a user's data, for the vector driver; by default ``~/.local/share``."""

environment: Mapping[str, str] = os.environ
"""All variables, for the choice among AWS's and GDAL's."""


def sidecar_dir() -> str:
    """Return the second place for sidecars, or an empty string: :data:`SIDECAR_DIR`."""
    return os.environ.get(SIDECAR_DIR, "")


def shows_traceback() -> bool:
    """Return whether commands print tracebacks: :data:`TRACEBACK`."""
    return bool(os.environ.get(TRACEBACK))


def driver_python() -> str:
    """Return the Python of the vector driver, or an empty string: :data:`DRIVER_PYTHON`."""
    return os.environ.get(DRIVER_PYTHON, "")


def data_home() -> Path:
    """Return the directory of the user's data: :data:`DATA_HOME`."""
    return Path(os.environ.get(DATA_HOME) or Path.home() / ".local" / "share")


def python_path() -> str:
    """Return Python's own ``PYTHONPATH``, or an empty string."""
    return os.environ.get("PYTHONPATH", "")
