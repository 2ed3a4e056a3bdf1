"""A server that is far away: copies keep several requests under way."""

import numpy as np
import pytest

from gdalbridge import copy_to_raster, copy_to_sidecar
from gdalbridge.columncopy import WRITERS
from tests.gdalbridge.rasters import INTEGER, REAL, STRING, describe_band, make, new_rat

ROWS, CHUNK = 640, 16


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (INTEGER, np.arange(ROWS)),
        (REAL, np.arange(ROWS) / 7),
        (STRING, [f"row {n}" for n in range(ROWS)]),
    ],
    ids=["integer", "real", "text"],
)
def test_copies_there_and_back(tmp_path, counted_s3, kind, values):
    place, proxy = counted_s3
    dataset = make(tmp_path / "seg.tif")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("a", kind, 0, values)], ROWS))
    dataset = None
    url = place.new()
    proxy.delay = 0.03
    copy_to_sidecar(tmp_path / "seg.tif", url, chunk_rows=CHUNK)
    # Each chunk written once, and several at a time.
    chunks = [request for request in proxy.requests if "/RAT/a/c/" in request.key]
    assert [request.method for request in chunks] == ["PUT"] * (ROWS // CHUNK)
    assert WRITERS // 2 < proxy.peak <= WRITERS
    proxy.clear()
    make(tmp_path / "other.tif").FlushCache()
    copy_to_raster(url, tmp_path / "other.tif")
    assert proxy.peak > (1 if kind == STRING else WRITERS)
    there, back = describe_band(tmp_path / "seg.tif"), describe_band(tmp_path / "other.tif")
    assert there["columns"] == back["columns"]
    assert there["rows"] == ROWS
