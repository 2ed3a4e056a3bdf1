"""The environment variables that gdalbridge reads. Those of ratzarr are in :mod:`ratzarr.settings`.

A variable is read when its value is needed, so a program can set it at any time. An empty variable
counts as not set. The vector driver reads ``RATZARR_PYTHON`` in the Python of GDAL's program, which
has no gdalbridge; see :mod:`gdalbridge.ogr.driver_path`.
"""

import os
from collections.abc import Mapping

__all__ = ["SIDECAR_DIR", "TRACEBACK", "environment", "shows_traceback", "sidecar_dir"]

SIDECAR_DIR = "GDALBRIDGE_SIDECAR_DIR"
"""A directory, or a prefix on S3: the second place for sidecars of rasters whose own cannot be written."""
TRACEBACK = "GDALBRIDGE_TRACEBACK"
"""Any value: commands print Python's traceback after an error."""

environment: Mapping[str, str] = os.environ
"""All variables, for code that takes a mapping of them."""


def sidecar_dir() -> str:
    """Return the second place for sidecars, or an empty string: :data:`SIDECAR_DIR`."""
    return os.environ.get(SIDECAR_DIR, "")


def shows_traceback() -> bool:
    """Return whether commands print tracebacks: :data:`TRACEBACK`."""
    return bool(os.environ.get(TRACEBACK))
