"""How many requests an operation costs: on S3 that is its time and its price."""

import numpy as np
import pytest

from ratzarr import RatZarr

from .conformance.base import make


def counted(proxy, use):
    """Return the requests that ``use`` makes, as a list of (method, last part of the key)."""
    proxy.clear()
    use()
    return [
        (request.method, "list" if "list-type" in request.query else request.key.split("/")[-1])
        for request in proxy.requests
    ]


@pytest.mark.parametrize("columns", [1, 40])
def test_opening_is_one_request(counted_s3, columns):
    place, proxy = counted_s3
    url = place.new()
    make(url, 9, **{f"c{n}": ("int8",) for n in range(columns)}).close()
    assert counted(proxy, lambda: RatZarr(url, readOnly=True)) == [("GET", "zarr.json")]
    assert counted(proxy, lambda: RatZarr(url)) == [("GET", "zarr.json")]


def test_all_names_are_one_listing(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    make(url, 9, **{f"c{n}": ("int8",) for n in range(30)}).close()
    with RatZarr(url, readOnly=True) as table:
        requests = counted(proxy, table.getColumnNames)
        assert requests == [("GET", "list")]
        assert len(table.getColumnNames()) == 30


def test_creating(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    assert len(counted(proxy, lambda: RatZarr(url))) <= 4
    with RatZarr(url) as table:
        table.setRowCount(9)
        table.createColumn("a", "int8")
        # the column's document, and the order brought up to date
        requests = counted(proxy, lambda: table.createColumn("b", "int8"))
        assert requests.count(("PUT", "zarr.json")) <= 2
        assert len(requests) <= 4


def test_values(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    with make(url, 12, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(12), 0)
    with RatZarr(url) as table:
        assert sorted(counted(proxy, lambda: table.readBlock("a", 0, 4))) == [
            ("GET", "0"), ("GET", "zarr.json"),
        ]  # fmt: skip
        assert len(counted(proxy, lambda: table.readBlock("a", 4, 4))) <= 1
        table.writeBlock("a", np.arange(4), 0)  # the event of the log

        def write(start, count):
            table.writeBlock("a", np.arange(count), start)

        assert counted(proxy, lambda: write(4, 4)) == [("PUT", "1")]
        assert counted(proxy, lambda: write(8, 2)) in (
            [("GET", "2"), ("PUT", "2")],
            [("PUT", "2")],
        )
        # Whether they went to the right column; once for all of them.
        assert counted(proxy, table.flush) == [("GET", "zarr.json")]
        assert counted(proxy, table.flush) == []


def test_whole_chunks_are_put_without_asking(counted_s3):
    """And documents only on condition."""
    place, proxy = counted_s3
    url = place.new()
    with make(url, 12, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(12), 0)
        table.writeBlock("a", np.array([5]), 1)
        table.setRowCount(14)
        table.getRatAttributeMapping()["x"] = 1
    puts = [request for request in proxy.requests if request.method == "PUT"]
    for request in puts:
        if request.key.endswith("zarr.json"):
            assert {"if-match", "if-none-match"} & set(request.headers), request
        assert not request.headers.get("if-match", "").startswith('"'), (
            "Ceph refuses a quoted etag"
        )
        assert "uploadId" not in request.query
    whole = [request for request in puts if request.key.endswith("/c/2")]
    assert len(whole) == 1
    assert not {"if-match", "if-none-match"} & set(whole[0].headers)
    assert not [request for request in proxy.requests if request.method == "HEAD"]


def test_resizing_does_not_ask_for_more_than_two_requests_per_column(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    columns = 20
    make(url, 9, **{f"c{n}": ("int8",) for n in range(columns)}).close()
    with RatZarr(url) as table:
        requests = counted(proxy, lambda: table.setRowCount(12))
    # One of them asks, once for the table, for columns that are being built out of sight.
    assert len(requests) <= 2 * columns + 5
