"""Speed against named rivals, in turn in one run: ``make bench``, ``make bench BENCH_ARGS=--quick``.

What is compared with a bar is the median of the ratios of neighbouring runs; absolute times
depend on the machine.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import copies, growing, imports, opening, pages, report, stores
from .asides import codecs, s3clients
from .contest import Result
from .scale import FULL, QUICK, Scale

DOCS = Path(__file__).parents[2] / "docs"
BENCHMARKS: dict[str, tuple[str, Callable[[Scale], Iterator[Result]]]] = {
    "copies": ("Copies between GDAL and sidecars", copies.main),
    "stores": ("Whole columns", stores.main),
    "pages": ("Small blocks and pages", pages.main),
    "opening": ("Opening", opening.main),
    "growing": ("Time and memory against rows", growing.main),
    "imports": ("Starting", imports.main),
}
# What decisions were made by; they have tables of their own, in docs/decisions and docs/stores.md.
ASIDES: dict[str, Callable[[], None]] = {"codecs": codecs.main, "s3clients": s3clients.main}


def main(arguments: list[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of: {', '.join([*BENCHMARKS, *ASIDES])}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small tables, once; see that it runs"
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", help="tables of so many rows instead of the usual ones"
    )
    parser.add_argument("--rounds", type=int, help="run each contender so many times")
    parser.add_argument(
        "--write", action="store_true", help="the tables and pictures into docs/benchmarks.md"
    )
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHMARKS) - set(ASIDES)
    if unknown:
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    if given.write and (given.quick or given.names or given.rows or given.rounds):
        parser.error("--write is for a whole run: without --quick, --rows, --rounds and names")
    scale = QUICK if given.quick else FULL
    scale = dataclasses.replace(
        scale, rows=tuple(given.rows or scale.rows), rounds=given.rounds or scale.rounds
    )
    for text in report.machine():
        print(text)
    sections: dict[str, list[Result]] = {}
    for name in given.names or BENCHMARKS:
        if name in ASIDES:
            ASIDES[name]()
            continue
        title, run = BENCHMARKS[name]
        print(f"\n### {title}\n", flush=True)
        sections[title] = []
        for result in run(scale):
            sections[title].append(result)
            print(report.line(result), flush=True)
    judged = [result for results in sections.values() for result in results if result.bar]
    print(f"\n{sum(bool(r.reached) for r in judged)} of {len(judged)} bars reached")
    if given.write:
        pictures = report.draw(DOCS / "benchmarks", sections)
        report.write(DOCS / "benchmarks.md", sections, pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
