"""Row counts of tables that the released module 1.0.2 has resized, and that it has not."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.maintenance.check import check_store
from ratzarr.testing.helpers import document, make, raw
from tests.ratzarr.released import Released


@pytest.fixture(params=["local", "moto_s3"])
def place(request):
    return request.getfixturevalue(request.param)


def released(place, url):
    """Return an instance of the released module at a store."""
    return Released(place.store(url, read_only=False))


def table(place, rows=5, names="ab", chunk=4):
    """Return where a table of ours is, its columns filled with 1, 2, 3, ..."""
    url = place.new()
    with make(url, rows, chunk=chunk, **dict.fromkeys(names, ("i4",))) as one:
        for name in names:
            one.writeBlock(name, np.arange(1, rows + 1), 0)
    return url


def stated(place, url):
    return document(place, url, "RAT")["attributes"]["ROWCOUNT"]


def rows_of(url, name="a"):
    with RatZarr(url, readOnly=True) as one:
        assert one.getRowCount() == one.rowCount == len(one.readBlock(name, 0, 10**6))
        return one.readBlock(name, 0, one.rowCount).tolist()


@pytest.mark.parametrize("rows", [0, 3, 4, 7, 9])
@pytest.mark.parametrize("look", ["rows", "read", "write", "list"])
def test_a_resize_by_the_released_module_counts(local, rows, look):
    """Whatever a new instance does first."""
    url = table(local)
    released(local, url).resize(rows)
    wanted = ([1, 2, 3, 4, 5] + [0] * 9)[:rows]
    with RatZarr(url) as one:
        if look == "read":
            assert one.readBlocks(["b"], 0, 99)["b"].tolist() == wanted
        elif look == "write" and rows:
            one.writeBlock("b", [50], rows - 1)
            with pytest.raises(IndexError):
                one.writeBlock("b", [50], rows)
        elif look == "list":
            one.getColumnNames()
        assert one.rowCount == rows
        assert one.readBlock("a", 0, 99).tolist() == wanted
    # Values change no metadata of the table.
    assert stated(local, url) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.getRatAttributeMapping().update(x=1),
        lambda one: one.getColumnAttributeMapping("a").update(x=1),
        lambda one: one.setChunkSize(3),
        lambda one: one.createColumn("c", "i4"),
        lambda one: one.createColumns({"c": "i4", "d": "f8"}),
        lambda one: one.setComplete("a"),
    ],
    ids=["attribute", "column attribute", "chunk size", "create", "create many", "complete"],
)
@pytest.mark.parametrize("rows", [3, 9])
def test_the_next_change_of_metadata_corrects_the_attribute(place, rows, change):
    url = table(place)
    released(place, url).resize(rows)
    with RatZarr(url) as one:
        change(one)
        assert one.rowCount == rows
        for name in one.getColumnNames():
            assert len(one.readBlock(name, 0, 99)) == rows
            assert raw(place, url, name).shape == (rows,)
    assert stated(place, url) == rows
    # Corrected, it can be made wrong again.
    released(place, url).resize(5)
    assert len(rows_of(url)) == 5


def test_growing_after_the_released_module_erases_nothing(place):
    url = table(place)
    theirs = released(place, url)
    theirs.resize(9)
    theirs.write("a", np.arange(6, 10), 5)
    with RatZarr(url) as one:
        one.setRowCount(11)
    assert rows_of(url) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]
    assert rows_of(url, "b") == [1, 2, 3, 4, 5, *[0] * 6]


def test_an_instance_that_knew_the_columns_before_erases_nothing(place):
    """What it has seen of them is old, and so is the attribute."""
    url = table(place)
    with RatZarr(url) as one:
        assert len(one.readBlocks("ab", 0, 5)) == 2
        theirs = released(place, url)
        theirs.resize(9)
        theirs.write("a", np.arange(6, 10), 5)
        # It is a view of the table as it was.
        assert one.rowCount == 5
        one.setRowCount(11)
    assert rows_of(url) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]


def test_an_open_instance_sees_it_when_it_looks_again(place):
    url = table(place)
    with RatZarr(url) as one, RatZarr(url, readOnly=True) as reader:
        for instance in (one, reader):
            assert instance.readBlock("a", 0, 9).tolist() == [1, 2, 3, 4, 5]
        for rows in (9, 2):
            released(place, url).resize(rows)
            for instance in (one, reader):
                instance.refresh()
                assert instance.rowCount == rows
                assert len(instance.readBlock("a", 0, 99)) == rows


def test_rows_that_it_cut_do_not_come_back_with_our_growth(place):
    """zarr leaves them in the last chunk that stays."""
    url = table(place, rows=11)
    released(place, url).resize(1)
    with RatZarr(url) as one:
        one.setRowCount(11)
    assert rows_of(url) == [1] + [0] * 10
    assert raw(place, url, "a").tolist() == [1] + [0] * 10


def test_rows_that_it_added_and_cut_do_not_come_back(place):
    """Its columns end as long as they were."""
    url = table(place)
    theirs = released(place, url)
    theirs.resize(8)
    theirs.write("a", np.arange(6, 9), 5)
    theirs.resize(5)
    with RatZarr(url) as one:
        # Our own writing of the document is no sign that all is ours.
        one.getColumnAttributeMapping("a")["x"] = 1
    with RatZarr(url) as one:
        one.setRowCount(8)
    assert rows_of(url) == [1, 2, 3, 4, 5, 0, 0, 0]


def test_a_finished_column_that_it_shrinks_and_grows_can_be_read(place):
    """It removes chunks; zarr removes those of zeros as well: that is no damage then."""
    url = place.new()
    with make(url, 12, chunk=4) as one:
        one.createColumn("a", "i4", complete=False)
        one.writeBlock("a", np.arange(1, 13), 0)
        one.setComplete("a")
    theirs = released(place, url)
    theirs.resize(5)
    theirs.resize(12)
    theirs.write("a", np.zeros(4, "i4"), 0)
    wanted = rows_of(url)
    assert wanted == raw(place, url, "a").tolist()
    assert wanted[8:] == [0] * 4
    assert check_store(url) == []
    with RatZarr(url) as one:
        one.setRowCount(13)
    assert rows_of(url) == [*wanted, 0]
    assert check_store(url) == []


@pytest.mark.parametrize("rows", [2, 9])
def test_a_resize_of_its_that_was_killed(place, rows):
    """Columns of two lengths: the attribute stands, and no row of any column is lost."""
    url = table(place, names="abc")
    released(place, url).resize(rows, stop_after=1)
    with RatZarr(url, readOnly=True) as one:
        assert one.rowCount == 5
        assert one.readBlock("b", 0, 9).tolist() == [1, 2, 3, 4, 5]
    with RatZarr(url) as one:
        one.setRowCount(10)
        assert one.readBlock("b", 0, 10).tolist() == [1, 2, 3, 4, 5, *[0] * 5]
        kept = min(rows, 5)
        assert one.readBlock("a", 0, 10).tolist() == [*range(1, kept + 1), *[0] * (10 - kept)]
    assert check_store(url) == []


def test_rows_of_a_column_longer_than_the_others_stay(place):
    url = table(place)
    theirs = released(place, url)
    theirs.resize(9, stop_after=1)
    theirs.write("a", np.arange(6, 10), 5)
    found = check_store(url)
    assert {one.kind for one in found} == {"row-count"}
    check_store(url, repair=True)
    assert check_store(url) == []
    assert rows_of(url) == list(range(1, 10))
    assert rows_of(url, "b") == [1, 2, 3, 4, 5, 0, 0, 0, 0]


@pytest.mark.parametrize("rows", [2, 9])
def test_a_repair_writes_the_row_count_and_cuts_nothing(place, rows):
    url = table(place)
    theirs = released(place, url)
    theirs.resize(rows)
    theirs.write("a", np.arange(1, rows + 1), 0)
    [found] = check_store(url)
    assert (found.kind, found.key) == ("row-count", "RAT/zarr.json")
    assert str(rows) in found.words
    assert "5" in found.words
    assert stated(place, url) == 5
    assert [one.repaired for one in check_store(url, repair=True)] == [True]
    assert check_store(url) == []
    assert stated(place, url) == rows
    assert rows_of(url) == list(range(1, rows + 1))


def test_a_column_of_another_length_changes_nothing(place):
    """1.0.2 creates columns with the rows that it believes in."""
    url = table(place)
    theirs = released(place, url)
    with RatZarr(url) as one:
        one.setRowCount(8)
    theirs.create("late", "i4")
    assert len(rows_of(url, "late")) == 8
    with RatZarr(url) as one:
        one.setRowCount(9)
    assert raw(place, url, "late").shape == (9,)


def test_tables_without_columns(place):
    url = place.new()
    with RatZarr(url) as one:
        one.setRowCount(6)
    assert released(place, url).rows == 0
    with RatZarr(url, readOnly=True) as one:
        assert one.rowCount == 6
    # Its columns have the rows that it has set; that of ours is of before.
    theirs = released(place, url)
    theirs.rows = 3
    theirs.create("a", "i4")
    assert rows_of(url) == [0, 0, 0]
    with RatZarr(url) as one:
        one.deleteColumn("a")
    with RatZarr(url) as one:
        assert one.rowCount == 3


CREATOR = """
import sys
from ratzarr import RatZarr
table = RatZarr(sys.argv[1])
table.rowCount
print("open", flush=True)
sys.stdin.readline()
table.createColumn("late", "i4")
print("created", flush=True)
"""


@pytest.mark.parametrize("rows", [2, 9])
def test_a_killed_creator_of_ours_never_changes_the_row_count(local, rows):
    """It had seen 5 rows: killed before the column could follow, that is all there is to see."""
    url = local.new()
    with RatZarr(url) as one:
        one.setRowCount(5)
        creator = subprocess.Popen(
            [sys.executable, "-c", CREATOR, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            assert creator.stdout.readline() == "open\n"
            one.setRowCount(rows)
            # Nobody may write the table's document: so the creator stops after the column's own.
            key = os.path.join(url, "RAT", "zarr.json")
            with open(key, "rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                creator.stdin.write("\n")
                creator.stdin.flush()
                column = os.path.join(url, "RAT", "late", "zarr.json")
                until = time.monotonic() + 60
                while not os.path.exists(column) and time.monotonic() < until:
                    time.sleep(0.01)
                creator.send_signal(signal.SIGKILL)
                creator.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                creator.kill()
            creator.wait(60)
            creator.stdin.close()
            creator.stdout.close()
    assert document(local, url, "RAT/late")["shape"] == [5]
    assert stated(local, url) == rows
    assert rows_of(url, "late") == [0] * rows
    with RatZarr(url) as one:
        one.getRatAttributeMapping()["x"] = 1
        assert one.rowCount == rows
    assert stated(local, url) == rows
    # Neither does an event in its log; a resize by 1.0.2 does.
    with RatZarr(url) as one:
        one.writeBlock("late", [7], 0)
    assert len(rows_of(url, "late")) == rows
    released(local, url).resize(4)
    assert rows_of(url, "late") == [7, 0, 0, 0]


@pytest.mark.parametrize("rows", [2, 12])
def test_a_resize_of_ours_that_was_killed_and_then_one_of_theirs(place, rows):
    """Theirs is the later one: it is not undone."""
    url = table(place)
    contents = document(place, url, "RAT")
    contents["attributes"] |= {"ROWCOUNT": 7, "RESIZE": {"FROM": 5, "TO": 7, "ID": "0" * 16}}
    place.put(url, "RAT/zarr.json", json.dumps(contents).encode())
    theirs = released(place, url)
    theirs.resize(rows)
    theirs.write("a", np.arange(1, rows + 1), 0)
    check_store(url, repair=True)
    assert check_store(url) == []
    assert rows_of(url) == list(range(1, rows + 1))
    with RatZarr(url) as one:
        one.setRowCount(13)
    assert rows_of(url) == [*range(1, rows + 1), *[0] * (13 - rows)]


def test_a_resize_of_ours_that_was_killed_is_finished_after_writes_of_theirs(place):
    url = table(place)
    contents = document(place, url, "RAT")
    contents["attributes"] |= {"ROWCOUNT": 2, "RESIZE": {"FROM": 5, "TO": 2, "ID": "0" * 16}}
    place.put(url, "RAT/zarr.json", json.dumps(contents).encode())
    released(place, url).write("a", np.array([9]), 0)
    with RatZarr(url) as one:
        assert one.rowCount == 2
        one.setRowCount(6)
    assert rows_of(url) == [9, 2, 0, 0, 0, 0]


def test_a_write_buffer_and_a_resize_of_theirs(place):
    url = table(place)
    released(place, url).resize(9)
    with RatZarr(url, writeBuffer=True) as one:
        one.writeBlock("a", [6, 7], 5)
        one.writeBlock("b", [8], 8)
    assert rows_of(url) == [1, 2, 3, 4, 5, 6, 7, 0, 0]
    assert rows_of(url, "b") == [1, 2, 3, 4, 5, 0, 0, 0, 8]


def test_asking_again_asks_the_server_nothing(counted_s3):
    place, proxy = counted_s3
    url = table(place)
    released(place, url).resize(9)
    with RatZarr(url, readOnly=True) as one:
        assert one.rowCount == 9
        proxy.clear()
        for _ in range(3):
            assert (one.rowCount, one.getRowCount()) == (9, 9)
            repr(one)
        assert not proxy.requests
