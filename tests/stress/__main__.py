"""``make stress``: all of it, many times over, on every kind of place; and a table of what came of it.

    make stress                                    everything, some twenty minutes on two cores
    make stress STRESS_ARGS="--places local"       one kind of place
    make stress STRESS_ARGS="--times 5 --write"    longer; the table goes into docs/reliability.md

Exit code 1 where anything was lost, or could not be told apart from what should be there.
"""

import argparse
import importlib.metadata
import platform
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ratzarr import damage
from tests.servers.ceph import running_ceph, why_not
from tests.servers.moto import running_moto
from tests.stress import columns, metadata, resizing, rows
from tests.stress.copies import COPIES
from tests.stress.kills import FREE, Killing
from tests.stress.operations import OPERATIONS
from tests.stress.places import LocalGround, s3_ground
from tests.stress.processes import Crew, Nursery
from tests.stress.scenario import SCENARIOS, Stage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- make stress: begin -->", "<!-- make stress: end -->"
PLACES = {"local": "local disk", "moto": "moto", "ceph": "Ceph"}
assert {scenario.play.__module__ for scenario in SCENARIOS} == {
    module.__name__ for module in (columns, metadata, resizing, rows)
}


@dataclass
class Findings:
    """What was tried where, how often, and what came of it."""

    rows: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    kills: int = 0

    def add(self, what: str, place: str, found: Counter[str]) -> None:
        """Enter what came of something."""
        for outcome, times in found.items():
            self.rows.setdefault((what, outcome), Counter())[place] += times

    @contextmanager
    def trying(self, what: str, place: str) -> Iterator[None]:
        """Go on with the rest where something fails."""
        begun = time.monotonic()
        try:
            yield
        except Exception:
            self.failures.append(f"{what} ({place})\n{traceback.format_exc()}")
            print(self.failures[-1], file=sys.stderr)
        print(f"  {time.monotonic() - begun:6.1f} s  {place}: {what}", flush=True)

    def table(self, places: list[str]) -> list[str]:
        """Return lines of Markdown."""
        lines = [
            "| scenario | outcome | " + " | ".join(places) + " |",
            "|---|---|" + "--:|" * len(places),
        ]
        last = ""
        for (what, outcome), times in self.rows.items():
            numbers = " | ".join(f"{times[place]:,}" if times[place] else "-" for place in places)
            lines.append(f"| {what if what != last else ''} | {outcome} | {numbers} |")
            last = what
        return lines


def together(ground: Any, crew: Crew, options: Any, findings: Findings) -> None:
    """Many processes at one table."""
    for scenario in SCENARIOS:
        what = f"{len(crew)} processes: {scenario.name}"
        with findings.trying(what, ground.label):
            stage = Stage(ground, crew, scenario.rounds * options.times, options.seed)
            findings.add(what, ground.label, scenario.play(stage))


def killed(ground: Any, nursery: Nursery, options: Any, findings: Findings) -> None:
    """Kill processes at every step, and at random moments."""
    for operation in [*OPERATIONS, *COPIES]:
        what = f"killed while {operation.name}"
        with findings.trying(what, ground.label):
            killing = Killing(operation, ground, nursery, options.seed)
            killing.everywhere()
            killing.at_random(6 * options.times)
            killing.found.pop(FREE, None)
            findings.add(what, ground.label, killing.found)
            findings.kills += killing.kills


def damaged(folder: str, findings: Findings) -> None:
    """Flip every bit of every object of a table, cut each at every length."""
    url = damage.fill(f"{folder}/damaged.rat.zarr", damage.NAMES)
    with damage.Damage(url) as damaging:
        for name in damage.NAMES:
            expected = damage.values_of(name, damage.ROWS)
            for kind, keys in _objects_of(url, name).items():
                what = (
                    f"every bit of {kind} flipped, cut at every length, bytes inserted and removed"
                )
                with findings.trying(what, f"{PLACES['local']}, column {name!r}"):
                    found: Counter[str] = Counter()
                    for key in keys:
                        found += _damaged_object(damaging, url, name, key, expected)
                    wrong = {said: n for said, n in found.items() if said.startswith("WRONG")}
                    assert not wrong, wrong
                    assert kind != "chunks" or set(found) == {"error"}, found
                    words = {
                        "error": "an error that names object, column and rows"
                        if kind == "chunks"
                        else "an error that names the object",
                        "right": "read correctly: blanks appended, or only the checksum cut off",
                    }
                    named = Counter({words[said]: n for said, n in found.items()})
                    findings.add(what, PLACES["local"], named)


def _objects_of(url: str, name: str) -> dict[str, list[str]]:
    folder = Path(url, "RAT", name)
    chunks = [str(path.relative_to(url)) for path in folder.rglob("c/**/*") if path.is_file()]
    return {"chunks": chunks[:5], "documents": [f"RAT/{name}/zarr.json"]}


def _damaged_object(
    damaging: damage.Damage, url: str, name: str, key: str, expected: Any
) -> Counter[str]:
    content = damage.content_of(url, key)

    def read() -> Any:
        with damage.RatZarr(url, readOnly=True) as table:
            return table.readBlock(name, 0, damage.ROWS)

    ways = [*damage.flips(content), *damage.cuts(content), *damage.others(content)]
    return damage.outcomes(damaging, key, ways, read, expected, (key,))


def random_work(ground: Any, options: Any, findings: Findings) -> None:
    """Let hypothesis drive several instances against a model in numpy."""
    from tests.ratzarr.statemachine import run
    from tests.stress.processes import environment

    what = "several instances make 30 random changes, compared with numpy arrays"
    with findings.trying(what, ground.label), environment(ground.environment):
        examples = (100 if ground.kind == "local" else 10) * options.times
        run(ground, examples, options.seed)
        findings.add(what, ground.label, Counter({"equal after every change": examples}))


def run_all(options: Any, findings: Findings) -> list[str]:
    """Do everything; return the labels of the places."""
    labels = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rz-"))
        crew = stack.enter_context(Crew(options.processes))
        nursery = stack.enter_context(Nursery())
        makers: dict[str, Callable[[], Any]] = {"moto": running_moto, "ceph": running_ceph}
        for place in options.places:
            label = PLACES[place]
            labels.append(label)
            print(f"{label}:", flush=True)
            with ExitStack() as inner:
                if place == "local":
                    ground: Any = LocalGround(folder)
                else:
                    server = inner.enter_context(makers[place]())
                    ground = inner.enter_context(s3_ground(server, label))
                together(ground, crew, options, findings)
                killed(ground, nursery, options, findings)
                random_work(ground, options, findings)
        if "local" in options.places:
            damaged(folder, findings)
    return labels


def heading(options: Any, findings: Findings, seconds: float) -> list[str]:
    """Return in words what run the table is of."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("zarr", "numpy", "s3fs")
    )
    lost = f"{len(findings.failures)} FAILED" if findings.failures else "nothing was lost"
    said = f"{findings.kills:,} processes were killed; {lost}" if findings.kills else lost
    words = (
        f"From a run of `make stress` on {time.strftime('%Y-%m-%d')}: {platform.system()}, Python "
        f"{platform.python_version()}, {versions}, seed {options.seed}, {seconds / 60:.0f} "
        f"minutes. {said[0].upper()}{said[1:]}."
    )
    return [words]


def write(lines: list[str]) -> None:
    """Put the table into the page, in the place of the last one."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text("\n".join([head + BEGIN, *lines, END + tail]))
    print(f"written into {PAGE}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--places", default="", help="of local,moto,ceph; all that can be had")
    parser.add_argument("--times", type=int, default=3, help="as often as the short tests")
    parser.add_argument("--processes", type=int, default=12, help="at one table")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--write", action="store_true", help=f"the table into {PAGE.name}")
    options = parser.parse_args()
    places = options.places.split(",") if options.places else list(PLACES)
    if unknown := set(places) - set(PLACES):
        parser.error(f"no such place: {', '.join(unknown)}; there are {', '.join(PLACES)}")
    reason = why_not() if "ceph" in places else None
    if reason is not None:
        print(f"Ceph is left out: {reason}")
        places.remove("ceph")
    options.places = places

    begun = time.monotonic()
    findings = Findings()
    labels = run_all(options, findings)
    lines = heading(options, findings, time.monotonic() - begun)
    lines += ["", *findings.table(labels)]
    print("\n" + "\n".join(lines))
    if findings.failures:
        print("\n\n".join(["", *findings.failures]), file=sys.stderr)
        return 1
    if options.write:
        write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
