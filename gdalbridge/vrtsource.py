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
    # Not band.GetMetadata("vrt_sources"): for a dataset in memory it ends the process.
    described = dataset.GetMetadata("xml:VRT")
    whole = gdal.ParseXMLString(described[0]) if described else None
    root = None if whole is None else _only_source(whole, band.GetBand())
    if root is None:
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


def _only_source(whole: Any, number: int) -> Any:
    """Return the one source of a band, of a kind that can leave values as they are."""
    tops = [whole] if whole[1] == "VRTDataset" else whole[2:]
    for top in tops:
        for node in top[2:]:
            if node[1] == "VRTRasterBand" and _attribute(node, "band") == str(number):
                # Bands that are computed say so by a class of their own.
                if _attribute(node, "subClass") not in (None, "VRTSourcedRasterBand"):
                    return None
                sources = [child for child in node[2:] if child[1].endswith("Source")]
                simple = [one for one in sources if one[1] in ("SimpleSource", "ComplexSource")]
                return simple[0] if len(sources) == len(simple) == 1 else None
    return None


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
