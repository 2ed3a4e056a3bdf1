"""A listing is remembered while its directory is the same, and never out of date."""

import json
import os
import shutil
import time
from contextlib import contextmanager

from ratzarr import RatZarr
from ratzarr.stores import open_objects, parse, state_of
from ratzarr.stores.local_files import ListingCache
from ratzarr.testing.helpers import make
from tests.audits import recorded
from tests.files import wait_until_settled


def names(path):
    with RatZarr(path, readOnly=True) as table:
        return table.getColumnNames()


def put_in_order(path, order):
    """Write down an order of columns by hand."""
    document = path / "RAT" / "zarr.json"
    contents = json.loads(document.read_text())
    contents["attributes"]["COLUMN_ORDER"] = order
    document.write_text(json.dumps(contents))


def test_what_has_not_changed_is_not_looked_into_again(tmp_path):
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",), b=("f8",)).close()
    wait_until_settled(path)
    with recorded("os.scandir") as listed:
        assert names(path) == ["a", "b"]
        assert len(listed) == 1
        assert names(path) == ["a", "b"]
        assert len(listed) == 1
    # Nor are the columns: this changes the directory of one, and not the one that is listed.
    document = path / "RAT" / "a" / "zarr.json"
    document.rename(document.with_name("gone"))
    assert sorted(open_objects(parse(str(path))).list_dirs("RAT")) == ["a", "b"]
    document.with_name("gone").rename(document)
    with RatZarr(path) as table:
        table.createColumn("c", "i4")
        assert names(path) == ["a", "b", "c"]
        table.deleteColumn("a")
        assert names(path) == ["b", "c"]
    wait_until_settled(path)
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


def test_where_the_clock_of_the_disk_goes_in_large_steps(tmp_path):
    """Two changes can have the same time: what is listed in between is in no state to remember."""
    now = time.time_ns() // 10**9 * 10**9
    found = os.stat(tmp_path)
    whole = os.stat_result(found, {"st_ctime_ns": now})
    fine = os.stat_result(found, {"st_ctime_ns": now + 1})
    assert whole.st_ctime_ns == now
    for seconds in (0, 1, 2):
        assert state_of(whole, now=now + seconds * 10**9) == ""
    assert state_of(whole, now=now + 4 * 10**9)
    # Elsewhere the clock goes in steps of some milliseconds.
    assert state_of(fine, now=now + 10**7) == ""
    assert state_of(fine, now=now + 10**9)


def test_what_is_no_column_is_looked_at_each_time(tmp_path):
    """A killed process leaves a directory; a document in it does not change the one above."""
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",)).close()
    (path / "RAT" / "b").mkdir()
    (path / "RAT" / "a" / "stray").mkdir()
    wait_until_settled(path)
    for _ in range(2):
        assert names(path) == ["a"]
    shutil.copy(path / "RAT" / "a" / "zarr.json", path / "RAT" / "b" / "zarr.json")
    assert names(path) == ["a", "b"]


def test_links_and_files_in_a_listing_that_is_remembered(tmp_path):
    path = tmp_path / "t.rat.zarr"
    make(path, 3, a=("i4",)).close()
    (path / "RAT" / "file").write_text("no column")
    (path / "RAT" / "link").symlink_to(path / "RAT" / "a")
    wait_until_settled(path)
    objects = open_objects(parse(str(path)))
    for _ in range(2):
        assert sorted(objects.list_dirs("RAT")) == ["a", "link"]


def test_few_listings_are_remembered(tmp_path):
    cache = ListingCache(max_listings=3, max_names=2)
    for number in range(8):
        for one in range(number % 4):
            folder = tmp_path / str(number) / f"c{one}"
            folder.mkdir(parents=True)
            (folder / "zarr.json").touch()
        (tmp_path / str(number)).mkdir(exist_ok=True)
    wait_until_settled(tmp_path)
    lengths, again = [], []
    for number in range(8):
        with opened(tmp_path / str(number)) as folder, recorded("os.scandir") as listed:
            for _ in range(2):
                assert len(cache.with_document(folder)) == number % 4
        again.append(len(listed) == 2)
        lengths.append(len(cache))
    # One of three names is listed each time.
    assert again == [number % 4 == 3 for number in range(8)]
    assert lengths == [1, 2, 3, 3, 1, 2, 3, 3]


@contextmanager
def opened(path):
    folder = os.open(path, os.O_RDONLY)
    try:
        yield folder
    finally:
        os.close(folder)


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
    wait_until_settled(path)
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
