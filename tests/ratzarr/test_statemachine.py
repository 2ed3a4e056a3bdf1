"""Histories of several instances at each place: see :mod:`tests.ratzarr.statemachine`."""

import pytest

from tests.places import S3Place
from tests.ratzarr.statemachine import run


@pytest.mark.parametrize("examples", [12, pytest.param(50, marks=pytest.mark.thorough)])
def test_on_local_disk(local, examples):
    run(local, examples=examples)


@pytest.mark.thorough
def test_on_s3(quick_s3, monkeypatch):
    for name, value in quick_s3.environment.items():
        monkeypatch.setenv(name, value)
    run(S3Place(quick_s3), examples=7, every=6)
