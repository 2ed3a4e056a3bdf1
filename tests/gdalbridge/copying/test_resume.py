"""Copies that are interrupted, anywhere and by anything, and gone on with.

What a resumed copy has made is judged by zarr-python alone: it must be what an uninterrupted
copy makes, but for times and identities.
"""

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import BridgeError, CancelledError, ConversionError, copy_to_sidecar
from gdalbridge.errors import GdalError, OutputExistsError
from ratzarr import (
    DFLT_CHUNKSIZE,
    ColumnExistsError,
    ColumnIncompleteError,
    ConflictError,
    RatZarr,
    StoreError,
)
from tests.audits import listening
from tests.gdalbridge.sample_rasters import (
    BOOLEAN,
    DATETIME,
    HAS_HFA,
    INTEGER,
    NEW_TYPES,
    REAL,
    STRING,
    WKB,
    make,
    new_rat,
)
from tests.places import LocalPlace, S3Place
from tests.processes import gdalbridge, running, wait_until
from tests.servers.counting import counting_proxy

ROWS, CHUNK = 23, 5
PER_COLUMN = 5
IDENTITY = ("MODIFICATIONLOG", "COLUMN_ID", "RESIZED")
POINT = bytes.fromhex("0101000000000000000000f03f0000000000000040")


def columns(shift=0, driver="GTiff"):
    n = np.arange(ROWS) + shift
    found = [
        ("Value", INTEGER, 5 if driver == "GTiff" else 0, n),
        ("share", REAL, 0, n / 4),
        ("label", STRING, 0, [f"ü{i}" * (i % 3) for i in n]),
    ]
    if NEW_TYPES and driver == "GTiff":
        stamps = [f"20{i % 90:02}-01-02T03:04:05.678+05:45" if i % 4 else "" for i in n]
        found += [
            ("flag", BOOLEAN, 0, n % 2 == 0),
            ("when", DATETIME, 0, stamps),
            ("shape", WKB, 0, [POINT if i % 2 else b"" for i in n]),
        ]
    return found


def raster_at(path, shift=0, driver="GTiff", bands=1, names=None):
    dataset = make(path, driver, bands=bands)
    for band in range(1, bands + 1):
        if driver == "HFA":
            rat = dataset.GetRasterBand(band).GetDefaultRAT()
            made = new_rat(columns(shift, driver), ROWS)
            rat.SetRowCount(ROWS)
            for index in range(made.GetColumnCount()):
                rat.CreateColumn(made.GetNameOfCol(index), made.GetTypeOfCol(index), 0)
                for row in range(ROWS):
                    rat.SetValueAsString(row, index, made.GetValueAsString(row, index))
        else:
            chosen = [column for column in columns(shift) if names is None or column[0] in names]
            dataset.GetRasterBand(band).SetDefaultRAT(new_rat(chosen, ROWS))
    dataset.FlushCache()
    return str(path)


DRIVERS = ["GTiff", pytest.param("HFA", marks=pytest.mark.skipif(
    not HAS_HFA, reason="this GDAL has no HFA driver"))]  # fmt: skip


@pytest.fixture(autouse=True)
def few_writes_at_once(monkeypatch):
    """A column here has five blocks: with more under way, it would be done before it is cancelled."""
    monkeypatch.setenv("RATZARR_REQUESTS", "2")


@pytest.fixture
def raster(tmp_path):
    return raster_at(tmp_path / "seg.tif")


@pytest.fixture(params=["local", "s3"])
def where(request, tmp_path, monkeypatch):
    """A place for tables."""
    if request.param == "local":
        return LocalPlace(tmp_path)
    server = request.getfixturevalue("quick_s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return S3Place(server)


def content(where, url):
    """Return all that zarr-python finds in a table, but for times and identities."""
    table = where.open(url)["RAT"]
    found = {"": dict(table.attrs)}
    for name, array in table.arrays():
        attributes = {k: v for k, v in array.attrs.items() if k not in IDENTITY}
        values = np.asarray(array[...])
        plain = values.tolist() if values.dtype.kind in "TO" else values.tobytes()
        found[name] = (array.shape, array.chunks, str(array.dtype), attributes, plain)
    return found


def chunks(where, url):
    """Return the keys of all chunks, of columns in place and of ones that are not yet."""
    return {key for key in where.objects(url) if re.search(r"/c/\d+$", key)}


def litter(where, url):
    """Return keys of what no finished copy leaves behind."""
    return {key for key in where.objects(url) if key.startswith(".")}


def bytes_in_memory(keys, driver="GTiff"):
    """Return the size of the values of some chunks, as a block of them is read from GDAL."""
    total = 0
    for key in keys:
        name, number = re.search(r"([^/]+)/c/(\d+)$", key).groups()
        [(kind, values)] = [(c[1], c[3]) for c in columns(0, driver) if c[0] == name]
        values = values[int(number) * CHUNK :][:CHUNK]
        width = {INTEGER: 4, REAL: 8, BOOLEAN: 1, DATETIME: 8, WKB: 8}.get(kind)
        if kind == STRING:
            # As wide as the longest where GDAL reads blocks safely; cell by cell, they are strings.
            is_safe = NEW_TYPES or driver == "HFA"
            width = max(len(text.encode()) for text in values) if is_safe else 16
        total += width * len(values)
    return total


def cancel_at(call):
    """A progress callback that cancels when it is called for that time."""
    count = iter(range(1, 10_000))
    return lambda done, message, data: int(next(count) != call)


def copy(raster, url, **options):
    return copy_to_sidecar(raster, url, **({"chunk_rows": CHUNK} | options))


@contextmanager
def watched(where, watch):
    """Call ``watch`` before an object is put in its place, with its key, as ``label/c/3``.

    If it returns True, the disk or the server refuses the object.
    """
    if where.kind == "local":

        def listen(event, arguments):
            if event not in ("os.link", "os.rename") or arguments[3] < 0:
                return
            folder = os.readlink(f"/proc/self/fd/{arguments[3]}")
            if watch(f"{folder}/{arguments[1]}".partition("/RAT/")[2]):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with listening(listen):
            yield
        return
    with counting_proxy(where.moto.url) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)

        def instead(method, key):
            if method == "PUT" and watch(key.partition("/RAT/")[2]):
                return 403
            return None

        proxy.instead = instead
        yield


def table_in_memory(*found):
    """Return an open dataset with these columns."""
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(list(found), ROWS))
    return dataset


def not_utf8(name):
    """Return a dataset whose second column is refused when it is written, in its second block."""
    dataset = table_in_memory(
        ("Value", INTEGER, 0, np.arange(ROWS)), (name, STRING, 0, None), ("more", REAL, 0, None)
    )
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    texts = [b"ok"] * ROWS
    texts[CHUNK] = b"\xff"
    assert rat.WriteArray(np.array(texts), 1) == 0
    return dataset


def once(change):
    """Return a progress callback that changes something before anything is copied."""
    calls = itertools.count()

    def report(done, message, data):
        if next(calls) == 0:
            change()
        return 1

    return report


# ---- interrupted at every block


@pytest.mark.thorough
@pytest.mark.parametrize("driver", DRIVERS)
def test_cancelled_at_every_block(tmp_path, where, driver):
    raster = raster_at(tmp_path / ("seg.tif" if driver == "GTiff" else "seg.img"), driver=driver)
    folder = where.new("x")
    size = copy(raster, whole := f"{folder}-whole.rat.zarr").bytes_read
    expected = content(where, whole)
    blocks = len(columns(0, driver)) * PER_COLUMN
    assert len(chunks(where, whole)) == blocks
    assert bytes_in_memory(chunks(where, whole), driver) == size
    # Each call locally; a server takes too long for that.
    for call in range(1, 1000, 1 if where.kind == "local" else 9):
        url = f"{folder}-{call}.rat.zarr"
        try:
            copy(raster, url, progress=cancel_at(call))
        except CancelledError as error:
            there = chunks(where, url) if RatZarr.exists(url) else set()
            if there:
                assert "Use resume=True to continue." in error.__notes__[0]
        else:
            break
        report = copy(raster, url, resume=True)
        assert report.bytes_read == size - bytes_in_memory(there, driver), call
        # Blocks of 5 rows, but the last of each column, of 3.
        last = sum(key.endswith(f"/c/{PER_COLUMN - 1}") for key in there)
        assert report.values_there == len(there) * CHUNK - last * 2
        assert content(where, url) == expected, call
        assert litter(where, url) == set()
    assert call > blocks


def test_the_report_tells_what_was_there(raster, tmp_path):
    url = tmp_path / "t.rat.zarr"
    with pytest.raises(CancelledError):
        copy(raster, url, columns=["Value", "share"], progress=cancel_at(9))
    report = copy(raster, url, columns=["Value", "share"], resume=True)
    assert f"; {report.values_there} of {2 * ROWS} values were there already" in str(report)
    again = copy(raster, url, columns=["Value", "share"], resume=True)
    assert (again.values_there, again.bytes_read, again.bytes_stored) == (2 * ROWS, 0, 0)
    assert "already" not in str(copy(raster, tmp_path / "other.rat.zarr"))


def test_nothing_there_is_a_plain_copy(raster, where):
    copy_to_sidecar(raster, a := where.new("a.rat.zarr"))
    copy_to_sidecar(raster, b := where.new("a.rat.zarr"), resume=True)
    assert content(where, a)["Value"][:3] == content(where, b)["Value"][:3]
    assert content(where, a)[""]["CHUNKSIZE"] == content(where, b)[""]["CHUNKSIZE"]


# ---- killed at every step


class Killed(BaseException):
    """What no code is prepared for, as a kill is."""


CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
"""Events of a file's or a directory's name that comes, changes or goes."""
COPIES = """
import json, sys
from tests.gdalbridge.copying.test_resume import copy
copy(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
"""


def copy_is_killed(where, changes, raster, url, **options):
    """Copy, but let only so many changes of the store come through, and none after them.

    Returns whether it came to that: on a disk nothing but the exception of :class:`Killed` is
    ever heard of again, on a server a process is killed.
    """
    count, lock = itertools.count(), threading.Lock()

    def is_too_late():
        with lock:
            return next(count) >= changes

    if where.kind == "local":

        def listen(event, arguments):
            if event in CHANGES and is_too_late():
                raise Killed

        try:
            with listening(listen):
                copy(raster, url, **options)
        except Killed:
            return True
        return False
    with counting_proxy(where.moto.url) as proxy:
        started = threading.Event()

        def kill(method, key):
            if method not in ("GET", "HEAD") and is_too_late():
                started.wait(30)
                process.kill()
                return 503
            return None

        proxy.instead = kill
        command = [sys.executable, "-c", COPIES, raster, url, json.dumps(options)]
        environment = os.environ | {"AWS_ENDPOINT_URL": proxy.url}
        process = subprocess.Popen(command, env=environment)
        started.set()
        status = process.wait(120)
    assert status in (0, -signal.SIGKILL)
    return status != 0


FEW = ("Value", "share", "label")
"""What happens is the same to each column: the first, one in between, the last; text and numbers."""
THREE = {"chunk_rows": 10}
"""And to each chunk: a column has three, the last one shorter."""


def kills(where, step_on_s3=13):
    return range(0, 1000, 1 if where.kind == "local" else step_on_s3)


@pytest.mark.main_env_only
def test_killed_before_any_change_of_the_store(tmp_path, where):
    """Also before the table is there, before it has rows, before a column has a chunk."""
    raster = raster_at(tmp_path / "seg.tif", names=FEW)
    folder = where.new("x")
    copy(raster, whole := f"{folder}-whole.rat.zarr", **THREE)
    expected = content(where, whole)
    for changes in kills(where):
        url = f"{folder}-{changes}.rat.zarr"
        if not copy_is_killed(where, changes, raster, url, **THREE):
            break
        copy(raster, url, resume=True, **THREE)
        assert content(where, url) == expected, changes
        assert litter(where, url) == set(), changes
    assert changes > 25


@pytest.mark.main_env_only
@pytest.mark.thorough
def test_an_overwriting_copy_killed_before_any_change(tmp_path, where):
    """Each column is read as it was, or as it is to be; and the copy is gone on with."""
    old = raster_at(tmp_path / "old.tif", shift=1000, names=FEW)
    new = raster_at(tmp_path / "seg.tif", names=FEW)
    folder = where.new("x")
    for path, url in ((old, f"{folder}-old.rat.zarr"), (new, f"{folder}-new.rat.zarr")):
        copy(path, url, **THREE)
    was = content(where, f"{folder}-old.rat.zarr")
    to_be = content(where, f"{folder}-new.rat.zarr")
    for changes in kills(where, step_on_s3=19):
        url = f"{folder}-{changes}.rat.zarr"
        copy(old, url, **THREE)
        if not copy_is_killed(where, changes, new, url, overwrite=True, **THREE):
            break
        meanwhile = content(where, url)
        with RatZarr(url, readOnly=True) as table:
            for name in table.getColumnNames():
                if where.kind == "s3" and meanwhile[name][3].get("COMPLETE") is False:
                    # Just being put in its place by the server, and it says so.
                    with pytest.raises(ColumnIncompleteError):
                        table.readBlock(name, 0, ROWS)
                    continue
                assert meanwhile[name][4] in (was[name][4], to_be[name][4]), (changes, name)
                # No error, and no rows that are not there.
                block = table.readBlock(name, 0, ROWS)
                assert len(block) == ROWS
        copy(new, url, overwrite=True, resume=True, **THREE)
        found = content(where, url)
        assert {k: v for k, v in found.items() if k} == {k: v for k, v in to_be.items() if k}
        if litter(where, url):
            # Killed in the very end, it had nothing more to write: the next write sweeps.
            with RatZarr(url) as table:
                table.getRatAttributeMapping()["note"] = "written"
        assert litter(where, url) == set(), changes
    assert changes > 25


@pytest.mark.main_env_only
def test_a_server_that_fails_after_so_many_requests(tmp_path, quick_s3, monkeypatch):
    """The finest grain there is on S3; a failing server is an interruption."""
    raster = raster_at(tmp_path / "seg.tif", names=FEW)
    with counting_proxy(quick_s3.url) as proxy:
        for name, value in (quick_s3.environment | {"AWS_ENDPOINT_URL": proxy.url}).items():
            monkeypatch.setenv(name, value)
        fail_after_so_many_requests(raster, S3Place(quick_s3), proxy)


def fail_after_so_many_requests(raster, place, proxy):
    folder = place.new("x")
    copy(raster, whole := f"{folder}-whole.rat.zarr", **THREE)
    expected = content(place, whole)
    for allowed in range(1, 1000, 3):
        url = f"{folder}-{allowed}.rat.zarr"
        left = iter(range(allowed))

        def refuse(method, key, left=left):
            return 403 if method != "GET" and next(left, None) is None else None

        proxy.instead = refuse
        try:
            copy(raster, url, **THREE)
        except StoreError as error:
            proxy.instead = None
            if chunks(place, url):
                assert any("resume=True" in note for note in error.__notes__)
        else:
            break
        finally:
            proxy.instead = None
        copy(raster, url, resume=True, **THREE)
        assert content(place, url) == expected, allowed
        assert litter(place, url) == set()
    assert allowed > 20


# ---- failures, as opposed to interruptions


@pytest.mark.parametrize("rows", [0, 5, 13])
def test_a_failing_read_leaves_nothing_new(raster, where, rows):
    """Of a table that has become shorter since the copy began."""
    copy(raster, whole := where.new("whole.rat.zarr"))
    url = where.new("whole.rat.zarr")
    dataset = gdal.Open(raster)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    with pytest.raises(GdalError, match="'Value'"):
        copy(dataset, url, progress=once(lambda: rat.SetRowCount(rows)))
    assert not RatZarr.exists(url)
    copy(raster, url, resume=True)
    assert content(where, url) == content(where, whole)


@pytest.mark.skipif(not NEW_TYPES, reason="DateTime came with GDAL 3.12")
@pytest.mark.parametrize("row", [0, 7, 22])
def test_a_failing_read_of_a_later_column(raster, where, row):
    """Of date-times whose offset from UTC has changed since the copy began."""
    url = where.new("whole.rat.zarr")
    dataset, change = later_offset(raster, row)
    with pytest.raises(ConversionError, match=r"'when'.*the table was changed"):
        copy(dataset, url, progress=change)
    assert not RatZarr.exists(url)


def later_offset(raster, row):
    """Return a dataset and a progress callback that changes the offset of one of its date-times."""
    dataset = gdal.Open(raster)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    [index] = [i for i in range(rat.GetColumnCount()) if rat.GetNameOfCol(i) == "when"]
    return dataset, once(lambda: rat.SetValueAsString(row, index, "2001-02-03T04:05:06Z"))


def chunks_refused(where, allowed):
    """Have the disk, or the server, take no chunks but so many."""
    left = iter(range(allowed))
    return watched(where, lambda key: "/c/" in key and next(left, None) is None)


@pytest.mark.parametrize("number", [1, 3, 7, 12])
def test_a_failing_write(raster, where, number):
    """The disk's or the server's failure is an interruption."""
    size = copy(raster, whole := where.new("whole.rat.zarr")).bytes_read
    url = where.new("whole.rat.zarr")
    with chunks_refused(where, number - 1), pytest.raises(StoreError):
        copy(raster, url)
    assert RatZarr.exists(url)
    there = chunks(where, url)
    assert len(there) == number - 1
    report = copy(raster, url, resume=True)
    assert report.bytes_read == size - bytes_in_memory(there)
    assert content(where, url) == content(where, whole)


@pytest.mark.parametrize("number", [1, 3, 7, 12])
def test_any_other_failure_leaves_nothing_new(raster, where, number):
    copy(raster, whole := where.new("whole.rat.zarr"))
    url = where.new("whole.rat.zarr")
    calls = itertools.count(1)

    def failing(done, name, data):
        if next(calls) == number:
            raise OSError("strange")
        return 1

    with pytest.raises(OSError, match="strange"):
        copy(raster, url, progress=failing)
    assert not RatZarr.exists(url)
    copy(raster, url, resume=True)
    assert content(where, url) == content(where, whole)


def test_a_failure_while_going_on_keeps_what_was_there(raster, local):
    url = local.new()
    with pytest.raises(CancelledError):
        copy(raster, url, progress=cancel_at(4))
    before = chunks(local, url)
    assert before
    dataset = gdal.Open(raster)
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    with pytest.raises(GdalError):
        copy(dataset, url, resume=True, progress=once(lambda: rat.SetRowCount(0)))
    assert chunks(local, url) >= before
    copy(raster, url, resume=True)
    copy(raster, other := local.new())
    assert content(local, url) == content(local, other)


def test_a_complete_column_stays_so_when_going_on_is_interrupted(raster, where):
    url = where.new()
    with pytest.raises(CancelledError):
        copy(raster, url, progress=cancel_at(9))
    with RatZarr(url) as table:
        assert table.resumeColumn("Value") is None
        assert table.resumeColumn("share") is not None

    with chunks_refused(where, 0), pytest.raises(StoreError):
        copy(raster, url, resume=True)
    with RatZarr(url, readOnly=True) as table:
        assert table.readBlock("Value", 0, ROWS).tolist() == list(range(ROWS))


def test_the_next_column_is_read_while_this_one_is_written(raster, where):
    """No column's last block is written before the next one's first is, or this never ends."""
    names = [column[0] for column in columns()]
    begun = {name: threading.Event() for name in names}

    def watch(key):
        name, _, chunk = key.partition("/c/")
        if not chunk:
            return
        begun[name].set()
        if int(chunk) == PER_COLUMN - 1 and name != names[-1]:
            assert begun[names[names.index(name) + 1]].wait(timeout=30)

    url = where.new("whole.rat.zarr")
    with watched(where, watch):
        copy(raster, url)
    copy(raster, other := where.new("whole.rat.zarr"))
    assert content(where, url) == content(where, other)


@pytest.fixture
def table_with_another_column(where):
    url = where.new()
    with RatZarr(url) as table:
        table.setRowCount(ROWS)
        table.createColumn("mine", np.int32)
    return url


def first_is_complete(url):
    """Whether the first column is there as a whole, and the second one not even in part."""
    with RatZarr(url) as table:
        assert table.readBlock("Value", 0, ROWS).tolist() == list(range(ROWS))
        assert table.resumeColumn("when") is None
        return table.getColumnNames()


@pytest.mark.skipif(not NEW_TYPES, reason="DateTime came with GDAL 3.12")
@pytest.mark.parametrize("row", [0, 22])
def test_a_column_that_can_not_be_read_leaves_those_before_it(
    raster, table_with_another_column, row
):
    """All their blocks were read by then: they are complete, and no later one is there."""
    url = table_with_another_column
    names = ["Value", "when", "shape"]
    dataset, change = later_offset(raster, row)
    with pytest.raises(ConversionError, match="the table was changed"):
        copy(dataset, url, append=True, columns=names, progress=change)
    assert first_is_complete(url) == ["mine", "Value"]


def test_a_column_that_can_not_be_written_leaves_those_before_it(table_with_another_column):
    url = table_with_another_column
    with pytest.raises(ConversionError, match=r"'when', row 5.* is not UTF-8"):
        copy(not_utf8("when"), url, append=True)
    assert first_is_complete(url) == ["mine", "Value"]


def test_a_column_that_can_not_be_created_leaves_those_before_it(
    where, table_with_another_column, monkeypatch
):
    """Because another process has created one of this name since the copy began."""
    url = table_with_another_column
    # One column at a time, on a server too.
    monkeypatch.setenv("RATZARR_REQUESTS", "1")
    dataset = table_in_memory(
        ("Value", INTEGER, 0, np.arange(ROWS)), ("when", REAL, 0, None), ("more", REAL, 0, None)
    )

    def others():
        with RatZarr(url) as table:
            table.createColumn("when", np.int8)

    with pytest.raises(ColumnExistsError, match="'when'"):
        copy(dataset, url, append=True, progress=once(others))
    assert first_is_complete(url) == ["mine", "when", "Value"]
    assert content(where, url)["when"][2] == "int8"


def test_columns_are_created_together_where_they_are_waited_for(raster, where):
    names = [column[0] for column in columns()]
    groups = [[]]

    def watch(key):
        name, _, what = key.partition("/")
        if what.startswith("c/"):
            groups.append([])
        elif what == "zarr.json" and not any(name in group for group in groups):
            groups[-1].append(name)

    url = where.new("whole.rat.zarr")
    with watched(where, watch):
        copy(raster, url)
    step = 2 if where.kind == "s3" else 1
    created = [sorted(group, key=names.index) for group in groups if group]
    assert created == [names[at : at + step] for at in range(0, len(names), step)]
    copy(raster, whole := where.new("whole.rat.zarr"))
    assert content(where, url) == content(where, whole)


def test_columns_that_were_created_together_go_together(where):
    dataset = table_in_memory(
        ("label", STRING, 0, None), ("a", REAL, 0, None), ("b", REAL, 0, None)
    )
    texts = np.array([b"\xff"] * ROWS)
    assert dataset.GetRasterBand(1).GetDefaultRAT().WriteArray(texts, 0) == 0
    url = where.new()
    with pytest.raises(ConversionError, match="'label', row 0"):
        copy(dataset, url)
    assert not RatZarr.exists(url)


def test_only_what_is_another_process_s_stays(raster, local):
    """Of columns that are under way, the one in conflict is another's; the others are removed."""
    url = local.new()
    with RatZarr(url) as table:
        table.setRowCount(ROWS)
        table.createColumn("mine", np.int32)
    gate, replaced = threading.Event(), []

    def watch(key):
        if key == "share/c/0":
            gate.set()
        if key == f"Value/c/{PER_COLUMN - 1}" and not replaced:
            assert gate.wait(timeout=30)
            replaced.append(key)
            with RatZarr(url) as table:
                table.deleteColumn("Value")
                table.createColumn("Value", np.int32, complete=False)

    with watched(local, watch), pytest.raises(ConflictError, match="'Value'"):
        copy(raster, url, append=True)
    assert replaced
    with RatZarr(url, readOnly=True) as table:
        assert table.getColumnNames() == ["mine", "Value"]
        with pytest.raises(ColumnIncompleteError):
            table.readBlock("Value", 0, ROWS)


# ---- overwriting


@pytest.mark.main_env_only
def test_the_old_column_is_read_until_the_new_one_is_complete(tmp_path, where):
    old = raster_at(tmp_path / "old.tif", shift=1000)
    new = raster_at(tmp_path / "seg.tif")
    url = where.new()
    copy(old, url)
    seen = []

    def look(done, name, data):
        with RatZarr(url, readOnly=True) as table:
            seen.extend(table.readBlock(column, 0, ROWS)[3] for column in ("Value", "label"))
        return 1

    copy(new, url, overwrite=True, progress=look)
    assert seen[0] == 1003
    values = seen[::2]
    assert len(set(seen[1::2])) == 2
    assert values == sorted(values, reverse=True)
    assert set(values) == {1003, 3}
    assert litter(where, url) == set()


def test_an_overwriting_copy_that_was_cancelled(tmp_path, where):
    old = raster_at(tmp_path / "old.tif", shift=1000)
    new = raster_at(tmp_path / "seg.tif")
    copy(new, whole := where.new())
    copy(old, url := where.new())
    with pytest.raises(CancelledError) as caught:
        copy(new, url, overwrite=True, columns=["share"], progress=cancel_at(2))
    assert "Use resume=True with overwrite=True" in caught.value.__notes__[0]
    with RatZarr(url, readOnly=True) as table:
        assert table.readBlock("share", 2, 1)[0] == 1002 / 4
    assert litter(where, url)
    # The column that was begun is gone on with, without leave to overwrite others.
    report = copy(new, url, columns=["share"], resume=True)
    assert 0 < report.bytes_read < ROWS * 8
    assert report.values_there == ROWS - report.bytes_read // 8
    assert content(where, url)["share"][4] == content(where, whole)["share"][4]
    assert litter(where, url) == set()
    with pytest.raises(OutputExistsError, match="'Value' already"):
        copy(new, url, resume=True)
    copy(new, url, resume=True, overwrite=True)
    assert content(where, url)["Value"][4] == content(where, whole)["Value"][4]


def test_a_plain_overwrite_discards_what_was_begun(tmp_path, where):
    old = raster_at(tmp_path / "old.tif", shift=1000)
    new = raster_at(tmp_path / "seg.tif")
    size = copy(new, whole := where.new()).bytes_read
    # Begun in the place of another, and begun where there was none.
    for first in ([(old, {})], []):
        url = where.new()
        for path, options in first:
            copy(path, url, **options)
        with pytest.raises(CancelledError):
            copy(new, url, overwrite=True, progress=cancel_at(4))
        assert copy(new, url, overwrite=True).bytes_read == size
        found, expected = content(where, url), content(where, whole)
        assert {k: v for k, v in found.items() if k} == {k: v for k, v in expected.items() if k}
        assert litter(where, url) == set()


def test_a_failure_discards_the_new_column_and_keeps_the_old(tmp_path, where):
    raster = raster_at(tmp_path / "seg.tif")
    copy(raster, url := where.new())
    before = content(where, url)
    dataset = make("", "MEM")
    rat = new_rat([("label", STRING, 0, None)], ROWS)
    assert rat.WriteArray(np.array([b"ok"] * (ROWS - 1) + [b"\xff"]), 0) == 0
    dataset.GetRasterBand(1).SetDefaultRAT(rat)
    with pytest.raises(ConversionError):
        copy(dataset, url, overwrite=True)
    assert content(where, url) == before
    assert litter(where, url) == set()


# ---- what can't be gone on with


@pytest.fixture
def begun(raster, tmp_path):
    """A table whose first column is complete and whose second is not."""
    url = tmp_path / "t.rat.zarr"
    with pytest.raises(CancelledError):
        copy(raster, url, progress=cancel_at(8))
    with RatZarr(url, readOnly=True) as table:
        table.openColumn("Value")
        with pytest.raises(ColumnIncompleteError):
            table.openColumn("share")
    return url


def everything(url):
    return {path: path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}


def refused(raster, url, words, **options):
    """A copy is refused, says what differs and how to start over, and changes nothing."""
    before = everything(url)
    with pytest.raises(BridgeError, match=words) as caught:
        copy(raster, url, resume=True, **options)
    assert "overwrite=True" in str(caught.value)
    assert everything(url) == before


def starts_over(raster, url, **options):
    """With leave to overwrite the columns are copied anew."""
    copy(raster, url, resume=True, overwrite=True, **options)
    copy(raster, other := url.with_name("other.rat.zarr"), **options)
    where = LocalPlace(url.parent)
    found, expected = content(where, url), content(where, other)
    assert {k: v for k, v in found.items() if k} == {k: v for k, v in expected.items() if k}
    assert litter(where, url) == set()


def test_a_table_that_was_changed_since(raster, begun):
    dataset = gdal.Open(raster, gdal.GA_Update)
    band = dataset.GetRasterBand(1)
    rat = band.GetDefaultRAT().Clone()
    rat.SetValueAsInt(22, 0, -1)
    band.SetDefaultRAT(rat)
    dataset = band = None
    words = r"'share' is not complete, and can't be resumed: seg\.tif .* changed: its file \*\.tif"
    refused(raster, begun, words, columns=["share"])
    refused(raster, begun, "has a column 'Value' already")
    starts_over(raster, begun)


def test_another_raster(tmp_path, begun):
    other = raster_at(tmp_path / "other.tif", shift=7)
    refused(other, begun, r"other\.tif is not the raster it comes from, or", columns=["share"])
    starts_over(other, begun)


def test_another_band(tmp_path):
    raster = raster_at(tmp_path / "two.tif", bands=2)
    url = tmp_path / "t.rat.zarr"
    with pytest.raises(CancelledError):
        copy(raster, url, progress=cancel_at(4))
    refused(raster, url, "it is of band 1, not of 2", band=2)
    starts_over(raster, url, band=2)


def test_other_chunks(raster, begun):
    refused(
        raster, begun, "it has chunks of 5 rows, and not of 7", chunk_rows=7, columns=["share"]
    )
    # Not asked for, they are as they were.
    copy_to_sidecar(raster, begun, resume=True)
    with RatZarr(begun, readOnly=True) as table:
        assert {table.getColumnChunkSize(name) for name in table.getColumnNames()} == {CHUNK}


def edited(url, key, change):
    """Change a column's document as another program would."""
    path = Path(url, "RAT", key, "zarr.json")
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["attributes"].pop("PROVENANCE"), "does not say that it comes from a copy"),
        (lambda d: d["attributes"].update(PROVENANCE=[1]), "does not say that it comes"),
        (lambda d: d["attributes"]["PROVENANCE"].update(operation="apply"), "from a copy"),
        (lambda d: d["attributes"]["PROVENANCE"].update(column="x\n"), r"column 'x\\n', not of"),
        (lambda d: d["attributes"]["PROVENANCE"].update(source=None), "nothing was recorded"),
        (lambda d: d["attributes"]["PROVENANCE"]["source"].update(rows={}), "had {}"),
        (lambda d: d["attributes"]["PROVENANCE"]["source"].update(files={}), "was added"),
        (lambda d: d.update(data_type="int64", fill_value=0), "its dtype is int64"),
        (lambda d: d["attributes"].update(GDAL_TYPE=3), "would store it differently"),
    ],
)
def test_an_unfinished_column_from_elsewhere(raster, begun, change, words):
    edited(begun, "share", change)
    refused(raster, begun, words)
    starts_over(raster, begun)


def test_a_table_in_memory_can_not_be_gone_on_with(tmp_path):
    dataset = make("", "MEM")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns(), ROWS))
    url = tmp_path / "t.rat.zarr"
    with pytest.raises(CancelledError):
        copy(dataset, url, progress=cancel_at(4))
    refused(dataset, url, "nothing was recorded|it is not a file")


def test_columns_that_are_complete_and_not_ours(raster, tmp_path, where):
    url = where.new()
    with RatZarr(url) as table:
        table.setRowCount(ROWS)
        table.createColumn("share", np.float64)
        table.createColumn("mine", np.float64)
    with pytest.raises(OutputExistsError, match="'share' already"):
        copy(raster, url, resume=True)
    assert set(content(where, url)) == {"", "share", "mine"}
    copy(raster, url, resume=True, overwrite=True)
    assert content(where, url)["share"][3]["COMPLETE"] is True
    assert "mine" in content(where, url)


def test_a_table_that_was_resized_since(raster, begun):
    with RatZarr(begun) as table:
        table.setRowCount(ROWS + 4)
    refused(raster, begun, "it has 27 rows, and the raster's table 23", columns=["share"])
    refused(raster, begun, "has a column 'Value' already")
    starts_over(raster, begun)


def test_without_resume_an_unfinished_column_is_refused_and_the_way_on_named(raster, begun):
    with pytest.raises(OutputExistsError, match="resume=True to continue an interrupted copy"):
        copy(raster, begun)
    with pytest.raises(OutputExistsError, match=r"'share' already.*resume=True"):
        copy(raster, begun, append=True, columns=["share"])


def test_another_version_that_goes_on_is_written_down(raster, begun):
    def older(document):
        document["attributes"]["PROVENANCE"]["versions"]["gdal"] = "1.2.3"

    edited(begun, "share", older)
    copy(raster, begun, resume=True)
    origin = json.loads(Path(begun, "RAT/share/zarr.json").read_bytes())["attributes"][
        "PROVENANCE"
    ]
    assert origin["versions"]["gdal"] == "1.2.3"
    assert origin["resumed_with"]["gdal"] == gdal.VersionInfo("RELEASE_NAME")


@pytest.mark.skipif(not NEW_TYPES, reason="DateTime came with GDAL 3.12")
def test_date_times_are_not_read_twice_and_still_checked(raster, tmp_path, monkeypatch):
    url = tmp_path / "t.rat.zarr"
    with pytest.raises(CancelledError):
        copy(raster, url, columns=["when"], progress=cancel_at(3))

    starts, read = [], gdal.RasterAttributeTable.ReadValuesIOAsString

    def reading(rat, column, start, length):
        starts.append(start)
        return read(rat, column, start, length)

    edited(url, "when", lambda d: d["attributes"].update(UTC_OFFSET_MINUTES=60))
    with monkeypatch.context() as patch:
        patch.setattr(gdal.RasterAttributeTable, "ReadValuesIOAsString", reading)
        with pytest.raises(ConversionError, match=r"'when', from row .* offset from UTC"):
            copy(raster, url, columns=["when"], resume=True)
        edited(url, "when", lambda d: d["attributes"].update(UTC_OFFSET_MINUTES=345))
        copy(raster, url, columns=["when"], resume=True)
    # Rows that are there are not read, for their offsets either.
    assert starts
    assert min(starts) >= CHUNK


# ---- how far it is


@pytest.mark.parametrize("often", [True, False])
def test_it_says_how_far_it_is_from_time_to_time(raster, tmp_path, monkeypatch, often):
    url = tmp_path / "t.rat.zarr"
    said, now = {}, time.monotonic
    hours = itertools.count()
    # Each time that somebody looks at the clock, an hour has gone.
    clock = (lambda: now() + 3600 * next(hours)) if often else now

    def look(done, name, data):
        path = url / "RAT" / name / "zarr.json"
        if name and path.exists():
            attributes = json.loads(path.read_bytes())["attributes"]
            said.setdefault(name, []).append((attributes["ROWS_DONE"], attributes["COMPLETE"]))
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", clock)
        copy(raster, url, progress=look)
    # It is begun while the last blocks of the column before it are being written.
    noted = (0, 5, 10, 15, 20, 23) if often else (0,) * 6
    assert said["share"] == [(rows, False) for rows in noted]


def test_an_interrupted_copy_has_said_how_far_it_is(raster, begun):
    attributes = json.loads((begun / "RAT/share/zarr.json").read_bytes())["attributes"]
    done = attributes["ROWS_DONE"]
    assert attributes["COMPLETE"] is False
    assert done >= CHUNK
    for chunk in range(done // CHUNK):
        assert (begun / f"RAT/share/c/{chunk}").exists()


# ---- real processes

BIG = 60_000


@pytest.fixture(scope="module")
def big_content(big, tmp_path_factory):
    """What a copy of it has that nobody interrupts."""
    # As far from the raster as those of the tests are: the way to it is noted.
    folder = tmp_path_factory.mktemp("whole")
    copy_to_sidecar(big, whole := folder / "t.rat.zarr", chunk_rows=100)
    return content(LocalPlace(folder), whole)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    path = tmp_path_factory.mktemp("big") / "big.tif"
    dataset = make(path)
    found = [("a", INTEGER, 0, np.arange(BIG)), ("b", REAL, 0, np.arange(BIG) / 8)]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(found, BIG))
    dataset.FlushCache()
    return path


def started(*args):
    return running(gdalbridge("copy", *args))


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    ("kind", "chunk"),
    [
        (signal.SIGINT, "a/c/3"),
        pytest.param(signal.SIGINT, "b/zarr.json", marks=pytest.mark.thorough),
        pytest.param(signal.SIGKILL, "a/c/300", marks=pytest.mark.thorough),
        (signal.SIGKILL, "b/c/100"),
    ],
    ids=["SIGINT-a/c/3", "SIGINT-b/zarr.json", "SIGKILL-a/c/300", "SIGKILL-b/c/100"],
)
def test_a_real_process(big, big_content, tmp_path, kind, chunk):
    url = tmp_path / "t.rat.zarr"
    with started(big, url, "--chunk-rows", 100) as child:
        wait_until((url / "RAT" / chunk).exists, every=0.005)
        child.send_signal(kind)
        _, words = child.communicate(timeout=60)
    if kind == signal.SIGINT:
        assert child.returncode == 130
        assert "interrupted" in words
        assert "Use --resume to continue." in words
        assert "Traceback" not in words
    else:
        assert child.returncode == -signal.SIGKILL
    where = LocalPlace(tmp_path)
    had = {name: sum(f"/{name}/" in key for key in chunks(where, url)) for name in "ab"}
    there = sum(had.values())
    assert 0 < there < 2 * BIG // 100
    with started(big, url, "--chunk-rows", 100, "--resume", "--json") as child:
        out, words = child.communicate(timeout=60)
    assert (child.returncode, words) == (0, "")
    [report] = json.loads(out)
    assert report["values_there"] == there * 100
    size = sum((BIG - 100 * had[name]) * width for name, width in (("a", 4), ("b", 8)))
    assert report["bytes_read"] == size
    assert (
        "modified"
        in json.loads((url / "RAT/a/zarr.json").read_bytes())["attributes"]["PROVENANCE"][
            "fingerprint"
        ]
    )
    found = content(where, url)
    assert found["a"][-1] == np.arange(BIG, dtype="i4").tobytes()
    assert found["b"][-1] == (np.arange(BIG) / 8).tobytes()
    assert found == big_content
    assert litter(where, url) == set()


def test_the_chunk_size_of_a_copy_that_was_killed_before_it_was_set(raster, tmp_path):
    url = tmp_path / "t.rat.zarr"
    with RatZarr(url) as table:
        assert table.getRATChunkSize() == DFLT_CHUNKSIZE
    copy_to_sidecar(raster, url, resume=True)
    copy_to_sidecar(raster, other := tmp_path / "u.rat.zarr")
    where = LocalPlace(tmp_path)
    assert content(where, url) == content(where, other)
