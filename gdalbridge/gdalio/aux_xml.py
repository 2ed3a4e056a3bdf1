"""Attribute tables in the ``.aux.xml`` file of a GeoTIFF, where every version of GDAL reads them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from gdalbridge.errors import GdalError
from gdalbridge.gdalio.compat import exceptions, gdal, own_rat, set_own_rat, silence

__all__ = ["write_beside"]

TABLE = "GDALRasterAttributeTable"


def write_beside(raster: Path, source: Any, bands: Sequence[int]) -> None:
    """Write the tables of a dataset to the ``.aux.xml`` of a raster that is closed.

    GDAL writes the XML, beside a raster of one pixel whose profile keeps tables out of the TIFF.
    What an ``.aux.xml`` of the raster already has is kept.

    Parameters
    ----------
    raster : pathlib.Path
    source : gdal.Dataset
        With a table in memory on each of the bands.
    bands : sequence of int
        Counted from 1.

    Raises
    ------
    GdalError
    """
    with tempfile.TemporaryDirectory(prefix=".gdalbridge-", dir=raster.parent) as folder:
        pixel = Path(folder) / "pixel.tif"
        with exceptions(), silence():
            try:
                pixels = gdal.GetDriverByName("MEM").Create("", 1, 1, max(bands, default=1))
                for band in bands:
                    set_own_rat(pixels.GetRasterBand(band), own_rat(source.GetRasterBand(band)))
                # Only CreateCopy heeds the profile.
                driver = gdal.GetDriverByName("GTiff")
                made = driver.CreateCopy(str(pixel), pixels, options=["PROFILE=GeoTIFF"])
                made.FlushCache()
                # Closed, its files are whole.
                del made
            except RuntimeError as error:
                raise GdalError(f"{raster.name}.aux.xml was not written: {error}") from error
        written = pixel.with_name("pixel.tif.aux.xml")
        target = raster.with_name(raster.name + ".aux.xml")
        if written.exists():
            if target.exists():
                _merge(written, target)
            else:
                written.replace(target)


def _merge(written: Path, target: Path) -> None:
    # Both files are GDAL's, of this call.
    tree = ET.parse(target)  # noqa: S314
    root = tree.getroot()
    there = {one.get("band"): one for one in root.iterfind("PAMRasterBand")}
    found = ET.parse(written).getroot()  # noqa: S314
    for band in found.iterfind("PAMRasterBand"):
        table = band.find(TABLE)
        if table is None:
            continue
        home = there.get(band.get("band"))
        if home is None:
            home = ET.SubElement(root, "PAMRasterBand", {"band": band.get("band", "")})
        for old in home.findall(TABLE):
            home.remove(old)
        home.append(table)
    tree.write(target, encoding="utf-8")
