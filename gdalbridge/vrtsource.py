"""The one source of a virtual raster whose pixels are that source's, value for value.

A sidecar beside the source is then the virtual raster's as well: rows are found by pixel
values, and these are the same whatever part of the source is shown.
"""

import posixpath
from typing import Any

from ._gdal import gdal

__all__ = ["source_of"]

AS_THEY_ARE = frozenset(
    ["SourceFilename", "SourceBand", "SourceProperties", "OpenOptions", "SrcRect", "DstRect",
     "NODATA", "resampling"]
)  # fmt: skip
"""What a source may say of itself without its values becoming others."""


def source_of(dataset: Any, band: Any) -> tuple[str, int] | None:
    """Return path and band of the only source of a band; None for any other raster."""
    driver = dataset.GetDriver()
    if driver is None or driver.ShortName != "VRT":
        return None
    sources = band.GetMetadata("vrt_sources") or {}
    if len(sources) != 1:
        return None
    root = gdal.ParseXMLString(next(iter(sources.values())))
    if root is None or root[1] not in ("SimpleSource", "ComplexSource"):
        return None
    found = {node[1]: node for node in root[2:] if node[0] == gdal.CXT_Element}
    if not found.keys() <= AS_THEY_ARE or "SourceFilename" not in found:
        return None
    if not _is_nearest(root):
        return None
    name = _text(found["SourceFilename"])
    number = _text(found["SourceBand"]) if "SourceBand" in found else "1"
    if not name or not number.isdecimal() or int(number) < 1:
        return None
    if _attribute(found["SourceFilename"], "relativeToVRT") == "1":
        name = posixpath.join(posixpath.dirname(dataset.GetDescription()), name)
    return name, int(number)


def _is_nearest(root: Any) -> bool:
    asked = _attribute(root, "resampling")
    return asked is None or asked.lower() in ("near", "nearest")


def _text(node: Any) -> str:
    return "".join(child[1] for child in node[2:] if child[0] == gdal.CXT_Text)


def _attribute(node: Any, name: str) -> str | None:
    for child in node[2:]:
        if child[0] == gdal.CXT_Attribute and child[1] == name:
            return _text(child)
    return None
