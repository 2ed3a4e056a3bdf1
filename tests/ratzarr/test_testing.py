"""The suite for others' places: how it is used, and that it finds a store's faults."""

import subprocess
import sys
from collections import Counter

import pytest

from ratzarr.testing import TableTests

MINE = """
import pytest
from zarr.storage import MemoryStore, WrapperStore

from ratzarr.testing import StorePlace, TableTests


class MyStore(WrapperStore):
    async def get(self, key, prototype, byte_range=None):
        if key.endswith({lost!r}):
            return None
        return await super().get(key, prototype, byte_range)


class TestTablesInMyStore(TableTests):
    examples = 3

    @pytest.fixture
    def place(self):
        return StorePlace(MyStore(MemoryStore()))
"""


def run(tmp_path, program):
    """Return what pytest says of some tests of the suite, in a directory that has nothing else."""
    (tmp_path / "test_mine.py").write_text(program)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
        "-k", "test_reading_every_block or test_nothing_is_left",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_store_that_passes(tmp_path):
    status, said = run(tmp_path, MINE.format(lost="no key ends so"))
    assert status == 0, said
    assert "passed" in said
    assert "warning" not in said


def test_a_store_that_loses_writes(tmp_path):
    """It is found out, and pytest shows both sides of the comparison."""
    status, said = run(tmp_path, MINE.format(lost="/c/1"))
    assert status == 1, said
    assert "assert b'" in said
    assert "test_reading_every_block" in said


def test_no_test_hides_another():
    """Of two methods of one name a class inherits only one: the other would never run."""
    names = Counter(name for part in TableTests.__bases__ for name in vars(part))
    assert [name for name in names if names[name] > 1 and not name.startswith("__")] == []


@pytest.mark.parametrize("package", ["pytest", "hypothesis"])
def test_only_the_suite_imports_what_it_needs(package):
    program = f"import ratzarr, sys; assert {package!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
