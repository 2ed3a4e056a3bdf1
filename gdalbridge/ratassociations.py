"""Which tables a script reads and writes: handles, by names of the script's own.

A handle is a name and no open file, so that it can be sent to another process.

>>> rats = RatAssociations()
>>> rats.img = RatHandle("seg.tif")
>>> rats.extra = RatZarrHandle("s3://bucket/extra.zarr")
>>> list(rats.getRatList())
['img', 'extra']
"""

import os
from collections.abc import KeysView, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import BridgeError
from .read_options import ReadOptions
from .sidecar import SUFFIX

__all__ = ["Handle", "RatAssociations", "RatHandle", "RatZarrHandle"]


def _name(value: Any, kind: str) -> str:
    try:
        name = os.fspath(value)
    except TypeError:
        name = None
    if not isinstance(name, str) or not name:
        raise BridgeError(
            f"{kind} takes the name of a table, as it may have to be opened in another process: "
            f"got {value!r}"
        )
    return name


@dataclass(frozen=True, slots=True)
class RatHandle:
    """A raster's table: its own columns and its sidecars', as one. Written is the sidecar.

    Parameters
    ----------
    filename : str or os.PathLike
        A path, URL or ``/vsi`` name.
    layernum : int
        The band, counted from 1.
    table : str, optional
        The further table (of columns grouped by theme) that is written; by default the
        band's first.
    storageOptions : mapping, optional
        See :class:`ratzarr.RatZarr`.
    encoding : str, optional
        Of text and names in the raster's own table; by default UTF-8, or as its
        ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table also where GDAL lost or altered values of it.
    """

    filename: str
    layernum: int = 1
    table: str | None = field(default=None, kw_only=True)
    storageOptions: Mapping[str, Any] | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )
    encoding: str | None = field(default=None, kw_only=True)
    lossy: bool = field(default=False, kw_only=True)

    @property
    def reading(self) -> ReadOptions:
        """How the raster's own table is read."""
        return ReadOptions(self.encoding, self.lossy)

    def __post_init__(self) -> None:
        name = _name(self.filename, "RatHandle")
        if name.rstrip("/").endswith(SUFFIX):
            raise BridgeError(f"{name} is a sidecar, or a table like one: RatZarrHandle({name!r})")
        object.__setattr__(self, "filename", name)
        # An unknown encoding is refused where the handle is made.
        self.reading  # noqa: B018

    def same_band(self, other: "RatHandle") -> bool:
        """Return whether both are of one band of one raster."""
        return (self.filename, self.layernum) == (other.filename, other.layernum)


@dataclass(frozen=True, slots=True)
class RatZarrHandle:
    """A table that is a store by itself: any RatZarr, a sidecar too.

    Parameters
    ----------
    filename : str or os.PathLike
        A path or URL.
    storageOptions : mapping, optional
        See :class:`ratzarr.RatZarr`.
    """

    filename: str
    storageOptions: Mapping[str, Any] | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "filename", _name(self.filename, "RatZarrHandle"))


type Handle = RatHandle | RatZarrHandle


class RatAssociations:
    """The tables that are read, or those that are written: each attribute is a handle."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(value, RatHandle | RatZarrHandle):
            raise BridgeError(
                f"{name} is to be a table: expected a RatHandle or a RatZarrHandle, got {value!r}"
            )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no table {name!r}; there are {list(self.__dict__)}")

    def getRatList(self) -> KeysView[str]:
        """Return the names."""
        return self.__dict__.keys()

    def handles(self) -> dict[str, Handle]:
        """Return the handles by their names."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={handle!r}" for name, handle in self.__dict__.items())
        return f"RatAssociations({pairs})"
