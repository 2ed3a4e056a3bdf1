"""What was written and not yet confirmed, when several threads write and others are created."""

import sys
import threading
from types import SimpleNamespace

import pytest

from ratzarr.columns.open_columns import OpenColumns


@pytest.fixture
def eager():
    """Let threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_what_is_to_be_confirmed_is_not_lost_when_columns_are_created(eager):
    columns = OpenColumns(SimpleNamespace())
    objects, state = SimpleNamespace(looks_before_writing=False), SimpleNamespace(id="id")
    count, done = 300, threading.Event()

    def write():
        for number in range(count):
            column = SimpleNamespace(name=f"c{number}", objects=objects)
            columns._remember(column, state, number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    confirmed = []
    while not done.is_set():
        columns._forget_writes("a new one")
        columns.cut(10**9)
        with columns.confirming(["c5", "c7"]) as written:
            confirmed += [column.name for column, *_ in written]
    writer.join()
    with columns.confirming() as written:
        confirmed += [column.name for column, *_ in written]
    assert sorted(confirmed) == sorted(f"c{number}" for number in range(count))
