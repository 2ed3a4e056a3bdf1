"""Single files copied: whole or not at all, to nobody's place, whatever dies or lies."""

import hashlib
import os
import re
import signal
import subprocess
import sys

import pytest

from ratzarr import ChangedError, StoreError
from ratzarr.stores.base import parse
from ratzarr.stores.single_files import copy_file, file_state, same_file
from tests.servers.counting import Handler, counting_proxy
from tests.servers.faults import AFTER, Faults, faulty_proxy

PART = 5 * 2**20
"""The least that S3 takes."""
FAKE = f'"{"0" * 32}"'
"""An ETag."""


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_files(tmp_path, moto_s3, size):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    os.utime(tmp_path / "a", (1e9, 1e9))
    url = moto_s3.new("file")
    ways = [
        (tmp_path / "a", url),
        (url, url + "2"),
        (url + "2", tmp_path / "b"),
        (tmp_path / "b", tmp_path / "c"),
    ]
    for source, target in ways:
        copy_file(parse(source), parse(target))
        assert same_file(parse(source), parse(target))
        with pytest.raises(FileExistsError):
            copy_file(parse(source), parse(target))
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == data
    assert moto_s3.everything()["d1/file2"].strip('"') == hashlib.md5(data).hexdigest()
    (tmp_path / "d").write_bytes(data + b"x")
    copy_file(parse(tmp_path / "d"), parse(url), overwrite=True)
    assert not same_file(parse(url), parse(url + "2"))
    assert file_state(parse(tmp_path / "c")).size == size
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_a_file_on_a_disk_keeps_its_time(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    os.utime(tmp_path / "a", (1e9, 1e9))
    copy_file(parse(tmp_path / "a"), parse(tmp_path / "b"))
    assert (tmp_path / "b").stat().st_mtime == 1e9


LOST = [kind for kind in AFTER if kind != "late stall"]
"""Quick ways to lose an answer."""


@pytest.mark.parametrize("kind", LOST)
def test_a_write_whose_answer_is_lost(tmp_path, moto, moto_s3, monkeypatch, kind):
    """Asked for again, the server refuses what it has done already: the copy is there, and whole."""
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "0.02")
    data = os.urandom(6 * 2**20)
    (tmp_path / "small").write_bytes(data[:1000])
    (tmp_path / "large").write_bytes(data)
    small, large, again = (moto_s3.new(name) for name in ("small", "large", "again"))
    faults = Faults(plan=lambda method, key, number: kind if _makes(method, number) else None)
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        copy_file(parse(tmp_path / "small"), parse(small))
        copy_file(parse(tmp_path / "large"), parse(large), part_bytes=PART)
        copy_file(parse(large), parse(again))
    # PUT of the one and the last; a part, the upload's beginning and its end of the other.
    assert len(faults.done) >= 5
    found = {
        key.rpartition("/")[2]: body for key, body in moto.contents(moto_s3.bucket, "").items()
    }
    assert found == {"small": data[:1000], "large": data, "again": data}


def _makes(method, number):
    # POST begins an upload, and again where that was lost; then it finishes it.
    return (method == "PUT" and number == 0) or (method == "POST" and number in (0, 2))


def test_a_write_that_met_a_fault_takes_nobodys_place(tmp_path, moto, moto_s3, monkeypatch):
    """Another file of that name comes while this one is read."""
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "0.02")
    (tmp_path / "a").write_bytes(b"mine")
    url = moto_s3.new("file")
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def told(size):
        moto_s3.client.put_object(Bucket=bucket, Key=key, Body=b"hers")

    faults = Faults(
        plan=lambda method, key, number: "500" if (method, number) == ("PUT", 0) else None
    )
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(FileExistsError, match="already exists"):
            copy_file(parse(tmp_path / "a"), parse(url), report=told)
    assert faults.count("500", conditional=True) == 1
    assert moto_s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"hers"


# The proxy changes what was signed; a real server refuses that.
@pytest.mark.moto_only
@pytest.mark.parametrize("late", [False, True])
def test_a_large_file_takes_nobodys_place(tmp_path, moto, moto_s3, monkeypatch, late):
    """Also on a server that ignores conditions on uploads in parts."""
    (tmp_path / "a").write_bytes(os.urandom(6 * 2**20))
    url = moto_s3.new("file")
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def put():
        moto_s3.client.put_object(Bucket=bucket, Key=key, Body=b"hers")

    class Careless(Handler):
        def ask(self, body):
            if self.command == "POST" and "uploadId=" in self.path:
                del self.headers["If-None-Match"]
            answer = super().ask(body)
            if self.command == "PUT" and "partNumber=" in self.path and late:
                put()
            return answer

    if not late:
        put()
    with counting_proxy(moto.url, Careless) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(FileExistsError, match="already exists"):
            copy_file(parse(tmp_path / "a"), parse(url), part_bytes=PART)
    assert moto_s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"hers"
    assert unfinished(moto_s3) == []


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("size", [1000, 6 * 2**20])
def test_a_server_whose_etags_are_no_checksums(tmp_path, moto, moto_s3, monkeypatch, size, honest):
    """It encrypts with keys of its own, say: what has arrived is read again."""
    data, url = os.urandom(size), moto_s3.new("file")
    (tmp_path / "a").write_bytes(data)
    bucket, _, key = url.removeprefix("s3://").partition("/")

    class Encrypting(Handler):
        def ask(self, body):
            status, reason, headers, answer = super().ask(body)
            parts = self.command == "PUT" and "partNumber=" in self.path
            if self.command in ("PUT", "POST") and not parts:
                headers = [(n, FAKE if n.lower() == "etag" else v) for n, v in headers]
                answer = re.sub(rb"(?<=<ETag>).*(?=</ETag>)", FAKE.encode(), answer)
                if not honest and (self.command == "PUT" or b"<ETag>" in answer):
                    other = data[:-1] + bytes([data[-1] ^ 1])
                    moto_s3.client.put_object(Bucket=bucket, Key=key, Body=other)
            return status, reason, headers, answer

    before = set(os.listdir("/proc/self/fd"))
    with counting_proxy(moto.url, Encrypting) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        if honest:
            copy_file(parse(tmp_path / "a"), parse(url), part_bytes=PART)
            assert moto_s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() == data
        else:
            with pytest.raises(StoreError, match="holds other bytes than were written"):
                copy_file(parse(tmp_path / "a"), parse(url), part_bytes=PART)
    opened = set(os.listdir("/proc/self/fd")) - before
    assert not any(_leads_to(fd, tmp_path) for fd in opened)


def _leads_to(fd, folder):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder))
    except FileNotFoundError:
        return False


def test_equal_files_are_not_read_from_s3(tmp_path, moto, moto_s3, monkeypatch):
    """Where the etag is that of the bytes on the disk."""
    (tmp_path / "a").write_bytes(os.urandom(1000))
    url = moto_s3.new("file")
    copied(tmp_path / "a", url)
    with counting_proxy(moto.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert same_file(parse(url), parse(tmp_path / "a"))
        assert proxy.counts() == {"HEAD": 1}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("by_server", [False, True])
def test_an_upload_that_is_given_up_is_ended(tmp_path, moto_s3, by_server, error):
    data, url = os.urandom(2 * PART), moto_s3.new("file")
    (tmp_path / "a").write_bytes(data)
    source = tmp_path / "a"
    if by_server:
        copied(source, url)
        source, url = url, url + "2"

    def told(size):
        raise error

    with pytest.raises(error):
        copied(source, url, report=told, part_bytes=PART, server_bytes=PART)
    assert unfinished(moto_s3) == []
    assert file_state(parse(url)) is None


def unfinished(moto_s3):
    found = moto_s3.client.list_multipart_uploads(Bucket=moto_s3.bucket)
    return [upload["Key"] for upload in found.get("Uploads", [])]


@pytest.mark.parametrize("kind", ["500", *LOST])
def test_a_server_copies_a_large_file_in_parts(moto, moto_s3, monkeypatch, kind):
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "0.02")
    data, url = os.urandom(2 * PART + 1), moto_s3.new("file")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    described = {"ContentType": "image/tiff", "Metadata": {"made": "here"}}
    moto_s3.client.put_object(Bucket=bucket, Key=key, Body=data, **described)
    faults = Faults(plan=lambda method, key, number: kind if _makes(method, number) else None)
    sizes = []
    with faulty_proxy(moto.url, faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        copied(url, url + "2", report=sizes.append, server_bytes=PART)
        with pytest.raises(FileExistsError):
            copied(url, url + "2", server_bytes=PART)
        assert "GET" not in {request.method for request in proxy.requests}
    assert sizes == [PART, PART, 1]
    copy = moto_s3.client.get_object(Bucket=bucket, Key=key + "2")
    assert copy["Body"].read() == data
    assert (copy["ContentType"], copy["Metadata"]) == ("image/tiff", {"made": "here"})
    assert len(faults.done) >= 3
    # Where the answer that began an upload was lost, nobody knows the name of that upload.
    assert len(unfinished(moto_s3)) == (kind != "500")


@pytest.mark.parametrize("way", ["disk-disk", "disk-s3", "s3-disk"])
def test_a_source_that_changes(tmp_path, moto_s3, way):
    of, to = (tmp_path if kind == "disk" else moto_s3.new("files") for kind in way.split("-"))
    source, target = f"{of}/source", f"{to}/target"
    (tmp_path / "first").write_bytes(b"first")
    (tmp_path / "other").write_bytes(b"other")
    copied(tmp_path / "first", source)

    def told(size):
        copied(tmp_path / "other", source, overwrite=True)

    with pytest.raises(ChangedError, match="source was changed while it was copied"):
        copied(source, target, report=told)
    assert file_state(parse(target)) is None


# ---- on a disk


def copied(source, target, **options):
    copy_file(parse(source), parse(target), **options)


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    source, target = tmp_path / "source", tmp_path / ("größe" * 30 + ".tif")
    source.write_bytes(b"0123456789")
    seen = []

    def told(size):
        seen.append(target.exists())

    copied(source, target, report=told, part_bytes=2)
    assert seen == [False] * 5
    assert target.read_bytes() == b"0123456789"
    source.write_bytes(b"two")
    with pytest.raises(FileExistsError):
        copied(source, target)
    assert target.read_bytes() == b"0123456789"
    copied(source, target, overwrite=True)
    assert target.read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, target.name])


def test_a_name_that_is_taken_meanwhile_is_kept(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        copied(source, target, report=lambda size: target.write_bytes(b"hers"))
    assert target.read_bytes() == b"hers"
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def test_a_copy_that_is_given_up_leaves_nothing(tmp_path):
    (tmp_path / "source").write_bytes(b"mine")

    def told(size):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        copied(tmp_path / "source", tmp_path / "target", report=told)
    assert os.listdir(tmp_path) == ["source"]


KILLED = """
import os, signal, sys
from ratzarr.stores.base import parse
from ratzarr.stores.single_files import copy_file
source, target = map(parse, sys.argv[1:])
copy_file(source, target, report=lambda size: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_copy_left_is_removed_by_the_next(tmp_path):
    source, place = tmp_path / "source", tmp_path / "place"
    source.write_bytes(b"whole")
    place.mkdir()
    command = [sys.executable, "-c", KILLED, source, place / "seg.tif"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = os.listdir(place)
    assert left
    assert all(name.startswith(".") for name in left)

    def told(size):
        # What is being written stays: another copy is under way.
        copied(source, place / "other.tif")

    copied(source, place / "seg.tif", report=told)
    assert sorted(os.listdir(place)) == ["other.tif", "seg.tif"]
    assert (place / "seg.tif").read_bytes() == b"whole"
