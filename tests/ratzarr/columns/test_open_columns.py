"""What was written and not yet confirmed, when several threads write and others are created."""

import sys
import threading

import pytest
from zarr.storage import MemoryStore

from ratzarr.columns.chunk_cache import ChunkCache
from ratzarr.columns.open_columns import OpenColumns
from ratzarr.stores.open import open_place, table_metadata
from ratzarr.testing.helpers import make


@pytest.fixture
def eager():
    """Let threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_what_is_to_be_confirmed_is_not_lost_when_columns_are_created(eager):
    store, count = MemoryStore(), 150
    names = [f"c{number}" for number in range(count)]
    with make(store, 4) as table:
        table.createColumns(dict.fromkeys([*names, "new"], "i1"))
    objects = open_place(store)
    # As S3: what has become of the column is seen to after writing.
    objects.looks_before_writing = False
    document = table_metadata(objects)
    document.load()
    columns = OpenColumns(document, ChunkCache(0))
    new = columns.open([*names, "new"])["new"]
    done = threading.Event()

    def write():
        try:
            for number, name in enumerate(names):
                columns.write({name: [1]}, number % 4)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    confirmed = []
    while not done.is_set():
        columns.add_new(new)
        with columns.confirming(["c5", "c7"]) as written:
            confirmed += [column.name for column, *_ in written]
    writer.join()
    with columns.confirming() as written:
        confirmed += [column.name for column, *_ in written]
    assert sorted(confirmed) == sorted(names)
