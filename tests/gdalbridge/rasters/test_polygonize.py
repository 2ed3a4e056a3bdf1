"""Outlines of segments: numbers of pixels, GDAL's own Polygonize, and rasterising back judge."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from osgeo import gdal, ogr, osr
from scipy import ndimage

from gdalbridge import BridgeError, build, open_table, polygonize
from gdalbridge.cli import main
from gdalbridge.errors import (
    CancelledError,
    ConversionError,
    LossWarning,
    OutputExistsError,
    RasterNotFoundError,
)
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import squares, write

HEIGHT, WIDTH = 130, 170
PIXEL = 4.0
"""Area of a pixel of these rasters."""


def noise(levels=40, first=0):
    """Return segments of many parts, with holes and corners that touch."""
    random = np.random.default_rng(11)
    coarse = random.integers(first, levels, (HEIGHT // 3 + 1, WIDTH // 3 + 1))
    pixels = np.kron(coarse, np.ones((3, 3), "u2"))[:HEIGHT, :WIDTH].astype("u2")
    pixels[random.random(pixels.shape) < 0.2] = first
    return pixels


@pytest.fixture
def segments(tmp_path):
    pixels = noise()
    path = write(tmp_path / "seg.tif", pixels, nodata=7, TILED="YES", BLOCKXSIZE=16, BLOCKYSIZE=16)
    build(path)
    with open_table(path) as table:
        rows = len(table)
        table["ndvi"] = np.where(np.arange(rows) % 5 == 4, np.nan, np.arange(rows) / 8)
        table["class"] = np.array(["forest", "water", ""])[np.arange(rows) % 3]
        table["big"] = np.arange(rows) + 2**53 + 1
    return path, pixels.astype(int)


def features(path):
    """Return all features: number, attributes and a copy of the geometry."""
    dataset = gdal.OpenEx(str(path), gdal.OF_VECTOR)
    layer = dataset.GetLayer(0)
    found = [
        (one.GetFID(), one.items(), one.GetGeometryRef().Clone())
        for one in iter(layer.GetNextFeature, None)
    ]
    return found, layer.GetSpatialRef()


def burnt(found, values, shape, transform=(500, 2, 0, 900, 0, -2)):
    """Rasterise geometries back, each with its value."""
    raster = gdal.GetDriverByName("MEM").Create("", shape[1], shape[0], 1, gdal.GDT_Int32)
    raster.SetGeoTransform(transform)
    raster.GetRasterBand(1).Fill(-1)
    source = gdal.GetDriverByName("GPKG").Create("/vsimem/b.gpkg", 0, 0, 0, gdal.GDT_Unknown)
    layer = source.CreateLayer("b", geom_type=ogr.wkbMultiPolygon)
    layer.CreateField(ogr.FieldDefn("v", ogr.OFTInteger))
    for geometry, value in zip(found, values, strict=True):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetField(0, int(value))
        feature.SetGeometry(geometry)
        layer.CreateFeature(feature)
    gdal.RasterizeLayer(raster, [1], layer, options=["ATTRIBUTE=v"])
    return raster.ReadAsArray()


@pytest.mark.main_env_only
def test_each_row_is_exactly_its_pixels(tmp_path, segments):
    path, pixels = segments
    report = polygonize(path, tmp_path / "seg.gpkg")
    found, system = features(tmp_path / "seg.gpkg")
    rows = [fid for fid, _, _ in found]
    there = np.setdiff1d(np.unique(pixels), [7])
    assert rows == there.tolist()
    frame = open_table(path).to_pandas()
    for row, items, geometry in found:
        assert geometry.GetGeometryName() == "MULTIPOLYGON"
        assert geometry.IsValid()
        assert geometry.GetArea() == np.count_nonzero(pixels == row) * PIXEL
        one = frame.loc[row]
        ndvi = None if np.isnan(one["ndvi"]) else one["ndvi"]
        assert items == {
            "Histogram": one["Histogram"], "ndvi": ndvi, "class": one["class"], "big": one["big"]
        }  # fmt: skip
    expected = np.where(pixels == 7, -1, pixels)
    assert np.array_equal(burnt([one for *_, one in found], rows, pixels.shape), expected)
    assert system.GetAuthorityCode(None) == "32755"
    assert report.features == len(there)
    assert report.columns == ("row", "Histogram", "ndvi", "class", "big")
    assert report.outside == 0
    assert report.notes == ("column 'ndvi': NaN is NULL",)
    four = sum(ndimage.label(pixels == one)[1] for one in there)
    assert report.polygons == four == sum(one.GetGeometryCount() for *_, one in found)
    assert json.loads(json.dumps(report.as_dict()))["features"] == report.features
    assert f"{four} polygons" in str(report)


def whole_array(pixels, nodata, connected):
    """Return GDAL's own polygons of a whole array: value and area."""
    source = gdal.GetDriverByName("MEM").Create("", *pixels.shape[::-1], 1, gdal.GDT_Int32)
    source.SetGeoTransform((500, 2, 0, 900, 0, -2))
    band = source.GetRasterBand(1)
    band.WriteArray(pixels)
    band.SetNoDataValue(nodata)
    out = gdal.GetDriverByName("GPKG").Create("/vsimem/w.gpkg", 0, 0, 0, gdal.GDT_Unknown)
    layer = out.CreateLayer("w", geom_type=ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("v", ogr.OFTInteger))
    gdal.Polygonize(band, band.GetMaskBand(), layer, 0, ["8CONNECTED=8"] if connected == 8 else [])
    return sorted(
        (one.GetField(0), one.GetGeometryRef().GetArea())
        for one in iter(layer.GetNextFeature, None)
    )


@pytest.mark.main_env_only
@pytest.mark.parametrize("connected", [4, 8])
def test_connected_areas_are_gdals_own(tmp_path, segments, connected):
    path, pixels = segments
    report = polygonize(path, tmp_path / "parts.gpkg", connectedness=connected, columns=["class"])
    found, _ = features(tmp_path / "parts.gpkg")
    assert sorted((items["row"], one.GetArea()) for _, items, one in found) == whole_array(
        pixels, 7, connected
    )
    assert all(one.IsValid() for *_, one in found)
    assert [fid for fid, _, _ in found] == list(range(report.features))
    structure = np.ones((3, 3)) if connected == 8 else None
    there = np.setdiff1d(np.unique(pixels), [7])
    assert report.features == sum(
        ndimage.label(pixels == one, structure)[1] for one in there
    )  # fmt: skip
    names = open_table(path)["class"][:]
    assert all(items["class"] == names[items["row"]] for _, items, _ in found)
    assert report.columns == ("part", "row", "class")


@pytest.mark.main_env_only
@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "shp", "geojson"])
def test_every_format_has_the_same(tmp_path, segments, suffix):
    path, pixels = segments
    out = tmp_path / f"out.{suffix}"
    report = polygonize(path, out, where="class = 'water'", columns=["class", "ndvi"])
    names = open_table(path)["class"][:]
    rows = [one for one in np.unique(pixels) if one != 7 and names[one] == "water"]
    if suffix == "parquet":
        table = pq.read_table(out)
        assert table.schema.names == ["row", "class", "ndvi", "geometry"]
        found = [
            (row["row"], row, ogr.CreateGeometryFromWkb(row["geometry"]))
            for row in table.to_pylist()
        ]
        about = json.loads(table.schema.metadata[b"geo"])
        [column] = about["columns"].values()
        assert about["primary_column"] == "geometry"
        assert column["encoding"] == "WKB"
        assert column["geometry_types"] == ["MultiPolygon"]
        assert column["crs"]["id"] == {"authority": "EPSG", "code": 32755}
    else:
        found, system = features(out)
        found = [(items.get("row", fid), items, one) for fid, items, one in found]
        wanted = osr.SpatialReference()
        wanted.ImportFromEPSG(32755)
        wanted.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        # ESRI's WKT has other names, and no authority.
        assert system.IsSame(wanted) or suffix == "shp"
    assert [row for row, _, _ in found] == rows
    for row, items, one in found:
        assert one.GetArea() == np.count_nonzero(pixels == row) * PIXEL
        assert items["class"] == "water"
        assert items["ndvi"] is None or items["ndvi"] == row / 8 or row % 5 == 4
    assert report.features == len(rows)
    assert report.format == suffix


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson"])
def test_coordinates_keep_all_digits(tmp_path, suffix):
    """Also with the oldest GDAL; of a rotated raster."""
    transform = (0.1, 1 / 3, 0.07, 52.3, 0.03, -1 / 7)
    path = write(tmp_path / "r.tif", squares(20, 30, size=7), transform=transform, crs=4326)
    with RatZarr(f"{path}.rat.zarr", newRowCount=15) as table:
        table["x"] = np.arange(15)
    polygonize(path, tmp_path / f"o.{suffix}")
    found, _ = features(tmp_path / f"o.{suffix}")
    assert len(found) == 15
    points = {
        point for *_, one in found for ring in one.GetGeometryRef(0) for point in ring.GetPoints()
    }
    x0, a, b, y0, c, d = transform
    corners = {
        (x0 + a * column + b * line, y0 + c * column + d * line)
        for column in range(31)
        for line in range(21)
    }
    near = np.array(sorted(corners))
    for x, y in sorted(point[:2] for point in points):
        assert np.abs(near - (x, y)).max(axis=1).min() <= 1e-14
    assert [items["x"] for _, items, _ in found] == list(range(15))


def test_values_that_are_not_the_rows_and_ids_without_rows(tmp_path):
    pixels = np.array([[-7, 4, 4, 2_000_000_000], [9, 4, -7, 9]], "i4")
    path = write(tmp_path / "seg.tif", pixels)
    build(path, sparse=True)
    polygonize(path, tmp_path / "o.gpkg")
    found, _ = features(tmp_path / "o.gpkg")
    assert [(fid, items["Value"], one.GetArea()) for fid, items, one in found] == [
        (0, -7, 8.0), (1, 4, 12.0), (2, 9, 8.0), (3, 2_000_000_000, 4.0),
    ]  # fmt: skip
    short = write(tmp_path / "short.tif", np.array([[0, 1, 5, 5]], "u1"))
    with RatZarr(f"{short}.rat.zarr", newRowCount=3) as table:
        table["x"] = [1, 2, 3]
    report = polygonize(short, tmp_path / "short.gpkg")
    assert (report.features, report.outside) == (2, 2)
    assert "2 pixels have no row" in str(report)


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "shp", "geojson"])
def test_a_selection_without_pixels(tmp_path, suffix):
    path = write(tmp_path / "seg.tif", np.zeros((300, 40), "u1"), nodata=0)
    with open_table(path) as table:
        table["x"] = [1, 2]
    for number, where in enumerate((None, "x > 5", "x = 2")):
        report = polygonize(path, tmp_path / f"{number}.{suffix}", where=where)
        assert (report.features, report.polygons, report.outside) == (0, 0, 0)
        if suffix == "parquet":
            assert pq.read_table(tmp_path / f"{number}.{suffix}").num_rows == 0
        else:
            assert features(tmp_path / f"{number}.{suffix}")[0] == []


def test_one_segment(tmp_path):
    path = write(tmp_path / "seg.tif", np.full((700, 600), 1, "u1"), transform=None, crs=None)
    with open_table(path) as table:
        table["geom"] = ["a", "b"]
    polygonize(path, tmp_path / "one.gpkg")
    [(fid, items, geometry)], system = features(tmp_path / "one.gpkg")
    assert (fid, items) == (1, {"geom": "b"})
    assert geometry.GetArea() == 700 * 600
    assert geometry.GetGeometryRef(0).GetGeometryRef(0).GetPointCount() == 5
    assert system is None or system.IsLocal() or "ndefined" in system.GetName()


@pytest.mark.main_env_only
def test_many_features_in_many_blocks(tmp_path):
    """Rows beyond one batch and one block of the table, in an order unlike that of the pixels."""
    pixels = np.random.default_rng(2).permutation(400 * 300).reshape(400, 300).astype("u4")
    path = write(tmp_path / "seg.tif", pixels)
    with RatZarr(f"{path}.rat.zarr", newRowCount=pixels.size, newChunkSize=7000) as table:
        table["twice"] = np.arange(pixels.size) * 2
    polygonize(path, tmp_path / "o.parquet")
    found = pq.read_table(tmp_path / "o.parquet", columns=["row", "twice", "geometry"])
    assert np.array_equal(found["row"].to_numpy(), np.arange(pixels.size))
    assert np.array_equal(found["twice"].to_numpy(), np.arange(pixels.size) * 2)
    places = np.argsort(pixels, axis=None)
    for row in range(0, pixels.size, 997):
        line, column = divmod(int(places[row]), 300)
        shape = ogr.CreateGeometryFromWkb(found["geometry"][row].as_py())
        left, top = 500 + 2 * column, 900 - 2 * line
        assert shape.GetEnvelope() == (left, left + 2, top - 2, top)


@pytest.mark.main_env_only
def test_what_is_refused(tmp_path, segments):
    path, _ = segments
    for out, given, words in (
        ("o.kml", {}, r"expected one of \.gpkg"),
        ("o.gpkg", {"connectedness": 6}, "4 or 8"),
        ("o.gpkg", {"columns": ["nope"]}, "no column 'nope'"),
        ("o.gpkg", {"where": "ndvi"}, "not true or false"),
        ("no/o.gpkg", {}, "no directory"),
    ):
        with pytest.raises(BridgeError, match=words):
            polygonize(path, tmp_path / out, **given)
    plain = write(tmp_path / "plain.tif", np.zeros((2, 2), "u1"))
    with pytest.raises(RasterNotFoundError, match="gdalbridge build"):
        polygonize(plain, tmp_path / "o.gpkg")
    with open_table(path) as table:
        table["two"] = np.zeros((len(table), 2))
        table["a name of many bytes"] = np.zeros(len(table))
    with pytest.raises(ConversionError, match="several values per row"):
        polygonize(path, tmp_path / "o.gpkg")
    with open_table(path) as table:
        table["TWO"] = np.zeros(len(table))
    names = ["a name of many bytes"], ["two", "TWO"]
    for columns, out, words in zip(names, ("o.shp", "o.gpkg"), ("1 to 10", "case"), strict=True):
        with pytest.raises(BridgeError, match=rf"{words}.* columns with columns=\.\.\., or write"):
            polygonize(path, tmp_path / out, columns=columns)
        chosen = [word for name in columns for word in ("--column", name)]
        done = CliRunner().invoke(main, ["polygonize", path, str(tmp_path / out), *chosen])
        assert "Choose other columns with --column, or write GeoParquet" in done.stderr
    assert not [one for one in tmp_path.iterdir() if one.name.startswith((".", "o."))]


@pytest.mark.main_env_only
@pytest.mark.parametrize("suffix", ["gpkg", "shp"])
def test_an_existing_file(tmp_path, segments, suffix):
    path, _ = segments
    out = tmp_path / f"o.{suffix}"
    polygonize(path, out, columns=["class"])
    before = {one.name: one.read_bytes() for one in tmp_path.glob("o.*")}
    with pytest.raises(OutputExistsError, match="already exists"):
        polygonize(path, out, columns=["big"])
    assert {one.name: one.read_bytes() for one in tmp_path.glob("o.*")} == before
    polygonize(path, out, columns=["big"], overwrite=True)
    assert "big" in features(out)[0][0][1]
    if suffix == "shp":
        assert before.keys() == {"o.shp", "o.shx", "o.dbf", "o.cpg", "o.prj"}


@pytest.mark.main_env_only
@pytest.mark.parametrize("when", [0.1, 0.4, 0.8])
def test_a_cancelled_run_leaves_nothing(tmp_path, segments, when):
    path, _ = segments
    before = sorted(one.name for one in tmp_path.iterdir())
    with pytest.raises(CancelledError):
        polygonize(path, tmp_path / "o.gpkg", progress=lambda done, *_: done < when)
    assert sorted(one.name for one in tmp_path.iterdir()) == before


def test_geojson_has_no_infinities(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    with RatZarr(f"{path}.rat.zarr", newRowCount=2) as table:
        table["x"] = [np.nan, np.inf]
    with pytest.raises(ConversionError, match="'x', row 1"):
        polygonize(path, tmp_path / "o.geojson")
    polygonize(path, tmp_path / "o.geojson", where="isnan(x)")
    assert [items["x"] for _, items, _ in features(tmp_path / "o.geojson")[0]] == [None]


@pytest.mark.main_env_only
def test_losses_are_named(tmp_path, segments):
    path, _ = segments
    with open_table(path) as table:
        table["blank"] = np.array([" x"] * len(table))
    with pytest.warns(LossWarning, match="'blank'"):
        report = polygonize(path, tmp_path / "o.shp", columns=["blank"])
    assert "'blank'" in report.losses[0]
    with pytest.raises(ConversionError, match="'blank'"):
        polygonize(path, tmp_path / "p.shp", columns=["blank"], strict=True)
