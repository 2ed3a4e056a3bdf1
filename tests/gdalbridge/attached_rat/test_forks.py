"""An attached table in the child of a fork: it reads on, and what waits is its parent's to write."""

import os
import sys
import time

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import attach
from gdalbridge.sidecars.naming import writable_sidecar_path
from ratzarr import RatZarr
from tests.gdalbridge.sample_rasters import make

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are forks elsewhere only"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(params=["disk", "s3"])
def folder(request):
    if request.param == "disk":
        return None
    moto_s3 = request.getfixturevalue("moto_s3")
    return moto_s3.new().rpartition("/")[0]


def test_parent_and_child_at_once(folder, tmp_path, monkeypatch):
    path = str(tmp_path / "seg.tif")
    make(path).FlushCache()
    if folder is not None:
        # The raster on a disk, its table on S3.
        monkeypatch.setenv("GDALBRIDGE_SIDECAR_DIR", folder)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    sidecar = writable_sidecar_path(path)
    with RatZarr(sidecar, newChunkSize=1024) as table:
        table.setRowCount(3000)
        for name in ("a", "b"):
            table.createColumn(name, "int32")
        table.writeBlock("a", np.arange(3000), 0)
    attached = attach(gdal.Open(path), update=True)
    assert attached.ReadAsArray(0, 0, 5).tolist() == [0, 1, 2, 3, 4]
    # A part of a chunk: it waits.
    attached.WriteArray(np.array([7, 8]), 1, 0)
    child = os.fork()
    if not child:
        code = 1
        try:
            assert attached.ReadAsArray(1, 0, 2).tolist() == [7, 8]
            assert attached.ReadAsArray(0, 2990, 10).tolist() == list(range(2990, 3000))
            attached.WriteArray(np.array([50]), 1, 2000)
            attached.flush()
            code = 0
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    attached.WriteArray(np.array([9]), 1, 2)
    until = time.monotonic() + 60
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, 9)
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(done[1]) == 0
    attached.flush()
    with RatZarr(sidecar, readOnly=True) as table:
        found = table.readBlock("b", 0, 3000)
    assert found[[0, 1, 2, 2000]].tolist() == [7, 8, 9, 50]
    assert np.count_nonzero(found) == 4
