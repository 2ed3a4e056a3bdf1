"""The conformance suite on a local disk, and what only a local disk has."""

import gc
import os
import pathlib
import signal
import sys
import weakref

import numpy as np
import pytest

from ratzarr import RatZarr, RatZarrError
from ratzarr.stores.base import parse
from ratzarr.stores.local import LocalObjects
from ratzarr.testing.helpers import make, refused
from tests.audits import listening, recorded
from tests.ratzarr.conformance import TableConformance


class TestTablesOnLocalDisk(TableConformance):
    examples = 60

    @pytest.fixture
    def place(self, local):
        return local


def test_pathlib(local):
    path = pathlib.Path(local.new())
    with RatZarr(path) as table:
        table.setRowCount(3)
    assert RatZarr.exists(path)
    assert RatZarr.isValidRatZarr(path)
    assert RatZarr(str(path), readOnly=True).rowCount == 3
    RatZarr.delete(path)
    assert not path.exists()


def test_blocks_are_let_go_when_the_caller_lets_go(local):
    """And not only when Python next looks for circles: until then there can be many of them."""
    with make(local.new(), 8, a=("int32",), b=("float64", 2)) as table:
        for name in ("a", "b"):
            table.writeBlock(name, np.ones((8, 2))[:, : table.getColumnWidth(name)].squeeze(), 0)
            gc.disable()
            try:
                block = table.readBlock(name, 0, 8)
                seen = weakref.ref(block if block.base is None else block.base)
                assert seen() is not None
                del block
                assert seen() is None
            finally:
                gc.enable()


def test_file_urls(local):
    path = local.new()
    with RatZarr(f"file://{path}") as table:
        table.setRowCount(3)
    with RatZarr(path, create=False) as table:
        assert table.rowCount == 3
    assert RatZarr.exists(f"file://{path}")
    RatZarr.delete(f"file://{path}")
    assert not os.path.lexists(path)


def test_relative_paths(local, monkeypatch):
    """The directory that counts is that of the opening, not that of a later use."""
    monkeypatch.chdir(local.root)
    with RatZarr("x.rat.zarr") as table:
        table.setChunkSize(4)
        table.setRowCount(3)
        table.createColumn("a", "int32")
        (local.root / "elsewhere").mkdir()
        monkeypatch.chdir(local.root / "elsewhere")
        table.writeBlock("a", np.arange(3), 0)
        assert table.readBlock("a", 0, 3).tolist() == [0, 1, 2]
    assert os.listdir(local.root / "elsewhere") == []
    assert RatZarr.isValidRatZarr("../x.rat.zarr")
    assert RatZarr.isValidRatZarr("./../elsewhere/../x.rat.zarr/.")


def test_a_directory_that_is_missing(local):
    """Is made, as zarr does it, or refused in words; never half."""
    url = f"{local.root}/no/such/directory/x.zarr"
    try:
        with RatZarr(url) as table:
            table.setRowCount(1)
    except RatZarrError:
        assert local.everything() == {}
    else:
        assert RatZarr.isValidRatZarr(url)


def test_no_permission(local):
    if os.geteuid() == 0:
        # root may write anywhere but below a file
        local.put(f"{local.root}/file", "", b"x")
        url = f"{local.root}/file/x.zarr"
    else:
        (local.root / "locked").mkdir(mode=0o500)
        url = f"{local.root}/locked/x.zarr"
    with refused(local, url):
        RatZarr(url)


@pytest.mark.parametrize("slash", ["", "/"])
def test_deleting_a_symlink_spares_what_it_leads_to(local, slash):
    target = local.new()
    with make(target, 9, a=("int32",)) as table:
        table.writeBlock("a", np.arange(9), 0)
    before = local.objects(target)
    link = local.new("link.zarr")
    os.symlink(target, link)
    try:
        RatZarr.delete(link + slash)
    except RatZarrError:
        assert os.path.islink(link)
    assert local.objects(target) == before


@pytest.mark.parametrize("where", ["RAT/linked", "linked", "RAT/a/c/linked", "RAT/a/c/9"])
@pytest.mark.parametrize("what", ["file", "directory", "nothing"])
def test_symlinks_inside_a_store_are_not_followed(local, where, what):
    url = local.new()
    with make(url, 9, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(9), 0)
    precious = pathlib.Path(local.new("precious"))
    if what == "file":
        precious.write_bytes(b"precious")
    elif what == "directory":
        precious.mkdir()
        (precious / "file").write_bytes(b"precious")
    os.symlink(precious, f"{url}/{where}")
    before = local.everything()
    try:
        RatZarr.delete(url)
    except RatZarrError:
        assert local.everything() == before
    if what == "file":
        assert precious.read_bytes() == b"precious"
    elif what == "directory":
        assert (precious / "file").read_bytes() == b"precious"


def test_reading_and_writing_through_a_symlink(local):
    target = local.new()
    make(target, 9, a=("int32",)).close()
    link = local.new("link.zarr")
    os.symlink(target, link)
    with RatZarr(link) as table:
        table.writeBlock("a", np.arange(9), 0)
    with RatZarr(target, readOnly=True) as table:
        assert table.readBlock("a", 0, 9).tolist() == list(range(9))


def test_nothing_of_a_write_is_left_beside_it(local):
    url = local.new()
    with make(url, 9, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(9), 0)
        table.writeBlock("a", np.array([5]), 5)
        table.setRowCount(6)
        table.getRatAttributeMapping()["x"] = 1
    names = {pathlib.Path(key).name for key in local.everything()}
    assert names <= {"d1", "seg.tif.rat.zarr", "zarr.json", "RAT", "a", "c", "0", "1"}


def test_two_locations_of_one_name_do_not_meet(local):
    """A path with a colon is a path, not a URL of a scheme nobody knows."""
    url = local.new("a:b.zarr")
    with RatZarr(url) as table:
        table.setRowCount(2)
    assert pathlib.Path(url).is_dir()


def test_a_directory_of_other_files_is_not_taken_over(local):
    url = local.new()
    local.put(url, "notes.txt", b"precious")
    with refused(local, url, "notes.txt"):
        RatZarr(url)


def test_an_empty_directory_is_as_good_as_none(local):
    url = local.new()
    pathlib.Path(url).mkdir()
    assert not RatZarr.isValidRatZarr(url)
    with RatZarr(url) as table:
        table.setRowCount(1)
    assert RatZarr.isValidRatZarr(url)


def test_cutting_off_thousands_of_chunks(local):
    """Of which some are there and some not; those that stay, and the next column's, stay."""
    url = local.new()
    rows = 2500
    with make(url, rows, chunk=1, a=("int8",), ab=("int8",)) as table:
        for name in ("a", "ab"):
            table.writeBlock(name, np.ones(1500), 0)
            table.writeBlock(name, np.ones(3), rows - 3)
        table.setRowCount(2)
    chunks = {key for key in local.objects(url) if "/c/" in key}
    assert chunks == {f"RAT/{name}/c/{n}" for name in ("a", "ab") for n in (0, 1)}
    with RatZarr(url) as table:
        table.setRowCount(rows)
        assert table.readBlock("a", 0, rows).tolist() == [1, 1] + [0] * (rows - 2)


def test_a_temporary_file_is_not_swept_away_under_its_writer(local):
    """A sweeper saw it in the moment before its writer took its lock."""
    url = local.new()
    RatZarr(url).close()
    other, seen, swept = LocalObjects(parse(url)), [], []

    def sweep_meanwhile(event, arguments):
        if event == "fcntl.flock" and not seen:
            seen.append("looking")
            seen.extend(other.litter())
        elif event == "open" and arguments[0] == "chunk" and not swept:
            swept.append(seen[1:])
            other.sweep(seen[1:])

    with listening(sweep_meanwhile):
        LocalObjects(parse(url)).put("RAT/chunk", b"data")
    assert [len(names) for names in swept] == [1]
    assert local.content(url, "RAT/chunk") == b"data"
    assert [key for key in local.objects(url) if key.endswith(".partial")] == []


def test_a_document_is_removed_after_what_it_describes(local):
    """A process that is killed while it deletes a table leaves no chunks without a column."""
    url = local.new()
    with RatZarr(url) as table:
        table.setChunkSize(2)
        table.setRowCount(6)
        for name in ("a", "zz"):
            table.createColumn(name, "int8")
            table.writeBlock(name, np.ones(6), 0)
    with recorded("os.remove") as removed:
        RatZarr.delete(url)
    assert [name for name, _ in removed][-4:] == ["zarr.json"] * 4
    assert sorted(name for name, _ in removed[:-4]) == ["0", "0", "1", "1", "2", "2"]
    assert not os.path.lexists(url)


def _set_attribute(table, number):
    table.getColumnAttributeMapping("a")["number"] = number


def _write_whole_chunk(table, number):
    table.writeBlock("a", [number] * 4, 0)


def _write_part_of_a_chunk(table, number):
    table.writeBlock("a", [number], 1)


def _write_last_chunk(table, number):
    table.writeBlock("a", [number], 4)


@pytest.mark.parametrize(
    "change", [_set_attribute, _write_whole_chunk, _write_part_of_a_chunk, _write_last_chunk]
)
# A file that Python closes as nothing refers to it any more is closed, too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_step_leaves_no_lock_behind(tmp_path, change):
    """Python looks for Ctrl-C after each call: what was to be left sound can be written then."""
    path = tmp_path / "t.rat.zarr"
    with RatZarr(path) as table:
        table.setChunkSize(4)
        table.setRowCount(5)
        table.createColumn("a", "i4")

    class Stuck(BaseException):
        pass

    def stuck(*_):
        raise Stuck

    before = signal.signal(signal.SIGALRM, stuck)
    interrupted = 0
    try:
        with RatZarr(path) as table:
            for allowed in range(10_000):
                left = iter(range(allowed))

                def interrupt(_frame, event, _function, left=left):
                    if event in ("call", "c_return") and next(left, None) is None:
                        sys.setprofile(None)
                        raise KeyboardInterrupt

                sys.setprofile(interrupt)
                try:
                    change(table, allowed)
                except KeyboardInterrupt:
                    sys.setprofile(None)
                    interrupted += 1
                    signal.setitimer(signal.ITIMER_REAL, 10)
                    # While the exception, and all that it refers to, is there.
                    change(table, -allowed)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                else:
                    break
                finally:
                    sys.setprofile(None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 100
    with RatZarr(path, readOnly=True) as table:
        if change is _set_attribute:
            assert table.getColumnAttributeMapping("a")["number"] == interrupted
        else:
            row = 4 if change is _write_last_chunk else 1
            assert table.readBlock("a", row, 1).tolist() == [interrupted]


def test_files_are_opened_in_one_step_where_no_link_is_on_the_way(tmp_path, monkeypatch):
    """The root itself may be a link, and may lead elsewhere the next time."""
    for name, value in (("one", 1), ("two", 2)):
        with RatZarr(tmp_path / name) as table:
            table.setRowCount(10)
            table.createColumn("a", "i4")
            table.writeBlock("a", np.full(10, value), 0)
    link = tmp_path / "link"
    for name, value in (("one", 1), ("two", 2)):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        with RatZarr(link, readOnly=True) as table:
            table.getColumnDtype("a")
            with recorded("open") as opened:
                assert table.readBlock("a", 0, 10).tolist() == [value] * 10
            # The second time the name is another's: the way is gone step by step.
            assert walked(opened) == (name == "two")
    # So it is where the system doesn't say what was opened.
    monkeypatch.setattr(os, "readlink", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    with RatZarr(tmp_path / "one", readOnly=True) as table:
        table.getColumnDtype("a")
        with recorded("open") as opened:
            assert table.readBlock("a", 0, 10).tolist() == [1] * 10
        assert walked(opened)


def walked(opened):
    """Return whether the column's directory was opened on the way to a file in it."""
    return "a" in [path for path, *_ in opened]
