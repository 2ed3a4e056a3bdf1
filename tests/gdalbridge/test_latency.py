"""A server that is far away: copies keep several requests under way."""

import time

import numpy as np
import pytest

from gdalbridge import copy_to_raster, copy_to_sidecar
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, describe_band, make, new_rat
from tests.places import S3Place
from tests.servers.light import light_server

CHUNKS, CHUNK = 50, 16
ROWS = CHUNKS * CHUNK
DELAY = 0.6
"""Seconds: a busy machine needs some for the rest of a copy."""
ATTEMPTS = 5


def raster(path, kind, values):
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("a", kind, 0, values)], len(values)))
    dataset = None
    return path


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
    original = raster(tmp_path / "seg.tif", kind, values)
    url = place.new()
    copy_to_sidecar(original, url, chunk_rows=CHUNK)
    # Each chunk is written once, and read twice: what was written to a raster is compared.
    chunks = [request for request in proxy.requests if "/RAT/a/c/" in request.key]
    assert [request.method for request in chunks] == ["PUT"] * CHUNKS
    proxy.clear()
    make(tmp_path / "other.tif").FlushCache()
    copy_to_raster(url, tmp_path / "other.tif")
    chunks = [request for request in proxy.requests if "/RAT/a/c/" in request.key]
    assert [request.method for request in chunks] == ["GET"] * (2 * CHUNKS)
    there, back = describe_band(original), describe_band(tmp_path / "other.tif")
    assert there["columns"] == back["columns"]
    assert there["rows"] == ROWS


@pytest.fixture(scope="module")
def light():
    with light_server() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "values"),
    [(REAL, np.arange(ROWS) / 7), (STRING, ["a row"] * ROWS)],
    ids=["real", "text"],
)
def test_the_blocks_of_a_copy_wait_together(tmp_path, light, monkeypatch, kind, values):
    """One after another they would take ten times as long, only for waiting."""
    for name, value in light.environment.items():
        monkeypatch.setenv(name, value)
    place = S3Place(light)
    original = raster(tmp_path / "seg.tif", kind, values)
    target = tmp_path / "other.tif"
    make(target).FlushCache()
    light.far(DELAY, "/c/")
    for attempt in range(ATTEMPTS):
        url = place.new()
        there = seconds(lambda url=url: copy_to_sidecar(original, url, chunk_rows=CHUNK))
        back = seconds(lambda url=url: copy_to_raster(url, target, overwrite=True))
        # They are read twice; see above. What else this computer does can get in the way.
        if there < CHUNKS * DELAY / 10 and back < 2 * CHUNKS * DELAY / 10:
            break
        time.sleep(0.2 * attempt)
    else:
        raise AssertionError(f"there {there} s, back {back} s")
    light.far(0.0)
    assert describe_band(original)["columns"] == describe_band(target)["columns"]


def seconds(use):
    started = time.perf_counter()
    use()
    return time.perf_counter() - started
