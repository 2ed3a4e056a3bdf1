"""Reject pipes, sockets and devices, which GDAL would wait for or read endlessly."""

import re
import stat
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from gdalbridge.errors import RasterNotFoundError

__all__ = ["refuse_special_files", "refuse_special_sources"]

BESIDE = (".aux.xml", ".aux", ".ovr", ".msk", ".msk.ovr", ".vat.dbf")
"""Suffixes of the files that GDAL opens with a raster."""
INSTEAD = (".aux", ".rrd", ".tfw", ".wld", ".prj", ".IMD", ".RPB", "_rpc.txt")
"""Suffixes of such files after the name without its extension."""

_KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_STREAM = re.compile(r"/vsistd(?:in|out)\b")
_WRAPPER = re.compile(r"^/vsi[a-z0-9_]+(?:/|$)")
_SEPARATOR = re.compile(r"""[:"'{}(),?&=|]""")
_SOURCE = re.compile(r"<Source(?:Filename|Dataset)([^>]*)>([^<]*)<")


def refuse_special_files(name: str) -> None:
    """Reject a raster that is, uses, or has beside it a pipe, a socket or a device.

    Parameters
    ----------
    name : str
        The name to open: a path, a ``/vsi`` name, or a driver's own name (``NETCDF:"x.nc":v``).

    Raises
    ------
    RasterNotFoundError
        Names the file and its kind.
    """
    if name.startswith("<"):
        return
    if _STREAM.search(name):
        raise RasterNotFoundError(
            f"{name} is a stream, but rasters need random access: save it as a file first"
        )
    for path in _paths(name):
        kind = _KINDS.get(_type_of(path))
        if kind is not None:
            of = "" if path == name else f", which GDAL would read for {name}"
            raise RasterNotFoundError(
                f"{path} is {kind}, not a regular file{of}: it can't be opened as a raster"
            )


def refuse_special_sources(dataset: Any) -> None:
    """Reject an open virtual raster that reads its pixels from such a file."""
    driver = dataset.GetDriver()
    if driver is None or driver.ShortName != "VRT":
        return
    # This module is also imported where GDAL is not installed.
    from gdalbridge.gdalio.compat import vrt_xml

    folder = Path(dataset.GetDescription()).parent
    for attributes, found in _SOURCE.findall(vrt_xml(dataset)):
        source = unescape(found)
        is_relative = re.search(r"""relativeToVRT\s*=\s*["']1""", attributes)
        refuse_special_files(str(folder / source) if is_relative else source)


def _paths(name: str) -> Iterator[str]:
    """Yield the local files that a name may refer to, the raster itself first."""
    yield name
    if not name.startswith("/vsi"):
        stem = str(Path(name).with_suffix("")) if Path(name).name else name
        yield from (name + end for end in BESIDE)
        yield from (stem + end for end in INSTEAD)
        if ":" not in name:
            return
    for part in _SEPARATOR.split(name):
        path = part
        while _WRAPPER.match(path):
            path = _WRAPPER.sub("", path, count=1)
        if path in ("", name):
            continue
        yield path
        # For a file in an archive, this is the archive.
        yield from (str(parent) for parent in Path(path).parents)


def _type_of(path: str) -> int:
    try:
        return stat.S_IFMT(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return 0
