"""obstore against s3fs, as our store would use either: objects, from 16 threads at once.

Needs a server: the bucket in ``S3BUCKET``, the rest in the AWS tools' variables. What came of
it is in docs/stores.md.
"""

import os
import statistics
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import obstore
from obstore.exceptions import PreconditionError
from obstore.store import S3Store

from ratzarr.location import parse
from ratzarr.s3objects import S3Objects

IN_FLIGHT = 16
SIZES = {"16 kB": (16 * 1024, 320), "4 MB": (4 * 1024 * 1024, 32)}
RUNS = 7


class Obstore:
    """The same few operations, through obstore."""

    def __init__(self, place: str) -> None:
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        self.store = S3Store(
            bucket,
            prefix=prefix,
            endpoint=endpoint,
            client_options={"allow_http": endpoint.startswith("http://")},
            virtual_hosted_style_request=False,
        )

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self.store, key).bytes())

    def put(self, key: str, data: bytes) -> None:
        obstore.put(self.store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> str | None:
        try:
            return obstore.put(self.store, key, data, mode="create")["e_tag"]
        except FileExistsError:
            return None
        except obstore.exceptions.AlreadyExistsError:
            return None

    def replace(self, key: str, data: bytes, version: str) -> str | None:
        try:
            return obstore.put(self.store, key, data, mode={"e_tag": version})["e_tag"]
        except PreconditionError:
            return None


def timed(
    pool: ThreadPoolExecutor, call: Callable[[int], object], count: int
) -> tuple[float, ...]:
    """Return seconds and seconds of CPU."""
    started, cpu = time.perf_counter(), time.process_time()
    list(pool.map(call, range(count)))
    return time.perf_counter() - started, time.process_time() - cpu


def conditions(client: Obstore) -> None:
    """Say whether conditions hold, with the etag as it came and without its quotes."""
    print(
        f"obstore: create, new: {client.create('c', b'1')!r}; again: {client.create('c', b'2')!r}"
    )
    etag = obstore.head(client.store, "c")["e_tag"]
    for form, version in (("as it came", etag), ("unquoted", etag.strip('"'))):
        try:
            print(
                f"obstore: replace, etag {form} ({version}): {client.replace('c', b'3', version)!r}"
            )
        except Exception as error:
            print(f"obstore: replace, etag {form}: {type(error).__name__}: {error!s:.200}")
        etag = obstore.head(client.store, "c")["e_tag"]


def main() -> None:
    """Print the ratios of neighbouring runs, as the other benchmarks do."""
    if not os.environ.get("S3BUCKET"):
        print("left out: needs a server (S3BUCKET, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...)")
        return
    place = f"s3://{os.environ['S3BUCKET']}/bench-{uuid.uuid4().hex}"
    ours, theirs = S3Objects(parse(place)), Obstore(place)
    conditions(theirs)
    clients = {"s3fs": ours, "obstore": theirs}
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for size, (length, count) in SIZES.items():
            data = os.urandom(length)
            for what, call in {
                "PUT": lambda client, n, data=data, size=size: client.put(f"{size}/{n}", data),
                "GET": lambda client, n, size=size: client.get(f"{size}/{n}"),
            }.items():
                wall, cpu, best = [], [], {}
                for run in range(RUNS + 1):
                    took = {}
                    for name in sorted(clients, reverse=bool(run % 2)):
                        took[name] = timed(pool, partial(call, clients[name]), count)
                    if run:
                        wall.append(took["s3fs"][0] / took["obstore"][0])
                        cpu.append(took["s3fs"][1] / took["obstore"][1])
                        for name, (seconds, _) in took.items():
                            best[name] = min(seconds, best.get(name, seconds))
                print(
                    f"{count} {what}s of {size}: obstore is {statistics.median(wall):.2f} times as "
                    f"fast ({min(wall):.2f} to {max(wall):.2f}), with CPU time "
                    f"1/{statistics.median(cpu):.1f}; per object, at best: "
                    + ", ".join(f"{name} {1000 * s / count:.2f} ms" for name, s in best.items())
                )
    ours.delete_tree("16 kB")
    ours.delete_tree("4 MB")
    ours.delete(["c"])
