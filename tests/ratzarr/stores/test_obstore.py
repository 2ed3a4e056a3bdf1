"""The conformance suite on S3 through obstore, and what has to be made up for."""

import subprocess
import sys
import textwrap

import numpy as np
import obstore
import pytest
from obstore.exceptions import GenericError

from ratzarr import ArgumentError, RatZarr
from ratzarr.stores import obstore as ours
from ratzarr.stores.base import parse
from ratzarr.stores.s3 import S3Objects
from tests.ratzarr.conformance import TableConformance
from tests.ratzarr.conformance.base import make, refused

# Nothing here has to do with GDAL, and it takes a minute.
pytestmark = pytest.mark.main_env_only


@pytest.fixture(autouse=True)
def by_obstore(monkeypatch):
    monkeypatch.setenv("RATZARR_S3_CLIENT", "obstore")


class TestTablesByObstore(TableConformance):
    examples = 4

    @pytest.fixture
    def place(self, moto_s3):
        return moto_s3


def test_it_is_chosen_by_a_setting(moto_s3, monkeypatch):
    url = moto_s3.new()
    with make(url, 3) as table:
        assert isinstance(table._objects, ours.ObstoreObjects)
    monkeypatch.delenv("RATZARR_S3_CLIENT")
    with RatZarr(url) as table:
        assert isinstance(table._objects, S3Objects)
    with RatZarr(url, storageOptions={"client": "obstore"}) as table:
        assert isinstance(table._objects, ours.ObstoreObjects)
    with pytest.raises(ArgumentError, match="'curl'"):
        RatZarr(url, storageOptions={"client": "curl"})
    with pytest.raises(ArgumentError, match="'config_kwargs'"):
        RatZarr(url, storageOptions={"client": "obstore", "config_kwargs": {}})


def test_both_clients_at_one_table(moto_s3):
    """Marks, etags and conditions are the same."""
    url = moto_s3.new()
    with (
        make(url, 8, chunk=4, a=("int32",)) as table,
        RatZarr(url, storageOptions={"client": "s3fs"}) as other,
    ):
        assert isinstance(other._objects, S3Objects)
        for turn in range(4):
            table.writeBlock("a", np.array([turn]), turn)
            other.writeBlock("a", np.array([turn + 10]), turn + 4)
            other.getRatAttributeMapping()[f"theirs{turn}"] = 1
            table.getRatAttributeMapping()[f"ours{turn}"] = 1
        assert other.readBlock("a", 0, 8).tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
        assert len([key for key in table.getRatAttributeMapping() if "ours" in key]) == 4
        assert len([key for key in other.getRatAttributeMapping() if "theirs" in key]) == 4
        key = moto_s3._key(url) + "/RAT/a/c/0"
        head = moto_s3.client.head_object(Bucket=moto_s3.bucket, Key=key)
        assert head["Metadata"]["ratzarr"]


def test_requests(counted_s3):
    """No more of them than through s3fs."""
    place, proxy = counted_s3
    url = place.new()
    make(url, 8, chunk=4, a=("int32",)).close()
    proxy.clear()
    with RatZarr(url) as table:
        assert proxy.counts() == {"GET": 1}
        table.openColumn("a")
        proxy.clear()
        table.writeBlock("a", np.arange(4), 0)
        assert proxy.counts() == {"PUT": 2}
        proxy.clear()
        table.writeBlock("a", np.arange(4), 4)
        assert proxy.counts() == {"PUT": 1}
        proxy.clear()
        table.readBlock("a", 0, 8)
        assert proxy.counts() == {"GET": 2}
        table.getRatAttributeMapping()["x"] = 1
        conditions = [request.headers.get("if-match", "") for request in proxy.requests]
        assert any(conditions)
        assert not any('"' in condition for condition in conditions)


@pytest.mark.moto_only
def test_storage_options_and_profiles(moto, moto_s3, monkeypatch, tmp_path):
    url = moto_s3.new()
    environment = moto.environment
    for name in environment:
        monkeypatch.delenv(name)
    options = {
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
        "key": environment["AWS_ACCESS_KEY_ID"],
        "secret": environment["AWS_SECRET_ACCESS_KEY"],
        "client_kwargs": {"region_name": environment["AWS_DEFAULT_REGION"]},
    }
    with RatZarr(url, storageOptions=options) as table:
        table.setRowCount(3)
    with refused(moto_s3, "redentials"):
        RatZarr(url, storageOptions={"endpoint_url": moto.url})
    (tmp_path / "config").write_text(
        "[profile p]\n"
        f"endpoint_url = {moto.url}\nregion = eu-west-1\n"
        "aws_access_key_id = k\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "p")
    assert RatZarr(url, readOnly=True).rowCount == 3


def test_refusals_in_words(counted_s3):
    place, proxy = counted_s3
    url = place.new()
    make(url, 9, a=("int32",)).close()
    with refused(place, "no-such-bucket"):
        RatZarr("s3://no-such-bucket/x.rat.zarr")
    proxy.instead = lambda method, key: 403
    for use in (lambda: RatZarr(url), lambda: RatZarr.exists(url), lambda: RatZarr.delete(url)):
        with refused(place, url, error=PermissionError):
            use()


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_stumbles(counted_s3, status):
    place, proxy = counted_s3
    url = place.new()
    seen = set()

    def stumble(method, key):
        if (method, key) in seen:
            return None
        seen.add((method, key))
        return status

    proxy.instead = stumble
    with make(url, 6, chunk=4, a=("int32",)) as table:
        table.writeBlock("a", np.arange(6), 0)
        table.writeBlock("a", np.array([70]), 1)
        assert table.readBlock("a", 0, 6).tolist() == [0, 70, 2, 3, 4, 5]
        assert len(table.getModificationLog("a")) == 1


@pytest.mark.moto_only
def test_a_put_that_worked_and_whose_answer_was_lost(moto_s3, monkeypatch):
    """Tried again, it is refused for its own success: which is one."""
    url = moto_s3.new()
    lost = set()

    def put(store, path, data, **options):
        answer = obstore_put(store, path, data, **options)
        if options["mode"] != "overwrite" and path not in lost:
            lost.add(path)
            raise GenericError("connection closed before message completed")
        return answer

    obstore_put = obstore.put
    make(url, 6, chunk=4).close()
    monkeypatch.setattr(ours.obstore, "put", put)
    with RatZarr(url) as table:
        table.createColumn("a", "int32")
        table.writeBlock("a", np.arange(6), 0)
        lost.clear()
        table.writeBlock("a", np.array([70]), 1)
        lost.clear()
        table.getRatAttributeMapping()["x"] = 1
    monkeypatch.undo()
    assert lost
    options = {"endpoint_url": moto_s3.moto.url, "key": "k", "secret": "s"}
    with RatZarr(url, readOnly=True, storageOptions=options) as table:
        assert table.readBlock("a", 0, 6).tolist() == [0, 70, 2, 3, 4, 5]
        assert len(table.getModificationLog("a")) == 1
        assert table.getColumnNames() == ["a"]


@pytest.mark.moto_only
def test_somebody_else_s_object_is_not_taken_for_ours(moto_s3, monkeypatch):
    objects = ours.ObstoreObjects(parse(moto_s3.new()))
    version = objects.create("x", b"1")

    def put(*arguments, **options):
        monkeypatch.undo()
        S3Objects(
            objects.location, {"endpoint_url": moto_s3.moto.url, "key": "k", "secret": "s"}
        ).put("x", b"2")
        raise GenericError("no answer")

    monkeypatch.setattr(ours.obstore, "put", put)
    assert objects.replace("x", b"3", version) is None
    assert objects.get("x") == b"2"


def test_after_a_fork(moto, moto_s3):
    """s3fs does it there, where obstore itself would wait for ever."""
    url = moto_s3.new()
    make(url, 3).close()
    program = f"""
        import os, sys, warnings
        from ratzarr import RatZarr, RatZarrError
        warnings.simplefilter("ignore")
        table = RatZarr({url!r})
        child = os.fork()
        if not child:
            if RatZarr({url!r}).rowCount != 3 or table.getColumnNames() != []:
                os._exit(2)
            table.setRowCount(3)
            if RatZarr({url!r}, storageOptions={{"client": "s3fs"}}).rowCount != 3:
                os._exit(4)
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=30, check=False
    )
    assert done.returncode == 0
