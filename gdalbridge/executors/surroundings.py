"""What a worker process has to have as its parent does, besides the function and the block.

A script sets credentials in ``os.environ``, options of GDAL's, a working directory, and at
times ``sys.path``: work in another process must find the same, also what was set after the
process began.
"""

import os
import sys
from dataclasses import dataclass, field
from typing import Self

from ratzarr.s3words import NAMES

__all__ = ["Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process finds around it."""

    environment: dict[str, str] = field(repr=False)
    """All of it, credentials included: they go from one process to its child, nowhere else."""
    directory: str | None
    path: tuple[str, ...]
    arguments: tuple[str, ...]
    """The command line, which the modification log of a column tells."""
    gdal: dict[str, str] = field(repr=False)
    """Options of GDAL's that the program has set, of the process and of the calling thread."""

    @classmethod
    def here(cls) -> Self:
        """Return those of this process."""
        try:
            directory = os.getcwd()  # noqa: PTH109 - as text, as it is sent
        except FileNotFoundError:
            directory = None
        return cls(
            dict(os.environ),
            directory,
            tuple(str(entry) for entry in sys.path),
            tuple(sys.argv),
            _gdal_options(),
        )

    def enter(self, before: Self | None = None) -> None:
        """Make them those of this process.

        Parameters
        ----------
        before : Surroundings, optional
            What was entered before.
        """
        # Never empty in between: other threads of the process read it.
        for name in set(os.environ) - set(self.environment):
            del os.environ[name]
        for name, value in self.environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        if self.directory is not None:
            os.chdir(self.directory)
        sys.path[:] = self.path
        sys.argv[:] = self.arguments
        known = {} if before is None else before.gdal
        if self.gdal != known:
            from .._gdal import gdal

            for name in known | self.gdal:
                gdal.SetConfigOption(name, self.gdal.get(name))


def _gdal_options() -> dict[str, str]:
    if "osgeo.gdal" not in sys.modules:
        # Then the program has set none.
        return {}
    from .._gdal import gdal

    if hasattr(gdal, "GetConfigOptions"):
        return dict(gdal.GetConfigOptions())
    # Before 3.7 they can't be listed, only asked for by name.
    asked = {name: gdal.GetConfigOption(name) for name in NAMES}
    return {
        name: value
        for name, value in asked.items()
        if value is not None and value != os.environ.get(name)
    }
