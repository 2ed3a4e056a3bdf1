"""Whole stores and files copied: what a table of upstream's, a swap, a lying disk come to."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import FsspecStore, MemoryStore

from ratzarr import (
    ChangedError,
    DamagedError,
    NotARatZarrError,
    RatZarr,
    StoreError,
    TableNotFoundError,
)
from ratzarr.maintenance.copy import copy_store, inventory, remove_source
from ratzarr.stores.base import parse
from ratzarr.stores.local import LocalObjects
from ratzarr.stores.open import open_objects, open_place

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
        copied(source, target, report=told)
    assert not target.exists()


def test_a_table_whose_root_is_missing(tmp_path):
    source, target = tmp_path / "t.rat.zarr", tmp_path / "copy"
    shutil.copytree(DATA / "golden-v1.zarr", source)
    (source / "zarr.json").unlink()
    with pytest.raises(DamagedError, match=r"t\.rat\.zarr/zarr\.json is missing"):
        copied(source, target)
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


@pytest.mark.thorough
def test_a_removal_that_stops_at_any_object(tmp_path):
    """The rest is no table for anybody, and is removed once it is found at the target."""
    whole, source, target = DATA / "golden-v1.zarr", tmp_path / "t.rat.zarr", tmp_path / "copy"
    before = contents(whole)
    copied(whole, target)

    class Dies(LocalObjects):
        left = 0

        def delete(self, keys):
            for key in keys:
                self.left -= 1
                if self.left < 0:
                    raise StoreError(f"no power at {key}")
                super().delete([key])

    for count in range(len(before)):
        shutil.copytree(whole, source)
        here = Dies(parse(str(source)))
        here.left = count
        with pytest.raises(StoreError, match="no power"):
            remove_source(here, inventory(here))
        assert len(contents(source)) == len(before) - count
        assert RatZarr.isValidRatZarr(source) == (count == 0)
        if count:
            with pytest.raises(NotARatZarrError, match="is not a RatZarr"):
                inventory(here)
        rest = open_place(source)
        entries = inventory(rest, rest=True)
        assert {one.key for one in entries} == contents(source).keys()
        assert copy_store(rest, open_place(target), entries, resume=True, move=True) == 0
        remove_source(rest, entries)
        assert not source.exists()
        assert contents(target) == before


def test_a_removal_spares_what_was_added(tmp_path):
    source = tmp_path / "t.rat.zarr"
    shutil.copytree(DATA / "golden-v1.zarr", source)
    here = open_place(source)
    entries = inventory(here)
    (source / "RAT" / "notes.txt").write_bytes(b"precious")
    with pytest.raises(StoreError, match="not empty"):
        remove_source(here, entries)
    assert contents(source) == {"RAT/notes.txt": b"precious"}


def test_a_store_goes_by_way_of_every_kind_of_place(tmp_path, moto_s3, monkeypatch):
    before = contents(DATA / "golden-v1.zarr")
    url, other = moto_s3.new(), moto_s3.new()
    places = [
        open_place(DATA / "golden-v1.zarr"),
        open_place(FsspecStore.from_url("memory://by-way-of/t.rat.zarr")),
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
