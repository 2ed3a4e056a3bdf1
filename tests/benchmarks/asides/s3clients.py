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

import numpy as np

from ratzarr import RatZarr
from ratzarr.stores.base import parse
from ratzarr.stores.obstore import ObstoreObjects
from ratzarr.stores.s3 import S3Objects

IN_FLIGHT = 16
SIZES = {"16 kB": (16 * 1024, 320), "4 MB": (4 * 1024 * 1024, 32)}
RUNS = 7


def timed(
    pool: ThreadPoolExecutor, call: Callable[[int], object], count: int
) -> tuple[float, ...]:
    """Return seconds and seconds of CPU."""
    started, cpu = time.perf_counter(), time.process_time()
    list(pool.map(call, range(count)))
    return time.perf_counter() - started, time.process_time() - cpu


def table(client: str) -> Callable[[], object]:
    """Return what writes and reads 8 columns of 40 small chunks."""
    url = f"s3://{os.environ['S3BUCKET']}/bench-{uuid.uuid4().hex}.rat.zarr"
    rows, chunk = 40_000, 1000
    opened = RatZarr(url, storageOptions={"client": client})
    opened.setChunkSize(chunk)
    opened.setRowCount(rows)
    values = {f"c{n}": np.random.default_rng(n).normal(size=rows) for n in range(8)}
    for name in values:
        opened.createColumn(name, np.float64)

    def run() -> None:
        opened.writeBlocks(values, 0)
        opened.readBlocks(list(values), 0, rows)

    return run


def main() -> None:
    """Print the ratios of neighbouring runs, as the other benchmarks do."""
    if not os.environ.get("S3BUCKET"):
        print("left out: needs a server (S3BUCKET, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...)")
        return
    place = f"s3://{os.environ['S3BUCKET']}/bench-{uuid.uuid4().hex}"
    clients = {"s3fs": S3Objects(parse(place)), "obstore": ObstoreObjects(parse(place))}
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
    for size in SIZES:
        clients["s3fs"].delete_tree(size)
    runs = {name: table(name) for name in clients}
    ratios = []
    for turn in range(RUNS + 1):
        took = {}
        for name in sorted(runs, reverse=bool(turn % 2)):
            started = time.perf_counter()
            runs[name]()
            took[name] = time.perf_counter() - started
        if turn:
            ratios.append(took["s3fs"] / took["obstore"])
    print(
        f"a table, 320 chunks of 8 kB written and read: obstore is {statistics.median(ratios):.2f} "
        f"times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
    )
