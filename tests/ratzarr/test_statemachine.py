"""Histories of several instances at each place: see :mod:`tests.ratzarr.statemachine`."""

from .statemachine import run


def test_on_local_disk(local):
    run(local, examples=50)


def test_on_s3(moto_s3):
    run(moto_s3, examples=7, every=6)
