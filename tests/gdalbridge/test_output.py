"""Outputs on servers, and what is never replaced: local outputs and GDAL's own reading judge."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import BridgeError, bake, build, open_table, paint, polygonize, select
from gdalbridge.errors import CancelledError, OutputExistsError, RasterNotFoundError
from ratzarr import RatZarr, StorePermissionError
from tests.gdalbridge.pixel_rasters import squares, write
from tests.processes import interruptible

pytestmark = pytest.mark.main_env_only

AUX = b"<PAMDataset></PAMDataset>"
WRITERS = {
    "paint.tif": lambda raster, out, **more: paint(raster, "class", out, **more),
    "paint.png": lambda raster, out, **more: paint(raster, "Histogram", out, **more),
    "select.tif": lambda raster, out, **more: select(raster, "class = 'a'", mask=out, **more),
    "bake.tif": bake,
    "o.shp": polygonize,
    "o.gpkg": polygonize,
}


@pytest.fixture
def raster(tmp_path):
    """A raster with a table of classes."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = write(folder / "seg.tif", squares(20, 30))
    build(path)
    with open_table(path) as table:
        table["class"] = np.array(["a", "b"])[np.arange(len(table)) % 2]
        table["number"] = np.arange(len(table), dtype="u1")
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary directory."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def contents(place):
    """Return the objects of a bucket beside the raster."""
    return place.moto.contents(place.bucket, "d/")


def seen(path):
    """Return a raster's pixels and table, or a layer's features, as GDAL reads them."""
    dataset = gdal.OpenEx(str(path))
    if not dataset.RasterCount:
        return [one.ExportToJson() for one in dataset.GetLayer(0)]
    table = dataset.GetRasterBand(1).GetDefaultRAT()
    cells = []
    if table is not None:
        columns = range(table.GetColumnCount())
        cells = [[table.GetValueAsString(row, one) for one in columns]
                 for row in range(table.GetRowCount())]  # fmt: skip
    return dataset.ReadAsArray().tolist(), cells


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_files_as_on_a_disk(raster, tmp_path, moto_s3, temporary, name):
    local, down = tmp_path / "local", tmp_path / "down"
    local.mkdir()
    down.mkdir()
    WRITERS[name](raster, local / name)
    for out in (f"s3://{moto_s3.bucket}/d/{name}", f"/vsis3/{moto_s3.bucket}/d/{name}"):
        report = WRITERS[name](raster, out, overwrite=out.startswith("/vsi"))
        assert getattr(report, "target", out).rpartition("/")[2] == name
        found = contents(moto_s3)
        assert {one.removeprefix("d/") for one in found} == set(os.listdir(local))
        for key, content in found.items():
            (down / key.removeprefix("d/")).write_bytes(content)
        assert seen(down / name) == seen(local / name)
    assert os.listdir(temporary) == []


def test_a_new_output_is_seen_at_once(raster, moto_s3):
    """GDAL remembers what it has not found."""
    out = f"/vsis3/{moto_s3.bucket}/out.tif"
    with pytest.raises(RasterNotFoundError):
        build(out)
    with gdal.config_options(vsis3(moto_s3)):
        assert gdal.VSIStatL(out) is None
    paint(raster, "number", out)
    with gdal.config_options(vsis3(moto_s3)):
        assert gdal.VSIStatL(out) is not None
    assert build(out).rows == 12


def test_storage_options(raster, moto_s3, monkeypatch):
    variables = moto_s3.moto.environment
    options = {
        "key": variables["AWS_ACCESS_KEY_ID"], "secret": variables["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": variables["AWS_ENDPOINT_URL"],
        "client_kwargs": {"region_name": variables["AWS_DEFAULT_REGION"]},
    }  # fmt: skip
    for name in variables:
        monkeypatch.delenv(name)
    out = f"s3://{moto_s3.bucket}/d/out.tif"
    paint(raster, "Histogram", out, storage_options=options)
    assert list(contents(moto_s3)) == ["d/out.tif"]


def test_other_urls(raster, tmp_path):
    import fsspec

    memory, folder = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    WRITERS["paint.tif"](raster, f"{folder}/out.tif")
    WRITERS["paint.tif"](raster, tmp_path / "out.tif")
    for name in ("out.tif", "out.tif.aux.xml"):
        assert memory.cat_file(f"{folder}/{name}") == (tmp_path / name).read_bytes()
    with pytest.raises(OutputExistsError, match=r"out\.tif\.aux\.xml already exists"):
        paint(raster, "Histogram", f"{folder}/out.tif")
    paint(raster, "Histogram", f"{folder}/out.tif", overwrite=True)
    assert [one.rpartition("/")[2] for one in memory.ls(folder, detail=False)] == ["out.tif"]
    with pytest.raises(BridgeError, match="a web server takes no files"):
        paint(raster, "Histogram", "https://host/out.tif")
    with pytest.raises(BridgeError, match="a VRT refers to its raster"):
        bake(raster, f"{folder}/out.vrt")


@pytest.mark.parametrize("name", ["paint.tif", "select.tif", "bake.tif", "o.shp"])
def test_what_exists_is_refused_before_the_work(raster, moto_s3, name):
    beside = f"{name}.AUX.xml" if name.endswith(".tif") else "o.dbf"
    out, started = f"s3://{moto_s3.bucket}/d/{name}", []

    def progress(*_):
        started.append(True)
        return 1

    for key in (f"d/{name}", f"d/{beside}"):
        moto_s3.client.put_object(Bucket=moto_s3.bucket, Key=key, Body=AUX)
        with pytest.raises(OutputExistsError, match=f"{key} already exists"):
            WRITERS[name](raster, out, progress=progress)
        assert (contents(moto_s3), started) == ({key: AUX}, [])
        if key.endswith(beside):
            WRITERS[name](raster, out, overwrite=True)
            found = contents(moto_s3)
            assert AUX not in found.values()
            assert f"d/{name}" in found
        moto_s3.client.delete_object(Bucket=moto_s3.bucket, Key=key)


@pytest.mark.parametrize("name", ["paint.tif", "select.tif", "bake.tif"])
def test_the_raster_on_s3_is_not_replaced(raster, tmp_path, moto_s3, name):
    moto_s3.client.upload_file(raster, moto_s3.bucket, "d/seg.tif")
    spellings = [f"{start}{moto_s3.bucket}/d/seg.tif" for start in ("s3://", "/vsis3/")]
    build(spellings[0])
    with open_table(spellings[0]) as table:
        table["class"] = np.full(len(table), "a")
    before = contents(moto_s3)
    view = str(tmp_path / "view.vrt")
    with gdal.config_options(vsis3(moto_s3)):
        gdal.Translate(view, spellings[1], format="VRT")
    for place in (*spellings, view):
        for out in spellings:
            with pytest.raises(BridgeError, match="belongs to the raster"):
                WRITERS[name](place, out, overwrite=True)
    assert contents(moto_s3) == before


def vsis3(place):
    """Return GDAL's options for the server."""
    variables = place.moto.environment
    return {
        "AWS_S3_ENDPOINT": variables["AWS_ENDPOINT_URL"].removeprefix("http://"),
        "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": variables["AWS_DEFAULT_REGION"],
    }  # fmt: skip


def test_files_beside_the_output_that_are_the_raster(raster, tmp_path):
    """Of a mask of an image, as a raster of its own, nothing is left if it is taken for old."""
    mask = tmp_path / "out.tif.msk"
    os.rename(raster, mask)
    os.rename(f"{raster}.rat.zarr", f"{mask}.rat.zarr")
    before = mask.read_bytes()
    for name in ("paint.tif", "select.tif", "bake.tif"):
        with pytest.raises(BridgeError, match=r"out\.tif\.msk belongs to the raster"):
            WRITERS[name](mask, tmp_path / "out.tif", overwrite=True)
    assert mask.read_bytes() == before


def test_a_file_that_only_the_driver_names(raster, tmp_path):
    world = tmp_path / "out.tfw"
    world.write_bytes(b"mine")
    options = {"options": ["TFW=YES"]}
    with pytest.raises(OutputExistsError, match=r"out\.tfw already exists"):
        paint(raster, "class", tmp_path / "out.tif", **options)
    assert sorted(os.listdir(tmp_path)) == ["in", "out.tfw"]
    assert world.read_bytes() == b"mine"
    paint(raster, "class", tmp_path / "out.tif", overwrite=True, **options)
    assert world.read_bytes().startswith(b"2.0")


@pytest.mark.parametrize("name", ["paint.tif", "paint.png", "select.tif", "bake.tif", "o.shp"])
def test_a_cancelled_run_leaves_nothing(raster, moto_s3, temporary, name):
    """Not even at its end."""
    for last in (0.0, 0.99):
        with pytest.raises(CancelledError):
            WRITERS[name](
                raster, f"s3://{moto_s3.bucket}/d/{name}",
                progress=lambda done, *_, most=last: done <= most,
            )  # fmt: skip
        assert contents(moto_s3) == {}
        assert os.listdir(temporary) == []


@pytest.mark.parametrize("way", ["refused", "interrupted"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_upload_that_fails(raster, counted_s3, temporary, way, overwrite):
    """The table beside the raster is uploaded before it, and must not stay there alone."""
    place, proxy = counted_s3
    out = f"s3://{place.bucket}/d/out.tif"
    old = {"d/out.tif": b"old raster", "d/out.tif.aux.xml": b"old table", "d/out.tif.ovr": b"old"}
    for key, content in old.items() if overwrite else ():
        place.client.put_object(Bucket=place.bucket, Key=key, Body=content)
    before = contents(place)

    def instead(method, key):
        if method != "PUT" or not key.endswith("out.tif"):
            return None
        found = contents(place)
        assert found["d/out.tif.aux.xml"] != b"old table"
        assert "d/out.tif.ovr" not in found
        if way == "interrupted":
            proxy.instead = None
            os.kill(os.getpid(), signal.SIGINT)
        return 403

    proxy.instead = instead
    with (
        interruptible(),
        pytest.raises(KeyboardInterrupt if way == "interrupted" else StorePermissionError),
    ):
        paint(raster, "class", out, overwrite=overwrite)
    assert contents(place) == before
    assert os.listdir(temporary) == []
    assert not proxy.errors
    proxy.instead = None
    paint(raster, "class", out, overwrite=overwrite)
    assert set(contents(place)) == {"d/out.tif", "d/out.tif.aux.xml"}


def test_a_name_that_is_taken_meanwhile(raster, counted_s3, temporary):
    place, proxy = counted_s3

    def instead(method, key):
        if method == "PUT" and key.endswith("out.tif.aux.xml"):
            proxy.instead = None
            place.client.put_object(Bucket=place.bucket, Key="d/out.tif", Body=b"another's")

    proxy.instead = instead
    with pytest.raises(OutputExistsError, match=r"d/out\.tif already exists"):
        paint(raster, "class", f"s3://{place.bucket}/d/out.tif")
    assert contents(place) == {"d/out.tif": b"another's"}


def test_a_raster_on_s3_is_not_replaced_by_polygons(raster, tmp_path, moto_s3):
    package = tmp_path / "o.gpkg"
    gdal.Translate(str(package), raster, format="GPKG", outputType=gdal.GDT_Byte)
    moto_s3.client.upload_file(str(package), moto_s3.bucket, "d/o.gpkg")
    for out in (package, f"s3://{moto_s3.bucket}/d/o.gpkg"):
        with pytest.raises(OutputExistsError, match="is a raster, and is not replaced"):
            polygonize(raster, out, overwrite=True)
    assert contents(moto_s3) == {"d/o.gpkg": Path(package).read_bytes()}


FULL = """
import resource, signal, sys, gdalbridge, gdalbridge.errors
# -B: Python itself would write compiled modules that end at this size.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for name in sys.argv[2:]:
    try:
        gdalbridge.export_table(sys.argv[1], name)
    except gdalbridge.errors.NotWrittenError as error:
        print(error)
"""


def test_a_full_disk_is_said_with_the_name_of_the_output(tmp_path):
    store = tmp_path / "in" / "t.rat.zarr"
    store.parent.mkdir()
    with RatZarr(store) as table:
        table["number"] = np.random.default_rng(0).random(10_000)
    names = [
        str(tmp_path / f"o.{suffix}") for suffix in ("csv", "parquet", "arrow", "gpkg", "dbf")
    ]
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, store, *names],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.splitlines()
    assert [one.partition(" ")[0].rstrip(":") for one in said] == names
    assert done.stderr == ""
    assert os.listdir(tmp_path) == ["in"]
