"""Whole stores and files copied: what a table of upstream's, a swap, a lying disk come to."""

import hashlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import MemoryStore

import ratzarr.stores.files
from ratzarr import ChangedError, NotARatZarrError, RatZarr, StoreError, TableNotFoundError
from ratzarr.maintenance.copy import copy_store, inventory
from ratzarr.stores.base import parse
from ratzarr.stores.files import copy_file, file_state, same_file
from ratzarr.stores.local import LocalObjects
from ratzarr.stores.open import open_objects, open_place
from ratzarr.stores.s3 import S3Objects
from tests.servers.faults import AFTER, Faults, faulty_proxy

DATA = Path(__file__).parents[2] / "data"


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in Path(folder).rglob("*")
        if p.is_file()
    }


def copied(source, target, **options):
    here, there = open_objects(parse(source)), open_objects(parse(target))
    return copy_store(here, there, inventory(here), **options)


@pytest.mark.parametrize("name", ["upstream-1.0.2.zarr", "golden-v1.zarr"])
def test_stores_of_before_are_the_same_in_any_place(tmp_path, moto_s3, name):
    before = contents(DATA / name)
    first, second, back = moto_s3.new(), moto_s3.new(), tmp_path / "back"
    assert copied(DATA / name, first) == len(before)
    assert copied(first, second) == len(before)
    assert copied(second, back) == len(before)
    assert moto_s3.objects(first) == moto_s3.objects(second) == contents(back) == before


def test_a_column_that_is_being_replaced_goes_on_there(tmp_path, moto_s3):
    source, url = tmp_path / "t.rat.zarr", moto_s3.new()
    with RatZarr(source) as table:
        table.setChunkSize(5)
        table.setRowCount(10)
        table.createColumn("x", np.int32)
        table.writeBlock("x", np.arange(10), 0)
        table.createColumn("x", np.int64, complete=False, replace=True)
        table.writeBlock("x", np.arange(5) + 100, 0)
    # What a killed writer leaves, and what zarr's own store does, stays where it is.
    (source / f".{'0' * 32}.partial").write_bytes(b"half")
    copied(source, url)
    assert not any("partial" in key for key in moto_s3.objects(url))
    with RatZarr(url) as table:
        assert table.readBlock("x", 0, 10).tolist() == list(range(10))
        assert table.resumeColumn("x") is not None
        assert table.getMissingRows("x") == [(5, 10)]
        table.writeBlock("x", np.arange(5, 10) + 100, 5)
        table.setComplete("x")
        assert table.readBlock("x", 0, 10).tolist() == list(range(100, 110))


def test_a_disk_that_writes_something_else(tmp_path):
    """What has arrived is looked at: here one byte of one object is another."""
    source, target = tmp_path / "t.rat.zarr", tmp_path / "copy"
    shutil.copytree(DATA / "golden-v1.zarr", source)
    spoiled = next(key for key in contents(source) if "/c/" in key)

    class Lies(LocalObjects):
        def put(self, key, data, owner=None):
            super().put(key, data[:-1] + b"?" if key == spoiled else data, owner)

    here = open_place(source)
    with pytest.raises(StoreError, match="holds other bytes than were written"):
        copy_store(here, Lies(parse(target)), inventory(here))
    assert not target.exists()


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_table_that_is_written_to_meanwhile(tmp_path, at_the_end):
    """At the beginning or at the very end: a copy of half the one state and half the other is none."""
    source, target = tmp_path / "t.rat.zarr", tmp_path / "copy"
    shutil.copytree(DATA / "golden-v1.zarr", source)
    calls = []

    def told(size):
        calls.append(size)
        if len(calls) == when:
            (source / chunk).write_bytes((source / chunk).read_bytes())

    when = len(contents(source)) if at_the_end else 1
    chunk = sorted(key for key in contents(source) if "/c/" in key)[0]
    with pytest.raises(ChangedError, match="changed while it was copied"):
        copied(source, target, told=told)
    assert not target.exists()


def test_places_that_are_taken_or_empty(tmp_path):
    target = tmp_path / "copy"
    target.mkdir()
    with pytest.raises(NotARatZarrError, match="already exists"):
        copied(DATA / "golden-v1.zarr", target)
    with pytest.raises(NotARatZarrError, match="is not a RatZarr"):
        copied(target, tmp_path / "x")
    with pytest.raises(TableNotFoundError):
        copied(tmp_path / "none", tmp_path / "x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy"]


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_files(tmp_path, moto_s3, size):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    os.utime(tmp_path / "a", (1e9, 1e9))
    url = moto_s3.new("file")
    ways = [
        (tmp_path / "a", url),
        (url, url + "2"),
        (url + "2", tmp_path / "b"),
        (tmp_path / "b", tmp_path / "c"),
    ]
    for source, target in ways:
        copy_file(parse(source), parse(target))
        assert same_file(parse(source), parse(target))
        with pytest.raises(FileExistsError):
            copy_file(parse(source), parse(target))
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == data
    assert moto_s3.everything()["d1/file2"].strip('"') == hashlib.md5(data).hexdigest()
    (tmp_path / "d").write_bytes(data + b"x")
    copy_file(parse(tmp_path / "d"), parse(url), overwrite=True)
    assert not same_file(parse(url), parse(url + "2"))
    assert file_state(parse(tmp_path / "c")).size == size
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_a_file_on_a_disk_keeps_its_time(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    os.utime(tmp_path / "a", (1e9, 1e9))
    copy_file(parse(tmp_path / "a"), parse(tmp_path / "b"))
    assert (tmp_path / "b").stat().st_mtime == 1e9


def test_a_store_goes_by_way_of_every_kind_of_place(tmp_path, moto_s3, monkeypatch):
    before = contents(DATA / "golden-v1.zarr")
    url, other = moto_s3.new(), moto_s3.new()
    places = [
        open_place(DATA / "golden-v1.zarr"),
        open_place("memory://by-way-of/t.rat.zarr"),
        open_place(MemoryStore()),
        open_objects(parse(url)),
        open_objects(parse(other)),
        open_place(MemoryStore()),
        open_place(tmp_path / "back"),
    ]
    for source, target in pairwise(places):
        found = inventory(source)
        assert {one.key: one.size for one in found} == {k: len(v) for k, v in before.items()}
        assert copy_store(source, target, found) == len(before)
    assert moto_s3.objects(url) == moto_s3.objects(other) == contents(tmp_path / "back") == before


LOST = [kind for kind in AFTER if kind != "late stall"]
"""Quick ways to lose an answer."""


@pytest.mark.parametrize("kind", LOST)
def test_a_write_whose_answer_is_lost(tmp_path, moto, moto_s3, monkeypatch, kind):
    """Asked for again, the server refuses what it has done already: the copy is there, and whole."""
    monkeypatch.setattr(ratzarr.stores.files, "PART_BYTES", 5 * 2**20)
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "0.02")
    data = os.urandom(6 * 2**20)
    (tmp_path / "small").write_bytes(data[:1000])
    (tmp_path / "large").write_bytes(data)
    small, large, again = (moto_s3.new(name) for name in ("small", "large", "again"))
    faults = Faults(plan=lambda method, key, number: kind if _makes(method, number) else None)
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        copy_file(parse(tmp_path / "small"), parse(small))
        copy_file(parse(tmp_path / "large"), parse(large))
        copy_file(parse(large), parse(again))
    # PUT of the one; a part, the upload's beginning and its end of the others.
    assert len(faults.done) >= 5
    found = {
        key.rpartition("/")[2]: body for key, body in moto.contents(moto_s3.bucket, "").items()
    }
    assert found == {"small": data[:1000], "large": data, "again": data}


def _makes(method, number):
    # POST begins an upload, and again where that was lost; then it finishes it.
    return (method == "PUT" and number == 0) or (method == "POST" and number in (0, 2))


def test_a_write_that_met_a_fault_takes_nobodys_place(tmp_path, moto, moto_s3, monkeypatch):
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "0.02")
    (tmp_path / "a").write_bytes(b"mine")
    url = moto_s3.new("file")
    place = parse(url)
    bucket, _, key = url.removeprefix("s3://").partition("/")
    moto_s3.client.put_object(Bucket=bucket, Key=key, Body=b"hers")
    faults = Faults(plan=lambda method, key, number: "500" if number == 0 else None)
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(FileExistsError, match="there already"):
            copy_file(parse(tmp_path / "a"), place)
    assert faults.count("500", conditional=True) == 1
    assert moto_s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"hers"


@pytest.mark.parametrize("late", [False, True])
def test_a_large_file_takes_nobodys_place(tmp_path, moto_s3, monkeypatch, late):
    """Also on a server that ignores conditions on uploads in parts."""
    monkeypatch.setattr(ratzarr.stores.files, "PART_BYTES", 5 * 2**20)
    (tmp_path / "a").write_bytes(os.urandom(6 * 2**20))
    url, asked = moto_s3.new("file"), S3Objects.request
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def put():
        moto_s3.client.put_object(Bucket=bucket, Key=key, Body=b"hers")

    def asks(self, method, **request):
        if method == "complete_multipart_upload":
            request.pop("IfNoneMatch", None)
        answer = asked(self, method, **request)
        if method == "upload_part" and late:
            put()
        return answer

    monkeypatch.setattr(S3Objects, "request", asks)
    if not late:
        put()
    with pytest.raises(FileExistsError, match="there already"):
        copy_file(parse(tmp_path / "a"), parse(url))
    assert moto_s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"hers"
    assert moto_s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("size", [1000, 6 * 2**20])
def test_a_server_whose_etags_are_no_checksums(tmp_path, moto_s3, monkeypatch, size, honest):
    """It encrypts with keys of its own, say: what has arrived is read again."""
    monkeypatch.setattr(ratzarr.stores.files, "PART_BYTES", 5 * 2**20)
    data, url, asked = os.urandom(size), moto_s3.new("file"), S3Objects.request
    (tmp_path / "a").write_bytes(data)
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def asks(self, method, **request):
        answer = asked(self, method, **request)
        if method in ("put_object", "complete_multipart_upload"):
            answer = {**answer, "ETag": f'"{"0" * 32}"'}
            if not honest:
                other = data[:-1] + bytes([data[-1] ^ 1])
                moto_s3.client.put_object(Bucket=bucket, Key=key, Body=other)
        return answer

    monkeypatch.setattr(S3Objects, "request", asks)
    before = set(os.listdir("/proc/self/fd"))
    if honest:
        copy_file(parse(tmp_path / "a"), parse(url))
        assert moto_s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() == data
    else:
        with pytest.raises(StoreError, match="holds other bytes than were written"):
            copy_file(parse(tmp_path / "a"), parse(url))
    opened = set(os.listdir("/proc/self/fd")) - before
    assert not any(_leads_to(fd, tmp_path) for fd in opened)


def _leads_to(fd, folder):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder))
    except FileNotFoundError:
        return False
