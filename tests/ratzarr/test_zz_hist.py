from tests.places import S3Place
from tests.ratzarr.statemachine import run


def test_local(local):
    run(local, examples=400, seed=77)


def test_s3(quick_s3, monkeypatch):
    for name, value in quick_s3.environment.items():
        monkeypatch.setenv(name, value)
    run(S3Place(quick_s3), examples=80, seed=78, every=6)
