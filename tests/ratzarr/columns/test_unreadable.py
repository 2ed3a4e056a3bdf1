"""A column that can't be read stays out of the way of the others, and can be deleted."""

import json

import numpy as np
import pytest

from ratzarr import DamagedError, RatZarr, RatZarrError, UnsupportedCodecError
from ratzarr.maintenance.check import check_store
from ratzarr.maintenance.copy import copy_store, inventory
from ratzarr.stores.open import open_place
from ratzarr.testing.helpers import document, make, raw


def _shard(contents):
    contents["codecs"] = [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [2],
                "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            },
        }
    ]


SPOILED = {
    "unknown codec": lambda one: one["codecs"].append({"name": "of tomorrow"}),
    "sharding": _shard,
    "unknown data type": lambda one: one.update(data_type="decimal12"),
    "other chunks": lambda one: one["chunk_grid"].update(name="of tomorrow"),
    "not JSON": b"{",
    "empty": b"",
    "another checksum": b'{"a": 1}\n' + b" " * 31 + b"\t\n",
}


@pytest.fixture(
    params=[
        *(("local", kind) for kind in SPOILED),
        # What differs there is how objects are listed, and deleted.
        *(("moto_s3", kind) for kind in ("unknown codec", "not JSON")),
    ],
    ids=" ".join,
)
def case(request):
    return request.param


@pytest.fixture
def place(case, request):
    return request.getfixturevalue(case[0])


@pytest.fixture
def spoil(case):
    return SPOILED[case[1]]


def spoiled(place, spoil, name="bad"):
    """Return a table of ours with columns a, bad and b, of which one can't be read."""
    url = place.new()
    with make(url, 9, a=("i4",), bad=("i4",), b=("i4",)) as one:
        for column in ("a", "bad", "b"):
            one.writeBlock(column, np.arange(9), 0)
    break_it(place, url, spoil, name)
    return url


def break_it(place, url, spoil, name="bad"):
    if not isinstance(spoil, bytes):
        contents = document(place, url, f"RAT/{name}")
        spoil(contents)
        spoil = json.dumps(contents).encode()
    place.put(url, f"RAT/{name}/zarr.json", spoil)


def test_the_others_are_as_ever(place, spoil):
    url = spoiled(place, spoil)
    before = place.content(url, "RAT/bad/zarr.json")
    with RatZarr(url) as one:
        assert one.rowCount == 9
        assert one.getColumnNames() == ["a", "bad", "b"]
        assert one.colExists("bad")
        assert list(one.getUnreadableColumns()) == ["bad"]
        assert "bad" in one._repr_html_()
        with pytest.raises((DamagedError, UnsupportedCodecError), match="bad"):
            one.readBlock("bad", 0, 9)
        with pytest.raises(RatZarrError, match="bad"):
            one.createColumn("bad", "i4")
        with pytest.raises(RatZarrError, match="bad"):
            one.createColumns({"c": "i4", "bad": "i4"})
        one.createColumn("c", "i4")
        for rows in (12, 5):
            one.setRowCount(rows)
            assert one.rowCount == rows
            assert raw(place, url, "a").shape == raw(place, url, "c").shape == (rows,)
        assert one.readBlock("a", 0, 99).tolist() == [0, 1, 2, 3, 4]
    assert place.content(url, "RAT/bad/zarr.json") == before
    findings = check_store(url)
    assert {one.column for one in findings if one.wrong} == {"bad"}


@pytest.mark.parametrize("known", [True, False])
def test_it_can_be_deleted(place, spoil, known):
    url = spoiled(place, spoil)
    with RatZarr(url) as one:
        if known:
            one.getUnreadableColumns()
        one.deleteColumn("bad")
        assert one.getColumnNames() == ["a", "b"]
        assert not one.colExists("bad")
        one.createColumn("bad", "f8")
    assert not any("/bad/c" in key for key in place.objects(url))
    assert check_store(url) == []


def test_of_a_name_that_is_encoded(place, spoil):
    url = place.new()
    with make(url, 9, **{"b1/b2": ("i4",)}) as one:
        one.writeBlock("b1/b2", np.arange(9), 0)
    break_it(place, url, spoil, "b1%2Fb2")
    with RatZarr(url) as one:
        assert one.getColumnNames() == ["b1/b2"]
        one.deleteColumn("b1/b2")
        assert one.getColumnNames() == []


def test_a_table_that_has_nothing_else(place, spoil):
    url = place.new()
    with make(url, 7, bad=("i4",)) as one:
        one.writeBlock("bad", np.arange(7), 0)
    break_it(place, url, spoil)
    with RatZarr(url) as one:
        assert one.rowCount == 7
        one.setRowCount(8)
    with RatZarr(url) as one:
        assert one.rowCount == 8
        one.createColumn("a", "i4")
        assert len(one.readBlock("a", 0, 99)) == 8


def test_upstreams_table_that_keeps_no_count(place, spoil):
    """Its length does not count, even where nothing else tells."""
    url = place.new()
    group = place.create(url).create_group("RAT")
    for name in ("a", "bad"):
        group.create_array(name, shape=5, chunks=4, dtype="i4")
    break_it(place, url, spoil)
    with RatZarr(url) as one:
        assert one.rowCount == 5
        one.deleteColumn("a")
    with RatZarr(url) as one:
        assert one.getColumnNames() == ["bad"]


def test_it_can_be_replaced(place, spoil):
    url = spoiled(place, spoil)
    with RatZarr(url) as one:
        one.createColumn("bad", "f8", complete=False, replace=True)
        one.writeBlock("bad", np.full(9, 0.5), 0)
        one.setComplete("bad")
    with RatZarr(url) as one:
        assert one.getUnreadableColumns() == {}
        assert one.readBlock("bad", 0, 9).tolist() == [0.5] * 9
        assert one.getColumnNames() == ["a", "bad", "b"]


def test_once_it_can_be_read_again_the_tables_rows_rule(place, spoil):
    url = spoiled(place, lambda one: None)
    good = place.content(url, "RAT/bad/zarr.json")
    for rows in (5, 12):
        break_it(place, url, spoil)
        with RatZarr(url) as one:
            one.setRowCount(rows)
        place.put(url, "RAT/bad/zarr.json", good)
        with RatZarr(url) as one:
            assert one.rowCount == rows
            assert len(one.readBlock("bad", 0, 99)) == rows


def test_the_released_module_resizes_the_others(place, spoil):
    """The row count is that of those that can be read."""
    url = spoiled(place, spoil)
    group = place.edit(url)["RAT"]
    for name in ("a", "b"):
        group[name].resize((12,))
    with RatZarr(url) as one:
        assert one.rowCount == 12
        assert len(one.readBlock("a", 0, 99)) == 12


def test_it_is_copied_as_it_is(place, local, spoil):
    url, target = spoiled(place, spoil), local.new("copy.rat.zarr")
    source = open_place(url)
    with pytest.warns(UserWarning, match="bad"):
        copy_store(source, open_place(target), inventory(source))
    assert local.objects(target) == place.objects(url)
