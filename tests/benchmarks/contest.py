"""Runs of rivals in turn, and what comes of them: ratios of neighbouring runs, never times alone.

A machine is not equally fast at all times. So each round runs every contender once, in an
order that changes from round to round, and what counts is the median of the rounds' ratios,
with the least and the greatest beside it.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Bar", "Result", "Spread", "compare", "timed"]

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Spread:
    """What was measured several times."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


@dataclass(frozen=True, slots=True)
class Bar:
    """How good is good enough: at most so much of the rival's time, or at least so many times as fast."""

    limit: float
    at_least: bool = False

    def reached(self, value: float) -> bool:
        """Whether a figure will do."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the report."""

    work: str
    rival: str
    figure: Spread
    bar: Bar | None
    unit: str = "x"
    """``x`` for ratios: of our time to the rival's, or, with a bar that says at least, the
    rival's to ours."""
    remark: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Medians of each contender, for the pictures."""

    @property
    def reached(self) -> bool | None:
        """Whether the bar is; None where there is none."""
        return None if self.bar is None else self.bar.reached(self.figure.median)


def from_json(text: str) -> Result:
    """Return a result that was written as JSON, all of its fields in an object."""
    fields = json.loads(text)
    fields["figure"] = Spread(**fields["figure"])
    fields["bar"] = fields["bar"] and Bar(**fields["bar"])
    return Result(**fields)


def timed(run: Run) -> float:
    """Return the seconds that a run takes."""
    # What an earlier contender has left behind is not to be collected in this one's time.
    gc.collect()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(
    contenders: Mapping[str, Run], rounds: int, between: Run = lambda: None
) -> dict[str, list[float]]:
    """Run every contender once in each round, in turning order, after one that is not counted.

    Parameters
    ----------
    between : callable
        Runs before each of them, and is not timed: to remove what the last one has written.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            between()
            took = timed(contenders[name])
            if turn:
                seconds[name].append(took)
    return seconds


def result(
    work: str,
    rival: str,
    seconds: Mapping[str, Sequence[float]],
    bar: Bar | None,
    *,
    ours: str = "ratzarr",
    remark: str = "",
) -> Result:
    """Make a line of the seconds of :func:`compare`.

    Several rivals, joined by ``|``: in each round the slowest of them counts.
    """
    rivals = rival.split("|")
    theirs = [max(turn) for turn in zip(*(seconds[name] for name in rivals), strict=True)]
    pairs = zip(seconds[ours], theirs, strict=True)
    at_least = bar is not None and bar.at_least
    ratios = [their / our if at_least else our / their for our, their in pairs]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return Result(
        work,
        " or ".join(rivals) + (", whichever is slower" if rivals[1:] else ""),
        Spread.of(ratios),
        bar,
        remark=remark,
        seconds=medians,
    )
