"""Tables on a server of which requests meet with faults."""

import numpy as np
import pytest
from osgeo import gdal

import gdalbridge
from gdalbridge.errors import GdalLossError
from ratzarr import RatZarr, StoreError
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat
from tests.servers.faults import AFTER, EVERYWHERE, Faults, faulty_proxy

ROWS, CHUNK = 25_000, 1250


@pytest.mark.thorough
def test_two_hundred_chunks(moto, moto_s3, monkeypatch):
    random = np.random.default_rng(11)
    columns = [
        (f"int {n}", INTEGER, gdal.GFU_Generic, random.integers(-(2**31), 2**31, ROWS))
        for n in range(4)
    ]
    columns += [
        (f"real {n}", REAL, gdal.GFU_Generic, random.standard_normal(ROWS)) for n in range(5)
    ]
    columns += [("name", STRING, gdal.GFU_Name, [f"größe {n}" for n in range(ROWS)])]
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, ROWS))
    url = moto_s3.new()
    for name, value in {"BACKOFF": "0.02", "TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"RATZARR_S3_{name}", value)
    faults = Faults(seed=198, share=0.1, stall=1.4)
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        gdalbridge.copy_to_sidecar(dataset, url, chunk_rows=CHUNK)
    counts = {kind: faults.count(kind) for kind in EVERYWHERE}
    assert all(counts.values()), counts
    assert any(faults.count(kind, conditional=True) for kind in AFTER)
    chunks = [key for key in moto_s3.objects(url) if "/c/" in key]
    assert len(chunks) == 200
    table = moto_s3.open(url)["RAT"]
    assert table.attrs["COLUMN_ORDER"] == [name for name, *_ in columns]
    for name, kind, _, values in columns:
        array = table[name]
        if kind == STRING:
            assert array[:].tolist() == values
        else:
            dtype = {INTEGER: "int32", REAL: "float64"}[kind]
            assert array[:].tobytes() == np.asarray(values, dtype).tobytes()
        assert array.attrs["COMPLETE"] is True
        assert array.attrs["ROWS_DONE"] == ROWS
        assert len(array.attrs["MODIFICATIONLOG"]) == 1


@pytest.fixture
def busy(moto, moto_s3, nlcd, monkeypatch):
    """A raster with a table of its own in an .aux.xml, behind a server that refuses what is planned."""
    for file in nlcd.parent.glob("lc.tif*"):
        moto_s3.client.put_object(Bucket=moto_s3.bucket, Key=file.name, Body=file.read_bytes())
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "0.01")
    faults = Faults()
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield f"s3://{moto_s3.bucket}/lc.tif", faults


def test_gdal_asks_a_busy_server_again(busy, nlcd):
    """It would take a raster's .aux.xml, with its table, for missing."""
    raster, faults = busy
    files = ("lc.tif", "lc.tif.aux.xml")
    faults.plan = lambda method, key, number: "503" if key in files and number == 0 else None
    with gdalbridge.open_table(raster) as there, gdalbridge.open_table(nlcd) as here:
        assert there.columns == here.columns
        assert all(np.array_equal(there[name], here[name]) for name in here.columns)
    assert {fault.key for fault in faults.done} == set(files)


def test_a_table_that_gdal_has_not_read_is_no_missing_one(busy, monkeypatch):
    raster, faults = busy
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    missed = "lc.tif.aux.xml"
    faults.plan = lambda method, key, number: "503" if (key, number) == (missed, 0) else None
    with pytest.raises(GdalLossError, match=r"not read .*lc\.tif\.aux\.xml"):
        gdalbridge.copy_to_sidecar(raster)
    assert faults.done


@pytest.fixture
def masked(busy, moto_s3, tmp_path):
    """The raster of ``busy`` with a mask and, in its .aux.xml, a nodata value; and a local copy."""
    raster, faults = busy
    path = tmp_path / "masked.tif"
    dataset = make(path, size=(8, 8))
    dataset.GetRasterBand(1).WriteArray(np.arange(64, dtype="u1").reshape(8, 8) % 4)
    dataset = None
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "NO")
    dataset = gdal.Open(str(path), gdal.GA_Update)
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(np.eye(8, dtype="u1") * 255)
    dataset = None
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", None)
    plain = tmp_path / "plain.tif"
    plain.write_bytes(path.read_bytes())
    plain.with_name("plain.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>2</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    for file in (*tmp_path.glob("masked.tif*"), *tmp_path.glob("plain.tif*")):
        moto_s3.client.put_object(Bucket=moto_s3.bucket, Key=file.name, Body=file.read_bytes())
    return raster.rpartition("/")[0], tmp_path, faults


def counted(raster, table):
    gdalbridge.build(raster, table)
    with RatZarr(table) as built:
        return built.readBlock("Histogram", 0, built.rowCount).tolist()


@pytest.mark.parametrize("missed", ["masked.tif.msk", "plain.tif.aux.xml"])
@pytest.mark.parametrize("refused", [1, 2, 1000])
def test_pixels_without_their_mask_or_nodata_are_not_counted(masked, missed, refused, monkeypatch):
    """GDAL takes the file for missing, without a message."""
    place, here, faults = masked
    name = missed.rpartition(".tif")[0] + ".tif"
    expected = counted(here / name, here / "a.rat.zarr")
    assert expected != [16, 16, 16, 16]
    assert counted(f"{place}/{name}", here / "b.rat.zarr") == expected
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setenv("RATZARR_S3_RETRIES", "2")

    def refuse(method, key, number):
        return "503" if key == missed and len(faults.done) < refused else None

    faults.plan = refuse
    try:
        assert counted(f"{place}/{name}", here / "c.rat.zarr") == expected
        assert refused < 1000
    except (GdalLossError, StoreError) as error:
        assert missed in str(error)
    assert faults.done


def test_a_directory_of_more_files_than_gdal_lists(moto, moto_s3, nlcd):
    """GDAL takes what comes after the first thousand for missing."""
    files = {file.name: file.read_bytes() for file in nlcd.parent.glob("lc.tif*")}
    moto.put_many(moto_s3.bucket, {f"dir/{name}": data for name, data in files.items()})
    moto.put_many(moto_s3.bucket, {f"dir/a{number:04}": b"" for number in range(1001)})
    with (
        gdalbridge.open_table(f"s3://{moto_s3.bucket}/dir/lc.tif", update=False) as there,
        gdalbridge.open_table(nlcd) as here,
    ):
        assert there.columns == here.columns
