"""Where the tables of these tests lie: :mod:`tests.places` with what killing needs on top.

Each has ``environment``, the variables that lead a process there; ``watched``, the same by way of
a proxy that can kill whoever asks it (S3 only); :meth:`clone`, which makes a table as another one
is, the marks of its objects included; and :meth:`litter`, what has no business in a table.
"""

import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from zarr.storage import FsspecStore

from tests.places import LocalPlace, S3Place
from tests.servers.counting import CountingProxy, counting_proxy
from tests.servers.moto import Moto


class LocalGround(LocalPlace):
    """A directory."""

    label = "local disk"

    def __init__(self, root):
        super().__init__(root)
        self.environment: dict[str, str] = {}

    def clone(self, old, new):
        """Make a table at ``new`` that is as the one at ``old``; nothing where nothing is."""
        if os.path.lexists(old):
            shutil.copytree(old, new, symlinks=True)

    def settle(self):
        """Wait until what dead processes asked for has been done or refused."""

    def forget(self, url):
        """Remove a table that is no longer looked at."""
        shutil.rmtree(url, ignore_errors=True)

    def folders(self, url):
        """Return the directories of a table that hold nothing at all."""
        return [
            os.path.relpath(folder, url)
            for folder, folders, files in os.walk(url)
            if not folders and not files
        ]


@dataclass
class Executioner:
    """Kills a process when it sends its n-th request, which then goes nowhere."""

    proxy: CountingProxy
    at: int = 0
    pid: int | None = None
    came: int = 0
    _known: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        self.proxy.instead = self

    def await_victim(self, at):
        """Begin to count; :meth:`victim` says who it is."""
        self.proxy.clear()
        self._known.clear()
        self.at, self.came, self.pid = at, 0, None

    def victim(self, pid):
        """Say which process it is."""
        self.pid = pid
        self._known.set()

    def __call__(self, _method, _key):
        with self._lock:
            self.came += 1
            mine = self.came
        if not self.at or mine < self.at:
            return None
        if mine == self.at:
            self._known.wait(60)
            os.kill(self.pid, signal.SIGKILL)
        return 503


class S3Ground(S3Place):
    """A bucket of its own on any server, behind a proxy."""

    label = "moto"

    def __init__(self, server, proxy):
        super().__init__(server)
        self.environment = dict(server.environment)
        self.watched = self.environment | {"AWS_ENDPOINT_URL": proxy.url}
        self.proxy = proxy
        self.executioner = Executioner(proxy)

    def clone(self, old, new):
        source, target = self._key(old) + "/", self._key(new) + "/"

        def copy(key):
            # The server's own copy keeps what is known of an object besides its bytes.
            self.client.copy_object(
                Bucket=self.bucket, Key=target + key.removeprefix(source),
                CopySource={"Bucket": self.bucket, "Key": key},
            )  # fmt: skip

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, self.keys(source)))

    def settle(self):
        # A request that was on its way when its sender died is still carried out.
        ends = time.monotonic() + 10
        while len(self.proxy.requests) < self.executioner.came and time.monotonic() < ends:
            time.sleep(0.002)
        time.sleep(0.01)

    def forget(self, url):
        keys = self.keys(self._key(url) + "/")
        for first in range(0, len(keys), 1000):
            batch = [{"Key": key} for key in keys[first : first + 1000]]
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch})

    def folders(self, _url):
        return []

    def store(self, url, *, read_only=True):
        options = {
            "key": self.environment["AWS_ACCESS_KEY_ID"],
            "secret": self.environment["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": self.environment["AWS_ENDPOINT_URL"],
            "client_kwargs": {"region_name": self.environment.get("AWS_DEFAULT_REGION")},
            "use_listings_cache": False,
        }
        return FsspecStore.from_url(url, storage_options=options, read_only=read_only)


class MotoGround(S3Ground):
    """A bucket of moto's, which lies in this very process: no need to ask for what is in it."""

    def clone(self, old, new):
        self.moto.copy_many(self.bucket, self._key(old) + "/", self._key(new) + "/")

    def objects(self, url):
        prefix = self._key(url) + "/"
        found = self.moto.contents(self.bucket, prefix)
        return {key.removeprefix(prefix): content for key, content in found.items()}


class AnyS3Server:
    """A server that somebody else runs, with what :class:`tests.places.S3Place` asks of moto.

    Parameters
    ----------
    file
        Lines of ``NAME=value``: the AWS variables, and ``S3BUCKET``, a bucket that may be filled
        and emptied. Without it buckets are made.
    """

    def __init__(self, file):
        lines = Path(file).read_text().splitlines()
        pairs = [line.removeprefix("export ").split("=", 1) for line in lines if "=" in line]
        variables = {name.strip(): value.strip().strip("'\"") for name, value in pairs}
        self._bucket = variables.pop("S3BUCKET", None)
        self.environment = {k: v for k, v in variables.items() if k.startswith("AWS_")}
        self.url = self.environment["AWS_ENDPOINT_URL"]
        self._client: Any = None

    def client(self):
        if self._client is None:
            self._client = boto3.session.Session().client(
                "s3",
                endpoint_url=self.url,
                aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
                region_name=self.environment.get("AWS_DEFAULT_REGION"),
                config=Config(max_pool_connections=16, s3={"addressing_style": "path"}),
            )
        return self._client

    def fresh_bucket(self):
        name = self._bucket or f"ratzarr-stress-{uuid.uuid4().hex[:12]}"
        known = [bucket["Name"] for bucket in self.client().list_buckets()["Buckets"]]
        if name not in known:
            self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def s3_ground(server, label):
    """Yield a place on a server, behind a proxy of its own."""
    with ExitStack() as stack:
        proxy = stack.enter_context(counting_proxy(server.url))
        ground = (MotoGround if isinstance(server, Moto) else S3Ground)(server, proxy)
        ground.label = label
        run = uuid.uuid4().hex[:8]
        fresh: Callable[..., str] = ground.new

        def new(name="seg.tif.rat.zarr"):
            # In a bucket that others use too, and that an earlier run may have filled.
            head, _, rest = fresh(name).removeprefix("s3://").partition("/")
            return f"s3://{head}/run-{run}/{rest}"

        ground.new = new
        yield ground
