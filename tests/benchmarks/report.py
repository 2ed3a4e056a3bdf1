"""What came of the benchmarks: a table for docs/benchmarks.md, and pictures beside it."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.contest import Result

__all__ = ["draw", "line", "write"]

BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench writes -->"


def line(result: Result) -> str:
    """Return a result as a line of a Markdown table."""
    reached = {True: "yes", False: "**no**", None: ""}[result.reached]
    unit = "" if result.unit == "x" else f" {result.unit}"
    bar = "" if result.bar is None else f"{result.bar}{unit}"
    return f"| {result.work} | {result.rival} | {result.figure}{unit} | {bar} | {reached} |"


def table(results: Iterable[Result]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        "| work | against | figure (least to most) | bar | reached |",
        "|---|---|---|---|---|",
        *(line(result) for result in results),
    ]


def write(
    path: Path,
    machine: Sequence[str],
    sections: Mapping[str, Sequence[Result]],
    pictures: Iterable[Path],
    *,
    whole: bool = True,
) -> None:
    """Put the tables between the marks of a document, and leave the rest of it as it is.

    With ``whole=False``, only the given sections are replaced. Below the title of each, the first
    line about the machine says when and where it was run.
    """
    text = path.read_text()
    before, found, rest = text.partition(BEGIN)
    there, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{path}: expected the lines {BEGIN!r} and {END!r} in it")
    if not whole:
        for title, results in sections.items():
            new = "\n".join([f"### {title}", "", machine[0], "", *table(results), ""])
            there, count = re.subn(
                rf"^### {re.escape(title)}\n(?:(?!###|!\[).*\n)*",
                lambda _, new=new: new + "\n",
                there,
                flags=re.MULTILINE,
            )
            if count != 1:
                raise SystemExit(f"{path}: expected one section {title!r} in it, found {count}")
        path.write_text(before + BEGIN + there + END + after)
        return
    lines = [BEGIN, "", *machine, ""]
    for title, results in sections.items():
        lines += [f"### {title}", "", *table(results), ""]
    lines += [f"![{each.stem}]({each.relative_to(path.parent)})" for each in pictures]
    path.write_text(before + "\n".join([*lines, "", END]) + after)


def draw(folder: Path, sections: Mapping[str, Sequence[Result]]) -> list[Path]:
    """Draw a picture for each section: every figure as a part of its bar."""
    try:
        from matplotlib import rcParams
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        print("no pictures: they need matplotlib (make bench installs it)", file=sys.stderr)
        return []
    # The same file for the same figures, and text that can be searched.
    rcParams["svg.hashsalt"], rcParams["svg.fonttype"] = "ratzarr", "none"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for title, results in sections.items():
        judged = [result for result in results if result.bar is not None]
        if not judged:
            continue
        figure = Figure(figsize=(9, 0.32 * len(judged) + 1.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        places = range(len(judged), 0, -1)
        for place, result in zip(places, judged, strict=True):
            bar = result.bar
            assert bar is not None
            # Below 1 is good, whichever way the bar is meant.
            part = [
                bar.limit / value if bar.at_least else value / bar.limit
                for value in (result.figure.median, result.figure.least, result.figure.most)
            ]
            colour = "tab:green" if result.reached else "tab:red"
            axes.plot(sorted(part[1:]), [place, place], color=colour, linewidth=1)
            axes.plot(part[0], place, "o", color=colour)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_yticks(list(places), [f"{r.work} ({r.rival})" for r in judged], fontsize=7)
        axes.set_xscale("log")
        axes.set_xlabel("figure as a part of its bar: left of the line it is reached")
        axes.set_title(title)
        path = folder / f"{title.lower().replace(',', '').replace(' ', '-')}.svg"
        figure.savefig(path, metadata={"Date": None})
        drawn.append(path)
    return drawn
