"""Tables on a server of which requests meet with faults."""

import numpy as np
import pytest
from osgeo import gdal

import gdalbridge
from gdalbridge.errors import GdalLossError
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
