"""Web servers, and other URLs that fsspec knows."""

import zipfile

import fsspec
import numpy as np
import pytest

from ratzarr import RatZarr, RatZarrError
from ratzarr.maintenance.check import check_store
from ratzarr.maintenance.copy import copy_store, inventory
from ratzarr.stores.open import open_place
from ratzarr.testing.helpers import STRING, change_document, make
from tests.servers.web import web_server

# In a URL some of these would mean something else, or nothing at all.
NAMES = ["a", "b/c", "100%", "é 1", "x#y", "x?y=1", "%41", "a+b", "[0]*"]


@pytest.fixture
def web(local):
    with web_server(local.root) as web:
        yield web


@pytest.fixture
def table_url(web, local):
    """A table on a disk, as the web server offers it."""
    path = local.new()
    with make(path, 9, chunk=4, s=(STRING,), **dict.fromkeys(NAMES, ("int32",))) as table:
        for number, name in enumerate(NAMES):
            table.writeBlock(name, np.arange(9) + number, 0)
        table.writeBlock("s", np.array(list("abcdefghi")), 0)
    return path.replace(str(local.root), web.url)


@pytest.mark.parametrize("before", ["", "/vsicurl/"])
@pytest.mark.parametrize("page", [None, b"<a href='RAT/zarr.json'>welcome</a>"])
def test_reading(web, table_url, before, page):
    """Whatever the server says of a directory."""
    web.page = page
    url = before + table_url
    with RatZarr(url, readOnly=True) as table:
        assert table.rowCount == 9
        assert table.getColumnNames() == ["s", *NAMES]
        assert table.readBlock("s", 0, 2).tolist() == ["a", "b"]
        for number, name in enumerate(NAMES):
            assert table.readBlock(name, 3, 9).tolist() == [row + number for row in range(3, 9)]
    assert RatZarr.isValidRatZarr(url)
    assert RatZarr.exists(url)


def test_requests(web, table_url):
    with RatZarr(table_url, readOnly=True) as table:
        assert web.requests == [("GET", table_url.removeprefix(web.url) + "/RAT/zarr.json")]
        web.requests.clear()
        assert len(table.getColumnNames()) == 1 + len(NAMES)
        assert web.requests == []


def test_what_is_not_there(web, table_url):
    with RatZarr(table_url, readOnly=True) as table:
        with pytest.raises(RatZarrError, match="'nothing'"):
            table.readBlock("nothing", 0, 1)
        assert not table.colExists("nothing")
    other = table_url + "2"
    assert not RatZarr.exists(other)
    assert not RatZarr.isValidRatZarr(other)
    with pytest.raises(FileNotFoundError, match=other):
        RatZarr(other, readOnly=True)
    RatZarr.delete(other)


def test_nothing_is_written(web, table_url, local):
    before = local.everything()
    with RatZarr(table_url) as table:
        for change in (
            lambda: table.setRowCount(3),
            lambda: table.createColumn("new", "int8"),
            lambda: table.writeBlock("a", np.arange(3), 0),
            lambda: table.deleteColumn("a"),
            lambda: table.getRatAttributeMapping().update(x=1),
        ):
            with pytest.raises(PermissionError, match="web server"):
                change()
    with pytest.raises(PermissionError, match="web server"):
        RatZarr(table_url + "2")
    with pytest.raises(PermissionError, match="web server"):
        RatZarr.delete(table_url)
    assert local.everything() == before
    assert {method for method, _ in web.requests} <= {"GET", "HEAD"}


def test_a_value_that_can_not_be_had_is_not_an_empty_one(web, table_url):
    with RatZarr(table_url, readOnly=True) as table:
        web.instead = lambda path: 403 if path.endswith("/a/c/1") else None
        with pytest.raises(PermissionError, match="RAT/a/c/1"):
            table.readBlock("a", 0, 9)
        web.instead = lambda path: 500 if path.endswith("/a/c/1") else None
        with pytest.raises(RatZarrError, match="RAT/a/c/1"):
            table.readBlock("a", 0, 9)
        assert table.readBlock("a", 0, 4).tolist() == [0, 1, 2, 3]


def test_a_chunk_that_is_too_large_is_not_read(web, table_url, local):
    path = table_url.replace(web.url, str(local.root))
    local.put(path, "RAT/a/c/1", b"x" * 5_000_000)
    with (
        RatZarr(table_url, readOnly=True) as table,
        pytest.raises(RatZarrError, match=r"RAT/a/c/1 has more than"),
    ):
        table.readBlock("a", 0, 9)
    assert web.sent < 1_000_000


def test_a_table_without_an_order(web, table_url, local):
    """Upstream's keep none: their columns can be read by those who know them."""
    path = table_url.replace(web.url, str(local.root))
    change_document(
        local, path, "RAT", lambda contents: contents["attributes"].pop("COLUMN_ORDER")
    )
    with RatZarr(table_url, readOnly=True) as table:
        with pytest.raises(RatZarrError, match=r"can't be listed.*by name"):
            table.getColumnNames()
        assert table.readBlock("a", 0, 2).tolist() == [0, 1]


def test_a_check_needs_a_listing(table_url):
    with pytest.raises(RatZarrError, match="can't be listed"):
        check_store(table_url)


def test_no_server():
    with pytest.raises(RatZarrError, match=r"127\.0\.0\.1:9/x\.zarr"):
        RatZarr("http://127.0.0.1:9/x.zarr", readOnly=True)


@pytest.mark.parametrize("url", ["memory://conformance/nothing.zarr", "nosuchscheme://x/y.zarr"])
def test_nothing_to_read(url):
    with pytest.raises(RatZarrError):
        RatZarr(url, readOnly=True)


def as_archive(objects, path):
    """Put a table's objects into a zip file; return the table's URL in it."""
    with zipfile.ZipFile(path, "w") as file:
        for key, content in objects.items():
            file.writestr(f"x.rat.zarr/{key}", content)
    return f"zip://x.rat.zarr::{path}"


def in_memory(objects, path):
    """Put a table's objects into fsspec's memory; return the table's URL there."""
    url = f"memory://{path}/x.rat.zarr"
    fsspec.filesystem("memory").pipe({f"{url}/{key}": data for key, data in objects.items()})
    return url


@pytest.mark.parametrize("put", [as_archive, in_memory])
def test_other_places_are_read_and_not_written(local, tmp_path, put):
    path = local.new()
    with make(path, 9, chunk=4, a=("int32",), **{"b*": ("int8",)}) as table:
        table.writeBlock("a", np.arange(9), 0)
    objects = local.objects(path)
    url = put(objects, tmp_path / "tables")
    refused = rf"{url.partition('://')[0]}:// are read, not written.*local disk or S3, and copy"
    with RatZarr(url) as table:
        assert table.getColumnNames() == ["a", "b*"]
        assert table.readBlock("a", 0, 9).tolist() == list(range(9))
        for change in (
            lambda: table.writeBlock("a", np.arange(3), 0),
            lambda: table.setRowCount(3),
            lambda: table.createColumn("c", "int8"),
            lambda: table.deleteColumn("b*"),
        ):
            with pytest.raises(PermissionError, match=refused):
                change()
    with pytest.raises(PermissionError, match=refused):
        RatZarr(url.replace("x.rat", "y.rat"))
    with pytest.raises(PermissionError, match=refused):
        RatZarr.delete(url)
    with pytest.raises(PermissionError, match=refused):
        copy_store(
            open_place(path),
            open_place(url.replace("x.rat", "y.rat")),
            inventory(open_place(path)),
        )
    assert [one.key for one in inventory(open_place(url))] == sorted(objects)
    assert {one.key: one.size for one in inventory(open_place(url))} == {
        key: len(data) for key, data in objects.items()
    }
    assert check_store(url) == []
