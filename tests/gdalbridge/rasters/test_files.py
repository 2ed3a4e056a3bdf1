"""A raster with all of its tables, copied, moved and removed, between disk and S3.

The oracle is byte for byte: files by os, objects by boto3; GDAL opens the copy, and
zarr-python reads its tables.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

from gdalbridge import (
    BridgeError,
    CancelledError,
    bake,
    check,
    copy_raster,
    copy_to_sidecar,
    list_tables,
    move_raster,
    remove_raster,
    touch,
)
from gdalbridge.cli import main
from gdalbridge.errors import OutputExistsError, RasterNotFoundError
from gdalbridge.gdalio.vsis3 import reached
from ratzarr import ChangedError, DamagedError, NotARatZarrError, RatZarr, StoreError
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, describe, make, new_rat
from tests.servers.web import web_server

ROWS = 30
MARKED = "RAT/x/c/1"


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


class Disk:
    """A directory for rasters, and what is in it."""

    def __init__(self, root):
        self.root = str(root)
        Path(root).mkdir()

    def __truediv__(self, name):
        return f"{self.root}/{name}"

    def contents(self):
        found = {}
        for folder, _, files in os.walk(self.root):
            for name in files:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = Path(path).read_bytes()
        return found

    def put(self, name, content):
        path = Path(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def zarr(self, name):
        import zarr

        return zarr.open_group(f"{self.root}/{name}", mode="r", zarr_format=3)

    def directory(self):
        return self.root


class Bucket:
    """The same in a bucket, below a prefix."""

    def __init__(self, place, prefix):
        self.place, self.prefix = place, prefix

    def __truediv__(self, name):
        return f"s3://{self.place.bucket}/{self.prefix}{name}"

    def contents(self):
        found = self.place.moto.contents(self.place.bucket, self.prefix)
        return {key.removeprefix(self.prefix): content for key, content in found.items()}

    def put(self, name, content):
        self.place.client.put_object(
            Bucket=self.place.bucket, Key=self.prefix + name, Body=content
        )

    def marks(self):
        def head(key):
            return self.place.client.head_object(Bucket=self.place.bucket, Key=key)["Metadata"]

        keys = self.place.keys(self.prefix)
        with ThreadPoolExecutor(4) as pool:
            found = dict(zip(keys, pool.map(head, keys), strict=True))
        return {
            key.removeprefix(self.prefix): metadata["ratzarr"]
            for key, metadata in found.items()
            if "ratzarr" in metadata
        }

    def zarr(self, name):
        return self.place.open(self / name)

    def directory(self):
        return self / ""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A raster with a mask, overviews and tables of its own, and three sidecars."""
    here = Disk(tmp_path_factory.mktemp("made") / "here")
    path = here / "seg.tif"
    with_table = make(path, bands=2, size=(64, 64))
    for band in (1, 2):
        rat = new_rat(
            [
                ("Value", INTEGER, 5, np.arange(ROWS) * band),
                ("x", REAL, 0, np.arange(ROWS) / 8),
                ("s", STRING, 0, ["ü"] * ROWS),
            ],
            ROWS,
        )
        with_table.GetRasterBand(band).SetDefaultRAT(rat)
    del with_table
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "NO")
    dataset = gdal.Open(path)
    dataset.BuildOverviews("NEAREST", [2])
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    del dataset
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", None)
    mask = gdal.Open(f"{path}.msk")
    mask.BuildOverviews("NEAREST", [2])
    del mask
    # Of a dataset opened for reading they go into the .aux.xml.
    dataset = gdal.Open(path)
    dataset.GetRasterBand(1).ComputeStatistics(False)
    del dataset
    for band in (1, 2):
        copy_to_sidecar(path, band=band, chunk_rows=15)
    with RatZarr(f"{path}.texture.rat.zarr") as table:
        table.setRowCount(ROWS)
        table.createColumn("half", np.float32)
        table.createColumn("a/b", np.int8, complete=False)
        table.writeBlock("half", np.arange(ROWS) / 2, 0)
    files = {name for name in here.contents() if ".rat.zarr" not in name}
    assert files == {f"seg.tif{end}" for end in ("", ".aux.xml", ".ovr", ".msk", ".msk.ovr")}
    return here


@pytest.fixture
def full(made, tmp_path):
    """The raster with all that can be beside it."""
    here = Disk(tmp_path / "here")
    shutil.copytree(made.root, here.root, dirs_exist_ok=True)
    return here


@pytest.fixture
def raster(full):
    """The same without overviews and mask, for which GDAL needs many requests on S3."""
    for end in (".ovr", ".msk", ".msk.ovr"):
        os.unlink(full / f"seg.tif{end}")
    return full


@pytest.fixture
def places(tmp_path, moto_s3):
    """Where things can be: a way to make a fresh one of each kind."""
    count = iter(range(100))

    def fresh(kind):
        if kind == "disk":
            return Disk(tmp_path / f"place{next(count)}")
        return Bucket(moto_s3, f"p{next(count)}/")

    return fresh


def upload(disk, bucket):
    """Put a directory of rasters on S3, the chunks of their tables without marks."""
    contents = {bucket.prefix + name: content for name, content in disk.contents().items()}
    bucket.place.moto.put_many(bucket.place.bucket, contents)


# What is not about GDAL's version: an older GDAL needs seconds for each look at a raster on S3.
once = pytest.mark.main_env_only
KINDS = ["disk", pytest.param("s3", marks=once)]
WAYS = [(a, b) for a in ("disk", "s3") for b in ("disk", "s3")]


def start(raster, places, kind):
    """Return the raster's directory, on a disk or copied to S3 by hand."""
    if kind == "disk":
        return raster
    there = places("s3")
    upload(raster, there)
    return there


@contextmanager
def opened(place, name):
    """Open a raster with GDAL alone; told what is beside it, it need not ask for dozens."""
    beside = [one for one in place.contents() if "/" not in one]
    with reached(place / name) as known:
        yield gdal.OpenEx(known, gdal.OF_RASTER, sibling_files=beside)


def table_of(place, name):
    with opened(place, name) as dataset:
        return describe(dataset.GetRasterBand(1).GetDefaultRAT())


def kinds_of(place, name):
    """Return what check finds in the tables of a raster, each with the raster that it names."""
    return {
        one.kind
        for table in list_tables(place / name)
        for report in check(table.path)
        for one in report.findings
    }


@pytest.mark.parametrize(("of", "to"), WAYS)
def test_a_copy_is_the_same_byte_for_byte(full, places, of, to):
    source, target = start(full, places, of), places(to)
    before = source.contents()
    told = []
    report = copy_raster(
        source / "seg.tif",
        target.directory(),
        progress=lambda done, message, data: told.append(done) or 1,
    )
    assert source.contents() == before
    assert target.contents() == before
    assert report.bytes == sum(map(len, before.values()))
    assert report.files[-1] == target / "seg.tif"
    assert told == sorted(told)
    assert told[-1] == 1
    assert table_of(target, "seg.tif") == table_of(full, "seg.tif")
    for one, columns in (("", ["Value", "s", "x"]), (".band2", ["Value", "s", "x"])):
        group = target.zarr(f"seg.tif{one}.rat.zarr")["RAT"]
        assert sorted(group.array_keys()) == columns
        assert group["x"][:].tolist() == (np.arange(ROWS) / 8).tolist()
    [first, named, second] = list_tables(target / "seg.tif")
    assert [first.complete, named.complete, second.complete] == [True, False, True]
    assert kinds_of(target, "seg.tif") == {"unfinished"}


@pytest.mark.parametrize("to", ["disk", "s3"])
@pytest.mark.parametrize("of", ["disk", "s3"])
def test_under_another_name_the_tables_know_their_raster(full, places, of, to):
    source, target = start(full, places, of), places(to)
    before = source.contents()
    copy_raster(source / "seg.tif", target / "other name.v2.tif")
    found = target.contents()
    renamed = {name.replace("seg.tif", "other name.v2.tif", 1): name for name in before}
    assert set(found) == set(renamed)
    changed = {name for name, old in renamed.items() if found[name] != before[old]}
    # The third was never told of a raster.
    assert changed == {f"other name.v2.tif{one}.rat.zarr/RAT/zarr.json" for one in ("", ".band2")}
    for name in changed:
        then, now = (json.loads(t)["attributes"] for t in (before[renamed[name]], found[name]))
        assert now["RASTER"]["name"] == "other name.v2.tif"
        assert now["RASTER"] | {"name": "seg.tif"} == then["RASTER"]
        assert {**now, "RASTER": 0} == {**then, "RASTER": 0}
    assert kinds_of(target, "other name.v2.tif") == {"unfinished"}
    if to == "disk":
        found = [one for report in check(target / "other name.v2.tif") for one in report.findings]
        assert {one.kind for one in found} == {"unfinished"}


@once
def test_chunks_are_marked_on_s3(raster, places):
    """Made for what comes from a disk, kept between places on S3; and then nobody asks twice."""
    first, second, third = places("s3"), places("s3"), places("s3")
    copy_raster(raster / "seg.tif", first.directory())
    copy_raster(first / "seg.tif", second.directory())
    chunks = {name for name in first.contents() if "/c/" in name}
    marks, contents = first.marks(), first.contents()
    assert set(marks) == chunks
    for name, mark in marks.items():
        document = json.loads(contents[name.partition("/c/")[0] + "/zarr.json"])
        assert mark == f"{document['attributes']['COLUMN_ID']}/{ROWS}"
    assert second.marks() == marks
    # Unmarked ones stay so, and are read.
    unmarked = places("s3")
    upload(raster, unmarked)
    copy_raster(unmarked / "seg.tif", third.directory())
    assert third.marks() == {}
    for place in (first, second, third):
        with RatZarr(place / "seg.tif.rat.zarr", readOnly=True) as table:
            assert table.readBlock("x", 5, 20).tolist() == (np.arange(5, 25) / 8).tolist()


@once
def test_rows_of_an_earlier_column_do_not_become_this_ones(raster, places):
    """Only S3 can tell them apart: a copy to a disk would show them."""
    source, target = places("s3"), places("disk")
    copy_raster(raster / "seg.tif", source.directory())
    key = f"seg.tif.rat.zarr/{MARKED}"
    content = source.contents()[key]
    source.place.client.put_object(
        Bucket=source.place.bucket, Key=source.prefix + key, Body=content,
        Metadata={"ratzarr": "0123456789abcdef/30"},
    )  # fmt: skip
    with pytest.raises(DamagedError, match=r"RAT/x/c/1 holds rows of an earlier column"):
        copy_raster(source / "seg.tif", target.directory())
    assert target.contents() == {}
    other = places("s3")
    copy_raster(source / "seg.tif", other.directory())
    assert other.marks()[key] == "0123456789abcdef/30"


@pytest.mark.parametrize(("of", "to"), WAYS)
def test_a_move_leaves_nothing_behind(full, places, of, to):
    source, target = start(full, places, of), places(to)
    source.put("neighbour.tif", b"not mine")
    source.put("seg.tiff.rat.zarr/zarr.json", b"not mine either")
    before = source.contents()
    mine = {n: c for n, c in before.items() if n.startswith("seg.tif") and "tiff" not in n}
    report = move_raster(source / "seg.tif", target.directory())
    assert target.contents() == mine
    assert set(source.contents()) == set(before) - set(mine)
    assert report.action == "move"
    assert table_of(target, "seg.tif")["rows"] == ROWS
    move_raster(target / "seg.tif", target / "new.tif")
    assert kinds_of(target, "new.tif") == {"unfinished"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_already_is_named_and_kept(raster, places, kind):
    source = raster
    for name in ("seg.tif", "seg.tif.ovr", "seg.tif.texture.rat.zarr/x", "seg.tif.more.rat.zarr/x",
                 "seg.tif.aux.xml"):  # fmt: skip
        target = places(kind)
        target.put(name, b"there before")
        whole = target / name.partition("/")[0]
        for work in (copy_raster, move_raster):
            before = source.contents()
            with pytest.raises(OutputExistsError) as error:
                work(source / "seg.tif", target.directory())
            assert str(whole) in str(error.value)
            assert "overwrite=True" in str(error.value)
            assert source.contents() == before
            assert target.contents() == {name: b"there before"}


@pytest.mark.parametrize("kind", KINDS)
def test_overwriting_replaces_the_raster_and_all_of_its_tables(raster, places, kind):
    target = places(kind)
    copy_raster(raster / "seg.tif", target.directory())
    with RatZarr(target / "seg.tif.old.rat.zarr") as table:
        table.createColumn("y", np.int8)
    target.put("seg.txt", b"kept")
    done = call("cp", raster / "seg.tif", target.directory())
    assert done.exit_code == 1
    assert target / "seg.tif.old.rat.zarr" in done.stderr
    done = call("cp", raster / "seg.tif", target.directory(), "--overwrite")
    assert (done.exit_code, done.stderr) == (0, "")
    assert target.contents() == raster.contents() | {"seg.txt": b"kept"}


def test_overwriting_never_removes_what_is_no_table(raster, places):
    target = places("disk")
    copy_raster(raster / "seg.tif", target.directory())
    target.put("seg.tif.rat.zarr/notes.txt", b"precious")
    before = target.contents()
    with pytest.raises(NotARatZarrError, match=r"notes\.txt"):
        copy_raster(raster / "seg.tif", target.directory(), overwrite=True)
    assert target.contents() == before


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_removing(full, places, kind):
    source = start(full, places, kind)
    source.put("seg.tif.txt", b"not mine")
    source.put("seg.txt", b"not mine")
    before = source.contents()
    report = remove_raster(source / "seg.tif", dry_run=True)
    assert report.dry_run
    assert source.contents() == before
    assert len(report.tables) == 3
    assert report.files[-1] == source / "seg.tif"
    with pytest.raises(BridgeError, match="is a table: expected the name of its raster"):
        remove_raster(source / "seg.tif.rat.zarr")
    assert source.contents() == before
    done = call("rm", source / "seg.tif", "--json")
    assert json.loads(done.stdout)["files"] == list(report.files)
    assert set(source.contents()) == {"seg.tif.txt", "seg.txt"}
    with pytest.raises(RasterNotFoundError):
        remove_raster(source / "seg.tif")


@pytest.mark.parametrize("kind", KINDS)
def test_a_raster_whose_name_anothers_begins_with(raster, places, kind):
    """seg.tif.rat.zarr could be the table "tif" of a raster "seg"."""
    source, target = start(raster, places, kind), places(kind)
    short = Path(raster.root, "plain")
    make(short).FlushCache()
    source.put("seg", short.read_bytes())
    short.unlink()
    copy_raster(source / "seg", target.directory())
    assert set(target.contents()) == {"seg"}
    before = source.contents()
    # Over the other one's target, and away: the other's tables stay.
    copy_raster(target / "seg", source / "seg", overwrite=True)
    assert source.contents() == before
    remove_raster(source / "seg")
    assert source.contents() == {n: c for n, c in before.items() if n != "seg"}


@pytest.mark.parametrize("kind", KINDS)
def test_dry_runs_change_nothing(raster, places, kind):
    source, target = start(raster, places, kind), places("disk")
    before = source.contents()
    for verb, args in (("cp", [target.root]), ("mv", [target.root]), ("rm", [])):
        done = call(verb, source / "seg.tif", *args, "--dry-run")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "would be" in done.stdout
        assert "seg.tif.texture.rat.zarr" in done.stdout
    assert source.contents() == before
    assert target.contents() == {}


@pytest.mark.parametrize("work", [copy_raster, move_raster, remove_raster])
def test_links_are_not_followed(raster, places, work, tmp_path):
    target = places("disk")
    args = [] if work is remove_raster else [target.root]
    shutil.copytree(raster / "seg.tif.rat.zarr", tmp_path / "secret")
    for name, goal in (
        ("seg.tif.link.rat.zarr", tmp_path / "secret"),
        ("seg.tif.rat.zarr/RAT/link", tmp_path / "secret"),
        ("seg.tif.rat.zarr/RAT/x/c/7", tmp_path / "secret" / "zarr.json"),
        ("seg.tif.vat.dbf", tmp_path / "secret" / "zarr.json"),
    ):
        os.symlink(goal, raster / name)
        before = raster.contents()
        with pytest.raises((NotARatZarrError, BridgeError), match=r"link|does not belong"):
            work(raster / "seg.tif", *args)
        assert raster.contents() == before
        assert target.contents() == {}
        os.unlink(raster / name)
    os.symlink(raster / "seg.tif", raster / "alias.tif")
    with pytest.raises(BridgeError, match="symbolic link"):
        work(raster / "alias.tif", *args)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_part_of_a_table_is_named(raster, places, kind):
    source, target = start(raster, places, kind), places("disk")
    source.put("seg.tif.band2.rat.zarr/notes.txt", b"precious")
    before = source.contents()
    for verb, args in (("cp", [target.root]), ("mv", [target.root]), ("rm", [])):
        done = call(verb, source / "seg.tif", *args)
        assert done.exit_code == 1
        assert "notes.txt" in done.stderr
    assert source.contents() == before
    assert target.contents() == {}


@pytest.mark.parametrize(("of", "to"), [("disk", "disk"), ("disk", "s3"), ("s3", "disk")])
def test_damage_is_not_copied(raster, places, of, to):
    source, target = start(raster, places, of), places(to)
    content = bytearray(source.contents()["seg.tif.rat.zarr/RAT/x/c/1"])
    content[len(content) // 2] ^= 1
    source.put("seg.tif.rat.zarr/RAT/x/c/1", bytes(content))
    before = source.contents()
    for work in (copy_raster, move_raster):
        # Within one file system nothing is read.
        if work is move_raster and of == to:
            continue
        with pytest.raises(DamagedError, match="RAT/x/c/1"):
            work(source / "seg.tif", target.directory())
        assert target.contents() == {}
        assert source.contents() == before


class Stop:
    """A progress that cancels at the nth report."""

    def __init__(self, after):
        self.left = after

    def __call__(self, done, message, data):
        self.left -= 1
        return int(self.left > 0)


@pytest.mark.parametrize(
    ("of", "to", "after"),
    [("disk", "disk", n) for n in (1, 2, 9, 17, 23)]
    + [
        pytest.param(*way, marks=once)
        for way in (("disk", "s3", 17), ("s3", "disk", 9), ("s3", "s3", 17))
    ],
)
def test_an_interruption_leaves_things_sound_and_is_gone_on_with(raster, places, of, to, after):
    source, target = start(raster, places, of), places(to)
    before = source.contents()
    with pytest.raises(CancelledError) as error:
        copy_raster(source / "seg.tif", target.directory(), progress=Stop(after))
    assert "resume=True" in "".join(error.value.__notes__)
    left = target.contents()
    assert "seg.tif" not in left or left == before
    assert source.contents() == before
    # No table is there that lacks anything.
    for one in ("seg.tif", "seg.tif.texture", "seg.tif.band2"):
        if f"{one}.rat.zarr/RAT/zarr.json" in left:
            whole = {n: c for n, c in before.items() if n.startswith(f"{one}.rat.zarr")}
            assert whole.items() <= left.items()
    report = copy_raster(source / "seg.tif", target.directory(), resume=True)
    assert target.contents() == before
    assert report.files[-1] == target / "seg.tif"


KILLED = """
import itertools, os, signal, sys
import gdalbridge
last, steps = int(sys.argv[3]), itertools.count(1)
def step(*_):
    if next(steps) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1
def listen(event, arguments):
    if event in ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"):
        step()
sys.addaudithook(listen)
getattr(gdalbridge, sys.argv[4])(sys.argv[1], sys.argv[2], progress=step)
"""
"""Dies at a change of a file's or directory's name, or where it tells how far it is."""


@once
@pytest.mark.parametrize(
    ("work", "to", "after"),
    [("copy", "disk", 3), ("copy", "disk", 90), ("move", "disk", 3), ("move", "s3", 20),
     ("move", "s3", 28), ("move", "s3", 40), ("move", "s3", 60), ("move", "s3", 80),
     ("move", "s3", 95)],
)  # fmt: skip
@pytest.mark.thorough
def test_a_process_that_is_killed(raster, places, work, to, after):
    target = places(to)
    before = raster.contents()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, raster / "seg.tif", target.directory(), str(after),
         f"{work}_raster"],
        check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    # Every byte is in the one place or in the other; the raster is still where it was.
    left = raster.contents()
    assert before.items() <= (target.contents() | left).items()
    assert "seg.tif" in left
    assert left == before or work == "move"
    done = call(
        {"copy": "cp", "move": "mv"}[work], raster / "seg.tif", target.directory(), "--resume"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    assert target.contents() == before
    assert raster.contents() == (before if work == "copy" else {})


def _is_document(name):
    return name.endswith("zarr.json")


def _is_table(name):
    return ".rat.zarr/" in name


REMOVED = {
    "the tables' documents": lambda name: name.endswith("RAT/zarr.json"),
    "the groups' documents": lambda name: name.endswith("rat.zarr/zarr.json"),
    "all documents": _is_document,
    "all chunks": lambda name: _is_table(name) and not _is_document(name),
    "all but the tables' documents": lambda name: (
        _is_table(name) and not name.endswith("RAT/zarr.json")
    ),
    "one chunk": lambda name: name.endswith("tif.rat.zarr/RAT/x/c/1"),
    "a table": lambda name: name.startswith("seg.tif.band2.rat.zarr"),
    "all but the raster": lambda name: name != "seg.tif",
    "the raster": lambda name: name == "seg.tif",
    "all but a chunk": lambda name: not name.endswith("tif.rat.zarr/RAT/x/c/1"),
    "all": lambda name: True,
}
"""What a move can have removed from its source."""


@pytest.mark.parametrize(
    ("of", "to"), [("disk", "disk"), *(pytest.param(*way, marks=once) for way in WAYS[1:])]
)
def test_the_rest_of_a_move_is_removed(raster, places, of, to):
    """The whole copy was compared before anything was removed; what is left is compared again."""
    source, target = start(raster, places, of), places(to)
    before = source.contents()
    copy_raster(source / "seg.tif", target / "new.tif")
    moved = target.contents()
    # Requests take time; with S3 a few of these are enough.
    few = ["all chunks", "the tables' documents", "the raster"]
    for removed in REMOVED if of == to == "disk" else few:
        if of == "disk":
            shutil.rmtree(source.root)
            Path(source.root).mkdir()
        for name, content in before.items():
            if not REMOVED[removed](name):
                source.put(name, content)
            elif of == "disk" and _is_table(name):
                # Directories go after the last file.
                Path(source / name).parent.mkdir(parents=True, exist_ok=True)
        move_raster(source / "seg.tif", target / "new.tif", resume=True)
        assert target.contents() == moved, removed
        assert source.contents() == {}, removed
        if of == "disk":
            assert os.listdir(source.root) == [], removed


@pytest.mark.parametrize(("of", "to"), [("disk", "disk"), pytest.param("s3", "s3", marks=once)])
@pytest.mark.parametrize("key", [MARKED, "RAT/x/zarr.json", "RAT/zarr.json", "zarr.json"])
def test_a_rest_that_is_not_at_the_target_stays(raster, places, of, to, key):
    """Changed or missing there: it is named, and everything stays in both places."""
    whole, target = raster.contents(), places(to)
    source = places(of)
    copy_raster(raster / "seg.tif", target.directory())
    copied = target.contents()
    first = "seg.tif.rat.zarr/"
    for name, content in whole.items():
        if name != f"{first}RAT/s/c/0" and not name.endswith("2.rat.zarr/RAT/zarr.json"):
            source.put(name, content)
    before = source.contents()
    content = copied[first + key]
    target.put(first + key, content.replace(b"{", b"{ ", 1) if b"{" in content else content[::-1])
    there = target.contents()
    assert there != copied
    done = call("mv", source / "seg.tif", target.directory(), "--resume")
    assert done.exit_code == 1
    assert f"its {key} differs from that of {source / first[:-1]}" in done.stderr
    assert "overwrite" not in done.stderr
    assert (source.contents(), target.contents()) == (before, there)


@pytest.mark.parametrize("missing", ["RAT/x/c/1", "RAT/zarr.json"])
def test_a_rest_without_its_table(raster, places, missing):
    target = places("disk")
    copy_raster(raster / "seg.tif", target.root)
    os.unlink(raster / "seg.tif.rat.zarr/RAT/zarr.json")
    os.unlink(target / f"seg.tif.rat.zarr/{missing}")
    before, there = raster.contents(), target.contents()
    with pytest.raises(
        NotARatZarrError, match=rf"{missing} does not exist|only a part of a table"
    ):
        move_raster(raster / "seg.tif", target.root, resume=True)
    assert (raster.contents(), target.contents()) == (before, there)
    for verb, args in (("cp", [target / "x.tif"]), ("mv", [target / "x.tif"]), ("rm", [])):
        done = call(verb, raster / "seg.tif", *args)
        assert done.exit_code == 1
        assert "a part of one" in done.stderr
        assert "resume the copy or move" in done.stderr
    assert (raster.contents(), target.contents()) == (before, there)


def test_only_a_move_takes_what_a_table_has_lost(raster, places):
    target = places("disk")
    copy_raster(raster / "seg.tif", target.root)
    os.unlink(raster / f"seg.tif.rat.zarr/{MARKED}")
    before = target.contents()
    with pytest.raises(NotARatZarrError, match="already exists"):
        copy_raster(raster / "seg.tif", target.root, resume=True)
    assert target.contents() == before


@pytest.mark.skipif(gdal.GetDriverByName("ENVI") is None, reason="this GDAL has no ENVI driver")
@pytest.mark.parametrize("linked", [False, True])
def test_a_raster_that_can_not_be_opened_without_its_other_file(tmp_path, places, linked):
    """A move has removed that already, or has just given the raster its second name."""
    here, target = Disk(tmp_path / "here"), places("disk")
    plain = str(tmp_path / "plain.tif")
    make(plain).FlushCache()
    gdal.Translate(here / "seg.dat", plain, format="ENVI")
    before = here.contents()
    assert {"seg.dat", "seg.hdr"} <= set(before)
    if linked:
        for name in before:
            os.link(here / name, target / name)
    else:
        copy_raster(here / "seg.dat", target.root)
    os.unlink(here / "seg.hdr")
    with pytest.raises(BridgeError):
        copy_raster(here / "seg.dat", target / "more.dat")
    move_raster(here / "seg.dat", target.root, resume=True)
    assert here.contents() == {}
    assert target.contents() == before


def test_a_raster_is_not_its_own_target(raster, tmp_path):
    """Only a second hard link is another file; a link to the directory leads to the same one."""
    os.link(raster / "seg.tif", tmp_path / "more.tif")
    os.symlink(raster.root, tmp_path / "link")
    before = raster.contents()
    for resume in (False, True):
        with pytest.raises(BridgeError, match="are the same file"):
            move_raster(raster / "seg.tif", tmp_path / "link" / "seg.tif", resume=resume)
    with pytest.raises(BridgeError, match="are the same file"):
        move_raster(raster / "seg.tif", tmp_path / "more.tif")
    os.symlink(raster / "seg.tif.rat.zarr", tmp_path / "new.tif.rat.zarr")
    with pytest.raises(NotARatZarrError, match="is the same directory"):
        move_raster(raster / "seg.tif", tmp_path / "new.tif", resume=True)
    assert raster.contents() == before


def test_resuming_does_not_take_anothers_place(raster, places):
    target = places("disk")
    for name, content in (
        ("seg.tif.rat.zarr/zarr.json", b"{}"),
        ("seg.tif.rat.zarr/data.bin", b"x"),
        ("seg.tif", b"another raster"),
    ):
        target.put(name, content)
        with pytest.raises((NotARatZarrError, BridgeError)):
            copy_raster(raster / "seg.tif", target.root, resume=True)
        assert target.contents()[name] == content
        shutil.rmtree(target.root)
        Path(target.root).mkdir()
    copy_raster(raster / "seg.tif", target.root)
    with RatZarr(target / "seg.tif.rat.zarr") as table:
        table.writeBlock("x", [1.0], 0)
    before = target.contents()
    with pytest.raises(NotARatZarrError, match="is a different table"):
        copy_raster(raster / "seg.tif", target.root, resume=True)
    assert target.contents() == before


@once
def test_a_source_that_changes_meanwhile(raster, places):
    source, target = raster, places("s3")
    done = []

    def writes(fraction, message, data):
        if fraction > 0.9 and not done:
            done.append(1)
            with RatZarr(source / "seg.tif.rat.zarr") as table:
                table.writeBlock("x", [99.0], 3)
        return 1

    with pytest.raises(ChangedError, match="changed"):
        move_raster(source / "seg.tif", target.directory(), progress=writes)
    assert done
    with RatZarr(source / "seg.tif.rat.zarr", readOnly=True) as table:
        assert table.readBlock("x", 3, 1).tolist() == [99.0]
    assert "seg.tif" in source.contents()


@once
def test_large_rasters_go_in_pieces(tmp_path, places):
    """A piece and a bit; several requests to S3, one between places there."""
    here = Disk(tmp_path / "here")
    dataset = make(here / "big.tif", size=(4096, 4500))
    noise = np.random.default_rng(1).integers(0, 255, (4500, 4096), np.uint8)
    dataset.GetRasterBand(1).WriteArray(noise)
    del dataset
    before = here.contents()
    assert len(before["big.tif"]) > 16 * 2**20
    first, second, back = places("s3"), places("s3"), places("disk")
    copy_raster(here / "big.tif", first.directory())
    client, bucket = first.place.client, first.place.bucket
    etag = client.head_object(Bucket=bucket, Key=f"{first.prefix}big.tif")["ETag"]
    assert etag.endswith('-2"')
    copy_raster(first / "big.tif", second.directory())
    copy_raster(second / "big.tif", back.root)
    assert first.contents() == second.contents() == back.contents() == before
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    # An upload that is given up leaves no parts to be paid for.
    with pytest.raises(CancelledError):
        copy_raster(here / "big.tif", places("s3").directory(), progress=Stop(2))
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


@once
def test_with_storage_options_alone(raster, tmp_path, moto, moto_s3, monkeypatch, capfd):
    """Nothing in the environment says where S3 is; in the bucket's top GDAL needs it, too."""
    variables = moto.environment
    for name in variables:
        monkeypatch.delenv(name)
    options = {
        "key": variables["AWS_ACCESS_KEY_ID"],
        "secret": variables["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": variables["AWS_ENDPOINT_URL"],
        "client_kwargs": {"region_name": variables["AWS_DEFAULT_REGION"]},
    }
    # The only client, named: as good as not.
    options["client"] = "s3fs"
    top, other = Bucket(moto_s3, ""), f"s3://{moto.fresh_bucket()}/"
    before = raster.contents()
    copy_raster(raster / "seg.tif", top / "", storage_options=options)
    assert top.contents().keys() == before.keys()
    tables = list_tables(top / "seg.tif", storage_options=options)
    assert [one.problem for one in tables] == [None] * 3
    changed = tmp_path / "changed.tif"
    changed.write_bytes(before["seg.tif"])
    dataset = gdal.Open(str(changed), gdal.GA_Update)
    for band in range(1, dataset.RasterCount + 1):
        values = dataset.GetRasterBand(band).ReadAsArray()
        dataset.GetRasterBand(band).WriteArray(values + 1)
    del dataset
    moto_s3.client.upload_file(str(changed), moto_s3.bucket, "seg.tif")
    assert all(one.changes for one in touch(top / "seg.tif", storage_options=options)[:2])
    bake(top / "seg.tif", tmp_path / "out.tif", band=1, columns=["x"], storage_options=options)
    move_raster(top / "seg.tif", other, storage_options=options)
    assert top.contents() == {}
    report = remove_raster(f"{other}seg.tif", storage_options=options)
    assert len(report.tables) == 3
    assert moto.contents(other.split("/")[2], "") == {}
    # GDAL has not gone looking for a server, or for credentials, that nobody told it of.
    assert "no-aws-config" not in capfd.readouterr().err


def test_between_buckets(raster, moto_s3, moto):
    source = Bucket(moto_s3, "a/")
    upload(raster, source)
    other = moto.fresh_bucket()
    copy_raster(source / "seg.tif", f"s3://{other}/")
    assert moto.contents(other, "") == source.contents()


@once
def test_between_servers_all_passes_through_here(raster, counted_s3, moto):
    """GDAL is told of another server for the one bucket: the first one could not copy to it."""
    place, proxy = counted_s3
    source, other = Bucket(place, "a/"), moto.fresh_bucket()
    upload(raster, source)
    told = {"AWS_S3_ENDPOINT": moto.url.removeprefix("http://"), "AWS_HTTPS": "NO"}
    for name, value in told.items():
        gdal.SetPathSpecificOption(f"/vsis3/{other}/", name, value)
    proxy.clear()
    try:
        copy_raster(source / "seg.tif", f"s3://{other}/")
    finally:
        for name in told:
            gdal.SetPathSpecificOption(f"/vsis3/{other}/", name, None)
    assert moto.contents(other, "") == source.contents()
    assert set(proxy.counts()) <= {"GET", "HEAD"}
    read = {one.key for one in proxy.requests if one.method == "GET"}
    assert {name for name in source.contents() if not any(k.endswith(name) for k in read)} == set()


def test_what_a_vrt_is_made_of_stays(raster, places):
    target = places("disk")
    gdal.Translate(raster / "seg.vrt", raster / "seg.tif", format="VRT")
    before = raster.contents()
    for verb in ("cp", "mv"):
        done = call(verb, raster / "seg.vrt", target.root)
        assert done.exit_code == 1
        assert "refers to other files" in done.stderr
    assert raster.contents() == before
    report = remove_raster(raster / "seg.vrt")
    assert set(before) - set(raster.contents()) == {"seg.vrt"}
    assert any(name.endswith("seg.tif") for name in report.left)


def test_a_world_file_takes_the_rasters_name(tmp_path, places):
    here, target = Disk(tmp_path / "here"), places("s3")
    make(here / "w.tif", PROFILE="BASELINE").FlushCache()
    here.put("w.tfw", b"2\n0\n0\n-2\n100\n200\n")
    here.put("w.txt", b"not mine")
    copy_raster(here / "w.tif", target / "moved.tif")
    assert set(target.contents()) == {"moved.tif", "moved.tfw"}
    with opened(target, "moved.tif") as dataset:
        assert dataset.GetGeoTransform()[0] == 99
    with pytest.raises(BridgeError, match=r"w\.tfw would be a file of"):
        copy_raster(here / "w.tif", here / "w.img")
    with pytest.raises(BridgeError, match=r"w\.tfw would be a file of"):
        copy_raster(here / "w.tif", here / "w.img", overwrite=True)
    assert "w.tfw" in here.contents()


def test_tables_of_another_directory_come_beside_the_copy(raster, places, tmp_path, monkeypatch):
    target, proxy = places("disk"), tmp_path / "tables"
    proxy.mkdir()
    monkeypatch.setenv("GDALBRIDGE_SIDECAR_DIR", str(proxy))
    from gdalbridge.sidecars.naming import find_sidecars

    moved = f"{proxy}/{os.path.basename(_proxied(raster / 'seg.tif'))}"
    shutil.move(raster / "seg.tif.rat.zarr", moved)
    with RatZarr(moved) as table:
        recorded = table.getRatAttributeMapping()["RASTER"]
        name = os.path.relpath(raster / "seg.tif", proxy)
        table.getRatAttributeMapping()["RASTER"] = recorded | {"name": name}
    assert moved in [one.path for one in find_sidecars(raster / "seg.tif")]
    move_raster(raster / "seg.tif", target.root)
    assert "seg.tif.rat.zarr/RAT/zarr.json" in target.contents()
    assert os.listdir(proxy) == []
    with RatZarr(target / "seg.tif.rat.zarr", readOnly=True) as table:
        assert table.getRatAttributeMapping()["RASTER"]["name"] == "seg.tif"


def _proxied(path):
    import hashlib

    digest = hashlib.sha256(path.encode()).hexdigest()[:12]
    return f"{digest}-seg.tif.rat.zarr"


def test_what_can_not_be_meant(raster, places, tmp_path):
    path = raster / "seg.tif"
    before = raster.contents()
    for target, words in (
        (path, "are the same file"),
        (raster.root, "are the same file"),
        (tmp_path / "none" / "x.tif", "not a directory"),
        ("https://host/x.tif", "local disk and S3"),
        ("/vsimem/x.tif", "file system"),
    ):
        with pytest.raises((BridgeError, PermissionError), match=words):
            copy_raster(path, target)
    with pytest.raises(RasterNotFoundError):
        copy_raster(tmp_path / "none.tif", raster.root)
    with pytest.raises(BridgeError, match="use only one"):
        copy_raster(path, tmp_path, overwrite=True, resume=True)
    assert call("cp", path, tmp_path, "--overwrite", "--resume").exit_code == 2
    with pytest.raises(BridgeError, match="Pass a path"):
        copy_raster(gdal.Open(path), tmp_path)
    assert raster.contents() == before


def test_a_bucket_that_is_not_there(raster, moto_s3):
    with pytest.raises((StoreError, FileNotFoundError)):
        copy_raster(raster / "seg.tif", "s3://no-such-bucket-at-all/")


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_ls(raster, places, kind):
    source = start(raster, places, kind)
    rows = {}
    for place in (source / "seg.tif", source.directory()):
        done = call("ls", place, "--json")
        assert done.exit_code == 0
        rows[place] = sorted(json.loads(done.stdout), key=lambda one: one["path"])
    one, other = rows.values()
    # Of the third the raster is not known: in a directory its name says no more.
    assert [r for r in one if r["name"] is None] == [
        r for r in other if "texture" not in r["path"]
    ]
    found = {(r["band"], r["name"]): r for r in one}
    assert set(found) == {(1, None), (2, None), (1, "texture")}
    for (band, name), row in found.items():
        middle = f".band{band}" * (band > 1) + f".{name}" * (name is not None)
        path = f"seg.tif{middle}.rat.zarr"
        assert row["path"] == source / path
        assert (row["rows"], row["columns"]) == (ROWS, 2 if name else 3)
        size = sum(len(c) for n, c in source.contents().items() if n.startswith(path))
        assert row["bytes"] == size
        assert row["complete"] == (name is None)
    done = call("ls", source / "seg.tif")
    assert len(done.stdout.splitlines()) == 5
    assert source / "seg.tif.texture.rat.zarr" in done.stdout
    # A directory of S3 is seldom named with the slash that tells it from a raster.
    without = call("ls", source.directory().rstrip("/"), "--json")
    assert [one["columns"] for one in json.loads(without.stdout)] == [
        one["columns"] for one in json.loads(call("ls", source.directory(), "--json").stdout)
    ]


def test_ls_of_what_can_not_be_read(raster):
    raster.put("seg.tif.band2.rat.zarr/RAT/zarr.json", b"{")
    done = call("ls", raster.root)
    assert done.exit_code == 1
    assert "damaged" in done.stderr
    assert len(done.stdout.splitlines()) == 5
    none = call("ls", raster / "none.tif")
    assert (none.exit_code, none.stdout) == (1, "")
    assert "none.tif does not exist" in none.stderr


def test_ls_of_a_web_server(raster):
    with web_server(raster.root) as web:
        [found] = list_tables(f"{web.url}/seg.tif")
        done = call("ls", f"{web.url}/seg.tif")
    assert (found.rows, found.columns, found.problem, found.bytes) == (ROWS, 3, None, None)
    assert (done.exit_code, " ? " in done.stdout) == (0, True)


@pytest.mark.parametrize("verb", ["bake", "cp", "ls", "mv", "rm", "touch"])
def test_gdals_options_can_be_given(verb):
    done = call(verb, "--config", "NO_EQUALS_SIGN", "x", "y")
    assert done.exit_code == 2
    assert "expected NAME=VALUE" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks like these are elsewhere only")
def test_a_move_that_is_killed_before_the_table_knows_its_new_name(raster):
    """Somebody holds the lock of the table's document: it has its new name, and can't learn it."""
    import fcntl

    old, new = raster / "seg.tif", raster / "new.tif"
    with open(f"{old}.rat.zarr/RAT/zarr.json", "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        program = "import sys, gdalbridge; gdalbridge.move_raster(*sys.argv[1:])"
        with subprocess.Popen([sys.executable, "-c", program, old, new]) as moving:
            until = time.monotonic() + 60
            while not os.path.isdir(f"{new}.rat.zarr") and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.1)
            moving.kill()
            assert moving.wait() == -signal.SIGKILL
    assert Path(old).is_file()
    assert not Path(new).exists()

    def remembered(name):
        return raster.zarr(f"{name}.rat.zarr")["RAT"].attrs["RASTER"]["name"]

    assert remembered("new.tif") == "seg.tif"
    [report] = check(f"{new}.rat.zarr")
    [words] = [one.words for one in report.findings if "interrupted" in one.words]
    assert f"mv {old} {new} --resume" in words
    done = call("mv", old, new, "--resume")
    assert (done.exit_code, done.stderr) == (0, "")
    assert not Path(old).exists()
    assert Path(new).is_file()
    assert remembered("new.tif") == "new.tif"
    found = [one for report in check(new) for one in report.findings]
    assert not [one for one in found if one.kind in ("raster", "unchecked")]
