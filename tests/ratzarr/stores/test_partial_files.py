"""A file gets its name when it is whole, and what a killed process left is removed."""

import fcntl
import os
import subprocess
import sys

import pytest

from ratzarr.stores.local_files import name_it, partial_file

KILLED = """
import os, signal, sys
from pathlib import Path
from ratzarr.stores.local_files import partial_file
with partial_file(Path(sys.argv[1])) as (file, hidden):
    os.write(file, b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path, data, *, overwrite=False):
    with partial_file(path) as (file, hidden):
        os.write(file, data)
        assert not path.exists() or overwrite
        name_it(hidden, path, overwrite=overwrite)


def test_it_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / ("größe" * 30 + ".tif")
    write(path, b"one")
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(ValueError, match="of the caller"), partial_file(path):
        raise ValueError("of the caller")
    with partial_file(path) as (_, hidden), pytest.raises(FileExistsError):
        name_it(hidden, path, overwrite=False)
    assert path.read_bytes() == b"one"
    write(path, b"two", overwrite=True)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == [path.name]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path, other = tmp_path / "seg.tif", tmp_path / "other.tif"
    for one in (path, path, other):
        done = subprocess.run([sys.executable, "-c", KILLED, one], check=False)
        assert done.returncode == -9
    left = sorted(os.listdir(tmp_path))
    # The second found the first one's.
    assert len(left) == 2
    (tmp_path / ".something.partial").write_bytes(b"")
    # What is being written stays: each holds the lock of its own.
    with partial_file(path) as (_, first), partial_file(path) as (_, second):
        assert first.exists()
        assert second.exists()
    write(path, b"whole")
    assert len(set(os.listdir(tmp_path)) & set(left)) == 1
    write(other, b"whole")
    assert sorted(os.listdir(tmp_path)) == [".something.partial", "other.tif", "seg.tif"]


def test_where_there_are_no_locks_nothing_is_swept(tmp_path, monkeypatch):
    def refused(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    path = tmp_path / "seg.tif"
    with partial_file(path) as (_, hidden):
        write(path, b"x")
        assert hidden.exists()
    assert os.listdir(tmp_path) == ["seg.tif"]
