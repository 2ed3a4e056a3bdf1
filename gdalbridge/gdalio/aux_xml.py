"""Attribute tables in the ``.aux.xml`` file of a GeoTIFF, where every version of GDAL reads them.

GDAL 3.12 and later write a table into the TIFF itself; where the raster's ``.aux.xml`` has one
already, they write it to both.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gdalbridge.errors import GdalError
from gdalbridge.gdalio.compat import NEW_TYPES, exceptions, gdal, own_rat, set_own_rat, silence
from gdalbridge.gdalio.datasets import read_file, xml_attribute
from ratzarr.stores import temporary_path

__all__ = ["bands_with_nodata", "has_table", "older_gdal_note", "write_beside"]

TABLE = "GDALRasterAttributeTable"
BAND = "PAMRasterBand"


def write_beside(raster: Path, source: Any, bands: Sequence[int]) -> None:
    """Write the tables of a dataset to the ``.aux.xml`` of a closed raster.

    GDAL writes the XML beside a temporary raster of one pixel, whose profile keeps tables out of
    the TIFF. The other content of an existing ``.aux.xml`` is kept.

    Parameters
    ----------
    raster : pathlib.Path
    source : gdal.Dataset
        With an in-memory table on each of the bands.
    bands : sequence of int
        Counted from 1.

    Raises
    ------
    GdalError
    """
    with temporary_path(raster.parent, folder=True) as folder:
        pixel = folder / "pixel.tif"
        with exceptions(), silence():
            try:
                pixels = gdal.GetDriverByName("MEM").Create("", 1, 1, max(bands, default=1))
                for band in bands:
                    set_own_rat(pixels.GetRasterBand(band), own_rat(source.GetRasterBand(band)))
                # Only CreateCopy respects the profile.
                driver = gdal.GetDriverByName("GTiff")
                made = driver.CreateCopy(str(pixel), pixels, options=["PROFILE=GeoTIFF"])
                made.FlushCache()
                # Closing the dataset completes its files.
                del made
            except RuntimeError as error:
                raise GdalError(f"{raster.name}.aux.xml was not written: {error}") from error
        written = pixel.with_name("pixel.tif.aux.xml")
        target = raster.with_name(raster.name + ".aux.xml")
        if written.exists():
            if target.exists():
                _merge(written, target)
            written.replace(target)


def older_gdal_note(dataset: Any, band: int, name: str) -> str | None:
    """Return a note if GDAL before 3.12 cannot see a band's newly written table.

    Parameters
    ----------
    dataset : gdal.Dataset
        The raster, opened again.
    band : int
        Counted from 1.
    name : str
        The raster's name, for the note.
    """
    if not NEW_TYPES or dataset.GetDriver().ShortName not in ("GTiff", "COG"):
        return None
    # If the .aux.xml had a table already, GDAL has written the new one to both.
    tree = _parsed(f"{dataset.GetDescription()}.aux.xml")
    if tree is not None and has_table(tree, band):
        return None
    return (
        f"the table is in {name} itself, where GDAL before 3.12, and QGIS and ArcGIS with such "
        "a GDAL, don't see it: 'gdalbridge bake' writes a raster whose table they see"
    )


def has_table(tree: list[Any], band: int) -> bool:
    """Return True if a parsed ``.aux.xml`` has a table of a band."""
    return any(
        xml_attribute(one, "band") == str(band) and any(_elements(one, TABLE))
        for one in _bands_in(tree)
    )


def bands_with_nodata(data: bytes) -> frozenset[str]:
    """Return the numbers of the bands to which an ``.aux.xml`` gives a nodata value."""
    with exceptions(False), silence():
        tree = gdal.ParseXMLString(data.replace(b"\0", b" ").decode("latin-1"))
    bands = () if tree is None else _bands_in(tree)
    found = [one for one in bands if any(_elements(one, "NoDataValue"))]
    return frozenset(xml_attribute(one, "band") or "" for one in found)


def _parsed(path: str) -> list[Any] | None:
    data = read_file(path)
    if not data:
        return None
    try:
        with exceptions(False), silence():
            return gdal.ParseXMLString(data.decode("utf-8"))  # type: ignore[no-any-return]  # GDAL has no types
    except UnicodeDecodeError:
        return None


def _elements(node: list[Any], name: str) -> Iterator[list[Any]]:
    return (one for one in node[2:] if one[0] == gdal.CXT_Element and one[1] == name)


def _root(tree: list[Any]) -> list[Any]:
    # An XML declaration puts a nameless node at the root of the tree.
    return tree if tree[1] == "PAMDataset" else next(_elements(tree, "PAMDataset"), tree)


def _bands_in(tree: list[Any]) -> Iterator[list[Any]]:
    return _elements(_root(tree), BAND)


def _merge(written: Path, target: Path) -> None:
    """Add the existing file's content to the new file, except the tables of the same bands."""
    there, found = _parsed(str(target)), _parsed(str(written))
    if there is None or found is None:
        raise GdalError(f"{target} is not XML that GDAL can read: the table was not written to it")
    homes = {xml_attribute(one, "band"): one for one in _bands_in(there)}
    for band in _bands_in(found):
        number = xml_attribute(band, "band")
        home = homes.get(number)
        if home is None:
            home = [gdal.CXT_Element, BAND, [gdal.CXT_Attribute, "band", [gdal.CXT_Text, number]]]
            _root(there).append(home)
        for table in list(_elements(band, TABLE)):
            home[:] = [one for one in home if not (isinstance(one, list) and one[1] == TABLE)]
            home.append(table)
    written.write_text(gdal.SerializeXMLTree(there), encoding="utf-8")
