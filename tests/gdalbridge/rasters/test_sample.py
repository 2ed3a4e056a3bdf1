"""Rows under points: whole arrays read by GDAL, and pandas, are the judges."""

import gzip
import os

import numpy as np
import pandas as pd
import pytest
from osgeo import gdal, ogr, osr

from gdalbridge import BridgeError, build, open_table, sample
from gdalbridge.errors import ColumnSelectionError
from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import UTM, squares, write
from tests.gdalbridge.sample_rasters import REAL, STRING, new_rat

pytestmark = pytest.mark.main_env_only

HEIGHT, WIDTH = 110, 170
TURNED = (500.0, 1.5, 0.5, 900.0, 0.5, -1.5)


def table_of(path, **columns):
    """Write columns of a sidecar, in small chunks."""
    rows = len(next(iter(columns.values())))
    with RatZarr(f"{path}.rat.zarr", newRowCount=rows, newChunkSize=100) as table:
        for name, values in columns.items():
            table[name] = values


@pytest.fixture
def random():
    return np.random.default_rng(3)


def frame_of(path, points, columns):
    """Return what pandas makes of whole arrays, for a table whose row is the pixel value."""
    dataset = gdal.Open(str(path))
    pixels = dataset.ReadAsArray()
    nodata = dataset.GetRasterBand(1).GetNoDataValue()
    inverse = gdal.InvGeoTransform(dataset.GetGeoTransform())
    rows = []
    for x, y in points:
        column, line = gdal.ApplyGeoTransform(inverse, x, y)
        column, line = int(np.floor(column)), int(np.floor(line))
        inside = 0 <= column < dataset.RasterXSize and 0 <= line < dataset.RasterYSize
        value = pixels[line, column] if inside else None
        rows.append(None if value is None or value == nodata else int(value))
    rows = pd.array(rows, "Int64")
    attributes = pd.DataFrame(columns).convert_dtypes().reindex(rows).reset_index(drop=True)
    return pd.concat([pd.DataFrame({"row": rows, "value": rows}), attributes], axis=1)


@pytest.mark.parametrize("transform", [(500, 2, 0, 900, 0, -2), TURNED])
@pytest.mark.parametrize("tiled", ["YES", "NO"])
def test_values_rows_and_attributes(tmp_path, random, transform, tiled):
    pixels = squares(HEIGHT, WIDTH, size=4, first=1)
    pixels[:9] = 0
    options = {"BLOCKXSIZE": 16, "BLOCKYSIZE": 16} if tiled == "YES" else {}
    path = write(
        tmp_path / "seg.tif", pixels, nodata=0, transform=transform, TILED=tiled, **options
    )
    rows = int(pixels.max()) + 1
    columns = {"k": random.integers(0, 2**60, rows), "x": random.random(rows),
               "name": [f"n{row % 7}é" for row in range(rows)]}  # fmt: skip
    table_of(path, **columns)
    points = np.stack([random.uniform(480, 900, 600), random.uniform(650, 960, 600)], axis=1)
    found = sample(path, points)
    assert found.column_names == ["row", "value", "k", "x", "name"]
    assert found["value"].type == "uint32"
    wanted = frame_of(path, points, columns)
    assert wanted["row"].isna().sum() > 20
    assert wanted["row"].notna().sum() > 100
    for name in wanted:
        expected = [None if pd.isna(one) else one for one in wanted[name].tolist()]
        assert found[name].to_pylist() == expected, name
    assert sample(path, points.tolist(), columns=["name"]).column_names == ["row", "value", "name"]
    assert sample(path, tuple(points[0])).num_rows == 1
    assert sample(path, []).num_rows == 0
    assert sample(path, points, columns=[]).equals(found.select(["row", "value"]))


def test_points_on_edges_belong_to_the_pixel_right_and_below(tmp_path):
    pixels = np.arange(12, dtype="u1").reshape(3, 4)
    path = write(tmp_path / "seg.tif", pixels)
    table_of(path, c=np.arange(12.0))
    points = [(500, 900), (502, 900), (500, 898), (504, 896), (508, 899), (507.999, 894.001),
              (501, 894), (499.999, 899), (501, 900.001)]  # fmt: skip
    assert sample(path, points)["value"].to_pylist() == [0, 1, 4, 10, None, 11, None, None, None]


def test_without_a_geotransform_points_are_columns_and_lines(tmp_path):
    path = write(
        tmp_path / "seg.tif", np.arange(6, dtype="u1").reshape(2, 3), transform=None, crs=None
    )
    table_of(path, c=np.arange(6.0))
    assert sample(path, [(2.5, 1.2), (0, 0)])["c"].to_pylist() == [5, 0]
    with pytest.raises(BridgeError, match="has no coordinate reference system"):
        sample(path, [(1, 1)], crs="EPSG:4326")


def test_longitude_and_latitude(tmp_path):
    pixels = np.arange(10_000, dtype="u2").reshape(100, 100)
    path = write(tmp_path / "seg.tif", pixels, transform=(600_000, 30, 0, 6_200_000, 0, -30))
    table_of(path, c=np.arange(10_000))
    utm, degrees = osr.SpatialReference(), osr.SpatialReference()
    utm.ImportFromEPSG(UTM)
    degrees.ImportFromEPSG(4326)
    way = osr.CoordinateTransformation(utm, degrees)
    wanted, points = [7, 4242, 9999], []
    for value in wanted:
        x, y = 600_015 + 30 * (value % 100), 6_199_985 - 30 * (value // 100)
        # EPSG:4326 itself has the latitude first.
        latitude, longitude, _ = way.TransformPoint(x, y)
        points.append((longitude, latitude))
    more = [*points, (0, 0), (np.nan, 5), (np.inf, -np.inf), (1e300, 80)]
    found = sample(path, more, crs="EPSG:4326")
    assert found["row"].to_pylist() == [*wanted, None, None, None, None]
    with pytest.raises(BridgeError, match="knows no coordinate reference system 'EPSG:nothing'"):
        sample(path, points, crs="EPSG:nothing")
    # A CSV of lon and lat is in degrees, and says so.
    text = "id,Lat,LON\n" + "".join(f"{n},{y},{x}\n" for n, (x, y) in enumerate(points)) + "9,,\n"
    (tmp_path / "points.csv").write_text(text)
    found = sample(path, tmp_path / "points.csv")
    assert found["c"].to_pylist() == [*wanted, None]
    assert b"'LON' and 'Lat' in EPSG:4326" in found.schema.metadata[b"points"]


def test_a_csv_in_the_rasters_coordinates(tmp_path):
    path = write(tmp_path / "seg.tif", np.arange(6, dtype="u1").reshape(2, 3))
    table_of(path, c=np.arange(6.0))
    for name, text, wanted in [
        ("xy", "name,Y,X\na,899,503\nb,897,501\n", [1, 3]),
        ("two", "a,b\n503,899\n", [1]),
        ("quoted", 'x,y,"a ""b"""\n503,899,"1,2"\n', [1]),
        ("comma", "name;Y;X\na;899,5;503,5\n", [1]),
    ]:
        (tmp_path / f"{name}.csv").write_text(text)
        assert sample(path, str(tmp_path / f"{name}.csv"))["row"].to_pylist() == wanted
    for name, text, words in [
        ("three", "a,b,c\n1,2,3\n", "call those with the coordinates x and y"),
        ("words", "x,y\none,2\n", "column 'x' has no coordinates"),
    ]:
        (tmp_path / f"{name}.csv").write_text(text)
        with pytest.raises(BridgeError, match=words):
            sample(path, tmp_path / f"{name}.csv")
    with pytest.raises(BridgeError, match=r"none.csv can't be read: the file does not exist"):
        sample(path, tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["0.5,0.25\n1.5,0.5\n", "1;0.5;7\n1;0.5;8\n"])
def test_a_csv_without_names_of_columns_loses_no_point(tmp_path, text):
    path = write(tmp_path / "seg.tif", np.array([[1, 2]], "u1"))
    build(path)
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(BridgeError, match=r"no names of columns: put a line such as x,y"):
        sample(path, tmp_path / "points.csv")


def layers(path, **kinds):
    """Write a GeoPackage of layers, with their features as WKT."""
    system = osr.SpatialReference()
    system.ImportFromEPSG(4326)
    system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    dataset = gdal.GetDriverByName("GPKG").Create(str(path), 0, 0, 0, gdal.GDT_Unknown)
    for name, texts in kinds.items():
        layer = dataset.CreateLayer(name, system, ogr.wkbUnknown)
        for text in texts:
            feature = ogr.Feature(layer.GetLayerDefn())
            if text:
                feature.SetGeometry(ogr.CreateGeometryFromWkt(text))
            layer.CreateFeature(feature)
    return str(path)


def test_a_layer_of_points(tmp_path):
    path = write(tmp_path / "seg.tif", np.arange(100, dtype="u1").reshape(10, 10),
                 transform=(600_000, 3000, 0, 6_200_000, 0, -3000))  # fmt: skip
    table_of(path, c=np.arange(100) * 2)
    utm, degrees = osr.SpatialReference(), osr.SpatialReference()
    utm.ImportFromEPSG(UTM)
    degrees.ImportFromEPSG(4326)
    latitude, longitude, _ = osr.CoordinateTransformation(utm, degrees).TransformPoint(
        601_500 + 3000 * 4, 6_198_500 - 3000 * 3
    )
    plots = [
        f"POINT ({longitude} {latitude})",
        None,
        f"POINT Z ({longitude} {latitude} 7)",
        "POINT EMPTY",
    ]
    one = layers(tmp_path / "one.gpkg", plots=plots)
    found = sample(path, one)
    assert found["c"].to_pylist() == [68, None, 68, None]
    assert b"layer 'plots'" in found.schema.metadata[b"points"]
    two = layers(tmp_path / "two.gpkg", plots=plots, lines=["LINESTRING (0 0, 1 1)"])
    with pytest.raises(BridgeError, match=r"layers \['plots', 'lines'\]: name one of them"):
        sample(path, two)
    assert sample(path, two, layer="plots").equals(found)
    with pytest.raises(BridgeError, match="there is no 'trees'"):
        sample(path, two, layer="trees")
    with pytest.raises(BridgeError, match="feature 1: points are needed, and it is a LINESTRING"):
        sample(path, two, layer="lines")
    with pytest.raises(BridgeError, match=r"none\.gpkg can't be opened as a layer of points"):
        sample(path, tmp_path / "none.gpkg")


def test_sparse_tables_and_pixels_without_a_row(tmp_path):
    pixels = np.array([[-7, 40, 3, 5]], "i4")
    path = write(tmp_path / "seg.tif", pixels, transform=(0, 1, 0, 1, 0, -1))
    table_of(path, Value=np.array([40, -7, 3]), c=["a", "b", "c"])
    with open_table(path) as table:
        table["Value"].attrs["GDAL_USAGE"] = 5
        table["c"].attrs["missing_value"] = "c"
    found = sample(path, [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (3.5, 0.5)])
    assert found.to_pydict() == {
        "row": [1, 0, 2, None], "value": [-7, 40, 3, 5],
        "Value": [-7, 40, 3, None], "c": ["b", "a", None, None],
    }  # fmt: skip


def test_64_bit_pixels_masks_and_columns_of_different_lengths(tmp_path):
    dataset = gdal.GetDriverByName("MEM").Create("", 4, 1, 1, gdal.GDT_UInt64)
    high = 2**64 - 1
    dataset.WriteArray(np.array([[0, 1, 1, high]], "u8"))
    rat = new_rat([("x", REAL, 0, [1.5, 2.5]), ("s", STRING, 0, ["a", "ü"])], 2)
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(np.array([[255, 255, 0, 255]], "u1"))
    found = sample(dataset, [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (3.5, 0.5)])
    assert found.to_pydict() == {
        "row": [0, 1, None, None], "value": [0, 1, None, high],
        "x": [1.5, 2.5, None, None], "s": ["a", "ü", None, None],
    }  # fmt: skip


def test_columns_called_row_and_value_keep_their_names(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"))
    table_of(path, row=[5, 6], value=["a", "b"])
    found = sample(path, [(501, 899)])
    assert found.to_pydict() == {"_row": [1], "_value": [1], "row": [6], "value": ["b"]}


def test_the_points_own_columns_come_first(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[0, 1]], "u1"))
    table_of(path, area=[5.0, 6.0], id=["a", "b"])
    csv = tmp_path / "plots.csv"
    csv.write_text("id,code,X,Y,n,price\n7,007,501,899,1,1.50\n8,,503,899,,2.25\n")
    assert sample(path, csv).to_pydict() == {
        "_id": [7, 8], "code": ["007", None], "n": [1, None], "price": ["1.50", "2.25"],
        "row": [0, 1], "value": [0, 1], "area": [5, 6], "id": ["a", "b"],
    }  # fmt: skip
    # A float would round the first.
    csv.write_text(f"x,y,n\n501,899,{2**53 + 1}\n503,899,0.5\n")
    found = sample(path, csv)
    assert found["n"].to_pylist() == [str(2**53 + 1), "0.5"]
    assert found["row"].to_pylist() == [0, 1]
    with gzip.open(tmp_path / "plots.csv.gz", "wb") as file:
        file.write(csv.read_bytes())
    assert sample(path, tmp_path / "plots.csv.gz").equals(found)
    driver = gdal.GetDriverByName("GPKG").Create(str(tmp_path / "p.gpkg"), 0, 0, 0, 0)
    layer = driver.CreateLayer("p", None, ogr.wkbPoint)
    for name, kind in (("id", ogr.OFTInteger64), ("area", ogr.OFTString), ("raw", ogr.OFTBinary)):
        layer.CreateField(ogr.FieldDefn(name, kind))
    feature = ogr.Feature(layer.GetLayerDefn())
    feature["id"], feature["area"] = 2**60 + 1, "old"
    feature.SetGeometry(ogr.CreateGeometryFromWkt("POINT (503 899)"))
    layer.CreateFeature(feature)
    del feature, layer, driver
    assert sample(path, tmp_path / "p.gpkg").to_pydict() == {
        "_id": [2**60 + 1], "_area": ["old"], "raw": [None],
        "row": [1], "value": [1], "area": [6], "id": ["b"],
    }  # fmt: skip


def test_several_values_per_row(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"))
    table_of(path, two=np.array([[1, 2], [3, 4]]))
    assert sample(path, [(501, 899), (0, 0)])["two"].to_pylist() == [[3, 4], None]


def test_only_the_chunks_of_the_points_are_read(tmp_path):
    pixels = np.arange(100 * 100, dtype="u4").reshape(100, 100)
    path = write(tmp_path / "seg.tif", pixels)
    table_of(path, c=pixels.reshape(-1) * 2, d=pixels.reshape(-1) * 3)
    for folder, _, files in os.walk(f"{path}.rat.zarr"):
        for name in files:
            if "/c/" in f"{folder}/{name}" and name.isdigit() and name not in ("3", "52"):
                (tmp_path / folder / name).write_bytes(b"no chunk")
    points = [(500 + 2 * 7 + 1, 900 - 2 * 52 - 1), (501, 900 - 2 * 3 - 1)]
    assert sample(path, points)["d"].to_pylist() == [3 * 5207, 900]
    with pytest.raises(Exception, match="chunk"):
        sample(path, [(501, 899)])


def test_a_raster_on_s3(moto_s3, tmp_path):
    import boto3

    path = write(tmp_path / "seg.tif", squares(60, 80, first=1))
    boto3.client("s3").upload_file(path, moto_s3.bucket, "seg.tif")
    place = f"s3://{moto_s3.bucket}/seg.tif"
    with open_table(place) as table:
        table["c"] = np.arange(int(squares(60, 80, first=1).max()) + 1) * 2
    assert sample(place, [(501, 899), (0, 0)])["c"].to_pylist() == [2, None]


def test_wrong_arguments(tmp_path):
    path = write(tmp_path / "seg.tif", np.array([[1]], "u1"))
    with pytest.raises(BridgeError, match="no attribute table"):
        sample(path, [(1, 1)])
    table_of(path, c=[1, 2])
    for wrong in ([(1, 2, 3)], [1, 2, 3], [("a", "b")], np.zeros((2, 2, 2)), [(1, 2), (3,)]):
        with pytest.raises(BridgeError, match="points are pairs"):
            sample(path, wrong)
    with pytest.raises(ColumnSelectionError, match="'d'"):
        sample(path, [(1, 1)], columns=["d"])
