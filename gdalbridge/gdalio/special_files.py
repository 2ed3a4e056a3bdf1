"""Pipes, sockets and devices, which GDAL must not open: it would wait for ever, or read for ever."""

import re
import stat
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from gdalbridge.errors import RasterNotFoundError

__all__ = ["refuse_special_files", "refuse_special_sources"]

BESIDE = (".aux.xml", ".aux", ".ovr", ".msk", ".msk.ovr", ".vat.dbf")
"""What follows a raster's name in names of files that GDAL opens with it."""
INSTEAD = (".aux", ".rrd", ".tfw", ".wld", ".prj", ".IMD", ".RPB", "_rpc.txt")
"""What follows its name without the extension."""

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
    """Refuse a raster that is, is read from, or lies beside a pipe, a socket or a device.

    Parameters
    ----------
    name : str
        As GDAL is to open it: a path, a ``/vsi`` name, or one of a driver's own
        (``NETCDF:"x.nc":v``).

    Raises
    ------
    RasterNotFoundError
        Names the file, and says what it is.
    """
    if name.startswith("<"):
        return
    if _STREAM.search(name):
        raise RasterNotFoundError(
            f"{name} is a stream, and a raster is read at random: save it as a file first"
        )
    for path in _paths(name):
        kind = _KINDS.get(_type_of(path))
        if kind is not None:
            of = "" if path == name else f", which GDAL would read for {name}"
            raise RasterNotFoundError(
                f"{path} is {kind}, and no regular file{of}: it can't be opened as a raster"
            )


def refuse_special_sources(dataset: Any) -> None:
    """Refuse a virtual raster, just opened, that reads its pixels from such a file."""
    driver = dataset.GetDriver()
    if driver is None or driver.ShortName != "VRT":
        return
    folder = Path(dataset.GetDescription()).parent
    for text in dataset.GetMetadata("xml:VRT") or ():
        for attributes, found in _SOURCE.findall(text):
            source = unescape(found)
            is_relative = re.search(r"""relativeToVRT\s*=\s*["']1""", attributes)
            refuse_special_files(str(folder / source) if is_relative else source)


def _paths(name: str) -> Iterator[str]:
    """Yield the files on a local disk that a name can mean, the one that it is first."""
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
        # Of a file in an archive, the archive.
        yield from (str(parent) for parent in Path(path).parents)


def _type_of(path: str) -> int:
    try:
        return stat.S_IFMT(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return 0
