"""A listing is remembered while its directory is the same, and never out of date."""

import json
import os
import shutil
import time
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratzarr import RatZarr
from ratzarr.errors import InvalidNameError
from ratzarr.format.names import are_in_the_raw, plausible_keys
from ratzarr.testing.helpers import make


@pytest.fixture
def looks(monkeypatch):
    """Return the directories that were looked into, in a list."""
    seen = []
    access = os.access

    def counted(path, *arguments, **options):
        seen.append(os.fspath(path).partition("/")[0])
        return access(path, *arguments, **options)

    # In that module alone: other threads of this process look into other directories.
    monkeypatch.setattr(
        "ratzarr.stores.local_files.os", SimpleNamespace(**{**vars(os), "access": counted})
    )
    return seen


def names(path):
    with RatZarr(path, readOnly=True) as table:
        return table.getColumnNames()


def put_in_order(path, order):
    """Write down an order of columns by hand."""
    document = path / "RAT" / "zarr.json"
    contents = json.loads(document.read_text())
    contents["attributes"]["COLUMN_ORDER"] = order
    document.write_text(json.dumps(contents))


def long_ago():
    """Let a directory be listed that was changed so long ago that its listing is remembered."""
    time.sleep(0.15)


def test_what_has_not_changed_is_not_looked_into_again(tmp_path, looks):
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",), b=("f8",)).close()
    long_ago()
    assert names(path) == ["a", "b"]
    assert sorted(looks) == ["a", "b"]
    looks.clear()
    assert names(path) == ["a", "b"]
    assert looks == []
    with RatZarr(path) as table:
        table.createColumn("c", "i4")
        assert names(path) == ["a", "b", "c"]
        table.deleteColumn("a")
        assert names(path) == ["b", "c"]
    long_ago()
    assert names(path) == ["b", "c"]


def test_however_soon_the_next_change_comes(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, 3) as table:
        for number in range(60):
            table.createColumn(f"c{number}", "i4")
            if number % 3:
                table.deleteColumn(f"c{number}")
            expected = [f"c{one}" for one in range(0, number + 1, 3)]
            assert names(path) == expected


def test_where_the_clock_of_the_disk_goes_in_large_steps(tmp_path, monkeypatch):
    """Two changes have the same time: a listing in between is not remembered."""
    path = tmp_path / "t.rat.zarr"
    now = time.time_ns() // 10**9 * 10**9
    same = mock.Mock(st_dev=1, st_ino=-5, st_size=4096, st_mtime_ns=now, st_ctime_ns=now)
    coarse = SimpleNamespace(**{**vars(os), "fstat": lambda folder: same})
    with make(path, 3, a=("i4",)) as table:
        monkeypatch.setattr("ratzarr.stores.local_files.os", coarse)
        assert table._objects.list_dirs("RAT") == ["a"]
        monkeypatch.undo()
        table.createColumn("b", "i4")
        monkeypatch.setattr("ratzarr.stores.local_files.os", coarse)
        assert sorted(table._objects.list_dirs("RAT")) == ["a", "b"]


def test_what_is_no_column_is_looked_at_each_time(tmp_path):
    """A killed process leaves a directory; a document in it does not change the one above."""
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",)).close()
    (path / "RAT" / "b").mkdir()
    (path / "RAT" / "a" / "stray").mkdir()
    long_ago()
    for _ in range(2):
        assert names(path) == ["a"]
    shutil.copy(path / "RAT" / "a" / "zarr.json", path / "RAT" / "b" / "zarr.json")
    assert names(path) == ["a", "b"]


def test_links_and_files_in_a_listing_that_is_remembered(tmp_path):
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",)).close()
    (path / "RAT" / "file").write_text("no column")
    (path / "RAT" / "link").symlink_to(path / "RAT" / "a")
    long_ago()
    with RatZarr(path, readOnly=True) as table:
        for _ in range(2):
            assert sorted(table._objects.list_dirs("RAT")) == ["a", "link"]


def test_few_listings_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("ratzarr.stores.local_files._known", known := {})
    monkeypatch.setattr("ratzarr.stores.local_files.KEPT", 3)
    monkeypatch.setattr("ratzarr.stores.local_files.LONGEST", 2)
    for number in range(8):
        columns = {f"c{one}": ("i4",) for one in range(number % 4)}
        make(tmp_path / f"{number}.rat.zarr", 3, **columns).close()
    long_ago()
    for number in range(8):
        assert len(names(tmp_path / f"{number}.rat.zarr")) == number % 4
    assert 0 < len(known) <= 3
    assert all(len(sure) <= 2 for sure, _ in known.values())


def keys_of(name):
    try:
        return plausible_keys(name)
    except InvalidNameError:
        return ()


@given(
    st.sets(
        st.text(st.sampled_from("ab%2F~./\\\0\n_ä\ud800"), min_size=1, max_size=6)
        | st.sampled_from(["zarr.json", "a\u0301", "b" * 250, "%7Aarr.json"])
    )
)
def test_keys_in_the_raw_are_found_under_themselves_alone(keys):
    if are_in_the_raw(keys):
        for name in keys:
            assert [key for key in keys_of(name) if key in keys] == [name]


def test_plain_names_are_in_the_raw():
    assert are_in_the_raw([])
    assert are_in_the_raw([f"column {number}" for number in range(500)])
    assert not are_in_the_raw(["a", "b%2Fc"])


def test_an_order_with_names_twice_gone_and_unknown(tmp_path):
    path = tmp_path / "t.rat.zarr"
    with make(path, 3, a=("i4",), b=("i4",), c=("i4",)) as table:
        table.createColumn("d/e", "i4")
    put_in_order(path, ["c", "a", "c", "gone", "d/e", "a"])
    assert names(path) == ["c", "a", "d/e", "b"]
    shutil.rmtree(path / "RAT" / "d%2Fe")
    assert names(path) == ["c", "a", "b"]


def test_what_is_done_with_a_list_of_names_is_its_receivers_own(tmp_path):
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",), b=("f8",)).close()
    long_ago()
    for _ in range(3):
        found = names(path)
        assert found == ["a", "b"]
        found.append("c")
        found.sort(reverse=True)
    # The same listing, and other orders.
    for order, expected in ((["b", "a"], ["b", "a"]), (["b"], ["b", "a"]), ([], ["a", "b"])):
        put_in_order(path, order)
        assert names(path) == expected
        assert names(path) == expected
