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
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.places import LocalPlace, S3Place
from tests.servers.counting import CountingProxy, counting_proxy


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
        self.moto.copy_many(self.bucket, self.key(old) + "/", self.key(new) + "/")

    def objects(self, url):
        prefix = self.key(url) + "/"
        found = self.moto.contents(self.bucket, prefix)
        return {key.removeprefix(prefix): content for key, content in found.items()}

    def settle(self):
        # A request that was on its way when its sender died is still carried out.
        ends = time.monotonic() + 10
        while len(self.proxy.requests) < self.executioner.came and time.monotonic() < ends:
            time.sleep(0.002)
        time.sleep(0.01)

    def forget(self, url):
        keys = self.keys(self.key(url) + "/")
        for first in range(0, len(keys), 1000):
            batch = [{"Key": key} for key in keys[first : first + 1000]]
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch})

    def folders(self, _url):
        return []


@contextmanager
def s3_ground(server, label):
    """Yield a place on a server, behind a proxy of its own."""
    with counting_proxy(server.url) as proxy:
        ground = S3Ground(server, proxy)
        ground.label = label
        yield ground
