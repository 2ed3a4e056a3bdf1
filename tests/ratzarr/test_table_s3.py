"""The conformance suite on S3 (moto), and what only S3 has."""

import numpy as np
import pytest

from ratzarr import RatZarr, RatZarrError
from ratzarr.testing.helpers import make, refused
from tests.ratzarr.conformance import TableConformance


class TestTablesOnS3(TableConformance):
    examples = 8

    @pytest.fixture
    def place(self, moto_s3):
        return moto_s3


@pytest.mark.parametrize("scheme", ["/vsis3/", "S3://"])
def test_other_ways_to_write_it(moto_s3, scheme):
    url = moto_s3.new()
    other = scheme + url.removeprefix("s3://")
    with make(other, 3, a=("int32",)) as table:
        table.writeBlock("a", np.arange(3), 0)
    assert set(moto_s3.objects(url)) == {
        "zarr.json", "RAT/zarr.json", "RAT/a/zarr.json", "RAT/a/c/0",
    }  # fmt: skip
    with RatZarr(url, readOnly=True) as table:
        assert table.readBlock("a", 0, 3).tolist() == [0, 1, 2]
    assert RatZarr.exists(other)
    assert RatZarr.isValidRatZarr(other)
    RatZarr.delete(other)
    assert moto_s3.objects(url) == {}


def test_case_counts_in_the_key(moto_s3):
    url = moto_s3.new("Seg.TIF.rat.zarr")
    make(url, 3).close()
    assert "S3://" + url.removeprefix("s3://") != url
    assert not RatZarr.exists(url.lower())
    assert RatZarr.exists(url)


def test_more_than_two_pages_of_objects(moto_s3):
    """A listing has 1000 keys a page, and 1000 is the most that one request deletes."""
    url = moto_s3.new("big.zarr")
    rows = 2100
    neighbour = url + "2"
    make(neighbour, 3, a=("int32",)).close()
    with make(url, rows, chunk=1, a=("int8",)) as table:
        table.writeBlock("a", np.array([1]), 0)
    chunk = moto_s3.content(url, "RAT/a/c/0")
    moto_s3.put_many(url, {f"RAT/a/c/{n}": chunk for n in range(1, rows)})
    beside = moto_s3.objects(neighbour)
    with RatZarr(url, readOnly=True) as table:
        assert table.getColumnNames() == ["a"]
        assert table.readBlock("a", rows - 5, 9).tolist() == [1] * 5
    moto_s3.put(url, "RAT/a/c/zz", b"precious")  # on the last page
    with pytest.raises(RatZarrError, match="zz"):
        RatZarr.delete(url)
    assert len(moto_s3.keys(moto_s3.key(url) + "/")) == rows + 4
    moto_s3.remove(url, "RAT/a/c/zz")
    RatZarr.delete(url)
    assert moto_s3.keys(moto_s3.key(url) + "/") == []
    assert moto_s3.objects(neighbour) == beside


def test_a_table_may_be_the_whole_of_a_buckets_top(moto_s3):
    """Without a key in the URL there is no whole component to go by: refused, not guessed."""
    moto_s3.put(f"s3://{moto_s3.bucket}/x", "", b"precious")
    for url in (f"s3://{moto_s3.bucket}", f"s3://{moto_s3.bucket}/", "s3://", "/vsis3/"):
        with refused(moto_s3):
            RatZarr.delete(url)
    for url in ("s3://", "/vsis3/", "s3:///key"):
        with refused(moto_s3):
            RatZarr(url)


def test_a_bucket_that_is_not_there(moto_s3):
    with refused(moto_s3, "no-such-bucket"):
        RatZarr("s3://no-such-bucket/x.rat.zarr")
    with refused(moto_s3, "no-such-bucket"):
        RatZarr("s3://no-such-bucket/x.rat.zarr", readOnly=True)


def test_storage_options(moto, moto_s3, monkeypatch):
    """Options given in the call need no environment, and have the last word."""
    url = moto_s3.new()
    environment = moto.environment
    for name in environment:
        monkeypatch.delenv(name)
    options = {
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
        "key": environment["AWS_ACCESS_KEY_ID"],
        "secret": environment["AWS_SECRET_ACCESS_KEY"],
        "client_kwargs": {"region_name": environment["AWS_DEFAULT_REGION"]},
    }
    with RatZarr(url, storageOptions=options) as table:
        table.setRowCount(3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with RatZarr(url, readOnly=True, storageOptions=options) as table:
        assert table.rowCount == 3
    assert set(moto_s3.objects(url)) == {"zarr.json", "RAT/zarr.json"}


def test_secrets_are_in_no_message(moto, moto_s3):
    secret = moto.environment["AWS_SECRET_ACCESS_KEY"]
    key = moto.environment["AWS_ACCESS_KEY_ID"]
    options = {"endpoint_url": moto.url, "key": key, "secret": secret}
    with pytest.raises(RatZarrError) as caught:
        RatZarr(moto_s3.new(), readOnly=True, storageOptions=options)
    assert secret not in str(caught.value)
    with RatZarr(moto_s3.new(), storageOptions=options) as table:
        assert secret not in repr(table)
        assert secret not in table._repr_html_()


def test_without_credentials(moto_s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    url = moto_s3.new()
    with refused(moto_s3, "redentials"):
        RatZarr(url)


def test_a_server_that_refuses(counted_s3):
    """403 is not 404: nothing is called missing that we may not see."""
    place, proxy = counted_s3
    url = place.new()
    make(url, 9, a=("int32",)).close()
    proxy.instead = lambda method, key: 403
    for use in (
        lambda: RatZarr(url),
        lambda: RatZarr(url, readOnly=True),
        lambda: RatZarr.exists(url),
        lambda: RatZarr.delete(url),
    ):
        with refused(place, url, error=PermissionError):
            use()


def test_a_chunk_that_may_not_be_read(counted_s3):
    """A value that can't be had is not an empty one."""
    place, proxy = counted_s3
    url = place.new()
    with make(url, 9, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(9), 0)
        table.flush()
        proxy.instead = lambda method, key: 403 if key.endswith("/c/1") else None
        with refused(place, "RAT/a/c/1"):
            table.readBlock("a", 0, 9)
        with refused(place, "RAT/a/c/1"):
            table.writeBlock("a", np.array([1]), 5)
            table.flush()


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_stumbles(counted_s3, status):
    """An error that passes is not the caller's business."""
    place, proxy = counted_s3
    url = place.new()
    seen = set()

    def stumble(method, key):
        """Fail the first request of each kind for each key."""
        if (method, key) in seen:
            return None
        seen.add((method, key))
        return status

    proxy.instead = stumble
    with make(url, 6, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(6), 0)
        table.writeBlock("a", np.array([70]), 1)
        assert table.readBlock("a", 0, 6).tolist() == [0, 70, 2, 3, 4, 5]
        assert table.getColumnNames() == ["a"]
        assert len(table.getModificationLog("a")) == 1
    assert seen
