"""Output under a hidden name: removed when its process is dead, and never before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratzarr.stores.temp_output import leftovers, sweep_leftovers, temporary_path

HOLD = """
import sys, time
from pathlib import Path
from ratzarr.stores.temp_output import temporary_path
with temporary_path(Path(sys.argv[1]), sys.argv[2], folder=sys.argv[2] == "") as made:
    (made / "x" if made.is_dir() else made).write_text("half")
    if not made.is_dir():
        made.with_name(made.name + ".aux.xml").write_text("more")
    print("made", flush=True)
    sys.stdin.read()
"""


def holder(folder, suffix):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), suffix],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "made\n"
    return process


@pytest.mark.parametrize("suffix", ["", ".vrt"])
def test_of_a_living_process_nothing_is_removed(tmp_path, suffix):
    process = holder(tmp_path, suffix)
    there = set(os.listdir(tmp_path))
    try:
        assert sweep_leftovers(tmp_path) == []
        with temporary_path(tmp_path, suffix, folder=suffix == ""):
            pass
        assert set(os.listdir(tmp_path)) == there
    finally:
        process.communicate("", timeout=20)
    assert process.returncode == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", ["", ".vrt"])
def test_of_a_killed_process_all_is_removed(tmp_path, suffix):
    foreign = [".ratzarr-notes", ".x.partial", "seg.tif", ".ratzarr-12.lock"]
    for name in foreign:
        (tmp_path / name).touch()
    living, process = holder(tmp_path, suffix), holder(tmp_path, suffix)
    try:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        process.stdin.close()
        process.stdout.close()
        found = leftovers(tmp_path)
        assert len(found) == (2 if suffix == "" else 3)
        with temporary_path(tmp_path):
            pass
        assert leftovers(tmp_path) == []
        left = set(os.listdir(tmp_path))
        assert left.isdisjoint(found)
        assert left > set(foreign)
        assert len(left) == len(foreign) + len(found)
    finally:
        living.communicate("", timeout=20)
    assert set(os.listdir(tmp_path)) == set(foreign)


def test_a_directory_without_its_lock_is_left_over(tmp_path):
    """A process was killed while it removed what another had left."""
    made = tmp_path / f".ratzarr-{'0' * 20}"
    made.mkdir()
    (made / "x").touch()
    assert sweep_leftovers(tmp_path) == [made.name]
    assert not made.exists()


def test_a_link_is_removed_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").touch()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / f".ratzarr-{'0' * 20}").symlink_to(outside)
    sweep_leftovers(inside)
    assert os.listdir(inside) == []
    assert os.listdir(outside) == ["x"]


def test_an_error_leaves_nothing(tmp_path):
    def fail():
        with temporary_path(tmp_path, folder=True) as made:
            (made / "x").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


def test_no_directory_no_leftovers(tmp_path):
    assert leftovers(Path(tmp_path, "none")) == []
