"""Whole columns written and read: against a plain Zarr group, Parquet, and numpy's own files."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.columns import NUMBERS, STRINGS, make
from tests.benchmarks.contest import Bar, Result, Spread, compare, result
from tests.benchmarks.rivals import Numpy, Ours, Parquet, PlainZarr, disk_bytes
from tests.benchmarks.scale import Scale

__all__ = ["main"]

KINDS = {
    "numbers": NUMBERS,
    "numbers but decimals": tuple(name for name in NUMBERS if name != "two_decimals"),
    "strings": STRINGS,
}
BARS = {
    "write": {"numbers": Bar(4, at_least=True), "strings": Bar(3, at_least=True)},
    "read": {"numbers": Bar(3, at_least=True), "strings": Bar(2, at_least=True)},
}
NOT_SLOWER = Bar(1.0)


def main(scale: Scale) -> Iterator[Result]:
    """Compare, for numbers and for strings, every size of the scale."""
    for rows in scale.rows:
        for kind, names in KINDS.items():
            if kind == "strings" and rows > scale.text_rows:
                continue
            yield from _one(scale, rows, kind, names)


def _one(scale: Scale, rows: int, kind: str, names: tuple[str, ...]) -> Iterator[Result]:
    values = {name: make(name, rows) for name in names}
    size = f"{rows / 1e6:g} M rows"
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        folder = Path(scratch)
        ours, plain = Ours(folder), PlainZarr(folder)
        zstd, none = Parquet(folder, "zstd"), Parquet(folder, "none")
        floor = Numpy(folder)

        def remove() -> None:
            for each in (ours, plain, zstd, none, floor):
                shutil.rmtree(each.path, ignore_errors=True)

        # Blocks in order as a script has them, against the older module's; whole columns,
        # against what takes whole columns only.
        blocks = compare(
            {"ratzarr": lambda: ours.write(values), "plain zarr": lambda: plain.write(values)},
            scale.rounds,
            remove,
        )
        yield result(
            f"write {kind}, {size}, in blocks",
            "plain zarr",
            blocks,
            BARS["write"][kind.split(maxsplit=1)[0]],
        )
        contenders = {
            "ratzarr": lambda: ours.write_whole(values),
            "Parquet, zstd": lambda: zstd.write(values),
            "Parquet, not packed": lambda: none.write(values),
        }
        if kind != "strings":
            contenders["numpy files"] = lambda: floor.write(values)
        whole = compare(contenders, scale.rounds, remove)
        yield result(f"write {kind}, {size}, at once", "Parquet, zstd", whole, NOT_SLOWER)
        yield result(f"write {kind}, {size}, at once", "Parquet, not packed", whole, None)
        if kind != "strings":
            yield result(f"write {kind}, {size}, at once", "numpy files", whole, None)

        remove()
        for each in (ours, plain, zstd, none, *([floor] if kind != "strings" else [])):
            each.write(values)
        if names in (NUMBERS, STRINGS):
            yield from _sizes(ours, plain, names, kind, size)
        for each in (ours, plain, zstd, none):
            found = each.read(names)
            for name in names:
                assert np.array_equal(found[name], values[name]), (each, name)
        readers = {
            "ratzarr": lambda: ours.read(names),
            "plain zarr": lambda: plain.read(names),
            "Parquet, zstd": lambda: zstd.read(names),
            "Parquet, not packed": lambda: none.read(names),
        }
        if kind != "strings":
            readers["numpy files"] = lambda: floor.read(names)
        seconds = compare(readers, scale.rounds)
        yield result(
            f"read {kind}, {size}", "plain zarr", seconds, BARS["read"][kind.split(maxsplit=1)[0]]
        )
        yield result(f"read {kind}, {size}", "Parquet, zstd", seconds, NOT_SLOWER)
        yield result(f"read {kind}, {size}", "Parquet, not packed", seconds, None)
        if kind != "strings":
            yield result(f"read {kind}, {size}", "numpy files", seconds, None)


def _sizes(
    ours: Ours, plain: PlainZarr, names: tuple[str, ...], kind: str, size: str
) -> Iterator[Result]:
    total_ours = total_theirs = 0
    for name in names:
        mine, theirs = disk_bytes(ours.path / "RAT" / name), disk_bytes(plain.path / name)
        total_ours, total_theirs = total_ours + mine, total_theirs + theirs
        yield Result(
            f"size on disk of {name}, {size}",
            "plain zarr",
            Spread.of([mine / theirs]),
            Bar(1.1),
        )
    yield Result(
        f"size on disk of all {kind}, {size}",
        "plain zarr",
        Spread.of([total_ours / total_theirs]),
        Bar(1.0),
    )
