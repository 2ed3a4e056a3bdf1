"""A copy to S3 of which one request in ten meets with a fault."""

import numpy as np
import pytest
from osgeo import gdal

import gdalbridge
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
