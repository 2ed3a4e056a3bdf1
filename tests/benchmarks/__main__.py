"""Speed against named rivals, in turn in one run: ``make bench``, ``make bench BENCH_ARGS=--quick``.

What is compared with a bar is the median of the ratios of neighbouring runs; absolute times
depend on the machine.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.benchmarks import (
    copies,
    growing,
    imports,
    machine,
    opening,
    pages,
    painting,
    queries,
    report,
    scripts,
    stores,
    vector,
    zonal,
)
from tests.benchmarks.asides import codecs
from tests.benchmarks.contest import Result, from_json
from tests.benchmarks.scale import FULL, QUICK, Scale

DOCS = Path(__file__).parents[2] / "docs"
BENCHMARKS: dict[str, tuple[str, Callable[[Scale], Iterator[Result]]]] = {
    "copies": ("Copies between GDAL and sidecars", copies.main),
    "stores": ("Whole columns", stores.main),
    "scripts": ("Scripts", scripts.main),
    "pages": ("Small blocks and pages", pages.main),
    "painting": ("Columns on pixels", painting.main),
    "opening": ("Opening", opening.main),
    "growing": ("Time and memory against rows", growing.main),
    "imports": ("Starting", imports.main),
    "vector": ("Vector programs", vector.main),
    "queries": ("Queries in SQL", queries.main),
    "zonal": ("Zonal statistics", zonal.main),
}
# What decisions were made by; they have tables of their own, in docs/decisions.
ASIDES: dict[str, Callable[[], None]] = {"codecs": codecs.main}


def _elsewhere(python: str, scale: Scale) -> Iterator[Result]:
    """Run the copies with another Python."""
    rows = [str(rows) for rows in scale.rows]
    command = [python, "-m", "tests.benchmarks", "copies", "--json", "--rounds", str(scale.rounds)]
    with subprocess.Popen([*command, "--rows", *rows], stdout=subprocess.PIPE, text=True) as there:
        assert there.stdout is not None
        for text in there.stdout:
            yield from_json(text)
    if there.returncode:
        raise SystemExit(f"{python}: its copies ended with exit code {there.returncode}")


def _version(python: str) -> str:
    code = "from tests.benchmarks.machine import gdal_in_words as w; print(w())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


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
        "--write",
        action="store_true",
        help="the tables and pictures into docs/benchmarks.md, of these names alone",
    )
    parser.add_argument(
        "--hfa", metavar="PYTHON", help="one whose GDAL has HFA, where this one's has not"
    )
    parser.add_argument("--json", action="store_true", help="print the results as lines of JSON")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BENCHMARKS) - set(ASIDES)
    if unknown:
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    if given.write and (given.quick or given.rows or given.rounds):
        parser.error("--write is for full sizes: without --quick, --rows and --rounds")
    scale = QUICK if given.quick else FULL
    scale = dataclasses.replace(
        scale, rows=tuple(given.rows or scale.rows), rounds=given.rounds or scale.rounds
    )
    if given.json:
        for name in given.names or BENCHMARKS:
            for result in BENCHMARKS[name][1](scale):
                print(json.dumps(dataclasses.asdict(result)), flush=True)
        return 0
    if not given.quick:
        machine.touch_memory()
    about = machine.describe()
    for text in about:
        print(text)
    sections: dict[str, list[Result]] = {}

    def show(title: str, results: Iterable[Result]) -> None:
        print(f"\n### {title}\n", flush=True)
        sections[title] = []
        for result in results:
            sections[title].append(result)
            print(report.line(result), flush=True)

    for name in given.names or BENCHMARKS:
        if name in ASIDES:
            ASIDES[name]()
            continue
        title, run = BENCHMARKS[name]
        show(title, run(scale))
        if name == "copies" and given.hfa:
            show(f"{title}, HFA", _elsewhere(given.hfa, scale))
            about.append(f"HFA: {_version(given.hfa)}.")
    judged = [result for results in sections.values() for result in results if result.bar]
    print(f"\n{sum(bool(r.reached) for r in judged)} of {len(judged)} bars reached")
    if given.write:
        pictures = report.draw(DOCS / "benchmarks", sections)
        report.write(DOCS / "benchmarks.md", about, sections, pictures, whole=not given.names)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
