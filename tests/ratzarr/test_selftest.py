"""The self-test that users run: as they run it, in a process of its own."""

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

import ratzarr

PROGRAM = Path(sysconfig.get_path("scripts")) / "ratzarr_tests"


def run(cwd, *arguments, **environment):
    """Return the finished process."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def count(done):
    """Return how many tests it says it ran."""
    said = re.search(r"Ran (\d+) tests", done.stdout + done.stderr)
    assert said, done.stdout + done.stderr
    return int(said[1])


@pytest.fixture
def here(tmp_path):
    directory = tmp_path / "here"
    directory.mkdir()
    return directory


@pytest.fixture
def temporary(tmp_path):
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


def test_on_local_disk(here, temporary):
    done = run(here, TMPDIR=str(temporary), PYTHONWARNINGS="default")
    assert done.returncode == 0, done.stderr
    assert count(done) >= 6
    assert "OK" in done.stderr
    assert "skipped" not in done.stderr
    assert "Warning" not in done.stderr
    assert list(here.iterdir()) == [], "it left something behind"
    assert list(temporary.iterdir()) == [], "it left something behind"


def test_in_a_bucket(here, temporary, moto_s3):
    moto_s3.put(f"s3://{moto_s3.bucket}/precious", "", b"precious")
    before = moto_s3.everything()
    done = run(here, S3BUCKET=moto_s3.bucket, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert count(done) >= 6
    assert "skipped" not in done.stderr
    assert moto_s3.everything() == before, "it left something behind, or took something"
    assert list(here.iterdir()) == []


def test_it_really_uses_the_bucket(here, counted_s3):
    place, proxy = counted_s3
    done = run(here, S3BUCKET=place.bucket)
    assert done.returncode == 0, done.stderr
    written = {request.key for request in proxy.requests if request.method == "PUT"}
    assert {key.split("/")[0] for key in written} == {place.bucket}
    assert len(written) > 6


def test_a_bucket_that_is_not_there(here, moto_s3):
    """A user runs it to see whether things work: where they don't it must say so."""
    done = run(here, S3BUCKET="no-such-bucket")
    assert done.returncode != 0
    assert "no-such-bucket" in done.stderr


def test_its_cases_run_under_any_runner(tmp_path, monkeypatch):
    import unittest

    monkeypatch.chdir(tmp_path)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(ratzarr.AllTests)
    result = unittest.TestResult()
    suite.run(result)
    assert result.wasSuccessful(), result.errors + result.failures
    assert result.testsRun >= 6
