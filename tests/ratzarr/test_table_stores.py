"""The conformance suite in zarr's stores, and what only they have."""

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import icechunk
import numpy as np
import obstore.store
import pytest
import zarr
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

from ratzarr import ArgumentError, ChangedError, RatZarr, RatZarrError, StoreError
from ratzarr.stores.local import LocalObjects
from ratzarr.stores.open import open_place
from ratzarr.testing.helpers import STRING, make
from tests.places import StorePlace
from tests.ratzarr.conformance import TableConformance

# Nothing here has to do with GDAL, and it takes a minute.
pytestmark = pytest.mark.main_env_only


class TestTablesInAMemoryStore(TableConformance):
    examples = 8

    @pytest.fixture
    def place(self):
        return StorePlace(MemoryStore())


class IcechunkPlace(StorePlace):
    def put(self, url, key, content):
        # No file can be beside a group there.
        if key:
            super().put(url, key, content)


@pytest.mark.thorough
class TestTablesInIcechunk(TableConformance):
    examples = 8

    @pytest.fixture
    def place(self):
        repository = icechunk.Repository.create(icechunk.in_memory_storage())
        return IcechunkPlace(repository.writable_session("main").store, "IcechunkStore")

    # It holds groups, arrays and their chunks, and looks at what it is given: what these put there
    # can't be there (test_what_icechunk_holds).
    test_a_broken_document = None
    test_a_place_with_other_files_is_not_taken_over = None
    test_a_plain_file = None
    test_a_plain_file_is_there = None
    test_a_store_in_another_zarr_format = None
    test_consolidated_metadata_is_ignored = None
    test_foreign_objects_inside = None
    # A group goes with all that is in it.
    test_a_part_of_a_table_is_refused = None
    # Nor does its JSON have NaN (test_icechunk_takes_no_nan).
    test_nan_and_infinity_are_written_as_zarr_writes_them = None
    test_what_is_no_column_is_none = None

    @pytest.mark.parametrize("readable", ["group", "array", "group with RAT array"])
    def test_other_things(self, place, readable):
        super().test_other_things(place, readable)

    @pytest.mark.parametrize("length", [1, 4, 20, -1])
    def test_a_chunk_cut_short(self, place, length):
        super().test_a_chunk_cut_short(place, length)

    @pytest.mark.parametrize(
        ("key", "content"),
        [
            ("notes.txt", b"x"), ("RAT/notes.txt", b"x"), ("RAT/a/notes.txt", b"x"),
            ("RAT/a/c/0.bak", b"x"), ("RAT/a/c/-1", b"x"), (".zgroup", b"{}"), ("", b"x"),
            ("RAT/a/c/0", b""), ("RAT/zarr.json", b"{"), ("RAT/a/zarr.json", b"{}"),
        ],
    )  # fmt: skip
    def test_what_icechunk_holds(self, place, key, content):
        url = place.new()
        make(place.at(url), 9, chunk=4, a=("int32",)).close()
        before = place.everything()
        with pytest.raises(icechunk.IcechunkError):
            StorePlace.put(place, url, key, content)
        assert place.everything() == before

    def test_icechunk_takes_no_nan(self, place):
        url = place.new()
        table = make(place.at(url), 9, chunk=4, a=("int32",))
        with table:
            before = place.everything()
            with pytest.raises(StoreError, match=r"a/zarr\.json"):
                table.getColumnAttributeMapping("a")["x"] = np.nan
            with pytest.raises(StoreError, match=r"c/zarr\.json"):
                table.createColumn("c", "i1", attributes={"x": np.nan})
            assert place.everything() == before
            assert table.getColumnNames() == ["a"]


@pytest.mark.thorough
class TestTablesInAnFsspecStore(TableConformance):
    examples = 8

    @pytest.fixture
    def place(self, tmp_path):
        store = FsspecStore.from_url(f"memory://{tmp_path}")
        yield StorePlace(store, str(store).strip("<>"))
        memory = fsspec.filesystem("memory")
        if memory.exists(str(tmp_path)):
            memory.rm(str(tmp_path), recursive=True)


STORES = {
    "MemoryStore": lambda path: MemoryStore(),
    "LocalStore": lambda path: LocalStore(path / "x"),
    "FsspecStore": lambda path: FsspecStore.from_url(f"memory://{path}"),
    "FsspecStore of files": lambda path: FsspecStore.from_url(f"file://{path}/x"),
    "ObjectStore": lambda path: ObjectStore(obstore.store.MemoryStore()),
    "Icechunk": lambda path: in_icechunk(icechunk.local_filesystem_storage(f"{path}/i")),
}


def in_icechunk(storage):
    return icechunk.Repository.create(storage).writable_session("main").store


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    yield STORES[request.param](tmp_path)
    memory = fsspec.filesystem("memory")
    if memory.exists(str(tmp_path)):
        memory.rm(str(tmp_path), recursive=True)


def test_a_table_at_the_root_of_a_store(store):
    with make(store, 9, chunk=4, a=("int32",), **{"b*/c": (STRING,)}) as table:
        table.writeBlock("a", np.arange(9), 0)
        table.writeBlock("b*/c", np.array(list("xyz")), 3)
        table.createColumn("b1", "int8")
        table.deleteColumn("b*/c")
        assert len(repr(table).splitlines()) == 1
    group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
    assert group["RAT/a"][:].tolist() == list(range(9))
    assert sorted(group["RAT"].array_keys()) == ["a", "b1"]
    assert RatZarr.exists(store)
    assert RatZarr.isValidRatZarr(store)
    with RatZarr(store, create=False) as table:
        assert table.getColumnNames() == ["a", "b1"]
        table.setRowCount(5)
        assert table.readBlock("a", 3, 9).tolist() == [3, 4]
    RatZarr.delete(store)
    assert not RatZarr.exists(store)
    RatZarr.delete(store)


def test_several_tables_in_one_store(store):
    for name in ("x", "xy", "y/x"):
        with make(StorePath(store, name), 3, a=("int32",)) as table:
            table.writeBlock("a", np.full(3, len(name)), 0)
    assert not RatZarr.isValidRatZarr(StorePath(store, "y"))
    RatZarr.delete(StorePath(store, "x"))
    assert not RatZarr.exists(StorePath(store, "x"))
    for name in ("xy", "y/x"):
        with RatZarr(StorePath(store, name), readOnly=True) as table:
            assert table.readBlock("a", 0, 3).tolist() == [len(name)] * 3


def test_a_store_opened_for_reading(store):
    with make(store, 9, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(9), 0)
    read_only = store.with_read_only(True)
    with RatZarr(read_only) as table:
        assert table.getColumnNames() == ["a"]
        assert table.readBlock("a", 3, 9).tolist() == list(range(3, 9))
        for change in (
            lambda: table.setRowCount(3),
            lambda: table.createColumn("new", "int8"),
            lambda: table.writeBlock("a", np.arange(3), 0),
            lambda: table.deleteColumn("a"),
        ):
            with pytest.raises(PermissionError, match="opened for reading only"):
                change()
    with pytest.raises(PermissionError, match="opened for reading only"):
        RatZarr.delete(read_only)
    with pytest.raises(PermissionError, match="opened for reading only"):
        RatZarr(StorePath(read_only, "nothing"))
    with pytest.raises(FileNotFoundError):
        RatZarr(StorePath(read_only, "nothing"), readOnly=True)
    assert RatZarr.isValidRatZarr(store)


def test_an_archive_is_for_reading(tmp_path):
    """Nothing in it can be changed, only added a second time."""
    with (
        ZipStore(tmp_path / "x.zip", mode="w") as store,
        pytest.raises(PermissionError, match="ZipStore can't change"),
    ):
        RatZarr(store)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == []


def test_options_are_not_for_stores():
    with pytest.raises(ArgumentError, match="storageOptions"):
        RatZarr(MemoryStore(), storageOptions={"anon": True})


@pytest.mark.parametrize("name", ["LocalStore", "FsspecStore of files"])
def test_a_store_on_a_disk_is_a_local_path(name, tmp_path):
    """Written as such: with locks, and whole or not at all."""
    store = STORES[name](tmp_path)
    assert isinstance(open_place(store), LocalObjects)
    with make(store, 9, chunk=4, a=("int32",)) as table, RatZarr(str(tmp_path / "x")) as other:
        table.writeBlock("a", np.arange(9), 0)
        assert other.readBlock("a", 0, 9).tolist() == list(range(9))


def test_threads(store):
    """Columns, attributes, and rows of one chunk: nothing of any is lost."""
    count, rows = 6, 60
    make(store, rows, chunk=rows, shared=("int32",)).close()
    together = threading.Barrier(count)

    def work(number):
        together.wait(60)
        with RatZarr(store, create=False) as table:
            table.createColumn(f"own{number}", "int8")
            for turn in range(10):
                row = number * 10 + turn
                table.writeBlock("shared", np.array([row + 1]), row)
                table.getRatAttributeMapping()[f"n{row}"] = row

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
    with RatZarr(store, readOnly=True) as table:
        assert set(table.getColumnNames()) == {"shared", *(f"own{n}" for n in range(count))}
        assert table.readBlock("shared", 0, rows).tolist() == list(range(1, rows + 1))
        attributes = table.getRatAttributeMapping()
        assert {key for key in attributes if key.startswith("n")} == {f"n{n}" for n in range(rows)}
        assert len(table.getModificationLog("shared")) == count


def test_creators_of_one_column(store):
    count = 6
    make(store, 3).close()
    together = threading.Barrier(count)

    def create(number):
        with RatZarr(store, create=False) as table:
            together.wait(60)
            try:
                table.createColumn("a", "int32", attributes={"by": number})
            except RatZarrError:
                return None
            return number

    with ThreadPoolExecutor(count) as pool:
        made = [number for number in pool.map(create, range(count)) if number is not None]
    assert len(made) == 1
    with RatZarr(store, readOnly=True) as table:
        assert table.getColumnAttributeMapping("a")["by"] == made[0]


def test_a_column_created_anew_gets_nothing_of_the_old_one_s(store):
    with make(store, 8, chunk=4, a=("int32",)) as table, RatZarr(store) as other:
        table.writeBlock("a", np.arange(4), 0)
        other.deleteColumn("a")
        other.createColumn("a", "int32")
        with pytest.raises(ChangedError):
            table.writeBlock("a", np.arange(8), 0)
        assert other.readBlock("a", 0, 8).tolist() == [0] * 8


def test_deleting_while_others_write():
    """What is written late goes with the column, and is nobody's after it."""
    store = MemoryStore(objects := {})
    make(store, 400, chunk=4, a=("int32",)).close()
    stop = threading.Event()

    def write():
        while not stop.is_set():
            try:
                with RatZarr(store, create=False) as table:
                    table.writeBlock("a", np.ones(400), 0)
            except RatZarrError:
                pass

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        try:
            with RatZarr(store, create=False) as table:
                for _ in range(10):
                    table.deleteColumn("a")
                    left = [key for key in list(objects) if key.startswith("RAT/a/")]
                    assert left == []
                    table.createColumn("a", "int32")
                table.deleteColumn("a")
        finally:
            stop.set()
        for writer in writers:
            writer.result()


def test_chunks_without_a_column_are_not_a_new_one_s():
    store = MemoryStore(objects := {})
    with make(store, 8, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.ones(8), 0)
        del objects["RAT/a/zarr.json"]
        with pytest.raises(RatZarrError, match="holds chunks of a column"):
            table.createColumn("a", "int32")
        assert "RAT/a/zarr.json" not in objects


class TestIcechunk:
    """Sessions, commits and conflicts are the user's own; RatZarr commits nothing."""

    @pytest.fixture
    def repository(self, tmp_path):
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
        session = repository.writable_session("main")
        with make(session.store, 9, chunk=4, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
        session.commit("a table")
        return repository

    def rows(self, repository, column="a"):
        store = repository.readonly_session("main").store
        with RatZarr(store, readOnly=True) as table:
            return table.readBlock(column, 0, 9).tolist()

    def test_what_is_committed_is_read(self, repository, tmp_path):
        again = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path)))
        with RatZarr(again.readonly_session("main").store) as table:
            assert table.getColumnNames() == ["a"]
            assert table.readBlock("a", 0, 9).tolist() == list(range(9))
            assert len(table.getModificationLog("a")) == 1
            with pytest.raises(PermissionError, match="opened for reading only"):
                table.createColumn("b", "int8")

    def test_what_is_not_committed_is_not(self, repository):
        session = repository.writable_session("main")
        with RatZarr(session.store) as table:
            table.writeBlock("a", np.zeros(9), 0)
            table.createColumn("b", "int8")
        assert self.rows(repository) == list(range(9))
        session.discard_changes()
        with RatZarr(session.store) as table:
            assert table.getColumnNames() == ["a"]
        assert self.rows(repository) == list(range(9))

    def test_a_conflict_is_told_at_the_commit(self, repository):
        first, second = (repository.writable_session("main") for _ in range(2))
        with RatZarr(first.store) as table:
            table.writeBlock("a", np.full(9, 1), 0)
        with RatZarr(second.store) as table:
            table.writeBlock("a", np.full(9, 2), 0)
        first.commit("first")
        with pytest.raises(icechunk.ConflictError):
            second.commit("second")
        with pytest.raises(icechunk.RebaseFailedError):
            second.rebase(icechunk.ConflictDetector())
        assert self.rows(repository) == [1] * 9

    def test_new_columns_conflict_in_the_order_of_columns(self, repository):
        """The table's document is one: who comes second does his work again, and both are there."""
        sessions = [repository.writable_session("main") for _ in range(2)]
        for session, name in zip(sessions, "bc", strict=True):
            with RatZarr(session.store) as table:
                table.createColumn(name, "int8")
        sessions[0].commit("b")
        with pytest.raises(icechunk.ConflictError):
            sessions[1].commit("c")
        again = repository.writable_session("main")
        with RatZarr(again.store) as table:
            table.createColumn("c", "int8")
        again.commit("c")
        with RatZarr(repository.readonly_session("main").store) as table:
            assert table.getColumnNames() == ["a", "b", "c"]

    def test_writers_of_different_columns_get_along(self, repository):
        """By a rebase: RatZarr changes no more of the table than the columns it writes."""
        session = repository.writable_session("main")
        with RatZarr(session.store) as table:
            table.createColumn("b", "int32")
        session.commit("b")
        first, second = (repository.writable_session("main") for _ in range(2))
        for number, (session, name) in enumerate([(first, "a"), (second, "b")]):
            with RatZarr(session.store) as table:
                table.writeBlock(name, np.full(9, number + 10), 0)
        first.commit("a's rows")
        second.commit("b's rows", rebase_with=icechunk.ConflictDetector())
        assert self.rows(repository, "a") == [10] * 9
        assert self.rows(repository, "b") == [11] * 9

    def test_a_column_that_takes_another_s_place(self, repository):
        session = repository.writable_session("main")
        with RatZarr(session.store) as table:
            table.createColumn("a", "int32", complete=False, replace=True)
            table.writeBlock("a", np.full(9, 7), 0)
            assert self.rows(repository) == list(range(9))
            table.setComplete("a")
        session.commit("replaced")
        assert self.rows(repository) == [7] * 9
