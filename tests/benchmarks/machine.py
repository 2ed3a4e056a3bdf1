"""What is measured on, and with."""

import datetime as dt
import importlib
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numcodecs import blosc
from osgeo import gdal

__all__ = ["describe", "gdal_in_words", "touch_memory", "two_threads"]

PACKAGES = ("zarr", "numpy", "numcodecs", "pyarrow", "s3fs")


def describe() -> list[str]:
    """Return it in words."""
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in PACKAGES]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return [
        (
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {_processor()}, {os.cpu_count()} cores, "
            f"{memory:.0f} GiB, {platform.system()} {platform.machine()}. "
            f"Two threads compress and decompress {two_threads():.1f} times as fast as one."
        ),
        f"CPython {platform.python_version()}, {', '.join(versions)}, {gdal_in_words()}.",
    ]


def touch_memory(part: float = 0.8) -> None:
    """Touch most of the memory that is free, once, so that no contender is the first to do so.

    A virtual machine is given its memory when it first uses it, which takes several times as long as
    all that is measured here: whoever came first would pay for those that come after.
    """
    # In a process of its own, which gives all of it back.
    size = int(part * _available())
    if size:
        subprocess.run([sys.executable, "-c", TOUCH, str(size)], check=True)


TOUCH = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if hasattr(mmap, "MADV_HUGEPAGE"):
    memory.madvise(mmap.MADV_HUGEPAGE)
for place in range(0, len(memory), mmap.PAGESIZE):
    memory[place] = 1
"""


def _available() -> int:
    """Return how many bytes of memory are free; 0 where the system does not say so."""
    info = Path("/proc/meminfo")
    for text in info.read_text().splitlines() if info.exists() else ():
        if text.startswith("MemAvailable"):
            return int(text.split()[1]) * 1024
    return 0


def gdal_in_words() -> str:
    """Return GDAL's version."""
    return f"GDAL {gdal.VersionInfo('RELEASE_NAME')}"


def two_threads(tries: int = 5, each: int = 8) -> float:
    """Return how many times as much work two threads do as one: of cores that are none it is 1."""
    values = np.round(np.random.default_rng(0).normal(12, 9, 100_000), 2)

    def work() -> None:
        for _ in range(each):
            blosc.decompress(blosc.compress(values, b"zstd", 1, blosc.NOSHUFFLE))

    def both() -> None:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return statistics.median(2 * _seconds(work) / _seconds(both) for _ in range(tries))


def _seconds(run: Callable[[], None]) -> float:
    # In a thread as well: in the main one Blosc would use threads of its own.
    thread = threading.Thread(target=run)
    started = time.perf_counter()
    thread.start()
    thread.join()
    return time.perf_counter() - started


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for text in info.read_text().splitlines() if info.exists() else ():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.processor() or "a processor of unknown make"
