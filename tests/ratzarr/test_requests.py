"""How many requests an operation costs: on S3 that is its time and its price.

What is expected is in :mod:`tests.ratzarr.budget`, which is also what docs/s3.md shows.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gdalbridge import find_sidecars
from ratzarr import RatZarr
from ratzarr.testing.helpers import make
from tests.ratzarr.budget import BUDGET, table

ROWS, CHUNK = 12, 4


def kind(request):
    """Return what a request is, as the budget names it."""
    if "list-type" in request.query:
        return "LIST"
    if request.method == "POST" and request.query.startswith("delete"):
        return "DELETE"
    return request.method


def cost(proxy, use):
    """Return how many requests of which kind ``use`` makes."""
    proxy.clear()
    use()
    return dict(Counter(kind(request) for request in proxy.requests))


def wide(place, columns):
    """Return a table of so many columns, all written; the server makes most of them."""
    url = place.new()
    with make(url, ROWS, chunk=CHUNK, c0=("int32",)) as one:
        one.writeBlock("c0", np.arange(ROWS), 0)
    names = [f"c{n}" for n in range(columns)]
    key = place.key(url)
    for name in names[1:]:
        place.moto.copy_many(place.bucket, f"{key}/RAT/c0/", f"{key}/RAT/{name}/")
    document = json.loads(place.content(url, "RAT/zarr.json"))
    document["attributes"]["COLUMN_ORDER"] = names
    place.put(url, "RAT/zarr.json", json.dumps(document).encode())
    return url


def compare(measured):
    """Check that what was measured is what the budget says."""
    assert measured == {name: BUDGET[name].requests for name in measured}


MEASURED = {
    "open", "create", "rows", "names", "exists", "create column", "create columns", "first block",
    "next block", "same chunk", "20 columns first", "20 columns", "log", "write", "part", "flush", "grow",
    "grow known", "cut", "delete column", "delete large", "sidecars",
    "attach",  # in tests/gdalbridge/attached_rat/test_speed.py
}  # fmt: skip


def test_all_of_the_budget_is_measured():
    assert set(BUDGET) == MEASURED


def test_the_document_shows_the_budget():
    document = Path(__file__).parents[2] / "docs" / "s3.md"
    assert table() in document.read_text(encoding="utf-8"), (
        "docs/s3.md shows other counts: python -m tests.ratzarr.budget prints the table"
    )


@pytest.mark.parametrize("columns", [1, 100, 500])
def test_the_budget_does_not_depend_on_the_number_of_columns(counted_s3, columns):
    place, proxy = counted_s3
    url = wide(place, columns)
    found = {"create": cost(proxy, lambda: RatZarr(place.new()))}
    assert cost(proxy, lambda: RatZarr(url, readOnly=True)) == BUDGET["open"].requests
    found["open"] = cost(proxy, lambda: RatZarr(url))
    counted = RatZarr(url, readOnly=True)
    found["rows"] = cost(proxy, counted.getRowCount)
    assert cost(proxy, counted.getRowCount) == {}
    reader, writer = RatZarr(url, readOnly=True), RatZarr(url)

    found["names"] = cost(proxy, reader.getColumnNames)
    assert len(reader.getColumnNames()) == columns
    for name in ("c0", "none", "no/ne"):
        found["exists"] = cost(proxy, lambda name=name: reader.colExists(name))
        assert found["exists"] == BUDGET["exists"].requests, name

    found["first block"] = cost(proxy, lambda: reader.readBlock("c0", 0, CHUNK))
    found["next block"] = cost(proxy, lambda: reader.readBlock("c0", CHUNK, CHUNK))
    assert cost(proxy, lambda: reader.readBlock("c0", 0, 1)) == {"GET": 1}
    found["same chunk"] = cost(proxy, lambda: reader.readBlock("c0", 2, 1))

    def write(start, rows):
        return cost(proxy, lambda: writer.writeBlock("c0", np.arange(rows), start))

    found["log"] = write(0, CHUNK)
    found["write"] = write(CHUNK, CHUNK)
    found["part"] = write(0, 2)
    found["flush"] = cost(proxy, writer.flush)
    assert cost(proxy, writer.flush) == {}

    for name in ("new", "n/ew"):
        found["create column"] = cost(proxy, lambda name=name: writer.createColumn(name, "int8"))
        assert found["create column"] == BUDGET["create column"].requests, name
    assert cost(proxy, lambda: writer.writeBlock("new", np.arange(CHUNK), 0)) == {"PUT": 2}
    many = {f"many {n}": "int8" for n in range(20)}
    found["create columns"] = cost(proxy, lambda: writer.createColumns(many))
    found["delete column"] = cost(proxy, lambda: writer.deleteColumn("c0"))
    # Without a chunk, and never used here: what it is is seen from its document only.
    other = RatZarr(url)
    assert cost(proxy, lambda: other.deleteColumn("n/ew")) == {
        "LIST": 1, "GET": 1, "DELETE": 1, "PUT": 1,
    }  # fmt: skip
    found["sidecars"] = cost(proxy, lambda: find_sidecars(url.removesuffix(".rat.zarr")))
    # Columns that others have created since are looked up in the order, all at once.
    assert cost(proxy, reader.getColumnNames) == {"LIST": 1, "GET": 1}
    assert len(reader.getColumnNames()) == columns + 20

    compare(found)


def test_many_columns_at_once(counted_s3):
    place, proxy = counted_s3
    names = [f"c{n}" for n in range(20)]
    with RatZarr(wide(place, 100), readOnly=True) as reader:
        # So that none has been answered before the next is sent.
        proxy.delay = 0.05
        compare({
            "20 columns first": cost(proxy, lambda: reader.readBlocks(names, 0, CHUNK)),
            "20 columns": cost(proxy, lambda: reader.readBlocks(names, CHUNK, CHUNK)),
        })  # fmt: skip
        assert proxy.peak > 4


def test_the_number_of_rows(counted_s3):
    place, proxy = counted_s3
    with RatZarr(wide(place, 20)) as writer:
        compare({
            "grow": cost(proxy, lambda: writer.setRowCount(ROWS + CHUNK)),
            "grow known": cost(proxy, lambda: writer.setRowCount(ROWS + 2 * CHUNK)),
            "cut": cost(proxy, lambda: writer.setRowCount(ROWS - CHUNK)),
        })  # fmt: skip
        assert proxy.peak > 4
        # Nothing to do: each column's document says so.
        assert cost(proxy, lambda: writer.setRowCount(ROWS - CHUNK)) == {
            "LIST": 2, "GET": 21, "PUT": 2,
        }  # fmt: skip


def test_the_number_of_rows_of_100_columns(counted_s3):
    place, proxy = counted_s3
    with RatZarr(wide(place, 100)) as writer:
        found = cost(proxy, lambda: writer.setRowCount(ROWS + 1))
        assert found == {"LIST": 2, "GET": 100, "PUT": 102}
        found = cost(proxy, lambda: writer.setRowCount(ROWS + 2))
        assert found == {"LIST": 2, "PUT": 102}
        assert proxy.peak > 4


def test_deleting_a_large_column(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    with make(url, 2000, chunk=1, a=("int8",)) as writer:
        place.put_many(url, {f"RAT/a/c/{n}": b"x" for n in range(2000)})
        compare({"delete large": cost(proxy, lambda: writer.deleteColumn("a"))})
    assert set(place.objects(url)) == {"zarr.json", "RAT/zarr.json"}


def test_a_group_is_not_deleted_as_a_column(counted_s3):
    """Upstream makes a column ``a/b`` in a group ``a``: that is no column ``a``."""
    place, _ = counted_s3
    url = wide(place, 1)
    root = place.edit(url)
    root["RAT"].create_group("empty")
    nested = root["RAT"].create_group("a").create_array("b", shape=9, chunks=4, dtype="i4")
    nested[:] = 1
    before = place.everything()
    with RatZarr(url) as writer:
        for name in ("a", "empty", "none"):
            with pytest.raises(LookupError):
                writer.deleteColumn(name)
    assert place.everything() == before


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


def test_looking_for_the_row_count(counted_s3):
    """One column is looked at; the others where it does not have as many rows as the table says."""
    place, proxy = counted_s3
    url = wide(place, 20)

    def looks(url, use=lambda table: table.rowCount):
        with RatZarr(url) as table:
            return cost(proxy, lambda: use(table))

    assert looks(url) == {"GET": 1}
    # The columns that are used anyway are as good.
    assert looks(url, lambda table: table.readBlocks(["c3", "c5"], 0, 1)) == {"GET": 4}
    assert looks(url, lambda table: table.setRowCount(ROWS)) == {"LIST": 2, "GET": 41, "PUT": 2}
    assert looks(url, lambda table: table.createColumn("new", "i4")) == {"GET": 1, "PUT": 2}
    root = place.edit(url)["RAT"]
    for name in root:
        root[name].resize((ROWS + 1,))
    assert looks(url) == {"LIST": 1, "GET": 22}
    assert looks(url, lambda table: table.setChunkSize(5)) == {"LIST": 2, "GET": 43, "PUT": 2}
    assert looks(url) == {"GET": 1}
    # The module 1.0.2 keeps no order.
    for name in ("COLUMN_ORDER", "FORMAT_VERSION"):
        del place.edit(url)["RAT"].attrs[name]
    assert looks(url) == {"LIST": 1, "GET": 1}
