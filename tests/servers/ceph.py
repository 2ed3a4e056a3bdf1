"""A real S3 server: Ceph's gateway, on a free port of 127.0.0.1, thrown away at the end.

    with running_ceph() as server:
        server.client().create_bucket(Bucket="b")

It checks keys and signatures, answers errors without words, and is several processes written in
C++: what no imitation is. ``ceph-up`` and ``ceph-down`` beside this file start and stop it; it keeps
everything in memory. The packages are Debian's (``ceph-mon``, ``ceph-osd``, ``radosgw``), and are
installed where that is allowed.
"""

import itertools
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

HERE = Path(__file__).parent
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
FIRST_START = 600
"""Seconds that a start may take, the packages included."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A server that is no part of this process, and a way to it round the code under test."""

    environment: dict[str, str]
    """The variables that lead any AWS client there."""
    _run: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.environment["AWS_ENDPOINT_URL"]

    def client(self) -> Any:
        """Return a boto3 client of this server, the same one each time."""
        if "s3" not in self._clients:
            self._clients["s3"] = boto3.session.Session().client(
                "s3",
                endpoint_url=self.url,
                aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
                region_name=self.environment["AWS_DEFAULT_REGION"],
                config=Config(max_pool_connections=16, s3={"addressing_style": "path"}),
            )
        return self._clients["s3"]

    def fresh_bucket(self) -> str:
        """Make a bucket that nobody else has."""
        name = f"bucket-{self._run}-{next(self._numbers)}"
        self.client().create_bucket(Bucket=name)
        return name

    def put_many(self, bucket: str, contents: dict[str, bytes]) -> None:
        """Put objects into a bucket, several at a time."""

        def put(item: tuple[str, bytes]) -> None:
            self.client().put_object(Bucket=bucket, Key=item[0], Body=item[1])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, contents.items()))

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys that begin so."""
        pages = self.client().get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix
        )  # fmt: skip
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def contents(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Return the objects whose keys begin so."""

        def get(key: str) -> tuple[str, bytes]:
            return key, self.client().get_object(Bucket=bucket, Key=key)["Body"].read()

        with ThreadPoolExecutor(8) as pool:
            return dict(pool.map(get, self.keys(bucket, prefix)))

    def metadata(self, bucket: str, prefix: str) -> dict[str, dict[str, str]]:
        """Return what is kept with the objects whose keys begin so, besides their bytes."""

        def look(key: str) -> tuple[str, dict[str, str]]:
            return key, self.client().head_object(Bucket=bucket, Key=key)["Metadata"]

        with ThreadPoolExecutor(8) as pool:
            return dict(pool.map(look, self.keys(bucket, prefix)))

    def copy_many(self, bucket: str, prefix: str, other: str) -> None:
        """Copy the objects whose keys begin so to others, with their metadata."""

        def copy(key: str) -> None:
            self.client().copy_object(
                Bucket=bucket, Key=other + key.removeprefix(prefix),
                CopySource={"Bucket": bucket, "Key": key},
            )  # fmt: skip

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, self.keys(bucket, prefix)))


def why_not() -> str | None:
    """Return in words why there can be no such server here; None where there can."""
    if all(shutil.which(program, path=_path()) for program in PROGRAMS):
        return None
    if shutil.which("apt-get") is None:
        return "Ceph's gateway is not installed, and there is no apt-get to install it"
    if os.geteuid() != 0:
        return "Ceph's gateway is not installed (apt-get install ceph-mon ceph-osd radosgw)"
    return None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextmanager
def running_ceph() -> Iterator[S3Server]:
    """Start the server; stop it and remove all that is its at the end."""
    reason = why_not()
    if reason is not None:
        raise RuntimeError(reason)
    folder = tempfile.mkdtemp(prefix="rz-ceph-")
    settings = os.environ | {
        "S3_ACCESS_KEY": "key" + secrets.token_hex(8),
        "S3_SECRET_KEY": secrets.token_hex(20),
    }
    try:
        started = subprocess.run(
            [HERE / "ceph-up", folder], env=settings, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=FIRST_START, check=False,
        )  # fmt: skip
        if started.returncode:
            raise RuntimeError(f"Ceph's gateway did not start:\n{started.stderr[-3000:]}")
        lines = [line.split("=", 1) for line in started.stdout.splitlines() if "=" in line]
        server = S3Server(dict(lines))
        yield server
        for client in server._clients.values():
            client.close()
    finally:
        subprocess.run([HERE / "ceph-down", folder], stdin=subprocess.DEVNULL, check=True)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Say whether it can be had: exit code 0, or a reason and 1."""
    reason = why_not()
    if reason is not None:
        print(reason)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
