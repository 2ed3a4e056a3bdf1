"""What a look at a whole store says, and what a repair does and leaves alone."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import MemoryStore, WrapperStore

from ratzarr import (
    ChangedError,
    DamagedError,
    FormatVersionError,
    NotARatZarrError,
    RatZarr,
    StoreError,
    TableNotFoundError,
    maintenance,
)
from ratzarr.concurrency import stream
from ratzarr.format.names import to_json
from ratzarr.maintenance.repair import REMOVING
from ratzarr.testing.helpers import BYTES, STRING

ROWS, CHUNK = 95, 10
COPY = {"PROVENANCE": {"operation": "copy"}}


@pytest.fixture(params=["local", "s3"])
def place(request):
    return request.getfixturevalue("local" if request.param == "local" else "moto_s3")


def check_store(url, **options):
    """Check a store, and wait less than usual for others that might be repairing it."""
    return maintenance.check_store(url, **({"patience": 0.05} | options))


def make(place, url=None, **columns):
    """Return where a table is now, with these columns."""
    url = url or place.new()
    with RatZarr(url) as table:
        table.setChunkSize(CHUNK)
        table.setRowCount(ROWS)
        for name, dtype in columns.items():
            table.createColumn(name, dtype)
            table.writeBlock(name, values(dtype), 0)
    return url


def values(dtype):
    if dtype == "str":
        return [f"größe {n}" for n in range(ROWS)]
    return np.arange(ROWS).astype(dtype)


def bulk(url, name, dtype="int32", *, rows=(0, ROWS), done=True, attributes=None, replace=False):
    """Write a column as a bulk writer does; unfinished, unless ``done``."""
    with RatZarr(url) as table:
        table.createColumn(name, dtype, complete=False, attributes=attributes, replace=replace)
        start, stop = rows
        if stop > start:
            table.writeBlock(name, values(dtype)[start:stop], start)
        if done:
            table.setComplete(name)


def edit(place, url, key, change):
    """Change a document, and give it the checksum that its writer would have given it."""
    document = json.loads(place.content(url, f"{key}/zarr.json"))
    change(document)
    place.put(url, f"{key}/zarr.json", to_json(document))


def kinds(found):
    return [one.kind for one in found]


def only(found):
    [one] = found
    return one


def refuses_to_change(place, url):
    """Return what a dry run finds; nothing has changed."""
    before = place.everything()
    found = check_store(url, repair=True, dry_run=True)
    assert place.everything() == before
    assert check_store(url) == found
    assert place.everything() == before
    assert not any(one.repaired for one in found)
    return found


def repaired(place, url):
    """Repair; return what was done and what is still found."""
    dry = refuses_to_change(place, url)
    done = check_store(url, repair=True)
    assert [(one.kind, one.key) for one in done] == [(one.kind, one.key) for one in dry]
    assert {one.repaired for one in done if one.repair} <= {True}
    assert not any(one.repaired for one in done if not one.repair)
    return done, check_store(url)


# ---- nothing wrong


def test_a_table_that_is_whole(place):
    url = make(place, a="int32", s="str", f="float64")
    bulk(url, "bulk")
    bulk(url, "a", "int16", replace=True)
    with RatZarr(url) as table:
        table.createColumn("wide", "uint8", 3)
        table.writeBlock("wide", np.ones((4, 3)), 33)
        table.createColumn("bytes", BYTES)
        table.createColumn("when", "datetime64[s]")
        table.createColumn("never written", STRING)
        table.createColumn("a/b%2F", "bool")
    assert refuses_to_change(place, url) == []


@pytest.mark.parametrize("rows", [0, 1, 40, 200])
def test_a_table_that_was_resized(local, rows):
    """Rows that were cut off leave nothing that would be called wrong."""
    place = local
    url = make(place, a="int32", s="str")
    with RatZarr(url) as table:
        table.setRowCount(rows)
    assert refuses_to_change(place, url) == []


def test_an_empty_table(place):
    url = make(place)
    assert refuses_to_change(place, url) == []


def test_the_golden_stores():
    """Upstream's has no checksums in its chunks: worth a note, and nothing is wrong with it."""
    data = Path(__file__).parents[2] / "data"
    assert check_store(f"{data}/golden-v1.zarr") == []
    found = check_store(f"{data}/upstream-1.0.2.zarr")
    assert {one.kind for one in found} == {"unchecked"}
    assert not any(one.wrong for one in found)


def test_what_is_no_table(place):
    with pytest.raises(TableNotFoundError):
        check_store(place.new())
    url = place.new()
    place.create(url)["x"] = np.arange(3)
    before = place.everything()
    with pytest.raises((NotARatZarrError, TableNotFoundError)):
        check_store(url, repair=True)
    url = make(place)
    edit(place, url, "RAT", lambda d: d["attributes"].update({"FORMAT_VERSION": 99}))
    with pytest.raises(FormatVersionError):
        check_store(url, repair=True)
    assert before.items() <= place.everything().items()


# ---- damage


def test_a_flipped_bit_and_a_cut(place):
    dtype = "int32"
    url = make(place, a=dtype, b="int32")
    for key, rows in (("RAT/a/c/3", (30, 40)), ("RAT/a/c/9", (90, 95))):
        good = place.content(url, key)
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 16
        for bad in (bytes(flipped), good[:-1], b"", good + b"\0", bytes(len(good))):
            place.put(url, key, bad)
            one = only(check_store(url))
            assert (one.kind, one.key, one.column, one.rows) == ("damaged", key, "a", rows)
            assert one.wrong
            assert one.repair is None
        place.put(url, key, good)
    assert check_store(url) == []


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", ["default", "v2"])
def test_chunks_whose_keys_are_encoded_otherwise(local, name, separator):
    url = local.new()
    table = local.create(url).create_group("RAT", attributes={"ROWCOUNT": 6})
    encoding = {"name": name, "separator": separator}
    for column, shape in (("a", (6,)), ("w", (6, 2))):
        made = table.create_array(
            column, shape=shape, chunks=(4, *shape[1:]), dtype="i4", chunk_key_encoding=encoding
        )
        made[:] = 1
    assert {one.kind for one in check_store(url)} == {"unchecked"}
    keys = sorted(key for key in local.objects(url) if not key.endswith("zarr.json"))
    assert len(keys) == 4
    for key in keys:
        good = local.content(url, key)
        local.put(url, key, good[:-1])
        one = only([one for one in check_store(url) if one.wrong])
        assert (one.kind, one.key, one.column) == ("damaged", key, key.split("/")[1])
        local.put(url, key, good)


def test_damage_is_not_repaired(place):
    url = make(place, a="int32")
    bad = place.content(url, "RAT/a/c/3")[:-3]
    place.put(url, "RAT/a/c/3", bad)
    before = place.everything()
    assert kinds(check_store(url, repair=True)) == ["damaged"]
    assert place.everything() == before


@pytest.mark.parametrize("key", ["zarr.json", "RAT/zarr.json", "RAT/a/zarr.json"])
def test_a_damaged_document(local, key):
    place = local
    url = make(place, a="int32", b="int32")
    good = place.content(url, key)
    for bad in (good.replace(b"group", b"groop"), good[:-40], b"", b"[]", b"\xff" * 40):
        if bad == good:
            continue
        place.put(url, key, bad)
        found = [one for one in refuses_to_change(place, url) if one.wrong]
        assert [(one.kind, one.key) for one in found] == [("damaged", key)]
        assert found[0].column == ("a" if "/a/" in key else None)
    for change in (
        lambda d: d.update(shape="x"),
        lambda d: d.update(codecs=[{"name": "nonesuch"}]),
        lambda d: d.update(data_type="int33"),
        lambda d: d.pop("chunk_grid"),
        lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0]),
    ):
        if key == "RAT/a/zarr.json":
            place.put(url, key, good)
            edit(place, url, "RAT/a", change)
            one = only([one for one in check_store(url) if one.wrong])
            assert (one.key, one.column) == (key, "a")
            assert one.kind == ("unreadable" if "nonesuch" in one.words else "damaged")


def test_after_a_cut_on_s3(moto_s3):
    """Chunks can't be removed on condition there: empty ones lie beyond the end."""
    url = make(moto_s3, a="int32", s="str")
    with RatZarr(url) as table:
        table.setRowCount(41)
    assert [key for key in moto_s3.objects(url) if key.endswith("a/c/7")]
    assert refuses_to_change(moto_s3, url) == []


def test_fill_values_that_end_in_zeros_after_a_cut_on_s3(moto_s3):
    """numpy drops these zeros where it compares an array with a string of Python's."""
    url = moto_s3.new()
    with RatZarr(url, newRowCount=6, newChunkSize=2) as table:
        for name, dtype, fill in (("text", str, "a\0"), ("bytes", bytes, b"\0")):
            table.createColumn(name, dtype, fillValue=fill)
            table.writeBlock(name, [fill] * 6, 0)
        table.setRowCount(1)
    assert refuses_to_change(moto_s3, url) == []


def test_a_document_that_can_not_be_read(counted_s3):
    """It is there, for all we know: its chunks are nobody's leftovers."""
    place, proxy = counted_s3
    url = make(place, a="int32")
    before = place.everything()

    def refuse(status):
        proxy.instead = lambda method, key: (
            status if method == "GET" and key.endswith("/a/zarr.json") else None
        )

    refuse(403)
    one = only(check_store(url, repair=True))
    assert (one.kind, one.key) == ("unreadable", "RAT/a/zarr.json")
    # And if the server says that it is not there, its name can't be taken all the same.
    refuse(404)
    found = check_store(url, repair=True)
    assert kinds(found) == ["leftover", "order"]
    assert not found[0].repaired
    proxy.instead = lambda method, key: None
    check_store(url, repair=True)
    assert {k: v for k, v in place.everything().items() if not k.endswith("RAT/zarr.json")} == {
        k: v for k, v in before.items() if not k.endswith("RAT/zarr.json")
    }
    assert check_store(url) == []


def test_chunks_of_a_column_that_we_can_not_unpack(local):
    url = make(local, a="int32")
    edit(
        local, url, "RAT/a",
        lambda d: d["codecs"].insert(1, {"name": "transpose", "configuration": {"order": [0]}}),
    )  # fmt: skip
    before = local.everything()
    found = check_store(url, repair=True)
    assert {one.kind for one in found} <= {"unreadable", "damaged"}
    assert found
    assert local.everything() == before


def test_a_missing_document(place):
    url = make(place, a="int32")
    for key in ("zarr.json", "RAT/zarr.json"):
        good = place.content(url, key)
        place.remove(url, key)
        one = only(refuses_to_change(place, url))
        assert (one.kind, one.key, one.wrong) == ("missing", key, True)
        place.put(url, key, good)


def test_chunks_that_can_not_be_read(counted_s3):
    """A server that refuses says nothing of the chunk: it is not called damaged."""
    place, proxy = counted_s3
    url = make(place, a="int32")
    proxy.instead = lambda method, key: 403 if key.endswith("/c/3") else None
    one = only(check_store(url))
    assert (one.kind, one.key, one.rows) == ("unreadable", "RAT/a/c/3", (30, 40))


def test_a_chunk_of_another_dtype(place):
    url = make(place, a="int32", b="int16")
    place.put(url, "RAT/a/c/3", place.content(url, "RAT/b/c/3"))
    one = only([one for one in check_store(url) if one.kind == "damaged"])
    assert (one.key, one.column, one.rows) == ("RAT/a/c/3", "a", (30, 40))


def test_rows_of_an_earlier_column(moto_s3):
    """On S3 each chunk says whose it is."""
    url = make(moto_s3, a="int32")
    late = RatZarr(url)
    late.readBlock("a", 0, 1)
    late.writeBlock("a", np.arange(10), 0)
    with RatZarr(url) as table:
        table.deleteColumn("a")
        table.createColumn("a", "int32")
        table.writeBlock("a", np.arange(ROWS), 0)
    with suppress(ChangedError):
        late.writeBlock("a", np.arange(10), 20)
        late.close()
    one = only(refuses_to_change(moto_s3, url))
    assert (one.kind, one.key, one.rows) == ("stale", "RAT/a/c/2", (20, 30))
    assert one.repair is None


# ---- what is not there


def test_missing_chunks_are_told_in_runs(place):
    url = make(place, sparse="int32")
    bulk(url, "a")
    for chunk in (2, 3, 4, 7, 9):
        place.remove(url, f"RAT/a/c/{chunk}")
    place.remove(url, "RAT/sparse/c/4")
    found = refuses_to_change(place, url)
    assert [(one.kind, one.key, one.rows) for one in found] == [
        ("missing", "RAT/a/c/2", (20, 50)),
        ("missing", "RAT/a/c/7", (70, 80)),
        ("missing", "RAT/a/c/9", (90, 95)),
    ]
    assert "c/4" in found[0].words
    # As a reader finds it, too.
    with RatZarr(url, readOnly=True) as table, pytest.raises(DamagedError, match="missing"):
        table.readBlock("a", 0, ROWS)


def test_an_unfinished_column(place):
    url = make(place)
    bulk(url, "a", rows=(20, 50), done=False, attributes=COPY)
    one = only(refuses_to_change(place, url))
    assert (one.kind, one.key, one.column, one.rows) == ("unfinished", "RAT/a", "a", (0, ROWS))
    assert "30 of 95 rows" in one.words
    assert "rows 0 to 19, rows 50 to 94" in one.words
    assert "resume" in one.words
    assert one.repair is None


@pytest.mark.parametrize("attributes", [None, {"PROVENANCE": {"operation": "apply"}}, {}])
def test_whoever_may_write_parts_of_chunks_is_not_declared_done(local, attributes):
    place = local
    url = make(place)
    bulk(url, "a", done=False, attributes=attributes)
    before = place.everything()
    assert kinds(check_store(url, repair=True)) == ["unfinished"]
    assert place.everything() == before


def test_a_copy_that_only_lacks_the_last_word(place):
    url = make(place)
    bulk(url, "a", done=False, attributes=COPY)
    done, left = repaired(place, url)
    assert kinds(done) == ["unfinished"]
    assert left == []
    with RatZarr(url, readOnly=True) as table:
        assert table.readBlock("a", 0, ROWS).tolist() == list(range(ROWS))


def test_a_damaged_copy_is_not_declared_done(place):
    url = make(place)
    bulk(url, "a", done=False, attributes=COPY)
    place.put(url, "RAT/a/c/3", place.content(url, "RAT/a/c/3")[:-1])
    before = place.everything()
    assert sorted(kinds(check_store(url, repair=True))) == ["damaged", "unfinished"]
    assert place.everything() == before


# ---- replacements


def test_a_replacement_that_is_not_finished(place):
    url = make(place, a="int32")
    bulk(url, "a", "int16", rows=(0, 50), done=False, attributes=COPY, replace=True)
    before = place.everything()
    one = only(check_store(url, repair=True))
    assert re.fullmatch(r"\.pending/a/[0-9a-f]{16}", one.key)
    assert (one.kind, one.column, one.repair) == ("unfinished", "a", None)
    assert "50 of 95 rows" in one.words
    assert place.everything() == before


def pending(place, url):
    """Return the prefix of the one column that is to replace another."""
    [prefix] = {
        "/".join(key.split("/")[:3]) for key in place.objects(url) if key.startswith(".pending/")
    }
    return prefix


@pytest.mark.parametrize("said", [True, False])
def test_a_replacement_that_was_not_put_in_its_place(place, said):
    """Killed after its last chunk, or after it was said to be complete."""
    url = make(place, a="int32", b="str")
    bulk(url, "a", "int16", done=False, attributes=COPY, replace=True)
    if said:
        edit(
            place, url, pending(place, url),
            lambda d: d["attributes"].update({"COMPLETE": True, "ROWS_DONE": ROWS}),
        )  # fmt: skip
    done, left = repaired(place, url)
    assert [one.repair for one in done] == ["move it into place"]
    assert left == []
    with RatZarr(url, readOnly=True) as table:
        assert table.getColumnDtype("a") == np.int16
        assert table.readBlock("a", 0, ROWS).tolist() == list(range(ROWS))
    assert not any(key.startswith(".pending") for key in place.objects(url))


REPLACES = """
import sys
from tests.ratzarr.maintenance.test_check import COPY, bulk
bulk(sys.argv[1], "a", "int16", attributes=COPY, replace=True)
"""


@pytest.mark.parametrize("allowed", [0, 5])
def test_a_replacement_half_put_in_its_place(counted_s3, allowed):
    """On S3 that takes many requests; killed anywhere in between, it can be finished."""
    place, proxy = counted_s3
    url = make(place, a="int32")
    started, copied = threading.Event(), itertools.count()

    def kill(method, key):
        if method == "PUT" and "/RAT/a/c/" in key and next(copied) >= allowed:
            started.wait(30)
            process.kill()
            return 503
        return None

    proxy.instead = kill
    process = subprocess.Popen([sys.executable, "-c", REPLACES, url])
    started.set()
    assert process.wait(60) == -signal.SIGKILL
    proxy.instead = None
    done, left = repaired(place, url)
    assert "move it into place" in [one.repair for one in done]
    assert left == []
    with RatZarr(url, readOnly=True) as table:
        assert table.getColumnDtype("a") == np.int16
        assert table.readBlock("a", 0, ROWS).tolist() == list(range(ROWS))


def test_who_is_just_putting_it_in_its_place_is_left_alone(place):
    """Two that do it at once would undo each other's work."""
    url = make(place, a="int32")
    bulk(url, "a", "int16", done=False, attributes=COPY, replace=True)
    prefix, over = pending(place, url), threading.Event()

    def goes_on():
        for chunk in itertools.count(777):
            place.put(url, f"{prefix}/c/{chunk}", b"x")
            if over.wait(0.02):
                return

    at_work = threading.Thread(target=goes_on)

    def begin(done, message):
        # All is read: what comes now is the repair.
        if done == 1 and not at_work.ident:
            at_work.start()

    try:
        found = check_store(url, repair=True, patience=0.5, progress=begin)
    finally:
        over.set()
        at_work.join()
    assert not any(one.repaired for one in found)
    assert "another process" in found[0].words
    with RatZarr(url, readOnly=True) as table:
        assert table.getColumnDtype("a") == np.int32


def test_what_was_replaced_and_not_removed(place):
    """What is left in .pending after the exchange: the old column, or a twin of the new one."""
    url = make(place, a="int32")
    for key, content in place.objects(url).items():
        if key.startswith("RAT/a/"):
            place.put(url, f".pending/a/{'ab' * 8}/{key.removeprefix('RAT/a/')}", content)
    column_id = json.loads(place.content(url, "RAT/a/zarr.json"))["attributes"]["COLUMN_ID"]
    for key, content in place.objects(url).items():
        if key.startswith("RAT/a/"):
            place.put(url, f".pending/a/{column_id}/{key.removeprefix('RAT/a/')}", content)
    place.put(url, f".pending/a/{'cd' * 8}/c/4", b"chunk of none")
    before = {key: value for key, value in place.objects(url).items() if key[0] != "."}
    done, left = repaired(place, url)
    assert kinds(done) == ["leftover"] * 3
    assert left == []
    assert place.objects(url) == before


# ---- leftovers


def test_chunks_of_no_column(place):
    url = make(place, a="int32")
    for chunk in (0, 3, 12):
        place.put(url, f"RAT/gone/c/{chunk}", b"anything")
    before = {k: v for k, v in place.objects(url).items() if "gone" not in k}
    done, left = repaired(place, url)
    assert kinds(done) == ["leftover"]
    assert left == []
    assert place.objects(url) == before
    with RatZarr(url) as table:
        table.createColumn("gone", "int32")
        assert table.readBlock("gone", 0, ROWS).tolist() == [0] * ROWS


def test_chunks_that_become_a_columns_meanwhile_are_left(place):
    """A column that is created between the look and the repair keeps its chunks."""
    url = make(place, a="int32")
    place.put(url, "RAT/b/c/0", b"anything")
    document = place.content(url, "RAT/a/zarr.json")
    chunk = place.content(url, "RAT/a/c/0")

    def meanwhile(done, message):
        if message == "remove them":
            place.put(url, "RAT/b/zarr.json", document)
            place.put(url, "RAT/b/c/0", chunk)

    found = check_store(url, repair=True, progress=meanwhile)
    assert not any(one.repaired for one in found)
    assert place.content(url, "RAT/b/c/0") == chunk


def test_a_removal_that_was_interrupted(moto_s3):
    """On S3 the name is taken while the chunks go; what is left of that goes as well."""
    place = moto_s3
    url = make(place, a="int32")
    before = place.objects(url)
    for chunks in ((), (1, 2)):
        place.put(url, "RAT/gone/zarr.json", to_json(REMOVING))
        for chunk in chunks:
            place.put(url, f"RAT/gone/c/{chunk}", b"anything")
        with RatZarr(url, readOnly=True) as table:
            assert table.getColumnNames() == ["a"]
        done, left = repaired(place, url)
        assert kinds(done) == ["leftover"]
        assert left == []
        assert place.objects(url) == before


def test_chunks_beyond_the_end_and_impossible_ones(place):
    url = make(place, a="int32")
    chunk = place.content(url, "RAT/a/c/0")
    for key in ("10", "4611686018427387904", "01", "0/0"):
        place.put(url, f"RAT/a/c.{key}" if key == "0/0" else f"RAT/a/c/{key}", chunk)
    done, left = repaired(place, url)
    assert set(kinds(done)) == {"leftover"}
    assert len(done) == 2
    if place.kind == "s3":
        # Emptied, not removed: nothing can be removed on condition there.
        assert [one.kind for one in left] in ([], ["leftover"])
    with RatZarr(url) as table:
        assert table.readBlock("a", 0, ROWS).tolist() == list(range(ROWS))
        table.setRowCount(200)
        assert table.readBlock("a", ROWS, 200).tolist() == [0] * 105


def test_chunks_beyond_the_end_that_rows_come_to_are_left(place):
    url = make(place, a="int32")
    place.put(url, "RAT/a/c/10", place.content(url, "RAT/a/c/0"))

    def meanwhile(done, message):
        if message == "empty them":
            with RatZarr(url) as table:
                table.setRowCount(200)
                table.writeBlock("a", np.full(10, 7), 100)

    assert not any(one.repaired for one in check_store(url, repair=True, progress=meanwhile))
    with RatZarr(url) as table:
        assert table.readBlock("a", 95, 15).tolist() == [0] * 5 + [7] * 10


def test_foreign_objects_are_named_and_never_removed(place):
    url = make(place, a="int32")
    for key in (
        "README", "RAT/a/c/zz", "RAT/notes.txt", "other/x/1", "other/x/2", "RAT/x/y/c/0",
        "RAT/a/7", "RAT/x/7.0",
    ):  # fmt: skip
        place.put(url, key, b"precious")
    done, left = repaired(place, url)
    assert set(kinds(done)) == {"foreign"}
    assert not any(one.wrong for one in done)
    assert left == done
    assert any("other/x" in one.key and "1 more" in one.words for one in done)


def test_names_that_only_look_like_ours_are_left(local):
    """Only what has the form of a temporary name is one."""
    url = make(local, a="int32")
    for key in (".pending/notes.txt", "RAT/.hidden", "RAT/a/c/1.txt", ".x.partial.txt"):
        local.put(url, key, b"precious")
    _, left = repaired(local, url)
    assert set(kinds(left)) == {"foreign"}


# ---- what only a local disk has

HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_what_killed_writers_leave_on_a_disk(local):
    url = make(local, a="int32")
    before = local.objects(url)
    dead, alive = f".{'0' * 32}.partial", f".{'1' * 32}.partial"
    local.put(url, dead, b"half")
    local.put(url, f".{'2' * 32}.deleted/c/0", b"chunk")
    os.makedirs(f"{url}/.{'3' * 32}.deleted")
    os.makedirs(f"{url}/RAT/empty/c")
    os.makedirs(f"{url}/.pending/x/{'4' * 16}/c")
    young, old = f"RAT/a/c/0.{'5' * 32}.partial", f"RAT/a/c/1.{'6' * 32}.partial"
    for key in (young, old):
        local.put(url, key, b"zarr's")
    os.utime(f"{url}/{old}", (1, 1))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, f"{url}/{alive}"], stdin=-1, stdout=-1, text=True
    ) as writer:
        assert writer.stdout.readline() == "held\n"
        done, left = repaired(local, url)
        assert sorted(one.key for one in done) == sorted(
            [dead, f".{'2' * 32}.deleted", f".{'3' * 32}.deleted", "RAT/empty", old]
        )
        assert set(kinds(done)) == {"leftover"}
        assert left == []
        assert os.path.exists(f"{url}/{alive}")
        writer.stdin.close()
    assert [one.key for one in check_store(url, repair=True)] == [alive]
    assert local.objects(url) == before | {young: b"zarr's"}


def test_symbolic_links_are_named_and_not_followed(local):
    url = make(local, a="int32")
    target = local.new("precious")
    make(local, target, a="int32")
    before = local.objects(target)
    os.remove(f"{url}/RAT/a/c/3")
    os.symlink(f"{target}/RAT/a/c/3", f"{url}/RAT/a/c/3")
    os.symlink(f"{target}/RAT/a", f"{url}/RAT/linked")
    os.symlink(target, f"{url}/other")
    os.symlink("/nowhere", f"{url}/RAT/a/c/77")
    found = refuses_to_change(local, url)
    assert {one.kind for one in found} == {"link"}
    assert {one.key for one in found} == {
        "RAT/a/c/3", "RAT/linked/zarr.json", "other", "RAT/a/c/77",
    }  # fmt: skip
    assert kinds(check_store(url, repair=True)) == ["link"] * 4
    assert local.objects(target) == before
    assert os.path.islink(f"{url}/RAT/linked")


def test_what_is_no_file(local):
    url = make(local, a="int32")
    os.remove(f"{url}/RAT/a/c/3")
    os.mkfifo(f"{url}/RAT/a/c/3")
    one = only(check_store(url))
    assert (one.kind, one.key) == ("link", "RAT/a/c/3")
    assert "not a file" in one.words


# ---- the table's own attributes


def test_the_order_of_columns(place):
    url = make(place, a="int32", b="int32", c="int32")
    edit(
        place, url, "RAT",
        lambda d: d["attributes"].update(COLUMN_ORDER=["gone", "b", "a", "b", "", "x/y"]),
    )  # fmt: skip
    done, left = repaired(place, url)
    assert set(kinds(done)) == {"order"}
    assert not any(one.wrong for one in done)
    assert left == []
    document = json.loads(place.content(url, "RAT/zarr.json"))
    assert document["attributes"]["COLUMN_ORDER"] == ["b", "a", "c"]


def test_columns_of_other_lengths(place):
    url = make(place, a="int32", b="int32", c="int32")
    edit(place, url, "RAT/a", lambda d: d["shape"].__setitem__(0, 50))
    edit(place, url, "RAT/b", lambda d: d["shape"].__setitem__(0, 120))
    found = refuses_to_change(place, url)
    rows = {one.column: one.rows for one in found}
    assert rows == {"a": (50, 95), "b": (95, 120)}
    done, left = repaired(place, url)
    assert kinds(done) == ["row-count"] * 2
    assert left == []
    with RatZarr(url, readOnly=True) as table:
        # It was the document that was wrong: no value was removed that it did not know of.
        for name in "abc":
            assert table.readBlock(name, 0, ROWS).tolist() == list(range(ROWS))
    assert place.open(url)["RAT/b"].shape == (ROWS,)


def test_a_resize_that_was_interrupted(place):
    url = make(place, a="int32", s="str")
    edit(
        place, url, "RAT",
        lambda d: d["attributes"].update(
            ROWCOUNT=43, RESIZE={"FROM": ROWS, "TO": 43, "ID": "00" * 8}
        ),
    )  # fmt: skip
    done, left = repaired(place, url)
    assert kinds(done) == ["resize"]
    assert left == []
    assert place.open(url)["RAT/a"][:].tolist() == list(range(43))
    assert place.open(url)["RAT/s"].shape == (43,)


def test_a_cut_that_was_interrupted(place):
    url = make(place, a="int32")
    edit(place, url, "RAT", lambda d: d["attributes"].update(ROWCOUNT=43))
    edit(place, url, "RAT/a", lambda d: d["attributes"].update(CUTTING=43))
    done, left = repaired(place, url)
    assert kinds(done) == ["row-count"]
    assert left == []
    assert place.open(url)["RAT/a"][:].tolist() == list(range(43))


def test_a_repair_that_can_not_be_done_says_why(place):
    url = make(place, a="int32", b="int32")
    place.put(url, "RAT/b/zarr.json", b"{}")
    edit(place, url, "RAT/a", lambda d: d["shape"].__setitem__(0, 50))
    found = {one.kind: one for one in check_store(url, repair=True)}
    assert not found["row-count"].repaired
    assert "not repaired" in found["row-count"].words
    assert found["damaged"].column == "b"


# ---- numbers that somebody wrote


def test_numbers_beyond_all_bounds(place):
    """Neither time nor memory goes with what a document claims."""
    url = make(place)
    bulk(url, "a")
    many = 2**62
    edit(place, url, "RAT", lambda d: d["attributes"].update(ROWCOUNT=many))
    edit(
        place, url, "RAT/a",
        lambda d: (d["shape"].__setitem__(0, many), d["attributes"].update(ROWS_DONE=many)),
    )  # fmt: skip
    start = time.monotonic()
    one = only(check_store(url))
    assert time.monotonic() - start < 10
    assert (one.kind, one.key, one.rows) == ("missing", "RAT/a/c/10", (100, many))


@pytest.mark.parametrize("rows", [1000, 2**40])
def test_chunks_of_claimed_sizes(local, rows):
    """A chunk is as large as it is, whatever its document says of it."""
    url = make(local, a="int32", s="str")
    for key in ("RAT/a", "RAT/s"):
        edit(
            local, url, key,
            lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[rows]),
        )  # fmt: skip
    kind = "damaged" if rows == 1000 else "unreadable"
    found = [(one.kind, one.key) for one in check_store(url) if one.key.endswith("/c/0")]
    assert found == [(kind, "RAT/a/c/0"), (kind, "RAT/s/c/0")]


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99, 1])
def test_missing_chunks_are_those_that_were_removed(local, part):
    url = local.new()
    with RatZarr(url) as table:
        table.setChunkSize(1)
        table.setRowCount(300)
        table.createColumn("a", "int8", complete=False)
        table.writeBlock("a", np.ones(300, "i1"), 0)
        table.setComplete("a")
    random = np.random.default_rng(3)
    removed = set(random.choice(300, round(part * 300), replace=False).tolist())
    for chunk in removed:
        local.remove(url, f"RAT/a/c/{chunk}")
    found = check_store(url)
    assert {one.kind for one in found} <= {"missing"}
    rows = [row for one in found for row in range(*one.rows)]
    assert rows == sorted(removed)
    # A run of missing chunks is one finding.
    starts = removed - {chunk + 1 for chunk in removed}
    assert [one.key for one in found] == [f"RAT/a/c/{chunk}" for chunk in sorted(starts)]


def test_a_stream_of_tasks_is_drawn_as_it_is_used():
    drawn, most = 0, 0

    def tasks():
        nonlocal drawn
        for number in range(500):
            drawn += 1
            yield lambda number=number: number

    for taken, number in enumerate(stream(tasks(), window=7)):
        assert number == taken
        most = max(most, drawn - taken)
    assert (taken, drawn) == (499, 500)
    assert most <= 8

    def failing():
        yield lambda: 1
        yield lambda: 1 / 0
        yield from tasks()

    with pytest.raises(ZeroDivisionError):
        list(stream(failing(), window=3))
    first = stream(tasks(), window=3)
    assert next(first) == 0
    first.close()
    assert list(stream([])) == []


MEMORY = """
import sys
from tests.memory import peak
from ratzarr.maintenance.check import check_store
assert check_store(sys.argv[1]) == []
print(peak())
"""


def test_memory_does_not_grow_with_rows(local):
    peaks = []
    # So many that each thread has had its share of chunks, and malloc has kept what they took.
    for chunks in (400, 2000):
        url = local.new()
        rows = chunks * 100_000
        with RatZarr(url) as table:
            table.setChunkSize(100_000)
            table.setRowCount(rows)
            table.createColumn("a", "float64")
            table.writeBlock("a", np.random.default_rng(0).random(100_000), 0)
        for chunk in range(1, chunks):
            os.link(f"{url}/RAT/a/c/0", f"{url}/RAT/a/c/{chunk}")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, url], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    # All values of the larger one are 1.6 GB.
    assert peaks[1] < peaks[0] + 60, peaks


# ---- others at work


def test_a_table_that_others_are_writing(local):
    """Nothing is called wrong that is only being done; and a repair harms nobody."""
    url = make(local, fixed="int32")
    stop = threading.Event()
    failures = []

    def work():
        try:
            with RatZarr(url) as table:
                for number in range(10_000):
                    if stop.is_set():
                        return
                    name = f"c{number % 3}"
                    if table.colExists(name):
                        table.deleteColumn(name)
                    table.createColumn(name, "int32", complete=False, attributes=COPY)
                    table.writeBlock(name, np.full(ROWS, number), 0)
                    table.setComplete(name)
                    assert table.readBlock(name, 0, ROWS).tolist() == [number] * ROWS
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for _ in range(25):
            found = check_store(url, repair=True)
            # What is in the making is "unfinished", and nothing else is anything.
            assert {one.kind for one in found if one.wrong} <= {"unfinished", "leftover"}, found
    finally:
        stop.set()
        writer.join()
    assert failures == []
    check_store(url, repair=True)
    assert [one for one in check_store(url) if one.wrong] == []
    assert local.open(url)["RAT/fixed"][:].tolist() == list(range(ROWS))


def test_a_column_that_changes_while_it_is_looked_at(place):
    """What is gone, or another, by the second look was not wrong."""
    url, rows = place.new(), 60
    with RatZarr(url, newRowCount=rows, newChunkSize=1) as table:
        for name in "ab":
            table.createColumn(name, "int32")
            table.writeBlock(name, np.arange(rows), 0)
    changed = []

    def meanwhile(done, message):
        if not changed:
            changed.append(done)
            with RatZarr(url) as table:
                table.deleteColumn("a")
                table.createColumn("a", "str")
                table.writeBlock("a", np.array(["new"] * rows), 0)
                table.deleteColumn("b")

    assert [one for one in check_store(url, progress=meanwhile) if one.wrong] == []
    assert changed[0] < 0.5


class ListsNothing(WrapperStore):
    """As a web server: what is asked for by its name is there."""

    async def list_prefix(self, prefix):
        for key in ():
            yield key


def test_places_that_list_nothing():
    """Chunks that a listing leaves out are not called missing."""
    store = MemoryStore()
    with RatZarr(store, newRowCount=ROWS, newChunkSize=CHUNK) as table:
        table.createColumn("a", "int32")
        table.writeBlock("a", np.arange(ROWS), 0)
    assert check_store(store) == []
    with pytest.raises(StoreError, match="listed"):
        check_store(ListsNothing(store))


def test_progress(place):
    url = make(place, a="int32", b="int32")
    told = []
    check_store(url, progress=lambda done, message: told.append((done, message)))
    assert told
    assert all(0 <= done <= 1 for done, _ in told)
    assert sorted(told, key=lambda one: one[0]) == told


def test_findings_in_words(local):
    url = make(local, **{"Band mean": "int32"})
    local.put(url, "RAT/Band mean/c/3", b"x")
    one = only(check_store(url))
    assert str(one).startswith("RAT/Band mean/c/3, column 'Band mean', rows 30 to 39: ")
    assert json.loads(json.dumps(one.as_dict())) == {
        "kind": "damaged", "wrong": True, "object": "RAT/Band mean/c/3", "column": "Band mean",
        "rows": [30, 40], "words": one.words, "repair": None, "repaired": False,
    }  # fmt: skip
