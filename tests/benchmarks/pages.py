"""Small blocks and single pages: what viewers and segmentation programs ask for."""

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from ratzarr import RatZarr
from ratzarr.settings import CACHE_BYTES
from tests.benchmarks.columns import make
from tests.benchmarks.contest import Bar, Result, Spread, compare, result
from tests.benchmarks.scale import Scale
from tests.decompression import decompressed

__all__ = ["main"]

CHUNK = 500_000
WITHIN = Bar(1.5)
PAGE_ROWS, PAGE_COLUMNS = 1000, 100
PAGE_BAR = Bar(20)
SCATTERED = 60
"""Pages at random places, of one column after another."""
TEXT_BAR, CACHE_BAR = Bar(5), Bar(1.1)


def main(scale: Scale) -> Iterator[Result]:
    """Small blocks, written and read, against whole chunks; then pages of many columns.

    What is written goes through a buffer, which is asked for; without one each block is in the
    store when the call returns.
    """
    rows = scale.rows[0]
    yield from _small_blocks(scale, rows)
    yield from _random_pages(scale, min(rows, 2_000_000))
    yield from _scattered_pages(scale, min(rows, 2_000_000))


def _small_blocks(scale: Scale, rows: int) -> Iterator[Result]:
    values = {name: make(name, rows) for name in ("count", "mean")}
    chunk = min(CHUNK, rows // 2)
    sizes = {"a fiftieth of a chunk": chunk // 50, "a fifth of a chunk": chunk // 5}
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        path = Path(scratch, "t.rat.zarr")

        def write(block: int, starts: list[int], *, buffer: bool = True) -> None:
            with RatZarr(path, writeBuffer=buffer) as table:
                table.setChunkSize(chunk)
                table.setRowCount(rows)
                for name, column in values.items():
                    table.createColumn(name, column.dtype)
                for start in starts:
                    for name, column in values.items():
                        table.writeBlock(name, column[start : start + block], start)

        def read(block: int, starts: list[int]) -> None:
            with RatZarr(path, readOnly=True) as table:
                for start in starts:
                    for name in values:
                        table.readBlock(name, start, block)

        aligned = list(range(0, rows, chunk))
        runs: dict[str, tuple[int, list[int]]] = {}
        for words, block in sizes.items():
            runs[f"{words}, in order"] = block, list(range(0, rows, block))
        # As segmentations are tiled: neighbouring pages come soon after each other, not next.
        page = sizes["a fifth of a chunk"]
        starts = list(range(0, rows, page))
        order = np.random.default_rng(1)
        mixed = [s for i in range(0, len(starts), 8) for s in order.permutation(starts[i : i + 8])]
        runs["a fifth of a chunk, out of order"] = page, [int(start) for start in mixed]

        through = "a fifth of a chunk, in order, without a buffer"
        for what, call in (("write", write), ("read", read)):
            contenders: dict[str, Callable[[], None]] = {
                "whole chunks": lambda call=call: call(chunk, aligned)
            }
            if what == "write":
                in_order = list(range(0, rows, page))
                contenders[through] = lambda page=page, order=in_order: write(
                    page, order, buffer=False
                )
            for words, (block, begin) in runs.items():
                contenders[words] = lambda call=call, block=block, begin=begin: call(block, begin)
            before = (
                (lambda: shutil.rmtree(path, ignore_errors=True))
                if what == "write"
                else (lambda: None)
            )
            if what == "read":
                write(chunk, aligned)
            seconds = compare(contenders, scale.rounds, before)
            for words in runs:
                yield result(
                    f"{what} blocks of {words}", "whole chunks", seconds, WITHIN, ours=words
                )
            if what == "write":
                yield result(
                    f"write blocks of {through}", "whole chunks", seconds, None, ours=through
                )
            shutil.rmtree(path, ignore_errors=True)


def _random_pages(scale: Scale, rows: int) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        path = Path(scratch, "t.rat.zarr")
        names = [f"column {number}" for number in range(PAGE_COLUMNS)]
        with RatZarr(path) as table:
            table.setRowCount(rows)
            kinds = {kind: make(kind, rows) for kind in ("count", "mean", "class", "two_decimals")}
            for name, values in zip(names, itertools.cycle(kinds.values()), strict=False):
                table.createColumn(name, values.dtype)
                table.writeBlock(name, values, 0)
        milliseconds, decoded = [], []
        rng = np.random.default_rng(2)
        for _ in range(scale.rounds):
            with RatZarr(path, readOnly=True) as table, decompressed() as unpacked:
                table.readBlocks(names, 0, 1)
                start = int(rng.integers(rows // 2, rows - PAGE_ROWS))
                unpacked.clear()
                began = time.perf_counter()
                table.readBlocks(names, start, PAGE_ROWS)
                milliseconds.append((time.perf_counter() - began) * 1e3)
                for later in range(start, min(start + 6 * PAGE_ROWS, rows), PAGE_ROWS):
                    table.readBlocks(names, later, min(PAGE_ROWS, rows - later))
            last = min(start + 6 * PAGE_ROWS, rows) - 1
            chunks = last // CHUNK - start // CHUNK + 1
            size = sum(values.itemsize for values in kinds.values()) * PAGE_COLUMNS // len(kinds)
            decoded.append(sum(unpacked) / (chunks * CHUNK * size))
        yield Result(
            f"a page of {PAGE_ROWS} rows, {PAGE_COLUMNS} columns, at a random place",
            "a limit in milliseconds",
            Spread.of(milliseconds),
            PAGE_BAR,
            unit="ms",
        )
        yield Result(
            "what is unpacked for that page and the next five",
            "the chunks that they lie in",
            Spread.of(decoded),
            Bar(1.0),
        )


def _scattered_pages(scale: Scale, rows: int) -> Iterator[Result]:
    """Pages of text against pages of numbers, and pages with the cache of chunks against none."""
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        path = Path(scratch, "t.rat.zarr")
        kinds = ("mean", "count", "label")
        with RatZarr(path, newRowCount=rows) as table:
            for name in kinds:
                values = make(name, rows)
                table.createColumn(name, str if name == "label" else values.dtype)
                table.writeBlock(name, values, 0)
        starts = np.random.default_rng(3).integers(0, rows - PAGE_ROWS, SCATTERED).tolist()

        def read(name: str, cache: str) -> None:
            with (
                mock.patch.dict(os.environ, {CACHE_BYTES: cache}),
                RatZarr(path, readOnly=True) as table,
            ):
                for start in starts:
                    table.readBlock(name, start, PAGE_ROWS)

        seconds = compare(
            {
                "float64": lambda: read("mean", ""),
                "strings": lambda: read("label", ""),
                "int32": lambda: read("count", ""),
                "float64 without a cache": lambda: read("mean", "0"),
                "int32 without a cache": lambda: read("count", "0"),
            },
            scale.rounds,
        )
        pages = f"{SCATTERED} pages of {PAGE_ROWS} rows at random places"
        yield result(f"{pages}, strings", "float64", seconds, TEXT_BAR, ours="strings")
        for name in ("float64", "int32"):
            yield result(
                f"{pages}, {name}", f"{name} without a cache", seconds, CACHE_BAR, ours=name
            )
